//! Transactions on their way: announced, asked for, served; liars, spies, and those who want none.

use std::collections::BTreeSet;

use super::*;
use crate::addr::Network;
use crate::message::Kind;
use crate::protocol::{Command, Config, Input, Policy};
use crate::sim::ends::Party;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{ScriptBuf, Transaction, Wtxid, absolute, transaction};
use groat_chain::rejection::Rejection;

/// A transaction with this fee rate; `n` makes it another.
pub(super) fn tx(n: u64, rate: u32) -> Arc<Transaction> {
    Arc::new(Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::from_consensus(rate),
        input: vec![bitcoin::TxIn::default()],
        output: vec![bitcoin::TxOut { value: bitcoin::Amount::from_sat(n), script_pubkey: ScriptBuf::new() }],
    })
}

/// One node with a fresh chain, and friends of these kinds that announce by wtxid.
pub(super) fn node_with_friends(kinds: &[LinkKind]) -> (World, Vec<(PeerId, PeerId)>) {
    configured_node_with_friends(kinds, |_| {})
}

/// The same with another configuration.
pub(super) fn configured_node_with_friends(
    kinds: &[LinkKind],
    configure: impl Fn(&mut Config),
) -> (World, Vec<(PeerId, PeerId)>) {
    let params = params();
    let mut world = World::new(1, when(&params, 5));
    let mut config = World::config(&params);
    configure(&mut config);
    let mut chain = Chain::new(params.clone());
    chain.load(&mine(&params, 5));
    world.add(config, chain);
    let friends = kinds.iter().map(|kind| friend(&mut world, *kind, Permissions::default())).collect();
    (world, friends)
}

/// A friend that announces by wtxid. What it was told during the handshake is forgotten.
pub(super) fn friend(world: &mut World, kind: LinkKind, permissions: Permissions) -> (PeerId, PeerId) {
    let (own, theirs) = world.speak_to(0, kind, permissions);
    world.say(own, Message::Version(Box::new(hello(FULL))));
    world.say(own, Message::WtxidRelay);
    world.say(own, Message::Verack);
    world.run_for(SECOND / 10);
    answer_pings(world, own);
    (own, theirs)
}

pub(super) fn invs(messages: &[Arc<Message>]) -> Vec<Wtxid> {
    let items = messages.iter().flat_map(|message| match &**message {
        Message::Inv(items) => items.clone(),
        _ => Vec::new(),
    });
    items.filter_map(|item| if let Inventory::WTx(id) = item { Some(id) } else { None }).collect()
}

/// The rate that node 0 told a peer.
fn told_filter(world: &World, peer: PeerId) -> Option<u64> {
    world.nodes[0].protocol.peer(peer).and_then(|peer| peer.fee_filters().1)
}

pub(super) fn wanted(messages: &[Arc<Message>]) -> Vec<Inventory> {
    let items = messages.iter().flat_map(|message| match &**message {
        Message::GetData(items) => items.clone(),
        _ => Vec::new(),
    });
    items.collect()
}

#[test]
fn a_transaction_goes_to_all_nodes_of_a_ring() {
    let params = params();
    let chain = mine(&params, 5);
    for wire in [None, Some(2)] {
        let loads: Vec<&[Mined]> = vec![&chain; 20];
        let mut world = world_with(&params, &loads, 5);
        for node in 0..20 {
            for step in [1, 3, 7] {
                world.connect(node, (node + step) % 20, LinkKind::OutboundFull, Link { wire, ..Link::default() });
            }
        }
        world.run_for(10 * SECOND);
        let sent = tx(1, 5000);
        world.give_tx(3, sent.clone());
        let everywhere =
            |world: &World| world.nodes.iter().all(|node| node.chain.pool.contains_key(&sent.compute_wtxid()));
        assert!(world.run_while(2 * MINUTE, everywhere), "wire {wire:?}");
        assert!(world.nodes.iter().all(|node| node.ended.is_empty()));
    }
}

