//! Which transaction is asked of whom, and when. Dialled peers are asked first, a random one among equals, each once; the
//! next one when the last has no more patience of ours. So nobody can keep a transaction from us by announcing it first.
//! Core: `txrequest.h`. Knows hashes and peers only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::hashes::siphash24;

use crate::limits::Limits;
use crate::message::GenTxid;
use crate::protocol::PeerId;
use crate::timers::{GETDATA_TX_INTERVAL, Micros, OVERLOADED_PEER_TX_DELAY};

/// An id of either kind: one without witness has the same of both.
type Hash32 = [u8; 32];

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
    id: GenTxid,
    number: u64,
    preferred: bool,
    /// It does not count for the bound of all.
    kept: bool,
    patience: Duration,
    state: State,
}

impl Announcement {
    /// When it has to be looked at.
    fn time(&self) -> Option<Micros> {
        match self.state {
            State::Candidate(at) | State::Requested(at) => Some(at),
            State::Completed => None,
        }
    }
}

/// A transaction that is not here.
#[derive(Debug)]
struct Wanted {
    announcements: Vec<Announcement>,
    /// Nobody else is asked before.
    wait: Micros,
    /// Pieces of the ledger's work that may make it known. Nobody is asked meanwhile.
    held: usize,
    /// Its entry in the table of what is due.
    due: Option<Micros>,
}

#[derive(Debug, Default)]
struct Load {
    announced: BTreeSet<Hash32>,
    requested: usize,
    /// It is one of those whom an attacker cannot have many of: it keeps what it announced.
    kept: bool,
}

/// What is known of an announcement's circumstances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    /// Asked before others.
    pub(crate) preferred: bool,
    /// Not asked before this has passed.
    pub(crate) delay: Duration,
    /// The next one is asked when this has passed without an answer.
    pub(crate) patience: Duration,
    /// The operator trusts the peer with transactions: no bounds.
    pub(crate) trusted: bool,
}

/// All announcements of transactions that are not here.
#[derive(Debug)]
pub(crate) struct Requests {
    by_tx: BTreeMap<Hash32, Wanted>,
    by_peer: BTreeMap<PeerId, Load>,
    /// When which transaction has to be looked at; each once at most.
    due: BTreeSet<(Micros, Hash32)>,
    announcements: u64,
    /// Announcements that there are, but for those of peers that keep theirs.
    count: usize,
    salt: (u64, u64),
    /// Announcements of a peer. Core: `MAX_PEER_TX_ANNOUNCEMENTS`.
    most_announced: usize,
    /// Announcements of all peers.
    most_in_all: usize,
    /// Requests under way, above which a peer's turn comes later. Core: `MAX_PEER_TX_REQUEST_IN_FLIGHT`.
    most_requested: usize,
}

impl Requests {
    pub(crate) fn new(salt: (u64, u64), limits: &Limits) -> Requests {
        Requests {
            by_tx: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            due: BTreeSet::new(),
            announcements: 0,
            count: 0,
            salt,
            most_announced: limits.announced_transactions,
            most_in_all: limits.announced_in_all,
            most_requested: limits.requested_transactions,
        }
    }

    fn wanted(&mut self, hash: Hash32) -> &mut Wanted {
        let none = || Wanted { announcements: Vec::new(), wait: Micros(0), held: 0, due: None };
        self.by_tx.entry(hash).or_insert_with(none)
    }

    /// Has the transaction looked at then, if not before.
    fn look(&mut self, hash: Hash32, at: Micros) {
        let Some(wanted) = self.by_tx.get_mut(&hash).filter(|wanted| wanted.due.is_none_or(|due| at < due)) else {
            return;
        };
        if let Some(later) = wanted.due.replace(at) {
            self.due.remove(&(later, hash));
        }
        self.due.insert((at, hash));
    }

    /// Whether a peer may announce so many more.
    pub(crate) fn has_room(&self, peer: PeerId, more: usize, trusted: bool) -> bool {
        trusted || self.by_peer.get(&peer).map_or(0, |load| load.announced.len()) + more <= self.most_announced
    }

    /// Whether it would be news that a peer has this transaction, and there is room for it.
    pub(crate) fn takes(&self, peer: PeerId, hash: &Hash32, trusted: bool) -> bool {
        let known = |load: &Load| load.announced.contains(hash);
        self.has_room(peer, 1, trusted) && !self.by_peer.get(&peer).is_some_and(known)
    }

