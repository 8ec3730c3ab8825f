//! Core's script and transaction vectors, all of them: each entry with its flags, and what must follow from it for
//! more and for fewer flags.

use std::collections::HashMap;

use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, consensus, transaction,
};
use groat_chain::coins::Coin;
use groat_chain::rules::transaction::check_transaction;
use groat_chain::script::sighash::Sighashes;
use groat_chain::script::{Flags, ScriptError, TaprootSpend, taproot, verify_input};
use groat_tests::asm::assemble;
use groat_tests::data::core_vectors;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

fn bytes(text: &Value) -> Vec<u8> {
    hex::FromHex::from_hex(text.as_str().unwrap()).unwrap()
}

fn entries(file: &str) -> Vec<Value> {
    let Value::Array(entries) = core_vectors(file) else { panic!("{file} is not an array") };
    // An entry of one string is a comment.
    entries.into_iter().filter(|entry| entry.as_array().is_some_and(|fields| fields.len() > 1)).collect()
}

/// Sets of flags to try beside the listed one: each single flag, and some at random.
fn variations(random: &mut ChaCha8Rng) -> Vec<Flags> {
    let single = Flags::NAMED.iter().map(|(_, flag)| *flag);
    let more = std::iter::repeat_with(|| Flags::from_bits_truncate(random.random())).take(16);
    single.chain(more).collect()
}

/// A transaction with one output of the script, and one that spends it.
fn credit_and_spend(script_sig: Vec<u8>, script_pubkey: Vec<u8>, witness: Witness, value: u64) -> (Coin, Transaction) {
    let build = |previous_output, script_sig, witness, script_pubkey| Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig, sequence: Sequence::MAX, witness }],
        output: vec![TxOut { value: Amount::from_sat(value), script_pubkey }],
    };
    let credit = build(OutPoint::null(), ScriptBuf::from_bytes(vec![0, 0]), Witness::new(), script_pubkey.into());
    let outpoint = OutPoint::new(credit.compute_txid(), 0);
    (Coin::new(&credit.output[0], 0, false), build(outpoint, script_sig.into(), witness, ScriptBuf::new()))
}

/// The witness of an entry, and the taproot output that Core builds for the leaf in it.
fn witness_of(fields: &[Value]) -> (Witness, Vec<u8>) {
    let internal_key = secp256k1::SecretKey::from_slice(&[[0; 31].as_slice(), &[1]].concat()).unwrap();
    let internal_key = internal_key.x_only_public_key(&secp256k1::Secp256k1::new()).0;
    let (mut witness, mut output) = (Vec::<Vec<u8>>::new(), Vec::new());
    for field in fields {
        let text = field.as_str().unwrap();
        if let Some(script) = text.strip_prefix("#SCRIPT#") {
            witness.push(assemble(script).unwrap());
        } else if text == "#CONTROLBLOCK#" {
            let leaf = taproot::leaf_hash(taproot::TAPROOT_LEAF_TAPSCRIPT, witness.last().unwrap());
            let tweak = taproot::tweak_hash(&internal_key.serialize(), Some(&leaf));
            let tweak = secp256k1::Scalar::from_be_bytes(tweak).unwrap();
            let (key, parity) = internal_key.add_tweak(&secp256k1::Secp256k1::new(), &tweak).unwrap();
            witness.push([&[taproot::TAPROOT_LEAF_TAPSCRIPT | parity.to_u8()], &internal_key.serialize()[..]].concat());
            output = [&[0x51, 0x20], &key.serialize()[..]].concat();
        } else {
            witness.push(bytes(field));
        }
    }
    (Witness::from_slice(&witness), output)
}

