//! `scantxoutset`: which coins belong to some descriptors. It reads all coins, one scan at a time; another call may ask how
//! far it is, or end it. Core: `src/rpc/blockchain.cpp`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf};
use groat_chain::coins::Coin;
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind, wrong_type};
use super::coins::walk;
use super::error::*;
use super::method::{Answer, Method, answer, done};
use super::number::Btc;
use super::outputscript::scan_object;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[Method {
    name: "scantxoutset",
    group: "blockchain",
    args: &[
        Arg::required("action", Kind::Text, "start, abort or status."),
        Arg::optional(
            "scanobjects",
            Kind::Array("scanobjects"),
            "Descriptors, or objects {\"desc\": descriptor, \"range\": last or [first,last]}.",
        ),
    ],
    about: "The unspent outputs of some descriptors. It reads all there are, which takes minutes on a long chain.",
    run: scantxoutset,
}];

/// The scan under way, if there is one.
#[derive(Default)]
pub struct Scan {
    busy: AtomicBool,
    abort: AtomicBool,
    /// In percent.
    progress: AtomicU32,
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

fn scantxoutset(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Progress {
        progress: u32,
    }
    let busy = || rpc.scan.busy.load(Ordering::Acquire);
    match args.text(0).unwrap_or_default() {
        "status" if busy() => answer(Progress { progress: rpc.scan.progress.load(Ordering::Acquire) }),
        "status" => done(),
        "abort" => {
            rpc.scan.abort.store(true, Ordering::Release);
            answer(busy())
        }
        "start" => start(rpc, args),
        other => Err(RpcError::new(RPC_INVALID_PARAMETER, format!("Invalid action '{other}'"))),
    }
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

fn start(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Scanned {
        success: bool,
        txouts: u64,
        height: u32,
        bestblock: String,
        unspents: Vec<Unspent>,
        total_amount: Btc,
    }
    let text = "Scan already in progress, use action \"abort\" or \"status\"";
    let turn = Turn::take(&rpc.scan).ok_or_else(|| RpcError::new(RPC_INVALID_PARAMETER, text))?;
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
