//! The hub thread: owns the protocol and the driver, and passes inputs and outputs between sockets, ledger and
//! interfaces. Never waits for any of them. Knows no rule and no wire byte.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use groat_chain::block::Block;
use groat_chain::ledger::Incoming;
use groat_chain::params::Params;
use groat_chain::pool::Pool;
use groat_chain::rejection::Rejection;
use groat_chain::store::Store;
use groat_chain::tree::Tree;
use groat_net::driver::{Driver, Event};
use groat_net::peer::{LinkKind, Peer};
use groat_net::protocol::{self, Done, Input, Output, PeerId, Protocol, Reason, Token, TxVerdict, Work};
use groat_net::wire::Transport;
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::handle::{AddNode, AddNodeError, Ask, PeerInfo, Which};
use crate::ledger::{Listener, Queue, Request};
use crate::memory::Files;

/// The longest wait for the next input. The clock may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Events of links that are handled in one go.
const BATCH: usize = 256;
/// Time from writing the peer book to writing it again. Core: `DUMP_PEERS_INTERVAL`.
const DUMP_PEERS_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// What becomes of every transaction: there is no pool that any fee could buy a place in.
const NO_POOL: TxVerdict = TxVerdict::Refused(Rejection::MinRelayFeeNotMet);

/// What the ledger thread and the readers of blocks tell.
pub enum Told {
    /// An answer to the protocol.
    Done(Token, Done),
    /// A block on top of the published tip was stored; it is not connected yet.
    Stored(Arc<Block>),
    /// The published tip moved over these blocks.
    TipChanged(Vec<BlockHash>),
    /// A block joined the active chain.
    Connected(Arc<Block>),
    /// A stored block broke a rule when it was connected.
    Refused(BlockHash, Rejection),
}

impl Listener for mpsc::Sender<Told> {
    // A hub that has ended needs to hear nothing.
    fn done(&mut self, token: Token, done: Done) {
        let _ = self.blocking_send(Told::Done(token, done));
    }

    fn stored(&mut self, block: Arc<Block>) {
        let _ = self.blocking_send(Told::Stored(block));
    }

    fn tip_changed(&mut self, connected: Vec<BlockHash>) {
        let _ = self.blocking_send(Told::TipChanged(connected));
    }

    fn connected(&mut self, block: Arc<Block>) {
        let _ = self.blocking_send(Told::Connected(block));
    }

    fn refused(&mut self, hash: BlockHash, rejection: Rejection) {
        let _ = self.blocking_send(Told::Refused(hash, rejection));
    }
}

/// What comes to the hub.
pub struct Inbox {
    /// Of the ledger, and of who reads blocks for it.
    pub told: mpsc::Receiver<Told>,
    /// Of interfaces.
    pub asks: mpsc::Receiver<Ask>,
    /// Of links.
    pub events: mpsc::Receiver<Event>,
    /// True: end.
    pub stop: watch::Receiver<bool>,
}

/// The hub.
pub struct Hub {
    /// How this node talks.
    pub protocol: Protocol,
    /// Its links.
    pub driver: Driver,
    /// The chain as all readers see it.
    pub tree: Arc<RwLock<Tree>>,
    /// For blocks that peers ask for.
    pub store: Arc<dyn Store>,
    /// For blocks that come.
    pub pool: Arc<Pool>,
    /// The network.
    pub params: Arc<Params>,
    /// The ledger thread's requests.
    pub ledger: Arc<Queue>,
    /// Where who reads blocks answers.
    pub told: mpsc::Sender<Told>,
    /// Where peers and bans are written down.
    pub files: Files,
    /// Print what happens to links.
    pub verbose: bool,
}

impl Hub {
    /// Runs until it is told to stop.
    pub fn run(mut self, mut inbox: Inbox, runtime: &Handle) {
        let mut written = Instant::now();
        runtime.block_on(async {
            while !*inbox.stop.borrow() {
                let mut event = tokio::select! {
                    biased;
                    // An error says that the last handle is gone: nobody can stop the node but the end of the process.
                    _ = inbox.stop.changed() => continue,
                    Some(told) = inbox.told.recv() => {
                        self.on_told(told);
                        None
                    }
                    Some(ask) = inbox.asks.recv() => {
                        self.on_ask(ask);
                        None
                    }
                    Some(event) = inbox.events.recv() => Some(event),
                    () = tokio::time::sleep(self.wait()) => {
                        self.take(Input::Tick);
                        None
                    }
                };
                for _ in 0..BATCH {
                    let Some(event) = event.take().or_else(|| inbox.events.try_recv().ok()) else { break };
                    self.on_event(event);
                }
                self.driver.rest();
                if written.elapsed() >= DUMP_PEERS_INTERVAL {
                    written = Instant::now();
                    let (files, book) = (self.files.clone(), self.protocol.book().to_bytes());
                    runtime.spawn_blocking(move || files.write_book(book));
                }
            }
        });
        self.files.write_book(self.protocol.book().to_bytes());
        self.files.write_anchors(self.protocol.anchors());
    }

