//! How a transaction comes into the pool: stages in the order of Core's `MemPoolAccept`, each a function. [`stage`] does
//! all that needs pool and coins (of one of a package [`candidate`] does what it need not know the others for). What it
//! gives goes on in `staged`. No rule of consensus knows of any of this.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid};

use super::entry::{Entry, memory_of};
use super::fee::{FeeRate, fee_for};
use super::policy::{self, Policy};
use super::staged::Staged;
use super::{Key, Mempool};
use crate::coins::Coin;
use crate::ledger::{Ledger, LedgerError};
use crate::rejection::Rejection;
use crate::rules::branch::{Branch, median_time_past};
use crate::rules::deployment::script_flags;
use crate::rules::inputs::{check_inputs, is_final, sequence_locks};
use crate::rules::limits::WITNESS_SCALE_FACTOR;
use crate::rules::sigops::transaction_sigop_cost;
use crate::rules::transaction::check_transaction;
use crate::script::{Flags, SEQUENCE_LOCKTIME_DISABLE_FLAG};

/// Why a transaction was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub rejection: Rejection,
    /// What else is to be said of it, for people; may be empty. Core: `GetDebugMessage`.
    pub detail: String,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Refusal {
        Refusal { rejection, detail: String::new() }
    }
}

/// Core: `ToString` of a validation state.
impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.detail.as_str() {
            "" => self.rejection.fmt(f),
            detail => write!(f, "{}, {detail}", self.rejection),
        }
    }
}

/// Which of the pool's limits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// All of them.
    Held,
    /// All but its fee, which counts together with that of others. Core: `m_package_feerates`.
    Packaged,
    /// All of them, and it replaces nothing: one of a list that is only tested. Core: `PackageTestAccept`.
    Listed,
    /// Neither fee nor size: it was in a block that was taken back. Core: `bypass_limits`.
    Bypassed,
}

/// A transaction that passed every stage for which it need not be known what else comes and goes with it. Core:
/// `Workspace` after `PreChecks`.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) entry: Entry,
    coins: Vec<Coin>,
    /// Its parents in the pool, by their ids.
    pub(super) parents: Vec<Key>,
    /// The transactions of the pool that it wants the places of, without what spends of them.
    pub(super) conflicts: BTreeSet<Key>,
    /// One of them does not spend what it spends, but is another child of its parent.
    sibling: bool,
}

/// Outputs by which a transaction without inputs is found to be mined. Who sends one pays nothing for thousands of outputs,
/// and each is a look at the disk; Core looks at its cache alone.
const MAX_OUTPUTS_LOOKED_AT: usize = 16;

/// Judges a transaction that came at `time` (seconds since 1970), all but its scripts. The ledger must stand at the
/// pool's tip.
pub fn stage(
    tx: Arc<Transaction>,
    time: u64,
    limits: Limits,
    pool: &Mempool,
    ledger: &Ledger,
) -> Result<Result<Staged, Refusal>, LedgerError> {
    let candidate = candidate(tx, time, limits, pool, &[], ledger)?;
    Ok(candidate.and_then(|candidate| candidate.stage_alone(limits, None, pool, ledger)))
}

/// The stages for which it need not be known what else comes and goes; `package`: what comes before it.
pub(super) fn candidate(
    tx: Arc<Transaction>,
    time: u64,
    limits: Limits,
    pool: &Mempool,
    package: &[Candidate],
    ledger: &Ledger,
) -> Result<Result<Candidate, Refusal>, LedgerError> {
    let tree = ledger.tree();
    let tree = tree.read();
    let tip = tree.get(&ledger.tip()).expect("the ledger stands on a block of the tree");
    let (txid, policy, branch) = (tx.compute_txid(), &pool.policy, tree.branch(tip));
    let stage = Stage { txid, tx: &tx, limits, pool, package, policy, branch };
    if let Err(refusal) = stage.without_coins() {
        return Ok(Err(refusal));
    }
    let coins = match stage.gather(ledger)? {
        Ok(coins) => coins,
        Err(rejection) => return Ok(Err(rejection.into())),
    };
    Ok(stage.with_coins(time, coins, ledger))
}

