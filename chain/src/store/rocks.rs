//! The store on disk: coins, headers and small facts in RocksDB, blocks and undo in flat files beside it. The only
//! file that names RocksDB. Knows no rule. docs/SCHEMA.md shows the records.

#[cfg(test)]
mod tests;

use super::codec::{self, DecodeError};
use super::files::{Ends, Files, failure};
use super::{Batch, FilePos, HeaderRecord, Index, MAX_BLOCKFILE_SIZE, Store, StoreError};
use crate::coins::Coin;
use bitcoin::OutPoint;
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType, DBWithThreadMode,
    DataBlockIndexType, ErrorKind, IteratorMode, LogLevel, MultiThreaded, Options, ReadOptions, WriteBatch,
    WriteBufferManager, WriteOptions,
};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of the records that this code writes, in the fact `schema`.
pub(crate) const SCHEMA: u32 = 1;

const COINS: &str = "coins";
const HEADERS: &str = "headers";
const META: &str = "meta";

/// The fact that holds [`SCHEMA`].
const SCHEMA_KEY: &str = "schema";

/// Facts of the store's own: this and the number of a pair give its durable [`Ends`].
const ENDS_KEY: &[u8] = b"files/";

const RESCAN_COINS: &str = "--reindex-chainstate";
const REBUILD_ALL: &str = "--reindex";

type Db = DBWithThreadMode<MultiThreaded>;

/// Takes a key and a value; false ends the scan.
type OnRecord<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'a;

/// A data folder: `db/` (RocksDB), `blocks/` (flat files) and `.lock`.
pub struct RocksStore {
    db: Db,
    files: Files,
    folder: PathBuf,
    block_cache: Cache,
    memtables: WriteBufferManager,
    /// Held from taking the ends of files to writing them, so that no later batch overtakes them.
    writing: Mutex<()>,
    /// Held until the database above is closed.
    _lock: File,
}

impl RocksStore {
    /// Opens or makes the store of the network with `magic` in `folder`; `cache` bounds block cache and memtables
    /// together, in bytes. With `discard_index` (for `--reindex`) all of RocksDB and the undo files is deleted first;
    /// the block files stay, whole.
    pub fn open(folder: &Path, magic: [u8; 4], cache: usize, discard_index: bool) -> Result<RocksStore, StoreError> {
        RocksStore::open_with(folder, &folder.join("blocks"), MAX_BLOCKFILE_SIZE, magic, cache, discard_index)
    }

    /// The same with the flat files in `blocks`, each of at most `max_file` bytes.
    pub fn open_with(
        folder: &Path,
        blocks: &Path,
        max_file: u32,
        magic: [u8; 4],
        cache: usize,
        discard_index: bool,
    ) -> Result<RocksStore, StoreError> {
        fs::create_dir_all(folder).map_err(|error| failure("make", folder, &error))?;
        let lock = lock(folder)?;
        let path = folder.join("db");
        if discard_index {
            discard(&path, blocks)?;
        }
        let block_cache = Cache::new_lru_cache(cache);
        let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(cache / 2, false, block_cache.clone());
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_background_jobs(2);
        options.set_max_open_files(256);
        options.set_write_buffer_manager(&memtables);
        options.set_max_total_wal_size(256 << 20);
        options.set_bytes_per_sync(1 << 20);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        let small = || small_options(&block_cache);
        let families = [(COINS, coin_options(&block_cache, cache)), (HEADERS, small()), (META, small())];
        let indexes = Index::ALL.map(|index| (index_family(index), index_options(index, &block_cache, cache)));
        let families =
            families.into_iter().chain(indexes).map(|(name, options)| ColumnFamilyDescriptor::new(name, options));
        let db = Db::open_cf_descriptors(&options, &path, families)
            .map_err(|error| refused("open", &path, &error, REBUILD_ALL))?;
        check_schema(&db, &path)?;
        let known = recorded_ends(&db, &path)?;
        let files = Files::open(blocks, magic, &known, max_file)?;
        Ok(RocksStore {
            db,
            files,
            folder: folder.into(),
            block_cache,
            memtables,
            writing: Mutex::new(()),
            _lock: lock,
        })
    }

