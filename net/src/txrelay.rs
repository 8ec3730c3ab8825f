//! Transactions between peers: announced in bursts so that nobody can tell who had one first, asked for by one peer at
//! a time, served to who was told of them. One log of what the pool took, one bit a peer and entry: a peer costs a
//! place in the log, not a filter and a queue of its own. Whether a transaction is valid the ledger says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Transaction, Txid, Wtxid};
use groat_chain::block::Block;
use rand::Rng;

use crate::addr::{NetAddr, Network};
use crate::bloom::BloomFilter;
use crate::message::{MAX_INV_SZ, Message};
use crate::peer::{LinkKind, Peer, Peers};
use crate::protocol::{Cx, PeerId};
use crate::requests::GenTxid;
use crate::serve::without_witness;
use crate::timers::{
    AVG_FEEFILTER_BROADCAST_INTERVAL, FEEFILTER_LOOK_INTERVAL, INBOUND_INVENTORY_BROADCAST_INTERVAL,
    MAX_FEEFILTER_CHANGE_DELAY, Micros, OUTBOUND_INVENTORY_BROADCAST_INTERVAL, REATTEMPT_BROADCAST_INTERVAL,
    REATTEMPT_BROADCAST_SPREAD, Timer, exponential,
};
use crate::view::View;

/// From here on `feefilter` is known. Core's name and value.
const FEEFILTER_VERSION: i32 = 70_013;
/// Announcements of a burst. Core's name and value.
const INVENTORY_BROADCAST_TARGET: usize = 70;
/// Announcements of the largest burst. Core's name and value.
const INVENTORY_BROADCAST_MAX: usize = 1000;
/// Bits of peers that are gone are not cleared before there are so many of them.
const MIN_STALE_BITS: usize = 64;
/// All money there can be, in satoshi: as a fee rate it says that nothing is wanted.
const MAX_MONEY: u64 = 2_100_000_000_000_000;

/// What is kept of a peer.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The peer's bit in the log; none while no transaction is announced to it.
    bit: Option<u32>,
    /// What of the log it has not been told of begins here.
    from: u64,
    /// To be told before that, if it does not have them.
    again: BTreeSet<u64>,
    /// It was told of nothing from here on, and so may not ask for it; before its first burst of nothing at all.
    told_to: u64,
    /// It wants nothing below this rate, in satoshi per 1000 virtual bytes.
    pub(crate) fee_filter: u64,
    /// What it wants to be told of; none: of all (BIP37).
    pub(crate) filter: Option<Box<BloomFilter>>,
    /// It wants to be told of the whole pool once (BIP35).
    pub(crate) wants_pool: bool,
    /// What it was told that we want.
    pub(crate) sent_fee_filter: Option<u64>,
    /// When a transaction of its making was last taken.
    pub(crate) last_transaction: Option<Micros>,
}

impl State {
    /// Whether transactions are announced to the peer, and served.
    pub(crate) fn is_on(&self) -> bool {
        self.bit.is_some()
    }
}

/// How far a transaction got from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Peers that were told of it.
    pub announced: u32,
    /// Times that it was asked for.
    pub requested: u32,
}

/// One transaction that the pool took.
#[derive(Debug)]
struct Entry {
    txid: Txid,
    wtxid: Wtxid,
    /// Bits of the peers that have it.
    known: Vec<u64>,
    relayed: Relayed,
}

impl Entry {
    fn set(&mut self, bit: u32) {
        let word = (bit / 64) as usize;
        if self.known.len() <= word {
            self.known.resize(word + 1, 0);
        }
        self.known[word] |= 1 << (bit % 64);
    }

    fn clear(&mut self, bits: &[u64]) {
        self.known.iter_mut().zip(bits).for_each(|(word, bits)| *word &= !bits);
    }

    fn has(&self, bit: u32) -> bool {
        self.known.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }
}

