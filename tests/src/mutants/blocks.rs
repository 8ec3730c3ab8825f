//! Faults of headers, of coinbases and of the block as a whole.

use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::*;
use bitcoin::script::{Builder as ScriptBuilder, ScriptBuf};
use bitcoin::{Amount, Block, CompactTarget, Target, TxMerkleNode, Witness};

use super::scripts::Leaf;
use super::{Builder, NOW, Scenario, add, code, pay};
use crate::regtest::{self, COMMITMENT_START, root_and_mine, seal};

pub fn scenario() -> Scenario {
    let mut builder = Builder::new("blocks", &[]);
    headers(&mut builder);
    merkle(&mut builder);
    sizes(&mut builder);
    coinbases(&mut builder);
    commitments(&mut builder);
    builder.scenario
}

fn headers(builder: &mut Builder) {
    builder.case("the hash meets the target", "high-hash", |block| {
        let target = Target::from_compact(CompactTarget::from_consensus(regtest::BITS));
        while target.is_met_by(block.block_hash()) {
            block.header.nonce += 1;
        }
    });
    for (name, bits) in [
        ("the target is not zero", 0),
        ("the target is not negative", 0x1fff_ffff),
        ("the target does not overflow", 0xff7f_ffff),
        ("the target is within the limit", 0x2100_ffff),
    ] {
        builder.case(name, "high-hash", |block| block.header.bits = CompactTarget::from_consensus(bits));
    }
    builder.case("the bits are those required", "bad-diffbits", |block| {
        block.header.bits = CompactTarget::from_consensus(regtest::BITS - 1);
        regtest::mine(&mut block.header);
    });
    let median = builder.median_time_past();
    builder.case("the time is later than the median of the last eleven", "time-too-old", |block| {
        block.header.time = median;
        regtest::mine(&mut block.header);
    });
    builder.case("the time is at most two hours ahead", "time-too-new", |block| {
        block.header.time = NOW + 7_201;
        regtest::mine(&mut block.header);
    });
    for version in [3, 1, 0, -1, i32::MIN] {
        let reason = format!("bad-version(0x{version:08x})");
        builder.case("the version is at least 4", &reason, |block| {
            block.header.version = Version::from_consensus(version);
            regtest::mine(&mut block.header);
        });
    }
}

/// BIP94: the first block of a retarget period is no more than ten minutes behind its parent. On regtest a period has
/// 144 blocks.
pub fn timewarp() -> Scenario {
    let mut builder = Builder::new("timewarp", &[]);
    builder.scenario.bip94 = true;
    let at = |mut block: Block, time: u32| {
        block.header.time = time;
        regtest::mine(&mut block.header);
        block
    };
    while builder.height < 142 {
        let block = builder.empty();
        builder.accept("before the period ends", &block);
    }
    let late = regtest::time_at(160);
    let last = at(builder.empty(), late);
    builder.accept("the last of a period, far ahead", &last);
    let first = builder.empty();
    let old = builder.median_time_past();
    builder.refuse("not later than the median", &at(first.clone(), old), "time-too-old");
    builder.refuse("a second too far behind", &at(first.clone(), late - 601), "time-timewarp-attack");
    builder.accept("ten minutes behind", &at(first, late - 600));
    let second = at(builder.empty(), regtest::time_at(144));
    builder.accept("only the first of a period is held to it", &second);
    builder.scenario
}

fn merkle(builder: &mut Builder) {
    builder.case("the root is that of the transactions", "bad-txnmrklroot", |block| {
        block.header.merkle_root = TxMerkleNode::from_byte_array([7; 32]);
        regtest::mine(&mut block.header);
    });
    builder.case("the root changes with the last transaction", "bad-txnmrklroot", |block| {
        block.txdata.pop();
    });
    // CVE-2012-2459: the mutant has the hash of the valid block, which must still be accepted.
    let mut block = builder.valid();
    let (coin, value) = builder.coin();
    add(&mut block, pay(coin, value));
    builder.case_on(block, "the last transaction is not repeated (CVE-2012-2459)", "bad-txns-duplicate", |block| {
        block.txdata.push(block.txdata[2].clone());
    });
    let mut block = builder.valid();
    for _ in 0..4 {
        let (coin, value) = builder.coin();
        add(&mut block, pay(coin, value));
    }
    builder.case_on(block, "the last two are not repeated (CVE-2012-2459)", "bad-txns-duplicate", |block| {
        block.txdata.extend_from_within(4..);
    });
}

