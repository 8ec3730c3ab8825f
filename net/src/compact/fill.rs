//! Filling a compact block: which of its transactions are here, which have to be asked for, and the block that they
//! make ([BIP-0152]). Sees the pool by the view; judges nothing: whether the filled block is the one that was mined
//! the ledger says.
//!
//! [BIP-0152]: https://github.com/bitcoin/bips/blob/master/bip-0152.mediawiki

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use bitcoin::bip152::{HeaderAndShortIds, ShortId};
use bitcoin::block::Header;
use bitcoin::consensus::{Encodable, encode::VarInt};
use bitcoin::{Transaction, Wtxid};
use groat_chain::rules::limits::MAX_BLOCK_SERIALIZED_SIZE;

use crate::view::View;

/// A transaction longer than this is not kept for compact blocks. Core: `AddToCompactExtraTransactions` is for
/// transactions of less memory than this.
const MAX_EXTRA_SIZE: usize = 100_000;

/// Why a compact block leads to nothing. Core: `ReadStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// No honest peer makes it so.
    Invalid,
    /// Chance may have made it so: the whole block is wanted.
    Ambiguous,
}

/// Transactions that the pool does not have and that a block may: refused, replaced, without their parents. The oldest
/// goes first. Core: `vExtraTxnForCompact`.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    ring: VecDeque<(Wtxid, Arc<Transaction>)>,
}

impl Extra {
    /// Keeps a transaction, and at most `cap` in all.
    pub(crate) fn remember(&mut self, tx: &Arc<Transaction>, cap: usize) {
        if tx.total_size() > MAX_EXTRA_SIZE {
            return;
        }
        self.ring.push_back((tx.compute_wtxid(), tx.clone()));
        while self.ring.len() > cap {
            self.ring.pop_front();
        }
    }
}

/// A block of which some transactions are here. Core: `PartiallyDownloadedBlock`.
#[derive(Debug)]
pub(crate) struct Partial {
    header: Header,
    slots: Vec<Option<Arc<Transaction>>>,
}

impl Partial {
    /// Puts in what the message, the pool and the extra transactions have. Core: `InitData`.
    ///
    /// Core also gives up when short ids crowd one bucket of its hash table; a sorted list does not mind.
    pub(crate) fn new(block: &HeaderAndShortIds, extra: &Extra, view: &impl View) -> Result<Partial, Flaw> {
        let mut slots = prefilled(block)?;
        let free = slots.iter().enumerate().filter(|(_, slot)| slot.is_none()).map(|(at, _)| at);
        let wanted = Wanted::new(block, free)?;
        let mut finder = Finder { matched: vec![None; slots.len()], slots: &mut slots, wanted, found: 0 };
        view.for_each_pool_tx(&mut |wtxid, tx| finder.offer(wtxid, tx));
        for (wtxid, tx) in &extra.ring {
            if finder.offer(wtxid, tx).is_break() {
                break;
            }
        }
        Ok(Partial { header: block.header, slots })
    }

    /// The places of the transactions that are not here.
    pub(crate) fn missing(&self) -> Vec<u64> {
        let places = self.slots.iter().zip(0..);
        places.filter(|(slot, _)| slot.is_none()).map(|(_, place)| place).collect()
    }

    /// The serialization of the block, with these transactions in the empty places. Core: `FillBlock`.
    pub(crate) fn fill(self, given: &[Transaction]) -> Result<Vec<u8>, Flaw> {
        let mut given = given.iter();
        let mut out = Vec::new();
        put(&mut out, &self.header);
        put(&mut out, &VarInt::from(self.slots.len()));
        for slot in &self.slots {
            put(&mut out, slot.as_deref().or_else(|| given.next()).ok_or(Flaw::Invalid)?);
            // Short ids that meet the pool's largest transactions would make a block of any size.
            if out.len() > MAX_BLOCK_SERIALIZED_SIZE {
                return Err(Flaw::Ambiguous);
            }
        }
        if given.next().is_some() { Err(Flaw::Invalid) } else { Ok(out) }
    }
}