/// The last block.
#[derive(Debug)]
struct Latest {
    block: Arc<Block>,
    /// Where in it which transaction is, sorted by id.
    places: Vec<([u8; 32], usize)>,
}

/// How a peer came: over which network, and to which address of ours. Who came two ways must not see by the times at which
/// it is told that we are one node. Core: `m_network_key`.
type Way = (Network, Option<NetAddr>);

fn way(peer: &Peer) -> Way {
    (peer.network, peer.bind)
}

/// All that is relayed.
#[derive(Debug)]
pub(crate) struct TxRelay {
    log: VecDeque<Entry>,
    /// Number of the first entry in the log.
    first: u64,
    by_wtxid: BTreeMap<Wtxid, u64>,
    by_txid: BTreeMap<Txid, u64>,
    free_bits: BTreeSet<u32>,
    /// Bits of peers that are gone, still set in the log: cleared all at once when they are many, as one pass over the log
    /// costs the same for one and for all.
    stale_bits: BTreeSet<u32>,
    bits: u32,
    /// When those who dialled us the same way are told next: all at once, so that many links teach a spy no more. None:
    /// there is no news for them.
    inbound: BTreeMap<Way, Option<Micros>>,
    /// Peers that we dialled for whom there is no news: no timer runs.
    resting: BTreeSet<PeerId>,
    /// Peers that are told at once, as the operator trusts them.
    quick: BTreeSet<PeerId>,
    /// The operator's own that no peer has asked for yet.
    unbroadcast: BTreeMap<Txid, Wtxid>,
    /// When those are announced again.
    reattempt: Option<Micros>,
    latest: Option<Latest>,
    /// The pool's floor and when it was looked at.
    floor: (u64, Micros),
}

impl TxRelay {
    pub(crate) fn new() -> TxRelay {
        TxRelay {
            log: VecDeque::new(),
            first: 1,
            by_wtxid: BTreeMap::new(),
            by_txid: BTreeMap::new(),
            free_bits: BTreeSet::new(),
            stale_bits: BTreeSet::new(),
            bits: 0,
            inbound: BTreeMap::new(),
            resting: BTreeSet::new(),
            quick: BTreeSet::new(),
            unbroadcast: BTreeMap::new(),
            reattempt: None,
            latest: None,
            floor: (0, Micros(0)),
        }
    }

    fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    fn number(&self, id: &GenTxid) -> Option<u64> {
        match id {
            GenTxid::Txid(id) => self.by_txid.get(id).copied(),
            GenTxid::Wtxid(id) => self.by_wtxid.get(id).copied(),
        }
    }

    fn entry_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.log.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// A handshake is done: from now on the peer is told of what comes.
    pub(crate) fn on_ready(&mut self, peer: &mut Peer, cx: &mut Cx<'_>) {
        let Some(their) = peer.their.as_ref() else { return };
        let (wants, speaks) = (their.relay && peer.kind.relays_transactions(), their.common_version);
        if wants {
            self.want_transactions(peer, cx);
        }
        let filters = !cx.core.config.blocks_only && !peer.permissions.force_relay;
        if filters && peer.kind != LinkKind::BlockRelay && speaks >= FEEFILTER_VERSION {
            cx.core.timers.set(peer.id, Timer::FeeFilter, cx.now);
        }
    }

    /// From now on the peer wants to be told of what comes.
    pub(crate) fn want_transactions(&mut self, peer: &mut Peer, cx: &mut Cx<'_>) {
        if peer.relay.bit.is_some() {
            return;
        }
        peer.their.iter_mut().for_each(|their| their.relay = true);
        peer.relay.bit = Some(self.take_bit());
        peer.relay.from = self.end();
        if peer.permissions.no_ban {
            self.quick.insert(peer.id);
        }
        // The first burst is due whether it tells of anything or not: before it the peer may ask for nothing.
        self.wake(peer, cx);
    }

