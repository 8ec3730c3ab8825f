//! Serving: headers and block hashes from the view, blocks and parts of them from the ledger's files, in the order in
//! which they were asked for. Fetches nothing.

use std::sync::Arc;

use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest};
use bitcoin::consensus::{encode::VarInt, serialize};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Transaction};
use groat_chain::block::Block;
use groat_chain::rules::pow::proof_equivalent_time;
use rand::Rng;

use crate::blocks::can_direct_fetch;
use crate::compact::{RecentBlock, compact_block};
use crate::filtered::merkle_block;
use crate::message::{Locate, MAX_HEADERS_RESULTS, Message};
use crate::peer::{Answer, NODE_NETWORK, NODE_NETWORK_LIMITED, Peer};
use crate::protocol::{Cx, Pending, Reason, Token, Work};
use crate::timers::STALE_RELAY_AGE_LIMIT;
use crate::txrelay::{TxRelay, without_witness};
use crate::upload::HISTORICAL_BLOCK_AGE;
use crate::view::{Id, View};

/// Kind of an inventory item: a block by the peer's bloom filter. Core's name and value.
const MSG_FILTERED_BLOCK: u32 = 3;
/// Deeper blocks are not served as compact blocks. Core's name and value.
const MAX_CMPCTBLOCK_DEPTH: u32 = 5;
/// Of deeper blocks no single transactions are served. Core's name and value.
const MAX_BLOCKTXN_DEPTH: u32 = 10;

/// What a peer gets of a block that has to be read.
#[derive(Debug)]
pub(crate) enum Shape {
    /// All of it.
    Whole,
    /// All of it but the witnesses.
    Stripped,
    /// A compact block.
    Compact,
    /// What the peer's bloom filter matches.
    Filtered,
    /// Some transactions.
    Transactions(BlockTransactionsRequest),
}

/// The newest block of the active chain that the locator names. Core: `FindForkInGlobalIndex`.
fn find_fork(locator: &[BlockHash], view: &impl View) -> Id {
    for id in locator.iter().filter_map(|hash| view.find(hash)) {
        if view.is_active(id) {
            return id;
        }
        if view.is_ancestor(view.tip(), id) {
            return view.tip();
        }
    }
    Id::GENESIS
}

/// `getheaders` came. It is always answered, if only with nothing. Core: `ProcessMessage` GETHEADERS.
pub(crate) fn on_getheaders(peer: &mut Peer, locate: &Locate, view: &impl View, cx: &mut Cx<'_>) {
    let tip = view.tip();
    if view.entry(tip).work < cx.core.config.params.minimum_chain_work && !peer.permissions.download {
        return cx.send(peer, Message::Headers(Vec::new()));
    }
    if locate.locator.is_empty() {
        let Some(id) = view.find(&locate.stop).filter(|id| may_be_served(*id, view, cx)) else { return };
        peer.headers.best_sent = Some(id);
        return cx.send(peer, Message::Headers(vec![view.header(id)]));
    }
    let first = view.entry(find_fork(&locate.locator, view)).height + 1;
    let mut headers = Vec::new();
    let mut last = tip;
    for id in (first..).map_while(|height| view.active(height)).take(MAX_HEADERS_RESULTS) {
        headers.push(view.header(id));
        last = id;
        if view.entry(id).hash == locate.stop {
            break;
        }
    }
    // Not the best of the two: what was announced meanwhile may have to be announced again.
    peer.headers.best_sent = Some(last);
    cx.send(peer, Message::Headers(headers));
}

/// `getblocks` came. Core: `ProcessMessage` GETBLOCKS.
pub(crate) fn on_getblocks(peer: &mut Peer, locate: &Locate, view: &impl View, cx: &mut Cx<'_>) {
    let first = view.entry(find_fork(&locate.locator, view)).height + 1;
    let limit = cx.core.config.limits.getblocks_hashes;
    let chain = (first..).map_while(|height| view.active(height)).map(|id| view.entry(id));
    let hashes = chain.take_while(|entry| entry.hash != locate.stop && entry.has_block).map(|entry| entry.hash);
    let hashes: Vec<BlockHash> = hashes.take(limit).collect();
    if hashes.len() == limit {
        peer.continuation = hashes.last().copied();
    }
    if !hashes.is_empty() {
        cx.send(peer, Message::Inv(hashes.into_iter().map(Inventory::Block).collect()));
    }
}

