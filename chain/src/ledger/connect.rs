//! A block meets the coins: connected on top of where they stand, judged, its scripts started; or taken back.

use std::sync::Arc;

use super::ahead::Prefetched;
use super::gather::Gathered;
use super::scripts::ScriptRun;
use super::{InFlight, Ledger, LedgerError, Step};
use crate::block::Block;
use crate::coins::Coin;
use crate::rejection::Rejection;
use crate::rules;
use crate::rules::connect::{Connected, connect_block};
use crate::script::Flags;
use crate::store::{StoreError, codec};
use crate::tree::{Id, Tree};

impl Ledger {
    /// Connects the next block on the way to `target`, which descends from the tip.
    pub(super) fn connect_next(&mut self, target: Id) -> Result<Step, LedgerError> {
        let (id, block, prefetched) = self.next_block(target)?;
        let (mut gathered, verdict) = self.judge(&block, prefetched)?;
        let connected = match verdict {
            Ok(connected) => connected,
            Err(rejection) => {
                self.revert(&block, &gathered.spent, &gathered.overwritten, gathered.transactions);
                // What is in flight is older and speaks first; this block is then judged again.
                if let Some(step) = self.settle(true)? {
                    return Ok(step);
                }
                self.check_witness_again(id, &block)?;
                let rejection = self.in_cores_words(&block, rejection)?;
                self.refuse(id, &rejection);
                return Ok(Step::Refused(block.hash, rejection));
            }
        };
        gathered.spent.append(&mut gathered.overwritten);
        let spent = Arc::new(gathered.spent);
        let tree = self.tree.read();
        let trusted = self.scripts_are_assumed(&tree, id);
        let has_undo = tree.node(id).undo().is_some();
        let file = tree.node(id).block().expect("a block to connect is stored").file;
        drop(tree);
        let scripts = if trusted { ScriptRun::none() } else { self.run_scripts(&block, &spent, connected.flags) };
        if !has_undo {
            let pos = self.store.append_undo(file, &codec::encode_undo(&spent))?;
            self.tree.write().set_undo(id, pos);
            self.unsaved.insert(id);
        }
        let parts = self.make_parts(id, &block, &spent);
        self.tip = id;
        self.in_flight.push_back(InFlight { id, block, spent, scripts, parts });
        Ok(Step::Moved(None))
    }

    /// Moves the coins of a block that follows where they stand, and judges the block on them; its scripts are not run.
    /// A block that would overwrite coins is refused before it touches one. Whatever the verdict, the coins are moved.
    pub(super) fn judge(
        &mut self,
        block: &Block,
        prefetched: Prefetched,
    ) -> Result<(Gathered, Result<Connected, Rejection>), LedgerError> {
        let height = self.height() + 1;
        let overwrites = self.must_not_overwrite(block, height) && self.overwrites(block)?;
        let gathered = if overwrites { Gathered::default() } else { self.gather(block, height, prefetched)? };
        let tree = self.tree.read();
        let verdict =
            connect_block(block, &gathered.spent, gathered.complete, &tree.branch(self.tip), &self.params, overwrites);
        drop(tree);
        Ok((gathered, verdict))
    }

    /// The reason that Core would give to refuse a block that does not connect: see
    /// [`rules::connect::bip34_implies_bip30`].
    pub(super) fn in_cores_words(&self, block: &Block, rejection: Rejection) -> Result<Rejection, LedgerError> {
        let implied = rules::connect::bip34_implies_bip30(&self.params);
        Ok(if implied && self.overwrites(block)? { Rejection::BadTxnsBip30 } else { rejection })
    }

    pub(super) fn run_scripts(&self, block: &Arc<Block>, spent: &Arc<Vec<Coin>>, flags: Flags) -> ScriptRun {
        ScriptRun::start(&self.pool, block, spent, flags, self.verdicts.as_ref())
    }

    /// Whether the scripts of a block need not be run: an ancestor of the assumed-valid block, which is part of
    /// the best header chain and buried by two weeks of work (Core's `fScriptChecks`).
    fn scripts_are_assumed(&self, tree: &Tree, id: Id) -> bool {
        let Some(assumed) = self.options.assumed_valid.and_then(|hash| tree.get(&hash)) else {
            return false;
        };
        let best = tree.best_header();
        tree.is_ancestor(id, assumed)
            && tree.is_ancestor(id, best)
            && tree.node(best).work >= self.params.minimum_chain_work
            && rules::pow::proof_equivalent_time(
                tree.node(best).work,
                tree.node(id).work,
                tree.node(best).bits,
                &self.params,
            ) > 60 * 60 * 24 * 14
    }

    /// Before a connected block is called invalid: its witnesses are those that were accepted. A block read back from
    /// disk is held only against its merkle root, which does not cover them.
    pub(super) fn check_witness_again(&self, id: Id, block: &Block) -> Result<(), LedgerError> {
        let tree = self.tree.read();
        let parent = tree.node(id).parent().expect("genesis is never connected");
        rules::block::contextual_check_block(block, &tree.branch(parent), &self.params).map_err(|rejection| {
            let (what, detail) = (format!("the stored block {}", block.hash), rejection.to_string());
            StoreError::Damaged { what, detail, remedy: "--reindex" }.into()
        })
    }

    /// Takes all blocks in flight back.
    pub(super) fn revert_in_flight(&mut self) {
        while let Some(InFlight { id, block, spent, .. }) = self.in_flight.pop_back() {
            self.revert_connected(&block, &spent);
            self.tip = self.tree.read().node(id).parent().expect("genesis is never connected");
        }
        self.ahead.clear();
    }

    /// Takes the last connected block back.
    pub(super) fn disconnect_tip(&mut self) -> Result<(), LedgerError> {
        self.ahead.clear();
        let id = self.tip;
        let parent = self.tree.read().node(id).parent().expect("a fork lies below");
        if let Some(InFlight { block, spent, .. }) = self.in_flight.pop_back() {
            self.revert_connected(&block, &spent);
        } else {
            let (block, spent) = self.read_connected(id)?;
            self.revert_connected(&block, &spent);
            if self.change.connected.last().is_some_and(|last| last.hash == block.hash) {
                self.change.connected.pop();
            } else {
                self.change.disconnect(block);
            }
            self.index_disconnected(id, parent)?;
        }
        self.tip = parent;
        Ok(())
    }
}
