//! Where each transaction lies: `-txindex`. A row leads from the txid to the last block connected that holds it.

use bitcoin::consensus::encode::VarInt;
use bitcoin::hashes::Hash;
use bitcoin::{Transaction, Txid};
use parking_lot::RwLock;

use super::{Entry, Index, damaged};
use crate::block::decode_transaction;
use crate::store::codec::{put_number, take_number};
use crate::store::{Row, Store, StoreError};
use crate::tree::{Id, Tree};

/// Bytes of a block's header.
const HEADER: usize = 80;

/// One row a transaction. Core has none for the one of genesis, which nobody can spend.
pub(super) fn rows(entry: &Entry<'_>) -> Vec<Row> {
    let Entry { block, number, height, .. } = entry;
    if *height == 0 {
        return Vec::new();
    }
    let mut offset = HEADER + VarInt::from(block.transactions.len()).size();
    let row = |(transaction, txid): (&Transaction, &Txid)| {
        let length = transaction.total_size();
        let mut value = Vec::with_capacity(10);
        for part in [*number as usize, offset, length] {
            put_number(part as u128, &mut value);
        }
        offset += length;
        Row { index: Index::Transactions, key: txid.to_byte_array().to_vec(), value }
    };
    block.transactions.iter().zip(&block.txids).map(row).collect()
}

/// The transaction and a block that holds it; that block need not be active.
pub fn find(store: &dyn Store, tree: &RwLock<Tree>, txid: &Txid) -> Result<Option<(Id, Transaction)>, StoreError> {
    let key = txid.to_byte_array().to_vec();
    let Some(row) = store.rows(Index::Transactions, &[key])?.remove(0) else { return Ok(None) };
    let mut rest = &row[..];
    let mut take = || take_number(&mut rest).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let mut place = || Ok((take()?, take()?, take()?));
    let (number, offset, length) =
        place().map_err(|error: crate::store::codec::DecodeError| damaged(Index::Transactions, error))?;
    let id = Id(number);
    let pos = {
        let tree = tree.read();
        if number as usize >= tree.len() { None } else { tree.node(id).block() }
    };
    let Some(pos) = pos else { return Ok(None) };
    let Ok(bytes) = store.read_part(pos, offset, length) else { return Ok(None) };
    // A row can be ahead of the tree that a crash left: then another block has its number.
    let transaction = decode_transaction(&mut &bytes[..]).ok().filter(|found| found.compute_txid() == *txid);
    Ok(transaction.map(|transaction| (id, transaction)))
}
