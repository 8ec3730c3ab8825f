//! The rules that a transaction keeps by itself. Sees no coins and no chain.

use super::limits::{MAX_BLOCK_WEIGHT, MAX_MONEY, WITNESS_SCALE_FACTOR};
use crate::rejection::Rejection;
use bitcoin::{OutPoint, Transaction};

/// The rules in Core's order (`CheckTransaction`).
pub fn check_transaction(tx: &Transaction) -> Result<(), Rejection> {
    check_not_empty(tx)?;
    check_size(tx)?;
    check_output_values(tx)?;
    check_no_duplicate_inputs(tx)?;
    if tx.is_coinbase() { check_coinbase_length(tx) } else { check_inputs_name_outputs(tx) }
}

/// At least one input ([`Rejection::BadTxnsVinEmpty`] `bad-txns-vin-empty`) and one output
/// ([`Rejection::BadTxnsVoutEmpty`] `bad-txns-vout-empty`). Original release.
fn check_not_empty(tx: &Transaction) -> Result<(), Rejection> {
    if tx.input.is_empty() {
        return Err(Rejection::BadTxnsVinEmpty);
    }
    if tx.output.is_empty() {
        return Err(Rejection::BadTxnsVoutEmpty);
    }
    Ok(())
}

/// Without its witness it fits in a block: [`Rejection::BadTxnsOversize`] `bad-txns-oversize`. Original release.
fn check_size(tx: &Transaction) -> Result<(), Rejection> {
    if tx.base_size() * WITNESS_SCALE_FACTOR > MAX_BLOCK_WEIGHT {
        return Err(Rejection::BadTxnsOversize);
    }
    Ok(())
}

/// Each output and their sum is in 0..=[`MAX_MONEY`]: [`Rejection::BadTxnsVoutNegative`] `bad-txns-vout-negative`,
/// [`Rejection::BadTxnsVoutToolarge`] `bad-txns-vout-toolarge`, [`Rejection::BadTxnsTxouttotalToolarge`]
/// `bad-txns-txouttotal-toolarge`. CVE-2010-5139.
fn check_output_values(tx: &Transaction) -> Result<(), Rejection> {
    let mut total = 0u64;
    for output in &tx.output {
        let value = output.value.to_sat();
        // The wire carries a signed number.
        if value > i64::MAX as u64 {
            return Err(Rejection::BadTxnsVoutNegative);
        }
        if value > MAX_MONEY {
            return Err(Rejection::BadTxnsVoutToolarge);
        }
        total += value;
        if total > MAX_MONEY {
            return Err(Rejection::BadTxnsTxouttotalToolarge);
        }
    }
    Ok(())
}

/// No output is spent twice: [`Rejection::BadTxnsInputsDuplicate`] `bad-txns-inputs-duplicate`. CVE-2018-17144.
fn check_no_duplicate_inputs(tx: &Transaction) -> Result<(), Rejection> {
    let repeated = match tx.input.as_slice() {
        [] | [_] => false,
        [first, second] => first.previous_output == second.previous_output,
        inputs => {
            let mut outpoints: Vec<&OutPoint> = inputs.iter().map(|input| &input.previous_output).collect();
            outpoints.sort_unstable();
            outpoints.windows(2).any(|pair| pair[0] == pair[1])
        }
    };
    if repeated { Err(Rejection::BadTxnsInputsDuplicate) } else { Ok(()) }
}

/// The script of a coinbase's input has 2 to 100 bytes: [`Rejection::BadCbLength`] `bad-cb-length`. Original release.
fn check_coinbase_length(tx: &Transaction) -> Result<(), Rejection> {
    if !(2..=100).contains(&tx.input[0].script_sig.len()) {
        return Err(Rejection::BadCbLength);
    }
    Ok(())
}

/// Only a coinbase spends from nowhere: [`Rejection::BadTxnsPrevoutNull`] `bad-txns-prevout-null`. Original release.
fn check_inputs_name_outputs(tx: &Transaction) -> Result<(), Rejection> {
    if tx.input.iter().any(|input| input.previous_output.is_null()) {
        return Err(Rejection::BadTxnsPrevoutNull);
    }
    Ok(())
}
