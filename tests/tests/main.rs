//! The wide tests, one binary. `cargo test --release -p groat-tests NAME` repeats one alone.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod cli;
mod crash;
mod differential;
mod oracle;
mod vectors;
