//! The mempool: transactions that could be in the next block. Knows no peer, no disk and no clock; the chain it reads
//! through the ledger, which does not know it.
//!
//! | file | what it holds |
//! |---|---|
//! | `accept` | how a transaction comes in: stages in their order |
//! | `replace` | what it takes for one to take the place of others |
//! | `package` | how transactions come in together |
//! | `truc` | what holds for transactions of version 3 |
//! | `policy` | what is taken beyond what is valid |
//! | `cluster`, `fee` | which of the transactions that hang together is mined when |
//! | `follow` | what blocks do: mined ones leave, those of blocks taken back return |
//! | `limit` | what leaves a full pool, and the fee it then asks for |
//! | `select` | what a block takes |
//! | `dump` | the pool as a file |
//!
//! One thread writes, the ledger's; others read under a lock, for moments.

mod accept;
mod cluster;
mod dump;
mod entry;
mod fee;
mod follow;
mod limit;
mod package;
pub mod policy;
mod replace;
mod select;
mod staged;
#[cfg(test)]
mod tests;
mod truc;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, Transaction, Txid, Wtxid};

pub use accept::{Limits, Refusal, stage};
pub use cluster::Chunk;
pub use dump::{DecodeError, Dump, Dumped};
pub use entry::Entry;
pub use fee::{FeeRate, fee_for};
pub use follow::Follower;
pub use package::{
    Judged, Judging, MAX_PACKAGE_COUNT, Outcome, PackageError, Packages, Step, is_child_with_parents_tree,
};
pub use policy::Policy;
pub use select::{BlockLimits, Chosen, Selected};
pub use staged::{Accepted, Staged};

use cluster::{Member, chunks, linearise};
use entry::Key;
use limit::Floor;

/// Transactions that could be in the next block.
pub struct Mempool {
    policy: Policy,
    /// Entries by number; a number is used again.
    entries: Vec<Option<Entry>>,
    free: Vec<Key>,
    by_txid: HashMap<Txid, Key>,
    by_wtxid: HashMap<Wtxid, Key>,
    /// Who spends an output.
    spenders: HashMap<OutPoint, Key>,
    clusters: HashMap<u64, Cluster>,
    next_cluster: u64,
    /// All chunks, best first; of one cluster in its order.
    by_chunk: BTreeSet<ChunkKey>,
    /// What the operator adds to a transaction's fee, for those in the pool and others.
    deltas: BTreeMap<Txid, i64>,
    totals: Totals,
    /// Core: `m_sequence_number`.
    sequence: u64,
    /// Changes with every change of the pool.
    generation: u64,
    /// The block that the pool is in step with; none while it follows a change of the chain.
    tip: Option<BlockHash>,
    floor: Floor,
    /// No transaction came before this, in seconds since 1970.
    oldest: u64,
    /// What came and went, if somebody wants to know.
    movements: Option<Vec<Movement>>,
}

/// A transaction came into the pool or left it, with the number of that change: [`Mempool::sequence`] before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Movement {
    /// It came.
    Entered(Arc<Transaction>, u64),
    /// It left for another reason than a block that holds it.
    Left(Txid, u64),
}

/// Sums over all entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    memory: usize,
    vsize: u64,
    fee: u64,
}

/// Transactions that hang together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cluster {
    /// In the order in which they would be mined.
    order: Vec<Key>,
    /// How the order is cut.
    chunks: Vec<Chunk>,
}

/// A chunk's place among all: by its rate, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ChunkKey {
    rate: std::cmp::Reverse<FeeRate>,
    cluster: u64,
    index: usize,
}

impl Mempool {
    /// An empty pool, in step with `tip`.
    pub fn new(policy: Policy, tip: BlockHash) -> Mempool {
        Mempool {
            policy,
            entries: Vec::new(),
            free: Vec::new(),
            by_txid: HashMap::new(),
            by_wtxid: HashMap::new(),
            spenders: HashMap::new(),
            clusters: HashMap::new(),
            next_cluster: 0,
            by_chunk: BTreeSet::new(),
            deltas: BTreeMap::new(),
            totals: Totals::default(),
            sequence: 1,
            generation: 0,
            tip: Some(tip),
            floor: Floor::default(),
            oldest: u64::MAX,
            movements: None,
        }
    }

