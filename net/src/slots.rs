//! Slots: how many links of each kind there may be, who is let in, and which inbound peer goes for that. Every class of
//! peers that an attacker cannot easily imitate keeps some places. Core: `eviction.cpp`. Dials nobody itself.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::addr::Network;
use crate::guard::Guard;
use crate::handshake;
use crate::peer::{Peer, Peers};
use crate::protocol::{Cx, PeerId, Policy, Reason};
use crate::timers::{EVICTION_INTERVAL, EVICTION_LOOK_INTERVAL, Micros};
use crate::view::View;

/// Inbound peers, with more of which one that has to go is looked for at most once in [`EVICTION_LOOK_INTERVAL`].
const MANY: usize = 1000;

/// Links that there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// All, but for manual ones (`-maxconnections`). Core: `DEFAULT_MAX_PEER_CONNECTIONS`.
    pub total: usize,
    /// Dialled, with all there is. Core: `MAX_OUTBOUND_FULL_RELAY_CONNECTIONS`.
    pub outbound_full: usize,
    /// Dialled, blocks only. Core: `MAX_BLOCK_RELAY_ONLY_CONNECTIONS`.
    pub block_relay: usize,
    /// Dialled to see whether somebody answers. Core: `MAX_FEELER_CONNECTIONS`.
    pub feelers: usize,
    /// On the operator's word, apart from the total. Core: `MAX_ADDNODE_CONNECTIONS`.
    pub manual: usize,
}

impl Default for Slots {
    fn default() -> Slots {
        Slots::with_total(125)
    }
}

impl Slots {
    /// The slots of a node with so many in all: dialled ones come first.
    pub fn with_total(total: usize) -> Slots {
        let outbound_full = total.min(8);
        let block_relay = (total - outbound_full).min(2);
        let feelers = (total - outbound_full - block_relay).min(1);
        Slots { total, outbound_full, block_relay, feelers, manual: 8 }
    }

    /// Those for peers that dial us.
    pub fn inbound(&self) -> usize {
        self.total - self.outbound_full - self.block_relay - self.feelers
    }
}

/// What counts when an inbound peer has to go.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The peer.
    pub id: PeerId,
    /// Since when it is linked.
    pub since: Micros,
    /// Its shortest round trip; none: never measured.
    pub shortest_ping: Option<Duration>,
    /// When it last gave us a block that we did not have.
    pub last_block: Option<Micros>,
    /// When it last gave us a transaction that the pool took.
    pub last_tx: Option<Micros>,
    /// It offers what an outbound peer must.
    pub has_services: bool,
    /// Transactions pass.
    pub relays_transactions: bool,
    /// A hash of its group of addresses, keyed by a secret.
    pub keyed_group: u64,
    /// It misbehaved before it came back.
    pub discouraged: bool,
    /// The network that it came over.
    pub network: Network,
    /// It came from this machine.
    pub is_local: bool,
    /// The operator protects it.
    pub no_ban: bool,
}

/// Whether a peer that dialled us may stay; one of the others may have to go for it. Core: `CreateNodeFromAcceptedSocket`.
pub(crate) fn admit(peers: &mut Peers, id: PeerId, guard: &Guard, view: &impl View, cx: &mut Cx<'_>) -> bool {
    let most = cx.core.config.dialling.slots.inbound();
    let others =
        peers.values().filter(|peer| peer.kind.is_inbound() && peer.closing.is_none() && peer.id != id).count();
    let Some(peer) = peers.get_mut(&id) else { return false };
    let refusal = if peer.permissions.no_ban {
        None
    } else if guard.bans.holds_for(&peer.addr.host, cx.now.seconds()) {
        Some(Reason::Banned)
    } else {
        (guard.is_discouraged(&peer.addr.host) && others + 1 >= most).then_some(Reason::Discouraged)
    };
    if let Some(reason) = refusal {
        cx.disconnect(peer, reason);
        return false;
    }
    if others < most {
        return true;
    }
    let pause = match cx.core.config.relay {
        Policy::Groat => EVICTION_INTERVAL,
        // To look through thousands takes a millisecond, and thousands may come in a second.
        Policy::Core if others > MANY => EVICTION_LOOK_INTERVAL,
        Policy::Core => Duration::ZERO,
    };
    if cx.core.evicted.is_some_and(|last| cx.now.since(last) < pause) {
        cx.disconnect(peer, Reason::NoSlot);
        return false;
    }
    let in_question = |peer: &&Peer| peer.kind.is_inbound() && peer.closing.is_none() && peer.id != id;
    let candidates = peers.values().filter(in_question).map(|peer| candidate(peer, guard, view, cx)).collect();
    let (gone, reason) = select_to_evict(candidates).map_or((id, Reason::NoSlot), |gone| (gone, Reason::Evicted));
    if let Some(peer) = peers.get_mut(&gone) {
        cx.disconnect(peer, reason);
    }
    cx.core.evicted = Some(cx.now);
    gone != id
}

