//! Labels of payments, addresses and coins, and their exchange with other wallets ([BIP-0329]).
//!
//! [BIP-0329]: https://github.com/bitcoin/bips/blob/master/bip-0329.mediawiki

use std::path::Path;

use bitcoin::{OutPoint, Txid};
use serde::Deserialize;
use serde_json::json;

use crate::error::{Result, failed, usage};
use crate::format::printable;
use crate::session::{Session, print};
use crate::wallets::read_file;

/// The types of references that are kept.
const TYPES: [&str; 6] = ["tx", "addr", "pubkey", "input", "output", "xpub"];

/// One line of an export.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "ref")]
    reference: String,
    #[serde(default)]
    label: String,
}

/// `groat label`.
pub fn label(
    session: &Session,
    reference: Option<&str>,
    text: Option<&str>,
    import: Option<&Path>,
    export: bool,
) -> Result<()> {
    let store = session.open()?;
    if let Some(path) = import {
        let all = read_file(path)?;
        let lines: Vec<(usize, &str)> = all.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
        // All or none: a line that cannot be read is found before any is written.
        let parsed: Vec<Line> = lines
            .iter()
            .map(|(at, line)| {
                let wrong =
                    |error: &dyn std::fmt::Display| failed(format!("line {} of {}: {error}", at + 1, path.display()));
                let line: Line = serde_json::from_str(line).map_err(|error| wrong(&error))?;
                let known = TYPES.contains(&line.kind.as_str());
                if known { Ok(line) } else { Err(wrong(&format!("BIP329 has no type {:?}", line.kind))) }
            })
            .collect::<Result<_>>()?;
        for line in &parsed {
            store.set_label(&line.kind, &line.reference, &line.label)?;
        }
        session.show(&json!({"imported": parsed.len()}), || format!("{} labels read.", parsed.len()));
        return Ok(());
    }
    let Some(reference) = reference else {
        let all = store.labels()?;
        let line = |[kind, reference, label]: &[String; 3]| json!({"type": kind, "ref": reference, "label": label});
        if export {
            all.iter().for_each(|entry| print(&line(entry).to_string()));
            return Ok(());
        }
        let rows: Vec<Vec<String>> = all.iter().map(|entry| entry.to_vec()).collect();
        let value = json!({"labels": all.iter().map(line).collect::<Vec<_>>()});
        session.show_rows(&value, &["type", "what", "label"], &rows, "No labels yet.");
        return Ok(());
    };
    let kind = match () {
        () if reference.parse::<Txid>().is_ok() => "tx",
        () if reference.parse::<OutPoint>().is_ok() => "output",
        () => {
            session.network.parse_address(reference)?;
            "addr"
        }
    };
    let Some(text) = text else {
        return Err(usage(format!("what is the label of {reference}? Give it after it; \"\" takes it away")));
    };
    store.set_label(kind, reference, text)?;
    session.show(&json!({"type": kind, "ref": reference, "label": text}), || {
        printable(&format!("{kind} {reference}: {text}"))
    });
    Ok(())
}
