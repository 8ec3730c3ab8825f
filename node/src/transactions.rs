//! Transactions on their way through the ledger thread: judged there, their scripts run by the pool of threads, then
//! taken into the mempool there. Knows neither peers nor RPC.

use std::sync::Arc;

use bitcoin::{Transaction, Txid, Wtxid};
use groat_chain::block::Block;
use groat_chain::ledger::{Ledger, LedgerError};
use groat_chain::mempool::{
    Accepted, Follower, Limits, Mempool, Outcome, Packages, Policy, Refusal, Staged, Step, stage,
};
use groat_chain::pool::Pool;
use groat_chain::rejection::{Blame, Rejection};
use groat_chain::script::VerdictCache;
use groat_net::driver;
use groat_net::protocol::{Done, TxVerdict};
use parking_lot::{Mutex, RwLock};
use tracing::debug;

use crate::clock;
use crate::events::{self, Notes, Noting};
use crate::requests::{Checked, Giver, Listener, Offer, Package, PackageGiver, Purpose, Queue, Request};

/// Memory for verdicts on signatures and scripts. Core: `DEFAULT_VALIDATION_CACHE_BYTES`.
const VERDICT_BYTES: usize = 32 << 20;

/// The mempool as the ledger thread holds it.
pub struct Transactions {
    pool: Arc<RwLock<Mempool>>,
    verdicts: Arc<VerdictCache>,
    threads: Arc<Pool>,
    /// What blocks that were taken back gave to the pool.
    returned: Arc<Mutex<Vec<(Txid, Wtxid)>>>,
    /// Where it is noted what happens, if somebody wants to know.
    notes: Option<Notes>,
}

impl Transactions {
    /// An empty pool that follows the ledger's chain; `events`: who wants to know what happens.
    pub fn new(ledger: &mut Ledger, policy: Policy, events: Option<Arc<events::Queue>>) -> Transactions {
        let pool = Arc::new(RwLock::new(Mempool::new(policy, ledger.tip())));
        let verdicts = Arc::new(VerdictCache::new(VERDICT_BYTES, driver::seed()));
        let returned = Arc::new(Mutex::new(Vec::new()));
        let noted = returned.clone();
        ledger.set_verdicts(verdicts.clone());
        let follower = Follower {
            pool: pool.clone(),
            verdicts: verdicts.clone(),
            now: Box::new(|| clock::now().into()),
            returned: Box::new(move |txid, wtxid| noted.lock().push((txid, wtxid))),
        };
        let notes = events.map(|queue| Notes::new(pool.clone(), queue));
        ledger.set_follower(match &notes {
            Some(notes) => Box::new(Noting { follower, notes: notes.clone() }),
            None => Box::new(follower),
        });
        Transactions { pool, verdicts, threads: ledger.pool(), returned, notes }
    }

    /// Publishes what happened to chain and pool, all of which readers can see by now; `tip`: the chain's end, to be shown
    /// to everybody.
    pub fn publish(&self, tip: Option<&Arc<Block>>) {
        if let Some(notes) = &self.notes {
            notes.publish();
            tip.into_iter().for_each(|tip| notes.publish_tip(tip.clone()));
        }
    }

    /// The pool, for readers on any thread.
    pub fn pool(&self) -> &Arc<RwLock<Mempool>> {
        &self.pool
    }

    /// Tells of what blocks that were taken back gave to the pool.
    pub fn tell_of_returned(&self, listener: &mut impl Listener) {
        for (txid, wtxid) in self.returned.lock().drain(..) {
            listener.tx_accepted(txid, wtxid);
        }
    }

    /// Judges an offer, which the ledger must be at rest for, and has its scripts run: the outcome comes back through
    /// `queue`.
    pub fn offer(
        &self,
        offer: Offer,
        ledger: &Ledger,
        queue: &Arc<Queue>,
        listener: &mut impl Listener,
    ) -> Result<(), LedgerError> {
        let staged = stage(offer.tx.clone(), offer.time, Limits::Held, &self.pool.read(), ledger)?;
        match staged {
            Err(refusal) => {
                log_refusal(&offer.tx, &refusal);
                tell(offer.from, Err(refusal), listener);
            }
            Ok(staged) => {
                let (verdicts, queue) = (self.verdicts.clone(), queue.clone());
                self.threads.submit_later(move || {
                    let verdict = staged.check_scripts(&verdicts);
                    queue.push(Request::Checked(Box::new(Checked { offer, staged, verdict })));
                });
            }
        }
        Ok(())
    }

    /// Takes in a transaction whose scripts hold, unless pool or chain have changed so that it does not fit any more.
    pub fn checked(&self, checked: Checked, ledger: &Ledger, listener: &mut impl Listener) -> Result<(), LedgerError> {
        let Checked { offer: Offer { tx, time, from }, staged, verdict } = checked;
        let outcome = match (verdict, &from) {
            (Err(refusal), _) => Err(refusal),
            (Ok(()), Giver::Interface { purpose: Purpose::Test, .. }) => Ok(staged.accepted()),
            (Ok(()), _) => self.insert(tx.clone(), time, staged, ledger)?,
        };
        outcome.as_ref().err().into_iter().for_each(|refusal| log_refusal(&tx, refusal));
        self.publish(None);
        tell(from, outcome, listener);
        Ok(())
    }

