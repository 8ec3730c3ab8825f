//! Groat's script engine against Bitcoin Core's (the crate `bitcoinconsensus`): random and spoiled spends under random
//! consensus flags, the same verdict asked of both.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use bitcoin::consensus::{self, encode};
use bitcoin::{Amount, ScriptBuf, Sequence, TxOut, Witness, absolute};
use groat_chain::coins::Coin;
use groat_chain::script::{Flags, ScriptError, Sighashes, verify_input};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::spends::{Maker, Spend};

/// A spend and the flags to verify it under.
#[derive(Clone, Debug)]
pub struct Case {
    /// Transaction, coins and input.
    pub spend: Spend,
    /// Consensus flags: WITNESS only with P2SH, TAPROOT only with WITNESS.
    pub flags: Flags,
}

impl Case {
    /// Case `number` of the run with `seed`.
    pub fn random(maker: &Maker, seed: u64, number: u64) -> Case {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number);
        let mut spend = maker.spend(&mut random);
        if random.random_ratio(1, 2) {
            for _ in 0..random.random_range(1..=2) {
                spoil(&mut spend, &mut random);
            }
        }
        Case { spend, flags: flags(&mut random) }
    }

    /// The whole case: flags, index, transaction, then each coin as an output.
    pub fn to_hex(&self) -> String {
        let head = [self.flags.bits(), self.spend.index as u32].map(|number| encode::serialize_hex(&number));
        let coins = self.spend.coins.iter().map(|coin| encode::serialize_hex(&coin.to_output()));
        head.into_iter().chain([encode::serialize_hex(&self.spend.transaction)]).chain(coins).collect()
    }

    /// Reads [`Case::to_hex`].
    pub fn from_hex(text: &str) -> anyhow::Result<Case> {
        let bytes: Vec<u8> = hex::FromHex::from_hex(text).context("a case is hex")?;
        let mut rest = bytes.as_slice();
        let mut number = || -> anyhow::Result<u32> { Ok(consensus::Decodable::consensus_decode(&mut rest)?) };
        let (flags, index) = (Flags::from_bits_truncate(number()?), number()? as usize);
        let transaction: bitcoin::Transaction = consensus::Decodable::consensus_decode(&mut rest)?;
        let coins: Result<Vec<Coin>, encode::Error> = (0..transaction.input.len())
            .map(|_| Ok(Coin::new(&<TxOut as consensus::Decodable>::consensus_decode(&mut rest)?, 0, false)))
            .collect();
        Ok(Case { spend: Spend { transaction, coins: coins?, index }, flags })
    }

    /// Groat's verdict.
    pub fn groat(&self) -> Result<(), ScriptError> {
        let Spend { transaction, coins, index } = &self.spend;
        verify_input(&Sighashes::new(transaction, coins), *index, self.flags, None)
    }

    /// Core's verdict.
    ///
    /// # Panics
    /// When Core cannot judge the case: then it was made badly.
    pub fn core(&self) -> bool {
        let Spend { transaction, coins, index } = &self.spend;
        let spent: Vec<bitcoinconsensus::Utxo> = coins
            .iter()
            .map(|coin| bitcoinconsensus::Utxo {
                script_pubkey: coin.script_pubkey().as_bytes().as_ptr(),
                script_pubkey_len: coin.script_pubkey().len() as u32,
                value: coin.value().to_sat().cast_signed(),
            })
            .collect();
        let coin = &coins[*index];
        let verdict = bitcoinconsensus::verify_with_flags(
            coin.script_pubkey().as_bytes(),
            coin.value().to_sat(),
            &consensus::serialize(transaction),
            Some(&spent),
            *index,
            self.flags.bits(), // Core's own numbering
        );
        match verdict {
            Ok(()) => true,
            Err(bitcoinconsensus::Error::ERR_SCRIPT) => false,
            Err(error) => panic!("Core cannot judge the case: {error}: {}", self.to_hex()),
        }
    }
}

/// All consensus flags half of the time, else a set that goes together.
fn flags(random: &mut ChaCha8Rng) -> Flags {
    if random.random() {
        return Flags::MANDATORY;
    }
    let drawn = Flags::from_bits_truncate(random.random::<u32>() & Flags::MANDATORY.bits()).without_unfounded();
    if drawn.contains(Flags::WITNESS) { drawn } else { drawn.without(Flags::TAPROOT) }
}

