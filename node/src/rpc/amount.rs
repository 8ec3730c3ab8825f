//! Amounts as arguments: numbers or text, in BTC with at most eight decimals. Core: `AmountFromValue`.

use bitcoin::{Amount, Denomination, SignedAmount};
use groat_chain::rules::transaction::MAX_MONEY;
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
    let plain = text.bytes().all(|letter| letter.is_ascii_digit() || matches!(letter, b'.' | b'-'));
    let amount = SignedAmount::from_str_in(&text, Denomination::Bitcoin).ok().filter(|_| plain);
    let amount = amount.ok_or_else(|| refuse("Invalid amount"))?;
    match u64::try_from(amount.to_sat()) {
        Ok(sat) if sat <= MAX_MONEY => Ok(Amount::from_sat(sat)),
        _ => Err(refuse("Amount out of range")),
    }
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
            (json!("1e-8"), Err("Invalid amount")),
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
