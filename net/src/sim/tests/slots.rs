//! Whom nodes dial by themselves, who is let in, and who has to go.

use super::*;
use crate::addr::Network;
use crate::bans::Subnet;
use crate::message::AddrEntry;
use crate::protocol::{Command, Config, Input, LinkOptions, Memory, Output, Policy, Protocol};
use crate::sim::ends::address;
use crate::slots::Slots;

const HOUR: Duration = Duration::from_secs(3600);

/// The options of a node that finds its peers by one seed.
fn wild(params: &Arc<Params>, node: usize) -> Config {
    let dialling = LinkOptions {
        automatic: true,
        dns_seeds: vec!["seed.example".into()],
        listen: true,
        external: vec![address(node)],
        ..LinkOptions::default()
    };
    Config { dialling, ..World::config(params) }
}

/// So many nodes that know nobody but the first one, by a seed.
fn village(count: usize) -> World {
    let params = params();
    let mut world = World::new(3, when(&params, 0));
    world.seeds = vec![address(0)];
    for node in 0..count {
        world.add(wild(&params, node), Chain::new(params.clone()));
    }
    for node in 0..count {
        world.inform(node, Input::Tick);
    }
    world
}

/// A node that dials by itself, alone with its book, among so many others that do not.
fn among(others: usize) -> World {
    let params = params();
    let mut world = World::new(3, when(&params, 0));
    for node in 0..=others {
        let mut config = wild(&params, node);
        config.dialling.automatic = node == 0;
        config.dialling.dns_seeds.clear();
        world.add(config, Chain::new(params.clone()));
    }
    world.inform(0, Input::Tick);
    world
}

fn command(world: &mut World, node: usize, command: Command) {
    world.inform(node, Input::Command(command));
}

/// Links of a kind whose handshake is done.
fn count(world: &World, node: usize, kind: LinkKind) -> usize {
    world.nodes[node].protocol.peers().filter(|peer| peer.kind == kind && peer.ready).count()
}

fn full_and_blocks(world: &World, node: usize) -> (usize, usize) {
    (count(world, node, LinkKind::OutboundFull), count(world, node, LinkKind::BlockRelay))
}

/// Puts addresses of nodes into a node's book.
fn tell_of(world: &mut World, node: usize, others: std::ops::Range<usize>) {
    let now = world.now;
    for other in others {
        let added = world.nodes[node].protocol.add_address(address(other), FULL, false, now);
        added.expect("a book with few addresses has room");
    }
}

#[test]
fn thirty_fresh_nodes_with_one_seed_find_each_other() {
    let mut world = village(30);
    world.run_for(HOUR);
    let counts: Vec<(usize, usize)> = (0..30).map(|node| full_and_blocks(&world, node)).collect();
    assert!(counts.iter().all(|count| count.0 >= 8 && count.1 >= 2), "full links and links for blocks: {counts:?}");
    for node in &world.nodes {
        let groups: Vec<Vec<u8>> =
            node.protocol.peers().filter(|peer| !peer.kind.is_inbound()).map(|peer| peer.addr.host.group()).collect();
        let mut distinct = groups.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), groups.len(), "each outbound link leads into a group of its own");
    }
}

#[test]
fn at_most_one_dial_in_half_a_second_and_nobody_twice_in_ten_minutes() {
    let mut world = among(0);
    tell_of(&mut world, 0, 1..100);
    world.run_for(10 * MINUTE);
    let dialled = &world.nodes[0].dialled;
    assert!(dialled.len() > 60, "{} dials", dialled.len());
    for pair in dialled.windows(2) {
        let apart = pair[1].0.since(pair[0].0);
        assert!(apart >= SECOND / 2, "two dials {apart:?} apart");
    }
    let mut early: Vec<NetAddr> = dialled[..60].iter().map(|dial| dial.1).collect();
    early.sort_unstable();
    early.dedup();
    assert_eq!(early.len(), 60, "while there are others, nobody is dialled twice");
}

#[test]
fn a_node_that_is_alone_with_its_book_does_not_spin() {
    let mut world = among(0);
    let (mut wakes, end) = (0, world.now + HOUR);
    for _ in 0..10_000 {
        let Some(at) = world.nodes[0].protocol.deadline().filter(|at| *at < end) else { break };
        world.run_until(at);
        wakes += 1;
    }
    assert!(wakes < 800, "{wakes} wakes in an hour");
}

