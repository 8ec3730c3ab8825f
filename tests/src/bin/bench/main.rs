//! Benches of the whole program: each prints a table as it is. Nothing else should run meanwhile.

mod import;
mod mempool;
mod mine;
mod node;
mod peers;
mod process;
mod race;
mod rpc;
mod signatures;
mod sync;
mod wallet;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Benches of the whole program.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Imports each generated chain into groatd and into bitcoind, in turn.
    Import(race::Race),
    /// Lets groatd and bitcoind, in turn, fetch each generated chain from a bitcoind.
    Sync(sync::Sync),
    /// Links thousands of peers with one groatd.
    Peers(peers::Peers),
    /// Fills the mempools of groatd and bitcoind with the same transactions, in turn, and one in this process.
    Mempool(mempool::Mempool),
    /// Compares the built-in miner with the ceiling of its hash function.
    Mine(mine::Mine),
    /// Asks groatd and bitcoind the same by RPC and REST, in turn.
    Rpc(rpc::Calls),
    /// Runs the wallet's commands with a long history.
    Wallet(wallet::Wallet),
}

fn main() -> Result<()> {
    match Arguments::parse().bench {
        Bench::Import(race) => import::run(&race),
        Bench::Sync(sync) => sync::run(&sync),
        Bench::Peers(peers) => peers::run(&peers),
        Bench::Mempool(mempool) => mempool::run(&mempool),
        Bench::Mine(mine) => mine::run(&mine),
        Bench::Rpc(calls) => rpc::run(&calls),
        Bench::Wallet(wallet) => wallet::run(&wallet),
    }
}
