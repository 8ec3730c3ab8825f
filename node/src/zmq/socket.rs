//! A publishing socket of ZeroMQ, as far as a node needs one: ZMTP 3.0 ([RFC 23]) with the NULL mechanism, PUB to SUB, over
//! TCP and Unix sockets. A subscriber that is slower than what it asks for loses messages; nobody waits for it. Knows no
//! topic.
//!
//! [RFC 23]: https://rfc.zeromq.org/spec/23/

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Subscribers of one socket. Who comes beyond is turned away.
pub const MAX_SUBSCRIBERS: usize = 64;
/// Bytes that wait for one subscriber. Beyond it loses messages, as beyond its count of them.
pub const MAX_SUBSCRIBER_BYTES: usize = if cfg!(test) { 10_000 } else { 32 << 20 };
/// Topics that one subscriber may ask for.
const MAX_TOPICS: usize = 256;
/// Bytes of one frame that a subscriber may send: a subscription or a command.
const MAX_FRAME: u64 = 4096;
/// Core's library: `ZMQ_HANDSHAKE_IVL`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Flags of a frame.
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Signature, version 3.0, the mechanism NULL, no server, filler.
const GREETING: [u8; 64] = {
    let mut bytes = [0; 64];
    (bytes[0], bytes[8], bytes[9]) = (0xff, 1, 0x7f);
    bytes[10] = 3;
    (bytes[12], bytes[13], bytes[14], bytes[15]) = (b'N', b'U', b'L', b'L');
    bytes
};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host (`*`: every one of this machine's) and port.
    Tcp(String, u16),
    /// A file.
    Unix(PathBuf),
}

impl Address {
    /// Reads `tcp://HOST:PORT`, `ipc://PATH` or `unix:PATH`. None: it is none of them.
    pub fn parse(text: &str) -> Option<Address> {
        if let Some(path) = text.strip_prefix("ipc://").or_else(|| text.strip_prefix("unix:")) {
            return (!path.is_empty()).then(|| Address::Unix(path.into()));
        }
        let (host, port) = text.strip_prefix("tcp://")?.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then(|| Address::Tcp(host.into(), port))
    }
}

/// A socket that publishes.
pub struct Socket {
    /// Messages that may wait for one subscriber.
    most: usize,
    subscribers: Arc<Mutex<Vec<Arc<Subscriber>>>>,
}

/// Who has subscribed, and what waits to be sent there.
#[derive(Default)]
struct Subscriber {
    outbox: Mutex<Outbox>,
    wake: Notify,
}

#[derive(Default)]
struct Outbox {
    topics: Vec<Vec<u8>>,
    waiting: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

impl Outbox {
    fn wants(&self, topic: &[u8]) -> bool {
        self.topics.iter().any(|wanted| topic.starts_with(wanted))
    }

    /// Adds a message unless so many, or too many bytes, wait: then it is lost, as with ZeroMQ's own library. A message
    /// alone always has room.
    fn push(&mut self, message: &Arc<[u8]>, most: usize) {
        let crowded = self.waiting.len() >= most || self.bytes + message.len() > MAX_SUBSCRIBER_BYTES;
        if self.waiting.is_empty() || !crowded {
            self.bytes += message.len();
            self.waiting.push_back(message.clone());
        }
    }
}

impl Socket {
    /// Listens, on tasks of the runtime that this is called in. At most `most` messages wait for one subscriber; 0: no bound
    /// but that of bytes.
    pub fn bind(address: &Address, most: usize) -> io::Result<Socket> {
        let subscribers: Arc<Mutex<Vec<Arc<Subscriber>>>> = Arc::default();
        let theirs = subscribers.clone();
        match address {
            Address::Tcp(host, port) => {
                let addrs = match host.as_str() {
                    "*" => vec![(Ipv4Addr::UNSPECIFIED, *port).into()],
                    host => (host, *port).to_socket_addrs()?.collect::<Vec<_>>(),
                };
                let listener = std::net::TcpListener::bind(&*addrs)?;
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                tokio::spawn(async move {
                    loop {
                        let Ok((stream, _)) = listener.accept().await else {
                            pause().await;
                            continue;
                        };
                        // A message is written at once; without it the last part would wait for an answer.
                        let _ = stream.set_nodelay(true);
                        welcome(&theirs, stream);
                    }
                });
            }
            Address::Unix(path) => {
                // What an earlier run left; libzmq, too, takes its place. Of another file the operator is told.
                if path.symlink_metadata().is_ok_and(|there| there.file_type().is_socket()) {
                    let _ = std::fs::remove_file(path);
                }
                let listener = UnixListener::bind(path)?;
                tokio::spawn(async move {
                    loop {
                        let Ok((stream, _)) = listener.accept().await else {
                            pause().await;
                            continue;
                        };
                        welcome(&theirs, stream);
                    }
                });
            }
        }
        Ok(Socket { most: if most == 0 { usize::MAX } else { most }, subscribers })
    }

