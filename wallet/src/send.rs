//! `groat send`, and what every command that sends does: show the finished transaction, ask, send, and follow it until
//! peers have heard of it.

use std::time::{Duration, Instant};

use bitcoin::psbt::Psbt;
use bitcoin::{Address, FeeRate, Transaction, Txid};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::build::{self, Payment};
use crate::cli::FeeOptions;
use crate::error::{Error, Result, failed};
use crate::format::{grouped, sat};
use crate::mempool::{drop_waiting, take_waiting};
use crate::rpc::{Node, RPC_METHOD_NOT_FOUND};
use crate::session::Session;
use crate::store::Store;
use crate::summary::Summary;
use crate::wallets::must_sign;

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
    let txid = Outgoing { to, rate: Some(rate), ..Outgoing::new(psbt) }.sign_and_send(session, &mut store, &node)?;
    label_sent(&store, &payments, &txid)
}

fn label_sent(store: &Store, payments: &[Payment], txid: &Txid) -> Result<()> {
    let labels: Vec<&str> = payments.iter().filter_map(|payment| payment.label.as_deref()).collect();
    if labels.is_empty() { Ok(()) } else { store.set_label("tx", &txid.to_string(), &labels.join(", ")) }
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

/// A transaction that is to be sent, and what is said of it.
pub struct Outgoing {
    /// With its signatures, or to be signed.
    pub psbt: Psbt,
    /// The addresses meant to be paid; what goes to others of ours is change.
    pub to: Vec<Address>,
    /// The fee rate asked for.
    pub rate: Option<FeeRate>,
    /// The transaction that it replaces.
    pub replaces: Option<Txid>,
    /// How it raises the fee of another one: `replacement` or `child`.
    pub method: Option<&'static str>,
}

impl Outgoing {
    /// One that nothing more is known of.
    pub fn new(psbt: Psbt) -> Outgoing {
        Outgoing { psbt, to: Vec::new(), rate: None, replaces: None, method: None }
    }

    /// Signs it, has the node judge it, shows it, asks, sends and follows it. Gives its id.
    pub fn sign_and_send(mut self, session: &Session, store: &mut Store, node: &Node) -> Result<Txid> {
        let account = store.account(&session.network, &session.prompt)?;
        build::sign(&account, &mut self.psbt)?;
        drop(account);
        self.send(session, store, node)
    }

    /// The same for one that has its signatures.
    pub fn send(mut self, session: &Session, store: &mut Store, node: &Node) -> Result<Txid> {
        let transaction = build::finalize(&mut self.psbt)?;
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
        let fee = true_fee(&self.psbt, &verdict[0])?;
        let summary = Summary::new(session, store, &transaction, vsize, fee, &self.to);
        session.say(&summary.text(session.network.name()));
        summary.warn(session, self.rate);
        session.prompt.confirm("Send?")?;
        let txid = transaction.compute_txid();
        publish(store, node, transaction, &hex)?;
        let (mut value, relayed) = (summary.json(), follow(session, node, &txid.to_string()));
        value["txid"] = txid.to_string().into();
        value["announced_to"] = relayed.announced_to.into();
        value["relayed"] = relayed.relayed.into();
        if let Some(replaced) = self.replaces {
            value["replaces"] = replaced.to_string().into();
        }
        if let Some(method) = self.method {
            value["method"] = method.into();
        }
        session.show(&value, || {
            let raise = if self.replaces.is_none() && !relayed.mined {
                format!("\n(groat bump {txid} raises its fee)")
            } else {
                String::new()
            };
            format!("Sent {txid}, {}.{raise}", relayed.text())
        });
        Ok(txid)
    }
}

/// Gives a transaction to the node.
fn publish(store: &mut Store, node: &Node, transaction: Transaction, hex: &str) -> Result<()> {
    let txid = transaction.compute_txid();
    // Written before it is sent: whatever happens in between, these coins are not spent twice by mistake. If it does not
    // get out, the next command that looks at the mempool sends it.
    take_waiting(store, [transaction]);
    store.save()?;
    match node.call::<Txid>("sendrawtransaction", json!([hex])) {
        Ok(_) => Ok(()),
        // Refused, so it is not out.
        Err(error @ Error::Rpc { .. }) => {
            drop_waiting(store, &[txid]);
            store.save()?;
            Err(error)
        }
        Err(error) => Err(Error::Node(format!(
            "{error}\n  It broke off while {txid} was sent, which may be out: the wallet keeps it and offers it again. \
             Do not pay again; `groat history` shows what has become of it"
        ))),
    }
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
