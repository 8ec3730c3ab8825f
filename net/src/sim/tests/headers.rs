//! Sync of headers, and what false headers lead to.

use super::*;
use crate::message::MAX_HEADERS_RESULTS;
use bitcoin::block::Header;

fn headers(blocks: &[Mined]) -> Message {
    Message::Headers(blocks.iter().map(|block| block.header).collect())
}

fn header_count(world: &World) -> usize {
    world.nodes[0].chain.tree.len()
}

#[test]
fn thousands_of_headers_and_blocks_come_from_one_peer() {
    let params = params();
    let chain = mine(&params, 5000);
    for wire in [None, Some(1), Some(2)] {
        let mut world = world_with(&params, &[&[], &chain], 5000);
        world.connect(0, 1, LinkKind::OutboundFull, Link { wire, ..Link::default() });
        let done = world.run_while(10 * MINUTE, |world| world.nodes[0].chain.height() == 5000);
        assert!(done, "height {} with wire {wire:?}", world.nodes[0].chain.height());
        assert!(world.nodes.iter().all(|node| node.ended.is_empty()), "nobody did wrong");
        assert!(!world.nodes[0].protocol.initial_download());
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let params = params();
    let chain = mine(&params, 300);
    let run = |seed| {
        let mut world = world_with(&params, &[&[], &chain, &chain], 300);
        world.nodes[0].ledger_time = Duration::from_millis(seed);
        world.connect(0, 1, LinkKind::OutboundFull, Link { wire: Some(2), ..Link::default() });
        world.connect(0, 2, LinkKind::OutboundFull, Link::default());
        world.run_for(MINUTE);
        (world.trace(), world.nodes[0].chain.height())
    };
    assert_eq!(run(3), run(3));
    assert_eq!(run(3).1, 300);
    assert_ne!(run(3).0, run(4).0, "the trace sees differences");
}

#[test]
fn during_the_first_sync_one_peer_is_asked_and_then_all() {
    let params = params();
    let chain = mine(&params, 1000);
    let mut world = world_with(&params, &[&[]], 1000);
    let first = befriend(&mut world, LinkKind::OutboundFull, Permissions::default()).0;
    let (second, _) = world.speak_to(0, LinkKind::OutboundFull, Permissions::default());
    world.say(second, Message::Version(Box::new(hello(FULL))));
    world.say(second, Message::Verack);
    world.run_for(SECOND);
    assert!(!names(&answer_pings(&mut world, second)).contains(&"getheaders"));
    world.say(first, headers(&chain));
    world.run_for(SECOND);
    assert!(names(&answer_pings(&mut world, second)).contains(&"getheaders"), "the best header is fresh now");
}

#[test]
fn a_silent_sync_peer_is_replaced_if_there_is_another() {
    let params = params();
    let mut world = world_with(&params, &[&[]], 1000);
    let (first, first_id) = befriend(&mut world, LinkKind::OutboundFull, Permissions::default());
    let (second, second_id) = world.speak_to(0, LinkKind::OutboundFull, Permissions::default());
    world.say(second, Message::Version(Box::new(hello(FULL))));
    world.say(second, Message::Verack);
    let mut asked = false;
    for minute in 0..17 {
        world.run_for(MINUTE);
        answer_pings(&mut world, first);
        asked |= names(&answer_pings(&mut world, second)).contains(&"getheaders");
        assert_eq!(asked, reason(&world, first_id).is_some(), "minute {minute}");
        assert!(minute >= 14 || !asked, "too early: minute {minute}");
    }
    assert_eq!(reason(&world, first_id), Some(Reason::HeadersTimeout));
    assert_eq!(reason(&world, second_id), None);
}

#[test]
fn headers_that_do_not_connect_lead_to_one_question_and_no_penalty() {
    let params = params();
    let chain = mine(&params, 20);
    let mut world = world_with(&params, &[&chain[..2]], 20);
    let (own, theirs) = inbound(&mut world);
    world.say(own, Message::Headers(Vec::new()));
    for at in [10, 11, 12] {
        world.say(own, headers(&chain[at..at + 1]));
    }
    world.run_for(SECOND);
    let asked = names(&answer_pings(&mut world, own)).iter().filter(|name| **name == "getheaders").count();
    assert_eq!((asked, reason(&world, theirs)), (1, None));
    world.say(own, headers(&chain[2..15]));
    world.run_for(SECOND);
    assert_eq!(header_count(&world), 16);
}

#[test]
fn false_headers_are_punished() {
    let params = params();
    let chain = mine(&params, 10);
    let mut gap = chain.clone();
    gap.remove(4);
    let mut weak: Vec<Header> = chain.iter().map(|block| block.header).collect();
    weak[9].nonce = (0..)
        .find(|nonce| {
            let header = Header { nonce: *nonce, ..weak[9] };
            groat_chain::rules::header::check_header(&header, &params).is_err()
        })
        .expect("half of all nonces are bad");
    let mut early = Miner::new(params.clone(), 7).mine(params.genesis_hash, 1).remove(0).header;
    early.time = params.genesis.header.time;
    early.nonce = (0..)
        .find(|nonce| groat_chain::rules::header::check_header(&Header { nonce: *nonce, ..early }, &params).is_ok())
        .expect("half of all nonces are good");
    for (message, what) in [
        (headers(&gap), "non-continuous headers sequence"),
        (Message::Headers(weak), "header with invalid proof of work"),
        (Message::Headers(vec![early]), "invalid header"),
    ] {
        let mut world = world_with(&params, &[&[]], 10);
        let (own, theirs) = inbound(&mut world);
        world.say(own, message);
        world.run_for(SECOND);
        assert_eq!(reason(&world, theirs), Some(Reason::Misbehaved(what)));
        assert!(discouraged(&world, theirs), "{what}");
    }
}

#[test]
fn a_chain_with_enough_work_is_fetched_twice_and_then_stored() {
    let params = params_with_work(11_000);
    let chain = mine(&params, 12_000);
    let mut world = world_with(&params, &[&[], &chain], 12_000);
    let (peer, _) = world.connect(0, 1, LinkKind::OutboundFull, Link::default());
    let counted = world.run_while(MINUTE, |world| {
        world.nodes[0].protocol.peer(peer).is_some_and(|peer| peer.presync() == Some((10_000, false)))
    });
    assert!(counted, "presync counts {:?}", world.nodes[0].protocol.peer(peer).map(|peer| peer.presync()));
    assert_eq!(header_count(&world), 1, "nothing is stored before the work is shown");
    let done = world.run_while(10 * MINUTE, |world| world.nodes[0].chain.height() == 12_000);
    assert!(done, "height {}, {} headers", world.nodes[0].chain.height(), header_count(&world));
}

#[test]
fn a_chain_without_enough_work_is_never_stored() {
    let params = params_with_work(11_000);
    let chain = mine(&params, 6_000);
    let mut world = world_with(&params, &[&[]], 11_000);
    let (own, theirs) = befriend(&mut world, LinkKind::OutboundFull, Permissions::default());
    for part in chain.chunks(MAX_HEADERS_RESULTS) {
        world.say(own, headers(part));
        world.run_for(SECOND);
        assert!(names(&answer_pings(&mut world, own)).contains(&"getheaders"), "more is asked for");
    }
    world.say(own, Message::Headers(Vec::new()));
    world.run_for(SECOND);
    assert_eq!((header_count(&world), reason(&world, theirs)), (1, None));
    // A short message cannot be followed by more, so it is not looked at twice.
    world.say(own, headers(&chain[..100]));
    world.run_for(SECOND);
    assert_eq!(header_count(&world), 1);
    assert_eq!(world.nodes[0].protocol.peer(theirs).and_then(|peer| peer.presync()), None);
}

#[test]
fn another_chain_in_the_second_download_stores_nothing() {
    let params = params_with_work(11_000);
    let (honest, other) = (mine(&params, 12_000), Miner::new(params.clone(), 9).mine(params.genesis_hash, 12_000));
    let mut world = world_with(&params, &[&[]], 12_000);
    let (own, theirs) = befriend(&mut world, LinkKind::OutboundFull, Permissions::default());
    for part in honest.chunks(MAX_HEADERS_RESULTS).chain(other[..8000].chunks(MAX_HEADERS_RESULTS)) {
        world.say(own, headers(part));
        world.run_for(SECOND);
        answer_pings(&mut world, own);
    }
    assert_eq!(header_count(&world), 1);
    let presync = world.nodes[0].protocol.peer(theirs).and_then(|peer| peer.presync());
    assert_eq!(presync, Some((8000, false)), "the other chain is counted from its beginning");
}

#[test]
fn an_outbound_peer_that_stays_behind_is_asked_and_then_dropped() {
    let params = params();
    let chain = mine(&params, 50);
    for (last, kind, ended) in [
        (39, LinkKind::BlockRelay, Some(Reason::ChainBehind)),
        (49, LinkKind::BlockRelay, None),
        (39, LinkKind::Inbound, None),
        (39, LinkKind::Manual, None),
    ] {
        let mut world = world_with(&params, &[&chain], 50);
        let (own, theirs) = befriend(&mut world, kind, Permissions::default());
        world.say(own, headers(&chain[..=last]));
        let mut asked = Vec::new();
        for minute in 0..30 {
            world.run_for(MINUTE);
            if names(&answer_pings(&mut world, own)).contains(&"getheaders") {
                asked.push(minute);
            }
            assert!(minute >= 21 || reason(&world, theirs).is_none(), "too early: minute {minute}");
        }
        assert_eq!(reason(&world, theirs), ended, "{kind:?} at height {}", last + 1);
        assert_eq!(asked.contains(&20), ended.is_some(), "{kind:?} asked in minutes {asked:?}");
    }
}

#[test]
fn when_the_peer_of_the_first_sync_leaves_another_begins() {
    let params = params();
    let mut world = world_with(&params, &[&[]], 2000);
    let asked = |heard: &[Arc<Message>]| names(heard).contains(&"getheaders");
    let join = |world: &mut World| {
        let (own, _) = world.speak_to(0, LinkKind::OutboundFull, Permissions::default());
        world.say(own, Message::Version(Box::new(hello(FULL))));
        world.say(own, Message::Verack);
        world.run_for(SECOND);
        own
    };
    let first = join(&mut world);
    let second = join(&mut world);
    assert!(asked(&answer_pings(&mut world, first)), "the first is asked");
    assert!(!asked(&answer_pings(&mut world, second)), "one at a time");
    world.cut(first);
    world.run_for(SECOND);
    assert!(asked(&answer_pings(&mut world, second)), "nobody is asked any more");
}
