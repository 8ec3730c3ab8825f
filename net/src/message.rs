//! Every message that peers exchange: its name, its short id, its contents. Knows no framing and punishes nobody:
//! a payload that breaks a limit becomes [`Message::Broken`], and the protocol decides what that means.

mod codec;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds};
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::p2p::message_filter::{CFCheckpt, CFHeaders, CFilter, GetCFCheckpt, GetCFHeaders, GetCFilters};
use bitcoin::{BlockHash, MerkleBlock, Transaction, Txid, Wtxid};

use crate::addr::NetAddr;
use crate::bloom::BloomFilter;

/// Largest payload of a message. Core's name and value.
pub const MAX_PROTOCOL_MESSAGE_LENGTH: usize = 4_000_000;
/// Most entries of `inv`, `getdata`, `notfound`. Core's name and value.
pub(crate) const MAX_INV_SZ: usize = 50_000;
/// Most headers in a `headers` message. Core's name and value.
pub const MAX_HEADERS_RESULTS: usize = 2000;
/// Most hashes in the locator of `getheaders` and `getblocks`. Core's name and value.
pub(crate) const MAX_LOCATOR_SZ: usize = 101;
/// Most addresses in `addr` and `addrv2`. Core's name and value.
pub(crate) const MAX_ADDR_TO_SEND: usize = 1000;
/// Longest user agent. Core's name and value.
pub const MAX_SUBVERSION_LENGTH: usize = 256;
/// Longest address of `addrv2` ([BIP-0155]). Core's name and value.
///
/// [BIP-0155]: https://github.com/bitcoin/bips/blob/master/bip-0155.mediawiki
pub(crate) const MAX_ADDRV2_SIZE: usize = 512;

macro_rules! kinds {
    ($($kind:ident $name:literal $id:expr,)*) => {
        /// The types of messages known here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = concat!("`", $name, "`")] $kind,)*
        }

        /// Each kind with its name and its short id in version 2 of the transport ([BIP-0324]); 0 for none.
        ///
        /// [BIP-0324]: https://github.com/bitcoin/bips/blob/master/bip-0324.mediawiki
        const KINDS: &[(Kind, &str, u8)] = &[$((Kind::$kind, $name, $id),)*];
    };
}

kinds! {
    Addr "addr" 1,
    Block "block" 2,
    BlockTxn "blocktxn" 3,
    CmpctBlock "cmpctblock" 4,
    FeeFilter "feefilter" 5,
    FilterAdd "filteradd" 6,
    FilterClear "filterclear" 7,
    FilterLoad "filterload" 8,
    GetBlocks "getblocks" 9,
    GetBlockTxn "getblocktxn" 10,
    GetData "getdata" 11,
    GetHeaders "getheaders" 12,
    Headers "headers" 13,
    Inv "inv" 14,
    MemPool "mempool" 15,
    MerkleBlock "merkleblock" 16,
    NotFound "notfound" 17,
    Ping "ping" 18,
    Pong "pong" 19,
    SendCmpct "sendcmpct" 20,
    Tx "tx" 21,
    GetCFilters "getcfilters" 22,
    CFilter "cfilter" 23,
    GetCFHeaders "getcfheaders" 24,
    CFHeaders "cfheaders" 25,
    GetCFCheckpt "getcfcheckpt" 26,
    CFCheckpt "cfcheckpt" 27,
    AddrV2 "addrv2" 28,
    Feature "feature" 37,
    Version "version" 0,
    Verack "verack" 0,
    SendHeaders "sendheaders" 0,
    GetAddr "getaddr" 0,
    WtxidRelay "wtxidrelay" 0,
    SendAddrV2 "sendaddrv2" 0,
    SendTxRcncl "sendtxrcncl" 0,
}

impl Kind {
    /// All of them.
    pub fn all() -> impl ExactSizeIterator<Item = Kind> {
        KINDS.iter().map(|entry| entry.0)
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Kind> {
        KINDS.iter().find(|entry| entry.1 == name).map(|entry| entry.0)
    }

    /// The one byte that stands for the name in version 2 of the transport, if there is one.
    pub(crate) fn short_id(self) -> Option<u8> {
        Some(KINDS[self as usize].2).filter(|id| *id != 0)
    }

    /// The kind with this short id.
    pub(crate) fn from_short_id(id: u8) -> Option<Kind> {
        KINDS.iter().find(|entry| entry.2 == id && id != 0).map(|entry| entry.0)
    }
}

/// What was wrong with a message that was framed well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The checksum of a version 1 frame does not match.
    Checksum,
    /// The name is no name, or the short id is unknown.
    Name,
    /// The payload is too short or contradicts itself.
    Malformed,
    /// It has more entries than the message may have; nothing of it was decoded.
    TooMany(u64),
}

