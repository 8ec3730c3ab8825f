//! Transactions of version 3 ("topologically restricted until confirmation", [BIP-0431]): they keep to families of two,
//! and to themselves, so that who shares one can always bump its fee. Core: `policy/truc_policy.cpp`.
//!
//! [BIP-0431]: https://github.com/bitcoin/bips/blob/master/bip-0431.mediawiki

use std::collections::BTreeSet;

use super::Mempool;
use super::accept::{Candidate, Refusal};
use super::entry::{Entry, Key};
use super::policy::{TRUC_CHILD_MAX_VSIZE, TRUC_FAMILY_LIMIT, TRUC_MAX_VSIZE, TRUC_VERSION};
use crate::rejection::Rejection;

fn is_truc(entry: &Entry) -> bool {
    entry.tx.version.0 as u32 == TRUC_VERSION
}

fn show(entry: &Entry) -> String {
    format!("{} (wtxid={})", entry.txid, entry.wtxid)
}

fn check_inherits(child: &Entry, parent: &Entry) -> Result<(), String> {
    if is_truc(child) == is_truc(parent) {
        return Ok(());
    }
    let (own, other) = if is_truc(child) { ("", "non-") } else { ("non-", "") };
    Err(format!("{own}version=3 tx {} cannot spend from {other}version=3 tx {}", show(child), show(parent)))
}

fn check_size(entry: &Entry, what: &str, limit: u64) -> Result<(), String> {
    let vsize = entry.vsize();
    if vsize <= limit {
        return Ok(());
    }
    Err(format!("version=3 {what}tx {} is too big: {vsize} > {limit} virtual bytes", show(entry)))
}

fn too_many_ancestors(entry: &Entry) -> String {
    format!("tx {} would have too many ancestors", show(entry))
}

fn too_many_descendants(entry: &Entry) -> String {
    format!("tx {} would exceed descendant count limit", show(entry))
}

impl Mempool {
    /// Judges a transaction by its parents in the pool. A second child gives the first one, which it has to replace,
    /// if it `may_push_out` that. Core: `SingleTRUCChecks`.
    pub(super) fn check_truc(
        &self,
        entry: &Entry,
        parents: &[Key],
        conflicts: &BTreeSet<Key>,
        may_push_out: bool,
    ) -> Result<Option<Key>, Refusal> {
        let violation = |detail| Refusal { rejection: Rejection::TrucViolation, detail };
        parents.iter().try_for_each(|parent| check_inherits(entry, self.entry(*parent))).map_err(violation)?;
        if !is_truc(entry) {
            return Ok(None);
        }
        check_size(entry, "", TRUC_MAX_VSIZE).map_err(violation)?;
        let parent = match parents {
            [] => return Ok(None),
            [parent] => self.entry(*parent),
            _ => return Err(violation(too_many_ancestors(entry))),
        };
        if self.ancestors(parent).len() + 2 > TRUC_FAMILY_LIMIT {
            return Err(violation(too_many_ancestors(entry)));
        }
        check_size(entry, "child ", TRUC_CHILD_MAX_VSIZE).map_err(violation)?;
        let family = self.walk(&parent.children, |entry| &entry.children);
        if family.is_empty() || family.iter().any(|key| conflicts.contains(key)) {
            return Ok(None);
        }
        // After a reorganisation there may be more than one, or one with another parent.
        match family[..] {
            [other] if may_push_out && self.ancestors(self.entry(other)).len() == 1 => Ok(Some(other)),
            _ => Err(violation(too_many_descendants(parent))),
        }
    }

    /// Judges one of a package by its parents in pool and package. Core: `PackageTRUCChecks`.
    pub(super) fn check_truc_in_package(&self, package: &[Candidate], number: usize) -> Result<(), String> {
        let Candidate { entry, parents: in_pool, .. } = &package[number];
        let beside = package.iter().map(|other| &other.entry);
        let in_package: Vec<&Entry> =
            beside.clone().take(number).filter(|other| entry.spends_of(&other.txid)).collect();
        let in_pool: Vec<&Entry> = in_pool.iter().map(|key| self.entry(*key)).collect();
        if !is_truc(entry) {
            return in_pool.iter().chain(&in_package).try_for_each(|parent| check_inherits(entry, parent));
        }
        let parents = in_pool.len() + in_package.len();
        let above = in_pool.first().map_or(0, |parent| self.ancestors(parent).len() + 1 + in_package.len());
        if parents.max(above) + 1 > TRUC_FAMILY_LIMIT {
            return Err(too_many_ancestors(entry));
        }
        let Some(parent) = in_pool.iter().chain(&in_package).next() else { return Ok(()) };
        check_size(entry, "child ", TRUC_CHILD_MAX_VSIZE)?;
        check_inherits(entry, parent)?;
        // In the order of all inputs: whichever comes first is told.
        for other in beside.filter(|other| other.txid != entry.txid) {
            let mut spent = other.tx.input.iter().map(|input| input.previous_output.txid);
            match spent.find(|txid| *txid == parent.txid || *txid == entry.txid) {
                Some(txid) if txid == parent.txid => return Err(too_many_descendants(parent)),
                Some(_) => return Err(too_many_ancestors(other)),
                None => {}
            }
        }
        if parent.children.is_empty() { Ok(()) } else { Err(too_many_descendants(parent)) }
    }
}
