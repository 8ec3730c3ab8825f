//! Round trips over any cut of the stream, garbage, caps, detection of the other side's transport.

use super::*;
use crate::message::MAX_PROTOCOL_MESSAGE_LENGTH;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

fn entropy(seed: u64) -> Entropy {
    Entropy::draw(&mut ChaCha8Rng::seed_from_u64(seed))
}

fn samples() -> Vec<Message> {
    vec![
        Message::Verack,
        Message::Ping(7),
        Message::WtxidRelay,
        Message::Feature { id: b"some-feature".to_vec(), data: vec![1, 2, 3] },
        Message::SendTxRcncl { version: 1, salt: 99 },
        Message::Unknown { name: "whatever".into(), payload: vec![9; 300] },
        Message::Block(Arc::new(vec![5; 300_000])),
        Message::Pong(u64::MAX),
    ]
}

fn send_all(codec: &mut Codec, messages: &[Message]) -> Vec<u8> {
    for message in messages {
        codec.send(&Encoded::new(message));
    }
    codec.take_outgoing()
}

/// Lets both ends talk until nothing is left to say; bytes travel in pieces of `piece`.
fn talk(a: &mut Codec, b: &mut Codec, piece: usize) -> (Vec<Message>, Vec<Message>) {
    let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
    loop {
        let (to_b, to_a) = (a.take_outgoing(), b.take_outgoing());
        if to_b.is_empty() && to_a.is_empty() {
            let messages = |got: Vec<Received>| got.into_iter().map(|one| one.message).collect();
            return (messages(at_a), messages(at_b));
        }
        to_b.chunks(piece).for_each(|bytes| b.receive(bytes, &mut at_b).expect("honest bytes"));
        to_a.chunks(piece).for_each(|bytes| a.receive(bytes, &mut at_a).expect("honest bytes"));
    }
}

#[test]
fn both_transports_carry_messages_whatever_the_cut() {
    for piece in [1, 2, 7, 64, 1000, 1 << 20] {
        for v2 in [false, true] {
            let mut a = if v2 { Codec::v2(MAGIC, entropy(1)) } else { Codec::v1(MAGIC) };
            let mut b = Codec::incoming(MAGIC, entropy(2));
            // Version 1 begins with a version message, else the responder cannot tell.
            let hello = crate::message::tests::version();
            a.send(&Encoded::new(&hello));
            let (_, at_b) = talk(&mut a, &mut b, piece);
            assert_eq!(at_b, [hello], "piece {piece}, v2 {v2}");
            assert_eq!(matches!(b.transport(), Transport::V2 { session: Some(_) }), v2);
            assert_eq!(a.transport(), b.transport());
            for message in samples() {
                a.send(&Encoded::new(&message));
                b.send(&Encoded::new(&message));
            }
            let (at_a, at_b) = talk(&mut a, &mut b, piece);
            assert_eq!(at_a, samples(), "piece {piece}, v2 {v2}");
            assert_eq!(at_b, samples(), "piece {piece}, v2 {v2}");
        }
    }
}

#[test]
fn decoys_are_skipped_in_and_after_the_handshake() {
    for piece in [1, 1 << 20] {
        let noisy = |seed| Entropy { decoys: vec![vec![7; 30], Vec::new(), vec![1; 500]], ..entropy(seed) };
        let mut a = Codec::v2(MAGIC, noisy(1));
        let mut b = Codec::incoming(MAGIC, noisy(2));
        a.send(&Encoded::new(&Message::Ping(1)));
        let (_, at_b) = talk(&mut a, &mut b, piece);
        assert_eq!(at_b, [Message::Ping(1)], "piece {piece}");
        let State::V2(link) = &mut a.state else { panic!("a speaks version 2") };
        link.send_packet(&[1; 100], bip324::PacketType::Decoy, &mut a.outgoing);
        a.send(&Encoded::new(&Message::Ping(2)));
        assert_eq!(talk(&mut a, &mut b, piece).1, [Message::Ping(2)], "piece {piece}");
    }
}

#[test]
fn a_flood_of_decoys_before_the_version_ends_the_link() {
    let mut a = Codec::v2(MAGIC, Entropy { decoys: vec![Vec::new(); 100], ..entropy(1) });
    let mut b = Codec::incoming(MAGIC, entropy(2));
    b.receive(&a.take_outgoing(), &mut Vec::new()).expect("a key");
    a.receive(&b.take_outgoing(), &mut Vec::new()).expect("a key");
    let ended = a.take_outgoing().chunks(1).try_for_each(|byte| b.receive(byte, &mut Vec::new()));
    assert_eq!(ended, Err(WireError::Handshake("too many decoys")));
}

