//! How many signature operations scripts count for, as the limits of blocks and policy take them. Executes nothing.

use bitcoin::{Script, Witness};

use super::flags::Flags;
use super::interpreter::MAX_PUBKEYS_PER_MULTISIG;
use super::opcode::*;

/// The signature operations in `script`, up to a push beyond its end. `accurate` counts a CHECKMULTISIG as the small
/// number before it says; else, and without one, as 20 (Core's `CScript::GetSigOpCount`).
pub fn legacy_sigops(script: &Script, accurate: bool) -> u32 {
    count(script.as_bytes(), accurate)
}

fn count(script: &[u8], accurate: bool) -> u32 {
    let mut sum = 0;
    let mut before = OP_INVALIDOPCODE;
    for op in Cursor::new(script).map_while(Result::ok) {
        sum += match op.code {
            OP_CHECKSIG | OP_CHECKSIGVERIFY => 1,
            OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY => match before {
                OP_1..=OP_16 if accurate => u32::from(before - OP_1) + 1,
                _ => MAX_PUBKEYS_PER_MULTISIG as u32,
            },
            _ => 0,
        };
        before = op.code;
    }
    sum
}

/// The signature operations in the script that a P2SH output commits to and `script_sig` pushes last; none for other
/// outputs (BIP16; Core's `GetP2SHSigOpCount`, for one input).
pub fn p2sh_sigops(script_sig: &Script, script_pubkey: &Script) -> u32 {
    redeem_script(script_sig, script_pubkey).map_or(0, |redeem| count(redeem, true))
}

/// The signature operations that an input's witness counts for (BIP141; Core's `CountWitnessSigOps`). None in taproot,
/// which pays for them by weight.
pub fn witness_sigops(script_sig: &Script, script_pubkey: &Script, witness: &Witness, flags: Flags) -> u32 {
    if !flags.contains(Flags::WITNESS) {
        return 0;
    }
    let program = witness_program(script_pubkey.as_bytes())
        .or_else(|| redeem_script(script_sig, script_pubkey).and_then(witness_program));
    match program {
        Some((0, program)) if program.len() == 20 => 1,
        Some((0, program)) if program.len() == 32 => witness.last().map_or(0, |script| count(script, true)),
        _ => 0,
    }
}

/// What the last operation of `script_sig` pushes, if the output is P2SH and `script_sig` only pushes. A small number
/// counts as an empty push.
fn redeem_script<'a>(script_sig: &'a Script, script_pubkey: &Script) -> Option<&'a [u8]> {
    if !is_p2sh(script_pubkey.as_bytes()) {
        return None;
    }
    let mut last = &[][..];
    for op in Cursor::new(script_sig.as_bytes()) {
        let op = op.ok().filter(|op| op.code <= OP_16)?;
        last = op.data;
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(bytes: &[u8]) -> &Script {
        Script::from_bytes(bytes)
    }

    #[test]
    fn multisig_counts_its_keys_only_when_a_small_number_says_so() {
        let multisig = [OP_CHECKSIG, OP_3, OP_CHECKMULTISIG, OP_NOP, OP_CHECKMULTISIGVERIFY];
        assert_eq!(legacy_sigops(script(&multisig), false), 41);
        assert_eq!(legacy_sigops(script(&multisig), true), 24);
        assert_eq!(legacy_sigops(script(&[OP_CHECKSIG, 5, OP_CHECKSIG]), true), 1, "counting stops at a cut push");
    }

    #[test]
    fn p2sh_counts_the_last_push_of_a_pushing_unlock() {
        let output = [&[OP_HASH160, 20][..], &[0; 20], &[OP_EQUAL]].concat();
        let (redeem, taken) = ([1, OP_CHECKSIG], [1, OP_CHECKSIG, OP_NOP]);
        assert_eq!(p2sh_sigops(script(&redeem), script(&output)), 1);
        assert_eq!(p2sh_sigops(script(&taken), script(&output)), 0, "an operation that does not push");
        assert_eq!(p2sh_sigops(script(&[1, OP_CHECKSIG, OP_1]), script(&output)), 0, "a small number pushes nothing");
        assert_eq!(p2sh_sigops(script(&redeem), script(&[OP_1])), 0, "not P2SH");
    }

    #[test]
    fn witness_programs_of_version_0_count_their_script_also_behind_p2sh() {
        let (key, hash) = ([&[OP_0, 20][..], &[1; 20]].concat(), [&[OP_0, 32][..], &[1; 32]].concat());
        let witness = Witness::from_slice(&[&[OP_CHECKSIG, OP_CHECKSIG][..]]);
        let p2sh = [&[OP_HASH160, 20][..], &[0; 20], &[OP_EQUAL]].concat();
        let nested = [&[34][..], &hash].concat();
        let count = |sig: &[u8], output: &[u8], flags| witness_sigops(script(sig), script(output), &witness, flags);
        assert_eq!(count(&[], &key, Flags::MANDATORY), 1);
        assert_eq!(count(&[], &hash, Flags::MANDATORY), 2);
        assert_eq!(count(&nested, &p2sh, Flags::MANDATORY), 2);
        assert_eq!(count(&[], &key, Flags::P2SH), 0, "before segwit");
        assert_eq!(count(&[], &[&[OP_1, 32][..], &[1; 32]].concat(), Flags::MANDATORY), 0, "taproot");
    }
}
