//! What interfaces ask of the hub: what it knows of links, and what an operator wants done about them.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::BlockHash;
use groat_chain::tree::Tree;
use groat_net::addr::{Host, NetAddr, Network};
use groat_net::driver::{LinkInfo, Proxies};
use groat_net::local::Own;
use groat_net::message::Message;
use groat_net::peer::{LinkKind, Peer, Permissions};
use groat_net::protocol::{Command, Input, NotFetched, PeerId, Protocol};
use groat_net::timers::Micros;
use groat_net::upload::UploadTarget;
use groat_net::wire::Transport;

use super::Hub;
use crate::clock;

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
    #[error("Error: Node already added")]
    AlreadyAdded,
    /// Core: `RPC_CLIENT_NODE_NOT_ADDED` (-24).
    #[error("Error: Node could not be removed. It has not been added previously.")]
    NotAdded,
}

/// An address that is dialled whenever there is no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedNode {
    /// As the operator wrote it.
    pub name: String,
    /// The other end and whether it dialled us, if there is a link.
    pub linked: Option<(NetAddr, bool)>,
}

/// Which link to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By its number.
    Id(PeerId),
    /// By its address, as [`PeerInfo::addr`] shows it.
    Addr(String),
}

/// The node's place in the network, for `getnetworkinfo`.
#[derive(Clone, Debug)]
pub struct NetworkInfo {
    /// Links are made and taken in.
    pub active: bool,
    /// Links that peers made.
    pub inbound: usize,
    /// Links that we made.
    pub outbound: usize,
    /// The clocks of the peers that we dialled less ours, in seconds: the one in the middle.
    pub time_offset: i64,
    /// Networks that are dialled.
    pub reachable: Vec<Network>,
    /// Through whom.
    pub proxies: Proxies,
    /// Addresses at which peers may reach us.
    pub own: Vec<Own>,
}

/// Bytes that passed since the start, for `getnettotals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// What may still be sent today.
    pub target: UploadTarget,
    /// From all peers.
    pub received: u64,
    /// To all peers.
    pub sent: u64,
}

