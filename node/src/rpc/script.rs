//! Scripts as JSON shows them: assembler, kind, address, descriptor. Forms and texts are Core's (`src/core_io.cpp`,
//! `src/script/solver.cpp`). Executes nothing.

use bitcoin::{Address, Network, Script, ScriptBuf, XOnlyPublicKey};
use groat_chain::params::AddressSet;
use groat_chain::rules::block::is_unspendable;
use groat_chain::script::opcode::*;
use groat_chain::script::signature::check_signature_encoding;
use groat_chain::script::{Flags, Template};
use hex::DisplayHex;
use serde::Serialize;

use super::address::decode_address;
use super::descriptor::with_checksum;

/// An output script. Core: `ScriptToUniv`.
#[derive(Serialize)]
pub struct ScriptPubKey {
    asm: String,
    desc: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    r#type: &'static str,
}

impl ScriptPubKey {
    /// Shows `script` with addresses of this set.
    pub fn new(script: &Script, addresses: AddressSet) -> ScriptPubKey {
        let (hex, address) = (Some(script.as_bytes().to_lower_hex_string()), address_of(script, addresses));
        let (asm, desc) = (asm(script, false), infer(script, addresses));
        ScriptPubKey { asm, desc, hex, address, r#type: Template::of(script).name() }
    }

    /// Leaves the bytes out: who asks has them.
    pub fn without_hex(self) -> ScriptPubKey {
        ScriptPubKey { hex: None, ..self }
    }

    /// With a descriptor that tells more.
    pub fn described(self, desc: String) -> ScriptPubKey {
        ScriptPubKey { desc, ..self }
    }
}

fn network(addresses: AddressSet) -> Network {
    match addresses {
        AddressSet::Main => Network::Bitcoin,
        AddressSet::Test => Network::Testnet,
        AddressSet::Regtest => Network::Regtest,
    }
}

/// The address of an output script, if it has one. Core: `ExtractDestination`.
pub fn address_of(script: &Script, addresses: AddressSet) -> Option<String> {
    if !has_address(&Template::of(script)) {
        return None;
    }
    Some(Address::from_script(script, network(addresses)).ok()?.to_string())
}

/// Reads an address of this set.
pub fn from_address(text: &str, addresses: AddressSet) -> Option<ScriptBuf> {
    decode_address(text, addresses).ok()
}

fn has_address(kind: &Template<'_>) -> bool {
    !matches!(kind, Template::NonStandard | Template::PubKey(_) | Template::Multisig(..) | Template::NullData)
}

/// The most telling descriptor of a script of which nothing is known, with checksum. Core: `InferDescriptor`, without a key
/// store.
pub fn infer(script: &Script, addresses: AddressSet) -> String {
    let text = match Template::of(script) {
        Template::PubKey(key) if is_describable(key) => format!("pk({})", key.as_hex()),
        Template::Multisig(required, keys) if keys.iter().all(|key| is_describable(key)) => {
            let keys: String = keys.iter().map(|key| format!(",{}", key.as_hex())).collect();
            format!("multi({required}{keys})")
        }
        Template::WitnessV1Taproot(key) if XOnlyPublicKey::from_slice(key).is_ok() => {
            format!("rawtr({})", key.as_hex())
        }
        _ => match address_of(script, addresses) {
            Some(address) => format!("addr({address})"),
            None => format!("raw({})", script.as_bytes().as_hex()),
        },
    };
    with_checksum(&text)
}

/// Descriptors do not take hybrid keys.
fn is_describable(key: &[u8]) -> bool {
    !matches!(key.first(), Some(6 | 7))
}

/// The script as text. With `signatures` what looks like a signature shows the name of its hash type.
/// Core: `ScriptToAsmStr`.
pub fn asm(script: &Script, signatures: bool) -> String {
    let signatures = signatures && !is_unspendable(script);
    let words: Vec<String> = Cursor::new(script.as_bytes())
        .scan(false, |ended, op| {
            if std::mem::replace(ended, op.is_err()) {
                return None;
            }
            Some(match op {
                Err(Truncated) => "[error]".to_string(),
                Ok(op) if op.code > OP_PUSHDATA4 => name_of(op.code),
                Ok(op) if op.data.len() <= 4 => number(op.data).to_string(),
                Ok(op) => push(op.data, signatures),
            })
        })
        .collect();
    words.join(" ")
}

fn name_of(code: u8) -> String {
    match code {
        OP_1NEGATE => "-1".to_string(),
        OP_1..=OP_16 => (code - OP_1 + 1).to_string(),
        code => name(code).to_string(),
    }
}

/// A number of up to four bytes: little endian, the highest bit is the sign.
fn number(data: &[u8]) -> i64 {
    let Some((last, rest)) = data.split_last() else { return 0 };
    let magnitude = rest.iter().rev().fold(i64::from(last & 0x7f), |sum, byte| sum << 8 | i64::from(*byte));
    if last & 0x80 == 0 { magnitude } else { -magnitude }
}

fn push(data: &[u8], signatures: bool) -> String {
    if signatures && check_signature_encoding(data, Flags::STRICTENC).is_ok() {
        let (hash_type, der) = data.split_last().expect("longer than four bytes");
        let name = match hash_type {
            0x01 => "ALL",
            0x81 => "ALL|ANYONECANPAY",
            0x02 => "NONE",
            0x82 => "NONE|ANYONECANPAY",
            0x03 => "SINGLE",
            0x83 => "SINGLE|ANYONECANPAY",
            _ => return data.to_lower_hex_string(),
        };
        return format!("{}[{name}]", der.as_hex());
    }
    data.to_lower_hex_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(hex: &str) -> ScriptPubKey {
        ScriptPubKey::new(&ScriptBuf::from_hex(hex).expect("hex"), AddressSet::Regtest)
    }

    /// Expected: what bitcoind's `decodescript` says on regtest.
    #[test]
    fn scripts_are_shown_as_core_shows_them() {
        let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        for (hex, kind, asm) in [
            ("51".to_string(), "nonstandard", "1"),
            ("".to_string(), "nonstandard", ""),
            ("4f00600300ff80".to_string(), "nonstandard", "-1 0 16 -65280"),
            ("4c".to_string(), "nonstandard", "[error]"),
            ("05aabb".to_string(), "nonstandard", "[error]"),
            (format!("21{key}ac"), "pubkey", &format!("{key} OP_CHECKSIG")),
            ("6a026869".to_string(), "nulldata", "OP_RETURN 26984"),
            ("6a51ba".to_string(), "nonstandard", "OP_RETURN 1 OP_CHECKSIGADD"),
            ("51024e73".to_string(), "anchor", "1 29518"),
            ("5102aabb".to_string(), "witness_unknown", "1 -15274"),
            (format!("5121{key}51ae"), "multisig", &format!("1 {key} 1 OP_CHECKMULTISIG")),
            (format!("5221{key}51ae"), "nonstandard", &format!("2 {key} 1 OP_CHECKMULTISIG")),
        ] {
            let shown = show(&hex);
            assert_eq!((shown.r#type, shown.asm.as_str()), (kind, asm), "script {hex}");
        }
    }

    #[test]
    fn a_descriptor_is_the_most_telling_one() {
        let x = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        for (hex, start) in [
            ("51".to_string(), "raw(51)#8lvh9jxk".to_string()),
            (format!("2102{x}ac"), format!("pk(02{x})#")),
            (format!("512102{x}51ae"), format!("multi(1,02{x})#")),
            (format!("5120{x}"), format!("rawtr({x})#")),
            // No point of the curve has this coordinate.
            (format!("5120{}", "ff".repeat(32)), "addr(bcrt1p".to_string()),
            (format!("0014{}", "00".repeat(20)), "addr(bcrt1q".to_string()),
            (format!("76a914{}88ac", "00".repeat(20)), "addr(m".to_string()),
            (format!("a914{}87", "00".repeat(20)), "addr(2".to_string()),
        ] {
            let shown = show(&hex).desc;
            assert!(shown.starts_with(&start), "script {hex}: {shown}, expected {start}...");
        }
    }
}
