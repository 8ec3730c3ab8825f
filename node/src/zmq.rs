//! The topics that a node publishes by ZeroMQ, in Core's format: topic, body, number of the message within its topic as
//! four bytes, the lowest first. Core: `zmq/zmqpublishnotifier.cpp`. Takes events in their order; knows no ledger.

mod socket;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction};
use groat_chain::block::Block;
use groat_chain::ledger::Disconnected;

use crate::events::{Event, Lost};
use socket::{Address, Socket};

/// What is published. The order is that in which Core publishes of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Hash of the tip.
    HashBlock,
    /// Id of a transaction that came into the pool, or is part of a block that joined or left the chain.
    HashTx,
    /// The tip's block.
    RawBlock,
    /// A transaction as with [`Topic::HashTx`].
    RawTx,
    /// What happened to the chain and the pool, by ids.
    Sequence,
}

impl Topic {
    /// All of them.
    pub const ALL: [Topic; 5] = [Topic::HashBlock, Topic::HashTx, Topic::RawBlock, Topic::RawTx, Topic::Sequence];

    /// Its name on the wire, and after `-zmqpub`.
    pub fn name(self) -> &'static str {
        match self {
            Topic::HashBlock => "hashblock",
            Topic::HashTx => "hashtx",
            Topic::RawBlock => "rawblock",
            Topic::RawTx => "rawtx",
            Topic::Sequence => "sequence",
        }
    }
}

/// That a topic is to be published at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The topic.
    pub topic: Topic,
    /// The address as libzmq writes it.
    pub address: String,
    /// Messages that may wait for a subscriber; 0: no bound but that of bytes. Core: `hwm`.
    pub most: i64,
}

impl Notification {
    /// What the operator wants. Core's word for an address without a port.
    pub fn new(topic: Topic, address: &str, most: i64) -> anyhow::Result<Notification> {
        let name = topic.name();
        if Address::parse(address).is_none() {
            bail!("Invalid port specified in -zmqpub{name}: '{address}'");
        }
        // Core, too, shows it so.
        let address = address.strip_prefix("unix:").map_or(address.to_owned(), |path| format!("ipc://{path}"));
        Ok(Notification { topic, address, most })
    }
}

/// Who publishes.
pub struct Publisher {
    outlets: Vec<Outlet>,
}

/// One topic at one address.
struct Outlet {
    topic: Topic,
    socket: Arc<Socket>,
    /// Number of the next message.
    number: u32,
}

impl Publisher {
    /// Listens at all addresses, on tasks of the runtime that this is called in. Topics at one address share a socket,
    /// which takes the first one's bound, as with Core.
    pub fn bind(notifications: &[Notification]) -> anyhow::Result<Publisher> {
        let mut sockets = BTreeMap::<&str, Arc<Socket>>::new();
        let mut outlets = Vec::new();
        for Notification { topic, address, most } in notifications {
            let socket = match sockets.get(address.as_str()) {
                Some(socket) => socket.clone(),
                None => {
                    let parsed = Address::parse(address).context("addresses were read before")?;
                    let socket = Socket::bind(&parsed, usize::try_from(*most).unwrap_or(0))
                        .with_context(|| format!("cannot publish at {address} (-zmqpub{})", topic.name()))?;
                    sockets.entry(address).or_insert(Arc::new(socket)).clone()
                }
            };
            outlets.push(Outlet { topic: *topic, socket, number: 0 });
        }
        outlets.sort_by_key(|outlet| outlet.topic);
        Ok(Publisher { outlets })
    }

    /// Whether nothing is to be published at all.
    pub fn is_idle(&self) -> bool {
        self.outlets.is_empty()
    }

    /// Events were lost: their numbers are left out, so that subscribers see it.
    pub fn skip(&mut self, lost: Lost) {
        for outlet in &mut self.outlets {
            let missing = match outlet.topic {
                Topic::HashBlock | Topic::RawBlock => lost.tips,
                Topic::HashTx | Topic::RawTx => lost.transactions,
                Topic::Sequence => lost.changes,
            };
            outlet.number = outlet.number.wrapping_add(missing);
        }
    }

    /// Publishes what one event comes to. `read` gives a block that left the chain and is not held.
    pub fn publish(&mut self, event: &Event, read: impl Fn(&BlockHash) -> Option<Block>) {
        match event {
            Event::Tip(block) => {
                self.send(Topic::HashBlock, || reversed(block.hash.to_byte_array()));
                self.send(Topic::RawBlock, || raw(block));
            }
            Event::Connected(block) => {
                self.transactions(block);
                self.sequence(block.hash.to_byte_array(), b'C', None);
            }
            Event::Disconnected(Disconnected { hash, block }) => {
                match block {
                    Some(block) => self.transactions(block),
                    None => read(hash).iter().for_each(|block| self.transactions(block)),
                }
                self.sequence(hash.to_byte_array(), b'D', None);
            }
            Event::Entered(tx, number) => {
                let txid = tx.compute_txid().to_byte_array();
                self.transaction(txid, tx);
                self.sequence(txid, b'A', Some(*number));
            }
            Event::Left(txid, number) => self.sequence(txid.to_byte_array(), b'R', Some(*number)),
        }
    }

    fn transactions(&mut self, block: &Block) {
        for (tx, txid) in block.transactions.iter().zip(&block.txids) {
            self.transaction(txid.to_byte_array(), tx);
        }
    }

    fn transaction(&mut self, txid: [u8; 32], tx: &Transaction) {
        self.send(Topic::HashTx, || reversed(txid));
        self.send(Topic::RawTx, || serialize(tx));
    }

    fn sequence(&mut self, hash: [u8; 32], label: u8, number: Option<u64>) {
        self.send(Topic::Sequence, || {
            let mut body = reversed(hash);
            body.push(label);
            body.extend(number.into_iter().flat_map(u64::to_le_bytes));
            body
        });
    }

    /// Sends a body, which is made only if somebody wants it.
    fn send(&mut self, topic: Topic, body: impl Fn() -> Vec<u8>) {
        let mut made = None;
        for outlet in self.outlets.iter_mut().filter(|outlet| outlet.topic == topic) {
            let name = topic.name().as_bytes();
            if outlet.socket.is_wanted(name) {
                let body = made.get_or_insert_with(&body);
                outlet.socket.send(&[name, body, &outlet.number.to_le_bytes()]);
            }
            outlet.number = outlet.number.wrapping_add(1);
        }
    }
}

/// A hash as people write it: the last byte first.
fn reversed(mut hash: [u8; 32]) -> Vec<u8> {
    hash.reverse();
    hash.to_vec()
}

fn raw(block: &Block) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(block.size);
    bytes.extend(serialize(&block.header));
    bytes.extend(serialize(&VarInt::from(block.transactions.len())));
    block.transactions.iter().for_each(|tx| bytes.extend(serialize(tx)));
    bytes
}
