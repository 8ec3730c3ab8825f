//! Whom to dial, for what, and when. Core: `ThreadOpenConnections`, `ThreadDNSAddressSeed`. Chooses from the peer book;
//! opens no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::addr::{NetAddr, Network};
use crate::addrman::Book;
use crate::guard::Guard;
use crate::handshake;
use crate::local::Local;
use crate::message::AddrEntry;
use crate::peer::{LinkKind, NODE_NETWORK, NODE_NETWORK_LIMITED, NODE_P2P_V2, Peers};
use crate::protocol::{Cx, LinkOptions, Output};
use crate::seeds::{self, Seeds, Step};
use crate::slots::Slots;
use crate::timers::{
    DIAL_INTERVAL, EXTRA_BLOCK_RELAY_ONLY_PEER_INTERVAL, EXTRA_NETWORK_PEER_INTERVAL, FEELER_INTERVAL, Micros,
    exponential,
};
use crate::view::View;

/// Addresses drawn in one look; then another look begins later.
const DRAWS: usize = 100;
/// So many draws pass over who was dialled less than `RECENTLY` ago.
const DRAWS_FOR_RESTED: usize = 30;
/// So many draws pass over ports of other services.
const DRAWS_FOR_GOOD_PORT: usize = 50;
/// See [`DRAWS_FOR_RESTED`], in seconds.
const RECENTLY: u32 = 10 * 60;
/// The longest pause between looks that find nobody to dial. The pause ends when an address is learned or a peer goes.
const LONGEST_PAUSE: Duration = Duration::from_secs(32);
/// The longest time without a look.
const LONGEST_REST: Duration = Duration::from_secs(5 * 60);
/// A failure counts against an address only while we have so many other peers: else we may be offline.
const PEERS_THAT_PROVE_US_ONLINE: usize = 2;
/// Links for blocks only that are dialled first after a start. Core: `MAX_BLOCK_RELAY_ONLY_ANCHORS`.
pub(crate) const MAX_BLOCK_RELAY_ONLY_ANCHORS: usize = 2;
/// Ports of other services, which a node could be made to flood. Core: `IsBadPort`.
const BAD_PORTS: &[u16] = &[
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110,
    111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532,
    540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3306, 3389, 3659, 4045, 5060,
    5061, 5432, 5900, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6697, 10080, 27017,
];

/// A dial under way.
#[derive(Clone, Copy, Debug)]
struct Pending {
    kind: LinkKind,
    counts: bool,
}

/// What a dial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A link for blocks only with a peer of the last run.
    Anchor,
    Full,
    BlockRelay,
    Feeler,
    /// A full link on a network on which there is none.
    On(Network),
}

impl Purpose {
    fn kind(self) -> LinkKind {
        match self {
            Purpose::Anchor | Purpose::BlockRelay => LinkKind::BlockRelay,
            Purpose::Full | Purpose::On(_) => LinkKind::OutboundFull,
            Purpose::Feeler => LinkKind::Feeler,
        }
    }
}

/// The links that we made and are making, as far as they bear on new ones.
#[derive(Debug, Default)]
struct Tally {
    full: usize,
    full_ready: usize,
    block_relay: usize,
    /// All that were not made on the operator's word.
    automatic: usize,
    /// Groups on IPv4 and IPv6 in which we have a peer by our own choice.
    groups: BTreeSet<Vec<u8>>,
    /// Such peers on other networks.
    private: usize,
    /// Networks on which we have a full peer.
    networks: BTreeSet<Network>,
    /// Their addresses.
    taken: BTreeSet<NetAddr>,
}

impl Tally {
    fn count(&mut self, addr: &NetAddr, kind: LinkKind) {
        self.taken.insert(*addr);
        self.full += usize::from(kind == LinkKind::OutboundFull);
        self.block_relay += usize::from(kind == LinkKind::BlockRelay);
        self.automatic += usize::from(kind != LinkKind::Manual);
        if !matches!(kind, LinkKind::OutboundFull | LinkKind::BlockRelay | LinkKind::Manual) {
            return;
        }
        if kind != LinkKind::BlockRelay {
            self.networks.insert(addr.host.network());
        }
        match addr.host.network() {
            Network::Ipv4 | Network::Ipv6 => drop(self.groups.insert(addr.host.group())),
            _ => self.private += 1,
        }
    }
}

