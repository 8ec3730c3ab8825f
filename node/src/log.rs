//! The log: one line an event, to standard output and to `debug.log` in the folder of the network. Events come by
//! `tracing`: `info!` is always told, `debug!` only where its target is a topic that was asked for. Knows no event.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// What `debug!` can be about. Core's names (`LOG_CATEGORIES_BY_STR`): Groat has nothing to say on some, and takes them.
pub const TOPICS: [&str; 29] = [
    "addrman",
    "bench",
    "blockstorage",
    "cmpctblock",
    "coindb",
    "estimatefee",
    "http",
    "i2p",
    "ipc",
    "kernel",
    "leveldb",
    "mempool",
    "mempoolrej",
    "net",
    "privatebroadcast",
    "proxy",
    "prune",
    "qt",
    "rand",
    "reindex",
    "rpc",
    "scan",
    "selectcoins",
    "tor",
    "txpackages",
    "txreconciliation",
    "validation",
    "walletdb",
    "zmq",
];

/// Bytes after which the file is put aside as `debug.log.1`, in place of the one before, and a new one begins.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Lines that wait for the file to be opened.
const MAX_EARLY: usize = 1000;

/// The topics that are asked for, as bits by their place in [`TOPICS`].
static WANTED: AtomicU64 = AtomicU64::new(0);
/// The file was moved away by somebody: a new one is to be opened.
static REOPEN: AtomicBool = AtomicBool::new(false);
static SINKS: Mutex<Sinks> = Mutex::new(Sinks::new());

/// How lines look and where they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// To standard output, too. Core: `-printtoconsole`.
    pub console: bool,
    /// With the time, in UTC. Core: `-logtimestamps`.
    pub times: bool,
    /// The time with microseconds. Core: `-logtimemicros`.
    pub micros: bool,
    /// With the thread's name. Core: `-logthreadnames`.
    pub threads: bool,
    /// Each line is one JSON object.
    pub json: bool,
}

/// No topic of this name. Core: "Unsupported logging category".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown logging category {0}")]
pub struct UnknownTopic(pub String);

/// Begins to log in this style, for the whole process; what is said before [`open`] waits for the file.
pub fn begin(style: Style) {
    SINKS.lock().style = style;
    // An error says that it began before.
    let _ = tracing::subscriber::set_global_default(Log);
}

/// Adds a file to which all that was said goes, and all that will be. `bounded`: it is put aside when it grows too large.
pub fn open(path: &Path, bounded: bool) -> std::io::Result<()> {
    let mut sinks = SINKS.lock();
    let mut file = LogFile::open(path.to_owned(), bounded)?;
    std::mem::take(&mut sinks.early).iter().for_each(|line| file.write(line));
    sinks.file = Place::File(file);
    Ok(())
}

/// Nothing will go to a file.
pub fn without_file() {
    let mut sinks = SINKS.lock();
    sinks.early = Vec::new();
    sinks.file = Place::None;
}

/// Has the file opened anew before the next line. Never blocks. Core: SIGHUP.
pub fn reopen() {
    REOPEN.store(true, Ordering::Relaxed);
}

/// Asks for a topic, or for no more of it. `1`, `all` and nothing mean every topic.
pub fn want(topic: &str, wanted: bool) -> Result<(), UnknownTopic> {
    let bits = match topic {
        "" | "1" | "all" => u64::MAX,
        // Core: still taken, and means nothing.
        "libevent" => 0,
        name => 1 << TOPICS.iter().position(|known| *known == name).ok_or_else(|| UnknownTopic(name.into()))?,
    };
    if wanted {
        WANTED.fetch_or(bits, Ordering::Relaxed);
    } else {
        WANTED.fetch_and(!bits, Ordering::Relaxed);
    }
    Ok(())
}

/// Whether a topic is asked for.
pub fn is_wanted(topic: &str) -> bool {
    let bit = TOPICS.iter().position(|known| *known == topic).map_or(0, |at| 1 << at);
    WANTED.load(Ordering::Relaxed) & bit != 0
}

/// Where events go.
struct Log;

struct Sinks {
    style: Style,
    file: Place,
    early: Vec<String>,
}

enum Place {
    /// It will be opened.
    Later,
    None,
    File(LogFile),
}

impl Sinks {
    const fn new() -> Sinks {
        let style = Style { console: true, times: false, micros: false, threads: false, json: false };
        Sinks { style, file: Place::Later, early: Vec::new() }
    }

