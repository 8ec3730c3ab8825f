//! The taproot commitment: leaf and branch hashes, the output key from internal key and path. Executes nothing.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use super::sighash::{tagged, update_bytes};
use super::signature;

/// First byte of a last witness element that is an annex.
pub const ANNEX_TAG: u8 = 0x50;
/// The bits of a control block's first byte that are the leaf version.
pub(crate) const TAPROOT_LEAF_MASK: u8 = 0xfe;
/// The leaf version of tapscript.
pub const TAPROOT_LEAF_TAPSCRIPT: u8 = 0xc0;
/// Length of a control block without a path.
pub(crate) const TAPROOT_CONTROL_BASE_SIZE: usize = 33;
/// Length of one node of the path.
pub(crate) const TAPROOT_CONTROL_NODE_SIZE: usize = 32;
/// The longest path.
pub const TAPROOT_CONTROL_MAX_NODE_COUNT: usize = 128;
/// Length of the longest control block.
pub(crate) const TAPROOT_CONTROL_MAX_SIZE: usize =
    TAPROOT_CONTROL_BASE_SIZE + TAPROOT_CONTROL_NODE_SIZE * TAPROOT_CONTROL_MAX_NODE_COUNT;

static TAP_LEAF: LazyLock<Sha256> = LazyLock::new(|| tagged("TapLeaf"));
static TAP_BRANCH: LazyLock<Sha256> = LazyLock::new(|| tagged("TapBranch"));
static TAP_TWEAK: LazyLock<Sha256> = LazyLock::new(|| tagged("TapTweak"));

/// Whether a control block has a length that a path of whole nodes gives.
pub(crate) fn is_control_size(length: usize) -> bool {
    (TAPROOT_CONTROL_BASE_SIZE..=TAPROOT_CONTROL_MAX_SIZE).contains(&length)
        && (length - TAPROOT_CONTROL_BASE_SIZE).is_multiple_of(TAPROOT_CONTROL_NODE_SIZE)
}

/// The hash of a leaf.
pub fn leaf_hash(version: u8, script: &[u8]) -> [u8; 32] {
    let mut hasher = TAP_LEAF.clone().chain_update([version]);
    update_bytes(&mut hasher, script);
    hasher.finalize().into()
}

/// The hash of a branch; its children go in by ascending bytes.
pub fn branch_hash(one: &[u8], other: &[u8]) -> [u8; 32] {
    let (low, high) = if one < other { (one, other) } else { (other, one) };
    TAP_BRANCH.clone().chain_update(low).chain_update(high).finalize().into()
}

/// What is added to the internal key: the hash of key and merkle root, if there is a tree.
pub fn tweak_hash(internal_key: &[u8], merkle_root: Option<&[u8; 32]>) -> [u8; 32] {
    let hasher = TAP_TWEAK.clone().chain_update(internal_key);
    hasher.chain_update(merkle_root.map_or(&[][..], |root| root)).finalize().into()
}

/// The root of the tree in which `leaf` hangs at the path of `control`, a block of a valid size.
pub fn merkle_root(control: &[u8], leaf: [u8; 32]) -> [u8; 32] {
    control[TAPROOT_CONTROL_BASE_SIZE..]
        .chunks_exact(TAPROOT_CONTROL_NODE_SIZE)
        .fold(leaf, |below, beside| branch_hash(&below, beside))
}

/// Whether the output key `program` commits to `leaf` by `control`, a block of a valid size.
pub fn commits_to(program: &[u8], control: &[u8], leaf: [u8; 32]) -> bool {
    let internal_key = &control[1..TAPROOT_CONTROL_BASE_SIZE];
    let tweak = tweak_hash(internal_key, Some(&merkle_root(control, leaf)));
    signature::is_tweaked(program, control[0] & 1 == 1, internal_key, &tweak)
}

/// What signatures hash of an annex.
pub fn annex_hash(annex: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    update_bytes(&mut hasher, annex);
    hasher.finalize().into()
}
