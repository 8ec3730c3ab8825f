//! Nodes, links and the queue of what happens next. A link keeps the order of what it carries, and carries messages, or
//! the bytes of a transport. One end may be an actor, or a test that speaks for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::actors::{Act, Actor, Cue};
use super::backend::Backend;
use super::chain::Chain;
use super::link::Link;
use super::queue::Queue;
use super::trace::{Record, Step, Trace, Traffic};
use crate::addr::{Host, NetAddr, Network};
use crate::message::Message;
use crate::peer::{LinkKind, NODE_NETWORK, NODE_WITNESS, Permissions};
use crate::protocol::{Config, Event, Input, Output, PeerId, Policy, Protocol, Reason, Token, Work};
use crate::timers::Micros;
use crate::wire::{Codec, Encoded, Entropy};

/// Bytes sent to a peer after which the node is told that the line is free again.
const TOLD_AFTER: usize = 64 * 1024;
/// What a node would log is kept up to so many lines.
const EVENTS_KEPT: usize = 4096;

/// A node.
pub struct Node<B = Chain> {
    /// What is tested.
    pub protocol: Protocol,
    /// Its ledger.
    pub chain: B,
    /// How long its ledger takes for a piece of work.
    pub ledger_time: Duration,
    /// How much longer it takes for a block.
    pub block_time: Duration,
    /// Links that it ended, with the reason.
    pub ended: Vec<(PeerId, Reason)>,
    /// What it would log.
    pub events: Vec<Event>,
    /// Sockets that it does not read.
    pub paused: BTreeSet<PeerId>,
    /// How often it stopped reading a socket.
    pub pauses: usize,
    /// What it sent in all, in messages' weights.
    pub sent_bytes: u64,
    /// It answers when it is dialled.
    pub answers: bool,
    /// Whom it dialled by itself.
    pub dialled: Vec<(Micros, NetAddr, LinkKind)>,
    /// Its clock less the world's, in microseconds.
    pub skew: i64,
    /// It runs.
    pub up: bool,
    pub(super) config: Config,
    /// Whom it dials.
    pub(super) dials: Vec<(usize, LinkKind, Link)>,
    /// How often it came up: what was meant for an earlier life is lost.
    pub(super) life: u32,
    wake: Option<Micros>,
}

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
    codec: Option<Box<Codec>>,
    /// When the line is free again in this direction.
    free: Micros,
    /// When the last thing that left from here arrives.
    last: Micros,
    /// Bytes sent since the node was told that all are gone.
    untold: usize,
    /// Nothing leaves from here.
    mute: bool,
    /// The other side reads nothing.
    unread: bool,
    /// Came to an end without a node, or to a node that does not read it.
    mailbox: Vec<Arc<Message>>,
    pub(super) open: bool,
}

#[expect(clippy::box_collection, reason = "millions of these wait: each is as small as can be")]
pub(super) enum Happening {
    Message(PeerId, Arc<Message>),
    Bytes(PeerId, Box<Vec<u8>>),
    Closed(PeerId),
    /// A node reads again.
    Read(PeerId),
    /// All that a node sent on this link is gone.
    Drained(PeerId),
    Told(Box<(usize, u32, Input)>),
    Work(Box<(usize, u32, Token, Work)>),
    Wake(u32),
    Cue(u32, Box<Cue>),
    Redial(Box<(usize, u32, usize, LinkKind, Link)>),
}

/// Everything there is.
pub struct World<B = Chain> {
    /// The time everywhere.
    pub now: Micros,
    /// The nodes, by number.
    pub nodes: Vec<Node<B>>,
    /// What any seed's name stands for.
    pub seeds: Vec<NetAddr>,
    /// Nodes dial again where a link that they made has ended.
    pub redial: bool,
    /// What nodes sent.
    pub traffic: Traffic,
    /// Inputs that nodes took.
    pub inputs: u64,
    pub(super) ends: Vec<End>,
    actors: Vec<Option<Box<dyn Actor>>>,
    queue: Queue<Happening>,
    pub(super) rng: ChaCha8Rng,
    pub(super) trace: Trace,
    /// When which node had a transaction or block that is watched.
    sightings: BTreeMap<[u8; 32], Vec<(Micros, usize)>>,
    /// The side of each node while the network is divided.
    pub(super) sides: Vec<u8>,
    /// What cannot pass until it is whole again.
    pub(super) held: Vec<(Duration, Happening)>,
    outputs: Vec<Output>,
}

