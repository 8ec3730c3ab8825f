//! Links between nodes, actors and tests: made, carried over, ended. A link keeps the order of what it carries, and
//! carries messages, or the bytes of a transport.

use std::sync::Arc;
use std::time::Duration;

use super::actors::Cue;
use super::backend::Backend;
use super::link::Link;
use super::world::{Happening, World};
use crate::addr::{Host, NetAddr, Network};
use crate::message::Message;
use crate::peer::{LinkKind, Permissions};
use crate::protocol::{Input, PeerId};
use crate::timers::Micros;
use crate::wire::{Codec, Encoded, Entropy};

/// Who is at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    Node(u32),
    Actor(u32),
    /// A test that speaks for itself.
    Test,
}

/// One end of a link, as the other one sees it.
pub(super) struct End {
    pub(super) party: Party,
    pub(super) other: PeerId,
    link: Link,
    pub(super) codec: Option<Box<Codec>>,
    /// When the line is free again in this direction.
    pub(super) free: Micros,
    /// When the last thing that left from here arrives.
    last: Micros,
    /// Bytes sent since the node was told that all are gone.
    pub(super) untold: usize,
    /// Nothing leaves from here.
    mute: bool,
    /// The other side reads nothing.
    pub(super) unread: bool,
    /// Came to an end without a node, or to a node that does not read it.
    pub(super) mailbox: Vec<Arc<Message>>,
    pub(super) open: bool,
}

impl<B: Backend> World<B> {
    /// Links node `from` to node `to`: the ids by which each knows the other.
    pub fn connect(&mut self, from: usize, to: usize, kind: LinkKind, link: Link) -> (PeerId, PeerId) {
        if self.redial {
            self.nodes[from].dials.push((to, kind, link));
        }
        self.link(from, to, kind, link)
    }

    /// Links them at a later time.
    pub fn connect_at(&mut self, at: Micros, from: usize, to: usize, kind: LinkKind, link: Link) {
        if self.redial {
            self.nodes[from].dials.push((to, kind, link));
        }
        let life = self.nodes[from].life;
        self.push(at, Happening::Redial(Box::new((from, life, to, kind, link))));
    }

    pub(super) fn link(&mut self, from: usize, to: usize, kind: LinkKind, link: Link) -> (PeerId, PeerId) {
        let (a, b) = self.pair(Party::Node(from as u32), Party::Node(to as u32), link);
        let after = self.now + link.latency;
        // Who dials does so from whatever port is free.
        let from_port = NetAddr { port: 40_000 + (b.0 % 20_000) as u16, ..address(from) };
        self.tell_later(after, to, connected(b, from_port, LinkKind::Inbound));
        self.tell_later(after, from, connected(a, address(to), kind));
        (a, b)
    }

    /// Links a test that speaks for itself to node `to`, which sees it as a link of this kind. Gives the id of the
    /// test's end and the id by which the node knows it.
    pub fn speak_to(&mut self, to: usize, kind: LinkKind, permissions: Permissions) -> (PeerId, PeerId) {
        let (own, theirs) = self.pair(Party::Test, Party::Node(to as u32), Link::of(Duration::from_millis(1)));
        let addr = NetAddr { host: Host::V4([20, 0, (own.0 >> 8) as u8, own.0 as u8]), port: 8333 };
        let network = Network::Ipv4;
        self.tell(to, Input::Connected { peer: theirs, addr, kind, permissions, network, bind: None });
        (own, theirs)
    }

    /// As [`World::speak_to`], from a given address.
    pub fn speak_from(&mut self, to: usize, host: Host, kind: LinkKind) -> (PeerId, PeerId) {
        let (own, theirs) = self.pair(Party::Test, Party::Node(to as u32), Link::of(Duration::from_millis(1)));
        self.tell(to, connected(theirs, NetAddr { host, port: 50_000 }, kind));
        (own, theirs)
    }

    /// Has node `from` dial an actor, which is at `addr`. Gives the node's id for the link.
    pub fn connect_to_actor(&mut self, from: usize, actor: usize, addr: NetAddr, kind: LinkKind, link: Link) -> PeerId {
        let (a, b) = self.pair(Party::Node(from as u32), Party::Actor(actor as u32), link);
        let after = self.now + link.latency;
        self.cue_later(after, actor, Cue::Linked { end: b, node: from, dialled: false });
        self.tell_later(after, from, connected(a, addr, kind));
        a
    }

