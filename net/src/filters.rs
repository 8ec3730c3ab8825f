//! Compact filters of blocks for light clients, of a node that offers them ([BIP-0157]; `-peerblockfilters`): the filters
//! themselves, their hashes, and their headers at every thousandth block. Makes none.
//!
//! [BIP-0157]: https://github.com/bitcoin/bips/blob/master/bip-0157.mediawiki

use bitcoin::BlockHash;
use bitcoin::bip158::FilterHeader;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_filter::{CFCheckpt, CFHeaders, CFilter};
use groat_chain::index::filters::Header;

use crate::message::{Kind, Message};
use crate::peer::{Answer, NODE_COMPACT_FILTERS, Peer};
use crate::protocol::{Cx, Pending, Reason, Token, Work};
use crate::serve;
use crate::view::{Id, View};

/// The only type of filters. Core: `BlockFilterType::BASIC`.
const BASIC: u8 = 0;
/// Most filters that one message asks for. Core's name and value.
const MAX_GETCFILTERS_SIZE: u32 = 1000;
/// Most hashes of filters that one message asks for. Core's name and value.
const MAX_GETCFHEADERS_SIZE: u32 = 2000;
/// Blocks from one checkpoint to the next. Core's name and value.
const CFCHECKPT_INTERVAL: u32 = 1000;
/// Filters that are read at once: a thousand together are more than should wait to be sent.
const FILTERS_PER_READ: usize = 32;
/// About the bytes of a filter.
const FILTER_BYTES: usize = 20_000;

/// What is being read for a peer.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// Filters of these blocks.
    Filters(Vec<BlockHash>),
    /// Hashes of filters up to this block; `after`: one more comes first, whose header the others follow.
    Hashes { stop: BlockHash, after: bool },
    /// Headers at checkpoints up to this block.
    Checkpoints { stop: BlockHash },
}

/// `getcfilters`, `getcfheaders` or `getcfcheckpt` came. Core: `ProcessGetCFilters` and its neighbours.
pub(crate) fn on_request(peer: &mut Peer, message: &Message, view: &impl View, cx: &mut Cx<'_>) {
    let (kind, filter_type, start, stop, most) = match message {
        Message::GetCFilters(wanted) => {
            (Kind::GetCFilters, wanted.filter_type, wanted.start_height, wanted.stop_hash, MAX_GETCFILTERS_SIZE)
        }
        Message::GetCFHeaders(wanted) => {
            (Kind::GetCFHeaders, wanted.filter_type, wanted.start_height, wanted.stop_hash, MAX_GETCFHEADERS_SIZE)
        }
        Message::GetCFCheckpt(wanted) => (Kind::GetCFCheckpt, wanted.filter_type, 0, wanted.stop_hash, u32::MAX),
        _ => return,
    };
    if filter_type != BASIC || cx.core.config.services & NODE_COMPACT_FILTERS == 0 {
        return cx.disconnect(peer, Reason::Unserved(kind));
    }
    let id = view.find(&stop).filter(|id| serve::may_be_served(*id, view, cx));
    let range = id.and_then(|id| Some((id, view.entry(id).height.checked_sub(start)?)));
    let Some((id, more)) = range.filter(|(_, more)| *more < most) else {
        return cx.disconnect(peer, Reason::BadMessage(kind));
    };
    let count = more as usize + 1;
    match kind {
        Kind::GetCFilters => peer.filters.extend(last(id, count, view)),
        Kind::GetCFHeaders => {
            let after = start > 0;
            read_headers(peer, last(id, count + usize::from(after), view), Wanted::Hashes { stop, after }, cx);
        }
        _ => {
            let height = view.entry(id).height;
            let points = (1..=height / CFCHECKPT_INTERVAL).map(|point| view.ancestor(id, point * CFCHECKPT_INTERVAL));
            let hashes = points.map(|id| view.entry(id).hash).collect();
            read_headers(peer, hashes, Wanted::Checkpoints { stop }, cx);
        }
    }
}

/// Hashes of the last `count` blocks of the chain that ends in `id`, in the chain's order.
fn last(id: Id, count: usize, view: &impl View) -> Vec<BlockHash> {
    let mut hashes: Vec<BlockHash> = std::iter::successors(Some(id), |id| view.entry(*id).parent)
        .take(count)
        .map(|id| view.entry(id).hash)
        .collect();
    hashes.reverse();
    hashes
}

fn read_headers(peer: &mut Peer, blocks: Vec<BlockHash>, wanted: Wanted, cx: &mut Cx<'_>) {
    let bytes = blocks.len() * 32;
    let token = cx.work(peer, Work::ReadFilterHeaders(blocks), Pending::Filters(wanted));
    peer.answers.push_back(Answer::Reading(token, bytes));
}

/// Goes on with the filters that the peer asked for, as far as its queue has room.
pub(crate) fn go_on(peer: &mut Peer, cx: &mut Cx<'_>) {
    let (reads, pause) = (cx.core.config.limits.reads_in_flight, cx.core.config.limits.send_pause_bytes);
    while !peer.filters.is_empty() && peer.answers.len() < reads && peer.to_come() <= pause {
        let blocks: Vec<BlockHash> = peer.filters.drain(..peer.filters.len().min(FILTERS_PER_READ)).collect();
        let bytes = blocks.len() * FILTER_BYTES;
        let token = cx.work(peer, Work::ReadFilters(blocks.clone()), Pending::Filters(Wanted::Filters(blocks)));
        peer.answers.push_back(Answer::Reading(token, bytes));
    }
}

/// Filters were read. One that is not there yet ends the answer, without a word, as Core has it.
pub(crate) fn on_filters(
    peer: &mut Peer,
    token: Token,
    wanted: Wanted,
    filters: Option<Vec<Vec<u8>>>,
    cx: &mut Cx<'_>,
) {
    let Wanted::Filters(blocks) = wanted else { return };
    if filters.is_none() {
        peer.filters.clear();
    }
    let message = |(block_hash, filter)| Message::CFilter(CFilter { filter_type: BASIC, block_hash, filter });
    serve::settle(peer, token, blocks.into_iter().zip(filters.unwrap_or_default()).map(message).collect(), cx);
}

/// Headers of filters were read.
pub(crate) fn on_headers(peer: &mut Peer, token: Token, wanted: Wanted, headers: Option<Vec<Header>>, cx: &mut Cx<'_>) {
    let message = headers.and_then(|headers| {
        Some(match wanted {
            Wanted::Filters(_) => return None,
            Wanted::Hashes { stop: stop_hash, after } => Message::CFHeaders(CFHeaders {
                filter_type: BASIC,
                stop_hash,
                previous_filter_header: headers
                    .first()
                    .filter(|_| after)
                    .map_or(FilterHeader::all_zeros(), |first| first.header),
                filter_hashes: headers.iter().skip(usize::from(after)).map(|header| header.hash).collect(),
            }),
            Wanted::Checkpoints { stop: stop_hash } => Message::CFCheckpt(CFCheckpt {
                filter_type: BASIC,
                stop_hash,
                filter_headers: headers.iter().map(|header| header.header).collect(),
            }),
        })
    });
    serve::settle(peer, token, message.into_iter().collect(), cx);
}
