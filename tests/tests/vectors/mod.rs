//! Published vectors and real blocks.

mod blocks;
mod headers;
mod script;
mod taproot;

use groat_chain::params::Params;
use std::path::Path;

/// Reads a file of the data.
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the name of a file of the data says: itself, the network it begins with, and the numbers in it.
fn network_and_numbers(path: &Path) -> (String, Params, Vec<u32>) {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    let stem = name.split('.').next().unwrap_or_default();
    let mut parts = stem.split('-');
    let network = match parts.next() {
        Some("mainnet") => "main",
        Some(other) => other,
        None => panic!("{name} names no network"),
    };
    let params = Params::by_name(network).unwrap_or_else(|| panic!("{name} names no network"));
    let numbers = parts.filter_map(|part| part.parse().ok()).collect();
    (name, params, numbers)
}
