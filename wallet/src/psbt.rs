//! Commands about partially signed transactions ([BIP-0174]): made on one machine, signed on others, sent from any.
//!
//! [BIP-0174]: https://github.com/bitcoin/bips/blob/master/bip-0174.mediawiki

use std::collections::BTreeMap;
use std::path::Path;

use bdk_wallet::miniscript::ForEachKey;
use bdk_wallet::{KeychainKind, Wallet};
use bitcoin::bip32::{ChildNumber, DerivationPath, KeySource};
use bitcoin::psbt::{self, Psbt};
use bitcoin::secp256k1::PublicKey;
use bitcoin::taproot::TapLeafHash;
use bitcoin::{OutPoint, Script, ScriptBuf, TxOut, XOnlyPublicKey};
use serde_json::{Value, json};

use crate::build;
use crate::cli::PsbtCommand;
use crate::error::{Doing, Result, failed};
use crate::format::{btc, grouped, qr_code, sat};
use crate::send::Outgoing;
use crate::session::Session;
use crate::store::Store;
use crate::summary::{percent, warn_of_percent};
use crate::wallets::read_file;

/// How every PSBT begins in base64.
const BASE64_START: &str = "cHNidP";
/// How every PSBT begins in bytes.
const MAGIC: &[u8] = b"psbt\xff";

/// Letters that the largest QR code holds (ISO 18004: version 40, bytes, level L).
const QR_LETTERS: u32 = 2953;

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
        PsbtCommand::Show { psbt, qr } => {
            let psbt = read(psbt)?;
            let view = View::new(session, session.open_if_any()?.as_ref(), &psbt);
            let code = if *qr { Some(as_qr(&psbt)?) } else { None };
            session
                .show(&view.json(), || [Some(view.text()), code].into_iter().flatten().collect::<Vec<_>>().join("\n"));
            view.warn(session);
            Ok(())
        }
        PsbtCommand::Sign { psbt } => {
            let mut psbt = read(psbt)?;
            let store = session.open()?;
            let account = store.account(&session.network, &session.prompt)?;
            let view = View::new(session, Some(&store), &psbt);
            session.say(&view.text());
            view.warn(session);
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
            Outgoing::new(psbt).send(session, &mut store, &node)?;
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

/// It as a QR code.
fn as_qr(psbt: &Psbt) -> Result<String> {
    let text = psbt.to_string();
    qr_code(&text).ok_or_else(|| {
        let count = grouped(text.len() as u64);
        failed(format!(
            "this PSBT has {count} letters, and a QR code holds {QR_LETTERS} at most: hand it on as a file \
             (what `groat psbt` prints, `> FILE`)"
        ))
    })
}

/// What it spends, if it says so.
fn spent(psbt: &Psbt, at: usize) -> Option<&TxOut> {
    let input = &psbt.inputs[at];
    let vout = psbt.unsigned_tx.input[at].previous_output.vout as usize;
    input.witness_utxo.as_ref().or_else(|| input.non_witness_utxo.as_ref()?.output.get(vout))
}

/// Keys and their paths, of version 0 and of taproot.
type Plain = BTreeMap<PublicKey, KeySource>;
type Taproot = BTreeMap<XOnlyPublicKey, (Vec<TapLeafHash>, KeySource)>;

/// What a PSBT says of the keys of an input or an output.
struct Keys<'a> {
    /// Keys with their paths, those of taproot too.
    paths: Vec<(XOnlyPublicKey, &'a DerivationPath)>,
    witness_script: Option<&'a ScriptBuf>,
}

impl<'a> Keys<'a> {
    fn new(plain: &'a Plain, taproot: &'a Taproot, witness_script: &'a Option<ScriptBuf>) -> Keys<'a> {
        let plain = plain.iter().map(|(key, (_, path))| (key.x_only_public_key().0, path));
        let taproot = taproot.iter().map(|(key, (_, (_, path)))| (*key, path));
        Keys { paths: plain.chain(taproot).collect(), witness_script: witness_script.as_ref() }
    }
}

/// Whose a coin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The wallet's alone.
    Wallet,
    /// That of several keys, of which the wallet has one.
    Shared,
    Others,
}

impl Owner {
    /// Of a coin with this script. What a PSBT says only tells where to look: the wallet derives its keys itself.
    fn of(wallet: &Wallet, script: &Script, keys: &Keys<'_>) -> Owner {
        if wallet.is_mine(script.to_owned()) {
            return Owner::Wallet;
        }
        let inner = keys.witness_script.filter(|inner| inner.to_p2wsh() == *script);
        let mut owner = Owner::Others;
        for (key, path) in &keys.paths {
            let Some(&ChildNumber::Normal { index }) = path.into_iter().last() else { continue };
            for keychain in [KeychainKind::External, KeychainKind::Internal] {
                let descriptor = wallet.public_descriptor(keychain);
                let Ok(derived) = descriptor.derived_descriptor(wallet.secp_ctx(), index) else { continue };
                if derived.script_pubkey() == *script {
                    return Owner::Wallet;
                }
                let own = derived.for_any_key(|own| own.inner.x_only_public_key().0 == *key);
                if own && inner.is_some_and(|inner| holds(inner, key)) {
                    owner = Owner::Shared;
                }
            }
        }
        owner
    }

    fn name(self) -> &'static str {
        match self {
            Owner::Wallet => "wallet",
            Owner::Shared => "shared",
            Owner::Others => "others",
        }
    }
}

