//! JSON-RPC over HTTP as Core speaks it: a cookie, Basic authorization, versions 1.0, 1.1 and 2.0, batches.
//! Reads the chain through the node's handle and leaves every change to it; knows no rule and no peer.
//!
//! | file | what it holds |
//! |---|---|
//! | `listen` | the sockets: where, for whom, how long a link may be silent |
//! | `http` | paths, who may call, how long a body may be |
//! | `turns` | how many calls run, and how much of their answers waits to be read |
//! | `auth` | the cookie, users, their methods; what a browser's page may not do |
//! | `metrics`, `demand` | the node in numbers, for those who watch over it; the mempool in a few of them |
//! | `rest` | what is answered without a password under `/rest/` |
//! | `request` | JSON-RPC: requests and replies of each version, batches, notifications |
//! | `params` | parameters out of JSON, none of them twice |
//! | `method`, `args` | what a method is; its arguments by position and by name, and their types |
//! | `logging` | what is logged |
//! | `control`, `blockchain`, `coins`, `mining` | methods about the server, the chain and new blocks |
//! | `indexes` | methods about the optional indexes |
//! | `deployments`, `stats`, `proofs`, `wait` | rule changes, figures, merkle proofs, waiting for a block |
//! | `upkeep`, `snapshot`, `inside` | checking, pruning, a file of all coins; what developers look at |
//! | `template` | the next block for miners elsewhere, and blocks that they propose |
//! | `mempool`, `spending`, `rawtransactions`, `fees` | methods about transactions, who spends, what they should pay |
//! | `network`, `peerinfo`, `bans`, `addresses` | methods about links, bans and the peer book |
//! | `outputscript` | methods about addresses, scripts and descriptors |
//! | `scan`, `activity` | coins and blocks of descriptors, and what happened to them there |
//! | `signing`, `messages`, `psbt` | methods that sign with keys of the call; `sign`: how |
//! | `descriptor`, `keyexpr`, `fragment`, `address` | descriptors, their keys and miniscripts; addresses |
//! | `show`, `script`, `number`, `amount` | headers, blocks, transactions, scripts and amounts as JSON |
//! | `zmq` | what is published by ZeroMQ |
//! | `error` | codes |

mod activity;
mod address;
mod addresses;
mod amount;
mod args;
mod auth;
mod bans;
mod blockchain;
mod coins;
mod control;
mod demand;
mod deployments;
mod descriptor;
mod error;
mod fees;
mod fragment;
mod http;
mod indexes;
mod inside;
mod keyexpr;
mod listen;
mod logging;
mod mempool;
mod messages;
mod method;
mod metrics;
mod mining;
mod network;
mod number;
mod outputscript;
mod params;
mod peerinfo;
mod proofs;
mod psbt;
mod rawtransactions;
mod request;
mod rest;
mod scan;
mod script;
mod show;
mod sign;
mod signing;
mod snapshot;
mod spending;
mod stats;
mod submit;
mod template;
#[cfg(test)]
mod tests;
mod turns;
mod upkeep;
mod wait;
mod zmq;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use groat_chain::mempool::BlockLimits;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

use crate::config;
use crate::handle::NodeHandle;
use crate::zmq::Notification;
use auth::Users;
use error::{RPC_IN_WARMUP, RpcError};
use http::Http;
use listen::{Bounds, Doors};
use metrics::Metrics;

/// The methods, by the files they are in.
const METHODS: &[&[method::Method]] = &[
    activity::METHODS,
    addresses::METHODS,
    bans::METHODS,
    blockchain::METHODS,
    coins::METHODS,
    control::METHODS,
    deployments::METHODS,
    fees::METHODS,
    indexes::METHODS,
    inside::METHODS,
    logging::METHODS,
    mempool::METHODS,
    messages::METHODS,
    metrics::METHODS,
    mining::METHODS,
    network::METHODS,
    outputscript::METHODS,
    peerinfo::METHODS,
    proofs::METHODS,
    psbt::METHODS,
    rawtransactions::METHODS,
    scan::METHODS,
    signing::METHODS,
    snapshot::METHODS,
    spending::METHODS,
    stats::METHODS,
    submit::METHODS,
    template::METHODS,
    upkeep::METHODS,
    wait::METHODS,
    zmq::METHODS,
];

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the chain's data: the cookie goes there.
    pub folder: PathBuf,
    /// Port; 0 takes a free one. Core: `-rpcport`.
    pub port: u16,
    /// Who may call, where, and how much at once.
    pub http: config::Http,
    /// How the node names itself to peers, as in BIP14. Core: `strSubVersion`.
    pub user_agent: String,
    /// Service bits that the node offers.
    pub services: u64,
    /// Whether transactions of peers are taken.
    pub relay: bool,
    /// Bytes that block files may take, if they are pruned.
    pub prune: Option<u64>,
    /// What a block made here takes.
    pub block_limits: BlockLimits,
    /// Seconds that a ban lasts if nothing else is said. Core: `-bantime`.
    pub ban_time: u64,
    /// What is published by ZeroMQ.
    pub zmq: Vec<Notification>,
}

