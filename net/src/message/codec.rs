//! Payload bytes of each message, both ways. Every count is checked against its cap and against the bytes that are
//! there before anything is allocated for it.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::{Decodable, Encodable, deserialize_partial, encode::VarInt};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Transaction};

use super::{
    AddrEntry, Fault, Kind, Locate, MAX_ADDR_TO_SEND, MAX_ADDRV2_SIZE, MAX_HEADERS_RESULTS, MAX_INV_SZ, MAX_LOCATOR_SZ,
    MAX_SUBVERSION_LENGTH, Message, Version,
};
use crate::addr::{Host, NetAddr};
use crate::bloom::BloomFilter;

/// Most bytes in the name of a feature, and in its data (BIP434).
const MAX_FEATURE: (usize, usize) = (80, 512);
/// Fewest bytes in the name of a feature (BIP434).
const MIN_FEATURE_ID: usize = 4;
/// Fewest bytes of a transaction: no input, no output. It breaks a rule, but that others say.
const MIN_TRANSACTION: usize = 10;
/// Version of the protocol that `getheaders` carries and nobody reads.
const LOCATE_VERSION: u32 = 70_017;

impl Message {
    /// Decodes the payload of a message. Bytes after what the message needs are ignored, as Core does.
    pub fn decode(kind: Kind, payload: Vec<u8>) -> Message {
        let decoded = decode(kind, payload);
        decoded.unwrap_or_else(|fault| Message::Broken { kind: Some(kind), fault })
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Message::Version(version) => version.encode(out),
            Message::SendTxRcncl { version, salt } => {
                put(out, version);
                put(out, salt);
            }
            Message::Feature { id, data } => {
                put(out, id);
                put(out, data);
            }
            Message::SendCmpct { announce, version } => {
                put(out, announce);
                put(out, version);
            }
            Message::FeeFilter(rate) => put(out, rate),
            Message::Ping(nonce) | Message::Pong(nonce) => put(out, nonce),
            Message::Addr(entries) => {
                let known: Vec<_> = entries.iter().filter_map(|e| Some((e, e.addr.host.to_v6_bytes()?))).collect();
                put(out, &VarInt::from(known.len()));
                for (entry, bytes) in known {
                    put(out, &entry.time);
                    put(out, &entry.services);
                    out.extend_from_slice(&bytes);
                    out.extend_from_slice(&entry.addr.port.to_be_bytes());
                }
            }
            Message::AddrV2(entries) => {
                put(out, &VarInt::from(entries.len()));
                for entry in entries {
                    put(out, &entry.time);
                    put(out, &VarInt(entry.services));
                    out.push(entry.addr.host.network() as u8);
                    put(out, &VarInt::from(entry.addr.host.bytes().len()));
                    out.extend_from_slice(entry.addr.host.bytes());
                    out.extend_from_slice(&entry.addr.port.to_be_bytes());
                }
            }
            Message::Inv(items) | Message::GetData(items) | Message::NotFound(items) => {
                out.reserve(items.len() * 36 + 3);
                put(out, items);
            }
            Message::GetBlocks(locate) | Message::GetHeaders(locate) => {
                put(out, &LOCATE_VERSION);
                put(out, &locate.locator);
                put(out, &locate.stop);
            }
            Message::Headers(headers) => {
                out.reserve(headers.len() * 81 + 3);
                put(out, &VarInt::from(headers.len()));
                for header in headers {
                    put(out, header);
                    out.push(0);
                }
            }
            Message::Tx(tx) => put(out, tx.as_ref()),
            Message::Block(bytes) => out.extend_from_slice(bytes),
            Message::CmpctBlock(block) => put(out, block.as_ref()),
            Message::GetBlockTxn(request) => put(out, request),
            Message::BlockTxn(transactions) => put(out, transactions),
            Message::FilterLoad(filter) => {
                put(out, &filter.data);
                put(out, &filter.hash_funcs);
                put(out, &filter.tweak);
                put(out, &filter.flags);
            }
            Message::FilterAdd(data) => put(out, data),
            Message::MerkleBlock(block) => put(out, block.as_ref()),
            Message::GetCFilters(message) => put(out, message),
            Message::CFilter(message) => put(out, message),
            Message::GetCFHeaders(message) => put(out, message),
            Message::CFHeaders(message) => put(out, message),
            Message::GetCFCheckpt(message) => put(out, message),
            Message::CFCheckpt(message) => put(out, message),
            Message::Unknown { payload, .. } => out.extend_from_slice(payload),
            Message::Verack
            | Message::WtxidRelay
            | Message::SendAddrV2
            | Message::SendHeaders
            | Message::GetAddr
            | Message::MemPool
            | Message::FilterClear => {}
            Message::Broken { .. } => debug_assert!(false, "a broken message is never sent"),
        }
    }
}

