//! Unsigned integers of 320 bits: as wide as a target times a time span, so that no network's parameters overflow
//! them. Knows no rule.

use std::cmp::Ordering;

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

    /// Position of the highest bit that is set, counted from one; 0 for zero.
    fn bits(self) -> u32 {
        (0..5).rev().find(|&i| self.0[i] != 0).map_or(0, |i| 64 * (i as u32 + 1) - self.0[i].leading_zeros())
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

    /// The difference; `other` is not the larger one.
    fn minus(self, other: Wide) -> Wide {
        let (mut rest, mut borrow) = ([0; 5], false);
        for (i, limb) in rest.iter_mut().enumerate() {
            let (first, one) = self.0[i].overflowing_sub(other.0[i]);
            let (second, two) = first.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (second, one || two);
        }
        debug_assert!(!borrow, "the caller compares first");
        Wide(rest)
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

    /// Times two to the power of `shift`, as far as it fits.
    fn shifted_left(self, shift: u32) -> Wide {
        let (limbs, bits) = ((shift / 64) as usize, shift % 64);
        let mut out = [0; 5];
        let mut carry = 0;
        for (to, from) in out[limbs..].iter_mut().zip(self.0) {
            let moved = u128::from(from) << bits;
            (*to, carry) = (moved as u64 | carry, (moved >> 64) as u64);
        }
        Wide(out)
    }

    fn halved(self) -> Wide {
        let mut carry = 0;
        let mut out = self.0;
        for limb in out.iter_mut().rev() {
            (*limb, carry) = (*limb >> 1 | carry, *limb << 63);
        }
        Wide(out)
    }

    /// The quotient, rounded down. Costs a step for each bit of it.
    pub(super) fn divided_by(self, divisor: Wide) -> Wide {
        assert!(!divisor.is_zero(), "the caller never divides by zero");
        let (mut quotient, mut rest) = ([0u64; 5], self);
        let Some(mut shift) = self.bits().checked_sub(divisor.bits()) else { return Wide(quotient) };
        let mut part = divisor.shifted_left(shift);
        loop {
            if rest >= part {
                rest = rest.minus(part);
                quotient[(shift / 64) as usize] |= 1 << (shift % 64);
            }
            if shift == 0 {
                return Wide(quotient);
            }
            part = part.halved();
            shift -= 1;
        }
    }
}

impl From<u64> for Wide {
    fn from(value: u64) -> Wide {
        Wide([value, 0, 0, 0, 0])
    }
}

impl Ord for Wide {
    fn cmp(&self, other: &Wide) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

impl PartialOrd for Wide {
    fn partial_cmp(&self, other: &Wide) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
