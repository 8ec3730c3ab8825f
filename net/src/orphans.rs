//! Transactions whose parents are not here yet. All peers share one bound; when it is passed, the peer that takes most of
//! its own share loses its oldest ones, so that nobody can push out another's. However many dial us, their shares take
//! nothing from those whom we dialled. Core: `txorphanage.h`. Judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Transaction, Txid, Wtxid};
use groat_chain::block::Block;
use groat_chain::mempool::policy::MAX_STANDARD_TX_WEIGHT;
use rand::Rng;

use crate::limits::Limits;
use crate::protocol::PeerId;

/// So many of a peer's orphans are looked through for children of a parent, the newest first.
const MAX_LOOKED_THROUGH: usize = 200;
/// Loads are compared in parts of a share this small.
const WHOLE_SHARE: u64 = 1 << 20;

/// A transaction with its ids.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) tx: Arc<Transaction>,
    pub(crate) txid: Txid,
    pub(crate) wtxid: Wtxid,
}

impl Named {
    pub(crate) fn new(tx: Arc<Transaction>) -> Named {
        Named { txid: tx.compute_txid(), wtxid: tx.compute_wtxid(), tx }
    }

    /// Whom it spends from, each once.
    pub(crate) fn parents(&self) -> BTreeSet<Txid> {
        self.tx.input.iter().map(|input| input.previous_output.txid).collect()
    }
}

#[derive(Debug)]
struct Orphan {
    one: Named,
    weight: u64,
    /// Who announced it, and the number of that announcement.
    announcers: BTreeMap<PeerId, u64>,
    /// A parent has come; this announcer's turn is used to judge it again.
    due: Option<PeerId>,
}

impl Orphan {
    /// What its inputs add to the time that a block takes to look through all orphans. Core: `GetLatencyScore`, less one.
    fn inputs_score(&self) -> u64 {
        self.one.tx.input.len() as u64 / 10
    }
}

/// What one peer's announcements take.
#[derive(Debug, Default)]
struct Share {
    /// It is one of those whom an attacker cannot have many of.
    preferred: bool,
    weight: u64,
    score: u64,
    /// Those that are due last, older ones first.
    queue: BTreeSet<(bool, u64, Wtxid)>,
}

/// All orphans.
#[derive(Debug)]
pub(crate) struct Orphans {
    all: BTreeMap<Wtxid, Orphan>,
    spenders: BTreeSet<(OutPoint, Wtxid)>,
    shares: BTreeMap<PeerId, Share>,
    /// Shares of preferred peers.
    preferred: u64,
    /// Of all orphans, each counted once.
    weight: u64,
    /// One for each announcement, and what the inputs add.
    score: u64,
    announced: u64,
    /// Weight that each peer may fill. Core: `DEFAULT_RESERVED_ORPHAN_WEIGHT_PER_PEER`.
    weight_per_peer: u64,
    /// Weight that all peers may fill together that are not preferred.
    weight_in_all: u64,
    /// Core: `DEFAULT_MAX_ORPHANAGE_LATENCY_SCORE`.
    most_score: u64,
}

impl Orphans {
    pub(crate) fn new(limits: &Limits) -> Orphans {
        Orphans {
            all: BTreeMap::new(),
            spenders: BTreeSet::new(),
            shares: BTreeMap::new(),
            preferred: 0,
            weight: 0,
            score: 0,
            announced: 0,
            weight_per_peer: limits.orphan_weight_per_peer,
            weight_in_all: limits.orphan_weight_in_all,
            most_score: limits.orphan_score,
        }
    }

    pub(crate) fn get(&self, wtxid: &Wtxid) -> Option<&Named> {
        self.all.get(wtxid).map(|orphan| &orphan.one)
    }

    pub(crate) fn is_announced_by(&self, wtxid: &Wtxid, peer: PeerId) -> bool {
        self.all.get(wtxid).is_some_and(|orphan| orphan.announcers.contains_key(&peer))
    }

    /// Peers that announced this orphan.
    pub(crate) fn announcers(&self, wtxid: &Wtxid) -> usize {
        self.all.get(wtxid).map_or(0, |orphan| orphan.announcers.len())
    }

