//! The log of a running node: what was refused and why, before anybody is answered; files that are moved away; topics by
//! RPC; and what systemd hears.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Block, OutPoint};
use groat_net::message::Message;
use groat_tests::bitcoind::{Bitcoind, peers};
use groat_tests::groatd::{Groatd, repeat};
use groat_tests::peer::Peer;
use groat_tests::regtest;
use groat_tests::running::{PATIENCE, Running};
use serde_json::json;

#[test]
fn the_log_says_why_something_was_refused_before_the_answer() {
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    let node = Running::start(&groatd, &["--debug"]);
    let path = groatd.chain_folder().join("debug.log");
    let holds = |what: &str| {
        let log = std::fs::read_to_string(&path).unwrap();
        assert!(log.contains(what), "expected in {}: {what:?}, it is:\n{log}\n{}", path.display(), repeat());
    };

    // Out of the first sync: before that no transaction is looked at.
    node.rpc.call("generatetodescriptor", json!([1, "raw(51)"])).unwrap();
    let mut peer = Peer::ready(node.peers).unwrap();
    let refused = regtest::transaction(vec![regtest::unsigned(OutPoint::default())], Vec::new());
    peer.send(&Message::Tx(std::sync::Arc::new(refused.clone()))).unwrap();
    peer.send(&Message::Ping(7)).unwrap();
    peer.wait_for(|message| *message == Message::Pong(7)).unwrap();
    holds(&format!("transaction {} refused: bad-txns-vout-empty", refused.compute_txid()));

    let made = node.rpc.call("generateblock", json!(["raw(51)", [], false])).unwrap();
    let mut block: Block = deserialize_hex(made["hex"].as_str().unwrap()).unwrap();
    block.txdata[0].output[0].script_pubkey = Default::default();
    let answer = node.rpc.call("submitblock", json!([serialize_hex(&block)])).unwrap();
    assert_eq!(answer, json!("bad-txnmrklroot"), "{}", repeat());
    holds(&format!("block {} refused: bad-txnmrklroot", block.block_hash()));
    node.stop();
    holds("stopped at tip");
}

#[test]
fn a_log_that_was_moved_away_is_begun_anew_at_a_hang_up() {
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    let node = Running::start(&groatd, &[]);
    let (path, moved) = (groatd.chain_folder().join("debug.log"), data.path().join("moved"));
    std::fs::rename(&path, &moved).unwrap();
    node.signal("HUP");
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < PATIENCE, "no {} in {PATIENCE:?}\n{}", path.display(), repeat());
        node.rpc.call("generatetodescriptor", json!([1, "raw(51)"])).unwrap();
    }
    node.stop();
    let read = |path| std::fs::read_to_string(path).unwrap();
    assert!(read(&moved).contains("listening for JSON-RPC"), "{}", repeat());
    assert!(read(&path).contains("stopped at tip"), "{}", repeat());
}

#[test]
fn topics_are_chosen_by_rpc_as_with_bitcoind() {
    let Some(folder) = peers() else { return };
    let bitcoind = Bitcoind::start(&folder, &[]);
    let data = tempfile::tempdir().unwrap();
    let node = Running::start(&Groatd::new("regtest", data.path()), &["--nodebug"]);
    for call in [
        json!([]),
        json!([["net"]]),
        json!([["all"], ["net", "zmq"]]),
        json!([[], ["1"]]),
        json!([["nonsense"]]),
        json!([[5]]),
        json!({"exclude": ["all"], "include": ["mempool"]}),
    ] {
        let expected = bitcoind.rpc().call("logging", call.clone()).map_err(|error| (error.code, error.message));
        let got = node.rpc.call("logging", call.clone()).map_err(|error| (error.code, error.message));
        assert_eq!(got, expected, "logging {call}: groatd (left), bitcoind (right); {}", repeat());
    }
    node.stop();
}

#[test]
fn systemd_hears_of_the_start_and_of_the_end() {
    let data = tempfile::tempdir().unwrap();
    let socket = data.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // Threads tell of what they do, in whatever order.
    let mut heard = String::new();
    let mut hear = |wanted: &str| {
        let mut bytes = [0; 1024];
        while !heard.contains(wanted) {
            let count = systemd
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("expected: {wanted:?}, heard: {heard:?}, then {error}; {}", repeat()));
            heard += &String::from_utf8_lossy(&bytes[..count]);
            heard.push('\n');
        }
    };
    let node = Running::start_with(&Groatd::new("regtest", data.path()), &[], &[("NOTIFY_SOCKET", &socket)]);
    hear("STATUS=tip ");
    hear("READY=1");
    node.stop();
    hear("STOPPING=1");
    hear("EXTEND_TIMEOUT_USEC=");
}
