//! What an interface (RPC, a test, a signal) holds of a running node: read access to the chain, and requests that the
//! ledger thread and the hub thread answer. Knows no protocol and no rule.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;

use bitcoin::{BlockHash, Transaction, Txid, Wtxid};
use groat_chain::block::Block;
use groat_chain::index::Index;
use groat_chain::ledger::{Incoming, IndexState, Ledger, LedgerError, Proposal};
use groat_chain::mempool::{Accepted, FeeRate, Judged, Mempool, Refusal};
use groat_chain::params::Params;
use groat_chain::store::Store;
use groat_chain::tree::Tree;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};

use crate::bottleneck::Bottleneck;
use crate::hub::{Ask, Hub, PeerInfo};
use crate::notify;
use crate::requests::{Giver, Offer, Package, PackageGiver, Purpose, Queue, Request, Submitted};
use crate::warnings::Warnings;

/// The node is stopping and answers no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopped;

/// A running node. Clones are cheap and all the same node. Methods that ask a thread block the caller until the
/// answer is there: asynchronous code calls them in `tokio::task::spawn_blocking`.
#[derive(Clone)]
pub struct NodeHandle {
    pub(crate) tree: Arc<RwLock<Tree>>,
    pub(crate) mempool: Arc<RwLock<Mempool>>,
    /// The pool holds what was stored of it.
    pub(crate) loaded: Arc<AtomicBool>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) indexes: Arc<RwLock<Vec<IndexState>>>,
    pub(crate) params: Arc<Params>,
    pub(crate) ledger: Arc<Queue>,
    pub(crate) hub: mpsc::Sender<Ask>,
    pub(crate) tips: watch::Receiver<BlockHash>,
    pub(crate) stop: Arc<watch::Sender<bool>>,
    /// Commands run before the node stops; none once they were. Core: `-shutdownnotify`.
    pub(crate) last_commands: Arc<Mutex<Vec<String>>>,
    pub(crate) warnings: Arc<Warnings>,
    /// Hashes a second of the built-in miner; 0: it does not mine.
    pub(crate) hash_rate: Arc<AtomicU64>,
    pub(crate) bottleneck: Arc<Bottleneck>,
}

impl NodeHandle {
    /// The header tree with the published chain. Hold the read lock for under a millisecond: the ledger waits for it.
    pub fn tree(&self) -> &Arc<RwLock<Tree>> {
        &self.tree
    }

    /// The mempool. Hold the read lock for under a millisecond, and take that of the tree first: the ledger waits for both.
    pub fn mempool(&self) -> &Arc<RwLock<Mempool>> {
        &self.mempool
    }

    /// Whether the pool holds what was stored of it at the last stop.
    pub fn is_mempool_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// The store: blocks and undo by their positions in the tree; coins are those of the last flush, see
    /// [`NodeHandle::with_ledger`].
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The indexes that are switched on, and how far they are. All rows up to there are in the store.
    pub fn indexes(&self) -> Vec<IndexState> {
        self.indexes.read().clone()
    }

