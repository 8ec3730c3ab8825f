//! The next block as a value: where it stands, what it takes of the pool, its coinbase. Knows no clock (the time is an
//! argument), no peer and no nonce: the search for that is the miner's.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::opcodes::OP_0;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, transaction,
};

use crate::mempool::Selected;
use crate::params::{Buried, Params};
use crate::rules::branch::{Branch, median_time_past};
use crate::rules::commitment::{WITNESS_COMMITMENT_HEAD, witness_commitment};
use crate::rules::connect::subsidy;
use crate::rules::deployment::{compute_block_version, is_active};
use crate::rules::header::MAX_TIMEWARP;
use crate::rules::merkle::{merkle_path, root_by_path};
use crate::rules::pow::next_work_required;

/// Where a block stands, and what its header is for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The block below.
    pub parent: BlockHash,
    /// Its height.
    pub height: u32,
    /// Its version: it signals for all that can be signalled for.
    pub version: i32,
    /// Its time, in seconds since 1970.
    pub time: u32,
    /// The earliest time it may have. Core: `GetMinimumTime`.
    pub min_time: u32,
    /// Its target at that time.
    pub bits: CompactTarget,
    /// The last time with this target: on a test network a late block is an easy one.
    pub bits_until: u32,
    /// What lock times are held against.
    pub median_time: u32,
    /// New money.
    pub subsidy: Amount,
    /// Whether it commits to witnesses.
    pub segwit: bool,
}

impl Place {
    /// A block on top of `branch` whose time is `now`, in seconds since 1970, or the earliest after that.
    ///
    /// The first block of a retarget period is not far before its parent on any network, not only where BIP94 demands
    /// it, as Core has it: so the rule can come.
    pub fn on(branch: &impl Branch, parent: BlockHash, params: &Params, now: u32) -> Place {
        let (last, height) = (branch.height(), branch.height() + 1);
        let (before, median_time) = (branch.time(last), median_time_past(branch));
        let mut min_time = median_time + 1;
        if height.is_multiple_of(params.retarget_interval) {
            min_time = min_time.max(before.saturating_sub(MAX_TIMEWARP));
        }
        let time = now.max(min_time);
        let easy_after = before.saturating_add(2 * params.spacing);
        let becomes_easy =
            params.min_difficulty_blocks && !height.is_multiple_of(params.retarget_interval) && time <= easy_after;
        Place {
            parent,
            height,
            version: params.block_version.unwrap_or_else(|| compute_block_version(branch, params)),
            time,
            min_time,
            bits: next_work_required(branch, time, params),
            bits_until: if becomes_easy { easy_after } else { u32::MAX },
            median_time,
            subsidy: subsidy(height, params),
            segwit: is_active(Buried::Segwit, height, params),
        }
    }
}

/// A block that lacks only the nonce, in parts: a miner changes its coinbase and its time. Core: `CBlockTemplate`.
#[derive(Clone, Debug)]
pub struct Template {
    /// Where it stands.
    pub place: Place,
    /// Its first transaction; takes the subsidy and all fees.
    pub coinbase: Transaction,
    /// Its other transactions.
    pub selected: Selected,
    /// From the coinbase to the merkle root.
    path: Vec<[u8; 32]>,
}

impl Template {
    /// A block at `place` that pays to `script`. Core: `CreateNewBlock`.
    pub fn new(place: Place, script: ScriptBuf, selected: Selected) -> Template {
        let value = place.subsidy + Amount::from_sat(selected.fees);
        let mut coinbase = coinbase(place.height, value, script);
        if place.segwit {
            let wtxids = selected.transactions.iter().map(|chosen| chosen.wtxid.to_byte_array());
            commit_to_witnesses(&mut coinbase, root_by_path([0; 32], &merkle_path(wtxids)));
        }
        let path = merkle_path(selected.transactions.iter().map(|chosen| chosen.txid.to_byte_array()));
        Template { place, coinbase, selected, path }
    }

    /// The coinbase with a number of the miner's own, so that its header is another one.
    pub fn coinbase_with(&self, extra_nonce: u64) -> Transaction {
        let mut coinbase = self.coinbase.clone();
        let script = Builder::from(coinbase.input[0].script_sig.to_bytes());
        coinbase.input[0].script_sig = script.push_slice(extra_nonce.to_le_bytes()).into_script();
        coinbase
    }

