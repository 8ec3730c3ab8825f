//! What is remembered of a run: a number that stands for all of it, its last steps in words, and what went over the
//! links by kind of message.

use std::fmt;

use crate::addr::NetAddr;
use crate::message::{Kind, Message};
use crate::peer::LinkKind;
use crate::protocol::{PeerId, Reason, Token};
use crate::timers::Micros;

/// Steps that are kept to be read after a failure.
pub const STEPS_KEPT: usize = 200;
/// Places for kinds of messages; the last is for unknown ones.
const KINDS: usize = 40;

/// Something that a node did.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// It took an input and gave so many outputs.
    Took(usize),
    /// It sent a message of this kind and length.
    Sent(PeerId, Option<Kind>, usize),
    /// It ended a link.
    Ended(PeerId, Reason),
    /// It gave its ledger work.
    Asked(Token),
    /// It dialled somebody by itself.
    Dialled(NetAddr, LinkKind),
    /// It went down, or came up again.
    Switched(bool),
}

/// Which node did what, and when.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    at: Micros,
    node: usize,
    step: Step,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at.0 / 1_000_000, self.at.0 % 1_000_000);
        write!(f, "{seconds}.{micros:06} node {}: ", self.node)?;
        match self.step {
            Step::Took(outputs) => write!(f, "an input, {outputs} outputs"),
            Step::Sent(to, kind, length) => {
                write!(f, "to {} {}, {length} bytes", to.0, kind.map_or("unknown", Kind::name))
            }
            Step::Ended(peer, reason) => write!(f, "ends {}: {reason:?}", peer.0),
            Step::Asked(token) => write!(f, "work {} for its ledger", token.0),
            Step::Dialled(addr, kind) => write!(f, "dials {addr} ({kind:?})"),
            Step::Switched(up) => write!(f, "{}", if up { "up" } else { "down" }),
        }
    }
}

/// A running number over everything that happens.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    last: Vec<Record>,
    next: usize,
}

impl Trace {
    pub(super) fn new() -> Trace {
        Trace { hash: 0x9e37_79b9_7f4a_7c15, last: Vec::with_capacity(STEPS_KEPT), next: 0 }
    }

    /// Not safe against an adversary, who is not here; any change of any word changes the number all but certainly.
    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }

    pub(super) fn note(&mut self, at: Micros, node: usize, step: Step) {
        self.mix(at.0);
        self.mix(node as u64);
        match step {
            Step::Took(outputs) => self.mix(outputs as u64),
            Step::Sent(to, kind, length) => {
                self.mix(to.0 << 8 | slot(kind) as u64);
                self.mix(length as u64);
            }
            Step::Ended(peer, reason) => {
                self.mix(peer.0);
                format!("{reason:?}").bytes().for_each(|byte| self.mix(u64::from(byte)));
            }
            Step::Asked(token) => self.mix(token.0 << 1 | 1),
            Step::Dialled(addr, kind) => {
                addr.host.bytes().iter().for_each(|byte| self.mix(u64::from(*byte)));
                self.mix(u64::from(addr.port) << 8 | kind as u64);
            }
            Step::Switched(up) => self.mix(u64::from(up)),
        }
        let record = Record { at, node, step };
        match self.last.get_mut(self.next) {
            Some(place) => *place = record,
            None => self.last.push(record),
        }
        self.next = (self.next + 1) % STEPS_KEPT;
    }

    pub(super) fn hash(&self) -> u64 {
        let mut end = self.hash;
        end ^= end >> 32;
        end.wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    /// The last steps, oldest first.
    pub(super) fn last(&self) -> impl Iterator<Item = &Record> {
        let (new, old) = self.last.split_at(self.next.min(self.last.len()));
        old.iter().chain(new)
    }
}

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub messages: u64,
    /// Their bytes in version 1 of the transport, about.
    pub bytes: u64,
}

/// What nodes sent, by kind of message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic([Count; KINDS]);

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic([Count::default(); KINDS])
    }
}

fn slot(kind: Option<Kind>) -> usize {
    kind.map_or(KINDS - 1, |kind| kind as usize)
}

impl Traffic {
    pub(super) fn add(&mut self, message: &Message, bytes: usize) {
        let count = &mut self.0[slot(message.kind())];
        count.messages += 1;
        count.bytes += bytes as u64;
    }

    /// Of one kind.
    pub fn of(&self, kind: Kind) -> Count {
        self.0[slot(Some(kind))]
    }

    /// Of all kinds.
    pub fn total(&self) -> Count {
        self.0.iter().fold(Count::default(), |sum, one| Count {
            messages: sum.messages + one.messages,
            bytes: sum.bytes + one.bytes,
        })
    }

    /// What came after `before`, which was taken earlier in the same run.
    pub fn since(&self, before: &Traffic) -> Traffic {
        let mut rest = self.clone();
        for (one, old) in rest.0.iter_mut().zip(&before.0) {
            one.messages -= old.messages;
            one.bytes -= old.bytes;
        }
        rest
    }

    /// Every kind of which there was any, by name.
    pub fn kinds(&self) -> Vec<(&'static str, Count)> {
        let mut kinds: Vec<(&'static str, Count)> =
            Kind::all().map(|kind| (kind.name(), self.of(kind))).filter(|(_, count)| count.messages > 0).collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(count.bytes));
        kinds
    }
}