    /// Keeps an orphan that this peer has. `preferred`: the peer is one of those whom an attacker cannot have many of.
    pub(crate) fn add(&mut self, one: &Named, peer: PeerId, preferred: bool) {
        let weight = one.tx.weight().to_wu();
        if weight > MAX_STANDARD_TX_WEIGHT {
            return;
        }
        if !self.all.contains_key(&one.wtxid) {
            let orphan = Orphan { one: one.clone(), weight, announcers: BTreeMap::new(), due: None };
            self.weight += weight;
            self.score += orphan.inputs_score();
            self.spenders.extend(one.tx.input.iter().map(|input| (input.previous_output, one.wtxid)));
            self.all.insert(one.wtxid, orphan);
        }
        self.add_announcer(&one.wtxid, peer, preferred);
    }

    /// Another peer has this orphan.
    pub(crate) fn add_announcer(&mut self, wtxid: &Wtxid, peer: PeerId, preferred: bool) {
        let Some(orphan) = self.all.get_mut(wtxid).filter(|orphan| !orphan.announcers.contains_key(&peer)) else {
            return;
        };
        let share = self.shares.entry(peer).or_insert_with(|| {
            self.preferred += u64::from(preferred);
            Share { preferred, ..Share::default() }
        });
        self.announced += 1;
        orphan.announcers.insert(peer, self.announced);
        share.queue.insert((false, self.announced, *wtxid));
        share.weight += orphan.weight;
        share.score += 1 + orphan.inputs_score();
        self.score += 1;
        self.trim();
    }

    /// Takes a peer's announcement back, and the orphan if it was the last.
    fn remove(&mut self, wtxid: &Wtxid, peer: PeerId) {
        let (Some(orphan), Some(share)) = (self.all.get_mut(wtxid), self.shares.get_mut(&peer)) else { return };
        let Some(number) = orphan.announcers.remove(&peer) else { return };
        let due = orphan.due.take_if(|due| *due == peer).is_some();
        share.queue.remove(&(due, number, *wtxid));
        share.weight -= orphan.weight;
        share.score -= 1 + orphan.inputs_score();
        self.score -= 1;
        if share.queue.is_empty() {
            self.preferred -= u64::from(share.preferred);
            self.shares.remove(&peer);
        }
        if orphan.announcers.is_empty() {
            self.weight -= orphan.weight;
            self.score -= orphan.inputs_score();
            for input in &orphan.one.tx.input {
                self.spenders.remove(&(input.previous_output, *wtxid));
            }
            self.all.remove(wtxid);
        }
    }

    /// What the peers of each kind may fill together: weight and score. The others first, then the preferred ones, who
    /// have half of the score if there are any. As long as nobody fills more than an equal part, the bounds hold.
    fn parts(&self) -> [(u64, u64); 2] {
        let (preferred, others) = (self.preferred, self.shares.len() as u64 - self.preferred);
        let score = match (others, preferred) {
            (_, 0) => 0,
            (0, _) => self.most_score,
            _ => self.most_score / 2,
        };
        let weight = (others * self.weight_per_peer).min(self.weight_in_all);
        [(weight, self.most_score - score), (preferred * self.weight_per_peer, score)]
    }

    /// Core: `LimitOrphans`.
    fn trim(&mut self) {
        loop {
            let parts = self.parts();
            if self.score <= self.most_score && self.weight <= parts[0].0 + parts[1].0 {
                return;
            }
            let counts = [self.shares.len() as u64 - self.preferred, self.preferred];
            let load = |share: &Share| {
                let kind = usize::from(share.preferred);
                let ((weight, score), count) = (parts[kind], counts[kind] * WHOLE_SHARE);
                (share.score * count).div_ceil(score.max(1)).max((share.weight * count).div_ceil(weight.max(1)))
            };
            let worst = self.shares.iter().max_by_key(|(peer, share)| (load(share), **peer));
            let Some((peer, share)) = worst else { return };
            let (peer, oldest) = (*peer, share.queue.first().expect("no share is empty").2);
            self.remove(&oldest, peer);
        }
    }

