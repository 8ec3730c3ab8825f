//! Commands about what a wallet has: balance, history, coins; and reading the node's blocks for themselves.

use std::collections::BTreeSet;

use bdk_wallet::KeychainKind;
use bdk_wallet::chain::ChainPosition;
use bitcoin::OutPoint;
use serde_json::{Value, json};

use crate::build;
use crate::error::{Result, usage};
use crate::format::{btc, date_time, grouped, rate_of, sat, signed};
use crate::session::Session;
use crate::store::{Birthday, Store};
use crate::sync;

/// `groat balance`.
pub fn balance(session: &Session) -> Result<()> {
    let (store, _, height) = session.synced()?;
    let balance = build::balance(session, &store);
    let pending = (balance.trusted_pending + balance.untrusted_pending).to_sat();
    let (confirmed, immature) = (balance.confirmed.to_sat(), balance.immature.to_sat());
    let value = json!({
        "confirmed_sat": confirmed, "pending_sat": pending, "immature_sat": immature, "tip_height": height,
    });
    session.show(&value, || {
        let all = [("Confirmed", confirmed), ("Pending", pending), ("Immature", immature)];
        let shown = all.iter().filter(|(name, amount)| *name == "Confirmed" || *amount > 0);
        let lines = shown.map(|(name, amount)| format!("{name:<10}{:>22}   {}", sat(*amount), btc(*amount)));
        lines.collect::<Vec<_>>().join("\n")
    });
    if session.tty() && confirmed + pending + immature == 0 {
        session.say("Nothing yet: `groat receive` shows an address to be paid at.");
    }
    Ok(())
}

/// `groat sync`.
pub fn sync(session: &Session, from: Option<&str>) -> Result<()> {
    let from = from.map(Session::parse_birthday).transpose()?;
    if let Some(from) = from {
        let mut store = session.open()?;
        let node = session.node()?;
        let tip: u32 = node.call("getblockcount", json!([]))?;
        let height = match from {
            Birthday::Height(height) => height,
            Birthday::Time(time) => sync::height_at(&node, time, tip)?,
        };
        store.set_birthday(Birthday::Height(height))?;
        store.forget_from(height, &session.network)?;
        store.set_seen_mempool(&[])?;
    }
    let (store, _, height) = session.synced()?;
    let count = store.wallet.transactions().count();
    let value = json!({"tip_height": height, "transactions": count});
    session.show(&value, || format!("At block {}, with {count} transactions.", grouped(height.into())));
    Ok(())
}

/// Confirmations of something at this height; 0 while it waits.
fn confirmations(height: Option<u32>, tip: u32) -> u32 {
    height.map_or(0, |height| (tip + 1).saturating_sub(height))
}

/// `groat history`.
pub fn history(session: &Session, limit: usize) -> Result<()> {
    let (store, _, tip) = session.synced()?;
    let mut all: Vec<_> = store
        .wallet
        .transactions()
        .map(|known| {
            let time = match &known.chain_position {
                ChainPosition::Confirmed { anchor, .. } => Some(anchor.confirmation_time),
                ChainPosition::Unconfirmed { last_seen, first_seen } => first_seen.or(*last_seen),
            };
            (store.height_of(&known.tx_node.txid, &known.chain_position), time, known.tx_node.tx, known.tx_node.txid)
        })
        .collect();
    // What waits first, then from the last block back; ids make the order the same each time.
    all.sort_by_key(|(height, time, _, txid)| std::cmp::Reverse((height.unwrap_or(u32::MAX), *time, *txid)));
    let (mut list, mut rows) = (Vec::new(), Vec::new());
    for (height, time, transaction, txid) in all.into_iter().take(limit) {
        let (sent, received) = store.wallet.sent_and_received(&transaction);
        let net = received.to_sat() as i64 - sent.to_sat() as i64;
        let fee = store.wallet.calculate_fee(&transaction).ok().map(|fee| fee.to_sat());
        let label = label_of(&store, session, &transaction, &txid.to_string())?;
        list.push(json!({
            "txid": txid,
            "height": height,
            "time": time,
            "confirmations": confirmations(height, tip),
            "sent_sat": sent.to_sat(),
            "received_sat": received.to_sat(),
            "net_sat": net,
            "fee_sat": fee,
            "fee_rate_sat_vb": fee.map(|fee| rate_of(fee, transaction.vsize() as u64)),
            "replaceable": height.is_none() && transaction.is_explicitly_rbf(),
            "label": label,
        }));
        rows.push(vec![
            time.map(date_time).unwrap_or_default(),
            height.map_or("pending".into(), |height| height.to_string()),
            signed(net),
            txid.to_string(),
            label.unwrap_or_default(),
        ]);
    }
    let titles = ["date (UTC)", "block", "sat", "transaction", "label"];
    session.show_rows(
        &json!({ "transactions": list }),
        &titles,
        &rows,
        "No payment yet: `groat receive` shows an address.",
    );
    Ok(())
}

