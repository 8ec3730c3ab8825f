//! Addresses as people write them: `1.2.3.4:8333`, `[::1]:8333`, `….onion`, `….b32.i2p`. Resolves no name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use sha3::{Digest, Sha3_256};

use super::{Host, NetAddr};

/// Digits of base32 ([RFC 4648]), in the case of onion and I2P names.
///
/// [RFC 4648]: https://www.rfc-editor.org/rfc/rfc4648
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// End of an onion name.
const ONION: &str = ".onion";
/// End of an I2P name.
const I2P: &str = ".b32.i2p";
/// Version of the onion names that there are. Core: `torv3::VERSION`.
const ONION_VERSION: u8 = 3;

/// The text is no address: nothing, or a name that would have to be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no address")]
pub struct NoHost;

/// Base32 without padding.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut bits, mut count) = (0u16, 0);
    for byte in bytes {
        bits = bits << 8 | u16::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(BASE32[usize::from(bits >> count & 31)]));
            bits &= (1 << count) - 1;
        }
    }
    if count > 0 {
        text.push(char::from(BASE32[usize::from(bits << (5 - count) & 31)]));
    }
    text
}

/// The bytes of base32 without padding, in either case; bits that are left over must be 0.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u16, 0);
    for digit in text.bytes() {
        let value = BASE32.iter().position(|known| *known == digit.to_ascii_lowercase())?;
        bits = bits << 5 | value as u16;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0 && count < 5).then_some(bytes)
}

/// The two bytes that guard an onion name against typos. Tor's rend-spec-v3, section 6.
fn onion_checksum(key: &[u8; 32]) -> [u8; 2] {
    let hash = Sha3_256::new().chain_update(b".onion checksum").chain_update(key).chain_update([ONION_VERSION]);
    let hash = hash.finalize();
    [hash[0], hash[1]]
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::V4(bytes) => Ipv4Addr::from(*bytes).fmt(f),
            Host::V6(bytes) | Host::Cjdns(bytes) => Ipv6Addr::from(*bytes).fmt(f),
            Host::TorV3(key) => {
                f.write_str(&base32(&[&key[..], &onion_checksum(key), &[ONION_VERSION]].concat()))?;
                f.write_str(ONION)
            }
            Host::I2p(hash) => {
                f.write_str(&base32(hash))?;
                f.write_str(I2P)
            }
        }
    }
}

impl FromStr for Host {
    type Err = NoHost;

    /// An IP address (of version 6 also in brackets) or the name of an onion service or an I2P destination.
    fn from_str(text: &str) -> Result<Host, NoHost> {
        let lower = text.to_ascii_lowercase();
        if let Some(name) = lower.strip_suffix(ONION) {
            let bytes: [u8; 35] = from_base32(name).and_then(|bytes| bytes.try_into().ok()).ok_or(NoHost)?;
            let (key, rest) = bytes.split_first_chunk::<32>().expect("35 is more than 32");
            let [a, b] = onion_checksum(key);
            return (rest == [a, b, ONION_VERSION]).then_some(Host::TorV3(*key)).ok_or(NoHost);
        }
        if let Some(name) = lower.strip_suffix(I2P) {
            return from_base32(name).and_then(|bytes| bytes.try_into().ok()).map(Host::I2p).ok_or(NoHost);
        }
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(inner) = inner {
            return inner.parse().map(|ip: Ipv6Addr| Host::from(IpAddr::V6(ip))).map_err(|_| NoHost);
        }
        text.parse().map(|ip: IpAddr| Host::from(ip)).map_err(|_| NoHost)
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Host {
        match ip {
            IpAddr::V4(ip) => Host::V4(ip.octets()),
            IpAddr::V6(ip) => Host::from_v6_bytes(ip.octets()),
        }
    }
}

impl fmt::Display for NetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.ip() {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for NetAddr {
    type Err = NoHost;

