//! Where each transaction lies: `-txindex`. A row leads from the txid to the last block connected that holds it.

use bitcoin::consensus::encode::VarInt;
use bitcoin::hashes::Hash;
use bitcoin::{Transaction, Txid};
use parking_lot::RwLock;

use super::{Entry, Index, damaged};
use crate::block::decode_transaction;
use crate::store::codec::{DecodeError, put_number, take_number};
use crate::store::{Row, Store, StoreError};
use crate::tree::{Id, Tree};

/// Bytes of a block's header.
const HEADER: usize = 80;

/// Where a transaction lies: number of its block in the tree, offset in the block, length.
pub(super) struct Place {
    id: Id,
    offset: u32,
    length: u32,
}

impl Place {
    pub fn read(index: Index, row: &[u8]) -> Result<Place, StoreError> {
        let mut rest = row;
        let mut take = || take_number(&mut rest).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let mut place = || Ok(Place { id: Id(take()?), offset: take()?, length: take()? });
        place().map_err(|error: DecodeError| damaged(index, error))
    }

    /// Whether the block is active.
    pub fn is_active(&self, tree: &RwLock<Tree>) -> bool {
        let tree = tree.read();
        (self.id.0 as usize) < tree.len() && tree.is_active(self.id)
    }

    /// What lies there, with the block. A row can be ahead of the tree that a crash left: then another block has its number,
    /// and there may be no transaction.
    pub fn transaction(&self, store: &dyn Store, tree: &RwLock<Tree>) -> Option<(Id, Transaction)> {
        let pos = {
            let tree = tree.read();
            if self.id.0 as usize >= tree.len() { None } else { tree.node(self.id).block() }
        };
        let bytes = store.read_part(pos?, self.offset, self.length).ok()?;
        Some((self.id, decode_transaction(&mut &bytes[..]).ok()?))
    }
}

/// The place of each transaction of a block, as it is stored.
pub(super) fn places(entry: &Entry<'_>) -> impl Iterator<Item = Vec<u8>> {
    let (block, number) = (entry.block, entry.number);
    let mut offset = HEADER + VarInt::from(block.transactions.len()).size();
    block.transactions.iter().map(move |transaction| {
        let length = transaction.total_size();
        let mut place = Vec::with_capacity(10);
        for part in [number as usize, offset, length] {
            put_number(part as u128, &mut place);
        }
        offset += length;
        place
    })
}

/// One row a transaction. Core has none for the one of genesis, which nobody can spend.
pub(super) fn rows(entry: &Entry<'_>) -> Vec<Row> {
    let txids = if entry.height == 0 { &[] } else { &entry.block.txids[..] };
    let row = |(txid, value): (&Txid, _)| Row { index: Index::Transactions, key: txid.to_byte_array().to_vec(), value };
    txids.iter().zip(places(entry)).map(row).collect()
}

/// The transaction and a block that holds it; that block need not be active.
pub fn find(store: &dyn Store, tree: &RwLock<Tree>, txid: &Txid) -> Result<Option<(Id, Transaction)>, StoreError> {
    let key = txid.to_byte_array().to_vec();
    let Some(row) = store.rows(Index::Transactions, &[key])?.remove(0) else { return Ok(None) };
    let found = Place::read(Index::Transactions, &row)?.transaction(store, tree);
    Ok(found.filter(|(_, found)| found.compute_txid() == *txid))
}