    /// How long nothing need be done.
    fn wait(&self) -> Duration {
        self.protocol.deadline().map_or(LONGEST_WAIT, |at| at.since(clock::micros()).min(LONGEST_WAIT))
    }

    fn on_event(&mut self, event: Event) {
        let input = self.driver.input(event);
        if let (true, Input::Connected { peer, addr, kind, .. }) = (self.verbose, &input) {
            println!("peer {}: linked with {addr} ({kind:?})", peer.0);
        }
        self.take(input);
    }

    fn on_told(&mut self, told: Told) {
        self.take(match told {
            Told::Done(token, done) => Input::ChainDone { token, done },
            Told::Stored(block) => Input::BlockStored(block),
            Told::TipChanged(connected) => Input::TipChanged(connected),
            Told::Connected(block) => Input::BlockConnected(block),
            Told::Refused(hash, rejection) => Input::BlockRefused { hash, rejection },
        });
    }

    /// Hands an input to the protocol and carries its outputs out, in order.
    fn take(&mut self, input: Input) {
        let mut inputs = vec![input];
        let mut outputs = Vec::new();
        while let Some(input) = inputs.pop() {
            self.protocol.handle(clock::micros(), input, &*self.tree.read(), &mut outputs);
            for output in outputs.drain(..) {
                match output {
                    Output::Send { to, message } => inputs.extend(self.driver.send(to, message)),
                    Output::Disconnect { peer, reason } => {
                        self.tell_of_end(peer, reason);
                        self.driver.disconnect(peer);
                    }
                    Output::Chain { token, work } => self.work(token, work),
                    Output::PauseRead(peer) => self.driver.set_reading(peer, false),
                    Output::ResumeRead(peer) => self.driver.set_reading(peer, true),
                    Output::Dial { addr, kind, v2 } => self.driver.reach(addr, kind, v2),
                    Output::Fetch(name) => self.driver.dial(&name, LinkKind::AddrFetch),
                    Output::AskSeed(name) => self.driver.ask_seed(name),
                    Output::BansChanged => self.files.write_bans(self.protocol.bans()),
                    Output::Event(event) => self.on_protocol_event(&event),
                }
            }
        }
    }

    fn on_protocol_event(&mut self, event: &protocol::Event) {
        match event {
            protocol::Event::Ready(peer) => {
                self.driver.ready(*peer);
                if self.verbose {
                    println!("peer {}: handshake done", peer.0);
                }
            }
            other if self.verbose => println!("{other:?}"),
            _ => {}
        }
    }

    fn tell_of_end(&self, peer: PeerId, reason: Reason) {
        if self.verbose {
            println!("peer {}: link ended: {reason:?}", peer.0);
        }
    }

    /// Passes work on to whoever does it. There is no memory pool yet, and the node relays blocks only: transactions
    /// are refused here until a pool takes them.
    fn work(&self, token: Token, work: Work) {
        match work {
            Work::Headers(headers) => self.ledger.push(Request::Headers(token, headers)),
            Work::Block { bytes, .. } => {
                let (params, ledger) = (self.params.clone(), self.ledger.clone());
                self.pool.submit(false, move || {
                    let incoming = Incoming::decode_prefix(Arc::unwrap_or_clone(bytes), &params);
                    ledger.push(Request::Block(token, incoming.ok().map(Box::new)));
                });
            }
            Work::Transaction(_) => self.answer(token, Done::Transaction(NO_POOL)),
            Work::Package(package) => self.answer(token, Done::Package(vec![NO_POOL; package.len()])),
            Work::ReadBlock(hash) => self.read(token, hash, |bytes| Done::Read(bytes.map(Arc::new))),
            Work::DecodeBlock(hash) => self.read(token, hash, |bytes| {
                Done::Decoded(bytes.and_then(|bytes| Block::decode_prefix(&bytes).ok()).map(Arc::new))
            }),
        }
    }

