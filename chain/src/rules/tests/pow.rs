//! Targets, retargets and work.

use super::*;
use crate::rules::pow::*;
use bitcoin::{Target, Work};
use proptest::prelude::*;

fn bits(bits: u32) -> CompactTarget {
    CompactTarget::from_consensus(bits)
}

fn target(hex: &str) -> Target {
    Target::from_hex(hex).expect("hex")
}

#[test]
fn compact_targets_unpack_and_pack_as_in_core() {
    // (compact, number, negative, overflow, packed again)
    let cases = [
        (0x0000_0000, "0x0", false, false, 0),
        (0x0012_3456, "0x0", false, false, 0),
        (0x0100_3456, "0x0", false, false, 0),
        (0x0200_0056, "0x0", false, false, 0),
        (0x0300_0000, "0x0", false, false, 0),
        (0x0092_3456, "0x0", false, false, 0),
        (0x0180_3456, "0x0", false, false, 0),
        (0x0380_0000, "0x0", false, false, 0),
        (0x0112_3456, "0x12", false, false, 0x0112_0000),
        (0x01fe_dcba, "0x7e", true, false, 0x017e_0000),
        (0x0212_3456, "0x1234", false, false, 0x0212_3400),
        (0x0312_3456, "0x123456", false, false, 0x0312_3456),
        (0x0412_3456, "0x12345600", false, false, 0x0412_3456),
        (0x0492_3456, "0x12345600", true, false, 0x0412_3456),
        (0x0500_9234, "0x92340000", false, false, 0x0500_9234),
        (0x2012_3456, "0x1234560000000000000000000000000000000000000000000000000000000000", false, false, 0x2012_3456),
        (0x2100_1234, "0x1234000000000000000000000000000000000000000000000000000000000000", false, false, 0x2012_3400),
        (0x2200_0012, "0x1200000000000000000000000000000000000000000000000000000000000000", false, false, 0x2012_0000),
        // The largest mantissas that 33 and 34 bytes leave room for.
        (0x2100_ffff, "0xffff000000000000000000000000000000000000000000000000000000000000", false, false, 0x2100_ffff),
        (0x2200_00ff, "0xff00000000000000000000000000000000000000000000000000000000000000", false, false, 0x2100_ff00),
        (0x2112_3456, "0x3456000000000000000000000000000000000000000000000000000000000000", false, true, 0x2034_5600),
        (0x2300_0001, "0x0", false, true, 0),
        (0xff12_3456, "0x0", false, true, 0),
        (0xff00_0000, "0x0", false, false, 0),
    ];
    for (compact, number, negative, overflow, packed) in cases {
        let unpacked = from_compact(bits(compact));
        assert_eq!(unpacked, Compact { target: target(number), negative, overflow }, "{compact:08x}");
        assert_eq!(to_compact(unpacked.target).to_consensus(), packed, "{compact:08x} packed again");
    }
    assert_eq!(to_compact(target("0x80")).to_consensus(), 0x0200_8000, "the sign bit stays clear");
}

proptest! {
    #[test]
    fn packing_rounds_down_and_is_stable(bytes: [u8; 32], zeros in 0usize..32) {
        let mut bytes = bytes;
        bytes[..zeros].fill(0);
        let number = Target::from_be_bytes(bytes);
        let packed = to_compact(number);
        let unpacked = from_compact(packed);
        prop_assert!(!unpacked.negative && !unpacked.overflow && unpacked.target <= number);
        prop_assert_eq!(to_compact(unpacked.target), packed);
        prop_assert_eq!(packed, number.to_compact_lossy(), "another implementation");
    }

    #[test]
    fn work_is_that_of_another_implementation(mantissa in 1u32..0x80_0000, size in 3u32..=32) {
        let compact = bits(size << 24 | mantissa);
        let unpacked = from_compact(compact);
        prop_assume!(!unpacked.overflow && unpacked.target > target("0x1"));
        prop_assert_eq!(block_work(compact), unpacked.target.to_work());
    }
}

