//! Blocks with real transactions: mined with a merkle root that fits, judged by the real rules as far as those need no
//! coins.

use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, Transaction, TxIn, TxMerkleNode, TxOut, Witness, absolute, transaction};
use groat_chain::block::Block;
use groat_chain::params::Params;
use groat_chain::rejection::Rejection;
use groat_chain::rules::block::{check_block, contextual_check_block};
use groat_chain::rules::commitment::witness_root;
use groat_chain::rules::merkle::merkle_root;
use groat_chain::tree::{Id, Tree};

/// The serialization of a block at this height, at least `length` bytes long, of a coinbase and these transactions; the
/// header's root is set to fit. `unique` makes the coinbase another.
pub(super) fn assemble(
    header: &mut Header,
    height: u32,
    unique: u64,
    transactions: &[Transaction],
    length: usize,
) -> Vec<u8> {
    let script = bitcoin::script::Builder::new().push_int(i64::from(height)).push_slice(unique.to_le_bytes());
    let output = |bytes: Vec<u8>| TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(bytes) };
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn { script_sig: script.into_script(), ..TxIn::default() }],
        output: vec![output(Vec::new())],
    };
    let mut all = vec![coinbase];
    all.extend_from_slice(transactions);
    let short = with_body(header, &all).len();
    all[0].output[0] = output(vec![0; length.saturating_sub(short)]);
    if transactions.iter().any(|tx| tx.input.iter().any(|input| !input.witness.is_empty())) {
        let reserved = [0; 32];
        let block = Block::decode(&with_body(header, &all)).expect("made of transactions");
        let mut commitment = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
        commitment.extend(witness_root(&block, &reserved));
        all[0].output.push(output(commitment));
        all[0].input[0].witness = Witness::from_slice(&[reserved]);
    }
    let txids = all.iter().map(|tx| tx.compute_txid().to_byte_array());
    header.merkle_root = TxMerkleNode::from_byte_array(merkle_root(txids).0);
    with_body(header, &all)
}

/// The serialization of a block.
pub(super) fn with_body(header: &Header, transactions: &[Transaction]) -> Vec<u8> {
    let mut bytes = serialize(header);
    bytes.extend(serialize(&transactions.to_vec()));
    bytes
}

/// What the rules that need no coins say of a block on top of `parent`.
pub(super) fn judge(block: &Block, parent: Id, tree: &Tree, params: &Params) -> Result<(), Rejection> {
    check_block(block, params)?;
    contextual_check_block(block, &tree.branch(parent), params)
}
