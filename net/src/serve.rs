//! Serving: headers and block hashes from the view, blocks from the ledger's files, in the order in which they were
//! asked for. Fetches nothing.

use std::sync::Arc;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, BlockHash, Witness};
use groat_chain::rules::pow::proof_equivalent_time;

use crate::message::{Kind, Locate, MAX_HEADERS_RESULTS, Message};
use crate::peer::{Answer, NODE_BLOOM, NODE_NETWORK, NODE_NETWORK_LIMITED, Peer};
use crate::protocol::{Cx, Event, Pending, Reason, Token, Work};
use crate::timers::STALE_RELAY_AGE_LIMIT;
use crate::txrelay::TxRelay;
use crate::view::{Id, View};

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
fn may_be_served(id: Id, view: &impl View, cx: &Cx<'_>) -> bool {
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
pub(crate) fn go_on(peer: &mut Peer, relay: &mut TxRelay, view: &impl View, cx: &mut Cx<'_>) {
    let (reads, pause) = (cx.core.config.limits.reads_in_flight, cx.core.config.limits.send_pause_bytes);
    while peer.closing.is_none() && peer.answers.len() < reads && peer.queued <= pause {
        let Some(item) = peer.wanted.pop_front() else { break };
        match item {
            Inventory::Block(hash) => read_block(peer, hash, true, view, cx),
            // Answered whole until compact blocks are made here, as BIP152 allows.
            Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => read_block(peer, hash, false, view, cx),
            // Who is told of none gets none, and hears nothing of it.
            Inventory::Transaction(_) | Inventory::WTx(_) | Inventory::WitnessTransaction(_) if !peer.relay.is_on() => {
            }
            Inventory::Transaction(_) | Inventory::WTx(_) | Inventory::WitnessTransaction(_) => {
                match relay.serve(peer, &item, view) {
                    Some(tx) => answer(peer, Message::Tx(tx), cx),
                    None => peer.missing.push(item),
                }
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
fn answer(peer: &mut Peer, message: Message, cx: &mut Cx<'_>) {
    if peer.answers.is_empty() {
        cx.send(peer, message);
    } else {
        peer.answers.push_back(Answer::Ready(Arc::new(message)));
    }
}

fn read_block(peer: &mut Peer, hash: BlockHash, stripped: bool, view: &impl View, cx: &mut Cx<'_>) {
    let Some(id) = view.find(&hash).filter(|id| may_be_served(*id, view, cx)) else { return };
    let (config, entry) = (&cx.core.config, view.entry(id));
    let limited = config.services & (NODE_NETWORK | NODE_NETWORK_LIMITED) == NODE_NETWORK_LIMITED;
    let depth = view.entry(view.tip()).height.saturating_sub(entry.height);
    if limited && depth > config.limits.limited_blocks + 2 && !peer.permissions.no_ban {
        return cx.disconnect(peer, Reason::BelowLimit);
    }
    if !entry.has_block {
        return;
    }
    let token = cx.work(peer, Work::ReadBlock(hash), Pending::Read { stripped });
    peer.answers.push_back(Answer::Reading(token));
    if peer.continuation == Some(hash) {
        // Who asked with getblocks hears of the tip, and asks again.
        peer.continuation = None;
        let tip = view.entry(view.tip()).hash;
        answer(peer, Message::Inv(vec![Inventory::Block(tip)]), cx);
    }
}

/// The ledger has read a block.
pub(crate) fn on_read(peer: &mut Peer, token: Token, block: Option<Arc<Vec<u8>>>, stripped: bool, cx: &mut Cx<'_>) {
    let block = if stripped { block.and_then(|block| without_witness(&block)) } else { block };
    let Some(block) = block else { return cx.disconnect(peer, Reason::BlockGone) };
    for answer in &mut peer.answers {
        if matches!(answer, Answer::Reading(reading) if *reading == token) {
            *answer = Answer::Ready(Arc::new(Message::Block(block)));
            break;
        }
    }
    while let Some(Answer::Ready(message)) = peer.answers.front() {
        let message = message.clone();
        peer.answers.pop_front();
        cx.send_shared(peer, message);
    }
}

fn without_witness(block: &[u8]) -> Option<Arc<Vec<u8>>> {
    let mut block: Block = deserialize(block).ok()?;
    block.txdata.iter_mut().flat_map(|tx| &mut tx.input).for_each(|input| input.witness = Witness::new());
    Some(Arc::new(serialize(&block)))
}

/// A request that only a node with a service may be asked for. Core: NODE_BLOOM, NODE_COMPACT_FILTERS.
pub(crate) fn on_unserved(peer: &mut Peer, kind: Kind, cx: &mut Cx<'_>) {
    let bloom = matches!(kind, Kind::MemPool | Kind::FilterLoad | Kind::FilterAdd | Kind::FilterClear);
    if bloom && cx.core.config.services & NODE_BLOOM != 0 {
        return cx.event(Event::Ignored { peer: peer.id, kind: Some(kind) });
    }
    cx.disconnect(peer, Reason::Unserved(kind));
}
