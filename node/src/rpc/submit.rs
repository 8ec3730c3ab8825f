//! Methods that hand transactions in: alone, as a package, or only to be tested. Core: `src/rpc/mempool.cpp`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Transaction, Txid};
use groat_chain::mempool::{
    Accepted, FeeRate, Judged, MAX_PACKAGE_COUNT, Outcome, PackageError, Refusal, fee_for, is_child_with_parents_tree,
};
use groat_chain::rejection::Rejection;
use groat_chain::rules::block::is_unspendable;
use groat_chain::script::opcode::Cursor;
use serde::Serialize;
use serde_json::Value;

use super::Rpc;
use super::amount::{amount, fee_rate};
use super::args::{Arg, Args, Kind, text};
use super::error::*;
use super::method::{Answer, Method, answer};
use super::number::Btc;
use super::rawtransactions::decode_transaction;
use crate::clock::now;
use crate::handle::NodeHandle;
use crate::requests::Purpose;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "sendrawtransaction",
        group: "rawtransactions",
        args: &[Arg::required("hexstring", Kind::Hex, "The transaction."), MAX_FEE_RATE, MAX_BURN],
        about: "Hands a transaction in, for the mempool and all peers. Gives its id.",
        run: sendrawtransaction,
    },
    Method {
        name: "submitpackage",
        group: "rawtransactions",
        args: &[
            Arg::required("package", Kind::Array("\"rawtx\""), "A transaction after parents of it."),
            MAX_FEE_RATE,
            MAX_BURN,
        ],
        about: "Hands transactions in that pay together, for the mempool and all peers.",
        run: submitpackage,
    },
    Method {
        name: "testmempoolaccept",
        group: "rawtransactions",
        args: &[Arg::required("rawtxs", Kind::Array("\"rawtx\""), "Transactions, parents first."), MAX_FEE_RATE],
        about: "Whether the mempool would take these transactions.",
        run: testmempoolaccept,
    },
];

const MAX_FEE_RATE: Arg = Arg::optional(
    "maxfeerate",
    Kind::Loose("maxfeerate"),
    "BTC for 1000 virtual bytes above which a transaction is refused; default 0.10, 0: any.",
);
/// Satoshi for 1000 virtual bytes. Core: `DEFAULT_MAX_RAW_TX_FEE_RATE`.
const DEFAULT_MAX_RAW_TX_FEE_RATE: u64 = 10_000_000;
const MAX_BURN: Arg = Arg::optional(
    "maxburnamount",
    Kind::Loose("maxburnamount"),
    "BTC that outputs which nobody can spend may hold; default 0.",
);

fn sendrawtransaction(rpc: &Rpc, args: &Args) -> Answer {
    let max_burn = max_burn(args.get(2))?;
    let tx = decode_transaction(args.text(0).unwrap_or_default(), None).ok_or_else(|| {
        RpcError::new(RPC_DESERIALIZATION_ERROR, "TX decode failed. Make sure the tx has at least one input.")
    })?;
    check_burns(&tx, max_burn)?;
    let rate = fee_rate(args.get(1), DEFAULT_MAX_RAW_TX_FEE_RATE)?;
    let max_fee = fee_for(rate, tx.weight().to_wu().div_ceil(4));
    let txid = tx.compute_txid();
    let node = rpc.node()?;
    let tx = Arc::new(tx);
    // A peer may hand in the same between a look and the offer: then there is another look.
    let (wtxid, first) = loop {
        if is_mined(node, txid, tx.output.len() as u32)? {
            return Err(RpcError::new(RPC_VERIFY_ALREADY_IN_UTXO_SET, "Transaction outputs already in utxo set"));
        }
        if let Some(known) = node.mempool().read().get(&txid) {
            break (known.wtxid, false);
        }
        match offer(node, &tx, max_fee)? {
            Ok(accepted) => break (accepted.wtxid, true),
            Err(refusal) if is_known(&refusal) => {}
            Err(refusal) => return Err(refused(refusal)),
        }
    };
    node.broadcast(txid, wtxid, first)?;
    answer(txid.to_string())
}

