//! Random blocks with random spends and random faults, one after another: every judge gives the same verdict in the
//! same words. Where `blocks` names each rule once, this one looks where nobody thought to look.

use std::collections::BTreeMap;

use bitcoin::block::Version;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG};
use bitcoin::script::{Builder, ScriptBuf};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, Sequence, Transaction, TxMerkleNode, TxOut, Txid, Witness,
    absolute, transaction,
};
use groat_chain::coins::Coin;
use groat_chain::params::{Params, RegtestOptions};
use groat_tests::bitcoind::{Bitcoind, peers};
use groat_tests::fuzz_script::{spoil, spoil_bytes};
use groat_tests::mutants::{Judge, NOW};
use groat_tests::regtest::{self, COMMITMENT_START, mine, root_and_mine, seal};
use groat_tests::spends::{Maker, Spend};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::judge::Groat;
use super::setting;

const MAX_MONEY: u64 = 21_000_000 * 100_000_000;
/// Blocks of coinbases alone at the start.
const START: u32 = 130;
/// What a coin with a script holds, in satoshis.
const LOCKED: u64 = 100_000;

/// A coin that anyone may spend from a height on.
#[derive(Clone)]
struct Open {
    outpoint: OutPoint,
    output: TxOut,
    from: u32,
}

/// A coin whose script the maker chose with this seed.
#[derive(Clone, Copy)]
struct Locked {
    outpoint: OutPoint,
    seed: u64,
}

struct Chain {
    random: ChaCha8Rng,
    maker: Maker,
    /// Hashes and times by height.
    blocks: Vec<(BlockHash, u32)>,
    open: Vec<Open>,
    locked: Vec<Locked>,
}

impl Chain {
    fn new(seed: u64) -> Chain {
        let genesis = (regtest::genesis().block_hash(), regtest::GENESIS_TIME);
        let random = ChaCha8Rng::seed_from_u64(seed);
        Chain { random, maker: Maker::default(), blocks: vec![genesis], open: vec![], locked: vec![] }
    }