    /// A peer announced a transaction that is not here.
    pub(crate) fn announced(&mut self, peer: PeerId, id: GenTxid, around: Circumstances, now: Micros) {
        let hash = *id.bytes();
        if !self.takes(peer, &hash, around.trusted) {
            return;
        }
        let load = self.by_peer.entry(peer).or_default();
        load.announced.insert(hash);
        let kept = around.preferred || around.trusted;
        load.kept = kept;
        let overloaded = !around.trusted && load.requested >= self.most_requested;
        let from = now + around.delay + if overloaded { OVERLOADED_PEER_TX_DELAY } else { Duration::ZERO };
        self.announcements += 1;
        let Circumstances { preferred, patience, .. } = around;
        let (number, state) = (self.announcements, State::Candidate(from));
        let announcements = &mut self.wanted(hash).announcements;
        if announcements.is_empty() {
            // Of most transactions that nobody has there is one.
            announcements.reserve_exact(1);
        }
        announcements.push(Announcement { peer, id, number, preferred, kept, patience, state });
        self.count += usize::from(!kept);
        self.look(hash, from);
        self.trim(now);
    }

    /// Over the bound, of those that dialled us the one with most announcements loses half of them: who has few loses
    /// none, however many others there are.
    fn trim(&mut self, now: Micros) {
        while self.count > self.most_in_all {
            let loads = self.by_peer.iter().filter(|(_, load)| !load.kept && !load.announced.is_empty());
            let Some((peer, load)) = loads.max_by_key(|(_, load)| load.announced.len()) else { return };
            let (peer, half) = (*peer, load.announced.len().div_ceil(2));
            let gone: Vec<Hash32> = load.announced.iter().take(half).copied().collect();
            gone.iter().for_each(|hash| self.withdraw(peer, hash, now));
        }
    }

    /// A peer's announcement is forgotten. Who was being asked is not waited for any more.
    fn withdraw(&mut self, peer: PeerId, hash: &Hash32, now: Micros) {
        let Some(wanted) = self.by_tx.get_mut(hash) else { return };
        let of_peer = |one: &mut Announcement| one.peer == peer;
        let Some(one) = wanted.announcements.extract_if(.., of_peer).next() else { return };
        self.count -= usize::from(!one.kept);
        let requested = matches!(one.state, State::Requested(_));
        if requested {
            wanted.wait = Micros(0);
        }
        if let Some(load) = self.by_peer.get_mut(&peer) {
            load.announced.remove(hash);
            load.requested -= usize::from(requested);
        }
        self.look(*hash, now);
    }

    /// When something has to be done next.
    pub(crate) fn next(&self) -> Option<Micros> {
        self.due.first().map(|due| due.0)
    }

    /// Does what is due: whom to ask for what, in the order in which each peer announced it. What is here by now is
    /// forgotten.
    pub(crate) fn run(&mut self, now: Micros, is_here: impl Fn(&GenTxid) -> bool) -> BTreeMap<PeerId, Vec<GenTxid>> {
        let mut asks: BTreeMap<PeerId, Vec<(u64, GenTxid)>> = BTreeMap::new();
        while let Some((at, hash)) = self.due.first().copied().filter(|due| due.0 <= now) {
            self.due.remove(&(at, hash));
            let Some(wanted) = self.by_tx.get_mut(&hash) else { continue };
            wanted.due = None;
            if wanted.held > 0 {
                continue;
            }
            if wanted.wait > now {
                let wait = wanted.wait;
                self.look(hash, wait);
                continue;
            }
            for one in &mut wanted.announcements {
                if matches!(one.state, State::Requested(until) if until <= now) {
                    one.state = State::Completed;
                    self.by_peer.entry(one.peer).and_modify(|load| load.requested -= 1);
                }
            }
            let salt = self.salt;
            let luck = |peer: PeerId| {
                let mut bytes = [0; 40];
                bytes[..32].copy_from_slice(&hash);
                bytes[32..].copy_from_slice(&peer.0.to_le_bytes());
                siphash24::Hash::hash_to_u64_with_keys(salt.0, salt.1, &bytes)
            };
            let ready = |one: &&mut Announcement| matches!(one.state, State::Candidate(from) if from <= now);
            let best = wanted.announcements.iter_mut().filter(ready);
            match best.max_by_key(|one| (one.preferred, luck(one.peer))) {
                Some(best) if is_here(&best.id) => drop(self.forget(&hash)),
                Some(best) => {
                    best.state = State::Requested(now + GETDATA_TX_INTERVAL);
                    wanted.wait = now + best.patience;
                    self.by_peer.entry(best.peer).and_modify(|load| load.requested += 1);
                    asks.entry(best.peer).or_default().push((best.number, best.id));
                    let wait = wanted.wait;
                    self.look(hash, wait);
                }
                None => match wanted.announcements.iter().filter_map(Announcement::time).min() {
                    Some(next) => self.look(hash, next),
                    None => drop(self.forget(&hash)),
                },
            }
        }
        let in_order = |mut items: Vec<(u64, GenTxid)>| {
            items.sort_unstable();
            items.into_iter().map(|(_, id)| id).collect()
        };
        asks.into_iter().map(|(peer, items)| (peer, in_order(items))).collect()
    }

