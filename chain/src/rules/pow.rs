//! Proof of work: compact targets, the next target of a branch, the work of a block. Sees headers only.

use super::branch::Branch;
use super::wide::Wide;
use crate::params::Params;
use crate::rejection::Rejection;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Target, Work};

/// A compact target unpacked. Core: `arith_uint256::SetCompact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact {
    /// The number without its sign, cut to its low 256 bits.
    pub target: Target,
    /// The sign bit is set on a number other than zero.
    pub negative: bool,
    /// The number has more than 256 bits.
    pub overflow: bool,
}

/// Unpacks a compact target: an exponent of one byte, a sign bit and a mantissa of 23 bits. Original release.
pub fn from_compact(bits: CompactTarget) -> Compact {
    let bits = bits.to_consensus();
    let (size, mantissa) = ((bits >> 24) as usize, bits & 0x007f_ffff);
    let mut bytes = [0; 32];
    for i in 0..3 {
        // Byte i of the mantissa (the least is 0) has weight 256^(size - 3 + i); those below the point fall off.
        if let Some(place) = (size + i).checked_sub(3).filter(|&place| place < 32) {
            bytes[31 - place] = (mantissa >> (8 * i)) as u8;
        }
    }
    let word = if size < 3 { mantissa >> (8 * (3 - size)) } else { mantissa };
    Compact {
        target: Target::from_be_bytes(bytes),
        negative: word != 0 && bits & 0x0080_0000 != 0,
        overflow: word != 0 && (size > 34 || word > 0xff && size > 33 || word > 0xffff && size > 32),
    }
}

/// Packs a target, rounding down to the mantissa's 23 bits. Core: `arith_uint256::GetCompact`.
pub fn to_compact(target: Target) -> CompactTarget {
    let bytes = target.to_be_bytes();
    let first = bytes.iter().position(|&byte| byte != 0).unwrap_or(32);
    let digit = |i: usize| u32::from(bytes.get(first + i).copied().unwrap_or(0));
    let (mut size, mut mantissa) = (32 - first as u32, digit(0) << 16 | digit(1) << 8 | digit(2));
    // A mantissa that would set the sign bit gives up its last byte.
    if mantissa & 0x0080_0000 != 0 {
        (size, mantissa) = (size + 1, mantissa >> 8);
    }
    CompactTarget::from_consensus(size << 24 | mantissa)
}

/// The target that `bits` stand for, if the network allows it: above zero, no overflow, no easier than the limit.
/// Core: `DeriveTarget`.
pub fn derive_target(bits: CompactTarget, params: &Params) -> Option<Target> {
    let Compact { target, negative, overflow } = from_compact(bits);
    let allowed = !negative && !overflow && target.to_be_bytes() != [0; 32] && target <= params.pow_limit;
    allowed.then_some(target)
}

/// The hash, as a number, is no higher than the target that the header claims: [`Rejection::HighHash`] `high-hash`.
/// Original release.
pub fn check_proof_of_work(hash: BlockHash, bits: CompactTarget, params: &Params) -> Result<(), Rejection> {
    let met = derive_target(bits, params).is_some_and(|target| Target::from_le_bytes(hash.to_byte_array()) <= target);
    if met { Ok(()) } else { Err(Rejection::HighHash) }
}

/// The target of the block that follows `branch` and has this time. Core: `GetNextWorkRequired`.
///
/// The easy blocks of a test network make it walk back through its period.
pub fn next_work_required(branch: &impl Branch, header_time: u32, params: &Params) -> CompactTarget {
    let last = branch.height();
    if !(last + 1).is_multiple_of(params.retarget_interval) {
        if !params.min_difficulty_blocks {
            return branch.bits(last);
        }
        let limit = to_compact(params.pow_limit);
        if u64::from(header_time) > u64::from(branch.time(last)) + 2 * u64::from(params.spacing) {
            return limit;
        }
        // The last block of the period that was not an easy one.
        let mut height = last;
        while height > 0 && !height.is_multiple_of(params.retarget_interval) && branch.bits(height) == limit {
            height -= 1;
        }
        return branch.bits(height);
    }
    if params.no_retargeting {
        return branch.bits(last);
    }
    let first = last + 1 - params.retarget_interval;
    let timespan = i64::from(branch.time(last)) - i64::from(branch.time(first));
    let timespan = u64::try_from(timespan).unwrap_or(0).clamp(params.timespan() / 4, params.timespan() * 4);
    // BIP94: the first block of a period is never an easy one, so the real difficulty is never lost.
    let base = branch.bits(if params.bip94 { first } else { last });
    to_compact(scaled(from_compact(base).target, timespan, params))
}

/// The target that `timespan` seconds for a period of blocks at `target` lead to.
fn scaled(target: Target, timespan: u64, params: &Params) -> Target {
    let product = Wide::from_be_bytes(target.to_be_bytes()).checked_mul(timespan).expect("256 and 64 bits make 320");
    let scaled = product.divided_by(Wide::from(params.timespan()));
    Target::from_be_bytes(scaled.to_be_bytes()).min(params.pow_limit)
}

/// Whether a block at `height` may have `new_bits` after `old_bits`, whatever the times in between. What a node can
/// ask of headers before it stores them. Core: `PermittedDifficultyTransition`.
pub fn permitted_difficulty_transition(
    height: u32,
    old_bits: CompactTarget,
    new_bits: CompactTarget,
    params: &Params,
) -> bool {
    if params.min_difficulty_blocks {
        return true;
    }
    if !height.is_multiple_of(params.retarget_interval) {
        return old_bits == new_bits;
    }
    let (old, new) = (from_compact(old_bits).target, from_compact(new_bits).target);
    let rounded = |timespan| from_compact(to_compact(scaled(old, timespan, params))).target;
    (rounded(params.timespan() / 4)..=rounded(params.timespan() * 4)).contains(&new)
}

/// The hashes that a block with these bits takes on average: 2^256 / (target + 1); 0 for a target that is none.
/// Core: `GetBitsProof`.
pub fn block_work(bits: CompactTarget) -> Work {
    let Compact { target, negative, overflow } = from_compact(bits);
    let target = Wide::from_be_bytes(target.to_be_bytes());
    if negative || overflow || target.is_zero() {
        return Work::from_be_bytes([0; 32]);
    }
    let divisor = target.checked_add(Wide::ONE).expect("a target has 256 bits");
    Work::from_be_bytes(Wide::TWO_TO_256.divided_by(divisor).to_be_bytes())
}

/// Seconds that the work between two blocks takes at the hash rate that `tip_bits` stands for.
/// Core: `GetBlockProofEquivalentTime`, for `more` no less than `less`.
pub fn proof_equivalent_time(more: Work, less: Work, tip_bits: CompactTarget, params: &Params) -> u64 {
    let work = Wide::from_be_bytes((more - less).to_be_bytes());
    let work = work.checked_mul(u64::from(params.spacing)).expect("256 and 64 bits make 320");
    let rate = Wide::from_be_bytes(block_work(tip_bits).to_be_bytes());
    if rate.is_zero() { u64::MAX } else { work.divided_by(rate).to_u64().unwrap_or(u64::MAX) }
}
