//! Transactions whose parents are missing, and those that are good only together with a child.

use super::transactions::*;
use super::*;
use crate::protocol::{Input, Policy};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{OutPoint, Transaction, TxIn, Txid};
use groat_chain::block::Block;
use groat_chain::rejection::Rejection;
use proptest::prelude::*;

/// A child of these with this fee rate; `n` makes it another.
fn child(parents: &[&Transaction], n: u64, rate: u32) -> Arc<Transaction> {
    let mut child = (*tx(n, rate)).clone();
    let spends = |parent: &&Transaction| TxIn {
        previous_output: OutPoint { txid: parent.compute_txid(), vout: 0 },
        ..TxIn::default()
    };
    child.input = parents.iter().map(spends).collect();
    Arc::new(child)
}

fn item(tx: &Transaction) -> Inventory {
    Inventory::WTx(tx.compute_wtxid())
}

fn by_txid(tx: &Transaction) -> Inventory {
    Inventory::WitnessTransaction(tx.compute_txid())
}

fn pool(world: &World, txs: &[&Arc<Transaction>]) -> Vec<bool> {
    txs.iter().map(|tx| world.nodes[0].chain.pool.contains_key(&tx.compute_wtxid())).collect()
}

fn orphans(world: &World) -> (usize, usize) {
    world.nodes[0].protocol.orphans()
}

const TWO: [LinkKind; 2] = [LinkKind::OutboundFull; 2];

#[test]
fn parents_are_asked_for_by_txid_of_each_who_announced_the_child() {
    let (mut world, friends) = node_with_friends(&TWO);
    let parent = tx(1, 2000);
    let orphan = child(&[&parent], 2, 2000);
    let both = [friends[0].0, friends[1].0];
    both.iter().for_each(|own| world.say(*own, Message::Inv(vec![item(&orphan)])));
    world.run_for(SECOND);
    let asked = both.map(|own| wanted(&answer_pings(&mut world, own)));
    let first = asked.iter().position(|asked| *asked == [item(&orphan)]).expect("one of them is asked");
    world.say(both[first], Message::Tx(orphan.clone()));
    world.run_for(SECOND);
    assert_eq!(orphans(&world), (1, 2), "both could give its parent");
    assert_eq!(both.map(|own| wanted(&answer_pings(&mut world, own)).len()), [0, 0], "the parent may be on its way");
    world.run_for(2 * SECOND);
    let asked = both.map(|own| wanted(&answer_pings(&mut world, own)));
    let second = asked.iter().position(|asked| *asked == [by_txid(&parent)]).expect("one of them is asked");
    world.say(both[second], Message::NotFound(vec![by_txid(&parent)]));
    world.run_for(SECOND);
    assert_eq!(wanted(&answer_pings(&mut world, both[1 - second])), [by_txid(&parent)]);
    world.say(both[1 - second], Message::Tx(parent.clone()));
    world.run_for(SECOND);
    assert_eq!(pool(&world, &[&parent, &orphan]), [true, true]);
    assert_eq!(orphans(&world), (0, 0));
    // Those who announced it know it.
    world.run_for(MINUTE);
    assert_eq!(both.map(|own| invs(&answer_pings(&mut world, own)).contains(&orphan.compute_wtxid())), [false; 2]);
}

#[test]
fn a_later_announcer_of_an_orphan_is_asked_for_its_parents_not_for_it() {
    let (mut world, friends) = node_with_friends(&TWO);
    let parent = tx(1, 2000);
    let orphan = child(&[&parent], 2, 2000);
    world.say(friends[0].0, Message::Tx(orphan.clone()));
    world.run_for(SECOND);
    world.cut(friends[0].0);
    world.run_for(SECOND);
    assert_eq!(orphans(&world), (0, 0), "with the only peer that has it, it is forgotten");
    world.say(friends[1].0, Message::Tx(orphan.clone()));
    let (late, _) = friend(&mut world, LinkKind::OutboundFull, Permissions::default());
    world.say(late, Message::Inv(vec![item(&orphan)]));
    world.run_for(3 * SECOND);
    assert_eq!(orphans(&world), (1, 2));
    let asked = [friends[1].0, late].map(|own| wanted(&answer_pings(&mut world, own)));
    assert_eq!(asked.concat(), [by_txid(&parent)]);
}