    /// Has an actor at `addr` dial node `to`.
    pub fn link_from_actor(&mut self, actor: usize, to: usize, addr: NetAddr, link: Link) {
        let (own, theirs) = self.pair(Party::Actor(actor as u32), Party::Node(to as u32), link);
        let at = self.now + link.latency;
        self.tell_later(at, to, connected(theirs, addr, LinkKind::Inbound));
        self.cue_later(at, actor, Cue::Linked { end: own, node: to, dialled: true });
    }

    pub(super) fn pair(&mut self, a: Party, b: Party, link: Link) -> (PeerId, PeerId) {
        let first = PeerId(self.ends.len() as u64 + 1);
        let second = PeerId(first.0 + 1);
        let magic = [0xfa, 0xbf, 0xb5, 0xda];
        let codecs = link.wire.map(|version| {
            let dialler = match version {
                1 => Codec::v1(magic),
                _ => Codec::v2(magic, Entropy::draw(&mut self.rng)),
            };
            (dialler, Codec::incoming(magic, Entropy::draw(&mut self.rng)))
        });
        let (dialler, answerer) = codecs.map_or((None, None), |(a, b)| (Some(Box::new(a)), Some(Box::new(b))));
        for (other, party, codec) in [(second, a, dialler), (first, b, answerer)] {
            self.ends.push(End {
                party,
                other,
                link,
                // An actor makes its own bytes.
                codec: codec.filter(|_| !matches!(party, Party::Actor(_))),
                free: self.now,
                last: self.now,
                untold: 0,
                mute: false,
                unread: false,
                mailbox: Vec::new(),
                open: true,
            });
        }
        (first, second)
    }

    pub(super) fn end(&mut self, id: PeerId) -> &mut End {
        &mut self.ends[id.0 as usize - 1]
    }

    /// Sends a message from the test's end `own`.
    pub fn say(&mut self, own: PeerId, message: Message) {
        self.send(own, Arc::new(message));
    }

    /// What came to the test's end since this was last asked.
    pub fn heard(&mut self, own: PeerId) -> Vec<Arc<Message>> {
        std::mem::take(&mut self.end(own).mailbox)
    }

    /// Whether the link of this end is open.
    pub fn is_open(&self, end: PeerId) -> bool {
        self.ends[end.0 as usize - 1].open
    }

    /// Whether both ends of this link are nodes.
    pub fn is_link_of_nodes(&self, end: PeerId) -> bool {
        let end = &self.ends[end.0 as usize - 1];
        let other = &self.ends[end.other.0 as usize - 1];
        matches!((end.party, other.party), (Party::Node(_), Party::Node(_)))
    }

    /// From now on nothing leaves from this end: the other side hears silence.
    pub fn mute(&mut self, end: PeerId) {
        self.end(end).mute = true;
    }

    /// Changes the line in the direction away from this end.
    pub fn set_link(&mut self, end: PeerId, link: Link) {
        self.end(end).link = link;
    }

    /// Breaks a link.
    pub fn cut(&mut self, end: PeerId) {
        let other = self.end(end).other;
        self.push(self.now, Happening::Closed(end));
        self.push(self.now, Happening::Closed(other));
    }

    pub(super) fn close(&mut self, id: PeerId) {
        let end = self.end(id);
        if !std::mem::replace(&mut end.open, false) {
            return;
        }
        end.mailbox.shrink_to_fit();
        match end.party {
            Party::Node(node) => {
                self.tell(node as usize, Input::Closed(id));
                self.ended(id);
            }
            Party::Actor(actor) => self.cue(actor as usize, Cue::Closed(id)),
            Party::Test => {}
        }
    }

    pub(super) fn arrive_bytes(&mut self, id: PeerId, bytes: &[u8]) {
        let end = self.end(id);
        if !end.open {
            return;
        }
        // An actor that sends bytes does not read any.
        let Some(codec) = end.codec.as_mut() else { return };
        let mut received = Vec::new();
        let fine = codec.receive(bytes, &mut received).is_ok();
        let answer = codec.take_outgoing();
        self.put_bytes(id, answer);
        received.into_iter().for_each(|one| self.arrive(id, Arc::new(one.message)));
        if !fine {
            self.cut(id);
        }
    }

