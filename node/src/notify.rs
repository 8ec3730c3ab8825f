//! Commands of the operator, run when something happens, and the thread that tells of what happens to chain and pool.
//! The node waits for none of them but those before a stop.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bitcoin::BlockHash;
use groat_chain::block::Block;
use groat_chain::store::Store;
use groat_chain::tree::Tree;
use parking_lot::RwLock;

use crate::events::{Event, Queue};
use crate::process::{IN_BACKGROUND, thread};
use crate::zmq::Publisher;

/// Commands that run at a time. Those that never end must not fill the machine.
const MAX_COMMANDS: usize = 64;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Starts a command of the shell and returns at once. How it fails is told in the log.
pub fn run(command: String) {
    if RUNNING.fetch_add(1, Ordering::Relaxed) >= MAX_COMMANDS {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!("not run, since {MAX_COMMANDS} commands run already: {command}");
        return;
    }
    let waits = std::thread::Builder::new().name("command".into()).spawn(move || {
        run_to_end(&command);
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(error) = waits {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!("no thread for a command: {error}");
    }
}

fn run_to_end(command: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).env_remove(IN_BACKGROUND);
    match shell.status() {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!("runCommand error: system({command}) ended with {status}"),
        Err(error) => tracing::warn!("runCommand error: system({command}) does not start: {error}"),
    }
}

/// Runs all of these at a time and waits for them.
pub fn run_all(commands: &[String]) {
    std::thread::scope(|scope| commands.iter().for_each(|command| drop(scope.spawn(|| run_to_end(command)))));
}

/// Runs `-alertnotify` with what a warning says, of which nothing reaches the shell but plain text in quotes.
/// Core: `AlertNotify`, `SanitizeString`.
pub fn alert(command: &str, message: &str) {
    let safe = |letter: &char| letter.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*letter);
    let message: String = message.chars().filter(safe).collect();
    run(command.replace("%s", &format!("'{message}'")));
}

/// Who is told of events, in a thread of its own.
pub struct Teller {
    /// Publishes by ZeroMQ.
    pub publisher: Publisher,
    /// Run for each tip. Core: `-blocknotify`.
    pub blocknotify: Option<String>,
    /// For blocks that left the chain and were not held.
    pub tree: Arc<RwLock<Tree>>,
    /// The same.
    pub store: Arc<dyn Store>,
}

impl Teller {
    /// Tells of what comes until the queue is closed.
    pub fn start(mut self, queue: Arc<Queue>) -> anyhow::Result<JoinHandle<()>> {
        thread("events", move || {
            while let Some((lost, event)) = queue.next() {
                self.publisher.skip(lost);
                if let (Event::Tip(block), Some(command)) = (&event, &self.blocknotify) {
                    run(command.replace("%s", &block.hash.to_string()));
                }
                let (tree, store) = (&self.tree, &self.store);
                self.publisher.publish(&event, |hash| read(tree, store, hash));
            }
        })
    }
}

fn read(tree: &RwLock<Tree>, store: &Arc<dyn Store>, hash: &BlockHash) -> Option<Block> {
    let tree = tree.read();
    let pos = tree.node(tree.get(hash)?).block()?;
    drop(tree);
    Block::decode_prefix(&store.read_block(pos).ok()?).ok()
}
