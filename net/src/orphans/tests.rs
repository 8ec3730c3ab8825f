//! Orphans, at their bounds too.

use super::*;
use bitcoin::{Amount, ScriptBuf, TxIn, TxOut, absolute, transaction};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// An orphan that spends these outputs; `n` makes it another, `padding` heavier.
fn orphan(n: u64, spends: &[(u8, u32)], padding: usize) -> Named {
    let input = |(parent, vout): &(u8, u32)| TxIn {
        previous_output: OutPoint { txid: Txid::from_byte_array([*parent; 32]), vout: *vout },
        ..TxIn::default()
    };
    Named::new(Arc::new(Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: spends.iter().map(input).collect(),
        output: vec![TxOut { value: Amount::from_sat(n), script_pubkey: ScriptBuf::from(vec![0; padding]) }],
    }))
}

fn empty(orphan_weight_per_peer: u64, orphan_score: u64) -> Orphans {
    Orphans::new(&Limits { orphan_weight_per_peer, orphan_score, ..Limits::default() })
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn due(orphans: &mut Orphans, peer: u64) -> Vec<Wtxid> {
    std::iter::from_fn(|| orphans.take_due(PeerId(peer))).map(|one| one.wtxid).collect()
}

/// All sums and both indexes are what the orphans say, and the bounds hold.
fn check(orphans: &Orphans) {
    let weight: u64 = orphans.all.values().map(|orphan| orphan.weight).sum();
    let score: u64 = orphans.all.values().map(|orphan| orphan.inputs_score() + orphan.announcers.len() as u64).sum();
    assert_eq!((orphans.weight, orphans.score), (weight, score));
    let spends = |orphan: &Orphan| {
        let wtxid = orphan.one.wtxid;
        orphan.one.tx.input.iter().map(move |input| (input.previous_output, wtxid)).collect::<Vec<_>>()
    };
    assert_eq!(orphans.spenders, orphans.all.values().flat_map(spends).collect());
    for (peer, share) in &orphans.shares {
        let own = orphans.all.values().filter(|orphan| orphan.announcers.contains_key(peer));
        let queue = own.clone().map(|one| (one.due == Some(*peer), one.announcers[peer], one.one.wtxid)).collect();
        assert_eq!(share.queue, queue, "what {peer:?} has");
        assert_eq!(share.weight, own.clone().map(|one| one.weight).sum::<u64>());
        assert_eq!(share.score, own.map(|one| 1 + one.inputs_score()).sum::<u64>());
        assert!(!share.queue.is_empty(), "{peer:?} has nothing and is remembered");
    }
    let announcements: usize = orphans.all.values().map(|orphan| orphan.announcers.len()).sum();
    assert_eq!(orphans.count(), (orphans.all.len(), announcements));
    assert!(orphans.all.values().all(|orphan| !orphan.announcers.is_empty()));
    assert!(orphans.score <= orphans.most_score);
    let preferred = orphans.shares.values().filter(|share| share.preferred).count() as u64;
    assert_eq!(orphans.preferred, preferred);
    let others = orphans.shares.len() as u64 - preferred;
    let most = preferred * orphans.weight_per_peer + orphans.weight_in_all.min(others * orphans.weight_per_peer);
    assert!(orphans.weight <= most, "{} of {most}", orphans.weight);
}

#[test]
fn a_flood_pushes_out_the_flooders_own_and_nobody_elses() {
    let mut orphans = empty(404_000, 30);
    let honest: Vec<Named> = (0..5).map(|n| orphan(n, &[(n as u8, 0)], 0)).collect();
    honest.iter().for_each(|one| orphans.add(one, PeerId(1), false));
    for n in 100..1000 {
        orphans.add(&orphan(n, &[(200, n as u32)], 0), PeerId(2), false);
        check(&orphans);
    }
    assert!(honest.iter().all(|one| orphans.is_announced_by(&one.wtxid, PeerId(1))));
    assert_eq!(orphans.count(), (30, 30), "the newest of the flood fill the rest");
    assert!(orphans.get(&orphan(999, &[(200, 999)], 0).wtxid).is_some());
    // Announcing the honest ones, too, does not help it to push them out.
    honest.iter().for_each(|one| orphans.add_announcer(&one.wtxid, PeerId(2), false));
    (1000..2000).for_each(|n| orphans.add(&orphan(n, &[(200, n as u32)], 0), PeerId(2), false));
    check(&orphans);
    assert!(honest.iter().all(|one| orphans.is_announced_by(&one.wtxid, PeerId(1))));
}

#[test]
fn a_crowd_of_flooders_fills_no_more_than_the_crowds_part_and_takes_nothing_from_dialled_peers() {
    let limits =
        Limits { orphan_weight_per_peer: 40_000, orphan_weight_in_all: 100_000, orphan_score: 60, ..Limits::default() };
    let mut orphans = Orphans::new(&limits);
    // 20 small ones of a peer that we dialled, one of an honest peer that dialled us.
    let dialled: Vec<Named> = (0..20).map(|n| orphan(n, &[(n as u8, 0)], 0)).collect();
    dialled.iter().for_each(|one| orphans.add(one, PeerId(1), true));
    let inbound = orphan(50, &[(50, 0)], 0);
    orphans.add(&inbound, PeerId(2), false);
    for n in 100..1000 {
        let flooder = PeerId(10 + n % 30);
        orphans.add(&orphan(n, &[(200, n as u32)], if n % 2 == 0 { 2000 } else { 0 }), flooder, false);
        check(&orphans);
    }
    assert!(dialled.iter().all(|one| orphans.is_announced_by(&one.wtxid, PeerId(1))), "half of the score is theirs");
    assert!(orphans.is_announced_by(&inbound.wtxid, PeerId(2)), "each peer that dialled us has its part");
    assert!(orphans.count().0 > 40, "what dialled peers leave the others may use");
    // Weight: many who dialled us have less each, those whom we dialled have as much as ever.
    let mut orphans = Orphans::new(&Limits { orphan_score: 3000, ..limits });
    orphans.add(&orphan(1, &[(1, 0)], 9_000), PeerId(1), true);
    (100..200).for_each(|n| orphans.add(&orphan(n, &[(2, n as u32)], 1_000), PeerId(n), false));
    check(&orphans);
    assert!(orphans.weight > 120_000 && orphans.announcers(&orphan(1, &[(1, 0)], 9_000).wtxid) == 1);
}

#[test]
fn many_inputs_and_much_weight_count_for_more() {
    let many: Vec<(u8, u32)> = (0..200).map(|vout| (9, vout)).collect();
    let mut orphans = empty(404_000, 30);
    orphans.add(&orphan(1, &[(1, 0)], 0), PeerId(1), false);
    orphans.add(&orphan(2, &many[..100], 0), PeerId(2), false);
    assert_eq!(orphans.count().0, 2, "1 and 11 of 30");
    orphans.add(&orphan(3, &many, 0), PeerId(2), false);
    check(&orphans);
    assert_eq!(orphans.count().0, 2, "the oldest of who has most went");
    assert!(orphans.get(&orphan(2, &many[..100], 0).wtxid).is_none());

    let mut orphans = empty(404_000, 3000);
    let heavy = |n| orphan(n, &[(1, 0)], 90_000);
    orphans.add(&heavy(1), PeerId(1), false);
    orphans.add(&heavy(2), PeerId(1), false);
    check(&orphans);
    assert_eq!(orphans.count().0, 1, "two do not fit into one peer's reserve");
    orphans.add(&heavy(3), PeerId(2), false);
    assert_eq!(orphans.count().0, 2, "each peer brings its own");
    orphans.add(&orphan(4, &[(1, 0)], 100_000), PeerId(3), false);
    assert_eq!(orphans.count().0, 2, "no pool takes that much weight");
    orphans.on_gone(PeerId(2));
    check(&orphans);
    assert_eq!(orphans.count().0, 1);
}

#[test]
fn a_parent_makes_its_children_due_once_each() {
    let mut orphans = empty(404_000, 3000);
    let (both, other) = (orphan(1, &[(1, 0), (1, 3)], 0), orphan(2, &[(2, 0)], 0));
    for peer in 1..=3 {
        orphans.add(&both, PeerId(peer), false);
    }
    orphans.add(&other, PeerId(1), false);
    let parent = Txid::from_byte_array([1; 32]);
    let peers = orphans.on_parent(parent, &mut rng());
    assert_eq!(peers.len(), 1, "one of those who announced it");
    assert_eq!(orphans.on_parent(parent, &mut rng()), BTreeSet::new(), "it is due already");
    check(&orphans);
    let judged: Vec<Wtxid> = (1..=3).flat_map(|peer| due(&mut orphans, peer)).collect();
    assert_eq!(judged, [both.wtxid]);
    check(&orphans);
    assert_eq!(orphans.count(), (2, 4), "until it is judged it stays");
    let mut announcers = orphans.erase(&both.wtxid);
    announcers.sort_unstable();
    assert_eq!(announcers, [PeerId(1), PeerId(2), PeerId(3)]);
    check(&orphans);
}

#[test]
fn children_of_one_peer_come_newest_first() {
    let mut orphans = empty(404_000, 3000);
    let children: Vec<Named> = (0..3).map(|n| orphan(n, &[(1, 0)], 0)).collect();
    children.iter().for_each(|one| orphans.add(one, PeerId(1), false));
    orphans.add(&orphan(7, &[(2, 0)], 0), PeerId(1), false);
    orphans.add(&orphan(8, &[(1, 0)], 0), PeerId(2), false);
    let found = orphans.children(Txid::from_byte_array([1; 32]), PeerId(1));
    let expected: Vec<Wtxid> = children.iter().rev().map(|one| one.wtxid).collect();
    assert_eq!(found.map(|one| one.wtxid).collect::<Vec<_>>(), expected);
    // Who sends the parent again and again does not have thousands looked through each time.
    (0..MAX_LOOKED_THROUGH as u64).for_each(|n| orphans.add(&orphan(100 + n, &[(2, 0)], 0), PeerId(1), false));
    assert_eq!(orphans.children(Txid::from_byte_array([1; 32]), PeerId(1)).count(), 0);
}

#[test]
fn a_block_takes_what_it_has_and_what_conflicts_with_it() {
    let mut orphans = empty(404_000, 3000);
    let (inside, conflict, free) = (orphan(1, &[(1, 0)], 0), orphan(2, &[(1, 0), (5, 1)], 0), orphan(3, &[(1, 1)], 0));
    [&inside, &conflict, &free].into_iter().for_each(|one| orphans.add(one, PeerId(1), false));
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    let block = Block {
        header: genesis.header,
        hash: genesis.block_hash(),
        transactions: vec![(*inside.tx).clone()],
        txids: vec![inside.txid],
        wtxids: vec![inside.wtxid],
        size: 0,
        stripped_size: 0,
    };
    orphans.on_block(&block);
    check(&orphans);
    let left: Vec<bool> = [inside, conflict, free].iter().map(|one| orphans.get(&one.wtxid).is_some()).collect();
    assert_eq!(left, [false, false, true]);
}

proptest! {
    #[test]
    fn whatever_happens_the_sums_and_the_bounds_hold(
        steps in prop::collection::vec((0..6u8, 0..20u64, 1..5u64, 0..30usize), 1..200)
    ) {
        let limits =
            Limits { orphan_weight_per_peer: 4000, orphan_weight_in_all: 6000, orphan_score: 12, ..Limits::default() };
        let mut orphans = Orphans::new(&limits);
        let mut rng = rng();
        for (what, n, peer, size) in steps {
            let spends: Vec<(u8, u32)> = (0..=size as u32 / 2).map(|vout| ((n % 3) as u8, vout)).collect();
            let one = orphan(n, &spends, size * 10);
            match what {
                0..=1 => orphans.add(&one, PeerId(peer), peer == 1),
                2 => orphans.add_announcer(&one.wtxid, PeerId(peer), peer == 1),
                3 => drop(orphans.erase(&one.wtxid)),
                4 => drop(orphans.on_parent(Txid::from_byte_array([(n % 3) as u8; 32]), &mut rng)),
                _ if n < 3 => orphans.on_gone(PeerId(peer)),
                _ => drop(orphans.take_due(PeerId(peer))),
            }
            check(&orphans);
        }
    }
}
