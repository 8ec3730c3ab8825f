//! Methods that make transactions to be signed in parts (BIP174, BIP370). Core: `src/rpc/rawtransaction.cpp`, `src/psbt.h`.
//! Writes version 2 as Core does by default, and version 0; reads none.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::{ScriptBuf, Transaction, Witness};

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::method::{Answer, Method, answer};
use super::rawtransactions::{CREATE, construct, decode_transaction, without_witness_bytes};

const VERSION: Arg = Arg::optional("psbt_version", Kind::Number, "0 or 2; default 2.");

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "converttopsbt",
        group: "rawtransactions",
        args: &[
            Arg::required("hexstring", Kind::Hex, "The transaction."),
            Arg::optional("permitsigdata", Kind::Bool, "Whether signatures may be there; they are left out."),
            Arg::optional("iswitness", Kind::Bool, "Whether it has a witness; otherwise both are tried."),
            VERSION,
        ],
        about: "Makes a PSBT of a transaction.",
        run: converttopsbt,
    },
    Method {
        name: "createpsbt",
        group: "rawtransactions",
        args: &[CREATE[0], CREATE[1], CREATE[2], CREATE[3], CREATE[4], VERSION],
        about: "Makes a PSBT that nobody has signed.",
        run: createpsbt,
    },
];

fn createpsbt(rpc: &Rpc, args: &Args) -> Answer {
    let tx = construct(rpc, args)?;
    answer(blank(&tx, version(args, 5)?))
}

fn converttopsbt(_: &Rpc, args: &Args) -> Answer {
    let refuse = |text| RpcError::new(RPC_DESERIALIZATION_ERROR, text);
    let tx = decode_transaction(args.text(0).unwrap_or_default(), args.bool(2));
    let mut tx = tx.ok_or_else(|| refuse("TX decode failed"))?;
    for input in &mut tx.input {
        let signed = !input.script_sig.is_empty() || !input.witness.is_empty();
        if signed && args.bool(1) != Some(true) {
            return Err(refuse("Inputs must not have scriptSigs and scriptWitnesses"));
        }
        (input.script_sig, input.witness) = (ScriptBuf::new(), Witness::new());
    }
    answer(blank(&tx, version(args, 3)?))
}

fn version(args: &Args, at: usize) -> Result<u32, RpcError> {
    let text = "The PSBT version can only be 2 or 0";
    let version = args.int::<u32>(at)?.unwrap_or(2);
    if matches!(version, 0 | 2) { Ok(version) } else { Err(RpcError::new(RPC_INVALID_PARAMETER, text)) }
}

// Types of keys, with Core's names and values.
const PSBT_GLOBAL_UNSIGNED_TX: u8 = 0x00;
const PSBT_GLOBAL_TX_VERSION: u8 = 0x02;
const PSBT_GLOBAL_FALLBACK_LOCKTIME: u8 = 0x03;
const PSBT_GLOBAL_INPUT_COUNT: u8 = 0x04;
const PSBT_GLOBAL_OUTPUT_COUNT: u8 = 0x05;
const PSBT_GLOBAL_VERSION: u8 = 0xfb;
const PSBT_IN_PREVIOUS_TXID: u8 = 0x0e;
const PSBT_IN_OUTPUT_INDEX: u8 = 0x0f;
const PSBT_IN_SEQUENCE: u8 = 0x10;
const PSBT_OUT_AMOUNT: u8 = 0x03;
const PSBT_OUT_SCRIPT: u8 = 0x04;

/// A PSBT that says nothing but the transaction, in base64.
fn blank(tx: &Transaction, version: u32) -> String {
    let mut bytes = b"psbt\xff".to_vec();
    let mut map = |pairs: &[(u8, Vec<u8>)]| {
        for (key, value) in pairs {
            bytes.extend([1, *key]);
            bytes.extend(serialize(value));
        }
        bytes.push(0);
    };
    if version == 0 {
        map(&[(PSBT_GLOBAL_UNSIGNED_TX, without_witness_bytes(tx))]);
        (0..tx.input.len() + tx.output.len()).for_each(|_| map(&[]));
        return BASE64_STANDARD.encode(bytes);
    }
    let count = |count: usize| serialize(&VarInt::from(count));
    map(&[
        (PSBT_GLOBAL_TX_VERSION, serialize(&tx.version)),
        (PSBT_GLOBAL_FALLBACK_LOCKTIME, serialize(&tx.lock_time)),
        (PSBT_GLOBAL_INPUT_COUNT, count(tx.input.len())),
        (PSBT_GLOBAL_OUTPUT_COUNT, count(tx.output.len())),
        (PSBT_GLOBAL_VERSION, serialize(&version)),
    ]);
    for input in &tx.input {
        map(&[
            (PSBT_IN_PREVIOUS_TXID, serialize(&input.previous_output.txid)),
            (PSBT_IN_OUTPUT_INDEX, serialize(&input.previous_output.vout)),
            (PSBT_IN_SEQUENCE, serialize(&input.sequence)),
        ]);
    }
    for output in &tx.output {
        map(&[(PSBT_OUT_AMOUNT, serialize(&output.value)), (PSBT_OUT_SCRIPT, output.script_pubkey.to_bytes())]);
    }
    BASE64_STANDARD.encode(bytes)
}
