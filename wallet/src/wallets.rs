//! Commands about a wallet as a whole: make, restore, import, list, info, password, backup, delete.

use std::io::Read;
use std::path::Path;

use bdk_wallet::KeychainKind;
use bdk_wallet::bip39::Mnemonic;
use bitcoin::secp256k1::rand::seq::index;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::{Backup, KeyOptions};
use crate::error::{Doing, Error, Result, failed, usage};
use crate::format::{grouped, in_fours, sat};
use crate::keys::{self, Account, Kind};
use crate::seed;
use crate::session::Session;
use crate::store::{self, Birthday, Plan, Store};
use crate::sync;

/// What `info` shows, in order.
const FIELDS: [&str; 12] = [
    "name",
    "folder",
    "chain",
    "genesis",
    "type",
    "watch_only",
    "bip39_passphrase",
    "descriptor",
    "change_descriptor",
    "birthday_height",
    "synced_height",
    "transactions",
];
/// Words that are asked back, to see that they were written down.
const ASKED_BACK: usize = 3;
/// Blocks below the tip from which a new wallet is looked for: those may still be replaced.
const BIRTHDAY_MARGIN: u32 = 6;

/// `groat create`.
pub fn create(session: &Session, name: &str, count: &str, keys: &KeyOptions) -> Result<()> {
    store::check_new(&session.wallets(), name)?;
    let words = keys::new_words(if count == "24" { 24 } else { 12 })?;
    session.say(&format!("New wallet {name:?} ({}).", session.network.name()));
    let password = new_password(session)?;
    if !session.json() {
        show_words(session, &words)?;
    }
    let passphrase = if keys.passphrase { session.prompt.new_passphrase()? } else { String::new().into() };
    let birthday = birthday_now(session);
    let (mut store, account) = make(session, name, &words, &password, &passphrase, keys, birthday)?;
    let address = store.wallet.next_unused_address(KeychainKind::External).address.to_string();
    store.save()?;
    let mut value = json!({
        "name": name,
        "chain": session.network.name(),
        "type": keys.kind.name(),
        "fingerprint": account.fingerprint.to_string(),
        "address": address,
        "birthday_height": height(birthday),
    });
    if session.json() {
        value["words"] = words.words().collect();
    }
    session.show(&value, || {
        let begun = match birthday {
            Birthday::Height(height) => format!("block {}", grouped(height.into())),
            Birthday::Time(_) => "now (the node is not running; its blocks will be found by their time)".into(),
        };
        format!("Ready. First address:  {}   (groat receive --qr)\nBirthday: {begun}", in_fours(&address))
    });
    Ok(())
}

fn new_password(session: &Session) -> Result<Zeroizing<String>> {
    chosen_password(session, session.prompt.password_file.as_deref(), "--password-file FILE")
}

fn chosen_password(session: &Session, file: Option<&Path>, option: &str) -> Result<Zeroizing<String>> {
    let password = session.prompt.new_password(file, option)?;
    if password.is_empty() {
        session.warn("the wallet password is empty: whoever has the file seed.enc has the money");
    }
    Ok(password)
}

/// Shows the words, and asks some of them back. They are not shown again but by `backup words`.
fn show_words(session: &Session, words: &Mnemonic) -> Result<()> {
    let list: Vec<&str> = words.words().collect();
    println!("Write these {} words down, in order, and show them to nobody:\n", list.len());
    for (row, some) in list.chunks(4).enumerate() {
        let cells = some.iter().enumerate().map(|(at, word)| format!("{:>3} {word:<10}", row * 4 + at + 1));
        println!("{}", cells.collect::<Vec<_>>().concat().trim_end());
    }
    println!();
    if session.prompt.yes {
        return Ok(());
    }
    let mut asked = index::sample(&mut bitcoin::secp256k1::rand::thread_rng(), list.len(), ASKED_BACK).into_vec();
    asked.sort_unstable();
    for at in asked {
        while session.prompt.line(&format!("Word {}? ", at + 1), "--yes")? != list[at] {
            session.say("That is not it: look at what you have written down.");
        }
    }
    Ok(())
}

/// The node's tip, or the time where there is no node.
fn birthday_now(session: &Session) -> Birthday {
    match session.node().and_then(|node| node.call::<u32>("getblockcount", json!([]))) {
        Ok(height) => Birthday::Height(height.saturating_sub(BIRTHDAY_MARGIN)),
        Err(_) => Birthday::Time(sync::now()),
    }
}

fn height(birthday: Birthday) -> Option<u32> {
    match birthday {
        Birthday::Height(height) => Some(height),
        Birthday::Time(_) => None,
    }
}

