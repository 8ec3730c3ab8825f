//! The large set of taproot, tapscript, segwit and legacy spends from Core's taproot tests (the format of its
//! script_assets_test.json): each under every set of consensus flags that it speaks about.

use bitcoin::{ScriptBuf, Transaction, TxOut, Witness, consensus};
use groat_chain::coins::Coin;
use groat_chain::script::sighash::Sighashes;
use groat_chain::script::{Flags, VerdictCache, verify_input};
use groat_tests::data::groat_data;
use serde_json::Value;

fn bytes(text: &Value) -> Vec<u8> {
    hex::FromHex::from_hex(text.as_str().unwrap()).unwrap()
}

/// Every set of consensus flags in which WITNESS has P2SH, and TAPROOT has WITNESS.
fn consensus_flags() -> Vec<Flags> {
    let sets = (0..=Flags::MANDATORY.bits()).map(Flags::from_bits_truncate);
    let founded = sets.filter(|set| Flags::MANDATORY.contains(*set) && set.with_needed() == *set);
    founded.filter(|set| !set.contains(Flags::TAPROOT) || set.contains(Flags::WITNESS)).collect()
}

/// Each case with each set of flags, and how many checks were made.
fn run(case: &Value, sets: &[Flags], cache: &VerdictCache) -> usize {
    let spent = case["prevouts"].as_array().unwrap().iter();
    let coins: Vec<Coin> =
        spent.map(|output| Coin::new(&consensus::deserialize::<TxOut>(&bytes(output)).unwrap(), 0, false)).collect();
    let index = case["index"].as_u64().unwrap() as usize;
    let flags: Flags = case["flags"].as_str().unwrap().parse().unwrap();
    let always = case["final"] == true;
    let mut checks = 0;
    for (verdict, valid) in [("success", true), ("failure", false)] {
        let Some(spend) = case.get(verdict) else { continue };
        let mut transaction: Transaction = consensus::deserialize(&bytes(&case["tx"])).unwrap();
        let witness: Vec<Vec<u8>> = spend["witness"].as_array().unwrap().iter().map(bytes).collect();
        transaction.input[index].script_sig = ScriptBuf::from_bytes(bytes(&spend["scriptSig"]));
        transaction.input[index].witness = Witness::from_slice(&witness);
        let sighashes = Sighashes::new(&transaction, &coins);
        let comment = &case["comment"];
        let found = verify_input(&sighashes, index, flags, None);
        assert_eq!(found.is_ok(), valid, "{found:?} with {flags} for the {verdict} of {comment}: {case}");
        // What is valid stays so with fewer flags (or with any, if final), what is not with more.
        let follows = |set: &&Flags| if valid { always || flags.contains(**set) } else { set.contains(flags) };
        for set in sets.iter().filter(follows) {
            let found = verify_input(&sighashes, index, *set, Some(cache));
            assert_eq!(found.is_ok(), valid, "{found:?} with {set} for the {verdict} of {comment}: {case}");
            checks += 1;
        }
    }
    checks
}

#[test]
fn script_assets_hold_and_fail_as_they_say() {
    let sets = consensus_flags();
    assert_eq!(sets.len(), 64);
    for file in groat_data("vectors-taproot", ".json") {
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let cache = VerdictCache::new(16 << 20, [1; 32]);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let checks: usize = std::thread::scope(|scope| {
            let part = |part: usize| cases.iter().skip(part).step_by(threads);
            let (sets, cache) = (&sets, &cache);
            let run = |cases: std::iter::StepBy<_>| cases.map(|case| run(case, sets, cache)).sum::<usize>();
            let workers: Vec<_> = (0..threads).map(part).map(|cases| scope.spawn(move || run(cases))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!(checks >= cases.len(), "{} checks of {} cases", checks, cases.len());
        println!("{}: {} cases, {checks} checks", file.display(), cases.len());
    }
}
