//! The sockets behind the protocol, on tokio: listening, dialling, one light task a link. The only place of the crate with
//! a clock, with tasks and with the operating system's randomness. Decides nothing about peers.
//!
//! A hub owns the [`Driver`] and the protocol. It turns each [`Event`] into an input ([`Driver::input`]) and each output
//! about a link into a call of the driver, none of which waits.

mod dial;
mod half_open;
mod link;
mod listen;
mod proxy;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::RwLock;
use rand::RngCore;
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::addr::{Host, NetAddr, Network};
use crate::message::Message;
use crate::peer::{LinkKind, NODE_NETWORK, NODE_WITNESS};
use crate::permissions::Grant;
use crate::protocol::{Input, PeerId};
use crate::timers::Micros;
use crate::wire::{Encoded, Entropy, Received, Transport};
use dial::Dialled;
use half_open::HalfOpen;
use link::{Command, End, Link, Status};
pub use listen::Door;
use proxy::Target;
pub use proxy::{Proxies, Proxy};

/// Events that wait for the hub. Each link has a few of them at most: see [`link::CREDIT`].
const MAX_EVENTS: usize = 1024;
/// Addresses that one seed gives. Core: `nMaxIPs`.
const MAX_SEED_ADDRESSES: usize = 32;
/// Links that wait with the operating system until they are taken in; who finds it full tries again after seconds.
const BACKLOG: u32 = 4096;
/// Encodings that are kept while one burst is sent: a new block goes out as hash, header and compact block.
const MAX_RECENT: usize = 4;
/// Bytes queued to one peer, above which the link ends. Blocks being served and what the protocol sends unasked fit
/// many times.
const MAX_QUEUED: usize = 64 << 20;
/// Bytes that all links hold together, queued and of messages that have not come whole, above which one of those ends
/// that dialled us: the one over which least has passed for its age. A thousand that read nothing, or stop in the midst
/// of a long message, would else take several GB.
const MAX_HELD: usize = if cfg!(test) { 32 << 20 } else { 512 << 20 };

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct Options {
    /// First bytes of the network's messages.
    pub magic: [u8; 4],
    /// The network's port: for addresses that name none.
    pub port: u16,
    /// Dial with version 2 of the transport, and fall back to version 1. Links that come in may speak either; without this
    /// only version 1.
    pub v2: bool,
    /// Links that may come in; more are closed at once. The protocol may want a few more than it keeps, to choose.
    pub max_inbound: usize,
    /// What peers at some addresses may do.
    pub grants: Vec<Grant>,
    /// Through whom to dial.
    pub proxies: Proxies,
    /// This machine is on the CJDNS mesh: addresses in fc00::/8 are the mesh's.
    pub cjdns: bool,
    /// See [`Limits::send_pause_bytes`](crate::limits::Limits::send_pause_bytes).
    pub send_pause_bytes: usize,
}

/// What happened to a link.
pub struct Event(Happened);

enum Happened {
    Connected(Box<Link>),
    /// The permit is given back when the hub takes the message: then the link may read on.
    Message {
        peer: PeerId,
        received: Received,
        _credit: OwnedSemaphorePermit,
    },
    Written(PeerId),
    Closed(PeerId),
    /// All links together hold too much.
    Crowded,
    DialFailed {
        addr: NetAddr,
        tried: bool,
    },
    Seeded {
        name: String,
        addrs: Vec<NetAddr>,
    },
}

/// What all tasks share.
struct Shared {
    options: Options,
    events: mpsc::Sender<Event>,
    next_peer: AtomicU64,
    half_open: Arc<HalfOpen>,
    inbound: AtomicUsize,
    /// Bytes that all links hold.
    held: Arc<AtomicUsize>,
    proxies: RwLock<Proxies>,
    active: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
}

