//! A played ledger: a real header tree under real header rules, blocks that are judged but for their coins, and a miner.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bitcoin::bip158::{FilterHash, FilterHeader};
use bitcoin::block::{Header, Version};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction, TxIn, TxMerkleNode, Txid, Wtxid};
use groat_chain::block::Block;
use groat_chain::index::filters;
use groat_chain::params::Params;
use groat_chain::rejection::Rejection;
use groat_chain::rules::header::{check_header, contextual_check_header};
use groat_chain::rules::pow::{check_proof_of_work, next_work_required};
use groat_chain::store::FilePos;
use groat_chain::tree::{Id, Tree};

use super::body;
use crate::GenTxid;
use crate::protocol::{Done, Input, TxVerdict, Verdict, Work};
use crate::timers::Micros;
use crate::view::{Entry, PoolEntry, View};

/// A block with its header.
#[derive(Clone, Debug)]
pub struct Mined {
    /// The header.
    pub header: Header,
    /// Its hash.
    pub hash: BlockHash,
    /// The serialization.
    pub bytes: Arc<Vec<u8>>,
}

/// Makes blocks that meet the header rules. Works on networks whose target is easy.
pub struct Miner {
    params: Arc<Params>,
    tree: Tree,
    made: u64,
    /// Bytes of a block's body, at least.
    pub body: usize,
}

impl Miner {
    /// A miner that knows genesis. Blocks of different `salt` differ.
    pub fn new(params: Arc<Params>, salt: u64) -> Miner {
        let tree = Tree::new(&params.genesis.header);
        Miner { params, tree, made: salt << 32, body: 200 }
    }

    /// Mines `count` blocks on top of `parent`, a spacing apart.
    pub fn mine(&mut self, parent: BlockHash, count: usize) -> Vec<Mined> {
        let mut parent = self.tree.get(&parent).expect("the miner made the parent, or it is genesis");
        let mut mined = Vec::with_capacity(count);
        for _ in 0..count {
            let block = self.block(parent, &[]);
            parent = self.tree.insert(&block.header, block.hash, parent);
            mined.push(block);
        }
        mined
    }

    /// Mines a block with these transactions on top of `parent`.
    pub fn mine_with(&mut self, parent: BlockHash, transactions: &[Transaction]) -> Mined {
        let parent = self.tree.get(&parent).expect("the miner made the parent, or it is genesis");
        let block = self.block(parent, transactions);
        self.tree.insert(&block.header, block.hash, parent);
        block
    }

    fn block(&mut self, parent: Id, transactions: &[Transaction]) -> Mined {
        self.made += 1;
        let time = self.tree.node(parent).time + self.params.spacing;
        let mut header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: self.tree.node(parent).hash,
            merkle_root: TxMerkleNode::all_zeros(),
            time,
            bits: next_work_required(&self.tree.branch(parent), time, &self.params),
            nonce: 0,
        };
        let height = self.tree.node(parent).height + 1;
        let length = Header::SIZE + 1 + self.body;
        let mut bytes = body::assemble(&mut header, height, self.made, transactions, length);
        while check_proof_of_work(header.block_hash(), header.bits, &self.params).is_err() {
            header.nonce += 1;
        }
        bytes[..Header::SIZE].copy_from_slice(&serialize(&header));
        Mined { header, hash: header.block_hash(), bytes: Arc::new(bytes) }
    }
}

/// The lowest fee rate that a pool takes at first, in satoshi per 1000 virtual bytes.
const POOL_FLOOR: u64 = 1000;

fn fee_rate(tx: &Transaction) -> u64 {
    u64::from(tx.lock_time.to_consensus_u32())
}

/// The chain of one node.
pub struct Chain {
    params: Arc<Params>,
    /// The view that the protocol reads.
    pub tree: Tree,
    bodies: BTreeMap<BlockHash, Arc<Vec<u8>>>,
    /// Blocks that break a rule when they are connected.
    pub invalid: BTreeSet<BlockHash>,
    /// The pool: takes whatever pays its floor, spends nothing or something known, and is not refused. The lock time
    /// of a transaction is its fee rate.
    pub pool: BTreeMap<Wtxid, Arc<Transaction>>,
    by_txid: BTreeMap<Txid, Wtxid>,
    /// Transactions that the pool does not take.
    pub refused: BTreeMap<Wtxid, Rejection>,
    /// The lowest fee rate that the pool takes.
    pub floor: u64,
    /// Transactions that the pool judged, packages' counted one by one.
    pub judged: usize,
}

