//! A pool in this process, on a chain in memory, without scripts worth the name: what the one thread that judges
//! transactions spends on honest and on hostile ones, and what a large pool takes of memory and of a block's time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use bitcoin::consensus::serialize;
use bitcoin::script::ScriptBuf;
use bitcoin::{OutPoint, Transaction, TxIn};
use groat_chain::ledger::{Incoming, Ledger, Options};
use groat_chain::mempool::{Accepted, BlockLimits, Follower, Limits, Mempool, Policy, Refusal, stage};
use groat_chain::params::Params;
use groat_chain::pool::Pool;
use groat_chain::rejection::Rejection;
use groat_chain::script::VerdictCache;
use groat_chain::store::mem::MemStore;
use groat_chain::template::{Place, Template};
use groat_tests::regtest;
use parking_lot::RwLock;

use crate::process::status;

/// Now, in seconds since 1970: no clock is read.
const NOW: u32 = 1_700_000_000;
/// Transactions that may hang together. Core: `DEFAULT_CLUSTER_LIMIT`.
const CLUSTER: usize = 64;
/// Clusters that one transaction may take others from. Core: `MAX_REPLACEMENT_CANDIDATES`.
const CLUSTERS: usize = 100;
/// Satoshi that an honest transaction pays.
const FEE: u64 = 1_000;

/// An output that can be spent.
type Coin = (OutPoint, u64);

/// MB that are left free for what is hostile.
const FREE: usize = 50;
/// Bytes that are offered to a pool that is nearly full.
const OVER: usize = 100_000_000;

/// Measures all and prints the tables as they are.
pub fn run(megabytes: usize) -> Result<()> {
    ensure!(megabytes > FREE, "a pool of more than {FREE} MB is measured");
    let mut field = Field::new(megabytes * 1_000_000)?;
    let mut table = Table::default();
    field.fill((megabytes - FREE) * 1_000_000)?;
    hostile(&mut field, &mut table)?;
    table.print();
    field.overfill(OVER)?;
    field.template()?;
    field.block()
}

/// The time of the judging thread for each transaction, by what it was.
#[derive(Default)]
struct Table {
    rows: Vec<(String, Vec<Duration>)>,
}

impl Table {
    fn add(&mut self, name: &str, times: Vec<Duration>) {
        self.rows.push((name.into(), times));
    }

    fn print(&self) {
        let mean = |times: &Vec<Duration>| times.iter().sum::<Duration>().as_secs_f64() * 1e6 / times.len() as f64;
        let honest = self.rows.first().map_or(f64::NAN, |(_, times)| mean(times));
        println!(
            "\n| the judging thread's time for one | mean, us | longest, us | times an honest one |\n|---|---|---|---|"
        );
        for (name, times) in &self.rows {
            let longest = times.iter().max().map_or(0.0, |longest| longest.as_secs_f64() * 1e6);
            println!("| {name} | {:.1} | {longest:.0} | {:.1} |", mean(times), mean(times) / honest);
        }
        println!();
    }
}

/// Chain and pool.
struct Field {
    ledger: Ledger,
    pool: Arc<RwLock<Mempool>>,
    verdicts: Arc<VerdictCache>,
    coins: Vec<Coin>,
    height: u32,
    /// Most bytes that the pool held after a transaction was judged.
    most: usize,
}

fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

/// Spends coins, which anyone may, to so many outputs.
fn pay(coins: &[Coin], outputs: usize, fee: u64) -> Arc<Transaction> {
    let input = |(outpoint, _): &Coin| -> TxIn {
        let mut input = regtest::unsigned(*outpoint);
        input.witness.push([0x51]);
        input
    };
    let each = (coins.iter().map(|(_, value)| value).sum::<u64>() - fee) / outputs as u64;
    let outputs = vec![regtest::output(each, anyone()); outputs];
    Arc::new(regtest::transaction(coins.iter().map(input).collect(), outputs))
}

fn made(tx: &Transaction) -> Vec<Coin> {
    let txid = tx.compute_txid();
    let coin = |(vout, value): (usize, u64)| (OutPoint::new(txid, vout as u32), value);
    tx.output.iter().map(|output| output.value.to_sat()).enumerate().map(coin).collect()
}

/// Resident memory of this process in bytes.
fn resident() -> Result<f64> {
    Ok(status("self", "RssAnon:")? * 1024.0)
}

