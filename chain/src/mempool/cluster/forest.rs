//! The best order of a cluster, by Core's way of a spanning forest (`cluster_linearize.h`): some of the links between
//! parent and child hold, and what they hold together is a chunk. A link whose upper side pays better than its lower
//! side is cut; a chunk that pays no less than one it spends of joins it. Where no cut is left the chunks are the best
//! there are. Fees alone decide: it knows neither ids nor limits.

use super::{Member, places, sum};
use crate::mempool::fee::FeeRate;

/// Cuts after which a cluster stays as it is. A full one of random links takes less than a hundred.
const MAX_CUTS: u32 = 1000;

/// The members in an order with chunks at least as good as those of `order`.
pub(super) fn improve<T>(members: &[Member<T>], order: &[usize]) -> Vec<usize> {
    let mut place = vec![0; members.len()];
    order.iter().enumerate().for_each(|(at, member)| place[*member] = at);
    // By their places in the order, so that one set of members gives one outcome.
    let ordered = |at: &usize| {
        let Member { rate, parents, .. } = &members[*at];
        Member { id: (), rate: *rate, parents: parents.iter().map(|parent| place[*parent]).collect() }
    };
    let ordered: Vec<Member<()>> = order.iter().map(ordered).collect();
    let mut forest = Forest::new(&ordered);
    let mut cuts = 0;
    while cuts < MAX_CUTS && forest.cut_one() {
        cuts += 1;
    }
    forest.order().into_iter().map(|at| order[at]).collect()
}

struct Forest<'a> {
    members: &'a [Member<()>],
    /// Each member's parents and children, as bits.
    parents: Vec<u64>,
    children: Vec<u64>,
    /// The parents and children that a member is held together with.
    held: Vec<u64>,
    /// Each member's chunk, as bits.
    chunk: Vec<u64>,
}

/// A link of a chunk that is better cut.
struct Cut {
    /// What the cut gains.
    gain: i128,
    /// Its ends.
    ends: (usize, usize),
    upper: u64,
    lower: u64,
}

impl Forest<'_> {
    /// The chunks of the members' order.
    fn new(members: &[Member<()>]) -> Forest<'_> {
        let count = members.len();
        let mut forest = Forest {
            members,
            parents: vec![0; count],
            children: vec![0; count],
            held: vec![0; count],
            chunk: (0..count).map(|at| 1 << at).collect(),
        };
        for (at, member) in members.iter().enumerate() {
            for parent in &member.parents {
                forest.parents[at] |= 1 << parent;
                forest.children[*parent] |= 1 << at;
            }
        }
        (0..count).for_each(|at| forest.join_upwards(1 << at));
        forest
    }

    fn rate(&self, set: u64) -> FeeRate {
        sum(self.members, set)
    }

    /// The other chunks that a chunk has links of this kind to.
    fn beside(&self, chunk: u64, links: &[u64]) -> Vec<u64> {
        let mut left = places(chunk).fold(0, |all, at| all | links[at]) & !chunk;
        let mut found = Vec::new();
        while left != 0 {
            let other = self.chunk[left.trailing_zeros() as usize];
            found.push(other);
            left &= !other;
        }
        found
    }

    /// Joins a chunk with those that it spends of and that pay no better, the worst first.
    fn join_upwards(&mut self, mut chunk: u64) {
        while let Some(worst) = self.beside(chunk, &self.parents).into_iter().min_by_key(|other| self.rate(*other))
            && self.rate(worst) <= self.rate(chunk)
        {
            chunk = self.join(worst, chunk);
        }
    }

    /// Joins a chunk with those that spend of it and pay no worse, the best first.
    fn join_downwards(&mut self, mut chunk: u64) {
        while let Some(best) = self.beside(chunk, &self.children).into_iter().max_by_key(|other| self.rate(*other))
            && self.rate(best) >= self.rate(chunk)
        {
            chunk = self.join(chunk, best);
        }
    }

    /// Holds two chunks together by one of the links between them.
    fn join(&mut self, upper: u64, lower: u64) -> u64 {
        let parent = places(upper).find(|at| self.children[*at] & lower != 0).expect("there is a link between them");
        let child = (self.children[parent] & lower).trailing_zeros() as usize;
        self.held[parent] |= 1 << child;
        self.held[child] |= 1 << parent;
        let whole = upper | lower;
        places(whole).for_each(|at| self.chunk[at] = whole);
        whole
    }

    /// Cuts a link if there is one to be cut.
    fn cut_one(&mut self) -> bool {
        let firsts = (0..self.members.len()).filter(|at| self.chunk[*at].trailing_zeros() as usize == *at);
        let Some(Cut { ends: (one, other), upper, lower, .. }) = firsts.filter_map(|at| self.best_cut(at)).next()
        else {
            return false;
        };
        self.held[one] &= !(1 << other);
        self.held[other] &= !(1 << one);
        places(upper).for_each(|at| self.chunk[at] = upper);
        places(lower).for_each(|at| self.chunk[at] = lower);
        if places(upper).any(|at| self.parents[at] & lower != 0) {
            // Another link goes the other way.
            self.join(lower, upper);
            let whole = self.chunk[one];
            self.join_upwards(whole);
            self.join_downwards(self.chunk[one]);
        } else {
            self.join_upwards(upper);
            self.join_downwards(self.chunk[lower.trailing_zeros() as usize]);
        }
        true
    }

    /// The link of the chunk of `root` that gains most when it is cut.
    fn best_cut(&self, root: usize) -> Option<Cut> {
        let chunk = self.chunk[root];
        // The tree from the root on, each after the one it hangs on.
        let (mut walk, mut seen) = (vec![(root, root)], 1u64 << root);
        let mut at = 0;
        while let Some((member, _)) = walk.get(at).copied() {
            walk.extend(places(self.held[member] & !seen).map(|next| (next, member)));
            seen |= self.held[member];
            at += 1;
        }
        // What hangs on each, with itself.
        let mut hanging = vec![0u64; self.members.len()];
        let mut best: Option<Cut> = None;
        for (member, from) in walk.into_iter().skip(1).rev() {
            hanging[member] |= 1 << member;
            hanging[from] |= hanging[member];
            let (here, rest) = (hanging[member], chunk & !hanging[member]);
            let is_above = self.children[member] >> from & 1 == 1;
            let (upper, lower) = if is_above { (here, rest) } else { (rest, here) };
            let (above, below) = (self.rate(upper), self.rate(lower));
            let gain = i128::from(above.fee) * i128::from(below.size) - i128::from(below.fee) * i128::from(above.size);
            if gain > best.as_ref().map_or(0, |best| best.gain) {
                best = Some(Cut { gain, ends: (member, from), upper, lower });
            }
        }
        best
    }

    /// All members, chunk by chunk, the best first; in each as they came.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_by_cached_key(|at| {
            let chunk = self.chunk[*at];
            (std::cmp::Reverse(self.rate(chunk)), chunk.trailing_zeros(), *at)
        });
        order
    }
}
