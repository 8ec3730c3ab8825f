//! The low-work sync by itself: what it keeps, what it lets go, what it refuses.

use super::presync::Presync;
use crate::sim::{Mined, Miner};
use crate::timers::Micros;
use crate::view::Id;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use groat_chain::params::{HeadersSync, Params, RegtestOptions};
use groat_chain::rules::pow::block_work;
use groat_chain::tree::Tree;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

const PERIOD: u32 = 7;
const BUFFER: u32 = 40;

fn params() -> Arc<Params> {
    let mut params = Params::regtest(&RegtestOptions::default());
    params.headers_sync = HeadersSync { commitment_period: PERIOD, redownload_buffer_size: BUFFER };
    Arc::new(params)
}

fn split(blocks: &[Mined]) -> (Vec<Header>, Vec<BlockHash>) {
    blocks.iter().map(|block| (block.header, block.hash)).unzip()
}

/// A sync that wants `wanted` blocks' work, with the clock at `now`.
fn presync(params: &Params, wanted: u32, now: u64, seed: u64) -> Presync {
    let tree = Tree::new(&params.genesis.header);
    let one = block_work(params.genesis.header.bits);
    let work = (0..wanted).fold(one, |work, _| work + one);
    Presync::new(Id::GENESIS, work, &tree, params, Micros::from_seconds(now), &mut ChaCha8Rng::seed_from_u64(seed))
}

fn start(params: &Params) -> u64 {
    u64::from(params.genesis.header.time)
}

#[test]
fn headers_are_let_go_in_order_and_only_when_checked() {
    let params = params();
    let chain = Miner::new(params.clone(), 1).mine(params.genesis_hash, 200);
    let mut sync = presync(&params, 150, start(&params) + 200 * 600, 1);
    let (headers, hashes) = split(&chain);
    for at in (0..160).step_by(20) {
        let step = sync.take(&headers[at..at + 20], &hashes[at..at + 20], true, &params);
        assert!(step.fits && step.released.is_empty());
        let next = if at == 140 { params.genesis_hash } else { hashes[at + 19] };
        assert_eq!(step.more_after, Some(next), "after {at}");
    }
    let mut released = Vec::new();
    for at in (0..200).step_by(20) {
        let step = sync.take(&headers[at..at + 20], &hashes[at..at + 20], true, &params);
        assert!(step.fits, "at {at}");
        released.extend(step.released);
        if at + 20 < 150 {
            assert_eq!(released.len(), (at + 20).saturating_sub(BUFFER as usize), "at {at}");
        }
        if step.more_after.is_none() {
            assert_eq!(at, 140, "the sync ends with the batch that reaches the work");
            break;
        }
    }
    assert_eq!(released, headers[..160]);
}

#[test]
fn another_chain_is_noticed_before_much_of_it_is_let_go() {
    let params = params();
    let mut worst = 0;
    for seed in 0..20 {
        let honest = Miner::new(params.clone(), 1).mine(params.genesis_hash, 160);
        let other = Miner::new(params.clone(), 100 + seed).mine(params.genesis_hash, 160);
        let mut sync = presync(&params, 150, start(&params) + 200 * 600, seed);
        let (headers, hashes) = split(&honest);
        assert!(sync.take(&headers, &hashes, true, &params).fits);
        let (headers, hashes) = split(&other);
        let mut released = 0;
        for at in 0..160 {
            let step = sync.take(&headers[at..at + 1], &hashes[at..at + 1], true, &params);
            released += step.released.len();
            if !step.fits {
                break;
            }
            assert!(at < 150, "seed {seed}: the other chain went through");
        }
        worst = worst.max(released);
    }
    // Five checked bits pass by luck in one of 32 cases.
    assert!(worst <= 40, "{worst} headers of another chain were let go");
}

#[test]
fn a_chain_that_is_longer_than_time_allows_is_given_up() {
    let mut params = (*params()).clone();
    params.headers_sync.commitment_period = 1;
    // Two hours of future at six blocks a second, and nothing else when the clock stands at genesis.
    let most = 6 * 7200;
    let header = params.genesis.header;
    let mut sync = presync(&params, 100_000, start(&params), 1);
    let mut last = params.genesis_hash;
    for height in 1..=most + 1 {
        // Proof of work is the caller's concern.
        let next = Header { prev_blockhash: last, nonce: height, ..header };
        last = next.block_hash();
        let fits = sync.take(&[next], &[last], true, &params).fits;
        assert_eq!(fits, height <= most, "at height {height}");
    }
    assert!(sync.memory() <= most as usize / 4, "{} bytes for {most} commitments", sync.memory());
}

#[test]
fn a_batch_that_does_not_continue_the_chain_ends_the_sync() {
    let params = params();
    let chain = Miner::new(params.clone(), 1).mine(params.genesis_hash, 100);
    let (headers, hashes) = split(&chain);
    let mut sync = presync(&params, 1000, start(&params) + 100 * 600, 1);
    assert!(sync.take(&headers[..10], &hashes[..10], true, &params).fits);
    let step = sync.take(&headers[20..30], &hashes[20..30], true, &params);
    assert!(!step.fits && step.more_after.is_none());
    let mut sync = presync(&params, 1000, start(&params) + 100 * 600, 1);
    let step = sync.take(&headers[..10], &hashes[..10], false, &params);
    assert!(step.fits && step.more_after.is_none(), "a message that is not full ends the chain");
}

#[test]
fn difficulty_may_change_only_as_consensus_permits() {
    let mut main = Params::main();
    main.pow_limit = params().pow_limit;
    main.genesis = params().genesis.clone();
    main.genesis_hash = params().genesis_hash;
    let main = Arc::new(main);
    let chain = Miner::new(main.clone(), 1).mine(main.genesis_hash, 10);
    let (mut headers, hashes) = split(&chain);
    let mut sync = presync(&main, 1000, start(&main) + 6000, 1);
    assert!(sync.take(&headers, &hashes, true, &main).fits);
    headers[5].bits = bitcoin::CompactTarget::from_consensus(0x207f_fffe);
    let mut sync = presync(&main, 1000, start(&main) + 6000, 1);
    assert!(!sync.take(&headers, &hashes, true, &main).fits);
}
