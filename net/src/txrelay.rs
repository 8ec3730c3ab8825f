//! Transactions between peers: announced in bursts so that nobody can tell who had one first, asked for by one peer at
//! a time, served to who was told of them. One log of what the pool took, one bit a peer and entry: a peer costs a
//! place in the log, not a filter and a queue of its own. Whether a transaction is valid the ledger says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Transaction, Txid, Wtxid};
use rand::Rng;

use crate::addr::Network;
use crate::message::{MAX_INV_SZ, Message};
use crate::peer::{Peer, Peers};
use crate::protocol::{Cx, PeerId, Pending, TxVerdict, Work};
use crate::recent::Recent;
use crate::requests::{Circumstances, GenTxid, Requests};
use crate::timers::{
    AVG_FEEFILTER_BROADCAST_INTERVAL, INBOUND_INVENTORY_BROADCAST_INTERVAL, Micros,
    OUTBOUND_INVENTORY_BROADCAST_INTERVAL, Timer, exponential,
};
use crate::view::View;

/// From here on `feefilter` is known. Core's name and value.
const FEEFILTER_VERSION: i32 = 70_013;
/// Announcements of a burst. Core's name and value.
const INVENTORY_BROADCAST_TARGET: usize = 70;
/// All money there can be, in satoshi: as a fee rate it says that nothing is wanted.
const MAX_MONEY: u64 = 2_100_000_000_000_000;

/// What is kept of a peer.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The peer's bit in the log; none while no transaction is announced to it.
    bit: Option<u32>,
    /// What of the log it has not been told of begins here.
    from: u64,
    /// Left over from bursts that were full.
    backlog: BTreeSet<u64>,
    /// It was told of nothing from here on, and so may not ask for it.
    told_to: u64,
    /// It wants nothing below this rate, in satoshi per 1000 virtual bytes.
    pub(crate) fee_filter: u64,
    /// What it was told that we want.
    sent_fee_filter: Option<u64>,
}

/// One transaction that the pool took.
#[derive(Debug)]
struct Entry {
    txid: Txid,
    wtxid: Wtxid,
    /// Bits of the peers that have it.
    known: Vec<u64>,
}

impl Entry {
    fn set(&mut self, bit: u32) {
        let word = (bit / 64) as usize;
        if self.known.len() <= word {
            self.known.resize(word + 1, 0);
        }
        self.known[word] |= 1 << (bit % 64);
    }

    fn clear(&mut self, bit: u32) {
        if let Some(word) = self.known.get_mut((bit / 64) as usize) {
            *word &= !(1 << (bit % 64));
        }
    }

    fn has(&self, bit: u32) -> bool {
        self.known.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }
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
    bits: u32,
    /// When those who dialled us on a network are told next: all at once, so that many links teach a spy no more.
    inbound: BTreeMap<Network, Micros>,
    requests: Requests,
    /// Refused until the tip changes.
    rejects: Recent,
    wtxid_peers: usize,
}

