//! Fetching blocks: who is asked for which, a window that many peers fill, and what happens to one that holds it up.
//! Whether a block is valid the ledger says. Knows headers only by the view.

mod hedge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Work as ChainWork};
use groat_chain::rules::pow::{block_work, check_proof_of_work};

use crate::guard::Guard;
use crate::headers::{anti_dos_work, resolve_unknown};
use crate::message::Message;
use crate::peer::{NODE_WITNESS, Peer, Peers};
use crate::protocol::{Cx, PeerId, Pending, Reason, Work};
use crate::timers::{BLOCK_STALLING_TIMEOUT_DEFAULT, BLOCK_STALLING_TIMEOUT_MAX, Micros, Timer};
use crate::view::{Id, View};

/// Blocks looked at in one go on the way up a peer's chain.
const STRIDE: u32 = 128;
/// A tip younger than so many block intervals is close to the network's. Core: `CanDirectFetch`.
const DIRECT_FETCH_SPACINGS: u64 = 20;

/// What is kept of a peer.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Blocks asked of it, in order.
    pub(crate) asked: Vec<BlockHash>,
    /// Bytes of its blocks that the ledger has not judged.
    pub(crate) unjudged_bytes: usize,
    /// The last block of its chain up to which all is here.
    pub(crate) last_common: Option<Id>,
    /// Since when the oldest block asked for is due.
    downloading_since: Micros,
    /// The first block of the window that is under way, when last looked at with nothing found to ask for.
    waits_for: Option<BlockHash>,
}

/// A block that is under way.
#[derive(Debug, Default)]
struct Flight {
    /// Who was asked for it and has not given it, in order. More than one only while compact blocks are filled, and with
    /// hedged requests.
    asked: Vec<PeerId>,
    /// When another peer is to be asked for it as well; none with Core's policy.
    patience: Option<Micros>,
    /// It was asked of another, as it did not come.
    hedged: bool,
    /// How often it came and lies with the ledger.
    judging: usize,
}

/// How a block came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As itself.
    Whole,
    /// As a compact block that was filled here. Its giver need not have judged it (BIP152).
    Compact {
        /// It was the first to be asked: the one that is asked for the whole block if this one is not the right one.
        first: bool,
    },
}

/// What goes on with all peers.
#[derive(Debug)]
pub(crate) struct Blocks {
    flights: BTreeMap<BlockHash, Flight>,
    /// Peers that were asked for blocks.
    downloading: BTreeSet<PeerId>,
    /// Peers whose chain has something that may be missing here.
    useful: BTreeSet<PeerId>,
    /// Those of them that may find something to fetch now.
    woken: BTreeSet<PeerId>,
    /// How long a peer may hold the window up.
    stall_timeout: Duration,
    /// Who gave a block that is not connected yet, and in which form.
    sources: BTreeMap<BlockHash, (PeerId, Form)>,
    /// When the first of the blocks under way may have to be asked of another peer.
    hedge: Option<Micros>,
}

impl Default for Blocks {
    fn default() -> Blocks {
        Blocks {
            flights: BTreeMap::new(),
            downloading: BTreeSet::new(),
            useful: BTreeSet::new(),
            woken: BTreeSet::new(),
            stall_timeout: BLOCK_STALLING_TIMEOUT_DEFAULT,
            sources: BTreeMap::new(),
            hedge: None,
        }
    }
}

/// Whether our tip is close to the network's.
pub(crate) fn can_direct_fetch(view: &impl View, cx: &Cx<'_>) -> bool {
    let spacing = u64::from(cx.core.config.params.spacing);
    u64::from(view.entry(view.tip()).time) + DIRECT_FETCH_SPACINGS * spacing > cx.now.seconds()
}

/// The hash in the first 80 bytes of a block.
pub(crate) fn header_of(block: &[u8]) -> Header {
    deserialize(&block[..Header::SIZE]).expect("a block message is at least a header long")
}

