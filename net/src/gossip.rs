//! Addresses between peers: asked for, taken in at a bounded rate, passed on to a few, and our own told once a day. What
//! is told lands in the peer book; whom to dial `dial.rs` says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::siphash24;
use rand::Rng;
use rand::seq::SliceRandom;

use crate::addr::{NetAddr, Network};
use crate::addrman::Book;
use crate::guard::Guard;
use crate::handshake;
use crate::local::Local;
use crate::message::{AddrEntry, MAX_ADDR_TO_SEND, Message};
use crate::peer::{LinkKind, NODE_NETWORK, NODE_NETWORK_LIMITED, Peer, Peers};
use crate::protocol::{Cx, PeerId, Reason};
use crate::timers::{
    AVG_ADDRESS_BROADCAST_INTERVAL, AVG_LOCAL_ADDRESS_BROADCAST_INTERVAL, Micros, ROTATE_ADDR_RELAY_DEST_INTERVAL,
    Timer, exponential,
};
use crate::view::View;

/// Share of the book that a peer may be told, in percent. Core's name and value.
const MAX_PCT_ADDR_TO_SEND: usize = 23;
/// A peer may tell one address in this time. Core: `MAX_ADDR_RATE_PER_SECOND` of 0.1.
const TIME_PER_ADDRESS: Duration = Duration::from_secs(10);
/// What a peer may save up, in addresses. Core's name and value.
const MAX_ADDR_PROCESSING_TOKEN_BUCKET: u32 = 1000;
/// An address as young as this is passed on.
const YOUNG: u32 = 10 * 60;
/// Longer messages answer a question and are not passed on.
const MOST_TO_PASS_ON: usize = 10;
/// What others say of an address counts as this much older, in seconds.
const TIME_PENALTY: u32 = 2 * 60 * 60;
/// The age of an address whose time cannot be right.
const DOUBTFUL_AGE: u32 = 5 * 24 * 60 * 60;
/// No time before this one can be right, in seconds since 1970.
const EARLIEST: u32 = 100_000_000;
/// An answer to `getaddr` is given again for this long and up to `CACHE_SPREAD` longer: who asks often learns no more.
const CACHE_TIME: Duration = Duration::from_secs(21 * 60 * 60);
/// See [`CACHE_TIME`].
const CACHE_SPREAD: Duration = Duration::from_secs(6 * 60 * 60);
/// Who was dialled for addresses must have told them in this time. Core: 10 `AVG_ADDRESS_BROADCAST_INTERVAL`.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// What is kept of a peer that takes part. Core: `m_addr_relay_enabled`.
#[derive(Debug)]
pub(crate) struct State {
    /// What it may still tell, in the time that it takes to earn that.
    credit: Duration,
    /// When that was reckoned.
    reckoned: Micros,
    /// We asked, and not all of the answer is here.
    asked: bool,
    /// It asked, and got its answer.
    answered: bool,
    /// It was told our own address.
    introduced: bool,
    queue: Vec<AddrEntry>,
    /// Fingerprints of addresses that it knows, the oldest replaced first.
    known: Vec<u32>,
    oldest: usize,
    pub(crate) processed: u64,
    pub(crate) limited: u64,
}

impl State {
    fn new(now: Micros) -> State {
        State {
            credit: TIME_PER_ADDRESS,
            reckoned: now,
            asked: false,
            answered: false,
            introduced: false,
            queue: Vec::new(),
            known: Vec::new(),
            oldest: 0,
            processed: 0,
            limited: 0,
        }
    }

    /// Whether it is news to the peer that this address exists; from now on it is not.
    fn learn(&mut self, fingerprint: u32, cap: usize) -> bool {
        if self.known.contains(&fingerprint) {
            return false;
        }
        if self.known.len() < cap {
            self.known.push(fingerprint);
        } else if let Some(place) = self.known.get_mut(self.oldest) {
            *place = fingerprint;
            self.oldest = (self.oldest + 1) % cap;
        }
        true
    }

    /// Takes the credit for one address, if there is that much.
    fn pay(&mut self) -> bool {
        let left = self.credit.checked_sub(TIME_PER_ADDRESS);
        self.credit = left.unwrap_or(self.credit);
        left.is_some()
    }

