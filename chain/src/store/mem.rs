//! A store in memory, for tests and the simulator: it can fail on demand and lose power. Knows no disk.

#[cfg(test)]
mod tests;

use super::{Batch, FilePos, HeaderRecord, Index, MAX_BLOCKFILE_SIZE, Store, StoreError};
use crate::coins::Coin;
use bitcoin::OutPoint;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;

/// Everything in maps under one lock. What was not written durably can be lost ([`MemStore::cut`]).
pub struct MemStore {
    inner: RwLock<Inner>,
    /// Writes that still succeed, if they are numbered.
    writes_left: Mutex<Option<u64>>,
    max_file: usize,
}

#[derive(Clone, Default)]
struct Inner {
    coins: BTreeMap<OutPoint, Coin>,
    headers: BTreeMap<u32, HeaderRecord>,
    rows: BTreeMap<RowKey, Vec<u8>>,
    meta: BTreeMap<&'static str, Vec<u8>>,
    pairs: BTreeMap<u32, Pair>,
    /// What undoes each batch since the last durable one, oldest first.
    journal: Vec<Reverse>,
}

/// The records of a pair of files by offset, and how much of it is durable.
#[derive(Clone, Default)]
struct Pair {
    blocks: Records,
    undo: Records,
}

#[derive(Clone, Default)]
struct Records {
    by_offset: BTreeMap<u32, Vec<u8>>,
    end: u32,
    synced: u32,
}

type RowKey = (Index, Vec<u8>);

/// The values that a batch replaced.
#[derive(Clone, Default)]
struct Reverse {
    coins: Vec<(OutPoint, Option<Coin>)>,
    headers: Vec<(u32, Option<HeaderRecord>)>,
    rows: Vec<(RowKey, Option<Vec<u8>>)>,
    meta: Vec<(&'static str, Option<Vec<u8>>)>,
}

impl Default for MemStore {
    fn default() -> MemStore {
        MemStore::new()
    }
}

impl MemStore {
    /// An empty store.
    pub fn new() -> MemStore {
        MemStore::with_file_size(MAX_BLOCKFILE_SIZE)
    }

    /// An empty store whose block files hold `max_file` bytes, so that small tests have many pairs.
    pub fn with_file_size(max_file: u32) -> MemStore {
        MemStore { inner: RwLock::default(), writes_left: Mutex::new(None), max_file: max_file as usize }
    }

    /// Lets `writes` more writes, appends and syncs succeed; all later ones fail, until this is called again.
    /// `None`: none fails.
    pub fn fail_after(&self, writes: Option<u64>) {
        *self.writes_left.lock() = writes;
    }

    /// Batches written since the last durable one.
    pub fn volatile_batches(&self) -> usize {
        self.inner.read().journal.len()
    }

    /// The store as a power loss at this moment leaves it: block and undo bytes as last synced, and of the batches
    /// since the last durable one only the first `kept` (a disk may write more than it must, but in order).
    pub fn cut(&self, kept: usize) -> MemStore {
        let mut inner = self.inner.read().clone();
        let lost = inner.journal.split_off(kept.min(inner.journal.len()));
        inner.journal.clear();
        for reverse in lost.into_iter().rev() {
            reverse.coins.into_iter().for_each(|(key, old)| set(&mut inner.coins, key, old));
            reverse.headers.into_iter().for_each(|(key, old)| set(&mut inner.headers, key, old));
            reverse.rows.into_iter().for_each(|(key, old)| set(&mut inner.rows, key, old));
            reverse.meta.into_iter().for_each(|(key, old)| set(&mut inner.meta, key, old));
        }
        for pair in inner.pairs.values_mut() {
            pair.blocks.cut();
            pair.undo.cut();
        }
        inner.pairs.retain(|_, pair| pair.blocks.end > 0 || pair.undo.end > 0);
        MemStore { inner: RwLock::new(inner), writes_left: Mutex::new(None), max_file: self.max_file }
    }

