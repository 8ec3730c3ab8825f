//! `groat bump` and `groat cancel`: a payment that waits is replaced by one that pays more, or pulled along by a child.

use bdk_wallet::KeychainKind;
use bitcoin::psbt::Psbt;
use bitcoin::{Address, Amount, FeeRate, OutPoint, Transaction, Txid};
use serde_json::{Value, json};

use crate::build;
use crate::cli::FeeOptions;
use crate::error::{Doing, Error, Result, failed, usage};
use crate::format::sat_vb;
use crate::rpc::Node;
use crate::send::Outgoing;
use crate::session::Session;
use crate::store::Store;
use crate::wallets::must_sign;

/// What a replacement must pay more per virtual byte. Core: `DEFAULT_INCREMENTAL_RELAY_FEE`, which was 1 sat/vB for long.
const INCREMENT: FeeRate = FeeRate::from_sat_per_kwu(250);

/// A payment of the wallet that waits.
struct Waiting {
    txid: Txid,
    transaction: Transaction,
    /// Whether all of its inputs are ours.
    ours: bool,
}

fn find(store: &Store, text: &str) -> Result<Waiting> {
    let txid: Txid =
        text.parse().map_err(|_| usage(format!("{text:?} is not a transaction id: `groat history` shows them")))?;
    let known = store.wallet.get_tx(txid);
    let known = known
        .ok_or_else(|| failed(format!("the wallet has no payment {txid} that could be: `groat history` shows all")))?;
    if known.chain_position.is_confirmed() {
        return Err(failed(format!("{txid} is confirmed: there is nothing to raise or to take back")));
    }
    let transaction = known.tx_node.tx.as_ref().clone();
    let own = |outpoint: &OutPoint| {
        let spent = store.wallet.tx_graph().get_txout(*outpoint);
        spent.is_some_and(|output| store.wallet.is_mine(output.script_pubkey.clone()))
    };
    let ours = transaction.input.iter().all(|input| own(&input.previous_output));
    let spends = |other: &Transaction| other.input.iter().any(|input| input.previous_output.txid == txid);
    if let Some(child) = store.wallet.transactions().find(|other| spends(&other.tx_node.tx)) {
        // To replace it would undo that one too; and a child is there already.
        let child = child.tx_node.txid;
        return Err(failed(format!(
            "payment {child} spends what comes of it, and goes with it: raise or cancel that one first (`groat bump {child}`)"
        )));
    }
    Ok(Waiting { txid, transaction, ours })
}

/// The rate asked for; else the node's estimate, or what a replacement must pay at least, whichever is more.
fn rate(session: &Session, store: &Store, node: &Node, waiting: &Waiting, fee: &FeeOptions) -> Result<FeeRate> {
    let asked = build::fee_rate(session, node, fee)?;
    if fee.feerate.is_some() || !waiting.ours {
        return Ok(asked);
    }
    let old = store.wallet.calculate_fee_rate(&waiting.transaction).doing("compute the fee")?;
    Ok(asked.max(FeeRate::from_sat_per_kwu(old.to_sat_per_kwu() + INCREMENT.to_sat_per_kwu())))
}

/// Refuses a rate that is no rise.
fn check_rise(store: &Store, waiting: &Waiting, rate: FeeRate) -> Result<()> {
    match store.wallet.calculate_fee_rate(&waiting.transaction) {
        Ok(old) if rate <= old => {
            Err(failed(format!("it pays {} sat/vB already: give a higher --feerate", sat_vb(old))))
        }
        _ => Ok(()),
    }
}

/// `groat bump`.
pub fn bump(session: &Session, txid: &str, fee: &FeeOptions) -> Result<()> {
    let (mut store, node, _) = session.synced_alone()?;
    must_sign(&store)?;
    let waiting = find(&store, txid)?;
    let rate = rate(session, &store, &node, &waiting, fee)?;
    check_rise(&store, &waiting, rate)?;
    if waiting.ours && waiting.transaction.is_explicitly_rbf() {
        session.say(&format!("It is replaced by one that pays {} sat/vB (RBF).", sat_vb(rate)));
        let to: Vec<Address> = waiting
            .transaction
            .output
            .iter()
            .filter(|output| !is_change(&store, &output.script_pubkey))
            .filter_map(|output| session.network.address(&output.script_pubkey))
            .collect();
        let tip = store.wallet.latest_checkpoint().height();
        let mut builder = store.wallet.build_fee_bump(waiting.txid).doing("replace it")?;
        builder.fee_rate(rate);
        build::take_mature(&mut builder, &session.network, tip)?;
        let psbt = builder.finish().map_err(|error| match build::explain(session, &store, error, false) {
            // It had no change that could pay for it.
            Error::Funds(text) if waiting.transaction.output.len() == to.len() => {
                let txid = waiting.txid;
                Error::Funds(format!("{text}; take it back instead (`groat cancel {txid}`), and pay anew"))
            }
            other => other,
        })?;
        let new = Outgoing { to, rate: Some(rate), ..replacement(psbt, &waiting) };
        let new = new.sign_and_send(session, &mut store, &node)?;
        if let Some(label) = store.label("tx", &waiting.txid.to_string())? {
            store.set_label("tx", &new.to_string(), &label)?;
        }
        return Ok(());
    }
    session.say(&format!("It is pulled along by a child that pays for both, {} sat/vB together (CPFP).", sat_vb(rate)));
    let psbt = child(session, &mut store, &node, &waiting, rate)?;
    Outgoing { method: Some("child"), ..Outgoing::new(psbt) }.sign_and_send(session, &mut store, &node).map(drop)
}