    fn earn(&mut self, now: Micros) {
        let most = TIME_PER_ADDRESS * MAX_ADDR_PROCESSING_TOKEN_BUCKET;
        if self.credit < most {
            self.credit = most.min(self.credit + now.since(self.reckoned));
        }
        self.reckoned = now;
    }
}

/// An answer to `getaddr` and until when it is given.
#[derive(Debug)]
struct Answer {
    until: Micros,
    entries: Vec<AddrEntry>,
}

/// What is shared among peers.
#[derive(Debug)]
pub(crate) struct Gossip {
    key: (u64, u64),
    /// By the network that a peer came over and the address of ours that it dialled: so who asks over two of them
    /// cannot tell by the answers that we are one node.
    answers: BTreeMap<(Network, Option<NetAddr>), Answer>,
}

impl Gossip {
    pub(crate) fn new(rng: &mut impl Rng) -> Gossip {
        Gossip { key: (rng.random(), rng.random()), answers: BTreeMap::new() }
    }

    fn hash(&self, addr: &NetAddr) -> u64 {
        let bytes = [&[addr.host.network() as u8], addr.host.bytes(), &addr.port.to_le_bytes()].concat();
        siphash24::Hash::hash_to_u64_with_keys(self.key.0, self.key.1, &bytes)
    }

    /// A peer that we dialled has said its version: it is asked for addresses.
    pub(crate) fn on_version(&mut self, peer: &mut Peer, cx: &mut Cx<'_>) {
        if peer.kind.is_inbound() || !take_part(peer, cx) {
            return;
        }
        cx.send(peer, Message::GetAddr);
        if let Some(state) = &mut peer.gossip {
            state.asked = true;
            state.credit += TIME_PER_ADDRESS * MAX_ADDR_TO_SEND as u32;
        }
    }

    /// A handshake is done.
    pub(crate) fn on_ready(&mut self, peer: &mut Peer, cx: &mut Cx<'_>) {
        introduce_soon(peer, cx);
        if peer.kind == LinkKind::AddrFetch {
            cx.core.timers.set(peer.id, Timer::Fetch, cx.now + FETCH_TIMEOUT);
        }
    }

    /// A peer asks for addresses. Who was dialled by us may not: what it could teach us of itself, it could recognise.
    pub(crate) fn on_getaddr(&mut self, peer: &mut Peer, book: &Book, guard: &Guard, cx: &mut Cx<'_>) {
        let first = peer.gossip.is_none();
        if !peer.kind.is_inbound() || !take_part(peer, cx) {
            return;
        }
        let Some(state) = peer.gossip.as_mut().filter(|state| !state.answered) else { return };
        state.answered = true;
        state.queue.clear();
        let now = cx.now.seconds32();
        let mut sample = || {
            let mut entries = book.sample(MAX_ADDR_TO_SEND, MAX_PCT_ADDR_TO_SEND, None, now, &mut cx.core.rng);
            entries.retain(|entry| !guard.refuses(&entry.addr.host, cx.now));
            entries
        };
        let entries = if peer.permissions.addr {
            sample()
        } else {
            let key = (peer.network, peer.bind);
            while self.answers.len() >= cx.core.config.limits.address_answers && !self.answers.contains_key(&key) {
                let oldest = self.answers.iter().min_by_key(|(_, answer)| answer.until).map(|(key, _)| *key);
                oldest.and_then(|oldest| self.answers.remove(&oldest));
            }
            let answer = self.answers.entry(key).or_insert(Answer { until: Micros::default(), entries: Vec::new() });
            if answer.until < cx.now {
                answer.entries = sample();
                let spread = cx.core.rng.random_range(0..CACHE_SPREAD.as_micros() as u64);
                answer.until = cx.now + CACHE_TIME + Duration::from_micros(spread);
            }
            answer.entries.clone()
        };
        for entry in entries {
            self.push(peer, entry, cx);
        }
        if first {
            cx.core.timers.set(peer.id, Timer::Addresses, cx.now);
        }
    }

