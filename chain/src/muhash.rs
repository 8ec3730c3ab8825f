//! MuHash3072: the hash of a set, such as all coins, that grows and shrinks by one element at a time in any order.
//! Every element is hashed to a number modulo a prime; the set is their product. Knows no store and no block.
//!
//! The elements and the byte order are Core's (`src/crypto/muhash.cpp`, `src/kernel/coinstats.cpp`), so that
//! `gettxoutsetinfo muhash` of both nodes can be compared.

mod num;
#[cfg(test)]
mod tests;

use crate::coins::Coin;
use bitcoin::OutPoint;
use bitcoin::consensus::encode::{Encodable, VarInt};
use bitcoin::hashes::Hash;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use num::{BYTE_SIZE, Num3072};
use sha2::{Digest, Sha256};

/// Bytes of a state.
pub const STATE_BYTES: usize = 2 * BYTE_SIZE;

/// The hash of a set as it grows and shrinks, about 3 microseconds an element. It does not know its members: what is
/// inserted twice counts twice, and what was never inserted can be removed (and inserted later).
#[derive(Clone, Debug)]
pub struct MuHash {
    /// Product of all that was inserted.
    numerator: Num3072,
    /// Product of all that was removed: dividing once at the end is cheaper than once each removal.
    denominator: Num3072,
}

impl MuHash {
    /// The empty set.
    pub fn new() -> MuHash {
        MuHash { numerator: Num3072::ONE, denominator: Num3072::ONE }
    }

    /// Adds an element.
    #[cfg(test)]
    fn insert(&mut self, element: &[u8]) {
        self.numerator = self.numerator.multiply(&number(Sha256::new_with_prefix(element)));
    }

    /// Takes an element out.
    #[cfg(test)]
    fn remove(&mut self, element: &[u8]) {
        self.denominator = self.denominator.multiply(&number(Sha256::new_with_prefix(element)));
    }

    /// Adds a coin (Core: `ApplyCoinHash`).
    pub fn insert_coin(&mut self, outpoint: &OutPoint, coin: &Coin) {
        self.numerator = self.numerator.multiply(&coin_number(outpoint, coin));
    }

    /// Takes a coin out (Core: `RemoveCoinHash`).
    pub fn remove_coin(&mut self, outpoint: &OutPoint, coin: &Coin) {
        self.denominator = self.denominator.multiply(&coin_number(outpoint, coin));
    }

    /// Does at once all that was done to `other`: parts of a set may be hashed by several threads.
    pub fn combine(&mut self, other: &MuHash) {
        self.numerator = self.numerator.multiply(&other.numerator);
        self.denominator = self.denominator.multiply(&other.denominator);
    }

    /// The state, for [`MuHash::from_bytes`]: all that was inserted, then all that was removed.
    pub fn to_bytes(&self) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        bytes[..BYTE_SIZE].copy_from_slice(&self.numerator.to_bytes());
        bytes[BYTE_SIZE..].copy_from_slice(&self.denominator.to_bytes());
        bytes
    }

    /// The state that [`MuHash::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8; STATE_BYTES]) -> MuHash {
        let (halves, _) = bytes.as_chunks::<BYTE_SIZE>();
        MuHash { numerator: Num3072::from_bytes(&halves[0]), denominator: Num3072::from_bytes(&halves[1]) }
    }

    /// The hash of the set, in the order of Core's `uint256`: RPC shows the bytes reversed. Takes some milliseconds.
    pub fn finalize(&self) -> [u8; 32] {
        Sha256::digest(self.numerator.multiply(&self.denominator.inverse()).to_bytes()).into()
    }
}

impl Default for MuHash {
    fn default() -> MuHash {
        MuHash::new()
    }
}

/// Feeds a coin in Core's serialization (`TxOutSer`) to a hash: outpoint, `height << 1 | coinbase` as four bytes,
/// amount, script with its length.
pub(crate) fn hash_coin(hash: &mut Sha256, outpoint: &OutPoint, coin: &Coin) {
    let script = coin.script_pubkey().as_bytes();
    // All but the script takes at most 57 bytes; one update is much cheaper than six.
    let mut head = [0; 57];
    head[..32].copy_from_slice(outpoint.txid.as_byte_array());
    head[32..36].copy_from_slice(&outpoint.vout.to_le_bytes());
    head[36..40].copy_from_slice(&(coin.height() << 1 | u32::from(coin.is_coinbase())).to_le_bytes());
    head[40..48].copy_from_slice(&coin.value().to_sat().to_le_bytes());
    let length = VarInt::from(script.len());
    length.consensus_encode(&mut &mut head[48..]).expect("nine bytes hold any length");
    hash.update(&head[..48 + length.size()]);
    hash.update(script);
}

/// The number of a coin.
fn coin_number(outpoint: &OutPoint, coin: &Coin) -> Num3072 {
    let mut hash = Sha256::new();
    hash_coin(&mut hash, outpoint, coin);
    number(hash)
}

/// The number of what was hashed: the first 3072 bits of the ChaCha20 key stream under that key.
fn number(hash: Sha256) -> Num3072 {
    let mut stream = [0; BYTE_SIZE];
    chacha20::ChaCha20::new(&hash.finalize(), &[0; 12].into()).apply_keystream(&mut stream);
    Num3072::from_bytes(&stream)
}
