//! The rules of a block with the coins it spends.

use super::*;
use crate::coins::Coin;
use crate::params::Buried;
use crate::rules::connect::*;
use crate::rules::limits::MAX_MONEY;
use crate::script::Flags;

const SUBSIDY: u64 = 5_000_000_000;
const HEIGHT: u32 = 121;

fn coin(value: u64) -> Coin {
    Coin::from_parts(value, &[0x51], 1, false)
}

fn judge(transactions: Vec<Transaction>, spent: &[Coin], complete: bool) -> Result<Connected, Rejection> {
    let headers = branch(&regtest(), HEIGHT - 1);
    connect_block(&block(&headers, transactions), spent, complete, &headers, &regtest(), false)
}

#[test]
fn a_block_connects_with_its_fees_and_flags() {
    let txs = vec![coinbase(HEIGHT, SUBSIDY + 3), pay(&[outpoint(0)], &[9]), pay(&[outpoint(1), outpoint(2)], &[10])];
    let connected = judge(txs, &[coin(10), coin(5), coin(7)], true).expect("a valid block");
    assert_eq!(connected.fees, Amount::from_sat(3));
    assert_eq!(connected.sigop_cost, 0);
    assert_eq!(connected.flags, crate::rules::deployment::script_flags(HEIGHT, NO_HASH(), &regtest()));
}

#[test]
fn the_coinbase_takes_no_more_than_subsidy_and_fees() {
    let judge = |value| judge(vec![coinbase(HEIGHT, value), pay(&[outpoint(0)], &[9])], &[coin(10)], true);
    assert!(judge(SUBSIDY + 1).is_ok());
    assert_eq!(judge(SUBSIDY + 2), Err(Rejection::BadCbAmount));
}

#[test]
fn the_subsidy_halves() {
    let main = Params::main();
    for (height, expected) in [
        (0, SUBSIDY),
        (209_999, SUBSIDY),
        (210_000, SUBSIDY / 2),
        (420_000, SUBSIDY / 4),
        (6_929_999, 1),
        (6_930_000, 0),
        (63 * 210_000, 0),
        (64 * 210_000, 0),
        (u32::MAX, 0),
    ] {
        assert_eq!(subsidy(height, &main).to_sat(), expected, "height {height}");
    }
    let all: u64 = (0..7_000_000).step_by(1000).map(|height| 1000 * subsidy(height, &main).to_sat()).sum();
    assert_eq!(all, 2_099_999_997_690_000, "all the money there will be");
}

#[test]
fn every_input_exists() {
    let txs = vec![coinbase(HEIGHT, SUBSIDY), pay(&[outpoint(0)], &[9]), pay(&[outpoint(1), outpoint(2)], &[10])];
    for have in 0..3 {
        let spent = &[coin(10), coin(5), coin(7)][..have];
        assert_eq!(judge(txs.clone(), spent, false), Err(Rejection::BadTxnsInputsMissingorspent), "{have} coins");
    }
    let spent = [coin(8)];
    assert_eq!(judge(txs, &spent, false), Err(Rejection::BadTxnsInBelowout), "an earlier transaction is judged first");
}

#[test]
fn an_overwrite_is_seen_before_all_else() {
    let headers = branch(&regtest(), HEIGHT - 1);
    let block = block(&headers, vec![coinbase(HEIGHT, u64::from(u32::MAX)), pay(&[outpoint(0)], &[9])]);
    let verdict = connect_block(&block, &[], false, &headers, &regtest(), true);
    assert_eq!(verdict, Err(Rejection::BadTxnsBip30));
}

#[test]
fn overwrites_are_looked_for_where_they_could_be() {
    let main = Params::main();
    let (other, known) = (NO_HASH(), main.bip34_hash);
    let (repeat_height, repeat) = main.bip30_exceptions[0];
    assert!(needs_bip30_check(1, other, None, &main));
    assert!(!needs_bip30_check(repeat_height, repeat, None, &main), "the known repeat");
    assert!(needs_bip30_check(repeat_height, other, None, &main), "another block at its height");
    assert!(needs_bip30_check(227_931, other, known, &main), "the activation of BIP34 itself");
    assert!(!needs_bip30_check(227_932, other, known, &main));
    assert!(needs_bip30_check(227_932, other, Some(other), &main), "another branch");
    assert!(!needs_bip30_check(BIP34_IMPLIES_BIP30_LIMIT - 1, other, known, &main));
    assert!(needs_bip30_check(BIP34_IMPLIES_BIP30_LIMIT, other, known, &main));
    for params in [regtest(), Params::testnet4(), Params::signet(None)] {
        assert!(!needs_bip30_check(1, other, None, &params), "{}: BIP34 from height 1", params.name);
    }
    let mut late = regtest();
    late.set_activation_height(Buried::Bip34, 2);
    assert!(needs_bip30_check(1000, other, Some(other), &late), "BIP34 later, and no known branch");
}

