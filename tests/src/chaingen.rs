//! Generates whole regtest chains, seed in, chain out, for benches and for differential tests. Builds and signs with
//! the `bitcoin` and `secp256k1` crates: a second opinion that must not use groat_chain.
//!
//! Both chains begin alike: coinbases alone until the first ones mature, then *fan-out* blocks that split them into
//! the coins that the rest of the chain spends.

pub mod coins;
pub mod full;
pub mod keys;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use bitcoin::consensus::encode::serialize;
use bitcoin::script::ScriptBuf;
use bitcoin::{Block, BlockHash, OutPoint, Transaction};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::regtest;

/// A block file of Core ends before it would grow beyond this (`MAX_BLOCKFILE_SIZE`).
const MAX_BLOCKFILE_SIZE: usize = 0x800_0000;
/// `COINBASE_MATURITY`.
const COINBASE_MATURITY: u32 = 100;
/// Weight that a generated block aims at; at most `MAX_BLOCK_WEIGHT` (4,000,000), header and coinbase included.
const TARGET_WEIGHT: usize = 3_985_000;
/// Weight left for header and coinbase.
const FRAME_WEIGHT: usize = 2_000;

/// Facts about a generated chain, to hold an import against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Which chain: `full` or `coins`.
    pub kind: String,
    /// The seed it came from.
    pub seed: u64,
    /// Height of the tip.
    pub height: u32,
    /// Hash of the tip, in display order.
    pub tip: String,
    /// Transactions of all blocks, genesis and coinbases included (Core: `getchaintxstats` `txcount`).
    pub transactions: u64,
    /// Spent inputs by kind of coin.
    pub inputs: BTreeMap<String, u64>,
    /// ECDSA checks that a validation runs, the failing ones of CHECKMULTISIG included.
    pub ecdsa_checks: u64,
    /// ECDSA checks that fail: a signature held against another key of a CHECKMULTISIG.
    pub ecdsa_failing: u64,
    /// Schnorr checks.
    pub schnorr_checks: u64,
    /// Taproot commitments checked: one tweak of a key for each script path spend.
    pub taproot_tweaks: u64,
    /// Coins at the tip (Core: `gettxoutsetinfo` `txouts`).
    pub utxos: u64,
    /// Satoshis in these coins (Core: `total_amount`).
    pub total_amount: u64,
    /// Bytes of all blocks, without framing.
    pub bytes: u64,
}

impl Summary {
    /// Reads `summary.json` of a generated folder.
    pub fn read(folder: &Path) -> std::io::Result<Summary> {
        Ok(serde_json::from_slice(&std::fs::read(folder.join("summary.json"))?)?)
    }
}

/// The block files of a generated folder, in order.
pub fn block_files(folder: &Path) -> Vec<PathBuf> {
    (0..).map(|number| file_name(folder, number)).take_while(|path| path.is_file()).collect()
}

fn file_name(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("blk{number:05}.dat"))
}

/// The chain that is being written: its tip, its files, what is known about it.
struct Chain {
    folder: PathBuf,
    file: BufWriter<File>,
    files: u32,
    file_bytes: usize,
    tip: BlockHash,
    summary: Summary,
}

impl Chain {
    /// An empty chain in `folder`, which is made, with the genesis block as its first frame.
    fn create(folder: &Path, kind: &str, seed: u64) -> std::io::Result<Chain> {
        std::fs::create_dir_all(folder)?;
        for old in block_files(folder) {
            std::fs::remove_file(old)?;
        }
        let genesis = regtest::genesis();
        let mut chain = Chain {
            folder: folder.into(),
            file: BufWriter::new(File::create(file_name(folder, 0))?),
            files: 1,
            file_bytes: 0,
            tip: genesis.block_hash(),
            summary: Summary { kind: kind.into(), seed, transactions: 1, ..Summary::default() },
        };
        chain.write(&genesis)?;
        Ok(chain)
    }

    fn height(&self) -> u32 {
        self.summary.height
    }