/// Makes a wallet from words.
pub fn make(
    session: &Session,
    name: &str,
    words: &Mnemonic,
    password: &str,
    passphrase: &str,
    keys: &KeyOptions,
    birthday: Birthday,
) -> Result<(Store, Account)> {
    let account = Account::new(words, passphrase, keys.kind, &session.network)?;
    let [external, internal] = account.public.clone();
    let seed = Some(seed::seal(words, password)?);
    let plan = Plan {
        name,
        external,
        internal: Some(internal),
        kind: Some(keys.kind),
        passphrase: keys.passphrase,
        birthday,
        seed,
    };
    Ok((Store::create(&session.wallets(), &session.network, plan)?, account))
}

/// `groat restore`.
pub fn restore(
    session: &Session,
    name: &str,
    birthday: Option<&str>,
    words_file: Option<&Path>,
    keys: &KeyOptions,
) -> Result<()> {
    store::check_new(&session.wallets(), name)?;
    let begun = birthday.map_or(Ok(Birthday::Height(0)), Session::parse_birthday)?;
    let words = match words_file {
        Some(path) => keys::parse_words(&read_file(path)?)?,
        None => ask_words(session)?,
    };
    let password = new_password(session)?;
    let passphrase = if keys.passphrase { session.prompt.passphrase()? } else { String::new().into() };
    let (mut store, account) = make(session, name, &words, &password, &passphrase, keys, begun)?;
    let address = store.wallet.next_unused_address(KeychainKind::External).address.to_string();
    store.save()?;
    let value = json!({
        "name": name,
        "chain": session.network.name(),
        "type": keys.kind.name(),
        "fingerprint": account.fingerprint.to_string(),
        "address": address,
        "birthday_height": height(begun),
    });
    session.show(&value, || {
        let from = birthday.unwrap_or("the first block");
        format!(
            "Restored {name:?} ({}). `groat balance` looks for its payments from {from} on.",
            session.network.name()
        )
    });
    Ok(())
}

/// Takes the words as they come, several on a line or one by one, until they are a whole.
fn ask_words(session: &Session) -> Result<Mnemonic> {
    let mut text = Zeroizing::new(String::new());
    session.say("Type the words, in order; an empty line ends them.");
    loop {
        let line = Zeroizing::new(session.prompt.line("> ", "--words-file FILE")?);
        if line.is_empty() {
            return keys::parse_words(&text);
        }
        // What the typing of one line has got wrong is typed again, not all of it.
        if let Err(error) = line.split_whitespace().try_for_each(keys::check_word) {
            session.say(&error.to_string());
            continue;
        }
        text.push_str(&line);
        text.push(' ');
        // One of sixteen wallets of 24 words begins with 12 whose checksum fits: that is no end yet.
        match (text.split_whitespace().count(), keys::parse_words(&text)) {
            (24, words) => return words,
            (count, Ok(_)) => session.say(&format!("{count} words, and their checksum fits.")),
            _ => {}
        }
    }
}

/// A file's text, or that of standard input.
pub fn read_file(path: &Path) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    if path == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text).doing("read standard input")?;
    } else {
        *text = std::fs::read_to_string(path).doing(format!("read {}", path.display()))?;
    }
    Ok(text)
}

/// `groat import`.
pub fn import(
    session: &Session,
    name: &str,
    descriptor: &str,
    change: Option<&str>,
    birthday: Option<&str>,
    kind: Kind,
) -> Result<()> {
    let begun = birthday.map_or(Ok(Birthday::Height(0)), Session::parse_birthday)?;
    let (external, internal) = keys::parse_public(descriptor, change, kind)?;
    let plan = Plan { name, external, internal, kind: None, passphrase: false, birthday: begun, seed: None };
    let mut store = Store::create(&session.wallets(), &session.network, plan)?;
    let address = store.wallet.next_unused_address(KeychainKind::External).address.to_string();
    store.save()?;
    let value = json!({
        "name": name, "chain": session.network.name(), "watch_only": true,
        "address": address, "birthday_height": height(begun),
    });
    session.show(&value, || format!("Wallet {name:?} watches. First address:  {}", in_fours(&address)));
    Ok(())
}

/// `groat list`.
pub fn list(session: &Session) -> Result<()> {
    let folder = session.wallets();
    let names = store::names(&folder)?;
    let watches = |name: &String| !folder.join(name).join("seed.enc").is_file();
    let value: Vec<_> = names.iter().map(|name| json!({"name": name, "watch_only": watches(name)})).collect();
    let rows: Vec<_> = names
        .iter()
        .map(|name| vec![name.clone(), if watches(name) { "watches".into() } else { "signs".to_owned() }])
        .collect();
    let none = format!("No wallet on {} yet: `groat create NAME` makes one.", session.network.name());
    session.show_rows(&json!({ "wallets": value }), &["name", ""], &rows, &none);
    Ok(())
}

