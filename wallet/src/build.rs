//! From what the user wants to a transaction: who is paid how much, at which fee rate, with which coins; and its
//! signatures. Sends nothing.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::slice::Iter;

use bdk_wallet::coin_selection::InsufficientFunds;
use bdk_wallet::error::CreateTxError;
use bdk_wallet::miniscript::psbt::PsbtExt;
use bdk_wallet::{Balance, KeychainKind, TxBuilder};
use bitcoin::absolute::LockTime;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::sighash::{EcdsaSighashType, TapSighashType};
use bitcoin::{Address, Amount, FeeRate, OutPoint, Transaction, Weight};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::FeeOptions;
use crate::error::{Doing, Error, Result, failed, usage};
use crate::format::{grouped, parse_amount, parse_feerate, sat, sat_vb};
use crate::history::parse_outpoint;
use crate::keys::Account;
use crate::network::Network;
use crate::rpc::Node;
use crate::session::Session;
use crate::store::{COINBASE_MATURITY, Store};

/// Blocks that a payment may take when nothing else is said.
const DEFAULT_WITHIN: u16 = 6;
/// Fee rate in sat/vB where the node has no estimate.
const FALLBACK_SAT_VB: u64 = 1;
/// Core: `MAX_STANDARD_TX_WEIGHT`.
const MAX_STANDARD_TX_WEIGHT: u64 = 400_000;
/// What is kept of that for the rest of a transaction beside its inputs.
const OUTPUTS_WEIGHT: u64 = 10_000;
/// Weight of an input without its signatures: outpoint, length, sequence.
const INPUT_WEIGHT: u64 = 4 * 41;
/// Highest fee rate in sat/vB that a node's word alone is enough for.
const MAX_ESTIMATE_SAT_VB: u64 = 1000;

/// Who is paid how much.
pub struct Payment {
    /// Whom.
    pub address: Address,
    /// How much; none is all that is there.
    pub amount: Option<Amount>,
    /// What the payment link calls it.
    pub label: Option<String>,
}

/// Reads pairs of an address and an amount; a payment link may bring its amount along.
pub fn parse_payments(network: &Network, texts: &[String]) -> Result<Vec<Payment>> {
    let mut payments = Vec::new();
    let mut texts = texts.iter().peekable();
    while let Some(whom) = texts.next() {
        let (mut payment, link) = parse_target(network, &joined(network, whom, &mut texts))?;
        // What follows is an amount unless it can only be the next address.
        let next = texts.next_if(|text| payment.amount.is_none() || is_amount(text));
        match (next, payment.amount) {
            (Some(_), Some(asked)) => {
                return Err(usage(format!("the link asks for {} itself: leave the amount out", sat(asked.to_sat()))));
            }
            (Some(text), None) if text == "max" => {}
            (Some(text), None) => payment.amount = Some(parse_amount(text)?),
            (None, None) => {
                let what = if link { "the link names no amount" } else { "there is no amount after it" };
                return Err(usage(format!("how much goes to {whom}? {what}: give one, or max")));
            }
            (None, Some(_)) => {}
        }
        let least = payment.address.script_pubkey().minimal_non_dust();
        if payment.amount.is_some_and(|amount| amount < least) {
            return Err(failed(format!(
                "{} to {} is dust, which nodes do not pass on: {} is the least",
                sat(payment.amount.unwrap_or_default().to_sat()),
                payment.address,
                sat(least.to_sat())
            )));
        }
        payments.push(payment);
    }
    let sum = payments.iter().filter_map(|payment| payment.amount).try_fold(Amount::ZERO, Amount::checked_add);
    if sum.is_none_or(|sum| sum > Amount::MAX_MONEY) {
        return Err(failed("that is more than all the bitcoin there will be"));
    }
    if payments.iter().filter(|payment| payment.amount.is_none()).count() > 1 {
        return Err(usage("only one can be paid max, which is all that is left"));
    }
    Ok(payments)
}

/// An address as a terminal shows it, in blocks of four, is put together again.
fn joined(network: &Network, first: &str, rest: &mut Peekable<Iter<'_, String>>) -> String {
    let (mut whole, mut ahead) = (first.split_whitespace().collect::<String>(), rest.clone());
    while !first.contains(':') && network.parse_address(&whole).is_err() {
        // What was typed is what the complaint is about.
        let Some(next) = ahead.next_if(|text| text.len() <= 4) else { return first.to_owned() };
        whole.push_str(next);
    }
    *rest = ahead;
    if first.contains(':') { first.to_owned() } else { whole }
}

