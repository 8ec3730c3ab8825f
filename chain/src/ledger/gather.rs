//! The coins of one block: moved out of the table and into it, and back again. Judges nothing.

use std::sync::Arc;

use bitcoin::OutPoint;

use super::ahead::{self, Prefetched};
use super::{Ledger, LedgerError};
use crate::block::Block;
use crate::coins::Coin;
use crate::rules;
use crate::rules::block::is_unspendable;
use crate::store::StoreError;
use crate::table::Found;
use crate::tree::Id;

impl Ledger {
    /// Whether it has to be looked up if the block overwrites coins (BIP30).
    pub(super) fn must_not_overwrite(&self, block: &Block, height: u32) -> bool {
        let params = &self.params;
        let at_bip34 = (height > params.bip34_height).then(|| {
            let tree = self.tree.read();
            tree.node(tree.ancestor(self.tip, params.bip34_height)).hash
        });
        rules::connect::needs_bip30_check(height, block.hash, at_bip34, params)
    }

    /// Whether a transaction of the block would make a coin that exists unspent.
    pub(super) fn overwrites(&self, block: &Block) -> Result<bool, LedgerError> {
        let mut unknown = Vec::new();
        for outpoint in made_by(block) {
            match self.table.get(&outpoint) {
                Found::Coin(_) => return Ok(true),
                Found::Spent => {}
                Found::Unknown => unknown.push(outpoint),
            }
        }
        Ok(self.store.coins(&unknown)?.iter().any(Option::is_some))
    }

    /// Moves the coins that the block spends out of the table and puts those that it makes in, in block order.
    /// Stops at the first input that is missing or spent.
    pub(super) fn gather(
        &mut self,
        block: &Block,
        height: u32,
        mut prefetched: Prefetched,
    ) -> Result<Gathered, LedgerError> {
        let inputs = block.transactions.iter().skip(1).map(|tx| tx.input.len()).sum();
        let mut gathered = Gathered { spent: Vec::with_capacity(inputs), ..Gathered::default() };
        let exception = self.params.bip30_exceptions.contains(&(height, block.hash));
        for (number, (transaction, txid)) in block.transactions.iter().zip(&block.txids).enumerate() {
            let coinbase = number == 0;
            if !coinbase {
                for input in &transaction.input {
                    let outpoint = &input.previous_output;
                    let known = self.table.spend(outpoint, || prefetched.get(outpoint).ok_or(()));
                    let coin = match known {
                        Ok(coin) => coin,
                        Err(()) => {
                            self.fetch_rest(block, number, &mut prefetched)?;
                            let found = prefetched.get(outpoint).unwrap_or_default();
                            self.table.spend(outpoint, || Ok::<_, StoreError>(found))?
                        }
                    };
                    match coin {
                        Some(coin) => gathered.spent.push(coin),
                        None => return Ok(gathered),
                    }
                }
            }
            for (vout, output) in transaction.output.iter().enumerate() {
                if is_unspendable(&output.script_pubkey) {
                    continue;
                }
                let outpoint = OutPoint::new(*txid, vout as u32);
                if exception && coinbase {
                    let store = &self.store;
                    let before =
                        self.table.spend(&outpoint, || Ok::<_, StoreError>(store.coins(&[outpoint])?.remove(0)))?;
                    gathered.overwritten.extend(before);
                }
                self.table.create(outpoint, Coin::new(output, height, coinbase));
            }
            gathered.transactions = number + 1;
        }
        gathered.complete = true;
        Ok(gathered)
    }

    /// Asks the store at once for every coin that the block needs from transaction `from` on and the table does
    /// not know.
    pub(super) fn fetch_rest(
        &mut self,
        block: &Block,
        from: usize,
        prefetched: &mut Prefetched,
    ) -> Result<(), LedgerError> {
        self.ahead.note_miss();
        let unknown: Vec<OutPoint> = block.transactions[from..]
            .iter()
            .flat_map(|transaction| &transaction.input)
            .map(|input| input.previous_output)
            .filter(|outpoint| matches!(self.table.get(outpoint), Found::Unknown) && prefetched.get(outpoint).is_none())
            .collect();
        let found = ahead::read_coins(&self.store, &self.pool, unknown)?;
        prefetched.extend(found);
        Ok(())
    }

    /// Takes a connected block back with its undo.
    pub(super) fn revert_connected(&mut self, block: &Block, undo: &[Coin]) {
        let inputs: usize = block.transactions.iter().skip(1).map(|tx| tx.input.len()).sum();
        let (spent, overwritten) = undo.split_at(undo.len().min(inputs));
        self.revert(block, spent, overwritten, block.transactions.len());
    }

    /// Takes back what [`Ledger::gather`] did for the first `transactions` transactions and the coins in `spent`.
    pub(super) fn revert(&mut self, block: &Block, spent: &[Coin], overwritten: &[Coin], transactions: usize) {
        let mut starts = Vec::with_capacity(block.transactions.len());
        let mut start = 0;
        for (number, transaction) in block.transactions.iter().enumerate() {
            starts.push(start);
            start += if number == 0 { 0 } else { transaction.input.len() };
        }
        for (number, transaction) in block.transactions.iter().enumerate().rev() {
            if number < transactions {
                for (vout, output) in transaction.output.iter().enumerate().rev() {
                    if !is_unspendable(&output.script_pubkey) {
                        self.table.remove(&OutPoint::new(block.txids[number], vout as u32));
                    }
                }
            }
            if number > 0 {
                let coins = spent.get(starts[number]..).unwrap_or_default();
                for (input, coin) in transaction.input.iter().zip(coins).rev() {
                    self.table.restore(input.previous_output, coin.clone());
                }
            }
        }
        for (vout, coin) in overwritten.iter().enumerate() {
            self.table.restore(OutPoint::new(block.txids[0], vout as u32), coin.clone());
        }
    }

    /// Reads a block that was connected once, with the coins it spent.
    pub(super) fn read_connected(&self, id: Id) -> Result<(Arc<Block>, Vec<Coin>), LedgerError> {
        let place = ahead::Stored::of(&self.tree.read(), id)?;
        place.read(&*self.store)
    }
}

/// Coins that a block spends, in block order, as far as they were there.
#[derive(Default)]
pub(super) struct Gathered {
    pub spent: Vec<Coin>,
    pub complete: bool,
    /// Coins that the two repeated coinbases of 2010 overwrite: a spend and a create, so that undo is exact. In an undo
    /// record they follow the spent ones.
    pub overwritten: Vec<Coin>,
    /// Transactions whose outputs are in the table.
    pub transactions: usize,
}

/// Outpoints of all spendable outputs of a block.
pub(super) fn made_by(block: &Block) -> impl Iterator<Item = OutPoint> {
    block.transactions.iter().zip(&block.txids).flat_map(|(transaction, txid)| {
        transaction
            .output
            .iter()
            .enumerate()
            .filter(|(_, output)| !is_unspendable(&output.script_pubkey))
            .map(|(vout, _)| OutPoint::new(*txid, vout as u32))
    })
}