#[test]
fn the_best_are_announced_first_and_each_peer_is_told_once() {
    let (mut world, friends) = node_with_friends(&[LinkKind::Inbound, LinkKind::OutboundFull]);
    for n in 0..100 {
        world.give_tx(0, tx(n, 1000 + n as u32));
    }
    world.run_for(MINUTE);
    for (own, _) in friends {
        let told = invs(&answer_pings(&mut world, own));
        let expected: Vec<Wtxid> = (0..100).rev().map(|n| tx(n, 1000 + n as u32).compute_wtxid()).collect();
        assert_eq!(told, expected);
    }
}

/// A spy who dials an onion service and a public address could else tell by the times that one node has both.
#[test]
fn those_who_dial_us_are_told_together_only_if_they_came_the_same_way() {
    let (mut world, _) = node_with_friends(&[]);
    let own = |last| Some(NetAddr { host: Host::V4([9, 9, 9, last]), port: 8333 });
    let ways = [(Network::Ipv4, own(1)), (Network::Ipv4, own(1)), (Network::Onion, own(1)), (Network::Ipv4, own(2))];
    let ends = ways.map(|way| {
        let (own, theirs) = world.pair(Party::Test, Party::Node(0), Link::of(Duration::from_millis(1)));
        let (addr, (network, bind)) = (NetAddr { host: Host::V4([127, 0, 0, 1]), port: 50_000 }, way);
        let permissions = Permissions::default();
        world.tell(0, Input::Connected { peer: theirs, addr, kind: LinkKind::Inbound, permissions, network, bind });
        world.say(own, Message::Version(Box::new(hello(FULL))));
        world.say(own, Message::WtxidRelay);
        world.say(own, Message::Verack);
        own
    });
    world.run_for(MINUTE);
    ends.iter().for_each(|own| drop(answer_pings(&mut world, *own)));
    world.give_tx(0, tx(1, 2000));
    let mut told = [None; 4];
    for tenth in 0..600 {
        world.run_for(SECOND / 10);
        for (own, told) in ends.iter().zip(&mut told) {
            if !invs(&answer_pings(&mut world, *own)).is_empty() {
                *told = Some(tenth);
            }
        }
    }
    assert!(told.iter().all(Option::is_some), "{told:?}");
    assert_eq!(told[0], told[1], "both came the same way");
    let others: BTreeSet<_> = told.iter().collect();
    assert_eq!(others.len(), 3, "each way has a time of its own: {told:?}");
}

#[test]
fn who_has_it_or_wants_none_that_cheap_is_not_told() {
    let kinds = [LinkKind::Inbound, LinkKind::Inbound, LinkKind::Inbound, LinkKind::BlockRelay];
    let (mut world, friends) = node_with_friends(&kinds);
    let sent = tx(1, 2000);
    world.say(friends[0].0, Message::Inv(vec![Inventory::WTx(sent.compute_wtxid())]));
    world.say(friends[1].0, Message::FeeFilter(2001));
    world.run_for(SECOND);
    world.give_tx(0, sent.clone());
    world.run_for(MINUTE);
    let told: Vec<usize> = friends.iter().map(|(own, _)| invs(&answer_pings(&mut world, *own)).len()).collect();
    assert_eq!(told, [0, 0, 1, 0]);
}

