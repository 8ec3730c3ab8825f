//! Keeps a wallet with a long history fast. The library that holds the wallet walks a list of blocks, from the tip down,
//! for every transaction it looks at. So of blocks too deep to be replaced only a few are given to it, and what was
//! confirmed in the others is shown to it as if in the next of those few. What is stored stays as it is.

use std::collections::HashMap;

use bdk_wallet::ChangeSet;
use bdk_wallet::chain::{BlockId, ConfirmationBlockTime};
use bitcoin::{BlockHash, Txid};

/// Blocks below the tip that stay. Coins of blocks below them are mature.
const KEPT: u32 = 100;
/// Blocks further down that stand for all others there.
const DEEP: usize = 32;

/// Takes most of the deep blocks out, and says in which the transactions were really confirmed.
pub fn condense(change: &mut ChangeSet) -> HashMap<Txid, u32> {
    let blocks: Vec<(u32, BlockHash)> =
        change.local_chain.blocks.iter().filter_map(|(height, hash)| Some((*height, (*hash)?))).collect();
    let tip = blocks.last().map_or(0, |(height, _)| *height);
    // Genesis stays for itself.
    let deep: Vec<(u32, BlockHash)> =
        blocks.into_iter().skip(1).take_while(|(height, _)| height + KEPT <= tip).collect();
    let mut real = HashMap::new();
    if deep.len() <= DEEP {
        return real;
    }
    let mut stands_for: HashMap<BlockId, BlockId> = HashMap::new();
    for group in deep.chunks(deep.len().div_ceil(DEEP)) {
        let Some(((height, hash), others)) = group.split_last() else { continue };
        let last = BlockId { height: *height, hash: *hash };
        for (height, hash) in others {
            change.local_chain.blocks.remove(height);
            stands_for.insert(BlockId { height: *height, hash: *hash }, last);
        }
    }
    change.tx_graph.anchors = std::mem::take(&mut change.tx_graph.anchors)
        .into_iter()
        .map(|(anchor, txid)| match stands_for.get(&anchor.block_id) {
            Some(last) => {
                real.insert(txid, anchor.block_id.height);
                (ConfirmationBlockTime { block_id: *last, ..anchor }, txid)
            }
            None => (anchor, txid),
        })
        .collect();
    real
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    #[test]
    fn deep_blocks_become_few_and_real_heights_are_kept() {
        let hash = |height: u32| {
            BlockHash::from_byte_array([height.to_le_bytes(), [7; 4]].concat().repeat(4).try_into().unwrap())
        };
        let txid = |height: u32| Txid::from_byte_array(*hash(height).as_byte_array());
        let mut change = ChangeSet::default();
        for height in 0..=5000 {
            change.local_chain.blocks.insert(height, Some(hash(height)));
            let block_id = BlockId { height, hash: hash(height) };
            change
                .tx_graph
                .anchors
                .insert((ConfirmationBlockTime { block_id, confirmation_time: height.into() }, txid(height)));
        }
        let real = condense(&mut change);
        let blocks = &change.local_chain.blocks;
        assert!(blocks.len() <= 1 + DEEP + KEPT as usize, "{} blocks are left", blocks.len());
        assert!((4901..=5000).all(|height| blocks.contains_key(&height)) && blocks.contains_key(&0));
        assert_eq!(change.tx_graph.anchors.len(), 5001);
        for (anchor, id) in &change.tx_graph.anchors {
            let (height, seen) = (anchor.confirmation_time as u32, anchor.block_id.height);
            assert_eq!(*id, txid(height));
            assert_eq!(blocks.get(&seen), Some(&Some(anchor.block_id.hash)), "expected: every anchor is in the chain");
            assert!(
                seen == height || (real[id] == height && seen > height && seen + KEPT <= 5000),
                "{height} seen at {seen}"
            );
        }
    }
}