/// A message. `Arc` where many peers get the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Opens the handshake.
    Version(Box<Version>),
    /// Ends the handshake.
    Verack,
    /// Announcements by wtxid from now on (BIP339).
    WtxidRelay,
    /// `addrv2` is understood (BIP155).
    SendAddrV2,
    /// Announce blocks by headers (BIP130).
    SendHeaders,
    /// Offers to reconcile announcements (BIP330).
    SendTxRcncl {
        /// Version of the scheme.
        version: u32,
        /// Half of the salt for short ids.
        salt: u64,
    },
    /// Names a feature (BIP434).
    Feature {
        /// What it is called, 4 to 80 bytes.
        id: Vec<u8>,
        /// Whatever the feature needs, at most 512 bytes.
        data: Vec<u8>,
    },
    /// Asks for or answers compact blocks (BIP152).
    SendCmpct {
        /// 1: push new blocks as `cmpctblock`; 0: announce first.
        announce: u8,
        /// Version of the encoding; only 2 is known.
        version: u64,
    },
    /// No transaction below this fee rate, in satoshi per 1000 virtual bytes (BIP133).
    FeeFilter(i64),
    /// Are you there?
    Ping(u64),
    /// Yes.
    Pong(u64),
    /// Asks for addresses.
    GetAddr,
    /// Addresses of peers.
    Addr(Vec<AddrEntry>),
    /// Addresses of peers on any network.
    AddrV2(Vec<AddrEntry>),
    /// Things that the sender has.
    Inv(Vec<Inventory>),
    /// Things that the sender wants.
    GetData(Vec<Inventory>),
    /// Things asked for that the sender does not have.
    NotFound(Vec<Inventory>),
    /// Asks for block hashes.
    GetBlocks(Locate),
    /// Asks for headers.
    GetHeaders(Locate),
    /// Headers, each the parent of the next.
    Headers(Vec<Header>),
    /// A transaction.
    Tx(Arc<Transaction>),
    /// The serialization of a block, at least a header long. Who judges blocks decodes it.
    Block(Arc<Vec<u8>>),
    /// A block as short ids (BIP152).
    CmpctBlock(Arc<HeaderAndShortIds>),
    /// Asks for transactions of a block by place (BIP152).
    GetBlockTxn(BlockTransactionsRequest),
    /// The transactions asked for (BIP152).
    BlockTxn(BlockTransactions),
    /// Asks for the whole mempool (BIP35).
    MemPool,
    /// A bloom filter (BIP37).
    FilterLoad(BloomFilter),
    /// One more element for the bloom filter (BIP37).
    FilterAdd(Vec<u8>),
    /// No bloom filter any more (BIP37).
    FilterClear,
    /// A block by bloom filter (BIP37). Only sent: received, it is [`Message::Unknown`].
    MerkleBlock(Box<MerkleBlock>),
    /// Asks for block filters (BIP157).
    GetCFilters(GetCFilters),
    /// A block filter (BIP157).
    CFilter(CFilter),
    /// Asks for hashes of block filters (BIP157).
    GetCFHeaders(GetCFHeaders),
    /// Hashes of block filters (BIP157).
    CFHeaders(CFHeaders),
    /// Asks for checkpoints of block filters (BIP157).
    GetCFCheckpt(GetCFCheckpt),
    /// Checkpoints of block filters (BIP157).
    CFCheckpt(CFCheckpt),
    /// A message of a type that is not known here.
    Unknown {
        /// Its name: at most 12 printable ASCII characters.
        name: String,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// A message that cannot be used. Never sent.
    Broken {
        /// Its type, where it is known.
        kind: Option<Kind>,
        /// What is wrong.
        fault: Fault,
    },
}

/// The first message of each side. Fields after `receiver` may be missing and then have their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Highest version of the protocol that the sender speaks.
    pub version: i32,
    /// What the sender offers.
    pub services: u64,
    /// The sender's clock, in seconds since 1970.
    pub time: i64,
    /// How the sender sees the receiver.
    pub receiver: NetAddr,
    /// Drawn for this link; finds a link to oneself. Missing: 1.
    pub nonce: u64,
    /// Name of the sender's software, printable characters only.
    pub user_agent: String,
    /// Height of the sender's chain. Missing: -1.
    pub start_height: i32,
    /// Whether transactions may be announced to the sender. Missing: true.
    pub relay: bool,
}

/// A place in the chain: the newest hash that the receiver knows counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locate {
    /// Hashes from the newest to genesis, ever sparser.
    pub locator: Vec<BlockHash>,
    /// Last hash wanted; zero for as many as there are.
    pub stop: BlockHash,
}

/// An address as gossip carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrEntry {
    /// When it was last seen alive, in seconds since 1970.
    pub time: u32,
    /// What it is said to offer.
    pub services: u64,
    /// The address.
    pub addr: NetAddr,
}

