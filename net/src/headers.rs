//! Headers: which peer has which chain, the first sync with one peer, headers as announcements, and the defence
//! against chains without work. Whether a header is valid the ledger says. Knows nothing of blocks' bodies.

mod presync;
#[cfg(test)]
mod tests;

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Work};
use groat_chain::rules::pow::{block_work, check_proof_of_work};

use crate::guard::Guard;
use crate::message::{Locate, MAX_HEADERS_RESULTS, Message};
use crate::peer::{LinkKind, Peer, Peers};
use crate::protocol::{Cx, PeerId, Pending, Reason, Work as ChainWork};
use crate::timers::{
    HEADERS_DOWNLOAD_TIMEOUT_BASE, HEADERS_DOWNLOAD_TIMEOUT_PER_HEADER, HEADERS_RESPONSE_TIME, MAX_TIP_AGE, Micros,
    Timer,
};
use crate::view::{Entry, Id, View};
use presync::Presync;

/// What is kept of a peer.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The end of the best chain that the peer is known to have.
    pub(crate) best_known: Option<Id>,
    /// A block that the peer said to have and that is not known here.
    last_unknown: Option<BlockHash>,
    /// The last header that was sent to it.
    pub(crate) best_sent: Option<Id>,
    /// The first `getheaders` went out.
    pub(crate) sync_started: bool,
    /// When the last `getheaders` left that has no answer.
    asked: Option<Micros>,
    presync: Option<Box<Presync>>,
    /// A block that it announced led to a `getheaders` before it was its turn.
    asked_early: bool,
    /// It is kept though its chain may be behind.
    pub(crate) protected: bool,
    /// Its chain is behind ours.
    pub(crate) behind: Option<Behind>,
    /// When it last announced a block that was new and better than our tip.
    pub(crate) last_announcement: Option<Micros>,
}

/// What is kept of a peer that is behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    /// When patience ends.
    pub(crate) until: Micros,
    /// Our tip when patience began: who reaches it gets more.
    pub(crate) goal: Id,
    /// It was asked.
    pub(crate) asked: bool,
}

impl State {
    /// Height that the low-work sync has counted to, and whether it is fetching again; none when there is none.
    pub(crate) fn presync_height(&self) -> Option<(u32, bool)> {
        self.presync.as_ref().map(|presync| presync.height())
    }
}

/// What the batch that the ledger is judging was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    last: BlockHash,
    /// Its last header was not known before.
    new: bool,
    /// The message could hold no more: there may be more headers.
    full: bool,
    /// The next request was sent already.
    more_asked: bool,
}

/// The syncs of all peers.
#[derive(Debug, Default)]
pub(crate) struct Headers {
    /// Peers whose first `getheaders` went out.
    syncing: usize,
    protected: usize,
    /// The announced block that led to the last early `getheaders`.
    last_early: Option<BlockHash>,
    /// A sync ended, and another may begin.
    restart: bool,
}

/// Sends `getheaders` from the locator of `from`, unless one is under way. Core: `MaybeSendGetHeaders`.
pub(crate) fn ask(peer: &mut Peer, locator: Vec<BlockHash>, cx: &mut Cx<'_>) -> bool {
    if peer.headers.asked.is_some_and(|asked| cx.now.since(asked) <= HEADERS_RESPONSE_TIME) {
        return false;
    }
    peer.headers.asked = Some(cx.now);
    cx.send(peer, Message::GetHeaders(Locate { locator, stop: BlockHash::all_zeros() }));
    true
}

/// Less work than this, and a chain is not stored. Core: `GetAntiDoSWorkThreshold`.
pub(crate) fn anti_dos_work(view: &impl View, minimum: Work) -> Work {
    let tip = view.entry(view.tip());
    let double = |work: Work| work + work;
    let sixteen = double(double(double(double(block_work(tip.bits)))));
    let buffer = sixteen + double(double(double(sixteen)));
    let near_tip = if tip.work > buffer { tip.work - buffer } else { Work::from_be_bytes([0; 32]) };
    near_tip.max(minimum)
}

/// Whether a header this young is up to date.
fn is_recent(entry: &Entry, now: Micros) -> bool {
    u64::from(entry.time) + MAX_TIP_AGE.as_secs() > now.seconds()
}

/// A peer is said to have this block. Core: `UpdateBlockAvailability`.
pub(crate) fn note_available(peer: &mut Peer, hash: BlockHash, view: &impl View) {
    resolve_unknown(peer, view);
    match view.find(&hash) {
        Some(id) => raise_best(peer, id, view),
        None => peer.headers.last_unknown = Some(hash),
    }
}

/// Sees whether the unknown block that a peer has is known by now. Core: `ProcessBlockAvailability`.
pub(crate) fn resolve_unknown(peer: &mut Peer, view: &impl View) {
    let Some(id) = peer.headers.last_unknown.and_then(|hash| view.find(&hash)) else { return };
    peer.headers.last_unknown = None;
    raise_best(peer, id, view);
}