fn candidate(peer: &Peer, guard: &Guard, view: &impl View, cx: &Cx<'_>) -> Candidate {
    Candidate {
        id: peer.id,
        since: peer.since,
        shortest_ping: peer.round_trips().1,
        last_block: peer.last_block,
        last_tx: peer.relay.last_transaction,
        has_services: handshake::offers_what_we_want(peer.services(), view, cx),
        relays_transactions: peer.their.as_ref().is_some_and(|their| their.relay) && peer.kind.relays_transactions(),
        keyed_group: peer.keyed_group,
        discouraged: guard.is_discouraged(&peer.addr.host),
        network: peer.network,
        is_local: peer.addr.host.is_local() && peer.network != Network::Onion,
        no_ban: peer.permissions.no_ban,
    }
}

/// Takes the first `count` by `order` out of the candidates, of those that `may` be protected.
fn protect<K: Ord>(
    candidates: &mut Vec<Candidate>,
    count: usize,
    may: impl Fn(&Candidate) -> bool,
    order: impl Fn(&Candidate) -> K,
) {
    let mut best: Vec<(K, PeerId)> = candidates.iter().filter(|one| may(one)).map(|one| (order(one), one.id)).collect();
    if count < best.len() {
        best.select_nth_unstable(count);
        best.truncate(count);
    }
    let mut protected: Vec<PeerId> = best.into_iter().map(|(_, id)| id).collect();
    protected.sort_unstable();
    candidates.retain(|one| protected.binary_search(&one.id).is_err());
}

/// The inbound peer that goes, if any is not protected. Core: `SelectNodeToEvict`.
pub(crate) fn select_to_evict(mut candidates: Vec<Candidate>) -> Option<PeerId> {
    let all = |_: &Candidate| true;
    candidates.retain(|one| !one.no_ban);
    // Nobody knows which groups the key prefers.
    protect(&mut candidates, 4, all, |one| Reverse(one.keyed_group));
    // Nearness cannot be faked.
    protect(&mut candidates, 8, all, |one| one.shortest_ping.unwrap_or(Duration::MAX));
    // New transactions and blocks are work.
    protect(&mut candidates, 4, all, |one| Reverse((one.last_tx, one.relays_transactions, Reverse(one.since))));
    let blocks_only = |one: &Candidate| !one.relays_transactions && one.has_services;
    protect(&mut candidates, 8, blocks_only, |one| Reverse((one.last_block, Reverse(one.since))));
    protect(&mut candidates, 4, all, |one| Reverse((one.last_block, one.has_services, Reverse(one.since))));
    protect_by_age(&mut candidates);
    // Those who misbehaved go before all others.
    if candidates.iter().any(|one| one.discouraged) {
        candidates.retain(|one| one.discouraged);
    }
    // The youngest of the group that has most; of equal groups, the one with the youngest peer.
    let mut groups: BTreeMap<u64, (usize, Micros)> = BTreeMap::new();
    for one in &candidates {
        let group = groups.entry(one.keyed_group).or_default();
        *group = (group.0 + 1, group.1.max(one.since));
    }
    let (largest, _) = groups.iter().max_by_key(|(_, group)| **group)?;
    let youngest = candidates.iter().filter(|one| one.keyed_group == *largest).max_by_key(|one| (one.since, one.id))?;
    Some(youngest.id)
}