/// Whether a coin of it shows that the chain has it.
pub(super) fn is_mined(tx: &Transaction, txid: Txid, ledger: &Ledger) -> Result<bool, LedgerError> {
    let looked_at = tx.output.len().min(MAX_OUTPUTS_LOOKED_AT) as u32;
    let made: Vec<OutPoint> = (0..looked_at).map(|vout| OutPoint::new(txid, vout)).collect();
    Ok(ledger.coins(&made)?.iter().any(Option::is_some))
}

/// What the stages look at.
struct Stage<'a, B> {
    tx: &'a Arc<Transaction>,
    txid: Txid,
    limits: Limits,
    pool: &'a Mempool,
    /// What comes before it.
    package: &'a [Candidate],
    policy: &'a Policy,
    /// The chain up to the tip.
    branch: B,
}

impl<B: Branch> Stage<'_, B> {
    fn without_coins(&self) -> Result<(), Refusal> {
        check_transaction(self.tx)?;
        self.check_form()?;
        self.check_final()?;
        self.check_new()?;
        let may_replace = self.limits != Limits::Listed;
        if may_replace || self.conflicts().is_empty() {
            Ok(())
        } else {
            Err(Rejection::Bip125ReplacementDisallowed.into())
        }
    }

    fn with_coins(&self, time: u64, coins: Vec<Coin>, ledger: &Ledger) -> Result<Candidate, Refusal> {
        let params = ledger.params();
        if !sequence_locks(self.tx, &coins, &self.branch).are_past(&self.branch) {
            return Err(Rejection::NonBip68Final.into());
        }
        let fee = check_inputs(self.tx, &coins, self.branch.height() + 1, params).map_err(|rejection| {
            let detail = self.inputs_detail(rejection, &coins, params.coinbase_maturity);
            Refusal { rejection, detail }
        })?;
        self.check_spends_standard(&coins)?;
        let entry = self.entry(time, fee.to_sat(), &coins);
        self.check_dust_pays_nothing(&entry)?;
        check_sigops(&entry)?;
        self.check_fee(&entry, time)?;
        let (parents, _) = self.pool.relatives(self.txid, self.tx);
        let mut parents: Vec<Key> = parents.into_iter().collect();
        // The one with the smallest id is named where one is.
        parents.sort_by_key(|key| self.pool.entry(*key).txid);
        let mut conflicts = self.conflicts();
        let sibling = match self.limits {
            Limits::Bypassed => None,
            limits => self.pool.check_truc(&entry, &parents, &conflicts, limits == Limits::Held)?,
        };
        conflicts.extend(sibling);
        Ok(Candidate { entry, coins, parents, conflicts, sibling: sibling.is_some() })
    }

    /// What shows without its place: it is no coinbase, of a standard form, and large enough.
    fn check_form(&self) -> Result<(), Rejection> {
        if self.tx.is_coinbase() {
            return Err(Rejection::Coinbase);
        }
        if self.policy.require_standard {
            policy::check_standard(self.tx, self.policy)?;
        }
        if self.tx.base_size() < policy::MIN_STANDARD_TX_NONWITNESS_SIZE {
            return Err(Rejection::TxSizeSmall);
        }
        Ok(())
    }

    /// The next block may hold it.
    fn check_final(&self) -> Result<(), Rejection> {
        let (height, time) = (self.branch.height() + 1, median_time_past(&self.branch));
        if is_final(self.tx, height, time) { Ok(()) } else { Err(Rejection::NonFinal) }
    }

    fn check_new(&self) -> Result<(), Rejection> {
        match self.pool.get(&self.txid) {
            None => Ok(()),
            Some(entry) if entry.wtxid == self.tx.compute_wtxid() => Err(Rejection::TxnAlreadyInMempool),
            Some(_) => Err(Rejection::TxnSameNonwitnessDataInMempool),
        }
    }

    /// The transactions of the pool that spend the same outputs.
    fn conflicts(&self) -> BTreeSet<Key> {
        self.tx.input.iter().filter_map(|input| self.pool.spenders.get(&input.previous_output)).copied().collect()
    }

    /// The coins that it spends, of the package, the pool and the chain. All but the last count as made by the next block.
    fn gather(&self, ledger: &Ledger) -> Result<Result<Vec<Coin>, Rejection>, LedgerError> {
        let outpoints: Vec<OutPoint> = self.tx.input.iter().map(|input| input.previous_output).collect();
        let waiting = |txid: &Txid| {
            let in_package = self.package.iter().map(|before| &before.entry).find(|entry| entry.txid == *txid);
            in_package.or_else(|| self.pool.get(txid))
        };
        let on_chain = outpoints.iter().filter(|outpoint| waiting(&outpoint.txid).is_none());
        let on_chain: Vec<OutPoint> = on_chain.copied().collect();
        let mut found = ledger.coins(&on_chain)?.into_iter();
        let height = self.branch.height() + 1;
        let coins = outpoints.iter().map(|outpoint| match waiting(&outpoint.txid) {
            Some(entry) => Some(Coin::new(entry.tx.output.get(outpoint.vout as usize)?, height, false)),
            None => found.next().expect("one for each asked"),
        });
        let coins: Vec<Option<Coin>> = coins.collect();
        if let Some(coins) = coins.into_iter().collect() {
            return Ok(Ok(coins));
        }
        Ok(Err(if is_mined(self.tx, self.txid, ledger)? {
            Rejection::TxnAlreadyKnown
        } else {
            Rejection::MissingInputs
        }))
    }

    /// What Core says beside the reason.
    fn inputs_detail(&self, rejection: Rejection, coins: &[Coin], maturity: u32) -> String {
        match rejection {
            Rejection::BadTxnsInBelowout => {
                let value_in: u64 = coins.iter().map(|coin| coin.value().to_sat()).sum();
                let value_out: u64 = self.tx.output.iter().map(|output| output.value.to_sat()).sum();
                // Both were found to be no more than all money.
                format!("value in ({}) < value out ({})", money(value_in as i64), money(value_out as i64))
            }
            Rejection::BadTxnsPrematureSpendOfCoinbase => {
                let next = self.branch.height() + 1;
                let young = |coin: &&Coin| coin.is_coinbase() && next - coin.height() < maturity;
                let depth = next - coins.iter().find(young).map_or(next, Coin::height);
                format!("tried to spend coinbase at depth {depth}")
            }
            _ => String::new(),
        }
    }

    fn check_spends_standard(&self, coins: &[Coin]) -> Result<(), Refusal> {
        if self.policy.require_standard {
            let rejection = Rejection::BadTxnsNonstandardInputs;
            policy::check_inputs_standard(self.tx, coins).map_err(|detail| Refusal { rejection, detail })?;
            policy::check_witness_standard(self.tx, coins)?;
        }
        Ok(())
    }

    fn entry(&self, time: u64, fee: u64, coins: &[Coin]) -> Entry {
        let tx = self.tx;
        let weight = tx.weight().to_wu();
        let sigop_cost = transaction_sigop_cost(tx, coins, Flags::STANDARD);
        let waits = |sequence: u32| tx.version.0 as u32 >= 2 && sequence & SEQUENCE_LOCKTIME_DISABLE_FLAG == 0;
        let depends_on_height = tx.lock_time.to_consensus_u32() != 0
            || coins.iter().any(Coin::is_coinbase)
            || tx.input.iter().any(|input| waits(input.sequence.to_consensus_u32()));
        Entry {
            tx: tx.clone(),
            txid: self.txid,
            wtxid: tx.compute_wtxid(),
            fee,
            delta: self.pool.delta(&self.txid),
            weight,
            adjusted_weight: policy::adjusted_weight(weight, sigop_cost, self.policy.bytes_per_sigop),
            sigop_cost,
            time,
            height: self.branch.height(),
            sequence: if self.limits == Limits::Bypassed { 0 } else { self.pool.sequence },
            depends_on_height,
            memory: memory_of(tx),
            parents: Default::default(),
            children: Default::default(),
            cluster: 0,
            chunk: 0,
        }
    }

    /// Who makes dust pays nothing, so that only a child that spends the dust pays for both. Core: `PreCheckEphemeralTx`.
    fn check_dust_pays_nothing(&self, entry: &Entry) -> Result<(), Refusal> {
        let pays = entry.fee != 0 || entry.modified_fee() != 0;
        if self.policy.require_standard && pays && policy::dust(self.tx, self.policy.dust_relay_fee).next().is_some() {
            return Err(Refusal { rejection: Rejection::Dust, detail: "tx with dust output must be 0-fee".into() });
        }
        Ok(())
    }

    /// Alone it pays enough.
    fn check_fee(&self, entry: &Entry, now: u64) -> Result<(), Refusal> {
        match self.limits {
            Limits::Held | Limits::Listed => {
                self.pool.check_rate(FeeRate { fee: entry.modified_fee(), size: entry.vsize() }, now)
            }
            Limits::Packaged | Limits::Bypassed => Ok(()),
        }
    }
}

