//! Fetching blocks from many peers, from bad ones too, and telling of new ones.

use super::transactions::{configured_node_with_friends, wanted};
use super::*;
use crate::protocol::Policy;
use bitcoin::p2p::message_blockdata::Inventory;

#[test]
fn many_peers_share_the_download() {
    let params = params();
    let chain = mine(&params, 2000);
    let mut world = world_with(&params, &[&[], &chain, &chain, &chain, &chain], 2000);
    for node in 1..5 {
        world.connect(0, node, LinkKind::OutboundFull, Link { bandwidth: Some(100_000), ..Link::default() });
    }
    assert!(world.run_while(10 * MINUTE, |world| world.nodes[0].chain.height() == 2000));
    let sent: Vec<u64> = (1..5).map(|node| world.nodes[node].sent_bytes).collect();
    assert!(sent.iter().all(|sent| *sent > 50_000), "bytes by peer: {sent:?}");
    assert!(world.nodes.iter().all(|node| node.ended.is_empty()));
}

#[test]
fn at_most_sixteen_blocks_are_asked_of_a_peer_and_none_above_the_window() {
    let params = params();
    let chain = mine(&params, 1500);
    let mut world = world_with(&params, &[&[]], 1500);
    let peers: Vec<PeerId> =
        (0..100).map(|_| befriend(&mut world, LinkKind::OutboundFull, Permissions::default()).0).collect();
    for own in &peers {
        world.say(*own, Message::Headers(chain.iter().map(|block| block.header).collect()));
    }
    world.run_for(SECOND);
    let mut asked: Vec<BlockHash> = Vec::new();
    for own in &peers {
        let heard = answer_pings(&mut world, *own);
        let wants = heard.iter().flat_map(|message| match &**message {
            Message::GetData(items) => items.clone(),
            _ => Vec::new(),
        });
        let wants: Vec<Inventory> = wants.collect();
        assert!(wants.len() <= 16, "{} blocks asked of one peer", wants.len());
        asked.extend(wants.iter().map(|item| match item {
            Inventory::WitnessBlock(hash) => *hash,
            other => panic!("asked for {other:?}"),
        }));
    }
    let expected: Vec<BlockHash> = chain[..1024].iter().map(|block| block.hash).collect();
    assert_eq!(asked, expected);
}

#[test]
fn a_peer_that_holds_the_window_up_is_dropped_and_the_sync_goes_on() {
    let params = params();
    let chain = mine(&params, 3000);
    let mut world = world_with(&params, &[&[], &chain, &chain, &chain], 3000);
    world.nodes[1].ledger_time = Duration::from_secs(1_000_000);
    let staller = world.connect(0, 1, LinkKind::OutboundFull, Link::default()).0;
    world.run_for(SECOND);
    for node in [2, 3] {
        world.connect(0, node, LinkKind::OutboundFull, Link::default());
    }
    let start = world.now;
    assert!(world.run_while(10 * MINUTE, |world| world.nodes[0].chain.height() == 3000), "the sync stands");
    assert_eq!(world.nodes[0].ended, [(staller, Reason::Stalling)]);
    let took = world.now.since(start);
    assert!(took < 40 * SECOND, "the sync took {took:?}");
}

#[test]
fn an_overdue_block_ends_the_link_after_ten_minutes() {
    let params = params();
    let chain = mine(&params, 10);
    let mut world = world_with(&params, &[&[]], 10);
    let (own, theirs) = befriend(&mut world, LinkKind::OutboundFull, Permissions::default());
    world.say(own, Message::Headers(chain.iter().map(|block| block.header).collect()));
    for minute in 0..11 {
        assert_eq!(reason(&world, theirs), None, "minute {minute}");
        world.run_for(MINUTE);
        answer_pings(&mut world, own);
    }
    assert_eq!(reason(&world, theirs), Some(Reason::BlockTimeout));
}

