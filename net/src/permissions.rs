//! What an operator lets some peers do, and how that is written on the command line. Core: `net_permissions.cpp`. Each
//! permission is used by the module that it is about.

use std::net::SocketAddr;
use std::ops::BitOr;

use crate::addr::{Host, NetAddr, host_and_port};
use crate::bans::Subnet;

/// What a peer may do that others may not (`-whitelist`, `-whitebind`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// May ask for filtered blocks (BIP37) though they are not offered.
    pub bloom_filter: bool,
    /// Never discouraged or disconnected for misbehaviour. Comes with `download`.
    pub no_ban: bool,
    /// Its transactions are announced again though they are in the pool already. Comes with `relay`.
    pub force_relay: bool,
    /// May send transactions even when we want none, and announce any number of them.
    pub relay: bool,
    /// May ask for all of the pool (BIP35).
    pub mempool: bool,
    /// Served with headers before we are synced, and with blocks beyond the upload target.
    pub download: bool,
    /// May ask for fresh addresses and send any number of them.
    pub addr: bool,
}

impl Permissions {
    /// None.
    pub const NONE: Permissions = Permissions {
        bloom_filter: false,
        no_ban: false,
        force_relay: false,
        relay: false,
        mempool: false,
        download: false,
        addr: false,
    };

    /// Those of a name. Core: `TryParsePermissionFlags`.
    fn by_name(name: &str) -> Option<Permissions> {
        Some(match name {
            "bloomfilter" | "bloom" => Permissions { bloom_filter: true, ..Permissions::NONE },
            "noban" => Permissions { no_ban: true, download: true, ..Permissions::NONE },
            "forcerelay" => Permissions { force_relay: true, relay: true, ..Permissions::NONE },
            "relay" => Permissions { relay: true, ..Permissions::NONE },
            "mempool" => Permissions { mempool: true, ..Permissions::NONE },
            "download" => Permissions { download: true, ..Permissions::NONE },
            "addr" => Permissions { addr: true, ..Permissions::NONE },
            "all" => Permissions {
                bloom_filter: true,
                no_ban: true,
                force_relay: true,
                relay: true,
                mempool: true,
                download: true,
                addr: true,
            },
            _ => return None,
        })
    }

    /// Those of who is named without any. Core: `NetPermissionFlags::Implicit`.
    ///
    /// `relay`: `-whitelistrelay`; `force_relay`: `-whitelistforcerelay`.
    pub fn implicit(relay: bool, force_relay: bool) -> Permissions {
        let relay = relay || force_relay;
        Permissions { no_ban: true, download: true, mempool: true, relay, force_relay, ..Permissions::NONE }
    }

    /// Their names, in Core's order. Core: `NetPermissions::ToStrings`.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.bloom_filter, "bloomfilter"),
            (self.no_ban, "noban"),
            (self.force_relay, "forcerelay"),
            (self.relay, "relay"),
            (self.mempool, "mempool"),
            (self.download, "download"),
            (self.addr, "addr"),
        ];
        all.into_iter().filter_map(|(has, name)| has.then_some(name)).collect()
    }
}

impl BitOr for Permissions {
    type Output = Permissions;

    fn bitor(self, other: Permissions) -> Permissions {
        Permissions {
            bloom_filter: self.bloom_filter || other.bloom_filter,
            no_ban: self.no_ban || other.no_ban,
            force_relay: self.force_relay || other.force_relay,
            relay: self.relay || other.relay,
            mempool: self.mempool || other.mempool,
            download: self.download || other.download,
            addr: self.addr || other.addr,
        }
    }
}

/// What the operator said of permissions makes no sense; the text is Core's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PermissionsError(String);

/// Permissions for the peers at some addresses. Core: `NetWhitelistPermissions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The addresses.
    pub subnet: Subnet,
    /// What their peers may do.
    pub permissions: Permissions,
    /// Those who dial us have them.
    pub inbound: bool,
    /// Those whom we dial on the operator's word have them.
    pub outbound: bool,
}

/// What stands before the `@`.
struct Words<'a> {
    permissions: Permissions,
    inbound: bool,
    outbound: bool,
    rest: &'a str,
}

/// Reads `permissions@rest`; without `@` the permissions are `implicit`.
fn words(text: &str, implicit: Permissions) -> Result<Words<'_>, PermissionsError> {
    let Some((names, rest)) = text.split_once('@') else {
        return Ok(Words { permissions: implicit, inbound: true, outbound: false, rest: text });
    };
    let mut words = Words { permissions: Permissions::NONE, inbound: false, outbound: false, rest };
    for name in names.split(',').filter(|name| !name.is_empty()) {
        match (name, Permissions::by_name(name)) {
            ("in", _) => words.inbound = true,
            ("out", _) => words.outbound = true,
            (_, Some(more)) => words.permissions = words.permissions | more,
            (_, None) => return Err(PermissionsError(format!("Invalid P2P permission: '{name}'"))),
        }
    }
    if !words.inbound && !words.outbound {
        words.inbound = true;
    } else if words.permissions == Permissions::NONE {
        return Err(PermissionsError(format!("Only direction was set, no permissions: '{text}'")));
    }
    Ok(words)
}

