//! Who may call: the cookie file, HTTP's basic authorization, and the checks that keep web pages of a browser out.
//! Knows no method.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand::TryRngCore;
use rand::rngs::OsRng;

/// User of the cookie. Core: `COOKIEAUTH_USER`.
const COOKIEAUTH_USER: &str = "__cookie__";
/// Name of the cookie in the chain's folder. Core: `COOKIEAUTH_FILE`.
const COOKIEAUTH_FILE: &str = ".cookie";

/// A secret of this run in a file that only its owner can read. The file goes when this is dropped.
pub struct Cookie {
    path: PathBuf,
    secret: String,
}

impl Cookie {
    /// Draws a new secret and puts it in place of the file of the run before.
    pub fn create(folder: &Path) -> anyhow::Result<Cookie> {
        let mut key = [0; 32];
        OsRng.try_fill_bytes(&mut key).context("the system gives no random bytes")?;
        let secret = format!("{COOKIEAUTH_USER}:{}", hex::DisplayHex::to_lower_hex_string(&key[..]));
        let path = folder.join(COOKIEAUTH_FILE);
        let temporary = folder.join(format!("{COOKIEAUTH_FILE}.tmp"));
        // A rest of a run that was killed may have other permissions.
        let _ = std::fs::remove_file(&temporary);
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(secret.as_bytes())?;
            std::fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("the RPC cookie {} cannot be written", path.display()))?;
        Ok(Cookie { path, secret })
    }

    /// Whether the request carries the secret. Takes the same time for every wrong one of the same length.
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Basic "));
        let given = given.and_then(|value| BASE64_STANDARD.decode(value.trim()).ok());
        given.is_some_and(|given| equal(&given, self.secret.as_bytes()))
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

/// Whether a browser sent this for a page from elsewhere: a name in `Host` that is not this machine's (DNS rebinding),
/// or an `Origin` that is not.
pub fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let strange = |name: HeaderName, is_local: fn(&str) -> bool| {
        headers.get_all(name).iter().any(|value| !value.to_str().is_ok_and(is_local))
    };
    strange(HOST, is_local_host)
        || strange(ORIGIN, |origin| origin.split_once("://").is_some_and(|(_, host)| is_local_host(host)))
}

/// Whether `host`, with or without a port, names this machine.
fn is_local_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').map_or(bracketed, |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_cookie_is_private_new_on_each_start_and_gone_at_the_end() {
        let folder = tempfile::tempdir().expect("the temporary folder can be written");
        let path = folder.path().join(".cookie");
        std::fs::write(folder.path().join(".cookie.tmp"), "a rest").expect("the folder can be written");
        let first = Cookie::create(folder.path()).expect("the folder can be written").secret.clone();
        assert!(!path.exists(), "the cookie outlives its server");
        let cookie = Cookie::create(folder.path()).expect("the folder can be written");
        assert_ne!(cookie.secret, first, "two starts have one secret");
        assert_eq!(std::fs::read_to_string(&path).expect("the cookie is there"), cookie.secret);
        assert_eq!(std::fs::metadata(&path).expect("the cookie is there").permissions().mode() & 0o777, 0o600);
        let (user, key) = cookie.secret.split_once(':').expect("user and password");
        assert_eq!((user, key.len()), ("__cookie__", 64));
        std::fs::write(&path, "of another process").expect("the folder can be written");
        drop(cookie);
        assert!(path.exists(), "another process's cookie was removed");
    }

    #[test]
    fn only_the_whole_secret_is_let_in() {
        let folder = tempfile::tempdir().expect("the temporary folder can be written");
        let cookie = Cookie::create(folder.path()).expect("the folder can be written");
        let given = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(text).expect("a header is text"));
            cookie.allows(&headers)
        };
        let basic = |secret: &str| given(&format!("Basic {}", BASE64_STANDARD.encode(secret)));
        assert!(basic(&cookie.secret));
        assert!(!cookie.allows(&HeaderMap::new()), "no header");
        assert!(!basic(""), "an empty secret");
        assert!(!basic(&cookie.secret[..cookie.secret.len() - 1]), "one letter less");
        assert!(!basic(&format!("{}0", cookie.secret)), "one letter more");
        assert!(!basic(&cookie.secret.replace("__cookie__", "__Cookie__")), "another user");
        assert!(!given(&BASE64_STANDARD.encode(&cookie.secret)), "no scheme");
        assert!(!given("Basic ***"), "no base64");
    }

    #[test]
    fn pages_from_elsewhere_are_kept_out() {
        for (host, origin, elsewhere) in [
            (None, None, false),
            (Some("127.0.0.1:8332"), None, false),
            (Some("localhost"), None, false),
            (Some("[::1]:8332"), Some("http://localhost:3000"), false),
            (Some("evil.example:8332"), None, true),
            (Some("127.0.0.1.evil.example"), None, true),
            (Some("10.0.0.1:8332"), None, true),
            (Some("127.0.0.1:8332"), Some("https://evil.example"), true),
            (Some("127.0.0.1:8332"), Some("null"), true),
        ] {
            let mut headers = HeaderMap::new();
            host.map(|host| headers.insert(HOST, HeaderValue::from_static(host)));
            origin.map(|origin| headers.insert(ORIGIN, HeaderValue::from_static(origin)));
            assert_eq!(is_from_elsewhere(&headers), elsewhere, "host {host:?}, origin {origin:?}");
        }
    }
}
