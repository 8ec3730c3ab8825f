//! The hub thread: owns the protocol and the driver, and passes inputs and outputs between sockets, ledger and
//! interfaces. Never waits for any of them. Knows no rule and no wire byte.

mod asked;
mod mute;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::{BlockHash, Transaction, Txid, Wtxid};
use groat_chain::block::Block;
use groat_chain::index::filters;
use groat_chain::ledger::Incoming;
use groat_chain::mempool::Mempool;
use groat_chain::params::Params;
use groat_chain::pool::Pool;
use groat_chain::rejection::Rejection;
use groat_chain::store::{Store, StoreError};
use groat_chain::tree::Tree;
use groat_net::addr::{NetAddr, Network};
use groat_net::driver::{Driver, Event, Proxy};
use groat_net::local::How;
use groat_net::peer::LinkKind;
use groat_net::protocol::{self, Command, Done, Input, Output, Protocol, Token, Work};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info};

use crate::clock;
use crate::memory::Files;
use crate::requests::{Giver, Listener, Offer, Package, PackageGiver, Queue, Request};
use crate::view::NodeView;
pub use asked::{AddNode, AddNodeError, PeerInfo, Which};
pub use mute::Mute;

/// The longest wait for the next input. The clock may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Events of links that are handled in one go.
const BATCH: usize = 256;
/// For no longer than this: a message may take milliseconds, and the ledger and interfaces wait meanwhile.
const BATCH_TIME: Duration = Duration::from_millis(10);
/// Time from writing the peer book to writing it again. Core: `DUMP_PEERS_INTERVAL`.
const DUMP_PEERS_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// What the ledger thread, the readers of blocks, and who finds ways for peers to us tell.
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
    /// The pool took a transaction.
    TxAccepted(Txid, Wtxid),
    /// Transactions left the pool for others.
    Replaced(Vec<Arc<Transaction>>),
    /// An address at which peers can dial us was found, or lost.
    Own {
        /// The address.
        addr: NetAddr,
        /// How that is known; none: lost.
        how: Option<How>,
    },
    /// A proxy for onion services was found.
    OnionProxy {
        /// The proxy.
        proxy: SocketAddr,
        /// Dial them of our own accord from now on.
        dial: bool,
    },
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

    fn tx_accepted(&mut self, txid: Txid, wtxid: Wtxid) {
        let _ = self.blocking_send(Told::TxAccepted(txid, wtxid));
    }

    fn replaced(&mut self, transactions: Vec<Arc<Transaction>>) {
        let _ = self.blocking_send(Told::Replaced(transactions));
    }
}

/// A question to the hub thread, which it answers by a channel of its own.
pub type Ask = Box<dyn FnOnce(&mut Hub) + Send>;

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
    /// The pool as all readers see it.
    pub mempool: Arc<RwLock<Mempool>>,
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
    /// Where peers and bans are written down, if they are.
    pub files: Option<Files>,
    /// Peers that hang up too early.
    pub mute: Mute,
}

