//! Groat's ledger as a judge of blocks, beside bitcoind.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize_partial, serialize};
use bitcoin::{BlockHash, Witness};
use groat_chain::ledger::{Accepted, Incoming, Ledger, Options};
use groat_chain::params::{Buried, Params, RegtestOptions, parse_activation_height};
use groat_chain::pool::Pool;
use groat_chain::rules::commitment::witness_commitment;
use groat_chain::rules::deployment::is_active;
use groat_chain::stats::{CoinCount, HashKind};
use groat_chain::store::mem::MemStore;
use groat_tests::mutants::{Judge, Mark, Scenario, UNKNOWN_BLOCK};
use groat_tests::regtest;

/// Groat's ledger in memory.
pub struct Groat {
    ledger: Ledger,
    now: u32,
}

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
        // On regtest that is `NOW`.
        let now = params.genesis.header.time + 1_000 * regtest::SPACING;
        Groat { ledger: Ledger::open(Arc::new(params), store, pool, options).unwrap(), now }
    }
}

impl Groat {
    /// A block as `submitblock` takes it: where the coinbase's reserved value was left out it is zeros.
    fn with_reserved_value(&self, block: &[u8]) -> Vec<u8> {
        let Ok((mut decoded, _)) = deserialize_partial::<bitcoin::Block>(block) else { return block.to_vec() };
        let tree = self.ledger.tree();
        let tree = tree.read();
        let parent = tree.get(&decoded.header.prev_blockhash).map(|parent| tree.node(parent).height);
        let segwit = parent.is_some_and(|height| is_active(Buried::Segwit, height + 1, self.ledger.params()));
        match decoded.txdata.first_mut().filter(|first| first.is_coinbase()) {
            Some(first) if segwit && witness_commitment(first).is_some() && first.input[0].witness.is_empty() => {
                first.input[0].witness = Witness::from_slice(&[[0; 32]]);
                serialize(&decoded)
            }
            _ => block.to_vec(),
        }
    }
}

impl Judge for Groat {
    fn submit(&mut self, block: &[u8]) -> Result<(), String> {
        let incoming = Incoming::decode_prefix(self.with_reserved_value(block), self.ledger.params())
            .map_err(|_| "Block decode failed")?;
        let hash = incoming.block.hash;
        match self.ledger.accept_block(incoming, None, self.now).unwrap() {
            Ok(Accepted::New(_)) => {}
            Ok(Accepted::Known(_)) => return Err("duplicate".into()),
            Err(rejection) => return Err(rejection.to_string()),
        }
        let refused = self.ledger.activate_fully().unwrap();
        match refused.into_iter().find(|(refused, _)| *refused == hash) {
            Some((_, rejection)) => Err(rejection.to_string()),
            None => Ok(()),
        }
    }

    fn header(&mut self, header: &Header) -> Result<(), String> {
        self.ledger.accept_header(header, self.now).map(drop).map_err(|rejection| rejection.to_string())
    }

    fn mark(&mut self, mark: Mark, block: BlockHash) -> Result<(), String> {
        let marked = match mark {
            Mark::Invalid => self.ledger.invalidate(&block),
            Mark::Reconsidered => self.ledger.reconsider(&block),
            Mark::Precious => self.ledger.prefer(&block),
        };
        self.ledger.activate_fully().unwrap();
        marked.map(drop).ok_or_else(|| UNKNOWN_BLOCK.into())
    }

    fn tip(&mut self) -> BlockHash {
        let tree = self.ledger.tree();
        let tree = tree.read();
        tree.node(tree.tip()).hash
    }

    fn muhash(&mut self) -> String {
        self.ledger.flush().unwrap();
        let mut count = CoinCount::new(HashKind::Muhash, 0, self.tip());
        let counted = self.ledger.store().for_each_coin(&mut |outpoint, coin| {
            count.add(&outpoint, &coin);
            true
        });
        counted.unwrap();
        count.finish().hash.unwrap().to_string()
    }
}
