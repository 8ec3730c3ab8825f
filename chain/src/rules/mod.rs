//! The consensus rules by stage, each file by what it may see. No rule does IO, blocks, logs or sees a clock.
//! Every rule, with its reason, its source and its test: `docs/RULES.md`.
//!
//! | stage | in execution order | sees |
//! |---|---|---|
//! | [`header`] | `check_header`, `contextual_check_header` | a header; its branch |
//! | [`pow`] | targets, the next target, work | headers |
//! | [`block`] | `check_block` ([`signet`], [`merkle`], [`transaction`]), `contextual_check_block` | a body; its branch |
//! | [`connect`] | `connect_block` ([`inputs`], [`sigops`]) | a body, its branch and the coins it spends |
//! | [`deployment`] | which rules hold at a height, version bits | heights, headers |
//!
//! A [`branch::Branch`] is all that a rule may ask of the past.

pub mod block;
pub mod branch;
pub mod commitment;
pub mod connect;
pub mod deployment;
pub mod header;
pub mod inputs;
pub mod limits;
pub mod merkle;
pub mod pow;
pub mod signet;
pub mod sigops;
pub mod transaction;
mod wide;

#[cfg(test)]
mod tests;
