//! What an operator reads of the protocol and changes in it while it runs.

use super::*;
use crate::addr::{NetAddr, Network};
use crate::dial::MAX_BLOCK_RELAY_ONLY_ANCHORS;
use crate::local::Own;
use crate::peer::NODE_WITNESS;

/// What a node remembers from its last run.
#[derive(Debug, Default)]
pub struct Memory {
    /// The peer book; none: begin a new one.
    pub book: Option<Book>,
    /// The peers that it had for blocks only: they are dialled first.
    pub anchors: Vec<AddrEntry>,
    /// The bans.
    pub bans: Bans,
}

/// Why a peer is not asked for a block. Core: the errors of `FetchBlock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFetched {
    /// There is no such peer.
    #[error("Peer does not exist")]
    NoPeer,
    /// It gives blocks without their witnesses.
    #[error("Pre-SegWit peer")]
    NoWitness,
    /// The handshake is not done.
    #[error("Peer not fully connected")]
    NotReady,
}

/// A transaction whose parents are not here, and who announced it.
#[derive(Clone, Debug)]
pub struct OrphanTx {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// The peers that have it.
    pub announcers: Vec<PeerId>,
}

/// Why an address is not in the book, or not among the tried ones. Core: the errors of `addpeeraddress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdded {
    /// Its place among the new ones is taken, or it is no address that can be dialled.
    #[error("failed-adding-to-new")]
    New,
    /// Its place among the tried ones is taken.
    #[error("failed-adding-to-tried")]
    Tried,
}

impl Protocol {
    /// Takes over what is left of the last run. To be called before the first input.
    pub fn remember(&mut self, memory: Memory) {
        if let Some(book) = memory.book {
            self.book = book;
        }
        self.dialling.anchors = memory.anchors;
        self.dialling.anchors.truncate(MAX_BLOCK_RELAY_ONLY_ANCHORS);
        self.guard.bans = memory.bans;
    }

    /// The peer book: to be written down now and then.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The peers for blocks only: to be written down at the end. None where the operator names all peers: what is written
    /// down stays, for a run that dials by itself. Core: `GetCurrentBlockRelayOnlyConns`.
    pub fn anchors(&self) -> Option<Vec<AddrEntry>> {
        let open = |peer: &&Peer| peer.kind == LinkKind::BlockRelay && peer.ready;
        let entry =
            |peer: &Peer| AddrEntry { time: peer.since.seconds32(), services: peer.services(), addr: peer.addr };
        let anchors = self.peers.values().filter(open).map(entry).take(MAX_BLOCK_RELAY_ONLY_ANCHORS);
        self.core.config.dialling.automatic.then(|| anchors.collect())
    }

    /// The bans: to be written down at [`Output::BansChanged`]. Some may be over.
    pub fn bans(&self) -> &Bans {
        &self.guard.bans
    }

    /// Addresses of ours.
    pub fn own_addresses(&self) -> impl Iterator<Item = Own> {
        self.local.iter()
    }

    /// Networks that are dialled.
    pub fn reachable(&self) -> impl Iterator<Item = Network> {
        self.core.config.dialling.reachable.iter().copied()
    }

    /// Whether links are made.
    pub fn is_active(&self) -> bool {
        self.dialling.active
    }

    /// Whether [`Command::Open`] may make one more link of this kind.
    pub fn has_slot(&self, kind: LinkKind) -> bool {
        self.dialling.has_slot(kind, &self.peers, &self.core.config.dialling)
    }

    /// Whether this peer can be asked for a block by [`Command::Fetch`].
    pub fn may_fetch(&self, peer: PeerId) -> Result<(), NotFetched> {
        match self.peers.get(&peer).filter(|peer| peer.closing.is_none()) {
            None => Err(NotFetched::NoPeer),
            Some(peer) if peer.services() & NODE_WITNESS == 0 => Err(NotFetched::NoWitness),
            Some(peer) if !peer.ready => Err(NotFetched::NotReady),
            Some(_) => Ok(()),
        }
    }

    /// Transactions that wait for their parents.
    pub fn orphan_transactions(&self) -> impl Iterator<Item = OrphanTx> {
        self.download.orphan_transactions()
    }

    /// Where a peer stands among the transactions that it is told of: the number up to which it was told, and how many
    /// it waits for. None: it is told of none.
    pub fn told(&self, peer: &Peer) -> Option<(u64, usize)> {
        self.relay.told(peer)
    }

    /// Some addresses of the book, at most `most`. Core: `getnodeaddresses`.
    pub fn addresses(&mut self, most: usize, network: Option<Network>, now: Micros) -> Vec<AddrEntry> {
        let mut entries = self.book.sample(most, 100, network, now.seconds32(), &mut self.core.rng);
        entries.retain(|entry| !self.guard.refuses(&entry.addr.host, now));
        entries
    }

    /// Puts an address into the book, told by itself. Core: `addpeeraddress`.
    pub fn add_address(&mut self, addr: NetAddr, services: u64, tried: bool, now: Micros) -> Result<(), NotAdded> {
        let entry = AddrEntry { time: now.seconds32(), services, addr };
        if !self.book.add(&entry, addr.host, 0, now.seconds32(), &mut self.core.rng) {
            return Err(NotAdded::New);
        }
        self.dialling.wake(now);
        if tried && !self.book.good(&addr, now.seconds32()) {
            return Err(NotAdded::Tried);
        }
        Ok(())
    }

    /// The operator wants something.
    pub(super) fn on_command(&mut self, command: Command, now: Micros, out: &mut Vec<Output>) {
        let cx = &mut Cx { now, core: &mut self.core, out };
        let changed = match command {
            Command::Ban { subnet, until } => {
                self.guard.bans.sweep(now.seconds());
                let room = self.guard.bans.len() < cx.core.config.limits.bans;
                for peer in self.peers.values_mut().filter(|peer| subnet.contains(&peer.addr.host)) {
                    cx.disconnect(peer, Reason::Banned);
                }
                room && self.guard.bans.add(subnet, Ban { created: now.seconds(), until })
            }
            Command::Unban(subnet) => self.guard.bans.remove(&subnet),
            Command::ClearBans => !std::mem::take(&mut self.guard.bans).is_empty(),
            Command::SetActive(active) => {
                self.dialling.active = active;
                self.dialling.wake(now);
                for peer in self.peers.values_mut().filter(|_| !active) {
                    cx.disconnect(peer, Reason::Inactive);
                }
                false
            }
            Command::Open { addr, kind, v2 } => {
                self.dialling.open(addr, kind, v2, cx);
                false
            }
            Command::Added(added) => {
                self.dialling.set_added(added);
                false
            }
            Command::Reach(network) => {
                cx.core.config.dialling.reachable.insert(network);
                self.dialling.wake(now);
                false
            }
            Command::Fetch { peer, hash } => {
                self.blocks.fetch(&mut self.peers, peer, hash, cx);
                false
            }
            Command::Forward(by) => {
                self.relay.forward(by);
                self.surplus.forward(by);
                false
            }
            Command::Ping => {
                self.peers.values_mut().filter(|peer| peer.ready).for_each(|peer| ping::send_now(peer, cx));
                false
            }
        };
        if changed {
            cx.output(Output::BansChanged);
        }
    }
}
