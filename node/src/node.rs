//! A node that runs: opens its ports, starts the ledger thread and the hub thread, and ends them in order.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use bitcoin::Txid;
use groat_chain::ledger::{Ledger, LedgerError};
use groat_chain::mempool::Policy;
use groat_chain::pool::Pool;
use groat_net::driver::{self, Driver, Event};
use groat_net::limits::Limits;
use groat_net::peer::{
    LinkKind, NODE_BLOOM, NODE_COMPACT_FILTERS, NODE_NETWORK, NODE_NETWORK_LIMITED, NODE_P2P_V2, NODE_WITNESS,
};
use groat_net::protocol::{self, Protocol};
use groat_net::slots::Slots;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use crate::chainstate::Chainstate;
use crate::clock;
use crate::config::{Config, user_agent};
use crate::events;
use crate::handle::NodeHandle;
use crate::hub::{Hub, Inbox, Mute, Told};
use crate::ledger;
use crate::memory::Files;
use crate::network::{self, Bind};
use crate::notify::Teller;
use crate::process::thread;
use crate::requests::Queue;
use crate::transactions::Transactions;
use crate::warnings::{Warnings, Watch};
use crate::zmq::Publisher;
use crate::{bottleneck, persist, portmap, tor};

/// Answers of the ledger, and questions of interfaces, that wait for the hub.
const MAX_WAITING: usize = 1024;
/// Blocks read at a time to be served.
const READERS: usize = 4;
/// Names resolved at a time beside that: a name server that does not answer must hold up no block.
const RESOLVERS: usize = 16;
/// From one look at the clock to the next.
const CLOCK_INTERVAL: Duration = Duration::from_secs(10);
/// How long tasks may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Links that may come in beyond those that are kept: the protocol chooses who has to go.
const SPARE_INBOUND: usize = 32;

/// A node and its threads.
pub struct Node {
    handle: NodeHandle,
    ledger: JoinHandle<Result<(), LedgerError>>,
    /// Gives the transactions that no peer has asked for yet.
    hub: JoinHandle<BTreeSet<Txid>>,
    /// Where the pool is stored, if it is, and the thread that reads it.
    stored: Option<(PathBuf, JoinHandle<()>)>,
    /// Who tells of what happens, if somebody wants to know, and where that waits.
    teller: Option<(Arc<events::Queue>, JoinHandle<()>)>,
    runtime: Runtime,
}

/// What a node is made of.
pub(crate) struct Parts {
    pub(crate) ledger: Ledger,
    /// What the mempool takes.
    pub(crate) policy: Policy,
    pub(crate) pool: Arc<Pool>,
    pub(crate) runtime: Runtime,
    pub(crate) driver: (Driver, mpsc::Receiver<Event>),
    pub(crate) protocol: Protocol,
    /// Where peers and bans are written down, if they are.
    pub(crate) files: Option<Files>,
    /// Height at which it stops by itself; 0: none.
    pub(crate) stop_at: u32,
    /// Who wants to know what happens to chain and pool.
    pub(crate) wanted: Option<Arc<events::Queue>>,
    pub(crate) warnings: Warnings,
}

