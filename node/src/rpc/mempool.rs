//! Methods on the mempool: what waits for a block, and how it hangs together. Core: `src/rpc/mempool.cpp`. Handing in is
//! in `submit`.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Amount, SignedAmount, Txid};
use groat_chain::mempool::{Entry, FeeRate, Mempool, policy};
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::method::{Answer, Method, answer};
use super::number::{Btc, SignedBtc};
use super::spending::flag;
use crate::clock::now;
use crate::handle::NodeHandle;
use crate::persist;

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
        name: "getmempoolcluster",
        group: "blockchain",
        args: &[TXID],
        about: "All transactions of the mempool that hang together with this one, in chunks as they would be mined.",
        run: getmempoolcluster,
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
        name: "getmempoolfeeratediagram",
        group: "hidden",
        args: &[],
        about: "What the mempool's transactions weigh and pay together, chunk by chunk, the best first.",
        run: getmempoolfeeratediagram,
    },
    Method {
        name: "getmempoolinfo",
        group: "blockchain",
        args: &[],
        about: "How much waits in the mempool, and what it takes.",
        run: getmempoolinfo,
    },
    Method {
        name: "getprioritisedtransactions",
        group: "mining",
        args: &[],
        about: "What prioritisetransaction has added to fees.",
        run: getprioritisedtransactions,
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
    Method {
        name: "getrelayinfo",
        group: "network",
        args: &[Arg::required("txid", Kind::Hex, "One of the last transactions that the mempool took.")],
        about: "How many peers were told of a transaction, and how often they asked for it.",
        run: getrelayinfo,
    },
    Method {
        name: "importmempool",
        group: "blockchain",
        args: &[
            Arg::required("filepath", Kind::Text, "A stored mempool."),
            Arg::optional(
                "options",
                Kind::Any,
                "use_current_time (default true), apply_fee_delta_priority, apply_unbroadcast_set (default false).",
            ),
        ],
        about: "Offers the transactions of a file to the mempool.",
        run: importmempool,
    },
    Method {
        name: "prioritisetransaction",
        group: "mining",
        args: &[
            Arg::required("txid", Kind::Hex, "The transaction's id; it need not be in the mempool."),
            Arg::optional("dummy", Kind::Number, "0."),
            Arg::required("fee_delta", Kind::Number, "Satoshi to add to its fee, or to take off."),
        ],
        about: "Has a transaction mined as if it paid more or less.",
        run: prioritisetransaction,
    },
    Method { name: "savemempool", group: "blockchain", args: &[], about: "Stores the mempool now.", run: savemempool },
];

const TXID: Arg = Arg::required("txid", Kind::Hex, "The transaction's id; it is in the mempool.");
const VERBOSE: Arg = Arg::optional("verbose", Kind::Bool, "true: what is known of each; false: ids.");
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

fn getmempoolcluster(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct ChunkView {
        chunkfee: SignedBtc,
        chunkweight: u64,
        txs: Vec<String>,
    }
    #[derive(Serialize)]
    struct ClusterView {
        clusterweight: u64,
        txcount: usize,
        chunks: Vec<ChunkView>,
    }
    let txid: Txid = args.hash(0)?;
    let pool = rpc.node()?.mempool().read();
    let cluster = pool.cluster(pool.get(&txid).ok_or_else(not_in_mempool)?);
    let chunks = cluster.iter().map(|(chunk, entries)| ChunkView {
        chunkfee: SignedBtc(SignedAmount::from_sat(chunk.rate.fee)),
        chunkweight: chunk.rate.size,
        txs: entries.iter().map(|entry| entry.txid.to_string()).collect(),
    });
    answer(ClusterView {
        clusterweight: cluster.iter().map(|(chunk, _)| chunk.rate.size).sum(),
        txcount: cluster.iter().map(|(chunk, _)| chunk.count).sum(),
        chunks: chunks.collect(),
    })
}

fn getmempoolfeeratediagram(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct Corner {
        weight: u64,
        fee: SignedBtc,
    }
    let pool = rpc.node()?.mempool().read();
    let sums = pool.chunk_rates().scan(FeeRate::default(), |sum, chunk| {
        *sum = sum.plus(chunk);
        Some(*sum)
    });
    let corner = |sum: FeeRate| Corner { weight: sum.size, fee: SignedBtc(SignedAmount::from_sat(sum.fee)) };
    answer(std::iter::once(FeeRate::default()).chain(sums).map(corner).collect::<Vec<_>>())
}

fn getprioritisedtransactions(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct Prioritised {
        fee_delta: i64,
        in_mempool: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        modified_fee: Option<i64>,
    }
    let pool = rpc.node()?.mempool().read();
    let view = |(txid, delta): (&Txid, &i64)| {
        let modified_fee = pool.get(txid).map(Entry::modified_fee);
        (txid.to_string(), Prioritised { fee_delta: *delta, in_mempool: modified_fee.is_some(), modified_fee })
    };
    answer(pool.deltas().iter().map(view).collect::<BTreeMap<_, _>>())
}

fn prioritisetransaction(rpc: &Rpc, args: &Args) -> Answer {
    let refuse = |text| Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    let txid: Txid = args.hash(0)?;
    let delta = args.int::<i64>(2)?.unwrap_or_default();
    if args.get(1).as_f64().is_some_and(|dummy| dummy != 0.0) {
        return refuse("Priority is no longer supported, dummy argument to prioritisetransaction must be 0.");
    }
    let makes_dust = move |pool: &Mempool| {
        let policy = pool.policy();
        let dust = |entry: &Entry| policy::dust(&entry.tx, policy.dust_relay_fee).next().is_some();
        policy.require_standard && pool.get(&txid).is_some_and(dust)
    };
    let done = rpc.node()?.with_mempool(move |pool| {
        let possible = !makes_dust(pool);
        if possible {
            pool.prioritise(txid, delta);
        }
        possible
    })?;
    if done { answer(true) } else { refuse("Priority is not supported for transactions with dust outputs.") }
}

fn getrelayinfo(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct RelayInfo {
        announced_to: u32,
        requested_by: u32,
    }
    let txid: Txid = args.hash(0)?;
    let relayed = rpc.node()?.with_hub(move |hub| hub.protocol.relayed(&txid))?.ok_or_else(|| {
        let text = "Not among the last transactions that the mempool took";
        RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, text)
    })?;
    answer(RelayInfo { announced_to: relayed.announced, requested_by: relayed.requested })
}

fn importmempool(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Imported {}
    let node = rpc.node()?;
    if node.with_hub(|hub| hub.protocol.initial_download())? {
        let text = "Can only import the mempool after the block download and sync is done.";
        return Err(RpcError::new(RPC_CLIENT_IN_INITIAL_DOWNLOAD, text));
    }
    let options = args.get(1);
    let trust = persist::Trust {
        times: !flag(options, "use_current_time", true)?,
        deltas: flag(options, "apply_fee_delta_priority", false)?,
        unbroadcast: flag(options, "apply_unbroadcast_set", false)?,
    };
    let path = std::path::Path::new(args.text(0).unwrap_or_default());
    persist::import(node, path, trust)?
        .ok_or_else(|| RpcError::new(RPC_MISC_ERROR, "Unable to import mempool file, see debug log for details."))?;
    answer(Imported {})
}
