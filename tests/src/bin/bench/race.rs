//! groatd and bitcoind in turn on each generated chain: what both are given, the chains, the table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use groat_tests::chaingen::{Summary, coins, full};

use crate::process::Cost;
use crate::signatures::signature_seconds;

/// What both are given.
#[derive(clap::Args)]
pub struct Race {
    /// The groatd to measure; without it only bitcoind is.
    #[arg(long)]
    pub groatd: Option<PathBuf>,
    /// The bitcoind to measure; without it only groatd is.
    #[arg(long)]
    pub bitcoind: Option<PathBuf>,
    /// Folder for generated chains, kept (remove them when the generator changes), and for the data of each run.
    #[arg(long)]
    pub folder: PathBuf,
    /// Which chains.
    #[arg(long, value_delimiter = ',', default_value = "full,coins")]
    chains: Vec<String>,
    /// Runs of each program on each chain.
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// Blocks of the chain of full blocks.
    #[arg(long, default_value_t = full::Recipe::DEFAULT.blocks)]
    blocks: u32,
    /// Coins of the chain of many coins.
    #[arg(long, default_value_t = coins::Recipe::DEFAULT.coins)]
    coins: u64,
    /// Threads for scripts, given to both.
    #[arg(long, default_value_t = 2)]
    par: u32,
    /// Cache in MiB, given to both.
    #[arg(long, default_value_t = 450)]
    dbcache: u32,
}

/// A generated chain: its folder, and what is known of it.
pub type Chain = (PathBuf, Summary);

impl Race {
    /// Runs each program on each chain, in turn, and prints a table for each chain.
    pub fn run(
        &self,
        mut groatd: impl FnMut(&Path, &Chain) -> Result<Cost>,
        mut bitcoind: impl FnMut(&Path, &Chain) -> Result<Cost>,
    ) -> Result<()> {
        ensure!(self.groatd.is_some() || self.bitcoind.is_some(), "name a groatd or a bitcoind to measure");
        println!("`--par={} --dbcache={}`, medians of {} runs, in turn.", self.par, self.dbcache, self.runs);
        for name in &self.chains {
            let chain = generated(self, name)?;
            let mut costs: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
            for run in 1..=self.runs {
                if let Some(program) = &self.groatd {
                    costs.entry("groatd").or_default().push(groatd(program, &chain)?);
                }
                if let Some(program) = &self.bitcoind {
                    costs.entry("bitcoind").or_default().push(bitcoind(program, &chain)?);
                }
                for (program, costs) in &costs {
                    eprintln!("{name} run {run}: {program} {:?}", costs[run - 1]);
                }
            }
            print(&chain.1, &costs);
        }
        Ok(())
    }

    /// A groatd on regtest with this data folder.
    pub fn groatd(&self, program: &Path, data: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["--chain", "regtest", "--datadir"]).arg(data);
        command.arg("--par").arg(self.par.to_string()).arg("--dbcache").arg(self.dbcache.to_string());
        command
    }

    /// A bitcoind on regtest with this data folder, without the checks of itself that regtest turns on. It ends at the
    /// chain's tip.
    pub fn bitcoind(&self, program: &Path, data: &Path, summary: &Summary) -> Command {
        let mut command = Command::new(program);
        command.arg(format!("-datadir={}", data.display()));
        command.args(["-regtest", "-assumevalid=0", "-checkblockindex=0", "-checkmempool=0"]);
        command.args(["-listen=0", "-server=0", "-debug=bench", "-printtoconsole=0"]);
        command.arg(format!("-par={}", self.par)).arg(format!("-dbcache={}", self.dbcache));
        command.arg(format!("-stopatheight={}", summary.height));
        command
    }

    /// Fails unless the groatd with this data folder stands at the chain's tip with all its coins.
    pub fn check_groatd(&self, program: &Path, data: &Path, summary: &Summary) -> Result<()> {
        let told = self.groatd(program, data).args(["coins", "stats", "--json"]).output()?;
        let told: serde_json::Value =
            serde_json::from_slice(&told.stdout).context("groatd coins stats --json gave no JSON")?;
        let (tip, coins) = (&told["bestblock"], &told["txouts"]);
        ensure!(*tip == summary.tip.as_str(), "groatd ended at {tip}, not at {}", summary.tip);
        ensure!(*coins == summary.utxos, "groatd has {coins} coins, not {}", summary.utxos);
        Ok(())
    }
}

