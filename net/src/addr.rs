//! Addresses of peers on every network that Bitcoin speaks of, and the group that an address belongs to.
//! Knows no socket but converts to and from socket addresses.

mod text;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use text::{NoHost, host_and_port, port_is_valid};

use bitcoin::hashes::{Hash, sha256};

/// How hosts begin that stand for a name: in a range of addresses that nobody routes. Core: `INTERNAL_IN_IPV6_PREFIX`.
const INTERNAL: [u8; 6] = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24];

/// Where a peer is, without the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Host {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6, never a mapped IPv4 address.
    V6([u8; 16]),
    /// The public key of an onion service.
    TorV3([u8; 32]),
    /// The SHA-256 of an I2P destination.
    I2p([u8; 32]),
    /// An address of the CJDNS mesh.
    Cjdns([u8; 16]),
}

/// The bytes of an address are not as many as its network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address of the wrong length for its network")]
pub struct WrongLength;

/// An address with its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct NetAddr {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// The networks, with their numbers in [BIP-0155].
///
/// [BIP-0155]: https://github.com/bitcoin/bips/blob/master/bip-0155.mediawiki
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Network {
    /// IPv4.
    Ipv4 = 1,
    /// IPv6.
    Ipv6 = 2,
    /// Tor, version 3.
    Onion = 4,
    /// I2P.
    I2p = 5,
    /// CJDNS.
    Cjdns = 6,
}

impl Network {
    /// All of them, in Core's order.
    pub const ALL: [Network; 5] = [Network::Ipv4, Network::Ipv6, Network::Onion, Network::I2p, Network::Cjdns];

    /// Its name. Core: `GetNetworkName`.
    pub fn name(self) -> &'static str {
        match self {
            Network::Ipv4 => "ipv4",
            Network::Ipv6 => "ipv6",
            Network::Onion => "onion",
            Network::I2p => "i2p",
            Network::Cjdns => "cjdns",
        }
    }

    /// The network with this name, in either case. Core: `ParseNetwork`.
    pub fn from_name(name: &str) -> Option<Network> {
        Network::ALL.into_iter().find(|network| network.name().eq_ignore_ascii_case(name))
    }
}

impl Host {
    /// The host of 16 bytes as `version` and `addr` carry it: IPv6, or IPv4 mapped into it.
    pub(crate) fn from_v6_bytes(bytes: [u8; 16]) -> Host {
        match Ipv6Addr::from(bytes).to_ipv4_mapped() {
            Some(v4) => Host::V4(v4.octets()),
            None => Host::V6(bytes),
        }
    }

    /// The 16 bytes of `version` and `addr`; none for hosts that only `addrv2` can carry.
    pub(crate) fn to_v6_bytes(self) -> Option<[u8; 16]> {
        match self {
            Host::V4(bytes) => Some(Ipv4Addr::from(bytes).to_ipv6_mapped().octets()),
            Host::V6(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The host that `addrv2` names by network and bytes. `Err` when the length is wrong for the network; `Ok(None)`
    /// for networks unknown here, and for IPv6 bytes that wrap an address of another network.
    pub(crate) fn from_bip155(network: u8, bytes: &[u8]) -> Result<Option<Host>, WrongLength> {
        fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N], WrongLength> {
            bytes.try_into().map_err(|_| WrongLength)
        }
        const ONION_CAT: [u8; 6] = [0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43];
        Ok(match network {
            1 => Some(Host::V4(sized(bytes)?)),
            2 => {
                let bytes: [u8; 16] = sized(bytes)?;
                let wrapped = Ipv6Addr::from(bytes).to_ipv4_mapped().is_some() || bytes.starts_with(&ONION_CAT);
                (!wrapped).then_some(Host::V6(bytes))
            }
            4 => Some(Host::TorV3(sized(bytes)?)),
            5 => Some(Host::I2p(sized(bytes)?)),
            6 => Some(Host::Cjdns(sized(bytes)?)).filter(|host| host.bytes()[0] == 0xfc),
            _ => None,
        })
    }

    /// The host as a machine on the CJDNS mesh takes it: addresses in fc00::/8 are the mesh's. Core: `MaybeFlipIPv6toCJDNS`.
    pub(crate) fn on_cjdns(self, on_mesh: bool) -> Host {
        match self {
            Host::V6(bytes) if on_mesh && bytes[0] == 0xfc => Host::Cjdns(bytes),
            other => other,
        }
    }

    /// The bytes of the host as `addrv2` carries them.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Host::V4(bytes) => bytes,
            Host::V6(bytes) | Host::Cjdns(bytes) => bytes,
            Host::TorV3(bytes) | Host::I2p(bytes) => bytes,
        }
    }

