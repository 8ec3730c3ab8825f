//! The ledger on a memory store: every chain of events must leave the coins that the best chain's blocks make.

use std::collections::{BTreeMap, HashMap};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, transaction};
use proptest::prelude::*;

use super::*;
use crate::index::{Index, coinstats, filters, spenders, transactions};
use crate::params::RegtestOptions;
use crate::rejection::Rejection;
use crate::rules;
use crate::stats::{CoinCount, HashKind};
use crate::store::mem::MemStore;

const NOW: u32 = 1_700_000_000;

/// A test chain's blocks by hash, with what they leave of the coins.
struct World {
    params: Arc<Params>,
    coins: HashMap<BlockHash, BTreeMap<OutPoint, Coin>>,
    blocks: HashMap<BlockHash, bitcoin::Block>,
    heights: HashMap<BlockHash, u32>,
    salt: u32,
}

/// What a made block should be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Keeps every rule.
    Valid,
    /// Spends with a script that fails.
    BadScript,
    /// Spends a coin that is not there.
    Missing,
}

fn open(store: &Arc<MemStore>, params: &Arc<Params>, threads: usize, table_bytes: usize) -> Ledger {
    open_with(store, params, threads, table_bytes, &[])
}

fn open_with(
    store: &Arc<MemStore>,
    params: &Arc<Params>,
    threads: usize,
    table_bytes: usize,
    indexes: &[Index],
) -> Ledger {
    let options = Options { assumed_valid: None, table_bytes, prune: None };
    let mut ledger = Ledger::open(params.clone(), store.clone(), Arc::new(Pool::new(threads)), options).unwrap();
    ledger.set_follower(Box::new(InStep));
    ledger.keep_indexes(indexes).unwrap();
    ledger
}

/// Holds each change against what [`Follow`] promises.
struct InStep;

impl Follow for InStep {
    fn follow(&mut self, change: &Change, tip: Id, ledger: &Ledger) -> Result<(), LedgerError> {
        let tip = ledger.tree().read().node(tip).hash;
        assert!(change.disconnected.is_empty() || ledger.tip() == tip, "the coins are ahead of a reorganisation");
        Ok(())
    }
}

impl World {
    fn new() -> World {
        let mut params = Params::regtest(&RegtestOptions::default());
        params.coinbase_maturity = 1;
        let params = Arc::new(params);
        let genesis = params.genesis_hash;
        World {
            coins: HashMap::from([(genesis, BTreeMap::new())]),
            blocks: HashMap::from([(genesis, params.genesis.clone())]),
            heights: HashMap::from([(genesis, 0)]),
            params,
            salt: 0,
        }
    }

    /// Mines a block on `parent` that spends up to `spends` of the coins there. Outputs are anyone's.
    fn mine(&mut self, parent: BlockHash, spends: usize, kind: Kind) -> BlockHash {
        self.salt += 1;
        let height = self.heights[&parent] + 1;
        let mut coins = self.coins[&parent].clone();
        let input = |previous_output, script_sig| TxIn {
            previous_output,
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let transaction = |input, output| Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input,
            output,
        };
        let anyone = |value| TxOut { value, script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
        let tag = ScriptBuf::builder().push_int(i64::from(height)).push_int(i64::from(self.salt)).into_script();
        let mut tag = tag.into_bytes();
        tag.resize(tag.len().max(2), 0);
        let coinbase = transaction(
            vec![input(OutPoint::null(), ScriptBuf::from_bytes(tag))],
            vec![
                anyone(Amount::from_sat(1000)),
                TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0x6a]) },
            ],
        );
        let mut transactions = vec![coinbase];
        let chosen: Vec<OutPoint> = coins
            .iter()
            .filter(|(_, coin)| coin.height() < height)
            .map(|(outpoint, _)| *outpoint)
            .take(spends)
            .collect();
        for outpoint in chosen {
            let value = coins.remove(&outpoint).unwrap().value();
            let half = Amount::from_sat(value.to_sat() / 2);
            let spend = transaction(vec![input(outpoint, ScriptBuf::new())], vec![anyone(half), anyone(half)]);
            let id = spend.compute_txid();
            transactions.push(spend);
            // One of its outputs is spent again inside the block.
            let again = transaction(vec![input(OutPoint::new(id, 0), ScriptBuf::new())], vec![anyone(half)]);
            coins.insert(OutPoint::new(id, 1), Coin::from_parts(half.to_sat(), &[0x51], height, false));
            coins.insert(
                OutPoint::new(again.compute_txid(), 0),
                Coin::from_parts(half.to_sat(), &[0x51], height, false),
            );
            transactions.push(again);
        }
        match kind {
            Kind::Valid => {}
            Kind::Missing => transactions.push(transaction(
                vec![input(OutPoint::new(bitcoin::Txid::from_byte_array([9; 32]), 0), ScriptBuf::new())],
                vec![anyone(Amount::ZERO)],
            )),
            // OP_RETURN in the input script ends it with an error.
            Kind::BadScript => {
                transactions.last_mut().unwrap().input[0].script_sig = ScriptBuf::from_bytes(vec![0x6a, 0x6a])
            }
        }
        coins.insert(OutPoint::new(transactions[0].compute_txid(), 0), Coin::from_parts(1000, &[0x51], height, true));
        let mut block = bitcoin::Block {
            header: Header {
                version: Version::from_consensus(0x2000_0000),
                prev_blockhash: parent,
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.params.genesis.header.time + height * 600,
                bits: self.params.genesis.header.bits,
                nonce: 0,
            },
            txdata: transactions,
        };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        while rules::pow::check_proof_of_work(block.block_hash(), block.header.bits, &self.params).is_err() {
            block.header.nonce += 1;
        }
        let hash = block.block_hash();
        self.heights.insert(hash, height);
        self.coins.insert(hash, coins);
        self.blocks.insert(hash, block);
        hash
    }

    fn give(&self, ledger: &mut Ledger, hash: &BlockHash) -> Result<Accepted, Rejection> {
        let bytes = bitcoin::consensus::serialize(&self.blocks[hash]);
        let incoming = Incoming::decode(bytes, &self.params).unwrap();
        ledger.accept_block(incoming, None, NOW).unwrap()
    }

    /// The stored coins must be those of the published tip.
    fn check(&self, ledger: &mut Ledger) -> BlockHash {
        ledger.flush().unwrap();
        let tip = {
            let tree = ledger.tree.read();
            tree.node(tree.tip()).hash
        };
        let mut stored = BTreeMap::new();
        ledger.store.for_each_coin(&mut |outpoint, coin| stored.insert(outpoint, coin).is_none()).unwrap();
        assert_eq!(stored, self.coins[&tip], "the coins are not those of the tip {tip}");
        tip
    }
}

