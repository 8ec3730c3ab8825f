//! Version 2 of the transport ([BIP-0324]): an exchange of keys hidden in noise, then encrypted packets. The cipher is
//! the crate `bip324`; its handshake borrows what it is fed, so the bytes are kept and it is replayed from them.
//!
//! [BIP-0324]: https://github.com/bitcoin/bips/blob/master/bip-0324.mediawiki

use std::sync::OnceLock;

use bip324::{
    CipherSession, FillBytes, GarbageResult, Handshake, Initialized, NUM_LENGTH_BYTES, PacketType, ReceivedGarbage,
    ReceivedKey, SentVersion, VersionResult,
};
use rand::{Rng, RngCore};
use secp256k1::{Secp256k1, SignOnly};

use super::{
    Encoded, KEPT_BUFFER, MAX_EARLY_MESSAGE, Received, WireError, broken, decode_named, fill, padded_name, read_name,
};
use crate::message::{Fault, Kind, MAX_PROTOCOL_MESSAGE_LENGTH, Message};
pub use bip324::Role;

/// Most bytes of noise after the key. Core's name and value.
pub const MAX_GARBAGE_LEN: usize = 4095;
/// Bytes of an ElligatorSwift key.
const KEY_SIZE: usize = 64;
/// Bytes of a packet beside its contents and its length: header and tag.
const PACKET_EXTRA: usize = 17;
/// Bytes of a packet beside its contents.
pub(super) const PACKET_OVERHEAD: usize = NUM_LENGTH_BYTES + PACKET_EXTRA;
/// Longest contents: a message with its name in the long form. Core: `MAX_CONTENTS_LEN`.
const MAX_CONTENTS: usize = 1 + 12 + MAX_PROTOCOL_MESSAGE_LENGTH;
/// Most bytes that the handshake may take. What is held for it is at most twice that.
const MAX_HANDSHAKE: usize = 32 * 1024;
/// Most times the handshake is replayed, which costs a key exchange. Two are spent on each decoy that comes alone.
const MAX_REPLAYS: u32 = 32;

/// The first 16 bytes of every link in version 1.
pub(super) fn v1_prefix(magic: [u8; 4]) -> [u8; 16] {
    let mut prefix = [0; 16];
    prefix[..4].copy_from_slice(&magic);
    prefix[4..].copy_from_slice(&padded_name(Kind::Version.name()));
    prefix
}

/// What is random about a link.
#[derive(Clone, Default)]
pub struct Entropy {
    /// The secret key of this link alone.
    pub secret: [u8; 32],
    /// Noise after the key, at most [`MAX_GARBAGE_LEN`] bytes.
    pub garbage: Vec<u8>,
    /// Contents of the packets of noise before the version packet. Core sends none.
    pub decoys: Vec<Vec<u8>>,
}

impl Entropy {
    /// Draws a key and noise of random length.
    pub fn draw(rng: &mut impl RngCore) -> Entropy {
        let mut secret = [0; 32];
        while secp256k1::SecretKey::from_slice(&secret).is_err() {
            rng.fill_bytes(&mut secret);
        }
        let mut garbage = vec![0; rng.random_range(0..=MAX_GARBAGE_LEN)];
        rng.fill_bytes(&mut garbage);
        Entropy { secret, garbage, decoys: Vec::new() }
    }
}

/// Gives the handshake the same key each time it is replayed.
struct Fixed([u8; 32]);

impl FillBytes for Fixed {
    fn fill_bytes(&mut self, dest: &mut [u8; 32]) {
        *dest = self.0;
    }
}

fn curve() -> &'static Secp256k1<SignOnly> {
    static CURVE: OnceLock<Secp256k1<SignOnly>> = OnceLock::new();
    CURVE.get_or_init(Secp256k1::signing_only)
}

enum Stage {
    /// Their key is not complete.
    Key,
    /// Their noise has no end yet.
    Garbage(Option<Handshake<SentVersion>>),
    /// Their version packet cannot be complete before the buffer holds so many bytes.
    Version { needed: usize },
    /// Packets flow. `wanted`: length of the packet whose length was read, without it.
    Open { cipher: Box<CipherSession>, wanted: Option<usize> },
}

/// One end of a link.
pub(super) struct Link {
    magic: [u8; 4],
    role: Role,
    entropy: Entropy,
    stage: Stage,
    /// All that came in until the handshake is done; then the unfinished packet.
    buffer: Vec<u8>,
    replays: u32,
    /// Messages that wait for the end of the handshake, as contents of packets.
    waiting: Vec<Vec<u8>>,
    /// Longest contents that are taken.
    longest: usize,
}

/// How far a replay of the handshake came.
enum Progress {
    /// The link is open; so many bytes of the buffer were used.
    Done(Box<CipherSession>, usize),
    /// The buffer must hold so many bytes.
    Needs(usize),
}

