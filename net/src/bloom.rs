//! Bloom filters that light clients load ([BIP-0037]): which transactions a filter matches, and how it grows by what it
//! matched. Knows no peer.
//!
//! [BIP-0037]: https://github.com/bitcoin/bips/blob/master/bip-0037.mediawiki

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::script::Instruction;
use bitcoin::{OutPoint, Script, Transaction};

/// Most bytes of a filter. Core's name and value.
pub const MAX_BLOOM_FILTER_SIZE: usize = 36_000;
/// Most hash functions of a filter. Core's name and value.
pub const MAX_HASH_FUNCS: u32 = 50;
/// Add the outputs that match. Core's name and value.
pub const BLOOM_UPDATE_ALL: u8 = 1;
/// Add the outputs that match and are a bare key or a bare multisignature. Core's name and value.
pub const BLOOM_UPDATE_P2PUBKEY_ONLY: u8 = 2;
/// The bits of the flags that say what is added. Core's name and value.
const BLOOM_UPDATE_MASK: u8 = 3;

/// A filter, as `filterload` carries it. Core: `CBloomFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BloomFilter {
    /// The bits.
    pub data: Vec<u8>,
    /// Number of hash functions.
    pub hash_funcs: u32,
    /// Makes the hashes those of this filter.
    pub tweak: u32,
    /// What is added to it, in two bits.
    pub flags: u8,
}

impl BloomFilter {
    /// Whether it may be as large as it is.
    pub fn is_within_size_constraints(&self) -> bool {
        self.data.len() <= MAX_BLOOM_FILTER_SIZE && self.hash_funcs <= MAX_HASH_FUNCS
    }

    fn bits<'a>(&'a self, element: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        (0..self.hash_funcs).map(move |number| {
            let seed = number.wrapping_mul(0xfba4_c795).wrapping_add(self.tweak);
            murmur3(seed, element) as usize % (self.data.len() * 8)
        })
    }

    /// Adds an element. Nothing can be added to a filter without bits (CVE-2013-5700).
    pub fn insert(&mut self, element: &[u8]) {
        if !self.data.is_empty() {
            let bits: Vec<usize> = self.bits(element).collect();
            bits.into_iter().for_each(|bit| self.data[bit / 8] |= 1 << (bit % 8));
        }
    }

    /// Whether an element was added, or chance says so. A filter without bits has everything.
    pub fn contains(&self, element: &[u8]) -> bool {
        self.data.is_empty() || self.bits(element).all(|bit| self.data[bit / 8] >> (bit % 8) & 1 == 1)
    }

    /// Whether a transaction is of interest: by its id, by what its scripts push, by what it spends. Outputs that match
    /// are added as the flags say, so that what spends them matches too. Core: `IsRelevantAndUpdate`.
    pub fn matches(&mut self, tx: &Transaction) -> bool {
        if self.data.is_empty() {
            return true;
        }
        let txid = tx.compute_txid();
        let mut found = self.contains(txid.as_byte_array());
        for (vout, output) in (0..).zip(&tx.output) {
            if !self.has_push_of(&output.script_pubkey) {
                continue;
            }
            found = true;
            let add = match self.flags & BLOOM_UPDATE_MASK {
                BLOOM_UPDATE_ALL => true,
                BLOOM_UPDATE_P2PUBKEY_ONLY => is_pubkey(&output.script_pubkey) || is_multisig(&output.script_pubkey),
                _ => false,
            };
            if add {
                self.insert(&serialize(&OutPoint { txid, vout }));
            }
        }
        let spends = |input: &bitcoin::TxIn| {
            self.contains(&serialize(&input.previous_output)) || self.has_push_of(&input.script_sig)
        };
        found || tx.input.iter().any(spends)
    }

    /// Whether the script pushes an element, as far as it can be read.
    fn has_push_of(&self, script: &Script) -> bool {
        let pushes = script.instructions().map_while(Result::ok).filter_map(|instruction| match instruction {
            Instruction::PushBytes(bytes) if !bytes.is_empty() => Some(bytes),
            _ => None,
        });
        pushes.into_iter().any(|bytes| self.contains(bytes.as_bytes()))
    }
}

/// A key by its length and first byte. Core: `CPubKey::ValidSize`.
fn is_key(bytes: &[u8]) -> bool {
    matches!((bytes.first(), bytes.len()), (Some(2 | 3), 33) | (Some(4 | 6 | 7), 65))
}

/// A bare key and OP_CHECKSIG. Core: `MatchPayToPubkey`.
fn is_pubkey(script: &Script) -> bool {
    let bytes = script.as_bytes();
    let key = bytes.len().checked_sub(2).filter(|length| bytes[0] as usize == *length);
    key.is_some_and(|length| is_key(&bytes[1..=length])) && bytes.last() == Some(&0xac)
}

/// m of n bare keys. Core: `MatchMultisig`.
fn is_multisig(script: &Script) -> bool {
    let keys = script.instructions().filter_map(|instruction| match instruction {
        Ok(Instruction::PushBytes(key)) => Some(key.as_bytes()),
        _ => None,
    });
    script.is_multisig() && keys.into_iter().all(is_key)
}

/// 32 bits of MurmurHash3. Core: `MurmurHash3`.
fn murmur3(seed: u32, data: &[u8]) -> u32 {
    let mix = |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let chunks = data.chunks_exact(4);
    let tail = chunks.remainder();
    let mut hash = chunks.fold(seed, |hash, chunk| {
        let word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        (hash ^ mix(word)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    hash ^= mix(tail.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    hash ^= data.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests;
