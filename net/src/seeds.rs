//! Where the first addresses come from: nodes that the operator names, names that stand for nodes, a list that comes with
//! the program; each only when what comes before gave too little. Core: `ThreadDNSAddressSeed`. Resolves no name.

use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;

use crate::addr::{Host, NetAddr};
use crate::message::AddrEntry;
use crate::peer::{NODE_NETWORK, NODE_WITNESS};
use crate::protocol::LinkOptions;
use crate::timers::Micros;

/// With so many full outbound peers no more names are asked. Core's name and value.
const SEED_OUTBOUND_CONNECTION_THRESHOLD: usize = 2;
/// Names asked at a time. Core's name and value.
const DNSSEEDS_TO_QUERY_AT_ONCE: usize = 3;
/// With so many addresses known, they are tried for longer before names are asked. Core's name and value.
const DNSSEEDS_DELAY_PEER_THRESHOLD: usize = 1000;
/// The wait with few addresses. Core's name and value.
const DNSSEEDS_DELAY_FEW_PEERS: Duration = Duration::from_secs(11);
/// The wait with many. Core's name and value.
const DNSSEEDS_DELAY_MANY_PEERS: Duration = Duration::from_secs(5 * 60);
/// Nodes that the operator named come first, for this long. Core's name and value.
const SEEDNODE_TIMEOUT: Duration = Duration::from_secs(30);
/// The next of them is dialled after this. Core's name and value.
const ADD_NEXT_SEEDNODE: Duration = Duration::from_secs(10);
/// The list of the program is used after this.
const FIXED_SEEDS_DELAY: Duration = Duration::from_secs(60);
const DAY: u32 = 24 * 60 * 60;

/// What to do for more addresses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Dial this node for addresses.
    Fetch(String),
    /// Find out what this name stands for.
    Ask(String),
    /// Take the list of the program.
    Fixed,
}

/// What of it was done.
#[derive(Debug)]
pub(crate) struct Seeds {
    begun: Option<Micros>,
    names: Vec<String>,
    /// How many names may be asked without another wait.
    at_once: usize,
    /// The wait before names are asked.
    wait: Option<Micros>,
    opened: bool,
    nodes: Vec<String>,
    /// The operator named nodes.
    named: bool,
    next_node: Micros,
    /// There is no other way to an address than the list of the program.
    nothing_else: bool,
    fixed: bool,
    force: bool,
}

impl Seeds {
    pub(crate) fn new(options: &LinkOptions, rng: &mut impl Rng) -> Seeds {
        let mut names = options.dns_seeds.clone();
        names.shuffle(rng);
        Seeds {
            begun: None,
            names,
            at_once: 0,
            wait: None,
            opened: false,
            nodes: options.seed_nodes.clone(),
            named: !options.seed_nodes.is_empty(),
            next_node: Micros::default(),
            nothing_else: options.dns_seeds.is_empty() && options.seed_nodes.is_empty(),
            fixed: options.fixed_seeds,
            force: options.force_dns_seeds,
        }
    }

    /// What is due. `known`: addresses in the book; `full`: full outbound peers; `lacks`: a network that we can reach has
    /// no address in the book; `alone`: the operator named no peer.
    pub(crate) fn run(&mut self, now: Micros, known: usize, full: usize, lacks: bool, alone: bool) -> Vec<Step> {
        let begun = *self.begun.get_or_insert_with(|| {
            // An empty book needs a node at once, another one can wait.
            self.next_node = if known == 0 { now } else { now + ADD_NEXT_SEEDNODE };
            now
        });
        let mut steps = Vec::new();
        let few = full < SEED_OUTBOUND_CONNECTION_THRESHOLD;
        if few
            && now >= self.next_node
            && let Some(node) = self.nodes.pop()
        {
            self.next_node = now + ADD_NEXT_SEEDNODE;
            steps.push(Step::Fetch(node));
        }
        if self.fixed && lacks && (now >= begun + FIXED_SEEDS_DELAY || (self.nothing_else && alone)) {
            self.fixed = false;
            steps.push(Step::Fixed);
        }
        if !self.named || !few || now >= begun + SEEDNODE_TIMEOUT {
            self.ask_names(now, known, few, &mut steps);
        }
        steps
    }

