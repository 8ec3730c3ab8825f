//! Attackers of transaction relay: one announces and never delivers, one floods.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Wtxid};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Act, Actor, Cue, greet, polite};
use crate::message::Message;
use crate::protocol::PeerId;
use crate::timers::Micros;

/// Announces to all its links at once whatever it hears of, and never delivers.
#[derive(Default)]
pub struct Liar {
    links: BTreeSet<PeerId>,
    told: BTreeSet<Wtxid>,
}

impl Actor for Liar {
    fn take(&mut self, now: Micros, cue: Cue, out: &mut Vec<Act>) {
        match cue {
            Cue::Linked { end, .. } => {
                self.links.insert(end);
                greet(now, end, out);
            }
            Cue::Closed(end) => drop(self.links.remove(&end)),
            Cue::Heard(end, message) if !polite(end, &message, out) => {
                let Message::Inv(items) = &*message else { return };
                let fresh: Vec<Inventory> = items
                    .iter()
                    .copied()
                    .filter(|item| matches!(item, Inventory::WTx(id) if self.told.insert(*id)))
                    .collect();
                if !fresh.is_empty() {
                    let inv = Arc::new(Message::Inv(fresh));
                    out.extend(self.links.iter().map(|link| Act::Say(*link, inv.clone())));
                }
            }
            Cue::Heard(..) | Cue::Wake => {}
        }
    }
}

/// Announces transactions that do not exist, asks for a block again and again, and reads none of it.
pub struct Flooder {
    links: BTreeSet<PeerId>,
    rng: ChaCha8Rng,
    /// Entries of an announcement, one a second to each link.
    entries: usize,
    /// What it asks for.
    block: BlockHash,
    until: Micros,
}

impl Flooder {
    /// One that goes on until then.
    pub fn new(seed: u64, entries: usize, block: BlockHash, until: Micros) -> Flooder {
        Flooder { links: BTreeSet::new(), rng: ChaCha8Rng::seed_from_u64(seed), entries, block, until }
    }
}

impl Actor for Flooder {
    fn take(&mut self, now: Micros, cue: Cue, out: &mut Vec<Act>) {
        match cue {
            Cue::Linked { end, .. } => {
                self.links.insert(end);
                greet(now, end, out);
            }
            Cue::Closed(end) => drop(self.links.remove(&end)),
            Cue::Heard(end, message) => {
                polite(end, &message, out);
                if matches!(*message, Message::Verack) {
                    out.push(Act::StopReading(end));
                }
            }
            Cue::Wake if now >= self.until => {}
            Cue::Wake => {
                let mut invented = || {
                    let mut id = [0; 32];
                    self.rng.fill_bytes(&mut id);
                    Inventory::WTx(Wtxid::from_byte_array(id))
                };
                let inv = Arc::new(Message::Inv((0..self.entries).map(|_| invented()).collect()));
                let get = Arc::new(Message::GetData(vec![Inventory::WitnessBlock(self.block); 1000]));
                for link in &self.links {
                    out.push(Act::Say(*link, inv.clone()));
                    out.push(Act::Say(*link, get.clone()));
                }
                out.push(Act::WakeAt(now + Duration::from_secs(1)));
            }
        }
    }
}
