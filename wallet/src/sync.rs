//! Brings a wallet up to the node's chain, and then its mempool. Blocks are read from the wallet's last one or its
//! birthday on, many in one exchange, and only those that filters point to where the node has filters; what was read is
//! kept every few seconds, so that a stop at any point loses little.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bdk_wallet::KeychainKind;
use bdk_wallet::chain::Indexer;
use bdk_wallet::chain::indexer::keychain_txout::KeychainTxOutIndex;
use bitcoin::{Amount, Block, BlockHash, ScriptBuf, Transaction, Txid};
use groat_chain::params::Params;
use groat_chain::rules::pow::check_proof_of_work;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result, failed};
use crate::filters;
use crate::format::grouped;
use crate::mempool;
use crate::network::Network;
use crate::rpc::{Node, read};
use crate::store::{Birthday, Store};

/// Blocks below the tip of which each is remembered, so that a reorganisation is followed without reading more again.
const REMEMBERED: u32 = 100;
/// Bytes of hexadecimal digits that one exchange should bring.
pub const EXCHANGE: usize = 16 << 20;
/// Blocks or transactions in one exchange at most.
pub const MAX_BATCH: u32 = 500;
/// Part of the blocks, as its reciprocal, from which on filters do not pay.
const DENSE: usize = 16;
/// Blocks in the first exchange, when their size is not known yet.
const FIRST_BATCH: u32 = 16;
/// How often what was read is written.
const SAVE_EVERY: Duration = Duration::from_secs(2);
/// Seconds that a block's time may lie before the time of what it holds. Core: `TIMESTAMP_WINDOW`.
const TIMESTAMP_WINDOW: u64 = 2 * 60 * 60;
/// How often the chain is read again because it changed in between.
const ATTEMPTS: usize = 10;

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Blocks that are read at once from which on the rate is told afterwards.
const MANY: u32 = 1000;
/// A height that no chain has: a node that says so is none.
const MAX_HEIGHT: u32 = i32::MAX as u32;

#[derive(Deserialize)]
struct ChainInfo {
    blocks: u32,
    headers: u32,
    initialblockdownload: bool,
}

/// Reads new blocks and the mempool. Gives the height of the tip.
pub fn sync(store: &mut Store, node: &Node, network: &Network) -> Result<u32> {
    // Read first: what leaves the mempool for a block from now on is in the blocks that are read next.
    let waiting: BTreeSet<Txid> = node.call("getrawmempool", json!([]))?;
    for _ in 0..ATTEMPTS {
        let target = node_height(store, node)?;
        rewind(store, node, network)?;
        let known = store.wallet.latest_checkpoint().height();
        let Some(height) = sync_blocks(store, node, network, target)? else { continue };
        if height > known + REMEMBERED {
            store.reload(network)?;
        }
        mempool::sync(store, node, &waiting)?;
        return Ok(height);
    }
    Err(Error::Node(format!("the node's chain changed {ATTEMPTS} times while it was read: try again")))
}

/// Height of the node's tip, unless the node knows less than the wallet does.
fn node_height(store: &Store, node: &Node) -> Result<u32> {
    let ChainInfo { blocks, headers, initialblockdownload } = node.call("getblockchaininfo", json!([]))?;
    let known = store.wallet.latest_checkpoint().height();
    if blocks > MAX_HEIGHT {
        return Err(Error::Node(format!("the node says it is at block {blocks}, which cannot be: ask another one")));
    }
    if initialblockdownload && blocks < known {
        // What the wallet knows is not wrong because a new node does not know it yet.
        return Err(Error::Node(format!(
            "the node is still catching up (block {blocks}, the wallet is at {known}): wait for it"
        )));
    }
    if initialblockdownload && headers > blocks {
        eprintln!("The node is still catching up: block {blocks} of {headers}.");
    }
    Ok(blocks)
}

