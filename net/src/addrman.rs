//! The peer book: addresses heard of (*new*) and addresses that answered (*tried*), each in buckets that a secret key
//! and the group of the address choose. Who controls few groups reaches few buckets, so nobody can fill the book.
//! Core: `addrman_impl.h`. Knows no link; the time is an argument, in seconds since 1970.

mod entry;
mod file;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::siphash24;
use hashbrown::HashTable;
use rand::{Rng, RngCore};

use crate::addr::{Host, NetAddr, Network};
use crate::message::AddrEntry;
use entry::Entry;
pub use file::BookError;
use table::{BUCKET_SIZE, Place, Table};

/// Buckets of new addresses. Core: `ADDRMAN_NEW_BUCKET_COUNT`.
const NEW_BUCKETS: u16 = 1024;
/// Buckets of tried addresses. Core: `ADDRMAN_TRIED_BUCKET_COUNT`.
const TRIED_BUCKETS: u16 = 256;
/// Buckets that one group of sources reaches. Core: `ADDRMAN_NEW_BUCKETS_PER_SOURCE_GROUP`.
const NEW_BUCKETS_PER_SOURCE_GROUP: u64 = 64;
/// Buckets that tried addresses of one group reach. Core: `ADDRMAN_TRIED_BUCKETS_PER_GROUP`.
const TRIED_BUCKETS_PER_GROUP: u64 = 8;
/// Places that one new address may have. Core: `ADDRMAN_NEW_BUCKETS_PER_ADDRESS`.
const NEW_BUCKETS_PER_ADDRESS: usize = 8;
/// Collisions in tried that wait for a test. Core: `ADDRMAN_SET_TRIED_COLLISION_SIZE`.
const TRIED_COLLISIONS: usize = 10;
/// Who answered within this keeps its place. Core: `ADDRMAN_REPLACEMENT`.
const REPLACEMENT: u32 = 4 * HOUR;
/// A collision must be tested within this. Core: `ADDRMAN_TEST_WINDOW`.
const TEST_WINDOW: u32 = 40 * MINUTE;

const MINUTE: u32 = 60;
const HOUR: u32 = 60 * MINUTE;
const DAY: u32 = 24 * HOUR;

/// A place of an address in the book. Core: `AddressPosition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shelved {
    /// In the tried table, not the new one.
    pub tried: bool,
    /// The bucket.
    pub bucket: u16,
    /// The place in it.
    pub place: u8,
    /// The address.
    pub entry: AddrEntry,
    /// Who told us.
    pub source: Host,
}

/// The addresses of peers.
#[derive(Debug)]
pub struct Book {
    key: (u64, u64),
    /// By number; numbers of addresses that went are used again.
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// The numbers by address.
    index: HashTable<u32>,
    new: Table,
    tried: Table,
    /// New and tried addresses of each network.
    counts: BTreeMap<Network, (usize, usize)>,
    /// New addresses that answered and whose place in tried is taken.
    collisions: BTreeSet<u32>,
    /// Failures before this count only once: perhaps we are offline ourselves.
    last_good: u32,
}

impl Book {
    /// An empty book with a key of its own.
    pub fn new(rng: &mut impl RngCore) -> Book {
        Book::with_key((rng.random(), rng.random()))
    }

    fn with_key(key: (u64, u64)) -> Book {
        Book {
            key,
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            new: Table::new(NEW_BUCKETS),
            tried: Table::new(TRIED_BUCKETS),
            counts: BTreeMap::new(),
            collisions: BTreeSet::new(),
            last_good: 1,
        }
    }

    /// Number of addresses.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it knows nobody.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Number of addresses that answered once.
    pub fn tried_len(&self) -> usize {
        self.counts.values().map(|count| count.1).sum()
    }

    /// Number of new and of tried addresses of a network.
    pub fn count(&self, network: Network) -> (usize, usize) {
        self.counts.get(&network).copied().unwrap_or_default()
    }

