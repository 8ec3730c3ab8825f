//! Methods on the mempool: handing transactions in, and what waits for a block. Core: `src/rpc/mempool.cpp`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, SignedAmount, Transaction, Txid};
use groat_chain::mempool::{Accepted, Entry, Mempool, Refusal, fee_for};
use groat_chain::rejection::Rejection;
use groat_chain::rules::block::is_unspendable;
use groat_chain::script::opcode::Cursor;
use serde::Serialize;

use super::Rpc;
use super::amount::{amount, fee_rate};
use super::args::{Arg, Args, Kind, text};
use super::error::*;
use super::method::{Answer, Method, answer};
use super::number::{Btc, SignedBtc};
use super::rawtransactions::decode_transaction;
use crate::clock::now;
use crate::handle::NodeHandle;
use crate::persist;
use crate::transactions::Purpose;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "getmempoolancestors",
        group: "blockchain",
        args: &[TXID, VERBOSE],
        about: "The transactions of the mempool that this one spends of, directly or not.",
        run: |rpc, args| relatives(rpc, args, |pool, entry| pool.ancestors(entry)),
    },
    Method {
        name: "getmempooldescendants",
        group: "blockchain",
        args: &[TXID, VERBOSE],
        about: "The transactions of the mempool that spend of this one, directly or not.",
        run: |rpc, args| relatives(rpc, args, |pool, entry| pool.descendants(entry)),
    },
    Method {
        name: "getmempoolentry",
        group: "blockchain",
        args: &[TXID],
        about: "What is known of a transaction of the mempool.",
        run: getmempoolentry,
    },
    Method {
        name: "getmempoolinfo",
        group: "blockchain",
        args: &[],
        about: "How much waits in the mempool, and what it takes.",
        run: getmempoolinfo,
    },
    Method {
        name: "getrawmempool",
        group: "blockchain",
        args: &[
            Arg::optional("verbose", Kind::Bool, "true: what is known of each transaction; false: ids."),
            Arg::optional("mempool_sequence", Kind::Bool, "With ids: also the number that grows with each change."),
        ],
        about: "All transactions of the mempool.",
        run: getrawmempool,
    },
    Method { name: "savemempool", group: "blockchain", args: &[], about: "Stores the mempool now.", run: savemempool },
    Method {
        name: "sendrawtransaction",
        group: "rawtransactions",
        args: &[
            Arg::required("hexstring", Kind::Hex, "The transaction."),
            MAX_FEE_RATE,
            Arg::optional(
                "maxburnamount",
                Kind::Loose("maxburnamount"),
                "BTC that outputs which nobody can spend may hold; default 0.",
            ),
        ],
        about: "Hands a transaction in, for the mempool and all peers. Gives its id.",
        run: sendrawtransaction,
    },
    Method {
        name: "testmempoolaccept",
        group: "rawtransactions",
        args: &[Arg::required("rawtxs", Kind::Array("\"rawtx\""), "Transactions, parents first."), MAX_FEE_RATE],
        about: "Whether the mempool would take these transactions.",
        run: testmempoolaccept,
    },
];

const TXID: Arg = Arg::required("txid", Kind::Hex, "The transaction's id; it is in the mempool.");
const VERBOSE: Arg = Arg::optional("verbose", Kind::Bool, "true: what is known of each; false: ids.");
const MAX_FEE_RATE: Arg = Arg::optional(
    "maxfeerate",
    Kind::Loose("maxfeerate"),
    "BTC for 1000 virtual bytes above which a transaction is refused; default 0.10, 0: any.",
);
/// Satoshi for 1000 virtual bytes. Core: `DEFAULT_MAX_RAW_TX_FEE_RATE`.
const DEFAULT_MAX_RAW_TX_FEE_RATE: u64 = 10_000_000;
/// Core's name and value.
const MAX_PACKAGE_COUNT: usize = 25;