#[test]
fn a_target_that_is_none_has_no_work() {
    for compact in [0, 0x1d80_ffff, 0xff12_3456] {
        assert_eq!(block_work(bits(compact)), Work::from_be_bytes([0; 32]), "{compact:08x}");
    }
    assert_eq!(block_work(bits(0x207f_ffff)), Work::from_hex("0x2").expect("hex"), "regtest");
    assert_eq!(block_work(bits(0x1d00_ffff)), Work::from_hex("0x100010001").expect("hex"), "main");
}

#[test]
fn the_hash_must_meet_an_allowed_target() {
    let params = Params::main();
    let low = BlockHash::from_byte_array([0; 32]);
    let verdict = |hash, compact| check_proof_of_work(hash, bits(compact), &params);
    assert_eq!(verdict(low, 0x1d00_ffff), Ok(()));
    for (compact, why) in [
        (0x1d80_ffff, "negative"),
        (0xff12_3456, "overflow"),
        (0x1d01_0000, "easier than the limit"),
        (0x2100_ffff, "easier than any hash"),
        (0, "zero"),
    ] {
        assert_eq!(verdict(low, compact), Err(Rejection::HighHash), "{why}");
    }
    let at = from_compact(bits(0x1d00_ffff)).target;
    let exact = Params { pow_limit: at, ..Params::main() };
    assert_eq!(check_proof_of_work(low, bits(0x1d00_ffff), &exact), Ok(()), "as easy as the limit");
    assert_eq!(verdict(BlockHash::from_byte_array(at.to_le_bytes()), 0x1d00_ffff), Ok(()), "a hash at the target");
    let mut above = at.to_le_bytes();
    above[0] = 1;
    assert_eq!(verdict(BlockHash::from_byte_array(above), 0x1d00_ffff), Err(Rejection::HighHash), "one above");
}

/// The last period before a retarget: all that a retarget may ask for.
struct Period {
    height: u32,
    interval: u32,
    first: (u32, u32),
    last: (u32, u32),
}

impl Branch for Period {
    fn height(&self) -> u32 {
        self.height
    }
    fn time(&self, height: u32) -> u32 {
        if height == self.height { self.last.0 } else { self.at_first(height).0 }
    }
    fn bits(&self, height: u32) -> CompactTarget {
        bits(if height == self.height { self.last.1 } else { self.at_first(height).1 })
    }
    fn version(&self, _: u32) -> i32 {
        panic!("a retarget asks for no version")
    }
}

impl Period {
    fn at_first(&self, height: u32) -> (u32, u32) {
        assert_eq!(height, self.height + 1 - self.interval, "a retarget looks at the first and last block of a period");
        self.first
    }
}

fn period(height: u32, first_time: u32, last_time: u32, old: u32) -> Period {
    Period { height, interval: 2016, first: (first_time, old), last: (last_time, old) }
}

#[test]
fn a_retarget_follows_the_time_that_a_period_took() {
    let params = Params::main();
    for (case, period, expected) in [
        ("30240..32255, the first real change", period(32255, 1261130161, 1262152739, 0x1d00ffff), 0x1d00d86a),
        ("0..2015, no easier than the limit", period(2015, 1231006505, 1233061996, 0x1d00ffff), 0x1d00ffff),
        ("66528..68543, at most four times harder", period(68543, 1279008237, 1279297671, 0x1c05a3f4), 0x1c0168fd),
        ("44352..46367, at most four times easier", period(46367, 1263163443, 1269211443, 0x1c387f6f), 0x1d00e1fd),
        ("time may run backwards", period(68543, 1279297671, 1279008237, 0x1c05a3f4), 0x1c0168fd),
    ] {
        let next = next_work_required(&period, 0, &params);
        assert_eq!(format!("{:08x}", next.to_consensus()), format!("{expected:08x}"), "{case}");
        let old = period.bits(period.height);
        assert!(permitted_difficulty_transition(period.height + 1, old, next, &params), "{case}: permitted");
    }
}

