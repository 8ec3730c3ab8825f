//! The way to the best chain, step by step: where to go, what is proven, what is published. One call does one thing, so
//! that requests come between. How a block meets the coins `connect` knows.

use std::sync::Arc;

use bitcoin::BlockHash;

use super::scripts::ScriptRun;
use super::{Change, Ledger, LedgerError};
use crate::block::Block;
use crate::rejection::Rejection;
use crate::tree::Id;

/// What one step towards the best chain did.
#[derive(Debug)]
pub enum Step {
    /// Nothing: the published tip is the best chain known.
    Idle,
    /// A block was connected, disconnected or proven; there may be more to do.
    Moved(Option<Change>),
    /// A block broke a rule: it and its descendants are out.
    Refused(BlockHash, Rejection),
}

/// Blocks whose scripts may be running at once.
const MAX_IN_FLIGHT: usize = 16;
/// Inputs of blocks in flight, above which no further block is connected.
const MAX_IN_FLIGHT_INPUTS: usize = 200_000;

impl Ledger {
    /// Whether the coins stand at the published tip.
    pub fn is_at_rest(&self) -> bool {
        self.untold.is_empty() && self.in_flight.is_empty() && self.tree.read().tip() == self.tip
    }

    /// Waits for the scripts in flight and gives what happened, as [`Ledger::activate_best_chain`] does; none when there
    /// is no more. Then the coins stand at the published tip, unless a reorganisation is under way.
    pub fn finish_scripts(&mut self) -> Result<Option<Step>, LedgerError> {
        if let Some(step) = self.untold.pop_front() {
            return Ok(Some(step));
        }
        self.settle(true)
    }

    /// Blocks between the coin table and the best complete chain's end.
    pub fn blocks_to_connect(&self) -> u32 {
        let tree = self.tree.read();
        tree.node(tree.candidate()).height.saturating_sub(tree.node(self.tip).height)
    }

    /// One step towards the best chain: connects or disconnects one block, or proves those in flight.
    pub fn activate_best_chain(&mut self) -> Result<Step, LedgerError> {
        if let Some(step) = self.untold.pop_front() {
            return Ok(step);
        }
        if let Some(step) = self.settle(false)? {
            return Ok(step);
        }
        if self.table.is_full() {
            if let Some(step) = self.settle(true)? {
                return Ok(step);
            }
            self.begin_flush()?;
        }
        // A reorganisation is published by itself, before more is connected: who follows finds the coins at its tip.
        if !self.change.disconnected.is_empty()
            && !self.in_flight.is_empty()
            && self.is_better(self.tip)
            && let Some(step) = self.settle(true)?
        {
            return Ok(step);
        }
        let Some(target) = self.target() else {
            return match self.settle(true)? {
                Some(step) => Ok(step),
                None => self.publish_at_rest(),
            };
        };
        let fork = self.tree.read().fork(self.tip, target);
        if fork != self.tip {
            self.disconnect_tip()?;
            return Ok(Step::Moved(None));
        }
        self.connect_next(target)
    }

    /// Steps until nothing is left to do; gives the blocks refused on the way.
    pub fn activate_fully(&mut self) -> Result<Vec<(BlockHash, Rejection)>, LedgerError> {
        let mut refused = Vec::new();
        loop {
            match self.activate_best_chain()? {
                Step::Idle => return Ok(refused),
                Step::Moved(_) => {}
                Step::Refused(hash, rejection) => refused.push((hash, rejection)),
            }
        }
    }

