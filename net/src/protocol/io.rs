//! The words between the protocol and who drives it: what comes in, what goes out, and why links end. Does nothing.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Transaction, Txid, Wtxid};
use groat_chain::block::Block;
use groat_chain::index::filters;
use groat_chain::rejection::Rejection;

use crate::addr::{NetAddr, Network};
use crate::bans::Subnet;
use crate::local::How;
use crate::message::{Kind, Message};
use crate::peer::{LinkKind, Permissions};

/// A link to a peer. The driver numbers links and never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// A piece of work for the ledger. Its answer carries the same token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A link was made.
    Connected {
        /// Its number.
        peer: PeerId,
        /// The other end.
        addr: NetAddr,
        /// What it is for.
        kind: LinkKind,
        /// What the operator lets the peer do.
        permissions: Permissions,
        /// The network that it came over; not that of `addr` when Tor's daemon on this machine hands a link in.
        network: Network,
        /// Our end, where it is known.
        bind: Option<NetAddr>,
    },
    /// An address of [`Output::Dial`] gave no link. Each `Dial` leads to this or to [`Input::Connected`] with the same
    /// address.
    DialFailed {
        /// The address.
        addr: NetAddr,
        /// The address was reached for: false when a proxy of our own was the one that did not answer.
        tried: bool,
    },
    /// What a name of [`Output::AskSeed`] stands for; nothing when that could not be found out.
    Seeded {
        /// The name.
        name: String,
        /// At most 32 addresses.
        addrs: Vec<NetAddr>,
    },
    /// Peers may reach us at this address, or not any more.
    Own {
        /// The address.
        addr: NetAddr,
        /// How that is known; none: it is ours no more.
        how: Option<How>,
    },
    /// The operator wants something.
    Command(Command),
    /// A link ended, by whomever. After [`Output::Disconnect`] it need not be told.
    Closed(PeerId),
    /// A message came.
    Message {
        /// Who sent it.
        peer: PeerId,
        /// The message.
        message: Message,
        /// Bytes it took on the wire.
        wire_len: usize,
    },
    /// So many bytes wait to be written to this peer. To be told when they fall below half of
    /// [`Limits::send_pause_bytes`](crate::limits::Limits::send_pause_bytes), and when there are none, unless fewer than
    /// 64 KiB were queued since it was last told.
    Queued {
        /// Who they are for.
        peer: PeerId,
        /// The bytes.
        bytes: usize,
    },
    /// [`Protocol::deadline`](super::Protocol::deadline) has come.
    Tick,
    /// The ledger has done what [`Output::Chain`] asked for.
    ChainDone {
        /// The token of the work.
        token: Token,
        /// The outcome.
        done: Done,
    },
    /// A block whose parent is the published tip keeps the rules that need no coins, and is stored. Told before
    /// it is connected.
    BlockStored(Arc<Block>),
    /// The published tip moved over these blocks, in order; the last is the tip. Only the last ones matter.
    TipChanged(Vec<BlockHash>),
    /// A block joined the active chain; told after the [`Input::TipChanged`] that names it. None need be told during the
    /// initial download.
    BlockConnected(Arc<Block>),
    /// The pool took a transaction, from a peer, an operator or a disconnected block.
    TxAccepted {
        /// Its id without witness.
        txid: Txid,
        /// Its id with witness.
        wtxid: Wtxid,
    },
    /// Transactions left the pool for others that pay more: a block may have them all the same.
    Replaced(Vec<Arc<Transaction>>),
    /// The operator wants a transaction of the pool announced to all peers. Told after [`Input::TxAccepted`].
    Broadcast {
        /// Its id without witness.
        txid: Txid,
        /// Its id with witness.
        wtxid: Wtxid,
        /// It is new: to be announced again until a peer asks for it.
        first: bool,
    },
    /// A block that was stored broke a rule when it was connected.
    BlockRefused {
        /// The block.
        hash: BlockHash,
        /// The rule.
        rejection: Rejection,
    },
}

/// What an operator can ask for while the node runs.
#[derive(Clone, Debug)]
pub enum Command {
    /// Refuse links with these addresses until a time, in seconds since 1970, and end those that there are. Until a time
    /// that is over: take the ban back. Core: `setban add`.
    Ban {
        /// Whom.
        subnet: Subnet,
        /// Until when.
        until: u64,
    },
    /// Take a ban back, or nothing if there is none for exactly this subnet. Core: `setban remove`.
    Unban(Subnet),
    /// Take all bans back. Core: `clearbanned`.
    ClearBans,
    /// End all links and make no more, or make links again. Core: `setnetworkactive`.
    SetActive(bool),
    /// Dial this address at once. Core: `addconnection`.
    Open {
        /// The address.
        addr: NetAddr,
        /// What for.
        kind: LinkKind,
        /// With version 2 of the transport first.
        v2: bool,
    },
    /// The addresses that the operator wants links with (`addnode`), as far as they are known: never dialled for other
    /// purposes.
    Added(Vec<NetAddr>),
    /// This network can be dialled from now on.
    Reach(Network),
    /// Send each peer a ping. Core: `ping`.
    Ping,
    /// Ask this peer, and nobody else, for a block ([`Protocol::may_fetch`](crate::protocol::Protocol::may_fetch) says
    /// whether that makes sense). Core: `getblockfrompeer`.
    Fetch {
        /// Of whom.
        peer: PeerId,
        /// Which.
        hash: BlockHash,
    },
    /// What is done every so often is due so much earlier. Core: `mockscheduler`.
    Forward(Duration),
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Send a message. Many outputs may share one message.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        message: Arc<Message>,
    },
    /// End a link, after what was sent before is written. The protocol has forgotten it already.
    Disconnect {
        /// Which.
        peer: PeerId,
        /// Why.
        reason: Reason,
    },
    /// Ask the ledger. It answers each with [`Input::ChainDone`], in any order.
    Chain {
        /// Comes back with the answer.
        token: Token,
        /// What to do.
        work: Work,
    },
    /// Do not read this peer's socket.
    PauseRead(PeerId),
    /// Read it again.
    ResumeRead(PeerId),
    /// Make a link to this address. See [`Input::DialFailed`].
    Dial {
        /// The address.
        addr: NetAddr,
        /// What the link will be for.
        kind: LinkKind,
        /// Begin with version 2 of the transport; fall back to version 1.
        v2: bool,
    },
    /// Make a link of the kind [`LinkKind::AddrFetch`] to this host (`host` or `host:port`), by name if a proxy resolves
    /// names. Whether that fails need not be told.
    Fetch(String),
    /// Find out what this host name stands for, and answer with [`Input::Seeded`].
    AskSeed(String),
    /// The bans have changed: write [`Protocol::bans`](super::Protocol::bans) down.
    BansChanged,
    /// For the log and the counters; nothing need be done.
    Event(Event),
}

