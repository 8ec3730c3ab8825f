//! The real ledger on memory, for a few nodes: real rules, real coins, real reorganisations. And a miner of blocks that
//! hold nothing but their coinbase.

use std::sync::Arc;

use bitcoin::block::{Header, Version};
use bitcoin::consensus::serialize;
use bitcoin::script::Builder;
use bitcoin::{
    Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, absolute,
    transaction,
};
use groat_chain::ledger::{Accepted, Incoming, Ledger, Options, Step};
use groat_chain::params::Params;
use groat_chain::pool::Pool;
use groat_chain::rejection::Rejection;
use groat_chain::rules::connect::subsidy;
use groat_chain::rules::pow::{check_proof_of_work, next_work_required};
use groat_chain::store::Store;
use groat_chain::store::mem::MemStore;
use groat_chain::tree::{Id, Tree};

use super::backend::Backend;
use super::chain::Mined;
use crate::protocol::{Done, Input, TxVerdict, Verdict, Work};
use crate::timers::Micros;
use crate::view::{Entry, View};

/// The answer to every transaction: there is no pool.
const NO_POOL: TxVerdict = TxVerdict::Refused(Rejection::MinRelayFeeNotMet);

/// A ledger of one's own. It has no pool of transactions yet.
pub struct Real {
    ledger: Ledger,
    store: Arc<dyn Store>,
    params: Arc<Params>,
}

impl Real {
    /// Genesis alone.
    pub fn new(params: &Arc<Params>) -> Real {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let options = Options { assumed_valid: None, table_bytes: 4 << 20, prune: None };
        let pool = Arc::new(Pool::new(0));
        let ledger = Ledger::open(params.clone(), store.clone(), pool, options).expect("memory does not fail");
        Real { ledger, store, params: params.clone() }
    }

    /// Takes blocks as if they had been here always.
    pub fn load(&mut self, blocks: &[Mined]) {
        for block in blocks {
            let incoming = Incoming::decode(block.bytes.to_vec(), &self.params).expect("it was encoded");
            let accepted = self.ledger.accept_block(incoming, None, u32::MAX).expect("memory does not fail");
            accepted.expect("mined under the rules");
        }
        self.ledger.activate_fully().expect("memory does not fail");
    }

    /// Hash of the tip.
    pub fn tip_hash(&self) -> BlockHash {
        self.ledger.tip()
    }

    /// A block on top of the tip. Blocks of different `salt` differ.
    pub fn mine(&self, salt: u64) -> Mined {
        let tree = self.ledger.tree();
        let tree = tree.read();
        let parent = tree.node(tree.tip());
        let (height, time) = (parent.height + 1, parent.time + self.params.spacing);
        let coinbase = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: Builder::new().push_int(height.into()).push_slice(salt.to_le_bytes()).into_script(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value: subsidy(height, &self.params), script_pubkey: ScriptBuf::new() }],
        };
        let mut header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: parent.hash,
            merkle_root: TxMerkleNode::from_raw_hash(coinbase.compute_txid().to_raw_hash()),
            time,
            bits: next_work_required(&tree.branch(tree.tip()), time, &self.params),
            nonce: 0,
        };
        while check_proof_of_work(header.block_hash(), header.bits, &self.params).is_err() {
            header.nonce += 1;
        }
        let block = Block { header, txdata: vec![coinbase] };
        Mined { header, hash: header.block_hash(), bytes: Arc::new(serialize(&block)) }
    }

    fn see<T>(&self, read: impl FnOnce(&Tree) -> T) -> T {
        read(&self.ledger.tree().read())
    }

    fn block(&mut self, bytes: Vec<u8>, now: u32) -> (Done, Vec<Input>) {
        let Ok(incoming) = Incoming::decode_prefix(bytes, &self.params) else {
            return (Done::Block(Verdict::Undecodable), Vec::new());
        };
        match self.ledger.accept_block(incoming, None, now).expect("memory does not fail") {
            Ok(Accepted::New(_)) => (Done::Block(Verdict::Stored), self.activate()),
            Ok(Accepted::Known(_)) => (Done::Block(Verdict::Known), Vec::new()),
            Err(rejection) => (Done::Block(Verdict::Rejected(rejection)), Vec::new()),
        }
    }

    fn activate(&mut self) -> Vec<Input> {
        let mut told = Vec::new();
        loop {
            match self.ledger.activate_best_chain().expect("memory does not fail") {
                Step::Idle => return told,
                Step::Moved(None) => {}
                Step::Moved(Some(change)) => {
                    told.push(Input::TipChanged(change.connected.iter().map(|block| block.hash).collect()));
                    told.extend(change.connected.into_iter().map(Input::BlockConnected));
                }
                Step::Refused(hash, rejection) => told.push(Input::BlockRefused { hash, rejection }),
            }
        }
    }
}

impl Backend for Real {
    fn perform(&mut self, work: Work, now: Micros) -> (Done, Vec<Input>) {
        let now = u32::try_from(now.seconds()).unwrap_or(u32::MAX);
        match work {
            Work::Headers(headers) => {
                let accepted = headers.iter().try_for_each(|header| self.ledger.accept_header(header, now).map(drop));
                (Done::Headers(accepted), Vec::new())
            }
            Work::Block { bytes, .. } => self.block(Arc::unwrap_or_clone(bytes), now),
            // No index is kept here.
            Work::ReadFilters(_) => (Done::Filters(None), Vec::new()),
            Work::ReadFilterHeaders(_) => (Done::FilterHeaders(None), Vec::new()),
            Work::ReadBlock(hash) => {
                let at = self.see(|tree| tree.get(&hash).and_then(|id| tree.node(id).block()));
                (Done::Read(at.map(|at| Arc::new(self.store.read_block(at).expect("it was stored")))), Vec::new())
            }
            Work::DecodeBlock(hash) => {
                let at = self.see(|tree| tree.get(&hash).and_then(|id| tree.node(id).block()));
                let bytes = at.map(|at| self.store.read_block(at).expect("it was stored"));
                let decoded =
                    bytes.map(|bytes| Arc::new(groat_chain::block::Block::decode(&bytes).expect("it was judged")));
                (Done::Decoded(decoded), Vec::new())
            }
            Work::Transaction(_) => (Done::Transaction(NO_POOL), Vec::new()),
            Work::Package(package) => (Done::Package(vec![NO_POOL; package.len()]), Vec::new()),
        }
    }
}

impl View for Real {
    fn find(&self, hash: &BlockHash) -> Option<Id> {
        self.see(|tree| tree.find(hash))
    }

    fn entry(&self, id: Id) -> Entry {
        self.see(|tree| tree.entry(id))
    }

    fn header(&self, id: Id) -> Header {
        self.see(|tree| tree.header(id))
    }

    fn ancestor(&self, id: Id, height: u32) -> Id {
        self.see(|tree| tree.ancestor(id, height))
    }

    fn fork(&self, a: Id, b: Id) -> Id {
        self.see(|tree| tree.fork(a, b))
    }

    fn locator(&self, id: Id) -> Vec<BlockHash> {
        self.see(|tree| tree.locator(id))
    }

    fn tip(&self) -> Id {
        self.see(Tree::tip)
    }

    fn active(&self, height: u32) -> Option<Id> {
        self.see(|tree| tree.active(height))
    }

    fn best_header(&self) -> Id {
        self.see(Tree::best_header)
    }
}