    /// Puts a block on the tip: a coinbase that pays subsidy and `fees` in `parts` outputs to `script`, and
    /// `transactions`. Gives the coinbase's coins.
    fn extend(
        &mut self,
        script: ScriptBuf,
        parts: u64,
        fees: u64,
        transactions: Vec<Transaction>,
    ) -> std::io::Result<Vec<(OutPoint, u64)>> {
        let height = self.height() + 1;
        let part = (regtest::subsidy(height).to_sat() + fees) / parts;
        let outputs = (0..parts).map(|_| regtest::output(part, script.clone())).collect();
        let mut all = vec![regtest::coinbase(height, self.summary.seed, outputs)];
        all.extend(transactions);
        let block = regtest::block(self.tip, regtest::time_at(height), all);
        assert!(block.weight().to_wu() <= 4_000_000, "the generated block {height} weighs {}", block.weight());
        self.tip = block.block_hash();
        self.summary.height = height;
        self.summary.transactions += block.txdata.len() as u64;
        for transaction in &block.txdata {
            for output in transaction.output.iter().filter(|output| !output.script_pubkey.is_op_return()) {
                self.summary.utxos += 1;
                self.summary.total_amount += output.value.to_sat();
            }
        }
        self.write(&block)?;
        let txid = block.txdata[0].compute_txid();
        Ok((0..parts as u32).map(|vout| (OutPoint { txid, vout }, part)).collect())
    }

    /// Counts a spent coin.
    fn spent(&mut self, value: u64) {
        self.summary.utxos -= 1;
        self.summary.total_amount -= value;
    }

    /// Writes a frame as Core does: magic, length, block.
    fn write(&mut self, block: &Block) -> std::io::Result<()> {
        let bytes = serialize(block);
        if self.file_bytes + bytes.len() + 8 > MAX_BLOCKFILE_SIZE {
            self.file.flush()?;
            self.file = BufWriter::new(File::create(file_name(&self.folder, self.files))?);
            self.files += 1;
            self.file_bytes = 0;
        }
        self.file.write_all(&regtest::MAGIC)?;
        self.file.write_all(&(bytes.len() as u32).to_le_bytes())?;
        self.file.write_all(&bytes)?;
        self.file_bytes += bytes.len() + 8;
        self.summary.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes `summary.json` and hands it back.
    fn finish(mut self) -> std::io::Result<Summary> {
        self.file.flush()?;
        self.summary.tip = self.tip.to_string();
        std::fs::write(self.folder.join("summary.json"), serde_json::to_string_pretty(&self.summary)? + "\n")?;
        Ok(self.summary)
    }
}

/// A coin that a later transaction may spend. What `script` means is the generator's affair.
#[derive(Clone, Copy, Debug)]
pub struct Coin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// In satoshi.
    pub value: u64,
    /// Number of its script.
    pub script: u32,
}

/// The coins to spend from. Half of what is taken is of recent age, half of any age, in random order.
struct Purse {
    recent: VecDeque<Coin>,
    old: Vec<Coin>,
    random: ChaCha8Rng,
}

impl Purse {
    /// So many of the last coins count as recent.
    const RECENT: usize = 20_000;

    fn new(seed: u64) -> Purse {
        Purse { recent: VecDeque::new(), old: Vec::new(), random: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn put(&mut self, coin: Coin) {
        self.recent.push_back(coin);
        if self.recent.len() > Purse::RECENT {
            self.old.extend(self.recent.pop_front());
        }
    }

    /// A coin. There must be one.
    fn take(&mut self) -> Coin {
        if self.old.is_empty() || (!self.recent.is_empty() && self.random.random_bool(0.5)) {
            let place = self.random.random_range(0..self.recent.len());
            self.recent.swap_remove_back(place).expect("the place is below the length")
        } else {
            let place = self.random.random_range(0..self.old.len());
            self.old.swap_remove(place)
        }
    }

    /// One of several weighted choices: gives the index.
    fn choose(&mut self, weights: &[u32]) -> usize {
        let mut left = self.random.random_range(0..weights.iter().sum::<u32>());
        for (index, weight) in weights.iter().enumerate() {
            match left.checked_sub(*weight) {
                Some(less) => left = less,
                None => return index,
            }
        }
        unreachable!("the draw is below the sum")
    }

    /// Splits `value` less a fee into at most `parts` random amounts, each above zero. The fee is above zero too.
    fn split(&mut self, value: u64, parts: usize) -> (Vec<u64>, u64) {
        let fee = self.random.random_range(200..4_000).min(value / 10).max(1);
        let mut left = value - fee;
        let mut amounts = Vec::new();
        for rest in (1..=parts as u64).rev() {
            let even = left / rest;
            let amount = if rest == 1 || even < 2_000 { left } else { self.random.random_range(even / 2..even) };
            left -= amount;
            amounts.push(amount);
            if left == 0 {
                break;
            }
        }
        (amounts, fee)
    }
}
