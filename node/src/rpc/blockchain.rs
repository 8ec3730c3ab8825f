//! Methods that read headers and blocks, and the operator's marks on them. Core: `src/rpc/blockchain.cpp`.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;

use bitcoin::BlockHash;
use bitcoin::consensus::encode::serialize_hex;
use groat_chain::block::Block;
use groat_chain::coins::Coin;
use groat_chain::ledger::PRUNE_TARGET_MANUAL;
use groat_chain::rules::branch::median_time_past;
use groat_chain::store::codec;
use groat_chain::tree::{Id, Tree};
use hex::DisplayHex;
use serde::Serialize;
use serde_json::Value;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::method::{Answer, Method, answer, done};
use super::number::Real;
use super::show::{self, BlockView, Detail, HeaderView};
use crate::clock::now;
use crate::handle::NodeHandle;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "getbestblockhash",
        group: "blockchain",
        args: &[],
        about: "Hash of the tip of the best chain that is fully checked.",
        run: |rpc, _| answer(rpc.node()?.tip().0.to_string()),
    },
    Method {
        name: "getblock",
        group: "blockchain",
        args: &[
            Arg::required("blockhash", Kind::Hex, "The block's hash."),
            Arg::optional(
                "verbosity|verbose",
                Kind::Any,
                "0: hex; 1: JSON; 2: with transactions; 3: and what they spend.",
            ),
        ],
        about: "A block.",
        run: getblock,
    },
    Method {
        name: "getblockchaininfo",
        group: "blockchain",
        args: &[],
        about: "Where the chain stands and how far the node is.",
        run: getblockchaininfo,
    },
    Method {
        name: "getblockcount",
        group: "blockchain",
        args: &[],
        about: "Height of the best chain that is fully checked; genesis has height 0.",
        run: |rpc, _| answer(rpc.node()?.tip().1),
    },
    Method {
        name: "getblockhash",
        group: "blockchain",
        args: &[Arg::required("height", Kind::Number, "Height in the best chain.")],
        about: "Hash of the block at a height.",
        run: getblockhash,
    },
    Method {
        name: "getblockheader",
        group: "blockchain",
        args: &[
            Arg::required("blockhash", Kind::Hex, "The block's hash."),
            Arg::optional("verbose", Kind::Bool, "true: JSON; false: hex."),
        ],
        about: "A header.",
        run: getblockheader,
    },
    Method {
        name: "getchaintips",
        group: "blockchain",
        args: &[],
        about: "The ends of all branches that are known.",
        run: getchaintips,
    },
    Method {
        name: "getdifficulty",
        group: "blockchain",
        args: &[],
        about: "How hard the tip was to mine, as a multiple of the easiest block.",
        run: getdifficulty,
    },
    Method {
        name: "invalidateblock",
        group: "hidden",
        args: &[Arg::required("blockhash", Kind::Hex, "The block's hash.")],
        about: "Treats a block, and all above it, as if it broke a rule.",
        run: invalidateblock,
    },
    Method {
        name: "reconsiderblock",
        group: "hidden",
        args: &[Arg::required("blockhash", Kind::Hex, "The block's hash.")],
        about: "Takes the mark of invalidateblock back.",
        run: reconsiderblock,
    },
];

/// Core's error for a hash of which no header is known.
pub fn block_not_found() -> RpcError {
    RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Block not found")
}

fn getblockhash(rpc: &Rpc, args: &Args) -> Answer {
    let height = args.int::<i32>(0)?.unwrap_or(-1);
    let tree = rpc.node()?.tree().read();
    let id = u32::try_from(height).ok().and_then(|height| tree.active(height));
    let id = id.ok_or_else(|| RpcError::new(RPC_INVALID_PARAMETER, "Block height out of range"))?;
    answer(tree.node(id).hash.to_string())
}

fn getblockheader(rpc: &Rpc, args: &Args) -> Answer {
    let hash: BlockHash = args.hash_called(0, "hash")?;
    let node = rpc.node()?;
    let tree = node.tree().read();
    let id = tree.get(&hash).ok_or_else(block_not_found)?;
    if args.bool(1) == Some(false) {
        return answer(serialize_hex(&tree.header(id)));
    }
    answer(HeaderView::new(&tree, id, node.params()))
}

