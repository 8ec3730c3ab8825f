//! Our own addresses: those that the operator or this machine named, how sure each is, and which of them a peer is told.
//! Core: `mapLocalHost`, `GetLocalAddrForPeer`. Sends nothing.

use std::collections::BTreeMap;

use rand::Rng;

use crate::addr::{Host, NetAddr, Network};
use crate::peer::Peer;
use crate::protocol::LinkOptions;

/// How an address of ours is known; the surer the greater. Core: `LOCAL_IF` and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// An interface of this machine has it.
    Interface = 1,
    /// We listen at it.
    Bound = 2,
    /// A router gave it to us.
    Mapped = 3,
    /// The operator said so, or an onion service was made for it.
    Given = 4,
}

/// An address of ours, for `getnetworkinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// The address.
    pub addr: NetAddr,
    /// How sure it is: one more for each peer that saw us there.
    pub score: u32,
}

/// Our addresses.
#[derive(Debug, Default)]
pub(crate) struct Local {
    hosts: BTreeMap<Host, (u16, u32)>,
}

impl Local {
    /// An address is ours. Core: `AddLocal`.
    pub(crate) fn add(&mut self, addr: NetAddr, how: How, options: &LinkOptions, cap: usize) {
        let wanted = addr.host.is_routable() && (options.discover || how == How::Given);
        let full = self.hosts.len() >= cap && !self.hosts.contains_key(&addr.host);
        if !wanted || full {
            return;
        }
        let score = how as u32;
        match self.hosts.get_mut(&addr.host) {
            Some(known) if score >= known.1 => *known = (addr.port, score + 1),
            Some(_) => {}
            None => {
                self.hosts.insert(addr.host, (addr.port, score));
            }
        }
    }

    /// An address is ours no more. Core: `RemoveLocal`.
    pub(crate) fn remove(&mut self, host: &Host) {
        self.hosts.remove(host);
    }

    /// Who dialled us did so at this address. Core: `SeenLocal`.
    pub(crate) fn seen(&mut self, host: &Host) {
        self.hosts.get_mut(host).into_iter().for_each(|known| known.1 = known.1.saturating_add(1));
    }

