//! The rules of a transaction that need the coins it spends, or its place in a branch. Scripts are not run here.

use super::branch::{Branch, median_time_past, median_time_past_at};
use super::limits::MAX_MONEY;
use crate::coins::Coin;
use crate::params::Params;
use crate::rejection::Rejection;
use crate::script::{
    LOCKTIME_THRESHOLD, SEQUENCE_LOCKTIME_DISABLE_FLAG, SEQUENCE_LOCKTIME_MASK, SEQUENCE_LOCKTIME_TYPE_FLAG,
};
use bitcoin::{Amount, Sequence, Transaction};

/// A relative time counts units of two to this power of seconds (BIP68).
pub const SEQUENCE_LOCKTIME_GRANULARITY: u32 = 9;

/// Whether the lock time lets the transaction into a block at `height` whose lock time cutoff is `time`.
/// Core: `IsFinalTx`. The rule is `rules::block::check_final`.
pub fn is_final(tx: &Transaction, height: u32, time: u32) -> bool {
    let lock_time = tx.lock_time.to_consensus_u32();
    let passed = if lock_time < LOCKTIME_THRESHOLD { height } else { time };
    lock_time == 0 || lock_time < passed || tx.input.iter().all(|input| input.sequence == Sequence::MAX)
}

/// The last height and the last median time at which relative lock times still hold a transaction back; -1 where
/// nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceLocks {
    /// The block must be higher.
    pub height: i64,
    /// The median time past of the block's parent must be later.
    pub time: i64,
}

/// The relative lock times of a transaction that spends `coins` on `branch` ([BIP-0068]).
/// Core: `CalculateSequenceLocks`.
///
/// [BIP-0068]: https://github.com/bitcoin/bips/blob/master/bip-0068.mediawiki
pub fn sequence_locks(tx: &Transaction, coins: &[Coin], branch: &impl Branch) -> SequenceLocks {
    let mut locks = SequenceLocks { height: -1, time: -1 };
    // The version is a number without sign here.
    if (tx.version.0 as u32) < 2 {
        return locks;
    }
    for (input, coin) in tx.input.iter().zip(coins) {
        let sequence = input.sequence.to_consensus_u32();
        if sequence & SEQUENCE_LOCKTIME_DISABLE_FLAG != 0 {
            continue;
        }
        let wait = i64::from(sequence & SEQUENCE_LOCKTIME_MASK);
        // Less one: a lock names the last block that is too early, not the first that is late enough.
        if sequence & SEQUENCE_LOCKTIME_TYPE_FLAG != 0 {
            let since = median_time_past_at(branch, coin.height().saturating_sub(1));
            locks.time = locks.time.max(i64::from(since) + (wait << SEQUENCE_LOCKTIME_GRANULARITY) - 1);
        } else {
            locks.height = locks.height.max(i64::from(coin.height()) + wait - 1);
        }
    }
    locks
}

impl SequenceLocks {
    /// Whether they let the transaction into the block that follows `branch`. Core: `EvaluateSequenceLocks`.
    pub fn are_past(&self, branch: &impl Branch) -> bool {
        // The median is asked for only where a time is waited for.
        self.height <= i64::from(branch.height()) && (self.time < 0 || self.time < i64::from(median_time_past(branch)))
    }
}

/// The rules on what a transaction in a block at `spend_height` spends, in Core's order (`CheckTxInputs`); gives the
/// fee. `coins` are those of all its inputs: that they exist is for the caller to see.
pub fn check_inputs(tx: &Transaction, coins: &[Coin], spend_height: u32, params: &Params) -> Result<Amount, Rejection> {
    assert_eq!(tx.input.len(), coins.len(), "one coin for each input");
    let mut value_in = 0u64;
    for coin in coins {
        check_mature(coin, spend_height, params)?;
        value_in = check_input_value(value_in, coin)?;
    }
    let value_out = tx.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
    check_fee(value_in, value_out)
}

/// A coinbase is spent no earlier than [`Params::coinbase_maturity`] blocks after it was made:
/// [`Rejection::BadTxnsPrematureSpendOfCoinbase`] `bad-txns-premature-spend-of-coinbase`. Original release.
fn check_mature(coin: &Coin, spend_height: u32, params: &Params) -> Result<(), Rejection> {
    if coin.is_coinbase() && spend_height - coin.height() < params.coinbase_maturity {
        return Err(Rejection::BadTxnsPrematureSpendOfCoinbase);
    }
    Ok(())
}

/// Each input and their sum is at most [`MAX_MONEY`]: [`Rejection::BadTxnsInputvaluesOutofrange`]
/// `bad-txns-inputvalues-outofrange`. Core 0.3.
fn check_input_value(so_far: u64, coin: &Coin) -> Result<u64, Rejection> {
    let value = coin.value().to_sat();
    if value > MAX_MONEY || so_far + value > MAX_MONEY {
        return Err(Rejection::BadTxnsInputvaluesOutofrange);
    }
    Ok(so_far + value)
}

/// The inputs are worth no less than the outputs ([`Rejection::BadTxnsInBelowout`] `bad-txns-in-belowout`), and the
/// rest, the fee, is no more than [`MAX_MONEY`] ([`Rejection::BadTxnsFeeOutofrange`] `bad-txns-fee-outofrange`; the
/// rules before it leave nothing for this one). Original release.
pub(super) fn check_fee(value_in: u64, value_out: u64) -> Result<Amount, Rejection> {
    match value_in.checked_sub(value_out) {
        None => Err(Rejection::BadTxnsInBelowout),
        Some(fee) if fee > MAX_MONEY => Err(Rejection::BadTxnsFeeOutofrange),
        Some(fee) => Ok(Amount::from_sat(fee)),
    }
}
