//! Each bound on what a peer may send, and what breaking it leads to; whatever comes, nothing panics.

use super::*;
use crate::message::{Fault, Kind};
use proptest::prelude::*;

fn too_many(kind: Kind) -> Message {
    Message::Broken { kind: Some(kind), fault: Fault::TooMany(1_000_000) }
}

#[test]
fn who_breaks_a_bound_is_discouraged_or_disconnected_as_the_message_says() {
    let params = params();
    let misbehaved = |message| (message, true);
    let only_ended = |message| (message, false);
    for (message, punished) in [
        misbehaved(too_many(Kind::Inv)),
        misbehaved(too_many(Kind::GetData)),
        misbehaved(too_many(Kind::Headers)),
        misbehaved(too_many(Kind::Addr)),
        misbehaved(too_many(Kind::AddrV2)),
        misbehaved(Message::SendCmpct { announce: 2, version: 2 }),
        only_ended(too_many(Kind::GetHeaders)),
        only_ended(too_many(Kind::GetBlocks)),
        only_ended(Message::MemPool),
        only_ended(Message::FilterClear),
        only_ended(Message::FilterAdd(vec![1])),
        only_ended(Message::Broken { kind: Some(Kind::FilterLoad), fault: Fault::Malformed }),
        only_ended(Message::Broken { kind: Some(Kind::Feature), fault: Fault::Malformed }),
    ] {
        let what = format!("{message:?}");
        let mut world = world_with(&params, &[&[]], 0);
        let (own, theirs) = inbound(&mut world);
        world.say(own, message);
        world.run_for(SECOND);
        assert!(reason(&world, theirs).is_some(), "{what} does not end the link");
        assert_eq!(discouraged(&world, theirs), punished, "{what}");
        assert!(!world.is_open(own), "{what}");
    }
}

#[test]
fn what_is_only_strange_is_ignored() {
    let params = params();
    let mut world = world_with(&params, &[&[]], 0);
    let (own, theirs) = inbound(&mut world);
    for message in [
        too_many(Kind::NotFound),
        Message::Broken { kind: None, fault: Fault::Name },
        Message::Broken { kind: Some(Kind::Tx), fault: Fault::Checksum },
        Message::Broken { kind: Some(Kind::Headers), fault: Fault::Malformed },
        Message::Unknown { name: "alert".into(), payload: vec![0; 100] },
        Message::SendCmpct { announce: 1, version: 1 },
        Message::Pong(5),
        Message::GetAddr,
        Message::Ping(9),
    ] {
        world.say(own, message);
    }
    world.run_for(SECOND);
    assert_eq!(reason(&world, theirs), None);
    assert!(answer_pings(&mut world, own).iter().any(|message| **message == Message::Pong(9)));
}

#[test]
fn who_may_do_all_is_not_punished() {
    let params = params();
    let no_ban = Permissions { no_ban: true, ..Permissions::default() };
    for (kind, permissions) in [(LinkKind::Inbound, no_ban), (LinkKind::Manual, Permissions::default())] {
        let mut world = world_with(&params, &[&[]], 0);
        let (own, theirs) = befriend(&mut world, kind, permissions);
        world.say(own, too_many(Kind::Inv));
        world.run_for(SECOND);
        assert_eq!(reason(&world, theirs), None, "{kind:?}");
        assert!(
            world.nodes[0].events.iter().any(|event| matches!(event, crate::protocol::Event::Misbehaved { .. })),
            "it is told all the same"
        );
    }
}

#[test]
fn a_peer_that_sends_too_much_meanwhile_is_not_read() {
    let params = params();
    let chain = mine(&params, 10);
    let mut world = world_with(&params, &[&chain], 10);
    world.nodes[0].ledger_time = 10 * SECOND;
    let (own, theirs) = inbound(&mut world);
    let item = bitcoin::p2p::message_blockdata::Inventory::WitnessBlock(chain[0].hash);
    world.say(own, Message::GetData(vec![item]));
    for nonce in 0..9000 {
        world.say(own, Message::Ping(nonce));
    }
    world.run_for(SECOND);
    assert!(world.nodes[0].paused.contains(&theirs), "more than 256 KiB wait");
    world.run_for(MINUTE);
    assert!(world.nodes[0].paused.is_empty());
    let heard = world.heard(own);
    let pongs = heard.iter().filter(|message| matches!(***message, Message::Pong(_))).count();
    assert_eq!(pongs, 9000);
    use bitcoin::hashes::Hash;
    // What waited took memory, and so did what was asked for. Neither is kept.
    let unknown = bitcoin::p2p::message_blockdata::Inventory::WTx(bitcoin::Wtxid::from_byte_array([1; 32]));
    world.say(own, Message::GetData(vec![unknown; crate::message::MAX_INV_SZ]));
    world.run_for(MINUTE);
    let peer = world.nodes[0].protocol.peer(theirs).expect("the link goes on");
    assert_eq!((peer.inbox.len(), peer.wanted.len()), (0, 0));
    assert!(peer.inbox.capacity() <= 16, "room for {} messages", peer.inbox.capacity());
    assert!(peer.wanted.capacity() <= 16, "room for {} wishes", peer.wanted.capacity());
}

