//! Valid blocks and mutants of them: every judge gives the same verdict in the same words, and ends at the same tip
//! with the same coins.

use std::sync::Arc;

use bitcoin::BlockHash;
use groat_chain::ledger::{Accepted, Incoming, Ledger, Options};
use groat_chain::params::{Params, RegtestOptions, parse_activation_height};
use groat_chain::pool::Pool;
use groat_chain::stats::{CoinCount, HashKind};
use groat_chain::store::mem::MemStore;
use groat_tests::bitcoind::{Bitcoind, peers};
use groat_tests::mutants::{Judge, NOW, Scenario, scenarios};

/// Groat's ledger in memory.
struct Groat(Ledger);

impl Groat {
    fn new(scenario: &Scenario, threads: usize) -> Groat {
        let activation = scenario.activation.iter().map(|(name, height)| format!("{name}@{height}"));
        let activation_heights = activation.map(|argument| parse_activation_height(&argument).unwrap()).collect();
        let params = Params::regtest(&RegtestOptions { activation_heights, ..Default::default() });
        let options = Options { assumed_valid: None, table_bytes: 1 << 24, prune: None };
        let (store, pool) = (Arc::new(MemStore::new()), Arc::new(Pool::new(threads)));
        Groat(Ledger::open(Arc::new(params), store, pool, options).unwrap())
    }
}

impl Judge for Groat {
    fn submit(&mut self, block: &[u8]) -> Result<(), String> {
        let incoming = Incoming::decode(block.to_vec(), self.0.params()).map_err(|_| "Block decode failed")?;
        let hash = incoming.block.hash;
        match self.0.accept_block(incoming, None, NOW).unwrap() {
            Ok(Accepted::New(_)) => {}
            Ok(Accepted::Known(_)) => return Err("duplicate".into()),
            Err(rejection) => return Err(rejection.to_string()),
        }
        let refused = self.0.activate_fully().unwrap();
        match refused.into_iter().find(|(refused, _)| *refused == hash) {
            Some((_, rejection)) => Err(rejection.to_string()),
            None => Ok(()),
        }
    }

    fn tip(&mut self) -> BlockHash {
        let tree = self.0.tree();
        let tree = tree.read();
        tree.node(tree.tip()).hash
    }

    fn muhash(&mut self) -> String {
        self.0.flush().unwrap();
        let mut count = CoinCount::new(HashKind::Muhash, 0, self.tip());
        let counted = self.0.store().for_each_coin(&mut |outpoint, coin| {
            count.add(&outpoint, &coin);
            true
        });
        counted.unwrap();
        count.finish().hash.unwrap().to_string()
    }
}

/// Hands every block of a scenario to every judge, and compares verdicts and tips after each; the coins too, or only
/// at the end: to ask for them makes a judge write its cache, and a fault may hide in one that is never written.
fn run(scenario: &Scenario, judges: &mut [(&str, &mut dyn Judge)], coins_after_each: bool) {
    let mut coins_before = None;
    for (index, step) in scenario.steps.iter().enumerate() {
        let case = format!("{}, step {index} ({})", scenario.name, step.name);
        for (name, judge) in judges.iter_mut() {
            let answer = judge.submit(&step.block);
            assert_eq!(answer, step.expected, "{case}: the verdict of {name} (left) is not the one expected (right)");
            assert_eq!(judge.tip(), step.tip, "{case}: the tip of {name} (left) is not the one expected (right)");
        }
        if !coins_after_each && index + 1 < scenario.steps.len() {
            continue;
        }
        let muhashes: Vec<String> = judges.iter_mut().map(|(_, judge)| judge.muhash()).collect();
        assert!(muhashes.iter().all(|muhash| *muhash == muhashes[0]), "{case}: the coins differ: {muhashes:?}");
        let coins = (step.tip, muhashes[0].clone());
        if let Some(before) = coins_before.replace(coins.clone()).filter(|(tip, _)| *tip == step.tip) {
            assert_eq!(before, coins, "{case}: the coins changed and the tip did not");
        }
    }
}

/// Needs no bitcoind: the words expected are those it gives, as the test below shows.
#[test]
fn mutants_are_refused_with_any_number_of_threads() {
    for scenario in scenarios() {
        let (mut inline, mut pooled) = (Groat::new(&scenario, 0), Groat::new(&scenario, 2));
        run(&scenario, &mut [("groat inline", &mut inline), ("groat with 2 threads", &mut pooled)], true);
    }
}

#[test]
fn mutants_are_refused_in_the_same_words() {
    let Some(peers) = peers() else { return };
    for scenario in scenarios() {
        for coins_after_each in [true, false] {
            let mut bitcoind = Bitcoind::start(&peers, &scenario.options());
            let mut groat = Groat::new(&scenario, 2);
            run(&scenario, &mut [("bitcoind", &mut bitcoind), ("groat", &mut groat)], coins_after_each);
        }
    }
}

#[test]
fn mutants_break_every_rule_that_a_regtest_block_can_break() {
    let mut seen: Vec<String> = scenarios()
        .iter()
        .flat_map(|scenario| &scenario.steps)
        .filter_map(|step| Some(step.expected.as_ref().err()?.split(['(', ' ']).next()?.to_owned()))
        .collect();
    seen.sort();
    seen.dedup();
    for reason in [
        "bad-blk-length",
        "bad-blk-sigops",
        "bad-blk-weight",
        "bad-cb-amount",
        "bad-cb-height",
        "bad-cb-length",
        "bad-cb-missing",
        "bad-cb-multiple",
        "bad-diffbits",
        "bad-prevblk",
        "bad-txnmrklroot",
        "bad-txns-BIP30",
        "bad-txns-duplicate",
        "bad-txns-in-belowout",
        "bad-txns-inputs-duplicate",
        "bad-txns-inputs-missingorspent",
        "bad-txns-nonfinal",
        "bad-txns-premature-spend-of-coinbase",
        "bad-txns-prevout-null",
        "bad-txns-txouttotal-toolarge",
        "bad-txns-vin-empty",
        "bad-txns-vout-empty",
        "bad-txns-vout-negative",
        "bad-txns-vout-toolarge",
        "bad-version",
        "bad-witness-merkle-match",
        "bad-witness-nonce-size",
        "block-script-verify-flag-failed",
        "duplicate",
        "duplicate-invalid",
        "high-hash",
        "prev-blk-not-found",
        "time-too-new",
        "time-too-old",
        "unexpected-witness",
    ] {
        assert!(seen.iter().any(|one| one == reason), "no mutant is refused with {reason}; there are {seen:?}");
    }
}
