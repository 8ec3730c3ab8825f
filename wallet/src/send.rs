//! `groat send`, and what every command that sends does: show the finished transaction, ask, send, and follow it until
//! peers have heard of it.

use std::time::{Duration, Instant};

use bitcoin::psbt::Psbt;
use bitcoin::{Address, FeeRate, Script, Transaction, Txid};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::build::{self, Payment};
use crate::cli::FeeOptions;
use crate::error::{Error, Result, failed};
use crate::format::{btc, grouped, rate_of, sat};
use crate::rpc::{Node, RPC_METHOD_NOT_FOUND};
use crate::session::Session;
use crate::store::Store;
use crate::sync::{drop_waiting, take_waiting};
use crate::wallets::must_sign;

/// Part of the amount, in percent, above which a fee is warned about.
const HIGH_FEE_PERCENT: f64 = 5.0;
/// Fee rate in sat/vB above which it is warned about.
const HIGH_FEE_RATE: f64 = 500.0;
/// What a node says of a transaction that it has (Core: the reject reason).
const IN_MEMPOOL: &str = "txn-already-in-mempool";
/// How long a sent transaction is followed until a peer has heard of it.
const FOLLOW: Duration = Duration::from_secs(20);
/// How long after the last peer was told nobody else is waited for.
const SETTLED: Duration = Duration::from_secs(5);

/// `groat send`.
pub fn send(session: &Session, payments: &[String], fee: &FeeOptions, from: &[String], dry_run: bool) -> Result<()> {
    let payments = build::parse_payments(&session.network, payments)?;
    let (mut store, node, _) = session.synced_alone()?;
    if !dry_run {
        must_sign(&store)?;
    }
    let rate = build::fee_rate(session, &node, fee)?;
    let psbt = build::payment(session, &mut store, &payments, rate, from)?;
    let to: Vec<Address> = payments.iter().map(|payment| payment.address.clone()).collect();
    if dry_run {
        return show_only(session, &store, &psbt, &to, rate);
    }
    let txid = complete(session, &mut store, &node, psbt, &to, Some(rate), &Done::default())?;
    label_sent(&store, &payments, &txid)
}

fn label_sent(store: &Store, payments: &[Payment], txid: &str) -> Result<()> {
    let labels: Vec<&str> = payments.iter().filter_map(|payment| payment.label.as_deref()).collect();
    if labels.is_empty() { Ok(()) } else { store.set_label("tx", txid, &labels.join(", ")) }
}

/// What a transaction comes to.
struct Summary {
    paid: Vec<(String, u64)>,
    change: Vec<(String, u64)>,
    fee: u64,
    vsize: u64,
    lock_time: u32,
    replaceable: bool,
}

impl Summary {
    /// `to` are the addresses meant to be paid; what goes to other ones of ours is change.
    fn new(
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
        (self.fee as f64 * 10_000.0 / whole.max(1) as f64).round() / 100.0
    }

