//! The secret at rest: a file of two lines, of which the first says how the key comes from the wallet password and the
//! second is what the words stand for, encrypted. Argon2id makes the key, ChaCha20-Poly1305 encrypts and guards both
//! lines. The salt is new whenever the file is written, so no key is used twice.

use argon2::{Algorithm, Argon2, Params, Version};
use bdk_wallet::bip39::Mnemonic;
use bitcoin::secp256k1::rand::RngCore;
use bitcoin::secp256k1::rand::rngs::OsRng;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hex::{DisplayHex, FromHex};
use zeroize::Zeroizing;

use crate::error::{Doing, Error, Result, failed};

/// How the first line begins; the number grows when the form changes.
const HEAD: &str = "groat-seed 1 argon2id";
/// Memory in KiB, passes and lanes: about a quarter of a second on a laptop.
const COSTS: [u32; 3] = [64 << 10, 3, 1];
/// What a file may ask for at most, so that a damaged one takes neither all memory nor all day.
const MAX_COSTS: [u32; 3] = [4 << 20, 64, 16];

/// The file's text for these words under this password.
pub fn seal(words: &Mnemonic, password: &str) -> Result<String> {
    seal_with(words, password, COSTS)
}

fn seal_with(words: &Mnemonic, password: &str, costs: [u32; 3]) -> Result<String> {
    let (mut salt, mut nonce) = ([0; 16], [0; 12]);
    OsRng.fill_bytes(&mut salt);
    OsRng.fill_bytes(&mut nonce);
    let [memory, passes, lanes] = costs;
    let head = format!("{HEAD} m={memory} t={passes} p={lanes} salt={} nonce={}", salt.as_hex(), nonce.as_hex());
    let entropy = Zeroizing::new(words.to_entropy());
    let payload = Payload { msg: &entropy, aad: head.as_bytes() };
    let sealed = cipher(password, &salt, costs)?
        .encrypt(&Nonce::from(nonce), payload)
        .map_err(|_| failed("cannot encrypt the wallet's seed"))?;
    Ok(format!("{head}\n{}\n", sealed.as_hex()))
}

/// The words that a file holds.
pub fn open(text: &str, password: &str) -> Result<Mnemonic> {
    let (head, sealed, costs, salt, nonce) = parse(text).ok_or_else(|| {
        failed("seed.enc is damaged or of a later version: `groat restore` makes the wallet anew from its words")
    })?;
    let payload = Payload { msg: &sealed, aad: head.as_bytes() };
    let entropy =
        cipher(password, &salt, costs)?.decrypt(&Nonce::from(nonce), payload).map_err(|_| wrong_password())?;
    Mnemonic::from_entropy(&Zeroizing::new(entropy)).doing("read the wallet's seed")
}

fn wrong_password() -> Error {
    failed(
        "wrong wallet password (or seed.enc is damaged): try again; without it `groat restore` makes the wallet anew from its words",
    )
}

type Parsed<'a> = (&'a str, Vec<u8>, [u32; 3], [u8; 16], [u8; 12]);

fn parse(text: &str) -> Option<Parsed<'_>> {
    let mut lines = text.lines();
    let (head, sealed) = (lines.next()?, lines.next()?);
    let values = head.strip_prefix(HEAD)?.split_whitespace();
    let values: Option<Vec<&str>> =
        values.zip(["m=", "t=", "p=", "salt=", "nonce="]).map(|(field, name)| field.strip_prefix(name)).collect();
    let [memory, passes, lanes, salt, nonce] = values?[..] else { return None };
    let costs = [memory.parse().ok()?, passes.parse().ok()?, lanes.parse().ok()?];
    if costs.iter().zip(MAX_COSTS).any(|(cost, most)| *cost > most) {
        return None;
    }
    let sealed = Vec::from_hex(sealed).ok()?;
    Some((head, sealed, costs, <[u8; 16]>::from_hex(salt).ok()?, <[u8; 12]>::from_hex(nonce).ok()?))
}

fn cipher(password: &str, salt: &[u8], [memory, passes, lanes]: [u32; 3]) -> Result<ChaCha20Poly1305> {
    let params = Params::new(memory, passes, lanes, Some(32)).doing("read the costs in seed.enc")?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut *key)
        .doing("make the key from the password")?;
    ChaCha20Poly1305::new_from_slice(&*key).doing("use the key")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;
    use crate::keys::new_words;

    /// As cheap as it goes.
    const CHEAP: [u32; 3] = [8, 1, 1];

    #[test]
    fn what_is_sealed_opens_with_its_password_alone() {
        let words = new_words(24).unwrap();
        let sealed = seal_with(&words, "correct horse", CHEAP).unwrap();
        assert_eq!(open(&sealed, "correct horse").unwrap(), words);
        assert!(open(&sealed, "Correct horse").unwrap_err().to_string().contains("wrong wallet password"));
        assert!(!sealed.contains(&words.to_entropy().as_hex().to_string()));
        assert_ne!(seal_with(&words, "correct horse", CHEAP).unwrap(), sealed, "expected: a new salt each time");
    }

    #[test]
    fn any_changed_letter_is_noticed() {
        let sealed = seal_with(&new_words(12).unwrap(), "p", CHEAP).unwrap();
        for at in 0..sealed.trim_end().len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(bytes).unwrap();
            // Of hexadecimal digits the case says nothing, and the digit 1 is turned into another above.
            assert!(open(&changed, "p").is_err(), "letter {at} of {sealed:?} may be changed");
        }
        assert!(open("", "p").is_err());
    }

    #[test]
    fn costs_beyond_the_bound_are_refused_without_being_paid() {
        let sealed = seal_with(&new_words(12).unwrap(), "p", CHEAP).unwrap();
        let greedy = sealed.replace("m=8 ", "m=4294967295 ");
        assert!(open(&greedy, "p").unwrap_err().to_string().contains("damaged"));
    }
}