fn is_amount(text: &str) -> bool {
    text == "max" || parse_amount(text).is_ok()
}

/// An address, or a payment link (BIP21). Says whether it was a link.
fn parse_target(network: &Network, text: &str) -> Result<(Payment, bool)> {
    let plain = |text: &str| Ok(Payment { address: network.parse_address(text)?, amount: None, label: None });
    let Some((_, rest)) = text.split_once(':').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bitcoin")) else {
        return Ok((plain(text)?, false));
    };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut payment = plain(address)?;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name.to_ascii_lowercase().as_str() {
            // In links amounts are BTC.
            "amount" => payment.amount = Some(parse_amount(&format!("{value}btc"))?),
            "label" => payment.label = Some(percent_decoded(value)),
            name if name.starts_with("req-") => {
                return Err(failed(format!(
                    "the link demands {name:?}, which this wallet does not know: ask for a plain one"
                )));
            }
            _ => {}
        }
    }
    Ok((payment, true))
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The fee rate asked for, or the node's estimate. Refuses one that the node would not take.
pub fn fee_rate(session: &Session, node: &Node, fee: &FeeOptions) -> Result<FeeRate> {
    #[derive(Deserialize)]
    struct MempoolInfo {
        mempoolminfee: f64,
        minrelaytxfee: f64,
    }
    let info: MempoolInfo = node.call("getmempoolinfo", json!([]))?;
    let floor = rate_of_btc_kvb(info.mempoolminfee.max(info.minrelaytxfee));
    if let Some(text) = &fee.feerate {
        let rate = parse_feerate(text)?;
        if rate < floor {
            return Err(failed(format!(
                "{text} sat/vB is too low for the node now: it takes {} and more",
                sat_vb(floor)
            )));
        }
        return Ok(rate);
    }
    let within = fee.within.unwrap_or(DEFAULT_WITHIN);
    let estimate: Value = node.call("estimatesmartfee", json!([within]))?;
    let estimated = estimate["feerate"].as_f64().map(rate_of_btc_kvb);
    let rate = estimated.or(FeeRate::from_sat_per_vb(FALLBACK_SAT_VB)).unwrap_or(floor).max(floor);
    // Nobody may be looking (--yes), and the node may be wrong.
    if rate > FeeRate::from_sat_per_kwu(MAX_ESTIMATE_SAT_VB * 250) {
        return Err(failed(format!(
            "the node asks for {} sat/vB, which is taken from nobody unasked: give --feerate if it is right",
            sat_vb(rate)
        )));
    }
    if estimated.is_none() {
        let rate = sat_vb(rate);
        session.say(&format!("The node cannot estimate fees yet: {rate} sat/vB is taken (--feerate says another)."));
    }
    Ok(rate)
}

/// The RPC's BTC/kvB. A double holds the few digits of a fee rate exactly enough to be rounded back.
fn rate_of_btc_kvb(rate: f64) -> FeeRate {
    // At most all there is: it is shown and multiplied.
    let per_kvb = (rate * 1e8).round().clamp(0.0, Amount::MAX_MONEY.to_sat() as f64);
    FeeRate::from_sat_per_kwu((per_kvb as u64).div_ceil(4))
}

/// Coins that wait in the mempool and came from somebody else: whoever sent them may still take them back.
fn foreign_and_waiting(store: &Store) -> Vec<OutPoint> {
    if !store.has_waiting() {
        return Vec::new();
    }
    let own = |outpoint: &OutPoint| {
        let made = store.wallet.tx_graph().get_tx(outpoint.txid);
        made.is_some_and(|made| store.wallet.sent_and_received(&made).0 > Amount::ZERO)
    };
    let waiting = store.wallet.list_unspent().filter(|coin| !coin.chain_position.is_confirmed());
    waiting.map(|coin| coin.outpoint).filter(|outpoint| !own(outpoint)).collect()
}

