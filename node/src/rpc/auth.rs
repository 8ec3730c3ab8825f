//! Who may call, and what: the cookie, users with passwords, lists of methods; and the checks that keep web pages of a
//! browser out. Knows no method.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::hmac::{Hmac, HmacEngine};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use hex::DisplayHex;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use rand::TryRngCore;
use rand::rngs::OsRng;

use crate::config::Http;

/// User of the cookie. Core: `COOKIEAUTH_USER`.
const COOKIEAUTH_USER: &str = "__cookie__";
/// Name of the cookie in the chain's folder. Core: `COOKIEAUTH_FILE`.
const COOKIEAUTH_FILE: &str = ".cookie";

/// A user and the salted hash of a password.
struct Account {
    name: String,
    salt: String,
    hash: String,
}

impl Account {
    fn new(name: &str, password: &str) -> anyhow::Result<Account> {
        let salt = random::<16>()?;
        Ok(Account { name: name.into(), hash: hashed(&salt, password.as_bytes()), salt })
    }

    /// Reads `NAME:SALT$HASH`.
    fn parse(text: &str) -> Option<Account> {
        let (name, secret) = text.split_once(':').filter(|(_, secret)| !secret.contains(':'))?;
        let (salt, hash) = secret.split_once('$').filter(|(_, hash)| !hash.contains('$'))?;
        Some(Account { name: name.into(), salt: salt.into(), hash: hash.into() })
    }

    fn is(&self, name: &[u8], password: &[u8]) -> bool {
        equal(self.name.as_bytes(), name) && equal(self.hash.as_bytes(), hashed(&self.salt, password).as_bytes())
    }
}

/// HMAC-SHA256 of a password with its salt, in hex.
fn hashed(salt: &str, password: &[u8]) -> String {
    let mut engine = HmacEngine::<sha256::Hash>::new(salt.as_bytes());
    engine.input(password);
    Hmac::<sha256::Hash>::from_engine(engine).to_byte_array().to_lower_hex_string()
}

/// So many random bytes in hex.
fn random<const N: usize>() -> anyhow::Result<String> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).context("the system gives no random bytes")?;
    Ok(bytes.to_lower_hex_string())
}

/// All who may call.
pub struct Users {
    accounts: Vec<Account>,
    /// What a user may call; all, if there is no list for him.
    lists: HashMap<String, HashSet<String>>,
    /// Who has no list may call nothing. Core: `-rpcwhitelistdefault`.
    only_listed: bool,
    /// Goes with its file when the server goes.
    _cookie: Option<Cookie>,
}

impl Users {
    /// Reads the options and writes the cookie, which is there beside the passwords.
    pub fn new(options: &Http, folder: &Path) -> anyhow::Result<Users> {
        let mut accounts = Vec::new();
        for text in &options.rpcauth {
            accounts.push(Account::parse(text).context("Invalid -rpcauth argument.")?);
        }
        let password = options.rpcpassword.as_deref().unwrap_or_default();
        if !password.is_empty() {
            accounts.push(Account::new(options.rpcuser.as_deref().unwrap_or_default(), password)?);
        }
        let cookie = Cookie::wanted(options, folder)?;
        if let Some(cookie) = &cookie {
            accounts.push(Account::new(COOKIEAUTH_USER, cookie.password())?);
        }
        let mut lists: HashMap<String, HashSet<String>> = HashMap::new();
        for text in &options.rpcwhitelist {
            let (name, methods) = text.split_once(':').unwrap_or((text, ""));
            let methods: HashSet<String> = methods.split([',', ' ']).map(str::to_owned).collect();
            lists
                .entry(name.into())
                .and_modify(|list| list.retain(|method| methods.contains(method)))
                .or_insert(methods);
        }
        let only_listed = options.rpcwhitelistdefault.unwrap_or(!lists.is_empty());
        Ok(Users { accounts, lists, only_listed, _cookie: cookie })
    }

    /// Whose name and password a request carries. Takes the same time for every wrong password of a user.
    pub fn caller(&self, headers: &HeaderMap) -> Option<String> {
        let given = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
        let given = BASE64_STANDARD.decode(given.trim()).ok()?;
        let colon = given.iter().position(|byte| *byte == b':')?;
        let (name, password) = (&given[..colon], &given[colon + 1..]);
        let account = self.accounts.iter().find(|account| account.is(name, password))?;
        Some(account.name.clone())
    }

    /// Whether the user may call anything.
    pub fn may_call(&self, user: &str) -> bool {
        !self.only_listed || self.lists.contains_key(user)
    }

    /// The methods to which the user is bound, if he is.
    pub fn list(&self, user: &str) -> Option<&HashSet<String>> {
        self.lists.get(user)
    }
}

/// A secret of this run in a file. The file goes when this is dropped.
struct Cookie {
    path: PathBuf,
    secret: String,
}

