//! What a node tells others of: topics of ZeroMQ to two independent subscribers, the commands of the operator, and the
//! warnings that bitcoind gives on the same blocks.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bitcoin::block::Version;
use bitcoin::consensus::encode::{deserialize_hex, serialize, serialize_hex};
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction};
use groat_tests::bitcoind::{Bitcoind, Rpc, free_port, peers};
use groat_tests::groatd::{Groatd, repeat};
use groat_tests::regtest;
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};
use zeromq::{Socket, SocketRecv, SubSocket};

/// Satoshis that each payment leaves to the miner.
const FEE: u64 = 10_000;

/// A message: topic, body and number.
#[derive(Clone, PartialEq, Eq)]
struct Message(String, Vec<u8>, u32);

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.1[..self.1.len().min(42)];
        write!(f, "{} {} {} ({} bytes)", self.0, self.2, hex::DisplayHex::as_hex(start), self.1.len())
    }
}

/// Who has subscribed to everything at one address.
struct Subscriber {
    name: &'static str,
    got: mpsc::Receiver<Message>,
    process: Option<Child>,
}

impl Subscriber {
    /// With the crate `zeromq`.
    fn rust(address: &str) -> Subscriber {
        let (tell, got) = mpsc::channel();
        let address = address.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut socket = SubSocket::new();
                socket.connect(&address).await.unwrap();
                socket.subscribe("").await.unwrap();
                while let Ok(message) = socket.recv().await {
                    let parts: Vec<Vec<u8>> = message.into_vec().into_iter().map(|part| part.to_vec()).collect();
                    if tell.send(message_of(&parts)).is_err() {
                        return;
                    }
                }
            });
        });
        Subscriber { name: "the crate zeromq", got, process: None }
    }

    /// With ZeroMQ's own library, by pyzmq. None, and a word on standard error, where Python has none.
    fn python(address: &str) -> Option<Subscriber> {
        const SCRIPT: &str = "
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.setsockopt(zmq.SUBSCRIBE, b'')
socket.setsockopt(zmq.HEARTBEAT_IVL, 100)
socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2000)
socket.connect(sys.argv[1])
while True:
    print(*(part.hex() for part in socket.recv_multipart()), flush=True)