    /// A host with its port.
    fn from_str(text: &str) -> Result<NetAddr, NoHost> {
        match host_and_port(text) {
            (host, Some(port)) => Ok(NetAddr { host: host.parse()?, port }),
            _ => Err(NoHost),
        }
    }
}

impl NetAddr {
    /// A host with or without its port. Core: `LookupNumeric`.
    pub fn parse(text: &str, default_port: u16) -> Result<NetAddr, NoHost> {
        let (host, port) = host_and_port(text);
        Ok(NetAddr { host: host.parse()?, port: port.unwrap_or(default_port) })
    }
}

/// The parts of `host`, `host:port`, `[v6]` or `[v6]:port`; `host` may be a name. Core: `SplitHostPort`.
pub fn host_and_port(text: &str) -> (&str, Option<u16>) {
    let bare = text.parse::<IpAddr>().is_ok();
    let (host, port) = match text.rsplit_once(':') {
        // A second colon before it makes it a part of an address of version 6.
        Some((host, port)) if !bare && (!host.contains(':') || host.ends_with(']')) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        _ => (text, None),
    };
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}

/// Whether the port that a text names, if it names one, is a port. Core: `SplitHostPort`.
pub fn port_is_valid(text: &str) -> bool {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || (host.starts_with('[') && host.ends_with(']')) => {
            port.parse::<u16>().is_ok_and(|port| port > 0)
        }
        _ => true,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    /// Names that BIP155 and Core's tests use.
    const TOR: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
    const I2P_NAME: &str = "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p";

    #[test]
    fn an_address_is_written_and_read_alike() {
        for (text, port) in [
            ("1.2.3.4:8333", 8333),
            ("[2001:db8::1]:1", 1),
            (&format!("{TOR}:8333"), 8333),
            (&format!("{I2P_NAME}:0"), 0),
        ] {
            let addr: NetAddr = text.parse().unwrap();
            assert_eq!((addr.to_string().as_str(), addr.port), (text, port));
        }
        let key = "79bcc625184b05194975c28b66b66b0469f7f6556fb1ac3189a79b40dda32f1f";
        assert_eq!(TOR.parse(), Ok(Host::TorV3(<[u8; 32] as hex::FromHex>::from_hex(key).unwrap())));
        assert_eq!(TOR.to_uppercase().parse::<Host>(), TOR.parse());
    }

    #[test]
    fn what_is_no_address_is_not_read() {
        let typo = TOR.replacen('g', "h", 1);
        let short = &TOR[1..];
        for text in ["", "host.example", "1.2.3", "[1.2.3.4]", ":::", typo.as_str(), short, "aa.onion", "aa.b32.i2p"] {
            assert_eq!(text.parse::<Host>(), Err(NoHost), "{text}");
        }
        for text in ["1.2.3.4", "[::1]", "::1", "1.2.3.4:70000", "1.2.3.4:", TOR] {
            assert_eq!(text.parse::<NetAddr>(), Err(NoHost), "{text} has no port");
        }
    }

    #[test]
    fn on_the_mesh_its_addresses_are_told_from_others() {
        let host: Host = "fc32:17ea::1".parse().unwrap();
        assert_eq!(host.network(), super::super::Network::Ipv6);
        assert_eq!(host.on_cjdns(true).network(), super::super::Network::Cjdns);
        assert_eq!(host.on_cjdns(true).to_string(), host.to_string());
        let other: Host = "fd32::1".parse().unwrap();
        assert_eq!((host.on_cjdns(false), other.on_cjdns(true)), (host, other));
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (text, expected) in [
            ("10.0.0.1", ("10.0.0.1", None)),
            ("10.0.0.1:2", ("10.0.0.1", Some(2))),
            ("::1", ("::1", None)),
            ("[::1]", ("::1", None)),
            ("[::1]:2", ("::1", Some(2))),
            ("host.example", ("host.example", None)),
            ("host.example:2", ("host.example", Some(2))),
        ] {
            assert_eq!(host_and_port(text), expected, "{text}");
            assert!(port_is_valid(text), "{text}");
        }
        for text in ["1.2.3.4:0", "1.2.3.4:65536", "host:", "[::1]:x", ":"] {
            assert!(!port_is_valid(text), "{text}");
        }
    }
}
