//! The rules of a block that need the coins it spends, and what its coinbase may take. Scripts run elsewhere.

use super::branch::Branch;
use super::deployment::{is_active, script_flags};
use super::inputs::{check_inputs, sequence_locks};
use super::limits::{MAX_BLOCK_SIGOPS_COST, MAX_MONEY};
use super::sigops::transaction_sigop_cost;
use crate::block::Block;
use crate::coins::Coin;
use crate::params::{Buried, Params};
use crate::rejection::Rejection;
use crate::script::Flags;
use bitcoin::{Amount, BlockHash, Transaction};

/// From this height on the BIP30 look-up is made again on the main network: a coinbase of 2012 claims this height.
/// Core: `BIP34_IMPLIES_BIP30_LIMIT`.
pub(crate) const BIP34_IMPLIES_BIP30_LIMIT: u32 = 1_983_702;

/// What a block that connects leaves to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// What its transactions pay beside their outputs.
    pub fees: Amount,
    /// The flags under which its scripts must run.
    pub flags: Flags,
    /// What its signature operations cost.
    pub sigop_cost: u64,
}

/// The rules of a block that follows `branch`, in Core's order (`ConnectBlock`), all but the scripts. The first block
/// is not connected: its coinbase is no coin.
///
/// - `spent`: the coins of all inputs of all transactions but the coinbase, in block order, a coin that the block
///   itself makes included. Where a coin was missing or spent the list ends, and `complete` is false.
/// - `overwrites`: an output of the block would take the place of an unspent coin; looked up where
///   [`needs_bip30_check`] says so.
pub fn connect_block(
    block: &Block,
    spent: &[Coin],
    complete: bool,
    branch: &impl Branch,
    params: &Params,
    overwrites: bool,
) -> Result<Connected, Rejection> {
    let height = branch.height() + 1;
    let flags = script_flags(height, block.hash, params);
    let relative_locks = is_active(Buried::Csv, height, params);
    let (mut fees, mut sigop_cost, mut rest) = (0, 0, spent);
    check_no_overwrite(overwrites)?;
    for (index, tx) in block.transactions.iter().enumerate() {
        let mut coins: &[Coin] = &[];
        if index > 0 {
            (coins, rest) = check_inputs_exist(tx, rest, complete)?;
            fees = check_accumulated_fee(fees, check_inputs(tx, coins, height, params)?)?;
            check_sequence_locks(tx, coins, branch, relative_locks)?;
        }
        sigop_cost = check_sigop_cost(sigop_cost, tx, coins, flags)?;
    }
    assert!(complete && rest.is_empty(), "the caller gathers one coin for each input, or says that one is missing");
    check_coinbase_amount(&block.transactions[0], fees, height, params)?;
    Ok(Connected { fees: Amount::from_sat(fees), flags, sigop_cost })
}

/// Whether it must be looked up if the outputs of the block at `height` overwrite unspent coins. `at_bip34` is the
/// hash at [`Params::bip34_height`] on its branch, where that height is below this one.
///
/// Two blocks of the main network repeated a coinbase. Above BIP34's activation on the known chain, and everywhere on
/// a network where BIP34 holds from height 1, no transaction can repeat: the proof is in `docs/RULES.md`.
pub fn needs_bip30_check(height: u32, hash: BlockHash, at_bip34: Option<BlockHash>, params: &Params) -> bool {
    if bip34_implies_bip30(params) {
        return false;
    }
    let known_branch = height > params.bip34_height && params.bip34_hash.is_some() && at_bip34 == params.bip34_hash;
    let exception = params.bip30_exceptions.contains(&(height, hash));
    !exception && !known_branch || height >= BIP34_IMPLIES_BIP30_LIMIT
}

/// Whether no valid block can overwrite a coin, since BIP34 holds from height 1 on. Core does not rely on it: there a
/// block that repeats a payment is refused for that before it is refused for the inputs, which are spent. Whoever
/// wants Core's words looks up, once a block is refused, if it would overwrite.
pub(crate) fn bip34_implies_bip30(params: &Params) -> bool {
    params.bip34_height <= 1
}