    fn family(&self, name: &str) -> Arc<BoundColumnFamily<'_>> {
        family(&self.db, name)
    }

    fn refused(&self, doing: &str, error: &rocksdb::Error, remedy: &'static str) -> StoreError {
        refused(doing, &self.folder.join("db"), error, remedy)
    }

    /// Calls `each` for all records of a family as of now, until it returns false or an error.
    fn scan(&self, name: &str, remedy: &'static str, each: &mut OnRecord) -> Result<(), StoreError> {
        let mut reading = ReadOptions::default();
        // A scan must not push what look-ups need out of the cache.
        reading.fill_cache(false);
        reading.set_readahead_size(2 << 20);
        let snapshot = self.db.snapshot();
        for record in snapshot.iterator_cf_opt(&self.family(name), reading, IteratorMode::Start) {
            let (key, value) = record.map_err(|error| self.refused("read", &error, remedy))?;
            if !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

/// Coins are found by random keys, and nearly always exist: a block spends what is there. So the last level, nine
/// tenths of all, has no filter; blocks have a hash index; nothing is compressed (keys and hashes do not shrink).
fn coin_options(block_cache: &Cache, cache: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(block_cache);
    table.set_block_size(4 << 10);
    table.set_ribbon_filter(10.0);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_optimize_filters_for_hits(true);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size((cache / 4).clamp(1 << 20, 64 << 20));
    options.set_max_write_buffer_number(3);
    options.set_max_bytes_for_level_base(256 << 20);
    options
}

fn small_options(block_cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(block_cache);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(8 << 20);
    options
}

/// The column family of an index.
fn index_family(index: Index) -> &'static str {
    match index {
        Index::Transactions => "transactions",
        Index::Spenders => "spenders",
        Index::Filters => "filters",
        Index::CoinStats => "coinstats",
    }
}

/// Rows are found by hashes, and some are asked for that do not exist. They do not shrink.
fn index_options(index: Index, block_cache: &Cache, cache: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(block_cache);
    table.set_ribbon_filter(10.0);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size((cache / 8).clamp(1 << 20, 32 << 20));
    if matches!(index, Index::Transactions | Index::Spenders) {
        options.set_max_bytes_for_level_base(256 << 20);
    }
    options
}

fn family<'a>(db: &'a Db, name: &str) -> Arc<BoundColumnFamily<'a>> {
    db.cf_handle(name).expect("opening makes all column families, and clear_coins runs alone")
}

/// Takes the folder for this process; the lock goes with the process, however it ends.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(".lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|error| failure("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.is_empty() { "unknown" } else { pid.trim() };
            return Err(StoreError::Io(format!(
                "Cannot obtain a lock on directory {}. Groat is probably already running (pid {pid}).",
                folder.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failure("lock", &path, &error)),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        write!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(|error| failure("write", &path, &error))?;
    Ok(file)
}

fn discard(db: &Path, blocks: &Path) -> Result<(), StoreError> {
    if db.exists() {
        fs::remove_dir_all(db).map_err(|error| failure("delete", db, &error))?;
    }
    // Nothing refers to the old undo records any more.
    for entry in fs::read_dir(blocks).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("rev") && name.ends_with(".dat")) {
            fs::remove_file(entry.path()).map_err(|error| failure("delete", &entry.path(), &error))?;
        }
    }
    Ok(())
}

fn check_schema(db: &Db, path: &Path) -> Result<(), StoreError> {
    let meta = family(db, META);
    let found = db.get_cf(&meta, SCHEMA_KEY).map_err(|error| refused("read", path, &error, REBUILD_ALL))?;
    match found {
        None => db
            .put_cf(&meta, SCHEMA_KEY, SCHEMA.to_le_bytes())
            .map_err(|error| refused("write", path, &error, REBUILD_ALL)),
        Some(found) if found == SCHEMA.to_le_bytes() => Ok(()),
        Some(found) => {
            let found =
                found.try_into().map_or("of an unknown form".into(), |found| u32::from_le_bytes(found).to_string());
            Err(StoreError::Io(format!(
                "{} has schema {found}, and this version of groatd reads schema {SCHEMA} only: use the version that \
                 wrote it, or start with {REBUILD_ALL}",
                path.display()
            )))
        }
    }
}

