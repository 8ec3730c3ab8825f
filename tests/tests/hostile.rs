//! Peers that mean harm, over real sockets: whatever bytes come, groatd closes the link or drops the message, as a real
//! bitcoind does with the same bytes; its memory stays bounded, and an honest peer beside it notices nothing.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode::{VarInt, serialize, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use groat_net::message::{Kind, Locate, Message};
use groat_tests::bitcoind::{Bitcoind, free_port, peers};
use groat_tests::groatd::{Groatd, block_file, repeat, wide};
use groat_tests::peer::{PATIENCE, Peer, frame, frame_claiming, version};
use groat_tests::regtest;
use groat_tests::running::Running;
use serde_json::{Value, json};

/// Core's name and value.
const MAX_PROTOCOL_MESSAGE_LENGTH: u32 = 4_000_000;
/// What a node may take more of memory in KiB while one test attacks it.
const MEMORY: u64 = 64 * 1024;
/// How long an honest peer may wait for its pong beside an attack, while there is a processor for the node.
const PONG: Duration = Duration::from_secs(2);

/// Panics unless an honest peer gets its pong soon.
fn serves(node: &Running, honest: &mut Peer, beside: &str) {
    let before = node.starved();
    let waited = honest.round_trip().unwrap();
    let starved = node.starved().saturating_sub(before);
    assert!(
        waited < PONG + starved,
        "an honest peer waited {waited:?} for its pong beside {beside}, {starved:?} of it for a processor; {}",
        repeat()
    );
}

/// A chain whose tip is an hour old, so that a node with it counts as synced.
fn chain() -> Vec<bitcoin::Block> {
    let mut chain = vec![regtest::genesis()];
    regtest::extend(&mut chain, 20, 0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as u32;
    let reward = regtest::output(regtest::subsidy(21).to_sat(), regtest::push(&[1]));
    let coinbase = regtest::coinbase(21, 0, vec![reward]);
    chain.push(regtest::block(chain[20].block_hash(), now - 3600, vec![coinbase]));
    chain
}

/// A groatd with that chain.
fn groatd(chain: &[bitcoin::Block], folder: &tempfile::TempDir, options: &[&str]) -> Running {
    let groatd = Groatd::new("regtest", folder.path());
    groatd.import(&[block_file(folder.path(), "chain.blk", &chain[1..])]).succeeded();
    Running::start(&groatd, options)
}

/// A bitcoind with that chain, and where it listens.
fn bitcoind(chain: &[bitcoin::Block], option: &str) -> Option<(SocketAddr, Bitcoind)> {
    let port = free_port();
    let options = ["-listen=1".into(), format!("-port={port}"), "-debug=net".into(), option.into()];
    let bitcoind = Bitcoind::start(&peers()?, &options);
    for block in &chain[1..] {
        assert_eq!(bitcoind.call("submitblock", json!([serialize_hex(block)])), Value::Null);
    }
    Some((SocketAddr::from(([127, 0, 0, 1], port)), bitcoind))
}

/// What came of an attack.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Closed,
    /// The link goes on; so many messages of the kind of interest came.
    Open(usize),
}

/// One attack on a link whose handshake is done.
struct Attack {
    name: &'static str,
    bytes: Vec<u8>,
    /// Answers of this kind are counted.
    answer: Kind,
    expected: Outcome,
}

fn list(count: usize, item: &[u8]) -> Vec<u8> {
    let mut bytes = serialize(&VarInt::from(count));
    bytes.extend(std::iter::repeat_n(item, count).flatten());
    bytes
}

/// Headers on top of `parent`, each on the one before it.
fn headers_on(parent: &Header, count: usize) -> Vec<Header> {
    let mut headers = vec![*parent];
    for _ in 0..count {
        let last = headers[headers.len() - 1];
        let mut next = Header { prev_blockhash: last.block_hash(), time: last.time + 1, nonce: 0, ..last };
        regtest::mine(&mut next);
        headers.push(next);
    }
    headers.split_off(1)
}

fn framed(message: &Message) -> Vec<u8> {
    frame(message.kind().unwrap().name(), &message.encode())
}