/// Changes something about a spend after it was signed.
pub fn spoil(spend: &mut Spend, random: &mut ChaCha8Rng) {
    let Spend { transaction, coins, index } = spend;
    let other = random.random_range(0..coins.len());
    let input = &mut transaction.input[*index];
    match random.random_range(0..12) {
        0..=3 => {
            let mut elements = input.witness.to_vec();
            spoil_witness(&mut elements, random);
            input.witness = Witness::from_slice(&elements);
        }
        4 | 5 => {
            let mut script = input.script_sig.to_bytes();
            spoil_bytes(&mut script, random);
            input.script_sig = ScriptBuf::from_bytes(script);
        }
        6 => {
            let mut script = coins[*index].script_pubkey().to_bytes();
            spoil_bytes(&mut script, random);
            coins[*index] = Coin::from_parts(coins[*index].value().to_sat(), &script, 0, false);
        }
        7 => {
            let script = coins[other].script_pubkey().to_bytes();
            coins[other] = Coin::from_parts(random.random_range(0..1 << 50), &script, 0, false);
        }
        8 => transaction.input[other].sequence = Sequence(random.random()),
        9 => transaction.lock_time = absolute::LockTime::from_consensus(random.random()),
        10 => transaction.input[other].previous_output.vout ^= 1,
        _ => match transaction.output.first_mut() {
            Some(output) => output.value = Amount::from_sat(random.random_range(0..1 << 50)),
            None => transaction.version.0 ^= 1,
        },
    }
}

fn spoil_witness(elements: &mut Vec<Vec<u8>>, random: &mut ChaCha8Rng) {
    if elements.is_empty() {
        return elements.push(vec![random.random(); random.random_range(0..3)]);
    }
    let (at, to) = (random.random_range(0..elements.len()), random.random_range(0..elements.len()));
    match random.random_range(0..8) {
        0 => elements.swap(at, to),
        1 => {
            elements.remove(at);
        }
        2 => elements.insert(at, elements[to].clone()),
        3 => elements.insert(at, vec![0x50; random.random_range(0..3)]),
        4 => elements[at].clear(),
        5 => elements[at].resize(random.random_range(0..600), 1),
        _ => spoil_bytes(&mut elements[at], random),
    }
}

/// Changes one byte or bit, or how many there are.
pub fn spoil_bytes(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..4) {
        0 => bytes.insert(at, random.random()),
        1 if at < bytes.len() => {
            bytes.remove(at);
        }
        2 if at < bytes.len() => bytes[at] = random.random(),
        _ if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        _ => bytes.push(random.random()),
    }
}

/// Two verdicts on one case.
#[derive(Debug)]
pub struct Disagreement {
    case: Case,
    groat: Result<(), ScriptError>,
    core: bool,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |valid| if valid { "valid" } else { "invalid" };
        writeln!(out, "Core says {}, Groat {:?}, under {}.", word(self.core), self.groat, self.case.flags)?;
        writeln!(
            out,
            "To repeat: cargo run --release -p groat-tests --bin fuzz_script -- --case {}",
            self.case.to_hex()
        )
    }
}

/// Asks both for their verdict: Groat's, if they agree.
pub fn judge(case: &Case) -> Result<Result<(), ScriptError>, Box<Disagreement>> {
    let (groat, core) = (case.groat(), case.core());
    if groat.is_ok() == core { Ok(groat) } else { Err(Box::new(Disagreement { case: case.clone(), groat, core })) }
}

/// How often each verdict came, `OK` among them.
pub type Verdicts = BTreeMap<&'static str, u64>;

/// Runs cases 0 to `count` of `seed` on every processor; stops at the first disagreement.
pub fn run(seed: u64, count: u64) -> Result<Verdicts, Box<Disagreement>> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let stop = AtomicBool::new(false);
    let part = |first: u64| -> Result<Verdicts, Box<Disagreement>> {
        let (maker, mut verdicts) = (Maker::default(), Verdicts::new());
        for number in (first..count).step_by(threads as usize) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let verdict =
                judge(&Case::random(&maker, seed, number)).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            *verdicts.entry(verdict.map_or_else(ScriptError::name, |()| "OK")).or_default() += 1;
        }
        Ok(verdicts)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first))).collect();
        let mut sum = Verdicts::new();
        for worker in workers {
            for (name, count) in worker.join().expect("a worker panics only on a case that Core cannot judge")? {
                *sum.entry(name).or_default() += count;
            }
        }
        Ok(sum)
    })
}