impl Node {
    /// Starts a node on an open ledger.
    pub fn start(config: &Config, state: Chainstate) -> anyhow::Result<Node> {
        let Chainstate { ledger, pool, folder, .. } = state;
        let params = ledger.params().clone();
        let mut plan = network::plan(config, &params, &folder)?;
        plan.dialling.slots = Slots::with_total(network::links_within_file_limit(config.maxconnections));
        let stored = folder.join(persist::FILE);
        let files = Files::new(folder);
        let memory = files.read(clock::now(), plan.dialling.automatic)?;
        let runtime = runtime()?;
        let limits = Limits::default();
        let options = driver::Options {
            magic: params.magic,
            port: params.port,
            v2: config.v2transport,
            max_inbound: plan.dialling.slots.inbound() + SPARE_INBOUND,
            grants: plan.grants,
            proxies: plan.proxies,
            cjdns: config.peers.cjdnsreachable,
            send_pause_bytes: limits.send_pause_bytes,
        };
        let (mut driver, events) = Driver::new(runtime.handle().clone(), options);
        listen(&driver, &plan.binds)?;
        driver.set_active(config.peers.networkactive);
        for address in config.connect.iter().chain(&config.addnode).filter(|address| *address != "0") {
            driver.keep(address, LinkKind::Manual, None);
        }
        let mut protocol = Protocol::new(protocol::Config {
            params,
            services: services(config),
            user_agent: user_agent(&config.start.uacomment)?,
            blocks_only: config.blocksonly,
            dialling: plan.dialling,
            peer_timeout: Duration::from_secs(config.peertimeout),
            relay: config.relay,
            reconcile: config.txreconciliation,
            upload_target: config.maxuploadtarget,
            limits,
            // Core: `-test=addrman`.
            seed: if config.test.iter().any(|name| name == "addrman") { [1; 32] } else { driver::seed() },
        });
        protocol.remember(memory);
        let (files, driver) = (Some(files), (driver, events));
        let policy = config.policy()?;
        let notify = &config.notify;
        let publisher = {
            let _inside = runtime.enter();
            Publisher::bind(&notify.zmq()?)?
        };
        let wanted = (!publisher.is_idle() || notify.blocknotify.is_some()).then(Arc::<events::Queue>::default);
        let (tree, store) = (ledger.tree(), ledger.store());
        let teller = Teller { publisher, blocknotify: notify.blocknotify.clone(), tree, store };
        let teller = wanted.clone().map(|queue| anyhow::Ok((queue.clone(), teller.start(queue)?))).transpose()?;
        let warnings = Warnings::new(notify.alertnotify.clone());
        let stop_at = config.start.stopatheight;
        let parts = Parts { ledger, policy, pool, runtime, driver, protocol, files, stop_at, wanted, warnings };
        let (mut node, told) = Node::begin(parts)?;
        node.teller = teller;
        *node.handle.last_commands.lock() = notify.shutdownnotify.clone();
        if config.persistmempool {
            node.load(stored)?;
        }
        if let Some(options) = plan.tor {
            node.runtime.spawn(tor::run(options, told.clone()));
        }
        if let Some(port) = plan.mapped {
            node.runtime.spawn(portmap::run(port, told));
        }
        Ok(node)
    }

    /// Starts the threads. Also gives where news for the hub go.
    pub(crate) fn begin(parts: Parts) -> anyhow::Result<(Node, mpsc::Sender<Told>)> {
        let Parts { mut ledger, policy, pool, runtime, driver, protocol, files, stop_at, wanted, warnings } = parts;
        let (driver, events) = driver;
        let transactions = Transactions::new(&mut ledger, policy, wanted);
        let mempool = transactions.pool().clone();
        let (tree, store, params) = (ledger.tree(), ledger.store(), ledger.params().clone());
        let (told, from_ledger) = mpsc::channel(MAX_WAITING);
        let (asks, from_interfaces) = mpsc::channel(MAX_WAITING);
        let (stop, stopping) = watch::channel(false);
        let (tip, tips) = watch::channel(ledger.tip());
        let queue = Arc::new(Queue::default());
        let hub = Hub {
            protocol,
            driver,
            tree: tree.clone(),
            mempool: mempool.clone(),
            store: store.clone(),
            pool,
            params: params.clone(),
            ledger: queue.clone(),
            told: told.clone(),
            files,
            mute: Mute::default(),
        };
        let inbox = Inbox { told: from_ledger, asks: from_interfaces, events, stop: stopping };
        let warnings = Arc::new(warnings);
        let watch = Watch::new(warnings.clone(), tree.clone(), params.clone());
        let (loaded, stop) = (Arc::new(AtomicBool::new(true)), Arc::new(stop));
        let handle = NodeHandle {
            tree,
            mempool,
            loaded,
            store,
            indexes: ledger.indexes(),
            params,
            ledger: queue.clone(),
            hub: asks,
            tips,
            stop,
            last_commands: Arc::default(),
            warnings: warnings.clone(),
            hash_rate: Arc::default(),
            bottleneck: Arc::default(),
        };
        runtime.spawn(look_at_clock(handle.clone()));
        let (looks, stopping) = (handle.bottleneck.clone(), handle.stopping());
        runtime.spawn(bottleneck::watch(looks, queue.clone(), handle.tree.clone(), stopping));
        let inside = runtime.handle().clone();
        let hub = thread("hub", move || hub.run(inbox, &inside))?;
        let (stops, news) = (handle.clone(), told.clone());
        let ledger = thread("ledger", move || {
            let ended = ledger::run(&mut ledger, &transactions, &queue, &tip, stop_at, told, watch);
            // Without its ledger a node is none.
            stops.stop();
            ended
        })?;
        Ok((Node { handle, ledger, hub, stored: None, teller: None, runtime }, news))
    }

