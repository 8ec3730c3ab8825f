//! What a process takes of processor, memory and disk, as /proc tells it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use groat_tests::groatd::signal;

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Seconds by the clock.
    pub wall: f64,
    /// Seconds of processor, user and system.
    pub cpu: f64,
    /// Most resident memory, in MiB.
    pub memory: f64,
    /// Data folder at the end, in MiB.
    pub disk: f64,
    /// Seconds that bitcoind spent looking for BIP30 repeats, by the clock: taken off the processor's seconds too, which
    /// is right only while nothing else runs.
    pub bip30: f64,
    /// Seconds of processor that whoever served it took meanwhile.
    pub server: f64,
}

/// Runs a program to its end and tells what it took, all but the disk. Once `is_done`, which sees what it printed so far,
/// it is stopped by SIGTERM.
pub fn measure(command: &mut Command, mut is_done: impl FnMut(&str) -> bool) -> Result<Cost> {
    let output = tempfile::NamedTempFile::new()?;
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.reopen()?)
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let id = child.id().to_string();
    let mut cost = Cost::default();
    let mut stopped = false;
    // It is not reaped before /proc has told all of its processor time.
    loop {
        let (ended, cpu) = process(&id)?;
        cost.cpu = cpu;
        if ended {
            break;
        }
        cost.memory = cost.memory.max(status(&id, "VmHWM:")? / 1024.0);
        if !stopped && is_done(&std::fs::read_to_string(output.path())?) {
            stopped = true;
            signal(&child, "TERM");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    cost.wall = started.elapsed().as_secs_f64();
    let status = child.wait()?;
    ensure!(status.success(), "{} ended with {status}", command.get_program().display());
    Ok(cost)
}

/// A figure of /proc/ID/status in KiB; 0 for a process that is ending.
pub fn status(id: &str, name: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    Ok(line.unwrap_or(0.0))
}

/// Whether a process (its number, or `self`) has ended, and its seconds of processor so far.
pub fn process(id: &str) -> Result<(bool, f64)> {
    /// `USER_HZ`, the unit of times in /proc on every Linux of today.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The fields after the name, which is in brackets: state is field 3, utime 14, stime 15.
    let fields: Vec<&str> = stat.rsplit_once(')').context("/proc stat has a name")?.1.split_whitespace().collect();
    let ticks = |place: usize| fields[place].parse::<f64>();
    Ok((fields[0] == "Z", (ticks(11)? + ticks(12)?) / TICKS))
}

/// MiB that the files below a folder take on the disk.
pub fn disk(folder: &Path) -> Result<f64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0.0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() { disk(&entry.path())? } else { meta.blocks() as f64 * 512.0 / 1_048_576.0 };
    }
    Ok(sum)
}