impl World {
    /// The options of a common node on a network.
    pub fn config(params: &Arc<groat_chain::params::Params>) -> Config {
        Config {
            params: params.clone(),
            services: NODE_NETWORK | NODE_WITNESS,
            user_agent: "/Groat:sim/".into(),
            blocks_only: false,
            dialling: crate::dial::Options::default(),
            peer_timeout: crate::timers::HANDSHAKE_TIMEOUT,
            relay: Policy::Core,
            reconcile: false,
            upload_target: 0,
            limits: crate::limits::Limits::default(),
            seed: [0; 32],
        }
    }
}

impl<B: Backend> World<B> {
    /// An empty world at the time `now`.
    pub fn new(seed: u64, now: Micros) -> World<B> {
        World {
            now,
            nodes: Vec::new(),
            seeds: Vec::new(),
            redial: false,
            traffic: Traffic::default(),
            inputs: 0,
            ends: Vec::new(),
            actors: Vec::new(),
            queue: Queue::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            trace: Trace::new(),
            sightings: BTreeMap::new(),
            sides: Vec::new(),
            held: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Adds a node. Its seed comes from its number.
    pub fn add(&mut self, mut config: Config, chain: B) -> usize {
        let number = self.nodes.len();
        config.seed[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
        self.nodes.push(Node {
            protocol: Protocol::new(config.clone()),
            chain,
            ledger_time: Duration::from_millis(1),
            block_time: Duration::ZERO,
            ended: Vec::new(),
            events: Vec::new(),
            paused: BTreeSet::new(),
            pauses: 0,
            sent_bytes: 0,
            answers: true,
            dialled: Vec::new(),
            skew: 0,
            up: true,
            config,
            dials: Vec::new(),
            life: 0,
            wake: None,
        });
        number
    }

    /// Gives a node without links another window for blocks.
    pub fn set_window(&mut self, node: usize, blocks: u32) {
        let node = &mut self.nodes[node];
        node.config.limits.block_window = blocks;
        node.protocol = Protocol::new(node.config.clone());
    }

    /// Adds an actor and wakes it at once.
    pub fn add_actor(&mut self, actor: Box<dyn Actor>) -> usize {
        self.actors.push(Some(actor));
        let number = self.actors.len() - 1;
        self.push(self.now, Happening::Cue(number as u32, Box::new(Cue::Wake)));
        number
    }

    /// Links node `from` to node `to`: the ids by which each knows the other.
    pub fn connect(&mut self, from: usize, to: usize, kind: LinkKind, link: Link) -> (PeerId, PeerId) {
        if self.redial {
            self.nodes[from].dials.push((to, kind, link));
        }
        self.link(from, to, kind, link)
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

    /// Links them at a later time.
    pub fn connect_at(&mut self, at: Micros, from: usize, to: usize, kind: LinkKind, link: Link) {
        if self.redial {
            self.nodes[from].dials.push((to, kind, link));
        }
        let life = self.nodes[from].life;
        self.push(at, Happening::Redial(Box::new((from, life, to, kind, link))));
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

    fn pair(&mut self, a: Party, b: Party, link: Link) -> (PeerId, PeerId) {
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

    /// Gives a node a transaction as if its operator had sent it.
    pub fn give_tx(&mut self, node: usize, tx: Arc<bitcoin::Transaction>) {
        let (_, told) = self.nodes[node].chain.perform(Work::Transaction(tx), self.now);
        told.into_iter().for_each(|input| self.tell(node, input));
    }

    /// Gives a node a block as if it had mined it.
    pub fn give_block(&mut self, node: usize, block: &super::Mined) {
        let work = Work::Block { hash: block.hash, bytes: block.bytes.clone(), asked: true };
        let (_, told) = self.nodes[node].chain.perform(work, self.now);
        told.into_iter().for_each(|input| self.tell(node, input));
    }

    /// Ends all links of a node and puts another protocol in its place, as a start of the program does.
    pub fn replace(&mut self, node: usize, protocol: Protocol) {
        let links: Vec<PeerId> = self.nodes[node].protocol.peers().map(|peer| peer.id).collect();
        links.into_iter().for_each(|end| self.cut(end));
        self.run_until(self.now);
        self.nodes[node].protocol = protocol;
        self.tell(node, Input::Tick);
    }

    /// Tells a node something as its hub would.
    pub fn inform(&mut self, node: usize, input: Input) {
        self.tell(node, input);
    }

    /// From now on it is noted when which node has the transaction or block with this hash.
    pub fn watch(&mut self, hash: [u8; 32]) {
        self.sightings.insert(hash, Vec::new());
    }

    /// When which node had what is watched, in order.
    pub fn sightings(&self, hash: &[u8; 32]) -> &[(Micros, usize)] {
        self.sightings.get(hash).map_or(&[], Vec::as_slice)
    }

    /// Runs until nothing is due before `until`.
    pub fn run_until(&mut self, until: Micros) {
        while self.step(until) {}
        self.now = self.now.max(until);
    }

    /// Runs for a time.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until `done` says so, at most for a time; whether it did.
    pub fn run_while(&mut self, time: Duration, mut done: impl FnMut(&World<B>) -> bool) -> bool {
        let until = self.now + time;
        while !done(self) {
            if !self.step(until) {
                self.now = until;
                return done(self);
            }
        }
        true
    }

    /// Runs until `done` says so, which is asked once a `stride`, at most for a time; whether it did.
    pub fn run_by_steps(&mut self, time: Duration, stride: Duration, done: impl Fn(&World<B>) -> bool) -> bool {
        let until = self.now + time;
        while !done(self) {
            if self.now >= until {
                return false;
            }
            self.run_until((self.now + stride).min(until));
        }
        true
    }

    /// A number that two runs have in common only if all their outputs were the same.
    pub fn trace(&self) -> u64 {
        self.trace.hash()
    }

    /// The last things that nodes did, oldest first.
    pub fn last_steps(&self) -> impl Iterator<Item = &Record> {
        self.trace.last()
    }

    /// Things that will happen.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    fn step(&mut self, until: Micros) -> bool {
        let Some((at, happening)) = self.queue.pop(until) else { return false };
        self.now = self.now.max(at);
        self.happen(happening);
        true
    }

    pub(super) fn push(&mut self, at: Micros, happening: Happening) {
        self.queue.push(at, happening);
    }

    pub(super) fn tell_later(&mut self, at: Micros, node: usize, input: Input) {
        let life = self.nodes[node].life;
        self.push(at, Happening::Told(Box::new((node, life, input))));
    }

    fn cue_later(&mut self, at: Micros, actor: usize, cue: Cue) {
        self.push(at, Happening::Cue(actor as u32, Box::new(cue)));
    }

    fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].up && self.nodes[node].life == life
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Message(id, message) => self.arrive(id, message),
            Happening::Wake(node) => self.wake(node as usize),
            Happening::Drained(id) => {
                if let (Party::Node(node), true) = (self.end(id).party, self.end(id).open) {
                    self.tell(node as usize, Input::Queued { peer: id, bytes: 0 });
                }
            }
            Happening::Read(id) => self.read_on(id),
            Happening::Told(told) => {
                let (node, life, input) = *told;
                if self.lives(node, life) {
                    self.tell(node, input);
                }
            }
            Happening::Work(work) => {
                let (node, life, token, work) = *work;
                if self.lives(node, life) {
                    self.perform(node, token, work);
                }
            }
            Happening::Closed(id) => self.close(id),
            Happening::Cue(actor, cue) => self.cue(actor as usize, *cue),
            Happening::Redial(dial) => self.dial_again(*dial),
            Happening::Bytes(id, bytes) => self.arrive_bytes(id, &bytes),
        }
    }

    fn perform(&mut self, node: usize, token: Token, work: Work) {
        let (done, told) = self.nodes[node].chain.perform(work, self.now);
        let (before, after): (Vec<Input>, Vec<Input>) =
            told.into_iter().partition(|input| matches!(input, Input::TxAccepted { .. }));
        before.into_iter().for_each(|input| self.tell(node, input));
        self.tell(node, Input::ChainDone { token, done });
        after.into_iter().for_each(|input| self.tell(node, input));
    }

    fn close(&mut self, id: PeerId) {
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

    fn arrive_bytes(&mut self, id: PeerId, bytes: &[u8]) {
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

    fn arrive(&mut self, id: PeerId, message: Arc<Message>) {
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

    fn hand_in(&mut self, node: usize, peer: PeerId, message: Arc<Message>) {
        let wire_len = message.weight();
        let message = Arc::unwrap_or_clone(message);
        self.tell(node, Input::Message { peer, message, wire_len });
    }

    /// A node reads what came while it did not.
    fn read_on(&mut self, id: PeerId) {
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

    fn put_bytes(&mut self, from: PeerId, bytes: Vec<u8>) {
        let end = self.end(from);
        if bytes.is_empty() || end.mute || !end.open {
            return;
        }
        let other = end.other;
        self.carry(from, bytes.len(), Happening::Bytes(other, Box::new(bytes)));
    }

    /// Puts something of this length on the line.
    fn carry(&mut self, from: PeerId, length: usize, happening: Happening) {
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

    /// Gives a node its tick, if it is due.
    fn wake(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.wake.is_some_and(|at| at <= self.now) {
            node.wake = None;
            if node.up && node.deadline().is_some_and(|at| at <= self.now) {
                return self.tell(number, Input::Tick);
            }
            self.set_wake(number);
        }
    }

    /// Sees to it that the node is woken at its deadline, or before. A wake that comes too early only looks again.
    fn set_wake(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let Some(at) = node.deadline().filter(|at| node.wake.is_none_or(|wake| *at < wake)) else { return };
        node.wake = Some(at);
        self.push(at, Happening::Wake(number as u32));
    }

    /// Hands an input to a node and carries its outputs out.
    pub(super) fn tell(&mut self, number: usize, input: Input) {
        self.inputs += 1;
        if !self.sightings.is_empty() {
            self.sight(number, &input);
        }
        let node = &mut self.nodes[number];
        let dialled = match &input {
            Input::Connected { peer, .. } => Some(*peer),
            _ => None,
        };
        let mut out = std::mem::take(&mut self.outputs);
        let now = Micros(self.now.0.saturating_add_signed(node.skew));
        node.protocol.handle(now, input, &node.chain, &mut out);
        self.set_wake(number);
        if let Some(peer) = dialled {
            let start = self.end(peer).codec.as_mut().map(|codec| codec.take_outgoing());
            start.into_iter().for_each(|bytes| self.put_bytes(peer, bytes));
        }
        self.trace.note(self.now, number, Step::Took(out.len()));
        out.drain(..).for_each(|output| self.carry_out(number, output));
        self.outputs = out;
    }

    fn sight(&mut self, number: usize, input: &Input) {
        let hashes: Vec<[u8; 32]> = match input {
            Input::TxAccepted { wtxid, .. } => vec![*wtxid.as_ref()],
            Input::TipChanged(blocks) => blocks.iter().map(|hash| *hash.as_ref()).collect(),
            _ => return,
        };
        for hash in hashes {
            self.sightings.entry(hash).and_modify(|seen| seen.push((self.now, number)));
        }
    }

    fn carry_out(&mut self, number: usize, output: Output) {
        match output {
            Output::Send { to, message } => {
                let weight = message.weight();
                self.trace.note(self.now, number, Step::Sent(to, message.kind(), weight));
                self.traffic.add(&message, weight);
                self.nodes[number].sent_bytes += weight as u64;
                self.send(to, message);
                let end = self.end(to);
                end.untold += weight;
                if end.untold >= TOLD_AFTER && !end.unread {
                    // The socket is empty when the line is free.
                    end.untold = 0;
                    let free = end.free;
                    self.push(free.max(self.now), Happening::Drained(to));
                }
            }
            Output::Disconnect { peer, reason } => {
                self.trace.note(self.now, number, Step::Ended(peer, reason));
                self.nodes[number].ended.push((peer, reason));
                self.nodes[number].paused.remove(&peer);
                self.hang_up(peer);
                self.ended(peer);
            }
            Output::Chain { token, work } => {
                self.trace.note(self.now, number, Step::Asked(token));
                let node = &self.nodes[number];
                let more = if matches!(work, Work::Block { .. }) { node.block_time } else { Duration::ZERO };
                let (at, life) = (self.now + node.ledger_time + more, node.life);
                self.push(at, Happening::Work(Box::new((number, life, token, work))));
            }
            Output::PauseRead(peer) => {
                self.nodes[number].paused.insert(peer);
                self.nodes[number].pauses += 1;
            }
            Output::ResumeRead(peer) => {
                self.nodes[number].paused.remove(&peer);
                if !self.end(peer).mailbox.is_empty() {
                    self.push(self.now, Happening::Read(peer));
                }
            }
            Output::Dial { addr, kind, .. } => {
                self.trace.note(self.now, number, Step::Dialled(addr, kind));
                self.nodes[number].dialled.push((self.now, addr, kind));
                let answers = |to: &usize| self.nodes.get(*to).is_some_and(|node| node.answers && node.up);
                match node_at(&addr).filter(answers) {
                    Some(to) => _ = self.link(number, to, kind, Link::default()),
                    None => {
                        let at = self.now + Duration::from_secs(1);
                        self.tell_later(at, number, Input::DialFailed { addr, tried: true });
                    }
                }
            }
            Output::AskSeed(name) => {
                let addrs = self.seeds.clone();
                self.tell_later(self.now + Duration::from_millis(50), number, Input::Seeded { name, addrs });
            }
            Output::Fetch(_) | Output::BansChanged => {}
            Output::Event(event) => {
                let events = &mut self.nodes[number].events;
                if events.len() < EVENTS_KEPT {
                    events.push(event);
                }
            }
        }
    }

    /// Ends a link from this side: the other one sees it after what was sent before.
    pub(super) fn hang_up(&mut self, id: PeerId) {
        let end = self.end(id);
        end.open = false;
        end.unread = false;
        let other = end.other;
        self.carry(id, 0, Happening::Closed(other));
    }

    fn cue(&mut self, number: usize, cue: Cue) {
        let Some(mut actor) = self.actors[number].take() else { return };
        let mut acts = Vec::new();
        actor.take(self.now, cue, &mut acts);
        self.actors[number] = Some(actor);
        for act in acts {
            match act {
                Act::Say(end, message) => self.send(end, message),
                Act::Bytes(end, bytes) => self.put_bytes(end, bytes),
                Act::Cut(end) => self.hang_up(end),
                Act::StopReading(end) => {
                    let other = self.end(end).other;
                    self.end(other).unread = true;
                }
                Act::Dial { node, from, link } => self.link_from_actor(number, node, from, link),
                Act::WakeAt(at) => self.cue_later(at, number, Cue::Wake),
            }
        }
    }
}

impl<B> Node<B> {
    /// The deadline of its protocol by the world's clock.
    fn deadline(&self) -> Option<Micros> {
        let at = self.protocol.deadline()?;
        Some(Micros(at.0.saturating_add_signed(self.skew.saturating_neg())))
    }
}

fn connected(peer: PeerId, addr: NetAddr, kind: LinkKind) -> Input {
    let (permissions, network) = (Permissions::default(), addr.host.network());
    Input::Connected { peer, addr, kind, permissions, network, bind: None }
}

/// Where a node is: each in a group of its own.
pub fn address(node: usize) -> NetAddr {
    let (group, member) = (node % GROUPS, node / GROUPS);
    NetAddr { host: Host::V4([30 + (group >> 8) as u8, group as u8, member as u8, 1]), port: 8333 }
}

/// The node that is there.
fn node_at(addr: &NetAddr) -> Option<usize> {
    let Host::V4([high, low, member, 1]) = addr.host else { return None };
    let group = usize::from(high.checked_sub(30)?) << 8 | usize::from(low);
    (group < GROUPS && addr.port == 8333).then_some(group + usize::from(member) * GROUPS)
}

/// Groups of addresses that nodes are in.
const GROUPS: usize = 60 << 8;