#[test]
fn a_liar_who_announces_first_delays_a_minute_and_no_more() {
    let (mut world, friends) = node_with_friends(&[LinkKind::OutboundFull, LinkKind::Inbound]);
    let (liar, honest) = (friends[0].0, friends[1].0);
    let sent = tx(1, 2000);
    let item = Inventory::WTx(sent.compute_wtxid());
    world.say(liar, Message::Inv(vec![item]));
    world.run_for(SECOND);
    assert_eq!(wanted(&answer_pings(&mut world, liar)), [item]);
    world.say(honest, Message::Inv(vec![item]));
    world.run_for(55 * SECOND);
    assert_eq!(wanted(&answer_pings(&mut world, honest)), []);
    world.run_for(10 * SECOND);
    assert_eq!(wanted(&answer_pings(&mut world, honest)), [item]);
    world.say(honest, Message::Tx(sent.clone()));
    world.run_for(MINUTE);
    assert!(world.nodes[0].chain.pool.contains_key(&sent.compute_wtxid()));
    assert_eq!(wanted(&answer_pings(&mut world, liar)), [], "nobody is asked twice");
    // Had the liar said that it has none, the other would have been asked at once.
    let item = Inventory::WTx(tx(2, 2000).compute_wtxid());
    world.say(liar, Message::Inv(vec![item]));
    world.say(honest, Message::Inv(vec![item]));
    world.run_for(SECOND);
    world.say(liar, Message::NotFound(vec![item]));
    world.run_for(3 * SECOND);
    assert_eq!(wanted(&answer_pings(&mut world, honest)), [item]);
}

#[test]
fn a_refused_transaction_is_not_asked_for_again_until_the_tip_changes() {
    let (mut world, friends) = node_with_friends(&[LinkKind::OutboundFull, LinkKind::OutboundFull]);
    let sent = tx(1, 2000);
    let item = Inventory::WTx(sent.compute_wtxid());
    world.nodes[0].chain.refused.insert(sent.compute_wtxid(), Rejection::BadTxnsNonstandardInputs);
    world.say(friends[0].0, Message::Tx(sent));
    world.run_for(SECOND);
    world.say(friends[1].0, Message::Inv(vec![item]));
    world.run_for(SECOND);
    assert_eq!(wanted(&answer_pings(&mut world, friends[1].0)), []);
    let params = params();
    let block = Miner::new(params.clone(), 0).mine(params.genesis_hash, 6).remove(5);
    world.give_block(0, &block);
    world.say(friends[1].0, Message::Inv(vec![item]));
    world.run_for(SECOND);
    assert_eq!(wanted(&answer_pings(&mut world, friends[1].0)), [item]);
}

#[test]
fn a_spy_cannot_fetch_what_it_was_not_told_of() {
    let (mut world, friends) = node_with_friends(&[LinkKind::Inbound]);
    let (spy, _) = friends[0];
    let sent = tx(1, 2000);
    let item = Inventory::WTx(sent.compute_wtxid());
    world.give_tx(0, sent.clone());
    world.say(spy, Message::GetData(vec![item]));
    world.run_for(Duration::from_millis(3));
    assert_eq!(*answer_pings(&mut world, spy)[0], Message::NotFound(vec![item]));
    world.run_for(MINUTE);
    assert_eq!(invs(&answer_pings(&mut world, spy)), [sent.compute_wtxid()]);
    world.say(spy, Message::GetData(vec![item]));
    world.run_for(SECOND);
    assert_eq!(*answer_pings(&mut world, spy)[0], Message::Tx(sent));
}

#[test]
fn during_the_first_sync_no_transaction_is_wanted() {
    let params = params();
    let chain = mine(&params, 300);
    let mut world = world_with(&params, &[&[]], 300);
    let (own, _) = world.speak_to(0, LinkKind::Inbound, Permissions::default());
    world.say(own, Message::Version(Box::new(hello(FULL))));
    world.say(own, Message::WtxidRelay);
    world.say(own, Message::Verack);
    world.say(own, Message::Inv(vec![Inventory::WTx(tx(1, 2000).compute_wtxid())]));
    world.run_for(10 * SECOND);
    let heard = answer_pings(&mut world, own);
    assert!(heard.contains(&Arc::new(Message::FeeFilter(9_936_506))), "heard {:?}", names(&heard));
    assert_eq!(wanted(&heard), []);
    for block in &chain {
        world.give_block(0, block);
    }
    world.run_for(SECOND);
    let heard = answer_pings(&mut world, own);
    let rate =
        heard.iter().find_map(|message| if let Message::FeeFilter(rate) = **message { Some(rate) } else { None });
    assert!(
        rate.is_some_and(|rate| (900..=1200).contains(&rate)),
        "the pool's floor is told at once, coarsely: {rate:?}"
    );
}

