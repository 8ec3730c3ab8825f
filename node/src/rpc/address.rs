//! Addresses read as Core reads them, with its words for what is wrong and with the likely places of typing errors
//! (`src/key_io.cpp`, `src/bech32.cpp`).

use std::collections::BTreeMap;

use bitcoin::hashes::Hash;
use bitcoin::{NetworkKind, PubkeyHash, ScriptBuf, ScriptHash, WitnessProgram, WitnessVersion, base58};
use groat_chain::params::AddressSet;

/// Why text is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAddress {
    /// In Core's words.
    pub error: String,
    /// Letters that are likely wrong, counted from 0.
    pub places: Vec<usize>,
}

fn refuse<T>(error: impl Into<String>) -> Result<T, NoAddress> {
    Err(NoAddress { error: error.into(), places: Vec::new() })
}

/// Reads an address of this set. Core: `DecodeDestination`.
pub fn decode_address(text: &str, addresses: AddressSet) -> Result<ScriptBuf, NoAddress> {
    let hrp = match addresses {
        AddressSet::Main => "bc",
        AddressSet::Test => "tb",
        AddressSet::Regtest => "bcrt",
    };
    if text.get(..hrp.len()).is_some_and(|start| start.eq_ignore_ascii_case(hrp)) {
        return segwit(text, hrp);
    }
    let trimmed = text.trim_ascii();
    let Some(payload) = base58::decode_check(trimmed).ok().filter(|payload| payload.len() <= 21) else {
        return match base58::decode(trimmed) {
            Ok(bytes) if bytes.len() <= 100 => refuse("Invalid checksum or length of Base58 address (P2PKH or P2SH)"),
            _ => refuse("Invalid or unsupported Segwit (Bech32) or Base58 encoding."),
        };
    };
    let (p2pkh, p2sh) = if addresses.kind() == NetworkKind::Main { (0, 5) } else { (111, 196) };
    let Some((version, hash)) = payload.split_first() else {
        return refuse("Invalid or unsupported Base58-encoded address.");
    };
    match (<[u8; 20]>::try_from(hash), *version) {
        (Ok(hash), version) if version == p2pkh => Ok(ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array(hash))),
        (Ok(hash), version) if version == p2sh => Ok(ScriptBuf::new_p2sh(&ScriptHash::from_byte_array(hash))),
        (Err(_), version) if version == p2pkh || version == p2sh => {
            refuse("Invalid length for Base58 address (P2PKH or P2SH)")
        }
        _ => refuse("Invalid or unsupported Base58-encoded address."),
    }
}

/// The letters of bech32 by their values ([BIP-0173]).
///
/// [BIP-0173]: https://github.com/bitcoin/bips/blob/master/bip-0173.mediawiki
pub const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// Letters of a bech32 address at most.
const BECH32_LIMIT: usize = 90;
const CHECKSUM_SIZE: usize = 6;
/// What the checksum comes to: in bech32, and in bech32m (BIP350).
const BECH32: u32 = 1;
const BECH32M: u32 = 0x2bc8_30a3;

fn segwit(text: &str, expected: &str) -> Result<ScriptBuf, NoAddress> {
    let (hrp, values) = parts(text)?;
    let encoding = polymod(&hrp, &values);
    if encoding != BECH32 && encoding != BECH32M {
        return Err(typing_errors(text.len(), &hrp, &values));
    }
    let Some((version, data)) = values[..values.len() - CHECKSUM_SIZE].split_first() else {
        return refuse("Empty Bech32 data section");
    };
    if hrp != expected {
        let text = "Invalid or unsupported prefix for Segwit (Bech32) address";
        return refuse(format!("{text} (expected {expected}, got {hrp})."));
    }
    match (*version, encoding) {
        (0, BECH32M) => return refuse("Version 0 witness address must use Bech32 checksum"),
        (1.., BECH32) => return refuse("Version 1+ witness address must use Bech32m checksum"),
        _ => {}
    }
    let Some(program) = bytes(data) else { return refuse("Invalid padding in Bech32 data section") };
    let unit = if program.len() == 1 { "byte" } else { "bytes" };
    let size = format!("({} {unit})", program.len());
    if *version == 0 && !matches!(program.len(), 20 | 32) {
        return refuse(format!("Invalid Bech32 v0 address program size {size}, per BIP141"));
    }
    let Ok(version) = WitnessVersion::try_from(*version) else {
        return refuse("Invalid Bech32 address witness version");
    };
    match WitnessProgram::new(version, &program) {
        Ok(program) => Ok(ScriptBuf::new_witness_program(&program)),
        Err(_) => refuse(format!("Invalid Bech32 address program size {size}")),
    }
}

