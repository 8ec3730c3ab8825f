//! Light clients, served by bloom filters where that is offered, and the bound on what is sent in a day.

use super::*;
use crate::bloom::BloomFilter;
use crate::message::Kind;
use crate::protocol::Config;
use bitcoin::bip158::{FilterHash, FilterHeader};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::p2p::message_filter::{CFCheckpt, CFHeaders, CFilter, GetCFCheckpt, GetCFHeaders, GetCFilters};
use bitcoin::{
    Amount, MerkleBlock, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, Witness, absolute, transaction,
};

const MSG_FILTERED_BLOCK: u32 = 3;

/// What all payments spend from.
fn source() -> Transaction {
    Transaction { input: vec![TxIn::default()], output: Vec::new(), ..paying(OutPoint::null(), 0) }
}

/// A payment to a script of one push.
fn payment(to: u8) -> Transaction {
    paying(OutPoint { txid: source().compute_txid(), vout: to.into() }, to)
}

fn paying(spent: OutPoint, to: u8) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        // The sim's fee rate.
        lock_time: absolute::LockTime::from_consensus(5000),
        input: vec![TxIn { previous_output: spent, witness: Witness::from_slice(&[[9]]), ..TxIn::default() }],
        output: vec![TxOut {
            value: Amount::from_sat(1),
            script_pubkey: ScriptBuf::from_bytes(vec![4, to, to, to, to]),
        }],
    }
}

fn filter(elements: &[u8]) -> BloomFilter {
    let mut filter = BloomFilter { data: vec![0; 100], hash_funcs: 10, tweak: 5, flags: 1 };
    elements.iter().for_each(|element| filter.insert(&[*element; 4]));
    filter
}

/// Node 0 with twenty blocks, and a miner to go on with.
fn node(change: impl FnOnce(&mut Config)) -> (World, Miner, Vec<Mined>) {
    let params = params();
    let mut miner = Miner::new(params.clone(), 0);
    let chain = miner.mine(params.genesis_hash, 20);
    let mut world = World::new(1, when(&params, 20));
    let mut ledger = Chain::new(params.clone());
    ledger.load(&chain);
    let mut config = World::config(&params);
    change(&mut config);
    world.add(config, ledger);
    world.give_tx(0, Arc::new(source()));
    (world, miner, chain)
}

fn offers_bloom(config: &mut Config) {
    config.services |= crate::peer::NODE_BLOOM;
}

fn messages(world: &mut World, own: PeerId) -> Vec<Message> {
    answer_pings(world, own).iter().map(|message| (**message).clone()).collect()
}

fn announced(messages: &[Message]) -> Vec<Txid> {
    let items = messages.iter().flat_map(|message| match message {
        Message::Inv(items) => items.clone(),
        _ => Vec::new(),
    });
    items.filter_map(|item| if let Inventory::Transaction(id) = item { Some(id) } else { None }).collect()
}

#[test]
fn who_does_not_offer_filters_ends_links_that_want_them() {
    let light = Message::FilterLoad(filter(&[]));
    for (message, kind, may) in [
        (Message::MemPool, Kind::MemPool, Permissions { mempool: true, ..Permissions::default() }),
        (light, Kind::FilterLoad, Permissions { bloom_filter: true, ..Permissions::default() }),
        (Message::FilterAdd(vec![1]), Kind::FilterAdd, Permissions::default()),
        (Message::FilterClear, Kind::FilterClear, Permissions::default()),
    ] {
        let (mut world, _, _) = node(|_| {});
        let (own, theirs) = inbound(&mut world);
        world.say(own, message.clone());
        world.run_for(SECOND);
        assert_eq!(reason(&world, theirs), Some(Reason::Unserved(kind)));
        if may != Permissions::default() {
            let (own, theirs) = befriend(&mut world, LinkKind::Inbound, may);
            world.say(own, message);
            world.run_for(SECOND);
            assert_eq!(reason(&world, theirs), None, "{kind:?} with its permission");
        }
    }
}

