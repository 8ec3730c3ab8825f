//! The ledger answers: what that means for the peer that the work was for, and for those who wait for the outcome.

use groat_chain::rejection::{Blame, Rejection};

use super::*;

impl Protocol {
    /// The ledger has answered. What was asked for a peer that is gone still counts for the chain.
    pub(super) fn on_done(&mut self, token: Token, done: Done, now: Micros, view: &impl View, out: &mut Vec<Output>) {
        let Some((id, pending)) = self.core.pending.remove(&token) else { return };
        let cx = &mut Cx { now, core: &mut self.core, out };
        let mut peer = self.peers.get_mut(&id);
        if let Some(peer) = &mut peer {
            peer.awaited -= 1;
        }
        match (pending, done) {
            (Pending::Headers(batch), Done::Headers(Ok(()))) => {
                if let Some(last) = view.find(&batch.last()) {
                    self.headers_known(id, last, batch, now, view, out);
                }
            }
            (Pending::Headers(_), Done::Headers(Err(rejection))) => {
                if let Some(peer) = peer {
                    punish(peer, rejection, "invalid header", &mut self.guard, cx);
                }
            }
            (Pending::CmpctBlock(block), Done::Headers(Ok(()))) => {
                if let Some(known) = view.find(&block.header.block_hash()) {
                    let known = (&*block, known, true);
                    let fine = self.compact.on_header_known(&mut self.peers, id, known, &mut self.blocks, view, cx);
                    self.judge(id, fine, now, out);
                }
            }
            (Pending::CmpctBlock(_), Done::Headers(Err(rejection))) => {
                // Who pushes a block need not have judged it, only its header.
                if matches!(rejection.blame(), Blame::Consensus | Blame::Missing) {
                    self.judge(id, Err("invalid header via cmpctblock"), now, out);
                }
            }
            (Pending::Block { hash, length, form }, Done::Block(verdict)) => {
                if let Some(peer) = &mut peer {
                    peer.blocks.unjudged_bytes -= length;
                    match verdict {
                        Verdict::Stored => peer.last_block = Some(now),
                        Verdict::Known => {}
                        _ if form != Form::Whole => {}
                        Verdict::Undecodable => cx.disconnect(peer, Reason::BadBlock),
                        Verdict::Rejected(rejection) => punish(peer, rejection, "invalid block", &mut self.guard, cx),
                    }
                }
                let stored = matches!(verdict, Verdict::Stored | Verdict::Known);
                self.blocks.on_judged(&mut self.peers, &hash, stored, cx);
                if let (Form::Compact { first }, Some(peer)) = (form, self.peers.get_mut(&id)) {
                    let mutated = match verdict {
                        Verdict::Rejected(rejection) => rejection.blame() == Blame::Mutated,
                        Verdict::Undecodable => true,
                        Verdict::Stored | Verdict::Known => false,
                    };
                    self.compact.on_judged(peer, hash, mutated, first, &mut self.blocks, cx);
                }
                self.compact.tidy(&self.blocks);
            }
            (Pending::Transaction { one, first }, Done::Transaction(verdict)) => {
                self.compact.remember(&one.tx, verdict, cx);
                if let (Some(peer), TxVerdict::Accepted) = (peer, verdict) {
                    self.relay.on_known(peer, &GenTxid::Wtxid(one.wtxid));
                    if first {
                        peer.relay.last_transaction = Some(now);
                    }
                }
                self.download.on_judged(id, &one, first, verdict, &mut self.peers, view, cx);
            }
            (Pending::Package { parent, child }, Done::Package(verdicts)) => {
                for (one, verdict) in [&parent, &child].into_iter().zip(&verdicts) {
                    self.compact.remember(&one.tx, *verdict, cx);
                }
                if let Some(peer) = peer {
                    for one in [&parent, &child] {
                        self.relay.on_known(peer, &GenTxid::Wtxid(one.wtxid));
                    }
                }
                self.download.on_package(&parent, &child, &verdicts, view, now);
            }
            (Pending::Read(_), Done::Read(block)) => {
                if let Some(peer) = peer {
                    serve::on_read(peer, token, block, cx);
                }
            }
            (Pending::Read(shape), Done::Decoded(block)) => {
                if let Some(peer) = peer {
                    let fine = serve::on_decoded(peer, token, block, &shape, cx);
                    self.judge(id, fine, now, out);
                }
            }
            (Pending::Filters(wanted), Done::Filters(read)) => {
                if let Some(peer) = peer {
                    filters::on_filters(peer, token, wanted, read, cx);
                }
            }
            (Pending::Filters(wanted), Done::FilterHeaders(read)) => {
                if let Some(peer) = peer {
                    filters::on_headers(peer, token, wanted, read, cx);
                }
            }
            _ => debug_assert!(false, "an answer is of the kind of its question"),
        }
        self.go_on(id, now, view, out);
    }

    /// A peer's headers up to `last` are here.
    pub(super) fn headers_known(
        &mut self,
        id: PeerId,
        last: Id,
        batch: Batch,
        now: Micros,
        view: &impl View,
        out: &mut Vec<Output>,
    ) {
        let cx = &mut Cx { now, core: &mut self.core, out };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.headers.on_known(peer, last, batch, view, cx);
        handshake::maybe_send_sendheaders(peer, view, cx);
        self.blocks.wake(id);
    }
}

/// The ledger refused what a peer sent. Core: `MaybePunishNodeForBlock`.
pub(super) fn punish(peer: &mut Peer, rejection: Rejection, what: &'static str, guard: &mut Guard, cx: &mut Cx<'_>) {
    match rejection.blame() {
        Blame::Consensus | Blame::Mutated | Blame::Missing => guard.misbehaved(peer, what, cx),
        // An inbound peer may not know yet what we know of that block.
        Blame::Duplicate if !peer.kind.is_inbound() => guard.misbehaved(peer, what, cx),
        Blame::Duplicate | Blame::Future | Blame::Policy | Blame::Reconsiderable | Blame::WitnessStripped => {}
    }
}
