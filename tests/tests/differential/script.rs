//! The script engine against Bitcoin Core's.

use groat_tests::fuzz_script::{Case, run};
use groat_tests::spends::Maker;

use super::setting;

#[test]
fn scripts_get_the_verdict_that_core_gives() {
    let (seed, count) = (setting("GROAT_FUZZ_SEED", 1), setting("GROAT_FUZZ_COUNT", 20_000));
    println!("seed {seed} (GROAT_FUZZ_SEED), {count} cases (GROAT_FUZZ_COUNT)");
    let verdicts = run(seed, count).unwrap_or_else(|disagreement| panic!("{disagreement}"));
    // The cases are worth something only while both verdicts are common and come for many reasons.
    let valid = verdicts.get("OK").copied().unwrap_or(0);
    assert!(valid * 4 > count && valid * 4 < count * 3, "{valid} of {count} cases are valid: {verdicts:?}");
    assert!(count < 20_000 || verdicts.len() > 25, "few reasons to fail: {verdicts:?}");
}

#[test]
fn a_case_survives_being_printed() {
    let maker = Maker::default();
    for number in 0..100 {
        let case = Case::random(&maker, 7, number);
        let read = Case::from_hex(&case.to_hex()).unwrap();
        assert_eq!((read.to_hex(), read.groat()), (case.to_hex(), case.groat()));
    }
}