";
        let python = std::env::var("GROAT_PYZMQ").unwrap_or("python3".into());
        let has = Command::new(&python).args(["-c", "import zmq"]).stderr(Stdio::null()).status();
        if !has.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: {python} has no zmq (pip install pyzmq; GROAT_PYZMQ names another python)");
            return None;
        }
        let mut process = Command::new(python)
            .args(["-c", SCRIPT, address])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it started before");
        let (tell, got) = mpsc::channel();
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let parts: Vec<Vec<u8>> = line.split(' ').map(|part| hex::FromHex::from_hex(part).unwrap()).collect();
                if tell.send(message_of(&parts)).is_err() {
                    return;
                }
            }
        });
        Some(Subscriber { name: "pyzmq", got, process: Some(process) })
    }

    fn next(&self, limit: Duration) -> Option<Message> {
        self.got.recv_timeout(limit).ok()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Both fail only when it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn message_of(parts: &[Vec<u8>]) -> Message {
    let [topic, body, number] = parts else { panic!("a message has three parts, not {}", parts.len()) };
    let number = u32::from_le_bytes(number.as_slice().try_into().expect("the number has four bytes"));
    Message(String::from_utf8(topic.clone()).unwrap(), body.clone(), number)
}

/// The script that anybody spends by giving it: OP_1.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

fn call(rpc: &Rpc, method: &str, params: Value) -> Value {
    rpc.call(method, params).unwrap_or_else(|error| panic!("{method}: {error:?}; {}", repeat()))
}

/// Mines blocks that anybody may spend the rewards of, and gives the last.
fn mine(rpc: &Rpc, count: u32) -> Block {
    let descriptor = format!("raw({})", anyone().to_p2wsh().to_hex_string());
    let hashes = call(rpc, "generatetodescriptor", json!([count, descriptor]));
    let hex = call(rpc, "getblock", json!([hashes.as_array().unwrap().last().unwrap(), 0]));
    deserialize_hex(hex.as_str().unwrap()).unwrap()
}

/// Pays the reward of the block at `height` on.
fn payment(rpc: &Rpc, height: u32, fee: u64) -> Transaction {
    let hash = call(rpc, "getblockhash", json!([height]));
    let hex = call(rpc, "getblock", json!([hash, 0]));
    let block: Block = deserialize_hex(hex.as_str().unwrap()).unwrap();
    let mut input = regtest::unsigned(OutPoint::new(block.txdata[0].compute_txid(), 0));
    input.sequence = bitcoin::Sequence::ENABLE_RBF_NO_LOCKTIME;
    input.witness.push(anyone().as_bytes());
    let value = block.txdata[0].output[0].value.to_sat() - fee;
    regtest::transaction(vec![input], vec![regtest::output(value, anyone().to_p2wsh())])
}

/// The messages that Core publishes for what happens, with their numbers.
struct Expected {
    messages: Vec<Message>,
    numbers: std::collections::BTreeMap<&'static str, u32>,
}

impl Expected {
    fn push(&mut self, topic: &'static str, body: Vec<u8>) {
        let number = self.numbers.entry(topic).or_default();
        self.messages.push(Message(topic.into(), body, *number));
        *number += 1;
    }

    fn transaction(&mut self, tx: &Transaction) {
        self.push("hashtx", id(tx));
        self.push("rawtx", serialize(tx));
    }

    fn sequence(&mut self, mut hash: Vec<u8>, label: u8, number: Option<u64>) {
        hash.push(label);
        hash.extend(number.into_iter().flat_map(u64::to_le_bytes));
        self.push("sequence", hash);
    }

    fn entered(&mut self, tx: &Transaction, number: u64) {
        self.transaction(tx);
        self.sequence(id(tx), b'A', Some(number));
    }

    fn block(&mut self, block: &Block, label: u8) {
        block.txdata.iter().for_each(|tx| self.transaction(tx));
        self.sequence(hash(block), label, None);
    }

    fn tip(&mut self, block: &Block) {
        self.push("hashblock", hash(block));
        self.push("rawblock", serialize(block));
    }
}

/// An id as it is shown.
fn id(tx: &Transaction) -> Vec<u8> {
    hex::FromHex::from_hex(&tx.compute_txid().to_string()).unwrap()
}

fn hash(block: &Block) -> Vec<u8> {
    hex::FromHex::from_hex(&block.block_hash().to_string()).unwrap()
}

/// Mines until all subscribers hear of it, and gives the numbers of the messages to come.
fn until_heard(rpc: &Rpc, subscribers: &[Subscriber]) -> std::collections::BTreeMap<&'static str, u32> {
    const TOPICS: [&str; 5] = ["hashblock", "hashtx", "rawblock", "rawtx", "sequence"];
    let begun = Instant::now();
    loop {
        let last = hash(&mine(rpc, 1));
        // Of each block a tip is told last, and of that the block itself.
        let numbers: Vec<_> = subscribers
            .iter()
            .map(|subscriber| {
                let mut numbers = std::collections::BTreeMap::new();
                let mut seen = false;
                while let Some(Message(topic, body, number)) = subscriber.next(Duration::from_millis(500)) {
                    let topic = TOPICS.into_iter().find(|known| *known == topic).expect("a known topic");
                    numbers.insert(topic, number + 1);
                    seen |= topic == "hashblock" && body == last;
                    if seen && topic == "rawblock" {
                        break;
                    }
                }
                numbers
            })
            .collect();
        if numbers.iter().all(|heard| heard.len() == TOPICS.len() && *heard == numbers[0]) {
            return numbers[0].clone();
        }
        assert!(begun.elapsed() < PATIENCE, "not everybody hears of blocks: {numbers:?}; {}", repeat());
    }
}