    /// A peer has answered: with the transaction, or that it has none. Others may be asked now.
    pub(crate) fn answered(&mut self, peer: PeerId, hash: &Hash32, now: Micros) {
        let Some(wanted) = self.by_tx.get_mut(hash) else { return };
        let Some(one) = wanted.announcements.iter_mut().find(|one| one.peer == peer) else { return };
        if let State::Requested(_) = one.state {
            self.by_peer.entry(peer).and_modify(|load| load.requested -= 1);
            wanted.wait = Micros(0);
        }
        one.state = State::Completed;
        self.look(*hash, now);
    }

    /// The ledger judges what may be this transaction: nobody is asked until it is released.
    pub(crate) fn hold(&mut self, hash: &Hash32) {
        self.wanted(*hash).held += 1;
    }

    /// The ledger has judged it. If it is still wanted, it is asked for again.
    pub(crate) fn release(&mut self, hash: &Hash32, now: Micros) {
        if let Some(wanted) = self.by_tx.get_mut(hash) {
            wanted.held = wanted.held.saturating_sub(1);
            self.look(*hash, now);
        }
    }

    /// Who could still be asked for it, or is being asked.
    pub(crate) fn candidates(&self, hash: &Hash32) -> impl Iterator<Item = PeerId> {
        let announcements = self.by_tx.get(hash).into_iter().flat_map(|wanted| &wanted.announcements);
        announcements.filter(|one| one.state != State::Completed).map(|one| one.peer)
    }

    /// The transaction is here, or not wanted: who announced it.
    pub(crate) fn forget(&mut self, hash: &Hash32) -> Vec<PeerId> {
        let Some(wanted) = self.by_tx.remove(hash) else { return Vec::new() };
        if let Some(due) = wanted.due {
            self.due.remove(&(due, *hash));
        }
        self.count -= wanted.announcements.iter().filter(|one| !one.kept).count();
        for one in &wanted.announcements {
            let Some(load) = self.by_peer.get_mut(&one.peer) else { continue };
            load.announced.remove(hash);
            load.requested -= usize::from(matches!(one.state, State::Requested(_)));
        }
        wanted.announcements.into_iter().map(|one| one.peer).collect()
    }

    /// A peer is gone: others are asked for what it owed.
    pub(crate) fn on_gone(&mut self, peer: PeerId, now: Micros) {
        for hash in self.by_peer.remove(&peer).unwrap_or_default().announced {
            self.withdraw(peer, &hash, now);
        }
    }