impl Blocks {
    /// Whether no block is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether no other block is under way.
    pub(crate) fn is_idle_but(&self, hash: &BlockHash) -> bool {
        self.flights.len() == usize::from(self.flights.contains_key(hash))
    }

    /// Whether this peer was asked for this block and it did not come.
    pub(crate) fn is_asked(&self, peer: PeerId, hash: &BlockHash) -> bool {
        self.asked(hash).contains(&peer)
    }

    /// The peers that were asked for this block and have not given it, in order.
    pub(crate) fn asked(&self, hash: &BlockHash) -> &[PeerId] {
        self.flights.get(hash).map_or(&[], |flight| &flight.asked)
    }

    /// Whether this block lies with the ledger.
    pub(crate) fn is_judging(&self, hash: &BlockHash) -> bool {
        self.flights.get(hash).is_some_and(|flight| flight.judging > 0)
    }

    /// Whether somebody was asked for this block.
    pub(crate) fn is_under_way(&self, hash: &BlockHash) -> bool {
        self.flights.contains_key(hash)
    }

    /// A peer may have something new for us.
    pub(crate) fn wake(&mut self, peer: PeerId) {
        self.useful.insert(peer);
        self.woken.insert(peer);
    }

    /// The tip moved, or blocks are free to be asked for again.
    pub(crate) fn wake_all(&mut self) {
        self.woken.extend(&self.useful);
    }

    /// A peer is gone: others are asked for what it owed.
    pub(crate) fn on_gone(&mut self, peer: &Peer) {
        for hash in &peer.blocks.asked {
            self.leave(peer.id, hash);
        }
        self.downloading.remove(&peer.id);
        self.useful.remove(&peer.id);
        self.woken.remove(&peer.id);
        self.sources.retain(|_, source| source.0 != peer.id);
        // Of others nothing depends on it.
        if !peer.blocks.asked.is_empty() || peer.is_preferred() {
            self.wake_all();
        }
    }

    /// The block is not under way from this peer any more.
    fn leave(&mut self, peer: PeerId, hash: &BlockHash) {
        let Some(flight) = self.flights.get_mut(hash) else { return };
        flight.asked.retain(|asked| *asked != peer);
        if flight.asked.is_empty() && flight.judging == 0 {
            self.flights.remove(hash);
        }
    }

    /// A block came. What is asked for, or new and of a good chain, goes to the ledger.
    pub(crate) fn on_block(
        &mut self,
        peer: &mut Peer,
        bytes: Arc<Vec<u8>>,
        view: &impl View,
        guard: &mut Guard,
        cx: &mut Cx<'_>,
    ) {
        let header = header_of(&bytes);
        let hash = header.block_hash();
        let asked = self.is_asked(peer.id, &hash);
        if asked || self.is_welcome(peer, &header, hash, view, guard, cx) {
            self.deliver(peer, hash, bytes, Form::Whole, asked, cx);
        }
    }

    /// Hands a block that this peer gave to the ledger.
    pub(crate) fn deliver(
        &mut self,
        peer: &mut Peer,
        hash: BlockHash,
        bytes: Arc<Vec<u8>>,
        form: Form,
        asked: bool,
        cx: &mut Cx<'_>,
    ) {
        self.flights.entry(hash).or_default().judging += 1;
        self.give_up(peer, &hash, cx);
        if self.sources.len() < cx.core.config.limits.block_sources {
            self.sources.entry(hash).or_insert((peer.id, form));
        }
        peer.blocks.unjudged_bytes += bytes.len();
        let pending = Pending::Block { hash, length: bytes.len(), form };
        cx.work(peer, Work::Block { hash, bytes, asked }, pending);
    }

    /// This peer was sent a request for this block; whatever it answers counts as asked for.
    pub(crate) fn ask(&mut self, peer: &mut Peer, hash: BlockHash, cx: &mut Cx<'_>) {
        if peer.blocks.asked.is_empty() {
            self.downloading.insert(peer.id);
            self.start_clock(peer, cx);
        }
        let patience = self.patience(peer, cx);
        let flight = self.flights.entry(hash).or_default();
        flight.asked.push(peer.id);
        flight.patience = patience;
        peer.blocks.asked.push(hash);
    }