/// Whether strangers may have this block: it is active, or was valid and is young. Core: `BlockRequestAllowed`.
pub(crate) fn may_be_served(id: Id, view: &impl View, cx: &Cx<'_>) -> bool {
    if view.is_active(id) {
        return true;
    }
    let (entry, best) = (view.entry(id), view.entry(view.best_header()));
    let limit = STALE_RELAY_AGE_LIMIT.as_secs();
    entry.proven
        && !entry.invalid
        && u64::from(best.time.saturating_sub(entry.time)) < limit
        && (best.work <= entry.work
            || proof_equivalent_time(best.work, entry.work, best.bits, &cx.core.config.params) < limit)
}

/// Goes on with what the peer asked for, as far as its queue has room.
pub(crate) fn go_on(peer: &mut Peer, relay: &mut TxRelay, recent: &mut RecentBlock, view: &impl View, cx: &mut Cx<'_>) {
    let (reads, pause) = (cx.core.config.limits.reads_in_flight, cx.core.config.limits.send_pause_bytes);
    while peer.closing.is_none() && peer.answers.len() < reads && peer.to_come() <= pause {
        let Some(item) = peer.wanted.pop_front() else { break };
        match item {
            Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
                // Who was pushed this block may ask for all of it before it is connected.
                let settled = |id: &Id| view.is_active(*id) || view.entry(*id).invalid;
                if recent.is_unproven(&hash) && !view.find(&hash).as_ref().is_some_and(settled) {
                    peer.wanted.push_front(item);
                    break;
                }
                let shape = match item {
                    Inventory::Block(_) => Shape::Stripped,
                    Inventory::CompactBlock(_) => Shape::Compact,
                    _ => Shape::Whole,
                };
                serve_block(peer, hash, shape, recent, view, cx);
            }
            // Who is told of none gets none, and hears nothing of it.
            Inventory::Transaction(_) | Inventory::WTx(_) | Inventory::WitnessTransaction(_) if !peer.relay.is_on() => {
            }
            Inventory::Transaction(_) | Inventory::WTx(_) | Inventory::WitnessTransaction(_) => {
                match relay.serve(peer, &item, view) {
                    Some(tx) => answer(peer, Arc::new(Message::Tx(tx)), cx),
                    None => peer.missing.push(item),
                }
            }
            Inventory::Unknown { inv_type: MSG_FILTERED_BLOCK, hash } => {
                serve_block(peer, BlockHash::from_byte_array(hash), Shape::Filtered, recent, view, cx);
            }
            Inventory::Error | Inventory::Unknown { .. } => {}
        }
    }
    if peer.wanted.is_empty() && peer.answers.is_empty() && !peer.missing.is_empty() {
        let missing = std::mem::take(&mut peer.missing);
        cx.send(peer, Message::NotFound(missing));
    }
}

/// Sends an answer now, or behind those that are being read.
fn answer(peer: &mut Peer, message: Arc<Message>, cx: &mut Cx<'_>) {
    if peer.answers.is_empty() {
        cx.send_shared(peer, message);
    } else {
        peer.answers.push_back(Answer::Ready(message));
    }
}

/// A block was asked for. Core: `ProcessGetBlockData`.
fn serve_block(
    peer: &mut Peer,
    hash: BlockHash,
    mut shape: Shape,
    recent: &mut RecentBlock,
    view: &impl View,
    cx: &mut Cx<'_>,
) {
    let Some(id) = view.find(&hash).filter(|id| may_be_served(*id, view, cx)) else { return };
    let (config, entry) = (&cx.core.config, view.entry(id));
    let age = view.entry(view.best_header()).time.saturating_sub(entry.time);
    let historical = u64::from(age) > HISTORICAL_BLOCK_AGE.as_secs();
    if (historical || matches!(shape, Shape::Filtered)) && cx.core.upload.is_near(cx.now) && !peer.permissions.download
    {
        return cx.disconnect(peer, Reason::UploadTarget);
    }
    let limited = config.services & (NODE_NETWORK | NODE_NETWORK_LIMITED) == NODE_NETWORK_LIMITED;
    let depth = view.entry(view.tip()).height.saturating_sub(entry.height);
    if limited && depth > config.limits.limited_blocks + 2 && !peer.permissions.no_ban {
        return cx.disconnect(peer, Reason::BelowLimit);
    }
    if !entry.has_block {
        return;
    }
    // Who asks for an old block hardly has the pool of that time.
    let young = depth <= MAX_CMPCTBLOCK_DEPTH && can_direct_fetch(view, cx);
    if matches!(shape, Shape::Compact) && !young {
        shape = Shape::Whole;
    }
    let pushed = if matches!(shape, Shape::Compact) { recent.message(&hash, cx) } else { None };
    match pushed {
        Some(message) => answer(peer, message, cx),
        None => read(peer, (hash, entry.block_bytes), shape, cx),
    }
    if peer.continuation == Some(hash) {
        // Who asked with getblocks hears of the tip, and asks again.
        peer.continuation = None;
        let tip = view.entry(view.tip()).hash;
        answer(peer, Arc::new(Message::Inv(vec![Inventory::Block(tip)])), cx);
    }
}