/// What there is. The library counts with Bitcoin's maturity; here is counted with the network's.
pub fn balance(session: &Session, store: &Store) -> Balance {
    let mut balance = store.wallet.balance();
    let (maturity, next) = (session.network.params.coinbase_maturity, store.wallet.latest_checkpoint().height() + 1);
    if maturity == COINBASE_MATURITY {
        return balance;
    }
    for coin in store.wallet.list_unspent() {
        let mined = store.wallet.tx_graph().get_tx(coin.outpoint.txid).is_some_and(|made| made.is_coinbase());
        let (Some(counted), true) = (coin.chain_position.confirmation_height_upper_bound(), mined) else { continue };
        let height = store.height_of(&coin.outpoint.txid, &coin.chain_position).unwrap_or(counted);
        let (from, to) = match (counted + COINBASE_MATURITY <= next, height + maturity <= next) {
            (false, true) => (&mut balance.immature, &mut balance.confirmed),
            (true, false) => (&mut balance.confirmed, &mut balance.immature),
            _ => continue,
        };
        *from -= coin.txout.value;
        *to += coin.txout.value;
    }
    balance
}

/// The smallest coins, where all that can be spent are more than one standard transaction holds.
fn beyond_one_transaction(store: &Store, unusable: &[OutPoint]) -> Vec<OutPoint> {
    let unusable: BTreeSet<&OutPoint> = unusable.iter().collect();
    let usable = |coin: &bdk_wallet::LocalOutput| {
        !unusable.contains(&coin.outpoint) && !store.wallet.is_outpoint_locked(coin.outpoint)
    };
    let mut coins: Vec<_> = store.wallet.list_unspent().filter(usable).collect();
    coins.sort_by_key(|coin| std::cmp::Reverse((coin.txout.value, coin.outpoint)));
    let room = MAX_STANDARD_TX_WEIGHT - OUTPUTS_WEIGHT;
    let weight = [KeychainKind::External, KeychainKind::Internal]
        .into_iter()
        .filter_map(|keychain| store.wallet.public_descriptor(keychain).max_weight_to_satisfy().ok());
    let each = INPUT_WEIGHT + weight.max().map_or(0, Weight::to_wu);
    coins.drain(..coins.len().min((room / each) as usize));
    coins.into_iter().map(|coin| coin.outpoint).collect()
}

/// Lets the library take for mature what is mature on this network, whose tip is at this height.
pub fn take_mature<C>(builder: &mut TxBuilder<'_, C>, network: &Network, tip: u32) -> Result<()> {
    let maturity = network.params.coinbase_maturity;
    if maturity != COINBASE_MATURITY {
        builder.current_height((tip + COINBASE_MATURITY).saturating_sub(maturity));
        builder.nlocktime(LockTime::from_height(tip).doing("read the height")?);
    }
    Ok(())
}

/// A transaction that pays, not signed yet. Change goes to a new address of the same kind, the order of outputs is
/// random, and it can be mined in the next block at the earliest (against fee sniping).
pub fn payment(
    session: &Session,
    store: &mut Store,
    payments: &[Payment],
    rate: FeeRate,
    from: &[String],
) -> Result<Psbt> {
    let from: Vec<OutPoint> = from.iter().map(|text| parse_outpoint(text)).collect::<Result<_>>()?;
    let mut unusable = foreign_and_waiting(store);
    let all = payments.iter().any(|payment| payment.amount.is_none());
    if all && from.is_empty() {
        let rest = beyond_one_transaction(store, &unusable);
        if !rest.is_empty() {
            let count = grouped(rest.len() as u64);
            session.say(&format!("So many coins do not fit: the {count} smallest are left for another such payment."));
        }
        unusable.extend(rest);
    }
    let tip = store.wallet.latest_checkpoint().height();
    let mut builder = store.wallet.build_tx();
    builder.fee_rate(rate);
    take_mature(&mut builder, &session.network, tip)?;
    for payment in payments {
        match payment.amount {
            Some(amount) => builder.add_recipient(payment.address.script_pubkey(), amount),
            None => builder.drain_to(payment.address.script_pubkey()),
        };
    }
    if from.is_empty() {
        builder.unspendable(unusable);
        if all {
            builder.drain_wallet();
        }
    } else {
        builder.add_utxos(&from).map_err(|error| failed(format!("{error}: `groat coins` shows what can be spent")))?;
        builder.manually_selected_only();
    }
    builder.finish().map_err(|error| explain(session, store, error, !from.is_empty()))
}

