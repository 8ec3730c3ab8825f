//! The ledger thread: owns the [`Ledger`], takes requests in the order of their kind, and steps towards the best chain
//! between them. Tells of what happened through the [`Listener`]; knows neither peers nor RPC.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction, Txid, Wtxid};
use groat_chain::block::Block;
use groat_chain::ledger::{Accepted, Incoming, Ledger, LedgerError, Step};
use groat_chain::rejection::Rejection;
use groat_chain::tree::Id;
use groat_net::protocol::{Done, Token, Verdict};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use tracing::info;

use crate::handle::Submitted;
use crate::import::now;
use crate::progress::Pace;
use crate::systemd;
use crate::transactions::{Checked, Offer, Package, Transactions};
use crate::warnings::Watch;

/// During the first sync everything is written at least this often. Core: `DATABASE_WRITE_INTERVAL_MAX`.
const WRITE_INTERVAL: Duration = Duration::from_secs(70 * 60);
/// A tip is told at most this often: in sync, and before.
const TELL_INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// Work for the ledger thread.
pub enum Request {
    /// Headers, each the parent of the next, for the protocol.
    Headers(Token, Vec<Header>),
    /// A block for the protocol, decoded; none if it could not be.
    Block(Token, Option<Box<Incoming>>),
    /// A block for an interface.
    Submit {
        /// The block.
        incoming: Box<Incoming>,
        /// Gets the verdict once the ledger is at rest.
        answer: mpsc::Sender<Submitted>,
    },
    /// Anything else for an interface.
    Run(Job),
    /// A transaction.
    Offer(Offer),
    /// A transaction whose scripts were run.
    Checked(Box<Checked>),
    /// Transactions to be judged together, parents first.
    Package(Package),
    /// To be answered when nothing is left to do.
    WhenIdle(mpsc::Sender<()>),
}

/// Something to do with the ledger. An error stops the node.
pub type Job = Box<dyn FnOnce(&mut Ledger) -> Result<(), LedgerError> + Send>;

/// What the ledger thread tells.
pub trait Listener: Send {
    /// An answer to the protocol.
    fn done(&mut self, token: Token, done: Done);
    /// A block on top of the published tip was stored; it is not connected yet.
    fn stored(&mut self, block: Arc<Block>);
    /// The published tip moved over these blocks.
    fn tip_changed(&mut self, connected: Vec<BlockHash>);
    /// A block joined the active chain of a node in sync; told after the tip.
    fn connected(&mut self, block: Arc<Block>);
    /// A stored block broke a rule when it was connected.
    fn refused(&mut self, hash: BlockHash, rejection: Rejection);
    /// The pool took a transaction.
    fn tx_accepted(&mut self, txid: Txid, wtxid: Wtxid);
    /// Transactions left the pool for others.
    fn replaced(&mut self, transactions: Vec<Arc<Transaction>>);
}

/// The requests that wait, by kind, and the order in which they are served: headers, blocks, interfaces, a step towards
/// the best chain, transactions. It has no cap of its own: the protocol asks for at most one piece of work for a peer, and
/// for so many blocks as its `Limits` say; who else asks waits for the answer.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    stop: bool,
    /// The ledger waits for requests.
    idle: bool,
    headers: VecDeque<Request>,
    blocks: VecDeque<Request>,
    others: VecDeque<Request>,
    transactions: VecDeque<Request>,
    /// What was done since the first of the others, and of the transactions, waits.
    others_waited: u32,
    transactions_waited: u32,
}

/// What is done at most before one of a later kind has its turn, however much waits: peers that are faster than the
/// ledger must not keep an interface waiting for ever, nor both the transactions.
const MAX_IN_A_ROW: u32 = 16;

/// What the ledger thread does next.
enum Next {
    Stop,
    Serve(Request),
    Step,
    /// A step of the indexes that are behind.
    Index,
}

/// What there is to do beside requests.
#[derive(Clone, Copy)]
struct Idle {
    /// The best chain is not the active one.
    may_step: bool,
    /// An index has not caught up.
    behind: bool,
}