    /// The operator wants this block of this peer: nothing is expected of others for it any more. Core: `FetchBlock`.
    pub(crate) fn fetch(&mut self, peers: &mut Peers, from: PeerId, hash: BlockHash, cx: &mut Cx<'_>) {
        for other in self.asked(&hash).to_vec() {
            peers.get_mut(&other).into_iter().for_each(|peer| self.give_up(peer, &hash, cx));
        }
        if let Some(peer) = peers.get_mut(&from) {
            self.ask(peer, hash, cx);
            cx.send(peer, Message::GetData(vec![Inventory::WitnessBlock(hash)]));
        }
    }

    /// Nothing is expected of this peer for this block any more.
    pub(crate) fn give_up(&mut self, peer: &mut Peer, hash: &BlockHash, cx: &mut Cx<'_>) {
        self.leave(peer.id, hash);
        self.landed(peer, hash, cx);
    }

    /// Whether a block that this peer was not asked for is worth looking at. Core: `AcceptBlock` with `fRequested`
    /// false, and the checks of its header that come before.
    fn is_welcome(
        &self,
        peer: &mut Peer,
        header: &Header,
        hash: BlockHash,
        view: &impl View,
        guard: &mut Guard,
        cx: &mut Cx<'_>,
    ) -> bool {
        let params = cx.core.config.params.clone();
        if check_proof_of_work(hash, header.bits, &params).is_err() {
            guard.misbehaved(peer, "block with invalid proof of work", cx);
            return false;
        }
        let Some(parent) = view.find(&header.prev_blockhash) else {
            guard.misbehaved(peer, "block whose parent is unknown", cx);
            return false;
        };
        let (parent, tip) = (view.entry(parent), view.entry(view.tip()));
        let work: ChainWork = parent.work + block_work(header.bits);
        let known = view.find(&hash).is_some_and(|id| view.entry(id).has_block || view.is_active(id));
        let requested = !self.asked(&hash).is_empty();
        let better = work > tip.work && parent.height < tip.height + cx.core.config.limits.unasked_block_height;
        !known && work >= anti_dos_work(view, params.minimum_chain_work) && (requested || better)
    }

    /// A block asked of a peer is not under way from it any more.
    fn landed(&mut self, peer: &mut Peer, hash: &BlockHash, cx: &mut Cx<'_>) {
        let Some(at) = peer.blocks.asked.iter().position(|asked| asked == hash) else { return };
        peer.blocks.asked.remove(at);
        cx.core.timers.stop(peer.id, Timer::Stall);
        if peer.blocks.asked.is_empty() {
            self.downloading.remove(&peer.id);
            cx.core.timers.stop(peer.id, Timer::Block);
        } else if at == 0 {
            self.start_clock(peer, cx);
        }
        self.wake(peer.id);
    }

    fn start_clock(&self, peer: &mut Peer, cx: &mut Cx<'_>) {
        peer.blocks.downloading_since = cx.now;
        let due = cx.now + self.due(0, cx);
        cx.core.timers.set(peer.id, Timer::Block, due);
    }

    /// How long the oldest block may take: an interval, and half of one more for each other peer that sends blocks.
    fn due(&self, others: usize, cx: &Cx<'_>) -> Duration {
        let half = Duration::from_secs(u64::from(cx.core.config.params.spacing)) / 2;
        half * (2 + u32::try_from(others).expect("far fewer peers"))
    }

    /// The ledger has the block now, or knows that it is none: it is not under way any more.
    pub(crate) fn on_judged(&mut self, peers: &mut Peers, hash: &BlockHash, stored: bool, cx: &mut Cx<'_>) {
        if let Some(flight) = self.flights.get_mut(hash) {
            flight.judging = flight.judging.saturating_sub(1);
            let others = if stored { flight.asked.clone() } else { Vec::new() };
            if flight.judging == 0 && flight.asked.is_empty() {
                self.flights.remove(hash);
            }
            for other in others {
                peers.get_mut(&other).into_iter().for_each(|peer| self.give_up(peer, hash, cx));
            }
        }
        if !stored {
            self.sources.remove(hash);
            return self.wake_all();
        }
        let waits = |id: &&PeerId| peers.get(id).is_some_and(|peer| peer.blocks.waits_for == Some(*hash));
        let waiting: Vec<PeerId> = self.useful.iter().filter(waits).copied().collect();
        self.woken.extend(waiting);
    }

