//! Addresses between peers: what is asked, taken in, passed on and told, and what a flood of them reaches.

use super::*;
use crate::addr::Network;
use crate::message::AddrEntry;
use crate::protocol::LinkOptions;

const HOUR: Duration = Duration::from_secs(3600);
const OWN: NetAddr = NetAddr { host: Host::V4([50, 1, 1, 1]), port: 8333 };

/// An address that nobody has, seen just now; each of the first 20,000 in a group of its own.
fn entry(world: &World, n: usize) -> AddrEntry {
    let addr =
        NetAddr { host: Host::V4([60 + (n % 80) as u8, (n / 80 % 250) as u8, (n / 20_000) as u8, 1]), port: 8333 };
    AddrEntry { time: world.now.seconds32(), services: FULL, addr }
}

/// One node that listens.
fn listening() -> World {
    let params = params();
    let mut world = World::new(1, when(&params, 0));
    let dialling = LinkOptions { listen: true, external: vec![OWN], ..LinkOptions::default() };
    world.add(crate::protocol::Config { dialling, ..World::config(&params) }, Chain::new(params.clone()));
    world
}

fn addresses(messages: &[Arc<Message>]) -> Vec<AddrEntry> {
    let entries = |message: &Arc<Message>| match &**message {
        Message::Addr(entries) | Message::AddrV2(entries) => entries.clone(),
        _ => Vec::new(),
    };
    messages.iter().flat_map(entries).collect()
}

/// Puts addresses into the book of node 0, past the bounds for peers.
fn fill(world: &mut World, count: usize) {
    for n in 0..count {
        let (addr, now) = (entry(world, n).addr, world.now);
        // Some places may be taken.
        let _ = world.nodes[0].protocol.add_address(addr, FULL, false, now);
    }
}

/// A peer that understands `addrv2`.
fn modern(world: &mut World, kind: LinkKind) -> (PeerId, PeerId) {
    let (own, theirs) = world.speak_to(0, kind, Permissions::default());
    world.say(own, Message::Version(Box::new(hello(FULL))));
    world.say(own, Message::SendAddrV2);
    world.say(own, Message::Verack);
    world.run_for(SECOND / 10);
    (own, theirs)
}

#[test]
fn whom_we_dial_is_asked_for_addresses_unless_the_link_is_for_blocks() {
    for (kind, asked) in [
        (LinkKind::OutboundFull, true),
        (LinkKind::Manual, true),
        (LinkKind::AddrFetch, true),
        (LinkKind::BlockRelay, false),
        (LinkKind::Feeler, false),
        (LinkKind::Inbound, false),
    ] {
        let mut world = listening();
        let (own, theirs) = world.speak_to(0, kind, Permissions::default());
        world.say(own, Message::Version(Box::new(hello(FULL))));
        world.run_for(SECOND);
        assert_eq!(names(&world.heard(own)).contains(&"getaddr"), asked, "{kind:?}");
        let takes_part = world.nodes[0].protocol.peer(theirs).is_some_and(|peer| peer.addresses().is_some());
        assert_eq!(takes_part, asked, "{kind:?}");
    }
}

#[test]
fn getaddr_is_answered_once_with_at_most_23_percent_and_1000() {
    for (known, told) in [(100, 23), (8000, 1000)] {
        let mut world = listening();
        fill(&mut world, known);
        let known = world.nodes[0].protocol.book().len();
        let (own, _) = modern(&mut world, LinkKind::Inbound);
        world.heard(own);
        world.say(own, Message::GetAddr);
        world.run_for(SECOND);
        let heard = world.heard(own);
        let given = addresses(&heard).into_iter().filter(|entry| entry.addr != OWN).count();
        assert_eq!(given, told.min(known * 23 / 100), "of {known}");
        world.say(own, Message::GetAddr);
        world.run_for(HOUR);
        assert!(addresses(&world.heard(own)).is_empty(), "it is answered once");
    }
}

