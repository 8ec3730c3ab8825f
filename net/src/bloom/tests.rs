//! Core's known answers (`bloom_tests.cpp`, `hash_tests.cpp`).

use super::*;
use bitcoin::Txid;
use groat_chain::block::Block;
use hex::FromHex;

/// Core: `CBloomFilter(10, 0.000001, 0, flags)`.
fn filter(flags: u8, elements: &[&str]) -> BloomFilter {
    filled(BloomFilter { data: vec![0; 35], hash_funcs: 19, tweak: 0, flags }, elements)
}

fn filled(mut filter: BloomFilter, elements: &[&str]) -> BloomFilter {
    elements.iter().for_each(|element| filter.insert(&bytes(element)));
    filter
}

fn bytes(hex: &str) -> Vec<u8> {
    Vec::from_hex(hex).expect("hex")
}

fn block(hex: &str) -> Block {
    Block::decode(&bytes(hex.trim())).expect("a block")
}

/// Mainnet block of four transactions, 000000005a4ded781e667e06ceefafb71410b511fe0d5adc3e5a27ecbec34ae6.
fn four() -> Block {
    block(include_str!("mainnet-000000005a4ded78.hex"))
}

/// Mainnet block of seven transactions, 000000000000b731f2eef9e8c63173adfb07e41bd53eb0ef0a6b720d6cb6dea4.
fn seven() -> Block {
    block(include_str!("mainnet-000000000000b731.hex"))
}

fn matches(filter: &mut BloomFilter, block: &Block) -> Vec<usize> {
    (0..block.transactions.len()).filter(|at| filter.matches(&block.transactions[*at])).collect()
}

#[test]
fn murmur3_gives_the_known_hashes() {
    for (expected, seed, data) in [
        (0x0000_0000, 0, ""),
        (0x6a39_6f08, 0xfba4_c795, ""),
        (0x81f1_6f39, 0xffff_ffff, ""),
        (0x514e_28b7, 0, "00"),
        (0xea3f_0b17, 0xfba4_c795, "00"),
        (0xfd6c_f10d, 0, "ff"),
        (0x16c6_b7ab, 0, "0011"),
        (0x8eb5_1c3d, 0, "001122"),
        (0xb447_1bf8, 0, "00112233"),
        (0xe230_1fa8, 0, "0011223344"),
        (0xfc2e_4a15, 0, "001122334455"),
        (0xb074_502c, 0, "00112233445566"),
        (0x8034_d2a0, 0, "0011223344556677"),
        (0xb469_8def, 0, "001122334455667788"),
    ] {
        assert_eq!(murmur3(seed, &bytes(data)), expected, "seed {seed:x}, data {data}");
    }
}

#[test]
fn elements_set_the_known_bits() {
    let elements = [
        "99108ad8ed9bb6274d3980bab5a85c048f0950c8",
        "b5a2c786d9ef4658287ced5914b37a1b4aa32eee",
        "b9300670b4c5366e95b2699e8b18bc75e5f729c5",
    ];
    for (tweak, expected) in [(0, "614e9b"), (2_147_483_649, "ce4299")] {
        let empty = BloomFilter { data: vec![0; 3], hash_funcs: 5, tweak, flags: BLOOM_UPDATE_ALL };
        let filter = filled(empty, &elements);
        assert_eq!(filter.data, bytes(expected), "tweak {tweak}");
        assert!(elements.iter().all(|element| filter.contains(&bytes(element))));
        assert!(!filter.contains(&bytes("19108ad8ed9bb6274d3980bab5a85c048f0950c8")));
    }
}

#[test]
fn a_filter_without_bits_matches_everything_and_takes_nothing() {
    let mut filter = BloomFilter { data: Vec::new(), hash_funcs: 50, tweak: 0, flags: BLOOM_UPDATE_ALL };
    filter.insert(&[1]);
    assert!(filter.contains(&[2]));
    assert_eq!((matches(&mut filter, &four()), filter.data), (vec![0, 1, 2, 3], Vec::new()));
}

#[test]
fn what_matched_matches_what_spends_it_as_far_as_the_flags_say() {
    // The coinbase by its id; then a key that the second transaction pays, the third spends and the fourth pays.
    let coinbase = "703bb9ec7ab4f56d9e417a53ac19cef9c53513dc0352b9734e012d799ffe80e9";
    let key = "044a656f065871a353f216ca26cef8dde2f03e8c16202d2e8ad769f02032cb86a5eb5e56842e92e19141d60a01928f8dd2c875a390f\
               67c1f6c94cfc617c0ea45af";
    for (flags, expected) in [(BLOOM_UPDATE_ALL, vec![0, 1, 2, 3]), (0, vec![0, 1, 3])] {
        let mut filter = filter(flags, &[coinbase]);
        assert_eq!(matches(&mut filter, &four()), [0], "flags {flags}");
        filter.insert(&bytes(key));
        assert_eq!(matches(&mut filter, &four()), expected, "flags {flags}");
    }
}

#[test]
fn bare_keys_are_told_from_other_outputs() {
    let outpoint = |txid: &str| serialize(&OutPoint { txid: txid.parse::<Txid>().expect("a txid"), vout: 0 });
    let of_key = outpoint("147caa76786596590baa4e98f5d9f48b86c7765e489f7a6ff3360fe5c674360b");
    let of_hash = outpoint("02981fa052f0481dbc5868f4fc2166035a10f27a03cfd2de67326471df5bc041");
    let elements = [
        "04eaafc2314def4ca98ac970241bcab022b9c1e1f4ea423a20f134c876f2c01ec0f0dd5b2e86e7168cefe0d81113c3807420ce13ad1357231\
         a2252247d97a46a91",
        "b6efd80d99179f4f4ff6f4dd0a007d018c385d21",
    ];
    for (flags, expected) in
        [(0, [false, false]), (BLOOM_UPDATE_ALL, [true, true]), (BLOOM_UPDATE_P2PUBKEY_ONLY, [true, false])]
    {
        let mut filter = filter(flags, &elements);
        matches(&mut filter, &seven());
        assert_eq!([filter.contains(&of_key), filter.contains(&of_hash)], expected, "flags {flags}");
    }
}

#[test]
fn sizes_are_bounded() {
    let fits = |bytes, hash_funcs| {
        BloomFilter { data: vec![0; bytes], hash_funcs, tweak: 0, flags: 0 }.is_within_size_constraints()
    };
    assert!(fits(MAX_BLOOM_FILTER_SIZE, MAX_HASH_FUNCS));
    assert!(!fits(MAX_BLOOM_FILTER_SIZE + 1, 1) && !fits(1, MAX_HASH_FUNCS + 1));
}
