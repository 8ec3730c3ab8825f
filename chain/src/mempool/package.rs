//! Transactions that are judged together: a child may pay for parents that pay too little alone. Core: `AcceptPackage`,
//! `AcceptMultipleTransactions`, `policy/packages.cpp`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid, Wtxid};
use parking_lot::RwLock;

use super::Mempool;
use super::accept::{Accepted, Candidate, Limits, Refusal, Staged, candidate};
use super::fee::FeeRate;
use crate::ledger::{Ledger, LedgerError};
use crate::rejection::{Blame, Rejection};
use crate::script::VerdictCache;

/// Transactions in one package. Core's name and value.
pub const MAX_PACKAGE_COUNT: usize = 25;
/// Weight of all of them: a cluster that the pool would take. Core's name and value.
pub const MAX_PACKAGE_WEIGHT: u64 = 404_000;

/// What became of one transaction of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pool took it, or would take it.
    Accepted(Accepted),
    /// The pool had it.
    Known {
        /// Its virtual bytes.
        vsize: u64,
        /// What it pays, in satoshi.
        fee: u64,
    },
    /// The pool has it with another witness: its id with that.
    OtherWitness(Wtxid),
    /// It was not taken.
    Refused(Refusal),
    /// What is wrong with the package kept it from being judged.
    Unjudged,
}

/// What is wrong with a package. `Display` is what Core says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageError {
    /// One of its transactions was refused.
    Transaction,
    /// One of its transactions leaves dust of a parent behind.
    UnspentDust,
    /// All of them together.
    Policy {
        /// The reason.
        reason: &'static str,
        /// What else is to be said, for people; may be empty.
        detail: String,
    },
}

impl fmt::Display for PackageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackageError::Transaction => f.write_str("transaction failed"),
            PackageError::UnspentDust => f.write_str("unspent-dust"),
            PackageError::Policy { reason, detail } if detail.is_empty() => f.write_str(reason),
            PackageError::Policy { reason, detail } => write!(f, "{reason}, {detail}"),
        }
    }
}

/// What became of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What is wrong with it; none: the pool has, or would take, all of it.
    pub error: Option<PackageError>,
    /// What became of each transaction.
    pub outcomes: Vec<Outcome>,
}

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
    /// What who hands them in wants each to pay at most.
    pub max_rate: Option<FeeRate>,
}