    /// How far an index is, if it is switched on.
    pub fn index(&self, index: Index) -> Option<IndexState> {
        self.indexes.read().iter().find(|state| state.index == index).copied()
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

    /// Holds the published tip: for who waits for another one.
    pub fn tips(&self) -> watch::Receiver<BlockHash> {
        self.tips.clone()
    }

    /// Hashes a second of the built-in miner; 0: it does not mine.
    pub fn hash_rate(&self) -> u64 {
        self.hash_rate.load(Ordering::Relaxed)
    }

    /// What the ledger's time goes into.
    pub fn bottleneck(&self) -> &Bottleneck {
        &self.bottleneck
    }

    /// Requests that wait for the ledger.
    pub fn ledger_queue(&self) -> usize {
        self.ledger.len()
    }

    /// What this block would be on top of the tip, but for its proof of work.
    pub fn propose(&self, block: Arc<Block>, now: u32) -> Result<Proposal, Stopped> {
        self.with_ledger(move |ledger| ledger.propose(&block, now))
    }

    /// Hands a serialized block in, as a miner does, and waits for the verdict.
    pub fn submit_block(&self, bytes: Vec<u8>) -> Result<Submitted, Stopped> {
        let Ok(incoming) = Incoming::decode_prefix(bytes, &self.params) else { return Ok(Submitted::Undecodable) };
        let (answer, verdict) = std_mpsc::channel();
        self.ledger.push(Request::Submit { incoming: Box::new(incoming), answer });
        verdict.recv().map_err(|_| Stopped)
    }

    /// Offers a transaction that came at `time` (seconds since 1970) and waits for the verdict.
    pub fn offer(
        &self,
        tx: Arc<Transaction>,
        time: u64,
        purpose: Purpose,
    ) -> Result<Result<Accepted, Refusal>, Stopped> {
        let (answer, outcome) = std_mpsc::channel();
        self.ledger.push(Request::Offer(Offer { tx, time, from: Giver::Interface { purpose, answer } }));
        outcome.recv().map_err(|_| Stopped)
    }

    /// Offers transactions that are judged together, parents first, and waits for the verdict; `max_rate`: what each may
    /// pay at most.
    pub fn offer_package(
        &self,
        transactions: Vec<Arc<Transaction>>,
        purpose: Purpose,
        max_rate: Option<FeeRate>,
    ) -> Result<Judged, Stopped> {
        let (answer, judged) = std_mpsc::channel();
        let from = PackageGiver::Interface { purpose, max_rate, answer };
        self.ledger.push(Request::Package(Package::new(transactions, from)));
        judged.recv().map_err(|_| Stopped)
    }

    /// Has the peers told of a transaction of the pool. `first`: it is new, and they are told again until one asks for it.
    pub fn broadcast(&self, txid: Txid, wtxid: Wtxid, first: bool) -> Result<(), Stopped> {
        self.with_hub(move |hub| hub.broadcast(txid, wtxid, first))
    }

    /// Transactions of the pool that were handed in here and that no peer has asked for yet.
    pub fn unbroadcast(&self) -> Result<BTreeSet<Txid>, Stopped> {
        self.with_hub(|hub| hub.unbroadcast())
    }

    /// Changes the pool, in the one thread that may.
    pub fn with_mempool<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Mempool) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let mempool = self.mempool.clone();
        self.with_ledger(move |_| Ok(work(&mut mempool.write())))
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

    /// Runs `question` in the hub thread: for what the protocol and the links know, and what an operator asks of them.
    /// See [`Hub`] for what there is. It must not block.
    pub fn with_hub<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Hub) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, result) = std_mpsc::channel();
        let ask = Box::new(move |hub: &mut Hub| {
            // Who asked may have given up.
            let _ = answer.send(question(hub));
        });
        self.hub.blocking_send(ask).map_err(|_| Stopped)?;
        result.recv().map_err(|_| Stopped)
    }

    /// All links, by number.
    pub fn peers(&self) -> Result<Vec<PeerInfo>, Stopped> {
        self.with_hub(|hub| hub.peers())
    }

    /// What the operator should know of at present.
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// Tells the node to stop in order, after the commands that the operator wants run before that; a second call does not
    /// wait for them. Returns at once; never blocks.
    pub fn stop(&self) {
        let commands = std::mem::take(&mut *self.last_commands.lock());
        if commands.is_empty() {
            return self.stop_now();
        }
        let node = self.clone();
        let waits = std::thread::Builder::new().name("shutdownnotify".into()).spawn(move || {
            notify::run_all(&commands);
            node.stop_now();
        });
        if waits.is_err() {
            self.stop_now();
        }
    }

    fn stop_now(&self) {
        self.stop.send_replace(true);
        self.ledger.stop();
    }

    /// Becomes true when the node is told to stop: what serves others ends then.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }
}
