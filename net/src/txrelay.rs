//! Transactions between peers: announced in bursts so that nobody can tell who had one first, asked for by one peer at
//! a time, served to who was told of them. One log of what the pool took, one bit a peer and entry: a peer costs a
//! place in the log, not a filter and a queue of its own. Whether a transaction is valid the ledger says.

pub(crate) mod feefilter;
mod log;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Transaction, Txid, Witness, Wtxid};
use groat_chain::block::Block;
use rand::Rng;

use crate::addr::{NetAddr, Network};
use crate::bloom::BloomFilter;
use crate::message::{GenTxid, MAX_INV_SZ, Message};
use crate::peer::{Peer, Peers};
use crate::protocol::{Cx, PeerId};
use crate::timers::{
    INBOUND_INVENTORY_BROADCAST_INTERVAL, Micros, OUTBOUND_INVENTORY_BROADCAST_INTERVAL, REATTEMPT_BROADCAST_INTERVAL,
    REATTEMPT_BROADCAST_SPREAD, Timer, exponential,
};
use crate::view::View;
use feefilter::Floor;
use log::{Entry, Log};

/// Announcements of a burst. Core's name and value.
const INVENTORY_BROADCAST_TARGET: usize = 70;
/// Announcements of the largest burst. Core's name and value.
const INVENTORY_BROADCAST_MAX: usize = 1000;
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
    log: Log,
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
    floor: Floor,
}

impl TxRelay {
    pub(crate) fn new() -> TxRelay {
        TxRelay {
            log: Log::new(),
            inbound: BTreeMap::new(),
            resting: BTreeSet::new(),
            quick: BTreeSet::new(),
            unbroadcast: BTreeMap::new(),
            reattempt: None,
            latest: None,
            floor: Floor::default(),
        }
    }

    /// A handshake is done: from now on the peer is told of what comes.
    pub(crate) fn on_ready(&mut self, peer: &mut Peer, cx: &mut Cx<'_>) {
        let Some(their) = peer.their.as_ref() else { return };
        let (wants, speaks) = (their.relay && peer.kind.relays_transactions(), their.common_version);
        if wants {
            self.want_transactions(peer, cx);
        }
        feefilter::on_ready(peer, speaks, cx);
    }

    /// From now on the peer wants to be told of what comes.
    pub(crate) fn want_transactions(&mut self, peer: &mut Peer, cx: &mut Cx<'_>) {
        if peer.relay.bit.is_some() {
            return;
        }
        peer.their.iter_mut().for_each(|their| their.relay = true);
        peer.relay.bit = Some(self.log.take_bit());
        peer.relay.from = self.log.numbers().end;
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
            self.log.give_back(bit);
        }
    }

    /// A peer has a transaction, as it announced it or gave it.
    pub(crate) fn on_known(&mut self, peer: &Peer, id: &GenTxid) {
        if let (Some(bit), Some(number)) = (peer.relay.bit, self.log.number(id)) {
            self.log.entry_mut(number).set(bit);
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
        if let Some(number) = self.log.number(&GenTxid::Wtxid(wtxid)) {
            let entry = self.log.entry(number);
            for peer in peers.values_mut() {
                if peer.relay.bit.is_some_and(|bit| !entry.has(bit)) && number < peer.relay.from {
                    peer.relay.again.insert(number);
                }
            }
            return;
        }
        let bits = announcers.iter().filter_map(|id| peers.get(id)?.relay.bit);
        self.log.push(txid, wtxid, bits, cx.core.config.limits.transaction_log);
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
        let numbers = self.log.numbers();
        let waiting =
            (state.from.max(numbers.start)..numbers.end).filter(|number| !self.log.entry(*number).has(bit)).count();
        // Core's numbers begin with 1.
        Some((state.told_to.max(1), waiting + state.again.len()))
    }

    /// How far a transaction got, if it is one of the last.
    pub(crate) fn relayed(&self, txid: &Txid) -> Option<Relayed> {
        self.log.number(&GenTxid::Txid(*txid)).map(|number| self.log.entry(number).relayed)
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
        let number = self.log.number(&id);
        // Who asks before it was told would learn when we got it.
        let told = number.unwrap_or(0) < peer.relay.told_to;
        let found = view.pool_tx(&id).filter(|_| told).or_else(|| self.in_latest(&id))?;
        if let (Some(bit), Some(number)) = (peer.relay.bit, number) {
            let entry = self.log.entry_mut(number);
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
        self.log.numbers().count()
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
        self.floor.look(peers, view, cx);
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
        let from = group.iter().filter_map(relay).map(wanted).min().unwrap_or(u64::MAX).max(self.log.numbers().start);
        // Best chunk first; of one chunk the parent came first.
        let mut fresh: Vec<(Reverse<u64>, u64, u64)> = (from..self.log.numbers().end)
            .filter_map(|number| {
                let entry = view.pool_entry(&GenTxid::Wtxid(self.log.entry(number).wtxid))?;
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
                let entry = self.log.entry(*number);
                let interests = |filter: &mut Box<BloomFilter>| {
                    view.pool_tx(&GenTxid::Wtxid(entry.wtxid)).is_some_and(|tx| filter.matches(&tx))
                };
                let wanted = open && *rate >= state.fee_filter && !entry.has(bit);
                wanted && filter.as_mut().is_none_or(interests)
            });
            now.clear();
            now.extend(queue.by_ref().take(most).map(|(_, number, _)| *number));
            let left = queue.map(|(_, number, _)| *number).min();
            state.told_to = self.log.numbers().end;
            state.from = left.unwrap_or(state.told_to);
            state.again.clear();
            if left.is_some() {
                self.wake(peer, cx);
            }
            if now.is_empty() {
                continue;
            }
            for number in &now {
                let entry = self.log.entry_mut(*number);
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
        let entries = numbers.iter().map(|number| self.log.entry(*number));
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
                if let Some(number) = self.log.number(&GenTxid::Wtxid(*wtxid)) {
                    self.log.entry_mut(number).set(bit);
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
}

/// As peers that know no witness have it.
pub(crate) fn without_witness(tx: &Transaction) -> Transaction {
    let mut tx = tx.clone();
    tx.input.iter_mut().for_each(|input| input.witness = Witness::new());
    tx
}