fn put(out: &mut Vec<u8>, value: &impl Encodable) {
    value.consensus_encode(out).expect("a vector takes every byte");
}

fn decode(kind: Kind, payload: Vec<u8>) -> Result<Message, Fault> {
    let mut rest = Rest(&payload);
    Ok(match kind {
        Kind::Version => Message::Version(Box::new(Version::decode(&mut rest)?)),
        Kind::Verack => Message::Verack,
        Kind::WtxidRelay => Message::WtxidRelay,
        Kind::SendAddrV2 => Message::SendAddrV2,
        Kind::SendHeaders => Message::SendHeaders,
        Kind::SendTxRcncl => Message::SendTxRcncl { version: rest.value()?, salt: rest.value()? },
        Kind::Feature => {
            let (id, data) = (rest.bytes(MAX_FEATURE.0)?.to_vec(), rest.bytes(MAX_FEATURE.1)?.to_vec());
            if id.len() < MIN_FEATURE_ID || !rest.0.is_empty() {
                return Err(Fault::Malformed);
            }
            Message::Feature { id, data }
        }
        Kind::SendCmpct => Message::SendCmpct { announce: rest.value()?, version: rest.value()? },
        Kind::FeeFilter => Message::FeeFilter(rest.value()?),
        Kind::Ping => Message::Ping(rest.value()?),
        Kind::Pong => Message::Pong(rest.value()?),
        Kind::GetAddr => Message::GetAddr,
        Kind::Addr => {
            let count = rest.count(MAX_ADDR_TO_SEND, 30)?;
            Message::Addr((0..count).map(|_| rest.addr()).collect::<Result<_, _>>()?)
        }
        Kind::AddrV2 => {
            let count = rest.count(MAX_ADDR_TO_SEND, 9)?;
            let mut entries = Vec::with_capacity(count);
            for _ in 0..count {
                entries.extend(rest.addr_v2()?);
            }
            Message::AddrV2(entries)
        }
        Kind::Inv => Message::Inv(rest.inventory()?),
        Kind::GetData => Message::GetData(rest.inventory()?),
        Kind::NotFound => Message::NotFound(rest.inventory()?),
        Kind::GetBlocks => Message::GetBlocks(rest.locate()?),
        Kind::GetHeaders => Message::GetHeaders(rest.locate()?),
        Kind::Headers => {
            let count = rest.count(MAX_HEADERS_RESULTS, 81)?;
            let mut headers = Vec::with_capacity(count);
            for _ in 0..count {
                headers.push(rest.value::<Header>()?);
                rest.compact()?;
            }
            Message::Headers(headers)
        }
        Kind::Tx => {
            Rest(rest.0).skip_transaction()?;
            Message::Tx(Arc::new(rest.value::<Transaction>()?))
        }
        Kind::Block => {
            if payload.len() < Header::SIZE + 1 {
                return Err(Fault::Malformed);
            }
            Message::Block(Arc::new(payload))
        }
        Kind::CmpctBlock => {
            let mut scan = Rest(rest.0);
            scan.skip(Header::SIZE + 8)?;
            let ids = scan.count(usize::MAX, 6)?;
            scan.skip(ids * 6)?;
            let prefilled = scan.count(usize::MAX, 1 + MIN_TRANSACTION)?;
            if ids + prefilled > usize::from(u16::MAX) {
                return Err(Fault::Malformed);
            }
            for _ in 0..prefilled {
                scan.compact()?;
                scan.skip_transaction()?;
            }
            Message::CmpctBlock(Arc::new(rest.value()?))
        }
        Kind::GetBlockTxn => {
            let mut scan = Rest(rest.0);
            scan.skip(32)?;
            scan.count(usize::MAX, 1)?;
            Message::GetBlockTxn(rest.value()?)
        }
        Kind::BlockTxn => {
            let mut scan = Rest(rest.0);
            scan.skip(32)?;
            for _ in 0..scan.count(usize::MAX, MIN_TRANSACTION)? {
                scan.skip_transaction()?;
            }
            Message::BlockTxn(rest.value()?)
        }
        Kind::MemPool => Message::MemPool,
        Kind::FilterLoad => Message::FilterLoad(BloomFilter {
            data: rest.bytes(usize::MAX)?.to_vec(),
            hash_funcs: rest.value()?,
            tweak: rest.value()?,
            flags: rest.value()?,
        }),
        Kind::FilterAdd => Message::FilterAdd(rest.bytes(usize::MAX)?.to_vec()),
        Kind::FilterClear => Message::FilterClear,
        // Eight flags unfold from each byte; nothing here ever asks for one.
        Kind::MerkleBlock => Message::Unknown { name: kind.name().to_owned(), payload },
        Kind::GetCFilters => Message::GetCFilters(rest.value()?),
        Kind::CFilter => Message::CFilter(rest.value()?),
        Kind::GetCFHeaders => Message::GetCFHeaders(rest.value()?),
        Kind::CFHeaders => Message::CFHeaders(rest.value()?),
        Kind::GetCFCheckpt => Message::GetCFCheckpt(rest.value()?),
        Kind::CFCheckpt => Message::CFCheckpt(rest.value()?),
    })
}

