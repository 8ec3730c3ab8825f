//! Compact blocks ([BIP-0152], version 2): a block as a header and six bytes for each transaction, which the receiver
//! mostly has. Receiving them, from peers that push and from peers that were asked, and choosing who pushes. Whether a
//! filled block is the one that was mined the ledger says.
//!
//! [BIP-0152]: https://github.com/bitcoin/bips/blob/master/bip-0152.mediawiki

mod fill;
mod recent_block;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bitcoin::bip152::{BlockTransactionsRequest, HeaderAndShortIds};
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Transaction};
use groat_chain::rules::pow::{block_work, check_proof_of_work};

use crate::blocks::{Blocks, Form, can_direct_fetch};
use crate::handshake::CMPCTBLOCKS_VERSION;
use crate::headers::{self, anti_dos_work, note_available};
use crate::message::Message;
use crate::peer::{Peer, Peers};
use crate::protocol::{Cx, PeerId, Pending, TxVerdict, Work};
use crate::view::{Id, View};

use fill::{Extra, Flaw, Partial};
pub(crate) use recent_block::{RecentBlock, compact_block};

/// How far above our tip a compact block may be. Core: `ProcessMessage` CMPCTBLOCK.
const MAX_HEIGHT_ABOVE_TIP: u32 = 2;

/// What breaks a rule that no honest peer breaks.
type Misbehaviour = &'static str;

/// All compact blocks that are being filled, and who pushes them.
#[derive(Debug, Default)]
pub(crate) struct Compact {
    /// Each block that is being filled from a peer; none once that has failed and the peer is asked for all of it.
    tries: BTreeMap<(BlockHash, PeerId), Option<Partial>>,
    /// Peers that we asked to push, the one that was useful last at the end. Core: `lNodesAnnouncingHeaderAndIDs`.
    pushers: VecDeque<PeerId>,
    extra: Extra,
    /// The block that was filled last, and the places of its transactions that had to be fetched for that.
    fetched: Option<(BlockHash, Vec<u64>)>,
}

impl Compact {
    /// The pool did not take a transaction: a block may have it all the same. Core: `AddToCompactExtraTransactions`.
    pub(crate) fn remember(&mut self, tx: &Arc<Transaction>, verdict: TxVerdict, cx: &Cx<'_>) {
        if matches!(verdict, TxVerdict::Refused(_) | TxVerdict::Missing) {
            self.extra.remember(tx, cx.core.config.limits.extra_transactions);
        }
    }

    /// Transactions left the pool for others: a block may have them all the same. Core: `AddToCompactExtraTransactions`.
    pub(crate) fn on_replaced(&mut self, transactions: &[Arc<Transaction>], cx: &Cx<'_>) {
        transactions.iter().for_each(|tx| self.extra.remember(tx, cx.core.config.limits.extra_transactions));
    }

    /// A peer is gone.
    pub(crate) fn on_gone(&mut self, peer: PeerId) {
        self.tries.retain(|(_, of), _| *of != peer);
        self.pushers.retain(|pusher| *pusher != peer);
    }

    /// A peer gave a block that is the new tip: it is among those that push now. Core:
    /// `MaybeSetPeerAsAnnouncingHeaderAndIDs`.
    pub(crate) fn choose(&mut self, peers: &mut Peers, id: PeerId, cx: &mut Cx<'_>) {
        let Some(peer) = peers.get(&id).filter(|peer| peer.compact.is_some() && peer.closing.is_none()) else { return };
        // Without a pool there is nothing to fill blocks from.
        if cx.core.config.blocks_only {
            return;
        }
        if let Some(at) = self.pushers.iter().position(|pusher| *pusher == id) {
            self.pushers.remove(at);
            return self.pushers.push_back(id);
        }
        let most = cx.core.config.limits.compact_pushers;
        let dialled = |id: &PeerId| peers.get(id).is_some_and(|peer| !peer.kind.is_inbound());
        let last_dialled = self.pushers.front().is_some_and(dialled)
            && self.pushers.iter().filter(|pusher| dialled(pusher)).count() == 1;
        if peer.kind.is_inbound() && self.pushers.len() >= most && last_dialled {
            // Inbound peers, which an attacker can have many of, never drive out the last one that we dialled.
            self.pushers.swap(0, 1);
        }
        self.pushers.push_back(id);
        let dropped = if self.pushers.len() > most { self.pushers.pop_front() } else { None };
        for (id, push) in [(Some(id), true), (dropped, false)] {
            let Some(peer) = id.and_then(|id| peers.get_mut(&id)) else { continue };
            peer.pushes_to_us = push;
            cx.send(peer, Message::SendCmpct { announce: u8::from(push), version: CMPCTBLOCKS_VERSION });
        }
    }

