//! What the wide tests and the benches share. Holds no test of its own.

pub mod asm;
pub mod data;
pub mod fuzz_script;
pub mod spends;