    /// There is news for a peer: it is told after a random time. The waits have no memory: begun with the news, they are
    /// as long as if they had gone on all the time, and a peer without news costs nothing.
    pub(crate) fn wake(&mut self, peer: &Peer, cx: &mut Cx<'_>) {
        if peer.kind.is_inbound() {
            let at = self.inbound.entry(way(peer)).or_default();
            at.get_or_insert_with(|| cx.now + exponential(INBOUND_INVENTORY_BROADCAST_INTERVAL, &mut cx.core.rng));
        } else if cx.core.timers.get(peer.id, Timer::Trickle).is_none() {
            self.resting.remove(&peer.id);
            let at = cx.now + exponential(OUTBOUND_INVENTORY_BROADCAST_INTERVAL, &mut cx.core.rng);
            cx.core.timers.set(peer.id, Timer::Trickle, at);
        }
    }

    /// There is news for everybody.
    fn wake_all(&mut self, peers: &Peers, cx: &mut Cx<'_>) {
        for at in self.inbound.values_mut() {
            at.get_or_insert_with(|| cx.now + exponential(INBOUND_INVENTORY_BROADCAST_INTERVAL, &mut cx.core.rng));
        }
        for id in std::mem::take(&mut self.resting) {
            peers.get(&id).into_iter().for_each(|peer| self.wake(peer, cx));
        }
        self.quick.iter().for_each(|id| cx.core.timers.set(*id, Timer::Trickle, cx.now));
    }

    /// A peer is gone.
    pub(crate) fn on_gone(&mut self, peer: &Peer) {
        self.quick.remove(&peer.id);
        self.resting.remove(&peer.id);
        if let Some(bit) = peer.relay.bit {
            self.stale_bits.insert(bit);
        }
    }

    /// A bit that is set nowhere in the log.
    fn take_bit(&mut self) -> u32 {
        if self.free_bits.is_empty() && self.stale_bits.len() >= MIN_STALE_BITS.max(self.bits as usize / 2) {
            let mut stale = vec![0; self.bits.div_ceil(64) as usize];
            self.stale_bits.iter().for_each(|bit| stale[(bit / 64) as usize] |= 1 << (bit % 64));
            self.log.iter_mut().for_each(|entry| entry.clear(&stale));
            self.free_bits = std::mem::take(&mut self.stale_bits);
        }
        self.free_bits.pop_first().unwrap_or_else(|| {
            self.bits += 1;
            self.bits - 1
        })
    }

    /// A peer has a transaction, as it announced it or gave it.
    pub(crate) fn on_known(&mut self, peer: &Peer, id: &GenTxid) {
        if let (Some(bit), Some(number)) = (peer.relay.bit, self.number(id)) {
            self.entry_mut(number).into_iter().for_each(|entry| entry.set(bit));
        }
    }

    /// A transaction of the pool will be announced to all who do not have it; these peers do. Core:
    /// `InitiateTxBroadcastToAll`.
    pub(crate) fn announce(
        &mut self,
        txid: Txid,
        wtxid: Wtxid,
        announcers: &[PeerId],
        peers: &mut Peers,
        cx: &mut Cx<'_>,
    ) {
        self.wake_all(peers, cx);
        if let Some(number) = self.number(&GenTxid::Wtxid(wtxid)) {
            let entry = &self.log[(number - self.first) as usize];
            for peer in peers.values_mut() {
                if peer.relay.bit.is_some_and(|bit| !entry.has(bit)) && number < peer.relay.from {
                    peer.relay.again.insert(number);
                }
            }
            return;
        }
        let mut entry = Entry { txid, wtxid, known: Vec::new(), relayed: Relayed::default() };
        let bits = announcers.iter().filter_map(|id| peers.get(id)?.relay.bit);
        bits.for_each(|bit| entry.set(bit));
        let number = self.end();
        self.by_wtxid.insert(wtxid, number);
        self.by_txid.insert(txid, number);
        self.log.push_back(entry);
        while self.log.len() > cx.core.config.limits.transaction_log {
            let oldest = self.log.pop_front().expect("longer than its cap");
            self.first += 1;
            self.by_wtxid.remove(&oldest.wtxid);
            // Another with the same txid and another witness may have come since.
            if self.by_txid.get(&oldest.txid).is_some_and(|number| *number < self.first) {
                self.by_txid.remove(&oldest.txid);
            }
        }
    }

