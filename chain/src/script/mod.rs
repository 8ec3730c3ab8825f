//! The script engine: whether an input may spend an output. Complete as of Bitcoin Core 31: the original release, P2SH,
//! segwit version 0, taproot and tapscript, under every flag of Core's consensus and policy sets. Knows no block, no
//! height and no coin table; which flags hold where is a rule.
//!
//! [`verify_input`] checks one input of a transaction; [`verify_script`] does the same with a [`Checker`] of the
//! caller's, who may record or defer signature checks. [`sighash`] gives what signatures sign, `sigops` counts them.

mod cache;
mod checker;
mod error;
mod flags;
mod interpreter;
mod num;
pub mod opcode;
pub mod sighash;
pub mod signature;
mod sigops;
mod stack;
pub mod taproot;
mod template;

use bitcoin::{Script, Witness};
use sha2::{Digest, Sha256};

pub use cache::VerdictCache;
pub use checker::{
    Checker, LOCKTIME_THRESHOLD, SEQUENCE_LOCKTIME_DISABLE_FLAG, SEQUENCE_LOCKTIME_MASK, SEQUENCE_LOCKTIME_TYPE_FLAG,
    TransactionChecker, verify_input,
};
pub use error::ScriptError;
pub use flags::{Flags, UnknownFlag};
pub use interpreter::{
    MAX_OPS_PER_SCRIPT, MAX_PUBKEYS_PER_MULTISIG, MAX_SCRIPT_ELEMENT_SIZE, MAX_SCRIPT_SIZE, MAX_STACK_SIZE,
    VALIDATION_WEIGHT_OFFSET, VALIDATION_WEIGHT_PER_SIGOP_PASSED,
};
pub use sighash::{SigVersion, Sighashes, TapLeaf, TaprootSpend};
pub use sigops::{legacy_sigops, p2sh_sigops, witness_sigops};
pub use template::Template;

use interpreter::{Context, evaluate, push_prefix};
use opcode::*;
use stack::{Element, Stack};

/// Whether `script_sig` and `witness` satisfy `script_pubkey` under `flags`, with signatures and lock times as
/// `checker` says (Core's `VerifyScript`).
///
/// CLEANSTACK has a meaning only beside WITNESS, WITNESS only beside P2SH ([`Flags::with_needed`]).
pub fn verify_script(
    script_sig: &Script,
    script_pubkey: &Script,
    witness: &Witness,
    flags: Flags,
    checker: &impl Checker,
) -> Result<(), ScriptError> {
    let (script_sig, script_pubkey) = (script_sig.as_bytes(), script_pubkey.as_bytes());
    if flags.contains(Flags::SIGPUSHONLY) && !is_push_only(script_sig) {
        return Err(ScriptError::SigPushOnly);
    }
    // One after the other on the same stack, never as one script (CVE-2010-5141).
    let base = || Context::new(flags, SigVersion::Base, checker);
    let mut stack = Stack::new();
    evaluate(&mut stack, script_sig, base())?;
    let committed = (flags.contains(Flags::P2SH) && is_p2sh(script_pubkey)).then(|| stack.clone());
    evaluate(&mut stack, script_pubkey, base())?;
    must_be_true(&stack)?;

    let mut had_witness = false;
    if flags.contains(Flags::WITNESS)
        && let Some((version, program)) = witness_program(script_pubkey)
    {
        had_witness = true;
        if !script_sig.is_empty() {
            return Err(ScriptError::WitnessMalleated);
        }
        verify_witness_program(witness, version, program, false, flags, checker)?;
        stack.keep_one(); // a program leaves no clean stack, and need not
    }

    let redeem: Element<'_>;
    if let Some(mut committed) = committed {
        if !is_push_only(script_sig) {
            return Err(ScriptError::SigPushOnly);
        }
        redeem = committed.pop().expect("HASH160 found an element");
        stack = committed;
        evaluate(&mut stack, &redeem, base())?;
        must_be_true(&stack)?;
        if flags.contains(Flags::WITNESS)
            && let Some((version, program)) = witness_program(&redeem)
        {
            had_witness = true;
            // Exactly one push of the redeem script, in its shortest form: else anyone could change the txid.
            if script_sig.strip_prefix(&*push_prefix(redeem.len())) != Some(&*redeem) {
                return Err(ScriptError::WitnessMalleatedP2sh);
            }
            verify_witness_program(witness, version, program, true, flags, checker)?;
            stack.keep_one();
        }
    }

    if flags.contains(Flags::CLEANSTACK) && stack.len() != 1 {
        return Err(ScriptError::CleanStack);
    }
    if flags.contains(Flags::WITNESS) && !had_witness && !witness.is_empty() {
        return Err(ScriptError::WitnessUnexpected);
    }
    Ok(())
}

fn must_be_true(stack: &Stack<'_>) -> Result<(), ScriptError> {
    if stack.peek(1).is_ok_and(|top| top.is_true()) { Ok(()) } else { Err(ScriptError::EvalFalse) }
}