/// Reads blocks up to the tip, and gives its height. None: the chain changed under the reading.
fn sync_blocks(store: &mut Store, node: &Node, network: &Network, target: u32) -> Result<Option<u32>> {
    let birthday = birthday_height(store, node, target)?;
    let first = (store.wallet.latest_checkpoint().height() + 1).max(birthday);
    if birthday > target {
        eprintln!(
            "No block was read: the wallet's birthday is block {birthday}, and the node is at {target} \
             (`groat sync --from` gives another birthday)."
        );
    }
    if first > target {
        return Ok(Some(target));
    }
    let (mut next, count) = (first, target + 1 - first);
    let bar = progress("blocks", u64::from(count));
    let (begun, mut saved) = (Instant::now(), Instant::now());
    // Of the last blocks each is remembered, so these are read whole.
    let mut filters = next + REMEMBERED < target && filters::served(node)?;
    let (mut batch, mut whole_until) = (FIRST_BATCH, next);
    while next <= target {
        let before = next;
        if filters && next >= whole_until && next + REMEMBERED < target {
            let last = (target - REMEMBERED).min(next + MAX_BATCH - 1);
            match sync_filtered(store, node, network, next, last)? {
                Step::Done => next = last + 1,
                Step::Changed => return Ok(None),
                Step::Dense => whole_until = last + 1,
                Step::Unfiltered => filters = false,
            }
        } else {
            let last = target.min(next + batch - 1);
            let blocks = fetch_blocks(node, network, next, last)?;
            // The answers need not be of one moment.
            if blocks.windows(2).any(|pair| pair[1].0.header.prev_blockhash != pair[0].0.block_hash()) {
                return Ok(None);
            }
            let bytes: usize = blocks.iter().map(|(_, bytes)| bytes).sum();
            batch = ((EXCHANGE / (bytes / blocks.len()).max(1)) as u32).clamp(1, MAX_BATCH);
            for (height, (block, _)) in (next..).zip(&blocks) {
                if !take_block(store, block, height, height == last || height + REMEMBERED >= target) {
                    return Ok(None);
                }
            }
            next = last + 1;
        }
        bar.inc(u64::from(next - before));
        if saved.elapsed() > SAVE_EVERY {
            store.save()?;
            saved = Instant::now();
        }
    }
    bar.finish_and_clear();
    store.save()?;
    if count >= MANY {
        let seconds = begun.elapsed().as_secs_f64().max(0.001);
        let rate = grouped((f64::from(count) / seconds) as u64);
        eprintln!("Read {} blocks in {seconds:.1} s: {rate} blocks/s.", grouped(count.into()));
    }
    Ok(Some(target))
}

/// What became of some blocks.
enum Step {
    Done,
    /// They are not of one chain with the wallet's last block.
    Changed,
    /// So many have something of the wallet that all are better read in one exchange.
    Dense,
    /// The node has no filters of them.
    Unfiltered,
}

/// Reads those of the blocks whose filters say that they may have something of the wallet, and the last one.
fn sync_filtered(store: &mut Store, node: &Node, network: &Network, first: u32, last: u32) -> Result<Step> {
    let hashes = fetch_hashes(node, first, last)?;
    let Some(filters) = filters::fetch(node, &hashes)? else { return Ok(Step::Unfiltered) };
    let mut scripts = known_scripts(store);
    let matching = |scripts: &[ScriptBuf], from: usize| -> Vec<bool> {
        let rest = hashes.iter().zip(&filters).skip(from);
        rest.map(|(hash, filter)| filters::may_have(filter, hash, scripts)).collect()
    };
    let mut hits = matching(&scripts, 0);
    if hits.iter().filter(|hit| **hit).count() > hashes.len() / DENSE {
        return Ok(Step::Dense);
    }
    for (at, (height, hash)) in (first..).zip(&hashes).enumerate() {
        if height != last && !hits[at] {
            continue;
        }
        for (block, _) in fetch_blocks(node, network, height, height)? {
            if block.block_hash() != *hash || !take_block(store, &block, height, height == last) {
                return Ok(Step::Changed);
            }
        }
        // A payment moves the window of addresses that are looked for.
        if store.wallet.spk_index().inner().all_spks().len() != scripts.len() {
            scripts = known_scripts(store);
            hits.splice(at + 1.., matching(&scripts, at + 1));
        }
    }
    Ok(Step::Done)
}

fn known_scripts(store: &Store) -> Vec<ScriptBuf> {
    store.wallet.spk_index().inner().all_spks().values().cloned().collect()
}

/// Takes a block in if it pays or spends, or must be `remembered`. False: it does not follow the last one.
fn take_block(store: &mut Store, block: &Block, height: u32, remembered: bool) -> bool {
    let tip = store.wallet.latest_checkpoint().block_id();
    if tip.height + 1 == height && tip.hash != block.header.prev_blockhash {
        return false;
    }
    let index: &KeychainTxOutIndex<KeychainKind> = store.wallet.spk_index();
    if remembered || block.txdata.iter().any(|transaction| index.is_tx_relevant(transaction)) {
        return store.wallet.apply_block_connected_to(block, height, tip).is_ok();
    }
    true
}

fn fetch_hashes(node: &Node, first: u32, last: u32) -> Result<Vec<BlockHash>> {
    let answers = node.batch("getblockhash", (first..=last).map(|height| json!([height])))?;
    answers.into_iter().map(|answer| read("getblockhash", answer?)).collect()
}

