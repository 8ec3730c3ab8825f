//! Time, and the one table of deadlines. A deadline is data: who, what for, when. Nothing here waits.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Add;
use std::time::Duration;

use rand::Rng;

use crate::protocol::PeerId;

/// A point in time: microseconds since 1970 by the node's own clock, which may be mocked and may go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl Micros {
    /// So many seconds since 1970.
    pub fn from_seconds(seconds: u64) -> Micros {
        Micros(seconds.saturating_mul(1_000_000))
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds since 1970, as addresses carry them.
    pub(crate) fn seconds32(self) -> u32 {
        u32::try_from(self.seconds()).unwrap_or(u32::MAX)
    }

    /// So much earlier, but not before 1970.
    pub fn before(self, duration: Duration) -> Micros {
        Micros(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// What passed since `earlier`; nothing if the clock went back.
    pub fn since(self, earlier: Micros) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Micros {
    type Output = Micros;

    fn add(self, duration: Duration) -> Micros {
        Micros(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// A handshake must end within this. Core: `DEFAULT_PEER_CONNECT_TIMEOUT`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time from ping to ping. Core's name and value.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(2 * 60);
/// A ping must be answered within this. Core's name and value.
pub(crate) const TIMEOUT_INTERVAL: Duration = Duration::from_secs(20 * 60);
/// A `getheaders` without an answer is not repeated before this. Core's name and value.
pub(crate) const HEADERS_RESPONSE_TIME: Duration = Duration::from_secs(2 * 60);
/// The first sync of headers must end within this. Core's name and value.
pub(crate) const HEADERS_DOWNLOAD_TIMEOUT_BASE: Duration = Duration::from_secs(15 * 60);
/// More time for the first sync, for each header that is expected. Core's name and value.
pub(crate) const HEADERS_DOWNLOAD_TIMEOUT_PER_HEADER: Duration = Duration::from_millis(1);
/// An outbound peer may be behind our tip for this long. Core's name and value.
pub(crate) const CHAIN_SYNC_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// How often an outbound peer's chain is looked at.
pub(crate) const CHAIN_SYNC_INTERVAL: Duration = Duration::from_secs(30);
/// A peer that holds the download window up gets this long at first. Core's name and value.
pub(crate) const BLOCK_STALLING_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// And at most this, doubled after each peer that was dropped for it. Core's name and value.
pub(crate) const BLOCK_STALLING_TIMEOUT_MAX: Duration = Duration::from_secs(64);
/// A tip younger than this is up to date. Core: `DEFAULT_MAX_TIP_AGE`.
pub(crate) const MAX_TIP_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Blocks off the active chain are served for this long. Core's name and value.
pub(crate) const STALE_RELAY_AGE_LIMIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Those whom we dialled are told of transactions after this, on average. Core's name and value.
pub(crate) const OUTBOUND_INVENTORY_BROADCAST_INTERVAL: Duration = Duration::from_secs(2);
/// Those who dialled us are told after this, on average. Core's name and value.
pub(crate) const INBOUND_INVENTORY_BROADCAST_INTERVAL: Duration = Duration::from_secs(5);
/// The wanted fee rate is told again after this, on average. Core's name and value.
pub(crate) const AVG_FEEFILTER_BROADCAST_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Who dialled us is asked for a transaction this much later. Core's name and value.
pub(crate) const NONPREF_PEER_TX_DELAY: Duration = Duration::from_secs(2);
/// A txid is asked for this much later while some announce by wtxid. Core's name and value.
pub(crate) const TXID_RELAY_DELAY: Duration = Duration::from_secs(2);
/// Who owes many transactions is asked for more this much later. Core's name and value.
pub(crate) const OVERLOADED_PEER_TX_DELAY: Duration = Duration::from_secs(2);
/// Who was asked for a transaction must answer within this. Core's name and value.
pub(crate) const GETDATA_TX_INTERVAL: Duration = Duration::from_secs(60);

/// Addresses that wait are told to a peer after this, on average. Core's name and value.
pub(crate) const AVG_ADDRESS_BROADCAST_INTERVAL: Duration = Duration::from_secs(30);
/// Our own address is told again after this, on average. Core's name and value.
pub(crate) const AVG_LOCAL_ADDRESS_BROADCAST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// An address is passed on to the same peers for this long. Core's name and value.
pub(crate) const ROTATE_ADDR_RELAY_DEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Time from one look for an address to dial to the next. Core: the loop of `ThreadOpenConnections`.
pub(crate) const DIAL_INTERVAL: Duration = Duration::from_millis(500);
/// Time from feeler to feeler, on average. Core's name and value.
pub(crate) const FEELER_INTERVAL: Duration = Duration::from_secs(2 * 60);
/// One more peer for blocks only is tried after this, on average. Core's name and value.
pub(crate) const EXTRA_BLOCK_RELAY_ONLY_PEER_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// A peer on a network on which there is none is looked for after this, on average. Core's name and value.
pub(crate) const EXTRA_NETWORK_PEER_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Time from one look at surplus peers to the next. Core's name and value.
pub(crate) const EXTRA_PEER_CHECK_INTERVAL: Duration = Duration::from_secs(45);
/// Time from one look at the age of the tip to the next. Core's name and value.
pub(crate) const STALE_CHECK_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// A peer has this long to prove useful. Core's name and value.
pub(crate) const MINIMUM_CONNECT_TIME: Duration = Duration::from_secs(30);
/// A wanted fee rate that moved much is told within this. Core's name and value.
pub(crate) const MAX_FEEFILTER_CHANGE_DELAY: Duration = Duration::from_secs(5 * 60);
/// The pool's floor is looked at no more often than this.
pub(crate) const FEEFILTER_LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// The operator's transactions that nobody asked for are announced again after this and up to
/// [`REATTEMPT_BROADCAST_SPREAD`] more. Core: `ReattemptInitialBroadcast`.
pub(crate) const REATTEMPT_BROADCAST_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// See [`REATTEMPT_BROADCAST_INTERVAL`].
pub(crate) const REATTEMPT_BROADCAST_SPREAD: Duration = Duration::from_secs(5 * 60);
/// With hedged requests, the next peer is asked for a transaction after four round trips, but not before this.
pub(crate) const HEDGE_AFTER: Duration = Duration::from_millis(1500);
/// And not after this.
pub(crate) const HEDGE_AFTER_MAX: Duration = Duration::from_secs(6);
/// With hedged requests, who dialled us is asked for a transaction this much later.
pub(crate) const HEDGED_NONPREF_PEER_TX_DELAY: Duration = Duration::from_millis(500);

/// With hedged requests, another peer is asked for a block above the tip after four round trips, but not before this.
pub(crate) const BLOCK_HEDGE_AFTER: Duration = Duration::from_secs(2);
/// And not after this.
pub(crate) const BLOCK_HEDGE_AFTER_MAX: Duration = Duration::from_secs(5);
/// When there was nobody else to ask, this is how long until the next look.
pub(crate) const BLOCK_HEDGE_LOOK: Duration = Duration::from_secs(1);

/// With Groat's own policy, an inbound peer has to go for another no more often than this: who comes and goes in haste
/// only drives others out.
pub(crate) const EVICTION_INTERVAL: Duration = Duration::from_secs(1);
/// Where there are thousands of inbound peers, one that has to go is looked for no more often than this.
pub(crate) const EVICTION_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A time until the next of events that come at random, `mean` apart on average. Integers only: floating point differs
/// from machine to machine, and so would the simulator.
pub(crate) fn exponential(mean: Duration, rng: &mut impl Rng) -> Duration {
    // The logarithm to base 2 of a random fraction, with 32 binary places: squaring doubles it.
    let fraction = rng.random::<u64>() | 1;
    let whole = u64::from(fraction.leading_zeros());
    let mut mantissa = u128::from(fraction << whole) >> 32;
    let mut places = 0u64;
    for _ in 0..32 {
        mantissa = (mantissa * mantissa) >> 31;
        let carry = (mantissa >> 32) as u64;
        places = places << 1 | carry;
        mantissa >>= carry;
    }
    // fraction = mantissa / 2^(whole + 1) with the mantissa in 1..2.
    let log2 = ((whole + 1) << 32) - places;
    // ln 2 = 0xb17217f8 / 2^32.
    let ln = (u128::from(log2) * 0xb172_17f8) >> 32;
    Duration::from_micros(((mean.as_micros() * ln) >> 32) as u64)
}

/// What a deadline is for. Each peer has at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The handshake must be done.
    Handshake,
    /// The next ping is due.
    Ping,
    /// The pong must be here.
    Pong,
    /// The first sync of headers must be done.
    HeadersSync,
    /// The chain of an outbound peer is looked at.
    ChainSync,
    /// The block that the window waits for must be here.
    Stall,
    /// The oldest block asked for must be here.
    Block,
    /// A peer that we dialled is told of transactions.
    Trickle,
    /// The wanted fee rate is told again.
    FeeFilter,
    /// Addresses that wait are told.
    Addresses,
    /// Our own address is told.
    OwnAddress,
    /// A peer dialled for addresses must have told them.
    Fetch,
}

/// All deadlines. A heap finds the first one; an entry of it may be out of date and is put right when it comes to the
/// top. So a deadline that moves to a later time, as those of pings do all the time, costs nothing until then.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Micros, PeerId, Timer)>>,
    by_peer: BTreeMap<PeerId, [Deadline; TIMERS]>,
}

/// Kinds of timers.
const TIMERS: usize = Timer::Fetch as usize + 1;

#[derive(Clone, Copy, Debug)]
struct Deadline {
    /// When it comes.
    at: Micros,
    /// The time of its earliest entry in the heap.
    entry: Micros,
}

/// None: no clock shows this.
const NEVER: Micros = Micros(u64::MAX);

impl Timers {
    /// Sets a deadline, in place of the one that the peer had for the same.
    pub fn set(&mut self, peer: PeerId, timer: Timer, at: Micros) {
        let row = self.by_peer.entry(peer).or_insert([Deadline { at: NEVER, entry: NEVER }; TIMERS]);
        let deadline = &mut row[timer as usize];
        deadline.at = at;
        if at < deadline.entry {
            deadline.entry = at;
            self.heap.push(Reverse((at, peer, timer)));
        }
        self.tidy();
    }

    /// Takes a deadline away.
    pub fn stop(&mut self, peer: PeerId, timer: Timer) {
        if let Some(row) = self.by_peer.get_mut(&peer) {
            row[timer as usize].at = NEVER;
            self.tidy();
        }
    }

    /// Takes all deadlines of a peer away.
    pub fn forget(&mut self, peer: PeerId) {
        self.by_peer.remove(&peer);
        self.tidy();
    }

    /// When the peer's deadline is.
    pub fn get(&self, peer: PeerId, timer: Timer) -> Option<Micros> {
        self.by_peer.get(&peer).map(|row| row[timer as usize].at).filter(|at| *at != NEVER)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Micros> {
        self.heap.peek().map(|entry| entry.0.0)
    }

    /// Takes one deadline that has come, earliest first.
    pub fn pop(&mut self, now: Micros) -> Option<(PeerId, Timer)> {
        let Reverse((_, peer, timer)) = *self.heap.peek().filter(|entry| entry.0.0 <= now)?;
        self.stop(peer, timer);
        Some((peer, timer))
    }

    /// Sees to it that the first entry of the heap is a deadline, and that the heap is not much longer than it need be.
    fn tidy(&mut self) {
        while let Some(mut first) = self.heap.peek_mut() {
            let Reverse((at, peer, timer)) = *first;
            let deadline = self.by_peer.get_mut(&peer).map(|row| &mut row[timer as usize]);
            // Another entry of the same deadline may come before this one.
            let Some(deadline) = deadline.filter(|deadline| deadline.entry == at) else {
                PeekMut::pop(first);
                continue;
            };
            if deadline.at == at {
                break;
            }
            deadline.entry = deadline.at;
            if deadline.at == NEVER {
                PeekMut::pop(first);
            } else {
                *first = Reverse((deadline.at, peer, timer));
            }
        }
        if self.heap.len() > 2 * TIMERS * (self.by_peer.len() + 8) {
            let by_peer = &self.by_peer;
            self.heap.retain(|Reverse((at, peer, timer))| {
                by_peer.get(peer).is_some_and(|row| row[*timer as usize].entry == *at)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn waiting_times_have_their_mean_and_their_tail() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mean = Duration::from_secs(5);
        let samples: Vec<Duration> = (0..100_000).map(|_| exponential(mean, &mut rng)).collect();
        let average = samples.iter().sum::<Duration>() / 100_000;
        assert!((4900..5100).contains(&average.as_millis()), "mean {average:?}");
        for (times, expected) in [(1, 0.3679), (2, 0.1353), (5, 0.0067)] {
            let share = samples.iter().filter(|sample| **sample > mean * times).count() as f64 / 100_000.0;
            assert!((share - expected).abs() < 0.005, "{share} are longer than {times} means, not {expected}");
        }
    }

    #[test]
    fn deadlines_come_in_order_and_one_of_each_kind() {
        let (mut timers, peer) = (Timers::default(), PeerId(1));
        timers.set(peer, Timer::Ping, Micros(50));
        timers.set(peer, Timer::Ping, Micros(30));
        timers.set(peer, Timer::Stall, Micros(20));
        timers.set(PeerId(2), Timer::Ping, Micros(25));
        timers.stop(peer, Timer::Stall);
        assert_eq!(timers.next(), Some(Micros(25)));
        assert_eq!(timers.pop(Micros(24)), None);
        assert_eq!(timers.pop(Micros(99)), Some((PeerId(2), Timer::Ping)));
        timers.set(peer, Timer::FeeFilter, Micros(40));
        timers.forget(peer);
        assert_eq!(timers.next(), None);
    }
    #[test]
    fn deadlines_are_those_of_a_plain_table_whatever_is_set_and_stopped() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let (mut timers, mut table) = (Timers::default(), BTreeMap::new());
        let kinds = [Timer::Handshake, Timer::Ping, Timer::Pong, Timer::Stall, Timer::Trickle];
        for now in (0..200_000).map(|n| Micros(n / 8)) {
            let (peer, timer) = (PeerId(rng.random_range(0..6)), kinds[rng.random_range(0..kinds.len())]);
            match rng.random_range(0..10) {
                0..6 => {
                    let at = now + Duration::from_micros(1 << rng.random_range(0..12));
                    timers.set(peer, timer, at);
                    table.insert((peer, timer), at);
                }
                6..8 => {
                    timers.stop(peer, timer);
                    table.remove(&(peer, timer));
                }
                8 => {
                    timers.forget(peer);
                    table.retain(|(other, _), _| *other != peer);
                }
                _ => {
                    let first = table.iter().map(|((peer, timer), at)| (*at, *peer, *timer)).min();
                    let due = first.filter(|first| first.0 <= now).map(|(_, peer, timer)| (peer, timer));
                    assert_eq!(timers.pop(now), due);
                    due.and_then(|due| table.remove(&due));
                }
            }
            assert_eq!(timers.next(), table.values().min().copied());
            assert_eq!(timers.get(peer, timer), table.get(&(peer, timer)).copied());
            assert!(timers.heap.len() <= 2 * TIMERS * 14 + 1, "{} entries", timers.heap.len());
        }
    }
}
