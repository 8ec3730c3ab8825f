//! Regtest blocks by hand: coinbase, witness commitment, merkle root, proof of work. A second opinion, built on the
//! `bitcoin` crate alone: must not use groat_chain.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Block, Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf, ScriptBuf};
use bitcoin::{
    Amount, BlockHash, CompactTarget, Network, OutPoint, Sequence, Target, Transaction, TxIn, TxMerkleNode, TxOut,
    Witness, transaction,
};

/// First bytes of every frame of a regtest block file.
pub const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// `nBits` of every regtest block: no retargeting.
pub const BITS: u32 = 0x207f_ffff;
/// `nTime` of the genesis block.
pub const GENESIS_TIME: u32 = 1_296_688_602;
/// Seconds from block to block, as generated here.
pub const SPACING: u32 = 600;
/// `nSubsidyHalvingInterval` of regtest.
const SUBSIDY_HALVING_INTERVAL: u32 = 150;
/// How the output script that holds a witness commitment begins (BIP141): OP_RETURN, a push of 36 bytes, the tag.
pub const COMMITMENT_START: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// The block at height 0.
pub fn genesis() -> Block {
    bitcoin::constants::genesis_block(Network::Regtest)
}

/// The time that generated chains give the block at `height`.
pub fn time_at(height: u32) -> u32 {
    GENESIS_TIME + height * SPACING
}

/// New money in the block at `height`.
pub fn subsidy(height: u32) -> Amount {
    Amount::from_sat(5_000_000_000_u64.checked_shr(height / SUBSIDY_HALVING_INTERVAL).unwrap_or(0))
}

/// A coinbase that begins with its height (BIP34), carries `extra`, and pays `outputs`.
pub fn coinbase(height: u32, extra: u64, outputs: Vec<TxOut>) -> Transaction {
    let script = Builder::new().push_int(height.into()).push_slice(extra.to_le_bytes()).into_script();
    coinbase_with(script, outputs)
}

/// A coinbase with this input script. Its witness is the reserved value that [`seal`] commits with.
pub fn coinbase_with(script_sig: ScriptBuf, output: Vec<TxOut>) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0_u8; 32]]),
        }],
        output,
    }
}

/// A whole valid frame around `transactions` (the coinbase first, without its commitment): commitment added, roots
/// computed, mined.
pub fn block(previous: BlockHash, time: u32, transactions: Vec<Transaction>) -> Block {
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: previous,
            merkle_root: TxMerkleNode::all_zeros(),
            time,
            bits: CompactTarget::from_consensus(BITS),
            nonce: 0,
        },
        txdata: transactions,
    };
    seal(&mut block);
    block
}

/// Makes commitment, merkle root and proof of work true again after a change. The coinbase's commitment, if it has
/// one, is replaced; else one is added.
pub fn seal(block: &mut Block) {
    if let Some(coinbase) = block.txdata.first_mut() {
        coinbase.output.retain(|output| !output.script_pubkey.as_bytes().starts_with(&COMMITMENT_START));
        let root = block.witness_root().expect("the block has a transaction");
        let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
        let mut script = COMMITMENT_START.to_vec();
        script.extend_from_slice(commitment.as_byte_array());
        block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) });
    }
    root_and_mine(block);
}

/// Makes merkle root and proof of work true again; leaves the commitment as it is.
pub fn root_and_mine(block: &mut Block) {
    block.header.merkle_root = block.compute_merkle_root().unwrap_or(TxMerkleNode::all_zeros());
    mine(&mut block.header);
}

/// Counts the nonce up until the hash meets the target that every regtest block has.
pub fn mine(header: &mut Header) {
    let target = Target::from_compact(CompactTarget::from_consensus(BITS));
    while !target.is_met_by(header.block_hash()) {
        header.nonce = header.nonce.wrapping_add(1);
    }
}

/// An input without signature.
pub fn unsigned(previous_output: OutPoint) -> TxIn {
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness: Witness::new() }
}

/// A version 2 transaction without lock time.
pub fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// An output of `sats` satoshis.
pub fn output(sats: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sats), script_pubkey }
}

/// A script that pushes `bytes` and nothing else.
pub fn push(bytes: &[u8]) -> ScriptBuf {
    let bytes = PushBytesBuf::try_from(bytes.to_vec()).expect("a push in a test is short");
    Builder::new().push_slice(bytes).into_script()
}

/// Adds `count` blocks to a chain that begins with genesis. Each spends the coinbase that has just matured, once there
/// is one; `salt` tells the blocks of one branch from those of another.
pub fn extend(chain: &mut Vec<Block>, count: usize, salt: u64) {
    const COINBASE_MATURITY: usize = 100;
    let anyone = ScriptBuf::from_bytes(vec![0x51]);
    for _ in 0..count {
        let number = chain.len();
        let height = number as u32;
        let reward = output(subsidy(height).to_sat(), anyone.clone());
        let mut transactions = vec![coinbase(height, salt, vec![reward])];
        if number > COINBASE_MATURITY {
            let mature = &chain[number - COINBASE_MATURITY].txdata[0];
            let half = output(mature.output[0].value.to_sat() / 2, anyone.clone());
            let coin = OutPoint::new(mature.compute_txid(), 0);
            transactions.push(transaction(vec![unsigned(coin)], vec![half.clone(), half]));
        }
        let tip = chain.last().expect("a chain begins with genesis").block_hash();
        chain.push(block(tip, time_at(height), transactions));
    }
}

/// A block of about a million bytes, none of them a coin but the reward.
pub fn bulky(previous: BlockHash, height: u32) -> Block {
    let ballast = ScriptBuf::from_bytes(vec![0x6a; 990_000]);
    let outputs = vec![output(subsidy(height).to_sat(), ScriptBuf::from_bytes(vec![0x51])), output(0, ballast)];
    block(previous, time_at(height), vec![coinbase(height, 0, outputs)])
}
