//! What leaves a full pool, what leaves after its time, and the fee that a pool asks for while it is or was full.

use super::{ChunkKey, Mempool};

/// Seconds in which the fee that a full pool asks for halves. Core: `ROLLING_FEE_HALFLIFE`.
const ROLLING_FEE_HALFLIFE: f64 = 12.0 * 60.0 * 60.0;

/// The fee rate that a full pool asks for: it rises with what is thrown out, and falls with time once a block has come.
/// Satoshi per 1000 virtual bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Floor {
    rate: f64,
    /// When it was last `rate`, in seconds since 1970.
    since: u64,
    falling: bool,
}

impl Mempool {
    /// What the pool asks for beyond the relay fee, in satoshi per 1000 virtual bytes; 0 unless it was full of late.
    /// Core: `GetMinFee`.
    pub fn min_fee(&self, now: u64) -> u64 {
        let rate = self.floor_at(now);
        if !self.floor.falling || rate == 0.0 {
            return rate.round() as u64;
        }
        (rate.round() as u64).max(self.policy.incremental_relay_fee)
    }

    fn floor_at(&self, now: u64) -> f64 {
        /// Below so many seconds it is taken as it was.
        const PAUSE: u64 = 10;
        let Floor { rate, since, falling } = self.floor;
        if !falling || now <= since + PAUSE {
            return rate;
        }
        // The emptier the pool, the faster.
        let quarters = 4 * self.memory() / self.policy.max_bytes.max(1);
        let half_life = ROLLING_FEE_HALFLIFE / [4.0, 2.0].get(quarters).copied().unwrap_or(1.0);
        let rate = rate / 2f64.powf((now - since) as f64 / half_life);
        if rate < self.policy.incremental_relay_fee as f64 / 2.0 { 0.0 } else { rate }
    }

    /// A block came: from now on the fee that is asked for falls.
    pub(super) fn let_floor_fall(&mut self, now: u64) {
        self.floor = Floor { rate: self.floor_at(now), since: now, falling: true };
    }

    /// Takes out what came too long ago and, while the pool takes too many bytes, the chunk that pays least.
    /// Core: `LimitMempoolSize`.
    pub(super) fn limit(&mut self, now: u64) {
        self.expire(now.saturating_sub(self.policy.expiry));
        while self.memory() > self.policy.max_bytes
            && let Some(worst) = self.by_chunk.last().copied()
        {
            self.throw_out(worst, now);
        }
    }

    fn throw_out(&mut self, worst: ChunkKey, now: u64) {
        // What comes next must pay for its own relay on top.
        let rate = worst.rate.0.in_vbytes().per_thousand().saturating_add(self.policy.incremental_relay_fee);
        let before = self.floor_at(now);
        self.floor = if rate as f64 > before {
            Floor { rate: rate as f64, since: now, falling: false }
        } else {
            Floor { rate: before, since: now, ..self.floor }
        };
        let keys = self.members(&worst).to_vec();
        let taken = self.take(&keys);
        self.note_left(&taken);
    }

    /// Takes out what came before `time`, with all that spend of it. Gives their number. Core: `Expire`.
    fn expire(&mut self, time: u64) -> usize {
        if self.oldest >= time {
            return 0;
        }
        let (mut old, mut expired) = (Vec::new(), 0);
        self.oldest = u64::MAX;
        for entry in self.entries.iter().flatten() {
            match entry.time < time {
                true => old.push(entry.txid),
                false => self.oldest = self.oldest.min(entry.time),
            }
        }
        for txid in old {
            // It may have gone with one that it spends of.
            if let Some(key) = self.by_txid.get(&txid).copied() {
                expired += self.remove_recursive(key);
            }
        }
        expired
    }
}