#[test]
fn a_clock_that_goes_back_does_not_stop_the_dialling() {
    let mut world = among(59);
    tell_of(&mut world, 0, 1..60);
    world.run_for(HOUR);
    let back = Micros(world.now.0 - 40 * 60 * 1_000_000);
    let node = &mut world.nodes[0];
    let mut dials = 0;
    for minute in 0..40 {
        let (mut out, now) = (Vec::new(), back + MINUTE * minute);
        node.protocol.handle(now, Input::Tick, &node.chain, &mut out);
        for output in out {
            if let Output::Dial { addr, .. } = output {
                dials += 1;
                node.protocol.handle(now, Input::DialFailed { addr, tried: true }, &node.chain, &mut Vec::new());
            }
        }
    }
    assert!(dials > 5, "{dials} dials in 40 minutes that come for the second time");
}

#[test]
fn the_links_for_blocks_of_the_last_run_come_back_first() {
    let mut world = village(30);
    world.run_for(HOUR);
    let node = &world.nodes[7].protocol;
    let (anchors, book) = (node.anchors().expect("it dials"), node.book().to_bytes());
    assert_eq!(anchors.len(), 2);
    let mut protocol = Protocol::new(Config { seed: [9; 32], ..wild(&params(), 7) });
    let book = crate::addrman::Book::from_bytes(&book, world.now.seconds32()).expect("a book");
    protocol.remember(Memory { book: Some(book), anchors: anchors.clone(), bans: Default::default() });
    world.nodes[7].dialled.clear();
    world.replace(7, protocol);
    world.run_for(MINUTE);
    let first: Vec<NetAddr> = world.nodes[7].dialled.iter().take(2).map(|dial| dial.1).collect();
    assert!(anchors.iter().all(|anchor| first.contains(&anchor.addr)), "{anchors:?} come before others: {first:?}");
    assert_eq!(full_and_blocks(&world, 7), (8, 2));
}

#[test]
fn feelers_find_out_who_answers() {
    let mut world = among(59);
    world.nodes[40..].iter_mut().for_each(|node| node.answers = false);
    tell_of(&mut world, 0, 1..60);
    world.run_for(MINUTE);
    let before = world.nodes[0].protocol.book().tried_len();
    assert_eq!((full_and_blocks(&world, 0), before), ((8, 2), 10), "who is linked was tried");
    world.run_for(2 * HOUR);
    let after = world.nodes[0].protocol.book().tried_len();
    let feelers = world.nodes[0].dialled.iter().filter(|dial| dial.2 == LinkKind::Feeler).count();
    assert!((30..90).contains(&feelers), "{feelers} feelers in two hours, one in two minutes on average");
    assert!(after > before + 15, "{before} tried addresses became {after} with {feelers} feelers");
    assert!(world.nodes[0].ended.iter().any(|end| end.1 == Reason::FeelerDone));
}

#[test]
fn now_and_then_another_peer_for_blocks_is_tried_and_the_worse_goes() {
    let mut world = among(59);
    tell_of(&mut world, 0, 1..60);
    world.run_for(HOUR / 2);
    let surplus = world.nodes[0].ended.iter().filter(|end| end.1 == Reason::Surplus).count();
    assert!(
        (2..20).contains(&surplus),
        "{surplus} peers came and went in half an hour, one in five minutes on average"
    );
    assert!(count(&world, 0, LinkKind::BlockRelay) <= 3);
}

#[test]
fn a_stale_tip_brings_another_full_peer_for_a_while() {
    let mut world = among(59);
    tell_of(&mut world, 0, 1..60);
    world.run_for(29 * MINUTE);
    assert_eq!(count(&world, 0, LinkKind::OutboundFull), 8);
    let mut most = 0;
    for _ in 0..30 {
        world.run_for(MINUTE);
        most = most.max(count(&world, 0, LinkKind::OutboundFull));
    }
    assert_eq!(most, 9, "no tip came in half an hour");
    world.run_for(5 * MINUTE);
    assert!(count(&world, 0, LinkKind::OutboundFull) <= 9);
}

#[test]
fn networks_that_cannot_be_reached_are_not_dialled() {
    let params = params();
    let mut world = World::new(3, when(&params, 0));
    let mut config = wild(&params, 0);
    config.dialling.reachable = [Network::Onion].into();
    config.dialling.dns_seeds.clear();
    world.add(config, Chain::new(params.clone()));
    world.inform(0, Input::Tick);
    tell_of(&mut world, 0, 1..50);
    world.run_for(10 * MINUTE);
    assert!(world.nodes[0].dialled.is_empty());
    let key = NetAddr { host: Host::TorV3([5; 32]), port: 8333 };
    let now = world.now;
    world.nodes[0].protocol.add_address(key, FULL, false, now).expect("there is room");
    world.run_for(MINUTE);
    assert!(world.nodes[0].dialled.iter().all(|dial| dial.1 == key) && !world.nodes[0].dialled.is_empty());
}

