//! Any inputs in any order: bytes are read as a script of inputs for one protocol, which must not panic, must keep its
//! bounds, and must speak of nobody whom it does not know. For the fuzzer and the tests.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Txid, Wtxid};
use groat_chain::params::{Params, RegtestOptions};
use groat_chain::rejection::Rejection;

use super::backend::Backend;
use super::chain::{Chain, Mined, Miner};
use super::ends::address;
use super::world::World;
use crate::addr::Network;
use crate::limits::Limits;
use crate::message::{Kind, Locate, Message};
use crate::peer::{LinkKind, Permissions};
use crate::protocol::{Config, Input, Output, PeerId, Protocol, Token, Work};
use crate::timers::Micros;

/// Blocks that messages speak of; the node has the first third.
const BLOCKS: usize = 30;
/// Links at a time.
const LINKS: usize = 8;

/// The bytes, read from the front; an end gives zeros.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        (usize::from(self.byte()) | usize::from(self.byte()) << 8) % end.max(1)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    fn hash(&mut self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[0] = self.byte();
        hash
    }
}

fn network() -> &'static (Arc<Params>, Vec<Mined>) {
    static NETWORK: OnceLock<(Arc<Params>, Vec<Mined>)> = OnceLock::new();
    NETWORK.get_or_init(|| {
        let params = Arc::new(Params::regtest(&RegtestOptions::default()));
        let chain = Miner::new(params.clone(), 0).mine(params.genesis_hash, BLOCKS);
        (params, chain)
    })
}

/// One protocol and what it is told.
struct Trial<'a> {
    script: Script<'a>,
    now: Micros,
    protocol: Protocol,
    chain: Chain,
    /// Links that were made and that neither side ended.
    open: BTreeSet<PeerId>,
    made: u64,
    work: Vec<(Token, Work)>,
}

/// Drives a protocol by these bytes, to their end.
///
/// # Panics
/// When it breaks a bound, or does what cannot be carried out.
pub fn drive(bytes: &[u8]) {
    let (params, chain) = network();
    let mut node = Chain::new(params.clone());
    node.load(&chain[..BLOCKS / 3]);
    let mut script = Script(bytes);
    let mut config = Config { limits: Limits::small(), ..World::config(params) };
    config.blocks_only = script.byte().is_multiple_of(8);
    let fresh = if script.byte().is_multiple_of(4) { 400 } else { BLOCKS as u64 };
    let time = u64::from(params.genesis.header.time) + fresh * u64::from(params.spacing);
    let mut trial = Trial {
        script,
        now: Micros::from_seconds(time),
        protocol: Protocol::new(config),
        chain: node,
        open: BTreeSet::new(),
        made: 0,
        work: Vec::new(),
    };
    while !trial.script.0.is_empty() {
        trial.step();
    }
    // Whoever is gone leaves nothing behind.
    while let Some(peer) = trial.open.pop_first() {
        trial.give(Input::Closed(peer));
    }
    while let Some((token, work)) = trial.work.pop() {
        trial.answer(token, work);
    }
    assert_eq!(trial.protocol.peers().count(), 0, "all links are closed");
}

