//! From words to keys: BIP39 words with help for typing errors, and the descriptors of BIP86 and BIP84 that come from
//! them. Knows no file.

use bdk_wallet::bip39::{Language, Mnemonic};
use bdk_wallet::descriptor::ExtendedDescriptor;
use bitcoin::bip32::{ChildNumber, Fingerprint, Xpriv, Xpub};
use bitcoin::secp256k1::rand::RngCore;
use bitcoin::secp256k1::rand::rngs::OsRng;
use bitcoin::secp256k1::{All, Secp256k1};
use clap::ValueEnum;
use zeroize::Zeroizing;

use crate::error::{Doing, Error, Result, failed};
use crate::network::Network;

/// Letters after which a word of the list is the only one that begins so.
const UNIQUE_LETTERS: usize = 4;

/// What addresses look like, and which standard their keys follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Taproot, key path (BIP86).
    Taproot,
    /// Segwit version 0 (BIP84).
    Segwit,
}

impl Kind {
    /// Its name, as the option takes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Taproot => "taproot",
            Kind::Segwit => "segwit",
        }
    }

    fn purpose(self) -> u32 {
        match self {
            Kind::Taproot => 86,
            Kind::Segwit => 84,
        }
    }

    fn descriptor(self, key: &str) -> String {
        match self {
            Kind::Taproot => format!("tr({key})"),
            Kind::Segwit => format!("wpkh({key})"),
        }
    }
}

/// New words, from the randomness of the operating system.
pub fn new_words(count: usize) -> Result<Mnemonic> {
    // 12 words are 128 bits, 24 are 256.
    let mut entropy = Zeroizing::new(vec![0; count / 3 * 4]);
    OsRng.fill_bytes(&mut entropy);
    Mnemonic::from_entropy(&entropy).doing("make words")
}

/// Reads words, or the first four letters of each. A word that is not in the list is named, with the nearest ones.
pub fn parse_words(text: &str) -> Result<Mnemonic> {
    let lower = Zeroizing::new(text.to_lowercase());
    let mut whole = Zeroizing::new(String::new());
    let mut count = 0;
    for (at, word) in lower.split_whitespace().enumerate() {
        whole.push_str(known_word(word).map_err(|near| {
            failed(format!("word {} ({word:?}) is not one of the 2048 words: did you mean {near}?", at + 1))
        })?);
        whole.push(' ');
        count += 1;
    }
    if ![12, 15, 18, 21, 24].contains(&count) {
        return Err(failed(format!(
            "there are {count} words, and a wallet has 12, 15, 18, 21 or 24: look which are missing"
        )));
    }
    Mnemonic::parse_in_normalized(Language::English, whole.trim_end()).map_err(|_| {
        failed("each of the words is known, but together their checksum is wrong: look for a swapped or a similar word")
    })
}

/// Refuses a word that is not in the list, with the nearest ones.
pub fn check_word(word: &str) -> Result<()> {
    let near =
        |near| failed(format!("{word:?} is not one of the 2048 words: did you mean {near}? Type that line again"));
    known_word(&word.to_lowercase()).map(drop).map_err(near)
}

/// The word of the list that is meant, or the nearest ones.
fn known_word(word: &str) -> std::result::Result<&'static str, String> {
    let list = Language::English.word_list();
    let known = |entry: &&&str| **entry == word || (word.len() >= UNIQUE_LETTERS && entry.starts_with(word));
    if let Some(entry) = list.iter().find(known) {
        return Ok(entry);
    }
    let mut near: Vec<(usize, &str)> = list.iter().map(|entry| (distance(word, entry), *entry)).collect();
    near.sort();
    let best = near[0].0;
    Err(near
        .iter()
        .take_while(|(far, _)| *far == best)
        .take(3)
        .map(|(_, entry)| *entry)
        .collect::<Vec<_>>()
        .join(" or "))
}