fn put(out: &mut Vec<u8>, value: &impl Encodable) {
    value.consensus_encode(out).expect("a vector takes every byte");
}

/// A place for each transaction, those that came with the message in theirs.
fn prefilled(block: &HeaderAndShortIds) -> Result<Vec<Option<Arc<Transaction>>>, Flaw> {
    let count = block.short_ids.len() + block.prefilled_txs.len();
    if count == 0 {
        return Err(Flaw::Invalid);
    }
    let mut slots = vec![None; count];
    let mut next = 0;
    for (before, prefilled) in block.prefilled_txs.iter().enumerate() {
        let place = next + usize::from(prefilled.idx);
        // Above this, some place would have neither a transaction nor a short id.
        let is_null = prefilled.tx.input.is_empty() && prefilled.tx.output.is_empty();
        if is_null || place > block.short_ids.len() + before {
            return Err(Flaw::Invalid);
        }
        slots[place] = Some(Arc::new(prefilled.tx.clone()));
        next = place + 1;
    }
    Ok(slots)
}

/// The short ids of a compact block with their places.
struct Wanted {
    keys: (u64, u64),
    /// In order of the ids.
    places: Vec<(u64, usize)>,
    /// One bit for each value of an id's low 16 bits that occurs: most transactions of the pool end here.
    mask: Vec<u64>,
}

impl Wanted {
    fn new(block: &HeaderAndShortIds, free: impl Iterator<Item = usize>) -> Result<Wanted, Flaw> {
        let keys = ShortId::calculate_siphash_keys(&block.header, block.nonce);
        let mut places: Vec<(u64, usize)> = block.short_ids.iter().map(number).zip(free).collect();
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Flaw::Ambiguous);
        }
        let mut mask = vec![0u64; 1024];
        for (id, _) in &places {
            mask[(id >> 6 & 1023) as usize] |= 1 << (id & 63);
        }
        Ok(Wanted { keys, places, mask })
    }

    /// Where the transaction belongs, if its short id is wanted.
    fn place(&self, wtxid: &Wtxid) -> Option<usize> {
        let id = number(&ShortId::with_siphash_keys(wtxid, self.keys));
        if self.mask[(id >> 6 & 1023) as usize] >> (id & 63) & 1 == 0 {
            return None;
        }
        let at = self.places.binary_search_by_key(&id, |entry| entry.0).ok()?;
        Some(self.places[at].1)
    }
}

fn number(id: &ShortId) -> u64 {
    id.as_bytes().iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Puts transactions into their places.
struct Finder<'a> {
    wanted: Wanted,
    slots: &'a mut Vec<Option<Arc<Transaction>>>,
    /// Which transaction was the first to match a place.
    matched: Vec<Option<Wtxid>>,
    /// Places that were filled.
    found: usize,
}