    /// Whether somebody wants this topic.
    pub fn is_wanted(&self, topic: &[u8]) -> bool {
        self.subscribers.lock().iter().any(|subscriber| subscriber.outbox.lock().wants(topic))
    }

    /// Sends a message in parts, of which the first is its topic, to whoever wants it.
    pub fn send(&self, parts: &[&[u8]]) {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 9).sum());
        for (number, part) in parts.iter().enumerate() {
            frame(&mut bytes, if number + 1 < parts.len() { MORE } else { 0 }, part);
        }
        let message: Arc<[u8]> = bytes.into();
        for subscriber in &*self.subscribers.lock() {
            let mut outbox = subscriber.outbox.lock();
            if outbox.wants(parts[0]) {
                outbox.push(&message, self.most);
                subscriber.wake.notify_one();
            }
        }
    }
}

/// Accepting fails when there are no more files to open; it may be over soon.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn welcome(subscribers: &Arc<Mutex<Vec<Arc<Subscriber>>>>, stream: impl AsyncRead + AsyncWrite + Send + 'static) {
    let (subscriber, subscribers) = (Arc::new(Subscriber::default()), subscribers.clone());
    let mut present = subscribers.lock();
    if present.len() >= MAX_SUBSCRIBERS {
        tracing::warn!(target: "zmq", "a subscriber was turned away: there are {MAX_SUBSCRIBERS}");
        return;
    }
    present.push(subscriber.clone());
    drop(present);
    tokio::spawn(async move {
        let ended = serve(&subscriber, stream).await;
        tracing::debug!(target: "zmq", "a subscriber left: {:?}", ended.err());
        subscribers.lock().retain(|other| !Arc::ptr_eq(other, &subscriber));
    });
}

/// Talks with one subscriber until its end.
async fn serve(subscriber: &Subscriber, stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    timeout(HANDSHAKE_TIMEOUT, greet(&mut read, &mut write)).await.map_err(|_| refused("no greeting"))??;
    tokio::select! {
        ended = listen(subscriber, &mut read) => ended,
        ended = speak(subscriber, &mut write) => ended,
    }
}

async fn greet(read: &mut (impl AsyncRead + Unpin), write: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    write.write_all(&GREETING).await?;
    let mut theirs = [0; 64];
    read.read_exact(&mut theirs).await?;
    if theirs[0] != 0xff || theirs[9] & 1 == 0 || theirs[10] < 3 || theirs[12..32] != GREETING[12..32] {
        return Err(refused("it does not speak ZMTP 3 with the mechanism NULL"));
    }
    let mut ready = Vec::new();
    frame(&mut ready, COMMAND, b"\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB");
    write.write_all(&ready).await?;
    let (flags, body) = read_frame(read).await?;
    let subscribes = |kind: &[u8]| body.windows(kind.len()).any(|part| part == kind);
    if flags & COMMAND == 0 || !body.starts_with(b"\x05READY") {
        return Err(refused("it does not begin with READY"));
    }
    let kinds: [&[u8]; 2] = [b"\x00\x00\x00\x03SUB", b"\x00\x00\x00\x04XSUB"];
    if kinds.into_iter().any(subscribes) { Ok(()) } else { Err(refused("its socket does not subscribe")) }
}