    /// A peer tells addresses. Core: `ProcessAddrs`.
    pub(crate) fn on_addresses(
        &mut self,
        peers: &mut Peers,
        id: PeerId,
        mut entries: Vec<AddrEntry>,
        (book, guard, local): (&mut Book, &Guard, &Local),
        view: &impl View,
        cx: &mut Cx<'_>,
    ) -> bool {
        let Some(peer) = peers.get_mut(&id) else { return false };
        if !take_part(peer, cx) {
            return false;
        }
        let (limited, source) = (!peer.permissions.addr, peer.addr.host);
        let cap = cx.core.config.limits.known_addresses;
        let Some(state) = peer.gossip.as_mut() else { return false };
        state.earn(cx.now);
        let (now, few) = (cx.now.seconds32(), entries.len() <= MOST_TO_PASS_ON && !state.asked);
        // Which of too many are taken is not the sender's choice.
        entries.shuffle(&mut cx.core.rng);
        let (mut learned, mut pass_on) = (false, Vec::new());
        for entry in &mut entries {
            if !state.pay() && limited {
                state.limited += 1;
                continue;
            }
            let has_book = entry.services & (NODE_NETWORK | NODE_NETWORK_LIMITED) != 0;
            if !has_book && !handshake::offers_what_we_want(entry.services, view, cx) {
                continue;
            }
            if entry.time <= EARLIEST || entry.time > now.saturating_add(YOUNG) {
                entry.time = now.saturating_sub(DOUBTFUL_AGE);
            }
            state.learn(self.hash(&entry.addr) as u32, cap);
            if guard.refuses(&entry.addr.host, cx.now) {
                continue;
            }
            state.processed += 1;
            if few && entry.time > now.saturating_sub(YOUNG) && entry.addr.host.is_routable() {
                pass_on.push(*entry);
            }
            if cx.core.config.dialling.reachable.contains(&entry.addr.host.network())
                && !local.contains(&entry.addr.host)
            {
                learned |= book.add(entry, source, TIME_PENALTY, now, &mut cx.core.rng);
            }
        }
        if entries.len() < MAX_ADDR_TO_SEND {
            state.asked = false;
        }
        // A single one may be its own, told before the answer.
        if peer.kind == LinkKind::AddrFetch && entries.len() > 1 {
            cx.disconnect(peer, Reason::FetchDone);
        }
        for entry in pass_on {
            self.relay(peers, id, entry, cx);
        }
        learned
    }

    /// Passes an address on: to the same two peers for a day, so that telling it often spreads it no further. One that we
    /// cannot reach ourselves goes to one or two. Core: `RelayAddress`.
    fn relay(&mut self, peers: &mut Peers, from: PeerId, entry: AddrEntry, cx: &mut Cx<'_>) {
        let address = self.hash(&entry.addr);
        let day = cx.now.seconds().wrapping_add(address) / ROTATE_ADDR_RELAY_DEST_INTERVAL.as_secs();
        let score = |id: u64| {
            let bytes = [address.to_le_bytes(), day.to_le_bytes(), id.to_le_bytes()];
            siphash24::Hash::hash_to_u64_with_keys(self.key.0, !self.key.1, bytes.as_flattened())
        };
        let reachable = cx.core.config.dialling.reachable.contains(&entry.addr.host.network());
        let count = if reachable || score(0) & 1 == 1 { 2 } else { 1 };
        let mut best: Vec<(u64, PeerId)> = Vec::with_capacity(3);
        for peer in peers.values() {
            if peer.gossip.is_none() || peer.id == from || !understands(peer, &entry) {
                continue;
            }
            best.push((score(peer.id.0), peer.id));
            best.sort_unstable_by(|a, b| b.cmp(a));
            best.truncate(count);
        }
        for (_, id) in best {
            if let Some(peer) = peers.get_mut(&id) {
                self.push(peer, entry, cx);
            }
        }
    }

    /// Puts an address among those that a peer will be told. Core: `PushAddress`.
    fn push(&mut self, peer: &mut Peer, entry: AddrEntry, cx: &mut Cx<'_>) {
        if !understands(peer, &entry) {
            return;
        }
        let Some(state) = &mut peer.gossip else { return };
        if state.known.contains(&(self.hash(&entry.addr) as u32)) {
            return;
        }
        if state.queue.len() < MAX_ADDR_TO_SEND {
            state.queue.push(entry);
        } else {
            let place = cx.core.rng.random_range(0..MAX_ADDR_TO_SEND);
            state.queue[place] = entry;
        }
        if cx.core.timers.get(peer.id, Timer::Addresses).is_none() {
            let at = cx.now + exponential(AVG_ADDRESS_BROADCAST_INTERVAL, &mut cx.core.rng);
            cx.core.timers.set(peer.id, Timer::Addresses, at);
        }
    }

