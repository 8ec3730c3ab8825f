//! Networks of one's own, as `groat net` makes and runs them: odd parameters over three nodes, nodes that come up and go
//! down with all that belongs to them, a soak with a partition and a restart.
//! Needs both binaries of this checkout: `cargo build --release -p groat-node -p groat-wallet`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Block, CompactTarget, Target, TxMerkleNode};
use groat_tests::groatd::{Groatd, binary, repeat, signal, wide};
use groat_tests::regtest;
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

use crate::wallet_json::shape;

/// An address that nobody of the tests has.
const ELSEWHERE: &str = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";
const COIN: u64 = 100_000_000;

fn now() -> u32 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as u32
}

/// `groat` with a folder of its own.
fn groat(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    assert!(program.is_file(), "there is no {}: cargo build --release -p groat-wallet", program.display());
    let mut command = Command::new(program);
    command.args(arguments).arg("--datadir").arg(folder).arg("--no-input").current_dir(folder);
    command.env_remove("GROAT_CHAIN").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn program() -> PathBuf {
    binary().with_file_name("groat")
}

/// Runs it to its end: status, standard output, standard error.
fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = groat(&program(), folder, arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The answer of a run with `--json`.
fn ask(folder: &Path, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(folder, &[arguments, &["--json"]].concat());
    assert_eq!(code, Some(0), "expected: {arguments:?} succeeds\n{stdout}{stderr}\n{}", repeat());
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("expected: JSON ({error})\n{stdout}\n{}", repeat()))
}

/// Panics unless it fails with one sentence that has all of `parts`.
fn fails(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let (code, stdout, stderr) = run(folder, arguments);
    assert!(code.is_some_and(|code| code > 0), "expected: {arguments:?} fails\n{stdout}{stderr}\n{}", repeat());
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "expected: a line that begins with \"error: \"\n{stderr}\n{}", repeat());
    for part in parts {
        assert!(last.contains(part), "expected of {arguments:?}: {part:?}, got: {stderr}\n{}", repeat());
    }
}

/// Makes the file of a network with these options.
fn new(folder: &Path, name: &str, options: &[&str]) -> String {
    let made = ask(folder, &[&["net", "new", name], options].concat());
    folder.join(made["file"].as_str().unwrap()).display().to_string()
}

fn call(node: &Running, method: &str, params: Value) -> Value {
    node.rpc.call(method, params).unwrap_or_else(|error| panic!("{method}: {error:?}\n{}", repeat()))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "expected within {PATIENCE:?}: {what}\n{}", repeat());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until all have the same tip, and gives its height.
fn agree(nodes: &[&Running]) -> u64 {
    let tip = |node: &&Running| call(node, "getbestblockhash", json!([]));
    wait_until("one tip on all nodes", || nodes.iter().all(|node| tip(node) == tip(&nodes[0])));
    call(nodes[0], "getblockcount", json!([])).as_u64().unwrap()
}

/// A block on the tip of `node` at this time, with what its template says but for that.
fn block(node: &Running, height: u32, time: u32) -> Block {
    let template = call(node, "getblocktemplate", json!([{"rules": ["segwit"]}]));
    assert_eq!(template["height"], json!(height));
    let text = |key: &str| template[key].as_str().unwrap().to_owned();
    let reward = regtest::output(template["coinbasevalue"].as_u64().unwrap(), regtest::push(&[1]));
    let mut coinbase = regtest::coinbase(height, 0, vec![reward]);
    // Without a commitment there is no witness.
    coinbase.input[0].witness.clear();
    let bits = CompactTarget::from_unprefixed_hex(&text("bits")).unwrap();
    let mut header = Header {
        version: Version::from_consensus(template["version"].as_i64().unwrap() as i32),
        prev_blockhash: text("previousblockhash").parse().unwrap(),
        merkle_root: TxMerkleNode::from_raw_hash(coinbase.compute_txid().to_raw_hash()),
        time,
        bits,
        nonce: 0,
    };
    while header.validate_pow(Target::from_compact(bits)).is_err() {
        header.nonce += 1;
    }
    Block { header, txdata: vec![coinbase] }
}