#[test]
fn whom_we_dialled_may_not_ask() {
    let mut world = listening();
    fill(&mut world, 1000);
    let (own, _) = modern(&mut world, LinkKind::OutboundFull);
    world.heard(own);
    world.say(own, Message::GetAddr);
    world.run_for(HOUR);
    let told: Vec<NetAddr> = addresses(&world.heard(own)).iter().map(|entry| entry.addr).collect();
    assert!(told.iter().all(|addr| *addr == OWN), "{told:?}");
}

#[test]
fn who_asks_again_within_a_day_learns_no_more() {
    let mut world = listening();
    fill(&mut world, 2000);
    let ask = |world: &mut World| {
        let (own, _) = modern(world, LinkKind::Inbound);
        world.say(own, Message::GetAddr);
        world.run_for(SECOND);
        let told = addresses(&world.heard(own)).into_iter().map(|entry| entry.addr).filter(|addr| *addr != OWN);
        let mut told: Vec<NetAddr> = told.collect();
        told.sort_unstable();
        world.cut(own);
        told
    };
    let first = ask(&mut world);
    world.run_for(20 * HOUR);
    assert_eq!(ask(&mut world), first, "for 21 hours the answer is the same");
    world.run_for(8 * HOUR);
    assert_ne!(ask(&mut world), first);
}

#[test]
fn a_peer_that_tells_too_many_addresses_is_heard_no_faster() {
    let mut world = listening();
    let (own, theirs) = modern(&mut world, LinkKind::Inbound);
    let entries: Vec<AddrEntry> = (0..1000).map(|n| entry(&world, n)).collect();
    world.say(own, Message::AddrV2(entries.clone()));
    world.run_for(SECOND);
    let counts = |world: &World| world.nodes[0].protocol.peer(theirs).and_then(|peer| peer.addresses());
    assert_eq!(counts(&world), Some((1, 999)), "one is free");
    world.run_for(100 * SECOND);
    world.say(own, Message::AddrV2(entries));
    world.run_for(SECOND);
    assert_eq!(counts(&world), Some((11, 1989)), "one more in ten seconds");
    assert_eq!(reason(&world, theirs), None, "it is not punished");
}

#[test]
fn the_answer_to_our_question_is_heard_whole() {
    let mut world = listening();
    let (own, theirs) = modern(&mut world, LinkKind::OutboundFull);
    let entries: Vec<AddrEntry> = (0..1000).map(|n| entry(&world, n)).collect();
    world.say(own, Message::AddrV2(entries));
    world.run_for(SECOND);
    let counts = world.nodes[0].protocol.peer(theirs).and_then(|peer| peer.addresses());
    assert_eq!(counts, Some((1000, 0)));
    let known = world.nodes[0].protocol.book().len();
    assert!(known > 800, "{known} of 1000 have found a place");
}

#[test]
fn a_flood_from_one_group_of_sources_reaches_64_buckets_and_no_tried_address() {
    let mut world = listening();
    let now = world.now;
    for n in 0..50 {
        let addr = NetAddr { host: Host::V4([150 + n, 1, 1, 1]), port: 8333 };
        world.nodes[0].protocol.add_address(addr, FULL, true, now).expect("there is room");
    }
    let shelves = |world: &World, tried: bool| {
        let all = world.nodes[0].protocol.book().shelves();
        all.filter(|shelved| shelved.tried == tried).collect::<Vec<_>>()
    };
    let before = shelves(&world, true);
    let may = Permissions { addr: true, ..Permissions::default() };
    // One that is bound by the rate, and one that the operator trusts too much: both from one group.
    let bound = modern(&mut world, LinkKind::Inbound);
    let (trusted, _) = befriend(&mut world, LinkKind::Inbound, may);
    for second in 0..200 {
        for own in [bound.0, trusted] {
            let entries = (0..1000).map(|n| entry(&world, second * 1000 + n)).collect();
            world.say(own, Message::AddrV2(entries));
        }
        world.run_for(SECOND);
    }
    let (processed, limited) =
        world.nodes[0].protocol.peer(bound.1).and_then(|peer| peer.addresses()).expect("it takes part");
    assert!(processed <= 21 && limited >= 199_900, "{processed} of {} were looked at", processed + limited);
    let mut buckets: Vec<u16> = shelves(&world, false).iter().map(|shelved| shelved.bucket).collect();
    assert!(buckets.len() > 3000, "the flood does reach the book: {} places", buckets.len());
    buckets.sort_unstable();
    buckets.dedup();
    assert!(buckets.len() <= 64, "{} buckets", buckets.len());
    assert_eq!(shelves(&world, true), before);
}

