//! What a change of the published chain is, and who is told of it. Knows no coins.

use std::sync::Arc;

use bitcoin::BlockHash;

use super::{Ledger, LedgerError};
use crate::block::Block;
use crate::tree::Id;

/// Blocks that left and joined the published chain, in the order in which it happened.
#[derive(Debug, Default)]
pub struct Change {
    /// From the old tip down to the fork.
    pub disconnected: Vec<Disconnected>,
    /// From the fork up to the new tip.
    pub connected: Vec<Arc<Block>>,
}

/// A block that left the published chain.
#[derive(Clone, Debug)]
pub struct Disconnected {
    /// Its hash.
    pub hash: BlockHash,
    /// The block; none where those below it fill [`MAX_DISCONNECTED_TX_POOL_BYTES`].
    pub block: Option<Arc<Block>>,
}

/// Bytes of blocks that are held while they are taken back, however many there are: the lowest stay. Core's name and
/// value, which there counts memory. Tests have blocks of a few hundred bytes, and reach it.
pub const MAX_DISCONNECTED_TX_POOL_BYTES: usize = if cfg!(test) { 2000 } else { 20_000_000 };

impl Change {
    pub(super) fn disconnect(&mut self, block: Arc<Block>) {
        self.disconnected.push(Disconnected { hash: block.hash, block: Some(block) });
        let mut left = MAX_DISCONNECTED_TX_POOL_BYTES;
        for held in self.disconnected.iter_mut().rev() {
            let Some(size) = held.block.as_ref().map(|block| block.size) else { break };
            match left.checked_sub(size) {
                Some(rest) => left = rest,
                None => (held.block, left) = (None, 0),
            }
        }
    }
}

/// Who keeps in step with the published chain.
pub trait Follow: Send {
    /// The chain changes and will end in `tip`: no reader has seen it yet, all will once this returns. When blocks are
    /// disconnected the ledger's coins are those of `tip`; when not, they may be ahead of it.
    fn follow(&mut self, change: &Change, tip: Id, ledger: &Ledger) -> Result<(), LedgerError>;
}
