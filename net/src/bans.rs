//! Subnets, and the bans that an operator puts on them. Misbehaviour leads to no ban: see `guard.rs`. Core: `banman.cpp`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::addr::{Host, Network};

/// Addresses that begin alike: those of an IPv4 or IPv6 subnet, or a single one of another network. Core: `CSubNet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    /// The first address.
    host: Host,
    /// Bits that all addresses have in common.
    prefix: u8,
}

/// The text names no subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is neither an address nor a subnet")]
pub struct NoSubnet;

impl Subnet {
    /// The addresses whose first `prefix` bits are those of `host`. None when there are not as many bits, and for a part
    /// of an address whose network has no subnets.
    pub fn new(host: Host, prefix: u8) -> Option<Subnet> {
        let bits = bits(&host);
        let divides = matches!(host.network(), Network::Ipv4 | Network::Ipv6);
        if prefix > bits || (!divides && prefix < bits) {
            return None;
        }
        let masked = |bytes: &[u8], to: &mut [u8]| {
            for (at, byte) in bytes.iter().enumerate() {
                let left = usize::from(prefix).saturating_sub(at * 8).min(8);
                to[at] = byte & !(0xff_u16 >> left) as u8;
            }
        };
        let mut first = host;
        match (&host, &mut first) {
            (Host::V4(from), Host::V4(to)) => masked(from, to),
            (Host::V6(from), Host::V6(to)) => masked(from, to),
            _ => {}
        }
        Some(Subnet { host: first, prefix })
    }

    fn class(&self) -> (Network, u8) {
        (self.host.network(), self.prefix)
    }

    /// Whether the address is one of it.
    pub fn contains(&self, host: &Host) -> bool {
        host.network() == self.host.network() && Subnet::new(*host, self.prefix).is_some_and(|other| other == *self)
    }
}

impl From<Host> for Subnet {
    fn from(host: Host) -> Subnet {
        Subnet { host, prefix: bits(&host) }
    }
}

fn bits(host: &Host) -> u8 {
    // 256 bits only where there are no subnets.
    u8::try_from(host.bytes().len() * 8).unwrap_or(u8::MAX)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.network() {
            Network::Ipv4 | Network::Ipv6 => write!(f, "{}/{}", self.host, self.prefix),
            _ => write!(f, "{}", self.host),
        }
    }
}

impl FromStr for Subnet {
    type Err = NoSubnet;

    /// Reads `address`, `address/bits` or `address/netmask`. Core: `LookupSubNet`.
    fn from_str(text: &str) -> Result<Subnet, NoSubnet> {
        let Some((host, mask)) = text.split_once('/') else {
            return text.parse::<Host>().map(Subnet::from).map_err(|_| NoSubnet);
        };
        let host: Host = host.parse().map_err(|_| NoSubnet)?;
        if !mask.is_empty() && mask.bytes().all(|byte| byte.is_ascii_digit()) {
            return mask.parse().ok().and_then(|prefix| Subnet::new(host, prefix)).ok_or(NoSubnet);
        }
        let mask: Host = mask.parse().map_err(|_| NoSubnet)?;
        if mask.network() != host.network() {
            return Err(NoSubnet);
        }
        let ones = mask.bytes().iter().map(|byte| byte.count_ones()).sum::<u32>();
        // A netmask has its ones at the front.
        let front =
            mask.bytes().iter().map(|byte| byte.leading_ones()).try_fold((0, true), |(sum, open), ones| {
                (open || ones == 0).then_some((sum + ones, open && ones == 8))
            });
        match (front, u8::try_from(ones)) {
            (Some((front, _)), Ok(prefix)) if front == ones => Subnet::new(host, prefix).ok_or(NoSubnet),
            _ => Err(NoSubnet),
        }
    }
}

/// One ban. Times are in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// When it was put on.
    pub created: u64,
    /// When it ends.
    pub until: u64,
}

/// The bans that there are. To see whether one holds for an address takes no longer with many of them: that is asked for
/// every address that a peer tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bans {
    subnets: BTreeMap<Subnet, Ban>,
    /// How many of them have this many bits on this network.
    prefixes: BTreeMap<(Network, u8), usize>,
}

impl Bans {
    /// Puts a ban on; false when there is one that lasts as long. Core: `BanMan::Ban`.
    pub fn add(&mut self, subnet: Subnet, ban: Ban) -> bool {
        let longer = self.subnets.get(&subnet).is_none_or(|old| old.until < ban.until);
        if longer && self.subnets.insert(subnet, ban).is_none() {
            *self.prefixes.entry(subnet.class()).or_default() += 1;
        }
        longer
    }

    /// Takes the ban of exactly this subnet back; false when there is none.
    pub fn remove(&mut self, subnet: &Subnet) -> bool {
        let there = self.subnets.remove(subnet).is_some();
        if there && let Some(count) = self.prefixes.get_mut(&subnet.class()) {
            *count -= 1;
            self.prefixes.retain(|_, count| *count > 0);
        }
        there
    }

