//! Nodes, links and the queue of what happens next. A link has latency and, if wanted, bandwidth; it keeps the order of
//! what it carries, and carries messages, or the bytes of a transport. One end may be a test that speaks for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::chain::Chain;
use crate::addr::{Host, NetAddr, Network};
use crate::message::Message;
use crate::peer::{LinkKind, NODE_NETWORK, NODE_WITNESS, Permissions};
use crate::protocol::{Config, Event, Input, Output, PeerId, Policy, Protocol, Reason};
use crate::timers::Micros;
use crate::wire::{Codec, Encoded, Entropy};

/// A node.
pub struct Node {
    /// What is tested.
    pub protocol: Protocol,
    /// Its ledger.
    pub chain: Chain,
    /// How long its ledger takes for a piece of work.
    pub ledger_time: Duration,
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
    wake: Option<Micros>,
}

/// How a link carries.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// One way.
    pub latency: Duration,
    /// Bytes a second, each way; none: no bound.
    pub bandwidth: Option<u64>,
    /// Carry bytes of version 1 or 2 of the transport instead of messages.
    pub wire: Option<u8>,
}

impl Default for Link {
    fn default() -> Link {
        Link { latency: Duration::from_millis(50), bandwidth: None, wire: None }
    }
}

/// One end of a link, as the other one sees it.
struct End {
    /// The node here; none for a test that speaks for itself.
    node: Option<usize>,
    other: PeerId,
    link: Link,
    codec: Option<Box<Codec>>,
    /// When the line is free again in this direction.
    free: Micros,
    /// Bytes sent since the node was told that all are gone.
    untold: usize,
    /// Nothing leaves from here.
    mute: bool,
    /// Came to an end without a node.
    mailbox: Vec<(Micros, Arc<Message>)>,
    open: bool,
}

enum Happening {
    Message(PeerId, Arc<Message>),
    Bytes(PeerId, Vec<u8>),
    Closed(PeerId),
    Told(usize, Input),
    Work(usize, crate::protocol::Token, crate::protocol::Work),
}

/// Everything there is.
pub struct World {
    /// The time everywhere.
    pub now: Micros,
    /// The nodes, by number.
    pub nodes: Vec<Node>,
    /// What any seed's name stands for.
    pub seeds: Vec<NetAddr>,
    ends: BTreeMap<PeerId, End>,
    queue: BTreeMap<(Micros, u64), Happening>,
    wakes: BTreeSet<(Micros, usize)>,
    sequence: u64,
    next_peer: u64,
    rng: ChaCha8Rng,
    trace: DefaultHasher,
}

impl World {
    /// An empty world at the time `now`.
    pub fn new(seed: u64, now: Micros) -> World {
        World {
            now,
            nodes: Vec::new(),
            seeds: Vec::new(),
            ends: BTreeMap::new(),
            queue: BTreeMap::new(),
            wakes: BTreeSet::new(),
            sequence: 0,
            next_peer: 1,
            rng: ChaCha8Rng::seed_from_u64(seed),
            trace: DefaultHasher::new(),
        }
    }

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

