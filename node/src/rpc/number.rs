//! Numbers as Core writes them into JSON: amounts exact with eight decimals, reals with 16 significant digits.

use bitcoin::{Amount, SignedAmount};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// An amount in BTC with eight decimals, exact: it never is a float. Core: `ValueFromAmount`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Btc(pub Amount);

impl Serialize for Btc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (coins, rest) = (self.0.to_sat() / Amount::ONE_BTC.to_sat(), self.0.to_sat() % Amount::ONE_BTC.to_sat());
        literal(format!("{coins}.{rest:08}"), serializer)
    }
}

/// An amount that may be below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedBtc(pub SignedAmount);

impl Serialize for SignedBtc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (sat, coin) = (self.0.to_sat().unsigned_abs(), Amount::ONE_BTC.to_sat());
        let sign = if self.0.is_negative() { "-" } else { "" };
        literal(format!("{sign}{}.{:08}", sat / coin, sat % coin), serializer)
    }
}

/// A finite real number with 16 significant digits, as C's `%.16g` has it. Core: `UniValue::setFloat`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Real(pub f64);

impl Serialize for Real {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        literal(sixteen_digits(self.0), serializer)
    }
}

fn literal<S: Serializer>(text: String, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(text).expect("a number is JSON").serialize(serializer)
}

fn sixteen_digits(value: f64) -> String {
    let scientific = format!("{value:.15e}");
    let (digits, exponent) = scientific.split_once('e').expect("Rust writes an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    if (-4..16).contains(&exponent) {
        return trimmed(&format!("{value:.*}", (15 - exponent) as usize)).to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
}

/// Without the zeros at the end of a fraction.
fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_eight_decimals_and_no_rounding() {
        for (sat, text) in [
            (0, "0.00000000"),
            (1, "0.00000001"),
            (5_000_000_000, "50.00000000"),
            (2_099_999_997_690_000, "20999999.97690000"),
            (9_007_199_254_740_993, "90071992.54740993"),
        ] {
            let written = serde_json::to_string(&Btc(Amount::from_sat(sat))).expect("a number is JSON");
            assert_eq!(written, text, "{sat} sat");
        }
    }

    #[test]
    fn reals_are_written_as_printf_does() {
        // Expected: printf '%.16g' of the same doubles.
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (4.656_542_373_906_925e-10, "4.656542373906925e-10"),
            (1.203_159_460_648_88e-8, "1.20315946064888e-08"),
            (0.0001, "0.0001"),
            (0.1, "0.1"),
            (1.0 / 3.0, "0.3333333333333333"),
            (123_456_789.123_456_79, "123456789.1234568"),
            (9_999_999_999_999_998.0, "9999999999999998"),
            (1e16, "1e+16"),
            (1.25e22, "1.25e+22"),
        ] {
            assert_eq!(sixteen_digits(value), text, "{value:?}");
        }
    }
}
