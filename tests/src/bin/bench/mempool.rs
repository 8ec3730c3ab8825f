//! `bench mempool`: the same transactions over loopback into groatd and into bitcoind, in turn: how fast they are taken in,
//! what one takes, how long a template and a full block take. Then a pool in this process: a large one, and what hostile
//! transactions cost the one thread that judges them (`field`).

mod field;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Result, anyhow, ensure};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Block, OutPoint, Transaction};
use groat_net::message::Message;
use groat_tests::chaingen::Coin;
use groat_tests::chaingen::keys::{KINDS, Keys, Kind, MIX};
use groat_tests::peer::Peer;
use groat_tests::regtest;
use serde_json::json;

use crate::node::Node;

#[derive(clap::Args)]
pub struct Mempool {
    /// The groatd to measure.
    #[arg(long)]
    groatd: PathBuf,
    /// The bitcoind to measure; without it only groatd is.
    #[arg(long)]
    bitcoind: Option<PathBuf>,
    /// Folder for the data of each run.
    #[arg(long)]
    folder: PathBuf,
    /// Transactions that each takes in.
    #[arg(long, default_value_t = 20_000)]
    transactions: usize,
    /// Links over which they come, each with its share.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    links: Vec<usize>,
    /// Runs of each program with each number of links, in turn.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Threads for scripts, given to both.
    #[arg(long, default_value_t = 2)]
    par: u32,
    /// MB of the pool in this process; 0: do not measure that.
    #[arg(long, default_value_t = 300)]
    megabytes: usize,
}

/// Measures all and prints the tables as they are.
pub fn run(mempool: &Mempool) -> Result<()> {
    if mempool.runs > 0 {
        race(mempool)?;
    }
    if mempool.megabytes > 0 {
        field::run(mempool.megabytes)?;
    }
    Ok(())
}

fn race(mempool: &Mempool) -> Result<()> {
    let material = Material::new(mempool.transactions);
    let programs: Vec<(&Path, &[&str])> = [(mempool.groatd.as_path(), &[][..])]
        .into_iter()
        .chain(mempool.bitcoind.iter().map(|program| (program.as_path(), BITCOIND)))
        .collect();
    println!(
        "{} transactions, one input of today's mix and two outputs each; full blocks of {} of them. `--par={}`, medians \
         of {} runs, in turn.\n",
        material.payments.len(),
        material.known.txdata.len() - 1,
        mempool.par,
        mempool.runs
    );
    println!("| | groatd | bitcoind | ratio |\n|---|---|---|---|");
    for links in &mempool.links {
        let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); programs.len()];
        for _ in 0..mempool.runs {
            for ((program, options), runs) in programs.iter().zip(&mut runs) {
                let figures = measure(mempool, program, options, &material, *links)?;
                eprintln!("{}: {figures:?}", program.display());
                runs.push(figures);
            }
        }
        print(*links, links == &mempool.links[0], &runs);
    }
    Ok(())
}

/// Without the checks of itself that regtest turns on, alone on its machine.
const BITCOIND: &[&str] = &[
    "-checkmempool=0",
    "-checkblockindex=0",
    "-listenonion=0",
    "-dnsseed=0",
    "-natpmp=0",
    "-discover=0",
    "-printtoconsole=0",
];

/// What one run came to.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Taken in within a second.
    rate: f64,
    /// Microseconds of processor for each, in all threads.
    cpu: f64,
    /// Bytes for each, as the node counts them.
    counted: f64,
    /// Bytes for each by which the process grew.
    grown: f64,
    /// Milliseconds of a call for a template.
    template: f64,
    /// Milliseconds to connect a full block whose transactions are in the pool.
    known: f64,
    /// The same of a block whose transactions were never seen.
    unseen: f64,
}

