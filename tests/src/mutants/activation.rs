//! Rules that begin at a height: kept and broken one block before and at it. And BIP30, which only matters where
//! coinbases need not hold their height.

use bitcoin::absolute::LockTime;
use bitcoin::block::Version;
use bitcoin::opcodes::all::*;
use bitcoin::script::Builder as ScriptBuilder;
use bitcoin::{Block, OutPoint, Sequence, Transaction, Witness};

use super::{Builder, Scenario, add, anyone, code, pay};
use crate::regtest::{self, push, seal};

/// Heights at which rules begin in [`heights`].
const ACTIVATION: [(&str, u32); 5] = [("bip34", 130), ("dersig", 135), ("cltv", 140), ("csv", 145), ("segwit", 150)];

/// Every buried rule at its height.
pub fn heights() -> Scenario {
    let mut builder = Builder::new("activation heights", &ACTIVATION);
    let check = ScriptBuilder::new().push_slice([2; 33]).push_opcode(OP_CHECKSIG).push_opcode(OP_NOT).into_script();
    let none_of_none = code(&[OP_PUSHBYTES_0, OP_PUSHBYTES_0, OP_CHECKMULTISIG]);
    let (high, one) = (OP_PUSHNUM_16, OP_PUSHNUM_1);
    let mut coins = builder.fund(vec![
        check.clone(),
        check,
        code(&[high, OP_CLTV]),
        code(&[high, OP_CLTV]),
        code(&[one, OP_CSV]),
        code(&[one, OP_CSV]),
        none_of_none.clone(),
        none_of_none,
        anyone(),
        anyone(),
    ]);
    let mut two = || (coins.remove(0).0, coins.remove(0).0);
    let script = |text: &str| format!("block-script-verify-flag-failed ({text})");
    let versioned = |version: i32| {
        move |block: &mut Block| {
            block.header.version = Version::from_consensus(version);
            regtest::mine(&mut block.header);
        }
    };

    // BIP34 at 130: version 2, and the height in the coinbase.
    reach(&mut builder, 129);
    let mut block = builder.valid();
    block.txdata[0].input[0].script_sig = push(&[7; 8]);
    seal(&mut block);
    versioned(1)(&mut block);
    builder.accept("before BIP34: version 1, any coinbase", &block);
    builder.case("at BIP34: version 2", "bad-version(0x00000001)", versioned(1));
    builder.case("at BIP34: the height", "bad-cb-height", |block| {
        block.txdata[0].input[0].script_sig = push(&[7; 8]);
        seal(block);
    });

    // BIP66 at 135: version 3, and DER.
    reach(&mut builder, 134);
    let not_der = |coin: OutPoint| {
        let mut spend = pay(coin, 100_000);
        spend.input[0].script_sig = push(&[0x30, 1, 1]);
        spend
    };
    let (first, second) = two();
    let mut block = builder.valid();
    add(&mut block, not_der(first));
    versioned(2)(&mut block);
    builder.accept("before BIP66: version 2, a signature that is not DER", &block);
    builder.case("at BIP66: version 3", "bad-version(0x00000002)", versioned(2));
    let reason = script("Non-canonical DER signature");
    builder.case("at BIP66: DER", &reason, |block| add(block, not_der(second)));

    // BIP65 at 140: version 4, and CHECKLOCKTIMEVERIFY.
    reach(&mut builder, 139);
    let (first, second) = two();
    let mut block = builder.valid();
    add(&mut block, pay(first, 100_000));
    versioned(3)(&mut block);
    builder.accept("before BIP65: version 3, no CHECKLOCKTIMEVERIFY", &block);
    builder.case("at BIP65: version 4", "bad-version(0x00000003)", versioned(3));
    let reason = script("Locktime requirement not satisfied");
    builder.case("at BIP65: CHECKLOCKTIMEVERIFY", &reason, |block| add(block, pay(second, 100_000)));

    // BIP68, BIP112, BIP113 at 145.
    reach(&mut builder, 144);
    let (first, second) = two();
    let mut block = builder.valid();
    let mut locked = pay(first, 100_000);
    locked.input[0].sequence = Sequence::from_height(10_000);
    // Later than the median, earlier than the block.
    locked.lock_time = LockTime::from_consensus(builder.median_time_past() + 1);
    locked.version = bitcoin::transaction::Version::TWO;
    add(&mut block, locked);
    builder.accept("before BIP68, BIP112, BIP113: none of them", &block);
    builder.case("at BIP112: CHECKSEQUENCEVERIFY", &reason, |block| add(block, pay(second, 100_000)));
    builder.case("at BIP68: relative locks", "bad-txns-nonfinal", |block| {
        block.txdata[1].input[0].sequence = Sequence::from_height(10_000);
        seal(block);
    });
    let median = builder.median_time_past();
    builder.case("at BIP113: the median time past", "bad-txns-nonfinal", |block| {
        block.txdata[1].lock_time = LockTime::from_consensus(median + 1);
        block.txdata[1].input[0].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
        seal(block);
    });

    // BIP141 and BIP147 at 150. Until then no block may have a witness, committed to or not.
    reach(&mut builder, 149);
    let dummy = |coin: OutPoint| {
        let mut spend = pay(coin, 100_000);
        spend.input[0].script_sig = code(&[OP_PUSHNUM_1]);
        spend
    };
    let (first, second) = two();
    let mut block = builder.valid();
    add(&mut block, dummy(first));
    builder.case_on(block, "before BIP141: no witness", "unexpected-witness", |block| {
        block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 32]]);
    });
    let reason = script("Dummy CHECKMULTISIG argument must be zero");
    builder.case("at BIP147: an empty extra element", &reason, |block| add(block, dummy(second)));
    builder.case("at BIP141: the commitment holds", "bad-witness-nonce-size", |block| {
        block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 31]]);
    });
    builder.scenario
}

