//! Any script, witness and flags give a verdict and no panic; and flags only ever forbid: what passes also
//! passes with any one flag less.
#![no_main]

use bitcoin::absolute::LockTime;
use bitcoin::key::{Secp256k1, TapTweak, XOnlyPublicKey};
use bitcoin::script::{PushBytesBuf, ScriptBuf};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TapNodeHash};
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, Witness, transaction::Version};
use groat_chain::coins::Coin;
use groat_chain::script::{Flags, Sighashes, verify_input};
use libfuzzer_sys::fuzz_target;

/// x of the generator: a key that anybody knows.
const INTERNAL_KEY: &str = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// What is spent and what spends it.
struct Spend {
    script_pubkey: ScriptBuf,
    script_sig: ScriptBuf,
    witness: Vec<Vec<u8>>,
}

impl Spend {
    /// Puts `script` behind the commitment that `kind` names, since no fuzzer finds the preimage of a hash.
    fn new(kind: u8, script: Vec<u8>, script_sig: Vec<u8>, mut witness: Vec<Vec<u8>>) -> Spend {
        let (script, mut script_sig) = (ScriptBuf::from_bytes(script), ScriptBuf::from_bytes(script_sig));
        let script_pubkey = match kind % 5 {
            0 => script,
            1 => {
                push(&mut script_sig, script.to_bytes());
                script.to_p2sh()
            }
            2 => {
                witness.push(script.to_bytes());
                script.to_p2wsh()
            }
            3 => {
                witness.push(script.to_bytes());
                push(&mut script_sig, script.to_p2wsh().into_bytes());
                script.to_p2wsh().to_p2sh()
            }
            _ => {
                let key: XOnlyPublicKey = INTERNAL_KEY.parse().expect("the generator lies on the curve");
                let leaf = TapNodeHash::from(TapLeafHash::from_script(&script, LeafVersion::TapScript));
                let (output, parity) = key.tap_tweak(&Secp256k1::verification_only(), Some(leaf));
                witness.push(script.into_bytes());
                let first = LeafVersion::TapScript.to_consensus() | parity.to_u8();
                witness.push([&[first][..], &key.serialize()].concat());
                ScriptBuf::new_p2tr_tweaked(output)
            }
        };
        Spend { script_pubkey, script_sig, witness }
    }

    /// A transaction whose second input is this spend, and the coins of both.
    fn transaction(&self) -> (Transaction, [Coin; 2]) {
        let input = |script_sig, witness: &[Vec<u8>]| TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence(2),
            witness: Witness::from_slice(witness),
        };
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(100),
            input: vec![input(ScriptBuf::new(), &[]), input(self.script_sig.clone(), &self.witness)],
            output: vec![TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) }],
        };
        let coin = |script: &ScriptBuf| Coin::from_parts(2, script.as_bytes(), 1, false);
        (transaction, [coin(&ScriptBuf::new()), coin(&self.script_pubkey)])
    }
}

/// Appends a push of `bytes`.
fn push(script: &mut ScriptBuf, bytes: Vec<u8>) {
    script.push_slice(PushBytesBuf::try_from(bytes).expect("no input is as long as a push can be"));
}

/// Takes a part off the front of `rest`: a length of one byte (the upper ones reach past the 520 bytes of an element),
/// then as much of it as there is.
fn part(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (&length, after) = rest.split_first()?;
    let length = if length < 200 { usize::from(length) } else { usize::from(length - 199) * 11 };
    let (part, after) = after.split_at(length.min(after.len()));
    *rest = after;
    Some(part.to_vec())
}

// Flags, the commitment, length of the witness, signature script, witness, script.
fuzz_target!(|bytes: &[u8]| {
    let Some((&[f0, f1, f2, f3, kind, length], mut rest)) = bytes.split_first_chunk() else { return };
    let script_sig = part(&mut rest).unwrap_or_default();
    let witness = (0..length % 8).map_while(|_| part(&mut rest)).collect();
    let spend = Spend::new(kind, rest.to_vec(), script_sig, witness);
    let (transaction, coins) = spend.transaction();
    let sighashes = Sighashes::new(&transaction, &coins);
    let flags = Flags::from_bits_truncate(u32::from_le_bytes([f0, f1, f2, f3])).with_needed();
    if verify_input(&sighashes, 1, flags, None).is_ok() {
        for (name, flag) in Flags::NAMED.iter().filter(|(_, flag)| flags.contains(*flag)) {
            let verdict = verify_input(&sighashes, 1, flags.without(*flag).without_unfounded(), None);
            assert_eq!(verdict, Ok(()), "valid under {flags:?}, but not without {name}");
        }
    }
});
