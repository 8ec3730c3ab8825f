//! The peer book: addresses heard of (*new*) and addresses that answered (*tried*), each in buckets that a secret key
//! and the group of the address choose. Who controls few groups reaches few buckets, so nobody can fill the book.
//! Core: `addrman_impl.h`. Knows no link; the time is an argument.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bincode::Options;
use bitcoin::hashes::siphash24;
use rand::seq::SliceRandom;
use rand::{Rng, RngCore};
use serde::{Deserialize, Serialize};

use crate::addr::{Host, NetAddr, Network};
use crate::message::AddrEntry;

/// Buckets of new addresses. Core: `ADDRMAN_NEW_BUCKET_COUNT`.
const NEW_BUCKETS: u64 = 1024;
/// Buckets of tried addresses. Core: `ADDRMAN_TRIED_BUCKET_COUNT`.
const TRIED_BUCKETS: u64 = 256;
/// Places in a bucket. Core: `ADDRMAN_BUCKET_SIZE`.
const BUCKET_SIZE: u64 = 64;
/// Buckets that one group of sources reaches. Core: `ADDRMAN_NEW_BUCKETS_PER_SOURCE_GROUP`.
const NEW_BUCKETS_PER_SOURCE_GROUP: u64 = 64;
/// Buckets that tried addresses of one group reach. Core: `ADDRMAN_TRIED_BUCKETS_PER_GROUP`.
const TRIED_BUCKETS_PER_GROUP: u64 = 8;
/// Places that one new address may have. Core: `ADDRMAN_NEW_BUCKETS_PER_ADDRESS`.
const NEW_BUCKETS_PER_ADDRESS: u32 = 8;
/// Collisions in tried that wait for a test. Core: `ADDRMAN_SET_TRIED_COLLISION_SIZE`.
const TRIED_COLLISIONS: usize = 10;
/// Not seen for this long, an address is useless. Core: `ADDRMAN_HORIZON`.
const HORIZON: u64 = 30 * DAY;
/// So many failures without a success make it useless. Core: `ADDRMAN_RETRIES`.
const RETRIES: u32 = 3;
/// So many failures since the last success do, if that was `MIN_FAIL` ago. Core: `ADDRMAN_MAX_FAILURES`.
const MAX_FAILURES: u32 = 10;
/// Core: `ADDRMAN_MIN_FAIL`.
const MIN_FAIL: u64 = 7 * DAY;
/// Who answered within this keeps its place. Core: `ADDRMAN_REPLACEMENT`.
const REPLACEMENT: u64 = 4 * HOUR;
/// A collision must be tested within this. Core: `ADDRMAN_TEST_WINDOW`.
const TEST_WINDOW: u64 = 40 * MINUTE;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Version of [`Book::to_bytes`].
const FORMAT: u8 = 1;
/// Longest file that is read.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// What is known of an address. Times are in seconds since 1970; 0 is never.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    addr: NetAddr,
    services: u64,
    /// Last seen alive, by whomever.
    time: u64,
    /// Who told us.
    source: Host,
    last_try: u64,
    last_success: u64,
    /// Failures since the last success.
    attempts: u32,
    tried: bool,
    /// Places in the new table.
    #[serde(skip)]
    places: u32,
}

impl Entry {
    /// Whether it is not worth its place. Core: `IsTerrible`.
    fn is_terrible(&self, now: u64) -> bool {
        if now.saturating_sub(self.last_try) <= MINUTE && self.last_try > 0 {
            return false;
        }
        let from_the_future = self.time > now + 10 * MINUTE;
        let forgotten = now.saturating_sub(self.time) > HORIZON;
        let never = self.last_success == 0 && self.attempts >= RETRIES;
        let no_more = now.saturating_sub(self.last_success) > MIN_FAIL && self.attempts >= MAX_FAILURES;
        from_the_future || forgotten || never || no_more
    }

    /// How likely it is taken when drawn, in millionths. Core: `GetChance`.
    fn chance(&self, now: u64) -> u64 {
        let start = if now.saturating_sub(self.last_try) < 10 * MINUTE { 10_000 } else { 1_000_000 };
        (0..self.attempts.min(8)).fold(start, |chance, _| chance * 66 / 100)
    }
}

type Table = BTreeMap<u64, BTreeMap<u64, u64>>;

/// The book is no book.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// Written by a later version.
    #[error("the peer book has format {0}, this program reads {FORMAT}; remove the file to begin a new one")]
    Format(u8),
    /// Damaged.
    #[error("the peer book is damaged ({0}); remove the file to begin a new one")]
    Damaged(#[from] bincode::Error),
}

