//! How many calls run, how many wait, and how many bytes of answers lie in memory until they are read. Knows no HTTP but
//! what a reply is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::Semaphore;

use super::http::Reply;

/// Bytes of all answers that are not sent yet. Who asks for more is told to come again.
const MAX_UNSENT: usize = if cfg!(test) { 100_000 } else { 512 << 20 };
/// An answer of so many bytes goes out in any case: there are not more of them than links.
const SMALL: usize = if cfg!(test) { 100 } else { 64 << 10 };

/// The calls and their answers.
pub struct Turns {
    threads: Arc<Semaphore>,
    /// Calls that run or wait.
    calls: Arc<AtomicUsize>,
    max_calls: usize,
    unsent: Arc<AtomicUsize>,
}

impl Turns {
    /// So many calls run at once, and so many may wait.
    pub fn new(threads: usize, waiting: usize) -> Turns {
        let max_calls = threads + waiting;
        let threads = Arc::new(Semaphore::new(threads));
        Turns { threads, calls: Arc::default(), max_calls, unsent: Arc::default() }
    }

    /// Runs a call on a thread that may block. It keeps its place and its thread to its own end, though who asked be gone:
    /// else they could be taken by any number of calls at once.
    pub async fn run(&self, call: impl FnOnce() -> Reply + Send + 'static) -> Reply {
        let place = match self.place() {
            Ok(place) => place,
            Err(refusal) => return refusal,
        };
        let thread = self.threads.clone().acquire_owned().await.expect("the semaphore is never closed");
        let call = move || {
            let _kept = (place, thread);
            call()
        };
        // An error: a method panicked, and said so on standard error.
        let answer = tokio::task::spawn_blocking(call).await;
        self.counted(answer.unwrap_or_else(|_| Reply::bare(StatusCode::INTERNAL_SERVER_ERROR)))
    }

    /// A place among the calls, if one is free.
    pub fn place(&self) -> Result<Place, Reply> {
        let place = Place(self.calls.clone());
        if self.calls.fetch_add(1, Ordering::Relaxed) < self.max_calls {
            return Ok(place);
        }
        Err(Reply::plain(StatusCode::SERVICE_UNAVAILABLE, "Work queue depth exceeded"))
    }

    /// An answer that counts until it is sent. One alone always has room.
    fn counted(&self, reply: Reply) -> Reply {
        let bytes = reply.body.len();
        let before = self.unsent.fetch_add(bytes, Ordering::Relaxed);
        let body = Unsent { body: reply.body, unsent: self.unsent.clone() };
        if before > 0 && bytes > SMALL && before.saturating_add(bytes) > MAX_UNSENT {
            return Reply::plain(StatusCode::SERVICE_UNAVAILABLE, "Too many answers wait to be read");
        }
        Reply { body: Bytes::from_owner(body), ..reply }
    }
}

/// A place among the calls that run or wait; given back when dropped.
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body; no longer counted when dropped.
struct Unsent {
    body: Bytes,
    unsent: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.unsent.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn reply(bytes: usize) -> Reply {
        Reply::plain(StatusCode::OK, vec![b'x'; bytes])
    }

    #[test]
    fn a_call_whose_asker_is_gone_keeps_its_place_and_its_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it is made");
        let turns = Turns::new(1, 1);
        let (end, ended) = mpsc::channel::<()>();
        runtime.block_on(async {
            let long = turns.run(move || {
                let _ = ended.recv();
                reply(0)
            });
            assert!(tokio::time::timeout(Duration::from_millis(50), long).await.is_err(), "it runs until it is told");
            let mut second = std::pin::pin!(turns.run(|| reply(0)));
            let waits = tokio::time::timeout(Duration::from_millis(50), second.as_mut()).await;
            assert!(waits.is_err(), "the one thread is taken");
            assert_eq!(turns.run(|| reply(0)).await.status, StatusCode::SERVICE_UNAVAILABLE, "all places are taken");
            drop(end);
            assert_eq!(second.await.status, StatusCode::OK, "who waited has the thread now");
        });
        assert!(turns.place().is_ok(), "the places are free again");
    }

    #[test]
    fn answers_that_nobody_reads_are_bounded_but_for_small_ones() {
        let turns = Turns::new(1, 1);
        let alone = turns.counted(reply(MAX_UNSENT + 1));
        assert_eq!(alone.status, StatusCode::OK, "one alone always has room");
        assert_eq!(turns.counted(reply(SMALL + 1)).status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(turns.counted(reply(SMALL)).status, StatusCode::OK);
        drop(alone);
        assert_eq!(turns.counted(reply(SMALL + 1)).status, StatusCode::OK, "what is sent counts no more");
        assert_eq!(turns.unsent.load(Ordering::Relaxed), 0);
    }
}