#[test]
fn bad_filters_are_misbehaviour() {
    let large = BloomFilter { data: vec![0; 36_001], ..filter(&[]) };
    let many = BloomFilter { hash_funcs: 51, ..filter(&[]) };
    for (first, second, what) in [
        (Message::FilterLoad(large), None, "too-large bloom filter"),
        (Message::FilterLoad(many), None, "too-large bloom filter"),
        (Message::FilterAdd(vec![1]), None, "bad filteradd message"),
        (Message::FilterLoad(filter(&[])), Some(Message::FilterAdd(vec![0; 521])), "bad filteradd message"),
        (Message::FilterClear, Some(Message::FilterAdd(vec![1])), "bad filteradd message"),
    ] {
        let (mut world, _, _) = node(offers_bloom);
        let (own, theirs) = inbound(&mut world);
        world.say(own, first);
        second.into_iter().for_each(|message| world.say(own, message));
        world.run_for(SECOND);
        assert_eq!(reason(&world, theirs), Some(Reason::Misbehaved(what)));
    }
}

#[test]
fn a_light_client_is_told_of_what_its_filter_matches_and_only_once_it_has_one() {
    let (mut world, _, _) = node(offers_bloom);
    let (own, _) = world.speak_to(0, LinkKind::Inbound, Permissions::default());
    world.say(own, Message::Version(Box::new(Version { relay: false, ..hello(FULL) })));
    world.say(own, Message::Verack);
    world.run_for(SECOND);
    world.give_tx(0, Arc::new(payment(1)));
    world.run_for(MINUTE);
    assert_eq!(announced(&messages(&mut world, own)), [], "it wanted none");
    world.say(own, Message::FilterLoad(filter(&[2, 3])));
    world.say(own, Message::FilterAdd(vec![4; 4]));
    world.run_for(SECOND);
    (1..=5).for_each(|to| world.give_tx(0, Arc::new(payment(to))));
    world.run_for(MINUTE);
    let mut told = announced(&messages(&mut world, own));
    let mut expected = [2, 3, 4].map(|to| payment(to).compute_txid());
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
    world.say(own, Message::GetData(vec![Inventory::Transaction(expected[0])]));
    world.run_for(SECOND);
    let heard = messages(&mut world, own);
    let [Message::Tx(tx)] = &heard[..] else { panic!("heard {heard:?}") };
    assert_eq!((tx.compute_txid(), tx.input[0].witness.len()), (expected[0], 0), "it asked for no witness");
    world.say(own, Message::FilterClear);
    world.run_for(SECOND);
    world.give_tx(0, Arc::new(payment(6)));
    world.run_for(MINUTE);
    assert_eq!(announced(&messages(&mut world, own)), [payment(6).compute_txid()], "all, without a filter");
}

#[test]
fn the_whole_pool_is_told_once_and_by_the_filter() {
    let (mut world, _, _) = node(offers_bloom);
    (1..=5).for_each(|to| world.give_tx(0, Arc::new(payment(to))));
    let (own, _) = inbound(&mut world);
    world.run_for(MINUTE);
    assert_eq!(announced(&messages(&mut world, own)), [], "they were there before it");
    for (load, expected) in [(None, 6), (Some(filter(&[2, 3])), 2)] {
        load.into_iter().for_each(|load| world.say(own, Message::FilterLoad(load)));
        world.say(own, Message::MemPool);
        world.run_for(MINUTE);
        let told = announced(&messages(&mut world, own));
        assert_eq!(told.len(), expected);
        world.say(own, Message::GetData(told.into_iter().map(Inventory::Transaction).collect()));
        world.run_for(SECOND);
        assert_eq!(messages(&mut world, own).len(), expected, "and served");
        world.run_for(MINUTE);
        assert_eq!(announced(&messages(&mut world, own)), [], "once");
    }
}