impl Packages<'_> {
    /// Whether the pool would take these, parents first. Each has to pay enough alone, and none may replace anything.
    pub fn test(&self, package: &[Arc<Transaction>]) -> Result<Judged, LedgerError> {
        let mut outcomes = vec![Outcome::Unjudged; package.len()];
        if let Err(error) = check_well_formed(package) {
            return Ok(Judged { error: Some(error), outcomes });
        }
        let all: Vec<usize> = (0..package.len()).collect();
        let staged = match self.stage_together(package, &all, Limits::Listed, &mut outcomes)? {
            Ok(staged) => staged,
            Err(error) => return Ok(Judged { error: Some(error), outcomes }),
        };
        for (staged, outcome) in staged.iter().zip(&mut outcomes) {
            if let Err(refusal) = staged.check_scripts(self.verdicts) {
                *outcome = Outcome::Refused(refusal);
                return Ok(Judged { error: Some(PackageError::Transaction), outcomes });
            }
            *outcome = Outcome::Accepted(staged.accepted());
        }
        Ok(Judged { error: None, outcomes })
    }

    /// Takes in what is good enough alone, then what is good enough together: a child after parents of it.
    pub fn accept(&self, package: &[Arc<Transaction>]) -> Result<Judged, LedgerError> {
        let mut outcomes = vec![Outcome::Unjudged; package.len()];
        if let Err(error) = check_well_formed(package).and_then(|()| check_child_with_parents(package)) {
            return Ok(Judged { error: Some(error), outcomes });
        }
        let (mut together, mut failed) = (Vec::new(), false);
        for (number, tx) in package.iter().enumerate() {
            outcomes[number] = match self.known(tx) {
                Some(known) => known,
                None => self.accept_alone(tx)?.map_or_else(Outcome::Refused, Outcome::Accepted),
            };
            let Outcome::Refused(refusal) = &outcomes[number] else { continue };
            match refusal.rejection.blame() {
                Blame::Reconsiderable | Blame::Missing if package.len() > 1 => together.push(number),
                _ => failed = true,
            }
        }
        let mut error = failed.then_some(PackageError::Transaction);
        if error.is_none() && !together.is_empty() {
            error = self.accept_together(package, &together, &mut outcomes)?;
        }
        let mut pool = self.pool.write();
        pool.limit(self.now);
        for (tx, outcome) in package.iter().zip(&mut outcomes) {
            let was_in = !matches!(outcome, Outcome::Refused(_) | Outcome::Unjudged);
            if was_in && !pool.by_txid.contains_key(&tx.compute_txid()) {
                error = Some(PackageError::Transaction);
                *outcome = Outcome::Refused(Rejection::MempoolFull.into());
            }
        }
        Ok(Judged { error, outcomes })
    }

    /// What the pool has of it.
    fn known(&self, tx: &Transaction) -> Option<Outcome> {
        let pool = self.pool.read();
        let entry = pool.get(&tx.compute_txid())?;
        Some(match entry.wtxid == tx.compute_wtxid() {
            true => Outcome::Known { vsize: entry.vsize(), fee: entry.fee },
            false => Outcome::OtherWitness(entry.wtxid),
        })
    }

    fn accept_alone(&self, tx: &Arc<Transaction>) -> Result<Result<Accepted, Refusal>, LedgerError> {
        let staged = {
            let pool = self.pool.read();
            let candidate = candidate(tx.clone(), self.now, Limits::Held, &pool, &[], self.ledger)?;
            candidate.and_then(|candidate| candidate.stage_alone(Limits::Held, self.max_rate, &pool, self.ledger))
        };
        Ok(staged.and_then(|staged| {
            staged.check_scripts(self.verdicts)?;
            Ok(self.pool.write().put(staged))
        }))
    }

    /// Takes in those of a package that were not good enough alone.
    fn accept_together(
        &self,
        package: &[Arc<Transaction>],
        together: &[usize],
        outcomes: &mut [Outcome],
    ) -> Result<Option<PackageError>, LedgerError> {
        if together.len() == 1 {
            return Ok(Some(PackageError::Transaction));
        }
        let staged = match self.stage_together(package, together, Limits::Packaged, outcomes)? {
            Ok(staged) => staged,
            Err(error) => return Ok(Some(error)),
        };
        for (number, staged) in together.iter().zip(&staged) {
            if let Err(refusal) = staged.check_scripts(self.verdicts) {
                outcomes[*number] = Outcome::Refused(refusal);
                return Ok(Some(PackageError::Transaction));
            }
        }
        let total = staged.iter().fold(FeeRate::default(), |sum, staged| sum.plus(staged.accepted().rate));
        let includes: Vec<Wtxid> = staged.iter().map(|staged| staged.accepted().wtxid).collect();
        let mut pool = self.pool.write();
        for (number, staged) in together.iter().zip(staged) {
            let accepted = pool.put(staged);
            outcomes[*number] = Outcome::Accepted(Accepted { rate: total, includes: includes.clone(), ..accepted });
        }
        Ok(None)
    }

    /// All stages but the scripts for some of a package. What is refused gets its outcome.
    fn stage_together(
        &self,
        package: &[Arc<Transaction>],
        together: &[usize],
        limits: Limits,
        outcomes: &mut [Outcome],
    ) -> Result<Result<Vec<Staged>, PackageError>, LedgerError> {
        let pool = self.pool.read();
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut refused = |number: usize, refusal| {
            outcomes[number] = Outcome::Refused(refusal);
            Ok(Err(PackageError::Transaction))
        };
        for number in together {
            let tx = package[*number].clone();
            let judged = candidate(tx, self.now, limits, &pool, &candidates, self.ledger)?;
            let judged =
                judged.and_then(|one| one.check_rate_below(self.max_rate).map(|()| one).map_err(Refusal::from));
            match judged {
                Ok(one) => candidates.push(one),
                Err(refusal) => return refused(*number, refusal),
            }
        }
        let truc = (0..candidates.len()).find_map(|number| pool.check_truc_in_package(&candidates, number).err());
        if let Some(detail) = truc {
            return Ok(Err(PackageError::Policy { reason: "TRUC-violation", detail }));
        }
        let rates = candidates.iter().map(|one| FeeRate { fee: one.entry.modified_fee(), size: one.entry.vsize() });
        let total = rates.fold(FeeRate::default(), FeeRate::plus);
        if let (Limits::Packaged, Err(refusal)) = (limits, pool.check_rate(total, self.now)) {
            return refused(*together.last().expect("there are some"), refusal);
        }
        let entries: Vec<_> = candidates.iter().map(|one| &one.entry).collect();
        let mut replaced = BTreeSet::new();
        if candidates.iter().any(|one| !one.conflicts.is_empty()) {
            match pool.check_package_replacement(&candidates) {
                Ok(found) => replaced = found,
                Err(error) => return Ok(Err(error)),
            }
        } else if pool.touched(&entries, &replaced).is_oversized(&pool.policy) {
            return Ok(Err(PackageError::Policy { reason: "too-large-cluster", detail: String::new() }));
        }
        if let Err((number, refusal)) = pool.check_dust_is_spent(&entries) {
            outcomes[together[number]] = Outcome::Refused(refusal);
            return Ok(Err(PackageError::UnspentDust));
        }
        // What is replaced leaves with the first.
        let staged =
            candidates.into_iter().map(|one| one.staged(std::mem::take(&mut replaced), limits, &pool, self.ledger));
        Ok(Ok(staged.collect()))
    }
}

