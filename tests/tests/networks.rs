//! Networks with real bitcoinds in them: pruned peers on either side, links that carry blocks alone, three nodes in a row
//! that are cut apart and meet again. bitcoind never finds fault with us.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use bitcoin::Block;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::p2p::message_blockdata::Inventory;
use groat_net::message::Message;
use groat_tests::bitcoind::{Bitcoind, chain_folder, free_port, peers};
use groat_tests::groatd::{Groatd, block_file, repeat};
use groat_tests::peer::Peer;
use groat_tests::regtest;
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

use crate::peers::{dial, finds_no_fault, link, listening, mine, mine_for, stats, tip, wait_for_tip};

/// A chain whose blocks are all of today, a minute apart: nodes with a part of it count as synced.
fn recent(count: u32) -> Vec<Block> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as u32;
    let mut chain = vec![regtest::genesis()];
    for height in 1..=count {
        let reward = regtest::output(regtest::subsidy(height).to_sat(), regtest::push(&[1]));
        let coinbase = regtest::coinbase(height, 0, vec![reward]);
        let time = now - (count - height) * 60;
        chain.push(regtest::block(chain.last().unwrap().block_hash(), time, vec![coinbase]));
    }
    chain
}

fn submit(bitcoind: &Bitcoind, blocks: &[Block]) {
    for block in blocks {
        assert_eq!(bitcoind.call("submitblock", json!([serialize_hex(block)])), Value::Null);
    }
}

/// A groatd whose folder holds these blocks.
fn with_blocks(folder: &Path, blocks: &[Block]) -> Groatd {
    let groatd = Groatd::new("regtest", folder);
    groatd.import(&[block_file(folder, "given.blk", blocks)]).succeeded();
    groatd
}

/// A pruned peer gives its last 288 blocks, and nobody asks it for more.
#[test]
fn a_pruned_bitcoind_is_asked_only_for_what_it_has() {
    let Some(folder) = peers() else { return };
    let chain = recent(600);
    let port = free_port();
    let options =
        ["-listen=1".into(), format!("-port={port}"), "-debug=net".into(), "-prune=1".into(), "-fastprune".into()];
    let source = Bitcoind::start(&folder, &options);
    submit(&source, &chain[1..]);
    source.call("pruneblockchain", json!([250]));
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let connect = format!("--connect=127.0.0.1:{port}");
    // One has enough to go on; the other would need what is pruned.
    let near = with_blocks(folders[0].path(), &chain[1..=400]);
    let far = with_blocks(folders[1].path(), &chain[1..=100]);
    let mut near = Running::start(&near, &[&connect]);
    near.wait_for_tip(&chain[600].block_hash().to_string());
    let far = Running::start(&far, &[&connect]);
    let begun = Instant::now();
    let headers = |node: &Running| node.rpc.call("getblockchaininfo", json!([])).unwrap()["headers"].clone();
    while headers(&far) != json!(600) {
        assert!(begun.elapsed() < PATIENCE, "groatd has {} headers of 600; {}", headers(&far), repeat());
        std::thread::sleep(Duration::from_millis(50));
    }
    // A new block reaches both links, and after it nothing that was asked before is left unanswered.
    let hash = mine(&source, 1);
    near.wait_for_tip(&hash);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(far.rpc.call("getblockcount", json!([])).unwrap(), json!(100), "the blocks between are nowhere");
    let links = source.call("getconnectioncount", json!([]));
    assert_eq!(links, json!(2), "links of the pruned bitcoind; {}", repeat());
    finds_no_fault(&source);
    near.stop();
    far.stop();
}

#[test]
fn a_pruned_groatd_serves_its_last_blocks_and_no_others() {
    let chain = recent(600);
    let data = tempfile::tempdir().unwrap();
    let groatd = with_blocks(data.path(), &chain[1..]).with("--prune=550");
    let node = Running::start(&groatd, &[]);
    // Core serves two blocks more than it promises.
    for (depth, served) in [(0, true), (288, true), (290, true), (291, false), (500, false)] {
        let mut peer = Peer::ready(node.peers).unwrap();
        let hash = chain[600 - depth].block_hash();
        peer.send(&Message::GetData(vec![Inventory::WitnessBlock(hash)])).unwrap();
        let answer = peer.wait_for(|message| matches!(message, Message::Block(_)));
        assert_eq!(answer.is_ok(), served, "a block {depth} below the tip: {answer:?}; {}", repeat());
    }
    if let Some(folder) = peers() {
        let near = Bitcoind::start(&folder, &["-debug=net".into()]);
        let far = Bitcoind::start(&folder, &["-debug=net".into()]);
        submit(&near, &chain[1..=400]);
        submit(&far, &chain[1..=100]);
        dial(&near, &node, true);
        dial(&far, &node, true);
        wait_for_tip(&near, &chain[600].block_hash().to_string());
        assert_eq!(far.call("getblockcount", json!([])), json!(100), "bitcoind asks a pruned peer for nothing old");
        assert_eq!(link(&near)["servicesnames"], json!(["WITNESS", "NETWORK_LIMITED", "P2P_V2"]), "{}", link(&near));
        finds_no_fault(&near);
        finds_no_fault(&far);
    }
    node.stop();
}