/// The durable ends of all pairs of files, as the last writes recorded them.
fn recorded_ends(db: &Db, path: &Path) -> Result<BTreeMap<u32, Ends>, StoreError> {
    let mut known = BTreeMap::new();
    let start = IteratorMode::From(ENDS_KEY, rocksdb::Direction::Forward);
    for record in db.iterator_cf(&family(db, META), start) {
        let (key, value) = record.map_err(|error| refused("read", path, &error, REBUILD_ALL))?;
        let Some(number) = key.strip_prefix(ENDS_KEY) else { break };
        let word = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
        let ends = value.split_at_checked(4).and_then(|(blocks, undo)| Some((word(blocks)?, word(undo)?)));
        let (Some(number), Some((blocks, undo))) = (word(number), ends) else {
            return Err(damaged("the record of a block file's length", "not as long as it should be", REBUILD_ALL));
        };
        known.insert(number, Ends { blocks, undo });
    }
    Ok(known)
}

fn ends_key(number: u32) -> Vec<u8> {
    [ENDS_KEY, &number.to_be_bytes()].concat()
}

fn damaged(what: &str, detail: impl ToString, remedy: &'static str) -> StoreError {
    StoreError::Damaged { what: what.into(), detail: detail.to_string(), remedy }
}

/// One sentence on what RocksDB refused. It tells causes only in its message.
fn refused(doing: &str, path: &Path, error: &rocksdb::Error, remedy: &'static str) -> StoreError {
    let said: &str = error.as_ref();
    let as_io = |kind: std::io::ErrorKind| failure(doing, path, &kind.into());
    match error.kind() {
        ErrorKind::Corruption => damaged(&format!("the database {}", path.display()), said, remedy),
        _ if said.contains("No space left") => as_io(std::io::ErrorKind::StorageFull),
        _ if said.contains("Permission denied") => as_io(std::io::ErrorKind::PermissionDenied),
        _ => StoreError::Io(format!("cannot {doing} the database {}: {said}", path.display())),
    }
}

fn bad_coin(outpoint: &OutPoint, error: &DecodeError) -> StoreError {
    damaged(&format!("the coin record {outpoint}"), error, RESCAN_COINS)
}

impl Store for RocksStore {
    fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StoreError> {
        let coins = self.family(COINS);
        let decode =
            |at: usize, bytes: &[u8]| codec::decode_coin(bytes).map_err(|error| bad_coin(&outpoints[at], &error));
        let failed = |error: rocksdb::Error| self.refused("read", &error, RESCAN_COINS);
        if let [outpoint] = outpoints {
            let found = self.db.get_pinned_cf(&coins, codec::encode_outpoint(outpoint)).map_err(failed)?;
            return Ok(vec![found.map(|bytes| decode(0, &bytes)).transpose()?]);
        }
        // In key order, neighbours share blocks and RocksDB does not sort them again.
        let mut keys: Vec<_> = outpoints.iter().map(codec::encode_outpoint).zip(0..).collect();
        keys.sort_unstable();
        let found = self.db.batched_multi_get_cf(&coins, keys.iter().map(|(key, _)| &key[..]), true);
        let mut answers = vec![None; outpoints.len()];
        for (found, (_, at)) in found.into_iter().zip(keys) {
            answers[at] = found.map_err(failed)?.map(|bytes| decode(at, &bytes)).transpose()?;
        }
        Ok(answers)
    }

    fn for_each_coin(&self, each: &mut dyn FnMut(OutPoint, Coin) -> bool) -> Result<(), StoreError> {
        self.scan(COINS, RESCAN_COINS, &mut |key, value| {
            let outpoint = codec::decode_outpoint(key).map_err(|error| damaged("a coin's key", error, RESCAN_COINS))?;
            let coin = codec::decode_coin(value).map_err(|error| bad_coin(&outpoint, &error))?;
            Ok(each(outpoint, coin))
        })
    }

    fn for_each_header(&self, each: &mut dyn FnMut(u32, HeaderRecord)) -> Result<(), StoreError> {
        self.scan(HEADERS, REBUILD_ALL, &mut |key, value| {
            let number = key.try_into().map(u32::from_be_bytes);
            let number = number.map_err(|_| damaged("a header's key", "it is not of four bytes", REBUILD_ALL))?;
            let record = codec::decode_header(value)
                .map_err(|error| damaged(&format!("the header record {number}"), error, REBUILD_ALL))?;
            each(number, record);
            Ok(true)
        })
    }

