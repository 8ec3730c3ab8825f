//! Proofs that an address is one's own ([BIP-0322], simple form): a signature over a transaction that can never be in a
//! block, judged by the same script engine as real ones.
//!
//! [BIP-0322]: https://github.com/bitcoin/bips/blob/master/bip-0322.mediawiki

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bdk_wallet::miniscript::psbt::PsbtInputExt;
use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::opcodes::OP_0;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::psbt::Psbt;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use groat_chain::coins::Coin;
use groat_chain::script::{Flags, Sighashes, verify_input};
use serde_json::json;

use crate::build;
use crate::error::{Doing, Result, failed};
use crate::network::Network;
use crate::session::Session;

/// How a signature of the simple form begins.
const PREFIX: &str = "smp";
/// How those of the other two forms begin, and what they are.
const OTHER_FORMS: [(&str, &str); 2] = [("ful", "of the full form, a whole transaction"), ("pof", "a proof of funds")];
/// Tag of the hash of a message.
const TAG: &[u8] = b"BIP0322-signed-message";

/// The hash that is signed, in the way of BIP340.
fn message_hash(message: &[u8]) -> sha256::Hash {
    let tag = sha256::Hash::hash(TAG);
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_byte_array());
    engine.input(tag.as_byte_array());
    engine.input(message);
    sha256::Hash::from_engine(engine)
}

/// `to_spend`: holds the message, and pays nothing to the address's script.
fn to_spend(script: &Script, message: &[u8]) -> Transaction {
    let hash = message_hash(message);
    transaction(
        TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_opcode(OP_0).push_slice(hash.as_byte_array()).into_script(),
            sequence: Sequence::ZERO,
            witness: Witness::new(),
        },
        script.to_owned(),
    )
}

/// `to_sign`: spends that.
fn to_sign(spend: &Transaction, witness: Witness) -> Transaction {
    let previous_output = OutPoint::new(spend.compute_txid(), 0);
    let input = TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::ZERO, witness };
    transaction(input, Builder::new().push_opcode(OP_RETURN).into_script())
}

