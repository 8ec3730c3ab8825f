//! The single writer of the chain: takes headers and blocks, makes the best chain the active one step by step,
//! and keeps the coins. Knows no mempool, no peer and no clock.
//!
//! The coin table stands at the *speculative* tip, some blocks ahead of their scripts, which run in the pool.
//! The *published* tip in the [`Tree`] is proven: all its scripts hold. A block whose scripts fail is taken back
//! with its undo, exactly as in a reorganisation.

mod accept;
mod ahead;
mod change;
mod connect;
mod flush;
mod gather;
mod indexes;
mod open;
mod propose;
mod scripts;
mod step;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint};
use parking_lot::RwLock;

use crate::block::Block;
use crate::coins::Coin;
use crate::params::Params;
use crate::pool::Pool;
use crate::script::VerdictCache;
use crate::store::{Store, StoreError};
use crate::table::{CoinTable, Found};
use crate::tree::{Id, Tree};

pub use accept::{Accepted, Incoming};
use ahead::Ahead;
pub use change::{Change, Disconnected, Follow, MAX_DISCONNECTED_TX_POOL_BYTES};
pub use flush::MIN_BLOCKS_TO_KEEP;
pub use indexes::IndexState;
use indexes::{Indexes, PartRun};
pub use propose::Proposal;
use scripts::ScriptRun;
pub use step::Step;
pub use verify::Verified;

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Scripts of this block's ancestors are taken as valid once it is well buried; none: every script is run.
    pub assumed_valid: Option<BlockHash>,
    /// Bytes the coin table may take.
    pub table_bytes: usize,
    /// Bytes that block and undo files may take; none: nothing is pruned.
    pub prune: Option<u64>,
}

/// Bytes that stand for pruning on the operator's word alone ([`Ledger::prune_up_to`]). Core: `PRUNE_TARGET_MANUAL`.
pub const PRUNE_TARGET_MANUAL: u64 = u64::MAX;

/// A failure that is no verdict: the process stops with this sentence.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder belongs to another network.
    #[error("the data folder holds another network (its genesis is {found}, expected {expected})")]
    OtherNetwork {
        /// Genesis of the folder.
        found: BlockHash,
        /// Genesis of the parameters.
        expected: BlockHash,
    },
    /// The stored coins, undo and blocks contradict each other.
    #[error("the stored chain is damaged ({0}); start with --reindex-chainstate, and if that fails with --reindex")]
    Damaged(String),
    /// Going back needs a block that was pruned.
    #[error("block {0} was pruned and is needed to go back; start with --reindex and fetch the chain again")]
    Pruned(BlockHash),
    /// An index that was switched on needs blocks that were pruned. Core's words.
    #[error(
        "{0} best block of the index goes beyond pruned data (including undo data). Please disable the index or reindex \
         (which will download the whole blockchain again)"
    )]
    IndexPruned(&'static str),
    /// The disk is nearly full.
    #[error(
        "only {free_mib} MiB of disk are left (at least {needed_mib} are needed); make room and start again: nothing is lost"
    )]
    DiskFull {
        /// What is left.
        free_mib: u64,
        /// What the next flush may take.
        needed_mib: u64,
    },
}

/// A block connected to the coin table whose scripts are not all known to hold.
struct InFlight {
    id: Id,
    block: Arc<Block>,
    spent: Arc<Vec<Coin>>,
    scripts: ScriptRun,
    parts: Vec<PartRun>,
}

/// The chain state and its single writer.
pub struct Ledger {
    params: Arc<Params>,
    options: Options,
    store: Arc<dyn Store>,
    pool: Arc<Pool>,
    tree: Arc<RwLock<Tree>>,
    table: CoinTable,
    /// Where the coin table stands.
    tip: Id,
    in_flight: VecDeque<InFlight>,
    ahead: Ahead,
    /// Headers whose record changed since it was written.
    unsaved: BTreeSet<Id>,
    /// End of a chain whose blocks, from its fork with the tip on, are known to be stored.
    whole_up_to: Option<Id>,
    /// What happened since the last publication.
    change: Change,
    /// The operator marked or cleared a block since the last flush.
    marked: bool,
    /// Whether old files may be deleted now.
    pruning: bool,
    /// Steps that a flush made on its way, told by the next calls.
    untold: VecDeque<Step>,
    flush: flush::Flush,
    indexes: Indexes,
    follower: Option<Box<dyn Follow>>,
    /// Transactions whose scripts need not be run again.
    verdicts: Option<Arc<VerdictCache>>,
}