/// What is told of a link for people.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// Our end.
    pub bind: Option<SocketAddr>,
    /// What the peer was dialled as, if an operator named it.
    pub name: Option<String>,
    /// The network that the link came over.
    pub network: Network,
    /// Version of the transport.
    pub transport: Transport,
    /// Bytes written to the socket.
    pub bytes_sent: u64,
    /// Bytes read from it.
    pub bytes_received: u64,
    /// When something was last written; 0 for never.
    pub last_send: Micros,
    /// When something last came; 0 for never.
    pub last_recv: Micros,
    /// Bytes of the messages sent, by their names.
    pub sent_by_kind: Vec<(&'static str, u64)>,
    /// Bytes of the messages received, by their names; of unknown ones under `*other*`.
    pub received_by_kind: Vec<(&'static str, u64)>,
}

/// An address that is dialled whenever there is no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// As the operator wrote it.
    pub name: String,
    /// The other end, while there is a link.
    pub linked: Option<NetAddr>,
}

/// All links, as the hub holds them.
pub struct Driver {
    runtime: Handle,
    shared: Arc<Shared>,
    links: BTreeMap<PeerId, Box<Link>>,
    /// Addresses that are dialled whenever there is no link.
    kept: BTreeMap<String, Arc<Dialled>>,
    /// Links that were ended as all held too much, until their memory is free.
    leaving: Vec<Weak<Status>>,
    /// The messages that were sent last, the newest in front: many peers in a row get one of a few, and each of those is
    /// encoded once.
    recent: VecDeque<(Arc<Message>, Arc<Encoded>)>,
}

impl Driver {
    /// A driver without links, whose tasks run on `runtime`, and the events that it will give.
    pub fn new(runtime: Handle, options: Options) -> (Driver, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        let proxies = RwLock::new(options.proxies);
        let shared = Arc::new(Shared {
            options,
            events,
            next_peer: AtomicU64::new(0),
            half_open: Arc::default(),
            inbound: AtomicUsize::new(0),
            held: Arc::default(),
            proxies,
            active: AtomicBool::new(true),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let (links, kept, leaving, recent) = Default::default();
        (Driver { runtime, shared, links, kept, leaving, recent }, receiver)
    }

    /// Listens on an address from now on; gives the address with the port that it got.
    pub fn listen(&self, addr: SocketAddr, door: Door) -> io::Result<SocketAddr> {
        let _inside = self.runtime.enter();
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Else the port of a node that has just ended is taken for a while.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        let shared = self.shared.clone();
        self.runtime.spawn(listen::accept(listener, door, shared));
        Ok(addr)
    }

    /// The address that a text means, unless it is a name that has to be resolved.
    fn target(&self, text: &str) -> Target {
        self.address(text).map_or_else(|| Target::name(text, self.shared.options.port), Target::Addr)
    }

    /// The address that a text is, with or without a port.
    pub fn address(&self, text: &str) -> Option<NetAddr> {
        let NetAddr { host, port } = NetAddr::parse(text, self.shared.options.port).ok()?;
        Some(NetAddr { host: self.host(host), port })
    }

    /// The host as this machine takes it.
    pub fn host(&self, host: Host) -> Host {
        host.on_cjdns(self.shared.options.cjdns)
    }

    /// Dials what an operator or a list names (`host` or `host:port`), once. `v2`: with version 2 of the transport first;
    /// none: as the operator chose for all.
    pub fn dial(&self, name: &str, kind: LinkKind, v2: Option<bool>) {
        let v2 = v2.unwrap_or(self.shared.options.v2);
        let dialled = Dialled::new(self.target(name), Some(name.to_owned()), kind, v2, false);
        self.runtime.spawn(dial::once(Arc::new(dialled), self.shared.clone()));
    }

    /// Dials an address that the protocol chose ([`Output::Dial`](crate::protocol::Output::Dial)).
    pub fn reach(&self, addr: NetAddr, kind: LinkKind, v2: bool) {
        let dialled = Arc::new(Dialled::new(Target::Addr(addr), None, kind, v2, false));
        self.runtime.spawn(dial::once_for_protocol(addr, dialled, self.shared.clone()));
    }

    /// Finds out what a seed's name stands for ([`Output::AskSeed`](crate::protocol::Output::AskSeed)): nothing, where names
    /// are for a proxy.
    pub fn ask_seed(&self, name: String) {
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let addrs = if shared.proxies.read().names.is_none() {
                let host = format!("x{:x}.{name}", NODE_NETWORK | NODE_WITNESS);
                proxy::resolve(&host, shared.options.port, MAX_SEED_ADDRESSES).await
            } else {
                Vec::new()
            };
            let addrs = addrs.into_iter().map(NetAddr::from).collect();
            shared.tell(Happened::Seeded { name, addrs }).await;
        });
    }

