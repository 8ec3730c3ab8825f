//! A transaction either does not decode or encodes to the same bytes again; judging and counting it never panics.
#![no_main]

use bitcoin::Transaction;
use bitcoin::consensus::{deserialize, serialize};
use groat_chain::coins::Coin;
use groat_chain::rules::sigops::{legacy_sigop_count, transaction_sigop_cost};
use groat_chain::rules::transaction::check_transaction;
use groat_chain::script::{Flags, Sighashes, verify_input};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(transaction) = deserialize::<Transaction>(bytes) else { return };
    assert_eq!(serialize(&transaction), bytes, "the encoding of what was decoded");
    let sigops = legacy_sigop_count(&transaction);
    if check_transaction(&transaction).is_err() {
        return;
    }
    // Each input spends a coin that its own bytes describe.
    let coins: Vec<_> = (transaction.input.iter())
        .map(|input| {
            let script = input.witness.last().unwrap_or(input.script_sig.as_bytes());
            Coin::from_parts(u64::from(input.previous_output.vout), script, input.sequence.0 >> 1, false)
        })
        .collect();
    let cost = transaction_sigop_cost(&transaction, &coins, Flags::ALL);
    assert!(cost >= sigops * 4, "{cost} is less than the {sigops} legacy operations cost");
    let sighashes = Sighashes::new(&transaction, &coins);
    for index in 0..coins.len() {
        let _ = verify_input(&sighashes, index, Flags::MANDATORY, None);
    }
});
