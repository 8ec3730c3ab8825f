//! The ledger thread: owns the [`Ledger`], takes requests in the order of their kind, and steps towards the best chain
//! between them. Tells of what happened through the [`Listener`]; knows neither peers nor RPC.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use groat_chain::block::Block;
use groat_chain::ledger::{Accepted, Ledger, LedgerError, Step};
use groat_chain::rejection::Rejection;
use groat_chain::tree::Id;
use groat_net::protocol::{Done, Verdict};
use tokio::sync::watch;
use tracing::info;

use crate::clock::now;
use crate::progress::Pace;
use crate::requests::{Idle, Listener, Next, Queue, Request, Submitted};
use crate::systemd;
use crate::transactions::Transactions;
use crate::warnings::Watch;

/// During the first sync everything is written at least this often. Core: `DATABASE_WRITE_INTERVAL_MAX`.
const WRITE_INTERVAL: Duration = Duration::from_secs(70 * 60);
/// A tip is told at most this often: in sync, and before.
const TELL_INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

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