#[test]
fn a_young_address_is_passed_on_to_two_peers_and_not_back() {
    let mut world = listening();
    let ends: Vec<PeerId> = (0..20).map(|_| modern(&mut world, LinkKind::OutboundFull).0).collect();
    world.run_for(10 * MINUTE);
    for own in &ends {
        // Our question is answered by an empty message: from now on addresses are news.
        world.say(*own, Message::AddrV2(Vec::new()));
        world.heard(*own);
    }
    let news = entry(&world, 5);
    for _ in 0..10 {
        world.say(ends[0], Message::AddrV2(vec![news]));
        world.run_for(MINUTE);
    }
    let told = |world: &mut World, ends: &[PeerId]| -> Vec<usize> {
        ends.iter()
            .map(|own| addresses(&world.heard(*own)).iter().filter(|told| told.addr == news.addr).count())
            .collect()
    };
    let counts = told(&mut world, &ends);
    assert_eq!((counts.iter().sum::<usize>(), counts[0]), (2, 0), "each of two is told once: {counts:?}");
    let old = AddrEntry { time: world.now.seconds32() - 11 * 60, ..entry(&world, 6) };
    let many: Vec<AddrEntry> = (10..21).map(|n| entry(&world, n)).collect();
    world.say(ends[0], Message::AddrV2(vec![old]));
    world.say(ends[1], Message::AddrV2(many));
    world.run_for(HOUR / 2);
    let passed: usize = ends.iter().map(|own| addresses(&world.heard(*own)).len()).sum();
    assert_eq!(passed, 0, "old addresses and long messages are not passed on");
}

#[test]
fn a_peer_is_told_only_addresses_that_its_messages_can_carry() {
    let onion = |n| NetAddr { host: Host::TorV3([n; 32]), port: 8333 };
    let mut world = listening();
    let now = world.now;
    for n in 0..200 {
        let _ = world.nodes[0].protocol.add_address(onion(n), FULL, false, now);
    }
    let (old, _) = inbound(&mut world);
    let (new, _) = modern(&mut world, LinkKind::Inbound);
    for own in [old, new] {
        world.say(own, Message::GetAddr);
    }
    world.run_for(MINUTE);
    let heard = world.heard(old);
    assert!(!names(&heard).contains(&"addrv2"));
    assert!(addresses(&heard).iter().all(|entry| entry.addr == OWN), "there is no onion in an addr message");
    let onions =
        addresses(&world.heard(new)).iter().filter(|entry| entry.addr.host.network() == Network::Onion).count();
    assert!(onions > 20, "{onions} onion addresses");
}

#[test]
fn our_own_address_is_told_at_once_by_itself_and_then_once_a_day() {
    let mut world = listening();
    let (own, theirs) = modern(&mut world, LinkKind::Manual);
    let first = answer_pings(&mut world, own);
    let alone: Vec<Vec<AddrEntry>> =
        first.iter().map(|message| addresses(std::slice::from_ref(message))).filter(|told| !told.is_empty()).collect();
    assert_eq!(alone.len(), 1, "{:?}", names(&first));
    assert_eq!(alone[0].iter().map(|entry| (entry.addr, entry.services)).collect::<Vec<_>>(), [(OWN, FULL)]);
    let mut told = 0;
    for _ in 0..10 * 24 * 60 {
        world.run_for(MINUTE);
        told += addresses(&answer_pings(&mut world, own)).len();
    }
    assert!((3..25).contains(&told), "{told} times in ten days; {:?}", reason(&world, theirs));
}

