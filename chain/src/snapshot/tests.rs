//! Snapshots, written and read.

use super::*;
use std::io::Cursor;

fn written(coins: &[(OutPoint, Coin)]) -> Vec<u8> {
    let out = Cursor::new(Vec::new());
    let mut writer = SnapshotWriter::new(out, [1, 2, 3, 4], BlockHash::all_zeros()).expect("memory can be written");
    for (outpoint, coin) in coins {
        writer.add(outpoint, coin).expect("memory can be written");
    }
    let (out, count) = writer.finish().expect("memory can be written");
    assert_eq!(count, coins.len() as u64);
    out.into_inner()
}

#[test]
fn the_head_counts_the_coins() {
    let head = [&b"utxo\xff\x02\x00\x01\x02\x03\x04"[..], &[0; 32], &[0; 8]].concat();
    assert_eq!(written(&[]), head);
    let outpoint = |txid: u8, vout| OutPoint::new(Txid::from_byte_array([txid; 32]), vout);
    let coin = Coin::from_parts(100_000_000, &[0x51], 3, true);
    let bytes = written(&[(outpoint(1, 0), coin.clone()), (outpoint(1, 300), coin.clone()), (outpoint(2, 7), coin)]);
    assert_eq!(bytes[43..51], 3u64.to_le_bytes());
    // Height and coinbase, one bitcoin, a raw script of one byte.
    let record = [7, 9, 7, 0x51];
    let first = [&[1; 32][..], &[2, 0], &record, &[0xfd, 0x2c, 0x01], &record].concat();
    let second = [&[2; 32][..], &[1, 7], &record].concat();
    assert_eq!(bytes[51..], [first, second].concat());
}

#[test]
fn outputs_stand_in_the_order_of_cores_keys() {
    let txid = Txid::from_byte_array([1; 32]);
    let coin = Coin::from_parts(0, &[], 0, false);
    let coins = [127, 128, 16_511, 16_512].map(|vout| (OutPoint::new(txid, vout), coin.clone()));
    let bytes = written(&coins);
    // The keys: 7f, 80 00, ff 7f, 80 80 00.
    let numbers: Vec<&[u8]> = vec![&[0x7f], &[0x80], &[0xfd, 0x80, 0x40], &[0xfd, 0x7f, 0x40]];
    let record = [0, 0, 6];
    let expected: Vec<u8> = numbers.into_iter().flat_map(|number| [number, &record].concat()).collect();
    assert_eq!(bytes[51 + 33..], expected);
}

#[test]
fn only_keys_on_the_curve_have_a_short_form() {
    let x = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let y = "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
    for (script, tag) in [
        (format!("76a914{}88ac", "11".repeat(20)), Some(0)),
        (format!("a914{}87", "11".repeat(20)), Some(1)),
        (format!("2102{}ac", "00".repeat(32)), Some(2)),
        (format!("2103{x}ac"), Some(3)),
        (format!("4104{x}{y}ac"), Some(4)),
        (format!("4104{x}{x}ac"), None),
        (format!("4106{x}{y}ac"), None),
        (format!("2104{x}ac"), None),
        (format!("0014{}", "11".repeat(20)), None),
    ] {
        let script = bitcoin::ScriptBuf::from_hex(&script).expect("hex");
        assert_eq!(compress_script(&script).map(|(tag, _)| tag), tag, "{script:x}");
    }
}
