//! The node in numbers: gathered in one place, shown to Prometheus under `/metrics`, and as two verdicts for those who
//! watch over processes: `/healthy` (it has peers) and `/ready` (it is at the network's tip). Asks for no password.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use groat_chain::rules::branch::median_time_past;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::auth::is_from_elsewhere;
use super::demand::{Demand, RANGES};
use super::error::{RPC_MISC_ERROR, RpcError};
use super::http::Reply;
use super::method::{self, answer};
use super::{Rpc, blockchain, listen};
use crate::bottleneck::{Shares, memory_limit};
use crate::clock::now;
use crate::handle::NodeHandle;

/// Where Bitcoin's exporters for Prometheus listen.
const PORT: u16 = 9332;
/// Blocks by which a node may lag behind the headers it knows and still be ready.
const READY_LAG: u32 = 2;
/// How old the tip of a ready node is at most, in times from block to block. By chance it is older once in 65 million times.
const READY_SPACINGS: u32 = 18;

/// The address that `-metrics` names, if it is on: alone it means [`PORT`] of this machine.
pub fn address(option: Option<&str>) -> Result<Option<SocketAddr>> {
    let here = |port| SocketAddr::from(([127, 0, 0, 1], port));
    match option {
        None | Some("0") => Ok(None),
        Some("1" | "") => Ok(Some(here(PORT))),
        Some(text) => {
            let port = text.parse().ok().map(here);
            let address = port.or_else(|| listen::address(text, PORT));
            let wanted = || format!("-metrics takes an address such as 127.0.0.1:{PORT}, not \"{text}\"");
            address.with_context(wanted).map(Some)
        }
    }
}

/// See [`super::method::all`].
pub const METHODS: &[method::Method] = &[method::Method {
    name: "getnodestatus",
    group: "control",
    args: &[],
    about: "The gauges of -metrics: what the node is doing, what it takes, and what limits it. Units are in the names.",
    run: |rpc, _| {
        let node = rpc.node()?;
        let numbers = Numbers::gather(rpc, node).map_err(|error| RpcError::new(RPC_MISC_ERROR, error.to_string()))?;
        // Counts are shown as whole numbers.
        let shown = |value: f64| if value.fract() == 0.0 { json!(value as u64) } else { json!(value) };
        let gauge = |gauge: Gauge| match gauge.values {
            Values::One(value) => (gauge.name, shown(value)),
            Values::By(_, values) => {
                (gauge.name, values.into_iter().map(|(label, value)| (label, shown(value))).collect())
            }
        };
        answer(numbers.gauges().into_iter().map(gauge).collect::<BTreeMap<_, Value>>())
    },
}];

/// What a node is doing and what it takes. Sizes are in bytes, times in seconds.
pub struct Numbers {
    /// Height of the proven tip.
    pub height: u32,
    /// Height of the best header.
    pub headers: u32,
    /// Part of the chain that is connected, 0 to 1.
    pub progress: f64,
    /// Whether it has not come near the network's tip yet.
    pub initial_download: bool,
    /// Time since the tip's own.
    pub tip_age: u32,
    /// Transactions in all blocks up to the tip.
    pub chain_transactions: u64,
    /// Links that came in.
    pub peers_in: usize,
    /// Links that we made.
    pub peers_out: usize,
    /// Bytes from peers since the start.
    pub received: u64,
    /// Bytes to peers since the start.
    pub sent: u64,
    /// Transactions that wait for a block.
    pub mempool_transactions: usize,
    /// Their virtual size.
    pub mempool_vsize: u64,
    /// Memory that they take.
    pub mempool_memory: usize,
    /// Least fee that the pool takes, in satoshi for 1000 virtual bytes.
    pub mempool_min_fee: u64,
    /// What they pay, and what of them the next block takes.
    pub demand: Demand,
    /// Memory of the coins that are not in the database alone.
    pub coin_table: usize,
    /// Size of the block and undo files.
    pub block_files: u64,
    /// Free space where they are, where that is known.
    pub disk_free: Option<u64>,
    /// Memory of the whole process, where the system tells it.
    pub memory: Option<u64>,
    /// Hashes a second of the built-in miner.
    pub hash_rate: u64,
    /// What the ledger's time of the last minute went into.
    pub shares: Shares,
    /// Time that the rest of the first sync takes at the present pace, if that is known.
    pub sync_left: Option<u64>,
    /// Memory that the process may take, where the system tells it.
    pub memory_limit: Option<u64>,
    /// Requests that wait for the ledger.
    pub ledger_queue: usize,
    /// Calls of the RPC that run.
    pub rpc_calls: usize,
    /// Time since the interfaces began.
    pub uptime: u64,
}

