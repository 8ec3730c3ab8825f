//! Key expressions of descriptors (BIP380, BIP389): a key in hex or WIF or an extended key with its path, where it comes
//! from, and what it is at an index. Texts are Core's (`src/script/descriptor.cpp`). Private keys are never shown.

use std::sync::LazyLock;

use bitcoin::bip32::{ChildNumber, Fingerprint, Xpriv, Xpub};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::{NetworkKind, PrivateKey, PublicKey, base58};
use hex::FromHex;

/// What all signatures and derivations here are made with.
pub static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// Which keys an expression may give. Core: `ParseScriptContext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The output script itself.
    Top,
    /// Inside `sh()`.
    P2sh,
    /// Inside `wpkh()`.
    P2wpkh,
    /// Inside `wsh()`.
    P2wsh,
    /// Inside `tr()` and `rawtr()`: keys have x alone.
    P2tr,
}

/// A key expression.
#[derive(Clone)]
pub struct Key {
    origin: Option<(Fingerprint, Vec<ChildNumber>)>,
    /// Hardened steps were written with `'`, not `h`.
    apostrophe: bool,
    form: Form,
}

#[derive(Clone)]
enum Form {
    /// With x alone; with its private key, if that was given.
    Single(PublicKey, bool, Option<PrivateKey>),
    /// Paths are more than one if a step has several values.
    Extended { root: Xpub, secret: Option<Box<Xpriv>>, paths: Vec<Vec<ChildNumber>>, last: Last },
}

/// Whether a path ends with a step that the index decides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Fixed,
    Index,
    HardenedIndex,
}

/// A key expression at an index.
#[derive(Clone)]
pub struct Point {
    /// The key; in taproot its x counts.
    pub key: PublicKey,
    /// With where it comes from, as descriptors say it.
    pub text: String,
}

/// Reads a private key; none if it is none of this kind of network. Core: `DecodeSecret`.
pub fn private_key(text: &str, kind: NetworkKind) -> Option<PrivateKey> {
    let payload = base58::decode_check(text.trim_ascii()).ok()?;
    let marked = payload.len() == 33 || payload.len() == 34 && payload.last() == Some(&1);
    PrivateKey::from_wif(text.trim_ascii()).ok().filter(|key| marked && key.network == kind)
}

impl Key {
    /// Reads one. Core: `ParsePubkey`, without `musig()`.
    pub fn parse(text: &str, place: Place, kind: NetworkKind) -> Result<Key, String> {
        let parts: Vec<&str> = text.split(']').collect();
        let (origin, rest) = match parts[..] {
            [rest] => (None, rest),
            [origin, rest] => (Some(origin), rest),
            _ => return Err("Multiple ']' characters found for a single pubkey".into()),
        };
        let mut apostrophe = false;
        let origin = origin.map(|origin| self::origin(origin, &mut apostrophe)).transpose()?;
        let form = form(rest, place, kind, &mut apostrophe)?;
        Ok(Key { origin, apostrophe, form })
    }

    /// How many descriptors a step with several values makes of one.
    pub fn branches(&self) -> usize {
        if let Form::Extended { paths, .. } = &self.form { paths.len() } else { 1 }
    }

    /// Whether it depends on the index.
    pub fn is_range(&self) -> bool {
        matches!(self.form, Form::Extended { last: Last::Index | Last::HardenedIndex, .. })
    }

    /// Whether a private key was given.
    pub fn has_secret(&self) -> bool {
        matches!(self.form, Form::Single(_, _, Some(_)) | Form::Extended { secret: Some(_), .. })
    }

    /// Bytes of the key in a script.
    pub fn size(&self) -> usize {
        if let Form::Single(PublicKey { compressed: false, .. }, ..) = self.form { 65 } else { 33 }
    }

    /// The public key as it was given, whatever the index. Core: `ToString`.
    pub fn text(&self, branch: usize) -> String {
        let origin = self.origin.as_ref().map(|(fingerprint, path)| bracketed(*fingerprint, path, self.apostrophe));
        let mark = if self.apostrophe { "'" } else { "h" };
        let key = match &self.form {
            Form::Single(key, x_only, _) => hex_of(key, *x_only),
            Form::Extended { root, paths, last, .. } => {
                let star = match last {
                    Last::Fixed => String::new(),
                    Last::Index => "/*".into(),
                    Last::HardenedIndex => format!("/*{mark}"),
                };
                format!("{root}{}{star}", steps(&paths[branch % paths.len()], self.apostrophe))
            }
        };
        origin.unwrap_or_default() + &key
    }