/// A message may be 4 MB long and waits whole.
#[test]
fn of_those_who_have_most_waiting_one_goes_when_it_is_too_much_in_all() {
    let params = params();
    let chain = mine(&params, 10);
    let mut world = World::new(1, when(&params, 10));
    let mut config = World::config(&params);
    config.limits.inbox_bytes_in_all = 100_000;
    world.add(config, Chain::new(params.clone()));
    world.nodes[0].chain.load(&chain);
    world.nodes[0].ledger_time = 60 * MINUTE;
    let no_ban = Permissions { no_ban: true, ..Permissions::default() };
    let trusted = befriend(&mut world, LinkKind::Inbound, no_ban);
    let friends: Vec<(PeerId, PeerId)> = (0..4).map(|_| inbound(&mut world)).collect();
    let say = |world: &mut World, (own, _): (PeerId, PeerId), bytes: usize| {
        // The answer waits for the disk, and what follows for the answer.
        let item = bitcoin::p2p::message_blockdata::Inventory::WitnessBlock(chain[0].hash);
        world.say(own, Message::GetData(vec![item]));
        world.say(own, Message::Unknown { name: "x".into(), payload: vec![0; bytes] });
        world.run_for(SECOND);
    };
    say(&mut world, trusted, 60_000);
    say(&mut world, friends[0], 10_000);
    say(&mut world, friends[1], 20_000);
    assert_eq!(world.nodes[0].ended, []);
    say(&mut world, friends[2], 15_000);
    assert_eq!(reason(&world, friends[1].1), Some(Reason::TooMuchWaits), "the one who has most");
    say(&mut world, friends[3], 5_000);
    assert_eq!(world.nodes[0].ended.len(), 1, "the others fit");
    assert!(!discouraged(&world, friends[1].1), "it broke no rule");
}

#[test]
fn a_peer_costs_little_at_rest() {
    let size = size_of::<crate::peer::Peer>();
    assert!(size <= 1024, "{size} bytes");
}

fn message() -> impl Strategy<Value = Message> {
    let payload = proptest::collection::vec(any::<u8>(), 0..300);
    let kinds = (0usize..100, payload).prop_map(|(kind, payload)| {
        let kinds = crate::message::tests::kinds();
        Message::decode(kinds[kind % kinds.len()], payload)
    });
    let samples = any::<prop::sample::Index>().prop_map(|at| at.get(&crate::message::tests::samples()).clone());
    let params = params();
    let chain = mine(&params, 30);
    let hashes: Vec<BlockHash> = chain.iter().map(|block| block.hash).collect();
    let blocks = (0usize..30, 0usize..30, 0u8..5).prop_map(move |(from, to, what)| {
        use bitcoin::hashes::Hash;
        use bitcoin::p2p::message_blockdata::Inventory;
        let range = from.min(to)..from.max(to);
        let locate = |hash| crate::message::Locate { locator: vec![hash], stop: BlockHash::all_zeros() };
        match what {
            0 => Message::Headers(chain[range].iter().map(|block| block.header).collect()),
            1 => Message::Inv(hashes[range].iter().map(|hash| Inventory::Block(*hash)).collect()),
            2 => Message::GetData(hashes[range].iter().map(|hash| Inventory::WitnessBlock(*hash)).collect()),
            3 => Message::GetHeaders(locate(hashes[from])),
            _ => Message::Block(chain[from].bytes.clone()),
        }
    });
    prop_oneof![2 => kinds, 1 => samples, 6 => blocks]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_stream_of_messages_panics(
        messages in proptest::collection::vec((0usize..3, message(), 0u64..3000), 0..80),
        shaken in any::<bool>(),
    ) {
        let params = params();
        let mut world = world_with(&params, &[&mine(&params, 10)], 30);
        let no_ban = Permissions { no_ban: true, ..Permissions::default() };
        let ends: Vec<(PeerId, PeerId)> = [LinkKind::Inbound, LinkKind::OutboundFull, LinkKind::Manual]
            .into_iter()
            .map(|kind| if shaken { befriend(&mut world, kind, no_ban) } else { world.speak_to(0, kind, no_ban) })
            .collect();
        for (end, message, wait) in messages {
            // A broken message exists at the receiver only.
            world.say(ends[end].0, message);
            world.run_for(Duration::from_millis(wait));
        }
        world.run_for(30 * MINUTE);
        for (own, _) in ends {
            world.cut(own);
        }
        world.run_for(SECOND);
        prop_assert_eq!(world.nodes[0].protocol.peers().count(), 0);
        prop_assert_eq!(world.nodes[0].protocol.deadline(), None, "no deadline outlives its peer");
    }
}
