//! A decoded block with the hashes that every rule asks for, computed once. Judges nothing.

use bitcoin::consensus::encode;
use bitcoin::{BlockHash, Transaction, Txid, Wtxid, block::Header, consensus::Decodable, hashes::Hash};

/// A block in memory: its transactions in order with their ids.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The 80 bytes that are mined.
    pub header: Header,
    /// Hash of the header.
    pub hash: BlockHash,
    /// The transactions in block order; `txids` and `wtxids` run beside it.
    pub transactions: Vec<Transaction>,
    /// Ids without witness, one a transaction.
    pub txids: Vec<Txid>,
    /// Ids with witness, one a transaction (the coinbase's own too; the commitment counts it as zero).
    pub wtxids: Vec<Wtxid>,
    /// Length in bytes of the whole serialization, witness included.
    pub size: usize,
    /// Length in bytes without any witness.
    pub stripped_size: usize,
}

impl Block {
    /// Decodes the network serialization. Trailing bytes are an error.
    pub fn decode(bytes: &[u8]) -> Result<Block, encode::Error> {
        let block = Block::decode_prefix(bytes)?;
        if block.size != bytes.len() {
            return Err(encode::Error::ParseFailed("bytes after the last transaction"));
        }
        Ok(block)
    }

    /// Decodes a block at the start of `bytes`; [`Block::size`] says where it ends. Core takes a block from a peer or
    /// from `submitblock` with whatever follows it.
    pub fn decode_prefix(bytes: &[u8]) -> Result<Block, encode::Error> {
        let mut rest = bytes;
        let header = Header::consensus_decode(&mut rest)?;
        let count = encode::VarInt::consensus_decode(&mut rest)?.0;
        let count_length = bytes.len() - 80 - rest.len();
        // No transaction is shorter than 60 bytes: a claimed count never allocates more than the bytes justify.
        let room = (count as usize).min(rest.len() / 60 + 1);
        let (mut transactions, mut txids, mut wtxids) =
            (Vec::with_capacity(room), Vec::with_capacity(room), Vec::with_capacity(room));
        let mut stripped_size = 80 + count_length;
        for _ in 0..count {
            let start = rest;
            let transaction = decode_transaction(&mut rest)?;
            let raw = &start[..start.len() - rest.len()];
            let base = transaction.base_size();
            let (txid, wtxid) = transaction_ids(raw, base);
            stripped_size += base;
            transactions.push(transaction);
            txids.push(txid);
            wtxids.push(wtxid);
        }
        let size = bytes.len() - rest.len();
        Ok(Block { header, hash: header.block_hash(), transactions, txids, wtxids, size, stripped_size })
    }

    /// Weight units (BIP141): three times the stripped size plus the whole size.
    pub fn weight(&self) -> usize {
        self.stripped_size * 3 + self.size
    }
}

/// Decodes a transaction as Core does where the `bitcoin` crate differs, both about transactions without inputs: one
/// that has no outputs either is read as such and left for the rules to refuse (the crate takes the two zeros for a
/// segwit marker with an unknown flag); one with the segwit marker but no witness is no transaction.
pub fn decode_transaction(rest: &mut &[u8]) -> Result<Transaction, encode::Error> {
    let marked = rest.get(4) == Some(&0);
    if marked && rest.len() >= 10 && rest[5] == 0 {
        let version = Decodable::consensus_decode(rest)?;
        *rest = &rest[2..];
        let lock_time = Decodable::consensus_decode(rest)?;
        return Ok(Transaction { version, lock_time, input: Vec::new(), output: Vec::new() });
    }
    let transaction = Transaction::consensus_decode_from_finite_reader(rest)?;
    if marked && transaction.input.iter().all(|input| input.witness.is_empty()) {
        return Err(encode::Error::ParseFailed("a segwit marker without any witness"));
    }
    Ok(transaction)
}

/// Both ids of a serialized transaction whose serialization without witness has `base` bytes.
fn transaction_ids(raw: &[u8], base: usize) -> (Txid, Wtxid) {
    use sha2::Digest;
    let twice = |first: sha2::Sha256| -> [u8; 32] { sha2::Sha256::digest(first.finalize()).into() };
    let whole = twice(sha2::Sha256::new_with_prefix(raw));
    if base == raw.len() {
        return (Txid::from_byte_array(whole), Wtxid::from_byte_array(whole));
    }
    // version | marker flag | inputs and outputs | witnesses | lock time: the middle is what the id skips.
    let body = &raw[6..6 + base - 8];
    let stripped = sha2::Sha256::new_with_prefix(&raw[..4]).chain_update(body).chain_update(&raw[raw.len() - 4..]);
    (Txid::from_byte_array(twice(stripped)), Wtxid::from_byte_array(whole))
}