    /// The operator gave a transaction: it is announced again and again until a peer asks for it. Core: `AddUnbroadcastTx`.
    pub(crate) fn on_own(&mut self, txid: Txid, wtxid: Wtxid, cx: &mut Cx<'_>) {
        if self.unbroadcast.len() < cx.core.config.limits.transaction_log {
            self.unbroadcast.insert(txid, wtxid);
            self.set_reattempt(cx);
        }
    }

    fn set_reattempt(&mut self, cx: &mut Cx<'_>) {
        if self.unbroadcast.is_empty() {
            self.reattempt = None;
        } else if self.reattempt.is_none_or(|at| at <= cx.now) {
            let spread = cx.core.rng.random_range(Duration::ZERO..REATTEMPT_BROADCAST_SPREAD);
            self.reattempt = Some(cx.now + REATTEMPT_BROADCAST_INTERVAL + spread);
        }
    }

    /// Core: `ReattemptInitialBroadcast`.
    fn announce_again(&mut self, peers: &mut Peers, view: &impl View, cx: &mut Cx<'_>) {
        self.unbroadcast.retain(|txid, _| view.pool_tx(&GenTxid::Txid(*txid)).is_some());
        for (txid, wtxid) in self.unbroadcast.clone() {
            self.announce(txid, wtxid, &[], peers, cx);
        }
        self.set_reattempt(cx);
    }

    /// The operator's own transactions that no peer has asked for yet. Some may have left the pool.
    pub(crate) fn unbroadcast(&self) -> impl Iterator<Item = &Txid> {
        self.unbroadcast.keys()
    }

    /// What is announced again is so much earlier.
    pub(crate) fn forward(&mut self, by: Duration) {
        self.reattempt.iter_mut().for_each(|at| *at = at.before(by));
    }

    /// See [`crate::protocol::Protocol::told`].
    pub(crate) fn told(&self, peer: &Peer) -> Option<(u64, usize)> {
        let (state, bit) = (&peer.relay, peer.relay.bit?);
        let from = usize::try_from(state.from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let waiting = self.log.iter().skip(from).filter(|entry| !entry.has(bit)).count();
        // Core's numbers begin with 1.
        Some((state.told_to.max(1), waiting + state.again.len()))
    }

    /// How far a transaction got, if it is one of the last.
    pub(crate) fn relayed(&self, txid: &Txid) -> Option<Relayed> {
        let number = self.number(&GenTxid::Txid(*txid))?;
        Some(self.log.get(usize::try_from(number.checked_sub(self.first)?).ok()?)?.relayed)
    }

    /// A block joined the chain: it is served from for a while, as its transactions have left the pool.
    pub(crate) fn on_block(&mut self, block: Arc<Block>) {
        for txid in &block.txids {
            self.unbroadcast.remove(txid);
        }
        let ids = block.txids.iter().zip(&block.wtxids).enumerate();
        let both = ids.flat_map(|(at, (txid, wtxid))| [(txid.to_byte_array(), at), (wtxid.to_byte_array(), at)]);
        let mut places: Vec<_> = both.collect();
        places.sort_unstable();
        self.latest = Some(Latest { block, places });
    }

    /// The transaction that a peer asks for, if the peer may have been told of it or it is in the last block.
    /// Core: `FindTxForGetData`.
    pub(crate) fn serve(&mut self, peer: &Peer, item: &Inventory, view: &impl View) -> Option<Arc<Transaction>> {
        let id = GenTxid::of(item)?;
        let number = self.number(&id);
        // Who asks before it was told would learn when we got it.
        let told = number.unwrap_or(0) < peer.relay.told_to;
        let found = view.pool_tx(&id).filter(|_| told).or_else(|| self.in_latest(&id))?;
        if let (Some(bit), Some(entry)) = (peer.relay.bit, number.and_then(|number| self.entry_mut(number))) {
            entry.set(bit);
            entry.relayed.requested += 1;
        }
        if !self.unbroadcast.is_empty() {
            self.unbroadcast.remove(&found.compute_txid());
        }
        match item {
            Inventory::Transaction(_) if found.input.iter().any(|input| !input.witness.is_empty()) => {
                Some(Arc::new(without_witness(&found)))
            }
            _ => Some(found),
        }
    }

    fn in_latest(&self, id: &GenTxid) -> Option<Arc<Transaction>> {
        let Latest { block, places } = self.latest.as_ref()?;
        let place = places.binary_search_by(|place| place.0.cmp(id.bytes())).ok()?;
        Some(Arc::new(block.transactions[places[place].1].clone()))
    }

    /// Entries in the log.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn log_length(&self) -> usize {
        self.log.len()
    }