    /// It is time to tell a peer the addresses that wait.
    pub(crate) fn on_timer(&mut self, peer: &mut Peer, cx: &mut Cx<'_>) {
        let cap = cx.core.config.limits.known_addresses;
        let Some(state) = &mut peer.gossip else { return };
        let mut entries = std::mem::take(&mut state.queue);
        entries.retain(|entry| state.learn(self.hash(&entry.addr) as u32, cap));
        send(peer, entries, cx);
    }

    /// It is time to tell a peer our own address: first by itself, so that it is not lost among others, later with them.
    /// Core: `MaybeSendAddr`.
    pub(crate) fn on_own_timer(&mut self, peer: &mut Peer, local: &Local, cx: &mut Cx<'_>) {
        let next = cx.now + exponential(AVG_LOCAL_ADDRESS_BROADCAST_INTERVAL, &mut cx.core.rng);
        cx.core.timers.set(peer.id, Timer::OwnAddress, next);
        let addr = local.for_peer(peer, &cx.core.config.dialling, &mut cx.core.rng);
        let Some(state) = &mut peer.gossip else { return };
        let first = !std::mem::replace(&mut state.introduced, true);
        if !first {
            state.known.clear();
            state.oldest = 0;
        }
        let Some(addr) = addr else { return };
        let entry = AddrEntry { time: cx.now.seconds32(), services: cx.core.config.services, addr };
        if !first {
            self.push(peer, entry, cx);
        } else if understands(peer, &entry) {
            send(peer, vec![entry], cx);
        }
    }
}

/// Makes a peer part of the gossip, if it may be. Links for blocks only and feelers stay out: nobody learns of them.
/// Core: `SetupAddressRelay`.
fn take_part(peer: &mut Peer, cx: &mut Cx<'_>) -> bool {
    if matches!(peer.kind, LinkKind::BlockRelay | LinkKind::Feeler) {
        return false;
    }
    if peer.gossip.is_none() {
        peer.gossip = Some(Box::new(State::new(cx.now)));
        if peer.ready {
            introduce_soon(peer, cx);
        }
    }
    true
}

/// A peer that takes part is told our address, once we have a chain and if it is of use to anybody.
pub(crate) fn introduce_soon(peer: &mut Peer, cx: &mut Cx<'_>) {
    let due = peer.gossip.is_some() && cx.core.config.dialling.listen && !cx.core.initial_download;
    if due {
        cx.core.timers.set(peer.id, Timer::OwnAddress, cx.now);
    }
}

/// Whether the messages that the peer understands can carry the address.
fn understands(peer: &Peer, entry: &AddrEntry) -> bool {
    peer.addr_v2 || entry.addr.host.to_v6_bytes().is_some()
}

fn send(peer: &mut Peer, entries: Vec<AddrEntry>, cx: &mut Cx<'_>) {
    if entries.is_empty() {
        return;
    }
    let message = if peer.addr_v2 { Message::AddrV2(entries) } else { Message::Addr(entries) };
    cx.send_shared(peer, Arc::new(message));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_grows_by_an_address_in_ten_seconds_up_to_a_thousand() {
        let start = Micros::from_seconds(1000);
        let mut state = State::new(start);
        let paid = |state: &mut State| (0..5000).take_while(|_| state.pay()).count();
        assert_eq!((paid(&mut state), paid(&mut state)), (1, 0));
        state.earn(start + Duration::from_secs(25));
        assert_eq!(paid(&mut state), 2);
        state.earn(start + Duration::from_secs(30));
        assert_eq!(paid(&mut state), 1, "what was left over counts");
        state.earn(start + Duration::from_secs(1_000_000));
        assert_eq!(paid(&mut state), 1000);
        state.earn(start);
        assert_eq!(paid(&mut state), 0, "a clock that goes back earns nothing");
    }

    #[test]
    fn what_a_peer_knows_is_bounded() {
        let mut state = State::new(Micros::default());
        for n in 0..100 {
            assert!(state.learn(n, 10) && !state.learn(n, 10));
            assert!(state.known.len() <= 10);
        }
        let kept: Vec<u32> = (0..100).filter(|n| state.known.contains(n)).collect();
        assert_eq!(kept, (90..100).collect::<Vec<_>>(), "the oldest are forgotten");
    }
}