impl Candidate {
    /// The stages of one that comes alone; `max_rate` is what who hands it in wants to pay at most.
    pub(super) fn stage_alone(
        self,
        limits: Limits,
        max_rate: Option<FeeRate>,
        pool: &Mempool,
        ledger: &Ledger,
    ) -> Result<Staged, Refusal> {
        let replaced = if self.conflicts.is_empty() {
            pool.check_cluster(&self.entry)?;
            BTreeSet::new()
        } else {
            pool.check_replacement(&self.entry, &self.conflicts, self.sibling)?
        };
        self.check_spends_no_conflict(pool)?;
        self.check_rate_below(max_rate)?;
        if limits != Limits::Bypassed {
            pool.check_dust_is_spent(&[&self.entry]).map_err(|(_, refusal)| refusal)?;
        }
        Ok(self.staged(replaced, limits, pool, ledger))
    }

    /// It passed all stages.
    pub(super) fn staged(self, replaced: BTreeSet<Key>, limits: Limits, pool: &Mempool, ledger: &Ledger) -> Staged {
        let next = script_flags(self.entry.height + 1, bitcoin::hashes::Hash::all_zeros(), ledger.params());
        let Candidate { entry, coins, .. } = self;
        Staged { entry, coins, replaced, limits, flags: next, generation: pool.generation }
    }

