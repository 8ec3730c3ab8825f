//! The merkle tree of a block and whether its leaves were repeated. Sees hashes only.

use sha2::block_api::compress256;

/// The root over `leaves`, and whether a list of other leaves gives the same root (CVE-2012-2459).
/// Core: `ComputeMerkleRoot`.
///
/// A level of odd length repeats its last hash. So a list that repeats its own end has the root of the list that does
/// not; it shows by two equal neighbours somewhere. No leaves give a root of zeros.
pub fn merkle_root(leaves: impl IntoIterator<Item = [u8; 32]>) -> ([u8; 32], bool) {
    let mut level: Vec<[u8; 32]> = leaves.into_iter().collect();
    let mut mutated = false;
    while level.len() > 1 {
        mutated |= level.chunks_exact(2).any(|pair| pair[0] == pair[1]);
        for to in 0..level.len().div_ceil(2) {
            let left = 2 * to;
            level[to] = hash_pair(&level[left], level.get(left + 1).unwrap_or(&level[left]));
        }
        level.truncate(level.len().div_ceil(2));
    }
    (level.first().copied().unwrap_or_default(), mutated)
}

/// The hashes that lead from the first leaf to the root, given the leaves after it: a miner changes the coinbase often,
/// and the others seldom.
pub(crate) fn merkle_path(others: impl IntoIterator<Item = [u8; 32]>) -> Vec<[u8; 32]> {
    let mut level: Vec<[u8; 32]> = std::iter::once([0; 32]).chain(others).collect();
    let mut path = Vec::new();
    while level.len() > 1 {
        path.push(level[1]);
        for to in 1..level.len().div_ceil(2) {
            let left = 2 * to;
            level[to] = hash_pair(&level[left], level.get(left + 1).unwrap_or(&level[left]));
        }
        level.truncate(level.len().div_ceil(2));
    }
    path
}

/// The root over a first leaf and those whose [`merkle_path`] is given.
pub(crate) fn root_by_path(first: [u8; 32], path: &[[u8; 32]]) -> [u8; 32] {
    path.iter().fold(first, |hash, right| hash_pair(&hash, right))
}

/// SHA256 of SHA256 of two hashes: three compressions, with nothing between them.
fn hash_pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    const INITIAL: [u32; 8] =
        [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
    let (mut first, mut state) = ([[0; 64]; 2], INITIAL);
    first[0][..32].copy_from_slice(left);
    first[0][32..].copy_from_slice(right);
    // The end of a message: one bit, and the length in bits.
    first[1][0] = 0x80;
    first[1][56..].copy_from_slice(&(64u64 * 8).to_be_bytes());
    compress256(&mut state, &first);
    let mut second = [0; 64];
    second[..32].copy_from_slice(&to_bytes(state));
    second[32] = 0x80;
    second[56..].copy_from_slice(&(32u64 * 8).to_be_bytes());
    state = INITIAL;
    compress256(&mut state, &[second]);
    to_bytes(state)
}

fn to_bytes(state: [u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (word, chunk) in state.iter().zip(bytes.chunks_exact_mut(4)) {
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::{Hash, sha256d};

    fn leaf(number: u8) -> [u8; 32] {
        sha256d::Hash::hash(&[number]).to_byte_array()
    }

    /// The definition, in slow words.
    fn slow(leaves: &[[u8; 32]]) -> [u8; 32] {
        if leaves.len() == 1 {
            return leaves[0];
        }
        let above: Vec<_> = leaves
            .chunks(2)
            .map(|pair| sha256d::Hash::hash(&[pair[0], pair[pair.len() - 1]].concat()).to_byte_array())
            .collect();
        slow(&above)
    }

    #[test]
    fn the_root_is_that_of_the_definition() {
        for count in 1..=70 {
            let leaves: Vec<_> = (0..count).map(leaf).collect();
            assert_eq!(merkle_root(leaves.iter().copied()), (slow(&leaves), false), "{count} leaves");
        }
        assert_eq!(merkle_root([]), ([0; 32], false), "no leaves");
    }

    #[test]
    fn repeated_leaves_with_the_same_root_are_seen() {
        let honest: Vec<_> = (1..=6).map(leaf).collect();
        let repeated: Vec<_> = [1, 2, 3, 4, 5, 6, 5, 6].map(leaf).into();
        assert_eq!(merkle_root(repeated), (merkle_root(honest).0, true), "the example of CVE-2012-2459");
        let triple = [1, 2, 3, 3].map(leaf);
        assert_eq!(merkle_root(triple), (merkle_root([1, 2, 3].map(leaf)).0, true), "a repeated last leaf");
    }

    #[test]
    fn the_path_of_the_first_leaf_leads_to_the_root() {
        for count in 1..=40 {
            let leaves: Vec<[u8; 32]> = (0..count).map(leaf).collect();
            let path = merkle_path(leaves[1..].iter().copied());
            assert_eq!(root_by_path(leaves[0], &path), merkle_root(leaves.iter().copied()).0, "{count} leaves");
        }
    }
}
