//! Compact blocks: pushed and asked for, filled and served, and what a hostile peer can do with them.

use super::*;
use crate::protocol::{Input, Policy};
use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds, PrefilledTransaction, ShortId};
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, Witness, absolute, transaction};
use groat_chain::block::Block;
use groat_chain::rejection::Rejection;

/// A payment with a witness; `n` makes it another.
fn payment(n: u32) -> Transaction {
    let spent = OutPoint { txid: Txid::from_byte_array([7; 32]), vout: n };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output: spent, witness: Witness::from_slice(&[[9]]), ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(n.into()), script_pubkey: ScriptBuf::new() }],
    }
}

fn payments(count: u32) -> Vec<Transaction> {
    (0..count).map(payment).collect()
}

fn decoded(block: &Mined) -> Block {
    Block::decode(&block.bytes).expect("mined here")
}

/// The compact block of a block.
fn compact(block: &Mined, nonce: u64) -> HeaderAndShortIds {
    crate::compact::compact_block(&decoded(block), nonce, &[])
}

fn push(block: &Mined) -> Message {
    Message::CmpctBlock(Arc::new(compact(block, 5)))
}

/// Transactions of a block by their places, as `blocktxn`.
fn parts(block: &Mined, places: &[usize]) -> Message {
    let transactions = places.iter().map(|place| decoded(block).transactions[*place].clone()).collect();
    Message::BlockTxn(BlockTransactions { block_hash: block.hash, transactions })
}

fn give_pool(world: &mut World, node: usize, transactions: &[Transaction]) {
    for tx in transactions {
        world.nodes[node].chain.pool.insert(tx.compute_wtxid(), Arc::new(tx.clone()));
    }
}

fn know_compact(world: &mut World, own: PeerId) {
    world.say(own, Message::SendCmpct { announce: 0, version: 2 });
}

/// Node 0 with twenty blocks, a miner to go on with, and a peer of each kind that pushes blocks to it, as each gave it
/// one. What they heard is forgotten.
struct Scene {
    world: World,
    miner: Miner,
    tip: Mined,
    pushers: Vec<(PeerId, PeerId)>,
}

fn scene(kinds: &[LinkKind]) -> Scene {
    scene_under(Policy::Core, kinds)
}

fn scene_under(relay: Policy, kinds: &[LinkKind]) -> Scene {
    let params = params();
    let mut miner = Miner::new(params.clone(), 0);
    let mut chain = miner.mine(params.genesis_hash, 20);
    let mut world = World::new(1, when(&params, 20));
    let mut known = Chain::new(params.clone());
    known.load(&chain);
    world.add(crate::protocol::Config { relay, ..World::config(&params) }, known);
    let mut pushers = Vec::new();
    for kind in kinds {
        let (own, theirs) = befriend(&mut world, *kind, Permissions::default());
        know_compact(&mut world, own);
        let block = miner.mine(chain.last().expect("never empty").hash, 1).remove(0);
        world.say(own, Message::Block(block.bytes.clone()));
        world.run_for(SECOND);
        chain.push(block);
        pushers.push((own, theirs));
    }
    pushers.iter().for_each(|(own, _)| drop(answer_pings(&mut world, *own)));
    Scene { world, miner, tip: chain.pop().expect("never empty"), pushers }
}

impl Scene {
    fn height(&self) -> u32 {
        self.world.nodes[0].chain.height()
    }

    fn heard(&mut self, peer: usize) -> Vec<Message> {
        let own = self.pushers[peer].0;
        answer_pings(&mut self.world, own).iter().map(|message| (**message).clone()).collect()
    }

    fn say(&mut self, peer: usize, message: Message) {
        self.world.say(self.pushers[peer].0, message);
        self.world.run_for(SECOND / 10);
    }

    fn mine(&mut self, transactions: &[Transaction]) -> Mined {
        self.miner.mine_with(self.tip.hash, transactions)
    }

    /// Nobody was disconnected but those that a test gives.
    fn only_ended(&self, expected: &[(usize, Reason)]) {
        let expected: Vec<_> = expected.iter().map(|(peer, reason)| (self.pushers[*peer].1, *reason)).collect();
        assert_eq!(self.world.nodes[0].ended, expected);
    }
}

fn asked_whole(block: &Mined) -> Message {
    Message::GetData(vec![Inventory::WitnessBlock(block.hash)])
}

fn asked_parts(block: &Mined, indexes: &[u64]) -> Message {
    Message::GetBlockTxn(BlockTransactionsRequest { block_hash: block.hash, indexes: indexes.to_vec() })
}

use LinkKind::{Inbound, OutboundFull};