    /// Reads a block, in a thread for that, and gives what is made of its bytes as an answer.
    fn read(&self, token: Token, hash: BlockHash, make: impl FnOnce(Option<Vec<u8>>) -> Done + Send + 'static) {
        let (tree, store, mut told) = (self.tree.clone(), self.store.clone(), self.told.clone());
        Handle::current().spawn_blocking(move || {
            let tree = tree.read();
            let pos = tree.get(&hash).and_then(|id| tree.node(id).block());
            drop(tree);
            let bytes = match pos.map(|pos| store.read_block(pos)) {
                Some(Ok(bytes)) => Some(bytes),
                Some(Err(error)) => {
                    println!("block {hash} cannot be served: {error}");
                    None
                }
                // Pruned since it was asked for.
                None => None,
            };
            told.done(token, make(bytes));
        });
    }

    /// Gives an answer that needs no work. Not from this thread: it is the one that takes answers.
    fn answer(&self, token: Token, done: Done) {
        let mut told = self.told.clone();
        Handle::current().spawn_blocking(move || told.done(token, done));
    }

    fn on_ask(&mut self, ask: Ask) {
        // Who asked may have given up: then nobody wants the answer.
        match ask {
            Ask::Peers(answer) => {
                let tree = self.tree.read();
                let peers = self.protocol.peers().map(|peer| peer_info(peer, &self.driver, &tree)).collect();
                let _ = answer.send(peers);
            }
            Ask::AddNode(address, AddNode::OneTry, answer) => {
                self.driver.dial(&address, LinkKind::Manual);
                let _ = answer.send(Ok(()));
            }
            Ask::AddNode(address, AddNode::Add, answer) => {
                let added = self.driver.keep(&address, LinkKind::Manual);
                let _ = answer.send(added.then_some(()).ok_or(AddNodeError::AlreadyAdded));
            }
            Ask::AddNode(address, AddNode::Remove, answer) => {
                let _ = answer.send(self.driver.forget(&address).then_some(()).ok_or(AddNodeError::NotAdded));
            }
            Ask::AddedNodes(answer) => {
                let _ = answer.send(self.driver.kept().map(|(address, linked)| (address.to_owned(), linked)).collect());
            }
            Ask::UploadTarget(answer) => {
                let _ = answer.send(self.protocol.upload_target(clock::micros()));
            }
            Ask::Disconnect(which, answer) => {
                let is_meant = |peer: &&Peer| match &which {
                    Which::Id(id) => peer.id == *id,
                    Which::Addr(addr) => peer.addr.to_string() == *addr,
                };
                let peer = self.protocol.peers().find(is_meant).map(|peer| peer.id);
                if let Some(peer) = peer {
                    self.driver.disconnect(peer);
                    self.take(Input::Closed(peer));
                }
                let _ = answer.send(peer.is_some());
            }
        }
    }
}

fn peer_info(peer: &Peer, driver: &Driver, tree: &Tree) -> PeerInfo {
    let link = driver.info(peer.id);
    let their = peer.their.as_ref();
    let (synced_headers, synced_blocks) = peer.synced();
    let height = |id: Option<_>| id.map_or(-1, |id| i32::try_from(tree.node(id).height).unwrap_or(i32::MAX));
    let (ping, min_ping) = peer.round_trips();
    PeerInfo {
        id: peer.id,
        addr: peer.addr,
        bind: link.as_ref().and_then(|link| link.bind),
        kind: peer.kind,
        ready: peer.ready,
        version: their.map_or(0, |their| their.version),
        subver: their.map(|their| their.user_agent.clone()).unwrap_or_default(),
        services: peer.services(),
        pushes_blocks_to_us: peer.pushes_to_us,
        wants_blocks_pushed: peer.compact == Some(true),
        relay_txs: their.is_some_and(|their| their.relay),
        start_height: their.map_or(-1, |their| their.start_height),
        synced_headers: height(synced_headers),
        synced_blocks: height(synced_blocks),
        inflight: peer.blocks_in_flight().iter().filter_map(|hash| Some(tree.node(tree.get(hash)?).height)).collect(),
        connected: peer.since.seconds(),
        last_send: link.as_ref().map_or(0, |link| link.last_send.seconds()),
        last_recv: link.as_ref().map_or(0, |link| link.last_recv.seconds()),
        bytes_sent: link.as_ref().map_or(0, |link| link.bytes_sent),
        bytes_received: link.as_ref().map_or(0, |link| link.bytes_received),
        time_offset: their.map_or(0, |their| their.time_offset),
        ping,
        min_ping,
        transport: link.map_or(Transport::Detecting, |link| link.transport),
    }
}
