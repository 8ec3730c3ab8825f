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
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::opcodes::OP_0;
use bitcoin::psbt::Psbt;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use groat_chain::coins::Coin;
use groat_chain::script::{Flags, Sighashes, verify_input};
use serde_json::json;

use crate::build;
use crate::error::{Doing, Result, failed};
use crate::session::Session;

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
        return Err(failed(format!("{address} is not an address of wallet {:?}: `groat addresses` shows them", store.name)));
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
    let signature = STANDARD.encode(encode::serialize(&signed.input[0].witness));
    let value = json!({"address": address.to_string(), "message": message, "signature": signature});
    session.show(&value, || signature.clone());
    Ok(())
}

/// `groat verify-message`.
pub fn verify(session: &Session, address: &str, message: &str, signature: &str) -> Result<()> {
    let script = session.network.parse_script(address)?;
    if script.witness_version().is_none() {
        return Err(failed("only segwit and taproot addresses have such proofs here (BIP322, simple form)"));
    }
    let bytes = STANDARD.decode(signature.trim()).map_err(|_| failed("the signature is not base64: copy it again"))?;
    let witness: Witness =
        encode::deserialize(&bytes).map_err(|_| failed("the signature is not one of BIP322's simple form"))?;
    if !proves(&script, message.as_bytes(), witness) {
        return Err(failed("the signature is NOT one of this address over this message"));
    }
    session.show(&json!({"valid": true}), || format!("Good: whoever has {address} has signed this."));
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;
    use crate::network::Network;

    const ADDRESS: &str = "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l";

    fn check(message: &str, signature: &str) -> bool {
        let script = Network::load("main").unwrap().parse_script(ADDRESS).unwrap();
        let witness: Witness = encode::deserialize(&STANDARD.decode(signature).unwrap()).unwrap();
        proves(&script, message.as_bytes(), witness)
    }

    #[test]
    fn the_vectors_of_the_bip_hold() {
        let hash = |text: &str| message_hash(text.as_bytes()).to_byte_array();
        let hex = |text: &str| <[u8; 32] as hex::FromHex>::from_hex(text).unwrap();
        assert_eq!(hash(""), hex("c90c269c4f8fcbe6880f72a721ddfbf1914268a794cbb21cfafee13770ae19f1"));
        assert_eq!(hash("Hello World"), hex("f0eb03b1a75ac6d9847f55c624a99169b5dccba2a31f5b23bea77ba270de0a7a"));
        let script = Network::load("main").unwrap().parse_script(ADDRESS).unwrap();
        let spend = to_spend(&script, b"");
        assert_eq!(spend.compute_txid().to_string(), "c5680aa69bb8d860bf82d4e9cd3504b55dde018de765a91bb566283c545a99a7");
        let sign = to_sign(&spend, Witness::new());
        assert_eq!(sign.compute_txid().to_string(), "1e9654e951a5ba44c8604c4de6c67fd78a27e81dcadcfe1edf638ba3aaebaed6");
        let empty = "AkcwRAIgM2gBAQqvZX15ZiysmKmQpDrG83avLIT492QBzLnQIxYCIBaTpOaD20qRlEylyxFSeEA2ba9YOixpX8z46TSDtS40ASECx/EgAxlkQpQ9hYjgGu6EBCPMVPwVIVJqO4XCsMvViHI=";
        assert!(check("", empty));
        assert!(!check("Hello World", empty), "expected: a signature holds for its message alone");
    }
}