#[test]
fn a_pushed_block_of_known_transactions_needs_no_round_trip() {
    let mut scene = scene(&[Inbound]);
    let block = scene.mine(&payments(50));
    give_pool(&mut scene.world, 0, &payments(60));
    scene.say(0, push(&block));
    assert_eq!(scene.world.nodes[0].chain.tip(), block.hash);
    assert_eq!(scene.heard(0), []);
}

#[test]
fn what_is_missing_is_asked_for_and_nothing_else() {
    let mut scene = scene(&[Inbound]);
    let block = scene.mine(&payments(50));
    give_pool(&mut scene.world, 0, &payments(50)[2..49]);
    scene.say(0, push(&block));
    assert_eq!(scene.heard(0), [asked_parts(&block, &[1, 2, 50])]);
    scene.say(0, parts(&block, &[1, 2, 50]));
    assert_eq!(scene.world.nodes[0].chain.tip(), block.hash);
    scene.only_ended(&[]);
}

#[test]
fn transactions_that_the_pool_refused_are_remembered_for_blocks() {
    let mut scene = scene(&[Inbound]);
    let refused = payment(3);
    scene.world.nodes[0].chain.refused.insert(refused.compute_wtxid(), Rejection::MinRelayFeeNotMet);
    scene.say(0, Message::Tx(Arc::new(refused)));
    assert!(scene.world.nodes[0].chain.pool.is_empty());
    let block = scene.mine(&payments(4));
    give_pool(&mut scene.world, 0, &payments(3));
    scene.say(0, push(&block));
    assert_eq!((scene.world.nodes[0].chain.tip(), scene.heard(0)), (block.hash, Vec::new()));
}

#[test]
fn a_block_announced_alone_is_asked_for_as_a_compact_block() {
    let mut scene = scene(&[Inbound]);
    let (own, _) = inbound(&mut scene.world);
    know_compact(&mut scene.world, own);
    let block = scene.mine(&payments(3));
    give_pool(&mut scene.world, 0, &payments(2));
    scene.world.say(own, Message::Headers(vec![block.header]));
    scene.world.run_for(SECOND);
    let heard = answer_pings(&mut scene.world, own);
    assert!(
        heard.iter().any(|message| **message == Message::GetData(vec![Inventory::CompactBlock(block.hash)])),
        "heard {heard:?}"
    );
    scene.world.say(own, push(&block));
    scene.world.run_for(SECOND);
    assert_eq!(*answer_pings(&mut scene.world, own)[0], asked_parts(&block, &[3]));
    scene.world.say(own, parts(&block, &[3]));
    scene.world.run_for(SECOND);
    assert_eq!(scene.world.nodes[0].chain.tip(), block.hash);
}

#[test]
fn two_missing_blocks_are_asked_for_whole() {
    let mut scene = scene(&[]);
    let (own, _) = inbound(&mut scene.world);
    know_compact(&mut scene.world, own);
    let first = scene.mine(&payments(3));
    let second = scene.miner.mine_with(first.hash, &[]);
    scene.world.say(own, Message::Headers(vec![first.header, second.header]));
    scene.world.run_for(SECOND);
    let heard = answer_pings(&mut scene.world, own);
    let whole = [first.hash, second.hash].map(Inventory::WitnessBlock).to_vec();
    assert!(heard.iter().any(|message| **message == Message::GetData(whole.clone())), "heard {heard:?}");
}

#[test]
fn a_transaction_that_only_has_the_right_short_id_costs_the_whole_block() {
    let mut scene = scene(&[Inbound]);
    let block = scene.mine(&payments(2));
    give_pool(&mut scene.world, 0, &payments(3));
    let mut message = compact(&block, 5);
    let keys = ShortId::calculate_siphash_keys(&message.header, message.nonce);
    message.short_ids[0] = ShortId::with_siphash_keys(&payment(2).compute_wtxid(), keys);
    scene.say(0, Message::CmpctBlock(Arc::new(message)));
    assert_eq!(scene.heard(0), [asked_whole(&block)], "the filled block is not the one that was mined");
    scene.say(0, Message::Block(block.bytes.clone()));
    assert_eq!(scene.world.nodes[0].chain.tip(), block.hash);
    scene.only_ended(&[]);
}

#[test]
fn wrong_transactions_lead_to_the_whole_block_and_a_second_answer_to_the_end() {
    let mut scene = scene(&[Inbound, Inbound]);
    let block = scene.mine(&payments(3));
    let mut other = scene.mine(&payments(6));
    other.hash = block.hash;
    scene.say(0, push(&block));
    assert_eq!(scene.heard(0), [asked_parts(&block, &[1, 2, 3])]);
    scene.say(0, parts(&other, &[4, 5, 6]));
    assert_eq!(scene.heard(0), [asked_whole(&block)]);
    scene.only_ended(&[]);
    scene.say(0, parts(&block, &[1, 2, 3]));
    let what = "previous compact block reconstruction attempt failed";
    scene.only_ended(&[(0, Reason::Misbehaved(what))]);
    // The other one has it at the cost of one round trip.
    scene.say(1, push(&block));
    scene.say(1, parts(&block, &[1, 2, 3]));
    assert_eq!(scene.world.nodes[0].chain.tip(), block.hash);
}

