//! The defence against chains of headers that cost nothing to make: a chain is downloaded twice. First only its work
//! is counted, with one salted bit kept for every some hundred headers; when it claims enough work it is fetched
//! again, held against those bits, and let go in order. Core: `headerssync.h`. Knows no peer and sends nothing.

use std::collections::VecDeque;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, siphash24};
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode, Work};
use groat_chain::params::Params;
use groat_chain::rules::header::MAX_FUTURE_BLOCK_TIME;
use groat_chain::rules::pow::{block_work, permitted_difficulty_transition};
use rand::{Rng, RngCore};

use crate::timers::Micros;
use crate::view::{Id, View};

/// A header without the hash before it, which the order tells.
#[derive(Debug)]
struct Compressed {
    version: Version,
    merkle_root: TxMerkleNode,
    time: u32,
    bits: CompactTarget,
    nonce: u32,
}

impl Compressed {
    fn new(header: &Header) -> Compressed {
        let Header { version, merkle_root, time, bits, nonce, .. } = *header;
        Compressed { version, merkle_root, time, bits, nonce }
    }

    fn after(&self, prev_blockhash: BlockHash) -> Header {
        let Compressed { version, merkle_root, time, bits, nonce } = *self;
        Header { version, prev_blockhash, merkle_root, time, bits, nonce }
    }
}

/// Bits in order: written at the end, read from the front.
#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
    written: u64,
    read: u64,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.written.is_multiple_of(64) {
            self.words.push(0);
        }
        let last = self.words.last_mut().expect("a word was pushed for the first bit");
        *last |= u64::from(bit) << (self.written % 64);
        self.written += 1;
    }

    fn pop(&mut self) -> Option<bool> {
        let at = self.read;
        let word = self.words.get(usize::try_from(at / 64).ok()?).filter(|_| at < self.written)?;
        self.read += 1;
        Some(word >> (at % 64) & 1 == 1)
    }
}

#[derive(Debug)]
enum Phase {
    /// Work is counted.
    Presync,
    /// Headers come again and are checked and held.
    Redownload(Redownload),
}

#[derive(Debug)]
struct Redownload {
    held: VecDeque<Compressed>,
    /// Parent of the first header held.
    before: BlockHash,
    last: BlockHash,
    last_bits: CompactTarget,
    height: u32,
    work: Work,
    /// The work is there: no header needs to be held back or checked any more.
    enough: bool,
}

/// What a batch of headers led to.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Headers of a chain with enough work, to be accepted in this order.
    pub(crate) released: Vec<Header>,
    /// Ask for more, after this hash first. None: the sync is over.
    pub(crate) more_after: Option<BlockHash>,
    /// The batch was what was asked for.
    pub(crate) fits: bool,
}

/// The download of one chain, twice, from one peer.
#[derive(Debug)]
pub(crate) struct Presync {
    start: Id,
    start_hash: BlockHash,
    start_height: u32,
    start_work: Work,
    start_bits: CompactTarget,
    wanted: Work,
    /// Secret: which heights have a commitment.
    offset: u32,
    salt: (u64, u64),
    commitments: Bits,
    /// No valid chain can have more by now.
    max_commitments: u64,
    phase: Phase,
    last: BlockHash,
    last_bits: CompactTarget,
    height: u32,
    work: Work,
}

impl Presync {
    /// For a chain that begins after `start` and must come to `wanted` work.
    pub(crate) fn new(
        start: Id,
        wanted: Work,
        view: &impl View,
        params: &Params,
        now: Micros,
        rng: &mut impl RngCore,
    ) -> Presync {
        let entry = view.entry(start);
        let period = params.headers_sync.commitment_period;
        // Six blocks a second is the most that the rule of median times lets a chain grow by.
        let seconds = now.seconds().saturating_sub(u64::from(view.median_time_past(start)));
        let max_commitments = 6 * (seconds + u64::from(MAX_FUTURE_BLOCK_TIME)) / u64::from(period);
        Presync {
            start,
            start_hash: entry.hash,
            start_height: entry.height,
            start_work: entry.work,
            start_bits: entry.bits,
            wanted,
            offset: rng.random_range(0..period),
            salt: (rng.random(), rng.random()),
            commitments: Bits::default(),
            max_commitments,
            phase: Phase::Presync,
            last: entry.hash,
            last_bits: entry.bits,
            height: entry.height,
            work: entry.work,
        }
    }

