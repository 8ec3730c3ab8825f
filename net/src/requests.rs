//! Which transaction is asked of whom, and when. One peer is asked at a time, dialled ones first, a random one among
//! equals; who does not answer within a minute loses its turn for good. So nobody can keep a transaction from us by
//! announcing it first. Core: `txrequest.h`. Knows hashes and peers only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::hashes::{Hash, siphash24};
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Txid, Wtxid};

use crate::protocol::PeerId;
use crate::timers::{GETDATA_TX_INTERVAL, Micros, NONPREF_PEER_TX_DELAY, OVERLOADED_PEER_TX_DELAY, TXID_RELAY_DELAY};

/// A transaction by the id it was announced with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GenTxid {
    /// Without witness.
    Txid(Txid),
    /// With witness.
    Wtxid(Wtxid),
}

impl GenTxid {
    /// What an inventory item announces or asks for, if that is a transaction.
    pub(crate) fn of(item: &Inventory) -> Option<GenTxid> {
        match item {
            Inventory::Transaction(id) | Inventory::WitnessTransaction(id) => Some(GenTxid::Txid(*id)),
            Inventory::WTx(id) => Some(GenTxid::Wtxid(*id)),
            _ => None,
        }
    }

    /// How it is asked for. Core: `GetFetchFlags`.
    fn request(&self) -> Inventory {
        match self {
            GenTxid::Txid(id) => Inventory::WitnessTransaction(*id),
            GenTxid::Wtxid(id) => Inventory::WTx(*id),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        match self {
            GenTxid::Txid(id) => id.as_byte_array(),
            GenTxid::Wtxid(id) => id.as_byte_array(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May be asked from then on.
    Candidate(Micros),
    /// Was asked, and must answer until then.
    Requested(Micros),
    /// Has had its turn.
    Completed,
}

#[derive(Clone, Copy, Debug)]
struct Announcement {
    peer: PeerId,
    preferred: bool,
    state: State,
}

#[derive(Debug, Default)]
struct Load {
    announced: BTreeSet<GenTxid>,
    requested: usize,
}

/// What is known of an announcement's circumstances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    /// We dialled the peer.
    pub(crate) preferred: bool,
    /// Some peer announces by wtxid.
    pub(crate) wtxid_peers: bool,
    /// The operator trusts the peer with transactions: no bounds.
    pub(crate) trusted: bool,
}

/// All announcements of transactions that are not here.
#[derive(Debug)]
pub(crate) struct Requests {
    by_tx: BTreeMap<GenTxid, Vec<Announcement>>,
    by_peer: BTreeMap<PeerId, Load>,
    /// When which transaction has to be looked at.
    due: BTreeSet<(Micros, GenTxid)>,
    salt: (u64, u64),
    /// Announcements of a peer. Core: `MAX_PEER_TX_ANNOUNCEMENTS`.
    most_announced: usize,
    /// Requests under way, above which a peer's turn comes later. Core: `MAX_PEER_TX_REQUEST_IN_FLIGHT`.
    most_requested: usize,
}

impl Requests {
    pub(crate) fn new(salt: (u64, u64), most_announced: usize, most_requested: usize) -> Requests {
        Requests {
            by_tx: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            due: BTreeSet::new(),
            salt,
            most_announced,
            most_requested,
        }
    }

    /// A peer announced a transaction that is not here.
    pub(crate) fn announced(&mut self, peer: PeerId, id: GenTxid, around: Circumstances, now: Micros) {
        let load = self.by_peer.entry(peer).or_default();
        if load.announced.contains(&id) || (!around.trusted && load.announced.len() >= self.most_announced) {
            return;
        }
        let mut delay = Duration::ZERO;
        if !around.preferred {
            delay += NONPREF_PEER_TX_DELAY;
        }
        if around.wtxid_peers && matches!(id, GenTxid::Txid(_)) {
            delay += TXID_RELAY_DELAY;
        }
        if !around.trusted && load.requested >= self.most_requested {
            delay += OVERLOADED_PEER_TX_DELAY;
        }
        load.announced.insert(id);
        let state = State::Candidate(now + delay);
        self.by_tx.entry(id).or_default().push(Announcement { peer, preferred: around.preferred, state });
        self.due.insert((now + delay, id));
    }

    /// When something has to be done next.
    pub(crate) fn next(&self) -> Option<Micros> {
        self.due.first().map(|due| due.0)
    }

    /// Does what is due: whom to ask for what.
    pub(crate) fn run(&mut self, now: Micros) -> BTreeMap<PeerId, Vec<Inventory>> {
        let mut asks: BTreeMap<PeerId, Vec<Inventory>> = BTreeMap::new();
        while let Some((at, id)) = self.due.first().copied().filter(|due| due.0 <= now) {
            self.due.remove(&(at, id));
            let Some(announcements) = self.by_tx.get_mut(&id) else { continue };
            for one in
                announcements.iter_mut().filter(|one| matches!(one.state, State::Requested(until) if until <= now))
            {
                one.state = State::Completed;
                self.by_peer.entry(one.peer).and_modify(|load| load.requested -= 1);
            }
            if announcements.iter().any(|one| matches!(one.state, State::Requested(_))) {
                continue;
            }
            let salt = self.salt;
            let luck = |peer: PeerId| {
                let mut bytes = [0; 40];
                bytes[..32].copy_from_slice(id.bytes());
                bytes[32..].copy_from_slice(&peer.0.to_le_bytes());
                siphash24::Hash::hash_to_u64_with_keys(salt.0, salt.1, &bytes)
            };
            let ready = |one: &&mut Announcement| matches!(one.state, State::Candidate(from) if from <= now);
            let best = announcements.iter_mut().filter(ready).max_by_key(|one| (one.preferred, luck(one.peer)));
            if let Some(best) = best {
                best.state = State::Requested(now + GETDATA_TX_INTERVAL);
                self.by_peer.entry(best.peer).and_modify(|load| load.requested += 1);
                asks.entry(best.peer).or_default().push(id.request());
                self.due.insert((now + GETDATA_TX_INTERVAL, id));
            } else if announcements.iter().all(|one| one.state == State::Completed) {
                self.forget(&id);
            }
        }
        asks
    }

    /// A peer has answered: with the transaction, or that it has none. Others may be asked now.
    pub(crate) fn answered(&mut self, peer: PeerId, id: &GenTxid, now: Micros) {
        let Some(announcements) = self.by_tx.get_mut(id) else { return };
        let Some(one) = announcements.iter_mut().find(|one| one.peer == peer) else { return };
        if let State::Requested(_) = one.state {
            self.by_peer.entry(peer).and_modify(|load| load.requested -= 1);
        }
        one.state = State::Completed;
        self.due.insert((now, *id));
    }

    /// The transaction is here, or not wanted: who announced it.
    pub(crate) fn forget(&mut self, id: &GenTxid) -> Vec<PeerId> {
        let announcements = self.by_tx.remove(id).unwrap_or_default();
        for one in &announcements {
            let Some(load) = self.by_peer.get_mut(&one.peer) else { continue };
            load.announced.remove(id);
            load.requested -= usize::from(matches!(one.state, State::Requested(_)));
        }
        announcements.into_iter().map(|one| one.peer).collect()
    }

    /// A peer is gone: others are asked for what it owed.
    pub(crate) fn on_gone(&mut self, peer: PeerId, now: Micros) {
        for id in self.by_peer.remove(&peer).unwrap_or_default().announced {
            let Some(announcements) = self.by_tx.get_mut(&id) else { continue };
            announcements.retain(|one| one.peer != peer);
            if announcements.is_empty() {
                self.by_tx.remove(&id);
            } else {
                self.due.insert((now, id));
            }
        }
        if self.by_tx.is_empty() {
            self.due.clear();
        }
    }

    /// Announcements of a peer, and requests to it under way.
    #[cfg(test)]
    pub(crate) fn load(&self, peer: PeerId) -> (usize, usize) {
        self.by_peer.get(&peer).map_or((0, 0), |load| (load.announced.len(), load.requested))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALLED: Circumstances = Circumstances { preferred: true, wtxid_peers: true, trusted: false };
    const INBOUND: Circumstances = Circumstances { preferred: false, ..DIALLED };

    fn id(n: u8) -> GenTxid {
        GenTxid::Wtxid(Wtxid::from_byte_array([n; 32]))
    }

    fn at(tenths: u64) -> Micros {
        Micros(tenths * 100_000)
    }

    fn requests() -> Requests {
        Requests::new((1, 2), 5000, 100)
    }

    /// Runs whatever is due up to `until` and gives (tenth of a second, peer) of each request.
    fn asked(requests: &mut Requests, until: u64) -> Vec<(u64, u64)> {
        let mut asked = Vec::new();
        while let Some(next) = requests.next().filter(|next| *next <= at(until)) {
            asked.extend(requests.run(next).into_keys().map(|peer| (next.0 / 100_000, peer.0)));
        }
        asked
    }

    #[test]
    fn dialled_peers_are_asked_first_and_each_once() {
        let mut requests = requests();
        requests.announced(PeerId(1), id(1), INBOUND, at(0));
        requests.announced(PeerId(2), id(1), DIALLED, at(10));
        requests.announced(PeerId(3), id(1), INBOUND, at(30));
        let late = asked(&mut requests, 5000);
        assert_eq!(late[0], (10, 2), "the dialled peer is asked at once");
        let mut others: Vec<u64> = late[1..].iter().map(|one| one.1).collect();
        others.sort_unstable();
        assert_eq!(others, [1, 3], "then each of the others");
        assert_eq!(late.iter().map(|one| one.0).collect::<Vec<_>>(), [10, 610, 1210], "a minute each");
        assert_eq!((requests.by_tx.len(), requests.next()), (0, None));
        assert_eq!(requests.load(PeerId(1)), (0, 0));
    }

    #[test]
    fn an_answer_or_a_lost_link_gives_the_turn_to_the_next() {
        let mut requests = requests();
        for peer in 1..=3 {
            requests.announced(PeerId(peer), id(1), DIALLED, at(0));
        }
        let first = asked(&mut requests, 0)[0].1;
        requests.answered(PeerId(first), &id(1), at(5));
        let second = asked(&mut requests, 5)[0].1;
        requests.on_gone(PeerId(second), at(7));
        let third = asked(&mut requests, 7)[0].1;
        let mut all = [first, second, third];
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
        assert_eq!(requests.forget(&id(1)).len(), 2);
        assert_eq!(asked(&mut requests, 5000), []);
    }

    #[test]
    fn txids_inbound_peers_and_busy_peers_wait() {
        let mut requests = requests();
        let txid = GenTxid::Txid(Txid::from_byte_array([9; 32]));
        requests.announced(PeerId(1), txid, INBOUND, at(0));
        assert_eq!(asked(&mut requests, 100), [(40, 1)]);
        for n in 0..101 {
            requests.announced(PeerId(2), id(n), DIALLED, at(100));
            requests.run(at(100));
        }
        assert_eq!(requests.load(PeerId(2)), (101, 100), "the last one waits");
        requests.run(at(120));
        assert_eq!(requests.load(PeerId(2)), (101, 101));
    }

    #[test]
    fn announcements_of_a_peer_are_bounded() {
        let mut requests = Requests::new((1, 2), 3, 100);
        for n in 0..10 {
            requests.announced(PeerId(1), id(n), DIALLED, at(0));
            requests.announced(PeerId(2), id(n), Circumstances { trusted: true, ..DIALLED }, at(0));
        }
        assert_eq!((requests.load(PeerId(1)).0, requests.load(PeerId(2)).0), (3, 10));
    }
}
