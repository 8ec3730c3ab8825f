//! `scantxoutset`: which coins belong to some descriptors; `scanblocks`: which blocks may hold something of theirs. They read
//! all coins, or the filters of many blocks, one scan of each at a time; another call may ask how far it is, or end it.
//! Core: `src/rpc/blockchain.cpp`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bitcoin::bip158::BlockFilter;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf};
use groat_chain::coins::Coin;
use groat_chain::index::filters;
use groat_chain::tree::Id;
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind, wrong_type};
use super::blockchain::block_and_spent;
use super::coins::walk;
use super::error::*;
use super::indexes::filter_index;
use super::method::{Answer, Method, answer, done};
use super::number::Btc;
use super::outputscript::{scan_object, scan_scripts};
use crate::handle::NodeHandle;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "scanblocks",
        group: "blockchain",
        args: &[
            ACTION,
            OBJECTS,
            Arg::optional("start_height", Kind::Number, "The first block; default 0."),
            Arg::optional("stop_height", Kind::Number, "The last one; default: the tip."),
            Arg::optional("filtertype", Kind::Text, "basic (default)."),
            Arg::optional(
                "options",
                Kind::Options("options", &["filter_false_positives"]),
                "filter_false_positives: whether to read each block found and leave out those that hold nothing; \
                 default false.",
            ),
        ],
        about: "Blocks that hold something of some descriptors, and by chance a few others; needs -blockfilterindex.",
        run: scanblocks,
    },
    Method {
        name: "scantxoutset",
        group: "blockchain",
        args: &[ACTION, OBJECTS],
        about: "The unspent outputs of some descriptors. It reads all there are, which takes minutes on a long chain.",
        run: scantxoutset,
    },
];

const ACTION: Arg = Arg::required("action", Kind::Text, "start, abort or status.");
const OBJECTS: Arg = Arg::optional(
    "scanobjects",
    Kind::Array("scanobjects"),
    "Descriptors, or objects {\"desc\": descriptor, \"range\": last or [first,last]}.",
);

/// The scan under way, if there is one.
#[derive(Default)]
pub struct Scan {
    busy: AtomicBool,
    abort: AtomicBool,
    /// In percent.
    progress: AtomicU32,
    /// The last block read, where blocks are.
    height: AtomicU32,
}

/// The right to scan: ends with it.
struct Turn(Arc<Scan>);

