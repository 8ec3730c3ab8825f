//! A ledger for thousands of nodes: one header tree, one store of blocks and one table of transactions for the whole
//! world, and for each node a byte a header and a bit a transaction. Headers are judged by the real rules, once; a block
//! is valid unless the world says otherwise.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Transaction, Txid, Wtxid};
use groat_chain::block::Block;
use groat_chain::params::Params;
use groat_chain::rejection::Rejection;
use groat_chain::rules::header::{check_header, contextual_check_header};
use groat_chain::tree::{Id, Tree};

use super::backend::Backend;
use super::body;
use super::chain::Mined;
use crate::GenTxid;
use crate::protocol::{Done, Input, TxVerdict, Verdict, Work};
use crate::timers::Micros;
use crate::view::{Entry, PoolEntry, View};

/// What a node has of a header: the header itself.
const HEADER: u8 = 1;
/// The block.
const BLOCK: u8 = 2;
/// The block and all before it.
const COMPLETE: u8 = 4;
/// It was connected once.
const PROVEN: u8 = 8;
/// It, or one before it, broke a rule.
const REFUSED: u8 = 16;

/// What all nodes share. Each sees only what it has.
pub struct Commons {
    params: Arc<Params>,
    /// Every header that any node has.
    pub tree: Tree,
    /// Blocks that keep the rules that need no coins: decoded and judged once for all.
    blocks: BTreeMap<Id, (Arc<Vec<u8>>, Arc<Block>)>,
    /// Blocks that break a rule when they are connected.
    pub invalid: BTreeSet<BlockHash>,
    transactions: Vec<(Txid, Wtxid, Arc<Transaction>)>,
    by_wtxid: BTreeMap<Wtxid, usize>,
    by_txid: BTreeMap<Txid, usize>,
    /// Transactions that no pool takes.
    pub refused: BTreeMap<Wtxid, Rejection>,
}

impl Commons {
    /// Genesis alone.
    pub fn new(params: Arc<Params>) -> Rc<RefCell<Commons>> {
        let tree = Tree::new(&params.genesis.header);
        Rc::new(RefCell::new(Commons {
            params,
            tree,
            blocks: BTreeMap::new(),
            invalid: BTreeSet::new(),
            transactions: Vec::new(),
            by_wtxid: BTreeMap::new(),
            by_txid: BTreeMap::new(),
            refused: BTreeMap::new(),
        }))
    }

    fn header(&mut self, header: &Header, now: u32) -> Result<Id, Rejection> {
        let hash = header.block_hash();
        if let Some(id) = self.tree.get(&hash) {
            return Ok(id);
        }
        check_header(header, &self.params)?;
        let parent = self.tree.get(&header.prev_blockhash).ok_or(Rejection::PrevBlkNotFound)?;
        contextual_check_header(header, &self.tree.branch(parent), &self.params, now)?;
        Ok(self.tree.insert(header, hash, parent))
    }

    /// The block that these bytes are, judged as far as that needs no coins.
    fn block(&mut self, id: Id, bytes: Arc<Vec<u8>>) -> Result<Arc<Block>, Verdict> {
        if let Some((_, block)) = self.blocks.get(&id).filter(|known| known.0 == bytes) {
            return Ok(block.clone());
        }
        let block = Block::decode_prefix(&bytes).map_err(|_| Verdict::Undecodable)?;
        let parent = self.tree.node(id).parent().unwrap_or(Id::GENESIS);
        body::judge(&block, parent, &self.tree, &self.params).map_err(Verdict::Rejected)?;
        Ok(self.blocks.entry(id).or_insert((bytes, Arc::new(block))).1.clone())
    }

    fn transaction(&mut self, tx: Arc<Transaction>) -> (usize, Txid, Wtxid) {
        let wtxid = tx.compute_wtxid();
        if let Some(at) = self.by_wtxid.get(&wtxid) {
            return (*at, self.transactions[*at].0, wtxid);
        }
        let (at, txid) = (self.transactions.len(), tx.compute_txid());
        self.transactions.push((txid, wtxid, tx));
        self.by_wtxid.insert(wtxid, at);
        self.by_txid.insert(txid, at);
        (at, txid, wtxid)
    }
}

