//! Methods for miners: blocks handed in, blocks made on demand. Core: `src/rpc/mining.cpp`.

use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, deserialize_hex, serialize, serialize_hex};
use bitcoin::{Amount, Block, ScriptBuf, Transaction, Txid, Witness};
use groat_chain::params::Buried;
use groat_chain::rules::block::witness_commitment;
use groat_chain::rules::deployment::is_active;
use groat_chain::rules::header::median_time_past;
use groat_chain::rules::pow::next_work_required;
use groat_chain::tree::Tree;
use hex::{DisplayHex, FromHex};
use serde::Serialize;
use serde_json::Value;

use super::Rpc;
use super::args::{Arg, Args, Kind, text};
use super::error::*;
use super::method::{Answer, Method, answer, done};
use super::number::{Btc, Real};
use super::rawtransactions::decode_transaction;
use super::script::{from_address, from_descriptor};
use super::show;
use crate::clock::now;
use crate::handle::{NodeHandle, Stopped, Submitted};
use crate::miner;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "generateblock",
        group: "hidden",
        args: &[
            Arg::required("output", Kind::Text, "Address or descriptor that gets the reward."),
            Arg::required("transactions", Kind::Array("\"rawtx/txid\""), "Raw transactions in hex, in their order."),
            Arg::optional("submit", Kind::Bool, "false: give the block as hex and leave the chain as it is."),
        ],
        about: "Mines a block with these transactions at once.",
        run: generateblock,
    },
    Method {
        name: "generatetoaddress",
        group: "hidden",
        args: &[
            Arg::required("nblocks", Kind::Number, "How many blocks."),
            Arg::required("address", Kind::Text, "Address that gets the rewards."),
            Arg::optional("maxtries", Kind::Number, "Nonces to try in all."),
        ],
        about: "Mines blocks at once and gives their hashes.",
        run: generatetoaddress,
    },
    Method {
        name: "generatetodescriptor",
        group: "hidden",
        args: &[
            Arg::required("num_blocks", Kind::Number, "How many blocks."),
            Arg::required("descriptor", Kind::Text, "Descriptor that gets the rewards: raw(HEX) or addr(ADDRESS)."),
            Arg::optional("maxtries", Kind::Number, "Nonces to try in all."),
        ],
        about: "Mines blocks at once and gives their hashes.",
        run: generatetodescriptor,
    },
    Method {
        name: "getmininginfo",
        group: "mining",
        args: &[],
        about: "What a miner wants to know of the chain.",
        run: getmininginfo,
    },
    Method {
        name: "submitblock",
        group: "mining",
        args: &[
            Arg::required("hexdata", Kind::Hex, "The block."),
            Arg::optional("dummy", Kind::Text, "Ignored, as BIP22 has it."),
        ],
        about: "Hands a block in. Null: it is the new tip; otherwise a word that says why not (BIP22).",
        run: submitblock,
    },
    Method {
        name: "submitheader",
        group: "mining",
        args: &[Arg::required("hexdata", Kind::Hex, "The 80 bytes.")],
        about: "Hands a header in, whose parent is known.",
        run: submitheader,
    },
];

/// Core's name and value.
const DEFAULT_MAX_TRIES: u64 = 1_000_000;
/// Blocks from which the network's speed is estimated. Core: `getnetworkhashps`'s default.
const HASHPS_BLOCKS: u32 = 120;

fn submitblock(rpc: &Rpc, args: &Args) -> Answer {
    let undecodable = || RpcError::new(RPC_DESERIALIZATION_ERROR, "Block decode failed");
    let bytes = Vec::from_hex(args.text(0).unwrap_or_default()).map_err(|_| undecodable())?;
    let node = rpc.node()?;
    let bytes = with_reserved_value(node, bytes);
    match node.submit_block(bytes)? {
        Submitted::Accepted => done(),
        Submitted::Duplicate => answer("duplicate"),
        Submitted::Inconclusive => answer("inconclusive"),
        Submitted::Rejected(rejection) => answer(rejection.to_string()),
        Submitted::Undecodable => Err(undecodable()),
    }
}

/// Some miners leave the coinbase's reserved value out: it is zeros then. Core: `UpdateUncommittedBlockStructures`.
fn with_reserved_value(node: &NodeHandle, bytes: Vec<u8>) -> Vec<u8> {
    let Ok(mut block) = deserialize::<Block>(&bytes) else { return bytes };
    let Some(coinbase) = block.txdata.first().filter(|first| first.is_coinbase()) else { return bytes };
    let commits = witness_commitment(coinbase).is_some() && coinbase.input[0].witness.is_empty();
    let tree = node.tree().read();
    let parent = tree.get(&block.header.prev_blockhash).map(|parent| tree.node(parent).height);
    if commits && parent.is_some_and(|height| is_active(Buried::Segwit, height + 1, node.params())) {
        block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 32]]);
        return serialize(&block);
    }
    bytes
}

