//! Version to verack, pings, and links that end early.

use super::*;
use crate::message::Kind;
use crate::protocol::Config;

#[test]
fn the_answerer_says_what_it_wants_before_its_verack() {
    let params = params();
    let mut world = world_with(&params, &[&mine(&params, 5)], 5);
    let (own, theirs) = world.speak_to(0, LinkKind::Inbound, Permissions::default());
    world.run_for(SECOND);
    assert!(world.heard(own).is_empty(), "who is dialled waits");
    world.say(own, Message::Version(Box::new(hello(FULL))));
    world.run_for(SECOND);
    assert_eq!(names(&world.heard(own)), ["version", "wtxidrelay", "sendaddrv2", "verack"]);
    assert!(!world.nodes[0].protocol.peer(theirs).expect("linked").ready);
    world.say(own, Message::Verack);
    world.run_for(SECOND);
    assert_eq!(names(&world.heard(own)), ["sendcmpct", "ping", "getheaders", "feefilter"]);
    assert!(world.nodes[0].protocol.peer(theirs).expect("linked").ready);
}

#[test]
fn the_dialler_speaks_first() {
    let params = params();
    let mut world = world_with(&params, &[&[]], 0);
    let (own, _) = world.speak_to(0, LinkKind::OutboundFull, Permissions::default());
    world.run_for(SECOND);
    let heard = world.heard(own);
    let [only] = &heard[..] else { panic!("heard {:?}", names(&heard)) };
    let Message::Version(version) = &**only else { panic!("heard {:?}", names(&heard)) };
    assert_eq!((version.version, version.services, version.relay), (70017, FULL, true));
}

#[test]
fn two_nodes_shake_hands_over_messages_and_both_transports() {
    let params = params();
    for wire in [None, Some(1), Some(2)] {
        let mut world = world_with(&params, &[&[], &[]], 0);
        let (a, b) = world.connect(0, 1, LinkKind::OutboundFull, Link { wire, ..Link::default() });
        world.run_for(SECOND);
        for (node, peer) in [(0, a), (1, b)] {
            let peer = world.nodes[node].protocol.peer(peer).expect("linked");
            assert!(peer.ready && peer.wtxid_relay && peer.addr_v2, "node {node}, wire {wire:?}");
            let (_, shortest) = peer.round_trips();
            assert_eq!(shortest, Some(Duration::from_millis(100)), "node {node}, wire {wire:?}");
        }
    }
}

#[test]
fn a_handshake_must_end_within_a_minute() {
    let params = params();
    for says_version in [false, true] {
        let mut world = world_with(&params, &[&[]], 0);
        let (own, theirs) = world.speak_to(0, LinkKind::Inbound, Permissions::default());
        if says_version {
            world.say(own, Message::Version(Box::new(hello(FULL))));
        }
        world.run_for(59 * SECOND);
        assert_eq!(reason(&world, theirs), None);
        world.run_for(2 * SECOND);
        assert_eq!(reason(&world, theirs), Some(Reason::HandshakeTimeout), "version said: {says_version}");
        assert!(!world.is_open(own));
    }
}

#[test]
fn what_comes_before_the_version_or_the_verack_is_ignored() {
    let params = params();
    let mut world = world_with(&params, &[&[]], 0);
    let (own, theirs) = world.speak_to(0, LinkKind::Inbound, Permissions::default());
    for message in [Message::Verack, Message::Ping(1), Message::WtxidRelay] {
        world.say(own, message);
    }
    world.run_for(SECOND);
    assert!(world.heard(own).is_empty());
    world.say(own, Message::Version(Box::new(hello(FULL))));
    world.say(own, Message::Version(Box::new(Version { services: 0, ..hello(0) })));
    world.say(own, Message::Ping(2));
    world.run_for(SECOND);
    assert!(!names(&world.heard(own)).contains(&"pong"), "a ping before the verack is not answered");
    world.say(own, Message::Verack);
    world.say(own, Message::Verack);
    world.say(own, Message::Ping(3));
    world.run_for(SECOND);
    assert!(world.heard(own).iter().any(|message| **message == Message::Pong(3)));
    let peer = world.nodes[0].protocol.peer(theirs).expect("nothing of that is punished");
    assert_eq!((peer.services(), peer.wtxid_relay), (FULL, false));
}

