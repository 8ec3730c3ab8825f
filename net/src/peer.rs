//! One peer: what it is, what it said of itself, and the state that each module keeps of it. Decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bitcoin::p2p::message_blockdata::Inventory;

use crate::addr::{NetAddr, Network};
use crate::handshake::Reconciliation;
use crate::message::Message;
pub use crate::permissions::Permissions;
use crate::protocol::{PeerId, Reason, Token};
use crate::timers::Micros;
use crate::{blocks, gossip, headers, ping, txrelay};

/// All peers, by id.
pub(crate) type Peers = BTreeMap<PeerId, Peer>;

/// Service bits, with Core's names. Bit 0: serves all blocks.
pub const NODE_NETWORK: u64 = 1;
/// Serves bloom filters (BIP111).
pub const NODE_BLOOM: u64 = 1 << 2;
/// Serves witnesses (BIP144).
pub const NODE_WITNESS: u64 = 1 << 3;
/// Serves block filters (BIP157).
pub const NODE_COMPACT_FILTERS: u64 = 1 << 6;
/// Serves the last 288 blocks (BIP159).
pub const NODE_NETWORK_LIMITED: u64 = 1 << 10;
/// Speaks version 2 of the transport (BIP324).
pub const NODE_P2P_V2: u64 = 1 << 11;

/// What a link is for. Core: `ConnectionType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKind {
    /// The peer dialled us.
    Inbound,
    /// We dialled, and exchange all there is.
    OutboundFull,
    /// We dialled, and exchange blocks only: it tells nobody who is linked with whom.
    BlockRelay,
    /// We dialled to see whether somebody answers.
    Feeler,
    /// The operator asked for it.
    Manual,
    /// We dialled to get addresses.
    AddrFetch,
}

impl LinkKind {
    /// Whether the peer dialled us.
    pub fn is_inbound(self) -> bool {
        self == LinkKind::Inbound
    }

    /// Whether it takes one of our own outbound slots for blocks.
    pub(crate) fn is_outbound_or_block_relay(self) -> bool {
        matches!(self, LinkKind::OutboundFull | LinkKind::BlockRelay)
    }

    /// Whether transactions may pass.
    pub fn relays_transactions(self) -> bool {
        !matches!(self, LinkKind::BlockRelay | LinkKind::Feeler)
    }
}

/// What a peer said in its version message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Their {
    /// The lower of both versions of the protocol.
    pub common_version: i32,
    /// Its own.
    pub version: i32,
    /// What it offers.
    pub services: u64,
    /// Its software.
    pub user_agent: String,
    /// Height of its chain then.
    pub start_height: i32,
    /// Whether it wants transactions.
    pub relay: bool,
    /// Its clock less ours, in seconds.
    pub time_offset: i64,
    /// How it sees us.
    pub sees_us_as: NetAddr,
}

/// An answer whose place in the order is taken.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The ledger is reading it: a block of so many bytes.
    Reading(Token, usize),
    /// It can go.
    Ready(Arc<Message>),
}

impl Answer {
    /// About the bytes that it will put into the queue.
    fn weight(&self) -> usize {
        match self {
            Answer::Reading(_, bytes) => *bytes,
            Answer::Ready(message) => message.weight(),
        }
    }
}

/// Entries for which an empty queue keeps its memory.
const KEPT_ENTRIES: usize = 16;

fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT_ENTRIES {
        *queue = VecDeque::new();
    }
}

/// A link and all that is known of it.
#[derive(Debug)]
pub struct Peer {
    /// Its number, given by the driver and never used twice.
    pub id: PeerId,
    /// Where it is.
    pub addr: NetAddr,
    /// What the link is for.
    pub kind: LinkKind,
    /// What the operator lets it do.
    pub permissions: Permissions,
    /// The network that it came over.
    pub network: Network,
    /// Our end, where it is known.
    pub bind: Option<NetAddr>,
    /// When the link was made.
    pub since: Micros,

    /// Drawn for this link: whoever gets it back is linked with itself.
    pub(crate) nonce: u64,
    /// What its version message said, once it came.
    pub their: Option<Their>,
    /// The handshake is done.
    pub ready: bool,
    /// It announces and asks by wtxid (BIP339).
    pub wtxid_relay: bool,
    /// It understands `addrv2` (BIP155).
    pub addr_v2: bool,
    /// It wants blocks announced by headers (BIP130).
    pub prefers_headers: bool,
    /// It knows compact blocks (BIP152), and whether it wants them pushed. Core: `bip152_hb_from`.
    pub compact: Option<bool>,
    /// What is agreed of reconciling transactions (BIP330).
    pub(crate) reconciliation: Reconciliation,
    /// We want compact blocks pushed by it. Core: `bip152_hb_to`.
    pub pushes_to_us: bool,
    /// We asked it to announce by headers.
    pub(crate) sent_sendheaders: bool,

    pub(crate) ping: ping::State,
    pub(crate) headers: headers::State,
    pub(crate) blocks: blocks::State,
    pub(crate) relay: txrelay::State,
    /// Addresses pass.
    pub(crate) gossip: Option<Box<gossip::State>>,
    /// A hash of its group of addresses, keyed by a secret.
    pub(crate) keyed_group: u64,
    /// When it last gave us a block that we did not have.
    pub last_block: Option<Micros>,