    /// From now on [`Mempool::movements`] has to be called now and then.
    pub fn note_movements(&mut self) {
        self.movements = Some(Vec::new());
    }

    /// What came and went since the last call, in order.
    pub fn movements(&mut self) -> Vec<Movement> {
        self.movements.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What the operator chose.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The block that the pool is in step with; none while it follows a change of the chain.
    pub fn tip(&self) -> Option<BlockHash> {
        self.tip
    }

    /// Number of transactions.
    pub fn len(&self) -> usize {
        self.by_txid.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_txid.is_empty()
    }

    /// Bytes of memory that the pool takes.
    pub fn memory(&self) -> usize {
        self.totals.memory
    }

    /// Virtual bytes of all transactions.
    pub fn vsize(&self) -> u64 {
        self.totals.vsize
    }

    /// Satoshi that all transactions pay.
    pub fn total_fee(&self) -> u64 {
        self.totals.fee
    }

    /// Grows with each transaction that comes, and each that leaves but for a block. Core: `GetSequence`.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The transaction with this id.
    pub fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.by_txid.get(txid).map(|key| self.entry(*key))
    }

    /// The transaction with this id and this witness.
    pub fn get_wtxid(&self, wtxid: &Wtxid) -> Option<&Entry> {
        self.by_wtxid.get(wtxid).map(|key| self.entry(*key))
    }