impl Turn {
    fn take(scan: &Arc<Scan>) -> Option<Turn> {
        (!scan.busy.swap(true, Ordering::AcqRel)).then(|| {
            scan.abort.store(false, Ordering::Release);
            Turn(scan.clone())
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.progress.store(0, Ordering::Release);
        self.0.busy.store(false, Ordering::Release);
    }
}

#[derive(Serialize)]
struct Progress {
    progress: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_height: Option<u32>,
}

/// Does what a call's action says. `heights`: whether the scan is one of blocks.
fn act(scan: &Arc<Scan>, args: &Args, heights: bool, start: impl FnOnce(Turn) -> Answer) -> Answer {
    let busy = || scan.busy.load(Ordering::Acquire);
    match args.text(0).unwrap_or_default() {
        "status" if busy() => answer(Progress {
            progress: scan.progress.load(Ordering::Acquire),
            current_height: heights.then(|| scan.height.load(Ordering::Acquire)),
        }),
        "status" => done(),
        "abort" => {
            scan.abort.store(true, Ordering::Release);
            answer(busy())
        }
        "start" => {
            let text = "Scan already in progress, use action \"abort\" or \"status\"";
            start(Turn::take(scan).ok_or_else(|| RpcError::new(RPC_INVALID_PARAMETER, text))?)
        }
        other => Err(RpcError::new(RPC_INVALID_PARAMETER, format!("Invalid action '{other}'"))),
    }
}

fn scantxoutset(rpc: &Rpc, args: &Args) -> Answer {
    act(&rpc.scan, args, false, |turn| scan_coins(rpc, args, &turn))
}

fn scanblocks(rpc: &Rpc, args: &Args) -> Answer {
    act(&rpc.filter_scan, args, true, |turn| scan_filters(rpc, args, &turn))
}

/// What a scan has come to.
struct Found {
    tip: BlockHash,
    height: u32,
    txouts: u64,
    coins: BTreeMap<OutPoint, Coin>,
    /// Nobody broke the scan off.
    whole: bool,
}

fn scan_coins(rpc: &Rpc, args: &Args, turn: &Turn) -> Answer {
    #[derive(Serialize)]
    struct Scanned {
        success: bool,
        txouts: u64,
        height: u32,
        bestblock: String,
        unspents: Vec<Unspent>,
        total_amount: Btc,
    }
    if args.all().len() < 2 {
        return Err(RpcError::new(RPC_MISC_ERROR, "scanobjects argument is required for the start action"));
    }
    let objects = args.get(1).as_array().ok_or_else(|| wrong_type(args.get(1), "array"))?;
    let node = rpc.node()?;
    let mut wanted: HashMap<ScriptBuf, String> = HashMap::new();
    for object in objects {
        for output in scan_object(object, node.params().address_set)? {
            wanted.entry(output.script).or_insert(output.text);
        }
    }
    let wanted = Arc::new(wanted);
    let (scan, needles) = (turn.0.clone(), wanted.clone());
    let start = |tip, height| Found { tip, height, txouts: 0, coins: BTreeMap::new(), whole: true };
    let found = walk(node, start, move |found: &mut Found, outpoint, coin| {
        found.txouts += 1;
        if needles.contains_key(coin.script_pubkey()) {
            found.coins.insert(outpoint, coin);
        }
        if found.txouts.is_multiple_of(256) {
            // Coins come in the order of their ids, which are spread evenly.
            let id = outpoint.txid.as_byte_array();
            let high = u32::from(id[0]) << 8 | u32::from(id[1]);
            scan.progress.store((high * 100 + 0x8000) >> 16, Ordering::Release);
        }
        found.whole = !scan.abort.load(Ordering::Relaxed);
        found.whole
    })?;
    let tree = node.tree().read();
    let tip = tree.get(&found.tip).expect("the ledger stands on a block of the tree");
    let unspents = found.coins.iter().map(|(outpoint, coin)| Unspent {
        txid: outpoint.txid.to_string(),
        vout: outpoint.vout,
        script_pubkey: coin.script_pubkey().to_hex_string(),
        desc: wanted[coin.script_pubkey()].clone(),
        amount: Btc(coin.value()),
        coinbase: coin.is_coinbase(),
        height: coin.height(),
        blockhash: tree.node(tree.ancestor(tip, coin.height())).hash.to_string(),
        confirmations: found.height - coin.height() + 1,
    });
    answer(Scanned {
        success: found.whole,
        txouts: found.txouts,
        height: found.height,
        bestblock: found.tip.to_string(),
        unspents: unspents.collect(),
        total_amount: Btc(found.coins.values().map(Coin::value).sum::<Amount>()),
    })
}

#[derive(Serialize)]
struct Unspent {
    txid: String,
    vout: u32,
    #[serde(rename = "scriptPubKey")]
    script_pubkey: String,
    desc: String,
    amount: Btc,
    coinbase: bool,
    height: u32,
    blockhash: String,
    confirmations: u32,
}

fn scan_filters(rpc: &Rpc, args: &Args, turn: &Turn) -> Answer {
    #[derive(Serialize)]
    struct Scanned {
        from_height: u32,
        to_height: u32,
        relevant_blocks: Vec<String>,
        completed: bool,
    }
    /// Filters read at once. Core takes ten times as many: a quarter of a gigabyte.
    const STRIDE: u32 = 1000;
    let (node, scan) = (rpc.node()?, &turn.0);
    filter_index(node, args.text(4))?;
    let certain = args.get(5).get("filter_false_positives").filter(|value| !value.is_null());
    let certain = certain.map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong_type(value, "bool")))?;
    let (last, from, to) = {
        let tree = node.tree().read();
        let active = |at, default, text| match args.int::<i32>(at)? {
            None => Ok(default),
            Some(height) => u32::try_from(height)
                .ok()
                .and_then(|height| tree.active(height))
                .ok_or_else(|| RpcError::new(RPC_MISC_ERROR, text)),
        };
        let from = tree.node(active(2, Id::GENESIS, "Invalid start_height")?).height;
        let last = active(3, tree.tip(), "Invalid stop_height")?;
        let to = tree.node(last).height;
        if to < from {
            return Err(RpcError::new(RPC_MISC_ERROR, "Invalid stop_height"));
        }
        (last, from, to)
    };
    let scripts = scan_scripts(args.get(1), node.params().address_set)?;
    scan.height.store(from, Ordering::Release);
    let (stopping, mut relevant, mut next) = (node.stopping(), Vec::new(), from);
    while next <= to && !scan.abort.load(Ordering::Relaxed) {
        if *stopping.borrow() {
            return Err(RpcError::new(RPC_CLIENT_NOT_CONNECTED, "Shutting down"));
        }
        let end = to.min(next + STRIDE - 1);
        let blocks: Vec<Id> = {
            let tree = node.tree().read();
            (next..=end).map(|height| tree.ancestor(last, height)).collect()
        };
        relevant.extend(matching(node, &blocks, &scripts, certain)?);
        let progress = (u64::from(end - from) * 100).checked_div(u64::from(to - from)).unwrap_or(100);
        scan.progress.store(progress as u32, Ordering::Release);
        scan.height.store(end, Ordering::Release);
        next = end + 1;
    }
    let to_height = scan.height.load(Ordering::Acquire);
    answer(Scanned { from_height: from, to_height, relevant_blocks: relevant, completed: next > to })
}

