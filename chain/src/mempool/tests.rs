//! The pool on a ledger in memory: what comes in and what does not, what blocks and reorganisations do to it, and that
//! its indexes are always those that its transactions make.

mod in_flight;
mod refused;
mod verdicts;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, TxMerkleNode, TxOut, Witness, transaction};
use parking_lot::RwLock;
use proptest::prelude::*;

use super::*;
use crate::ledger::{Incoming, Ledger, Options};
use crate::params::{Params, RegtestOptions};
use crate::pool::Pool;
use crate::rejection::Rejection;
use crate::rules::pow::check_proof_of_work;
use crate::script::VerdictCache;
use crate::store::mem::MemStore;

const NOW: u64 = 1_700_000_000;
/// A subsidy at the start of regtest, in satoshi.
const SUBSIDY: u64 = 5_000_000_000;

/// Anyone's, and long enough for a transaction to be no leaf of a merkle tree.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61])
}

fn transaction(inputs: &[OutPoint], outputs: &[u64]) -> Transaction {
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let output = |value: &u64| TxOut { value: Amount::from_sat(*value), script_pubkey: anyone() };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: outputs.iter().map(output).collect(),
    }
}

fn commit_to_witnesses(block: &mut bitcoin::Block) {
    let root = block.witness_root().unwrap();
    let commitment = bitcoin::Block::compute_witness_commitment(&root, &[0; 32]).to_byte_array();
    let script_pubkey = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed], &commitment[..]].concat().into();
    block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 32]]);
    block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
}

/// A ledger, its pool, and blocks for both.
struct Node {
    ledger: Ledger,
    pool: Arc<RwLock<Mempool>>,
    verdicts: Arc<VerdictCache>,
    clock: Arc<std::sync::atomic::AtomicU64>,
    blocks: BTreeMap<BlockHash, bitcoin::Block>,
    salt: i64,
}

impl Node {
    fn new(policy: Policy) -> Node {
        Node::with(policy, &RegtestOptions::default(), Pool::new(0))
    }

    fn with(policy: Policy, regtest: &RegtestOptions, threads: Pool) -> Node {
        let mut params = Params::regtest(regtest);
        params.coinbase_maturity = 2;
        let options = Options { assumed_valid: None, table_bytes: 1 << 20, prune: None };
        let (params, threads) = (Arc::new(params), Arc::new(threads));
        let mut ledger = Ledger::open(params.clone(), Arc::new(MemStore::default()), threads, options).unwrap();
        let pool = Arc::new(RwLock::new(Mempool::new(policy, params.genesis_hash)));
        let verdicts = Arc::new(VerdictCache::new(1 << 20, [1; 32]));
        let clock = Arc::new(std::sync::atomic::AtomicU64::new(NOW));
        let time = clock.clone();
        let now = Box::new(move || time.load(std::sync::atomic::Ordering::Relaxed));
        let returned = Box::new(|_, _| ());
        ledger.set_follower(Box::new(Follower { pool: pool.clone(), verdicts: verdicts.clone(), now, returned }));
        ledger.set_verdicts(verdicts.clone());
        let blocks = BTreeMap::from([(params.genesis_hash, params.genesis.clone())]);
        Node { ledger, pool, verdicts, clock, blocks, salt: 0 }
    }

    /// Not only standard transactions: scripts may be anyone's.
    fn lax() -> Policy {
        Policy { require_standard: false, ..Policy::default() }
    }

