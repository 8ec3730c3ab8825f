//! How a transaction comes into the pool: stages in the order of Core's `MemPoolAccept`, each a function. [`stage`] does
//! all that needs pool and coins; the scripts of what it gives may run on any thread; [`Mempool::insert`] then takes it in,
//! if neither pool nor tip has changed meanwhile. No rule of consensus knows of any of this.

use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid, Wtxid};

use super::entry::{Entry, memory_of};
use super::fee::{FeeRate, fee_for};
use super::policy::{self, Policy};
use super::{Key, Mempool};
use crate::coins::Coin;
use crate::ledger::{Ledger, LedgerError};
use crate::rejection::Rejection;
use crate::rules::branch::Branch;
use crate::rules::deployment::script_flags;
use crate::rules::header::median_time_past;
use crate::rules::inputs::{SEQUENCE_LOCKTIME_DISABLE_FLAG, check_inputs, is_final, sequence_locks};
use crate::rules::sigops::transaction_sigop_cost;
use crate::rules::transaction::check_transaction;
use crate::script::{Flags, Sighashes, VerdictCache, verify_input};

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
    /// Neither fee nor size: it was in a block that was taken back. Core: `bypass_limits`.
    Bypassed,
}

/// A transaction that passed every stage but its scripts.
#[derive(Clone, Debug)]
pub struct Staged {
    entry: Entry,
    coins: Vec<Coin>,
    limits: Limits,
    /// The flags of the next block.
    flags: Flags,
    /// The pool when it was judged.
    generation: u64,
}

/// What is known of a transaction that the pool took, or would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its id without witness.
    pub txid: Txid,
    /// Its id with witness.
    pub wtxid: Wtxid,
    /// What it pays, in satoshi.
    pub fee: u64,
    /// What it pays with what the operator adds, over its virtual bytes.
    pub rate: FeeRate,
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
    let tree = ledger.tree();
    let tree = tree.read();
    let tip = tree.get(&ledger.tip()).expect("the ledger stands on a block of the tree");
    let stage =
        Stage { txid: tx.compute_txid(), tx: &tx, limits, pool, policy: &pool.policy, branch: tree.branch(tip) };
    if let Err(refusal) = stage.without_coins() {
        return Ok(Err(refusal));
    }
    let coins = match stage.gather(ledger)? {
        Ok(coins) => coins,
        Err(rejection) => return Ok(Err(rejection.into())),
    };
    Ok(stage.with_coins(time, coins, ledger))
}