/// What a user can do about it.
pub fn explain(session: &Session, store: &Store, error: CreateTxError, chosen: bool) -> Error {
    match error {
        CreateTxError::CoinSelection(InsufficientFunds { needed, available }) => {
            let missing = sat(needed.to_sat().saturating_sub(available.to_sat()));
            let (needed, available) = (sat(needed.to_sat()), sat(available.to_sat()));
            let what = if chosen { "the chosen coins have" } else { "the wallet can spend" };
            let rest = unspendable(session, store);
            Error::Funds(format!(
                "{missing} are missing: this takes {needed} with its fee, and {what} {available}{rest}"
            ))
        }
        CreateTxError::OutputBelowDustLimit(_) => {
            Error::Funds("what is left after the fee is too small to be sent: pay less, or at a lower fee rate".into())
        }
        CreateTxError::FeeTooLow { required } => {
            failed(format!("the new fee must be at least {}: give a higher --feerate", sat(required.to_sat())))
        }
        CreateTxError::FeeRateTooLow { required } => {
            failed(format!("the new fee rate must be at least {} sat/vB: give a higher --feerate", sat_vb(required)))
        }
        other => failed(format!("cannot make the transaction: {other}")),
    }
}

/// What there is beside the coins that can be spent, for the message about missing ones.
fn unspendable(session: &Session, store: &Store) -> String {
    let balance = balance(session, store);
    let locked = store.wallet.list_unspent().filter(|coin| store.wallet.is_outpoint_locked(coin.outpoint));
    let locked: u64 = locked.map(|coin| coin.txout.value.to_sat()).sum();
    let maturity = session.network.params.coinbase_maturity;
    let parts = [
        (balance.immature.to_sat(), format!("immature (mined less than {maturity} blocks ago)")),
        (balance.untrusted_pending.to_sat(), "not confirmed yet".to_owned()),
        (locked, "locked (`groat coins --unlock`)".to_owned()),
    ];
    let parts = parts.iter().filter(|(amount, _)| *amount > 0);
    parts.map(|(amount, why)| format!("; {} are {why}", sat(*amount))).collect()
}

/// Adds the signatures that these keys can give. Refuses what would sign something else than it shows.
pub fn sign(account: &Account, psbt: &mut Psbt) -> Result<()> {
    let plain = [EcdsaSighashType::All.into(), TapSighashType::Default.into(), TapSighashType::All.into()];
    for (at, input) in psbt.inputs.iter().enumerate() {
        if input.sighash_type.is_some_and(|kind| !plain.contains(&kind)) {
            return Err(failed(format!(
                "input {at} asks for a signature that leaves parts open (its sighash type): refused"
            )));
        }
        let shown = input.witness_utxo.as_ref();
        if input.non_witness_utxo.is_none() && !shown.is_some_and(|output| output.script_pubkey.is_p2tr()) {
            // Version 0 signs each input's own amount alone, so a false one would hide a fee.
            return Err(failed(format!(
                "input {at} comes without the transaction it spends: have the PSBT made with it"
            )));
        }
        if let Some(previous) = &input.non_witness_utxo {
            let outpoint = psbt.unsigned_tx.input[at].previous_output;
            let real = previous.output.get(outpoint.vout as usize);
            let same = shown.is_none() || shown == real;
            if previous.compute_txid() != outpoint.txid || real.is_none() || !same {
                return Err(failed(format!(
                    "input {at} comes with another transaction than the one it spends: refused"
                )));
            }
        }
    }
    // Inputs of others give errors of their own, which are no reason not to sign ours.
    let _ = psbt.sign(&account.master, &Secp256k1::new());
    Ok(())
}

/// The finished transaction, if all signatures are there.
pub fn finalize(psbt: &mut Psbt) -> Result<Transaction> {
    if psbt.inputs.iter().any(|input| input.final_script_witness.is_none() && input.final_script_sig.is_none()) {
        psbt.finalize_mut(&Secp256k1::new()).map_err(|errors| {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            failed(format!(
                "signatures are missing ({first}): `groat psbt sign` adds them, `combine` puts copies together"
            ))
        })?;
    }
    Ok(psbt.clone().extract_tx_unchecked_fee_rate())
}

