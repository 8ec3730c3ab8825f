//! The header tree: every header known, chain work, the active chain, the candidates for it, and invalid marks.
//! Judges nothing (`rules` does) and reads no disk: the ledger fills it from the store's records at a start.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;

use bitcoin::block::{Header, Version};
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode, Work};
use hashbrown::HashTable;

use crate::rules::branch::Branch;
use crate::rules::pow::block_work;
use crate::store::{FilePos, HeaderRecord};

#[cfg(test)]
mod tests;

/// Number of a header in the tree; a parent's is smaller than its children's. Genesis is [`Id::GENESIS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u32);

impl Id {
    /// The first header of the network.
    pub const GENESIS: Id = Id(0);
}

/// State of a header, as bits that the store keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// The block was connected once with all its scripts: it need not be judged again to be called valid.
    pub const PROVEN: u8 = 1;
    /// The block itself broke a rule, or the operator said so.
    pub const INVALID: u8 = 2;
    /// An ancestor is invalid. Not stored: found again at a start.
    pub const INVALID_ANCESTOR: u8 = 4;

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// One header with all that is known of its block.
#[derive(Clone, Debug)]
pub struct Node {
    /// Hash of the header.
    pub hash: BlockHash,
    merkle_root: TxMerkleNode,
    /// Work of the chain from genesis up to and with this header.
    pub work: Work,
    version: i32,
    /// The header's time, in seconds since 1970.
    pub time: u32,
    /// The header's compact target.
    pub bits: CompactTarget,
    nonce: u32,
    parent: Id,
    skip: Id,
    /// Distance from genesis.
    pub height: u32,
    /// Number of transactions; 0 while the block is unknown.
    pub tx_count: u32,
    /// Length of the block in bytes; 0 while unknown.
    pub size: u32,
    file: u32,
    block_offset: u32,
    undo_offset: u32,
    /// Transactions of the chain up to and with this block; 0 while any of its blocks is unknown.
    pub chain_tx: u64,
    /// Order in which blocks became complete; of two equal works the smaller wins. Below zero: see [`Tree::prefer`].
    sequence: i32,
    status: Status,
}

/// No such file or offset.
const NONE: u32 = u32::MAX;

impl Node {
    /// Where the block lies, while its bytes are kept.
    pub fn block(&self) -> Option<FilePos> {
        (self.block_offset != NONE).then_some(FilePos { file: self.file, offset: self.block_offset })
    }

    /// Where the undo record lies, while it is kept.
    pub fn undo(&self) -> Option<FilePos> {
        (self.undo_offset != NONE).then_some(FilePos { file: self.file, offset: self.undo_offset })
    }

    /// Whether the block or an ancestor of it is known to be invalid.
    pub fn is_invalid(&self) -> bool {
        self.status.has(Status::INVALID | Status::INVALID_ANCESTOR)
    }

    /// Whether the block was once connected with all its scripts.
    pub fn is_proven(&self) -> bool {
        self.status.has(Status::PROVEN)
    }

    /// The parent, but for genesis.
    pub fn parent(&self) -> Option<Id> {
        (self.height > 0).then_some(self.parent)
    }
}

/// All headers, in an arena. Grows only; headers are never removed.
pub struct Tree {
    nodes: Vec<Node>,
    by_hash: HashTable<Id>,
    hasher: std::hash::RandomState,
    /// The published chain: `active[height]`.
    active: Vec<Id>,
    best_header: Id,
    best_invalid: Option<Id>,
    /// Complete chains that are not invalid and not behind the tip, best last.
    candidates: BTreeSet<(Work, std::cmp::Reverse<i32>, Id)>,
    /// Blocks that came before an ancestor of theirs: parent -> children.
    waiting: HashMap<Id, Vec<Id>>,
    next_sequence: i32,
    /// What the next preferred block gets as its sequence.
    next_preferred: i32,
    /// Work of the tip when a block was last preferred; none if none was.
    preferred_at: Option<Work>,
}

impl Tree {
    /// A tree that holds genesis alone, which is also the active chain.
    pub fn new(genesis: &Header) -> Tree {
        let mut tree = Tree {
            nodes: Vec::new(),
            by_hash: HashTable::new(),
            hasher: std::hash::RandomState::new(),
            active: vec![Id::GENESIS],
            best_header: Id::GENESIS,
            best_invalid: None,
            candidates: BTreeSet::new(),
            waiting: HashMap::new(),
            next_sequence: 1,
            next_preferred: -1,
            preferred_at: None,
        };
        tree.push(genesis, genesis.block_hash(), None);
        tree
    }

