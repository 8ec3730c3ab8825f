//! Attackers of links: they take places and do nothing with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Act, Actor, Cue, hello};
use crate::addr::{Host, NetAddr};
use crate::message::Message;
use crate::protocol::PeerId;
use crate::sim::link::Link;
use crate::timers::Micros;

/// How far a half handshake goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Not a byte.
    Silent,
    /// A version message and no verack.
    Version,
    /// The head of a frame that claims four million bytes, then a byte a second.
    Drip,
    /// Bytes that are no start of either transport.
    Garbage,
}

/// Makes links and does not finish the handshake; where one is closed it makes the next.
pub struct Slowloris {
    number: u8,
    node: usize,
    half: Half,
    /// Links at a time.
    width: usize,
    until: Micros,
    links: BTreeMap<PeerId, Micros>,
    made: u32,
    /// The longest that a node bore with a link.
    pub longest: std::rc::Rc<std::cell::Cell<Duration>>,
}

impl Slowloris {
    /// One that holds `width` links to a node until then.
    pub fn new(
        number: u8,
        node: usize,
        half: Half,
        width: usize,
        until: Micros,
        longest: &std::rc::Rc<std::cell::Cell<Duration>>,
    ) -> Slowloris {
        Slowloris { number, node, half, width, until, links: BTreeMap::new(), made: 0, longest: longest.clone() }
    }

    fn dial(&mut self, out: &mut Vec<Act>) {
        self.made += 1;
        let from = NetAddr { host: Host::V4([60, self.number, (self.made >> 8) as u8, self.made as u8]), port: 8333 };
        let wire = matches!(self.half, Half::Drip | Half::Garbage).then_some(1);
        out.push(Act::Dial { node: self.node, from, link: Link { wire, ..Link::default() } });
    }
}

impl Actor for Slowloris {
    fn take(&mut self, now: Micros, cue: Cue, out: &mut Vec<Act>) {
        match cue {
            Cue::Linked { end, .. } => {
                self.links.insert(end, now);
                match self.half {
                    Half::Silent => {}
                    Half::Version => {
                        out.push(Act::Say(end, Arc::new(Message::Version(Box::new(hello(now))))));
                    }
                    Half::Drip => {
                        let mut head = vec![0xfa, 0xbf, 0xb5, 0xda];
                        head.extend(b"version\0\0\0\0\0");
                        head.extend(4_000_000u32.to_le_bytes());
                        head.extend([0; 4]);
                        out.push(Act::Bytes(end, head));
                    }
                    Half::Garbage => out.push(Act::Bytes(end, vec![0x55; 4096])),
                }
            }
            Cue::Closed(end) => {
                if let Some(since) = self.links.remove(&end) {
                    self.longest.set(self.longest.get().max(now.since(since)));
                }
                if now < self.until {
                    self.dial(out);
                }
            }
            Cue::Heard(..) => {}
            Cue::Wake => {
                if self.made == 0 {
                    (0..self.width).for_each(|_| self.dial(out));
                }
                if self.half == Half::Drip && now < self.until {
                    out.extend(self.links.keys().map(|end| Act::Bytes(*end, vec![0])));
                    out.push(Act::WakeAt(now + Duration::from_secs(1)));
                }
            }
        }
    }
}