/// Reads and removes the log of a bitcoind that has ended. Fails unless it reached the chain's tip; gives the seconds
/// that it spent looking for BIP30 repeats.
pub fn read_log(data: &Path, summary: &Summary) -> Result<f64> {
    let path = data.join("regtest/debug.log");
    let log = std::fs::read_to_string(&path)?;
    let best = format!("UpdateTip: new best={} ", summary.tip);
    ensure!(log.contains(&best), "bitcoind did not reach {}; the end of its log:\n{}", summary.tip, tail(&log));
    std::fs::remove_file(path)?;
    Ok(fork_checks(&log))
}

fn tail(log: &str) -> &str {
    &log[log.char_indices().rev().nth(2_000).map_or(0, |(place, _)| place)..]
}

/// Sum of the `Fork checks` of all blocks in seconds; nearly all of it is the search for BIP30 repeats.
fn fork_checks(log: &str) -> f64 {
    let milliseconds = |line: &str| line.split_once("- Fork checks: ")?.1.split_once("ms")?.0.parse::<f64>().ok();
    log.lines().filter_map(milliseconds).sum::<f64>() / 1_000.0
}

/// The folder of a generated chain, made now unless it is there already, and its summary.
pub fn generated(arguments: &Race, name: &str) -> Result<(PathBuf, Summary)> {
    let size = match name {
        "full" => u64::from(arguments.blocks),
        "coins" => arguments.coins,
        _ => bail!("there is no chain `{name}`: there are full and coins"),
    };
    let folder = arguments.folder.join(format!("{name}-{size}"));
    if let Ok(summary) = Summary::read(&folder) {
        return Ok((folder, summary));
    }
    eprintln!("generating {}", folder.display());
    let started = Instant::now();
    let summary = if name == "full" {
        full::generate(&full::Recipe { blocks: arguments.blocks, ..full::Recipe::DEFAULT }, &folder)
    } else {
        coins::generate(&coins::Recipe { coins: arguments.coins, ..coins::Recipe::DEFAULT }, &folder)
    }
    .with_context(|| format!("writing {}", folder.display()))?;
    eprintln!("generated in {:.1} s", started.elapsed().as_secs_f64());
    Ok((folder, summary))
}

/// One figure of a run.
type Part = fn(&Cost) -> f64;

fn print(summary: &Summary, costs: &BTreeMap<&str, Vec<Cost>>) {
    println!(
        "\n### The chain `{}`: {} blocks, {} transactions, {} inputs, {} coins at the end, {} MB",
        summary.kind,
        summary.height,
        summary.transactions,
        summary.inputs.values().sum::<u64>(),
        summary.utxos,
        summary.bytes / 1_000_000
    );
    println!("\n| | groatd | bitcoind | ratio | bitcoind less BIP30 | ratio |\n|---|---|---|---|---|---|");
    let median = |program: &str, of: Part| -> Option<f64> {
        let mut values: Vec<f64> = costs.get(program)?.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        Some(values[values.len() / 2])
    };
    let cell = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
    let rows: [(&str, Part, Option<Part>); 5] = [
        ("wall, s", |cost| cost.wall, Some(|cost| cost.wall - cost.bip30)),
        ("CPU, s", |cost| cost.cpu, Some(|cost| cost.cpu - cost.bip30)),
        ("CPU of the server, s", |cost| cost.server, None),
        ("peak memory, MiB", |cost| cost.memory, None),
        ("disk, MiB", |cost| cost.disk, None),
    ];
    for (name, of, less) in rows {
        let (groatd, bitcoind) = (median("groatd", of), median("bitcoind", of));
        if groatd.or(bitcoind) == Some(0.0) {
            // Nobody served.
            continue;
        }
        let less = less.and_then(|less| median("bitcoind", less));
        let ratio = |other: Option<f64>| Some(groatd? / other?);
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            cell(groatd, 1),
            cell(bitcoind, 1),
            cell(ratio(bitcoind), 2),
            cell(less, 1),
            cell(ratio(less), 2)
        );
    }
    if summary.ecdsa_checks + summary.schnorr_checks > 0 {
        let pure = signature_seconds(summary);
        println!(
            "\nPure libsecp256k1: {} ECDSA and {} Schnorr checks and {} taproot tweaks take {pure:.1} s of CPU on one \
             core; groatd's CPU is {} times that, bitcoind's {} times.",
            summary.ecdsa_checks,
            summary.schnorr_checks,
            summary.taproot_tweaks,
            cell(median("groatd", |cost| cost.cpu).map(|cpu| cpu / pure), 2),
            cell(median("bitcoind", |cost| cost.cpu).map(|cpu| cpu / pure), 2)
        );
    }
}
