//! The consensus rules by stage.

pub mod branch;
pub mod deployment;
pub mod header;
pub mod pow;
mod wide;
