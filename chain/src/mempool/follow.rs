//! The pool and the chain: what a block holds or conflicts with leaves, what a block that is taken back held returns.
//! Runs in the ledger's thread just before a new tip is shown to anyone.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid, Wtxid};
use parking_lot::RwLock;

use super::accept::{Limits, stage};
use super::{Entry, Key, Mempool};
use crate::block::Block;
use crate::coins::Coin;
use crate::ledger::{Change, Follow, Ledger, LedgerError};
use crate::rejection::Rejection;
use crate::rules::branch::{Branch, median_time_past};
use crate::rules::inputs::{check_inputs, is_final, sequence_locks};
use crate::script::VerdictCache;
use crate::tree::Id;

/// Keeps a pool in step with the published chain.
pub struct Follower {
    /// The pool.
    pub pool: Arc<RwLock<Mempool>>,
    /// Scripts that are known to hold.
    pub verdicts: Arc<VerdictCache>,
    /// The time, in seconds since 1970.
    pub now: Box<dyn Fn() -> u64 + Send>,
    /// Is told of each transaction that returns from a block that was taken back.
    pub returned: Box<dyn FnMut(Txid, Wtxid) + Send>,
}

/// Transactions of a block that are looked at while the pool is held. Readers wait for less than a millisecond, and where
/// each leaves a full cluster behind, which is ordered anew, for a few.
const AT_ONCE: usize = 32;

impl Follow for Follower {
    fn follow(&mut self, change: &Change, tip: Id, ledger: &Ledger) -> Result<(), LedgerError> {
        let hash = ledger.tree().read().node(tip).hash;
        let now = (self.now)();
        self.pool.write().leave_tip();
        for block in &change.connected {
            self.pool.write().let_floor_fall(now);
            for from in (0..block.transactions.len()).step_by(AT_ONCE) {
                let to = block.transactions.len().min(from + AT_ONCE);
                self.pool.write().connect(block, from..to);
            }
        }
        if !change.disconnected.is_empty() {
            assert_eq!(ledger.tip(), hash, "the coins are those of the new tip");
            self.refill(change, now, ledger)?;
            let forgotten = change.disconnected.iter().any(|disconnected| disconnected.block.is_none());
            self.drop_premature(forgotten, ledger)?;
            self.pool.write().limit(now);
        }
        self.pool.write().tip = Some(hash);
        Ok(())
    }
}

impl Follower {
    /// Returns the transactions of blocks that were taken back, the oldest first. What can not return leaves with all
    /// that spends of it. Core: `MaybeUpdateMempoolForReorg`.
    fn refill(&mut self, change: &Change, now: u64, ledger: &Ledger) -> Result<(), LedgerError> {
        let mined: HashSet<&Txid> = change.connected.iter().flat_map(|block| &block.txids).collect();
        for block in change.disconnected.iter().rev().filter_map(|disconnected| disconnected.block.as_ref()) {
            for (number, tx) in block.transactions.iter().enumerate() {
                let (txid, wtxid) = (block.txids[number], block.wtxids[number]);
                if mined.contains(&txid) || self.pool.read().get(&txid).is_some() {
                    continue;
                }
                if !tx.is_coinbase() && self.take_back(Arc::new(tx.clone()), now, ledger)? {
                    (self.returned)(txid, wtxid);
                } else {
                    self.pool.write().drop_spenders(txid, tx.output.len());
                }
            }
        }
        Ok(())
    }

    fn take_back(&self, tx: Arc<Transaction>, now: u64, ledger: &Ledger) -> Result<bool, LedgerError> {
        let staged = stage(tx.clone(), now, Limits::Bypassed, &self.pool.read(), ledger)?;
        let staged = match staged {
            Err(refusal) if refusal.rejection == Rejection::TooLargeCluster => {
                // Alone it may fit: then what spends of it goes.
                self.pool.write().drop_spenders(tx.compute_txid(), tx.output.len());
                stage(tx, now, Limits::Bypassed, &self.pool.read(), ledger)?
            }
            other => other,
        };
        let Ok(staged) = staged else { return Ok(false) };
        Ok(staged.check_scripts(&self.verdicts).is_ok() && self.pool.write().insert(staged, now).is_ok())
    }

    /// Takes out what the next block could not hold any more: it waits for a time or a height, or spends a coinbase that
    /// is too young. Core: `removeForReorg`. With `all` it looks at every transaction: some may spend of blocks that were
    /// taken back and forgotten.
    fn drop_premature(&self, all: bool, ledger: &Ledger) -> Result<(), LedgerError> {
        let pool = self.pool.read();
        let waits = |entry: &&Entry| all || entry.depends_on_height;
        let waiting: Vec<Txid> = pool.iter().filter(waits).map(|entry| entry.txid).collect();
        drop(pool);
        for txid in waiting {
            let pool = self.pool.read();
            // It may have gone with one that it spends of.
            let Some(key) = pool.by_txid.get(&txid).copied() else { continue };
            let premature = pool.is_premature(key, ledger)?;
            drop(pool);
            if premature {
                self.pool.write().remove_recursive(key);
            }
        }
        Ok(())
    }
}

impl Mempool {
    /// The chain changes: what was judged before is to be judged again, even if no transaction comes or goes.
    fn leave_tip(&mut self) {
        self.tip = None;
        self.generation += 1;
    }

    /// These transactions of a block joined the chain: they leave, and so do others that spend the same outputs, with all
    /// that spend of them. Core: `removeForBlock`.
    fn connect(&mut self, block: &Block, part: Range<usize>) {
        let (transactions, txids) = (&block.transactions[part.clone()], &block.txids[part]);
        let mined: Vec<Key> = txids.iter().filter_map(|txid| self.by_txid.get(txid)).copied().collect();
        // The number grows for these too. Core: `removeUnchecked`.
        self.sequence += self.take(&mined).len() as u64;
        for (tx, txid) in transactions.iter().zip(txids) {
            self.deltas.remove(txid);
            for input in &tx.input {
                if let Some(key) = self.spenders.get(&input.previous_output).copied() {
                    let conflicting = self.entry(key).txid;
                    self.deltas.remove(&conflicting);
                    self.remove_recursive(key);
                }
            }
        }
    }

    fn drop_spenders(&mut self, txid: Txid, outputs: usize) {
        for vout in 0..outputs {
            if let Some(key) = self.spenders.get(&OutPoint::new(txid, vout as u32)).copied() {
                self.remove_recursive(key);
            }
        }
    }

    /// Whether the next block could not hold it yet, or, after a reorganisation, no more.
    fn is_premature(&self, key: Key, ledger: &Ledger) -> Result<bool, LedgerError> {
        let tx = &self.entry(key).tx;
        let tree = ledger.tree();
        let tree = tree.read();
        let branch = tree.branch(tree.get(&ledger.tip()).expect("the ledger stands on a block of the tree"));
        let next = branch.height() + 1;
        if !is_final(tx, next, median_time_past(&branch)) {
            return Ok(true);
        }
        let outpoints: Vec<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        let found = ledger.coins(&outpoints)?.into_iter();
        let coins: Option<Vec<Coin>> = (outpoints.iter().zip(found))
            .map(|(outpoint, coin)| match self.get(&outpoint.txid) {
                Some(parent) => Some(Coin::new(parent.tx.output.get(outpoint.vout as usize)?, next, false)),
                None => coin,
            })
            .collect();
        let Some(coins) = coins else { return Ok(true) };
        let locks = sequence_locks(tx, &coins, &branch);
        Ok(!locks.are_past(&branch) || check_inputs(tx, &coins, next, ledger.params()).is_err())
    }
}
