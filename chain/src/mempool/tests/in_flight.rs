//! The pool while the scripts of blocks still run: whatever blocks fail, conflict with it, or are called invalid meanwhile,
//! what it holds could be in the next block on the published tip.

use std::sync::mpsc;

use super::*;
use crate::ledger::Step;

/// A script that fails under any rules.
fn wrong(tx: &Transaction) -> Transaction {
    let mut tx = tx.clone();
    tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x6a]);
    tx
}

/// A thread of the ledger's pool that does nothing until this is dropped: scripts run only where the ledger waits.
struct Held(#[expect(dead_code, reason = "its end lets the thread go")] mpsc::Sender<()>);

impl Node {
    fn with_a_thread(policy: Policy) -> Node {
        Node::with(policy, &RegtestOptions::default(), Pool::new(1))
    }

    fn hold(&self) -> Held {
        let (begun, holds) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        self.ledger.pool().submit(true, move || {
            begun.send(()).unwrap();
            let _ = ends.recv();
        });
        holds.recv().unwrap();
        Held(end)
    }

    /// One step of the ledger; false when there was none to do.
    fn step(&mut self) -> bool {
        !matches!(self.ledger.activate_best_chain().unwrap(), Step::Idle)
    }

    fn steps(&mut self, most: usize) {
        (0..most).take_while(|_| self.step()).for_each(drop);
    }

    /// What the ledger's thread does before it judges a transaction.
    fn come_to_rest(&mut self) {
        while !self.ledger.is_at_rest() {
            if self.ledger.finish_scripts().unwrap().is_none() && !self.ledger.is_at_rest() {
                self.step();
            }
        }
    }

    /// Outputs that are unspent at the published tip, by the blocks alone.
    fn published_coins(&self) -> BTreeSet<OutPoint> {
        let (mut hash, mut chain) = (self.tip(), Vec::new());
        while let Some(block) = self.blocks.get(&hash) {
            chain.push(block);
            hash = block.header.prev_blockhash;
        }
        let mut coins = BTreeSet::new();
        // Regtest's first block is no one's.
        for tx in chain.iter().rev().skip(1).flat_map(|block| &block.txdata) {
            coins.retain(|outpoint| tx.input.iter().all(|input| input.previous_output != *outpoint));
            let txid = tx.compute_txid();
            coins.extend((0..tx.output.len()).map(|vout| OutPoint::new(txid, vout as u32)));
        }
        coins
    }

    /// The pool is in step with the published tip, whatever is in flight.
    fn check_published(&self) {
        let (pool, coins) = (self.pool.read(), self.published_coins());
        assert_eq!(pool.tip(), Some(self.tip()), "the pool is in step");
        for entry in pool.iter() {
            for input in &entry.tx.input {
                let outpoint = input.previous_output;
                let made =
                    pool.get(&outpoint.txid).is_some_and(|parent| parent.tx.output.len() > outpoint.vout as usize);
                assert!(made || coins.contains(&outpoint), "{} spends {outpoint}, which is nowhere", entry.txid);
            }
            assert!(!coins.contains(&OutPoint::new(entry.txid, 0)), "{} is mined", entry.txid);
        }
    }
}

#[test]
fn a_tip_that_is_called_invalid_while_a_reorganisation_is_in_flight_gives_way_with_the_pool_in_step() {
    let mut node = Node::with_a_thread(Node::lax());
    for _ in 0..4 {
        node.mine(node.tip(), &[]);
    }
    let fork = node.tip();
    let spend = transaction(&node.coinbase(1)[..1], &[SUBSIDY / 4 - 1000]);
    let old = node.mine(fork, std::slice::from_ref(&spend));
    node.mine(old, &[]);
    // Blocks with scripts to run.
    let spends = [2, 3].map(|height| transaction(&node.coinbase(height)[..1], &[1]));
    let held = node.hold();
    let mut parent = fork;
    for content in [&spends[..1], &spends[1..], &[]] {
        parent = node.hand_in(parent, content);
    }
    // Two blocks are taken back and two connected, whose work is not enough yet.
    node.steps(4);
    assert_eq!(node.ledger.height(), 6);
    assert_ne!(node.ledger.tip(), node.tip());
    node.ledger.invalidate(&old).unwrap();
    while node.step() {
        node.check_published();
    }
    drop(held);
    assert_eq!((node.tip(), node.ids()), (parent, [spend.compute_txid()].into()));
    node.check();
}

#[test]
fn what_was_judged_on_a_tip_that_is_taken_back_is_judged_again() {
    let mut node = Node::grown(Node::lax(), 4);
    let block = node.mine(node.tip(), &[]);
    let mut locked = transaction(&node.coinbase(1)[..1], &[1000]);
    (locked.lock_time, locked.input[0].sequence) = (LockTime::from_consensus(5), Sequence::ENABLE_LOCKTIME_NO_RBF);
    let staged = stage(Arc::new(locked), NOW, Limits::Held, &node.pool.read(), &node.ledger).unwrap().unwrap();
    assert!(staged.is_current(&node.pool.read()));
    // The block holds nothing that would come back: no transaction of the pool changes.
    node.ledger.invalidate(&block).unwrap();
    assert_eq!(node.ledger.activate_fully().unwrap(), []);
    assert!(!staged.is_current(&node.pool.read()), "the next block is at another height");
}

/// One event between two steps of the ledger.
#[derive(Clone, Debug)]
enum Event {
    Send {
        spends: prop::sample::Index,
        outputs: u64,
        fee: u64,
    },
    /// A block so many below the tip of all blocks, with what the pool gives, a conflict with it, or a wrong script.
    Block {
        depth: usize,
        content: Content,
    },
    Steps(usize),
    Invalidate(prop::sample::Index),
    Reconsider(prop::sample::Index),
    Hold(bool),
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Nothing,
    Pool,
    Conflict,
    Wrong,
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    let content = prop::sample::select(vec![Content::Nothing, Content::Pool, Content::Conflict, Content::Wrong]);
    prop_oneof![
        6 => (index(), 1u64..3, 500u64..5000).prop_map(|(spends, outputs, fee)| Event::Send { spends, outputs, fee }),
        8 => (0usize..4, content).prop_map(|(depth, content)| Event::Block { depth, content }),
        6 => (1usize..5).prop_map(Event::Steps),
        1 => index().prop_map(Event::Invalidate),
        1 => index().prop_map(Event::Reconsider),
        2 => any::<bool>().prop_map(Event::Hold),
    ]
}

impl Node {
    fn hand_in_some(&mut self, parent: BlockHash, content: Content) {
        // Only what is sure to be valid there: spends of coins that are older than any branch.
        let old: BTreeSet<OutPoint> = (1..=3).flat_map(|height| self.coinbase(height)).collect();
        let mut spent = BTreeSet::new();
        let mut hash = parent;
        while let Some(block) = self.blocks.get(&hash) {
            spent.extend(block.txdata.iter().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)));
            hash = block.header.prev_blockhash;
        }
        let pool = self.pool.read();
        let fits = |tx: &&Transaction| {
            let mut inputs = tx.input.iter().map(|input| input.previous_output);
            inputs.all(|outpoint| old.contains(&outpoint) && !spent.contains(&outpoint))
        };
        let fitting: Vec<Transaction> = pool.iter().map(|entry| &*entry.tx).filter(fits).cloned().collect();
        drop(pool);
        let transactions = match content {
            Content::Nothing => vec![],
            Content::Pool => fitting,
            Content::Conflict => fitting
                .into_iter()
                .map(|tx| Transaction { output: vec![tx.output[0].clone(); 3], ..tx })
                .map(|mut tx| {
                    tx.output.iter_mut().for_each(|output| output.value = Amount::from_sat(7));
                    tx
                })
                .collect(),
            Content::Wrong => fitting.iter().map(wrong).collect(),
        };
        self.hand_in(parent, &transactions);
    }
}