impl Chain {
    /// Genesis alone.
    pub fn new(params: Arc<Params>) -> Chain {
        let mut tree = Tree::new(&params.genesis.header);
        tree.set_block(Id::GENESIS, FilePos { file: 0, offset: 0 }, 1, 285);
        Chain {
            params,
            tree,
            bodies: BTreeMap::new(),
            invalid: BTreeSet::new(),
            pool: BTreeMap::new(),
            by_txid: BTreeMap::new(),
            refused: BTreeMap::new(),
            floor: POOL_FLOOR,
            judged: 0,
        }
    }

    /// Height of the tip.
    pub fn height(&self) -> u32 {
        self.tree.node(self.tree.tip()).height
    }

    /// Hash of the tip.
    pub fn tip(&self) -> BlockHash {
        self.tree.node(self.tree.tip()).hash
    }

    /// Takes blocks as if they had been here always.
    pub fn load(&mut self, blocks: &[Mined]) {
        for block in blocks {
            self.header(&block.header, u32::MAX).expect("mined under the rules");
            self.store(block.hash, block.bytes.clone());
        }
        self.activate();
    }

    /// Does a piece of work at the time `now`: its answer, and what the protocol is to be told besides.
    pub fn perform(&mut self, work: Work, now: Micros) -> (Done, Vec<Input>) {
        let now = u32::try_from(now.seconds()).unwrap_or(u32::MAX);
        match work {
            Work::Headers(headers) => {
                (Done::Headers(headers.iter().try_for_each(|header| self.header(header, now).map(drop))), Vec::new())
            }
            Work::Transaction(tx) => {
                let rate = fee_rate(&tx);
                let (verdict, told) = self.pool_takes(&tx, rate);
                (Done::Transaction(verdict), told.into_iter().collect())
            }
            Work::Package(package) => {
                let rate = package.iter().map(|tx| fee_rate(tx)).sum::<u64>() / package.len().max(1) as u64;
                if rate < self.floor {
                    self.judged += package.len();
                    let refused = TxVerdict::Refused(Rejection::MinRelayFeeNotMet);
                    return (Done::Package(vec![refused; package.len()]), Vec::new());
                }
                let (verdicts, told): (_, Vec<_>) = package.iter().map(|tx| self.pool_takes(tx, rate)).unzip();
                (Done::Package(verdicts), told.into_iter().flatten().collect())
            }
            Work::ReadBlock(hash) => (Done::Read(self.bodies.get(&hash).cloned()), Vec::new()),
            Work::DecodeBlock(hash) => {
                let block = self.bodies.get(&hash).and_then(|bytes| Block::decode_prefix(bytes).ok());
                (Done::Decoded(block.map(Arc::new)), Vec::new())
            }
            // A filter that tells which block it is of is all that the protocol needs.
            Work::ReadFilters(blocks) => {
                let filters = blocks.iter().map(|hash| hash.to_byte_array().to_vec()).collect();
                (Done::Filters(Some(filters)), Vec::new())
            }
            Work::ReadFilterHeaders(blocks) => {
                let header = |hash: &BlockHash| {
                    let bytes = hash.to_byte_array();
                    filters::Header {
                        hash: FilterHash::from_byte_array(bytes),
                        header: FilterHeader::from_byte_array(bytes),
                    }
                };
                (Done::FilterHeaders(Some(blocks.iter().map(header).collect())), Vec::new())
            }
            Work::Block { hash, bytes, .. } => {
                let header = crate::blocks::header_of(&bytes);
                if let Err(rejection) = self.header(&header, now) {
                    return (Done::Block(Verdict::Rejected(rejection)), Vec::new());
                }
                let parent = self.tree.get(&header.prev_blockhash).expect("its header was accepted");
                let Ok(block) = Block::decode_prefix(&bytes) else {
                    return (Done::Block(Verdict::Undecodable), Vec::new());
                };
                if let Err(rejection) = body::judge(&block, parent, &self.tree, &self.params) {
                    return (Done::Block(Verdict::Rejected(rejection)), Vec::new());
                }
                if !self.store(hash, bytes) {
                    return (Done::Block(Verdict::Known), Vec::new());
                }
                let stored = (parent == self.tree.tip()).then(|| Input::BlockStored(Arc::new(block)));
                (Done::Block(Verdict::Stored), stored.into_iter().chain(self.activate()).collect())
            }
        }
    }