/// Whether a script pushes this key.
fn holds(script: &Script, key: &XOnlyPublicKey) -> bool {
    let pushed = |push: &[u8]| push.len() == 33 && push[1..] == key.serialize();
    script
        .instructions()
        .flatten()
        .any(|instruction| instruction.push_bytes().is_some_and(|push| pushed(push.as_bytes())))
}

/// An address, its amount, and whose it is, where there is a wallet to tell.
struct Coin {
    address: String,
    amount: u64,
    owner: Option<Owner>,
}

impl Coin {
    fn json(&self) -> Value {
        json!({"address": self.address, "amount_sat": self.amount, "owner": self.owner.map(Owner::name)})
    }
}

/// What a PSBT does, as far as the wallet can tell; without a wallet nothing is known to be ours.
struct View<'a> {
    psbt: &'a Psbt,
    chain: &'a str,
    /// The coin of each input, where it is said.
    inputs: Vec<Option<Coin>>,
    outputs: Vec<Coin>,
    fee: Option<u64>,
}

impl<'a> View<'a> {
    fn new(session: &'a Session, store: Option<&Store>, psbt: &'a Psbt) -> View<'a> {
        let coin = |output: &TxOut, keys: &Keys<'_>| {
            let address = session.network.address(&output.script_pubkey);
            Coin {
                address: address.map_or_else(|| output.script_pubkey.to_string(), |address| address.to_string()),
                amount: output.value.to_sat(),
                owner: store.map(|store| Owner::of(&store.wallet, &output.script_pubkey, keys)),
            }
        };
        let input = |(at, input): (usize, &psbt::Input)| {
            let keys = Keys::new(&input.bip32_derivation, &input.tap_key_origins, &input.witness_script);
            spent(psbt, at).map(|output| coin(output, &keys))
        };
        let output = |(output, known): (&TxOut, &psbt::Output)| {
            coin(output, &Keys::new(&known.bip32_derivation, &known.tap_key_origins, &known.witness_script))
        };
        View {
            psbt,
            chain: session.network.name(),
            inputs: psbt.inputs.iter().enumerate().map(input).collect(),
            outputs: psbt.unsigned_tx.output.iter().zip(&psbt.outputs).map(output).collect(),
            fee: build::fee_of(psbt).ok(),
        }
    }

    /// What goes to others; all, where nothing does.
    fn paid(&self) -> u64 {
        let sum = |back: bool| -> u64 {
            let some = self.outputs.iter().filter(|coin| back || coin.owner != Some(Owner::Wallet));
            some.map(|coin| coin.amount).sum()
        };
        if sum(false) > 0 { sum(false) } else { sum(true) }
    }

    fn text(&self) -> String {
        let spends = self.psbt.unsigned_tx.input.iter().zip(&self.inputs).map(|(input, coin)| {
            let amount = coin.as_ref().map_or("unknown amount".into(), |coin| sat(coin.amount));
            let whose = match coin.as_ref().and_then(|coin| coin.owner) {
                Some(Owner::Others) => "   of others",
                Some(Owner::Shared) => "   this wallet has one of its keys",
                Some(Owner::Wallet) | None => "",
            };
            format!("  From    {}  {amount}{whose}", input.previous_output)
        });
        let pays = self.outputs.iter().map(|coin| {
            let (what, whose) = match coin.owner {
                Some(Owner::Wallet) => ("Change", "   back to this wallet"),
                Some(Owner::Shared) => ("To", "   this wallet has one of its keys"),
                Some(Owner::Others) | None => ("To", ""),
            };
            let Coin { address, amount, .. } = coin;
            format!("  {what:<8}{address} ({})  {}   {}{whose}", self.chain, sat(*amount), btc(*amount))
        });
        let fee = self.fee.map_or("unknown: an input comes without its amount".into(), |fee| {
            format!("{}   {} %", sat(fee), percent(fee, self.paid()))
        });
        let end = [format!("  Fee     {fee}"), format!("  Signed  {} signatures", signatures(self.psbt))];
        spends.chain(pays).chain(end).collect::<Vec<_>>().join("\n")
    }

    fn json(&self) -> Value {
        let inputs = self.psbt.unsigned_tx.input.iter().zip(&self.inputs).map(|(input, coin)| {
            let none = || json!({"address": null, "amount_sat": null, "owner": null});
            let mut value = coin.as_ref().map_or_else(none, Coin::json);
            value["outpoint"] = json!(input.previous_output);
            value
        });
        json!({
            "txid": self.psbt.unsigned_tx.compute_txid(),
            "inputs": inputs.collect::<Vec<_>>(),
            "outputs": self.outputs.iter().map(Coin::json).collect::<Vec<_>>(),
            "fee_sat": self.fee,
            "signatures": signatures(self.psbt),
            "complete": build::finalize(&mut self.psbt.clone()).is_ok(),
        })
    }

    fn warn(&self, session: &Session) {
        if let Some(fee) = self.fee {
            warn_of_percent(session, percent(fee, self.paid()));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use bdk_wallet::miniscript::psbt::PsbtOutputExt;
    use bdk_wallet::miniscript::{DefiniteDescriptorKey, Descriptor, DescriptorPublicKey};

    use super::*;
    use crate::keys::tests::vectors;
    use crate::keys::{Account, Kind, new_words};
    use crate::network::Network;

    /// Far beyond the addresses that a wallet looks for unasked.
    const FAR: u32 = 100_000;

    /// The script of an output and what a PSBT says of it, for this descriptor.
    fn output(descriptor: &str) -> (ScriptBuf, psbt::Output) {
        let descriptor: Descriptor<DescriptorPublicKey> = descriptor.parse().unwrap();
        let definite: Descriptor<DefiniteDescriptorKey> = descriptor.at_derivation_index(FAR).unwrap();
        let mut output = psbt::Output::default();
        output.update_with_descriptor_unchecked(&definite).unwrap();
        (definite.script_pubkey(), output)
    }

    #[test]
    fn an_output_is_ours_when_its_keys_give_it_and_not_when_it_only_says_so() {
        let network = Network::load("regtest").unwrap();
        for kind in [Kind::Segwit, Kind::Taproot] {
            let account = Account::new(&new_words(12).unwrap(), "", kind, &network).unwrap();
            let stranger = Account::new(&new_words(12).unwrap(), "", kind, &network).unwrap();
            let [external, internal] = account.public.clone();
            let wallet = Wallet::create(external, internal).network(network.kind).create_wallet_no_persist().unwrap();
            let owner = |script: &Script, known: &psbt::Output| {
                let keys = Keys::new(&known.bip32_derivation, &known.tap_key_origins, &known.witness_script);
                Owner::of(&wallet, script, &keys)
            };
            let (script, known) = output(&account.public[1]);
            assert!(!wallet.is_mine(script.clone()), "expected: too far to be known unasked");
            assert_eq!(owner(&script, &known), Owner::Wallet, "{kind:?}");
            assert_eq!(owner(&script, &psbt::Output::default()), Owner::Others, "expected: nothing says where to look");
            let (foreign, _) = output(&stranger.public[1]);
            assert_eq!(owner(&foreign, &known), Owner::Others, "expected: what it says is not believed");

            if kind == Kind::Segwit {
                let key = |account: &Account| account.public[1][5..].trim_end_matches(')').to_owned();
                let (shared, known) = output(&format!("wsh(multi(1,{},{}))", key(&account), key(&stranger)));
                assert_eq!(owner(&shared, &known), Owner::Shared);
                assert_eq!(owner(&foreign, &known), Owner::Others, "expected: its script is another one");
            }
        }
    }

    #[test]
    fn a_psbt_is_a_qr_code_as_long_as_one_holds_it() {
        let psbt = |outputs: usize| {
            let output =
                TxOut { value: bitcoin::Amount::from_sat(1), script_pubkey: ScriptBuf::from_bytes(vec![0; 34]) };
            let transaction = bitcoin::Transaction {
                version: bitcoin::transaction::Version::TWO,
                lock_time: bitcoin::absolute::LockTime::ZERO,
                input: Vec::new(),
                output: vec![output; outputs],
            };
            Psbt::from_unsigned_tx(transaction).unwrap()
        };
        assert!(as_qr(&psbt(2)).unwrap().contains('\u{2580}'));
        let most = (1..).take_while(|count| psbt(*count).to_string().len() <= QR_LETTERS as usize).last().unwrap();
        assert!(as_qr(&psbt(most)).is_ok(), "expected: {QR_LETTERS} letters fit");
        // Letters of the same kind in a row take less room, so a few more may fit.
        let said = as_qr(&psbt(2 * most)).unwrap_err().to_string();
        assert!(said.contains("2953 at most") && said.contains("as a file"), "{said}");
    }

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