/// Half of the rest stays by age; up to half of that half is for networks that few come over, the rarest first.
/// Core: `ProtectEvictionCandidatesByRatio`.
fn protect_by_age(candidates: &mut Vec<Candidate>) {
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Class {
        Cjdns,
        I2p,
        Local,
        Onion,
    }
    let class = |one: &Candidate| match one.network {
        _ if one.is_local => Some(Class::Local),
        Network::Cjdns => Some(Class::Cjdns),
        Network::I2p => Some(Class::I2p),
        Network::Onion => Some(Class::Onion),
        Network::Ipv4 | Network::Ipv6 => None,
    };
    let total = candidates.len() / 2;
    let reserved = total / 2;
    let mut counts: BTreeMap<Class, usize> = BTreeMap::new();
    candidates.iter().filter_map(class).for_each(|class| *counts.entry(class).or_default() += 1);
    let mut order: Vec<(usize, Class)> = counts.iter().map(|(class, count)| (*count, *class)).collect();
    order.sort_unstable();
    let start = candidates.len();
    // Places that a rare class does not fill go to the others.
    while start - candidates.len() < reserved && !order.is_empty() {
        let left = reserved - (start - candidates.len());
        let each = (left / order.len()).max(1);
        let before = candidates.len();
        for (count, one_class) in &mut order {
            let free = reserved - (start - candidates.len());
            let had = candidates.len();
            protect(candidates, each.min(free), |one| class(one) == Some(*one_class), |one| one.since);
            *count -= had - candidates.len();
        }
        order.retain(|(count, _)| *count > 0);
        if candidates.len() == before {
            break;
        }
    }
    let left = total - (start - candidates.len());
    protect(candidates, left, |_| true, |one| one.since);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Peers that differ in nothing but their age; the last is the youngest.
    fn crowd(count: u64) -> Vec<Candidate> {
        (0..count)
            .map(|n| Candidate {
                id: PeerId(n),
                since: Micros::from_seconds(1000 + n),
                shortest_ping: Some(Duration::from_millis(500)),
                last_block: None,
                last_tx: None,
                has_services: false,
                relays_transactions: true,
                keyed_group: n % 10,
                discouraged: false,
                network: Network::Ipv4,
                is_local: false,
                no_ban: false,
            })
            .collect()
    }

    /// Evicts until nobody can be, as a flood of newcomers would.
    fn survivors(mut candidates: Vec<Candidate>) -> Vec<u64> {
        while let Some(gone) = select_to_evict(candidates.clone()) {
            candidates.retain(|one| one.id != gone);
        }
        candidates.iter().map(|one| one.id.0).collect()
    }

    #[test]
    fn slots_go_to_dialled_links_first() {
        assert_eq!(Slots::default().inbound(), 114);
        for total in 0..200 {
            let slots = Slots::with_total(total);
            assert_eq!(slots.outbound_full + slots.block_relay + slots.feelers + slots.inbound(), total);
        }
        assert_eq!(Slots::with_total(9).block_relay, 1);
    }

    #[test]
    fn the_youngest_of_the_largest_group_goes() {
        let mut crowd = crowd(100);
        for one in &mut crowd[60..] {
            one.keyed_group = 0;
        }
        assert_eq!(select_to_evict(crowd), Some(PeerId(99)));
    }

    #[test]
    fn a_few_peers_are_all_protected() {
        assert_eq!(select_to_evict(crowd(20)), None);
        assert_eq!(select_to_evict(Vec::new()), None);
        let mut protected = crowd(100);
        protected.iter_mut().for_each(|one| one.no_ban = true);
        assert_eq!(select_to_evict(protected), None);
    }

    #[test]
    fn each_class_that_is_hard_to_imitate_keeps_places() {
        type Change = fn(&mut Candidate);
        let classes: [(&str, usize, Change); 5] = [
            ("group", 4, |one| one.keyed_group = 1000 + one.id.0),
            ("ping", 8, |one| one.shortest_ping = Some(Duration::from_millis(1))),
            ("transaction", 4, |one| one.last_tx = Some(Micros(5))),
            ("block", 4, |one| one.last_block = Some(Micros(5))),
            ("block only", 8, |one| {
                (one.relays_transactions, one.has_services, one.last_block) = (false, true, Some(Micros(5)));
            }),
        ];
        for (name, count, change) in classes {
            let mut crowd = crowd(200);
            // The youngest, which would go first.
            let chosen = 200 - count..200;
            crowd[chosen.clone()].iter_mut().for_each(change);
            let kept = survivors(crowd);
            assert!(chosen.clone().all(|n| kept.contains(&(n as u64))), "{name}: of {chosen:?} {kept:?} are left");
        }
    }

    #[test]
    fn rare_networks_keep_a_quarter_and_the_old_another() {
        let mut crowd = crowd(128);
        for one in &mut crowd[110..120] {
            one.network = Network::Onion;
        }
        crowd[119].is_local = true;
        // Newcomers come one by one, each from a group of its own, and so for another's place.
        for n in 128..1000 {
            let newest = Candidate { id: PeerId(n), since: Micros::from_seconds(1000 + n), ..crowd[0].clone() };
            crowd.push(Candidate { keyed_group: n, ..newest });
            let gone = select_to_evict(crowd.clone()).expect("a crowd has somebody to lose");
            crowd.retain(|one| one.id != gone);
        }
        let kept: Vec<u64> = crowd.iter().map(|one| one.id.0).collect();
        assert!((110..120).all(|n| kept.contains(&n)), "rare ones stay though they were young: {kept:?}");
        assert!((0..40).all(|n| kept.contains(&n)), "the oldest stay: {kept:?}");
        assert!(!(40..110).all(|n| kept.contains(&n)), "somebody went: {kept:?}");
    }

    #[test]
    fn who_misbehaved_goes_before_others() {
        let mut crowd = crowd(100);
        crowd[70].discouraged = true;
        assert_eq!(select_to_evict(crowd), Some(PeerId(70)));
    }
}
