//! The log of what the pool took: entries by number, in the order in which they came, each with one bit for every peer that
//! has it. Knows no peer, only its bit, and tells nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bitcoin::{Txid, Wtxid};

use super::Relayed;
use crate::message::GenTxid;

/// Bits of peers that are gone are not cleared before there are so many of them.
const MIN_STALE_BITS: usize = 64;

/// One transaction that the pool took.
#[derive(Debug)]
pub(super) struct Entry {
    pub txid: Txid,
    pub wtxid: Wtxid,
    /// Bits of the peers that have it.
    known: Vec<u64>,
    pub relayed: Relayed,
}

impl Entry {
    pub fn set(&mut self, bit: u32) {
        let word = (bit / 64) as usize;
        if self.known.len() <= word {
            self.known.resize(word + 1, 0);
        }
        self.known[word] |= 1 << (bit % 64);
    }

    fn clear(&mut self, bits: &[u64]) {
        self.known.iter_mut().zip(bits).for_each(|(word, bits)| *word &= !bits);
    }

    pub fn has(&self, bit: u32) -> bool {
        self.known.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }
}

/// The log. Numbers begin with 1 and are never given again.
#[derive(Debug)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// Number of the first entry.
    first: u64,
    by_wtxid: BTreeMap<Wtxid, u64>,
    by_txid: BTreeMap<Txid, u64>,
    free_bits: BTreeSet<u32>,
    /// Bits of peers that are gone, still set in the log: cleared all at once when they are many, as one pass over the log
    /// costs the same for one and for all.
    stale_bits: BTreeSet<u32>,
    bits: u32,
}

impl Log {
    pub fn new() -> Log {
        Log {
            entries: VecDeque::new(),
            first: 1,
            by_wtxid: BTreeMap::new(),
            by_txid: BTreeMap::new(),
            free_bits: BTreeSet::new(),
            stale_bits: BTreeSet::new(),
            bits: 0,
        }
    }

    /// The numbers of the entries there are; the next entry gets its end.
    pub fn numbers(&self) -> Range<u64> {
        self.first..self.first + self.entries.len() as u64
    }

    /// The number of a transaction's entry, the newest where there were several.
    pub fn number(&self, id: &GenTxid) -> Option<u64> {
        match id {
            GenTxid::Txid(id) => self.by_txid.get(id).copied(),
            GenTxid::Wtxid(id) => self.by_wtxid.get(id).copied(),
        }
    }

    /// The entry of a number that is in the log.
    pub fn entry(&self, number: u64) -> &Entry {
        &self.entries[(number - self.first) as usize]
    }

    /// See [`Log::entry`].
    pub fn entry_mut(&mut self, number: u64) -> &mut Entry {
        &mut self.entries[(number - self.first) as usize]
    }

    /// Adds a transaction that no entry has; beyond `cap` entries the oldest go.
    pub fn push(&mut self, txid: Txid, wtxid: Wtxid, bits: impl Iterator<Item = u32>, cap: usize) {
        let mut entry = Entry { txid, wtxid, known: Vec::new(), relayed: Relayed::default() };
        bits.for_each(|bit| entry.set(bit));
        let number = self.numbers().end;
        self.by_wtxid.insert(wtxid, number);
        self.by_txid.insert(txid, number);
        self.entries.push_back(entry);
        while self.entries.len() > cap {
            let oldest = self.entries.pop_front().expect("longer than its cap");
            self.first += 1;
            self.by_wtxid.remove(&oldest.wtxid);
            // Another with the same txid and another witness may have come since.
            if self.by_txid.get(&oldest.txid).is_some_and(|number| *number < self.first) {
                self.by_txid.remove(&oldest.txid);
            }
        }
    }

    /// A bit that is set nowhere in the log, for a new peer.
    pub fn take_bit(&mut self) -> u32 {
        if self.free_bits.is_empty() && self.stale_bits.len() >= MIN_STALE_BITS.max(self.bits as usize / 2) {
            let mut stale = vec![0; self.bits.div_ceil(64) as usize];
            self.stale_bits.iter().for_each(|bit| stale[(bit / 64) as usize] |= 1 << (bit % 64));
            self.entries.iter_mut().for_each(|entry| entry.clear(&stale));
            self.free_bits = std::mem::take(&mut self.stale_bits);
        }
        self.free_bits.pop_first().unwrap_or_else(|| {
            self.bits += 1;
            self.bits - 1
        })
    }

    /// The peer that had the bit is gone.
    pub fn give_back(&mut self, bit: u32) {
        self.stale_bits.insert(bit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;

    #[test]
    fn the_bit_of_a_peer_that_is_gone_is_set_nowhere_when_it_is_given_again() {
        let mut log = Log::new();
        log.push(Txid::all_zeros(), Wtxid::all_zeros(), std::iter::empty(), 1);
        let mut live: VecDeque<u32> = VecDeque::new();
        for round in 0..2000 {
            let bit = log.take_bit();
            assert!(!log.entries[0].has(bit), "round {round}: bit {bit} is another peer's");
            assert!(!live.contains(&bit), "round {round}: bit {bit} is given twice");
            log.entries[0].set(bit);
            live.push_back(bit);
            if live.len() > 100 {
                live.pop_front().into_iter().for_each(|bit| log.give_back(bit));
            }
        }
        assert!(log.bits <= 2 * 101 + 1, "{} bits for 101 peers", log.bits);
        assert!(live.iter().all(|bit| log.entries[0].has(*bit)), "who is here keeps its bit");
    }
}