/// What one node has of it.
#[derive(Clone)]
pub struct Share {
    commons: Rc<RefCell<Commons>>,
    /// A byte a header, by id.
    has: Vec<u8>,
    tip: Id,
    best_header: Id,
    /// The complete chain with the most work that broke no rule.
    candidate: Id,
    /// Blocks that came before one of their ancestors.
    incomplete: usize,
    /// A bit a transaction, by place in the table.
    pool: Vec<u64>,
}

impl Share {
    /// A node that has genesis alone.
    pub fn new(commons: &Rc<RefCell<Commons>>) -> Share {
        Share {
            commons: commons.clone(),
            has: vec![HEADER | BLOCK | COMPLETE | PROVEN],
            tip: Id::GENESIS,
            best_header: Id::GENESIS,
            candidate: Id::GENESIS,
            incomplete: 0,
            pool: Vec::new(),
        }
    }

    /// Takes blocks as if they had been here always.
    pub fn load(&mut self, blocks: &[Mined]) {
        for block in blocks {
            let id = self.accept_header(&block.header, u32::MAX).expect("mined under the rules");
            self.block(id, block.bytes.clone()).expect("mined under the rules");
        }
    }

    /// Height of the tip.
    pub fn height(&self) -> u32 {
        self.commons.borrow().tree.node(self.tip).height
    }

    /// Hash of the tip.
    pub fn tip_hash(&self) -> BlockHash {
        self.commons.borrow().tree.node(self.tip).hash
    }

    /// Whether the tip is valid, and all before it.
    pub fn is_on_a_valid_chain(&self) -> bool {
        let commons = self.commons.borrow();
        !commons
            .invalid
            .iter()
            .filter_map(|hash| commons.tree.get(hash))
            .any(|id| commons.tree.is_ancestor(id, self.tip))
    }

    /// Headers that it has.
    pub fn headers(&self) -> usize {
        self.has.iter().filter(|flags| **flags & HEADER != 0).count()
    }

