//! What waits for blocks at which fee rate, and what of it the next block takes: the mempool in a few numbers. Knows no
//! interface.

use groat_chain::mempool::{BlockLimits, Mempool};

/// Lower ends of the ranges of fee rates, in sat/vB; what the pool asks for at least may be less than the second.
pub const RANGES: [u32; 8] = [0, 1, 2, 5, 10, 20, 50, 100];

/// The mempool in a few numbers. Sizes are in virtual bytes, fees in satoshi, rates in satoshi for 1000 virtual bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Size of what waits in each of [`RANGES`]. A transaction has the rate of those that it is mined with.
    pub by_rate: [u64; RANGES.len()],
    /// Transactions that the next block takes.
    pub next_transactions: usize,
    /// Their size.
    pub next_vsize: u64,
    /// What they pay.
    pub next_fees: u64,
    /// The lowest rate among them.
    pub next_lowest: u64,
}

impl Demand {
    /// Of a pool, for a block at `height` whose lock times are held against `time`.
    pub fn of(pool: &Mempool, limits: &BlockLimits, height: u32, time: u32) -> Demand {
        let mut weights = [0; RANGES.len()];
        for chunk in pool.chunk_rates() {
            let rate = chunk.in_vbytes().per_thousand();
            let above = |from: &u32| rate >= u64::from(*from) * 1000;
            weights[RANGES.iter().rposition(above).unwrap_or(0)] += chunk.size;
        }
        let selected = pool.select(limits, height, time);
        let last = selected.transactions.last().and_then(|last| pool.get(&last.txid));
        Demand {
            by_rate: weights.map(|weight| weight.div_ceil(4)),
            next_transactions: selected.transactions.len(),
            next_vsize: (selected.weight - limits.reserved_weight).div_ceil(4),
            next_fees: selected.fees,
            next_lowest: last.map_or(0, |last| pool.chunk(last).rate.in_vbytes().per_thousand()),
        }
    }
}