impl Queue {
    /// Adds a request. After a stop it is dropped, and with it the way to answer.
    pub fn push(&self, request: Request) {
        let mut waiting = self.waiting.lock();
        if waiting.stop {
            return;
        }
        match request {
            Request::Headers(..) => waiting.headers.push_back(request),
            Request::Block(..) => waiting.blocks.push_back(request),
            Request::Submit { .. } | Request::Run(_) | Request::WhenIdle(_) => waiting.others.push_back(request),
            Request::Offer(_) | Request::Checked(_) | Request::Package(..) => waiting.transactions.push_back(request),
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Drops all that waits: the thread ends after the step it is in.
    pub fn stop(&self) {
        *self.waiting.lock() = Waiting { stop: true, ..Waiting::default() };
        self.wake.notify_one();
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        let waiting = self.waiting.lock();
        let kinds = [&waiting.headers, &waiting.blocks, &waiting.others, &waiting.transactions];
        kinds.iter().map(|kind| kind.len()).sum()
    }

    /// Whether the ledger has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.lock().idle
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn next(&self, idle: Idle) -> Next {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.stop {
                return Next::Stop;
            }
            if let Some(next) = waiting.next(idle) {
                return next;
            }
            waiting.idle = true;
            self.wake.wait(&mut waiting);
            waiting.idle = false;
        }
    }
}

impl Waiting {
    fn next(&mut self, idle: Idle) -> Option<Next> {
        let due = if self.others_waited >= MAX_IN_A_ROW && !self.others.is_empty() {
            self.others.pop_front()
        } else if self.transactions_waited >= MAX_IN_A_ROW {
            self.transactions.pop_front()
        } else {
            None
        };
        let first = due.or_else(|| self.headers.pop_front()).or_else(|| self.blocks.pop_front());
        let first = first.or_else(|| self.others.pop_front());
        let next = match first {
            Some(request) => Next::Serve(request),
            None if idle.may_step => Next::Step,
            None => match self.transactions.pop_front() {
                Some(request) => Next::Serve(request),
                None if idle.behind => Next::Index,
                None => return None,
            },
        };
        let of_transactions =
            matches!(next, Next::Serve(Request::Offer(_) | Request::Checked(_) | Request::Package(..)));
        let of_peer = matches!(next, Next::Serve(Request::Headers(..) | Request::Block(..)));
        let of_others = matches!(next, Next::Serve(_)) && !of_peer && !of_transactions;
        self.others_waited = if of_others || self.others.is_empty() { 0 } else { self.others_waited + 1 };
        let none = of_transactions || self.transactions.is_empty();
        self.transactions_waited = if none { 0 } else { self.transactions_waited + 1 };
        Some(next)
    }
}

/// The ledger thread's state.
struct Thread<'a, L> {
    ledger: &'a mut Ledger,
    transactions: &'a Transactions,
    queue: &'a Arc<Queue>,
    /// Where who waits for another tip finds it.
    tip: &'a watch::Sender<BlockHash>,
    listener: L,
    watch: Watch,
    /// Blocks handed in by interfaces, until it shows whether they are connected.
    submitted: Vec<(BlockHash, mpsc::Sender<Submitted>)>,
    when_idle: Vec<mpsc::Sender<()>>,
    /// The chain has come near the network's tip once.
    in_sync: bool,
    written: Instant,
    /// The tip last told, its height, and when.
    told: (BlockHash, u32, Instant),
    /// An index has not caught up.
    behind: bool,
    /// Height of the tip at which it stops by itself.
    stop_at: Option<u32>,
}

/// Serves requests until [`Queue::stop`], or until a tip of height `stop_at` (0: none), then writes everything.
pub fn run(
    ledger: &mut Ledger,
    transactions: &Transactions,
    queue: &Arc<Queue>,
    tip: &watch::Sender<BlockHash>,
    stop_at: u32,
    listener: impl Listener,
    watch: Watch,
) -> Result<(), LedgerError> {
    let begun = Instant::now();
    let behind = ledger.indexes().read().iter().any(|index| !index.synced);
    // One that begins there goes on to the next block.
    let stop_at = (stop_at > 0).then(|| stop_at.max(ledger.height() + 1));
    let mut thread = Thread {
        ledger,
        transactions,
        queue,
        tip,
        listener,
        watch,
        submitted: Vec::new(),
        when_idle: Vec::new(),
        in_sync: false,
        written: begun,
        told: (BlockHash::all_zeros(), 0, begun),
        behind,
        stop_at,
    };
    let mut busy = true;
    loop {
        match queue.next(Idle { may_step: busy, behind: thread.behind }) {
            Next::Stop => break,
            Next::Serve(request) => {
                thread.serve(request)?;
                busy = thread.step()?;
            }
            Next::Step => busy = thread.step()?,
            Next::Index => thread.catch_up(true)?,
        }
        if !busy {
            thread.rest()?;
        }
    }
    systemd::stopping();
    thread.ledger.flush()
}

