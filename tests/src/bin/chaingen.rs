//! `chaingen full|coins --out DIR`: writes a generated regtest chain, as block files and `summary.json`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use groat_tests::chaingen::{coins, full};

/// Generates a regtest chain: the same arguments give the same bytes.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    chain: Chain,
}

#[derive(Subcommand)]
enum Chain {
    /// Full blocks with today's mix of inputs, every one signed.
    Full {
        #[arg(long, default_value_t = full::Recipe::DEFAULT.seed)]
        seed: u64,
        /// Number of full blocks.
        #[arg(long, default_value_t = full::Recipe::DEFAULT.blocks)]
        blocks: u32,
        #[arg(long)]
        out: PathBuf,
    },
    /// Millions of coins with trivial scripts.
    Coins {
        #[arg(long, default_value_t = coins::Recipe::DEFAULT.seed)]
        seed: u64,
        /// Coins alive at the end.
        #[arg(long, default_value_t = coins::Recipe::DEFAULT.coins)]
        coins: u64,
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let summary = match Arguments::parse().chain {
        Chain::Full { seed, blocks, out } => {
            full::generate(&full::Recipe { seed, blocks, ..full::Recipe::DEFAULT }, &out)?
        }
        Chain::Coins { seed, coins, out } => {
            coins::generate(&coins::Recipe { seed, coins, ..coins::Recipe::DEFAULT }, &out)?
        }
    };
    println!("{}", serde_json::to_string_pretty(&summary)?);
    eprintln!("generated in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
