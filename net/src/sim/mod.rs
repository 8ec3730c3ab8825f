//! The virtual network: many protocols in one process on one virtual clock. What runs is the shipping code; only
//! sockets, clock and ledger are played. Everything follows from the seeds.
//!
//! | module | what it holds |
//! |---|---|
//! | `world`, `queue` | nodes, and what happens next |
//! | `ends`, `link`, `faults` | links, their latency, bandwidth, loss; crashes, partitions, skewed clocks |
//! | `backend`, `chain`, `share`, `real` | ledgers: the trait, a tree of one's own, a share in a common one, the real ledger |
//! | `actors` | those who are no nodes of ours: the trait, and attackers |
//! | `checkers` | what must hold whatever happens |
//! | `inputs` | any inputs in any order, for the fuzzer |
//! | `scenario` | the scenarios: what is built, who attacks, what passes |
//! | `trace` | the number that stands for a run, its last steps, its bytes |

pub mod actors;
mod backend;
mod body;
mod chain;
pub mod checkers;
mod ends;
mod faults;
pub mod inputs;
mod link;
mod queue;
mod real;
pub mod scenario;
mod share;
#[cfg(test)]
mod tests;
mod trace;
mod world;

pub use backend::Backend;
pub use chain::{Chain, Mined, Miner};
pub use link::{Link, RETRANSMISSION, Region};
pub use real::Real;
pub use share::{Commons, Share};
pub use trace::{Count, Record, STEPS_KEPT, Step, Traffic};
pub use world::{Node, World};
