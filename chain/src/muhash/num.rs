//! Numbers modulo the prime 2^3072 - 1103717: multiplication, inverse, and their 384 bytes. Knows no hash and no coin.

#[cfg(test)]
mod tests;

/// Limbs of 64 bits, the lowest first.
const LIMBS: usize = 48;
const HALF: usize = LIMBS / 2;
/// Bytes of a number, the lowest first.
pub(super) const BYTE_SIZE: usize = 384;
/// What the modulus lacks to 2^3072: the largest safe prime of 3072 bits (Core: `MAX_PRIME_DIFF`).
const MAX_PRIME_DIFF: u64 = 1_103_717;

/// A number below 2^3072. One number may stand as two values, itself and itself plus the modulus; only
/// [`Num3072::to_bytes`] tells them apart, and it always gives the lower.
#[derive(Clone, Copy, Debug)]
pub(super) struct Num3072([u64; LIMBS]);

impl Num3072 {
    /// The neutral number.
    pub(super) const ONE: Num3072 = {
        let mut limbs = [0; LIMBS];
        limbs[0] = 1;
        Num3072(limbs)
    };

    /// The number that `bytes` spell, the lowest byte first. Any bytes will do.
    pub(super) fn from_bytes(bytes: &[u8; BYTE_SIZE]) -> Num3072 {
        let (words, _) = bytes.as_chunks::<8>();
        Num3072(std::array::from_fn(|index| u64::from_le_bytes(words[index])))
    }

    /// The 384 bytes of the number reduced below the modulus, the lowest first.
    pub(super) fn to_bytes(self) -> [u8; BYTE_SIZE] {
        let mut bytes = [0; BYTE_SIZE];
        for (word, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.reduced().0) {
            *word = limb.to_le_bytes();
        }
        bytes
    }

    /// `self * other`
    pub(super) fn multiply(&self, other: &Num3072) -> Num3072 {
        fold(&multiply(&self.0, &other.0))
    }

    /// The number that gives one when multiplied with this; zero for zero. By Fermat this is `self ^ (p - 2)`, whose
    /// binary digits are 3051 ones and then 21 of their own: 3071 squarings and 29 further products, 7 milliseconds.
    pub(super) fn inverse(&self) -> Num3072 {
        const TAIL_BITS: u32 = 21;
        const TAIL: u64 = (1 << TAIL_BITS) - (MAX_PRIME_DIFF + 2);
        const ONES: u32 = 3072 - TAIL_BITS;
        // `power` is self ^ (2^ones - 1); a run of ones doubles by one product, or grows by one digit by another.
        let mut power = *self;
        let mut ones = 1;
        for bit in (0..ONES.ilog2()).rev() {
            power = power.squared_times(ones).multiply(&power);
            ones *= 2;
            if ONES >> bit & 1 == 1 {
                power = power.squared_times(1).multiply(self);
                ones += 1;
            }
        }
        for bit in (0..TAIL_BITS).rev() {
            power = power.squared_times(1);
            if TAIL >> bit & 1 == 1 {
                power = power.multiply(self);
            }
        }
        power
    }

    /// `self ^ (2 ^ times)`
    fn squared_times(self, times: u32) -> Num3072 {
        (0..times).fold(self, |number, _| number.multiply(&number))
    }

    /// Below the modulus: adding the difference to 2^3072 overflows exactly when the number is not.
    fn reduced(self) -> Num3072 {
        let mut lower = self.0;
        if add_small(&mut lower, MAX_PRIME_DIFF) { Num3072(lower) } else { self }
    }
}

/// `product` modulo the prime: 2^3072 counts as [`MAX_PRIME_DIFF`], so the upper half is added that many times.
fn fold(product: &[u64; 2 * LIMBS]) -> Num3072 {
    let (low, high) = product.split_at(LIMBS);
    let mut limbs = [0; LIMBS];
    let mut carry = 0;
    for ((limb, low), high) in limbs.iter_mut().zip(low).zip(high) {
        (*limb, carry) = high.carrying_mul_add(MAX_PRIME_DIFF, *low, carry);
    }
    // The carry is at most the factor, so this product has 42 bits at most.
    if add_small(&mut limbs, carry * MAX_PRIME_DIFF) {
        // What overflowed left less than 42 bits behind: this cannot overflow again.
        add_small(&mut limbs, MAX_PRIME_DIFF);
    }
    Num3072(limbs)
}

