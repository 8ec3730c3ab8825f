//! Pings: they keep a link alive and measure it. Knows no other message.

use std::time::Duration;

use rand::Rng;

use crate::message::Message;
use crate::peer::Peer;
use crate::protocol::{Cx, Reason};
use crate::timers::{Micros, PING_INTERVAL, TIMEOUT_INTERVAL, Timer};

/// What is kept of a peer.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The nonce that has not come back.
    nonce: Option<u64>,
    /// When the last ping left.
    sent: Micros,
    /// The last round trip.
    pub(crate) last: Option<Duration>,
    /// The shortest round trip.
    pub(crate) shortest: Option<Duration>,
}

/// Sends a ping, unless one is under way.
pub(crate) fn send(peer: &mut Peer, cx: &mut Cx<'_>) {
    if peer.ping.nonce.is_none() {
        send_now(peer, cx);
    }
}

/// Sends a ping; one that is under way counts no more.
pub(crate) fn send_now(peer: &mut Peer, cx: &mut Cx<'_>) {
    let nonce = cx.core.rng.random_range(1..=u64::MAX);
    (peer.ping.nonce, peer.ping.sent) = (Some(nonce), cx.now);
    cx.core.timers.set(peer.id, Timer::Pong, cx.now + TIMEOUT_INTERVAL);
    cx.core.timers.set(peer.id, Timer::Ping, cx.now + PING_INTERVAL);
    cx.send(peer, Message::Ping(nonce));
}

/// How long the answer to a ping has been awaited.
pub(crate) fn wait(peer: &Peer, now: Micros) -> Option<Duration> {
    peer.ping.nonce.map(|_| now.since(peer.ping.sent))
}

/// A pong came. A zero nonce also ends the wait, without a measure; any other wrong one does not. Core: `ProcessPong`.
pub(crate) fn on_pong(peer: &mut Peer, nonce: u64, cx: &mut Cx<'_>) {
    let Some(expected) = peer.ping.nonce.filter(|expected| *expected == nonce || nonce == 0) else { return };
    if nonce == expected {
        let trip = cx.now.since(peer.ping.sent);
        peer.ping.last = Some(trip);
        peer.ping.shortest = Some(peer.ping.shortest.map_or(trip, |shortest| shortest.min(trip)));
    }
    peer.ping.nonce = None;
    cx.core.timers.stop(peer.id, Timer::Pong);
    // The timer may have come while the pong was awaited.
    if cx.core.timers.get(peer.id, Timer::Ping).is_none() {
        cx.core.timers.set(peer.id, Timer::Ping, cx.now.max(peer.ping.sent + PING_INTERVAL));
    }
}

/// No pong came in time. Core: `ShouldRunInactivityChecks`.
pub(crate) fn on_pong_timeout(peer: &mut Peer, cx: &mut Cx<'_>) {
    let patience = peer.since + cx.core.config.peer_timeout;
    if cx.now < patience {
        cx.core.timers.set(peer.id, Timer::Pong, patience);
    } else {
        cx.disconnect(peer, Reason::PingTimeout);
    }
}