    fn now(&self) -> u64 {
        self.clock.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds, std::sync::atomic::Ordering::Relaxed);
    }

    fn tip(&self) -> BlockHash {
        let tree = self.ledger.tree();
        let tree = tree.read();
        tree.node(tree.tip()).hash
    }

    fn height(&self, hash: BlockHash) -> u32 {
        let tree = self.ledger.tree();
        let tree = tree.read();
        tree.node(tree.get(&hash).unwrap()).height
    }

    fn accept(&self, tx: &Transaction) -> Result<Accepted, Rejection> {
        self.try_accept(tx).map_err(|refusal| refusal.rejection)
    }

    fn try_accept(&self, tx: &Transaction) -> Result<Accepted, Refusal> {
        let now = self.now();
        let staged = stage(Arc::new(tx.clone()), now, Limits::Held, &self.pool.read(), &self.ledger).unwrap()?;
        staged.check_scripts(&self.verdicts)?;
        self.pool.write().insert(staged, now)
    }

    fn packages(&self, package: &[Arc<Transaction>]) -> Judged {
        let mut judging = Judging::new(package.to_vec());
        loop {
            match self.judge_on(&mut judging) {
                Step::Scripts(staged) => judging.run_scripts(&staged, &self.verdicts),
                Step::Done(judged) => return judged,
            }
        }
    }

    fn judge_on(&self, judging: &mut Judging) -> Step {
        let (pool, ledger, now) = (&*self.pool, &self.ledger, self.now());
        Packages { pool, ledger, now, max_rate: None }.accept(judging).unwrap()
    }

    /// What is wrong with a package, and with each of its transactions.
    fn judge(&self, package: &[Arc<Transaction>]) -> (Option<PackageError>, Vec<Option<Rejection>>) {
        let Judged { error, outcomes } = self.packages(package);
        let reason = |outcome| match outcome {
            Outcome::Refused(refusal) => Some(refusal.rejection),
            _ => None,
        };
        (error, outcomes.into_iter().map(reason).collect())
    }

    /// Mines a block on `parent`, with the fees unclaimed, and lets the ledger go where it wants.
    fn mine(&mut self, parent: BlockHash, transactions: &[Transaction]) -> BlockHash {
        let hash = self.hand_in(parent, transactions);
        assert_eq!(self.ledger.activate_fully().unwrap(), [], "the block is valid");
        hash
    }

    /// Makes a block on `parent` and gives it to the ledger, which does not connect it yet.
    fn hand_in(&mut self, parent: BlockHash, transactions: &[Transaction]) -> BlockHash {
        self.salt += 1;
        let height = self.height(parent) + 1;
        let mut coinbase = transaction(&[OutPoint::null()], &[SUBSIDY / 4; 4]);
        coinbase.input[0].script_sig = Builder::new().push_int(height.into()).push_int(self.salt).into_script();
        let mut block = bitcoin::Block {
            header: Header {
                version: Version::from_consensus(0x2000_0000),
                prev_blockhash: parent,
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.blocks[&parent].header.time + 1,
                bits: self.blocks[&parent].header.bits,
                nonce: 0,
            },
            txdata: [&[coinbase], transactions].concat(),
        };
        if block.txdata.iter().any(|tx| tx.input.iter().any(|input| !input.witness.is_empty())) {
            commit_to_witnesses(&mut block);
        }
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        let params = self.ledger.params().clone();
        while check_proof_of_work(block.block_hash(), block.header.bits, &params).is_err() {
            block.header.nonce += 1;
        }
        let hash = block.block_hash();
        let incoming = Incoming::decode(bitcoin::consensus::serialize(&block), &params).unwrap();
        self.ledger.accept_block(incoming, None, NOW as u32).unwrap().unwrap();
        self.blocks.insert(hash, block);
        hash
    }

    /// Outputs of the coinbase of an active block.
    fn coinbase(&self, height: u32) -> Vec<OutPoint> {
        let tree = self.ledger.tree();
        let tree = tree.read();
        let block = &self.blocks[&tree.node(tree.active(height).unwrap()).hash];
        let txid = block.txdata[0].compute_txid();
        (0..4).map(|vout| OutPoint::new(txid, vout)).collect()
    }

    fn grown(policy: Policy, blocks: u32) -> Node {
        let mut node = Node::new(policy);
        for _ in 0..blocks {
            node.mine(node.tip(), &[]);
        }
        node
    }

    fn ids(&self) -> BTreeSet<Txid> {
        self.pool.read().iter().map(|entry| entry.txid).collect()
    }

    /// Every index says the same as a pool that is made from the transactions alone, and the chain has all else that
    /// they spend.
    fn check(&self) {
        let pool = self.pool.read();
        assert_eq!(pool.tip(), Some(self.tip()), "the pool is in step");
        let mut anew = Mempool::new(pool.policy.clone(), self.tip());
        anew.deltas = pool.deltas.clone();
        for entry in pool.iter() {
            let unlinked = Entry { parents: Default::default(), children: Default::default(), ..entry.clone() };
            anew.add(unlinked);
        }
        assert_eq!(picture(&pool), picture(&anew), "the pool (left) and one made from its transactions");
        let counts = |pool: &Mempool| {
            let live = pool.entries.iter().flatten().count();
            (live, pool.by_txid.len(), pool.by_wtxid.len(), pool.spenders.len(), pool.clusters.len(), pool.totals)
        };
        assert_eq!(counts(&pool), counts(&anew));
        assert_eq!(pool.entries.len(), pool.free.len() + pool.len(), "every number is used or free");
        assert!(pool.memory() <= pool.policy.max_bytes, "{} bytes", pool.memory());
        for entry in pool.iter() {
            for input in &entry.tx.input {
                let outpoint = input.previous_output;
                let there = pool.get(&outpoint.txid).is_some() || self.ledger.coin(&outpoint).unwrap().is_some();
                assert!(there, "{} spends {outpoint}, which is nowhere", entry.txid);
            }
        }
    }
}

/// A transaction's parents, children and cluster in its order, its chunk, and what the operator adds.
type Linked = (Vec<Txid>, Vec<Txid>, Vec<Txid>, usize, i64);

/// What a pool says of each transaction, by ids.
fn picture(pool: &Mempool) -> BTreeMap<Txid, Linked> {
    let ids = |keys: &[Key]| {
        let mut ids: Vec<Txid> = keys.iter().map(|key| pool.entry(*key).txid).collect();
        ids.sort();
        ids
    };
    let order = |cluster| pool.clusters[&cluster].order.iter().map(|key| pool.entry(*key).txid).collect();
    let of = |entry: &Entry| {
        assert_eq!(pool.get_wtxid(&entry.wtxid).map(|found| found.txid), Some(entry.txid));
        let spends = |input: &TxIn| pool.spender(&input.previous_output).map(|found| found.txid) == Some(entry.txid);
        assert!(entry.tx.input.iter().all(spends), "{} is not found by what it spends", entry.txid);
        (ids(&entry.parents), ids(&entry.children), order(entry.cluster), entry.chunk, entry.delta)
    };
    let rates: Vec<FeeRate> = pool.by_chunk.iter().map(|chunk| chunk.rate.0).collect();
    assert!(rates.is_sorted_by(|one, next| one >= next), "{rates:?}");
    assert_eq!(pool.by_chunk.len(), pool.clusters.values().map(|cluster| cluster.chunks.len()).sum::<usize>());
    pool.entries.iter().flatten().map(|entry| (entry.txid, of(entry))).collect()
}

#[test]
fn reasons_come_in_cores_order() {
    let node = Node::grown(Node::lax(), 5);
    let coins = node.coinbase(1);
    let good = transaction(&coins[..1], &[SUBSIDY / 4 - 1000]);
    let held_back = transaction(&coins[..1], &[SUBSIDY / 4 - 2000]);
    node.pool.write().prioritise(held_back.compute_txid(), -3000);
    let mut early = good.clone();
    (early.lock_time, early.input[0].sequence) = (LockTime::from_consensus(6), Sequence::ZERO);
    let mut waits = good.clone();
    waits.input[0].sequence = Sequence::from_consensus(6);
    let young = transaction(&node.coinbase(5)[..1], &[1000]);
    let unknown = OutPoint::new(Txid::from_byte_array([9; 32]), 0);
    let mut coinbase = transaction(&[OutPoint::null()], &[1]);
    coinbase.input[0].script_sig = anyone();
    for (tx, reason) in [
        (transaction(&[], &[1]), Rejection::BadTxnsVinEmpty),
        (coinbase, Rejection::Coinbase),
        (early, Rejection::NonFinal),
        (transaction(&[unknown], &[1]), Rejection::MissingInputs),
        (node.blocks[&node.tip()].txdata[0].clone(), Rejection::Coinbase),
        (waits, Rejection::NonBip68Final),
        (young, Rejection::BadTxnsPrematureSpendOfCoinbase),
        (transaction(&coins[..1], &[SUBSIDY / 4 + 1]), Rejection::BadTxnsInBelowout),
        (transaction(&coins[..1], &[SUBSIDY / 4]), Rejection::MinRelayFeeNotMet),
        (held_back, Rejection::MinRelayFeeNotMet),
    ] {
        assert_eq!(node.accept(&tx), Err(reason), "{tx:?}");
    }
    assert!(node.accept(&good).is_ok());
    assert_eq!(node.accept(&good), Err(Rejection::TxnAlreadyInMempool));
    let mut other_witness = good.clone();
    other_witness.input[0].witness = Witness::from_slice(&[[1]]);
    assert_eq!(node.accept(&other_witness), Err(Rejection::TxnSameNonwitnessDataInMempool));
    node.check();
}