/// Whether `witness` satisfies a witness program: [BIP-0141] for version 0, [BIP-0341] for version 1. What has no
/// meaning yet is satisfied by anything.
///
/// [BIP-0141]: https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki
/// [BIP-0341]: https://github.com/bitcoin/bips/blob/master/bip-0341.mediawiki
fn verify_witness_program(
    witness: &Witness,
    version: u8,
    program: &[u8],
    in_p2sh: bool,
    flags: Flags,
    checker: &impl Checker,
) -> Result<(), ScriptError> {
    match (version, program.len()) {
        (0, 32) => {
            let script = witness.last().ok_or(ScriptError::WitnessProgramWitnessEmpty)?;
            if Sha256::digest(script).as_slice() != program {
                return Err(ScriptError::WitnessProgramMismatch);
            }
            execute(witness, witness.len() - 1, script, Context::new(flags, SigVersion::WitnessV0, checker))
        }
        (0, 20) => {
            if witness.len() != 2 {
                return Err(ScriptError::WitnessProgramMismatch);
            }
            let mut implied = [0; 25];
            implied[..3].copy_from_slice(&[OP_DUP, OP_HASH160, 20]);
            implied[3..23].copy_from_slice(program);
            implied[23..].copy_from_slice(&[OP_EQUALVERIFY, OP_CHECKSIG]);
            execute(witness, 2, &implied, Context::new(flags, SigVersion::WitnessV0, checker))
        }
        (0, _) => Err(ScriptError::WitnessProgramWrongLength),
        (1, 32) if !in_p2sh => {
            if flags.contains(Flags::TAPROOT) {
                verify_taproot(witness, program, flags, checker)
            } else {
                Ok(())
            }
        }
        (1, 2) if !in_p2sh && program == PAY_TO_ANCHOR => Ok(()),
        _ if flags.contains(Flags::DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM) => {
            Err(ScriptError::DiscourageUpgradableWitnessProgram)
        }
        _ => Ok(()),
    }
}

/// The program of a pay-to-anchor output: standard to spend, by anyone.
const PAY_TO_ANCHOR: [u8; 2] = [0x4e, 0x73];

fn verify_taproot(witness: &Witness, program: &[u8], flags: Flags, checker: &impl Checker) -> Result<(), ScriptError> {
    let last = witness.last().ok_or(ScriptError::WitnessProgramWitnessEmpty)?;
    let has_annex = witness.len() >= 2 && last.first() == Some(&taproot::ANNEX_TAG);
    let count = witness.len() - usize::from(has_annex);
    let mut spend = TaprootSpend { annex: has_annex.then(|| taproot::annex_hash(last)), leaf: None };
    let element = |index: usize| witness.nth(index).expect("below the number of elements");
    if count == 1 {
        let key = program.try_into().expect("a taproot program has 32 bytes");
        return checker.check_schnorr(element(0), key, &spend);
    }
    let (script, control) = (element(count - 2), element(count - 1));
    if !taproot::is_control_size(control.len()) {
        return Err(ScriptError::TaprootWrongControlSize);
    }
    let leaf_version = control[0] & taproot::TAPROOT_LEAF_MASK;
    let hash = taproot::leaf_hash(leaf_version, script);
    if !taproot::commits_to(program, control, hash) {
        return Err(ScriptError::WitnessProgramMismatch);
    }
    if leaf_version == taproot::TAPROOT_LEAF_TAPSCRIPT {
        spend.leaf = Some(TapLeaf { hash, code_separator: u32::MAX });
        let weight = i64::try_from(witness.size()).expect("a witness fits in memory") + VALIDATION_WEIGHT_OFFSET;
        let context = Context { spend, weight_left: weight, ..Context::new(flags, SigVersion::Tapscript, checker) };
        return execute(witness, count - 2, script, context);
    }
    if flags.contains(Flags::DISCOURAGE_UPGRADABLE_TAPROOT_VERSION) {
        return Err(ScriptError::DiscourageUpgradableTaprootVersion);
    }
    Ok(())
}

/// Executes a witness script on the first `count` elements of `witness`; exactly one true element must be left.
fn execute<C: Checker>(
    witness: &Witness,
    count: usize,
    script: &[u8],
    context: Context<'_, C>,
) -> Result<(), ScriptError> {
    if context.version == SigVersion::Tapscript {
        // An OP_SUCCESSx overrides everything, but not a push beyond the end before it.
        for op in Cursor::new(script) {
            let op = op.map_err(|_| ScriptError::BadOpcode)?;
            if is_op_success(op.code) {
                let discouraged = context.flags.contains(Flags::DISCOURAGE_OP_SUCCESS);
                return if discouraged { Err(ScriptError::DiscourageOpSuccess) } else { Ok(()) };
            }
        }
        if count > MAX_STACK_SIZE {
            return Err(ScriptError::StackSize);
        }
    }
    let mut stack = Stack::new();
    for element in witness.iter().take(count) {
        if element.len() > MAX_SCRIPT_ELEMENT_SIZE {
            return Err(ScriptError::PushSize);
        }
        stack.push(Element::Borrowed(element));
    }
    evaluate(&mut stack, script, context)?;
    if stack.len() != 1 {
        return Err(ScriptError::CleanStack);
    }
    must_be_true(&stack)
}

#[cfg(test)]
mod tests;