/// A number, or several of a kind, that go up and down.
struct Gauge {
    /// With its unit.
    name: &'static str,
    about: &'static str,
    values: Values,
}

enum Values {
    One(f64),
    /// By the label of this name.
    By(&'static str, Vec<(String, f64)>),
}

impl Numbers {
    /// Asks the node's threads, on one that may block.
    pub(super) fn gather(rpc: &Rpc, node: &NodeHandle) -> Result<Numbers> {
        let (peers, traffic) = node.with_hub(|hub| (hub.network(), hub.totals()))?;
        let ledger_queue = node.ledger_queue();
        let coin_table = node.with_ledger(|ledger| Ok(ledger.table_memory()))?;
        let initial_download = blockchain::is_initial_block_download(rpc, node);
        let files = node.store().files()?;
        let tree = node.tree().read();
        let (tip, best) = (tree.node(tree.tip()), tree.node(tree.best_header()));
        let pool = node.mempool().read();
        let median_time = median_time_past(&tree.branch(tree.tip()));
        let progress = blockchain::progress(&tree, node.params().spacing);
        let to_come = f64::from(tip.height) / progress.max(f64::MIN_POSITIVE) - f64::from(tip.height);
        let left = Some(to_come).filter(|_| initial_download).and_then(|blocks| node.bottleneck().seconds_left(blocks));
        Ok(Numbers {
            height: tip.height,
            headers: best.height,
            progress,
            initial_download,
            tip_age: now().saturating_sub(tip.time),
            chain_transactions: tip.chain_tx,
            peers_in: peers.inbound,
            peers_out: peers.outbound,
            received: traffic.received,
            sent: traffic.sent,
            mempool_transactions: pool.len(),
            mempool_vsize: pool.vsize(),
            mempool_memory: pool.memory(),
            mempool_min_fee: pool.min_fee(now().into()).max(pool.policy().min_relay_fee),
            demand: Demand::of(&pool, &rpc.config.block_limits, tip.height + 1, median_time),
            coin_table,
            block_files: files.iter().map(|(_, bytes)| bytes).sum(),
            disk_free: node.store().free_space()?,
            memory: resident_memory(),
            hash_rate: node.hash_rate(),
            shares: node.bottleneck().shares(),
            sync_left: left,
            memory_limit: memory_limit(),
            ledger_queue,
            rpc_calls: rpc.calls.len(),
            uptime: rpc.begun.elapsed().as_secs(),
        })
    }

    /// In the text format of Prometheus.
    fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments| text.write_fmt(line).expect("a string takes what is written");
        let received = ("received_bytes_total", "Bytes from peers since the start.", self.received);
        let sent = ("sent_bytes_total", "Bytes to peers since the start.", self.sent);
        for Gauge { name, about, values } in self.gauges() {
            line(format_args!("# HELP groat_{name} {about}\n# TYPE groat_{name} gauge\n"));
            match values {
                Values::One(value) => line(format_args!("groat_{name} {value}\n")),
                Values::By(key, values) => {
                    values.iter().for_each(|(label, value)| {
                        line(format_args!("groat_{name}{{{key}=\"{label}\"}} {value}\n"));
                    });
                }
            }
        }
        for (name, about, value) in [received, sent] {
            line(format_args!("# HELP groat_{name} {about}\n# TYPE groat_{name} counter\ngroat_{name} {value}\n"));
        }
        text
    }