#[test]
fn a_witness_that_was_changed_on_the_way_costs_the_whole_block() {
    let mut scene = scene(&[Inbound]);
    let block = scene.mine(&payments(3));
    give_pool(&mut scene.world, 0, &payments(2));
    scene.say(0, push(&block));
    let mut changed = payment(2);
    changed.input[0].witness = Witness::from_slice(&[[8]]);
    let transactions = vec![changed];
    scene.say(0, Message::BlockTxn(BlockTransactions { block_hash: block.hash, transactions }));
    assert_eq!(scene.heard(0), [asked_parts(&block, &[3]), asked_whole(&block)]);
    scene.say(0, Message::Block(block.bytes.clone()));
    assert_eq!(scene.world.nodes[0].chain.tip(), block.hash);
    scene.only_ended(&[]);
}

#[test]
fn a_peer_that_goes_or_gives_up_leaves_the_block_to_others() {
    let mut scene = scene(&[Inbound, Inbound]);
    let block = scene.mine(&payments(3));
    scene.say(0, push(&block));
    scene.say(1, push(&block));
    scene.world.cut(scene.pushers[0].0);
    scene.world.run_for(SECOND);
    // The second is the first now: it is asked for all when filling fails.
    let mut other = scene.mine(&payments(6));
    other.hash = block.hash;
    scene.say(1, parts(&other, &[4, 5, 6]));
    assert_eq!(scene.heard(1), [asked_parts(&block, &[1, 2, 3]), asked_whole(&block)]);
    scene.world.cut(scene.pushers[1].0);
    scene.world.run_for(SECOND);
    let (own, _) = inbound(&mut scene.world);
    know_compact(&mut scene.world, own);
    scene.world.say(own, Message::Headers(vec![block.header]));
    scene.world.run_for(SECOND);
    scene.world.say(own, push(&block));
    scene.world.say(own, parts(&block, &[1, 2, 3]));
    scene.world.run_for(SECOND);
    assert_eq!(scene.world.nodes[0].chain.tip(), block.hash, "as if nobody had been asked before");
}

#[test]
fn too_few_or_too_many_transactions_are_misbehaviour() {
    for places in [&[1, 2][..], &[1, 2, 3, 3][..], &[][..]] {
        let mut scene = scene(&[Inbound]);
        let block = scene.mine(&payments(3));
        scene.say(0, push(&block));
        scene.say(0, parts(&block, places));
        let what = "invalid compact block/non-matching block transactions";
        scene.only_ended(&[(0, Reason::Misbehaved(what))]);
    }
}

#[test]
fn transactions_that_nobody_asked_for_are_ignored() {
    let mut scene = scene(&[Inbound]);
    let block = scene.mine(&payments(3));
    scene.say(0, parts(&block, &[1, 2, 3]));
    scene.say(0, push(&block));
    scene.say(0, parts(&block, &[1, 2, 3]));
    scene.say(0, parts(&block, &[1, 2, 3]));
    assert_eq!(scene.world.nodes[0].chain.tip(), block.hash);
    scene.only_ended(&[]);
}

#[test]
fn bad_places_are_misbehaviour() {
    let prefilled = |idx: u16, tx: Transaction| PrefilledTransaction { idx, tx };
    let empty = Transaction { input: Vec::new(), output: Vec::new(), ..payment(0) };
    type Spoil = Box<dyn Fn(&mut HeaderAndShortIds)>;
    let cases: [(&str, Spoil); 4] = [
        ("a place behind the end", Box::new(|block| block.prefilled_txs[0].idx = 4)),
        ("a second place behind the end", Box::new(move |block| block.prefilled_txs.push(prefilled(4, payment(0))))),
        ("a transaction that is none", Box::new(move |block| block.prefilled_txs[0].tx = empty.clone())),
        ("nothing at all", Box::new(|block| (block.short_ids, block.prefilled_txs) = (Vec::new(), Vec::new()))),
    ];
    for (name, spoil) in cases {
        let mut scene = scene(&[Inbound]);
        let block = scene.mine(&payments(3));
        let mut message = compact(&block, 5);
        spoil(&mut message);
        scene.say(0, Message::CmpctBlock(Arc::new(message)));
        assert!(scene.world.nodes[0].ended.len() == 1, "{name}");
        scene.only_ended(&[(0, Reason::Misbehaved("invalid compact block"))]);
    }
}

