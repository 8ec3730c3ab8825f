//! Somebody on the network who is no node of ours: an attacker, or a peer with a part to play. Like the protocol a
//! value: it is told what happened, and says what it does. The world carries that out on the same queue.

mod chain;
mod links;
mod relay;

use std::sync::Arc;

use super::link::Link;
use crate::addr::NetAddr;
use crate::message::{Message, Version};
use crate::peer::{NODE_NETWORK, NODE_WITNESS};
use crate::protocol::PeerId;
use crate::timers::Micros;
pub use chain::{HeaderSpammer, Served, Stall, Staller};
pub use links::{Half, Slowloris};
pub use relay::{Flooder, Liar};

/// What an actor is told.
#[derive(Debug)]
pub enum Cue {
    /// A link was made, and this is its end.
    Linked {
        /// The actor's end.
        end: PeerId,
        /// The node on the other side.
        node: usize,
        /// The actor dialled.
        dialled: bool,
    },
    /// A message came.
    Heard(PeerId, Arc<Message>),
    /// The link ended.
    Closed(PeerId),
    /// The time that it asked to be woken at.
    Wake,
}

/// What an actor does.
#[derive(Debug)]
pub enum Act {
    /// Send a message.
    Say(PeerId, Arc<Message>),
    /// Send bytes, on a link that carries them.
    Bytes(PeerId, Vec<u8>),
    /// End a link.
    Cut(PeerId),
    /// Read nothing from now on: what the node sends stays in its queue.
    StopReading(PeerId),
    /// Make a link to a node.
    Dial {
        /// The node.
        node: usize,
        /// Where the actor calls from.
        from: NetAddr,
        /// How the link carries.
        link: Link,
    },
    /// Give [`Cue::Wake`] then.
    WakeAt(Micros),
}

/// Somebody with a part to play.
pub trait Actor {
    /// Takes a cue at the time `now` and appends what it does to `out`, in order.
    fn take(&mut self, now: Micros, cue: Cue, out: &mut Vec<Act>);
}

/// The version message of a common node.
pub fn hello(now: Micros) -> Version {
    Version {
        version: crate::PROTOCOL_VERSION,
        services: NODE_NETWORK | NODE_WITNESS,
        time: i64::try_from(now.seconds()).unwrap_or(i64::MAX),
        receiver: NetAddr { host: crate::addr::Host::V6([0; 16]), port: 0 },
        nonce: 1,
        user_agent: "/actor/".into(),
        start_height: 0,
        relay: true,
    }
}

/// What keeps a link alive: the handshake, pongs, and an empty answer to `getheaders`. Gives whether the message is
/// dealt with by that.
pub fn polite(end: PeerId, message: &Message, out: &mut Vec<Act>) -> bool {
    let mut say = |message| out.push(Act::Say(end, Arc::new(message)));
    match message {
        Message::Version(_) => {
            say(Message::WtxidRelay);
            say(Message::Verack);
        }
        Message::Ping(nonce) => say(Message::Pong(*nonce)),
        Message::GetHeaders(_) => say(Message::Headers(Vec::new())),
        _ => return false,
    }
    true
}

/// Says hello: who dialled does so at once, who was dialled may too.
pub fn greet(now: Micros, end: PeerId, out: &mut Vec<Act>) {
    out.push(Act::Say(end, Arc::new(Message::Version(Box::new(hello(now))))));
}