#[test]
fn a_block_by_a_filter_is_a_proof_and_the_transactions_that_match() {
    let (mut world, mut miner, chain) = node(offers_bloom);
    let transactions: Vec<Transaction> = (1..=9).map(payment).collect();
    let block = miner.mine_with(chain[19].hash, &transactions);
    world.give_block(0, &block);
    let (own, _) = inbound(&mut world);
    let item = Inventory::Unknown { inv_type: MSG_FILTERED_BLOCK, hash: block.hash.to_byte_array() };
    let ask = |world: &mut World| {
        world.say(own, Message::GetData(vec![item]));
        world.say(own, Message::Ping(1));
        world.run_for(SECOND);
        messages(world, own)
    };
    assert_eq!(ask(&mut world), [Message::Pong(1)], "nothing without a filter");
    world.say(own, Message::FilterLoad(filter(&[3, 7])));
    let heard = ask(&mut world);
    let [Message::MerkleBlock(proof), Message::Tx(third), Message::Tx(seventh), Message::Pong(1)] = &heard[..] else {
        panic!("heard {heard:?}")
    };
    let (mut matches, mut places) = (Vec::new(), Vec::new());
    MerkleBlock::extract_matches(proof, &mut matches, &mut places).expect("a proof");
    assert_eq!((proof.header, &places[..]), (block.header, &[3, 7][..]));
    assert_eq!(matches, [third.compute_txid(), seventh.compute_txid()]);
    assert!([third, seventh].iter().all(|tx| tx.input[0].witness.is_empty()));
}

#[test]
fn beyond_the_upload_target_old_blocks_are_not_served_but_young_ones_are() {
    // The first block is older than a week before the tip.
    let params = params();
    let mut miner = Miner::new(params.clone(), 0);
    miner.body = 100_000;
    let chain = miner.mine(params.genesis_hash, 1100);
    let mut world = World::new(1, when(&params, 1100));
    let mut ledger = Chain::new(params.clone());
    ledger.load(&chain);
    // A block for each whole ten minutes that are left.
    let reserve = 143 * 4_000_000;
    world.add(Config { upload_target: reserve + 1_000_000, ..World::config(&params) }, ledger);
    let (own, theirs) = inbound(&mut world);
    let mut served = 0;
    while reason(&world, theirs).is_none() && served < 20 {
        world.say(own, Message::GetData(vec![Inventory::WitnessBlock(chain[0].hash)]));
        world.run_for(SECOND / 10);
        served += messages(&mut world, own).iter().filter(|message| matches!(message, Message::Block(_))).count();
    }
    assert_eq!((served, reason(&world, theirs)), (10, Some(Reason::UploadTarget)));
    let state = world.nodes[0].protocol.upload_target(world.now);
    assert!(!state.serves_historical_blocks && !state.reached, "{state:?}");
    for (at, may, expected) in [
        (1090, Permissions::default(), None),
        (0, Permissions { download: true, ..Permissions::default() }, None),
        (0, Permissions { no_ban: true, ..Permissions::default() }, Some(Reason::UploadTarget)),
    ] {
        let (own, theirs) = befriend(&mut world, LinkKind::Inbound, may);
        world.say(own, Message::GetData(vec![Inventory::WitnessBlock(chain[at].hash)]));
        world.run_for(SECOND);
        let whole = messages(&mut world, own).iter().any(|message| matches!(message, Message::Block(_)));
        assert_eq!((reason(&world, theirs), whole), (expected, expected.is_none()), "block {at}, {may:?}");
    }
    world.run_for(Duration::from_secs(24 * 60 * 60 + 60));
    let (own, theirs) = inbound(&mut world);
    world.say(own, Message::GetData(vec![Inventory::WitnessBlock(chain[0].hash)]));
    world.run_for(SECOND);
    assert_eq!(reason(&world, theirs), None, "another day");
}

fn offers_filters(config: &mut Config) {
    config.services |= crate::peer::NODE_COMPACT_FILTERS;
}

fn getcfilters(start_height: u32, stop_hash: BlockHash) -> Message {
    Message::GetCFilters(GetCFilters { filter_type: 0, start_height, stop_hash })
}

fn getcfheaders(start_height: u32, stop_hash: BlockHash) -> Message {
    Message::GetCFHeaders(GetCFHeaders { filter_type: 0, start_height, stop_hash })
}

fn getcfcheckpt(stop_hash: BlockHash) -> Message {
    Message::GetCFCheckpt(GetCFCheckpt { filter_type: 0, stop_hash })
}