    /// When something is due that is no peer's own timer.
    pub(crate) fn next(&self) -> Option<Micros> {
        self.inbound.values().flatten().copied().chain(self.reattempt).min()
    }

    /// Does what is due.
    pub(crate) fn run(&mut self, peers: &mut Peers, view: &impl View, cx: &mut Cx<'_>) {
        if self.reattempt.is_some_and(|at| at <= cx.now) {
            self.announce_again(peers, view, cx);
        }
        self.look_at_floor(view, cx, peers);
        let is_due = |at: &Option<Micros>| at.is_some_and(|at| at <= cx.now);
        let due: Vec<Way> = self.inbound.iter().filter(|(_, at)| is_due(at)).map(|(way, _)| *way).collect();
        for due in due {
            let member = |peer: &&Peer| peer.kind.is_inbound() && peer.relay.bit.is_some() && way(peer) == due;
            let group: Vec<PeerId> = peers.values().filter(member).map(|peer| peer.id).collect();
            if group.is_empty() {
                self.inbound.remove(&due);
                continue;
            }
            self.inbound.insert(due, None);
            self.burst(peers, &group, view, cx);
        }
    }

    /// The timer of a peer that we dialled, or that is told at once.
    pub(crate) fn on_trickle(&mut self, peers: &mut Peers, id: PeerId, view: &impl View, cx: &mut Cx<'_>) {
        if peers.get(&id).is_some_and(|peer| !peer.kind.is_inbound()) {
            self.resting.insert(id);
        }
        self.burst(peers, &[id], view, cx);
    }

