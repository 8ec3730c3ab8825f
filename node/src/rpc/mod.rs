//! JSON-RPC over HTTP as Core speaks it: a cookie, Basic authorization, versions 1.0, 1.1 and 2.0, batches.
//! Reads the chain through the node's handle and leaves every change to it; knows no rule and no peer.
//!
//! | file | what it holds |
//! |---|---|
//! | `http` | the one route: who may call, how long a body may be, how many calls run |
//! | `auth` | the cookie; what a browser's page may not do |
//! | `request` | JSON-RPC: requests and replies of each version, batches, notifications |
//! | `method`, `args` | what a method is; its arguments by position and by name, and their types |
//! | `logging` | what is logged |
//! | `control`, `blockchain`, `coins`, `mining` | methods about the server, the chain and new blocks |
//! | `template` | the next block for miners elsewhere, and blocks that they propose |
//! | `mempool`, `rawtransactions`, `fees` | methods about transactions and what they should pay |
//! | `network`, `peerinfo`, `bans`, `addresses` | methods about links, bans and the peer book |
//! | `show`, `script`, `number`, `amount` | headers, blocks, transactions, scripts and amounts as JSON |
//! | `zmq` | what is published by ZeroMQ |
//! | `error` | codes |

mod addresses;
mod amount;
mod args;
mod auth;
mod bans;
mod blockchain;
mod coins;
mod control;
mod error;
mod fees;
mod http;
mod logging;
mod mempool;
mod method;
mod mining;
mod network;
mod number;
mod peerinfo;
mod rawtransactions;
mod request;
mod script;
mod show;
mod submit;
mod template;
#[cfg(test)]
mod tests;
mod zmq;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use groat_chain::mempool::BlockLimits;
use parking_lot::Mutex;

use crate::handle::NodeHandle;
use crate::zmq::Notification;
use auth::Cookie;
use error::{RPC_IN_WARMUP, RpcError};

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the chain's data: the cookie goes there.
    pub folder: PathBuf,
    /// Port on 127.0.0.1; 0 takes a free one. Core: `-rpcport`.
    pub port: u16,
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

/// What all calls share.
struct Rpc {
    config: Config,
    cookie: Cookie,
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
    rpc: Arc<Rpc>,
    /// Ends the server when it goes.
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Serves a node that runs already.
pub fn serve(node: NodeHandle, config: Config) -> anyhow::Result<Server> {
    let server = Server::begin(config)?;
    server.ready(node);
    Ok(server)
}

impl Server {
    /// Begins to answer, with the error "warming up" until [`Server::ready`]. Listens on 127.0.0.1 alone.
    pub fn begin(config: Config) -> anyhow::Result<Server> {
        let wanted = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), config.port);
        let listener = std::net::TcpListener::bind(wanted)
            .with_context(|| format!("Unable to bind to {wanted} for RPC; is another node running there?"))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(http::THREADS)
            .thread_name("rpc")
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        // The port is ours: now the cookie of a run that still lives is safe from us.
        let cookie = Cookie::create(&config.folder)?;
        let rpc = Arc::new(Rpc {
            config,
            cookie,
            begun: Instant::now(),
            node: OnceLock::new(),
            warm_up: Mutex::new("Loading…"),
            calls: control::Calls::default(),
            in_sync: AtomicBool::new(false),
            mining: Mutex::new(()),
            last: Mutex::new(None),
            template: Mutex::new(None),
            fees: Mutex::new(fees::Recent::default()),
        });
        let (end, ended) = tokio::sync::oneshot::channel();
        let routes = http::routes(rpc.clone());
        let thread = std::thread::Builder::new().name("rpc".into()).spawn(move || {
            runtime.block_on(async move {
                let (close, closed) = tokio::sync::oneshot::channel::<()>();
                let serve = axum::serve(listener, routes).with_graceful_shutdown(async {
                    // An error says that the sender is gone, which is the same.
                    let _ = closed.await;
                });
                let serve = tokio::spawn(serve.into_future());
                let _ = ended.await;
                drop(close);
                // Calls under way end; links that say nothing do not hold the node up.
                let _ = tokio::time::timeout(STOP_GRACE, serve).await;
            });
            runtime.shutdown_timeout(STOP_GRACE);
        })?;
        Ok(Server { address, rpc, end: Some(end), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What calls are told while the node starts, such as "Loading block index…".
    pub fn warming_up(&self, what: &'static str) {
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
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
