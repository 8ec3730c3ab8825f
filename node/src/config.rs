//! The options, under Core's names: from the command line with one dash or two, from the environment, from `groat.conf`.
//! Every option takes a value, which `read` supplies where Core lets it be left out.

mod file;
mod http;
mod ignored;
mod index;
mod log;
mod mining;
mod notify;
mod peers;
mod read;
mod settings;
mod show;
mod start;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::bail;
use bitcoin::{Amount, Denomination};
use clap::ArgAction::Set;
use clap::{Parser, Subcommand};
use groat_chain::mempool::{BlockLimits, Policy};
use groat_chain::params::Params;
use groat_chain::rules::limits::MAX_BLOCK_WEIGHT;
use groat_net::protocol;

use crate::miner;

pub use http::Http;
pub use index::Indexes;
pub use log::Log;
pub use mining::Mining;
pub use notify::Notify;
pub use peers::Peers;
pub use read::{Read, Stop};
pub use settings::{Given, Origin, Value};
pub use start::{Start, user_agent};

/// A Bitcoin full node small enough to read and fast enough to run.
#[derive(Debug, Parser)]
#[command(name = "groatd", version = crate::VERSION, max_term_width = 100, args_override_self = true)]
pub struct Config {
    /// main, test, testnet4, signet, regtest (or short: --regtest), or the file of a network of one's own
    #[arg(long, value_name = "NAME|FILE", default_value = "testnet4")]
    pub chain: String,
    /// Folder of all data [default: ~/.groat]
    #[arg(long, value_name = "DIR")]
    pub datadir: Option<PathBuf>,
    /// Memory in MiB for the coin table, RocksDB's memtables and its block cache together
    #[arg(long, value_name = "MIB", default_value_t = 450)]
    pub dbcache: usize,
    /// Threads that check scripts and decode blocks; 0: as many as there are processors; -N: N less than that
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub par: i32,
    /// Take the scripts of this block's ancestors as valid; 0 runs every script [default: the network's]
    #[arg(long, value_name = "HASH|0")]
    pub assumevalid: Option<String>,
    /// Keep block files below this many MiB (at least 550); 1: prune by RPC only; 0 keeps all
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    pub prune: u64,
    /// Rebuild everything from the block files
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "0")]
    pub reindex: bool,
    /// Rebuild the coins from the blocks that are indexed
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "0")]
    pub reindex_chainstate: bool,
    /// Challenge script of a signet of one's own
    #[arg(long, value_name = "HEX")]
    pub signetchallenge: Vec<String>,
    /// Files, process, tests.
    #[command(flatten)]
    pub start: Start,
    /// Height from which a rule holds on regtest (bip34, dersig, cltv, csv, segwit); may be repeated
    #[arg(long, value_name = "NAME@HEIGHT")]
    pub testactivationheight: Vec<String>,
    /// Bits and heights of a deployment that miners signal for, on regtest (testdummy)
    #[arg(long, value_name = "NAME:START:END[:HEIGHT]", hide = true)]
    pub vbparams: Vec<String>,
    /// Name to ask for peers of a signet instead of the known ones; may be repeated
    #[arg(long, value_name = "HOST", hide = true)]
    pub signetseednode: Vec<String>,
    /// Test-only behaviour of regtest (addrman, bip94); may be repeated
    #[arg(long, value_name = "NAME", hide = true)]
    pub test: Vec<String>,
    /// Link with this peer only, whenever there is no link; may be repeated; 0: with none
    #[arg(long, value_name = "ADDR", help_heading = "Peers")]
    pub connect: Vec<String>,
    /// Link with this peer whenever there is no link; may be repeated
    #[arg(long, value_name = "ADDR", help_heading = "Peers")]
    pub addnode: Vec<String>,
    /// Let peers link with this node [default: 1, with --connect 0]
    #[arg(long, help_heading = "Peers", value_name = "0|1", value_parser = flag)]
    pub listen: Option<bool>,
    /// Port for peers [default: the network's]
    #[arg(long, value_name = "PORT", help_heading = "Peers")]
    pub port: Option<u16>,
    /// Address to listen on, with or without a port; =onion: for Tor's daemon; may be repeated [default: all; on regtest
    /// 127.0.0.1]
    #[arg(long, value_name = "ADDR[=onion]", help_heading = "Peers")]
    pub bind: Vec<String>,
    /// Most links to peers
    #[arg(long, value_name = "N", help_heading = "Peers", default_value_t = 125)]
    pub maxconnections: usize,
    /// Seconds within which a peer must have said who it is; before that none is lost for its silence
    #[arg(long, value_name = "SECONDS", help_heading = "Peers", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub peertimeout: u64,
    /// Dial with the encrypted transport of BIP324 first
    #[arg(long, help_heading = "Peers", default_value = "1", value_name = "0|1", value_parser = flag, action = Set)]
    pub v2transport: bool,
    /// Take no transactions from peers
    #[arg(long, help_heading = "Mempool", default_value = "0", value_name = "0|1", value_parser = flag, action = Set)]
    pub blocksonly: bool,
    /// Memory in MB for the transactions that wait for a block [default: 300, with --blocksonly 5]
    #[arg(long, value_name = "MB", help_heading = "Mempool")]
    pub maxmempool: Option<u32>,
    /// Hours that a transaction may wait
    #[arg(long, value_name = "HOURS", help_heading = "Mempool", default_value_t = 336)]
    pub mempoolexpiry: u32,
    /// Keep the waiting transactions over a restart
    #[arg(long, help_heading = "Mempool", default_value = "1", value_name = "0|1", value_parser = flag, action = Set)]
    pub persistmempool: bool,
    /// Least fee that is relayed, in BTC for 1000 virtual bytes [default: 0.00000100, or --incrementalrelayfee if that is more]
    #[arg(long, value_name = "BTC", help_heading = "Mempool", value_parser = btc)]
    pub minrelaytxfee: Option<u64>,
    /// What a full pool asks for on top, in BTC for 1000 virtual bytes
    #[arg(long, value_name = "BTC", help_heading = "Mempool", value_parser = btc, default_value = "0.00000100")]
    pub incrementalrelayfee: u64,
    /// Fee rate that says which outputs cost more to spend than they hold, in BTC for 1000 virtual bytes
    #[arg(long, value_name = "BTC", help_heading = "Mempool", value_parser = btc, default_value = "0.00003000", hide = true)]
    pub dustrelayfee: u64,
    /// Virtual bytes that a signature operation counts for at least
    #[arg(long, value_name = "N", help_heading = "Mempool", default_value_t = 20)]
    pub bytespersigop: u32,
    /// Relay outputs that carry data
    #[arg(long, help_heading = "Mempool", default_value = "1", value_name = "0|1", value_parser = flag, action = Set)]
    pub datacarrier: bool,
    /// Bytes of output scripts that carry data, in one transaction
    #[arg(long, value_name = "N", help_heading = "Mempool", default_value_t = 100_000)]
    pub datacarriersize: usize,
    /// Relay multisig outputs that are not behind a hash
    #[arg(long, help_heading = "Mempool", default_value = "1", value_name = "0|1", value_parser = flag, action = Set)]
    pub permitbaremultisig: bool,
    /// Relay transactions of other than the standard forms; not on the main network
    #[arg(long, help_heading = "Mempool", default_value = "0", value_name = "0|1", value_parser = flag, action = Set, hide = true)]
    pub acceptnonstdtxn: bool,
    /// Waiting transactions that may hang together
    #[arg(long, value_name = "N", help_heading = "Mempool", default_value_t = 64, hide = true)]
    pub limitclustercount: usize,
    /// Virtual kilobytes of waiting transactions that may hang together
    #[arg(long, value_name = "KVB", help_heading = "Mempool", default_value_t = 101, hide = true)]
    pub limitclustersize: u32,
    /// Most weight of a block made here
    #[arg(long, value_name = "N", help_heading = "Mining", default_value_t = MAX_BLOCK_WEIGHT as u64)]
    pub blockmaxweight: u64,
    /// Weight that a block made here keeps free for header and coinbase
    #[arg(long, value_name = "N", help_heading = "Mining", default_value_t = 8000)]
    pub blockreservedweight: u64,
    /// Least fee that a block made here takes, in BTC for 1000 virtual bytes
    #[arg(long, value_name = "BTC", help_heading = "Mining", value_parser = btc, default_value = "0.00000001")]
    pub blockmintxfee: u64,
    /// Tests of what miners do.
    #[command(flatten)]
    pub mining: Mining,
    /// Mine with this machine's processor and give the rewards to this address; regtest: a block a second at most
    #[arg(long, value_name = "ADDRESS", help_heading = "Mining")]
    pub mine_to: Option<String>,
    /// Threads that mine, at the lowest priority
    #[arg(long, value_name = "N", help_heading = "Mining", default_value_t = 1)]
    pub mine_threads: usize,
    /// File with the key (WIF or hex) that solves a signet's challenge
    #[arg(long, value_name = "FILE", help_heading = "Mining")]
    pub signet_key_file: Option<PathBuf>,
    /// How transactions are asked for: core (with Core's timers) or groat (the next peer is asked soon)
    #[arg(long, value_name = "core|groat", help_heading = "Peers", value_parser = relay, default_value = "core")]
    pub relay: protocol::Policy,
    /// Offer to reconcile transactions (BIP330); nothing is reconciled yet
    #[arg(long, help_heading = "Peers", default_value = "0", value_name = "0|1", value_parser = flag, action = Set)]
    pub txreconciliation: bool,
    /// Serve blocks and transactions by bloom filters (BIP37), and the whole pool (BIP35)
    #[arg(long, help_heading = "Peers", default_value = "0", value_name = "0|1", value_parser = flag, action = Set)]
    pub peerbloomfilters: bool,
    /// Send at most so many MiB a day before old blocks are refused; 0: no bound. Units k K m M g G t T: the small ones
    /// of 1000, the large ones of 1024
    #[arg(long, value_name = "N", help_heading = "Peers", value_parser = byte_units, default_value = "0")]
    pub maxuploadtarget: u64,
    /// Proxies, networks, permissions.
    #[command(flatten)]
    pub peers: Peers,
    /// Indexes beside the chain.
    #[command(flatten)]
    pub indexes: Indexes,
    /// Who is told of what.
    #[command(flatten)]
    pub notify: Notify,
    /// Answer JSON-RPC
    #[arg(long, help_heading = "RPC", default_value = "1", value_name = "0|1", value_parser = flag, action = Set)]
    pub server: bool,
    /// Port for JSON-RPC [default: the network's]
    #[arg(long, value_name = "PORT", help_heading = "RPC")]
    pub rpcport: Option<u16>,
    /// Who may call, where, and how much at once.
    #[command(flatten)]
    pub http: Http,
    /// The log.
    #[command(flatten)]
    pub log: Log,
    /// What to do instead of running the node
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `groatd` can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read blocks from files in Core's blk*.dat framing (`-`: standard input), validate and store them
    Import {
        /// Block files, in any order
        #[arg(required_unless_present = "from_bitcoin", conflicts_with = "from_bitcoin", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Read the block files of this data folder of Bitcoin Core; nothing in it is changed
        #[arg(long, value_name = "DIR")]
        from_bitcoin: Option<PathBuf>,
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
    /// Look at the options: what is set, and where
    Config {
        /// Print a configuration file with every option commented out
        #[arg(long, conflicts_with_all = ["check", "ignored"])]
        default: bool,
        /// Print what is set and where
        #[arg(long)]
        check: bool,
        /// Print which of Core's options are taken without effect
        #[arg(long, conflicts_with = "check")]
        ignored: bool,
    },
    /// Print the completions of a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff
    Man,
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
    /// Reads arguments (the first is the process's name), environment and files.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Read, Stop> {
        read::read(arguments, variable)
    }

    /// What `groatd config`, `completions` and `man` print.
    pub fn shown(read: &Read) -> Option<String> {
        match read.config.command {
            Some(Command::Config { default: true, .. }) => Some(show::default()),
            Some(Command::Config { ignored: true, .. }) => Some(show::ignored()),
            Some(Command::Config { .. }) => Some(show::check(&read.counts)),
            Some(Command::Completions { shell }) => Some(show::completions(shell)),
            Some(Command::Man) => Some(show::manual()),
            _ => None,
        }
    }

    /// What the mempool takes.
    pub fn policy(&self) -> anyhow::Result<Policy> {
        /// Core: `DEFAULT_BLOCKSONLY_MAX_MEMPOOL_SIZE_MB`.
        const BLOCKSONLY_MB: u32 = 5;
        let default = Policy::default();
        let megabytes = self.maxmempool.unwrap_or(if self.blocksonly { BLOCKSONLY_MB } else { 300 });
        if self.acceptnonstdtxn && self.chain == "main" {
            bail!("acceptnonstdtxn is not currently supported for main chain");
        }
        if self.limitclustercount > default.cluster_count {
            bail!("limitclustercount must be less than or equal to {}", default.cluster_count);
        }
        let max_bytes = u64::from(megabytes) * 1_000_000;
        // Core: `Flatten`.
        let least = u64::from(self.limitclustersize) * 1000 * 40;
        if (1..least).contains(&max_bytes) {
            bail!("-maxmempool must be at least {} MB", least.div_ceil(1_000_000));
        }
        Ok(Policy {
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            expiry: u64::from(self.mempoolexpiry) * 60 * 60,
            require_standard: !self.acceptnonstdtxn,
            min_relay_fee: self.minrelaytxfee.unwrap_or(default.min_relay_fee.max(self.incrementalrelayfee)),
            incremental_relay_fee: self.incrementalrelayfee,
            dust_relay_fee: self.dustrelayfee,
            max_datacarrier_bytes: self.datacarrier.then_some(self.datacarriersize),
            permit_bare_multisig: self.permitbaremultisig,
            bytes_per_sigop: self.bytespersigop.into(),
            cluster_count: self.limitclustercount,
            cluster_vbytes: u64::from(self.limitclustersize) * 1000,
        })
    }

    /// What a block made here takes.
    pub fn block_limits(&self) -> anyhow::Result<BlockLimits> {
        let (most, reserved) = (self.blockmaxweight, self.blockreservedweight);
        if most > MAX_BLOCK_WEIGHT as u64 {
            bail!("Specified -blockmaxweight ({most}) exceeds consensus maximum block weight ({MAX_BLOCK_WEIGHT})");
        }
        if !(MINIMUM_BLOCK_RESERVED_WEIGHT..=most).contains(&reserved) {
            bail!("-blockreservedweight takes {MINIMUM_BLOCK_RESERVED_WEIGHT} to -blockmaxweight, not {reserved}");
        }
        Ok(BlockLimits { max_weight: most, reserved_weight: reserved, min_fee: self.blockmintxfee })
    }

    /// What the built-in miner is to do, if it is to mine.
    pub fn mining(&self, params: &Params) -> anyhow::Result<Option<miner::Options>> {
        if self.mine_to.is_none() && self.signet_key_file.is_some() {
            bail!("--signet-key-file is for mining: say with --mine-to who gets the rewards");
        }
        let key = self.signet_key_file.as_deref();
        let to = self.mine_to.as_ref();
        to.map(|to| miner::Options::new(to, self.mine_threads, self.block_limits()?, key, params)).transpose()
    }

    /// The folder of all data.
    pub(crate) fn data_folder(&self) -> PathBuf {
        self.datadir.clone().unwrap_or_else(default_folder)
    }
}

