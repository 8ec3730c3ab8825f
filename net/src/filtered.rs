//! What light clients ask of a node that offers it ([BIP-0035], [BIP-0037], [BIP-0111]; `-peerbloomfilters`): the whole
//! pool, transactions by a filter of theirs, blocks by that filter.
//!
//! [BIP-0035]: https://github.com/bitcoin/bips/blob/master/bip-0035.mediawiki
//! [BIP-0037]: https://github.com/bitcoin/bips/blob/master/bip-0037.mediawiki
//! [BIP-0111]: https://github.com/bitcoin/bips/blob/master/bip-0111.mediawiki

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{MerkleBlock, Txid};
use groat_chain::block::Block;
use groat_chain::script::MAX_SCRIPT_ELEMENT_SIZE;

use crate::bloom::BloomFilter;
use crate::handshake::offered_services;
use crate::message::{Kind, Message};
use crate::peer::{NODE_BLOOM, Peer};
use crate::protocol::{Cx, Reason};
use crate::txrelay::{TxRelay, without_witness};

/// What breaks a rule that no honest peer breaks.
type Misbehaviour = &'static str;

/// The peer wants to be told of the whole pool. Core: `ProcessMessage` MEMPOOL.
pub(crate) fn on_mempool(peer: &mut Peer, relay: &mut TxRelay, cx: &mut Cx<'_>) {
    let offered = offered_services(peer, cx) & NODE_BLOOM != 0 && !cx.core.upload.is_reached();
    if offered || peer.permissions.mempool {
        peer.relay.wants_pool = true;
        if peer.relay.is_on() {
            relay.wake(peer, cx);
        }
    } else if !peer.permissions.no_ban {
        cx.disconnect(peer, Reason::Unserved(Kind::MemPool));
    }
}

/// The peer loads, extends or clears its filter. Core: `ProcessMessage` FILTERLOAD, FILTERADD, FILTERCLEAR.
pub(crate) fn on_filter(
    peer: &mut Peer,
    message: Message,
    relay: &mut TxRelay,
    cx: &mut Cx<'_>,
) -> Result<(), Misbehaviour> {
    if offered_services(peer, cx) & NODE_BLOOM == 0 {
        if let Some(kind) = message.kind() {
            cx.disconnect(peer, Reason::Unserved(kind));
        }
        return Ok(());
    }
    let relays = peer.kind.relays_transactions();
    match message {
        Message::FilterLoad(filter) if !filter.is_within_size_constraints() => return Err("too-large bloom filter"),
        Message::FilterAdd(element) if element.len() > MAX_SCRIPT_ELEMENT_SIZE => {
            return Err("bad filteradd message");
        }
        _ if !relays => {}
        Message::FilterLoad(filter) => {
            peer.relay.filter = Some(Box::new(filter));
            relay.want_transactions(peer, cx);
        }
        Message::FilterAdd(element) => match &mut peer.relay.filter {
            Some(filter) => filter.insert(&element),
            None => return Err("bad filteradd message"),
        },
        _ => {
            peer.relay.filter = None;
            relay.want_transactions(peer, cx);
        }
    }
    Ok(())
}

/// A block by the peer's filter: which transactions match, with the proof that they are in it, and those transactions.
/// Nothing without a filter. Core: `CMerkleBlock`.
pub(crate) fn merkle_block(filter: Option<&mut BloomFilter>, block: &Block) -> Vec<Message> {
    let Some(filter) = filter else { return Vec::new() };
    let matched: Vec<usize> =
        (0..block.transactions.len()).filter(|at| filter.matches(&block.transactions[*at])).collect();
    // A block may have 16,000 transactions and all may match: each is looked up, not searched for.
    let wanted: BTreeSet<&Txid> = matched.iter().map(|at| &block.txids[*at]).collect();
    let matches = |txid: &Txid| wanted.contains(txid);
    let proof = MerkleBlock::from_header_txids_with_predicate(&block.header, &block.txids, matches);
    let transactions = matched.iter().map(|at| Message::Tx(Arc::new(without_witness(&block.transactions[*at]))));
    std::iter::once(Message::MerkleBlock(Box::new(proof))).chain(transactions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::{deserialize, serialize};

    /// As many transactions as a block has room for. Searched for one by one, they would hold up all peers for long.
    #[test]
    fn a_block_that_matches_whole_is_proven_whole() {
        let transaction = |n: u32| bitcoin::Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::from_consensus(n),
            input: vec![bitcoin::TxIn::default()],
            output: Vec::new(),
        };
        let header = groat_chain::params::Params::main().genesis.header;
        let whole = bitcoin::Block { header, txdata: (0..16_000).map(transaction).collect() };
        let block = Block::decode(&serialize(&whole)).expect("a block");
        let mut all = BloomFilter { data: Vec::new(), hash_funcs: 1, tweak: 0, flags: 0 };
        let messages = merkle_block(Some(&mut all), &block);
        let Message::MerkleBlock(proof) = &messages[0] else { panic!("no proof comes first") };
        let (mut matches, mut places) = (Vec::new(), Vec::new());
        let root = proof.txn.extract_matches(&mut matches, &mut places).expect("a proof");
        assert_eq!(Some(root), whole.compute_merkle_root());
        assert!(matches == block.txids, "{} of {} transactions are proven", matches.len(), block.txids.len());
        assert_eq!(messages.len(), 16_001);
    }

    #[test]
    fn proofs_of_mainnet_are_sent_as_they_came() {
        let Some(bytes) = crate::message::tests::vector("vectors-compact-blocks/mainnet-0300025-plain.merkleblock")
        else {
            return;
        };
        let proof: MerkleBlock = deserialize(&bytes).expect("a proof");
        let (mut matches, mut places) = (Vec::new(), Vec::new());
        proof.extract_matches(&mut matches, &mut places).expect("a proof");
        assert_eq!(matches.len(), 2);
        assert_eq!(Message::MerkleBlock(Box::new(proof)).encode(), bytes);
    }
}