/// Else each of fifty thousand announcements in one message would have its parents looked up again.
#[test]
fn an_orphan_is_looked_through_once_for_each_who_announces_it() {
    let (mut world, friends) = node_with_friends(&TWO);
    let mut parent = (*tx(1, 2000)).clone();
    parent.input[0].witness.push([1]);
    world.nodes[0].chain.refused.insert(parent.compute_wtxid(), Rejection::BadTxnsNonstandardInputs);
    let orphan = child(&[&parent], 2, 2000);
    world.say(friends[0].0, Message::Tx(orphan.clone()));
    world.run_for(SECOND);
    world.say(friends[0].0, Message::Tx(Arc::new(parent)));
    world.run_for(SECOND);
    assert_eq!(orphans(&world), (1, 1), "its parent was refused after it came");
    world.say(friends[1].0, Message::Inv(vec![item(&orphan); 3]));
    world.run_for(5 * SECOND);
    assert_eq!(orphans(&world), (1, 2), "though nothing is asked for, it is written down who has it");
    assert_eq!(wanted(&answer_pings(&mut world, friends[1].0)), []);
}

#[test]
fn of_the_many_who_announce_an_orphan_with_thousands_of_parents_few_are_asked() {
    let mut kinds = [LinkKind::Inbound; 12];
    kinds[..2].fill(LinkKind::OutboundFull);
    let (mut world, friends) = node_with_friends(&kinds);
    let mut orphan = (*tx(1, 2000)).clone();
    let parent = |n: u32| Txid::from_byte_array(bitcoin::hashes::sha256::Hash::hash(&n.to_le_bytes()).to_byte_array());
    let spends = |n| TxIn { previous_output: OutPoint { txid: parent(n), vout: 0 }, ..TxIn::default() };
    orphan.input = (0..2000).map(spends).collect();
    let orphan = Arc::new(orphan);
    for (own, _) in &friends[1..] {
        world.say(*own, Message::Inv(vec![item(&orphan)]));
    }
    world.run_for(SECOND);
    world.say(friends[1].0, Message::Tx(orphan.clone()));
    world.run_for(SECOND);
    assert_eq!(orphans(&world), (1, 5), "five times two thousand parents");
    world.say(friends[0].0, Message::Inv(vec![item(&orphan)]));
    world.run_for(SECOND);
    assert_eq!(orphans(&world), (1, 6), "a peer that we dialled comes on top");
    let asked = friends.iter().filter(|(_, theirs)| world.nodes[0].protocol.load(*theirs).0 >= 2000).count();
    assert_eq!(asked, 6);
}

#[test]
fn a_chain_of_orphans_follows_its_parent_from_whomever_it_comes() {
    let (mut world, friends) = node_with_friends(&TWO);
    let parent = tx(1, 2000);
    let first = child(&[&parent], 2, 2000);
    let second = child(&[&first], 3, 2000);
    let third = child(&[&second, &parent], 4, 2000);
    for orphan in [&third, &second, &first] {
        world.say(friends[0].0, Message::Tx(orphan.clone()));
    }
    world.run_for(SECOND);
    assert_eq!(orphans(&world).0, 3);
    world.give_tx(0, parent.clone());
    world.run_for(SECOND);
    assert_eq!(pool(&world, &[&first, &second, &third]), [true; 3]);
    assert_eq!(orphans(&world), (0, 0));
}