#[test]
fn the_log_and_a_full_burst_keep_their_bounds() {
    let (mut world, friends) =
        configured_node_with_friends(&[LinkKind::OutboundFull], |config| config.limits.transaction_log = 200);
    let own = friends[0].0;
    for n in 0..500 {
        world.give_tx(0, tx(n, 2000));
    }
    world.run_for(2 * MINUTE);
    let heard = answer_pings(&mut world, own);
    let bursts: Vec<usize> = heard
        .iter()
        .filter_map(|message| if let Message::Inv(items) = &**message { Some(items.len()) } else { None })
        .collect();
    assert_eq!(bursts, [70, 70, 60], "the last two hundred, seventy at a time");
}

#[test]
fn hedged_requests_make_a_liar_cost_seconds_where_cores_cost_a_minute() {
    for (policy, least, most) in [(Policy::Core, 59, 62), (Policy::Groat, 0, 4)] {
        let kinds = [LinkKind::OutboundFull, LinkKind::OutboundFull, LinkKind::Inbound];
        let (mut world, friends) = configured_node_with_friends(&kinds, |config| config.relay = policy);
        let [liar, slow, honest] = [0, 1, 2].map(|n| friends[n].0);
        let sent = tx(1, 2000);
        let item = Inventory::WTx(sent.compute_wtxid());
        world.say(liar, Message::Inv(vec![item]));
        world.run_for(SECOND);
        assert_eq!(wanted(&answer_pings(&mut world, liar)), [item], "{policy:?}");
        world.say(honest, Message::Inv(vec![item]));
        let begun = world.now;
        let mut asked = false;
        while !asked && world.now.since(begun) < 3 * MINUTE {
            world.run_for(SECOND / 10);
            asked = wanted(&answer_pings(&mut world, honest)) == [item];
        }
        let waited = world.now.since(begun).as_secs();
        assert!((least..=most).contains(&waited), "{policy:?}: the honest peer was asked after {waited} s");
        // The first request is still open: whoever answers first is taken, and the other's answer does no harm.
        world.say(liar, Message::Tx(sent.clone()));
        world.say(honest, Message::Tx(sent.clone()));
        world.say(slow, Message::Inv(vec![item]));
        world.run_for(2 * MINUTE);
        assert!(world.nodes[0].chain.pool.contains_key(&sent.compute_wtxid()));
        assert_eq!(wanted(&answer_pings(&mut world, slow)), [], "{policy:?}");
        assert_eq!(world.nodes[0].ended, []);
    }
}

#[test]
fn a_liar_that_answers_pings_late_does_not_gain_much_by_it() {
    let kinds = [LinkKind::OutboundFull, LinkKind::OutboundFull];
    let (mut world, friends) = configured_node_with_friends(&kinds, |config| config.relay = Policy::Groat);
    let (liar, honest) = (friends[0].0, friends[1].0);
    world.run_for(2 * MINUTE);
    let pings = world.heard(liar);
    world.run_for(5 * MINUTE);
    for message in pings {
        if let Message::Ping(nonce) = *message {
            world.say(liar, Message::Pong(nonce));
        }
    }
    world.run_for(SECOND);
    let item = Inventory::WTx(tx(1, 2000).compute_wtxid());
    world.say(liar, Message::Inv(vec![item]));
    world.run_for(SECOND);
    world.say(honest, Message::Inv(vec![item]));
    world.run_for(6 * SECOND);
    assert_eq!(wanted(&answer_pings(&mut world, honest)), [item]);
}