    fn rows(&self, index: Index, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let family = self.family(index_family(index));
        let found = self.db.batched_multi_get_cf(&family, keys, false).into_iter();
        found
            .map(|row| Ok(row.map_err(|error| self.refused("read", &error, REBUILD_ALL))?.map(|row| row.to_vec())))
            .collect()
    }

    fn meta(&self, key: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(&self.family(META), key).map_err(|error| self.refused("read", &error, REBUILD_ALL))
    }

    fn write(&self, batch: Batch, durable: bool) -> Result<(), StoreError> {
        // Records never refer to bytes that a power loss may take away, whatever the caller did.
        if !batch.headers.iter().all(|(_, record)| self.files.is_synced(record.block, record.undo)) {
            self.files.sync()?;
        }
        let mut rows = WriteBatch::with_capacity_bytes(batch.coins.len() * 80 + batch.headers.len() * 128);
        let (coins, headers, meta) = (self.family(COINS), self.family(HEADERS), self.family(META));
        let mut value = Vec::with_capacity(64);
        for (outpoint, coin) in &batch.coins {
            let key = codec::encode_outpoint(outpoint);
            match coin {
                Some(coin) => {
                    value.clear();
                    codec::encode_coin(coin, &mut value);
                    rows.put_cf(&coins, key, &value);
                }
                None => rows.delete_cf(&coins, key),
            }
        }
        for (number, record) in &batch.headers {
            rows.put_cf(&headers, number.to_be_bytes(), codec::encode_header(record));
        }
        for row in &batch.rows {
            rows.put_cf(&self.family(index_family(row.index)), &row.key, &row.value);
        }
        for (key, fact) in &batch.meta {
            match fact {
                Some(fact) => rows.put_cf(&meta, key, fact),
                None => rows.delete_cf(&meta, key),
            }
        }
        let _one_at_a_time = self.writing.lock();
        for (number, Ends { blocks, undo }) in self.files.take_unrecorded() {
            rows.put_cf(&meta, ends_key(number), [blocks.to_be_bytes(), undo.to_be_bytes()].concat());
        }
        let mut options = WriteOptions::default();
        options.set_sync(durable);
        self.db.write_opt(rows, &options).map_err(|error| self.refused("write", &error, REBUILD_ALL))
    }

    fn clear_coins(&self) -> Result<(), StoreError> {
        let failed = |error: rocksdb::Error| self.refused("write", &error, REBUILD_ALL);
        self.db.drop_cf(COINS).map_err(failed)?;
        // The write buffer manager keeps the bound on memtables; it belongs to the database.
        let cache = self.memtables.get_buffer_size() * 2;
        self.db.create_cf(COINS, &coin_options(&self.block_cache, cache)).map_err(failed)
    }

    fn append_block(&self, block: &[u8]) -> Result<FilePos, StoreError> {
        self.files.append_block(block)
    }

    fn append_undo(&self, file: u32, undo: &[u8]) -> Result<FilePos, StoreError> {
        self.files.append_undo(file, undo)
    }

    fn read_block(&self, pos: FilePos) -> Result<Vec<u8>, StoreError> {
        self.files.read_block(pos)
    }

    fn read_part(&self, pos: FilePos, from: u32, length: u32) -> Result<Vec<u8>, StoreError> {
        self.files.read_part(pos, from, length)
    }

    fn read_undo(&self, pos: FilePos) -> Result<Vec<u8>, StoreError> {
        self.files.read_undo(pos)
    }

    fn sync_files(&self) -> Result<(), StoreError> {
        self.files.sync()
    }

    fn files(&self) -> Result<Vec<(u32, u64)>, StoreError> {
        Ok(self.files.list())
    }

    fn delete_files(&self, file: u32) -> Result<(), StoreError> {
        if self.files.delete(file)? {
            let gone = self.db.delete_cf(&self.family(META), ends_key(file));
            gone.map_err(|error| self.refused("write", &error, REBUILD_ALL))?;
        }
        Ok(())
    }

    fn free_space(&self) -> Result<Option<u64>, StoreError> {
        let space =
            rustix::fs::statvfs(&self.folder).map_err(|error| failure("examine", &self.folder, &error.into()))?;
        Ok(Some(space.f_bavail.saturating_mul(space.f_frsize)))
    }
}