    fn height(&self) -> u32 {
        self.blocks.len() as u32
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())]
    }

    fn median(&self) -> u32 {
        let mut times: Vec<u32> = self.blocks.iter().rev().take(11).map(|block| block.1).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// A valid block on the tip with a coinbase alone, unsealed.
    fn frame(&mut self) -> Block {
        let height = self.height();
        let reward = regtest::output(regtest::subsidy(height).to_sat(), anyone());
        let coinbase = regtest::coinbase(height, self.random.random(), vec![reward]);
        let (tip, time) = *self.blocks.last().expect("genesis is there");
        let latest = (self.median() + 1).max(time);
        let time = (latest + self.random.random_range(0..900)).min(NOW);
        regtest::block(tip, time.max(self.median() + 1), vec![coinbase])
    }

    /// A coin to spend, seldom one that is not mature yet.
    fn coin(&mut self) -> Option<Open> {
        let young = self.random.random_ratio(1, 60);
        let height = self.height();
        let ripe: Vec<&Open> = self.open.iter().filter(|coin| young || coin.from <= height).collect();
        let at = self.random.random_range(0..ripe.len().max(1));
        ripe.get(at).map(|coin| (*coin).clone())
    }

    /// A payment from up to three coins to up to four outputs, with all or nearly all the money.
    fn payment(&mut self) -> Transaction {
        let mut coins: Vec<Open> = (0..self.random.random_range(1..4)).filter_map(|_| self.coin()).collect();
        coins.sort_by_key(|coin| coin.outpoint);
        if !self.random.random_ratio(1, 50) {
            coins.dedup_by_key(|coin| coin.outpoint);
        }
        let total: u64 = coins.iter().map(|coin| coin.output.value.to_sat()).sum();
        let parts = self.random.random_range(1..5);
        let fee = self.random.random_range(0..2_000).min(total);
        let outputs = (0..parts).map(|_| regtest::output((total - fee) / parts, anyone())).collect();
        let mut inputs: Vec<_> = coins.iter().map(|coin| regtest::unsigned(coin.outpoint)).collect();
        for input in &mut inputs {
            input.sequence = Sequence(self.pick(&[!0, !0, !0, !0, !0, !0, 0, 1, 2, 1 << 22, 1 << 22 | 1, !1]));
        }
        let mut transaction = regtest::transaction(inputs, outputs);
        transaction.version = transaction::Version(self.pick(&[1, 2, 2, 3, 0, -1, i32::MAX]));
        transaction.lock_time = absolute::LockTime::from_consensus(self.lock_time());
        transaction
    }

    fn lock_time(&mut self) -> u32 {
        let (height, median) = (self.height(), self.median());
        self.pick(&[
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            1,
            height - 1,
            height,
            499_999_999,
            500_000_000,
            median - 1,
            median,
            u32::MAX,
        ])
    }

    /// A block that makes coins with scripts of the maker's.
    fn fund(&mut self) -> (Block, Vec<u64>) {
        let mut block = self.frame();
        let height = self.height();
        let coin = self.open.iter().filter(|coin| coin.from <= height).max_by_key(|coin| coin.output.value);
        let coin = coin.expect("some coinbase is mature").clone();
        let seeds: Vec<u64> = (0..40).map(|_| self.random.random()).collect();
        let mut outputs: Vec<TxOut> = seeds.iter().map(|seed| self.script(*seed, OutPoint::null())).collect();
        outputs.push(regtest::output(coin.output.value.to_sat() - LOCKED * seeds.len() as u64, anyone()));
        block.txdata.push(regtest::transaction(vec![regtest::unsigned(coin.outpoint)], outputs));
        seal(&mut block);
        (block, seeds)
    }

    /// The output that the maker chooses with this seed.
    fn script(&self, seed: u64, outpoint: OutPoint) -> TxOut {
        self.spend_with(seed, regtest::transaction(vec![regtest::unsigned(outpoint)], vec![]), &[], 0).coins[0]
            .to_output()
    }

    /// The transaction, its input `index` signed by the maker; `others` are the coins of the other inputs.
    fn spend_with(&self, seed: u64, transaction: Transaction, others: &[Open], index: usize) -> Spend {
        let mut coins: Vec<Coin> = others.iter().map(|coin| Coin::new(&coin.output, 0, false)).collect();
        coins.insert(index, Coin::from_parts(LOCKED, &[], 0, false));
        let mut spend = Spend { transaction, coins, index };
        self.maker.fill(&mut spend, &mut ChaCha8Rng::seed_from_u64(seed));
        spend
    }

    /// A spend of a coin with a script, beside a coin of anyone's, half of the time spoiled.
    fn unlock(&mut self) -> Transaction {
        let at = self.random.random_range(0..self.locked.len());
        let Locked { outpoint, seed } = self.locked[at];
        // Many can never be spent: they make place for others.
        if self.random.random_ratio(1, 3) {
            self.locked.swap_remove(at);
        }
        let others: Vec<Open> = (0..self.random.random_range(0..2)).filter_map(|_| self.coin()).collect();
        let index = self.random.random_range(0..=others.len());
        let mut inputs: Vec<_> = others.iter().map(|coin| regtest::unsigned(coin.outpoint)).collect();
        inputs.insert(index, regtest::unsigned(outpoint));
        for input in &mut inputs {
            input.sequence = Sequence(self.pick(&[u32::MAX, u32::MAX - 1, u32::MAX - 1, 0, 1, 5, 1 << 22 | 5]));
        }
        let outputs = (0..self.random.random_range(1..4)).map(|_| regtest::output(1_000, anyone())).collect();
        let mut transaction = regtest::transaction(inputs, outputs);
        transaction.version = transaction::Version(self.pick(&[1, 2, 2, 3]));
        let height = self.height();
        transaction.lock_time = absolute::LockTime::from_consensus(self.pick(&[0, 100, height - 1, 500_000_100]));
        let mut spend = self.spend_with(seed, transaction, &others, index);
        if self.random.random() {
            spoil(&mut spend, &mut self.random);
        }
        spend.transaction
    }

    /// A block with payments, perhaps one spend of a script, and faults. Whether no script but that one can fail: of two
    /// that do, Core tells of the one that its threads come to first.
    fn block(&mut self) -> (Vec<u8>, bool) {
        let mut block = self.frame();
        for _ in 0..self.random.random_range(0..4) {
            let payment = self.payment();
            block.txdata.push(payment);
        }
        if self.random.random_ratio(4, 5) {
            let unlock = self.unlock();
            let at = self.random.random_range(1..=block.txdata.len());
            block.txdata.insert(at, unlock);
        }
        let (body, sealed) = (self.random.random_ratio(1, 2), self.random.random_ratio(1, 5));
        if body {
            self.spoil_body(&mut block);
        }
        seal(&mut block);
        if sealed {
            self.spoil_sealed(&mut block);
        }
        if self.random.random_ratio(1, 8) {
            self.spoil_header(&mut block);
        }
        let mut bytes = serialize(&block);
        if self.random.random_ratio(1, 20) {
            // What follows the header; a changed header is nothing but a high hash or a bad root.
            let mut body = bytes.split_off(80);
            spoil_bytes(&mut body, &mut self.random);
            bytes.extend(body);
        }
        (bytes, !body && !sealed)
    }

    fn spoil_body(&mut self, block: &mut Block) {
        let at = self.random.random_range(0..block.txdata.len());
        let to = self.random.random_range(0..block.txdata.len());
        let height = i64::from(self.height());
        let own = OutPoint::new(block.txdata[to].compute_txid(), 0);
        let coin = self.coin().map_or(own, |coin| coin.outpoint);
        let (output, input) = (self.random.random_range(0..5), self.random.random_range(0..3));
        let transaction = &mut block.txdata[at];
        let count = transaction.output.len().max(1);
        match self.random.random_range(0..20) {
            0 => block.txdata[0].output[0].value += Amount::from_sat(self.pick(&[1, 2_000, 10_000, 100_000])),
            1 => {
                let mut script = block.txdata[0].input[0].script_sig.to_bytes();
                script.resize(self.pick(&[1, 2, 99, 100, 101]), 0);
                block.txdata[0].input[0].script_sig = script.into();
            }
            2 => {
                let height = self.pick(&[height - 1, height + 1, 0, -1, height, 1 << 31]);
                block.txdata[0].input[0].script_sig = Builder::new().push_int(height).push_slice([0; 4]).into_script();
            }
            3 => block.txdata.swap(at, to),
            4 => block.txdata.insert(at, block.txdata[to].clone()),
            5 => drop(block.txdata.remove(at)),
            6 => {
                if let Some(output) = transaction.output.get_mut(output % count) {
                    let more = output.value.to_sat() + 1;
                    let values = [MAX_MONEY, MAX_MONEY + 1, u64::MAX, 1 << 63, i64::MAX as u64, more, 0];
                    output.value = Amount::from_sat(values[self.random.random_range(0..values.len())]);
                }
            }
            7 | 8 => {
                let count = transaction.input.len().max(1);
                let missing = OutPoint::new(Txid::from_byte_array([9; 32]), 0);
                let other = OutPoint::new(coin.txid, coin.vout + 1);
                let outpoints = [OutPoint::null(), missing, own, coin, other, OutPoint::new(Txid::all_zeros(), 0)];
                if let Some(input) = transaction.input.get_mut(input % count) {
                    input.previous_output = outpoints[self.random.random_range(0..outpoints.len())];
                }
            }
            9 => transaction.input.extend_from_within(..1),
            10 => transaction.output.clear(),
            11 => transaction.input.push(regtest::unsigned(OutPoint::null())),
            12 => transaction.lock_time = absolute::LockTime::from_consensus(self.random.random()),
            13 => {
                transaction.version = transaction::Version(self.random.random());
                transaction.input[0].sequence = Sequence(self.random.random());
            }
            14 => {
                let count = self.random.random_range(19_950..20_020);
                transaction.output.push(regtest::output(0, vec![OP_CHECKSIG.to_u8(); count].into()));
            }
            15 => {
                let count = self.random.random_range(990..1_002);
                transaction.output.push(regtest::output(0, vec![OP_CHECKMULTISIG.to_u8(); count].into()));
            }
            16 if self.random.random_ratio(1, 4) => {
                let size = 1_000_000 - (block.weight().to_wu() as usize / 4) + self.random.random_range(0..200) - 150;
                block.txdata[at].output.push(regtest::output(0, vec![0x6a; size].into()));
            }
            17 => block.txdata[at].input[0].witness = Witness::from_slice(&vec![[1]; output]),
            _ => {
                let mut script = transaction.input[0].script_sig.to_bytes();
                spoil_bytes(&mut script, &mut self.random);
                transaction.input[0].script_sig = script.into();
            }
        }
    }

    /// Changes what the header or the coinbase commits to, and the root not always with it.
    fn spoil_sealed(&mut self, block: &mut Block) {
        let (at, length) = (self.random.random_range(0..=block.txdata.len()), self.random.random_range(0..34));
        let like = |length: usize| ScriptBuf::from([&COMMITMENT_START[..], &vec![0; length]].concat());
        let witness = |elements: usize, length: usize| Witness::from_slice(&vec![vec![0; length]; elements]);
        match self.random.random_range(0..9) {
            0 => block.header.merkle_root = TxMerkleNode::from_byte_array(self.random.random()),
            1 => block.txdata.extend_from_within(at..),
            2 => drop(block.txdata.pop()),
            3 => block.txdata[0].input[0].witness = witness(self.pick(&[1, 2, 3]), length),
            4 => block.txdata[at.saturating_sub(1)].input.iter_mut().for_each(|input| input.witness.push([1])),
            5 => block.txdata[0].output.push(regtest::output(0, like(length))),
            6 => block.txdata[0].output.insert(0, regtest::output(0, like(length))),
            7 => {
                // No commitment, and perhaps no witness of its own.
                block.txdata[0].output.retain(|output| !output.script_pubkey.as_bytes().starts_with(&COMMITMENT_START));
                block.txdata[0].input[0].witness = witness(length % 2, 32);
            }
            _ => drop(block.txdata.drain(..at)),
        }
        if self.random.random_ratio(3, 4) {
            root_and_mine(block);
        }
    }

    fn spoil_header(&mut self, block: &mut Block) {
        let median = self.median();
        let (old, _) = self.blocks[self.random.random_range(0..self.blocks.len())];
        match self.random.random_range(0..6) {
            0 => block.header.version = Version::from_consensus(self.pick(&[0, 1, 2, 3, 4, -1, i32::MIN, i32::MAX])),
            1 => block.header.time = self.pick(&[0, median - 1, median, median + 1, NOW, NOW + 7_200, NOW + 7_201, !0]),
            2 => {
                let bits =
                    self.pick(&[0, 0x2080_0001, 0x1f7f_ffff, 0x207f_fffe, 0x2100_7fff, 0x2200_007f, 0x207f_ffff]);
                block.header.bits = CompactTarget::from_consensus(bits);
            }
            3 => block.header.prev_blockhash = old,
            4 => block.header.prev_blockhash = BlockHash::from_byte_array(self.random.random()),
            _ => block.header.nonce ^= 1,
        }
        if self.random.random_ratio(4, 5) {
            mine(&mut block.header);
        }
    }

    /// Takes a block as the new tip.
    fn adopt(&mut self, block: &Block) {
        let height = self.height();
        self.blocks.push((block.block_hash(), block.header.time));
        let spent: Vec<OutPoint> =
            block.txdata.iter().flat_map(|tx| &tx.input).map(|input| input.previous_output).collect();
        for (number, transaction) in block.txdata.iter().enumerate() {
            let txid = transaction.compute_txid();
            for (vout, output) in (0..).zip(&transaction.output).filter(|(_, output)| output.script_pubkey == anyone())
            {
                let from = if number == 0 { height + 100 } else { height };
                self.open.push(Open { outpoint: OutPoint { txid, vout }, output: output.clone(), from });
            }
        }
        self.open.retain(|coin| !spent.contains(&coin.outpoint));
        self.locked.retain(|coin| !spent.contains(&coin.outpoint));
    }
}

fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

#[test]
fn random_blocks_get_the_verdict_that_core_gives() {
    let Some(peers) = peers() else { return };
    let (seed, count) = (setting("GROAT_BLOCK_SEED", 1), setting("GROAT_BLOCK_COUNT", 1_500));
    let mut chain = Chain::new(seed);
    let mut core = Bitcoind::start(&peers, &[format!("-mocktime={NOW}"), "-par=2".into()]);
    let mut groat = Groat::on(Params::regtest(&RegtestOptions::default()), 2);
    let mut verdicts: BTreeMap<String, u32> = BTreeMap::new();
    for step in 0..count + u64::from(START) {
        let mut exact = true;
        let (bytes, seeds) = match step {
            _ if step < u64::from(START) => (serialize(&chain.frame()), vec![]),
            _ if chain.locked.len() < 20 => {
                let (block, seeds) = chain.fund();
                (serialize(&block), seeds)
            }
            _ => {
                let block;
                (block, exact) = chain.block();
                (block, vec![])
            }
        };
        let told = |answer: String| match answer.split_once(" (") {
            Some((reason, _)) if !exact => reason.to_owned(),
            _ => answer,
        };
        let judges = [&mut core as &mut dyn Judge, &mut groat];
        let answers = judges.map(|judge| (judge.submit(&bytes).map_err(told), judge.tip()));
        let repeat = || format!("GROAT_BLOCK_SEED={seed} GROAT_BLOCK_COUNT={count}, step {step}");
        let shown = || {
            if bytes.len() < 4_000 { bitcoin::hex::DisplayHex::to_lower_hex_string(&bytes[..]) } else { String::new() }
        };
        assert_eq!(answers[0], answers[1], "bitcoind (left) and groat differ: {}\n{}", repeat(), shown());
        let [(answer, tip), _] = answers;
        *verdicts.entry(answer.err().unwrap_or_else(|| "OK".into())).or_default() += 1;
        if tip != chain.blocks.last().expect("genesis is there").0 {
            let mut rest = &bytes[..];
            let block = <Block as bitcoin::consensus::Decodable>::consensus_decode(&mut rest).expect("it was accepted");
            assert_eq!(tip, block.block_hash(), "only the block that was just told is a new tip; {}", repeat());
            if let Some(funding) = block.txdata.get(1).filter(|_| !seeds.is_empty()) {
                let txid = funding.compute_txid();
                let coins = (0..).zip(seeds).map(|(vout, seed)| Locked { outpoint: OutPoint { txid, vout }, seed });
                chain.locked.extend(coins);
            }
            chain.adopt(&block);
        } else {
            assert!(seeds.is_empty() && step >= u64::from(START), "a block that was to be valid is not; {}", repeat());
        }
        if step % 250 == 249 {
            assert_eq!(core.muhash(), groat.muhash(), "the coins of bitcoind (left) and groat differ; {}", repeat());
        }
    }
    println!("{} verdicts: {verdicts:#?}", verdicts.len());
    assert!(count < 1_500 || verdicts.len() > 40, "few reasons to refuse a block: {verdicts:#?}");
}
