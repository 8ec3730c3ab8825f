//! Faults of transactions: their structure, their time, the coins they spend.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, OutPoint, Sequence, Txid, Witness, transaction};

use super::{Builder, Scenario, add, anyone, pay};
use crate::regtest::{self, seal};

/// `MAX_MONEY` in satoshis.
const MAX_MONEY: u64 = 21_000_000 * 100_000_000;

pub fn scenario() -> Scenario {
    let mut builder = Builder::new("transactions", &[]);
    structure(&mut builder);
    lock_times(&mut builder);
    sequence_locks(&mut builder);
    inputs(&mut builder);
    builder.scenario
}

fn structure(builder: &mut Builder) {
    let mut block = builder.empty();
    add(&mut block, regtest::transaction(vec![], vec![]));
    // The crate writes a transaction without inputs with marker and flag, which Core does not read back...
    let bytes = serialize(&block);
    builder.step("a witness flag needs a witness", bytes.clone(), Err("Block decode failed".into()));
    // ...without them Core does.
    let (start, end) = bytes.split_at(bytes.len() - 8);
    assert_eq!(end, [0, 1, 0, 0, 0, 0, 0, 0], "marker, flag, no input, no output, lock time");
    let bytes = [start, &[0; 6]].concat();
    builder.step("a transaction has an input", bytes, Err("bad-txns-vin-empty".into()));

    builder.case("a transaction has an output", "bad-txns-vout-empty", |block| {
        block.txdata[1].output.clear();
        seal(block);
    });
    let outputs = |values: &'static [u64]| {
        move |block: &mut Block| {
            block.txdata[1].output = values.iter().map(|value| regtest::output(*value, anyone())).collect();
            seal(block);
        }
    };
    builder.case("no output is negative", "bad-txns-vout-negative", outputs(&[u64::MAX]));
    builder.case("no output is the least number", "bad-txns-vout-negative", outputs(&[1 << 63]));
    builder.case("no output is above 21 million", "bad-txns-vout-toolarge", outputs(&[MAX_MONEY + 1]));
    builder.case("outputs sum to at most 21 million", "bad-txns-txouttotal-toolarge", outputs(&[MAX_MONEY, 1]));
    // The outputs of block 74638, whose sum overflowed.
    const HALF: u64 = 9_223_372_036_854_277_039;
    builder.case("outputs do not overflow (CVE-2010-5139)", "bad-txns-vout-toolarge", outputs(&[HALF, HALF]));
    builder.case("no coin is spent twice by one (CVE-2018-17144)", "bad-txns-inputs-duplicate", |block| {
        let input = block.txdata[1].input[0].clone();
        block.txdata[1].input.push(input);
        seal(block);
    });
    builder.case("no input is null", "bad-txns-prevout-null", |block| {
        block.txdata[1].input.push(regtest::unsigned(OutPoint::null()));
        seal(block);
    });
}

fn lock_times(builder: &mut Builder) {
    let locked = |block: &mut Block, lock: u32, sequence: Sequence| {
        block.txdata[1].lock_time = LockTime::from_consensus(lock);
        block.txdata[1].input[0].sequence = sequence;
        seal(block);
    };
    let height = builder.height + 1;
    let mut block = builder.valid();
    locked(&mut block, height - 1, Sequence::ZERO);
    builder.case_on(block, "a lock height is below the block's height", "bad-txns-nonfinal", |block| {
        locked(block, height, Sequence::ZERO);
    });
    let median = builder.median_time_past();
    let mut block = builder.valid();
    locked(&mut block, median - 1, Sequence::ENABLE_LOCKTIME_NO_RBF);
    builder.case_on(block, "a lock time is below the median time past (BIP113)", "bad-txns-nonfinal", |block| {
        locked(block, median, Sequence::ENABLE_LOCKTIME_NO_RBF);
    });
    let mut block = builder.valid();
    locked(&mut block, u32::MAX, Sequence::MAX);
    builder.case_on(block, "a final sequence lifts the lock", "bad-txns-nonfinal", |block| {
        locked(block, u32::MAX, Sequence::ENABLE_LOCKTIME_NO_RBF);
    });
    builder.case("a coinbase is final too", "bad-txns-nonfinal", |block| {
        block.txdata[0].lock_time = LockTime::from_consensus(u32::MAX);
        block.txdata[0].input[0].sequence = Sequence::ZERO;
        seal(block);
    });
}