impl World {
    /// Every index must know every block of the published chain, and say of it what follows from its coins.
    fn check_indexes(&self, ledger: &Ledger) {
        let (tree, store) = (ledger.tree(), &*ledger.store);
        let tip = tree.read().tip();
        let states = ledger.indexes().read().clone();
        let of_tip = |index| IndexState { index, tip, synced: true };
        assert_eq!(states, Index::ALL.map(of_tip), "an index is not at the tip");
        let (mut walk, mut above) = (Some(tip), None::<filters::Header>);
        while let Some(id) = walk {
            let (hash, height) = (tree.read().node(id).hash, tree.read().node(id).height);
            let block = Block::decode(&bitcoin::consensus::serialize(&self.blocks[&hash])).unwrap();
            for (transaction, txid) in block.transactions.iter().zip(&block.txids).filter(|_| height > 0) {
                let found = transactions::find(store, &tree, txid).unwrap();
                assert_eq!(found.as_ref(), Some(&(id, transaction.clone())), "transaction {txid} at height {height}");
                for input in transaction.input.iter().filter(|input| !input.previous_output.is_null()) {
                    let spender = spenders::find(store, &tree, &input.previous_output).unwrap();
                    assert_eq!(spender, found, "who spends {} at height {height}", input.previous_output);
                }
            }
            let spent = if height > 0 { ledger.read_connected(id).unwrap().1 } else { Vec::new() };
            let expected = filters::basic_filter(&block, &spent);
            let header = filters::headers(store, &[hash]).unwrap()[0].expect("a header of the filter");
            assert_eq!(filters::filters(store, &[hash]).unwrap()[0].as_ref(), Some(&expected), "filter at {height}");
            if let Some(above) = above {
                assert_eq!(above.hash.filter_header(&header.header), above.header, "filter header above {height}");
            }
            let totals = coinstats::totals(store, &hash).unwrap().expect("totals of a block");
            let coins = &self.coins[&hash];
            let amount: u64 = coins.values().map(|coin| coin.value().to_sat()).sum();
            let minted: u64 = (0..=height).map(|at| rules::connect::subsidy(at, &self.params).to_sat()).sum();
            assert_eq!((totals.txouts, totals.amount), (coins.len() as u64, amount), "totals at {height}");
            assert_eq!(totals.unspendable, minted - amount, "what is lost at {height}");
            if id == tip {
                for outpoint in coins.keys() {
                    assert_eq!(spenders::find(store, &tree, outpoint).unwrap(), None, "{outpoint} is not spent");
                }
                let mut count = CoinCount::new(HashKind::Muhash, height, hash);
                coins.iter().for_each(|(outpoint, coin)| count.add(outpoint, coin));
                let count = count.finish();
                assert_eq!((totals.bogosize, Some(totals.hash())), (count.bogosize, count.hash), "totals at the tip");
            }
            (walk, above) = (tree.read().node(id).parent(), Some(header));
        }
    }
}