/// Where all data lies if nothing else is said.
fn default_folder() -> PathBuf {
    std::env::home_dir().unwrap_or_default().join(".groat")
}

/// Core's name and value.
const MINIMUM_BLOCK_RESERVED_WEIGHT: u64 = 2000;

/// An amount of BTC, in satoshi. Core: `ParseMoney`.
fn btc(text: &str) -> Result<u64, String> {
    let amount = Amount::from_str_in(text, Denomination::Bitcoin).map_err(|error| error.to_string())?;
    if amount > Amount::MAX_MONEY { Err("it is more than all money".into()) } else { Ok(amount.to_sat()) }
}

/// A switch as Core takes it: nothing, or a number. Core takes words as 0, which nobody means who writes `true`.
fn flag(text: &str) -> Result<bool, String> {
    match (text, text.trim().parse::<i64>()) {
        ("", _) => Ok(true),
        (_, Ok(number)) => Ok(number != 0),
        _ => Err("it is 0 or 1".into()),
    }
}

fn relay(text: &str) -> Result<protocol::Policy, String> {
    match text {
        "core" => Ok(protocol::Policy::Core),
        "groat" => Ok(protocol::Policy::Groat),
        _ => Err("it is core or groat".into()),
    }
}

/// A number of bytes, of MiB where no unit is given. Core: `ParseByteUnits`.
fn byte_units(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => (&text[..at], unit),
        _ => (text, 'M'),
    };
    let power = "kmgt".find(unit.to_ascii_lowercase()).ok_or("the units are k K m M g G t T")?;
    let base: u64 = if unit.is_ascii_lowercase() { 1000 } else { 1024 };
    let unit = base.pow(u32::try_from(power).expect("below four") + 1);
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number: Option<u64> = digits.parse().ok().filter(|_| plain);
    number.and_then(|number| number.checked_mul(unit)).ok_or_else(|| "it is a number, with or without a unit".into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_as_with_core() {
        let parse = |text: &str| {
            Config::try_parse_from(["groatd", &format!("--maxuploadtarget={text}")])
                .map(|config| config.maxuploadtarget)
        };
        for (text, expected) in [
            ("0", 0),
            ("800", 800 << 20),
            ("7k", 7000),
            ("7K", 7 << 10),
            ("7m", 7_000_000),
            ("7M", 7 << 20),
            ("7g", 7_000_000_000),
            ("7G", 7 << 30),
            ("7t", 7_000_000_000_000),
            ("7T", 7 << 40),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for text in ["", "M", "-1", "+1", "1x", "1 M", "1MM", "18446744073709551615", "18446744073709551616k"] {
            assert!(parse(text).is_err(), "{text:?} is no number of bytes");
        }
    }

    #[test]
    fn a_pool_that_makes_no_sense_is_refused_with_a_sentence() {
        let policy = |argument: &str| {
            let config = Config::try_parse_from(["groatd", argument]).map_err(|error| error.to_string())?;
            config.policy().map_err(|error| error.to_string())
        };
        for (argument, text) in [
            ("--maxmempool=4", "-maxmempool must be at least 5 MB"),
            ("--limitclustersize=4294967295", "-maxmempool must be at least 171798692 MB"),
            ("--limitclustercount=65", "limitclustercount must be less than or equal to 64"),
            ("--maxmempool=4294967296", "4294967296 is not in 0..=4294967295"),
            ("--mempoolexpiry=4294967296", "4294967296 is not in 0..=4294967295"),
            ("--limitclustersize=4294967296", "4294967296 is not in 0..=4294967295"),
            ("--minrelaytxfee=21000000.00000001", "it is more than all money"),
        ] {
            let told = policy(argument).unwrap_err();
            assert!(told.contains(text), "{argument}: expected {text:?}, got {told:?}");
        }
        assert_eq!(policy("--maxmempool=0").unwrap().max_bytes, 0, "a pool may hold nothing");
        assert_eq!(policy("--maxmempool=5").unwrap().max_bytes, 5_000_000);
        assert_eq!(policy("--mempoolexpiry=4294967295").unwrap().expiry, 4_294_967_295 * 3600);
    }

    #[test]
    fn switches_are_numbers() {
        for (text, expected) in [("", true), ("0", false), ("1", true), ("2", true), ("-1", true), (" 0 ", false)] {
            assert_eq!(flag(text), Ok(expected), "{text:?}");
        }
        assert!(flag("true").is_err() && flag("no").is_err());
    }
}