#[test]
fn repeated_short_ids_lead_to_the_whole_block() {
    let mut scene = scene(&[Inbound, Inbound]);
    let block = scene.mine(&payments(3));
    let mut message = compact(&block, 5);
    message.short_ids[1] = message.short_ids[0];
    let crafted = Message::CmpctBlock(Arc::new(message));
    scene.say(0, crafted.clone());
    assert_eq!(scene.heard(0), [asked_whole(&block)]);
    scene.say(0, crafted.clone());
    assert_eq!(scene.heard(0), [], "one try a peer");
    // Beside the first, a try that fails is given up; another may follow.
    scene.say(1, crafted);
    assert_eq!(scene.heard(1), []);
    scene.say(1, push(&block));
    assert_eq!(scene.heard(1), [asked_parts(&block, &[1, 2, 3])]);
    scene.say(1, parts(&block, &[1, 2, 3]));
    assert_eq!(scene.world.nodes[0].chain.tip(), block.hash);
    scene.only_ended(&[]);
}

#[test]
fn who_may_not_push_is_only_heard_as_an_announcement() {
    let mut scene = scene(&[]);
    let (own, theirs) = inbound(&mut scene.world);
    let block = scene.mine(&payments(3));
    scene.world.say(own, push(&block));
    scene.world.run_for(SECOND);
    assert_eq!(scene.world.nodes[0].chain.tree.get(&block.hash), None, "it never said that it knows compact blocks");
    know_compact(&mut scene.world, own);
    give_pool(&mut scene.world, 0, &payments(3));
    scene.world.say(own, push(&block));
    scene.world.run_for(SECOND);
    assert!(scene.world.nodes[0].chain.tree.get(&block.hash).is_some(), "the header counts");
    assert_eq!(scene.height(), 20, "but the block has to be asked for");
    let heard = answer_pings(&mut scene.world, own);
    assert!(
        heard.iter().any(|message| **message == Message::GetData(vec![Inventory::CompactBlock(block.hash)])),
        "heard {heard:?}"
    );
    assert_eq!(reason(&scene.world, theirs), None);
}

#[test]
fn headers_of_low_work_or_without_a_parent_are_not_stored() {
    let params = params_with_work(10);
    let mut miner = Miner::new(params.clone(), 0);
    let chain = miner.mine(params.genesis_hash, 20);
    let mut world = world_with(&params, &[&chain], 20);
    let (own, theirs) = inbound(&mut world);
    know_compact(&mut world, own);
    let weak = Miner::new(params.clone(), 9).mine_with(params.genesis_hash, &payments(1));
    world.say(own, push(&weak));
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].chain.tree.get(&weak.hash), None);
    assert!(!names(&answer_pings(&mut world, own)).contains(&"getheaders"));
    let far = miner.mine(chain[19].hash, 3).remove(2);
    let orphan = miner.mine_with(far.hash, &payments(1));
    world.run_for(3 * MINUTE);
    answer_pings(&mut world, own);
    world.say(own, push(&orphan));
    world.run_for(SECOND);
    assert_eq!(names(&answer_pings(&mut world, own)), ["getheaders"], "an unknown parent");
    assert_eq!(reason(&world, theirs), None);
}

#[test]
fn a_header_without_proof_of_work_is_misbehaviour_an_invalid_block_is_not() {
    let mut scene = scene(&[Inbound, Inbound]);
    let block = scene.mine(&payments(1));
    scene.world.nodes[0].chain.invalid.insert(block.hash);
    scene.say(0, push(&block));
    scene.say(0, parts(&block, &[1]));
    assert!(scene.world.nodes[0].chain.tree.get(&block.hash).is_some());
    scene.say(1, push(&block));
    assert_eq!((scene.heard(1), scene.height()), (Vec::new(), 22), "known to be invalid");
    scene.only_ended(&[]);
    let mut message = compact(&scene.mine(&payments(2)), 5);
    let params = params();
    while groat_chain::rules::pow::check_proof_of_work(message.header.block_hash(), message.header.bits, &params)
        .is_ok()
    {
        message.header.nonce += 1;
    }
    scene.say(1, Message::CmpctBlock(Arc::new(message)));
    scene.only_ended(&[(1, Reason::Misbehaved("invalid header via cmpctblock"))]);
}