    /// The header with this coinbase and nonce 0.
    pub fn header(&self, coinbase: &Transaction) -> Header {
        let root = root_by_path(coinbase.compute_txid().to_byte_array(), &self.path);
        Header {
            version: Version::from_consensus(self.place.version),
            prev_blockhash: self.place.parent,
            merkle_root: TxMerkleNode::from_byte_array(root),
            time: self.place.time,
            bits: self.place.bits,
            nonce: 0,
        }
    }

    /// The whole block.
    pub fn block(&self, header: Header, coinbase: Transaction) -> Block {
        let others = self.selected.transactions.iter().map(|chosen| (*chosen.tx).clone());
        Block { header, txdata: std::iter::once(coinbase).chain(others).collect() }
    }

    /// The output script that commits to all witnesses, where the block has one.
    pub fn commitment(&self) -> Option<&Script> {
        witness_commitment(&self.coinbase).map(|(_, script)| Script::from_bytes(script))
    }
}

/// Begins with its height (BIP34) and is locked until the block before, so that no two are alike (BIP54).
fn coinbase(height: u32, value: Amount, script_pubkey: ScriptBuf) -> Transaction {
    let mut script = Builder::new().push_int(height.into());
    if height <= 16 {
        // The height alone is one byte, and at least two are needed.
        script = script.push_opcode(OP_0);
    }
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::from_consensus(height - 1),
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: script.into_script(),
            sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value, script_pubkey }],
    }
}

