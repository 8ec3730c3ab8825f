//! What goes wrong without anybody meaning it: nodes crash and come up again, the network falls in two.

use std::time::Duration;

use rand::Rng;

use super::backend::Backend;
use super::ends::Party;
use super::link::Link;
use super::trace::Step;
use super::world::{Happening, World};
use crate::peer::LinkKind;
use crate::protocol::{PeerId, Protocol};

/// Who lost a link that it had dialled dials again after this, and by chance up to as much again.
const REDIAL_AFTER: Duration = Duration::from_secs(5);

impl<B: Backend> World<B> {
    /// The process of a node ends. What it knew of peers is lost, its chain is kept.
    pub fn crash(&mut self, number: usize) {
        let peers: Vec<PeerId> = self.nodes[number].protocol.peers().map(|peer| peer.id).collect();
        for peer in peers {
            self.hang_up(peer);
            self.end(peer).open = false;
        }
        let node = &mut self.nodes[number];
        node.life += 1;
        node.up = false;
        node.paused.clear();
        node.config.seed[8..12].copy_from_slice(&node.life.to_le_bytes());
        node.protocol = Protocol::new(node.config.clone());
        self.trace.note(self.now, number, Step::Switched(false));
    }

    /// It starts again and dials whom it had dialled, if nodes dial again at all.
    pub fn restart(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.up = true;
        let (life, dials) = (node.life, node.dials.clone());
        self.trace.note(self.now, number, Step::Switched(true));
        for (to, kind, link) in dials {
            self.push(self.now, Happening::Redial(Box::new((number, life, to, kind, link))));
        }
    }

    /// A link of a node has ended: if it had dialled, it dials again.
    pub(super) fn ended(&mut self, id: PeerId) {
        if !self.redial {
            return;
        }
        let end = self.end(id);
        // The first of a pair of ends is the dialler's.
        let (Party::Node(from), true, other) = (end.party, end.other > id, end.other) else { return };
        let Party::Node(to) = self.end(other).party else { return };
        let node = &self.nodes[from as usize];
        if let Some((to, kind, link)) = node.dials.iter().find(|dial| dial.0 == to as usize).copied() {
            self.dial_later(from as usize, node.life, to, kind, link);
        }
    }

    fn dial_later(&mut self, from: usize, life: u32, to: usize, kind: LinkKind, link: Link) {
        let more = self.rng.random_range(0..=REDIAL_AFTER.as_micros() as u64);
        let at = self.now + REDIAL_AFTER + Duration::from_micros(more);
        self.push(at, Happening::Redial(Box::new((from, life, to, kind, link))));
    }

    pub(super) fn dial_again(&mut self, (from, life, to, kind, link): (usize, u32, usize, LinkKind, Link)) {
        if !self.nodes[from].up || self.nodes[from].life != life {
            return;
        }
        let reachable = self.nodes[to].up && (self.sides.is_empty() || self.sides[from] == self.sides[to]);
        if reachable {
            self.link(from, to, kind, link);
        } else {
            self.dial_later(from, life, to, kind, link);
        }
    }

    /// Divides the network: nothing passes between nodes of different sides. What is sent meanwhile is held, as TCP
    /// would send it again.
    pub fn divide(&mut self, side: impl Fn(usize) -> u8) {
        self.sides = (0..self.nodes.len()).map(side).collect();
    }

    /// Makes it whole: what was held is on its way.
    pub fn heal(&mut self) {
        self.sides.clear();
        for (delay, happening) in std::mem::take(&mut self.held) {
            self.push(self.now + delay, happening);
        }
    }

    pub(super) fn divided(&mut self, from: Party, other: PeerId) -> bool {
        match (from, self.end(other).party) {
            (Party::Node(from), Party::Node(to)) => self.sides[from as usize] != self.sides[to as usize],
            _ => false,
        }
    }
}
