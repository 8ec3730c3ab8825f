//! What a ledger needs of a disk: coins, header records, small facts, and append-only block and undo bytes.
//! Knows no rule.

pub mod codec;
#[cfg(feature = "rocksdb")]
mod files;
pub mod import;
pub mod mem;
#[cfg(feature = "rocksdb")]
pub mod rocks;

use crate::coins::Coin;
use bitcoin::OutPoint;

/// A failure of the disk beneath; never a verdict on a block. The process stops with this sentence.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system or RocksDB refused.
    #[error("{0}")]
    Io(String),
    /// A record does not read back as it was written.
    #[error("{what} is damaged ({detail}); start with {remedy}")]
    Damaged {
        /// Which record, by name and key.
        what: String,
        /// What is wrong with it.
        detail: String,
        /// The flag that rebuilds it.
        remedy: &'static str,
    },
}

/// Where bytes lie in the block or undo files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePos {
    /// Number of the `blk` and `rev` pair.
    pub file: u32,
    /// Offset of the first byte after the frame head.
    pub offset: u32,
}

/// A block file that would grow past this gives way to a new pair (Core: src/node/blockstorage.h).
pub const MAX_BLOCKFILE_SIZE: u32 = 0x800_0000;

/// What the store keeps of a header: enough to rebuild the tree at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRecord {
    /// The header itself.
    pub header: bitcoin::block::Header,
    /// Validation state bits, owned by `tree`.
    pub status: u8,
    /// Number of transactions; 0 while the block is unknown.
    pub tx_count: u32,
    /// Length in bytes of the block; 0 while unknown.
    pub size: u32,
    /// Where the block's bytes are.
    pub block: Option<FilePos>,
    /// Where its undo is.
    pub undo: Option<FilePos>,
}

/// An optional index: its rows are a family of their own. What they hold only `index` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// Where each transaction lies (`-txindex`).
    Transactions,
    /// Who spends each output (`-txospenderindex`).
    Spenders,
    /// The filter of each block (`-blockfilterindex`).
    Filters,
    /// The totals of all coins as of each block (`-coinstatsindex`).
    CoinStats,
}

impl Index {
    /// All there are.
    pub const ALL: [Index; 4] = [Index::Transactions, Index::Spenders, Index::Filters, Index::CoinStats];
}

/// A row of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub index: Index,
    /// What it is found by.
    pub key: Vec<u8>,
    /// What it holds.
    pub value: Vec<u8>,
}

/// One atomic write. Coins with `None` are deleted. Header records are keyed by their number in the tree
/// (a parent always has a smaller number than its children).
#[derive(Debug, Default)]
pub struct Batch {
    /// Coins to put or delete.
    pub coins: Vec<(OutPoint, Option<Coin>)>,
    /// Header records to put.
    pub headers: Vec<(u32, HeaderRecord)>,
    /// Rows of indexes to put.
    pub rows: Vec<Row>,
    /// Small named facts (tip, flush mark, schema version) to put or delete.
    pub meta: Vec<(&'static str, Option<Vec<u8>>)>,
}

/// The seam between the ledger and a disk. All methods take `&self`: pool threads read while the ledger writes.
pub trait Store: Send + Sync + 'static {
    /// Looks up many coins at once; the answer runs beside `outpoints`.
    fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StoreError>;
    /// Calls `each` for every coin of a consistent snapshot, in key order. `each` may stop by returning false.
    fn for_each_coin(&self, each: &mut dyn FnMut(OutPoint, Coin) -> bool) -> Result<(), StoreError>;
    /// Calls `each` for every header record in order of number.
    fn for_each_header(&self, each: &mut dyn FnMut(u32, HeaderRecord)) -> Result<(), StoreError>;
    /// Looks up rows of an index; the answer runs beside `keys`.
    fn rows(&self, index: Index, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;
    /// A named fact.
    fn meta(&self, key: &'static str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Writes a batch atomically; with `durable` it (and all batches before it) survives a power loss on return.
    fn write(&self, batch: Batch, durable: bool) -> Result<(), StoreError>;
    /// Deletes all coins (for `--reindex-chainstate`).
    fn clear_coins(&self) -> Result<(), StoreError>;

    /// Appends a block; readable at once, durable after [`Store::sync_files`].
    fn append_block(&self, block: &[u8]) -> Result<FilePos, StoreError>;
    /// Appends the undo record of a block that lies in `file`.
    fn append_undo(&self, file: u32, undo: &[u8]) -> Result<FilePos, StoreError>;
    /// Reads the block at `pos`.
    fn read_block(&self, pos: FilePos) -> Result<Vec<u8>, StoreError>;
    /// Reads `length` bytes of the block at `pos`, from its byte `from` on. They are not held against anything.
    fn read_part(&self, pos: FilePos, from: u32, length: u32) -> Result<Vec<u8>, StoreError>;
    /// Reads the undo record at `pos`.
    fn read_undo(&self, pos: FilePos) -> Result<Vec<u8>, StoreError>;
    /// Makes all appended blocks and undo records durable.
    fn sync_files(&self) -> Result<(), StoreError>;
    /// The pairs of files there are, with the bytes each pair takes, in order of number.
    fn files(&self) -> Result<Vec<(u32, u64)>, StoreError>;
    /// Deletes a pair of files (prune). The file being appended to is never deleted.
    fn delete_files(&self, file: u32) -> Result<(), StoreError>;
    /// Bytes of disk that are left, where there is a disk.
    fn free_space(&self) -> Result<Option<u64>, StoreError>;
}
