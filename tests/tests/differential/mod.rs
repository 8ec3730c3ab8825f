//! Groat against the oracles: the same input, the same verdict.

mod blocks;
mod generated;
mod script;