/// Whether there are as many full peers as a common node has: with fewer slots, one more would push others out.
fn is_usual(tally: &Tally, slots: &Slots) -> bool {
    slots.outbound_full == Slots::default().outbound_full && tally.full == slots.outbound_full
}

/// What dialling goes by.
pub(crate) struct Sources<'a> {
    pub(crate) book: &'a mut Book,
    pub(crate) guard: &'a Guard,
    pub(crate) local: &'a Local,
}

/// Who is dialled and who will be.
#[derive(Debug)]
pub(crate) struct Dialling {
    /// The network is switched on.
    pub(crate) active: bool,
    /// The tip is stale: one more full peer is tried. Core: `m_try_another_outbound_peer`.
    pub(crate) one_more_full: bool,
    /// The first sync is over: one more peer for blocks only is tried now and then.
    /// Core: `m_start_extra_block_relay_peers`.
    pub(crate) one_more_for_blocks: bool,
    pending: BTreeMap<NetAddr, Pending>,
    pub(crate) anchors: Vec<AddrEntry>,
    added: BTreeSet<NetAddr>,
    seeds: Seeds,
    look: Micros,
    pause: Duration,
    feeler: Micros,
    extra_block_relay: Micros,
    extra_network: Micros,
    begun: bool,
}

impl Dialling {
    pub(crate) fn new(options: &LinkOptions, rng: &mut impl Rng) -> Dialling {
        Dialling {
            active: true,
            one_more_full: false,
            one_more_for_blocks: false,
            pending: BTreeMap::new(),
            anchors: Vec::new(),
            added: BTreeSet::new(),
            seeds: Seeds::new(options, rng),
            look: Micros::default(),
            pause: DIAL_INTERVAL,
            feeler: Micros::default(),
            extra_block_relay: Micros::default(),
            extra_network: Micros::default(),
            begun: false,
        }
    }

    /// When something is due; never, if the operator names all peers.
    pub(crate) fn next(&self, options: &LinkOptions) -> Option<Micros> {
        (options.automatic && self.active).then_some(self.look)
    }

    /// Something has changed: look soon.
    pub(crate) fn wake(&mut self, now: Micros) {
        self.pause = DIAL_INTERVAL;
        self.look = self.look.min(now + DIAL_INTERVAL);
    }

    /// The operator keeps links with these: they are not dialled for anything else.
    pub(crate) fn set_added(&mut self, added: Vec<NetAddr>) {
        self.added = added.into_iter().collect();
    }

    /// A dial under way has ended: whether a failure counts against the address. None if we did not ask for it.
    pub(crate) fn take_pending(&mut self, addr: &NetAddr) -> Option<bool> {
        self.pending.remove(addr).map(|pending| pending.counts)
    }

    /// Whether there is a slot for one more link of this kind. Core: `AddConnection`.
    pub(crate) fn has_slot(&self, kind: LinkKind, peers: &Peers, options: &LinkOptions) -> bool {
        let tally = self.tally(peers);
        let slots = &options.slots;
        let automatic = slots.outbound_full + slots.block_relay + slots.feelers;
        let free = match kind {
            LinkKind::OutboundFull => tally.full < slots.outbound_full,
            LinkKind::BlockRelay => tally.block_relay < slots.block_relay,
            LinkKind::Feeler | LinkKind::AddrFetch => true,
            LinkKind::Inbound | LinkKind::Manual => false,
        };
        free && tally.automatic < automatic
    }

    /// Dials on the operator's word.
    pub(crate) fn open(&mut self, addr: NetAddr, kind: LinkKind, v2: bool, cx: &mut Cx<'_>) {
        if self.active && self.pending.len() < cx.core.config.limits.dials {
            self.pending.insert(addr, Pending { kind, counts: false });
            cx.output(Output::Dial { addr, kind, v2 });
        }
    }

    fn tally(&self, peers: &Peers) -> Tally {
        let mut tally = Tally::default();
        for peer in peers.values().filter(|peer| !peer.kind.is_inbound() && peer.closing.is_none()) {
            tally.count(&peer.addr, peer.kind);
            tally.full_ready += usize::from(peer.kind == LinkKind::OutboundFull && peer.ready);
        }
        self.pending.iter().for_each(|(addr, pending)| tally.count(addr, pending.kind));
        tally
    }

