//! The arithmetic against slow arithmetic, with limbs that make carries run.

use super::*;
use proptest::prelude::*;

/// Any number, where limbs of zeros and of ones are common.
fn number() -> impl Strategy<Value = Num3072> {
    let limb = prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - MAX_PRIME_DIFF + 1), any::<u64>()];
    let mixed = prop::collection::vec(limb, LIMBS).prop_map(|limbs| limbs.try_into().expect("as many as asked for"));
    prop_oneof![4 => mixed, 1 => Just([u64::MAX; LIMBS]), 1 => Just([0; LIMBS])].prop_map(Num3072)
}

/// `a + b`, one limb at a time.
fn sum(a: &Num3072, b: &Num3072) -> Num3072 {
    let mut limbs = a.0;
    let mut carry = false;
    for (limb, b) in limbs.iter_mut().zip(b.0) {
        (*limb, carry) = limb.carrying_add(b, carry);
    }
    while carry {
        carry = add_small(&mut limbs, MAX_PRIME_DIFF);
    }
    Num3072(limbs)
}

/// `a * b` by doubling and adding, one bit of `b` at a time.
fn slow_product(a: &Num3072, b: &Num3072) -> Num3072 {
    let mut product = Num3072([0; LIMBS]);
    for limb in b.0.iter().rev() {
        for bit in (0..64).rev() {
            product = sum(&product, &product);
            if limb >> bit & 1 == 1 {
                product = sum(&product, a);
            }
        }
    }
    product
}

proptest! {
    #[test]
    fn products_equal_doubling_and_adding(a in number(), b in number()) {
        prop_assert_eq!(a.multiply(&b).to_bytes(), slow_product(&a, &b).to_bytes());
    }

    #[test]
    fn bytes_come_back_reduced(a in number()) {
        let bytes = a.to_bytes();
        prop_assert_eq!(Num3072::from_bytes(&bytes).0, a.reduced().0);
        prop_assert_eq!(sum(&Num3072::from_bytes(&bytes), &Num3072([0; LIMBS])).to_bytes(), bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_number_times_its_inverse_is_one(a in number()) {
        let product = a.multiply(&a.inverse()).to_bytes();
        let expected = if a.to_bytes() == [0; BYTE_SIZE] { [0; BYTE_SIZE] } else { Num3072::ONE.to_bytes() };
        prop_assert_eq!(product, expected);
    }
}

#[test]
fn the_modulus_itself_is_zero() {
    let mut modulus = [u64::MAX; LIMBS];
    modulus[0] = u64::MAX - MAX_PRIME_DIFF + 1;
    assert_eq!(Num3072(modulus).to_bytes(), [0; BYTE_SIZE]);
    modulus[0] -= 1;
    assert_eq!(Num3072(modulus).to_bytes()[0], 0u8.wrapping_sub((MAX_PRIME_DIFF + 1) as u8), "one below it stays");
}

#[test]
fn a_fold_may_overflow_twice() {
    // (2^3072 - 1) * 2^3072 + d - 1, where d stands for 2^3072, is d^2 - 1; on the way all limbs fill with ones.
    let mut product = [u64::MAX; 2 * LIMBS];
    product[..LIMBS].fill(0);
    product[0] = MAX_PRIME_DIFF - 1;
    let mut expected = [0; LIMBS];
    expected[0] = MAX_PRIME_DIFF * MAX_PRIME_DIFF - 1;
    assert_eq!(fold(&product).0, expected);
}
