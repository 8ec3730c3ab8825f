//! Attackers of the sync: one serves headers and holds blocks back, one sends chains of headers that lead nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::p2p::message_blockdata::Inventory;

use super::{Act, Actor, Cue, greet, polite};
use crate::message::{Locate, MAX_HEADERS_RESULTS, Message};
use crate::protocol::PeerId;
use crate::sim::chain::Mined;
use crate::timers::Micros;

/// A chain to serve from, by height less one.
pub struct Served {
    blocks: Arc<Vec<Mined>>,
    heights: BTreeMap<BlockHash, usize>,
}

impl Served {
    /// From the block after genesis on.
    pub fn new(blocks: Arc<Vec<Mined>>) -> Arc<Served> {
        let heights = blocks.iter().enumerate().map(|(at, block)| (block.hash, at + 1)).collect();
        Arc::new(Served { blocks, heights })
    }

    fn headers_after(&self, locate: &Locate) -> Vec<Header> {
        let known = locate.locator.iter().find_map(|hash| self.heights.get(hash)).copied().unwrap_or(0);
        self.blocks[known..].iter().take(MAX_HEADERS_RESULTS).map(|block| block.header).collect()
    }

    fn block(&self, hash: &BlockHash) -> Option<&Mined> {
        self.heights.get(hash).map(|height| &self.blocks[height - 1])
    }
}

/// How blocks are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// None is ever sent.
    All,
    /// The first of every sixteen is not sent.
    First,
    /// One is sent in this time.
    Drip(Duration),
}

/// Serves headers like a good peer, and blocks badly.
pub struct Staller {
    chain: Arc<Served>,
    how: Stall,
    waiting: std::collections::VecDeque<(PeerId, BlockHash)>,
}

impl Staller {
    /// One with this chain.
    pub fn new(chain: Arc<Served>, how: Stall) -> Staller {
        Staller { chain, how, waiting: Default::default() }
    }

    fn serve(&self, end: PeerId, hash: &BlockHash, out: &mut Vec<Act>) {
        if let Some(block) = self.chain.block(hash) {
            out.push(Act::Say(end, Arc::new(Message::Block(block.bytes.clone()))));
        }
    }
}

impl Actor for Staller {
    fn take(&mut self, now: Micros, cue: Cue, out: &mut Vec<Act>) {
        match cue {
            Cue::Linked { end, .. } => greet(now, end, out),
            Cue::Closed(closed) => self.waiting.retain(|(end, _)| *end != closed),
            Cue::Wake => {
                let Stall::Drip(pause) = self.how else { return };
                if let Some((end, hash)) = self.waiting.pop_front() {
                    self.serve(end, &hash, out);
                    out.push(Act::WakeAt(now + pause));
                }
            }
            Cue::Heard(end, message) => match &*message {
                Message::GetHeaders(locate) => {
                    out.push(Act::Say(end, Arc::new(Message::Headers(self.chain.headers_after(locate)))));
                }
                Message::GetData(items) => {
                    let hashes = items.iter().filter_map(|item| match item {
                        Inventory::WitnessBlock(hash) => Some(*hash),
                        _ => None,
                    });
                    for hash in hashes {
                        match self.how {
                            Stall::All => {}
                            Stall::First if self.chain.heights.get(&hash).is_none_or(|height| height % 16 == 1) => {}
                            Stall::First => self.serve(end, &hash, out),
                            Stall::Drip(pause) => {
                                if self.waiting.is_empty() {
                                    out.push(Act::WakeAt(now + pause));
                                }
                                self.waiting.push_back((end, hash));
                            }
                        }
                    }
                }
                other => drop(polite(end, other, out)),
            },
        }
    }
}

/// Sends long chains of headers with too little work, each up to a point, then another one.
pub struct HeaderSpammer {
    /// The chains, each from the block after genesis on.
    chains: Vec<Arc<Vec<Mined>>>,
    /// Which chain each link is given, and how far it came.
    progress: BTreeMap<PeerId, (usize, usize)>,
    until: Micros,
}

impl HeaderSpammer {
    /// One that goes through these chains over and over until then.
    pub fn new(chains: Vec<Arc<Vec<Mined>>>, until: Micros) -> HeaderSpammer {
        HeaderSpammer { chains, progress: BTreeMap::new(), until }
    }

    fn send(&mut self, end: PeerId, out: &mut Vec<Act>) {
        let Some((chain, from)) = self.progress.get_mut(&end) else { return };
        let blocks = &self.chains[*chain % self.chains.len()];
        let to = (*from + MAX_HEADERS_RESULTS).min(blocks.len());
        let headers = blocks[*from..to].iter().map(|block| block.header).collect();
        out.push(Act::Say(end, Arc::new(Message::Headers(headers))));
        (*chain, *from) = if to == blocks.len() { (*chain + 1, 0) } else { (*chain, to) };
    }
}

impl Actor for HeaderSpammer {
    fn take(&mut self, now: Micros, cue: Cue, out: &mut Vec<Act>) {
        match cue {
            Cue::Linked { end, .. } => {
                self.progress.insert(end, (end.0 as usize, 0));
                greet(now, end, out);
            }
            Cue::Closed(end) => drop(self.progress.remove(&end)),
            Cue::Heard(end, message) => match &*message {
                // What it is asked for goes on where it stopped: this is how a low-work sync is fed.
                Message::GetHeaders(_) if now < self.until => self.send(end, out),
                other => drop(polite(end, other, out)),
            },
            Cue::Wake if now >= self.until => {}
            Cue::Wake => {
                for end in self.progress.keys().copied().collect::<Vec<_>>() {
                    self.send(end, out);
                }
                out.push(Act::WakeAt(now + Duration::from_secs(1)));
            }
        }
    }
}