/// Has a block read; what the peer gets of it is sent behind all that it was promised before.
pub(crate) fn read(peer: &mut Peer, (hash, bytes): (BlockHash, usize), shape: Shape, cx: &mut Cx<'_>) {
    let work = if matches!(shape, Shape::Whole) { Work::ReadBlock(hash) } else { Work::DecodeBlock(hash) };
    let token = cx.work(peer, work, Pending::Read(shape));
    peer.answers.push_back(Answer::Reading(token, bytes));
}

/// Transactions of a block are asked for by their places. Core: `ProcessMessage` GETBLOCKTXN.
pub(crate) fn on_getblocktxn(
    peer: &mut Peer,
    request: BlockTransactionsRequest,
    recent: &RecentBlock,
    view: &impl View,
    cx: &mut Cx<'_>,
) -> Result<(), &'static str> {
    if let Some(block) = recent.get(&request.block_hash) {
        let message = block_transactions(block, &request)?;
        cx.send(peer, message);
        return Ok(());
    }
    let Some(entry) = view.find(&request.block_hash).map(|id| view.entry(id)).filter(|entry| entry.has_block) else {
        return Ok(());
    };
    if entry.height + MAX_BLOCKTXN_DEPTH >= view.entry(view.tip()).height {
        read(peer, (entry.hash, entry.block_bytes), Shape::Transactions(request), cx);
    } else {
        // As many bytes to receive as we have to read: nobody gains by asking.
        peer.wanted.push_back(Inventory::WitnessBlock(entry.hash));
    }
    Ok(())
}

fn block_transactions(block: &Block, request: &BlockTransactionsRequest) -> Result<Message, &'static str> {
    let transaction = |place: &u64| block.transactions.get(usize::try_from(*place).ok()?).cloned();
    let transactions: Option<Vec<Transaction>> = request.indexes.iter().map(transaction).collect();
    let transactions = transactions.ok_or("getblocktxn with out-of-bounds tx indices")?;
    Ok(Message::BlockTxn(BlockTransactions { block_hash: block.hash, transactions }))
}

/// The bytes of a block were read.
pub(crate) fn on_read(peer: &mut Peer, token: Token, block: Option<Arc<Vec<u8>>>, cx: &mut Cx<'_>) {
    match block {
        Some(block) => settle(peer, token, vec![Message::Block(block)], cx),
        None => cx.disconnect(peer, Reason::BlockGone),
    }
}

/// A block was read of which the peer wants something else than the bytes.
pub(crate) fn on_decoded(
    peer: &mut Peer,
    token: Token,
    block: Option<Arc<Block>>,
    shape: &Shape,
    cx: &mut Cx<'_>,
) -> Result<(), &'static str> {
    let Some(block) = block else {
        cx.disconnect(peer, Reason::BlockGone);
        return Ok(());
    };
    let messages = match shape {
        Shape::Whole => Vec::new(),
        Shape::Stripped => vec![Message::Block(Arc::new(stripped(&block)))],
        Shape::Compact => vec![Message::CmpctBlock(Arc::new(compact_block(&block, cx.core.rng.random(), &[])))],
        Shape::Filtered => merkle_block(peer.relay.filter.as_deref_mut(), &block),
        Shape::Transactions(request) => match block_transactions(&block, request) {
            Ok(message) => vec![message],
            Err(what) => {
                settle(peer, token, Vec::new(), cx);
                return Err(what);
            }
        },
    };
    settle(peer, token, messages, cx);
    Ok(())
}

/// Puts what was read in its place, and sends what is ready.
pub(crate) fn settle(peer: &mut Peer, token: Token, messages: Vec<Message>, cx: &mut Cx<'_>) {
    let place =
        peer.answers.iter().position(|answer| matches!(answer, Answer::Reading(reading, _) if *reading == token));
    let Some(place) = place else { return };
    let rest = peer.answers.split_off(place + 1);
    peer.answers.pop_back();
    peer.answers.extend(messages.into_iter().map(|message| Answer::Ready(Arc::new(message))));
    peer.answers.extend(rest);
    while let Some(Answer::Ready(message)) = peer.answers.front() {
        let message = message.clone();
        peer.answers.pop_front();
        cx.send_shared(peer, message);
    }
}

fn stripped(block: &Block) -> Vec<u8> {
    let mut out = serialize(&block.header);
    out.extend(serialize(&VarInt::from(block.transactions.len())));
    block.transactions.iter().for_each(|tx| out.extend(serialize(&without_witness(tx))));
    out
}