impl TxRelay {
    pub(crate) fn new(limits: &crate::limits::Limits, rng: &mut impl Rng) -> TxRelay {
        let mut salt = || (rng.random(), rng.random());
        TxRelay {
            log: VecDeque::new(),
            first: 0,
            by_wtxid: BTreeMap::new(),
            by_txid: BTreeMap::new(),
            free_bits: BTreeSet::new(),
            bits: 0,
            inbound: BTreeMap::new(),
            requests: Requests::new(salt(), limits.announced_transactions, limits.requested_transactions),
            rejects: Recent::new(limits.recent_rejects, salt()),
            wtxid_peers: 0,
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
        self.wtxid_peers += usize::from(peer.wtxid_relay);
        if wants {
            let bit = self.free_bits.pop_first().unwrap_or_else(|| {
                self.bits += 1;
                self.bits - 1
            });
            peer.relay.bit = Some(bit);
            (peer.relay.from, peer.relay.told_to) = (self.end(), self.end());
            if peer.kind.is_inbound() {
                let mean = INBOUND_INVENTORY_BROADCAST_INTERVAL;
                let first = || cx.now + exponential(mean, &mut cx.core.rng);
                self.inbound.entry(peer.addr.host.network()).or_insert_with(first);
            } else {
                let at = cx.now + exponential(OUTBOUND_INVENTORY_BROADCAST_INTERVAL, &mut cx.core.rng);
                cx.core.timers.set(peer.id, Timer::Trickle, at);
            }
        }
        if crate::handshake::wants_transactions(peer, cx) && speaks >= FEEFILTER_VERSION {
            cx.core.timers.set(peer.id, Timer::FeeFilter, cx.now);
        }
    }

    /// A peer is gone.
    pub(crate) fn on_gone(&mut self, peer: &Peer, now: Micros) {
        self.wtxid_peers -= usize::from(peer.ready && peer.wtxid_relay);
        self.requests.on_gone(peer.id, now);
        if let Some(bit) = peer.relay.bit {
            self.log.iter_mut().for_each(|entry| entry.clear(bit));
            self.free_bits.insert(bit);
        }
    }

    /// A peer says that it has a transaction.
    pub(crate) fn on_announced(&mut self, peer: &Peer, id: GenTxid, view: &impl View, cx: &mut Cx<'_>) {
        if let (Some(bit), Some(number)) = (peer.relay.bit, self.number(&id)) {
            self.entry_mut(number).into_iter().for_each(|entry| entry.set(bit));
        }
        if cx.core.initial_download || self.rejects.contains(id.bytes()) || view.pool_entry(&id).is_some() {
            return;
        }
        let around = Circumstances {
            preferred: !peer.kind.is_inbound(),
            wtxid_peers: self.wtxid_peers > 0,
            trusted: peer.permissions.relay,
        };
        self.requests.announced(peer.id, id, around, cx.now);
    }

    /// A transaction came.
    pub(crate) fn on_tx(&mut self, peer: &mut Peer, tx: Arc<Transaction>, view: &impl View, cx: &mut Cx<'_>) {
        if cx.core.initial_download {
            return;
        }
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        for id in [GenTxid::Wtxid(wtxid), GenTxid::Txid(txid)] {
            self.requests.answered(peer.id, &id, cx.now);
            if let (Some(bit), Some(number)) = (peer.relay.bit, self.number(&id)) {
                self.entry_mut(number).into_iter().for_each(|entry| entry.set(bit));
            }
        }
        let id = GenTxid::Wtxid(wtxid);
        if !self.rejects.contains(id.bytes()) && view.pool_entry(&id).is_none() {
            cx.work(peer, Work::Transaction(tx), Pending::Transaction { txid, wtxid });
        }
    }

    /// The ledger has judged a transaction that this peer sent.
    pub(crate) fn on_judged(&mut self, giver: Option<&Peer>, txid: Txid, wtxid: Wtxid, verdict: TxVerdict) {
        match verdict {
            TxVerdict::Accepted => {
                let bit = giver.and_then(|peer| peer.relay.bit);
                let number = self.by_wtxid.get(&wtxid).copied();
                if let (Some(bit), Some(entry)) = (bit, number.and_then(|number| self.entry_mut(number))) {
                    entry.set(bit);
                }
            }
            TxVerdict::Refused(_) => self.rejects.insert(GenTxid::Wtxid(wtxid).bytes()),
            TxVerdict::Known | TxVerdict::Missing => {}
        }
        self.requests.forget(&GenTxid::Wtxid(wtxid));
        self.requests.forget(&GenTxid::Txid(txid));
    }

    /// The pool took a transaction, from whomever: it will be announced.
    pub(crate) fn on_accepted(&mut self, txid: Txid, wtxid: Wtxid, peers: &Peers, cap: usize) {
        if self.by_wtxid.contains_key(&wtxid) {
            return;
        }
        let mut entry = Entry { txid, wtxid, known: Vec::new() };
        let announcers = [self.requests.forget(&GenTxid::Wtxid(wtxid)), self.requests.forget(&GenTxid::Txid(txid))];
        let bits = announcers.iter().flatten().filter_map(|id| peers.get(id)?.relay.bit);
        bits.for_each(|bit| entry.set(bit));
        let number = self.end();
        self.by_wtxid.insert(wtxid, number);
        self.by_txid.insert(txid, number);
        self.log.push_back(entry);
        while self.log.len() > cap {
            let oldest = self.log.pop_front().expect("longer than its cap");
            self.first += 1;
            self.by_wtxid.remove(&oldest.wtxid);
            // Another with the same txid and another witness may have come since.
            if self.by_txid.get(&oldest.txid).is_some_and(|number| *number < self.first) {
                self.by_txid.remove(&oldest.txid);
            }
        }
    }

    /// What was refused may be valid on the new tip.
    pub(crate) fn on_tip(&mut self) {
        self.rejects.clear();
    }

    /// A peer does not have what it was asked for.
    pub(crate) fn on_notfound(&mut self, peer: PeerId, items: &[Inventory], cap: usize, now: Micros) {
        if items.len() <= cap {
            items.iter().filter_map(GenTxid::of).for_each(|id| self.requests.answered(peer, &id, now));
        }
    }

    /// The transaction that a peer asks for, if it is in the pool and the peer was told of it.
    pub(crate) fn serve(&mut self, peer: &Peer, item: &Inventory, view: &impl View) -> Option<Arc<Transaction>> {
        let id = GenTxid::of(item)?;
        let number = self.number(&id);
        // Who asks before it was told would learn when we got it.
        if number.is_some_and(|number| number >= peer.relay.told_to) {
            return None;
        }
        let found = view.pool_entry(&id)?.tx;
        if let (Some(bit), Some(entry)) = (peer.relay.bit, number.and_then(|number| self.entry_mut(number))) {
            entry.set(bit);
        }
        Some(found)
    }

    /// When something is due that is no peer's own timer.
    pub(crate) fn next(&self) -> Option<Micros> {
        self.inbound.values().copied().chain(self.requests.next()).min()
    }

    /// Does what is due.
    pub(crate) fn run(&mut self, peers: &mut Peers, view: &impl View, cx: &mut Cx<'_>) {
        for (id, items) in self.requests.run(cx.now) {
            let Some(peer) = peers.get_mut(&id) else { continue };
            for part in items.chunks(crate::protocol::MAX_GETDATA_SZ) {
                cx.send(peer, Message::GetData(part.to_vec()));
            }
        }
        let due: Vec<Network> =
            self.inbound.iter().filter(|(_, at)| **at <= cx.now).map(|(network, _)| *network).collect();
        for network in due {
            let member = |peer: &&Peer| {
                peer.kind.is_inbound() && peer.relay.bit.is_some() && peer.addr.host.network() == network
            };
            let group: Vec<PeerId> = peers.values().filter(member).map(|peer| peer.id).collect();
            self.burst(peers, &group, view, cx);
            if group.is_empty() {
                self.inbound.remove(&network);
            } else {
                let next = cx.now + exponential(INBOUND_INVENTORY_BROADCAST_INTERVAL, &mut cx.core.rng);
                self.inbound.insert(network, next);
            }
        }
    }

    /// The timer of a peer that we dialled.
    pub(crate) fn on_trickle(&mut self, peers: &mut Peers, id: PeerId, view: &impl View, cx: &mut Cx<'_>) {
        let next = cx.now + exponential(OUTBOUND_INVENTORY_BROADCAST_INTERVAL, &mut cx.core.rng);
        cx.core.timers.set(id, Timer::Trickle, next);
        self.burst(peers, &[id], view, cx);
    }

    /// Tells a group of peers what is new, best first, parents before children. Peers that are told the same share the
    /// message.
    fn burst(&mut self, peers: &mut Peers, group: &[PeerId], view: &impl View, cx: &mut Cx<'_>) {
        let relay = |id: &PeerId| peers.get(id).map(|peer| &peer.relay);
        let wanted = |state: &State| state.backlog.first().copied().unwrap_or(u64::MAX).min(state.from);
        let from = group.iter().filter_map(relay).map(wanted).min().unwrap_or(u64::MAX).max(self.first);
        // Best chunk first; of one chunk the parent came first.
        let mut fresh: Vec<(Reverse<u64>, u64, u64)> = (from..self.end())
            .filter_map(|number| {
                let entry = view.pool_entry(&GenTxid::Wtxid(self.log[(number - self.first) as usize].wtxid))?;
                Some((Reverse(entry.chunk_rate), number, entry.fee_rate))
            })
            .collect();
        fresh.sort_unstable();
        let mut shared: BTreeMap<(bool, Vec<u64>), Arc<Message>> = BTreeMap::new();
        for id in group {
            let Some(peer) = peers.get_mut(id).filter(|peer| peer.closing.is_none()) else { continue };
            let Some(bit) = peer.relay.bit else { continue };
            let state = &mut peer.relay;
            let mut queue = fresh.iter().filter(|(_, number, rate)| {
                let open = *number >= state.from || state.backlog.contains(number);
                open && *rate >= state.fee_filter && !self.log[(number - self.first) as usize].has(bit)
            });
            let most = INVENTORY_BROADCAST_TARGET + fresh.len() / 1000 * 5;
            let now: Vec<u64> = queue.by_ref().take(most.min(1000)).map(|(_, number, _)| *number).collect();
            let later: BTreeSet<u64> = queue.map(|(_, number, _)| *number).collect();
            state.backlog = later;
            (state.from, state.told_to) = (self.end(), self.end());
            if now.is_empty() {
                continue;
            }
            for number in &now {
                self.log[(number - self.first) as usize].set(bit);
            }
            let by_wtxid = peer.wtxid_relay;
            let (log, first) = (&self.log, self.first);
            let message = shared.entry((by_wtxid, now)).or_insert_with_key(|(_, numbers)| {
                debug_assert!(numbers.len() <= MAX_INV_SZ, "a burst is far smaller");
                let entries = numbers.iter().map(|number| &log[(number - first) as usize]);
                let item = |entry: &Entry| match by_wtxid {
                    true => Inventory::WTx(entry.wtxid),
                    false => Inventory::Transaction(entry.txid),
                };
                Arc::new(Message::Inv(entries.map(item).collect()))
            });
            cx.send_shared(peer, message.clone());
        }
    }

    /// Tells a peer what fee rate we want, if that changed, and sets when to look again. Core: `MaybeSendFeefilter`.
    pub(crate) fn on_fee_filter(&mut self, peer: &mut Peer, view: &impl View, cx: &mut Cx<'_>) {
        let floor = if cx.core.initial_download { MAX_MONEY } else { rounded(view.pool_fee_floor(), &mut cx.core.rng) };
        if peer.relay.sent_fee_filter != Some(floor) {
            peer.relay.sent_fee_filter = Some(floor);
            cx.send(peer, Message::FeeFilter(i64::try_from(floor).unwrap_or(i64::MAX)));
        }
        let next = cx.now + exponential(AVG_FEEFILTER_BROADCAST_INTERVAL, &mut cx.core.rng);
        cx.core.timers.set(peer.id, Timer::FeeFilter, next);
    }
}

/// A fee rate moved to a step of a coarse ladder, up or down by chance: exact, it would tell nodes apart.
/// Core: `FeeFilterRounder`.
fn rounded(rate: u64, rng: &mut impl Rng) -> u64 {
    let (mut below, mut step) = (0, 100);
    while step < rate && step < MAX_MONEY {
        (below, step) = (step, step + step / 10);
    }
    if rate != 0 && rng.random_range(0..3) == 0 { step } else { below }
}
