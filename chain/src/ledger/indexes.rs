//! The optional indexes beside the ledger: one that is in step gets its rows as blocks are proven, from the block and the
//! coins at hand; one that was switched on later catches up by steps of its own, from what is stored. Knows no row.
//!
//! Rows are written before their block is published, so that who sees the block finds them. The fact that names an index's
//! last block goes into the batch that moves the stored coins, or back before rows of another branch: after a crash an index
//! is never ahead of the coins, and what rows it has of later blocks are written again.

use std::collections::VecDeque;
use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use parking_lot::RwLock;

use super::{InFlight, Ledger, LedgerError, ahead, open};
use crate::block::Block;
use crate::coins::Coin;
use crate::index::{self, Entry, Index, Part};
use crate::pool::Promise;
use crate::store::{Batch, Row};
use crate::tree::{Id, Tree};

/// Blocks that are read ahead for an index that catches up.
const READ_AHEAD: usize = 4;
/// The same while the ledger has other things to do.
const READ_AHEAD_BUSY: usize = 1;

/// How far an index is, for readers on any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexState {
    /// Which.
    pub index: Index,
    /// The last block of which it has all rows.
    pub tip: Id,
    /// It has caught up with the chain, and keeps in step from now on.
    pub synced: bool,
}

/// The indexes that are switched on.
#[derive(Default)]
pub(super) struct Indexes {
    on: Vec<Running>,
    states: Arc<RwLock<Vec<IndexState>>>,
}

/// An index that is switched on.
struct Running {
    state: IndexState,
    /// The row of `state.tip` that those of the next block are built on, if they are.
    link: Option<Vec<u8>>,
    /// The tip that is stored.
    stored: Option<Id>,
    /// Parts of the blocks behind the tip that are being made.
    ahead: VecDeque<(Id, Promise<Result<Part, LedgerError>>)>,
}

/// A part that is being made for a block in flight.
pub(super) type PartRun = (Index, Promise<Part>);

impl Running {
    fn height(&self, tree: &Tree) -> u32 {
        tree.node(self.state.tip).height
    }

    /// Takes the next block in and gives its rows.
    fn advance(&mut self, id: Id, hash: &BlockHash, part: Part) -> Result<Vec<Row>, LedgerError> {
        let rows = part.rows(hash, self.link.as_deref())?;
        if let Some(key) = self.state.index.link_key(hash) {
            self.link = rows.iter().find(|row| row.key == key).map(|row| row.value.clone());
        }
        self.state.tip = id;
        Ok(rows)
    }
}

impl Ledger {
    /// Switches these indexes on. One that is new begins at genesis. Fails if it needs blocks that were pruned.
    pub fn keep_indexes(&mut self, wanted: &[Index]) -> Result<(), LedgerError> {
        for index in wanted {
            let tree = self.tree.read();
            let stored = open::stored_block(&tree, &*self.store, index.tip_key(), 0)?;
            let tip = stored.map_or(Id::GENESIS, |stored| tree.fork(stored, self.tip));
            let pruned = |id: &Id| tree.node(*id).block().is_none() || tree.node(*id).undo().is_none();
            let mut missing = std::iter::successors(Some(self.tip), |id| tree.node(*id).parent());
            if missing.by_ref().take_while(|id| *id != tip).any(|id| pruned(&id)) {
                return Err(LedgerError::IndexPruned(index.name()));
            }
            drop(tree);
            let state = IndexState { index: *index, tip, synced: false };
            let mut running = Running { state, link: None, stored, ahead: VecDeque::new() };
            if stored.is_none() {
                self.begin_index(&mut running)?;
            } else {
                self.go_back(&mut running, tip)?;
            }
            running.state.synced = tip == self.tip;
            self.indexes.on.push(running);
        }
        self.tell_index_states();
        Ok(())
    }

    /// How far the indexes are that are switched on.
    pub fn indexes(&self) -> Arc<RwLock<Vec<IndexState>>> {
        self.indexes.states.clone()
    }

