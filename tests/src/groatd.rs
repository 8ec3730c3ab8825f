//! The `groatd` binary for tests: finds it, runs it in a folder, reads what it says. Knows its command line and
//! nothing of its inside.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bitcoin::Block;
use bitcoin::consensus::encode::serialize;
use serde::Deserialize;

use crate::regtest;

/// How long to wait for a `groatd` to reach a state that it always reaches soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the long forms of the tests were asked for (`scripts/test.sh --all`).
pub fn wide() -> bool {
    std::env::var_os("GROAT_WIDE").is_some_and(|value| value == "1")
}

/// The line that repeats the running test.
pub fn repeat() -> String {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let wide = if wide() { "GROAT_WIDE=1 " } else { "" };
    format!("repeat with: {wide}cargo test --release -p groat-tests {test} -- --nocapture")
}

/// The binary, beside the test's own executable or in `CARGO_TARGET_DIR`. One that was not built from this checkout
/// would test something else: then it panics with the command that builds it.
pub fn binary() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let build = "build it with: cargo build --release -p groat-node";
        let own = std::env::current_exe().expect("a test knows where it lies");
        let beside = own.ancestors().nth(2).map(|folder| folder.join("groatd"));
        let target = std::env::var_os("CARGO_TARGET_DIR").map(|folder| Path::new(&folder).join("release/groatd"));
        let found = beside.into_iter().chain(target).find(|path| path.is_file());
        let path = found.unwrap_or_else(|| panic!("there is no groatd beside {}: {build}", own.display()));
        let output = Command::new(&path).arg("--version").output().expect("groatd starts");
        let (said, expected) = (String::from_utf8_lossy(&output.stdout), format!("groatd {}", groat_node::VERSION));
        assert_eq!(said.trim(), expected, "{} (left) is not of this checkout (right): {build}", path.display());
        path
    })
}

/// A `groatd` with a data folder: what every command line of it begins with.
pub struct Groatd {
    chain: String,
    folder: PathBuf,
    options: Vec<String>,
}

impl Groatd {
    /// On this chain, as `--chain` takes it, with this data folder.
    pub fn new(chain: &str, folder: &Path) -> Groatd {
        Groatd { chain: chain.into(), folder: folder.into(), options: Vec::new() }
    }

    /// The same with a further option.
    pub fn with(mut self, option: &str) -> Groatd {
        self.options.push(option.into());
        self
    }

    /// A command line, ready to be run. Its output is captured.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(binary());
        command.args(["--chain", &self.chain, "--datadir"]).arg(&self.folder).args(&self.options).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Said {
        Said::by(&mut self.command(arguments))
    }

    /// Runs it to its end with `input` as standard input.
    pub fn feed(&self, arguments: &[&str], input: &[u8]) -> Said {
        let mut command = self.command(arguments);
        let mut process = command.stdin(Stdio::piped()).spawn().expect("groatd starts");
        let mut pipe = process.stdin.take().expect("standard input is piped");
        // It may end before it has read all: then what it says tells why.
        let _ = pipe.write_all(input);
        drop(pipe);
        Said::new(&command, process.wait_with_output().expect("a child can be waited for"))
    }

    /// Starts it with standard input held open, and waits until it has taken its folder.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut process = self.command(arguments).stdin(Stdio::piped()).spawn().expect("groatd starts");
        let started = Instant::now();
        while std::fs::read_to_string(self.chain_folder().join(".lock")).unwrap_or_default() != process.id().to_string()
        {
            let ended = process.try_wait().expect("a child can be asked");
            assert_eq!(ended, None, "groatd ended before it took its folder; {}", repeat());
            assert!(started.elapsed() < PATIENCE, "groatd did not take its folder in {PATIENCE:?}; {}", repeat());
            std::thread::sleep(Duration::from_millis(2));
        }
        process
    }

    /// Imports files.
    pub fn import(&self, files: &[impl AsRef<OsStr>]) -> Said {
        self.run([OsStr::new("import")].into_iter().chain(files.iter().map(AsRef::as_ref)))
    }

    /// The coins at the tip.
    pub fn stats(&self) -> Stats {
        Stats::read(&self.run(["coins", "stats", "--json"]).succeeded())
    }

    /// The folder of its chain within the data folder.
    pub fn chain_folder(&self) -> PathBuf {
        match self.chain.as_str() {
            "main" => self.folder.clone(),
            "test" => self.folder.join("testnet3"),
            // A network's file, which has its name.
            file if file.ends_with(".toml") => self.folder.join(Path::new(file).file_stem().expect("a file's name")),
            chain => self.folder.join(chain),
        }
    }
}