/// `limbs += small`; whether it overflowed.
fn add_small(limbs: &mut [u64], mut small: u64) -> bool {
    for limb in limbs {
        let carry;
        (*limb, carry) = limb.overflowing_add(small);
        if !carry {
            return false;
        }
        small = 1;
    }
    true
}

/// `a * b` by three half products and not four (Karatsuba): with `a = a1 B + a0` and `b = b1 B + b0` the middle
/// `a1 b0 + a0 b1` is `a1 b1 + a0 b0 + (a1 - a0)(b0 - b1)`. Splitting further gains nothing (measured).
fn multiply(a: &[u64; LIMBS], b: &[u64; LIMBS]) -> [u64; 2 * LIMBS] {
    let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
    let mut product = [0; 2 * LIMBS];
    product[..LIMBS].copy_from_slice(&multiply_half(a0, b0));
    product[LIMBS..].copy_from_slice(&multiply_half(a1, b1));
    let (a_step, a_falls) = distance(a1, a0);
    let (b_step, b_falls) = distance(b0, b1);
    let cross = multiply_half(&a_step, &b_step);

    // The middle is low + high, plus or minus cross; `top` is its limb above. As a whole it is never negative.
    let negative = a_falls != b_falls;
    let flip = if negative { u64::MAX } else { 0 };
    let (low, high) = product.split_at(LIMBS);
    let mut middle = [0; LIMBS];
    let (mut carry, mut carry_cross) = (false, negative);
    for (((middle, low), high), cross) in middle.iter_mut().zip(low).zip(high).zip(cross) {
        let sum;
        (sum, carry) = low.carrying_add(*high, carry);
        (*middle, carry_cross) = sum.carrying_add(cross ^ flip, carry_cross);
    }
    let top = u64::from(carry) + u64::from(carry_cross) - u64::from(negative);

    let mut carry = false;
    for (limb, middle) in product[HALF..].iter_mut().zip(middle) {
        (*limb, carry) = limb.carrying_add(middle, carry);
    }
    add_small(&mut product[HALF + LIMBS..], top + u64::from(carry));
    product
}

/// The lower and the upper half.
fn halves(limbs: &[u64; LIMBS]) -> [&[u64; HALF]; 2] {
    let (halves, _) = limbs.as_chunks();
    [&halves[0], &halves[1]]
}

/// `|a - b|` and whether `a < b`.
fn distance(a: &[u64; HALF], b: &[u64; HALF]) -> ([u64; HALF], bool) {
    let mut difference = [0; HALF];
    let mut below = false;
    for ((limb, a), b) in difference.iter_mut().zip(a).zip(b) {
        (*limb, below) = a.borrowing_sub(*b, below);
    }
    // Negated without a branch: which of the two is larger is chance.
    let flip = if below { u64::MAX } else { 0 };
    let mut carry = below;
    for limb in &mut difference {
        (*limb, carry) = (*limb ^ flip).overflowing_add(u64::from(carry));
    }
    (difference, below)
}

/// `a * b` row by row. Walked by index, since the compiler unrolls that and not zips: a quarter faster.
fn multiply_half(a: &[u64; HALF], b: &[u64; HALF]) -> [u64; LIMBS] {
    let mut product = [0; LIMBS];
    // What the rows so far add up to, less the limbs that are final.
    let mut window = [0; HALF];
    for row in 0..HALF {
        let mut carry;
        (product[row], carry) = a[0].carrying_mul_add(b[row], window[0], 0);
        for limb in 1..HALF {
            (window[limb - 1], carry) = a[limb].carrying_mul_add(b[row], window[limb], carry);
        }
        window[HALF - 1] = carry;
    }
    product[HALF..].copy_from_slice(&window);
    product
}