#[test]
fn blocks_pass_over_links_that_carry_nothing_else() {
    let Some(folder) = peers() else { return };
    let port = free_port();
    let options = ["-listen=1".into(), format!("-port={port}"), "-debug=net".into(), "-blocksonly".into()];
    let source = Bitcoind::start(&folder, &options);
    let hash = mine(&source, 110);
    let data = tempfile::tempdir().unwrap();
    let mut node = Running::start(&Groatd::new("regtest", data.path()), &[&format!("--connect=127.0.0.1:{port}")]);
    node.wait_for_tip(&hash);
    // The other dials us for blocks alone, and once only to see whether we are there.
    let sink = Bitcoind::start(&folder, &["-debug=net".into()]);
    for kind in ["block-relay-only", "feeler"] {
        sink.call("addconnection", json!([node.peers.to_string(), kind, true]));
    }
    wait_for_tip(&sink, &hash);
    assert_eq!(link(&sink)["connection_type"], "block-relay-only", "{}; {}", link(&sink), repeat());
    for from in [&source, &sink, &source] {
        let hash = mine(from, 1);
        node.wait_for_tip(&hash);
        wait_for_tip(&source, &hash);
        wait_for_tip(&sink, &hash);
    }
    let seen = node.rpc.call("getpeerinfo", json!([])).unwrap();
    let relays: Vec<&Value> = seen.as_array().unwrap().iter().map(|peer| &peer["relaytxes"]).collect();
    assert_eq!(relays, [&json!(false), &json!(false)], "both links are for blocks alone: {seen}");
    finds_no_fault(&source);
    finds_no_fault(&sink);
    node.stop();
}

/// Panics unless all come to this tip.
fn all_reach(hash: &str, bitcoind: &Bitcoind, nodes: &mut [&mut Running]) {
    wait_for_tip(bitcoind, hash);
    nodes.iter_mut().for_each(|node| node.wait_for_tip(hash));
}

#[test]
fn two_groatd_and_a_bitcoind_form_a_network_and_heal_a_partition() {
    let Some(folder) = peers() else { return };
    let (connect, bitcoind) = listening(&folder, true);
    let hash = mine(&bitcoind, 3_000);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = [0, 1].map(|number| Groatd::new("regtest", folders[number].path()));
    // A chain: bitcoind, the first groatd, the second.
    let mut a = Running::start(&first, &[&connect]);
    let mut b = Running::start(&second, &[]);
    b.rpc.call("addnode", json!([a.peers.to_string(), "add"])).unwrap();
    all_reach(&hash, &bitcoind, &mut [&mut a, &mut b]);
    let mine_at = |node: &Running, count: u32| {
        let mined = node.rpc.call("generatetodescriptor", json!([count, "raw(53)"])).unwrap();
        mined.as_array().unwrap().last().unwrap().as_str().unwrap().to_owned()
    };
    for round in 0..2 {
        let hash = if round == 0 { mine(&bitcoind, 1) } else { mine_at(&b, 1) };
        all_reach(&hash, &bitcoind, &mut [&mut a, &mut b]);
    }
    finds_no_fault(&bitcoind);

    // Cut off, bitcoind mines less than the others; then they meet again.
    bitcoind.call("setnetworkactive", json!([false]));
    mine_for(&bitcoind, 5, 0x52);
    let hash = mine_at(&b, 6);
    a.wait_for_tip(&hash);
    assert_ne!(tip(&bitcoind), hash, "nothing passes while the network is cut; {}", repeat());
    bitcoind.call("setnetworkactive", json!([true]));
    all_reach(&hash, &bitcoind, &mut [&mut a, &mut b]);
    // And the other way: now it mines more.
    bitcoind.call("setnetworkactive", json!([false]));
    mine_at(&b, 2);
    let hash = mine_for(&bitcoind, 4, 0x54);
    bitcoind.call("setnetworkactive", json!([true]));
    all_reach(&hash, &bitcoind, &mut [&mut a, &mut b]);

    let log = std::fs::read_to_string(chain_folder(bitcoind.folder(), "regtest").join("debug.log")).unwrap();
    let fault = log.lines().find(|line| line.contains("Misbehaving"));
    assert_eq!(fault, None, "bitcoind found fault with a peer; {}", repeat());
    assert_eq!(bitcoind.call("listbanned", json!([])), json!([]), "nobody is banned");
    a.stop();
    b.stop();
    assert_eq!(first.stats(), stats(&bitcoind), "coins of groatd (left) and bitcoind (right); {}", repeat());
    assert_eq!(second.stats(), first.stats(), "coins of both groatd; {}", repeat());
}
