//! Measures the coin table: nanoseconds an operation and bytes a coin, at the number of coins given (5,000,000).
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use bitcoin::{OutPoint, Txid, hashes::Hash};
use groat_chain::{coins::Coin, table::CoinTable};
use std::convert::Infallible;
use std::time::Instant;

/// The outpoint number `at`: a txid of pseudorandom bytes with two outputs.
fn outpoint(at: u64) -> OutPoint {
    let mut txid = [0; 32];
    for (part, bytes) in txid.chunks_mut(8).enumerate() {
        // splitmix64
        let mut word = (at / 2 * 4 + part as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    OutPoint { txid: Txid::from_byte_array(txid), vout: (at % 2) as u32 }
}

fn main() {
    let coins: u64 = std::env::args().nth(1).map_or(5_000_000, |count| count.parse().expect("a number of coins"));
    let coin = Coin::from_parts(5_000, &[0x14; 22], 800_000, false);
    let mut table = CoinTable::new(usize::MAX);
    let measure = |what: &str, operations: u64, work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        println!("{what:<28} {:>6.0} ns", start.elapsed().as_nanos() as f64 / operations as f64);
    };
    measure("outpoint (not the table)", coins, &mut || {
        (0..coins).for_each(|at| {
            std::hint::black_box(outpoint(at));
        });
    });
    measure("create", coins, &mut || (0..coins).for_each(|at| table.create(outpoint(at), coin.clone())));
    println!("{:<28} {:>6.1} bytes", "a coin", table.memory() as f64 / coins as f64);
    let scattered = |at: u64| outpoint(at.wrapping_mul(0x9E37_79B9_7F4A_7C15) % coins);
    measure("get, scattered", coins, &mut || {
        (0..coins).for_each(|at| {
            std::hint::black_box(table.get(&scattered(at)));
        });
    });
    measure("get of an unknown", coins, &mut || {
        (0..coins).for_each(|at| {
            std::hint::black_box(table.get(&outpoint(coins + at)));
        });
    });
    let quarter = coins / 4;
    let spend = |table: &mut CoinTable, from: u64| {
        for at in from..from + quarter {
            drop(table.spend(&scattered(at), || Ok::<_, Infallible>(None)));
        }
    };
    measure("spend, scattered", quarter, &mut || spend(&mut table, 0));
    let start = Instant::now();
    let frozen = table.freeze();
    println!("{:<28} {:>6} us", "freeze", start.elapsed().as_micros());
    measure("batches of 16 MiB", frozen.len() as u64, &mut || frozen.batches(16 << 20).for_each(drop));
    let before = table.memory();
    measure("spend of frozen, scattered", quarter, &mut || spend(&mut table, quarter));
    println!("{:<28} {:>6.1} bytes", "a tombstone", (table.memory() - before) as f64 / table.changed() as f64);
}
