//! What an interface (RPC, a test, a signal) holds of a running node: read access to the chain, and requests that the
//! ledger thread and the hub thread answer. Knows no protocol and no rule.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use bitcoin::BlockHash;
use groat_chain::ledger::{Incoming, Ledger, LedgerError};
use groat_chain::params::Params;
use groat_chain::rejection::Rejection;
use groat_chain::store::Store;
use groat_chain::tree::Tree;
use groat_net::addr::NetAddr;
use groat_net::peer::LinkKind;
use groat_net::protocol::PeerId;
use groat_net::upload::UploadTarget;
use groat_net::wire::Transport;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};

use crate::ledger::{Queue, Request};

/// The node is stopping and answers no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopped;

/// What became of a block handed in by [`NodeHandle::submit_block`] ([BIP-0022]).
///
/// [BIP-0022]: https://github.com/bitcoin/bips/blob/master/bip-0022.mediawiki
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is part of the active chain now. BIP22: null.
    Accepted,
    /// It was stored already. BIP22: `duplicate`.
    Duplicate,
    /// It is stored, but on a branch that is not the best. BIP22: `inconclusive`.
    Inconclusive,
    /// It broke a rule, now or when it was connected. BIP22: the text of the rejection.
    Rejected(Rejection),
    /// It is no block. Core: error -22, "Block decode failed".
    Undecodable,
}

/// What to do with an address that the operator names. Core: the `command` of `addnode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddNode {
    /// Dial it now and whenever the link is lost.
    Add,
    /// Dial it no more; a link that is open stays.
    Remove,
    /// Dial it once.
    OneTry,
}

/// Why an address was not added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddNodeError {
    /// Core: `RPC_CLIENT_NODE_ALREADY_ADDED` (-23).
    #[error("Node already added")]
    AlreadyAdded,
    /// Core: `RPC_CLIENT_NODE_NOT_ADDED` (-24).
    #[error("Node could not be removed. It has not been added previously.")]
    NotAdded,
}

/// Which link to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By its number.
    Id(PeerId),
    /// By its address, as [`PeerInfo::addr`] shows it.
    Addr(String),
}

/// One link, for `getpeerinfo`.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its number: each link has its own, also two links to one address.
    pub id: PeerId,
    /// The other end.
    pub addr: NetAddr,
    /// Our end, where it is known.
    pub bind: Option<SocketAddr>,
    /// What the link is for; [`LinkKind::is_inbound`] says who dialled.
    pub kind: LinkKind,
    /// The handshake is done.
    pub ready: bool,
    /// Its version of the protocol; 0 before its version message came.
    pub version: i32,
    /// Its software, as it calls itself.
    pub subver: String,
    /// Its service bits.
    pub services: u64,
    /// We asked it to push compact blocks. Core: `bip152_hb_to`.
    pub pushes_blocks_to_us: bool,
    /// It asked us to push compact blocks. Core: `bip152_hb_from`.
    pub wants_blocks_pushed: bool,
    /// Whether it wants transactions.
    pub relay_txs: bool,
    /// Height of its chain when the link was made.
    pub start_height: i32,
    /// The best header that it is known to have, and the best block that we share with it; -1 for none.
    pub synced_headers: i32,
    /// See `synced_headers`.
    pub synced_blocks: i32,
    /// Heights of the blocks asked of it.
    pub inflight: Vec<u32>,
    /// When the link was made, in seconds since 1970.
    pub connected: u64,
    /// When something was last sent, in seconds since 1970; 0 for never.
    pub last_send: u64,
    /// When something last came, in seconds since 1970; 0 for never.
    pub last_recv: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Its clock less ours, in seconds.
    pub time_offset: i64,
    /// The last round trip and the shortest.
    pub ping: Option<Duration>,
    /// See `ping`.
    pub min_ping: Option<Duration>,
    /// Version of the transport, with the session's id.
    pub transport: Transport,
}

/// A question to the hub thread.
pub enum Ask {
    /// All links.
    Peers(std_mpsc::Sender<Vec<PeerInfo>>),
    /// Dial an address (`host` or `host:port`), or dial it no more.
    AddNode(String, AddNode, std_mpsc::Sender<Result<(), AddNodeError>>),
    /// The addresses that are dialled whenever there is no link, each with whether there is one.
    AddedNodes(std_mpsc::Sender<Vec<(String, bool)>>),
    /// What is left of the upload target.
    UploadTarget(std_mpsc::Sender<UploadTarget>),
    /// End a link; whether there was one.
    Disconnect(Which, std_mpsc::Sender<bool>),
}

