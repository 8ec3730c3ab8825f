//! The search for a nonce: the first 64 bytes of a header are hashed once, then two compressions a try. Knows no block.

use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::{CompactTarget, Target};
use groat_chain::params::Params;
use groat_chain::rules::pow::derive_target;
use sha2::block_api::compress256;

/// Where SHA-256 begins.
pub const INITIAL: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// A header without its nonce.
pub struct Search {
    /// What the first 64 bytes lead to.
    midstate: [u32; 8],
    /// The other 16 bytes, as a block of SHA-256.
    tail: [u8; 64],
    /// A hash, as a block of SHA-256.
    again: [u8; 64],
    target: Target,
    /// The highest 32 bits of the target: most tries end with them.
    top: u32,
}

impl Search {
    /// None where the network does not allow the target.
    pub fn new(header: &Header, params: &Params) -> Option<Search> {
        let target = derive_target(header.bits, params)?;
        let bytes = serialize(header);
        let mut midstate = INITIAL;
        compress256(&mut midstate, &[bytes[..64].try_into().expect("it is 64 bytes")]);
        let high = target.to_be_bytes();
        let top = u32::from_be_bytes([high[0], high[1], high[2], high[3]]);
        Some(Search { midstate, tail: last_block(&bytes[64..], 80), again: last_block(&[0; 32], 32), target, top })
    }

    /// Gives the header another time.
    pub(crate) fn set_time(&mut self, time: u32, bits: CompactTarget) {
        self.tail[4..8].copy_from_slice(&time.to_le_bytes());
        self.tail[8..12].copy_from_slice(&bits.to_consensus().to_le_bytes());
    }

    /// The first of `count` nonces from `from` on with which the hash meets the target.
    pub fn run(&mut self, from: u32, count: u32) -> Option<u32> {
        (0..count).map(|step| from.wrapping_add(step)).find(|nonce| {
            self.tail[12..16].copy_from_slice(&nonce.to_le_bytes());
            let mut state = self.midstate;
            compress256(&mut state, std::slice::from_ref(&self.tail));
            put(&mut self.again, &state);
            state = INITIAL;
            compress256(&mut state, std::slice::from_ref(&self.again));
            // A hash is a number with its lowest byte first.
            state[7].swap_bytes() <= self.top && self.meets(&state)
        })
    }

    fn meets(&self, state: &[u32; 8]) -> bool {
        let mut hash = [0; 64];
        put(&mut hash, state);
        let hash: [u8; 32] = hash[..32].try_into().expect("it is 32 bytes");
        Target::from_le_bytes(hash) <= self.target
    }
}

/// The block that ends a message of `length` bytes with these.
pub fn last_block(end: &[u8], length: u64) -> [u8; 64] {
    let mut block = [0; 64];
    block[..end.len()].copy_from_slice(end);
    block[end.len()] = 0x80;
    block[56..].copy_from_slice(&(8 * length).to_be_bytes());
    block
}

/// Writes a hash to the start of a block.
pub fn put(block: &mut [u8; 64], state: &[u32; 8]) {
    for (word, bytes) in state.iter().zip(block.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
}

/// Counts the nonce up until the hash meets the target. False when `tries` are used up, when all nonces are, or when
/// `stopped` says so.
pub fn search(header: &mut Header, params: &Params, tries: &mut u64, stopped: impl Fn() -> bool) -> bool {
    /// Tries between two questions whether to stop.
    const STRIDE: u32 = 1 << 16;
    let Some(mut search) = Search::new(header, params) else { return false };
    while *tries > 0 && header.nonce < u32::MAX && !stopped() {
        let stride = STRIDE.min(u32::MAX - header.nonce).min(u32::try_from(*tries).unwrap_or(u32::MAX));
        if let Some(nonce) = search.run(header.nonce, stride) {
            *tries -= u64::from(nonce - header.nonce);
            header.nonce = nonce;
            return true;
        }
        header.nonce += stride;
        *tries -= u64::from(stride);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use groat_chain::rules::pow::check_proof_of_work;

    #[test]
    fn the_search_finds_the_nonce_of_genesis_and_no_other() {
        let params = Params::by_name("main").expect("a known network");
        let header = params.genesis.header;
        let mut search = Search::new(&header, &params).expect("the target is allowed");
        assert_eq!(search.run(header.nonce - 5000, 10_000), Some(header.nonce));
        assert_eq!(search.run(header.nonce + 1, 10_000), None);
    }

    #[test]
    fn what_is_found_meets_the_target_at_any_time() {
        let params = Params::by_name("regtest").expect("a known network");
        let mut header = params.genesis.header;
        let mut search = Search::new(&header, &params).expect("the target is allowed");
        for time in 0..50 {
            header.time += time;
            search.set_time(header.time, header.bits);
            let found = search.run(0, 1000).expect("half of all hashes meet it");
            for nonce in 0..=found {
                header.nonce = nonce;
                let met = check_proof_of_work(header.block_hash(), header.bits, &params).is_ok();
                assert_eq!(met, nonce == found, "nonce {nonce}");
            }
        }
    }

    #[test]
    fn the_search_ends_when_its_tries_are_used_up_or_it_is_told_to() {
        let params = Params::by_name("main").expect("a known network");
        let mut header = params.genesis.header;
        (header.nonce, header.time) = (0, header.time + 1);
        let mut tries = 1000;
        assert!(!search(&mut header, &params, &mut tries, || false));
        assert_eq!((tries, header.nonce), (0, 1000));
        header.nonce = 0;
        assert!(!search(&mut header, &params, &mut 1000, || true));
        assert_eq!(header.nonce, 0, "it went on after it was told to stop");
    }
}