    /// Where the chain begins.
    pub(crate) fn start(&self) -> Id {
        self.start
    }

    /// Takes headers that are continuous and meet their own targets. `full`: the message could hold no more.
    pub(crate) fn take(&mut self, headers: &[Header], hashes: &[BlockHash], full: bool, params: &Params) -> Progress {
        let mut progress = Progress::default();
        match &self.phase {
            Phase::Presync => {
                progress.fits = self.count(headers, hashes, params);
                let again = matches!(self.phase, Phase::Redownload(_));
                if progress.fits && (full || again) {
                    progress.more_after = Some(if again { self.start_hash } else { self.last });
                }
            }
            Phase::Redownload(_) => {
                progress.fits =
                    headers.iter().zip(hashes).all(|(header, hash)| self.check_and_hold(header, *hash, params));
                if progress.fits {
                    progress.released = self.release(params);
                    let Phase::Redownload(again) = &self.phase else { return progress };
                    let done = again.enough && again.held.is_empty();
                    progress.more_after = (!done && full).then_some(again.last);
                }
            }
        }
        progress
    }

    /// Counts the work of a batch and keeps its commitments; whether the chain may be so.
    fn count(&mut self, headers: &[Header], hashes: &[BlockHash], params: &Params) -> bool {
        if headers[0].prev_blockhash != self.last {
            return false;
        }
        for (header, hash) in headers.iter().zip(hashes) {
            let height = self.height + 1;
            if !permitted_difficulty_transition(height, self.last_bits, header.bits, params) {
                return false;
            }
            if height % params.headers_sync.commitment_period == self.offset {
                let bit = self.commitment(hash);
                self.commitments.push(bit);
                if self.commitments.written > self.max_commitments {
                    return false;
                }
            }
            self.work = self.work + block_work(header.bits);
            (self.last, self.last_bits, self.height) = (*hash, header.bits, height);
        }
        if self.work >= self.wanted {
            self.phase = Phase::Redownload(Redownload {
                held: VecDeque::new(),
                before: self.start_hash,
                last: self.start_hash,
                last_bits: self.start_bits,
                height: self.start_height,
                work: self.start_work,
                enough: false,
            });
        }
        true
    }

    fn commitment(&self, hash: &BlockHash) -> bool {
        siphash24::Hash::hash_to_u64_with_keys(self.salt.0, self.salt.1, hash.as_byte_array()) & 1 == 1
    }

    fn check_and_hold(&mut self, header: &Header, hash: BlockHash, params: &Params) -> bool {
        let committed = self.commitment(&hash);
        let Phase::Redownload(again) = &mut self.phase else { return false };
        let height = again.height + 1;
        if header.prev_blockhash != again.last
            || !permitted_difficulty_transition(height, again.last_bits, header.bits, params)
        {
            return false;
        }
        again.work = again.work + block_work(header.bits);
        again.enough |= again.work >= self.wanted;
        // Past the goal the chain may have grown since the first download: there are no commitments then.
        let checked = !again.enough && height % params.headers_sync.commitment_period == self.offset;
        if checked && self.commitments.pop() != Some(committed) {
            return false;
        }
        again.held.push_back(Compressed::new(header));
        (again.last, again.last_bits, again.height) = (hash, header.bits, height);
        true
    }

    fn release(&mut self, params: &Params) -> Vec<Header> {
        let Phase::Redownload(again) = &mut self.phase else { return Vec::new() };
        let mut released = Vec::new();
        let keep = if again.enough { 0 } else { params.headers_sync.redownload_buffer_size as usize };
        while again.held.len() > keep {
            let header = again.held.pop_front().expect("more than none").after(again.before);
            again.before = header.block_hash();
            released.push(header);
        }
        released
    }

    /// About the bytes of memory that it takes.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        let held = match &self.phase {
            Phase::Presync => 0,
            Phase::Redownload(again) => again.held.capacity() * size_of::<Compressed>(),
        };
        self.commitments.words.capacity() * 8 + held
    }

    /// Height to which the chain was counted, and whether it is being fetched again.
    pub(crate) fn height(&self) -> (u32, bool) {
        (self.height, matches!(self.phase, Phase::Redownload(_)))
    }
}