    /// A host that stands for a name, as the source of addresses that the name gave: it has a group of its own and can
    /// never be dialled. Core: `CNetAddr::SetInternal`.
    pub fn internal(name: &str) -> Host {
        let digest = sha256::Hash::hash(name.as_bytes());
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&INTERNAL);
        bytes[6..].copy_from_slice(&digest.as_byte_array()[..10]);
        Host::V6(bytes)
    }

    /// The network it is part of.
    pub fn network(&self) -> Network {
        match self {
            Host::V4(_) => Network::Ipv4,
            Host::V6(_) => Network::Ipv6,
            Host::TorV3(_) => Network::Onion,
            Host::I2p(_) => Network::I2p,
            Host::Cjdns(_) => Network::Cjdns,
        }
    }

    /// The IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match *self {
            Host::V4(bytes) => Some(IpAddr::from(bytes)),
            Host::V6(bytes) | Host::Cjdns(bytes) => Some(IpAddr::from(bytes)),
            _ => None,
        }
    }

    /// This machine. Core: `CNetAddr::IsLocal`.
    pub(crate) fn is_local(&self) -> bool {
        match *self {
            Host::V4(bytes) => bytes[0] == 127 || bytes[0] == 0,
            Host::V6(bytes) => Ipv6Addr::from(bytes).is_loopback(),
            _ => false,
        }
    }

    /// Whether strangers can reach it. Core: `CNetAddr::IsRoutable`.
    pub fn is_routable(&self) -> bool {
        match *self {
            Host::V4(bytes) => {
                let ip = Ipv4Addr::from(bytes);
                let benchmark = bytes[0] == 198 && (bytes[1] & 0xfe) == 18;
                let carrier = bytes[0] == 100 && (bytes[1] & 0xc0) == 64;
                !(ip.is_private()
                    || ip.is_link_local()
                    || ip.is_documentation()
                    || ip.is_broadcast()
                    || benchmark
                    || carrier
                    || self.is_local())
            }
            Host::V6(bytes) => {
                let documentation = bytes.starts_with(&[0x20, 0x01, 0x0d, 0xb8]);
                let link_local = bytes.starts_with(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
                let unique_local = bytes[0] & 0xfe == 0xfc;
                let orchid = bytes.starts_with(&[0x20, 0x01, 0]) && matches!(bytes[3] & 0xf0, 0x10 | 0x20);
                let none = bytes == [0; 16];
                !(documentation || link_local || unique_local || orchid || none || self.is_local())
            }
            _ => true,
        }
    }

    /// An IPv6 address that is reached through another network (RFC 3964, 6052, 6145).
    pub(crate) fn is_tunnel(&self) -> bool {
        match self {
            Host::V6(bytes) => linked_v4(bytes).is_some() && !bytes.starts_with(&[0x20, 0x01, 0, 0]),
            _ => false,
        }
    }

    /// The group of addresses that likely belong to one operator: /16 of IPv4 (also inside 6to4 and its kind), /32 of
    /// IPv6 (/36 of Hurricane Electric), 4 bits of the others. All local addresses are one group, all unroutable ones
    /// another. Core: `NetGroupManager::GetGroup` without an AS map.
    pub fn group(&self) -> Vec<u8> {
        let network = self.network() as u8;
        if self.is_local() {
            return vec![255];
        }
        if self.bytes().starts_with(&INTERNAL) && network == Network::Ipv6 as u8 {
            return [&[254], self.bytes()].concat();
        }
        if !self.is_routable() {
            return vec![0];
        }
        match *self {
            Host::V4(bytes) => vec![network, bytes[0], bytes[1]],
            Host::V6(bytes) => match linked_v4(&bytes) {
                Some(v4) => vec![Network::Ipv4 as u8, v4[0], v4[1]],
                None if bytes.starts_with(&[0x20, 0x01, 0x04, 0x70]) => {
                    vec![network, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4] | 0x0f]
                }
                None => vec![network, bytes[0], bytes[1], bytes[2], bytes[3]],
            },
            // The first byte of a CJDNS address is always 0xfc.
            Host::Cjdns(bytes) => vec![network, bytes[0], bytes[1] | 0x0f],
            Host::TorV3(bytes) | Host::I2p(bytes) => vec![network, bytes[0] | 0x0f],
        }
    }
}

/// The IPv4 address that an IPv6 address carries by translation or tunnel (RFC 6052, 6145, 3964, 4380).
fn linked_v4(bytes: &[u8; 16]) -> Option<[u8; 4]> {
    let at = |from: usize| [bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]];
    let rfc6052 = bytes.starts_with(&[0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]);
    let rfc6145 = bytes.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0]);
    if rfc6052 || rfc6145 {
        Some(at(12))
    } else if bytes.starts_with(&[0x20, 0x02]) {
        Some(at(2))
    } else if bytes.starts_with(&[0x20, 0x01, 0, 0]) {
        Some(at(12).map(|byte| !byte))
    } else {
        None
    }
}

impl From<SocketAddr> for NetAddr {
    fn from(socket: SocketAddr) -> NetAddr {
        NetAddr { host: socket.ip().into(), port: socket.port() }
    }
}
