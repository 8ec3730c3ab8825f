//! Bytes of each kind of message that passed over a link, for people who ask. An entry is made when there is something to
//! count, so that a quiet link costs nothing.

use crate::message::Kind;

/// A kind of message (none: all that are not known), and its bytes.
type Count = (Option<Kind>, u64);

/// The counts of a link.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: Vec<Count>,
    received: Vec<Count>,
}

fn count(counts: &mut Vec<Count>, kind: Option<Kind>, bytes: usize) {
    match counts.iter_mut().find(|count| count.0 == kind) {
        Some(count) => count.1 += bytes as u64,
        None => counts.push((kind, bytes as u64)),
    }
}

/// By name; unknown ones under Core's `NET_MESSAGE_TYPE_OTHER`.
fn named(counts: &[Count]) -> Vec<(&'static str, u64)> {
    let mut named: Vec<_> = counts.iter().map(|(kind, bytes)| (kind.map_or("*other*", Kind::name), *bytes)).collect();
    named.sort_unstable();
    named
}

impl Traffic {
    pub fn count_sent(&mut self, kind: Option<Kind>, bytes: usize) {
        count(&mut self.sent, kind, bytes);
    }

    pub fn count_received(&mut self, kind: Option<Kind>, bytes: usize) {
        count(&mut self.received, kind, bytes);
    }

    pub fn sent(&self) -> Vec<(&'static str, u64)> {
        named(&self.sent)
    }

    pub fn received(&self) -> Vec<(&'static str, u64)> {
        named(&self.received)
    }
}
