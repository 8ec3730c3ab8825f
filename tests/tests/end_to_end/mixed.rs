//! A network of groatd and bitcoind nodes on loopback: started, linked, cut, paid in, mined in, killed, restarted; and at
//! its end compared: one tip, one mempool, one MuHash, no fault in any log, clean and silent stops.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, Txid, Witness};
use groat_tests::bitcoind::{Bitcoind, Rpc, free_port, peers};
use groat_tests::groatd::{Groatd, Stats, repeat};
use groat_tests::regtest::{self, unsigned};
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

/// Satoshi that a payment leaves to the miner.
const FEE: u64 = 1_000;
/// What each coin of the purse is worth.
const COIN: u64 = 1_000_000;
/// Coins that the purse is filled with.
const COINS: u64 = 1_500;
/// Payments that wait in every mempool when the nodes are compared.
const LEFT: usize = 3;

/// Which program a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Groatd,
    Bitcoind,
}

enum Process {
    Groatd(Running),
    Bitcoind(Bitcoind),
}

struct Member {
    kind: Kind,
    /// Where it listens for peers, from its first start on.
    at: SocketAddr,
    options: Vec<String>,
    /// A groatd's; a bitcoind has its own.
    folder: tempfile::TempDir,
    process: Option<Process>,
}

/// The network. Dropping it kills all nodes.
pub struct Mixed {
    programs: PathBuf,
    members: Vec<Member>,
    /// Coins that anyone may spend, each worth [`COIN`].
    purse: Vec<OutPoint>,
}

/// Anyone's output of a standard form: P2WSH of OP_1.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

/// What a block is mined to: a different output for each node, so that no two nodes make the same block.
fn reward(node: usize) -> String {
    let script = ScriptBuf::from_bytes(vec![0x51 + node as u8]).to_p2wsh();
    format!("raw({})", script.to_hex_string())
}

/// Spends a coin of [`anyone`].
fn spend(coin: OutPoint, outputs: Vec<bitcoin::TxOut>) -> Transaction {
    let mut tx = regtest::transaction(vec![unsigned(coin)], outputs);
    tx.input[0].witness = Witness::from_slice(&[[0x51]]);
    tx
}

