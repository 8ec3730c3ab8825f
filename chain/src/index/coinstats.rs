//! The totals of all coins as of each block: `-coinstatsindex`. What Core counts where (`src/index/coinstatsindex.cpp`):
//! a coin that can never be spent is none, and what a block could have paid out and did not is lost.

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint};

use super::{Entry, Index, damaged};
use crate::coins::Coin;
use crate::muhash::{self, MuHash};
use crate::rules::block::is_unspendable;
use crate::rules::connect::subsidy;
use crate::stats::{CoinsHash, bogo_size};
use crate::store::codec::{DecodeError, put_number, take_number};
use crate::store::{Row, Store, StoreError};

/// Blocks of the main network whose coinbases later ones overwrote while they were unspent. Core: `IsBIP30Unspendable`.
const BIP30_UNSPENDABLE: [(u32, &str); 2] = [
    (91_722, "00000000000271a2dc26e7667f8419f2e15416dc6955e5a6c6cdf3f2574dd08e"),
    (91_812, "00000000000af0aed4792b1acee3d966af36cf5def14935db8de83d6f9306f2f"),
];

/// What became of money in one block, in satoshi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockAmounts {
    /// Sum of all coins that it spends.
    pub prevout_spent: u64,
    /// Sum of the coins that its coinbase makes.
    pub coinbase: u64,
    /// Sum of the coins that its other transactions make.
    pub new_outputs: u64,
    /// The reward of genesis, which nobody can spend.
    pub genesis: u64,
    /// The reward of a coinbase that a later one overwrites.
    pub bip30: u64,
    /// Sum of the outputs that no script can spend.
    pub scripts: u64,
    /// What the coinbase could have paid out and did not.
    pub unclaimed: u64,
}

impl BlockAmounts {
    /// Sum of all that is lost in it.
    pub fn unspendable(&self) -> u64 {
        self.genesis + self.bip30 + self.scripts + self.unclaimed
    }
}

/// The coins as of a block.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Unspent outputs.
    pub txouts: u64,
    /// See [`crate::stats::CoinStats::bogosize`].
    pub bogosize: u64,
    /// Sum of all coins, in satoshi.
    pub amount: u64,
    /// Sum of all that is lost, in satoshi.
    pub unspendable: u64,
    /// The block itself.
    pub block: BlockAmounts,
    muhash: MuHash,
}

impl Totals {
    /// The hash of the coin set. Takes some milliseconds.
    pub fn hash(&self) -> CoinsHash {
        CoinsHash(self.muhash.finalize())
    }

    fn numbers(&self) -> [u64; 11] {
        let Totals { txouts, bogosize, amount, unspendable, block, .. } = self;
        let BlockAmounts { prevout_spent, coinbase, new_outputs, genesis, bip30, scripts, unclaimed } = block;
        [
            *txouts,
            *bogosize,
            *amount,
            *unspendable,
            *prevout_spent,
            *coinbase,
            *new_outputs,
            *genesis,
            *bip30,
            *scripts,
            *unclaimed,
        ]
    }

    fn write(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(muhash::STATE_BYTES + 48);
        self.numbers().into_iter().for_each(|number| put_number(number.into(), &mut row));
        row.extend_from_slice(&self.muhash.to_bytes());
        row
    }

    fn read(row: &[u8]) -> Result<Totals, StoreError> {
        let mut rest = row;
        let mut take = || -> Result<u64, DecodeError> { Ok(take_number(&mut rest)? as u64) };
        let mut numbers = || {
            Ok(Totals {
                txouts: take()?,
                bogosize: take()?,
                amount: take()?,
                unspendable: take()?,
                block: BlockAmounts {
                    prevout_spent: take()?,
                    coinbase: take()?,
                    new_outputs: take()?,
                    genesis: take()?,
                    bip30: take()?,
                    scripts: take()?,
                    unclaimed: take()?,
                },
                muhash: MuHash::new(),
            })
        };
        let totals = numbers().map_err(|error: DecodeError| damaged(Index::CoinStats, error))?;
        let state = rest.try_into().map_err(|_| damaged(Index::CoinStats, "its hash has another length"))?;
        Ok(Totals { muhash: MuHash::from_bytes(state), ..totals })
    }
}