impl Ledger {
    /// The header tree, for readers on any thread.
    pub fn tree(&self) -> Arc<RwLock<Tree>> {
        self.tree.clone()
    }

    /// The store, for readers on any thread. Coins in it are those of the last flush.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// The checking threads.
    pub fn pool(&self) -> Arc<Pool> {
        self.pool.clone()
    }

    /// The network's parameters.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }

    /// What the operator chose.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Bytes that the coin table takes.
    pub fn table_memory(&self) -> usize {
        self.table.memory()
    }

    /// Height at which the coin table stands; its last blocks may still be unproven.
    pub fn height(&self) -> u32 {
        self.tree.read().node(self.tip).height
    }

    /// The block at which the coin table stands; the last blocks up to it may still be unproven.
    pub fn tip(&self) -> BlockHash {
        self.tree.read().node(self.tip).hash
    }

    /// The coin of an output as of [`Ledger::tip`]; none if it does not exist or is spent.
    pub fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, LedgerError> {
        Ok(match self.table.get(outpoint) {
            Found::Coin(coin) => Some(coin.clone()),
            Found::Spent => None,
            Found::Unknown => self.store.coins(&[*outpoint])?.remove(0),
        })
    }

    /// The coins of many outputs, as [`Ledger::coin`].
    pub fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, LedgerError> {
        let mut unknown = Vec::new();
        let known = outpoints.iter().map(|outpoint| match self.table.get(outpoint) {
            Found::Coin(coin) => Some(coin.clone()),
            Found::Spent => None,
            Found::Unknown => {
                unknown.push(*outpoint);
                None
            }
        });
        let mut coins: Vec<Option<Coin>> = known.collect();
        if !unknown.is_empty() {
            // Both lists run in the order of the outpoints.
            let mut found = unknown.iter().zip(self.store.coins(&unknown)?).peekable();
            for (outpoint, coin) in outpoints.iter().zip(&mut coins) {
                if let Some((_, stored)) = found.next_if(|(asked, _)| *asked == outpoint) {
                    *coin = stored;
                }
            }
        }
        Ok(coins)
    }

    /// From now on `follower` is told of each change before it is published.
    pub fn set_follower(&mut self, follower: Box<dyn Follow>) {
        self.follower = Some(follower);
    }

    /// Scripts of transactions that `verdicts` knows to hold under a block's flags are not run again.
    pub fn set_verdicts(&mut self, verdicts: Arc<VerdictCache>) {
        self.verdicts = Some(verdicts);
    }

    /// Switches pruning off and on: while block files are being indexed, none of them may go.
    pub fn set_pruning(&mut self, on: bool) {
        self.pruning = on;
    }

    /// Calls a block invalid on the operator's word. [`Ledger::activate_best_chain`] then leaves it.
    pub fn invalidate(&mut self, hash: &BlockHash) -> Option<Id> {
        let id = self.tree.read().get(hash).filter(|id| *id != Id::GENESIS)?;
        self.tree.write().invalidate(id);
        self.unsaved.insert(id);
        (self.whole_up_to, self.marked) = (None, true);
        Some(id)
    }

    /// Prefers a block to others of the same work ([`Tree::prefer`]). [`Ledger::activate_best_chain`] then goes there.
    pub fn prefer(&mut self, hash: &BlockHash) -> Option<Id> {
        let id = self.tree.read().get(hash)?;
        self.tree.write().prefer(id);
        self.whole_up_to = None;
        Some(id)
    }

    /// Takes the mark of [`Ledger::invalidate`], or of a broken rule, off a block and its relatives.
    pub fn reconsider(&mut self, hash: &BlockHash) -> Option<Id> {
        let id = self.tree.read().get(hash)?;
        let changed = self.tree.write().reconsider(id);
        self.unsaved.extend(changed);
        (self.whole_up_to, self.marked) = (None, true);
        Some(id)
    }
}
