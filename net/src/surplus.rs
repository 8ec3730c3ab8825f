//! More outbound links than there are slots for, on purpose and for a while: with a stale tip another full peer is tried,
//! and now and then another one for blocks only. Then the least useful goes. Core: `CheckForStaleTipAndEvictPeers`.

use std::time::Duration;

use crate::blocks;
use crate::dial::Dialling;
use crate::peer::{LinkKind, Peer, Peers};
use crate::protocol::{Cx, Reason};
use crate::timers::{EXTRA_PEER_CHECK_INTERVAL, MINIMUM_CONNECT_TIME, Micros, STALE_CHECK_INTERVAL};
use crate::view::View;

/// When the next looks are due.
#[derive(Debug, Default)]
pub(crate) struct Surplus {
    look: Option<Micros>,
    stale_look: Micros,
    last_tip: Micros,
}

impl Surplus {
    /// The tip has moved.
    pub(crate) fn on_tip(&mut self, now: Micros) {
        self.last_tip = now;
    }

    /// The next look is so much earlier.
    pub(crate) fn forward(&mut self, by: Duration) {
        self.look.iter_mut().for_each(|at| *at = at.before(by));
    }

    /// When something is due.
    pub(crate) fn next(&self, automatic: bool) -> Option<Micros> {
        self.look.filter(|_| automatic)
    }

    /// Ends what is too much, and looks whether the tip is stale. `idle`: no block is being fetched.
    pub(crate) fn run(
        &mut self,
        peers: &mut Peers,
        idle: bool,
        dialling: &mut Dialling,
        view: &impl View,
        cx: &mut Cx<'_>,
    ) {
        if !cx.core.config.dialling.automatic {
            return;
        }
        let Some(look) = self.look else {
            self.look = Some(cx.now + EXTRA_PEER_CHECK_INTERVAL);
            self.last_tip = cx.now;
            return;
        };
        // A clock that went back draws no look out.
        if cx.now < look && look <= cx.now + EXTRA_PEER_CHECK_INTERVAL {
            return;
        }
        self.look = Some(cx.now + EXTRA_PEER_CHECK_INTERVAL);
        trim_block_relay(peers, cx);
        if trim_full(peers, cx) {
            // The stale tip has led to a new peer: that is enough until the next look.
            dialling.one_more_full = false;
        }
        if cx.now > self.stale_look || self.stale_look > cx.now + STALE_CHECK_INTERVAL {
            self.stale_look = cx.now + STALE_CHECK_INTERVAL;
            let patience = Duration::from_secs(u64::from(cx.core.config.params.spacing) * 3);
            dialling.one_more_full = dialling.active && idle && cx.now.since(self.last_tip) > patience;
            if dialling.one_more_full {
                dialling.wake(cx.now);
            }
        }
        if !dialling.one_more_for_blocks && blocks::can_direct_fetch(view, cx) {
            dialling.one_more_for_blocks = true;
            dialling.wake(cx.now);
        }
    }
}

fn open(peers: &Peers, kind: LinkKind) -> impl Iterator<Item = &Peer> {
    peers.values().filter(move |peer| peer.kind == kind && peer.closing.is_none())
}

/// Whether the peer had its time and owes us no block.
fn may_go(peer: &Peer, now: Micros) -> bool {
    now.since(peer.since) > MINIMUM_CONNECT_TIME && peer.blocks_in_flight().is_empty()
}

/// The youngest peer for blocks only goes, unless it gave us a block later than the one before it: then that one goes.
fn trim_block_relay(peers: &mut Peers, cx: &mut Cx<'_>) {
    let slots = cx.core.config.dialling.slots.block_relay;
    if open(peers, LinkKind::BlockRelay).filter(|peer| peer.ready).count() <= slots {
        return;
    }
    let mut by_age: Vec<&Peer> = open(peers, LinkKind::BlockRelay).collect();
    by_age.sort_unstable_by_key(|peer| std::cmp::Reverse(peer.id));
    let gone = match by_age[..] {
        [youngest, next, ..] if youngest.last_block > next.last_block => next.id,
        [youngest, ..] => youngest.id,
        [] => return,
    };
    if let Some(peer) = peers.get_mut(&gone).filter(|peer| may_go(peer, cx.now)) {
        cx.disconnect(peer, Reason::Surplus);
    }
}

/// The full peer goes that announced a new block least lately; of equals the youngest. Protected ones stay, and the only
/// one on a network.
fn trim_full(peers: &mut Peers, cx: &mut Cx<'_>) -> bool {
    let slots = cx.core.config.dialling.slots.outbound_full;
    if open(peers, LinkKind::OutboundFull).filter(|peer| peer.ready).count() <= slots {
        return false;
    }
    let only_one = |peer: &Peer| {
        let all = open(peers, LinkKind::OutboundFull).chain(open(peers, LinkKind::Manual));
        all.filter(|other| other.network == peer.network).count() < 2
    };
    let may_be_worst = |peer: &&Peer| !peer.headers.protected && !only_one(peer);
    let worst = open(peers, LinkKind::OutboundFull)
        .filter(may_be_worst)
        .min_by_key(|peer| (peer.headers.last_announcement, std::cmp::Reverse(peer.id)))
        .map(|peer| peer.id);
    let Some(peer) = worst.and_then(|id| peers.get_mut(&id)).filter(|peer| may_go(peer, cx.now)) else { return false };
    cx.disconnect(peer, Reason::Surplus);
    true
}
