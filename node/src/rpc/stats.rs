//! Figures about blocks: `getblockstats` and `getchaintxstats`. Core: `src/rpc/blockchain.cpp`.

use bitcoin::consensus::encode::VarInt;
use bitcoin::{Amount, BlockHash, Script, Transaction};
use groat_chain::block::Block;
use groat_chain::coins::Coin;
use groat_chain::rules::block::is_unspendable;
use groat_chain::rules::branch::median_time_past;
use groat_chain::rules::connect::subsidy;
use groat_chain::rules::limits::WITNESS_SCALE_FACTOR;
use groat_chain::tree::{Id, Tree};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Rpc;
use super::args::{Arg, Args, Kind, hash, text};
use super::blockchain::{block_and_spent, block_not_found};
use super::error::*;
use super::method::{Answer, Method, answer};
use super::number::Real;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "getblockstats",
        group: "blockchain",
        args: &[
            Arg::required("hash_or_height", Kind::Loose("hash_or_height"), "The block, by hash or by height."),
            Arg::optional("stats", Kind::Array(""), "The figures to give; default: all."),
        ],
        about: "Figures about a block: amounts in satoshi, sizes in bytes, rates in satoshi per virtual byte.",
        run: getblockstats,
    },
    Method {
        name: "getchaintxstats",
        group: "blockchain",
        args: &[
            Arg::optional("nblocks", Kind::Number, "Blocks to look at; default: those of a month."),
            Arg::optional("blockhash", Kind::Hex, "The last of them; default: the tip."),
        ],
        about: "How many transactions the chain has, and how many came a second.",
        run: getchaintxstats,
    },
];

/// The block that an argument names by hash or by height in the active chain. Core: `ParseHashOrHeight`.
pub fn by_hash_or_height(tree: &Tree, named: &Value) -> Result<Id, RpcError> {
    if !named.is_number() {
        let hash: BlockHash = hash(text(named)?, "hash_or_height")?;
        return tree.get(&hash).ok_or_else(block_not_found);
    }
    let height = named.as_i64().and_then(|height| i32::try_from(height).ok());
    let height = height.ok_or_else(|| RpcError::new(RPC_MISC_ERROR, "JSON integer out of range"))?;
    let refuse = |text: String| RpcError::new(RPC_INVALID_PARAMETER, text);
    let number = u32::try_from(height).map_err(|_| refuse(format!("Target block height {height} is negative")))?;
    let tip = tree.node(tree.tip()).height;
    tree.active(number).ok_or_else(|| refuse(format!("Target block height {height} after current tip {tip}")))
}

/// The figures of a block, with Core's keys in Core's order.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct BlockStats {
    avgfee: i64,
    avgfeerate: i64,
    avgtxsize: i64,
    blockhash: String,
    feerate_percentiles: [i64; 5],
    height: u32,
    ins: i64,
    maxfee: i64,
    maxfeerate: i64,
    maxtxsize: i64,
    medianfee: i64,
    mediantime: u32,
    mediantxsize: i64,
    minfee: i64,
    minfeerate: i64,
    mintxsize: i64,
    outs: i64,
    subsidy: u64,
    swtotal_size: i64,
    swtotal_weight: i64,
    swtxs: i64,
    time: u32,
    total_out: i64,
    total_size: i64,
    total_weight: i64,
    totalfee: i64,
    txs: usize,
    utxo_increase: i64,
    utxo_size_inc: i64,
    utxo_increase_actual: i64,
    utxo_size_inc_actual: i64,
}

