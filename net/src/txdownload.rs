//! Transactions that others have and we do not: what is asked for, what was refused and is not asked for again, what
//! waits for its parents, what is tried together with its child. Whether one is valid the ledger says. Core:
//! `txdownloadman_impl.cpp`. Announces and serves nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{BlockHash, Txid, Wtxid};
use groat_chain::block::Block;
use groat_chain::rejection::{Blame, Rejection};
use rand::Rng;

use crate::limits::Limits;
use crate::message::{GenTxid, Message};
use crate::orphans::{Named, Orphans};
use crate::peer::{NODE_WITNESS, Peer, Peers};
use crate::protocol::{Cx, MAX_GETDATA_SZ, OrphanTx, PeerId, Pending, Policy, TxVerdict, Work};
use crate::recent::Recent;
use crate::requests::{Circumstances, Requests};
use crate::timers::{
    GETDATA_TX_INTERVAL, HEDGE_AFTER, HEDGE_AFTER_MAX, HEDGED_NONPREF_PEER_TX_DELAY, Micros, NONPREF_PEER_TX_DELAY,
    TXID_RELAY_DELAY,
};
use crate::view::View;

/// Requests for the parents of one orphan, of all peers together: thousands may announce one with thousands of inputs.
const MAX_PARENT_REQUESTS: usize = 10_000;

/// What need not be asked for.
#[derive(Debug)]
struct Seen {
    orphans: Orphans,
    /// Refused until the tip changes, whatever comes with them.
    rejects: Recent,
    /// Refused alone until the tip changes; and packages that were refused, by their hash.
    reconsiderable: Recent,
    /// In one of the last blocks.
    confirmed: Recent,
}

impl Seen {
    /// Core: `AlreadyHaveTx`. An orphan with another witness may have the same txid: it does not count.
    fn has(&self, id: &GenTxid, alone: bool, view: &impl View) -> bool {
        let hash = id.bytes();
        self.orphans.get(&Wtxid::from_byte_array(*hash)).is_some()
            || (alone && self.reconsiderable.contains(hash))
            || self.confirmed.contains(hash)
            || self.rejects.contains(hash)
            || view.pool_tx(id).is_some()
    }
}

/// The state of all that is fetched.
#[derive(Debug)]
pub(crate) struct TxDownload {
    requests: Requests,
    seen: Seen,
    /// Peers that announce by wtxid.
    wtxid_peers: usize,
    /// Peers that have an orphan to be judged again.
    woken: BTreeSet<PeerId>,
    /// The tip that was told last.
    tip: Option<BlockHash>,
}

impl TxDownload {
    pub(crate) fn new(limits: &Limits, rng: &mut impl Rng) -> TxDownload {
        let mut salt = || (rng.random(), rng.random());
        TxDownload {
            requests: Requests::new(salt(), limits),
            seen: Seen {
                orphans: Orphans::new(limits),
                rejects: Recent::new(limits.recent_rejects, salt()),
                reconsiderable: Recent::new(limits.recent_rejects, salt()),
                confirmed: Recent::new(limits.recent_confirmed, salt()),
            },
            wtxid_peers: 0,
            woken: BTreeSet::new(),
            tip: None,
        }
    }

    pub(crate) fn on_ready(&mut self, peer: &Peer) {
        self.wtxid_peers += usize::from(peer.wtxid_relay);
    }

    pub(crate) fn on_gone(&mut self, peer: &Peer, now: Micros) {
        self.wtxid_peers -= usize::from(peer.ready && peer.wtxid_relay);
        self.requests.on_gone(peer.id, now);
        self.seen.orphans.on_gone(peer.id);
    }

    /// How a peer's announcement is to be treated.
    fn circumstances(&self, peer: &Peer, id: &GenTxid, policy: Policy) -> Circumstances {
        let inbound_delay = match policy {
            Policy::Core => NONPREF_PEER_TX_DELAY,
            Policy::Groat => HEDGED_NONPREF_PEER_TX_DELAY,
        };
        let patience = match policy {
            Policy::Core => GETDATA_TX_INTERVAL,
            // A peer that answers pings late must not gain much by it.
            Policy::Groat => (4 * peer.round_trips().0.unwrap_or_default()).clamp(HEDGE_AFTER, HEDGE_AFTER_MAX),
        };
        let mut delay = if peer.is_preferred() { Duration::ZERO } else { inbound_delay };
        if self.wtxid_peers > 0 && matches!(id, GenTxid::Txid(_)) {
            delay += TXID_RELAY_DELAY;
        }
        Circumstances { preferred: peer.is_preferred(), delay, patience, trusted: peer.permissions.relay }
    }

