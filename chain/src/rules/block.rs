//! The rules of a block's body, alone and at its place on a branch. Sees no coins.

use super::branch::{Branch, median_time_past};
use super::commitment::{MINIMUM_WITNESS_COMMITMENT, witness_commitment, witness_root};
use super::deployment::is_active;
use super::inputs::is_final;
use super::limits::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT, WITNESS_SCALE_FACTOR};
use super::merkle::merkle_root;
use super::sigops::legacy_sigop_count;
use super::transaction::check_transaction;
use super::{pow, signet};
use crate::block::Block;
use crate::params::{Buried, Params};
use crate::rejection::Rejection;
use crate::script::MAX_SCRIPT_SIZE;
use bitcoin::hashes::Hash;
use bitcoin::{Script, Transaction, opcodes, script};

/// The rules that a block keeps wherever it stands, in Core's order (`CheckBlock`). Those that tell a changed body
/// from the one that was mined come before all that could mark the hash as invalid.
pub fn check_block(block: &Block, params: &Params) -> Result<(), Rejection> {
    pow::check_proof_of_work(block.hash, block.header.bits, params)?;
    signet::check_solution(block, params)?;
    check_body(block)
}

/// [`check_block`] without what a block that is only proposed cannot have: proof of work and a signet solution.
pub fn check_body(block: &Block) -> Result<(), Rejection> {
    check_merkle_root(block)?;
    check_length(block)?;
    check_coinbase_place(block)?;
    block.transactions.iter().try_for_each(check_transaction)?;
    check_legacy_sigops(block)
}

/// The rules that a block keeps at its place on the branch that it builds on, in Core's order
/// (`ContextualCheckBlock`). The first block is not asked.
pub fn contextual_check_block(block: &Block, branch: &impl Branch, params: &Params) -> Result<(), Rejection> {
    check_final(block, branch, params)?;
    check_coinbase_height(block, branch, params)?;
    check_witness(block, is_active(Buried::Segwit, branch.height() + 1, params))?;
    check_weight(block)
}

/// The transactions hash to the root in the header ([`Rejection::BadTxnMrklRoot`] `bad-txnmrklroot`), and none is
/// repeated behind the root's back ([`Rejection::BadTxnsDuplicate`] `bad-txns-duplicate`). Original release;
/// CVE-2012-2459.
fn check_merkle_root(block: &Block) -> Result<(), Rejection> {
    let (root, mutated) = merkle_root(block.txids.iter().map(|txid| txid.to_byte_array()));
    if root != block.header.merkle_root.to_byte_array() {
        return Err(Rejection::BadTxnMrklRoot);
    }
    if mutated {
        return Err(Rejection::BadTxnsDuplicate);
    }
    Ok(())
}

/// There is a transaction, and without witnesses they fit: [`Rejection::BadBlkLength`] `bad-blk-length`.
/// Original release.
fn check_length(block: &Block) -> Result<(), Rejection> {
    let units = block.transactions.len().max(block.stripped_size);
    if block.transactions.is_empty() || units * WITNESS_SCALE_FACTOR > MAX_BLOCK_WEIGHT {
        return Err(Rejection::BadBlkLength);
    }
    Ok(())
}

/// The first transaction is a coinbase ([`Rejection::BadCbMissing`] `bad-cb-missing`), and no other is
/// ([`Rejection::BadCbMultiple`] `bad-cb-multiple`). Original release.
fn check_coinbase_place(block: &Block) -> Result<(), Rejection> {
    if !block.transactions[0].is_coinbase() {
        return Err(Rejection::BadCbMissing);
    }
    if block.transactions[1..].iter().any(Transaction::is_coinbase) {
        return Err(Rejection::BadCbMultiple);
    }
    Ok(())
}

/// The signature operations that show without coins are within the limit: [`Rejection::BadBlkSigops`]
/// `bad-blk-sigops`. Core 0.3; `rules::connect` counts the others.
fn check_legacy_sigops(block: &Block) -> Result<(), Rejection> {
    let count: u64 = block.transactions.iter().map(legacy_sigop_count).sum();
    if count * WITNESS_SCALE_FACTOR as u64 > MAX_BLOCK_SIGOPS_COST {
        return Err(Rejection::BadBlkSigops);
    }
    Ok(())
}

