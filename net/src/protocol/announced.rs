//! What peers announce and give that concerns several modules at once.

use super::*;

impl Protocol {
    /// Things were announced. Core: `ProcessMessage` INV.
    pub(super) fn on_inv(
        &mut self,
        id: PeerId,
        items: &[Inventory],
        now: Micros,
        view: &impl View,
        out: &mut Vec<Output>,
    ) {
        let cx = &mut Cx { now, core: &mut self.core, out };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut newest = None;
        for item in items {
            match item {
                Inventory::Block(hash) => {
                    headers::note_available(peer, *hash, view);
                    let here = view.find(hash).is_some_and(|id| view.entry(id).has_block || view.is_active(id));
                    if !here && !self.blocks.is_under_way(hash) {
                        newest = Some(*hash);
                    }
                }
                Inventory::Transaction(_) | Inventory::WTx(_) => {
                    // Each link has one kind of id.
                    if matches!(item, Inventory::WTx(_)) != peer.wtxid_relay {
                        continue;
                    }
                    if !handshake::wants_transactions(peer, cx) {
                        return cx.disconnect(peer, Reason::BadMessage(Kind::Inv));
                    }
                    let Some(id) = GenTxid::of(item) else { continue };
                    self.relay.on_known(peer, &id);
                    if !cx.core.initial_download {
                        self.download.on_announced(peer, id, view, cx);
                    }
                }
                _ => {}
            }
        }
        handshake::maybe_send_sendheaders(peer, view, cx);
        self.blocks.wake(id);
        if let Some(newest) = newest {
            self.headers.on_block_inv(peer, newest, view, cx);
        }
    }

    /// A transaction came. Core: `ProcessMessage` TX.
    pub(super) fn on_tx(
        &mut self,
        id: PeerId,
        tx: Arc<Transaction>,
        now: Micros,
        view: &impl View,
        out: &mut Vec<Output>,
    ) {
        let cx = &mut Cx { now, core: &mut self.core, out };
        let Some(peer) = self.peers.get_mut(&id).filter(|_| !cx.core.initial_download) else { return };
        let one = Named::new(tx);
        let (txid, wtxid) = (one.txid, one.wtxid);
        self.relay.on_known(peer, &GenTxid::Wtxid(wtxid));
        let forced = peer.permissions.force_relay && view.pool_tx(&GenTxid::Wtxid(wtxid)).is_some();
        self.download.on_tx(peer, one, view, cx);
        if forced {
            // The node is the way out for one that nobody else can reach.
            self.relay.announce(txid, wtxid, &[], &mut self.peers, cx);
        }
    }
}