impl Field {
    fn new(max_bytes: usize) -> Result<Field> {
        /// Coins that a coinbase makes.
        const COINS: u64 = 2000;
        /// Bytes of the pool, at least, for each coin of the chain that is spent: where most stand alone, and where all do.
        const BYTES: (usize, usize) = (1600, 1000);
        const HOSTILE: usize = 20_000;
        let wanted = max_bytes / BYTES.0 + OVER / BYTES.1 + HOSTILE;
        let mut params = Params::by_name("regtest").expect("a known network");
        params.coinbase_maturity = 1;
        let (params, threads) = (Arc::new(params), Arc::new(Pool::new(0)));
        let options = Options { assumed_valid: None, table_bytes: 1 << 30, prune: None };
        let mut ledger = Ledger::open(params.clone(), Arc::new(MemStore::default()), threads, options)?;
        let policy = Policy { max_bytes, ..Policy::default() };
        let pool = Arc::new(RwLock::new(Mempool::new(policy, params.genesis_hash)));
        let verdicts = Arc::new(VerdictCache::new(32 << 20, [1; 32]));
        let (now, returned) = (Box::new(|| u64::from(NOW)), Box::new(|_, _| ()));
        ledger.set_follower(Box::new(Follower { pool: pool.clone(), verdicts: verdicts.clone(), now, returned }));
        ledger.set_verdicts(verdicts.clone());
        let mut field = Field { ledger, pool, verdicts, coins: Vec::new(), height: 0, most: 0 };
        while field.coins.len() < wanted {
            let value = regtest::subsidy(field.height + 1).to_sat() / COINS;
            let coinbase = field.mine(vec![regtest::output(value, anyone()); COINS as usize], vec![])?.0;
            // The last one is the commitment.
            field.coins.extend(made(&coinbase).into_iter().take(COINS as usize));
        }
        // The last coinbase is mature from the next block on.
        Ok(field)
    }

    /// Connects a block; gives its coinbase and how long that took.
    fn mine(&mut self, reward: Vec<bitcoin::TxOut>, others: Vec<Transaction>) -> Result<(Transaction, Duration)> {
        self.height += 1;
        let coinbase = regtest::coinbase(self.height, 0, reward);
        let transactions = std::iter::once(coinbase).chain(others).collect();
        let mut block = regtest::block(self.ledger.tip(), regtest::time_at(self.height), transactions);
        let bytes = serialize(&block);
        let begun = Instant::now();
        let incoming = Incoming::decode(bytes, self.ledger.params())?;
        self.ledger.accept_block(incoming, None, NOW)?.map_err(|rejection| anyhow!("{rejection}"))?;
        let refused = self.ledger.activate_fully()?;
        ensure!(refused.is_empty(), "a block was refused: {refused:?}");
        Ok((block.txdata.swap_remove(0), begun.elapsed()))
    }

    fn coin(&mut self) -> Coin {
        self.coins.pop().expect("there are as many as the run needs")
    }

    /// Judges a transaction as the node's thread does, with its scripts, which other threads run there, between: their time
    /// is left out.
    fn offer(&mut self, tx: &Arc<Transaction>) -> Result<(Duration, Result<Accepted, Refusal>)> {
        let begun = Instant::now();
        let staged = stage(tx.clone(), NOW.into(), Limits::Held, &self.pool.read(), &self.ledger)?;
        let mut time = begun.elapsed();
        let outcome = match staged {
            Err(refusal) => Err(refusal),
            Ok(staged) => match staged.check_scripts(&self.verdicts) {
                Err(refusal) => Err(refusal),
                Ok(()) => {
                    let begun = Instant::now();
                    let outcome = self.pool.write().insert(staged, NOW.into());
                    time += begun.elapsed();
                    outcome
                }
            },
        };
        self.most = self.most.max(self.pool.read().memory());
        Ok((time, outcome))
    }

    /// The time for one that must be taken.
    fn taken(&mut self, tx: &Arc<Transaction>) -> Result<Duration> {
        match self.offer(tx)? {
            (time, Ok(_)) => Ok(time),
            (_, Err(refusal)) => Err(anyhow!("refused: {refusal}")),
        }
    }

    /// The time for one that must be refused.
    fn refused(&mut self, tx: &Arc<Transaction>, reason: Rejection) -> Result<Duration> {
        let (time, outcome) = self.offer(tx)?;
        let found = outcome.err().map(|refusal| refusal.rejection);
        ensure!(found == Some(reason), "expected {reason}, got {found:?}");
        Ok(time)
    }

    /// A line of transactions, each spending the one before.
    fn line(&mut self, first: Coin, length: usize, fee: impl Fn(usize) -> u64) -> Result<Vec<Arc<Transaction>>> {
        let mut line: Vec<Arc<Transaction>> = Vec::with_capacity(length);
        for place in 0..length {
            let coin = line.last().map_or(first, |tx| made(tx)[0]);
            line.push(pay(&[coin], 1, fee(place)));
        }
        Ok(line)
    }

