//! Signatures and keys: which encodings a flag allows, and the checks by libsecp256k1. Knows no transaction: a check
//! takes a key, 32 bytes of message and a signature.

use std::sync::LazyLock;

use secp256k1::{Message, PublicKey, Scalar, Secp256k1, VerifyOnly, XOnlyPublicKey, ecdsa, schnorr};

use super::error::ScriptError;
use super::flags::Flags;
use super::sighash::{SIGHASH_ALL, SIGHASH_ANYONECANPAY, SIGHASH_SINGLE, SigVersion};

/// The one verification context of the process.
static SECP: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// Whether `signature` (without its hash type byte) is one of `key` over `message`. Reads DER as laxly as Core's
/// `ecdsa_signature_parse_der_lax`, takes a high S, and takes compressed, uncompressed and hybrid keys.
pub fn verify_ecdsa(key: &[u8], message: &[u8; 32], signature: &[u8]) -> bool {
    let Ok(key) = PublicKey::from_slice(key) else { return false };
    let Ok(mut signature) = ecdsa::Signature::from_der_lax(signature) else { return false };
    signature.normalize_s();
    SECP.verify_ecdsa(&Message::from_digest(*message), &signature, &key).is_ok()
}

/// Whether `signature` is one of the x-only `key` over `message` ([BIP-0340]).
///
/// [BIP-0340]: https://github.com/bitcoin/bips/blob/master/bip-0340.mediawiki
pub fn verify_schnorr(key: &[u8; 32], message: &[u8; 32], signature: &[u8; 64]) -> bool {
    let Ok(key) = XOnlyPublicKey::from_slice(key) else { return false };
    let signature = schnorr::Signature::from_slice(signature).expect("64 bytes are a signature's length");
    SECP.verify_schnorr(&signature, &Message::from_digest(*message), &key).is_ok()
}

/// Whether `output`, with a Y of that oddness, is the x-only key `internal` plus `tweak` times the generator.
pub(crate) fn is_tweaked(output: &[u8], odd: bool, internal: &[u8], tweak: &[u8; 32]) -> bool {
    let (Ok(internal), Ok(tweak)) = (XOnlyPublicKey::from_slice(internal), Scalar::from_be_bytes(*tweak)) else {
        return false;
    };
    let sum = internal.add_tweak(&SECP, &tweak);
    sum.is_ok_and(|(key, parity)| key.serialize() == output && (parity == secp256k1::Parity::Odd) == odd)
}

/// Whether `signature`, hash type byte included, has an encoding that `flags` allow. Nothing at all is always
/// allowed: the compact way to give no valid signature (Core's `CheckSignatureEncoding`).
pub fn check_signature_encoding(signature: &[u8], flags: Flags) -> Result<(), ScriptError> {
    let Some((hash_type, der)) = signature.split_last() else { return Ok(()) };
    if flags.intersects(Flags::DERSIG | Flags::LOW_S | Flags::STRICTENC) && !is_strict_der(der) {
        return Err(ScriptError::SigDer);
    }
    if flags.contains(Flags::LOW_S) && !is_low_s(der) {
        return Err(ScriptError::SigHighS);
    }
    let defined = SIGHASH_ALL..=SIGHASH_SINGLE;
    if flags.contains(Flags::STRICTENC) && !defined.contains(&(hash_type & !SIGHASH_ANYONECANPAY)) {
        return Err(ScriptError::SigHashtype);
    }
    Ok(())
}

/// Whether `key` has a form that `flags` allow (Core's `CheckPubKeyEncoding`).
pub(crate) fn check_key_encoding(key: &[u8], flags: Flags, version: SigVersion) -> Result<(), ScriptError> {
    let compressed = matches!(key, [2 | 3, x @ ..] if x.len() == 32);
    let uncompressed = matches!(key, [4, point @ ..] if point.len() == 64);
    if flags.contains(Flags::STRICTENC) && !compressed && !uncompressed {
        return Err(ScriptError::PubkeyType);
    }
    if flags.contains(Flags::WITNESS_PUBKEYTYPE) && version == SigVersion::WitnessV0 && !compressed {
        return Err(ScriptError::WitnessPubkeyType);
    }
    Ok(())
}

/// Whether the bytes are strict DER of two positive integers in at most 72 bytes ([BIP-0066]):
/// `30 <length> 02 <length> <R> 02 <length> <S>`.
///
/// [BIP-0066]: https://github.com/bitcoin/bips/blob/master/bip-0066.mediawiki
pub(crate) fn is_strict_der(der: &[u8]) -> bool {
    /// Splits a shortest-form positive integer off the front.
    fn integer(der: &[u8]) -> Option<&[u8]> {
        let [2, length, rest @ ..] = der else { return None };
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        match value {
            [] | [0x80..=0xff, ..] | [0, ..=0x7f, ..] => None,
            _ => Some(rest),
        }
    }
    let [0x30, length, body @ ..] = der else { return false };
    der.len() <= 72
        && usize::from(*length) == body.len()
        && integer(body).and_then(integer).is_some_and(<[u8]>::is_empty)
}

fn is_low_s(der: &[u8]) -> bool {
    ecdsa::Signature::from_der_lax(der).is_ok_and(|signature| {
        let mut low = signature;
        low.normalize_s();
        low == signature
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_der_is_exactly_two_shortest_positive_integers() {
        let integer = |value: &[u8]| [&[2, value.len() as u8], value].concat();
        let whole = |body: &[u8]| [&[0x30, body.len() as u8], body].concat();
        let pair = |r: &[u8], s: &[u8]| whole(&[integer(r), integer(s)].concat());
        assert!(is_strict_der(&pair(&[1], &[0])));
        assert!(is_strict_der(&pair(&[0, 0x80], &[0x7f])));
        assert!(is_strict_der(&pair(&[1; 33], &[1; 33])), "72 bytes");
        for (bad, why) in [
            (pair(&[], &[1]), "R is empty"),
            (pair(&[1], &[]), "S is empty"),
            (pair(&[0x80], &[1]), "R is negative"),
            (pair(&[1], &[0, 1]), "S is padded"),
            (pair(&[1; 34], &[1; 33]), "73 bytes"),
            ([pair(&[1], &[1]), vec![0]].concat(), "a byte follows"),
            (whole(&[integer(&[1]), integer(&[1]), vec![0]].concat()), "a byte follows inside"),
            (whole(&integer(&[1])), "S is missing"),
            (whole(&[2, 1, 1, 3, 1, 1]), "S is no integer"),
            (vec![0x30], "no length"),
        ] {
            assert!(!is_strict_der(&bad), "{why}: {bad:02x?}");
        }
    }
}
