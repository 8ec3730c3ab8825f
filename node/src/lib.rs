//! The `groatd` full node as a library: wires the ledger to files, peers and the terminal.
//! Holds no consensus rule and no wire byte.

/// Prints a line for people, as `std::println` does, where a command is run. Standard output may be gone: a closed terminal,
/// a full disk. Work goes on without it; a command whose output is its result takes `std::println`, and a node logs.
macro_rules! println {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

pub mod bottleneck;
pub mod chainstate;
pub mod clock;
pub mod config;
pub mod events;
pub mod handle;
pub mod hub;
pub mod import;
pub mod ledger;
pub mod log;
pub mod memory;
pub mod miner;
pub mod network;
pub mod node;
mod notify;
pub mod offline;
pub mod persist;
mod portmap;
mod process;
pub mod progress;
pub mod requests;
pub mod rpc;
pub mod run;
mod systemd;
pub mod tor;
pub mod transactions;
pub mod view;
pub mod warnings;
pub mod zmq;

/// What `groatd --version` prints after its name: the version and the commit it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("GROAT_COMMIT"), ")");