#[test]
fn a_switched_off_network_has_no_links() {
    let mut world = village(12);
    world.run_for(HOUR);
    command(&mut world, 3, Command::SetActive(false));
    world.nodes[3].dialled.clear();
    world.run_for(5 * MINUTE);
    assert_eq!(world.nodes[3].protocol.peers().count(), 0, "others who dial are refused");
    assert!(world.nodes[3].dialled.is_empty());
    command(&mut world, 3, Command::SetActive(true));
    world.run_for(HOUR);
    assert!(full_and_blocks(&world, 3).0 >= 6);
}

#[test]
fn banned_addresses_have_no_links() {
    let mut world = village(12);
    world.run_for(HOUR);
    let until = world.now.seconds() + 24 * 3600;
    let banned = address(5).host;
    command(&mut world, 3, Command::Ban { subnet: Subnet::from(banned), until });
    assert!(world.nodes[3].protocol.peers().all(|peer| peer.addr.host != banned));
    world.nodes[3].dialled.clear();
    world.run_for(2 * HOUR);
    assert!(world.nodes[3].dialled.iter().all(|dial| dial.1.host != banned), "nor are they dialled");
    let dials = |world: &World| world.nodes[5].dialled.iter().filter(|dial| dial.1 == address(3)).count();
    assert!(dials(&world) > 0, "it tries");
    assert!(world.nodes[3].protocol.peers().all(|peer| peer.addr.host != banned));
    command(&mut world, 3, Command::Unban(Subnet::from(banned)));
    assert!(world.nodes[3].protocol.bans().is_empty());
}

/// A node with so many places for peers that dial it, and peers in them. Their ids, as the node has them.
fn full_house(places: usize, no_ban: bool, relay: Policy) -> (World, Vec<(PeerId, PeerId)>) {
    let params = params();
    let mut world = World::new(1, when(&params, 0));
    let mut config = Config { relay, ..World::config(&params) };
    config.dialling.slots = Slots::with_total(places + 11);
    world.add(config, Chain::new(params.clone()));
    let permissions = Permissions { no_ban, ..Permissions::default() };
    let ends = (0..places).map(|_| befriend(&mut world, LinkKind::Inbound, permissions)).collect();
    (world, ends)
}

#[test]
fn who_comes_to_a_full_house_takes_the_place_of_the_least_useful() {
    let (mut world, ends) = full_house(60, false, Policy::Core);
    let (_, newcomer) = inbound(&mut world);
    let gone: Vec<PeerId> =
        world.nodes[0].ended.iter().filter(|end| end.1 == Reason::Evicted).map(|end| end.0).collect();
    assert_eq!(gone.len(), 1, "one goes for one that comes");
    assert!(ends[..30].iter().all(|(_, theirs)| !gone.contains(theirs)), "the oldest stay");
    assert_eq!(reason(&world, newcomer), None);
    assert_eq!(count(&world, 0, LinkKind::Inbound), 60);
}

#[test]
fn a_reconnect_storm_does_not_reach_those_who_are_protected() {
    let (mut world, ends) = full_house(60, false, Policy::Core);
    for _ in 0..600 {
        inbound(&mut world);
    }
    let stay = ends.iter().filter(|(_, theirs)| reason(&world, *theirs).is_none()).count();
    assert!(stay >= 30, "{stay} of 60 old peers stay");
    assert!(ends[..15].iter().all(|(_, theirs)| reason(&world, *theirs).is_none()), "the oldest are among them");
    assert!(world.nodes[0].protocol.peers().count() <= 60);
}

#[test]
fn a_storm_drives_out_one_peer_in_a_second_by_our_own_policy() {
    for (relay, expected) in [(Policy::Core, 200..=200), (Policy::Groat, 18..=22)] {
        let (mut world, _) = full_house(60, false, relay);
        for _ in 0..200 {
            // A tenth of a second each.
            inbound(&mut world);
        }
        let evicted = world.nodes[0].ended.iter().filter(|end| end.1 == Reason::Evicted).count();
        assert!(expected.contains(&evicted), "{evicted} of 200 newcomers drove somebody out: {relay:?}");
        assert_eq!(count(&world, 0, LinkKind::Inbound), 60);
    }
}

