//! Writing the coins to the store: frozen by the ledger, written by a thread of its own while validation goes on.
//!
//! A flush that fits in one batch is atomic by itself. A larger one begins with a mark that names where the
//! stored coins come from and go to, and ends by taking it off: a start that finds the mark completes the flush.

use std::collections::BTreeMap;
use std::thread::JoinHandle;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;

use super::{Ledger, LedgerError};
use crate::store::{Batch, HeaderRecord, Store, StoreError};
use crate::table::Frozen;
use crate::tree::Id;

/// Name of the record that holds the block at which the stored coins stand.
pub(super) const TIP: &str = "tip";
/// Name of the record that marks a flush under way: the block it comes from, then the one it goes to.
pub(super) const FLUSHING: &str = "flushing";
/// Bytes of one batch of a flush.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Changed coins up to which a flush is written in the ledger's own thread.
const SMALL_FLUSH: usize = 50_000;
/// Blocks below the tip that are never pruned. Core's name and value.
pub const MIN_BLOCKS_TO_KEEP: u32 = 288;
/// Bytes of disk below which nothing is written any more (Core's `nMinDiskSpace`).
const MIN_DISK_SPACE: u64 = 50 << 20;

/// The state of flushing.
pub(super) struct Flush {
    /// Block at which the stored coins stand, or will when the writer is done.
    pub stored: Id,
    /// The thread that writes the frozen layer.
    pub writer: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Ledger {
    /// Writes everything and waits for it. The blocks in flight are proven first.
    pub fn flush(&mut self) -> Result<(), LedgerError> {
        while let Some(step) = self.settle(true)? {
            self.untold.push_back(step);
        }
        self.begin_flush()?;
        self.finish_flush()
    }

    /// Writes the last blocks if nothing is in flight: for a node in sync, where a crash should lose nothing and a
    /// snapshot of the store should be the tip.
    pub fn flush_if_settled(&mut self) -> Result<(), LedgerError> {
        if self.in_flight.is_empty() && (self.flush.stored != self.tip || self.marked) { self.flush() } else { Ok(()) }
    }

    /// Freezes the coins as they stand (nothing may be in flight) and starts to write them.
    pub(super) fn begin_flush(&mut self) -> Result<(), LedgerError> {
        self.finish_flush()?;
        self.prune()?;
        if self.flush.stored == self.tip && self.unsaved.is_empty() && !self.has_unsaved_index() {
            return Ok(());
        }
        self.check_space()?;
        let tree = self.tree.read();
        let headers = std::mem::take(&mut self.unsaved).into_iter().map(|id| (id.0, tree.record(id))).collect();
        let (from, to) = (tree.node(self.flush.stored).hash, tree.node(self.tip).hash);
        drop(tree);
        let indexes = self.index_tips();
        self.flush.stored = self.tip;
        self.marked = false;
        let frozen = self.table.freeze();
        let store = self.store.clone();
        if frozen.len() <= SMALL_FLUSH {
            write(&*store, &frozen, headers, indexes, from, to)?;
            self.table.written();
        } else {
            #[expect(clippy::disallowed_methods, reason = "the writer of the frozen coins is a thread of its own")]
            let writer = std::thread::spawn(move || write(&*store, &frozen, headers, indexes, from, to));
            self.flush.writer = Some(writer);
        }
        Ok(())
    }

    /// Waits for the writer, if there is one.
    pub(super) fn finish_flush(&mut self) -> Result<(), LedgerError> {
        if let Some(writer) = self.flush.writer.take() {
            writer.join().expect("the writer does not panic")?;
            self.table.written();
        }
        Ok(())
    }

    /// Whether the disk has room for what a flush may write.
    pub fn check_space(&self) -> Result<(), LedgerError> {
        let needed = MIN_DISK_SPACE + 2 * self.table.memory() as u64;
        match self.store.free_space()? {
            Some(free) if free < needed => {
                Err(LedgerError::DiskFull { free_mib: free >> 20, needed_mib: needed >> 20 })
            }
            _ => Ok(()),
        }
    }

    /// Deletes the oldest pairs of files while all of them take more than the operator allows; the last
    /// `MIN_BLOCKS_TO_KEEP` blocks always stay.
    fn prune(&mut self) -> Result<(), LedgerError> {
        let Some(limit) = self.options.prune.filter(|_| self.pruning) else { return Ok(()) };
        let files = self.store.files()?;
        let mut total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        if total <= limit {
            return Ok(());
        }
        let tree = self.tree.read();
        // What the stored coins may still be replayed from must stay as well.
        let base = tree.node(self.tip).height.min(tree.node(self.flush.stored).height);
        let heights = tree.file_heights();
        // An index must have read a block before it goes.
        let indexed = self.indexed_height(&tree).unwrap_or(u32::MAX);
        drop(tree);
        let newest = files.last().map(|(file, _)| *file);
        let mut doomed = Vec::new();
        for (file, bytes) in files {
            // A file of which no block is known is not understood, so it stays.
            let top = heights.iter().find(|(number, _)| *number == file).map_or(u32::MAX, |(_, height)| *height);
            if total <= limit || Some(file) == newest {
                break;
            }
            if top.saturating_add(MIN_BLOCKS_TO_KEEP) < base && top <= indexed {
                total -= bytes;
                doomed.push(file);
            }
        }
        self.delete_files(doomed)
    }

    /// Deletes the pairs of files that hold no block above `height`, nor one of the last [`MIN_BLOCKS_TO_KEEP`]. Core:
    /// `FindFilesToPruneManual`.
    pub fn prune_up_to(&mut self, height: u32) -> Result<(), LedgerError> {
        if !self.pruning {
            return Ok(());
        }
        self.flush()?;
        let tree = self.tree.read();
        let deep = tree.node(self.tip).height.saturating_sub(MIN_BLOCKS_TO_KEEP);
        // An index must have read a block before it goes.
        let last = height.min(deep).min(self.indexed_height(&tree).unwrap_or(u32::MAX));
        let heights: BTreeMap<u32, u32> = tree.file_heights().into_iter().collect();
        drop(tree);
        let mut files: Vec<u32> = self.store.files()?.into_iter().map(|(file, _)| file).collect();
        // The one that is being written stays.
        files.pop();
        files.retain(|file| heights.get(file).is_some_and(|top| *top <= last));
        self.delete_files(files)
    }

    /// Deletes pairs of files, and what the tree and the records know of them.
    fn delete_files(&mut self, doomed: Vec<u32>) -> Result<(), LedgerError> {
        if doomed.is_empty() {
            return Ok(());
        }
        self.whole_up_to = None;
        for file in &doomed {
            let changed = self.tree.write().forget_file(*file);
            self.unsaved.extend(changed);
        }
        // With all others that changed: records have no gaps.
        let tree = self.tree.read();
        let headers = std::mem::take(&mut self.unsaved).into_iter().map(|id| (id.0, tree.record(id))).collect();
        drop(tree);
        let batch = Batch { headers, ..Batch::default() };
        // First the records forget the files, then the files go: no record ever points at nothing.
        self.store.write(batch, true)?;
        for file in doomed {
            self.store.delete_files(file)?;
        }
        Ok(())
    }
}

/// Small facts to write.
type Facts = Vec<(&'static str, Option<Vec<u8>>)>;

fn write(
    store: &dyn Store,
    frozen: &Frozen,
    headers: Vec<(u32, HeaderRecord)>,
    indexes: Facts,
    from: BlockHash,
    to: BlockHash,
) -> Result<(), StoreError> {
    // Records point into the files: those first.
    store.sync_files()?;
    let tip = (TIP, Some(to.to_byte_array().to_vec()));
    let mut batches = frozen.batches(MAX_BATCH_BYTES).peekable();
    let first = batches.next().unwrap_or_default();
    if batches.peek().is_none() {
        let meta = indexes.into_iter().chain([tip]).collect();
        return store.write(Batch { coins: first, headers, meta, ..Batch::default() }, true);
    }
    let mark = [from.to_byte_array(), to.to_byte_array()].concat();
    // From here on the flush will be completed, whatever happens.
    let meta = indexes.into_iter().chain([(FLUSHING, Some(mark))]).collect();
    store.write(Batch { headers, meta, ..Batch::default() }, true)?;
    store.write(Batch { coins: first, ..Batch::default() }, false)?;
    for coins in batches {
        store.write(Batch { coins, ..Batch::default() }, false)?;
    }
    store.write(Batch { meta: vec![tip, (FLUSHING, None)], ..Batch::default() }, true)
}
