//! Taking links in, at a bounded rate and a bounded number of unfinished handshakes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;

use super::half_open::Source;
use super::link::End;
use super::{Shared, entropy, link};
use crate::addr::{NetAddr, Network};
use crate::peer::{LinkKind, Permissions};
use crate::permissions::Grant;
use crate::wire::Codec;

/// Links taken in before a pause.
const BURST: usize = 64;
/// The pause: at most 2,000 links a second come in.
const PAUSE: Duration = Duration::from_millis(32);
/// The pause after the operating system refused one, as it does when there are too many open files: until some are
/// closed, links wait with it.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

/// What those who come in at an address have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Door {
    /// What they may do, whoever they are (`-whitebind`).
    pub permissions: Permissions,
    /// They come from Tor's daemon (`-bind=...=onion`).
    pub onion: bool,
}

/// Takes links in for ever. One of them waits while too many handshakes are unfinished, and the others behind it, with
/// the operating system.
pub(super) async fn accept(listener: TcpListener, door: Door, shared: Arc<Shared>) {
    for count in 1_usize.. {
        match listener.accept().await {
            Ok((stream, from)) => {
                let NetAddr { host, port } = NetAddr::from(from);
                let addr = NetAddr { host: host.on_cjdns(shared.options.cjdns), port };
                let permissions = door.permissions | Grant::sum(&shared.options.grants, &addr.host, true);
                let source = Source::of(from.ip()).filter(|_| !permissions.no_ban);
                let full = shared.inbound.load(Ordering::Acquire) >= shared.options.max_inbound;
                if !full
                    && shared.is_active()
                    && let Some(place) = shared.half_open.place(source).await
                {
                    shared.inbound.fetch_add(1, Ordering::AcqRel);
                    let network = if door.onion { Network::Onion } else { addr.host.network() };
                    let end = End { addr, name: None, kind: LinkKind::Inbound, permissions, network };
                    let magic = shared.options.magic;
                    let codec =
                        if shared.options.v2 { Codec::incoming(magic, entropy()) } else { Codec::incoming_v1(magic) };
                    let shared = shared.clone();
                    let run = async move {
                        link::run(stream, end, codec, Some(place), shared.clone()).await;
                        shared.inbound.fetch_sub(1, Ordering::AcqRel);
                    };
                    tokio::runtime::Handle::current().spawn(run);
                }
            }
            Err(_) => tokio::time::sleep(PAUSE_AFTER_ERROR).await,
        }
        if count % BURST == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