fn sendrawtransaction(rpc: &Rpc, args: &Args) -> Answer {
    let max_burn = if args.get(2).is_null() { Amount::ZERO } else { amount(args.get(2))? };
    let tx = decode_transaction(args.text(0).unwrap_or_default(), None).ok_or_else(|| {
        RpcError::new(RPC_DESERIALIZATION_ERROR, "TX decode failed. Make sure the tx has at least one input.")
    })?;
    let burns = |script: &bitcoin::Script| is_unspendable(script) || !has_valid_ops(script);
    if tx.output.iter().any(|output| burns(&output.script_pubkey) && output.value > max_burn) {
        let text = "Unspendable output exceeds maximum configured by user (maxburnamount)";
        return Err(RpcError::new(RPC_VERIFY_ERROR, text));
    }
    let rate = fee_rate(args.get(1), DEFAULT_MAX_RAW_TX_FEE_RATE)?;
    let max_fee = fee_for(rate, tx.weight().to_wu().div_ceil(4));
    let txid = tx.compute_txid();
    let node = rpc.node()?;
    if is_mined(node, txid, tx.output.len() as u32)? {
        return Err(RpcError::new(RPC_VERIFY_ALREADY_IN_UTXO_SET, "Transaction outputs already in utxo set"));
    }
    let known = node.mempool().read().get(&txid).map(|entry| entry.wtxid);
    let wtxid = known.unwrap_or_else(|| tx.compute_wtxid());
    if known.is_none() {
        let tx = Arc::new(tx);
        let offer = |purpose| node.offer(tx.clone(), now().into(), purpose);
        if max_fee > 0 && offer(Purpose::Test)?.map_err(refused)?.fee > max_fee {
            let text = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)";
            return Err(RpcError::new(RPC_VERIFY_ERROR, text));
        }
        offer(Purpose::Take)?.map_err(refused)?;
    }
    node.broadcast(txid, wtxid, known.is_none())?;
    answer(txid.to_string())
}

/// Whether an output of the transaction is a coin.
fn is_mined(node: &NodeHandle, txid: Txid, outputs: u32) -> Result<bool, RpcError> {
    let outpoints: Vec<OutPoint> = (0..outputs).map(|vout| OutPoint::new(txid, vout)).collect();
    Ok(node.with_ledger(move |ledger| Ok(ledger.coins(&outpoints)?.iter().any(Option::is_some)))?)
}

/// Core: `HasValidOps`.
fn has_valid_ops(script: &bitcoin::Script) -> bool {
    use groat_chain::script::MAX_SCRIPT_ELEMENT_SIZE;
    use groat_chain::script::opcode::OP_NOP10;
    Cursor::new(script.as_bytes())
        .all(|op| op.is_ok_and(|op| op.code <= OP_NOP10 && op.data.len() <= MAX_SCRIPT_ELEMENT_SIZE))
}

fn refused(refusal: Refusal) -> RpcError {
    let missing = refusal.rejection == Rejection::MissingInputs;
    RpcError::new(if missing { RPC_VERIFY_ERROR } else { RPC_VERIFY_REJECTED }, refusal.to_string())
}

/// One transaction of `testmempoolaccept`.
#[derive(Serialize)]
struct Tested {
    txid: String,
    wtxid: String,
    #[serde(rename = "package-error", skip_serializing_if = "Option::is_none")]
    package_error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsize: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fees: Option<TestedFees>,
    #[serde(rename = "reject-reason", skip_serializing_if = "Option::is_none")]
    reject_reason: Option<String>,
    #[serde(rename = "reject-details", skip_serializing_if = "Option::is_none")]
    reject_details: Option<String>,
}

#[derive(Serialize)]
struct TestedFees {
    base: Btc,
    #[serde(rename = "effective-feerate")]
    effective_feerate: Btc,
    #[serde(rename = "effective-includes")]
    effective_includes: [String; 1],
}

impl Tested {
    /// Nothing is said of it but who it is.
    fn unfinished(tx: &Transaction) -> Tested {
        Tested {
            txid: tx.compute_txid().to_string(),
            wtxid: tx.compute_wtxid().to_string(),
            package_error: None,
            allowed: None,
            vsize: None,
            fees: None,
            reject_reason: None,
            reject_details: None,
        }
    }

