//! What an operator does about the stored chain: check it, prune it, prefer a block, fetch one from a peer. Core:
//! `src/rpc/blockchain.cpp`.

use bitcoin::BlockHash;
use groat_chain::ledger::{LedgerError, MIN_BLOCKS_TO_KEEP};
use groat_chain::store::StoreError;
use groat_chain::tree::Tree;
use groat_net::protocol::PeerId;
use serde_json::json;
use tracing::error;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::blockchain::{block_not_found, pruned_up_to};
use super::error::*;
use super::method::{Answer, Method, answer, done};
use crate::handle::Stopped;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "getblockfrompeer",
        group: "blockchain",
        args: &[
            Arg::required("blockhash", Kind::Hex, "The block's hash; its header must be known."),
            Arg::required("peer_id", Kind::Number, "The peer's number."),
        ],
        about: "Asks one peer for a block that is not stored. Whether it came shows in getblock.",
        run: getblockfrompeer,
    },
    Method {
        name: "preciousblock",
        group: "blockchain",
        args: &[Arg::required("blockhash", Kind::Hex, "The block's hash.")],
        about: "Prefers a block to others of the same work, until the next start.",
        run: preciousblock,
    },
    Method {
        name: "pruneblockchain",
        group: "blockchain",
        args: &[Arg::required("height", Kind::Number, "Height up to which, or time before which, blocks may go.")],
        about: "Deletes old block files, and tells the highest block that is gone. Needs --prune.",
        run: pruneblockchain,
    },
    Method {
        name: "verifychain",
        group: "blockchain",
        args: &[
            Arg::optional("checklevel", Kind::Number, "0 to 3 (default): blocks, undo and coins; 4: scripts as well."),
            Arg::optional("nblocks", Kind::Number, "Blocks from the tip down; 0: all; default 6."),
        ],
        about: "Checks the stored chain; false if something is wrong with it, or pruned. The node does nothing else meanwhile.",
        run: verifychain,
    },
];

fn preciousblock(rpc: &Rpc, args: &Args) -> Answer {
    let hash: BlockHash = args.hash(0)?;
    let node = rpc.node()?;
    node.with_ledger(move |ledger| Ok(ledger.prefer(&hash)))?.ok_or_else(block_not_found)?;
    node.wait_until_idle()?;
    done()
}

fn verifychain(rpc: &Rpc, args: &Args) -> Answer {
    /// Core's name and value.
    const DEFAULT_CHECKLEVEL: i32 = 3;
    /// Core's name and value.
    const DEFAULT_CHECKBLOCKS: i32 = 6;
    let reconnect = args.int::<i32>(0)?.unwrap_or(DEFAULT_CHECKLEVEL) >= 4;
    let depth = u32::try_from(args.int::<i32>(1)?.unwrap_or(DEFAULT_CHECKBLOCKS)).unwrap_or(0);
    let node = rpc.node()?;
    let stopping = node.stopping();
    let whole = node.with_ledger(move |ledger| {
        let mut stopped = false;
        let verified = ledger.verify_chain(depth, reconnect, &mut |_| {
            stopped = *stopping.borrow();
            !stopped
        });
        match verified {
            Ok(_) if stopped => Ok(None),
            Ok(verified) => Ok(Some(!verified.pruned)),
            Err(LedgerError::Damaged(what)) => Ok(Some(damaged(&what))),
            Err(LedgerError::Store(error @ StoreError::Damaged { .. })) => Ok(Some(damaged(&error.to_string()))),
            Err(error) => Err(error),
        }
    })?;
    answer(whole.ok_or(Stopped)?)
}

/// Says what is wrong with the chain.
fn damaged(what: &str) -> bool {
    error!("verifychain: {what}");
    false
}

fn pruneblockchain(rpc: &Rpc, args: &Args) -> Answer {
    /// From here on a number is a time. Core has it in `pruneblockchain`.
    const FIRST_TIME: u32 = 1_000_000_000;
    let node = rpc.node()?;
    if rpc.config.prune.is_none() {
        let text = "Cannot prune blocks because node is not in prune mode.";
        return Err(RpcError::new(RPC_MISC_ERROR, text));
    }
    let refuse = |text: &str| RpcError::new(RPC_INVALID_PARAMETER, text);
    let wanted = args.int::<i32>(0)?.unwrap_or_default();
    let mut height = u32::try_from(wanted).map_err(|_| refuse("Negative block height."))?;
    let tip = {
        let tree = node.tree().read();
        if height > FIRST_TIME {
            let text = "Could not find block with at least the specified timestamp.";
            height = first_since(&tree, height).ok_or_else(|| refuse(text))?;
        }
        tree.node(tree.tip()).height
    };
    if tip < node.params().prune_after_height {
        return Err(RpcError::new(RPC_MISC_ERROR, "Blockchain is too short for pruning."));
    }
    if height > tip {
        return Err(refuse("Blockchain is shorter than the attempted prune height."));
    }
    height = height.min(tip.saturating_sub(MIN_BLOCKS_TO_KEEP));
    node.with_ledger(move |ledger| ledger.prune_up_to(height))?;
    let tree = node.tree().read();
    answer(pruned_up_to(&tree).map_or(-1, i64::from))
}

/// Height of the first block before which none is as late as two hours before `time`. Core: `FindEarliestAtLeast`.
fn first_since(tree: &Tree, time: u32) -> Option<u32> {
    /// Seconds that a block's time may be off. Core's name and value.
    const TIMESTAMP_WINDOW: u32 = 2 * 60 * 60;
    let is_late = |height: &u32| {
        tree.active(*height).is_some_and(|id| tree.node(id).time >= time.saturating_sub(TIMESTAMP_WINDOW))
    };
    (0..=tree.node(tree.tip()).height).find(is_late)
}

fn getblockfrompeer(rpc: &Rpc, args: &Args) -> Answer {
    let refuse = |text: &str| RpcError::new(RPC_MISC_ERROR, text);
    let hash: BlockHash = args.hash(0)?;
    let peer = PeerId(args.int::<i64>(1)?.and_then(|id| u64::try_from(id).ok()).unwrap_or(u64::MAX));
    let node = rpc.node()?;
    {
        let tree = node.tree().read();
        let id = tree.get(&hash).ok_or_else(|| refuse("Block header missing"))?;
        if rpc.config.prune.is_some() && tree.node(id).height > tree.node(tree.tip()).height {
            let text =
                "In prune mode, only blocks that the node has already synced previously can be fetched from a peer";
            return Err(refuse(text));
        }
        if tree.node(id).block().is_some() {
            return Err(refuse("Block already downloaded"));
        }
    }
    node.with_hub(move |hub| hub.fetch(peer, hash))?.map_err(|error| refuse(&error.to_string()))?;
    answer(json!({}))
}
