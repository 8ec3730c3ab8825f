//! What the wide tests and the benches share. Holds no test of its own.

pub mod asm;
pub mod bitcoind;
pub mod chaingen;
pub mod data;
pub mod fuzz_script;
pub mod groatd;
pub mod mutants;
pub mod peer;
pub mod provider;
pub mod regtest;
pub mod running;
pub mod spends;
pub mod swarm;
