//! A coin: an unspent transaction output with the height that made it. Knows no store.

use bitcoin::{Amount, Script, TxOut};

/// An unspent output, as the coin table, the store and the undo files hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    value: u64,
    /// `height << 1 | coinbase`
    code: u32,
    script: CoinScript,
}

/// The locking script of a coin; common scripts take no allocation.
type CoinScript = smallvec::SmallVec<[u8; 36]>;

impl Coin {
    /// A coin made by `output` at `height`.
    pub fn new(output: &TxOut, height: u32, coinbase: bool) -> Coin {
        Coin::from_parts(output.value.to_sat(), output.script_pubkey.as_bytes(), height, coinbase)
    }

    /// A coin of `value` satoshi locked by `script`.
    pub fn from_parts(value: u64, script: &[u8], height: u32, coinbase: bool) -> Coin {
        Coin { value, code: height << 1 | u32::from(coinbase), script: CoinScript::from_slice(script) }
    }

    /// The amount it holds.
    pub fn value(&self) -> Amount {
        Amount::from_sat(self.value)
    }

    /// The script that locks it.
    pub fn script_pubkey(&self) -> &Script {
        Script::from_bytes(&self.script)
    }

    /// Height of the block that made it.
    pub fn height(&self) -> u32 {
        self.code >> 1
    }

    /// Whether a coinbase made it.
    pub fn is_coinbase(&self) -> bool {
        self.code & 1 == 1
    }

    /// The output as a transaction shows it.
    pub fn to_output(&self) -> TxOut {
        TxOut { value: self.value(), script_pubkey: self.script_pubkey().to_owned() }
    }
}
