//! What goes on inside of the node, for developers and tests. Core: `src/rpc/node.cpp` and others.

use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use groat_net::protocol::{Command, OrphanTx};
use serde::Serialize;
use serde_json::{Value, json};

use super::Rpc;
use super::args::{Arg, Args, Kind, wrong_type};
use super::blockchain::progress;
use super::error::*;
use super::method::{Answer, Method, answer, done, help_of};
use super::number::Real;
use super::show;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "getchainstates",
        group: "blockchain",
        args: &[],
        about: "The chain that is followed: there is one, and all of it is validated.",
        run: getchainstates,
    },
    Method {
        name: "getmemoryinfo",
        group: "control",
        args: &[Arg::optional("mode", Kind::Text, "stats (default).")],
        about: "Memory that is locked against being swapped out: a node without a wallet has no need of it.",
        run: getmemoryinfo,
    },
    Method {
        name: "mockscheduler",
        group: "hidden",
        args: &[Arg::required("delta_time", Kind::Number, "Seconds, at most an hour.")],
        about: "Has what is done every so often done so much earlier, on regtest.",
        run: mockscheduler,
    },
    Method {
        name: "echoipc",
        group: "hidden",
        args: &[Arg::required("arg", Kind::Text, "A text.")],
        about: "Gives its argument back.",
        run: |_, args| answer(args.text(0)),
    },
    Method {
        name: "generate",
        group: "hidden",
        args: &[],
        about: "has been replaced by the -generate cli option. Refer to -help for more information.",
        run: |_, _| Err(RpcError::new(RPC_METHOD_NOT_FOUND, help_of("generate").message)),
    },
    Method {
        name: "getorphantxs",
        group: "hidden",
        args: &[Arg::optional("verbosity", Kind::Any, "0 (default): ids; 1: JSON; 2: with hex.")],
        about: "Transactions that wait for their parents.",
        run: getorphantxs,
    },
];

fn getchainstates(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct Chainstate {
        blocks: u32,
        bestblockhash: String,
        bits: String,
        target: String,
        difficulty: Real,
        verificationprogress: Real,
        /// RocksDB shares its memory between uses and gives no part of it to the coins alone.
        coins_db_cache_bytes: u64,
        coins_tip_cache_bytes: usize,
        validated: bool,
    }
    #[derive(Serialize)]
    struct Chainstates {
        headers: u32,
        chainstates: [Chainstate; 1],
    }
    let node = rpc.node()?;
    let table = node.with_ledger(|ledger| Ok(ledger.options().table_bytes))?;
    let tree = node.tree().read();
    let tip = tree.node(tree.tip());
    answer(Chainstates {
        headers: tree.node(tree.best_header()).height,
        chainstates: [Chainstate {
            blocks: tip.height,
            bestblockhash: tip.hash.to_string(),
            bits: show::bits(tip.bits),
            target: show::target(tip.bits, node.params()),
            difficulty: show::difficulty(tip.bits),
            verificationprogress: Real(progress(&tree, node.params().spacing)),
            coins_db_cache_bytes: 0,
            coins_tip_cache_bytes: table,
            validated: true,
        }],
    })
}

fn getmemoryinfo(_: &Rpc, args: &Args) -> Answer {
    let refuse = |text: String| Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    match args.text(0).unwrap_or("stats") {
        "stats" => answer(json!({
            "locked": { "used": 0, "free": 0, "total": 0, "locked": 0, "chunks_used": 0, "chunks_free": 0 }
        })),
        "mallocinfo" => refuse("mallocinfo mode not available".into()),
        mode => refuse(format!("unknown mode {mode}")),
    }
}

fn mockscheduler(rpc: &Rpc, args: &Args) -> Answer {
    let node = rpc.node()?;
    let refuse = |text: &str| RpcError::new(RPC_MISC_ERROR, text);
    if node.params().name != "regtest" {
        return Err(refuse("mockscheduler is for regression testing (-regtest mode) only"));
    }
    let seconds = args.int::<i64>(0)?.and_then(|seconds| u64::try_from(seconds).ok());
    let seconds = seconds.filter(|seconds| (1..=3600).contains(seconds));
    let seconds = seconds.ok_or_else(|| refuse("delta_time must be between 1 and 3600 seconds (1 hr)"))?;
    node.with_hub(move |hub| hub.command(Command::Forward(Duration::from_secs(seconds))))?;
    done()
}

fn getorphantxs(rpc: &Rpc, args: &Args) -> Answer {
    let orphans: Vec<OrphanTx> = rpc.node()?.with_hub(|hub| hub.protocol().orphan_transactions().collect())?;
    let verbosity = match args.get(0) {
        Value::Null => 0,
        Value::Bool(_) => {
            return Err(RpcError::new(RPC_TYPE_ERROR, "Verbosity was boolean but only integer allowed"));
        }
        value if !value.is_number() => return Err(wrong_type(value, "number")),
        _ => args.int::<i32>(0)?.unwrap_or(0),
    };
    if verbosity == 0 {
        return answer(orphans.iter().map(|orphan| orphan.tx.compute_txid().to_string()).collect::<Vec<_>>());
    }
    if !matches!(verbosity, 1 | 2) {
        return Err(RpcError::new(RPC_INVALID_PARAMETER, format!("Invalid verbosity value {verbosity}")));
    }
    answer(orphans.iter().map(|orphan| shown(orphan, verbosity == 2)).collect::<Vec<_>>())
}

#[derive(Serialize)]
struct Orphan {
    txid: String,
    wtxid: String,
    bytes: usize,
    vsize: u64,
    weight: u64,
    from: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

fn shown(OrphanTx { tx, announcers }: &OrphanTx, with_hex: bool) -> Orphan {
    let weight = tx.weight().to_wu();
    Orphan {
        txid: tx.compute_txid().to_string(),
        wtxid: tx.compute_wtxid().to_string(),
        bytes: tx.total_size(),
        vsize: weight.div_ceil(4),
        weight,
        from: announcers.iter().map(|peer| peer.0).collect(),
        hex: with_hex.then(|| serialize_hex(&**tx)),
    }
}
