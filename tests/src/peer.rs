//! A peer as a test plays it: one blocking socket to a node under test, which may be groatd or bitcoind. It sends what it
//! is told, well formed or not, and says what came back. Does nothing by itself but the handshake.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use bitcoin::hashes::{Hash, sha256d};
use groat_net::PROTOCOL_VERSION;
use groat_net::addr::{Host, NetAddr};
use groat_net::message::{Message, Version};
use groat_net::peer::{NODE_NETWORK, NODE_WITNESS};
use groat_net::wire::{Codec, Encoded, Entropy};

use crate::regtest::MAGIC;

/// How long an answer may take that always comes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A socket with its codec.
pub struct Peer {
    stream: TcpStream,
    codec: Codec,
    inbox: VecDeque<Message>,
    next_nonce: u64,
}

/// What came.
#[derive(Debug)]
pub enum Heard {
    /// A message.
    Message(Message),
    /// The end of the link.
    Closed,
    /// Nothing, in the time given.
    Nothing,
}

impl Peer {
    /// Links with a node and says nothing yet.
    pub fn dial(addr: SocketAddr) -> io::Result<Peer> {
        Peer::over(TcpStream::connect(addr)?, Codec::v1(MAGIC))
    }

    /// The same over version 2 of the transport; its handshake is done while the first messages are exchanged.
    pub fn dial_v2(addr: SocketAddr) -> io::Result<Peer> {
        Peer::over(TcpStream::connect(addr)?, Codec::v2(MAGIC, Entropy::draw(&mut rand::rng())))
    }

    /// A peer over a socket that is open.
    pub fn over(stream: TcpStream, codec: Codec) -> io::Result<Peer> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut peer = Peer { stream, codec, inbox: VecDeque::new(), next_nonce: 1 };
        peer.flush()?;
        Ok(peer)
    }

    /// Links and goes through the handshake.
    pub fn ready(addr: SocketAddr) -> io::Result<Peer> {
        let mut peer = Peer::dial(addr)?;
        peer.shake_hands()?;
        Ok(peer)
    }

    /// The handshake of who dials: version, verack, both ways.
    pub fn shake_hands(&mut self) -> io::Result<()> {
        self.shake_hands_offering(NODE_NETWORK | NODE_WITNESS)
    }

    /// The same with these service bits. Of who offers none nothing is asked.
    pub fn shake_hands_offering(&mut self, services: u64) -> io::Result<()> {
        let Message::Version(own) = version() else { unreachable!("it is one") };
        self.send(&Message::Version(Box::new(Version { services, ..*own })))?;
        self.wait_for(|message| matches!(message, Message::Version(_)))?;
        self.send(&Message::WtxidRelay)?;
        self.send(&Message::Verack)?;
        self.wait_for(|message| matches!(message, Message::Verack))?;
        Ok(())
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        self.codec.send(&Encoded::new(message));
        self.flush()
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = self.codec.take_outgoing();
        self.stream.write_all(&bytes)
    }

    /// The next message, waited for so long.
    pub fn receive(&mut self, limit: Duration) -> Heard {
        let until = Instant::now() + limit;
        let mut bytes = vec![0; 64 * 1024];
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Heard::Message(message);
            }
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            if self.stream.set_read_timeout(Some(left)).is_err() {
                return Heard::Closed;
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Heard::Closed,
                Ok(count) => {
                    let mut received = Vec::new();
                    let outcome = self.codec.receive(&bytes[..count], &mut received);
                    self.inbox.extend(received.into_iter().map(|received| received.message));
                    assert_eq!(outcome, Ok(()), "what the node under test sends can be framed");
                    if self.flush().is_err() && self.inbox.is_empty() {
                        return Heard::Closed;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= until {
                        return Heard::Nothing;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A link that is reset is closed.
                Err(_) => return Heard::Closed,
            }
        }
    }

    /// Waits for a message of this kind; others that come before it are dropped.
    pub fn wait_for(&mut self, is_meant: impl Fn(&Message) -> bool) -> io::Result<Message> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match self.receive(PATIENCE) {
                Heard::Message(message) if is_meant(&message) => return Ok(message),
                Heard::Message(_) => {}
                Heard::Closed => return Err(ErrorKind::ConnectionReset.into()),
                Heard::Nothing => break,
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    /// Sends a ping and waits for its pong, which comes after all that was sent before took effect: the messages that came
    /// before it, or an error if the link was closed.
    pub fn fence(&mut self) -> io::Result<Vec<Message>> {
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        self.send(&Message::Ping(nonce))?;
        let begun = Instant::now();
        let mut before = Vec::new();
        while begun.elapsed() < PATIENCE {
            match self.receive(PATIENCE) {
                Heard::Message(Message::Pong(answer)) if answer == nonce => return Ok(before),
                Heard::Message(message) => before.push(message),
                Heard::Closed => return Err(ErrorKind::ConnectionReset.into()),
                Heard::Nothing => break,
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    /// Seconds from a ping to its pong.
    pub fn round_trip(&mut self) -> io::Result<Duration> {
        let begun = Instant::now();
        self.fence()?;
        Ok(begun.elapsed())
    }

    /// Reads until the node closes the link; false if it does not in the time given.
    pub fn is_closed(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            match self.receive(until.saturating_duration_since(Instant::now())) {
                Heard::Message(_) => {}
                Heard::Closed => return true,
                Heard::Nothing => return false,
            }
        }
    }
}

/// The first message of an honest peer that serves blocks and wants transactions.
pub fn version() -> Message {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Message::Version(Box::new(Version {
        version: PROTOCOL_VERSION,
        services: NODE_NETWORK | NODE_WITNESS,
        time: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        receiver: NetAddr { host: Host::V4(Ipv4Addr::LOCALHOST.octets()), port: 0 },
        nonce: rand::random(),
        user_agent: "/groat-tests/".into(),
        start_height: 0,
        relay: true,
    }))
}

/// A version 1 frame around any payload, as an honest peer would frame it.
pub fn frame(name: &str, payload: &[u8]) -> Vec<u8> {
    let checksum = sha256d::Hash::hash(payload).to_byte_array();
    frame_claiming(name, payload.len() as u32, [checksum[0], checksum[1], checksum[2], checksum[3]], payload)
}

/// A version 1 frame that claims this length and this checksum.
pub fn frame_claiming(name: &str, length: u32, checksum: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(MAGIC.len() + 12, 0);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum);
    bytes.extend_from_slice(payload);
    bytes
}
