//! Transactions on their way: announced, asked for, served; liars, spies, and those who want none.

use super::*;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{ScriptBuf, Transaction, Wtxid, absolute, transaction};
use groat_chain::rejection::Rejection;

/// A transaction with this fee rate; `n` makes it another.
fn tx(n: u64, rate: u32) -> Arc<Transaction> {
    Arc::new(Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::from_consensus(rate),
        input: vec![bitcoin::TxIn::default()],
        output: vec![bitcoin::TxOut { value: bitcoin::Amount::from_sat(n), script_pubkey: ScriptBuf::new() }],
    })
}

/// One node with a fresh chain, and friends of these kinds that announce by wtxid.
fn node_with_friends(kinds: &[LinkKind]) -> (World, Vec<(PeerId, PeerId)>) {
    let params = params();
    let mut world = world_with(&params, &[&mine(&params, 5)], 5);
    let friends = kinds
        .iter()
        .map(|kind| {
            let (own, theirs) = world.speak_to(0, *kind, Permissions::default());
            world.say(own, Message::Version(Box::new(hello(FULL))));
            world.say(own, Message::WtxidRelay);
            world.say(own, Message::Verack);
            (own, theirs)
        })
        .collect::<Vec<_>>();
    world.run_for(SECOND / 10);
    friends.iter().for_each(|(own, _)| drop(answer_pings(&mut world, *own)));
    (world, friends)
}

fn invs(messages: &[Arc<Message>]) -> Vec<Wtxid> {
    let items = messages.iter().flat_map(|message| match &**message {
        Message::Inv(items) => items.clone(),
        _ => Vec::new(),
    });
    items.filter_map(|item| if let Inventory::WTx(id) = item { Some(id) } else { None }).collect()
}

fn wanted(messages: &[Arc<Message>]) -> Vec<Inventory> {
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
    assert!(heard.contains(&Arc::new(Message::FeeFilter(2_100_000_000_000_000))), "heard {:?}", names(&heard));
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
    let params = params();
    let mut config = World::config(&params);
    config.limits.transaction_log = 200;
    let mut chain = Chain::new(params.clone());
    chain.load(&mine(&params, 5));
    let mut world = World::new(1, when(&params, 5));
    world.add(config, chain);
    let (own, _) = world.speak_to(0, LinkKind::OutboundFull, Permissions::default());
    world.say(own, Message::Version(Box::new(hello(FULL))));
    world.say(own, Message::WtxidRelay);
    world.say(own, Message::Verack);
    world.run_for(SECOND / 100);
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