#[test]
fn a_script_that_fails_is_told_with_its_input() {
    let node = Node::grown(Node::lax(), 3);
    let mut tx = transaction(&node.coinbase(1)[..2], &[1000]);
    tx.input[1].script_sig = ScriptBuf::from_bytes(vec![0x51]);
    let refusal = node.try_accept(&tx).unwrap_err();
    assert_eq!(
        refusal.rejection.to_string(),
        "mempool-script-verify-flag-failed (Stack size must be exactly one after execution)"
    );
    let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
    assert_eq!(refusal.detail, format!("input 1 of {txid} (wtxid {wtxid}), spending {}", tx.input[1].previous_output));
}

#[test]
fn a_mined_transaction_leaves_and_its_child_stays() {
    let mut node = Node::grown(Node::lax(), 4);
    let parent = transaction(&node.coinbase(1)[..1], &[SUBSIDY / 4 - 1000]);
    let child = transaction(&[OutPoint::new(parent.compute_txid(), 0)], &[SUBSIDY / 4 - 2000]);
    node.accept(&parent).unwrap();
    node.accept(&child).unwrap();
    node.mine(node.tip(), std::slice::from_ref(&parent));
    assert_eq!(node.ids(), [child.compute_txid()].into());
    node.check();
    assert_eq!(node.accept(&parent), Err(Rejection::TxnAlreadyKnown), "the chain has its output");
}

#[test]
fn a_mined_transaction_is_known_by_its_first_outputs() {
    let mut node = Node::grown(Node::lax(), 4);
    let mined = transaction(&node.coinbase(1)[..1], &[1000; 17]);
    node.mine(node.tip(), std::slice::from_ref(&mined));
    assert_eq!(node.accept(&mined), Err(Rejection::TxnAlreadyKnown));
    let outputs = (0..16).map(|vout| OutPoint::new(mined.compute_txid(), vout)).collect::<Vec<_>>();
    node.mine(node.tip(), &[transaction(&outputs[1..], &[1])]);
    assert_eq!(node.accept(&mined), Err(Rejection::TxnAlreadyKnown), "the first is unspent");
    node.mine(node.tip(), &[transaction(&outputs[..1], &[1])]);
    assert_eq!(node.accept(&mined), Err(Rejection::MissingInputs), "the last is not looked at");
}

#[test]
fn what_conflicts_with_a_block_leaves_with_its_children() {
    let mut node = Node::grown(Node::lax(), 4);
    let coins = node.coinbase(1);
    let parent = transaction(&coins[..1], &[SUBSIDY / 4 - 1000]);
    let child = transaction(&[OutPoint::new(parent.compute_txid(), 0)], &[SUBSIDY / 4 - 2000]);
    let bystander = transaction(&coins[1..2], &[SUBSIDY / 4 - 1000]);
    for tx in [&parent, &child, &bystander] {
        node.accept(tx).unwrap();
    }
    node.mine(node.tip(), &[transaction(&coins[..1], &[1])]);
    assert_eq!(node.ids(), [bystander.compute_txid()].into());
    node.check();
}

#[test]
fn transactions_of_blocks_that_are_taken_back_return_below_their_children() {
    let mut node = Node::grown(Node::lax(), 4);
    let fork = node.tip();
    let parent = transaction(&node.coinbase(1)[..1], &[SUBSIDY / 4 - 1000]);
    let child = transaction(&[OutPoint::new(parent.compute_txid(), 0)], &[SUBSIDY / 4 - 2000]);
    // It pays no fee: that a block held it is enough.
    let free = transaction(&node.coinbase(2)[..1], &[SUBSIDY / 4]);
    node.accept(&parent).unwrap();
    node.mine(fork, &[parent.clone(), free.clone()]);
    node.accept(&child).unwrap();
    let spends_young = transaction(&node.coinbase(4)[..1], &[1000]);
    node.accept(&spends_young).unwrap();
    // The branch is longer, so that the coinbase of the fork stays mature, but the one above it is gone.
    let first = node.mine(fork, &[]);
    node.mine(first, &[]);
    assert_eq!(
        node.ids(),
        [&parent, &child, &free, &spends_young].map(Transaction::compute_txid).into_iter().collect(),
        "all return"
    );
    node.check();
    let pool = node.pool.read();
    assert_eq!(pool.get(&child.compute_txid()).map(|entry| entry.parents.len()), Some(1));
}

#[test]
fn what_a_reorganisation_makes_premature_leaves() {
    let mut node = Node::grown(Node::lax(), 4);
    let fork = node.tip();
    let first = node.mine(fork, &[]);
    let second = node.mine(first, &[]);
    node.mine(second, &[]);
    let spends_coinbase = transaction(&node.coinbase(6)[..1], &[1000]);
    node.accept(&spends_coinbase).unwrap();
    let mut locked = transaction(&node.coinbase(1)[..1], &[1000]);
    (locked.lock_time, locked.input[0].sequence) = (LockTime::from_consensus(7), Sequence::ENABLE_LOCKTIME_NO_RBF);
    node.accept(&locked).unwrap();
    node.ledger.invalidate(&first).unwrap();
    assert_eq!(node.ledger.activate_fully().unwrap(), []);
    assert_eq!(node.tip(), fork);
    assert_eq!(node.ids(), BTreeSet::new());
    node.check();
}

