//! The rules of a transaction, alone and with its coins.

use super::*;
use crate::coins::Coin;
use crate::rules::inputs::*;
use crate::rules::limits::MAX_MONEY;
use crate::rules::transaction::check_transaction;
use crate::script::{LOCKTIME_THRESHOLD, SEQUENCE_LOCKTIME_DISABLE_FLAG, SEQUENCE_LOCKTIME_TYPE_FLAG};

#[test]
fn a_transaction_has_inputs_and_outputs() {
    assert_eq!(check_transaction(&pay(&[], &[1])), Err(Rejection::BadTxnsVinEmpty));
    assert_eq!(check_transaction(&pay(&[outpoint(0)], &[])), Err(Rejection::BadTxnsVoutEmpty));
    assert_eq!(check_transaction(&pay(&[outpoint(0)], &[1])), Ok(()));
}

#[test]
fn a_transaction_fits_in_a_block_without_its_witness() {
    let mut tx = pay(&[outpoint(0)], &[1]);
    tx.input[0].witness = Witness::from_slice(&[vec![0; 2_000_000]]);
    let rest = tx.base_size() - 1;
    // The length of the script takes five bytes then, not one.
    tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 1_000_000 - rest - 4]);
    assert_eq!((tx.base_size(), check_transaction(&tx)), (1_000_000, Ok(())));
    tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 1_000_000 - rest - 3]);
    assert_eq!(check_transaction(&tx), Err(Rejection::BadTxnsOversize));
}

#[test]
fn amounts_are_within_all_money() {
    let verdict = |values: &[u64]| check_transaction(&pay(&[outpoint(0)], values));
    assert_eq!(verdict(&[MAX_MONEY]), Ok(()));
    assert_eq!(verdict(&[u64::MAX]), Err(Rejection::BadTxnsVoutNegative), "minus one");
    assert_eq!(verdict(&[1 << 63]), Err(Rejection::BadTxnsVoutNegative));
    assert_eq!(verdict(&[(1 << 63) - 1]), Err(Rejection::BadTxnsVoutToolarge));
    assert_eq!(verdict(&[MAX_MONEY + 1]), Err(Rejection::BadTxnsVoutToolarge));
    assert_eq!(verdict(&[MAX_MONEY, 1]), Err(Rejection::BadTxnsTxouttotalToolarge));
    assert_eq!(verdict(&[MAX_MONEY, 1, u64::MAX]), Err(Rejection::BadTxnsTxouttotalToolarge), "the first fault counts");
}

#[test]
fn no_output_is_spent_twice_in_a_transaction() {
    for (inputs, repeated) in [
        (vec![1, 1], true),
        (vec![1, 2], false),
        (vec![3, 1, 2, 3], true),
        (vec![3, 1, 2, 4], false),
        ((0..1000).chain([500]).collect(), true),
    ] {
        let outpoints: Vec<_> = inputs.iter().map(|&number| outpoint(number)).collect();
        let expected = if repeated { Err(Rejection::BadTxnsInputsDuplicate) } else { Ok(()) };
        assert_eq!(check_transaction(&pay(&outpoints, &[1])), expected, "{inputs:?}");
    }
}

#[test]
fn a_coinbase_script_has_2_to_100_bytes() {
    for (length, expected) in
        [(1, Err(Rejection::BadCbLength)), (2, Ok(())), (100, Ok(())), (101, Err(Rejection::BadCbLength))]
    {
        let mut tx = coinbase(1, 1);
        tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0; length]);
        assert_eq!(check_transaction(&tx), expected, "{length} bytes");
    }
}

#[test]
fn only_a_coinbase_spends_from_nowhere() {
    let tx = pay(&[outpoint(0), OutPoint::null()], &[1]);
    assert_eq!(check_transaction(&tx), Err(Rejection::BadTxnsPrevoutNull));
}

#[test]
fn a_lock_time_holds_until_it_is_passed() {
    let locked = |lock_time, sequence| {
        let mut tx = pay(&[outpoint(0), outpoint(1)], &[1]);
        tx.lock_time = absolute::LockTime::from_consensus(lock_time);
        tx.input[1].sequence = Sequence(sequence);
        tx
    };
    assert!(is_final(&locked(0, 0), 0, 0), "no lock time");
    assert!(!is_final(&locked(10, 0), 10, u32::MAX), "a height that is only reached");
    assert!(is_final(&locked(10, 0), 11, 0), "a height that is passed");
    assert!(!is_final(&locked(LOCKTIME_THRESHOLD, 0), u32::MAX, LOCKTIME_THRESHOLD), "a time that is only reached");
    assert!(is_final(&locked(LOCKTIME_THRESHOLD, 0), 0, LOCKTIME_THRESHOLD + 1));
    assert!(!is_final(&locked(LOCKTIME_THRESHOLD - 1, 0), LOCKTIME_THRESHOLD - 1, u32::MAX), "the largest height");
    assert!(is_final(&locked(10, u32::MAX), 1, 1), "all inputs are final");
    assert!(!is_final(&locked(10, u32::MAX - 1), 1, 1), "one input is not");
}

