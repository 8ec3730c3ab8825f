//! One link: a task that owns the socket and its codec, reads while the hub keeps up, and writes what the hub queues. An
//! idle link holds no buffer.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::half_open::Place;
use super::traffic::Traffic;
use super::{Happened, LinkInfo, MAX_HELD, Shared, now};
use crate::addr::{NetAddr, Network};
use crate::peer::{LinkKind, Permissions};
use crate::protocol::PeerId;
use crate::timers::Micros;
use crate::wire::{Codec, Encoded, Received, Transport, WireError};

/// Bytes of a link's messages that wait for the hub; a longer message waits alone.
pub(super) const CREDIT: usize = 256 * 1024;
/// Bytes read at a time, into one buffer a thread.
const READ_BYTES: usize = 64 * 1024;
/// Encoded bytes that wait for the socket, above which nothing more is encoded.
const MAX_ENCODED: usize = 64 * 1024;
/// Bytes queued since the protocol was told that all are written, below which that is not news.
const NEWS_BYTES: usize = 64 * 1024;
/// What a link may hold without being looked at when all links together hold too much.
const FREE_BYTES: usize = 64 * 1024;
/// How long the last messages of a link may take to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What the hub holds of a link. Dropped, the link ends.
pub(super) struct Link {
    pub peer: PeerId,
    pub end: End,
    pub bind: Option<SocketAddr>,
    /// When it was made.
    pub made: Micros,
    pub commands: mpsc::UnboundedSender<Command>,
    pub status: Arc<Status>,
    /// Its place among the links whose handshake is not done.
    pub half_open: Option<Place>,
    /// Bytes of each kind of message.
    pub traffic: Traffic,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.status.end();
    }
}

/// The other end of a link, and what the link is for.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub addr: NetAddr,
    /// What it was dialled as, if an operator named it.
    pub name: Option<String>,
    pub kind: LinkKind,
    pub permissions: Permissions,
    /// The network that the link came over.
    pub network: Network,
}

/// What the hub tells the task. Its bytes are bounded by [`super::MAX_QUEUED`].
pub(super) enum Command {
    /// Send this, which counts for so many bytes.
    Send(Arc<Encoded>, usize),
}

/// What both sides know of a link.
pub(super) struct Status {
    /// Bytes queued and not written, as the protocol counts them.
    pub queued: AtomicUsize,
    /// Bytes queued since the protocol was last told of them.
    untold: AtomicUsize,
    /// Bytes of a message that has not come whole.
    unfinished: AtomicUsize,
    /// What all links hold.
    held: Arc<AtomicUsize>,
    paused: AtomicBool,
    ended: AtomicBool,
    /// What is queued need not be written any more.
    abandoned: AtomicBool,
    /// Tells the task to look at the two above.
    wake: Notify,
    transport: parking_lot::Mutex<Transport>,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    last_send: AtomicU64,
    last_recv: AtomicU64,
}

impl Status {
    /// `held`: what all links hold.
    pub fn new(transport: Transport, held: Arc<AtomicUsize>) -> Status {
        Status {
            queued: AtomicUsize::new(0),
            untold: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            held,
            paused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            wake: Notify::new(),
            transport: parking_lot::Mutex::new(transport),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            last_send: AtomicU64::new(0),
            last_recv: AtomicU64::new(0),
        }
    }

    /// Ends the link after what is queued is written.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Ends the link at once.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.end();
    }

    /// Bytes queued for the peer, and of a message that has not come whole.
    pub fn held(&self) -> usize {
        self.queued.load(Ordering::Acquire) + self.unfinished.load(Ordering::Acquire)
    }

    /// Bytes of the message that is coming.
    fn set_unfinished(&self, bytes: usize) {
        let before = self.unfinished.swap(bytes, Ordering::AcqRel);
        self.held.fetch_add(bytes, Ordering::AcqRel);
        self.held.fetch_sub(before, Ordering::AcqRel);
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub fn transport(&self) -> Transport {
        *self.transport.lock()
    }

    /// Counts bytes that are queued; gives all that are.
    pub fn queue(&self, bytes: usize) -> usize {
        self.untold.fetch_add(bytes, Ordering::AcqRel);
        self.held.fetch_add(bytes, Ordering::AcqRel);
        self.queued.fetch_add(bytes, Ordering::AcqRel) + bytes
    }

    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.wake.notify_one();
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.held.fetch_sub(self.held(), Ordering::AcqRel);
    }
}

