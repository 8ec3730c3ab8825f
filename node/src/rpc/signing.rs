//! Methods that sign transactions with keys of the call, or join signatures. Core: `src/rpc/rawtransaction.cpp`,
//! `src/rpc/rawtransaction_util.cpp`.

use std::collections::BTreeMap;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxIn, Txid, Witness};
use groat_chain::coins::Coin;
use groat_chain::script::{ScriptError, Sighashes};
use hex::DisplayHex;
use serde::Serialize;
use serde_json::Value;

use super::Rpc;
use super::amount::amount;
use super::args::{Arg, Args, Kind, hash, text, type_name};
use super::coins::find;
use super::error::*;
use super::keyexpr::private_key;
use super::method::{Answer, Method, answer};
use super::number::Btc;
use super::rawtransactions::decode_transaction;
use super::script::asm;
use super::sign::{Keys, Satisfaction, Signer, UNKNOWN_AMOUNT};

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "combinerawtransaction",
        group: "rawtransactions",
        args: &[Arg::required("txs", Kind::Array("\"hexstring\""), "The same transaction, signed in part.")],
        about: "Joins the signatures of a transaction's copies, as hex.",
        run: combinerawtransaction,
    },
    Method {
        name: "signrawtransactionwithkey",
        group: "rawtransactions",
        args: &[
            Arg::required("hexstring", Kind::Text, "The transaction."),
            Arg::required("privkeys", Kind::Array("\"privatekey\""), "Private keys to sign with, and no others."),
            Arg::optional(
                "prevtxs",
                Kind::Array(PREVTX),
                "Outputs it spends that no block holds yet, with their scripts.",
            ),
            Arg::optional("sighashtype", Kind::Text, "What signatures commit to; DEFAULT in taproot, ALL otherwise."),
        ],
        about: "Signs a transaction, as far as the keys go.",
        run: signrawtransactionwithkey,
    },
];

const PREVTX: &str = "{\"txid\":\"hex\",\"vout\":n,\"scriptPubKey\":\"hex\",\"redeemScript\":\"hex\",\
                      \"witnessScript\":\"hex\",\"amount\":amount}";

