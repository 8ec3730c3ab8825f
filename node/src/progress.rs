//! What a long run tells: a bar on a terminal, one line each 10 seconds elsewhere.

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How far a run over blocks has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Blocks done, of all that the run has to do.
    pub blocks: u64,
    /// Transactions done.
    pub transactions: u64,
    /// Height reached.
    pub height: u32,
    /// Bytes the coin table takes.
    pub cache: usize,
}

/// Tells of a run with a known number of blocks.
pub struct Progress {
    what: &'static str,
    total: u64,
    begun: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Time between two drawings of the bar.
const DRAW_EVERY: Duration = Duration::from_millis(200);

impl Progress {
    /// Begins to tell of `what`, which has `total` blocks to do.
    pub fn begin(what: &'static str, total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            // Of a pipe nobody knows the length.
            let known = if total > 0 { "{wide_bar} {percent}% " } else { "" };
            let style = ProgressStyle::with_template(&format!("{{prefix}} {known} {{msg}}"));
            let bar = ProgressBar::new(total).with_style(style.expect("the template is well formed"));
            bar.set_prefix(what);
            bar
        });
        let now = Instant::now();
        Progress { what, total, begun: now, told: now, bar }
    }

    /// Shows a reading if it is time to.
    pub fn show(&mut self, reading: Reading) {
        let every = if self.bar.is_some() { DRAW_EVERY } else { LINE_EVERY };
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        let line = self.line(reading);
        match &self.bar {
            Some(bar) => {
                bar.set_position(reading.blocks);
                bar.set_message(line);
            }
            None if self.total == 0 => println!("{}: {line}", self.what),
            None => println!("{}: {} %  {line}", self.what, 100 * reading.blocks / self.total),
        }
    }

    fn line(&self, reading: Reading) -> String {
        let span = self.begun.elapsed();
        let left = self.total.saturating_sub(reading.blocks) as u32;
        format!(
            "height {}, {:.0} tx/s, {}, cache {} MiB",
            reading.height,
            reading.transactions as f64 / span.as_secs_f64().max(0.001),
            Pace { blocks: reading.blocks as u32, left, span },
            reading.cache >> 20,
        )
    }

    /// Takes the bar away; gives the seconds the run took.
    pub fn end(self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.begun.elapsed().as_secs_f64()
    }
}

/// How fast blocks go and how long that will take, as people say it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Blocks done.
    pub blocks: u32,
    /// Blocks left; 0 where nobody knows.
    pub left: u32,
    /// Time they took.
    pub span: Duration,
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = f64::from(self.blocks) / self.span.as_secs_f64().max(0.001);
        write!(f, "{rate:.0} blk/s")?;
        match f64::from(self.left) / rate {
            left if self.left > 0 && left.is_finite() => write!(f, ", {} left", span(left as u64)),
            _ => Ok(()),
        }
    }
}

/// A time span as people say it.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}
