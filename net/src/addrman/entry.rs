//! What is known of one address, and what it is worth. Knows no bucket.

use serde::{Deserialize, Serialize};

use super::{DAY, MINUTE, NEW_BUCKETS_PER_ADDRESS};
use crate::addr::{Host, NetAddr};
use crate::message::AddrEntry;

/// Not seen for this long, an address is useless. Core: `ADDRMAN_HORIZON`.
const HORIZON: u32 = 30 * DAY;
/// So many failures without a success make it useless. Core: `ADDRMAN_RETRIES`.
const RETRIES: u16 = 3;
/// So many failures since the last success do, if that was `MIN_FAIL` ago. Core: `ADDRMAN_MAX_FAILURES`.
const MAX_FAILURES: u16 = 10;
/// Core: `ADDRMAN_MIN_FAIL`.
const MIN_FAIL: u32 = 7 * DAY;

/// What is known of an address; a time of 0 is never.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) addr: NetAddr,
    pub(super) services: u64,
    /// Last seen alive, by whomever.
    pub(super) time: u32,
    /// Who told us.
    pub(super) source: Host,
    pub(super) last_try: u32,
    /// The last failure that was counted.
    pub(super) last_counted: u32,
    pub(super) last_success: u32,
    /// Failures since the last success.
    pub(super) attempts: u16,
    pub(super) tried: bool,
    /// Number of its places in the new table.
    #[serde(skip)]
    pub(super) places: u8,
    /// Their buckets.
    #[serde(skip)]
    pub(super) buckets: [u16; NEW_BUCKETS_PER_ADDRESS],
}

impl Entry {
    /// Whether it is not worth its place. Core: `IsTerrible`.
    pub(super) fn is_terrible(&self, now: u32) -> bool {
        if now.saturating_sub(self.last_try) <= MINUTE && self.last_try > 0 {
            return false;
        }
        let from_the_future = self.time > now.saturating_add(10 * MINUTE);
        let forgotten = now.saturating_sub(self.time) > HORIZON;
        let never = self.last_success == 0 && self.attempts >= RETRIES;
        let no_more = now.saturating_sub(self.last_success) > MIN_FAIL && self.attempts >= MAX_FAILURES;
        from_the_future || forgotten || never || no_more
    }

    /// How likely it is taken when drawn, in millionths. Core: `GetChance`.
    pub(super) fn chance(&self, now: u32) -> u64 {
        let start = if now.saturating_sub(self.last_try) < 10 * MINUTE { 10_000 } else { 1_000_000 };
        (0..self.attempts.min(8)).fold(start, |chance, _| chance * 66 / 100)
    }

    pub(super) fn shown(&self) -> AddrEntry {
        AddrEntry { time: self.time, services: self.services, addr: self.addr }
    }
}