/// What only the ledger can do.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Accept these headers, each the parent of the next.
    Headers(Vec<Header>),
    /// Judge and store this block, then connect it if it is the best.
    Block {
        /// Hash of its header.
        hash: BlockHash,
        /// Its serialization.
        bytes: Arc<Vec<u8>>,
        /// We asked for it.
        asked: bool,
    },
    /// Read the bytes of this block.
    ReadBlock(BlockHash),
    /// Read and decode this block.
    DecodeBlock(BlockHash),
    /// Read the compact filters of these blocks.
    ReadFilters(Vec<BlockHash>),
    /// Read what is known of those filters without themselves.
    ReadFilterHeaders(Vec<BlockHash>),
    /// Judge this transaction and take it into the pool.
    Transaction(Arc<Transaction>),
    /// Judge these transactions together, parents first, and take those into the pool that are good enough so.
    Package(Vec<Arc<Transaction>>),
}

/// What the ledger did.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// The headers: all accepted, or the reason against the first that was not.
    Headers(Result<(), Rejection>),
    /// The block.
    Block(Verdict),
    /// The bytes of the block, if it is there.
    Read(Option<Arc<Vec<u8>>>),
    /// The block, if it is there.
    Decoded(Option<Arc<Block>>),
    /// The filters, in the order of their blocks, if all are there.
    Filters(Option<Vec<Vec<u8>>>),
    /// What is known of them, if all are there.
    FilterHeaders(Option<Vec<filters::Header>>),
    /// The transaction.
    Transaction(TxVerdict),
    /// The package: what became of each of its transactions, in their order. One that was not judged, as those before it
    /// failed, is [`TxVerdict::Missing`].
    Package(Vec<TxVerdict>),
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxVerdict {
    /// The pool took it; [`Input::TxAccepted`] told so before.
    Accepted,
    /// It was there already.
    Known,
    /// It spends what is not known here.
    Missing,
    /// It broke a rule, or is not wanted. What is remembered of that depends on [`Rejection::blame`].
    Refused(Rejection),
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is stored; whether it can be connected shows later.
    Stored,
    /// It was there already.
    Known,
    /// It is no block.
    Undecodable,
    /// It broke a rule.
    Rejected(Rejection),
}

/// Why we end a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It broke a rule that no honest peer breaks; its address is discouraged.
    Misbehaved(&'static str),
    /// The handshake took too long.
    HandshakeTimeout,
    /// It does not offer what an outbound peer must.
    Services,
    /// Its version of the protocol is too old.
    Obsolete,
    /// We are linked with ourselves.
    Ourselves,
    /// It answers: that was all we wanted to know.
    FeelerDone,
    /// It told us addresses: that was all we wanted.
    FetchDone,
    /// It was to tell us addresses and did not.
    FetchTimeout,
    /// Its address is banned.
    Banned,
    /// It misbehaved before, and there is hardly room.
    Discouraged,
    /// There is no room, and nobody who would have to go for it.
    NoSlot,
    /// More of its messages wait than of any other peer, and there are too many in all.
    TooMuchWaits,
    /// Another one gets its place.
    Evicted,
    /// There were more outbound links than needed, and it was the least useful.
    Surplus,
    /// The operator switched the network off.
    Inactive,
    /// A message that belongs before the verack came after it.
    LateNegotiation(Kind),
    /// A message of a bad form that Core, too, disconnects for.
    BadMessage(Kind),
    /// No pong in time.
    PingTimeout,
    /// The first sync of headers took too long.
    HeadersTimeout,
    /// It has no chain of the network's work.
    ChainTooWeak,
    /// Its chain stayed behind ours.
    ChainBehind,
    /// It held the download window up.
    Stalling,
    /// A block took too long.
    BlockTimeout,
    /// A block that it sent is none.
    BadBlock,
    /// It asked for something that we do not serve.
    Unserved(Kind),
    /// It asked for a block that we, a pruned node, do not serve.
    BelowLimit,
    /// It asked for an old block while little of the upload target is left.
    UploadTarget,
    /// A block that it asked for could not be read any more.
    BlockGone,
}

/// What a log may tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake is done.
    Ready(PeerId),
    /// A peer broke a rule. It may be allowed to.
    Misbehaved {
        /// Who.
        peer: PeerId,
        /// How.
        what: &'static str,
    },
    /// A message was dropped.
    Ignored {
        /// Whose.
        peer: PeerId,
        /// Its type, if it is known.
        kind: Option<Kind>,
    },
}
