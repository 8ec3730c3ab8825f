//! Which chains may become the active one: blocks that are all there, invalid marks, preferences, and what the tip leaves of
//! them.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::{Id, Status, Tree};
use crate::store::FilePos;

impl Tree {
    /// Publishes the chain that ends in `id`.
    pub fn set_tip(&mut self, id: Id) {
        let fork = self.node(self.fork(self.tip(), id)).height;
        let height = self.node(id).height;
        self.active.truncate(fork as usize + 1);
        let mut above: Vec<Id> = Vec::with_capacity((height - fork) as usize);
        let mut walk = id;
        while self.node(walk).height > fork {
            above.push(walk);
            walk = self.node(walk).parent;
        }
        self.active.extend(above.into_iter().rev());
        self.forget_worse_candidates();
    }

    fn forget_worse_candidates(&mut self) {
        let work = self.node(self.tip()).work;
        while self.candidates.first().is_some_and(|worst| worst.0 < work) {
            self.candidates.pop_first();
        }
    }

    /// The end of the best complete chain: most work, then first complete.
    pub fn candidate(&self) -> Id {
        self.candidates.last().map_or(self.tip(), |best| best.2)
    }

    /// Notes that the block's bytes are kept at `pos`. Completes the chains that waited for it.
    pub fn set_block(&mut self, id: Id, pos: FilePos, tx_count: u32, size: u32) {
        let node = self.node_mut(id);
        (node.file, node.block_offset) = (pos.file, pos.offset);
        (node.tx_count, node.size) = (tx_count, size);
        if node.chain_tx > 0 {
            // It was pruned and came again: chains through it may be connected once more.
            return self.refresh_marks();
        }
        let parent = node.parent();
        match parent {
            Some(parent) if self.node(parent).chain_tx == 0 => self.waiting.entry(parent).or_default().push(id),
            _ => self.complete(id),
        }
    }

    fn complete(&mut self, id: Id) {
        // Those that waited follow in the order in which they came: the first seen wins.
        let mut queue = VecDeque::from([id]);
        while let Some(id) = queue.pop_front() {
            let before = self.node(id).parent().map_or(0, |parent| self.node(parent).chain_tx);
            let sequence = self.next_sequence;
            self.next_sequence = sequence.checked_add(1).expect("fewer than 2^31 blocks become complete");
            let node = self.node_mut(id);
            node.chain_tx = before + u64::from(node.tx_count);
            node.sequence = sequence;
            self.consider(id);
            queue.extend(self.waiting.remove(&id).unwrap_or_default());
        }
    }

    /// Makes a complete chain a candidate if it deserves to be one.
    fn consider(&mut self, id: Id) {
        let node = self.node(id);
        if node.chain_tx > 0 && !node.is_invalid() && node.work >= self.node(self.tip()).work {
            self.candidates.insert((node.work, Reverse(node.sequence), id));
        }
    }

    /// Puts a block before all others of its work, also before those that were preferred earlier, until the next start.
    /// One with less work than the tip stays where it is. Core: `PreciousBlock`.
    pub fn prefer(&mut self, id: Id) {
        let tip = self.node(self.tip()).work;
        if self.node(id).work < tip {
            return;
        }
        // With more work on the chain, those that were preferred before are out of the race.
        if self.preferred_at.is_none_or(|before| tip > before) {
            self.next_preferred = -1;
        }
        self.preferred_at = Some(tip);
        self.drop_candidate(id);
        let sequence = self.next_preferred;
        self.next_preferred = sequence.saturating_sub(1);
        self.node_mut(id).sequence = sequence;
        self.consider(id);
    }

    /// Marks a block as breaking a rule: it and its descendants are no candidates any more.
    pub fn invalidate(&mut self, id: Id) {
        self.node_mut(id).status.0 |= Status::INVALID;
        self.refresh_marks();
    }

    /// Takes the invalid marks off a block, its ancestors and its descendants. Gives the headers whose own mark changed: what
    /// branches off on the way down to the block stays invalid. Core: `ResetBlockFailureFlags`.
    pub fn reconsider(&mut self, id: Id) -> Vec<Id> {
        let invalid = (0..self.nodes.len() as u32).map(Id).filter(|other| self.node(*other).is_invalid());
        let changes = |other: &Id| {
            let node = self.node(*other);
            let related = self.is_ancestor(*other, id) || self.is_ancestor(id, *other);
            let branches_off = !related && node.parent().is_some_and(|parent| self.is_ancestor(parent, id));
            if node.status.has(Status::INVALID) { related } else { branches_off }
        };
        let changed: Vec<Id> = invalid.filter(changes).collect();
        for other in &changed {
            self.node_mut(*other).status.0 ^= Status::INVALID;
        }
        self.refresh_marks();
        changed
    }

    /// Derives what follows from the blocks' own marks: inherited marks, candidates, the best header.
    pub(super) fn refresh_marks(&mut self) {
        self.candidates.clear();
        (self.best_header, self.best_invalid) = (Id::GENESIS, None);
        for number in 0..self.nodes.len() as u32 {
            let id = Id(number);
            let inherited = self.node(id).parent().is_some_and(|parent| self.node(parent).is_invalid());
            let status = &mut self.node_mut(id).status.0;
            *status = if inherited { *status | Status::INVALID_ANCESTOR } else { *status & !Status::INVALID_ANCESTOR };
            let node = self.node(id);
            let best = if node.is_invalid() { self.best_invalid } else { Some(self.best_header) };
            if best.is_some_and(|best| node.work <= self.node(best).work) {
                continue;
            }
            if !node.is_invalid() {
                self.best_header = id;
            } else if node.chain_tx > 0 || node.status.has(Status::INVALID) {
                self.best_invalid = Some(id);
            }
        }
        // The tip may be invalid now: what counts is the work of the best block of it that still stands.
        let floor = self.active.iter().rev().find(|id| !self.node(**id).is_invalid()).copied();
        let floor = self.node(floor.unwrap_or(Id::GENESIS)).work;
        for id in (0..self.nodes.len() as u32).map(Id) {
            let node = self.node(id);
            if node.chain_tx > 0 && !node.is_invalid() && node.work >= floor {
                self.candidates.insert((node.work, Reverse(node.sequence), id));
            }
        }
    }

    /// Takes a chain off the candidates: a block of it was pruned, so it cannot be connected.
    pub fn drop_candidate(&mut self, id: Id) {
        let node = self.node(id);
        self.candidates.remove(&(node.work, Reverse(node.sequence), id));
    }
}
