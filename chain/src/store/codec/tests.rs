//! Records read back as they were written, each value has one encoding, and garbage is an error.

use super::*;
use proptest::prelude::*;

fn script() -> impl Strategy<Value = Vec<u8>> {
    let template = (0..TEMPLATES.len(), any::<[u8; 32]>()).prop_map(|(tag, hash)| {
        let (head, length, tail) = TEMPLATES[tag];
        [head, &hash[..length], tail].concat()
    });
    let nearly = (template.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut script, at, byte)| {
        let at = at.index(script.len());
        script[at] = byte;
        script
    });
    prop_oneof![template, nearly, prop::collection::vec(any::<u8>(), 0..120)]
}

fn coin() -> impl Strategy<Value = Coin> {
    let value = prop_oneof![
        any::<u64>(),
        0..=2_100_000_000_000_000_u64,
        (0..10_u32, 0..1000_u64).prop_map(|(e, d)| d * 10_u64.pow(e))
    ];
    (value, script(), 0..1_u32 << 31, any::<bool>())
        .prop_map(|(value, script, height, coinbase)| Coin::from_parts(value, &script, height, coinbase))
}

fn record() -> impl Strategy<Value = HeaderRecord> {
    let pos = || prop::option::of((any::<u32>(), any::<u32>()).prop_map(|(file, offset)| FilePos { file, offset }));
    (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<(i32, u32, u32, u32)>(), any::<(u8, u32, u32)>(), pos(), pos())
        .prop_map(|(previous, root, (version, time, bits, nonce), (status, tx_count, size), block, undo)| {
            HeaderRecord {
                header: Header {
                    version: Version::from_consensus(version),
                    prev_blockhash: BlockHash::from_byte_array(previous),
                    merkle_root: TxMerkleNode::from_byte_array(root),
                    time,
                    bits: CompactTarget::from_consensus(bits),
                    nonce,
                },
                status,
                tx_count,
                size,
                block,
                undo,
            }
        })
}

fn outpoint() -> impl Strategy<Value = OutPoint> {
    let vout = prop_oneof![0..600_u32, any::<u32>(), (0..32_u32, 0..3_u32).prop_map(|(bit, add)| (1 << bit) - 1 + add)];
    (
        [any::<u8>(); 32].prop_map(|mut txid| {
            txid[1..].fill(9);
            Txid::from_byte_array(txid)
        }),
        vout,
    )
        .prop_map(|(txid, vout)| OutPoint { txid, vout })
}

/// Bytes of a true record with a few of them changed, cut or added, or any bytes.
fn spoilt(record: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let hit = (record, any::<prop::sample::Index>(), any::<u8>(), 0..3_u8).prop_map(|(mut bytes, at, byte, how)| {
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.truncate(at),
            _ => bytes.insert(at, byte),
        }
        bytes
    });
    prop_oneof![hit, prop::collection::vec(any::<u8>(), 0..200)]
}

fn coin_bytes(coin: &Coin) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_coin(coin, &mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn coins_read_back(coin in coin()) {
        prop_assert_eq!(decode_coin(&coin_bytes(&coin)), Ok(coin));
    }

    #[test]
    fn undo_records_read_back(coins in prop::collection::vec(coin(), 0..20)) {
        prop_assert_eq!(decode_undo(&encode_undo(&coins)), Ok(coins));
    }

    #[test]
    fn header_records_read_back(record in record()) {
        prop_assert_eq!(decode_header(&encode_header(&record)), Ok(record));
    }

    #[test]
    fn coin_keys_read_back_and_sort_as_outpoints(a in outpoint(), b in outpoint()) {
        prop_assert_eq!(decode_outpoint(&encode_outpoint(&a)), Ok(a));
        prop_assert_eq!(encode_outpoint(&a).cmp(&encode_outpoint(&b)), a.cmp(&b), "{} against {}", a, b);
    }

    #[test]
    fn spoilt_keys_are_refused_or_are_keys(bytes in spoilt(outpoint().prop_map(|key| encode_outpoint(&key).to_vec()))) {
        if let Ok(outpoint) = decode_outpoint(&bytes) {
            prop_assert_eq!(&encode_outpoint(&outpoint)[..], &bytes[..]);
        }
    }

    #[test]
    fn spoilt_coins_are_refused_or_are_coins(bytes in spoilt(coin().prop_map(|coin| coin_bytes(&coin)))) {
        if let Ok(coin) = decode_coin(&bytes) {
            prop_assert_eq!(decode_coin(&coin_bytes(&coin)), Ok(coin));
        }
    }

    #[test]
    fn spoilt_undo_records_are_refused_or_are_undo(bytes in spoilt(prop::collection::vec(coin(), 0..4).prop_map(|coins| encode_undo(&coins)))) {
        if let Ok(coins) = decode_undo(&bytes) {
            prop_assert_eq!(decode_undo(&encode_undo(&coins)), Ok(coins));
        }
    }

    #[test]
    fn spoilt_header_records_are_refused_or_are_records(bytes in spoilt(record().prop_map(|record| encode_header(&record)))) {
        if let Ok(record) = decode_header(&bytes) {
            prop_assert_eq!(encode_header(&record), bytes);
        }
    }
}

/// Amounts and their numbers from Core's src/test/compress_tests.cpp (`compress_amounts`).
#[test]
fn amounts_compress_as_in_core() {
    const COIN: u64 = 100_000_000;
    let cases = [(0, 0), (1, 1), (COIN / 100, 7), (COIN, 9), (50 * COIN, 0x32), (21_000_000 * COIN, 0x0140_6f40)];
    for (value, number) in cases {
        assert_eq!(compress_amount(value), number, "{value} satoshi");
        assert_eq!(decompress_amount(number), Some(value), "number {number}");
    }
}

#[test]
fn a_common_coin_is_short() {
    let p2wpkh = [&[0x00, 0x14][..], &[7; 20]].concat();
    // Three bytes of height, three of amount, tag and hash.
    assert_eq!(coin_bytes(&Coin::from_parts(5_000_000, &p2wpkh, 840_000, false)).len(), 3 + 1 + 21);
    assert_eq!(encode_header(&decode_header(&[&[1][..], &[0; 91]].concat()).expect("no positions")).len(), 92);
    let key = OutPoint { txid: Txid::all_zeros(), vout: 1 };
    assert_eq!(encode_outpoint(&key).len(), 33);
}

#[test]
fn claimed_lengths_allocate_nothing() {
    for claim in [u64::MAX.into(), 1 << 60, 1 << 40, (1_u128 << 71) - 1] {
        let mut bytes = Vec::new();
        put_number(claim, &mut bytes);
        assert!(decode_undo(&bytes).is_err(), "{claim} coins");
        let mut bytes = vec![0, 0];
        put_number(claim, &mut bytes);
        assert!(decode_coin(&bytes).is_err(), "a script of {claim} bytes");
    }
    assert!(decode_coin(&[0xff; 40]).is_err(), "a number without end");
}