#[test]
fn relative_lock_times_count_from_the_coin() {
    let headers = branch(&regtest(), 100);
    let start = headers.0[0].time;
    let coins = [Coin::from_parts(1, &[], 60, false), Coin::from_parts(1, &[], 80, false)];
    let locks = |version, sequences: [u32; 2]| {
        let mut tx = pay(&[outpoint(0), outpoint(1)], &[1]);
        tx.version = TxVersion(version);
        tx.input.iter_mut().zip(sequences).for_each(|(input, sequence)| input.sequence = Sequence(sequence));
        sequence_locks(&tx, &coins, &headers)
    };
    let none = SequenceLocks { height: -1, time: -1 };
    assert_eq!(locks(2, [SEQUENCE_LOCKTIME_DISABLE_FLAG | 5, u32::MAX]), none, "the disable bit");
    assert_eq!(locks(1, [5, 5]), none, "version 1");
    assert_eq!(locks(2, [5, 0]), SequenceLocks { height: 79, time: -1 }, "the later one counts");
    assert_eq!(locks(2, [41, 21]), SequenceLocks { height: 100, time: -1 });
    assert_eq!(locks(-1, [41, 21]), SequenceLocks { height: 100, time: -1 }, "versions have no sign here");
    assert_eq!(locks(2, [0x1f_0000 | 41, 21]), SequenceLocks { height: 100, time: -1 }, "other bits mean nothing");
    // The median time of the block before the coin's, at height 59: the time of the header at height 54.
    let time = i64::from(start + 54 * 600 + 3 * 512 - 1);
    assert_eq!(locks(2, [SEQUENCE_LOCKTIME_TYPE_FLAG | 3, u32::MAX]), SequenceLocks { height: -1, time });

    let median = i64::from(start + 95 * 600);
    for (locks, past) in [
        (none, true),
        (SequenceLocks { height: 100, time: -1 }, true),
        (SequenceLocks { height: 101, time: -1 }, false),
        (SequenceLocks { height: -1, time: median - 1 }, true),
        (SequenceLocks { height: -1, time: median }, false),
    ] {
        assert_eq!(locks.are_past(&headers), past, "{locks:?} in block 101");
    }
}

#[test]
fn a_transaction_spends_no_more_than_it_has() {
    let params = regtest();
    let verdict = |values: &[u64], paid| {
        let coins: Vec<_> = values.iter().map(|&value| Coin::from_parts(value, &[], 1, false)).collect();
        let inputs: Vec<_> = (0..values.len() as u32).map(outpoint).collect();
        check_inputs(&pay(&inputs, &[paid]), &coins, 2, &params)
    };
    assert_eq!(verdict(&[5, 7], 10), Ok(Amount::from_sat(2)), "the rest is the fee");
    assert_eq!(verdict(&[5, 7], 13), Err(Rejection::BadTxnsInBelowout));
    assert_eq!(verdict(&[MAX_MONEY], 0), Ok(Amount::from_sat(MAX_MONEY)));
    assert_eq!(verdict(&[MAX_MONEY, 1], 0), Err(Rejection::BadTxnsInputvaluesOutofrange), "the sum");
    assert_eq!(verdict(&[u64::MAX], 0), Err(Rejection::BadTxnsInputvaluesOutofrange), "one of them");
}

#[test]
fn a_coinbase_is_spent_after_a_hundred_blocks() {
    let verdict = |coin: Coin, height| check_inputs(&pay(&[outpoint(0)], &[1]), &[coin], height, &regtest());
    let coin = |coinbase| Coin::from_parts(1, &[], 50, coinbase);
    assert_eq!(verdict(coin(true), 149), Err(Rejection::BadTxnsPrematureSpendOfCoinbase));
    assert_eq!(verdict(coin(true), 150), Ok(Amount::ZERO));
    assert_eq!(verdict(coin(false), 50), Ok(Amount::ZERO), "others at once");
    // The inputs are judged one by one: the second is too young, but the first is worth too much.
    let coins = [Coin::from_parts(MAX_MONEY + 1, &[], 1, false), coin(true)];
    let verdict = check_inputs(&pay(&[outpoint(0), outpoint(1)], &[1]), &coins, 51, &regtest());
    assert_eq!(verdict, Err(Rejection::BadTxnsInputvaluesOutofrange));
}

#[test]
fn a_fee_is_within_all_money() {
    assert_eq!(check_fee(MAX_MONEY, 0), Ok(Amount::from_sat(MAX_MONEY)));
    assert_eq!(check_fee(MAX_MONEY + 1, 0), Err(Rejection::BadTxnsFeeOutofrange));
}
