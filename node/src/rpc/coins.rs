//! Methods that read coins: one of them, or the totals of all. Core: `src/rpc/blockchain.cpp`.

use std::sync::mpsc;

use bitcoin::{Amount, BlockHash, OutPoint, Txid};
use groat_chain::coins::Coin;
use groat_chain::index::Index;
use groat_chain::index::coinstats::{self, Totals};
use groat_chain::stats::{CoinCount, CoinStats, HashKind};
use groat_chain::store::StoreError;
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::method::{Answer, Method, answer, done};
use super::number::Btc;
use super::script::ScriptPubKey;
use super::stats::by_hash_or_height;
use crate::handle::{NodeHandle, Stopped};

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "gettxout",
        group: "blockchain",
        args: &[
            Arg::required("txid", Kind::Text, "The transaction's id."),
            Arg::required("n", Kind::Number, "Number of the output."),
            Arg::optional("include_mempool", Kind::Bool, "Whether transactions of the mempool count; default true."),
        ],
        about: "An unspent output; null if there is none.",
        run: gettxout,
    },
    Method {
        name: "gettxoutsetinfo",
        group: "blockchain",
        args: &[
            Arg::optional("hash_type", Kind::Text, "hash_serialized_3 (default), muhash or none."),
            Arg::optional("hash_or_height", Kind::Any, "A block by its hash or height; needs -coinstatsindex."),
            Arg::optional("use_index", Kind::Bool, "Whether to use -coinstatsindex where it is there; default true."),
        ],
        about: "The totals of all unspent outputs. Without -coinstatsindex it reads them all: minutes on a long chain.",
        run: gettxoutsetinfo,
    },
];

/// The height of a coin that no block has made yet. Core's name and value.
pub(super) const MEMPOOL_HEIGHT: u32 = 0x7fff_ffff;

fn gettxout(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct TxOut {
        bestblock: String,
        confirmations: u32,
        value: Btc,
        #[serde(rename = "scriptPubKey")]
        script_pubkey: ScriptPubKey,
        coinbase: bool,
    }
    let txid: Txid = args.hash(0)?;
    let outpoint = OutPoint::new(txid, args.int::<u32>(1)?.unwrap_or_default());
    let node = rpc.node()?;
    let pool = args.bool(2).unwrap_or(true).then(|| node.mempool().clone());
    let found = node.with_ledger(move |ledger| {
        let mut coin = ledger.coin(&outpoint)?;
        if let Some(pool) = pool.as_ref().map(|pool| pool.read()) {
            let made = pool.get(&outpoint.txid).and_then(|entry| entry.tx.output.get(outpoint.vout as usize));
            coin = made.map(|output| Coin::new(output, MEMPOOL_HEIGHT, false)).or(coin);
            if pool.spender(&outpoint).is_some() {
                coin = None;
            }
        }
        let Some(coin) = coin else { return Ok(None) };
        let tree = ledger.tree();
        let tree = tree.read();
        let tip = tree.get(&ledger.tip()).expect("the ledger stands on a block of the tree");
        Ok(Some((coin, tree.node(tip).hash, tree.node(tip).height)))
    })?;
    let Some((coin, hash, height)) = found else { return done() };
    answer(TxOut {
        bestblock: hash.to_string(),
        confirmations: if coin.height() == MEMPOOL_HEIGHT { 0 } else { height - coin.height() + 1 },
        value: Btc(coin.value()),
        script_pubkey: ScriptPubKey::new(coin.script_pubkey(), node.params().address_set),
        coinbase: coin.is_coinbase(),
    })
}

/// The coins of the mempool and the chain at these places, whether or not the pool spends them. Core: `FindCoins`.
pub fn find(node: &NodeHandle, outpoints: Vec<OutPoint>) -> Result<Vec<Option<Coin>>, RpcError> {
    let pool = node.mempool().clone();
    Ok(node.with_ledger(move |ledger| {
        let mut coins = Vec::with_capacity(outpoints.len());
        for outpoint in outpoints {
            let made = {
                let pool = pool.read();
                let entry = pool.get(&outpoint.txid);
                entry.and_then(|entry| entry.tx.output.get(outpoint.vout as usize).cloned())
            };
            coins.push(match made {
                Some(output) => Some(Coin::new(&output, MEMPOOL_HEIGHT, false)),
                None => ledger.coin(&outpoint)?,
            });
        }
        Ok(coins)
    })?)
}