#[test]
fn three_may_fill_a_block_at_once_and_the_last_place_is_for_one_that_was_dialled() {
    let mut inbound_only = scene(&[Inbound, Inbound, Inbound]);
    let block = inbound_only.mine(&payments(3));
    let ask = asked_parts(&block, &[1, 2, 3]);
    (0..3).for_each(|peer| inbound_only.say(peer, push(&block)));
    for peer in [0, 1] {
        assert_eq!(inbound_only.heard(peer), std::slice::from_ref(&ask));
    }
    assert_eq!(inbound_only.heard(2), [], "the place is kept");
    // Who cannot be asked can still give a block of which all is here.
    give_pool(&mut inbound_only.world, 0, &payments(3));
    inbound_only.say(2, push(&block));
    assert_eq!(inbound_only.world.nodes[0].chain.tip(), block.hash);
    inbound_only.only_ended(&[]);

    let mut with_dialled = scene(&[OutboundFull, Inbound, Inbound]);
    let block = with_dialled.mine(&payments(3));
    let ask = asked_parts(&block, &[1, 2, 3]);
    for peer in [1, 2, 0] {
        with_dialled.say(peer, push(&block));
        assert_eq!(with_dialled.heard(peer), std::slice::from_ref(&ask), "peer {peer}");
    }
    // Two stall; the third answers.
    with_dialled.say(0, parts(&block, &[1, 2, 3]));
    assert_eq!(with_dialled.world.nodes[0].chain.tip(), block.hash);
    assert!(with_dialled.world.nodes[0].protocol.peers().all(|peer| peer.blocks_in_flight().is_empty()));
    (1..3).for_each(|peer| with_dialled.say(peer, parts(&block, &[1, 2, 3])));
    with_dialled.only_ended(&[]);
}

#[test]
fn a_block_is_reached_within_two_round_trips_whatever_two_pushers_do() {
    let spoilt = |block: &Mined, way: usize| {
        let mut message = compact(block, 5);
        match way {
            0 => message.short_ids[1] = message.short_ids[0],
            1 => message.short_ids[0] = ShortId::from([0; 6]),
            2 => message.nonce += 1,
            _ => message.prefilled_txs[0].tx = payment(77),
        }
        Message::CmpctBlock(Arc::new(message))
    };
    for way in 0..4 {
        let mut scene = scene(&[OutboundFull, Inbound, Inbound]);
        let block = scene.mine(&payments(9));
        give_pool(&mut scene.world, 0, &payments(8));
        for attacker in [1, 2] {
            scene.say(attacker, spoilt(&block, way));
        }
        for attacker in [1, 2] {
            // They answer whatever they are asked with the wrong thing, or not at all.
            if attacker == 1 && scene.heard(attacker).iter().any(|ask| matches!(ask, Message::GetBlockTxn(_))) {
                scene.say(attacker, parts(&block, &[1]));
            }
        }
        scene.say(0, push(&block));
        let mut round_trips = 0;
        while scene.world.nodes[0].chain.tip() != block.hash && round_trips < 5 {
            round_trips += 1;
            for ask in scene.heard(0) {
                match ask {
                    Message::GetBlockTxn(request) => {
                        let places: Vec<usize> = request.indexes.iter().map(|place| *place as usize).collect();
                        scene.say(0, parts(&block, &places));
                    }
                    Message::GetData(_) => scene.say(0, Message::Block(block.bytes.clone())),
                    _ => {}
                }
            }
        }
        assert!(round_trips <= 2, "way {way}: {round_trips} round trips");
        let honest = scene.pushers[0].1;
        assert_eq!(reason(&scene.world, honest), None, "way {way}");
    }
}

#[test]
fn the_last_three_givers_push_and_one_of_them_was_dialled() {
    let scene = scene(&[Inbound, OutboundFull, Inbound, Inbound, Inbound]);
    let pushing: Vec<bool> = scene.world.nodes[0].protocol.peers().map(|peer| peer.pushes_to_us).collect();
    assert_eq!(pushing, [false, true, false, true, true]);
}

#[test]
fn who_pushes_is_told_so_and_told_when_no_longer() {
    let params = params();
    let mut miner = Miner::new(params.clone(), 0);
    let mut tip = miner.mine(params.genesis_hash, 20).pop().expect("twenty");
    let chain = Miner::new(params.clone(), 0).mine(params.genesis_hash, 20);
    let mut world = world_with(&params, &[&chain], 20);
    let peers: Vec<PeerId> = (0..4).map(|_| inbound(&mut world).0).collect();
    peers.iter().for_each(|own| know_compact(&mut world, *own));
    for own in &peers {
        tip = miner.mine(tip.hash, 1).remove(0);
        world.say(*own, Message::Block(tip.bytes.clone()));
        world.run_for(SECOND);
    }
    let told = |own, world: &mut World| -> Vec<u8> {
        let heard = answer_pings(world, own);
        let announce = heard.iter().filter_map(|message| match **message {
            Message::SendCmpct { announce, .. } => Some(announce),
            _ => None,
        });
        announce.collect()
    };
    assert_eq!(told(peers[0], &mut world), [1, 0]);
    assert_eq!(told(peers[3], &mut world), [1]);
}

