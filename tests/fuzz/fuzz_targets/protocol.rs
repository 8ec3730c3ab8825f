//! The protocol over a played ledger: links, messages of any content, answers in any order and jumps of the clock never
//! panic; nobody is spoken to whose link has ended, and what is asked of a peer stays within the caps.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use bitcoin::p2p::message_blockdata::Inventory;
use groat_chain::params::{Params, RegtestOptions};
use groat_fuzz::Cursor;
use groat_net::addr::{Host, NetAddr};
use groat_net::limits::Limits;
use groat_net::message::{Locate, Message, Version};
use groat_net::peer::{LinkKind, Permissions};
use groat_net::protocol::{Input, Output, PeerId, Protocol, Token, Work};
use groat_net::sim::{Chain, Mined, Miner, World};
use groat_net::timers::Micros;
use libfuzzer_sys::fuzz_target;

/// Links at a time: fewer than that meet every rule.
const MAX_LINKS: usize = 8;
/// Blocks of each of two branches.
const BLOCKS: usize = 40;

static PARAMS: LazyLock<Arc<Params>> = LazyLock::new(|| Arc::new(Params::regtest(&RegtestOptions::default())));
/// Two branches from genesis.
static BLOCKS_OF: LazyLock<[Vec<Mined>; 2]> =
    LazyLock::new(|| [1, 2].map(|salt| Miner::new(PARAMS.clone(), salt).mine(PARAMS.genesis_hash, BLOCKS)));

struct Driver {
    protocol: Protocol,
    chain: Chain,
    now: Micros,
    links: BTreeSet<PeerId>,
    next_link: u64,
    work: BTreeMap<Token, Work>,
}

impl Driver {
    fn give(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.protocol.handle(self.now, input, &self.chain, &mut outputs);
        for output in outputs {
            match output {
                Output::Send { to, message } => {
                    assert!(self.links.contains(&to), "{message:?} was sent to {to:?}, whose link has ended");
                }
                Output::Disconnect { peer, reason } => {
                    assert!(self.links.remove(&peer), "the link of {peer:?} was ended twice: {reason:?}");
                }
                Output::PauseRead(peer) | Output::ResumeRead(peer) => {
                    assert!(self.links.contains(&peer), "{peer:?} is to be read or not, and its link has ended");
                }
                Output::Chain { token, work } => {
                    assert!(self.work.insert(token, work).is_none(), "{token:?} was used twice");
                }
                _ => {}
            }
        }
        let limits = Limits::default();
        assert_eq!(self.protocol.peers().count(), self.links.len(), "peers that the protocol knows");
        for peer in self.protocol.peers() {
            let asked = peer.blocks_in_flight().len();
            assert!(asked <= limits.blocks_in_transit, "{asked} blocks are asked of {:?}", peer.id);
        }
    }

    /// Does the n-th piece of work that waits.
    fn perform(&mut self, which: usize) {
        let Some(token) = self.work.keys().nth(which % self.work.len().max(1)).copied() else { return };
        let work = self.work.remove(&token).expect("it was just found");
        let (done, told) = self.chain.perform(work, self.now);
        told.into_iter().for_each(|input| self.give(input));
        self.give(Input::ChainDone { token, done });
    }
}

fn kind_of_link(cursor: &mut Cursor<'_>) -> LinkKind {
    use LinkKind::{AddrFetch, BlockRelay, Feeler, Inbound, Manual, OutboundFull};
    [Inbound, OutboundFull, BlockRelay, Feeler, Manual, AddrFetch][usize::from(cursor.byte() % 6)]
}

fn version(cursor: &mut Cursor<'_>) -> Message {
    let receiver = NetAddr { host: Host::V4([1, 2, 3, 4]), port: 1 };
    Message::Version(Box::new(Version {
        version: if cursor.byte() % 4 == 0 { cursor.number() as i32 } else { 70_017 },
        services: u64::from(cursor.byte()) << 2 | 9,
        time: 1_700_000_000,
        receiver,
        nonce: cursor.number() as u64,
        user_agent: "/fuzz/".into(),
        start_height: 40,
        relay: cursor.byte() % 2 == 0,
    }))
}

