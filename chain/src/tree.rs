//! The header tree: every header known, chain work, the active chain, the candidates for it, and invalid marks.
//! Judges nothing (`rules` does) and reads no disk: the ledger fills it from the store's records at a start.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;

use bitcoin::block::{Header, Version};
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode, Work};
use hashbrown::HashTable;

use crate::rules::branch::Branch;
use crate::rules::pow::block_work;
use crate::store::{FilePos, HeaderRecord};

mod candidates;
mod load;
#[cfg(test)]
mod tests;

pub use load::Loading;

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
    pub(crate) const INVALID: u8 = 2;
    /// An ancestor is invalid. Not stored: found again at a start.
    pub(crate) const INVALID_ANCESTOR: u8 = 4;

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

    /// Notes where the undo record lies; it is in the pair of files that holds the block.
    pub(crate) fn set_undo(&mut self, id: Id, pos: FilePos) {
        let node = self.node_mut(id);
        debug_assert_eq!(node.file, pos.file, "a block and its undo lie in one pair of files");
        node.undo_offset = pos.offset;
    }

    /// Notes that all rules and scripts of the block hold.
    pub fn set_proven(&mut self, id: Id) {
        self.node_mut(id).status.0 |= Status::PROVEN;
    }

    /// Forgets where blocks and undo of the pair `file` lay. Gives the headers that changed.
    pub(crate) fn forget_file(&mut self, file: u32) -> Vec<Id> {
        let mut changed = Vec::new();
        for (number, node) in self.nodes.iter_mut().enumerate().filter(|(_, node)| node.file == file) {
            (node.file, node.block_offset, node.undo_offset) = (NONE, NONE, NONE);
            changed.push(Id(number as u32));
        }
        changed
    }

    /// The greatest height among the blocks in each pair of files: `(file, height)`, by number of file.
    pub(crate) fn file_heights(&self) -> Vec<(u32, u32)> {
        let mut heights = std::collections::BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.file != NONE) {
            let height = heights.entry(node.file).or_insert(node.height);
            *height = node.height.max(*height);
        }
        heights.into_iter().collect()
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
