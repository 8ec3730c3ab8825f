//! The process as the operating system and its operator see it: its threads, in the background, with its number in a file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};

/// Set for the process that goes on in the background, and for none that it starts.
pub const IN_BACKGROUND: &str = "GROAT_IN_BACKGROUND";

/// Starts this program again, away from the terminal, and waits until it has the lock of `folder`. Gives whether the
/// caller is the one to end: false in the process that was started. (A fork is not safe in a program with threads.)
pub fn to_background(folder: &Path) -> anyhow::Result<bool> {
    if std::env::var_os(IN_BACKGROUND).is_some() {
        rustix::process::setsid().context("cannot leave the terminal")?;
        return Ok(false);
    }
    let program = std::env::current_exe().context("cannot start in the background")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(IN_BACKGROUND, "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut started = command.spawn().context("cannot start in the background")?;
    let number = started.id().to_string();
    while !std::fs::read_to_string(folder.join(".lock")).is_ok_and(|lock| lock == number) {
        if let Some(status) = started.try_wait()? {
            bail!("groatd ended in the background ({status}): start it without --daemon to see why");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// A file with the number of this process. It goes when this is dropped.
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes it.
    pub fn create(path: PathBuf) -> anyhow::Result<PidFile> {
        let written = std::fs::write(&path, format!("{}\n", std::process::id()));
        written.with_context(|| format!("Unable to create the PID file '{}'", path.display()))?;
        Ok(PidFile(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Who took it away already has done what was to be done.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A thread with a name. One that panics ends the process: a node without it would only seem to run.
pub(crate) fn thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    struct AbortOnPanic;
    impl Drop for AbortOnPanic {
        fn drop(&mut self) {
            if std::thread::panicking() {
                std::process::abort();
            }
        }
    }
    let guarded = move || {
        let _guard = AbortOnPanic;
        work()
    };
    std::thread::Builder::new().name(name.into()).spawn(guarded).context("a thread cannot be started")
}