    /// A peer says that it has a transaction. Core: `AddTxAnnouncement`.
    pub(crate) fn on_announced(&mut self, peer: &Peer, id: GenTxid, view: &impl View, cx: &mut Cx<'_>) {
        let orphan = match &id {
            GenTxid::Wtxid(wtxid) => self.seen.orphans.get(wtxid),
            GenTxid::Txid(_) => None,
        };
        if let Some(orphan) = orphan.cloned() {
            // Looking through many parents takes time: not for one who says the same again, or has no room for them.
            if !self.may_resolve(peer, &orphan.wtxid, orphan.tx.input.len()) {
                return;
            }
            let missing = self.missing_parents(&orphan, view);
            // Also where none is missing at present: it is looked through once for each peer.
            if self.ask_for_parents(peer, &orphan.wtxid, &missing, cx) {
                self.seen.orphans.add_announcer(&orphan.wtxid, peer.id, peer.is_preferred());
            }
        } else if self.requests.takes(peer.id, id.bytes(), peer.permissions.relay) && !self.seen.has(&id, true, view) {
            let around = self.circumstances(peer, &id, cx.core.config.relay);
            self.requests.announced(peer.id, id, around, cx.now);
        }
    }

    fn missing_parents(&self, orphan: &Named, view: &impl View) -> Vec<Txid> {
        let is_missing = |txid: &Txid| !self.seen.has(&GenTxid::Txid(*txid), false, view);
        orphan.parents().into_iter().filter(is_missing).collect()
    }

    /// Whether a peer that has an orphan may be asked for so many parents of it: not if it had its chance or has announced
    /// too much; nor if many others are asked already, unless it is one of those whom an attacker cannot have many of.
    fn may_resolve(&self, peer: &Peer, orphan: &Wtxid, parents: usize) -> bool {
        let others = self.seen.orphans.announcers(orphan);
        let crowded = others > 0 && !peer.is_preferred() && (others + 1) * parents > MAX_PARENT_REQUESTS;
        !crowded
            && self.requests.has_room(peer.id, parents, peer.permissions.relay)
            && !self.seen.orphans.is_announced_by(orphan, peer.id)
    }

    /// Asks a peer that has an orphan for its parents, as if it had announced them. False if it may not be asked. Core:
    /// `MaybeAddOrphanResolutionCandidate`.
    fn ask_for_parents(&mut self, peer: &Peer, orphan: &Wtxid, parents: &[Txid], cx: &mut Cx<'_>) -> bool {
        if !self.may_resolve(peer, orphan, parents.len()) {
            return false;
        }
        for parent in parents {
            let id = GenTxid::Txid(*parent);
            let around = self.circumstances(peer, &id, cx.core.config.relay);
            self.requests.announced(peer.id, id, around, cx.now);
        }
        true
    }

    /// A transaction came. Core: `ReceivedTx`.
    pub(crate) fn on_tx(&mut self, peer: &mut Peer, one: Named, view: &impl View, cx: &mut Cx<'_>) {
        for id in [GenTxid::Txid(one.txid), GenTxid::Wtxid(one.wtxid)] {
            self.requests.answered(peer.id, id.bytes(), cx.now);
        }
        let id = GenTxid::Wtxid(one.wtxid);
        if self.seen.has(&id, false, view) {
            return;
        }
        if self.seen.reconsiderable.contains(id.bytes()) {
            self.try_with_child(peer, one, cx);
        } else {
            self.judge(peer, one, true, cx);
        }
    }

    fn judge(&mut self, peer: &mut Peer, one: Named, first: bool, cx: &mut Cx<'_>) {
        self.hold(&one);
        cx.work(peer, Work::Transaction(one.tx.clone()), Pending::Transaction { one, first });
    }

    fn hold(&mut self, one: &Named) {
        self.requests.hold(one.txid.as_byte_array());
        self.requests.hold(one.wtxid.as_byte_array());
    }

    fn release(&mut self, one: &Named, now: Micros) {
        self.requests.release(one.txid.as_byte_array(), now);
        self.requests.release(one.wtxid.as_byte_array(), now);
    }

    fn forget(&mut self, one: &Named) {
        self.requests.forget(one.txid.as_byte_array());
        self.requests.forget(one.wtxid.as_byte_array());
    }

    /// A transaction that pays too little alone is tried together with a child that the same peer gave: other peers'
    /// children could be made up to spoil it. Core: `Find1P1CPackage`.
    fn try_with_child(&mut self, peer: &mut Peer, parent: Named, cx: &mut Cx<'_>) {
        let untried = |child: &&Named| {
            !self.seen.reconsiderable.contains(&package_hash(&parent, child))
                && !self.seen.rejects.contains(child.txid.as_byte_array())
        };
        let Some(child) = self.seen.orphans.children(parent.txid, peer.id).find(untried).cloned() else { return };
        self.hold(&parent);
        let package = vec![parent.tx.clone(), child.tx.clone()];
        cx.work(peer, Work::Package(package), Pending::Package { parent, child });
    }

