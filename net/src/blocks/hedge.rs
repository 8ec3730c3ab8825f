//! Hedged requests for blocks (`--relay=groat`): a block just above the tip that does not come in time is asked of
//! another peer as well, and the first request stays open. Core waits for one peer for ten minutes and more.

use super::*;
use crate::protocol::Policy;
use crate::timers::{BLOCK_HEDGE_AFTER, BLOCK_HEDGE_AFTER_MAX, BLOCK_HEDGE_LOOK};

/// How far above the tip blocks are hedged: those above have to wait for these.
const HEDGED_HEIGHT_ABOVE_TIP: u32 = 2;

impl Blocks {
    /// When something is due that is no peer's own timer.
    pub(crate) fn next(&self) -> Option<Micros> {
        self.hedge
    }

    /// Whether the block was asked of another peer as it did not come.
    pub(crate) fn is_hedged(&self, hash: &BlockHash) -> bool {
        self.flights.get(hash).is_some_and(|flight| flight.hedged)
    }

    /// When another peer is to be asked for a block that `peer` is asked for now. Also counts what is missing of a
    /// compact block: the wait does not begin anew.
    pub(super) fn patience(&mut self, peer: &Peer, cx: &Cx<'_>) -> Option<Micros> {
        if cx.core.config.relay != Policy::Groat || cx.core.initial_download {
            return None;
        }
        let trips = 4 * peer.round_trips().0.unwrap_or_default();
        let at = cx.now + trips.clamp(BLOCK_HEDGE_AFTER, BLOCK_HEDGE_AFTER_MAX);
        self.hedge = Some(self.hedge.map_or(at, |before| before.min(at)));
        Some(at)
    }

    /// Asks others for what is overdue.
    pub(crate) fn run(&mut self, peers: &mut Peers, view: &impl View, cx: &mut Cx<'_>) {
        if self.hedge.is_none_or(|at| at > cx.now) {
            return;
        }
        let overdue = |flight: &Flight| flight.judging == 0 && flight.patience.is_some_and(|at| at <= cx.now);
        let hashes: Vec<BlockHash> =
            self.flights.iter().filter(|(_, flight)| overdue(flight)).map(|(hash, _)| *hash).collect();
        let near = can_direct_fetch(view, cx);
        for hash in hashes {
            // Somebody else may have it soon, or the tip may come near it.
            self.flights.entry(hash).and_modify(|flight| flight.patience = Some(cx.now + BLOCK_HEDGE_LOOK));
            let above = |id: &Id| view.entry(*id).height <= view.entry(view.tip()).height + HEDGED_HEIGHT_ABOVE_TIP;
            let Some(id) = view.find(&hash).filter(above) else { continue };
            let next = self.another(peers, id, view, cx);
            if let Some(peer) = next.and_then(|next| peers.get_mut(&next)) {
                self.request(peer, &[id], near, view, cx);
                self.flights.entry(hash).and_modify(|flight| flight.hedged = true);
            }
        }
        let open = self.flights.values().filter(|flight| flight.judging == 0 || !flight.asked.is_empty());
        self.hedge = open.filter_map(|flight| flight.patience).min().map(|at| at.max(cx.now + BLOCK_HEDGE_LOOK / 10));
    }

    /// A peer that has this block and was not asked for it: one that we dialled if there is any, as an attacker can have
    /// many others; of those the nearest.
    fn another(&self, peers: &mut Peers, id: Id, view: &impl View, cx: &Cx<'_>) -> Option<PeerId> {
        let entry = view.entry(id);
        let asked = self.asked(&entry.hash);
        let limits = &cx.core.config.limits;
        if asked.len() >= limits.block_requests || entry.invalid {
            return None;
        }
        let segwit = entry.height >= cx.core.config.params.segwit_height;
        let fit = |peer: &mut &mut Peer| {
            let idle = peer.ready && peer.closing.is_none() && peer.blocks.asked.len() < limits.blocks_in_transit;
            let serves = peer.serves_blocks() && (!segwit || peer.services() & NODE_WITNESS != 0);
            idle && serves && !asked.contains(&peer.id) && has_announced(peer, id, view)
        };
        let near = |peer: &mut Peer| (!peer.is_preferred(), peer.round_trips().0.unwrap_or(Duration::MAX), peer.id);
        peers.values_mut().filter_map(|mut peer| fit(&mut peer).then(|| near(peer))).min().map(|best| best.2)
    }
}

/// Whether the peer itself said that it has this block or one above it.
fn has_announced(peer: &mut Peer, id: Id, view: &impl View) -> bool {
    resolve_unknown(peer, view);
    peer.headers.best_known.is_some_and(|best| view.is_ancestor(id, best))
}
