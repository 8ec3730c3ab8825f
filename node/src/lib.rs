//! The `groatd` full node as a library: wires the ledger to files, peers and the terminal.
//! Holds no consensus rule and no wire byte.
//!
//! The map, from the ground up (each imports only what stands above it):
//!
//! | module | what it holds |
//! |---|---|
//! | `clock`, `log`, `process`, `systemd`, `progress` | time, lines for people, threads, the service manager |
//! | `requests` | what the ledger thread is asked, in which order it answers, what it tells |
//! | `bottleneck` | what the ledger's time goes into |
//! | `events`, `zmq`, `notify` | what happens, in order; told by ZeroMQ; told by commands |
//! | `warnings` | what the operator should know of |
//! | `transactions`, `ledger` | the ledger thread: the mempool's part, the rest |
//! | `memory`, `view`, `hub` | the hub thread: what it writes down, what the protocol reads, the protocol run |
//! | `tor`, `portmap` | ways for peers to us |
//! | `handle` | what interfaces hold of all that |
//! | `import` | blocks from files |
//! | `persist`, [`miner`] | the mempool between two runs; mining |
//! | [`config`] | options |
//! | [`rpc`] | JSON-RPC, REST, metrics |
//! | `chainstate`, `network` | options become a ledger, and links |
//! | `node`, [`offline`], [`run`] | a node that runs; one without peers; the program |

/// Prints a line for people, as `std::println` does, where a command is run. Standard output may be gone: a closed terminal,
/// a full disk. Work goes on without it; a command whose output is its result takes `std::println`, and a node logs.
macro_rules! println {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

mod bottleneck;
mod chainstate;
mod clock;
pub mod config;
mod events;
mod handle;
mod hub;
mod import;
mod ledger;
mod log;
mod memory;
pub mod miner;
mod network;
mod node;
mod notify;
pub mod offline;
mod persist;
mod portmap;
mod process;
mod progress;
mod requests;
pub mod rpc;
pub mod run;
mod systemd;
mod tor;
mod transactions;
mod view;
mod warnings;
mod zmq;

/// What `groatd --version` prints after its name: the version and the commit it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("GROAT_COMMIT"), ")");
