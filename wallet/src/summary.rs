//! What a transaction comes to, for the eyes of whoever confirms it: whom it pays how much, its fee, its change. Computed
//! from the transaction as it stands.

use bitcoin::{Address, FeeRate, Script, Transaction};
use serde_json::{Value, json};

use crate::format::{btc, grouped, rate_of, sat};
use crate::session::Session;
use crate::store::Store;

/// Part of the amount, in percent, above which a fee is warned about.
const HIGH_FEE_PERCENT: f64 = 5.0;
/// Fee rate in sat/vB above which it is warned about.
const HIGH_FEE_RATE: f64 = 500.0;

/// What a transaction comes to.
pub struct Summary {
    paid: Vec<(String, u64)>,
    change: Vec<(String, u64)>,
    fee: u64,
    vsize: u64,
    lock_time: u32,
    replaceable: bool,
}

impl Summary {
    /// `to` are the addresses meant to be paid; what goes to other ones of ours is change.
    pub fn new(
        session: &Session,
        store: &Store,
        transaction: &Transaction,
        vsize: u64,
        fee: u64,
        to: &[Address],
    ) -> Summary {
        let meant = |script: &Script| to.iter().any(|address| address.script_pubkey() == *script);
        let (mut paid, mut change) = (Vec::new(), Vec::new());
        for output in &transaction.output {
            let script = &output.script_pubkey;
            let name =
                session.network.address(script).map_or_else(|| script.to_string(), |address| address.to_string());
            let ours = store.wallet.is_mine(script.clone()) && !meant(script);
            if ours { &mut change } else { &mut paid }.push((name, output.value.to_sat()));
        }
        let lock_time = transaction.lock_time.to_consensus_u32();
        Summary { paid, change, fee, vsize, lock_time, replaceable: transaction.is_explicitly_rbf() }
    }

    fn total(&self) -> u64 {
        self.paid.iter().map(|(_, amount)| amount).sum()
    }

    fn rate(&self) -> f64 {
        rate_of(self.fee, self.vsize)
    }

    /// The fee as a part of what is paid; of what comes back, where nothing is.
    fn percent(&self) -> f64 {
        let whole =
            if self.paid.is_empty() { self.change.iter().map(|(_, amount)| amount).sum() } else { self.total() };
        percent(self.fee, whole)
    }

    /// For people.
    pub fn text(&self, chain: &str) -> String {
        let wide = self.paid.iter().chain(&self.change).map(|(name, _)| name.len() + chain.len() + 3).max();
        let wide = wide.unwrap_or(0).max(24);
        let line = |what: &str, name: &str, amount: u64, after: &str| {
            format!("  {what:<8}{name:<wide$} {:>18}   {after}", sat(amount)).trim_end().to_owned()
        };
        let to = |(name, amount): &(String, u64)| line("To", &format!("{name} ({chain})"), *amount, &btc(*amount));
        let mut lines: Vec<String> = self.paid.iter().map(to).collect();
        let size = format!("{} sat/vB x {} vB", self.rate(), grouped(self.vsize));
        let percent = if self.percent() < 0.01 { "under 0.01 %".into() } else { format!("{} %", self.percent()) };
        lines.push(line("Fee", &size, self.fee, &percent));
        let kind = if self.replaceable { "replaceable" } else { "final" };
        lines.extend(self.change.iter().map(|(name, amount)| line("Change", name, *amount, &btc(*amount))));
        let lock = match self.lock_time {
            0 => String::new(),
            height => format!(", not before block {}", grouped(u64::from(height) + 1)),
        };
        lines.push(format!("  {:<8}{kind}{lock}", "Terms"));
        lines.join("\n")
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let list = |entries: &[(String, u64)]| -> Vec<Value> {
            entries.iter().map(|(name, amount)| json!({"address": name, "amount_sat": amount})).collect()
        };
        json!({
            "paid": list(&self.paid),
            "paid_sat": self.total(),
            "change": list(&self.change),
            "change_sat": self.change.iter().map(|(_, amount)| amount).sum::<u64>(),
            "fee_sat": self.fee,
            "fee_rate_sat_vb": self.rate(),
            "vsize": self.vsize,
            "lock_time": self.lock_time,
            "replaceable": self.replaceable,
        })
    }

    /// Says what should not be overlooked. `rate` is what was asked for.
    pub fn warn(&self, session: &Session, rate: Option<FeeRate>) {
        warn_of_percent(session, self.percent());
        if self.rate() > HIGH_FEE_RATE {
            session.warn(&format!("the fee rate is {} sat/vB", self.rate()));
        }
        let asked = rate.and_then(|rate| rate.fee_vb(self.vsize)).map_or(self.fee, |fee| fee.to_sat());
        let folded = self.fee.saturating_sub(asked);
        // A signature is a byte longer or shorter than foreseen: that much is no rest.
        if self.change.is_empty() && folded > asked / 20 + 2 {
            session.say(&format!(
                "  There is no change: a rest of {} is too small to be kept and goes to the fee.",
                sat(folded)
            ));
        }
    }
}

/// A fee as a part of an amount, to two digits.
pub fn percent(fee: u64, whole: u64) -> f64 {
    (fee as f64 * 10_000.0 / whole.max(1) as f64).round() / 100.0
}

/// Warns of a fee that is a large part of the amount.
pub fn warn_of_percent(session: &Session, percent: f64) {
    if percent > HIGH_FEE_PERCENT {
        session.warn(&format!("the fee is {percent} % of the amount"));
    }
}
