//! The consensus rules by stage.

pub mod branch;