impl Finder<'_> {
    fn offer(&mut self, wtxid: &Wtxid, tx: &Arc<Transaction>) -> ControlFlow<()> {
        if let Some(place) = self.wanted.place(wtxid) {
            match self.matched[place] {
                None => {
                    self.matched[place] = Some(*wtxid);
                    self.slots[place] = Some(tx.clone());
                    self.found += 1;
                }
                // Two for one place: cheaper asked for than guessed wrong.
                Some(first) if first != *wtxid && self.slots[place].take().is_some() => self.found -= 1,
                Some(_) => {}
            }
        }
        if self.found == self.wanted.places.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Kind, Message};
    use bitcoin::hashes::Hash;

    fn tx(n: u32) -> Arc<Transaction> {
        Arc::new(Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::from_consensus(n),
            input: vec![bitcoin::TxIn::default()],
            output: Vec::new(),
        })
    }

    #[test]
    fn the_extra_transactions_are_bounded_in_number_and_length() {
        let mut extra = Extra::default();
        for n in 0..20 {
            extra.remember(&tx(n), 10);
        }
        let kept: Vec<u32> = extra.ring.iter().map(|(_, tx)| tx.lock_time.to_consensus_u32()).collect();
        assert_eq!(kept, (10..20).collect::<Vec<_>>());
        let mut long = (*tx(99)).clone();
        long.input[0].script_sig = vec![0; MAX_EXTRA_SIZE].into();
        extra.remember(&Arc::new(long), 10);
        assert!(extra.ring.iter().all(|(_, tx)| tx.lock_time.to_consensus_u32() != 99));
    }

    /// Its ids are those of version 1, by txid: the test gives its transactions under these.
    #[test]
    fn a_block_of_mainnet_is_filled_from_a_large_pool() {
        let vector = |name| crate::message::tests::vector(&format!("vectors-compact-blocks/mainnet-0426884.{name}"));
        let (Some(bytes), Some(message)) = (vector("block"), vector("cmpctblock")) else { return };
        let block = groat_chain::block::Block::decode(&bytes).expect("a block");
        let Message::CmpctBlock(message) = Message::decode(Kind::CmpctBlock, message) else {
            panic!("no compact block")
        };
        let id = |txid: &bitcoin::Txid| Wtxid::from_byte_array(txid.to_byte_array());
        let mut known: Vec<_> =
            block.txids.iter().zip(&block.transactions).map(|(txid, tx)| (id(txid), Arc::new(tx.clone()))).collect();
        let header = &groat_chain::params::Params::main().genesis.header;
        let view = groat_chain::tree::Tree::new(header);
        let other = |n: u64| {
            let hash = bitcoin::hashes::sha256::Hash::hash(&n.to_le_bytes());
            (Wtxid::from_byte_array(hash.to_byte_array()), tx(0))
        };
        let missing = known.remove(5);
        let ring = (0..50_000).map(other).chain(known).chain((50_000..100_000).map(other)).collect();
        let partial = Partial::new(&message, &Extra { ring }, &view).expect("a good compact block");
        assert_eq!(partial.missing(), [5]);
        assert!(partial.fill(&[(*missing.1).clone()]) == Ok(bytes), "another block came of it");
    }

    #[test]
    fn a_short_id_is_the_low_six_bytes_of_its_hash() {
        let keys = (1, 2);
        let wtxid = Wtxid::from_byte_array([7; 32]);
        let hash = bitcoin::hashes::siphash24::Hash::hash_to_u64_with_keys(1, 2, wtxid.as_byte_array());
        assert_eq!(number(&ShortId::with_siphash_keys(&wtxid, keys)), hash & 0xffff_ffff_ffff);
    }

    #[test]
    fn two_transactions_on_one_short_id_are_both_doubted_and_one_seen_twice_is_not() {
        let keys = (1, 2);
        let wtxids = [1, 2, 3].map(|n| Wtxid::from_byte_array([n; 32]));
        let id = |wtxid| number(&ShortId::with_siphash_keys(wtxid, keys));
        // As if the first two had one short id; the mask lets everything through.
        let mut places = vec![(id(&wtxids[0]), 0), (id(&wtxids[1]), 0), (id(&wtxids[2]), 1)];
        places.sort_unstable();
        let mut slots = vec![None; 2];
        let wanted = Wanted { keys, places, mask: vec![u64::MAX; 1024] };
        let mut finder = Finder { matched: vec![None; 2], slots: &mut slots, wanted, found: 0 };
        for at in [0, 2, 2, 1, 0] {
            let more = finder.offer(&wtxids[at], &tx(at as u32));
            assert!(more.is_continue());
        }
        assert_eq!(finder.found, 1);
        assert_eq!(slots, [None, Some(tx(2))]);
    }

    #[test]
    fn a_block_that_outgrows_every_block_is_not_built() {
        let mut large = (*tx(1)).clone();
        large.input[0].script_sig = vec![0; 1_000_000].into();
        let header: Header = bitcoin::consensus::deserialize(&[3; 80]).expect("any 80 bytes are a header");
        let partial = |count| Partial { header, slots: vec![Some(Arc::new(large.clone())); count] };
        assert_eq!(partial(3).fill(&[]).map(|bytes| bytes.len() > 3_000_000), Ok(true));
        assert_eq!(partial(4).fill(&[]), Err(Flaw::Ambiguous));
    }
}
