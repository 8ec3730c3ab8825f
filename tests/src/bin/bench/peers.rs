//! `bench peers`: thousands of live peers on one groatd over loopback: what one costs in memory and processor, how soon
//! all are told of a block and of a transaction, and how long a ping takes while blocks are connected.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::script::ScriptBuf;
use bitcoin::{Block, OutPoint, Transaction};
use groat_tests::chaingen::full;
use groat_tests::peer::Peer;
use groat_tests::provider::Provider;
use groat_tests::regtest;
use groat_tests::swarm::{Noted, Swarm, wait_until};
use serde_json::{Value, json};

use crate::node::Node;

/// How long all peers may take to be told of something, default timers included.
const PATIENCE: Duration = Duration::from_secs(120);
/// Satoshis that each transaction pays for itself, and outputs that the first one makes for the others.
const FEE: u64 = 1_000;

#[derive(clap::Args)]
pub struct Peers {
    /// The groatd to measure.
    #[arg(long)]
    groatd: PathBuf,
    /// Folder for the data of each run.
    #[arg(long)]
    folder: PathBuf,
    /// Peers.
    #[arg(long, default_value_t = 5_000)]
    count: u32,
    /// Transports.
    #[arg(long, value_delimiter = ',', default_value = "v1,v2")]
    transports: Vec<String>,
    /// Seconds that all peers must stay.
    #[arg(long, default_value_t = 600)]
    hold: u64,
    /// Seconds of the load of transactions.
    #[arg(long, default_value_t = 60)]
    load: u64,
    /// Transactions a second.
    #[arg(long, default_value_t = 10)]
    rate: u64,
    /// Full blocks to connect while an idle peer pings; 0: do not measure that.
    #[arg(long, default_value_t = full::Recipe::DEFAULT.blocks)]
    blocks: u32,
    /// Threads for scripts while it does.
    #[arg(long, default_value_t = 2)]
    par: u32,
    /// Further options for groatd.
    #[arg(long, value_delimiter = ' ', allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Measures all and prints the table as it is.
pub fn run(peers: &Peers) -> Result<()> {
    let mut table = Table { columns: peers.transports.clone(), rows: Vec::new() };
    for transport in &peers.transports {
        many(peers, transport == "v2", &mut table)?;
    }
    for transport in &peers.transports {
        quick(peers, transport == "v2", &mut table)?;
    }
    for transport in peers.transports.iter().filter(|_| peers.blocks > 0) {
        pings(peers, transport == "v2", &mut table)?;
    }
    table.print(peers.count);
    Ok(())
}

/// Rows by name, a cell for each transport.
struct Table {
    columns: Vec<String>,
    rows: Vec<(&'static str, Vec<String>, &'static str)>,
}

impl Table {
    fn add(&mut self, name: &'static str, value: String, goal: &'static str) {
        eprintln!("{name}: {value}");
        match self.rows.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.1.push(value),
            None => self.rows.push((name, vec![value], goal)),
        }
    }

    fn print(&self, count: u32) {
        println!("{count} peers on one groatd over loopback, client on the same machine.");
        println!("Of what is told: until the first, half, 99 % and all of them had it.\n");
        println!("| | {} | goal |", self.columns.join(" | "));
        println!("|---|{}---|", "---|".repeat(self.columns.len()));
        for (name, cells, goal) in &self.rows {
            println!("| {name} | {} | {goal} |", cells.join(" | "));
        }
    }
}

/// A node for many peers, with coins for all that is to be sent.
fn node(peers: &Peers, options: &[&str]) -> Result<(Node, Funds)> {
    let mut all = peers.options.clone();
    all.extend([format!("--maxconnections={}", peers.count + 100), "--par=1".into(), "--dbcache=64".into()]);
    all.extend(options.iter().map(|option| option.to_string()));
    let node = Node::start(&peers.groatd, &peers.folder, &all)?;
    let funds = Funds::new(&node, usize::try_from(peers.load * peers.rate + 10)?)?;
    Ok((node, funds))
}

/// What is told without a timer's delay: who may do all is told at once.
fn quick(peers: &Peers, v2: bool, table: &mut Table) -> Result<()> {
    let (node, mut funds) = node(peers, &["--whitelist=noban@127.0.0.0/8"])?;
    let mut swarm = Swarm::new(node.peers, v2)?;
    swarm.dial(peers.count);
    let linked = wait_until(PATIENCE, || swarm.ready_and_closed() == (peers.count as usize, 0));
    ensure!(linked, "not all peers are linked: {:?} shook hands and closed", swarm.ready_and_closed());
    let names =
        ["L3: a transaction told without trickle, ms", "L3: a transaction told and fetched without trickle, ms"];
    announce_transaction(&node, &swarm, peers, &mut funds, (names[0], "250; v2: 500", false), table)?;
    announce_transaction(&node, &swarm, peers, &mut funds, (names[1], "1,500", true), table)?;
    Ok(())
}

