//! `dumptxoutset`: all coins as of a block of the chain, written to a file that Core reads too. Older blocks are reached by
//! taking the later ones back in memory; the node's own coins stay as they are. Core: `src/rpc/blockchain.cpp`.

use std::collections::{BTreeMap, btree_map};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::iter::Peekable;
use std::path::Path;

use bitcoin::{BlockHash, OutPoint};
use groat_chain::block::Block;
use groat_chain::coins::Coin;
use groat_chain::snapshot::SnapshotWriter;
use groat_chain::stats::{CoinCount, HashKind};
use groat_chain::store::codec;
use groat_chain::tree::Id;
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::blockchain::block_bytes;
use super::coins::walk;
use super::error::*;
use super::method::{Answer, Method, answer};
use super::stats::by_hash_or_height;
use crate::handle::NodeHandle;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[Method {
    name: "dumptxoutset",
    group: "blockchain",
    args: &[
        Arg::required("path", Kind::Text, "The file to write; a relative one lies in the folder of the chain."),
        Arg::optional("type", Kind::Text, "latest, or rollback."),
        Arg::optional(
            "options",
            Kind::Options("{\"rollback\":n,\"in_memory\":bool,...}", &["rollback", "in_memory"]),
            "rollback: the block as of which the coins are written, by hash or height.",
        ),
    ],
    about: "Writes all unspent outputs to a file, as of the tip or of an earlier block.",
    run: dumptxoutset,
}];

/// Coins that a rollback may touch: it holds them in memory, about 100 bytes for each.
const MAX_ROLLBACK_COINS: usize = 5_000_000;

fn dumptxoutset(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Dumped {
        coins_written: u64,
        base_hash: String,
        base_height: u32,
        path: String,
        txoutset_hash: String,
        nchaintx: u64,
    }
    let node = rpc.node()?;
    let target = target(node, args)?;
    let path = rpc.config.folder.join(args.text(0).unwrap_or_default());
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".incomplete");
    let refuse = |text: String| RpcError::new(RPC_INVALID_PARAMETER, text);
    if path.exists() {
        let text = "already exists. If you are sure this is what you want, move it out of the way first";
        return Err(refuse(format!("{} {text}", path.display())));
    }
    let file = File::create(&unfinished)
        .map_err(|_| refuse(format!("Couldn't open file {} for writing.", Path::new(&unfinished).display())))?;
    let written = write(node, target, file).and_then(|written| {
        fs::rename(&unfinished, &path).map_err(not_written)?;
        Ok(written)
    });
    if written.is_err() {
        // It is of no use, and may be gone already.
        let _ = fs::remove_file(&unfinished);
    }
    let Written { block, count, hash } = written?;
    let tree = node.tree().read();
    let base = tree.node(block);
    answer(Dumped {
        coins_written: count,
        base_hash: base.hash.to_string(),
        base_height: base.height,
        path: path.display().to_string(),
        txoutset_hash: hash,
        nchaintx: base.chain_tx,
    })
}

fn not_written(error: io::Error) -> RpcError {
    RpcError::new(RPC_MISC_ERROR, format!("the snapshot cannot be written: {error}"))
}

/// The block that the arguments name; none: the tip, whichever it is then.
fn target(node: &NodeHandle, args: &Args) -> Result<Option<Id>, RpcError> {
    let refuse = |text: String| Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    let kind = args.text(1).unwrap_or_default();
    let tree = node.tree().read();
    match (kind, args.get(2).get("rollback")) {
        ("" | "rollback", Some(block)) => {
            let id = by_hash_or_height(&tree, block)?;
            match tree.is_active(id) {
                true => Ok(Some(id).filter(|id| *id != tree.tip())),
                false => refuse("the block to roll back to is not in the active chain".into()),
            }
        }
        (kind, Some(_)) => refuse(format!("Invalid snapshot type \"{kind}\" specified with rollback option")),
        ("latest", None) => Ok(None),
        ("rollback", None) => {
            refuse("Groat has no list of snapshot heights: name the block with the option \"rollback\"".into())
        }
        (kind, None) => {
            refuse(format!("Invalid snapshot type \"{kind}\" specified. Please specify \"rollback\" or \"latest\""))
        }
    }
}

/// What was written.
struct Written {
    block: Id,
    count: u64,
    hash: String,
}

/// A snapshot under way.
struct Dump {
    node: NodeHandle,
    /// The block at which the coins stand that are shown.
    from: Id,
    /// The block as of which they are written.
    to: Id,
    out: Option<SnapshotWriter<BufWriter<File>>>,
    count: CoinCount,
    /// Coins that were spent (some) or made (none) in between; none until the first coin is shown.
    between: Option<Peekable<btree_map::IntoIter<OutPoint, Option<Coin>>>>,
}

