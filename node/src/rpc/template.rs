//! `getblocktemplate` ([BIP-0022], [BIP-0023], [BIP-0145]): the next block for miners elsewhere, waiting for a better one,
//! and blocks that they propose. Core: `src/rpc/mining.cpp`.
//!
//! [BIP-0022]: https://github.com/bitcoin/bips/blob/master/bip-0022.mediawiki
//! [BIP-0023]: https://github.com/bitcoin/bips/blob/master/bip-0023.mediawiki
//! [BIP-0145]: https://github.com/bitcoin/bips/blob/master/bip-0145.mediawiki

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{BlockHash, ScriptBuf};
use groat_chain::block::Block;
use groat_chain::ledger::Proposal;
use groat_chain::params::Params;
use groat_chain::rules::deployment::{State, state};
use groat_chain::rules::limits::{
    MAX_BLOCK_SERIALIZED_SIZE, MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT, WITNESS_SCALE_FACTOR,
};
use groat_chain::template::{Place, Template};
use hex::{DisplayHex, FromHex};
use serde::Serialize;
use serde_json::Value;

use super::Rpc;
use super::args::{Arg, Args, Kind, hash, text};
use super::blockchain::is_initial_block_download;
use super::error::*;
use super::method::{Answer, Method, answer, done};
use super::mining::Summary;
use super::show;
use crate::clock::now;
use crate::handle::NodeHandle;
use crate::miner::{Fresh, next_block};

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[Method {
    name: "getblocktemplate",
    group: "mining",
    args: &[Arg::required(
        "template_request",
        Kind::Object(
            "{\"mode\":\"str\",\"capabilities\":[\"str\",...],\"rules\":[\"segwit\",\"str\",...],\"longpollid\":\"str\",\
             \"data\":\"hex\"}",
        ),
        "What the miner knows; with mode \"proposal\" the block to judge.",
    )],
    about: "The next block for a miner to fill (BIP22), or the verdict on a block that it proposes (BIP23).",
    run: getblocktemplate,
}];

/// BIP23.
pub const NOT_ON_TIP: &str = "inconclusive-not-best-prevblk";
/// A changed pool makes a new template after this many seconds.
const REFRESH_SECONDS: u32 = 5;

/// The template that was given last: it is good until the tip changes, or for some seconds after the pool does.
pub struct Given {
    template: Arc<Template>,
    generation: u64,
    made: u32,
}

