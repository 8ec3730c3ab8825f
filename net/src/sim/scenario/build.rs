//! Building a network: nodes with a chain, each linked with eight others, settled before anything is measured.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid, absolute, transaction};
use groat_chain::params::{Params, RegtestOptions};
use groat_chain::rules::pow::block_work;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Options, Places};
use crate::addr::{Host, NetAddr};
use crate::peer::LinkKind;
use crate::protocol::{Config, Policy};
use crate::sim::actors::Actor;
use crate::sim::{Commons, Link, Mined, Miner, Region, Share, World};
use crate::timers::Micros;

/// Links that a node dials. Core: `MAX_OUTBOUND_FULL_RELAY_CONNECTIONS`.
pub(super) const OUTBOUND: usize = 8;
/// Links are dialled within this.
const DIALLED_WITHIN: Duration = Duration::from_secs(30);
/// When it is over, all handshakes are done and all chains compared.
pub(super) const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// What a ledger takes for a block: what most nodes take to connect one.
pub(super) const BLOCK_TIME: Duration = Duration::from_millis(100);

/// What a network begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Blocks that all have.
    pub(super) blocks: usize,
    /// So many of them make a chain that counts.
    pub(super) minimum: u32,
    /// Bytes of a block's body.
    pub(super) body: usize,
    /// Who lost a link dials again.
    pub(super) redial: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { blocks: 20, minimum: 0, body: 200, redial: false }
    }
}

/// A network.
pub(super) struct Net {
    pub(super) world: World<Share>,
    pub(super) commons: Rc<RefCell<Commons>>,
    pub(super) params: Arc<Params>,
    pub(super) miner: Miner,
    /// The chain that all begin with.
    pub(super) chain: Arc<Vec<Mined>>,
    pub(super) rng: ChaCha8Rng,
    regions: Vec<Region>,
    places: Places,
    relay: Policy,
    transactions: u64,
}

impl Net {
    /// Nodes without links.
    pub(super) fn new(options: &Options, plan: Plan) -> Net {
        let mut params = Params::regtest(&RegtestOptions::default());
        let one = block_work(params.genesis.header.bits);
        params.minimum_chain_work = (0..plan.minimum).fold(params.minimum_chain_work, |work, _| work + one);
        let params = Arc::new(params);
        let mut miner = Miner::new(params.clone(), options.seed);
        miner.body = plan.body;
        let chain = Arc::new(miner.mine(params.genesis_hash, plan.blocks));
        let tip_time = u64::from(params.genesis.header.time) + plan.blocks as u64 * u64::from(params.spacing);
        let mut world = World::new(options.seed, Micros::from_seconds(tip_time + 60));
        world.redial = plan.redial;
        let commons = Commons::new(params.clone());
        let mut net = Net {
            world,
            commons,
            params,
            miner,
            chain,
            rng: ChaCha8Rng::seed_from_u64(options.seed ^ 0x5eed),
            regions: Vec::new(),
            places: options.places,
            relay: options.relay,
            transactions: 0,
        };
        let mut full = Share::new(&net.commons);
        full.load(&net.chain);
        (0..options.nodes).for_each(|_| _ = net.add(&full));
        net
    }

    /// One more node, which has what `share` has.
    pub(super) fn add(&mut self, share: &Share) -> usize {
        self.regions.push(Region::draw(&mut self.rng));
        let config = Config { relay: self.relay, ..World::config(&self.params) };
        let node = self.world.add(config, share.clone());
        self.world.nodes[node].block_time = BLOCK_TIME;
        node
    }

    /// The link between two nodes.
    fn line(&mut self, a: usize, b: usize) -> Link {
        match self.places {
            Places::Even => self.any_line(),
            Places::Regions => self.regions[a].link(self.regions[b]),
        }
    }

    /// A link of any latency from 10 to 150 ms.
    pub(super) fn any_line(&mut self) -> Link {
        Link::of(Duration::from_micros(self.rng.random_range(10_000..=150_000)))
    }

