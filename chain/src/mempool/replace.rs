//! What it takes for transactions to take the place of others that spend the same outputs. None need say that they may
//! be replaced: miners would take whatever pays them more, so the pool does. Core: `policy/rbf.cpp`, `ReplacementChecks`,
//! `PackageRBFChecks`.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Txid;

use super::Mempool;
use super::accept::{Candidate, Refusal, money};
use super::cluster::{Member, chunks, is_better, linearise};
use super::entry::{Entry, Key};
use super::fee::{FeeRate, fee_for};
use super::package::PackageError;
use super::policy::Policy;
use crate::rejection::Rejection;
use crate::rules::limits::WITNESS_SCALE_FACTOR;

/// Clusters of the transactions that spend the same outputs. Core's name and value.
pub const MAX_REPLACEMENT_CANDIDATES: usize = 100;

/// The clusters that a change of the pool would touch.
pub(super) struct Touched {
    /// Their chunks as they are.
    before: Vec<FeeRate>,
    /// What would hang together.
    after: Vec<Vec<Member<Txid>>>,
}

impl Touched {
    /// Whether a cluster would break its limits.
    pub(super) fn is_oversized(&self, policy: &Policy) -> bool {
        let weight = |cluster: &[Member<Txid>]| cluster.iter().map(|member| member.rate.size).sum::<u64>();
        let limit = policy.cluster_vbytes * WITNESS_SCALE_FACTOR as u64;
        self.after.iter().any(|cluster| cluster.len() > policy.cluster_count || weight(cluster) > limit)
    }

    /// Whether the pool would be worth more to miners, whatever room they have. Core: `ImprovesFeerateDiagram`.
    fn improves(self) -> bool {
        let cut = |cluster: Vec<Member<Txid>>| chunks(linearise(&cluster).into_iter().map(|at| cluster[at].rate));
        let after = self.after.into_iter().flat_map(cut).map(|chunk| chunk.rate);
        is_better(after.collect(), self.before)
    }
}

impl Mempool {
    /// What changes when some transactions come, parents first, and others leave.
    pub(super) fn touched(&self, come: &[&Entry], leave: &BTreeSet<Key>) -> Touched {
        let relatives: Vec<_> = come.iter().map(|entry| self.relatives(entry.txid, &entry.tx)).collect();
        let stays = |key: &&Key| !leave.contains(key);
        let joined = relatives.iter().flat_map(|(parents, children)| parents.iter().chain(children)).filter(stays);
        let clusters = self.clusters_of(joined.chain(leave));
        let before = clusters.iter().flat_map(|id| &self.clusters[id].chunks).map(|chunk| chunk.rate).collect();
        let kept: Vec<Key> = clusters.iter().flat_map(|id| &self.clusters[id].order).filter(stays).copied().collect();
        let places: BTreeMap<Key, usize> = kept.iter().enumerate().map(|(place, key)| (*key, place)).collect();
        let mut members: Vec<Member<Txid>> = Vec::new();
        for entry in kept.iter().map(|key| self.entry(*key)) {
            let parents = entry.parents.iter().filter_map(|parent| places.get(parent)).copied().collect();
            members.push(Member { id: entry.txid, rate: entry.rate(), parents });
        }
        for (number, entry) in come.iter().enumerate() {
            let (parents, children) = &relatives[number];
            for child in children.iter().filter_map(|child| places.get(child)) {
                members[*child].parents.push(kept.len() + number);
            }
            let spends = |other: &usize| entry.spends_of(&come[*other].txid);
            let beside = (0..number).filter(spends).map(|other| kept.len() + other);
            let parents = parents.iter().filter_map(|parent| places.get(parent)).copied().chain(beside).collect();
            members.push(Member { id: entry.txid, rate: entry.rate(), parents });
        }
        Touched { before, after: apart(members) }
    }

    /// All that leaves when these do.
    fn all_with_descendants(&self, keys: &BTreeSet<Key>) -> BTreeSet<Key> {
        let keys: Vec<Key> = keys.iter().copied().collect();
        self.walk(&keys, |entry| &entry.children).into_iter().collect()
    }

    /// Everything that a transaction replaces when it comes in place of `conflicts`. `sibling`: one of these spends
    /// another output of the same parent.
    pub(super) fn check_replacement(
        &self,
        entry: &Entry,
        conflicts: &BTreeSet<Key>,
        sibling: bool,
    ) -> Result<BTreeSet<Key>, Refusal> {
        let (too_many, too_little) = match sibling {
            false => (Rejection::TooManyPotentialReplacements, Rejection::InsufficientFee),
            true => (Rejection::TooManyPotentialReplacementsSibling, Rejection::InsufficientFeeSibling),
        };
        let refused = |rejection| move |detail| Refusal { rejection, detail };
        let replaced = self.replaced_by(conflicts, &entry.txid).map_err(refused(too_many))?;
        let offer = FeeRate { fee: entry.modified_fee(), size: entry.vsize() };
        self.check_pays_for(&replaced, offer, &entry.txid).map_err(refused(too_little))?;
        let touched = self.touched(&[entry], &replaced);
        if touched.is_oversized(&self.policy) {
            return Err(Rejection::TooLargeCluster.into());
        }
        if !touched.improves() {
            let detail = NOT_BETTER.into();
            return Err(Refusal { rejection: Rejection::ReplacementFailed, detail });
        }
        Ok(replaced)
    }

