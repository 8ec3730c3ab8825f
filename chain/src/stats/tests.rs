//! The coins of a chain whose hash Core publishes, and the totals of odd sets.

use super::*;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::{ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, script::Builder, transaction::Version};

/// The coins of the regtest chain of 200 empty blocks that Core's `CreateBlockChain` (`src/test/util/mining.cpp`)
/// makes, in order of their keys.
fn chain_of_200() -> Vec<(OutPoint, Coin)> {
    let script = ScriptBuf::new_p2wsh(&ScriptBuf::from_bytes(vec![0x51]).wscript_hash());
    let mut coins: Vec<_> = (1..=200)
        .map(|height: u32| {
            let coinbase = Transaction {
                version: Version::TWO,
                lock_time: LockTime::from_consensus(height - 1),
                input: vec![TxIn {
                    previous_output: OutPoint::null(),
                    script_sig: Builder::new().push_int(height.into()).push_int(0).into_script(),
                    sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
                    witness: Witness::new(),
                }],
                output: vec![TxOut {
                    value: Amount::from_int_btc(if height < 150 { 50 } else { 25 }),
                    script_pubkey: script.clone(),
                }],
            };
            (OutPoint::new(coinbase.compute_txid(), 0), Coin::new(&coinbase.output[0], height, true))
        })
        .collect();
    coins.sort_by_key(|(outpoint, _)| (outpoint.txid.to_byte_array(), outpoint.vout));
    coins
}

/// The totals of `coins`, as of an arbitrary block.
fn stats(kind: HashKind, coins: &[(OutPoint, Coin)]) -> CoinStats {
    let mut count = CoinCount::new(kind, 200, BlockHash::from_byte_array([2; 32]));
    coins.iter().for_each(|(outpoint, coin)| count.add(outpoint, coin));
    count.finish()
}

#[test]
fn the_serialized_hash_is_what_core_publishes() {
    // Core: src/kernel/chainparams.cpp, regtest, m_assumeutxo_data at height 200.
    let hash = stats(HashKind::Serialized3, &chain_of_200()).hash.map(|hash| hash.to_string());
    assert_eq!(hash.as_deref(), Some("17dcc016d188d16068907cdeb38b75691a118d43053b8cd6a25969419381d13a"));
}

#[test]
fn the_muhash_is_the_same_in_any_order() {
    // Computed independently, with Python's integers, over the coins that give the published serialized hash.
    let expected = Some("5a555560d77a527934e178f197588df183d8b9d3e2007f875709cfef7c3e0e93");
    let mut coins = chain_of_200();
    assert_eq!(stats(HashKind::Muhash, &coins).hash.map(|hash| hash.to_string()).as_deref(), expected, "in order");
    coins.reverse();
    assert_eq!(stats(HashKind::Muhash, &coins).hash.map(|hash| hash.to_string()).as_deref(), expected, "reversed");
}

#[test]
fn totals_count_coins_amounts_and_sizes() {
    let stats = stats(HashKind::None, &chain_of_200());
    let expected = CoinStats {
        height: 200,
        bestblock: BlockHash::from_byte_array([2; 32]),
        transactions: 200,
        txouts: 200,
        bogosize: 200 * (50 + 34),
        total_amount: Some(Amount::from_int_btc(149 * 50 + 51 * 25)),
        hash: None,
    };
    assert_eq!(stats, expected);
}

#[test]
fn outputs_of_one_transaction_count_it_once() {
    let coin = Coin::from_parts(1, &[], 9, false);
    let outpoint = |txid, vout| OutPoint::new(Txid::from_byte_array([txid; 32]), vout);
    let coins = [outpoint(1, 0), outpoint(1, 300), outpoint(2, 0)].map(|outpoint| (outpoint, coin.clone()));
    let stats = stats(HashKind::None, &coins);
    assert_eq!((stats.transactions, stats.txouts, stats.bogosize), (2, 3, 150));
}

#[test]
fn a_sum_beyond_a_signed_amount_is_none_for_good() {
    let coins = [i64::MAX as u64 - 1, 1, 1, 0].map(|value| (OutPoint::null(), Coin::from_parts(value, &[], 1, false)));
    assert_eq!(stats(HashKind::None, &coins[..2]).total_amount, Some(Amount::from_sat(i64::MAX as u64)));
    assert_eq!(stats(HashKind::None, &coins[..3]).total_amount, None);
    assert_eq!(stats(HashKind::None, &coins).total_amount, None);
}
