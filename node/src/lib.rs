//! The `groatd` full node as a library: wires the ledger to files, the terminal and (later) to peers and RPC.
//! Holds no consensus rule and no wire byte.

pub mod chainstate;
pub mod config;
pub mod import;
pub mod progress;
pub mod run;
