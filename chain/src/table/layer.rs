//! One layer of the coin table: an index of small entries over two slabs. Knows nothing of layers above or beneath
//! but the `fresh` flag.
//!
//! A hash table of whole coins would stand a third empty, at 88 bytes a slot, and copy them all when it grows. Here the
//! index holds 8 bytes an entry (hash bits and a slab number, so that growing never touches a coin), split in shards by
//! the first byte of the key: no shard's growth is a pause, and the shards are in key order for the flush.

use super::Found;
use crate::coins::Coin;
use bitcoin::{OutPoint, hashes::Hash};
use hashbrown::{HashTable, hash_table::Entry as Slot};
use std::hash::BuildHasher;

/// Parts of the index: one for each value of the first byte of the key.
pub(super) const SHARDS: usize = 256;

/// A coin with its key. `fresh`: nothing beneath this layer is unspent there.
struct Keyed {
    key: OutPoint,
    fresh: bool,
    coin: Coin,
}

const _: () = assert!(size_of::<Keyed>() == 88);

/// Where an entry lies: a number in the slab of coins or, with the top bit, in that of tombstones.
#[derive(Clone, Copy)]
pub(super) struct At(u32);

impl At {
    const TOMBSTONE: u32 = 1 << 31;

    fn tombstone(number: u32) -> At {
        At(number | At::TOMBSTONE)
    }

    fn is_tombstone(self) -> bool {
        self.0 & At::TOMBSTONE != 0
    }

    fn number(self) -> u32 {
        self.0 & !At::TOMBSTONE
    }
}

/// An entry of the index. The hash bits stand here so that neither growth nor a miss touches a slab.
#[derive(Clone, Copy)]
struct Indexed {
    tag: u32,
    at: At,
}

/// The hash that hashbrown wants: it takes the place from the low bits and a check from the top seven.
fn spread(tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(tag)
}

pub(super) struct Layer {
    shards: Box<[HashTable<Indexed>]>,
    coins: Slab<Keyed>,
    tombstones: Slab<OutPoint>,
    entries: usize,
    script_bytes: usize,
}

impl Layer {
    pub(super) fn new() -> Layer {
        let shards = (0..SHARDS).map(|_| HashTable::new()).collect();
        Layer { shards, coins: Slab::new(), tombstones: Slab::new(), entries: 0, script_bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    pub(super) fn memory(&self) -> usize {
        let index: usize = self.shards.iter().map(HashTable::allocation_size).sum();
        index + self.coins.memory() + self.tombstones.memory() + self.script_bytes
    }

    pub(super) fn get(&self, tag: u32, key: &OutPoint) -> Found<'_> {
        let found = self.shards[shard(key)]
            .find(spread(tag), |entry| entry.tag == tag && holds(&self.coins, &self.tombstones, entry.at, key));
        match found {
            None => Found::Unknown,
            Some(entry) if entry.at.is_tombstone() => Found::Spent,
            Some(entry) => Found::Coin(&self.coins.get(entry.at.number()).coin),
        }
    }

    /// Takes out a coin that stands in this layer, leaving a tombstone unless it was fresh. `None`: nothing is known
    /// here; `Some(None)`: it is spent already.
    pub(super) fn spend(&mut self, tag: u32, key: &OutPoint) -> Option<Option<Coin>> {
        let Layer { shards, coins, tombstones, entries, script_bytes } = self;
        let mut entry = shards[shard(key)]
            .find_entry(spread(tag), |entry| entry.tag == tag && holds(coins, tombstones, entry.at, key))
            .ok()?;
        let at = entry.get().at;
        if at.is_tombstone() {
            return Some(None);
        }
        let held = coins.get_mut(at.number());
        let fresh = held.fresh;
        let coin = std::mem::replace(&mut held.coin, Coin::from_parts(0, &[], 0, false));
        *script_bytes -= coin.heap_bytes();
        coins.free(at.number());
        if fresh {
            entry.remove();
            *entries -= 1;
        } else {
            entry.get_mut().at = At::tombstone(tombstones.insert(*key));
        }
        Some(Some(coin))
    }

    /// Adds a tombstone for a key of which nothing is known here.
    pub(super) fn bury(&mut self, tag: u32, key: &OutPoint) {
        let at = At::tombstone(self.tombstones.insert(*key));
        self.shards[shard(key)].insert_unique(spread(tag), Indexed { tag, at }, |entry| spread(entry.tag));
        self.entries += 1;
    }

    /// Puts a coin in place of whatever stands at `key`. It is fresh if the coin it replaces was, or with
    /// `fresh_if_new` where nothing is known here.
    pub(super) fn put(&mut self, tag: u32, key: OutPoint, coin: Coin, fresh_if_new: bool) {
        let Layer { shards, coins, tombstones, entries, script_bytes } = self;
        *script_bytes += coin.heap_bytes();
        let slot = shards[shard(&key)].entry(
            spread(tag),
            |entry| entry.tag == tag && holds(coins, tombstones, entry.at, &key),
            |entry| spread(entry.tag),
        );
        match slot {
            Slot::Vacant(vacant) => {
                let at = At(coins.insert(Keyed { key, fresh: fresh_if_new, coin }));
                vacant.insert(Indexed { tag, at });
                *entries += 1;
            }
            Slot::Occupied(mut occupied) if occupied.get().at.is_tombstone() => {
                tombstones.free(occupied.get().at.number());
                occupied.get_mut().at = At(coins.insert(Keyed { key, fresh: false, coin }));
            }
            Slot::Occupied(occupied) => {
                let held = coins.get_mut(occupied.get().at.number());
                *script_bytes -= held.coin.heap_bytes();
                held.coin = coin;
            }
        }
    }

    /// The entries of one shard in key order.
    pub(super) fn sorted(&self, shard: usize) -> impl Iterator<Item = At> + use<> {
        let mut order: Vec<(u64, At)> = self.shards[shard]
            .iter()
            .map(|entry| (u64::from_be_bytes(word(key(&self.coins, &self.tombstones, entry.at), 0)), entry.at))
            .collect();
        // Eight bytes nearly always decide; outputs of one transaction share them.
        order.sort_unstable_by(|(a, a_at), (b, b_at)| {
            a.cmp(b)
                .then_with(|| key(&self.coins, &self.tombstones, *a_at).cmp(key(&self.coins, &self.tombstones, *b_at)))
        });
        order.into_iter().map(|(_, at)| at)
    }

    /// The key at `at`, and the coin unless it is a tombstone.
    pub(super) fn entry(&self, at: At) -> (&OutPoint, Option<&Coin>) {
        if at.is_tombstone() {
            return (self.tombstones.get(at.number()), None);
        }
        let held = self.coins.get(at.number());
        (&held.key, Some(&held.coin))
    }
}

fn shard(key: &OutPoint) -> usize {
    usize::from(key.txid.as_byte_array()[0])
}

fn key<'a>(coins: &'a Slab<Keyed>, tombstones: &'a Slab<OutPoint>, at: At) -> &'a OutPoint {
    if at.is_tombstone() { tombstones.get(at.number()) } else { &coins.get(at.number()).key }
}

fn holds(coins: &Slab<Keyed>, tombstones: &Slab<OutPoint>, at: At, wanted: &OutPoint) -> bool {
    key(coins, tombstones, at) == wanted
}

/// Eight bytes of the key's txid.
fn word(key: &OutPoint, at: usize) -> [u8; 8] {
    key.txid.as_byte_array()[at..at + 8].try_into().expect("a slice of eight bytes")
}

/// Items by number in chunks that never move once there are two of them: growth copies nothing.
struct Slab<T> {
    chunks: Vec<Vec<T>>,
    free: Vec<u32>,
}

/// Items in a chunk: 1.4 MiB of coins.
const CHUNK: usize = 1 << 14;

impl<T> Slab<T> {
    fn new() -> Slab<T> {
        Slab { chunks: Vec::new(), free: Vec::new() }
    }