impl Version {
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, &self.version);
        put(out, &self.services);
        put(out, &self.time);
        // The receiver's services, which nobody reads.
        put(out, &0u64);
        out.extend_from_slice(&self.receiver.host.to_v6_bytes().unwrap_or_default());
        out.extend_from_slice(&self.receiver.port.to_be_bytes());
        // The sender's own address: services and an empty address, as Core has it.
        put(out, &self.services);
        out.extend_from_slice(&[0; 18]);
        put(out, &self.nonce);
        put(out, &self.user_agent);
        put(out, &self.start_height);
        put(out, &self.relay);
    }

    fn decode(rest: &mut Rest<'_>) -> Result<Version, Fault> {
        let (version, services, time) = (rest.value()?, rest.value()?, rest.value::<i64>()?.max(0));
        rest.skip(8)?;
        let receiver = rest.host_and_port()?;
        let mut decoded = Version {
            version,
            services,
            time,
            receiver,
            nonce: 1,
            user_agent: String::new(),
            start_height: -1,
            relay: true,
        };
        if !rest.0.is_empty() {
            rest.skip(26)?;
            decoded.nonce = rest.value()?;
        }
        if !rest.0.is_empty() {
            decoded.user_agent = sanitized(rest.bytes(MAX_SUBVERSION_LENGTH)?);
        }
        if !rest.0.is_empty() {
            decoded.start_height = rest.value()?;
        }
        if !rest.0.is_empty() {
            decoded.relay = rest.value::<u8>()? != 0;
        }
        Ok(decoded)
    }
}

/// The bytes that are harmless in logs and answers. Core: `SanitizeString`.
pub(crate) fn sanitized(bytes: &[u8]) -> String {
    let safe = |c: &char| c.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*c);
    bytes.iter().map(|byte| char::from(*byte)).filter(safe).collect()
}