    /// Writes the rows of genesis, and that an index is there.
    fn begin_index(&self, running: &mut Running) -> Result<(), LedgerError> {
        let params = &self.params;
        let block = Block::decode(&serialize(&params.genesis)).expect("it was decoded before");
        let entry = Entry { block: &block, spent: &[], number: 0, height: 0, params };
        let rows = running.advance(Id::GENESIS, &block.hash, running.state.index.part(&entry))?;
        let meta = vec![(running.state.index.tip_key(), Some(block.hash.to_byte_array().to_vec()))];
        running.stored = Some(Id::GENESIS);
        Ok(self.store.write(Batch { rows, meta, ..Batch::default() }, true)?)
    }

    /// Takes an index back to an ancestor of its tip. Rows stay, but those of another branch may take their place: so the
    /// stored tip goes back before them, and after a crash what is above it is written again.
    fn go_back(&self, running: &mut Running, to: Id) -> Result<(), LedgerError> {
        let index = running.state.index;
        let tree = self.tree.read();
        let hash = tree.node(to).hash;
        let is_below = running.stored.is_some_and(|stored| tree.is_ancestor(stored, to));
        drop(tree);
        if !is_below {
            let meta = vec![(index.tip_key(), Some(hash.to_byte_array().to_vec()))];
            self.store.write(Batch { meta, ..Batch::default() }, false)?;
            running.stored = Some(to);
        }
        if let Some(key) = index.link_key(&hash) {
            let row = self.store.rows(index, &[key])?.remove(0);
            running.link = Some(row.ok_or_else(|| index::damaged(index, "it is not there"))?);
        }
        running.state.tip = to;
        running.ahead.clear();
        Ok(())
    }

    /// The last proven block up to which the coins stand.
    fn proven_tip(&self, tree: &Tree) -> Id {
        let first = self.in_flight.front().and_then(|entry| tree.node(entry.id).parent());
        first.unwrap_or(self.tip)
    }

    /// Has the parts of a block made that is being connected.
    pub(super) fn make_parts(&self, id: Id, block: &Arc<Block>, spent: &Arc<Vec<Coin>>) -> Vec<PartRun> {
        let height = self.tree.read().node(id).height;
        let in_step = self.indexes.on.iter().filter(|running| running.state.synced);
        let make = |running: &Running| {
            let (index, block, spent) = (running.state.index, block.clone(), spent.clone());
            let (number, params) = (id.0, self.params.clone());
            let make = move || index.part(&Entry { block: &block, spent: &spent, number, height, params: &params });
            (index, self.pool.ask(false, make))
        };
        in_step.map(make).collect()
    }

    /// A block is proven: the indexes in step take it in.
    pub(super) fn index_proven(&mut self, proven: InFlight) -> Result<(), LedgerError> {
        if self.indexes.on.is_empty() {
            return Ok(());
        }
        let InFlight { id, block, spent, mut parts, .. } = proven;
        let height = self.tree.read().node(id).height;
        let mut rows = Vec::new();
        for running in self.indexes.on.iter_mut().filter(|running| running.state.synced) {
            let index = running.state.index;
            let part = match parts.iter().position(|(made_for, _)| *made_for == index) {
                Some(at) => parts.swap_remove(at).1.wait(&self.pool),
                // It came into step with this block in flight.
                None => index.part(&Entry { block: &block, spent: &spent, number: id.0, height, params: &self.params }),
            };
            rows.append(&mut running.advance(id, &block.hash, part)?);
        }
        self.write_rows(rows)
    }

    /// A proven block was taken back: the indexes in step leave it.
    pub(super) fn index_disconnected(&mut self, id: Id, parent: Id) -> Result<(), LedgerError> {
        let mut on = std::mem::take(&mut self.indexes.on);
        let mut on_it = on.iter_mut().filter(|running| running.state.synced && running.state.tip == id);
        let gone = on_it.try_for_each(|running| self.go_back(running, parent));
        self.indexes.on = on;
        self.tell_index_states();
        gone
    }