#[test]
fn no_script_begins_with_two_heights() {
    // The proof in docs/RULES.md rests on this: what BIP34 demands of one height never begins what it demands of
    // another, so two coinbases at different heights differ.
    let prefix = |height: u32| Builder::new().push_int(i64::from(height)).into_script().into_bytes();
    let heights: Vec<u32> = (1..=300).chain([32767, 32768, 65535, 65536, 8388607, 8388608, u32::MAX >> 1]).collect();
    for &a in &heights {
        for &b in &heights {
            assert!(a == b || !prefix(a).starts_with(&prefix(b)), "heights {a} and {b}");
        }
    }
}

#[test]
fn the_fees_of_a_block_are_within_all_money() {
    let txs = vec![coinbase(HEIGHT, 1), pay(&[outpoint(0)], &[0]), pay(&[outpoint(1)], &[0])];
    let spent = [coin(MAX_MONEY), coin(1)];
    assert_eq!(judge(txs, &spent, true), Err(Rejection::BadTxnsAccumulatedFeeOutofrange));
}

#[test]
fn a_block_holds_no_transaction_whose_relative_time_has_not_come() {
    let headers = branch(&regtest(), HEIGHT - 1);
    let judge = |blocks, params: &Params| {
        let mut tx = pay(&[outpoint(0)], &[1]);
        tx.input[0].sequence = Sequence(blocks);
        let coins = [Coin::from_parts(1, &[], 100, false)];
        connect_block(&block(&headers, vec![coinbase(HEIGHT, 1), tx]), &coins, true, &headers, params, false)
    };
    assert!(judge(21, &regtest()).is_ok());
    assert_eq!(judge(22, &regtest()), Err(Rejection::BadTxnsNonfinal));
    let mut params = regtest();
    params.set_activation_height(Buried::Csv, HEIGHT + 1);
    assert!(judge(22, &params).is_ok(), "before BIP68");
}

#[test]
fn a_coinbase_is_not_spent_in_its_own_block() {
    let coins = [Coin::from_parts(1, &[], HEIGHT, true)];
    let verdict = judge(vec![coinbase(HEIGHT, 1), pay(&[outpoint(0)], &[1])], &coins, true);
    assert_eq!(verdict, Err(Rejection::BadTxnsPrematureSpendOfCoinbase));
}

#[test]
fn signature_operations_in_redeemed_scripts_count() {
    // A redeem script of 15 checks: cost 60. With 20000 less one input of it, below the limit.
    let redeem = ScriptBuf::from_bytes(vec![0xac; 15]);
    let coin = Coin::from_parts(1, ScriptBuf::new_p2sh(&redeem.script_hash()).as_bytes(), 1, false);
    let judge = |inputs: u32, coinbase_checks: usize| {
        let outpoints: Vec<_> = (0..inputs).map(outpoint).collect();
        let mut tx = pay(&outpoints, &[1]);
        let push = PushBytesBuf::try_from(redeem.to_bytes()).expect("15 bytes");
        tx.input.iter_mut().for_each(|input| input.script_sig = Builder::new().push_slice(&push).into_script());
        let mut first = coinbase(HEIGHT, 1);
        first.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; coinbase_checks]);
        judge(vec![first, tx], &vec![coin.clone(); inputs as usize], true).map(|connected| connected.sigop_cost)
    };
    assert_eq!(judge(10, 2), Ok(10 * 60 + 2 * 4));
    assert_eq!(judge(1333, 5), Ok(80_000));
    assert_eq!(judge(1333, 6), Err(Rejection::BadBlkSigops));
    assert!(regtest().script_flag_exceptions.is_empty() && Flags::P2SH != Flags::NONE);
}

#[test]
#[should_panic(expected = "one coin for each input")]
fn coins_that_were_not_gathered_are_no_verdict() {
    let _ = judge(vec![coinbase(HEIGHT, 1), pay(&[outpoint(0)], &[1])], &[], true);
}
