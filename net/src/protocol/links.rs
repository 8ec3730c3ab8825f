//! Links begin, become ready and end: what each module is told of that.

use super::*;

impl Protocol {
    /// A link was made: it is refused, or the handshake begins.
    pub(super) fn on_connected(&mut self, id: PeerId, now: Micros, view: &impl View, out: &mut Vec<Output>) {
        let cx = &mut Cx { now, core: &mut self.core, out };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let inbound = peer.kind.is_inbound();
        if !inbound {
            let counts = self.dialling.take_pending(&peer.addr).unwrap_or(false);
            self.book.attempted(&peer.addr, counts, cx.now.seconds32());
        }
        if !self.dialling.active {
            return cx.disconnect(peer, Reason::Inactive);
        }
        if inbound && !slots::admit(&mut self.peers, id, &self.guard, view, cx) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            handshake::start(peer, view, cx);
        }
    }

    /// A peer has said its version. Who answers our dial is remembered, also when it does not offer what we want.
    pub(super) fn on_version(&mut self, id: PeerId, services: u64, now: Micros, out: &mut Vec<Output>) {
        let cx = &mut Cx { now, core: &mut self.core, out };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.kind.is_inbound() {
            self.book.set_services(&peer.addr, services);
        }
        let Some(their) = &peer.their else { return };
        if peer.kind.is_inbound() {
            return self.local.seen(&their.sees_us_as.host);
        }
        self.gossip.on_version(peer, cx);
        self.book.good(&peer.addr, cx.now.seconds32());
    }

    pub(super) fn forget(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.remove(&id) else { return };
        if peer.ready && matches!(peer.kind, LinkKind::OutboundFull | LinkKind::Manual | LinkKind::AddrFetch) {
            self.book.seen(&peer.addr, now.seconds32());
        }
        if !peer.kind.is_inbound() {
            self.dialling.wake(now);
        }
        self.core.inbox_bytes -= peer.inbox_bytes;
        self.core.timers.forget(id);
        self.core.dialled.remove(&peer.nonce);
        self.headers.on_gone(&peer);
        self.blocks.on_gone(&peer);
        self.compact.on_gone(peer.id);
        self.relay.on_gone(&peer);
        self.download.on_gone(&peer, now);
    }

    /// A handshake is done.
    pub(super) fn on_ready(&mut self, id: PeerId, now: Micros, view: &impl View, out: &mut Vec<Output>) {
        let cx = &mut Cx { now, core: &mut self.core, out };
        cx.event(Event::Ready(id));
        let Some(peer) = self.peers.get_mut(&id) else { return };
        ping::send(peer, cx);
        self.relay.on_ready(peer, cx);
        self.gossip.on_ready(peer, cx);
        self.download.on_ready(peer);
        chainsync::look(peer, view, cx);
        self.headers.maybe_start(&mut self.peers, Some(id), self.blocks.is_idle(), view, cx);
    }
}
