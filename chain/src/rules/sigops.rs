//! How many signature operations a transaction may cost, counted without running a script.

use super::limits::WITNESS_SCALE_FACTOR;
use crate::coins::Coin;
use crate::script::{self, Flags};
use bitcoin::Transaction;

/// The operations in the scripts that the transaction itself shows. Core: `GetLegacySigOpCount`.
pub fn legacy_sigop_count(tx: &Transaction) -> u64 {
    let inputs = tx.input.iter().map(|input| script::legacy_sigops(&input.script_sig, false));
    let outputs = tx.output.iter().map(|output| script::legacy_sigops(&output.script_pubkey, false));
    inputs.chain(outputs).map(u64::from).sum()
}

/// The cost with the scripts that it spends: operations in a witness cost one, all others
/// [`WITNESS_SCALE_FACTOR`]. A coinbase is given without coins. Core: `GetTransactionSigOpCost`.
pub fn transaction_sigop_cost(tx: &Transaction, coins: &[Coin], flags: Flags) -> u64 {
    let scale = WITNESS_SCALE_FACTOR as u64;
    let spends = tx.input.iter().zip(coins).map(|(input, coin)| {
        let (sig, key) = (&input.script_sig, coin.script_pubkey());
        let p2sh = if flags.contains(Flags::P2SH) { script::p2sh_sigops(sig, key) } else { 0 };
        u64::from(p2sh) * scale + u64::from(script::witness_sigops(sig, key, &input.witness, flags))
    });
    legacy_sigop_count(tx) * scale + spends.sum::<u64>()
}