impl Link {
    /// Opens a link: the key and the noise go to `outgoing` at once.
    pub(super) fn new(magic: [u8; 4], role: Role, entropy: Entropy, outgoing: &mut Vec<u8>) -> Link {
        // Who answers our dialling is one of few; who dials us is a stranger until the verack.
        let longest = if role == Role::Initiator { MAX_CONTENTS } else { MAX_EARLY_MESSAGE };
        let (stage, buffer, waiting) = (Stage::Key, Vec::new(), Vec::new());
        let link = Link { magic, role, entropy, stage, buffer, replays: 0, waiting, longest };
        let start = outgoing.len();
        outgoing.resize(start + KEY_SIZE + link.entropy.garbage.len(), 0);
        link.begin().send_key(Some(&link.entropy.garbage), &mut outgoing[start..]).expect("the noise is in bounds");
        link
    }

    pub(super) fn session(&self) -> Option<[u8; 32]> {
        match &self.stage {
            Stage::Open { cipher, .. } => Some(*cipher.id()),
            _ => None,
        }
    }

    fn begin(&self) -> Handshake<Initialized> {
        let mut fixed = Fixed(self.entropy.secret);
        Handshake::new_with_rng(self.magic, self.role, &mut fixed, curve())
            .expect("the secret was drawn as a valid one")
    }

