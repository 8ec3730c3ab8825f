//! Commands about addresses: one to be paid at, and all that were given away.

use bdk_wallet::KeychainKind;
use bitcoin::Amount;
use serde_json::json;

use crate::error::Result;
use crate::format::{in_fours, parse_amount, qr_code};
use crate::session::Session;
use crate::store::{LOOKAHEAD, Store};

/// `groat receive`.
pub fn receive(session: &Session, new: bool, amount: Option<&str>, label: Option<&str>, qr: bool) -> Result<()> {
    let amount = amount.map(parse_amount).transpose()?;
    let mut store = session.open()?;
    let (index, address) = next_address(&mut store, new)?;
    store.save()?;
    let after_used = store.wallet.spk_index().last_used_index(KeychainKind::External).map_or(0, |used| used + 1);
    if index >= after_used + LOOKAHEAD {
        session.warn(&format!(
            "this is address {index}, and none since {after_used} was paid: restored from its words, the wallet would not look so far"
        ));
    }
    if let Some(label) = label {
        store.set_label("addr", &address, label)?;
    }
    let uri = uri(&address, amount, label);
    let value = json!({
        "address": address, "uri": uri, "index": index,
        "amount_sat": amount.map(Amount::to_sat), "label": label,
    });
    let code = if qr { qr_code(&qr_text(&address, &uri)) } else { None };
    if qr && code.is_none() {
        session.warn("the label is too long for a QR code");
    }
    session.show(&value, || {
        let shown = if session.tty() { in_fours(&address) } else { address.clone() };
        let link = (amount.is_some() || label.is_some()).then_some(uri.clone());
        [Some(shown), link, code].into_iter().flatten().collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

/// The first address that was neither paid nor given to somebody by a label; or one after all others.
fn next_address(store: &mut Store, new: bool) -> Result<(u32, String)> {
    if !new {
        let unused: Vec<_> = store.wallet.list_unused_addresses(KeychainKind::External).collect();
        for info in unused {
            let address = info.address.to_string();
            if store.label("addr", &address)?.is_none() {
                store.check_address(&info)?;
                return Ok((info.index, address));
            }
        }
    }
    let info = store.wallet.reveal_next_address(KeychainKind::External);
    store.check_address(&info)?;
    Ok((info.index, info.address.to_string()))
}

/// A payment link ([BIP-0021]).
///
/// [BIP-0021]: https://github.com/bitcoin/bips/blob/master/bip-0021.mediawiki
fn uri(address: &str, amount: Option<Amount>, label: Option<&str>) -> String {
    let amount = amount.map(|amount| format!("amount={}", amount.to_string_in(bitcoin::Denomination::Bitcoin)));
    let label = label.map(|label| format!("label={}", percent_encoded(label)));
    let query: Vec<String> = [amount, label].into_iter().flatten().collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("bitcoin:{address}{mark}{}", query.join("&"))
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What the QR code of a link holds: bech32 may be in upper case, and such a code is smaller.
fn qr_text(address: &str, uri: &str) -> String {
    let small = uri.to_ascii_lowercase() == *uri && !uri.contains('?');
    if small { format!("BITCOIN:{}", address.to_ascii_uppercase()) } else { uri.to_owned() }
}

/// `groat addresses`.
pub fn addresses(session: &Session, used: bool) -> Result<()> {
    let store = session.open()?;
    let index = store.wallet.spk_index();
    let mut received = std::collections::BTreeMap::<u32, u64>::new();
    for output in store.wallet.list_output().filter(|output| output.keychain == KeychainKind::External) {
        *received.entry(output.derivation_index).or_default() += output.txout.value.to_sat();
    }
    let (mut list, mut rows) = (Vec::new(), Vec::new());
    for (at, script) in index.revealed_keychain_spks(KeychainKind::External) {
        let sum = received.get(&at).copied().unwrap_or(0);
        let is_used = index.is_used(KeychainKind::External, at);
        let Some(address) = session.network.address(&script).filter(|_| is_used || !used) else { continue };
        let label = store.label("addr", &address.to_string())?;
        list.push(json!({
            "index": at, "address": address, "used": is_used, "received_sat": sum, "label": label,
        }));
        rows.push(vec![at.to_string(), address.to_string(), sum.to_string(), label.unwrap_or_default()]);
    }
    session.show_rows(
        &json!({ "addresses": list }),
        &["index", "address", "received sat", "label"],
        &rows,
        "No address was given away yet: `groat receive` shows one.",
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_amount_and_label() {
        assert_eq!(uri("bc1qx", None, None), "bitcoin:bc1qx");
        let full = uri("bc1qx", Some(Amount::from_sat(2_030_000_000)), Some("Luke & Jr"));
        assert_eq!(full, "bitcoin:bc1qx?amount=20.3&label=Luke%20%26%20Jr");
    }
}
