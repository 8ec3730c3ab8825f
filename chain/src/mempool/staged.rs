//! A transaction that passed every stage but its scripts: they may run on any thread, and then [`Mempool::insert`] takes it
//! in, if neither pool nor tip has changed meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{Transaction, Txid, Wtxid};

use super::accept::{Limits, Refusal};
use super::entry::Entry;
use super::fee::FeeRate;
use super::{Key, Mempool, policy};
use crate::coins::Coin;
use crate::rejection::Rejection;
use crate::script::{Flags, Sighashes, VerdictCache, verify_input};

/// A transaction that passed every stage but its scripts.
#[derive(Clone, Debug)]
pub struct Staged {
    pub(super) entry: Entry,
    pub(super) coins: Vec<Coin>,
    /// What it replaces, with all that spends of that.
    pub(super) replaced: BTreeSet<Key>,
    pub(super) limits: Limits,
    /// The flags of the next block.
    pub(super) flags: Flags,
    /// The pool when it was judged.
    pub(super) generation: u64,
}

/// What is known of a transaction that the pool took, or would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its id without witness.
    pub txid: Txid,
    /// Its id with witness.
    pub wtxid: Wtxid,
    /// What it pays, in satoshi.
    pub fee: u64,
    /// Its virtual bytes.
    pub vsize: u64,
    /// What it pays with what the operator adds, over its virtual bytes; of a package that was judged as one, what all
    /// pay over the bytes of all.
    pub rate: FeeRate,
    /// Whose fees and bytes are in the rate; its own where it was judged alone.
    pub includes: Vec<Wtxid>,
    /// What left the pool for it; of a package that was judged as one all is told with the first.
    pub replaced: Vec<Arc<Transaction>>,
}

impl Staged {
    /// Runs the scripts, first as the pool wants them, then under exactly the flags of the next block. That they hold
    /// there is remembered: the block need not run them again.
    pub fn check_scripts(&self, verdicts: &VerdictCache) -> Result<(), Refusal> {
        self.run_scripts(Flags::STANDARD, verdicts)?;
        self.run_scripts(self.flags, verdicts)?;
        verdicts.insert(&verdicts.transaction_key(&self.entry.wtxid, self.flags));
        Ok(())
    }

    fn run_scripts(&self, flags: Flags, verdicts: &VerdictCache) -> Result<(), Refusal> {
        let tx = &self.entry.tx;
        let sighashes = Sighashes::new(tx, &self.coins);
        for input in 0..tx.input.len() {
            let Err(error) = verify_input(&sighashes, input, flags, Some(verdicts)) else { continue };
            let has_witness = tx.input.iter().any(|input| !input.witness.is_empty());
            let stripped = !has_witness && policy::needs_witness(tx, &self.coins);
            let rejection =
                if stripped { Rejection::MempoolScriptStripped(error) } else { Rejection::MempoolScript(error) };
            let (txid, wtxid, spent) = (self.entry.txid, self.entry.wtxid, tx.input[input].previous_output);
            let detail = format!("input {input} of {txid} (wtxid {wtxid}), spending {spent}");
            return Err(Refusal { rejection, detail });
        }
        Ok(())
    }

    /// The transaction.
    pub fn transaction(&self) -> &Arc<Transaction> {
        &self.entry.tx
    }

    /// What is known of it before it is taken.
    pub fn accepted(&self) -> Accepted {
        let Entry { txid, wtxid, fee, .. } = self.entry;
        let vsize = self.entry.vsize();
        let rate = FeeRate { fee: self.entry.modified_fee(), size: vsize };
        Accepted { txid, wtxid, fee, vsize, rate, includes: vec![wtxid], replaced: Vec::new() }
    }

    /// Whether the pool is as it was when this was judged. If not it is to be staged again; its scripts stay as they
    /// were found, since the ids of what it spends commit to the coins.
    pub fn is_current(&self, pool: &Mempool) -> bool {
        self.generation == pool.generation
    }

    /// When it came.
    pub fn time(&self) -> u64 {
        self.entry.time
    }
}

impl Mempool {
    /// Takes a transaction in whose scripts hold, and makes room for it at the time `now`; it may be the one that has
    /// to go.
    ///
    /// # Panics
    /// When the pool has changed since it was staged: see [`Staged::is_current`].
    pub fn insert(&mut self, staged: Staged, now: u64) -> Result<Accepted, Refusal> {
        assert!(staged.is_current(self), "it was judged against another pool");
        let limits = staged.limits;
        let accepted = self.put(staged);
        if limits == Limits::Held {
            self.limit(now);
            if !self.by_txid.contains_key(&accepted.txid) {
                return Err(Rejection::MempoolFull.into());
            }
        }
        Ok(accepted)
    }

    /// Takes a transaction in, and out what it replaces; makes no room.
    pub(super) fn put(&mut self, staged: Staged) -> Accepted {
        let mut accepted = staged.accepted();
        let replaced = self.take(&staged.replaced.into_iter().collect::<Vec<_>>());
        self.note_left(&replaced);
        accepted.replaced = replaced.into_iter().map(|entry| entry.tx).collect();
        self.add(staged.entry);
        accepted
    }
}
