//! A block either does not decode or encodes to the same bytes again, with the ids and sizes that the `bitcoin` crate
//! computes its own way.
#![no_main]

use bitcoin::consensus::{Encodable, encode::VarInt};
use groat_chain::block::Block;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(block) = Block::decode(bytes) else { return };
    let mut again = Vec::with_capacity(bytes.len());
    let sink = "a vector takes all bytes";
    block.header.consensus_encode(&mut again).expect(sink);
    VarInt::from(block.transactions.len()).consensus_encode(&mut again).expect(sink);
    for (index, transaction) in block.transactions.iter().enumerate() {
        transaction.consensus_encode(&mut again).expect(sink);
        assert_eq!(block.txids[index], transaction.compute_txid(), "txid of transaction {index}");
        assert_eq!(block.wtxids[index], transaction.compute_wtxid(), "wtxid of transaction {index}");
    }
    assert_eq!(again, bytes, "the encoding of what was decoded");
    let theirs = bitcoin::Block { header: block.header, txdata: block.transactions.clone() };
    assert_eq!((block.size, block.weight() as u64), (theirs.total_size(), theirs.weight().to_wu()), "size and weight");
    assert_eq!((block.txids.len(), block.wtxids.len()), (theirs.txdata.len(), theirs.txdata.len()), "ids");
});