/// `groat info`.
pub fn info(session: &Session) -> Result<()> {
    let store = session.open()?;
    let descriptor = |keychain| store.wallet.public_descriptor(keychain).to_string();
    let value = json!({
        "name": store.name,
        "folder": store.folder,
        "chain": session.network.name(),
        "genesis": session.network.genesis(),
        "type": store.kind()?,
        "watch_only": store.watch_only(),
        "bip39_passphrase": store.has_passphrase()?,
        "descriptor": descriptor(KeychainKind::External),
        "change_descriptor": descriptor(KeychainKind::Internal),
        "birthday_height": height(store.birthday()?),
        "synced_height": store.wallet.latest_checkpoint().height(),
        "transactions": store.wallet.transactions().count(),
    });
    session.show(&value, || {
        let text = |name: &str| value[name].as_str().map_or_else(|| value[name].to_string(), str::to_owned);
        let line = |name: &str| format!("{:<18}{}", name.replace('_', " "), text(name));
        FIELDS.map(line).join("\n")
    });
    Ok(())
}

/// `groat password`.
pub fn password(session: &Session, new: Option<&Path>) -> Result<()> {
    let store = session.open()?;
    let words = store.words(&session.prompt)?;
    let password = chosen_password(session, new, "--new-password-file FILE")?;
    store::write_private(&store.seed_path(), &seed::seal(&words, &password)?)?;
    session.show(&json!({"name": store.name}), || format!("Wallet {:?} has its new password.", store.name));
    Ok(())
}

/// `groat delete`.
pub fn delete(session: &Session, name: &str, force: bool) -> Result<()> {
    let mut store = session.open_named(name)?;
    if !force && !store.watch_only() {
        let node = session.node().map_err(|error| {
            Error::Node(format!(
                "{error}\n  Whether the wallet has money cannot be seen without it: --force asks nobody"
            ))
        })?;
        sync::sync(&mut store, &node, &session.network)?;
        let total = store.wallet.balance().total().to_sat();
        if total > 0 {
            return Err(failed(format!(
                "wallet {name:?} has {}: send it away first (`groat send ADDRESS max`), or give --force",
                sat(total)
            )));
        }
    }
    session.prompt.confirm(&format!("Delete wallet {name:?}? Without its words nothing brings it back."))?;
    store.delete()?;
    session.show(&json!({"name": name, "deleted": true}), || format!("Wallet {name:?} is deleted."));
    Ok(())
}

/// `groat backup`.
pub fn backup(session: &Session, what: Backup, to: Option<&Path>) -> Result<()> {
    let opened = session.open();
    match what {
        Backup::Words => {
            let (words, passphrase) = match &opened {
                // The words do not depend on what may be damaged.
                Ok(store) => (store.words(&session.prompt)?, store.has_passphrase().ok()),
                Err(error) => {
                    let folder = session.wallets().join(session.wallet_name()?);
                    if !folder.join("seed.enc").is_file() {
                        return opened.map(drop);
                    }
                    session.warn(&error.to_string());
                    (store::words_in(&folder, &session.prompt)?, None)
                }
            };
            session.prompt.confirm("Show the words? Whoever sees them has the money.")?;
            let value = json!({"words": words.words().collect::<Vec<_>>(), "bip39_passphrase": passphrase});
            session.show(&value, || words.words().collect::<Vec<_>>().join(" "));
            if passphrase == Some(true) {
                session.warn("the words give nothing without the BIP39 passphrase, which is stored nowhere");
            }
        }
        Backup::File => {
            let to = to.ok_or_else(|| usage("where to? Give the name of a new folder after `backup file`"))?;
            opened?.copy_to(to)?;
            session.show(&json!({"folder": to}), || {
                format!(
                    "Copied to {}. Put among the wallets ({}), it is one.",
                    to.display(),
                    session.wallets().display()
                )
            });
        }
        Backup::Descriptors => {
            let store = opened?;
            let [external, internal] = [KeychainKind::External, KeychainKind::Internal]
                .map(|keychain| store.wallet.public_descriptor(keychain).to_string());
            let value = json!({"descriptor": external, "change_descriptor": internal});
            session.show(&value, || format!("{external}\n{internal}"));
        }
    }
    Ok(())
}

/// Refuses what needs keys in a wallet that has none.
pub fn must_sign(store: &Store) -> Result<()> {
    if store.watch_only() {
        let name = &store.name;
        return Err(failed(format!("wallet {name:?} only watches: `groat psbt create` makes what another one signs")));
    }
    Ok(())
}
