//! What a rule may ask of the past: plain numbers of the branch that a header builds on.

use bitcoin::CompactTarget;

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
