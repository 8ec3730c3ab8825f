//! Version 2 of the transport, either role: bytes of any kind never panic, and after an honest handshake what comes out is
//! a beginning of what was sent, whatever was done to the bytes on the way.
#![no_main]

use groat_fuzz::{Cursor, MAGIC};
use groat_net::message::Message;
use groat_net::wire::{Codec, Encoded, Entropy, Received};
use libfuzzer_sys::fuzz_target;

/// Fixed keys, so that a finding is repeated by its bytes alone.
fn entropy(secret: u8, garbage: usize) -> Entropy {
    Entropy {
        secret: [secret; 32],
        garbage: vec![secret; garbage],
        decoys: vec![vec![secret; garbage % 50]; garbage % 3],
    }
}

fn messages(received: Vec<Received>) -> Vec<Message> {
    received.into_iter().map(|received| received.message).collect()
}

/// What was sent as it arrives: a payload that decodes to nothing arrives as broken.
fn said(message: &Message) -> Message {
    match message.kind() {
        Some(kind) => Message::decode(kind, message.encode()),
        None => message.clone(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut cursor = Cursor(bytes);
    let (mode, cut) = (cursor.byte(), usize::from(cursor.byte()) + 1);
    let (mut dialler, mut answerer) =
        (Codec::v2(MAGIC, entropy(1, 40)), Codec::incoming(MAGIC, entropy(2, usize::from(mode))));
    let from_dialler = mode & 1 == 0;
    if mode & 2 == 0 {
        // A stranger's bytes.
        let stranger = cursor.0;
        let codec = if from_dialler { &mut answerer } else { &mut dialler };
        let _ = stranger.chunks(cut).try_for_each(|piece| codec.receive(piece, &mut Vec::new()));
        return;
    }
    // An honest handshake, then messages, then damage at a few places of all that one side sent.
    let sent: Vec<Message> = (0..cursor.byte() % 8)
        .map(|_| Message::Unknown { name: "fuzz".into(), payload: cursor.some_bytes().to_vec() })
        .collect();
    let mut nothing = Vec::new();
    let hello = dialler.take_outgoing();
    answerer.receive(&hello, &mut nothing).expect("an honest key");
    let answer = answerer.take_outgoing();
    dialler.receive(&answer, &mut nothing).expect("an honest answer");
    let version = dialler.take_outgoing();
    let mut stream = if from_dialler {
        sent.iter().for_each(|message| dialler.send(&Encoded::new(message)));
        [hello, version, dialler.take_outgoing()].concat()
    } else {
        answerer.receive(&version, &mut nothing).expect("an honest version");
        sent.iter().for_each(|message| answerer.send(&Encoded::new(message)));
        [answer, answerer.take_outgoing()].concat()
    };
    let mut damaged = false;
    while !cursor.is_empty() && !stream.is_empty() {
        let place = cursor.number() % stream.len();
        let bits = cursor.byte();
        stream[place] ^= bits;
        damaged |= bits != 0;
    }
    let mut fresh = if from_dialler {
        Codec::incoming(MAGIC, entropy(2, usize::from(mode)))
    } else {
        Codec::v2(MAGIC, entropy(1, 40))
    };
    let mut received = Vec::new();
    let outcome = stream.chunks(cut).try_for_each(|piece| fresh.receive(piece, &mut received));
    let (received, expected): (Vec<_>, Vec<_>) = (messages(received), sent.iter().map(said).collect());
    if damaged {
        assert!(expected.starts_with(&received), "received {received:?} after damage; sent {expected:?}");
    } else {
        assert_eq!(outcome, Ok(()), "an honest stream cut into pieces of {cut}");
        assert_eq!(received, expected, "an honest stream cut into pieces of {cut}");
    }
});