#[test]
fn a_block_is_pushed_before_it_is_connected_to_those_who_can_use_it() {
    let mut scene = scene(&[]);
    let (wants, _) = inbound(&mut scene.world);
    let (far, _) = inbound(&mut scene.world);
    let (plain, _) = inbound(&mut scene.world);
    for own in [wants, far] {
        scene.world.say(own, Message::SendCmpct { announce: 1, version: 2 });
    }
    for own in [wants, plain] {
        scene.world.say(own, Message::Headers(vec![scene.tip.header]));
    }
    scene.world.run_for(SECOND);
    for own in [wants, far, plain] {
        answer_pings(&mut scene.world, own);
    }
    let block = scene.mine(&payments(3));
    // Its header is known, and the ledger has just stored it.
    scene.world.nodes[0].chain.invalid.insert(block.hash);
    scene.world.give_block(0, &block);
    scene.world.run_for(SECOND);
    let heard = answer_pings(&mut scene.world, wants);
    let [only] = &heard[..] else { panic!("heard {:?}", names(&heard)) };
    let Message::CmpctBlock(pushed) = &**only else { panic!("heard {:?}", names(&heard)) };
    assert_eq!(**pushed, compact(&block, pushed.nonce));
    for own in [far, plain] {
        assert!(answer_pings(&mut scene.world, own).is_empty(), "an invalid block is announced to nobody");
    }
    // Its transactions are served all the same: who got it must be able to go on.
    scene.world.say(wants, asked_parts(&block, &[1, 3]));
    scene.world.run_for(SECOND);
    assert_eq!(*answer_pings(&mut scene.world, wants)[0], parts(&block, &[1, 3]));
}

#[test]
fn what_is_pushed_late_is_a_compact_block_however_far_the_tip_has_gone() {
    let mut scene = scene(&[]);
    let (own, _) = inbound(&mut scene.world);
    scene.world.say(own, Message::SendCmpct { announce: 1, version: 2 });
    scene.world.say(own, Message::Headers(vec![scene.tip.header]));
    scene.world.run_for(SECOND);
    answer_pings(&mut scene.world, own);
    // The view is ahead of what the protocol is told of.
    let blocks = scene.miner.mine(scene.tip.hash, 8);
    scene.world.nodes[0].chain.load(&blocks);
    scene.world.inform(0, Input::TipChanged(vec![blocks[0].hash]));
    scene.world.run_for(SECOND);
    let heard = answer_pings(&mut scene.world, own);
    let pushed: Vec<&Message> = heard.iter().map(|message| &**message).collect();
    let [Message::CmpctBlock(block)] = pushed[..] else { panic!("heard {:?}", names(&heard)) };
    assert_eq!(block.header.block_hash(), blocks[0].hash);
}

#[test]
fn who_asks_for_all_of_a_pushed_block_waits_until_it_is_connected() {
    let mut scene = scene(&[]);
    let (own, _) = inbound(&mut scene.world);
    let block = scene.mine(&payments(3));
    let tree = &mut scene.world.nodes[0].chain.tree;
    let parent = tree.get(&scene.tip.hash).expect("the tip");
    let early = tree.insert(&block.header, block.hash, parent);
    scene.world.inform(0, Input::BlockStored(Arc::new(decoded(&block))));
    scene.world.say(own, asked_whole(&block));
    scene.world.say(own, Message::Ping(4));
    scene.world.run_for(SECOND);
    assert!(answer_pings(&mut scene.world, own).is_empty(), "the ledger has not said yet");
    assert!(!scene.world.nodes[0].chain.tree.is_active(early));
    scene.world.give_block(0, &block);
    scene.world.run_for(SECOND);
    let heard = answer_pings(&mut scene.world, own);
    let expected = [Message::Block(block.bytes.clone()), Message::Pong(4)];
    let rest: Vec<Message> = heard.iter().map(|message| (**message).clone()).collect();
    assert!(expected.iter().all(|message| rest.contains(message)), "heard {:?}", names(&heard));
}