#[test]
fn a_longer_branch_takes_over_and_its_coins_with_it() {
    let mut world = World::new();
    let store = Arc::new(MemStore::new());
    let mut ledger = open(&store, &world.params.clone(), 2, 1 << 20);
    let genesis = world.params.genesis_hash;
    let mut a = vec![genesis];
    for spends in 0..6 {
        a.push(world.mine(*a.last().unwrap(), spends, Kind::Valid));
    }
    let mut b = vec![a[2]];
    for spends in 0..6 {
        b.push(world.mine(*b.last().unwrap(), spends, Kind::Valid));
    }
    for hash in &a[1..] {
        world.give(&mut ledger, hash).unwrap();
    }
    assert_eq!(ledger.activate_fully().unwrap(), []);
    assert_eq!(world.check(&mut ledger), a[6]);
    // Children first: nothing happens until the branch is whole.
    for hash in b[1..].iter().rev() {
        if world.give(&mut ledger, hash) == Err(Rejection::PrevBlkNotFound) {
            continue;
        }
    }
    for hash in &b[1..] {
        world.give(&mut ledger, hash).unwrap();
    }
    let (mut disconnected, mut connected) = (Vec::new(), Vec::new());
    loop {
        match ledger.activate_best_chain().unwrap() {
            Step::Idle => break,
            Step::Moved(Some(change)) => {
                disconnected.extend(change.disconnected.iter().map(|block| block.hash));
                connected.extend(change.connected.iter().map(|block| block.hash));
            }
            Step::Moved(None) => {}
            Step::Refused(hash, rejection) => panic!("{hash} refused: {rejection}"),
        }
    }
    assert_eq!(disconnected, [a[6], a[5], a[4], a[3]]);
    assert_eq!(connected, b[1..]);
    assert_eq!(world.check(&mut ledger), b[6]);
}

/// As in Core, where a block is read from what a peer or `submitblock` gave and the rest is not looked at.
#[test]
fn bytes_after_a_block_are_dropped() {
    let mut world = World::new();
    let mut ledger = open(&Arc::new(MemStore::new()), &world.params.clone(), 0, 1 << 20);
    let hash = world.mine(world.params.genesis_hash, 0, Kind::Valid);
    let whole = bitcoin::consensus::serialize(&world.blocks[&hash]);
    let incoming = Incoming::decode_prefix([&whole[..], &[0, 1, 2]].concat(), &world.params).unwrap();
    assert_eq!(incoming.bytes, whole);
    assert_eq!(incoming.block.size, whole.len());
    ledger.accept_block(incoming, None, NOW).unwrap().unwrap();
    assert_eq!(ledger.activate_fully().unwrap(), []);
    assert_eq!(world.check(&mut ledger), hash);
    assert!(Block::decode(&[&whole[..], &[0]].concat()).is_err(), "what is stored has nothing after it");
}

#[test]
fn headers_are_judged_in_their_place() {
    let mut world = World::new();
    let mut ledger = open(&Arc::new(MemStore::new()), &world.params.clone(), 0, 1 << 20);
    let genesis = world.params.genesis_hash;
    let bad = world.mine(genesis, 0, Kind::Missing);
    let child = world.mine(bad, 0, Kind::Valid);
    let header = |world: &World, hash| world.blocks[hash].header;
    assert_eq!(ledger.accept_header(&header(&world, &child), NOW), Err(Rejection::PrevBlkNotFound));
    world.give(&mut ledger, &bad).unwrap();
    let refused = ledger.activate_fully().unwrap();
    assert_eq!(refused, [(bad, Rejection::BadTxnsInputsMissingorspent)]);
    assert_eq!(ledger.accept_header(&header(&world, &bad), NOW), Err(Rejection::DuplicateInvalid));
    assert_eq!(ledger.accept_header(&header(&world, &child), NOW), Err(Rejection::BadPrevBlk));
    assert_eq!(ledger.accept_header(&header(&world, &genesis), NOW), Ok(Id::GENESIS));
}

