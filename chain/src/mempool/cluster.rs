//! Transactions of the pool that hang together, in the order in which they would be mined, cut into chunks: groups that
//! a miner takes as a whole. One mechanism for templates, for what leaves a full pool, and for what is told first.
//! Knows no transaction: members are numbers with a fee rate and parents.

mod forest;

use super::fee::FeeRate;

/// The most members that [`linearise`] takes. Core: `MAX_CLUSTER_COUNT_LIMIT`.
pub const MAX_CLUSTER_COUNT: usize = 64;

/// A part of a linearisation: its members stand together, and its rate is not above that of the part before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Fee and weight of its members together.
    pub rate: FeeRate,
    /// Their number.
    pub count: usize,
}

/// One transaction, as the order sees it.
#[derive(Clone, Debug)]
pub struct Member<T> {
    /// Who it is. Of two that pay alike the smaller comes first, so that one set has one order.
    pub id: T,
    /// Fee with the operator's changes, and weight.
    pub rate: FeeRate,
    /// Places of its parents in the list of members.
    pub parents: Vec<usize>,
}

/// The places of `members` in the order in which they are mined, parents first: no other order has better chunks, unless
/// a cluster is so tangled that the search for one ends before.
///
/// # Panics
/// With more than [`MAX_CLUSTER_COUNT`] members, or when a member is its own ancestor.
pub fn linearise<T: Ord>(members: &[Member<T>]) -> Vec<usize> {
    assert!(members.len() <= MAX_CLUSTER_COUNT, "a cluster holds to its limit");
    let order = by_ancestors(members);
    // Of two each order of its own is the best.
    if members.len() < 3 { order } else { forest::improve(members, &order) }
}

/// Again and again the member whose unmined ancestors pay best together with it, after those ancestors.
fn by_ancestors<T: Ord>(members: &[Member<T>]) -> Vec<usize> {
    let ancestors = ancestor_sets(members);
    // Fee and weight of each one with its ancestors that are left.
    let mut totals: Vec<FeeRate> = ancestors.iter().map(|set| sum(members, *set)).collect();
    let mut left = if members.len() == 64 { u64::MAX } else { (1 << members.len()) - 1 };
    let mut order = Vec::with_capacity(members.len());
    while left != 0 {
        // Equal rates: the smaller set first, as it can be mined without the larger.
        let key = |at: &usize| (totals[*at], std::cmp::Reverse((totals[*at].size, &members[*at].id)));
        let best = places(left).max_by_key(key).expect("some are left");
        let taken = ancestors[best] & left;
        let mut group: Vec<usize> = places(taken).collect();
        // An ancestor has fewer ancestors than its descendant.
        group.sort_by_key(|at| (ancestors[*at].count_ones(), &members[*at].id));
        order.extend(group);
        left &= !taken;
        for at in places(left) {
            totals[at] = totals[at].minus(sum(members, ancestors[at] & taken));
        }
    }
    order
}

/// Cuts an order into chunks: neighbours join as long as the later one pays better.
pub fn chunks(rates: impl IntoIterator<Item = FeeRate>) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for rate in rates {
        let mut new = Chunk { rate, count: 1 };
        while let Some(before) = chunks.pop_if(|before| new.rate > before.rate) {
            new = Chunk { rate: new.rate.plus(before.rate), count: new.count + before.count };
        }
        chunks.push(new);
    }
    chunks
}

/// Each member's ancestors with itself, as bits.
fn ancestor_sets<T>(members: &[Member<T>]) -> Vec<u64> {
    fn visit<T>(at: usize, members: &[Member<T>], sets: &mut [u64]) -> u64 {
        if sets[at] == 0 {
            let parents = members[at].parents.iter();
            sets[at] = parents.fold(1 << at, |set, parent| set | visit(*parent, members, sets));
        }
        sets[at]
    }
    let mut sets = vec![0; members.len()];
    (0..members.len()).map(|at| visit(at, members, &mut sets)).collect()
}