/// Name, figure, decimals, and whether it is the same however many links there are.
type Row = (&'static str, fn(&Figures) -> f64, usize, bool);

const ROWS: [Row; 7] = [
    ("accepted a second", |figures| figures.rate, 0, false),
    ("processor for each, us", |figures| figures.cpu, 0, false),
    ("bytes for each by the node's own count", |figures| figures.counted, 0, true),
    ("bytes for each by which the process grew", |figures| figures.grown, 0, true),
    ("`getblocktemplate`, ms", |figures| figures.template, 1, true),
    ("a full block that was in the pool, ms", |figures| figures.known, 1, true),
    ("a full block never seen, ms", |figures| figures.unseen, 1, true),
];

fn print(links: usize, first: bool, runs: &[Vec<Figures>]) {
    for (name, of, digits, common) in ROWS {
        if common && !first {
            continue;
        }
        let median = |runs: &Vec<Figures>| {
            let mut values: Vec<f64> = runs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let way = match (common, links) {
            (true, _) => String::new(),
            (false, 1) => ", from one peer".into(),
            (false, links) => format!(", from {links} peers"),
        };
        let groatd = median(&runs[0]);
        match runs.get(1).map(median) {
            Some(core) => println!("| {name}{way} | {groatd:.digits$} | {core:.digits$} | {:.2} |", groatd / core),
            None => println!("| {name}{way} | {groatd:.digits$} | - | - |"),
        }
    }
}

/// One program from an empty folder to a full block on a pool.
fn measure(mempool: &Mempool, program: &Path, options: &[&str], material: &Material, links: usize) -> Result<Figures> {
    let mut options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
    options.push(format!("-par={}", mempool.par));
    let node = Node::start(program, &mempool.folder, &options)?;
    for block in &material.blocks {
        submit(&node, block)?;
    }
    let count = material.payments.len() as f64;
    let (memory, cpu) = (node.memory()?, node.seconds()?);
    let seconds = feed(&node, &material.payments, links)?;
    let info = node.call("getmempoolinfo", &json!([]))?;
    ensure!(info["size"] == material.payments.len(), "{} took {} in", program.display(), info["size"]);
    let (cpu, grown) = (node.seconds()? - cpu, (node.memory()? - memory) * 1024.0);
    let usage = info["usage"].as_f64().unwrap_or_default();
    let begun = Instant::now();
    node.call("getblocktemplate", &json!([{"rules": ["segwit"]}]))?;
    let template = begun.elapsed().as_secs_f64() * 1e3;
    Ok(Figures {
        rate: count / seconds,
        cpu: cpu / count * 1e6,
        counted: usage / count,
        grown: grown / count,
        template,
        known: submit(&node, &material.known)?,
        unseen: submit(&node, &material.unseen)?,
    })
}

/// Hands a block in; gives the milliseconds until it was the tip.
fn submit(node: &Node, block: &Block) -> Result<f64> {
    let hex = json!([serialize_hex(block)]);
    let begun = Instant::now();
    let told = node.call("submitblock", &hex)?;
    ensure!(told.is_null(), "submitblock: {told}");
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Sends all as a peer does that was asked for them; gives the seconds until the last took effect: a ping is answered
/// after what came before it.
fn feed(node: &Node, payments: &[Arc<Transaction>], links: usize) -> Result<f64> {
    let peers = (0..links).map(|_| Peer::ready(node.peers)).collect::<Result<Vec<_>, _>>()?;
    let shares = payments.chunks(payments.len().div_ceil(links));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let send = |(mut peer, share): (Peer, &[Arc<Transaction>])| {
            share.iter().try_for_each(|tx| peer.send(&Message::Tx(tx.clone())))?;
            peer.fence()
        };
        let threads: Vec<_> = peers.into_iter().zip(shares).map(|given| scope.spawn(move || send(given))).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a peer panicked"))??;
        }
        Ok(begun.elapsed().as_secs_f64())
    })
}

/// What is sent to each node.
struct Material {
    /// A young chain with the coins.
    blocks: Vec<Block>,
    payments: Vec<Arc<Transaction>>,
    /// A full block on top, of the first of them.
    known: Block,
    /// One on top of that, of others.
    unseen: Block,
}