/// Letters to add, drop, change or swap with their neighbour to get from one word to another.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let same = usize::from(from[i - 1] != to[j - 1]);
            let mut best = (rows[i - 1][j - 1] + same).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

/// The first account of a master key: its two descriptors, for addresses to give away and for change.
pub struct Account {
    /// Without secrets.
    pub public: [String; 2],
    /// The key that the words give.
    pub master: Xpriv,
    /// How that key is named in other people's files.
    pub fingerprint: Fingerprint,
}

impl Account {
    /// The first account that these words give, with this BIP39 passphrase.
    pub fn new(words: &Mnemonic, passphrase: &str, kind: Kind, network: &Network) -> Result<Account> {
        let secp = Secp256k1::new();
        let seed = Zeroizing::new(words.to_seed(passphrase));
        let master = Xpriv::new_master(network.kind, &*seed).doing("make the master key")?;
        let fingerprint = master.fingerprint(&secp);
        let (purpose, coin) = (kind.purpose(), network.coin_type());
        let path: Vec<ChildNumber> =
            [purpose, coin, 0].map(|index| ChildNumber::Hardened { index }).into_iter().collect();
        let account = master.derive_priv(&secp, &path).doing("make the account's key")?;
        let key = format!("[{fingerprint}/{purpose}'/{coin}'/0']{}", Xpub::from_priv(&secp, &account));
        let public = [0, 1].map(|branch| kind.descriptor(&format!("{key}/{branch}/*")));
        Ok(Account { public, master, fingerprint })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.master.private_key.non_secure_erase();
    }
}

/// Reads a descriptor of public keys, for a wallet that only watches. An extended public key alone stands for the
/// addresses of `kind`. Gives the descriptors for addresses and for change; without a second the first does for both.
pub fn parse_public(text: &str, change: Option<&str>, kind: Kind) -> Result<(String, Option<String>)> {
    let text = text.trim();
    if !text.contains('(') {
        let key = text.trim_end_matches("/*");
        let wrong = || failed("that is neither a descriptor nor an extended public key (xpub..., tpub...)");
        let read: Xpub = key.rsplit(']').next().unwrap_or(key).parse().map_err(|_| wrong())?;
        // BIP32: a master key has no parent.
        let orphan = read.parent_fingerprint == Fingerprint::default() && read.child_number == ChildNumber::from(0);
        if read.depth == 0 && !orphan {
            return Err(wrong());
        }
        return Ok((kind.descriptor(&format!("{key}/0/*")), Some(kind.descriptor(&format!("{key}/1/*")))));
    }
    let secp: Secp256k1<All> = Secp256k1::new();
    let (descriptor, keys) = ExtendedDescriptor::parse_descriptor(&secp, text).doing("read the descriptor")?;
    if !keys.is_empty() {
        return Err(private());
    }
    if descriptor.is_multipath() {
        let single = descriptor.into_single_descriptors().doing("split the descriptor")?;
        let [first, second] = &single[..] else {
            return Err(failed("a descriptor with <...> has two paths there: addresses to give away, and change"));
        };
        return Ok((first.to_string(), Some(second.to_string())));
    }
    if let Some(change) = change
        && !ExtendedDescriptor::parse_descriptor(&secp, change).doing("read the descriptor for change")?.1.is_empty()
    {
        return Err(private());
    }
    Ok((descriptor.to_string(), change.map(str::to_owned)))
}

