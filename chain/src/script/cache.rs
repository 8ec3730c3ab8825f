//! Verdicts that need not be found twice: signatures that are valid, inputs that verify. Only what holds is
//! remembered. Knows no clock and draws no salt.

use bitcoin::Wtxid;
use bitcoin::hashes::Hash;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::flags::Flags;

/// A set of verdict keys, bounded in bytes; what does not fit pushes out something else. Shared by all threads.
pub struct VerdictCache {
    salted: Sha256,
    shards: Box<[Mutex<Box<[Bucket]>>]>,
}

/// Where a key may lie. All zero is an empty place.
type Bucket = [[u8; 32]; 8];

/// One lock each.
const SHARDS: usize = 64;

impl VerdictCache {
    /// A cache that holds at most `bytes`. The salt must be random and secret: keys then fall where nobody can foresee.
    pub fn new(bytes: usize, salt: [u8; 32]) -> VerdictCache {
        let buckets = (bytes / SHARDS / size_of::<Bucket>()).max(1);
        let shard = || Mutex::new(vec![[[0; 32]; 8]; buckets].into_boxed_slice());
        // A whole block of salt: hashed here once, not again for each key.
        let salted = Sha256::new_with_prefix(salt).chain_update([0; 32]);
        VerdictCache { salted, shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// The key of a signature of `kind` (a byte that tells ECDSA from Schnorr) with its message, public key and bytes.
    pub(super) fn signature_key(&self, kind: u8, [message, key, signature]: [&[u8]; 3]) -> [u8; 32] {
        // The message has 32 bytes; the key, which a script may give any length, is told from the signature by its own.
        // So no two checks share a key of the cache.
        let length = (key.len() as u32).to_le_bytes();
        let hasher = self.salted.clone().chain_update([kind]).chain_update(message).chain_update(length);
        hasher.chain_update(key).chain_update(signature).finalize().into()
    }

    /// The key of a transaction whose inputs all verify under exactly `flags`.
    pub fn transaction_key(&self, wtxid: &Wtxid, flags: Flags) -> [u8; 32] {
        let hasher = self.salted.clone().chain_update(b"T").chain_update(wtxid.as_byte_array());
        hasher.chain_update(flags.bits().to_le_bytes()).finalize().into()
    }

    /// Whether the verdict is remembered.
    pub fn contains(&self, key: &[u8; 32]) -> bool {
        let (shard, place) = self.find(key);
        let shard = shard.lock();
        let place = place % shard.len();
        shard[place].contains(key)
    }

    /// Remembers a verdict.
    pub fn insert(&self, key: &[u8; 32]) {
        let (shard, place) = self.find(key);
        let mut shard = shard.lock();
        let place = place % shard.len();
        let bucket = &mut shard[place];
        if !bucket.contains(key) {
            let empty = bucket.iter().position(|slot| *slot == [0; 32]);
            bucket[empty.unwrap_or(usize::from(key[9] & 7))] = *key;
        }
    }

    fn find(&self, key: &[u8; 32]) -> (&Mutex<Box<[Bucket]>>, usize) {
        let place = key[..8].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        (&self.shards[usize::from(key[8]) % SHARDS], place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_holds_for_its_flags_alone() {
        let cache = VerdictCache::new(1 << 20, [7; 32]);
        let wtxid = Wtxid::from_byte_array([1; 32]);
        let key = cache.transaction_key(&wtxid, Flags::MANDATORY);
        assert!(!cache.contains(&key));
        cache.insert(&key);
        assert!(cache.contains(&key));
        assert!(!cache.contains(&cache.transaction_key(&wtxid, Flags::STANDARD)));
    }

    #[test]
    fn bytes_that_move_from_the_key_to_the_signature_are_another_check() {
        let cache = VerdictCache::new(1 << 20, [7; 32]);
        let (message, bytes) = ([1; 32], [2; 105]);
        let at = |end: usize| cache.signature_key(b'E', [&message, &bytes[..end], &bytes[end..]]);
        assert_ne!(at(33), at(32), "a key that is cut short is no key");
        assert_ne!(at(33), at(65));
    }

    #[test]
    fn a_full_cache_stays_within_its_bytes_and_keeps_the_newest() {
        let cache = VerdictCache::new(SHARDS * size_of::<Bucket>(), [7; 32]);
        for number in 0..10_000_u32 {
            let key: [u8; 32] = Sha256::digest(number.to_le_bytes()).into();
            cache.insert(&key);
            assert!(cache.contains(&key), "{number}");
        }
        let held: usize = cache.shards.iter().map(|shard| shard.lock().len() * size_of::<Bucket>()).sum();
        assert_eq!(held, SHARDS * size_of::<Bucket>());
    }
}