fn raise_best(peer: &mut Peer, id: Id, view: &impl View) {
    let better = |best: Id| view.entry(id).work >= view.entry(best).work;
    if peer.headers.best_known.is_none_or(better) {
        peer.headers.best_known = Some(id);
    }
}

/// Whether the peer is known to have this header. Core: `PeerHasHeader`.
pub(crate) fn has_header(peer: &Peer, id: Id, view: &impl View) -> bool {
    [peer.headers.best_known, peer.headers.best_sent].into_iter().flatten().any(|best| view.is_ancestor(id, best))
}

impl Headers {
    /// Starts the first sync with this peer if it is its turn: with one peer, until the best header is young; then with
    /// all. `new`: only this peer's handshake is new. `idle`: no block is being fetched.
    pub(crate) fn maybe_start(
        &mut self,
        peers: &mut Peers,
        new: Option<PeerId>,
        idle: bool,
        view: &impl View,
        cx: &mut Cx<'_>,
    ) {
        let best = view.best_header();
        let entry = view.entry(best);
        let recent = is_recent(&entry, cx.now);
        if !recent && self.syncing > 0 {
            return;
        }
        let no_preferred = !recent && !peers.values().any(|peer| peer.ready && peer.is_preferred());
        // Then all others have begun already, and there may be thousands.
        let candidates = match new.filter(|_| recent) {
            Some(id) => peers.range_mut(id..=id),
            None => peers.range_mut(..),
        };
        for peer in candidates.map(|(_, peer)| peer) {
            let fit = peer.ready && peer.closing.is_none() && !peer.headers.sync_started && peer.serves_blocks();
            let chosen = peer.is_preferred() || (peer.kind != LinkKind::AddrFetch && (no_preferred || idle));
            if !fit || !(recent || (self.syncing == 0 && chosen)) {
                continue;
            }
            // From the parent, so that a peer that is up to date has something to answer with.
            ask(peer, view.locator(entry.parent.unwrap_or(best)), cx);
            peer.headers.sync_started = true;
            self.syncing += 1;
            let behind = cx.now.seconds().saturating_sub(u64::from(entry.time));
            let expected = behind / u64::from(cx.core.config.params.spacing);
            let more = HEADERS_DOWNLOAD_TIMEOUT_PER_HEADER * u32::try_from(expected).unwrap_or(u32::MAX);
            cx.core.timers.set(peer.id, Timer::HeadersSync, cx.now + HEADERS_DOWNLOAD_TIMEOUT_BASE + more);
        }
    }

    /// The first sync with a peer took too long. It goes only if another could do better.
    pub(crate) fn on_sync_timeout(&mut self, peers: &mut Peers, id: PeerId, view: &impl View, cx: &mut Cx<'_>) {
        let others = peers.values().filter(|peer| peer.ready && peer.is_preferred() && peer.id != id).count();
        let Some(peer) = peers.get_mut(&id).filter(|peer| peer.headers.sync_started) else { return };
        if is_recent(&view.entry(view.best_header()), cx.now) {
            return;
        }
        if self.syncing != 1 || others == 0 {
            cx.core.timers.set(id, Timer::HeadersSync, cx.now + HEADERS_RESPONSE_TIME);
        } else if peer.permissions.no_ban {
            peer.headers.sync_started = false;
            peer.headers.asked = None;
            self.syncing -= 1;
            self.restart = true;
        } else {
            cx.disconnect(peer, Reason::HeadersTimeout);
        }
    }

    /// Whether a sync may begin that could not when this was last asked.
    pub(crate) fn take_restart(&mut self) -> bool {
        std::mem::take(&mut self.restart)
    }

    /// A peer is gone.
    pub(crate) fn on_gone(&mut self, peer: &Peer) {
        self.syncing -= usize::from(peer.headers.sync_started);
        // Of many that go at once, only these make room for another.
        self.restart |= self.syncing == 0 && (peer.headers.sync_started || peer.is_preferred());
        self.protected -= usize::from(peer.headers.protected);
    }

    /// Blocks were announced by hash; the last unknown one is the newest. Core: `ProcessMessage` INV.
    pub(crate) fn on_block_inv(&mut self, peer: &mut Peer, newest: BlockHash, view: &impl View, cx: &mut Cx<'_>) {
        let early = !peer.headers.sync_started;
        if early && (peer.headers.asked_early || self.last_early == Some(newest)) {
            return;
        }
        ask(peer, view.locator(view.best_header()), cx);
        if early {
            peer.headers.asked_early = true;
            self.last_early = Some(newest);
        }
    }

