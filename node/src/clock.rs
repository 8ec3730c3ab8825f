//! The node's clock: this machine's, or the time that a test has set. The one place that Core's `-mocktime` and
//! `setmocktime` act on. Durations (a deadline of a socket, an uptime) are not measured with it.

use std::sync::atomic::{AtomicU32, Ordering};

use groat_net::driver;
use groat_net::timers::Micros;

/// The time set by a test, in seconds since 1970; 0: none.
static MOCK: AtomicU32 = AtomicU32::new(0);

/// The time, in microseconds since 1970.
pub fn micros() -> Micros {
    match MOCK.load(Ordering::Relaxed) {
        0 => driver::now(),
        seconds => Micros(u64::from(seconds) * 1_000_000),
    }
}

/// The time, in seconds since 1970.
pub fn now() -> u32 {
    micros().seconds().try_into().unwrap_or(u32::MAX)
}

/// Sets the time for the whole process, in seconds since 1970; with 0 the clock runs again. Core: `SetMockTime`.
pub fn set(seconds: u32) {
    MOCK.store(seconds, Ordering::Relaxed);
}