    /// The transaction that spends an output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Entry> {
        self.spenders.get(outpoint).map(|key| self.entry(*key))
    }

    /// All transactions in the order in which they would be mined: best chunk first, parents before children.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_chunk.iter().flat_map(|chunk| self.members(chunk)).map(|key| self.entry(*key))
    }

    /// All transactions in no order, faster.
    pub fn unordered(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    /// The transactions that this one spends of, and those that they do, without itself.
    pub fn ancestors(&self, entry: &Entry) -> Vec<&Entry> {
        self.walk(&entry.parents, |entry| &entry.parents).into_iter().map(|key| self.entry(key)).collect()
    }

    /// The transactions that spend of this one, and those that spend of them, without itself.
    pub fn descendants(&self, entry: &Entry) -> Vec<&Entry> {
        self.walk(&entry.children, |entry| &entry.children).into_iter().map(|key| self.entry(key)).collect()
    }

    /// The transactions of the pool that this one spends of.
    pub fn parents(&self, entry: &Entry) -> Vec<&Entry> {
        entry.parents.iter().map(|key| self.entry(*key)).collect()
    }

    /// The transactions of the pool that spend of this one.
    pub fn children(&self, entry: &Entry) -> Vec<&Entry> {
        entry.children.iter().map(|key| self.entry(*key)).collect()
    }

    /// The chunk that a transaction is mined with.
    pub fn chunk(&self, entry: &Entry) -> Chunk {
        self.clusters[&entry.cluster].chunks[entry.chunk]
    }

    /// All that hangs together with a transaction, cut into chunks, in the order in which it would be mined.
    pub fn cluster(&self, entry: &Entry) -> Vec<(Chunk, Vec<&Entry>)> {
        let Cluster { order, chunks } = &self.clusters[&entry.cluster];
        let mut rest = &order[..];
        let cut = |chunk: &Chunk| {
            let (here, after) = rest.split_at(chunk.count);
            rest = after;
            (*chunk, here.iter().map(|key| self.entry(*key)).collect())
        };
        chunks.iter().map(cut).collect()
    }

    /// Fee and weight of every chunk, the best first.
    pub fn chunk_rates(&self) -> impl Iterator<Item = FeeRate> {
        self.by_chunk.iter().map(|chunk| chunk.rate.0)
    }

    /// What the operator adds to the fee of this transaction, in satoshi.
    pub fn delta(&self, txid: &Txid) -> i64 {
        self.deltas.get(txid).copied().unwrap_or(0)
    }

    /// All that the operator adds to fees.
    pub fn deltas(&self) -> &BTreeMap<Txid, i64> {
        &self.deltas
    }

    /// Adds to the fee of a transaction, in the pool or not, as far as miners here are concerned. Core:
    /// `PrioritiseTransaction`.
    pub fn prioritise(&mut self, txid: Txid, delta: i64) {
        let total = self.delta(&txid).saturating_add(delta);
        if total == 0 {
            self.deltas.remove(&txid)
        } else {
            self.deltas.insert(txid, total)
        };
        if let Some(key) = self.by_txid.get(&txid).copied() {
            self.entry_mut(key).delta = total;
            let cluster = self.entry(key).cluster;
            let members = self.dissolve(cluster);
            self.form(members);
            self.generation += 1;
        }
    }

    fn entry(&self, key: Key) -> &Entry {
        self.entries[key.0 as usize].as_ref().expect("keys that are kept are those of entries")
    }

    fn entry_mut(&mut self, key: Key) -> &mut Entry {
        self.entries[key.0 as usize].as_mut().expect("keys that are kept are those of entries")
    }

    fn members(&self, chunk: &ChunkKey) -> &[Key] {
        let cluster = &self.clusters[&chunk.cluster];
        let from = cluster.chunks[..chunk.index].iter().map(|before| before.count).sum::<usize>();
        &cluster.order[from..from + cluster.chunks[chunk.index].count]
    }

    /// All that can be reached from `from`, with `from`, each once.
    fn walk<'a>(&'a self, from: &[Key], next: impl Fn(&'a Entry) -> &'a [Key]) -> Vec<Key> {
        let mut seen: BTreeSet<Key> = from.iter().copied().collect();
        let mut found: Vec<Key> = seen.iter().copied().collect();
        let mut at = 0;
        while at < found.len() {
            found.extend(next(self.entry(found[at])).iter().filter(|key| seen.insert(**key)));
            at += 1;
        }
        found
    }

    /// The transaction with all that spend of it.
    fn with_descendants(&self, key: Key) -> Vec<Key> {
        self.walk(&[key], |entry| &entry.children)
    }

    /// The parents and, after a block was taken back, the children that a transaction has in the pool.
    fn relatives(&self, txid: Txid, tx: &Transaction) -> (BTreeSet<Key>, BTreeSet<Key>) {
        let parents = tx.input.iter().filter_map(|input| self.by_txid.get(&input.previous_output.txid));
        let outputs = (0..tx.output.len()).map(|vout| OutPoint::new(txid, vout as u32));
        let children = outputs.filter_map(|outpoint| self.spenders.get(&outpoint));
        (parents.copied().collect(), children.copied().collect())
    }

    /// Clusters of these.
    fn clusters_of<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> BTreeSet<u64> {
        keys.map(|key| self.entry(*key).cluster).collect()
    }

    /// Adds an entry that was judged, and links it. What it hangs together with must hold to the limit of clusters.
    fn add(&mut self, mut entry: Entry) {
        let (parents, children) = self.relatives(entry.txid, &entry.tx);
        let key = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            Key(u32::try_from(self.entries.len() - 1).expect("memory ends before numbers do"))
        });
        self.by_txid.insert(entry.txid, key);
        self.by_wtxid.insert(entry.wtxid, key);
        for input in &entry.tx.input {
            let before = self.spenders.insert(input.previous_output, key);
            assert!(before.is_none(), "conflicts were judged before");
        }
        let touching: BTreeSet<u64> = parents.iter().chain(&children).map(|key| self.entry(*key).cluster).collect();
        parents.iter().for_each(|parent| self.entry_mut(*parent).children.push(key));
        children.iter().for_each(|child| self.entry_mut(*child).parents.push(key));
        entry.parents = parents.into_iter().collect();
        entry.children = children.into_iter().collect();
        entry.delta = self.delta(&entry.txid);
        self.totals.memory += entry.memory;
        self.totals.vsize += entry.vsize();
        self.totals.fee += entry.fee;
        self.oldest = self.oldest.min(entry.time);
        if let Some(movements) = &mut self.movements {
            movements.push(Movement::Entered(entry.tx.clone(), self.sequence));
        }
        self.entries[key.0 as usize] = Some(entry);
        let mut members = vec![key];
        touching.into_iter().for_each(|cluster| members.extend(self.dissolve(cluster)));
        self.form(members);
        self.sequence += 1;
        self.generation += 1;
    }

    /// Takes entries out, which are a set without descendants outside of it, or mined. Gives them.
    fn take(&mut self, keys: &[Key]) -> Vec<Entry> {
        let touched: BTreeSet<u64> = keys.iter().map(|key| self.entry(*key).cluster).collect();
        let members: Vec<Vec<Key>> = touched.into_iter().map(|cluster| self.dissolve(cluster)).collect();
        let taken = keys.iter().map(|key| self.unlink(*key)).collect();
        for mut members in members {
            members.retain(|key| self.entries[key.0 as usize].is_some());
            while let Some(first) = members.first().copied() {
                let part = self.connected(first);
                members.retain(|key| !part.contains(key));
                self.form(part.into_iter().collect());
            }
        }
        self.generation += 1;
        taken
    }

    /// All that hangs together with `from`, itself included.
    fn connected(&self, from: Key) -> BTreeSet<Key> {
        let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
        while let Some(key) = open.pop() {
            let entry = self.entry(key);
            open.extend(entry.parents.iter().chain(&entry.children).filter(|key| seen.insert(**key)));
        }
        seen
    }

    /// Takes one entry out of all indexes but its cluster, which was dissolved.
    fn unlink(&mut self, key: Key) -> Entry {
        let entry = self.entries[key.0 as usize].take().expect("each is taken once");
        self.free.push(key);
        self.by_txid.remove(&entry.txid);
        self.by_wtxid.remove(&entry.wtxid);
        for input in &entry.tx.input {
            self.spenders.remove(&input.previous_output);
        }
        for parent in &entry.parents {
            if let Some(parent) = &mut self.entries[parent.0 as usize] {
                parent.children.retain(|child| *child != key);
            }
        }
        for child in &entry.children {
            if let Some(child) = &mut self.entries[child.0 as usize] {
                child.parents.retain(|parent| *parent != key);
            }
        }
        self.totals.memory -= entry.memory;
        self.totals.vsize -= entry.vsize();
        self.totals.fee -= entry.fee;
        entry
    }

    /// Forgets a cluster and gives its members.
    fn dissolve(&mut self, id: u64) -> Vec<Key> {
        let cluster = self.clusters.remove(&id).expect("an entry names its cluster");
        for (index, chunk) in cluster.chunks.iter().enumerate() {
            self.by_chunk.remove(&ChunkKey { rate: std::cmp::Reverse(chunk.rate), cluster: id, index });
        }
        cluster.order
    }

    /// Makes a cluster of what hangs together.
    fn form(&mut self, keys: Vec<Key>) {
        let places: BTreeMap<Key, usize> = keys.iter().enumerate().map(|(place, key)| (*key, place)).collect();
        let members: Vec<Member<Txid>> = keys
            .iter()
            .map(|key| {
                let entry = self.entry(*key);
                let parents = entry.parents.iter().map(|parent| places[parent]).collect();
                Member { id: entry.txid, rate: entry.rate(), parents }
            })
            .collect();
        let order: Vec<Key> = linearise(&members).into_iter().map(|place| keys[place]).collect();
        let chunks = chunks(order.iter().map(|key| self.entry(*key).rate()));
        let id = self.next_cluster;
        self.next_cluster += 1;
        let mut rest = &order[..];
        for (index, chunk) in chunks.iter().enumerate() {
            let (here, after) = rest.split_at(chunk.count);
            rest = after;
            here.iter().for_each(|key| {
                let entry = self.entry_mut(*key);
                (entry.cluster, entry.chunk) = (id, index);
            });
            self.by_chunk.insert(ChunkKey { rate: std::cmp::Reverse(chunk.rate), cluster: id, index });
        }
        self.clusters.insert(id, Cluster { order, chunks });
    }

    /// Takes a transaction out with all that spend of it; for another reason than a block. Gives their number.
    fn remove_recursive(&mut self, key: Key) -> usize {
        let taken = self.take(&self.with_descendants(key));
        self.note_left(&taken);
        taken.len()
    }

    /// These were taken out for another reason than a block.
    fn note_left(&mut self, taken: &[Entry]) {
        if let Some(movements) = &mut self.movements {
            movements
                .extend(taken.iter().zip(self.sequence..).map(|(entry, number)| Movement::Left(entry.txid, number)));
        }
        self.sequence += taken.len() as u64;
    }
}