#[test]
fn script_tests_end_with_the_error_they_name() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut count = 0;
    for entry in entries("script_tests.json") {
        let mut fields = entry.as_array().unwrap().as_slice();
        let (mut witness, mut output, mut value) = (Witness::new(), Vec::new(), 0);
        if let Value::Array(inner) = &fields[0] {
            let (amount, elements) = inner.split_last().unwrap();
            (witness, output) = witness_of(elements);
            value = (amount.as_f64().unwrap() * 1e8).round() as u64;
            fields = &fields[1..];
        }
        let [script_sig, script_pubkey, flags, expected, ..] = fields else { panic!("bad entry {entry}") };
        let [script_sig, script_pubkey, flags, expected] =
            [script_sig, script_pubkey, flags, expected].map(|field| field.as_str().unwrap());
        if script_pubkey != "0x51 0x20 #TAPROOTOUTPUT#" {
            output = assemble(script_pubkey).unwrap();
        }
        let (coin, spend) = credit_and_spend(assemble(script_sig).unwrap(), output, witness, value);
        let (coins, flags) = ([coin], flags.parse::<Flags>().unwrap());
        let sighashes = Sighashes::new(&spend, &coins);
        let name = |verdict: Result<(), ScriptError>| verdict.map_or_else(ScriptError::name, |()| "OK");
        assert_eq!(name(verify_input(&sighashes, 0, flags, None)), expected, "{entry}");
        // Fewer flags keep what is valid, more flags keep what is not.
        for other in variations(&mut random) {
            let other = if expected == "OK" { flags.without(other) } else { flags | other };
            if other == other.with_needed() {
                let verdict = verify_input(&sighashes, 0, other, None);
                assert_eq!(verdict.is_ok(), expected == "OK", "{verdict:?} with {other} of {entry}");
            }
        }
        count += 1;
    }
    assert!(count > 1_000, "only {count} entries");
}

/// An entry of tx_valid or tx_invalid: the spent outputs in input order, the transaction, the word for the flags. `None`
/// for the coins where an input has no output listed (a transaction that is bad by itself).
fn transaction_entry(entry: &Value) -> (Transaction, Option<Vec<Coin>>, String) {
    let mut outputs = HashMap::new();
    for listed in entry[0].as_array().unwrap() {
        let txid = listed[0].as_str().unwrap().parse().unwrap();
        let outpoint = OutPoint::new(txid, listed[1].as_i64().unwrap() as u32);
        let script = assemble(listed[2].as_str().unwrap()).unwrap();
        let value = listed.get(3).map_or(0, |value| value.as_u64().unwrap());
        outputs.insert(outpoint, Coin::from_parts(value, &script, 0, false));
    }
    let transaction: Transaction = consensus::deserialize(&bytes(&entry[1])).unwrap_or_else(|e| panic!("{e}: {entry}"));
    let coins = transaction.input.iter().map(|input| outputs.get(&input.previous_output).cloned()).collect();
    (transaction, coins, entry[2].as_str().unwrap().to_owned())
}

fn all_inputs(transaction: &Transaction, coins: &[Coin], flags: Flags) -> Result<(), ScriptError> {
    let sighashes = Sighashes::new(transaction, coins);
    (0..coins.len()).try_for_each(|index| verify_input(&sighashes, index, flags, None))
}

/// `flags` with one flag less at a time, where that is another set.
fn one_less(flags: Flags) -> impl Iterator<Item = Flags> {
    let less = Flags::NAMED.iter().map(move |(_, flag)| flags.without(*flag).without_unfounded());
    less.filter(move |less| *less != flags)
}

fn inverse(flags: Flags) -> Flags {
    Flags::ALL.without(flags)
}

#[test]
fn tx_valid_holds_under_all_but_the_listed_flags() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut count = 0;
    for entry in entries("tx_valid.json") {
        let (transaction, coins, excluded) = transaction_entry(&entry);
        assert_eq!(check_transaction(&transaction).map_err(|error| error.to_string()), Ok(()), "{entry}");
        let (coins, excluded) = (coins.unwrap(), excluded.parse::<Flags>().unwrap());
        let flags = inverse(excluded);
        assert_eq!(flags, flags.with_needed(), "{entry}");
        assert_eq!(all_inputs(&transaction, &coins, flags), Ok(()), "{entry}");
        for fewer in variations(&mut random) {
            let fewer = flags.without(fewer).without_unfounded();
            assert_eq!(all_inputs(&transaction, &coins, fewer), Ok(()), "with {fewer} of {entry}");
        }
        // No flag is excluded without need.
        for more in one_less(excluded).map(inverse) {
            assert!(all_inputs(&transaction, &coins, more).is_err(), "valid also with {more}: {entry}");
        }
        count += 1;
    }
    assert!(count > 100, "only {count} entries");
}

#[test]
fn tx_invalid_fails_under_the_listed_flags() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut count = 0;
    for entry in entries("tx_invalid.json") {
        count += 1;
        let (transaction, coins, flags) = transaction_entry(&entry);
        let checked = check_transaction(&transaction).map_err(|error| error.to_string());
        assert_eq!(checked.is_err(), flags == "BADTX", "{checked:?}: {entry}");
        if checked.is_err() {
            continue;
        }
        let (coins, flags) = (coins.unwrap(), flags.parse::<Flags>().unwrap());
        assert_eq!(flags, flags.with_needed(), "{entry}");
        assert!(all_inputs(&transaction, &coins, flags).is_err(), "valid: {entry}");
        for more in variations(&mut random) {
            let more = (flags | more).with_needed();
            assert!(all_inputs(&transaction, &coins, more).is_err(), "valid with {more}: {entry}");
        }
        // No flag is listed without need.
        for fewer in one_less(flags) {
            assert_eq!(all_inputs(&transaction, &coins, fewer), Ok(()), "with {fewer} of {entry}");
        }
    }
    assert!(count > 90, "only {count} entries");
}