fn getblock(rpc: &Rpc, args: &Args) -> Answer {
    let hash: BlockHash = args.hash(0)?;
    let verbosity = match args.get(1) {
        Value::Bool(verbose) => i32::from(*verbose),
        _ => args.int::<i32>(1)?.unwrap_or(1),
    };
    let node = rpc.node()?;
    let (id, header, undo) = {
        let tree = node.tree().read();
        let id = tree.get(&hash).ok_or_else(block_not_found)?;
        (id, HeaderView::new(&tree, id, node.params()), tree.node(id).undo())
    };
    let bytes = block_bytes(node, id)?;
    if verbosity <= 0 {
        return answer(show::hex(&bytes));
    }
    let damaged = |_| RpcError::new(RPC_MISC_ERROR, "Block not found on disk");
    let block = Block::decode(&bytes).map_err(damaged)?;
    let detail = match verbosity {
        1 => Detail::Ids,
        _ => {
            let undo = undo.map(|undo| node.store().read_undo(undo)).transpose()?;
            let text = "Undo data expected but can't be read. The disk is damaged, or the block was just pruned.";
            let spent = undo.map(|undo| codec::decode_undo(&undo)).transpose();
            let spent = spent.map_err(|_| RpcError::new(RPC_INTERNAL_ERROR, text))?;
            if verbosity == 2 { Detail::Transactions(spent) } else { Detail::Prevouts(spent) }
        }
    };
    answer(BlockView::new(header, &block, detail, node.params().address_set))
}

/// A block's bytes. Core: `GetRawBlockChecked`.
pub fn block_bytes(node: &NodeHandle, id: Id) -> Result<Vec<u8>, RpcError> {
    let (pos, known) = {
        let tree = node.tree().read();
        (tree.node(id).block(), tree.node(id).tx_count > 0)
    };
    let missing =
        if known { "Block not available (pruned data)" } else { "Block not available (not fully downloaded)" };
    let pos = pos.ok_or_else(|| RpcError::new(RPC_MISC_ERROR, missing))?;
    Ok(node.store().read_block(pos)?)
}

/// A block and the coins that it spends, in block order. Core: `GetBlockChecked`, `GetUndoChecked`.
pub fn block_and_spent(node: &NodeHandle, id: Id) -> Result<(Block, Vec<Coin>), RpcError> {
    let refuse = |text| RpcError::new(RPC_MISC_ERROR, text);
    let block = Block::decode(&block_bytes(node, id)?).map_err(|_| refuse("Can't read block from disk"))?;
    let (undo, height) = {
        let tree = node.tree().read();
        (tree.node(id).undo(), tree.node(id).height)
    };
    let spent = match undo {
        _ if height == 0 => Vec::new(),
        None => return Err(refuse("Undo data not available (pruned data)")),
        Some(undo) => {
            let undo = node.store().read_undo(undo)?;
            codec::decode_undo(&undo).map_err(|_| refuse("Can't read undo data from disk"))?
        }
    };
    Ok((block, spent))
}

fn getdifficulty(rpc: &Rpc, _: &Args) -> Answer {
    let tree = rpc.node()?.tree().read();
    answer(show::difficulty(tree.node(tree.tip()).bits))
}

fn getblockchaininfo(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct BlockchainInfo<'a> {
        chain: &'a str,
        blocks: u32,
        headers: u32,
        bestblockhash: String,
        bits: String,
        target: String,
        difficulty: Real,
        time: u32,
        mediantime: u32,
        verificationprogress: Real,
        initialblockdownload: bool,
        chainwork: String,
        size_on_disk: u64,
        pruned: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        pruneheight: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        automatic_pruning: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prune_target_size: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        signet_challenge: Option<String>,
        warnings: Vec<String>,
    }
    let node = rpc.node()?;
    let (params, prune) = (node.params(), rpc.config.prune);
    let size_on_disk = node.store().files()?.iter().map(|(_, bytes)| bytes).sum();
    let initialblockdownload = is_initial_block_download(rpc, node);
    let tree = node.tree().read();
    let tip = tree.node(tree.tip());
    answer(BlockchainInfo {
        chain: &params.name,
        blocks: tip.height,
        headers: tree.node(tree.best_header()).height,
        bestblockhash: tip.hash.to_string(),
        bits: show::bits(tip.bits),
        target: show::target(tip.bits, params),
        difficulty: show::difficulty(tip.bits),
        time: tip.time,
        mediantime: median_time_past(&tree.branch(tree.tip())),
        verificationprogress: Real(progress(&tree, params.spacing)),
        initialblockdownload,
        chainwork: show::work(tip.work),
        size_on_disk,
        pruned: prune.is_some(),
        pruneheight: prune.map(|_| pruned_up_to(&tree).map_or(0, |height| height + 1)),
        automatic_pruning: prune.map(|limit| limit != PRUNE_TARGET_MANUAL),
        prune_target_size: prune.filter(|limit| *limit != PRUNE_TARGET_MANUAL),
        signet_challenge: params.signet_challenge.as_ref().map(|script| script.as_bytes().to_lower_hex_string()),
        warnings: node.warnings().messages(),
    })
}

