//! The chain of full blocks: today's mix of inputs, every one signed.

use std::path::Path;

use bitcoin::{OutPoint, Transaction};
use rand::Rng;

use super::keys::{Checks, KINDS, Keys, Kind, MIX, NAMES};
use super::{COINBASE_MATURITY, Chain, Coin, FRAME_WEIGHT, Purse, Summary, TARGET_WEIGHT};
use crate::regtest;

/// Outputs of each coinbase that a fan-out block splits.
const COINBASE_PARTS: u64 = 10;
/// `Coin::script` of what coinbases pay to: P2WPKH of the first key.
const REWARD: u32 = 0;
/// A block is signed in so many waves: a wave may spend what the one before made.
const WAVES: usize = 4;
/// Most weight that an input of each kind can have, signatures at their longest, in the order of `Kind`.
const INPUT_WEIGHT: [usize; 8] = [273, 231, 596, 366, 420, 305, 756, 1_184];
/// Weight of a transaction without inputs and outputs.
const TRANSACTION_WEIGHT: usize = 42;

/// How to make the chain.
pub struct Recipe {
    /// The same seed gives the same chain.
    pub seed: u64,
    /// Number of full blocks.
    pub blocks: u32,
    /// Number of fan-out blocks before them, about 23,000 coins each.
    pub fan_out: u32,
    /// Number of different keys.
    pub keys: usize,
}

impl Recipe {
    /// About a million signature checks, a pool of some 300,000 coins.
    pub const DEFAULT: Recipe = Recipe { seed: 1, blocks: 116, fan_out: 13, keys: 8_192 };
}

/// A transaction to be signed: what it spends, and the `Coin::script` of what it makes.
struct Draft {
    transaction: Transaction,
    coins: Vec<Coin>,
    made: Vec<u32>,
}

/// Writes the chain of `recipe` into `folder`.
pub fn generate(recipe: &Recipe, folder: &Path) -> std::io::Result<Summary> {
    let keys = Keys::new(recipe.keys, recipe.seed);
    let mut purse = Purse::new(recipe.seed);
    let mut chain = Chain::create(folder, "full", recipe.seed)?;
    let reward = keys.script(REWARD).clone();
    let mut rewards = Vec::new();
    for height in 1..=COINBASE_MATURITY {
        let parts = if height <= recipe.fan_out { COINBASE_PARTS } else { 1 };
        rewards.push(chain.extend(reward.clone(), parts, 0, vec![])?);
    }
    for parts in rewards.into_iter().take(recipe.fan_out as usize) {
        let mut fees = 0;
        let each = (TARGET_WEIGHT - FRAME_WEIGHT) / parts.len();
        let mut drafts: Vec<Draft> =
            parts.into_iter().map(|part| fan_out(&keys, &mut purse, part, each, &mut fees)).collect();
        sign(&keys, &mut drafts, &mut chain, &mut purse);
        chain.extend(reward.clone(), 1, fees, drafts.into_iter().map(|draft| draft.transaction).collect())?;
    }
    for _ in 0..recipe.blocks {
        let mut transactions = Vec::new();
        let (mut weight, mut fees) = (FRAME_WEIGHT, 0);
        for wave in 1..=WAVES {
            let mut estimate = weight;
            let mut drafts = Vec::new();
            loop {
                let (draft, most, fee) = payment(&keys, &mut purse);
                fees += fee;
                estimate += most;
                drafts.push(draft);
                if estimate > TARGET_WEIGHT * wave / WAVES - 3_000 {
                    break;
                }
            }
            sign(&keys, &mut drafts, &mut chain, &mut purse);
            weight += drafts.iter().map(|draft| draft.transaction.weight().to_wu() as usize).sum::<usize>();
            transactions.extend(drafts.into_iter().map(|draft| draft.transaction));
        }
        chain.extend(reward.clone(), 1, fees, transactions)?;
    }
    chain.finish()
}