    /// Messages that wait for their turn, with the bytes that each counts for.
    pub(crate) inbox: VecDeque<(Message, usize)>,
    pub(crate) inbox_bytes: usize,
    /// Work of the ledger that later messages of this peer wait for.
    pub(crate) awaited: usize,
    /// The socket is not read.
    pub(crate) paused: bool,
    /// Bytes on their way to it, as far as known.
    pub(crate) queued: usize,
    /// What it asked for and has not got.
    pub(crate) wanted: VecDeque<Inventory>,
    /// Things asked for that are not here, to be told at the end.
    pub(crate) missing: Vec<Inventory>,
    pub(crate) answers: VecDeque<Answer>,
    /// Blocks whose filters it asked for and has not got; one message asks for a thousand at most, and the next waits.
    pub(crate) filters: VecDeque<bitcoin::BlockHash>,
    /// Asked for, this block says that it wants to hear of more (`getblocks`).
    pub(crate) continuation: Option<bitcoin::BlockHash>,
    /// Why the link ends, when it does.
    pub(crate) closing: Option<Reason>,
}

impl Peer {
    pub(crate) fn new(
        id: PeerId,
        addr: NetAddr,
        kind: LinkKind,
        permissions: Permissions,
        (network, bind): (Network, Option<NetAddr>),
        nonce: u64,
        now: Micros,
    ) -> Peer {
        Peer {
            id,
            addr,
            kind,
            permissions,
            network,
            bind,
            since: now,
            nonce,
            their: None,
            ready: false,
            wtxid_relay: false,
            addr_v2: false,
            prefers_headers: false,
            compact: None,
            reconciliation: Reconciliation::default(),
            pushes_to_us: false,
            sent_sendheaders: false,
            ping: ping::State::default(),
            headers: headers::State::default(),
            blocks: blocks::State::default(),
            relay: txrelay::State::default(),
            gossip: None,
            keyed_group: 0,
            last_block: None,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            awaited: 0,
            paused: false,
            queued: 0,
            wanted: VecDeque::new(),
            missing: Vec::new(),
            answers: VecDeque::new(),
            filters: VecDeque::new(),
            continuation: None,
            closing: None,
        }
    }

    /// What it offers; nothing before its version came.
    pub fn services(&self) -> u64 {
        self.their.as_ref().map_or(0, |their| their.services)
    }

    /// Whether it serves blocks at all.
    pub(crate) fn serves_blocks(&self) -> bool {
        self.services() & (NODE_NETWORK | NODE_NETWORK_LIMITED) != 0
    }

    /// Whether it serves the last blocks only.
    pub(crate) fn is_limited(&self) -> bool {
        self.services() & (NODE_NETWORK | NODE_NETWORK_LIMITED) == NODE_NETWORK_LIMITED
    }

    /// Whether blocks are fetched from it rather than from others. Core: `fPreferredDownload`.
    pub(crate) fn is_preferred(&self) -> bool {
        let chosen = !self.kind.is_inbound() || self.permissions.no_ban;
        chosen && self.kind != LinkKind::AddrFetch && self.serves_blocks()
    }

    /// The last round trip and the shortest, where there was any.
    pub fn round_trips(&self) -> (Option<std::time::Duration>, Option<std::time::Duration>) {
        (self.ping.last, self.ping.shortest)
    }

    /// When a transaction that it sent was last taken into the pool, for the first time. Core: `m_last_tx_time`.
    pub fn last_transaction(&self) -> Option<Micros> {
        self.relay.last_transaction
    }

    /// The fee rates, in satoshi per 1000 virtual bytes, below which it wants no transactions and we want none of it.
    pub fn fee_filters(&self) -> (u64, Option<u64>) {
        (self.relay.fee_filter, self.relay.sent_fee_filter)
    }

    /// How long it has owed us a pong, if it does.
    pub fn ping_wait(&self, now: Micros) -> Option<std::time::Duration> {
        ping::wait(self, now)
    }

    /// Height that the low-work sync of its headers has counted to, and whether it is fetching them again.
    pub fn presync(&self) -> Option<(u32, bool)> {
        self.headers.presync_height()
    }

    /// Addresses that it told and that were looked at, and those that were too many; none if addresses do not pass.
    /// Core: `addr_processed`, `addr_rate_limited`, `addr_relay_enabled`.
    pub fn addresses(&self) -> Option<(u64, u64)> {
        self.gossip.as_ref().map(|state| (state.processed, state.limited))
    }

    /// Blocks asked of it, in order.
    pub fn blocks_in_flight(&self) -> &[bitcoin::BlockHash] {
        &self.blocks.asked
    }

    /// The end of the best chain that it is known to have, and the last block of that up to which all is here.
    pub fn synced(&self) -> (Option<crate::view::Id>, Option<crate::view::Id>) {
        (self.headers.best_known, self.blocks.last_common)
    }

    /// Bytes on their way to it, with those of answers that wait for their turn.
    pub(crate) fn to_come(&self) -> usize {
        self.queued + self.answers.iter().map(Answer::weight).sum::<usize>()
    }

    /// Gives memory back that a burst took: what is empty holds no more than a little.
    pub(crate) fn rest(&mut self) {
        give_back(&mut self.inbox);
        give_back(&mut self.wanted);
        give_back(&mut self.answers);
        give_back(&mut self.filters);
    }

    /// Whether what it sends now has to wait for what it sent before.
    pub(crate) fn must_wait(&self, send_pause: usize) -> bool {
        let asked = !(self.wanted.is_empty() && self.answers.is_empty() && self.filters.is_empty());
        self.awaited > 0 || asked || self.queued > send_pause
    }
}
