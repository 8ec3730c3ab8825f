//! What happens next: a queue ordered by time, and first in, first out among equals. Knows not what it holds.

use std::collections::VecDeque;

use crate::timers::Micros;

/// A radix heap. Time only goes forward, so an entry lies in the bucket of the highest bit in which its time differs
/// from the time that was reached, and moves down a bucket or more each time that is looked into: some moves an entry,
/// all of them in sequence, instead of a comparison at every level of a tree that no cache holds.
pub(super) struct Queue<T> {
    /// Entries that are due at `reached`.
    due: VecDeque<T>,
    /// Bucket `i` holds times that differ from `reached` in bit `i` and no higher one.
    buckets: Vec<Vec<(u64, T)>>,
    /// Which buckets hold something.
    filled: u64,
    reached: u64,
    length: usize,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        let buckets = (0..64).map(|_| Vec::new()).collect();
        Queue { due: VecDeque::new(), buckets, filled: 0, reached: 0, length: 0 }
    }

    /// Adds an entry. A time that has passed means now.
    pub(super) fn push(&mut self, at: Micros, entry: T) {
        self.length += 1;
        self.place(at.0.max(self.reached), entry);
    }

    fn place(&mut self, at: u64, entry: T) {
        match (at ^ self.reached).checked_ilog2() {
            None => self.due.push_back(entry),
            Some(bit) => {
                self.buckets[bit as usize].push((at, entry));
                self.filled |= 1 << bit;
            }
        }
    }

    /// Takes the first entry if it is due by `until`.
    pub(super) fn pop(&mut self, until: Micros) -> Option<(Micros, T)> {
        if self.reached > until.0 {
            return None;
        }
        while self.due.is_empty() {
            if self.filled == 0 {
                return None;
            }
            let lowest = self.filled.trailing_zeros() as usize;
            let first = self.buckets[lowest].iter().map(|entry| entry.0).min().expect("the bucket is filled");
            if first > until.0 {
                return None;
            }
            // All lower buckets are empty, and entries keep their order on the way down.
            self.reached = first;
            self.filled &= !(1 << lowest);
            let mut bucket = std::mem::take(&mut self.buckets[lowest]);
            bucket.drain(..).for_each(|(at, entry)| self.place(at, entry));
            self.buckets[lowest] = bucket;
        }
        self.length -= 1;
        self.due.pop_front().map(|entry| (Micros(self.reached), entry))
    }

    /// Entries in it.
    pub(super) fn len(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeMap;

    #[test]
    fn entries_come_by_time_and_then_in_order() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut queue, mut model) = (Queue::new(), BTreeMap::new());
        let mut now = 1_700_000_000_000_000u64;
        let mut number = 0u32;
        for _ in 0..20_000 {
            for _ in 0..rng.random_range(0..3) {
                let delay = 1u64 << rng.random_range(0..30);
                let at = now + rng.random_range(0..delay);
                for at in [at, at, (at ^ 8).max(now)] {
                    number += 1;
                    queue.push(Micros(at), number);
                    model.insert((at, number), ());
                }
            }
            let until = now + rng.random_range(0..5000);
            while let Some((at, entry)) = queue.pop(Micros(until)) {
                assert_eq!(model.pop_first().map(|first| first.0), Some((at.0, entry)));
            }
            assert_eq!(queue.len(), model.len());
            assert!(model.first_key_value().is_none_or(|first| first.0.0 > until));
            now = until;
        }
        let mut queue = Queue::new();
        (0..100).for_each(|n| queue.push(Micros(1000 + n % 3), n));
        queue.push(Micros(5), 1000);
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop(Micros(2000))).map(|entry| entry.1).collect();
        let mut expected: Vec<u64> = (0..100).collect();
        expected.sort_by_key(|n| n % 3);
        expected.insert(0, 1000);
        assert_eq!(order, expected);
    }
}
