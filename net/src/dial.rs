//! Whom to dial, for what, and when. Core: `ThreadOpenConnections`, `ThreadDNSAddressSeed`. Chooses from the peer book;
//! opens no socket.

use std::collections::BTreeSet;

use crate::addr::{NetAddr, Network};
use crate::slots::Slots;

/// What an operator chooses about links. The default dials nobody by itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// Dial whom the book names (`-connect` says no).
    pub automatic: bool,
    /// Links that there may be (`-maxconnections`).
    pub slots: Slots,
    /// Networks that can be dialled (`-onlynet`, proxies).
    pub reachable: BTreeSet<Network>,
    /// Names that stand for addresses of nodes (`-dnsseed`); none: ask nobody.
    pub dns_seeds: Vec<String>,
    /// Ask them all, whatever is known (`-forcednsseed`).
    pub force_dns_seeds: bool,
    /// Nodes to ask for addresses, each once (`-seednode`).
    pub seed_nodes: Vec<String>,
    /// Take the addresses that come with the program if there are no others (`-fixedseeds`).
    pub fixed_seeds: bool,
    /// Peers may dial us (`-listen`).
    pub listen: bool,
    /// The port at which they may.
    pub port: u16,
    /// Addresses at which they may (`-externalip`).
    pub external: Vec<NetAddr>,
    /// Learn from peers at which addresses they may (`-discover`).
    pub discover: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            automatic: false,
            slots: Slots::default(),
            reachable: BTreeSet::from([Network::Ipv4, Network::Ipv6]),
            dns_seeds: Vec::new(),
            force_dns_seeds: false,
            seed_nodes: Vec::new(),
            fixed_seeds: false,
            listen: false,
            port: 8333,
            external: Vec::new(),
            discover: false,
        }
    }
}