#[test]
fn the_child_of_a_refused_parent_is_refused() {
    let (mut world, friends) = node_with_friends(&TWO);
    let parent = tx(1, 2000);
    let orphan = child(&[&parent], 2, 2000);
    world.nodes[0].chain.refused.insert(parent.compute_wtxid(), Rejection::BadTxnsNonstandardInputs);
    world.say(friends[0].0, Message::Tx(parent));
    world.say(friends[0].0, Message::Tx(orphan.clone()));
    world.run_for(SECOND);
    assert_eq!(orphans(&world), (0, 0));
    world.say(friends[1].0, Message::Inv(vec![item(&orphan)]));
    world.run_for(5 * SECOND);
    assert_eq!(wanted(&answer_pings(&mut world, friends[1].0)), []);
    assert_eq!(world.nodes[0].ended, [], "nobody is punished for a transaction");
}

#[test]
fn inputs_that_no_witness_mends_are_remembered_by_txid_too() {
    let (mut world, friends) = node_with_friends(&TWO);
    let mut whole = (*tx(1, 2000)).clone();
    whole.input[0].witness.push([1]);
    let mut other = whole.clone();
    other.input[0].witness.push([2]);
    for (refused, rejection) in [(&whole, Rejection::BadTxnsNonstandardInputs), (&other, Rejection::BadTxnsInBelowout)]
    {
        world.nodes[0].chain.refused.insert(refused.compute_wtxid(), rejection);
    }
    let (orphan, judged) = (child(&[&whole], 2, 2000), |world: &World| world.nodes[0].chain.judged);
    world.say(friends[0].0, Message::Tx(Arc::new(other.clone())));
    world.say(friends[0].0, Message::Tx(orphan.clone()));
    world.run_for(SECOND);
    assert_eq!((judged(&world), orphans(&world).0), (2, 1), "another witness may be good: the parent is asked for");
    world.say(friends[0].0, Message::Tx(Arc::new(whole.clone())));
    world.run_for(SECOND);
    world.say(friends[1].0, Message::Tx(child(&[&whole], 3, 2000)));
    world.run_for(5 * SECOND);
    assert_eq!(orphans(&world).0, 1, "this one will not be");
    assert_eq!(wanted(&answer_pings(&mut world, friends[1].0)), []);
}

#[test]
fn a_cheap_parent_is_taken_with_its_child_in_either_order() {
    for child_first in [false, true] {
        let (mut world, friends) = node_with_friends(&TWO);
        let parent = tx(1, 100);
        let payer = child(&[&parent], 2, 5000);
        if !child_first {
            world.say(friends[0].0, Message::Tx(parent.clone()));
            world.run_for(SECOND);
            world.say(friends[1].0, Message::Inv(vec![item(&parent)]));
            world.run_for(5 * SECOND);
            assert_eq!(wanted(&answer_pings(&mut world, friends[1].0)), [], "alone it is not wanted any more");
        }
        world.say(friends[0].0, Message::Tx(payer.clone()));
        world.run_for(5 * SECOND);
        assert_eq!(wanted(&answer_pings(&mut world, friends[0].0)), [by_txid(&parent)]);
        world.say(friends[0].0, Message::Tx(parent.clone()));
        world.run_for(SECOND);
        assert_eq!(pool(&world, &[&parent, &payer]), [true, true], "child first: {child_first}");
        assert_eq!(orphans(&world), (0, 0));
        world.run_for(MINUTE);
        let told = invs(&answer_pings(&mut world, friends[1].0));
        assert_eq!(told.len(), 2, "both are announced");
    }
}

