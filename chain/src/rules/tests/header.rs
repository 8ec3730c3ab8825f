//! The rules of headers.

use super::*;
use crate::params::Buried;
use crate::rules::branch::{median_time_past, median_time_past_at};
use crate::rules::header::*;

const NOW: u32 = 1_800_000_000;

#[test]
fn the_median_time_is_the_middle_of_eleven() {
    let mut headers = branch(&regtest(), 20);
    let times: Vec<u32> = headers.0.iter().map(|header| header.time).collect();
    assert_eq!(median_time_past(&headers), times[15]);
    assert_eq!(median_time_past_at(&headers, 0), times[0], "one header");
    assert_eq!(median_time_past_at(&headers, 1), times[1], "two: the upper one");
    assert_eq!(median_time_past_at(&headers, 9), times[5], "ten: the upper one of the middle");
    headers.0[20].time = 1;
    assert_eq!(median_time_past(&headers), times[14], "order of time, not of height");
}

#[test]
fn a_block_is_later_than_the_median_time() {
    let (params, headers) = (regtest(), branch(&regtest(), 20));
    let mut header = child(&headers.0[20]);
    header.time = median_time_past(&headers);
    assert_eq!(contextual_check_header(&header, &headers, &params, NOW), Err(Rejection::TimeTooOld));
    header.time += 1;
    assert_eq!(contextual_check_header(&header, &headers, &params, NOW), Ok(()));
}

#[test]
fn a_block_is_at_most_two_hours_ahead_of_the_clock() {
    let (params, headers) = (regtest(), branch(&regtest(), 20));
    let header = child(&headers.0[20]);
    let verdict = |now| contextual_check_header(&header, &headers, &params, now);
    assert_eq!(verdict(header.time - MAX_FUTURE_BLOCK_TIME), Ok(()));
    assert_eq!(verdict(header.time - MAX_FUTURE_BLOCK_TIME - 1), Err(Rejection::TimeTooNew));
    assert_eq!(verdict(u32::MAX), Ok(()), "the clock's end");
}

#[test]
fn the_bits_are_those_that_the_branch_demands() {
    let (params, headers) = (regtest(), branch(&regtest(), 20));
    let header = Header { bits: CompactTarget::from_consensus(0x207f_fffe), ..child(&headers.0[20]) };
    assert_eq!(contextual_check_header(&header, &headers, &params, NOW), Err(Rejection::BadDiffBits));
}

#[test]
fn a_period_does_not_begin_long_before_the_last_one_ended() {
    let params = Params::regtest(&RegtestOptions { bip94: true, ..Default::default() });
    let mut headers = branch(&params, 143);
    headers.0[143].time += 100_000;
    let mut header = child(&headers.0[143]);
    header.time = headers.0[143].time - MAX_TIMEWARP;
    assert_eq!(contextual_check_header(&header, &headers, &params, NOW), Ok(()));
    header.time -= 1;
    assert_eq!(contextual_check_header(&header, &headers, &params, NOW), Err(Rejection::TimeTimewarpAttack));
    assert_eq!(contextual_check_header(&header, &headers, &regtest(), NOW), Ok(()), "only under BIP94");
    headers.0.pop();
    let header = Header { time: headers.0[142].time - MAX_TIMEWARP - 1, ..child(&headers.0[142]) };
    assert_eq!(contextual_check_header(&header, &headers, &params, NOW), Ok(()), "only the first of a period");
}

#[test]
fn old_versions_end_with_their_deployments() {
    for (deployment, version) in [(Buried::Bip34, 1), (Buried::Dersig, 2), (Buried::Cltv, 3)] {
        let heights = [(Buried::Bip34, 1000), (Buried::Dersig, 1000), (Buried::Cltv, 1000), (deployment, 21)];
        let options = RegtestOptions { activation_heights: heights.into(), ..Default::default() };
        let params = Params::regtest(&options);
        let headers = branch(&params, 20);
        let header = Header { version: Version::from_consensus(version), ..child(&headers.0[20]) };
        let verdict = contextual_check_header(&header, &headers, &params, NOW);
        assert_eq!(verdict, Err(Rejection::BadVersion(version)), "{deployment:?}");
        let next = Header { version: Version::from_consensus(version + 1), ..header };
        assert_eq!(contextual_check_header(&next, &headers, &params, NOW), Ok(()), "{deployment:?}, next version");
        let before = branch(&params, 19);
        assert_eq!(contextual_check_header(&header, &before, &params, NOW), Ok(()), "{deployment:?}, a block before");
    }
    let negative = Rejection::BadVersion(-1);
    assert_eq!(negative.to_string(), "bad-version(0xffffffff)", "versions are signed, and shown without sign");
}

#[test]
fn a_checkpoint_stands_at_its_height() {
    let headers = branch(&regtest(), 20);
    let header = child(&headers.0[20]);
    let params = Params { checkpoints: vec![(20, NO_HASH()), (21, header.block_hash())], ..regtest() };
    assert_eq!(contextual_check_header(&header, &headers, &params, NOW), Ok(()));
    let other = Header { nonce: 1, ..header };
    assert_eq!(contextual_check_header(&other, &headers, &params, NOW), Err(Rejection::CheckpointMismatch));
}

#[test]
fn a_header_carries_its_proof_of_work() {
    let params = regtest();
    let (mut easy, mut hard) = (child(&params.genesis.header), None);
    while hard.is_none() || check_header(&easy, &params).is_err() {
        if check_header(&easy, &params).is_err() {
            hard = Some(easy);
        }
        easy.nonce += 1;
    }
    let hard = hard.expect("every other hash is too high");
    assert!(hard.block_hash().to_byte_array()[31] >= 0x80 && easy.block_hash().to_byte_array()[31] < 0x80);
    assert_eq!(check_header(&hard, &params), Err(Rejection::HighHash));
}
