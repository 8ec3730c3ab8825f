//! Groat against the oracles: the same input, the same verdict.

mod blocks;
mod generated;
mod judge;
mod random;
mod script;
mod signet;
mod trees;

/// A number from the environment, for longer runs and other cases.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}
