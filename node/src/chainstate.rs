//! Opens the ledger of a data folder as the command line wants it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use bitcoin::{BlockHash, ScriptBuf};
use groat_chain::ledger::{Ledger, Options};
use groat_chain::params::{Params, RegtestOptions, parse_activation_height};
use groat_chain::pool::Pool;
use groat_chain::store::Store;
use groat_chain::store::rocks::RocksStore;

use crate::config::Config;

/// A ledger with what belongs to it.
pub struct Chainstate {
    /// The single writer.
    pub ledger: Ledger,
    /// The checking threads.
    pub pool: Arc<Pool>,
    /// Folder of this network's data.
    pub folder: PathBuf,
}

/// Smallest `--prune` that leaves room for the blocks that must be kept (Core's `MIN_DISK_SPACE_FOR_BLOCK_FILES`).
const MIN_PRUNE_MIB: u64 = 550;
/// Smallest `--dbcache`; less is taken as this (Core's `MIN_DB_CACHE`).
const MIN_CACHE_MIB: usize = 4;

/// Opens the ledger, locked against other processes. `--reindex` forgets all but the block files.
pub fn open(config: &Config) -> anyhow::Result<Chainstate> {
    let params = Arc::new(network(config)?);
    let folder = config.data_folder().join(&params.folder);
    let cache = config.dbcache.max(MIN_CACHE_MIB);
    // Coins in the table are worth more than blocks of RocksDB's: it gets an eighth, 8 to 256 MiB, at most a quarter.
    let store_cache = (cache / 8).clamp(8.min(cache / 4), 256);
    let options = Options {
        assumed_valid: assumed_valid(config, &params)?,
        table_bytes: (cache - store_cache) << 20,
        prune: prune(config)?,
    };
    let store = RocksStore::open(&folder, params.magic, store_cache << 20, config.reindex)?;
    if config.reindex_chainstate {
        Ledger::rewind_to_genesis(&store)?;
    }
    let store: Arc<dyn Store> = Arc::new(store);
    let pool = Arc::new(Pool::new(threads(config)));
    let ledger = Ledger::open(params, store, pool.clone(), options)?;
    Ok(Chainstate { ledger, pool, folder })
}

/// The parameters of the network that was named.
pub fn network(config: &Config) -> anyhow::Result<Params> {
    if config.signetchallenge.is_some() && config.chain != "signet" {
        bail!("--signetchallenge is for --chain signet");
    }
    if !(config.testactivationheight.is_empty() && config.test.is_empty()) && config.chain != "regtest" {
        bail!("--testactivationheight and --test are for --chain regtest");
    }
    match config.chain.as_str() {
        "signet" => {
            let challenge = config.signetchallenge.as_deref().map(|hex| {
                ScriptBuf::from_hex(hex).map_err(|_| anyhow::anyhow!("-signetchallenge must be hex, not '{hex}'."))
            });
            Ok(Params::signet(challenge.transpose()?))
        }
        "regtest" => {
            let mut options = RegtestOptions { block_version: config.mining.blockversion, ..RegtestOptions::default() };
            for argument in &config.testactivationheight {
                options.activation_heights.push(parse_activation_height(argument)?);
            }
            for name in &config.test {
                match name.as_str() {
                    "bip94" => options.bip94 = true,
                    _ => bail!("--test={name} is not known; there is bip94"),
                }
            }
            Ok(Params::regtest(&options))
        }
        name => match Params::by_name(name) {
            Some(params) => Ok(params),
            None if std::path::Path::new(name).exists() => Ok(Params::from_file(name.as_ref())?),
            None => bail!(
                "there is no network \"{name}\" and no such file; \
                 known are main, test, testnet4, signet, regtest, or give the file of a network of your own"
            ),
        },
    }
}

fn assumed_valid(config: &Config, params: &Params) -> anyhow::Result<Option<BlockHash>> {
    match config.assumevalid.as_deref() {
        None => Ok(params.assumed_valid),
        Some("0") => Ok(None),
        Some(hash) => match hash.parse() {
            Ok(hash) => Ok(Some(hash)),
            Err(_) => bail!("--assumevalid takes the hash of a block (64 hex digits) or 0, not \"{hash}\""),
        },
    }
}

fn prune(config: &Config) -> anyhow::Result<Option<u64>> {
    match config.prune {
        0 => Ok(None),
        mib if mib < MIN_PRUNE_MIB => bail!("--prune takes at least {MIN_PRUNE_MIB} (MiB), or 0 to keep all blocks"),
        mib => Ok(Some(mib << 20)),
    }
}

fn threads(config: &Config) -> usize {
    match config.par {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        threads => threads,
    }
}
