//! Unsigned integers of 320 bits: as wide as a target times a time span, so that no network's parameters overflow
//! them. Knows no rule.

/// Five limbs, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide([u64; 5]);

impl Wide {
    pub(super) const ONE: Wide = Wide([1, 0, 0, 0, 0]);
    /// 2^256
    pub(super) const TWO_TO_256: Wide = Wide([0, 0, 0, 0, 1]);

    pub(super) fn from_be_bytes(bytes: [u8; 32]) -> Wide {
        let mut limbs = [0; 5];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.rchunks_exact(8)) {
            *limb = u64::from_be_bytes(chunk.try_into().expect("chunks of eight"));
        }
        Wide(limbs)
    }

    /// The low 256 bits, or all ones where there are more.
    pub(super) fn to_be_bytes(self) -> [u8; 32] {
        let mut bytes = [0xff; 32];
        if self.0[4] == 0 {
            for (limb, chunk) in self.0.iter().zip(bytes.rchunks_exact_mut(8)) {
                chunk.copy_from_slice(&limb.to_be_bytes());
            }
        }
        bytes
    }

    /// The value, where it fits.
    pub(super) fn to_u64(self) -> Option<u64> {
        (self.0[1..] == [0; 4]).then_some(self.0[0])
    }

    pub(super) fn is_zero(self) -> bool {
        self.0 == [0; 5]
    }

    /// The sum, where it fits.
    pub(super) fn checked_add(self, other: Wide) -> Option<Wide> {
        let (mut sum, mut carry) = ([0; 5], false);
        for (i, limb) in sum.iter_mut().enumerate() {
            let (first, one) = self.0[i].overflowing_add(other.0[i]);
            let (second, two) = first.overflowing_add(u64::from(carry));
            (*limb, carry) = (second, one || two);
        }
        (!carry).then_some(Wide(sum))
    }

    /// The product, where it fits; it always does for a factor below 2^256.
    pub(super) fn checked_mul(self, factor: u64) -> Option<Wide> {
        let (mut product, mut carry) = ([0; 5], 0u128);
        for (i, limb) in product.iter_mut().enumerate() {
            let wide = u128::from(self.0[i]) * u128::from(factor) + carry;
            (*limb, carry) = (wide as u64, wide >> 64);
        }
        (carry == 0).then_some(Wide(product))
    }

    /// The quotient, rounded down: long division with limbs as digits (Knuth, The Art of Computer Programming, 4.3.1,
    /// algorithm D).
    pub(super) fn divided_by(self, divisor: Wide) -> Wide {
        let used = divisor.0.iter().rposition(|&limb| limb != 0).expect("the caller never divides by zero") + 1;
        // With the highest bit of the divisor set, the first digits give a quotient digit that is at most two too large.
        let shift = divisor.0[used - 1].leading_zeros();
        let divisor = &shifted_left(divisor.0, shift)[..used];
        let (mut rest, mut quotient) = (shifted_left(self.0, shift), [0; 5]);
        for place in (0..=5 - used).rev() {
            let first = u128::from(rest[place + used]) << 64 | u128::from(rest[place + used - 1]);
            let estimate = first / u128::from(divisor[used - 1]);
            let mut digit = u64::try_from(estimate).unwrap_or(u64::MAX);
            let part = &mut rest[place..=place + used];
            let mut below_zero = subtract(part, divisor, digit);
            while below_zero {
                digit -= 1;
                below_zero = !add(part, divisor);
            }
            quotient[place] = digit;
        }
        Wide(quotient)
    }
}

/// Times two to the power of `shift`, below 64, with room for it.
fn shifted_left(limbs: [u64; 5], shift: u32) -> [u64; 6] {
    let (mut out, mut carry) = ([0; 6], 0);
    for (to, from) in out.iter_mut().zip(limbs) {
        let moved = u128::from(from) << shift;
        (*to, carry) = (moved as u64 | carry, (moved >> 64) as u64);
    }
    out[5] = carry;
    out
}

/// Takes `other` times `factor` from `limbs`, which has one limb more; whether that went below zero.
fn subtract(limbs: &mut [u64], other: &[u64], factor: u64) -> bool {
    let mut owed = 0u128;
    for (limb, part) in limbs.iter_mut().zip(other.iter().chain(&[0])) {
        owed += u128::from(*part) * u128::from(factor);
        let (rest, borrow) = limb.overflowing_sub(owed as u64);
        (*limb, owed) = (rest, (owed >> 64) + u128::from(borrow));
    }
    owed != 0
}

/// Adds `other` to `limbs`, which has one limb more; whether that went over the end.
fn add(limbs: &mut [u64], other: &[u64]) -> bool {
    let mut carry = 0u128;
    for (limb, part) in limbs.iter_mut().zip(other.iter().chain(&[0])) {
        carry += u128::from(*limb) + u128::from(*part);
        (*limb, carry) = (carry as u64, carry >> 64);
    }
    carry != 0
}

impl From<u64> for Wide {
    fn from(value: u64) -> Wide {
        Wide([value, 0, 0, 0, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Limbs that are often extreme, where a digit is estimated wrongly.
    fn limb() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 1), Just(1 << 63), any::<u64>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn a_quotient_is_the_largest_that_fits(limbs: [u64; 5], extreme in prop::array::uniform5(limb()),
                                               choice in 0u8..32, divisor in prop::array::uniform5(limb()), used in 1usize..=5) {
            let mut number = limbs;
            (0..5).filter(|i| choice >> i & 1 == 1).for_each(|i| number[i] = extreme[i]);
            let mut divisor = Wide(divisor);
            divisor.0[used..].fill(0);
            prop_assume!(!divisor.is_zero());
            let quotient = Wide(number).divided_by(divisor);
            // number = quotient * divisor + rest, and the rest is smaller than the divisor.
            let mut product = [0u64; 10];
            for (place, &digit) in quotient.0.iter().enumerate() {
                let part = divisor.0.map(u128::from).into_iter();
                let mut carry = 0u128;
                for (limb, part) in product[place..].iter_mut().zip(part.chain([0; 5])) {
                    carry += u128::from(*limb) + part * u128::from(digit);
                    (*limb, carry) = (carry as u64, carry >> 64);
                }
            }
            prop_assert_eq!(&product[5..], &[0; 5], "the product is no larger than the number");
            let mut rest = [number.as_slice(), &[0]].concat();
            prop_assert!(!subtract(&mut rest, &product[..5], 1), "the product is no larger than the number");
            let smaller = rest[..5].iter().rev().lt(divisor.0.iter().rev());
            prop_assert!(smaller, "the rest is smaller than the divisor");
        }

        #[test]
        fn a_product_divides_back(limbs: [u64; 4], factor in 1u64..) {
            let number = Wide([limbs[0], limbs[1], limbs[2], limbs[3], 0]);
            let product = number.checked_mul(factor).expect("256 and 64 bits make 320");
            prop_assert_eq!(product.divided_by(Wide::from(factor)), number);
        }
    }
}