fn signrawtransactionwithkey(rpc: &Rpc, args: &Args) -> Answer {
    let node = rpc.node()?;
    let tx = decode_transaction(args.text(0).unwrap_or_default(), None).ok_or_else(|| {
        let text = "TX decode failed. Make sure the tx has at least one input.";
        RpcError::new(RPC_DESERIALIZATION_ERROR, text)
    })?;
    let mut keys = Keys::default();
    for given in args.get(1).as_array().map(Vec::as_slice).unwrap_or_default() {
        let key = private_key(text(given)?, node.params().address_set.kind());
        keys.add_key(key.ok_or_else(|| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Invalid private key"))?);
    }
    let outpoints: Vec<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
    let found = find(node, outpoints.clone())?;
    let mut coins: BTreeMap<OutPoint, Coin> =
        outpoints.into_iter().zip(found).filter_map(|(outpoint, coin)| Some((outpoint, coin?))).collect();
    for given in args.get(2).as_array().map(Vec::as_slice).unwrap_or_default() {
        let (outpoint, coin) = previous_output(given, &mut keys, &coins)?;
        coins.insert(outpoint, coin);
    }
    answer(sign(tx, &keys, &coins, sighash_type(args.text(3))?)?)
}

/// Core: `SighashFromStr`.
pub fn sighash_type(given: Option<&str>) -> Result<u8, RpcError> {
    Ok(match given.unwrap_or("DEFAULT") {
        "DEFAULT" => 0,
        "ALL" => 1,
        "NONE" => 2,
        "SINGLE" => 3,
        "ALL|ANYONECANPAY" => 0x81,
        "NONE|ANYONECANPAY" => 0x82,
        "SINGLE|ANYONECANPAY" => 0x83,
        other => {
            let text = format!("'{other}' is not a valid sighash parameter.");
            return Err(RpcError::new(RPC_INVALID_PARAMETER, text));
        }
    })
}

/// An output that a transaction spends; its scripts go to the keys. Core: `ParsePrevouts`.
fn previous_output(
    given: &Value,
    keys: &mut Keys,
    coins: &BTreeMap<OutPoint, Coin>,
) -> Result<(OutPoint, Coin), RpcError> {
    let broken = |text: String| RpcError::new(RPC_DESERIALIZATION_ERROR, text);
    let refuse = |text: &str| RpcError::new(RPC_INVALID_PARAMETER, text);
    if !given.is_object() {
        return Err(broken("expected object with {\"txid'\",\"vout\",\"scriptPubKey\"}".into()));
    }
    let field = |name: &str, expected: &str, needed: bool| {
        let value = given.get(name).unwrap_or(&Value::Null);
        let refuse = |text| Err(RpcError::new(RPC_TYPE_ERROR, text));
        match type_name(value) {
            "null" if needed => refuse(format!("Missing {name}")),
            found if found != expected && (needed || found != "null") => {
                refuse(format!("JSON value of type {found} for field {name} is not of expected type {expected}"))
            }
            _ => Ok(value),
        }
    };
    let script = field("scriptPubKey", "string", true)?;
    let (txid, vout) = (field("txid", "string", true)?, field("vout", "number", true)?);
    let txid: Txid = hash(text(txid)?, "txid")?;
    let vout = vout.as_i64().and_then(|vout| i32::try_from(vout).ok());
    let vout = vout.ok_or_else(|| RpcError::new(RPC_MISC_ERROR, "JSON integer out of range"))?;
    let vout = u32::try_from(vout).map_err(|_| broken("vout cannot be negative".into()))?;
    let outpoint = OutPoint::new(txid, vout);
    let script_pubkey = script_in_hex(text(script)?, "scriptPubKey")?;
    if let Some(coin) = coins.get(&outpoint).filter(|coin| *coin.script_pubkey() != *script_pubkey) {
        let (known, told) = (asm(coin.script_pubkey(), false), asm(&script_pubkey, false));
        return Err(broken(format!("Previous output scriptPubKey mismatch:\n{known}\nvs:\n{told}")));
    }
    let value = match given.get("amount") {
        Some(value) => amount(value)?.to_sat(),
        None => UNKNOWN_AMOUNT,
    };
    let coin = Coin::from_parts(value, script_pubkey.as_bytes(), 1, false);
    if !script_pubkey.is_p2sh() && !script_pubkey.is_p2wsh() {
        return Ok((outpoint, coin));
    }
    let (redeem, witness) = (field("redeemScript", "string", false)?, field("witnessScript", "string", false)?);
    let script = match (witness.as_str(), redeem.as_str()) {
        (None, None) => return Err(refuse("Missing redeemScript/witnessScript")),
        (Some(witness), _) => script_in_hex(witness, "witnessScript")?,
        (None, Some(redeem)) => script_in_hex(redeem, "redeemScript")?,
    };
    let wrapped = script.to_p2wsh();
    if let (Some(witness), Some(redeem)) = (witness.as_str(), redeem.as_str())
        && witness != redeem
        && script_in_hex(redeem, "redeemScript")? != wrapped
    {
        return Err(refuse("redeemScript does not correspond to witnessScript"));
    }
    let outputs = [script.to_p2sh(), wrapped.to_p2sh(), wrapped.clone()];
    if !outputs.contains(&script_pubkey) {
        return Err(refuse("redeemScript/witnessScript does not match scriptPubKey"));
    }
    keys.add_script(script);
    keys.add_script(wrapped);
    Ok((outpoint, coin))
}

/// Core: `ParseHexV`.
fn script_in_hex(hex: &str, name: &str) -> Result<ScriptBuf, RpcError> {
    let script = ScriptBuf::from_hex(hex).ok().filter(|_| !hex.is_empty());
    let text = || format!("{name} must be hexadecimal string (not '{hex}')");
    script.ok_or_else(|| RpcError::new(RPC_INVALID_PARAMETER, text()))
}

#[derive(Serialize)]
struct Signed {
    hex: String,
    complete: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<InputError>,
}

/// Why an input is not satisfied. Core: `TxInErrorToJSON`.
#[derive(Serialize)]
struct InputError {
    txid: String,
    vout: u32,
    witness: Vec<String>,
    #[serde(rename = "scriptSig")]
    script_sig: String,
    sequence: u32,
    error: String,
}

impl InputError {
    fn new(input: &TxIn, error: String) -> InputError {
        InputError {
            txid: input.previous_output.txid.to_string(),
            vout: input.previous_output.vout,
            witness: input.witness.iter().map(|element| element.to_lower_hex_string()).collect(),
            script_sig: input.script_sig.as_bytes().to_lower_hex_string(),
            sequence: input.sequence.0,
            error,
        }
    }
}

/// Core: `SignTransaction`.
fn sign(mut tx: Transaction, keys: &Keys, coins: &BTreeMap<OutPoint, Coin>, hash_type: u8) -> Result<Signed, RpcError> {
    let unsigned = tx.clone();
    let spent: Vec<Option<&Coin>> = tx.input.iter().map(|input| coins.get(&input.previous_output)).collect();
    let all_spent = spent.iter().all(Option::is_some);
    // What is not known stands for nothing: its input is left alone, and taproot is not signed then.
    let nothing = Coin::from_parts(0, &[], 0, false);
    let known: Vec<Coin> = spent.iter().map(|coin| coin.unwrap_or(&nothing).clone()).collect();
    let sighashes = Sighashes::new(&unsigned, &known);
    let outputs = tx.output.len();
    let mut errors = Vec::new();
    for (index, input) in tx.input.iter_mut().enumerate() {
        let Some(coin) = spent[index] else {
            errors.push(InputError::new(input, "Input not found or already spent".into()));
            continue;
        };
        let signer = Signer { keys, sighashes: &sighashes, index, hash_type, all_spent };
        let mut data = Satisfaction::of(&input.script_sig, &input.witness, &sighashes, index);
        // SINGLE needs an output at the input's place.
        if hash_type & 0x7f != 3 || index < outputs {
            signer.produce(&mut data);
        }
        (input.script_sig, input.witness) = (data.script_sig, data.witness);
        if coin.value().to_sat() == UNKNOWN_AMOUNT && !input.witness.is_empty() {
            let script = coin.script_pubkey().to_hex_string();
            let script = script.get(..30).unwrap_or(&script);
            let value = serde_json::to_string(&Btc(coin.value())).unwrap_or_default();
            let text = format!("Missing amount for CTxOut(nValue={value}, scriptPubKey={script})");
            return Err(RpcError::new(RPC_TYPE_ERROR, text));
        }
        if data.complete {
            continue;
        }
        if let Err(error) = signer.verify(&input.script_sig, &input.witness) {
            errors.push(InputError::new(input, why(error)));
        }
    }
    Ok(Signed { hex: serialize_hex(&tx), complete: errors.is_empty(), errors })
}

fn why(error: ScriptError) -> String {
    match error {
        ScriptError::InvalidStackOperation => {
            "Unable to sign input, invalid stack size (possibly missing key)".to_string()
        }
        ScriptError::SigNullFail => {
            "CHECK(MULTI)SIG failing with non-zero signature (possibly need more signatures)".to_string()
        }
        other => other.to_string(),
    }
}

fn combinerawtransaction(rpc: &Rpc, args: &Args) -> Answer {
    let broken = |text: String| RpcError::new(RPC_DESERIALIZATION_ERROR, text);
    let given = args.get(0).as_array().map(Vec::as_slice).unwrap_or_default();
    if given.len() < 2 {
        return Err(broken("Missing transactions. At least two transactions required.".into()));
    }
    let mut copies = Vec::new();
    for (number, given) in given.iter().enumerate() {
        let text = || format!("TX decode failed for tx {number}. Make sure the tx has at least one input.");
        copies.push(decode_transaction(self::text(given)?, None).ok_or_else(|| broken(text()))?);
    }
    let bare: Vec<Transaction> = copies.iter().map(without_signatures).collect();
    if let Some(other) = bare.iter().position(|copy| copy.compute_txid() != bare[0].compute_txid()) {
        let text = format!("Transaction number {} not compatible with first transaction", other + 1);
        return Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    }
    let found = find(rpc.node()?, copies[0].input.iter().map(|input| input.previous_output).collect())?;
    let spent = found.into_iter().collect::<Option<Vec<Coin>>>();
    let spent = spent.ok_or_else(|| RpcError::new(RPC_VERIFY_ERROR, "Input not found or already spent"))?;
    let sighashes = Sighashes::new(&bare[0], &spent);
    let mut whole = copies[0].clone();
    for (index, input) in whole.input.iter_mut().enumerate() {
        let mut data = Satisfaction::default();
        for copy in &copies {
            let copy = &copy.input[index];
            data.merge(Satisfaction::of(&copy.script_sig, &copy.witness, &sighashes, index));
        }
        let keys = Keys::default();
        Signer { keys: &keys, sighashes: &sighashes, index, hash_type: 1, all_spent: false }.produce(&mut data);
        (input.script_sig, input.witness) = (data.script_sig, data.witness);
    }
    answer(serialize_hex(&whole))
}

fn without_signatures(tx: &Transaction) -> Transaction {
    let mut tx = tx.clone();
    for input in &mut tx.input {
        (input.script_sig, input.witness) = (ScriptBuf::new(), Witness::new());
    }
    tx
}
