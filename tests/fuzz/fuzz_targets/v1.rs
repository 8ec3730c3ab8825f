//! Version 1 of the transport: how a stream is cut into reads changes nothing, what is well framed comes out, and memory
//! follows what has arrived.
#![no_main]

use groat_fuzz::{Cursor, MAGIC, frame};
use groat_net::wire::{Received, WireError, v1::Decoder};
use libfuzzer_sys::fuzz_target;

/// Most bytes that the decoder may hold ahead of what has arrived.
const MAX_AHEAD: usize = 256 * 1024;

fn decode(stream: &[u8], cut: usize) -> (Vec<Received>, Result<(), WireError>) {
    let (mut decoder, mut received, mut fed) = (Decoder::new(MAGIC), Vec::new(), 0);
    for piece in stream.chunks(cut) {
        if let Err(error) = decoder.receive(piece, &mut received) {
            return (received, Err(error));
        }
        fed += piece.len();
        assert!(decoder.memory() <= fed + MAX_AHEAD, "{} bytes held after {fed} came", decoder.memory());
    }
    (received, Ok(()))
}

fuzz_target!(|bytes: &[u8]| {
    let mut cursor = Cursor(bytes);
    let cut = usize::from(cursor.byte()) + 1;
    let (mut stream, mut framed, mut honest) = (Vec::new(), 0, true);
    while !cursor.is_empty() {
        if cursor.byte() % 4 == 0 {
            honest = false;
            stream.extend_from_slice(cursor.some_bytes());
        } else {
            let kind = cursor.kind();
            stream.extend(frame(kind.name(), cursor.some_bytes()));
            framed += usize::from(honest);
        }
    }
    let whole = decode(&stream, stream.len().max(1));
    assert!(whole.0.len() >= framed, "{framed} messages were framed, {} came out", whole.0.len());
    assert_eq!(decode(&stream, cut), whole, "a stream cut into pieces of {cut} (left) and whole (right)");
});