    /// Forgets the bans that are over; whether there were any. Core: `SweepBanned`.
    pub fn sweep(&mut self, now: u64) -> bool {
        let over: Vec<Subnet> =
            self.subnets.iter().filter(|(_, ban)| now > ban.until).map(|(subnet, _)| *subnet).collect();
        for subnet in &over {
            self.remove(subnet);
        }
        !over.is_empty()
    }

    /// Whether there is a ban on exactly this subnet.
    pub(crate) fn is_banned(&self, subnet: &Subnet, now: u64) -> bool {
        self.subnets.get(subnet).is_some_and(|ban| now < ban.until)
    }

    /// Whether a ban holds for this address.
    pub fn holds_for(&self, host: &Host, now: u64) -> bool {
        let network = host.network();
        let prefixes = self.prefixes.range((network, 0)..=(network, u8::MAX)).map(|((_, prefix), _)| *prefix);
        prefixes.filter_map(|prefix| Subnet::new(*host, prefix)).any(|subnet| self.is_banned(&subnet, now))
    }

    /// All bans, by subnet.
    pub fn iter(&self) -> impl Iterator<Item = (&Subnet, &Ban)> {
        self.subnets.iter()
    }

    /// Number of bans.
    pub fn len(&self) -> usize {
        self.subnets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.subnets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_read_and_shown_as_core_does() {
        for (text, shown) in [
            ("1.2.3.4", Some("1.2.3.4/32")),
            ("1.2.3.4/24", Some("1.2.3.0/24")),
            ("1.2.3.4/255.255.128.0", Some("1.2.0.0/17")),
            ("1.2.3.4/0", Some("0.0.0.0/0")),
            ("1.2.3.4/0.0.0.0", Some("0.0.0.0/0")),
            ("2001:db8::1", Some("2001:db8::1/128")),
            ("2001:db8:ffff::1/33", Some("2001:db8:8000::/33")),
            ("2001:db8::1/ffff:ffff::", Some("2001:db8::/32")),
            ("fc00:1::2", Some("fc00:1::2/128")),
            ("1.2.3.4/33", None),
            ("1.2.3.4/", None),
            ("1.2.3.4/-1", None),
            ("1.2.3.4/255.0.255.0", None),
            ("1.2.3.4/ffff::", None),
            ("2001:db8::/129", None),
            ("1.2.3", None),
            ("", None),
        ] {
            let read = text.parse::<Subnet>().ok().map(|subnet| subnet.to_string());
            assert_eq!(read.as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn a_subnet_contains_what_begins_as_it_does() {
        let key = |last| Host::TorV3([&[7; 31][..], &[last]].concat().try_into().expect("32 bytes"));
        let subnet = |text: &str| text.parse::<Subnet>().expect("a subnet");
        for (subnet, host, inside) in [
            (subnet("1.2.3.0/24"), Host::V4([1, 2, 3, 200]), true),
            (subnet("1.2.3.0/24"), Host::V4([1, 2, 4, 1]), false),
            (subnet("0.0.0.0/0"), Host::V4([9, 9, 9, 9]), true),
            (subnet("0.0.0.0/0"), Host::V6([9; 16]), false),
            (subnet("1.2.3.4"), Host::V4([1, 2, 3, 4]), true),
            (Subnet::from(key(1)), key(1), true),
            (Subnet::from(key(1)), key(2), false),
        ] {
            assert_eq!(subnet.contains(&host), inside, "{subnet} and {host}");
        }
        assert_eq!(Subnet::new(key(1), 200), None, "no part of an onion address is a subnet");
    }

    #[test]
    fn the_longer_ban_stays_and_what_is_over_goes() {
        let (subnet, mut bans) = (Subnet::from(Host::V4([1, 2, 3, 4])), Bans::default());
        assert!(bans.add(subnet, Ban { created: 10, until: 100 }));
        assert!(!bans.add(subnet, Ban { created: 20, until: 90 }));
        assert!(bans.add(subnet, Ban { created: 20, until: 200 }));
        assert!(bans.holds_for(&Host::V4([1, 2, 3, 4]), 199));
        assert!(!bans.holds_for(&Host::V4([1, 2, 3, 4]), 200));
        assert!(!bans.sweep(200) && bans.sweep(201));
        assert!(bans.is_empty() && !bans.remove(&subnet));
        assert_eq!(bans, Bans::default());
    }

    #[test]
    fn a_ban_holds_by_each_subnet_that_contains_the_address() {
        let mut bans = Bans::default();
        for text in ["1.2.0.0/16", "1.2.3.0/24", "2001:db8::/32", "9.9.9.9"] {
            bans.add(text.parse().expect("a subnet"), Ban { created: 0, until: 100 });
        }
        bans.remove(&"1.2.3.0/24".parse().expect("a subnet"));
        for (text, holds) in [
            ("1.2.3.4", true),
            ("1.3.3.4", false),
            ("9.9.9.9", true),
            ("9.9.9.8", false),
            ("2001:db8::5", true),
            ("2001:db9::5", false),
        ] {
            assert_eq!(bans.holds_for(&text.parse().expect("an address"), 50), holds, "{text}");
        }
    }
}