/// The target of a new period, worked out with nothing but whole numbers: the old one times the time of the last period by
/// the time it should have taken, that being bound by a factor of four, and no easier than `limit`.
fn retargeted(bits: u32, took: u32, wanted: u32, limit: u32) -> u32 {
    let took = u128::from(took.clamp(wanted / 4, wanted * 4));
    let (size, mantissa) = (bits >> 24, u128::from(bits & 0xff_ffff));
    // With 64 bits below the point; the point is at 8 * (size - 3).
    let value = (mantissa << 64) * took / u128::from(wanted);
    let top = 8 * (size - 3) + (128 - value.leading_zeros()) - 64;
    let mut size = top.div_ceil(8);
    let shift = |size: u32| (64 + 8 * (size - 3)) - 8 * ((bits >> 24) - 3);
    let mut mantissa = (value >> shift(size)) as u32;
    if mantissa & 0x80_0000 != 0 {
        size += 1;
        mantissa = (value >> shift(size)) as u32;
    }
    let made = size << 24 | mantissa;
    let target = |bits| Target::from_compact(CompactTarget::from_consensus(bits));
    if target(made) > target(limit) { limit } else { made }
}

#[test]
fn a_network_with_odd_parameters_keeps_to_them() {
    const HEIGHT: u32 = 300;
    const LIMIT: u32 = 0x1f0f_ffff;
    let (spacing, interval) = (15, 20);
    let folder = tempfile::tempdir().unwrap();
    let first = now() - HEIGHT * 40;
    let options = ["--spacing", "15", "--retarget", "20", "--halving", "150", "--maturity", "5"];
    let file = new(folder.path(), "odd", &[&options[..], &["--time", &first.to_string()]].concat());
    let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes = Vec::<Running>::new();
    for folder in &folders[..3] {
        let links: Vec<String> = nodes.iter().map(|node| format!("--addnode={}", node.peers)).collect();
        let options: Vec<&str> = links.iter().map(String::as_str).chain(["--connect=0"]).collect();
        nodes.push(Running::start(&Groatd::new(&file, folder.path()), &options));
    }
    // A node of another network is refused: its magic is another one.
    let to = format!("--addnode={}", nodes[0].peers);
    let stranger = Running::start(&Groatd::new("regtest", folders[3].path()), &["--connect=0", &to]);

    // The pace changes from period to period: as wanted, four times and more as fast, slower.
    let paces = [15, 2, 40, 11, 23];
    let (mut time, mut times) = (first, vec![first]);
    for height in 1..=HEIGHT {
        time += paces[(height / interval) as usize % paces.len()];
        times.push(time);
        // Ten blocks each come from one of the nodes.
        let node = &nodes[(height / 10) as usize % 3];
        if height % 10 == 0 {
            agree(&nodes.iter().collect::<Vec<_>>());
        }
        let block = block(node, height, time);
        assert_eq!(call(node, "submitblock", json!([serialize_hex(&block)])), Value::Null, "block {height}");
    }
    assert_eq!(agree(&nodes.iter().collect::<Vec<_>>()), u64::from(HEIGHT));

    let mut bits = LIMIT;
    let mut changes = 0;
    for height in 0..=HEIGHT {
        if height > 0 && height % interval == 0 {
            let took = times[height as usize - 1] - times[(height - interval) as usize];
            let next = retargeted(bits, took, spacing * interval, LIMIT);
            changes += u32::from(next != bits);
            bits = next;
        }
        let hash = call(&nodes[2], "getblockhash", json!([height]));
        let header = call(&nodes[2], "getblockheader", json!([hash]));
        assert_eq!(
            header["bits"],
            json!(format!("{bits:08x}")),
            "bits of block {height} (right: by hand); {}",
            repeat()
        );
    }
    assert!(changes > 8, "expected: the difficulty changed often, got {changes} times");

    let stats: Vec<Value> = nodes.iter().map(|node| call(node, "gettxoutsetinfo", json!(["muhash"]))).collect();
    let supply: u64 = (1..=HEIGHT).map(|height| (50 * COIN) >> (height / 150)).sum();
    let total = (stats[0]["total_amount"].as_f64().unwrap() * COIN as f64).round() as u64;
    assert_eq!(total, supply, "coins in satoshi (right: by the schedule); {}", repeat());
    assert!(stats.iter().all(|one| one["muhash"] == stats[0]["muhash"]), "{stats:?}");
    // It dials again and again, and gets no further than its first message.
    let agents = |node: &Running| -> Vec<Value> {
        let peers = call(node, "getpeerinfo", json!([]));
        let agents = peers.as_array().unwrap().iter().map(|peer| peer["subver"].clone());
        agents.filter(|agent| *agent != json!("")).collect()
    };
    assert_eq!(agents(&nodes[0]).len(), 2, "peers that said who they are: the two of the network; {}", repeat());
    assert_eq!(agents(&stranger), Vec::<Value>::new(), "peers of the stranger; {}", repeat());
    nodes.into_iter().chain([stranger]).for_each(Running::stop);
}