/// Node 0 with so many blocks, and their hashes by height.
fn node_with(blocks: usize) -> (World, Vec<BlockHash>) {
    let params = params();
    let chain = Miner::new(params.clone(), 0).mine(params.genesis_hash, blocks);
    let mut world = World::new(1, when(&params, blocks));
    let mut ledger = Chain::new(params.clone());
    ledger.load(&chain);
    let mut config = World::config(&params);
    offers_filters(&mut config);
    world.add(config, ledger);
    (world, std::iter::once(params.genesis_hash).chain(chain.iter().map(|block| block.hash)).collect())
}

#[test]
fn compact_filters_are_served_in_order_and_so_are_their_headers() {
    let (mut world, hashes) = node_with(2005);
    let (own, theirs) = inbound(&mut world);
    let mut ask = |message: Message| {
        world.say(own, message);
        world.say(own, Message::Ping(1));
        world.run_for(SECOND);
        let mut heard = messages(&mut world, own);
        assert_eq!(heard.pop(), Some(Message::Pong(1)), "who asked waits for the whole answer");
        heard
    };
    let filter = |hash: &BlockHash| {
        let filter = hash.to_byte_array().to_vec();
        Message::CFilter(CFilter { filter_type: 0, block_hash: *hash, filter })
    };
    for range in [0..=0_usize, 7..=1006, 2005..=2005] {
        let expected: Vec<Message> = hashes[range.clone()].iter().map(filter).collect();
        assert!(ask(getcfilters(*range.start() as u32, hashes[*range.end()])) == expected, "filters {range:?}");
    }
    let bytes = |height: usize| hashes[height].to_byte_array();
    for range in [0..=1999_usize, 3..=2002, 2005..=2005] {
        let previous = range.start().checked_sub(1).map_or([0; 32], bytes);
        let expected = Message::CFHeaders(CFHeaders {
            filter_type: 0,
            stop_hash: hashes[*range.end()],
            previous_filter_header: FilterHeader::from_byte_array(previous),
            filter_hashes: range.clone().map(|height| FilterHash::from_byte_array(bytes(height))).collect(),
        });
        assert!(ask(getcfheaders(*range.start() as u32, hashes[*range.end()])) == [expected], "hashes {range:?}");
    }
    for (stop, points) in [(2005, &[1000, 2000][..]), (1000, &[1000]), (999, &[])] {
        let expected = Message::CFCheckpt(CFCheckpt {
            filter_type: 0,
            stop_hash: hashes[stop],
            filter_headers: points.iter().map(|height| FilterHeader::from_byte_array(bytes(*height))).collect(),
        });
        assert_eq!(ask(getcfcheckpt(hashes[stop])), [expected], "checkpoints up to {stop}");
    }
    assert_eq!(reason(&world, theirs), None);
}

#[test]
fn who_asks_wrongly_for_compact_filters_has_to_go() {
    let (mut world, hashes) = node_with(2005);
    let nowhere = BlockHash::from_byte_array([7; 32]);
    let other_type = Message::GetCFilters(GetCFilters { filter_type: 1, start_height: 0, stop_hash: hashes[0] });
    for (message, expected) in [
        (getcfilters(6, hashes[1006]), Reason::BadMessage(Kind::GetCFilters)),
        (getcfheaders(5, hashes[2005]), Reason::BadMessage(Kind::GetCFHeaders)),
        (getcfilters(2, hashes[1]), Reason::BadMessage(Kind::GetCFilters)),
        (getcfheaders(0, nowhere), Reason::BadMessage(Kind::GetCFHeaders)),
        (getcfcheckpt(nowhere), Reason::BadMessage(Kind::GetCFCheckpt)),
        (other_type, Reason::Unserved(Kind::GetCFilters)),
    ] {
        let (own, theirs) = inbound(&mut world);
        world.say(own, message.clone());
        world.run_for(SECOND);
        assert_eq!(reason(&world, theirs), Some(expected), "{message:?}");
    }
    let (mut world, _, chain) = node(|_| {});
    let (own, theirs) = inbound(&mut world);
    world.say(own, getcfcheckpt(chain[0].hash));
    world.run_for(SECOND);
    assert_eq!(reason(&world, theirs), Some(Reason::Unserved(Kind::GetCFCheckpt)), "it does not offer them");
}