    fn push(&mut self, header: &Header, hash: BlockHash, parent: Option<Id>) -> Id {
        let id = Id(u32::try_from(self.nodes.len()).expect("the tree holds fewer than 2^32 headers"));
        let (height, skip, work, status) = match parent {
            None => (0, id, block_work(header.bits), Status::default()),
            Some(parent) => {
                let above = self.node(parent);
                let height = above.height + 1;
                // Most headers repeat their parent's target; the division is then saved.
                let own = match above.parent() {
                    Some(before) if above.bits == header.bits => above.work - self.node(before).work,
                    _ => block_work(header.bits),
                };
                let status = Status(if above.is_invalid() { Status::INVALID_ANCESTOR } else { 0 });
                (height, self.ancestor(parent, skip_height(height)), above.work + own, status)
            }
        };
        self.nodes.push(Node {
            hash,
            merkle_root: header.merkle_root,
            work,
            version: header.version.to_consensus(),
            time: header.time,
            bits: header.bits,
            nonce: header.nonce,
            parent: parent.unwrap_or(id),
            skip,
            height,
            tx_count: 0,
            size: 0,
            file: NONE,
            block_offset: NONE,
            undo_offset: NONE,
            chain_tx: 0,
            sequence: 0,
            status,
        });
        let key = self.hasher.hash_one(hash);
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.by_hash.insert_unique(key, id, |id| hasher.hash_one(nodes[id.0 as usize].hash));
        id
    }

    /// Adds a header whose parent is `parent` and which is not in the tree yet.
    pub fn insert(&mut self, header: &Header, hash: BlockHash, parent: Id) -> Id {
        let id = self.push(header, hash, Some(parent));
        let node = self.node(id);
        if !node.is_invalid() && node.work > self.node(self.best_header).work {
            self.best_header = id;
        }
        id
    }

    /// Number of headers.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: genesis is always there.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The header with this hash.
    pub fn get(&self, hash: &BlockHash) -> Option<Id> {
        self.by_hash.find(self.hasher.hash_one(hash), |id| self.node(*id).hash == *hash).copied()
    }

    /// What is known of a header.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// The 80 bytes of the header again.
    pub fn header(&self, id: Id) -> Header {
        let node = self.node(id);
        Header {
            version: Version::from_consensus(node.version),
            prev_blockhash: node.parent().map_or(bitcoin::hashes::Hash::all_zeros(), |id| self.node(id).hash),
            merkle_root: node.merkle_root,
            time: node.time,
            bits: node.bits,
            nonce: node.nonce,
        }
    }

    /// The ancestor of `id` at `height`, which is not above it.
    pub fn ancestor(&self, id: Id, height: u32) -> Id {
        let mut walk = id;
        let mut at = self.node(walk).height;
        debug_assert!(height <= at, "an ancestor is not above its descendant");
        while at > height {
            let node = self.node(walk);
            let (skip, before) = (skip_height(at), skip_height(at - 1));
            // The skip is worth it unless the parent's skip would come closer to the goal.
            let useful = skip == height || (skip > height && !(before + 2 < skip && before >= height));
            (walk, at) = if useful { (node.skip, skip) } else { (node.parent, at - 1) };
        }
        walk
    }

    /// The last block that both chains share.
    pub fn fork(&self, a: Id, b: Id) -> Id {
        let height = self.node(a).height.min(self.node(b).height);
        let (mut a, mut b) = (self.ancestor(a, height), self.ancestor(b, height));
        while a != b {
            let (left, right) = (self.node(a), self.node(b));
            // Equal heights have their skips at equal heights.
            (a, b) = if left.skip != right.skip { (left.skip, right.skip) } else { (left.parent, right.parent) };
        }
        a
    }

    /// Whether `id` lies on the chain that ends in `tip`.
    pub fn is_ancestor(&self, id: Id, tip: Id) -> bool {
        let height = self.node(id).height;
        height <= self.node(tip).height && self.ancestor(tip, height) == id
    }

    /// Hashes from `id` down to genesis, dense at first, then ever sparser: what `getheaders` asks with.
    pub fn locator(&self, id: Id) -> Vec<BlockHash> {
        let mut hashes = Vec::with_capacity(32);
        let (mut walk, mut step) = (id, 1u32);
        loop {
            let node = self.node(walk);
            hashes.push(node.hash);
            if node.height == 0 {
                return hashes;
            }
            walk = self.ancestor(walk, node.height.saturating_sub(step));
            if hashes.len() > 10 {
                step = step.saturating_mul(2);
            }
        }
    }