fn replacement(psbt: Psbt, of: &Waiting) -> Outgoing {
    Outgoing { replaces: Some(of.txid), method: Some("replacement"), ..Outgoing::new(psbt) }
}

fn is_change(store: &Store, script: &bitcoin::Script) -> bool {
    store.wallet.derivation_of_spk(script.to_owned()).is_some_and(|(keychain, _)| keychain == KeychainKind::Internal)
}

/// A transaction that spends what `waiting` pays us, to ourselves, and pays so much that both together pay `rate`.
fn child(session: &Session, store: &mut Store, node: &Node, waiting: &Waiting, rate: FeeRate) -> Result<Psbt> {
    let mine = |coin: &bdk_wallet::LocalOutput| coin.outpoint.txid == waiting.txid;
    let coin = store.wallet.list_unspent().filter(mine).max_by_key(|coin| coin.txout.value);
    let coin = coin.ok_or_else(|| failed("nothing of it comes to this wallet, so nothing here can raise its fee"))?;
    // What waits above it is counted by the node.
    let entry: Value = node.call("getmempoolentry", json!([waiting.txid]))?;
    let size = entry["ancestorsize"].as_u64().unwrap_or(waiting.transaction.vsize() as u64);
    let paid = entry["fees"]["ancestor"].as_f64().map_or(0, |fee| (fee * 1e8).round() as u64);
    let paying = |store: &mut Store, fee: Option<Amount>| {
        let change = store.wallet.next_unused_address(KeychainKind::Internal).address.script_pubkey();
        let mut builder = store.wallet.build_tx();
        let _ = builder.add_utxo(coin.outpoint).doing("spend it")?;
        builder.manually_selected_only().drain_to(change);
        match fee {
            Some(fee) => builder.fee_absolute(fee),
            None => builder.fee_rate(rate),
        };
        builder.finish().map_err(|error| build::explain(session, store, error, true))
    };
    let draft = paying(store, None)?;
    let both = rate.fee_vb(size + build::foreseen_vsize(store, &draft)).map_or(0, Amount::to_sat);
    let fee = both.saturating_sub(paid).max(build::fee_of(&draft)?);
    paying(store, Some(Amount::from_sat(fee)))
}

/// `groat cancel`.
pub fn cancel(session: &Session, txid: &str, fee: &FeeOptions) -> Result<()> {
    let (mut store, node, _) = session.synced_alone()?;
    must_sign(&store)?;
    let waiting = find(&store, txid)?;
    if !waiting.ours {
        return Err(failed("it was sent by somebody else: who sent it alone can take it back"));
    }
    if !waiting.transaction.is_explicitly_rbf() {
        return Err(failed("it was sent as final (not replaceable): it cannot be taken back"));
    }
    let rate = rate(session, &store, &node, &waiting, fee)?;
    check_rise(&store, &waiting, rate)?;
    let old = store.wallet.calculate_fee(&waiting.transaction).doing("compute the fee")?;
    let home = store.wallet.next_unused_address(KeychainKind::Internal).address.script_pubkey();
    // It is smaller than what it replaces, and must still pay more than that.
    let least = old + INCREMENT.fee_wu(waiting.transaction.weight()).unwrap_or(old);
    let psbt = match returning(&mut store, &waiting, &home, Fee::Rate(rate)) {
        Ok(psbt) if build::fee_of(&psbt)? >= least.to_sat() => Ok(psbt),
        Ok(_) | Err(bdk_wallet::error::CreateTxError::FeeTooLow { .. }) => {
            returning(&mut store, &waiting, &home, Fee::Absolute(least))
        }
        other => other,
    }
    .map_err(|error| build::explain(session, &store, error, true))?;
    replacement(psbt, &waiting).sign_and_send(session, &mut store, &node).map(drop)
}

/// How a returning transaction is paid for.
enum Fee {
    Rate(FeeRate),
    Absolute(Amount),
}

/// A transaction with the inputs of `waiting`, to `home`.
fn returning(
    store: &mut Store,
    waiting: &Waiting,
    home: &bitcoin::Script,
    fee: Fee,
) -> std::result::Result<Psbt, bdk_wallet::error::CreateTxError> {
    let mut builder =
        store.wallet.build_fee_bump(waiting.txid).map_err(|_| bdk_wallet::error::CreateTxError::UnknownUtxo)?;
    builder.set_recipients(Vec::new()).drain_to(home.to_owned()).manually_selected_only();
    match fee {
        Fee::Rate(rate) => builder.fee_rate(rate),
        Fee::Absolute(fee) => builder.fee_absolute(fee),
    };
    builder.finish()
}
