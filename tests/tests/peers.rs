//! Nodes over loopback: `groatd` and bitcoind sync from each other, through each other and back, over both transports,
//! and bitcoind never finds fault with us.

use std::path::Path;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use groat_tests::bitcoind::{Bitcoind, chain_folder, free_port, peers};
use groat_tests::groatd::{Groatd, Stats, block_file, repeat};
use groat_tests::regtest;
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

/// A bitcoind that listens; where, and what it is.
pub(crate) fn listening(folder: &Path, v2: bool) -> (String, Bitcoind) {
    let port = free_port();
    let options =
        ["-listen=1".into(), format!("-port={port}"), format!("-v2transport={}", u8::from(v2)), "-debug=net".into()];
    (format!("--connect=127.0.0.1:{port}"), Bitcoind::start(folder, &options))
}

/// Mines blocks that pay to OP_1, or to whatever script is one byte: blocks of two branches must differ.
pub(crate) fn mine_for(bitcoind: &Bitcoind, count: u32, script: u8) -> String {
    bitcoind.call("generatetodescriptor", json!([count, format!("raw({script:02x})")]));
    tip(bitcoind)
}

pub(crate) fn mine(bitcoind: &Bitcoind, count: u32) -> String {
    mine_for(bitcoind, count, 0x51)
}

pub(crate) fn tip(bitcoind: &Bitcoind) -> String {
    bitcoind.call("getbestblockhash", json!([])).as_str().unwrap().into()
}

pub(crate) fn stats(bitcoind: &Bitcoind) -> Stats {
    serde_json::from_value(bitcoind.call("gettxoutsetinfo", json!(["muhash"]))).unwrap()
}

pub(crate) fn dial(bitcoind: &Bitcoind, node: &Running, v2: bool) {
    bitcoind.call("addnode", json!([node.peers.to_string(), "onetry", v2]));
}