#[test]
fn compact_blocks_are_served_down_to_five_below_the_tip_and_their_transactions_to_ten() {
    let mut scene = scene(&[]);
    let (own, _) = inbound(&mut scene.world);
    let mut blocks = Vec::new();
    for n in 0..12 {
        let block = scene.mine(&payments(n + 1));
        scene.tip = block.clone();
        scene.world.give_block(0, &block);
        blocks.push(block);
    }
    scene.world.run_for(SECOND);
    answer_pings(&mut scene.world, own);
    let mut answer = |ask: Message| {
        scene.world.say(own, ask);
        scene.world.run_for(SECOND);
        let heard = answer_pings(&mut scene.world, own);
        assert_eq!(heard.len(), 1, "heard {:?}", names(&heard));
        (*heard[0]).clone()
    };
    for (depth, block) in blocks.iter().rev().enumerate() {
        let whole = Message::Block(block.bytes.clone());
        match answer(Message::GetData(vec![Inventory::CompactBlock(block.hash)])) {
            Message::CmpctBlock(served) if depth <= 5 => assert_eq!(*served, compact(block, served.nonce)),
            other => assert!(depth > 5 && other == whole, "depth {depth}: {other:?}"),
        }
        let expected = if depth <= 10 { parts(block, &[1]) } else { whole };
        assert_eq!(answer(asked_parts(block, &[1])), expected, "depth {depth}");
    }
    let stripped = answer(Message::GetData(vec![Inventory::Block(blocks[0].hash)]));
    let Message::Block(bytes) = stripped else { panic!("{stripped:?}") };
    let block: bitcoin::Block = deserialize(&bytes).expect("a block");
    let mut expected: bitcoin::Block = deserialize(&blocks[0].bytes).expect("a block");
    expected.txdata.iter_mut().flat_map(|tx| &mut tx.input).for_each(|input| input.witness = Witness::new());
    assert_eq!(block, expected, "without witnesses");
}

#[test]
fn places_behind_the_end_of_a_block_are_misbehaviour() {
    // The newest block is in memory, the one below has to be read.
    for depth in [0, 1] {
        let mut scene = scene(&[]);
        let block = scene.mine(&payments(3));
        scene.world.give_block(0, &block);
        if depth == 1 {
            scene.tip = block.clone();
            let next = scene.mine(&[]);
            scene.world.give_block(0, &next);
        }
        let (own, theirs) = inbound(&mut scene.world);
        scene.world.say(own, asked_parts(&block, &[0, 3]));
        scene.world.run_for(SECOND);
        assert_eq!(*answer_pings(&mut scene.world, own)[0], parts(&block, &[0, 3]), "depth {depth}");
        scene.world.say(own, asked_parts(&block, &[0, 4]));
        scene.world.run_for(SECOND);
        let what = "getblocktxn with out-of-bounds tx indices";
        assert_eq!(reason(&scene.world, theirs), Some(Reason::Misbehaved(what)), "depth {depth}");
    }
}

#[test]
fn a_node_that_relays_blocks_only_asks_nobody_to_push() {
    let params = params();
    let mut miner = Miner::new(params.clone(), 0);
    let chain = miner.mine(params.genesis_hash, 20);
    let mut world = World::new(1, when(&params, 20));
    let mut ledger = Chain::new(params.clone());
    ledger.load(&chain);
    world.add(crate::protocol::Config { blocks_only: true, ..World::config(&params) }, ledger);
    let (own, _) = inbound(&mut world);
    know_compact(&mut world, own);
    let block = miner.mine_with(chain[19].hash, &payments(2));
    world.say(own, Message::Headers(vec![block.header]));
    world.run_for(SECOND);
    let heard = answer_pings(&mut world, own);
    assert!(heard.iter().any(|message| **message == asked_whole(&block)), "heard {heard:?}");
    world.say(own, Message::Block(block.bytes.clone()));
    world.run_for(SECOND);
    assert_eq!(world.nodes[0].chain.tip(), block.hash);
    assert!(!names(&answer_pings(&mut world, own)).contains(&"sendcmpct"));
}

#[test]
fn compact_blocks_go_down_a_line_of_nodes() {
    let params = params();
    let mut miner = Miner::new(params.clone(), 0);
    let chain = miner.mine(params.genesis_hash, 20);
    for wire in [None, Some(2)] {
        let mut world = world_with(&params, &[&chain, &chain, &chain, &chain], 20);
        for node in 0..3 {
            world.connect(node, node + 1, LinkKind::OutboundFull, Link { wire, ..Link::default() });
        }
        for node in 0..4 {
            // Each lacks some of what the blocks have.
            give_pool(&mut world, node, &payments(400)[..400 - 20 * node]);
        }
        world.run_for(MINUTE);
        let mut tip = chain[19].hash;
        let mut sent = 0;
        for n in 0..4 {
            let block = miner.mine_with(tip, &payments(400)[..100 * (n + 1)]);
            tip = block.hash;
            let before: u64 = world.nodes.iter().map(|node| node.sent_bytes).sum();
            world.give_block(0, &block);
            world.run_for(2 * SECOND);
            assert_eq!(tips(&world), [tip; 4], "block {n}, wire {wire:?}");
            sent = world.nodes.iter().map(|node| node.sent_bytes).sum::<u64>() - before;
        }
        let whole = 3 * decoded(&miner.mine_with(tip, &payments(400))).size as u64;
        assert!(sent < whole / 2, "{sent} bytes sent for the last block, whole blocks are {whole}");
        assert!(world.nodes.iter().all(|node| node.ended.is_empty()));
        let pushing = |node: &Node| node.protocol.peers().any(|peer| peer.pushes_to_us);
        assert!(world.nodes[1..].iter().all(pushing), "each asked the one before it to push");
    }
}

