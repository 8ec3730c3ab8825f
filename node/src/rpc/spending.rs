//! Who spends an output: of the mempool, and with an index of the chain. Core: `src/rpc/mempool.cpp`.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{BlockHash, OutPoint, Transaction, Txid};
use groat_chain::index::{Index, spenders};
use serde::Serialize;
use serde_json::Value;

use super::Rpc;
use super::args::{Arg, Args, Kind, hash};
use super::error::*;
use super::method::{Answer, Method, answer};

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[Method {
    name: "gettxspendingprevout",
    group: "blockchain",
    args: &[
        Arg::required("outputs", Kind::Array("{\"txid\":\"hex\",\"vout\":n}"), "The outputs."),
        Arg::optional(
            "options",
            Kind::Any,
            "mempool_only (default: unless -txospenderindex); return_spending_tx: whether to show who spends.",
        ),
    ],
    about: "The transactions of the mempool, and with -txospenderindex of the chain, that spend these outputs.",
    run: gettxspendingprevout,
}];

fn gettxspendingprevout(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Spent {
        txid: String,
        vout: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        spendingtxid: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        spendingtx: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        blockhash: Option<String>,
    }
    let refuse = |text| RpcError::new(RPC_INVALID_PARAMETER, text);
    let outputs = args.get(0).as_array().filter(|outputs| !outputs.is_empty());
    let outputs = outputs.ok_or_else(|| refuse("Invalid parameter, outputs are missing"))?;
    let options = args.get(1);
    if !options.is_null() {
        check_keys(options, &["mempool_only", "return_spending_tx"])?;
    }
    let node = rpc.node()?;
    let index = node.index(Index::Spenders);
    let only = flag(options, "mempool_only", index.is_none())?;
    let whole = flag(options, "return_spending_tx", false)?;
    let mut outpoints = Vec::new();
    for output in outputs {
        check_keys(output, &["txid", "vout"])?;
        let txid = field(output, "txid", "string", Value::as_str)?;
        let vout = field(output, "vout", "number", |value| value.is_number().then_some(value))?;
        let txid: Txid = hash(txid, "txid")?;
        let vout = vout.as_i64().and_then(|vout| i32::try_from(vout).ok());
        let vout = vout.ok_or_else(|| RpcError::new(RPC_MISC_ERROR, "JSON integer out of range"))?;
        let vout = u32::try_from(vout).map_err(|_| refuse("Invalid parameter, vout cannot be negative"))?;
        outpoints.push(OutPoint::new(txid, vout));
    }
    let view = |outpoint: &OutPoint, spender: Option<&Transaction>, block: Option<BlockHash>| Spent {
        txid: outpoint.txid.to_string(),
        vout: outpoint.vout,
        spendingtxid: spender.map(|tx| tx.compute_txid().to_string()),
        spendingtx: spender.filter(|_| whole).map(serialize_hex),
        blockhash: block.map(|hash| hash.to_string()),
    };
    let (mut spent, mut rest) = (Vec::new(), Vec::new());
    let pool = node.mempool().read();
    for outpoint in outpoints {
        match pool.spender(&outpoint) {
            None if !only => rest.push(outpoint),
            spender => spent.push(view(&outpoint, spender.map(|entry| &*entry.tx), None)),
        }
    }
    drop(pool);
    if !rest.is_empty() && !index.is_some_and(|index| index.synced) {
        let text = "Mempool lacks a relevant spend, and txospenderindex is unavailable.";
        return Err(RpcError::new(RPC_MISC_ERROR, text));
    }
    for outpoint in rest {
        let found = spenders::find(&**node.store(), node.tree(), &outpoint)?;
        let block = found.as_ref().map(|(id, _)| node.tree().read().node(*id).hash);
        spent.push(view(&outpoint, found.as_ref().map(|(_, tx)| tx), block));
    }
    answer(spent)
}

/// A field of an object, of the given kind. Core: `RPCTypeCheckObj`.
fn field<'a, T>(object: &'a Value, name: &str, kind: &str, read: fn(&'a Value) -> Option<T>) -> Result<T, RpcError> {
    let refuse = |text| RpcError::new(RPC_TYPE_ERROR, text);
    let value = object.get(name).filter(|value| !value.is_null()).ok_or_else(|| refuse(format!("Missing {name}")))?;
    read(value).ok_or_else(|| {
        let found = super::args::type_name(value);
        refuse(format!("JSON value of type {found} for field {name} is not of expected type {kind}"))
    })
}

/// No key but these. Core: the strict `RPCTypeCheckObj`.
fn check_keys(object: &Value, known: &[&str]) -> Result<(), RpcError> {
    let object = object.as_object().ok_or_else(|| super::args::wrong_type(object, "object"))?;
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(RpcError::new(RPC_TYPE_ERROR, format!("Unexpected key {key}"))),
        None => Ok(()),
    }
}

/// A yes or no of an object, or its default.
pub fn flag(options: &Value, name: &str, default: bool) -> Result<bool, RpcError> {
    if options.get(name).is_none_or(Value::is_null) {
        Ok(default)
    } else {
        field(options, name, "bool", Value::as_bool)
    }
}