/// Takes subscriptions, and answers pings.
async fn listen(subscriber: &Subscriber, read: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    loop {
        let (flags, body) = read_frame(read).await?;
        let mut outbox = subscriber.outbox.lock();
        if let (true, Some(ping)) = (flags & COMMAND != 0, body.strip_prefix(b"\x04PING")) {
            let mut pong = Vec::new();
            // After two bytes that say how long it waits comes what it wants back.
            frame(&mut pong, COMMAND, &[b"\x04PONG", ping.get(2..).unwrap_or_default()].concat());
            // Only if nothing waits: what waits shows as well that somebody is here, and pings are no way to fill memory.
            outbox.push(&pong.into(), 0);
            subscriber.wake.notify_one();
        } else if flags & COMMAND == 0 {
            match body.split_first() {
                Some((1, topic)) if outbox.topics.len() < MAX_TOPICS => outbox.topics.push(topic.into()),
                Some((1, _)) => return Err(refused("it wants too many topics")),
                Some((0, topic)) => {
                    let known = outbox.topics.iter().position(|wanted| wanted == topic);
                    known.into_iter().for_each(|at| drop(outbox.topics.swap_remove(at)));
                }
                _ => {}
            }
        }
    }
}

async fn speak(subscriber: &Subscriber, write: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    loop {
        let next = {
            let mut outbox = subscriber.outbox.lock();
            let next = outbox.waiting.pop_front();
            outbox.bytes -= next.as_ref().map_or(0, |next| next.len());
            next
        };
        match next {
            Some(message) => write.write_all(&message).await?,
            None => subscriber.wake.notified().await,
        }
    }
}