/// The part of a payload that is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn value<T: Decodable>(&mut self) -> Result<T, Fault> {
        let (value, used) = deserialize_partial(self.0).map_err(|_| Fault::Malformed)?;
        self.0 = &self.0[used..];
        Ok(value)
    }

    fn compact(&mut self) -> Result<u64, Fault> {
        Ok(self.value::<VarInt>()?.0)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Fault::Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn skip(&mut self, count: usize) -> Result<(), Fault> {
        self.take(count).map(|_| ())
    }

    /// A count of entries of at least `smallest` bytes each.
    fn count(&mut self, cap: usize, smallest: usize) -> Result<usize, Fault> {
        let count = self.compact()?;
        if count > cap as u64 {
            return Err(Fault::TooMany(count));
        }
        let count = usize::try_from(count).map_err(|_| Fault::Malformed)?;
        if count > self.0.len() / smallest { Err(Fault::Malformed) } else { Ok(count) }
    }

    /// Bytes with their length before them.
    fn bytes(&mut self, cap: usize) -> Result<&'a [u8], Fault> {
        let length = self.compact()?;
        if length > cap as u64 {
            return Err(Fault::Malformed);
        }
        self.take(usize::try_from(length).map_err(|_| Fault::Malformed)?)
    }

    fn port(&mut self) -> Result<u16, Fault> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn host_and_port(&mut self) -> Result<NetAddr, Fault> {
        let host = Host::from_v6_bytes(self.take(16)?.try_into().expect("16 bytes were taken"));
        Ok(NetAddr { host, port: self.port()? })
    }

    fn addr(&mut self) -> Result<AddrEntry, Fault> {
        Ok(AddrEntry { time: self.value()?, services: self.value()?, addr: self.host_and_port()? })
    }

    /// None for an address of a network that is not known here.
    fn addr_v2(&mut self) -> Result<Option<AddrEntry>, Fault> {
        let (time, services) = (self.value()?, self.compact()?);
        let network = self.value::<u8>()?;
        let host = Host::from_bip155(network, self.bytes(MAX_ADDRV2_SIZE)?).map_err(|_| Fault::Malformed)?;
        let port = self.port()?;
        Ok(host.map(|host| AddrEntry { time, services, addr: NetAddr { host, port } }))
    }

    fn inventory(&mut self) -> Result<Vec<Inventory>, Fault> {
        let count = self.count(MAX_INV_SZ, 36)?;
        (0..count).map(|_| self.value()).collect()
    }

    fn locate(&mut self) -> Result<Locate, Fault> {
        self.skip(4)?;
        let count = self.count(MAX_LOCATOR_SZ, 32)?;
        let mut hash = || Ok(BlockHash::from_byte_array(self.take(32)?.try_into().expect("32 bytes were taken")));
        let locator = (0..count).map(|_| hash()).collect::<Result<_, _>>()?;
        Ok(Locate { locator, stop: hash()? })
    }

    /// Walks over a transaction and holds each count against the bytes that are left: the decoder of `bitcoin`
    /// trusts a claimed count of witness items with four bytes each.
    fn skip_transaction(&mut self) -> Result<(), Fault> {
        self.skip(4)?;
        let mut inputs = self.count(usize::MAX, 1)?;
        let segwit = inputs == 0 && self.0.first() == Some(&1);
        if segwit {
            self.skip(1)?;
            inputs = self.count(usize::MAX, 41)?;
        }
        for _ in 0..inputs {
            self.skip(36)?;
            self.bytes(usize::MAX)?;
            self.skip(4)?;
        }
        for _ in 0..self.count(usize::MAX, 9)? {
            self.skip(8)?;
            self.bytes(usize::MAX)?;
        }
        for _ in 0..if segwit { inputs } else { 0 } {
            for _ in 0..self.count(usize::MAX, 1)? {
                self.bytes(usize::MAX)?;
            }
        }
        self.skip(4)
    }
}