#[test]
fn the_operators_transaction_is_announced_until_somebody_asks_for_it() {
    let (mut world, friends) = node_with_friends(&[LinkKind::Inbound]);
    let sent = tx(1, 2000);
    let (txid, wtxid) = (sent.compute_txid(), sent.compute_wtxid());
    let unbroadcast = |world: &World| world.nodes[0].protocol.unbroadcast().count();
    world.give_tx(0, sent.clone());
    world.inform(0, Input::Broadcast { txid, wtxid, first: true });
    world.run_for(MINUTE);
    assert_eq!(invs(&answer_pings(&mut world, friends[0].0)), [wtxid]);
    let (late, _) = friend(&mut world, LinkKind::Inbound, Permissions::default());
    let told_after = |world: &mut World, time: Duration| {
        let mut told = Vec::new();
        for _ in 0..time.as_secs() / 60 {
            world.run_for(MINUTE);
            told.extend(invs(&answer_pings(world, late)));
            assert_eq!(invs(&answer_pings(world, friends[0].0)), [], "who was told is not told again");
        }
        told
    };
    assert_eq!(told_after(&mut world, 8 * MINUTE), [], "who came later is not told at first");
    assert_eq!(told_after(&mut world, 8 * MINUTE), [wtxid], "but when it is announced again");
    assert_eq!(unbroadcast(&world), 1);
    world.say(late, Message::GetData(vec![Inventory::WTx(wtxid)]));
    world.run_for(SECOND);
    assert_eq!(*answer_pings(&mut world, late)[0], Message::Tx(sent));
    assert_eq!(unbroadcast(&world), 0);
    let relayed = world.nodes[0].protocol.relayed(&txid).map(|relayed| (relayed.announced, relayed.requested));
    assert_eq!(relayed, Some((2, 1)));
    // What left the pool is not announced again.
    let other = tx(2, 2000);
    let (txid, wtxid) = (other.compute_txid(), other.compute_wtxid());
    world.give_tx(0, other);
    world.inform(0, Input::Broadcast { txid, wtxid, first: true });
    world.nodes[0].chain.pool.clear();
    world.run_for(16 * MINUTE);
    assert_eq!(unbroadcast(&world), 0);
}

#[test]
fn with_the_schedule_brought_forward_it_is_announced_again_at_once() {
    let (mut world, _) = node_with_friends(&[LinkKind::Inbound]);
    let sent = tx(1, 2000);
    let (txid, wtxid) = (sent.compute_txid(), sent.compute_wtxid());
    world.give_tx(0, sent);
    world.inform(0, Input::Broadcast { txid, wtxid, first: true });
    world.run_for(MINUTE);
    let (late, _) = friend(&mut world, LinkKind::Inbound, Permissions::default());
    world.run_for(MINUTE);
    assert_eq!(invs(&answer_pings(&mut world, late)), [], "who came later is not told at first");
    world.inform(0, Input::Command(Command::Forward(15 * MINUTE)));
    world.run_for(MINUTE);
    assert_eq!(invs(&answer_pings(&mut world, late)), [wtxid]);
}

#[test]
fn who_was_told_of_nothing_yet_is_served_nothing() {
    let (mut world, _) = node_with_friends(&[]);
    let sent = tx(1, 2000);
    let item = Inventory::WTx(sent.compute_wtxid());
    world.give_tx(0, sent.clone());
    let (own, _) = friend(&mut world, LinkKind::Inbound, Permissions::default());
    world.say(own, Message::GetData(vec![item]));
    world.run_for(Duration::from_millis(3));
    assert_eq!(*answer_pings(&mut world, own)[0], Message::NotFound(vec![item]));
    world.run_for(MINUTE);
    world.say(own, Message::GetData(vec![item]));
    world.run_for(SECOND);
    assert_eq!(answer_pings(&mut world, own), [Arc::new(Message::Tx(sent))], "not announced, as it was here before");
}

