//! For the simulator and the tests: whether any table has outgrown its bound. Changes nothing.

use super::Protocol;
use crate::message::{MAX_INV_SZ, MAX_PROTOCOL_MESSAGE_LENGTH};

/// Answers that were under way when the queue became full: blocks being read.
const QUEUED_ON_TOP: usize = 5 * MAX_PROTOCOL_MESSAGE_LENGTH;

impl Protocol {
    /// The first bound that is broken, in words. None must ever be.
    pub fn overdrawn(&self) -> Option<String> {
        let limits = &self.core.config.limits;
        for peer in self.peers.values() {
            let (announced, _) = self.download.load(peer.id);
            // What fits into one message may come on top of what is there.
            let checks = [
                ("bytes in the inbox", peer.inbox_bytes, limits.inbox_bytes + MAX_PROTOCOL_MESSAGE_LENGTH),
                ("things asked for", peer.wanted.len(), MAX_INV_SZ),
                ("things that are missing", peer.missing.len(), MAX_INV_SZ),
                ("answers", peer.answers.len(), limits.reads_in_flight + 1),
                ("bytes queued", peer.queued, limits.send_pause_bytes + QUEUED_ON_TOP),
                ("blocks asked", peer.blocks.asked.len(), limits.blocks_in_transit),
                (
                    "bytes of unjudged blocks",
                    peer.blocks.unjudged_bytes,
                    limits.unjudged_block_bytes + MAX_PROTOCOL_MESSAGE_LENGTH,
                ),
                (
                    "announced transactions",
                    announced,
                    if peer.permissions.relay { usize::MAX } else { limits.announced_transactions },
                ),
            ];
            if let Some((what, is, most)) = checks.into_iter().find(|(_, is, most)| is > most) {
                return Some(format!("peer {}: {is} {what}, at most {most}", peer.id.0));
            }
        }
        let (announced, most) = (self.download.announced_by_many(), limits.announced_in_all);
        if announced > most {
            return Some(format!("{announced} announcements of peers that dialled us, at most {most}"));
        }
        let waiting: usize = self.peers.values().map(|peer| peer.inbox_bytes).sum();
        if waiting != self.core.inbox_bytes {
            return Some(format!("{waiting} bytes wait and {} are counted", self.core.inbox_bytes));
        }
        let log = self.relay.log_length();
        (log > limits.transaction_log).then(|| format!("{log} entries in the log of transactions"))
    }
}
