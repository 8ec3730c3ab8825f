//! The chain of many coins: scripts that cost nothing, millions of coins, many of them spent again in random order,
//! so that look-ups miss small caches.

use std::path::Path;

use bitcoin::opcodes::all::{OP_DROP, OP_PUSHNUM_1};
use bitcoin::script::{Builder, ScriptBuf};
use bitcoin::{OutPoint, Transaction, TxOut, Witness};
use rand::Rng;

use super::{COINBASE_MATURITY, Chain, Coin, FRAME_WEIGHT, Purse, Summary, TARGET_WEIGHT};
use crate::regtest;

/// Outputs of each coinbase that a fan-out block splits.
const COINBASE_PARTS: u64 = 16;
/// How the summary calls the kinds of coin, in the order of [`MIX`].
const NAMES: [&str; 3] = ["drop-true", "true", "p2wsh-true"];
/// Per cent of the outputs: 20 random bytes dropped, then true (as long as P2PKH nearly); bare OP_TRUE; P2WSH of it.
const MIX: [u32; 3] = [60, 20, 20];
/// Weight of a transaction without inputs and outputs, with room for longer counts.
const TRANSACTION_WEIGHT: usize = 60;
/// Most weight of an input: the outpoint, the sequence, an empty script, and a witness of one script.
const INPUT_WEIGHT: usize = 41 * 4 + 4;

/// How to make the chain.
pub struct Recipe {
    /// The same seed gives the same chain.
    pub seed: u64,
    /// Coins alive at the end, to within a block's worth.
    pub coins: u64,
    /// Spends after the fan-out, as a per cent of `coins`.
    pub spent: u64,
}

impl Recipe {
    /// Five million coins, and three million spends of them.
    pub const DEFAULT: Recipe = Recipe { seed: 1, coins: 5_000_000, spent: 60 };
}

/// Writes the chain of `recipe` into `folder`.
pub fn generate(recipe: &Recipe, folder: &Path) -> std::io::Result<Summary> {
    let mut purse = Purse::new(recipe.seed);
    let mut chain = Chain::create(folder, "coins", recipe.seed)?;
    let reward = script(1, &mut purse);
    let mut rewards = std::collections::VecDeque::new();
    for _ in 0..COINBASE_MATURITY {
        rewards.push_back(chain.extend(reward.clone(), COINBASE_PARTS, 0, vec![])?);
    }
    while chain.summary.utxos < recipe.coins {
        let parts = rewards.pop_front().expect("one matures with every block");
        let mut block = Packing { transactions: vec![], weight: FRAME_WEIGHT, fees: 0 };
        let room = (TARGET_WEIGHT - FRAME_WEIGHT) / parts.len();
        for (outpoint, value) in parts {
            let coin = Coin { outpoint, value, script: 1 };
            fan_out(&mut chain, &mut purse, &mut block, coin, room);
        }
        rewards.push_back(chain.extend(reward.clone(), COINBASE_PARTS, block.fees, block.transactions)?);
    }
    let mut left = recipe.coins * recipe.spent / 100;
    while left > 0 {
        let mut block = Packing { transactions: vec![], weight: FRAME_WEIGHT, fees: 0 };
        while left > 0 && block.weight < TARGET_WEIGHT - 2_000 {
            let count = (1 + purse.choose(&[30, 40, 20, 10])).min(left as usize);
            let coins: Vec<Coin> = (0..count).map(|_| purse.take()).collect();
            left -= count as u64;
            let (amounts, fee) = purse.split(coins.iter().map(|coin| coin.value).sum(), count);
            block.fees += fee;
            let kinds: Vec<_> = amounts.into_iter().map(|amount| (amount, purse.choose(&MIX))).collect();
            block.add(&mut chain, &mut purse, &coins, kinds);
        }
        chain.extend(reward.clone(), 1, block.fees, block.transactions)?;
    }
    chain.finish()
}

/// A block that is being filled.
struct Packing {
    transactions: Vec<Transaction>,
    weight: usize,
    fees: u64,
}

impl Packing {
    /// Spends `coins` to outputs of these amounts and kinds.
    fn add(&mut self, chain: &mut Chain, purse: &mut Purse, coins: &[Coin], kinds: Vec<(u64, usize)>) {
        let outputs: Vec<TxOut> =
            kinds.iter().map(|(amount, kind)| regtest::output(*amount, script(*kind, purse))).collect();
        let mut inputs = Vec::with_capacity(coins.len());
        for coin in coins {
            let mut input = regtest::unsigned(coin.outpoint);
            if coin.script == 2 {
                input.witness = Witness::from_slice(&[[OP_PUSHNUM_1.to_u8()]]);
            }
            inputs.push(input);
            chain.spent(coin.value);
            *chain.summary.inputs.entry(NAMES[coin.script as usize].into()).or_default() += 1;
        }
        let transaction = regtest::transaction(inputs, outputs);
        let txid = transaction.compute_txid();
        for (vout, (value, kind)) in (0..).zip(kinds) {
            purse.put(Coin { outpoint: OutPoint { txid, vout }, value, script: kind as u32 });
        }
        self.weight += transaction.weight().to_wu() as usize;
        self.transactions.push(transaction);
    }
}

/// Splits one output of a coinbase into as many coins of the mix as fit into `room`.
fn fan_out(chain: &mut Chain, purse: &mut Purse, block: &mut Packing, coin: Coin, room: usize) {
    let mut kinds = Vec::new();
    let mut weight = TRANSACTION_WEIGHT + INPUT_WEIGHT;
    loop {
        let kind = purse.choose(&MIX);
        weight += (9 + [23, 1, 34][kind]) * 4;
        if weight > room {
            break;
        }
        kinds.push(kind);
    }
    let value = coin.value / (kinds.len() as u64 + 1);
    block.fees += coin.value - value * kinds.len() as u64;
    block.add(chain, purse, &[coin], kinds.into_iter().map(|kind| (value, kind)).collect());
}

/// An output script of this kind.
fn script(kind: usize, purse: &mut Purse) -> ScriptBuf {
    let yes = ScriptBuf::from_bytes(vec![OP_PUSHNUM_1.to_u8()]);
    match kind {
        0 => {
            let bytes: [u8; 20] = purse.random.random();
            Builder::new().push_slice(bytes).push_opcode(OP_DROP).push_opcode(OP_PUSHNUM_1).into_script()
        }
        1 => yes,
        _ => yes.to_p2wsh(),
    }
}