    /// Whether it is ours.
    pub(crate) fn contains(&self, host: &Host) -> bool {
        self.hosts.contains_key(host)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Own> {
        self.hosts.iter().map(|(host, (port, score))| Own { addr: NetAddr { host: *host, port: *port }, score: *score })
    }

    /// The address that this peer is told of. Sometimes that is how it sees us: it may know better than we do.
    /// Core: `GetLocalAddrForPeer`.
    pub(crate) fn for_peer(&self, peer: &Peer, options: &LinkOptions, rng: &mut impl Rng) -> Option<NetAddr> {
        let best = self.best_for(peer);
        let seen = peer.their.as_ref().map(|their| their.sees_us_as).filter(|seen| {
            let reachable = options.reachable.contains(&seen.host.network());
            options.discover && peer.addr.host.is_routable() && seen.host.is_routable() && reachable
        });
        let Some(seen) = seen else { return best.map(|own| own.addr) };
        let often = best.is_none_or(|own| {
            let one_in = if own.score > How::Given as u32 { 8 } else { 2 };
            rng.random_range(0..one_in) == 0
        });
        match best {
            Some(own) if !often => Some(own.addr),
            // It cannot see at which port we listen if we were the one who dialled.
            _ if peer.kind.is_inbound() => Some(seen),
            _ => Some(NetAddr { port: best.map_or(options.port, |own| own.addr.port), ..seen }),
        }
    }

    /// The address that the peer can reach best; of equals the surest. Nothing about us leaks from an anonymous network
    /// into another one or back. Core: `GetLocal`.
    fn best_for(&self, peer: &Peer) -> Option<Own> {
        let hides = |network: Network| matches!(network, Network::Onion | Network::I2p);
        let fits = |own: &Own| {
            let network = own.addr.host.network();
            network == peer.network || !(hides(network) || hides(peer.network))
        };
        // Of equals the first, as Core has it.
        let better = |best: Option<(u8, Own)>, own: Own| {
            let reach = reachability(&own.addr.host, &peer.addr.host);
            let stays = best.filter(|(other, kept)| (reach, own.score) <= (*other, kept.score));
            Some(stays.unwrap_or((reach, own)))
        };
        self.iter().filter(fits).fold(None, better).map(|(_, own)| own)
    }
}

/// How well `from` reaches `host`; more is better. Core: `GetReachabilityFrom`.
fn reachability(host: &Host, from: &Host) -> u8 {
    const TEREDO: [u8; 4] = [0x20, 0x01, 0, 0];
    const DEFAULT: u8 = 1;
    const BY_TEREDO: u8 = 2;
    const IPV6_WEAK: u8 = 3;
    const IPV4: u8 = 4;
    const IPV6_STRONG: u8 = 5;
    const PRIVATE: u8 = 6;
    let teredo = |host: &Host| host.network() == Network::Ipv6 && host.bytes().starts_with(&TEREDO);
    let ours = host.network();
    if !from.is_routable() {
        return match ours {
            _ if teredo(host) => BY_TEREDO,
            Network::Ipv6 => IPV6_WEAK,
            Network::Ipv4 => IPV4,
            Network::Onion => PRIVATE,
            _ => DEFAULT,
        };
    }
    match (from.network(), ours) {
        (Network::Ipv4, Network::Ipv4) | (Network::Ipv6, Network::Ipv4) | (Network::Onion, Network::Ipv4) => IPV4,
        (Network::Ipv6, Network::Ipv6) if teredo(host) => BY_TEREDO,
        (Network::Ipv6, Network::Ipv6) if teredo(from) || host.is_tunnel() => IPV6_WEAK,
        (Network::Ipv6, Network::Ipv6) => IPV6_STRONG,
        (Network::Onion, Network::Onion) | (Network::I2p, Network::I2p) | (Network::Cjdns, Network::Cjdns) => PRIVATE,
        _ => DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{LinkKind, Permissions, Their};
    use crate::protocol::PeerId;
    use crate::timers::Micros;
    use rand::SeedableRng;

    const V4: Host = Host::V4([50, 1, 1, 1]);
    const V6: Host = Host::V6([0x2a, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    const ONION: Host = Host::TorV3([7; 32]);

    fn options(discover: bool) -> LinkOptions {
        LinkOptions { discover, port: 8444, ..LinkOptions::default() }
    }

    fn peer(kind: LinkKind, host: Host, sees_us_as: Host) -> Peer {
        let addr = NetAddr { host, port: 1 };
        let mut peer =
            Peer::new(PeerId(1), addr, kind, Permissions::default(), (host.network(), None), 0, Micros::default());
        peer.their = Some(Their {
            common_version: 70016,
            version: 70016,
            services: 0,
            user_agent: String::new(),
            start_height: 0,
            relay: true,
            time_offset: 0,
            sees_us_as: NetAddr { host: sees_us_as, port: 9 },
        });
        peer
    }

    #[test]
    fn a_peer_is_told_what_it_can_reach_and_onions_stay_apart() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut local = Local::default();
        for host in [V4, V6, ONION] {
            local.add(NetAddr { host, port: 8333 }, How::Given, &options(false), 8);
        }
        for (from, told) in [
            (Host::V4([60, 1, 1, 1]), V4),
            (Host::V6([0x2b; 16]), V6),
            (Host::TorV3([9; 32]), ONION),
            (Host::V4([10, 0, 0, 1]), V4),
        ] {
            let peer = peer(LinkKind::OutboundFull, from, V4);
            let got = local.for_peer(&peer, &options(false), &mut rng).map(|addr| addr.host);
            assert_eq!(got, Some(told), "for {from}");
        }
    }

    #[test]
    fn how_a_peer_sees_us_is_told_to_it_if_we_know_nothing_better() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let (local, seen, far) = (Local::default(), Host::V4([50, 2, 2, 2]), Host::V4([60, 1, 1, 1]));
        let mut told = |kind, discover| {
            let told = local.for_peer(&peer(kind, far, seen), &options(discover), &mut rng);
            told.map(|addr| (addr.host, addr.port))
        };
        assert_eq!(told(LinkKind::OutboundFull, true), Some((seen, 8444)), "with the port that we listen at");
        assert_eq!(told(LinkKind::Inbound, true), Some((seen, 9)), "with the port that it dialled");
        assert_eq!(told(LinkKind::Inbound, false), None);
    }

    #[test]
    fn an_address_at_which_peers_see_us_becomes_surer() {
        let mut local = Local::default();
        let addr = |last| NetAddr { host: Host::V4([50, 1, 1, last]), port: 8333 };
        local.add(addr(1), How::Interface, &options(true), 2);
        local.add(addr(2), How::Interface, &options(true), 2);
        local.add(addr(3), How::Interface, &options(true), 2);
        assert!(!local.contains(&addr(3).host), "two are as many as may be");
        local.add(NetAddr { host: Host::V4([10, 0, 0, 1]), port: 1 }, How::Given, &options(true), 9);
        local.seen(&addr(2).host);
        let scores: Vec<u32> = local.iter().map(|own| own.score).collect();
        assert_eq!(scores, [1, 2]);
        let peer = peer(LinkKind::OutboundFull, Host::V4([60, 1, 1, 1]), Host::V4([10, 0, 0, 1]));
        assert_eq!(local.best_for(&peer).map(|own| own.addr), Some(addr(2)));
    }
}
