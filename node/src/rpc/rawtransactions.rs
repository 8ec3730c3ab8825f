//! Methods on single transactions: shown, found, made. Core: `src/rpc/rawtransaction.cpp`.

use std::collections::BTreeSet;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::Decodable;
use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, opcodes, transaction,
};
use groat_chain::block::{self, Block};
use groat_chain::index::{Index, transactions};
use groat_chain::mempool::policy::{TX_MAX_STANDARD_VERSION, TX_MIN_STANDARD_VERSION};
use groat_chain::store::codec;
use groat_chain::tree::Id;
use hex::{DisplayHex, FromHex};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Rpc;
use super::amount::amount;
use super::args::{Arg, Args, Kind, hash, text, wrong_type};
use super::error::*;
use super::method::{Answer, Method, answer};
use super::script::from_address;
use super::show::TransactionView;
use crate::handle::NodeHandle;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "createrawtransaction",
        group: "rawtransactions",
        args: CREATE,
        about: "Makes a transaction without signatures, as hex.",
        run: createrawtransaction,
    },
    Method {
        name: "decoderawtransaction",
        group: "rawtransactions",
        args: &[
            Arg::required("hexstring", Kind::Hex, "The transaction."),
            Arg::optional("iswitness", Kind::Bool, "Whether it has a witness; otherwise both are tried."),
        ],
        about: "Shows a transaction.",
        run: decoderawtransaction,
    },
    Method {
        name: "getrawtransaction",
        group: "rawtransactions",
        args: &[
            Arg::required("txid", Kind::Hex, "The transaction's id."),
            Arg::optional(
                "verbosity|verbose",
                Kind::Loose("verbosity"),
                "0: hex; 1: shown; 2: with its fee and what it spends.",
            ),
            Arg::optional(
                "blockhash",
                Kind::Hex,
                "The block that holds it; otherwise the mempool and the index are looked at.",
            ),
        ],
        about: "A transaction of the mempool, of a block that is named, or with -txindex of any block.",
        run: getrawtransaction,
    },
];

/// What transactions are made of.
pub const CREATE: &[Arg; 5] = &[
    Arg::required("inputs", Kind::Array("{\"txid\":\"hex\",\"vout\":n,\"sequence\":n}"), "The outputs to spend."),
    Arg::required("outputs", OUTPUTS, "Addresses with amounts in BTC, or \"data\" with hex."),
    Arg::optional("locktime", Kind::Number, "Height or time before which no block may hold it; default 0."),
    Arg::optional("replaceable", Kind::Bool, "Whether it says that it may be replaced (BIP125); default true."),
    Arg::optional("version", Kind::Number, "Its version; default 2."),
];

const OUTPUTS: Kind = Kind::Loose("[{\"address\":amount,...},{\"data\":\"hex\"},...]");

/// Reads a transaction from hex: with the witness if that works, else without. `witness`: which of both it must be.
/// Core: `DecodeHexTx`.
pub fn decode_transaction(text: &str, witness: Option<bool>) -> Option<Transaction> {
    let bytes = Vec::from_hex(text).ok()?;
    let whole = |read: fn(&mut &[u8]) -> Option<Transaction>| {
        let mut rest = &bytes[..];
        read(&mut rest).filter(|_| rest.is_empty())
    };
    let with = |rest: &mut &[u8]| block::decode_transaction(rest).ok();
    let extended = if witness == Some(false) { None } else { whole(with) };
    extended.or_else(|| if witness == Some(true) { None } else { whole(without_witness) })
}

/// Also one without inputs, which the extended form cannot say.
fn without_witness(rest: &mut &[u8]) -> Option<Transaction> {
    Some(Transaction {
        version: Decodable::consensus_decode(rest).ok()?,
        input: Decodable::consensus_decode(rest).ok()?,
        output: Decodable::consensus_decode(rest).ok()?,
        lock_time: Decodable::consensus_decode(rest).ok()?,
    })
}

