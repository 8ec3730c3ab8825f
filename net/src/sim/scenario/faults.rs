//! Nobody attacks, and things go wrong: the network falls in two, nodes crash, come and go, clocks are wrong.

use std::time::Duration;

use rand::Rng;

use super::build::{Net, Plan};
use super::{Options, Outcome, Part, Spread};
use crate::sim::checkers;

/// After the end of all trouble there must be one tip within this.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

impl Net {
    /// Runs until all have one tip, at most for a minute; how long it took.
    fn agree(&mut self, outcome: &mut Outcome) {
        let start = self.world.now;
        let one = self
            .world
            .run_by_steps(HEALED_WITHIN, Duration::from_millis(100), |world| checkers::one_tip(world).is_ok());
        outcome.fact("one tip after", format!("{:.1} s", self.world.now.since(start).as_secs_f64()));
        if !one {
            outcome.check(checkers::one_tip(&self.world));
        }
    }

    /// A node by chance that runs.
    fn running(&mut self) -> usize {
        loop {
            let pick = self.rng.random_range(0..self.world.nodes.len());
            if self.world.nodes[pick].up {
                return pick;
            }
        }
    }

    /// Has a node find a block, without waiting for it to spread.
    fn find_block(&mut self, node: usize) -> [u8; 32] {
        let block = self.mine_on(node);
        let hash: [u8; 32] = *block.hash.as_ref();
        self.world.watch(hash);
        self.world.give_block(node, &block);
        hash
    }
}

/// Two halves know nothing of each other for six blocks, and find five and six.
pub(super) fn partition(options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    let mut net = Net::new(options, Plan { redial: true, ..Plan::default() });
    net.wire(0..options.nodes, &[]);
    net.settle();
    let part = Part::begin(&net.world, options);
    net.world.divide(|node| (node % 2) as u8);
    for number in 0..6 {
        net.world.run_for(Duration::from_secs(600));
        net.find_block(0);
        if number > 0 {
            net.find_block(1);
        }
    }
    net.world.run_for(Duration::from_secs(60));
    let apart = checkers::one_tip(&net.world);
    outcome.expect(apart.is_err(), || "the halves were not apart".into());
    outcome.fact("before it heals", apart.err().unwrap_or_default());
    net.world.heal();
    net.agree(&mut outcome);
    let height = net.world.nodes[1].chain.height();
    outcome.expect(height as usize == net.chain.len() + 6, || format!("the tip is at height {height}"));
    let origin = net.some_nodes(1)[0];
    let tx = net.spread_tx(origin, Duration::from_secs(120));
    outcome.fact("transaction afterwards", tx);
    outcome.expect(tx.reached == tx.nodes, || format!("a transaction: {tx}"));
    outcome.speed(&part, &net.world, options);
    outcome.traffic = Some(net.world.traffic.since(&part.traffic));
    outcome.finish(&net.world);
    outcome
}

/// Three nodes of ten crash while blocks are on their way, and come up again.
pub(super) fn restart(options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    let mut net = Net::new(options, Plan { redial: true, body: 100_000, ..Plan::default() });
    net.wire(0..options.nodes, &[]);
    net.settle();
    let part = Part::begin(&net.world, options);
    let mut down = Vec::new();
    for victim in net.some_nodes(options.nodes * 3 / 10) {
        // Blocks are found all the time, so that many crash in the middle of one.
        net.world.run_for(Duration::from_millis(30_000 / options.nodes as u64));
        if net.rng.random_range(0..10) == 0 {
            let node = net.running();
            net.find_block(node);
        }
        net.world.crash(victim);
        let lasts = Duration::from_millis(net.rng.random_range(1000..30_000));
        down.push((net.world.now + lasts, victim));
    }
    down.sort_unstable();
    for (at, victim) in down {
        net.world.run_until(at);
        net.world.restart(victim);
    }
    // Two blocks of one height may stand side by side until the next is found.
    let node = net.running();
    net.find_block(node);
    net.agree(&mut outcome);
    let origin = net.some_nodes(1)[0];
    let (tx, block) =
        (net.spread_tx(origin, Duration::from_secs(120)), net.spread_block(origin, Duration::from_secs(60)));
    outcome.fact("transaction afterwards", tx);
    outcome.fact("block afterwards", block);
    outcome.expect(tx.reached == tx.nodes, || format!("a transaction: {tx}"));
    outcome.expect(block.reached == block.nodes, || format!("a block: {block}"));
    outcome.speed(&part, &net.world, options);
    outcome.traffic = Some(net.world.traffic.since(&part.traffic));
    outcome.finish(&net.world);
    outcome
}