    /// Dials an address or a name now and whenever the link is lost; false when that is so already.
    pub fn keep(&mut self, name: &str, kind: LinkKind, v2: Option<bool>) -> bool {
        let target = self.target(name);
        if self.kept.contains_key(name) || self.kept.values().any(|kept| kept.target == target) {
            return false;
        }
        let v2 = v2.unwrap_or(self.shared.options.v2);
        let dialled = Arc::new(Dialled::new(target, Some(name.to_owned()), kind, v2, true));
        self.kept.insert(name.to_owned(), dialled.clone());
        self.runtime.spawn(dial::keep(dialled, self.shared.clone()));
        true
    }

    /// Dials an address no more; an open link stays. False when it was not kept.
    pub fn forget(&mut self, name: &str) -> bool {
        self.kept.remove(name).inspect(|dialled| dialled.forget()).is_some()
    }

    /// What is kept.
    pub fn kept(&self) -> impl Iterator<Item = Kept> {
        self.kept.iter().map(|(name, dialled)| Kept { name: name.clone(), linked: dialled.linked() })
    }

    /// The addresses that are kept, as far as they are known without asking anybody.
    pub fn kept_addresses(&self) -> impl Iterator<Item = NetAddr> {
        self.kept.values().filter_map(|dialled| match dialled.target {
            Target::Addr(addr) => Some(addr),
            Target::Name(..) => dialled.linked(),
        })
    }

    /// Makes links and takes them in, or does neither. Links that there are stay.
    pub fn set_active(&self, active: bool) {
        self.shared.active.store(active, Ordering::Release);
    }

    /// Whether links are made and taken in.
    pub fn is_active(&self) -> bool {
        self.shared.is_active()
    }

    /// Through whom links are made.
    pub fn proxies(&self) -> Proxies {
        *self.shared.proxies.read()
    }

    /// Dials onion services through this proxy from now on.
    pub fn set_onion_proxy(&self, proxy: Proxy) {
        self.shared.proxies.write().onion = Some(proxy);
    }