/// Those of these blocks whose filters match; if `certain`, only those that hold one of the scripts.
fn matching(
    node: &NodeHandle,
    blocks: &[Id],
    scripts: &HashSet<ScriptBuf>,
    certain: bool,
) -> Result<Vec<String>, RpcError> {
    let hashes: Vec<BlockHash> = {
        let tree = node.tree().read();
        blocks.iter().map(|id| tree.node(*id).hash).collect()
    };
    let mut relevant = Vec::new();
    let found = filters::filters(&**node.store(), &hashes)?;
    for ((id, hash), filter) in blocks.iter().zip(hashes).zip(found) {
        // Core passes over blocks that are not indexed yet, and says nothing of them.
        let text = "Block filters are still in the process of being indexed.";
        let filter = filter.ok_or_else(|| RpcError::new(RPC_MISC_ERROR, text))?;
        let matches = BlockFilter::new(&filter).match_any(&hash, scripts.iter().map(|script| script.as_bytes()));
        let matches =
            matches.map_err(|_| RpcError::new(RPC_INTERNAL_ERROR, format!("The filter of {hash} is damaged")))?;
        if matches && (!certain || holds(node, *id, scripts)?) {
            relevant.push(hash.to_string());
        }
    }
    Ok(relevant)
}

/// Whether a block pays to one of the scripts, or spends from one. Core: `CheckBlockFilterMatches`.
fn holds(node: &NodeHandle, id: Id, scripts: &HashSet<ScriptBuf>) -> Result<bool, RpcError> {
    let (block, spent) = block_and_spent(node, id)?;
    let mut made = block.transactions.iter().flat_map(|tx| &tx.output);
    Ok(made.any(|output| scripts.contains(&output.script_pubkey))
        || spent.iter().any(|coin| scripts.contains(coin.script_pubkey())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_scan_runs_and_its_end_makes_room() {
        let scan = Arc::new(Scan::default());
        let turn = Turn::take(&scan).expect("nobody scans");
        assert!(Turn::take(&scan).is_none(), "a second scan must be refused");
        scan.abort.store(true, Ordering::Release);
        scan.progress.store(50, Ordering::Release);
        drop(turn);
        let _turn = Turn::take(&scan).expect("the first scan has ended");
        assert!(!scan.abort.load(Ordering::Acquire), "an abort is for the scan that it met");
        assert_eq!(scan.progress.load(Ordering::Acquire), 0);
    }
}