/// Has the pool take a transaction that pays no more than `max_fee`; 0: whatever it pays.
fn offer(node: &NodeHandle, tx: &Arc<Transaction>, max_fee: u64) -> Result<Result<Accepted, Refusal>, RpcError> {
    let offer = |purpose| node.offer(tx.clone(), now().into(), purpose);
    if max_fee > 0 {
        match offer(Purpose::Test)? {
            Ok(accepted) if accepted.fee > max_fee => {
                let text = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)";
                return Err(RpcError::new(RPC_VERIFY_ERROR, text));
            }
            Ok(_) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
    Ok(offer(Purpose::Take)?)
}

/// The pool or the chain has it.
fn is_known(refusal: &Refusal) -> bool {
    matches!(
        refusal.rejection,
        Rejection::TxnAlreadyInMempool | Rejection::TxnSameNonwitnessDataInMempool | Rejection::TxnAlreadyKnown
    )
}

fn max_burn(value: &Value) -> Result<Amount, RpcError> {
    if value.is_null() { Ok(Amount::ZERO) } else { amount(value) }
}

/// No output that nobody can spend holds more than that.
fn check_burns(tx: &Transaction, max_burn: Amount) -> Result<(), RpcError> {
    let burns = |script: &bitcoin::Script| is_unspendable(script) || !has_valid_ops(script);
    if tx.output.iter().any(|output| burns(&output.script_pubkey) && output.value > max_burn) {
        let text = "Unspendable output exceeds maximum configured by user (maxburnamount)";
        return Err(RpcError::new(RPC_VERIFY_ERROR, text));
    }
    Ok(())
}

/// Whether an output of the transaction is a coin.
fn is_mined(node: &NodeHandle, txid: Txid, outputs: u32) -> Result<bool, RpcError> {
    let outpoints: Vec<OutPoint> = (0..outputs).map(|vout| OutPoint::new(txid, vout)).collect();
    Ok(node.with_ledger(move |ledger| Ok(ledger.coins(&outpoints)?.iter().any(Option::is_some)))?)
}

/// Core: `HasValidOps`.
fn has_valid_ops(script: &bitcoin::Script) -> bool {
    use groat_chain::script::MAX_SCRIPT_ELEMENT_SIZE;
    use groat_chain::script::opcode::OP_NOP10;
    Cursor::new(script.as_bytes())
        .all(|op| op.is_ok_and(|op| op.code <= OP_NOP10 && op.data.len() <= MAX_SCRIPT_ELEMENT_SIZE))
}

fn refused(refusal: Refusal) -> RpcError {
    let missing = refusal.rejection == Rejection::MissingInputs;
    RpcError::new(if missing { RPC_VERIFY_ERROR } else { RPC_VERIFY_REJECTED }, refusal.to_string())
}

/// What a transaction pays, and with whom it was counted.
#[derive(Serialize)]
struct Paid {
    base: Btc,
    #[serde(rename = "effective-feerate", skip_serializing_if = "Option::is_none")]
    effective_feerate: Option<Btc>,
    #[serde(rename = "effective-includes", skip_serializing_if = "Option::is_none")]
    effective_includes: Option<Vec<String>>,
}

impl Paid {
    fn new(accepted: &Accepted) -> Paid {
        Paid {
            effective_feerate: Some(Btc(Amount::from_sat(accepted.rate.per_thousand()))),
            effective_includes: Some(accepted.includes.iter().map(|wtxid| wtxid.to_string()).collect()),
            ..Paid::before(accepted.fee)
        }
    }

    /// It is not known what it was counted with when it came.
    fn before(fee: u64) -> Paid {
        Paid { base: Btc(Amount::from_sat(fee)), effective_feerate: None, effective_includes: None }
    }
}

/// One transaction of `testmempoolaccept`.
#[derive(Serialize)]
struct Tested {
    txid: String,
    wtxid: String,
    #[serde(rename = "package-error", skip_serializing_if = "Option::is_none")]
    package_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsize: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fees: Option<Paid>,
    #[serde(rename = "reject-reason", skip_serializing_if = "Option::is_none")]
    reject_reason: Option<String>,
    #[serde(rename = "reject-details", skip_serializing_if = "Option::is_none")]
    reject_details: Option<String>,
}

impl Tested {
    /// Nothing is said of it but who it is.
    fn unfinished(tx: &Transaction, package_error: Option<&PackageError>) -> Tested {
        Tested {
            txid: tx.compute_txid().to_string(),
            wtxid: tx.compute_wtxid().to_string(),
            package_error: package_error.map(PackageError::to_string),
            allowed: None,
            vsize: None,
            fees: None,
            reject_reason: None,
            reject_details: None,
        }
    }

    fn refused(self, reason: String, details: Option<String>) -> Tested {
        Tested { allowed: Some(false), reject_reason: Some(reason), reject_details: details, ..self }
    }

    fn finished(self, outcome: Outcome, max_rate: u64) -> Tested {
        match outcome {
            Outcome::Accepted(accepted) => {
                let max_fee = fee_for(max_rate, accepted.vsize);
                if max_fee > 0 && accepted.fee > max_fee {
                    return self.refused("max-fee-exceeded".into(), None);
                }
                let (allowed, vsize, fees) = (Some(true), Some(accepted.vsize), Some(Paid::new(&accepted)));
                Tested { allowed, vsize, fees, ..self }
            }
            Outcome::Refused(refusal) if refusal.rejection == Rejection::MissingInputs => {
                self.refused("missing-inputs".into(), None)
            }
            Outcome::Refused(refusal) => self.refused(refusal.rejection.to_string(), Some(refusal.to_string())),
            // A test never finds a transaction in the pool without refusing it.
            Outcome::Known { .. } | Outcome::OtherWitness(_) | Outcome::Unjudged => self,
        }
    }
}

/// Reads a list of transactions.
fn transactions(value: &Value) -> Result<Vec<Arc<Transaction>>, RpcError> {
    let given = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if !(1..=MAX_PACKAGE_COUNT).contains(&given.len()) {
        let text = format!("Array must contain between 1 and {MAX_PACKAGE_COUNT} transactions.");
        return Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    }
    let read = |value| {
        let text = text(value)?;
        decode_transaction(text, None).map(Arc::new).ok_or_else(|| {
            let text = format!("TX decode failed: {text} Make sure the tx has at least one input.");
            RpcError::new(RPC_DESERIALIZATION_ERROR, text)
        })
    };
    given.iter().map(read).collect()
}

fn testmempoolaccept(rpc: &Rpc, args: &Args) -> Answer {
    let max_rate = fee_rate(args.get(1), DEFAULT_MAX_RAW_TX_FEE_RATE);
    let transactions = transactions(args.get(0))?;
    let (max_rate, node) = (max_rate?, rpc.node()?);
    let Judged { error, outcomes } = match &transactions[..] {
        [tx] => {
            let outcome = node.offer(tx.clone(), now().into(), Purpose::Test)?;
            Judged { error: None, outcomes: vec![outcome.map_or_else(Outcome::Refused, Outcome::Accepted)] }
        }
        _ => node.offer_package(transactions.clone(), Purpose::Test, None)?,
    };
    let error = error.filter(|error| matches!(error, PackageError::Policy { .. }));
    let mut tested: Vec<Tested> = Vec::new();
    for (tx, outcome) in transactions.iter().zip(outcomes) {
        // Behind one whose fee is too high nothing is said.
        let over = tested.iter().any(|one| one.reject_reason.as_deref() == Some("max-fee-exceeded"));
        let one = Tested::unfinished(tx, error.as_ref());
        tested.push(if over { one } else { one.finished(outcome, max_rate) });
    }
    answer(tested)
}

fn submitpackage(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Submitted {
        package_msg: String,
        #[serde(rename = "tx-results")]
        results: BTreeMap<String, Member>,
        #[serde(rename = "replaced-transactions")]
        replaced: Vec<String>,
    }
    #[derive(Default, Serialize)]
    struct Member {
        txid: String,
        #[serde(rename = "other-wtxid", skip_serializing_if = "Option::is_none")]
        other_wtxid: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        vsize: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        fees: Option<Paid>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    let max_rate = fee_rate(args.get(1), DEFAULT_MAX_RAW_TX_FEE_RATE);
    let transactions = transactions(args.get(0))?;
    let (fee, max_burn) = (max_rate?, max_burn(args.get(2))?);
    let max_rate = (fee > 0).then_some(FeeRate { fee: fee as i64, size: 1000 });
    transactions.iter().try_for_each(|tx| check_burns(tx, max_burn))?;
    if !is_child_with_parents_tree(&transactions) {
        let text = "package topology disallowed. not child-with-parents or parents depend on each other.";
        return Err(RpcError::new(RPC_VERIFY_ERROR, text));
    }
    let node = rpc.node()?;
    let Judged { error, outcomes } = node.offer_package(transactions.clone(), Purpose::Take, max_rate)?;
    let (mut results, mut replaced) = (BTreeMap::new(), BTreeSet::<Txid>::new());
    for (tx, outcome) in transactions.iter().zip(outcomes) {
        let txid = tx.compute_txid();
        let mut member = Member { txid: txid.to_string(), ..Member::default() };
        match outcome {
            Outcome::Accepted(accepted) => {
                (member.vsize, member.fees) = (Some(accepted.vsize), Some(Paid::new(&accepted)));
                replaced.extend(accepted.replaced.iter().map(|tx| tx.compute_txid()));
            }
            Outcome::Known { vsize, fee } => (member.vsize, member.fees) = (Some(vsize), Some(Paid::before(fee))),
            Outcome::OtherWitness(wtxid) => member.other_wtxid = Some(wtxid.to_string()),
            Outcome::Refused(refusal) => member.error = Some(refusal.to_string()),
            Outcome::Unjudged => member.error = Some("package-not-validated".into()),
        }
        let held = node.mempool().read().get(&txid).map(|entry| entry.wtxid);
        if let Some(wtxid) = held {
            // As Core has it: only what comes alone is told of again until a peer asks for it.
            node.broadcast(txid, wtxid, false)?;
        }
        results.insert(tx.compute_wtxid().to_string(), member);
    }
    let package_msg = error.map_or("success".into(), |error| error.to_string());
    let replaced = replaced.iter().map(Txid::to_string).collect();
    answer(Submitted { package_msg, results, replaced })
}
