//! The frame search over a stream of any bytes: every frame is where it says, and how the stream is cut into reads
//! changes nothing.
#![no_main]

use groat_chain::store::import::Frames;
use libfuzzer_sys::fuzz_target;
use std::io::Read;

/// The magic of regtest.
const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// A pipe that gives a few bytes at a time.
struct Drops<'a>(&'a [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let few = buffer.len().min(7);
        self.0.read(&mut buffer[..few])
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut whole = Frames::stream(bytes, MAGIC);
    let mut found = Vec::new();
    while let Some(frame) = whole.next_frame().expect("memory does not fail") {
        let start = usize::try_from(frame.offset).expect("within the input");
        let block = &bytes[start..start + frame.length as usize];
        let head = [&MAGIC[..], &frame.length.to_le_bytes()].concat();
        assert_eq!(bytes[start - 8..start], head, "the head of the frame at {start}");
        assert_eq!(block[..80], bitcoin::consensus::serialize(&frame.header), "the header of the frame at {start}");
        assert!(found.last().is_none_or(|last: &&[u8]| last.as_ptr() < block.as_ptr()), "frames come in order");
        found.push(block);
    }
    assert!(whole.skipped() <= bytes.len() as u64, "skipped {} of {} bytes", whole.skipped(), bytes.len());

    let mut dropped = Frames::stream(Drops(bytes), MAGIC);
    for block in found {
        let again = dropped.next_block().expect("memory does not fail");
        assert_eq!(again.as_deref(), Some(block), "the same block, read in drops");
    }
    assert_eq!(dropped.next_block().expect("memory does not fail"), None, "one block more, read in drops");
    assert_eq!(dropped.skipped(), whole.skipped(), "bytes skipped, read in drops");
});
