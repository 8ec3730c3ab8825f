//! `bench wallet`: what the wallet's commands take with a long history on a long chain: a restore that reads all blocks and
//! one by filters, `balance`, a payment, and the first look at a mempool of strangers' transactions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Witness};
use groat_tests::groatd::Groatd;
use groat_tests::regtest;
use groat_tests::running::Running;
use miniscript::{Descriptor, DescriptorPublicKey};
use serde_json::{Value, json};

use crate::process::{Cost, measure};

/// Payments in each block that has some.
const PER_BLOCK: u32 = 100;
/// Payments to one address.
const PER_ADDRESS: u32 = 25;
/// Satoshi of each.
const AMOUNT: u64 = 20_000;
/// Seconds from block to block, the last one being made now.
const SPACING: u32 = 60;
/// Height of the first block with payments: coinbases are mature.
const FIRST: u32 = 110;
/// An address that nobody has.
const ELSEWHERE: &str = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";
/// How long an index may take to be complete.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub struct Wallet {
    /// The groat to measure.
    #[arg(long)]
    groat: PathBuf,
    /// Folder for the data.
    #[arg(long)]
    folder: PathBuf,
    /// Blocks of the chain.
    #[arg(long, default_value_t = 100_000)]
    blocks: u32,
    /// Payments to the wallet.
    #[arg(long, default_value_t = 50_000)]
    payments: u32,
    /// Strangers' transactions in the mempool.
    #[arg(long, default_value_t = 20_000)]
    waiting: u32,
    /// Times of each command; the best counts.
    #[arg(long, default_value_t = 3)]
    runs: u32,
}

/// Wallets and the node they look at.
struct Groat<'a> {
    program: &'a Path,
    folder: &'a Path,
    node: Option<(String, PathBuf)>,
}