    fn write(&mut self, line: String) {
        if self.style.console {
            // Standard output may be gone: a closed terminal, a full disk. A node goes on without it.
            let _ = std::io::stdout().write_all(line.as_bytes());
        }
        match &mut self.file {
            Place::File(file) => file.write(&line),
            Place::Later if self.early.len() < MAX_EARLY => self.early.push(line),
            Place::Later | Place::None => {}
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bounded: bool,
}

impl LogFile {
    fn open(path: PathBuf, bounded: bool) -> std::io::Result<LogFile> {
        let file = File::options().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(LogFile { path, file, bytes, bounded })
    }

    /// What cannot be written is lost: a full disk must not end the node here.
    fn write(&mut self, line: &str) {
        let full = self.bounded && self.bytes > MAX_FILE_BYTES;
        if full {
            let _ = std::fs::rename(&self.path, self.path.with_extension("log.1"));
        }
        if (REOPEN.swap(false, Ordering::Relaxed) || full)
            && let Ok(new) = LogFile::open(self.path.clone(), self.bounded)
        {
            *self = new;
        }
        let _ = self.file.write_all(line.as_bytes());
        self.bytes += line.len() as u64;
    }
}

impl Subscriber for Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let ours = metadata.target().starts_with("groat") || TOPICS.contains(&metadata.target());
        if !ours {
            return Interest::never();
        }
        if *metadata.level() <= Level::INFO { Interest::always() } else { Interest::sometimes() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO || is_wanted(metadata.target())
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let mut sinks = SINKS.lock();
        let line = line(sinks.style, event.metadata(), &message.0);
        sinks.write(line);
    }

    // There are no spans.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The text of an event. What peers said may stand in it: nothing of that reaches a terminal as a command, nor as a line
/// of its own.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        escape(&format!("{value:?}"), &mut self.0);
    }
}

fn escape(text: &str, into: &mut String) {
    for letter in text.chars() {
        match letter {
            letter if letter.is_control() => into.extend(letter.escape_default()),
            letter => into.push(letter),
        }
    }
}

fn line(style: Style, metadata: &Metadata<'_>, message: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let level = if *metadata.level() == Level::INFO { "info" } else { metadata.level().as_str() };
    let topic = TOPICS.contains(&metadata.target()).then(|| metadata.target());
    if style.json {
        let event = serde_json::json!({
            "time": time(since, true), "level": level.to_lowercase(), "topic": topic, "message": message,
        });
        return format!("{event}\n");
    }
    let mut line = String::new();
    if style.times {
        line += &time(since, style.micros);
        line.push(' ');
    }
    if style.threads {
        let _ = write!(line, "[{}] ", std::thread::current().name().unwrap_or("?"));
    }
    if *metadata.level() <= Level::WARN {
        let _ = write!(line, "[{}] ", level.to_lowercase());
    }
    if let Some(topic) = topic {
        let _ = write!(line, "[{topic}] ");
    }
    line + message + "\n"
}

/// A time since 1970 as ISO 8601 in UTC.
pub fn time(since: Duration, micros: bool) -> String {
    let seconds = since.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the day that not every year has is the last one.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let fraction = if micros { format!(".{:06}", since.subsec_micros()) } else { String::new() };
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_231_006_505, "2009-01-03T18:15:05Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(Duration::from_secs(seconds), false), expected);
        }
        assert_eq!(time(Duration::from_micros(1_000_042), true), "1970-01-01T00:00:01.000042Z");
    }

    #[test]
    fn a_file_that_grows_too_large_is_put_aside_and_one_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("debug.log");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let mut file = LogFile::open(path.clone(), true).unwrap();
        file.write("first\n");
        file.bytes = MAX_FILE_BYTES + 1;
        file.write("second\n");
        assert_eq!((read("debug.log.1"), read("debug.log")), ("first\n".into(), "second\n".into()));
        file.bounded = false;
        file.bytes = MAX_FILE_BYTES + 1;
        std::fs::rename(&path, folder.path().join("kept")).unwrap();
        file.write("third\n");
        assert_eq!(read("kept"), "second\nthird\n", "nobody asked for another file");
        reopen();
        file.write("fourth\n");
        assert_eq!(read("debug.log"), "fourth\n");
    }

    #[test]
    fn topics_come_and_go_by_name() {
        want("net", true).unwrap();
        assert!(is_wanted("net") && !is_wanted("zmq"));
        want("all", true).unwrap();
        want("net", false).unwrap();
        assert!(!is_wanted("net") && is_wanted("zmq"));
        want("1", false).unwrap();
        assert!(!is_wanted("zmq"));
        assert_eq!(want("nonsense", true), Err(UnknownTopic("nonsense".into())));
        assert!(!is_wanted("nonsense"));
    }

    #[test]
    fn what_peers_say_stays_one_line_of_text() {
        let mut line = String::new();
        escape("agent /\x1b[31mred\n/ é", &mut line);
        assert_eq!(line, "agent /\\u{1b}[31mred\\n/ é");
    }
}
