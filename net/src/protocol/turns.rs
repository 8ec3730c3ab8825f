//! Whose turn it is: messages of one peer take effect in order, and no peer waits for another.

use super::*;

impl Protocol {
    /// A message takes effect at once, or waits for what the peer sent before it. Blocks that we asked for never wait.
    pub(super) fn on_message(
        &mut self,
        id: PeerId,
        message: Message,
        wire_len: usize,
        now: Micros,
        view: &impl View,
        out: &mut Vec<Output>,
    ) {
        let limits = &self.core.config.limits;
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.closing.is_none()) else { return };
        let asked = match &message {
            Message::Block(bytes) if peer.blocks.unjudged_bytes < limits.unjudged_block_bytes => {
                self.blocks.is_asked(id, &blocks::header_of(bytes).block_hash())
            }
            _ => false,
        };
        if asked || (peer.inbox.is_empty() && !peer.must_wait(limits.send_pause_bytes)) {
            self.route(id, message, now, view, out);
            return self.go_on(id, now, view, out);
        }
        peer.inbox_bytes += wire_len;
        peer.inbox.push_back((message, wire_len));
        if peer.inbox_bytes > limits.inbox_bytes && !peer.paused {
            peer.paused = true;
            out.push(Output::PauseRead(id));
        }
    }

    /// Goes on with all peers whose requests wait.
    pub(super) fn go_on_all(&mut self, now: Micros, view: &impl View, out: &mut Vec<Output>) {
        let waiting: Vec<PeerId> =
            self.peers.values().filter(|peer| !peer.wanted.is_empty()).map(|peer| peer.id).collect();
        waiting.into_iter().for_each(|id| self.go_on(id, now, view, out));
    }

    /// Goes on with a peer's requests and the messages that wait, as far as it can.
    pub(super) fn go_on(&mut self, id: PeerId, now: Micros, view: &impl View, out: &mut Vec<Output>) {
        loop {
            let limits = &self.core.config.limits;
            let (pause, inbox_bytes) = (limits.send_pause_bytes, limits.inbox_bytes);
            let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.closing.is_none()) else { return };
            let cx = &mut Cx { now, core: &mut self.core, out };
            serve::go_on(peer, &mut self.relay, &mut self.recent_block, view, cx);
            filters::go_on(peer, cx);
            if peer.paused && peer.inbox_bytes <= inbox_bytes / 2 {
                peer.paused = false;
                out.push(Output::ResumeRead(id));
            }
            if peer.closing.is_some() || peer.must_wait(pause) {
                return;
            }
            self.download.go_on(peer, &mut Cx { now, core: &mut self.core, out });
            if peer.awaited > 0 {
                return;
            }
            let Some((message, wire_len)) = peer.inbox.pop_front() else { return };
            peer.inbox_bytes -= wire_len;
            self.route(id, message, now, view, out);
        }
    }
}