    /// Headers came. Gives the last of them when all are known here already: the ledger need not be asked then.
    /// Core: `ProcessHeadersMessage`.
    pub(crate) fn on_headers(
        &mut self,
        peer: &mut Peer,
        headers: Vec<Header>,
        view: &impl View,
        guard: &mut Guard,
        cx: &mut Cx<'_>,
    ) -> Option<(Id, Batch)> {
        if headers.is_empty() {
            peer.headers.presync = None;
            peer.headers.asked = None;
            return None;
        }
        let params = cx.core.config.params.clone();
        let hashes: Vec<BlockHash> = headers.iter().map(Header::block_hash).collect();
        let proven = |(header, hash): (&Header, &BlockHash)| check_proof_of_work(*hash, header.bits, &params).is_ok();
        if !headers.iter().zip(&hashes).all(proven) {
            guard.misbehaved(peer, "header with invalid proof of work", cx);
            return None;
        }
        if headers.iter().skip(1).zip(&hashes).any(|(header, before)| header.prev_blockhash != *before) {
            guard.misbehaved(peer, "non-continuous headers sequence", cx);
            return None;
        }
        let full = headers.len() == MAX_HEADERS_RESULTS;
        let continued = self.continue_presync(peer, &headers, &hashes, full, view, cx);
        let worked = continued.is_some();
        let headers = continued.unwrap_or(headers);
        let (first, last) = (headers.first()?.prev_blockhash, headers.last()?.block_hash());
        let more_asked = peer.headers.presync.is_some();

        let Some(start) = view.find(&first) else {
            ask(peer, view.locator(view.best_header()), cx);
            note_available(peer, last, view);
            return None;
        };
        peer.headers.asked = None;
        let known = view.find(&last);
        let batch = Batch { last, new: known.is_none(), full, more_asked };
        if let Some(known) = known.filter(|id| !view.entry(*id).invalid) {
            return Some((known, batch));
        }
        if !worked && !peer.permissions.no_ban && self.lacks_work(peer, start, &headers, view, cx) {
            return None;
        }
        cx.work(peer, ChainWork::Headers(headers), Pending::Headers(batch));
        None
    }

    /// If a low-work sync runs and this is its continuation: the headers that it lets go.
    fn continue_presync(
        &mut self,
        peer: &mut Peer,
        headers: &[Header],
        hashes: &[BlockHash],
        full: bool,
        view: &impl View,
        cx: &mut Cx<'_>,
    ) -> Option<Vec<Header>> {
        let mut presync = peer.headers.presync.take()?;
        let progress = presync.take(headers, hashes, full, &cx.core.config.params);
        if !progress.fits {
            return None;
        }
        peer.headers.asked = None;
        if let Some(after) = progress.more_after {
            let mut locator = vec![after];
            locator.extend(view.locator(presync.start()));
            ask(peer, locator, cx);
            peer.headers.presync = Some(presync);
        }
        Some(progress.released)
    }

    /// Whether the chain claims too little work to be stored; a full message then begins a low-work sync.
    /// Core: `TryLowWorkHeadersSync`.
    fn lacks_work(
        &mut self,
        peer: &mut Peer,
        start: Id,
        headers: &[Header],
        view: &impl View,
        cx: &mut Cx<'_>,
    ) -> bool {
        let params = cx.core.config.params.clone();
        let claimed = headers.iter().fold(view.entry(start).work, |work, header| work + block_work(header.bits));
        let wanted = anti_dos_work(view, params.minimum_chain_work);
        if claimed >= wanted {
            return false;
        }
        if headers.len() == MAX_HEADERS_RESULTS {
            let presync = Presync::new(start, wanted, view, &params, cx.now, &mut cx.core.rng);
            peer.headers.presync = Some(Box::new(presync));
            let hashes: Vec<BlockHash> = headers.iter().map(Header::block_hash).collect();
            self.continue_presync(peer, headers, &hashes, true, view, cx);
        }
        true
    }

    /// The headers up to `last` are known here now, and the peer has them. Core: `UpdatePeerStateForReceivedHeaders`.
    pub(crate) fn on_known(&mut self, peer: &mut Peer, last: Id, batch: Batch, view: &impl View, cx: &mut Cx<'_>) {
        if batch.full && !batch.more_asked {
            ask(peer, view.locator(last), cx);
        }
        note_available(peer, batch.last, view);
        let (entry, tip) = (view.entry(last), view.entry(view.tip()));
        if batch.new && entry.work > tip.work {
            peer.headers.last_announcement = Some(cx.now);
        }
        let best = peer.headers.best_known.map_or(entry.work, |best| view.entry(best).work);
        let params = &cx.core.config.params;
        let poor = best < params.minimum_chain_work;
        if cx.core.initial_download && !batch.full && poor && peer.kind.is_outbound_or_block_relay() {
            return cx.disconnect(peer, Reason::ChainTooWeak);
        }
        let room = self.protected < cx.core.config.limits.protected_outbound;
        if peer.kind == LinkKind::OutboundFull && room && !peer.headers.protected && best >= tip.work {
            peer.headers.protected = true;
            self.protected += 1;
        }
    }
}

impl Batch {
    /// Its last hash.
    pub(crate) fn last(&self) -> BlockHash {
        self.last
    }
}