#[test]
fn of_many_blocks_that_are_taken_back_the_lowest_return() {
    let mut node = Node::grown(Node::lax(), 4);
    let fork = node.tip();
    let mut spends = Vec::new();
    for height in 1..=3 {
        for vout in 0..4 {
            let tx = transaction(&node.coinbase(height)[vout..=vout], &[SUBSIDY / 4 - 1000]);
            node.mine(node.tip(), std::slice::from_ref(&tx));
            spends.push(tx);
        }
    }
    // What spends of the highest and of the lowest stays as long as they do.
    let child = |tx: &Transaction| transaction(&[OutPoint::new(tx.compute_txid(), 0)], &[SUBSIDY / 4 - 2000]);
    let (of_lowest, of_highest) = (child(&spends[0]), child(&spends[11]));
    node.accept(&of_lowest).unwrap();
    node.accept(&of_highest).unwrap();
    let first = node.ledger.tree().read().active(5).map(|id| node.ledger.tree().read().node(id).hash).unwrap();
    node.ledger.invalidate(&first).unwrap();
    assert_eq!(node.ledger.activate_fully().unwrap(), []);
    assert_eq!(node.tip(), fork);
    let size = bitcoin::consensus::serialize(&node.blocks[&first]).len();
    let held = crate::ledger::MAX_DISCONNECTED_TX_POOL_BYTES / size;
    assert!((2..12).contains(&held), "{held} blocks of {size} bytes are held");
    let expected: BTreeSet<Txid> = spends[..held].iter().chain([&of_lowest]).map(Transaction::compute_txid).collect();
    assert_eq!(node.ids(), expected);
    node.check();
}

#[test]
fn a_full_pool_throws_out_what_pays_least_and_asks_for_more() {
    let one = |node: &Node, vout: usize, fee| transaction(&node.coinbase(1)[vout..=vout], &[SUBSIDY / 4 - fee]);
    let plenty = Node::grown(Node::lax(), 3);
    plenty.accept(&one(&plenty, 0, 1000)).unwrap();
    let each = plenty.pool.read().memory();

    let mut node = Node::grown(Policy { max_bytes: 2 * each, ..Node::lax() }, 3);
    for (vout, fee) in [(0, 2000), (1, 1000)] {
        node.accept(&one(&node, vout, fee)).unwrap();
    }
    assert_eq!(node.pool.read().min_fee(node.now()), 0);
    node.accept(&one(&node, 2, 3000)).unwrap();
    assert_eq!(node.pool.read().len(), 2);
    assert!(node.pool.read().spender(&node.coinbase(1)[1]).is_none(), "the one that pays least is gone");
    let vsize = one(&node, 0, 0).vsize() as u64;
    let floor = node.pool.read().min_fee(node.now());
    assert_eq!(floor, 1000 * 1000 / vsize + 100, "what it paid and the fee for relay on top");
    assert_eq!(node.accept(&one(&node, 3, 1000)), Err(Rejection::MempoolMinFeeNotMet));
    assert_eq!(node.accept(&one(&node, 3, 1500)), Err(Rejection::MempoolFull), "enough for now, but it pays least");
    node.check();
    let floor = node.pool.read().min_fee(node.now());
    node.pass(24 * 3600);
    assert_eq!(node.pool.read().min_fee(node.now()), floor, "it does not fall before a block comes");
    let spent = one(&node, 0, 2000);
    node.mine(node.tip(), &[spent]);
    node.pass(12 * 3600);
    let half = node.pool.read().min_fee(node.now());
    assert!((floor / 2 - 1..=floor / 2 + 1).contains(&half), "{half} after half of {floor}");
    node.pass(14 * 24 * 3600);
    assert_eq!(node.pool.read().min_fee(node.now()), 0);
    node.check();
}

#[test]
fn a_transaction_expires_with_what_spends_of_it() {
    let node = Node::grown(Node::lax(), 3);
    let parent = transaction(&node.coinbase(1)[..1], &[SUBSIDY / 4 - 1000]);
    node.accept(&parent).unwrap();
    node.pass(336 * 3600);
    let child = transaction(&[OutPoint::new(parent.compute_txid(), 0)], &[SUBSIDY / 4 - 2000]);
    node.accept(&child).unwrap();
    assert_eq!(node.pool.read().len(), 2, "not a second too early");
    node.pass(1);
    let other = transaction(&node.coinbase(1)[1..2], &[SUBSIDY / 4 - 1000]);
    node.accept(&other).unwrap();
    assert_eq!(node.ids(), [other.compute_txid()].into());
    node.check();
}

#[test]
fn a_cluster_holds_to_its_limits() {
    let node = Node::grown(Node::lax(), 3);
    let (mut outpoint, mut value) = (node.coinbase(1)[0], SUBSIDY / 4);
    for number in 1..=65 {
        value -= 1000;
        let tx = transaction(&[outpoint], &[value]);
        let expected = if number <= 64 { None } else { Some(Rejection::TooLargeCluster) };
        assert_eq!(node.accept(&tx).err(), expected, "number {number} of the chain");
        outpoint = OutPoint::new(tx.compute_txid(), 0);
    }
    node.check();
    let pool = node.pool.read();
    let first = pool.spender(&node.coinbase(1)[0]).unwrap();
    assert_eq!((pool.descendants(first).len(), pool.ancestors(first).len()), (63, 0));
}