#[test]
fn bad_parameters_get_one_sentence_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (options, parts) in [
        (&["Big"][..], &["name", "Big"][..]),
        (&["regtest"], &["name", "regtest"]),
        (&["one", "--maturity", "0"], &["coin.maturity", "at least one block"]),
        (&["one", "--bits", "ffffffff"], &["genesis.bits"]),
        (&["one", "--magic", "fabfb5da"], &["magic", "regtest"]),
        (&["one", "--magic", "xyz"], &["magic", "8 hexadecimal digits"]),
        (&["one", "--port", "8333"], &["port", "main"]),
        (&["one", "--subsidy", "0.5"], &["0.5"]),
        (&["one", "--checkpoint", "7"], &["--checkpoint", "HEIGHT:HASH"]),
    ] {
        fails(folder.path(), &[&["net", "new"], options].concat(), parts);
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "expected: no file");
    std::fs::write(folder.path().join("broken.toml"), "name = 7").unwrap();
    fails(folder.path(), &["net", "up", "broken.toml"], &["broken.toml", "name"]);
    fails(folder.path(), &["net", "up", "absent.toml"], &["absent.toml", "net new"]);
    fails(folder.path(), &["net", "up", "main"], &["main"]);
    fails(folder.path(), &["net", "status"], &["net up"]);
}

/// `groat net up` as a process.
struct Up(Child);