impl Cookie {
    /// The cookie as the options want it.
    fn wanted(options: &Http, folder: &Path) -> anyhow::Result<Option<Cookie>> {
        let mode = match options.rpccookieperms.as_deref() {
            None | Some("owner") => 0o600,
            Some("group") => 0o640,
            Some("all") => 0o644,
            Some(other) => bail!("Invalid -rpccookieperms={other}; must be one of 'owner', 'group', or 'all'."),
        };
        match options.rpccookiefile.as_deref() {
            Some("0" | "") => Ok(None),
            name => Cookie::create(&folder.join(name.unwrap_or(COOKIEAUTH_FILE)), mode).map(Some),
        }
    }

    /// Draws a new secret and puts it in place of the file of the run before.
    fn create(path: &Path, mode: u32) -> anyhow::Result<Cookie> {
        let secret = format!("{COOKIEAUTH_USER}:{}", random::<32>()?);
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        // A rest of a run that was killed may have other permissions.
        let _ = std::fs::remove_file(&temporary);
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(secret.as_bytes())?;
            // Whatever the umask leaves out.
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
            std::fs::rename(&temporary, path)
        };
        write().with_context(|| format!("the RPC cookie {} cannot be written", path.display()))?;
        Ok(Cookie { path: path.into(), secret })
    }

    fn password(&self) -> &str {
        &self.secret[COOKIEAUTH_USER.len() + 1..]
    }
}