fn transaction(input: TxIn, script_pubkey: ScriptBuf) -> Transaction {
    let output = TxOut { value: Amount::ZERO, script_pubkey };
    Transaction { version: Version(0), lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
}

/// Whether this witness proves it.
fn proves(script: &Script, message: &[u8], witness: Witness) -> bool {
    let spend = to_spend(script, message);
    let sign = to_sign(&spend, witness);
    let spent = [Coin::new(&spend.output[0], 0, false)];
    verify_input(&Sighashes::new(&sign, &spent), 0, Flags::STANDARD, None).is_ok()
}

/// `groat sign-message`.
pub fn sign(session: &Session, address: &str, message: &str) -> Result<()> {
    let address = session.network.parse_address(address)?;
    let store = session.open()?;
    let script = address.script_pubkey();
    let Some((keychain, index)) = store.wallet.derivation_of_spk(script.clone()) else {
        return Err(failed(format!(
            "{address} is not an address of wallet {:?}: `groat addresses` shows them",
            store.name
        )));
    };
    let account = store.account(&session.network, &session.prompt)?;
    let descriptor = store.wallet.public_descriptor(keychain).at_derivation_index(index).doing("derive the address")?;
    let spend = to_spend(&script, message.as_bytes());
    let mut psbt = Psbt::from_unsigned_tx(to_sign(&spend, Witness::new())).doing("make the proof")?;
    psbt.inputs[0].witness_utxo = Some(spend.output[0].clone());
    psbt.inputs[0].non_witness_utxo = Some(spend);
    psbt.inputs[0].update_with_descriptor_unchecked(&descriptor).doing("make the proof")?;
    build::sign(&account, &mut psbt)?;
    let signed = build::finalize(&mut psbt)?;
    let signature = format!("{PREFIX}{}", STANDARD.encode(encode::serialize(&signed.input[0].witness)));
    let value = json!({"address": address.to_string(), "message": message, "signature": signature});
    session.show(&value, || signature.clone());
    Ok(())
}

/// Fails unless `signature` is one of `address` over `message`. Older ones have no prefix.
fn check(network: &Network, address: &str, message: &str, signature: &str) -> Result<()> {
    let script = network.parse_script(address)?;
    let signature = signature.trim();
    if let Some((prefix, form)) = OTHER_FORMS.iter().find(|(prefix, _)| signature.starts_with(prefix)) {
        return Err(failed(format!(
            "this signature is {form} (BIP322, {prefix:?}), which is not supported: ask for one of the simple form ({PREFIX:?})"
        )));
    }
    if script.witness_version().is_none() {
        return Err(failed(format!(
            "{address} is neither a segwit nor a taproot address, and signatures of older ones are not supported \
             (BIP322's full form, and `signmessage` of Bitcoin Core, which `groat rpc verifymessage` checks)"
        )));
    }
    let bytes = STANDARD.decode(signature.strip_prefix(PREFIX).unwrap_or(signature));
    let bytes = bytes.map_err(|_| failed("the signature is not base64: copy it again"))?;
    let witness: Witness =
        encode::deserialize(&bytes).map_err(|_| failed("the signature is not one of BIP322's simple form"))?;
    if !proves(&script, message.as_bytes(), witness) {
        return Err(failed("the signature is NOT one of this address over this message"));
    }
    Ok(())
}

/// `groat verify-message`.
pub fn verify(session: &Session, address: &str, message: &str, signature: &str) -> Result<()> {
    check(&session.network, address, message, signature)?;
    session.show(&json!({"valid": true}), || format!("Good: whoever has {address} has signed this."));
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;

    const ADDRESS: &str = "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l";

    #[test]
    fn a_signature_holds_for_its_message_alone() {
        let main = Network::load("main").unwrap();
        // From the text of the BIP.
        let empty = "AkcwRAIgM2gBAQqvZX15ZiysmKmQpDrG83avLIT492QBzLnQIxYCIBaTpOaD20qRlEylyxFSeEA2ba9YOixpX8z46TSDtS40ASECx/EgAxlkQpQ9hYjgGu6EBCPMVPwVIVJqO4XCsMvViHI=";
        check(&main, ADDRESS, "", empty).unwrap();
        check(&main, ADDRESS, "", &format!("smp{empty}")).unwrap();
        assert!(check(&main, ADDRESS, "Hello World", empty).unwrap_err().to_string().contains("NOT"));
    }

    #[test]
    fn bip322_vectors_pass() {
        let Some(top) = std::env::var_os("GROAT_DATA") else {
            eprintln!("SKIPPED: GROAT_DATA names no folder with the vectors of BIP322");
            return;
        };
        let main = Network::load("main").unwrap();
        for name in ["basic", "generated"] {
            let path = PathBuf::from(&top).join(format!("vectors-bips/bip-0322/{name}-test-vectors.json"));
            let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
            for vector in vectors["tx_hashes"].as_array().into_iter().flatten() {
                let message = text(vector, "message");
                assert_eq!(message_hash(message.as_bytes()).to_string(), text(vector, "message_hash"), "{message:?}");
                let spend = to_spend(&main.parse_script(&text(vector, "address")).unwrap(), message.as_bytes());
                assert_eq!(spend.compute_txid().to_string(), text(vector, "to_spend_tx_hash"), "{message:?}");
                let sign = to_sign(&spend, Witness::new());
                assert_eq!(sign.compute_txid().to_string(), text(vector, "to_sign_tx_hash"), "{message:?}");
            }
            let simple = vectors["simple"].as_array().unwrap();
            assert_eq!(simple.len(), 4, "expected: four signatures of the simple form");
            for vector in simple {
                for signature in vector["bip322_signatures"].as_array().unwrap() {
                    let (address, signature) = (text(vector, "address"), signature.as_str().unwrap());
                    check(&main, &address, &text(vector, "message"), signature)
                        .unwrap_or_else(|error| panic!("{address} {signature}: {error}"));
                }
            }
            for vector in vectors["error"].as_array().unwrap() {
                let done = check(&main, &text(vector, "address"), &text(vector, "message"), &text(vector, "signature"));
                assert!(done.is_err(), "{} was taken", vector["description"]);
            }
        }
    }
}