/// Each second a node goes, and comes back a minute later, for ten minutes.
pub(super) fn churn(options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    let mut net = Net::new(options, Plan { redial: true, ..Plan::default() });
    net.wire(0..options.nodes, &[]);
    net.settle();
    let part = Part::begin(&net.world, options);
    let mut away = std::collections::VecDeque::new();
    let mut spreads: Vec<Spread> = Vec::new();
    let mut block: Option<([u8; 32], crate::timers::Micros)> = None;
    for second in 0..600u64 {
        net.world.run_for(Duration::from_secs(1));
        if away.len() >= (options.nodes / 4).min(60) {
            let back = away.pop_front().expect("somebody is away");
            net.world.restart(back);
        }
        let victim = net.running();
        net.world.crash(victim);
        away.push_back(victim);
        if second % 60 == 0 {
            spreads.extend(block.map(|(hash, start)| Spread::of(&net.world, &hash, start)));
            let (node, now) = (net.running(), net.world.now);
            block = Some((net.find_block(node), now));
        }
    }
    away.into_iter().for_each(|node| net.world.restart(node));
    let node = net.running();
    net.find_block(node);
    net.agree(&mut outcome);
    outcome.speed(&part, &net.world, options);
    let reached = spreads.iter().map(|spread| spread.reached).min().unwrap_or(0);
    outcome.fact("a block reached at least", format!("{reached} of {} nodes within a minute", options.nodes));
    let half = spreads.iter().map(|spread| spread.half).max().unwrap_or_default();
    outcome.fact("slowest block to half of them", format!("{:.2} s", half.as_secs_f64()));
    let height = net.world.nodes[0].chain.height() as usize;
    outcome.expect(height >= net.chain.len() + 9, || format!("ten blocks were found, the tip is at height {height}"));
    outcome.traffic = Some(net.world.traffic.since(&part.traffic));
    outcome.finish(&net.world);
    outcome
}

/// One clock in five is wrong by up to half an hour, and some are set back while everything runs.
pub(super) fn skew(options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    let mut net = Net::new(options, Plan { redial: true, ..Plan::default() });
    let half_an_hour = 30 * 60 * 1_000_000i64;
    for node in net.some_nodes(options.nodes / 5) {
        net.world.nodes[node].skew = net.rng.random_range(-half_an_hour..=half_an_hour);
    }
    net.wire(0..options.nodes, &[]);
    net.settle();
    let part = Part::begin(&net.world, options);
    for node in net.some_nodes(options.nodes / 10) {
        net.world.nodes[node].skew -= 10 * 60 * 1_000_000;
    }
    let origin = net.some_nodes(1)[0];
    // Who was set back has to live through ten minutes again before its timers come.
    let tx = net.spread_tx(origin, Duration::from_secs(900));
    let block = net.spread_block(origin, Duration::from_secs(60));
    outcome.fact("transaction", tx);
    outcome.fact("block", block);
    outcome.expect(tx.reached == tx.nodes, || format!("a transaction: {tx}"));
    outcome.expect(block.reached == block.nodes, || format!("a block: {block}"));
    net.agree(&mut outcome);
    outcome.speed(&part, &net.world, options);
    outcome.traffic = Some(net.world.traffic.since(&part.traffic));
    outcome.finish(&net.world);
    outcome
}
