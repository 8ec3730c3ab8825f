//! Links over loopback between two drivers without protocols.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod proxied;
mod strangers;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Door, Driver, Event, Options, Proxies, Proxy};
use crate::message::Message;
use crate::peer::LinkKind;
use crate::protocol::{Input, PeerId};
use crate::wire::Transport;

const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    driver: Driver,
    events: mpsc::Receiver<Event>,
    runtime: tokio::runtime::Handle,
}

impl Node {
    fn new(runtime: &tokio::runtime::Runtime, v2: bool, max_inbound: usize) -> Node {
        Node::with(runtime, Options { v2, max_inbound, ..options() })
    }

    fn with(runtime: &tokio::runtime::Runtime, options: Options) -> Node {
        let runtime = runtime.handle().clone();
        let (driver, events) = Driver::new(runtime.clone(), options);
        Node { driver, events, runtime }
    }

    fn listen(&self) -> SocketAddr {
        self.listen_at(Door::default())
    }

    fn listen_at(&self, door: Door) -> SocketAddr {
        self.driver.listen((Ipv4Addr::LOCALHOST, 0).into(), door).unwrap()
    }

    fn dial(&self, addr: SocketAddr) {
        self.driver.dial(&addr.to_string(), LinkKind::Manual, None);
    }

    /// The next thing that happens.
    fn next(&mut self, what: &str) -> Input {
        let event = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.events.recv()).await });
        let event = event.unwrap_or_else(|_| panic!("expected {what} within {PATIENCE:?}; nothing came"));
        self.driver.input(event.expect("the driver holds a sender"))
    }

    fn connected(&mut self) -> PeerId {
        match self.next("a link") {
            Input::Connected { peer, .. } => peer,
            other => panic!("expected a link, got {other:?}"),
        }
    }

    fn message(&mut self) -> Message {
        loop {
            match self.next("a message") {
                Input::Message { message, .. } => return message,
                Input::Queued { .. } => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    fn send(&mut self, to: PeerId, message: Message) {
        assert!(self.driver.send(to, Arc::new(message)).is_none(), "the queue is far from full");
    }
}

fn options() -> Options {
    Options {
        magic: [0xfa, 0xbf, 0xb5, 0xda],
        port: 18444,
        v2: false,
        max_inbound: 8,
        grants: Vec::new(),
        proxies: Proxies::default(),
        cjdns: false,
        send_pause_bytes: 1_000_000,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Links `from` with `to`: the numbers by which each knows the other.
fn link(from: &mut Node, to: &mut Node) -> (PeerId, PeerId) {
    let addr = to.listen();
    from.dial(addr);
    (from.connected(), to.connected())
}

#[test]
fn messages_pass_both_ways_over_either_transport() {
    for v2 in [false, true] {
        let runtime = runtime();
        let (mut a, mut b) = (Node::new(&runtime, v2, 8), Node::new(&runtime, true, 8));
        let (to_b, to_a) = link(&mut a, &mut b);
        let version = crate::message::tests::version();
        a.send(to_b, version.clone());
        assert_eq!(b.message(), version, "v2: {v2}");
        a.send(to_b, Message::Verack);
        assert_eq!(b.message(), Message::Verack, "v2: {v2}");
        let block = Message::Block(Arc::new(vec![7; 3_900_000]));
        for number in 0..5 {
            b.send(to_a, Message::Ping(number));
            b.send(to_a, block.clone());
        }
        for number in 0..5 {
            assert_eq!(a.message(), Message::Ping(number), "v2: {v2}");
            assert!(a.message() == block, "v2: {v2}: the block came changed");
        }
        let transport = b.driver.info(to_a).unwrap().transport;
        assert_eq!(matches!(transport, Transport::V2 { session: Some(_) }), v2, "{transport:?}");
    }
}

#[test]
fn queued_bytes_are_told_when_they_are_written() {
    let runtime = runtime();
    let (mut a, mut b) = (Node::new(&runtime, false, 8), Node::new(&runtime, false, 8));
    let (to_b, _) = link(&mut a, &mut b);
    a.send(to_b, crate::message::tests::version());
    a.send(to_b, Message::Verack);
    b.message();
    b.message();
    for _ in 0..3 {
        a.send(to_b, Message::Block(Arc::new(vec![7; 2_000_000])));
    }
    for _ in 0..3 {
        b.message();
    }
    loop {
        match a.next("word of an empty queue") {
            Input::Queued { bytes: 0, .. } => break,
            Input::Queued { .. } => {}
            other => panic!("expected word of an empty queue, got {other:?}"),
        }
    }
}

#[test]
fn a_paused_link_is_not_read_and_loses_nothing() {
    let runtime = runtime();
    let (mut a, mut b) = (Node::new(&runtime, false, 8), Node::new(&runtime, false, 8));
    let (to_b, to_a) = link(&mut a, &mut b);
    a.send(to_b, crate::message::tests::version());
    b.message();
    b.driver.set_reading(to_a, false);
    // The task may be in the middle of a look at the socket: one message may still come, and no other.
    a.send(to_b, Message::Ping(1));
    std::thread::sleep(Duration::from_millis(200));
    let early = b.events.try_recv().ok().map(|event| b.driver.input(event));
    a.send(to_b, Message::Ping(2));
    std::thread::sleep(Duration::from_millis(200));
    assert!(b.events.try_recv().is_err(), "a message came over a link that is not read, after {early:?}");
    b.driver.set_reading(to_a, true);
    match early {
        None => assert_eq!(b.message(), Message::Ping(1)),
        Some(Input::Message { message, .. }) => assert_eq!(message, Message::Ping(1)),
        Some(other) => panic!("expected a message, got {other:?}"),
    }
    assert_eq!(b.message(), Message::Ping(2));
}

#[test]
fn what_was_sent_before_a_disconnect_still_arrives() {
    let runtime = runtime();
    let (mut a, mut b) = (Node::new(&runtime, false, 8), Node::new(&runtime, false, 8));
    let (to_b, to_a) = link(&mut a, &mut b);
    a.send(to_b, crate::message::tests::version());
    a.send(to_b, Message::Ping(9));
    a.driver.disconnect(to_b);
    b.message();
    assert_eq!(b.message(), Message::Ping(9));
    assert!(matches!(b.next("the end"), Input::Closed(peer) if peer == to_a));
    assert!(matches!(a.next("the end"), Input::Closed(peer) if peer == to_b));
}

#[test]
fn a_peer_that_reads_nothing_does_not_hold_its_link_open() {
    let runtime = runtime();
    let mut a = Node::new(&runtime, false, 8);
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    a.dial(listener.local_addr().unwrap());
    let _silent = listener.accept().unwrap();
    let peer = a.connected();
    let block = Arc::new(Message::Block(Arc::new(vec![7; 4_000_000])));
    let told = (0..20).find_map(|_| a.driver.send(peer, block.clone()));
    assert!(matches!(told, Some(Input::Closed(closed)) if closed == peer), "80 MB were queued: {told:?}");
    assert!(matches!(a.next("the end of the task"), Input::Closed(closed) if closed == peer));
}

#[test]
fn links_beyond_the_cap_are_closed_at_once() {
    let runtime = runtime();
    let (mut a, mut b) = (Node::new(&runtime, false, 8), Node::new(&runtime, false, 1));
    let addr = b.listen();
    a.dial(addr);
    let first = a.connected();
    b.connected();
    a.dial(addr);
    let second = a.connected();
    assert!(matches!(a.next("the end of the second link"), Input::Closed(peer) if peer == second && peer != first));
}

#[test]
fn a_kept_address_is_dialled_again_and_a_forgotten_one_is_not() {
    let runtime = runtime();
    let (mut a, mut b) = (Node::new(&runtime, false, 8), Node::new(&runtime, false, 8));
    let addr = b.listen().to_string();
    assert!(a.driver.keep(&addr, LinkKind::Manual, None), "it is new");
    assert!(!a.driver.keep(&addr, LinkKind::Manual, None), "it is kept already");
    let (first, to_a) = (a.connected(), b.connected());
    b.driver.disconnect(to_a);
    assert!(matches!(a.next("the end"), Input::Closed(peer) if peer == first));
    let second = a.connected();
    assert_ne!(first, second, "each link has its own number");
    assert!(a.driver.forget(&addr));
    assert!(!a.driver.forget(&addr), "it is forgotten already");
    a.driver.disconnect(second);
    assert!(matches!(a.next("the end"), Input::Closed(peer) if peer == second));
    std::thread::sleep(Duration::from_millis(1500));
    assert!(a.events.try_recv().is_err(), "a forgotten address was dialled again");
}

#[test]
fn a_peer_that_closes_on_version_2_is_dialled_with_version_1() {
    let runtime = runtime();
    let mut a = Node::new(&runtime, true, 8);
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    a.dial(listener.local_addr().unwrap());
    let first = a.connected();
    // It reads the key and hangs up, as a node does that knows version 1 only.
    let (mut stream, _) = listener.accept().unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 24]).unwrap();
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(matches!(a.next("the end"), Input::Closed(peer) if peer == first));
    let second = a.connected();
    assert_eq!(a.driver.info(second).unwrap().transport, Transport::V1);
}

#[test]
fn bytes_are_counted_by_kind_as_they_are_on_the_wire() {
    for v2 in [false, true] {
        let runtime = runtime();
        let (mut a, mut b) = (Node::new(&runtime, v2, 8), Node::new(&runtime, true, 8));
        let (to_b, to_a) = link(&mut a, &mut b);
        let unknown = Message::Unknown { name: "greeting".into(), payload: vec![7; 5] };
        for message in [crate::message::tests::version(), Message::Ping(1), Message::Ping(2), unknown] {
            a.send(to_b, message);
            b.message();
        }
        let (sent, received) =
            (a.driver.info(to_b).unwrap().sent_by_kind, b.driver.info(to_a).unwrap().received_by_kind);
        assert_eq!(sent, received, "v2: {v2}");
        let other = if v2 { 20 + 13 + 5 } else { 24 + 5 };
        let ping = if v2 { 20 + 1 + 8 } else { 24 + 8 };
        assert_eq!(received[..2], [("*other*", other), ("ping", 2 * ping)], "v2: {v2}: {received:?}");
    }
}

#[test]
fn an_inactive_driver_makes_no_link_and_takes_none_in() {
    let runtime = runtime();
    let (mut a, mut b) = (Node::new(&runtime, false, 8), Node::new(&runtime, false, 8));
    let addr = b.listen();
    b.driver.set_active(false);
    a.dial(addr);
    let refused = a.connected();
    assert!(matches!(a.next("the end"), Input::Closed(peer) if peer == refused));
    b.driver.set_active(true);
    a.driver.set_active(false);
    a.driver.reach(addr.into(), LinkKind::OutboundFull, false);
    assert!(matches!(a.next("a failure"), Input::DialFailed { tried: false, .. }));
    a.driver.set_active(true);
    a.dial(addr);
    assert_eq!((a.connected(), b.connected()), (PeerId(1), PeerId(0)), "links are numbered from 0");
}

#[test]
fn an_address_without_a_node_is_told_to_have_failed() {
    let runtime = runtime();
    let mut a = Node::new(&runtime, true, 8);
    // Bound and closed again: nobody listens there.
    let addr = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    a.driver.reach(addr.into(), LinkKind::OutboundFull, true);
    match a.next("a failure") {
        Input::DialFailed { addr: failed, tried: true } => assert_eq!(failed, addr.into()),
        other => panic!("expected a failure that counts, got {other:?}"),
    }
}

#[test]
fn a_burst_of_a_few_messages_encodes_each_once() {
    let mut recent = std::collections::VecDeque::new();
    let messages: Vec<Arc<Message>> = (0..4).map(|nonce| Arc::new(Message::Ping(nonce))).collect();
    let first: Vec<_> = messages.iter().map(|message| super::encode(&mut recent, message.clone())).collect();
    for round in 0..3 {
        for (message, first) in messages.iter().zip(&first) {
            let again = super::encode(&mut recent, message.clone());
            assert!(Arc::ptr_eq(&again, first), "round {round}: {message:?} was encoded again");
        }
    }
    for nonce in 4..100 {
        super::encode(&mut recent, Arc::new(Message::Ping(nonce)));
    }
    assert_eq!(recent.len(), super::MAX_RECENT, "what is kept is bounded");
}