/// What many peers cost.
fn many(peers: &Peers, v2: bool, table: &mut Table) -> Result<()> {
    let (node, mut funds) = node(peers, &[])?;
    let before = (node.memory()?, node.seconds()?);

    let mut swarm = Swarm::new(node.peers, v2)?;
    let begun = Instant::now();
    swarm.dial(peers.count);
    let all = || swarm.ready_and_closed() == (peers.count as usize, 0);
    let linked = wait_until(PATIENCE, all);
    let (ready, closed) = swarm.ready_and_closed();
    let storm = begun.elapsed().as_secs_f64();
    let again = swarm.again();
    let outcome = match linked {
        true if again == 0 => String::new(),
        true => format!(" ({again} dialled again)"),
        false => format!(" ({ready} shook hands, {closed} closed, {again} dialled again)"),
    };
    table.add("L1: all linked after, s", format!("{storm:.2}{outcome}"), "10");
    let linking = node.seconds()? - before.1;
    table.add("processor for linking them, s", format!("{linking:.2}"), "");

    let (seconds, quiet) = (node.seconds()?, Instant::now());
    std::thread::sleep(Duration::from_secs(peers.hold));
    let (ready, closed) = swarm.ready_and_closed();
    table.add("L1: live at the end of the hold", format!("{} ({} s)", ready - closed, peers.hold), "5,000 (600 s)");
    let each = |seconds: f64, wall: f64| seconds / wall / f64::from(peers.count) * 1e6;
    let idle = each(node.seconds()? - seconds, quiet.elapsed().as_secs_f64());
    table.add("processor for an idle peer, us/s", format!("{idle:.1}"), "");
    let memory = node.memory()?;
    table.add(
        "L2: memory for an idle peer, KiB",
        format!("{:.1}", (memory - before.0) / f64::from(peers.count)),
        "16; v2: 24",
    );
    table.add("L2: memory in all, MiB", format!("{:.0}", memory / 1024.0), "100");

    announce_block(&node, &swarm, peers, &mut funds, table)?;
    let names = ["L3: a transaction told, ms", "L3: a transaction told and fetched, ms"];
    announce_transaction(&node, &swarm, peers, &mut funds, (names[0], "with trickle 23,000", false), table)?;
    announce_transaction(&node, &swarm, peers, &mut funds, (names[1], "", true), table)?;
    load(&node, peers, &mut funds, table)?;
    let (ready, closed) = swarm.ready_and_closed();
    ensure!(closed == 0, "{closed} of {ready} links were closed during the run");
    table.add("memory after the load, MiB", format!("{:.0}", node.memory()? / 1024.0), "");
    Ok(())
}

/// From the call until the first, half, 99 in a hundred and all of the peers had it, in milliseconds.
fn spread(begun: Instant, mut times: Vec<Instant>, count: u32) -> String {
    times.sort();
    if times.len() < count as usize {
        return format!("only {} of {count}", times.len());
    }
    let at = |share: f64| (times[(times.len() - 1) * (share * 100.0) as usize / 100] - begun).as_secs_f64() * 1e3;
    format!("{:.0} / {:.0} / {:.0} / {:.0}", at(0.0), at(0.5), at(0.99), at(1.0))
}

/// L3 with a block: no timer delays it.
fn announce_block(node: &Node, swarm: &Swarm, peers: &Peers, funds: &mut Funds, table: &mut Table) -> Result<()> {
    let block = funds.next_block(vec![]);
    swarm.watch(block.block_hash());
    let begun = Instant::now();
    funds.submit(node, &block)?;
    wait_until(PATIENCE, || swarm.counts(block.block_hash()).0 >= peers.count as usize);
    let Noted { announced, .. } = swarm.noted(block.block_hash());
    table.add("L3: a block told, ms", spread(begun, announced, peers.count), "250; v2: 500");
    Ok(())
}

/// L3: a row's name, its goal, and whether the peers fetch what they are told of.
fn announce_transaction(
    node: &Node,
    swarm: &Swarm,
    peers: &Peers,
    funds: &mut Funds,
    (name, goal, fetch): (&'static str, &'static str, bool),
    table: &mut Table,
) -> Result<()> {
    let tx = funds.payment();
    let id = tx.compute_wtxid();
    swarm.watch(id);
    swarm.set_fetching(fetch);
    let begun = Instant::now();
    node.call("sendrawtransaction", &json!([serialize_hex(&tx)]))?;
    let count = |(told, got): (usize, usize)| if fetch { got } else { told };
    wait_until(PATIENCE, || count(swarm.counts(id)) >= peers.count as usize);
    let Noted { announced, received } = swarm.noted(id);
    table.add(name, spread(begun, if fetch { received } else { announced }, peers.count), goal);
    swarm.set_fetching(false);
    Ok(())
}

