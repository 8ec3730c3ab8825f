//! What happens to chain and pool, in exact order, for who tells others of it (ZMQ, `-blocknotify`). The ledger thread puts
//! events into a queue that is bounded in bytes and never waits for who takes them. Knows no interface.

use std::collections::VecDeque;
use std::sync::Arc;

use bitcoin::{Transaction, Txid};
use groat_chain::block::Block;
use groat_chain::ledger::{Change, Disconnected, Follow, Ledger, LedgerError};
use groat_chain::mempool::{Follower, Mempool, Movement};
use groat_chain::tree::Id;
use parking_lot::{Condvar, Mutex, RwLock};

/// Serialized bytes of blocks and transactions that wait to be told of. A full queue loses the oldest.
pub const MAX_QUEUE_BYTES: usize = if cfg!(test) { 4000 } else { 64 << 20 };
/// What an event takes beside that.
const EVENT_BYTES: usize = 100;

/// One of the things that happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A block left the active chain.
    Disconnected(Disconnected),
    /// A transaction came into the pool; the number is that of the pool.
    Entered(Arc<Transaction>, u64),
    /// A transaction left the pool for another reason than a block.
    Left(Txid, u64),
    /// A block joined the active chain.
    Connected(Arc<Block>),
    /// A node near the network's tip shows this block as its own.
    Tip(Arc<Block>),
}

impl Event {
    fn bytes(&self) -> usize {
        EVENT_BYTES
            + match self {
                Event::Connected(block) | Event::Tip(block) => block.size,
                Event::Disconnected(Disconnected { block, .. }) => block.as_ref().map_or(0, |block| block.size),
                Event::Entered(tx, _) => tx.total_size(),
                Event::Left(..) => 0,
            }
    }
}

impl From<Movement> for Event {
    fn from(movement: Movement) -> Event {
        match movement {
            Movement::Entered(tx, number) => Event::Entered(tx, number),
            Movement::Left(txid, number) => Event::Left(txid, number),
        }
    }
}

/// What was lost: each reader counts it in its own way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Blocks that joined or left the chain, and transactions that came into the pool or left it.
    pub changes: u32,
    /// Transactions of those blocks, and those that came into the pool.
    pub transactions: u32,
    /// Tips.
    pub tips: u32,
}

impl Lost {
    fn add(&mut self, event: &Event) {
        let (changes, transactions, tips) = match event {
            Event::Connected(block) => (1, block.transactions.len(), 0),
            Event::Disconnected(gone) => (1, gone.block.as_ref().map_or(0, |block| block.transactions.len()), 0),
            Event::Entered(..) => (1, 1, 0),
            Event::Left(..) => (1, 0, 0),
            Event::Tip(_) => (0, 0, 1),
        };
        self.changes = self.changes.wrapping_add(changes);
        self.transactions = self.transactions.wrapping_add(transactions as u32);
        self.tips = self.tips.wrapping_add(tips);
    }
}

/// Events that wait for the one thread that tells of them.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
    /// What was lost before the first of them.
    lost: Lost,
    closed: bool,
}

impl Queue {
    fn push(&self, events: impl IntoIterator<Item = Event>) {
        let mut waiting = self.waiting.lock();
        for event in events {
            waiting.bytes += event.bytes();
            waiting.events.push_back(event);
            while waiting.bytes > MAX_QUEUE_BYTES && waiting.events.len() > 1 {
                let oldest = waiting.events.pop_front().expect("there are several");
                waiting.bytes -= oldest.bytes();
                waiting.lost.add(&oldest);
            }
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// The next event, with what was lost before it. Waits for one; none: there will be no more.
    pub fn next(&self) -> Option<(Lost, Event)> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(event) = waiting.events.pop_front() {
                waiting.bytes -= event.bytes();
                return Some((std::mem::take(&mut waiting.lost), event));
            }
            if waiting.closed {
                return None;
            }
            self.wake.wait(&mut waiting);
        }
    }

    /// Nothing comes any more.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.wake.notify_one();
    }
}

/// Where the ledger thread notes what happens until readers can see it too.
#[derive(Clone)]
pub struct Notes {
    pool: Arc<RwLock<Mempool>>,
    noted: Arc<Mutex<Vec<Event>>>,
    queue: Arc<Queue>,
}

impl Notes {
    /// Notes for this queue, of this pool.
    pub fn new(pool: Arc<RwLock<Mempool>>, queue: Arc<Queue>) -> Notes {
        pool.write().note_movements();
        Notes { pool, noted: Arc::default(), queue }
    }

    /// The pool may have changed, and all that was noted can be seen.
    pub fn publish(&self) {
        self.note_movements();
        self.queue.push(self.noted.lock().drain(..));
    }

    /// This block is shown as the tip.
    pub fn publish_tip(&self, block: Arc<Block>) {
        self.queue.push([Event::Tip(block)]);
    }

    fn note_movements(&self) {
        self.noted.lock().extend(self.pool.write().movements().into_iter().map(Event::from));
    }
}

/// Brings the pool along with the chain and notes both, in Core's order: blocks that leave, what that does to the pool,
/// blocks that join.
pub struct Noting {
    /// Brings the pool along.
    pub follower: Follower,
    /// Where it is noted.
    pub notes: Notes,
}

impl Follow for Noting {
    fn follow(&mut self, change: &Change, tip: Id, ledger: &Ledger) -> Result<(), LedgerError> {
        self.notes.noted.lock().extend(change.disconnected.iter().cloned().map(Event::Disconnected));
        self.follower.follow(change, tip, ledger)?;
        self.notes.note_movements();
        self.notes.noted.lock().extend(change.connected.iter().cloned().map(Event::Connected));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn left(number: u64) -> Event {
        Event::Left(Txid::all_zeros(), number)
    }

    #[test]
    fn a_full_queue_loses_the_oldest_and_counts_them() {
        let queue = Queue::default();
        let fits = (MAX_QUEUE_BYTES / EVENT_BYTES) as u64;
        queue.push((0..fits + 3).map(left));
        let (lost, first) = queue.next().expect("they wait");
        assert_eq!(lost, Lost { changes: 3, ..Lost::default() });
        assert!(matches!(first, Event::Left(_, 3)), "the oldest that is left comes first: {first:?}");
        queue.close();
        let rest = std::iter::from_fn(|| queue.next()).collect::<Vec<_>>();
        assert_eq!(rest.len() as u64, fits - 1, "what waits is told of after the end");
        assert!(rest.iter().all(|(lost, _)| *lost == Lost::default()), "what was lost is told once");
    }
}