#[test]
fn negotiation_after_the_verack_ends_the_link() {
    let params = params();
    let feature = Message::Feature { id: b"abcd".to_vec(), data: Vec::new() };
    for (message, kind) in
        [(Message::WtxidRelay, Kind::WtxidRelay), (Message::SendAddrV2, Kind::SendAddrV2), (feature, Kind::Feature)]
    {
        let mut world = world_with(&params, &[&[]], 0);
        let (own, theirs) = inbound(&mut world);
        world.say(own, message);
        world.run_for(SECOND);
        assert_eq!(reason(&world, theirs), Some(Reason::LateNegotiation(kind)));
    }
    let mut world = world_with(&params, &[&[]], 0);
    let (own, theirs) = inbound(&mut world);
    world.say(own, Message::SendTxRcncl { version: 1, salt: 0 });
    world.run_for(SECOND);
    assert_eq!(reason(&world, theirs), None, "reconciliation is off, so its message is ignored");
}

#[test]
fn reconciliation_is_agreed_only_as_bip330_says() {
    use crate::handshake::Reconciliation;
    let params = params();
    let offer = |version| Message::SendTxRcncl { version, salt: 7 };
    let bad = Some(Reason::BadMessage(Kind::SendTxRcncl));
    // What we are, what the peer says between version and verack, whether we offered, how it ends.
    let cases = [
        ("both offer", LinkKind::Inbound, true, true, vec![Message::WtxidRelay, offer(1)], true, Ok(true)),
        ("a later version", LinkKind::OutboundFull, true, true, vec![Message::WtxidRelay, offer(9)], true, Ok(true)),
        ("without wtxidrelay", LinkKind::Inbound, true, true, vec![offer(1)], true, Ok(false)),
        ("no answer", LinkKind::Inbound, true, true, vec![Message::WtxidRelay], true, Ok(false)),
        ("no version", LinkKind::Inbound, true, true, vec![offer(0)], true, Err(bad)),
        ("twice", LinkKind::Inbound, true, true, vec![offer(1), offer(1)], true, Err(bad)),
        ("it wants no transactions", LinkKind::Inbound, true, false, vec![offer(1)], false, Err(bad)),
        ("on a link for blocks", LinkKind::BlockRelay, true, true, vec![offer(1)], false, Err(bad)),
        ("unexpected for addresses", LinkKind::AddrFetch, true, true, vec![offer(1)], false, Ok(false)),
        ("switched off", LinkKind::Inbound, false, true, vec![Message::WtxidRelay, offer(1)], false, Ok(false)),
        (
            "late",
            LinkKind::Inbound,
            true,
            true,
            vec![Message::Verack, offer(1)],
            true,
            Err(Some(Reason::LateNegotiation(Kind::SendTxRcncl))),
        ),
    ];
    for (case, kind, reconcile, relay, says, offered, expected) in cases {
        let mut world = World::new(1, when(&params, 0));
        world.add(Config { reconcile, ..World::config(&params) }, Chain::new(params.clone()));
        let (own, theirs) = world.speak_to(0, kind, Permissions::default());
        world.say(own, Message::Version(Box::new(Version { relay, ..hello(FULL) })));
        says.into_iter().for_each(|message| world.say(own, message));
        world.say(own, Message::Verack);
        world.run_for(SECOND);
        let heard = world.heard(own);
        let verack = heard.iter().position(|one| **one == Message::Verack).unwrap_or(heard.len());
        assert_eq!(names(&heard[..verack]).contains(&"sendtxrcncl"), offered, "{case}: our offer, before the verack");
        let ended = reason(&world, theirs);
        match expected {
            Err(expected) => assert_eq!(ended, expected, "{case}"),
            Ok(agreed) => {
                let peer = world.nodes[0].protocol.peer(theirs).unwrap_or_else(|| panic!("{case}: ended, {ended:?}"));
                assert_eq!(peer.reconciliation == Reconciliation::Agreed, agreed, "{case}");
            }
        }
    }
}

#[test]
fn a_link_with_oneself_ends() {
    let params = params();
    let mut world = world_with(&params, &[&[]], 0);
    let (_, answering) = world.connect(0, 0, LinkKind::OutboundFull, Link::default());
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].ended, [(answering, Reason::Ourselves)]);
}

