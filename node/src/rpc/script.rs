//! Scripts as JSON shows them: assembler, kind, address, descriptor; and descriptors read back. Forms and texts are
//! Core's (`src/core_io.cpp`, `src/script/solver.cpp`, `src/script/descriptor.cpp`). Executes nothing.

use bitcoin::{Address, Network, Script, ScriptBuf, XOnlyPublicKey};
use groat_chain::params::AddressSet;
use groat_chain::rules::block::is_unspendable;
use groat_chain::script::opcode::*;
use groat_chain::script::signature::check_signature_encoding;
use groat_chain::script::{Flags, Template};
use hex::DisplayHex;
use serde::Serialize;

/// An output script. Core: `ScriptToUniv`.
#[derive(Serialize)]
pub struct ScriptPubKey {
    asm: String,
    desc: String,
    hex: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    r#type: &'static str,
}

impl ScriptPubKey {
    /// Shows `script` with addresses of this set.
    pub fn new(script: &Script, addresses: AddressSet) -> ScriptPubKey {
        let kind = Template::of(script);
        let address = has_address(&kind).then(|| address_of(script, addresses)).flatten();
        let hex = script.as_bytes().to_lower_hex_string();
        let desc = descriptor(&kind, address.as_deref());
        let desc = desc.unwrap_or_else(|| format!("raw({hex})"));
        ScriptPubKey { asm: asm(script, false), desc: with_checksum(&desc), hex, address, r#type: kind.name() }
    }
}

fn network(addresses: AddressSet) -> Network {
    match addresses {
        AddressSet::Main => Network::Bitcoin,
        AddressSet::Test => Network::Testnet,
        AddressSet::Regtest => Network::Regtest,
    }
}

fn address_of(script: &Script, addresses: AddressSet) -> Option<String> {
    Some(Address::from_script(script, network(addresses)).ok()?.to_string())
}

/// Reads an address of this set.
pub fn from_address(text: &str, addresses: AddressSet) -> Option<ScriptBuf> {
    let address: Address<_> = text.parse().ok()?;
    Some(address.require_network(network(addresses)).ok()?.script_pubkey())
}

/// Core: `ExtractDestination`.
fn has_address(kind: &Template<'_>) -> bool {
    !matches!(kind, Template::NonStandard | Template::PubKey(_) | Template::Multisig(..) | Template::NullData)
}

/// Without checksum; none if only `raw()` says it. Core: `InferScript`, without a key store.
fn descriptor(kind: &Template<'_>, address: Option<&str>) -> Option<String> {
    match kind {
        Template::PubKey(key) if is_describable(key) => Some(format!("pk({})", key.as_hex())),
        Template::Multisig(required, keys) if keys.iter().all(|key| is_describable(key)) => {
            let keys: String = keys.iter().map(|key| format!(",{}", key.as_hex())).collect();
            Some(format!("multi({required}{keys})"))
        }
        Template::WitnessV1Taproot(key) if XOnlyPublicKey::from_slice(key).is_ok() => {
            Some(format!("rawtr({})", key.as_hex()))
        }
        _ => address.map(|address| format!("addr({address})")),
    }
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

/// The letters of a descriptor, in groups of 32 (BIP380).
const INPUT_CHARSET: &[u8; 95] =
    b"0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ ";
/// The letters of its checksum: those of bech32.
const CHECKSUM_CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// The eight letters after a descriptor's `#`; none if a letter is not allowed ([BIP-0380]).
///
/// [BIP-0380]: https://github.com/bitcoin/bips/blob/master/bip-0380.mediawiki
fn checksum(descriptor: &str) -> Option<String> {
    const GENERATOR: [u64; 5] = [0xf5_dee5_1989, 0xa9_fdca_3312, 0x1b_ab10_e32d, 0x37_06b1_677a, 0x64_4d62_6ffd];
    let step = |sum: u64, symbol: u64| {
        let top = sum >> 35;
        let terms = GENERATOR.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1);
        terms.fold((sum & 0x7_ffff_ffff) << 5 ^ symbol, |sum, (_, term)| sum ^ term)
    };
    let places: Option<Vec<u64>> = descriptor
        .bytes()
        .map(|letter| INPUT_CHARSET.iter().position(|other| *other == letter).map(|place| place as u64))
        .collect();
    // Each letter gives its place in its group; three letters together give one symbol more for their groups.
    let mut sum = places?.chunks(3).fold(1, |sum, three| {
        let sum = three.iter().fold(sum, |sum, place| step(sum, place & 31));
        step(sum, three.iter().fold(0, |groups, place| groups * 3 + (place >> 5)))
    });
    sum = (0..8).fold(sum, |sum, _| step(sum, 0)) ^ 1;
    Some((0..8).map(|at| char::from(CHECKSUM_CHARSET[(sum >> (5 * (7 - at)) & 31) as usize])).collect())
}

fn with_checksum(descriptor: &str) -> String {
    let checksum = checksum(descriptor).expect("descriptors made here have allowed letters only");
    format!("{descriptor}#{checksum}")
}

/// The script of a descriptor, with or without checksum: `raw(HEX)` and `addr(ADDRESS)`.
pub fn from_descriptor(text: &str, addresses: AddressSet) -> Result<ScriptBuf, String> {
    let (descriptor, given) = match text.split_once('#') {
        Some((_, given)) if given.contains('#') => return Err("Multiple '#' symbols".into()),
        Some((descriptor, given)) => (descriptor, Some(given)),
        None => (text, None),
    };
    if let Some(given) = given.filter(|given| given.len() != 8) {
        return Err(format!("Expected 8 character checksum, not {} characters", given.len()));
    }
    let computed = checksum(descriptor).ok_or("Invalid characters in payload")?;
    if let Some(given) = given.filter(|given| *given != computed) {
        return Err(format!("Provided checksum '{given}' does not match computed checksum '{computed}'"));
    }
    let inside = |function: &str| descriptor.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(hex) = inside("raw") {
        return ScriptBuf::from_hex(hex).ok().filter(|_| !hex.is_empty()).ok_or("Raw script is not hex".into());
    }
    if let Some(address) = inside("addr") {
        return from_address(address, addresses).ok_or("Address is not valid".into());
    }
    let function = descriptor.split('(').next().unwrap_or_default();
    Err(format!("'{function}' is not a valid descriptor function"))
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

    #[test]
    fn descriptors_are_read_back_and_wrong_ones_refused_in_cores_words() {
        let read = |text: &str| from_descriptor(text, AddressSet::Regtest);
        let script = ScriptBuf::from_hex("51").expect("hex");
        assert_eq!(read("raw(51)#8lvh9jxk"), Ok(script.clone()));
        assert_eq!(read("raw(51)"), Ok(script));
        let address = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";
        assert_eq!(read(&format!("addr({address})")).ok(), from_address(address, AddressSet::Regtest));
        assert!(from_address(address, AddressSet::Regtest).is_some(), "{address}");
        assert_eq!(from_address(address, AddressSet::Main), None);
        for (text, error) in [
            ("raw(51)#8lvh9jxq", "Provided checksum '8lvh9jxq' does not match computed checksum '8lvh9jxk'"),
            ("raw(51)#8lvh", "Expected 8 character checksum, not 4 characters"),
            ("raw(51)##", "Multiple '#' symbols"),
            ("raw(é)", "Invalid characters in payload"),
            ("raw(5)", "Raw script is not hex"),
            ("addr(1)", "Address is not valid"),
            ("nothing", "'nothing' is not a valid descriptor function"),
        ] {
            assert_eq!(read(text), Err(error.to_string()), "{text}");
        }
    }
}