impl Grant {
    /// Reads the value of `-whitelist`. Core: `NetWhitelistPermissions::TryParse`.
    pub fn parse(text: &str, implicit: Permissions) -> Result<Grant, PermissionsError> {
        let Words { permissions, inbound, outbound, rest } = words(text, implicit)?;
        let wrong = || PermissionsError(format!("Invalid netmask specified in -whitelist: '{rest}'"));
        let subnet = rest.parse().map_err(|_| wrong())?;
        Ok(Grant { subnet, permissions, inbound, outbound })
    }

    /// What the grants give to a peer at this address.
    pub fn sum(grants: &[Grant], host: &Host, inbound: bool) -> Permissions {
        let to_it =
            |grant: &&Grant| (if inbound { grant.inbound } else { grant.outbound }) && grant.subnet.contains(host);
        grants.iter().filter(to_it).fold(Permissions::NONE, |sum, grant| sum | grant.permissions)
    }
}

/// Reads the value of `-whitebind`: where to listen, and what those who come in there may do.
/// Core: `NetWhitebindPermissions::TryParse`.
pub fn parse_whitebind(text: &str, implicit: Permissions) -> Result<(SocketAddr, Permissions), PermissionsError> {
    let out = text.split_once('@').is_some_and(|(names, _)| names.split(',').any(|name| name == "out"));
    if out {
        let text = "whitebind may only be used for incoming connections (\"out\" was passed)";
        return Err(PermissionsError(text.into()));
    }
    let Words { permissions, rest, .. } = words(text, implicit)?;
    let addr = NetAddr::parse(rest, 0).ok().and_then(|addr| Some(SocketAddr::new(addr.host.ip()?, addr.port)));
    match addr {
        None => Err(PermissionsError(format!("Cannot resolve -whitebind address: '{rest}'"))),
        Some(_) if host_and_port(rest).1.is_none_or(|port| port == 0) => {
            Err(PermissionsError(format!("Need to specify a port with -whitebind: '{rest}'")))
        }
        Some(addr) => Ok((addr, permissions)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMPLICIT: Permissions = Permissions { relay: true, ..Permissions::NONE };

    #[test]
    fn grants_are_read_as_core_reads_them() {
        for (text, names, inbound, outbound) in [
            ("1.2.3.4", vec!["relay"], true, false),
            ("noban@1.2.3.4", vec!["noban", "download"], true, false),
            ("forcerelay,addr@1.2.3.4/8", vec!["forcerelay", "relay", "addr"], true, false),
            ("bloom,,mempool@1.2.3.4", vec!["bloomfilter", "mempool"], true, false),
            ("in,out,noban@::1", vec!["noban", "download"], true, true),
            ("out,download@::1", vec!["download"], false, true),
            ("@1.2.3.4", vec![], true, false),
            (
                "all@1.2.3.4",
                vec!["bloomfilter", "noban", "forcerelay", "relay", "mempool", "download", "addr"],
                true,
                false,
            ),
        ] {
            let grant = Grant::parse(text, IMPLICIT).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (grant.permissions.names(), grant.inbound, grant.outbound),
                (names, inbound, outbound),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_are_cores() {
        for (text, error) in [
            ("oopsie@1.2.3.4", "Invalid P2P permission: 'oopsie'"),
            ("in@1.2.3.4", "Only direction was set, no permissions: 'in@1.2.3.4'"),
            ("noban@230.0.0.0/1000", "Invalid netmask specified in -whitelist: '230.0.0.0/1000'"),
            ("", "Invalid netmask specified in -whitelist: ''"),
        ] {
            let found = Grant::parse(text, IMPLICIT).map_err(|error| error.to_string());
            assert_eq!(found, Err(error.into()), "{text}");
        }
        for (text, error) in [
            ("oopsie@1.2.3.4:1", "Invalid P2P permission: 'oopsie'"),
            ("noban@1.2.3.4", "Need to specify a port with -whitebind: '1.2.3.4'"),
            ("noban,relay", "Cannot resolve -whitebind address: 'noban,relay'"),
            ("out,noban@1.2.3.4:1", "whitebind may only be used for incoming connections (\"out\" was passed)"),
            ("in@1.2.3.4:1", "Only direction was set, no permissions: 'in@1.2.3.4:1'"),
        ] {
            let found = parse_whitebind(text, IMPLICIT).map_err(|error| error.to_string());
            assert_eq!(found, Err(error.into()), "{text}");
        }
    }

    #[test]
    fn a_peer_has_what_all_grants_for_its_direction_give() {
        let grants =
            ["addr@10.0.0.0/8", "out,noban@10.1.0.0/16"].map(|text| Grant::parse(text, IMPLICIT).expect("it is right"));
        let host: Host = "10.1.1.1".parse().expect("an address");
        assert_eq!(Grant::sum(&grants, &host, true).names(), ["addr"]);
        assert_eq!(Grant::sum(&grants, &host, false).names(), ["noban", "download"]);
        assert_eq!(Grant::sum(&grants, &Host::V4([11, 0, 0, 1]), true), Permissions::NONE);
        assert_eq!(Permissions::implicit(false, true).names(), ["noban", "forcerelay", "relay", "mempool", "download"]);
    }
}