fn sizes(builder: &mut Builder) {
    builder.case("a block has a transaction", "bad-blk-length", |block| {
        block.txdata.clear();
        root_and_mine(block);
    });
    builder.case("a block without witness has at most 1,000,000 bytes", "bad-blk-length", |block| {
        let stripped = |block: &Block| (block.weight().to_wu() as usize - block.total_size()) / 3;
        let script = &mut block.txdata[1].output[0].script_pubkey;
        *script = vec![0x6a; 999_000].into();
        let missing = 1_000_001 - stripped(block);
        block.txdata[1].output[0].script_pubkey = vec![0x6a; 999_000 + missing].into();
        seal(block);
        assert_eq!(stripped(block), 1_000_001, "the block is one byte too long");
    });
    // A taproot annex has any length, so that the valid block weighs the limit exactly.
    let leaf = Leaf::new(code(&[OP_PUSHNUM_1]));
    let coin = builder.fund(vec![leaf.output()]).remove(0).0;
    let mut block = builder.valid();
    let mut heavy = pay(coin, 100_000);
    let spend = |annex: usize| {
        let mut witness = leaf.witness(&[]);
        witness.push([vec![0x50], vec![0; annex]].concat());
        Witness::from(witness)
    };
    heavy.input[0].witness = spend(3_990_000);
    add(&mut block, heavy);
    let missing = 4_000_000 - block.weight().to_wu() as usize;
    block.txdata[2].input[0].witness = spend(3_990_000 + missing);
    seal(&mut block);
    assert_eq!(block.weight().to_wu(), 4_000_000, "the valid block weighs the limit");
    builder.case_on(block, "a block weighs at most 4,000,000", "bad-blk-weight", |block| {
        block.txdata[2].input[0].witness = spend(3_990_001 + missing);
        seal(block);
    });

    let sigops = |block: &mut Block, count: usize| {
        block.txdata[1].output[0].script_pubkey = vec![OP_CHECKSIG.to_u8(); count].into();
        seal(block);
    };
    let mut block = builder.valid();
    sigops(&mut block, 9_000);
    // Two outputs, since the first is to stay within the 10,000 bytes of a script that can be spent.
    block.txdata[1].output[1].script_pubkey = vec![OP_CHECKSIG.to_u8(); 11_000].into();
    seal(&mut block);
    builder.case_on(block, "legacy signature operations are at most 20,000", "bad-blk-sigops", |block| {
        sigops(block, 9_001);
    });
    // The operations of witness scripts are known only with the coins.
    let four =
        code(&[OP_PUSHBYTES_0, OP_IF, OP_CHECKSIG, OP_CHECKSIG, OP_CHECKSIG, OP_CHECKSIG, OP_ENDIF, OP_PUSHNUM_1]);
    let coin = builder.fund(vec![four.to_p2wsh()]).remove(0).0;
    let mut block = builder.valid();
    let mut spend = pay(coin, 100_000);
    spend.input[0].witness = Witness::from_slice(&[four.as_bytes()]);
    spend.output[0].script_pubkey = vec![OP_CHECKSIG.to_u8(); 10_999].into();
    add(&mut block, spend);
    sigops(&mut block, 9_000);
    builder.case_on(block, "signature operations cost at most 80,000, witness included", "bad-blk-sigops", |block| {
        sigops(block, 9_001);
    });
    // Those of a redeem script cost four each: with 20 keys said, 20; said by no small number, 20 as well.
    let (zero, one, three) = (OP_PUSHBYTES_0, OP_PUSHNUM_1, OP_PUSHNUM_3);
    for (name, count, ops) in [
        ("a small number says how many keys", 3, vec![zero, OP_IF, three, OP_CHECKMULTISIG, OP_ENDIF, one]),
        ("no small number says so", 20, vec![zero, OP_IF, OP_CHECKMULTISIGVERIFY, OP_ENDIF, one]),
    ] {
        let redeem = code(&ops);
        let coin = builder.fund(vec![redeem.to_p2sh()]).remove(0).0;
        let mut block = builder.valid();
        let mut spend = pay(coin, 100_000);
        spend.input[0].script_sig = regtest::push(redeem.as_bytes());
        spend.output[0].script_pubkey = vec![OP_CHECKSIG.to_u8(); 11_000 - count].into();
        add(&mut block, spend);
        sigops(&mut block, 9_000);
        builder.case_on(block, &format!("P2SH counts where {name}"), "bad-blk-sigops", |block| sigops(block, 9_001));
    }
}