/// One link, for `getpeerinfo`.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its number: each link has its own, also two links to one address.
    pub id: PeerId,
    /// The other end; as the operator wrote it where he named it.
    pub addr: String,
    /// Its host.
    pub host: Host,
    /// Our end, where it is known.
    pub bind: Option<SocketAddr>,
    /// How the peer sees us, if it says so.
    pub local: Option<NetAddr>,
    /// The network that the link came over.
    pub network: Network,
    /// What the link is for; [`LinkKind::is_inbound`] says who dialled.
    pub kind: LinkKind,
    /// What the operator lets the peer do.
    pub permissions: Permissions,
    /// The handshake is done.
    pub ready: bool,
    /// Its version of the protocol; 0 before its version message came.
    pub version: i32,
    /// Its software, as it calls itself.
    pub subver: String,
    /// Its service bits.
    pub services: u64,
    /// Whether transactions are announced to it.
    pub relay_txs: bool,
    /// Number of the last transaction that it was told of, or that was passed over; 0 if it is told of none.
    pub told_to: u64,
    /// Transactions that it is still to be told of.
    pub untold: usize,
    /// Height of its chain when the link was made.
    pub start_height: i32,
    /// Height that the low-work sync of its headers has come to; -1 when there is none.
    pub presynced_headers: i32,
    /// The best header that it is known to have, and the best block that we share with it; -1 for none.
    pub synced_headers: i32,
    /// See `synced_headers`.
    pub synced_blocks: i32,
    /// Heights of the blocks asked of it.
    pub inflight: Vec<u32>,
    /// Addresses that it told and that were looked at, and those that were too many; none: addresses do not pass.
    pub addresses: Option<(u64, u64)>,
    /// When it last gave us a transaction that the pool took, in seconds since 1970; 0 for never.
    pub last_tx: u64,
    /// When it last gave us a block that we did not have, in seconds since 1970; 0 for never.
    pub last_block: u64,
    /// We asked it to push new blocks as compact blocks (BIP152).
    pub compact_to: bool,
    /// It asked us to.
    pub compact_from: bool,
    /// No transaction below this fee rate, in satoshi per 1000 virtual bytes.
    pub fee_filter: u64,
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
    /// Bytes of the messages sent, by their names.
    pub sent_by_kind: Vec<(&'static str, u64)>,
    /// Bytes of the messages received, by their names.
    pub received_by_kind: Vec<(&'static str, u64)>,
    /// Its clock less ours, in seconds.
    pub time_offset: i64,
    /// The last round trip and the shortest.
    pub ping: Option<Duration>,
    /// See `ping`.
    pub min_ping: Option<Duration>,
    /// How long a pong has been awaited.
    pub ping_wait: Option<Duration>,
    /// Version of the transport, with the session's id.
    pub transport: Transport,
}

impl Hub {
    /// All links, by number.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let tree = self.tree.read();
        self.protocol.peers().map(|peer| self.peer_info(peer, &tree)).collect()
    }

    fn peer_info(&self, peer: &Peer, tree: &Tree) -> PeerInfo {
        let (told_to, untold) = self.protocol.told(peer).unwrap_or_default();
        PeerInfo { told_to, untold, ..peer_info(peer, self.driver.info(peer.id), tree) }
    }

    /// Asks one peer for a block. Core: `FetchBlock`.
    pub fn fetch(&mut self, peer: PeerId, hash: BlockHash) -> Result<(), NotFetched> {
        self.protocol.may_fetch(peer)?;
        self.command(Command::Fetch { peer, hash });
        Ok(())
    }

    /// Asks the protocol for what an operator wants.
    pub fn command(&mut self, command: Command) {
        self.take(Input::Command(command));
    }

    /// What the protocol knows.
    pub fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    /// See [`Hub::protocol`].
    pub fn protocol_mut(&mut self) -> &mut Protocol {
        &mut self.protocol
    }

    /// Makes a link of this kind as the node makes them by itself; false when there are as many as there may be. Core:
    /// `AddConnection`.
    pub fn open(&mut self, address: &str, kind: LinkKind, v2: bool) -> bool {
        if !self.protocol.has_slot(kind) {
            return false;
        }
        match self.driver.address(address) {
            Some(addr) => self.command(Command::Open { addr, kind, v2 }),
            None => self.driver.dial(address, kind, Some(v2)),
        }
        true
    }

    /// The host as this machine takes it.
    pub fn host(&self, host: Host) -> Host {
        self.driver.host(host)
    }

    /// Dials `address` (`host` or `host:port`; the network's port if there is none), or forgets it. `v2`: with version 2
    /// of the transport first; none: as `-v2transport` says.
    pub fn add_node(&mut self, address: &str, command: AddNode, v2: Option<bool>) -> Result<(), AddNodeError> {
        match command {
            AddNode::OneTry => {
                if self.find(&Which::Addr(address.to_owned())).is_none() {
                    self.driver.dial(address, LinkKind::Manual, v2);
                }
                return Ok(());
            }
            AddNode::Add => {
                self.driver.keep(address, LinkKind::Manual, v2).then_some(()).ok_or(AddNodeError::AlreadyAdded)?;
            }
            AddNode::Remove => self.driver.forget(address).then_some(()).ok_or(AddNodeError::NotAdded)?,
        }
        let added = self.driver.kept_addresses().collect();
        self.command(Command::Added(added));
        Ok(())
    }

    /// The addresses that are dialled whenever there is no link.
    pub fn added_nodes(&self) -> Vec<AddedNode> {
        let by_addr = |addr: &Option<NetAddr>| {
            let same = |peer: &&Peer| Some(peer.addr) == *addr;
            self.protocol.peers().find(same).map(|peer| (peer.addr, peer.kind.is_inbound()))
        };
        let one = |kept: groat_net::driver::Kept| AddedNode {
            linked: by_addr(&kept.linked.or(self.driver.address(&kept.name))),
            name: kept.name,
        };
        self.driver.kept().map(one).collect()
    }

    /// The address of a peer as people are shown it.
    fn shown(&self, peer: &Peer) -> String {
        self.driver.info(peer.id).and_then(|link| link.name).unwrap_or_else(|| peer.addr.to_string())
    }

    fn find(&self, which: &Which) -> Option<PeerId> {
        let is_meant = |peer: &&Peer| match which {
            Which::Id(id) => peer.id == *id,
            Which::Addr(addr) => self.shown(peer) == *addr,
        };
        self.protocol.peers().find(is_meant).map(|peer| peer.id)
    }

    /// Ends a link; whether there was one.
    pub fn disconnect(&mut self, which: &Which) -> bool {
        let peer = self.find(which);
        if let Some(peer) = peer {
            self.driver.disconnect(peer);
            self.take(Input::Closed(peer));
        }
        peer.is_some()
    }

    /// What is to be added to our clock to have the peers' that we dialled, in seconds; 0: they are fewer than five.
    /// Core: `TimeOffsets::Median`.
    pub fn time_offset(&self) -> i64 {
        let dialled = self.protocol.peers().filter(|peer| !peer.kind.is_inbound());
        let mut offsets: Vec<i64> = dialled.filter_map(|peer| Some(peer.their.as_ref()?.time_offset)).collect();
        offsets.sort_unstable();
        if offsets.len() < 5 { 0 } else { offsets[offsets.len() / 2] }
    }

    /// The node's place in the network.
    pub fn network(&self) -> NetworkInfo {
        let inbound = self.protocol.peers().filter(|peer| peer.kind.is_inbound()).count();
        NetworkInfo {
            active: self.driver.is_active(),
            inbound,
            outbound: self.protocol.peers().count() - inbound,
            time_offset: self.time_offset(),
            reachable: self.protocol.reachable().collect(),
            proxies: self.driver.proxies(),
            own: self.protocol.own_addresses().collect(),
        }
    }

    /// Bytes that passed since the start.
    pub fn totals(&self) -> Totals {
        let (received, sent) = self.driver.totals();
        Totals { received, sent, target: self.protocol.upload_target(clock::micros()) }
    }

    /// Makes links and takes them in, or ends all and does neither. Core: `SetNetworkActive`.
    pub fn set_active(&mut self, active: bool) {
        self.driver.set_active(active);
        self.command(Command::SetActive(active));
    }

    /// Sends a peer any message; whether there is such a peer.
    pub fn send_message(&mut self, to: PeerId, name: String, payload: Vec<u8>) -> bool {
        let known = self.protocol.peer(to).is_some();
        let ended = self.driver.send(to, std::sync::Arc::new(Message::Unknown { name, payload }));
        ended.into_iter().for_each(|input| self.take(input));
        known
    }
}

