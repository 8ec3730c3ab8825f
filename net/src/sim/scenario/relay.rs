//! Nobody attacks: how fast a transaction and a block spread, what they cost, how fast the simulator is.

use std::time::Duration;

use rand::Rng;

use super::build::{Net, Plan};
use super::{Options, Outcome, Part, Spread, entries};
use crate::message::Kind;
use crate::sim::Mined;

/// Give up after this.
const PATIENCE: Duration = Duration::from_secs(600);

/// Transactions one after the other, whose times are averaged: that of one depends much on where it begins.
const TX_SAMPLES: usize = 10;
/// A transaction under Core's timers, by an event model: 10,000 nodes with eight outbound links each.
const TX_MODEL: &str = "50 % 7.9-8.3 s, 90 % 9.2-9.6 s, 99 % 10.2-10.6 s, all 12 s; 8.1 inv and 328 bytes a node";
/// A block that is pushed as compact block, by the same model: a fifth of the links have to ask for something, 10 ms to
/// put it together, 100 ms to connect it.
const BLOCK_MODEL: &str = "50 % 0.65 s, 99 % 0.80 s; without anybody asked to push 1.30 s";
/// Transactions of the block that is measured.
const BLOCK_TRANSACTIONS: usize = 400;
/// Nodes of a hundred that lack one of them.
const MISSING_PERCENT: usize = 20;

impl Net {
    /// Gives a node a transaction, and runs until all have it or `patience` ends.
    pub(super) fn spread_tx(&mut self, node: usize, patience: Duration) -> Spread {
        let tx = self.transaction();
        let hash: [u8; 32] = *tx.compute_wtxid().as_ref();
        self.world.watch(hash);
        let (start, all) = (self.world.now, self.world.nodes.len());
        self.world.give_tx(node, tx);
        self.world.run_while(patience, |world| world.sightings(&hash).len() >= all);
        Spread::of(&self.world, &hash, start)
    }

    /// Has a node find a block, and runs until all have it or `patience` ends.
    pub(super) fn spread_block(&mut self, node: usize, patience: Duration) -> Spread {
        let block = self.mine_on(node);
        self.spread_this(node, &block, patience)
    }

    fn spread_this(&mut self, node: usize, block: &Mined, patience: Duration) -> Spread {
        let hash: [u8; 32] = *block.hash.as_ref();
        self.world.watch(hash);
        let (start, all) = (self.world.now, self.world.nodes.len());
        self.world.give_block(node, block);
        self.world.run_while(patience, |world| world.sightings(&hash).len() >= all);
        Spread::of(&self.world, &hash, start)
    }
}

/// A common network that is settled, and what it weighs.
fn settled(options: &Options, plan: Plan, outcome: &mut Outcome) -> Net {
    let before = (options.memory)();
    let mut net = Net::new(options, plan);
    net.wire(0..options.nodes, &[]);
    let part = Part::begin(&net.world, options);
    net.settle();
    let weight = (options.memory)().saturating_sub(before);
    if weight > 0 {
        outcome.fact("memory a node", format!("{:.1} KiB", weight as f64 / 1024.0 / options.nodes as f64));
    }
    let wall = (options.stopwatch)().saturating_sub(part.wall);
    if !wall.is_zero() {
        let inputs = net.world.inputs - part.inputs;
        outcome.fact("handshakes", format!("{inputs} inputs in {:.2} s", wall.as_secs_f64()));
    }
    let ready =
        net.world.nodes.iter().map(|node| node.protocol.peers().filter(|peer| peer.ready).count()).sum::<usize>();
    let expected = options.nodes * 2 * super::build::OUTBOUND.min(options.nodes - 1);
    outcome.expect(ready == expected, || format!("{ready} handshakes done, not {expected}"));
    net
}

