//! Transactions that are judged together: a child may pay for parents that pay too little alone. Core: `AcceptPackage`,
//! `AcceptMultipleTransactions`, `policy/packages.cpp`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid, Wtxid};
use parking_lot::RwLock;

use super::Mempool;
use super::accept::{Candidate, Limits, Refusal, candidate, is_mined};
use super::fee::FeeRate;
use super::staged::{Accepted, Staged};
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

/// Transactions on their way through [`Packages`], and what is known of them so far.
#[derive(Debug)]
pub struct Judging {
    package: Vec<Arc<Transaction>>,
    outcomes: Vec<Outcome>,
    /// Of each whether its scripts hold, once they were run. That stays so: the ids of what it spends commit to the coins.
    scripts: Vec<Option<Result<(), Refusal>>>,
}

/// How far a package came.
#[derive(Debug)]
pub enum Step {
    /// The scripts of these are to be run first, on any thread: see [`Judging::run_scripts`].
    Scripts(Vec<(usize, Staged)>),
    /// It is judged.
    Done(Judged),
}

impl Judging {
    /// Transactions of which nothing is known, parents first.
    pub fn new(package: Vec<Arc<Transaction>>) -> Judging {
        Judging { outcomes: vec![Outcome::Unjudged; package.len()], scripts: vec![None; package.len()], package }
    }

    /// The transactions.
    pub fn package(&self) -> &[Arc<Transaction>] {
        &self.package
    }

    /// What became of each so far.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Runs the scripts that a step asked for, up to the first that fails.
    pub fn run_scripts(&mut self, staged: &[(usize, Staged)], verdicts: &VerdictCache) {
        for (number, staged) in staged {
            let verdict = self.scripts[*number].get_or_insert_with(|| staged.check_scripts(verdicts));
            if verdict.is_err() {
                return;
            }
        }
    }

    /// Whether the scripts of these hold, or which do not; none if they were not run.
    fn verdict(&self, staged: &[(usize, Staged)]) -> Option<Result<(), (usize, Refusal)>> {
        for (number, _) in staged {
            if let Err(refusal) = self.scripts[*number].as_ref()? {
                return Some(Err((*number, refusal.clone())));
            }
        }
        Some(Ok(()))
    }

    fn done(&mut self, error: Option<PackageError>) -> Step {
        Step::Done(Judged { error, outcomes: std::mem::take(&mut self.outcomes) })
    }
}

/// Where packages are judged, in steps: between two of them scripts are run, and the pool may change.
pub struct Packages<'a> {
    /// The pool; it may be seen with a part of a package for a moment.
    pub pool: &'a RwLock<Mempool>,
    /// The chain, at rest at the pool's tip.
    pub ledger: &'a Ledger,
    /// The time, in seconds since 1970.
    pub now: u64,
    /// What who hands them in wants each to pay at most.
    pub max_rate: Option<FeeRate>,
}