#[test]
fn transactions_of_version_3_keep_to_families_of_two() {
    let node = Node::grown(Node::lax(), 3);
    let coins = node.coinbase(1);
    let versioned = |version, inputs: &[OutPoint], values: &[u64]| Transaction {
        version: transaction::Version(version),
        ..transaction(inputs, values)
    };
    let of = |tx: &Transaction, vout| OutPoint::new(tx.compute_txid(), vout);
    let parent = versioned(3, &coins[..1], &[100_000, 100_000]);
    let plain = versioned(2, &coins[1..2], &[100_000]);
    node.accept(&parent).unwrap();
    node.accept(&plain).unwrap();
    let refused = Err(Rejection::TrucViolation);
    assert_eq!(node.accept(&versioned(2, &[of(&parent, 0)], &[1000])), refused, "version 2 of version 3");
    assert_eq!(node.accept(&versioned(3, &[of(&plain, 0)], &[1000])), refused, "version 3 of version 2");
    assert_eq!(node.accept(&versioned(3, &[of(&parent, 0)], &vec![1; 70])), refused, "a child of over 1000 bytes");
    let child = versioned(3, &[of(&parent, 0)], &[1000]);
    node.accept(&child).unwrap();
    assert_eq!(node.accept(&versioned(3, &[of(&child, 0)], &[1])), refused, "a grandchild");
    assert_eq!(node.accept(&versioned(3, &coins[2..3], &vec![1; 700])), refused, "over 10,000 bytes");
    node.check();
}

#[test]
fn dust_is_made_for_nothing_and_spent_at_once() {
    let mut node = Node::grown(Policy { min_relay_fee: 0, ..Policy::default() }, 4);
    // Only standard forms: an anchor needs no signature.
    let anchor = ScriptBuf::from_bytes(vec![0x51, 2, 0x4e, 0x73]);
    let to_anchors = |inputs: &[OutPoint], values: &[u64]| {
        let mut tx = transaction(inputs, values);
        tx.output.iter_mut().for_each(|output| output.script_pubkey = anchor.clone());
        tx
    };
    let first = to_anchors(&node.coinbase(1), &[SUBSIDY / 2; 2]);
    node.mine(node.tip(), std::slice::from_ref(&first));
    let coins = [0, 1].map(|vout| OutPoint::new(first.compute_txid(), vout));
    let out = |tx: &Transaction, vout| OutPoint::new(tx.compute_txid(), vout);
    assert_eq!(node.accept(&to_anchors(&coins[..1], &[239, SUBSIDY / 2 - 1000])), Err(Rejection::Dust), "it pays");
    let parent = to_anchors(&coins[..1], &[239, SUBSIDY / 2 - 239]);
    node.accept(&parent).unwrap();
    let leaves = to_anchors(&[out(&parent, 1)], &[1000, 1000]);
    assert_eq!(node.accept(&leaves), Err(Rejection::MissingEphemeralSpends));
    node.accept(&to_anchors(&[out(&parent, 0), out(&parent, 1)], &[1000, 1000])).unwrap();
    node.check();
}

#[test]
fn a_child_pays_for_a_parent_that_comes_with_it() {
    let node = Node::grown(Policy { min_relay_fee: 1000, ..Node::lax() }, 4);
    let coins = node.coinbase(1);
    let package = |vout: usize, fees: [u64; 2]| {
        let parent = transaction(&coins[vout..=vout], &[SUBSIDY / 4 - fees[0]]);
        let child = transaction(&[OutPoint::new(parent.compute_txid(), 0)], &[SUBSIDY / 4 - fees[0] - fees[1]]);
        [Arc::new(parent), Arc::new(child)]
    };
    assert_eq!(node.judge(&package(0, [0, 1000])), (None, vec![None, None]));
    let known = node.packages(&package(0, [0, 1000])).outcomes;
    assert!(known.iter().all(|outcome| matches!(outcome, Outcome::Known { .. })), "{known:?}");
    let low = Some(Rejection::MinRelayFeeNotMet);
    let failed = Some(PackageError::Transaction);
    assert_eq!(node.judge(&package(1, [0, 100])), (failed.clone(), vec![low, low]), "too little together");
    assert_eq!(node.judge(&package(1, [1000, 1000])), (None, vec![None, None]), "each good enough alone");
    let mut broken = package(2, [0, 1000]);
    Arc::make_mut(&mut broken[1]).input[0].script_sig = ScriptBuf::from_bytes(vec![0x51]);
    let (error, reasons) = node.judge(&broken);
    assert_eq!((error, reasons[0]), (failed, low));
    assert!(matches!(reasons[1], Some(Rejection::MempoolScript(_))), "{reasons:?}");
    assert_eq!(node.pool.read().len(), 4, "nothing stays of those that failed");
    node.check();
}

#[test]
fn what_happens_while_the_scripts_of_a_package_run_counts() {
    let node = Node::grown(Policy { min_relay_fee: 1000, ..Node::lax() }, 4);
    let (coins, value) = (node.coinbase(1), SUBSIDY / 4);
    let package = |coin: OutPoint| {
        let parent = transaction(&[coin], &[value]);
        let child = transaction(&[OutPoint::new(parent.compute_txid(), 0)], &[value - 1000]);
        vec![Arc::new(parent), Arc::new(child)]
    };
    let to_scripts = |package: Vec<Arc<Transaction>>| {
        let mut judging = Judging::new(package);
        let Step::Scripts(staged) = node.judge_on(&mut judging) else { panic!("scripts are not run by the pool") };
        judging.run_scripts(&staged, &node.verdicts);
        judging
    };
    let mut judging = to_scripts(package(coins[0]));
    node.accept(&transaction(&[coins[0]], &[value - 5000])).unwrap();
    let Step::Done(judged) = node.judge_on(&mut judging) else { panic!("no other scripts are to be run") };
    let error = judged.error.map(|error| error.to_string()).unwrap_or_default();
    assert!(error.starts_with("package RBF failed: insufficient anti-DoS fees"), "{error}");

    let mut judging = to_scripts(package(coins[1]));
    assert!(node.judge(&package(coins[1])).0.is_none(), "another one offers the same");
    let Step::Done(judged) = node.judge_on(&mut judging) else { panic!("no other scripts are to be run") };
    assert_eq!(judged.error, None, "what is in is no reason to refuse: {judged:?}");
    node.check();
}