    /// Fills the pool: most transactions stand alone, some hang together. Says what one takes.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        const LINES: [usize; 8] = [1, 1, 2, 1, 1, 5, 1, 1];
        let (before, begun, mut number) = (resident()?, Instant::now(), 0);
        while self.pool.read().memory() < bytes {
            number += 1;
            let mut coin = self.coin();
            for _ in 0..LINES[number % LINES.len()] {
                let tx = pay(&[coin], 2, FEE + number as u64 * 7919 % FEE);
                coin = made(&tx)[0];
                self.taken(&tx)?;
            }
        }
        let (count, counted) = (self.pool.read().len() as f64, self.pool.read().memory() as f64);
        let grown = resident()? - before;
        println!(
            "\nA pool of {count} transactions, filled at {:.0} a second; each takes {:.0} bytes by the pool's count, {:.0} by \
             the system's.",
            count / begun.elapsed().as_secs_f64(),
            counted / count,
            grown / count
        );
        Ok(())
    }

    /// How long readers hold the pool for a template, and the rest of it.
    fn template(&self) -> Result<()> {
        const TIMES: usize = 9;
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let begun = Instant::now();
            let tree = self.ledger.tree();
            let tree = tree.read();
            let place = Place::on(&tree.branch(tree.tip()), self.ledger.tip(), self.ledger.params(), NOW);
            let selected = self.pool.read().select(&BlockLimits::default(), place.height, place.median_time);
            let chosen = (begun.elapsed(), selected.transactions.len());
            let template = Template::new(place, anyone(), selected);
            std::hint::black_box(template);
            times.push((begun.elapsed(), chosen));
        }
        times.sort();
        let (all, (chosen, count)) = times[TIMES / 2];
        println!(
            "A template of {count} transactions: {:.1} ms, {:.1} of these to choose them, under the pool's lock.",
            all.as_secs_f64() * 1e3,
            chosen.as_secs_f64() * 1e3
        );
        Ok(())
    }

    /// Offers more than the pool holds, each paying more than those before.
    fn overfill(&mut self, bytes: usize) -> Result<()> {
        let (mut times, mut offered, mut fee) = (Vec::new(), 0, 2 * FEE);
        while offered < bytes {
            let before = self.pool.read().memory();
            let coin = self.coin();
            fee += 1;
            times.push(self.taken(&pay(&[coin], 2, fee))?);
            offered += before.abs_diff(self.pool.read().memory()).max(900);
        }
        let mean = times.iter().sum::<Duration>().as_secs_f64() * 1e6 / times.len() as f64;
        println!(
            "{} transactions more than it holds, each with a higher fee: {mean:.1} us each, what leaves included; the pool never held more \
             than {:.1} MB. Its least fee is {} sat/kvB then.",
            times.len(),
            self.most as f64 / 1e6,
            self.pool.read().min_fee(NOW.into())
        );
        Ok(())
    }

    /// Connects a full block of the pool.
    fn block(&mut self) -> Result<()> {
        let selected = self.pool.read().select(&BlockLimits::default(), self.height + 1, NOW);
        let transactions: Vec<_> = selected.transactions.iter().map(|chosen| (*chosen.tx).clone()).collect();
        let count = transactions.len();
        let reward = vec![regtest::output(regtest::subsidy(self.height + 1).to_sat(), anyone())];
        let (_, time) = self.mine(reward, transactions)?;
        println!("A block of {count} of them connected, pool brought along: {:.1} ms.", time.as_secs_f64() * 1e3);
        Ok(())
    }
}

/// Each kind of hostile transaction, after honest ones.
fn hostile(field: &mut Field, table: &mut Table) -> Result<()> {
    const HONEST: usize = 5_000;
    let mut honest = || {
        let coin = field.coin();
        field.taken(&pay(&[coin], 2, FEE))
    };
    let times = (0..HONEST).map(|_| honest()).collect::<Result<Vec<_>>>()?;
    table.add("an honest one: an input, two outputs", times);
    refusals(field, table)?;
    clusters(field, table)?;
    replacements(field, table)
}