impl Packages<'_> {
    /// Whether the pool would take these. Each has to pay enough alone, and none may replace anything.
    pub fn test(&self, judging: &mut Judging) -> Result<Step, LedgerError> {
        if let Err(error) = check_well_formed(&judging.package) {
            return Ok(judging.done(Some(error)));
        }
        let all: Vec<usize> = (0..judging.package.len()).collect();
        let staged = match self.stage_together(judging, &all, Limits::Listed)? {
            Ok(staged) => staged,
            Err(error) => return Ok(judging.done(Some(error))),
        };
        let failed = match judging.verdict(&staged) {
            None => return Ok(Step::Scripts(staged)),
            Some(verdict) => verdict.err(),
        };
        let holds = failed.as_ref().map_or(staged.len(), |(number, _)| *number);
        for (number, staged) in &staged[..holds] {
            judging.outcomes[*number] = Outcome::Accepted(staged.accepted());
        }
        Ok(match failed {
            None => judging.done(None),
            Some((number, refusal)) => {
                judging.outcomes[number] = Outcome::Refused(refusal);
                judging.done(Some(PackageError::Transaction))
            }
        })
    }

    /// Takes in what is good enough alone, then what is good enough together: a child after parents of it.
    pub fn accept(&self, judging: &mut Judging) -> Result<Step, LedgerError> {
        if let Err(error) =
            check_well_formed(&judging.package).and_then(|()| check_child_with_parents(&judging.package))
        {
            return Ok(judging.done(Some(error)));
        }
        for number in 0..judging.package.len() {
            // What was refused before scripts were run may be in by now, or good enough.
            if matches!(judging.outcomes[number], Outcome::Unjudged | Outcome::Refused(_))
                && let Some(staged) = self.accept_alone(judging, number)?
            {
                return Ok(Step::Scripts(vec![(number, staged)]));
            }
        }
        let (mut together, mut failed) = (Vec::new(), false);
        for (number, outcome) in judging.outcomes.iter().enumerate() {
            let Outcome::Refused(refusal) = outcome else { continue };
            match refusal.rejection.blame() {
                Blame::Reconsiderable | Blame::Missing if judging.package.len() > 1 => together.push(number),
                _ => failed = true,
            }
        }
        let mut error = failed.then_some(PackageError::Transaction);
        if error.is_none() && !together.is_empty() {
            match self.accept_together(judging, &together)? {
                Ok(staged) if staged.is_empty() => {}
                Ok(staged) => return Ok(Step::Scripts(staged)),
                Err(found) => error = Some(found),
            }
        }
        let mut pool = self.pool.write();
        pool.limit(self.now);
        for (tx, outcome) in judging.package.iter().zip(&mut judging.outcomes) {
            let (was_in, txid) = (!matches!(outcome, Outcome::Refused(_) | Outcome::Unjudged), tx.compute_txid());
            // A block may have taken it while scripts of others were run.
            if was_in && !pool.by_txid.contains_key(&txid) && !is_mined(tx, txid, self.ledger)? {
                error = Some(PackageError::Transaction);
                *outcome = Outcome::Refused(Rejection::MempoolFull.into());
            }
        }
        Ok(judging.done(error))
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

    /// Takes one in if it is good enough alone; gives it if its scripts have to be run for that.
    fn accept_alone(&self, judging: &mut Judging, number: usize) -> Result<Option<Staged>, LedgerError> {
        let tx = &judging.package[number];
        if let Some(known) = self.known(tx) {
            judging.outcomes[number] = known;
            return Ok(None);
        }
        let staged = {
            let pool = self.pool.read();
            let candidate = candidate(tx.clone(), self.now, Limits::Held, &pool, &[], self.ledger)?;
            candidate.and_then(|candidate| candidate.stage_alone(Limits::Held, self.max_rate, &pool, self.ledger))
        };
        judging.outcomes[number] = match (staged, &judging.scripts[number]) {
            (Err(refusal), _) => Outcome::Refused(refusal),
            (Ok(staged), None) => return Ok(Some(staged)),
            (Ok(_), Some(Err(refusal))) => Outcome::Refused(refusal.clone()),
            (Ok(staged), Some(Ok(()))) => Outcome::Accepted(self.pool.write().put(staged)),
        };
        Ok(None)
    }

    /// Takes in those of a package that were not good enough alone; gives them if their scripts have to be run for that,
    /// else none.
    fn accept_together(
        &self,
        judging: &mut Judging,
        together: &[usize],
    ) -> Result<Result<Vec<(usize, Staged)>, PackageError>, LedgerError> {
        if together.len() == 1 {
            return Ok(Err(PackageError::Transaction));
        }
        let staged = match self.stage_together(judging, together, Limits::Packaged)? {
            Ok(staged) => staged,
            Err(error) => return Ok(Err(error)),
        };
        match judging.verdict(&staged) {
            None => return Ok(Ok(staged)),
            Some(Ok(())) => {}
            Some(Err((number, refusal))) => {
                judging.outcomes[number] = Outcome::Refused(refusal);
                return Ok(Err(PackageError::Transaction));
            }
        }
        let all: Vec<Accepted> = staged.iter().map(|(_, staged)| staged.accepted()).collect();
        let total = all.iter().fold(FeeRate::default(), |sum, accepted| sum.plus(accepted.rate));
        let includes: Vec<Wtxid> = all.iter().map(|accepted| accepted.wtxid).collect();
        let mut pool = self.pool.write();
        for (number, staged) in staged {
            let accepted = pool.put(staged);
            judging.outcomes[number] =
                Outcome::Accepted(Accepted { rate: total, includes: includes.clone(), ..accepted });
        }
        Ok(Ok(Vec::new()))
    }

    /// All stages but the scripts for some of a package. What is refused gets its outcome.
    fn stage_together(
        &self,
        judging: &mut Judging,
        together: &[usize],
        limits: Limits,
    ) -> Result<Result<Vec<(usize, Staged)>, PackageError>, LedgerError> {
        let Judging { package, outcomes, .. } = judging;
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
        Ok(Ok(together.iter().copied().zip(staged).collect()))
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