    /// Everything that a parent and its child replace.
    pub(super) fn check_package_replacement(&self, package: &[Candidate]) -> Result<BTreeSet<Key>, PackageError> {
        let policy = |reason, detail| PackageError::Policy { reason, detail };
        let [parent, child] = package else {
            return Err(policy("package RBF failed: package must be 1-parent-1-child", String::new()));
        };
        if !parent.parents.is_empty() || !child.parents.is_empty() {
            let reason = "package RBF failed: new transaction cannot have mempool ancestors";
            return Err(policy(reason, String::new()));
        }
        let conflicts = &parent.conflicts | &child.conflicts;
        let replaced = self
            .replaced_by(&conflicts, &child.entry.txid)
            .map_err(|detail| policy("package RBF failed: too many potential replacements", detail))?;
        let rate =
            |candidate: &Candidate| FeeRate { fee: candidate.entry.modified_fee(), size: candidate.entry.vsize() };
        let (alone, together) = (rate(parent), rate(parent).plus(rate(child)));
        self.check_pays_for(&replaced, together, &child.entry.txid)
            .map_err(|detail| policy("package RBF failed: insufficient anti-DoS fees", detail))?;
        if together <= alone {
            let reason = "package RBF failed: package feerate is less than or equal to parent feerate";
            let show = |rate: FeeRate| {
                let (coin, rate) = (100_000_000, rate.per_thousand());
                format!("{}.{:08} BTC/kvB", rate / coin, rate % coin)
            };
            let detail = format!("package feerate {} <= parent feerate is {}", show(together), show(alone));
            return Err(policy(reason, detail));
        }
        let touched = self.touched(&[&parent.entry, &child.entry], &replaced);
        if touched.is_oversized(&self.policy) {
            return Err(policy("too-large-cluster", String::new()));
        }
        if !touched.improves() {
            let reason = "package RBF failed: insufficient feerate: does not improve feerate diagram";
            return Err(policy(reason, String::new()));
        }
        Ok(replaced)
    }

    /// What leaves in place of `conflicts`, unless too many clusters have to be put in order for that.
    /// Core: `GetEntriesForConflicts`.
    fn replaced_by(&self, conflicts: &BTreeSet<Key>, txid: &Txid) -> Result<BTreeSet<Key>, String> {
        let clusters = self.clusters_of(conflicts.iter()).len();
        if clusters > MAX_REPLACEMENT_CANDIDATES {
            return Err(format!(
                "rejecting replacement {txid}; too many conflicting clusters ({clusters} > {MAX_REPLACEMENT_CANDIDATES})"
            ));
        }
        Ok(self.all_with_descendants(conflicts))
    }

    /// The new ones pay what the old ones paid, and for their own relay. Core: `PaysForRBF`.
    fn check_pays_for(&self, replaced: &BTreeSet<Key>, offer: FeeRate, txid: &Txid) -> Result<(), String> {
        let before = replaced.iter().fold(0i64, |sum, key| sum.saturating_add(self.entry(*key).modified_fee()));
        if offer.fee < before {
            let (fee, before) = (money(offer.fee), money(before));
            return Err(format!("rejecting replacement {txid}, less fees than conflicting txs; {fee} < {before}"));
        }
        let (more, relay) = (offer.fee.saturating_sub(before), fee_for(self.policy.incremental_relay_fee, offer.size));
        let relay = i64::try_from(relay).unwrap_or(i64::MAX);
        if more < relay {
            let (more, relay) = (money(more), money(relay));
            return Err(format!("rejecting replacement {txid}, not enough additional fees to relay; {more} < {relay}"));
        }
        Ok(())
    }
}

const NOT_BETTER: &str = "insufficient feerate: does not improve feerate diagram";

/// Members apart by what hangs together; parents are places in the list, before and after.
fn apart(members: Vec<Member<Txid>>) -> Vec<Vec<Member<Txid>>> {
    let mut beside: Vec<Vec<usize>> = members.iter().map(|member| member.parents.clone()).collect();
    for (at, member) in members.iter().enumerate() {
        member.parents.iter().for_each(|parent| beside[*parent].push(at));
    }
    let mut clusters = Vec::new();
    let mut seen = vec![false; members.len()];
    for first in 0..members.len() {
        if std::mem::replace(&mut seen[first], true) {
            continue;
        }
        let mut places = vec![first];
        let mut at = 0;
        while at < places.len() {
            for next in &beside[places[at]] {
                if !std::mem::replace(&mut seen[*next], true) {
                    places.push(*next);
                }
            }
            at += 1;
        }
        let within: BTreeMap<usize, usize> = places.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let moved = |at: &usize| {
            let member = &members[*at];
            Member { parents: member.parents.iter().map(|parent| within[parent]).collect(), ..member.clone() }
        };
        clusters.push(places.iter().map(moved).collect());
    }
    clusters
}
