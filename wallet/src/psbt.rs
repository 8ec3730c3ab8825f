//! Commands about partially signed transactions ([BIP-0174]): made on one machine, signed on others, sent from any.
//!
//! [BIP-0174]: https://github.com/bitcoin/bips/blob/master/bip-0174.mediawiki

use std::path::Path;

use bitcoin::psbt::Psbt;
use bitcoin::{Address, OutPoint};
use serde_json::{Value, json};

use crate::build;
use crate::cli::PsbtCommand;
use crate::error::{Doing, Result, failed};
use crate::format::sat;
use crate::send::{Done, deliver};
use crate::session::Session;
use crate::wallets::read_file;

/// How every PSBT begins in base64.
const BASE64_START: &str = "cHNidP";
/// How every PSBT begins in bytes.
const MAGIC: &[u8] = b"psbt\xff";

/// `groat psbt ...`.
pub fn run(session: &Session, command: &PsbtCommand) -> Result<()> {
    match command {
        PsbtCommand::Create { payments, fee, from } => {
            let payments = build::parse_payments(&session.network, payments)?;
            let (mut store, node, _) = session.synced_alone()?;
            let rate = build::fee_rate(session, &node, fee)?;
            let psbt = build::payment(session, &mut store, &payments, rate, from)?;
            for input in &psbt.unsigned_tx.input {
                store.wallet.lock_outpoint(input.previous_output);
            }
            store.save()?;
            session.say("Its coins are locked until it is sent; `groat coins --unlock` frees them.");
            print(session, &psbt)
        }
        PsbtCommand::Show { psbt } => {
            let psbt = read(psbt)?;
            show(session, &psbt)
        }
        PsbtCommand::Sign { psbt } => {
            let mut psbt = read(psbt)?;
            let store = session.open()?;
            let account = store.account(&session.network, &session.prompt)?;
            session.say(&text(session, &psbt)?);
            session.prompt.confirm("Sign?")?;
            let before = signatures(&psbt);
            build::sign(&account, &mut psbt)?;
            let added = signatures(&psbt) - before;
            if added == 0 {
                return Err(failed(format!("none of its inputs waits for a signature of wallet {:?}", store.name)));
            }
            session.say(&format!("{added} signatures added."));
            print(session, &psbt)
        }
        PsbtCommand::Combine { psbts } => {
            let mut all = psbts.iter().map(|psbt| read(psbt)).collect::<Result<Vec<_>>>()?.into_iter();
            let mut first = all.next().ok_or_else(|| failed("there is nothing to combine"))?;
            for other in all {
                first
                    .combine(other)
                    .map_err(|_| failed("these are not copies of one transaction: nothing to combine"))?;
            }
            print(session, &first)
        }
        PsbtCommand::Finalize { psbt } => {
            let mut psbt = read(psbt)?;
            let transaction = build::finalize(&mut psbt)?;
            let hex = bitcoin::consensus::encode::serialize_hex(&transaction);
            let value = json!({"txid": transaction.compute_txid(), "hex": hex, "psbt": psbt.to_string()});
            session.show(&value, || hex.clone());
            Ok(())
        }
        PsbtCommand::Broadcast { psbt } => {
            let psbt = read(psbt)?;
            let (mut store, node, _) = session.synced_alone()?;
            let inputs: Vec<OutPoint> = psbt.unsigned_tx.input.iter().map(|input| input.previous_output).collect();
            deliver(session, &mut store, &node, psbt, &[], None, &Done::default())?;
            for outpoint in inputs {
                store.wallet.unlock_outpoint(outpoint);
            }
            store.save()
        }
    }
}

/// Reads one: text, or the name of a file with text or bytes; `-` is standard input.
fn read(text: &str) -> Result<Psbt> {
    if text.starts_with(BASE64_START) {
        return parse(text.as_bytes());
    }
    if text == "-" {
        return parse(read_file(Path::new("-"))?.as_bytes());
    }
    parse(&std::fs::read(text).doing(format!("read {text:?}, which is neither a PSBT nor a file"))?)
}