#[test]
fn a_v2_dialler_sees_that_the_other_side_speaks_v1() {
    let mut a = Codec::v2(MAGIC, entropy(1));
    let frame = send_all(&mut Codec::v1(MAGIC), &[Message::Verack]);
    assert_eq!(a.receive(&frame, &mut Vec::new()), Err(WireError::SpeaksV1));
}

#[test]
fn a_v1_version_of_another_network_ends_the_link() {
    let frame = send_all(&mut Codec::v1([1, 2, 3, 4]), &[crate::message::tests::version()]);
    let mut b = Codec::incoming(MAGIC, entropy(2));
    assert_eq!(b.receive(&frame, &mut Vec::new()), Err(WireError::WrongMagic));
    assert_eq!(Codec::v1(MAGIC).receive(&frame, &mut Vec::new()), Err(WireError::WrongMagic));
}

#[test]
fn noise_without_an_end_closes_the_link_after_its_cap() {
    let mut b = Codec::incoming(MAGIC, entropy(2));
    let mut taken = 0;
    let ended = loop {
        match b.receive(&[0x55; 100], &mut Vec::new()) {
            Ok(()) => taken += 100,
            Err(error) => break error,
        }
        assert!(taken < 10_000, "no end after {taken} bytes");
    };
    assert_eq!(ended, WireError::Handshake("noise without an end"));
    assert!(taken >= 64 + MAX_GARBAGE_FIT, "only {taken} bytes were taken");
}

const MAX_GARBAGE_FIT: usize = v2::MAX_GARBAGE_LEN + 16 - 100;

#[test]
fn a_changed_packet_ends_the_link() {
    let (mut a, mut b) = (Codec::v2(MAGIC, entropy(1)), Codec::incoming(MAGIC, entropy(2)));
    talk(&mut a, &mut b, 1000);
    let mut bytes = send_all(&mut a, &[Message::Ping(1)]);
    *bytes.last_mut().expect("a packet") ^= 1;
    assert_eq!(b.receive(&bytes, &mut Vec::new()), Err(WireError::NotAuthentic));
}

#[test]
fn a_wrong_checksum_or_name_drops_the_message_and_keeps_the_link() {
    let mut bytes = send_all(&mut Codec::v1(MAGIC), &[Message::Ping(1), Message::Ping(2), Message::Ping(3)]);
    bytes[20] ^= 1;
    bytes[32 + 4 + 6] = b'x';
    let mut out = Vec::new();
    Codec::v1(MAGIC).receive(&bytes, &mut out).expect("the link goes on");
    let got: Vec<Message> = out.into_iter().map(|one| one.message).collect();
    let checksum = Message::Broken { kind: Some(Kind::Ping), fault: Fault::Checksum };
    assert_eq!(got, [checksum, broken(Fault::Name), Message::Ping(3)]);
}

#[test]
fn a_claimed_length_takes_no_memory() {
    let header = |length: u32| {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&padded_name("block"));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    };
    let max = MAX_PROTOCOL_MESSAGE_LENGTH as u32;
    let mut decoder = v1::Decoder::new(MAGIC);
    assert_eq!(decoder.receive(&header(max + 1), &mut Vec::new()), Err(WireError::TooLong(max as usize + 1)));
    let mut decoder = v1::Decoder::new(MAGIC);
    decoder.receive(&header(max), &mut Vec::new()).expect("the longest there is");
    let mut arrived = 0;
    for _ in 0..100 {
        decoder.receive(&[0; 10_000], &mut Vec::new()).expect("part of the payload");
        arrived += 10_000;
        assert!(decoder.memory() <= arrived + MAX_AHEAD, "{} held for {arrived}", decoder.memory());
    }
}

