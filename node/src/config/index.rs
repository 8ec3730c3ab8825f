//! The options about indexes. Core's names, defaults and refusals.

use anyhow::bail;
use clap::Args;
use groat_chain::index::Index;

use super::flag;

/// See [`super::Config`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Indexes")]
pub struct Indexes {
    /// Index all transactions, for getrawtransaction
    #[arg(long, value_name = "0|1", value_parser = flag, default_value = "0", action = clap::ArgAction::Set)]
    pub txindex: bool,
    /// Index who spends each output, for gettxspendingprevout
    #[arg(long, value_name = "0|1", value_parser = flag, default_value = "0", action = clap::ArgAction::Set)]
    pub txospenderindex: bool,
    /// Keep compact filters of all blocks (BIP158): basic, 1 for all types, 0 for none
    #[arg(long, value_name = "TYPE", num_args = 0..=1, default_missing_value = "1", require_equals = true)]
    pub blockfilterindex: Vec<String>,
    /// Keep the totals of all coins as of each block, for gettxoutsetinfo
    #[arg(long, value_name = "0|1", value_parser = flag, default_value = "0", action = clap::ArgAction::Set)]
    pub coinstatsindex: bool,
    /// Serve the filters of --blockfilterindex to peers (BIP157)
    #[arg(long, value_name = "0|1", value_parser = flag, default_value = "0", action = clap::ArgAction::Set)]
    pub peerblockfilters: bool,
}

impl Indexes {
    /// The indexes to keep, in the order in which `getindexinfo` lists them. `prunes`: old blocks are deleted.
    pub fn wanted(&self, prunes: bool) -> anyhow::Result<Vec<Index>> {
        let filters = self.wants_filters()?;
        if self.peerblockfilters && !filters {
            bail!("Cannot set -peerblockfilters without -blockfilterindex.");
        }
        if prunes && self.txindex {
            bail!("Prune mode is incompatible with -txindex.");
        }
        if prunes && self.txospenderindex {
            bail!("Prune mode is incompatible with -txospenderindex.");
        }
        let all = [
            (Index::Transactions, self.txindex),
            (Index::CoinStats, self.coinstatsindex),
            (Index::Spenders, self.txospenderindex),
            (Index::Filters, filters),
        ];
        Ok(all.into_iter().filter(|(_, wanted)| *wanted).map(|(index, _)| index).collect())
    }

    /// As in Core a value that is no type counts if it is the last one.
    fn wants_filters(&self) -> anyhow::Result<bool> {
        match self.blockfilterindex.last().map(String::as_str) {
            None | Some("0") => return Ok(false),
            Some("" | "1") => return Ok(true),
            Some(_) => {}
        }
        match self.blockfilterindex.iter().find(|name| *name != "basic") {
            Some(unknown) => bail!("Unknown -blockfilterindex value {unknown}."),
            None => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn options_that_contradict_each_other_are_refused_in_cores_words() {
        let wanted = |arguments: &[&str]| {
            let words = ["groatd", "--noconf"].iter().chain(arguments).map(Into::into);
            let config = Config::read(words, |_| None).expect("options that are known").config;
            config.indexes.wanted(config.prune > 0).map_err(|error| error.to_string())
        };
        let all = vec![Index::Transactions, Index::CoinStats, Index::Spenders, Index::Filters];
        for (arguments, expected) in [
            (&[][..], Ok(vec![])),
            (
                &["--txindex", "--txospenderindex", "--coinstatsindex", "--blockfilterindex", "--peerblockfilters"],
                Ok(all),
            ),
            (&["--blockfilterindex=basic", "--prune=550", "--coinstatsindex=0"], Ok(vec![Index::Filters])),
            (&["--blockfilterindex=basic", "--blockfilterindex=0"], Ok(vec![])),
            (&["--blockfilterindex=abc"], Err("Unknown -blockfilterindex value abc.")),
            (&["--peerblockfilters"], Err("Cannot set -peerblockfilters without -blockfilterindex.")),
            (&["--prune=550", "--txindex"], Err("Prune mode is incompatible with -txindex.")),
            (&["--prune=550", "--txospenderindex"], Err("Prune mode is incompatible with -txospenderindex.")),
        ] {
            assert_eq!(wanted(arguments), expected.map_err(String::from), "{arguments:?}");
        }
    }
}