    /// The handshake up to our version packet, and the bytes of that.
    fn exchange(&self) -> Result<(Handshake<SentVersion>, Vec<u8>), WireError> {
        let garbage = Some(&self.entropy.garbage[..]);
        let mut scratch = vec![0; KEY_SIZE + self.entropy.garbage.len()];
        let theirs = self.buffer[..KEY_SIZE].try_into().expect("their key is complete");
        let keyed = self.begin().send_key(garbage, &mut scratch).expect("the noise is in bounds");
        let keyed = keyed.receive_key(theirs).map_err(|error| match error {
            bip324::Error::V1Protocol => WireError::SpeaksV1,
            _ => WireError::Handshake("no shared secret"),
        })?;
        let decoys: Vec<&[u8]> = self.entropy.decoys.iter().map(Vec::as_slice).collect();
        scratch.resize(Handshake::<ReceivedKey<'_>>::send_version_len(Some(&decoys)), 0);
        let sent = keyed.send_version(&mut scratch, Some(&decoys)).expect("the buffer has the length asked for");
        Ok((sent, scratch))
    }

    /// Takes bytes and puts the messages that they complete into `out`.
    pub(super) fn receive(
        &mut self,
        mut bytes: &[u8],
        outgoing: &mut Vec<u8>,
        out: &mut Vec<Received>,
    ) -> Result<(), WireError> {
        if !matches!(self.stage, Stage::Open { .. }) {
            self.buffer.extend_from_slice(bytes);
            let Some(used) = self.shake_hands(outgoing)? else { return Ok(()) };
            let rest = std::mem::take(&mut self.buffer);
            return self.receive_packets(&mut &rest[used..], out);
        }
        self.receive_packets(&mut bytes, out)
    }

    /// Goes on with the handshake; gives the bytes of the buffer that it used once it is done.
    fn shake_hands(&mut self, outgoing: &mut Vec<u8>) -> Result<Option<usize>, WireError> {
        if let Stage::Key = self.stage {
            let prefix = v1_prefix(self.magic);
            if self.role == Role::Responder && self.buffer.len() >= 16 && self.buffer[4..16] == prefix[4..] {
                return Err(WireError::WrongMagic);
            }
            if self.role == Role::Initiator && self.buffer.starts_with(&self.magic) {
                return Err(WireError::SpeaksV1);
            }
            if self.buffer.len() < KEY_SIZE {
                return Ok(None);
            }
            let (handshake, version) = self.exchange()?;
            outgoing.extend_from_slice(&version);
            self.stage = Stage::Garbage(Some(handshake));
        }
        let progress = match &mut self.stage {
            Stage::Garbage(handshake) => {
                let kept = handshake.take().expect("put back below whenever the noise goes on");
                match kept.receive_garbage(&self.buffer[KEY_SIZE..]) {
                    Ok(GarbageResult::NeedMoreData(kept)) => {
                        *handshake = Some(kept);
                        return Ok(None);
                    }
                    Ok(GarbageResult::FoundGarbage { handshake, consumed_bytes }) => {
                        read_version(handshake, &self.buffer, KEY_SIZE + consumed_bytes)?
                    }
                    Err(_) => return Err(WireError::Handshake("noise without an end")),
                }
            }
            Stage::Version { needed } if self.buffer.len() < *needed => return Ok(None),
            Stage::Version { .. } => {
                self.replays += 1;
                if self.replays > MAX_REPLAYS {
                    return Err(WireError::Handshake("too many decoys"));
                }
                match self.exchange()?.0.receive_garbage(&self.buffer[KEY_SIZE..]) {
                    Ok(GarbageResult::FoundGarbage { handshake, consumed_bytes }) => {
                        read_version(handshake, &self.buffer, KEY_SIZE + consumed_bytes)?
                    }
                    _ => return Err(WireError::Handshake("noise without an end")),
                }
            }
            Stage::Key | Stage::Open { .. } => return Ok(None),
        };
        match progress {
            Progress::Needs(needed) if needed > MAX_HANDSHAKE => Err(WireError::Handshake("too long")),
            Progress::Needs(needed) => {
                self.stage = Stage::Version { needed };
                Ok(None)
            }
            Progress::Done(cipher, used) => {
                self.entropy = Entropy::default();
                self.stage = Stage::Open { cipher, wanted: None };
                for contents in std::mem::take(&mut self.waiting) {
                    self.send_packet(&contents, PacketType::Genuine, outgoing);
                }
                Ok(Some(used))
            }
        }
    }

    fn receive_packets(&mut self, bytes: &mut &[u8], out: &mut Vec<Received>) -> Result<(), WireError> {
        let Stage::Open { cipher, wanted } = &mut self.stage else { return Ok(()) };
        loop {
            let Some(length) = *wanted else {
                if !fill(&mut self.buffer, NUM_LENGTH_BYTES, bytes) {
                    return Ok(());
                }
                let length = self.buffer[..].try_into().expect("the length is complete");
                let length = cipher.inbound().decrypt_packet_len(length);
                if length > self.longest + PACKET_EXTRA {
                    return Err(WireError::TooLong(length));
                }
                *wanted = Some(length);
                self.buffer.clear();
                continue;
            };
            if !fill(&mut self.buffer, length, bytes) {
                return Ok(());
            }
            let packet = cipher.inbound().decrypt_in_place(&mut self.buffer, None);
            let (sort, plain) = packet.map_err(|_| WireError::NotAuthentic)?;
            if sort == PacketType::Genuine {
                let message = read_contents(&plain[1..]);
                if message == Message::Verack {
                    self.longest = MAX_CONTENTS;
                }
                out.push(Received { message, wire_len: length + NUM_LENGTH_BYTES });
            }
            *wanted = None;
            self.buffer.clear();
            if self.buffer.capacity() > KEPT_BUFFER {
                self.buffer = Vec::new();
            }
        }
    }

    pub(super) fn send(&mut self, message: &Encoded, outgoing: &mut Vec<u8>) {
        let mut contents = Vec::with_capacity(13 + message.payload.len());
        match message.kind.and_then(Kind::short_id) {
            Some(id) => contents.push(id),
            None => {
                contents.push(0);
                contents.extend_from_slice(&padded_name(&message.name));
            }
        }
        contents.extend_from_slice(&message.payload);
        match self.stage {
            Stage::Open { .. } => self.send_packet(&contents, PacketType::Genuine, outgoing),
            _ => self.waiting.push(contents),
        }
    }

    pub(super) fn send_packet(&mut self, contents: &[u8], sort: PacketType, outgoing: &mut Vec<u8>) {
        let Stage::Open { cipher, .. } = &mut self.stage else { return };
        let start = outgoing.len();
        outgoing.resize(start + NUM_LENGTH_BYTES + PACKET_EXTRA + contents.len(), 0);
        cipher
            .outbound()
            .encrypt(contents, &mut outgoing[start..], sort, None)
            .expect("the buffer has the length needed");
    }

    /// Bytes that the link holds memory for.
    pub(super) fn memory(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Reads packets from `at` on until the version packet. Decoys before it are skipped.
fn read_version(
    mut handshake: Handshake<ReceivedGarbage<'_>>,
    buffer: &[u8],
    mut at: usize,
) -> Result<Progress, WireError> {
    loop {
        let Some(length) = buffer.get(at..at + NUM_LENGTH_BYTES) else {
            return Ok(Progress::Needs(at + NUM_LENGTH_BYTES));
        };
        let length = length.try_into().expect("the slice has that length");
        let length = handshake.decrypt_packet_len(length).map_err(|_| WireError::NotAuthentic)?;
        at += NUM_LENGTH_BYTES;
        let Some(packet) = buffer.get(at..at + length) else { return Ok(Progress::Needs(at + length)) };
        at += length;
        match handshake.receive_version(&mut packet.to_vec()).map_err(|_| WireError::NotAuthentic)? {
            VersionResult::Complete { cipher } => return Ok(Progress::Done(Box::new(cipher), at)),
            VersionResult::Decoy(next) => handshake = next,
        }
    }
}

/// The message in the contents of a packet. Core: `V2Transport::GetMessageType`.
fn read_contents(contents: &[u8]) -> Message {
    let Some((&id, rest)) = contents.split_first() else { return broken(Fault::Name) };
    if id != 0 {
        return match Kind::from_short_id(id) {
            Some(kind) => Message::decode(kind, rest.to_vec()),
            None => broken(Fault::Name),
        };
    }
    let Some((name, payload)) = rest.split_first_chunk::<12>() else { return broken(Fault::Name) };
    match read_name(name) {
        Some(name) => decode_named(name, payload.to_vec()),
        None => broken(Fault::Name),
    }
}