/// Time that calls under way get at the end.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Who asks for metrics comes again within a minute, and there are few of them.
const METRICS_BOUNDS: Bounds = Bounds { patience: Some(Duration::from_secs(60)), links: 16 };

/// What all calls share.
struct Rpc {
    config: Config,
    users: Users,
    begun: Instant,
    node: OnceLock<NodeHandle>,
    /// What the node does while it starts.
    warm_up: Mutex<&'static str>,
    calls: control::Calls,
    /// The chain has come near the network's tip once.
    in_sync: AtomicBool,
    /// One block is mined at a time: two at once would compete.
    mining: Mutex<()>,
    /// What the last template took, if there was one.
    last: Mutex<Option<mining::Summary>>,
    /// What `getblocktemplate` gave last.
    template: Mutex<Option<template::Given>>,
    /// What the last blocks ask for a place.
    fees: Mutex<fees::Recent>,
    /// What reads all coins.
    scan: Arc<scan::Scan>,
    /// What reads the filters of many blocks.
    filter_scan: Arc<scan::Scan>,
}

impl Rpc {
    /// The running node, or the error of a node that is still starting.
    fn node(&self) -> Result<&NodeHandle, RpcError> {
        self.node.get().ok_or_else(|| RpcError::new(RPC_IN_WARMUP, *self.warm_up.lock()))
    }
}

/// A server that runs until it is dropped.
pub struct Server {
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    rpc: Arc<Rpc>,
    /// True: end.
    end: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Serves a node that runs already.
pub fn serve(node: NodeHandle, config: Config) -> anyhow::Result<Server> {
    let server = Server::begin(config)?;
    server.ready(node);
    Ok(server)
}

impl Server {
    /// Begins to answer, with the error "warming up" until [`Server::ready`].
    pub fn begin(config: Config) -> anyhow::Result<Server> {
        let doors = Doors::open(&config.http, config.port)?;
        let address = doors.listeners[0].local_addr()?;
        let metrics = match metrics::address(config.http.metrics.as_deref())? {
            Some(address) => {
                let refused = || format!("-metrics={address}: that address cannot be listened on");
                Some(TcpListener::bind(address).with_context(refused)?)
            }
            None => None,
        };
        let metrics_address = metrics.as_ref().map(TcpListener::local_addr).transpose()?;
        // The port is ours: now the cookie of a run that still lives is safe from us.
        let users = match Users::new(&config.http, &config.folder) {
            Ok(users) => users,
            Err(reason) => {
                warn!("{reason:#}");
                bail!("Unable to start HTTP server. See debug log for details.");
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            // One more for who asks how the node is, while all others are taken.
            .max_blocking_threads(http::threads(&config.http) + 1)
            .thread_name("rpc")
            .enable_all()
            .build()?;
        let rpc = Arc::new(Rpc {
            config,
            users,
            begun: Instant::now(),
            node: OnceLock::new(),
            warm_up: Mutex::new("Loading block index…"),
            calls: control::Calls::default(),
            in_sync: AtomicBool::new(false),
            mining: Mutex::new(()),
            last: Mutex::new(None),
            template: Mutex::new(None),
            fees: Mutex::new(fees::Recent::default()),
            scan: Arc::default(),
            filter_scan: Arc::default(),
        });
        let (end, ended) = watch::channel(false);
        let http = Arc::new(Http::new(rpc.clone(), doors));
        let metrics = metrics
            .zip(metrics_address)
            .map(|(listener, address)| (listener, Arc::new(Metrics::new(rpc.clone(), address))));
        let thread = std::thread::Builder::new().name("rpc".into()).spawn(move || {
            runtime.block_on(async {
                if let Some((listener, metrics)) = metrics {
                    let answer = move |from, request| metrics.clone().answer(from, request);
                    tokio::spawn(listen::serve(listener, METRICS_BOUNDS, ended.clone(), |_| true, answer));
                }
                http.serve(ended).await;
            });
            runtime.shutdown_timeout(STOP_GRACE);
        })?;
        Ok(Server { address, metrics: metrics_address, rpc, end, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves metrics, if it does.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// What calls are told while the node starts, such as "Loading block index…".
    pub(crate) fn warming_up(&self, what: &'static str) {
        *self.rpc.warm_up.lock() = what;
    }

    /// From now on calls are answered. Only the first node counts.
    pub fn ready(&self, node: NodeHandle) {
        let _ = self.rpc.node.set(node);
    }
}

impl Drop for Server {
    /// Ends the calls under way, closes all links and removes the cookie.
    fn drop(&mut self) {
        self.end.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