fn private() -> Error {
    failed("this descriptor holds private keys, and a descriptor is for watching: give the public one")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
pub mod tests {
    use std::path::PathBuf;

    use bdk_wallet::miniscript::{Descriptor, DescriptorPublicKey};
    use bdk_wallet::{KeychainKind, Wallet};
    use serde_json::Value;

    use super::*;

    const ABANDON: &str =
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    /// A file of the data folder, if there is one.
    pub fn vectors(name: &str) -> Option<Value> {
        let Some(top) = std::env::var_os("GROAT_DATA") else {
            eprintln!("SKIPPED: GROAT_DATA names no folder with {name}");
            return None;
        };
        let folder = if name.starts_with("bip-") { "vectors-bips" } else { "vectors-descriptors" };
        let path = PathBuf::from(top).join(folder).join(name);
        Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    }

    fn address(kind: Kind, keychain: KeychainKind, index: u32) -> String {
        let network = Network::load("main").unwrap();
        let account = Account::new(&parse_words(ABANDON).unwrap(), "", kind, &network).unwrap();
        let [external, internal] = account.public.clone();
        let wallet = Wallet::create(external, internal).network(network.kind).create_wallet_no_persist().unwrap();
        wallet.peek_address(keychain, index).address.to_string()
    }

    #[test]
    fn bip86_and_bip84_give_the_addresses_of_their_vectors() {
        // From the texts of the two BIPs.
        for (kind, keychain, index, expected) in [
            (
                Kind::Taproot,
                KeychainKind::External,
                0,
                "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
            ),
            (
                Kind::Taproot,
                KeychainKind::External,
                1,
                "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh",
            ),
            (
                Kind::Taproot,
                KeychainKind::Internal,
                0,
                "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7",
            ),
            (Kind::Segwit, KeychainKind::External, 0, "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"),
            (Kind::Segwit, KeychainKind::External, 1, "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"),
            (Kind::Segwit, KeychainKind::Internal, 0, "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el"),
        ] {
            assert_eq!(address(kind, keychain, index), expected, "{kind:?} {keychain:?} {index}");
        }
    }

    /// The words, places and addresses that `vectors/addresses.py` had from another library.
    #[test]
    fn the_same_words_give_the_same_addresses_in_bip_utils_and_miniscript() {
        let mut checked = 0;
        for line in include_str!("../vectors/addresses.txt").lines() {
            let [chain, kind, change, index, expected, words, passphrase] =
                line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let (network, index) = (Network::load(chain).unwrap(), index.parse().unwrap());
            let kind = if kind == Kind::Segwit.name() { Kind::Segwit } else { Kind::Taproot };
            let account = Account::new(&parse_words(words).unwrap(), passphrase, kind, &network).unwrap();
            let [external, internal] = account.public.clone();
            let descriptor: Descriptor<DescriptorPublicKey> =
                account.public[usize::from(change == "1")].parse().unwrap();
            let derived = descriptor.at_derivation_index(index).unwrap().address(network.kind).unwrap();
            assert_eq!(derived.to_string(), expected, "by miniscript: {line}");
            let wallet = Wallet::create(external, internal).network(network.kind).create_wallet_no_persist().unwrap();
            let keychain = if change == "1" { KeychainKind::Internal } else { KeychainKind::External };
            assert_eq!(wallet.peek_address(keychain, index).address.to_string(), expected, "by the wallet: {line}");
            checked += 1;
        }
        assert_eq!(checked, 126);
    }

    #[test]
    fn bip39_vectors_pass() {
        let Some(vectors) = vectors("bip-0039/trezor-english.json") else { return };
        let all = vectors.as_array().unwrap();
        assert_eq!(all.len(), 24, "expected: the 24 published vectors");
        for vector in all {
            let field = |at: usize| vector[at].as_str().unwrap();
            let words = parse_words(field(1)).unwrap();
            assert_eq!(words.to_entropy(), <Vec<u8> as hex::FromHex>::from_hex(field(0)).unwrap(), "{}", field(1));
            let seed = words.to_seed(field(2));
            assert_eq!(seed.to_vec(), <Vec<u8> as hex::FromHex>::from_hex(field(3)).unwrap(), "{}", field(1));
            let master = Xpriv::new_master(bitcoin::Network::Bitcoin, &seed).unwrap();
            assert_eq!(master.to_string(), field(4));
        }
    }

    #[test]
    fn bip32_vectors_pass() {
        let Some(vectors) = vectors("bip-0032/test-vectors.json") else { return };
        let secp = Secp256k1::new();
        let mut checked = 0;
        for vector in vectors["valid"].as_array().unwrap() {
            let seed = <Vec<u8> as hex::FromHex>::from_hex(vector["seed"].as_str().unwrap()).unwrap();
            let master = Xpriv::new_master(bitcoin::Network::Bitcoin, &seed).unwrap();
            for chain in vector["chains"].as_array().unwrap() {
                let path: bitcoin::bip32::DerivationPath = chain["path"].as_str().unwrap().parse().unwrap();
                let key = master.derive_priv(&secp, &path).unwrap();
                assert_eq!(key.to_string(), chain["xprv"].as_str().unwrap(), "{path}");
                assert_eq!(Xpub::from_priv(&secp, &key).to_string(), chain["xpub"].as_str().unwrap(), "{path}");
                checked += 1;
            }
        }
        assert!(checked >= 17, "expected: all chains of the vectors, got {checked}");
        for vector in vectors["invalid"].as_array().unwrap() {
            let key = vector["key"].as_str().unwrap();
            assert!(!taken(key, vector), "{key} was taken, though {}", vector["reason"]);
        }
    }

    fn network_of(vector: &Value) -> bitcoin::Network {
        match vector["network"].as_str() {
            None | Some("main") => bitcoin::Network::Bitcoin,
            Some("regtest") => bitcoin::Network::Regtest,
            Some(_) => bitcoin::Network::Testnet,
        }
    }

    /// Whether `groat import` makes a wallet of it.
    fn taken(input: &str, vector: &Value) -> bool {
        let make =
            |descriptor| Wallet::create_single(descriptor).network(network_of(vector)).create_wallet_no_persist();
        parse_public(input, None, Kind::Taproot).is_ok_and(|(descriptor, _)| make(descriptor).is_ok())
    }

    /// The kinds of descriptors that a wallet of this program can be made of.
    const KINDS: [&str; 4] = ["pkh", "wpkh", "sh", "wsh"];

    #[test]
    fn descriptor_vectors_give_their_addresses() {
        let Some(vectors) = vectors("desc-addresses.json") else { return };
        let secp = Secp256k1::new();
        let mut checked = 0;
        for vector in KINDS.iter().flat_map(|kind| vectors[kind].as_array().unwrap()) {
            let input = vector["input"].as_str().unwrap();
            // Keys that only the private one gives have no place in a descriptor for watching.
            let hardened = ["*'", "*h"].iter().any(|end| input.contains(end));
            let Some(addresses) = vector["addresses"].as_array().filter(|_| !hardened) else {
                assert!(!taken(input, vector), "{input} was taken");
                continue;
            };
            let (descriptor, _) = ExtendedDescriptor::parse_descriptor(&secp, input).unwrap();
            let network = network_of(vector);
            let first = vector["range"][0].as_u64().unwrap_or(0) as u32;
            for (index, expected) in (first..).zip(addresses) {
                let address = descriptor.at_derivation_index(index).unwrap().address(network).unwrap();
                assert_eq!(address.to_string(), expected.as_str().unwrap(), "{input} at {index}");
                checked += 1;
            }
        }
        assert!(checked > 100, "expected: all addresses of the vectors, got {checked}");
    }

    #[test]
    fn descriptors_of_the_vectors_are_taken_or_refused() {
        let (Some(valid), Some(invalid)) = (vectors("desc-valid.json"), vectors("desc-invalid.json")) else { return };
        for vector in KINDS.iter().flat_map(|kind| valid[kind].as_array().unwrap()) {
            let input = vector["input"].as_str().unwrap();
            let private = vector["hasprivatekeys"] == Value::Bool(true);
            match parse_public(input, None, Kind::Segwit) {
                Ok(_) => assert!(!private, "{input} has private keys and was taken"),
                Err(error) => {
                    assert!(private || ["'", "h"].iter().any(|mark| input.contains(mark)), "{input}: {error}")
                }
            }
        }
        let invalid = invalid.as_array().unwrap();
        assert_eq!(invalid.len(), 40, "expected: the 40 published vectors");
        for vector in invalid {
            let input = vector["input"].as_str().unwrap();
            // BIP389 came later than these vectors: two paths in one are valid now.
            let two_paths = input.contains("<0;1>");
            assert!(two_paths || !taken(input, vector), "{input:?} was taken, though {}", vector["error"]);
        }
    }

    #[test]
    fn bip84_and_bip86_vectors_pass() {
        for (kind, file) in
            [(Kind::Segwit, "bip-0084/test-vectors.json"), (Kind::Taproot, "bip-0086/test-vectors.json")]
        {
            let Some(vectors) = vectors(file) else { return };
            let mut checked = 0;
            for vector in vectors.as_array().unwrap() {
                let Some(expected) = vector["address"].as_str() else { continue };
                let label = vector["label"].as_str().unwrap();
                let mut path = label.rsplit('/').map(|number| number.parse::<u32>().unwrap());
                let (index, change) = (path.next().unwrap(), path.next().unwrap());
                let keychain = if change == 1 { KeychainKind::Internal } else { KeychainKind::External };
                assert_eq!(address(kind, keychain, index), expected, "{file}: {label}");
                checked += 1;
            }
            assert_eq!(checked, 3, "expected: three addresses in {file}");
        }
    }

    #[test]
    fn a_mistyped_word_is_named_with_the_nearest() {
        let said = parse_words(&ABANDON.replacen("about", "abuot", 1)).unwrap_err().to_string();
        assert!(said.contains("word 12") && said.contains("about"), "{said}");
        let said = parse_words("zzz").unwrap_err().to_string();
        assert!(said.contains("word 1"), "{said}");
    }

    #[test]
    fn four_letters_are_enough_and_case_and_spaces_do_not_matter() {
        let short = ABANDON.replace("abandon", " ABAN ").replace("about", "abou");
        assert_eq!(parse_words(&short).unwrap(), parse_words(ABANDON).unwrap());
    }

    #[test]
    fn a_wrong_count_and_a_wrong_checksum_are_told_apart() {
        assert!(parse_words("abandon abandon").unwrap_err().to_string().contains("2 words"));
        let wrong = ABANDON.replace("about", "abandon");
        assert!(parse_words(&wrong).unwrap_err().to_string().contains("checksum"));
    }

    #[test]
    fn new_words_differ_and_have_the_length_asked_for() {
        for count in [12, 24] {
            let (one, other) = (new_words(count).unwrap(), new_words(count).unwrap());
            assert_eq!(one.word_count(), count);
            assert_ne!(one, other);
        }
    }

    #[test]
    fn an_extended_public_key_stands_for_two_descriptors_and_private_keys_are_refused() {
        let network = Network::load("main").unwrap();
        let account = Account::new(&parse_words(ABANDON).unwrap(), "", Kind::Segwit, &network).unwrap();
        let key = account.public[0].trim_start_matches("wpkh(").trim_end_matches("/0/*)");
        let (external, internal) = parse_public(key, None, Kind::Segwit).unwrap();
        assert_eq!([external, internal.unwrap()], account.public);
        let two = account.public[0].replace("/0/*", "/<0;1>/*");
        let (external, internal) = parse_public(&two, None, Kind::Segwit).unwrap();
        for (got, expected) in [external, internal.unwrap()].iter().zip(&account.public) {
            assert!(got.starts_with(expected), "{got} is not {expected}");
        }
        let private = format!("wpkh({}/0/*)", account.master);
        let said = parse_public(&private, None, Kind::Segwit).unwrap_err().to_string();
        assert!(said.contains("private"), "{said}");
        let said = parse_public(&account.public[0], Some(&private), Kind::Segwit).unwrap_err().to_string();
        assert!(said.contains("private"), "{said}");
    }
}