impl<L: Listener> Thread<'_, L> {
    fn serve(&mut self, request: Request) -> Result<(), LedgerError> {
        match request {
            Request::Headers(token, headers) => {
                let now = now();
                let accepted = headers.iter().try_for_each(|header| {
                    let accepted = self.ledger.accept_header(header, now).map(drop);
                    accepted.inspect_err(|rejection| info!("header {} refused: {rejection}", header.block_hash()))
                });
                self.listener.done(token, Done::Headers(accepted));
            }
            Request::Block(token, None) => self.listener.done(token, Done::Block(Verdict::Undecodable)),
            Request::Block(token, Some(incoming)) => {
                let block = incoming.block.clone();
                let verdict = match self.ledger.accept_block(*incoming, None, now())? {
                    Ok(Accepted::New(id)) => {
                        self.tell_of_stored(id, block);
                        Verdict::Stored
                    }
                    Ok(Accepted::Known(_)) => Verdict::Known,
                    Err(rejection) => {
                        tell_of_refused(&block.hash, rejection);
                        Verdict::Rejected(rejection)
                    }
                };
                self.listener.done(token, Done::Block(verdict));
            }
            Request::Submit { incoming, answer } => {
                let block = incoming.block.clone();
                let verdict = match self.ledger.accept_block(*incoming, None, now())? {
                    Ok(Accepted::New(id)) => {
                        self.submitted.push((block.hash, answer));
                        self.tell_of_stored(id, block);
                        return Ok(());
                    }
                    Ok(Accepted::Known(_)) => Submitted::Duplicate,
                    Err(rejection) => {
                        tell_of_refused(&block.hash, rejection);
                        Submitted::Rejected(rejection)
                    }
                };
                // Who asked may have given up; so everywhere below.
                let _ = answer.send(verdict);
            }
            Request::Run(job) => job(self.ledger)?,
            Request::WhenIdle(answer) => self.when_idle.push(answer),
            Request::Offer(offer) => {
                self.come_to_rest()?;
                self.transactions.offer(offer, self.ledger, self.queue, &mut self.listener)?;
            }
            Request::Package(package) => {
                self.come_to_rest()?;
                self.transactions.package(package, self.ledger, self.queue, &mut self.listener)?;
            }
            Request::Checked(checked) => {
                self.come_to_rest()?;
                self.transactions.checked(*checked, self.ledger, &mut self.listener)?;
            }
        }
        Ok(())
    }

    /// Lets the coins come to the published tip: a transaction is judged there. It takes the scripts in flight, and where
    /// a reorganisation is under way the rest of that.
    fn come_to_rest(&mut self) -> Result<(), LedgerError> {
        while !self.ledger.is_at_rest() {
            match self.ledger.finish_scripts()? {
                Some(step) => drop(self.tell(step)),
                None if self.ledger.is_at_rest() => {}
                None => drop(self.step()?),
            }
        }
        Ok(())
    }

    /// Peers can have a new block while it is connected here. Core: `AcceptBlock`, `NewPoWValidBlock`.
    fn tell_of_stored(&mut self, id: Id, block: Arc<Block>) {
        let tree = self.ledger.tree();
        let tree = tree.read();
        // During the first sync nobody is told, and who took the block only to let go of it is the hub.
        let extends = self.in_sync && tree.node(id).parent() == Some(tree.tip());
        drop(tree);
        if extends {
            self.listener.stored(block);
        }
    }

    /// One step towards the best chain; false when there is none to do.
    fn step(&mut self) -> Result<bool, LedgerError> {
        if self.stop_at.is_some_and(|height| self.ledger.height() >= height) {
            if let Some(step) = self.ledger.finish_scripts()? {
                return Ok(self.tell(step));
            }
            // A reorganisation goes on until its end.
            if self.ledger.is_at_rest() {
                self.queue.stop();
                return Ok(false);
            }
        }
        let step = self.ledger.activate_best_chain()?;
        let busy = self.tell(step);
        if busy && self.behind {
            self.catch_up(false)?;
        }
        if busy && !self.in_sync && self.written.elapsed() > WRITE_INTERVAL {
            self.written = Instant::now();
            self.ledger.flush()?;
        }
        Ok(busy)
    }

    /// A step of the indexes that are behind; without `wait` only if what it takes is there.
    fn catch_up(&mut self, wait: bool) -> Result<(), LedgerError> {
        let behind = self.ledger.catch_up_indexes(wait)?;
        if self.behind && !behind {
            info!("the indexes are in step with the chain");
        }
        self.behind = behind;
        Ok(())
    }

    /// Tells of a step; false when it was none.
    fn tell(&mut self, step: Step) -> bool {
        match step {
            Step::Idle => return false,
            Step::Moved(None) => {}
            Step::Moved(Some(change)) => {
                self.in_sync |= self.is_near_the_tip();
                self.tip.send_replace(self.published().0);
                self.transactions.publish(change.connected.last().filter(|_| self.in_sync));
                self.watch.tip_changed(&change, self.in_sync);
                self.transactions.tell_of_returned(&mut self.listener);
                self.listener.tip_changed(change.connected.iter().map(|block| block.hash).collect());
                if self.in_sync {
                    change.connected.into_iter().for_each(|block| self.listener.connected(block));
                }
                self.tell_of_tip(TELL_INTERVALS[usize::from(!self.in_sync)]);
            }
            Step::Refused(hash, rejection) => {
                tell_of_refused(&hash, rejection);
                for (_, answer) in self.submitted.extract_if(.., |(submitted, _)| *submitted == hash) {
                    let _ = answer.send(Submitted::Rejected(rejection));
                }
                self.listener.refused(hash, rejection);
            }
        }
        true
    }

    /// Nothing is left to do: who waited for that is answered, and a node in sync writes each block.
    fn rest(&mut self) -> Result<(), LedgerError> {
        self.tell_of_tip(Duration::ZERO);
        self.watch.look_at_branches();
        self.in_sync |= self.is_near_the_tip();
        if self.in_sync {
            self.ledger.flush_if_settled()?;
        }
        let tree = self.ledger.tree();
        let tree = tree.read();
        for (hash, answer) in self.submitted.drain(..) {
            let active = tree.get(&hash).is_some_and(|id| tree.is_active(id));
            let _ = answer.send(if active { Submitted::Accepted } else { Submitted::Inconclusive });
        }
        for answer in self.when_idle.drain(..) {
            let _ = answer.send(());
        }
        Ok(())
    }

    /// Core: `IsInitialBlockDownload`.
    fn is_near_the_tip(&self) -> bool {
        let tree = self.ledger.tree();
        let tree = tree.read();
        let tip = tree.node(tree.tip());
        let young = u64::from(tip.time).saturating_add(self.ledger.params().max_tip_age) > u64::from(now());
        young && tip.work >= self.ledger.params().minimum_chain_work
    }

    /// Hash and height of the published tip.
    fn published(&self) -> (BlockHash, u32) {
        let tree = self.ledger.tree();
        let tree = tree.read();
        let tip = tree.node(tree.tip());
        (tip.hash, tip.height)
    }

    /// Tells of the tip unless it was told of, or one was less than `pause` ago.
    fn tell_of_tip(&mut self, pause: Duration) {
        let (hash, height) = self.published();
        let (told, from, at) = self.told;
        if told == hash || (at.elapsed() < pause && told != BlockHash::all_zeros()) {
            return;
        }
        let mut line = format!("tip {hash} at height {height}");
        if !self.in_sync {
            let best = {
                let tree = self.ledger.tree();
                let tree = tree.read();
                tree.node(tree.best_header()).height
            };
            let pace =
                Pace { blocks: height.saturating_sub(from), left: best.saturating_sub(height), span: at.elapsed() };
            line += &format!(" of {best}, {pace}, cache {} MiB", self.ledger.table_memory() >> 20);
        }
        info!("{line}");
        systemd::status(&line);
        self.told = (hash, height, Instant::now());
    }
}

