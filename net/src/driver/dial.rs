//! Dialling: the name is resolved, version 2 of the transport is tried before version 1, and a link that the operator
//! asked for is made again whenever it is lost.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::link::Ended;
use super::{Shared, entropy, link};
use crate::peer::LinkKind;
use crate::wire::Codec;

/// How long a connection may take to be made. Core: `DEFAULT_CONNECT_TIMEOUT`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before an address is dialled again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An address that was asked for.
pub(super) struct Dialled {
    address: String,
    kind: LinkKind,
    keep: AtomicBool,
    linked: AtomicBool,
}

impl Dialled {
    /// `keep`: dial again when the link is lost.
    pub fn new(address: String, kind: LinkKind, keep: bool) -> Dialled {
        Dialled { address, kind, keep: AtomicBool::new(keep), linked: AtomicBool::new(false) }
    }

    /// Dials no more once the link is lost.
    pub fn forget(&self) {
        self.keep.store(false, Ordering::Release);
    }

    pub fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Acquire)
    }
}

/// Dials once, or until it is told to forget the address or the hub is gone.
pub(super) async fn run(dialled: Arc<Dialled>, shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        if visit(&dialled, &shared).await {
            return;
        }
        if begun.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        if dialled.keep.load(Ordering::Acquire) {
            tokio::time::sleep(pause).await;
        }
        pause = LONGEST_PAUSE.min(pause * 2);
        if !dialled.keep.load(Ordering::Acquire) {
            return;
        }
    }
}

/// Makes a link if that is possible and runs it to its end; whether the hub is gone.
async fn visit(dialled: &Dialled, shared: &Arc<Shared>) -> bool {
    for v2 in [true, false] {
        if v2 && !shared.options.v2 {
            continue;
        }
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, connect(&dialled.address, shared.options.port));
        let Ok(Some((stream, addr))) = connect.await else { return shared.events.is_closed() };
        let magic = shared.options.magic;
        let codec = if v2 { Codec::v2(magic, entropy()) } else { Codec::v1(magic) };
        dialled.linked.store(true, Ordering::Release);
        let Ended { may_speak_v1, stopped } = link::run(stream, addr, dialled.kind, codec, None, shared.clone()).await;
        dialled.linked.store(false, Ordering::Release);
        if stopped || !may_speak_v1 {
            return stopped;
        }
    }
    false
}

async fn connect(address: &str, default_port: u16) -> Option<(TcpStream, SocketAddr)> {
    let (host, port) = host_and_port(address, default_port);
    for addr in tokio::net::lookup_host((host, port)).await.ok()? {
        if let Ok(stream) = TcpStream::connect(addr).await {
            return Some((stream, addr));
        }
    }
    None
}

/// The parts of `host`, `host:port`, `[v6]` or `[v6]:port`. Core: `SplitHostPort`.
pub(super) fn host_and_port(address: &str, default_port: u16) -> (&str, u16) {
    let bare = |host: &str| host.parse::<IpAddr>().is_ok();
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !bare(address) => match port.parse() {
            Ok(port) => (host, port),
            Err(_) => (address, default_port),
        },
        _ => (address, default_port),
    };
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}
