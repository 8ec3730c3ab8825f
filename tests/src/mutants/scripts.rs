//! Faults of scripts: for every text that a block's script can fail with under consensus, a spend that does.

use bitcoin::hashes::Hash;
use bitcoin::opcodes::Opcode;
use bitcoin::opcodes::all::*;
use bitcoin::script::ScriptBuf;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::taproot::{LeafVersion, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{
    Amount, Block, OutPoint, Sequence, Transaction, Witness, WitnessProgram, WitnessVersion, XOnlyPublicKey,
};

use super::{Builder, Scenario, add, anyone, code, pay};
use crate::chaingen::Coin;
use crate::chaingen::keys::{KINDS, Keys, NAMES};
use crate::regtest::{push, seal};

const FALSE: &str = "Script evaluated without error but finished with a false/empty top stack element";
const MISMATCH: &str = "Witness program hash mismatch";
const PUSH_SIZE: &str = "Push value size limit exceeded";
const STACK: &str = "Operation not valid with the current stack size";
const UNSATISFIED: &str = "Locktime requirement not satisfied";

pub fn scenario() -> Scenario {
    let mut builder = Builder::new("scripts", &[]);
    let cases: Vec<Case> = [legacy(), witness_v0(), taproot()].into_iter().flatten().collect();
    let coins = builder.fund(cases.iter().map(|case| case.output.clone()).collect());
    for (case, (coin, _)) in cases.into_iter().zip(coins) {
        let mut block = builder.valid();
        if let Some((script_sig, witness)) = case.good {
            add(&mut block, spend(coin, script_sig, &witness));
        }
        let (script_sig, witness) = case.bad;
        let reason = format!("block-script-verify-flag-failed ({})", case.text);
        builder.case_on(block, case.name, &reason, |block| {
            block.txdata.truncate(2);
            add(block, spend(coin, script_sig, &witness));
        });
    }
    accepted(&mut builder);
    signatures(&mut builder);
    order(&mut builder);
    builder.scenario
}

type Unlock = (ScriptBuf, Vec<Vec<u8>>);

/// A coin, a spend of it that fails with `text`, and perhaps one that does not.
struct Case {
    name: &'static str,
    output: ScriptBuf,
    bad: Unlock,
    good: Option<Unlock>,
    text: &'static str,
}

impl Case {
    fn new(name: &'static str, output: ScriptBuf, bad: Unlock, good: Option<Unlock>, text: &'static str) -> Case {
        Case { name, output, bad, good, text }
    }
}

fn spend(coin: OutPoint, script_sig: ScriptBuf, witness: &[Vec<u8>]) -> Transaction {
    let mut transaction = pay(coin, 100_000);
    transaction.input[0].script_sig = script_sig;
    transaction.input[0].witness = Witness::from_slice(witness);
    transaction
}

/// An input script alone.
fn sig(script: ScriptBuf) -> Unlock {
    (script, vec![])
}

/// A witness alone.
fn wit(witness: Vec<Vec<u8>>) -> Unlock {
    (ScriptBuf::new(), witness)
}

fn nothing() -> Unlock {
    sig(ScriptBuf::new())
}

/// Several scripts in a row.
fn join(parts: &[ScriptBuf]) -> ScriptBuf {
    parts.iter().flat_map(|part| part.to_bytes()).collect::<Vec<u8>>().into()
}

fn key() -> [u8; 33] {
    // The generator: the public key of the secret 1.
    let mut key = [2; 33];
    key[1..].copy_from_slice(&bitcoin::secp256k1::constants::GENERATOR_X);
    key
}

/// One opcode many times.
fn times(opcode: Opcode, count: usize) -> ScriptBuf {
    code(&vec![opcode; count])
}

fn legacy() -> Vec<Case> {
    let (zero, one, two) = (OP_PUSHBYTES_0, OP_PUSHNUM_1, OP_PUSHNUM_2);
    // Spends without input script: the output script alone fails.
    let mut cases: Vec<Case> = [
        ("the top of the stack is true", code(&[zero]), FALSE),
        ("negative zero is false", push(&[0x80]), FALSE),
        ("VERIFY", code(&[zero, OP_VERIFY]), "Script failed an OP_VERIFY operation"),
        ("EQUALVERIFY", code(&[one, two, OP_EQUALVERIFY]), "Script failed an OP_EQUALVERIFY operation"),
        ("NUMEQUALVERIFY", code(&[one, two, OP_NUMEQUALVERIFY]), "Script failed an OP_NUMEQUALVERIFY operation"),
        (
            "CHECKSIGVERIFY",
            join(&[code(&[zero]), push(&key()), code(&[OP_CHECKSIGVERIFY])]),
            "Script failed an OP_CHECKSIGVERIFY operation",
        ),
        (
            "CHECKMULTISIGVERIFY",
            join(&[code(&[zero, zero, one]), push(&key()), code(&[one, OP_CHECKMULTISIGVERIFY])]),
            "Script failed an OP_CHECKMULTISIGVERIFY operation",
        ),
        ("RETURN ends a script", code(&[one, OP_RETURN]), "OP_RETURN was encountered"),
        ("a push has at most 520 bytes", join(&[push(&[1; 521]), code(&[OP_DROP, one])]), PUSH_SIZE),
        ("a script has at most 201 operations", join(&[times(OP_NOP, 202), code(&[one])]), "Operation limit exceeded"),
        ("a stack has at most 1,000 elements", times(one, 1_001), "Stack size limit exceeded"),
        (
            "no more signatures than keys",
            join(&[code(&[zero, two]), push(&key()), code(&[one, OP_CHECKMULTISIG])]),
            "Signature count negative or greater than pubkey count",
        ),
        (
            "at most 20 keys",
            join(&[code(&[zero, zero]), push(&[21]), code(&[OP_CHECKMULTISIG])]),
            "Pubkey count negative or limit exceeded",
        ),
        ("an opcode is known", code(&[one, Opcode::from(0xba)]), "Opcode missing or not understood"),
        ("a reserved opcode is not run", code(&[one, OP_RESERVED]), "Opcode missing or not understood"),
        (
            "VERIF fails though not run",
            code(&[one, zero, OP_IF, OP_VERIF, OP_ENDIF]),
            "Opcode missing or not understood",
        ),
        (
            "a disabled opcode fails though not run",
            code(&[one, zero, OP_IF, OP_CAT, OP_ENDIF]),
            "Attempted to use a disabled opcode",
        ),
        ("an operation has its operands", code(&[one, OP_ADD]), STACK),
        ("an empty stack at the end is false", code(&[OP_NOP]), FALSE),
        (
            "the other stack has an element",
            code(&[OP_FROMALTSTACK]),
            "Operation not valid with the current altstack size",
        ),
        ("an IF ends", code(&[one, one, OP_IF]), "Invalid OP_IF construction"),
        ("a lock time is not negative", code(&[OP_PUSHNUM_NEG1, OP_CLTV]), "Negative locktime"),
        ("a lock time is reached (BIP65)", code(&[one, OP_CLTV]), UNSATISFIED),
        ("a relative lock is not negative", code(&[OP_PUSHNUM_NEG1, OP_CSV]), "Negative locktime"),
        ("a relative lock is reached (BIP112)", code(&[one, OP_CSV]), UNSATISFIED),
        (
            "a number has at most 4 bytes",
            join(&[push(&[1; 5]), code(&[OP_1ADD])]),
            "Script number overflowed or is non-minimally encoded",
        ),
    ]
    .into_iter()
    .map(|(name, output, text)| Case::new(name, output, nothing(), None, text))
    .collect();

    let check = join(&[push(&key()), code(&[OP_CHECKSIG])]);
    cases.push(Case::new(
        "a signature is DER (BIP66)",
        check,
        sig(push(&[0x30, 1, 1])),
        None,
        "Non-canonical DER signature",
    ));
    let none_of_one = join(&[code(&[zero]), push(&key()), code(&[one, OP_CHECKMULTISIG])]);
    cases.push(Case::new(
        "the extra element is empty (BIP147)",
        none_of_one,
        sig(code(&[one])),
        Some(sig(code(&[zero]))),
        "Dummy CHECKMULTISIG argument must be zero",
    ));
    let redeem = push(anyone().as_bytes());
    cases.push(Case::new(
        "P2SH takes pushes only (BIP16)",
        anyone().to_p2sh(),
        sig(join(&[code(&[OP_NOP]), redeem.clone()])),
        Some(sig(redeem)),
        "Only push operators allowed in signatures",
    ));
    cases.push(Case::new(
        "P2SH runs what was committed to",
        anyone().to_p2sh(),
        sig(push(&[two.to_u8()])),
        None,
        FALSE,
    ));
    let no = code(&[zero]);
    cases.push(Case::new("P2SH runs the redeem script", no.to_p2sh(), sig(push(no.as_bytes())), None, FALSE));
    cases.push(Case::new(
        "a witness is for witness programs",
        anyone(),
        wit(vec![vec![1]]),
        Some(nothing()),
        "Witness provided for non-witness script",
    ));
    cases
}

fn witness_v0() -> Vec<Case> {
    let yes = anyone();
    let spent = || Some(wit(vec![yes.to_bytes()]));
    let long = times(OP_NOP, 10_001);
    let two = code(&[OP_PUSHNUM_1, OP_PUSHNUM_1]);
    let drop = code(&[OP_DROP, OP_PUSHNUM_1]);
    let wrapped = push(yes.to_p2wsh().as_bytes());
    vec![
        Case::new(
            "a version 0 program has 20 or 32 bytes",
            join(&[code(&[OP_PUSHBYTES_0]), push(&[1; 10])]),
            nothing(),
            None,
            "Witness program has incorrect length",
        ),
        Case::new(
            "P2WSH has a witness",
            yes.to_p2wsh(),
            nothing(),
            spent(),
            "Witness program was passed an empty witness",
        ),
        Case::new("P2WSH runs what was committed to", yes.to_p2wsh(), wit(vec![two.to_bytes()]), spent(), MISMATCH),
        Case::new(
            "P2WPKH has two elements",
            join(&[code(&[OP_PUSHBYTES_0]), push(&[1; 20])]),
            wit(vec![vec![1]]),
            None,
            MISMATCH,
        ),
        Case::new(
            "a witness program has no input script",
            yes.to_p2wsh(),
            (code(&[OP_PUSHNUM_1]), vec![yes.to_bytes()]),
            spent(),
            "Witness requires empty scriptSig",
        ),
        Case::new(
            "a wrapped witness program has its push alone",
            yes.to_p2wsh().to_p2sh(),
            (join(&[code(&[OP_PUSHNUM_1]), wrapped.clone()]), vec![yes.to_bytes()]),
            Some((wrapped, vec![yes.to_bytes()])),
            "Witness requires only-redeemscript scriptSig",
        ),
        Case::new(
            "a witness script leaves one element",
            two.to_p2wsh(),
            wit(vec![two.to_bytes()]),
            None,
            "Stack size must be exactly one after execution",
        ),
        Case::new(
            "a witness script leaves a true element",
            code(&[OP_PUSHBYTES_0]).to_p2wsh(),
            wit(vec![code(&[OP_PUSHBYTES_0]).to_bytes()]),
            None,
            FALSE,
        ),
        Case::new(
            "a witness script has at most 10,000 bytes",
            long.to_p2wsh(),
            wit(vec![long.to_bytes()]),
            None,
            "Script is too big",
        ),
        Case::new(
            "a witness element has at most 520 bytes",
            drop.to_p2wsh(),
            wit(vec![vec![1; 521], drop.to_bytes()]),
            Some(wit(vec![vec![1; 520], drop.to_bytes()])),
            PUSH_SIZE,
        ),
    ]
}

fn taproot() -> Vec<Case> {
    let yes = Leaf::new(anyone());
    let output = yes.output();
    let wrong_control = {
        let mut control = yes.witness(&[]);
        control[1].push(0);
        control
    };
    let other_leaf = {
        let mut witness = yes.witness(&[]);
        witness[0] = code(&[OP_PUSHNUM_2]).to_bytes();
        witness
    };
    let mut cases: Vec<Case> = [
        ("a taproot spend has a witness", vec![], "Witness program was passed an empty witness"),
        ("a Schnorr signature has 64 or 65 bytes", vec![vec![1; 10]], "Invalid Schnorr signature size"),
        ("a Schnorr signature fits", vec![vec![1; 64]], "Invalid Schnorr signature"),
        ("hash type 0 is not written", vec![vec![0; 65]], "Invalid Schnorr signature hash type"),
        ("a hash type is known", vec![[vec![1; 64], vec![4]].concat()], "Invalid Schnorr signature hash type"),
        ("a control block is 33 bytes and 32 a step", wrong_control, "Invalid Taproot control block size"),
        ("a leaf is committed to", other_leaf, MISMATCH),
    ]
    .into_iter()
    .map(|(name, witness, text)| Case::new(name, output.clone(), wit(witness), Some(wit(yes.witness(&[]))), text))
    .collect();

    // Tapscripts with the elements they are given.
    let unknown = [OP_PUSHNUM_1, OP_PUSHNUM_1, OP_CHECKSIGVERIFY];
    let many: Vec<Opcode> = unknown.iter().cycle().take(3 * 20).copied().chain([OP_PUSHNUM_1]).collect();
    for (name, script, stack, text) in [
        (
            "tapscript has no CHECKMULTISIG",
            code(&[OP_PUSHBYTES_0, OP_PUSHBYTES_0, OP_PUSHBYTES_0, OP_CHECKMULTISIG]),
            vec![],
            "OP_CHECKMULTISIG(VERIFY) is not available in tapscript",
        ),
        (
            "tapscript takes minimal truths",
            code(&[OP_IF, OP_PUSHNUM_1, OP_ENDIF]),
            vec![vec![2]],
            "OP_IF/NOTIF argument must be minimal in tapscript",
        ),
        (
            "a tapscript key is not empty",
            code(&[OP_PUSHNUM_1, OP_PUSHBYTES_0, OP_CHECKSIG]),
            vec![],
            "Empty public key in tapscript",
        ),
        (
            "signature checks are paid by weight",
            code(&many),
            vec![],
            "Too much signature validation relative to witness weight",
        ),
        ("a tapscript leaves one element", code(&[OP_PUSHNUM_1, OP_PUSHNUM_1]), vec![], CLEAN_STACK),
        ("a tapscript element has at most 520 bytes", code(&[OP_DROP, OP_PUSHNUM_1]), vec![vec![1; 521]], PUSH_SIZE),
        (
            "a tapscript stack has at most 1,000 elements",
            times(OP_PUSHNUM_1, 1_001),
            vec![],
            "Stack size limit exceeded",
        ),
    ] {
        let leaf = Leaf::new(script);
        cases.push(Case::new(name, leaf.output(), wit(leaf.witness(&stack)), None, text));
    }
    cases
}

const CLEAN_STACK: &str = "Stack size must be exactly one after execution";

/// Spends that policy refuses or that look odd, and that consensus accepts.
fn accepted(builder: &mut Builder) {
    let success = Leaf::new(code(&[OP_RESERVED]));
    let unknown_key = Leaf::new(code(&[OP_PUSHNUM_1, OP_PUSHNUM_1, OP_CHECKSIG]));
    let unknown_leaf = Leaf::with_version(code(&[OP_RETURN]), 0xc2);
    let many = Leaf::new(join(&[times(OP_NOP, 10_001), anyone()]));
    let mut annexed = Leaf::new(anyone()).witness(&[]);
    annexed.push(vec![0x50, 1, 2, 3]);
    let future = WitnessProgram::new(WitnessVersion::V2, &[1; 32]).expect("any version is a program");
    let cases: Vec<(&str, ScriptBuf, Unlock)> = vec![
        ("OP_SUCCESS", success.output(), wit(success.witness(&[vec![1; 600]]))),
        ("an unknown tapscript key type", unknown_key.output(), wit(unknown_key.witness(&[]))),
        ("an unknown leaf version", unknown_leaf.output(), wit(unknown_leaf.witness(&[]))),
        ("a tapscript above 10,000 bytes and 201 operations", many.output(), wit(many.witness(&[]))),
        ("an annex", Leaf::new(anyone()).output(), wit(annexed)),
        ("a future witness version", ScriptBuf::new_witness_program(&future), wit(vec![vec![1]])),
        ("a version 1 program of another length", join(&[code(&[OP_PUSHNUM_1]), push(&[1; 20])]), wit(vec![vec![1]])),
        ("a wrapped taproot program", Leaf::new(anyone()).output().to_p2sh(), {
            sig(push(Leaf::new(anyone()).output().as_bytes()))
        }),
        ("more than one element left", code(&[OP_PUSHNUM_1, OP_PUSHNUM_1]), nothing()),
        ("an input script that is no push", anyone(), sig(code(&[OP_NOP]))),
        ("an upgradable NOP", code(&[OP_NOP10, OP_PUSHNUM_1]), nothing()),
        ("a push longer than necessary", ScriptBuf::from(vec![0x4c, 1, 1]), nothing()),
    ];
    let coins = builder.fund(cases.iter().map(|case| case.1.clone()).collect());
    for ((name, _, (script_sig, witness)), (coin, _)) in cases.into_iter().zip(coins) {
        let mut block = builder.valid();
        add(&mut block, spend(coin, script_sig, &witness));
        builder.accept(&format!("consensus accepts {name}"), &block);
    }
}

/// A signature of every kind of coin covers the outputs.
fn signatures(builder: &mut Builder) {
    let keys = Keys::new(3, 1);
    let scripts: Vec<u32> = KINDS.iter().map(|kind| kind.with_key(1)).collect();
    let coins = builder.fund(scripts.iter().map(|script| keys.script(*script).clone()).collect());
    for (((kind, name), script), (outpoint, _)) in KINDS.iter().zip(NAMES).zip(scripts).zip(coins) {
        let mut transaction = pay(outpoint, 100_000);
        keys.sign(&mut transaction, &[Coin { outpoint, value: 100_000, script }]);
        let mut block = builder.valid();
        add(&mut block, transaction);
        let schnorr = matches!(NAMES[*kind as usize], "taproot-key-path" | "taproot-script-path");
        let text = if schnorr { "Invalid Schnorr signature" } else { FALSE };
        let reason = format!("block-script-verify-flag-failed ({text})");
        builder.case_on(block, &format!("a {name} signature covers the outputs"), &reason, |block| {
            block.txdata[2].output[0].value -= Amount::ONE_SAT;
            seal(block);
        });
    }
}

/// With two faults in a block, scripts are judged last.
fn order(builder: &mut Builder) {
    let coins = builder.fund(vec![code(&[OP_PUSHBYTES_0]); 3]);
    let failing = |block: &mut Block| add(block, pay(coins[0].0, 100_000));
    builder.case("a script fails after the coinbase's amount", "bad-cb-amount", |block| {
        failing(block);
        block.txdata[0].output[0].value += Amount::ONE_SAT;
        seal(block);
    });
    builder.case("a script fails after a later missing input", "bad-txns-inputs-missingorspent", |block| {
        failing(block);
        let missing = bitcoin::Txid::from_byte_array([9; 32]);
        add(block, pay(OutPoint { txid: missing, vout: 0 }, 100_000));
    });
    builder.case("a script fails after a later relative lock", "bad-txns-nonfinal", |block| {
        failing(block);
        let mut locked = pay(coins[1].0, 100_000);
        locked.input[0].sequence = Sequence::from_height(50);
        add(block, locked);
    });
}

/// A taproot output with one leaf and a key that nobody knows.
pub struct Leaf {
    script: ScriptBuf,
    version: LeafVersion,
    tree: TaprootSpendInfo,
}

impl Leaf {
    pub fn new(script: ScriptBuf) -> Leaf {
        Leaf::with_version(script, 0xc0)
    }

    fn with_version(script: ScriptBuf, version: u8) -> Leaf {
        let version = LeafVersion::from_consensus(version).expect("an even number below the annex is a leaf version");
        let internal = XOnlyPublicKey::from_slice(&key()[1..]).expect("the generator is a key");
        let tree = TaprootBuilder::new()
            .add_leaf_with_ver(0, script.clone(), version)
            .expect("a leaf at depth 0 is a tree")
            .finalize(&Secp256k1::new(), internal)
            .expect("the tree is whole");
        Leaf { script, version, tree }
    }

    pub fn output(&self) -> ScriptBuf {
        ScriptBuf::new_p2tr_tweaked(self.tree.output_key())
    }

    /// The witness that runs the leaf on these elements.
    pub fn witness(&self, stack: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let control = self.tree.control_block(&(self.script.clone(), self.version)).expect("the leaf is in the tree");
        [stack, &[self.script.to_bytes(), control.serialize()]].concat()
    }
}