    /// What an event means to the protocol.
    pub fn input(&mut self, event: Event) -> Input {
        match event.0 {
            Happened::Connected(link) => {
                let (peer, end) = (link.peer, link.end.clone());
                self.links.insert(peer, link);
                let bind = self.links.get(&peer).and_then(|link| link.bind).map(NetAddr::from);
                let End { addr, kind, permissions, network, .. } = end;
                Input::Connected { peer, addr, kind, permissions, network, bind }
            }
            Happened::Message { peer, received, .. } => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.traffic.count_received(received.message.kind(), received.wire_len);
                }
                Input::Message { peer, message: received.message, wire_len: received.wire_len }
            }
            Happened::Written(peer) => {
                let bytes = self.links.get(&peer).map_or(0, |link| link.status.queued.load(Ordering::Acquire));
                Input::Queued { peer, bytes }
            }
            Happened::Closed(peer) => {
                self.links.remove(&peer);
                Input::Closed(peer)
            }
            Happened::Crowded => self.end_least_worthy().unwrap_or(Input::Tick),
            Happened::DialFailed { addr, tried } => Input::DialFailed { addr, tried },
            Happened::Seeded { name, addrs } => Input::Seeded { name, addrs },
        }
    }

    /// Ends a link if all together hold too much; gives the input to tell then.
    fn end_least_worthy(&mut self) -> Option<Input> {
        let held = self.shared.held.load(Ordering::Acquire);
        if held <= MAX_HELD {
            return None;
        }
        self.leaving.retain(|status| status.strong_count() > 0);
        let leaving: usize = self.leaving.iter().filter_map(Weak::upgrade).map(|status| status.held()).sum();
        if held.saturating_sub(leaving) <= MAX_HELD {
            return None;
        }
        let now = now();
        let worth = |link: &Link| Some((link.worth(now)?, link.peer));
        let (_, peer) = self.links.values().filter_map(|link| worth(link)).min()?;
        let link = self.links.remove(&peer)?;
        link.status.abandon();
        self.leaving.push(Arc::downgrade(&link.status));
        Some(Input::Closed(peer))
    }

    /// Sends a message. When the peer takes far too little of what it is sent, its link ends, or when all take too little
    /// one of them: then the input to tell.
    #[must_use]
    pub fn send(&mut self, to: PeerId, message: Arc<Message>) -> Option<Input> {
        let link = self.links.get_mut(&to)?;
        let weight = message.weight();
        if link.status.queue(weight) > MAX_QUEUED {
            self.links.remove(&to);
            return Some(Input::Closed(to));
        }
        let encoded = encode(&mut self.recent, message);
        link.traffic.count_sent(encoded.kind(), encoded.wire_len(link.status.transport()));
        // A link that has ended says so by its event.
        let _ = link.commands.send(Command::Send(encoded, weight));
        self.end_least_worthy()
    }

    /// To be called when the hub has nothing to send for now.
    pub fn rest(&mut self) {
        self.recent.clear();
    }

    /// Ends a link after what was sent is written.
    pub fn disconnect(&mut self, peer: PeerId) {
        self.links.remove(&peer);
    }

    /// Reads a link, or does not.
    pub fn set_reading(&self, peer: PeerId, reading: bool) {
        if let Some(link) = self.links.get(&peer) {
            link.status.set_paused(!reading);
        }
    }

    /// The handshake of a link is done: it counts as open.
    pub fn ready(&mut self, peer: PeerId) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.half_open = None;
        }
    }

    /// Bytes received and sent since the start.
    pub fn totals(&self) -> (u64, u64) {
        (self.shared.received.load(Ordering::Relaxed), self.shared.sent.load(Ordering::Relaxed))
    }

    /// What people want to know of a link.
    pub fn info(&self, peer: PeerId) -> Option<LinkInfo> {
        self.links.get(&peer).map(|link| link.info())
    }
}

/// The encoding of a message, from among those of the messages sent last if it is one of them.
fn encode(recent: &mut VecDeque<(Arc<Message>, Arc<Encoded>)>, message: Arc<Message>) -> Arc<Encoded> {
    if let Some((_, encoded)) = recent.iter().find(|(one, _)| Arc::ptr_eq(one, &message)) {
        return encoded.clone();
    }
    let encoded = Arc::new(Encoded::new(&message));
    recent.truncate(MAX_RECENT - 1);
    recent.push_front((message, encoded.clone()));
    encoded
}

impl Shared {
    fn next_peer(&self) -> PeerId {
        PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed))
    }

    fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Tells the hub; false when it is gone.
    async fn tell(&self, happened: Happened) -> bool {
        self.events.send(Event(happened)).await.is_ok()
    }
}

/// The time by this machine's clock.
#[expect(clippy::disallowed_methods, reason = "the driver is where the protocol's time comes from")]
pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// 32 bytes from the operating system, for [`Config::seed`](crate::protocol::Config::seed).
#[expect(clippy::disallowed_methods, reason = "the driver is where the protocol's seed comes from")]
pub fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    seed
}

#[expect(clippy::disallowed_methods, reason = "the secret of a link is no part of the protocol's value")]
fn entropy() -> Entropy {
    Entropy::draw(&mut rand::rng())
}