#[test]
fn without_the_witness_flag_no_witness_is_served_and_who_wants_none_hears_nothing() {
    let (mut world, friends) = node_with_friends(&[LinkKind::Inbound, LinkKind::BlockRelay]);
    let stripped = tx(1, 2000);
    let mut whole = (*stripped).clone();
    whole.input[0].witness.push([1, 2, 3]);
    let whole = Arc::new(whole);
    let txid = whole.compute_txid();
    world.give_tx(0, whole.clone());
    world.run_for(MINUTE);
    answer_pings(&mut world, friends[0].0);
    for (item, expected) in [
        (Inventory::Transaction(txid), stripped),
        (Inventory::WitnessTransaction(txid), whole.clone()),
        (Inventory::WTx(whole.compute_wtxid()), whole.clone()),
    ] {
        world.say(friends[0].0, Message::GetData(vec![item]));
        world.run_for(SECOND);
        assert_eq!(answer_pings(&mut world, friends[0].0), [Arc::new(Message::Tx(expected))], "{item:?}");
    }
    world.say(friends[1].0, Message::GetData(vec![Inventory::WTx(whole.compute_wtxid())]));
    world.run_for(SECOND);
    assert_eq!(names(&answer_pings(&mut world, friends[1].0)), Vec::<&str>::new());
}

#[test]
fn a_peer_without_news_has_no_timer_for_them() {
    use crate::timers::Timer;
    let (mut world, friends) = node_with_friends(&[LinkKind::OutboundFull]);
    let (own, id) = friends[0];
    let due = |world: &World| world.nodes[0].protocol.due(id, Timer::Trickle);
    assert!(due(&world).is_some(), "the first burst is due: before it the peer may ask for nothing");
    for n in 0..5 {
        world.run_for(MINUTE);
        answer_pings(&mut world, own);
        assert_eq!(due(&world), None, "there is nothing to tell");
        world.give_tx(0, tx(n, 2000));
        assert!(due(&world).is_some(), "there is news");
        world.run_for(MINUTE);
        assert_eq!((invs(&answer_pings(&mut world, own)).len(), due(&world)), (1, None));
    }
    for n in 0..100 {
        world.give_tx(0, tx(10 + n, 2000));
    }
    assert!(world.run_while(MINUTE, |world| due(world).is_none()), "the timer goes on for ever");
    world.run_for(SECOND);
    assert_eq!(invs(&answer_pings(&mut world, own)).len(), 100, "what was too much for a burst is told by the next");
}

#[test]
fn a_trusted_peer_is_told_at_once() {
    let (mut world, _) = node_with_friends(&[]);
    let (own, _) = friend(&mut world, LinkKind::Inbound, Permissions { no_ban: true, ..Permissions::default() });
    world.give_tx(0, tx(1, 2000));
    world.run_for(Duration::from_millis(2));
    assert_eq!(invs(&answer_pings(&mut world, own)).len(), 1);
}

#[test]
fn a_forced_transaction_is_announced_again_to_those_who_lack_it() {
    let (mut world, friends) = node_with_friends(&[LinkKind::OutboundFull]);
    let sent = tx(1, 2000);
    world.give_tx(0, sent.clone());
    world.run_for(MINUTE);
    answer_pings(&mut world, friends[0].0);
    let (late, _) = friend(&mut world, LinkKind::OutboundFull, Permissions::default());
    let permissions = Permissions { relay: true, force_relay: true, ..Permissions::default() };
    let (gateway, id) = friend(&mut world, LinkKind::Inbound, permissions);
    assert_eq!(told_filter(&world, id), None, "it sends whatever it likes");
    assert!(told_filter(&world, friends[0].1).is_some());
    world.say(friends[0].0, Message::Tx(sent.clone()));
    world.run_for(MINUTE);
    assert_eq!(invs(&answer_pings(&mut world, late)), [], "nobody else can force it");
    world.say(gateway, Message::Tx(sent.clone()));
    world.run_for(MINUTE);
    assert_eq!(invs(&answer_pings(&mut world, late)), [sent.compute_wtxid()]);
    assert_eq!(invs(&answer_pings(&mut world, friends[0].0)), []);
}

