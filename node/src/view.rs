//! What the protocol may read of a running node: the header tree and the mempool, locked for one call of it.

use std::ops::ControlFlow;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Transaction, Wtxid};
use groat_chain::mempool::{self, Mempool};
use groat_chain::tree::Tree;
use groat_net::GenTxid;
use groat_net::view::{Entry, Id, PoolEntry, View};
use parking_lot::RwLockReadGuard;

/// The chain and the pool, as long as this is held.
pub struct NodeView<'a> {
    /// All headers.
    pub tree: RwLockReadGuard<'a, Tree>,
    /// All transactions.
    pub pool: RwLockReadGuard<'a, Mempool>,
    /// The time, in seconds since 1970.
    pub now: u64,
}

impl NodeView<'_> {
    fn get(&self, id: &GenTxid) -> Option<&mempool::Entry> {
        match id {
            GenTxid::Txid(txid) => self.pool.get(txid),
            GenTxid::Wtxid(wtxid) => self.pool.get_wtxid(wtxid),
        }
    }

    fn show(&self, entry: &mempool::Entry) -> PoolEntry {
        let rate = entry.rate().in_vbytes().per_thousand();
        let chunk_rate = self.pool.chunk(entry).rate.in_vbytes().per_thousand();
        PoolEntry { tx: entry.tx.clone(), fee_rate: rate, chunk_rate }
    }
}

impl View for NodeView<'_> {
    fn find(&self, hash: &BlockHash) -> Option<Id> {
        View::find(&*self.tree, hash)
    }

    fn entry(&self, id: Id) -> Entry {
        View::entry(&*self.tree, id)
    }

    fn header(&self, id: Id) -> Header {
        View::header(&*self.tree, id)
    }

    fn ancestor(&self, id: Id, height: u32) -> Id {
        View::ancestor(&*self.tree, id, height)
    }

    fn fork(&self, a: Id, b: Id) -> Id {
        View::fork(&*self.tree, a, b)
    }

    fn locator(&self, id: Id) -> Vec<BlockHash> {
        View::locator(&*self.tree, id)
    }

    fn tip(&self) -> Id {
        View::tip(&*self.tree)
    }

    fn active(&self, height: u32) -> Option<Id> {
        View::active(&*self.tree, height)
    }

    fn best_header(&self) -> Id {
        View::best_header(&*self.tree)
    }

    fn pool_entry(&self, id: &GenTxid) -> Option<PoolEntry> {
        self.get(id).map(|entry| self.show(entry))
    }

    fn pool_tx(&self, id: &GenTxid) -> Option<Arc<Transaction>> {
        self.get(id).map(|entry| entry.tx.clone())
    }

    fn for_each_pool_tx(&self, visit: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>) {
        let _ = self.pool.unordered().try_for_each(|entry| visit(&entry.wtxid, &entry.tx));
    }

    fn pool_fee_floor(&self) -> u64 {
        self.pool.min_fee(self.now)
    }

    fn min_relay_fee(&self) -> u64 {
        self.pool.policy().min_relay_fee
    }
}