    /// Adds a node. Its seed comes from its number.
    pub fn add(&mut self, mut config: Config, chain: Chain) -> usize {
        let number = self.nodes.len();
        config.seed[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
        self.nodes.push(Node {
            protocol: Protocol::new(config),
            chain,
            ledger_time: Duration::from_millis(1),
            ended: Vec::new(),
            events: Vec::new(),
            paused: BTreeSet::new(),
            pauses: 0,
            sent_bytes: 0,
            answers: true,
            dialled: Vec::new(),
            wake: None,
        });
        number
    }

    /// Links node `from` to node `to`: the ids by which each knows the other.
    pub fn connect(&mut self, from: usize, to: usize, kind: LinkKind, link: Link) -> (PeerId, PeerId) {
        let (a, b) = self.pair(Some(from), Some(to), link);
        let after = self.now + link.latency;
        // Who dials does so from whatever port is free.
        let port = |peer: PeerId| 40_000 + (peer.0 % 20_000) as u16;
        let connected = |peer: PeerId, host, kind| Input::Connected {
            peer,
            addr: match kind {
                LinkKind::Inbound => NetAddr { port: port(peer), ..address(host) },
                _ => address(host),
            },
            kind,
            permissions: Permissions::default(),
            network: Network::Ipv4,
            bind: None,
        };
        self.push(after, Happening::Told(to, connected(b, from, LinkKind::Inbound)));
        self.push(after, Happening::Told(from, connected(a, to, kind)));
        (a, b)
    }

    /// Links a test that speaks for itself to node `to`, which sees it as a link of this kind. Gives the id of the
    /// test's end and the id by which the node knows it.
    pub fn speak_to(&mut self, to: usize, kind: LinkKind, permissions: Permissions) -> (PeerId, PeerId) {
        let (own, theirs) = self.pair(None, Some(to), Link { latency: Duration::from_millis(1), ..Link::default() });
        let addr = NetAddr { host: Host::V4([20, 0, (own.0 >> 8) as u8, own.0 as u8]), port: 8333 };
        let network = Network::Ipv4;
        self.tell(to, Input::Connected { peer: theirs, addr, kind, permissions, network, bind: None });
        (own, theirs)
    }

    /// As [`World::speak_to`], from a given address.
    pub fn speak_from(&mut self, to: usize, host: Host, kind: LinkKind) -> (PeerId, PeerId) {
        let (own, theirs) = self.pair(None, Some(to), Link { latency: Duration::from_millis(1), ..Link::default() });
        let (addr, permissions, network) = (NetAddr { host, port: 50_000 }, Permissions::default(), host.network());
        self.tell(to, Input::Connected { peer: theirs, addr, kind, permissions, network, bind: None });
        (own, theirs)
    }

    fn pair(&mut self, a: Option<usize>, b: Option<usize>, link: Link) -> (PeerId, PeerId) {
        let (first, second) = (PeerId(self.next_peer), PeerId(self.next_peer + 1));
        self.next_peer += 2;
        let magic = [0xfa, 0xbf, 0xb5, 0xda];
        let codecs = link.wire.map(|version| {
            let dialler = match version {
                1 => Codec::v1(magic),
                _ => Codec::v2(magic, Entropy::draw(&mut self.rng)),
            };
            (dialler, Codec::incoming(magic, Entropy::draw(&mut self.rng)))
        });
        let (dialler, answerer) = codecs.map_or((None, None), |(a, b)| (Some(Box::new(a)), Some(Box::new(b))));
        for (id, other, node, codec) in [(first, second, a, dialler), (second, first, b, answerer)] {
            let end = End {
                node,
                other,
                link,
                codec,
                free: self.now,
                untold: 0,
                mute: false,
                mailbox: Vec::new(),
                open: true,
            };
            self.ends.insert(id, end);
        }
        (first, second)
    }

    /// Sends a message from the test's end `own`.
    pub fn say(&mut self, own: PeerId, message: Message) {
        self.send(own, Arc::new(message));
    }

    /// What came to the test's end since this was last asked.
    pub fn heard(&mut self, own: PeerId) -> Vec<Arc<Message>> {
        let end = self.ends.get_mut(&own).expect("an end of this world");
        end.mailbox.drain(..).map(|(_, message)| message).collect()
    }

    /// Whether the link of this end is open.
    pub fn is_open(&self, end: PeerId) -> bool {
        self.ends[&end].open
    }

    /// From now on nothing leaves from this end: the other side hears silence.
    pub fn mute(&mut self, end: PeerId) {
        self.ends.get_mut(&end).expect("an end of this world").mute = true;
    }

    /// Changes the line in the direction away from this end.
    pub fn set_link(&mut self, end: PeerId, link: Link) {
        self.ends.get_mut(&end).expect("an end of this world").link = link;
    }

    /// Breaks a link.
    pub fn cut(&mut self, end: PeerId) {
        let other = self.ends[&end].other;
        self.push(self.now, Happening::Closed(end));
        self.push(self.now, Happening::Closed(other));
    }

    /// Gives a node a transaction as if its operator had sent it.
    pub fn give_tx(&mut self, node: usize, tx: Arc<bitcoin::Transaction>) {
        let (_, told) = self.nodes[node].chain.perform(crate::protocol::Work::Transaction(tx), self.now);
        told.into_iter().for_each(|input| self.tell(node, input));
    }

    /// Tells a node's protocol something.
    pub fn input(&mut self, node: usize, input: Input) {
        self.tell(node, input);
    }

    /// Gives a node a block as if it had mined it.
    pub fn give_block(&mut self, node: usize, block: &super::Mined) {
        let work = crate::protocol::Work::Block { hash: block.hash, bytes: block.bytes.clone(), asked: true };
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

    /// Runs until nothing is due before `until`.
    pub fn run_until(&mut self, until: Micros) {
        while self.step(until) {}
        self.now = until;
    }

    /// Runs for a time.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until `done` says so, at most for a time; whether it did.
    pub fn run_while(&mut self, time: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let until = self.now + time;
        while !done(self) {
            if !self.step(until) {
                self.now = until;
                return done(self);
            }
        }
        true
    }

    /// A number that two runs have in common only if all their outputs were the same.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    fn step(&mut self, until: Micros) -> bool {
        let queued = self.queue.first_key_value().map(|(key, _)| key.0);
        let wake = self.wakes.first().copied();
        match (queued, wake) {
            (queued, Some((at, node))) if at <= until && queued.is_none_or(|queued| at < queued) => {
                self.now = self.now.max(at);
                self.tell(node, Input::Tick);
            }
            (Some(at), _) if at <= until => {
                self.now = self.now.max(at);
                let (_, happening) = self.queue.pop_first().expect("seen above");
                self.happen(happening);
            }
            _ => return false,
        }
        true
    }

    fn push(&mut self, at: Micros, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Told(node, input) => self.tell(node, input),
            Happening::Work(node, token, work) => {
                let (done, told) = self.nodes[node].chain.perform(work, self.now);
                let (before, after): (Vec<Input>, Vec<Input>) =
                    told.into_iter().partition(|input| matches!(input, Input::TxAccepted { .. }));
                before.into_iter().for_each(|input| self.tell(node, input));
                self.tell(node, Input::ChainDone { token, done });
                after.into_iter().for_each(|input| self.tell(node, input));
            }
            Happening::Closed(id) => {
                let end = self.ends.get_mut(&id).expect("an end of this world");
                let node = end.node.filter(|_| end.open);
                end.open = false;
                if let Some(node) = node {
                    self.tell(node, Input::Closed(id));
                }
            }
            Happening::Message(id, message) => self.arrive(id, message),
            Happening::Bytes(id, bytes) => {
                let Some(end) = self.ends.get_mut(&id).filter(|end| end.open) else { return };
                let mut received = Vec::new();
                let codec = end.codec.as_mut().expect("a link that carries bytes");
                let fine = codec.receive(&bytes, &mut received).is_ok();
                let answer = codec.take_outgoing();
                self.put_bytes(id, answer);
                received.into_iter().for_each(|one| self.arrive(id, Arc::new(one.message)));
                if !fine {
                    self.cut(id);
                }
            }
        }
    }