    /// Transactions in the pool.
    pub fn pool_size(&self) -> usize {
        self.pool.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn in_pool(&self, at: usize) -> bool {
        self.pool.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn flags(&self, id: Id) -> u8 {
        self.has.get(id.0 as usize).copied().unwrap_or(0)
    }

    fn mark(&mut self, id: Id, flags: u8) {
        let at = id.0 as usize;
        if self.has.len() <= at {
            self.has.resize(at + 1, 0);
        }
        self.has[at] |= flags;
    }

    fn accept_header(&mut self, header: &Header, now: u32) -> Result<Id, Rejection> {
        let commons = self.commons.clone();
        let mut commons = commons.borrow_mut();
        if let Some(id) = commons.tree.get(&header.block_hash()).filter(|id| self.flags(*id) & HEADER != 0) {
            return if self.flags(id) & REFUSED != 0 { Err(Rejection::DuplicateInvalid) } else { Ok(id) };
        }
        let parent = commons.tree.get(&header.prev_blockhash).filter(|id| self.flags(*id) & HEADER != 0);
        let parent = parent.ok_or(Rejection::PrevBlkNotFound)?;
        if self.flags(parent) & REFUSED != 0 {
            return Err(Rejection::BadPrevBlk);
        }
        let id = commons.header(header, now)?;
        self.mark(id, HEADER);
        if commons.tree.node(id).work > commons.tree.node(self.best_header).work {
            self.best_header = id;
        }
        Ok(id)
    }

    /// Takes a block whose header is here: what came of it, and what the protocol is to be told.
    fn block(&mut self, id: Id, bytes: Arc<Vec<u8>>) -> Result<Vec<Input>, Verdict> {
        let block = self.commons.borrow_mut().block(id, bytes)?;
        if !self.store(id) {
            return Err(Verdict::Known);
        }
        let parent = self.commons.borrow().tree.node(id).parent();
        let stored = (parent == Some(self.tip)).then_some(Input::BlockStored(block));
        Ok(stored.into_iter().chain(self.activate()).collect())
    }

    /// Whether the block is new.
    fn store(&mut self, id: Id) -> bool {
        if self.flags(id) & BLOCK != 0 {
            return false;
        }
        self.mark(id, BLOCK);
        let commons = self.commons.clone();
        let commons = commons.borrow();
        let complete =
            |share: &Share, id| commons.tree.node(id).parent().is_some_and(|p| share.flags(p) & COMPLETE != 0);
        if !complete(self, id) {
            self.incomplete += 1;
            return true;
        }
        self.mark(id, COMPLETE);
        self.consider(&commons.tree, id);
        // A parent has a smaller number than its children.
        for above in (id.0 + 1..self.has.len() as u32).map(Id) {
            if self.incomplete == 0 {
                break;
            }
            if self.flags(above) & (BLOCK | COMPLETE) == BLOCK && complete(self, above) {
                self.mark(above, COMPLETE);
                self.consider(&commons.tree, above);
                self.incomplete -= 1;
            }
        }
        true
    }

    /// Of chains of equal work the first stays.
    fn consider(&mut self, tree: &Tree, id: Id) {
        if self.flags(id) & REFUSED == 0 && tree.node(id).work > tree.node(self.candidate).work {
            self.candidate = id;
        }
    }

    /// Marks a block and what is built on it as breaking a rule.
    fn refuse(&mut self, tree: &Tree, bad: Id) {
        let all = || (0..self.has.len() as u32).map(Id);
        let built_on: Vec<Id> =
            all().filter(|id| self.flags(*id) & HEADER != 0 && tree.is_ancestor(bad, *id)).collect();
        built_on.into_iter().for_each(|id| self.mark(id, REFUSED));
        let all = || (0..self.has.len() as u32).rev().map(Id);
        let best = |flags: u8| {
            // The first of equals: the last that comes from behind.
            let sound = all().filter(|id| self.flags(*id) & (flags | REFUSED) == flags);
            sound.max_by_key(|id| tree.node(*id).work).expect("genesis is sound")
        };
        (self.best_header, self.candidate) = (best(HEADER), best(COMPLETE));
        if tree.node(self.candidate).work <= tree.node(self.tip).work {
            self.candidate = self.tip;
        }
    }

    /// Goes to the best chain.
    fn activate(&mut self) -> Vec<Input> {
        let commons = self.commons.clone();
        let commons = commons.borrow();
        let tree = &commons.tree;
        let mut told = Vec::new();
        while self.candidate != self.tip {
            let best = self.candidate;
            let fork = tree.node(tree.fork(self.tip, best)).height;
            let path: Vec<Id> = (fork + 1..=tree.node(best).height).map(|height| tree.ancestor(best, height)).collect();
            if let Some(bad) = path.iter().copied().find(|id| commons.invalid.contains(&tree.node(*id).hash)) {
                self.refuse(tree, bad);
                told.push(Input::BlockRefused { hash: tree.node(bad).hash, rejection: Rejection::BadCbAmount });
                continue;
            }
            self.tip = best;
            told.push(Input::TipChanged(path.iter().map(|id| tree.node(*id).hash).collect()));
            for id in path {
                self.mark(id, PROVEN);
                let Some((_, block)) = commons.blocks.get(&id) else { continue };
                // The coinbase is in no pool.
                for at in block.txids.iter().skip(1).filter_map(|txid| commons.by_txid.get(txid)) {
                    self.pool.get_mut(at / 64).into_iter().for_each(|word| *word &= !(1 << (at % 64)));
                }
                told.push(Input::BlockConnected(block.clone()));
            }
        }
        told
    }

    fn stored<'a>(&self, commons: &'a Commons, hash: &BlockHash) -> Option<&'a (Arc<Vec<u8>>, Arc<Block>)> {
        let id = commons.tree.get(hash).filter(|id| self.flags(*id) & BLOCK != 0)?;
        commons.blocks.get(&id)
    }

    /// Puts a transaction into the pool as if it had been there always: nobody is told.
    pub fn put_into_pool(&mut self, tx: &Arc<Transaction>) {
        self.take_transaction(tx.clone());
    }

    fn take_transaction(&mut self, tx: Arc<Transaction>) -> (TxVerdict, Option<Input>) {
        let (at, txid, wtxid) = self.commons.borrow_mut().transaction(tx);
        if self.in_pool(at) {
            return (TxVerdict::Known, None);
        }
        if let Some(rejection) = self.commons.borrow().refused.get(&wtxid) {
            return (TxVerdict::Refused(*rejection), None);
        }
        if self.pool.len() <= at / 64 {
            self.pool.resize(at / 64 + 1, 0);
        }
        self.pool[at / 64] |= 1 << (at % 64);
        (TxVerdict::Accepted, Some(Input::TxAccepted { txid, wtxid }))
    }
}