    pub(super) fn arrive(&mut self, id: PeerId, message: Arc<Message>) {
        let end = self.end(id);
        if !end.open {
            return;
        }
        match end.party {
            Party::Test => end.mailbox.push(message),
            Party::Actor(actor) => self.cue(actor as usize, Cue::Heard(id, message)),
            Party::Node(node) => {
                if self.nodes[node as usize].paused.contains(&id) {
                    self.end(id).mailbox.push(message);
                } else {
                    self.hand_in(node as usize, id, message);
                }
            }
        }
    }

    pub(super) fn hand_in(&mut self, node: usize, peer: PeerId, message: Arc<Message>) {
        let wire_len = message.weight();
        let message = Arc::unwrap_or_clone(message);
        self.tell(node, Input::Message { peer, message, wire_len });
    }

    /// A node reads what came while it did not.
    pub(super) fn read_on(&mut self, id: PeerId) {
        let Party::Node(node) = self.end(id).party else { return };
        let mut waiting = std::mem::take(&mut self.end(id).mailbox).into_iter();
        while self.end(id).open && !self.nodes[node as usize].paused.contains(&id) {
            let Some(message) = waiting.next() else { return };
            self.hand_in(node as usize, id, message);
        }
        self.end(id).mailbox.splice(0..0, waiting);
    }

    pub(super) fn send(&mut self, from: PeerId, message: Arc<Message>) {
        let end = &mut self.ends[from.0 as usize - 1];
        if !end.open || end.mute {
            return;
        }
        if let Some(codec) = &mut end.codec {
            codec.send(&Encoded::new(&message));
            let bytes = codec.take_outgoing();
            return self.put_bytes(from, bytes);
        }
        let length = message.weight();
        let other = end.other;
        self.carry(from, length, Happening::Message(other, message));
    }

    pub(super) fn put_bytes(&mut self, from: PeerId, bytes: Vec<u8>) {
        let end = self.end(from);
        if bytes.is_empty() || end.mute || !end.open {
            return;
        }
        let other = end.other;
        self.carry(from, bytes.len(), Happening::Bytes(other, Arc::new(bytes)));
    }

    /// Puts something of this length on the line.
    pub(super) fn carry(&mut self, from: PeerId, length: usize, happening: Happening) {
        let end = &mut self.ends[from.0 as usize - 1];
        if end.unread {
            return;
        }
        let start = end.free.max(self.now);
        let time = end.link.bandwidth.map_or(0, |bandwidth| length as u64 * 1_000_000 / bandwidth.max(1));
        end.free = Micros(start.0 + time);
        let delay = end.link.delay(&mut self.rng);
        end.last = end.last.max(end.free + delay);
        let (at, party, other) = (end.last, end.party, end.other);
        if !self.sides.is_empty() && self.divided(party, other) {
            return self.held.push((delay, happening));
        }
        self.push(at, happening);
    }

    /// Ends a link from this side: the other one sees it after what was sent before.
    pub(super) fn hang_up(&mut self, id: PeerId) {
        let end = self.end(id);
        end.open = false;
        end.unread = false;
        let other = end.other;
        self.carry(id, 0, Happening::Closed(other));
    }
}

pub(super) fn connected(peer: PeerId, addr: NetAddr, kind: LinkKind) -> Input {
    let (permissions, network) = (Permissions::default(), addr.host.network());
    Input::Connected { peer, addr, kind, permissions, network, bind: None }
}

/// Where a node is: each in a group of its own.
pub fn address(node: usize) -> NetAddr {
    let (group, member) = (node % GROUPS, node / GROUPS);
    NetAddr { host: Host::V4([30 + (group >> 8) as u8, group as u8, member as u8, 1]), port: 8333 }
}

/// The node that is there.
pub(super) fn node_at(addr: &NetAddr) -> Option<usize> {
    let Host::V4([high, low, member, 1]) = addr.host else { return None };
    let group = usize::from(high.checked_sub(30)?) << 8 | usize::from(low);
    (group < GROUPS && addr.port == 8333).then_some(group + usize::from(member) * GROUPS)
}

/// Groups of addresses that nodes are in.
const GROUPS: usize = 60 << 8;