    /// Has `from` dial a node within the first while.
    pub(super) fn dial(&mut self, from: usize, to: usize, kind: LinkKind) {
        let line = self.line(from, to);
        let at = self.world.now + self.rng.random_range(Duration::ZERO..DIALLED_WITHIN);
        self.world.connect_at(at, from, to, kind, line);
    }

    /// Has each of these nodes dial eight others of them, or of the actors.
    pub(super) fn wire(&mut self, nodes: std::ops::Range<usize>, actors: &[usize]) {
        for from in nodes.clone() {
            let mut chosen: Vec<usize> = Vec::with_capacity(OUTBOUND);
            let others = nodes.len() - 1 + actors.len();
            while chosen.len() < OUTBOUND.min(others) {
                let pick = self.rng.random_range(0..nodes.len() + actors.len());
                if pick + nodes.start == from || chosen.contains(&pick) {
                    continue;
                }
                chosen.push(pick);
                match pick.checked_sub(nodes.len()) {
                    None => self.dial(from, pick + nodes.start, LinkKind::OutboundFull),
                    Some(actor) => {
                        let (line, addr) = (self.any_line(), actor_address(actor));
                        self.world.connect_to_actor(from, actors[actor], addr, LinkKind::OutboundFull, line);
                    }
                }
            }
        }
    }

    /// Has an actor dial these nodes. It can send so many bytes a second to each.
    pub(super) fn let_dial(&mut self, actor: usize, nodes: &[usize], bandwidth: Option<u64>) {
        for node in nodes {
            let (line, addr) = (Link { bandwidth, ..self.any_line() }, actor_address(actor));
            self.world.link_from_actor(actor, *node, addr, line);
        }
    }

    /// So many different nodes.
    pub(super) fn some_nodes(&mut self, count: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = Vec::with_capacity(count);
        while nodes.len() < count.min(self.world.nodes.len()) {
            let pick = self.rng.random_range(0..self.world.nodes.len());
            if !nodes.contains(&pick) {
                nodes.push(pick);
            }
        }
        nodes
    }

    /// Draws what comes next as if nothing had been drawn: with and without an attack the same.
    pub(super) fn draw_anew(&mut self, options: &Options) {
        self.rng = ChaCha8Rng::seed_from_u64(options.seed ^ 0xd4a3);
    }

    pub(super) fn actor(&mut self, actor: impl Actor + 'static) -> usize {
        self.world.add_actor(Box::new(actor))
    }

    /// Runs until the network is settled.
    pub(super) fn settle(&mut self) {
        self.world.run_for(SETTLED_AFTER);
    }

    /// A transaction that nobody has.
    pub(super) fn transaction(&mut self) -> Arc<Transaction> {
        self.transactions += 1;
        let mut txid = [1; 32];
        txid[..8].copy_from_slice(&self.transactions.to_le_bytes());
        let txid = Txid::from_byte_array(txid);
        Arc::new(Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::from_consensus(5000),
            // Spends something that nobody else does.
            input: vec![bitcoin::TxIn { previous_output: OutPoint { txid, vout: 0 }, ..Default::default() }],
            output: vec![bitcoin::TxOut {
                value: bitcoin::Amount::from_sat(self.transactions),
                // About what a payment has.
                script_pubkey: ScriptBuf::from_bytes(vec![0; 130]),
            }],
        })
    }

    /// A block on top of this node's tip.
    pub(super) fn mine_on(&mut self, node: usize) -> Mined {
        let tip = self.world.nodes[node].chain.tip_hash();
        self.miner.mine(tip, 1).remove(0)
    }
}

/// Where an actor is: each in a group of its own.
pub(super) fn actor_address(actor: usize) -> NetAddr {
    NetAddr { host: Host::V4([50, actor as u8, (actor >> 8) as u8, 1]), port: 8333 }
}