    /// Judges a transaction as if it paid this rate.
    fn pool_takes(&mut self, tx: &Arc<Transaction>, rate: u64) -> (TxVerdict, Option<Input>) {
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        let spends =
            |input: &TxIn| input.previous_output.is_null() || self.by_txid.contains_key(&input.previous_output.txid);
        self.judged += 1;
        let verdict = if self.by_txid.contains_key(&txid) {
            TxVerdict::Known
        } else if let Some(rejection) = self.refused.get(&wtxid) {
            TxVerdict::Refused(*rejection)
        } else if !tx.input.iter().all(spends) {
            TxVerdict::Missing
        } else if rate < self.floor {
            TxVerdict::Refused(Rejection::MinRelayFeeNotMet)
        } else {
            self.by_txid.insert(txid, wtxid);
            self.pool.insert(wtxid, tx.clone());
            return (TxVerdict::Accepted, Some(Input::TxAccepted { txid, wtxid }));
        };
        (verdict, None)
    }

    fn header(&mut self, header: &Header, now: u32) -> Result<Id, Rejection> {
        let hash = header.block_hash();
        if let Some(id) = self.tree.get(&hash) {
            return if self.tree.node(id).is_invalid() { Err(Rejection::DuplicateInvalid) } else { Ok(id) };
        }
        check_header(header, &self.params)?;
        let parent = self.tree.get(&header.prev_blockhash).ok_or(Rejection::PrevBlkNotFound)?;
        if self.tree.node(parent).is_invalid() {
            return Err(Rejection::BadPrevBlk);
        }
        contextual_check_header(header, &self.tree.branch(parent), &self.params, now)?;
        Ok(self.tree.insert(header, hash, parent))
    }

    fn store(&mut self, hash: BlockHash, bytes: Arc<Vec<u8>>) -> bool {
        let id = self.tree.get(&hash).expect("its header was accepted");
        if self.tree.node(id).block().is_some() {
            return false;
        }
        self.tree.set_block(id, FilePos { file: 0, offset: id.0 }, 1, bytes.len() as u32);
        self.bodies.insert(hash, bytes);
        true
    }

    fn activate(&mut self) -> Vec<Input> {
        let mut told = Vec::new();
        loop {
            let (tip, best) = (self.tree.tip(), self.tree.candidate());
            if tip == best {
                return told;
            }
            let fork = self.tree.node(self.tree.fork(tip, best)).height;
            let path: Vec<Id> =
                (fork + 1..=self.tree.node(best).height).map(|height| self.tree.ancestor(best, height)).collect();
            let bad = path.iter().copied().find(|id| self.invalid.contains(&self.tree.node(*id).hash));
            if let Some(bad) = bad {
                self.tree.invalidate(bad);
                told.push(Input::BlockRefused { hash: self.tree.node(bad).hash, rejection: Rejection::BadCbAmount });
                continue;
            }
            path.iter().for_each(|id| self.tree.set_proven(*id));
            self.tree.set_tip(best);
            told.push(Input::TipChanged(path.iter().map(|id| self.tree.node(*id).hash).collect()));
        }
    }
}

impl View for Chain {
    fn find(&self, hash: &BlockHash) -> Option<Id> {
        self.tree.find(hash)
    }

    fn entry(&self, id: Id) -> Entry {
        self.tree.entry(id)
    }

    fn header(&self, id: Id) -> Header {
        self.tree.header(id)
    }

    fn ancestor(&self, id: Id, height: u32) -> Id {
        self.tree.ancestor(id, height)
    }

    fn fork(&self, a: Id, b: Id) -> Id {
        self.tree.fork(a, b)
    }

    fn locator(&self, id: Id) -> Vec<BlockHash> {
        self.tree.locator(id)
    }

    fn tip(&self) -> Id {
        self.tree.tip()
    }

    fn active(&self, height: u32) -> Option<Id> {
        self.tree.active(height)
    }

    fn best_header(&self) -> Id {
        self.tree.best_header()
    }

    fn pool_entry(&self, id: &GenTxid) -> Option<PoolEntry> {
        let wtxid = match id {
            GenTxid::Wtxid(id) => id,
            GenTxid::Txid(id) => self.by_txid.get(id)?,
        };
        let tx = self.pool.get(wtxid)?.clone();
        let rate = fee_rate(&tx);
        Some(PoolEntry { tx, fee_rate: rate, chunk_rate: rate })
    }

    fn for_each_pool_tx(&self, visit: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>) {
        let _ = self.pool.iter().try_for_each(|(wtxid, tx)| visit(wtxid, tx));
    }

    fn pool_fee_floor(&self) -> u64 {
        self.floor
    }
}
