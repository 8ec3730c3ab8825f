//! The sockets behind the protocol, on tokio: listening, dialling, one light task a link. The only place of the crate with
//! a clock, with tasks and with the operating system's randomness. Decides nothing about peers.
//!
//! A hub owns the [`Driver`] and the protocol. It turns each [`Event`] into an input ([`Driver::input`]) and each output
//! about a link into a call of the driver, none of which waits.

mod dial;
mod link;
mod listen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use rand::RngCore;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::addr::NetAddr;
use crate::message::Message;
use crate::peer::{LinkKind, Permissions};
use crate::protocol::{Input, PeerId};
use crate::timers::Micros;
use crate::wire::{Encoded, Entropy, Received, Transport};
use dial::Dialled;
use link::{Command, Link};

/// Events that wait for the hub. Each link has a few of them at most: see [`link::CREDIT`].
const MAX_EVENTS: usize = 1024;
/// Links that came in and whose handshake is not done.
const MAX_HALF_OPEN: usize = 256;
/// Bytes queued to one peer, above which the link ends. Blocks being served and what the protocol sends unasked fit
/// many times.
const MAX_QUEUED: usize = 64 << 20;

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct Options {
    /// First bytes of the network's messages.
    pub magic: [u8; 4],
    /// The network's port: for addresses that name none.
    pub port: u16,
    /// Dial with version 2 of the transport, and fall back to version 1. Links that come in may speak either.
    pub v2: bool,
    /// Links that may come in.
    pub max_inbound: usize,
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
    DialFailed(NetAddr),
    Seeded(String, Vec<NetAddr>),
}

/// What all tasks share.
struct Shared {
    options: Options,
    events: mpsc::Sender<Event>,
    next_peer: AtomicU64,
    half_open: Arc<Semaphore>,
    inbound: AtomicUsize,
}

/// What is told of a link for people.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// Our end.
    pub bind: Option<SocketAddr>,
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
}

/// All links, as the hub holds them.
pub struct Driver {
    runtime: Handle,
    shared: Arc<Shared>,
    links: BTreeMap<PeerId, Box<Link>>,
    /// Addresses that are dialled whenever there is no link.
    kept: BTreeMap<String, Arc<Dialled>>,
    /// The message that was sent last: many peers in a row get the same, and it is encoded once.
    last: Option<(Arc<Message>, Arc<Encoded>)>,
}

impl Driver {
    /// A driver without links, whose tasks run on `runtime`, and the events that it will give.
    pub fn new(runtime: Handle, options: Options) -> (Driver, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        let shared = Arc::new(Shared {
            options,
            events,
            next_peer: AtomicU64::new(1),
            half_open: Arc::new(Semaphore::new(MAX_HALF_OPEN)),
            inbound: AtomicUsize::new(0),
        });
        (Driver { runtime, shared, links: BTreeMap::new(), kept: BTreeMap::new(), last: None }, receiver)
    }

    /// Listens on an address from now on; gives the address with the port that it got.
    pub fn listen(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let shared = self.shared.clone();
        let _inside = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        self.runtime.spawn(listen::accept(listener, shared));
        Ok(addr)
    }

    /// Dials an address (`host` or `host:port`) once.
    pub fn dial(&self, address: &str, kind: LinkKind) {
        let dialled = Arc::new(Dialled::new(address.to_owned(), kind, false));
        self.runtime.spawn(dial::run(dialled, self.shared.clone()));
    }

    /// Dials an address that the protocol chose ([`Output::Dial`](crate::protocol::Output::Dial)).
    pub fn reach(&self, addr: NetAddr, kind: LinkKind, v2: bool) {
        self.runtime.spawn(dial::reach(addr, kind, v2, self.shared.clone()));
    }

    /// Finds out what a seed's name stands for ([`Output::AskSeed`](crate::protocol::Output::AskSeed)).
    pub fn ask_seed(&self, name: String) {
        self.runtime.spawn(dial::resolve(name, self.shared.clone()));
    }

    /// Dials an address now and whenever the link is lost; false when that is so already.
    pub fn keep(&mut self, address: &str, kind: LinkKind) -> bool {
        if self.kept.contains_key(address) {
            return false;
        }
        let dialled = Arc::new(Dialled::new(address.to_owned(), kind, true));
        self.kept.insert(address.to_owned(), dialled.clone());
        self.runtime.spawn(dial::run(dialled, self.shared.clone()));
        true
    }

    /// Dials an address no more; an open link stays. False when it was not kept.
    pub fn forget(&mut self, address: &str) -> bool {
        self.kept.remove(address).inspect(|dialled| dialled.forget()).is_some()
    }

    /// The addresses that are kept, each with whether there is a link.
    pub fn kept(&self) -> impl Iterator<Item = (&str, bool)> {
        self.kept.iter().map(|(address, dialled)| (address.as_str(), dialled.is_linked()))
    }

    /// What an event means to the protocol.
    pub fn input(&mut self, event: Event) -> Input {
        match event.0 {
            Happened::Connected(link) => {
                let Link { peer, addr, kind, bind, .. } = *link;
                self.links.insert(peer, link);
                Input::Connected {
                    peer,
                    addr,
                    kind,
                    permissions: Permissions::default(),
                    network: addr.host.network(),
                    bind: bind.map(NetAddr::from),
                }
            }
            Happened::Message { peer, received, .. } => {
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
            Happened::DialFailed(addr) => Input::DialFailed { addr, tried: true },
            Happened::Seeded(name, addrs) => Input::Seeded { name, addrs },
        }
    }

    /// Sends a message. When the peer takes far too little of what it is sent, its link ends: then the input to tell.
    #[must_use]
    pub fn send(&mut self, to: PeerId, message: Arc<Message>) -> Option<Input> {
        let link = self.links.get(&to)?;
        let weight = message.weight();
        if link.status.queue(weight) > MAX_QUEUED {
            self.links.remove(&to);
            return Some(Input::Closed(to));
        }
        let encoded = match &self.last {
            Some((last, encoded)) if Arc::ptr_eq(last, &message) => encoded.clone(),
            _ => Arc::new(Encoded::new(&message)),
        };
        self.last = Some((message, encoded.clone()));
        // A link that has ended says so by its event.
        let _ = link.commands.send(Command::Send(encoded, weight));
        None
    }

    /// To be called when the hub has nothing to send for now.
    pub fn rest(&mut self) {
        self.last = None;
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

    /// What people want to know of a link.
    pub fn info(&self, peer: PeerId) -> Option<LinkInfo> {
        self.links.get(&peer).map(|link| link.status.info(link.bind))
    }
}

impl Shared {
    fn next_peer(&self) -> PeerId {
        PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed))
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
