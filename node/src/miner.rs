//! The built-in miner: threads of the lowest priority that look for the next block's nonce, and one that keeps their work
//! fresh. Knows no RPC; blocks go the way of those that are handed in.

pub mod search;
mod signet;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bitcoin::address::NetworkUnchecked;
use bitcoin::block::Header;
use bitcoin::consensus::encode::serialize;
use bitcoin::{Address, BlockHash, Network, ScriptBuf, Transaction};
use groat_chain::mempool::{BlockLimits, Selected};
use groat_chain::params::{AddressSet, Params};
use groat_chain::template::{Place, Template};
use parking_lot::{Condvar, Mutex};
use tracing::info;

use crate::clock::now;
use crate::handle::{NodeHandle, Stopped};
use crate::process::thread;
use crate::requests::Submitted;
use search::Search;
use signet::Signer;

/// How often the pool is looked at while it follows a change of the chain.
const POOL_PAUSE: Duration = Duration::from_millis(1);

/// A template and the state of the pool that it was made from.
pub struct Fresh {
    /// The next block.
    pub template: Template,
    /// See [`groat_chain::mempool::Mempool::generation`].
    pub generation: u64,
}

/// The block on the tip that pays to `script`; with what the pool gives, or nothing.
pub fn next_block(
    node: &NodeHandle,
    script: ScriptBuf,
    limits: &BlockLimits,
    with_pool: bool,
) -> Result<Fresh, Stopped> {
    let (place, selected, generation) = loop {
        let (tree, pool) = (node.tree().read(), node.mempool().read());
        let tip = tree.node(tree.tip()).hash;
        if with_pool && pool.tip() != Some(tip) {
            drop((tree, pool));
            if *node.stopping().borrow() {
                return Err(Stopped);
            }
            std::thread::sleep(POOL_PAUSE);
            continue;
        }
        let place = Place::on(&tree.branch(tree.tip()), tip, node.params(), now());
        let selected =
            if with_pool { pool.select(limits, place.height, place.median_time) } else { Selected::nothing(limits) };
        break (place, selected, pool.generation());
    };
    Ok(Fresh { template: Template::new(place, script, selected), generation })
}

/// What an operator wants of the miner.
pub struct Options {
    /// Who gets the rewards.
    script: ScriptBuf,
    /// Threads that look for nonces.
    threads: usize,
    /// What a block takes.
    limits: BlockLimits,
    /// Who solves the challenge of a signet.
    signer: Option<Signer>,
}

/// Whoever may mine on a signet whose challenge is this.
const ANYBODY: [u8; 1] = [0x51];

impl Options {
    /// Makes sense of what the command line says.
    pub fn new(
        address: &str,
        threads: usize,
        limits: BlockLimits,
        key: Option<&Path>,
        params: &Params,
    ) -> anyhow::Result<Options> {
        let signer = match (&params.signet_challenge, key) {
            (Some(challenge), Some(path)) => Some(Signer::from_file(path, challenge)?),
            (Some(challenge), None) if challenge.as_bytes() != ANYBODY => {
                bail!("on a signet only who has its key can mine: give it with --signet-key-file")
            }
            (None, Some(_)) => bail!("--signet-key-file is for a signet, and {} is none", params.name),
            (_, None) => None,
        };
        Ok(Options { script: pays_to(address, params)?, threads: threads.max(1), limits, signer })
    }
}

/// The script of an address of this network.
fn pays_to(text: &str, params: &Params) -> anyhow::Result<ScriptBuf> {
    let parsed: Option<Address<NetworkUnchecked>> = text.parse().ok();
    let address = parsed.with_context(|| format!("--mine-to takes an address, and \"{text}\" is none"))?;
    let known = [
        (AddressSet::Main, Network::Bitcoin, "the main network"),
        (AddressSet::Test, Network::Testnet, "the test networks"),
        (AddressSet::Regtest, Network::Regtest, "regtest"),
    ];
    let own = known.iter().find(|(set, ..)| *set == params.address_set).expect("all sets are there");
    if address.is_valid_for_network(own.1) {
        return Ok(address.assume_checked().script_pubkey());
    }
    let other = known.iter().find(|(_, network, _)| address.is_valid_for_network(*network));
    let whose = other.map_or("another network", |(.., name)| name);
    bail!("{text} is an address of {whose}, and this node is on {}: give --mine-to one of {}", params.name, own.2)
}

/// Blocks that headers may be ahead of the tip; with more the node is catching up, and mining would be for nothing.
const MAX_BEHIND: u32 = 6;
/// What the threads look for is made anew when the pool has changed, at most this often.
const REFRESH: Duration = Duration::from_secs(5);
/// How often the time, the hash rate and whether to mine at all are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Where blocks take no work, one is mined at most this often: a disk should not fill up.
const GENTLE_PAUSE: Duration = Duration::from_secs(1);
/// Wait after a block of ours was refused: there is a fault, and more of the same would not help.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// How often the hash rate is printed.
const PRINT_INTERVAL: Duration = Duration::from_secs(60);
/// Tries between two looks at whether there is other work.
const STRIDE: u32 = 1 << 15;

