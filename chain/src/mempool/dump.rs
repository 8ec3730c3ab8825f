//! The pool as a file, `mempool.dat`: Core's format, version 2, whose bytes are masked with a key at its start (and
//! version 1, which has none). Reads and writes no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::consensus::encode::{self, Decodable, Encodable, VarInt};
use bitcoin::{Transaction, Txid};

use super::Mempool;
use crate::block::decode_transaction;

/// Versions of the file. Core: `MEMPOOL_DUMP_VERSION_NO_XOR_KEY`, `MEMPOOL_DUMP_VERSION`.
const VERSION_NO_XOR_KEY: u64 = 1;
/// See [`VERSION_NO_XOR_KEY`].
const VERSION: u64 = 2;

/// One transaction of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// When it came, in seconds since 1970.
    pub time: i64,
    /// What the operator adds to its fee, in satoshi.
    pub delta: i64,
}

/// What a dump holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Parents before children.
    pub transactions: Vec<Dumped>,
    /// What the operator adds to the fees of transactions that are not in the pool.
    pub deltas: BTreeMap<Txid, i64>,
    /// Those that no peer has asked for yet.
    pub unbroadcast: BTreeSet<Txid>,
}

/// The file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A version that is not known.
    #[error("version {0} of the file is not known")]
    Version(u64),
    /// It is cut short, or damaged.
    #[error("the file is damaged: {0}")]
    Damaged(#[from] encode::Error),
}

impl Mempool {
    /// All that a dump holds; `unbroadcast` are those that no peer has asked for yet.
    pub fn dump(&self, unbroadcast: BTreeSet<Txid>) -> Dump {
        let time = |seconds| i64::try_from(seconds).unwrap_or(i64::MAX);
        let dumped = |entry: &super::Entry| Dumped { tx: entry.tx.clone(), time: time(entry.time), delta: entry.delta };
        Dump {
            transactions: self.iter().map(dumped).collect(),
            deltas: self.deltas.iter().filter(|(txid, _)| self.get(txid).is_none()).map(|(t, d)| (*t, *d)).collect(),
            unbroadcast,
        }
    }
}

impl Dump {
    /// The bytes of the file. The key should be random, so that no peer chooses what stands on the disk.
    pub fn encode(&self, key: [u8; 8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(key, &mut bytes).expect("memory takes what is written");
        // The mask follows the place in the file; version and key are bare.
        for (place, byte) in bytes.iter_mut().enumerate().skip(HEAD) {
            *byte ^= key[place % key.len()];
        }
        bytes
    }

    fn write(&self, key: [u8; 8], out: &mut Vec<u8>) -> Result<(), bitcoin::io::Error> {
        VERSION.consensus_encode(out)?;
        key.to_vec().consensus_encode(out)?;
        (self.transactions.len() as u64).consensus_encode(out)?;
        for Dumped { tx, time, delta } in &self.transactions {
            tx.consensus_encode(out)?;
            time.consensus_encode(out)?;
            delta.consensus_encode(out)?;
        }
        VarInt::from(self.deltas.len()).consensus_encode(out)?;
        for (txid, delta) in &self.deltas {
            txid.consensus_encode(out)?;
            delta.consensus_encode(out)?;
        }
        VarInt::from(self.unbroadcast.len()).consensus_encode(out)?;
        for txid in &self.unbroadcast {
            txid.consensus_encode(out)?;
        }
        Ok(())
    }

    /// Reads the bytes of a file.
    pub fn decode(mut bytes: Vec<u8>) -> Result<Dump, DecodeError> {
        let mut head = &bytes[..];
        match u64::consensus_decode(&mut head)? {
            VERSION_NO_XOR_KEY => Ok(Dump::read(&bytes[8..])?),
            VERSION => {
                let key = Vec::<u8>::consensus_decode(&mut head)?;
                let key: [u8; 8] = key.try_into().map_err(|_| encode::Error::ParseFailed("the key has not 8 bytes"))?;
                for (place, byte) in bytes.iter_mut().enumerate().skip(HEAD) {
                    *byte ^= key[place % key.len()];
                }
                Ok(Dump::read(&bytes[HEAD..])?)
            }
            other => Err(DecodeError::Version(other)),
        }
    }

    fn read(mut rest: &[u8]) -> Result<Dump, encode::Error> {
        let rest = &mut rest;
        let mut dump = Dump::default();
        for _ in 0..u64::consensus_decode(rest)? {
            let tx = Arc::new(decode_transaction(rest)?);
            let (time, delta) = (i64::consensus_decode(rest)?, i64::consensus_decode(rest)?);
            dump.transactions.push(Dumped { tx, time, delta });
        }
        for _ in 0..VarInt::consensus_decode(rest)?.0 {
            dump.deltas.insert(Txid::consensus_decode(rest)?, i64::consensus_decode(rest)?);
        }
        for _ in 0..VarInt::consensus_decode(rest)?.0 {
            dump.unbroadcast.insert(Txid::consensus_decode(rest)?);
        }
        Ok(dump)
    }
}

/// Bytes of version and key.
const HEAD: usize = 8 + 1 + 8;

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;
    use proptest::prelude::*;

    fn example() -> Dump {
        let tx = |lock| Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::from_consensus(lock),
            input: vec![bitcoin::TxIn::default()],
            output: vec![bitcoin::TxOut { value: bitcoin::Amount::ONE_SAT, script_pubkey: vec![0x51].into() }],
        };
        Dump {
            transactions: (0..3).map(|n| Dumped { tx: Arc::new(tx(n)), time: 7, delta: -i64::from(n) }).collect(),
            deltas: BTreeMap::from([(Txid::from_byte_array([1; 32]), -5)]),
            unbroadcast: BTreeSet::from([Txid::from_byte_array([2; 32])]),
        }
    }

    #[test]
    fn a_dump_is_read_back_whatever_its_key() {
        for key in [[0; 8], [1, 2, 3, 4, 5, 6, 7, 8], [255; 8]] {
            assert_eq!(Dump::decode(example().encode(key)).unwrap(), example());
        }
    }

    #[test]
    fn a_dump_without_a_key_is_read() {
        let mut bytes = 1u64.to_le_bytes().to_vec();
        bytes.extend(&example().encode([0; 8])[HEAD..]);
        assert_eq!(Dump::decode(bytes).unwrap(), example());
    }

    proptest! {
        #[test]
        fn garbage_and_counts_without_end_are_read_to_their_end(
            version in 0u64..4,
            count in prop_oneof![0u64..4, Just(u64::MAX)],
            rest in prop::collection::vec(any::<u8>(), 0..200),
            change in (any::<prop::sample::Index>(), any::<u8>()),
        ) {
            let head = [version.to_le_bytes(), count.to_le_bytes()].concat();
            if let Ok(dump) = Dump::decode([&head[..], &rest].concat()) {
                prop_assert!(version == 1 && count < 4, "{dump:?} of {head:?}");
            }
            let mut whole = example().encode([7; 8]);
            let at = change.0.index(whole.len());
            whole[at] = change.1;
            let _ = Dump::decode(whole);
        }
    }

    #[test]
    fn a_dump_that_is_cut_or_of_another_version_is_an_error() {
        let whole = example().encode([3; 8]);
        for length in 0..whole.len() {
            assert!(Dump::decode(whole[..length].to_vec()).is_err(), "the first {length} bytes");
        }
        assert!(matches!(Dump::decode(3u64.to_le_bytes().to_vec()), Err(DecodeError::Version(3))));
    }
}