/// No output takes the place of an unspent coin: [`Rejection::BadTxnsBip30`] `bad-txns-BIP30`. [BIP-0030],
/// CVE-2012-1909.
///
/// [BIP-0030]: https://github.com/bitcoin/bips/blob/master/bip-0030.mediawiki
fn check_no_overwrite(overwrites: bool) -> Result<(), Rejection> {
    if overwrites { Err(Rejection::BadTxnsBip30) } else { Ok(()) }
}

/// Every output that the transaction spends exists and is unspent: [`Rejection::BadTxnsInputsMissingorspent`]
/// `bad-txns-inputs-missingorspent`. Original release. Gives its coins and those of the transactions after it.
fn check_inputs_exist<'a>(
    tx: &Transaction,
    rest: &'a [Coin],
    complete: bool,
) -> Result<(&'a [Coin], &'a [Coin]), Rejection> {
    rest.split_at_checked(tx.input.len()).ok_or_else(|| {
        assert!(!complete, "the caller gathers one coin for each input, or says that one is missing");
        Rejection::BadTxnsInputsMissingorspent
    })
}

/// The fees of the block are no more than [`MAX_MONEY`]: [`Rejection::BadTxnsAccumulatedFeeOutofrange`]
/// `bad-txns-accumulated-fee-outofrange`. Core 0.17.
fn check_accumulated_fee(so_far: u64, fee: Amount) -> Result<u64, Rejection> {
    let fees = so_far + fee.to_sat();
    if fees > MAX_MONEY { Err(Rejection::BadTxnsAccumulatedFeeOutofrange) } else { Ok(fees) }
}

/// Every relative lock time has come: [`Rejection::BadTxnsNonfinal`] `bad-txns-nonfinal`. [BIP-0068].
///
/// [BIP-0068]: https://github.com/bitcoin/bips/blob/master/bip-0068.mediawiki
fn check_sequence_locks(tx: &Transaction, coins: &[Coin], branch: &impl Branch, held: bool) -> Result<(), Rejection> {
    if held && !sequence_locks(tx, coins, branch).are_past(branch) {
        return Err(Rejection::BadTxnsNonfinal);
    }
    Ok(())
}

/// The signature operations of the block cost no more than [`MAX_BLOCK_SIGOPS_COST`]: [`Rejection::BadBlkSigops`]
/// `bad-blk-sigops`. Core 0.3; with P2SH since [BIP-0016], with witnesses since [BIP-0141].
///
/// [BIP-0016]: https://github.com/bitcoin/bips/blob/master/bip-0016.mediawiki
/// [BIP-0141]: https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki
fn check_sigop_cost(so_far: u64, tx: &Transaction, coins: &[Coin], flags: Flags) -> Result<u64, Rejection> {
    let cost = so_far + transaction_sigop_cost(tx, coins, flags);
    if cost > MAX_BLOCK_SIGOPS_COST { Err(Rejection::BadBlkSigops) } else { Ok(cost) }
}

/// The coinbase takes no more than the subsidy and the fees: [`Rejection::BadCbAmount`] `bad-cb-amount`.
/// Original release.
fn check_coinbase_amount(coinbase: &Transaction, fees: u64, height: u32, params: &Params) -> Result<(), Rejection> {
    let taken = coinbase.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
    if taken > fees + subsidy(height, params).to_sat() {
        return Err(Rejection::BadCbAmount);
    }
    Ok(())
}

/// What the coinbase at `height` may create: it halves every [`Params::halving_interval`] blocks.
/// Core: `GetBlockSubsidy`.
pub fn subsidy(height: u32, params: &Params) -> Amount {
    let halvings = height / params.halving_interval;
    Amount::from_sat(params.initial_subsidy.checked_shr(halvings).unwrap_or(0))
}
