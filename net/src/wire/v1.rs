//! Version 1 of the transport: a header of 24 bytes (magic, name, length, checksum), then the payload, in clear.

use super::{
    Encoded, KEPT_BUFFER, MAX_EARLY_MESSAGE, Received, WireError, broken, checksum, decode_named, fill, padded_name,
    read_name,
};
use crate::message::{Fault, Kind, MAX_PROTOCOL_MESSAGE_LENGTH, Message};

/// Bytes before the payload.
pub(crate) const HEADER_SIZE: usize = 24;

/// Appends the frame of a message.
pub(super) fn encode(magic: [u8; 4], message: &Encoded, out: &mut Vec<u8>) {
    let length = u32::try_from(message.payload.len()).expect("no message is longer than its cap");
    out.reserve(HEADER_SIZE + message.payload.len());
    out.extend_from_slice(&magic);
    out.extend_from_slice(&padded_name(&message.name));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&message.checksum());
    out.extend_from_slice(&message.payload);
}

/// Finds the messages in a stream of bytes. Holds no more than the unfinished frame.
pub struct Decoder {
    magic: [u8; 4],
    /// The header while it is incomplete, then the payload.
    buffer: Vec<u8>,
    header: Option<Header>,
    /// Longest payload that is taken.
    longest: usize,
}

struct Header {
    name: [u8; 12],
    length: usize,
    checksum: [u8; 4],
}

impl Decoder {
    /// A decoder for the network with this magic.
    pub fn new(magic: [u8; 4]) -> Decoder {
        Decoder { magic, buffer: Vec::new(), header: None, longest: MAX_PROTOCOL_MESSAGE_LENGTH }
    }

    /// Takes short messages only, until the verack.
    pub(super) fn early(self) -> Decoder {
        Decoder { longest: MAX_EARLY_MESSAGE, ..self }
    }

    /// Takes bytes and puts the messages that they complete into `out`.
    pub fn receive(&mut self, mut bytes: &[u8], out: &mut Vec<Received>) -> Result<(), WireError> {
        loop {
            let Some(header) = &self.header else {
                if !fill(&mut self.buffer, HEADER_SIZE, &mut bytes) {
                    return Ok(());
                }
                self.header = Some(self.read_header()?);
                self.buffer.clear();
                continue;
            };
            if !fill(&mut self.buffer, header.length, &mut bytes) {
                return Ok(());
            }
            let message = finish(header, std::mem::take(&mut self.buffer));
            if message == Message::Verack {
                self.longest = MAX_PROTOCOL_MESSAGE_LENGTH;
            }
            out.push(Received { message, wire_len: HEADER_SIZE + header.length });
            self.header = None;
        }
    }

    fn read_header(&self) -> Result<Header, WireError> {
        let part = |from: usize| <[u8; 4]>::try_from(&self.buffer[from..from + 4]).expect("the header is complete");
        let length = u32::from_le_bytes(part(16)) as usize;
        if part(0) != self.magic {
            return Err(WireError::WrongMagic);
        }
        if length > self.longest {
            return Err(WireError::TooLong(length));
        }
        let name = self.buffer[4..16].try_into().expect("the header is complete");
        Ok(Header { name, length, checksum: part(20) })
    }

    /// Bytes that the decoder holds memory for.
    pub fn memory(&self) -> usize {
        self.buffer.capacity()
    }
}

fn finish(header: &Header, mut payload: Vec<u8>) -> Message {
    let Some(name) = read_name(&header.name) else {
        return broken(Fault::Name);
    };
    if checksum(&payload) != header.checksum {
        return Message::Broken { kind: Kind::from_name(name), fault: Fault::Checksum };
    }
    if payload.capacity() - payload.len() > KEPT_BUFFER {
        payload.shrink_to_fit();
    }
    decode_named(name, payload)
}
