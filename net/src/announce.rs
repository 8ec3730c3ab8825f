//! Telling peers of new blocks: as compact blocks or by headers to those that want that and can connect them, by hash to
//! the others. The same message is shared by all who get it.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::p2p::message_blockdata::Inventory;

use crate::blocks::can_direct_fetch;
use crate::compact::RecentBlock;
use crate::headers::{has_header, resolve_unknown};
use crate::message::Message;
use crate::peer::{LinkKind, Peers};
use crate::protocol::Cx;
use crate::serve::{Shape, read};
use crate::view::{Id, View};

/// The tip moved over these blocks, the last of which it is. Core: `UpdatedBlockTip` and `SendMessages`.
pub(crate) fn announce(
    peers: &mut Peers,
    connected: &[BlockHash],
    recent: &mut RecentBlock,
    view: &impl View,
    cx: &mut Cx<'_>,
) {
    let most = cx.core.config.limits.blocks_to_announce;
    let many = connected.len() > most;
    let blocks: Vec<Id> =
        connected[connected.len().saturating_sub(most)..].iter().filter_map(|hash| view.find(hash)).collect();
    let Some(&tip) = blocks.last().filter(|tip| view.is_active(**tip)) else { return };
    let hash = view.entry(tip).hash;
    // If it has to be read for that, only a young one is sent as a compact block.
    let compact = recent.get(&hash).is_some() || can_direct_fetch(view, cx);
    let inv = Arc::new(Message::Inv(vec![Inventory::Block(hash)]));
    // What a peer gets that knows the first so many of the blocks.
    let mut by_headers: Vec<Option<Arc<Message>>> = vec![None; blocks.len()];
    for peer in peers.values_mut() {
        if !peer.ready || peer.closing.is_some() || matches!(peer.kind, LinkKind::Feeler | LinkKind::AddrFetch) {
            continue;
        }
        resolve_unknown(peer, view);
        let Some(first) = blocks.iter().position(|id| !has_header(peer, *id, view)) else { continue };
        let connects = view.entry(blocks[first]).parent.is_none_or(|parent| has_header(peer, parent, view));
        let push = peer.compact == Some(true) && first + 1 == blocks.len() && (peer.prefers_headers || first == 0);
        if push && compact && connects && !many {
            peer.headers.best_sent = Some(tip);
            match recent.message(&hash, cx) {
                Some(message) => cx.send_shared(peer, message),
                // Not as if the peer had asked for it: by the time of its turn it might be too deep to be sent so, and
                // all of a block is for nobody who did not ask.
                None => read(peer, (hash, view.entry(tip).block_bytes), Shape::Compact, cx),
            }
        } else if peer.prefers_headers && connects && !many {
            let headers = || Message::Headers(blocks[first..].iter().map(|id| view.header(*id)).collect());
            let message = by_headers[first].get_or_insert_with(|| Arc::new(headers())).clone();
            peer.headers.best_sent = Some(tip);
            cx.send_shared(peer, message);
        } else if !has_header(peer, tip, view) {
            cx.send_shared(peer, inv.clone());
        }
    }
}