    /// The end of the chain to go to, unless the table stands there.
    fn target(&mut self) -> Option<Id> {
        loop {
            let tree = self.tree.read();
            let candidate = tree.candidate();
            if candidate == self.tip {
                return None;
            }
            if self.whole_up_to == Some(candidate) {
                return Some(candidate);
            }
            // A stale branch can have been pruned: then it cannot be connected, and nothing must be taken back for it.
            let fork = tree.fork(self.tip, candidate);
            let mut walk = candidate;
            while walk != fork && Some(walk) != self.whole_up_to && tree.node(walk).block().is_some() {
                walk = tree.node(walk).parent().expect("a fork lies below");
            }
            let whole = walk == fork || Some(walk) == self.whole_up_to;
            drop(tree);
            if whole {
                self.whole_up_to = Some(candidate);
                return Some(candidate);
            }
            self.tree.write().drop_candidate(candidate);
        }
    }

    /// Collects finished scripts, oldest block first; with `all` it waits for each. Ends early with what it has to
    /// tell; nothing is left to wait for when it gives none.
    pub(super) fn settle(&mut self, all: bool) -> Result<Option<Step>, LedgerError> {
        while let Some(front) = self.in_flight.front() {
            if self.tree.read().node(front.id).is_invalid() {
                // The operator said so meanwhile: it must not be published.
                self.revert_in_flight();
                break;
            }
            let inputs: usize = self.in_flight.iter().map(|entry| entry.spent.len()).sum();
            let crowded = self.in_flight.len() >= MAX_IN_FLIGHT || inputs > MAX_IN_FLIGHT_INPUTS;
            if !all && !crowded && !front.scripts.is_ready() {
                break;
            }
            let front = self.in_flight.front_mut().expect("seen above");
            let (id, block) = (front.id, front.block.clone());
            let scripts = std::mem::replace(&mut front.scripts, ScriptRun::none());
            if let Err(rejection) = scripts.wait(&self.pool) {
                self.revert_in_flight();
                self.check_witness_again(id, &block)?;
                self.refuse(id, &rejection);
                return Ok(Some(Step::Refused(block.hash, rejection)));
            }
            if let Some(proven) = self.in_flight.pop_front() {
                self.index_proven(proven)?;
            }
            if let Some(change) = self.prove(id, block)? {
                return Ok(Some(Step::Moved(Some(change))));
            }
        }
        Ok(None)
    }

    /// Marks a block as proven and publishes it if the published tip is worse.
    fn prove(&mut self, id: Id, block: Arc<Block>) -> Result<Option<Change>, LedgerError> {
        let back = self.change.disconnected.last().is_some_and(|last| last.hash == block.hash);
        if back && self.change.connected.is_empty() {
            self.change.disconnected.pop();
        } else {
            self.change.connected.push(block);
        }
        let mut tree = self.tree.write();
        if !tree.node(id).is_proven() {
            tree.set_proven(id);
            self.unsaved.insert(id);
        }
        drop(tree);
        // With more in flight the coins are ahead of this block. Where blocks were taken back that must not be published: it
        // happens when the published tip is called invalid with blocks in flight that were no better than it before.
        let in_step = self.change.disconnected.is_empty() || id == self.tip;
        if in_step && self.is_better(id) { self.publish(id).map(Some) } else { Ok(None) }
    }

    /// Whether a proven block takes the place of the published tip.
    fn is_better(&self, id: Id) -> bool {
        let tree = self.tree.read();
        let published = tree.node(tree.tip());
        tree.node(id).work > published.work || published.is_invalid()
    }

    /// With nothing in flight and nowhere to go: the tip is published, whatever it is.
    fn publish_at_rest(&mut self) -> Result<Step, LedgerError> {
        if self.tree.read().tip() == self.tip {
            return Ok(Step::Idle);
        }
        Ok(Step::Moved(Some(self.publish(self.tip)?)))
    }

    /// Makes `tip` the published one, once who follows is in step with it.
    fn publish(&mut self, tip: Id) -> Result<Change, LedgerError> {
        let change = std::mem::take(&mut self.change);
        if let Some(mut follower) = self.follower.take() {
            let followed = follower.follow(&change, tip, self);
            self.follower = Some(follower);
            followed?;
        }
        self.tree.write().set_tip(tip);
        Ok(change)
    }
}