impl Trial<'_> {
    fn step(&mut self) {
        match self.script.byte() % 16 {
            0 if self.open.len() < LINKS => self.connect(),
            1 => {
                let peer = self.peer();
                self.open.remove(&peer);
                self.give(Input::Closed(peer));
            }
            2 => {
                let (peer, bytes) = (self.peer(), self.script.below(65_536) * 100);
                self.give(Input::Queued { peer, bytes });
            }
            3 | 4 => self.pass(),
            5 | 6 if !self.work.is_empty() => {
                let which = self.script.below(self.work.len());
                let (token, work) = self.work.swap_remove(which);
                self.answer(token, work);
            }
            7 => {
                let token = Token(self.script.below(1000) as u64 + (1 << 40));
                self.give(Input::ChainDone { token, done: crate::protocol::Done::Headers(Ok(())) });
            }
            8 => {
                let hash = self.block_hash();
                self.give(Input::BlockRefused { hash, rejection: Rejection::BadCbAmount });
            }
            9 => {
                let (txid, wtxid) = (self.script.hash(), self.script.hash());
                let (txid, wtxid) = (Txid::from_byte_array(txid), Wtxid::from_byte_array(wtxid));
                self.give(Input::TxAccepted { txid, wtxid });
            }
            10 => self.shake_hands(),
            _ => {
                let (peer, message) = (self.peer(), self.message());
                let wire_len = message.weight();
                self.give(Input::Message { peer, message, wire_len });
            }
        }
    }

    fn connect(&mut self) {
        const KINDS: [LinkKind; 6] = [
            LinkKind::Inbound,
            LinkKind::OutboundFull,
            LinkKind::BlockRelay,
            LinkKind::Feeler,
            LinkKind::Manual,
            LinkKind::AddrFetch,
        ];
        self.made += 1;
        let (peer, bits) = (PeerId(self.made), self.script.byte());
        let kind = KINDS[usize::from(bits % 8) % KINDS.len()];
        let permissions = Permissions {
            no_ban: bits & 8 != 0,
            download: bits & 16 != 0,
            relay: bits & 32 != 0,
            mempool: bits & 64 != 0,
            bloom_filter: bits & 128 != 0,
            ..Permissions::default()
        };
        self.open.insert(peer);
        let (addr, network) = (address(self.made as usize % 20), Network::Ipv4);
        self.give(Input::Connected { peer, addr, kind, permissions, network, bind: None });
    }

    /// A link, mostly one that is open, or one that never was or is gone.
    fn peer(&mut self) -> PeerId {
        let pick = self.script.byte();
        match self.open.iter().nth(usize::from(pick) % self.open.len().max(1)) {
            Some(open) if pick < 240 => *open,
            _ => PeerId(self.script.below(self.made as usize + 2) as u64),
        }
    }

    /// A peer that talks like a good one, to get behind the handshake.
    fn shake_hands(&mut self) {
        let peer = self.peer();
        let hello = super::actors::hello(self.now);
        for message in [Message::Version(Box::new(hello)), Message::WtxidRelay, Message::Verack] {
            self.give(Input::Message { peer, message, wire_len: 100 });
        }
    }

    /// Time passes, or goes back.
    fn pass(&mut self) {
        let (shift, back) = (self.script.byte() % 36, self.script.byte() < 20);
        let step = 1u64 << shift;
        self.now = Micros(if back { self.now.0.saturating_sub(step) } else { self.now.0 + step });
        self.give(Input::Tick);
    }

    fn block_hash(&mut self) -> BlockHash {
        match self.script.below(BLOCKS + 4) {
            known if known < BLOCKS => network().1[known].hash,
            _ => BlockHash::from_byte_array(self.script.hash()),
        }
    }

    fn items(&mut self) -> Vec<Inventory> {
        let many = self.script.byte();
        let count = usize::from(many % 32) * if many >= 250 { 1000 } else { 1 };
        let from = self.script.below(60_000);
        (from..from + count)
            .map(|n| {
                let mut hash = [7; 32];
                hash[..8].copy_from_slice(&(n as u64).to_le_bytes());
                match many / 32 {
                    0 => Inventory::Transaction(Txid::from_byte_array(hash)),
                    1 | 2 => Inventory::WTx(Wtxid::from_byte_array(hash)),
                    3 => Inventory::Block(network().1[n % BLOCKS].hash),
                    4 | 5 => Inventory::WitnessBlock(network().1[n % BLOCKS].hash),
                    6 => Inventory::CompactBlock(network().1[n % BLOCKS].hash),
                    _ => Inventory::Unknown { inv_type: n as u32, hash },
                }
            })
            .collect()
    }

    fn message(&mut self) -> Message {
        let chain = &network().1;
        let (from, to) = (self.script.below(BLOCKS), self.script.below(BLOCKS));
        match self.script.byte() % 12 {
            0 => Message::Headers(chain[from.min(to)..from.max(to)].iter().map(|block| block.header).collect()),
            1 | 2 => Message::Inv(self.items()),
            3 | 4 => Message::GetData(self.items()),
            5 => Message::NotFound(self.items()),
            6 => Message::Block(chain[from].bytes.clone()),
            7 => Message::GetHeaders(Locate { locator: vec![chain[from].hash], stop: chain[to].hash }),
            8 => Message::Pong(self.script.below(65_536) as u64),
            _ => {
                let kinds: Vec<Kind> = Kind::all().collect();
                let kind = kinds[self.script.below(kinds.len())];
                let length = self.script.below(400);
                Message::decode(kind, self.script.take(length))
            }
        }
    }

    /// The ledger does a piece of work and answers.
    fn answer(&mut self, token: Token, work: Work) {
        let (done, told) = Backend::perform(&mut self.chain, work, self.now);
        told.into_iter().for_each(|input| self.give(input));
        self.give(Input::ChainDone { token, done });
    }

    fn give(&mut self, input: Input) {
        let said = format!("{input:?}");
        let mut out = Vec::new();
        self.protocol.handle(self.now, input, &self.chain, &mut out);
        for output in out {
            match output {
                Output::Send { to, .. } => assert!(self.open.contains(&to), "{said}: a message to {to:?}"),
                Output::Disconnect { peer, .. } => assert!(self.open.remove(&peer), "{said}: the end of {peer:?}"),
                Output::Chain { token, work } => self.work.push((token, work)),
                Output::PauseRead(peer) | Output::ResumeRead(peer) => {
                    assert!(self.open.contains(&peer), "{said}: reading {peer:?}");
                }
                Output::Dial { addr, .. } => panic!("{said}: a dial to {addr}, though nobody may be dialled"),
                Output::Fetch(_) | Output::AskSeed(_) | Output::BansChanged | Output::Event(_) => {}
            }
        }
        assert_eq!(self.protocol.overdrawn(), None, "{said}");
        let known: BTreeSet<PeerId> = self.protocol.peers().map(|peer| peer.id).collect();
        assert_eq!(known, self.open, "{said}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngCore, SeedableRng};

    #[test]
    fn no_inputs_panic_or_break_a_bound() {
        for seed in 0..600 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut bytes = vec![0; 3000];
            rng.fill_bytes(&mut bytes);
            let driven = std::panic::catch_unwind(|| drive(&bytes));
            assert!(driven.is_ok(), "seed {seed}: ChaCha8Rng::seed_from_u64({seed}) fills the 3000 bytes");
        }
    }
}
