//! The virtual network: many protocols in one process on one virtual clock. What runs is the shipping code; only
//! sockets, clock and ledger are played. Everything follows from the seeds.

mod body;
mod chain;
#[cfg(test)]
mod tests;
mod world;

pub use chain::{Chain, Mined, Miner};
pub use world::{Link, Node, World};