/// Waits until `holds` has nothing against it any more.
pub fn wait_until(what: &str, holds: impl Fn() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(state) = holds() {
        assert!(begun.elapsed() < PATIENCE, "expected within {PATIENCE:?}: {what}; it is: {state}\n{}", repeat());
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Mixed {
    /// Starts these nodes, without links. None where there is no bitcoind.
    pub fn start(plan: &[(Kind, &[&str])]) -> Option<Mixed> {
        let mut mixed = Mixed { programs: peers()?, members: Vec::new(), purse: Vec::new() };
        for (kind, options) in plan {
            mixed.members.push(Member {
                kind: *kind,
                at: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
                options: options.iter().map(|option| (*option).to_owned()).collect(),
                folder: tempfile::tempdir().unwrap(),
                process: None,
            });
            mixed.begin(mixed.members.len() - 1);
        }
        Some(mixed)
    }

    /// Starts a node that does not run, where it was before.
    pub fn begin(&mut self, node: usize) {
        let member = &mut self.members[node];
        assert!(member.process.is_none(), "{} runs already", self.name(node));
        let member = &mut self.members[node];
        let mut options = member.options.clone();
        member.process = Some(match member.kind {
            Kind::Groatd => {
                options.extend(["--connect=0".into(), format!("--bind={}", member.at)]);
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                Process::Groatd(Running::start(&Groatd::new("regtest", member.folder.path()), &options))
            }
            Kind::Bitcoind => {
                options.extend(["-listen=1", "-connect=0", "-debug=net"].map(String::from));
                options.push(format!("-port={}", member.at.port()));
                let folder = std::mem::replace(&mut member.folder, tempfile::tempdir().unwrap());
                Process::Bitcoind(Bitcoind::start_in(&self.programs, folder, "regtest", &options))
            }
        });
    }

    /// Kills a groatd: it has no time to write anything.
    pub fn kill(&mut self, node: usize) {
        let process = self.members[node].process.take();
        assert!(matches!(process, Some(Process::Groatd(_))), "{} can be killed and come back", self.name(node));
        drop(process);
        self.is_gone(node);
    }

    /// Waits until those that dialled this node have seen that it is gone: before that they would not dial it again.
    fn is_gone(&self, node: usize) {
        for from in self.running() {
            wait_until(&format!("{} has seen {} go", self.name(from), self.name(node)), || {
                self.peer(from, node).map_or(Ok(()), |peer| Err(peer.to_string()))
            });
        }
    }

    /// Stops a node in order. Panics unless it ends with status 0 and has said nothing on standard error.
    pub fn stop(&mut self, node: usize) {
        self.end(node);
        self.is_gone(node);
    }

    fn end(&mut self, node: usize) {
        match self.members[node].process.take() {
            Some(Process::Groatd(running)) => running.stop(),
            Some(Process::Bitcoind(bitcoind)) => self.members[node].folder = bitcoind.stop(),
            None => panic!("{} does not run", self.name(node)),
        }
    }

    pub fn name(&self, node: usize) -> String {
        format!("node {node} ({:?})", self.members[node].kind).to_lowercase()
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(|node| self.members[*node].process.is_some())
    }

    pub fn folder(&self, node: usize) -> &Path {
        match &self.members[node].process {
            Some(Process::Bitcoind(bitcoind)) => bitcoind.folder(),
            _ => self.members[node].folder.path(),
        }
    }

    pub fn rpc(&self, node: usize) -> &Rpc {
        match &self.members[node].process {
            Some(Process::Groatd(running)) => &running.rpc,
            Some(Process::Bitcoind(bitcoind)) => bitcoind.rpc(),
            None => panic!("{} does not run", self.name(node)),
        }
    }

    /// Another connection to its RPC, for another thread.
    pub fn rpc_again(&self, node: usize) -> Rpc {
        Rpc::with_authorization_of(self.rpc(node))
    }

    pub fn call(&self, node: usize, method: &str, params: Value) -> Value {
        let answer = self.rpc(node).call(method, params);
        answer.unwrap_or_else(|error| panic!("{method} of {}: {error:?}; {}", self.name(node), repeat()))
    }

    /// What `bitcoin-cli` prints when it asks this node.
    pub fn cli(&self, node: usize, arguments: &[&str]) -> String {
        let output = Command::new(self.programs.join("bitcoin-cli"))
            .args(["-regtest", &format!("-datadir={}", self.folder(node).display())])
            .arg(format!("-rpcport={}", self.rpc(node).address().port()))
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "bitcoin-cli {arguments:?} of {}: {}, {said}; {}",
            self.name(node),
            output.status,
            repeat()
        );
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Its entry in `from`'s list of peers, if `from` has dialled `to`.
    fn peer(&self, from: usize, to: usize) -> Option<Value> {
        let peers = self.call(from, "getpeerinfo", json!([]));
        let at = json!(self.members[to].at.to_string());
        peers.as_array().unwrap().iter().find(|peer| peer["addr"] == at).cloned()
    }

    /// Lets one node dial another, and waits until both are done with the handshake: a pong comes after it.
    pub fn link(&self, from: usize, to: usize) {
        self.call(from, "addnode", json!([self.members[to].at.to_string(), "onetry"]));
        wait_until(&format!("a link from {} to {}", self.name(from), self.name(to)), || {
            let peer = self.peer(from, to).ok_or("no link")?;
            if peer["bytesrecv_per_msg"]["pong"].is_u64() { Ok(()) } else { Err(peer.to_string()) }
        });
    }

    /// Ends a link at the side that dialled.
    pub fn cut(&self, from: usize, to: usize) {
        let links = |node| self.call(node, "getconnectioncount", json!([])).as_u64().unwrap();
        let before = links(to);
        self.call(from, "disconnectnode", json!([self.members[to].at.to_string()]));
        wait_until(&format!("no link from {} to {}", self.name(from), self.name(to)), || {
            if self.peer(from, to).is_none() && links(to) < before { Ok(()) } else { Err("there is one".into()) }
        });
    }

    /// Of all ends of links those over this version of the transport.
    pub fn ends_over(&self, transport: &str) -> usize {
        let peers = self.running().map(|node| self.call(node, "getpeerinfo", json!([])));
        let count = |peers: Value| {
            let peers = peers.as_array().unwrap().iter();
            peers.filter(|peer| peer["transport_protocol_type"] == json!(transport)).count()
        };
        peers.map(count).sum()
    }

    pub fn tip(&self, node: usize) -> String {
        self.call(node, "getbestblockhash", json!([])).as_str().unwrap().to_owned()
    }

    pub fn height(&self, node: usize) -> u64 {
        self.call(node, "getblockcount", json!([])).as_u64().unwrap()
    }

    pub fn pool(&self, node: usize) -> BTreeSet<Txid> {
        serde_json::from_value(self.call(node, "getrawmempool", json!([]))).unwrap()
    }

    /// Mines blocks with what waits there; the hash of the last one.
    pub fn mine(&self, node: usize, count: u32) -> String {
        let mined = self.call(node, "generatetodescriptor", json!([count, reward(node)]));
        mined.as_array().unwrap().last().unwrap().as_str().unwrap().to_owned()
    }

    /// The same by `bitcoin-cli`.
    pub fn mine_by_cli(&self, node: usize) -> String {
        let mined: Vec<String> =
            serde_json::from_str(&self.cli(node, &["generatetodescriptor", "1", &reward(node)])).unwrap();
        mined[0].clone()
    }

    /// Waits until these nodes stand on this block.
    pub fn reach(&self, hash: &str, nodes: impl IntoIterator<Item = usize>) {
        for node in nodes {
            wait_until(&format!("{} at block {hash}", self.name(node)), || match self.tip(node) {
                tip if tip == hash => Ok(()),
                tip => Err(format!("at {tip}, height {}", self.height(node))),
            });
        }
    }

    /// Waits until all that run stand on this block.
    pub fn all_reach(&self, hash: &str) {
        self.reach(hash, self.running());
    }

    /// Waits until all stand equally high, and mines one block: then one branch has the most work. All come to it.
    pub fn agree(&self) {
        wait_until("one height", || {
            let heights: Vec<u64> = self.running().map(|node| self.height(node)).collect();
            if heights.iter().all(|height| *height == heights[0]) { Ok(()) } else { Err(format!("{heights:?}")) }
        });
        let hash = self.mine(0, 1);
        self.all_reach(&hash);
    }

    /// Mines at `node` until its first coinbase can be spent, and makes of it the purse's coins.
    pub fn fill_purse(&mut self, node: usize) {
        let first = self.call(node, "generatetodescriptor", json!([1, format!("raw({})", anyone().to_hex_string())]));
        let block: Block =
            deserialize_hex(self.call(node, "getblock", json!([first[0], 0])).as_str().unwrap()).unwrap();
        self.mine(node, 100);
        let outputs = (0..COINS).map(|_| regtest::output(COIN, anyone()));
        let coinbase = &block.txdata[0];
        // All that is left pays the miner: more than a node takes without being told so.
        let rest = coinbase.output[0].value.to_sat() - COINS * COIN - 1_000_000;
        let outputs = outputs.chain([regtest::output(rest, anyone())]).collect();
        let tx = spend(OutPoint::new(coinbase.compute_txid(), 0), outputs);
        self.call(node, "sendrawtransaction", json!([serialize_hex(&tx)]));
        self.mine(node, 1);
        let txid = tx.compute_txid();
        self.purse = (0..COINS as u32).map(|vout| OutPoint::new(txid, vout)).collect();
    }

    /// Takes a coin out of the purse.
    pub fn coin(&mut self) -> OutPoint {
        self.purse.pop().expect("the purse holds coins for all that a test pays")
    }

    /// A payment of a coin of the purse to some script.
    pub fn payment(coin: OutPoint, script: ScriptBuf) -> Transaction {
        spend(coin, vec![regtest::output(COIN - FEE, script)])
    }

    pub fn send(&self, node: usize, tx: &Transaction) {
        self.call(node, "sendrawtransaction", json!([serialize_hex(tx)]));
    }

    /// Pays with a coin of the purse at this node.
    pub fn pay(&mut self, node: usize) -> Txid {
        let tx = Mixed::payment(self.coin(), anyone());
        self.send(node, &tx);
        tx.compute_txid()
    }

    /// The same by `bitcoin-cli`.
    pub fn pay_by_cli(&mut self, node: usize) -> Txid {
        let tx = Mixed::payment(self.coin(), anyone());
        self.cli(node, &["sendrawtransaction", &serialize_hex(&tx)]).parse().unwrap()
    }

    /// Mines until nothing waits anywhere. What only one node knows (nobody is told again what came before a link), that
    /// node mines.
    pub fn settle(&self) {
        for _ in 0..3 * self.members.len() {
            let Some(node) = self.running().find(|node| !self.pool(*node).is_empty()) else { return };
            let hash = self.mine(node, 1);
            self.all_reach(&hash);
        }
        panic!("expected: nothing waits to be mined after a block of every node; {}", repeat());
    }

    /// Waits until every mempool holds exactly this.
    pub fn all_hold(&self, expected: &BTreeSet<Txid>) {
        for node in self.running() {
            wait_until(&format!("in the mempool of {}: {expected:?}", self.name(node)), || match self.pool(node) {
                pool if pool == *expected => Ok(()),
                pool => Err(format!("{pool:?}")),
            });
        }
    }

    /// What every test ends with: all nodes run, all agree, and none has anything to complain of.
    pub fn ends_well(mut self) {
        assert_eq!(self.running().count(), self.members.len(), "all nodes run; {}", repeat());
        self.settle();
        let left: BTreeSet<Txid> = (0..LEFT).map(|number| self.pay(2 * number % self.members.len())).collect();
        self.all_hold(&left);
        let tip = self.tip(0);
        self.all_reach(&tip);
        let stats =
            |node| -> Stats { serde_json::from_value(self.call(node, "gettxoutsetinfo", json!(["muhash"]))).unwrap() };
        let first = stats(0);
        for node in self.running() {
            let name = self.name(node);
            assert_eq!(stats(node), first, "coins of {name} (left) and of {} (right); {}", self.name(0), repeat());
            assert_eq!(self.call(node, "listbanned", json!([])), json!([]), "{name} bans nobody; {}", repeat());
        }
        for node in 0..self.members.len() {
            let name = self.name(node);
            self.end(node);
            let log = self.members[node].folder.path().join("regtest/debug.log");
            let log = std::fs::read_to_string(log).unwrap();
            let faults = ["[error]", "[warn]", "[warning]", "ERROR", "isbehav", "panicked"];
            let is_fault = |line: &str| faults.iter().any(|fault| line.contains(fault));
            // That many blocks were taken back is no fault of the node; its operator has to hear of it.
            let fault = log.lines().find(|line| is_fault(line) && !line.contains("blocks were taken back"));
            assert_eq!(fault, None, "a fault in the log of {name}; {}", repeat());
        }
    }
}