/// The label of a transaction, or else of one of the addresses it pays.
fn label_of(
    store: &Store,
    session: &Session,
    transaction: &bitcoin::Transaction,
    txid: &str,
) -> Result<Option<String>> {
    if let Some(label) = store.label("tx", txid)? {
        return Ok(Some(label));
    }
    for output in transaction.output.iter().take(16) {
        if let Some(address) = session.network.address(&output.script_pubkey)
            && let Some(label) = store.label("addr", &address.to_string())?
        {
            return Ok(Some(label));
        }
    }
    Ok(None)
}

/// Reads an outpoint.
pub fn parse_outpoint(text: &str) -> Result<OutPoint> {
    text.parse().map_err(|_| usage(format!("{text:?} is not a coin: write TXID:NUMBER, as `groat coins` shows it")))
}

/// `groat coins`.
pub fn coins(session: &Session, lock: &[String], unlock: &[String]) -> Result<()> {
    let (mut store, _, tip) = session.synced()?;
    let known: BTreeSet<OutPoint> = store.wallet.list_unspent().map(|coin| coin.outpoint).collect();
    for (texts, locked) in [(lock, true), (unlock, false)] {
        for text in texts {
            let outpoint = parse_outpoint(text)?;
            if !known.contains(&outpoint) {
                return Err(usage(format!("{text} is not one of this wallet's coins: `groat coins` shows them")));
            }
            if locked {
                store.wallet.lock_outpoint(outpoint);
            } else {
                store.wallet.unlock_outpoint(outpoint);
            }
        }
    }
    store.save()?;
    let mut all: Vec<_> = store.wallet.list_unspent().collect();
    all.sort_by_key(|coin| (std::cmp::Reverse(coin.txout.value), coin.outpoint));
    let (mut list, mut rows) = (Vec::<Value>::new(), Vec::new());
    for coin in all {
        let height = store.height_of(&coin.outpoint.txid, &coin.chain_position);
        let confirmations = confirmations(height, tip);
        let locked = store.wallet.is_outpoint_locked(coin.outpoint);
        let coinbase = store.wallet.tx_graph().get_tx(coin.outpoint.txid).is_some_and(|made| made.is_coinbase());
        let immature = coinbase && confirmations < session.network.params.coinbase_maturity;
        let address = session.network.address(&coin.txout.script_pubkey).map(|address| address.to_string());
        let label = match store.label("output", &coin.outpoint.to_string())? {
            None => store.label("addr", address.as_deref().unwrap_or_default())?,
            label => label,
        };
        let state = match () {
            () if locked => "locked",
            () if immature => "immature",
            () if confirmations == 0 => "pending",
            () => "",
        };
        list.push(json!({
            "outpoint": coin.outpoint,
            "amount_sat": coin.txout.value.to_sat(),
            "confirmations": confirmations,
            "address": address,
            "change": coin.keychain == KeychainKind::Internal,
            "locked": locked,
            "immature": immature,
            "label": label,
        }));
        rows.push(vec![
            coin.outpoint.to_string(),
            coin.txout.value.to_sat().to_string(),
            confirmations.to_string(),
            state.to_owned(),
            label.unwrap_or_default(),
        ]);
    }
    session.show_rows(
        &json!({ "coins": list }),
        &["coin", "sat", "confirmations", "", "label"],
        &rows,
        "No coins yet.",
    );
    Ok(())
}
