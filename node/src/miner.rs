//! Block templates and the search for a nonce. Knows no RPC.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::opcodes::OP_0;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, transaction,
};
use groat_chain::mempool::{BlockLimits, Mempool, Selected};
use groat_chain::params::{Buried, Params};
use groat_chain::rules::connect::subsidy;
use groat_chain::rules::deployment::{compute_block_version, is_active};
use groat_chain::rules::header::{MAX_TIMEWARP, median_time_past};
use groat_chain::rules::pow::{check_proof_of_work, next_work_required};
use groat_chain::tree::{Id, Tree};

/// How the script of a witness commitment begins: OP_RETURN, a push of 36 bytes, the tag (BIP141).
const COMMITMENT_HEAD: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// What `getmininginfo` tells of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Weight with what is kept free.
    pub weight: u64,
    /// Transactions without the coinbase.
    pub transactions: usize,
}

/// What a block on top of `parent` takes of the pool, which must be in step with it.
pub fn select(tree: &Tree, parent: Id, pool: &Mempool, limits: &BlockLimits) -> Selected {
    let branch = tree.branch(parent);
    pool.select(limits, tree.node(parent).height + 1, median_time_past(&branch))
}

/// A block on top of `parent` that pays the subsidy and `fees` to `script` and holds `transactions`. It lacks only the
/// nonce. `now` is in seconds since 1970. Core: `CreateNewBlock`.
pub fn template(
    tree: &Tree,
    parent: Id,
    params: &Params,
    now: u32,
    script: ScriptBuf,
    transactions: Vec<Transaction>,
    fees: Amount,
) -> Block {
    let (branch, before) = (tree.branch(parent), tree.node(parent));
    let height = before.height + 1;
    let mut time = now.max(median_time_past(&branch) + 1);
    if height.is_multiple_of(params.retarget_interval) {
        time = time.max(before.time.saturating_sub(MAX_TIMEWARP));
    }
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(compute_block_version(&branch, params)),
            prev_blockhash: before.hash,
            merkle_root: TxMerkleNode::all_zeros(),
            time,
            bits: next_work_required(&branch, time, params),
            nonce: 0,
        },
        txdata: vec![coinbase(height, subsidy(height, params) + fees, script)],
    };
    block.txdata.extend(transactions);
    if is_active(Buried::Segwit, height, params) {
        commit_to_witnesses(&mut block);
    }
    block.header.merkle_root = block.compute_merkle_root().expect("the block has a coinbase");
    block
}

/// What is known of a template.
pub fn summary(block: &Block, limits: &BlockLimits) -> Summary {
    let others = &block.txdata[1..];
    let weight: u64 = others.iter().map(|transaction| transaction.weight().to_wu()).sum();
    Summary { weight: limits.reserved_weight + weight, transactions: others.len() }
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
fn commit_to_witnesses(block: &mut Block) {
    let reserved = [0; 32];
    let root = block.witness_root().expect("the block has a coinbase");
    let commitment = Block::compute_witness_commitment(&root, &reserved);
    let script_pubkey = [&COMMITMENT_HEAD[..], commitment.as_byte_array()].concat().into();
    block.txdata[0].input[0].witness = Witness::from_slice(&[reserved]);
    block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
}

/// Counts the nonce up until the hash meets the target. False when `tries` are used up, when all nonces are, or when
/// `stopped` says so.
pub fn search(header: &mut Header, params: &Params, tries: &mut u64, stopped: impl Fn() -> bool) -> bool {
    /// Tries between two questions whether to stop.
    const STRIDE: u32 = 1 << 16;
    while *tries > 0 {
        if check_proof_of_work(header.block_hash(), header.bits, params).is_ok() {
            return true;
        }
        if header.nonce == u32::MAX || header.nonce.is_multiple_of(STRIDE) && stopped() {
            return false;
        }
        header.nonce += 1;
        *tries -= 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use groat_chain::rules::block::{check_block, contextual_check_block};

    fn chain_of(blocks: u32, params: &Params) -> (Tree, Id) {
        let mut tree = Tree::new(&params.genesis.header);
        let mut tip = Id::GENESIS;
        for _ in 0..blocks {
            let mut block =
                template(&tree, tip, params, params.genesis.header.time, ScriptBuf::new(), Vec::new(), Amount::ZERO);
            assert!(search(&mut block.header, params, &mut 1_000_000, || false), "no nonce in a million tries");
            tip = tree.insert(&block.header, block.block_hash(), tip);
        }
        (tree, tip)
    }

    #[test]
    fn a_template_with_its_nonce_keeps_the_rules_of_blocks() {
        let params = Params::by_name("regtest").expect("a known network");
        for height in [1, 2, 16, 17, 18, 130] {
            let (tree, tip) = chain_of(height - 1, &params);
            let mut block =
                template(&tree, tip, &params, 0, ScriptBuf::from_bytes(vec![0x51]), Vec::new(), Amount::ZERO);
            assert!(search(&mut block.header, &params, &mut 1_000_000, || false), "no nonce in a million tries");
            let bytes = bitcoin::consensus::serialize(&block);
            let block = groat_chain::block::Block::decode(&bytes).expect("it was just written");
            assert_eq!(check_block(&block, &params), Ok(()), "height {height}");
            let verdict = contextual_check_block(&block, &tree.branch(tip), &params);
            assert_eq!(verdict, Ok(()), "height {height}");
            assert_eq!(block.header.version.to_consensus(), 0x2000_0000, "height {height}");
        }
    }

    #[test]
    fn the_search_ends_when_its_tries_are_used_up_or_it_is_told_to() {
        let params = Params::by_name("main").expect("a known network");
        let mut header = params.genesis.header;
        (header.nonce, header.time) = (0, header.time + 1);
        let mut tries = 1000;
        assert!(!search(&mut header, &params, &mut tries, || false));
        assert_eq!((tries, header.nonce), (0, 1000));
        header.nonce = 0;
        assert!(!search(&mut header, &params, &mut 1000, || true));
        assert_eq!(header.nonce, 0, "it went on after it was told to stop");
    }
}
