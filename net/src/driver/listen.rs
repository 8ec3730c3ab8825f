//! Taking links in, at a bounded rate and a bounded number of unfinished handshakes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;

use super::{Shared, entropy, link};
use crate::peer::LinkKind;
use crate::wire::Codec;

/// Links taken in before a pause.
const BURST: usize = 64;
/// The pause: at most 2,000 links a second come in.
const PAUSE: Duration = Duration::from_millis(32);
/// The pause after the operating system refused one, as it does when there are too many open files.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

/// Takes links in for ever. Links wait with the operating system while too many handshakes are unfinished.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    for count in 1_usize.. {
        let place = shared.half_open.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, addr)) => {
                if shared.inbound.fetch_add(1, Ordering::AcqRel) >= shared.options.max_inbound {
                    shared.inbound.fetch_sub(1, Ordering::AcqRel);
                } else {
                    let shared = shared.clone();
                    let codec = Codec::incoming(shared.options.magic, entropy());
                    let run = async move {
                        link::run(stream, addr, LinkKind::Inbound, codec, Some(place), shared.clone()).await;
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
