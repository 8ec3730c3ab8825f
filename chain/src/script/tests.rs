//! The outline of verification with a checker that knows no transaction: every signature is valid, every lock holds.

use bitcoin::hashes::{Hash, hash160};

use super::*;

struct Anything;

impl Checker for Anything {
    fn check_ecdsa(&self, signature: &[u8], _: &[u8], _: &[u8], _: SigVersion) -> bool {
        !signature.is_empty()
    }

    fn check_schnorr(&self, _: &[u8], _: &[u8; 32], _: &TaprootSpend) -> Result<(), ScriptError> {
        Ok(())
    }

    fn check_lock_time(&self, _: i64) -> bool {
        true
    }

    fn check_sequence(&self, _: i64) -> bool {
        true
    }
}

fn verify(sig: &[u8], output: &[u8], witness: &[&[u8]], flags: Flags) -> Result<(), ScriptError> {
    verify_script(Script::from_bytes(sig), Script::from_bytes(output), &Witness::from_slice(witness), flags, &Anything)
}

#[test]
fn unlocking_and_locking_scripts_are_executed_apart() {
    assert_eq!(verify(&[OP_1, OP_RETURN], &[OP_1], &[], Flags::NONE), Err(ScriptError::OpReturn));
    assert_eq!(verify(&[OP_1, OP_IF], &[OP_ENDIF, OP_1], &[], Flags::NONE), Err(ScriptError::UnbalancedConditional));
    assert_eq!(verify(&[2, 1], &[OP_1, OP_1], &[], Flags::NONE), Err(ScriptError::BadOpcode));
    assert_eq!(verify(&[OP_5], &[OP_5, OP_EQUAL], &[], Flags::STANDARD), Ok(()));
}

#[test]
fn a_witness_belongs_to_a_witness_program() {
    assert_eq!(verify(&[], &[OP_1], &[b"x"], Flags::MANDATORY), Err(ScriptError::WitnessUnexpected));
    assert_eq!(verify(&[], &[OP_1], &[b"x"], Flags::P2SH), Ok(()));
    let key = [&[OP_0, 20][..], &[1; 20]].concat();
    assert_eq!(verify(&[OP_1], &key, &[], Flags::MANDATORY), Err(ScriptError::WitnessMalleated));
    assert_eq!(verify(&[], &key, &[b"x"], Flags::MANDATORY), Err(ScriptError::WitnessProgramMismatch));
    assert_eq!(verify(&[], &[OP_0, 2, 1, 1], &[], Flags::MANDATORY), Err(ScriptError::WitnessProgramWrongLength));
}

#[test]
fn pay_to_anchor_needs_nothing_and_is_standard_only_by_itself() {
    let anchor = [OP_1, 2, 0x4e, 0x73];
    assert_eq!(verify(&[], &anchor, &[], Flags::STANDARD), Ok(()));
    let discouraged = Err(ScriptError::DiscourageUpgradableWitnessProgram);
    assert_eq!(verify(&[], &[OP_1, 2, 0x4e, 0x74], &[], Flags::STANDARD), discouraged);
    let hash = hash160::Hash::hash(&anchor);
    let nested = [&[OP_HASH160, 20][..], hash.as_byte_array(), &[OP_EQUAL]].concat();
    assert_eq!(verify(&[4, OP_1, 2, 0x4e, 0x73], &nested, &[], Flags::STANDARD), discouraged);
    assert_eq!(verify(&[4, OP_1, 2, 0x4e, 0x73], &nested, &[], Flags::MANDATORY), Ok(()));
}
