//! The coins in memory: what blocks changed since the last flush (the *live* layer), over what the flush before wrote
//! or is writing (the *frozen* layer), over the store. Knows no store: callers bring coins from it, and take away what
//! must be written. Blocks change the table in place; a writer thread writes the frozen layer meanwhile.

mod layer;
#[cfg(test)]
mod tests;

use crate::coins::Coin;
use bitcoin::OutPoint;
use layer::{Hasher, Layer};
use std::sync::Arc;

/// What the table knows of an outpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Unspent.
    Coin(&'a Coin),
    /// Spent since the store was last in step, or by the layer being written.
    Spent,
    /// Not touched: the store's answer holds.
    Unknown,
}

/// Two layers of changed coins over a store that lies elsewhere.
///
/// An entry of the live layer is *fresh* when the layers beneath certainly hold no unspent coin there: a fresh coin
/// that is spent vanishes without a trace and is never written. Everything else that is spent leaves a tombstone,
/// which becomes a deletion.
pub struct CoinTable {
    live: Layer,
    frozen: Frozen,
    /// Whether the store holds the frozen layer: then it is only a cache.
    written: bool,
    generation: u64,
    budget: usize,
    hasher: Hasher,
}

impl CoinTable {
    /// An empty table that takes about `budget_bytes` for both layers together.
    pub fn new(budget_bytes: usize) -> CoinTable {
        let frozen = Frozen(Arc::new(Layer::new()));
        let hasher = Hasher::random();
        CoinTable { live: Layer::new(), frozen, written: true, generation: 0, budget: budget_bytes, hasher }
    }

    /// What is known of `outpoint`.
    pub fn get(&self, outpoint: &OutPoint) -> Found<'_> {
        let tag = self.hasher.tag(outpoint);
        match self.live.get(tag, outpoint) {
            Found::Unknown => self.frozen.0.get(tag, outpoint),
            known => known,
        }
    }

    /// Takes the coin at `outpoint` out: `None` if it does not exist or is spent. `from_store` is asked only when the
    /// table knows nothing of it; its answer must belong to the present [`CoinTable::generation`].
    pub fn spend<E>(
        &mut self,
        outpoint: &OutPoint,
        from_store: impl FnOnce() -> Result<Option<Coin>, E>,
    ) -> Result<Option<Coin>, E> {
        let tag = self.hasher.tag(outpoint);
        if let Some(known) = self.live.spend(tag, outpoint) {
            return Ok(known);
        }
        let beneath = match self.frozen.0.get(tag, outpoint) {
            Found::Coin(coin) => Some(coin.clone()),
            Found::Spent => None,
            Found::Unknown => from_store()?,
        };
        if beneath.is_some() {
            self.live.bury(tag, outpoint);
        }
        Ok(beneath)
    }

    /// Adds the coin that a block makes. The caller vouches that no unspent coin stands there in any layer or the store:
    /// BIP30 was checked or cannot fail, or what stood there was spent.
    pub fn create(&mut self, outpoint: OutPoint, coin: Coin) {
        let tag = self.hasher.tag(&outpoint);
        self.live.put(tag, outpoint, coin, true);
    }

    /// Puts back a coin that a block being undone had spent.
    pub fn restore(&mut self, outpoint: OutPoint, coin: Coin) {
        // Never fresh: a replay after a crash restores coins over a store that may hold them already.
        let tag = self.hasher.tag(&outpoint);
        self.live.put(tag, outpoint, coin, false);
    }

    /// Takes away a coin that a block being undone had created.
    pub fn remove(&mut self, outpoint: &OutPoint) {
        let tag = self.hasher.tag(outpoint);
        if self.live.spend(tag, outpoint).is_none() {
            self.live.bury(tag, outpoint);
        }
    }

    /// Makes the live layer the frozen one and gives it away to be written. The frozen layer before must have been
    /// written ([`CoinTable::written`]); what it cached is forgotten, so the generation changes.
    pub fn freeze(&mut self) -> Frozen {
        assert!(self.written, "one layer is written at a time: the writer still has the last one");
        self.frozen = Frozen(Arc::new(std::mem::replace(&mut self.live, Layer::new())));
        self.written = false;
        self.generation += 1;
        self.frozen.clone()
    }

    /// Notes that the store holds the frozen layer now. It stays as a cache until the next freeze.
    pub fn written(&mut self) {
        self.written = true;
    }

    /// Changes whenever knowledge is dropped. A coin looked up in the store outside of [`CoinTable::spend`] may only be
    /// used in the generation in which the table was first asked for it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Entries of the live layer: coins to put and to delete.
    pub fn changed(&self) -> usize {
        self.live.len()
    }

    /// Bytes that both layers take, long scripts included.
    pub fn memory(&self) -> usize {
        self.live.memory() + self.frozen.0.memory()
    }

    /// Whether the live layer has reached its half of the budget: time to freeze.
    pub(crate) fn is_full(&self) -> bool {
        self.live.memory() >= self.budget / 2
    }
}

/// A layer that no longer changes, for the writer thread. Cloning it is cheap.
#[derive(Clone)]
pub struct Frozen(Arc<Layer>);

impl Frozen {
    /// Entries in all.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries in key order, coins to put and (`None`) to delete, in batches of about `max_bytes` of stored size.
    /// No more than one batch is copied at a time.
    pub fn batches(&self, max_bytes: usize) -> impl Iterator<Item = Vec<(OutPoint, Option<Coin>)>> + '_ {
        let mut entries = (0..layer::SHARDS).flat_map(|shard| self.0.sorted(shard));
        std::iter::from_fn(move || {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < max_bytes {
                let Some(at) = entries.next() else { break };
                let (outpoint, coin) = self.0.entry(at);
                // A put takes its key, a few bytes of numbers and the script; a deletion its key.
                bytes += 40 + coin.map_or(0, |coin| 8 + coin.script_pubkey().len());
                batch.push((*outpoint, coin.cloned()));
            }
            (!batch.is_empty()).then_some(batch)
        })
    }
}
