//! What must hold whatever happens: one tip in the end, never an invalid block, tables within their bounds, and nobody
//! honest punished.

use super::backend::Backend;
use super::share::Share;
use super::world::World;
use crate::protocol::{PeerId, Reason};

/// Nodes that run.
fn running<B>(world: &World<B>) -> impl Iterator<Item = (usize, &super::Node<B>)> {
    world.nodes.iter().enumerate().filter(|(_, node)| node.up)
}

/// All nodes that run have the same tip.
pub fn one_tip(world: &World<Share>) -> Result<(), String> {
    let mut tips: Vec<_> = running(world).map(|(_, node)| node.chain.tip_hash()).collect();
    let all = tips.len();
    tips.sort_unstable();
    let largest = tips.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
    tips.dedup();
    if tips.len() <= 1 { Ok(()) } else { Err(format!("{} tips; {largest} of {all} nodes share one", tips.len())) }
}

/// No node stands on an invalid block.
pub fn no_invalid_block(world: &World<Share>) -> Result<(), String> {
    match running(world).find(|(_, node)| !node.chain.is_on_a_valid_chain()) {
        None => Ok(()),
        Some((number, _)) => Err(format!("node {number} stands on an invalid block")),
    }
}

/// Every table of every node is within its bound.
pub fn within_bounds<B: Backend>(world: &World<B>) -> Result<(), String> {
    match running(world).find_map(|(number, node)| Some((number, node.protocol.overdrawn()?))) {
        None => Ok(()),
        Some((number, what)) => Err(format!("node {number}: {what}")),
    }
}

/// No link between two nodes ended for misbehaviour.
pub fn nobody_honest_is_punished<B: Backend>(world: &World<B>) -> Result<(), String> {
    for (number, node) in world.nodes.iter().enumerate() {
        let honest = |peer: &PeerId| world.is_link_of_nodes(*peer);
        if let Some((peer, reason)) =
            node.ended.iter().find(|(peer, reason)| matches!(reason, Reason::Misbehaved(_)) && honest(peer))
        {
            return Err(format!("node {number} ended link {} with an honest node: {reason:?}", peer.0));
        }
    }
    Ok(())
}
