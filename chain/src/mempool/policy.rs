//! What is relayed and mined beyond what is valid: the standard forms of transactions. Names, values and order are Core's
//! (`policy/policy.cpp`). No rule of consensus asks for anything here.

use bitcoin::consensus::encode::serialize;
use bitcoin::{Script, Transaction, TxOut};

use super::fee::fee_for;
use crate::coins::Coin;
use crate::rejection::Rejection;
use crate::rules::block::is_unspendable;
use crate::rules::limits::{MAX_BLOCK_SIGOPS_COST, WITNESS_SCALE_FACTOR};
use crate::script::opcode::{Cursor, OP_1, OP_1NEGATE, OP_16, OP_RESERVED, is_p2sh, is_push_only, witness_program};
use crate::script::taproot::{ANNEX_TAG, TAPROOT_LEAF_MASK, TAPROOT_LEAF_TAPSCRIPT};
use crate::script::{
    MAX_SCRIPT_ELEMENT_SIZE, MAX_SCRIPT_SIZE, MAX_STACK_SIZE, ScriptError, Template, legacy_sigops, p2sh_sigops,
};

/// Lowest and highest version that is relayed. Core's names and values.
pub const TX_MIN_STANDARD_VERSION: u32 = 1;
/// See [`TX_MIN_STANDARD_VERSION`].
pub const TX_MAX_STANDARD_VERSION: u32 = 3;
/// Core's name and value.
pub const MAX_STANDARD_TX_WEIGHT: u64 = 400_000;
/// Bytes without witness. Core's name and value.
pub(crate) const MIN_STANDARD_TX_NONWITNESS_SIZE: usize = 65;
/// Core's name and value.
pub(crate) const MAX_STANDARD_SCRIPTSIG_SIZE: usize = 1650;
/// Signature operations in the script behind a P2SH output. Core's name and value.
pub(crate) const MAX_P2SH_SIGOPS: u32 = 15;
/// Core's name and value.
pub(crate) const MAX_STANDARD_TX_SIGOPS_COST: u64 = MAX_BLOCK_SIGOPS_COST / 5;
/// Signature operations outside of witnesses that a transaction may execute (BIP54). Core's name and value.
pub(crate) const MAX_TX_LEGACY_SIGOPS: u32 = 2500;
/// Core's name and value.
pub(crate) const MAX_STANDARD_P2WSH_STACK_ITEMS: usize = 100;
/// Core's name and value.
pub(crate) const MAX_STANDARD_P2WSH_STACK_ITEM_SIZE: usize = 80;
/// Core's name and value.
pub(crate) const MAX_STANDARD_TAPSCRIPT_STACK_ITEM_SIZE: usize = 80;
/// Core's name and value.
pub(crate) const MAX_STANDARD_P2WSH_SCRIPT_SIZE: usize = 3600;
/// Outputs below the dust limit, on a transaction that pays no fee. Core's name and value.
pub(crate) const MAX_DUST_OUTPUTS_PER_TX: usize = 1;
/// Transactions of this version keep to small families (BIP431). Core's name and value.
pub(crate) const TRUC_VERSION: u32 = 3;
/// Virtual bytes. Core's name and value.
pub(crate) const TRUC_MAX_VSIZE: u64 = 10_000;
/// Virtual bytes of one with an unconfirmed parent. Core's name and value.
pub(crate) const TRUC_CHILD_MAX_VSIZE: u64 = 1000;
/// A transaction of version 3 has one unconfirmed ancestor and one descendant at most, each counted with itself.
/// Core: `TRUC_ANCESTOR_LIMIT`, `TRUC_DESCENDANT_LIMIT`.
pub(crate) const TRUC_FAMILY_LIMIT: usize = 2;

/// What an operator may choose. [`Policy::default`] has Core's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes that the pool may take. Core: `-maxmempool`.
    pub max_bytes: usize,
    /// Seconds after which a transaction leaves. Core: `-mempoolexpiry`.
    pub expiry: u64,
    /// Only standard transactions. Core: `-acceptnonstdtxn=0`.
    pub require_standard: bool,
    /// Satoshi per 1000 virtual bytes. Core: `-minrelaytxfee`.
    pub min_relay_fee: u64,
    /// Satoshi per 1000 virtual bytes that a full pool asks for above what it threw out. Core: `-incrementalrelayfee`.
    pub incremental_relay_fee: u64,
    /// Satoshi per 1000 virtual bytes that make an output dust. Core: `-dustrelayfee`.
    pub dust_relay_fee: u64,
    /// Bytes of scripts that carry data, in one transaction; none: no such outputs. Core: `-datacarriersize`.
    pub max_datacarrier_bytes: Option<usize>,
    /// Core: `-permitbaremultisig`.
    pub permit_bare_multisig: bool,
    /// Virtual bytes that a signature operation counts for at least. Core: `-bytespersigop`.
    pub bytes_per_sigop: u64,
    /// Transactions that hang together. Core: `-limitclustercount`.
    pub cluster_count: usize,
    /// Virtual bytes of those. Core: `-limitclustersize`.
    pub cluster_vbytes: u64,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            max_bytes: 300_000_000,
            expiry: 336 * 60 * 60,
            require_standard: true,
            min_relay_fee: 100,
            incremental_relay_fee: 100,
            dust_relay_fee: 3000,
            max_datacarrier_bytes: Some(MAX_STANDARD_TX_WEIGHT as usize / WITNESS_SCALE_FACTOR),
            permit_bare_multisig: true,
            bytes_per_sigop: 20,
            cluster_count: 64,
            cluster_vbytes: 101_000,
        }
    }
}