#[test]
fn the_operator_can_leave_a_block_and_come_back() {
    let mut world = World::new();
    let store = Arc::new(MemStore::new());
    let mut ledger = open(&store, &world.params.clone(), 0, 1 << 20);
    let mut chain = vec![world.params.genesis_hash];
    for _ in 0..5 {
        chain.push(world.mine(*chain.last().unwrap(), 2, Kind::Valid));
        world.give(&mut ledger, chain.last().unwrap()).unwrap();
    }
    ledger.activate_fully().unwrap();
    ledger.invalidate(&chain[3]).unwrap();
    ledger.activate_fully().unwrap();
    assert_eq!(world.check(&mut ledger), chain[2]);
    drop(ledger);
    let mut ledger = open(&store, &world.params.clone(), 0, 1 << 20);
    assert_eq!(world.check(&mut ledger), chain[2], "the mark outlives a restart");
    ledger.reconsider(&chain[4]).unwrap();
    ledger.activate_fully().unwrap();
    assert_eq!(world.check(&mut ledger), chain[5]);
}

/// The main network has two such blocks, at heights 91842 and 91880.
#[test]
fn a_repeated_coinbase_overwrites_its_coin_where_bip30_makes_an_exception() {
    let mut params = Params::regtest(&RegtestOptions::default());
    params.bip34_height = 1000;
    let params = Arc::new(params);
    let mut world = World { params: params.clone(), ..World::new() };
    let first = world.mine(params.genesis_hash, 0, Kind::Valid);
    let second = world.mine(first, 0, Kind::Valid);
    // The third block repeats the coinbase of the first.
    let mut third = world.blocks[&second].clone();
    third.header.prev_blockhash = second;
    third.header.time += 600;
    third.txdata = world.blocks[&first].txdata.clone();
    third.header.merkle_root = third.compute_merkle_root().unwrap();
    while rules::pow::check_proof_of_work(third.block_hash(), third.header.bits, &params).is_err() {
        third.header.nonce += 1;
    }
    let hash = third.block_hash();
    let repeated = OutPoint::new(third.txdata[0].compute_txid(), 0);
    let mut coins = world.coins[&second].clone();
    coins.insert(repeated, Coin::from_parts(1000, &[0x51], 3, true));
    world.blocks.insert(hash, third);
    world.heights.insert(hash, 3);
    world.coins.insert(hash, coins);

    let run = |params: &Arc<Params>, flush: bool| {
        let mut ledger = open(&Arc::new(MemStore::new()), params, 2, 1 << 20);
        for block in [first, second] {
            world.give(&mut ledger, &block).unwrap();
        }
        assert_eq!(ledger.activate_fully().unwrap(), []);
        if flush {
            world.check(&mut ledger);
        }
        world.give(&mut ledger, &hash).unwrap();
        let refused = ledger.activate_fully().unwrap();
        (ledger, refused)
    };
    let mut exempt = (*params).clone();
    exempt.bip30_exceptions = vec![(3, hash)];
    let exempt = Arc::new(exempt);
    for flush in [true, false] {
        let (mut ledger, refused) = run(&params, flush);
        assert_eq!(refused, [(hash, Rejection::BadTxnsBip30)]);
        assert_eq!(world.check(&mut ledger), second, "the coin that is there stays");

        let (mut ledger, refused) = run(&exempt, flush);
        assert_eq!(refused, []);
        assert_eq!(world.check(&mut ledger), hash);
        assert_eq!(ledger.verify_chain(0, true, &mut |_| true).unwrap().blocks, 3);
        ledger.invalidate(&hash).unwrap();
        ledger.activate_fully().unwrap();
        assert_eq!(world.check(&mut ledger), second, "the coin that was overwritten is back");
        ledger.reconsider(&hash).unwrap();
        ledger.activate_fully().unwrap();
        assert_eq!(world.check(&mut ledger), hash);
    }
}

#[test]
fn a_block_in_flight_that_the_operator_leaves_is_not_published() {
    let mut world = World::new();
    let mut ledger = open(&Arc::new(MemStore::new()), &world.params.clone(), 2, 1 << 20);
    let mut chain = vec![world.params.genesis_hash];
    for _ in 0..6 {
        chain.push(world.mine(*chain.last().unwrap(), 3, Kind::Valid));
        world.give(&mut ledger, chain.last().unwrap()).unwrap();
    }
    for _ in 0..5 {
        ledger.activate_best_chain().unwrap();
    }
    ledger.invalidate(&chain[2]).unwrap();
    ledger.activate_fully().unwrap();
    assert_eq!(world.check(&mut ledger), chain[1]);
}