    /// Every place that is taken, the new ones first. An address may have several among them.
    pub fn shelves(&self) -> impl Iterator<Item = Shelved> {
        let tables = [(false, &self.new), (true, &self.tried)];
        tables.into_iter().flat_map(move |(tried, table)| {
            table.iter().map(move |((bucket, place), id)| {
                let entry = self.entry(id);
                Shelved { tried, bucket, place, entry: entry.shown(), source: entry.source }
            })
        })
    }

    fn entry(&self, id: u32) -> &Entry {
        self.entries[id as usize].as_ref().expect("tables and index name entries only")
    }

    fn entry_mut(&mut self, id: u32) -> &mut Entry {
        self.entries[id as usize].as_mut().expect("tables and index name entries only")
    }

    fn find(&self, addr: &NetAddr) -> Option<u32> {
        self.index.find(index_hash(self.key, addr), |id| self.entry(*id).addr == *addr).copied()
    }

    fn find_mut(&mut self, addr: &NetAddr) -> Option<&mut Entry> {
        self.find(addr).map(|id| self.entry_mut(id))
    }

    fn new_place(&self, addr: &NetAddr, source: &Host) -> Place {
        let from = source.group();
        let spread = hash(self.key, &[b"n", &addr.host.group(), &from]) % NEW_BUCKETS_PER_SOURCE_GROUP;
        let bucket = hash(self.key, &[b"N", &from, &spread.to_le_bytes()]) % u64::from(NEW_BUCKETS);
        self.place(b"pn", bucket as u16, addr)
    }

    fn tried_place(&self, addr: &NetAddr) -> Place {
        let port = addr.port.to_le_bytes();
        let spread = hash(self.key, &[b"t", addr.host.bytes(), &port]) % TRIED_BUCKETS_PER_GROUP;
        let bucket = hash(self.key, &[b"T", &addr.host.group(), &spread.to_le_bytes()]) % u64::from(TRIED_BUCKETS);
        self.place(b"pt", bucket as u16, addr)
    }

    fn place(&self, table: &[u8], bucket: u16, addr: &NetAddr) -> Place {
        let (number, network) = (bucket.to_le_bytes(), [addr.host.network() as u8]);
        let parts: [&[u8]; 5] = [table, &number, &network, addr.host.bytes(), &addr.port.to_le_bytes()];
        (bucket, (hash(self.key, &parts) % BUCKET_SIZE as u64) as u8)
    }

    /// Takes an address that `source` told us of, last seen `penalty` seconds earlier than it says. Whether it is new
    /// or has one more place. Core: `AddSingle`.
    pub fn add(&mut self, told: &AddrEntry, source: Host, penalty: u32, now: u32, rng: &mut impl Rng) -> bool {
        if !told.addr.host.is_routable() {
            return false;
        }
        let penalty = if told.addr.host == source { 0 } else { penalty };
        let time = told.time.saturating_sub(penalty);
        let id = match self.find(&told.addr) {
            Some(id) => {
                let entry = self.entry_mut(id);
                let online = now.saturating_sub(told.time) < DAY;
                let interval = if online { HOUR } else { DAY };
                let newer = told.time > entry.time;
                if entry.time < time.saturating_sub(interval) {
                    entry.time = time;
                }
                entry.services |= told.services;
                if !newer || entry.tried || usize::from(entry.places) >= NEW_BUCKETS_PER_ADDRESS {
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
                last_counted: 0,
                last_success: 0,
                attempts: 0,
                tried: false,
                places: 0,
                buckets: [0; NEW_BUCKETS_PER_ADDRESS],
            }),
        };
        self.put_new(id, &source, now)
    }

