//! What an operator chooses of the protocol. Does nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use groat_chain::params::Params;

use crate::addr::{NetAddr, Network};
use crate::limits::Limits;
use crate::slots::Slots;

/// What an operator chooses, and the seed of all that is random.
#[derive(Clone, Debug)]
pub struct Config {
    /// The network.
    pub params: Arc<Params>,
    /// Service bits that we offer.
    pub services: u64,
    /// How we call ourselves ([BIP-0014]).
    ///
    /// [BIP-0014]: https://github.com/bitcoin/bips/blob/master/bip-0014.mediawiki
    pub user_agent: String,
    /// No transactions, but from peers that have the permission (`-blocksonly`).
    pub blocks_only: bool,
    /// Whom to dial and what to tell of ourselves.
    pub dialling: LinkOptions,
    /// A handshake must end within this, and no peer is lost for its silence before (`-peertimeout`).
    pub peer_timeout: Duration,
    /// How transactions and blocks are asked for (`--relay`).
    pub relay: Policy,
    /// Offer to reconcile transactions (BIP330, `-txreconciliation`).
    pub reconcile: bool,
    /// Bytes to send in a day, above which old blocks are not served; 0 for no bound (`-maxuploadtarget`).
    pub upload_target: u64,
    /// The sizes.
    pub limits: Limits,
    /// The same seed and the same inputs give the same outputs.
    pub seed: [u8; 32],
}

/// How transactions and blocks are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// With Core's timers.
    #[default]
    Core,
    /// The next peer is asked soon, while the first may still answer; compact blocks carry what peers are likely to lack.
    Groat,
}

/// What an operator chooses about links. The default dials nobody by itself.
#[derive(Clone, Debug)]
pub struct LinkOptions {
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

impl Default for LinkOptions {
    fn default() -> LinkOptions {
        LinkOptions {
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
