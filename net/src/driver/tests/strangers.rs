//! Strangers who dial us: what they may do, and what they may not.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use std::sync::atomic::Ordering;

use crate::addr::Network;
use crate::driver::MAX_HELD;
use crate::driver::half_open::MAX_HALF_OPEN;
use crate::permissions::{Grant, Permissions};

fn permissions(text: &str) -> Permissions {
    Grant::parse(&format!("{text}@127.0.0.1"), Permissions::NONE).unwrap().permissions
}

#[test]
fn a_peer_has_the_permissions_of_its_address_and_of_its_door() {
    let runtime = runtime();
    let grants = ["noban@127.0.0.1", "out,relay@127.0.0.0/8", "all@1.2.3.4"];
    let grants = grants.map(|text| Grant::parse(text, Permissions::NONE).unwrap()).to_vec();
    let mut a = Node::with(&runtime, Options { grants, ..options() });
    let doors = [
        (Door::default(), "noban", Network::Ipv4),
        (Door { permissions: permissions("addr"), onion: false }, "noban,addr", Network::Ipv4),
        (Door { permissions: Permissions::NONE, onion: true }, "noban", Network::Onion),
    ];
    let mut open = Vec::new();
    for (door, expected, through) in doors {
        open.push(TcpStream::connect(a.listen_at(door)).unwrap());
        match a.next("a link") {
            Input::Connected { kind: LinkKind::Inbound, permissions: has, network, .. } => {
                assert_eq!((has, network), (permissions(expected), through), "{door:?}");
            }
            other => panic!("expected a link, got {other:?}"),
        }
    }
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    for (kind, expected) in [(LinkKind::Manual, permissions("relay")), (LinkKind::OutboundFull, Permissions::NONE)] {
        a.driver.reach(addr.into(), kind, false);
        match a.next("a link") {
            Input::Connected { permissions: has, .. } => assert_eq!(has, expected, "{kind:?}"),
            other => panic!("expected a link, got {other:?}"),
        }
    }
}

#[test]
fn who_holds_all_places_open_keeps_nobody_out() {
    let runtime = runtime();
    let mut a = Node::with(&runtime, Options { max_inbound: 2 * MAX_HALF_OPEN, ..options() });
    let addr = a.listen();
    let slow: Vec<TcpStream> = (0..MAX_HALF_OPEN).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let silent: Vec<PeerId> = slow.iter().map(|_| a.connected()).collect();
    // One more comes in, and one that was silent goes.
    let _honest = TcpStream::connect(addr).unwrap();
    let (mut came, mut went) = (None, None);
    while came.is_none() || went.is_none() {
        match a.next("a link, and the end of another") {
            Input::Connected { peer, .. } => came = Some(peer),
            Input::Closed(peer) => went = Some(peer),
            other => panic!("expected a link, and the end of another, got {other:?}"),
        }
    }
    assert!(silent.contains(&went.unwrap()), "the newcomer itself went");
    // Links whose handshake is done have no place to lose, and give it back: nobody goes for those who come now.
    const MORE: usize = 8;
    silent.iter().filter(|peer| Some(**peer) != went).take(MORE).for_each(|peer| a.driver.ready(*peer));
    let _others: Vec<TcpStream> = (0..MORE).map(|_| TcpStream::connect(addr).unwrap()).collect();
    for _ in 0..MORE {
        match a.next("a link") {
            Input::Connected { .. } => {}
            other => panic!("expected a link, and places were given back for it, got {other:?}"),
        }
    }
}