/// The addresses of peers.
#[derive(Debug)]
pub struct Book {
    key: (u64, u64),
    entries: BTreeMap<u64, Entry>,
    by_addr: BTreeMap<NetAddr, u64>,
    next: u64,
    /// Bucket -> place -> entry.
    new: Table,
    tried: Table,
    /// New addresses that answered and whose place in tried is taken.
    collisions: BTreeSet<u64>,
    /// Successes before this count no failures: perhaps we are offline ourselves.
    last_good: u64,
}

impl Book {
    /// An empty book with a key of its own.
    pub fn new(rng: &mut impl RngCore) -> Book {
        Book::with_key((rng.random(), rng.random()))
    }

    fn with_key(key: (u64, u64)) -> Book {
        Book {
            key,
            entries: BTreeMap::new(),
            by_addr: BTreeMap::new(),
            next: 0,
            new: Table::new(),
            tried: Table::new(),
            collisions: BTreeSet::new(),
            last_good: 1,
        }
    }

    /// Number of addresses.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows nobody.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of addresses that answered once.
    pub fn tried_len(&self) -> usize {
        self.entries.values().filter(|entry| entry.tried).count()
    }

    fn hash(&self, parts: &[&[u8]]) -> u64 {
        // Each part with its length: no two lists of parts give the same bytes.
        let bytes: Vec<u8> = parts.iter().flat_map(|part| [&[part.len() as u8], *part].concat()).collect();
        siphash24::Hash::hash_to_u64_with_keys(self.key.0, self.key.1, &bytes)
    }

    fn new_place(&self, addr: &NetAddr, source: &Host) -> (u64, u64) {
        let from = source.group();
        let spread = self.hash(&[b"n", &addr.host.group(), &from]) % NEW_BUCKETS_PER_SOURCE_GROUP;
        let bucket = self.hash(&[b"N", &from, &spread.to_le_bytes()]) % NEW_BUCKETS;
        (bucket, self.place(b"pn", bucket, addr))
    }

    fn tried_place(&self, addr: &NetAddr) -> (u64, u64) {
        let port = addr.port.to_le_bytes();
        let spread = self.hash(&[b"t", addr.host.bytes(), &port]) % TRIED_BUCKETS_PER_GROUP;
        let bucket = self.hash(&[b"T", &addr.host.group(), &spread.to_le_bytes()]) % TRIED_BUCKETS;
        (bucket, self.place(b"pt", bucket, addr))
    }

    fn place(&self, table: &[u8], bucket: u64, addr: &NetAddr) -> u64 {
        let network = [addr.host.network() as u8];
        self.hash(&[table, &bucket.to_le_bytes(), &network, addr.host.bytes(), &addr.port.to_le_bytes()]) % BUCKET_SIZE
    }

    /// Takes an address that `source` told us of, last seen `penalty` seconds earlier than it says. Whether it is new
    /// or has one more place. Core: `AddSingle`.
    pub fn add(&mut self, told: &AddrEntry, source: Host, penalty: u64, now: u64, rng: &mut impl Rng) -> bool {
        if !told.addr.host.is_routable() {
            return false;
        }
        let penalty = if told.addr.host == source { 0 } else { penalty };
        let time = u64::from(told.time).saturating_sub(penalty);
        let id = match self.by_addr.get(&told.addr).copied() {
            Some(id) => {
                let entry = self.entries.get_mut(&id).expect("indexed");
                let online = now.saturating_sub(u64::from(told.time)) < DAY;
                let interval = if online { HOUR } else { DAY };
                let newer = u64::from(told.time) > entry.time;
                if entry.time < time.saturating_sub(interval) {
                    entry.time = time;
                }
                entry.services |= told.services;
                if !newer || entry.tried || entry.places >= NEW_BUCKETS_PER_ADDRESS {
                    return false;
                }
                // Each further place is half as likely as the one before.
                if entry.places > 0 && rng.random_range(0..1u32 << entry.places) != 0 {
                    return false;
                }
                id
            }
            None => self.insert(Entry {
                addr: told.addr,
                services: told.services,
                time,
                source,
                last_try: 0,
                last_success: 0,
                attempts: 0,
                tried: false,
                places: 0,
            }),
        };
        self.put_new(id, &source, now)
    }

