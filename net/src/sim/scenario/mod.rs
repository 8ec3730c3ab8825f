//! The scenarios, as values: what is built, who attacks, what is measured, what passes. The same for the tests and for
//! `sim`; docs/SIMULATOR.md lists them.

mod attacks;
mod build;
mod faults;
mod relay;

use std::fmt;
use std::time::Duration;

use super::trace::Traffic;
use super::world::World;
use super::{Share, checkers};
use crate::message::Kind;
use crate::protocol::Policy;
use crate::timers::Micros;

/// What can be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One transaction goes to all nodes.
    Tx,
    /// One block goes to all nodes.
    Block,
    /// Nothing happens.
    Idle,
    /// Seven transactions a second.
    Load,
    /// Announcements of nothing, requests without end, nothing read.
    Flood,
    /// A tenth of the network announces and never delivers.
    Liar,
    /// Peers that hold blocks back while others sync.
    Stall,
    /// Chains of headers without work.
    HeaderSpam,
    /// Half handshakes.
    Slowloris,
    /// The network falls in two for hours, and is made whole.
    Partition,
    /// Nodes crash in the middle of things and come up again.
    Restart,
    /// Nodes come and go all the time.
    Churn,
    /// Clocks go wrong.
    Skew,
}

/// All scenarios with their names.
pub const SCENARIOS: &[(Scenario, &str)] = &[
    (Scenario::Tx, "tx"),
    (Scenario::Block, "block"),
    (Scenario::Idle, "idle"),
    (Scenario::Load, "load"),
    (Scenario::Flood, "flood"),
    (Scenario::Liar, "liar"),
    (Scenario::Stall, "stall"),
    (Scenario::HeaderSpam, "headerspam"),
    (Scenario::Slowloris, "slowloris"),
    (Scenario::Partition, "partition"),
    (Scenario::Restart, "restart"),
    (Scenario::Churn, "churn"),
    (Scenario::Skew, "skew"),
];

/// Where nodes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Places {
    /// Anywhere: latency is drawn evenly from 10 to 150 ms for each link, nothing else slows it.
    #[default]
    Even,
    /// In regions, with the latencies between them, jitter and loss.
    Regions,
}

/// What a run is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Honest nodes.
    pub nodes: usize,
    /// All that is random follows from it.
    pub seed: u64,
    /// Where nodes are.
    pub places: Places,
    /// How nodes ask for transactions.
    pub relay: Policy,
    /// Time that has passed in the real world: only to be printed.
    pub stopwatch: fn() -> Duration,
    /// Bytes that the process holds: only to be printed.
    pub memory: fn() -> usize,
}

impl Options {
    /// So many nodes, without a look at the real world.
    pub fn new(nodes: usize, seed: u64) -> Options {
        Options {
            nodes,
            seed,
            places: Places::default(),
            relay: Policy::Core,
            stopwatch: || Duration::ZERO,
            memory: || 0,
        }
    }
}

/// When the nodes had something, after somebody had it first.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Half of them.
    pub half: Duration,
    /// 90 %.
    pub most: Duration,
    /// 99 %.
    pub nearly_all: Duration,
    /// The last of those who had it.
    pub last: Duration,
    /// How many had it.
    pub reached: usize,
    /// Of so many.
    pub nodes: usize,
}

/// No node had it yet, for a share of the nodes.
const NEVER: Duration = Duration::MAX;

impl Spread {
    /// Of what is watched by this hash, since `start`.
    fn of(world: &World<Share>, hash: &[u8; 32], start: Micros) -> Spread {
        let (seen, nodes) = (world.sightings(hash), world.nodes.len());
        let share = |percent: usize| {
            let at = (nodes * percent).div_ceil(100);
            seen.get(at.saturating_sub(1)).map_or(NEVER, |seen| seen.0.since(start))
        };
        Spread {
            half: share(50),
            most: share(90),
            nearly_all: share(99),
            last: seen.last().map_or(NEVER, |seen| seen.0.since(start)),
            reached: seen.len(),
            nodes,
        }
    }
}