fn getblockstats(rpc: &Rpc, args: &Args) -> Answer {
    let node = rpc.node()?;
    let (id, head) = {
        let tree = node.tree().read();
        let id = by_hash_or_height(&tree, args.get(0))?;
        let entry = tree.node(id);
        let head = BlockStats {
            blockhash: entry.hash.to_string(),
            height: entry.height,
            time: entry.time,
            mediantime: median_time_past(&tree.branch(id)),
            subsidy: subsidy(entry.height, node.params()).to_sat(),
            ..BlockStats::default()
        };
        (id, head)
    };
    let wanted = args.get(1).as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = wanted.iter().map(text).collect::<Result<std::collections::BTreeSet<_>, _>>()?;
    let (block, spent) = block_and_spent(node, id)?;
    let makes_no_coins = head.height == 0 || node.params().bip30_exceptions.contains(&(head.height, block.hash));
    let stats = count(&block, &spent, makes_no_coins, head);
    if wanted.is_empty() {
        return answer(stats);
    }
    let all = serde_json::to_value(stats).map_err(|error| RpcError::new(RPC_INTERNAL_ERROR, error.to_string()))?;
    let chosen = wanted.into_iter().map(|name| match all.get(name) {
        Some(value) => Ok((name.to_string(), value.clone())),
        None => Err(RpcError::new(RPC_INVALID_PARAMETER, format!("Invalid selected statistic '{name}'"))),
    });
    answer(chosen.collect::<Result<Map<_, _>, _>>()?)
}

/// Fills in what the block and the coins that it spends say. `makes_no_coins`: its coinbase is not among the coins.
fn count(block: &Block, spent: &[Coin], makes_no_coins: bool, head: BlockStats) -> BlockStats {
    let sats = |amount: Amount| amount.to_sat() as i64;
    let mut stats = BlockStats { txs: block.transactions.len(), ..head };
    let (mut fees, mut rates, mut sizes, mut coins) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut spent = spent.iter();
    for (number, tx) in block.transactions.iter().enumerate() {
        stats.outs += tx.output.len() as i64;
        let mut paid = 0;
        for output in &tx.output {
            let size = coin_size(&output.script_pubkey);
            paid += sats(output.value);
            stats.utxo_size_inc += size;
            let is_no_coin = makes_no_coins && number == 0 || is_unspendable(&output.script_pubkey);
            if !is_no_coin {
                coins += 1;
                stats.utxo_size_inc_actual += size;
            }
        }
        if number == 0 {
            continue;
        }
        let (size, weight) = (tx.total_size() as i64, tx.weight().to_wu() as i64);
        stats.ins += tx.input.len() as i64;
        stats.total_out += paid;
        stats.total_size += size;
        stats.total_weight += weight;
        if has_witness(tx) {
            stats.swtxs += 1;
            stats.swtotal_size += size;
            stats.swtotal_weight += weight;
        }
        let mut held = 0;
        for coin in spent.by_ref().take(tx.input.len()) {
            let size = coin_size(coin.script_pubkey());
            held += sats(coin.value());
            stats.utxo_size_inc -= size;
            stats.utxo_size_inc_actual -= size;
        }
        fees.push(held - paid);
        rates.push(((held - paid) * WITNESS_SCALE_FACTOR as i64 / weight, weight));
        sizes.push(size);
    }
    stats.utxo_increase = stats.outs - stats.ins;
    stats.utxo_increase_actual = coins - stats.ins;
    stats.totalfee = fees.iter().sum();
    let average = |sum: i64| sum.checked_div(fees.len() as i64).unwrap_or(0);
    (stats.avgfee, stats.avgtxsize) = (average(stats.totalfee), average(stats.total_size));
    let weighed = stats.totalfee * WITNESS_SCALE_FACTOR as i64;
    stats.avgfeerate = weighed.checked_div(stats.total_weight).unwrap_or(0);
    (stats.minfee, stats.medianfee, stats.maxfee) = spread(&mut fees);
    (stats.mintxsize, stats.mediantxsize, stats.maxtxsize) = spread(&mut sizes);
    rates.sort_unstable();
    let ends = rates.first().zip(rates.last());
    (stats.minfeerate, stats.maxfeerate) = ends.map_or((0, 0), |(least, most)| (least.0, most.0));
    stats.feerate_percentiles = percentiles(&rates, stats.total_weight);
    stats
}

fn has_witness(tx: &Transaction) -> bool {
    tx.input.iter().any(|input| !input.witness.is_empty())
}

