//! A coin: an unspent transaction output with the height that made it. Knows no store.

use bitcoin::{Amount, Script, ScriptBuf, TxOut};
use std::num::NonZeroU8;

/// An unspent output, as the coin table, the store and the undo files hold it: 48 bytes, and an allocation only for
/// scripts longer than 35 bytes (every standard template but bare multisig and uncompressed P2PK fits).
#[derive(Clone, PartialEq, Eq)]
pub struct Coin(Form);

/// One script has exactly one form, and unused bytes are zero, so that derived equality is equality of coins.
/// `code` is `height << 1 | coinbase`. The values stand in both forms because that way the length's zero tells the
/// forms apart, and no byte is lost to a tag.
#[derive(Clone, PartialEq, Eq)]
enum Form {
    Short { value: u64, code: u32, length_plus_one: NonZeroU8, script: [u8; SHORT_SCRIPT] },
    Long { value: u64, code: u32, script: Box<[u8]> },
}

/// The longest script that is held without an allocation.
const SHORT_SCRIPT: usize = 35;

const _: () = assert!(size_of::<Coin>() == 48);

impl Coin {
    /// A coin made by `output` at `height`.
    pub fn new(output: &TxOut, height: u32, coinbase: bool) -> Coin {
        Coin::from_parts(output.value.to_sat(), output.script_pubkey.as_bytes(), height, coinbase)
    }

    /// A coin of `value` satoshi locked by `script`. Heights lie below 2^31.
    pub fn from_parts(value: u64, script: &[u8], height: u32, coinbase: bool) -> Coin {
        let code = height << 1 | u32::from(coinbase);
        if script.len() > SHORT_SCRIPT {
            return Coin(Form::Long { value, code, script: script.into() });
        }
        let mut short = [0; SHORT_SCRIPT];
        short[..script.len()].copy_from_slice(script);
        let length_plus_one = NonZeroU8::MIN.saturating_add(script.len() as u8);
        Coin(Form::Short { value, code, length_plus_one, script: short })
    }

    /// The amount it holds.
    pub fn value(&self) -> Amount {
        let (Form::Short { value, .. } | Form::Long { value, .. }) = &self.0;
        Amount::from_sat(*value)
    }

    /// The script that locks it.
    pub fn script_pubkey(&self) -> &Script {
        Script::from_bytes(match &self.0 {
            Form::Short { length_plus_one, script, .. } => &script[..usize::from(length_plus_one.get()) - 1],
            Form::Long { script, .. } => script,
        })
    }

    /// Height of the block that made it.
    pub fn height(&self) -> u32 {
        self.code() >> 1
    }

    /// Whether a coinbase made it.
    pub fn is_coinbase(&self) -> bool {
        self.code() & 1 == 1
    }

    /// The output as a transaction shows it.
    pub fn to_output(&self) -> TxOut {
        TxOut { value: self.value(), script_pubkey: ScriptBuf::from(self.script_pubkey()) }
    }

    /// Bytes it takes outside of itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Short { .. } => 0,
            Form::Long { script, .. } => script.len(),
        }
    }

    fn code(&self) -> u32 {
        let (Form::Short { code, .. } | Form::Long { code, .. }) = &self.0;
        *code
    }
}

impl std::fmt::Debug for Coin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let coinbase = if self.is_coinbase() { ", coinbase" } else { "" };
        write!(f, "Coin({} sat, height {}{coinbase}, {:x})", self.value().to_sat(), self.height(), self.script_pubkey())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coin_gives_back_what_it_was_made_from() {
        for length in 0..=100_usize {
            let script: Vec<u8> = (0..length).map(|at| at as u8 + 1).collect();
            for (value, height, coinbase) in [(0, 0, false), (u64::MAX, (1 << 31) - 1, true), (546, 840_000, false)] {
                let coin = Coin::from_parts(value, &script, height, coinbase);
                assert_eq!(coin.value().to_sat(), value);
                assert_eq!(coin.script_pubkey().as_bytes(), script, "script of {length} bytes");
                assert_eq!((coin.height(), coin.is_coinbase()), (height, coinbase));
                assert_eq!(coin, Coin::new(&coin.to_output(), height, coinbase));
                assert_eq!(coin.heap_bytes(), if length > SHORT_SCRIPT { length } else { 0 });
            }
        }
    }

    #[test]
    fn coins_that_differ_in_a_trailing_zero_byte_differ() {
        assert_ne!(Coin::from_parts(1, &[], 1, false), Coin::from_parts(1, &[0], 1, false));
    }
}