/// The form of a transaction, without the coins that it spends. Core: `IsStandardTx`.
pub(crate) fn check_standard(tx: &Transaction, policy: &Policy) -> Result<(), Rejection> {
    if !(TX_MIN_STANDARD_VERSION..=TX_MAX_STANDARD_VERSION).contains(&(tx.version.0 as u32)) {
        return Err(Rejection::Version);
    }
    if tx.weight().to_wu() > MAX_STANDARD_TX_WEIGHT {
        return Err(Rejection::TxSize);
    }
    for input in &tx.input {
        if input.script_sig.len() > MAX_STANDARD_SCRIPTSIG_SIZE {
            return Err(Rejection::ScriptsigSize);
        }
        if !is_push_only(input.script_sig.as_bytes()) {
            return Err(Rejection::ScriptsigNotPushonly);
        }
    }
    let mut data_left = policy.max_datacarrier_bytes.unwrap_or(0);
    for output in &tx.output {
        match Template::of(&output.script_pubkey) {
            Template::NonStandard => return Err(Rejection::ScriptPubkey),
            // Up to three keys; the form holds to the number of signatures.
            Template::Multisig(_, keys) if keys.len() > 3 => return Err(Rejection::ScriptPubkey),
            Template::Multisig(..) if !policy.permit_bare_multisig => return Err(Rejection::BareMultisig),
            Template::NullData => {
                data_left = data_left.checked_sub(output.script_pubkey.len()).ok_or(Rejection::Datacarrier)?;
            }
            _ => {}
        }
    }
    if dust(tx, policy.dust_relay_fee).count() > MAX_DUST_OUTPUTS_PER_TX {
        return Err(Rejection::Dust);
    }
    Ok(())
}

/// Numbers of the outputs that are dust. Core: `GetDust`.
pub fn dust(tx: &Transaction, dust_relay_fee: u64) -> impl Iterator<Item = u32> + '_ {
    let is_dust = move |output: &TxOut| output.value.to_sat() < dust_threshold(output, dust_relay_fee);
    (0..).zip(&tx.output).filter(move |(_, output)| is_dust(output)).map(|(number, _)| number)
}

/// The least that an output must be worth, in satoshi: what it costs to make and to spend. Core: `GetDustThreshold`.
pub(crate) fn dust_threshold(output: &TxOut, dust_relay_fee: u64) -> u64 {
    if is_unspendable(&output.script_pubkey) {
        return 0;
    }
    // The input that spends it: outpoint, lengths, sequence, and a signature with its key, cheaper in a witness.
    let witness = witness_program(output.script_pubkey.as_bytes()).is_some();
    let spend = 32 + 4 + 1 + (if witness { 107 / WITNESS_SCALE_FACTOR } else { 107 }) + 4;
    fee_for(dust_relay_fee, (serialize(output).len() + spend) as u64)
}