impl Link {
    /// How much this link is worth when all together hold too much: the fewer bytes have passed in its time the less. None:
    /// it holds little, or we chose it, or the operator protects it.
    pub fn worth(&self, now: Micros) -> Option<(u64, Reverse<usize>)> {
        let (status, held) = (&self.status, self.status.held());
        let may_go = self.end.kind.is_inbound() && !self.end.permissions.no_ban && held > FREE_BYTES;
        let passed = status.bytes_sent.load(Ordering::Relaxed) + status.bytes_received.load(Ordering::Relaxed);
        may_go.then(|| (passed / now.since(self.made).as_secs().max(1), Reverse(held)))
    }

    pub fn info(&self) -> LinkInfo {
        let status = &self.status;
        LinkInfo {
            bind: self.bind,
            name: self.end.name.clone(),
            network: self.end.network,
            transport: status.transport(),
            bytes_sent: status.bytes_sent.load(Ordering::Relaxed),
            bytes_received: status.bytes_received.load(Ordering::Relaxed),
            last_send: Micros(status.last_send.load(Ordering::Relaxed)),
            last_recv: Micros(status.last_recv.load(Ordering::Relaxed)),
            sent_by_kind: self.traffic.sent(),
            received_by_kind: self.traffic.received(),
        }
    }
}

/// How a link came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The other side ended it, or does not understand, before it sent a byte in answer to a handshake of version 2.
    pub may_speak_v1: bool,
    /// The hub is gone.
    pub stopped: bool,
}

/// A link under way.
struct Task {
    peer: PeerId,
    stream: TcpStream,
    codec: Codec,
    status: Arc<Status>,
    shared: Arc<Shared>,
    credit: Arc<Semaphore>,
    /// Encoded bytes, of which `written` are written.
    outgoing: Vec<u8>,
    written: usize,
    /// What the messages in `outgoing` count for.
    weight: usize,
}

/// What one look at the socket gave.
enum Read {
    Nothing,
    Bytes,
    End,
    Broken(WireError),
}

/// Runs a link to its end.
pub(super) async fn run(
    stream: TcpStream,
    end: End,
    codec: Codec,
    half_open: Option<Place>,
    shared: Arc<Shared>,
) -> Ended {
    let peer = shared.next_peer();
    let (commands, orders) = mpsc::unbounded_channel();
    let status = Arc::new(Status::new(codec.transport(), shared.held.clone()));
    half_open.iter().for_each(|place| place.is_for(status.clone()));
    // Small messages must not wait for the answer to the last ones. If it fails, they do.
    let _ = stream.set_nodelay(true);
    let bind = stream.local_addr().ok();
    let traffic = Traffic::default();
    let link = Link { peer, end, bind, made: now(), commands, status: status.clone(), half_open, traffic };
    if !shared.tell(Happened::Connected(Box::new(link))).await {
        return Ended { may_speak_v1: false, stopped: true };
    }
    let dialled_v2 = matches!(codec.transport(), Transport::V2 { .. });
    let credit = Arc::new(Semaphore::new(CREDIT));
    let mut task = Task { peer, stream, codec, status, shared, credit, outgoing: Vec::new(), written: 0, weight: 0 };
    let broken = task.run(orders).await;
    let silent = task.status.bytes_received.load(Ordering::Relaxed) == 0;
    let sent = task.status.bytes_sent.load(Ordering::Relaxed) > 0;
    let stopped = !task.shared.tell(Happened::Closed(peer)).await;
    Ended { may_speak_v1: dialled_v2 && (broken == Some(WireError::SpeaksV1) || (silent && sent)), stopped }
}

impl Task {
    /// Reads and writes until either side ends the link; gives what was wrong with the peer's bytes, if that was why.
    async fn run(&mut self, mut orders: mpsc::UnboundedReceiver<Command>) -> Option<WireError> {
        loop {
            if self.status.has_ended() {
                if self.status.abandoned.load(Ordering::Acquire) {
                    return None;
                }
                // The link was ended on this side. What it sent before is written, in bounded time.
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.finish(orders)).await;
                return None;
            }
            self.encoded();
            let reading = !self.status.paused.load(Ordering::Acquire);
            let writing = self.written < self.outgoing.len();
            let interest = match (reading, writing) {
                (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
                (true, false) => Some(Interest::READABLE),
                (false, true) => Some(Interest::WRITABLE),
                (false, false) => None,
            };
            let status = self.status.clone();
            tokio::select! {
                Some(order) = orders.recv(), if self.outgoing.len() - self.written < MAX_ENCODED => self.obey(order),
                () = status.wake.notified() => continue,
                ready = self.stream.ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => {
                    let Ok(ready) = ready else { return None };
                    if reading && (ready.is_readable() || ready.is_read_closed()) {
                        let mut received = Vec::new();
                        let read = self.read(&mut received);
                        if !self.hand_over(received).await {
                            return None;
                        }
                        match read {
                            Read::Nothing => {}
                            Read::Bytes if self.tell_held().await => {}
                            Read::Bytes => return None,
                            Read::End => return None,
                            Read::Broken(error) => return Some(error),
                        }
                    }
                }
            }
            self.encoded();
            if self.write().is_err() || !self.tell_written().await {
                return None;
            }
        }
    }