    /// Judges transactions together, as far as that goes without scripts that were not run yet: those are run by the pool
    /// of threads, then the package comes back through `queue`.
    pub fn package(
        &self,
        mut package: Package,
        ledger: &Ledger,
        queue: &Arc<Queue>,
        listener: &mut impl Listener,
    ) -> Result<(), LedgerError> {
        let (purpose, max_rate) = match &package.from {
            PackageGiver::Peer(_) => (Purpose::Take, None),
            PackageGiver::Interface { purpose, max_rate, .. } => (*purpose, *max_rate),
        };
        let packages = Packages { pool: &self.pool, ledger, now: clock::now().into(), max_rate };
        let step = match purpose {
            Purpose::Test => packages.test(&mut package.judging)?,
            Purpose::Take | Purpose::Quietly => packages.accept(&mut package.judging)?,
        };
        self.publish(None);
        let outcomes = match &step {
            Step::Scripts(_) => package.judging.outcomes(),
            Step::Done(judged) => &judged.outcomes,
        };
        for outcome in outcomes.iter().filter(|_| purpose != Purpose::Test) {
            if let Outcome::Accepted(accepted) = outcome
                && package.told.insert(accepted.txid)
            {
                tell_of(accepted, purpose == Purpose::Take, listener);
            }
        }
        if let Step::Done(judged) = &step {
            for (tx, outcome) in package.judging.package().iter().zip(&judged.outcomes) {
                if let Outcome::Refused(refusal) = outcome {
                    log_refusal(tx, refusal);
                }
            }
        }
        match (step, package.from) {
            (Step::Scripts(staged), from) => {
                let (verdicts, queue) = (self.verdicts.clone(), queue.clone());
                let mut package = Package { from, ..package };
                self.threads.submit_later(move || {
                    package.judging.run_scripts(&staged, &verdicts);
                    queue.push(Request::Package(package));
                });
            }
            (Step::Done(judged), PackageGiver::Peer(token)) => {
                listener.done(token, Done::Package(judged.outcomes.iter().map(verdict_of_outcome).collect()));
            }
            // Who asked may have given up.
            (Step::Done(judged), PackageGiver::Interface { answer, .. }) => drop(answer.send(judged)),
        }
        Ok(())
    }

    fn insert(
        &self,
        tx: Arc<Transaction>,
        time: u64,
        staged: Staged,
        ledger: &Ledger,
    ) -> Result<Result<Accepted, Refusal>, LedgerError> {
        let current = staged.is_current(&self.pool.read());
        let staged = if current { Ok(staged) } else { stage(tx, time, Limits::Held, &self.pool.read(), ledger)? };
        Ok(staged.and_then(|staged| self.pool.write().insert(staged, clock::now().into())))
    }
}

fn log_refusal(tx: &Transaction, refusal: &Refusal) {
    debug!(target: "mempoolrej", "transaction {} refused: {refusal}", tx.compute_txid());
}

fn tell(from: Giver, outcome: Result<Accepted, Refusal>, listener: &mut impl Listener) {
    let taken = !matches!(from, Giver::Interface { purpose: Purpose::Test, .. });
    let news = matches!(from, Giver::Peer(_) | Giver::Interface { purpose: Purpose::Take, .. });
    if let (true, Ok(accepted)) = (taken, &outcome) {
        tell_of(accepted, news, listener);
    }
    match from {
        Giver::Peer(token) => listener.done(token, Done::Transaction(verdict_of(&outcome))),
        // Who asked may have given up.
        Giver::Interface { answer, .. } => drop(answer.send(outcome)),
    }
}

/// The pool took a transaction; `news`: peers are to hear of it.
fn tell_of(accepted: &Accepted, news: bool, listener: &mut impl Listener) {
    if !accepted.replaced.is_empty() {
        listener.replaced(accepted.replaced.clone());
    }
    if news {
        listener.tx_accepted(accepted.txid, accepted.wtxid);
    }
}

/// The outcome in the protocol's words.
fn verdict_of(outcome: &Result<Accepted, Refusal>) -> TxVerdict {
    match outcome {
        Ok(_) => TxVerdict::Accepted,
        Err(refusal) => verdict_of_refusal(refusal),
    }
}

fn verdict_of_refusal(refusal: &Refusal) -> TxVerdict {
    match refusal.rejection {
        Rejection::TxnAlreadyInMempool | Rejection::TxnAlreadyKnown => TxVerdict::Known,
        other if other.blame() == Blame::Missing => TxVerdict::Missing,
        other => TxVerdict::Refused(other),
    }
}

fn verdict_of_outcome(outcome: &Outcome) -> TxVerdict {
    match outcome {
        Outcome::Accepted(_) => TxVerdict::Accepted,
        Outcome::Known { .. } | Outcome::OtherWitness(_) => TxVerdict::Known,
        Outcome::Refused(refusal) => verdict_of_refusal(refusal),
        Outcome::Unjudged => TxVerdict::Missing,
    }
}
