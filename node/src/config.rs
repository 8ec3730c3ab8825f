//! The command line: Core's flag names, with one dash or two.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// A Bitcoin full node small enough to read and fast enough to run.
#[derive(Debug, Parser)]
#[command(name = "groatd", version = crate::VERSION, max_term_width = 100)]
pub struct Config {
    /// main, test, testnet4, signet, regtest, or the file of a network of one's own
    #[arg(long, global = true, value_name = "NAME|FILE", env = "GROAT_CHAIN", default_value = "testnet4")]
    pub chain: String,
    /// Folder of all data [default: ~/.groat]
    #[arg(long, global = true, value_name = "DIR", env = "GROAT_DATADIR")]
    pub datadir: Option<PathBuf>,
    /// Memory in MiB for the coin table, RocksDB's memtables and its block cache together
    #[arg(long, global = true, value_name = "MIB", default_value_t = 450)]
    pub dbcache: usize,
    /// Threads that check scripts and decode blocks; 0: as many as there are processors
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    pub par: usize,
    /// Take the scripts of this block's ancestors as valid; 0 runs every script [default: the network's]
    #[arg(long, global = true, value_name = "HASH|0")]
    pub assumevalid: Option<String>,
    /// Keep block files below this many MiB (at least 550); 0 keeps all
    #[arg(long, global = true, value_name = "MIB", default_value_t = 0)]
    pub prune: u64,
    /// Rebuild everything from the block files
    #[arg(long, global = true)]
    pub reindex: bool,
    /// Rebuild the coins from the blocks that are indexed
    #[arg(long, global = true)]
    pub reindex_chainstate: bool,
    /// Challenge script of a signet of one's own
    #[arg(long, global = true, value_name = "HEX")]
    pub signetchallenge: Option<String>,
    /// Height from which a rule holds on regtest (bip34, dersig, cltv, csv, segwit); may be repeated
    #[arg(long, global = true, value_name = "NAME@HEIGHT")]
    pub testactivationheight: Vec<String>,
    /// Test-only behaviour of regtest (bip94); may be repeated
    #[arg(long, global = true, value_name = "NAME", hide = true)]
    pub test: Vec<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What `groatd` can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read blocks from files in Core's blk*.dat framing (`-`: standard input), validate and store them
    Import {
        /// Block files, in any order
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Check the stored blocks, their undo, the coins and all scripts again
    VerifyChain {
        /// Blocks to check, from the tip down; 0 checks all
        #[arg(long, default_value_t = 0)]
        depth: u32,
    },
    /// Look at the coins
    #[command(subcommand)]
    Coins(Coins),
}

/// What can be asked of the coins.
#[derive(Debug, Subcommand)]
pub enum Coins {
    /// Height, best block, number of coins, their sum and their MuHash
    Stats {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

impl Config {
    /// Reads the process's arguments; a usage error prints itself and ends the process with status 2.
    pub fn from_arguments() -> Config {
        Config::parse_from(std::env::args_os().map(|argument| match argument.to_str() {
            Some(text) => two_dashes(text).into(),
            None => argument,
        }))
    }

    /// The folder of all data.
    pub fn data_folder(&self) -> PathBuf {
        let home = || std::env::home_dir().unwrap_or_default().join(".groat");
        self.datadir.clone().unwrap_or_else(home)
    }
}

/// `-name` as `--name`: Core takes both, and people paste both.
fn two_dashes(argument: &str) -> String {
    let mut letters = argument.chars();
    let long = letters.next() == Some('-')
        && letters.next().is_some_and(|letter| letter.is_ascii_alphabetic())
        && letters.next().is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    if long { format!("-{argument}") } else { argument.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_is_as_good_as_two() {
        let config =
            Config::parse_from(["groatd", "-chain=regtest", "-datadir=/x", "--par=2", "import", "-"].map(two_dashes));
        assert_eq!((config.chain.as_str(), config.par), ("regtest", 2));
        assert!(matches!(config.command, Command::Import { files } if files == [PathBuf::from("-")]));
    }
}
