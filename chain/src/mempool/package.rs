//! Transactions that are judged together: a child may pay for a parent that pays too little alone. As far as peers need
//! it: parents that stand in the pool or before their child. Core: `AcceptPackage`.

use std::sync::Arc;

use bitcoin::{Transaction, Txid};
use parking_lot::RwLock;

use super::Mempool;
use super::accept::{Accepted, Limits, Refusal, stage};
use super::fee::{FeeRate, fee_for};
use crate::ledger::{Ledger, LedgerError};
use crate::rejection::{Blame, Rejection};
use crate::script::VerdictCache;

/// What became of one transaction of a package.
pub type Outcome = Result<Accepted, Refusal>;

/// Where packages are judged.
pub struct Packages<'a> {
    /// The pool; it may be seen with a part of a package for a moment.
    pub pool: &'a RwLock<Mempool>,
    /// The chain, at rest at the pool's tip.
    pub ledger: &'a Ledger,
    /// Scripts that are known to hold.
    pub verdicts: &'a VerdictCache,
    /// The time, in seconds since 1970.
    pub now: u64,
}

impl Packages<'_> {
    /// Takes in what is good enough alone, then what is good enough together. What was not judged, since one before it
    /// failed for good, has missing inputs.
    pub fn accept(&self, package: &[Arc<Transaction>]) -> Result<Vec<Outcome>, LedgerError> {
        let mut outcomes: Vec<Outcome> = vec![Err(Rejection::MissingInputs.into()); package.len()];
        let mut together = Vec::new();
        for (number, tx) in package.iter().enumerate() {
            let outcome = self.try_one(tx, Limits::Held)?;
            let blame = outcome.as_ref().err().map(|refusal| refusal.rejection.blame());
            outcomes[number] = outcome;
            match blame {
                None | Some(Blame::Duplicate) => {}
                Some(Blame::Reconsiderable | Blame::Missing) => together.push(number),
                Some(_) => return Ok(outcomes),
            }
        }
        if together.len() > 1 {
            self.accept_together(package, &together, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    fn accept_together(
        &self,
        package: &[Arc<Transaction>],
        together: &[usize],
        outcomes: &mut [Outcome],
    ) -> Result<(), LedgerError> {
        let mut taken: Vec<Accepted> = Vec::new();
        for number in together {
            match self.try_one(&package[*number], Limits::Packaged)? {
                Ok(accepted) => taken.push(accepted),
                Err(refusal) => {
                    self.take_back(&taken);
                    outcomes[*number] = Err(refusal);
                    return Ok(());
                }
            }
        }
        let mut pool = self.pool.write();
        let total = taken.iter().fold(FeeRate::default(), |sum, accepted| sum.plus(accepted.rate));
        let least = pool.min_fee(self.now).max(pool.policy.min_relay_fee);
        if i128::from(total.fee) < i128::from(fee_for(least, total.size)) {
            drop(pool);
            self.take_back(&taken);
            return Ok(());
        }
        pool.limit(self.now);
        for (number, accepted) in together.iter().zip(taken) {
            let stays = pool.by_txid.contains_key(&accepted.txid);
            outcomes[*number] = if stays { Ok(accepted) } else { Err(Rejection::MempoolFull.into()) };
        }
        Ok(())
    }

    fn try_one(&self, tx: &Arc<Transaction>, limits: Limits) -> Result<Outcome, LedgerError> {
        let staged = match stage(tx.clone(), self.now, limits, &self.pool.read(), self.ledger)? {
            Ok(staged) => staged,
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(match staged.check_scripts(self.verdicts) {
            Ok(()) => self.pool.write().insert(staged, self.now),
            Err(refusal) => Err(refusal),
        })
    }

    fn take_back(&self, taken: &[Accepted]) {
        let mut pool = self.pool.write();
        for Accepted { txid, .. } in taken {
            pool.forget(txid);
        }
    }
}

impl Mempool {
    /// Takes a transaction out with all that spend of it, if it is there.
    fn forget(&mut self, txid: &Txid) {
        if let Some(key) = self.by_txid.get(txid).copied() {
            self.remove_recursive(key);
        }
    }
}