#[test]
fn a_reorganisation_is_told_with_the_coins_at_its_tip_when_the_operator_leaves_the_old_tip_meanwhile() {
    let mut world = World::new();
    let params = world.params.clone();
    let pool = Arc::new(Pool::new(1));
    let options = Options { assumed_valid: None, table_bytes: 1 << 20, prune: None };
    let mut ledger = Ledger::open(params.clone(), Arc::new(MemStore::new()), pool.clone(), options).unwrap();
    ledger.set_follower(Box::new(InStep));
    let mut branch = |ledger: &mut Ledger, count| {
        let mut chain = vec![params.genesis_hash];
        for _ in 0..count {
            chain.push(world.mine(*chain.last().unwrap(), 3, Kind::Valid));
            world.give(ledger, chain.last().unwrap()).unwrap();
        }
        chain
    };
    let old = branch(&mut ledger, 4);
    ledger.activate_fully().unwrap();
    // No script is done by itself from now on.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = std::sync::mpsc::channel();
    pool.submit(true, move || {
        begun.send(()).unwrap();
        let _ = held.recv();
    });
    begins.recv().unwrap();
    let new = branch(&mut ledger, 6);
    // Four blocks back, three forth.
    for _ in 0..7 {
        ledger.activate_best_chain().unwrap();
    }
    assert_eq!((ledger.tip(), ledger.tree().read().tip()), (new[3], ledger.tree().read().get(&old[4]).unwrap()));
    ledger.invalidate(&old[4]).unwrap();
    ledger.activate_fully().unwrap();
    assert_eq!(world.check(&mut ledger), new[6]);
    drop(release);
}

#[test]
fn a_flush_keeps_what_it_has_to_tell() {
    let mut world = World::new();
    let mut ledger = open(&Arc::new(MemStore::new()), &world.params.clone(), 2, 1 << 20);
    let mut chain = vec![world.params.genesis_hash];
    for _ in 0..4 {
        chain.push(world.mine(*chain.last().unwrap(), 2, Kind::Valid));
        world.give(&mut ledger, chain.last().unwrap()).unwrap();
    }
    let mut connected = Vec::new();
    for flush in [true, false].into_iter().cycle() {
        match ledger.activate_best_chain().unwrap() {
            Step::Idle => break,
            Step::Moved(change) => connected.extend(change.into_iter().flat_map(|change| change.connected)),
            Step::Refused(hash, rejection) => panic!("{hash} refused: {rejection}"),
        }
        if flush {
            ledger.flush().unwrap();
        }
    }
    let connected: Vec<BlockHash> = connected.iter().map(|block| block.hash).collect();
    assert_eq!(connected, chain[1..], "every block that is published is told of once");
}

#[test]
fn a_folder_of_another_network_is_refused() {
    let store = Arc::new(MemStore::new());
    let world = World::new();
    drop(open(&store, &world.params, 0, 1 << 20));
    let other = Arc::new(Params::main());
    let options = Options { assumed_valid: None, table_bytes: 1 << 20, prune: None };
    let error = Ledger::open(other, store, Arc::new(Pool::new(0)), options).err().expect("it must not open");
    assert!(error.to_string().contains("another network"), "{error}");
}

#[test]
fn verify_chain_passes_over_what_import_left() {
    let mut world = World::new();
    let store = Arc::new(MemStore::new());
    let mut ledger = open(&store, &world.params.clone(), 2, 1 << 20);
    let mut tip = world.params.genesis_hash;
    for spends in 0..20 {
        tip = world.mine(tip, spends % 5, Kind::Valid);
        world.give(&mut ledger, &tip).unwrap();
    }
    ledger.activate_fully().unwrap();
    let verified = ledger.verify_chain(0, true, &mut |_| true).unwrap();
    assert_eq!((verified.blocks, verified.pruned), (20, false));
    assert_eq!(world.check(&mut ledger), tip, "verification changes nothing");
}