#[test]
fn a_node_that_wants_blocks_only_still_announces_its_own() {
    let (mut world, friends) =
        configured_node_with_friends(&[LinkKind::Inbound, LinkKind::Inbound], |config| config.blocks_only = true);
    let permissions = Permissions { relay: true, ..Permissions::default() };
    let (trusted, _) = friend(&mut world, LinkKind::Inbound, permissions);
    let (own, given) = (tx(1, 2000), tx(2, 2000));
    world.give_tx(0, own.clone());
    world.say(trusted, Message::Tx(given.clone()));
    world.run_for(MINUTE);
    let heard = answer_pings(&mut world, friends[0].0);
    let mut told = invs(&heard);
    told.sort_unstable();
    let mut expected = [own.compute_wtxid(), given.compute_wtxid()];
    expected.sort_unstable();
    assert_eq!(told, expected);
    assert_eq!(told_filter(&world, friends[0].1), None, "no rate is told where nothing is wanted");
    world.say(friends[0].0, Message::Tx(tx(3, 2000)));
    world.say(friends[1].0, Message::Inv(vec![Inventory::WTx(tx(3, 2000).compute_wtxid())]));
    world.run_for(SECOND);
    assert_eq!(reason(&world, friends[0].1), Some(Reason::BadMessage(Kind::Tx)));
    assert_eq!(reason(&world, friends[1].1), Some(Reason::BadMessage(Kind::Inv)));
    assert_eq!(world.nodes[0].chain.pool.len(), 2);
}

#[test]
fn a_floor_that_moves_much_is_told_within_five_minutes() {
    let kinds = vec![LinkKind::Inbound; 20];
    let (mut world, friends) = node_with_friends(&kinds);
    let rates = |world: &mut World| -> Vec<i64> {
        let heard = friends.iter().flat_map(|(own, _)| answer_pings(world, *own)).collect::<Vec<_>>();
        heard.iter().filter_map(|one| if let Message::FeeFilter(rate) = **one { Some(rate) } else { None }).collect()
    };
    world.run_for(MINUTE);
    rates(&mut world);
    world.nodes[0].chain.floor = 5000;
    world.run_for(6 * MINUTE);
    let told = rates(&mut world);
    assert!(told.len() >= 20, "{} of 20 were told of the new floor", told.len());
    assert!(told.iter().filter(|rate| (4300..5800).contains(*rate)).count() >= 20, "{told:?}");
}

#[test]
fn who_sent_something_new_is_remembered_for_it() {
    let (mut world, friends) = node_with_friends(&[LinkKind::Inbound, LinkKind::Inbound]);
    world.say(friends[0].0, Message::Tx(tx(1, 2000)));
    world.run_for(SECOND);
    world.say(friends[1].0, Message::Tx(tx(1, 2000)));
    world.run_for(SECOND);
    let last = |n: usize| world.nodes[0].protocol.peer(friends[n].1).and_then(|peer| peer.last_transaction());
    assert!(last(0).is_some());
    assert_eq!(last(1), None, "it was here already");
}

#[test]
fn a_flood_of_announcements_is_bounded_for_each_peer_and_spares_the_others() {
    let (mut world, friends) = node_with_friends(&[LinkKind::Inbound, LinkKind::Inbound]);
    let item = |n: u64| Inventory::WTx(tx(n, 2000).compute_wtxid());
    for part in 0..4 {
        world.say(friends[0].0, Message::Inv((0..5000).map(|n| item(part * 5000 + n)).collect()));
    }
    world.say(friends[1].0, Message::Inv(vec![item(19_999)]));
    world.run_for(5 * MINUTE);
    let asked = wanted(&answer_pings(&mut world, friends[0].0)).len();
    assert_eq!(asked, 5000, "of 20000 that it announced");
    assert_eq!(wanted(&answer_pings(&mut world, friends[1].0)), [item(19_999)]);
}