    fn new(tx: &Transaction, outcome: Result<Accepted, Refusal>, max_rate: u64) -> Tested {
        let refused = |reason: String, details| Tested {
            allowed: Some(false),
            reject_reason: Some(reason),
            reject_details: details,
            ..Tested::unfinished(tx)
        };
        match outcome {
            Ok(accepted) => {
                let max_fee = fee_for(max_rate, accepted.rate.size);
                if max_fee > 0 && accepted.fee > max_fee {
                    return refused("max-fee-exceeded".into(), None);
                }
                let fees = TestedFees {
                    base: Btc(Amount::from_sat(accepted.fee)),
                    effective_feerate: Btc(Amount::from_sat(accepted.rate.per_thousand())),
                    effective_includes: [accepted.wtxid.to_string()],
                };
                let (allowed, vsize) = (Some(true), Some(accepted.rate.size));
                Tested { allowed, vsize, fees: Some(fees), ..Tested::unfinished(tx) }
            }
            Err(refusal) if refusal.rejection == Rejection::MissingInputs => refused("missing-inputs".into(), None),
            Err(refusal) => refused(refusal.rejection.to_string(), Some(refusal.to_string())),
        }
    }
}

fn testmempoolaccept(rpc: &Rpc, args: &Args) -> Answer {
    let given = args.get(0).as_array().map(Vec::as_slice).unwrap_or_default();
    if !(1..=MAX_PACKAGE_COUNT).contains(&given.len()) {
        let text = format!("Array must contain between 1 and {MAX_PACKAGE_COUNT} transactions.");
        return Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    }
    let max_rate = fee_rate(args.get(1), DEFAULT_MAX_RAW_TX_FEE_RATE)?;
    let mut transactions = Vec::new();
    for value in given {
        let text = text(value)?;
        let tx = decode_transaction(text, None).ok_or_else(|| {
            let text = format!("TX decode failed: {text} Make sure the tx has at least one input.");
            RpcError::new(RPC_DESERIALIZATION_ERROR, text)
        })?;
        transactions.push(Arc::new(tx));
    }
    if let Some(error) = package_error(&transactions) {
        let tested = |tx: &Arc<Transaction>| Tested { package_error: Some(error), ..Tested::unfinished(tx) };
        return answer(transactions.iter().map(tested).collect::<Vec<_>>());
    }
    let node = rpc.node()?;
    let mut tested = Vec::new();
    let mut failed = false;
    for tx in &transactions {
        if failed {
            tested.push(Tested::unfinished(tx));
            continue;
        }
        let outcome = node.offer(tx.clone(), now().into(), Purpose::Test)?;
        let one = Tested::new(tx, outcome, max_rate);
        failed = one.allowed == Some(false);
        tested.push(one);
    }
    answer(tested)
}

/// What is wrong with a list of transactions as such. Core: `IsWellFormedPackage`.
fn package_error(transactions: &[Arc<Transaction>]) -> Option<&'static str> {
    if transactions.len() == 1 {
        return None;
    }
    let ids: Vec<Txid> = transactions.iter().map(|tx| tx.compute_txid()).collect();
    if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
        return Some("package-contains-duplicates");
    }
    let spends =
        |tx: &Transaction, later: &[Txid]| tx.input.iter().any(|input| later.contains(&input.previous_output.txid));
    if transactions.iter().enumerate().any(|(number, tx)| spends(tx, &ids[number..])) {
        return Some("package-not-sorted");
    }
    let mut spent = BTreeSet::new();
    let mut fresh = |tx: &Arc<Transaction>| {
        let outpoints: BTreeSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        outpoints.into_iter().all(|outpoint| spent.insert(outpoint))
    };
    (!transactions.iter().all(&mut fresh)).then_some("conflict-in-package")
}