/// One event in the life of a ledger.
#[derive(Clone, Debug)]
enum Event {
    /// A new block on one of the blocks there are.
    Block {
        on: prop::sample::Index,
        spends: usize,
        kind: u8,
    },
    /// So many steps.
    Steps(usize),
    Flush,
    /// The process dies and starts again; what was not durable may be lost.
    Crash(usize),
    Invalidate(prop::sample::Index),
    Reconsider(prop::sample::Index),
    Prefer(prop::sample::Index),
    /// Start again, with some of the indexes.
    Restart(Vec<Index>),
    /// Indexes catch up while the ledger is busy.
    CatchUp(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (any::<prop::sample::Index>(), 0usize..6, any::<u8>())
            .prop_map(|(on, spends, kind)| Event::Block { on, spends, kind }),
        4 => (1usize..8).prop_map(Event::Steps),
        2 => Just(Event::Flush),
        1 => (0usize..4).prop_map(Event::Crash),
        1 => any::<prop::sample::Index>().prop_map(Event::Invalidate),
        1 => any::<prop::sample::Index>().prop_map(Event::Reconsider),
        1 => any::<prop::sample::Index>().prop_map(Event::Prefer),
        1 => prop::sample::subsequence(&Index::ALL[..], 0..=4).prop_map(Event::Restart),
        2 => (0usize..6).prop_map(Event::CatchUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_history_leaves_the_coins_of_its_best_valid_chain_and_the_rows_of_its_blocks(
        events in prop::collection::vec(event(), 1..60),
        threads in 0usize..3,
        // Small enough that flushes happen by themselves.
        table_bytes in prop_oneof![Just(1usize), Just(100_000), Just(1 << 24)],
    ) {
        let mut world = World::new();
        let mut store = Arc::new(MemStore::new());
        let mut indexes = Index::ALL.to_vec();
        let mut ledger = open_with(&store, &world.params.clone(), threads, table_bytes, &indexes);
        let mut made = vec![world.params.genesis_hash];
        let mut bad: Vec<BlockHash> = Vec::new();
        for event in events {
            match event {
                Event::Block { on, spends, kind } => {
                    // Mostly near the end, so that chains grow.
                    let near = made.len().saturating_sub(4);
                    let parent = made[near + on.index(made.len() - near)];
                    let kind = match kind {
                        0..20 if spends > 0 && !world.coins[&parent].is_empty() => Kind::BadScript,
                        20..40 => Kind::Missing,
                        _ => Kind::Valid,
                    };
                    let hash = world.mine(parent, spends, kind);
                    // A chain that builds on a bad block is given too; only the bad block itself is remembered.
                    if kind != Kind::Valid { bad.push(hash); }
                    made.push(hash);
                    let _ = world.give(&mut ledger, &hash);
                }
                Event::Steps(count) => {
                    for _ in 0..count {
                        if let Step::Refused(hash, _) = ledger.activate_best_chain().unwrap() {
                            prop_assert!(bad.contains(&hash), "a valid block was refused");
                        }
                    }
                }
                Event::Flush => ledger.flush().unwrap(),
                Event::Crash(kept) => {
                    drop(ledger);
                    store = Arc::new(store.cut(kept));
                    ledger = open_with(&store, &world.params.clone(), threads, table_bytes, &indexes);
                }
                Event::Restart(wanted) => {
                    ledger.flush().unwrap();
                    drop(ledger);
                    indexes = wanted;
                    ledger = open_with(&store, &world.params.clone(), threads, table_bytes, &indexes);
                }
                Event::CatchUp(steps) => for step in 0..steps {
                    ledger.catch_up_indexes(step % 2 == 0).unwrap();
                },
                Event::Invalidate(index) => { ledger.invalidate(&made[index.index(made.len())]); }
                Event::Reconsider(index) => { ledger.reconsider(&made[index.index(made.len())]); }
                Event::Prefer(index) => { ledger.prefer(&made[index.index(made.len())]); }
            }
        }
        for hash in &made {
            ledger.reconsider(hash);
        }
        for hash in &made[1..] {
            let _ = world.give(&mut ledger, hash);
        }
        for (hash, rejection) in ledger.activate_fully().unwrap() {
            prop_assert!(bad.contains(&hash), "a valid block was refused: {rejection}");
        }
        let tip = world.check(&mut ledger);
        let is_good = |mut hash: BlockHash| loop {
            if bad.contains(&hash) { break false; }
            if hash == world.params.genesis_hash { break true; }
            hash = world.blocks[&hash].header.prev_blockhash;
        };
        let best = made.iter().filter(|hash| is_good(**hash)).map(|hash| world.heights[hash]).max().unwrap();
        prop_assert_eq!(world.heights[&tip], best);
        prop_assert!(is_good(tip));
        let tip_again = { let tree = ledger.tree.read(); tree.node(tree.tip()).hash };
        prop_assert_eq!(tip_again, tip);
        let verified = ledger.verify_chain(0, true, &mut |_| true);
        prop_assert!(verified.is_ok(), "{verified:?}");
        drop(ledger);
        let mut ledger = open_with(&store, &world.params.clone(), threads, table_bytes, &Index::ALL);
        while ledger.catch_up_indexes(true).unwrap() {}
        world.check_indexes(&ledger);
    }
}

#[test]
fn a_proposed_block_is_judged_and_leaves_nothing() {
    let mut world = World::new();
    let mut ledger = open(&Arc::new(MemStore::new()), &world.params.clone(), 1, 1 << 20);
    let mut tip = world.params.genesis_hash;
    for _ in 0..4 {
        tip = world.mine(tip, 2, Kind::Valid);
        world.give(&mut ledger, &tip).unwrap();
    }
    ledger.activate_fully().unwrap();
    let below = world.blocks[&tip].header.prev_blockhash;
    let kinds = [
        (tip, Kind::Valid, Proposal::Valid),
        (tip, Kind::Missing, Proposal::Rejected(Rejection::BadTxnsInputsMissingorspent)),
        (below, Kind::Valid, Proposal::NotOnTip),
    ];
    for (parent, kind, expected) in kinds {
        let hash = world.mine(parent, 2, kind);
        let mut block = world.blocks[&hash].clone();
        // Proof of work is not asked for.
        while rules::pow::check_proof_of_work(block.block_hash(), block.header.bits, &world.params).is_ok() {
            block.header.nonce += 1;
        }
        let block = Arc::new(Block::decode(&bitcoin::consensus::serialize(&block)).unwrap());
        assert_eq!(ledger.propose(&block, NOW).unwrap(), expected, "{kind:?}");
        assert_eq!(ledger.tree.read().get(&block.hash), None, "its header is not kept");
        assert_eq!(world.check(&mut ledger), tip);
    }
    let hash = world.mine(tip, 2, Kind::BadScript);
    let block = Arc::new(Block::decode(&bitcoin::consensus::serialize(&world.blocks[&hash])).unwrap());
    let said = ledger.propose(&block, NOW).unwrap();
    assert!(matches!(said, Proposal::Rejected(Rejection::BlockScript(_))), "{said:?}");
    assert_eq!(world.check(&mut ledger), tip);
}

/// Both branches hold the same transactions. What was written of the one that a crash forgets must not stand for them.
#[test]
fn rows_of_a_branch_that_a_crash_forgets_are_written_again() {
    let mut world = World::new();
    let store = Arc::new(MemStore::new());
    let mut ledger = open_with(&store, &world.params.clone(), 0, 1 << 20, &Index::ALL);
    let base = world.mine(world.params.genesis_hash, 0, Kind::Valid);
    let kept = world.mine(base, 1, Kind::Valid);
    let first = world.mine(base, 1, Kind::Valid);
    let second = world.mine(first, 0, Kind::Valid);
    for hash in [base, kept] {
        world.give(&mut ledger, &hash).unwrap();
    }
    ledger.activate_fully().unwrap();
    ledger.flush().unwrap();
    for hash in [first, second] {
        world.give(&mut ledger, &hash).unwrap();
    }
    ledger.activate_fully().unwrap();
    assert_eq!(ledger.tip(), second);
    world.check_indexes(&ledger);
    drop(ledger);
    for kept_batches in (0..=store.volatile_batches()).rev() {
        let store = Arc::new(store.cut(kept_batches));
        let mut ledger = open_with(&store, &world.params.clone(), 0, 1 << 20, &Index::ALL);
        assert_eq!(ledger.tip(), kept, "nothing of the other branch was flushed");
        while ledger.catch_up_indexes(true).unwrap() {}
        world.check_indexes(&ledger);
    }
}

/// A block goes only when every index has read it; an index that comes after that cannot be made.
#[test]
fn an_index_holds_pruning_back_until_it_has_read_the_blocks() {
    let mut world = World::new();
    let (params, store) = (world.params.clone(), Arc::new(MemStore::with_file_size(2000)));
    let open = |indexes: &[Index]| {
        let options = Options { assumed_valid: None, table_bytes: 1 << 20, prune: Some(1) };
        let mut ledger = Ledger::open(params.clone(), store.clone(), Arc::new(Pool::new(0)), options).unwrap();
        ledger.keep_indexes(indexes).map(|()| ledger)
    };
    let mut tip = params.genesis_hash;
    let mut extend = |ledger: &mut Ledger, blocks: usize| {
        for _ in 0..blocks {
            tip = world.mine(tip, 0, Kind::Valid);
            world.give(ledger, &tip).unwrap();
        }
        ledger.activate_fully().unwrap();
        // What a flush stores of the indexes counts from the next one on.
        ledger.flush().unwrap();
        ledger.flush().unwrap();
    };
    let oldest = || store.files().unwrap()[0].0;
    let mut ledger = open(&[Index::Filters]).unwrap();
    ledger.set_pruning(false);
    extend(&mut ledger, 320);
    drop(ledger);
    let mut ledger = open(&[Index::Filters, Index::CoinStats]).unwrap();
    extend(&mut ledger, 5);
    assert_eq!(oldest(), 0, "an index has not read the first blocks");
    while ledger.catch_up_indexes(true).unwrap() {}
    extend(&mut ledger, 1);
    assert!(oldest() > 0, "all indexes have read the first blocks");
    drop(ledger);
    assert!(open(&[Index::Filters, Index::CoinStats]).is_ok(), "they need no block that is gone");
    assert!(matches!(open(&[Index::Transactions]), Err(LedgerError::IndexPruned("txindex"))));
}

/// What it read of a branch that was left does not count: the blocks from the fork on are still to be read.
#[test]
fn an_index_that_is_behind_on_a_branch_that_was_left_holds_pruning_back_from_the_fork_on() {
    let mut world = World::new();
    let (params, store) = (world.params.clone(), Arc::new(MemStore::with_file_size(2000)));
    let open = |indexes: &[Index]| {
        let options = Options { assumed_valid: None, table_bytes: 1 << 20, prune: Some(PRUNE_TARGET_MANUAL) };
        let mut ledger = Ledger::open(params.clone(), store.clone(), Arc::new(Pool::new(0)), options).unwrap();
        ledger.keep_indexes(indexes).unwrap();
        ledger
    };
    let (mut ledger, genesis) = (open(&[]), params.genesis_hash);
    let mut grow = |ledger: &mut Ledger, from: BlockHash, blocks: u32| {
        let mut tip = from;
        for _ in 0..blocks {
            tip = world.mine(tip, 0, Kind::Valid);
            world.give(ledger, &tip).unwrap();
        }
        ledger.activate_fully().unwrap();
        ledger.flush().unwrap();
        tip
    };
    let fork = grow(&mut ledger, genesis, 10);
    grow(&mut ledger, fork, 60);
    drop(ledger);
    let mut ledger = open(&[Index::Filters]);
    for _ in 0..65 {
        assert!(ledger.catch_up_indexes(true).unwrap(), "the index is in step too early");
    }
    let best = grow(&mut ledger, fork, MIN_BLOCKS_TO_KEEP + 80);
    assert_eq!(ledger.tip(), best);
    ledger.prune_up_to(60).unwrap();
    let oldest = || store.files().unwrap()[0].0;
    let before = oldest();
    while ledger.catch_up_indexes(true).unwrap() {}
    let tree = ledger.tree();
    assert_eq!(ledger.indexes().read()[0].tip, tree.read().tip());
    ledger.prune_up_to(60).unwrap();
    assert!(oldest() > before, "the blocks above the fork go once they are read");
}

#[test]
fn a_preferred_block_is_the_tip_until_another_is_preferred() {
    let mut world = World::new();
    let mut ledger = open(&Arc::new(MemStore::new()), &world.params.clone(), 2, 1 << 20);
    let base = world.mine(world.params.genesis_hash, 0, Kind::Valid);
    let (one, other) = (world.mine(base, 2, Kind::Valid), world.mine(base, 2, Kind::Valid));
    let bad = world.mine(base, 2, Kind::BadScript);
    let go = |ledger: &mut Ledger, world: &mut World, preferred: BlockHash| {
        ledger.prefer(&preferred).unwrap();
        ledger.activate_fully().unwrap();
        world.check(ledger)
    };
    for hash in [base, one, other, bad] {
        world.give(&mut ledger, &hash).unwrap();
    }
    ledger.activate_fully().unwrap();
    assert_eq!(world.check(&mut ledger), one, "the first one known");
    for hash in [other, one, other, other] {
        assert_eq!(go(&mut ledger, &mut world, hash), hash);
    }
    assert_eq!(go(&mut ledger, &mut world, bad), other, "a block that breaks a rule is not followed");
    let above = world.mine(one, 2, Kind::Valid);
    world.give(&mut ledger, &above).unwrap();
    ledger.activate_fully().unwrap();
    assert_eq!(go(&mut ledger, &mut world, other), above, "a block of less work is not followed");
    assert!(ledger.prefer(&BlockHash::all_zeros()).is_none());
}

#[test]
fn files_go_up_to_the_height_that_the_operator_names_and_the_last_blocks_stay() {
    let mut world = World::new();
    let store = Arc::new(MemStore::with_file_size(2000));
    let options = Options { assumed_valid: None, table_bytes: 1 << 20, prune: Some(PRUNE_TARGET_MANUAL) };
    let mut ledger = Ledger::open(world.params.clone(), store, Arc::new(Pool::new(1)), options).unwrap();
    let mut tip = world.params.genesis_hash;
    let count = MIN_BLOCKS_TO_KEEP + 60;
    for _ in 0..count {
        tip = world.mine(tip, 1, Kind::Valid);
        world.give(&mut ledger, &tip).unwrap();
    }
    assert_eq!(ledger.activate_fully().unwrap(), []);
    let gone = |ledger: &Ledger| {
        let tree = ledger.tree();
        let tree = tree.read();
        let is_stored = |height| tree.node(tree.active(height).unwrap()).block().is_some();
        let gone = (1..=count).take_while(|height| !is_stored(*height)).count() as u32;
        assert!((gone + 1..=count).all(is_stored), "a hole above height {gone}");
        gone
    };
    assert_eq!(gone(&ledger), 0, "nothing goes by itself");
    for height in [30, 20, count] {
        let before = gone(&ledger);
        ledger.prune_up_to(height).unwrap();
        let (now, last) = (gone(&ledger), height.min(60).max(before));
        assert!(now <= last && now + 15 > last, "blocks up to {now} are gone after pruning up to {height}");
    }
    assert_eq!(world.check(&mut ledger), tip);
}