#[test]
fn a_mutated_block_is_punished_and_fetched_from_another() {
    let params = params();
    let chain = mine(&params, 3);
    let mut world = world_with(&params, &[&[], &chain], 3);
    let (own, theirs) = inbound(&mut world);
    world.say(own, Message::Headers(chain.iter().map(|block| block.header).collect()));
    world.run_for(SECOND);
    world.connect(0, 1, LinkKind::OutboundFull, Link::default());
    world.run_for(SECOND);
    let mut bytes = (*chain[0].bytes).clone();
    *bytes.last_mut().expect("a body") ^= 1;
    world.say(own, Message::Block(Arc::new(bytes)));
    world.run_for(SECOND);
    assert!(discouraged(&world, theirs));
    assert_eq!(world.nodes[0].chain.height(), 3, "the true blocks came from the other");
}

#[test]
fn an_invalid_block_is_held_against_who_gave_it() {
    let params = params();
    let chain = mine(&params, 3);
    let mut world = world_with(&params, &[&[]], 3);
    world.nodes[0].chain.invalid.insert(chain[1].hash);
    let (giver, giver_id) = befriend(&mut world, LinkKind::Inbound, Permissions::default());
    let (_, other_id) = inbound(&mut world);
    world.say(giver, Message::Headers(chain.iter().map(|block| block.header).collect()));
    chain.iter().for_each(|block| world.say(giver, Message::Block(block.bytes.clone())));
    world.run_for(SECOND);
    assert!(discouraged(&world, giver_id), "{:?}", reason(&world, giver_id));
    assert_eq!((reason(&world, other_id), world.nodes[0].chain.height()), (None, 1));
}

#[test]
fn a_block_nobody_asked_for_is_taken_if_it_is_better() {
    let params = params();
    let chain = mine(&params, 30);
    let side = Miner::new(params.clone(), 5).mine(params.genesis_hash, 1);
    let mut world = world_with(&params, &[&chain[..20]], 30);
    let (own, theirs) = inbound(&mut world);
    world.say(own, Message::Block(chain[20].bytes.clone()));
    world.say(own, Message::Block(side[0].bytes.clone()));
    world.run_for(SECOND);
    let node = &world.nodes[0];
    assert_eq!((node.chain.height(), reason(&world, theirs)), (21, None));
    assert_eq!(node.chain.tree.get(&side[0].hash), None, "a side block is not stored unasked");
    world.say(own, Message::Block(chain[25].bytes.clone()));
    world.run_for(SECOND);
    assert_eq!(reason(&world, theirs), Some(Reason::Misbehaved("block whose parent is unknown")));
}

#[test]
fn a_better_branch_is_fetched_and_followed() {
    let params = params();
    let (short, long) = (mine(&params, 30), Miner::new(params.clone(), 5).mine(params.genesis_hash, 60));
    let mut world = world_with(&params, &[&short, &long, &short], 60);
    world.connect(0, 1, LinkKind::OutboundFull, Link::default());
    world.connect(0, 2, LinkKind::OutboundFull, Link::default());
    world.run_for(MINUTE);
    assert_eq!(tips(&world), [long[59].hash; 3], "all follow the branch with more work");
}

#[test]
fn a_new_block_goes_down_a_line_of_nodes() {
    let params = params();
    let mut miner = Miner::new(params.clone(), 0);
    let chain = miner.mine(params.genesis_hash, 20);
    let mut world = world_with(&params, &[&chain, &chain, &chain, &chain], 20);
    for node in 0..3 {
        world.connect(node, node + 1, LinkKind::OutboundFull, Link::default());
    }
    world.run_for(MINUTE);
    for block in miner.mine(chain[19].hash, 3) {
        world.give_block(0, &block);
        world.run_for(2 * SECOND);
        assert_eq!(tips(&world), [block.hash; 4]);
    }
}

#[test]
fn blocks_are_announced_by_headers_to_who_wants_and_can_connect_them() {
    let params = params();
    let mut miner = Miner::new(params.clone(), 0);
    let chain = miner.mine(params.genesis_hash, 20);
    let mut world = world_with(&params, &[&chain], 20);
    let (wants, _) = inbound(&mut world);
    let (plain, _) = inbound(&mut world);
    let (far, _) = inbound(&mut world);
    for own in [wants, far] {
        world.say(own, Message::SendHeaders);
    }
    for own in [wants, plain] {
        world.say(own, Message::Headers(vec![chain[19].header]));
    }
    world.run_for(SECOND);
    for own in [wants, plain, far] {
        answer_pings(&mut world, own);
    }
    let block = miner.mine(chain[19].hash, 1).remove(0);
    world.give_block(0, &block);
    world.run_for(SECOND);
    let inv = Message::Inv(vec![Inventory::Block(block.hash)]);
    let mut heard = |own| answer_pings(&mut world, own).iter().map(|message| (**message).clone()).collect::<Vec<_>>();
    assert_eq!(heard(wants), [Message::Headers(vec![block.header])]);
    assert_eq!(heard(plain), std::slice::from_ref(&inv));
    assert_eq!(heard(far), [inv], "a header that it could not connect is not sent");
}

