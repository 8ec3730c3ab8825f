//! Making connections: straight, or through a SOCKS5 proxy, which then also resolves names: nothing that a proxy is there
//! to hide is asked of anybody else. Knows no message.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;
use tokio::net::TcpStream;
use tokio_socks::TargetAddr;
use tokio_socks::tcp::Socks5Stream;

use crate::addr::{Host, NetAddr, Network, host_and_port};

/// How long a connection may take to be made. Core: `DEFAULT_CONNECT_TIMEOUT`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a proxy may take to make one. Core: `g_socks5_recv_timeout`.
const PROXY_TIMEOUT: Duration = Duration::from_secs(20);
/// Addresses of a name that are dialled before it is given up.
const MAX_ADDRESSES: usize = 8;

/// A SOCKS5 proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is.
    pub addr: SocketAddr,
    /// Each link has a user name and a password of its own: Tor then takes another way for each. Core: `-proxyrandomize`.
    pub isolate: bool,
}

/// Which proxy is for what; none: no proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For addresses of IPv4.
    pub ipv4: Option<Proxy>,
    /// For addresses of IPv6.
    pub ipv6: Option<Proxy>,
    /// For onion services, which cannot be reached without one.
    pub onion: Option<Proxy>,
    /// For the CJDNS mesh.
    pub cjdns: Option<Proxy>,
    /// For names, which it resolves.
    pub names: Option<Proxy>,
    /// Without it names are dialled nowhere: this machine is not to resolve them either. Core: `-dns=0`.
    pub no_lookups: bool,
}

impl Proxies {
    /// One proxy for everything.
    pub fn all(proxy: Proxy) -> Proxies {
        let proxy = Some(proxy);
        Proxies { ipv4: proxy, ipv6: proxy, onion: proxy, cjdns: proxy, names: proxy, no_lookups: false }
    }

    /// The one for a network.
    pub fn of(&self, network: Network) -> Option<Proxy> {
        match network {
            Network::Ipv4 => self.ipv4,
            Network::Ipv6 => self.ipv6,
            Network::Onion => self.onion,
            Network::Cjdns => self.cjdns,
            Network::I2p => None,
        }
    }
}

/// Whom to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Addr(NetAddr),
    Name(String, u16),
}

impl Target {
    /// The name in a text, with or without a port.
    pub fn name(text: &str, default_port: u16) -> Target {
        let (host, port) = host_and_port(text);
        Target::Name(host.to_owned(), port.unwrap_or(default_port))
    }
}

/// No connection.
#[derive(Debug)]
pub(super) struct Failed {
    /// The other end was reached for; false where it was our own proxy that did not answer, or there is no way at all.
    pub tried: bool,
}

/// Where a name leads that a proxy resolves: nobody knows.
const NOWHERE: Host = Host::V6([0; 16]);

/// Connects; gives the address of the other end.
pub(super) async fn connect(target: &Target, proxies: &Proxies) -> Result<(TcpStream, NetAddr), Failed> {
    match target {
        Target::Addr(addr) => {
            let stream = match (proxies.of(addr.host.network()), addr.host.ip()) {
                (Some(proxy), Some(ip)) => through(proxy, TargetAddr::Ip(SocketAddr::new(ip, addr.port))).await?,
                (Some(proxy), None) => {
                    through(proxy, TargetAddr::Domain(addr.host.to_string().into(), addr.port)).await?
                }
                (None, Some(ip)) => straight(SocketAddr::new(ip, addr.port)).await?,
                (None, None) => return Err(Failed { tried: false }),
            };
            Ok((stream, *addr))
        }
        Target::Name(name, port) => {
            if let Some(proxy) = proxies.names {
                let stream = through(proxy, TargetAddr::Domain(name.as_str().into(), *port)).await?;
                return Ok((stream, NetAddr { host: NOWHERE, port: *port }));
            }
            if proxies.no_lookups || is_hidden(name) {
                return Err(Failed { tried: false });
            }
            for addr in resolve(name, *port, MAX_ADDRESSES).await {
                if let Ok(stream) = straight(addr).await {
                    return Ok((stream, NetAddr::from(addr)));
                }
            }
            Err(Failed { tried: true })
        }
    }
}

/// Whether the name is one of a hidden service, though a wrong one: asked of a name server it would tell whom the operator
/// looks for (RFC 7686).
fn is_hidden(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    [".onion", ".i2p"].iter().any(|end| name.ends_with(end))
}

/// Addresses of a name, as this machine resolves it; none if it cannot.
pub(super) async fn resolve(name: &str, port: u16, most: usize) -> Vec<SocketAddr> {
    match tokio::time::timeout(PROXY_TIMEOUT, tokio::net::lookup_host((name, port))).await {
        Ok(Ok(addrs)) => addrs.take(most).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

async fn straight(addr: SocketAddr) -> Result<TcpStream, Failed> {
    timely(TcpStream::connect(addr)).await.map_err(|_| Failed { tried: true })
}

async fn timely(connect: impl Future<Output = io::Result<TcpStream>>) -> io::Result<TcpStream> {
    tokio::time::timeout(CONNECT_TIMEOUT, connect).await?
}

async fn through(proxy: Proxy, target: TargetAddr<'_>) -> Result<TcpStream, Failed> {
    // The protocol has one byte for the length of a name.
    if matches!(&target, TargetAddr::Domain(name, _) if name.len() > 255) {
        return Err(Failed { tried: false });
    }
    let stream = timely(TcpStream::connect(proxy.addr)).await.map_err(|_| Failed { tried: false })?;
    let greet = async {
        if proxy.isolate {
            let (user, password) = credentials();
            Socks5Stream::connect_with_password_and_socket(stream, target, &user, &password).await
        } else {
            Socks5Stream::connect_with_socket(stream, target).await
        }
    };
    match tokio::time::timeout(PROXY_TIMEOUT, greet).await {
        Ok(Ok(stream)) => Ok(stream.into_inner()),
        Ok(Err(_)) | Err(_) => Err(Failed { tried: true }),
    }
}

/// A user name and a password that nobody had before.
#[expect(clippy::disallowed_methods, reason = "what keeps links apart is no part of the protocol's value")]
fn credentials() -> (String, String) {
    let word = || format!("{:016x}", rand::rng().random::<u64>());
    (word(), word())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_of_a_hidden_service_is_asked_of_no_name_server() {
        for (name, hidden) in [
            ("expyuzz4wqqyqhjn.onion", true),
            ("Typo.ONION.", true),
            ("x.b32.i2p", true),
            ("onion", false),
            ("onion.example.com", false),
        ] {
            assert_eq!(is_hidden(name), hidden, "{name}");
        }
    }
}