    /// The ledger has judged a transaction of this peer's; `first`: one that was no orphan before. Core:
    /// `MempoolRejectedTx`.
    #[expect(clippy::too_many_arguments, reason = "what was judged, for whom, how, and where")]
    pub(crate) fn on_judged(
        &mut self,
        giver: PeerId,
        one: &Named,
        first: bool,
        verdict: TxVerdict,
        peers: &mut Peers,
        view: &impl View,
        cx: &mut Cx<'_>,
    ) {
        match verdict {
            TxVerdict::Accepted => {}
            TxVerdict::Known => self.on_known(one, view),
            TxVerdict::Missing if first && !self.seen.rejects.contains(one.wtxid.as_byte_array()) => {
                self.on_orphan(giver, one, peers, view, cx);
            }
            TxVerdict::Missing => {}
            TxVerdict::Refused(rejection) => {
                self.on_refused(one, rejection);
                let peer = peers.get_mut(&giver).filter(|_| first && rejection.blame() == Blame::Reconsiderable);
                if let Some(peer) = peer {
                    self.try_with_child(peer, one.clone(), cx);
                }
            }
        }
        self.release(one, cx.now);
    }

    /// The ledger has judged a parent with its child. Core: `ProcessPackageResult`.
    pub(crate) fn on_package(
        &mut self,
        parent: &Named,
        child: &Named,
        verdicts: &[TxVerdict],
        view: &impl View,
        now: Micros,
    ) {
        if verdicts.iter().any(|verdict| !matches!(verdict, TxVerdict::Accepted | TxVerdict::Known)) {
            self.seen.reconsiderable.insert(&package_hash(parent, child));
        }
        for (one, verdict) in [parent, child].into_iter().zip(verdicts) {
            match verdict {
                TxVerdict::Refused(rejection) => self.on_refused(one, *rejection),
                TxVerdict::Known => self.on_known(one, view),
                TxVerdict::Accepted | TxVerdict::Missing => {}
            }
        }
        self.release(parent, now);
    }

    /// It was in the pool or in the chain, or another with its txid is.
    fn on_known(&mut self, one: &Named, view: &impl View) {
        if view.pool_tx(&GenTxid::Wtxid(one.wtxid)).is_none() {
            self.seen.rejects.insert(one.wtxid.as_byte_array());
        }
        self.forget(one);
        self.seen.orphans.erase(&one.wtxid);
    }

    /// What is remembered of a refusal. A txid is remembered only where no witness can make a difference: whoever changed
    /// the witness on the way would otherwise keep the right one from us.
    fn on_refused(&mut self, one: &Named, rejection: Rejection) {
        self.seen.orphans.erase(&one.wtxid);
        let (txid, wtxid) = (one.txid.as_byte_array(), one.wtxid.as_byte_array());
        match rejection.blame() {
            Blame::WitnessStripped => return,
            Blame::Reconsiderable => self.seen.reconsiderable.insert(wtxid),
            _ => self.seen.rejects.insert(wtxid),
        }
        self.requests.forget(wtxid);
        if rejection == Rejection::BadTxnsNonstandardInputs && txid != wtxid {
            self.seen.rejects.insert(txid);
            self.requests.forget(txid);
        }
    }

    /// A transaction spends what is not known here: its parents are asked for, of all who announced it.
    fn on_orphan(&mut self, giver: PeerId, one: &Named, peers: &Peers, view: &impl View, cx: &mut Cx<'_>) {
        let is_refused = |txid: &Txid| self.seen.rejects.contains(txid.as_byte_array());
        let is_cheap = |txid: &Txid| {
            self.seen.reconsiderable.contains(txid.as_byte_array()) && view.pool_tx(&GenTxid::Txid(*txid)).is_none()
        };
        let parents = one.parents();
        // One cheap parent may be taken with its child, two may not.
        if parents.iter().any(is_refused) || parents.iter().filter(|txid| is_cheap(txid)).count() > 1 {
            self.seen.rejects.insert(one.txid.as_byte_array());
            self.seen.rejects.insert(one.wtxid.as_byte_array());
        } else {
            let missing = self.missing_parents(one, view);
            let mut candidates = vec![giver];
            candidates.extend(self.requests.candidates(one.txid.as_byte_array()));
            candidates.extend(self.requests.candidates(one.wtxid.as_byte_array()));
            for peer in candidates.iter().filter_map(|id| peers.get(id)) {
                if self.ask_for_parents(peer, &one.wtxid, &missing, cx) {
                    self.seen.orphans.add(one, peer.id, peer.is_preferred());
                }
            }
        }
        self.forget(one);
    }

