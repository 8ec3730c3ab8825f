//! The block that may become the tip next: pushed as a compact block before it is connected, and kept for those who ask
//! for its missing transactions. Only the newest is kept.

use std::sync::Arc;

use bitcoin::bip152::{HeaderAndShortIds, PrefilledTransaction, ShortId};
use bitcoin::{BlockHash, Transaction};
use groat_chain::block::Block;
use rand::Rng;

use crate::headers::{has_header, resolve_unknown};
use crate::message::Message;
use crate::peer::Peers;
use crate::protocol::{Cx, Policy};
use crate::view::View;

/// From here on a peer takes compact blocks of blocks that turn out to be invalid. Core's name and value.
const INVALID_CB_NO_BAN_VERSION: i32 = 70_015;

/// The newest block that was stored on top of the tip.
#[derive(Debug, Default)]
pub(crate) struct RecentBlock {
    block: Option<Arc<Block>>,
    /// Made when somebody wants it. One nonce for all: who sees two learns nothing.
    message: Option<Arc<Message>>,
    /// Transactions that go with it, by their places.
    prefilled: Vec<usize>,
    /// Whether it can be connected is not known yet.
    unproven: bool,
    /// The highest block that was pushed. Core: `m_highest_fast_announce`.
    highest: u32,
}

/// The compact block of a block: its coinbase, the transactions in these places, which rise, and short ids of the others.
/// Core: `CBlockHeaderAndShortTxIDs`.
pub(crate) fn compact_block(block: &Block, nonce: u64, prefilled: &[usize]) -> HeaderAndShortIds {
    let keys = ShortId::calculate_siphash_keys(&block.header, nonce);
    let (mut short_ids, mut prefilled_txs) = (Vec::new(), Vec::new());
    let mut next = 0;
    for (place, (wtxid, tx)) in block.wtxids.iter().zip(&block.transactions).enumerate() {
        if place > 0 && prefilled.binary_search(&place).is_err() {
            short_ids.push(ShortId::with_siphash_keys(wtxid, keys));
            continue;
        }
        // A block has fewer transactions.
        let idx = u16::try_from(place - next).unwrap_or(u16::MAX);
        prefilled_txs.push(PrefilledTransaction { idx, tx: tx.clone() });
        next = place + 1;
    }
    HeaderAndShortIds { header: block.header, nonce, short_ids, prefilled_txs }
}

/// Of the transactions in these places those that fit into so many bytes.
fn fitting(block: &Block, places: &[u64], mut room: usize) -> Vec<usize> {
    let places = places.iter().filter_map(|place| usize::try_from(*place).ok());
    let fits = |place: &usize| {
        let size = block.transactions.get(*place).map_or(usize::MAX, Transaction::total_size);
        let fits = size <= room;
        room -= if fits { size } else { 0 };
        fits
    };
    places.filter(fits).collect()
}

impl RecentBlock {
    /// A block that extends the tip was stored: it is pushed to those who want that and have its parent.
    /// `fetched`: the places of its transactions that were not here. Core: `NewPoWValidBlock`.
    pub(crate) fn on_stored(
        &mut self,
        peers: &mut Peers,
        block: Arc<Block>,
        fetched: Vec<u64>,
        view: &impl View,
        cx: &mut Cx<'_>,
    ) {
        let Some(id) = view.find(&block.hash).filter(|_| !cx.core.initial_download) else { return };
        let entry = view.entry(id);
        if entry.height <= self.highest || entry.height < cx.core.config.params.segwit_height {
            return;
        }
        let room = if cx.core.config.relay == Policy::Groat { cx.core.config.limits.prefilled_bytes } else { 0 };
        let prefilled = fitting(&block, &fetched, room);
        let (block, highest) = (Some(block), entry.height);
        *self = RecentBlock { block, message: None, prefilled, unproven: true, highest };
        for peer in peers.values_mut() {
            let speaks = peer.their.as_ref().is_some_and(|their| their.common_version >= INVALID_CB_NO_BAN_VERSION);
            if peer.compact != Some(true) || !speaks || !peer.ready || peer.closing.is_some() {
                continue;
            }
            resolve_unknown(peer, view);
            if !has_header(peer, id, view) && entry.parent.is_some_and(|parent| has_header(peer, parent, view)) {
                peer.headers.best_sent = Some(id);
                if let Some(message) = self.message(&entry.hash, cx) {
                    cx.send_shared(peer, message);
                }
            }
        }
    }

    /// The tip moved, or a block was refused: what was to be seen of the block is to be seen.
    pub(crate) fn on_settled(&mut self) {
        self.unproven = false;
    }

    /// The block, if it is this one.
    pub(crate) fn get(&self, hash: &BlockHash) -> Option<&Arc<Block>> {
        self.block.as_ref().filter(|block| block.hash == *hash)
    }

    /// Whether it is this block, and the ledger is about to say whether it is valid.
    pub(crate) fn is_unproven(&self, hash: &BlockHash) -> bool {
        self.unproven && self.get(hash).is_some()
    }

    /// Its compact block, if it is this one.
    pub(crate) fn message(&mut self, hash: &BlockHash, cx: &mut Cx<'_>) -> Option<Arc<Message>> {
        let block = self.block.as_ref().filter(|block| block.hash == *hash)?;
        let mut compact = || compact_block(block, cx.core.rng.random(), &self.prefilled);
        let make = || Arc::new(Message::CmpctBlock(Arc::new(compact())));
        Some(self.message.get_or_insert_with(make).clone())
    }
}
