//! One transaction of the pool with what was found out about it when it came.

use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, TxIn, TxOut, Txid, Wtxid};
use smallvec::SmallVec;

use super::fee::FeeRate;
use super::{ChunkKey, Cluster};

/// Number of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u32);

/// A transaction of the pool.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its id without witness.
    pub txid: Txid,
    /// Its id with witness.
    pub wtxid: Wtxid,
    /// What it pays, in satoshi.
    pub fee: u64,
    /// What the operator adds to that.
    pub delta: i64,
    /// Its weight (BIP141).
    pub weight: u64,
    /// Its weight, or what its signature operations count for, if that is more.
    pub adjusted_weight: u64,
    /// What its signature operations cost.
    pub sigop_cost: u64,
    /// When it came, in seconds since 1970.
    pub time: u64,
    /// Height of the chain when it came.
    pub height: u32,
    /// The pool's sequence number when it came; 0 for one of a block that was taken back.
    pub sequence: u64,
    /// It may become invalid when blocks are taken back: it waits for a time or a height, or spends a coinbase.
    pub(super) depends_on_height: bool,
    /// Bytes that it takes with its place in all indexes.
    pub(super) memory: usize,
    pub(super) parents: SmallVec<[Key; 2]>,
    pub(super) children: SmallVec<[Key; 2]>,
    pub(super) cluster: u64,
    pub(super) chunk: usize,
}

impl Entry {
    /// Virtual bytes, what its signature operations count for included. Core: `GetTxSize`.
    pub fn vsize(&self) -> u64 {
        self.adjusted_weight.div_ceil(4)
    }

    /// What it pays with what the operator adds. Core: `GetModifiedFee`.
    pub fn modified_fee(&self) -> i64 {
        i64::try_from(self.fee).unwrap_or(i64::MAX).saturating_add(self.delta)
    }

    /// Whether it spends an output of that transaction.
    pub(super) fn spends_of(&self, txid: &Txid) -> bool {
        self.tx.input.iter().any(|input| input.previous_output.txid == *txid)
    }

    /// Modified fee and weight.
    pub fn rate(&self) -> FeeRate {
        FeeRate { fee: self.modified_fee(), size: self.adjusted_weight }
    }
}

/// Bytes that a transaction takes in the pool: itself, its entry and its place in each index. Every allocation counts
/// for 16 bytes more than it asks for, a place in a hash table twice (it is a third to full), one in a tree for a
/// third more.
pub(super) fn memory_of(tx: &Transaction) -> usize {
    const ALLOCATION: usize = 16;
    let heap = |bytes: usize| if bytes == 0 { 0 } else { bytes + ALLOCATION };
    let inputs: usize = tx.input.iter().map(|input| heap(input.script_sig.len()) + heap(witness_bytes(input))).sum();
    let outputs: usize = tx.output.iter().map(|output| heap(output.script_pubkey.len())).sum();
    let own = heap(size_of::<Transaction>() + 2 * size_of::<usize>())
        + heap(tx.input.len() * size_of::<TxIn>())
        + heap(tx.output.len() * size_of::<TxOut>());
    let ids = 2 * (size_of::<(Txid, Key)>() + size_of::<(Wtxid, Key)>());
    let spends = 2 * tx.input.len() * size_of::<(OutPoint, Key)>();
    let cluster = 2 * size_of::<(u64, Cluster)>() + size_of::<ChunkKey>() * 4 / 3 + heap(8) + heap(32);
    inputs + outputs + own + size_of::<Option<Entry>>() + ids + spends + cluster
}

/// A witness is kept as one piece with a number of four bytes for each element.
fn witness_bytes(input: &TxIn) -> usize {
    if input.witness.is_empty() { 0 } else { input.witness.size() + 4 * input.witness.len() }
}