#[test]
fn in_a_house_of_thousands_a_storm_costs_no_look_through_all_for_each_who_comes() {
    let (mut world, _) = full_house(1001, false, Policy::Core);
    let evicted = |world: &World| world.nodes[0].ended.iter().filter(|end| end.1 == Reason::Evicted).count();
    for rounds in 1..=3 {
        for _ in 0..40 {
            world.speak_to(0, LinkKind::Inbound, Permissions::default());
        }
        assert_eq!(evicted(&world), rounds, "one of forty who come at once drives somebody out");
        world.run_for(Duration::from_millis(20));
    }
    assert_eq!(world.nodes[0].protocol.peers().count(), 1001);
}

#[test]
fn where_all_are_protected_newcomers_are_refused() {
    let (mut world, _) = full_house(20, true, Policy::Core);
    let (own, theirs) = inbound(&mut world);
    assert_eq!(reason(&world, theirs), Some(Reason::NoSlot));
    assert!(!world.is_open(own));
    assert_eq!(count(&world, 0, LinkKind::Inbound), 20);
}

#[test]
fn who_misbehaved_may_come_back_only_while_there_is_room() {
    for (places, refused) in [(30, false), (3, true)] {
        let params = params();
        let mut world = World::new(1, when(&params, 0));
        let mut config = World::config(&params);
        config.dialling.slots = Slots::with_total(places + 11);
        world.add(config, Chain::new(params.clone()));
        let (own, theirs) = inbound(&mut world);
        let others = [inbound(&mut world), inbound(&mut world)];
        world.say(own, Message::SendCmpct { announce: 2, version: 2 });
        world.run_for(SECOND);
        assert!(discouraged(&world, theirs));
        let (_, again) = world.speak_from(0, host_of(theirs), LinkKind::Inbound);
        world.run_for(SECOND);
        assert_eq!(reason(&world, again) == Some(Reason::Discouraged), refused, "{places} places");
        assert!(others.iter().all(|(_, other)| reason(&world, *other).is_none()));
    }
}

#[test]
fn an_operator_dials_what_there_is_a_slot_for() {
    let params = params();
    let mut world = World::new(3, when(&params, 0));
    for _ in 0..12 {
        world.add(World::config(&params), Chain::new(params.clone()));
    }
    for other in 1..12 {
        let free = world.nodes[0].protocol.has_slot(LinkKind::OutboundFull);
        assert_eq!(free, other <= 8, "after {} links", other - 1);
        if free {
            let kind = LinkKind::OutboundFull;
            command(&mut world, 0, Command::Open { addr: address(other), kind, v2: false });
        }
    }
    world.run_for(MINUTE);
    assert_eq!(count(&world, 0, LinkKind::OutboundFull), 8);
    assert!(world.nodes[0].protocol.has_slot(LinkKind::BlockRelay));
    assert!(!world.nodes[0].protocol.has_slot(LinkKind::Manual));
}

#[test]
fn an_entry_shows_what_was_heard_of_it() {
    let params = params();
    let mut world = world_with(&params, &[&[], &[]], 0);
    tell_of(&mut world, 0, 1..2);
    command(&mut world, 0, Command::Open { addr: address(1), kind: LinkKind::Feeler, v2: false });
    world.run_for(MINUTE);
    let shelved: Vec<(bool, AddrEntry)> =
        world.nodes[0].protocol.book().shelves().map(|shelved| (shelved.tried, shelved.entry)).collect();
    assert_eq!(shelved.len(), 1);
    assert_eq!((shelved[0].0, shelved[0].1.services, shelved[0].1.addr), (true, FULL, address(1)));
}

#[test]
fn dials_of_an_operator_and_bans_are_bounded() {
    let mut config = World::config(&params());
    (config.limits.dials, config.limits.bans) = (3, 2);
    let mut world = World::new(1, when(&params(), 0));
    world.add(config, Chain::new(params()));
    for other in 1..10 {
        command(&mut world, 0, Command::Open { addr: address(other), kind: LinkKind::Feeler, v2: false });
        let until = world.now.seconds() + 100;
        command(&mut world, 0, Command::Ban { subnet: Subnet::from(address(other).host), until });
    }
    assert_eq!(world.nodes[0].dialled.len(), 3);
    assert_eq!(world.nodes[0].protocol.bans().len(), 2, "what does not fit is not banned");
    world.run_for(101 * SECOND);
    let until = world.now.seconds() + 100;
    command(&mut world, 0, Command::Ban { subnet: Subnet::from(address(9).host), until });
    assert_eq!(world.nodes[0].protocol.bans().len(), 1, "bans that are over make room");
}