fn decoderawtransaction(rpc: &Rpc, args: &Args) -> Answer {
    let tx = decode_transaction(args.text(0).unwrap_or_default(), args.bool(1))
        .ok_or_else(|| RpcError::new(RPC_DESERIALIZATION_ERROR, "TX decode failed"))?;
    let addresses = rpc.node()?.params().address_set;
    let ids = (tx.compute_txid(), tx.compute_wtxid());
    answer(TransactionView::new(&tx, (&ids.0, &ids.1), None, false, addresses).without_hex())
}

/// Core: `TxToJSON`.
#[derive(Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    in_active_chain: Option<bool>,
    #[serde(flatten)]
    transaction: TransactionView,
    #[serde(skip_serializing_if = "Option::is_none")]
    blockhash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmations: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocktime: Option<u32>,
}

fn getrawtransaction(rpc: &Rpc, args: &Args) -> Answer {
    let refuse = |text: &str| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, text);
    let txid: Txid = args.hash_called(0, "parameter 1")?;
    let node = rpc.node()?;
    let params = node.params();
    if params.genesis.txdata.iter().any(|coinbase| coinbase.compute_txid() == txid) {
        return Err(refuse(
            "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved",
        ));
    }
    let verbosity = match args.get(1) {
        Value::Bool(verbose) => i32::from(*verbose),
        _ => args.int::<i32>(1)?.unwrap_or(0),
    };
    let named = !args.get(2).is_null();
    let (id, tx) = if named {
        let hash: BlockHash = args.hash_called(2, "parameter 3")?;
        let id = node.tree().read().get(&hash).ok_or_else(|| refuse("Block hash not found"))?;
        let mut block = stored_block(rpc, id)?;
        let Some(number) = block.txids.iter().position(|other| *other == txid) else {
            return Err(refuse(
                "No such transaction found in the provided block. Use gettransaction for wallet transactions.",
            ));
        };
        (id, block.transactions.swap_remove(number))
    } else {
        let pool = node.mempool().read();
        if let Some(entry) = pool.get(&txid) {
            if verbosity <= 0 {
                return answer(serialize_hex(&*entry.tx));
            }
            let ids = (&entry.txid, &entry.wtxid);
            return answer(TransactionView::new(&entry.tx, ids, None, false, params.address_set));
        }
        drop(pool);
        indexed(node, &txid)?
    };
    if verbosity <= 0 {
        return answer(serialize_hex(&tx));
    }
    let spent = if verbosity > 1 && !tx.is_coinbase() { spent_by(rpc, id, &txid)? } else { None };
    let ids = (&txid, &tx.compute_wtxid());
    let transaction = TransactionView::new(&tx, ids, spent.as_deref(), true, params.address_set);
    let tree = node.tree().read();
    let (active, found) = (tree.is_active(id), tree.node(id));
    let tip = tree.node(tree.tip()).height;
    answer(Found {
        in_active_chain: named.then_some(active),
        transaction,
        blockhash: Some(found.hash.to_string()),
        confirmations: Some(if active { tip - found.height + 1 } else { 0 }),
        time: active.then_some(found.time),
        blocktime: active.then_some(found.time),
    })
}

/// A transaction of any block, by the index of transactions.
fn indexed(node: &NodeHandle, txid: &Txid) -> Result<(Id, Transaction), RpcError> {
    let state = node.index(Index::Transactions);
    let found = match state {
        Some(_) => transactions::find(&**node.store(), node.tree(), txid)?,
        None => None,
    };
    found.ok_or_else(|| {
        let why = match state {
            None => {
                "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain transaction queries"
            }
            Some(state) if !state.synced => {
                "No such mempool transaction. Blockchain transactions are still in the process of being indexed"
            }
            Some(_) => "No such mempool or blockchain transaction",
        };
        RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, format!("{why}. Use gettransaction for wallet transactions."))
    })
}

