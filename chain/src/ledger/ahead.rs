//! Look-ahead: the blocks that come next are read, decoded and their coins fetched while others are connected.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint};

use super::{Ledger, LedgerError};
use crate::block::Block;
use crate::coins::Coin;
use crate::pool::{Pool, Promise};
use crate::rules::merkle::merkle_root;
use crate::store::{FilePos, Store, StoreError, codec};
use crate::table::Found;
use crate::tree::{Id, Tree};

/// Blocks read before they are needed.
const DEPTH: u32 = 8;
/// Blocks whose coins are fetched before they are needed.
const COIN_DEPTH: usize = 3;
/// Bytes of accepted blocks kept decoded until they are connected; more are read again from disk.
const MAX_KEPT_BYTES: usize = 64 << 20;
/// Look-ups that one job takes.
const COINS_PER_JOB: usize = 256;

type BlockPromise = Promise<Result<Arc<Block>, LedgerError>>;
type CoinPromise = Promise<Result<Vec<(OutPoint, Option<Coin>)>, StoreError>>;

/// What is under way for the next blocks.
#[derive(Default)]
pub(super) struct Ahead {
    /// Blocks that were just accepted, oldest first.
    kept: VecDeque<(Id, Arc<Block>)>,
    kept_bytes: usize,
    upcoming: VecDeque<Upcoming>,
    /// Whether the store was lately asked for coins: only then is fetching ahead worth the look-ups.
    missing: u32,
}

struct Upcoming {
    id: Id,
    block: Loading,
    coins: Vec<CoinPromise>,
    /// What the coin table had forgotten when `coins` were asked for.
    generation: Option<u64>,
}

enum Loading {
    Here(Arc<Block>),
    Reading(BlockPromise),
}

/// Answers of the store for the coins of one block.
#[derive(Default)]
pub(super) struct Prefetched(HashMap<OutPoint, Option<Coin>>);

impl Prefetched {
    /// The store's answer, if it was asked.
    pub fn get(&self, outpoint: &OutPoint) -> Option<Option<Coin>> {
        if self.0.is_empty() { None } else { self.0.get(outpoint).cloned() }
    }

    pub fn extend(&mut self, found: Vec<(OutPoint, Option<Coin>)>) {
        self.0.extend(found);
    }
}

impl Ahead {
    /// Keeps an accepted block at hand, since it will mostly be connected at once.
    pub fn keep(&mut self, id: Id, block: Arc<Block>) {
        self.kept_bytes += block.size;
        self.kept.push_back((id, block));
        while self.kept_bytes > MAX_KEPT_BYTES {
            let (_, dropped) = self.kept.pop_front().expect("bytes are counted of what is kept");
            self.kept_bytes -= dropped.size;
        }
    }

    fn take_kept(&mut self, id: Id) -> Option<Arc<Block>> {
        let place = self.kept.iter().position(|(kept, _)| *kept == id)?;
        let (_, block) = self.kept.remove(place)?;
        self.kept_bytes -= block.size;
        Some(block)
    }

    /// Forgets the way ahead; kept blocks stay.
    pub fn clear(&mut self) {
        self.upcoming.clear();
    }

    /// Notes that a block needed coins which neither the table nor the look-ahead had.
    pub fn note_miss(&mut self) {
        self.missing = 64;
    }
}

impl Ledger {
    /// The next block on the way to `target`, with the coins that were fetched for it. Starts work on those after.
    pub(super) fn next_block(&mut self, target: Id) -> Result<(Id, Arc<Block>, Prefetched), LedgerError> {
        self.look_ahead(target);
        let next = self.ahead.upcoming.pop_front().expect("the target lies above the tip");
        let block = match next.block {
            Loading::Here(block) => block,
            Loading::Reading(promise) => promise.wait(&self.pool)?,
        };
        let mut prefetched = Prefetched::default();
        for promise in next.coins {
            prefetched.extend(promise.wait(&self.pool)?);
        }
        // Since then the table may have dropped what it knew better than the store did at the time.
        if next.generation != Some(self.table.generation()) {
            prefetched = Prefetched::default();
        }
        Ok((next.id, block, prefetched))
    }