    /// The block was connected: each one brings the patience with stallers back down. Gives who gave it.
    /// Core: `BlockConnected`.
    pub(crate) fn on_connected(&mut self, hash: &BlockHash) -> Option<PeerId> {
        let shorter = Duration::from_secs((self.stall_timeout * 85 / 100).as_secs());
        self.stall_timeout = shorter.max(BLOCK_STALLING_TIMEOUT_DEFAULT);
        self.sources.remove(hash).map(|source| source.0)
    }

    /// Who is to blame for this block, which turned out to be invalid.
    pub(crate) fn take_culprit(&mut self, hash: &BlockHash) -> Option<PeerId> {
        self.sources.remove(hash).filter(|source| source.1 == Form::Whole).map(|source| source.0)
    }

    /// The peer held the window up for too long.
    pub(crate) fn on_stall_timeout(&mut self, peer: &mut Peer, cx: &mut Cx<'_>) {
        // Perhaps our own line is the slow one: the next gets more time.
        self.stall_timeout = (self.stall_timeout * 2).min(BLOCK_STALLING_TIMEOUT_MAX);
        cx.disconnect(peer, Reason::Stalling);
    }

    /// The oldest block asked of the peer may be overdue.
    pub(crate) fn on_block_timeout(&mut self, peer: &mut Peer, cx: &mut Cx<'_>) {
        let deadline = peer.blocks.downloading_since + self.due(self.downloading.len().saturating_sub(1), cx);
        if cx.now >= deadline {
            cx.disconnect(peer, Reason::BlockTimeout);
        } else {
            cx.core.timers.set(peer.id, Timer::Block, deadline);
        }
    }

    /// Asks woken peers for what they can give.
    pub(crate) fn pump(&mut self, peers: &mut Peers, view: &impl View, cx: &mut Cx<'_>) {
        if self.woken.is_empty() {
            return;
        }
        // Out of the first sync every peer will do, and there may be thousands.
        let no_preferred = cx.core.initial_download && !peers.values().any(|peer| peer.ready && peer.is_preferred());
        let near = can_direct_fetch(view, cx);
        for id in std::mem::take(&mut self.woken) {
            let Some(peer) = peers.get_mut(&id).filter(|peer| peer.ready && peer.closing.is_none()) else { continue };
            let chosen = peer.is_preferred() || no_preferred || self.flights.is_empty();
            let synced = !cx.core.initial_download || near;
            if !peer.serves_blocks() || !((chosen && !peer.is_limited()) || synced) {
                continue;
            }
            let room = cx.core.config.limits.blocks_in_transit.saturating_sub(peer.blocks.asked.len());
            if room == 0 {
                continue;
            }
            let (found, staller) = self.find(peer, room, view, cx);
            self.request(peer, &found, near, view, cx);
            if let Some(staller) = staller.filter(|staller| cx.core.timers.get(*staller, Timer::Stall).is_none()) {
                cx.core.timers.set(staller, Timer::Stall, cx.now + self.stall_timeout);
            }
        }
    }

    fn request(&mut self, peer: &mut Peer, found: &[Id], near: bool, view: &impl View, cx: &mut Cx<'_>) {
        if found.is_empty() {
            return;
        }
        let hashes: Vec<BlockHash> = found.iter().map(|id| view.entry(*id).hash).collect();
        hashes.iter().for_each(|hash| self.ask(peer, *hash, cx));
        let items = match (found, &hashes[..]) {
            ([id], [hash]) if near && self.may_come_compact(peer, *id, hash, view, cx) => {
                vec![Inventory::CompactBlock(*hash)]
            }
            _ => hashes.into_iter().map(Inventory::WitnessBlock).collect(),
        };
        cx.send(peer, Message::GetData(items));
    }