fn gettxoutsetinfo(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct TxOutSetInfo {
        height: u32,
        bestblock: String,
        txouts: u64,
        bogosize: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        hash_serialized_3: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        muhash: Option<String>,
        total_amount: Btc,
        transactions: u64,
        disk_size: u64,
    }
    let unreadable = || RpcError::new(RPC_INTERNAL_ERROR, "Unable to read UTXO set");
    let kind = match args.text(0).unwrap_or("hash_serialized_3") {
        "hash_serialized_3" => HashKind::Serialized3,
        "muhash" => HashKind::Muhash,
        "none" => HashKind::None,
        other => {
            return Err(RpcError::new(RPC_INVALID_PARAMETER, format!("'{other}' is not a valid hash_type")));
        }
    };
    let (node, use_index) = (rpc.node()?, args.bool(2).unwrap_or(true));
    let state = node.index(Index::CoinStats);
    let block = if args.get(1).is_null() {
        None
    } else {
        let refuse = |text| Err(RpcError::new(RPC_INVALID_PARAMETER, text));
        match (state, kind) {
            (None, _) => return refuse("Querying specific block heights requires coinstatsindex"),
            (_, HashKind::Serialized3) => {
                return refuse("hash_serialized_3 hash type cannot be queried for a specific block");
            }
            _ if !use_index => return refuse("Cannot set use_index to false when querying for a specific block"),
            _ => Some(by_hash_or_height(&node.tree().read(), args.get(1))?),
        }
    };
    if let Some(state) = state.filter(|_| use_index && kind != HashKind::Serialized3) {
        let (hash, height, indexed) = {
            let tree = node.tree().read();
            let id = block.unwrap_or(tree.tip());
            (tree.node(id).hash, tree.node(id).height, tree.node(state.tip).height)
        };
        let totals = coinstats::totals(&**node.store(), &hash)?;
        if block.is_some() && !state.synced && height > indexed {
            let text = format!("Unable to get data because coinstatsindex is still syncing. Current height: {indexed}");
            return Err(RpcError::new(RPC_INTERNAL_ERROR, text));
        }
        let muhash = kind == HashKind::Muhash;
        return answer(IndexedInfo::new(&totals.ok_or_else(unreadable)?, (hash, height), muhash));
    }
    let stats = count(node, kind)?;
    let hash = stats.hash.map(|hash| hash.to_string());
    answer(TxOutSetInfo {
        height: stats.height,
        bestblock: stats.bestblock.to_string(),
        txouts: stats.txouts,
        bogosize: stats.bogosize,
        hash_serialized_3: hash.clone().filter(|_| kind == HashKind::Serialized3),
        muhash: hash.filter(|_| kind == HashKind::Muhash),
        total_amount: Btc(stats.total_amount.ok_or_else(unreadable)?),
        transactions: stats.transactions,
        // Core, too, gives 0 while its estimate is not known.
        disk_size: 0,
    })
}

/// `gettxoutsetinfo` by the index.
#[derive(Serialize)]
struct IndexedInfo {
    height: u32,
    bestblock: String,
    txouts: u64,
    bogosize: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    muhash: Option<String>,
    total_amount: Btc,
    total_unspendable_amount: Btc,
    block_info: BlockInfo,
}

#[derive(Serialize)]
struct BlockInfo {
    prevout_spent: Btc,
    coinbase: Btc,
    new_outputs_ex_coinbase: Btc,
    unspendable: Btc,
    unspendables: Unspendables,
}

#[derive(Serialize)]
struct Unspendables {
    genesis_block: Btc,
    bip30: Btc,
    scripts: Btc,
    unclaimed_rewards: Btc,
}

impl IndexedInfo {
    fn new(totals: &Totals, (hash, height): (BlockHash, u32), muhash: bool) -> IndexedInfo {
        let btc = |satoshi| Btc(Amount::from_sat(satoshi));
        let block = &totals.block;
        IndexedInfo {
            height,
            bestblock: hash.to_string(),
            txouts: totals.txouts,
            bogosize: totals.bogosize,
            muhash: muhash.then(|| totals.hash().to_string()),
            total_amount: btc(totals.amount),
            total_unspendable_amount: btc(totals.unspendable),
            block_info: BlockInfo {
                prevout_spent: btc(block.prevout_spent),
                coinbase: btc(block.coinbase),
                new_outputs_ex_coinbase: btc(block.new_outputs),
                unspendable: btc(block.unspendable()),
                unspendables: Unspendables {
                    genesis_block: btc(block.genesis),
                    bip30: btc(block.bip30),
                    scripts: btc(block.scripts),
                    unclaimed_rewards: btc(block.unclaimed),
                },
            },
        }
    }
}

/// Counts the coins as of one block.
fn count(node: &NodeHandle, kind: HashKind) -> Result<CoinStats, RpcError> {
    let begin = move |hash, height| CoinCount::new(kind, height, hash);
    let count = walk(node, begin, |count, outpoint, coin| {
        count.add(&outpoint, &coin);
        true
    })?;
    Ok(count.finish())
}

/// Shows all coins as of one block to `each`, in order, until it gives false; `begin` makes what it fills. The ledger waits
/// only until the store's snapshot is taken.
pub fn walk<T: Send + 'static>(
    node: &NodeHandle,
    begin: impl FnOnce(BlockHash, u32) -> T + Send + 'static,
    mut each: impl FnMut(&mut T, OutPoint, Coin) -> bool + Send + 'static,
) -> Result<T, RpcError> {
    let stopping = node.stopping();
    let walking = node.with_ledger(move |ledger| {
        ledger.flush()?;
        let (hash, tree) = (ledger.tip(), ledger.tree());
        let height = {
            let tree = tree.read();
            tree.get(&hash).map_or(0, |id| tree.node(id).height)
        };
        let store = ledger.store();
        let (begun, first) = mpsc::channel::<()>();
        let walking = std::thread::spawn(move || -> Result<Option<T>, StoreError> {
            let mut begun = Some(begun);
            let mut filled = begin(hash, height);
            let mut stopped = false;
            store.for_each_coin(&mut |outpoint, coin| {
                drop(begun.take());
                stopped = *stopping.borrow();
                !stopped && each(&mut filled, outpoint, coin)
            })?;
            Ok((!stopped).then_some(filled))
        });
        // Ends when the first coin is there, or when there is none: either way with an error, since nothing is sent.
        let _ = first.recv();
        Ok(walking)
    })?;
    let bug = |_| RpcError::new(RPC_INTERNAL_ERROR, "the walk over the coins failed: a bug in Groat");
    Ok(walking.join().map_err(bug)??.ok_or(Stopped)?)
}