/// Writes a frame.
fn frame(bytes: &mut Vec<u8>, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(length) => bytes.extend([flags, length]),
        Err(_) => {
            bytes.push(flags | LONG);
            bytes.extend((body.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(body);
}

/// Reads a frame: its flags and its body.
async fn read_frame(read: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let flags = read.read_u8().await?;
    let length = if flags & LONG == 0 { read.read_u8().await?.into() } else { read.read_u64().await? };
    if length > MAX_FRAME {
        return Err(refused("its frame is too long"));
    }
    let mut body = vec![0; length as usize];
    read.read_exact(&mut body).await?;
    Ok((flags, body))
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A socket and where it listens.
    fn socket() -> (tokio::runtime::Runtime, Socket, tempfile::TempDir) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let _inside = runtime.enter();
        let socket = Socket::bind(&Address::Unix(folder.path().join("zmq")), 10).unwrap();
        (runtime, socket, folder)
    }

    fn wait(what: &str, done: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A subscriber byte by byte.
    fn subscribe(folder: &tempfile::TempDir, topic: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(folder.path().join("zmq")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = GREETING.to_vec();
        frame(&mut bytes, COMMAND, b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB\x08Identity\x00\x00\x00\x00");
        frame(&mut bytes, 0, &[b"\x01", topic].concat());
        stream.write_all(&bytes).unwrap();
        let mut theirs = [0; 64 + 2 + 6 + 12 + 4 + 3];
        stream.read_exact(&mut theirs).unwrap();
        assert_eq!(&theirs[..64], &GREETING);
        stream
    }

    #[test]
    fn addresses_are_read_as_core_writes_them() {
        let tcp = |host: &str, port| Some(Address::Tcp(host.into(), port));
        for (text, expected) in [
            ("tcp://127.0.0.1:28332", tcp("127.0.0.1", 28332)),
            ("tcp://[::1]:28332", tcp("::1", 28332)),
            ("tcp://*:1", tcp("*", 1)),
            ("ipc:///tmp/x", Some(Address::Unix("/tmp/x".into()))),
            ("unix:/tmp/x", Some(Address::Unix("/tmp/x".into()))),
            ("tcp://127.0.0.1:0", None),
            ("tcp://127.0.0.1:65536", None),
            ("tcp://127.0.0.1", None),
            ("tcp://:1", None),
            ("127.0.0.1:28332", None),
            ("unix:", None),
        ] {
            assert_eq!(Address::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_subscriber_gets_its_topic_alone_and_its_pings_back() {
        let (_runtime, socket, folder) = socket();
        let mut stream = subscribe(&folder, b"raw");
        wait("subscribed", || socket.is_wanted(b"rawtx"));
        assert!(!socket.is_wanted(b"hashtx"));
        socket.send(&[b"hashtx", b"no"]);
        socket.send(&[b"rawtx", &[7; 300]]);
        let mut got = [0; 2 + 5 + 9 + 300];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got[..7], b"\x01\x05rawtx");
        assert_eq!(&got[7..16], &[LONG, 0, 0, 0, 0, 0, 0, 1, 44]);
        let mut ping = Vec::new();
        frame(&mut ping, COMMAND, b"\x04PING\x00\x0aback");
        stream.write_all(&ping).unwrap();
        let mut pong = [0; 11];
        stream.read_exact(&mut pong).unwrap();
        assert_eq!(&pong, b"\x04\x09\x04PONGback");
        let mut no_more = Vec::new();
        frame(&mut no_more, 0, b"\x00raw");
        stream.write_all(&no_more).unwrap();
        wait("no longer subscribed", || !socket.is_wanted(b"rawtx"));
    }

    #[test]
    fn pings_of_who_reads_nothing_take_no_memory() {
        let (_runtime, socket, folder) = socket();
        let mut stream = subscribe(&folder, b"end");
        let mut pings = Vec::new();
        (0..100_000).for_each(|_| frame(&mut pings, COMMAND, b"\x04PING\x00\x0a"));
        frame(&mut pings, 0, b"\x01begin");
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(&pings).unwrap();
        wait("all pings are read", || socket.is_wanted(b"begin"));
        let waiting = socket.subscribers.lock()[0].outbox.lock().waiting.len();
        assert!(waiting <= 1, "{waiting} answers wait for who takes none");
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let (runtime, _socket, folder) = socket();
        let _inside = runtime.enter();
        let (left, precious) = (folder.path().join("zmq"), folder.path().join("precious"));
        std::fs::write(&precious, "x").unwrap();
        assert!(Socket::bind(&Address::Unix(left), 10).is_ok(), "what an earlier run left is replaced");
        assert!(Socket::bind(&Address::Unix(precious.clone()), 10).is_err(), "a file is no socket");
        assert_eq!(std::fs::read(&precious).unwrap(), b"x");
    }

    #[test]
    fn who_reads_too_slowly_loses_what_comes_then() {
        let mut outbox = Outbox::default();
        let message = |length: usize| -> Arc<[u8]> { vec![0; length].into() };
        outbox.push(&message(MAX_SUBSCRIBER_BYTES + 1), 3);
        assert_eq!(outbox.waiting.len(), 1, "one alone always has room");
        outbox.push(&message(1), 3);
        assert_eq!(outbox.waiting.len(), 1, "bytes are counted");
        (outbox.waiting, outbox.bytes) = Default::default();
        (0..5).for_each(|length| outbox.push(&message(length), 3));
        let lengths: Vec<usize> = outbox.waiting.iter().map(|message| message.len()).collect();
        assert_eq!(lengths, [0, 1, 2], "the oldest stay, as with ZeroMQ's own library");
    }

    #[test]
    fn strangers_are_turned_away_and_places_are_bounded() {
        let (_runtime, socket, folder) = socket();
        let subscribers = || socket.subscribers.lock().len();
        let mut stranger = UnixStream::connect(folder.path().join("zmq")).unwrap();
        stranger.write_all(&[b'G'; 64]).unwrap();
        let mut rest = Vec::new();
        stranger.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, GREETING, "it hears a greeting and the end");
        wait("the stranger is gone", || subscribers() == 0);
        let held: Vec<UnixStream> = (0..MAX_SUBSCRIBERS).map(|_| subscribe(&folder, b"")).collect();
        let mut late = UnixStream::connect(folder.path().join("zmq")).unwrap();
        assert_eq!(late.read(&mut [0; 1]).unwrap(), 0, "who comes beyond the bound hears the end");
        drop(held);
        wait("the places are free", || subscribers() == 0);
    }
}
