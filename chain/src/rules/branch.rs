//! What a rule may ask of the past: plain numbers of the branch that a header builds on.

use bitcoin::CompactTarget;

/// Headers whose times the median is taken of.
pub(crate) const MEDIAN_TIME_SPAN: u32 = 11;

/// A chain of headers from genesis to a last block, as the rules see it. Heights are absolute; asking above
/// [`Branch::height`] is a bug of the caller.
pub trait Branch {
    /// Height of the last block of the branch (the parent of the block being judged).
    fn height(&self) -> u32;
    /// The `time` field of the header at `height`.
    fn time(&self, height: u32) -> u32;
    /// The `bits` field of the header at `height`.
    fn bits(&self, height: u32) -> CompactTarget;
    /// The `version` field of the header at `height`.
    fn version(&self, height: u32) -> i32;
}

/// The median of the times of the last eleven headers of `branch`. Core: `GetMedianTimePast`.
pub fn median_time_past(branch: &impl Branch) -> u32 {
    median_time_past_at(branch, branch.height())
}

/// The same as if the branch ended at `height`. Below height 10 there are fewer headers, and the upper middle counts.
pub(crate) fn median_time_past_at(branch: &impl Branch, height: u32) -> u32 {
    let mut times = [0; MEDIAN_TIME_SPAN as usize];
    let mut count = 0;
    for height in (0..=height).rev().take(times.len()) {
        times[count] = branch.time(height);
        count += 1;
    }
    times[..count].sort_unstable();
    times[count / 2]
}
