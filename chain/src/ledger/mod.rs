//! The single writer of the chain: takes headers and blocks, makes the best chain the active one step by step,
//! and keeps the coins. Knows no mempool, no peer and no clock.
//!
//! The coin table stands at the *speculative* tip, some blocks ahead of their scripts, which run in the pool.
//! The *published* tip in the [`Tree`] is proven: all its scripts hold. A block whose scripts fail is taken back
//! with its undo, exactly as in a reorganisation.

mod ahead;
mod flush;
mod gather;
mod indexes;
mod open;
mod propose;
mod scripts;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, OutPoint};
use parking_lot::RwLock;

use crate::block::Block;
use crate::coins::Coin;
use crate::params::Params;
use crate::pool::Pool;
use crate::rejection::{Blame, Rejection};
use crate::rules;
use crate::script::{Flags, VerdictCache};
use crate::store::{FilePos, Store, StoreError, codec};
use crate::table::{CoinTable, Found};
use crate::tree::{Id, Tree};

use ahead::Ahead;
pub use flush::MIN_BLOCKS_TO_KEEP;
use gather::Gathered;
pub use indexes::IndexState;
use indexes::{Indexes, PartRun};
pub use propose::Proposal;
use scripts::ScriptRun;
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

/// A block that has been decoded and judged by itself, outside the ledger thread.
pub struct Incoming {
    /// The decoded block.
    pub block: Arc<Block>,
    /// Its serialization.
    pub bytes: Vec<u8>,
    /// What [`rules::block::check_block`] said.
    pub verdict: Result<(), Rejection>,
}

impl Incoming {
    /// Decodes and judges `bytes`, which are one block; meant for a pool thread.
    pub fn decode(bytes: Vec<u8>, params: &Params) -> Result<Incoming, bitcoin::consensus::encode::Error> {
        Ok(Incoming::judge(Block::decode(&bytes)?, bytes, params))
    }

    /// Decodes and judges the block that `bytes` begin with: what peers and `submitblock` give may go on after it.
    pub fn decode_prefix(mut bytes: Vec<u8>, params: &Params) -> Result<Incoming, bitcoin::consensus::encode::Error> {
        let block = Block::decode_prefix(&bytes)?;
        bytes.truncate(block.size);
        Ok(Incoming::judge(block, bytes, params))
    }

    fn judge(block: Block, bytes: Vec<u8>, params: &Params) -> Incoming {
        let verdict = rules::block::check_block(&block, params);
        Incoming { block: Arc::new(block), bytes, verdict }
    }
}