    /// Those that go up and down.
    fn gauges(&self) -> Vec<Gauge> {
        let one = |name, about, value| Gauge { name, about, values: Values::One(value) };
        let peers = [("in", self.peers_in), ("out", self.peers_out)];
        let peers = peers.map(|(direction, count)| (direction.to_owned(), count as f64)).into();
        let by_rate = RANGES.iter().zip(self.demand.by_rate).map(|(from, size)| (from.to_string(), size as f64));
        let mut all = vec![
            one("chain_height_blocks", "Height of the proven tip.", f64::from(self.height)),
            one("header_height_blocks", "Height of the best header.", f64::from(self.headers)),
            one("sync_progress_ratio", "Part of the chain that is connected.", self.progress),
            one("initial_download", "1 until the node has come near the network's tip.", self.initial_download.into()),
            one("tip_age_seconds", "Time since the tip's own.", f64::from(self.tip_age)),
            one("chain_transactions", "Transactions in all blocks up to the tip.", self.chain_transactions as f64),
            Gauge { name: "peers", about: "Links with peers.", values: Values::By("direction", peers) },
            one("mempool_transactions", "Transactions that wait for a block.", self.mempool_transactions as f64),
            one("mempool_virtual_bytes", "Their virtual size.", self.mempool_vsize as f64),
            one("mempool_memory_bytes", "Memory that they take.", self.mempool_memory as f64),
            one("mempool_min_fee_sat_per_kvb", "Least fee that the pool takes.", self.mempool_min_fee as f64),
            Gauge {
                name: "mempool_by_rate_virtual_bytes",
                about: "Size of what pays so much in sat/vB, up to the next range.",
                values: Values::By("from", by_rate.collect()),
            },
            one("next_block_transactions", "What the next block takes of them.", self.demand.next_transactions as f64),
            one("next_block_virtual_bytes", "Their virtual size.", self.demand.next_vsize as f64),
            one("next_block_fees_sat", "What they pay.", self.demand.next_fees as f64),
            one("next_block_lowest_sat_per_kvb", "The lowest fee rate among them.", self.demand.next_lowest as f64),
            one("coin_table_memory_bytes", "Memory of the coins at hand.", self.coin_table as f64),
            one("block_files_bytes", "Size of the block and undo files.", self.block_files as f64),
            one("hash_rate_hashes_per_second", "What the built-in miner does.", self.hash_rate as f64),
            one(
                "wait_peers_ratio",
                "Part of the last minute in which the ledger had nothing to do.",
                self.shares.peers,
            ),
            one("wait_disk_ratio", "Part of it in which the ledger waited for the disk.", self.shares.disk),
            one("busy_cpu_ratio", "Part of it in which blocks were judged.", self.shares.cpu),
            one("ledger_queue_requests", "Requests that wait for the ledger.", self.ledger_queue as f64),
            one("rpc_calls", "Calls of the RPC that run.", self.rpc_calls as f64),
            one("uptime_seconds", "Time since the interfaces began.", self.uptime as f64),
        ];
        let known = [
            ("disk_free_bytes", "Free space where the block files are.", self.disk_free),
            ("resident_memory_bytes", "Memory of the whole process.", self.memory),
            ("memory_limit_bytes", "Memory that the process may take.", self.memory_limit),
            ("sync_left_seconds", "Time that the rest of the first sync takes at this pace.", self.sync_left),
        ];
        all.extend(known.into_iter().filter_map(|(name, about, value)| Some(one(name, about, value? as f64))));
        all
    }

    /// Whether peers can tell the node of anything; or why not.
    fn healthy(&self) -> Result<(), String> {
        if self.peers_in + self.peers_out > 0 { Ok(()) } else { Err("no peers".into()) }
    }

    /// Whether it is where the network is; or why not.
    fn ready(&self, spacing: u32) -> Result<(), String> {
        let lag = self.headers.saturating_sub(self.height);
        if lag > READY_LAG {
            return Err(format!("{lag} blocks behind the best header"));
        }
        if self.tip_age > READY_SPACINGS * spacing {
            return Err(format!("the tip is {} seconds old", self.tip_age));
        }
        self.healthy()
    }
}

/// Linux tells it.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// What answers at the port of the metrics.
pub struct Metrics {
    rpc: Arc<Rpc>,
    /// Names that are not this machine's may lead here.
    is_open: bool,
    /// One question at a time: whoever asks in a hurry holds up nobody else.
    turn: Arc<Semaphore>,
}

impl Metrics {
    /// For who asks at this address.
    pub fn new(rpc: Arc<Rpc>, address: SocketAddr) -> Metrics {
        Metrics { rpc, is_open: !address.ip().is_loopback(), turn: Arc::new(Semaphore::new(1)) }
    }

