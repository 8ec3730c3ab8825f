//! Tests of the rules, one file a stage, and what they share: branches and blocks made to order.

mod block;
mod connect;
mod deployment;
mod documentation;
mod header;
mod pow;
mod transaction;

use super::block::check_block;
use super::branch::Branch;
use super::commitment::witness_root;
use crate::block::Block;
use crate::params::{Params, RegtestOptions};
use crate::rejection::Rejection;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid,
    Witness, absolute,
};

/// A branch from its headers; the first stands at height 0.
pub(super) struct Headers(pub Vec<Header>);

impl Branch for Headers {
    fn height(&self) -> u32 {
        self.0.len() as u32 - 1
    }
    fn time(&self, height: u32) -> u32 {
        self.0[height as usize].time
    }
    fn bits(&self, height: u32) -> CompactTarget {
        self.0[height as usize].bits
    }
    fn version(&self, height: u32) -> i32 {
        self.0[height as usize].version.to_consensus()
    }
}

pub(super) fn regtest() -> Params {
    Params::regtest(&RegtestOptions::default())
}

/// `params`' first block and `count` more headers, ten minutes apart, with bits and version as they should be.
pub(super) fn branch(params: &Params, count: u32) -> Headers {
    let mut headers = vec![params.genesis.header];
    for _ in 0..count {
        headers.push(child(headers.last().expect("at least the first")));
    }
    Headers(headers)
}

/// A header that builds on `parent` ten minutes later. Without proof of work.
pub(super) fn child(parent: &Header) -> Header {
    Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        time: parent.time + 600,
        ..*parent
    }
}

/// An outpoint that no other number gives.
pub(super) fn outpoint(number: u32) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([7; 32]), number)
}

pub(super) fn output(value: u64) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) }
}

/// A transaction of version 2 that spends `inputs` and pays `values`.
pub(super) fn pay(inputs: &[OutPoint], values: &[u64]) -> Transaction {
    let input = |&previous_output: &OutPoint| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: TxVersion::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: values.iter().copied().map(output).collect(),
    }
}

/// A coinbase for `height` that takes `value`.
pub(super) fn coinbase(height: u32, value: u64) -> Transaction {
    let mut tx = pay(&[OutPoint::null()], &[value]);
    tx.input[0].script_sig = Builder::new().push_int(i64::from(height)).push_int(0).into_script();
    tx
}

/// A block that follows `branch` with these transactions, mined.
pub(super) fn block(branch: &Headers, transactions: Vec<Transaction>) -> Block {
    let header = child(branch.0.last().expect("at least the first"));
    mined(bitcoin::Block { header, txdata: transactions }, true)
}

/// `block` with proof of work, and with its merkle root, unless that is to stay as it is.
pub(super) fn mined(mut block: bitcoin::Block, with_root: bool) -> Block {
    if with_root {
        let root = block.compute_merkle_root().unwrap_or(TxMerkleNode::all_zeros());
        block.header.merkle_root = root;
    }
    while block.header.block_hash().to_byte_array()[31] > 0x7e {
        block.header.nonce += 1;
    }
    Block::decode(&bitcoin::consensus::serialize(&block)).expect("what is written can be read")
}

/// Adds a witness commitment to the coinbase of `transactions`, with its reserved value.
pub(super) fn commit(branch: &Headers, transactions: &mut [Transaction]) {
    transactions[0].input[0].witness = Witness::from_slice(&[[0u8; 32]]);
    let root = witness_root(&block(branch, transactions.to_vec()), &[0; 32]);
    let push = [[0xaa, 0x21, 0xa9, 0xed].as_slice(), &root].concat();
    let push = PushBytesBuf::try_from(push).expect("36 bytes");
    let script_pubkey = Builder::new().push_opcode(bitcoin::opcodes::all::OP_RETURN).push_slice(push).into_script();
    transactions[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
}

/// The rejection that a block with these transactions meets without context.
pub(super) fn refused(transactions: Vec<Transaction>) -> Option<Rejection> {
    check_block(&block(&branch(&regtest(), 0), transactions), &regtest()).err()
}

pub(super) const NO_HASH: fn() -> BlockHash = BlockHash::all_zeros;
