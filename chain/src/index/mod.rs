//! Optional indexes: from a block and the coins it spends to rows by which things are found. A row is a function of its
//! block and of the row of the block's parent, and is never taken out: what holds of a block still holds when the block has
//! left the chain. Judges nothing and keeps no state; `ledger/indexes.rs` says when rows are made, docs/SCHEMA.md shows them.

pub mod coinstats;
pub mod filters;
pub mod spenders;
pub mod transactions;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;

use crate::block::Block;
use crate::coins::Coin;
use crate::params::Params;
use crate::store::{Row, StoreError};

pub use crate::store::Index;

impl Index {
    /// What `getindexinfo` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Index::Transactions => "txindex",
            Index::Spenders => "txospenderindex",
            Index::Filters => "basic block filter index",
            Index::CoinStats => "coinstatsindex",
        }
    }

    /// The fact that names the last block of which the index has all rows.
    pub(crate) fn tip_key(self) -> &'static str {
        match self {
            Index::Transactions => "index/transactions",
            Index::Spenders => "index/spenders",
            Index::Filters => "index/filters",
            Index::CoinStats => "index/coinstats",
        }
    }

    /// Key of the row of a block that those of its children are built on, if they are.
    pub(crate) fn link_key(self, hash: &BlockHash) -> Option<Vec<u8>> {
        match self {
            Index::Transactions | Index::Spenders => None,
            Index::Filters => Some(filters::header_key(hash)),
            Index::CoinStats => Some(hash.to_byte_array().to_vec()),
        }
    }

    /// What the block gives this index.
    pub(crate) fn part(self, entry: &Entry<'_>) -> Part {
        match self {
            Index::Transactions => Part::Rows(transactions::rows(entry)),
            Index::Spenders => Part::Rows(spenders::rows(entry)),
            Index::Filters => Part::Filter(filters::basic_filter(entry.block, entry.spent)),
            Index::CoinStats => Part::CoinStats(Box::new(coinstats::Part::new(entry))),
        }
    }
}

/// A block to be indexed.
pub(crate) struct Entry<'a> {
    /// The block.
    pub block: &'a Block,
    /// The coins that it spends, in block order. More may follow.
    pub spent: &'a [Coin],
    /// Its number in the tree.
    pub number: u32,
    /// Its height.
    pub height: u32,
    /// The network.
    pub params: &'a Params,
}

/// What a block gives an index by itself: the bulk of the work, in any order and any thread.
pub(crate) enum Part {
    /// All there is to it.
    Rows(Vec<Row>),
    Filter(Vec<u8>),
    CoinStats(Box<coinstats::Part>),
}

impl Part {
    /// The rows of the block `hash`. `parent`: the parent's row under its [`Index::link_key`]; none for genesis.
    pub fn rows(self, hash: &BlockHash, parent: Option<&[u8]>) -> Result<Vec<Row>, StoreError> {
        match self {
            Part::Rows(rows) => Ok(rows),
            Part::Filter(content) => filters::rows(content, hash, parent),
            Part::CoinStats(part) => part.rows(hash, parent),
        }
    }
}

/// A row that does not read back.
pub(crate) fn damaged(index: Index, detail: impl ToString) -> StoreError {
    let what = format!("a row of the index \"{}\"", index.name());
    StoreError::Damaged { what, detail: detail.to_string(), remedy: "--reindex" }
}
