//! Links: how long a message takes from one end to the other. Latency by region or at random, jitter, bandwidth, and
//! loss as TCP shows it: a delay. What is sent first arrives first.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// How a link carries.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// One way.
    pub latency: Duration,
    /// At most this much more, by chance for each message.
    pub jitter: Duration,
    /// Of a million messages so many are lost and sent again, [`RETRANSMISSION`] later.
    pub lost_per_million: u32,
    /// Bytes a second, each way; none: no bound.
    pub bandwidth: Option<u64>,
    /// Carry bytes of version 1 or 2 of the transport instead of messages.
    pub wire: Option<u8>,
}

/// How much later what was lost is sent again: the least that TCP waits (RFC 6298 allows a second, Linux 200 ms).
pub const RETRANSMISSION: Duration = Duration::from_millis(200);

impl Default for Link {
    fn default() -> Link {
        Link {
            latency: Duration::from_millis(50),
            jitter: Duration::ZERO,
            lost_per_million: 0,
            bandwidth: None,
            wire: None,
        }
    }
}

impl Link {
    /// A link of this latency, with nothing else.
    pub fn of(latency: Duration) -> Link {
        Link { latency, ..Link::default() }
    }

    /// What a message that leaves now takes besides its length. Draws only where there is something to draw.
    pub(super) fn delay(&self, rng: &mut ChaCha8Rng) -> Duration {
        let mut delay = self.latency;
        if !self.jitter.is_zero() {
            delay += Duration::from_micros(rng.random_range(0..=self.jitter.as_micros() as u64));
        }
        while self.lost_per_million > 0 && rng.random_range(0..1_000_000) < self.lost_per_million {
            delay += RETRANSMISSION + self.latency;
        }
        delay
    }
}

/// Where nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// North America.
    NorthAmerica,
    /// Europe.
    Europe,
    /// South America.
    SouthAmerica,
    /// South and South East Asia.
    Asia,
    /// Japan and Korea.
    Japan,
    /// Australia.
    Australia,
}

/// One way latency between regions in milliseconds, in the order of [`Region`]: the size that public measurements of
/// round trips between cities have, halved and rounded.
const LATENCIES: [[u64; 6]; 6] = [
    [16, 62, 92, 149, 77, 92],
    [62, 6, 93, 128, 113, 141],
    [92, 93, 36, 163, 160, 161],
    [149, 128, 163, 43, 60, 114],
    [77, 113, 160, 60, 7, 64],
    [92, 141, 161, 114, 64, 8],
];

/// Share of nodes in each region, of a hundred.
const SHARES: [u32; 6] = [33, 50, 1, 12, 2, 2];

impl Region {
    const ALL: [Region; 6] =
        [Region::NorthAmerica, Region::Europe, Region::SouthAmerica, Region::Asia, Region::Japan, Region::Australia];

    /// A region by chance, as nodes are spread over them.
    pub fn draw(rng: &mut impl Rng) -> Region {
        let mut lot = rng.random_range(0..100);
        for (region, share) in Region::ALL.into_iter().zip(SHARES) {
            if lot < share {
                return region;
            }
            lot -= share;
        }
        Region::Europe
    }

    /// A link between two regions: its latency, a tenth of that as jitter, one message of a thousand lost.
    pub fn link(self, other: Region) -> Link {
        let latency = Duration::from_millis(LATENCIES[self as usize][other as usize]);
        Link { latency, jitter: latency / 10, lost_per_million: 1000, ..Link::default() }
    }
}