pub(super) fn tx(options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    let mut net = settled(options, Plan::default(), &mut outcome);
    let part = Part::begin(&net.world, options);
    let mut spreads = Vec::with_capacity(TX_SAMPLES);
    for _ in 0..TX_SAMPLES {
        let origin = net.some_nodes(1)[0];
        spreads.push(net.spread_tx(origin, PATIENCE));
    }
    outcome.speed(&part, &net.world, options);
    // The rest of the announcements, for the count.
    net.world.run_for(Duration::from_secs(30));
    let traffic = net.world.traffic.since(&part.traffic);
    let (inv, getdata) = (entries(&traffic, Kind::Inv), entries(&traffic, Kind::GetData));
    let a_node = |count: u64| count as f64 / (options.nodes * TX_SAMPLES) as f64;
    let bytes = a_node(36 * (inv + getdata));
    let mean = Spread::mean(&spreads);
    outcome.fact(&format!("a transaction, mean of {TX_SAMPLES}"), mean);
    outcome.fact("model, 10,000 nodes", TX_MODEL);
    outcome.fact(
        "announcements a node",
        format!("{:.2} inv and {:.2} getdata entries, {bytes:.0} bytes", a_node(inv), a_node(getdata)),
    );
    outcome.expect(mean.reached == mean.nodes, || format!("{} of {} nodes reached", mean.reached, mean.nodes));
    (outcome.spread, outcome.announcement_bytes) = (Some(mean), Some(bytes));
    outcome.traffic = Some(traffic);
    outcome.finish(&net.world);
    outcome
}

pub(super) fn block(options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    let mut net = settled(options, Plan::default(), &mut outcome);
    let transactions: Vec<_> = (0..BLOCK_TRANSACTIONS).map(|_| net.transaction()).collect();
    for node in 0..options.nodes {
        let missed = net.rng.random_range(0..BLOCK_TRANSACTIONS * 100 / MISSING_PERCENT);
        let pool = &mut net.world.nodes[node].chain;
        let here = transactions.iter().enumerate().filter(|(at, _)| *at != missed);
        here.for_each(|(_, tx)| pool.put_into_pool(tx));
    }
    // Blocks before: now it is known who gives blocks first, and they are asked to push the next.
    for _ in 0..3 {
        let origin = net.some_nodes(1)[0];
        net.spread_block(origin, PATIENCE);
    }
    let part = Part::begin(&net.world, options);
    let origin = net.some_nodes(1)[0];
    let with: Vec<_> = transactions.iter().map(|tx| (**tx).clone()).collect();
    let tip = net.world.nodes[origin].chain.tip_hash();
    let block = net.miner.mine_with(tip, &with);
    let spread = net.spread_this(origin, &block, PATIENCE);
    outcome.speed(&part, &net.world, options);
    let what = format!("block of {BLOCK_TRANSACTIONS} transactions, {} kB", block.bytes.len() / 1000);
    outcome.fact(&what, spread);
    outcome.fact("model, 10,000 nodes", BLOCK_MODEL);
    outcome.expect(spread.reached == spread.nodes, || format!("{} of {} nodes reached", spread.reached, spread.nodes));
    outcome.spread = Some(spread);
    outcome.traffic = Some(net.world.traffic.since(&part.traffic));
    outcome.check(super::checkers::one_tip(&net.world));
    outcome.finish(&net.world);
    outcome
}

pub(super) fn idle(options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    let mut net = settled(options, Plan::default(), &mut outcome);
    // Past the first minutes, in which pings keep step with the handshakes.
    let part = Part::begin(&net.world, options);
    net.world.run_for(Duration::from_secs(600));
    outcome.speed(&part, &net.world, options);
    outcome.traffic = Some(net.world.traffic.since(&part.traffic));
    outcome.finish(&net.world);
    outcome
}

pub(super) fn load(options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    let mut net = settled(options, Plan::default(), &mut outcome);
    let part = Part::begin(&net.world, options);
    let seconds = 30;
    for _ in 0..seconds * 7 {
        let (tx, node) = (net.transaction(), net.some_nodes(1)[0]);
        net.world.give_tx(node, tx);
        net.world.run_for(Duration::from_micros(1_000_000 / 7));
    }
    outcome.speed(&part, &net.world, options);
    net.world.run_for(Duration::from_secs(60));
    outcome.traffic = Some(net.world.traffic.since(&part.traffic));
    let pools = net.world.nodes.iter().map(|node| node.chain.pool_size()).min().unwrap_or(0);
    outcome.expect(pools == seconds * 7, || format!("a pool has {pools} transactions, not {}", seconds * 7));
    outcome.finish(&net.world);
    outcome
}
