//! Opens the ledger of a data folder as the command line wants it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use bitcoin::hex::FromHex;
use bitcoin::{BlockHash, ScriptBuf, Work};
use groat_chain::index::Index;
use groat_chain::ledger::{Ledger, Options, PRUNE_TARGET_MANUAL};
use groat_chain::params::{Params, RegtestOptions, parse_activation_height};
use groat_chain::pool::Pool;
use groat_chain::rules::header::MAX_FUTURE_BLOCK_TIME;
use groat_chain::store::MAX_BLOCKFILE_SIZE;
use groat_chain::store::rocks::RocksStore;
use groat_chain::store::{Batch, Store};

use crate::clock;
use crate::config::Config;

/// A ledger with what belongs to it.
pub struct Chainstate {
    /// The single writer.
    pub ledger: Ledger,
    /// The checking threads.
    pub pool: Arc<Pool>,
    /// Folder of this network's data.
    pub folder: PathBuf,
    /// Folder of its block files.
    pub blocks: PathBuf,
}

/// Smallest `--prune` that leaves room for the blocks that must be kept (Core's `MIN_DISK_SPACE_FOR_BLOCK_FILES`).
const MIN_PRUNE_MIB: u64 = 550;
/// Smallest `--dbcache`; less is taken as this (Core's `MIN_DB_CACHE`).
const MIN_CACHE_MIB: usize = 4;
/// Name of the record of the height from which blocks came with their witnesses.
const SEGWIT_HEIGHT: &str = "segwit";
/// Longest block file with `--fastprune`. Core: `FlatFileSeq` with 64 KiB.
const FASTPRUNE_FILE_SIZE: u32 = 0x1_0000;

/// A store that is ours, with what its ledger is to be.
pub struct OpenStore {
    /// The network.
    pub params: Arc<Params>,
    /// Folder of this network's data.
    pub folder: PathBuf,
    store: Arc<dyn Store>,
    pool: Arc<Pool>,
    options: Options,
    indexes: Vec<Index>,
    blocks: PathBuf,
}

/// Opens the store, locked against other processes, which takes no long time. `--reindex` forgets all but the block files.
pub fn open_store(config: &Config) -> anyhow::Result<OpenStore> {
    let params = Arc::new(network(config)?);
    let indexes = config.indexes.wanted(config.prune > 0)?;
    let folder = config.data_folder().join(&params.folder);
    let blocks = blocks_folder(config, &params)?;
    refuse_bitcoin_core(&folder, &blocks)?;
    let cache = config.dbcache.max(MIN_CACHE_MIB);
    // Coins in the table are worth more than blocks of RocksDB's: it gets an eighth, 8 to 256 MiB, at most a quarter.
    let store_cache = (cache / 8).clamp(8.min(cache / 4), 256);
    let options = Options {
        assumed_valid: assumed_valid(config, &params)?,
        table_bytes: (cache - store_cache) << 20,
        prune: prune(config)?,
    };
    let file_size = if config.start.fastprune { FASTPRUNE_FILE_SIZE } else { MAX_BLOCKFILE_SIZE };
    let (magic, reindex) = (params.magic, config.reindex);
    let store = RocksStore::open_with(&folder, &blocks, file_size, magic, store_cache << 20, reindex)?;
    if config.reindex_chainstate {
        Ledger::rewind_to_genesis(&store)?;
    }
    let (store, pool) = (Arc::new(store), Arc::new(Pool::new(threads(config))));
    Ok(OpenStore { params, folder, store, pool, options, indexes, blocks })
}

impl OpenStore {
    /// Opens the ledger: reads all headers, and repairs what a crash left.
    pub fn open(self) -> anyhow::Result<Chainstate> {
        let OpenStore { params, folder, store, pool, options, indexes, blocks } = self;
        let mut ledger = Ledger::open(params, store, pool.clone(), options)?;
        refuse_missing_witnesses(&ledger)?;
        ledger.keep_indexes(&indexes)?;
        Ok(Chainstate { ledger, pool, folder, blocks })
    }
}

/// Blocks that came while segwit held from a later height on only have no witnesses. Core: `NeedsRedownload`.
fn refuse_missing_witnesses(ledger: &Ledger) -> anyhow::Result<()> {
    let (store, height) = (ledger.store(), ledger.params().segwit_height);
    let known = store.meta(SEGWIT_HEIGHT)?.and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    if known.is_some_and(|known| height < known && height <= ledger.height()) {
        bail!(
            "Witness data for blocks after height {height} requires validation. Please restart with -reindex..\n\
             Please restart with -reindex or -reindex-chainstate to recover."
        );
    }
    if known != Some(height) {
        let record = (SEGWIT_HEIGHT, Some(height.to_le_bytes().to_vec()));
        store.write(Batch { meta: vec![record], ..Batch::default() }, false)?;
    }
    Ok(())
}

/// Where the block files of a network lie.
pub fn blocks_folder(config: &Config, params: &Params) -> anyhow::Result<PathBuf> {
    if let Some(named) = config.start.blocksdir.as_ref().filter(|named| !named.is_dir()) {
        bail!("Specified blocks directory \"{}\" does not exist.", named.display());
    }
    let top = config.start.blocksdir.clone().unwrap_or_else(|| config.data_folder());
    Ok(top.join(&params.folder).join("blocks"))
}

/// Block files of Bitcoin Core are obfuscated, and its own: nothing may be appended to them.
fn refuse_bitcoin_core(folder: &Path, blocks: &Path) -> anyhow::Result<()> {
    let theirs = [folder.join("chainstate"), blocks.join("index"), blocks.join("xor.dat")];
    match theirs.iter().find(|path| path.exists()) {
        None => Ok(()),
        Some(found) => bail!(
            "{} is Bitcoin Core's: choose another folder with --datadir, and take its blocks from there with \
             groatd import --from-bitcoin",
            found.display()
        ),
    }
}

