//! The `groatd` full node as a library: wires the ledger to files, peers and the terminal.
//! Holds no consensus rule and no wire byte.

pub mod chainstate;
pub mod clock;
pub mod config;
pub mod handle;
pub mod hub;
pub mod import;
pub mod ledger;
pub mod memory;
pub mod miner;
pub mod network;
pub mod node;
pub mod offline;
pub mod persist;
mod portmap;
pub mod progress;
pub mod rpc;
pub mod run;
pub mod tor;
pub mod transactions;
pub mod view;

/// What `groatd --version` prints after its name: the version and the commit it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("GROAT_COMMIT"), ")");