    /// Answers one request.
    pub async fn answer(self: Arc<Self>, _from: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if is_from_elsewhere(request.headers(), self.is_open) {
            return Reply::plain(StatusCode::FORBIDDEN, "Host or Origin names another machine\n").into();
        }
        let show: fn(&Numbers, u32) -> Result<String, String> = match request.uri().path() {
            "/metrics" => |numbers, _| Ok(numbers.to_text()),
            "/healthy" => |numbers, _| numbers.healthy().map(|()| "ok\n".into()),
            "/ready" => |numbers, spacing| numbers.ready(spacing).map(|()| "ok\n".into()),
            _ => return Reply::bare(StatusCode::NOT_FOUND).into(),
        };
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return Reply::bare(StatusCode::METHOD_NOT_ALLOWED).into();
        }
        let turn = self.turn.clone().acquire_owned().await.expect("the semaphore is never closed");
        let rpc = self.rpc.clone();
        let answer = tokio::task::spawn_blocking(move || {
            // To the end, though who asked be gone.
            let _turn = turn;
            let node = rpc.node().map_err(|warm_up| warm_up.message)?;
            let numbers = Numbers::gather(&rpc, node).map_err(|error| error.to_string())?;
            show(&numbers, node.params().spacing)
        });
        match answer.await {
            Ok(Ok(text)) => Reply { kind: Some("text/plain; version=0.0.4"), ..Reply::plain(StatusCode::OK, text) },
            Ok(Err(reason)) => Reply::plain(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
            Err(_) => Reply::bare(StatusCode::INTERNAL_SERVER_ERROR),
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_off_unless_they_are_asked_for() {
        let at = |option| address(option).map(|address| address.map(|address| address.to_string())).ok();
        let on = |text: &str| Some(Some(text.to_owned()));
        for (option, expected) in [
            (None, Some(None)),
            (Some("0"), Some(None)),
            (Some("1"), on("127.0.0.1:9332")),
            (Some("9000"), on("127.0.0.1:9000")),
            (Some("0.0.0.0"), on("0.0.0.0:9332")),
            (Some("[::1]:9000"), on("[::1]:9000")),
            (Some("::1"), on("[::1]:9332")),
            (Some("nonsense"), None),
            (Some("99999"), None),
        ] {
            assert_eq!(at(option), expected, "{option:?}");
        }
    }

    #[test]
    fn a_node_is_ready_with_peers_at_a_young_tip() {
        let numbers = |peers_in, headers, tip_age| Numbers {
            height: 100,
            headers,
            progress: 1.0,
            initial_download: false,
            tip_age,
            chain_transactions: 101,
            peers_in,
            peers_out: 0,
            received: 1,
            sent: 2,
            mempool_transactions: 0,
            mempool_vsize: 0,
            mempool_memory: 0,
            mempool_min_fee: 100,
            demand: Demand { by_rate: [0, 0, 7, 0, 0, 0, 0, 0], ..Demand::default() },
            coin_table: 0,
            block_files: 0,
            disk_free: None,
            memory: None,
            hash_rate: 0,
            shares: Shares { peers: 1.0, ..Shares::default() },
            sync_left: None,
            memory_limit: None,
            ledger_queue: 0,
            rpc_calls: 0,
            uptime: 3,
        };
        assert_eq!(numbers(1, 102, 10_800).ready(600), Ok(()));
        assert!(numbers(0, 100, 0).ready(600).is_err() && numbers(0, 100, 0).healthy().is_err());
        assert!(numbers(1, 103, 0).ready(600).is_err() && numbers(1, 103, 0).healthy().is_ok());
        assert!(numbers(1, 100, 10_801).ready(600).is_err());
        let text = numbers(1, 100, 0).to_text();
        assert!(text.contains("# TYPE groat_peers gauge\ngroat_peers{direction=\"in\"} 1\n"), "{text}");
        assert!(text.contains("groat_mempool_by_rate_virtual_bytes{from=\"2\"} 7\n"), "{text}");
        assert!(text.contains("groat_sent_bytes_total 2\n") && !text.contains("disk_free"), "{text}");
    }
}