#[test]
fn a_refused_package_is_not_tried_again_and_another_child_is() {
    let (mut world, friends) = node_with_friends(&TWO);
    let parent = tx(1, 100);
    let (poor, rich) = (child(&[&parent], 2, 1100), child(&[&parent], 3, 9000));
    let judged = |world: &World| world.nodes[0].chain.judged;
    world.say(friends[0].0, Message::Tx(poor.clone()));
    world.say(friends[0].0, Message::Tx(parent.clone()));
    world.run_for(SECOND);
    assert_eq!(judged(&world), 4, "each alone, then both");
    assert_eq!(orphans(&world), (0, 0), "the child was refused with its parent");
    world.say(friends[0].0, Message::Tx(poor.clone()));
    world.say(friends[0].0, Message::Tx(parent.clone()));
    world.run_for(SECOND);
    assert_eq!(judged(&world), 4, "neither is judged again");
    // Somebody else's child, however good, is not tried with this peer's parent.
    world.say(friends[1].0, Message::Tx(rich.clone()));
    world.run_for(SECOND);
    world.say(friends[0].0, Message::Tx(parent.clone()));
    world.run_for(SECOND);
    assert_eq!((judged(&world), pool(&world, &[&parent, &rich])), (5, vec![false, false]));
    world.say(friends[1].0, Message::Tx(parent.clone()));
    world.run_for(SECOND);
    assert_eq!(pool(&world, &[&parent, &rich]), [true, true]);
}

#[test]
fn two_cheap_parents_are_too_many() {
    let (mut world, friends) = node_with_friends(&TWO);
    let (one, two) = (tx(1, 100), tx(2, 100));
    let payer = child(&[&one, &two], 3, 9000);
    for sent in [one, two, payer] {
        world.say(friends[0].0, Message::Tx(sent));
    }
    world.run_for(5 * SECOND);
    assert_eq!(orphans(&world), (0, 0));
    assert_eq!(wanted(&answer_pings(&mut world, friends[0].0)), []);
}

#[test]
fn a_flood_of_orphans_and_fake_children_does_not_keep_an_honest_pair_out() {
    let (mut world, friends) = node_with_friends(&TWO);
    let (flooder, honest) = (friends[0].0, friends[1].0);
    let parent = tx(1, 100);
    let payer = child(&[&parent], 2, 5000);
    world.say(honest, Message::Tx(payer.clone()));
    world.run_for(SECOND);
    for n in 0..4000 {
        let unknown = tx(1_000_000 + n, 2000);
        let fake = if n % 2 == 0 { child(&[&parent], 10 + n, 1) } else { child(&[&unknown], 10 + n, 2000) };
        world.say(flooder, Message::Tx(fake));
    }
    world.run_for(30 * SECOND);
    let (all, announced) = orphans(&world);
    assert!(all <= 3000 && announced <= 3000, "{all} orphans, {announced} announcements");
    assert_eq!(wanted(&answer_pings(&mut world, honest)), [by_txid(&parent)]);
    world.say(honest, Message::Tx(parent.clone()));
    world.run_for(SECOND);
    assert_eq!(pool(&world, &[&parent, &payer]), [true, true]);
    assert_eq!(world.nodes[0].ended, []);
    world.cut(flooder);
    world.run_for(SECOND);
    assert_eq!(orphans(&world), (0, 0), "all of the flood went with the flooder");
}

/// A block of these transactions; its header means nothing.
fn block(txs: &[&Arc<Transaction>]) -> Arc<Block> {
    let header = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header;
    Arc::new(Block {
        header,
        hash: header.block_hash(),
        transactions: txs.iter().map(|tx| (***tx).clone()).collect(),
        txids: txs.iter().map(|tx| tx.compute_txid()).collect::<Vec<Txid>>(),
        wtxids: txs.iter().map(|tx| tx.compute_wtxid()).collect(),
        size: 0,
        stripped_size: 0,
    })
}

