//! `bench import`: times groatd and bitcoind importing the generated chains, side by side, and prints the table that
//! docs/PERFORMANCE.md keeps. Runs nothing else at the same time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use groat_tests::chaingen::{Summary, block_files, coins, full};
use secp256k1::{Keypair, Message, PublicKey, Scalar, Secp256k1, SecretKey, XOnlyPublicKey, ecdsa, schnorr};

/// Benches of the whole program.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Imports each generated chain into groatd and into bitcoind, in turn.
    Import(Import),
}

#[derive(clap::Args)]
struct Import {
    /// The groatd to measure; without it only bitcoind is.
    #[arg(long)]
    groatd: Option<PathBuf>,
    /// The bitcoind to measure; without it only groatd is.
    #[arg(long)]
    bitcoind: Option<PathBuf>,
    /// Folder for generated chains, kept (remove them when the generator changes), and for the data of each run.
    #[arg(long)]
    folder: PathBuf,
    /// Which chains.
    #[arg(long, value_delimiter = ',', default_value = "full,coins")]
    chains: Vec<String>,
    /// Runs of each program on each chain.
    #[arg(long, default_value_t = 3)]
    runs: usize,
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

/// What one run took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Seconds by the clock.
    wall: f64,
    /// Seconds of processor, user and system.
    cpu: f64,
    /// Most resident memory, in MiB.
    memory: f64,
    /// Data folder at the end, in MiB.
    disk: f64,
    /// Seconds that bitcoind spent looking for BIP30 repeats, by the clock: taken off the processor's seconds too, which
    /// is right only while nothing else runs.
    bip30: f64,
}

fn main() -> Result<()> {
    match Arguments::parse().bench {
        Bench::Import(arguments) => import(&arguments),
    }
}

fn import(arguments: &Import) -> Result<()> {
    ensure!(arguments.groatd.is_some() || arguments.bitcoind.is_some(), "name a groatd or a bitcoind to measure");
    println!("`--par={} --dbcache={}`, medians of {} runs, in turn.", arguments.par, arguments.dbcache, arguments.runs);
    for name in &arguments.chains {
        let (chain, summary) = generated(arguments, name)?;
        let mut costs: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
        for run in 1..=arguments.runs {
            if let Some(groatd) = &arguments.groatd {
                costs.entry("groatd").or_default().push(run_groatd(arguments, groatd, &chain, &summary)?);
            }
            if let Some(bitcoind) = &arguments.bitcoind {
                costs.entry("bitcoind").or_default().push(run_bitcoind(arguments, bitcoind, &chain, &summary)?);
            }
            for (program, costs) in &costs {
                eprintln!("{name} run {run}: {program} {:?}", costs[run - 1]);
            }
        }
        print(&summary, &costs);
    }
    Ok(())
}

/// The folder of a generated chain, made now unless it is there already, and its summary.
fn generated(arguments: &Import, name: &str) -> Result<(PathBuf, Summary)> {
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

fn run_groatd(arguments: &Import, groatd: &Path, chain: &Path, summary: &Summary) -> Result<Cost> {
    let data = tempfile::tempdir_in(&arguments.folder)?;
    let general = |command: &mut Command| {
        command.args(["--chain", "regtest", "--datadir"]).arg(data.path());
        command.arg("--par").arg(arguments.par.to_string()).arg("--dbcache").arg(arguments.dbcache.to_string());
    };
    let mut command = Command::new(groatd);
    general(&mut command);
    command.args(["--assumevalid=0", "import"]).args(block_files(chain));
    let mut cost = measure(&mut command)?;
    cost.disk = disk(data.path())?;
    let mut command = Command::new(groatd);
    general(&mut command);
    let told = command.args(["coins", "stats", "--json"]).output()?;
    let told: serde_json::Value =
        serde_json::from_slice(&told.stdout).context("groatd coins stats --json gave no JSON")?;
    ensure!(told["bestblock"] == summary.tip.as_str(), "groatd ended at {}, not at {}", told["bestblock"], summary.tip);
    ensure!(told["txouts"] == summary.utxos, "groatd has {} coins, not {}", told["txouts"], summary.utxos);
    Ok(cost)
}

fn run_bitcoind(arguments: &Import, bitcoind: &Path, chain: &Path, summary: &Summary) -> Result<Cost> {
    let data = tempfile::tempdir_in(&arguments.folder)?;
    let blocks = data.path().join("regtest/blocks");
    std::fs::create_dir_all(&blocks)?;
    for file in block_files(chain) {
        std::fs::copy(&file, blocks.join(file.file_name().context("a block file has a name")?))?;
    }
    let mut command = Command::new(bitcoind);
    command.arg(format!("-datadir={}", data.path().display()));
    command.args(["-regtest", "-reindex", "-assumevalid=0", "-checkblockindex=0", "-checkmempool=0", "-blocksxor=0"]);
    command.args(["-connect=0", "-listen=0", "-server=0", "-debug=bench", "-printtoconsole=0"]);
    command.arg(format!("-par={}", arguments.par)).arg(format!("-dbcache={}", arguments.dbcache));
    command.arg(format!("-stopatheight={}", summary.height));
    let mut cost = measure(&mut command)?;
    let log = std::fs::read_to_string(data.path().join("regtest/debug.log"))?;
    let best = format!("UpdateTip: new best={} ", summary.tip);
    ensure!(log.contains(&best), "bitcoind did not reach {}; the end of its log:\n{}", summary.tip, tail(&log));
    cost.bip30 = fork_checks(&log);
    std::fs::remove_file(data.path().join("regtest/debug.log"))?;
    cost.disk = disk(data.path())?;
    Ok(cost)
}

fn tail(log: &str) -> &str {
    &log[log.char_indices().rev().nth(2_000).map_or(0, |(place, _)| place)..]
}

/// Sum of the `Fork checks` of all blocks in seconds; nearly all of it is the search for BIP30 repeats.
fn fork_checks(log: &str) -> f64 {
    let milliseconds = |line: &str| line.split_once("- Fork checks: ")?.1.split_once("ms")?.0.parse::<f64>().ok();
    log.lines().filter_map(milliseconds).sum::<f64>() / 1_000.0
}

/// Runs a program to its end and tells what it took, all but the disk.
fn measure(command: &mut Command) -> Result<Cost> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let (cpu, memory) = watch(&child)?;
    let wall = started.elapsed().as_secs_f64();
    let status = child.wait()?;
    ensure!(status.success(), "{} ended with {status}", command.get_program().display());
    Ok(Cost { wall, cpu, memory, disk: 0.0, bip30: 0.0 })
}

