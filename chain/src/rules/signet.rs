//! The solution that a signet block carries in its coinbase ([BIP-0325]). Sees one block and the challenge.
//!
//! [BIP-0325]: https://github.com/bitcoin/bips/blob/master/bip-0325.mediawiki

use super::commitment::witness_commitment;
use super::merkle::merkle_root;
use crate::block::Block;
use crate::coins::Coin;
use crate::params::Params;
use crate::rejection::Rejection;
use crate::script::{Flags, Sighashes, verify_input};
use bitcoin::block::Header;
use bitcoin::consensus::{Decodable, Encodable};
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, absolute, opcodes,
    transaction,
};

/// What a solution begins with, in the output that commits to witnesses.
pub const SIGNET_HEADER: [u8; 4] = [0xec, 0xc7, 0xda, 0xa2];

/// On a signet, every block but the first solves the challenge: [`Rejection::BadSignetBlksig`] `bad-signet-blksig`.
/// BIP325. Core: `CheckSignetBlockSolution`.
pub fn check_solution(block: &Block, params: &Params) -> Result<(), Rejection> {
    let Some(challenge) = params.signet_challenge.as_ref().filter(|_| block.hash != params.genesis_hash) else {
        return Ok(());
    };
    let spend = solution(block, challenge).ok_or(Rejection::BadSignetBlksig)?;
    let coins = [Coin::from_parts(0, challenge.as_bytes(), 0, false)];
    let flags = Flags::P2SH | Flags::WITNESS | Flags::DERSIG | Flags::NULLDUMMY;
    verify_input(&Sighashes::new(&spend, &coins), 0, flags, None).map_err(|_| Rejection::BadSignetBlksig)
}

/// The transaction that spends an output locked by the challenge, with the block's solution as its only input.
/// `None` without a witness commitment, or where the solution does not decode. Core: `SignetTxs::Create`.
fn solution(block: &Block, challenge: &Script) -> Option<Transaction> {
    let coinbase = block.transactions.first()?;
    let (position, commitment) = witness_commitment(coinbase)?;
    let (cleared, solution) = take_solution(commitment);

    // No solution at all is one for a challenge that asks for nothing.
    let (mut script_sig, mut witness) = (ScriptBuf::new(), Witness::new());
    if let Some(mut rest) = solution.as_deref() {
        script_sig = ScriptBuf::consensus_decode(&mut rest).ok()?;
        witness = Witness::consensus_decode(&mut rest).ok()?;
        if !rest.is_empty() {
            return None;
        }
    }

    // What is signed: the header without bits and nonce, over the block as it was before the solution came in.
    let mut unsolved = coinbase.clone();
    unsolved.output[position].script_pubkey = cleared;
    let others = block.txids[1..].iter().map(|txid| txid.to_byte_array());
    let (root, _) = merkle_root(std::iter::once(unsolved.compute_txid().to_byte_array()).chain(others));
    let unsolved = Header { merkle_root: TxMerkleNode::from_byte_array(root), ..block.header };
    Some(spend(&unsolved, challenge, script_sig, witness))
}

/// What a miner signs: the spend without its solution. `header` is that of the block whose commitment ends with a push
/// of [`SIGNET_HEADER`] alone.
pub fn to_sign(header: &Header, challenge: &Script) -> Transaction {
    spend(header, challenge, ScriptBuf::new(), Witness::new())
}

/// The spend of an output that is locked by the challenge and commits to the header.
fn spend(header: &Header, challenge: &Script, script_sig: ScriptBuf, witness: Witness) -> Transaction {
    let mut message = Vec::with_capacity(72);
    header.version.consensus_encode(&mut message).expect("memory takes all");
    message.extend_from_slice(header.prev_blockhash.as_byte_array());
    message.extend_from_slice(header.merkle_root.as_byte_array());
    message.extend_from_slice(&header.time.to_le_bytes());
    let message = PushBytesBuf::try_from(message).expect("72 bytes can be pushed");

    let script = Builder::new().push_opcode(opcodes::OP_0).push_slice(message).into_script();
    let spent = transaction(OutPoint::null(), script, Witness::new(), challenge.to_owned());
    let output = ScriptBuf::from_bytes(vec![opcodes::all::OP_RETURN.to_u8()]);
    transaction(OutPoint::new(spent.compute_txid(), 0), script_sig, witness, output)
}

/// A transaction of version 0 with one input and one output of nothing.
fn transaction(previous_output: OutPoint, script_sig: ScriptBuf, witness: Witness, output: ScriptBuf) -> Transaction {
    Transaction {
        version: transaction::Version(0),
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig, sequence: Sequence::ZERO, witness }],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: output }],
    }
}

/// The solution in a commitment: what follows the header in the first push that has the header and more; and the
/// commitment with that push cut down to the header. Core: `FetchAndClearCommitmentSection`.
///
/// The cleared script is written anew, as Core writes it: each push in its shortest form, an empty push as its bare
/// opcode, and nothing from the first push on that runs over the end.
fn take_solution(commitment: &[u8]) -> (ScriptBuf, Option<Vec<u8>>) {
    let (mut cleared, mut found, mut rest) = (Vec::new(), None, commitment);
    while let Some((opcode, data, after)) = next_op(rest) {
        rest = after;
        if data.is_empty() {
            cleared.push(opcode);
            continue;
        }
        let mut kept = data;
        if found.is_none() && data.len() > SIGNET_HEADER.len() && data.starts_with(&SIGNET_HEADER) {
            let (head, solution) = data.split_at(SIGNET_HEADER.len());
            (kept, found) = (head, Some(solution.to_vec()));
        }
        match kept.len() {
            length @ ..=0x4b => cleared.push(length as u8),
            length @ ..=0xff => cleared.extend_from_slice(&[0x4c, length as u8]),
            length @ ..=0xffff => {
                cleared.push(0x4d);
                cleared.extend_from_slice(&(length as u16).to_le_bytes());
            }
            length => {
                cleared.push(0x4e);
                cleared.extend_from_slice(&(length as u32).to_le_bytes());
            }
        }
        cleared.extend_from_slice(kept);
    }
    let script = if found.is_some() { cleared } else { commitment.to_vec() };
    (ScriptBuf::from_bytes(script), found)
}

/// The first opcode of a script, what it pushes, and what follows; `None` at the end or where a push runs over it.
fn next_op(script: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&opcode, rest) = script.split_first()?;
    let width = match opcode {
        0x4c => 1,
        0x4d => 2,
        0x4e => 4,
        _ => 0,
    };
    let (number, rest) = rest.split_at_checked(width)?;
    let length = match width {
        0 if opcode < 0x4c => usize::from(opcode),
        _ => number.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte)),
    };
    let (data, rest) = rest.split_at_checked(length)?;
    Some((opcode, data, rest))
}