fn attacks(chain: &[bitcoin::Block]) -> Vec<Attack> {
    use Outcome::{Closed, Open};
    let tip = chain.last().unwrap().header;
    let ping = Message::Ping(0xbad).encode();
    let sum = [0; 4];
    let attack = |name, expected, bytes| Attack { name, bytes, answer: Kind::Pong, expected };
    let asking = |name, answer, expected, bytes| Attack { name, bytes, answer, expected };
    let mut wrong_magic = frame("ping", &ping);
    wrong_magic[0] ^= 1;
    let mut odd_name = frame("ping", &ping);
    odd_name[4 + 6] = b'x';
    let mut fork = headers_on(&tip, 3);
    fork.remove(1);
    let mut unproven = headers_on(&tip, 1);
    while bitcoin::Target::from_compact(unproven[0].bits).is_met_by(unproven[0].block_hash()) {
        unproven[0].nonce += 1;
    }
    let stranger = Header { prev_blockhash: BlockHash::from_byte_array([7; 32]), ..tip };
    // Headers that connect answer the question that was asked after the handshake: then there is a new one.
    let strange = [vec![tip], headers_on(&stranger, 1)].map(|headers| framed(&Message::Headers(headers))).concat();
    let locate = |count| Locate { locator: vec![tip.block_hash(); count], stop: BlockHash::all_zeros() };
    let mut mutated = chain.last().unwrap().clone();
    mutated.header = headers_on(&tip, 1)[0];
    let inventory = [&[1, 0, 0, 0][..], &[9; 32]].concat();
    let compact_filters = [&[0][..], &0_u32.to_le_bytes(), &tip.block_hash().to_byte_array()[..]].concat();
    let many = |one: &[u8], count| one.repeat(count);
    vec![
        attack("another magic", Closed, wrong_magic),
        attack("a claim of 4,000,001 bytes", Closed, frame_claiming("ping", MAX_PROTOCOL_MESSAGE_LENGTH + 1, sum, &[])),
        attack("a claim of 4 GB", Closed, frame_claiming("ping", u32::MAX, sum, &[])),
        attack("a wrong checksum", Open(0), frame_claiming("ping", 8, sum, &ping)),
        attack("a name with a letter after its end", Open(0), odd_name),
        attack("an unknown type", Open(0), frame("whatever", &[1; 1000])),
        attack("a ping without a nonce", Open(0), frame("ping", &[])),
        attack("a ping with more than a nonce", Open(1), frame("ping", &[1; 100])),
        attack("a second version", Open(0), framed(&version())),
        attack("a second verack", Open(0), frame("verack", &[])),
        attack("wtxidrelay after verack", Closed, frame("wtxidrelay", &[])),
        attack("sendaddrv2 after verack", Closed, frame("sendaddrv2", &[])),
        attack("sendtxrcncl after verack", Open(0), frame("sendtxrcncl", &[1; 12])),
        attack("feature after verack", Closed, framed(&Message::Feature { id: b"some".to_vec(), data: vec![] })),
        attack("50,000 invs", Open(0), frame("inv", &list(50_000, &inventory))),
        attack("50,001 invs", Closed, frame("inv", &list(50_001, &inventory))),
        attack("50,001 getdatas", Closed, frame("getdata", &list(50_001, &inventory))),
        attack("5,017 notfounds", Open(0), frame("notfound", &list(5_017, &inventory))),
        attack("2,001 headers", Closed, frame("headers", &list(2_001, &[0; 81]))),
        attack("headers with a gap", Closed, framed(&Message::Headers(fork))),
        attack("a header without work", Closed, framed(&Message::Headers(unproven))),
        asking("a header without parent", Kind::GetHeaders, Open(1), strange),
        attack("fewer headers than counted", Open(0), frame("headers", &[5, 1, 2, 3])),
        attack("1,001 addresses", Closed, frame("addr", &list(1_001, &[0; 30]))),
        attack(
            "1,001 addresses of any network",
            Closed,
            frame("addrv2", &list(1_001, &[0, 0, 0, 0, 0, 1, 4, 8, 8, 8, 8, 0, 1])),
        ),
        asking("a locator of 101", Kind::Headers, Open(1), framed(&Message::GetHeaders(locate(101)))),
        attack("a locator of 102", Closed, framed(&Message::GetHeaders(locate(102)))),
        attack("a locator of 102 in getblocks", Closed, framed(&Message::GetBlocks(locate(102)))),
        attack("sendcmpct that says 2", Closed, framed(&Message::SendCmpct { announce: 2, version: 2 })),
        attack("sendcmpct of version 9", Open(0), framed(&Message::SendCmpct { announce: 1, version: 9 })),
        attack("a feefilter below zero", Open(0), framed(&Message::FeeFilter(-1))),
        attack("mempool, which is off", Closed, frame("mempool", &[])),
        attack("filterload, which is off", Closed, frame("filterload", &[1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0])),
        attack("filteradd, which is off", Closed, frame("filteradd", &[1, 1])),
        attack("filterclear, which is off", Closed, frame("filterclear", &[])),
        attack("getcfilters, which is off", Closed, frame("getcfilters", &compact_filters)),
        attack("getcfheaders, which is off", Closed, frame("getcfheaders", &compact_filters)),
        attack("getcfcheckpt, which is off", Closed, frame("getcfcheckpt", &[&[0][..], &[1; 32]].concat())),
        asking("getdata of an unknown transaction", Kind::NotFound, Open(1), frame("getdata", &list(1, &inventory))),
        attack("getblocktxn of an unknown block", Open(0), frame("getblocktxn", &[&[1; 32][..], &[1, 0]].concat())),
        attack("blocktxn that nobody asked for", Open(0), frame("blocktxn", &[&[1; 32][..], &[0]].concat())),
        attack("a block with another root", Closed, frame("block", &serialize(&mutated))),
        attack("half a transaction", Open(0), frame("tx", &serialize(&mutated.txdata[0])[..40])),
        attack("10,000 empty messages", Open(0), many(&frame("x", &[]), 10_000)),
        attack("1,000 veracks", Open(0), many(&frame("verack", &[]), 1_000)),
        attack("1,000 pings at once", Open(1_000), many(&frame("ping", &ping), 1_000)),
        asking("getaddr ten times", Kind::Addr, Open(0), many(&frame("getaddr", &[]), 10)),
    ]
}