#[test]
fn an_outbound_peer_must_offer_blocks_and_witnesses() {
    let params = params();
    let limited = crate::peer::NODE_NETWORK_LIMITED | NODE_WITNESS;
    for (kind, services, fresh, ended) in [
        (LinkKind::OutboundFull, FULL, 0, None),
        (LinkKind::OutboundFull, NODE_NETWORK, 0, Some(Reason::Services)),
        (LinkKind::BlockRelay, NODE_WITNESS, 0, Some(Reason::Services)),
        (LinkKind::OutboundFull, limited, 100, None),
        (LinkKind::OutboundFull, limited, 200, Some(Reason::Services)),
        (LinkKind::Manual, 0, 0, None),
        (LinkKind::Inbound, 0, 0, None),
        (LinkKind::Feeler, 0, 0, Some(Reason::FeelerDone)),
    ] {
        let mut world = world_with(&params, &[&[]], fresh);
        let (own, theirs) = world.speak_to(0, kind, Permissions::default());
        world.say(own, Message::Version(Box::new(hello(services))));
        world.run_for(SECOND);
        assert_eq!(reason(&world, theirs), ended, "{kind:?} with {services:#x}, {fresh} blocks behind");
    }
}

#[test]
fn an_obsolete_version_ends_the_link() {
    let params = params();
    for (version, ended) in [(31_799, Some(Reason::Obsolete)), (31_800, None)] {
        let mut world = world_with(&params, &[&[]], 0);
        let (own, theirs) = world.speak_to(0, LinkKind::Inbound, Permissions::default());
        world.say(own, Message::Version(Box::new(Version { version, ..hello(FULL) })));
        world.run_for(SECOND);
        assert_eq!(reason(&world, theirs), ended, "version {version}");
        let heard = world.heard(own);
        assert!(!names(&heard).contains(&"wtxidrelay"), "an old peer is not asked for new things");
    }
}

#[test]
fn a_link_for_blocks_only_carries_no_transactions() {
    use bitcoin::hashes::Hash;
    use bitcoin::p2p::message_blockdata::Inventory;
    let params = params();
    let mut world = world_with(&params, &[&[]], 0);
    let (own, theirs) = world.speak_to(0, LinkKind::BlockRelay, Permissions::default());
    world.run_for(SECOND);
    let Message::Version(version) = &*world.heard(own)[0] else { panic!("a version comes first") };
    assert!(!version.relay);
    world.say(own, Message::Version(Box::new(hello(FULL))));
    world.say(own, Message::Verack);
    let hash = bitcoin::Txid::from_byte_array([1; 32]);
    world.say(own, Message::Inv(vec![Inventory::Transaction(hash)]));
    world.run_for(SECOND);
    assert_eq!(reason(&world, theirs), Some(Reason::BadMessage(Kind::Inv)));
}

#[test]
fn an_unanswered_ping_ends_the_link_after_twenty_minutes() {
    let params = params();
    let mut world = world_with(&params, &[&[]], 0);
    let (own, theirs) = inbound(&mut world);
    let mut pings = 0;
    for _ in 0..30 {
        world.run_for(MINUTE);
        let heard = world.heard(own);
        for message in &heard {
            if let Message::Ping(nonce) = **message {
                pings += 1;
                world.say(own, Message::Pong(nonce));
            }
        }
    }
    assert!((14..=15).contains(&pings), "{pings} pings in 30 minutes");
    assert_eq!(reason(&world, theirs), None);
    let sent_at = loop {
        world.run_for(SECOND);
        if world.heard(own).iter().any(|message| matches!(**message, Message::Ping(_))) {
            break world.now;
        }
    };
    world.say(own, Message::Pong(12345));
    world.run_until(sent_at + (20 * MINUTE - 2 * SECOND));
    assert_eq!(reason(&world, theirs), None, "twenty minutes are not over");
    world.run_for(4 * SECOND);
    assert_eq!(reason(&world, theirs), Some(Reason::PingTimeout));
}

#[test]
fn an_operator_may_have_patience_with_the_silent() {
    let params = params();
    let mut world = World::new(1, when(&params, 0));
    let config = crate::protocol::Config { peer_timeout: 120 * MINUTE, ..World::config(&params) };
    world.add(config, Chain::new(params.clone()));
    let (_, half_open) = world.speak_to(0, LinkKind::Inbound, Permissions::default());
    let (_, mute) = inbound(&mut world);
    world.run_for(119 * MINUTE);
    assert_eq!((reason(&world, half_open), reason(&world, mute)), (None, None));
    world.run_for(2 * MINUTE);
    assert_eq!(reason(&world, half_open), Some(Reason::HandshakeTimeout));
    assert_eq!(reason(&world, mute), Some(Reason::PingTimeout));
}
