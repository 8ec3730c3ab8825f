//! Serving headers and blocks, in the order of the requests, without one peer waiting for another.

use super::*;
use crate::message::Locate;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;

fn locate(hash: BlockHash) -> Locate {
    Locate { locator: vec![hash], stop: BlockHash::all_zeros() }
}

#[test]
fn headers_are_served_after_the_fork_and_two_thousand_at_most() {
    let params = params();
    let chain = mine(&params, 2500);
    let mut world = world_with(&params, &[&chain], 2500);
    let (own, _) = inbound(&mut world);
    for (from, stop, first, count) in [
        (params.genesis_hash, None, 0, 2000),
        (chain[2399].hash, None, 2400, 100),
        (chain[2399].hash, Some(2409), 2400, 10),
        (BlockHash::from_byte_array([9; 32]), None, 0, 2000),
        (chain[2499].hash, None, 0, 0),
    ] {
        let stop = stop.map_or(BlockHash::all_zeros(), |at: usize| chain[at].hash);
        world.say(own, Message::GetHeaders(Locate { locator: vec![from], stop }));
        world.run_for(SECOND);
        let heard = answer_pings(&mut world, own);
        let [only] = &heard[..] else { panic!("heard {:?}", names(&heard)) };
        let Message::Headers(headers) = &**only else { panic!("heard {:?}", names(&heard)) };
        assert_eq!(headers.len(), count, "after {from}");
        assert!(headers.iter().zip(&chain[first..]).all(|(header, block)| *header == block.header), "after {from}");
    }
    world.say(own, Message::GetHeaders(Locate { locator: Vec::new(), stop: chain[7].hash }));
    world.run_for(SECOND);
    assert_eq!(*answer_pings(&mut world, own)[0], Message::Headers(vec![chain[7].header]));
}

#[test]
fn a_chain_without_the_networks_work_is_not_served() {
    let params = params_with_work(100);
    let chain = mine(&params, 50);
    let mut world = world_with(&params, &[&chain], 50);
    let (own, _) = inbound(&mut world);
    world.say(own, Message::GetHeaders(locate(params.genesis_hash)));
    world.run_for(SECOND);
    assert_eq!(*answer_pings(&mut world, own)[0], Message::Headers(Vec::new()));
    let may = Permissions { download: true, ..Permissions::default() };
    let (own, _) = befriend(&mut world, LinkKind::Inbound, may);
    world.say(own, Message::GetHeaders(locate(params.genesis_hash)));
    world.run_for(SECOND);
    assert!(matches!(&*answer_pings(&mut world, own)[0], Message::Headers(headers) if headers.len() == 50));
}

#[test]
fn a_ping_is_answered_after_all_that_came_before_it() {
    let params = params();
    let chain = mine(&params, 40);
    let mut world = world_with(&params, &[&chain], 40);
    world.nodes[0].ledger_time = 2 * SECOND;
    let (own, _) = inbound(&mut world);
    let (other, _) = inbound(&mut world);
    let unknown = Inventory::WTx(bitcoin::Wtxid::from_byte_array([3; 32]));
    let mut wanted: Vec<Inventory> = chain.iter().map(|block| Inventory::WitnessBlock(block.hash)).collect();
    wanted.push(unknown);
    world.say(own, Message::GetData(wanted));
    world.say(own, Message::Ping(1));
    world.say(own, Message::GetHeaders(locate(chain[38].hash)));
    world.say(own, Message::Ping(2));
    world.run_for(SECOND);
    world.say(other, Message::Ping(3));
    world.run_for(SECOND / 10);
    assert_eq!(*answer_pings(&mut world, other)[0], Message::Pong(3), "another peer does not wait");
    assert!(answer_pings(&mut world, own).is_empty(), "the ledger reads");
    world.run_for(MINUTE);
    let mut expected: Vec<Message> = chain.iter().map(|block| Message::Block(block.bytes.clone())).collect();
    expected.push(Message::NotFound(vec![unknown]));
    expected.push(Message::Pong(1));
    expected.push(Message::Headers(vec![chain[39].header]));
    expected.push(Message::Pong(2));
    let heard: Vec<Message> = answer_pings(&mut world, own).iter().map(|message| (**message).clone()).collect();
    assert!(heard == expected, "heard {:?}", heard.iter().map(Message::kind).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_stops_the_serving_until_it_is_written() {
    let params = params();
    let mut miner = Miner::new(params.clone(), 0);
    miner.body = 400_000;
    let chain = miner.mine(params.genesis_hash, 20);
    let mut world = world_with(&params, &[&chain], 20);
    let (own, theirs) = inbound(&mut world);
    // Five seconds a block.
    world.set_link(theirs, Link { bandwidth: Some(80_000), ..Link::default() });
    world.say(own, Message::GetData(chain.iter().map(|block| Inventory::WitnessBlock(block.hash)).collect()));
    world.say(own, Message::Ping(1));
    world.run_for(SECOND);
    // As much as may be queued, and the block that passes that.
    assert!(world.nodes[0].sent_bytes < 1_500_000, "{} bytes in the queue", world.nodes[0].sent_bytes);
    world.run_for(3 * MINUTE);
    let mut heard = answer_pings(&mut world, own);
    heard.retain(|message| !matches!(**message, Message::FeeFilter(_)));
    assert_eq!(heard.len(), 21, "heard {:?}", names(&heard));
    assert_eq!(*heard[20], Message::Pong(1));
}

#[test]
fn block_hashes_are_served_five_hundred_at_a_time() {
    let params = params();
    let chain = mine(&params, 600);
    let mut world = world_with(&params, &[&chain], 600);
    let (own, _) = inbound(&mut world);
    let items = |range: std::ops::Range<usize>| {
        Message::Inv(chain[range].iter().map(|block| Inventory::Block(block.hash)).collect())
    };
    world.say(own, Message::GetBlocks(locate(params.genesis_hash)));
    world.run_for(SECOND);
    assert_eq!(*answer_pings(&mut world, own)[0], items(0..500));
    // Who fetches the last of them is told of the tip, and so asks for more.
    world.say(own, Message::GetData(vec![Inventory::WitnessBlock(chain[499].hash)]));
    world.run_for(SECOND);
    let heard = answer_pings(&mut world, own);
    assert_eq!(names(&heard), ["block", "inv"]);
    assert_eq!(*heard[1], items(599..600));
    world.say(own, Message::GetBlocks(locate(chain[499].hash)));
    world.run_for(SECOND);
    assert_eq!(*answer_pings(&mut world, own)[0], items(500..600));
}

#[test]
fn a_pruned_node_ends_links_that_ask_for_old_blocks() {
    let params = params();
    let chain = mine(&params, 400);
    let mut config = World::config(&params);
    config.services = crate::peer::NODE_NETWORK_LIMITED | NODE_WITNESS;
    let mut world = World::new(1, when(&params, 400));
    let mut ledger = Chain::new(params.clone());
    ledger.load(&chain);
    world.add(config, ledger);
    // Height 109 is 291 below the tip, height 110 is 290.
    for (at, ended) in [(109, None), (108, Some(Reason::BelowLimit))] {
        let (own, theirs) = inbound(&mut world);
        world.say(own, Message::GetData(vec![Inventory::WitnessBlock(chain[at].hash)]));
        world.run_for(SECOND);
        assert_eq!(reason(&world, theirs), ended, "height {}", at + 1);
        assert_eq!(names(&answer_pings(&mut world, own)).contains(&"block"), ended.is_none());
    }
}
