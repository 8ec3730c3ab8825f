//! Who spends each output: `-txospenderindex`. A row leads from the output to the last transaction connected that spends
//! it.

use bitcoin::{OutPoint, Transaction};
use parking_lot::RwLock;

use super::transactions::{Place, places};
use super::{Entry, Index};
use crate::store::codec::encode_outpoint;
use crate::store::{Row, Store, StoreError};
use crate::tree::{Id, Tree};

/// One row an input.
pub(super) fn rows(entry: &Entry<'_>) -> Vec<Row> {
    let spends = entry.block.transactions.iter().zip(places(entry)).skip(1);
    spends
        .flat_map(|(transaction, place)| transaction.input.iter().map(move |input| (input, place.clone())))
        .map(row)
        .collect()
}

fn row((input, value): (&bitcoin::TxIn, Vec<u8>)) -> Row {
    Row { index: Index::Spenders, key: encode_outpoint(&input.previous_output).to_vec(), value }
}

/// The transaction of the active chain that spends this output, and its block.
pub fn find(
    store: &dyn Store,
    tree: &RwLock<Tree>,
    outpoint: &OutPoint,
) -> Result<Option<(Id, Transaction)>, StoreError> {
    let Some(row) = store.rows(Index::Spenders, &[encode_outpoint(outpoint).to_vec()])?.remove(0) else {
        return Ok(None);
    };
    let place = Place::read(Index::Spenders, &row)?;
    // Spent on a branch that was left is not spent.
    if !place.is_active(tree) {
        return Ok(None);
    }
    let found = place.transaction(store, tree);
    Ok(found.filter(|(_, found)| found.input.iter().any(|input| input.previous_output == *outpoint)))
}
