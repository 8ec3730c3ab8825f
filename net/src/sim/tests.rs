//! The protocol between virtual ends: handshake, sync of headers and blocks, each bound and what breaking it leads to.

mod blocks;
mod bounds;
mod compact;
mod gossip;
mod handshake;
mod headers;
mod light;
mod orphans;
mod scenarios;
mod serve;
mod slots;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use groat_chain::params::{Params, RegtestOptions};
use groat_chain::rules::pow::block_work;

use super::*;
use crate::addr::{Host, NetAddr};
use crate::message::{Message, Version};
use crate::peer::{LinkKind, NODE_NETWORK, NODE_WITNESS, Permissions};
use crate::protocol::{PeerId, Reason};
use crate::timers::Micros;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn params() -> Arc<Params> {
    Arc::new(Params::regtest(&RegtestOptions::default()))
}

/// Regtest on which a chain counts from `blocks` blocks on.
fn params_with_work(blocks: u32) -> Arc<Params> {
    let mut params = Params::regtest(&RegtestOptions::default());
    let one = block_work(params.genesis.header.bits);
    params.minimum_chain_work = (0..blocks).fold(one, |work, _| work + one);
    Arc::new(params)
}

/// A moment at which a chain of so many blocks is fresh.
fn when(params: &Params, blocks: usize) -> Micros {
    Micros::from_seconds(u64::from(params.genesis.header.time) + blocks as u64 * u64::from(params.spacing) + 60)
}

/// A world with one node that has these blocks, at a moment when `fresh` blocks are.
fn world_with(params: &Arc<Params>, loads: &[&[Mined]], fresh: usize) -> World {
    let mut world = World::new(1, when(params, fresh));
    for load in loads {
        let mut chain = Chain::new(params.clone());
        chain.load(load);
        world.add(World::config(params), chain);
    }
    world
}

fn mine(params: &Arc<Params>, count: usize) -> Vec<Mined> {
    Miner::new(params.clone(), 0).mine(params.genesis_hash, count)
}

/// What a common node says first.
fn hello(services: u64) -> Version {
    Version {
        version: 70017,
        services,
        time: 0,
        receiver: NetAddr { host: Host::V6([0; 16]), port: 0 },
        nonce: 42,
        user_agent: "/test/".into(),
        start_height: 0,
        relay: true,
    }
}

const FULL: u64 = NODE_NETWORK | NODE_WITNESS;

/// A test that has shaken hands with node 0: its own end, and the node's id for it. What was heard is forgotten.
fn befriend(world: &mut World, kind: LinkKind, permissions: Permissions) -> (PeerId, PeerId) {
    let (own, theirs) = world.speak_to(0, kind, permissions);
    world.say(own, Message::Version(Box::new(hello(FULL))));
    world.say(own, Message::Verack);
    world.run_for(SECOND / 10);
    answer_pings(world, own);
    (own, theirs)
}

fn inbound(world: &mut World) -> (PeerId, PeerId) {
    befriend(world, LinkKind::Inbound, Permissions::default())
}

/// Answers the pings that came and gives all else that came.
fn answer_pings(world: &mut World, own: PeerId) -> Vec<Arc<Message>> {
    let mut rest = Vec::new();
    for message in world.heard(own) {
        match *message {
            Message::Ping(nonce) => world.say(own, Message::Pong(nonce)),
            _ => rest.push(message),
        }
    }
    rest
}

/// Why node 0 ended this link.
fn reason(world: &World, peer: PeerId) -> Option<Reason> {
    world.nodes[0].ended.iter().find(|end| end.0 == peer).map(|end| end.1)
}

fn discouraged(world: &World, peer: PeerId) -> bool {
    matches!(reason(world, peer), Some(Reason::Misbehaved(_))) && world.nodes[0].protocol.is_discouraged(&host_of(peer))
}

/// Where the test is whom a node knows by this id.
fn host_of(peer: PeerId) -> Host {
    Host::V4([20, 0, ((peer.0 - 1) >> 8) as u8, (peer.0 - 1) as u8])
}

fn names(messages: &[Arc<Message>]) -> Vec<&'static str> {
    messages.iter().map(|message| message.kind().map_or("?", |kind| kind.name())).collect()
}

fn tips(world: &World) -> Vec<BlockHash> {
    world.nodes.iter().map(|node| node.chain.tip()).collect()
}
