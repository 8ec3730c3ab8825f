//! What the ledger's time goes into: waiting for peers, waiting for the disk, or work of the processor. The ledger thread
//! is looked at four times a second, from outside: it measures nothing itself. Linux tells what a thread waits for.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use groat_chain::tree::Tree;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::requests::Queue;

/// From one look to the next.
const INTERVAL: Duration = Duration::from_millis(250);
/// Looks that are remembered: those of a minute.
const MAX_LOOKS: usize = 240;

/// What the ledger was at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Peers,
    Disk,
    Cpu,
}

/// What was seen in one look.
#[derive(Clone, Copy)]
struct Look {
    at: At,
    /// Height of the tip.
    height: u32,
    /// Height of the best header.
    headers: u32,
}

/// The looks of the last minute.
#[derive(Default)]
pub struct Bottleneck(Mutex<VecDeque<Look>>);

/// Parts of the ledger's time, 0 to 1; all 0 where nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// It had nothing to do.
    pub peers: f64,
    /// It waited for something to be read or written.
    pub disk: f64,
    /// It worked, or waited for the threads that check scripts.
    pub cpu: f64,
}

impl Bottleneck {
    fn add(&self, look: Look) {
        let mut looks = self.0.lock();
        if looks.len() == MAX_LOOKS {
            looks.pop_front();
        }
        looks.push_back(look);
    }

    /// What the last minute went into.
    pub fn shares(&self) -> Shares {
        let looks = self.0.lock();
        let part = |wanted| looks.iter().filter(|look| look.at == wanted).count() as f64 / looks.len().max(1) as f64;
        Shares { peers: part(At::Peers), disk: part(At::Disk), cpu: part(At::Cpu) }
    }

    /// Seconds that the rest takes at the pace of the last minute: the blocks of the headers that are known, or, while
    /// further headers come, `blocks`.
    pub fn seconds_left(&self, blocks: f64) -> Option<u64> {
        let looks = self.0.lock();
        let (first, last) = (looks.front()?, looks.back()?);
        let known = f64::from(last.headers.saturating_sub(last.height));
        let blocks = if last.headers > first.headers { blocks.max(known) } else { known };
        let span = INTERVAL.as_secs_f64() * (looks.len() - 1) as f64;
        let made = last.height.saturating_sub(first.height);
        (made > 0).then(|| (blocks * span / f64::from(made)) as u64)
    }
}

/// Looks at the ledger thread, which takes its requests from `queue`, until the node stops.
pub async fn watch(
    bottleneck: Arc<Bottleneck>,
    queue: Arc<Queue>,
    tree: Arc<RwLock<Tree>>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut ledger = None;
    while tokio::time::timeout(INTERVAL, stopping.changed()).await.is_err() {
        ledger = ledger.or_else(|| threads("ledger").pop());
        let at = if queue.is_idle() { Some(At::Peers) } else { ledger.as_deref().and_then(what_of) };
        if let Some(at) = at {
            let [height, headers] = {
                let tree = tree.read();
                [tree.tip(), tree.best_header()].map(|id| tree.node(id).height)
            };
            bottleneck.add(Look { at, height, headers });
        }
    }
}

/// What a thread with work to do is at. One that sleeps waits for the scripts while a thread that checks them runs, else
/// for the database.
fn what_of(ledger: &Path) -> Option<At> {
    Some(match state(ledger)? {
        'R' => At::Cpu,
        'D' => At::Disk,
        _ if threads("groatd").iter().any(|thread| state(thread) == Some('R')) => At::Cpu,
        _ => At::Disk,
    })
}

/// The threads of this name; those that check have that of the process.
fn threads(name: &str) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)).collect()
}

/// The letter that proc_pid_stat(5) gives a thread's state.
fn state(thread: &Path) -> Option<char> {
    fs::read_to_string(thread.join("stat")).ok()?.rsplit_once(") ")?.1.chars().next()
}

/// Memory in bytes that the process may take: the least of what its control groups allow and what the machine has.
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (top, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // Within a container the own group may be mounted as the top.
        let mut folder = PathBuf::from(format!("{top}{path}"));
        while folder.starts_with(top) {
            limits.extend(fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok()));
            folder.pop();
        }
    }
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let kib = machine
        .as_deref()
        .and_then(|text| text.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    limits.into_iter().chain(kib.map(|kib| kib * 1024)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minute_counts() {
        let looks = Bottleneck::default();
        assert_eq!((looks.shares(), looks.seconds_left(5.0)), (Shares::default(), None));
        for (from, to, at) in [(0, 240, At::Cpu), (240, 300, At::Disk), (300, 360, At::Peers)] {
            (from..to).for_each(|height| looks.add(Look { at, height, headers: 759 }));
        }
        assert_eq!(looks.0.lock().len(), MAX_LOOKS, "looks at the cap");
        assert_eq!(looks.shares(), Shares { peers: 0.25, disk: 0.25, cpu: 0.5 });
        // One block a look, four looks a second; 400 blocks to go, until further headers come.
        assert_eq!(looks.seconds_left(4000.0), Some(100));
        looks.add(Look { at: At::Cpu, height: 360, headers: 760 });
        assert_eq!(looks.seconds_left(4000.0), Some(1000));
    }

    #[test]
    fn a_thread_that_works_and_one_that_sleeps_are_told_apart() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let sleeper = std::thread::Builder::new().name("sleeper".into()).spawn(move || wait.recv());
        let sleeper = sleeper.expect("a thread can be started");
        let found = loop {
            if let Some(thread) = threads("sleeper").pop()
                && state(&thread) == Some('S')
            {
                break thread;
            }
            std::thread::yield_now();
        };
        assert_eq!(state(&found), Some('S'));
        assert_eq!(state(&PathBuf::from("/proc/thread-self")), Some('R'));
        assert!(memory_limit().is_some_and(|limit| limit > 1 << 20));
        drop(done);
        let _ = sleeper.join();
    }
}