/// L4.
fn load(node: &Node, peers: &Peers, funds: &mut Funds, table: &mut Table) -> Result<()> {
    let (seconds, begun) = (node.seconds()?, Instant::now());
    for number in 0..peers.load * peers.rate {
        let due = Duration::from_secs_f64(number as f64 / peers.rate as f64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        node.call("sendrawtransaction", &json!([serialize_hex(&funds.payment())]))?;
    }
    let wall = begun.elapsed().as_secs_f64();
    let seconds = node.seconds()? - seconds;
    let each = seconds / wall / f64::from(peers.count) * 1e6;
    let value = format!("{each:.1} ({:.0} % of a core)", seconds / wall * 100.0);
    table.add("L4: processor for a peer under load, us/s", value, "60 (30 %)");
    Ok(())
}

/// L5: one idle peer pings while another serves full blocks.
fn pings(peers: &Peers, v2: bool, table: &mut Table) -> Result<()> {
    const EVERY: Duration = Duration::from_millis(10);
    let chain = peers.folder.join(format!("full-{}", peers.blocks));
    if groat_tests::chaingen::Summary::read(&chain).is_err() {
        full::generate(&full::Recipe { blocks: peers.blocks, ..full::Recipe::DEFAULT }, &chain)?;
    }
    let summary = groat_tests::chaingen::Summary::read(&chain)?;
    let mut options = peers.options.clone();
    options.extend([format!("--par={}", peers.par), "--dbcache=450".into(), "--assumevalid=0".into()]);
    options.push(format!("--v2transport={}", u8::from(v2)));
    let node = Node::start(&peers.groatd, &peers.folder, &options)?;
    let mut pinger = if v2 { Peer::dial_v2(node.peers)? } else { Peer::dial(node.peers)? };
    pinger.shake_hands_offering(0)?;
    let mut quiet = Vec::new();
    for _ in 0..100 {
        quiet.push(pinger.round_trip()?);
        std::thread::sleep(EVERY);
    }
    let provider = Provider::read(&chain)?.serve()?;
    node.call("addnode", &json!([provider.to_string(), "add"]))?;
    let begun = Instant::now();
    let mut busy = Vec::new();
    let mut height = Value::Null;
    while height != json!(summary.height) {
        ensure!(begun.elapsed() < 5 * PATIENCE, "groatd stands at height {height}, not {}", summary.height);
        busy.push(pinger.round_trip()?);
        std::thread::sleep(EVERY);
        if busy.len().is_multiple_of(20) {
            height = node.call("getblockcount", &json!([]))?;
        }
    }
    let cell = |mut times: Vec<Duration>| {
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
        format!("{:.2} / {:.2} / {:.2}", at(50), at(99), at(100))
    };
    table.add("ping of an idle node, 50 / 99 / 100 %, ms", cell(quiet), "");
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("{} pings while {} blocks were connected in {seconds:.1} s", busy.len(), summary.height);
    table.add("L5: ping while blocks connect, 50 / 99 / 100 %, ms", cell(busy), "99 %: 20");
    Ok(())
}

/// A young chain with coins that anybody can spend, and payments out of them.
struct Funds {
    tip: Block,
    height: u32,
    coins: Vec<OutPoint>,
    /// Satoshis in each coin.
    value: u64,
}

/// The script that anybody can spend by giving it: OP_1.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

fn spend(coin: OutPoint) -> bitcoin::TxIn {
    let mut input = regtest::unsigned(coin);
    input.witness.push(anyone().as_bytes());
    input
}

impl Funds {
    /// Gives the node a chain whose last block makes so many coins.
    fn new(node: &Node, count: usize) -> Result<Funds> {
        let mut funds = Funds { tip: regtest::genesis(), height: 0, coins: Vec::new(), value: 0 };
        let mut first = None;
        for _ in 0..100 {
            let block = funds.next_block(vec![]);
            first = first.or(Some(OutPoint::new(block.txdata[0].compute_txid(), 0)));
            funds.submit(node, &block)?;
        }
        let first = first.context("a block was made")?;
        funds.value = regtest::subsidy(1).to_sat() / count as u64 - 2 * FEE;
        let outputs = vec![regtest::output(funds.value, anyone().to_p2wsh()); count];
        let split = regtest::transaction(vec![spend(first)], outputs);
        let id = split.compute_txid();
        let block = funds.next_block(vec![split]);
        funds.submit(node, &block)?;
        funds.coins = (0..count as u32).map(|place| OutPoint::new(id, place)).collect();
        Ok(funds)
    }

    /// A block on the tip, as old as its place in a chain that ends about now.
    fn next_block(&mut self, mut transactions: Vec<Transaction>) -> Block {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let height = self.height + 1;
        let reward = regtest::output(regtest::subsidy(height).to_sat(), anyone().to_p2wsh());
        transactions.insert(0, regtest::coinbase(height, 0, vec![reward]));
        regtest::block(self.tip.block_hash(), since.as_secs() as u32 - 600 + height, transactions)
    }

    fn submit(&mut self, node: &Node, block: &Block) -> Result<()> {
        let told = node.call("submitblock", &json!([serialize_hex(block)]))?;
        ensure!(told.is_null(), "submitblock at height {}: {told}", self.height + 1);
        (self.tip, self.height) = (block.clone(), self.height + 1);
        Ok(())
    }

    fn payment(&mut self) -> Transaction {
        let coin = self.coins.pop().expect("there are as many as the run needs");
        regtest::transaction(vec![spend(coin)], vec![regtest::output(self.value - FEE, anyone().to_p2wsh())])
    }
}