/// A message: of any content, or one that fits the chain, without which no sync would ever go on.
fn message(cursor: &mut Cursor<'_>) -> Message {
    let branch = &BLOCKS_OF[usize::from(cursor.byte() % 2)];
    let from = usize::from(cursor.byte()) % BLOCKS;
    let count = usize::from(cursor.byte()) % (BLOCKS - from) + 1;
    let run = &branch[from..from + count];
    match cursor.byte() % 12 {
        0 => version(cursor),
        1 => Message::Verack,
        2 => Message::WtxidRelay,
        3 => Message::Headers(run.iter().map(|block| block.header).collect()),
        4 => Message::Inv(run.iter().map(|block| Inventory::Block(block.hash)).collect()),
        5 => Message::Block(run[0].bytes.clone()),
        6 => Message::GetData(run.iter().map(|block| Inventory::WitnessBlock(block.hash)).collect()),
        7 => Message::GetHeaders(Locate { locator: vec![run[0].hash], stop: run[count - 1].hash }),
        8 => Message::SendCmpct { announce: cursor.byte() % 3, version: 2 },
        9 => Message::Pong(cursor.number() as u64),
        _ => Message::decode(cursor.kind(), cursor.some_bytes().to_vec()),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut cursor = Cursor(bytes);
    let mut config = World::config(&PARAMS);
    config.blocks_only = cursor.byte() % 4 == 0;
    let mut chain = Chain::new(PARAMS.clone());
    let at = u64::from(PARAMS.genesis.header.time) + 40 * 600;
    chain.load(&BLOCKS_OF[0][..usize::from(cursor.byte()) % BLOCKS]);
    let mut driver = Driver {
        protocol: Protocol::new(config),
        chain,
        now: Micros(at * 1_000_000),
        links: BTreeSet::new(),
        next_link: 1,
        work: BTreeMap::new(),
    };
    while !cursor.is_empty() {
        let op = cursor.byte();
        let which = usize::from(cursor.byte());
        let link = driver.links.iter().nth(which % driver.links.len().max(1)).copied();
        match (op % 16, link) {
            (0 | 1, _) if driver.links.len() < MAX_LINKS => {
                let peer = PeerId(driver.next_link);
                driver.next_link += 1;
                driver.links.insert(peer);
                let addr = NetAddr { host: Host::V4([20, op, 0, which as u8]), port: 8333 };
                let permissions = Permissions { no_ban: which % 8 == 0, ..Permissions::default() };
                driver.give(Input::Connected { peer, addr, kind: kind_of_link(&mut cursor), permissions });
            }
            // A handshake in one go: else few links would be open.
            (2, Some(peer)) => {
                for message in [version(&mut cursor), Message::Verack] {
                    driver.give(Input::Message { peer, message, wire_len: 100 });
                }
            }
            (3, Some(peer)) if which % 4 == 0 => {
                driver.links.remove(&peer);
                driver.give(Input::Closed(peer));
            }
            (4, Some(peer)) => driver.give(Input::Queued { peer, bytes: cursor.number() % 3_000_000 }),
            (5, _) => {
                // Mostly on, sometimes back.
                let step = cursor.number() as u64 * 10_000;
                driver.now.0 =
                    if which % 16 == 0 { driver.now.0 - step.min(driver.now.0) } else { driver.now.0 + step };
                driver.give(Input::Tick);
            }
            (6..=9, _) => driver.perform(which),
            (_, Some(peer)) => {
                let message = message(&mut cursor);
                let wire_len = 24 + cursor.number() % 100_000;
                driver.give(Input::Message { peer, message, wire_len });
            }
            _ => {}
        }
    }
    // All answers come in the end.
    for _ in 0..1_000 {
        driver.perform(0);
    }
});
