//! What an output script is by its form: the templates that policy and interfaces know. No rule asks for them.

use bitcoin::Script;

use super::interpreter::MAX_PUBKEYS_PER_MULTISIG;
use super::opcode::*;

/// What an output script is. Core: `TxoutType`, with what `Solver` finds in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template<'a> {
    /// None of the others.
    NonStandard,
    /// A public key and CHECKSIG.
    PubKey(&'a [u8]),
    /// The hash of a public key.
    PubKeyHash,
    /// The hash of a script (BIP16).
    ScriptHash,
    /// So many signatures of these keys, shown bare.
    Multisig(usize, Vec<&'a [u8]>),
    /// OP_RETURN and pushes.
    NullData,
    /// Pay to anchor: anyone's.
    Anchor,
    /// The hash of a public key (BIP141).
    WitnessV0KeyHash,
    /// The hash of a script (BIP141).
    WitnessV0ScriptHash,
    /// A tweaked key (BIP341).
    WitnessV1Taproot(&'a [u8]),
    /// A witness program that means nothing yet.
    WitnessUnknown,
}

impl Template<'_> {
    /// Core: `Solver`.
    pub fn of(script: &Script) -> Template<'_> {
        let bytes = script.as_bytes();
        if is_p2sh(bytes) {
            return Template::ScriptHash;
        }
        match (witness_program(bytes), bytes) {
            (Some((0, program)), _) => match program.len() {
                20 => Template::WitnessV0KeyHash,
                32 => Template::WitnessV0ScriptHash,
                _ => Template::NonStandard,
            },
            (Some((1, program)), _) if program.len() == 32 => Template::WitnessV1Taproot(program),
            (Some((1, [0x4e, 0x73])), _) => Template::Anchor,
            (Some(_), _) => Template::WitnessUnknown,
            (None, [OP_RETURN, rest @ ..]) if is_push_only(rest) => Template::NullData,
            (None, [length @ (33 | 65), key @ .., OP_CHECKSIG]) if key.len() == usize::from(*length) && is_key(key) => {
                Template::PubKey(key)
            }
            (None, [OP_DUP, OP_HASH160, 20, hash @ .., OP_EQUALVERIFY, OP_CHECKSIG]) if hash.len() == 20 => {
                Template::PubKeyHash
            }
            _ => multisig(bytes).map_or(Template::NonStandard, |(required, keys)| Template::Multisig(required, keys)),
        }
    }

    /// Core: `GetTxnOutputType`.
    pub fn name(&self) -> &'static str {
        match self {
            Template::NonStandard => "nonstandard",
            Template::PubKey(_) => "pubkey",
            Template::PubKeyHash => "pubkeyhash",
            Template::ScriptHash => "scripthash",
            Template::Multisig(..) => "multisig",
            Template::NullData => "nulldata",
            Template::Anchor => "anchor",
            Template::WitnessV0KeyHash => "witness_v0_keyhash",
            Template::WitnessV0ScriptHash => "witness_v0_scripthash",
            Template::WitnessV1Taproot(_) => "witness_v1_taproot",
            Template::WitnessUnknown => "witness_unknown",
        }
    }
}

/// Whether the length is that which the first byte asks for. Core: `CPubKey::ValidSize`.
fn is_key(key: &[u8]) -> bool {
    matches!((key.first(), key.len()), (Some(2 | 3), 33) | (Some(4 | 6 | 7), 65))
}

/// Number of signatures and the keys. Core: `MatchMultisig`.
fn multisig(script: &[u8]) -> Option<(usize, Vec<&[u8]>)> {
    let script = script.strip_suffix(&[OP_CHECKMULTISIG])?;
    let mut ops = Cursor::new(script);
    let small = |op: Op<'_>, least: usize| {
        let number = match (op.code, op.data) {
            (OP_1..=OP_16, _) => usize::from(op.code - OP_1) + 1,
            (_, [number @ 17..=0x7f]) if is_minimal_push(op) => usize::from(*number),
            _ => return None,
        };
        (least..=MAX_PUBKEYS_PER_MULTISIG).contains(&number).then_some(number)
    };
    let required = small(ops.next()?.ok()?, 1)?;
    let mut keys = Vec::new();
    loop {
        let op = ops.next()?.ok()?;
        if is_key(op.data) {
            keys.push(op.data);
            continue;
        }
        let whole = small(op, required)? == keys.len() && ops.next().is_none();
        return whole.then_some((required, keys));
    }
}