    fn arrive(&mut self, id: PeerId, message: Arc<Message>) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(&id).filter(|end| end.open) else { return };
        match end.node {
            None => end.mailbox.push((now, message)),
            Some(node) => {
                let wire_len = message.weight();
                let message = Arc::unwrap_or_clone(message);
                self.tell(node, Input::Message { peer: id, message, wire_len });
            }
        }
    }

    fn send(&mut self, from: PeerId, message: Arc<Message>) {
        let Some(end) = self.ends.get_mut(&from).filter(|end| end.open && !end.mute) else { return };
        if let Some(codec) = &mut end.codec {
            codec.send(&Encoded::new(&message));
            let bytes = codec.take_outgoing();
            return self.put_bytes(from, bytes);
        }
        let (other, at) = (end.other, end.line(self.now, message.weight()));
        self.push(at, Happening::Message(other, message));
    }

    fn put_bytes(&mut self, from: PeerId, bytes: Vec<u8>) {
        let end = self.ends.get_mut(&from).expect("an end of this world");
        if bytes.is_empty() || end.mute {
            return;
        }
        let (other, at) = (end.other, end.line(self.now, bytes.len()));
        self.push(at, Happening::Bytes(other, bytes));
    }

    /// Hands an input to a node and carries its outputs out.
    fn tell(&mut self, number: usize, input: Input) {
        let node = &mut self.nodes[number];
        let dialled = match &input {
            Input::Connected { peer, .. } => Some(*peer),
            _ => None,
        };
        let mut out = Vec::new();
        node.protocol.handle(self.now, input, &node.chain, &mut out);
        let wake = node.protocol.deadline();
        if wake != node.wake {
            if let Some(old) = node.wake {
                self.wakes.remove(&(old, number));
            }
            self.wakes.extend(wake.map(|new| (new, number)));
            self.nodes[number].wake = wake;
        }
        if let Some(peer) = dialled {
            let start = self.ends.get_mut(&peer).and_then(|end| end.codec.as_mut()).map(|codec| codec.take_outgoing());
            start.into_iter().for_each(|bytes| self.put_bytes(peer, bytes));
        }
        (self.now, number, out.len()).hash(&mut self.trace);
        out.into_iter().for_each(|output| self.carry_out(number, output));
    }

    fn carry_out(&mut self, number: usize, output: Output) {
        match output {
            Output::Send { to, message } => {
                (to, message.kind(), message.weight()).hash(&mut self.trace);
                let weight = message.weight();
                self.nodes[number].sent_bytes += weight as u64;
                self.send(to, message);
                let end = self.ends.get_mut(&to).expect("an end of this world");
                end.untold += weight;
                if end.untold >= 64 * 1024 {
                    // The socket is empty when the line is free.
                    end.untold = 0;
                    let free = end.free.max(self.now);
                    self.push(free, Happening::Told(number, Input::Queued { peer: to, bytes: 0 }));
                }
            }
            Output::Disconnect { peer, reason } => {
                (peer, format!("{reason:?}")).hash(&mut self.trace);
                self.nodes[number].ended.push((peer, reason));
                let end = self.ends.get_mut(&peer).expect("an end of this world");
                end.open = false;
                let (other, at) = (end.other, end.line(self.now, 0));
                self.push(at, Happening::Closed(other));
            }
            Output::Chain { token, work } => {
                token.hash(&mut self.trace);
                let at = self.now + self.nodes[number].ledger_time;
                self.push(at, Happening::Work(number, token, work));
            }
            Output::PauseRead(peer) => {
                self.nodes[number].paused.insert(peer);
                self.nodes[number].pauses += 1;
            }
            Output::ResumeRead(peer) => {
                self.nodes[number].paused.remove(&peer);
            }
            Output::Dial { addr, kind, .. } => {
                (addr, kind).hash(&mut self.trace);
                self.nodes[number].dialled.push((self.now, addr, kind));
                match node_at(&addr).filter(|to| self.nodes.get(*to).is_some_and(|node| node.answers)) {
                    Some(to) => drop(self.connect(number, to, kind, Link::default())),
                    None => {
                        let failed = Happening::Told(number, Input::DialFailed { addr, tried: true });
                        self.push(self.now + Duration::from_secs(1), failed);
                    }
                }
            }
            Output::AskSeed(name) => {
                let seeded = Happening::Told(number, Input::Seeded { name, addrs: self.seeds.clone() });
                self.push(self.now + Duration::from_millis(50), seeded);
            }
            Output::Fetch(_) | Output::BansChanged => {}
            Output::Event(event) => self.nodes[number].events.push(event),
        }
    }
}

impl End {
    /// When something of this length that leaves now arrives.
    fn line(&mut self, now: Micros, length: usize) -> Micros {
        let start = self.free.max(now);
        let time = self.link.bandwidth.map_or(0, |bandwidth| length as u64 * 1_000_000 / bandwidth.max(1));
        self.free = Micros(start.0 + time);
        self.free + self.link.latency
    }
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
