//! Framing as a pure codec: bytes in, messages out, and back. One [`Codec`] a link; it finds out by itself whether the
//! other side speaks version 1 or 2 of the transport. Knows no socket, and what messages mean.

#[cfg(test)]
mod tests;
pub mod v1;
pub mod v2;

use std::sync::{Arc, OnceLock};

use bitcoin::hashes::{Hash, sha256d};

use crate::message::{Fault, Kind, Message};
pub use v2::{Entropy, Role};

/// Most bytes that a buffer is ahead of what has arrived, whatever length was claimed; nor is it ahead by more than has
/// arrived, but for the first few.
const MAX_AHEAD: usize = 256 * 1024;
/// Longest message of a link that came in, until its verack: strangers are held little memory for.
const MAX_EARLY_MESSAGE: usize = 32 * 1024;
/// A buffer for as much as this costs nobody anything.
const FIRST_BUFFER: usize = 4096;
/// A buffer larger than this is given back once its message is out.
const KEPT_BUFFER: usize = 1024;

/// A message that came in.
#[derive(Debug, PartialEq)]
pub struct Received {
    /// The message; [`Message::Broken`] where a frame held none that can be used.
    pub message: Message,
    /// Bytes it took on the wire.
    pub wire_len: usize,
}

/// Why a link cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another network, or no Bitcoin node at all.
    #[error("the frame begins with other bytes than this network's")]
    WrongMagic,
    /// Longer than any message may be, or, before the verack, than any that a stranger has to send.
    #[error("a message of {0} bytes is longer than it may be")]
    TooLong(usize),
    /// The other side answered a version 2 handshake in version 1.
    #[error("the peer speaks version 1 of the transport")]
    SpeaksV1,
    /// The handshake of version 2 failed or never ended.
    #[error("the encrypted handshake failed: {0}")]
    Handshake(&'static str),
    /// A packet is not authentic.
    #[error("a packet is not authentic")]
    NotAuthentic,
}

/// A message encoded once, to be sent to any number of peers over either transport.
#[derive(Debug)]
pub struct Encoded {
    name: String,
    kind: Option<Kind>,
    payload: Arc<Vec<u8>>,
    checksum: OnceLock<[u8; 4]>,
}

impl Encoded {
    /// Encodes `message`.
    pub fn new(message: &Message) -> Encoded {
        let (kind, name) = match message {
            // An operator may send anything under a name that is known.
            Message::Unknown { name, .. } => (Kind::from_name(name), name.clone()),
            other => (other.kind(), other.kind().map_or_else(String::new, |kind| kind.name().to_owned())),
        };
        let payload = match message {
            Message::Block(bytes) => bytes.clone(),
            other => Arc::new(other.encode()),
        };
        Encoded { name, kind, payload, checksum: OnceLock::new() }
    }

    /// The kind of the message, if it is known.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Bytes that it takes on the wire.
    pub fn wire_len(&self, transport: Transport) -> usize {
        let around = match (transport, self.kind.and_then(Kind::short_id)) {
            (Transport::V2 { .. }, Some(_)) => v2::PACKET_OVERHEAD + 1,
            (Transport::V2 { .. }, None) => v2::PACKET_OVERHEAD + 13,
            (Transport::V1 | Transport::Detecting, _) => v1::HEADER_SIZE,
        };
        around + self.payload.len()
    }

    fn checksum(&self) -> [u8; 4] {
        *self.checksum.get_or_init(|| checksum(&self.payload))
    }
}

fn checksum(payload: &[u8]) -> [u8; 4] {
    let hash = sha256d::Hash::hash(payload).to_byte_array();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The 12 bytes that name a message: printable ASCII, then zeros.
fn padded_name(name: &str) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

/// The name in 12 bytes, if it is one. Core: `CMessageHeader::IsMessageTypeValid`.
fn read_name(bytes: &[u8; 12]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(12);
    let valid = bytes[..end].iter().all(|byte| (0x20..0x7f).contains(byte)) && bytes[end..].iter().all(|b| *b == 0);
    std::str::from_utf8(&bytes[..end]).ok().filter(|_| valid)
}

/// The message with this name and payload.
fn decode_named(name: &str, payload: Vec<u8>) -> Message {
    match Kind::from_name(name) {
        Some(kind) => Message::decode(kind, payload),
        None => Message::Unknown { name: name.to_owned(), payload },
    }
}

/// A frame that holds no message that can be used.
fn broken(fault: Fault) -> Message {
    Message::Broken { kind: None, fault }
}

/// Moves bytes from `input` to `buffer` until it holds `wanted`; whether it does. The buffer grows with what arrives.
fn fill(buffer: &mut Vec<u8>, wanted: usize, input: &mut &[u8]) -> bool {
    let missing = wanted.saturating_sub(buffer.len());
    let (head, tail) = input.split_at(missing.min(input.len()));
    if buffer.capacity() - buffer.len() < head.len() {
        let ahead = MAX_AHEAD.min(FIRST_BUFFER.max(buffer.len()));
        buffer.reserve_exact(missing.min(ahead.max(head.len())));
    }
    buffer.extend_from_slice(head);
    *input = tail;
    head.len() == missing
}

/// Which transport a link has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Not known yet.
    Detecting,
    /// Plain frames.
    V1,
    /// Encrypted ([BIP-0324]); the id is known to both sides only.
    ///
    /// [BIP-0324]: https://github.com/bitcoin/bips/blob/master/bip-0324.mediawiki
    V2 {
        /// What the two operators may compare; none while the handshake runs.
        session: Option<[u8; 32]>,
    },
}

