//! What the ledger thread is asked to do, in which order it does that, and what it tells. Does nothing itself; knows neither
//! peers nor RPC.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, mpsc};

use bitcoin::block::Header;
use bitcoin::{BlockHash, Transaction, Txid, Wtxid};
use groat_chain::block::Block;
use groat_chain::ledger::{Incoming, Ledger, LedgerError};
use groat_chain::mempool::{Accepted, FeeRate, Judged, Judging, Refusal, Staged};
use groat_chain::rejection::Rejection;
use groat_net::protocol::{Done, Token};
use parking_lot::{Condvar, Mutex};

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

/// A transaction that somebody offers.
pub struct Offer {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// When it came, in seconds since 1970.
    pub time: u64,
    /// Who offers it.
    pub from: Giver,
}

/// Who offers a transaction, and so who is told what became of it.
pub enum Giver {
    /// The protocol.
    Peer(Token),
    /// An interface.
    Interface {
        /// What it wants.
        purpose: Purpose,
        /// Gets the outcome.
        answer: mpsc::Sender<Result<Accepted, Refusal>>,
    },
}

/// Transactions that somebody offers, to be judged together.
pub struct Package {
    pub(crate) judging: Judging,
    /// Those that the pool took and that were told of.
    pub(crate) told: BTreeSet<Txid>,
    pub(crate) from: PackageGiver,
}

impl Package {
    /// Transactions, parents first, and who offers them.
    pub fn new(transactions: Vec<Arc<Transaction>>, from: PackageGiver) -> Package {
        Package { judging: Judging::new(transactions), told: BTreeSet::new(), from }
    }
}

/// Who offers a package, and so who is told what became of it.
pub enum PackageGiver {
    /// The protocol.
    Peer(Token),
    /// An interface.
    Interface {
        /// What it wants.
        purpose: Purpose,
        /// What each may pay at most.
        max_rate: Option<FeeRate>,
        /// Gets the outcome.
        answer: mpsc::Sender<Judged>,
    },
}

/// What an interface wants of a transaction that it offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The pool should take it, and peers be told.
    Take,
    /// The pool should take it; nobody is told, since peers were before.
    Quietly,
    /// To know if the pool would take it.
    Test,
}

/// A transaction whose scripts were run.
pub struct Checked {
    pub(crate) offer: Offer,
    pub(crate) staged: Staged,
    pub(crate) verdict: Result<(), Refusal>,
}

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
pub(crate) enum Next {
    Stop,
    Serve(Request),
    Step,
    /// A step of the indexes that are behind.
    Index,
}

/// What there is to do beside requests.
#[derive(Clone, Copy)]
pub(crate) struct Idle {
    /// The best chain is not the active one.
    pub may_step: bool,
    /// An index has not caught up.
    pub behind: bool,
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

    /// What is next; waits while there is nothing.
    pub(crate) fn next(&self, idle: Idle) -> Next {
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

#[cfg(test)]
mod tests {
    use super::*;

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