/// The part before the last `1` in small letters, and the values of the letters after it.
fn parts(text: &str) -> Result<(String, Vec<u8>), NoAddress> {
    let at = |error: &str, places: Vec<usize>| NoAddress { error: error.into(), places };
    if text.len() > BECH32_LIMIT {
        return Err(at("Bech32 string too long", (BECH32_LIMIT..text.len()).collect()));
    }
    let (mut lower, mut upper, mut odd) = (false, false, Vec::new());
    for (place, letter) in text.bytes().enumerate() {
        let (small, large) = (letter.is_ascii_lowercase(), letter.is_ascii_uppercase());
        if small && upper || large && lower || !(33..=126).contains(&letter) {
            odd.push(place);
        }
        // Of mixed letters those of the second kind are wrong.
        lower |= small && !upper;
        upper |= large && !lower;
    }
    if !odd.is_empty() {
        return Err(at("Invalid character or mixed case", odd));
    }
    let Some(separator) = text.rfind('1') else { return Err(at("Missing separator", Vec::new())) };
    if separator == 0 || separator + CHECKSUM_SIZE >= text.len() {
        return Err(at("Invalid separator position", vec![separator]));
    }
    let (hrp, data) = (text[..separator].to_ascii_lowercase(), &text.as_bytes()[separator + 1..]);
    let mut values = Vec::with_capacity(data.len());
    for (place, letter) in data.iter().enumerate() {
        let value = CHARSET.iter().position(|other| *other == letter.to_ascii_lowercase());
        let Some(value) = value else { return Err(at("Invalid Base 32 character", vec![separator + 1 + place])) };
        values.push(value as u8);
    }
    Ok((hrp, values))
}

/// Groups of five bits as bytes; none if what is left over is not zeros, or too much.
fn bytes(values: &[u8]) -> Option<Vec<u8>> {
    let (mut sum, mut bits, mut bytes) = (0_u32, 0, Vec::new());
    for value in values {
        sum = sum << 5 | u32::from(*value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((sum >> bits) as u8);
            sum &= (1 << bits) - 1;
        }
    }
    (bits < 5 && sum == 0).then_some(bytes)
}

/// One step of the checksum: multiplies by x and adds. Linear in both arguments.
fn step(sum: u32, value: u8) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = sum >> 25;
    let terms = GENERATOR.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1);
    terms.fold((sum & 0x1ff_ffff) << 5 ^ u32::from(value), |sum, (_, term)| sum ^ term)
}

fn polymod(hrp: &str, values: &[u8]) -> u32 {
    let high = hrp.bytes().map(|letter| letter >> 5);
    let low = hrp.bytes().map(|letter| letter & 31);
    high.chain([0]).chain(low).chain(values.iter().copied()).fold(1, step)
}

/// Which one or two letters, if they were others, would make the checksum right. Core: `LocateErrors`, which solves for
/// them; here all are tried, which gives the same: up to two errors show in one way only.
fn typing_errors(length: usize, hrp: &str, values: &[u8]) -> NoAddress {
    let mut found: Option<(&str, Vec<usize>)> = None;
    for (name, constant) in [("Bech32", BECH32), ("Bech32m", BECH32M)] {
        let residue = polymod(hrp, values) ^ constant;
        let mut places = errors_of(residue, values.len());
        places.iter_mut().for_each(|from_end| *from_end = length - 1 - *from_end);
        if !places.is_empty() && found.as_ref().is_none_or(|(_, best)| places.len() < best.len()) {
            found = Some((name, places));
        }
    }
    match found {
        Some((name, places)) => NoAddress { error: format!("Invalid {name} checksum"), places },
        None => NoAddress { error: "Invalid checksum".into(), places: Vec::new() },
    }
}

/// Places counted from the end, the farthest first.
fn errors_of(residue: u32, length: usize) -> Vec<usize> {
    let mut effects = BTreeMap::new();
    for value in 1..32 {
        let mut effect: u32 = value;
        for place in 0..length {
            effects.insert(effect, place);
            effect = step(effect, 0);
        }
    }
    if let Some(place) = effects.get(&residue) {
        return vec![*place];
    }
    let two = effects.iter().find_map(|(effect, first)| {
        let second = effects.get(&(residue ^ effect))?;
        (first != second).then(|| vec![*first.max(second), *first.min(second)])
    });
    two.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_two_wrong_letters_are_found() {
        let address = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";
        assert!(decode_address(address, AddressSet::Regtest).is_ok());
        for places in [vec![5], vec![42], vec![6, 41], vec![20, 21]] {
            let mut letters = address.as_bytes().to_vec();
            places.iter().for_each(|place| letters[*place] = b'z');
            let wrong = String::from_utf8(letters).expect("ASCII");
            let expected = NoAddress { error: "Invalid Bech32 checksum".into(), places };
            assert_eq!(decode_address(&wrong, AddressSet::Regtest), Err(expected), "{wrong}");
        }
    }

    #[test]
    fn addresses_of_other_networks_are_refused() {
        for text in ["1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"] {
            assert!(decode_address(text, AddressSet::Main).is_ok(), "{text}");
            assert!(decode_address(text, AddressSet::Test).is_err(), "{text}");
        }
    }
}
