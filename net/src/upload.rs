//! How much was sent today, and how much may be (`-maxuploadtarget`). When the target comes near, old blocks are not
//! served any more: there is always enough left to send each new block once. Knows no peer.

use std::time::Duration;

use groat_chain::rules::limits::MAX_BLOCK_SERIALIZED_SIZE;

use crate::timers::Micros;

/// The time over which bytes are counted. Core's name and value.
pub const MAX_UPLOAD_TIMEFRAME: Duration = Duration::from_secs(24 * 60 * 60);
/// A block older than this, against the best header, is served only while there is plenty left. Core's name and value.
pub(crate) const HISTORICAL_BLOCK_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How often a block comes.
const BLOCK_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// What was sent in this timeframe.
#[derive(Debug)]
pub(crate) struct Upload {
    target: u64,
    begun: Option<Micros>,
    sent: u64,
}

/// The upload target and what is left of it, for `getnettotals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadTarget {
    /// Bytes that may be sent in [`MAX_UPLOAD_TIMEFRAME`]; 0: as many as peers want.
    pub target: u64,
    /// All of them were sent.
    pub reached: bool,
    /// Old blocks are served.
    pub serves_historical_blocks: bool,
    /// What is left of them.
    pub bytes_left: u64,
    /// When they are counted anew.
    pub time_left: Duration,
}

impl UploadTarget {
    /// No target.
    pub const NONE: UploadTarget = UploadTarget {
        target: 0,
        reached: false,
        serves_historical_blocks: true,
        bytes_left: 0,
        time_left: Duration::ZERO,
    };
}

impl Upload {
    /// A target in bytes; 0 for none.
    pub(crate) fn new(target: u64) -> Upload {
        Upload { target, begun: None, sent: 0 }
    }

    /// So many bytes go to a peer.
    pub(crate) fn record(&mut self, bytes: usize, now: Micros) {
        if self.begun.is_none_or(|begun| now.since(begun) > MAX_UPLOAD_TIMEFRAME) {
            self.begun = Some(now);
            self.sent = 0;
        }
        self.sent += bytes as u64;
    }

    /// Whether all was sent. Core: `OutboundTargetReached(false)`.
    pub(crate) fn is_reached(&self) -> bool {
        self.target > 0 && self.sent >= self.target
    }

    /// Whether what is left is for new blocks. Core: `OutboundTargetReached(true)`.
    pub(crate) fn is_near(&self, now: Micros) -> bool {
        let blocks = self.time_left(now).as_secs() / BLOCK_INTERVAL.as_secs();
        let reserve = blocks * MAX_BLOCK_SERIALIZED_SIZE as u64;
        self.target > 0 && self.sent >= self.target.saturating_sub(reserve)
    }

    fn time_left(&self, now: Micros) -> Duration {
        self.begun.map_or(MAX_UPLOAD_TIMEFRAME, |begun| MAX_UPLOAD_TIMEFRAME.saturating_sub(now.since(begun)))
    }

    pub(crate) fn state(&self, now: Micros) -> UploadTarget {
        UploadTarget {
            target: self.target,
            reached: self.is_reached(),
            serves_historical_blocks: !self.is_near(now),
            bytes_left: self.target.saturating_sub(self.sent),
            time_left: if self.target == 0 { Duration::ZERO } else { self.time_left(now) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_kept_for_new_blocks_and_counted_anew_each_day() {
        const GB: u64 = 1_000_000_000;
        let start = Micros::from_seconds(1_000_000);
        let mut upload = Upload::new(GB);
        upload.record(1, start);
        assert!(!upload.is_near(start), "144 blocks are 576 MB");
        upload.record(424_000_000, start);
        assert_eq!((upload.is_near(start), upload.is_reached()), (true, false));
        let noon = start + MAX_UPLOAD_TIMEFRAME / 2;
        assert!(!upload.is_near(noon), "72 blocks are 288 MB");
        upload.record(600_000_000, noon);
        let expected = UploadTarget {
            target: GB,
            reached: true,
            serves_historical_blocks: false,
            bytes_left: 0,
            time_left: MAX_UPLOAD_TIMEFRAME / 2,
        };
        assert_eq!(upload.state(noon), expected);
        upload.record(10, start + MAX_UPLOAD_TIMEFRAME + Duration::from_secs(1));
        assert_eq!((upload.sent, upload.is_reached()), (10, false));
    }

    #[test]
    fn a_target_below_the_reserve_serves_no_old_blocks_and_none_serves_all() {
        let now = Micros::from_seconds(5);
        assert!(Upload::new(500_000_000).is_near(now));
        let mut none = Upload::new(0);
        none.record(usize::MAX / 2, now);
        assert_eq!(none.state(now), UploadTarget::NONE);
    }
}