impl Groat<'_> {
    fn command(&self, wallet: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(arguments).args(["--chain", "regtest", "--json", "--yes", "--no-input", "--wallet", wallet]);
        command.arg("--datadir").arg(self.folder).arg("--password-file").arg(self.folder.join("password"));
        if let Some((rpc, cookie)) = &self.node {
            command.args(["--rpc", rpc]).arg("--rpc-cookie").arg(cookie);
        }
        command.env_remove("GROAT_CHAIN");
        command
    }

    fn json(&self, wallet: &str, arguments: &[&str]) -> Result<Value> {
        let output = self.command(wallet, arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "groat {arguments:?}: {said}");
        eprint!("{said}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The best of several runs, each after a new block.
    fn best(&self, runs: u32, node: &Running, arguments: &[&str]) -> Result<Cost> {
        let mut best = Cost { cpu: f64::MAX, ..Cost::default() };
        for _ in 0..runs {
            call(node, "generatetoaddress", json!([1, ELSEWHERE]))?;
            let cost = measure(&mut self.command("again", arguments), |_| false)?;
            best = if cost.cpu < best.cpu { cost } else { best };
        }
        Ok(best)
    }

    /// A wallet made anew from its words, with all blocks read.
    fn restore(&self, name: &str, words: &str) -> Result<Cost> {
        self.json(name, &["restore", name, "--type", "segwit", "--words-file", words])?;
        let cost = measure(&mut self.command(name, &["sync"]), |_| false)?;
        eprintln!("{}", self.json(name, &["balance"])?);
        Ok(cost)
    }
}

fn call(node: &Running, method: &str, params: Value) -> Result<Value> {
    node.rpc.call(method, params).map_err(|error| anyhow::anyhow!("{method}: {error:?}"))
}

/// Measures all and prints the table as it is.
pub fn run(bench: &Wallet) -> Result<()> {
    let folder = tempfile::tempdir_in(&bench.folder)?;
    std::fs::write(folder.path().join("password"), "word\n")?;
    let mut groat = Groat { program: &bench.groat, folder: folder.path(), node: None };
    let made = groat.json("first", &["create", "first", "--type", "segwit"])?;
    let words: Vec<String> = serde_json::from_value(made["words"].clone())?;
    let words_file = folder.path().join("words");
    std::fs::write(&words_file, words.join(" "))?;
    let words_file = words_file.to_string_lossy();
    let said = groat.json("first", &["backup", "descriptors"])?;
    let descriptor: Descriptor<DescriptorPublicKey> = said["descriptor"].as_str().context("a descriptor")?.parse()?;

    let file = folder.path().join("blk.dat");
    let waiting = generate(bench, &descriptor, &file)?;
    let groatd = Groatd::new("regtest", &folder.path().join("node"));
    groatd.import(&[&file]).succeeded();
    let node = Running::start(&groatd, &["--connect=0", "--debug=0"]);
    groat.node = Some((node.rpc.address().to_string(), groatd.chain_folder().join(".cookie")));

    println!("{} payments in {} blocks; seconds, the best of {} runs\n", bench.payments, bench.blocks, bench.runs);
    println!("| | wall | CPU | peak memory, MiB |\n|---|---|---|---|");
    let row = |what: &str, cost: Cost| println!("| {what} | {:.2} | {:.2} | {:.0} |", cost.wall, cost.cpu, cost.memory);
    row("restore, all blocks read", groat.restore("again", &words_file)?);
    row("`groat balance`", groat.best(bench.runs, &node, &["balance"])?);
    row("`groat history`", groat.best(bench.runs, &node, &["history"])?);
    row("`groat send`", groat.best(bench.runs, &node, &["send", ELSEWHERE, "10000", "--feerate", "1"])?);
    node.stop();

    let node = Running::start(&groatd, &["--connect=0", "--debug=0", "--blockfilterindex=1"]);
    groat.node = Some((node.rpc.address().to_string(), groatd.chain_folder().join(".cookie")));
    let begun = Instant::now();
    while call(&node, "getindexinfo", json!([]))?["basic block filter index"]["synced"] != json!(true) {
        ensure!(begun.elapsed() < PATIENCE, "the filters are not complete");
        std::thread::sleep(Duration::from_millis(200));
    }
    row("restore, by filters", groat.restore("filtered", &words_file)?);
    for transaction in &waiting {
        call(&node, "sendrawtransaction", json!([serialize_hex(transaction)]))?;
    }
    let look = |name: &str| measure(&mut groat.command(name, &["balance"]), |_| false);
    row(&format!("first look at {} that wait", waiting.len()), look("filtered")?);
    row("second look", look("filtered")?);
    node.stop();
    Ok(())
}

/// Writes a chain with the payments, spread evenly, and gives transactions of strangers that can follow it.
fn generate(bench: &Wallet, descriptor: &Descriptor<DescriptorPublicKey>, path: &Path) -> Result<Vec<Transaction>> {
    let anyone = ScriptBuf::from_bytes(vec![0x51]);
    let unlocked = ScriptBuf::new_p2wsh(&anyone.wscript_hash());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() as u32;
    let mut file = BufWriter::new(File::create(path)?);
    let mut write = |block: &bitcoin::Block| -> Result<()> {
        let bytes = serialize(block);
        file.write_all(&regtest::MAGIC)?;
        file.write_all(&(bytes.len() as u32).to_le_bytes())?;
        Ok(file.write_all(&bytes)?)
    };
    let genesis = regtest::genesis();
    write(&genesis)?;
    let (mut tip, mut purse, mut paid): (BlockHash, _, u32) = (genesis.block_hash(), None::<(OutPoint, u64)>, 0);
    let (mut scripts, mut fans) = (BTreeMap::new(), Vec::new());
    let step = (bench.blocks - FIRST) / bench.payments.div_ceil(PER_BLOCK).max(1);
    let mut mined = Vec::new();
    for height in 1..=bench.blocks {
        let mut transactions = Vec::new();
        if height == FIRST {
            // The first coinbase pays the wallet, the second one makes coins for those that wait.
            purse = mined.first().copied();
            let (outpoint, value): (OutPoint, u64) = mined[1];
            let each = value / u64::from(bench.waiting.max(1));
            let outputs = (0..bench.waiting).map(|_| regtest::output(each, unlocked.clone())).collect();
            let fan = regtest::transaction(vec![regtest::unsigned(outpoint)], outputs);
            let txid = fan.compute_txid();
            fans.extend((0..bench.waiting).map(|vout| (OutPoint { txid, vout }, each)));
            transactions.push(fan);
        } else if height > FIRST && (height - FIRST).is_multiple_of(step) {
            for _ in 0..PER_BLOCK.min(bench.payments - paid) {
                let (outpoint, value) = purse.context("the purse is full from the first payment on")?;
                let index = paid / PER_ADDRESS;
                let script = match scripts.entry(index) {
                    std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::btree_map::Entry::Vacant(new) => {
                        new.insert(descriptor.at_derivation_index(index)?.script_pubkey())
                    }
                };
                let outputs =
                    vec![regtest::output(AMOUNT, script.clone()), regtest::output(value - AMOUNT, anyone.clone())];
                let payment = regtest::transaction(vec![regtest::unsigned(outpoint)], outputs);
                purse = Some((OutPoint::new(payment.compute_txid(), 1), value - AMOUNT));
                transactions.push(payment);
                paid += 1;
            }
        }
        let reward = regtest::output(regtest::subsidy(height).to_sat(), anyone.clone());
        let coinbase = regtest::coinbase(height, 0, vec![reward]);
        transactions.insert(0, coinbase);
        let block = regtest::block(tip, now - (bench.blocks - height) * SPACING, transactions);
        if height < 3 {
            mined.push((OutPoint::new(block.txdata[0].compute_txid(), 0), regtest::subsidy(height).to_sat()));
        }
        tip = block.block_hash();
        write(&block)?;
    }
    file.flush()?;
    let stranger = |(outpoint, value): (OutPoint, u64)| {
        let mut input = regtest::unsigned(outpoint);
        input.witness = Witness::from_slice(&[anyone.as_bytes()]);
        regtest::transaction(vec![input], vec![regtest::output(value - 1_000, unlocked.clone())])
    };
    Ok(fans.into_iter().map(stranger).collect())
}
