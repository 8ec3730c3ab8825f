//! Opening a ledger: the header tree from its records, a flush that was cut short completed, the table empty.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint};
use parking_lot::RwLock;

use super::flush::{FLUSHING, Flush, TIP};
use super::{Ledger, LedgerError, Options};
use crate::coins::Coin;
use crate::params::Params;
use crate::pool::Pool;
use crate::rules::block::is_unspendable;
use crate::store::{Batch, FilePos, Store};
use crate::table::CoinTable;
use crate::tree::{Id, Tree};

impl Ledger {
    /// Opens the ledger that `store` holds, or begins a new one at genesis.
    pub fn open(
        params: Arc<Params>,
        store: Arc<dyn Store>,
        pool: Arc<Pool>,
        options: Options,
    ) -> Result<Ledger, LedgerError> {
        let tree = match load_tree(&*store)? {
            Some(tree) => tree,
            None => begin(&params, &*store)?,
        };
        let found = tree.node(Id::GENESIS).hash;
        if found != params.genesis_hash {
            return Err(LedgerError::OtherNetwork { found, expected: params.genesis_hash });
        }
        let tip = stored_block(&tree, &*store, TIP, 0)?.unwrap_or(Id::GENESIS);
        let mut ledger = Ledger {
            table: CoinTable::new(options.table_bytes),
            params,
            options,
            store,
            pool,
            tree: Arc::new(RwLock::new(tree)),
            tip,
            in_flight: Default::default(),
            ahead: Default::default(),
            unsaved: Default::default(),
            whole_up_to: None,
            change: Default::default(),
            untold: Default::default(),
            indexes: Default::default(),
            follower: None,
            verdicts: None,
            marked: false,
            pruning: true,
            flush: Flush { stored: tip, writer: None },
        };
        ledger.complete_flush()?;
        let tip = ledger.tip;
        ledger.tree.write().finish_load(tip);
        Ok(ledger)
    }

    /// Forgets all coins, so that [`Ledger::activate_best_chain`] connects every stored block again
    /// (`--reindex-chainstate`). Nothing may be connected yet.
    pub fn rewind_to_genesis(store: &dyn Store) -> Result<(), LedgerError> {
        // The tip first: coins at genesis with no coin record is a state that opens.
        let Some(tree) = load_tree(store)? else { return Ok(()) };
        let pruned = |id: &Id| tree.node(*id).tx_count > 0 && tree.node(*id).block().is_none();
        if let Some(id) = (0..tree.len() as u32).map(Id).find(pruned) {
            return Err(LedgerError::Pruned(tree.node(id).hash));
        }
        let genesis = tree.node(Id::GENESIS).hash;
        let mark = [genesis.to_byte_array(), genesis.to_byte_array()].concat();
        store.write(Batch { meta: vec![(FLUSHING, Some(mark))], ..Batch::default() }, true)?;
        store.clear_coins()?;
        let tip = (TIP, Some(genesis.to_byte_array().to_vec()));
        Ok(store.write(Batch { meta: vec![tip, (FLUSHING, None)], ..Batch::default() }, true)?)
    }

    /// Replays a flush that a crash cut short: some of its puts and deletes are stored, some are not, and all of
    /// them can be done again.
    fn complete_flush(&mut self) -> Result<(), LedgerError> {
        let tree = self.tree.read();
        let from = stored_block(&tree, &*self.store, FLUSHING, 0)?;
        let to = stored_block(&tree, &*self.store, FLUSHING, 32)?;
        let (Some(from), Some(to)) = (from, to) else { return Ok(()) };
        if from == to && to == Id::GENESIS {
            // A rewind was cut short: the coins must go, all of them.
            let hash = tree.node(to).hash;
            drop(tree);
            self.store.clear_coins()?;
            let tip = (TIP, Some(hash.to_byte_array().to_vec()));
            self.store.write(Batch { meta: vec![tip, (FLUSHING, None)], ..Batch::default() }, true)?;
            (self.tip, self.flush.stored) = (to, to);
            return Ok(());
        }
        let fork = tree.fork(from, to);
        let path = |end: Id| {
            let mut ids = Vec::new();
            let mut walk = end;
            while walk != fork {
                ids.push(walk);
                walk = tree.node(walk).parent().expect("a fork lies below");
            }
            ids
        };
        let (down, mut up) = (path(from), path(to));
        up.reverse();
        let heights: Vec<u32> = up.iter().map(|id| tree.node(*id).height).collect();
        let hash = tree.node(to).hash;
        drop(tree);
        for id in down {
            self.store.write(Batch { coins: self.replay_disconnect(id)?, ..Batch::default() }, false)?;
        }
        for (id, height) in up.into_iter().zip(heights) {
            self.store.write(Batch { coins: self.replay_connect(id, height)?, ..Batch::default() }, false)?;
        }
        let tip = (TIP, Some(hash.to_byte_array().to_vec()));
        self.store.write(Batch { meta: vec![tip, (FLUSHING, None)], ..Batch::default() }, true)?;
        (self.tip, self.flush.stored) = (to, to);
        Ok(())
    }

