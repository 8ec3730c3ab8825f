//! Amounts as arguments: numbers or text, in BTC with at most eight decimals. Core: `AmountFromValue`.

use bitcoin::Amount;
use groat_chain::rules::limits::MAX_MONEY;
use serde_json::Value;

use super::error::*;

/// Reads an amount.
pub fn amount(value: &Value) -> Result<Amount, RpcError> {
    let refuse = |text| RpcError::new(RPC_TYPE_ERROR, text);
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(real)) => eight_decimals(real).ok_or_else(|| refuse("Invalid amount"))?,
            (None, None) => return Err(refuse("Invalid amount")),
        },
        _ => return Err(refuse("Amount is not a number or string")),
    };
    let amount = fixed_point(&text).ok_or_else(|| refuse("Invalid amount"))?;
    match u64::try_from(amount) {
        Ok(sat) if sat <= MAX_MONEY => Ok(Amount::from_sat(sat)),
        _ => Err(refuse("Amount out of range")),
    }
}

/// A decimal number as JSON writes it, in units of 10^-8; none if it is another one, or not whole in them.
/// Core: `ParseFixedPoint`.
fn fixed_point(text: &str) -> Option<i64> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (digits, exponent) = match rest.split_once(['e', 'E']) {
        Some((digits, exponent)) => {
            (digits, decimal(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)).map(|_| exponent)?)
        }
        None => (rest, "0"),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, decimal(fraction)?),
        None => (digits, ""),
    };
    if decimal(whole)?.len() > 1 && whole.starts_with('0') {
        return None;
    }
    let exponent = exponent.parse::<i32>().ok()?.checked_add(8)?.checked_sub(fraction.len() as i32)?;
    let digits = [whole, fraction].concat();
    let value = digits.trim_end_matches('0');
    let exponent = exponent.checked_add((digits.len() - value.len()) as i32)?;
    if value.is_empty() {
        return Some(0);
    }
    let scale = 10_i64.checked_pow(u32::try_from(exponent).ok()?)?;
    let value = value.parse::<i64>().ok()?.checked_mul(scale)?;
    Some(if negative { -value } else { value })
}

fn decimal(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())).then_some(text)
}

/// A JSON number came through a double: if eight decimals give the same double they are what was written, since no other
/// amount up to 21 million BTC is as near.
fn eight_decimals(real: f64) -> Option<String> {
    let text = format!("{real:.8}");
    (text.parse() == Ok(real)).then_some(text)
}

/// Reads a fee rate in BTC for 1000 virtual bytes; gives satoshi. Core: `ParseFeeRate`.
pub fn fee_rate(value: &Value, default: u64) -> Result<u64, RpcError> {
    if value.is_null() {
        return Ok(default);
    }
    let rate = amount(value)?;
    if rate >= Amount::ONE_BTC {
        let text = "Fee rates larger than or equal to 1BTC/kvB are not accepted";
        return Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    }
    Ok(rate.to_sat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_read_exactly_or_refused_in_cores_words() {
        for (value, expected) in [
            (json!(1), Ok(100_000_000)),
            (json!("0.1"), Ok(10_000_000)),
            (json!(0.00000001), Ok(1)),
            (json!(20999999.97690001), Ok(2_099_999_997_690_001)),
            (json!(0), Ok(0)),
            (json!(0.000000001), Err("Invalid amount")),
            (json!("1e-8"), Ok(1)),
            (json!("0.1E+1"), Ok(100_000_000)),
            (json!("1e-9"), Err("Invalid amount")),
            (json!("00"), Err("Invalid amount")),
            (json!("1."), Err("Invalid amount")),
            (json!(".5"), Err("Invalid amount")),
            (json!("1e"), Err("Invalid amount")),
            (json!("1e99"), Err("Invalid amount")),
            (json!("x"), Err("Invalid amount")),
            (json!(-1), Err("Amount out of range")),
            (json!(21_000_001), Err("Amount out of range")),
            (json!(true), Err("Amount is not a number or string")),
        ] {
            let read = amount(&value).map(Amount::to_sat).map_err(|error| error.message);
            assert_eq!(read, expected.map_err(String::from), "{value}");
        }
    }
}