#[test]
fn subscribers_hear_of_blocks_and_transactions_in_order() {
    let data = tempfile::tempdir().unwrap();
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let topics = ["hashblock", "hashtx", "rawblock", "rawtx", "sequence"];
    let options: Vec<String> = topics.iter().rev().map(|topic| format!("-zmqpub{topic}={address}")).collect();
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["-zmqpubrawtxhwm=7", "-acceptnonstdtxn=1"]);
    let node = Running::start(&Groatd::new("regtest", data.path()), &options);
    let rpc = &node.rpc;
    let shown: Vec<Value> = topics
        .iter()
        .map(|topic| json!({"type": format!("pub{topic}"), "address": address, "hwm": if *topic == "rawtx" { 7 } else { 1000 }}))
        .collect();
    assert_eq!(call(rpc, "getzmqnotifications", json!([])), json!(shown), "{}", repeat());

    mine(rpc, 101);
    let subscribers: Vec<Subscriber> =
        [Some(Subscriber::rust(&address)), Subscriber::python(&address)].into_iter().flatten().collect();
    let mut expected = Expected { messages: Vec::new(), numbers: until_heard(rpc, &subscribers) };
    let number = || call(rpc, "getrawmempool", json!([false, true]))["mempool_sequence"].as_u64().unwrap();

    // A payment, and another that takes its place.
    let (first, second) = (payment(rpc, 1, FEE), payment(rpc, 1, 2 * FEE));
    let from = number();
    call(rpc, "sendrawtransaction", json!([serialize_hex(&first)]));
    expected.entered(&first, from);
    call(rpc, "sendrawtransaction", json!([serialize_hex(&second)]));
    expected.sequence(id(&first), b'R', Some(from + 1));
    expected.entered(&second, from + 2);

    // A block with it: that it leaves for the block is counted and not told.
    let block = mine(rpc, 1);
    assert_eq!(block.txdata[1], second);
    assert_eq!(number(), from + 4, "three changes told of, and one that is not; {}", repeat());
    expected.block(&block, b'C');
    expected.tip(&block);

    // The block goes and its payment comes back.
    call(rpc, "invalidateblock", json!([block.block_hash().to_string()]));
    expected.block(&block, b'D');
    expected.entered(&second, from + 4);

    // A block with the first payment: the second cannot be mined any more.
    let other =
        call(rpc, "generateblock", json!([format!("raw({})", anyone().to_hex_string()), [serialize_hex(&first)]]));
    let hex = call(rpc, "getblock", json!([other["hash"], 0]));
    let other: Block = deserialize_hex(hex.as_str().unwrap()).unwrap();
    expected.sequence(id(&second), b'R', Some(from + 5));
    expected.block(&other, b'C');
    expected.tip(&other);

    for subscriber in &subscribers {
        let got: Vec<Message> =
            std::iter::from_fn(|| subscriber.next(Duration::from_secs(20))).take(expected.messages.len()).collect();
        for (place, (got, wanted)) in got.iter().zip(&expected.messages).enumerate() {
            assert_eq!(got, wanted, "message {place} to {} (left: what came); {}", subscriber.name, repeat());
        }
        assert_eq!(got.len(), expected.messages.len(), "messages to {}; {}", subscriber.name, repeat());
    }
    node.stop();
}