fn write(node: &NodeHandle, target: Option<Id>, file: File) -> Result<Written, RpcError> {
    let synced = file.try_clone().map_err(not_written)?;
    let begun = node.clone();
    let begin = move |tip: BlockHash, _| begin(begun, tip, target, file);
    let dump = walk(node, begin, |dump: &mut Result<Dump, RpcError>, outpoint, coin| {
        let shown = dump.as_mut().map(|dump| dump.show(outpoint, coin));
        match shown {
            Ok(Err(error)) => *dump = Err(error),
            Ok(Ok(())) => return true,
            Err(_) => {}
        }
        false
    })?;
    let written = dump?.finish()?;
    synced.sync_all().map_err(not_written)?;
    Ok(written)
}

fn begin(node: NodeHandle, tip: BlockHash, target: Option<Id>, file: File) -> Result<Dump, RpcError> {
    let (from, to, hash, height) = {
        let tree = node.tree().read();
        let from = tree.get(&tip).unwrap_or(tree.tip());
        let to = target.unwrap_or(from);
        if !tree.is_ancestor(to, from) {
            return Err(RpcError::new(RPC_MISC_ERROR, "the block to roll back to left the active chain"));
        }
        (from, to, tree.node(to).hash, tree.node(to).height)
    };
    let out = SnapshotWriter::new(BufWriter::new(file), node.params().magic, hash).map_err(not_written)?;
    let count = CoinCount::new(HashKind::Serialized3, height, hash);
    Ok(Dump { node, from, to, out: Some(out), count, between: None })
}

impl Dump {
    /// A coin as of the later block; before it go those of the earlier block that sort before it.
    fn show(&mut self, outpoint: OutPoint, coin: Coin) -> Result<(), RpcError> {
        self.between()?;
        while let Some((other, before)) = self.between()?.next_if(|(other, _)| *other <= outpoint) {
            if let Some(before) = before {
                self.add(&other, &before)?;
            }
            if other == outpoint {
                return Ok(());
            }
        }
        self.add(&outpoint, &coin)
    }

    fn add(&mut self, outpoint: &OutPoint, coin: &Coin) -> Result<(), RpcError> {
        self.count.add(outpoint, coin);
        self.out.as_mut().map_or(Ok(()), |out| out.add(outpoint, coin)).map_err(not_written)
    }

    fn finish(mut self) -> Result<Written, RpcError> {
        while let Some((outpoint, before)) = self.between()?.next() {
            if let Some(coin) = before {
                self.add(&outpoint, &coin)?;
            }
        }
        let count = match self.out.take() {
            Some(out) => out.finish().map_err(not_written)?.1,
            None => 0,
        };
        let hash = self.count.finish().hash.map(|hash| hash.to_string()).unwrap_or_default();
        Ok(Written { block: self.to, count, hash })
    }

    /// What the blocks between the two did to coins. Read once the store's snapshot is taken: the ledger goes on.
    fn between(&mut self) -> Result<&mut Peekable<btree_map::IntoIter<OutPoint, Option<Coin>>>, RpcError> {
        if self.between.is_none() {
            self.between = Some(taken_back(&self.node, self.from, self.to)?.into_iter().peekable());
        }
        self.between.as_mut().ok_or_else(|| RpcError::new(RPC_INTERNAL_ERROR, "no coins were read back"))
    }
}

/// The coins as of `to` that are not there as of `from`, and (none) those that are not there yet.
fn taken_back(node: &NodeHandle, from: Id, to: Id) -> Result<BTreeMap<OutPoint, Option<Coin>>, RpcError> {
    let mut between = BTreeMap::new();
    let mut walk = from;
    while walk != to {
        let (undo, height, parent) = {
            let tree = node.tree().read();
            let entry = tree.node(walk);
            (entry.undo(), entry.height, entry.parent().unwrap_or(to))
        };
        let pruned = "Could not roll back to requested height since necessary block data is already pruned.";
        let undo = undo.ok_or_else(|| RpcError::new(RPC_MISC_ERROR, pruned))?;
        let damaged = |what| RpcError::new(RPC_INTERNAL_ERROR, format!("Failed to {what} block at height {height}"));
        let block = Block::decode(&block_bytes(node, walk)?).map_err(|_| damaged("read"))?;
        let spent = codec::decode_undo(&node.store().read_undo(undo)?).map_err(|_| damaged("roll back"))?;
        take_back(&block, spent, &mut between).ok_or_else(|| damaged("roll back"))?;
        if between.len() > MAX_ROLLBACK_COINS {
            let text =
                format!("a rollback below height {height} takes too much memory: Groat does it for recent blocks");
            return Err(RpcError::new(RPC_MISC_ERROR, text));
        }
        walk = parent;
    }
    Ok(between)
}

/// Takes a block back, last transaction first; none where the undo does not fit.
fn take_back(block: &Block, mut spent: Vec<Coin>, between: &mut BTreeMap<OutPoint, Option<Coin>>) -> Option<()> {
    for (number, (tx, txid)) in block.transactions.iter().zip(&block.txids).enumerate().rev() {
        for vout in 0..tx.output.len() as u32 {
            between.insert(OutPoint::new(*txid, vout), None);
        }
        if number > 0 {
            let coins = spent.split_off(spent.len().checked_sub(tx.input.len())?);
            between.extend(tx.input.iter().map(|input| input.previous_output).zip(coins.into_iter().map(Some)));
        }
    }
    Some(())
}