#[test]
fn sighash_is_that_of_the_original_release() {
    let mut count = 0;
    for entry in entries("sighash.json") {
        let transaction: Transaction = consensus::deserialize(&bytes(&entry[0])).unwrap();
        let coins = vec![Coin::from_parts(0, &[], 0, false); transaction.input.len()];
        let hash_type = entry[3].as_i64().unwrap() as u32;
        let index = entry[2].as_u64().unwrap() as usize;
        let mut hash = Sighashes::new(&transaction, &coins).legacy(index, &bytes(&entry[1]), hash_type);
        hash.reverse();
        assert_eq!(hash.to_vec(), bytes(&entry[4]), "{entry}");
        count += 1;
    }
    assert!(count >= 500, "only {count} entries");
}

#[test]
fn bip341_key_path_signature_hashes() {
    let vectors = core_vectors("bip341_wallet_vectors.json");
    let mut count = 0;
    for case in vectors["keyPathSpending"].as_array().unwrap() {
        let unsigned: Transaction = consensus::deserialize(&bytes(&case["given"]["rawUnsignedTx"])).unwrap();
        let spent = case["given"]["utxosSpent"].as_array().unwrap().iter();
        let coins: Vec<Coin> = spent
            .map(|coin| Coin::from_parts(coin["amountSats"].as_u64().unwrap(), &bytes(&coin["scriptPubKey"]), 0, false))
            .collect();
        let sighashes = Sighashes::new(&unsigned, &coins);
        for input in case["inputSpending"].as_array().unwrap() {
            let index = input["given"]["txinIndex"].as_u64().unwrap() as usize;
            let hash_type = input["given"]["hashType"].as_u64().unwrap() as u8;
            let hash = sighashes.taproot(index, hash_type, &TaprootSpend { annex: None, leaf: None });
            assert_eq!(hash.unwrap().to_vec(), bytes(&input["intermediary"]["sigHash"]), "{input}");
            count += 1;
        }
        let signed: Transaction = consensus::deserialize(&bytes(&case["auxiliary"]["fullySignedTx"])).unwrap();
        assert_eq!(all_inputs(&signed, &coins, Flags::STANDARD), Ok(()));
    }
    assert!(count > 5, "only {count} inputs");
}

#[test]
fn bip341_outputs_commit_to_their_leaves() {
    fn leaves<'a>(tree: &'a Value, found: &mut Vec<&'a Value>) {
        match tree {
            Value::Array(branches) => branches.iter().for_each(|branch| leaves(branch, found)),
            Value::Null => {}
            leaf => found.push(leaf),
        }
    }
    let vectors = core_vectors("bip341_wallet_vectors.json");
    let mut count = 0;
    for case in vectors["scriptPubKey"].as_array().unwrap() {
        let (given, between, expected) = (&case["given"], &case["intermediary"], &case["expected"]);
        let root = between["merkleRoot"].as_str().map(|_| bytes(&between["merkleRoot"]).try_into().unwrap());
        let tweak = taproot::tweak_hash(&bytes(&given["internalPubkey"]), root.as_ref());
        assert_eq!(tweak.to_vec(), bytes(&between["tweak"]), "{case}");
        let mut found = Vec::new();
        leaves(&given["scriptTree"], &mut found);
        for (at, leaf) in found.iter().enumerate() {
            let hash = taproot::leaf_hash(leaf["leafVersion"].as_u64().unwrap() as u8, &bytes(&leaf["script"]));
            assert_eq!(hash.to_vec(), bytes(&between["leafHashes"][at]), "{leaf}");
            let control = bytes(&expected["scriptPathControlBlocks"][at]);
            assert_eq!(Some(taproot::merkle_root(&control, hash)), root, "{leaf}");
            assert!(taproot::commits_to(&bytes(&between["tweakedPubkey"]), &control, hash), "{leaf}");
            let mut other_parity = control;
            other_parity[0] ^= 1;
            assert!(!taproot::commits_to(&bytes(&between["tweakedPubkey"]), &other_parity, hash), "{leaf}");
            count += 1;
        }
    }
    assert!(count > 8, "only {count} leaves");
}