    fn text(&self, chain: &str) -> String {
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

    fn json(&self) -> Value {
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

    fn warn(&self, session: &Session, rate: Option<FeeRate>) {
        if self.percent() > HIGH_FEE_PERCENT {
            session.warn(&format!("the fee is {} % of the amount", self.percent()));
        }
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

fn show_only(session: &Session, store: &Store, psbt: &Psbt, to: &[Address], rate: FeeRate) -> Result<()> {
    let vsize = build::foreseen_vsize(store, psbt);
    let summary = Summary::new(session, store, &psbt.unsigned_tx, vsize, build::fee_of(psbt)?, to);
    summary.warn(session, Some(rate));
    let mut value = summary.json();
    value["dry_run"] = true.into();
    session.show(&value, || format!("{}\nNothing was sent.", summary.text(session.network.name())));
    Ok(())
}

/// What is said when a transaction is sent.
#[derive(Default)]
pub struct Done {
    /// The transaction that it replaces.
    pub replaces: Option<String>,
    /// How it raises the fee of another one: `replacement` or `child`.
    pub method: Option<&'static str>,
}

/// Signs a transaction, has the node judge it, shows it, asks, sends and follows it. Gives its id.
pub fn complete(
    session: &Session,
    store: &mut Store,
    node: &Node,
    mut psbt: Psbt,
    to: &[Address],
    rate: Option<FeeRate>,
    done: &Done,
) -> Result<String> {
    let account = store.account(&session.network, &session.prompt)?;
    build::sign(&account, &mut psbt)?;
    drop(account);
    deliver(session, store, node, psbt, to, rate, done)
}

/// The same for one that has its signatures.
pub fn deliver(
    session: &Session,
    store: &mut Store,
    node: &Node,
    mut psbt: Psbt,
    to: &[Address],
    rate: Option<FeeRate>,
    done: &Done,
) -> Result<String> {
    let transaction = build::finalize(&mut psbt)?;
    let hex = bitcoin::consensus::encode::serialize_hex(&transaction);
    let verdict: Value = node.call("testmempoolaccept", json!([[hex]]))?;
    let reason = verdict[0]["reject-reason"].as_str().unwrap_or("no reason given").to_owned();
    // To send again what waits already does no harm.
    if verdict[0]["allowed"] == json!(false) && reason != IN_MEMPOOL {
        return Err(failed(format!(
            "the node would refuse this transaction ({reason}); nothing was sent{}",
            advice(&reason)
        )));
    }
    let vsize = transaction.vsize() as u64;
    let fee = true_fee(&psbt, &verdict[0])?;
    let summary = Summary::new(session, store, &transaction, vsize, fee, to);
    session.say(&summary.text(session.network.name()));
    summary.warn(session, rate);
    session.prompt.confirm("Send?")?;
    let txid = transaction.compute_txid();
    // Written before it is sent: whatever happens in between, these coins are not spent twice by mistake. If it does not
    // get out, the next command that looks at the mempool sends it.
    take_waiting(store, [transaction]);
    store.save()?;
    match node.call::<Txid>("sendrawtransaction", json!([hex])) {
        Ok(_) => {}
        // Refused, so it is not out.
        Err(error @ Error::Rpc { .. }) => {
            drop_waiting(store, &[txid]);
            store.save()?;
            return Err(error);
        }
        Err(error) => {
            return Err(Error::Node(format!(
                "{error}\n  It broke off while {txid} was sent, which may be out: the wallet keeps it and offers it again. \
                 Do not pay again; `groat history` shows what has become of it"
            )));
        }
    }
    let (mut value, relayed) = (summary.json(), follow(session, node, &txid.to_string()));
    value["txid"] = txid.to_string().into();
    value["announced_to"] = relayed.announced_to.into();
    value["relayed"] = relayed.relayed.into();
    if let Some(replaced) = &done.replaces {
        value["replaces"] = replaced.clone().into();
    }
    if let Some(method) = done.method {
        value["method"] = method.into();
    }
    session.show(&value, || {
        let raise = if done.replaces.is_none() && !relayed.mined {
            format!("\n(groat bump {txid} raises its fee)")
        } else {
            String::new()
        };
        format!("Sent {txid}, {}.{raise}", relayed.text())
    });
    Ok(txid.to_string())
}

/// The fee as the node counts it, which knows the coins. A PSBT that names another one is refused: its fee was shown to
/// those who signed.
fn true_fee(psbt: &Psbt, verdict: &Value) -> Result<u64> {
    let known = verdict["fees"]["base"].as_f64().map(|fee| (fee * 1e8).round() as u64);
    match (build::fee_of(psbt), known) {
        (Ok(said), Some(known)) if said != known => Err(failed(format!(
            "the coins are said to leave a fee of {}, and the node counts {}: nothing was sent",
            sat(said),
            sat(known)
        ))),
        (said, known) => known.map_or(said, Ok),
    }
}

/// What can be done about a refusal.
fn advice(reason: &str) -> &'static str {
    match reason {
        "min relay fee not met" | "mempool min fee not met" => ": give a higher --feerate",
        "insufficient fee" => ": a replacement must pay more; give a higher --feerate",
        "bad-txns-inputs-missingorspent" | "missing-inputs" | "txn-mempool-conflict" => {
            ": another payment has spent the same coins; look at `groat history`"
        }
        "txn-already-known" => ": it is in a block already",
        "tx-size" => ": it has too many coins or recipients; choose fewer with --from, or pay in parts",
        "max-fee-exceeded" => ": it pays an absurd fee; give a lower --feerate",
        reason if reason.starts_with("too-long-mempool-chain") || reason.starts_with("too-large-cluster") => {
            ": too many payments wait one upon the other; wait for the next block"
        }
        _ => "",
    }
}

/// How far a transaction has got.
struct Relayed {
    /// Peers that were told of it, where the node counts them.
    announced_to: Option<u64>,
    /// Whether a peer has it.
    relayed: bool,
    /// Whether it is in a block already.
    mined: bool,
    peers: u64,
    /// Why it is not known.
    lost: Option<Error>,
}

impl Relayed {
    fn text(&self) -> String {
        if let Some(error) = &self.lost {
            return format!("and the node has it; how far it got is not known ({error})");
        }
        match (self.announced_to, self.relayed, self.peers) {
            _ if self.mined => "and in a block already".into(),
            (_, false, 0) => "though the node has no peers now: it tells them as soon as it has".into(),
            (_, false, _) => {
                format!("but no peer has asked for it in {} s: the node goes on offering it", FOLLOW.as_secs())
            }
            (Some(1), true, _) => "announced to 1 peer".into(),
            (Some(count), true, _) => format!("announced to {} peers", grouped(count)),
            (None, true, _) => "and a peer has it".into(),
        }
    }
}

/// Waits until the node has told peers. It has been sent: whatever fails now is no failure of the payment.
fn follow(session: &Session, node: &Node, txid: &str) -> Relayed {
    let lost = |error| Relayed { announced_to: None, relayed: false, mined: false, peers: 0, lost: Some(error) };
    followed(session, node, txid).unwrap_or_else(lost)
}

/// groatd counts the peers (`getrelayinfo`), bitcoind says whether one asked for it.
fn followed(session: &Session, node: &Node, txid: &str) -> Result<Relayed> {
    #[derive(Deserialize)]
    struct RelayInfo {
        announced_to: u64,
        requested_by: u64,
    }
    let peers: u64 = node.call("getconnectioncount", json!([]))?;
    if peers == 0 {
        return Ok(Relayed { announced_to: None, relayed: false, mined: false, peers, lost: None });
    }
    session.say("Sent. Waiting until peers have heard of it...");
    let (begun, mut last, mut since) = (Instant::now(), 0, Instant::now());
    while begun.elapsed() < FOLLOW {
        let entry = node.call::<Value>("getmempoolentry", json!([txid]));
        if matches!(entry, Err(Error::Rpc { .. })) {
            // It was taken in before.
            return Ok(Relayed {
                announced_to: (last > 0).then_some(last),
                relayed: true,
                mined: true,
                peers,
                lost: None,
            });
        }
        match node.call::<RelayInfo>("getrelayinfo", json!([txid])) {
            Ok(RelayInfo { announced_to, requested_by }) => {
                if announced_to != last {
                    (last, since) = (announced_to, Instant::now());
                }
                // All were told and one has asked for it, or that is as far as it gets for now.
                let told = announced_to >= peers && requested_by > 0;
                if told || (announced_to > 0 && since.elapsed() > SETTLED) {
                    break;
                }
            }
            Err(Error::Rpc { code: RPC_METHOD_NOT_FOUND, .. }) => {
                if entry?["unbroadcast"] == json!(false) {
                    return Ok(Relayed { announced_to: None, relayed: true, mined: false, peers, lost: None });
                }
            }
            Err(Error::Rpc { .. }) => break,
            Err(error) => return Err(error),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(Relayed { announced_to: (last > 0).then_some(last), relayed: last > 0, mined: false, peers, lost: None })
}