enum State {
    /// A link that came in: the first bytes decide.
    Detecting {
        seen: Vec<u8>,
        entropy: Entropy,
    },
    V1(v1::Decoder),
    V2(Box<v2::Link>),
}

/// The codec of one link.
pub struct Codec {
    magic: [u8; 4],
    state: State,
    /// Bytes for the socket.
    outgoing: Vec<u8>,
}

impl Codec {
    /// For a link that speaks version 1.
    pub fn v1(magic: [u8; 4]) -> Codec {
        Codec { magic, state: State::V1(v1::Decoder::new(magic)), outgoing: Vec::new() }
    }

    /// For a link that we open and that shall speak version 2.
    pub fn v2(magic: [u8; 4], entropy: Entropy) -> Codec {
        let mut outgoing = Vec::new();
        let link = v2::Link::new(magic, Role::Initiator, entropy, &mut outgoing);
        Codec { magic, state: State::V2(Box::new(link)), outgoing }
    }

    /// For a link that came in: version 1 or 2, as the first bytes say.
    pub fn incoming(magic: [u8; 4], entropy: Entropy) -> Codec {
        Codec { magic, state: State::Detecting { seen: Vec::new(), entropy }, outgoing: Vec::new() }
    }

    /// For a link that came in and may speak version 1 only.
    pub(crate) fn incoming_v1(magic: [u8; 4]) -> Codec {
        Codec { magic, state: State::V1(v1::Decoder::new(magic).early()), outgoing: Vec::new() }
    }

    /// The transport in use.
    pub fn transport(&self) -> Transport {
        match &self.state {
            State::Detecting { .. } => Transport::Detecting,
            State::V1(_) => Transport::V1,
            State::V2(link) => Transport::V2 { session: link.session() },
        }
    }

    /// Takes bytes from the socket and puts the messages that they complete into `out`. After an error the link is to
    /// be closed; what is in `out` came before it. There may be something to write now: [`Codec::take_outgoing`].
    pub fn receive(&mut self, mut bytes: &[u8], out: &mut Vec<Received>) -> Result<(), WireError> {
        if let State::Detecting { seen, entropy } = &mut self.state {
            let prefix = v2::v1_prefix(self.magic);
            let complete = fill(seen, prefix.len(), &mut bytes);
            if seen[..] != prefix[..seen.len()] {
                let (seen, entropy) = (std::mem::take(seen), std::mem::take(entropy));
                let mut link = v2::Link::new(self.magic, Role::Responder, entropy, &mut self.outgoing);
                link.receive(&seen, &mut self.outgoing, out)?;
                self.state = State::V2(Box::new(link));
            } else if complete {
                let mut decoder = v1::Decoder::new(self.magic).early();
                decoder.receive(seen, out)?;
                self.state = State::V1(decoder);
            }
        }
        match &mut self.state {
            State::Detecting { .. } => Ok(()),
            State::V1(decoder) => decoder.receive(bytes, out),
            State::V2(link) => link.receive(bytes, &mut self.outgoing, out),
        }
    }

    /// Queues a message. While a handshake of version 2 runs it waits for its end; a link that came in and has not
    /// said anything yet is answered in version 1.
    pub fn send(&mut self, message: &Encoded) {
        match &mut self.state {
            State::V2(link) => link.send(message, &mut self.outgoing),
            State::Detecting { .. } | State::V1(_) => v1::encode(self.magic, message, &mut self.outgoing),
        }
    }

    /// Bytes of the message that is coming, as far as it came.
    pub fn memory(&self) -> usize {
        match &self.state {
            State::Detecting { seen, .. } => seen.capacity(),
            State::V1(decoder) => decoder.memory(),
            State::V2(link) => link.memory(),
        }
    }

    /// The bytes to write to the socket, in order.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }
}
