//! Estimates of the fee rate that gets a transaction mined in time. Core: `src/rpc/fees.cpp`; the estimator is our own.
//!
//! Core learns from transactions that it has seen wait and be mined, for hours before it says a word. Here two things are
//! looked at whenever somebody asks: what the waiting transactions leave of the next blocks, and what the last blocks asked
//! for a place. On a quiet network both have room, and the least fee that is relayed will do.

use bitcoin::{Amount, BlockHash};
use groat_chain::block::Block;
use groat_chain::coins::Coin;
use groat_chain::mempool::{BlockLimits, Mempool};
use groat_chain::store::codec;
use groat_chain::tree::Id;
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::blockchain::is_initial_block_download;
use super::error::*;
use super::method::{Answer, Method, answer};
use super::number::{Btc, Real};
use crate::clock::now;
use crate::handle::NodeHandle;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "estimaterawfee",
        group: "hidden",
        args: &[
            Arg::required("conf_target", Kind::Number, "Blocks within which it should be mined (1 - 1008)."),
            Arg::optional("threshold", Kind::Number, "Which part of all such transactions should have been."),
        ],
        about: "Core's statistics of transactions by their fee rate. Groat keeps none and says so as Core does.",
        run: estimaterawfee,
    },
    Method {
        name: "estimatesmartfee",
        group: "util",
        args: &[
            Arg::required("conf_target", Kind::Number, "Blocks within which it should be mined (1 - 1008)."),
            Arg::optional("estimate_mode", Kind::Text, "unset, economical or conservative."),
        ],
        about: "The fee rate that gets a transaction mined within some blocks.",
        run: estimatesmartfee,
    },
];

/// Core: `CBlockPolicyEstimator::HighestTargetTracked` of its longest horizon.
const MAX_TARGET: u32 = 1008;
/// The last blocks that are looked at.
const RECENT_BLOCKS: u32 = 6;
/// Part of a block's weight above which it had no room: what it took tells what a place cost.
const FULL: f64 = 0.95;
/// Part of a full block's weight that paid less than what is said to be its price.
const CHEAP: f64 = 0.05;

/// What the last blocks ask for a place, lowest height first, as long as the tip is `tip`.
#[derive(Default)]
pub struct Recent {
    tip: Option<BlockHash>,
    /// Satoshi for 1000 virtual bytes; 0: there was room.
    prices: Vec<u64>,
}

/// Core: `ParseConfirmTarget`.
fn target(args: &Args) -> Result<u32, RpcError> {
    let target = args.int::<i32>(0)?.and_then(|target| u32::try_from(target).ok());
    target.filter(|target| (1..=MAX_TARGET).contains(target)).ok_or_else(|| {
        let text = format!("Invalid conf_target, must be between 1 and {MAX_TARGET}");
        RpcError::new(RPC_INVALID_PARAMETER, text)
    })
}