#[test]
fn a_parent_that_a_block_takes_while_the_scripts_of_its_child_run_was_accepted() {
    let mut node = Node::grown(Node::lax(), 4);
    let (coins, value) = (node.coinbase(1), SUBSIDY / 4);
    let parent = Arc::new(paying(coins[0], value, 1000));
    let child = Arc::new(paying(OutPoint::new(parent.compute_txid(), 0), value - 1000, 1000));
    let mut judging = Judging::new(vec![parent.clone(), child]);
    for _ in 0..2 {
        let Step::Scripts(staged) = node.judge_on(&mut judging) else { panic!("each has scripts to be run") };
        judging.run_scripts(&staged, &node.verdicts);
    }
    assert!(matches!(judging.outcomes()[0], Outcome::Accepted(_)), "{judging:?}");
    let tip = node.ledger.tip();
    node.mine(tip, &[(*parent).clone()]);
    let Step::Done(judged) = node.judge_on(&mut judging) else { panic!("no other scripts are to be run") };
    assert!(judged.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted(_))), "{judged:?}");
    assert_eq!(judged.error, None);
    node.check();
}

/// One input of `coins`, a fee.
fn paying(coin: OutPoint, value: u64, fee: u64) -> Transaction {
    transaction(&[coin], &[value - fee])
}

#[test]
fn who_pays_more_replaces_what_spends_the_same_with_all_below_it() {
    let node = Node::grown(Node::lax(), 3);
    let (coins, value) = (node.coinbase(1), SUBSIDY / 4);
    let old = paying(coins[0], value, 1000);
    let child = paying(OutPoint::new(old.compute_txid(), 0), value - 1000, 2000);
    let other = paying(coins[1], value, 1000);
    for tx in [&old, &child, &other] {
        node.accept(tx).unwrap();
    }
    let refusal = |fee| node.try_accept(&paying(coins[0], value, fee)).unwrap_err();
    let vsize = old.vsize() as u64;
    let relay = super::accept::money(fee_for(100, vsize) as i64);
    let id = |fee| paying(coins[0], value, fee).compute_txid();
    for (fee, what) in [
        (2999, format!("rejecting replacement {}, less fees than conflicting txs; 0.00002999 < 0.00003", id(2999))),
        (3000, format!("rejecting replacement {}, not enough additional fees to relay; 0.00 < {relay}", id(3000))),
    ] {
        assert_eq!(refusal(fee), Refusal { rejection: Rejection::InsufficientFee, detail: what });
    }
    let before = node.pool.read().sequence();
    node.pool.write().note_movements();
    let new = paying(coins[0], value, 3000 + fee_for(100, vsize));
    let accepted = node.accept(&new).unwrap();
    let left: BTreeSet<Txid> = accepted.replaced.iter().map(|tx| tx.compute_txid()).collect();
    assert_eq!(left, [&old, &child].map(Transaction::compute_txid).into());
    assert_eq!(node.ids(), [accepted.txid, other.compute_txid()].into());
    assert_eq!(node.pool.read().sequence(), before + 3, "two left and one came");
    let moved = [
        Movement::Left(old.compute_txid(), before),
        Movement::Left(child.compute_txid(), before + 1),
        Movement::Entered(Arc::new(new), before + 2),
    ];
    assert_eq!(node.pool.write().movements(), moved, "each is told with its number, in order");
    assert_eq!(node.pool.write().movements(), [], "and once");
    node.check();
}

#[test]
fn a_replacement_must_leave_the_pool_worth_more_to_miners() {
    let node = Node::grown(Node::lax(), 3);
    let (coins, value) = (node.coinbase(1), SUBSIDY / 4);
    let old = paying(coins[0], value, 1000);
    node.accept(&old).unwrap();
    // More in all, but so long that who has little room earns less.
    let long = transaction(&coins[..1], &[(value - 3000) / 40; 40]);
    let failed = Refusal {
        rejection: Rejection::ReplacementFailed,
        detail: "insufficient feerate: does not improve feerate diagram".into(),
    };
    assert_eq!(node.try_accept(&long), Err(failed));
    assert_eq!(node.ids(), [old.compute_txid()].into());
    node.check();
}

#[test]
fn a_replacement_may_not_spend_what_it_replaces() {
    let node = Node::grown(Node::lax(), 3);
    let (coins, value) = (node.coinbase(1), SUBSIDY / 4);
    let old = paying(coins[0], value, 1000);
    node.accept(&old).unwrap();
    let made = OutPoint::new(old.compute_txid(), 0);
    let both = transaction(&[coins[0], made], &[value]);
    let detail = format!("{} spends conflicting transaction {}", both.compute_txid(), old.compute_txid());
    assert_eq!(node.try_accept(&both), Err(Refusal { rejection: Rejection::BadTxnsSpendsConflictingTx, detail }));
    node.check();
}

#[test]
fn a_replacement_conflicts_with_a_hundred_clusters_at_most() {
    let mut node = Node::grown(Policy { min_relay_fee: 0, incremental_relay_fee: 0, ..Node::lax() }, 30);
    let mut coins: Vec<OutPoint> = (1..=26).flat_map(|height| node.coinbase(height)).collect();
    coins.truncate(101);
    for coin in &coins {
        node.accept(&paying(*coin, SUBSIDY / 4, 1)).unwrap();
    }
    let of = |count: usize| transaction(&coins[..count], &[1000]);
    assert_eq!(node.accept(&of(101)).unwrap_err(), Rejection::TooManyPotentialReplacements);
    {
        // So many with the other child of a parent of version 3 are more than such a transaction has room for.
        let pool = node.pool.read();
        let all: BTreeSet<Key> = pool.by_txid.values().copied().collect();
        let refusal = pool.check_replacement(pool.entry(*all.first().unwrap()), &all, true).unwrap_err();
        assert_eq!(refusal.rejection, Rejection::TooManyPotentialReplacementsSibling);
    }
    assert_eq!(node.accept(&of(100)).unwrap().replaced.len(), 100);
    node.check();
    node.mine(node.tip(), &[of(100)]);
    assert_eq!(node.pool.read().len(), 1);
}

