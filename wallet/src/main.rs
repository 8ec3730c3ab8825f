//! `groat`: the wallet and control command line, to come. Today it only says so.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("Error: the groat wallet is still being written; groatd works (groatd --help)");
    ExitCode::FAILURE
}
