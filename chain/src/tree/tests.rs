//! The header tree against plain walks over random trees.

use std::collections::HashMap;

use bitcoin::hashes::Hash;
use bitcoin::{CompactTarget, TxMerkleNode};
use proptest::prelude::*;

use super::*;

/// A header that builds on `parent`; `salt` makes siblings differ.
fn child(parent: BlockHash, salt: u32, bits: u32) -> Header {
    Header {
        version: Version::from_consensus(4),
        prev_blockhash: parent,
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1_600_000_000 + salt,
        bits: CompactTarget::from_consensus(bits),
        nonce: salt,
    }
}

const EASY: u32 = 0x207f_ffff;
const HARD: u32 = 0x1f7f_ffff;

/// A tree in which header `n + 1` builds on header `parents[n] % (n + 1)`.
fn grown(parents: &[(u32, bool)]) -> Tree {
    let mut tree = Tree::new(&child(BlockHash::all_zeros(), 0, EASY));
    for (number, (parent, hard)) in parents.iter().enumerate() {
        let parent = Id(parent % (number as u32 + 1));
        let header = child(tree.node(parent).hash, number as u32 + 1, if *hard { HARD } else { EASY });
        let id = tree.insert(&header, header.block_hash(), parent);
        assert_eq!(tree.header(id), header);
    }
    tree
}

fn path_to_genesis(tree: &Tree, id: Id) -> Vec<Id> {
    std::iter::successors(Some(id), |id| tree.node(*id).parent()).collect()
}

fn pos(number: u32) -> FilePos {
    FilePos { file: number / 8, offset: number * 100 }
}

proptest! {
    #[test]
    fn skips_lead_where_single_steps_lead(parents in prop::collection::vec((any::<u32>(), any::<bool>()), 1..300)) {
        let tree = grown(&parents);
        for number in 0..tree.len() as u32 {
            let path = path_to_genesis(&tree, Id(number));
            for (steps, id) in path.iter().enumerate() {
                let height = tree.node(Id(number)).height - steps as u32;
                prop_assert_eq!(tree.ancestor(Id(number), height), *id);
            }
            let other = Id((number * 7 + 3) % tree.len() as u32);
            let theirs = path_to_genesis(&tree, other);
            let fork = *path.iter().find(|id| theirs.contains(id)).unwrap();
            prop_assert_eq!(tree.fork(Id(number), other), fork);
            prop_assert_eq!(tree.get(&tree.node(other).hash), Some(other));
        }
    }

    #[test]
    fn the_candidate_has_most_work_of_the_complete_valid_chains(
        parents in prop::collection::vec((any::<u32>(), any::<bool>()), 1..60),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..80),
        bad in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        forgive in any::<prop::sample::Index>(),
    ) {
        let mut tree = grown(&parents);
        tree.set_block(Id::GENESIS, pos(0), 1, 100);
        let mut arrival: HashMap<Id, usize> = HashMap::from([(Id::GENESIS, 0)]);
        for (time, index) in order.iter().enumerate() {
            let id = Id(index.index(parents.len()) as u32 + 1);
            if arrival.contains_key(&id) { continue; }
            tree.set_block(id, pos(id.0), 1, 100);
            arrival.insert(id, time + 1);
        }
        let check = |tree: &Tree| {
            let best = (0..tree.len() as u32)
                .map(Id)
                .filter(|id| path_to_genesis(tree, *id).iter().all(|id| arrival.contains_key(id)))
                .filter(|id| path_to_genesis(tree, *id).iter().all(|id| !tree.node(*id).status.has(Status::INVALID)))
                .map(|id| tree.node(id).work)
                .max()
                .unwrap();
            assert_eq!(tree.node(tree.candidate()).work, best, "the candidate does not have the most work");
            assert!(!tree.node(tree.candidate()).is_invalid(), "the candidate is invalid");
        };
        check(&tree);
        for index in &bad {
            let tip = tree.candidate();
            tree.set_tip(tip);
            tree.invalidate(Id(index.index(parents.len()) as u32 + 1));
            check(&tree);
        }
        let tip = tree.candidate();
        tree.set_tip(tip);
        tree.reconsider(Id(forgive.index(tree.len()) as u32));
        check(&tree);

        // What the records hold is all that a new start needs.
        let mut loading = Loading::default();
        for number in 0..tree.len() as u32 {
            prop_assert!(loading.push(number, &tree.record(Id(number))));
        }
        let mut again = loading.finish().unwrap();
        let tip = tree.candidate();
        tree.set_tip(tip);
        again.finish_load(tip);
        check(&again);
        for number in 0..tree.len() as u32 {
            prop_assert_eq!(again.record(Id(number)), tree.record(Id(number)));
            prop_assert_eq!(again.node(Id(number)).is_invalid(), tree.node(Id(number)).is_invalid());
            prop_assert_eq!(again.node(Id(number)).chain_tx, tree.node(Id(number)).chain_tx);
        }
    }
}