    /// Gives an entry its number. It counts as a new one.
    fn insert(&mut self, entry: Entry) -> u32 {
        let (key, addr) = (index_hash(self.key, &entry.addr), entry.addr);
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            (self.entries.len() - 1) as u32
        });
        self.entries[id as usize] = Some(entry);
        self.counts.entry(addr.host.network()).or_default().0 += 1;
        let (secret, entries) = (self.key, &self.entries);
        self.index.insert_unique(key, id, |id| {
            index_hash(secret, &entries[*id as usize].as_ref().expect("the index names entries only").addr)
        });
        id
    }

    /// Gives an entry its place among the new ones of `source`, if it is free or its holder is not worth it.
    fn put_new(&mut self, id: u32, source: &Host, now: u32) -> bool {
        let entry = self.entry(id);
        let at = self.new_place(&entry.addr, source);
        let free = self.new.get(at).is_none_or(|holder| {
            let other = self.entry(holder);
            holder != id && (other.is_terrible(now) || (other.places > 1 && entry.places == 0))
        });
        if free {
            self.clear_new(at);
            self.new.put(at, id);
            let entry = self.entry_mut(id);
            entry.buckets[usize::from(entry.places)] = at.0;
            entry.places += 1;
        } else if self.entry(id).places == 0 {
            self.remove(id);
        }
        free
    }

    /// Empties a place of the new table. Who had no other there goes, unless it is a tried one.
    fn clear_new(&mut self, at: Place) {
        let Some(id) = self.new.take(at) else { return };
        let entry = self.entry_mut(id);
        entry.places -= 1;
        let left = usize::from(entry.places);
        let gone = entry.buckets[..left].iter().position(|bucket| *bucket == at.0);
        // The last of them fills the gap.
        gone.into_iter().for_each(|gone| entry.buckets[gone] = entry.buckets[left]);
        if entry.places == 0 && !entry.tried {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u32) {
        let addr = self.entry(id).addr;
        if let Ok(found) = self.index.find_entry(index_hash(self.key, &addr), |other| *other == id) {
            found.remove();
        }
        self.entries[id as usize] = None;
        self.free.push(id);
        self.counts.entry(addr.host.network()).or_default().0 -= 1;
        self.collisions.remove(&id);
    }

    /// The address answered: it goes to the tried ones, or waits until the holder of its place is tested. Whether it
    /// went. Core: `Good_`.
    pub fn good(&mut self, addr: &NetAddr, now: u32) -> bool {
        self.set_good(addr, true, now)
    }

    fn set_good(&mut self, addr: &NetAddr, test_before_evict: bool, now: u32) -> bool {
        self.last_good = now;
        let Some(id) = self.find(addr) else { return false };
        let entry = self.entry_mut(id);
        (entry.last_success, entry.last_try, entry.attempts) = (now, now, 0);
        if entry.tried {
            return false;
        }
        let at = self.tried_place(addr);
        if self.tried.get(at).is_some() && test_before_evict {
            if self.collisions.len() < TRIED_COLLISIONS {
                self.collisions.insert(id);
            }
            return false;
        }
        self.set_tried(id, true);
        let entry = self.entry(id);
        let places: Vec<Place> =
            entry.buckets[..usize::from(entry.places)].iter().map(|bucket| self.place(b"pn", *bucket, addr)).collect();
        places.into_iter().for_each(|at| self.clear_new(at));
        if let Some(old) = self.tried.take(at) {
            // Who had the place goes back to the new ones, into its own place there.
            self.set_tried(old, false);
            let (addr, source) = (self.entry(old).addr, self.entry(old).source);
            let back = self.new_place(&addr, &source);
            self.clear_new(back);
            self.put_new(old, &source, now);
        }
        self.tried.put(at, id);
        self.collisions.remove(&id);
        true
    }

    /// Counts an entry with the tried ones or with the new ones.
    fn set_tried(&mut self, id: u32, tried: bool) {
        let entry = self.entry_mut(id);
        entry.tried = tried;
        let count = self.counts.entry(self.entry(id).addr.host.network()).or_default();
        *count = if tried { (count.0 - 1, count.1 + 1) } else { (count.0 + 1, count.1 - 1) };
    }

    /// We dialled the address. A failure counts only if some other peer answered since the last one: else we may be
    /// the ones who are offline.
    pub fn attempted(&mut self, addr: &NetAddr, count_failure: bool, now: u32) {
        let last_good = self.last_good;
        let Some(entry) = self.find_mut(addr) else { return };
        entry.last_try = now;
        if count_failure && entry.last_counted < last_good {
            entry.last_counted = now;
            entry.attempts = entry.attempts.saturating_add(1);
        }
    }

    /// A link with the address ended that was fine: it was alive until now. Core: `Connected_`.
    pub fn seen(&mut self, addr: &NetAddr, now: u32) {
        let Some(entry) = self.find_mut(addr) else { return };
        if now.saturating_sub(entry.time) > 20 * MINUTE {
            entry.time = now;
        }
    }

    /// What the address said that it offers.
    pub(crate) fn set_services(&mut self, addr: &NetAddr, services: u64) {
        self.find_mut(addr).into_iter().for_each(|entry| entry.services = services);
    }

    /// Draws an address of these networks to dial: new or tried by a coin, buckets alike. Gives when it was dialled
    /// last. Core: `Select_`.
    pub fn select(
        &self,
        new_only: bool,
        networks: &BTreeSet<Network>,
        now: u32,
        rng: &mut impl Rng,
    ) -> Option<(AddrEntry, u32)> {
        let counts = networks.iter().map(|network| self.count(*network));
        let (new, tried) = counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        let tried = match (new == 0, tried == 0 || new_only) {
            (true, true) => return None,
            (true, false) => true,
            (false, true) => false,
            (false, false) => rng.random(),
        };
        let table = if tried { &self.tried } else { &self.new };
        let mut factor = 1000u64;
        loop {
            let mut drawn = table.draw(rng).map(|id| self.entry(id));
            let fit = drawn.find(|entry| networks.contains(&entry.addr.host.network()));
            drop(drawn);
            let Some(entry) = fit else { continue };
            if rng.random_range(0..1_000_000_000) < entry.chance(now).saturating_mul(factor) {
                return Some((entry.shown(), entry.last_try));
            }
            factor = factor.saturating_mul(12) / 10;
        }
    }

    /// An address whose place in tried another one wants: dial it to see whether it is still there.
    pub(crate) fn select_collision(&self, rng: &mut impl Rng) -> Option<(AddrEntry, u32)> {
        let id = self.collisions.iter().nth(rng.random_range(0..self.collisions.len().max(1)))?;
        let holder = self.entry(self.tried.get(self.tried_place(&self.entry(*id).addr))?);
        Some((holder.shown(), holder.last_try))
    }

    /// Decides the collisions whose test is over. Core: `ResolveCollisions_`.
    pub(crate) fn resolve_collisions(&mut self, now: u32) {
        for id in self.collisions.clone() {
            // Making room for one before it may have cost it its place, and so its entry.
            if !self.collisions.contains(&id) {
                continue;
            }
            let (addr, answered) = (self.entry(id).addr, self.entry(id).last_success);
            let holder = self.tried.get(self.tried_place(&addr)).map(|id| self.entry(id));
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
                Some(true) => drop(self.set_good(&addr, false, now)),
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
        now: u32,
        rng: &mut impl Rng,
    ) -> Vec<AddrEntry> {
        let most = most.min(self.len() * percent / 100);
        let mut ids: Vec<u32> = (0..self.entries.len() as u32).collect();
        let mut sample = Vec::with_capacity(most);
        for next in 0..ids.len() {
            if sample.len() == most {
                break;
            }
            ids.swap(next, rng.random_range(next..self.entries.len()));
            let Some(entry) = &self.entries[ids[next] as usize] else { continue };
            if !entry.is_terrible(now) && network.is_none_or(|network| entry.addr.host.network() == network) {
                sample.push(entry.shown());
            }
        }
        sample
    }
}

fn index_hash(key: (u64, u64), addr: &NetAddr) -> u64 {
    hash(key, &[b"i", &[addr.host.network() as u8], addr.host.bytes(), &addr.port.to_le_bytes()])
}

/// A hash that nobody without the key can foresee.
fn hash(key: (u64, u64), parts: &[&[u8]]) -> u64 {
    // Each part with its length: no two lists of parts give the same bytes. They are short: a group, a host, a number.
    let (mut bytes, mut length) = ([0u8; 128], 0);
    for part in parts {
        bytes[length] = part.len() as u8;
        bytes[length + 1..][..part.len()].copy_from_slice(part);
        length += 1 + part.len();
    }
    siphash24::Hash::hash_to_u64_with_keys(key.0, key.1, &bytes[..length])
}