impl Backend for Share {
    fn perform(&mut self, work: Work, now: Micros) -> (Done, Vec<Input>) {
        let now = u32::try_from(now.seconds()).unwrap_or(u32::MAX);
        match work {
            Work::Headers(headers) => {
                let accepted = headers.iter().try_for_each(|header| self.accept_header(header, now).map(drop));
                (Done::Headers(accepted), Vec::new())
            }
            Work::Transaction(tx) => {
                let (verdict, told) = self.take_transaction(tx);
                (Done::Transaction(verdict), told.into_iter().collect())
            }
            Work::Package(package) => {
                let (verdicts, told): (_, Vec<_>) = package.into_iter().map(|tx| self.take_transaction(tx)).unzip();
                (Done::Package(verdicts), told.into_iter().flatten().collect())
            }
            // No index is kept here.
            Work::ReadFilters(_) => (Done::Filters(None), Vec::new()),
            Work::ReadFilterHeaders(_) => (Done::FilterHeaders(None), Vec::new()),
            Work::ReadBlock(hash) => {
                let commons = self.commons.borrow();
                (Done::Read(self.stored(&commons, &hash).map(|block| block.0.clone())), Vec::new())
            }
            Work::DecodeBlock(hash) => {
                let commons = self.commons.borrow();
                (Done::Decoded(self.stored(&commons, &hash).map(|block| block.1.clone())), Vec::new())
            }
            Work::Block { bytes, .. } => {
                let header = self.accept_header(&crate::blocks::header_of(&bytes), now).map_err(Verdict::Rejected);
                match header.and_then(|id| self.block(id, bytes)) {
                    Ok(told) => (Done::Block(Verdict::Stored), told),
                    Err(verdict) => (Done::Block(verdict), Vec::new()),
                }
            }
        }
    }
}

impl View for Share {
    fn find(&self, hash: &BlockHash) -> Option<Id> {
        self.commons.borrow().tree.get(hash).filter(|id| self.flags(*id) & HEADER != 0)
    }

    fn entry(&self, id: Id) -> Entry {
        let flags = self.flags(id);
        Entry {
            has_block: flags & BLOCK != 0,
            complete: flags & COMPLETE != 0,
            invalid: flags & REFUSED != 0,
            proven: flags & PROVEN != 0,
            ..self.commons.borrow().tree.entry(id)
        }
    }

    fn header(&self, id: Id) -> Header {
        self.commons.borrow().tree.header(id)
    }

    fn ancestor(&self, id: Id, height: u32) -> Id {
        self.commons.borrow().tree.ancestor(id, height)
    }

    fn fork(&self, a: Id, b: Id) -> Id {
        self.commons.borrow().tree.fork(a, b)
    }

    fn locator(&self, id: Id) -> Vec<BlockHash> {
        self.commons.borrow().tree.locator(id)
    }

    fn tip(&self) -> Id {
        self.tip
    }

    fn active(&self, height: u32) -> Option<Id> {
        let commons = self.commons.borrow();
        (height <= commons.tree.node(self.tip).height).then(|| commons.tree.ancestor(self.tip, height))
    }

    fn best_header(&self) -> Id {
        self.best_header
    }

    fn pool_entry(&self, id: &GenTxid) -> Option<PoolEntry> {
        let commons = self.commons.borrow();
        let at = match id {
            GenTxid::Wtxid(id) => *commons.by_wtxid.get(id)?,
            GenTxid::Txid(id) => *commons.by_txid.get(id)?,
        };
        let tx = self.in_pool(at).then(|| commons.transactions[at].2.clone())?;
        let rate = u64::from(tx.lock_time.to_consensus_u32());
        Some(PoolEntry { tx, fee_rate: rate, chunk_rate: rate })
    }

    fn for_each_pool_tx(&self, visit: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>) {
        let commons = self.commons.borrow();
        let here = commons.transactions.iter().enumerate().filter(|(at, _)| self.in_pool(*at));
        let _ = here.map(|(_, one)| one).try_for_each(|(_, wtxid, tx)| visit(wtxid, tx));
    }

    fn pool_fee_floor(&self) -> u64 {
        1000
    }
}
