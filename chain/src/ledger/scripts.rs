//! The scripts of one block, run in the pool.

use std::ops::Range;
use std::sync::Arc;

use crate::block::Block;
use crate::coins::Coin;
use crate::pool::{Pool, Promise};
use crate::rejection::Rejection;
use crate::script::{Flags, ScriptError, Sighashes, VerdictCache, verify_input};

/// Inputs that one job takes at least, unless the block ends before.
const INPUTS_PER_JOB: usize = 64;

/// Scripts of a block under way. Dropping it lets the jobs run out unheard.
pub(super) struct ScriptRun {
    jobs: Vec<Promise<Option<Failure>>>,
}

/// The first script of a job that failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    transaction: usize,
    input: usize,
}

type Failure = (Place, ScriptError);

impl ScriptRun {
    /// No script has to be run.
    pub fn none() -> ScriptRun {
        ScriptRun { jobs: Vec::new() }
    }

    /// Starts all scripts of a block but those that `verdicts` knows to hold; `spent` holds the coins of its inputs in
    /// block order.
    pub fn start(
        pool: &Pool,
        block: &Arc<Block>,
        spent: &Arc<Vec<Coin>>,
        flags: Flags,
        verdicts: Option<&Arc<VerdictCache>>,
    ) -> ScriptRun {
        let mut jobs = Vec::new();
        let mut job = |from: Cursor, to: Cursor| {
            let (block, spent, verdicts) = (block.clone(), spent.clone(), verdicts.cloned());
            jobs.push(pool.ask(false, move || run(&block, &spent, from, to, flags, verdicts.as_deref())));
        };
        let (mut from, mut at) = (Cursor::default(), Cursor::default());
        for (transaction, tx) in block.transactions.iter().enumerate().skip(1) {
            at = Cursor { transaction: transaction + 1, coin: at.coin + tx.input.len() };
            from.transaction = from.transaction.max(1);
            if at.coin - from.coin >= INPUTS_PER_JOB {
                job(from, at);
                from = at;
            }
        }
        if at.coin > from.coin {
            job(from, at);
        }
        ScriptRun { jobs }
    }

    /// Whether the verdict is there.
    pub fn is_ready(&self) -> bool {
        self.jobs.iter().all(Promise::is_ready)
    }

    /// The verdict: of all failures the one of the lowest transaction and input, whichever thread was first.
    pub fn wait(self, pool: &Pool) -> Result<(), Rejection> {
        let failures = self.jobs.into_iter().filter_map(|job| job.wait(pool));
        match failures.min_by_key(|(place, _)| *place) {
            Some((_, error)) => Err(Rejection::BlockScript(error)),
            None => Ok(()),
        }
    }
}

/// A place in a block: a transaction, and the number of inputs before it.
#[derive(Clone, Copy, Default)]
struct Cursor {
    transaction: usize,
    coin: usize,
}

fn run(
    block: &Block,
    spent: &[Coin],
    from: Cursor,
    to: Cursor,
    flags: Flags,
    verdicts: Option<&VerdictCache>,
) -> Option<Failure> {
    let mut coin = from.coin;
    let transactions: Range<usize> = from.transaction..to.transaction;
    for transaction in transactions {
        let tx = &block.transactions[transaction];
        let coins = &spent[coin..coin + tx.input.len()];
        coin += tx.input.len();
        let holds = |known: &VerdictCache| known.contains(&known.transaction_key(&block.wtxids[transaction], flags));
        if verdicts.is_some_and(holds) {
            continue;
        }
        let sighashes = Sighashes::new(tx, coins);
        for input in 0..tx.input.len() {
            if let Err(error) = verify_input(&sighashes, input, flags, None) {
                return Some((Place { transaction, input }, error));
            }
        }
    }
    None
}