/// Whether miners earn more with these chunks than with those before: whatever they have room for they earn no less, and
/// somewhere more. What there is no transaction for earns nothing. Core: `CompareChunks`.
pub fn is_better(mut chunks: Vec<FeeRate>, mut before: Vec<FeeRate>) -> bool {
    chunks.sort_unstable_by(|one, other| other.cmp(one));
    before.sort_unstable_by(|one, other| other.cmp(one));
    let (mut new, mut old) = (Diagram::new(&chunks), Diagram::new(&before));
    let mut better = false;
    while let Some(size) = new.next_corner().into_iter().chain(old.next_corner()).min() {
        let ((new_fee, new_over), (old_fee, old_over)) = (new.height(size), old.height(size));
        match (new_fee * old_over).cmp(&(old_fee * new_over)) {
            std::cmp::Ordering::Less => return false,
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => better = true,
        }
        new.pass(size);
        old.pass(size);
    }
    better
}

/// What is earned with so much room, from corner to corner.
struct Diagram<'a> {
    chunks: &'a [FeeRate],
    /// Fee and size of the chunks that were passed.
    passed: FeeRate,
}

impl Diagram<'_> {
    fn new(chunks: &[FeeRate]) -> Diagram<'_> {
        Diagram { chunks, passed: FeeRate::default() }
    }

    fn next_corner(&self) -> Option<u64> {
        self.chunks.first().map(|chunk| self.passed.size + chunk.size)
    }

    /// What `size`, not above the next corner, earns: a numerator and what it is over.
    fn height(&self, size: u64) -> (i128, i128) {
        let (fee, more) = (i128::from(self.passed.fee), i128::from(size - self.passed.size));
        match self.chunks.first() {
            Some(chunk) => (fee * i128::from(chunk.size) + i128::from(chunk.fee) * more, i128::from(chunk.size)),
            None => (fee, 1),
        }
    }

    fn pass(&mut self, size: u64) {
        if self.next_corner() == Some(size) {
            self.passed = self.passed.plus(self.chunks[0]);
            self.chunks = &self.chunks[1..];
        }
    }
}

fn sum<T>(members: &[Member<T>], set: u64) -> FeeRate {
    places(set).fold(FeeRate::default(), |sum, at| sum.plus(members[at].rate))
}