fn stored_block(rpc: &Rpc, id: Id) -> Result<Block, RpcError> {
    let node = rpc.node()?;
    let pos = node.tree().read().node(id).block();
    let pos = pos.ok_or_else(|| RpcError::new(RPC_MISC_ERROR, "Block not available"))?;
    let damaged = |_| RpcError::new(RPC_MISC_ERROR, "Block not found on disk");
    Block::decode(&node.store().read_block(pos)?).map_err(damaged)
}

/// The coins that a transaction of a block spends, where its undo is stored.
fn spent_by(rpc: &Rpc, id: Id, txid: &Txid) -> Result<Option<Vec<groat_chain::coins::Coin>>, RpcError> {
    let node = rpc.node()?;
    let Some(pos) = node.tree().read().node(id).undo() else { return Ok(None) };
    let text = "Undo data expected but can't be read. The disk is damaged, or the block was just pruned.";
    let damaged = |_| RpcError::new(RPC_INTERNAL_ERROR, text);
    let undo = codec::decode_undo(&node.store().read_undo(pos)?).map_err(damaged)?;
    let block = stored_block(rpc, id)?;
    let mut rest = &undo[..];
    for (transaction, other) in block.transactions.iter().zip(&block.txids).skip(1) {
        let Some((spent, after)) = rest.split_at_checked(transaction.input.len()) else { break };
        if other == txid {
            return Ok(Some(spent.to_vec()));
        }
        rest = after;
    }
    Ok(None)
}

fn createrawtransaction(rpc: &Rpc, args: &Args) -> Answer {
    let tx = construct(rpc, args)?;
    answer(if tx.input.is_empty() { without_witness_bytes(&tx).to_lower_hex_string() } else { serialize_hex(&tx) })
}

/// A transaction of the arguments [`CREATE`]. Core: `ConstructTransaction`.
pub fn construct(rpc: &Rpc, args: &Args) -> Result<Transaction, RpcError> {
    let invalid = |text: &str| RpcError::new(RPC_INVALID_PARAMETER, format!("Invalid parameter, {text}"));
    let lock_time = args.int::<i64>(2)?.unwrap_or(0);
    let lock_time = u32::try_from(lock_time).map_err(|_| invalid("locktime out of range"))?;
    let version = args.int::<u32>(4)?.unwrap_or(2);
    if !(TX_MIN_STANDARD_VERSION..=TX_MAX_STANDARD_VERSION).contains(&version) {
        let range = format!("version out of range({TX_MIN_STANDARD_VERSION}~{TX_MAX_STANDARD_VERSION})");
        return Err(invalid(&range));
    }
    let replaceable = args.bool(3);
    let inputs = args.get(0).as_array().map(Vec::as_slice).unwrap_or_default();
    let tx = Transaction {
        version: transaction::Version(version as i32),
        lock_time: LockTime::from_consensus(lock_time),
        input: inputs.iter().map(|input| self::input(input, lock_time, replaceable)).collect::<Result<_, _>>()?,
        output: outputs(rpc, args.get(1))?,
    };
    let signals = tx.input.iter().any(|input| input.sequence.is_rbf());
    if replaceable == Some(true) && !tx.input.is_empty() && !signals {
        let text = "Invalid parameter combination: Sequence number(s) contradict replaceable option";
        return Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    }
    Ok(tx)
}

/// In the form without witness, as Core writes one without inputs; the `bitcoin` crate writes the extended one.
pub fn without_witness_bytes(tx: &Transaction) -> Vec<u8> {
    [serialize(&tx.version), serialize(&tx.input), serialize(&tx.output), serialize(&tx.lock_time)].concat()
}

