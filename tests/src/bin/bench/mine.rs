//! `bench mine`: hashes that one thread of the built-in miner tries in a second of processor, against the bare ceiling: the two
//! compressions of a try on fixed bytes, with no nonce written and nothing compared.

use std::time::{Duration, Instant};

use anyhow::Result;
use groat_chain::params::Params;
use groat_node::miner::search::{INITIAL, Search, last_block, put};
use sha2::block_api::compress256;

use crate::process::process;

/// How long to measure.
#[derive(clap::Args)]
pub struct Mine {
    /// Seconds that each of the two runs, in turn.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Turns; the best of each counts.
    #[arg(long, default_value_t = 3)]
    runs: u32,
}

/// Tries between two looks at the clock.
const STRIDE: u32 = 1 << 18;

/// Measures both in turns.
pub fn run(arguments: &Mine) -> Result<()> {
    let span = Duration::from_secs(arguments.seconds);
    let (mut miner, mut ceiling) = (0_f64, 0_f64);
    for _ in 0..arguments.runs {
        ceiling = ceiling.max(rate(span, &mut bare())?);
        miner = miner.max(rate(span, &mut search())?);
    }
    println!("bare ceiling   {:8.3} million hashes a second", ceiling / 1e6);
    println!("built-in miner {:8.3} million hashes a second, {:.1} % of it", miner / 1e6, 100.0 * miner / ceiling);
    Ok(())
}

/// Hashes for each second of processor: what else runs on the machine does not count.
fn rate(span: Duration, stride: &mut dyn FnMut()) -> Result<f64> {
    let seconds = || Ok::<f64, anyhow::Error>(process("self")?.1);
    let (before, begun, mut hashes) = (seconds()?, Instant::now(), 0_u64);
    while begun.elapsed() < span {
        stride();
        hashes += u64::from(STRIDE);
    }
    Ok(hashes as f64 / (seconds()? - before))
}

fn bare() -> impl FnMut() {
    let (midstate, tail, mut again) = (INITIAL, last_block(&[7; 16], 80), last_block(&[0; 32], 32));
    move || {
        for _ in 0..STRIDE {
            let mut state = midstate;
            compress256(&mut state, std::slice::from_ref(std::hint::black_box(&tail)));
            put(&mut again, &state);
            state = INITIAL;
            compress256(&mut state, std::slice::from_ref(&again));
            std::hint::black_box(state);
        }
    }
}

fn search() -> impl FnMut() {
    let params = Params::by_name("main").expect("a known network");
    let mut search = Search::new(&params.genesis.header, &params).expect("the target is allowed");
    let mut from = 0_u32;
    move || {
        std::hint::black_box(search.run(from, STRIDE));
        from = from.wrapping_add(STRIDE);
    }
}