#[test]
fn a_second_child_of_version_3_replaces_the_first() {
    let node = Node::grown(Node::lax(), 3);
    let coins = node.coinbase(1);
    let versioned = |inputs: &[OutPoint], values: &[u64]| Transaction {
        version: transaction::Version(3),
        ..transaction(inputs, values)
    };
    let parent = versioned(&coins[..1], &[100_000, 100_000]);
    let of = |vout| OutPoint::new(parent.compute_txid(), vout);
    node.accept(&parent).unwrap();
    let first = versioned(&[of(0)], &[99_000]);
    node.accept(&first).unwrap();
    assert_eq!(node.accept(&versioned(&[of(1)], &[99_000])).unwrap_err(), Rejection::InsufficientFeeSibling);
    let accepted = node.accept(&versioned(&[of(1)], &[90_000])).unwrap();
    assert_eq!(accepted.replaced.iter().map(|tx| tx.compute_txid()).collect::<Vec<_>>(), [first.compute_txid()]);
    node.check();
}

#[test]
fn a_parent_and_its_child_replace_together() {
    let node = Node::grown(Policy { min_relay_fee: 1000, ..Node::lax() }, 4);
    let (coins, value) = (node.coinbase(1), SUBSIDY / 4);
    let old = paying(coins[0], value, 2000);
    node.accept(&old).unwrap();
    let package = |fees: [u64; 2]| {
        let parent = paying(coins[0], value, fees[0]);
        let child = paying(OutPoint::new(parent.compute_txid(), 0), value - fees[0], fees[1]);
        [Arc::new(parent), Arc::new(child)]
    };
    let error = |fees| node.judge(&package(fees)).0.map(|error| error.to_string()).unwrap_or_default();
    assert!(
        error([500, 1000]).starts_with("package RBF failed: insufficient anti-DoS fees, "),
        "{}",
        error([500, 1000])
    );
    assert_eq!(node.ids(), [old.compute_txid()].into());
    let judged = node.packages(&package([500, 5000]));
    assert_eq!(judged.error, None);
    let Outcome::Accepted(first) = &judged.outcomes[0] else { panic!("{judged:?}") };
    assert_eq!(first.replaced.iter().map(|tx| tx.compute_txid()).collect::<Vec<_>>(), [old.compute_txid()]);
    assert_eq!((first.includes.len(), first.rate.fee), (2, 5500));
    node.check();
}

#[test]
fn packages_are_refused_for_what_shows_of_them() {
    let node = Node::grown(Node::lax(), 4);
    let (coins, value) = (node.coinbase(1), SUBSIDY / 4);
    let parent = Arc::new(paying(coins[0], value, 1000));
    let child = Arc::new(paying(OutPoint::new(parent.compute_txid(), 0), value - 1000, 1000));
    let double = Arc::new(paying(coins[0], value, 2000));
    let stranger = Arc::new(paying(coins[1], value, 1000));
    for (package, reason) in [
        (vec![parent.clone(); 26], "package-too-many-transactions"),
        (vec![parent.clone(), parent.clone()], "package-contains-duplicates"),
        (vec![child.clone(), parent.clone()], "package-not-sorted"),
        (vec![parent.clone(), double], "conflict-in-package"),
        (vec![parent.clone(), stranger], "package-not-child-with-parents"),
    ] {
        let judged = node.packages(&package);
        assert_eq!(judged.error, Some(PackageError::Policy { reason, detail: String::new() }));
        assert!(judged.outcomes.iter().all(|outcome| *outcome == Outcome::Unjudged), "{judged:?}");
    }
    assert!(node.pool.read().is_empty());
}

#[test]
fn a_block_takes_chunks_by_rate_until_it_is_full() {
    let mut node = Node::grown(Node::lax(), 4);
    let coins = node.coinbase(1);
    let low = transaction(&coins[..1], &[SUBSIDY / 4 - 100]);
    let high = transaction(&[OutPoint::new(low.compute_txid(), 0)], &[SUBSIDY / 4 - 10_100]);
    let middle = transaction(&coins[1..2], &[SUBSIDY / 4 - 1000]);
    for tx in [&middle, &low, &high] {
        node.accept(tx).unwrap();
    }
    let order = |limits: BlockLimits| {
        let pool = node.pool.read();
        let selected = pool.select(&limits, 5, 0);
        let ids: Vec<Txid> = selected.transactions.iter().map(|chosen| chosen.tx.compute_txid()).collect();
        (ids, selected.fees)
    };
    let ids = |transactions: &[&Transaction]| transactions.iter().map(|tx| tx.compute_txid()).collect::<Vec<_>>();
    assert_eq!(order(BlockLimits::default()), (ids(&[&low, &high, &middle]), 11_100));
    let two = BlockLimits { max_weight: 8000 + 2 * low.weight().to_wu() + 1, ..BlockLimits::default() };
    assert_eq!(order(two), (ids(&[&low, &high]), 10_100));
    let one = BlockLimits { max_weight: 8000 + low.weight().to_wu() + 1, ..BlockLimits::default() };
    assert_eq!(order(one), (ids(&[&middle]), 1000), "the pair does not fit, what pays less does");
    let dear = BlockLimits { min_fee: 50_000, ..BlockLimits::default() };
    assert_eq!(order(dear), (ids(&[&low, &high]), 10_100));
    node.pool.write().prioritise(middle.compute_txid(), 1_000_000);
    node.check();
    assert_eq!(order(BlockLimits::default()).0, ids(&[&middle, &low, &high]), "what the operator adds counts");
    let block: Vec<Transaction> = node.pool.read().iter().map(|entry| (*entry.tx).clone()).collect();
    node.mine(node.tip(), &block);
    assert!(node.pool.read().is_empty() && node.pool.read().deltas().is_empty());
    node.check();
}

