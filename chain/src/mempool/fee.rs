//! Fee rates: a fee over a size, compared exactly. Knows no transaction.

use std::cmp::Ordering;

/// A fee in satoshi over a size; of two the one with the higher rate is greater. A size of zero has the lowest rate.
#[derive(Clone, Copy, Debug, Default)]
pub struct FeeRate {
    /// In satoshi; below zero where the operator holds a transaction back.
    pub fee: i64,
    /// In the unit of whoever compares: weight in the pool, virtual bytes to its outside.
    pub size: u64,
}

impl FeeRate {
    /// Both together.
    pub fn plus(self, other: FeeRate) -> FeeRate {
        FeeRate { fee: self.fee.saturating_add(other.fee), size: self.size + other.size }
    }

    /// Without the other, which is part of this one.
    pub fn minus(self, other: FeeRate) -> FeeRate {
        FeeRate { fee: self.fee.saturating_sub(other.fee), size: self.size - other.size }
    }

    /// Satoshi for 1000 units, rounded down; none below zero. Core: `CFeeRate::GetFeePerK`.
    pub fn per_thousand(self) -> u64 {
        if self.size == 0 {
            return 0;
        }
        let rate = i128::from(self.fee) * 1000 / i128::from(self.size);
        u64::try_from(rate.max(0)).unwrap_or(u64::MAX)
    }

    /// The same with the size in virtual bytes, rounded up, where it was a weight. Core: `ToFeePerVSize`.
    pub fn in_vbytes(self) -> FeeRate {
        FeeRate { fee: self.fee, size: self.size.div_ceil(4) }
    }
}

impl Ord for FeeRate {
    fn cmp(&self, other: &FeeRate) -> Ordering {
        match (self.size, other.size) {
            (0, 0) => Ordering::Equal,
            (0, _) => Ordering::Less,
            (_, 0) => Ordering::Greater,
            _ => {
                let (left, right) = (i128::from(self.fee), i128::from(other.fee));
                (left * i128::from(other.size)).cmp(&(right * i128::from(self.size)))
            }
        }
    }
}

impl PartialOrd for FeeRate {
    fn partial_cmp(&self, other: &FeeRate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for FeeRate {
    fn eq(&self, other: &FeeRate) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for FeeRate {}

/// What `size` virtual bytes cost at `rate` satoshi per 1000 of them, rounded up. Core: `CFeeRate::GetFee`.
pub fn fee_for(rate: u64, size: u64) -> u64 {
    let fee = (u128::from(rate) * u128::from(size)).div_ceil(1000);
    u64::try_from(fee).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_compare_exactly_and_by_ratio() {
        let rate = |fee, size| FeeRate { fee, size };
        assert!(rate(1, 3) > rate(33, 100));
        assert_eq!(rate(2, 6), rate(1, 3));
        assert!(rate(-1, 1) < rate(0, 1));
        assert!(rate(0, 0) < rate(-5, 1), "nothing at all is below everything");
        assert!(rate(i64::MAX, 1) > rate(i64::MAX, 2));
    }

    #[test]
    fn fees_are_rounded_up_and_rates_down() {
        assert_eq!([fee_for(100, 110), fee_for(100, 111), fee_for(1, 1), fee_for(0, 9)], [11, 12, 1, 0]);
        assert_eq!(FeeRate { fee: 1, size: 3 }.per_thousand(), 333);
        assert_eq!(FeeRate { fee: -1, size: 3 }.per_thousand(), 0);
        assert_eq!(FeeRate { fee: 7, size: 401 }.in_vbytes().size, 101);
    }
}
