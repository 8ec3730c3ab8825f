//! Nodes, and what happens to them one thing after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::actors::{Act, Actor, Cue};
use super::backend::Backend;
use super::chain::Chain;
use super::ends::{End, Party, node_at};
use super::link::Link;
use super::queue::Queue;
use super::trace::{Record, Step, Trace, Traffic};
use crate::addr::NetAddr;
use crate::message::Message;
use crate::peer::{LinkKind, NODE_NETWORK, NODE_WITNESS};
use crate::protocol::{Config, Event, Input, Output, PeerId, Policy, Protocol, Reason, Token, Work};
use crate::timers::Micros;

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
    /// How much longer it takes to connect a block, after it has said that it is stored.
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

pub(super) enum Happening {
    Message(PeerId, Arc<Message>),
    Bytes(PeerId, Arc<Vec<u8>>),
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
            dialling: crate::protocol::LinkOptions::default(),
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

    pub(super) fn cue_later(&mut self, at: Micros, actor: usize, cue: Cue) {
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
        let is_block = matches!(work, Work::Block { .. });
        let (done, told) = self.nodes[node].chain.perform(work, self.now);
        let (before, after): (Vec<Input>, Vec<Input>) =
            told.into_iter().partition(|input| matches!(input, Input::TxAccepted { .. } | Input::BlockStored(_)));
        before.into_iter().for_each(|input| self.tell(node, input));
        let rest = std::iter::once(Input::ChainDone { token, done }).chain(after);
        let more = self.nodes[node].block_time;
        if is_block && !more.is_zero() {
            let at = self.now + more;
            return rest.for_each(|input| self.tell_later(at, node, input));
        }
        rest.for_each(|input| self.tell(node, input));
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
                let (at, life) = (self.now + node.ledger_time, node.life);
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

    pub(super) fn cue(&mut self, number: usize, cue: Cue) {
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