fn not_in_mempool() -> RpcError {
    RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Transaction not in mempool")
}

/// A transaction of the mempool. Core: `entryToJSON`.
#[derive(Serialize)]
struct EntryView {
    vsize: u64,
    weight: u64,
    time: u64,
    height: u32,
    descendantcount: usize,
    descendantsize: u64,
    ancestorcount: usize,
    ancestorsize: u64,
    wtxid: String,
    chunkweight: u64,
    fees: Fees,
    depends: BTreeSet<String>,
    spentby: Vec<String>,
    unbroadcast: bool,
}

#[derive(Serialize)]
struct Fees {
    base: Btc,
    modified: SignedBtc,
    ancestor: SignedBtc,
    descendant: SignedBtc,
    chunk: SignedBtc,
}

impl EntryView {
    fn new(pool: &Mempool, entry: &Entry, unbroadcast: &BTreeSet<Txid>) -> EntryView {
        let (ancestors, descendants) = (pool.ancestors(entry), pool.descendants(entry));
        let size = |others: &[&Entry]| entry.vsize() + others.iter().map(|other| other.vsize()).sum::<u64>();
        let fee = |others: &[&Entry]| {
            let others = others.iter().map(|other| other.modified_fee());
            SignedBtc(SignedAmount::from_sat(others.fold(entry.modified_fee(), i64::saturating_add)))
        };
        let chunk = pool.chunk(entry).rate;
        EntryView {
            vsize: entry.vsize(),
            weight: entry.weight,
            time: entry.time,
            height: entry.height,
            descendantcount: descendants.len() + 1,
            descendantsize: size(&descendants),
            ancestorcount: ancestors.len() + 1,
            ancestorsize: size(&ancestors),
            wtxid: entry.wtxid.to_string(),
            chunkweight: chunk.size,
            fees: Fees {
                base: Btc(Amount::from_sat(entry.fee)),
                modified: SignedBtc(SignedAmount::from_sat(entry.modified_fee())),
                ancestor: fee(&ancestors),
                descendant: fee(&descendants),
                chunk: SignedBtc(SignedAmount::from_sat(chunk.fee)),
            },
            depends: pool.parents(entry).iter().map(|parent| parent.txid.to_string()).collect(),
            spentby: pool.children(entry).iter().map(|child| child.txid.to_string()).collect(),
            unbroadcast: unbroadcast.contains(&entry.txid),
        }
    }
}

/// Transactions that are shown while the pool is held: with all that each hangs together with in less than a millisecond.
const SHOWN_AT_ONCE: usize = 64;

/// What is known of each transaction of the pool. Those that leave meanwhile may be missing.
fn show_all(node: &NodeHandle, unbroadcast: &BTreeSet<Txid>) -> Answer {
    let txids: Vec<Txid> = node.mempool().read().unordered().map(|entry| entry.txid).collect();
    let mut shown = BTreeMap::new();
    for part in txids.chunks(SHOWN_AT_ONCE) {
        let pool = node.mempool().read();
        let entries = part.iter().filter_map(|txid| pool.get(txid));
        shown.extend(entries.map(|entry| (entry.txid.to_string(), EntryView::new(&pool, entry, unbroadcast))));
    }
    answer(shown)
}

/// Ids, or what is known of each.
fn show<'a>(pool: &Mempool, entries: impl Iterator<Item = &'a Entry>, unbroadcast: Option<&BTreeSet<Txid>>) -> Answer {
    let Some(unbroadcast) = unbroadcast else {
        return answer(entries.map(|entry| entry.txid.to_string()).collect::<Vec<_>>());
    };
    let entries = entries.map(|entry| (entry.txid.to_string(), EntryView::new(pool, entry, unbroadcast)));
    answer(entries.collect::<BTreeMap<_, _>>())
}

/// What the hub knows, asked before the pool is held: only where more than ids is to be shown.
fn unbroadcast(node: &NodeHandle, verbose: bool) -> Result<Option<BTreeSet<Txid>>, RpcError> {
    Ok(if verbose { Some(node.unbroadcast()?) } else { None })
}

