//! The checking threads: decode, hashing and scripts run here, beside the ledger thread. Knows no rule.
//!
//! A pool lives as long as its ledger. With no threads every job runs inline, where it is given: the simulator
//! and the tests then see the same order each time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// Other jobs that are taken at most before one of those for later.
const MAX_IN_A_ROW: u32 = 64;

/// A fixed set of threads that take jobs from one queue.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// What no block waits for.
    later: VecDeque<Job>,
    /// Jobs that were taken while one of those for later waited.
    in_a_row: u32,
    closed: bool,
}

impl Queue {
    fn next(&mut self) -> Option<Job> {
        if self.jobs.is_empty() || self.in_a_row >= MAX_IN_A_ROW {
            self.in_a_row = 0;
            return self.later.pop_front().or_else(|| self.jobs.pop_front());
        }
        self.in_a_row += u32::from(!self.later.is_empty());
        self.jobs.pop_front()
    }
}

impl Pool {
    /// A pool of `threads` threads; 0 runs every job inline.
    #[expect(clippy::disallowed_methods, reason = "the pool is where the crate's threads are made")]
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new() });
        let threads = (0..threads)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    while let Some(job) = shared.next() {
                        run(job);
                    }
                })
            })
            .collect();
        Pool { shared, threads }
    }

    /// Queues `job` behind all others, or before them when it is `urgent` (the ledger will soon wait for it).
    pub fn submit(&self, urgent: bool, job: impl FnOnce() + Send + 'static) {
        if self.threads.is_empty() {
            return run(Box::new(job));
        }
        let mut queue = self.shared.queue.lock();
        if urgent {
            queue.jobs.push_front(Box::new(job));
        } else {
            queue.jobs.push_back(Box::new(job));
        }
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Queues `job` for a thread that has nothing else to do, now and then for one that has: who waits for a promise never
    /// runs it. For the scripts of transactions that come: however many there are and whatever they cost, a block does not
    /// wait for them.
    pub fn submit_later(&self, job: impl FnOnce() + Send + 'static) {
        if self.threads.is_empty() {
            return run(Box::new(job));
        }
        self.shared.queue.lock().later.push_back(Box::new(job));
        self.shared.wake.notify_one();
    }

    /// Queues `job` and gives the promise of its result.
    pub fn ask<T: Send + 'static>(&self, urgent: bool, job: impl FnOnce() -> T + Send + 'static) -> Promise<T> {
        let promise = Promise { slot: Arc::new((Mutex::new(None), Condvar::new())) };
        let slot = promise.slot.clone();
        self.submit(urgent, move || {
            let result = job();
            *slot.0.lock() = Some(result);
            slot.1.notify_all();
        });
        promise
    }

    /// Runs one waiting job in the calling thread; false when none waits.
    pub fn help(&self) -> bool {
        let job = self.shared.queue.lock().jobs.pop_front();
        match job {
            Some(job) => {
                run(job);
                true
            }
            None => false,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.next() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            self.wake.wait(&mut queue);
        }
    }
}

/// A job that panics must not leave the ledger waiting for ever: the process ends, the panic message stands.
fn run(job: Job) {
    struct AbortOnPanic;
    impl Drop for AbortOnPanic {
        fn drop(&mut self) {
            if std::thread::panicking() {
                std::process::abort();
            }
        }
    }
    let _guard = AbortOnPanic;
    job();
}

/// The result of a job, when it is there.
pub struct Promise<T> {
    slot: Arc<(Mutex<Option<T>>, Condvar)>,
}

impl<T> Promise<T> {
    /// Whether [`Promise::wait`] would return at once.
    pub fn is_ready(&self) -> bool {
        self.slot.0.lock().is_some()
    }

    /// The result; until it is there, the calling thread helps the pool.
    pub fn wait(self, pool: &Pool) -> T {
        loop {
            if let Some(result) = self.slot.0.lock().take() {
                return result;
            }
            if !pool.help() {
                let mut slot = self.slot.0.lock();
                while slot.is_none() {
                    self.slot.1.wait(&mut slot);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs_once_with_any_number_of_threads() {
        for threads in [0, 1, 3] {
            let pool = Pool::new(threads);
            let promises: Vec<_> = (0..100u64).map(|n| pool.ask(n % 3 == 0, move || n * n)).collect();
            let sum: u64 = promises.into_iter().map(|promise| promise.wait(&pool)).sum();
            assert_eq!(sum, (0..100).map(|n| n * n).sum::<u64>(), "with {threads} threads");
        }
    }

    #[test]
    fn what_is_for_later_waits_for_other_jobs_but_not_for_ever_and_is_no_help_to_who_waits() {
        let (pool, order) = (Pool::new(1), Arc::new(Mutex::new(Vec::new())));
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let held = pool.ask(false, move || gone.recv().is_ok());
        while !pool.shared.queue.lock().jobs.is_empty() {
            std::thread::yield_now();
        }
        let note = |what: &'static str| {
            let order = order.clone();
            move || order.lock().push(what)
        };
        pool.submit_later(note("later"));
        assert!(!pool.help(), "who waits for a block would be kept by the scripts of a transaction");
        let others: Vec<_> = (0..2 * MAX_IN_A_ROW).map(|_| pool.ask(false, note("other"))).collect();
        pool.submit_later(note("later"));
        drop(go);
        assert!(!held.wait(&Pool::new(0)));
        others.into_iter().for_each(|other| other.wait(&Pool::new(0)));
        drop(pool);
        let order = order.lock();
        let places: Vec<usize> = (0..order.len()).filter(|at| order[*at] == "later").collect();
        let row = MAX_IN_A_ROW as usize;
        assert_eq!(places, [row, 2 * row + 1], "where the jobs for later ran among {}", order.len());
    }
}
