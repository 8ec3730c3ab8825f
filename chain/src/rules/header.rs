//! The rules of a header, alone and on its branch. Sees no body and no clock: the time is an argument.

use super::branch::{Branch, median_time_past};
use super::deployment::is_active;
use super::pow;
use crate::params::{Buried, Params};
use crate::rejection::Rejection;
use bitcoin::block::Header;

/// Seconds that a block may be ahead of the clock.
pub const MAX_FUTURE_BLOCK_TIME: u32 = 2 * 60 * 60;
/// Seconds that the first block of a retarget period may be behind the last of the period before (BIP94).
pub(crate) const MAX_TIMEWARP: u32 = 600;

/// The rules that a header keeps wherever it stands: proof of work. Core: `CheckBlockHeader`.
pub fn check_header(header: &Header, params: &Params) -> Result<(), Rejection> {
    pow::check_proof_of_work(header.block_hash(), header.bits, params)
}

/// The rules that a header keeps on the branch that it builds on, at the clock time `now`.
/// Core: `ContextualCheckBlockHeader`.
pub fn contextual_check_header(
    header: &Header,
    branch: &impl Branch,
    params: &Params,
    now: u32,
) -> Result<(), Rejection> {
    check_bits(header, branch, params)?;
    check_time_not_too_old(header, branch)?;
    check_no_timewarp(header, branch, params)?;
    check_time_not_too_new(header, now)?;
    check_version(header, branch, params)?;
    check_checkpoint(header, branch, params)
}

/// The target is the one that the branch demands: [`Rejection::BadDiffBits`] `bad-diffbits`. Original release.
fn check_bits(header: &Header, branch: &impl Branch, params: &Params) -> Result<(), Rejection> {
    if header.bits != pow::next_work_required(branch, header.time, params) {
        return Err(Rejection::BadDiffBits);
    }
    Ok(())
}

/// A block is later than the median of the eleven before it: [`Rejection::TimeTooOld`] `time-too-old`.
/// Original release.
fn check_time_not_too_old(header: &Header, branch: &impl Branch) -> Result<(), Rejection> {
    if header.time <= median_time_past(branch) {
        return Err(Rejection::TimeTooOld);
    }
    Ok(())
}

/// The first block of a retarget period is at most [`MAX_TIMEWARP`] seconds behind its parent:
/// [`Rejection::TimeTimewarpAttack`] `time-timewarp-attack`. [BIP-0094], where the network has it.
///
/// [BIP-0094]: https://github.com/bitcoin/bips/blob/master/bip-0094.mediawiki
fn check_no_timewarp(header: &Header, branch: &impl Branch, params: &Params) -> Result<(), Rejection> {
    let first_of_period = (branch.height() + 1).is_multiple_of(params.retarget_interval);
    let parent = branch.time(branch.height());
    if params.bip94 && first_of_period && header.time < parent.saturating_sub(MAX_TIMEWARP) {
        return Err(Rejection::TimeTimewarpAttack);
    }
    Ok(())
}

/// A block is at most [`MAX_FUTURE_BLOCK_TIME`] ahead of the clock: [`Rejection::TimeTooNew`] `time-too-new`.
/// Original release.
fn check_time_not_too_new(header: &Header, now: u32) -> Result<(), Rejection> {
    if header.time > now.saturating_add(MAX_FUTURE_BLOCK_TIME) {
        return Err(Rejection::TimeTooNew);
    }
    Ok(())
}

/// Versions below 2, 3 and 4 end where BIP34, BIP66 and BIP65 hold: [`Rejection::BadVersion`]
/// `bad-version(0x........)`. [BIP-0034], [BIP-0066], [BIP-0065].
///
/// [BIP-0034]: https://github.com/bitcoin/bips/blob/master/bip-0034.mediawiki
/// [BIP-0065]: https://github.com/bitcoin/bips/blob/master/bip-0065.mediawiki
/// [BIP-0066]: https://github.com/bitcoin/bips/blob/master/bip-0066.mediawiki
fn check_version(header: &Header, branch: &impl Branch, params: &Params) -> Result<(), Rejection> {
    let (version, height) = (header.version.to_consensus(), branch.height() + 1);
    let retired = [(2, Buried::Bip34), (3, Buried::Dersig), (4, Buried::Cltv)]
        .iter()
        .any(|&(first, deployment)| version < first && is_active(deployment, height, params));
    if retired { Err(Rejection::BadVersion(version)) } else { Ok(()) }
}

/// The block at the height of a checkpoint is that checkpoint: [`Rejection::CheckpointMismatch`]
/// `checkpoint mismatch`. Only a network of one's own has checkpoints; Core had them until its release 30.
fn check_checkpoint(header: &Header, branch: &impl Branch, params: &Params) -> Result<(), Rejection> {
    let height = branch.height() + 1;
    match params.checkpoints.iter().find(|checkpoint| checkpoint.0 == height) {
        Some(&(_, hash)) if hash != header.block_hash() => Err(Rejection::CheckpointMismatch),
        _ => Ok(()),
    }
}