fn submitheader(rpc: &Rpc, args: &Args) -> Answer {
    let header: Header = deserialize_hex(args.text(0).unwrap_or_default())
        .map_err(|_| RpcError::new(RPC_DESERIALIZATION_ERROR, "Block header decode failed"))?;
    let node = rpc.node()?;
    if node.tree().read().get(&header.prev_blockhash).is_none() {
        let text = format!("Must submit previous header ({}) first", header.prev_blockhash);
        return Err(RpcError::new(RPC_VERIFY_ERROR, text));
    }
    match node.with_ledger(move |ledger| Ok(ledger.accept_header(&header, now())))? {
        Ok(_) => done(),
        Err(rejection) => Err(RpcError::new(RPC_VERIFY_ERROR, rejection.to_string())),
    }
}

fn generatetoaddress(rpc: &Rpc, args: &Args) -> Answer {
    let (count, tries) = (args.int::<i32>(0)?, args.int::<u64>(2)?);
    let address = args.text(1).unwrap_or_default();
    let script = from_address(address, rpc.node()?.params().address_set)
        .ok_or_else(|| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Error: Invalid address"))?;
    generate(rpc, script, count, tries)
}

fn generatetodescriptor(rpc: &Rpc, args: &Args) -> Answer {
    let (count, tries) = (args.int::<i32>(0)?, args.int::<u64>(2)?);
    let descriptor = args.text(1).unwrap_or_default();
    let script = from_descriptor(descriptor, rpc.node()?.params().address_set)
        .map_err(|text| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, text))?;
    generate(rpc, script, count, tries)
}

fn generate(rpc: &Rpc, script: ScriptBuf, count: Option<i32>, tries: Option<u64>) -> Answer {
    let mut tries = tries.unwrap_or(DEFAULT_MAX_TRIES);
    let mut hashes = Vec::new();
    for _ in 0..count.unwrap_or(0).max(0) {
        let Some(block) = mine(rpc, script.clone(), Content::Pool, &mut tries, true)? else { break };
        hashes.push(block.block_hash().to_string());
    }
    answer(hashes)
}

fn generateblock(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Generated {
        hash: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        hex: Option<String>,
    }
    let node = rpc.node()?;
    let output = args.text(0).unwrap_or_default();
    let script = from_descriptor(output, node.params().address_set)
        .ok()
        .or_else(|| from_address(output, node.params().address_set))
        .ok_or_else(|| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Error: Invalid address or descriptor"))?;
    let given = args.get(1).as_array().map(Vec::as_slice).unwrap_or_default();
    let transactions = given.iter().map(|given| transaction(node, given)).collect::<Result<Vec<_>, _>>()?;
    let submit = args.bool(2).unwrap_or(true);
    let block = mine(rpc, script, Content::Given(transactions), &mut DEFAULT_MAX_TRIES.clone(), submit)?
        .ok_or_else(|| RpcError::new(RPC_MISC_ERROR, "Failed to make block."))?;
    answer(Generated { hash: block.block_hash().to_string(), hex: (!submit).then(|| serialize_hex(&block)) })
}

/// A transaction in hex, or the id of one of the pool.
fn transaction(node: &NodeHandle, given: &Value) -> Result<Transaction, RpcError> {
    let text = text(given)?;
    if let Ok(txid) = text.parse::<Txid>() {
        let missing = || RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, format!("Transaction {text} not in mempool."));
        let pool = node.mempool().read();
        return pool.get(&txid).map(|entry| (*entry.tx).clone()).ok_or_else(missing);
    }
    decode_transaction(text, None).ok_or_else(|| {
        let text = format!("Transaction decode failed for {text}. Make sure the tx has at least one input.");
        RpcError::new(RPC_DESERIALIZATION_ERROR, text)
    })
}

/// What a block is to hold.
enum Content {
    /// What the pool gives, with its fees.
    Pool,
    /// These, whose fees are left unclaimed.
    Given(Vec<Transaction>),
}

/// How often the pool is looked at while it follows a change of the chain.
const POOL_PAUSE: Duration = Duration::from_millis(1);