    /// A compact block came. Its header goes to the ledger first, unless it is known. Core: `ProcessMessage` CMPCTBLOCK.
    pub(crate) fn on_cmpctblock(
        &mut self,
        peers: &mut Peers,
        id: PeerId,
        block: Arc<HeaderAndShortIds>,
        blocks: &mut Blocks,
        view: &impl View,
        cx: &mut Cx<'_>,
    ) -> Result<(), Misbehaviour> {
        let Some(peer) = peers.get_mut(&id).filter(|peer| peer.compact.is_some()) else { return Ok(()) };
        if cx.core.config.blocks_only {
            return Ok(());
        }
        let header = &block.header;
        let Some(parent) = view.find(&header.prev_blockhash) else {
            if !cx.core.initial_download {
                headers::ask(peer, view.locator(view.best_header()), cx);
            }
            return Ok(());
        };
        let params = cx.core.config.params.clone();
        let work = view.entry(parent).work + block_work(header.bits);
        if work < anti_dos_work(view, params.minimum_chain_work) {
            return Ok(());
        }
        let hash = header.block_hash();
        match view.find(&hash) {
            // Who pushes a block need not have judged it.
            Some(known) if view.entry(known).invalid => Ok(()),
            Some(known) => self.on_header_known(peers, id, (&block, known, false), blocks, view, cx),
            None if check_proof_of_work(hash, header.bits, &params).is_err() => Err("invalid header via cmpctblock"),
            None => {
                cx.work(peer, Work::Headers(vec![*header]), Pending::CmpctBlock(block));
                Ok(())
            }
        }
    }

    /// The header of a compact block is in the tree; `new`: it was not before.
    pub(crate) fn on_header_known(
        &mut self,
        peers: &mut Peers,
        id: PeerId,
        (block, known, new): (&HeaderAndShortIds, Id, bool),
        blocks: &mut Blocks,
        view: &impl View,
        cx: &mut Cx<'_>,
    ) -> Result<(), Misbehaviour> {
        let (entry, tip) = (view.entry(known), view.entry(view.tip()));
        let hash = entry.hash;
        let tries = Tries::new(peers, id, blocks.asked(&hash));
        let Some(peer) = peers.get_mut(&id) else { return Ok(()) };
        note_available(peer, hash, view);
        if new && entry.work > tip.work {
            peer.headers.last_announcement = Some(cx.now);
        }
        // Whatever becomes of the block, its header was an announcement.
        blocks.wake(id);
        let welcome = peer.pushes_to_us && (tries.count > 0 || can_direct_fetch(view, cx));
        if entry.has_block || (!tries.asked && (!welcome || blocks.is_judging(&hash))) {
            return Ok(());
        }
        let under_way = self.tries.contains_key(&(hash, id));
        // The pool will not be of much help with these.
        let far = entry.height > tip.height + MAX_HEIGHT_ABOVE_TIP;
        if entry.work <= tip.work || entry.complete || far {
            if tries.asked && !under_way {
                self.fail(peer, hash, true, blocks, cx);
            }
            return Ok(());
        }
        let limits = &cx.core.config.limits;
        let full = tries.count >= limits.compact_tries || peer.blocks.asked.len() >= limits.blocks_in_transit;
        if !tries.asked && full {
            // No request is free, but perhaps none is needed.
            if let Some(bytes) = self.fill_at_once(block, view) {
                blocks.deliver(peer, hash, bytes, Form::Compact { first: false }, true, cx);
            }
        } else if !under_way {
            return self.try_to_fill(peer, hash, block, tries, blocks, view, cx);
        }
        Ok(())
    }

    /// Fills a block as far as possible, and asks the peer for the rest.
    #[expect(clippy::too_many_arguments, reason = "one step of the function above")]
    fn try_to_fill(
        &mut self,
        peer: &mut Peer,
        hash: BlockHash,
        block: &HeaderAndShortIds,
        tries: Tries,
        blocks: &mut Blocks,
        view: &impl View,
        cx: &mut Cx<'_>,
    ) -> Result<(), Misbehaviour> {
        if !tries.asked {
            blocks.ask(peer, hash, cx);
        }
        let partial = match Partial::new(block, &self.extra, view) {
            Ok(partial) => partial,
            Err(Flaw::Ambiguous) => {
                self.fail(peer, hash, tries.first || blocks.is_hedged(&hash), blocks, cx);
                return Ok(());
            }
            Err(Flaw::Invalid) => {
                blocks.give_up(peer, &hash, cx);
                return Err("invalid compact block");
            }
        };
        let indexes = partial.missing();
        // Beside the first, the last place is for a peer that we dialled.
        let free = tries.count + 1 < cx.core.config.limits.compact_tries;
        // Once somebody kept the block back, all who were asked may do what the first may.
        let first = tries.first || blocks.is_hedged(&hash);
        let beside = peer.pushes_to_us && (!peer.kind.is_inbound() || tries.dialled || free);
        if indexes.is_empty() || first || beside {
            self.tries.insert((hash, peer.id), Some(partial));
        } else {
            blocks.give_up(peer, &hash, cx);
            return Ok(());
        }
        if indexes.is_empty() {
            return self.fill(peer, hash, &[], blocks, cx);
        }
        cx.send(peer, Message::GetBlockTxn(BlockTransactionsRequest { block_hash: hash, indexes }));
        Ok(())
    }

