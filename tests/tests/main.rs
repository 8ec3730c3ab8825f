//! The wide tests, one binary. `cargo test --release -p groat-tests NAME` repeats one alone.
#![expect(clippy::unwrap_used, reason = "tests name the rule they check and may panic")]

mod cli;
mod compact;
mod crash;
mod differential;
mod hostile;
mod log;
mod mempool;
mod mining;
mod networks;
mod oracle;
mod peers;
mod relay;
mod rpc;
mod vectors;
mod wallet;
