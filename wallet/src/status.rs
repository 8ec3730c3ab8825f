//! `groat status`: what the node is doing, what limits it, and one line of advice. groatd tells more than bitcoind by a
//! method of its own; what a node does not tell is left out.

use std::collections::BTreeMap;
use std::time::Duration;

use groat_chain::params::Params;
use serde_json::{Value, json};

use crate::error::{Error, Result, usage};
use crate::format::{btc, grouped, rate_of};
use crate::rpc::{Node, RPC_METHOD_NOT_FOUND};
use crate::session::{Session, print};

/// How often `--watch` looks again.
const REFRESH: Duration = Duration::from_secs(2);
/// Between two looks at how far the node is, where it does not tell how long the rest takes.
const PACE: Duration = Duration::from_secs(2);
/// Virtual size of a full block.
const BLOCK_VSIZE: u64 = 1_000_000;
/// Lower ends of the ranges of fee rates, in sat/vB, as groatd has them.
const RANGES: [u64; 8] = [0, 1, 2, 5, 10, 20, 50, 100];
/// Free space, in bytes, below which there is a warning.
const LITTLE_SPACE: u64 = 5 << 30;

/// `groat status`.
pub fn status(session: &Session, watch: bool) -> Result<()> {
    let node = session.node()?;
    if !watch {
        let status = Status::ask(session, &node)?;
        session.show(&status.json(), || status.text());
        return Ok(());
    }
    if !session.tty() {
        return Err(usage("--watch is for a terminal: leave it out, or ask again and again"));
    }
    loop {
        let text = Status::ask(session, &node)?.text();
        print(&format!("\x1b[H\x1b[2J{text}"));
        std::thread::sleep(REFRESH);
    }
}

/// What a node tells of itself.
struct Status {
    name: String,
    chain: Value,
    network: Value,
    mining: Value,
    pool: Value,
    peers: Vec<Value>,
    demand: Option<Demand>,
    /// Seconds since its start.
    uptime: u64,
    /// Seconds until it is synced.
    left: Option<u64>,
    /// groatd's own numbers; null from other nodes.
    own: Value,
}

/// What waits at which fee rate, and what of it the next block takes; by the rates of what is mined together.
#[derive(Debug, Default, PartialEq)]
struct Demand {
    /// Virtual size of what pays at least so much, in sat/vB, up to the next.
    by_rate: BTreeMap<u64, u64>,
    /// Number of transactions in the next block, where the node tells it.
    next_transactions: Option<u64>,
    next_vsize: u64,
    /// In satoshi.
    next_fees: u64,
    /// In sat/vB.
    next_lowest: f64,
}

impl Demand {
    fn ask(own: &Value, node: &Node) -> Result<Option<Demand>> {
        if let Some(by_rate) = own["mempool_by_rate_virtual_bytes"].as_object() {
            let range = |(from, size): (&String, &Value)| Some((from.parse().ok()?, size.as_u64()?));
            return Ok(Some(Demand {
                by_rate: by_rate.iter().filter_map(range).collect(),
                next_transactions: own["next_block_transactions"].as_u64(),
                next_vsize: whole(&own["next_block_virtual_bytes"]),
                next_fees: whole(&own["next_block_fees_sat"]),
                next_lowest: whole(&own["next_block_lowest_sat_per_kvb"]) as f64 / 1000.0,
            }));
        }
        match node.call::<Vec<Value>>("getmempoolfeeratediagram", json!([])) {
            Err(Error::Rpc { code: RPC_METHOD_NOT_FOUND, .. }) => Ok(None),
            diagram => Ok(Some(Demand::of(&diagram?))),
        }
    }

    /// From the running sums over what would be mined together, the best first.
    fn of(diagram: &[Value]) -> Demand {
        let mut demand = Demand { by_rate: RANGES.map(|from| (from, 0)).into(), ..Demand::default() };
        for sums in diagram.windows(2) {
            let between = |value: fn(&Value) -> u64| value(&sums[1]).saturating_sub(value(&sums[0]));
            let vsize = between(|sum| whole(&sum["weight"])).div_ceil(4);
            let fee = between(|sum| (sum["fee"].as_f64().unwrap_or(0.0) * 1e8).round() as u64);
            let rate = rate_of(fee, vsize.max(1));
            if let Some((_, size)) = demand.by_rate.range_mut(..=rate as u64).next_back() {
                *size += vsize;
            }
            if demand.next_vsize + vsize <= BLOCK_VSIZE {
                demand.next_vsize += vsize;
                demand.next_fees += fee;
                demand.next_lowest = rate;
            }
        }
        demand
    }
}