/// What shows of a package without pool and coins. Core: `IsWellFormedPackage`.
fn check_well_formed(package: &[Arc<Transaction>]) -> Result<(), PackageError> {
    let refuse = |reason| Err(PackageError::Policy { reason, detail: String::new() });
    if package.len() > MAX_PACKAGE_COUNT {
        return refuse("package-too-many-transactions");
    }
    if package.len() > 1 && package.iter().map(|tx| tx.weight().to_wu()).sum::<u64>() > MAX_PACKAGE_WEIGHT {
        return refuse("package-too-large");
    }
    let ids: Vec<Txid> = package.iter().map(|tx| tx.compute_txid()).collect();
    if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
        return refuse("package-contains-duplicates");
    }
    let spends_later = |(number, tx): (usize, &Arc<Transaction>)| {
        tx.input.iter().any(|input| ids[number..].contains(&input.previous_output.txid))
    };
    if package.iter().enumerate().any(spends_later) {
        return refuse("package-not-sorted");
    }
    let mut spent = BTreeSet::new();
    // That one transaction spends something twice is told of it alone.
    let mut is_fresh = |tx: &Arc<Transaction>| {
        let outpoints: BTreeSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        !outpoints.is_empty() && outpoints.into_iter().all(|outpoint| spent.insert(outpoint))
    };
    if package.iter().all(&mut is_fresh) { Ok(()) } else { refuse("conflict-in-package") }
}

/// The last one spends of each of the others. Core: `IsChildWithParents`.
fn check_child_with_parents(package: &[Arc<Transaction>]) -> Result<(), PackageError> {
    let Some((child, parents)) = package.split_last() else { return Ok(()) };
    if parents.iter().all(|parent| spends_of(child, parent)) {
        return Ok(());
    }
    Err(PackageError::Policy { reason: "package-not-child-with-parents", detail: String::new() })
}

/// Whether the last one spends of each of the others, and none of these of another. Core: `IsChildWithParentsTree`.
pub fn is_child_with_parents_tree(package: &[Arc<Transaction>]) -> bool {
    let parents = package.split_last().map(|(_, parents)| parents).unwrap_or_default();
    let apart = parents.iter().all(|one| !parents.iter().any(|other| spends_of(one, other)));
    check_child_with_parents(package).is_ok() && apart
}

fn spends_of(child: &Transaction, parent: &Transaction) -> bool {
    let txid = parent.compute_txid();
    child.input.iter().any(|input| input.previous_output.txid == txid)
}