    fn fill_at_once(&self, block: &HeaderAndShortIds, view: &impl View) -> Option<Arc<Vec<u8>>> {
        Some(Arc::new(Partial::new(block, &self.extra, view).ok()?.fill(&[]).ok()?))
    }

    /// The missing transactions came. Core: `ProcessCompactBlockTxns`.
    pub(crate) fn on_blocktxn(
        &mut self,
        peer: &mut Peer,
        hash: BlockHash,
        transactions: &[Transaction],
        blocks: &mut Blocks,
        cx: &mut Cx<'_>,
    ) -> Result<(), Misbehaviour> {
        match self.tries.get(&(hash, peer.id)) {
            Some(Some(_)) => self.fill(peer, hash, transactions, blocks, cx),
            Some(None) if blocks.is_asked(peer.id, &hash) => {
                self.tries.remove(&(hash, peer.id));
                blocks.give_up(peer, &hash, cx);
                Err("previous compact block reconstruction attempt failed")
            }
            // Late, or never asked for.
            _ => Ok(()),
        }
    }

    fn fill(
        &mut self,
        peer: &mut Peer,
        hash: BlockHash,
        transactions: &[Transaction],
        blocks: &mut Blocks,
        cx: &mut Cx<'_>,
    ) -> Result<(), Misbehaviour> {
        let Some(partial) = self.tries.remove(&(hash, peer.id)).flatten() else { return Ok(()) };
        let first = blocks.asked(&hash).first() == Some(&peer.id) || blocks.is_hedged(&hash);
        let fetched = partial.missing();
        match partial.fill(transactions) {
            Ok(bytes) => {
                self.fetched = Some((hash, fetched));
                blocks.deliver(peer, hash, Arc::new(bytes), Form::Compact { first }, true, cx);
            }
            Err(Flaw::Ambiguous) => self.fail(peer, hash, first, blocks, cx),
            Err(Flaw::Invalid) => {
                blocks.give_up(peer, &hash, cx);
                return Err("invalid compact block/non-matching block transactions");
            }
        }
        Ok(())
    }

    /// A block cannot be filled: the first peer is asked for all of it, others have had their try.
    fn fail(&mut self, peer: &mut Peer, hash: BlockHash, first: bool, blocks: &mut Blocks, cx: &mut Cx<'_>) {
        if first {
            self.tries.insert((hash, peer.id), None);
            cx.send(peer, Message::GetData(vec![Inventory::WitnessBlock(hash)]));
        } else {
            blocks.give_up(peer, &hash, cx);
        }
    }

    /// The ledger has judged a block that was filled from this peer. `mutated`: not these were its transactions; short
    /// ids may have met by chance.
    pub(crate) fn on_judged(
        &mut self,
        peer: &mut Peer,
        hash: BlockHash,
        mutated: bool,
        first: bool,
        blocks: &mut Blocks,
        cx: &mut Cx<'_>,
    ) {
        if mutated {
            self.take_fetched(&hash);
        }
        if mutated && peer.closing.is_none() && (first || blocks.asked(&hash).is_empty()) {
            blocks.ask(peer, hash, cx);
            self.fail(peer, hash, true, blocks, cx);
        }
    }

    /// The places of the transactions that had to be fetched for this block: others are likely to lack them, too.
    pub(crate) fn take_fetched(&mut self, hash: &BlockHash) -> Vec<u64> {
        self.fetched.take_if(|(of, _)| of == hash).map_or_else(Vec::new, |(_, places)| places)
    }

    /// Forgets the tries of blocks that nobody is asked for any more.
    pub(crate) fn tidy(&mut self, blocks: &Blocks) {
        self.tries.retain(|(hash, peer), _| blocks.is_asked(*peer, hash));
    }
}

/// What goes on with a block when one more peer has it as a compact block.
#[derive(Clone, Copy, Debug)]
struct Tries {
    /// Peers that were asked for it.
    count: usize,
    /// The peer is one of them.
    asked: bool,
    /// The peer is the first of them, or will be.
    first: bool,
    /// One of them is a peer that we dialled.
    dialled: bool,
}

impl Tries {
    fn new(peers: &Peers, id: PeerId, asked: &[PeerId]) -> Tries {
        Tries {
            count: asked.len(),
            asked: asked.contains(&id),
            first: asked.first().is_none_or(|first| *first == id),
            dialled: asked.iter().any(|id| peers.get(id).is_some_and(|peer| !peer.kind.is_inbound())),
        }
    }
}