impl Status {
    fn ask(session: &Session, node: &Node) -> Result<Status> {
        let empty = json!([]);
        let own = match node.call("getnodestatus", empty.clone()) {
            Err(Error::Rpc { code: RPC_METHOD_NOT_FOUND, .. }) => Value::Null,
            own => own?,
        };
        let chain: Value = node.call("getblockchaininfo", empty.clone())?;
        let left = own["sync_left_seconds"].as_u64();
        let left = if left.is_none() && own.is_null() && is_true(&chain["initialblockdownload"]) {
            seconds_left(&chain, node)?
        } else {
            left
        };
        let pool: Value = node.call("getmempoolinfo", empty.clone())?;
        Ok(Status {
            name: session.network.name().to_owned(),
            network: node.call("getnetworkinfo", empty.clone())?,
            mining: node.call("getmininginfo", empty.clone())?,
            peers: node.call("getpeerinfo", empty.clone())?,
            uptime: node.call("uptime", empty)?,
            demand: Demand::ask(&own, node)?,
            chain,
            pool,
            left,
            own,
        })
    }

    fn syncing(&self) -> bool {
        is_true(&self.chain["initialblockdownload"])
    }

    /// Links that came in, those that the node made, and those whose peer has not said yet who it is.
    fn peers(&self) -> [usize; 3] {
        let count = |inbound, known| {
            let counts = |peer: &&Value| is_true(&peer["inbound"]) == inbound && (whole(&peer["version"]) > 0) == known;
            self.peers.iter().filter(counts).count()
        };
        [count(true, true), count(false, true), count(true, false) + count(false, false)]
    }

    /// Bytes, or nothing where the node does not tell.
    fn own(&self, key: &str) -> Option<u64> {
        self.own[key].as_u64()
    }

    /// What the ledger's time went into, in percent: waiting for peers, the disk, the processor.
    fn shares(&self) -> Option<[f64; 3]> {
        let share = |key: &str| self.own[key].as_f64().map(|part| (part * 100.0).round());
        let shares = [share("wait_peers_ratio")?, share("wait_disk_ratio")?, share("busy_cpu_ratio")?];
        // At first there is nothing to tell.
        (shares != [0.0; 3]).then_some(shares)
    }

