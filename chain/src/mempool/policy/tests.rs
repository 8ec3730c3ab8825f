//! Which forms are standard. The cases are those of Core's `transaction_tests` (`test_IsStandard`, `spends_witness_prog`),
//! made again from their descriptions.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, Txid, Witness};

use super::*;
use crate::script::opcode::*;

const KEY: [u8; 33] = {
    let mut key = [0x11; 33];
    key[0] = 2;
    key
};

fn push(bytes: &[u8]) -> ScriptBuf {
    Builder::new().push_slice(PushBytesBuf::try_from(bytes.to_vec()).unwrap()).into_script()
}

fn key_hash() -> ScriptBuf {
    ScriptBuf::from_bytes([&[OP_DUP, OP_HASH160, 20][..], &[1; 20], &[OP_EQUALVERIFY, OP_CHECKSIG]].concat())
}

fn script_hash() -> ScriptBuf {
    ScriptBuf::from_bytes([&[OP_HASH160, 20][..], &[1; 20], &[OP_EQUAL]].concat())
}

fn data(bytes: usize) -> ScriptBuf {
    ScriptBuf::from_bytes([&[OP_RETURN][..], push(&vec![9; bytes]).as_bytes()].concat())
}

fn multisig(required: u8, keys: u8) -> ScriptBuf {
    let keys_pushed = (0..keys).flat_map(|_| [&[33][..], &KEY].concat());
    let script = [OP_1 + required - 1].into_iter().chain(keys_pushed).chain([OP_1 + keys - 1, OP_CHECKMULTISIG]);
    ScriptBuf::from_bytes(script.collect())
}

fn paying(outputs: &[(u64, ScriptBuf)]) -> Transaction {
    let output =
        |(value, script): &(u64, ScriptBuf)| TxOut { value: Amount::from_sat(*value), script_pubkey: script.clone() };
    let input = TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array([7; 32]), 0),
        script_sig: push(&[5; 65]),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: outputs.iter().map(output).collect(),
    }
}

fn verdict(tx: &Transaction) -> Result<(), Rejection> {
    check_standard(tx, &Policy::default())
}

#[test]
fn versions_1_to_3_are_standard() {
    let with = |version| Transaction { version: Version(version), ..paying(&[(100_000, key_hash())]) };
    for (version, expected) in [
        (-1, Err(Rejection::Version)),
        (0, Err(Rejection::Version)),
        (1, Ok(())),
        (2, Ok(())),
        (3, Ok(())),
        (4, Err(Rejection::Version)),
        (i32::MIN, Err(Rejection::Version)),
    ] {
        assert_eq!(verdict(&with(version)), expected, "version {version}");
    }
}

#[test]
fn dust_depends_on_what_it_costs_to_spend() {
    let witness = |bytes: usize| ScriptBuf::from_bytes([&[OP_1, bytes as u8][..], &vec![3; bytes]].concat());
    for (script, least) in [
        (key_hash(), 546),
        (script_hash(), 540),
        (ScriptBuf::from_bytes([&[0, 20][..], &[2; 20]].concat()), 294),
        (ScriptBuf::from_bytes([&[0, 32][..], &[2; 32]].concat()), 330),
        (witness(32), 330),
        (witness(2), 240),
        (data(10), 0),
    ] {
        let threshold = dust_threshold(&TxOut { value: Amount::ZERO, script_pubkey: script.clone() }, 3000);
        assert_eq!(threshold, least, "{script}");
        if least > 0 {
            // One such output may be made, by who pays no fee; two may not.
            assert_eq!(verdict(&paying(&[(least - 1, script.clone()), (least, script.clone())])), Ok(()), "{script}");
            let twice = paying(&[(least - 1, script.clone()), (least - 1, script.clone())]);
            assert_eq!(verdict(&twice), Err(Rejection::Dust), "{script}");
        }
    }
    assert_eq!(dust_threshold(&paying(&[(0, key_hash())]).output[0], 3702), 674);
}

#[test]
fn outputs_have_known_forms() {
    let standard = |script: ScriptBuf| verdict(&paying(&[(100_000, script)]));
    assert_eq!(standard(ScriptBuf::from_bytes(vec![OP_1])), Err(Rejection::ScriptPubkey));
    assert_eq!(standard(ScriptBuf::from_bytes(vec![OP_1, 2, 0x4e, 0x73])), Ok(()), "an anchor");
    assert_eq!(standard(ScriptBuf::from_bytes([&[OP_16, 40][..], &[1; 40]].concat())), Ok(()), "a future program");
    assert_eq!(standard(ScriptBuf::from_bytes([&[0, 21][..], &[1; 21]].concat())), Err(Rejection::ScriptPubkey));
    for (required, keys, expected) in [
        (1, 1, Ok(())),
        (1, 3, Ok(())),
        (3, 3, Ok(())),
        (1, 4, Err(Rejection::ScriptPubkey)),
        (4, 3, Err(Rejection::ScriptPubkey)),
    ] {
        assert_eq!(standard(multisig(required, keys)), expected, "{required} of {keys}");
    }
    let strict = Policy { permit_bare_multisig: false, ..Policy::default() };
    assert_eq!(check_standard(&paying(&[(100_000, multisig(1, 2))]), &strict), Err(Rejection::BareMultisig));
}