#[test]
fn during_the_first_sync_our_address_is_nobodys_business() {
    let params = params();
    let mut world = World::new(1, when(&params, 1000));
    let dialling = LinkOptions { listen: true, external: vec![OWN], ..LinkOptions::default() };
    world.add(crate::protocol::Config { dialling, ..World::config(&params) }, Chain::new(params.clone()));
    let (own, _) = modern(&mut world, LinkKind::OutboundFull);
    world.run_for(MINUTE);
    assert!(addresses(&world.heard(own)).is_empty());
}

#[test]
fn who_is_dialled_for_addresses_goes_when_it_told_some() {
    let mut world = listening();
    let (own, theirs) = modern(&mut world, LinkKind::AddrFetch);
    world.say(own, Message::AddrV2(vec![entry(&world, 1)]));
    world.run_for(SECOND);
    assert_eq!(reason(&world, theirs), None, "a single one may be its own");
    world.say(own, Message::AddrV2((0..50).map(|n| entry(&world, n)).collect()));
    world.run_for(SECOND);
    assert_eq!(reason(&world, theirs), Some(Reason::FetchDone));
    let (_, silent) = modern(&mut world, LinkKind::AddrFetch);
    world.run_for(6 * MINUTE);
    assert_eq!(reason(&world, silent), Some(Reason::FetchTimeout));
}

#[test]
fn times_that_cannot_be_right_become_old_ones() {
    let mut world = listening();
    let (own, _) = modern(&mut world, LinkKind::OutboundFull);
    let now = world.now.seconds32();
    let day = 24 * 3600;
    let timed = |n, time| AddrEntry { time, ..entry(&world, n) };
    let told = vec![timed(1, now + 3600), timed(2, 5), timed(3, now - day)];
    world.say(own, Message::AddrV2(told.clone()));
    world.run_for(SECOND);
    let shelves: Vec<AddrEntry> = world.nodes[0].protocol.book().shelves().map(|shelved| shelved.entry).collect();
    let kept = |addr| shelves.iter().find(|entry| entry.addr == addr).map(|entry| now - entry.time);
    let penalty = 2 * 3600;
    let ages: Vec<Option<u32>> = told.iter().map(|entry| kept(entry.addr)).collect();
    assert_eq!(ages, [Some(5 * day + penalty), Some(5 * day + penalty), Some(day + penalty)]);
}

#[test]
fn answers_that_are_given_again_are_bounded() {
    let params = params();
    let mut world = World::new(1, when(&params, 0));
    let mut config = World::config(&params);
    config.limits.address_answers = 1;
    world.add(config, Chain::new(params.clone()));
    fill(&mut world, 2000);
    let ask = |world: &mut World, host| {
        let (own, _) = world.speak_from(0, host, LinkKind::Inbound);
        for message in [Message::Version(Box::new(hello(FULL))), Message::SendAddrV2, Message::Verack, Message::GetAddr]
        {
            world.say(own, message);
        }
        world.run_for(SECOND);
        addresses(&world.heard(own)).iter().map(|entry| entry.addr).collect::<std::collections::BTreeSet<_>>()
    };
    let (v4, onion) = (Host::V4([20, 1, 1, 1]), Host::TorV3([3; 32]));
    let first = ask(&mut world, v4);
    assert_eq!(ask(&mut world, v4), first);
    assert_ne!(ask(&mut world, onion), first, "who comes over Tor is told others");
    assert_ne!(ask(&mut world, v4), first, "the older answer had to go");
}