    fn ask_names(&mut self, now: Micros, known: usize, few: bool, steps: &mut Vec<Step>) {
        if !self.opened {
            self.opened = true;
            let all = self.force || known == 0;
            self.at_once = if all { self.names.len() } else { 0 };
            if !all && !few {
                self.names.clear();
            }
        }
        while !self.names.is_empty() {
            if self.at_once == 0 && known > 0 {
                let delay = match known {
                    DNSSEEDS_DELAY_PEER_THRESHOLD.. => DNSSEEDS_DELAY_MANY_PEERS,
                    _ => DNSSEEDS_DELAY_FEW_PEERS,
                };
                let over = *self.wait.get_or_insert(now + delay);
                if !few {
                    self.names.clear();
                }
                if now < over {
                    return;
                }
                self.wait = None;
            }
            if self.at_once == 0 {
                self.at_once = DNSSEEDS_TO_QUERY_AT_ONCE;
            }
            self.at_once -= 1;
            steps.extend(self.names.pop().map(Step::Ask));
        }
    }

    /// When something may be due.
    pub(crate) fn next(&self) -> Option<Micros> {
        let begun = self.begun?;
        let fixed = self.fixed.then_some(begun + FIXED_SEEDS_DELAY);
        let node = (!self.nodes.is_empty()).then_some(self.next_node);
        let names = (!self.names.is_empty()).then(|| self.wait.unwrap_or(begun + SEEDNODE_TIMEOUT));
        [fixed, node, names].into_iter().flatten().min()
    }
}

/// What a name gave, as the book takes it: seen some days ago. Gives the source too.
pub(crate) fn from_name(name: &str, addrs: &[NetAddr], now: Micros, rng: &mut impl Rng) -> (Vec<AddrEntry>, Host) {
    let entries = addrs.iter().map(|addr| aged(*addr, 3 * DAY, 4 * DAY, now, rng)).collect();
    (entries, Host::internal(&format!("x{:x}.{name}", NODE_NETWORK | NODE_WITNESS)))
}

/// The list that comes with the program for a network, seen a week or two ago, and its source.
pub(crate) fn fixed(network: &str, now: Micros, rng: &mut impl Rng) -> (Vec<AddrEntry>, Host) {
    let entries = list(network).into_iter().map(|addr| aged(addr, 7 * DAY, 7 * DAY, now, rng)).collect();
    (entries, Host::internal("fixedseeds"))
}

fn aged(addr: NetAddr, least: u32, spread: u32, now: Micros, rng: &mut impl Rng) -> AddrEntry {
    let time = now.seconds32().saturating_sub(least + rng.random_range(0..spread));
    AddrEntry { time, services: NODE_NETWORK | NODE_WITNESS, addr }
}