/// The places of the bits that are set.
fn places(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = set.trailing_zeros() as usize;
        (set != 0).then(|| {
            set &= set - 1;
            place
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(id: u32, fee: i64, size: u64, parents: &[usize]) -> Member<u32> {
        Member { id, rate: FeeRate { fee, size }, parents: parents.to_vec() }
    }

    fn cut(members: &[Member<u32>], order: &[usize]) -> Vec<(i64, usize)> {
        chunks(order.iter().map(|at| members[*at].rate)).iter().map(|chunk| (chunk.rate.fee, chunk.count)).collect()
    }

    #[test]
    fn a_child_pays_for_its_parent() {
        let members = [member(0, 1, 100, &[]), member(1, 99, 100, &[0]), member(2, 30, 100, &[0])];
        let order = linearise(&members);
        assert_eq!(order, [0, 1, 2]);
        assert_eq!(cut(&members, &order), [(100, 2), (30, 1)]);
    }

    #[test]
    fn a_child_that_pays_less_stands_alone() {
        let members = [member(0, 1, 100, &[1]), member(1, 50, 100, &[])];
        let order = linearise(&members);
        assert_eq!(order, [1, 0]);
        assert_eq!(cut(&members, &order), [(50, 1), (1, 1)]);
    }

    #[test]
    fn the_largest_cluster_in_one_line_is_ordered() {
        let parents = |at: usize| if at == 0 { vec![] } else { vec![at - 1] };
        let members: Vec<_> = (0..64).map(|at| member(at as u32, at as i64, 1, &parents(at))).collect();
        assert_eq!(linearise(&members), (0..64).collect::<Vec<_>>());
        assert_eq!(cut(&members, &linearise(&members)), [(63 * 64 / 2, 64)]);
    }

    /// The best chunks there are: again and again the set that pays best and misses no parent, of such the smallest.
    fn best_chunks(members: &[Member<u32>]) -> Vec<FeeRate> {
        let sets = ancestor_sets(members);
        let mut left = (1u64 << members.len()) - 1;
        let mut rates = Vec::new();
        while left != 0 {
            let closed = |set: &u64| places(*set).all(|at| sets[at] & left & !set == 0);
            let subsets = (1..=left).filter(|set| set & !left == 0).filter(closed);
            let best = subsets.max_by_key(|set| (sum(members, *set), std::cmp::Reverse(set.count_ones()))).unwrap();
            rates.push(sum(members, best));
            left &= !best;
        }
        rates
    }

    fn rates(members: &[Member<u32>], order: &[usize]) -> Vec<FeeRate> {
        chunks(order.iter().map(|at| members[*at].rate)).iter().map(|chunk| chunk.rate).collect()
    }

    #[test]
    fn two_children_pay_for_a_parent_together() {
        // No child pays best with all its ancestors, both together do.
        let members = [
            member(0, 10, 100, &[]),
            member(1, 0, 100, &[]),
            member(2, 24, 100, &[1]),
            member(3, 24, 100, &[1]),
            member(4, 16, 100, &[0]),
        ];
        assert_eq!(cut(&members, &by_ancestors(&members)), [(74, 5)]);
        assert_eq!(cut(&members, &linearise(&members)), [(48, 3), (26, 2)]);
    }

    #[test]
    fn chunks_are_better_only_if_they_are_nowhere_worse() {
        let rate = |fee, size| FeeRate { fee, size };
        let old = vec![rate(10, 10), rate(5, 10)];
        for (new, expected, what) in [
            (vec![rate(10, 10), rate(5, 10)], false, "the same"),
            (vec![rate(5, 10), rate(10, 10)], false, "the same in another order"),
            (vec![rate(11, 10), rate(4, 10)], true, "more first, the same in all"),
            (vec![rate(11, 10), rate(3, 10)], false, "more first, less in all"),
            (vec![rate(20, 20)], true, "more in the end"),
            (vec![rate(15, 5)], true, "all of it with less room"),
            (vec![rate(14, 5)], false, "less in the end"),
            (vec![rate(9, 10), rate(100, 1000)], false, "less first"),
            (vec![rate(10, 10), rate(5, 10), rate(1, 100)], true, "something more"),
            (vec![rate(10, 10), rate(5, 10), rate(-1, 100)], false, "something that costs"),
            (vec![], false, "nothing"),
        ] {
            assert_eq!(is_better(new, old.clone()), expected, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_order_has_better_chunks(
            drawn in prop::collection::vec((-5i64..40, 1u64..8, any::<u64>()), 1..11),
        ) {
            let links = |at: usize, bits: u64| (0..at).filter(|from| bits >> (3 * from) & 7 < 3).collect::<Vec<_>>();
            let members: Vec<_> = drawn.iter().enumerate()
                .map(|(at, (fee, size, bits))| member(at as u32, *fee, *size, &links(at, *bits))).collect();
            let (ours, best) = (rates(&members, &linearise(&members)), best_chunks(&members));
            prop_assert!(!is_better(best.clone(), ours.clone()), "{ours:?} where there is {best:?}");
            prop_assert!(!is_better(ours, best));
        }

        #[test]
        fn every_order_has_parents_first_and_chunks_that_never_rise(
            drawn in prop::collection::vec((-50i64..1000, 1u64..500, any::<u64>()), 1..65),
        ) {
            let links = |at: usize, bits: u64| (0..at).filter(|from| bits >> (from % 64) & 7 == 7).collect::<Vec<_>>();
            let members: Vec<_> = drawn.iter().enumerate()
                .map(|(at, (fee, size, bits))| member(at as u32, *fee, *size, &links(at, *bits))).collect();
            let order = linearise(&members);
            let mut place = vec![usize::MAX; members.len()];
            order.iter().enumerate().for_each(|(at, which)| place[*which] = at);
            prop_assert!(!place.contains(&usize::MAX), "{order:?} leaves one out");
            for (at, member) in members.iter().enumerate() {
                for parent in &member.parents {
                    prop_assert!(place[*parent] < place[at], "{parent} after its child {at}: {order:?}");
                }
            }
            let first = rates(&members, &by_ancestors(&members));
            prop_assert!(!is_better(first, rates(&members, &order)), "the first order was better");
            let chunks = chunks(order.iter().map(|at| members[*at].rate));
            prop_assert!(chunks.is_sorted_by(|one, next| one.rate >= next.rate), "{chunks:?}");
            prop_assert_eq!(chunks.iter().map(|chunk| chunk.count).sum::<usize>(), members.len());
        }
    }
}
