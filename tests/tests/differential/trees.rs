//! Random trees of blocks, told in any order, some of them invalid, with the operator's word in between: every judge
//! answers the same, stands at the same tip after each step, and has the same coins.

use bitcoin::consensus::encode::serialize;
use bitcoin::{Amount, Block, BlockHash, OutPoint, ScriptBuf, Witness};
use groat_chain::params::{Params, RegtestOptions};
use groat_tests::bitcoind::{Bitcoind, peers};
use groat_tests::mutants::{Judge, Mark, NOW};
use groat_tests::regtest;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::judge::Groat;
use super::setting;

/// Blocks that all branches share.
const TRUNK: u32 = 110;

/// A block of the tree, told or not.
struct Node {
    block: Block,
    height: u32,
}

struct Forest {
    random: ChaCha8Rng,
    trunk: Vec<Block>,
    nodes: Vec<Node>,
}

/// What a judge is told.
#[derive(Debug)]
enum Act {
    Block(usize),
    Header(usize),
    Mark(Mark, usize),
}

impl Forest {
    fn new(seed: u64) -> Forest {
        let mut trunk = vec![regtest::genesis()];
        regtest::extend(&mut trunk, TRUNK as usize, 0);
        Forest { random: ChaCha8Rng::seed_from_u64(seed), trunk, nodes: Vec::new() }
    }

    /// A new block on one of the last blocks, mostly, or on any. It pays on what the trunk's coinbases hold, so that
    /// branches spend the same coins.
    fn grow(&mut self) -> usize {
        let random = &mut self.random;
        let recent = random.random_range(0..=self.nodes.len().min(4));
        let back = if random.random_ratio(1, 6) { random.random_range(0..=self.nodes.len()) } else { recent };
        let (parent, height) = match self.nodes.len().checked_sub(back).and_then(|at| self.nodes.get(at)) {
            Some(node) => (node.block.block_hash(), node.height + 1),
            None => (self.trunk[TRUNK as usize].block_hash(), TRUNK + 1),
        };
        let anyone = ScriptBuf::from_bytes(vec![0x51]);
        let reward = regtest::output(regtest::subsidy(height).to_sat(), anyone.clone());
        let mut transactions = vec![regtest::coinbase(height, self.nodes.len() as u64, vec![reward])];
        if random.random_ratio(2, 3)
            && let Some(mature) = self.trunk.get(height as usize - 100)
        {
            let coin = OutPoint::new(mature.txdata[0].compute_txid(), 0);
            let value = regtest::output(mature.txdata[0].output[0].value.to_sat(), anyone);
            transactions.push(regtest::transaction(vec![regtest::unsigned(coin)], vec![value]));
        }
        let mut block = regtest::block(parent, regtest::time_at(height), transactions);
        match random.random_range(0..40) {
            // Found when it is connected.
            0..=3 => block.txdata[0].output[0].value += Amount::ONE_SAT,
            // Found when it comes in, and remembered.
            4 => block.txdata[0].input[0].script_sig = regtest::push(&[7; 8]),
            // In the header.
            5 => block.header.time = regtest::GENESIS_TIME,
            _ => {
                self.nodes.push(Node { block, height });
                return self.nodes.len() - 1;
            }
        }
        regtest::seal(&mut block);
        self.nodes.push(Node { block, height });
        self.nodes.len() - 1
    }

    fn act(&mut self) -> Act {
        let any = |forest: &mut Forest| forest.random.random_range(0..forest.nodes.len());
        match self.random.random_range(0..20) {
            _ if self.nodes.is_empty() => Act::Block(self.grow()),
            0..=5 => Act::Block(self.grow()),
            6..=8 => Act::Header(self.grow()),
            9..=15 => Act::Block(any(self)),
            16 => Act::Header(any(self)),
            17 => Act::Mark(Mark::Invalid, any(self)),
            18 => Act::Mark(Mark::Reconsidered, any(self)),
            _ => Act::Mark(Mark::Precious, any(self)),
        }
    }

    fn hash(&self, at: usize) -> BlockHash {
        self.nodes[at].block.block_hash()
    }
}

#[test]
fn trees_of_blocks_have_the_tip_that_core_finds() {
    let Some(peers) = peers() else { return };
    let (first, count) = (setting("GROAT_TREE_SEED", 1), setting("GROAT_TREE_COUNT", 4));
    for seed in first..first + count {
        let mut forest = Forest::new(seed);
        let mut core = Bitcoind::start(&peers, &[format!("-mocktime={NOW}"), "-par=2".into()]);
        let mut groat = Groat::on(Params::regtest(&RegtestOptions::default()), 2);
        let mut judges: [&mut dyn Judge; 2] = [&mut core, &mut groat];
        for block in &forest.trunk[1..] {
            for judge in judges.iter_mut() {
                assert_eq!(judge.submit(&serialize(block)), Ok(()), "the trunk is valid");
            }
        }
        for step in 0..300 {
            let act = forest.act();
            let damaged = forest.random.random_ratio(1, 30);
            let answers = judges.each_mut().map(|judge| {
                let answer = match act {
                    Act::Block(at) if damaged => {
                        let mut block = forest.nodes[at].block.clone();
                        block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 31]]);
                        judge.submit(&serialize(&block))
                    }
                    Act::Block(at) => judge.submit(&serialize(&forest.nodes[at].block)),
                    Act::Header(at) => judge.header(&forest.nodes[at].block.header),
                    Act::Mark(mark, at) => judge.mark(mark, forest.hash(at)),
                };
                (answer, judge.tip())
            });
            let say = || format!("GROAT_TREE_SEED={seed} GROAT_TREE_COUNT=1, step {step}: {act:?}");
            assert_eq!(answers[0], answers[1], "bitcoind (left) and groat differ: {}", say());
            if step % 50 == 49 {
                let coins = judges.each_mut().map(|judge| judge.muhash());
                assert_eq!(coins[0], coins[1], "the coins of bitcoind (left) and groat differ: {}", say());
            }
        }
    }
}