impl Material {
    fn new(payments: usize) -> Material {
        /// Coins that one coinbase is split into, and such transactions in a block.
        const SPLIT: usize = 2000;
        const SPLITS: usize = 8;
        /// A full block holds fewer.
        const UNSEEN: usize = 10_000;
        const KEYS: u32 = 100;
        // The mix, in an order in which neighbours differ.
        let mix: Vec<Kind> =
            KINDS.iter().zip(MIX).flat_map(|(kind, share)| std::iter::repeat_n(*kind, share as usize)).collect();
        let script = |number: usize| mix[number * 37 % mix.len()].with_key(number as u32 % KEYS);
        let own = Kind::P2wpkh.with_key(0);

        let mut chain = Chain { blocks: vec![regtest::genesis()], keys: Keys::new(KEYS as usize, 1) };
        let count = (payments + UNSEEN).div_ceil(SPLIT);
        for _ in 0..100 + count {
            let block = chain.next(vec![]);
            chain.blocks.push(block);
        }
        let mut coins = Vec::new();
        let splits: Vec<Transaction> = (1..=count)
            .map(|height| {
                let reward = &chain.blocks[height].txdata[0];
                let coin = Coin {
                    outpoint: OutPoint::new(reward.compute_txid(), 0),
                    value: reward.output[0].value.to_sat(),
                    script: own,
                };
                let value = coin.value / SPLIT as u64 - 1000;
                let outputs = (0..SPLIT).map(|number| (value, script(number))).collect::<Vec<_>>();
                let tx = chain.pay(coin, &outputs);
                let txid = tx.compute_txid();
                let made = outputs.iter().enumerate();
                coins.extend(made.map(|(vout, (value, script))| Coin {
                    outpoint: OutPoint::new(txid, vout as u32),
                    value: *value,
                    script: *script,
                }));
                tx
            })
            .collect();
        for splits in splits.chunks(SPLITS) {
            let block = chain.next(splits.to_vec());
            chain.blocks.push(block);
        }
        let pay = |(number, coin): (usize, &Coin)| {
            let fee = 1000 + number as u64 % 1000;
            let half = (coin.value - fee) / 2;
            Arc::new(chain.pay(*coin, &[(half, own), (half, script(number + 50))]))
        };
        let mut all: Vec<Arc<Transaction>> = coins.iter().take(payments + UNSEEN).enumerate().map(pay).collect();
        let others = all.split_off(payments);
        let known = chain.next(filling(&all));
        chain.blocks.push(known);
        let unseen = chain.next(filling(&others));
        let known = chain.blocks.pop().expect("it was just pushed");
        chain.blocks.remove(0);
        Material { blocks: chain.blocks, payments: all, known, unseen }
    }
}

/// As many as a block holds.
fn filling(transactions: &[Arc<Transaction>]) -> Vec<Transaction> {
    /// What header and coinbase leave.
    const ROOM: u64 = 3_990_000;
    let mut weight = 0;
    let fits = |tx: &&Arc<Transaction>| {
        weight += tx.weight().to_wu();
        weight <= ROOM
    };
    transactions.iter().take_while(fits).map(|tx| (**tx).clone()).collect()
}

struct Chain {
    blocks: Vec<Block>,
    keys: Keys,
}

impl Chain {
    /// A block on the last one, as old as its place in a chain that ends about now: nodes think that they are in sync.
    fn next(&self, mut transactions: Vec<Transaction>) -> Block {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let height = self.blocks.len() as u32;
        let script = self.keys.script(Kind::P2wpkh.with_key(0)).clone();
        let reward = regtest::output(regtest::subsidy(height).to_sat(), script);
        transactions.insert(0, regtest::coinbase(height, 0, vec![reward]));
        let tip = self.blocks.last().expect("a chain begins with genesis").block_hash();
        regtest::block(tip, since.as_secs() as u32 - 600 + height, transactions)
    }

    /// Spends a coin to these amounts and scripts, by their numbers.
    fn pay(&self, coin: Coin, outputs: &[(u64, u32)]) -> Transaction {
        let outputs = outputs.iter().map(|(value, script)| regtest::output(*value, self.keys.script(*script).clone()));
        let mut tx = regtest::transaction(vec![regtest::unsigned(coin.outpoint)], outputs.collect());
        self.keys.sign(&mut tx, &[coin]);
        tx
    }
}