#[test]
fn transactions_kept_back_from_a_compact_block_come_from_another_in_seconds_where_core_waits() {
    for policy in [Policy::Core, Policy::Groat] {
        let mut scene = scene_under(policy, &[]);
        let block = scene.mine(&payments(3));
        give_pool(&mut scene.world, 0, &payments(2));
        let friends: Vec<PeerId> = (0..2).map(|_| inbound(&mut scene.world).0).collect();
        for own in &friends {
            know_compact(&mut scene.world, *own);
            scene.world.say(*own, Message::Headers(vec![block.header]));
            scene.world.run_for(SECOND / 10);
        }
        let asked = Message::GetData(vec![Inventory::CompactBlock(block.hash)]);
        let begun = scene.world.now;
        scene.world.say(friends[0], push(&block));
        let mut waited = None;
        while waited.is_none() && scene.world.now.since(begun) < MINUTE {
            scene.world.run_for(SECOND / 10);
            let heard = answer_pings(&mut scene.world, friends[1]);
            waited = heard.iter().any(|one| **one == asked).then(|| scene.world.now.since(begun));
        }
        assert!(answer_pings(&mut scene.world, friends[0]).iter().any(|one| **one == asked_parts(&block, &[3])));
        let Some(waited) = waited else {
            assert_eq!(policy, Policy::Core, "with hedged requests the other is asked");
            continue;
        };
        assert_eq!(policy, Policy::Groat, "Core waits, but the other was asked after {waited:?}");
        assert!(waited <= 5 * SECOND, "the other was asked after {waited:?}");
        scene.world.say(friends[1], push(&block));
        scene.world.run_for(SECOND / 10);
        assert_eq!(*answer_pings(&mut scene.world, friends[1])[0], asked_parts(&block, &[3]));
        scene.world.say(friends[1], parts(&block, &[3]));
        scene.world.run_for(SECOND);
        assert_eq!(scene.world.nodes[0].chain.tip(), block.hash);
        // The late answer does no harm.
        scene.world.say(friends[0], parts(&block, &[3]));
        scene.world.run_for(SECOND);
        scene.only_ended(&[]);
    }
}

#[test]
fn what_we_had_to_fetch_for_a_block_goes_with_it_and_saves_others_a_round_trip() {
    let mut large = payment(99);
    large.input[0].witness = Witness::from_slice(&[vec![9; 11_000]]);
    let mut transactions = payments(50);
    transactions.push(large.clone());
    for policy in [Policy::Core, Policy::Groat] {
        let mut scene = scene_under(policy, &[Inbound]);
        let block = scene.mine(&transactions);
        give_pool(&mut scene.world, 0, &transactions[1..49]);
        scene.say(0, push(&block));
        assert_eq!(scene.heard(0), [asked_parts(&block, &[1, 50, 51])]);
        scene.say(0, parts(&block, &[1, 50, 51]));
        assert_eq!(scene.world.nodes[0].chain.tip(), block.hash);
        let (own, _) = inbound(&mut scene.world);
        know_compact(&mut scene.world, own);
        scene.world.say(own, Message::GetData(vec![Inventory::CompactBlock(block.hash)]));
        scene.world.run_for(SECOND);
        let heard = answer_pings(&mut scene.world, own);
        let served = heard.iter().find(|one| matches!(***one, Message::CmpctBlock(_))).expect("a compact block");
        // A node on the same chain that lacks the same transactions but the large one.
        let mut other = scene_under(policy, &[Inbound]);
        give_pool(&mut other.world, 0, &transactions[1..49]);
        give_pool(&mut other.world, 0, &[large.clone()]);
        other.say(0, (**served).clone());
        match policy {
            Policy::Core => assert_eq!(other.heard(0), [asked_parts(&block, &[1, 50])]),
            Policy::Groat => assert_eq!((other.heard(0), other.world.nodes[0].chain.tip()), (vec![], block.hash)),
        }
        let Message::CmpctBlock(served) = &**served else { continue };
        let bytes: usize = served.prefilled_txs[1..].iter().map(|one| one.tx.total_size()).sum();
        assert!(bytes <= 10_000, "{bytes} bytes of transactions in one compact block");
    }
}