    fn get(&self, number: u32) -> &T {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    fn get_mut(&mut self, number: u32) -> &mut T {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    fn insert(&mut self, item: T) -> u32 {
        if let Some(number) = self.free.pop() {
            *self.get_mut(number) = item;
            return number;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            // The first chunk grows as a vector does, so that a small table is small.
            self.chunks.push(if self.chunks.is_empty() { Vec::new() } else { Vec::with_capacity(CHUNK) });
        }
        let chunk = self.chunks.len() - 1;
        let items = &mut self.chunks[chunk];
        items.push(item);
        let number = chunk * CHUNK + items.len() - 1;
        u32::try_from(number)
            .ok()
            .filter(|number| number & At::TOMBSTONE == 0)
            .expect("2^31 coins do not fit in memory")
    }

    /// Gives a number back; the item stays until the number is used again.
    fn free(&mut self, number: u32) {
        self.free.push(number);
    }

    fn memory(&self) -> usize {
        let first = self.chunks.first().map_or(0, Vec::capacity);
        let items = first + self.chunks.len().saturating_sub(1) * CHUNK;
        items * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }
}

/// A keyed hash of an outpoint. Txids are hashes already, but their makers can search for ones that collide under any
/// hash they know; they do not know the key.
pub(super) struct Hasher([u64; 3]);

impl Hasher {
    pub(super) fn random() -> Hasher {
        let source = std::hash::RandomState::new();
        Hasher([0, 1, 2].map(|part: u64| source.hash_one(part)))
    }

    /// The same keys for the same seed.
    #[cfg(test)]
    pub(super) fn seeded(seed: u64) -> Hasher {
        // Three odd constants with no pattern (the golden ratio and two primes of xxHash) tell the parts apart.
        Hasher(
            [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9]
                .map(|part: u64| fold(seed, part) ^ part),
        )
    }

    /// 32 hash bits of `key`.
    pub(super) fn tag(&self, key: &OutPoint) -> u32 {
        let [a, b, c] = self.0;
        let first = u64::from_le_bytes(word(key, 8)) ^ a;
        let second = u64::from_le_bytes(word(key, 16)) ^ b;
        let mixed = fold(fold(first, second) ^ u64::from(key.vout), c | 1);
        (mixed >> 32 ^ mixed) as u32
    }
}

/// Both halves of the product, one over the other: every bit of both factors reaches every bit.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}
