//! The wide tests, one binary. `cargo test --release -p groat-tests NAME` repeats one alone.
#![expect(clippy::unwrap_used, reason = "tests name the rule they check and may panic")]

mod cli;
mod compact;
mod config;
mod crash;
mod differential;
mod end_to_end;
mod events;
mod hostile;
mod http;
mod index;
mod log;
mod mempool;
mod mining;
mod networks;
mod oracle;
mod own_network;
mod peers;
mod relay;
mod rpc;
mod rpc_chain;
mod rpc_keys;
mod shapes;
mod status;
mod structure;
mod vectors;
mod wallet;
mod wallet_disk;
mod wallet_json;
mod wallet_safety;
mod wallet_terminal;