pub(crate) fn wait_for_tip(bitcoind: &Bitcoind, hash: &str) {
    let begun = Instant::now();
    while tip(bitcoind) != hash {
        let now = bitcoind.call("getblockcount", json!([]));
        assert!(
            begun.elapsed() < PATIENCE,
            "bitcoind's tip is not {hash} after {PATIENCE:?}, but at {now}; {}",
            repeat()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Its link to us, and nothing but that.
pub(crate) fn link(bitcoind: &Bitcoind) -> Value {
    let peers = bitcoind.call("getpeerinfo", json!([]));
    let link = peers.as_array().unwrap().iter().find(|peer| peer["subver"].as_str().unwrap().starts_with("/Groat:"));
    link.unwrap_or_else(|| panic!("bitcoind has no link with groatd: {peers}; {}", repeat())).clone()
}

/// Panics if bitcoind's log says that it found fault with a peer.
pub(crate) fn finds_no_fault(bitcoind: &Bitcoind) {
    let log = std::fs::read_to_string(chain_folder(bitcoind.folder(), "regtest").join("debug.log")).unwrap();
    let fault = log.lines().find(|line| {
        let closed_by_us = line.contains("socket closed, disconnecting");
        line.contains("Misbehaving") || line.contains("peer=") && line.contains("isconnecting") && !closed_by_us
    });
    assert_eq!(fault, None, "bitcoind found fault with a peer; {}", repeat());
}

#[test]
fn a_chain_passes_from_bitcoind_to_groatd_to_bitcoind_over_either_transport() {
    let Some(folder) = peers() else { return };
    let mut chain = vec![regtest::genesis()];
    regtest::extend(&mut chain, 300, 0);
    for v2 in [false, true] {
        let (connect, source) = listening(&folder, v2);
        for block in &chain[1..] {
            assert_eq!(source.call("submitblock", json!([serialize_hex(block)])), Value::Null);
        }
        let data = tempfile::tempdir().unwrap();
        let groatd = Groatd::new("regtest", data.path());
        let mut node = Running::start(&groatd, &[&connect, &format!("--v2transport={}", u8::from(v2))]);
        node.wait_for_tip(&chain[300].block_hash().to_string());
        let sink = Bitcoind::start(&folder, &[format!("-v2transport={}", u8::from(v2)), "-debug=net".into()]);
        dial(&sink, &node, v2);
        wait_for_tip(&sink, &chain[300].block_hash().to_string());

        // From now on the tip is young: each block is announced.
        for _ in 0..3 {
            let hash = mine(&source, 1);
            node.wait_for_tip(&hash);
            wait_for_tip(&sink, &hash);
        }
        for bitcoind in [&source, &sink] {
            let transport = link(bitcoind)["transport_protocol_type"].clone();
            assert_eq!(transport, if v2 { "v2" } else { "v1" }, "the transport of {}; {}", link(bitcoind), repeat());
            finds_no_fault(bitcoind);
        }
        node.stop();
        assert_eq!(groatd.stats(), stats(&source), "coins of groatd (left) and bitcoind (right); {}", repeat());
    }
}

#[test]
fn a_bitcoind_without_version_2_is_dialled_again_with_version_1() {
    let Some(folder) = peers() else { return };
    let (connect, source) = listening(&folder, false);
    let hash = mine(&source, 5);
    let data = tempfile::tempdir().unwrap();
    let mut node = Running::start(&Groatd::new("regtest", data.path()), &[&connect]);
    node.wait_for_tip(&hash);
    assert_eq!(link(&source)["transport_protocol_type"], "v1", "{}; {}", link(&source), repeat());
    node.stop();
}

#[test]
fn more_headers_than_a_message_holds_are_synced_both_ways() {
    let Some(folder) = peers() else { return };
    let (connect, source) = listening(&folder, true);
    let hash = mine(&source, 2_100);
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    let mut node = Running::start(&groatd, &[&connect]);
    node.wait_for_tip(&hash);
    let sink = Bitcoind::start(&folder, &["-debug=net".into()]);
    dial(&sink, &node, true);
    wait_for_tip(&sink, &hash);
    finds_no_fault(&source);
    finds_no_fault(&sink);
    node.stop();
    assert_eq!(groatd.stats(), stats(&sink), "coins of groatd (left) and bitcoind (right); {}", repeat());
}

#[test]
fn a_reorganisation_of_30_blocks_passes_through_groatd() {
    let Some(folder) = peers() else { return };
    let (connect, source) = listening(&folder, true);
    let hash = mine(&source, 110);
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    let mut node = Running::start(&groatd, &[&connect]);
    node.wait_for_tip(&hash);
    let sink = Bitcoind::start(&folder, &["-debug=net".into()]);
    dial(&sink, &node, true);
    wait_for_tip(&sink, &hash);
    // The source leaves its last 30 blocks; the others follow once the new branch has more work.
    let left = source.call("getblockhash", json!([81]));
    source.call("invalidateblock", json!([left]));
    let hash = mine_for(&source, 31, 0x52);
    node.wait_for_tip(&hash);
    wait_for_tip(&sink, &hash);
    // And back: the other bitcoind makes its old branch the better one.
    let old = source.call("getblockhash", json!([81]));
    sink.call("invalidateblock", json!([old]));
    source.call("reconsiderblock", json!([left]));
    let hash = mine_for(&sink, 3, 0x53);
    node.wait_for_tip(&hash);
    wait_for_tip(&source, &hash);
    finds_no_fault(&source);
    finds_no_fault(&sink);
    node.stop();
    assert_eq!(groatd.stats(), stats(&source), "coins of groatd (left) and bitcoind (right); {}", repeat());
}

#[test]
fn two_groatd_sync_from_each_other() {
    let mut chain = vec![regtest::genesis()];
    regtest::extend(&mut chain, 400, 0);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] = [0, 1].map(|number| Groatd::new("regtest", folders[number].path()));
    a.import(&[block_file(folders[0].path(), "first.blk", &chain[1..=300])]).succeeded();
    // The one that dials has nothing; then it has more than the other.
    for tip in [300, 400] {
        let mut listener = Running::start(&a, &[]);
        let mut dialler = Running::start(&b, &[&format!("--connect={}", listener.peers)]);
        let hash = chain[tip].block_hash().to_string();
        listener.wait_for_tip(&hash);
        dialler.wait_for_tip(&hash);
        listener.stop();
        dialler.stop();
        assert_eq!(a.stats(), b.stats(), "the coins of two groatd at height {tip}; {}", repeat());
        b.import(&[block_file(folders[1].path(), "second.blk", &chain[301..])]).succeeded();
    }
}

#[test]
fn a_lost_peer_is_dialled_again() {
    let mut chain = vec![regtest::genesis()];
    regtest::extend(&mut chain, 20, 0);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] = [0, 1].map(|number| Groatd::new("regtest", folders[number].path()));
    let first = Running::start(&a, &[]);
    let addr = first.peers;
    let mut dialler = Running::start(&b, &[&format!("--addnode={addr}")]);
    dialler.wait_for("peer 0: handshake done");
    first.stop();
    a.import(&[block_file(folders[0].path(), "blocks.blk", &chain[1..])]).succeeded();
    let second = Running::start(&a, &[&format!("--bind={addr}")]);
    dialler.wait_for_tip(&chain[20].block_hash().to_string());
    second.stop();
    dialler.stop();
}

/// Waits until `what` holds.
fn wait(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not so after {PATIENCE:?}; {}", repeat());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_operator_makes_and_ends_links_of_each_kind() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] = [0, 1].map(|number| Groatd::new("regtest", folders[number].path()));
    let listener = Running::start(&a, &["--connect=0", "--whitelist=addr,mempool@127.0.0.1"]);
    let dialler = Running::start(&b, &["--connect=0"]);
    let there = |method: &str, params: Value| listener.rpc.call(method, params).unwrap();
    let here = |method: &str, params: Value| dialler.rpc.call(method, params).unwrap();
    let addr = listener.peers.to_string();
    let ready = |peers: Value, count: usize| {
        peers.as_array().unwrap().iter().filter(|peer| peer["version"] != json!(0)).count() == count
    };

    for (number, kind) in ["outbound-full-relay", "block-relay-only"].into_iter().enumerate() {
        let opened = here("addconnection", json!([addr, kind, number == 0]));
        assert_eq!(opened, json!({"address": addr, "connection_type": kind}));
        wait("a link of each kind", || ready(there("getpeerinfo", json!([])), number + 1));
    }
    let (ours, theirs) = (here("getpeerinfo", json!([])), there("getpeerinfo", json!([])));
    let field = |peers: &Value, name: &str| [&peers[0][name], &peers[1][name]].map(Clone::clone);
    assert_eq!(field(&ours, "id"), [json!(0), json!(1)]);
    assert_eq!(field(&ours, "connection_type"), [json!("outbound-full-relay"), json!("block-relay-only")]);
    assert_eq!(field(&theirs, "transport_protocol_type"), [json!("v2"), json!("v1")]);
    assert_eq!(field(&theirs, "permissions"), [json!(["mempool", "addr"]), json!(["mempool", "addr"])]);
    assert_eq!(field(&theirs, "addr_relay_enabled"), [json!(true), json!(false)]);
    assert_eq!(theirs[0]["session_id"], ours[0]["session_id"]);
    wait("a pong", || here("getpeerinfo", json!([]))[0]["bytesrecv_per_msg"]["pong"].as_u64() >= Some(29));

    // A ban ends the links and lets none in; what was added is dialled again once it is taken back.
    there("setban", json!(["127.0.0.1", "add", 1000]));
    wait("links end with a ban", || there("getconnectioncount", json!([])) == json!(0));
    here("addnode", json!([addr, "add"]));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(there("getconnectioncount", json!([])), json!(0), "a banned peer was let in; {}", repeat());
    there("clearbanned", json!([]));
    let added = |connected: bool| here("getaddednodeinfo", json!([addr]))[0]["connected"] == json!(connected);
    wait("the added node is dialled again", || added(true) && ready(there("getpeerinfo", json!([])), 1));

    assert_eq!(here("setnetworkactive", json!([false])), json!(false));
    wait("all links end", || added(false) && there("getconnectioncount", json!([])) == json!(0));
    assert_eq!(here("setnetworkactive", json!([true])), json!(true));
    wait("links are made again", || added(true));
    dialler.stop();
    listener.stop();
}

#[test]
fn peers_and_bans_outlive_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path());
    let node = Running::start(&groatd, &["--connect=0"]);
    node.rpc.call("setban", json!(["10.0.0.0/8", "add", 1000])).unwrap();
    node.rpc.call("addpeeraddress", json!(["1.2.3.4", 8333, true])).unwrap();
    let before = ["listbanned", "getaddrmaninfo"].map(|method| node.rpc.call(method, json!([])).unwrap());
    node.stop();
    let node = Running::start(&groatd, &["--connect=0"]);
    let after = ["listbanned", "getaddrmaninfo"].map(|method| node.rpc.call(method, json!([])).unwrap());
    assert_eq!(before[0][0]["banned_until"], after[0][0]["banned_until"], "the ban; {}", repeat());
    assert_eq!(before[1], after[1], "the peer book before (left) and after (right); {}", repeat());
    node.stop();
}