fn estimatesmartfee(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Estimate {
        #[serde(skip_serializing_if = "Option::is_none")]
        feerate: Option<Btc>,
        #[serde(skip_serializing_if = "Option::is_none")]
        errors: Option<[&'static str; 1]>,
        blocks: u32,
    }
    let target = target(args)?;
    let conservative = match args.text(1).unwrap_or("economical").to_ascii_lowercase().as_str() {
        "unset" | "economical" => false,
        "conservative" => true,
        _ => {
            let text = "Invalid estimate_mode parameter, must be one of: \"unset\", \"economical\", \"conservative\"";
            return Err(RpcError::new(RPC_INVALID_PARAMETER, text));
        }
    };
    let node = rpc.node()?;
    // A pool that is not whole, or blocks of long ago, say nothing about the next block.
    if is_initial_block_download(rpc, node) || !node.is_mempool_loaded() {
        let errors = Some(["Insufficient data or no feerate found"]);
        return answer(Estimate { feerate: None, errors, blocks: target });
    }
    let recent = price_of_recent(rpc, node, conservative)?;
    let pool = node.mempool().read();
    let waiting = price_of_waiting(&pool, &rpc.config.block_limits, target);
    let least = pool.min_fee(now().into()).max(pool.policy().min_relay_fee);
    // Who can wait for longer than the last blocks took does not pay their price.
    let recent = if target <= RECENT_BLOCKS || conservative { recent } else { 0 };
    let rate = Amount::from_sat(recent.max(waiting).max(least));
    answer(Estimate { feerate: Some(Btc(rate)), errors: None, blocks: target })
}

/// The rate above which the waiting transactions leave room in `target` blocks, in satoshi for 1000 virtual bytes; 0: they
/// all fit.
fn price_of_waiting(pool: &Mempool, limits: &BlockLimits, target: u32) -> u64 {
    let mut room = (limits.max_weight - limits.reserved_weight) * u64::from(target);
    if pool.vsize() * 4 <= room {
        return 0;
    }
    for entry in pool.iter() {
        if entry.weight > room {
            let rate = pool.chunk(entry).rate;
            return (u64::try_from(rate.fee).unwrap_or(0) * 4000 / rate.size.max(1)) + 1;
        }
        room -= entry.weight;
    }
    0
}

/// What the last blocks ask for a place: the middle of them, or to be on the safe side the most.
fn price_of_recent(rpc: &Rpc, node: &NodeHandle, conservative: bool) -> Result<u64, RpcError> {
    let mut recent = rpc.fees.lock();
    let tip = node.tip().0;
    if recent.tip != Some(tip) {
        let ids: Vec<Id> = {
            let tree = node.tree().read();
            let top = tree.node(tree.tip()).height;
            (top.saturating_sub(RECENT_BLOCKS - 1).max(1)..=top).filter_map(|height| tree.active(height)).collect()
        };
        let prices = ids.into_iter().map(|id| price_of(rpc, node, id)).collect::<Result<Vec<u64>, RpcError>>()?;
        *recent = Recent { tip: Some(tip), prices };
    }
    let mut prices = recent.prices.clone();
    prices.sort_unstable();
    let chosen = if conservative { prices.last() } else { prices.get(prices.len() / 2) };
    Ok(chosen.copied().unwrap_or(0))
}

/// What a block asks for a place; 0 where it had room, or is not stored any more.
fn price_of(rpc: &Rpc, node: &NodeHandle, id: Id) -> Result<u64, RpcError> {
    let (block, undo, size) = {
        let tree = node.tree().read();
        let node = tree.node(id);
        (node.block(), node.undo(), node.size)
    };
    let full = (rpc.config.block_limits.max_weight as f64 * FULL) as u64;
    let (Some(block), Some(undo)) = (block, undo) else { return Ok(0) };
    // No byte weighs more than four.
    if u64::from(size) * 4 < full {
        return Ok(0);
    }
    let damaged = || RpcError::new(RPC_MISC_ERROR, "a stored block cannot be read");
    let block = Block::decode(&node.store().read_block(block)?).map_err(|_| damaged())?;
    if (block.weight() as u64) < full {
        return Ok(0);
    }
    let spent = codec::decode_undo(&node.store().read_undo(undo)?).map_err(|_| damaged())?;
    Ok(price(&block, &spent))
}

/// The rate that all but the cheapest part of a block's transactions pay, in satoshi for 1000 virtual bytes.
fn price(block: &Block, spent: &[Coin]) -> u64 {
    let mut spent = spent.iter();
    let mut rates: Vec<(u64, u64)> = block.transactions[1..]
        .iter()
        .map(|tx| {
            let paid: u64 = spent.by_ref().take(tx.input.len()).map(|coin| coin.value().to_sat()).sum();
            let kept: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
            let weight = tx.weight().to_wu();
            (paid.saturating_sub(kept) * 4000 / weight.max(1), weight)
        })
        .collect();
    rates.sort_unstable();
    let all: u64 = rates.iter().map(|(_, weight)| weight).sum();
    let mut cheap = (all as f64 * CHEAP) as u64;
    let dear = rates.iter().find(|(_, weight)| {
        let within = cheap >= *weight;
        cheap = cheap.saturating_sub(*weight);
        !within
    });
    dear.map_or(0, |(rate, _)| *rate)
}

fn estimaterawfee(_: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Range {
        startrange: u32,
        endrange: Real,
        withintarget: u32,
        totalconfirmed: u32,
        inmempool: u32,
        leftmempool: u32,
    }
    #[derive(Serialize)]
    struct Horizon {
        decay: Real,
        scale: u32,
        fail: Range,
        errors: [&'static str; 1],
    }
    #[derive(Serialize)]
    struct Horizons {
        #[serde(skip_serializing_if = "Option::is_none")]
        short: Option<Horizon>,
        #[serde(skip_serializing_if = "Option::is_none")]
        medium: Option<Horizon>,
        long: Horizon,
    }
    let target = target(args)?;
    if args.get(1).as_f64().is_some_and(|threshold| !(0.0..=1.0).contains(&threshold)) {
        return Err(RpcError::new(RPC_INVALID_PARAMETER, "Invalid threshold"));
    }
    // Highest target, decay and scale of Core's horizons.
    let horizon = |highest: u32, decay, scale| {
        let (startrange, endrange) = (0, Real(1e99));
        let nothing = Range { startrange, endrange, withintarget: 0, totalconfirmed: 0, inmempool: 0, leftmempool: 0 };
        let errors = ["Insufficient data or no feerate found which meets threshold"];
        (target <= highest).then_some(Horizon { decay: Real(decay), scale, fail: nothing, errors })
    };
    let long = horizon(MAX_TARGET, 0.99931, 24).expect("the target is within the longest");
    answer(Horizons { short: horizon(12, 0.962, 1), medium: horizon(48, 0.9952, 2), long })
}
