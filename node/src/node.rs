//! A node that runs: opens its ports, starts the ledger thread and the hub thread, and ends them in order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use groat_chain::ledger::LedgerError;
use groat_net::driver::{self, Driver};
use groat_net::limits::Limits;
use groat_net::peer::{LinkKind, NODE_BLOOM, NODE_NETWORK, NODE_NETWORK_LIMITED, NODE_P2P_V2, NODE_WITNESS};
use groat_net::protocol::{self, Protocol};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::chainstate::Chainstate;
use crate::clock;
use crate::config::Config;
use crate::handle::NodeHandle;
use crate::hub::{Hub, Inbox};
use crate::ledger::{self, Queue};
use crate::memory::Files;

/// Answers of the ledger, and questions of interfaces, that wait for the hub.
const MAX_WAITING: usize = 1024;
/// Blocks read at a time to be served.
const READERS: usize = 4;
/// Links kept free for the peers that we choose: 8 full, 2 for blocks only, a feeler. Core: `m_max_automatic_outbound`.
const MAX_AUTOMATIC_OUTBOUND: usize = 11;
/// How long tasks may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A node and its threads.
pub struct Node {
    handle: NodeHandle,
    ledger: JoinHandle<Result<(), LedgerError>>,
    hub: JoinHandle<()>,
    runtime: Runtime,
}

impl Node {
    /// Starts a node on an open ledger.
    pub fn start(config: &Config, state: Chainstate) -> anyhow::Result<Node> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(READERS)
            .thread_name("net")
            .enable_all()
            .build()
            .context("the threads for the network cannot be started")?;
        let Chainstate { mut ledger, pool, folder } = state;
        let (tree, store, params) = (ledger.tree(), ledger.store(), ledger.params().clone());
        let limits = Limits::default();
        let options = driver::Options {
            magic: params.magic,
            port: params.port,
            v2: config.v2transport,
            max_inbound: config.maxconnections.saturating_sub(MAX_AUTOMATIC_OUTBOUND),
            send_pause_bytes: limits.send_pause_bytes,
        };
        let (mut driver, events) = Driver::new(runtime.handle().clone(), options);
        for addr in listen_addresses(config, &params)? {
            let listening = driver.listen(addr).with_context(|| {
                format!("cannot listen for peers on {addr} (choose another port with --port, or --listen=0)")
            })?;
            println!("listening for peers on {listening}");
        }
        for address in config.connect.iter().chain(&config.addnode).filter(|address| *address != "0") {
            driver.keep(address, LinkKind::Manual);
        }
        let files = Files::new(folder);
        let memory = files.read(clock::now())?;
        let mut protocol = Protocol::new(protocol::Config {
            params: params.clone(),
            services: services(config),
            user_agent: user_agent(),
            blocks_only: BLOCKS_ONLY,
            dialling: groat_net::dial::Options::default(),
            peer_timeout: Duration::from_secs(config.peertimeout),
            relay: config.relay,
            reconcile: config.txreconciliation,
            upload_target: config.maxuploadtarget,
            limits,
            seed: driver::seed(),
        });
        protocol.remember(memory);

        let (told, from_ledger) = mpsc::channel(MAX_WAITING);
        let (asks, from_interfaces) = mpsc::channel(MAX_WAITING);
        let (stop, stopping) = watch::channel(false);
        let queue = Arc::new(Queue::default());
        let hub = Hub {
            protocol,
            driver,
            tree: tree.clone(),
            store: store.clone(),
            pool,
            params: params.clone(),
            ledger: queue.clone(),
            told: told.clone(),
            files,
            verbose: config.debug.iter().any(|topic| topic == "net"),
        };
        let inbox = Inbox { told: from_ledger, asks: from_interfaces, events, stop: stopping };
        let handle = NodeHandle { tree, store, params, ledger: queue, hub: asks, stop: Arc::new(stop) };
        let inside = runtime.handle().clone();
        let hub = thread("hub", move || hub.run(inbox, &inside))?;
        let stops = handle.clone();
        let ledger = thread("ledger", move || {
            let ended = ledger::run(&mut ledger, &stops.ledger, told);
            // Without its ledger a node is none.
            stops.stop();
            ended
        })?;
        Ok(Node { handle, ledger, hub, runtime })
    }

    /// What interfaces hold of it.
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// Waits until it was told to stop and has written everything.
    pub fn wait(self) -> anyhow::Result<()> {
        let ended = self.ledger.join().expect("the ledger thread does not panic");
        self.hub.join().expect("the hub thread does not panic");
        self.runtime.shutdown_timeout(END_TIMEOUT);
        Ok(ended?)
    }
}

/// No transactions are taken until there is a memory pool.
pub const BLOCKS_ONLY: bool = true;

/// Service bits that the node offers.
pub fn services(config: &Config) -> u64 {
    let blocks = if config.prune > 0 { 0 } else { NODE_NETWORK };
    let transport = if config.v2transport { NODE_P2P_V2 } else { 0 };
    let bloom = if config.peerbloomfilters { NODE_BLOOM } else { 0 };
    blocks | NODE_NETWORK_LIMITED | NODE_WITNESS | transport | bloom
}

/// How the node names itself to peers (BIP14).
pub fn user_agent() -> String {
    format!("/Groat:{}/", env!("CARGO_PKG_VERSION"))
}

/// A thread with a name. One that panics ends the process: a node without it would only seem to run.
fn thread<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<JoinHandle<T>> {
    struct AbortOnPanic;
    impl Drop for AbortOnPanic {
        fn drop(&mut self) {
            if std::thread::panicking() {
                std::process::abort();
            }
        }
    }
    let guarded = move || {
        let _guard = AbortOnPanic;
        work()
    };
    std::thread::Builder::new().name(name.into()).spawn(guarded).context("a thread cannot be started")
}

/// Where to listen: the addresses of `--bind`, else everywhere; on regtest, which is for tests, only on this machine.
fn listen_addresses(config: &Config, params: &groat_chain::params::Params) -> anyhow::Result<Vec<SocketAddr>> {
    // As with Core, who names the peers to connect to wants no others, unless they say so.
    if !config.listen.unwrap_or(config.connect.is_empty()) {
        return Ok(Vec::new());
    }
    let port = config.port.unwrap_or(params.port);
    if config.bind.is_empty() {
        let local = params.name == "regtest";
        let v4 = if local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        return Ok(vec![(v4, port).into()]);
    }
    let parse = |text: &String| match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
        (Ok(addr), _) => Ok(addr),
        (_, Ok(ip)) => Ok((ip, port).into()),
        _ => match text.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
            Ok(ip) => Ok((ip, port).into()),
            Err(_) => bail!("--bind takes an address of this machine, with or without a port, not \"{text}\""),
        },
    };
    config.bind.iter().map(parse).collect()
}