#[test]
fn noise_and_long_messages_end_a_link_before_its_handshake() {
    let mut long = [0xfa, 0xbf, 0xb5, 0xda].to_vec();
    long.extend_from_slice(b"version\0\0\0\0\0");
    long.extend_from_slice(&3_000_000u32.to_le_bytes());
    long.extend_from_slice(&[0; 4]);
    let other_network = [&[0xf9, 0xbe, 0xb4, 0xd9][..], b"version\0\0\0\0\0", &[0; 8]].concat();
    let noise = vec![0x55; 64 + 4095 + 16];
    for (what, bytes) in [("a long message", long), ("another network", other_network), ("noise", noise)] {
        let runtime = runtime();
        let mut a = Node::new(&runtime, true, 8);
        let mut stream = TcpStream::connect(a.listen()).unwrap();
        let peer = a.connected();
        stream.write_all(&bytes).unwrap();
        let end = a.next("the end");
        assert!(matches!(end, Input::Closed(closed) if closed == peer), "{what}: {end:?}");
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// The handshake in version 1, then a message of which `bytes` of 4,000,000 come.
fn begun(bytes: usize) -> Vec<u8> {
    let mut codec = crate::wire::Codec::v1(options().magic);
    let unknown = Message::Unknown { name: "x".into(), payload: vec![0; 4_000_000] };
    let said = [crate::message::tests::version(), Message::Verack, unknown];
    said.iter().for_each(|message| codec.send(&crate::wire::Encoded::new(message)));
    let mut out = codec.take_outgoing();
    out.truncate(out.len() - 4_000_000 + bytes);
    out
}

/// Takes what happens until a link is made; gives which.
fn came(node: &mut Node) -> PeerId {
    loop {
        if let Input::Connected { peer, .. } = node.next("a link") {
            return peer;
        }
    }
}

/// Takes what happens until a link ends; gives which.
fn ended(node: &mut Node) -> PeerId {
    loop {
        match node.next("the end of a link") {
            Input::Closed(peer) => return peer,
            Input::Message { .. } | Input::Queued { .. } | Input::Tick => {}
            other => panic!("expected the end of a link, got {other:?}"),
        }
    }
}

#[test]
fn when_all_hold_too_much_of_long_messages_one_of_them_goes() {
    let runtime = runtime();
    let mut a = Node::with(&runtime, Options { max_inbound: 16, ..options() });
    let addr = a.listen();
    let mut open = Vec::new();
    let mut come = |a: &mut Node, bytes: usize| {
        let mut stream = TcpStream::connect(addr).unwrap();
        let peer = came(a);
        stream.write_all(&begun(bytes)).unwrap();
        open.push(stream);
        peer
    };
    let whole = come(&mut a, 4_000_000);
    let slow = come(&mut a, 2_000_000);
    let others: Vec<PeerId> = (0..8).map(|_| come(&mut a, 3_900_000)).collect();
    let gone = ended(&mut a);
    assert_eq!(
        gone, slow,
        "the one over which least has passed, not {whole:?}, whose message is whole, nor {others:?}"
    );
    let too_much = |a: &Node| a.driver.shared.held.load(Ordering::Acquire) > MAX_HELD;
    let waits = (0..2000).take_while(|_| too_much(&a)).map(|_| std::thread::sleep(Duration::from_millis(10))).count();
    assert!(!too_much(&a), "its memory is not given back after {waits} looks");
}

#[test]
fn when_all_take_too_little_of_what_they_are_sent_one_of_them_goes() {
    let runtime = runtime();
    let mut a = Node::with(&runtime, options());
    let addr = a.listen();
    let mut open = Vec::new();
    let peers: Vec<PeerId> = (0..5)
        .map(|number| {
            let mut stream = TcpStream::connect(addr).unwrap();
            let peer = came(&mut a);
            stream.write_all(&begun(0)).unwrap();
            if number == 0 {
                // This one reads.
                let mut reads = stream.try_clone().unwrap();
                runtime.spawn_blocking(move || std::io::copy(&mut reads, &mut std::io::sink()));
            }
            open.push(stream);
            peer
        })
        .collect();
    let block = Arc::new(Message::Block(Arc::new(vec![7; 1_000_000])));
    let mut gone = None;
    for _ in 0..60 {
        for peer in &peers {
            if gone.is_none() {
                gone = a.driver.send(*peer, block.clone());
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let Some(Input::Closed(gone)) = gone else { panic!("240 MB wait for who does not read them") };
    assert!(peers[1..].contains(&gone), "the one that reads went");
    assert!(a.driver.info(peers[0]).is_some());
}