fn coinbases(builder: &mut Builder) {
    builder.case("the first transaction is a coinbase", "bad-cb-missing", |block| {
        block.txdata.remove(0);
        root_and_mine(block);
    });
    builder.case("only the first transaction is a coinbase", "bad-cb-multiple", |block| {
        let mut second = block.txdata[0].clone();
        second.input[0].witness = Witness::new();
        add(block, second);
    });
    builder.case("a coinbase script has at least 2 bytes", "bad-cb-length", |block| {
        block.txdata[0].input[0].script_sig = code(&[OP_PUSHNUM_1]);
        seal(block);
    });
    let mut block = builder.valid();
    let lengthen = |block: &mut Block, length: usize| {
        let mut script = block.txdata[0].input[0].script_sig.to_bytes();
        script.resize(length, 0);
        block.txdata[0].input[0].script_sig = script.into();
        seal(block);
    };
    lengthen(&mut block, 100);
    builder.case_on(block, "a coinbase script has at most 100 bytes", "bad-cb-length", |block| lengthen(block, 101));
    let height = i64::from(builder.height);
    builder.case("a coinbase begins with its height, not the one before", "bad-cb-height", |block| {
        block.txdata[0].input[0].script_sig = ScriptBuilder::new().push_int(height).push_int(0).into_script();
        seal(block);
    });
    let height = (builder.height + 1).to_le_bytes();
    builder.case("the height of a coinbase is pushed in the fewest bytes", "bad-cb-height", |block| {
        block.txdata[0].input[0].script_sig = ScriptBuilder::new().push_slice(height).into_script();
        seal(block);
    });
    builder.case("the height of a coinbase comes first", "bad-cb-height", |block| {
        let mut script = code(&[OP_PUSHBYTES_0]).to_bytes();
        script.extend_from_slice(block.txdata[0].input[0].script_sig.as_bytes());
        block.txdata[0].input[0].script_sig = script.into();
        seal(block);
    });
    builder.case("a coinbase takes at most subsidy and fees", "bad-cb-amount", |block| {
        block.txdata[0].output[0].value += Amount::ONE_SAT;
        seal(block);
    });
    let mut block = builder.valid();
    block.txdata[0].output[0].value = Amount::ZERO;
    seal(&mut block);
    builder.accept("a coinbase may take less", &block);
}

fn commitments(builder: &mut Builder) {
    // The first two have the hash of the valid block: a witness is not part of it.
    builder.case("the reserved value has 32 bytes", "bad-witness-nonce-size", |block| {
        block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 31]]);
    });
    builder.case("the reserved value is alone", "bad-witness-nonce-size", |block| {
        block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 32], [0; 32]]);
    });
    builder.case("the reserved value is committed to", "bad-witness-merkle-match", |block| {
        block.txdata[0].input[0].witness = Witness::from_slice(&[[1; 32]]);
    });
    builder.case("a witness is committed to", "bad-witness-merkle-match", |block| {
        block.txdata[1].input[0].witness = Witness::from_slice(&[[1]]);
    });
    builder.case("the commitment is to these transactions", "bad-witness-merkle-match", |block| {
        let output = block.txdata[0].output.last_mut().expect("a sealed block has a commitment");
        let mut script = output.script_pubkey.to_bytes();
        script[37] ^= 1;
        output.script_pubkey = script.into();
        root_and_mine(block);
    });
    let wrong = || regtest::output(0, ScriptBuf::from([&COMMITMENT_START[..], &[0; 32]].concat()));
    let mut block = builder.valid();
    block.txdata[0].output.insert(1, wrong());
    root_and_mine(&mut block);
    builder.case_on(block, "of two commitments the last one counts", "bad-witness-merkle-match", |block| {
        block.txdata[0].output.swap(1, 2);
        root_and_mine(block);
    });
    let mut block = builder.valid();
    block.txdata[0].output.pop();
    block.txdata[0].input[0].witness = Witness::new();
    root_and_mine(&mut block);
    builder.case_on(block, "no witness without a commitment", "unexpected-witness", |block| {
        block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 32]]);
    });
    let mut block = builder.valid();
    block.txdata[0].output.last_mut().expect("a sealed block has a commitment").script_pubkey =
        ScriptBuf::from([&COMMITMENT_START[..], &[0; 31]].concat());
    root_and_mine(&mut block);
    builder.refuse("a commitment has 38 bytes or is none", &block, "unexpected-witness");
}
