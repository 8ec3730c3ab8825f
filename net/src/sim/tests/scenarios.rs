//! The scenarios: each attack and fault with five seeds, ten thousand nodes once, and the same seed twice.
//! `scripts/sim.sh` plays more seeds.

use super::*;
use crate::protocol::Policy;
use crate::sim::scenario::{Options, Outcome, Places, Scenario};

/// Plays a scenario; a failure says how to play it again.
fn play(scenario: Scenario, options: &Options) -> Outcome {
    let outcome = scenario.run(options);
    assert!(
        outcome.failures.is_empty(),
        "{}\nagain: {}\nthe last steps:\n{}",
        outcome.failures.join("\n"),
        scenario.replay(options),
        outcome.last_steps.join("\n")
    );
    outcome
}

fn with_five_seeds(scenario: Scenario) {
    (1..=5).for_each(|seed| drop(play(scenario, &Options::new(200, seed))));
}

#[test]
fn a_flood_of_announcements_and_requests_harms_nobody_else() {
    with_five_seeds(Scenario::Flood);
}

#[test]
fn liars_delay_transactions_and_stop_none() {
    with_five_seeds(Scenario::Liar);
}

#[test]
fn hedged_requests_bound_what_liars_cost() {
    (1..=2).for_each(|seed| drop(play(Scenario::Liar, &Options { relay: Policy::Groat, ..Options::new(200, seed) })));
}

#[test]
fn who_holds_blocks_back_hardly_delays_a_sync() {
    with_five_seeds(Scenario::Stall);
}

#[test]
fn headers_without_work_are_not_stored_and_delay_nobody() {
    with_five_seeds(Scenario::HeaderSpam);
}

#[test]
fn half_handshakes_end_within_a_minute() {
    with_five_seeds(Scenario::Slowloris);
}

#[test]
fn halves_agree_within_a_minute_after_a_partition() {
    with_five_seeds(Scenario::Partition);
}

#[test]
fn a_network_gets_over_crashes_churn_and_wrong_clocks() {
    for scenario in [Scenario::Restart, Scenario::Churn, Scenario::Skew] {
        (1..=2).for_each(|seed| drop(play(scenario, &Options::new(200, seed))));
    }
}

#[test]
fn a_transaction_reaches_ten_thousand_nodes_as_under_cores_timers() {
    let outcome = play(Scenario::Tx, &Options::new(10_000, 1));
    let spread = outcome.spread.expect("a transaction spread");
    let (half, nearly_all) = (spread.half.as_secs_f64(), spread.nearly_all.as_secs_f64());
    let bytes = outcome.announcement_bytes.expect("they were counted");
    // The model: 7.9 to 8.3 s, 10.2 to 10.6 s, 328 bytes; with some room.
    assert!((7.0..9.5).contains(&half), "half of the nodes after {half:.2} s");
    assert!((9.5..12.0).contains(&nearly_all), "99 % of the nodes after {nearly_all:.2} s");
    assert!((300.0..360.0).contains(&bytes), "{bytes:.0} bytes of announcements a node");
}

#[test]
fn a_block_reaches_ten_thousand_nodes() {
    let outcome = play(Scenario::Block, &Options::new(10_000, 1));
    let spread = outcome.spread.expect("a block spread");
    // The model: 0.80 s; without anybody who is asked to push blocks 1.30 s.
    assert!(spread.nearly_all < SECOND, "99 % after {:?}", spread.nearly_all);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for scenario in [Scenario::Tx, Scenario::Restart, Scenario::Flood] {
        let traces = |places| [7, 7, 8].map(|seed| scenario.run(&Options { places, ..Options::new(60, seed) }).trace);
        for [first, again, other] in [traces(Places::Even), traces(Places::Regions)] {
            assert_eq!(first, again, "{}", scenario.name());
            assert_ne!(first, other, "{}: another seed", scenario.name());
        }
    }
}

#[test]
fn regions_are_as_safe_as_even_latencies() {
    for scenario in [Scenario::Tx, Scenario::Block, Scenario::Partition] {
        play(scenario, &Options { places: Places::Regions, ..Options::new(200, 1) });
    }
}

/// Real ledgers on memory: real rules, real reorganisations.
#[test]
fn real_ledgers_agree_after_a_partition() {
    let params = params();
    let mut world: World<Real> = World::new(1, when(&params, 40));
    world.redial = true;
    for _ in 0..20 {
        world.add(World::config(&params), Real::new(&params));
    }
    for node in 0..20 {
        for step in [1, 4, 9] {
            world.connect(node, (node + step) % 20, LinkKind::OutboundFull, Link::default());
        }
    }
    let mut salt = 0;
    let mut find = |world: &mut World<Real>, node: usize| {
        salt += 1;
        let block = world.nodes[node].chain.mine(salt);
        world.give_block(node, &block);
        world.run_for(10 * SECOND);
    };
    world.run_for(10 * SECOND);
    (0..40).for_each(|n| find(&mut world, n % 20));
    let tips = |world: &World<Real>| {
        let mut tips: Vec<BlockHash> = world.nodes.iter().map(|node| node.chain.tip_hash()).collect();
        tips.sort_unstable();
        tips.dedup();
        tips
    };
    assert_eq!(tips(&world).len(), 1);
    world.divide(|node| u8::from(node >= 10));
    (0..6).for_each(|_| find(&mut world, 0));
    (0..5).for_each(|_| find(&mut world, 15));
    assert_eq!(tips(&world).len(), 2);
    let best = world.nodes[0].chain.tip_hash();
    world.heal();
    assert!(world.run_while(MINUTE, |world| tips(world) == [best]), "{} tips after a minute", tips(&world).len());
    assert!(world.nodes.iter().all(|node| node.ended.is_empty()), "nobody was punished");
}

#[test]
fn what_was_sent_to_a_node_that_crashed_is_lost_and_its_chain_is_kept() {
    let params = params();
    let chain = mine(&params, 6);
    let mut world = world_with(&params, &[&chain[..5], &chain[..5]], 6);
    world.redial = true;
    world.connect(0, 1, LinkKind::OutboundFull, Link::default());
    world.run_for(SECOND);
    world.give_block(0, &chain[5]);
    world.crash(1);
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].chain.height(), 5);
    assert_eq!(world.nodes[0].protocol.peers().count(), 0, "the other end sees that the link is gone");
    world.restart(1);
    assert!(world.run_while(30 * SECOND, |world| world.nodes[1].chain.height() == 6), "dialled again, it catches up");
}

#[test]
fn a_socket_that_is_not_read_keeps_what_came() {
    let params = params();
    let chain = mine(&params, 10);
    let mut world = world_with(&params, &[&chain], 10);
    world.nodes[0].ledger_time = 10 * SECOND;
    let (own, theirs) = inbound(&mut world);
    let item = bitcoin::p2p::message_blockdata::Inventory::WitnessBlock(chain[0].hash);
    world.say(own, Message::GetData(vec![item]));
    for nonce in 0..20_000 {
        world.say(own, Message::Ping(nonce));
    }
    world.run_for(SECOND);
    assert!(world.nodes[0].paused.contains(&theirs));
    assert_eq!(world.nodes[0].protocol.overdrawn(), None);
    world.run_for(MINUTE);
    let pongs: Vec<u64> = world
        .heard(own)
        .iter()
        .filter_map(|message| if let Message::Pong(nonce) = **message { Some(nonce) } else { None })
        .collect();
    assert_eq!(pongs, (0..20_000).collect::<Vec<_>>(), "in order, and none twice");
}