fn sequence_locks(builder: &mut Builder) {
    let locked = |block: &mut Block, version: i32, sequence: u32| {
        let last = block.txdata.last_mut().expect("a block has transactions");
        last.version = transaction::Version(version);
        last.input[0].sequence = Sequence::from_consensus(sequence);
        seal(block);
    };
    let time = |units: u32| 1 << 22 | units;
    // A coin of the tip may be spent after one block, not after two.
    for version in [2, 3, -1] {
        let coin = builder.fund(vec![anyone()]).remove(0).0;
        let mut block = builder.valid();
        add(&mut block, pay(coin, 100_000));
        locked(&mut block, version, 1);
        let name = format!("a relative height is reached (BIP68), version {version}");
        builder.case_on(block, &name, "bad-txns-nonfinal", |block| locked(block, version, 2));
    }
    // Medians are 600 seconds apart: one unit of 512 has passed, two have not.
    let coin = builder.fund(vec![anyone()]).remove(0).0;
    let mut block = builder.valid();
    add(&mut block, pay(coin, 100_000));
    locked(&mut block, 2, time(1));
    builder.case_on(block, "a relative time is reached (BIP68)", "bad-txns-nonfinal", |block| {
        locked(block, 2, time(2));
    });
    for (name, version, sequence) in [("version 1", 1, 2), ("the disable bit", 2, 1 << 31 | 2)] {
        let coin = builder.fund(vec![anyone()]).remove(0).0;
        let mut block = builder.valid();
        add(&mut block, pay(coin, 100_000));
        locked(&mut block, version, sequence);
        builder.case_on(block, &format!("{name} lifts a relative lock"), "bad-txns-nonfinal", |block| {
            locked(block, 2, 2);
        });
    }
}

fn inputs(builder: &mut Builder) {
    const MISSING: &str = "bad-txns-inputs-missingorspent";
    builder.case("an input spends what exists", MISSING, |block| {
        block.txdata[1].input[0].previous_output = OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 0 };
        seal(block);
    });
    builder.case("an input names an output that its transaction has", MISSING, |block| {
        block.txdata[1].input[0].previous_output.vout += 7;
        seal(block);
    });
    let (coin, value) = builder.coin();
    let mut block = builder.valid();
    add(&mut block, pay(coin, value));
    builder.case_on(block, "a block spends a coin once", MISSING, |block| add(block, pay(coin, value - 1)));
    // Not by the same transaction, which would be a repeat first (BIP30).
    builder.case("a coin is spent once", MISSING, |block| add(block, pay(coin, value - 1)));
    // A child after its parent may spend it within the block; not before.
    let mut block = builder.valid();
    let parent = OutPoint { txid: block.txdata[1].compute_txid(), vout: 0 };
    let value = block.txdata[1].output[0].value.to_sat();
    add(&mut block, pay(parent, value));
    builder.case_on(block, "a child comes after its parent", MISSING, |block| {
        block.txdata.swap(1, 2);
        seal(block);
    });
    let unspendable = builder.fund(vec![vec![0x6a].into(), vec![0x51; 10_001].into()]);
    for (coin, output) in unspendable {
        let length = output.script_pubkey.len();
        builder.case(&format!("what can never be spent is no coin ({length} bytes)"), MISSING, |block| {
            add(block, pay(coin, 100_000));
        });
    }
    // A coinbase of height h may be spent at h + 100.
    let (mature, value) = builder.coinbases[builder.height as usize - 100];
    let (young, next) = builder.coinbases[builder.height as usize - 99];
    let mut block = builder.valid();
    add(&mut block, pay(mature, value));
    builder.case_on(block, "a coinbase matures in 100 blocks", "bad-txns-premature-spend-of-coinbase", |block| {
        block.txdata.pop();
        add(block, pay(young, next));
    });
    builder.case("a coinbase is not spent in its own block", "bad-txns-premature-spend-of-coinbase", |block| {
        // Without a commitment, which the spend would change, and the coinbase's id with it.
        block.txdata[0].output.pop();
        block.txdata[0].input[0].witness = Witness::new();
        let own = OutPoint { txid: block.txdata[0].compute_txid(), vout: 0 };
        block.txdata.push(pay(own, 1_000));
        regtest::root_and_mine(block);
    });
    builder.case("outputs are worth at most the inputs", "bad-txns-in-belowout", |block| {
        block.txdata[1].output[0].value += Amount::from_sat(super::FEE + 1);
        seal(block);
    });
}