    fn replay_disconnect(&self, id: Id) -> Result<Vec<(OutPoint, Option<Coin>)>, LedgerError> {
        let (block, spent) = self.read_connected(id)?;
        let mut coins: Vec<_> = super::gather::made_by(&block).map(|outpoint| (outpoint, None)).collect();
        let inputs = block.transactions.iter().skip(1).flat_map(|transaction| &transaction.input);
        let own = block.txids[0];
        let overwritten = (0..).map(|vout| OutPoint::new(own, vout));
        let outpoints = inputs.map(|input| input.previous_output).chain(overwritten);
        let made: std::collections::HashSet<_> = block.txids.iter().skip(1).collect();
        // A coin made and spent inside the block does not come back.
        coins.extend(
            outpoints
                .zip(spent)
                .filter(|(outpoint, _)| !made.contains(&outpoint.txid))
                .map(|(o, coin)| (o, Some(coin))),
        );
        Ok(coins)
    }

    fn replay_connect(&self, id: Id, height: u32) -> Result<Vec<(OutPoint, Option<Coin>)>, LedgerError> {
        let (block, _) = self.read_connected(id)?;
        let mut coins = Vec::new();
        for (number, (transaction, txid)) in block.transactions.iter().zip(&block.txids).enumerate() {
            if number > 0 {
                coins.extend(transaction.input.iter().map(|input| (input.previous_output, None)));
            }
            for (vout, output) in transaction.output.iter().enumerate() {
                if !is_unspendable(&output.script_pubkey) {
                    coins.push((OutPoint::new(*txid, vout as u32), Some(Coin::new(output, height, number == 0))));
                }
            }
        }
        Ok(coins)
    }
}

fn load_tree(store: &dyn Store) -> Result<Option<Tree>, LedgerError> {
    let mut loading = crate::tree::Loading::default();
    let mut misfit = None;
    store.for_each_header(&mut |number, record| {
        if misfit.is_none() && !loading.push(number, &record) {
            misfit = Some(number);
        }
    })?;
    match misfit {
        Some(number) => Err(LedgerError::Damaged(format!("header record {number} does not fit on the ones before it"))),
        None => Ok(loading.finish()),
    }
}

/// Writes the records of a new chain: genesis alone. Its coinbase makes no coins (original release).
fn begin(params: &Params, store: &dyn Store) -> Result<Tree, LedgerError> {
    let bytes = bitcoin::consensus::serialize(&params.genesis);
    let mut tree = Tree::new(&params.genesis.header);
    // After `--reindex` the block files begin with it already, behind the head of its frame.
    let first = FilePos { file: 0, offset: 8 };
    let pos = match store.read_block(first) {
        Ok(found) if found == bytes => first,
        _ => store.append_block(&bytes)?,
    };
    store.sync_files()?;
    tree.set_block(Id::GENESIS, pos, 1, bytes.len() as u32);
    tree.set_proven(Id::GENESIS);
    let batch = Batch {
        headers: vec![(0, tree.record(Id::GENESIS))],
        meta: vec![(TIP, Some(params.genesis_hash.to_byte_array().to_vec()))],
        ..Batch::default()
    };
    store.write(batch, true)?;
    Ok(tree)
}

/// The block whose hash the record `name` holds at `offset`.
pub(super) fn stored_block(
    tree: &Tree,
    store: &dyn Store,
    name: &'static str,
    offset: usize,
) -> Result<Option<Id>, LedgerError> {
    let Some(bytes) = store.meta(name)? else { return Ok(None) };
    let hash = bytes.get(offset..offset + 32).and_then(|bytes| BlockHash::from_slice(bytes).ok());
    let id = hash.and_then(|hash| tree.get(&hash));
    id.map(Some).ok_or_else(|| LedgerError::Damaged(format!("the record \"{name}\" names no known block")))
}