/// Payloads of one byte, for every kind.
fn truncated() -> Vec<(Kind, Vec<u8>)> {
    Kind::all().map(|kind| (kind, frame(kind.name(), &[0xff]))).collect()
}

/// Sends the bytes on a link whose handshake is done.
fn outcome(addr: SocketAddr, bytes: &[u8], answer: Kind) -> Outcome {
    let mut peer = Peer::ready(addr).unwrap();
    // What comes unasked after a handshake comes before this.
    peer.fence().unwrap();
    let count = |messages: Vec<Message>| messages.iter().filter(|message| message.kind() == Some(answer)).count();
    // A link that is closed while it is written to is closed as well.
    match peer.send_bytes(bytes).and_then(|()| peer.fence()) {
        Ok(messages) => Outcome::Open(count(messages)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => panic!("no pong after {PATIENCE:?}; {}", repeat()),
        Err(_) => Outcome::Closed,
    }
}

#[test]
fn bad_messages_close_the_link_or_are_dropped_as_bitcoind_does() {
    let chain = chain();
    let folder = tempfile::tempdir().unwrap();
    let node = groatd(&chain, &folder, &[]);
    let other = bitcoind(&chain, "-v2transport=1");
    let mut honest = Peer::ready(node.peers).unwrap();
    let before = node.memory();
    let mut wrong = Vec::new();
    for Attack { name, bytes, answer, expected } in attacks(&chain) {
        let ours = outcome(node.peers, &bytes, answer);
        if ours != expected {
            wrong.push(format!("{name}: expected {expected:?}, groatd: {ours:?}"));
        }
        if let Some((addr, _)) = &other {
            let theirs = outcome(*addr, &bytes, answer);
            if ours != theirs {
                wrong.push(format!("{name}: groatd: {ours:?}, bitcoind: {theirs:?}"));
            }
        }
        serves(&node, &mut honest, name);
    }
    for (kind, bytes) in truncated() {
        let ours = outcome(node.peers, &bytes, kind);
        assert!(
            kind == Kind::Ping || !matches!(ours, Outcome::Open(1..)),
            "{kind:?} of one byte is answered: {ours:?}"
        );
        if let Some((addr, _)) = &other {
            let theirs = outcome(*addr, &bytes, kind);
            if ours != theirs {
                wrong.push(format!("{kind:?} of one byte: groatd: {ours:?}, bitcoind: {theirs:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), repeat());
    // Not as bitcoind, which would wait for the rest until the block's time is up.
    let unknown = headers_on(&chain.last().unwrap().header, 1)[0];
    let half = frame("block", &[&serialize(&unknown)[..], &[1; 20]].concat());
    assert_eq!(outcome(node.peers, &half, Kind::Pong), Outcome::Closed, "half a block; {}", repeat());
    let more = node.memory().saturating_sub(before);
    assert!(more < MEMORY, "groatd holds {more} KiB more; {}", repeat());
    node.stop();
}

/// Sends bytes on a fresh link; whether it is closed, or an honest handshake goes through after them.
fn is_closed_by(addr: SocketAddr, bytes: &[u8], expected: bool) -> bool {
    let mut peer = Peer::dial(addr).unwrap();
    let begin = peer.send_bytes(bytes);
    if expected { begin.is_err() || peer.is_closed(PATIENCE) } else { begin.and_then(|()| peer.shake_hands()).is_err() }
}

/// What comes before the handshake is done. The first bytes of a link also tell which transport it speaks, where there are
/// two.
#[test]
fn bad_beginnings_close_the_link_or_are_dropped_as_bitcoind_does() {
    let chain = chain();
    let Message::Version(mut old) = version() else { panic!("a version") };
    old.version = 31_799;
    let mut elsewhere = framed(&version());
    elsewhere[..4].copy_from_slice(&[0xf9, 0xbe, 0xb4, 0xd9]);
    // Each with whether the link is closed: by a node that speaks version 1 only, and by one that speaks both.
    let beginnings = vec![
        ("a ping before the version", frame("ping", &[1; 8]), [Some(false), None]),
        ("a verack before the version", frame("verack", &[]), [Some(false), None]),
        ("half a version", frame("version", &version().encode()[..45]), [Some(false), Some(false)]),
        ("a version of protocol 31799", framed(&Message::Version(old)), [Some(true), Some(true)]),
        ("a version of another network", elsewhere, [Some(true), Some(true)]),
        ("noise without an end", vec![0x55; 64 + 4_095 + 16 + 1], [Some(true), Some(true)]),
        ("a web browser", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200), [Some(true), Some(true)]),
    ];
    for v2 in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let option = format!("--v2transport={}", u8::from(v2));
        let node = groatd(&chain, &folder, &[&option]);
        let other = bitcoind(&chain, &option[1..]);
        for (name, bytes, closed_by) in &beginnings {
            let Some(expected) = closed_by[usize::from(v2)] else { continue };
            for (who, addr) in [("groatd", Some(node.peers)), ("bitcoind", other.as_ref().map(|other| other.0))] {
                let Some(addr) = addr else { continue };
                let closed = is_closed_by(addr, bytes, expected);
                assert_eq!(closed, expected, "{name}: whether {who} with {option} closes the link; {}", repeat());
            }
        }
        node.stop();
    }
}

#[test]
fn a_link_over_version_2_ends_with_what_is_not_authentic() {
    let chain = chain();
    let folder = tempfile::tempdir().unwrap();
    let node = groatd(&chain, &folder, &[]);
    let other = bitcoind(&chain, "-v2transport=1");
    for addr in [Some(node.peers), other.as_ref().map(|other| other.0)].into_iter().flatten() {
        let mut peer = Peer::dial_v2(addr).unwrap();
        peer.shake_hands().unwrap();
        peer.fence().unwrap();
        // Whatever length the first three bytes come to mean, there are more.
        let end = peer.send_bytes(&vec![0; 4_100_000]);
        assert!(end.is_err() || peer.is_closed(PATIENCE), "the node at {addr} reads on; {}", repeat());
    }
    node.stop();
}

#[test]
fn who_claims_much_and_sends_little_costs_little() {
    let chain = chain();
    let folder = tempfile::tempdir().unwrap();
    let node = groatd(&chain, &folder, &[]);
    let mut honest = Peer::ready(node.peers).unwrap();
    let before = node.memory();
    let claim = frame_claiming("block", MAX_PROTOCOL_MESSAGE_LENGTH, [0; 4], &[0; 100]);
    let mut links: Vec<Peer> = (0..50).map(|_| Peer::ready(node.peers).unwrap()).collect();
    for link in &mut links {
        link.send_bytes(&claim).unwrap();
    }
    serves(&node, &mut honest, "claims of much");
    let more = node.memory().saturating_sub(before);
    assert!(more < MEMORY / 4, "50 links that claim 4 MB each cost {more} KiB; {}", repeat());
    node.stop();
}

#[test]
fn who_asks_for_much_and_reads_nothing_costs_little() {
    let mut chain = chain();
    let (tip, height) = (chain.last().unwrap().block_hash(), chain.len() as u32);
    let mut large = regtest::bulky(tip, height);
    large.header.time = chain.last().unwrap().header.time + 1;
    regtest::root_and_mine(&mut large);
    chain.push(large);
    let folder = tempfile::tempdir().unwrap();
    let node = groatd(&chain, &folder, &[]);
    let mut honest = Peer::ready(node.peers).unwrap();
    let before = node.memory();
    let wanted = vec![Inventory::WitnessBlock(chain.last().unwrap().block_hash()); 1_000];
    let mut links: Vec<Peer> = (0..4).map(|_| Peer::ready(node.peers).unwrap()).collect();
    // 4 GB of blocks are asked for, over and over.
    for _ in 0..5 {
        for link in &mut links {
            link.send(&Message::GetData(wanted.clone())).unwrap();
        }
        serves(&node, &mut honest, "links that ask and do not read");
        std::thread::sleep(Duration::from_millis(200));
    }
    let more = node.memory().saturating_sub(before);
    assert!(more < MEMORY, "four links that do not read cost {more} KiB; {}", repeat());
    node.stop();
}

#[test]
fn floods_of_announcements_cost_little() {
    let chain = chain();
    let folder = tempfile::tempdir().unwrap();
    let node = groatd(&chain, &folder, &[]);
    let mut honest = Peer::ready(node.peers).unwrap();
    let before = node.memory();
    let mut flood = Peer::ready(node.peers).unwrap();
    for _ in 0..40 {
        let items: Vec<Inventory> =
            (0..50_000).map(|_| Inventory::Block(BlockHash::from_byte_array(rand::random()))).collect();
        // It may be closed; it may not cost.
        if flood.send(&Message::Inv(items)).is_err() {
            break;
        }
        serves(&node, &mut honest, "a flood of announcements");
    }
    let more = node.memory().saturating_sub(before);
    assert!(more < MEMORY, "two million announcements cost {more} KiB; {}", repeat());
    node.stop();
}

#[test]
fn a_message_in_drops_is_taken_once_it_is_whole() {
    let chain = chain();
    let folder = tempfile::tempdir().unwrap();
    let node = groatd(&chain, &folder, &[]);
    let mut peer = Peer::ready(node.peers).unwrap();
    peer.fence().unwrap();
    for byte in framed(&Message::Ping(77)) {
        peer.send_bytes(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    peer.wait_for(|message| *message == Message::Pong(77)).unwrap();
    node.stop();
}

/// Takes more than a minute: the time that a handshake may take.
#[test]
fn a_handshake_that_does_not_end_is_cut_off_and_keeps_nobody_out() {
    if !wide() {
        eprintln!("SKIPPED: the minute that a handshake may take (GROAT_WIDE=1)");
        return;
    }
    const LIMIT: Duration = Duration::from_secs(75);
    let chain = chain();
    let folder = tempfile::tempdir().unwrap();
    let node = groatd(&chain, &folder, &[]);
    let begun = Instant::now();
    let mut silent: Vec<Peer> = (0..60).map(|_| Peer::dial(node.peers).unwrap()).collect();
    let mut half = Peer::dial(node.peers).unwrap();
    half.send(&version()).unwrap();
    let mut drip = Peer::dial(node.peers).unwrap();
    let bytes = framed(&version());
    let mut next = 0;
    let mut honest = Peer::ready(node.peers).unwrap();
    while begun.elapsed() < Duration::from_secs(55) {
        // A byte a second: it would take more than two minutes.
        let _ = drip.send_bytes(&bytes[next..=next]);
        next += 1;
        serves(&node, &mut honest, "handshakes that do not end");
        std::thread::sleep(Duration::from_secs(1));
    }
    for (name, peer) in [("half a handshake", &mut half), ("a version in drops", &mut drip)] {
        let left = LIMIT.saturating_sub(begun.elapsed());
        assert!(peer.is_closed(left), "{name} is not cut off within {LIMIT:?}; {}", repeat());
    }
    let open = silent.iter_mut().filter_map(|peer| (!peer.is_closed(Duration::from_secs(1))).then_some(())).count();
    assert_eq!(open, 0, "silent links are still open after {:?}; {}", begun.elapsed(), repeat());
    serves(&node, &mut honest, "handshakes that have ended");
    node.stop();
}