fn parse(bytes: &[u8]) -> Result<Psbt> {
    let parsed = if bytes.starts_with(MAGIC) {
        Psbt::deserialize(bytes).map_err(|error| error.to_string())
    } else {
        String::from_utf8_lossy(bytes).trim().parse::<Psbt>().map_err(|error| error.to_string())
    };
    parsed.map_err(|error| {
        failed(format!("that is not a PSBT of version 0 ({error}): have it made again (version 2 is not read)"))
    })
}

fn print(session: &Session, psbt: &Psbt) -> Result<()> {
    let text = psbt.to_string();
    session.show(&json!({"psbt": text, "txid": psbt.unsigned_tx.compute_txid()}), || text.clone());
    Ok(())
}

fn signatures(psbt: &Psbt) -> usize {
    let of = |input: &bitcoin::psbt::Input| {
        input.partial_sigs.len() + usize::from(input.tap_key_sig.is_some()) + input.tap_script_sigs.len()
    };
    psbt.inputs.iter().map(of).sum()
}

/// What it spends, if it says so.
fn spent(psbt: &Psbt, at: usize) -> Option<&bitcoin::TxOut> {
    let input = &psbt.inputs[at];
    let vout = psbt.unsigned_tx.input[at].previous_output.vout as usize;
    input.witness_utxo.as_ref().or_else(|| input.non_witness_utxo.as_ref()?.output.get(vout))
}

fn name(session: &Session, script: &bitcoin::Script) -> String {
    session.network.address(script).as_ref().map_or_else(|| script.to_string(), Address::to_string)
}

fn text(session: &Session, psbt: &Psbt) -> Result<String> {
    let mut lines = Vec::new();
    for (at, input) in psbt.unsigned_tx.input.iter().enumerate() {
        let amount = spent(psbt, at).map_or("unknown amount".into(), |output| sat(output.value.to_sat()));
        lines.push(format!("  From    {}  {amount}", input.previous_output));
    }
    for output in &psbt.unsigned_tx.output {
        lines.push(format!("  To      {}  {}", name(session, &output.script_pubkey), sat(output.value.to_sat())));
    }
    let fee = build::fee_of(psbt).map_or("unknown".into(), sat);
    lines.push(format!("  Fee     {fee}"));
    lines.push(format!("  Signed  {} signatures", signatures(psbt)));
    Ok(lines.join("\n"))
}

fn show(session: &Session, psbt: &Psbt) -> Result<()> {
    let inputs: Vec<Value> = (0..psbt.inputs.len())
        .map(|at| {
            let output = spent(psbt, at);
            json!({
                "outpoint": psbt.unsigned_tx.input[at].previous_output,
                "amount_sat": output.map(|output| output.value.to_sat()),
                "address": output.map(|output| name(session, &output.script_pubkey)),
            })
        })
        .collect();
    let outputs =
        psbt.unsigned_tx.output.iter().map(
            |output| json!({"address": name(session, &output.script_pubkey), "amount_sat": output.value.to_sat()}),
        );
    let value = json!({
        "txid": psbt.unsigned_tx.compute_txid(),
        "inputs": inputs,
        "outputs": outputs.collect::<Vec<_>>(),
        "fee_sat": build::fee_of(psbt).ok(),
        "signatures": signatures(psbt),
        "complete": build::finalize(&mut psbt.clone()).is_ok(),
    });
    let text = text(session, psbt)?;
    session.show(&value, || text);
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;
    use crate::keys::tests::vectors;

    #[test]
    fn bip174_vectors_are_read_or_refused() {
        let Some(vectors) = vectors("bip-0174/psbt-vectors.json") else { return };
        let of = |kind: &str| vectors[kind].as_array().unwrap().clone();
        assert_eq!((of("valid").len(), of("invalid").len()), (10, 20), "expected: the published vectors");
        for vector in of("valid") {
            let text = vector["base64"].as_str().unwrap();
            let psbt = read(text).unwrap_or_else(|error| panic!("{}: {error}", vector["case"]));
            assert_eq!(parse(&psbt.serialize()).unwrap(), psbt, "{}: expected the same from bytes", vector["case"]);
        }
        for vector in of("invalid") {
            assert!(parse(vector["base64"].as_str().unwrap().as_bytes()).is_err(), "{} was taken", vector["case"]);
        }
    }
}