    /// The key at an index; none if that takes a private key that was not given.
    pub fn at(&self, branch: usize, index: u32, x_only: bool) -> Option<Point> {
        let (key, fingerprint, own) = match &self.form {
            Form::Single(key, ..) => (*key, fingerprint(key), Vec::new()),
            Form::Extended { root, secret, paths, last } => {
                let mut path = paths[branch % paths.len()].clone();
                match last {
                    Last::Fixed => {}
                    Last::Index => path.push(ChildNumber::from_normal_idx(index).ok()?),
                    Last::HardenedIndex => path.push(ChildNumber::from_hardened_idx(index).ok()?),
                }
                let derived = match secret {
                    Some(secret) if path.iter().any(ChildNumber::is_hardened) => {
                        Xpub::from_priv(&SECP, &secret.derive_priv(&*SECP, &path).ok()?)
                    }
                    _ => root.derive_pub(&*SECP, &path).ok()?,
                };
                (PublicKey::new(derived.public_key), root.fingerprint(), path)
            }
        };
        let (fingerprint, mut path) = self.origin.clone().unwrap_or((fingerprint, Vec::new()));
        path.extend(own);
        Some(Point { key, text: bracketed(fingerprint, &path, false) + &hex_of(&key, x_only) })
    }
}

/// The key as scripts have it.
pub fn hex_of(key: &PublicKey, x_only: bool) -> String {
    if x_only { key.inner.x_only_public_key().0.to_string() } else { key.to_string() }
}

fn fingerprint(key: &PublicKey) -> Fingerprint {
    let hash = key.pubkey_hash().to_byte_array();
    Fingerprint::from([hash[0], hash[1], hash[2], hash[3]])
}

fn bracketed(fingerprint: Fingerprint, path: &[ChildNumber], apostrophe: bool) -> String {
    format!("[{fingerprint}{}]", steps(path, apostrophe))
}

/// Core: `FormatHDKeypath`.
fn steps(path: &[ChildNumber], apostrophe: bool) -> String {
    let step = |step: &ChildNumber| match step {
        ChildNumber::Normal { index } => format!("/{index}"),
        ChildNumber::Hardened { index } => format!("/{index}{}", if apostrophe { "'" } else { "h" }),
    };
    path.iter().map(step).collect()
}

/// `[fingerprint/path`, without the closing bracket.
fn origin(text: &str, apostrophe: &mut bool) -> Result<(Fingerprint, Vec<ChildNumber>), String> {
    let Some(inside) = text.strip_prefix('[') else {
        let found = text.chars().next().unwrap_or(']');
        return Err(format!("Key origin start '[ character expected but not found, got '{found}' instead"));
    };
    let mut parts = inside.split('/');
    let hex = parts.next().unwrap_or_default();
    if hex.len() != 8 {
        return Err(format!("Fingerprint is not 4 bytes ({} characters instead of 8 characters)", hex.len()));
    }
    let bytes = <[u8; 4]>::from_hex(hex).map_err(|_| format!("Fingerprint '{hex}' is not hex"))?;
    let path = paths(parts, apostrophe, false)?.remove(0);
    Ok((Fingerprint::from(bytes), path))
}