/// The addresses of a network's file; see `seeds/README.md`.
fn list(network: &str) -> Vec<NetAddr> {
    let mut bytes: &[u8] = match network {
        "main" => include_bytes!("seeds/main.bin"),
        "test" => include_bytes!("seeds/test.bin"),
        "testnet4" => include_bytes!("seeds/testnet4.bin"),
        "signet" => include_bytes!("seeds/signet.bin"),
        _ => &[],
    };
    let mut addrs = Vec::new();
    while let [network, length, rest @ ..] = bytes {
        let Some((host, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        let [high, low, rest @ ..] = rest else { break };
        let port = u16::from_be_bytes([*high, *low]);
        addrs.extend(Host::from_bip155(*network, host).ok().flatten().map(|host| NetAddr { host, port }));
        bytes = rest;
    }
    addrs
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn at(second: u64) -> Micros {
        Micros::from_seconds(1_000_000 + second)
    }

    fn seeds(names: usize, nodes: usize, fixed: bool, force: bool) -> Seeds {
        let texts = |count| (0..count).map(|n| format!("s{n}")).collect();
        let options = LinkOptions {
            dns_seeds: texts(names),
            seed_nodes: texts(nodes),
            fixed_seeds: fixed,
            force_dns_seeds: force,
            ..LinkOptions::default()
        };
        Seeds::new(&options, &mut rand_chacha::ChaCha8Rng::seed_from_u64(1))
    }

    fn asked(steps: &[Step]) -> usize {
        steps.iter().filter(|step| matches!(step, Step::Ask(_))).count()
    }

    #[test]
    fn an_empty_book_asks_all_names_at_once() {
        let mut seeds = seeds(7, 0, true, false);
        assert_eq!(asked(&seeds.run(at(0), 0, 0, true, true)), 7);
        assert!(seeds.run(at(59), 0, 0, true, true).is_empty());
        assert_eq!(seeds.next(), Some(at(60)));
        assert_eq!(seeds.run(at(60), 0, 0, true, true), [Step::Fixed]);
        assert!(seeds.run(at(600), 0, 0, true, true).is_empty());
        assert_eq!(seeds.next(), None);
    }

    #[test]
    fn known_addresses_are_tried_before_three_names_at_a_time_are_asked() {
        for (known, wait) in [(10, 11), (1000, 300)] {
            let mut seeds = seeds(7, 0, false, false);
            let mut run = |second| asked(&seeds.run(at(second), known, 1, false, true));
            assert_eq!((run(0), run(wait - 1), run(wait)), (0, 0, 3));
            assert_eq!((run(2 * wait - 1), run(2 * wait), run(3 * wait)), (0, 3, 1), "with {known} addresses");
        }
    }

    #[test]
    fn two_peers_are_enough_unless_the_operator_insists() {
        assert_eq!(asked(&seeds(7, 0, false, false).run(at(0), 10, 2, false, true)), 0);
        assert_eq!(asked(&seeds(7, 0, false, true).run(at(0), 10, 2, false, true)), 7);
        let mut seeds = seeds(7, 0, false, false);
        assert_eq!(asked(&seeds.run(at(0), 10, 0, false, true)), 0);
        assert_eq!(asked(&seeds.run(at(12), 10, 2, false, true)), 0, "two peers came meanwhile");
        assert_eq!(asked(&seeds.run(at(500), 10, 0, false, true)), 0, "then it is done");
    }

    #[test]
    fn nodes_that_the_operator_names_come_first_one_in_ten_seconds() {
        let mut seeds = seeds(7, 2, true, false);
        assert_eq!(seeds.run(at(0), 0, 0, true, true), [Step::Fetch("s1".into())]);
        assert!(seeds.run(at(9), 0, 0, true, true).is_empty());
        assert_eq!(seeds.run(at(10), 0, 0, true, true), [Step::Fetch("s0".into())]);
        assert!(seeds.run(at(29), 0, 0, true, true).is_empty());
        assert_eq!(asked(&seeds.run(at(30), 0, 0, true, true)), 7);
    }

    #[test]
    fn the_list_of_the_program_comes_at_once_where_nothing_else_can() {
        for (names, nodes, alone, expected) in
            [(0, 0, true, true), (0, 0, false, false), (1, 0, true, false), (0, 1, true, false)]
        {
            let steps = seeds(names, nodes, true, false).run(at(0), 0, 0, true, alone);
            assert_eq!(steps.contains(&Step::Fixed), expected, "{names} names, {nodes} nodes, alone: {alone}");
        }
        assert!(!seeds(0, 0, true, false).run(at(100), 5, 0, false, true).contains(&Step::Fixed));
    }

    #[test]
    fn the_lists_are_whole() {
        for (network, count) in [("main", 2059), ("test", 181), ("testnet4", 230), ("signet", 170), ("regtest", 0)] {
            assert_eq!(list(network).len(), count, "{network}");
            assert!(
                list(network)
                    .iter()
                    .all(|addr| addr.host.is_routable() || addr.host.network() == crate::addr::Network::Cjdns)
            );
        }
    }
}