#[test]
fn data_is_counted_over_all_outputs() {
    let with = |limit, outputs: &[ScriptBuf]| {
        let policy = Policy { max_datacarrier_bytes: limit, ..Policy::default() };
        let outputs: Vec<_> = outputs.iter().map(|script| (0, script.clone())).collect();
        check_standard(&paying(&outputs), &policy)
    };
    // OP_RETURN, OP_PUSHDATA1 with its length, and 80 bytes: 83.
    assert_eq!(with(Some(83), &[data(80)]), Ok(()));
    assert_eq!(with(Some(82), &[data(80)]), Err(Rejection::Datacarrier));
    assert_eq!(with(Some(166), &[data(80), data(80)]), Ok(()));
    assert_eq!(with(Some(165), &[data(80), data(80)]), Err(Rejection::Datacarrier));
    assert_eq!(with(None, &[ScriptBuf::from_bytes(vec![OP_RETURN])]), Err(Rejection::Datacarrier));
    assert_eq!(with(Some(100_000), &[data(80_000)]), Ok(()), "the default");
    let cut = ScriptBuf::from_bytes(vec![OP_RETURN, 5, 1]);
    assert_eq!(with(Some(83), &[cut]), Err(Rejection::ScriptPubkey), "a push beyond the end");
}

#[test]
fn input_scripts_push_and_are_short() {
    let with = |script: ScriptBuf| {
        let mut tx = paying(&[(100_000, key_hash())]);
        tx.input[0].script_sig = script;
        verdict(&tx)
    };
    let long = |bytes: usize| ScriptBuf::from_bytes([vec![OP_PUSHDATA2], vec![0; 2], vec![0; bytes - 3]].concat());
    assert_eq!(with(long(1650)), Ok(()));
    assert_eq!(with(long(1651)), Err(Rejection::ScriptsigSize));
    assert_eq!(with(ScriptBuf::from_bytes(vec![OP_NOP])), Err(Rejection::ScriptsigNotPushonly));
    assert_eq!(with(ScriptBuf::from_bytes(vec![OP_RESERVED])), Ok(()), "it counts as a push here");
}

#[test]
fn a_transaction_of_more_than_400000_units_is_not_relayed() {
    let of = |inputs: usize| {
        let mut tx = paying(&[(100_000, key_hash())]);
        tx.input = vec![tx.input[0].clone(); inputs];
        tx
    };
    // An input has 41 bytes and its script 66, with a longer count from 253 on.
    let most = (100_000 - (4 + 3 + 1 + 34 + 4)) / 107;
    assert_eq!(verdict(&of(most)), Ok(()));
    assert_eq!(verdict(&of(most + 1)), Err(Rejection::TxSize));
}

fn spending(script: &ScriptBuf, script_sig: ScriptBuf, witness: &[Vec<u8>]) -> (Transaction, Vec<Coin>) {
    let mut tx = paying(&[(100_000, key_hash())]);
    (tx.input[0].script_sig, tx.input[0].witness) = (script_sig, Witness::from_slice(witness));
    (tx, vec![Coin::from_parts(1, script.as_bytes(), 1, false)])
}

#[test]
fn spent_outputs_have_known_forms_and_few_signature_operations() {
    let verdict = |script: &ScriptBuf, script_sig| {
        let (tx, coins) = spending(script, script_sig, &[]);
        check_inputs_standard(&tx, &coins)
    };
    let refused = |text: &str| Err(text.to_string());
    assert_eq!(verdict(&key_hash(), push(&[1; 72])), Ok(()));
    let anyone = ScriptBuf::from_bytes(vec![OP_1]);
    assert_eq!(verdict(&anyone, ScriptBuf::new()), refused("input 0 script unknown"));
    let future = ScriptBuf::from_bytes([&[OP_16, 2][..], &[1; 2]].concat());
    assert_eq!(verdict(&future, ScriptBuf::new()), refused("input 0 witness program is undefined"));
    assert_eq!(verdict(&script_hash(), ScriptBuf::new()), refused("input 0 P2SH redeemscript missing"));
    assert_eq!(verdict(&script_hash(), push(&[OP_CHECKSIG; 15])), Ok(()));
    let many = refused("p2sh redeemscript sigops exceed limit (input 0: 16 > 15)");
    assert_eq!(verdict(&script_hash(), push(&[OP_CHECKSIG; 16])), many);
    let reserved = refused("p2sh scriptsig malformed (input 0: Opcode missing or not understood)");
    assert_eq!(verdict(&script_hash(), ScriptBuf::from_bytes(vec![OP_RESERVED])), reserved);
    let long = refused("p2sh scriptsig malformed (input 0: Push value size limit exceeded)");
    assert_eq!(verdict(&script_hash(), push(&[OP_NOP; 521])), long);
}

