//! Groat's ledger as a judge of blocks, beside bitcoind.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use groat_chain::ledger::{Accepted, Incoming, Ledger, Options};
use groat_chain::params::{Params, RegtestOptions, parse_activation_height};
use groat_chain::pool::Pool;
use groat_chain::stats::{CoinCount, HashKind};
use groat_chain::store::mem::MemStore;
use groat_tests::mutants::{Judge, Mark, NOW, Scenario, UNKNOWN_BLOCK};

/// Groat's ledger in memory.
pub struct Groat(Ledger);

impl Groat {
    /// One for a scenario, with so many checking threads.
    pub fn new(scenario: &Scenario, threads: usize) -> Groat {
        let activation = scenario.activation.iter().map(|(name, height)| format!("{name}@{height}"));
        let activation_heights = activation.map(|argument| parse_activation_height(&argument).unwrap()).collect();
        let options = RegtestOptions { activation_heights, bip94: scenario.bip94, ..Default::default() };
        Groat::on(Params::regtest(&options), threads)
    }

    /// One for any network.
    pub fn on(params: Params, threads: usize) -> Groat {
        let options = Options { assumed_valid: None, table_bytes: 1 << 24, prune: None };
        let (store, pool) = (Arc::new(MemStore::new()), Arc::new(Pool::new(threads)));
        Groat(Ledger::open(Arc::new(params), store, pool, options).unwrap())
    }
}

impl Judge for Groat {
    fn submit(&mut self, block: &[u8]) -> Result<(), String> {
        let incoming = Incoming::decode_prefix(block.to_vec(), self.0.params()).map_err(|_| "Block decode failed")?;
        let hash = incoming.block.hash;
        match self.0.accept_block(incoming, None, NOW).unwrap() {
            Ok(Accepted::New(_)) => {}
            Ok(Accepted::Known(_)) => return Err("duplicate".into()),
            Err(rejection) => return Err(rejection.to_string()),
        }
        let refused = self.0.activate_fully().unwrap();
        match refused.into_iter().find(|(refused, _)| *refused == hash) {
            Some((_, rejection)) => Err(rejection.to_string()),
            None => Ok(()),
        }
    }

    fn header(&mut self, header: &Header) -> Result<(), String> {
        self.0.accept_header(header, NOW).map(drop).map_err(|rejection| rejection.to_string())
    }

    fn mark(&mut self, mark: Mark, block: BlockHash) -> Result<(), String> {
        let marked = match mark {
            Mark::Invalid => self.0.invalidate(&block),
            Mark::Reconsidered => self.0.reconsider(&block),
            Mark::Precious => self.0.prefer(&block),
        };
        self.0.activate_fully().unwrap();
        marked.map(drop).ok_or_else(|| UNKNOWN_BLOCK.into())
    }

    fn tip(&mut self) -> BlockHash {
        let tree = self.0.tree();
        let tree = tree.read();
        tree.node(tree.tip()).hash
    }

    fn muhash(&mut self) -> String {
        self.0.flush().unwrap();
        let mut count = CoinCount::new(HashKind::Muhash, 0, self.tip());
        let counted = self.0.store().for_each_coin(&mut |outpoint, coin| {
            count.add(&outpoint, &coin);
            true
        });
        counted.unwrap();
        count.finish().hash.unwrap().to_string()
    }
}