/// Whether the chain has not come near the network's tip yet; once it has, this stays false.
/// Core: `IsInitialBlockDownload`.
pub fn is_initial_block_download(rpc: &Rpc, node: &NodeHandle) -> bool {
    if rpc.in_sync.load(Ordering::Relaxed) {
        return false;
    }
    let tree = node.tree().read();
    let tip = tree.node(tree.tip());
    let young = u64::from(tip.time).saturating_add(node.params().max_tip_age) > u64::from(now());
    let in_sync = young && tip.work >= node.params().minimum_chain_work;
    rpc.in_sync.store(in_sync, Ordering::Relaxed);
    !in_sync
}

/// Which part of the chain is connected, by height. Core counts transactions, with rates known in advance.
pub fn progress(tree: &Tree, spacing: u32) -> f64 {
    let (tip, best) = (tree.node(tree.tip()), tree.node(tree.best_header()));
    let age = now().saturating_sub(best.time);
    // Blocks come irregularly: a header of the last two hours counts as the newest.
    let to_come = if age <= 2 * 60 * 60 { 0 } else { age / spacing.max(1) };
    let all = u64::from(best.height) + u64::from(to_come);
    if all == 0 { 1.0 } else { (f64::from(tip.height) / all as f64).min(1.0) }
}

/// The highest block of the active chain that is not stored any more, or not with its undo. Core: `GetPruneHeight`.
pub fn pruned_up_to(tree: &Tree) -> Option<u32> {
    let is_stored = |id| tree.node(id).block().is_some() && tree.node(id).undo().is_some();
    (1..=tree.node(tree.tip()).height).rev().find(|height| !tree.active(*height).is_some_and(is_stored))
}

/// Headers looked at while the tree is held.
const TIPS_STRIDE: u32 = 10_000;

fn getchaintips(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct ChainTip {
        height: u32,
        hash: String,
        branchlen: u32,
        status: &'static str,
    }
    let tree = rpc.node()?.tree();
    let (mut stale, mut parents) = (Vec::new(), HashSet::new());
    let mut from = 0;
    loop {
        // The ledger gets its turn between two parts.
        let tree = tree.read();
        let end = (tree.len() as u32).min(from + TIPS_STRIDE);
        for id in (from..end).map(Id).filter(|id| !tree.is_active(*id)) {
            stale.push(id);
            parents.extend(tree.node(id).parent());
        }
        if end as usize == tree.len() {
            break;
        }
        from = end;
    }
    let tree = tree.read();
    let ends = stale.into_iter().filter(|id| !parents.contains(id) && !tree.is_active(*id)).chain([tree.tip()]);
    // Highest first; of one height the first known first.
    let ends: BTreeMap<_, _> = ends.map(|id| ((std::cmp::Reverse(tree.node(id).height), id), id)).collect();
    let tips = ends.into_values().map(|id| {
        let node = tree.node(id);
        ChainTip {
            height: node.height,
            hash: node.hash.to_string(),
            branchlen: node.height - tree.node(tree.fork(id, tree.tip())).height,
            status: match () {
                _ if tree.is_active(id) => "active",
                _ if node.is_invalid() => "invalid",
                _ if node.chain_tx == 0 => "headers-only",
                _ if node.is_proven() => "valid-fork",
                _ => "valid-headers",
            },
        }
    });
    answer(tips.collect::<Vec<_>>())
}

fn invalidateblock(rpc: &Rpc, args: &Args) -> Answer {
    let hash: BlockHash = args.hash(0)?;
    let node = rpc.node()?;
    if hash == node.params().genesis_hash {
        return Err(RpcError::new(RPC_DATABASE_ERROR, "The first block cannot be invalid"));
    }
    node.with_ledger(move |ledger| Ok(ledger.invalidate(&hash)))?.ok_or_else(block_not_found)?;
    node.wait_until_idle()?;
    done()
}

fn reconsiderblock(rpc: &Rpc, args: &Args) -> Answer {
    let hash: BlockHash = args.hash(0)?;
    let node = rpc.node()?;
    node.with_ledger(move |ledger| Ok(ledger.reconsider(&hash)))?.ok_or_else(block_not_found)?;
    node.wait_until_idle()?;
    done()
}
