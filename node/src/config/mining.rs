//! The options for tests of what miners do. Core's names.

use clap::Args;

/// See [`super::Config`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Mining")]
pub struct Mining {
    /// Version of the blocks made here; only regtest heeds it
    #[arg(long, value_name = "N", hide = true, allow_hyphen_values = true)]
    pub blockversion: Option<i32>,
}