/// Every lock time has come: [`Rejection::BadTxnsNonfinal`] `bad-txns-nonfinal`. Original release; since [BIP-0113]
/// the clock is the median time past of the parent.
///
/// [BIP-0113]: https://github.com/bitcoin/bips/blob/master/bip-0113.mediawiki
fn check_final(block: &Block, branch: &impl Branch, params: &Params) -> Result<(), Rejection> {
    let height = branch.height() + 1;
    let median = is_active(Buried::Csv, height, params);
    let time = if median { median_time_past(branch) } else { block.header.time };
    if !block.transactions.iter().all(|tx| is_final(tx, height, time)) {
        return Err(Rejection::BadTxnsNonfinal);
    }
    Ok(())
}

/// The coinbase begins with a push of the height: [`Rejection::BadCbHeight`] `bad-cb-height`. [BIP-0034].
///
/// [BIP-0034]: https://github.com/bitcoin/bips/blob/master/bip-0034.mediawiki
fn check_coinbase_height(block: &Block, branch: &impl Branch, params: &Params) -> Result<(), Rejection> {
    let height = branch.height() + 1;
    if !is_active(Buried::Bip34, height, params) {
        return Ok(());
    }
    let expected = script::Builder::new().push_int(i64::from(height)).into_script();
    if !block.transactions[0].input[0].script_sig.as_bytes().starts_with(expected.as_bytes()) {
        return Err(Rejection::BadCbHeight);
    }
    Ok(())
}

/// Where the coinbase commits to witnesses, they are those: one reserved value of 32 bytes in the coinbase's own
/// witness ([`Rejection::BadWitnessNonceSize`] `bad-witness-nonce-size`), hashed with the root over all wtxids
/// ([`Rejection::BadWitnessMerkleMatch`] `bad-witness-merkle-match`). Where it does not, or before segwit, there are
/// none ([`Rejection::UnexpectedWitness`] `unexpected-witness`). [BIP-0141]. Core: `CheckWitnessMalleation`.
///
/// [BIP-0141]: https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki
fn check_witness(block: &Block, segwit: bool) -> Result<(), Rejection> {
    let commitment = witness_commitment(&block.transactions[0]).filter(|_| segwit);
    let Some((_, commitment)) = commitment else {
        let has_witness = |tx: &Transaction| tx.input.iter().any(|input| !input.witness.is_empty());
        return if block.transactions.iter().any(has_witness) { Err(Rejection::UnexpectedWitness) } else { Ok(()) };
    };
    let witness = &block.transactions[0].input[0].witness;
    let reserved = witness.nth(0).filter(|reserved| witness.len() == 1 && reserved.len() == 32);
    let reserved = reserved.ok_or(Rejection::BadWitnessNonceSize)?;
    if witness_root(block, reserved) != commitment[6..MINIMUM_WITNESS_COMMITMENT] {
        return Err(Rejection::BadWitnessMerkleMatch);
    }
    Ok(())
}

/// The block weighs no more than [`MAX_BLOCK_WEIGHT`]: [`Rejection::BadBlkWeight`] `bad-blk-weight`. [BIP-0141].
/// Asked only when the coinbase's witness is known to be the mined one: it weighs too.
///
/// [BIP-0141]: https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki
fn check_weight(block: &Block) -> Result<(), Rejection> {
    if block.weight() > MAX_BLOCK_WEIGHT {
        return Err(Rejection::BadBlkWeight);
    }
    Ok(())
}

/// Whether an output with this script never becomes a coin, since nothing can spend it: it begins with OP_RETURN or
/// is longer than a script may be. Core: `CScript::IsUnspendable`.
pub fn is_unspendable(script: &Script) -> bool {
    script.len() > MAX_SCRIPT_SIZE || script.as_bytes().first() == Some(&opcodes::all::OP_RETURN.to_u8())
}
