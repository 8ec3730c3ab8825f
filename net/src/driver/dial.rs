//! Dialling: the name is resolved, version 2 of the transport is tried before version 1, and a link that the operator
//! asked for is made again whenever it is lost.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::link::Ended;
use super::{Happened, Shared, entropy, link};
use crate::addr::NetAddr;
use crate::peer::{LinkKind, NODE_NETWORK, NODE_WITNESS};
use crate::wire::Codec;

/// How long a connection may take to be made. Core: `DEFAULT_CONNECT_TIMEOUT`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to find out what a name stands for.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Addresses that are taken of one name, so that no seed says all. Core: `nMaxIPs`.
const MAX_SEED_ADDRESSES: usize = 32;
/// The pause before an address is dialled again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An address that was asked for.
pub(super) struct Dialled {
    address: String,
    kind: LinkKind,
    /// Begin with version 2 of the transport.
    v2: bool,
    keep: AtomicBool,
    linked: AtomicBool,
    was_linked: AtomicBool,
}

impl Dialled {
    /// `keep`: dial again when the link is lost.
    pub fn new(address: String, kind: LinkKind, keep: bool) -> Dialled {
        let no = || AtomicBool::new(false);
        Dialled { address, kind, v2: true, keep: AtomicBool::new(keep), linked: no(), was_linked: no() }
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

/// Dials an address that the protocol chose, once, and tells the hub if that gives no link.
pub(super) async fn reach(addr: NetAddr, kind: LinkKind, v2: bool, shared: Arc<Shared>) {
    let dialled = Dialled { v2, ..Dialled::new(addr.to_string(), kind, false) };
    visit(&dialled, &shared).await;
    if !dialled.was_linked.load(Ordering::Acquire) {
        shared.tell(Happened::DialFailed(addr)).await;
    }
}

/// Finds out what a name stands for and tells the hub.
pub(super) async fn resolve(name: String, shared: Arc<Shared>) {
    let host = format!("x{:x}.{name}", NODE_NETWORK | NODE_WITNESS);
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, shared.options.port))).await;
    let addrs = found.ok().and_then(Result::ok).into_iter().flatten().map(NetAddr::from);
    let addrs = addrs.take(MAX_SEED_ADDRESSES).collect();
    shared.tell(Happened::Seeded(name, addrs)).await;
}

/// Makes a link if that is possible and runs it to its end; whether the hub is gone.
async fn visit(dialled: &Dialled, shared: &Arc<Shared>) -> bool {
    for v2 in [true, false] {
        if v2 && !(shared.options.v2 && dialled.v2) {
            continue;
        }
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, connect(&dialled.address, shared.options.port));
        let Ok(Some((stream, addr))) = connect.await else { return shared.events.is_closed() };
        let magic = shared.options.magic;
        let codec = if v2 { Codec::v2(magic, entropy()) } else { Codec::v1(magic) };
        dialled.linked.store(true, Ordering::Release);
        dialled.was_linked.store(true, Ordering::Release);
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