    /// The branch that ends in `id`, as the rules see it.
    pub fn branch(&self, id: Id) -> TreeBranch<'_> {
        TreeBranch { tree: self, tip: id, last: Cell::new(id) }
    }

    /// The header with the most work that is not known to be invalid.
    pub fn best_header(&self) -> Id {
        self.best_header
    }

    /// Of the blocks that broke a rule and the complete chains on top of them the one with the most work.
    /// Core: `m_best_invalid`.
    pub fn best_invalid(&self) -> Option<Id> {
        self.best_invalid
    }

    /// Tip of the published chain.
    pub fn tip(&self) -> Id {
        *self.active.last().expect("the active chain begins with genesis")
    }

    /// The published chain's block at `height`.
    pub fn active(&self, height: u32) -> Option<Id> {
        self.active.get(height as usize).copied()
    }

    /// Whether the block is part of the published chain.
    pub fn is_active(&self, id: Id) -> bool {
        self.active(self.node(id).height) == Some(id)
    }

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
            self.candidates.insert((node.work, std::cmp::Reverse(node.sequence), id));
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

    /// Notes where the undo record lies; it is in the pair of files that holds the block.
    pub fn set_undo(&mut self, id: Id, pos: FilePos) {
        let node = self.node_mut(id);
        debug_assert_eq!(node.file, pos.file, "a block and its undo lie in one pair of files");
        node.undo_offset = pos.offset;
    }

    /// Notes that all rules and scripts of the block hold.
    pub fn set_proven(&mut self, id: Id) {
        self.node_mut(id).status.0 |= Status::PROVEN;
    }

    /// Forgets where blocks and undo of the pair `file` lay. Gives the headers that changed.
    pub fn forget_file(&mut self, file: u32) -> Vec<Id> {
        let mut changed = Vec::new();
        for (number, node) in self.nodes.iter_mut().enumerate().filter(|(_, node)| node.file == file) {
            (node.file, node.block_offset, node.undo_offset) = (NONE, NONE, NONE);
            changed.push(Id(number as u32));
        }
        changed
    }

    /// The greatest height among the blocks in each pair of files: `(file, height)`, by number of file.
    pub fn file_heights(&self) -> Vec<(u32, u32)> {
        let mut heights = std::collections::BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.file != NONE) {
            let height = heights.entry(node.file).or_insert(node.height);
            *height = node.height.max(*height);
        }
        heights.into_iter().collect()
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
    fn refresh_marks(&mut self) {
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
                self.candidates.insert((node.work, std::cmp::Reverse(node.sequence), id));
            }
        }
    }

    /// Takes a chain off the candidates: a block of it was pruned, so it cannot be connected.
    pub fn drop_candidate(&mut self, id: Id) {
        let node = self.node(id);
        self.candidates.remove(&(node.work, std::cmp::Reverse(node.sequence), id));
    }

    /// The record that the store keeps of a header.
    pub fn record(&self, id: Id) -> HeaderRecord {
        let node = self.node(id);
        HeaderRecord {
            header: self.header(id),
            status: node.status.0 & !Status::INVALID_ANCESTOR,
            tx_count: node.tx_count,
            size: node.size,
            block: node.block(),
            undo: node.undo(),
        }
    }

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

/// A branch of the tree that ends in a header.
#[derive(Clone)]
pub struct TreeBranch<'a> {
    tree: &'a Tree,
    tip: Id,
    /// The header asked for last: rules walk down (eleven times, or two thousand of them), a step at a time.
    last: Cell<Id>,
}

impl TreeBranch<'_> {
    fn at(&self, height: u32) -> &Node {
        let last = self.last.get();
        let from = if height <= self.tree.node(last).height { last } else { self.tip };
        let id = self.tree.ancestor(from, height);
        self.last.set(id);
        self.tree.node(id)
    }
}

impl Branch for TreeBranch<'_> {
    fn height(&self) -> u32 {
        self.tree.node(self.tip).height
    }
    fn time(&self, height: u32) -> u32 {
        self.at(height).time
    }
    fn bits(&self, height: u32) -> CompactTarget {
        self.at(height).bits
    }
    fn version(&self, height: u32) -> i32 {
        self.at(height).version
    }
}

/// The height that a header at `height` skips to: about log steps lead to any ancestor.
fn skip_height(height: u32) -> u32 {
    let drop_lowest_bit = |n: u32| n & n.wrapping_sub(1);
    match height {
        0 | 1 => 0,
        _ if height & 1 == 1 => drop_lowest_bit(drop_lowest_bit(height - 1)) + 1,
        _ => drop_lowest_bit(height),
    }
}