/// Waits for the end of a child without reaping it: only then does /proc hold all of its processor time. Gives
/// seconds of processor and MiB of memory at the highest.
fn watch(child: &Child) -> Result<(f64, f64)> {
    let mut memory = 0.0_f64;
    loop {
        let (ended, cpu) = process(&child.id().to_string())?;
        if ended {
            return Ok((cpu, memory));
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        memory = memory.max(peak.unwrap_or(0.0) / 1024.0);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process (its number, or `self`) has ended, and its seconds of processor so far.
fn process(id: &str) -> Result<(bool, f64)> {
    /// `USER_HZ`, the unit of times in /proc on every Linux of today.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The fields after the name, which is in brackets: state is field 3, utime 14, stime 15.
    let fields: Vec<&str> = stat.rsplit_once(')').context("/proc stat has a name")?.1.split_whitespace().collect();
    let ticks = |place: usize| fields[place].parse::<f64>();
    Ok((fields[0] == "Z", (ticks(11)? + ticks(12)?) / TICKS))
}

/// MiB that the files below a folder take on the disk.
fn disk(folder: &Path) -> Result<f64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0.0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() { disk(&entry.path())? } else { meta.blocks() as f64 * 512.0 / 1_048_576.0 };
    }
    Ok(sum)
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
    let rows: [(&str, Part, Option<Part>); 4] = [
        ("wall, s", |cost| cost.wall, Some(|cost| cost.wall - cost.bip30)),
        ("CPU, s", |cost| cost.cpu, Some(|cost| cost.cpu - cost.bip30)),
        ("peak memory, MiB", |cost| cost.memory, None),
        ("disk, MiB", |cost| cost.disk, None),
    ];
    for (name, of, less) in rows {
        let (groatd, bitcoind) = (median("groatd", of), median("bitcoind", of));
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

/// Seconds of processor that libsecp256k1 alone takes for the checks of a chain, parsing of keys and signatures included: a sample
/// of each kind, scaled.
fn signature_seconds(summary: &Summary) -> f64 {
    const DIFFERENT: usize = 500;
    const ROUNDS: usize = 100;
    let secp = Secp256k1::new();
    let keys: Vec<Keypair> = (1..=DIFFERENT as u64)
        .map(|number| {
            let mut bytes = [0x5a; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            Keypair::from_secret_key(&secp, &SecretKey::from_slice(&bytes).expect("the number is below the order"))
        })
        .collect();
    let message = |index: usize| Message::from_digest([(index % 251) as u8; 32]);
    let ecdsa: Vec<([u8; 33], Vec<u8>)> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let signature = secp.sign_ecdsa(&message(index), &key.secret_key());
            (key.public_key().serialize(), signature.serialize_der().to_vec())
        })
        .collect();
    let schnorr: Vec<([u8; 32], [u8; 64])> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let signature = secp.sign_schnorr_no_aux_rand(&message(index), key);
            (key.x_only_public_key().0.serialize(), signature.serialize())
        })
        .collect();
    let own = || process("self").expect("/proc tells of this process").1;
    let seconds_each = |check: &dyn Fn(usize)| {
        let before = own();
        (0..ROUNDS).for_each(|_| (0..DIFFERENT).for_each(check));
        (own() - before) / (ROUNDS * DIFFERENT) as f64
    };
    let one_ecdsa = seconds_each(&|index| {
        let key = PublicKey::from_slice(&ecdsa[index].0).expect("the key was serialized");
        let mut signature = ecdsa::Signature::from_der_lax(&ecdsa[index].1).expect("the signature was serialized");
        signature.normalize_s();
        secp.verify_ecdsa(&message(index), &signature, &key).expect("the signature fits");
    });
    let one_schnorr = seconds_each(&|index| {
        let key = XOnlyPublicKey::from_slice(&schnorr[index].0).expect("the key was serialized");
        let signature = schnorr::Signature::from_slice(&schnorr[index].1).expect("the signature was serialized");
        secp.verify_schnorr(&signature, &message(index), &key).expect("the signature fits");
    });
    let tweak = Scalar::from_be_bytes([0x33; 32]).expect("the number is below the order");
    let tweaked: Vec<_> =
        keys.iter().map(|key| key.x_only_public_key().0.add_tweak(&secp, &tweak).expect("the sum is a key")).collect();
    let one_tweak = seconds_each(&|index| {
        let key = XOnlyPublicKey::from_slice(&schnorr[index].0).expect("the key was serialized");
        let (output, parity) = tweaked[index];
        assert!(key.tweak_add_check(&secp, &output, parity, tweak), "the tweak fits");
    });
    one_ecdsa * summary.ecdsa_checks as f64
        + one_schnorr * summary.schnorr_checks as f64
        + one_tweak * summary.taproot_tweaks as f64
}