    /// Announcements of all peers that may lose some.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn announced_by_many(&self) -> usize {
        self.by_peer.values().filter(|load| !load.kept).map(|load| load.announced.len()).sum()
    }

    /// Announcements of a peer, and requests to it under way.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn load(&self, peer: PeerId) -> (usize, usize) {
        self.by_peer.get(&peer).map_or((0, 0), |load| (load.announced.len(), load.requested))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timers::{NONPREF_PEER_TX_DELAY, TXID_RELAY_DELAY};
    use bitcoin::hashes::Hash;
    use bitcoin::{Txid, Wtxid};

    const DIALLED: Circumstances =
        Circumstances { preferred: true, delay: Duration::ZERO, patience: GETDATA_TX_INTERVAL, trusted: false };
    const INBOUND: Circumstances = Circumstances { preferred: false, delay: NONPREF_PEER_TX_DELAY, ..DIALLED };

    fn id(n: u8) -> GenTxid {
        GenTxid::Wtxid(Wtxid::from_byte_array([n; 32]))
    }

    fn at(tenths: u64) -> Micros {
        Micros(tenths * 100_000)
    }

    fn requests() -> Requests {
        Requests::new((1, 2), &Limits::default())
    }

    fn run(requests: &mut Requests, now: Micros) -> BTreeMap<PeerId, Vec<GenTxid>> {
        requests.run(now, |_| false)
    }

    /// Runs whatever is due up to `until` and gives (tenth of a second, peer) of each request.
    fn asked(requests: &mut Requests, until: u64) -> Vec<(u64, u64)> {
        let mut asked = Vec::new();
        while let Some(next) = requests.next().filter(|next| *next <= at(until)) {
            asked.extend(run(requests, next).into_keys().map(|peer| (next.0 / 100_000, peer.0)));
        }
        asked
    }

    fn times(asked: &[(u64, u64)]) -> Vec<u64> {
        asked.iter().map(|one| one.0).collect()
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
        assert_eq!(times(&late), [10, 610, 1210], "a minute each");
        assert_eq!((requests.by_tx.len(), requests.next()), (0, None));
        assert_eq!(requests.load(PeerId(1)), (0, 0));
    }

    #[test]
    fn short_patience_asks_the_next_one_and_keeps_the_first_request_open() {
        let mut requests = requests();
        let hedged = Circumstances { patience: Duration::from_secs(2), ..DIALLED };
        for peer in 1..=3 {
            requests.announced(PeerId(peer), id(1), hedged, at(0));
        }
        let all = asked(&mut requests, 599);
        assert_eq!(times(&all), [0, 20, 40]);
        assert_eq!((1..=3).map(|peer| requests.load(PeerId(peer)).1).sum::<usize>(), 3, "all three may still answer");
        assert_eq!(asked(&mut requests, 5000), []);
        assert_eq!((requests.by_tx.len(), requests.next()), (0, None), "a minute after the last it is given up");
    }

    #[test]
    fn an_answer_or_a_lost_link_gives_the_turn_to_the_next() {
        let mut requests = requests();
        for peer in 1..=3 {
            requests.announced(PeerId(peer), id(1), DIALLED, at(0));
        }
        let first = asked(&mut requests, 0)[0].1;
        requests.answered(PeerId(first), id(1).bytes(), at(5));
        let second = asked(&mut requests, 5)[0].1;
        requests.on_gone(PeerId(second), at(7));
        let third = asked(&mut requests, 7)[0].1;
        let mut all = [first, second, third];
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
        assert_eq!(requests.candidates(id(1).bytes()).collect::<Vec<_>>(), [PeerId(third)]);
        assert_eq!(requests.forget(id(1).bytes()).len(), 2);
        assert_eq!(asked(&mut requests, 5000), []);
    }

    #[test]
    fn nobody_is_asked_while_the_ledger_judges_it() {
        let mut requests = requests();
        requests.announced(PeerId(1), id(1), DIALLED, at(0));
        requests.announced(PeerId(2), id(1), DIALLED, at(0));
        let first = asked(&mut requests, 0)[0].1;
        requests.hold(id(1).bytes());
        requests.answered(PeerId(first), id(1).bytes(), at(1));
        requests.announced(PeerId(3), id(1), DIALLED, at(2));
        assert_eq!(asked(&mut requests, 3000), []);
        requests.release(id(1).bytes(), at(3001));
        assert_eq!(times(&asked(&mut requests, 5000)), [3001, 3601], "it was not the one: both others are asked");
        requests.hold(id(2).bytes());
        requests.release(id(2).bytes(), at(5000));
        requests.run(at(5000), |_| false);
        assert_eq!((requests.by_tx.len(), requests.next()), (0, None), "nothing stays of what nobody announced");
    }

    #[test]
    fn what_is_here_when_its_time_comes_is_not_asked_for() {
        let mut requests = requests();
        requests.announced(PeerId(1), id(1), INBOUND, at(0));
        requests.announced(PeerId(1), id(2), INBOUND, at(0));
        let asks = requests.run(at(20), |one| *one == id(1));
        assert_eq!(asks.into_iter().collect::<Vec<_>>(), [(PeerId(1), vec![id(2)])]);
        assert_eq!(requests.load(PeerId(1)), (1, 1));
    }

    #[test]
    fn a_transaction_without_witness_is_one_by_either_id_and_order_is_kept() {
        let mut requests = requests();
        requests.announced(PeerId(1), GenTxid::Txid(Txid::from_byte_array([9; 32])), DIALLED, at(0));
        requests.announced(PeerId(2), id(9), DIALLED, at(0));
        assert_eq!(asked(&mut requests, 0).len(), 1);
        for n in [7, 3, 5] {
            requests.announced(PeerId(3), id(n), DIALLED, at(10));
        }
        assert_eq!(run(&mut requests, at(10))[&PeerId(3)], [id(7), id(3), id(5)]);
    }

    #[test]
    fn busy_peers_wait() {
        let mut requests = requests();
        let late = Circumstances { delay: NONPREF_PEER_TX_DELAY + TXID_RELAY_DELAY, ..INBOUND };
        requests.announced(PeerId(1), GenTxid::Txid(Txid::from_byte_array([200; 32])), late, at(0));
        assert_eq!(asked(&mut requests, 100), [(40, 1)]);
        for n in 0..101 {
            requests.announced(PeerId(2), id(n), DIALLED, at(100));
            run(&mut requests, at(100));
        }
        assert_eq!(requests.load(PeerId(2)), (101, 100), "the last one waits");
        run(&mut requests, at(120));
        assert_eq!(requests.load(PeerId(2)), (101, 101));
    }

    #[test]
    fn announcements_of_a_peer_are_bounded() {
        let mut requests = Requests::new((1, 2), &Limits { announced_transactions: 3, ..Limits::default() });
        for n in 0..10 {
            requests.announced(PeerId(1), id(n), DIALLED, at(0));
            requests.announced(PeerId(2), id(n), Circumstances { trusted: true, ..DIALLED }, at(0));
        }
        assert_eq!((requests.load(PeerId(1)).0, requests.load(PeerId(2)).0), (3, 10));
        assert!(requests.due.len() <= requests.by_tx.len(), "each transaction is looked at once at a time");
        assert!(!requests.takes(PeerId(1), id(9).bytes(), false), "there is no room");
        assert!(!requests.takes(PeerId(2), id(9).bytes(), true), "it said so before");
    }

    #[test]
    fn announcements_of_all_are_bounded_and_who_has_few_loses_none() {
        let limits = Limits { announced_transactions: 50, announced_in_all: 200, ..Limits::default() };
        let mut requests = Requests::new((1, 2), &limits);
        let own = |peer: u64, n: u64| {
            let mut hash = [peer as u8; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            GenTxid::Wtxid(Wtxid::from_byte_array(hash))
        };
        let honest = [1, 2].map(PeerId);
        for n in 0..10 {
            requests.announced(honest[0], own(1, n), DIALLED, at(0));
            requests.announced(honest[1], own(1, n), INBOUND, at(0));
        }
        (10..50).for_each(|n| requests.announced(honest[0], own(1, n), DIALLED, at(0)));
        for n in 0..50 {
            for flooder in 3..15 {
                // Half of what they say is the same.
                let said = own(if n % 2 == 0 { 100 } else { flooder }, n);
                requests.announced(PeerId(flooder), said, INBOUND, at(0));
                let all = requests.by_tx.values().flat_map(|wanted| &wanted.announcements);
                let count = all.filter(|one| !one.kept).count();
                assert_eq!((requests.count, requests.count), (count, requests.announced_by_many()));
                assert!(count <= limits.announced_in_all, "{count} announcements");
            }
        }
        assert_eq!(honest.map(|peer| requests.load(peer).0), [50, 10], "nobody honest lost anything");
        assert!((3..15).all(|flooder| requests.load(PeerId(flooder)).0 > 0), "each has its part");
        // What is forgotten while it is asked for counts no more.
        asked(&mut requests, 30);
        (100..150).for_each(|n| requests.announced(PeerId(20), own(20, n), INBOUND, at(30)));
        (3..21).chain([1, 2]).for_each(|peer| requests.on_gone(PeerId(peer), at(40)));
        asked(&mut requests, 50);
        assert_eq!((requests.count, requests.by_tx.len(), requests.by_peer.len(), requests.next()), (0, 0, 0, None));
    }
}
