//! Valid blocks and mutants of them: every judge gives the same verdict in the same words, and ends at the same tip
//! with the same coins.

use groat_tests::bitcoind::{Bitcoind, peers};
use groat_tests::mutants::{Judge, Scenario, scenarios};

use super::judge::Groat;

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
        "time-timewarp-attack",
        "time-too-new",
        "time-too-old",
        "unexpected-witness",
    ] {
        assert!(seen.iter().any(|one| one == reason), "no mutant is refused with {reason}; there are {seen:?}");
    }
}