    /// Has the pool that is stored read; at the end it is stored again.
    fn load(&mut self, path: PathBuf) -> anyhow::Result<()> {
        self.handle.loaded.store(false, Ordering::Release);
        let (node, from) = (self.handle.clone(), path.clone());
        self.stored = Some((path, thread("mempool", move || persist::load(&node, &from))?));
        Ok(())
    }

    /// What interfaces hold of it.
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// Waits until it was told to stop and has written everything.
    pub fn wait(self) -> anyhow::Result<()> {
        let ended = self.ledger.join().expect("the ledger thread does not panic");
        if let Some((queue, teller)) = self.teller {
            queue.close();
            teller.join().expect("the events' thread does not panic");
        }
        let unbroadcast = self.hub.join().expect("the hub thread does not panic");
        if let Some((path, loader)) = self.stored {
            loader.join().expect("the mempool's thread does not panic");
            // A pool that was not read to its end must not take the place of what is stored.
            if self.handle.is_mempool_loaded()
                && let Err(error) = persist::save(&self.handle, unbroadcast, &path)
            {
                error!("the mempool could not be stored in {}: {error}", path.display());
            }
        }
        self.runtime.shutdown_timeout(END_TIMEOUT);
        Ok(ended?)
    }
}

/// Service bits that the node offers.
pub fn services(config: &Config) -> u64 {
    let blocks = if config.prune > 0 { 0 } else { NODE_NETWORK };
    let transport = if config.v2transport { NODE_P2P_V2 } else { 0 };
    let bloom = if config.peerbloomfilters { NODE_BLOOM } else { 0 };
    let filters = if config.indexes.peerblockfilters { NODE_COMPACT_FILTERS } else { 0 };
    blocks | NODE_NETWORK_LIMITED | NODE_WITNESS | transport | bloom | filters
}

/// Looks now and then at what time alone brings about, until the node stops.
async fn look_at_clock(node: NodeHandle) {
    let mut stopping = node.stopping();
    while tokio::time::timeout(CLOCK_INTERVAL, stopping.changed()).await.is_err() {
        let (warnings, params) = (node.warnings.clone(), node.params.clone());
        let look = Box::new(move |hub: &mut Hub| warnings.look_at_clock(hub.time_offset(), &params));
        if node.hub.send(look).await.is_err() {
            return;
        }
    }
}

/// The threads on which links run.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(READERS + RESOLVERS)
        .thread_name("net")
        .enable_all()
        .build()
        .context("the threads for the network cannot be started")
}

/// Opens the ports for peers.
fn listen(driver: &Driver, binds: &[Bind]) -> anyhow::Result<()> {
    let mut open = false;
    for bind in binds {
        match driver.listen(bind.addr, bind.door) {
            Ok(addr) if bind.door.onion => info!("listening for Tor's daemon on {addr}"),
            Ok(addr) => {
                open = true;
                info!("listening for peers on {addr}");
            }
            Err(error) if bind.required || (!bind.door.onion && !open && bind.addr.is_ipv4()) => {
                let addr = bind.addr;
                return Err(error).with_context(|| {
                    format!("cannot listen for peers on {addr} (choose another port with --port, or --listen=0)")
                });
            }
            Err(_) if bind.door.onion => info!("Tor's daemon cannot reach this node on {}: it is taken", bind.addr),
            // The other version of the internet protocol is there, or came with the first.
            Err(_) => {}
        }
    }
    Ok(())
}