/// What became of a block that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It was new and is stored.
    New(Id),
    /// It was there already.
    Known(Id),
}

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
    fn disconnect(&mut self, block: Arc<Block>) {
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

/// What one step towards the best chain did.
#[derive(Debug)]
pub enum Step {
    /// Nothing: the published tip is the best chain known.
    Idle,
    /// A block was connected, disconnected or proven; there may be more to do.
    Moved(Option<Change>),
    /// A block broke a rule: it and its descendants are out.
    Refused(BlockHash, Rejection),
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

/// Blocks whose scripts may be running at once.
const MAX_IN_FLIGHT: usize = 16;
/// Inputs of blocks in flight, above which no further block is connected.
const MAX_IN_FLIGHT_INPUTS: usize = 200_000;

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

    /// Whether the coins stand at the published tip.
    pub fn is_at_rest(&self) -> bool {
        self.untold.is_empty() && self.in_flight.is_empty() && self.tree.read().tip() == self.tip
    }

    /// Waits for the scripts in flight and gives what happened, as [`Ledger::activate_best_chain`] does; none when there
    /// is no more. Then the coins stand at the published tip, unless a reorganisation is under way.
    pub fn finish_scripts(&mut self) -> Result<Option<Step>, LedgerError> {
        if let Some(step) = self.untold.pop_front() {
            return Ok(Some(step));
        }
        self.settle(true)
    }

    /// Blocks between the coin table and the best complete chain's end.
    pub fn blocks_to_connect(&self) -> u32 {
        let tree = self.tree.read();
        tree.node(tree.candidate()).height.saturating_sub(tree.node(self.tip).height)
    }

    /// Takes a header: known, or judged in its place and added. `now` is in seconds since 1970.
    pub fn accept_header(&mut self, header: &Header, now: u32) -> Result<Id, Rejection> {
        let hash = header.block_hash();
        let tree = self.tree.read();
        if let Some(id) = tree.get(&hash) {
            return if tree.node(id).is_invalid() { Err(Rejection::DuplicateInvalid) } else { Ok(id) };
        }
        rules::header::check_header(header, &self.params)?;
        let parent = tree.get(&header.prev_blockhash).ok_or(Rejection::PrevBlkNotFound)?;
        if tree.node(parent).is_invalid() {
            return Err(Rejection::BadPrevBlk);
        }
        rules::header::contextual_check_header(header, &tree.branch(parent), &self.params, now)?;
        drop(tree);
        let id = self.tree.write().insert(header, hash, parent);
        self.unsaved.insert(id);
        Ok(id)
    }

    /// Takes a block: judges it in its place and stores its bytes (`stored`: where they lie already). The block
    /// is not connected yet; [`Ledger::activate_best_chain`] does that.
    pub fn accept_block(
        &mut self,
        incoming: Incoming,
        stored: Option<FilePos>,
        now: u32,
    ) -> Result<Result<Accepted, Rejection>, LedgerError> {
        let Incoming { block, bytes, verdict } = incoming;
        if let Err(rejection) = verdict {
            return Ok(Err(rejection));
        }
        let id = match self.accept_header(&block.header, now) {
            Ok(id) => id,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let tree = self.tree.read();
        if tree.node(id).block().is_some() {
            return Ok(Ok(Accepted::Known(id)));
        }
        let Some(parent) = tree.node(id).parent() else {
            return Ok(Ok(Accepted::Known(id)));
        };
        let verdict = rules::block::contextual_check_block(&block, &tree.branch(parent), &self.params);
        drop(tree);
        if let Err(rejection) = verdict {
            self.refuse(id, &rejection);
            return Ok(Err(rejection));
        }
        let pos = match stored {
            Some(pos) => pos,
            None => self.store.append_block(&bytes)?,
        };
        let count = u32::try_from(block.transactions.len()).expect("a block within its weight holds fewer");
        self.tree.write().set_block(id, pos, count, block.size as u32);
        self.unsaved.insert(id);
        self.ahead.keep(id, block);
        Ok(Ok(Accepted::New(id)))
    }

    /// One step towards the best chain: connects or disconnects one block, or proves those in flight.
    pub fn activate_best_chain(&mut self) -> Result<Step, LedgerError> {
        if let Some(step) = self.untold.pop_front() {
            return Ok(step);
        }
        if let Some(step) = self.settle(false)? {
            return Ok(step);
        }
        if self.table.is_full() {
            if let Some(step) = self.settle(true)? {
                return Ok(step);
            }
            self.begin_flush()?;
        }
        // A reorganisation is published by itself, before more is connected: who follows finds the coins at its tip.
        if !self.change.disconnected.is_empty()
            && !self.in_flight.is_empty()
            && self.is_better(self.tip)
            && let Some(step) = self.settle(true)?
        {
            return Ok(step);
        }
        let Some(target) = self.target() else {
            return match self.settle(true)? {
                Some(step) => Ok(step),
                None => self.publish_at_rest(),
            };
        };
        let fork = self.tree.read().fork(self.tip, target);
        if fork != self.tip {
            self.disconnect_tip()?;
            return Ok(Step::Moved(None));
        }
        self.connect_next(target)
    }

    /// Steps until nothing is left to do; gives the blocks refused on the way.
    pub fn activate_fully(&mut self) -> Result<Vec<(BlockHash, Rejection)>, LedgerError> {
        let mut refused = Vec::new();
        loop {
            match self.activate_best_chain()? {
                Step::Idle => return Ok(refused),
                Step::Moved(_) => {}
                Step::Refused(hash, rejection) => refused.push((hash, rejection)),
            }
        }
    }

    /// The end of the chain to go to, unless the table stands there.
    fn target(&mut self) -> Option<Id> {
        loop {
            let tree = self.tree.read();
            let candidate = tree.candidate();
            if candidate == self.tip {
                return None;
            }
            if self.whole_up_to == Some(candidate) {
                return Some(candidate);
            }
            // A stale branch can have been pruned: then it cannot be connected, and nothing must be taken back for it.
            let fork = tree.fork(self.tip, candidate);
            let mut walk = candidate;
            while walk != fork && Some(walk) != self.whole_up_to && tree.node(walk).block().is_some() {
                walk = tree.node(walk).parent().expect("a fork lies below");
            }
            let whole = walk == fork || Some(walk) == self.whole_up_to;
            drop(tree);
            if whole {
                self.whole_up_to = Some(candidate);
                return Some(candidate);
            }
            self.tree.write().drop_candidate(candidate);
        }
    }

    /// Collects finished scripts, oldest block first; with `all` it waits for each. Ends early with what it has to
    /// tell; nothing is left to wait for when it gives none.
    fn settle(&mut self, all: bool) -> Result<Option<Step>, LedgerError> {
        while let Some(front) = self.in_flight.front() {
            if self.tree.read().node(front.id).is_invalid() {
                // The operator said so meanwhile: it must not be published.
                self.revert_in_flight()?;
                break;
            }
            let inputs: usize = self.in_flight.iter().map(|entry| entry.spent.len()).sum();
            let crowded = self.in_flight.len() >= MAX_IN_FLIGHT || inputs > MAX_IN_FLIGHT_INPUTS;
            if !all && !crowded && !front.scripts.is_ready() {
                break;
            }
            let front = self.in_flight.front_mut().expect("seen above");
            let (id, block) = (front.id, front.block.clone());
            let scripts = std::mem::replace(&mut front.scripts, ScriptRun::none());
            if let Err(rejection) = scripts.wait(&self.pool) {
                self.revert_in_flight()?;
                self.check_witness_again(id, &block)?;
                self.refuse(id, &rejection);
                return Ok(Some(Step::Refused(block.hash, rejection)));
            }
            if let Some(proven) = self.in_flight.pop_front() {
                self.index_proven(proven)?;
            }
            if let Some(change) = self.prove(id, block)? {
                return Ok(Some(Step::Moved(Some(change))));
            }
        }
        Ok(None)
    }

    /// Marks a block as proven and publishes it if the published tip is worse.
    fn prove(&mut self, id: Id, block: Arc<Block>) -> Result<Option<Change>, LedgerError> {
        let back = self.change.disconnected.last().is_some_and(|last| last.hash == block.hash);
        if back && self.change.connected.is_empty() {
            self.change.disconnected.pop();
        } else {
            self.change.connected.push(block);
        }
        let mut tree = self.tree.write();
        if !tree.node(id).is_proven() {
            tree.set_proven(id);
            self.unsaved.insert(id);
        }
        drop(tree);
        // With more in flight the coins are ahead of this block. Where blocks were taken back that must not be published: it
        // happens when the published tip is called invalid with blocks in flight that were no better than it before.
        let in_step = self.change.disconnected.is_empty() || id == self.tip;
        if in_step && self.is_better(id) { self.publish(id).map(Some) } else { Ok(None) }
    }

    /// Whether a proven block takes the place of the published tip.
    fn is_better(&self, id: Id) -> bool {
        let tree = self.tree.read();
        let published = tree.node(tree.tip());
        tree.node(id).work > published.work || published.is_invalid()
    }

    /// With nothing in flight and nowhere to go: the tip is published, whatever it is.
    fn publish_at_rest(&mut self) -> Result<Step, LedgerError> {
        if self.tree.read().tip() == self.tip {
            return Ok(Step::Idle);
        }
        Ok(Step::Moved(Some(self.publish(self.tip)?)))
    }

    /// Makes `tip` the published one, once who follows is in step with it.
    fn publish(&mut self, tip: Id) -> Result<Change, LedgerError> {
        let change = std::mem::take(&mut self.change);
        if let Some(mut follower) = self.follower.take() {
            let followed = follower.follow(&change, tip, self);
            self.follower = Some(follower);
            followed?;
        }
        self.tree.write().set_tip(tip);
        Ok(change)
    }

    /// Before a connected block is called invalid: its witnesses are those that were accepted. A block read back from
    /// disk is held only against its merkle root, which does not cover them.
    fn check_witness_again(&self, id: Id, block: &Block) -> Result<(), LedgerError> {
        let tree = self.tree.read();
        let parent = tree.node(id).parent().expect("genesis is never connected");
        rules::block::contextual_check_block(block, &tree.branch(parent), &self.params).map_err(|rejection| {
            let (what, detail) = (format!("the stored block {}", block.hash), rejection.to_string());
            StoreError::Damaged { what, detail, remedy: "--reindex" }.into()
        })
    }

    fn refuse(&mut self, id: Id, rejection: &Rejection) {
        if rejection.blame() == Blame::Consensus {
            self.tree.write().invalidate(id);
            self.unsaved.insert(id);
        }
    }

    /// Connects the next block on the way to `target`, which descends from the tip.
    fn connect_next(&mut self, target: Id) -> Result<Step, LedgerError> {
        let (id, block, prefetched) = self.next_block(target)?;
        let tree = self.tree.read();
        let (height, parent) = (tree.node(id).height, self.tip);
        let has_undo = tree.node(id).undo().is_some();
        let file = tree.node(id).block().expect("a block to connect is stored").file;
        drop(tree);

        let overwrites = self.must_not_overwrite(&block, height) && self.overwrites(&block)?;
        // A block that would overwrite coins is refused before it touches one.
        let mut gathered = if overwrites { Gathered::default() } else { self.gather(&block, height, prefetched)? };
        let tree = self.tree.read();
        let verdict = rules::connect::connect_block(
            &block,
            &gathered.spent,
            gathered.complete,
            &tree.branch(parent),
            &self.params,
            overwrites,
        );
        let trusted = self.scripts_are_assumed(&tree, id);
        drop(tree);
        let connected = match verdict {
            Ok(connected) => connected,
            Err(rejection) => {
                self.revert(&block, &gathered.spent, &gathered.overwritten, gathered.transactions)?;
                // What is in flight is older and speaks first; this block is then judged again.
                if let Some(step) = self.settle(true)? {
                    return Ok(step);
                }
                self.check_witness_again(id, &block)?;
                let rejection = self.in_cores_words(&block, rejection)?;
                self.refuse(id, &rejection);
                return Ok(Step::Refused(block.hash, rejection));
            }
        };
        gathered.spent.append(&mut gathered.overwritten);
        let spent = Arc::new(gathered.spent);
        let scripts = if trusted { ScriptRun::none() } else { self.run_scripts(&block, &spent, connected.flags) };
        if !has_undo {
            let pos = self.store.append_undo(file, &codec::encode_undo(&spent))?;
            self.tree.write().set_undo(id, pos);
            self.unsaved.insert(id);
        }
        let parts = self.make_parts(id, &block, &spent);
        self.tip = id;
        self.in_flight.push_back(InFlight { id, block, spent, scripts, parts });
        Ok(Step::Moved(None))
    }

    /// The reason that Core would give to refuse a block that does not connect: see
    /// [`rules::connect::bip34_implies_bip30`].
    fn in_cores_words(&self, block: &Block, rejection: Rejection) -> Result<Rejection, LedgerError> {
        let implied = rules::connect::bip34_implies_bip30(&self.params);
        Ok(if implied && self.overwrites(block)? { Rejection::BadTxnsBip30 } else { rejection })
    }

    fn run_scripts(&self, block: &Arc<Block>, spent: &Arc<Vec<Coin>>, flags: Flags) -> ScriptRun {
        ScriptRun::start(&self.pool, block, spent, flags, self.verdicts.as_ref())
    }

    /// Takes all blocks in flight back.
    fn revert_in_flight(&mut self) -> Result<(), LedgerError> {
        while let Some(InFlight { id, block, spent, .. }) = self.in_flight.pop_back() {
            self.revert_connected(&block, &spent)?;
            self.tip = self.tree.read().node(id).parent().expect("genesis is never connected");
        }
        self.ahead.clear();
        Ok(())
    }

    /// Takes the last connected block back.
    fn disconnect_tip(&mut self) -> Result<(), LedgerError> {
        self.ahead.clear();
        let id = self.tip;
        let parent = self.tree.read().node(id).parent().expect("a fork lies below");
        if let Some(InFlight { block, spent, .. }) = self.in_flight.pop_back() {
            self.revert_connected(&block, &spent)?;
        } else {
            let (block, spent) = self.read_connected(id)?;
            self.revert_connected(&block, &spent)?;
            if self.change.connected.last().is_some_and(|last| last.hash == block.hash) {
                self.change.connected.pop();
            } else {
                self.change.disconnect(block);
            }
            self.index_disconnected(id, parent)?;
        }
        self.tip = parent;
        Ok(())
    }

    /// Whether the scripts of a block need not be run: an ancestor of the assumed-valid block, which is part of
    /// the best header chain and buried by two weeks of work (Core's `fScriptChecks`).
    fn scripts_are_assumed(&self, tree: &Tree, id: Id) -> bool {
        let Some(assumed) = self.options.assumed_valid.and_then(|hash| tree.get(&hash)) else {
            return false;
        };
        let best = tree.best_header();
        tree.is_ancestor(id, assumed)
            && tree.is_ancestor(id, best)
            && tree.node(best).work >= self.params.minimum_chain_work
            && rules::pow::proof_equivalent_time(
                tree.node(best).work,
                tree.node(id).work,
                tree.node(best).bits,
                &self.params,
            ) > 60 * 60 * 24 * 14
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
