//! Core's vectors (`src/test/crypto_tests.cpp`) and the algebra of sets.

use super::num::{BYTE_SIZE, Num3072};
use super::*;
use proptest::prelude::*;

/// The element of Core's tests for a small number.
fn element(number: u8) -> [u8; 32] {
    let mut element = [0; 32];
    element[0] = number;
    element
}

/// The hash as RPC shows it.
fn shown(set: &MuHash) -> String {
    set.finalize().iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

const EMPTY: &str = "dd5ad2a105c2d29495f577245c357409002329b9f4d6182c0af3dc2f462555c8";

#[test]
fn two_inserted_and_one_removed_as_in_core() {
    let mut set = MuHash::new();
    set.insert(&element(0));
    set.insert(&element(1));
    set.remove(&element(2));
    assert_eq!(shown(&set), "10d312b100cbd32ada024a6646e40d3482fcff103668d2625f10002a607d5863");
}

#[test]
fn the_product_of_two_elements_has_the_bytes_of_core() {
    let expected = concat!(
        "1fa093295ea30a6a3acdc7b3f770fa538eff537528e990e2910e40bbcfd7f6696b1256901929094694b56316de342f59",
        "3303dd12ac43e06dce1be1ff8301c845beb15468fff0ef002dbf80c29f26e6452bccc91b5cb9437ad410d2a67ea84788",
        "7fa3c6a6553309946880fe20db2c73fe0641adbd4e86edfee0d9f8cd0ee1230898873dc13ed8ddcaf045c80faa082774",
        "279007a2253f8922ee3ef361d378a6af3ddaf180b190ac97e556888c36b3d1fb1c85aab9ccd46e3deaeb7b7cf5db067a",
        "7e9ff86b658cf3acd6662bbcce37232daa753c48b794356c020090c831a8304416e2aa7ad633c0ddb2f11be1be316a81",
        "be7f7e472071c042cb68faef549c221ebff209273638b741aba5a81675c45a5fa92fea4ca821d7a324cb1e1a2ccd3b76",
        "c4228ec8066dad2a5df6e1bd0de45c7dd5de8070bdb46db6c554cf9aefc9b7b2bbf9f75b1864d9f95005314593905c01",
        "09b71f703d49944ae94477b51dac10a816bb6d1c700bafabc8bd86fac8df24be519a2f2836b16392e18036cb13e48c5c",
    );
    let mut set = MuHash::new();
    set.insert(&element(1));
    set.insert(&element(2));
    let bytes: String = set.numerator.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(bytes, expected);
}

#[test]
fn a_number_above_the_modulus_is_reduced_before_hashing() {
    let set = MuHash { numerator: Num3072::from_bytes(&[0xff; BYTE_SIZE]), denominator: Num3072::ONE };
    let hash: String = set.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "3a31e6903aff0de9f62f9a9f7f8b861de76ce2cda09822b90014319ae5dc2271");
}

#[test]
fn the_empty_set_has_the_hash_of_one() {
    assert_eq!(shown(&MuHash::new()), EMPTY);
}

#[test]
fn a_coin_is_serialized_with_its_script_length() {
    let outpoint = OutPoint { txid: bitcoin::Txid::from_byte_array([7; 32]), vout: 0x0102_0304 };
    for length in [0, 252, 253, 10_000, 70_000] {
        let script = vec![0x51; length];
        let coin = Coin::from_parts(0x1122_3344_5566, &script, 0x0a_0b0c, true);
        let mut whole =
            [vec![7; 32], vec![4, 3, 2, 1, 0x19, 0x16, 0x14, 0, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0]].concat();
        match length {
            ..253 => whole.push(length as u8),
            253..65_536 => whole.extend([&[0xfd], &(length as u16).to_le_bytes()[..]].concat()),
            _ => whole.extend([&[0xfe], &(length as u32).to_le_bytes()[..]].concat()),
        }
        whole.extend(&script);
        let (mut by_coin, mut by_bytes) = (MuHash::new(), MuHash::new());
        by_coin.insert_coin(&outpoint, &coin);
        by_bytes.insert(&whole);
        assert_eq!(shown(&by_coin), shown(&by_bytes), "a script of {length} bytes");
        by_bytes.remove_coin(&outpoint, &coin);
        assert_eq!(shown(&by_bytes), EMPTY, "the coin with a script of {length} bytes removed again");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn order_and_grouping_do_not_matter(
        (steps, shuffled) in prop::collection::vec((any::<bool>(), any::<[u8; 3]>()), 1..12)
            .prop_flat_map(|steps| (Just(steps.clone()), Just(steps).prop_shuffle())),
        split in any::<prop::sample::Index>(),
    ) {
        let all = |steps: &[(bool, [u8; 3])]| {
            let mut set = MuHash::new();
            for (removed, element) in steps {
                if *removed { set.remove(element) } else { set.insert(element) }
            }
            set
        };
        let (first, second) = shuffled.split_at(split.index(shuffled.len()));
        let mut parts = all(second);
        parts.combine(&all(first));
        prop_assert_eq!(shown(&all(&steps)), shown(&parts));
    }

    #[test]
    fn what_is_inserted_and_removed_leaves_nothing(
        kept in any::<[u8; 4]>(),
        passing in prop::collection::vec(any::<[u8; 5]>(), 1..8),
    ) {
        let mut set = MuHash::new();
        passing.iter().rev().for_each(|element| set.remove(element));
        set.insert(&kept);
        passing.iter().for_each(|element| set.insert(element));
        let mut alone = MuHash::new();
        alone.insert(&kept);
        prop_assert_eq!(shown(&set), shown(&alone));
        prop_assert_ne!(shown(&set), EMPTY);
    }
}