    /// It does not spend of what has to leave for it. Core: `EntriesAndTxidsDisjoint`.
    fn check_spends_no_conflict(&self, pool: &Mempool) -> Result<(), Refusal> {
        let ancestors = pool.walk(&self.parents, |entry| &entry.parents);
        let spent = ancestors.iter().filter(|key| self.conflicts.contains(key)).map(|key| pool.entry(*key).txid).min();
        let Some(spent) = spent else { return Ok(()) };
        let detail = format!("{} spends conflicting transaction {spent}", self.entry.txid);
        Err(Refusal { rejection: Rejection::BadTxnsSpendsConflictingTx, detail })
    }

    /// It pays no more than who hands it in wants to.
    pub(super) fn check_rate_below(&self, max_rate: Option<FeeRate>) -> Result<(), Rejection> {
        let rate = FeeRate { fee: self.entry.modified_fee(), size: self.entry.vsize() };
        if max_rate.is_some_and(|max| rate > max) { Err(Rejection::MaxFeerateExceeded) } else { Ok(()) }
    }
}

impl Mempool {
    /// It pays what a pool that was full asks for, and for its relay. Core: `CheckFeeRate`.
    pub(super) fn check_rate(&self, rate: FeeRate, now: u64) -> Result<(), Refusal> {
        for (rejection, least) in [
            (Rejection::MempoolMinFeeNotMet, self.min_fee(now)),
            (Rejection::MinRelayFeeNotMet, self.policy.min_relay_fee),
        ] {
            let (fee, least) = (rate.fee, fee_for(least, rate.size));
            // A pool that was not full asks for nothing, not even of what the operator holds back.
            let asked = least > 0 || rejection == Rejection::MinRelayFeeNotMet;
            if asked && i128::from(fee) < i128::from(least) {
                return Err(Refusal { rejection, detail: format!("{fee} < {least}") });
            }
        }
        Ok(())
    }