    fn look_ahead(&mut self, target: Id) {
        let tree = self.tree.read();
        let (tip, end) = (tree.node(self.tip).height, tree.node(target).height);
        let last = tree.ancestor(target, end.min(tip + DEPTH));
        let mut path = VecDeque::with_capacity(DEPTH as usize);
        let mut walk = last;
        while walk != self.tip {
            path.push_front((walk, tree.node(walk).block(), tree.node(walk).hash));
            walk = tree.node(walk).parent().expect("the target descends from the tip");
        }
        drop(tree);
        let same = self.ahead.upcoming.iter().zip(&path).all(|(upcoming, (id, ..))| upcoming.id == *id);
        if !same || self.ahead.upcoming.len() > path.len() {
            self.ahead.clear();
        }
        for (id, pos, hash) in path.into_iter().skip(self.ahead.upcoming.len()) {
            let block = match self.ahead.take_kept(id) {
                Some(block) => Loading::Here(block),
                None => {
                    let pos = pos.expect("every block on the way to a target is stored");
                    let store = self.store.clone();
                    Loading::Reading(self.pool.ask(true, move || read_block(&*store, pos, &hash)))
                }
            };
            self.ahead.upcoming.push_back(Upcoming { id, block, coins: Vec::new(), generation: None });
        }
        self.fetch_coins_ahead();
    }

    fn fetch_coins_ahead(&mut self) {
        if self.ahead.missing == 0 {
            return;
        }
        self.ahead.missing -= 1;
        let generation = self.table.generation();
        for upcoming in self.ahead.upcoming.iter_mut().take(COIN_DEPTH) {
            let Loading::Here(block) = &upcoming.block else { continue };
            if upcoming.generation == Some(generation) {
                continue;
            }
            upcoming.generation = Some(generation);
            let unknown: Vec<OutPoint> = block
                .transactions
                .iter()
                .skip(1)
                .flat_map(|transaction| &transaction.input)
                .map(|input| input.previous_output)
                .filter(|outpoint| matches!(self.table.get(outpoint), Found::Unknown))
                .collect();
            upcoming.coins = ask_coins(&self.store, &self.pool, unknown);
            if !upcoming.coins.is_empty() {
                self.ahead.missing = 64;
            }
        }
    }
}

/// Has the pool look up coins, some hundred a job.
fn ask_coins(store: &Arc<dyn Store>, pool: &Pool, outpoints: Vec<OutPoint>) -> Vec<CoinPromise> {
    outpoints
        .chunks(COINS_PER_JOB)
        .map(|chunk| {
            let (store, chunk) = (store.clone(), chunk.to_vec());
            pool.ask(true, move || {
                let coins = store.coins(&chunk)?;
                Ok(chunk.into_iter().zip(coins).collect())
            })
        })
        .collect()
}

/// Looks up coins with all threads and waits for them.
pub(super) fn read_coins(
    store: &Arc<dyn Store>,
    pool: &Pool,
    outpoints: Vec<OutPoint>,
) -> Result<Vec<(OutPoint, Option<Coin>)>, StoreError> {
    let mut found = Vec::with_capacity(outpoints.len());
    for promise in ask_coins(store, pool, outpoints) {
        found.append(&mut promise.wait(pool)?);
    }
    Ok(found)
}

/// Where a block that was connected once lies, with its undo.
pub(super) struct Stored {
    hash: BlockHash,
    block: FilePos,
    undo: FilePos,
}

impl Stored {
    /// Fails if it was pruned.
    pub fn of(tree: &Tree, id: Id) -> Result<Stored, LedgerError> {
        let node = tree.node(id);
        match (node.block(), node.undo()) {
            (Some(block), Some(undo)) => Ok(Stored { hash: node.hash, block, undo }),
            _ => Err(LedgerError::Pruned(node.hash)),
        }
    }

    /// The block and the coins that it spent.
    pub fn read(&self, store: &dyn Store) -> Result<(Arc<Block>, Vec<Coin>), LedgerError> {
        let hash = self.hash;
        let block = read_block(store, self.block, &hash)?;
        let spent = codec::decode_undo(&store.read_undo(self.undo)?)
            .map_err(|error| LedgerError::Damaged(format!("undo of block {hash}: {error}")))?;
        let inputs: usize = block.transactions.iter().skip(1).map(|tx| tx.input.len()).sum();
        if spent.len() < inputs {
            return Err(LedgerError::Damaged(format!("undo of block {hash} holds too few coins")));
        }
        Ok((block, spent))
    }
}

/// Reads the block at `pos`, which must have `hash` and hold the transactions that were accepted with it: what the
/// disk garbled is no verdict on the block.
pub(super) fn read_block(store: &dyn Store, pos: FilePos, hash: &BlockHash) -> Result<Arc<Block>, LedgerError> {
    let bytes = store.read_block(pos)?;
    match Block::decode(&bytes) {
        Ok(block) if block.hash == *hash && has_its_root(&block) => Ok(Arc::new(block)),
        _ => Err(StoreError::Damaged {
            what: format!("block {hash} in blk{:05}.dat at {}", pos.file, pos.offset),
            detail: "it does not read back".into(),
            remedy: "--reindex",
        }
        .into()),
    }
}

fn has_its_root(block: &Block) -> bool {
    let (root, _) = merkle_root(block.txids.iter().map(|txid| txid.to_byte_array()));
    root == block.header.merkle_root.to_byte_array()
}