    fn insert(&mut self, entry: Entry) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_addr.insert(entry.addr, id);
        self.entries.insert(id, entry);
        id
    }

    /// Gives an entry its place among the new ones of `source`, if it is free or its holder is not worth it.
    fn put_new(&mut self, id: u64, source: &Host, now: u64) -> bool {
        let entry = &self.entries[&id];
        let (bucket, place) = self.new_place(&entry.addr, source);
        let holder = self.new.get(&bucket).and_then(|bucket| bucket.get(&place)).copied();
        let free = holder.is_none_or(|holder| {
            let other = &self.entries[&holder];
            holder != id && (other.is_terrible(now) || (other.places > 1 && entry.places == 0))
        });
        if free {
            self.clear_new(bucket, place);
            self.new.entry(bucket).or_default().insert(place, id);
            self.entries.get_mut(&id).expect("just read").places += 1;
        } else if self.entries[&id].places == 0 {
            self.remove(id);
        }
        free
    }

    fn clear_new(&mut self, bucket: u64, place: u64) {
        let Some(id) = take(&mut self.new, bucket, place) else { return };
        let entry = self.entries.get_mut(&id).expect("tables name entries only");
        entry.places -= 1;
        if entry.places == 0 && !entry.tried {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(entry) = self.entries.remove(&id) {
            self.by_addr.remove(&entry.addr);
        }
        self.collisions.remove(&id);
    }

    /// The address answered: it goes to the tried ones, or waits until the holder of its place is tested. Core: `Good_`.
    pub fn good(&mut self, addr: &NetAddr, now: u64) {
        self.set_good(addr, true, now);
    }

    fn set_good(&mut self, addr: &NetAddr, test_before_evict: bool, now: u64) {
        self.last_good = now;
        let Some(id) = self.by_addr.get(addr).copied() else { return };
        let entry = self.entries.get_mut(&id).expect("indexed");
        (entry.last_success, entry.last_try, entry.attempts) = (now, now, 0);
        if entry.tried {
            return;
        }
        let (bucket, place) = self.tried_place(addr);
        let taken = self.tried.get(&bucket).is_some_and(|bucket| bucket.contains_key(&place));
        if taken && test_before_evict {
            if self.collisions.len() < TRIED_COLLISIONS {
                self.collisions.insert(id);
            }
            return;
        }
        self.entries.get_mut(&id).expect("indexed").tried = true;
        let places: Vec<(u64, u64)> = self
            .new
            .iter()
            .flat_map(|(bucket, places)| places.iter().map(move |(place, holder)| (*bucket, *place, *holder)))
            .filter(|(_, _, holder)| *holder == id)
            .map(|(bucket, place, _)| (bucket, place))
            .collect();
        places.into_iter().for_each(|(bucket, place)| self.clear_new(bucket, place));
        if let Some(old) = take(&mut self.tried, bucket, place) {
            // Who had the place goes back to the new ones, into its own place there.
            let entry = self.entries.get_mut(&old).expect("tables name entries only");
            entry.tried = false;
            let (addr, source) = (entry.addr, entry.source);
            let (bucket, place) = self.new_place(&addr, &source);
            self.clear_new(bucket, place);
            self.put_new(old, &source, now);
        }
        self.tried.entry(bucket).or_default().insert(place, id);
        self.collisions.remove(&id);
    }

    /// We dialled the address. A failure counts only if some other peer answered since the last one: else we may be
    /// the ones who are offline.
    pub fn attempted(&mut self, addr: &NetAddr, failed: bool, now: u64) {
        let last_good = self.last_good;
        let Some(entry) = self.by_addr.get(addr).and_then(|id| self.entries.get_mut(id)) else { return };
        if failed && entry.last_try < last_good {
            entry.attempts += 1;
        }
        entry.last_try = now;
    }

    /// A link with the address ended that was fine: it was alive until now.
    pub fn seen(&mut self, addr: &NetAddr, now: u64) {
        let Some(entry) = self.by_addr.get(addr).and_then(|id| self.entries.get_mut(id)) else { return };
        if now.saturating_sub(entry.time) > 20 * MINUTE {
            entry.time = now;
        }
    }

    /// What the address said that it offers.
    pub fn set_services(&mut self, addr: &NetAddr, services: u64) {
        let entry = self.by_addr.get(addr).and_then(|id| self.entries.get_mut(id));
        entry.into_iter().for_each(|entry| entry.services = services);
    }

    /// Draws an address to dial: new or tried by a coin, buckets alike. Gives when it was dialled last. Core: `Select_`.
    pub fn select(&self, new_only: bool, now: u64, rng: &mut impl Rng) -> Option<(AddrEntry, u64)> {
        let tried = match (self.new.is_empty(), self.tried.is_empty() || new_only) {
            (true, true) => return None,
            (true, false) => true,
            (false, true) => false,
            (false, false) => rng.random(),
        };
        let table = if tried { &self.tried } else { &self.new };
        let buckets: Vec<&BTreeMap<u64, u64>> = table.values().collect();
        let mut factor = 1000u64;
        loop {
            let bucket = buckets[rng.random_range(0..buckets.len())];
            let start = rng.random_range(0..BUCKET_SIZE);
            let (_, id) = bucket.range(start..).next().or_else(|| bucket.first_key_value())?;
            let entry = &self.entries[id];
            if rng.random_range(0..1_000_000_000) < entry.chance(now).saturating_mul(factor) {
                return Some((shown(entry), entry.last_try));
            }
            factor = factor.saturating_mul(12) / 10;
        }
    }

    /// An address whose place in tried another one wants: dial it to see whether it is still there.
    pub fn select_collision(&mut self, rng: &mut impl Rng) -> Option<(AddrEntry, u64)> {
        let waiting: Vec<u64> = self.collisions.iter().copied().collect();
        let id = waiting.get(rng.random_range(0..waiting.len().max(1)))?;
        let (bucket, place) = self.tried_place(&self.entries[id].addr);
        let holder = self.tried.get(&bucket)?.get(&place)?;
        let entry = &self.entries[holder];
        Some((shown(entry), entry.last_try))
    }

    /// Decides the collisions whose test is over. Core: `ResolveCollisions_`.
    pub fn resolve_collisions(&mut self, now: u64) {
        for id in self.collisions.clone() {
            let (addr, answered) = (self.entries[&id].addr, self.entries[&id].last_success);
            let (bucket, place) = self.tried_place(&addr);
            let holder = self.tried.get(&bucket).and_then(|bucket| bucket.get(&place)).map(|id| &self.entries[id]);
            let replace = match holder {
                None => Some(true),
                Some(old) if now.saturating_sub(old.last_success) < REPLACEMENT => Some(false),
                // It was dialled and did not answer.
                Some(old) if now.saturating_sub(old.last_try) < REPLACEMENT => {
                    (now.saturating_sub(old.last_try) > MINUTE).then_some(true)
                }
                Some(_) => (now.saturating_sub(answered) > TEST_WINDOW).then_some(true),
            };
            match replace {
                Some(true) => self.set_good(&addr, false, now),
                Some(false) => {}
                None => continue,
            }
            self.collisions.remove(&id);
        }
    }

    /// Some addresses for a peer that asks: at most `most`, and at most `percent` of the book. Core: `GetAddr_`.
    pub fn sample(
        &self,
        most: usize,
        percent: usize,
        network: Option<Network>,
        now: u64,
        rng: &mut impl Rng,
    ) -> Vec<AddrEntry> {
        let most = most.min(self.len() * percent / 100);
        let mut all: Vec<&Entry> = self.entries.values().collect();
        all.shuffle(rng);
        let fit = |entry: &&&Entry| {
            !entry.is_terrible(now) && network.is_none_or(|network| entry.addr.host.network() == network)
        };
        all.iter().filter(fit).take(most).map(|entry| shown(entry)).collect()
    }

    /// The book as bytes for a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries: Vec<&Entry> = self.entries.values().collect();
        coding().serialize(&(FORMAT, self.key, entries)).expect("a book within its bounds can be written")
    }

    /// Reads what [`Book::to_bytes`] wrote. New addresses keep one of their places.
    pub fn from_bytes(bytes: &[u8], now: u64) -> Result<Book, BookError> {
        match bytes.first() {
            Some(&FORMAT) | None => {}
            Some(&other) => return Err(BookError::Format(other)),
        }
        let (_, key, entries): (u8, (u64, u64), Vec<Entry>) = coding().deserialize(bytes)?;
        let mut book = Book::with_key(key);
        for mut entry in entries {
            let tried = std::mem::take(&mut entry.tried);
            let (addr, source) = (entry.addr, entry.source);
            if book.by_addr.contains_key(&addr) || !addr.host.is_routable() {
                continue;
            }
            let id = book.insert(entry);
            let (bucket, place) = book.tried_place(&addr);
            let free = !book.tried.get(&bucket).is_some_and(|bucket| bucket.contains_key(&place));
            if tried && free {
                book.tried.entry(bucket).or_default().insert(place, id);
                book.entries.get_mut(&id).expect("just put").tried = true;
            } else {
                book.put_new(id, &source, now);
            }
        }
        Ok(book)
    }
}

fn coding() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(MAX_BYTES)
}

fn shown(entry: &Entry) -> AddrEntry {
    let time = u32::try_from(entry.time).unwrap_or(u32::MAX);
    AddrEntry { time, services: entry.services, addr: entry.addr }
}

/// Takes what a place holds; empty buckets go.
fn take(table: &mut Table, bucket: u64, place: u64) -> Option<u64> {
    let places = table.get_mut(&bucket)?;
    let taken = places.remove(&place);
    if places.is_empty() {
        table.remove(&bucket);
    }
    taken
}
