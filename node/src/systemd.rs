//! What systemd is told of a node's life, where it started us (`Type=notify`). Nothing happens elsewhere.

use std::time::Duration;

use sd_notify::NotifyState::{ExtendTimeoutUsec, Ready, Status, Stopping};

/// How long systemd is asked to wait at a time, and after what part of that again.
const PATIENCE: Duration = Duration::from_secs(30);

/// The node answers.
pub fn ready() {
    tell(&[Ready]);
}

/// What the node is at, for `systemctl status`.
pub fn status(line: &str) {
    tell(&[Status(line)]);
}

/// The node stops, and needs time to write everything until the process ends.
pub fn stopping() {
    tell(&[Stopping]);
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    std::thread::spawn(|| {
        loop {
            tell(&[ExtendTimeoutUsec(PATIENCE.as_micros().try_into().unwrap_or(u32::MAX))]);
            std::thread::sleep(PATIENCE / 3);
        }
    });
}

fn tell(states: &[sd_notify::NotifyState<'_>]) {
    // Who started us may have closed its socket: it wants to hear no more.
    let _ = sd_notify::notify(states);
}
