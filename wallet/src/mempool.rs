//! The node's mempool as the wallet sees it: what is new there, and what has left it. Knows no blocks.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Transaction, Txid};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::rpc::Node;
use crate::store::Store;
use crate::sync::{EXCHANGE, MAX_BATCH, now, pays_what_can_be, progress};

/// Transactions in the first exchange, when their size is not known yet.
const FIRST_BATCH: usize = 100;
/// Reasons of refusal that say that a payment's coins are spent otherwise (Core: the reject reasons).
const CONFLICTS: [&str; 4] = ["missingorspent", "missing-inputs", "txn-mempool-conflict", "insufficient fee"];

/// The start of an id, as the wallet remembers what it has looked at.
fn short(txid: &Txid) -> u64 {
    let [bytes, ..] = txid.as_byte_array().as_chunks().0 else { return 0 };
    u64::from_le_bytes(*bytes)
}

/// Marks a transaction as waiting. One that was dropped before must be seen later than that.
pub fn take_waiting(store: &mut Store, transactions: impl IntoIterator<Item = Transaction>) {
    let now = now();
    let graph = store.wallet.tx_graph();
    let seen: Vec<(Transaction, u64)> = transactions
        .into_iter()
        .map(|transaction| {
            let dropped = graph.get_last_evicted(transaction.compute_txid());
            (transaction, now.max(dropped.map_or(0, |dropped| dropped + 1)))
        })
        .collect();
    store.wallet.apply_unconfirmed_txs(seen);
}

/// Marks transactions as ones that wait no more.
pub fn drop_waiting(store: &mut Store, txids: &[Txid]) {
    // The library goes through the whole history, even for none.
    if txids.is_empty() {
        return;
    }
    let now = now();
    let graph = store.wallet.tx_graph();
    let last_seen = |txid: Txid| graph.get_tx_node(txid).and_then(|node| node.last_seen).unwrap_or(0);
    let dropped: Vec<(Txid, u64)> = txids.iter().map(|txid| (*txid, now.max(last_seen(*txid)))).collect();
    store.wallet.apply_evicted_txs(dropped);
}

/// Takes in what is new in the mempool, which holds `all`, and looks after what has left it.
pub fn sync(store: &mut Store, node: &Node, all: &BTreeSet<Txid>) -> Result<()> {
    let seen = store.seen_mempool()?;
    let new: Vec<Txid> = all.iter().filter(|txid| seen.binary_search(&short(txid)).is_err()).copied().collect();
    let missed = take_new(store, node, &new)?;
    drop_gone(store, node, all)?;
    store.save()?;
    // What was not to be had is asked for again.
    let mut looked_at: Vec<u64> = all.difference(&missed).map(short).collect();
    looked_at.sort_unstable();
    if looked_at == seen { Ok(()) } else { store.set_seen_mempool(&looked_at) }
}

/// Looks at these transactions, and takes those that matter. Gives those that were not to be had.
fn take_new(store: &mut Store, node: &Node, new: &[Txid]) -> Result<BTreeSet<Txid>> {
    let bar = progress("mempool", new.len() as u64);
    let (mut missed, mut paid) = (BTreeSet::new(), Vec::new());
    let (mut rest, mut batch) = (new, FIRST_BATCH);
    while !rest.is_empty() {
        let (some, others) = rest.split_at(batch.min(rest.len()));
        let (transactions, digits) = fetch(node, some, &mut missed)?;
        paid.extend(take(store, transactions));
        batch = (EXCHANGE / (digits / some.len()).max(1)).clamp(1, MAX_BATCH as usize);
        bar.inc(some.len() as u64);
        rest = others;
    }
    bar.finish_and_clear();
    // One that spends what another pays us may have come in an exchange before, and passed for a stranger's.
    while new.len() > FIRST_BATCH && !paid.is_empty() {
        let (transactions, _) = fetch(node, &spenders(store, node, &paid)?, &mut missed)?;
        paid = take(store, transactions);
    }
    Ok(missed)
}