/// One event of a random history.
#[derive(Clone, Debug)]
enum Event {
    /// A transaction that spends some outputs, which may be spent already.
    Send { spends: Vec<prop::sample::Index>, outputs: u64, fee: u64 },
    /// A block with what the pool gives.
    Mine,
    /// A block with a transaction that the pool does not know.
    MineForeign(prop::sample::Index),
    /// A branch from so many blocks below the tip that is one block longer; its first block holds what it takes back.
    Reorganise { depth: u32, keep: bool },
    /// The operator calls a block invalid.
    Invalidate { depth: u32 },
    /// The operator adds to a fee.
    Prioritise(prop::sample::Index, i64),
    /// Time passes.
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        12 => (prop::collection::vec(index(), 1..4), 1u64..4, 0u64..5000)
            .prop_map(|(spends, outputs, fee)| Event::Send { spends, outputs, fee }),
        2 => Just(Event::Mine),
        1 => index().prop_map(Event::MineForeign),
        1 => (1u32..4, any::<bool>()).prop_map(|(depth, keep)| Event::Reorganise { depth, keep }),
        1 => (0u32..3).prop_map(|depth| Event::Invalidate { depth }),
        1 => (index(), -2000i64..5000).prop_map(|(index, delta)| Event::Prioritise(index, delta)),
        1 => (0u64..200 * 3600).prop_map(Event::Pass),
    ]
}

impl Node {
    /// Outputs with their values: all that the pool makes, and the coins of the last blocks, spent or not.
    fn outputs(&self) -> Vec<(OutPoint, u64)> {
        let outputs = |tx: &Transaction| {
            let txid = tx.compute_txid();
            let values = tx.output.iter().map(|output| output.value.to_sat()).enumerate();
            values.map(|(vout, value)| (OutPoint::new(txid, vout as u32), value)).collect::<Vec<_>>()
        };
        let mut found: Vec<_> = self.pool.read().iter().flat_map(|entry| outputs(&entry.tx)).collect();
        let mut hash = self.tip();
        for _ in 0..8 {
            found.extend(self.blocks[&hash].txdata.iter().flat_map(outputs));
            hash = self.blocks[&hash].header.prev_blockhash;
            if !self.blocks.contains_key(&hash) {
                break;
            }
        }
        found.sort();
        found
    }

    fn below(&self, depth: u32) -> BlockHash {
        (0..depth).fold(self.tip(), |hash, _| match self.blocks[&hash].header.prev_blockhash {
            parent if self.blocks.contains_key(&parent) => parent,
            _ => hash,
        })
    }

    fn selected(&self) -> Vec<Transaction> {
        let height = self.height(self.tip()) + 1;
        let selected = self.pool.read().select(&BlockLimits::default(), height, u32::MAX);
        selected.transactions.iter().map(|chosen| (*chosen.tx).clone()).collect()
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Send { spends, outputs, fee } => {
                let known = self.outputs();
                let spent: BTreeMap<OutPoint, u64> = spends.iter().map(|index| *index.get(&known)).collect();
                let value = spent.values().sum::<u64>().saturating_sub(*fee) / outputs;
                let inputs: Vec<OutPoint> = spent.into_keys().collect();
                let _ = self.accept(&transaction(&inputs, &vec![value; *outputs as usize]));
            }
            Event::Mine => {
                let transactions = self.selected();
                self.mine(self.tip(), &transactions);
            }
            Event::MineForeign(index) => {
                let coins: Vec<OutPoint> = self.outputs().into_iter().map(|(outpoint, _)| outpoint).collect();
                let height = self.height(self.tip());
                let mature = |outpoint: &&OutPoint| {
                    let coin = self.ledger.coin(outpoint).unwrap();
                    coin.is_some_and(|coin| !coin.is_coinbase() || coin.height() + 2 <= height + 1)
                };
                let coins: Vec<OutPoint> = coins.iter().filter(mature).copied().collect();
                let foreign = (!coins.is_empty()).then(|| transaction(&[*index.get(&coins)], &[0]));
                self.mine(self.tip(), foreign.as_slice());
            }
            Event::Reorganise { depth, keep } => {
                let fork = self.below(*depth);
                let mut blocks = vec![self.tip()];
                while *blocks.last().unwrap() != fork {
                    blocks.push(self.blocks[blocks.last().unwrap()].header.prev_blockhash);
                }
                blocks.pop();
                let mut parent = fork;
                for hash in blocks.iter().rev() {
                    let kept: Vec<Transaction> = self.blocks[hash].txdata[1..].to_vec();
                    // What spends a coinbase of the old branch cannot be kept: nothing of such a block is.
                    let spends_old = |tx: &Transaction| {
                        let old = |input: &TxIn| {
                            let made = |hash: &BlockHash| self.blocks[hash].txdata[0].compute_txid();
                            blocks.iter().any(|hash| made(hash) == input.previous_output.txid)
                        };
                        tx.input.iter().any(old)
                    };
                    let possible = *keep && parent == fork && !kept.iter().any(spends_old);
                    parent = self.mine(parent, if possible { &kept } else { &[] });
                }
                self.mine(parent, &[]);
            }
            Event::Invalidate { depth } => {
                let hash = self.below(*depth);
                if self.ledger.invalidate(&hash).is_some() {
                    assert_eq!(self.ledger.activate_fully().unwrap(), []);
                }
            }
            Event::Prioritise(index, delta) => {
                let ids: Vec<Txid> = self.ids().into_iter().collect();
                if !ids.is_empty() {
                    self.pool.write().prioritise(*index.get(&ids), *delta);
                }
            }
            Event::Pass(seconds) => self.pass(*seconds),
        }
    }
}

proptest! {
    #[test]
    fn after_any_history_the_indexes_are_those_of_a_pool_made_anew(
        events in prop::collection::vec(event(), 1..80),
        room in 10usize..60,
    ) {
        let policy = Policy { max_bytes: room * 1500, cluster_count: 8, ..Node::lax() };
        let mut node = Node::grown(policy, 5);
        for event in &events {
            node.happen(event);
            node.check();
        }
    }
}
