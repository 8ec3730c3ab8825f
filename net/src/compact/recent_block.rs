//! The block that may become the tip next: pushed as a compact block before it is connected, and kept for those who ask
//! for its missing transactions. Only the newest is kept.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::bip152::{HeaderAndShortIds, PrefilledTransaction, ShortId};
use groat_chain::block::Block;
use rand::Rng;

use crate::headers::{has_header, resolve_unknown};
use crate::message::Message;
use crate::peer::Peers;
use crate::protocol::Cx;
use crate::view::View;

/// From here on a peer takes compact blocks of blocks that turn out to be invalid. Core's name and value.
const INVALID_CB_NO_BAN_VERSION: i32 = 70_015;

/// The newest block that was stored on top of the tip.
#[derive(Debug, Default)]
pub(crate) struct RecentBlock {
    block: Option<Arc<Block>>,
    /// Made when somebody wants it. One nonce for all: who sees two learns nothing.
    message: Option<Arc<Message>>,
    /// Whether it can be connected is not known yet.
    unproven: bool,
    /// The highest block that was pushed. Core: `m_highest_fast_announce`.
    highest: u32,
}

/// The compact block of a block: its coinbase, and short ids. Core: `CBlockHeaderAndShortTxIDs`.
pub(crate) fn compact_block(block: &Block, nonce: u64) -> HeaderAndShortIds {
    let keys = ShortId::calculate_siphash_keys(&block.header, nonce);
    let coinbase = PrefilledTransaction { idx: 0, tx: block.transactions[0].clone() };
    HeaderAndShortIds {
        header: block.header,
        nonce,
        short_ids: block.wtxids[1..].iter().map(|wtxid| ShortId::with_siphash_keys(wtxid, keys)).collect(),
        prefilled_txs: vec![coinbase],
    }
}

impl RecentBlock {
    /// A block that extends the tip was stored: it is pushed to those who want that and have its parent.
    /// Core: `NewPoWValidBlock`.
    pub(crate) fn on_stored(&mut self, peers: &mut Peers, block: Arc<Block>, view: &impl View, cx: &mut Cx<'_>) {
        let Some(id) = view.find(&block.hash).filter(|_| !cx.core.initial_download) else { return };
        let entry = view.entry(id);
        if entry.height <= self.highest || entry.height < cx.core.config.params.segwit_height {
            return;
        }
        *self = RecentBlock { block: Some(block), message: None, unproven: true, highest: entry.height };
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
        let make = || Arc::new(Message::CmpctBlock(Arc::new(compact_block(block, cx.core.rng.random()))));
        Some(self.message.get_or_insert_with(make).clone())
    }
}