impl Spread {
    /// The mean of some; the worst count of those who had it.
    fn mean(spreads: &[Spread]) -> Spread {
        let count = u32::try_from(spreads.len().max(1)).unwrap_or(u32::MAX);
        let mean = |time: fn(&Spread) -> Duration| {
            let times = spreads.iter().map(time);
            times.fold(Duration::ZERO, Duration::saturating_add) / count
        };
        Spread {
            half: mean(|one| one.half),
            most: mean(|one| one.most),
            nearly_all: mean(|one| one.nearly_all),
            last: mean(|one| one.last),
            reached: spreads.iter().map(|one| one.reached).min().unwrap_or(0),
            nodes: spreads.first().map_or(0, |one| one.nodes),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| match time {
            NEVER => "never".to_owned(),
            time => format!("{:.2} s", time.as_secs_f64()),
        };
        write!(f, "50 % {}, 90 % {}, 99 % {}", seconds(self.half), seconds(self.most), seconds(self.nearly_all))?;
        write!(f, "; {} of {} nodes, the last after {}", self.reached, self.nodes, seconds(self.last))
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was measured, in words.
    pub facts: Vec<(String, String)>,
    /// What must not be and was. None: passed.
    pub failures: Vec<String>,
    /// The number that stands for the run.
    pub trace: u64,
    /// What nodes sent in the part that is measured.
    pub traffic: Option<Traffic>,
    /// The last things that nodes did.
    pub last_steps: Vec<String>,
    /// How a transaction or block spread, if one did.
    pub spread: Option<Spread>,
    /// Bytes of announcements and requests of transactions for each node: 36 an entry.
    pub announcement_bytes: Option<f64>,
}

impl Outcome {
    fn fact(&mut self, name: &str, value: impl fmt::Display) {
        self.facts.push((name.to_owned(), value.to_string()));
    }

    fn check(&mut self, result: Result<(), String>) {
        self.failures.extend(result.err());
    }

    fn expect(&mut self, holds: bool, failure: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(failure());
        }
    }

    /// What must hold at the end of any scenario.
    fn finish(&mut self, world: &World<Share>) {
        self.check(checkers::no_invalid_block(world));
        self.check(checkers::within_bounds(world));
        self.check(checkers::nobody_honest_is_punished(world));
        self.trace = world.trace();
        self.last_steps = world.last_steps().map(ToString::to_string).collect();
    }

    /// Says how fast a part of the run was.
    fn speed(&mut self, part: &Part, world: &World<Share>, options: &Options) {
        let wall = (options.stopwatch)().saturating_sub(part.wall).as_secs_f64();
        if wall > 0.0 {
            let inputs = (world.inputs - part.inputs) as f64;
            let simulated = world.now.since(part.now).as_secs_f64();
            self.fact(
                "inputs a second",
                format!("{:.0} ({inputs} in {wall:.2} s, {simulated:.1} s simulated)", inputs / wall),
            );
            self.fact("node seconds a second", format!("{:.0}", simulated * world.nodes.len() as f64 / wall));
        }
    }
}

/// Where a part of a run began.
struct Part {
    wall: Duration,
    inputs: u64,
    now: Micros,
    traffic: Traffic,
}

impl Part {
    fn begin(world: &World<Share>, options: &Options) -> Part {
        Part { wall: (options.stopwatch)(), inputs: world.inputs, now: world.now, traffic: world.traffic.clone() }
    }
}

/// Entries of `inv` or `getdata`: a message has 25 bytes besides.
fn entries(traffic: &Traffic, kind: Kind) -> u64 {
    let count = traffic.of(kind);
    (count.bytes - 25 * count.messages) / 36
}

impl Scenario {
    /// The scenario of this name.
    pub fn from_name(name: &str) -> Option<Scenario> {
        SCENARIOS.iter().find(|one| one.1 == name).map(|one| one.0)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        SCENARIOS.iter().find(|one| one.0 == self).expect("every scenario is in the list").1
    }

    /// Plays it.
    pub fn run(self, options: &Options) -> Outcome {
        match self {
            Scenario::Tx => relay::tx(options),
            Scenario::Block => relay::block(options),
            Scenario::Idle => relay::idle(options),
            Scenario::Load => relay::load(options),
            Scenario::Flood => attacks::flood(options),
            Scenario::Liar => attacks::liar(options),
            Scenario::Stall => attacks::stall(options),
            Scenario::HeaderSpam => attacks::header_spam(options),
            Scenario::Slowloris => attacks::slowloris(options),
            Scenario::Partition => faults::partition(options),
            Scenario::Restart => faults::restart(options),
            Scenario::Churn => faults::churn(options),
            Scenario::Skew => faults::skew(options),
        }
    }

    /// The command that plays it again.
    pub fn replay(self, options: &Options) -> String {
        let places = if options.places == Places::Regions { " --regions" } else { "" };
        let relay = if options.relay == Policy::Groat { " --relay groat" } else { "" };
        let (name, nodes, seed) = (self.name(), options.nodes, options.seed);
        format!("cargo run --release -p groat-tests --bin sim -- {name} --nodes {nodes} --seed {seed}{places}{relay}")
    }
}
