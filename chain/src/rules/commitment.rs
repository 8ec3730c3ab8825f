//! How a coinbase commits to the witnesses of its block ([BIP-0141]). Judges nothing.
//!
//! [BIP-0141]: https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki

use super::merkle::merkle_root;
use crate::block::Block;
use bitcoin::Transaction;
use bitcoin::hashes::{Hash, sha256d};

/// Length of the shortest output script that commits to witnesses (BIP141).
pub(crate) const MINIMUM_WITNESS_COMMITMENT: usize = 38;
/// How such a script begins: OP_RETURN, a push of 36 bytes, and four bytes of its own.
pub(crate) const WITNESS_COMMITMENT_HEAD: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// The output of a coinbase that commits to witnesses, by its number, and its script: the last one that looks so.
/// Core: `GetWitnessCommitmentIndex`.
pub fn witness_commitment(coinbase: &Transaction) -> Option<(usize, &[u8])> {
    let scripts = coinbase.output.iter().map(|output| output.script_pubkey.as_bytes()).enumerate();
    scripts
        .rev()
        .find(|(_, script)| script.len() >= MINIMUM_WITNESS_COMMITMENT && script.starts_with(&WITNESS_COMMITMENT_HEAD))
}

/// What a block's coinbase must commit to, given the reserved value: the root over the wtxids, where zeros stand for
/// the coinbase's own, hashed with that value.
pub fn witness_root(block: &Block, reserved: &[u8]) -> [u8; 32] {
    let others = block.wtxids[1..].iter().map(|wtxid| wtxid.to_byte_array());
    let (root, _) = merkle_root(std::iter::once([0; 32]).chain(others));
    sha256d::Hash::hash(&[root.as_slice(), reserved].concat()).to_byte_array()
}