#[derive(Serialize)]
struct BlockTemplate {
    capabilities: [&'static str; 1],
    version: i32,
    rules: Vec<&'static str>,
    vbavailable: BTreeMap<&'static str, u8>,
    vbrequired: u32,
    previousblockhash: String,
    transactions: Vec<TemplateTransaction>,
    coinbaseaux: BTreeMap<(), ()>,
    coinbasevalue: u64,
    longpollid: String,
    target: String,
    mintime: u32,
    mutable: [&'static str; 3],
    noncerange: &'static str,
    sigoplimit: u64,
    sizelimit: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    weightlimit: Option<u64>,
    curtime: u32,
    bits: String,
    height: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    signet_challenge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_witness_commitment: Option<String>,
}

#[derive(Serialize)]
struct TemplateTransaction {
    data: String,
    txid: String,
    hash: String,
    /// Places in the block of those that it spends of; the coinbase has place 0.
    depends: Vec<usize>,
    fee: u64,
    sigops: u64,
    weight: u64,
}

fn getblocktemplate(rpc: &Rpc, args: &Args) -> Answer {
    let request = args.get(0);
    let node = rpc.node()?;
    let refuse = |text: &str| RpcError::new(RPC_INVALID_PARAMETER, text);
    match &request["mode"] {
        Value::Null => {}
        Value::String(mode) if mode == "proposal" => return propose(node, &request["data"]),
        Value::String(mode) if mode == "template" => {}
        _ => return Err(refuse("Invalid mode")),
    }
    let rules = request["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rules = rules.iter().map(text).collect::<Result<BTreeSet<&str>, _>>()?;
    check_connected(rpc, node)?;
    let waited = &request["longpollid"];
    if let Some(id) = waited.as_str() {
        Watched::parse(id)?;
    }
    if !waited.is_null() && *node.stopping().borrow() {
        return Err(RpcError::new(RPC_CLIENT_NOT_CONNECTED, "Shutting down"));
    }
    let params = node.params();
    if params.signet_challenge.is_some() && !rules.contains("signet") {
        return Err(refuse(
            "getblocktemplate must be called with the signet rule set (call with {\"rules\": [\"segwit\", \"signet\"]})",
        ));
    }
    if !rules.contains("segwit") {
        return Err(refuse(
            "getblocktemplate must be called with the segwit rule set (call with {\"rules\": [\"segwit\"]})",
        ));
    }
    let (template, generation) = current(rpc, node)?;
    answer(shown(node, &template, generation)?)
}

/// Where it is for money, a miner must not work on a stale chain.
fn check_connected(rpc: &Rpc, node: &NodeHandle) -> Result<(), RpcError> {
    if node.params().name != "main" {
        return Ok(());
    }
    if node.peers()?.is_empty() {
        return Err(RpcError::new(RPC_CLIENT_NOT_CONNECTED, "Groat is not connected!"));
    }
    if is_initial_block_download(rpc, node) {
        let text = "Groat is in initial sync and waiting for blocks...";
        return Err(RpcError::new(RPC_CLIENT_IN_INITIAL_DOWNLOAD, text));
    }
    Ok(())
}

/// The template to give: the last one, if it is good still.
fn current(rpc: &Rpc, node: &NodeHandle) -> Result<(Arc<Template>, u64), RpcError> {
    let mut given = rpc.template.lock();
    let (tip, generation) = (node.tip().0, node.mempool().read().generation());
    if let Some(given) = &*given {
        let old = given.generation != generation && now().saturating_sub(given.made) > REFRESH_SECONDS;
        if given.template.place.parent == tip && !old {
            return Ok((given.template.clone(), given.generation));
        }
    }
    let limits = &rpc.config.block_limits;
    let Fresh { template, generation } = next_block(node, ScriptBuf::new(), limits, true)?;
    *rpc.last.lock() = Some(Summary::of(&template));
    let template = Arc::new(template);
    *given = Some(Given { template: template.clone(), generation, made: now() });
    Ok((template, generation))
}

fn shown(node: &NodeHandle, template: &Template, generation: u64) -> Result<BlockTemplate, RpcError> {
    let params = node.params();
    let (place, bits) = {
        let tree = node.tree().read();
        // Core, too, gives the template of a tip that was just left: the miner asks again.
        let parent = tree.get(&template.place.parent).unwrap_or(tree.tip());
        let branch = tree.branch(parent);
        // The time goes on, and never back.
        let place = Place::on(&branch, template.place.parent, params, now().max(template.place.time));
        (place, deployments(params, |deployment| state(deployment, &branch, tree.node(parent).height + 1)))
    };
    let (segwit, scale) = (place.segwit, if place.segwit { 1 } else { WITNESS_SCALE_FACTOR as u64 });
    let mut rules = vec!["csv"];
    if segwit {
        rules.extend(["!segwit", "taproot"]);
    }
    if params.signet_challenge.is_some() {
        rules.push("!signet");
    }
    rules.extend(bits.active);
    let chosen = &template.selected.transactions;
    let places: HashMap<_, _> = chosen.iter().enumerate().map(|(at, chosen)| (chosen.txid, at + 1)).collect();
    let transactions = chosen.iter().map(|chosen| TemplateTransaction {
        data: serialize_hex(&*chosen.tx),
        txid: chosen.txid.to_string(),
        hash: chosen.wtxid.to_string(),
        depends: chosen.tx.input.iter().filter_map(|input| places.get(&input.previous_output.txid).copied()).collect(),
        fee: chosen.fee,
        sigops: chosen.sigop_cost / scale,
        weight: chosen.weight,
    });
    Ok(BlockTemplate {
        capabilities: ["proposal"],
        version: place.version,
        rules,
        vbavailable: bits.available,
        vbrequired: 0,
        previousblockhash: place.parent.to_string(),
        transactions: transactions.collect(),
        coinbaseaux: BTreeMap::new(),
        coinbasevalue: template.coinbase.output[0].value.to_sat(),
        longpollid: format!("{}{generation}", place.parent),
        target: show::target(place.bits, params),
        mintime: place.min_time,
        mutable: ["time", "transactions", "prevblock"],
        noncerange: "00000000ffffffff",
        sigoplimit: MAX_BLOCK_SIGOPS_COST / scale,
        sizelimit: MAX_BLOCK_SERIALIZED_SIZE as u64 / scale,
        weightlimit: segwit.then_some(MAX_BLOCK_WEIGHT as u64),
        curtime: place.time,
        bits: show::bits(place.bits),
        height: place.height,
        signet_challenge: params.signet_challenge.as_ref().map(|script| script.as_bytes().to_lower_hex_string()),
        default_witness_commitment: template.commitment().map(|script| script.as_bytes().to_lower_hex_string()),
    })
}

/// Deployments by version bits that a miner has to do with. None of those that there are changes what a miner that does
/// not know them would make: all are optional (BIP9).
#[derive(Default)]
struct Deployments {
    available: BTreeMap<&'static str, u8>,
    active: Vec<&'static str>,
}

fn deployments(params: &Params, state: impl Fn(&groat_chain::params::Deployment) -> State) -> Deployments {
    let mut found = Deployments::default();
    for deployment in &params.deployments {
        match state(deployment) {
            State::Started | State::LockedIn => drop(found.available.insert(deployment.name, deployment.bit)),
            State::Active => found.active.push(deployment.name),
            State::Defined | State::Failed => {}
        }
    }
    found
}

/// The verdict on a block that is proposed.
fn propose(node: &NodeHandle, data: &Value) -> Answer {
    let hex = data.as_str().ok_or_else(|| RpcError::new(RPC_TYPE_ERROR, "Missing data String key for proposal"))?;
    let bytes = Vec::from_hex(hex).ok();
    let block = bytes.and_then(|bytes| Block::decode_prefix(&bytes).ok());
    let block = block.ok_or_else(|| RpcError::new(RPC_DESERIALIZATION_ERROR, "Block decode failed"))?;
    let known = {
        let tree = node.tree().read();
        tree.get(&block.hash).map(|id| match tree.node(id) {
            known if known.is_invalid() => "duplicate-invalid",
            // Genesis was never connected.
            known if known.is_proven() && known.height > 0 => "duplicate",
            _ => "duplicate-inconclusive",
        })
    };
    if let Some(word) = known {
        return answer(word);
    }
    match node.propose(Arc::new(block), now())? {
        Proposal::Valid => done(),
        Proposal::NotOnTip => answer(NOT_ON_TIP),
        Proposal::Rejected(rejection) => answer(rejection.to_string()),
    }
}

/// Calls that may wait at once for another template; who comes then is answered at once, as BIP22 allows.
pub const MAX_LONG_POLLS: usize = 64;
/// A changed pool ends the wait after so long.
const POOL_WAIT: Duration = Duration::from_secs(60);
/// How often the pool is looked at from then on.
const POOL_POLL: Duration = Duration::from_secs(10);

/// What a long poll waits for to change.
struct Watched {
    tip: BlockHash,
    generation: u64,
}

impl Watched {
    /// Reads a `longpollid`: a block and the state of the pool.
    fn parse(id: &str) -> Result<Watched, RpcError> {
        let (tip, generation) = id.split_at_checked(64).unwrap_or((id, ""));
        Ok(Watched { tip: hash(tip, "longpollid")?, generation: generation.parse().unwrap_or(0) })
    }

    /// What the body of a call asks to wait for; none if it does not ask. Calls in a batch do not wait.
    fn of(body: &[u8], node: &NodeHandle, given: impl Fn() -> Option<u64>) -> Option<Watched> {
        /// Bytes that a call for a template has at most, and many others have not.
        const MAX_REQUEST: usize = 1 << 16;
        const KEY: &[u8] = b"longpollid";
        if body.len() > MAX_REQUEST || !body.windows(KEY.len()).any(|window| window == KEY) {
            return None;
        }
        let call: Value = serde_json::from_slice(body).ok()?;
        let request = call["params"].get(0).or_else(|| call["params"].get("template_request"))?;
        if call["method"] != "getblocktemplate" || !matches!(request["mode"].as_str(), None | Some("template")) {
            return None;
        }
        match &request["longpollid"] {
            Value::Null => None,
            Value::String(id) => Watched::parse(id).ok(),
            _ => Some(Watched { tip: node.tip().0, generation: given().unwrap_or(0) }),
        }
    }
}

/// Waits, without a thread, as long as a call wants to: for another tip, or for another pool once a minute is over. Ends at
/// once for any other call.
pub async fn wait_for_other(rpc: &Rpc, body: &[u8]) {
    let Ok(node) = rpc.node() else { return };
    let given = || rpc.template.try_lock()?.as_ref().map(|given| given.generation);
    let Some(watched) = Watched::of(body, node, given) else { return };
    let (mut tips, mut stopping) = (node.tips(), node.stopping());
    let other = async {
        // Both end with an error when the node is gone.
        let _ = tokio::select! {
            ended = tips.wait_for(|tip| *tip != watched.tip) => ended.map(drop),
            ended = stopping.wait_for(|stopping| *stopping) => ended.map(drop),
        };
    };
    let pool = async {
        tokio::time::sleep(POOL_WAIT).await;
        while node.mempool().read().generation() == watched.generation {
            tokio::time::sleep(POOL_POLL).await;
        }
    };
    tokio::select! { () = other => {} () = pool => {} }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_poll_names_a_block_and_a_state_of_the_pool() {
        let tip = "11".repeat(32);
        let read = Watched::parse(&format!("{tip}42")).expect("it is well formed");
        assert_eq!((read.tip.to_string(), read.generation), (tip.clone(), 42));
        assert_eq!(Watched::parse(&tip).expect("it is a block").generation, 0);
        for (id, text) in [
            ("x".to_string(), "longpollid must be of length 64 (not 1, for 'x')"),
            ("z".repeat(65), &format!("longpollid must be hexadecimal string (not '{}')", "z".repeat(64))),
        ] {
            assert_eq!(Watched::parse(&id).err().map(|error| error.message), Some(text.to_string()));
        }
    }
}