#[test]
fn a_limited_peer_is_asked_for_the_last_blocks_only() {
    let params = params();
    let chain = mine(&params, 600);
    let mut world = world_with(&params, &[&chain[..100]], 600);
    let (own, _) = world.speak_to(0, LinkKind::Manual, Permissions::default());
    let limited = crate::peer::NODE_NETWORK_LIMITED | NODE_WITNESS;
    world.say(own, Message::Version(Box::new(hello(limited))));
    world.say(own, Message::Verack);
    world.say(own, Message::Headers(chain.iter().map(|block| block.header).collect()));
    world.run_for(SECOND);
    assert!(!names(&answer_pings(&mut world, own)).contains(&"getdata"), "not during the first sync");
    let mut world = world_with(&params, &[&chain[..500]], 600);
    let (own, _) = world.speak_to(0, LinkKind::Manual, Permissions::default());
    world.say(own, Message::Version(Box::new(hello(limited))));
    world.say(own, Message::Verack);
    world.say(own, Message::Headers(chain.iter().map(|block| block.header).collect()));
    world.run_for(SECOND);
    assert!(names(&answer_pings(&mut world, own)).contains(&"getdata"));
}

/// A node that is in sync, and friends that we dialled who all have the next block.
fn friends_with_the_next_block(policy: Policy, count: usize) -> (World, Mined, Vec<PeerId>) {
    let kinds = vec![LinkKind::OutboundFull; count];
    let (mut world, friends) = configured_node_with_friends(&kinds, |config| config.relay = policy);
    let block = mine(&params(), 6).remove(5);
    for (own, _) in &friends {
        world.say(*own, Message::Headers(vec![block.header]));
        world.run_for(SECOND / 100);
    }
    (world, block, friends.iter().map(|friend| friend.0).collect())
}

#[test]
fn a_tip_block_that_is_kept_back_comes_from_another_in_seconds_where_core_waits() {
    for policy in [Policy::Core, Policy::Groat] {
        let (mut world, block, friends) = friends_with_the_next_block(policy, 2);
        let item = [Inventory::WitnessBlock(block.hash)];
        let begun = world.now;
        assert_eq!(wanted(&answer_pings(&mut world, friends[0])), item, "{policy:?}");
        let mut asked = false;
        while !asked && world.now.since(begun) < 5 * MINUTE {
            world.run_for(SECOND / 10);
            asked = wanted(&answer_pings(&mut world, friends[1])) == item;
            answer_pings(&mut world, friends[0]);
        }
        let waited = world.now.since(begun);
        assert_eq!(asked, policy == Policy::Groat, "{policy:?}: after {waited:?}");
        if !asked {
            continue;
        }
        assert!(waited <= 5 * SECOND, "the other was asked after {waited:?}");
        world.say(friends[1], Message::Block(block.bytes.clone()));
        world.run_for(SECOND);
        assert_eq!(world.nodes[0].chain.tip(), block.hash);
        // The first request was open all the time: the late answer does no harm.
        world.say(friends[0], Message::Block(block.bytes.clone()));
        world.run_for(20 * MINUTE);
        assert!(world.nodes[0].ended.iter().all(|end| end.1 == Reason::PingTimeout), "{:?}", world.nodes[0].ended);
    }
}

#[test]
fn a_block_is_asked_of_four_peers_at_a_time_at_most() {
    let (mut world, block, friends) = friends_with_the_next_block(Policy::Groat, 10);
    world.run_for(MINUTE);
    let asked = friends.iter().filter(|own| !wanted(&answer_pings(&mut world, **own)).is_empty()).count();
    assert_eq!(asked, 4, "peers asked for {}", block.hash);
}
