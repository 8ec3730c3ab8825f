//! Methods about the mempool and for miners, over a node without peers.

use std::net::TcpListener;

use super::*;

/// Gives the node a chain with a coin of 50 BTC that anyone may spend; gives the blocks, and a transaction that spends it.
fn with_payment(node: &Node) -> (Value, Transaction) {
    let descriptor = format!("raw({})", anyone().to_hex_string());
    let blocks = node.call("generatetodescriptor", json!([110, descriptor]));
    let first = node.call("getblock", json!([blocks[0]]));
    let coin = OutPoint::new(first["tx"][0].as_str().expect("an id").parse().expect("an id"), 0);
    (blocks, spend(coin, 5_000_000_000))
}

#[test]
fn who_is_not_the_first_to_send_a_transaction_is_told_that_it_is_sent() {
    let node = start();
    let (_, mut tx) = with_payment(&node);
    for turn in 1..=20 {
        tx.output[0].value = Amount::from_sat(5_000_000_000 - 1000 * turn);
        let (hex, txid) = (serialize_hex(&tx), tx.compute_txid().to_string());
        let answers: Vec<Value> = std::thread::scope(|scope| {
            let send = || node.post(&json!({"method": "sendrawtransaction", "params": [hex]}).to_string()).json();
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(send)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it has an answer")).collect()
        });
        assert!(answers.iter().all(|answer| answer["result"] == json!(txid)), "turn {turn}: {answers:?}");
    }
}

#[test]
fn relay_is_told_of_transactions_that_the_pool_took() {
    let node = start();
    let (_, tx) = with_payment(&node);
    let txid = node.call("sendrawtransaction", json!([serialize_hex(&tx)]));
    let expected = json!({"announced_to": 0, "requested_by": 0});
    assert_eq!(node.call("getrelayinfo", json!([txid])), expected, "there are no peers");
    let text = "Not among the last transactions that the mempool took";
    assert_eq!(node.error("getrelayinfo", json!(["00".repeat(32)])), (-5, text.into()));
}

#[test]
fn a_mempool_file_is_imported_by_a_node_in_sync() {
    let (from, to) = (start(), start());
    let (blocks, tx) = with_payment(&from);
    let txid = from.call("sendrawtransaction", json!([serialize_hex(&tx)]));
    from.call("prioritisetransaction", json!([txid, 0, 500]));
    let file = from.call("savemempool", json!([]))["filename"].clone();

    let text = "Can only import the mempool after the block download and sync is done.";
    assert_eq!(to.error("importmempool", json!([file])), (-10, text.into()));
    for hash in blocks.as_array().expect("a list") {
        let block = from.call("getblock", json!([hash, 0]));
        assert_eq!(to.call("submitblock", json!([block])), Value::Null);
    }
    let text = "Unable to import mempool file, see debug log for details.";
    assert_eq!(to.error("importmempool", json!(["/nowhere/mempool.dat"])), (-1, text.into()));
    assert_eq!(to.call("importmempool", json!([file])), json!({}));
    let entry = to.call("getmempoolentry", json!([txid]));
    assert_eq!(entry["fees"]["modified"], json!(0.00001), "what another operator adds does not count: {entry}");
    assert_eq!(entry["unbroadcast"], json!(false), "{entry}");
    let options = json!({"apply_fee_delta_priority": true, "apply_unbroadcast_set": true});
    assert_eq!(to.call("importmempool", json!([file, options])), json!({}));
    let entry = to.call("getmempoolentry", json!([txid]));
    assert_eq!((&entry["fees"]["modified"], &entry["unbroadcast"]), (&json!(0.000015), &json!(true)), "{entry}");
}

#[test]
fn where_it_is_for_money_nobody_mines_on_a_stale_chain() {
    let ask = json!([{"rules": ["segwit"]}]);
    let test = start_on("testnet4").call("getblocktemplate", ask.clone());
    assert_eq!(test["height"], json!(1), "a test network may be started by its first miner");

    let node = start_on("main");
    assert_eq!(node.error("getblocktemplate", ask.clone()), (-9, "Groat is not connected!".into()));
    let peer = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let addr = peer.local_addr().expect("it is bound").to_string();
    node.call("addnode", json!([addr, "onetry"]));
    let _link = peer.accept().expect("the node dials");
    let begun = Instant::now();
    while node.call("getconnectioncount", json!([])) == json!(0) {
        assert!(begun.elapsed() < Duration::from_secs(10), "a link is not counted");
        std::thread::sleep(Duration::from_millis(5));
    }
    let text = "Groat is in initial sync and waiting for blocks...";
    assert_eq!(node.error("getblocktemplate", ask), (-10, text.into()));
}