/// Blocks of these heights, each with the number of digits it came in.
fn fetch_blocks(node: &Node, network: &Network, first: u32, last: u32) -> Result<Vec<(Block, usize)>> {
    let hashes = fetch_hashes(node, first, last)?;
    let answers = node.batch("getblock", hashes.iter().map(|hash| json!([hash, 0])))?;
    let decode = |((height, hash), answer): ((u32, &BlockHash), Result<Value>)| {
        let text: String = read("getblock", answer.map_err(|error| unavailable(height, &error))?)?;
        let wrong = |what: &dyn std::fmt::Display| Error::Node(format!("the node's block {height} is wrong: {what}"));
        let block = bitcoin::consensus::encode::deserialize_hex(&text).map_err(|error| wrong(&error))?;
        check_block(&block, hash, &network.params).map_err(|what| wrong(&what))?;
        Ok((block, text.len()))
    };
    (first..).zip(&hashes).zip(answers).map(decode).collect()
}

/// What can be told of a block alone: it is the one asked for, took work, has these transactions, and they pay no more
/// than there can be.
fn check_block(block: &Block, hash: &BlockHash, params: &Params) -> std::result::Result<(), &'static str> {
    match () {
        () if block.block_hash() != *hash => Err("it is another one than was asked for"),
        () if check_proof_of_work(*hash, block.header.bits, params).is_err() => Err("it has no proof of work"),
        () if !block.check_merkle_root() => Err("its transactions are not those that its header names"),
        () if !block.txdata.iter().all(pays_what_can_be) => Err("it pays more than there can be"),
        () => Ok(()),
    }
}

/// Sums of amounts are taken without a check from here on.
pub fn pays_what_can_be(transaction: &Transaction) -> bool {
    let mut amounts = transaction.output.iter().map(|output| output.value);
    let sum = amounts.try_fold(Amount::ZERO, |sum, amount| sum.checked_add(amount));
    sum.is_some_and(|sum| sum <= Amount::MAX_MONEY)
}

fn unavailable(height: u32, error: &Error) -> Error {
    Error::Node(format!(
        "the node does not have block {height} ({error}): ask one that is not pruned, or give a later start \
         with `groat sync --from`"
    ))
}

/// Takes back the blocks that are no longer in the node's chain.
fn rewind(store: &mut Store, node: &Node, network: &Network) -> Result<()> {
    let tip = store.wallet.latest_checkpoint().block_id();
    // Nearly always it is still there.
    if common(node, &[(tip.height, tip.hash)])?.is_some() {
        return Ok(());
    }
    let (known, mut checked, mut some) = (store.blocks()?, 0, 1);
    while checked < known.len() {
        some = (some * 2).min(known.len() - checked);
        if let Some(height) = common(node, &known[checked..checked + some])? {
            return store.forget_from(height + 1, network);
        }
        checked += some;
    }
    Err(failed("the node has none of the wallet's blocks: is it on the same chain?"))
}

/// Height of the first of these blocks that is in the node's chain.
fn common(node: &Node, blocks: &[(u32, BlockHash)]) -> Result<Option<u32>> {
    let answers = node.batch("getblockhash", blocks.iter().map(|(height, _)| json!([height])))?;
    let same = |((_, hash), answer): &(&(u32, BlockHash), Result<Value>)| {
        answer.as_ref().is_ok_and(|answer| *answer == json!(hash))
    };
    Ok(blocks.iter().zip(answers).find(same).map(|((height, _), _)| *height))
}

/// The first height that can matter to the wallet.
fn birthday_height(store: &Store, node: &Node, tip: u32) -> Result<u32> {
    let time = match store.birthday()? {
        Birthday::Height(height) => return Ok(height),
        Birthday::Time(time) => time,
    };
    let height = height_at(node, time, tip)?;
    store.set_birthday(Birthday::Height(height))?;
    Ok(height)
}

/// Height of the first block that can hold what was made at this time. Median times grow from block to block.
pub fn height_at(node: &Node, time: u64, tip: u32) -> Result<u32> {
    #[derive(Deserialize)]
    struct Header {
        mediantime: u64,
    }
    let early = time.saturating_sub(TIMESTAMP_WINDOW);
    let (mut low, mut high) = (0, tip);
    while low < high {
        let middle = low + (high - low) / 2;
        let hash: BlockHash = node.call("getblockhash", json!([middle]))?;
        let header: Header = node.call("getblockheader", json!([hash]))?;
        if header.mediantime < early {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// A bar with what is left, on a terminal. One of few steps stays hidden.
pub fn progress(what: &str, steps: u64) -> ProgressBar {
    if steps < 50 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps);
    let form = format!("Reading {what} {{bar:30}} {{pos}}/{{len}}  {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&form) {
        bar.set_style(style);
    }
    bar
}