#[test]
fn a_stranger_sends_no_long_message_before_its_verack() {
    let long = Message::Block(Arc::new(vec![1; MAX_EARLY_MESSAGE + 1]));
    for v2 in [false, true] {
        for verack in [false, true] {
            let mut a = if v2 { Codec::v2(MAGIC, entropy(1)) } else { Codec::v1(MAGIC) };
            let mut b = Codec::incoming(MAGIC, entropy(2));
            a.send(&Encoded::new(&crate::message::tests::version()));
            talk(&mut a, &mut b, 1000);
            if verack {
                a.send(&Encoded::new(&Message::Verack));
            }
            let bytes = send_all(&mut a, std::slice::from_ref(&long));
            let mut got = Vec::new();
            let outcome = b.receive(&bytes, &mut got);
            assert_eq!(outcome.is_ok(), verack, "v2 {v2}, verack {verack}: {outcome:?}");
            assert_eq!(got.last().map(|one| one.message == long), verack.then_some(true), "v2 {v2}, verack {verack}");
        }
    }
}

#[test]
fn the_length_on_the_wire_is_known_beforehand() {
    for v2 in [false, true] {
        let mut a = if v2 { Codec::v2(MAGIC, entropy(1)) } else { Codec::v1(MAGIC) };
        let mut b = Codec::incoming(MAGIC, entropy(2));
        a.send(&Encoded::new(&crate::message::tests::version()));
        talk(&mut a, &mut b, 1000);
        for message in samples() {
            let encoded = Encoded::new(&message);
            a.send(&encoded);
            let bytes = a.take_outgoing();
            assert_eq!(encoded.wire_len(a.transport()), bytes.len(), "{:?}, v2 {v2}", encoded.kind());
            let mut got = Vec::new();
            b.receive(&bytes, &mut got).expect("honest bytes");
            assert_eq!(got[0].wire_len, bytes.len(), "{:?}, v2 {v2}", encoded.kind());
        }
    }
}

#[test]
fn a_link_in_version_2_holds_no_memory_at_rest() {
    let (mut a, mut b) = (Codec::v2(MAGIC, entropy(1)), Codec::incoming(MAGIC, entropy(2)));
    talk(&mut a, &mut b, 1000);
    a.send(&Encoded::new(&Message::Verack));
    a.send(&Encoded::new(&Message::Block(Arc::new(vec![1; 1_000_000]))));
    talk(&mut a, &mut b, 5000);
    let State::V2(link) = &b.state else { panic!("b speaks version 2") };
    assert!(link.memory() <= KEPT_BUFFER, "{} bytes held", link.memory());
}

#[test]
fn session_ids_are_those_of_the_bip() {
    let path = "vectors-bips/bip-0324/packet_encoding_test_vectors.csv";
    let Some(bytes) = crate::message::tests::vector(path) else { return };
    let text = String::from_utf8(bytes).expect("text");
    use bip324::SessionKeyMaterial;
    use secp256k1::ellswift::{ElligatorSwift, ElligatorSwiftParty};
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().expect("a heading");
    let column = |name| names.iter().position(|other| *other == name).expect("a known column");
    for line in lines {
        let key = |name| line[column(name)].parse::<ElligatorSwift>().expect("a key");
        let (ours, theirs) = (key("in_ellswift_ours"), key("in_ellswift_theirs"));
        let initiating = line[column("in_initiating")] == "1";
        let (a, b, party) = match initiating {
            true => (ours, theirs, ElligatorSwiftParty::A),
            false => (theirs, ours, ElligatorSwiftParty::B),
        };
        let secret = line[column("in_priv_ours")].parse().expect("a secret");
        let material = SessionKeyMaterial::from_ecdh(a, b, secret, party, [0xf9, 0xbe, 0xb4, 0xd9]).expect("keys");
        let got: String = material.session_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(got, line[column("out_session_id")], "vector {}", line[0]);
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..6000), piece in 1usize..500, start in 0usize..3) {
        let mut prefix = match start {
            0 => Vec::new(),
            1 => MAGIC.to_vec(),
            _ => v2::v1_prefix(MAGIC).to_vec(),
        };
        prefix.extend_from_slice(&bytes);
        for mut codec in [Codec::v1(MAGIC), Codec::v2(MAGIC, entropy(3)), Codec::incoming(MAGIC, entropy(4))] {
            let mut out = Vec::new();
            for part in prefix.chunks(piece) {
                if codec.receive(part, &mut out).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn the_cut_makes_no_difference(cuts in proptest::collection::vec(1usize..400, 1..60)) {
        let bytes = send_all(&mut Codec::v1(MAGIC), &samples());
        let mut decoder = v1::Decoder::new(MAGIC);
        let (mut out, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            decoder.receive(head, &mut out).expect("honest bytes");
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        let got: Vec<Message> = out.into_iter().map(|one| one.message).collect();
        prop_assert_eq!(got, samples());
    }
}
