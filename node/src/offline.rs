//! A node without peers: the ledger thread, and a hub that has no link. For tests and tools that want the interfaces
//! over a ledger of their own. Knows no RPC.

use std::sync::Arc;
use std::thread::JoinHandle;

use bitcoin::BlockHash;
use groat_chain::ledger::{Ledger, LedgerError};
use groat_chain::rejection::Rejection;
use groat_net::protocol::{Done, Token};
use groat_net::upload::UploadTarget;
use tokio::sync::{mpsc, watch};

use crate::handle::{AddNode, AddNodeError, Ask, NodeHandle};
use crate::ledger::{self, Listener, Queue};

/// Questions to the hub that may wait.
const ASKS: usize = 16;

/// A node that runs until it is stopped by its handle, or dropped.
pub struct Offline {
    node: NodeHandle,
    ledger: Option<JoinHandle<Result<(), LedgerError>>>,
}

impl Offline {
    /// Starts the ledger's thread and an empty hub.
    pub fn start(mut ledger: Ledger) -> Offline {
        let (hub, asks) = mpsc::channel(ASKS);
        let queue = Arc::new(Queue::default());
        let node = NodeHandle {
            tree: ledger.tree(),
            store: ledger.store(),
            params: ledger.params().clone(),
            ledger: queue.clone(),
            hub,
            stop: Arc::new(watch::Sender::new(false)),
        };
        std::thread::spawn(move || answer(asks));
        let ledger = std::thread::spawn(move || ledger::run(&mut ledger, &queue, Nobody));
        Offline { node, ledger: Some(ledger) }
    }

    /// What interfaces hold of it.
    pub fn handle(&self) -> NodeHandle {
        self.node.clone()
    }

    /// Waits until the node has been stopped and everything is written.
    pub fn wait(mut self) -> Result<(), LedgerError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), LedgerError> {
        let Some(ledger) = self.ledger.take() else { return Ok(()) };
        ledger.join().expect("the ledger's thread does not panic")
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        self.node.stop();
        // Who wants to know of a failure waits.
        let _ = self.join();
    }
}

/// Answers for a hub that never has a link; ends with the last handle.
fn answer(mut asks: mpsc::Receiver<Ask>) {
    let mut added: Vec<String> = Vec::new();
    // Who asked may have given up.
    while let Some(ask) = asks.blocking_recv() {
        match ask {
            Ask::Peers(answer) => drop(answer.send(Vec::new())),
            Ask::AddedNodes(answer) => drop(answer.send(added.iter().map(|name| (name.clone(), false)).collect())),
            Ask::UploadTarget(answer) => drop(answer.send(UploadTarget::NONE)),
            Ask::Disconnect(_, answer) => drop(answer.send(false)),
            Ask::AddNode(name, command, answer) => {
                let known = added.iter().position(|other| *other == name);
                let done = match (command, known) {
                    (AddNode::OneTry, _) => Ok(()),
                    (AddNode::Add, Some(_)) => Err(AddNodeError::AlreadyAdded),
                    (AddNode::Add, None) => {
                        added.push(name);
                        Ok(())
                    }
                    (AddNode::Remove, Some(at)) => {
                        added.remove(at);
                        Ok(())
                    }
                    (AddNode::Remove, None) => Err(AddNodeError::NotAdded),
                };
                let _ = answer.send(done);
            }
        }
    }
}

/// There is no protocol to tell.
struct Nobody;

impl Listener for Nobody {
    fn done(&mut self, _: Token, _: Done) {}
    fn stored(&mut self, _: std::sync::Arc<groat_chain::block::Block>) {}
    fn tip_changed(&mut self, _: Vec<BlockHash>) {}
    fn connected(&mut self, _: std::sync::Arc<groat_chain::block::Block>) {}
    fn refused(&mut self, _: BlockHash, _: Rejection) {}
}