    fn count_write(&self) -> Result<(), StoreError> {
        match &mut *self.writes_left.lock() {
            Some(0) => Err(StoreError::Io("the disk is full (a fault made for a test)".into())),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Records {
    fn append(&mut self, bytes: &[u8]) -> Result<u32, StoreError> {
        let offset = self.end + 8;
        let length = u32::try_from(bytes.len()).ok().and_then(|length| offset.checked_add(length));
        self.end = length.ok_or_else(|| StoreError::Io("a file would grow past 4 GiB".into()))?;
        self.by_offset.insert(offset, bytes.into());
        Ok(offset)
    }

    fn read(&self, what: &str, pos: FilePos) -> Result<Vec<u8>, StoreError> {
        self.by_offset.get(&pos.offset).cloned().ok_or_else(|| missing(what, pos))
    }

    fn cut(&mut self) {
        self.by_offset.retain(|offset, _| *offset < self.synced);
        self.end = self.synced;
    }
}

fn missing(what: &str, pos: FilePos) -> StoreError {
    let what = format!("the {what} at byte {} of file {}", pos.offset, pos.file);
    StoreError::Damaged { what, detail: "it is not there".into(), remedy: "--reindex" }
}

/// Puts or deletes; gives what stood there.
fn swap<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    swap(map, key, value);
}

impl Store for MemStore {
    fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StoreError> {
        let inner = self.inner.read();
        Ok(outpoints.iter().map(|outpoint| inner.coins.get(outpoint).cloned()).collect())
    }

    fn for_each_coin(&self, each: &mut dyn FnMut(OutPoint, Coin) -> bool) -> Result<(), StoreError> {
        // A copy is the snapshot: `each` may call back into the store.
        let snapshot = self.inner.read().coins.clone();
        let _ = snapshot.into_iter().all(|(outpoint, coin)| each(outpoint, coin));
        Ok(())
    }

    fn for_each_header(&self, each: &mut dyn FnMut(u32, HeaderRecord)) -> Result<(), StoreError> {
        let headers = self.inner.read().headers.clone();
        headers.into_iter().for_each(|(number, record)| each(number, record));
        Ok(())
    }

    fn rows(&self, index: Index, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let inner = self.inner.read();
        Ok(keys.iter().map(|key| inner.rows.get(&(index, key.clone())).cloned()).collect())
    }

    fn meta(&self, key: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.inner.read().meta.get(key).cloned())
    }

    fn write(&self, batch: Batch, durable: bool) -> Result<(), StoreError> {
        self.count_write()?;
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        // As on disk: records never become durable before the bytes they refer to.
        let unsynced = |record: &HeaderRecord| {
            let beyond = |pos: Option<FilePos>, records: fn(&Pair) -> &Records| {
                pos.is_some_and(|pos| inner.pairs.get(&pos.file).is_some_and(|pair| pos.offset >= records(pair).synced))
            };
            beyond(record.block, |pair| &pair.blocks) || beyond(record.undo, |pair| &pair.undo)
        };
        if batch.headers.iter().any(|(_, record)| unsynced(record)) {
            inner.sync();
        }
        let mut reverse = Reverse::default();
        for (key, coin) in batch.coins {
            reverse.coins.push((key, swap(&mut inner.coins, key, coin)));
        }
        for (key, record) in batch.headers {
            reverse.headers.push((key, inner.headers.insert(key, record)));
        }
        for row in batch.rows {
            let key = (row.index, row.key);
            reverse.rows.push((key.clone(), inner.rows.insert(key, row.value)));
        }
        for (key, fact) in batch.meta {
            reverse.meta.push((key, swap(&mut inner.meta, key, fact)));
        }
        // Undone backwards, so that a key written twice in a batch ends with its first value.
        reverse.coins.reverse();
        reverse.headers.reverse();
        reverse.rows.reverse();
        reverse.meta.reverse();
        match durable {
            true => inner.journal.clear(),
            false => inner.journal.push(reverse),
        }
        Ok(())
    }

    fn clear_coins(&self) -> Result<(), StoreError> {
        self.count_write()?;
        let mut inner = self.inner.write();
        inner.coins.clear();
        inner.journal.clear();
        Ok(())
    }

    fn append_block(&self, block: &[u8]) -> Result<FilePos, StoreError> {
        self.count_write()?;
        let mut inner = self.inner.write();
        let (mut file, end) = inner.pairs.last_key_value().map_or((0, 0), |(file, pair)| (*file, pair.blocks.end));
        if end > 0 && end as usize + 8 + block.len() > self.max_file {
            file += 1;
        }
        let offset = inner.pairs.entry(file).or_default().blocks.append(block)?;
        Ok(FilePos { file, offset })
    }

    fn append_undo(&self, file: u32, undo: &[u8]) -> Result<FilePos, StoreError> {
        self.count_write()?;
        let offset = self.inner.write().pairs.entry(file).or_default().undo.append(undo)?;
        Ok(FilePos { file, offset })
    }

    fn read_block(&self, pos: FilePos) -> Result<Vec<u8>, StoreError> {
        let inner = self.inner.read();
        inner.pairs.get(&pos.file).ok_or_else(|| missing("block", pos))?.blocks.read("block", pos)
    }

    fn read_part(&self, pos: FilePos, from: u32, length: u32) -> Result<Vec<u8>, StoreError> {
        let block = self.read_block(pos)?;
        let part = block.get(from as usize..).and_then(|rest| rest.get(..length as usize));
        part.map(<[u8]>::to_vec).ok_or_else(|| missing("block", pos))
    }

    fn read_undo(&self, pos: FilePos) -> Result<Vec<u8>, StoreError> {
        let inner = self.inner.read();
        inner.pairs.get(&pos.file).ok_or_else(|| missing("undo record", pos))?.undo.read("undo record", pos)
    }

    fn sync_files(&self) -> Result<(), StoreError> {
        self.count_write()?;
        self.inner.write().sync();
        Ok(())
    }

    fn files(&self) -> Result<Vec<(u32, u64)>, StoreError> {
        let bytes = |pair: &Pair| u64::from(pair.blocks.end) + u64::from(pair.undo.end);
        Ok(self.inner.read().pairs.iter().map(|(file, pair)| (*file, bytes(pair))).collect())
    }

    fn delete_files(&self, file: u32) -> Result<(), StoreError> {
        self.count_write()?;
        let mut inner = self.inner.write();
        if inner.pairs.last_key_value().is_some_and(|(last, _)| *last != file) {
            inner.pairs.remove(&file);
        }
        Ok(())
    }

    fn free_space(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
}

impl Inner {
    fn sync(&mut self) {
        for pair in self.pairs.values_mut() {
            pair.blocks.synced = pair.blocks.end;
            pair.undo.synced = pair.undo.end;
        }
    }
}