#[test]
fn what_makes_no_sense_to_publish_at_is_refused_at_once() {
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    groatd.run(["-zmqpubrawtx=127.0.0.1"]).failed(&["Invalid port specified in -zmqpubrawtx: '127.0.0.1'"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", taken.local_addr().unwrap());
    let said = groatd.run(["-listen=0", "-rpcport=0", &format!("-zmqpubrawtx={address}")]);
    said.failed(&["cannot publish at", &address, "-zmqpubrawtx"]);
}

/// Waits until a file holds this many lines, and gives them in alphabetical order.
fn lines(path: &Path, count: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count && text.ends_with('\n') {
            lines.sort();
            return lines;
        }
        assert!(begun.elapsed() < PATIENCE, "expected {count} lines in {}: {lines:?}; {}", path.display(), repeat());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn commands_run_at_the_start_for_each_tip_and_before_the_stop() {
    let data = tempfile::tempdir().unwrap();
    let file = |name: &str| data.path().join(name);
    let [start, block, stop, late] = ["start", "block", "stop", "late"].map(file);
    let option = |name: &str, words: &str, path: &PathBuf| format!("-{name}=echo {words} >> {}", path.display());
    let options = [
        option("startupnotify", "started", &start),
        option("blocknotify", "%s", &block),
        option("shutdownnotify", "one", &stop),
        // It is waited for.
        format!("-shutdownnotify=sleep 1; echo two >> {}", late.display()),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let node = Running::start(&Groatd::new("regtest", data.path()), &options);
    assert_eq!(lines(&start, 1), ["started"]);
    let descriptor = format!("raw({})", anyone().to_hex_string());
    let mut hashes: Vec<String> =
        serde_json::from_value(call(&node.rpc, "generatetodescriptor", json!([10, descriptor]))).unwrap();
    hashes.sort();
    assert_eq!(lines(&block, 10), hashes, "each tip is told of once; {}", repeat());
    node.stop();
    assert_eq!((lines(&stop, 1), lines(&late, 1)), (vec!["one".into()], vec!["two".into()]));
}

/// A bitcoind and a groatd, each with a file that its alerts go to.
struct Warned {
    core: Bitcoind,
    groat: Running,
    alerts: [PathBuf; 2],
    _data: tempfile::TempDir,
}

impl Warned {
    fn start(folder: &Path) -> Warned {
        let data = tempfile::tempdir().unwrap();
        let alerts = ["core", "groat"].map(|name| data.path().join(name));
        let option = |path: &PathBuf| format!("-alertnotify=echo %s >> {}", path.display());
        let core = Bitcoind::start(folder, &[option(&alerts[0])]);
        let groatd = Groatd::new("regtest", data.path());
        let groat = Running::start(&groatd, &["-connect=0", &option(&alerts[1])]);
        Warned { core, groat, alerts, _data: data }
    }

    fn submit(&self, block: &Block) {
        let hex = serialize_hex(block);
        let said = [self.core.rpc(), &self.groat.rpc].map(|rpc| call(rpc, "submitblock", json!([hex])));
        assert_eq!(said[0], said[1], "bitcoind (left) and groatd of a block; {}", repeat());
    }

    /// The warnings of both, once they agree; bitcoind's without what it says of itself.
    fn warnings(&self) -> Vec<String> {
        let read = |rpc: &Rpc, method: &str| -> Vec<String> {
            let said = call(rpc, method, json!([]))["warnings"].clone();
            let said: Vec<String> = serde_json::from_value(said).unwrap();
            said.into_iter().filter(|text| !text.starts_with("This is a pre-release test build")).collect()
        };
        let methods = ["getblockchaininfo", "getnetworkinfo", "getmininginfo"];
        let [core, groat] = [self.core.rpc(), &self.groat.rpc].map(|rpc| methods.map(|method| read(rpc, method)));
        assert_eq!(core, groat, "the warnings of bitcoind (left) and groatd; {}", repeat());
        assert_eq!(core[0], core[1]);
        core[0].clone()
    }
}

/// Adds `count` blocks of this version to a chain that begins with genesis, with times of today.
fn extend(chain: &mut Vec<Block>, count: usize, version: i32, salt: u64) -> Vec<Block> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as u32;
    for _ in 0..count {
        let height = chain.len() as u32;
        let reward = regtest::output(regtest::subsidy(height).to_sat(), anyone());
        let tip = chain.last().unwrap().block_hash();
        let time = (now - 10_000).max(chain.last().unwrap().header.time + 1);
        let mut block = regtest::block(tip, time, vec![regtest::coinbase(height, salt, vec![reward])]);
        block.header.version = Version::from_consensus(version);
        regtest::mine(&mut block.header);
        chain.push(block);
    }
    chain[chain.len() - count..].to_vec()
}

#[test]
fn unknown_rules_are_warned_of_as_bitcoind_does() {
    let Some(folder) = peers() else { return };
    let nodes = Warned::start(&folder);
    let (plain, signalling) = (0x2000_0000, 0x2000_0010);
    let mut chain = vec![regtest::genesis()];
    // The first period, one with a signal too few, one with enough, and the one after it but for its last block.
    for (count, version) in [(143, plain), (37, plain), (107, signalling), (36, plain), (108, signalling), (143, plain)]
    {
        extend(&mut chain, count, version, 0).iter().for_each(|block| nodes.submit(block));
        assert_eq!(nodes.warnings(), [""; 0], "at height {}; {}", chain.len() - 1, repeat());
    }
    extend(&mut chain, 1, plain, 0).iter().for_each(|block| nodes.submit(block));
    assert_eq!(nodes.warnings(), ["Unknown new rules activated (versionbit 4)"], "{}", repeat());
    let [core, groat] = [0, 1].map(|node| lines(&nodes.alerts[node], 1));
    assert_eq!(core, groat, "the alerts of bitcoind (left) and groatd; {}", repeat());
    nodes.groat.stop();
}

#[test]
fn an_invalid_chain_with_more_work_is_warned_of_as_bitcoind_does() {
    let Some(folder) = peers() else { return };
    let nodes = Warned::start(&folder);
    let mut chain = vec![regtest::genesis()];
    extend(&mut chain, 10, 0x2000_0000, 0).iter().for_each(|block| nodes.submit(block));
    // Its first block pays too much; six are on top of what the chain has.
    for (above, warned) in [(6, false), (7, true)] {
        let mut branch = chain[..10].to_vec();
        let height = branch.len() as u32;
        let reward = regtest::output(regtest::subsidy(height).to_sat() + 1, anyone());
        let coinbase = regtest::coinbase(height, above, vec![reward]);
        let tip = branch.last().unwrap();
        branch.push(regtest::block(tip.block_hash(), tip.header.time + 1, vec![coinbase]));
        extend(&mut branch, above as usize, 0x2000_0000, above);
        for block in &branch[10..] {
            let header = hex::DisplayHex::to_lower_hex_string(&serialize(&block.header));
            for rpc in [nodes.core.rpc(), &nodes.groat.rpc] {
                call(rpc, "submitheader", json!([header]));
            }
        }
        branch[11..].iter().for_each(|block| nodes.submit(block));
        nodes.submit(&branch[10]);
        let warnings = nodes.warnings();
        assert_eq!(warnings.len(), usize::from(warned), "with {above} blocks above: {warnings:?}; {}", repeat());
    }
    let [mut core, groat] = [0, 1].map(|node| lines(&nodes.alerts[node], 1));
    // It tells of the first one too, for the moment in which its own best block is taken back.
    core.dedup();
    assert_eq!(core, groat, "the alerts of bitcoind (left) and groatd; {}", repeat());
    // With enough blocks of its own the warning goes.
    extend(&mut chain, 2, 0x2000_0000, 0).iter().for_each(|block| nodes.submit(block));
    assert_eq!(nodes.warnings(), [""; 0], "{}", repeat());
    nodes.groat.stop();
}

#[test]
fn a_deep_reorganisation_is_warned_of() {
    let data = tempfile::tempdir().unwrap();
    let node = Running::start(&Groatd::new("regtest", data.path()), &["-connect=0"]);
    let submit = |block: &Block| call(&node.rpc, "submitblock", json!([serialize_hex(block)]));
    let warnings = || call(&node.rpc, "getblockchaininfo", json!([]))["warnings"].clone();
    let mut chain = vec![regtest::genesis()];
    extend(&mut chain, 10, 0x2000_0000, 0).iter().for_each(|block| drop(submit(block)));
    for (fork, blocks, warned) in [(5, 6, false), (5, 7, true)] {
        let mut branch = chain[..=fork].to_vec();
        extend(&mut branch, blocks, 0x2000_0000, blocks as u64).iter().for_each(|block| drop(submit(block)));
        let texts = warnings();
        assert_eq!(texts.as_array().unwrap().len(), usize::from(warned), "from {fork}: {texts}; {}", repeat());
        assert!(!warned || texts[0].as_str().unwrap().starts_with("Warning: 6 blocks were taken back"), "{texts}");
    }
    node.stop();
}
