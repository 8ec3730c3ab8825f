//! What gossip may read of the chain: headers by hash, height and ancestry, and which blocks are there. The chain's own
//! header tree is one; the simulator has another. It may be ahead of the events that the protocol has been told of.

use std::ops::ControlFlow;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, CompactTarget, Transaction, Work, Wtxid};
use groat_chain::tree::Tree;

use crate::message::GenTxid;

/// Number of a header in a view. It never comes to mean another header.
pub use groat_chain::tree::Id;

/// What is known of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its hash.
    pub hash: BlockHash,
    /// Distance from genesis.
    pub height: u32,
    /// Work of the chain from genesis up to and with it.
    pub work: Work,
    /// Its time, in seconds since 1970.
    pub time: u32,
    /// Its compact target.
    pub bits: CompactTarget,
    /// The header before it; genesis has none.
    pub parent: Option<Id>,
    /// The bytes of the block are here.
    pub has_block: bool,
    /// Length of the block in bytes; 0 if it never was here.
    pub block_bytes: usize,
    /// The block was here once, and so were all before it.
    pub complete: bool,
    /// The block or one before it broke a rule.
    pub invalid: bool,
    /// The block was connected once with all its scripts.
    pub proven: bool,
}

/// A transaction in the pool.
#[derive(Clone, Debug)]
pub struct PoolEntry {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its own fee rate, in satoshi per 1000 virtual bytes.
    pub fee_rate: u64,
    /// The rate of the group that it would be mined with, in the same unit; never above that of its parents' groups.
    pub chunk_rate: u64,
}

/// The chain as gossip sees it: a snapshot that does not change during a call of the protocol.
pub trait View {
    /// The header with this hash.
    fn find(&self, hash: &BlockHash) -> Option<Id>;
    /// What is known of a header.
    fn entry(&self, id: Id) -> Entry;
    /// The 80 bytes.
    fn header(&self, id: Id) -> Header;
    /// The ancestor of `id` at `height`, which is not above it.
    fn ancestor(&self, id: Id, height: u32) -> Id;
    /// The last header that both chains share.
    fn fork(&self, a: Id, b: Id) -> Id;
    /// Hashes from `id` down to genesis, ever sparser.
    fn locator(&self, id: Id) -> Vec<BlockHash>;
    /// Tip of the active chain: its scripts are proven.
    fn tip(&self) -> Id;
    /// The block of the active chain at `height`.
    fn active(&self, height: u32) -> Option<Id>;
    /// The valid header with the most work.
    fn best_header(&self) -> Id;

    /// The pool's transaction with this id. A chain without a pool has none.
    fn pool_entry(&self, _id: &GenTxid) -> Option<PoolEntry> {
        None
    }

    /// The same without its rates, which may take longer to find.
    fn pool_tx(&self, id: &GenTxid) -> Option<Arc<Transaction>> {
        self.pool_entry(id).map(|entry| entry.tx)
    }

    /// Shows every transaction of the pool, in any order, until `visit` breaks off. Told of each block that is pushed to
    /// us: it must not take long.
    fn for_each_pool_tx(&self, _visit: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>) {}

    /// The lowest rate that the pool takes, in satoshi per 1000 virtual bytes.
    fn pool_fee_floor(&self) -> u64 {
        0
    }

    /// The lowest rate that is relayed when the pool has room, in the same unit (`-minrelaytxfee`).
    fn min_relay_fee(&self) -> u64 {
        0
    }

    /// Whether the block is part of the active chain.
    fn is_active(&self, id: Id) -> bool {
        self.active(self.entry(id).height) == Some(id)
    }

    /// Whether `id` lies on the chain that ends in `tip`.
    fn is_ancestor(&self, id: Id, tip: Id) -> bool {
        let height = self.entry(id).height;
        height <= self.entry(tip).height && self.ancestor(tip, height) == id
    }

    /// The median time of the eleven headers that end in `id`, in seconds since 1970.
    fn median_time_past(&self, id: Id) -> u32 {
        let walk = std::iter::successors(Some(id), |id| self.entry(*id).parent);
        let mut times: Vec<u32> = walk.take(11).map(|id| self.entry(id).time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }
}

impl View for Tree {
    fn find(&self, hash: &BlockHash) -> Option<Id> {
        self.get(hash)
    }

    fn entry(&self, id: Id) -> Entry {
        let node = self.node(id);
        Entry {
            hash: node.hash,
            height: node.height,
            work: node.work,
            time: node.time,
            bits: node.bits,
            parent: node.parent(),
            has_block: node.block().is_some(),
            block_bytes: node.size as usize,
            complete: node.chain_tx > 0,
            invalid: node.is_invalid(),
            proven: node.is_proven(),
        }
    }

    fn header(&self, id: Id) -> Header {
        Tree::header(self, id)
    }

    fn ancestor(&self, id: Id, height: u32) -> Id {
        Tree::ancestor(self, id, height)
    }

    fn fork(&self, a: Id, b: Id) -> Id {
        Tree::fork(self, a, b)
    }

    fn locator(&self, id: Id) -> Vec<BlockHash> {
        Tree::locator(self, id)
    }

    fn tip(&self) -> Id {
        Tree::tip(self)
    }

    fn active(&self, height: u32) -> Option<Id> {
        Tree::active(self, height)
    }

    fn best_header(&self) -> Id {
        Tree::best_header(self)
    }
}
