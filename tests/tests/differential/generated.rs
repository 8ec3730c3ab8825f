//! Generated chains are the same for the same seed, and a real bitcoind accepts them whole.

use std::path::Path;
use std::time::Duration;

use bitcoin::consensus::encode::deserialize;
use groat_tests::bitcoind::{Bitcoind, peers};
use groat_tests::chaingen::{Summary, block_files, coins, full};
use serde_json::json;

const FULL: full::Recipe = full::Recipe { seed: 7, blocks: 2, fan_out: 2, keys: 50 };
const COINS: coins::Recipe = coins::Recipe { seed: 7, coins: 40_000, spent: 60 };

/// bitcoind, given the block files, ends at the tip and with the coins that the summary tells.
fn bitcoind_agrees(peers: &Path, chain: &Path, summary: &Summary) {
    let folder = tempfile::tempdir().unwrap();
    let blocks = folder.path().join("regtest/blocks");
    std::fs::create_dir_all(&blocks).unwrap();
    for file in block_files(chain) {
        std::fs::copy(&file, blocks.join(file.file_name().unwrap())).unwrap();
    }
    let options = ["-reindex", "-assumevalid=0", "-blocksxor=0"].map(String::from);
    let bitcoind = Bitcoind::start_in(peers, folder, "regtest", &options);
    bitcoind.wait_for_height(summary.height, Duration::from_secs(600));
    assert_eq!(
        bitcoind.call("getbestblockhash", json!([])),
        json!(summary.tip),
        "the tip of the {} chain",
        summary.kind
    );
    let coins = bitcoind.call("gettxoutsetinfo", json!(["none"]));
    assert_eq!(coins["txouts"], json!(summary.utxos), "the coins of the {} chain", summary.kind);
    let amount = (coins["total_amount"].as_f64().unwrap() * 1e8).round();
    assert_eq!(amount, summary.total_amount as f64, "the satoshis of the {} chain", summary.kind);
    let count = bitcoind.call("getchaintxstats", json!([]))["txcount"].clone();
    assert_eq!(count, json!(summary.transactions), "the transactions of the {} chain", summary.kind);
}

#[test]
fn bitcoind_accepts_the_chain_of_full_blocks() {
    let Some(peers) = peers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let summary = full::generate(&FULL, folder.path()).unwrap();
    bitcoind_agrees(&peers, folder.path(), &summary);
}

#[test]
fn bitcoind_accepts_the_chain_of_many_coins() {
    let Some(peers) = peers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let summary = coins::generate(&COINS, folder.path()).unwrap();
    bitcoind_agrees(&peers, folder.path(), &summary);
}

#[test]
fn a_seed_gives_one_chain() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = folders.each_ref().map(|folder| coins::generate(&COINS, folder.path()).unwrap());
    assert_eq!(first, second, "the same recipe twice");
    let other = coins::generate(&coins::Recipe { seed: 8, ..COINS }, folders[0].path()).unwrap();
    assert_ne!(first.tip, other.tip, "another seed is another chain");
    let [first, second] = folders.each_ref().map(|folder| full::generate(&FULL, folder.path()).unwrap());
    assert_eq!(first, second, "signing on two threads does not change the chain");
}

#[test]
fn full_blocks_are_full_and_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let summary = full::generate(&FULL, folder.path()).unwrap();
    let bytes = std::fs::read(&block_files(folder.path())[0]).unwrap();
    let (mut rest, mut weights) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        assert_eq!(rest[..4], [0xfa, 0xbf, 0xb5, 0xda], "every frame begins with regtest's magic");
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let block: bitcoin::Block = deserialize(&rest[8..8 + length]).unwrap();
        weights.push(block.weight().to_wu());
        rest = &rest[8 + length..];
    }
    assert_eq!(weights.len(), summary.height as usize + 1, "one frame a height, genesis included");
    for weight in &weights[weights.len() - FULL.blocks as usize..] {
        assert!((3_900_000..=4_000_000).contains(weight), "a full block weighs {weight}");
    }
    let inputs: u64 = summary.inputs.values().sum();
    for (kind, per_cent) in [
        ("p2wpkh", 45.0),
        ("taproot-key-path", 25.0),
        ("p2pkh", 10.0),
        ("p2sh-p2wpkh", 10.0),
        ("p2wsh-multisig", 6.0),
        ("taproot-script-path", 2.0),
        ("bare-multisig", 1.0),
        ("p2sh-multisig", 1.0),
    ] {
        let share = summary.inputs[kind] as f64 / inputs as f64 * 100.0;
        assert!((share - per_cent).abs() < 1.5, "{kind} is {share:.1} % of the inputs, not {per_cent} %");
    }
}
