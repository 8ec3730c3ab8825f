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
        // Also a message without contents takes memory.
        let bytes = wire_len + size_of::<Message>();
        peer.inbox_bytes += bytes;
        peer.inbox.push_back((message, bytes));
        if peer.inbox_bytes > limits.inbox_bytes && !peer.paused {
            peer.paused = true;
            out.push(Output::PauseRead(id));
        }
        self.core.inbox_bytes += bytes;
        if self.core.inbox_bytes > self.core.config.limits.inbox_bytes_in_all {
            self.lighten(now, out);
        }
    }

    /// Ends the link of the peer whose messages take most, of those that dialled us.
    fn lighten(&mut self, now: Micros, out: &mut Vec<Output>) {
        let may_go = |peer: &&mut Peer| peer.kind.is_inbound() && !peer.permissions.no_ban && peer.closing.is_none();
        let heaviest = self.peers.values_mut().filter(may_go).max_by_key(|peer| (peer.inbox_bytes, peer.id));
        if let Some(peer) = heaviest.filter(|peer| peer.inbox_bytes > 0) {
            Cx { now, core: &mut self.core, out }.disconnect(peer, Reason::TooMuchWaits);
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
            let Some((message, bytes)) = peer.inbox.pop_front() else { return peer.rest() };
            peer.inbox_bytes -= bytes;
            self.core.inbox_bytes -= bytes;
            self.route(id, message, now, view, out);
        }
    }
}