    fn warnings(&self) -> Vec<String> {
        let given = &self.chain["warnings"];
        let list = given.as_array().cloned().unwrap_or_else(|| vec![given.clone()]);
        list.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned).collect()
    }

    /// The one thing that helps most.
    fn advice(&self) -> String {
        let budget = self.own("memory_limit_bytes").filter(|limit| *limit > 0);
        let tight = self.own("resident_memory_bytes").zip(budget).is_some_and(|(used, limit)| used > limit / 10 * 9);
        let lonely = self.peers()[..2] == [0, 0];
        let limited = self.shares().filter(|_| self.syncing());
        match limited {
            _ if lonely && Params::by_name(&self.name).is_none() => "there are no peers, so nothing new comes in: name one with --addnode; it must run, and have the same file".into(),
            _ if lonely => "there are no peers, so nothing new comes in: check this machine's network, or name a peer with --addnode".into(),
            _ if !self.warnings().is_empty() => "look at the warnings: they come first".into(),
            _ if self.own("disk_free_bytes").is_some_and(|free| free < LITTLE_SPACE) => "the disk is nearly full: give it room, or keep fewer blocks with --prune".into(),
            _ if tight => "memory is nearly used up: give the node less with --dbcache, or the machine more".into(),
            Some([peers, disk, cpu]) if peers >= disk.max(cpu) => "peers are what it waits for: name a fast one with --addnode, or wait for better ones".into(),
            Some([_, disk, cpu]) if disk > cpu => "the disk is what it waits for: a larger --dbcache or a faster disk helps".into(),
            Some(_) => "the processor is what it needs, and it has all of it (--par): this takes its time".into(),
            None if self.syncing() => "it is catching up: balances are right when it is done".into(),
            None => "all is well".into(),
        }
    }

    fn json(&self) -> Value {
        let demand = self.demand.as_ref();
        let by_fee = demand.map(|demand| {
            let range = |(from, size)| json!({"from_sat_vb": from, "vsize_vb": size});
            demand.by_rate.iter().map(range).collect::<Vec<_>>()
        });
        let next = demand.map(|next| {
            json!({"transactions": next.next_transactions, "vsize_vb": next.next_vsize, "fees_sat": next.next_fees, "lowest_sat_vb": next.next_lowest})
        });
        let [peers_in, peers_out, _] = self.peers();
        let limits = self
            .shares()
            .map(|[peers, disk, cpu]| json!({"peers_percent": peers, "disk_percent": disk, "cpu_percent": cpu}));
        json!({
            "chain": self.name, "node": self.network["subversion"], "uptime_seconds": self.uptime,
            "tip_height": self.chain["blocks"], "tip_hash": self.chain["bestblockhash"], "tip_time": self.chain["time"],
            "headers": self.chain["headers"], "syncing": self.syncing(), "progress": self.chain["verificationprogress"],
            "left_seconds": self.left, "limits": limits,
            "mempool_transactions": self.pool["size"], "mempool_vsize_vb": self.pool["bytes"], "mempool_by_fee": by_fee,
            "next_block": next, "peers": peers_in + peers_out, "peers_in": peers_in,
            "network_hash_rate": self.mining["networkhashps"], "hash_rate": self.own("hash_rate_hashes_per_second"),
            "disk_used_bytes": self.chain["size_on_disk"], "disk_free_bytes": self.own("disk_free_bytes"),
            "memory_bytes": self.own("resident_memory_bytes"), "memory_limit_bytes": self.own("memory_limit_bytes"),
            "warnings": self.warnings(), "advice": self.advice(),
        })
    }

    fn text(&self) -> String {
        let (blocks, headers) = (whole(&self.chain["blocks"]), whole(&self.chain["headers"]));
        let agent = self.network["subversion"].as_str().unwrap_or("A node").trim_matches('/').replace(':', " ");
        let mut lines = vec![format!("{agent} on {}, up {}", self.name, span(self.uptime))];
        let mut line = |what: &str, text: String| lines.push(format!("{what:<10}{text}"));
        let age = crate::sync::now().saturating_sub(whole(&self.chain["time"]));
        line(
            "Tip",
            format!(
                "block {}, {} old, {}",
                grouped(blocks),
                span(age),
                self.chain["bestblockhash"].as_str().unwrap_or("")
            ),
        );
        if self.syncing() {
            // groatd's progress is that of blocks, too, but counts those that are not even known yet.
            let percent = match self.own.is_null() {
                true => self.chain["verificationprogress"].as_f64().unwrap_or(0.0) * 100.0,
                false => blocks as f64 * 100.0 / headers.max(1) as f64,
            };
            let left =
                self.left.map_or_else(|| "time left not known yet".to_owned(), |left| format!("{} left", span(left)));
            line("Sync", format!("{percent:.1} %, block {} of {}, {left}", grouped(blocks), grouped(headers)));
            if let Some([peers, disk, cpu]) = self.shares() {
                line("Limited", format!("{peers} % waiting for peers, {disk} % for the disk, {cpu} % processor"));
            }
        }
        let [inbound, outbound, unknown] = self.peers();
        let unknown = if unknown > 0 { format!(", {unknown} more not heard yet") } else { String::new() };
        line("Peers", format!("{} ({inbound} in, {outbound} out{unknown})", inbound + outbound));
        line(
            "Mempool",
            format!("{} transactions, {} vB", grouped(whole(&self.pool["size"])), grouped(whole(&self.pool["bytes"]))),
        );
        if let Some(demand) = &self.demand {
            let range = |from: u64| match RANGES.iter().find(|to| **to > from) {
                Some(to) => format!("{from}-{to}"),
                None => format!("over {from}"),
            };
            let filled = demand.by_rate.iter().rev().filter(|(_, size)| **size > 0);
            let parts: Vec<_> = filled.map(|(from, size)| format!("{}: {} vB", range(*from), grouped(*size))).collect();
            if !parts.is_empty() {
                line("", format!("by sat/vB  {}", parts.join(", ")));
            }
            let next = grouped(blocks + 1);
            let count = demand.next_transactions.map_or(String::new(), |count| format!("{} of them, ", grouped(count)));
            let (size, fees, rate) = (grouped(demand.next_vsize), btc(demand.next_fees), demand.next_lowest);
            line(
                "Next",
                match demand.next_vsize {
                    0 => format!("block {next} has nothing to take yet"),
                    _ => format!("block {next} takes {count}{size} vB, {fees} in fees, from {rate} sat/vB on"),
                },
            );
        }
        let own_rate = self.own("hash_rate_hashes_per_second").filter(|rate| *rate > 0);
        let here = own_rate.map_or(String::new(), |own| format!(", {} here", hashes(own as f64)));
        line(
            "Mining",
            format!("{} in the network{here}", hashes(self.mining["networkhashps"].as_f64().unwrap_or(0.0))),
        );
        let free = self.own("disk_free_bytes").map_or(String::new(), |free| format!(", {} free", bytes(free)));
        line("Disk", format!("{} used{free}", bytes(whole(&self.chain["size_on_disk"]))));
        if let Some(memory) = self.own("resident_memory_bytes") {
            let limit = self
                .own("memory_limit_bytes")
                .map_or(String::new(), |limit| format!(" of {} that it may have", bytes(limit)));
            line("Memory", format!("{}{limit}", bytes(memory)));
        }
        self.warnings().into_iter().for_each(|warning| line("Warning", warning));
        line("Advice", self.advice());
        lines.join("\n")
    }
}