/// What one block changes.
pub(crate) struct Part {
    made: Count,
    spent: Count,
    amounts: BlockAmounts,
    muhash: MuHash,
}

/// Coins made, or spent.
#[derive(Default)]
struct Count {
    coins: u64,
    bogosize: u64,
    amount: u64,
}

impl Count {
    fn add(&mut self, coin: &Coin) {
        self.coins += 1;
        self.bogosize += bogo_size(coin);
        // A block can move the same money over and over. As in Core the low 64 bits of such a sum are kept, and whatever
        // is told of all coins comes out right.
        self.amount = self.amount.wrapping_add(coin.value().to_sat());
    }
}

impl Part {
    pub(super) fn new(entry: &Entry<'_>) -> Part {
        let Entry { block, height, .. } = *entry;
        let reward = subsidy(height, entry.params).to_sat();
        let mut part = Part {
            made: Count::default(),
            spent: Count::default(),
            amounts: BlockAmounts::default(),
            muhash: MuHash::new(),
        };
        if height == 0 {
            part.amounts.genesis = reward;
            return part;
        }
        let overwritten = BIP30_UNSPENDABLE.iter().any(|(at, hash)| *at == height && block.hash.to_string() == *hash);
        if overwritten {
            part.amounts.bip30 = reward;
        }
        let mut spent = entry.spent.iter();
        for (number, (transaction, txid)) in block.transactions.iter().zip(&block.txids).enumerate() {
            let coinbase = number == 0;
            let outputs = if coinbase && overwritten { &[][..] } else { &transaction.output[..] };
            for (output, vout) in outputs.iter().zip(0..) {
                if is_unspendable(&output.script_pubkey) {
                    part.amounts.scripts += output.value.to_sat();
                    continue;
                }
                let coin = Coin::new(output, height, coinbase);
                part.made.add(&coin);
                part.muhash.insert_coin(&OutPoint::new(*txid, vout), &coin);
                if coinbase {
                    part.amounts.coinbase += output.value.to_sat();
                }
            }
            if !coinbase {
                for (input, coin) in transaction.input.iter().zip(&mut spent) {
                    part.spent.add(coin);
                    part.muhash.remove_coin(&input.previous_output, coin);
                }
            }
        }
        part.amounts.prevout_spent = part.spent.amount;
        part.amounts.new_outputs = part.made.amount.wrapping_sub(part.amounts.coinbase);
        let lost = part.amounts.unspendable();
        let to_pay = part.spent.amount.wrapping_add(reward);
        part.amounts.unclaimed = to_pay.wrapping_sub(part.made.amount).wrapping_sub(lost);
        part
    }

    pub(super) fn rows(self, hash: &BlockHash, parent: Option<&[u8]>) -> Result<Vec<Row>, StoreError> {
        let nothing = || Totals {
            txouts: 0,
            bogosize: 0,
            amount: 0,
            unspendable: 0,
            block: BlockAmounts::default(),
            muhash: MuHash::new(),
        };
        let mut totals = parent.map(Totals::read).transpose()?.unwrap_or_else(nothing);
        let Part { made, spent, amounts, muhash } = self;
        let moved = |before: u64, made: u64, spent: u64| before.wrapping_add(made).wrapping_sub(spent);
        totals.txouts = moved(totals.txouts, made.coins, spent.coins);
        totals.bogosize = moved(totals.bogosize, made.bogosize, spent.bogosize);
        totals.amount = moved(totals.amount, made.amount, spent.amount);
        totals.unspendable += amounts.unspendable();
        totals.block = amounts;
        totals.muhash.combine(&muhash);
        Ok(vec![Row { index: Index::CoinStats, key: hash.to_byte_array().to_vec(), value: totals.write() }])
    }
}

/// The coins as of this block, if it is indexed.
pub fn totals(store: &dyn Store, block: &BlockHash) -> Result<Option<Totals>, StoreError> {
    let row = store.rows(Index::CoinStats, &[block.to_byte_array().to_vec()])?.remove(0);
    row.as_deref().map(Totals::read).transpose()
}