    /// One step of each index that has not caught up, if what it takes has been read; with `wait` it is waited for. False
    /// when all are in step.
    pub fn catch_up_indexes(&mut self, wait: bool) -> Result<bool, LedgerError> {
        let mut on = std::mem::take(&mut self.indexes.on);
        let behind = on.iter_mut().filter(|running| !running.state.synced);
        let rows = behind.map(|running| self.catch_up(running, wait)).collect::<Result<Vec<_>, _>>();
        let busy = on.iter().any(|running| !running.state.synced);
        self.indexes.on = on;
        self.write_rows(rows?.concat())?;
        Ok(busy)
    }

    fn catch_up(&self, running: &mut Running, wait: bool) -> Result<Vec<Row>, LedgerError> {
        let tree = self.tree.read();
        let goal = self.proven_tip(&tree);
        let fork = tree.fork(running.state.tip, goal);
        drop(tree);
        if fork != running.state.tip {
            self.go_back(running, fork)?;
        }
        running.state.synced = fork == goal;
        self.read_ahead(running, goal, if wait { READ_AHEAD } else { READ_AHEAD_BUSY });
        if !running.ahead.front().is_some_and(|(_, part)| wait || part.is_ready()) {
            return Ok(Vec::new());
        }
        let Some((id, part)) = running.ahead.pop_front() else { return Ok(Vec::new()) };
        let part = part.wait(&self.pool)?;
        let hash = self.tree.read().node(id).hash;
        running.advance(id, &hash, part)
    }

    /// Has the pool read the blocks on the way to `goal`, which descends from the index's tip.
    fn read_ahead(&self, running: &mut Running, goal: Id, blocks: usize) {
        let tree = self.tree.read();
        if running.ahead.back().is_some_and(|(id, _)| !tree.is_ancestor(*id, goal)) {
            running.ahead.clear();
        }
        let next = running.height(&tree) + 1 + running.ahead.len() as u32;
        for height in (next..=tree.node(goal).height).take(blocks.saturating_sub(running.ahead.len())) {
            let (id, index) = (tree.ancestor(goal, height), running.state.index);
            let (store, params, place) = (self.store.clone(), self.params.clone(), ahead::Stored::of(&tree, id));
            let make = move || {
                let (block, spent) = place?.read(&*store)?;
                Ok(index.part(&Entry { block: &block, spent: &spent, number: id.0, height, params: &params }))
            };
            running.ahead.push_back((id, self.pool.ask(false, make)));
        }
    }

    fn write_rows(&self, rows: Vec<Row>) -> Result<(), LedgerError> {
        if !rows.is_empty() {
            self.store.write(Batch { rows, ..Batch::default() }, false)?;
        }
        self.tell_index_states();
        Ok(())
    }

    fn tell_index_states(&self) {
        let states = self.indexes.on.iter().map(|running| running.state).collect();
        *self.indexes.states.write() = states;
    }

    /// Whether an index has moved since its tip was stored.
    pub(super) fn has_unsaved_index(&self) -> bool {
        self.indexes.on.iter().any(|running| running.stored != Some(running.state.tip))
    }

    /// The facts that name the tips of all indexes, to be written now with the records of all headers.
    pub(super) fn index_tips(&mut self) -> Vec<(&'static str, Option<Vec<u8>>)> {
        let tree = self.tree.read();
        let fact = |running: &mut Running| {
            running.stored = Some(running.state.tip);
            let hash = tree.node(running.state.tip).hash.to_byte_array();
            (running.state.index.tip_key(), Some(hash.to_vec()))
        };
        self.indexes.on.iter_mut().map(fact).collect()
    }

    /// Height up to which every index has read the blocks, crash or not; none if there is no index. One that stands on a
    /// branch that was left has to read again from the fork.
    pub(super) fn indexed_height(&self, tree: &Tree) -> Option<u32> {
        let read = |running: &Running| running.stored.map(|stored| tree.fork(stored, self.tip));
        let height = |running: &Running| read(running).map_or(0, |id| tree.node(id).height);
        self.indexes.on.iter().map(height).min()
    }
}
