//! `sim SCENARIO --nodes N --seed S`: plays a scenario of the virtual network and prints what came of it. Ends with 1
//! and the command that repeats it when something must not be and was.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clap::Parser;
use groat_net::protocol::Policy;
use groat_net::sim::scenario::{Options, Outcome, Places, SCENARIOS, Scenario};

/// Plays a scenario of the virtual network.
#[derive(Parser)]
struct Arguments {
    /// tx, block, idle, load; flood, liar, stall, headerspam, slowloris; partition, restart, churn, skew; or all.
    #[arg(value_parser = scenarios)]
    scenario: Choice,
    /// Honest nodes.
    #[arg(long, default_value_t = 200)]
    nodes: usize,
    /// All that is random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Put nodes into regions: latencies between them, jitter, loss. Otherwise latency is drawn evenly from 10 to 150 ms.
    #[arg(long)]
    regions: bool,
    /// How nodes ask for transactions: with Core's timers, or the next peer soon.
    #[arg(long, value_parser = ["core", "groat"], default_value = "core")]
    relay: String,
}

#[derive(Clone)]
struct Choice(Vec<Scenario>);

fn scenarios(name: &str) -> Result<Choice, String> {
    match Scenario::from_name(name) {
        Some(scenario) => Ok(Choice(vec![scenario])),
        None if name == "all" => Ok(Choice(SCENARIOS.iter().map(|one| one.0).collect())),
        None => {
            let names: Vec<&str> = SCENARIOS.iter().map(|one| one.1).collect();
            Err(format!("the scenarios are {} and all", names.join(", ")))
        }
    }
}

/// Processor time of this thread where the system tells it: other processes must not count. Else the time of day.
fn stopwatch() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = told.and_then(|text| text.split_whitespace().next()?.parse().ok()).map(Duration::from_nanos);
    spent.unwrap_or_else(|| START.get_or_init(Instant::now).elapsed())
}

/// Bytes that the process has in memory; 0 where nobody can say.
fn memory() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn print(scenario: Scenario, options: &Options, outcome: &Outcome) {
    println!("{}: {} nodes, seed {}", scenario.name(), options.nodes, options.seed);
    for (name, value) in &outcome.facts {
        println!("  {name}: {value}");
    }
    if let Some(traffic) = &outcome.traffic {
        let total = traffic.total();
        println!("  {:12} {:>12} {:>16} {:>14}", "sent", "messages", "bytes", "bytes a node");
        for (name, count) in traffic.kinds().into_iter().chain([("all", total)]) {
            let share = count.bytes / options.nodes as u64;
            println!("  {name:12} {:>12} {:>16} {share:>14}", count.messages, count.bytes);
        }
    }
    println!("  trace: {:016x}", outcome.trace);
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let places = if arguments.regions { Places::Regions } else { Places::Even };
    let relay = if arguments.relay == "groat" { Policy::Groat } else { Policy::Core };
    // Of several runs in one process the first leaves its memory to the others: then it says nothing.
    let memory = if arguments.scenario.0.len() == 1 { memory } else { || 0 };
    let options = Options { nodes: arguments.nodes, seed: arguments.seed, places, relay, stopwatch, memory };
    if options.nodes < 20 {
        eprintln!("sim: a network has at least 20 nodes");
        return ExitCode::from(2);
    }
    let mut code = ExitCode::SUCCESS;
    for scenario in arguments.scenario.0 {
        let outcome = scenario.run(&options);
        print(scenario, &options, &outcome);
        if outcome.failures.is_empty() {
            println!("  passed");
            continue;
        }
        code = ExitCode::FAILURE;
        println!("  the last steps:");
        outcome.last_steps.iter().for_each(|step| println!("    {step}"));
        outcome.failures.iter().for_each(|failure| println!("  FAILED: {failure}"));
        println!("  again: {}", scenario.replay(&options));
    }
    code
}