impl Message {
    /// The type; none for unknown ones.
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Message::Version(_) => Kind::Version,
            Message::Verack => Kind::Verack,
            Message::WtxidRelay => Kind::WtxidRelay,
            Message::SendAddrV2 => Kind::SendAddrV2,
            Message::SendHeaders => Kind::SendHeaders,
            Message::SendTxRcncl { .. } => Kind::SendTxRcncl,
            Message::Feature { .. } => Kind::Feature,
            Message::SendCmpct { .. } => Kind::SendCmpct,
            Message::FeeFilter(_) => Kind::FeeFilter,
            Message::Ping(_) => Kind::Ping,
            Message::Pong(_) => Kind::Pong,
            Message::GetAddr => Kind::GetAddr,
            Message::Addr(_) => Kind::Addr,
            Message::AddrV2(_) => Kind::AddrV2,
            Message::Inv(_) => Kind::Inv,
            Message::GetData(_) => Kind::GetData,
            Message::NotFound(_) => Kind::NotFound,
            Message::GetBlocks(_) => Kind::GetBlocks,
            Message::GetHeaders(_) => Kind::GetHeaders,
            Message::Headers(_) => Kind::Headers,
            Message::Tx(_) => Kind::Tx,
            Message::Block(_) => Kind::Block,
            Message::CmpctBlock(_) => Kind::CmpctBlock,
            Message::GetBlockTxn(_) => Kind::GetBlockTxn,
            Message::BlockTxn(_) => Kind::BlockTxn,
            Message::MemPool => Kind::MemPool,
            Message::FilterLoad(_) => Kind::FilterLoad,
            Message::FilterAdd(_) => Kind::FilterAdd,
            Message::FilterClear => Kind::FilterClear,
            Message::MerkleBlock(_) => Kind::MerkleBlock,
            Message::GetCFilters(_) => Kind::GetCFilters,
            Message::CFilter(_) => Kind::CFilter,
            Message::GetCFHeaders(_) => Kind::GetCFHeaders,
            Message::CFHeaders(_) => Kind::CFHeaders,
            Message::GetCFCheckpt(_) => Kind::GetCFCheckpt,
            Message::CFCheckpt(_) => Kind::CFCheckpt,
            Message::Unknown { .. } => return None,
            Message::Broken { kind, .. } => return *kind,
        })
    }

    /// About the bytes it takes on the wire: exact for the large ones, a guess for the small.
    pub fn weight(&self) -> usize {
        24 + match self {
            Message::Block(bytes) => bytes.len(),
            Message::Headers(headers) => headers.len() * 81,
            Message::Inv(items) | Message::GetData(items) | Message::NotFound(items) => 1 + items.len() * 36,
            Message::Addr(entries) | Message::AddrV2(entries) => entries.len() * 30,
            Message::Tx(tx) => tx.total_size(),
            Message::BlockTxn(txs) => txs.transactions.iter().map(Transaction::total_size).sum(),
            Message::CmpctBlock(block) => block.short_ids.len() * 6 + 1000,
            Message::MerkleBlock(block) => block.txn.hashes().len() * 33 + 100,
            Message::CFilter(filter) => filter.filter.len(),
            Message::CFHeaders(headers) => headers.filter_hashes.len() * 32,
            Message::CFCheckpt(points) => points.filter_headers.len() * 32,
            Message::GetHeaders(locate) | Message::GetBlocks(locate) => 37 + locate.locator.len() * 32,
            Message::Unknown { payload, .. } => payload.len(),
            Message::Ping(_) | Message::Pong(_) | Message::FeeFilter(_) | Message::SendCmpct { .. } => 9,
            Message::Verack | Message::WtxidRelay | Message::SendAddrV2 | Message::SendHeaders | Message::GetAddr => 0,
            _ => 100,
        }
    }
}

/// A transaction by the id it was announced with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GenTxid {
    /// Without witness.
    Txid(Txid),
    /// With witness.
    Wtxid(Wtxid),
}

impl GenTxid {
    /// What an inventory item announces or asks for, if that is a transaction.
    pub(crate) fn of(item: &Inventory) -> Option<GenTxid> {
        match item {
            Inventory::Transaction(id) | Inventory::WitnessTransaction(id) => Some(GenTxid::Txid(*id)),
            Inventory::WTx(id) => Some(GenTxid::Wtxid(*id)),
            _ => None,
        }
    }

    /// How it is asked for. Core: `GetFetchFlags`.
    pub(crate) fn request(&self, serves_witnesses: bool) -> Inventory {
        match self {
            GenTxid::Txid(id) if serves_witnesses => Inventory::WitnessTransaction(*id),
            GenTxid::Txid(id) => Inventory::Transaction(*id),
            GenTxid::Wtxid(id) => Inventory::WTx(*id),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        match self {
            GenTxid::Txid(id) => id.as_byte_array(),
            GenTxid::Wtxid(id) => id.as_byte_array(),
        }
    }
}
