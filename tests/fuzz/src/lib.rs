//! What the targets about the network share: bytes from the fuzzer read as choices. Holds no target.

use bitcoin::hashes::{Hash, sha256d};
use groat_net::message::Kind;

/// The magic of regtest.
pub const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// The fuzzer's bytes that are not used yet. At their end everything is zero.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    /// A number of two bytes.
    pub fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// Bytes, their count before them.
    pub fn some_bytes(&mut self) -> &'a [u8] {
        let count = self.number().min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    /// A kind of message.
    pub fn kind(&mut self) -> Kind {
        let place = usize::from(self.byte()) % Kind::all().len();
        Kind::all().nth(place).expect("the place is within")
    }
}

/// A well-formed frame of version 1 of the transport.
pub fn frame(name: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(16, 0);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&sha256d::Hash::hash(payload).to_byte_array()[..4]);
    bytes.extend_from_slice(payload);
    bytes
}