/// A block on the tip that lacks only the nonce.
fn template(rpc: &Rpc, node: &NodeHandle, script: &ScriptBuf, content: &Content) -> Result<Block, RpcError> {
    loop {
        let (tree, pool) = (node.tree().read(), node.mempool().read());
        let (parent, params) = (tree.tip(), node.params());
        let (transactions, fees) = match content {
            Content::Given(transactions) => (transactions.clone(), Amount::ZERO),
            Content::Pool if pool.tip() != Some(tree.node(parent).hash) => {
                drop((tree, pool));
                if *node.stopping().borrow() {
                    return Err(Stopped.into());
                }
                std::thread::sleep(POOL_PAUSE);
                continue;
            }
            Content::Pool => {
                let selected = miner::select(&tree, parent, &pool, &rpc.config.block_limits);
                let transactions = selected.transactions.iter().map(|chosen| (*chosen.tx).clone()).collect();
                (transactions, Amount::from_sat(selected.fees))
            }
        };
        return Ok(miner::template(&tree, parent, params, now(), script.clone(), transactions, fees));
    }
}

/// Mines a block on the tip and hands it in; none if no nonce was found.
fn mine(
    rpc: &Rpc,
    script: ScriptBuf,
    content: Content,
    tries: &mut u64,
    submit: bool,
) -> Result<Option<Block>, RpcError> {
    let node = rpc.node()?;
    let mut last = rpc.mining.lock();
    let mut block = template(rpc, node, &script, &content)?;
    *last = Some(miner::summary(&block, &rpc.config.block_limits));
    let stopping = node.stopping();
    if !miner::search(&mut block.header, node.params(), tries, || *stopping.borrow()) {
        return Ok(None);
    }
    if submit {
        match node.submit_block(serialize(&block))? {
            Submitted::Accepted | Submitted::Inconclusive | Submitted::Duplicate => {}
            Submitted::Rejected(rejection) if block.txdata.len() > 1 => {
                return Err(RpcError::new(RPC_VERIFY_ERROR, format!("TestBlockValidity failed: {rejection}")));
            }
            Submitted::Rejected(_) | Submitted::Undecodable => {
                return Err(RpcError::new(RPC_INTERNAL_ERROR, "ProcessNewBlock, block not accepted"));
            }
        }
    }
    Ok(Some(block))
}

fn getmininginfo(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct MiningInfo<'a> {
        blocks: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        currentblockweight: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        currentblocktx: Option<usize>,
        bits: String,
        difficulty: Real,
        target: String,
        networkhashps: Real,
        pooledtx: usize,
        blockmintxfee: Btc,
        chain: &'a str,
        next: Next,
        #[serde(skip_serializing_if = "Option::is_none")]
        signet_challenge: Option<String>,
        warnings: [String; 0],
    }
    #[derive(Serialize)]
    struct Next {
        height: u32,
        bits: String,
        difficulty: Real,
        target: String,
    }
    // A block may be in the making for long: what is told of it can wait.
    let last = rpc.mining.try_lock().and_then(|last| *last);
    let node = rpc.node()?;
    let params = node.params();
    let tree = node.tree().read();
    let tip = tree.node(tree.tip());
    let branch = tree.branch(tree.tip());
    let next = next_work_required(&branch, now().max(median_time_past(&branch) + 1), params);
    answer(MiningInfo {
        blocks: tip.height,
        currentblockweight: last.map(|last| last.weight),
        currentblocktx: last.map(|last| last.transactions),
        bits: show::bits(tip.bits),
        difficulty: show::difficulty(tip.bits),
        target: show::target(tip.bits, params),
        networkhashps: Real(network_hashes_per_second(&tree)),
        pooledtx: node.mempool().read().len(),
        blockmintxfee: Btc(Amount::from_sat(rpc.config.block_limits.min_fee)),
        chain: &params.name,
        next: Next {
            height: tip.height + 1,
            bits: show::bits(next),
            difficulty: show::difficulty(next),
            target: show::target(next, params),
        },
        signet_challenge: params.signet_challenge.as_ref().map(|script| script.as_bytes().to_lower_hex_string()),
        warnings: [],
    })
}

/// Core: `GetNetworkHashPS`, for the tip and [`HASHPS_BLOCKS`].
fn network_hashes_per_second(tree: &Tree) -> f64 {
    let tip = tree.node(tree.tip()).height;
    let first = tip.saturating_sub(HASHPS_BLOCKS);
    let ids = (first..=tip).filter_map(|height| tree.active(height));
    let times: BTreeSet<u32> = ids.map(|id| tree.node(id).time).collect();
    let span = times.last().zip(times.first()).map_or(0, |(last, first)| last - first);
    let Some(first) = tree.active(first).filter(|_| span > 0) else { return 0.0 };
    let work = (tree.node(tree.tip()).work - tree.node(first).work).to_be_bytes();
    work.iter().fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte)) / f64::from(span)
}