proptest! {
    #[test]
    fn whatever_is_in_flight_the_pool_holds_what_the_published_tip_allows(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut node = Node::with_a_thread(Node::lax());
        for _ in 0..5 {
            node.mine(node.tip(), &[]);
        }
        let base = node.tip();
        let (mut latest, mut held) = (base, None);
        for event in &events {
            match event {
                Event::Send { spends, outputs, fee } => {
                    node.come_to_rest();
                    let coins: Vec<OutPoint> = node.published_coins().into_iter()
                        .chain(node.outputs().into_iter().map(|(outpoint, _)| outpoint)).collect();
                    let value = (SUBSIDY / 8 - fee) / outputs;
                    let _ = node.accept(&transaction(&[*spends.get(&coins)], &vec![value; *outputs as usize]));
                }
                Event::Block { depth, content } => {
                    let mut parent = latest;
                    for _ in 0..*depth {
                        if parent != base {
                            parent = node.blocks[&parent].header.prev_blockhash;
                        }
                    }
                    let tree = node.ledger.tree();
                    let invalid = tree.read().node(tree.read().get(&parent).unwrap()).is_invalid();
                    if !invalid {
                        let before = node.blocks.len();
                        node.hand_in_some(parent, *content);
                        assert_eq!(node.blocks.len(), before + 1);
                        let newest = node.blocks.keys().copied().max_by_key(|hash| node.blocks[hash].header.time).unwrap();
                        latest = newest;
                    }
                }
                Event::Steps(most) => {
                    for _ in 0..*most {
                        let more = node.step();
                        node.check_published();
                        if !more {
                            break;
                        }
                    }
                }
                Event::Invalidate(index) | Event::Reconsider(index) => {
                    let hashes: Vec<BlockHash> = node.blocks.keys().copied().collect();
                    let hash = *index.get(&hashes);
                    if node.height(hash) > 5 {
                        match event {
                            Event::Invalidate(_) => node.ledger.invalidate(&hash),
                            _ => node.ledger.reconsider(&hash),
                        };
                    }
                }
                Event::Hold(hold) => {
                    held = None;
                    held = hold.then(|| node.hold()).or(held);
                }
            }
            node.check_published();
        }
        node.come_to_rest();
        node.steps(10_000);
        node.check_published();
        node.check();
        drop(held);
    }
}
