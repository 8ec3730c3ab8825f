//! Proofs that a block holds a transaction (BIP37's partial merkle trees). Core: `src/rpc/txoutproof.cpp`.

use std::collections::BTreeSet;

use bitcoin::consensus::Decodable;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{BlockHash, MerkleBlock, OutPoint, Txid};
use groat_chain::block::Block;
use groat_chain::index::{Index, transactions};
use groat_chain::rules::limits::MAX_BLOCK_WEIGHT;
use groat_chain::tree::Id;
use hex::FromHex;

use super::Rpc;
use super::args::{Arg, Args, Kind, hash, text};
use super::blockchain::{block_bytes, block_not_found};
use super::error::*;
use super::method::{Answer, Method, answer};
use crate::handle::NodeHandle;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "gettxoutproof",
        group: "blockchain",
        args: &[
            Arg::required("txids", Kind::Array("\"txid\""), "Transactions of one block."),
            Arg::optional(
                "blockhash",
                Kind::Hex,
                "That block; without it one must have an unspent output, or -txindex be on.",
            ),
        ],
        about: "A proof in hex that a block holds these transactions.",
        run: gettxoutproof,
    },
    Method {
        name: "verifytxoutproof",
        group: "blockchain",
        args: &[Arg::required("proof", Kind::Hex, "A proof as gettxoutproof gives it.")],
        about: "The transactions that a proof shows to be in a block of the best chain; none if it shows nothing.",
        run: verifytxoutproof,
    },
];

fn gettxoutproof(rpc: &Rpc, args: &Args) -> Answer {
    let refuse = |text: String| RpcError::new(RPC_INVALID_PARAMETER, text);
    let named = args.get(0).as_array().map(Vec::as_slice).unwrap_or_default();
    if named.is_empty() {
        return Err(refuse("Parameter 'txids' cannot be empty".into()));
    }
    let mut txids = BTreeSet::new();
    for value in named {
        let txid = text(value)?;
        if !txids.insert(hash::<Txid>(txid, "txid")?) {
            return Err(refuse(format!("Invalid parameter, duplicated txid: {txid}")));
        }
    }
    let node = rpc.node()?;
    let id = match args.text(1).map(|_| args.hash::<BlockHash>(1)).transpose()? {
        Some(hash) => node.tree().read().get(&hash).ok_or_else(block_not_found)?,
        None => match block_of(node, &txids)? {
            Some(id) => Some(id),
            // All outputs are spent: the index still knows.
            None => indexed_block_of(node, &txids)?,
        }
        .ok_or_else(|| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Transaction not yet in block"))?,
    };
    let damaged = |_| RpcError::new(RPC_INTERNAL_ERROR, "Can't read block from disk");
    let block = Block::decode(&block_bytes(node, id)?).map_err(damaged)?;
    if block.txids.iter().filter(|txid| txids.contains(*txid)).count() != txids.len() {
        let text = "Not all transactions found in specified or retrieved block";
        return Err(RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, text));
    }
    let wanted = |txid: &Txid| txids.contains(txid);
    let proof = MerkleBlock::from_header_txids_with_predicate(&block.header, &block.txids, wanted);
    answer(serialize_hex(&proof))
}

/// The block that made the first unspent output found of these transactions. Core: `AccessByTxid`.
fn block_of(node: &NodeHandle, txids: &BTreeSet<Txid>) -> Result<Option<Id>, RpcError> {
    /// Core's name and value.
    const MIN_TRANSACTION_OUTPUT_WEIGHT: usize = 4 * 9;
    /// Core: `MAX_OUTPUTS_PER_BLOCK`.
    const MAX_OUTPUTS: u32 = (MAX_BLOCK_WEIGHT / MIN_TRANSACTION_OUTPUT_WEIGHT) as u32;
    /// Outputs looked at while the ledger waits.
    const STRIDE: u32 = 2000;
    for txid in txids {
        for first in (0..MAX_OUTPUTS).step_by(STRIDE as usize) {
            let outputs: Vec<_> = (first..first + STRIDE).map(|vout| OutPoint::new(*txid, vout)).collect();
            let height = node.with_ledger(move |ledger| {
                Ok(ledger.coins(&outputs)?.into_iter().flatten().next().map(|coin| coin.height()))
            })?;
            if let Some(height) = height {
                return Ok(node.tree().read().active(height));
            }
        }
    }
    Ok(None)
}

/// The block of the first of these transactions, by the index where it is on.
fn indexed_block_of(node: &NodeHandle, txids: &BTreeSet<Txid>) -> Result<Option<Id>, RpcError> {
    let first = txids.first().filter(|_| node.index(Index::Transactions).is_some());
    let found = first.map(|txid| transactions::find(&**node.store(), node.tree(), txid)).transpose()?;
    Ok(found.flatten().map(|(id, _)| id))
}

fn verifytxoutproof(rpc: &Rpc, args: &Args) -> Answer {
    let text = args.text(0).unwrap_or_default();
    let bytes = Vec::from_hex(text).map_err(|_| {
        RpcError::new(RPC_INVALID_PARAMETER, format!("proof must be hexadecimal string (not '{text}')"))
    })?;
    // What follows the proof does not count.
    let proof = MerkleBlock::consensus_decode(&mut bytes.as_slice());
    let proof = proof.map_err(|_| RpcError::new(RPC_MISC_ERROR, "SpanReader::read(): end of data: iostream error"))?;
    let (mut txids, mut places) = (Vec::new(), Vec::new());
    if proof.extract_matches(&mut txids, &mut places).is_err() {
        return answer([(); 0]);
    }
    let tree = rpc.node()?.tree().read();
    let known = tree.get(&proof.header.block_hash());
    let count = known.filter(|id| tree.is_active(*id)).map(|id| tree.node(id).tx_count).filter(|count| *count > 0);
    let count = count.ok_or_else(|| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Block not found in chain"))?;
    // A proof over another number of transactions may take an inner node for a transaction.
    if proof.txn.num_transactions() != count {
        txids.clear();
    }
    answer(txids.iter().map(Txid::to_string).collect::<Vec<_>>())
}