/// What a run of `groatd` came to.
#[derive(Debug)]
pub struct Said {
    command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Runs a command to its end.
    pub fn by(command: &mut Command) -> Said {
        let output = command.output().expect("groatd starts");
        Said::new(command, output)
    }

    /// Waits for a process that was started.
    pub fn of(process: Child) -> Said {
        Said::new(&Command::new(binary()), process.wait_with_output().expect("a child can be waited for"))
    }

    fn new(command: &Command, output: Output) -> Said {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        Said {
            command: words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        }
    }

    /// Everything about the run, for the message of a failing test.
    fn all(&self) -> String {
        let Said { command, status, stdout, stderr } = self;
        format!("command: {command}\n{status}, standard output:\n{stdout}standard error:\n{stderr}{}", repeat())
    }

    /// Panics unless it ended with status 0.
    pub fn succeeded(self) -> Said {
        assert!(self.status.success(), "expected: status 0\n{}", self.all());
        self
    }

    /// Panics unless it ended with status 1 and one sentence on standard error, `Error: ...`, with all of `parts`.
    pub fn failed(self, parts: &[&str]) -> Said {
        assert_eq!(self.status.code(), Some(1), "expected: status 1 (right)\n{}", self.all());
        let one = self.stderr.starts_with("Error: ") && self.stderr.trim_end().lines().count() == 1;
        assert!(one, "expected: one line on standard error that begins with \"Error: \"\n{}", self.all());
        for part in parts {
            assert!(self.stderr.contains(part), "expected on standard error: {part:?}\n{}", self.all());
        }
        self
    }

    /// Panics unless standard output has all of `parts`.
    pub fn printed(self, parts: &[&str]) -> Said {
        for part in parts {
            assert!(self.stdout.contains(part), "expected on standard output: {part:?}\n{}", self.all());
        }
        self
    }

    /// Whether SIGKILL ended it.
    pub fn was_killed(&self) -> bool {
        const SIGKILL: i32 = 9;
        self.status.signal() == Some(SIGKILL)
    }
}

/// What `coins stats --json` gives, and bitcoind's `gettxoutsetinfo muhash` under the same names.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Stats {
    /// Height of the tip.
    pub height: u32,
    /// Hash of the tip.
    pub bestblock: String,
    /// Number of coins.
    pub txouts: u64,
    /// Their sum. A double holds every possible one exactly enough to be told from its neighbours.
    pub total_amount: f64,
    /// Their MuHash.
    pub muhash: String,
}

impl Stats {
    fn read(said: &Said) -> Stats {
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| {
            panic!("expected: one JSON object with the fields of Stats ({error})\n{}", said.all())
        })
    }
}

/// Sends a signal by its name, as `kill` takes it.
pub fn signal(process: &Child, name: &str) {
    signal_to(&process.id().to_string(), name);
}

/// The same to the process with this number. The shell has a `kill` of its own; a small system no other.
pub fn signal_to(number: &str, name: &str) {
    let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, number]).status().expect("sh runs");
    assert!(status.success(), "kill -s {name} {number}: {status}");
}

/// Blocks in the framing of block files.
pub fn framed<'a>(magic: [u8; 4], blocks: impl IntoIterator<Item = &'a Block>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in blocks {
        let block = serialize(block);
        bytes.extend_from_slice(&magic);
        bytes.extend_from_slice(&(block.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&block);
    }
    bytes
}

/// Writes regtest blocks into the file `name` of `folder`.
pub fn block_file<'a>(folder: &Path, name: &str, blocks: impl IntoIterator<Item = &'a Block>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, framed(regtest::MAGIC, blocks)).expect("a temporary folder can be written");
    path
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a temporary folder can be written");
    for entry in std::fs::read_dir(from).expect("the folder can be listed") {
        let entry = entry.expect("the folder can be listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("a file can be copied");
        }
    }
}

/// Changes one byte of a file.
pub fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the file can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the file has that byte");
    file.write_all_at(&[byte[0] ^ 0x55], at).expect("the file can be written");
}