/// Core: `AddInputs`.
fn input(given: &Value, lock_time: u32, replaceable: Option<bool>) -> Result<TxIn, RpcError> {
    let invalid = |text: &str| RpcError::new(RPC_INVALID_PARAMETER, format!("Invalid parameter, {text}"));
    let fields = given.as_object().ok_or_else(|| wrong_type(given, "object"))?;
    let txid = hash(text(fields.get("txid").unwrap_or(&Value::Null))?, "txid")?;
    let vout = fields.get("vout").filter(|vout| vout.is_number()).ok_or_else(|| invalid("missing vout key"))?;
    let out_of_range = || RpcError::new(RPC_MISC_ERROR, "JSON integer out of range");
    let vout = vout.as_i64().and_then(|vout| i32::try_from(vout).ok()).ok_or_else(out_of_range)?;
    let vout = u32::try_from(vout).map_err(|_| invalid("vout cannot be negative"))?;
    let sequence = match fields.get("sequence").filter(|sequence| sequence.is_number()) {
        Some(number) => {
            let number = number.as_i64().ok_or_else(out_of_range)?;
            let number = u32::try_from(number).map_err(|_| invalid("sequence number is out of range"))?;
            Sequence::from_consensus(number)
        }
        None if replaceable.unwrap_or(true) => Sequence::ENABLE_RBF_NO_LOCKTIME,
        None if lock_time != 0 => Sequence::ENABLE_LOCKTIME_NO_RBF,
        None => Sequence::MAX,
    };
    let previous_output = OutPoint::new(txid, vout);
    Ok(TxIn { previous_output, script_sig: ScriptBuf::new(), sequence, witness: Witness::new() })
}

/// Core: `NormalizeOutputs`, `ParseOutputs`.
fn outputs(rpc: &Rpc, given: &Value) -> Result<Vec<TxOut>, RpcError> {
    let invalid = |text: String| RpcError::new(RPC_INVALID_PARAMETER, format!("Invalid parameter, {text}"));
    let pairs: Vec<(&String, &Value)> = match given {
        Value::Null => return Err(invalid("output argument must be non-null".into())),
        Value::Object(fields) => fields.iter().collect(),
        Value::Array(items) => {
            let mut pairs = Vec::new();
            for item in items {
                let not_object = || invalid("key-value pair not an object as expected".into());
                let fields: &Map<_, _> = item.as_object().ok_or_else(not_object)?;
                let mut fields = fields.iter();
                match (fields.next(), fields.next()) {
                    (Some(pair), None) => pairs.push(pair),
                    _ => return Err(invalid("key-value pair must contain exactly one key".into())),
                }
            }
            pairs
        }
        other => return Err(wrong_type(other, "array")),
    };
    let mut seen = BTreeSet::new();
    let mut outputs = Vec::new();
    for (name, value) in pairs {
        if name == "data" {
            if !seen.insert(ScriptBuf::new()) {
                return Err(invalid("duplicate key: data".into()));
            }
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                // As Core's `getValStr` has it.
                Value::Bool(true) => "1".into(),
                _ => String::new(),
            };
            let bytes = Vec::from_hex(&text).ok().filter(|bytes| !bytes.is_empty());
            let data = bytes.and_then(|bytes| PushBytesBuf::try_from(bytes).ok());
            let not_hex =
                || RpcError::new(RPC_INVALID_PARAMETER, format!("Data must be hexadecimal string (not '{text}')"));
            let data = data.ok_or_else(not_hex)?;
            let script = Builder::new().push_opcode(opcodes::all::OP_RETURN).push_slice(data).into_script();
            outputs.push(TxOut { value: bitcoin::Amount::ZERO, script_pubkey: script });
            continue;
        }
        let script = from_address(name, rpc.node()?.params().address_set);
        let value = amount(value)?;
        let script_pubkey = script
            .ok_or_else(|| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, format!("Invalid Bitcoin address: {name}")))?;
        if !seen.insert(script_pubkey.clone()) {
            return Err(invalid(format!("duplicated address: {name}")));
        }
        outputs.push(TxOut { value, script_pubkey });
    }
    Ok(outputs)
}