    /// Whether what is missing of a block, and of nothing else, is likely to be little. Core: the end of
    /// `HeadersDirectFetchBlocks`.
    fn may_come_compact(&self, peer: &Peer, id: Id, hash: &BlockHash, view: &impl View, cx: &Cx<'_>) -> bool {
        let entry = view.entry(id);
        let proven = |parent: Id| view.is_active(parent) || view.entry(parent).proven;
        let better = entry.work > view.entry(view.tip()).work;
        let knows = peer.compact.is_some() && !cx.core.config.blocks_only;
        knows && better && self.is_idle_but(hash) && entry.parent.is_some_and(proven)
    }

    /// At most `count` blocks that the peer has and nobody was asked for; when there are none because the window is
    /// full, the peer that it waits for. Core: `FindNextBlocksToDownload`.
    fn find(&mut self, peer: &mut Peer, count: usize, view: &impl View, cx: &Cx<'_>) -> (Vec<Id>, Option<PeerId>) {
        let (limits, params) = (&cx.core.config.limits, &cx.core.config.params);
        let mut found = Vec::new();
        resolve_unknown(peer, view);
        let tip = view.tip();
        let Some(best) = peer.headers.best_known else { return (found, None) };
        let best_entry = view.entry(best);
        if best_entry.work < view.entry(tip).work || best_entry.work < params.minimum_chain_work {
            self.useful.remove(&peer.id);
            return (found, None);
        }
        let fork = view.fork(best, tip);
        let stands = |last: Id| view.entry(last).work >= view.entry(fork).work && view.is_ancestor(last, best);
        let common = peer.blocks.last_common.filter(|last| stands(*last)).unwrap_or(fork);
        peer.blocks.last_common = Some(common);
        if common == best {
            self.useful.remove(&peer.id);
            return (found, None);
        }
        let window_end = view.entry(common).height + limits.block_window;
        let highest = best_entry.height.min(window_end + 1);
        let (mut height, mut whole) = (view.entry(common).height, true);
        let mut waits_for: Option<(BlockHash, Option<PeerId>)> = None;
        peer.blocks.waits_for = None;
        while height < highest {
            let top = highest.min(height + STRIDE);
            let mut stretch = vec![view.ancestor(best, top)];
            while stretch.len() < (top - height) as usize {
                let below = view.entry(*stretch.last().expect("never empty")).parent;
                stretch.push(below.expect("a header above another has a parent"));
            }
            height = top;
            for id in stretch.into_iter().rev() {
                let entry = view.entry(id);
                let segwit = entry.height >= params.segwit_height;
                if entry.invalid || (segwit && peer.services() & NODE_WITNESS == 0) {
                    return (found, None);
                }
                if entry.has_block || view.is_active(id) {
                    whole &= entry.complete || view.is_active(id);
                    if whole {
                        peer.blocks.last_common = Some(id);
                    }
                    continue;
                }
                whole = false;
                if let Some(flight) = self.flights.get(&entry.hash) {
                    let staller = flight.asked.first().filter(|_| flight.judging == 0).copied();
                    waits_for.get_or_insert((entry.hash, staller));
                    continue;
                }
                if entry.height > window_end {
                    peer.blocks.waits_for = waits_for.map(|(hash, _)| hash);
                    let other = waits_for.and_then(|(_, staller)| staller).filter(|staller| *staller != peer.id);
                    return if found.is_empty() { (found, other) } else { (found, None) };
                }
                // Two blocks of margin for those that come meanwhile.
                if peer.is_limited() && best_entry.height - entry.height >= limits.limited_blocks - 2 {
                    continue;
                }
                found.push(id);
                if found.len() == count {
                    return (found, None);
                }
            }
        }
        peer.blocks.waits_for = waits_for.map(|(hash, _)| hash);
        (found, None)
    }
}
