//! Thousands of peers in one process, for loads: each is a socket of its own with its own address on loopback, shakes
//! hands, answers pings and notes what it is told of; if so wished it fetches the transactions. One thread for all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use groat_net::message::Message;
use groat_net::wire::{Codec, Encoded, Entropy};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use crate::peer::version;
use crate::regtest::MAGIC;

/// Before who was cut off dials again.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// All of them. Dropped, their links close.
pub struct Swarm {
    state: Arc<State>,
    count: u32,
    runtime: Runtime,
}

/// When each of them was told of something, and when it got it.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    /// Of an announcement.
    pub announced: Vec<Instant>,
    /// Of the thing itself.
    pub received: Vec<Instant>,
}

struct State {
    target: SocketAddr,
    v2: bool,
    ready: AtomicUsize,
    closed: AtomicUsize,
    again: AtomicUsize,
    pongs: AtomicUsize,
    fetch: AtomicBool,
    noted: Mutex<BTreeMap<[u8; 32], Noted>>,
}

impl Swarm {
    /// None yet. They will dial `target`, over version 2 of the transport or version 1.
    pub fn new(target: SocketAddr, v2: bool) -> io::Result<Swarm> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let state = State {
            target,
            v2,
            ready: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            again: AtomicUsize::new(0),
            pongs: AtomicUsize::new(0),
            fetch: AtomicBool::new(false),
            noted: Mutex::default(),
        };
        Ok(Swarm { state: Arc::new(state), count: 0, runtime })
    }

    /// So many more dial, all at once.
    pub fn dial(&mut self, count: u32) {
        for number in self.count..self.count + count {
            let state = self.state.clone();
            self.runtime.spawn(async move {
                let mut ready = false;
                // What went wrong does not matter. A node may cut a handshake off that takes long among many; then, as any
                // peer, this one tries again.
                while live(&state, number, &mut ready).await.is_err() && !ready {
                    state.again.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
                state.closed.fetch_add(1, Ordering::Relaxed);
            });
        }
        self.count += count;
    }

    /// Those whose handshake was done, and those whose link has ended.
    pub fn ready_and_closed(&self) -> (usize, usize) {
        (self.state.ready.load(Ordering::Relaxed), self.state.closed.load(Ordering::Relaxed))
    }

    /// How often one dialled again, since its link had ended before the handshake was done.
    pub fn again(&self) -> usize {
        self.state.again.load(Ordering::Relaxed)
    }

    /// Pings that were answered.
    pub fn pongs(&self) -> usize {
        self.state.pongs.load(Ordering::Relaxed)
    }

    /// Whether they ask for the transactions that they are told of.
    pub fn set_fetching(&self, fetch: bool) {
        self.state.fetch.store(fetch, Ordering::Relaxed);
    }

    /// From now on, note who is told of this block or transaction.
    pub fn watch(&self, hash: impl Hash<Bytes = [u8; 32]>) {
        self.state.noted.lock().expect("nobody panics while it is held").insert(hash.to_byte_array(), Noted::default());
    }

    /// What was noted of it; it is noted no more.
    pub fn noted(&self, hash: impl Hash<Bytes = [u8; 32]>) -> Noted {
        let mut noted = self.state.noted.lock().expect("nobody panics while it is held");
        noted.remove(&hash.to_byte_array()).unwrap_or_default()
    }

    /// How many were told of it, and how many have it.
    pub fn counts(&self, hash: impl Hash<Bytes = [u8; 32]>) -> (usize, usize) {
        let noted = self.state.noted.lock().expect("nobody panics while it is held");
        noted.get(&hash.to_byte_array()).map_or((0, 0), |noted| (noted.announced.len(), noted.received.len()))
    }
}

/// The address that one of them dials from: each /16 has 64 of them, so that they look like many networks.
fn source(number: u32) -> Ipv4Addr {
    let [high, low] = [number / 64 % 250, number % 64].map(|part| part as u8 + 1);
    Ipv4Addr::new(127, high, (number / 16_000) as u8, low)
}

async fn dial(target: SocketAddr, number: u32) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source(number), 0).into())?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Lives until the link ends; sets `ready` when the handshake is done.
async fn live(state: &State, number: u32, ready: &mut bool) -> io::Result<()> {
    let mut stream = dial(state.target, number).await?;
    let mut codec = if state.v2 { Codec::v2(MAGIC, Entropy::draw(&mut rand::rng())) } else { Codec::v1(MAGIC) };
    codec.send(&Encoded::new(&version()));
    let mut received = Vec::new();
    loop {
        let bytes = codec.take_outgoing();
        if !bytes.is_empty() {
            stream.write_all(&bytes).await?;
        }
        stream.readable().await?;
        SCRATCH.with_borrow_mut(|scratch| match stream.try_read(scratch) {
            Ok(0) => Err(io::ErrorKind::ConnectionReset.into()),
            Ok(count) => codec.receive(&scratch[..count], &mut received).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        })?;
        for message in received.drain(..) {
            // A node pings who is through its handshake; its own verack comes before it has ours.
            if !*ready && matches!(message.message, Message::Ping(_)) {
                *ready = true;
                state.ready.fetch_add(1, Ordering::Relaxed);
            }
            state.on_message(message.message, &mut codec);
        }
    }
}

impl State {
    fn on_message(&self, message: Message, codec: &mut Codec) {
        let mut send = |message: &Message| codec.send(&Encoded::new(message));
        match message {
            Message::Version(_) => {
                [Message::WtxidRelay, Message::SendAddrV2, Message::Verack].iter().for_each(send);
            }
            Message::Verack => send(&Message::SendHeaders),
            Message::Ping(nonce) => {
                send(&Message::Pong(nonce));
                self.pongs.fetch_add(1, Ordering::Relaxed);
            }
            // They have no block but the first.
            Message::GetHeaders(_) => send(&Message::Headers(Vec::new())),
            Message::Headers(headers) => {
                headers.iter().for_each(|header| self.note(&header.block_hash().to_byte_array(), |n| &mut n.announced));
            }
            Message::Inv(items) => {
                items.iter().for_each(|item| self.note(&hash_of(item), |noted| &mut noted.announced));
                if self.fetch.load(Ordering::Relaxed) {
                    let wanted = items.into_iter().filter(|item| matches!(item, Inventory::WTx(_))).collect();
                    send(&Message::GetData(wanted));
                }
            }
            Message::Tx(tx) => self.note(&tx.compute_wtxid().to_byte_array(), |noted| &mut noted.received),
            _ => {}
        }
    }

    fn note(&self, hash: &[u8; 32], list: fn(&mut Noted) -> &mut Vec<Instant>) {
        if let Some(noted) = self.noted.lock().expect("nobody panics while it is held").get_mut(hash) {
            list(noted).push(Instant::now());
        }
    }
}

fn hash_of(item: &Inventory) -> [u8; 32] {
    match item {
        Inventory::Transaction(hash) => hash.to_byte_array(),
        Inventory::WTx(hash) => hash.to_byte_array(),
        Inventory::Block(hash) => hash.to_byte_array(),
        _ => [0; 32],
    }
}

/// Waits until something is so; whether it came to be within the limit.
pub fn wait_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    is_so()
}