    /// The transaction is no orphan any more: who announced it.
    pub(crate) fn erase(&mut self, wtxid: &Wtxid) -> Vec<PeerId> {
        let announcers = |orphan: &Orphan| orphan.announcers.keys().copied().collect();
        let announcers: Vec<PeerId> = self.all.get(wtxid).map(announcers).unwrap_or_default();
        announcers.iter().for_each(|peer| self.remove(wtxid, *peer));
        self.trim();
        announcers
    }

    pub(crate) fn on_gone(&mut self, peer: PeerId) {
        let queue = self.shares.get(&peer).map(|share| share.queue.clone()).unwrap_or_default();
        queue.iter().for_each(|(_, _, wtxid)| self.remove(wtxid, peer));
        self.trim();
    }

    /// Whatever spends what the block spends is in it or can never be. Core: `EraseForBlock`.
    pub(crate) fn on_block(&mut self, block: &Block) {
        if self.all.is_empty() {
            return;
        }
        let spent = block.transactions.iter().flat_map(|tx| &tx.input).map(|input| input.previous_output);
        let gone: BTreeSet<Wtxid> = spent.flat_map(|spent| self.spending(spent, spent)).collect();
        gone.iter().for_each(|wtxid| drop(self.erase(wtxid)));
    }

    fn spending(&self, first: OutPoint, last: OutPoint) -> impl Iterator<Item = Wtxid> + use<'_> {
        let (low, high) = (Wtxid::all_zeros(), Wtxid::from_byte_array([0xff; 32]));
        self.spenders.range((first, low)..=(last, high)).map(|(_, wtxid)| *wtxid)
    }

    /// A parent came into the pool: its children become due, each for one of its announcers, drawn by chance. Gives
    /// those. Core: `AddChildrenToWorkSet`.
    pub(crate) fn on_parent(&mut self, parent: Txid, rng: &mut impl Rng) -> BTreeSet<PeerId> {
        let (first, last) = (OutPoint { txid: parent, vout: 0 }, OutPoint { txid: parent, vout: u32::MAX });
        let children: BTreeSet<Wtxid> = self.spending(first, last).collect();
        let mut peers = BTreeSet::new();
        for wtxid in &children {
            let Some(orphan) = self.all.get_mut(wtxid).filter(|orphan| orphan.due.is_none()) else { continue };
            let chosen = rng.random_range(0..orphan.announcers.len());
            let Some((peer, number)) = orphan.announcers.iter().nth(chosen) else { continue };
            let share = self.shares.get_mut(peer).expect("an announcer has a share");
            share.queue.remove(&(false, *number, *wtxid));
            share.queue.insert((true, *number, *wtxid));
            orphan.due = Some(*peer);
            peers.insert(*peer);
        }
        peers
    }

    /// An orphan that is due in this peer's turn. It stays an orphan until it is judged. Core: `GetTxToReconsider`.
    pub(crate) fn take_due(&mut self, peer: PeerId) -> Option<Named> {
        let share = self.shares.get_mut(&peer)?;
        let (_, number, wtxid) = share.queue.range((true, 0, Wtxid::all_zeros())..).next().copied()?;
        share.queue.remove(&(true, number, wtxid));
        share.queue.insert((false, number, wtxid));
        let orphan = self.all.get_mut(&wtxid)?;
        orphan.due = None;
        Some(orphan.one.clone())
    }

    /// This peer's orphans that spend from `parent`, newest first. Core: `GetChildrenFromSamePeer`.
    pub(crate) fn children(&self, parent: Txid, peer: PeerId) -> impl Iterator<Item = &Named> {
        let queue = self.shares.get(&peer).into_iter().flat_map(|share| share.queue.iter().rev());
        let queue = queue.take(MAX_LOOKED_THROUGH);
        let is_child = move |one: &&Named| one.tx.input.iter().any(|input| input.previous_output.txid == parent);
        queue.filter_map(|(_, _, wtxid)| self.get(wtxid)).filter(is_child)
    }

    /// All of them, by wtxid, each with who announced it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Named, impl Iterator<Item = PeerId>)> {
        self.all.values().map(|orphan| (&orphan.one, orphan.announcers.keys().copied()))
    }

    /// How many there are, and how many announcements of them.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.all.len(), self.shares.values().map(|share| share.queue.len()).sum())
    }
}

#[cfg(test)]
mod tests;