/// Size once signed, as the descriptors foresee it.
pub fn foreseen_vsize(store: &Store, psbt: &Psbt) -> u64 {
    let mut weight = psbt.unsigned_tx.weight();
    for input in &psbt.unsigned_tx.input {
        let coin = store.wallet.spk_index().txout(input.previous_output);
        let descriptor = coin.map(|((keychain, _), _)| store.wallet.public_descriptor(keychain));
        weight += descriptor.and_then(|known| known.max_weight_to_satisfy().ok()).unwrap_or(Weight::ZERO);
    }
    // Marker and flag of a witness.
    (weight.to_wu() + 2).div_ceil(4)
}

/// What the inputs of a PSBT bring beyond its outputs.
pub fn fee_of(psbt: &Psbt) -> Result<u64> {
    psbt.fee().map(Amount::to_sat).doing("compute the fee")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

    fn parse(texts: &[&str]) -> Result<Vec<(Option<u64>, Option<String>)>> {
        let network = Network::load("regtest").unwrap();
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let payments = parse_payments(&network, &texts)?;
        Ok(payments.into_iter().map(|payment| (payment.amount.map(Amount::to_sat), payment.label)).collect())
    }

    #[test]
    fn addresses_links_and_amounts_go_in_pairs() {
        assert_eq!(parse(&[ADDRESS, "1000"]).unwrap(), [(Some(1000), None)]);
        assert_eq!(parse(&[ADDRESS, "max"]).unwrap(), [(None, None)]);
        let link = format!("bitcoin:{ADDRESS}?amount=0.001&label=A%20b&unknown=1");
        assert_eq!(parse(&[&link]).unwrap(), [(Some(100_000), Some("A b".into()))]);
        assert_eq!(
            parse(&[&link, ADDRESS, "5ksat"]).unwrap(),
            [(Some(100_000), Some("A b".into())), (Some(5000), None)]
        );
        // As it is copied from a terminal, with quotes and without.
        let fours = crate::format::in_fours(ADDRESS);
        assert_eq!(parse(&[&fours, "1000"]).unwrap(), [(Some(1000), None)]);
        let blocks: Vec<&str> = fours.split(' ').chain(["1000", ADDRESS, "5ksat"]).collect();
        assert_eq!(parse(&blocks).unwrap(), [(Some(1000), None), (Some(5000), None)]);
        let upper = format!("BITCOIN:{}", ADDRESS.to_uppercase());
        assert_eq!(parse(&[&upper, "1000"]).unwrap(), [(Some(1000), None)]);
    }

    #[test]
    fn what_leaves_a_doubt_is_refused() {
        let link = format!("bitcoin:{ADDRESS}?amount=0.001");
        let demanding = format!("{link}&req-somethingyoudontunderstand=50");
        for (texts, part) in [
            (vec![ADDRESS], "how much"),
            (vec![&link, "5000"], "leave the amount out"),
            (vec![&demanding], "demands"),
            (vec![ADDRESS, "0.5"], "no unit"),
            (vec![ADDRESS, "1"], "dust"),
            (vec![ADDRESS, "max", ADDRESS, "max"], "only one"),
            (vec![ADDRESS, "0"], "dust"),
            (vec![ADDRESS, "1e3"], "not an amount"),
            (vec![ADDRESS, "20000000btc", ADDRESS, "20000000btc"], "more than all"),
        ] {
            let said = parse(&texts).unwrap_err().to_string();
            assert!(said.contains(part), "{texts:?}: {said}");
        }
    }

    #[test]
    fn fee_rates_of_the_rpc_are_not_rounded_down() {
        assert_eq!(rate_of_btc_kvb(0.00001).to_sat_per_kwu(), 250);
        assert_eq!(rate_of_btc_kvb(0.000001).to_sat_per_kwu(), 25);
        assert_eq!(rate_of_btc_kvb(0.00001001).to_sat_per_kwu(), 251);
        for absurd in [f64::MAX, f64::INFINITY, f64::NAN, -1.0] {
            // Shown, it must not overflow.
            assert!(sat_vb(rate_of_btc_kvb(absurd)) >= 0.0);
        }
    }
}
