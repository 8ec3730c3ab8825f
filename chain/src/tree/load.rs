//! A tree out of the store's records.

use super::{Id, NONE, Tree};
use crate::store::HeaderRecord;

/// Rebuilds a tree from the store's records, given in order of number.
#[derive(Default)]
pub struct Loading {
    tree: Option<Tree>,
}

impl Loading {
    /// Adds the next record; false when it does not fit on the ones before it. A block counts as complete when its
    /// transactions are counted, even after its bytes were pruned.
    #[must_use]
    pub fn push(&mut self, number: u32, record: &HeaderRecord) -> bool {
        let Some(tree) = &mut self.tree else {
            self.tree = Some(Tree::new(&record.header));
            self.fill(Id::GENESIS, record);
            return number == 0;
        };
        // Nearly always the parent is the record before.
        let last = Id(tree.nodes.len() as u32 - 1);
        let parent = Some(last)
            .filter(|last| tree.node(*last).hash == record.header.prev_blockhash)
            .or_else(|| tree.get(&record.header.prev_blockhash));
        let Some(parent) = parent.filter(|_| number == last.0 + 1) else { return false };
        let id = tree.insert(&record.header, record.header.block_hash(), parent);
        self.fill(id, record);
        true
    }

    fn fill(&mut self, id: Id, record: &HeaderRecord) {
        let tree = self.tree.as_mut().expect("made by the first record");
        let node = tree.node_mut(id);
        node.status.0 |= record.status;
        (node.tx_count, node.size) = (record.tx_count, record.size);
        node.file = record.block.or(record.undo).map_or(NONE, |pos| pos.file);
        node.block_offset = record.block.map_or(NONE, |pos| pos.offset);
        node.undo_offset = record.undo.map_or(NONE, |pos| pos.offset);
        let parent = node.parent();
        let before = parent.map_or(0, |parent| tree.node(parent).chain_tx);
        match parent {
            _ if record.tx_count == 0 => {}
            Some(parent) if before == 0 => tree.waiting.entry(parent).or_default().push(id),
            _ => tree.node_mut(id).chain_tx = before + u64::from(record.tx_count),
        }
    }

    /// The tree, if there was any record. [`Tree::finish_load`] must follow.
    pub fn finish(self) -> Option<Tree> {
        self.tree
    }
}

impl Tree {
    /// Ends a load: publishes `tip` and finds the candidates. Blocks of the tip's chain were first, all others
    /// came at once (as Core has it after a restart).
    pub fn finish_load(&mut self, tip: Id) {
        self.set_tip(tip);
        for number in 0..self.nodes.len() as u32 {
            let active = self.is_active(Id(number));
            self.node_mut(Id(number)).sequence = i32::from(!active);
        }
        self.next_sequence = 2;
        self.refresh_marks();
    }
}