#[test]
fn of_two_equal_works_the_first_complete_chain_wins() {
    let mut tree = grown(&[(0, false), (0, false)]);
    tree.set_block(Id::GENESIS, pos(0), 1, 100);
    tree.set_block(Id(2), pos(2), 1, 100);
    tree.set_block(Id(1), pos(1), 1, 100);
    assert_eq!(tree.candidate(), Id(2), "the block that came first leads");
}

/// 1 is invalid, and with it 2 to 6; 3 and 6 are children of 2, 5 is a child of 1.
#[test]
fn what_branches_off_on_the_way_to_a_reconsidered_block_stays_invalid() {
    let mut tree = grown(&[(0, false), (1, false), (2, false), (3, false), (1, false), (2, false)]);
    tree.invalidate(Id(1));
    let standing = |tree: &Tree| (1..=6).filter(|number| !tree.node(Id(*number)).is_invalid()).collect::<Vec<_>>();
    assert_eq!(standing(&tree), []);
    assert_eq!(tree.reconsider(Id(3)), [Id(1), Id(5), Id(6)], "the headers whose own mark changed");
    assert_eq!(standing(&tree), [1, 2, 3, 4]);
    assert_eq!(tree.reconsider(Id(6)), [Id(6)]);
    assert_eq!(tree.reconsider(Id(1)), [Id(5)]);
    assert_eq!(standing(&tree), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_record_without_its_parent_is_refused() {
    let tree = grown(&[(0, false), (1, false)]);
    let mut loading = Loading::default();
    assert!(loading.push(0, &tree.record(Id(0))));
    assert!(!loading.push(1, &tree.record(Id(2))), "record 2 builds on a header that was not given");
}

#[test]
fn a_locator_is_dense_at_the_tip_and_ends_in_genesis() {
    let mut tree = grown(&[]);
    let mut tip = Id::GENESIS;
    for salt in 1..=1000 {
        let header = child(tree.node(tip).hash, salt, EASY);
        tip = tree.insert(&header, header.block_hash(), tip);
    }
    let locator = tree.locator(tip);
    let heights: Vec<u32> = locator.iter().map(|hash| tree.node(tree.get(hash).unwrap()).height).collect();
    assert_eq!(heights[..12], [1000, 999, 998, 997, 996, 995, 994, 993, 992, 991, 990, 989]);
    assert_eq!(heights.last(), Some(&0));
    assert!(heights.len() < 25, "a locator of 1000 blocks has {} hashes", heights.len());
}

/// 900,000 headers must be at hand about a second after the start, and cost about 200 bytes each.
#[test]
fn a_header_costs_at_most_200_bytes() {
    assert!(
        size_of::<Node>() <= 184,
        "a node takes {} bytes; index and active chain take about 12 more",
        size_of::<Node>()
    );
}

#[test]
fn of_children_that_waited_for_their_parent_the_first_seen_wins() {
    let mut tree = Tree::new(&child(BlockHash::all_zeros(), 0, EASY));
    tree.set_block(Id::GENESIS, pos(0), 1, 200);
    let add = |tree: &mut Tree, parent: Id, salt: u32| {
        let header = child(tree.node(parent).hash, salt, EASY);
        tree.insert(&header, header.block_hash(), parent)
    };
    let parent = add(&mut tree, Id::GENESIS, 1);
    let [later, first] = [2, 3].map(|salt| add(&mut tree, parent, salt));
    // Whichever header was there first: what counts is when the block came.
    for (number, id) in [(1, first), (2, later), (3, parent)] {
        tree.set_block(id, pos(number), 1, 200);
    }
    assert_eq!(tree.candidate(), first, "both became complete at once, and this one came before the other");
}