/// Transactions of the mempool, and the number of digits they came in.
fn fetch(node: &Node, txids: &[Txid], missed: &mut BTreeSet<Txid>) -> Result<(Vec<Transaction>, usize)> {
    let (mut transactions, mut digits) = (Vec::new(), 0);
    let answers = node.batch("getrawtransaction", txids.iter().map(|txid| json!([txid])))?;
    for (txid, answer) in txids.iter().zip(answers) {
        let text = answer.ok().and_then(|answer| answer.as_str().map(str::to_owned)).unwrap_or_default();
        digits += text.len();
        let read = bitcoin::consensus::encode::deserialize_hex::<Transaction>(&text).ok();
        match read.filter(|read| read.compute_txid() == *txid && pays_what_can_be(read)) {
            Some(transaction) => transactions.push(transaction),
            // One that is gone by now is in a block, or does not matter.
            None => drop(missed.insert(*txid)),
        }
    }
    Ok((transactions, digits))
}

/// Takes those that matter, and gives the outpoints at which they pay us.
fn take(store: &mut Store, transactions: Vec<Transaction>) -> Vec<OutPoint> {
    let mut paid = Vec::new();
    for transaction in &transactions {
        if transaction.output.iter().any(|output| store.wallet.is_mine(output.script_pubkey.clone())) {
            let txid = transaction.compute_txid();
            paid.extend((0..transaction.output.len() as u32).map(|vout| OutPoint { txid, vout }));
        }
    }
    // It looks which matter.
    take_waiting(store, transactions);
    paid
}

/// Transactions of the mempool that spend these outpoints and are not known yet.
fn spenders(store: &Store, node: &Node, outpoints: &[OutPoint]) -> Result<Vec<Txid>> {
    #[derive(Deserialize)]
    struct Spent {
        spendingtxid: Option<Txid>,
    }
    let list: Vec<Value> = outpoints.iter().map(|point| json!({"txid": point.txid, "vout": point.vout})).collect();
    let spent: Vec<Spent> = node.call("gettxspendingprevout", json!([list]))?;
    let unknown = |txid: &Txid| store.wallet.tx_graph().get_tx(*txid).is_none();
    Ok(spent.into_iter().filter_map(|spent| spent.spendingtxid).filter(unknown).collect())
}

/// Offers payments of ours that left the mempool again, and drops what can never be.
fn drop_gone(store: &mut Store, node: &Node, all: &BTreeSet<Txid>) -> Result<()> {
    if !store.has_waiting() {
        return Ok(());
    }
    let gone: Vec<Arc<Transaction>> = store
        .wallet
        .transactions()
        .filter(|known| !known.chain_position.is_confirmed() && !all.contains(&known.tx_node.txid))
        .map(|known| known.tx_node.tx)
        .collect();
    let ours = |transaction: &Arc<Transaction>| store.wallet.sent_and_received(transaction).0 > Amount::ZERO;
    let (mut ours, mut dropped): (Vec<_>, Vec<_>) = gone.into_iter().partition(ours);
    // One that spends what another pays can only come after it: what is refused is offered again while others get in.
    loop {
        let (count, mut refused) = (ours.len(), Vec::new());
        for transaction in ours {
            if !offer_again(node, &transaction)? {
                refused.push(transaction);
            }
        }
        if refused.is_empty() || refused.len() == count {
            dropped.extend(refused);
            break;
        }
        ours = refused;
    }
    let dropped: Vec<Txid> = dropped.iter().map(|transaction| transaction.compute_txid()).collect();
    drop_waiting(store, &dropped);
    Ok(())
}

/// Offers a payment of ours again that has left the node's mempool, so that it is not taken for undone while others may
/// still mine it. False: its coins are spent by another one, and it can never be.
fn offer_again(node: &Node, transaction: &Transaction) -> Result<bool> {
    let hex = bitcoin::consensus::encode::serialize_hex(transaction);
    match node.call::<Txid>("sendrawtransaction", json!([hex])) {
        Ok(txid) => {
            eprintln!("Payment {txid} waits, and the node did not have it: it was sent again.");
            Ok(true)
        }
        Err(Error::Rpc { message, .. }) => Ok(!CONFLICTS.iter().any(|reason| message.contains(reason))),
        Err(other) => Err(other),
    }
}
