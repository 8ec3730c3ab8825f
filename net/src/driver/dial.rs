//! Dialling: version 2 of the transport is tried before version 1, and a link that the operator asked for is made again
//! whenever it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::link::{End, Ended};
use super::proxy::{Failed, Target, connect};
use super::{Happened, Shared, entropy, link};
use crate::addr::NetAddr;
use crate::peer::{LinkKind, Permissions};
use crate::permissions::Grant;
use crate::wire::Codec;

/// The pause before an address is dialled again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An address or a name that is dialled.
pub(super) struct Dialled {
    pub target: Target,
    /// As the operator wrote it.
    pub name: Option<String>,
    pub kind: LinkKind,
    pub v2: bool,
    keep: AtomicBool,
    /// Tells that it is not to be kept any more.
    forgotten: Notify,
    linked: Mutex<Option<NetAddr>>,
}

impl Dialled {
    /// `keep`: dial again when the link is lost.
    pub fn new(target: Target, name: Option<String>, kind: LinkKind, v2: bool, keep: bool) -> Dialled {
        let (keep, forgotten, linked) = (AtomicBool::new(keep), Notify::new(), Mutex::new(None));
        Dialled { target, name, kind, v2, keep, forgotten, linked }
    }

    /// Dials no more once the link is lost.
    pub fn forget(&self) {
        self.keep.store(false, Ordering::Release);
        self.forgotten.notify_one();
    }

    /// The other end, while there is a link.
    pub fn linked(&self) -> Option<NetAddr> {
        *self.linked.lock()
    }
}

/// Dials until it is told to forget the address or the hub is gone.
pub(super) async fn keep(dialled: Arc<Dialled>, shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        if visit(&dialled, &shared).await == Visit::Stopped {
            return;
        }
        if begun.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        if dialled.keep.load(Ordering::Acquire) {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = dialled.forgotten.notified() => {}
            }
        }
        pause = LONGEST_PAUSE.min(pause * 2);
        if !dialled.keep.load(Ordering::Acquire) {
            return;
        }
    }
}

/// Dials once.
pub(super) async fn once(dialled: Arc<Dialled>, shared: Arc<Shared>) {
    visit(&dialled, &shared).await;
}

/// Dials an address of the protocol's choice once, and says so if there is no link.
pub(super) async fn once_for_protocol(addr: NetAddr, dialled: Arc<Dialled>, shared: Arc<Shared>) {
    if let Visit::Failed { tried } = visit(&dialled, &shared).await {
        shared.tell(Happened::DialFailed { addr, tried }).await;
    }
}

/// What came of dialling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visit {
    /// There was a link, and it has ended.
    Ended,
    /// There was none.
    Failed { tried: bool },
    /// The hub is gone.
    Stopped,
}

/// Makes a link if that is possible and runs it to its end.
async fn visit(dialled: &Dialled, shared: &Arc<Shared>) -> Visit {
    for v2 in [true, false] {
        if v2 && !dialled.v2 {
            continue;
        }
        if !shared.is_active() {
            return Visit::Failed { tried: false };
        }
        let proxies = *shared.proxies.read();
        let (stream, addr) = match connect(&dialled.target, &proxies).await {
            Ok(connected) => connected,
            Err(_) if shared.events.is_closed() => return Visit::Stopped,
            // Without version 2 it cannot be reached any more: that is no news of the dialling.
            Err(_) if dialled.v2 && !v2 => return Visit::Ended,
            Err(Failed { tried }) => return Visit::Failed { tried },
        };
        let manual = dialled.kind == LinkKind::Manual;
        let grants: &[Grant] = if manual { &shared.options.grants } else { &[] };
        let permissions: Permissions = Grant::sum(grants, &addr.host, false);
        let network = addr.host.network();
        let end = End { addr, name: dialled.name.clone(), kind: dialled.kind, permissions, network };
        let magic = shared.options.magic;
        let codec = if v2 { Codec::v2(magic, entropy()) } else { Codec::v1(magic) };
        *dialled.linked.lock() = Some(addr);
        let Ended { may_speak_v1, stopped } = link::run(stream, end, codec, None, shared.clone()).await;
        *dialled.linked.lock() = None;
        if stopped {
            return Visit::Stopped;
        }
        if !may_speak_v1 {
            return Visit::Ended;
        }
    }
    Visit::Ended
}