/// Core: `ParsePubkeyInner`.
fn form(text: &str, place: Place, kind: NetworkKind, apostrophe: &mut bool) -> Result<Form, String> {
    let mut parts: Vec<&str> = text.split('/').collect();
    let word = parts.remove(0);
    if word.is_empty() {
        return Err("No key provided".into());
    }
    if is_space(word.as_bytes()[0]) || is_space(word.as_bytes()[word.len() - 1]) {
        return Err(format!("Key '{word}' is invalid due to whitespace"));
    }
    let x_only = place == Place::P2tr;
    let allowed = |key: &PublicKey| {
        let allowed = key.compressed || matches!(place, Place::Top | Place::P2sh);
        if allowed { Ok(()) } else { Err("Uncompressed keys are not allowed".to_string()) }
    };
    if parts.is_empty() {
        if let Ok(bytes) = Vec::from_hex(word) {
            if bytes.len() == 65 && matches!(bytes[0], 6 | 7) {
                return Err("Hybrid public keys are not allowed".into());
            }
            if let Ok(key) = PublicKey::from_slice(&bytes) {
                allowed(&key)?;
                return Ok(Form::Single(key, false, None));
            }
            let even = [&[2], &bytes[..]].concat();
            let key = PublicKey::from_slice(&even).ok().filter(|_| x_only && bytes.len() == 32);
            let key = key.ok_or_else(|| format!("Pubkey '{word}' is invalid"))?;
            return Ok(Form::Single(key, true, None));
        }
        if let Some(secret) = private_key(word, kind) {
            let key = secret.public_key(&SECP);
            allowed(&key)?;
            return Ok(Form::Single(key, x_only, Some(secret)));
        }
    }
    let secret = extended(word).filter(|secret: &Xpriv| secret.network == kind);
    let root = match &secret {
        Some(secret) => Some(Xpub::from_priv(&SECP, secret)),
        None => extended(word).filter(|root: &Xpub| root.network == kind),
    };
    // A master key has no parent.
    let is_root = |root: &Xpub| {
        root.depth > 0
            || root.parent_fingerprint == Fingerprint::default()
                && root.child_number == (ChildNumber::Normal { index: 0 })
    };
    let root = root.filter(is_root).ok_or_else(|| format!("key '{word}' is not valid"))?;
    let last = match parts.last() {
        Some(&"*") => Last::Index,
        Some(&"*'") | Some(&"*h") => Last::HardenedIndex,
        _ => Last::Fixed,
    };
    if last != Last::Fixed {
        let star = parts.pop();
        *apostrophe = if last == Last::HardenedIndex { star == Some("*'") } else { *apostrophe };
    }
    let paths = paths(parts.into_iter(), apostrophe, true)?;
    Ok(Form::Extended { root, secret: secret.map(Box::new), paths, last })
}

/// What C's `isspace` says.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn extended<K: std::str::FromStr>(text: &str) -> Option<K> {
    text.parse().ok()
}

/// Core: `ParseKeyPath`.
fn paths<'a>(
    parts: impl Iterator<Item = &'a str>,
    apostrophe: &mut bool,
    several: bool,
) -> Result<Vec<Vec<ChildNumber>>, String> {
    let mut paths = vec![Vec::new()];
    for part in parts {
        let Some(inside) = part.strip_prefix('<').and_then(|part| part.strip_suffix('>')) else {
            let step = step(part, apostrophe)?;
            paths.iter_mut().for_each(|path| path.push(step));
            continue;
        };
        if !several {
            let text = "specifies multipath in a section where multipath is not allowed";
            return Err(format!("Key path value '{part}' {text}"));
        }
        if paths.len() > 1 {
            return Err("Multiple multipath key path specifiers found".into());
        }
        let values: Vec<&str> = inside.split(';').collect();
        if values.len() < 2 {
            return Err("Multipath key path specifiers must have at least two items".into());
        }
        let start = paths.remove(0);
        for value in values {
            let step = step(value, apostrophe)?;
            if paths.iter().any(|path: &Vec<_>| path.last() == Some(&step)) {
                let text = "in multipath specifier";
                return Err(format!("Duplicated key path value {} {text}", u32::from(step)));
            }
            paths.push([&start[..], &[step]].concat());
        }
    }
    Ok(paths)
}

/// Core: `ParseKeyPathNum`.
fn step(text: &str, apostrophe: &mut bool) -> Result<ChildNumber, String> {
    let digits = text.strip_suffix(['\'', 'h']);
    if digits.is_some() {
        *apostrophe = text.ends_with('\'');
    }
    let hardened = digits.is_some();
    let digits = digits.unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number: Option<u32> = digits.parse().ok().filter(|_| plain);
    let number = number.ok_or_else(|| format!("Key path value '{digits}' is not a valid uint32"))?;
    let step = if hardened { ChildNumber::from_hardened_idx(number) } else { ChildNumber::from_normal_idx(number) };
    step.map_err(|_| format!("Key path value {number} is out of range"))
}