/// What the stages look at.
struct Stage<'a, B> {
    tx: &'a Arc<Transaction>,
    txid: Txid,
    limits: Limits,
    pool: &'a Mempool,
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
        Ok(self.check_no_conflict()?)
    }

    fn with_coins(&self, time: u64, coins: Vec<Coin>, ledger: &Ledger) -> Result<Staged, Refusal> {
        let params = ledger.params();
        if !sequence_locks(self.tx, &coins, &self.branch).are_past(&self.branch) {
            return Err(Rejection::NonBip68Final.into());
        }
        let height = self.branch.height() + 1;
        let fee = check_inputs(self.tx, &coins, height, params).map_err(|rejection| {
            let detail = self.inputs_detail(rejection, &coins, params.coinbase_maturity);
            Refusal { rejection, detail }
        })?;
        self.check_spends_standard(&coins)?;
        let entry = self.entry(time, fee.to_sat(), &coins);
        self.check_dust_pays_nothing(&entry)?;
        check_sigops(&entry)?;
        self.check_fee(&entry, time)?;
        let (parents, children) = self.pool.relatives(self.txid, self.tx);
        let mut parents: Vec<Key> = parents.into_iter().collect();
        // The one with the smallest id is named where one is.
        parents.sort_by_key(|key| self.pool.entry(*key).txid);
        self.check_truc(&entry, &parents)?;
        self.check_cluster(&entry, parents.iter().chain(&children))?;
        self.check_dust_is_spent(&parents)?;
        let next = script_flags(height, bitcoin::hashes::Hash::all_zeros(), params);
        Ok(Staged { entry, coins, limits: self.limits, flags: next, generation: self.pool.generation })
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

    /// There is no replacement yet: who came first stays.
    fn check_no_conflict(&self) -> Result<(), Rejection> {
        let conflict = self.tx.input.iter().any(|input| self.pool.spender(&input.previous_output).is_some());
        if conflict { Err(Rejection::TxnMempoolConflict) } else { Ok(()) }
    }

    /// The coins that it spends, of the pool and of the chain. Those of the pool count as made by the next block.
    fn gather(&self, ledger: &Ledger) -> Result<Result<Vec<Coin>, Rejection>, LedgerError> {
        let outpoints: Vec<OutPoint> = self.tx.input.iter().map(|input| input.previous_output).collect();
        let in_pool = |outpoint: &&OutPoint| self.pool.by_txid.contains_key(&outpoint.txid);
        let on_chain: Vec<OutPoint> = outpoints.iter().filter(|outpoint| !in_pool(outpoint)).copied().collect();
        let mut found = ledger.coins(&on_chain)?.into_iter();
        let height = self.branch.height() + 1;
        let coins = outpoints.iter().map(|outpoint| match self.pool.get(&outpoint.txid) {
            Some(entry) => Some(Coin::new(entry.tx.output.get(outpoint.vout as usize)?, height, false)),
            None => found.next().expect("one for each asked"),
        });
        let coins: Vec<Option<Coin>> = coins.collect();
        if let Some(coins) = coins.into_iter().collect() {
            return Ok(Ok(coins));
        }
        let looked_at = self.tx.output.len().min(MAX_OUTPUTS_LOOKED_AT) as u32;
        let made: Vec<OutPoint> = (0..looked_at).map(|vout| OutPoint::new(self.txid, vout)).collect();
        let mined = ledger.coins(&made)?.iter().any(Option::is_some);
        Ok(Err(if mined { Rejection::TxnAlreadyKnown } else { Rejection::MissingInputs }))
    }

    /// What Core says beside the reason.
    fn inputs_detail(&self, rejection: Rejection, coins: &[Coin], maturity: u32) -> String {
        match rejection {
            Rejection::BadTxnsInBelowout => {
                let value_in = coins.iter().map(|coin| coin.value().to_sat()).sum();
                let value_out = self.tx.output.iter().map(|output| output.value.to_sat()).sum();
                format!("value in ({}) < value out ({})", money(value_in), money(value_out))
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

    /// It pays what a pool that was full asks for, and for its relay. Core: `CheckFeeRate`.
    fn check_fee(&self, entry: &Entry, now: u64) -> Result<(), Refusal> {
        if self.limits != Limits::Held {
            return Ok(());
        }
        for (rejection, rate) in [
            (Rejection::MempoolMinFeeNotMet, self.pool.min_fee(now)),
            (Rejection::MinRelayFeeNotMet, self.policy.min_relay_fee),
        ] {
            let (fee, least) = (entry.modified_fee(), fee_for(rate, entry.vsize()));
            // A pool that was not full asks for nothing, not even of what the operator holds back.
            let asked = least > 0 || rejection == Rejection::MinRelayFeeNotMet;
            if asked && i128::from(fee) < i128::from(least) {
                return Err(Refusal { rejection, detail: format!("{fee} < {least}") });
            }
        }
        Ok(())
    }

    /// Transactions of version 3 keep to families of two, and to themselves ([BIP-0431]). Core: `SingleTRUCChecks`.
    ///
    /// [BIP-0431]: https://github.com/bitcoin/bips/blob/master/bip-0431.mediawiki
    fn check_truc(&self, entry: &Entry, parents: &[Key]) -> Result<(), Refusal> {
        if self.limits == Limits::Bypassed {
            return Ok(());
        }
        let violation = |detail| Err(Refusal { rejection: Rejection::TrucViolation, detail });
        let show = |entry: &Entry| format!("{} (wtxid={})", entry.txid, entry.wtxid);
        let is_truc = |entry: &Entry| entry.tx.version.0 as u32 == policy::TRUC_VERSION;
        let truc = is_truc(entry);
        if let Some(parent) = parents.iter().map(|key| self.pool.entry(*key)).find(|parent| is_truc(parent) != truc) {
            let (own, other) = if truc { ("", "non-") } else { ("non-", "") };
            let (child, parent) = (show(entry), show(parent));
            return violation(format!("{own}version=3 tx {child} cannot spend from {other}version=3 tx {parent}"));
        }
        if !truc {
            return Ok(());
        }
        let vsize = entry.vsize();
        let too_big =
            |what, limit| format!("version=3 {what}tx {} is too big: {vsize} > {limit} virtual bytes", show(entry));
        if vsize > policy::TRUC_MAX_VSIZE {
            return violation(too_big("", policy::TRUC_MAX_VSIZE));
        }
        let [parent] = parents else {
            return match parents {
                [] => Ok(()),
                _ => violation(format!("tx {} would have too many ancestors", show(entry))),
            };
        };
        let parent = self.pool.entry(*parent);
        if self.pool.ancestors(parent).len() + 2 > policy::TRUC_FAMILY_LIMIT {
            return violation(format!("tx {} would have too many ancestors", show(entry)));
        }
        if vsize > policy::TRUC_CHILD_MAX_VSIZE {
            return violation(too_big("child ", policy::TRUC_CHILD_MAX_VSIZE));
        }
        if self.pool.descendants(parent).len() + 2 > policy::TRUC_FAMILY_LIMIT {
            return violation(format!("tx {} would exceed descendant count limit", show(parent)));
        }
        Ok(())
    }

    /// Not too many hang together, nor too large ones. Core: `CheckMemPoolPolicyLimits`.
    fn check_cluster<'k>(&self, entry: &Entry, relatives: impl Iterator<Item = &'k Key>) -> Result<(), Rejection> {
        let (count, vsize) = self.pool.cluster_size(relatives);
        if count + 1 > self.policy.cluster_count || vsize + entry.vsize() > self.policy.cluster_vbytes {
            return Err(Rejection::TooLargeCluster);
        }
        Ok(())
    }

    /// A child spends all dust of its parents: it must not stay behind. Core: `CheckEphemeralSpends`.
    fn check_dust_is_spent(&self, parents: &[Key]) -> Result<(), Refusal> {
        if self.limits == Limits::Bypassed || !self.policy.require_standard {
            return Ok(());
        }
        let spends = |outpoint: OutPoint| self.tx.input.iter().any(|input| input.previous_output == outpoint);
        for parent in parents.iter().map(|key| self.pool.entry(*key)) {
            let mut dust = policy::dust(&parent.tx, self.policy.dust_relay_fee);
            if dust.any(|vout| !spends(OutPoint::new(parent.txid, vout))) {
                let (txid, wtxid) = (self.txid, self.tx.compute_wtxid());
                let detail = format!("tx {txid} (wtxid={wtxid}) did not spend parent's ephemeral dust");
                return Err(Refusal { rejection: Rejection::MissingEphemeralSpends, detail });
            }
        }
        Ok(())
    }
}

/// BTC with two to eight decimals. Core: `FormatMoney`.
fn money(sat: u64) -> String {
    let (coins, rest) = (sat / 100_000_000, format!("{:08}", sat % 100_000_000));
    let end = rest.trim_end_matches('0').len().max(2);
    format!("{coins}.{}", &rest[..end])
}

fn check_sigops(entry: &Entry) -> Result<(), Refusal> {
    if entry.sigop_cost > policy::MAX_STANDARD_TX_SIGOPS_COST {
        let detail = entry.sigop_cost.to_string();
        return Err(Refusal { rejection: Rejection::BadTxnsTooManySigops, detail });
    }
    Ok(())
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

    /// What is known of it.
    pub fn accepted(&self) -> Accepted {
        let Entry { txid, wtxid, fee, .. } = self.entry;
        let rate = FeeRate { fee: self.entry.modified_fee(), size: self.entry.vsize() };
        Accepted { txid, wtxid, fee, rate }
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
        let accepted = staged.accepted();
        self.add(staged.entry);
        if staged.limits == Limits::Held {
            self.limit(now);
            if !self.by_txid.contains_key(&accepted.txid) {
                return Err(Rejection::MempoolFull.into());
            }
        }
        Ok(accepted)
    }
}