impl Up {
    fn start(folder: &Path, arguments: &[&str]) -> Up {
        Up(groat(&program(), folder, &[&["net", "up"], arguments].concat()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Interrupts it, and waits until it has ended.
    fn interrupt(self) {
        self.end("INT");
    }

    fn end(mut self, name: &str) {
        signal(&self.0, name);
        wait_until("`groat net up` ends", || self.0.try_wait().unwrap().is_some());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            // It takes its nodes along.
            signal(&self.0, "TERM");
            let _ = self.0.wait();
        }
    }
}

/// States of the nodes, as `net status` tells them.
fn states(folder: &Path) -> Vec<String> {
    let status = ask(folder, &["net", "status"]);
    status["nodes"].as_array().unwrap().iter().map(|node| node["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_network_comes_up_pays_is_joined_and_goes_down_whole() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Its ports are below those that others on this machine are given.
    let made = ask(folder, &["net", "new", "mine", "--maturity", "12", "--spacing", "5"]);
    let (port, file) = (made["port"].as_u64().unwrap() as u16, folder.join("mine.toml").display().to_string());
    let begun = Instant::now();
    let up = Up::start(folder, &[&file, "--nodes", "3"]);
    wait_until("three nodes run", || run(folder, &["net", "status"]).0 == Some(0) && states(folder) == ["runs"; 3]);
    let paid = |first: bool| {
        let (code, stdout, _) = run(folder, &["net", "pay", ELSEWHERE, "1btc", "--json"]);
        assert!(first || code == Some(0));
        (code == Some(0)).then(|| serde_json::from_str::<Value>(&stdout).unwrap()["txid"].as_str().unwrap().to_owned())
    };
    let mut txid = None;
    wait_until("the faucet pays", || {
        txid = paid(true);
        txid.is_some()
    });
    let txid = txid.unwrap();
    let node2 = ask(folder, &["net", "status"])["nodes"][2].clone();
    let (rpc, data) = (format!("127.0.0.1:{}", node2["rpc_port"]), node2["folder"].as_str().unwrap().to_owned());
    let at2 = |arguments: &[&str]| {
        let place = ["--chain", &file, "--rpc", &rpc, "--rpc-cookie", &format!("{data}/mine/.cookie")];
        ask(folder, &[arguments, &place].concat())
    };
    wait_until("the payment is confirmed at node 2", || {
        (0..2).any(|output| at2(&["rpc", "gettxout", &txid, &output.to_string()])["confirmations"].as_u64() > Some(0))
    });
    println!("net up --nodes 3 to the first confirmed payment: {:.1} s", begun.elapsed().as_secs_f64());
    let status = at2(&["status"]);
    assert_eq!((&status["peers"], &status["syncing"]), (&json!(2), &json!(false)), "{status}");
    assert!(status["advice"].is_string() && status["memory_bytes"].as_u64() > Some(1 << 20), "{status}");

    // What programs rely on.
    let keys = |answer: &Value, expected: &str| assert_eq!(shape(answer), expected, "keys of {answer:#}; {}", repeat());
    keys(&made, "{file genesis hash magic name port rpc_port supply_sat}");
    let node = "folder mempool_transactions node peers port rpc_port state tip_hash tip_height";
    keys(&ask(folder, &["net", "status"]), &format!("{{network nodes[{{{node}}}]}}"));
    keys(&at2(&["peers"]), "{peers[{address agent height id inbound transport}]}");

    // A wallet finds the node at the network's own port, and its cookie, by itself; and a further node by its port.
    let found = ask(folder, &["status", "--chain", &file]);
    assert_eq!((&found["chain"], &found["hash_rate"].is_u64()), (&json!("mine"), &true), "{found}");
    assert_eq!(ask(folder, &["status", "--chain", &file, "--rpc", &rpc])["chain"], json!("mine"));

    // Somebody joins with the file alone.
    let join = tempfile::tempdir().unwrap();
    let joined =
        Running::start(&Groatd::new(&file, join.path()), &["--connect=0", &format!("--addnode=127.0.0.1:{port}")]);
    let height = at2(&["rpc", "getblockcount"]).as_u64();
    wait_until("the one that joins has all blocks", || call(&joined, "getblockcount", json!([])).as_u64() >= height);
    let hash = ask(folder, &["net", "new", "other"])["hash"].as_str().unwrap().len();
    assert!(joined.log().contains("the file of this network has the hash ") && hash == 64, "{}", joined.log());
    joined.stop();

    fails(folder, &["net", "up", &file], &["mine", "up already", "net down"]);
    up.interrupt();
    assert_eq!(states(folder), ["stopped"; 3], "expected: nothing is left running; {}", repeat());

    // The same folder again, detached this time, while another one has its port.
    let busy = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    fails(folder, &["net", "up", &file, "--open"], &[&port.to_string(), "taken"]);
    let again = ask(folder, &["net", "up", &file, "--detach"]);
    assert_ne!(again["nodes"][0]["port"], json!(port));
    keys(&again, "{folder hash network nodes[{folder node port rpc_port}]}");
    assert_eq!(states(folder), ["runs"; 2]);
    paid(false);
    drop(busy);
    assert_eq!(ask(folder, &["net", "down", "--net", "mine"]), json!({"network": "mine", "stopped": 2}));
    assert_eq!(states(folder), ["stopped"; 2]);
    // Another file with the same name is another network.
    std::fs::remove_file(&file).unwrap();
    let other = new(folder, "mine", &["--maturity", "3"]);
    fails(folder, &["net", "up", &other], &["another file"]);
}

#[test]
fn an_interrupt_at_any_moment_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    new(folder, "short", &["--maturity", "30"]);
    for wait in [0, 100, 300, 700, 1500, 3000] {
        let up = Up::start(folder, &["short.toml", "--nodes", "2"]);
        std::thread::sleep(Duration::from_millis(wait));
        up.interrupt();
        if folder.join("net/short/nodes.json").is_file() {
            assert_eq!(
                states(folder),
                ["stopped"; 2],
                "expected: nothing runs, interrupted after {wait} ms; {}",
                repeat()
            );
        }
    }
    let started = || {
        let mut up = Up::start(folder, &["short.toml", "--nodes", "2"]);
        let mut said = String::new();
        BufReader::new(up.0.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert!(said.starts_with("The network short is up"), "{said}; {}", repeat());
        up
    };
    let mut up = started();
    assert_eq!(ask(folder, &["net", "down"])["stopped"], json!(2));
    assert!(up.0.wait().unwrap().success(), "expected: `net up` ends well after `net down`; {}", repeat());
    started().end("KILL");
    wait_until("nodes end with the `net up` that was killed", || states(folder) == ["stopped"; 2]);
}

#[test]
fn a_missing_groatd_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("groat");
    std::fs::copy(program(), &alone).unwrap();
    let output = groat(&alone, folder.path(), &["net", "up", "regtest"]).env("PATH", "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("error: there is no groatd beside") && !output.status.success(), "{said}");
}

#[test]
fn a_bump_takes_coins_that_are_mature_on_their_network() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let file = new(folder, "quick", &["--maturity", "5"]);
    std::fs::write(folder.join("password"), "word\n").unwrap();
    let node = Running::start(&Groatd::new(&file, data.path()), &["--connect=0"]);
    let (rpc, cookie) = (node.rpc.address().to_string(), data.path().join("quick/.cookie").display().to_string());
    let secret = folder.join("password").display().to_string();
    let wallet = |arguments: &[&str]| {
        let place = ["--chain", &file, "--rpc", &rpc, "--rpc-cookie", &cookie, "--password-file", &secret, "--yes"];
        ask(folder, &[arguments, &place].concat())
    };
    let address = wallet(&["create", "rich"])["address"].clone();
    call(&node, "generatetoaddress", json!([7, address]));
    // One of the three mature coins pays it; what is left of that is too little for the higher fee.
    let sent = wallet(&["send", ELSEWHERE, "49.9999btc"]);
    let raised = wallet(&["bump", sent["txid"].as_str().unwrap(), "--feerate", "200"]);
    let transaction = call(&node, "getrawtransaction", json!([raised["txid"], 1]));
    assert_eq!(transaction["vin"].as_array().unwrap().len(), 2, "inputs: {transaction}; {}", repeat());
    node.stop();
}

/// Five nodes, a miner, payments, a partition and a restart; `GROAT_SOAK` seconds long. All agree in the end.
#[test]
fn a_network_of_five_agrees_after_a_partition_and_a_restart() {
    let asked = std::env::var("GROAT_SOAK").ok().map(|text| text.parse().unwrap());
    let long = Duration::from_secs(asked.unwrap_or(if wide() { 60 } else { 8 }));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = new(folder, "soak", &["--spacing", "1", "--retarget", "10", "--halving", "100", "--maturity", "5"]);
    std::fs::write(folder.join("password"), "word\n").unwrap();
    let secret = folder.join("password").display().to_string();
    let place = ["--chain", &file, "--password-file", &secret, "--yes"];
    let rich = ask(folder, &[&["create", "rich", "--rpc", "127.0.0.1:1"], &place[..]].concat());
    let address = rich["address"].as_str().unwrap().to_owned();
    let folders: Vec<_> = (0..5).map(|_| tempfile::tempdir().unwrap()).collect();
    let start = |number: usize, others: &[&Running]| {
        let mut options: Vec<String> = others.iter().map(|node| format!("--addnode={}", node.peers)).collect();
        options.extend(["--connect=0".into(), "--persistmempool=1".into()]);
        if number == 0 {
            options.push(format!("--mine-to={address}"));
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Running::start(&Groatd::new(&file, folders[number].path()), &options)
    };
    let mut nodes = vec![start(0, &[])];
    for number in 1..5 {
        let node = start(number, &nodes.iter().collect::<Vec<_>>());
        nodes.push(node);
    }
    let cookie = folders[0].path().join("soak/.cookie").display().to_string();
    let wallet = |arguments: &[&str], rpc: &str| {
        let at = ["--rpc", rpc, "--rpc-cookie", &cookie, "--wallet", "rich"];
        run(folder, &[arguments, &place[..], &at, &["--json"]].concat())
    };
    let begun = Instant::now();
    let (mut paid, mut step) = (0, 0);
    // On a slow machine a payment takes long, and the last step comes late.
    while begun.elapsed() < long || (step < 3 && begun.elapsed() < PATIENCE) {
        let rpc = nodes[0].rpc.address().to_string();
        paid += u64::from(wallet(&["send", ELSEWHERE, "0.01btc"], &rpc).0 == Some(0));
        // A connection that is silent for long is closed.
        nodes.iter().for_each(|node| drop(call(node, "getblockcount", json!([]))));
        let part = begun.elapsed().as_secs_f64() / long.as_secs_f64();
        if step == 0 && part > 0.2 {
            step = 1;
            call(&nodes[4], "setnetworkactive", json!([false]));
            wait_until("node 4 is alone", || call(&nodes[4], "getconnectioncount", json!([])) == json!(0));
            call(&nodes[4], "generatetoaddress", json!([2, ELSEWHERE]));
        } else if step == 1 && part > 0.5 {
            step = 2;
            call(&nodes[4], "setnetworkactive", json!([true]));
        } else if step == 2 && part > 0.6 {
            step = 3;
            nodes.remove(3).stop();
            let node = start(3, &nodes.iter().collect::<Vec<_>>());
            nodes.insert(3, node);
        }
    }
    assert_eq!(step, 3, "expected: a partition, its end and a restart within {long:?}; {}", repeat());
    assert!(paid > 0, "expected: payments; {}", repeat());
    // However long it takes until node 4 dials again by itself.
    let to = nodes[4].peers.to_string();
    let _ = nodes[0].rpc.call("addnode", json!([to, "onetry"]));
    // The miner goes on, so a block is found that all have.
    let all: Vec<&Running> = nodes.iter().collect();
    let (height, stats) = loop {
        agree(&all);
        let stats: Vec<Value> = all.iter().map(|node| call(node, "gettxoutsetinfo", json!(["muhash"]))).collect();
        if stats.iter().all(|one| one["bestblock"] == stats[0]["bestblock"]) {
            break (stats[0]["height"].as_u64().unwrap(), stats);
        }
        assert!(begun.elapsed() < long + PATIENCE, "expected: all nodes at one tip; {}", repeat());
    };
    assert!(
        stats.iter().all(|one| one["muhash"] == stats[0]["muhash"]),
        "expected: one MuHash\n{stats:?}\n{}",
        repeat()
    );
    let supply: u64 = (1..=height).map(|height| (50 * COIN).checked_shr((height / 100) as u32).unwrap_or(0)).sum();
    let total = (stats[0]["total_amount"].as_f64().unwrap() * COIN as f64).round() as u64;
    assert_eq!(
        total,
        supply,
        "coins in satoshi at height {height} (right: by the schedule, nothing burnt); {}",
        repeat()
    );
    let found = call(all[2], "scantxoutset", json!(["start", [format!("addr({ELSEWHERE})")]]));
    let elsewhere = (found["total_amount"].as_f64().unwrap() * COIN as f64).round() as u64;
    assert!(elsewhere >= COIN / 100, "expected: payments are confirmed, got {elsewhere} of {paid}; {}", repeat());
    println!("{height} blocks, {paid} payments in {long:?}");
    nodes.into_iter().for_each(Running::stop);
}
