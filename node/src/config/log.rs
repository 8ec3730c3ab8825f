//! Options about the log.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::ArgAction::Set;
use clap::Args;

use super::flag;
use crate::log::{self, Style};

/// What is told, and where.
#[derive(Args, Debug)]
#[command(next_help_heading = "Log")]
pub struct Log {
    /// Tell of this topic, too: net, tor, mempoolrej, validation, ...; without a name or with 1: of all; may be repeated
    #[arg(long, value_name = "TOPIC", num_args = 0..=1, default_missing_value = "1")]
    pub debug: Vec<String>,
    /// And not of this one; may be repeated
    #[arg(long, value_name = "TOPIC", num_args = 0..=1, default_missing_value = "1")]
    pub debugexclude: Vec<String>,
    /// File for the log, from the folder of the network on; 0: none
    #[arg(long, value_name = "FILE", default_value = "debug.log")]
    pub debuglogfile: PathBuf,
    /// Print the log to standard output, too
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "1")]
    pub printtoconsole: bool,
    /// Put a log of more than 64 MiB aside as debug.log.1 and begin a new one
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "1")]
    pub shrinkdebugfile: bool,
    /// Begin each line with the time
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "1")]
    pub logtimestamps: bool,
    /// Times with microseconds
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "0")]
    pub logtimemicros: bool,
    /// Lines with the name of the thread
    #[arg(long, value_name = "0|1", value_parser = flag, action = Set, default_value = "0")]
    pub logthreadnames: bool,
    /// text, or json: each line is an object
    #[arg(long, value_name = "text|json", value_parser = ["text", "json"], default_value = "text")]
    pub log_format: String,
}

impl Log {
    /// Begins to log; the file is opened later, by [`Log::open`].
    pub fn begin(&self) -> anyhow::Result<()> {
        let json = self.log_format == "json";
        let (times, micros, threads) = (self.logtimestamps, self.logtimemicros, self.logthreadnames);
        log::begin(Style { console: self.printtoconsole, times, micros, threads, json });
        for (option, topics, wanted) in [("-debug", &self.debug, true), ("-debugexclude", &self.debugexclude, false)] {
            // Core: 0 and none take back what stands before them.
            let counted = topics.iter().rposition(|topic| topic == "0" || topic == "none").map_or(0, |last| last + 1);
            for topic in &topics[counted..] {
                // Core's words.
                log::want(topic, wanted).map_err(|_| anyhow!("Unsupported logging category {option}={topic}."))?;
            }
        }
        Ok(())
    }

    /// Opens the file in the folder of the network, if there is to be one.
    pub fn open(&self, folder: &std::path::Path) -> anyhow::Result<()> {
        if self.debuglogfile.as_os_str() == "0" {
            log::without_file();
            return Ok(());
        }
        let path = folder.join(&self.debuglogfile);
        // Core's words.
        log::open(&path, self.shrinkdebugfile).map_err(|_| anyhow!("Could not open debug log file {}", path.display()))
    }
}