fn tell_of_refused(hash: &BlockHash, rejection: Rejection) {
    info!("block {hash} refused: {rejection}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transactions::PackageGiver;

    #[test]
    fn an_interface_has_its_turn_while_peers_keep_the_ledger_busy() {
        let queue = Queue::default();
        for number in 0..100 {
            queue.push(Request::Headers(Token(number), Vec::new()));
        }
        queue.push(Request::WhenIdle(mpsc::channel().0));
        let turns = (0..100)
            .take_while(|_| {
                !matches!(queue.next(Idle { may_step: false, behind: true }), Next::Serve(Request::WhenIdle(_)))
            })
            .count();
        assert_eq!(turns, MAX_IN_A_ROW as usize, "headers that were served before the interface");
    }

    #[test]
    fn a_transaction_has_its_turn_while_blocks_are_connected() {
        let queue = Queue::default();
        let package = || Package::new(Vec::new(), PackageGiver::Peer(Token(0)));
        queue.push(Request::Package(package()));
        let turns =
            (0..100).take_while(|_| matches!(queue.next(Idle { may_step: true, behind: true }), Next::Step)).count();
        assert_eq!(turns, MAX_IN_A_ROW as usize, "steps that were made before the transaction");
        queue.push(Request::Package(package()));
        assert!(
            matches!(queue.next(Idle { may_step: false, behind: true }), Next::Serve(Request::Package(..))),
            "with nothing else to do it is served"
        );
        assert!(matches!(queue.next(Idle { may_step: false, behind: true }), Next::Index), "indexes come last");
    }
}