/// A tip beyond what the clock allows says that the clock is wrong. Core: `VerifyLoadedChainstate`.
pub fn refuse_future_tip(ledger: &Ledger) -> anyhow::Result<()> {
    let tree = ledger.tree();
    let tree = tree.read();
    if u64::from(tree.node(tree.tip()).time) > u64::from(clock::now()) + u64::from(MAX_FUTURE_BLOCK_TIME) {
        bail!(
            "The block database contains a block which appears to be from the future. This may be due to your \
             computer's date and time being set incorrectly. Only rebuild the block database if you are sure that your \
             computer's date and time are correct.\nPlease restart with -reindex or -reindex-chainstate to recover."
        );
    }
    Ok(())
}

/// Who offers all blocks must have them: pruned ones do not come back by an option. Core: `LoadChainstate`.
pub fn refuse_missing_blocks(ledger: &Ledger, config: &Config) -> anyhow::Result<()> {
    let tree = ledger.tree();
    let tree = tree.read();
    let is_stored = |height| tree.active(height).is_some_and(|id| tree.node(id).block().is_some());
    if config.prune == 0 && !(1..=ledger.height()).all(is_stored) {
        bail!(
            "You need to rebuild the database using -reindex to go back to unpruned mode.  This will redownload the \
             entire blockchain.\nPlease restart with -reindex or -reindex-chainstate to recover."
        );
    }
    Ok(())
}

/// The parameters of the network that was named, with what the options change of them.
pub fn network(config: &Config) -> anyhow::Result<Params> {
    let mut params = named_network(config)?;
    if let Some(hex) = &config.start.minimumchainwork {
        params.minimum_chain_work = work(hex)?;
    }
    params.max_tip_age = config.start.maxtipage;
    Ok(params)
}

/// Core: `uint256::FromUserHex`.
fn work(text: &str) -> anyhow::Result<Work> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let work = Some(digits).filter(|digits| digits.len() <= 64);
    let work = work.and_then(|digits| <[u8; 32]>::from_hex(&format!("{digits:0>64}")).ok());
    match work {
        Some(bytes) => Ok(Work::from_be_bytes(bytes)),
        None => bail!("Invalid minimum work specified ({text}), must be up to 64 hex digits"),
    }
}

fn named_network(config: &Config) -> anyhow::Result<Params> {
    if !config.signetchallenge.is_empty() && config.chain != "signet" {
        bail!("--signetchallenge is for --chain signet");
    }
    if !config.testactivationheight.is_empty() && config.chain != "regtest" {
        bail!("--testactivationheight is for --chain regtest");
    }
    if !config.test.is_empty() && config.chain != "regtest" {
        bail!("-test=<option> can only be used with regtest");
    }
    match config.chain.as_str() {
        "signet" => {
            if config.signetchallenge.len() > 1 {
                bail!("-signetchallenge cannot be multiple values.");
            }
            let challenge = config.signetchallenge.first().map(|hex| {
                ScriptBuf::from_hex(hex).map_err(|_| anyhow::anyhow!("-signetchallenge must be hex, not '{hex}'."))
            });
            let mut params = Params::signet(challenge.transpose()?);
            if !config.signetseednode.is_empty() {
                params.dns_seeds.clone_from(&config.signetseednode);
            }
            Ok(params)
        }
        "regtest" => {
            let mut options = RegtestOptions {
                fast_prune: config.start.fastprune,
                block_version: config.mining.blockversion,
                ..RegtestOptions::default()
            };
            for argument in &config.testactivationheight {
                options.activation_heights.push(parse_activation_height(argument)?);
            }
            options.testdummy = config.vbparams.last().map(|text| version_bits(text)).transpose()?;
            options.bip94 = config.test.iter().any(|name| name == "bip94");
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

/// Start, timeout and least height of a deployment. Core: `HandleDeploymentArgs`.
fn version_bits(text: &str) -> anyhow::Result<(i64, i64, u32)> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |name: &str, at: usize| {
        let text = parts.get(at).copied().unwrap_or("0");
        text.parse::<i64>().map_err(|_| anyhow::anyhow!("Invalid {name} ({text})"))
    };
    if !(3..=4).contains(&parts.len()) {
        bail!("Version bits parameters malformed, expecting deployment:start:end[:min_activation_height]");
    }
    let (start, timeout, height) =
        (number("nStartTime", 1)?, number("nTimeout", 2)?, number("min_activation_height", 3)?);
    if parts[0] != "testdummy" {
        bail!("Invalid deployment ({})", parts[0]);
    }
    let height = u32::try_from(height).map_err(|_| anyhow::anyhow!("Invalid min_activation_height ({height})"))?;
    Ok((start, timeout, height))
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

/// Bytes that block and undo files may take; none: nothing is pruned.
pub fn prune(config: &Config) -> anyhow::Result<Option<u64>> {
    match config.prune {
        0 => Ok(None),
        1 => Ok(Some(PRUNE_TARGET_MANUAL)),
        mib if mib < MIN_PRUNE_MIB => {
            bail!("--prune takes at least {MIN_PRUNE_MIB} (MiB), 1 to prune by RPC only, or 0 to keep all blocks")
        }
        mib => Ok(Some(mib << 20)),
    }
}

fn threads(config: &Config) -> usize {
    let processors = || std::thread::available_parallelism().map_or(2, usize::from);
    match usize::try_from(config.par) {
        Ok(0) => processors(),
        Ok(threads) => threads,
        Err(_) => processors().saturating_sub(config.par.unsigned_abs() as usize).max(1),
    }
}
