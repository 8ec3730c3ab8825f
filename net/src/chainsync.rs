//! Outbound peers must be on a chain as good as ours: who stays behind for long is asked once, then replaced. So an
//! attacker cannot hold our slots with nodes that lead nowhere. Core: `ConsiderEviction`.

use crate::headers::{self, Behind};
use crate::peer::Peer;
use crate::protocol::{Cx, Reason};
use crate::timers::{CHAIN_SYNC_INTERVAL, CHAIN_SYNC_TIMEOUT, HEADERS_RESPONSE_TIME, Timer};
use crate::view::{Id, View};

/// Looks at the chain of an outbound peer, and sets when to look again.
pub(crate) fn look(peer: &mut Peer, view: &impl View, cx: &mut Cx<'_>) {
    if peer.headers.protected || !peer.kind.is_outbound_or_block_relay() {
        return;
    }
    cx.core.timers.set(peer.id, Timer::ChainSync, cx.now + CHAIN_SYNC_INTERVAL);
    if !peer.headers.sync_started {
        return;
    }
    let tip = view.tip();
    let best = peer.headers.best_known.map(|best| view.entry(best).work);
    let reaches = |id: Id| best.is_some_and(|best| best >= view.entry(id).work);
    match peer.headers.behind {
        _ if reaches(tip) => peer.headers.behind = None,
        None => peer.headers.behind = Some(Behind { until: cx.now + CHAIN_SYNC_TIMEOUT, goal: tip, asked: false }),
        Some(behind) if reaches(behind.goal) => {
            peer.headers.behind = Some(Behind { until: cx.now + CHAIN_SYNC_TIMEOUT, goal: tip, asked: false });
        }
        Some(behind) if cx.now <= behind.until => {}
        Some(behind) if behind.asked => cx.disconnect(peer, Reason::ChainBehind),
        Some(behind) => {
            // From below the goal, so that a peer that has it answers with it.
            let from = view.entry(behind.goal).parent.unwrap_or(behind.goal);
            headers::ask(peer, view.locator(from), cx);
            peer.headers.behind = Some(Behind { until: cx.now + HEADERS_RESPONSE_TIME, asked: true, ..behind });
        }
    }
}