/// The outputs that it spends are of known forms and cheap to check; otherwise what is wrong, in Core's words.
/// Core: `ValidateInputsStandardness`.
pub(crate) fn check_inputs_standard(tx: &Transaction, coins: &[Coin]) -> Result<(), String> {
    let mut sigops = 0;
    for (input, coin) in tx.input.iter().zip(coins) {
        let output = coin.script_pubkey();
        sigops += legacy_sigops(&input.script_sig, true);
        sigops += match is_p2sh(output.as_bytes()) {
            true => p2sh_sigops(&input.script_sig, output),
            false => legacy_sigops(output, true),
        };
        if sigops > MAX_TX_LEGACY_SIGOPS {
            return Err("non-witness sigops exceed bip54 limit".into());
        }
    }
    for (number, (input, coin)) in tx.input.iter().zip(coins).enumerate() {
        match Template::of(coin.script_pubkey()) {
            Template::NonStandard => return Err(format!("input {number} script unknown")),
            Template::WitnessUnknown => return Err(format!("input {number} witness program is undefined")),
            Template::ScriptHash => check_redeem_standard(&input.script_sig, number)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_redeem_standard(script_sig: &Script, number: usize) -> Result<(), String> {
    let redeem =
        last_push(script_sig).map_err(|error| format!("p2sh scriptsig malformed (input {number}: {error})"))?;
    let redeem = redeem.ok_or_else(|| format!("input {number} P2SH redeemscript missing"))?;
    let sigops = legacy_sigops(Script::from_bytes(&redeem), true);
    if sigops > MAX_P2SH_SIGOPS {
        return Err(format!("p2sh redeemscript sigops exceed limit (input {number}: {sigops} > {MAX_P2SH_SIGOPS})"));
    }
    Ok(())
}

/// No witness is larger than usual, and none stands where it has no meaning. Core: `IsWitnessStandard`.
pub(crate) fn check_witness_standard(tx: &Transaction, coins: &[Coin]) -> Result<(), Rejection> {
    let standard = tx.input.iter().zip(coins).all(|(input, coin)| {
        input.witness.is_empty() || is_standard_witness(&input.witness, &input.script_sig, coin.script_pubkey())
    });
    if standard { Ok(()) } else { Err(Rejection::BadWitnessNonstandard) }
}

fn is_standard_witness(witness: &bitcoin::Witness, script_sig: &Script, output: &Script) -> bool {
    let in_p2sh = is_p2sh(output.as_bytes());
    let redeem = if in_p2sh { last_push(script_sig).ok().flatten() } else { Some(output.to_bytes()) };
    let Some((version, program)) = redeem.as_deref().and_then(witness_program) else { return false };
    let elements: Vec<&[u8]> = witness.iter().collect();
    match (version, program.len()) {
        (1, 2) if !in_p2sh && program == [0x4e, 0x73] => false,
        (0, 32) => {
            let (script, items) = elements.split_last().expect("it is not empty");
            script.len() <= MAX_STANDARD_P2WSH_SCRIPT_SIZE
                && items.len() <= MAX_STANDARD_P2WSH_STACK_ITEMS
                && items.iter().all(|item| item.len() <= MAX_STANDARD_P2WSH_STACK_ITEM_SIZE)
        }
        (1, 32) if !in_p2sh => match elements.as_slice() {
            [_, .., last] if last.first() == Some(&ANNEX_TAG) => false,
            [items @ .., _, control] => match control.first() {
                None => false,
                Some(first) if first & TAPROOT_LEAF_MASK == TAPROOT_LEAF_TAPSCRIPT => {
                    items.iter().all(|item| item.len() <= MAX_STANDARD_TAPSCRIPT_STACK_ITEM_SIZE)
                }
                Some(_) => true,
            },
            _ => true,
        },
        _ => true,
    }
}

/// What an input script that only pushes leaves on top of the stack, if anything. Core: `EvalScript` without flags.
fn last_push(script_sig: &Script) -> Result<Option<Vec<u8>>, ScriptError> {
    if script_sig.len() > MAX_SCRIPT_SIZE {
        return Err(ScriptError::ScriptSize);
    }
    let mut last = None;
    for (count, op) in Cursor::new(script_sig.as_bytes()).enumerate() {
        let op = op.map_err(|_| ScriptError::BadOpcode)?;
        if op.data.len() > MAX_SCRIPT_ELEMENT_SIZE {
            return Err(ScriptError::PushSize);
        }
        last = Some(match op.code {
            OP_1NEGATE => vec![0x81],
            OP_1..=OP_16 => vec![op.code - OP_1 + 1],
            OP_RESERVED.. => return Err(ScriptError::BadOpcode),
            _ => op.data.to_vec(),
        });
        if count == MAX_STACK_SIZE {
            return Err(ScriptError::StackSize);
        }
    }
    Ok(last)
}

/// Whether it spends a witness program other than an anchor: then it needs a witness. Core:
/// `SpendsNonAnchorWitnessProg`.
pub(crate) fn needs_witness(tx: &Transaction, coins: &[Coin]) -> bool {
    tx.input.iter().zip(coins).any(|(input, coin)| {
        let output = coin.script_pubkey().as_bytes();
        match witness_program(output) {
            Some(program) => program != (1, &[0x4e, 0x73]),
            None if is_p2sh(output) => {
                let redeem = last_push(&input.script_sig).ok().flatten();
                redeem.is_some_and(|redeem| witness_program(&redeem).is_some())
            }
            None => false,
        }
    })
}

/// The weight with what its signature operations count for at least. Core: `GetSigOpsAdjustedWeight`.
pub(crate) fn adjusted_weight(weight: u64, sigop_cost: u64, bytes_per_sigop: u64) -> u64 {
    weight.max(sigop_cost.saturating_mul(bytes_per_sigop))
}

#[cfg(test)]
mod tests;
