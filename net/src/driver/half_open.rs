//! The links that came in and whose handshake is not done: few in all, and few from one address. When there is no place
//! left, the oldest has to go, once it has had time enough. Knows no message.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::link::Status;

/// Links that came in and whose handshake is not done.
pub(super) const MAX_HALF_OPEN: usize = 256;
/// Of those, from one address. Of IPv6 one customer has a /64.
pub(super) const MAX_HALF_OPEN_PER_SOURCE: usize = 16;
/// A handshake that is younger than this does not have to go.
const GRACE: Duration = Duration::from_secs(1);

/// Where a link comes from, as far as that counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(u128);

impl Source {
    /// The source at this address; none where many share it: Tor's daemon hands all its links in from this machine.
    pub fn of(ip: IpAddr) -> Option<Source> {
        let bits = match ip.to_canonical() {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip) >> 64 << 64,
        };
        (!ip.is_loopback()).then_some(Source(bits))
    }
}

#[derive(Default)]
struct Table {
    next: u64,
    /// By age.
    held: BTreeMap<u64, Held>,
    by_source: BTreeMap<Source, usize>,
}

struct Held {
    source: Option<Source>,
    since: Instant,
    status: Option<Arc<Status>>,
}

impl Table {
    fn is_at_cap(&self, source: Source) -> bool {
        self.by_source.get(&source).is_some_and(|count| *count >= MAX_HALF_OPEN_PER_SOURCE)
    }

    fn remove(&mut self, number: u64) -> Option<Held> {
        let held = self.held.remove(&number)?;
        if let Some(source) = held.source
            && let Some(count) = self.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
        Some(held)
    }
}

/// The table of them.
#[derive(Default)]
pub(super) struct HalfOpen {
    table: Mutex<Table>,
    freed: Notify,
}

impl HalfOpen {
    /// A place for one more, once there is room; none when its source has too many already.
    pub async fn place(self: &Arc<HalfOpen>, source: Option<Source>) -> Option<Place> {
        if source.is_some_and(|source| self.table.lock().is_at_cap(source)) {
            return None;
        }
        self.room().await;
        self.take(source)
    }

    /// Waits until there is a place, and makes one when nobody gives his up.
    async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            let oldest = {
                let mut table = self.table.lock();
                let (number, since) = match table.held.first_key_value() {
                    Some((number, held)) if table.held.len() >= MAX_HALF_OPEN => (*number, held.since),
                    _ => return,
                };
                if since.elapsed() >= GRACE {
                    let status = table.remove(number).and_then(|held| held.status);
                    status.iter().for_each(|status| status.end());
                    return;
                }
                since
            };
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep_until(oldest + GRACE) => {}
            }
        }
    }

    fn take(self: &Arc<HalfOpen>, source: Option<Source>) -> Option<Place> {
        let mut table = self.table.lock();
        if let Some(source) = source {
            if table.is_at_cap(source) {
                return None;
            }
            *table.by_source.entry(source).or_default() += 1;
        }
        let number = table.next;
        table.next += 1;
        table.held.insert(number, Held { source, since: Instant::now(), status: None });
        Some(Place { of: self.clone(), number })
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.table.lock().held.len()
    }
}

/// A place in the table, until it is dropped.
pub(super) struct Place {
    of: Arc<HalfOpen>,
    number: u64,
}

impl Place {
    /// The link that has the place, and that ends if it has to go.
    pub fn is_for(&self, status: Arc<Status>) {
        if let Some(held) = self.of.table.lock().held.get_mut(&self.number) {
            held.status = Some(status);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.of.table.lock().remove(self.number).is_some() {
            self.of.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_has_few_places() {
        let table = Arc::new(HalfOpen::default());
        let source = |text: &str| Source::of(text.parse().expect("an address"));
        let held: Vec<Place> =
            (0..MAX_HALF_OPEN_PER_SOURCE).map(|_| table.take(source("1.2.3.4")).expect("there is a place")).collect();
        assert!(table.take(source("1.2.3.4")).is_none(), "one more than one address may have");
        assert!(table.take(source("::ffff:1.2.3.4")).is_none(), "the same address, written for IPv6");
        let other = table.take(source("1.2.3.5"));
        assert!(other.is_some(), "another address has places of its own");
        assert_eq!(source("2001:db8::1"), source("2001:db8::2:0:0:1"), "one /64");
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"), "two of them");
        assert_eq!(source("127.0.0.1"), None);
        drop((held, other));
        assert!(table.take(source("1.2.3.4")).is_some(), "places were given back");
        assert_eq!(table.len(), 0);
    }

    #[tokio::test]
    async fn the_oldest_goes_once_it_has_had_its_time() {
        let table = Arc::new(HalfOpen::default());
        let status = Arc::new(Status::new(crate::wire::Transport::Detecting, Arc::default()));
        let mut held: Vec<Place> = (0..MAX_HALF_OPEN).map(|_| table.take(None).expect("it counts nobody")).collect();
        held[0].is_for(status.clone());
        let oldest = table.table.lock().held[&0].since;
        table.room().await;
        assert!(oldest.elapsed() >= GRACE, "the oldest went after {:?}", oldest.elapsed());
        assert!(status.has_ended(), "the oldest link goes on");
        assert_eq!(table.len(), MAX_HALF_OPEN - 1);
        held.push(table.take(None).expect("it counts nobody"));
        held.remove(1);
        let mut room = std::pin::pin!(table.room());
        let now = room.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(now.is_ready(), "a place that is free is given at once");
    }
}