fn relatives(rpc: &Rpc, args: &Args, of: for<'a> fn(&'a Mempool, &Entry) -> Vec<&'a Entry>) -> Answer {
    let txid: Txid = args.hash(0)?;
    let node = rpc.node()?;
    let unbroadcast = unbroadcast(node, args.bool(1).unwrap_or(false))?;
    let pool = node.mempool().read();
    let entry = pool.get(&txid).ok_or_else(not_in_mempool)?;
    show(&pool, of(&pool, entry).into_iter(), unbroadcast.as_ref())
}

fn getmempoolentry(rpc: &Rpc, args: &Args) -> Answer {
    let txid: Txid = args.hash(0)?;
    let node = rpc.node()?;
    let unbroadcast = node.unbroadcast()?;
    let pool = node.mempool().read();
    answer(EntryView::new(&pool, pool.get(&txid).ok_or_else(not_in_mempool)?, &unbroadcast))
}

fn getrawmempool(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct WithSequence {
        txids: Vec<String>,
        mempool_sequence: u64,
    }
    let (verbose, sequence) = (args.bool(0).unwrap_or(false), args.bool(1).unwrap_or(false));
    if verbose && sequence {
        let text = "Verbose results cannot contain mempool sequence values.";
        return Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    }
    let node = rpc.node()?;
    if verbose {
        return show_all(node, &node.unbroadcast()?);
    }
    let pool = node.mempool().read();
    let (txids, mempool_sequence): (Vec<Txid>, u64) = (pool.iter().map(|entry| entry.txid).collect(), pool.sequence());
    drop(pool);
    let txids = txids.iter().map(Txid::to_string).collect();
    if sequence { answer(WithSequence { txids, mempool_sequence }) } else { answer(txids) }
}

fn getmempoolinfo(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct MempoolInfo {
        loaded: bool,
        size: usize,
        bytes: u64,
        usage: usize,
        total_fee: Btc,
        maxmempool: usize,
        mempoolminfee: Btc,
        minrelaytxfee: Btc,
        incrementalrelayfee: Btc,
        unbroadcastcount: usize,
        permitbaremultisig: bool,
        maxdatacarriersize: usize,
        limitclustercount: usize,
        limitclustersize: u64,
        optimal: bool,
    }
    let node = rpc.node()?;
    let unbroadcast = node.unbroadcast()?;
    let pool = node.mempool().read();
    let policy = pool.policy();
    let btc = |sat| Btc(Amount::from_sat(sat));
    answer(MempoolInfo {
        loaded: node.is_mempool_loaded(),
        size: pool.len(),
        bytes: pool.vsize(),
        usage: pool.memory(),
        total_fee: btc(pool.total_fee()),
        maxmempool: policy.max_bytes,
        mempoolminfee: btc(pool.min_fee(now().into()).max(policy.min_relay_fee)),
        minrelaytxfee: btc(policy.min_relay_fee),
        incrementalrelayfee: btc(policy.incremental_relay_fee),
        unbroadcastcount: unbroadcast.iter().filter(|txid| pool.get(txid).is_some()).count(),
        permitbaremultisig: policy.permit_bare_multisig,
        maxdatacarriersize: policy.max_datacarrier_bytes.unwrap_or(0),
        limitclustercount: policy.cluster_count,
        limitclustersize: policy.cluster_vbytes,
        optimal: true,
    })
}

fn savemempool(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct Saved {
        filename: String,
    }
    let node = rpc.node()?;
    if !node.is_mempool_loaded() {
        return Err(RpcError::new(RPC_MISC_ERROR, "The mempool was not loaded yet"));
    }
    let path = rpc.config.folder.join(persist::FILE);
    persist::save(node, node.unbroadcast()?, &path)
        .map_err(|_| RpcError::new(RPC_MISC_ERROR, "Unable to dump mempool to disk"))?;
    answer(Saved { filename: path.display().to_string() })
}
