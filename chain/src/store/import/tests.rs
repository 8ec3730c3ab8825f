//! Frames are found in whole, damaged, padded and hidden files, the same way from a file and from a pipe.

use super::*;
use proptest::prelude::*;

const MAGIC: [u8; 4] = [0xf9, 0xbe, 0xb4, 0xd9];

fn block(number: u8, length: usize) -> Vec<u8> {
    vec![number; length]
}

fn framed(block: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &(block.len() as u32).to_le_bytes(), block].concat()
}

/// What is found in `bytes`, by file and by pipe.
fn found(bytes: &[u8]) -> (Vec<Vec<u8>>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blk00000.dat");
    std::fs::write(&path, bytes).unwrap();
    let file = BlockFile::open(&path).unwrap();
    let mut frames = file.frames(MAGIC);
    let mut blocks = Vec::new();
    while let Some(frame) = frames.next_frame().unwrap() {
        blocks.push(file.read(&frame).unwrap());
        assert_eq!(bitcoin::consensus::serialize(&frame.header), blocks.last().unwrap()[..80]);
    }
    let mut stream = Frames::stream(bytes, MAGIC);
    for block in &blocks {
        assert_eq!(stream.next_block().unwrap().as_ref(), Some(block), "file and pipe agree");
    }
    assert_eq!(stream.next_block().unwrap(), None, "file and pipe agree");
    assert_eq!(stream.skipped(), frames.skipped(), "file and pipe agree");
    (blocks, frames.skipped())
}

#[test]
fn whole_frames_are_found_in_order() {
    let blocks = vec![block(1, 80), block(2, 100_000), block(3, 300)];
    let bytes: Vec<u8> = blocks.iter().flat_map(|block| framed(block)).collect();
    assert_eq!(found(&bytes), (blocks, 0));
    assert_eq!(found(&[]), (vec![], 0));
}

#[test]
fn garbage_between_frames_is_skipped_and_counted() {
    let (one, two) = (block(1, 200), block(2, 300));
    let garbage: Vec<u8> = (0..50_000_u32).map(|at| (at % 251) as u8 + 1).collect();
    let bytes = [garbage.clone(), framed(&one), garbage, framed(&two), vec![7; 3]].concat();
    assert_eq!(found(&bytes), (vec![one, two], 100_003));
}

#[test]
fn zero_padding_is_no_garbage() {
    let (one, two) = (block(1, 200), block(2, 300));
    let zeros = vec![0; 40_000];
    let bytes = [framed(&one), zeros.clone(), framed(&two), zeros.clone()].concat();
    assert_eq!(found(&bytes), (vec![one.clone(), two.clone()], 0));
    let bytes = [framed(&one), zeros.clone(), vec![5, 0, 0, 5], zeros.clone(), framed(&two), zeros].concat();
    assert_eq!(found(&bytes), (vec![one, two], 4));
}

#[test]
fn a_cut_tail_is_skipped() {
    let (one, two) = (block(1, 200), framed(&block(2, 300)));
    for cut in 1..two.len() {
        let bytes = [framed(&one), two[..cut].to_vec()].concat();
        let (blocks, skipped) = found(&bytes);
        assert_eq!(blocks, std::slice::from_ref(&one), "cut to {cut} bytes");
        // The zeros of the length field stand at the edge while nothing follows them.
        let zeros = two[..cut].iter().rev().take_while(|byte| **byte == 0).count();
        assert_eq!(skipped, (cut - zeros) as u64, "cut to {cut} bytes");
    }
}

#[test]
fn a_claim_of_more_than_a_block_is_garbage() {
    let two = block(2, 300);
    for claim in [MAX_BLOCK_SERIALIZED_SIZE as u32 + 1, u32::MAX, 79, 0] {
        let bytes = [&MAGIC[..], &claim.to_le_bytes(), &block(9, 200), &framed(&two)].concat();
        assert_eq!(found(&bytes).0, std::slice::from_ref(&two), "a claim of {claim} bytes");
    }
}

#[test]
fn a_damaged_length_hides_no_later_frame() {
    let (one, two, three) = (block(1, 2000), block(2, 300), block(3, 300));
    for claim in [100_u32, 1999, 2001, 2100, 2400] {
        let mut bytes = [framed(&one), framed(&two), framed(&three)].concat();
        bytes[4..8].copy_from_slice(&claim.to_le_bytes());
        let (blocks, _) = found(&bytes);
        assert!(blocks.ends_with(&[two.clone(), three.clone()]), "a length of {claim} instead of 2000");
    }
}

#[test]
fn the_key_beside_a_file_is_applied_by_offset() {
    let folder = tempfile::tempdir().unwrap();
    let key = [3, 1, 4, 1, 5, 9, 2, 6_u8];
    let blocks = [block(1, 203), block(2, 20_001)];
    let mut bytes: Vec<u8> = blocks.iter().flat_map(|block| framed(block)).collect();
    bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= key[at % 8]);
    let path = folder.path().join("blk00007.dat");
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(folder.path().join("xor.dat"), key).unwrap();
    let file = BlockFile::open(&path).unwrap();
    let mut frames = file.frames(MAGIC);
    for block in &blocks {
        let frame = frames.next_frame().unwrap().expect("a frame for each block");
        assert_eq!(&file.read(&frame).unwrap(), block);
    }
    assert_eq!(frames.next_frame().unwrap(), None);
    assert_eq!(file.first_magic().unwrap(), Some(MAGIC));
    std::fs::write(folder.path().join("xor.dat"), [1, 2]).unwrap();
    assert!(BlockFile::open(&path).is_err(), "a key of two bytes");
}

proptest! {
    #[test]
    fn any_bytes_are_searched_without_a_panic(
        parts in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            (any::<u8>(), 80..200_usize).prop_map(|(number, length)| framed(&block(number, length))),
            any::<[u8; 4]>().prop_map(|length| [MAGIC, length].concat()),
            (0..30_usize).prop_map(|length| vec![0; length]),
        ], 0..12),
    ) {
        let bytes = parts.concat();
        let (blocks, skipped) = found(&bytes);
        prop_assert!(skipped <= bytes.len() as u64);
        for block in blocks {
            prop_assert!(bytes.windows(block.len()).any(|window| window == block));
        }
    }
}