impl Drop for Cookie {
    fn drop(&mut self) {
        // Another process may have put its own in place: that one is not ours to take away.
        if std::fs::read(&self.path).is_ok_and(|found| found == self.secret.as_bytes()) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Compares without a branch on what differs.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}

/// Whether a browser sent this for a page from elsewhere: one whose `Origin` is not this machine, or, unless any name will
/// do, one that reached us under a public name (DNS rebinding). No such name is an address, nor is it without a dot.
pub fn is_from_elsewhere(headers: &HeaderMap, any_name: bool) -> bool {
    let strange = |name: HeaderName, is_known: fn(&str) -> bool| {
        headers.get_all(name).iter().any(|value| !value.to_str().is_ok_and(is_known))
    };
    let is_private = |host: &str| !name_of(host).contains('.') || name_of(host).parse::<IpAddr>().is_ok();
    let is_here = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_this_machine(name_of(host)));
    (!any_name && strange(HOST, is_private)) || strange(ORIGIN, is_here)
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').map_or(bracketed, |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_this_machine(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("the temporary folder can be written")
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("the cookie is there").permissions().mode() & 0o777
    }

    fn basic(secret: &str) -> HeaderMap {
        given(&format!("Basic {}", BASE64_STANDARD.encode(secret)))
    }

    fn given(text: &str) -> HeaderMap {
        let value = HeaderValue::from_str(text).expect("a header is text");
        [(AUTHORIZATION, value)].into_iter().collect()
    }

    #[test]
    fn the_cookie_is_private_new_on_each_start_and_gone_at_the_end() {
        let folder = folder();
        let path = folder.path().join(".cookie");
        std::fs::write(folder.path().join(".cookie.tmp"), "a rest").expect("the folder can be written");
        let make = || Cookie::create(&path, 0o600).expect("the folder can be written");
        let first = make().secret.clone();
        assert!(!path.exists(), "the cookie outlives its server");
        let cookie = make();
        assert_ne!(cookie.secret, first, "two starts have one secret");
        assert_eq!(std::fs::read_to_string(&path).expect("the cookie is there"), cookie.secret);
        assert_eq!(mode(&path), 0o600);
        let (user, key) = cookie.secret.split_once(':').expect("user and password");
        assert_eq!((user, key.len()), ("__cookie__", 64));
        std::fs::write(&path, "of another process").expect("the folder can be written");
        drop(cookie);
        assert!(path.exists(), "another process's cookie was removed");
    }

    #[test]
    fn the_cookie_goes_where_the_options_say_and_is_there_beside_passwords() {
        let folder = folder();
        let users = |options: &Http| Users::new(options, folder.path());
        for (perms, expected) in [("owner", 0o600), ("group", 0o640), ("all", 0o644)] {
            let options = Http {
                rpccookiefile: Some("a_file".into()),
                rpccookieperms: Some(perms.into()),
                rpcuser: Some("user".into()),
                rpcpassword: Some("pass".into()),
                ..Http::default()
            };
            let users = users(&options).expect("the folder can be written");
            assert_eq!(mode(&folder.path().join("a_file")), expected, "{perms}");
            let secret = std::fs::read_to_string(folder.path().join("a_file")).expect("it is there");
            assert_eq!(users.caller(&basic(&secret)).as_deref(), Some("__cookie__"));
            assert_eq!(users.caller(&basic("user:pass")).as_deref(), Some("user"));
            assert_eq!(users.caller(&basic("user:pass2")), None);
        }
        let none = Http { rpccookiefile: Some("0".into()), ..Http::default() };
        let users_without = users(&none).expect("nothing is written");
        assert!(users_without.accounts.is_empty() && !folder.path().join(".cookie").exists());
        for wrong in [
            Http { rpccookieperms: Some("everybody".into()), ..Http::default() },
            Http { rpccookiefile: Some("no such folder/x".into()), ..Http::default() },
            Http { rpcauth: vec!["user".into()], ..Http::default() },
            Http { rpcauth: vec!["user:salt".into()], ..Http::default() },
            Http { rpcauth: vec!["user:salt$hash$".into()], ..Http::default() },
            Http { rpcauth: vec!["user:salt$hash:".into()], ..Http::default() },
            Http { rpcauth: vec![String::new()], ..Http::default() },
        ] {
            assert!(users(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_a_right_password_is_let_in() {
        let folder = folder();
        // Made by Core's share/rpcauth/rpcauth.py; one name may have several passwords.
        let options = Http { rpcauth: vec![RPCAUTH.into(), RPCAUTH_OTHER.into()], ..Http::default() };
        let users = Users::new(&options, folder.path()).expect("the folder can be written");
        let secret = std::fs::read_to_string(folder.path().join(".cookie")).expect("the cookie is there");
        assert_eq!(users.caller(&basic(&secret)).as_deref(), Some("__cookie__"));
        assert_eq!(users.caller(&basic("rt:cA773lm788buwYe4g4WT+05pKyNruVKjQ25x3n0DQcM=")).as_deref(), Some("rt"));
        assert_eq!(users.caller(&basic("rt2:8/F3uMDw4KSEbw96U3CA1C4X05dkHDN2BPFjTgZW4KI=")).as_deref(), Some("rt2"));
        for (wrong, why) in [
            (HeaderMap::new(), "no header"),
            (basic(""), "an empty secret"),
            (basic("rt"), "no colon"),
            (basic("rt:"), "no password"),
            (basic("rt2:cA773lm788buwYe4g4WT+05pKyNruVKjQ25x3n0DQcM="), "another user's"),
            (basic(&secret[..secret.len() - 1]), "one letter less"),
            (basic(&format!("{secret}0")), "one letter more"),
            (basic(&secret.replace("__cookie__", "__Cookie__")), "another user"),
            (given(&BASE64_STANDARD.encode(&secret)), "no scheme"),
            (given("Basic ***"), "no base64"),
        ] {
            assert_eq!(users.caller(&wrong), None, "{why}");
        }
    }

    /// Of the password `cA773lm788buwYe4g4WT+05pKyNruVKjQ25x3n0DQcM=`.
    const RPCAUTH: &str =
        "rt:93648e835a54c573682c2eb19f882535$7681e9c5b74bdd85e78166031d2058e1069b3ed7ed967c93fc63abba06f31144";
    /// Of the password `8/F3uMDw4KSEbw96U3CA1C4X05dkHDN2BPFjTgZW4KI=`.
    const RPCAUTH_OTHER: &str =
        "rt2:f8607b1a88861fac29dfccf9b52ff9f$ff36a0c23c8c62b4846112e50fa888416e94c17bfd4c42f88fd8f55ec6a3137e";

    #[test]
    fn lists_of_one_user_are_met_and_bind_who_has_none_by_default() {
        let folder = folder();
        let users = |lists: &[&str], default| {
            let rpcwhitelist = lists.iter().map(|list| (*list).to_owned()).collect();
            let options = Http { rpcwhitelist, rpcwhitelistdefault: default, ..Http::default() };
            Users::new(&options, folder.path()).expect("the folder can be written")
        };
        let both = users(&["a:one,two", "a:two, three", "b"], None);
        let list = both.list("a").expect("it has one");
        assert!(list.contains("two") && !list.contains("one") && !list.contains("three"));
        assert!(both.may_call("b") && both.list("b").is_some_and(|list| !list.contains("one")));
        assert!(!both.may_call("c"), "who has no list is bound as soon as there is one");
        assert!(users(&["a:one"], Some(false)).may_call("c"));
        assert!(users(&[], None).may_call("c") && !users(&[], Some(true)).may_call("c"));
    }

    #[test]
    fn pages_from_elsewhere_are_kept_out() {
        for (host, origin, elsewhere) in [
            (None, None, false),
            (Some("127.0.0.1:8332"), None, false),
            (Some("localhost"), None, false),
            (Some("[::1]:8332"), Some("http://localhost:3000"), false),
            (Some("10.0.0.1:8332"), None, false),
            (Some("bitcoind:8332"), None, false),
            (Some("evil.example:8332"), None, true),
            (Some("127.0.0.1.evil.example"), None, true),
            (Some("127.0.0.1:8332"), Some("https://evil.example"), true),
            (Some("127.0.0.1:8332"), Some("http://10.0.0.1"), true),
            (Some("127.0.0.1:8332"), Some("null"), true),
        ] {
            let mut headers = HeaderMap::new();
            host.map(|host| headers.insert(HOST, HeaderValue::from_static(host)));
            origin.map(|origin| headers.insert(ORIGIN, HeaderValue::from_static(origin)));
            assert_eq!(is_from_elsewhere(&headers, false), elsewhere, "host {host:?}, origin {origin:?}");
            assert_eq!(
                is_from_elsewhere(&headers, true),
                elsewhere && origin.is_some(),
                "any name: {host:?}, {origin:?}"
            );
        }
    }
}