/// Gives the coinbase its reserved value and the output that commits to all witnesses ([BIP-0141]).
///
/// [BIP-0141]: https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki
fn commit_to_witnesses(coinbase: &mut Transaction, root: [u8; 32]) {
    let reserved = [0; 32];
    let commitment = sha256d::Hash::hash(&[root, reserved].concat());
    let script_pubkey = [&WITNESS_COMMITMENT_HEAD[..], commitment.as_byte_array()].concat().into();
    coinbase.input[0].witness = Witness::from_slice(&[reserved]);
    coinbase.output.push(TxOut { value: Amount::ZERO, script_pubkey });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mempool::{BlockLimits, Chosen};
    use crate::params::RegtestOptions;
    use crate::rules::block::{check_body, contextual_check_block};
    use crate::rules::header::contextual_check_header;
    use crate::tree::{Id, Tree};

    /// A tree whose chain has these times after the first block, and its end.
    fn tree_of(params: &Params, times: &[u32]) -> (Tree, Id) {
        let mut tree = Tree::new(&params.genesis.header);
        let mut tip = Id::GENESIS;
        for time in times {
            let place = Place::on(&tree.branch(tip), tree.node(tip).hash, params, *time);
            let template = Template::new(place, ScriptBuf::new(), Selected::default());
            let header = template.header(&template.coinbase);
            tip = tree.insert(&header, header.block_hash(), tip);
        }
        (tree, tip)
    }

    fn regtest(blocks: u32) -> (Params, Tree, Id) {
        let params = Params::by_name("regtest").expect("a known network");
        let times: Vec<u32> = (1..=blocks).map(|number| params.genesis.header.time + 600 * number).collect();
        let (tree, tip) = tree_of(&params, &times);
        (params, tree, tip)
    }

    fn decoded(block: &Block) -> crate::block::Block {
        crate::block::Block::decode(&bitcoin::consensus::serialize(block)).expect("it was just written")
    }

    #[test]
    fn a_template_keeps_the_rules_of_blocks_with_any_extra_nonce() {
        for height in [1, 2, 16, 17, 18, 130] {
            let (params, tree, tip) = regtest(height - 1);
            let place = Place::on(&tree.branch(tip), tree.node(tip).hash, &params, 0);
            let mut selected = Selected::nothing(&BlockLimits::default());
            let mut tx = coinbase(height, Amount::ONE_SAT, ScriptBuf::new());
            tx.input[0].previous_output.vout = 0;
            selected.transactions.push(Chosen::unpaid(tx));
            let template = Template::new(place, ScriptBuf::from_bytes(vec![0x51]), selected);
            for coinbase in [template.coinbase.clone(), template.coinbase_with(0), template.coinbase_with(u64::MAX)] {
                let block = decoded(&template.block(template.header(&coinbase), coinbase));
                assert_eq!(check_body(&block), Ok(()), "height {height}");
                assert_eq!(contextual_check_block(&block, &tree.branch(tip), &params), Ok(()), "height {height}");
                assert_eq!(block.header.version.to_consensus(), 0x2000_0000, "height {height}");
            }
        }
    }

    #[test]
    fn a_regtest_may_be_told_the_version_of_its_blocks() {
        let params = Params::regtest(&RegtestOptions { block_version: Some(1337), ..RegtestOptions::default() });
        let (tree, tip) = tree_of(&params, &[]);
        assert_eq!(Place::on(&tree.branch(tip), params.genesis_hash, &params, 0).version, 1337);
    }

    #[test]
    fn the_coinbase_takes_subsidy_and_fees() {
        let (params, tree, tip) = regtest(1);
        let place = Place::on(&tree.branch(tip), tree.node(tip).hash, &params, 0);
        let selected = Selected { fees: 77, ..Selected::default() };
        let template = Template::new(place, ScriptBuf::new(), selected);
        assert_eq!(template.coinbase.output[0].value.to_sat(), 5_000_000_077);
        assert!(template.commitment().is_some(), "regtest has segwit from the start");
    }

    #[test]
    fn a_late_block_of_a_test_network_is_an_easy_one() {
        let params = Params::by_name("testnet4").expect("a known network");
        let begin = params.genesis.header.time;
        let (tree, tip) = tree_of(&params, &[begin + 600]);
        let at = |now| Place::on(&tree.branch(tip), tree.node(tip).hash, &params, now);
        let (soon, late) = (at(begin + 1800), at(begin + 1801));
        assert_eq!((soon.bits_until, late.bits_until), (begin + 1800, u32::MAX));
        assert_eq!(late.bits, crate::rules::pow::to_compact(params.pow_limit));
        assert_eq!(soon.bits, next_work_required(&tree.branch(tip), begin + 1800, &params));
    }

    /// Testnet4 with short periods, mined on a simulated clock: first fast, so that it gets hard, then with long pauses.
    #[test]
    fn on_testnet4_a_pause_makes_one_easy_block_and_the_difficulty_stays() {
        let params = Params { retarget_interval: 20, ..Params::by_name("testnet4").expect("a known network") };
        let limit = crate::rules::pow::to_compact(params.pow_limit);
        let (mut tree, mut tip) = tree_of(&params, &[]);
        let (mut now, mut first_of_period, mut easy) = (params.genesis.header.time, limit, 0);
        for height in 1..400_u32 {
            let random = height.wrapping_mul(2_654_435_761) >> 20;
            let gap = match height {
                ..60 => 100,
                _ if height.is_multiple_of(5) => 1300 + random % 1500,
                _ => random % 500,
            };
            let (before, branch) = (tree.node(tip).time, tree.branch(tip));
            now = now.max(before) + gap;
            let place = Place::on(&branch, tree.node(tip).hash, &params, now);
            let template = Template::new(place, ScriptBuf::new(), Selected::default());
            let header = template.header(&template.coinbase);
            let judged = contextual_check_header(&header, &branch, &params, now);
            assert_eq!(judged, Ok(()), "height {height}");
            if height.is_multiple_of(20) {
                first_of_period = header.bits;
                assert!(height < 80 || header.bits != limit, "an easy block has spoilt the difficulty at {height}");
            } else if now > before + 1200 {
                assert_eq!(header.bits, limit, "height {height} after {gap} seconds");
                easy += 1;
            } else {
                assert_eq!(header.bits, first_of_period, "height {height} after {gap} seconds");
            }
            tip = tree.insert(&header, header.block_hash(), tip);
        }
        assert!((40..80).contains(&easy), "{easy} easy blocks");
    }

    #[test]
    fn the_first_block_of_a_period_is_not_far_before_its_parent() {
        let params = Params { retarget_interval: 4, ..Params::by_name("regtest").expect("a known network") };
        let begin = params.genesis.header.time;
        let (tree, tip) = tree_of(&params, &[begin + 1, begin + 2, begin + 5000]);
        let place = Place::on(&tree.branch(tip), tree.node(tip).hash, &params, 0);
        assert_eq!((place.height, place.min_time, place.time), (4, begin + 4400, begin + 4400));
        let (tree, tip) = tree_of(&params, &[begin + 1, begin + 2]);
        let place = Place::on(&tree.branch(tip), tree.node(tip).hash, &params, 0);
        assert_eq!((place.height, place.min_time), (3, begin + 2));
    }
}