    /// Dials whoever is due.
    pub(crate) fn run(&mut self, peers: &Peers, mut from: Sources<'_>, view: &impl View, cx: &mut Cx<'_>) {
        // A look is never far off, but for a clock that went back: then all times are drawn anew.
        let back = self.look > cx.now + LONGEST_REST;
        if self.next(&cx.core.config.dialling).is_none_or(|look| cx.now < look && !back) {
            return;
        }
        if !self.begun || back {
            self.begun = true;
            self.feeler = cx.now + exponential(FEELER_INTERVAL, &mut cx.core.rng);
            self.extra_block_relay = cx.now + exponential(EXTRA_BLOCK_RELAY_ONLY_PEER_INTERVAL, &mut cx.core.rng);
            self.extra_network = cx.now + exponential(EXTRA_NETWORK_PEER_INTERVAL, &mut cx.core.rng);
        }
        let tally = self.tally(peers);
        self.ask_seeds(&tally, from.book, cx);
        let purpose = self.purpose(&tally, from.book, cx);
        let chosen = purpose.and_then(|purpose| Some((purpose, self.choose(purpose, &tally, &mut from, view, cx)?)));
        if let Some((purpose, entry)) = chosen {
            let v2 = entry.services & cx.core.config.services & NODE_P2P_V2 != 0;
            let counts = tally.groups.len() + tally.private >= PEERS_THAT_PROVE_US_ONLINE;
            self.pending.insert(entry.addr, Pending { kind: purpose.kind(), counts });
            cx.output(Output::Dial { addr: entry.addr, kind: purpose.kind(), v2 });
        }
        self.pause = match (purpose.is_some(), chosen.is_some()) {
            (true, false) => LONGEST_PAUSE.min(self.pause * 2),
            _ => DIAL_INTERVAL,
        };
        self.look = cx.now + self.pause;
        if purpose.is_none() {
            self.look = self.look.max(self.next_purpose(&tally, cx)).min(cx.now + LONGEST_REST);
        }
    }

    /// When the next link is wanted, if none is lost meanwhile.
    fn next_purpose(&self, tally: &Tally, cx: &Cx<'_>) -> Micros {
        let slots = &cx.core.config.dialling.slots;
        let room = tally.automatic < slots.outbound_full + slots.block_relay + slots.feelers;
        let blocks = self.one_more_for_blocks.then_some(self.extra_block_relay);
        let network = is_usual(tally, slots).then_some(self.extra_network);
        // Where there is no room, the link that ends wakes us.
        let links = [Some(self.feeler), blocks, network].into_iter().flatten().filter(|_| room);
        let seeds = self.seeds.next().filter(|at| *at > cx.now);
        links.chain(seeds).min().unwrap_or(cx.now + LONGEST_REST)
    }

    fn ask_seeds(&mut self, tally: &Tally, book: &mut Book, cx: &mut Cx<'_>) {
        let lacking: Vec<Network> = cx.core.config.dialling.reachable.iter().copied().collect();
        let lacking: Vec<Network> = lacking.into_iter().filter(|network| book.count(*network) == (0, 0)).collect();
        let alone = self.added.is_empty();
        for step in self.seeds.run(cx.now, book.len(), tally.full_ready, !lacking.is_empty(), alone) {
            match step {
                Step::Fetch(name) => cx.output(Output::Fetch(name)),
                Step::Ask(name) => cx.output(Output::AskSeed(name)),
                Step::Fixed => {
                    let (entries, source) = seeds::fixed(&cx.core.config.params.name, cx.now, &mut cx.core.rng);
                    for entry in entries.iter().filter(|entry| lacking.contains(&entry.addr.host.network())) {
                        book.add(entry, source, 0, cx.now.seconds32(), &mut cx.core.rng);
                    }
                }
            }
        }
    }

    /// A name of a seed stands for these addresses. A seed that could not be asked so is dialled itself.
    pub(crate) fn on_seeded(&mut self, name: String, addrs: &[NetAddr], book: &mut Book, cx: &mut Cx<'_>) {
        if addrs.is_empty() {
            return cx.output(Output::Fetch(name));
        }
        let (entries, source) = seeds::from_name(&name, addrs, cx.now, &mut cx.core.rng);
        for entry in entries {
            book.add(&entry, source, 0, cx.now.seconds32(), &mut cx.core.rng);
        }
        self.wake(cx.now);
    }