/// What the threads work on.
struct Job {
    template: Template,
    generation: u64,
    made: Instant,
}

/// What the miner's threads share.
struct Shared {
    node: NodeHandle,
    options: Options,
    job: Mutex<Option<Arc<Job>>>,
    changed: Condvar,
    /// Changes with the job.
    number: AtomicU64,
    extra_nonce: AtomicU64,
    hashes: AtomicU64,
    /// A block on top of this one is found and being judged.
    solved: Mutex<Option<BlockHash>>,
    /// None is mined before.
    pause_until: Mutex<Instant>,
}

/// The miner's threads: they end when the node is told to stop.
pub struct Miner {
    threads: Vec<JoinHandle<()>>,
}

impl Miner {
    /// Starts to mine.
    pub fn start(node: NodeHandle, options: Options) -> anyhow::Result<Miner> {
        let count = options.threads;
        let shared = Arc::new(Shared {
            node,
            options,
            job: Mutex::new(None),
            changed: Condvar::new(),
            number: AtomicU64::new(0),
            extra_nonce: AtomicU64::new(0),
            hashes: AtomicU64::new(0),
            solved: Mutex::new(None),
            pause_until: Mutex::new(Instant::now()),
        });
        let lead = shared.clone();
        let mut threads = vec![thread("miner", move || lead.lead())?];
        for number in 0..count {
            let shared = shared.clone();
            threads.push(thread(&format!("mine{number}"), move || shared.mine())?);
        }
        Ok(Miner { threads })
    }

    /// Waits until the threads have ended.
    pub fn wait(self) {
        self.threads.into_iter().for_each(|thread| thread.join().expect("the miner does not panic"));
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        *self.node.stopping().borrow()
    }

    /// Keeps the job fresh until the node stops.
    fn lead(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime without sockets needs nothing of the system");
        let (mut tips, mut stopping) = (self.node.tips(), self.node.stopping());
        let (mut counted, mut printed) = (Instant::now(), Instant::now());
        while !self.is_stopping() {
            let tip = *tips.borrow_and_update();
            let wanted = self.may_mine(tip).then(|| self.refreshed(tip));
            match wanted {
                None => self.give(None),
                Some(Ok(Some(job))) => self.give(Some(job)),
                Some(Ok(None)) => {}
                Some(Err(Stopped)) => break,
            }
            runtime.block_on(async {
                tokio::select! {
                    _ = tips.changed() => {}
                    _ = stopping.changed() => {}
                    () = tokio::time::sleep(TICK) => {}
                }
            });
            let span = counted.elapsed();
            if span > REFRESH {
                let hashes = self.hashes.swap(0, Ordering::Relaxed);
                self.node.hash_rate.store((hashes as f64 / span.as_secs_f64()) as u64, Ordering::Relaxed);
                counted = Instant::now();
            }
            if printed.elapsed() > PRINT_INTERVAL {
                printed = Instant::now();
                let rate = self.node.hash_rate() as f64 / 1e6;
                info!("mining on height {} at {rate:.2} million hashes a second", self.node.tip().1 + 1);
            }
        }
        self.give(None);
    }

    /// Whether a block found now would be worth something: the node is not catching up, and stands on the chain that is
    /// the network's.
    fn may_mine(&self, tip: BlockHash) -> bool {
        if Instant::now() < *self.pause_until.lock() || *self.solved.lock() == Some(tip) {
            return false;
        }
        let tree = self.node.tree().read();
        let (tip, best) = (tree.node(tree.tip()), tree.node(tree.best_header()));
        best.height <= tip.height + MAX_BEHIND && tip.work >= self.node.params().minimum_chain_work
    }

    /// A new job, unless the one that there is will do.
    fn refreshed(&self, tip: BlockHash) -> Result<Option<Job>, Stopped> {
        let current = self.job.lock().clone();
        let good = current.is_some_and(|job| {
            let place = &job.template.place;
            let fees = job.generation != self.node.mempool().read().generation();
            place.parent == tip && now() <= place.bits_until && !(fees && job.made.elapsed() > REFRESH)
        });
        if good {
            return Ok(None);
        }
        let script = self.options.script.clone();
        let Fresh { template, generation } = next_block(&self.node, script, &self.options.limits, true)?;
        Ok(Some(Job { template, generation, made: Instant::now() }))
    }

    fn give(&self, job: Option<Job>) {
        let mut place = self.job.lock();
        if job.is_none() && place.is_none() && !self.is_stopping() {
            return;
        }
        *place = job.map(Arc::new);
        self.number.fetch_add(1, Ordering::Relaxed);
        drop(place);
        self.changed.notify_all();
    }

    /// A thread that looks for nonces.
    fn mine(&self) {
        // Whatever else this machine does comes first. Elsewhere a priority is the whole process's.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::setpriority_process(None, 19);
        while let Some((job, number)) = self.next_job() {
            self.work(&job, number);
        }
    }