/// What never comes in.
fn refusals(field: &mut Field, table: &mut Table) -> Result<()> {
    const EACH: usize = 5_000;
    const HEAVY: usize = 100;
    let coin = field.coin();
    let low = |field: &mut Field, tx: &Arc<Transaction>| field.refused(tx, Rejection::MinRelayFeeNotMet);
    let mut number = 0;
    let mut different = |tx: Arc<Transaction>| {
        number += 1;
        let mut tx = (*tx).clone();
        tx.input[0].sequence = bitcoin::Sequence(u32::MAX - number);
        Arc::new(tx)
    };
    let flood: Vec<_> = (0..EACH).map(|_| different(pay(&[coin], 2, 1))).collect();
    table.add("refused: pays too little", flood.iter().map(|tx| low(field, tx)).collect::<Result<_>>()?);
    let flood: Vec<_> = (0..HEAVY).map(|_| different(pay(&[coin], 2_300, 1))).collect();
    table.add("refused: pays too little, 99 kvB", flood.iter().map(|tx| low(field, tx)).collect::<Result<_>>()?);
    let absent = (OutPoint::new(bitcoin::hashes::Hash::all_zeros(), 0), 100_000);
    let flood: Vec<_> = (0..EACH).map(|_| different(pay(&[absent], 2, FEE))).collect();
    let missing = |tx| field.refused(tx, Rejection::MissingInputs);
    table.add("refused: spends nothing known", flood.iter().map(missing).collect::<Result<_>>()?);
    Ok(())
}

/// What hangs together as far as it may.
fn clusters(field: &mut Field, table: &mut Table) -> Result<()> {
    const EACH: usize = 20;
    let (mut all, mut last, mut beyond) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..EACH {
        let first = field.coin();
        // Each pays more than those before: with each all of them change their chunk.
        let line = field.line(first, CLUSTER + 1, |place| FEE + 10 * place as u64)?;
        let (over, line) = line.split_last().expect("there are some");
        let times = line.iter().map(|tx| field.taken(tx)).collect::<Result<Vec<_>>>()?;
        last.extend(times.last().copied());
        all.extend(times);
        beyond.push(field.refused(over, Rejection::TooLargeCluster)?);
    }
    table.add("a line of 64: each of it", all);
    table.add("a line of 64: its last", last);
    table.add("refused: the 65th of a line", beyond);
    // Half of them parents, and each of the others spends of all these.
    let (mut all, mut last) = (Vec::new(), Vec::new());
    for _ in 0..EACH {
        let half = CLUSTER / 2;
        let mut outputs = Vec::new();
        for place in 0..half {
            let coin = field.coin();
            let parent = pay(&[coin], half, 10 * FEE + (place as u64 * 7919) % FEE);
            field.taken(&parent)?;
            outputs.push(made(&parent));
        }
        let mut times = Vec::new();
        for place in 0..half {
            let spent: Vec<Coin> = outputs.iter().map(|outputs| outputs[place]).collect();
            times.push(field.taken(&pay(&spent, 1, 10 * FEE + (place as u64 * 6007) % (5 * FEE)))?);
        }
        last.extend(times.last().copied());
        all.extend(times);
    }
    table.add("32 parents of 32 children: each child", all);
    table.add("32 parents of 32 children: the last", last);
    Ok(())
}

/// What takes the place of full clusters.
fn replacements(field: &mut Field, table: &mut Table) -> Result<()> {
    const EACH: usize = 20;
    let (mut one, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..EACH {
        let first = field.coin();
        for tx in field.line(first, CLUSTER, |_| FEE)? {
            field.taken(&tx)?;
        }
        refused.push(field.refused(&pay(&[first], 1, 64 * FEE), Rejection::InsufficientFee)?);
        one.push(field.taken(&pay(&[first], 1, 65 * FEE))?);
    }
    table.add("refused: would replace a line of 64, pays too little", refused);
    table.add("replaces a line of 64", one);
    let (mut cheap, mut worse, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut firsts = Vec::new();
        for number in 0..CLUSTERS {
            let first = field.coin();
            // One pays so much that no large transaction is better.
            let fee = move |place| if (number, place) == (0, 0) { 1_000 * FEE } else { FEE };
            for tx in field.line(first, CLUSTER, fee)? {
                field.taken(&tx)?;
            }
            firsts.push(first);
        }
        let before = (1_000 + (CLUSTERS * CLUSTER) as u64 - 1) * FEE;
        cheap.push(field.refused(&pay(&firsts, 1, before - 1), Rejection::InsufficientFee)?);
        worse.push(field.refused(&pay(&firsts, 2_000, before + 10_000), Rejection::ReplacementFailed)?);
        let len = field.pool.read().len();
        all.push(field.taken(&pay(&firsts, 1, 10 * before))?);
        ensure!(field.pool.read().len() + CLUSTERS * CLUSTER == len + 1, "6,400 were replaced");
    }
    table.add("refused: would replace 100 lines of 64, pays too little", cheap);
    table.add("refused: would replace 100 lines of 64, at a lower rate", worse);
    table.add("replaces 100 lines of 64: 6,400 leave", all);
    Ok(())
}