    /// Tells a group of peers what is new, best first, parents before children. Peers that are told the same share the
    /// message. What is too much for one burst stays: its numbers are not passed.
    fn burst(&mut self, peers: &mut Peers, group: &[PeerId], view: &impl View, cx: &mut Cx<'_>) {
        let relay = |id: &PeerId| peers.get(id).map(|peer| &peer.relay);
        let wanted = |state: &State| state.again.first().copied().unwrap_or(u64::MAX).min(state.from);
        let from = group.iter().filter_map(relay).map(wanted).min().unwrap_or(u64::MAX).max(self.first);
        // Best chunk first; of one chunk the parent came first.
        let mut fresh: Vec<(Reverse<u64>, u64, u64)> = (from..self.end())
            .filter_map(|number| {
                let entry = view.pool_entry(&GenTxid::Wtxid(self.log[(number - self.first) as usize].wtxid))?;
                Some((Reverse(entry.chunk_rate), number, entry.fee_rate))
            })
            .collect();
        fresh.sort_unstable();
        let most = (INVENTORY_BROADCAST_TARGET + fresh.len() / 1000 * 5).min(INVENTORY_BROADCAST_MAX);
        // By txid and by wtxid.
        let mut shared: [BTreeMap<Vec<u64>, Arc<Message>>; 2] = Default::default();
        let mut now: Vec<u64> = Vec::new();
        for id in group {
            let Some(peer) = peers.get_mut(id).filter(|peer| peer.closing.is_none()) else { continue };
            let Some(bit) = peer.relay.bit else { continue };
            if std::mem::take(&mut peer.relay.wants_pool) {
                self.tell_of_pool(peer, bit, view, cx);
            }
            let state = &mut peer.relay;
            let filter = &mut state.filter;
            let mut queue = fresh.iter().filter(|(_, number, rate)| {
                let open = *number >= state.from || state.again.contains(number);
                let entry = &self.log[(number - self.first) as usize];
                let interests = |filter: &mut Box<BloomFilter>| {
                    view.pool_tx(&GenTxid::Wtxid(entry.wtxid)).is_some_and(|tx| filter.matches(&tx))
                };
                let wanted = open && *rate >= state.fee_filter && !entry.has(bit);
                wanted && filter.as_mut().is_none_or(interests)
            });
            now.clear();
            now.extend(queue.by_ref().take(most).map(|(_, number, _)| *number));
            let left = queue.map(|(_, number, _)| *number).min();
            state.told_to = self.end();
            state.from = left.unwrap_or(state.told_to);
            state.again.clear();
            if left.is_some() {
                self.wake(peer, cx);
            }
            if now.is_empty() {
                continue;
            }
            for number in &now {
                let entry = &mut self.log[(number - self.first) as usize];
                entry.set(bit);
                entry.relayed.announced += 1;
            }
            let by_wtxid = peer.wtxid_relay;
            let shared = &mut shared[usize::from(by_wtxid)];
            let message = match shared.get(now.as_slice()) {
                Some(message) => message.clone(),
                None => shared.entry(now.clone()).or_insert(self.announcement(by_wtxid, &now)).clone(),
            };
            cx.send_shared(peer, message);
        }
    }

    fn announcement(&self, by_wtxid: bool, numbers: &[u64]) -> Arc<Message> {
        debug_assert!(numbers.len() <= MAX_INV_SZ, "a burst is far smaller");
        let entries = numbers.iter().map(|number| &self.log[(number - self.first) as usize]);
        let item = |entry: &Entry| match by_wtxid {
            true => Inventory::WTx(entry.wtxid),
            false => Inventory::Transaction(entry.txid),
        };
        Arc::new(Message::Inv(entries.map(item).collect()))
    }

    /// Tells a peer of all in the pool that it may want. Core: `m_send_mempool`.
    fn tell_of_pool(&mut self, peer: &mut Peer, bit: u32, view: &impl View, cx: &mut Cx<'_>) {
        let mut items = Vec::new();
        view.for_each_pool_tx(&mut |wtxid, tx| {
            let state = &mut peer.relay;
            let rate = view.pool_entry(&GenTxid::Wtxid(*wtxid)).map_or(0, |entry| entry.fee_rate);
            if rate >= state.fee_filter && state.filter.as_mut().is_none_or(|filter| filter.matches(tx)) {
                if let Some(number) = self.by_wtxid.get(wtxid).copied() {
                    self.entry_mut(number).into_iter().for_each(|entry| entry.set(bit));
                }
                items.push(match peer.wtxid_relay {
                    true => Inventory::WTx(*wtxid),
                    false => Inventory::Transaction(tx.compute_txid()),
                });
            }
            ControlFlow::Continue(())
        });
        items.chunks(MAX_INV_SZ).for_each(|part| cx.send(peer, Message::Inv(part.to_vec())));
    }