fn peer_info(peer: &Peer, link: Option<LinkInfo>, tree: &Tree) -> PeerInfo {
    let their = peer.their.as_ref();
    let (synced_headers, synced_blocks) = peer.synced();
    let signed = |height: u32| i32::try_from(height).unwrap_or(i32::MAX);
    let height = |id: Option<_>| id.map_or(-1, |id| signed(tree.node(id).height));
    let (ping, min_ping) = peer.round_trips();
    let nowhere = |addr: &NetAddr| addr.host.bytes().iter().all(|byte| *byte == 0);
    let (bind, name, network, transport) = match &link {
        Some(link) => (link.bind, link.name.clone(), link.network, link.transport),
        None => (None, None, peer.addr.host.network(), Transport::Detecting),
    };
    PeerInfo {
        id: peer.id,
        addr: name.unwrap_or_else(|| peer.addr.to_string()),
        host: peer.addr.host,
        bind,
        local: their.map(|their| their.sees_us_as).filter(|addr| !nowhere(addr)),
        network,
        kind: peer.kind,
        permissions: peer.permissions,
        ready: peer.ready,
        version: their.map_or(0, |their| their.version),
        subver: their.map(|their| their.user_agent.clone()).unwrap_or_default(),
        services: peer.services(),
        relay_txs: their.is_some_and(|their| their.relay) && peer.kind.relays_transactions(),
        told_to: 0,
        untold: 0,
        start_height: their.map_or(-1, |their| their.start_height),
        presynced_headers: peer.presync().map_or(-1, |(height, _)| signed(height)),
        synced_headers: height(synced_headers),
        synced_blocks: height(synced_blocks),
        inflight: peer.blocks_in_flight().iter().filter_map(|hash| Some(tree.node(tree.get(hash)?).height)).collect(),
        addresses: peer.addresses(),
        last_tx: peer.last_transaction().map_or(0, Micros::seconds),
        last_block: peer.last_block.map_or(0, Micros::seconds),
        compact_to: peer.pushes_to_us,
        compact_from: peer.compact == Some(true),
        fee_filter: peer.fee_filters().0,
        connected: peer.since.seconds(),
        last_send: link.as_ref().map_or(0, |link| link.last_send.seconds()),
        last_recv: link.as_ref().map_or(0, |link| link.last_recv.seconds()),
        bytes_sent: link.as_ref().map_or(0, |link| link.bytes_sent),
        bytes_received: link.as_ref().map_or(0, |link| link.bytes_received),
        time_offset: their.map_or(0, |their| their.time_offset),
        ping,
        min_ping,
        ping_wait: peer.ping_wait(clock::micros()),
        transport,
        sent_by_kind: link.as_ref().map(|link| link.sent_by_kind.clone()).unwrap_or_default(),
        received_by_kind: link.map(|link| link.received_by_kind).unwrap_or_default(),
    }
}