    /// The pool took a transaction, from whomever: who announced it. Core: `MempoolAcceptedTx`.
    pub(crate) fn on_accepted(&mut self, txid: &Txid, wtxid: &Wtxid, rng: &mut impl Rng) -> Vec<PeerId> {
        let mut announcers = self.requests.forget(txid.as_byte_array());
        announcers.extend(self.requests.forget(wtxid.as_byte_array()));
        announcers.extend(self.seen.orphans.erase(wtxid));
        self.woken.append(&mut self.seen.orphans.on_parent(*txid, rng));
        announcers
    }

    /// Peers whose orphans may have become good since this was last asked.
    pub(crate) fn take_woken(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.woken)
    }

    /// Has one of this peer's orphans judged again, if one is due. Core: `ProcessOrphanTx`.
    pub(crate) fn go_on(&mut self, peer: &mut Peer, cx: &mut Cx<'_>) {
        if let Some(orphan) = self.seen.orphans.take_due(peer.id) {
            self.judge(peer, orphan, false, cx);
        }
    }

    /// The tip changed: what was refused may be good now; after a reorganisation, what was confirmed may come again.
    pub(crate) fn on_tip(&mut self, connected: &[BlockHash], view: &impl View) {
        self.seen.rejects.clear();
        self.seen.reconsiderable.clear();
        let parent = |hash: &BlockHash| Some(view.entry(view.entry(view.find(hash)?).parent?).hash);
        let builds_on = connected.first().and_then(parent);
        if builds_on.is_none() || (self.tip.is_some() && self.tip != builds_on) {
            self.seen.confirmed.clear();
        }
        self.tip = connected.last().copied().or(self.tip);
    }

    /// A block joined the chain.
    pub(crate) fn on_block(&mut self, block: &Block) {
        self.seen.orphans.on_block(block);
        for (txid, wtxid) in block.txids.iter().zip(&block.wtxids) {
            self.seen.confirmed.insert(txid.as_byte_array());
            self.requests.forget(txid.as_byte_array());
            if txid.as_byte_array() != wtxid.as_byte_array() {
                self.seen.confirmed.insert(wtxid.as_byte_array());
                self.requests.forget(wtxid.as_byte_array());
            }
        }
    }

    /// A peer does not have what it was asked for.
    pub(crate) fn on_notfound<'a>(&mut self, peer: PeerId, ids: impl Iterator<Item = GenTxid> + 'a, now: Micros) {
        ids.for_each(|id| self.requests.answered(peer, id.bytes(), now));
    }

    /// Announcements of a peer, and requests to it under way.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn load(&self, peer: PeerId) -> (usize, usize) {
        self.requests.load(peer)
    }

    /// Announcements of all peers that an attacker can have many of.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn announced_by_many(&self) -> usize {
        self.requests.announced_by_many()
    }

    /// When something is due.
    pub(crate) fn next(&self) -> Option<Micros> {
        self.requests.next()
    }

    /// Asks for what is due.
    pub(crate) fn run(&mut self, peers: &mut Peers, view: &impl View, cx: &mut Cx<'_>) {
        for (id, items) in self.requests.run(cx.now, |id| self.seen.has(id, false, view)) {
            let Some(peer) = peers.get_mut(&id) else { continue };
            let serves_witnesses = peer.services() & NODE_WITNESS != 0;
            for part in items.chunks(MAX_GETDATA_SZ) {
                let items = part.iter().map(|id| id.request(serves_witnesses)).collect();
                cx.send(peer, Message::GetData(items));
            }
        }
    }

    /// All orphans.
    pub(crate) fn orphan_transactions(&self) -> impl Iterator<Item = OrphanTx> {
        self.seen
            .orphans
            .iter()
            .map(|(one, announcers)| OrphanTx { tx: one.tx.clone(), announcers: announcers.collect() })
    }

    /// Orphans, and announcements of them.
    pub(crate) fn orphans(&self) -> (usize, usize) {
        self.seen.orphans.count()
    }
}

/// A name for a package, whatever its order. Core: `GetPackageHash`.
fn package_hash(parent: &Named, child: &Named) -> [u8; 32] {
    // In Core's order: as numbers, the last byte first.
    let reversed = |one: &Named| one.wtxid.as_byte_array().iter().rev().copied().collect::<Vec<u8>>();
    let mut pair = [parent, child];
    pair.sort_by_key(|one| reversed(one));
    let mut engine = sha256::Hash::engine();
    pair.iter().for_each(|one| engine.input(one.wtxid.as_byte_array()));
    sha256::Hash::from_engine(engine).to_byte_array()
}