#[test]
fn a_transition_beyond_four_times_is_not_permitted() {
    let params = Params::main();
    let permitted = |height, old, new| permitted_difficulty_transition(height, bits(old), bits(new), &params);
    assert!(permitted(68544, 0x1c05a3f4, 0x1c0168fd));
    assert!(!permitted(68544, 0x1c05a3f4, 0x1c0168fc), "more than four times harder");
    assert!(permitted(46368, 0x1c387f6f, 0x1d00e1fd));
    assert!(!permitted(46368, 0x1c387f6f, 0x1d00e1fe), "more than four times easier");
    assert!(!permitted(46369, 0x1c387f6f, 0x1d00e1fd), "within a period");
    assert!(permitted(46369, 0x1c387f6f, 0x1c387f6f));
    assert!(permitted_difficulty_transition(1, bits(1), bits(2), &Params::testnet3()), "easy blocks allow anything");
}

#[test]
fn bip94_retargets_from_the_first_block_of_a_period() {
    let params = Params::testnet4();
    let easy = 0x1d00_ffff;
    let mut branch = period(4031, 1_000_000, 1_000_000 + 2016 * 600, 0x1a01_0000);
    branch.last.1 = easy;
    assert_eq!(next_work_required(&branch, 0, &params).to_consensus(), 0x1a01_0000);
    assert_eq!(next_work_required(&branch, 0, &Params::testnet3()).to_consensus(), easy, "without BIP94");
}

#[test]
fn an_easy_block_needs_twice_the_spacing_and_leaves_the_target_as_it_was() {
    let params = Params::testnet3();
    let (hard, easy) = (bits(0x1c00_ffff), bits(0x1d00_ffff));
    let mut headers = branch(&params, 2015 + 10);
    headers.0[2016..].iter_mut().for_each(|header| header.bits = hard);
    headers.0[2020..].iter_mut().for_each(|header| header.bits = easy);
    let last = headers.0[2025].time;
    assert_eq!(next_work_required(&headers, last + 1200, &params), hard, "behind the easy ones");
    assert_eq!(next_work_required(&headers, last + 1201, &params), easy, "after twenty minutes");
    headers.0[2016..2020].iter_mut().for_each(|header| header.bits = easy);
    headers.0[2016].bits = hard;
    assert_eq!(next_work_required(&headers, last, &params), hard, "the walk ends at the period's first block");
    headers.0[2016].bits = easy;
    assert_eq!(next_work_required(&headers, last, &params), easy, "whatever that block has");
    headers.0[2025].bits = hard;
    assert_eq!(next_work_required(&headers, last + 1201, &Params::main()), hard, "main: as the parent, however late");
}

#[test]
fn no_network_overflows_a_retarget() {
    let largest = target("0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff");
    let params = Params { pow_limit: largest, spacing: u32::MAX / 4, retarget_interval: 4, ..Params::main() };
    let old = to_compact(largest).to_consensus();
    let branch = Period { height: 7, interval: 4, first: (0, old), last: (u32::MAX, old) };
    assert_eq!(next_work_required(&branch, 0, &params).to_consensus(), old, "as long as it should take");
    let quick = Period { height: 7, interval: 4, first: (0, old), last: (1, old) };
    assert_eq!(next_work_required(&quick, 0, &params).to_consensus(), 0x203f_ffc0, "four times harder");
}

#[test]
fn work_is_worth_the_time_that_it_takes() {
    let params = Params::main();
    let bits = bits(0x1d00_ffff);
    let three = block_work(bits) + block_work(bits) + block_work(bits);
    assert_eq!(proof_equivalent_time(three, block_work(bits), bits, &params), 1200);
    assert_eq!(proof_equivalent_time(Work::from_be_bytes([0xff; 32]), block_work(bits), bits, &params), u64::MAX);
}

#[test]
fn regtest_keeps_its_target_however_quick_its_blocks_are() {
    let mut headers = branch(&regtest(), 143);
    let start = headers.0[0].time;
    headers.0.iter_mut().enumerate().for_each(|(height, header)| header.time = start + height as u32);
    let retargeting = Params { no_retargeting: false, ..regtest() };
    let next = |params| next_work_required(&headers, start + 144, params).to_consensus();
    assert_eq!((next(&regtest()), next(&retargeting)), (0x207f_ffff, 0x201f_ffff));
}