/// Extends the chain so that the next block has `height`.
fn reach(builder: &mut Builder, height: u32) {
    while builder.height + 1 < height {
        let block = builder.valid();
        builder.accept("between the heights", &block);
    }
}

/// BIP30: a transaction must not overwrite one that is not wholly spent. Coinbases repeat where BIP34 does not hold.
pub fn repeated_coinbases() -> Scenario {
    let mut builder = Builder::bare("repeated coinbases", &[("bip34", 1_000)]);
    // Without a commitment, which would tell the coinbase of a block with payments apart.
    let fixed = |builder: &Builder, payments: Vec<Transaction>| {
        let mut block = builder.empty();
        block.txdata[0].input[0].script_sig = push(&[7; 8]);
        block.txdata[0].input[0].witness = Witness::new();
        block.txdata[0].output.pop();
        block.txdata.extend(payments);
        regtest::root_and_mine(&mut block);
        block
    };
    let first = fixed(&builder, vec![]);
    builder.accept("the first of its kind", &first);
    let coin = OutPoint { txid: first.txdata[0].compute_txid(), vout: 0 };
    let spend = pay(coin, first.txdata[0].output[0].value.to_sat());
    let block = builder.empty();
    builder.refuse("an unspent coinbase is not repeated", &fixed(&builder, vec![]), "bad-txns-BIP30");
    builder.accept("valid beside: an unspent coinbase is not repeated", &block);
    while builder.height < 110 {
        let block = builder.empty();
        builder.accept("a coinbase alone", &block);
    }
    let both = fixed(&builder, vec![spend.clone()]);
    builder.refuse("a coinbase is not repeated in the block that spends it", &both, "bad-txns-BIP30");
    let mut block = builder.empty();
    add(&mut block, spend.clone());
    builder.accept("the first is spent", &block);
    let mut block = builder.empty();
    add(&mut block, spend);
    builder.refuse("a payment is not repeated: its outputs are there", &block, "bad-txns-BIP30");
    let again = fixed(&builder, vec![]);
    assert_eq!(again.txdata[0].compute_txid(), coin.txid, "the coinbase repeats");
    builder.accept("a spent coinbase is repeated", &again);
    builder.refuse("and again not while unspent", &fixed(&builder, vec![]), "bad-txns-BIP30");
    builder.scenario
}