#[test]
fn what_was_confirmed_is_served_not_asked_for_and_wanted_again_after_a_reorganisation() {
    let (mut world, friends) = node_with_friends(&TWO);
    let parent = tx(1, 2000);
    let (orphan, other) = (child(&[&parent], 2, 2000), child(&[&parent], 3, 2000));
    world.say(friends[0].0, Message::Tx(other));
    world.run_for(SECOND);
    let params = params();
    let next = Miner::new(params.clone(), 0).mine(params.genesis_hash, 6).remove(5);
    world.give_block(0, &next);
    world.inform(0, Input::BlockConnected(block(&[&parent, &orphan])));
    assert_eq!(orphans(&world), (0, 0), "what spends the same can never be");
    let ask = |world: &mut World, item: Inventory| {
        world.say(friends[1].0, Message::Inv(vec![item]));
        world.run_for(5 * SECOND);
        wanted(&answer_pings(world, friends[1].0))
    };
    assert_eq!(ask(&mut world, item(&orphan)), []);
    world.say(friends[0].0, Message::GetData(vec![item(&orphan), item(&tx(9, 2000))]));
    world.run_for(SECOND);
    let heard = answer_pings(&mut world, friends[0].0);
    assert!(heard.contains(&Arc::new(Message::Tx(orphan.clone()))), "it is served from the block: {:?}", names(&heard));
    assert!(heard.contains(&Arc::new(Message::NotFound(vec![item(&tx(9, 2000))]))));
    for block in Miner::new(params.clone(), 1).mine(params.genesis_hash, 8) {
        world.give_block(0, &block);
    }
    assert_eq!(ask(&mut world, item(&orphan)), [item(&orphan)]);
}

/// Transactions that hang together in all the ways there are: good, cheap and refused parents, children of one and of
/// two, with other witnesses, and a grandchild.
fn family() -> Vec<Arc<Transaction>> {
    let other_witness = |tx: &Arc<Transaction>| {
        let mut other = (**tx).clone();
        other.input[0].witness.push([1]);
        Arc::new(other)
    };
    let (good, cheap, bad) = (tx(1, 2000), tx(2, 100), tx(3, 2000));
    let (one, payer, both) = (child(&[&good], 4, 2000), child(&[&cheap], 5, 9000), child(&[&good, &cheap], 6, 9000));
    let (poor, cursed, grandchild) = (child(&[&cheap], 7, 200), child(&[&bad], 8, 2000), child(&[&one], 9, 2000));
    let others = [other_witness(&good), other_witness(&one), other_witness(&bad)];
    [good, cheap, bad, one, payer, both, poor, cursed, grandchild].into_iter().chain(others).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_order_of_transactions_and_announcements_leaves_anything_behind(
        steps in prop::collection::vec((0usize..3, 0u8..8, 0usize..12, 0u64..5000), 0..120),
        hedged in any::<bool>(),
    ) {
        let kinds = [LinkKind::OutboundFull, LinkKind::Inbound, LinkKind::Inbound];
        let policy = if hedged { Policy::Groat } else { Policy::Core };
        let (mut world, mut friends) = configured_node_with_friends(&kinds, |config| config.relay = policy);
        let family = family();
        for refused in [2, 11] {
            world.nodes[0].chain.refused.insert(family[refused].compute_wtxid(), Rejection::BadTxnsNonstandardInputs);
        }
        for (who, what, which, wait) in steps {
            let (own, tx) = (friends[who].0, &family[which]);
            match what {
                0 | 1 => world.say(own, Message::Inv(vec![item(tx)])),
                2 | 3 => world.say(own, Message::Tx(tx.clone())),
                4 => world.say(own, Message::NotFound(vec![item(tx), by_txid(tx)])),
                5 => world.say(own, Message::GetData(vec![item(tx), by_txid(tx)])),
                6 if which < 3 => world.inform(0, Input::BlockConnected(block(&[tx]))),
                7 if which < 6 => {
                    world.cut(own);
                    friends[who] = friend(&mut world, kinds[who], Permissions::default());
                }
                _ => world.give_tx(0, tx.clone()),
            }
            world.run_for(Duration::from_millis(wait));
        }
        world.run_for(10 * MINUTE);
        prop_assert_eq!(&world.nodes[0].ended, &[], "nobody is punished for a transaction");
        for (own, _) in friends {
            world.cut(own);
        }
        world.run_for(MINUTE);
        prop_assert_eq!(orphans(&world), (0, 0));
        prop_assert_eq!(world.nodes[0].protocol.deadline(), None, "nothing is waited for any more");
    }
}