#[test]
fn a_transaction_executes_at_most_2500_legacy_signature_operations() {
    let script = script_hash();
    let with = |inputs: usize, last: usize| {
        let (mut tx, mut coins) = spending(&script, push(&[OP_CHECKSIG; 15]), &[]);
        (tx.input, coins) = (vec![tx.input[0].clone(); inputs], vec![coins[0].clone(); inputs]);
        tx.input[0].script_sig = push(&vec![OP_CHECKSIG; last]);
        check_inputs_standard(&tx, &coins)
    };
    assert_eq!(with(167, 10), Ok(()), "166 times 15 and 10");
    assert_eq!(with(167, 11), Err("non-witness sigops exceed bip54 limit".into()));
}

#[test]
fn witnesses_are_no_larger_than_usual() {
    let verdict = |script: &[u8], script_sig: ScriptBuf, witness: &[Vec<u8>]| {
        let (tx, coins) = spending(&ScriptBuf::from_bytes(script.to_vec()), script_sig, witness);
        check_witness_standard(&tx, &coins)
    };
    let refused = Err(Rejection::BadWitnessNonstandard);
    let none = ScriptBuf::new;
    let program = |version, bytes: usize| [&[version, bytes as u8][..], &vec![1; bytes]].concat();
    assert_eq!(verdict(key_hash().as_bytes(), none(), &[vec![1]]), refused, "where it means nothing");
    assert_eq!(verdict(key_hash().as_bytes(), none(), &[]), Ok(()));
    assert_eq!(verdict(&[OP_1, 2, 0x4e, 0x73], none(), &[vec![]]), refused, "of an anchor");

    let script = program(0, 32);
    let items = |count: usize, size| [vec![vec![1; size]; count], vec![vec![OP_1; 3600]]].concat();
    assert_eq!(verdict(&script, none(), &items(100, 80)), Ok(()));
    assert_eq!(verdict(&script, none(), &items(101, 1)), refused);
    assert_eq!(verdict(&script, none(), &items(1, 81)), refused);
    assert_eq!(verdict(&script, none(), &[vec![OP_1; 3601]]), refused);
    assert_eq!(verdict(script_hash().as_bytes(), push(&script), &items(1, 81)), refused, "behind P2SH");
    assert_eq!(verdict(script_hash().as_bytes(), none(), &items(1, 1)), refused, "behind nothing");

    let key = program(OP_1, 32);
    let leaf = |item: usize, control: Vec<u8>| [vec![7; item], vec![OP_1], control];
    assert_eq!(verdict(&key, none(), &[vec![1; 64]]), Ok(()));
    assert_eq!(verdict(&key, none(), &[vec![1; 64], vec![0x50]]), refused, "an annex");
    assert_eq!(verdict(&key, none(), &leaf(80, vec![0xc1; 33])), Ok(()));
    assert_eq!(verdict(&key, none(), &leaf(81, vec![0xc1; 33])), refused);
    assert_eq!(verdict(&key, none(), &leaf(81, vec![0xc2; 33])), Ok(()), "another leaf version");
    assert_eq!(verdict(&key, none(), &leaf(1, vec![])), refused, "no control block");
}

#[test]
fn a_missing_witness_is_told_from_a_wrong_script() {
    let needs = |script: &[u8], script_sig: ScriptBuf| {
        let (tx, coins) = spending(&ScriptBuf::from_bytes(script.to_vec()), script_sig, &[]);
        needs_witness(&tx, &coins)
    };
    let program = [&[0, 20][..], &[1; 20]].concat();
    assert!(needs(&program, ScriptBuf::new()));
    assert!(needs(&[&[OP_1, 32][..], &[1; 32]].concat(), ScriptBuf::new()));
    assert!(needs(script_hash().as_bytes(), push(&program)));
    assert!(!needs(script_hash().as_bytes(), push(&[OP_1])));
    assert!(!needs(key_hash().as_bytes(), ScriptBuf::new()));
    assert!(!needs(&[OP_1, 2, 0x4e, 0x73], ScriptBuf::new()), "anyone spends an anchor without one");
}
