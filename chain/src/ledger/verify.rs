//! Checking what is stored, as Core's `verifychain` does: the last blocks are read, judged, taken back and
//! connected again, scripts and all, on a coin table of their own.

use std::sync::Arc;

use bitcoin::OutPoint;

use super::ahead::Prefetched;
use super::{Change, Ledger, LedgerError, Options};
use crate::rules;
use crate::table::CoinTable;
use crate::tree::Id;

/// What a verification went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Blocks checked, from the tip down.
    pub blocks: u32,
    /// Their transactions.
    pub transactions: u64,
    /// Whether it ended early at a block whose data was pruned.
    pub pruned: bool,
}

impl Ledger {
    /// Checks the last `depth` blocks (0: all): they read back and keep every rule, their undo fits, the stored
    /// coins are what the blocks below them leave, and, if they are to `reconnect`, all scripts hold. `progress` is asked
    /// after each block whether to go on. A fault is an error that names the block.
    pub fn verify_chain(
        &mut self,
        depth: u32,
        reconnect: bool,
        progress: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Verified, LedgerError> {
        self.flush()?;
        // A ledger of its own over the same store, which never flushes: the real table stays as it is.
        let mut scratch = Ledger {
            params: self.params.clone(),
            options: Options { assumed_valid: None, ..self.options.clone() },
            store: self.store.clone(),
            pool: self.pool.clone(),
            tree: self.tree.clone(),
            table: CoinTable::new(usize::MAX),
            tip: self.tip,
            in_flight: Default::default(),
            ahead: Default::default(),
            unsaved: Default::default(),
            whole_up_to: None,
            change: Change::default(),
            untold: Default::default(),
            indexes: Default::default(),
            follower: None,
            verdicts: None,
            marked: false,
            pruning: false,
            flush: super::flush::Flush { stored: self.tip, writer: None },
        };
        scratch.verify(depth, reconnect, progress)
    }

    fn verify(
        &mut self,
        depth: u32,
        reconnect: bool,
        progress: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Verified, LedgerError> {
        let mut verified = Verified { blocks: 0, transactions: 0, pruned: false };
        let mut down: Vec<Id> = Vec::new();
        while self.tip != Id::GENESIS && (depth == 0 || verified.blocks < depth) {
            let (id, tip) = (self.tip, self.tree.read().node(self.tip).clone());
            if tip.block().is_none() || tip.undo().is_none() {
                verified.pruned = true;
                break;
            }
            let (block, spent) = self.read_connected(id)?;
            let fault =
                |what: &str| LedgerError::Damaged(format!("block {} at height {}: {what}", tip.hash, tip.height));
            let parent = tip.parent().expect("genesis ends the walk");
            let tree = self.tree.read();
            let verdict = rules::block::check_block(&block, &self.params)
                .and_then(|()| rules::block::contextual_check_block(&block, &tree.branch(parent), &self.params));
            drop(tree);
            if let Err(rejection) = verdict {
                return Err(fault(&rejection.to_string()));
            }
            for outpoint in super::gather::made_by(&block) {
                let known = matches!(self.table.get(&outpoint), crate::table::Found::Unknown);
                if known && self.store.coins(&[outpoint])?[0].is_none() && !spent_inside(&block, &outpoint) {
                    return Err(fault(&format!("its output {outpoint} is not among the coins")));
                }
            }
            self.revert_connected(&block, &spent);
            self.tip = parent;
            down.push(id);
            verified.blocks += 1;
            verified.transactions += block.transactions.len() as u64;
            if !progress(verified.blocks) {
                return Ok(verified);
            }
        }
        while let Some(id) = down.pop().filter(|_| reconnect) {
            self.reconnect(id)?;
            if !progress(down.len() as u32) {
                break;
            }
        }
        Ok(verified)
    }

    /// Connects a block again and waits for its scripts.
    fn reconnect(&mut self, id: Id) -> Result<(), LedgerError> {
        let (block, stored) = self.read_connected(id)?;
        let height = self.tree.read().node(id).height;
        let fault = |what: String| LedgerError::Damaged(format!("block {} at height {height}: {what}", block.hash));
        let (mut gathered, verdict) = self.judge(&block, Prefetched::default())?;
        let connected = verdict.map_err(|rejection| fault(rejection.to_string()))?;
        gathered.spent.append(&mut gathered.overwritten);
        if gathered.spent != stored {
            return Err(fault("its undo differs from the coins it spends".into()));
        }
        let spent = Arc::new(gathered.spent);
        let scripts = self.run_scripts(&block, &spent, connected.flags).wait(&self.pool);
        scripts.map_err(|rejection| fault(rejection.to_string()))?;
        self.tip = id;
        Ok(())
    }
}

fn spent_inside(block: &crate::block::Block, outpoint: &OutPoint) -> bool {
    block
        .transactions
        .iter()
        .skip(1)
        .flat_map(|transaction| &transaction.input)
        .any(|input| input.previous_output == *outpoint)
}
