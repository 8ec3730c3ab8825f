//! What the next block takes of the pool: chunks by their rate, as long as they fit. Core: `addChunks`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{Transaction, Txid, Wtxid};

use super::Mempool;
use super::fee::FeeRate;
use crate::rules::inputs::is_final;
use crate::rules::limits::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT};

/// How much a block may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// Weight of the block. Core: `-blockmaxweight`.
    pub max_weight: u64,
    /// Weight that is kept free for the header, the number of transactions and the coinbase.
    /// Core: `-blockreservedweight`.
    pub reserved_weight: u64,
    /// Satoshi per 1000 virtual bytes that a chunk must pay. Core: `-blockmintxfee`.
    pub min_fee: u64,
}

impl Default for BlockLimits {
    fn default() -> BlockLimits {
        BlockLimits { max_weight: MAX_BLOCK_WEIGHT as u64, reserved_weight: 8000, min_fee: 1 }
    }
}

/// Transactions for a block.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    /// In an order in which a block may hold them.
    pub transactions: Vec<Chosen>,
    /// What they pay together, in satoshi.
    pub fees: u64,
    /// Their weight with what is kept free.
    pub weight: u64,
    /// What their signature operations cost with what is kept free.
    pub sigop_cost: u64,
}

/// A transaction for a block.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its id without witness.
    pub txid: Txid,
    /// Its id with witness.
    pub wtxid: Wtxid,
    /// Its weight.
    pub weight: u64,
    /// What it pays, in satoshi.
    pub fee: u64,
    /// What its signature operations cost.
    pub sigop_cost: u64,
}

/// Kept free for the coinbase's outputs. Core: `DEFAULT_COINBASE_OUTPUT_MAX_ADDITIONAL_SIGOPS`.
const RESERVED_SIGOP_COST: u64 = 400;
/// Chunks in a row that do not fit, after which a nearly full block is full enough. Core: `MAX_CONSECUTIVE_FAILURES`.
const MAX_CONSECUTIVE_FAILURES: u32 = 1000;
/// What a nearly full block has left. Core: `BLOCK_FULL_ENOUGH_WEIGHT_DELTA`.
const BLOCK_FULL_ENOUGH_WEIGHT_DELTA: u64 = 4000;

impl Chosen {
    /// A transaction whose fee nobody claims.
    pub fn unpaid(tx: Transaction) -> Chosen {
        let (txid, wtxid, weight) = (tx.compute_txid(), tx.compute_wtxid(), tx.weight().to_wu());
        Chosen { tx: Arc::new(tx), txid, wtxid, weight, fee: 0, sigop_cost: 0 }
    }
}

impl Selected {
    /// Nothing, with what is kept free.
    pub fn nothing(limits: &BlockLimits) -> Selected {
        Selected { weight: limits.reserved_weight, sigop_cost: RESERVED_SIGOP_COST, ..Selected::default() }
    }
}

impl Mempool {
    /// A number that is another one after every change of the pool.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What a block at `height`, whose lock times are held against `time`, takes.
    pub fn select(&self, limits: &BlockLimits, height: u32, time: u32) -> Selected {
        let mut selected = Selected::nothing(limits);
        let least = FeeRate { fee: i64::try_from(limits.min_fee).unwrap_or(i64::MAX), size: 1000 };
        // What comes later in their order may spend of what was left out.
        let mut skipped = BTreeSet::new();
        let mut failures = 0;
        for chunk in &self.by_chunk {
            if chunk.rate.0.in_vbytes() < least {
                break;
            }
            if skipped.contains(&chunk.cluster) {
                continue;
            }
            let entries = || self.members(chunk).iter().map(|key| self.entry(*key));
            let sigop_cost: u64 = entries().map(|entry| entry.sigop_cost).sum();
            let fits = selected.weight + chunk.rate.0.size < limits.max_weight
                && selected.sigop_cost + sigop_cost < MAX_BLOCK_SIGOPS_COST
                && entries().all(|entry| is_final(&entry.tx, height, time));
            if !fits {
                skipped.insert(chunk.cluster);
                failures += 1;
                let nearly_full = selected.weight + BLOCK_FULL_ENOUGH_WEIGHT_DELTA > limits.max_weight;
                if failures > MAX_CONSECUTIVE_FAILURES && nearly_full {
                    break;
                }
                continue;
            }
            failures = 0;
            for entry in entries() {
                selected.weight += entry.weight;
                selected.fees += entry.fee;
                selected.transactions.push(Chosen {
                    tx: entry.tx.clone(),
                    txid: entry.txid,
                    wtxid: entry.wtxid,
                    weight: entry.weight,
                    fee: entry.fee,
                    sigop_cost: entry.sigop_cost,
                });
            }
            selected.sigop_cost += sigop_cost;
        }
        selected
    }
}
