//! The options about the process and its files, and those that tests set. Core's names.

use std::path::PathBuf;

use anyhow::bail;
use clap::ArgAction::Set;
use clap::Args;
use groat_net::message::MAX_SUBVERSION_LENGTH;

use super::flag;

/// See [`super::Config`].
#[derive(Debug, Args)]
pub struct Start {
    /// Configuration file, in the data folder if it is no whole path [default: groat.conf, else bitcoin.conf]; 0: none
    #[arg(long, value_name = "FILE")]
    pub conf: Option<PathBuf>,
    /// Folder of the block files, if they shall not lie beside the rest
    #[arg(long, value_name = "DIR")]
    pub blocksdir: Option<PathBuf>,
    /// Import the blocks of this file first; may be repeated
    #[arg(long, value_name = "FILE")]
    pub loadblock: Vec<PathBuf>,
    /// Stop once the blocks of --reindex and --loadblock are connected
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "0")]
    pub stopafterblockimport: bool,
    /// Write the number of the process into this file, in the chain's folder if it is no whole path
    #[arg(long, value_name = "FILE")]
    pub pid: Option<PathBuf>,
    /// Go on in the background, once the data folder is locked
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "0")]
    pub daemon: bool,
    /// As --daemon
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "0", hide = true)]
    pub daemonwait: bool,
    /// Stop when standard input ends, as it does when whoever holds its other end does
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "0", hide = true)]
    pub stopateof: bool,
    /// Check this many of the last blocks and all that they left at the start; 0: the whole chain [default: none]
    #[arg(long, value_name = "N")]
    pub checkblocks: Option<u32>,
    /// Stop at this height; 0: go on
    #[arg(long, value_name = "HEIGHT", default_value_t = 0)]
    pub stopatheight: u32,
    /// Do not believe a chain of less work [default: the network's]
    #[arg(long, value_name = "HEX", hide = true)]
    pub minimumchainwork: Option<String>,
    /// Seconds that the tip may be old for the node to be in sync
    #[arg(long, value_name = "SECONDS", default_value_t = 24 * 60 * 60, hide = true)]
    pub maxtipage: u64,
    /// Small block files, and few blocks that are never pruned (regtest)
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "0", hide = true)]
    pub fastprune: bool,
    /// The time to take for now, in seconds since 1970; 0: the clock's
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide = true)]
    pub mocktime: u32,
    /// Words for peers behind the node's name (BIP14); may be repeated
    #[arg(long, value_name = "TEXT")]
    pub uacomment: Vec<String>,
}

impl Start {
    /// Whether to go on in the background.
    pub fn in_background(&self) -> bool {
        self.daemon || self.daemonwait
    }
}

/// How the node names itself to peers (BIP14), with Core's bounds on the comments.
pub fn user_agent(comments: &[String]) -> anyhow::Result<String> {
    // Core: `SAFE_CHARS_UA_COMMENT`.
    let safe = |letter: char| letter.is_ascii_alphanumeric() || " .,;-_?@".contains(letter);
    if let Some(comment) = comments.iter().find(|comment| !comment.chars().all(safe)) {
        bail!("User Agent comment ({comment}) contains unsafe characters.");
    }
    let joined = comments.join("; ");
    let brackets = if joined.is_empty() { joined } else { format!("({joined})") };
    let name = format!("/Groat:{}{brackets}/", env!("CARGO_PKG_VERSION"));
    if name.len() > MAX_SUBVERSION_LENGTH {
        bail!(
            "Total length of network version string ({}) exceeds maximum length ({MAX_SUBVERSION_LENGTH}). \
             Reduce the number or size of uacomments.",
            name.len()
        );
    }
    Ok(name)
}