    /// Waits for a job; none: the node stops.
    fn next_job(&self) -> Option<(Arc<Job>, u64)> {
        let mut place = self.job.lock();
        loop {
            if self.is_stopping() {
                return None;
            }
            if let Some(job) = &*place {
                return Some((job.clone(), self.number.load(Ordering::Relaxed)));
            }
            self.changed.wait_for(&mut place, TICK);
        }
    }

    /// Looks for a nonce until there is other work, or all nonces of one coinbase are tried.
    fn work(&self, job: &Job, number: u64) {
        let (template, params) = (&job.template, self.node.params());
        let mut coinbase = template.coinbase_with(self.extra_nonce.fetch_add(1, Ordering::Relaxed));
        let time = now().clamp(template.place.min_time, template.place.bits_until);
        let on_time = |coinbase: &Transaction| Header { time, ..template.header(coinbase) };
        let mut header = match &self.options.signer {
            Some(signer) => signer.solve(&mut coinbase, on_time),
            None => on_time(&coinbase),
        };
        let Some(mut search) = Search::new(&header, params) else { return };
        let mut from = 0;
        loop {
            if let Some(nonce) = search.run(from, STRIDE) {
                self.hashes.fetch_add(u64::from(nonce - from + 1), Ordering::Relaxed);
                header.nonce = nonce;
                return self.hand_in(template, header, coinbase, number);
            }
            self.hashes.fetch_add(STRIDE.into(), Ordering::Relaxed);
            let Some(next) = from.checked_add(STRIDE) else { return };
            from = next;
            if self.number.load(Ordering::Relaxed) != number {
                return;
            }
            // A solution of a signet holds for one time.
            if self.options.signer.is_none() {
                header.time = now().clamp(header.time, template.place.bits_until);
                search.set_time(header.time, header.bits);
            }
            if cfg!(not(target_os = "linux")) {
                std::thread::yield_now();
            }
        }
    }

    /// Hands a found block in; the work on it ends, unless another thread was first.
    fn hand_in(&self, template: &Template, header: Header, coinbase: Transaction, number: u64) {
        {
            let mut place = self.job.lock();
            if self.number.load(Ordering::Relaxed) != number {
                return;
            }
            *place = None;
            self.number.fetch_add(1, Ordering::Relaxed);
            *self.solved.lock() = Some(template.place.parent);
            if self.node.params().no_retargeting {
                *self.pause_until.lock() = Instant::now() + GENTLE_PAUSE;
            }
        }
        let (hash, height) = (header.block_hash(), template.place.height);
        let block = template.block(header, coinbase);
        match self.node.submit_block(serialize(&block)) {
            Ok(Submitted::Accepted) => info!("mined block {hash} at height {height}"),
            Ok(Submitted::Inconclusive | Submitted::Duplicate) => {
                info!("mined block {hash} at height {height}, too late: another one was first");
            }
            Ok(Submitted::Rejected(rejection)) => {
                info!("block {hash} was mined here at height {height} and refused: {rejection}");
                *self.pause_until.lock() = Instant::now() + REFUSED_PAUSE;
            }
            Ok(Submitted::Undecodable) => unreachable!("a block that was written can be read"),
            Err(Stopped) => {}
        }
        *self.solved.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_network_is_refused_with_that_networks_name() {
        let main = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
        let test = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
        for (network, address, expected) in [
            ("regtest", main, "an address of the main network"),
            ("regtest", test, "an address of the test networks"),
            ("testnet4", main, "an address of the main network"),
            ("main", test, "an address of the test networks"),
            ("main", "mrX9vMRYLfVy1BnZbc5gZjuyaqH3ZW2ZHz", "an address of the test networks"),
            ("main", "nonsense", "takes an address"),
        ] {
            let params = Params::by_name(network).expect("a known network");
            let error = pays_to(address, &params).expect_err("it is no address of this network");
            assert!(error.to_string().contains(expected), "{address} on {network}: {error}");
        }
        for (network, address) in [("main", main), ("testnet4", test), ("signet", test)] {
            let params = Params::by_name(network).expect("a known network");
            assert!(pays_to(address, &params).is_ok(), "{address} on {network}");
        }
    }

    #[test]
    fn a_signet_asks_for_its_key_and_other_networks_for_none() {
        let address = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
        let signet = Params::by_name("signet").expect("a known network");
        let error =
            Options::new(address, 1, BlockLimits::default(), None, &signet).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("--signet-key-file")));
        let testnet = Params::by_name("testnet4").expect("a known network");
        let error = Options::new(address, 1, BlockLimits::default(), Some(Path::new("key")), &testnet).err();
        assert!(error.is_some_and(|error| error.to_string().contains("testnet4 is none")));
        let anybodys = Params::signet(Some(ScriptBuf::from_bytes(ANYBODY.to_vec())));
        assert!(Options::new(address, 1, BlockLimits::default(), None, &anybodys).is_ok());
    }
}
