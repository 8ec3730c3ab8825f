//! The totals of a coin set, as Core's `gettxoutsetinfo` gives them (`src/kernel/coinstats.cpp`). Knows no store:
//! the coins are shown to it one by one.

#[cfg(test)]
mod tests;

use crate::coins::Coin;
use crate::muhash::{MuHash, hash_coin};
use bitcoin::{Amount, BlockHash, OutPoint, Txid};
use sha2::{Digest, Sha256};
use std::fmt;

/// Which hash of the coins to take (Core: `CoinStatsHashType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// `muhash`: the same in any order of the coins.
    Muhash,
    /// `hash_serialized_3`: what a snapshot of the coins is recognized by. Needs the coins in order.
    Serialized3,
    /// `none`: totals only.
    None,
}

/// The totals of the coins as of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoinStats {
    /// Height of the block.
    pub height: u32,
    /// Hash of the block.
    pub bestblock: BlockHash,
    /// Transactions that have an unspent output. Counted right only if the coins came in order.
    pub transactions: u64,
    /// Unspent outputs.
    pub txouts: u64,
    /// A size that depends on no database: 50 bytes and the script, for each coin.
    pub bogosize: u64,
    /// Sum of all amounts; `None` if it passes what Core's `CAmount` can hold.
    pub total_amount: Option<Amount>,
    /// The hash asked for; `None` for [`HashKind::None`].
    pub hash: Option<CoinsHash>,
}

/// A hash of the coin set, in the order of Core's `uint256`; shown as Core shows it, the last byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoinsHash(pub [u8; 32]);

impl fmt::Display for CoinsHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// What a coin counts in [`CoinStats::bogosize`] (Core: `GetBogoSize`).
pub(crate) fn bogo_size(coin: &Coin) -> u64 {
    32 + 4 + 4 + 8 + 2 + coin.script_pubkey().len() as u64
}

/// The totals while the coins are being walked.
#[derive(Clone, Debug)]
pub struct CoinCount {
    stats: CoinStats,
    hash: RunningHash,
    previous: Option<Txid>,
}

/// The hash while the coins are being walked.
#[derive(Clone, Debug)]
enum RunningHash {
    Muhash(Box<MuHash>),
    Serialized3(Sha256),
    None,
}

impl CoinCount {
    /// Starts to count the coins as of the block `bestblock` at `height`.
    pub fn new(kind: HashKind, height: u32, bestblock: BlockHash) -> CoinCount {
        CoinCount {
            stats: CoinStats {
                height,
                bestblock,
                transactions: 0,
                txouts: 0,
                bogosize: 0,
                total_amount: Some(Amount::ZERO),
                hash: None,
            },
            hash: match kind {
                HashKind::Muhash => RunningHash::Muhash(Box::default()),
                HashKind::Serialized3 => RunningHash::Serialized3(Sha256::new()),
                HashKind::None => RunningHash::None,
            },
            previous: None,
        }
    }

    /// Counts one coin. [`HashKind::Serialized3`] and the number of transactions need the coins in order: by the bytes
    /// of the txid, then by the number of the output, as `Store::for_each_coin` gives them.
    pub fn add(&mut self, outpoint: &OutPoint, coin: &Coin) {
        let stats = &mut self.stats;
        if self.previous.replace(outpoint.txid) != Some(outpoint.txid) {
            stats.transactions += 1;
        }
        stats.txouts += 1;
        stats.bogosize += bogo_size(coin);
        let sum = stats.total_amount.and_then(|total| total.checked_add(coin.value()));
        stats.total_amount = sum.filter(|total| i64::try_from(total.to_sat()).is_ok());
        match &mut self.hash {
            RunningHash::Muhash(hash) => hash.insert_coin(outpoint, coin),
            RunningHash::Serialized3(hash) => hash_coin(hash, outpoint, coin),
            RunningHash::None => {}
        }
    }

    /// The totals of all coins that were counted.
    pub fn finish(self) -> CoinStats {
        let hash = match self.hash {
            RunningHash::Muhash(hash) => Some(hash.finalize()),
            RunningHash::Serialized3(hash) => Some(Sha256::digest(hash.finalize()).into()),
            RunningHash::None => None,
        };
        CoinStats { hash: hash.map(CoinsHash), ..self.stats }
    }
}