    /// What the next dial is for.
    fn purpose(&mut self, tally: &Tally, book: &Book, cx: &mut Cx<'_>) -> Option<Purpose> {
        let slots = cx.core.config.dialling.slots;
        if tally.automatic >= slots.outbound_full + slots.block_relay + slots.feelers {
            return None;
        }
        if !self.anchors.is_empty() && tally.block_relay < slots.block_relay.min(MAX_BLOCK_RELAY_ONLY_ANCHORS) {
            return Some(Purpose::Anchor);
        }
        if tally.full < slots.outbound_full {
            return Some(Purpose::Full);
        }
        if tally.block_relay < slots.block_relay {
            return Some(Purpose::BlockRelay);
        }
        if self.one_more_full {
            return Some(Purpose::Full);
        }
        if self.one_more_for_blocks && cx.now > self.extra_block_relay {
            self.extra_block_relay = cx.now + exponential(EXTRA_BLOCK_RELAY_ONLY_PEER_INTERVAL, &mut cx.core.rng);
            return Some(Purpose::BlockRelay);
        }
        if cx.now > self.feeler {
            self.feeler = cx.now + exponential(FEELER_INTERVAL, &mut cx.core.rng);
            return Some(Purpose::Feeler);
        }
        if is_usual(tally, &slots) && cx.now > self.extra_network {
            self.extra_network = cx.now + exponential(EXTRA_NETWORK_PEER_INTERVAL, &mut cx.core.rng);
            let unserved = |network: &Network| !tally.networks.contains(network) && book.count(*network) != (0, 0);
            let reachable = cx.core.config.dialling.reachable.iter().copied();
            let unserved: Vec<Network> = reachable.filter(unserved).collect();
            return unserved.choose(&mut cx.core.rng).copied().map(Purpose::On);
        }
        None
    }

    /// An address for this purpose. Core: the inner loop of `ThreadOpenConnections`.
    fn choose(
        &mut self,
        purpose: Purpose,
        tally: &Tally,
        from: &mut Sources<'_>,
        view: &impl View,
        cx: &mut Cx<'_>,
    ) -> Option<AddrEntry> {
        let now = cx.now.seconds32();
        from.book.resolve_collisions(now);
        let reachable = cx.core.config.dialling.reachable.clone();
        let feeler = purpose == Purpose::Feeler;
        let networks = match purpose {
            Purpose::On(network) => BTreeSet::from([network]),
            _ => reachable.clone(),
        };
        while purpose == Purpose::Anchor
            && let Some(anchor) = self.anchors.pop()
        {
            let host = &anchor.addr.host;
            let fit = reachable.contains(&host.network()) && handshake::offers_what_we_want(anchor.services, view, cx);
            if fit && self.is_free(&anchor.addr, tally, from, cx.now) && !tally.groups.contains(&host.group()) {
                return Some(anchor);
            }
        }
        for draw in 1..=DRAWS {
            let collision = if feeler { from.book.select_collision(&mut cx.core.rng) } else { None };
            let linked = collision.filter(|(entry, _)| tally.taken.contains(&entry.addr));
            // Who is linked with us needs no test.
            if let Some((entry, _)) = &linked {
                from.book.good(&entry.addr, now);
            }
            let drawn = collision.filter(|_| linked.is_none());
            let drawn = drawn.or_else(|| from.book.select(feeler, &networks, now, &mut cx.core.rng));
            let (entry, last_try) = drawn?;
            let host = &entry.addr.host;
            let ip = matches!(host.network(), Network::Ipv4 | Network::Ipv6);
            let rested = now.saturating_sub(last_try) >= RECENTLY || draw >= DRAWS_FOR_RESTED;
            let good_port = !ip || !BAD_PORTS.contains(&entry.addr.port) || draw >= DRAWS_FOR_GOOD_PORT;
            let useful = match feeler {
                true => entry.services & (NODE_NETWORK | NODE_NETWORK_LIMITED) != 0,
                false => handshake::offers_what_we_want(entry.services, view, cx),
            };
            let fit = reachable.contains(&host.network()) && rested && useful && good_port;
            let apart = feeler || !tally.groups.contains(&host.group());
            if fit && apart && self.is_free(&entry.addr, tally, from, cx.now) {
                return Some(entry);
            }
        }
        None
    }

    /// Whether the address may be dialled: no link with it, nobody's but ours, nobody refused.
    fn is_free(&self, addr: &NetAddr, tally: &Tally, from: &Sources<'_>, now: Micros) -> bool {
        !tally.taken.contains(addr)
            && !self.added.contains(addr)
            && !from.local.contains(&addr.host)
            && !from.guard.refuses(&addr.host, now)
    }
}
