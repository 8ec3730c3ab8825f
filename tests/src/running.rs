//! A `groatd` that runs as a node: started with its log in a file, looked at through that log, stopped by a signal. Knows
//! its command line and what it prints, nothing of its inside.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::bitcoind::{Rpc, free_port};
use crate::groatd::{Groatd, repeat, signal};

/// How long a stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long a node may take to be where it always gets.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A node. Dropping it kills it.
pub struct Running {
    process: Child,
    /// Where it listens for peers.
    pub peers: SocketAddr,
    /// Its JSON-RPC, with the cookie of this run.
    pub rpc: Rpc,
    stdout: PathBuf,
    stderr: PathBuf,
    // Holds the logs.
    _logs: tempfile::TempDir,
}

impl Running {
    /// Starts `groatd` as a node that listens on loopback, with these further options, and waits until it does.
    pub fn start(groatd: &Groatd, options: &[&str]) -> Running {
        Running::start_with(groatd, options, &[])
    }

    /// The same with these variables of the environment, which hold paths.
    pub fn start_with(groatd: &Groatd, options: &[&str], variables: &[(&str, &Path)]) -> Running {
        let (port, rpc) = (free_port(), free_port());
        let logs = tempfile::tempdir().expect("the temporary folder can be written");
        let (stdout, stderr) = (logs.path().join("stdout"), logs.path().join("stderr"));
        let file = |path: &PathBuf| Stdio::from(File::create(path).expect("the temporary folder can be written"));
        let mut command = groatd.command([
            "--listen=1",
            "--debug=net",
            "--logtimestamps=0",
            &format!("--port={port}"),
            &format!("--rpcport={rpc}"),
        ]);
        command.envs(variables.iter().copied());
        let process = command.args(options).stdout(file(&stdout)).stderr(file(&stderr)).spawn().expect("groatd starts");
        let [peers, rpc] = [port, rpc].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut node = Running { process, peers, rpc: Rpc::new(rpc, ""), stdout, stderr, _logs: logs };
        node.wait_for("listening for JSON-RPC");
        let cookie = std::fs::read_to_string(groatd.chain_folder().join(".cookie")).expect("the cookie is there");
        node.rpc = Rpc::new(rpc, &cookie);
        node
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(&self.stdout).expect("the log can be read");
        log.replace("\n[net] ", "\n")
    }

    /// Waits until it has printed `line`, or a line that begins so.
    pub fn wait_for(&mut self, line: &str) {
        let begun = Instant::now();
        while !self.log().lines().any(|printed| printed.starts_with(line)) {
            let ended = self.process.try_wait().expect("a child can be asked");
            assert_eq!(ended, None, "groatd ended and had not printed {line:?}\n{}", self.all());
            assert!(begun.elapsed() < PATIENCE, "groatd did not print {line:?} in {PATIENCE:?}\n{}", self.all());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until its tip is this block.
    pub fn wait_for_tip(&mut self, hash: &str) {
        self.wait_for(&format!("tip {hash} at height"));
    }

    /// Its resident memory in KiB, without files.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line =
            status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse().ok());
        line.unwrap_or_else(|| panic!("groatd has ended\n{}", self.all()))
    }

    /// How long its threads and this one have stood in line for a processor: what other programs on the machine cost.
    pub fn starved(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).into_iter().flatten().flatten();
        let files = tasks.map(|task| task.path().join("schedstat")).chain(["/proc/thread-self/schedstat".into()]);
        // Nanoseconds that it ran, and those that it could have run.
        let waited =
            files.filter_map(|file| std::fs::read_to_string(file).ok()?.split(' ').nth(1)?.parse::<u64>().ok());
        Duration::from_nanos(waited.sum())
    }

    /// Sends a signal by its name, as `kill` takes it.
    pub fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    /// Stops it by SIGTERM. Panics unless it ends soon, with status 0 and nothing on standard error.
    pub fn stop(self) {
        signal(&self.process, "TERM");
        self.ended();
    }

    /// Waits until it ends, as it was told to. Panics unless that is soon, with status 0 and nothing on standard error.
    pub fn ended(mut self) {
        let begun = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.process.try_wait().expect("a child can be asked") {
                break status;
            }
            assert!(begun.elapsed() < STOP_LIMIT, "groatd did not stop in {STOP_LIMIT:?}\n{}", self.all());
            std::thread::sleep(Duration::from_millis(10));
        };
        let errors = std::fs::read_to_string(&self.stderr).expect("the log can be read");
        assert!(
            status.success() && errors.is_empty(),
            "expected: status 0 and no errors, got {status}\n{}",
            self.all()
        );
    }

    fn all(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        let errors = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        format!("the end of standard output:\n{end}\nstandard error:\n{errors}\n{}", repeat())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