/// Bytes that a coin takes in a table without any encoding of its own. Core: `PER_UTXO_OVERHEAD` and the output.
fn coin_size(script: &Script) -> i64 {
    /// Outpoint, height and coinbase.
    const PER_UTXO_OVERHEAD: usize = 36 + 4;
    (PER_UTXO_OVERHEAD + 8 + VarInt::from(script.len()).size() + script.len()) as i64
}

/// Least, median and most; of an even number the mean of the two in the middle, cut. Core: `CalculateTruncatedMedian`.
fn spread(values: &mut [i64]) -> (i64, i64, i64) {
    values.sort_unstable();
    let middle = values.len() / 2;
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return (0, 0, 0) };
    let median =
        if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2 } else { values[middle] };
    (*least, median, *most)
}

/// The rates at which 10, 25, 50, 75 and 90 of a hundred weight units are reached, lowest rates first. Core:
/// `CalculatePercentilesByWeight`.
fn percentiles(rates: &[(i64, i64)], total_weight: i64) -> [i64; 5] {
    [10, 25, 50, 75, 90].map(|percent| {
        let mut below = 0;
        let reached = rates.iter().find(|(_, weight)| {
            below += weight;
            below * 100 >= total_weight * percent
        });
        reached.or(rates.last()).map_or(0, |(rate, _)| *rate)
    })
}

fn getchaintxstats(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct ChainTxStats {
        time: u32,
        txcount: u64,
        window_final_block_hash: String,
        window_final_block_height: u32,
        window_block_count: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        window_interval: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        window_tx_count: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        txrate: Option<Real>,
    }
    const MONTH: u32 = 30 * 24 * 60 * 60;
    let node = rpc.node()?;
    let hash: Option<BlockHash> = args.text(1).map(|_| args.hash(1)).transpose()?;
    let tree = node.tree().read();
    let refuse = |text: &str| RpcError::new(RPC_INVALID_PARAMETER, text);
    let last = match hash {
        None => tree.tip(),
        Some(hash) => tree.get(&hash).ok_or_else(block_not_found)?,
    };
    if !tree.is_active(last) {
        return Err(refuse("Block is not in main chain"));
    }
    let height = tree.node(last).height;
    let count = match args.int::<i32>(0)? {
        None => (MONTH / node.params().spacing.max(1)).min(height.saturating_sub(1)),
        Some(count) => u32::try_from(count)
            .ok()
            .filter(|count| *count == 0 || *count < height)
            .ok_or_else(|| refuse("Invalid block count: should be between 0 and the block's height - 1"))?,
    };
    let first = tree.ancestor(last, height - count);
    let time = |id| i64::from(median_time_past(&tree.branch(id)));
    let interval = time(last) - time(first);
    let came = tree.node(last).chain_tx - tree.node(first).chain_tx;
    answer(ChainTxStats {
        time: tree.node(last).time,
        txcount: tree.node(last).chain_tx,
        window_final_block_hash: tree.node(last).hash.to_string(),
        window_final_block_height: height,
        window_block_count: count,
        window_interval: (count > 0).then_some(interval),
        window_tx_count: (count > 0).then_some(came),
        txrate: (count > 0 && interval > 0).then(|| Real(came as f64 / interval as f64)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_counted_by_weight() {
        assert_eq!(percentiles(&[], 0), [0; 5]);
        assert_eq!(percentiles(&[(7, 400)], 400), [7; 5]);
        // One heavy cheap one: only the last tenth is better.
        assert_eq!(percentiles(&[(1, 900), (5, 50), (9, 50)], 1000), [1, 1, 1, 1, 1]);
        assert_eq!(percentiles(&[(1, 100), (2, 150), (3, 250), (4, 250), (5, 250)], 1000), [1, 2, 3, 4, 5]);
        assert_eq!(spread(&mut [3, 1, 2, 4]), (1, 2, 4));
        assert_eq!(spread(&mut []), (0, 0, 0));
    }
}