/// A running node. Clones are cheap and all the same node. Methods that ask a thread block the caller until the
/// answer is there: asynchronous code calls them in `tokio::task::spawn_blocking`.
#[derive(Clone)]
pub struct NodeHandle {
    pub(crate) tree: Arc<RwLock<Tree>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) params: Arc<Params>,
    pub(crate) ledger: Arc<Queue>,
    pub(crate) hub: mpsc::Sender<Ask>,
    pub(crate) stop: Arc<watch::Sender<bool>>,
}

impl NodeHandle {
    /// The header tree with the published chain. Hold the read lock for under a millisecond: the ledger waits for it.
    pub fn tree(&self) -> &Arc<RwLock<Tree>> {
        &self.tree
    }

    /// The store: blocks and undo by their positions in the tree; coins are those of the last flush, see
    /// [`NodeHandle::with_ledger`].
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The network.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }

    /// Hash and height of the published tip.
    pub fn tip(&self) -> (BlockHash, u32) {
        let tree = self.tree.read();
        let node = tree.node(tree.tip());
        (node.hash, node.height)
    }

    /// Hands a serialized block in, as a miner does, and waits for the verdict.
    pub fn submit_block(&self, bytes: Vec<u8>) -> Result<Submitted, Stopped> {
        let Ok(incoming) = Incoming::decode_prefix(bytes, &self.params) else { return Ok(Submitted::Undecodable) };
        let (answer, verdict) = std_mpsc::channel();
        self.ledger.push(Request::Submit { incoming: Box::new(incoming), answer });
        verdict.recv().map_err(|_| Stopped)
    }

    /// Waits until the ledger has done all it was asked for and the best chain it knows is the active one.
    pub fn wait_until_idle(&self) -> Result<(), Stopped> {
        let (answer, done) = std_mpsc::channel();
        self.ledger.push(Request::WhenIdle(answer));
        done.recv().map_err(|_| Stopped)
    }

    /// Runs `work` in the ledger thread, between two steps: for what needs the coins as they are now (`gettxout`), a
    /// flush ([`Ledger::flush`] before reading coins from the store) or a mark ([`Ledger::invalidate`]; the steps that
    /// follow from it come after `work`, see [`NodeHandle::wait_until_idle`]). An error stops the node.
    pub fn with_ledger<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, result) = std_mpsc::channel();
        self.ledger.push(Request::Run(Box::new(move |ledger| {
            // Who asked may have given up.
            let _ = answer.send(work(ledger)?);
            Ok(())
        })));
        result.recv().map_err(|_| Stopped)
    }

    /// All links, by number.
    pub fn peers(&self) -> Result<Vec<PeerInfo>, Stopped> {
        self.ask(Ask::Peers)
    }

    /// Dials `address` (`host` or `host:port`; the network's port if there is none), or forgets it.
    pub fn add_node(&self, address: &str, command: AddNode) -> Result<Result<(), AddNodeError>, Stopped> {
        self.ask(|answer| Ask::AddNode(address.to_owned(), command, answer))
    }

    /// The addresses that are dialled whenever there is no link, each with whether there is one.
    pub fn added_nodes(&self) -> Result<Vec<(String, bool)>, Stopped> {
        self.ask(Ask::AddedNodes)
    }

    /// The upload target and what is left of it.
    pub fn upload_target(&self) -> Result<UploadTarget, Stopped> {
        self.ask(Ask::UploadTarget)
    }

    /// Ends a link; whether there was one.
    pub fn disconnect(&self, which: Which) -> Result<bool, Stopped> {
        self.ask(|answer| Ask::Disconnect(which, answer))
    }

    /// Tells the node to stop in order. Returns at once; never blocks.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.ledger.stop();
    }

    /// Becomes true when the node is told to stop: what serves others ends then.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    fn ask<T>(&self, question: impl FnOnce(std_mpsc::Sender<T>) -> Ask) -> Result<T, Stopped> {
        let (answer, result) = std_mpsc::channel();
        self.hub.blocking_send(question(answer)).map_err(|_| Stopped)?;
        result.recv().map_err(|_| Stopped)
    }
}