impl Hub {
    /// Runs until it is told to stop. Gives the transactions that no peer has asked for yet.
    pub fn run(mut self, mut inbox: Inbox, runtime: &Handle) -> BTreeSet<Txid> {
        let mut written = Instant::now();
        runtime.block_on(async {
            self.command(Command::Added(self.driver.kept_addresses().collect()));
            self.command(Command::SetActive(self.driver.is_active()));
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
                        ask(&mut self);
                        // Time may have been set.
                        self.take(Input::Tick);
                        None
                    }
                    Some(event) = inbox.events.recv() => Some(event),
                    () = tokio::time::sleep(self.wait()) => {
                        self.take(Input::Tick);
                        None
                    }
                };
                let begun = Instant::now();
                for _ in 0..BATCH {
                    let Some(event) = event.take().or_else(|| inbox.events.try_recv().ok()) else { break };
                    self.on_event(event);
                    if begun.elapsed() > BATCH_TIME {
                        break;
                    }
                }
                self.driver.rest();
                if let (Some(files), true) = (&self.files, written.elapsed() >= DUMP_PEERS_INTERVAL) {
                    written = Instant::now();
                    let (files, book) = (files.clone(), self.protocol.book().to_bytes());
                    runtime.spawn_blocking(move || files.write_book(book));
                }
            }
        });
        if let Some(files) = &self.files {
            files.write_book(self.protocol.book().to_bytes());
            self.protocol.anchors().into_iter().for_each(|anchors| files.write_anchors(anchors));
        }
        self.unbroadcast()
    }

    /// How long nothing need be done.
    fn wait(&self) -> Duration {
        self.protocol.deadline().map_or(LONGEST_WAIT, |at| at.since(clock::micros()).min(LONGEST_WAIT))
    }

    fn on_event(&mut self, event: Event) {
        let input = self.driver.input(event);
        match &input {
            Input::Connected { peer, addr, kind, .. } => {
                debug!(target: "net", "peer {}: linked with {addr} ({kind:?})", peer.0);
                if *kind == LinkKind::Manual {
                    self.mute.linked(*peer, *addr);
                }
            }
            Input::Closed(peer) => {
                if let Some(addr) = self.mute.closed(*peer) {
                    let name = &self.params.name;
                    let file = if Params::by_name(name).is_none() { ", with the same file" } else { "" };
                    info!("{addr} hangs up before it says who it is: is it on {name}{file}?");
                }
            }
            _ => {}
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
            Told::TxAccepted(txid, wtxid) => Input::TxAccepted { txid, wtxid },
            Told::Replaced(transactions) => Input::Replaced(transactions),
            Told::Own { addr, how } => Input::Own { addr, how },
            Told::OnionProxy { proxy, dial } => {
                self.driver.set_onion_proxy(Proxy { addr: proxy, isolate: true });
                if !dial {
                    return;
                }
                Input::Command(Command::Reach(Network::Onion))
            }
        });
    }

    /// Hands an input to the protocol and carries its outputs out, in order.
    fn take(&mut self, input: Input) {
        let mut inputs = vec![input];
        let mut outputs = Vec::new();
        while let Some(input) = inputs.pop() {
            let now = clock::micros();
            let view = NodeView { tree: self.tree.read(), pool: self.mempool.read(), now: now.seconds() };
            self.protocol.handle(now, input, &view, &mut outputs);
            drop(view);
            for output in outputs.drain(..) {
                match output {
                    Output::Send { to, message } => inputs.extend(self.driver.send(to, message)),
                    Output::Disconnect { peer, reason } => {
                        debug!(target: "net", "peer {}: link ended: {reason:?}", peer.0);
                        self.driver.disconnect(peer);
                    }
                    Output::Chain { token, work } => self.work(token, work),
                    Output::PauseRead(peer) => self.driver.set_reading(peer, false),
                    Output::ResumeRead(peer) => self.driver.set_reading(peer, true),
                    Output::Dial { addr, kind, v2 } => self.driver.reach(addr, kind, v2),
                    Output::Fetch(name) => self.driver.dial(&name, LinkKind::AddrFetch, None),
                    Output::AskSeed(name) => self.driver.ask_seed(name),
                    Output::BansChanged => {
                        let bans = self.protocol.bans();
                        self.files.iter().for_each(|files| files.write_bans(bans));
                    }
                    Output::Event(event) => self.on_protocol_event(&event),
                }
            }
        }
    }

    fn on_protocol_event(&mut self, event: &protocol::Event) {
        match event {
            protocol::Event::Ready(peer) => {
                self.driver.ready(*peer);
                self.mute.ready(*peer);
                debug!(target: "net", "peer {}: handshake done", peer.0);
            }
            other => debug!(target: "net", "{other:?}"),
        }
    }

    /// Passes work on to whoever does it.
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
            Work::Transaction(tx) => {
                let (time, from) = (clock::now().into(), Giver::Peer(token));
                self.ledger.push(Request::Offer(Offer { tx, time, from }));
            }
            Work::Package(transactions) => {
                let from = PackageGiver::Peer(token);
                self.ledger.push(Request::Package(Package::new(transactions, from)));
            }
            Work::ReadBlock(hash) => self.read(token, hash, |bytes| Done::Read(bytes.map(Arc::new))),
            Work::ReadFilters(blocks) => {
                self.look_up(token, move |store| Done::Filters(whole(filters::filters(store, &blocks))));
            }
            Work::ReadFilterHeaders(blocks) => {
                self.look_up(token, move |store| Done::FilterHeaders(whole(filters::headers(store, &blocks))));
            }
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
                    error!("block {hash} cannot be served: {error}");
                    None
                }
                // Pruned since it was asked for.
                None => None,
            };
            told.done(token, make(bytes));
        });
    }

    /// Has `look` read the store in a thread for that.
    fn look_up(&self, token: Token, look: impl FnOnce(&dyn Store) -> Done + Send + 'static) {
        let (store, mut told) = (self.store.clone(), self.told.clone());
        Handle::current().spawn_blocking(move || told.done(token, look(&*store)));
    }

    /// Has the peers told of a transaction of the pool. `first`: it is new, and they are told again until one asks for it.
    pub fn broadcast(&mut self, txid: Txid, wtxid: Wtxid, first: bool) {
        self.take(Input::Broadcast { txid, wtxid, first });
    }

    /// Transactions of the pool that were handed in here and that no peer has asked for yet.
    pub fn unbroadcast(&self) -> BTreeSet<Txid> {
        self.protocol.unbroadcast().copied().collect()
    }
}

/// All rows, if all are there.
fn whole<T>(rows: Result<Vec<Option<T>>, StoreError>) -> Option<Vec<T>> {
    match rows {
        Ok(rows) => rows.into_iter().collect(),
        Err(error) => {
            error!("block filters cannot be served: {error}");
            None
        }
    }
}
