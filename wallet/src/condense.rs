//! Keeps a wallet with a long history fast. The library that holds the wallet walks a list of blocks, from the tip down
//! to the one that is looked for, for every transaction it looks at. So few blocks are given to it, and what was confirmed
//! in the others is shown to it as if in one of those. What is stored stays as it is.

use std::collections::{BTreeSet, HashMap};

use bdk_wallet::ChangeSet;
use bdk_wallet::chain::{BlockId, ConfirmationBlockTime};
use bitcoin::Txid;

/// Takes most blocks out, and says at which heights the transactions that are shown elsewhere were confirmed. Only of
/// coinbases does the library ask how deep they are: of those the last `maturity` blocks stay.
pub fn condense(change: &mut ChangeSet, maturity: u32) -> HashMap<Txid, u32> {
    let mut blocks = BTreeSet::new();
    blocks.extend(change.local_chain.blocks.iter().filter_map(|(height, hash)| Some((*height, (*hash)?))));
    let Some(&(tip, hash)) = blocks.last() else { return HashMap::new() };
    let newest = BlockId { height: tip, hash };
    let deep = blocks.iter().rev().find(|(height, _)| height + maturity <= tip);
    let deep = deep.map_or(newest, |(height, hash)| BlockId { height: *height, hash: *hash });
    let mined = change.tx_graph.txs.iter().filter(|transaction| transaction.is_coinbase());
    let mined: BTreeSet<Txid> = mined.map(|transaction| transaction.compute_txid()).collect();

    let (mut real, mut kept) = (HashMap::new(), BTreeSet::from([0, deep.height, tip]));
    let anchors = std::mem::take(&mut change.tx_graph.anchors).into_iter().map(|(anchor, txid)| {
        let BlockId { height, hash } = anchor.block_id;
        let shown = match () {
            // Of a block that was replaced.
            () if !blocks.contains(&(height, hash)) => anchor.block_id,
            () if !mined.contains(&txid) => newest,
            () if height + maturity <= tip => deep,
            () => anchor.block_id,
        };
        if shown != anchor.block_id {
            real.insert(txid, height);
        }
        kept.insert(shown.height);
        (ConfirmationBlockTime { block_id: shown, ..anchor }, txid)
    });
    change.tx_graph.anchors = anchors.collect();
    change.local_chain.blocks.retain(|height, _| kept.contains(height));
    real
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use std::sync::Arc;

    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

    use super::*;

    const MATURITY: u32 = 200;
    const TIP: u32 = 5000;

    fn hash(height: u32) -> BlockHash {
        BlockHash::from_byte_array([height.to_le_bytes(), [7; 4]].concat().repeat(4).try_into().unwrap())
    }

    /// A transaction of its own for each height.
    fn transaction(height: u32, coinbase: bool) -> Transaction {
        let spent = OutPoint::new(Txid::from_byte_array(*hash(height).as_byte_array()), 0);
        let input = TxIn {
            previous_output: if coinbase { OutPoint::null() } else { spent },
            script_sig: ScriptBuf::from_bytes(height.to_le_bytes().to_vec()),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: Vec::<TxOut>::new(),
        }
    }

    #[test]
    fn few_blocks_are_left_and_real_heights_are_kept() {
        let mut change = ChangeSet::default();
        let mut expected = HashMap::new();
        for height in 0..=TIP {
            change.local_chain.blocks.insert(height, Some(hash(height)));
            let made = transaction(height, height.is_multiple_of(5));
            let (txid, coinbase) = (made.compute_txid(), made.is_coinbase());
            expected.insert(txid, (height, coinbase));
            change.tx_graph.txs.insert(Arc::new(made));
            let block_id = BlockId { height, hash: hash(height) };
            change
                .tx_graph
                .anchors
                .insert((ConfirmationBlockTime { block_id, confirmation_time: height.into() }, txid));
        }
        // One that was in a block that was replaced.
        let stale = BlockId { height: TIP - 1, hash: hash(9999) };
        let lost = transaction(9999, false).compute_txid();
        change.tx_graph.anchors.insert((ConfirmationBlockTime { block_id: stale, confirmation_time: 0 }, lost));

        let real = condense(&mut change, MATURITY);
        let blocks = &change.local_chain.blocks;
        assert!(blocks.len() <= 3 + MATURITY as usize / 5, "{} blocks are left", blocks.len());
        assert_eq!(change.tx_graph.anchors.len(), TIP as usize + 2);
        for (anchor, txid) in &change.tx_graph.anchors {
            let BlockId { height: shown, hash } = anchor.block_id;
            let in_chain = blocks.get(&shown) == Some(&Some(hash));
            let Some(&(height, coinbase)) = expected.get(txid) else {
                assert!(!in_chain && *txid == lost, "expected: what is in no block of the chain stays so");
                continue;
            };
            assert!(in_chain, "expected: every block that is named is there");
            assert_eq!(real.get(txid).copied().unwrap_or(shown), height);
            assert_eq!(anchor.confirmation_time, u64::from(height));
            let mature = |at: u32| at + MATURITY <= TIP;
            assert!(!coinbase || mature(shown) == mature(height), "the coinbase of block {height} is shown in {shown}");
        }
    }

    #[test]
    fn a_short_chain_stays_correct() {
        let mut change = ChangeSet::default();
        assert!(condense(&mut change, 100).is_empty());
        change.local_chain.blocks.insert(0, Some(hash(0)));
        assert!(condense(&mut change, 100).is_empty());
        assert_eq!(change.local_chain.blocks.len(), 1);
    }
}
