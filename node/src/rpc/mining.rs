//! Methods for miners: blocks handed in, blocks made on demand. Core: `src/rpc/mining.cpp`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize_hex, deserialize_partial, serialize, serialize_hex};
use bitcoin::{Amount, Block, ScriptBuf, Transaction, Txid, Witness};
use groat_chain::ledger::Proposal;
use groat_chain::mempool::{Chosen, Selected};
use groat_chain::params::Buried;
use groat_chain::rules::branch::median_time_past;
use groat_chain::rules::commitment::witness_commitment;
use groat_chain::rules::deployment::is_active;
use groat_chain::rules::pow::next_work_required;
use groat_chain::template::Template;
use groat_chain::tree::{Id, Tree};
use hex::{DisplayHex, FromHex};
use serde::Serialize;
use serde_json::Value;

use super::Rpc;
use super::args::{Arg, Args, Kind, text};
use super::error::*;
use super::method::{Answer, Method, answer, done};
use super::number::{Btc, Real};
use super::outputscript::single_script;
use super::rawtransactions::decode_transaction;
use super::script::from_address;
use super::show;
use crate::clock::now;
use crate::handle::NodeHandle;
use crate::miner::{self, search::search};
use crate::requests::Submitted;

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
            Arg::required("descriptor", Kind::Text, "Descriptor that gets the rewards."),
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
        name: "getnetworkhashps",
        group: "mining",
        args: &[
            Arg::optional(
                "nblocks",
                Kind::Number,
                "From how many blocks; -1: those since the last change of difficulty.",
            ),
            Arg::optional("height", Kind::Number, "As of this height; -1: of the tip."),
        ],
        about: "Hashes a second that the network's miners try, as the last blocks show.",
        run: getnetworkhashps,
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
pub fn with_reserved_value(node: &NodeHandle, bytes: Vec<u8>) -> Vec<u8> {
    let Ok((mut block, _)) = deserialize_partial::<Block>(&bytes) else { return bytes };
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
    let script = single_script(descriptor, rpc.node()?.params().address_set)?;
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
    let addresses = node.params().address_set;
    let script = match from_address(output, addresses) {
        Some(script) => script,
        None => single_script(output, addresses).map_err(|error| match error.code {
            RPC_INVALID_ADDRESS_OR_KEY => RpcError::new(error.code, "Error: Invalid address or descriptor"),
            _ => error,
        })?,
    };
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

/// What `getmininginfo` tells of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Weight with what is kept free.
    weight: u64,
    /// Transactions without the coinbase.
    transactions: usize,
}

impl Summary {
    /// What a template took of the pool.
    pub fn of(template: &Template) -> Summary {
        Summary { weight: template.selected.weight, transactions: template.selected.transactions.len() }
    }
}

/// A block on the tip that lacks only the nonce.
fn template(rpc: &Rpc, node: &NodeHandle, script: ScriptBuf, content: Content) -> Result<Block, RpcError> {
    let limits = &rpc.config.block_limits;
    let with_pool = matches!(content, Content::Pool);
    let mut template = miner::next_block(node, script.clone(), limits, with_pool)?.template;
    *rpc.last.lock() = Some(Summary::of(&template));
    let block = |template: Template| template.block(template.header(&template.coinbase), template.coinbase.clone());
    let Content::Given(transactions) = content else { return Ok(block(template)) };
    let mut selected = Selected::nothing(limits);
    selected.transactions = transactions.into_iter().map(Chosen::unpaid).collect();
    template = Template::new(template.place, script, selected);
    let block = block(template);
    let decoded = groat_chain::block::Block::decode(&serialize(&block));
    let decoded = decoded.map_err(|_| RpcError::new(RPC_VERIFY_ERROR, "Block decode failed"))?;
    let judged = match node.propose(Arc::new(decoded), now())? {
        Proposal::Valid => return Ok(block),
        Proposal::NotOnTip => super::template::NOT_ON_TIP.to_string(),
        Proposal::Rejected(rejection) => rejection.to_string(),
    };
    Err(RpcError::new(RPC_VERIFY_ERROR, format!("TestBlockValidity failed: {judged}")))
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
    let _alone = rpc.mining.lock();
    let mut block = template(rpc, node, script, content)?;
    let stopping = node.stopping();
    if !search(&mut block.header, node.params(), tries, || *stopping.borrow()) {
        return Ok(None);
    }
    if submit {
        match node.submit_block(serialize(&block))? {
            Submitted::Accepted | Submitted::Inconclusive | Submitted::Duplicate => {}
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
        /// Not one of Core's: there only while this node mines.
        #[serde(skip_serializing_if = "Option::is_none")]
        hashespersec: Option<u64>,
        pooledtx: usize,
        blockmintxfee: Btc,
        chain: &'a str,
        next: Next,
        #[serde(skip_serializing_if = "Option::is_none")]
        signet_challenge: Option<String>,
        warnings: Vec<String>,
    }
    #[derive(Serialize)]
    struct Next {
        height: u32,
        bits: String,
        difficulty: Real,
        target: String,
    }
    let last = *rpc.last.lock();
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
        networkhashps: Real(network_hashes_per_second(&tree, tree.tip(), HASHPS_BLOCKS)),
        hashespersec: Some(node.hash_rate()).filter(|rate| *rate > 0),
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
        warnings: node.warnings().messages(),
    })
}

fn getnetworkhashps(rpc: &Rpc, args: &Args) -> Answer {
    let blocks = args.int::<i32>(0)?.unwrap_or(HASHPS_BLOCKS as i32);
    let height = args.int::<i32>(1)?.unwrap_or(-1);
    let refuse = |text: &str| RpcError::new(RPC_INVALID_PARAMETER, text);
    if blocks < -1 || blocks == 0 {
        return Err(refuse("Invalid nblocks. Must be a positive number or -1."));
    }
    let node = rpc.node()?;
    let tree = node.tree().read();
    let end = match u32::try_from(height) {
        Ok(height) => tree.active(height),
        Err(_) => Some(tree.tip()).filter(|_| height == -1),
    };
    let end = end.ok_or_else(|| refuse("Block does not exist at specified height"))?;
    let since_retarget = tree.node(end).height % node.params().retarget_interval + 1;
    answer(Real(network_hashes_per_second(&tree, end, u32::try_from(blocks).unwrap_or(since_retarget))))
}

/// Core: `GetNetworkHashPS`, for the active chain up to `end` and its last `blocks` blocks.
fn network_hashes_per_second(tree: &Tree, end: Id, blocks: u32) -> f64 {
    let last = tree.node(end).height;
    let first = last.saturating_sub(blocks);
    let ids = (first..=last).filter_map(|height| tree.active(height));
    let times: BTreeSet<u32> = ids.map(|id| tree.node(id).time).collect();
    let span = times.last().zip(times.first()).map_or(0, |(last, first)| last - first);
    let Some(first) = tree.active(first).filter(|_| span > 0) else { return 0.0 };
    let work = (tree.node(end).work - tree.node(first).work).to_be_bytes();
    work.iter().fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte)) / f64::from(span)
}