    /// Not too many hang together, nor too large ones, when it comes and nothing leaves. Core: `CheckMemPoolPolicyLimits`.
    fn check_cluster(&self, entry: &Entry) -> Result<(), Rejection> {
        let (parents, children) = self.relatives(entry.txid, &entry.tx);
        let clusters = self.clusters_of(parents.iter().chain(&children));
        let members = clusters.iter().flat_map(|id| &self.clusters[id].order);
        let (count, weight) = members.fold((1, entry.adjusted_weight), |(count, weight), key| {
            (count + 1, weight + self.entry(*key).adjusted_weight)
        });
        let limit = self.policy.cluster_vbytes * WITNESS_SCALE_FACTOR as u64;
        if count > self.policy.cluster_count || weight > limit { Err(Rejection::TooLargeCluster) } else { Ok(()) }
    }

    /// A child spends all dust of its parents, of the pool or among those that come before it: it must not stay behind.
    /// Names the child. Core: `CheckEphemeralSpends`.
    pub(super) fn check_dust_is_spent(&self, package: &[&Entry]) -> Result<(), (usize, Refusal)> {
        if !self.policy.require_standard {
            return Ok(());
        }
        let leaves_dust = |child: &Entry, parent: &Transaction, txid: Txid| {
            let spends = |outpoint| child.tx.input.iter().any(|input| input.previous_output == outpoint);
            policy::dust(parent, self.policy.dust_relay_fee).any(|vout| !spends(OutPoint::new(txid, vout)))
        };
        for (number, child) in package.iter().enumerate() {
            let parents: BTreeSet<Txid> = child.tx.input.iter().map(|input| input.previous_output.txid).collect();
            for txid in parents {
                let in_package = package.iter().copied().find(|entry| entry.txid == txid);
                let Some(parent) = in_package.or_else(|| self.get(&txid)) else { continue };
                if leaves_dust(child, &parent.tx, txid) {
                    let Entry { txid, wtxid, .. } = child;
                    let detail = format!("tx {txid} (wtxid={wtxid}) did not spend parent's ephemeral dust");
                    return Err((number, Refusal { rejection: Rejection::MissingEphemeralSpends, detail }));
                }
            }
        }
        Ok(())
    }
}

/// BTC with two to eight decimals. Core: `FormatMoney`.
pub(super) fn money(sat: i64) -> String {
    let (sign, sat) = (if sat < 0 { "-" } else { "" }, sat.unsigned_abs());
    let (coins, rest) = (sat / 100_000_000, format!("{:08}", sat % 100_000_000));
    let end = rest.trim_end_matches('0').len().max(2);
    format!("{sign}{coins}.{}", &rest[..end])
}

fn check_sigops(entry: &Entry) -> Result<(), Refusal> {
    if entry.sigop_cost > policy::MAX_STANDARD_TX_SIGOPS_COST {
        let detail = entry.sigop_cost.to_string();
        return Err(Refusal { rejection: Rejection::BadTxnsTooManySigops, detail });
    }
    Ok(())
}