    /// Tells a peer what fee rate we want, if that changed, and sets when to look again. Core: `MaybeSendFeefilter`.
    pub(crate) fn on_fee_filter(&mut self, peer: &mut Peer, view: &impl View, cx: &mut Cx<'_>) {
        let floor = if cx.core.initial_download { MAX_MONEY } else { view.pool_fee_floor() };
        let told = rounded(floor, &mut cx.core.rng).max(view.min_relay_fee());
        if peer.relay.sent_fee_filter != Some(told) {
            peer.relay.sent_fee_filter = Some(told);
            cx.send(peer, Message::FeeFilter(i64::try_from(told).unwrap_or(i64::MAX)));
        }
        let next = cx.now + exponential(AVG_FEEFILTER_BROADCAST_INTERVAL, &mut cx.core.rng);
        cx.core.timers.set(peer.id, Timer::FeeFilter, next);
    }

    /// A floor that moved much is told sooner.
    fn look_at_floor(&mut self, view: &impl View, cx: &mut Cx<'_>, peers: &Peers) {
        let (floor, looked) = self.floor;
        if cx.now < looked + FEEFILTER_LOOK_INTERVAL {
            return;
        }
        let new = view.pool_fee_floor();
        self.floor = (new, cx.now);
        if new == floor {
            return;
        }
        for peer in peers.values() {
            let Some(sent) = peer.relay.sent_fee_filter else { continue };
            let far = new < 3 * sent / 4 || new > 4 * sent / 3;
            let late = |at: Micros| at > cx.now + MAX_FEEFILTER_CHANGE_DELAY;
            if far && cx.core.timers.get(peer.id, Timer::FeeFilter).is_some_and(late) {
                let within = cx.core.rng.random_range(Duration::ZERO..MAX_FEEFILTER_CHANGE_DELAY);
                cx.core.timers.set(peer.id, Timer::FeeFilter, cx.now + within);
            }
        }
    }
}

/// A fee rate moved to a step of a coarse ladder, up or down by chance: exact, it would tell nodes apart. The ladder ends
/// where no fee rate is. Core: `FeeFilterRounder`, whose floating point is the same on all machines as it only multiplies.
fn rounded(rate: u64, rng: &mut impl Rng) -> u64 {
    // Half of Core's `DEFAULT_INCREMENTAL_RELAY_FEE`.
    let steps = std::iter::successors(Some(50.0f64), |step| Some(step * 1.1)).take_while(|step| *step <= 1e7);
    let (mut below, mut above) = (0.0, None);
    for step in steps {
        if step >= rate as f64 {
            above = Some(step);
            break;
        }
        below = step;
    }
    match above {
        _ if rate == 0 => 0,
        Some(above) if rng.random_range(0..3) == 0 => above as u64,
        _ => below as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_bit_of_a_peer_that_is_gone_is_set_nowhere_when_it_is_given_again() {
        let mut relay = TxRelay::new();
        relay.log.push_back(Entry {
            txid: Txid::all_zeros(),
            wtxid: Wtxid::all_zeros(),
            known: Vec::new(),
            relayed: Relayed::default(),
        });
        let mut live: VecDeque<u32> = VecDeque::new();
        for round in 0..2000 {
            let bit = relay.take_bit();
            assert!(!relay.log[0].has(bit), "round {round}: bit {bit} is another peer's");
            assert!(!live.contains(&bit), "round {round}: bit {bit} is given twice");
            relay.log[0].set(bit);
            live.push_back(bit);
            if live.len() > 100 {
                relay.stale_bits.extend(live.pop_front());
            }
        }
        assert!(relay.bits <= 2 * 101 + 1, "{} bits for 101 peers", relay.bits);
        assert!(live.iter().all(|bit| relay.log[0].has(*bit)), "who is here keeps its bit");
    }

    #[test]
    fn fee_rates_are_told_in_cores_steps() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut told = |rate| (0..100).map(|_| rounded(rate, &mut rng)).collect::<BTreeSet<u64>>();
        assert_eq!(told(0), BTreeSet::from([0]));
        assert_eq!(told(100), BTreeSet::from([97, 107]));
        assert_eq!(told(1000), BTreeSet::from([959, 1055]));
        assert_eq!(told(MAX_MONEY), BTreeSet::from([9_936_506]), "Core's test p2p_ibd_txrelay expects this number");
    }
}
