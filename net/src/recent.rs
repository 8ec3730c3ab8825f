//! A set that remembers the last hashes put into it, at least so many and at most twice as many. Stands in for Core's
//! rolling bloom filters, without false positives to speak of. Keyed by a secret, so that nobody can aim at it.

use std::collections::BTreeSet;

use bitcoin::hashes::siphash24;

/// The set. Memory is taken as it fills.
#[derive(Debug)]
pub(crate) struct Recent {
    salt: (u64, u64),
    size: usize,
    current: BTreeSet<u64>,
    previous: BTreeSet<u64>,
}

impl Recent {
    pub(crate) fn new(size: usize, salt: (u64, u64)) -> Recent {
        Recent { salt, size, current: BTreeSet::new(), previous: BTreeSet::new() }
    }

    fn key(&self, hash: &[u8; 32]) -> u64 {
        siphash24::Hash::hash_to_u64_with_keys(self.salt.0, self.salt.1, hash)
    }

    pub(crate) fn insert(&mut self, hash: &[u8; 32]) {
        if self.current.len() >= self.size {
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(self.key(hash));
    }

    pub(crate) fn contains(&self, hash: &[u8; 32]) -> bool {
        let key = self.key(hash);
        self.current.contains(&key) || self.previous.contains(&key)
    }

    pub(crate) fn clear(&mut self) {
        self.current.clear();
        self.previous.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_the_oldest_go() {
        let mut recent = Recent::new(10, (1, 2));
        let hash = |n: u8| [n; 32];
        for n in 0..100 {
            recent.insert(&hash(n));
            let kept = (0..=n).filter(|n| recent.contains(&hash(*n))).count();
            assert!(kept >= 10.min(n as usize + 1) && kept <= 20, "{kept} kept after {n}");
        }
        recent.clear();
        assert!(!recent.contains(&hash(99)));
    }
}