/// From how far the node gets within a moment.
fn seconds_left(chain: &Value, node: &Node) -> Result<Option<u64>> {
    std::thread::sleep(PACE);
    let later: Value = node.call("getblockchaininfo", json!([]))?;
    let progress = |chain: &Value| chain["verificationprogress"].as_f64().unwrap_or(0.0);
    let made = progress(&later) - progress(chain);
    Ok((made > 0.0).then(|| ((1.0 - progress(&later)).max(0.0) / made * PACE.as_secs_f64()) as u64))
}

fn is_true(value: &Value) -> bool {
    value == &json!(true)
}

fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A time in its two largest units.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A size in the largest unit of 1024 that it fills.
fn bytes(size: u64) -> String {
    match size {
        0..0x10_0000 => format!("{} KiB", size >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", size >> 20),
        _ => format!("{:.1} GiB", size as f64 / f64::from(1 << 30)),
    }
}

/// Hashes a second in the largest unit that they fill.
fn hashes(rate: f64) -> String {
    let units = ["H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s"];
    let unit = (rate.max(1.0).log10() / 3.0) as usize;
    let unit = unit.min(units.len() - 1);
    format!("{:.1} {}", rate / 1000_f64.powi(unit as i32), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(own: Value, chain: Value, peers: usize) -> Status {
        let (name, network, mining) = ("regtest".into(), json!({}), json!({}));
        let peers = vec![json!({"inbound": true, "version": 70016}); peers];
        Status { name, chain, network, mining, pool: json!({}), peers, demand: None, uptime: 0, left: None, own }
    }

    #[test]
    fn advice_names_what_limits() {
        let sync = json!({"initialblockdownload": true, "warnings": []});
        let shares = |peers: f64, disk: f64, cpu: f64| json!({"wait_peers_ratio": peers, "wait_disk_ratio": disk, "busy_cpu_ratio": cpu});
        for (own, chain, peers, part) in [
            (shares(0.8, 0.1, 0.1), sync.clone(), 1, "peers are what"),
            (shares(0.1, 0.8, 0.1), sync.clone(), 1, "the disk is what"),
            (shares(0.1, 0.2, 0.7), sync.clone(), 1, "the processor"),
            (Value::Null, sync.clone(), 1, "catching up"),
            (Value::Null, sync, 0, "no peers"),
            (json!({"disk_free_bytes": 1 << 20}), json!({}), 1, "nearly full"),
            (json!({"resident_memory_bytes": 95, "memory_limit_bytes": 100}), json!({}), 1, "memory"),
            (json!({}), json!({"warnings": ["something"]}), 1, "warnings"),
            (json!({}), json!({"warnings": ""}), 1, "all is well"),
        ] {
            let said = status(own, chain, peers).advice();
            assert!(said.contains(part), "expected: {part:?}, got: {said}");
        }
    }

    #[test]
    fn the_next_block_takes_what_fits_best_first() {
        let sum = |weight: u64, fee: f64| json!({"weight": weight, "fee": fee});
        let diagram = [sum(0, 0.0), sum(2_400_000, 0.054), sum(4_800_000, 0.072), sum(6_400_000, 0.074)];
        let demand = Demand::of(&diagram);
        assert_eq!((demand.next_vsize, demand.next_fees, demand.next_lowest), (1_000_000, 5_600_000, 0.5));
        let filled: Vec<_> = demand.by_rate.into_iter().filter(|(_, size)| *size > 0).collect();
        assert_eq!(filled, [(0, 400_000), (2, 600_000), (5, 600_000)]);
    }

    #[test]
    fn numbers_are_shown_in_units_that_fit() {
        assert_eq!(
            (hashes(0.0), hashes(1500.0), hashes(7e20)),
            ("0.0 H/s".into(), "1.5 kH/s".into(), "700.0 EH/s".into())
        );
        assert_eq!((span(61), span(90_000)), ("1 min 1 s".into(), "1 d 1 h".into()));
        assert_eq!((bytes(2048), bytes(5 << 20), bytes(3 << 29)), ("2 KiB".into(), "5 MiB".into(), "1.5 GiB".into()));
    }
}