    fn obey(&mut self, order: Command) {
        let Command::Send(message, weight) = order;
        self.codec.send(&message);
        self.weight += weight;
    }

    /// Takes what the codec wants written.
    fn encoded(&mut self) {
        let bytes = self.codec.take_outgoing();
        if self.written == self.outgoing.len() {
            self.outgoing = bytes;
            self.written = 0;
        } else {
            self.outgoing.extend_from_slice(&bytes);
        }
    }

    /// Reads once and decodes.
    fn read(&mut self, received: &mut Vec<Received>) -> Read {
        SCRATCH.with_borrow_mut(|scratch| match self.stream.try_read(scratch) {
            Ok(0) => Read::End,
            Ok(count) => {
                self.status.bytes_received.fetch_add(count as u64, Ordering::Relaxed);
                self.shared.received.fetch_add(count as u64, Ordering::Relaxed);
                self.status.last_recv.store(now().0, Ordering::Relaxed);
                let outcome = self.codec.receive(&scratch[..count], received);
                let transport = self.codec.transport();
                let mut known = self.status.transport.lock();
                if *known != transport {
                    *known = transport;
                }
                outcome.map_or_else(Read::Broken, |()| Read::Bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Nothing,
            Err(_) => Read::End,
        })
    }

    /// Counts what is here of a long message, and tells the hub when all links together hold too much; false when it is gone.
    async fn tell_held(&mut self) -> bool {
        let unfinished = self.codec.memory();
        let grew = unfinished > self.status.unfinished.load(Ordering::Acquire) && unfinished > FREE_BYTES;
        self.status.set_unfinished(unfinished);
        let too_much = grew && self.shared.held.load(Ordering::Acquire) > MAX_HELD;
        !too_much || self.shared.tell(Happened::Crowded).await
    }

    /// Hands messages to the hub, as fast as it takes them; false when it is gone.
    async fn hand_over(&mut self, received: Vec<Received>) -> bool {
        for received in received {
            let count = received.wire_len.min(CREDIT) as u32;
            let credit = self.credit.clone().acquire_many_owned(count).await.expect("the semaphore is never closed");
            let message = Happened::Message { peer: self.peer, received, _credit: credit };
            if !self.shared.tell(message).await {
                return false;
            }
        }
        true
    }

    /// Writes what the socket takes.
    fn write(&mut self) -> io::Result<()> {
        while self.written < self.outgoing.len() {
            match self.stream.try_write(&self.outgoing[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count;
                    self.status.bytes_sent.fetch_add(count as u64, Ordering::Relaxed);
                    self.shared.sent.fetch_add(count as u64, Ordering::Relaxed);
                    self.status.last_send.store(now().0, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.outgoing = Vec::new();
        self.written = 0;
        Ok(())
    }

    /// Counts what is written, and tells the protocol what it wants to know of that; false when the hub is gone.
    async fn tell_written(&mut self) -> bool {
        if self.weight == 0 || self.written < self.outgoing.len() {
            return true;
        }
        let weight = std::mem::take(&mut self.weight);
        let before = self.status.queued.fetch_sub(weight, Ordering::AcqRel);
        self.shared.held.fetch_sub(weight, Ordering::AcqRel);
        let half = self.shared.options.send_pause_bytes / 2;
        let after = before - weight;
        let all = after == 0 && self.status.untold.load(Ordering::Acquire) >= NEWS_BYTES;
        if all || (before >= half && after < half) {
            self.status.untold.store(0, Ordering::Release);
            return self.shared.tell(Happened::Written(self.peer)).await;
        }
        true
    }

    /// Writes all that is left.
    async fn finish(&mut self, mut orders: mpsc::UnboundedReceiver<Command>) -> io::Result<()> {
        loop {
            self.encoded();
            let rest = std::mem::take(&mut self.outgoing);
            self.stream.write_all(&rest[std::mem::take(&mut self.written)..]).await?;
            match orders.try_recv() {
                Ok(order) => self.obey(order),
                Err(_) => break,
            }
        }
        self.stream.shutdown().await
    }
}