/// Splits one output of a coinbase into as many coins of the mix as fit into `room`.
fn fan_out(keys: &Keys, purse: &mut Purse, part: (OutPoint, u64), room: usize, fees: &mut u64) -> Draft {
    let mut made = Vec::new();
    let mut weight = TRANSACTION_WEIGHT + INPUT_WEIGHT[0] + 16;
    loop {
        let script = pick(keys, purse);
        weight += output_weight(keys, script);
        if weight > room {
            break;
        }
        made.push(script);
    }
    let value = part.1 / (made.len() as u64 + 1);
    *fees += part.1 - value * made.len() as u64;
    let outputs = made.iter().map(|script| regtest::output(value, keys.script(*script).clone())).collect();
    let transaction = regtest::transaction(vec![regtest::unsigned(part.0)], outputs);
    Draft { transaction, coins: vec![Coin { outpoint: part.0, value: part.1, script: REWARD }], made }
}

/// A payment of one to three coins to one to three outputs; the most it can weigh; its fee.
fn payment(keys: &Keys, purse: &mut Purse) -> (Draft, usize, u64) {
    let coins: Vec<Coin> = (0..=purse.choose(&[55, 30, 15])).map(|_| purse.take()).collect();
    let parts = 1 + purse.choose(&[25, 60, 15]);
    let (amounts, fee) = purse.split(coins.iter().map(|coin| coin.value).sum(), parts);
    let made: Vec<u32> = amounts.iter().map(|_| pick(keys, purse)).collect();
    let most = TRANSACTION_WEIGHT
        + made.iter().map(|script| output_weight(keys, *script)).sum::<usize>()
        + coins.iter().map(|coin| INPUT_WEIGHT[Kind::of(coin.script) as usize]).sum::<usize>();
    let inputs = coins.iter().map(|coin| regtest::unsigned(coin.outpoint)).collect();
    let outputs =
        amounts.iter().zip(&made).map(|(amount, script)| regtest::output(*amount, keys.script(*script).clone()));
    let transaction = regtest::transaction(inputs, outputs.collect());
    (Draft { transaction, coins, made }, most, fee)
}

/// A script of the mix, of a random key.
fn pick(keys: &Keys, purse: &mut Purse) -> u32 {
    let kind = KINDS[purse.choose(&MIX)];
    kind.with_key(purse.random.random_range(0..keys.len()))
}

fn output_weight(keys: &Keys, script: u32) -> usize {
    (keys.script(script).len() + 9) * 4
}

/// Signs all drafts, on two threads, and books them: their coins into the purse, their figures into the summary. The
/// outcome does not depend on the threads' pace.
fn sign(keys: &Keys, drafts: &mut [Draft], chain: &mut Chain, purse: &mut Purse) {
    let (left, right) = drafts.split_at_mut(drafts.len() / 2);
    let run = |half: &mut [Draft]| {
        half.iter_mut().fold(Checks::default(), |sum, draft| sum.plus(keys.sign(&mut draft.transaction, &draft.coins)))
    };
    let checks = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(right));
        run(left).plus(other.join().expect("signing does not panic"))
    });
    chain.summary.ecdsa_checks += checks.ecdsa;
    chain.summary.ecdsa_failing += checks.ecdsa_failing;
    chain.summary.schnorr_checks += checks.schnorr;
    chain.summary.taproot_tweaks += checks.tweaks;
    for draft in drafts {
        for coin in &draft.coins {
            chain.spent(coin.value);
            *chain.summary.inputs.entry(NAMES[Kind::of(coin.script) as usize].into()).or_default() += 1;
        }
        let txid = draft.transaction.compute_txid();
        for ((vout, output), script) in (0..).zip(&draft.transaction.output).zip(&draft.made) {
            purse.put(Coin { outpoint: OutPoint { txid, vout }, value: output.value.to_sat(), script: *script });
        }
    }
}
