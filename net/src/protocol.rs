//! The protocol as a value: inputs go in, outputs come out, and the one `match` that says which module takes which
//! message. Holds no socket, no clock, no thread and no randomness but its seed.

mod announced;
mod answers;
mod call;
mod config;
mod io;
mod links;
mod operator;
mod turns;
#[cfg(any(test, feature = "sim"))]
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::hashes::siphash24;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Transaction, Txid};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::addrman::Book;
use crate::bans::{Ban, Bans};
use crate::blocks::{self, Blocks, Form};
use crate::compact::{Compact, RecentBlock};
use crate::dial::{Dialling, Sources};
use crate::gossip::{self, Gossip};
use crate::guard::Guard;
use crate::headers::{self, Batch, Headers};
use crate::local::{How, Local};
use crate::message::{AddrEntry, Fault, GenTxid, Kind, Message};
use crate::orphans::Named;
use crate::peer::{LinkKind, NODE_BLOOM, Peer, Peers};
use crate::surplus::Surplus;
use crate::timers::{MAX_TIP_AGE, Micros, Timer, Timers};
use crate::txdownload::TxDownload;
use crate::txrelay::{Relayed, TxRelay, feefilter};
use crate::upload::{Upload, UploadTarget};
use crate::view::{Id, View};
use crate::{announce, chainsync, filtered, filters, handshake, ping, serve, slots};
use answers::punish;
pub(crate) use call::{Core, Cx, Pending};
pub use config::{Config, LinkOptions, Policy};
pub use io::{Command, Done, Event, Input, Output, PeerId, Reason, Token, TxVerdict, Verdict, Work};
pub use operator::{Memory, NotAdded, NotFetched, OrphanTx};

/// Most entries of a `getdata` that we send. Core's name and value.
pub(crate) const MAX_GETDATA_SZ: usize = 1000;
/// A `notfound` with more entries than this is not read. Core: `MAX_PEER_TX_ANNOUNCEMENTS` and
/// `MAX_BLOCKS_IN_TRANSIT_PER_PEER`.
const MAX_NOTFOUND: usize = 5000 + 16;

/// What an answer of the ledger is for.
/// How this node talks with its peers.
pub struct Protocol {
    core: Core,
    peers: Peers,
    headers: Headers,
    blocks: Blocks,
    compact: Compact,
    recent_block: RecentBlock,
    guard: Guard,
    relay: TxRelay,
    book: Book,
    local: Local,
    gossip: Gossip,
    dialling: Dialling,
    surplus: Surplus,
    /// For [`Peer::keyed_group`].
    group_key: (u64, u64),
    download: TxDownload,
    /// The best header is young: then headers are asked of all peers.
    recent: bool,
}

impl Protocol {
    /// A node without peers.
    pub fn new(config: Config) -> Protocol {
        let mut rng = ChaCha8Rng::from_seed(config.seed);
        let book = Book::new(&mut rng);
        let gossip = Gossip::new(&mut rng);
        let dialling = Dialling::new(&config.dialling, &mut rng);
        let group_key = (rng.next_u64(), rng.next_u64());
        let mut local = Local::default();
        for addr in &config.dialling.external {
            local.add(*addr, How::Given, &config.dialling, config.limits.own_addresses);
        }
        let download = TxDownload::new(&config.limits, &mut rng);
        let upload_target = config.upload_target;
        let core = Core {
            config,
            timers: Timers::default(),
            rng,
            initial_download: true,
            dialled: BTreeSet::new(),
            upload: Upload::new(upload_target),
            next_token: 0,
            pending: BTreeMap::new(),
            closing: Vec::new(),
            inbox_bytes: 0,
            evicted: None,
        };
        Protocol {
            core,
            peers: Peers::new(),
            headers: Headers::default(),
            blocks: Blocks::default(),
            compact: Compact::default(),
            recent_block: RecentBlock::default(),
            guard: Guard::default(),
            book,
            local,
            gossip,
            dialling,
            surplus: Surplus::default(),
            group_key,
            relay: TxRelay::new(),
            download,
            recent: false,
        }
    }

    /// When [`Input::Tick`] is due, whatever else happens. May change with each input.
    pub fn deadline(&self) -> Option<Micros> {
        let options = &self.core.config.dialling;
        let links = [self.dialling.next(options), self.surplus.next(options.automatic)];
        let transactions = [self.relay.next(), self.download.next()];
        [self.core.timers.next(), self.blocks.next()].into_iter().chain(transactions).chain(links).flatten().min()
    }

    /// The peers, by id.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// The peer with this id.
    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    /// Whether somebody at this address misbehaved lately.
    #[cfg(test)]
    pub(crate) fn is_discouraged(&self, host: &crate::addr::Host) -> bool {
        self.guard.is_discouraged(host)
    }

    /// Whether the chain has yet to come near the network's tip.
    pub fn initial_download(&self) -> bool {
        self.core.initial_download
    }

    /// The operator's own transactions that no peer has asked for yet. Some may have left the pool meanwhile.
    pub fn unbroadcast(&self) -> impl Iterator<Item = &Txid> {
        self.relay.unbroadcast()
    }

    /// How far a transaction got from here, if it is one of the last that the pool took.
    pub fn relayed(&self, txid: &Txid) -> Option<Relayed> {
        self.relay.relayed(txid)
    }

    /// Transactions that wait for their parents, and announcements of them.
    pub fn orphans(&self) -> (usize, usize) {
        self.download.orphans()
    }

    /// Transactions that a peer announced and that are not here, and those asked of it.
    #[cfg(test)]
    pub(crate) fn load(&self, peer: PeerId) -> (usize, usize) {
        self.download.load(peer)
    }

    /// When a deadline of a peer is.
    #[cfg(test)]
    pub(crate) fn due(&self, peer: PeerId, timer: Timer) -> Option<Micros> {
        self.core.timers.get(peer, timer)
    }

    /// What is left of the upload target.
    pub fn upload_target(&self, now: Micros) -> UploadTarget {
        self.core.upload.state(now)
    }

    /// Takes one input at the time `now` and appends what is to be done to `out`, in order.
    pub fn handle(&mut self, now: Micros, input: Input, view: &impl View, out: &mut Vec<Output>) {
        let mut cx = Cx { now, core: &mut self.core, out };
        if update_initial_download(view, &mut cx) {
            // Transactions are wanted from now on.
            for id in self
                .peers
                .keys()
                .filter(|id| cx.core.timers.get(**id, Timer::FeeFilter).is_some())
                .copied()
                .collect::<Vec<_>>()
            {
                cx.core.timers.set(id, Timer::FeeFilter, now);
            }
            self.peers.values_mut().filter(|peer| peer.ready).for_each(|peer| gossip::introduce_soon(peer, &mut cx));
        }
        match input {
            Input::Connected { peer: id, addr, kind, permissions, network, bind } => {
                let nonce = cx.core.rng.next_u64();
                let mut peer = Peer::new(id, addr, kind, permissions, (network, bind), nonce, now);
                let (k0, k1) = self.group_key;
                peer.keyed_group = siphash24::Hash::hash_to_u64_with_keys(k0, k1, &addr.host.group());
                self.peers.entry(id).or_insert(peer);
                self.on_connected(id, now, view, out);
            }
            Input::Closed(id) => self.forget(id, now),
            Input::DialFailed { addr, tried } => {
                if let Some(counts) = self.dialling.take_pending(&addr).filter(|_| tried) {
                    self.book.attempted(&addr, counts, now.seconds32());
                }
                self.dialling.wake(now);
            }
            Input::Seeded { name, addrs } => self.dialling.on_seeded(name, &addrs, &mut self.book, &mut cx),
            Input::Own { addr, how: Some(how) } => {
                let config = &cx.core.config;
                self.local.add(addr, how, &config.dialling, config.limits.own_addresses);
            }
            Input::Own { addr, how: None } => self.local.remove(&addr.host),
            Input::Command(command) => self.on_command(command, now, out),
            Input::Message { peer, message, wire_len } => self.on_message(peer, message, wire_len, now, view, out),
            Input::Queued { peer, bytes } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.queued = bytes;
                }
                self.go_on(peer, now, view, out);
            }
            Input::Tick => {}
            Input::ChainDone { token, done } => self.on_done(token, done, now, view, out),
            Input::TxAccepted { txid, wtxid } => {
                let announcers = self.download.on_accepted(&txid, &wtxid, &mut cx.core.rng);
                self.relay.announce(txid, wtxid, &announcers, &mut self.peers, &mut cx);
            }
            Input::Replaced(transactions) => self.compact.on_replaced(&transactions, &cx),
            Input::Broadcast { txid, wtxid, first } => {
                if first {
                    self.relay.on_own(txid, wtxid, &mut cx);
                }
                self.relay.announce(txid, wtxid, &[], &mut self.peers, &mut cx);
            }
            Input::BlockStored(block) => {
                let fetched = self.compact.take_fetched(&block.hash);
                self.recent_block.on_stored(&mut self.peers, block, fetched, view, &mut cx);
            }
            Input::TipChanged(connected) => {
                self.surplus.on_tip(now);
                self.download.on_tip(&connected, view);
                for hash in &connected {
                    let giver = self.blocks.on_connected(hash);
                    let newest = !cx.core.initial_download && self.blocks.is_idle_but(hash);
                    if let Some(giver) = giver.filter(|_| newest) {
                        self.compact.choose(&mut self.peers, giver, &mut cx);
                    }
                }
                if !cx.core.initial_download {
                    self.blocks.wake_all();
                    announce::announce(&mut self.peers, &connected, &mut self.recent_block, view, &mut cx);
                }
                self.recent_block.on_settled();
                self.compact.tidy(&self.blocks);
                self.go_on_all(now, view, out);
            }
            Input::BlockConnected(block) => {
                self.download.on_block(&block);
                self.relay.on_block(block);
            }
            Input::BlockRefused { hash, rejection } => {
                let culprit = self.blocks.take_culprit(&hash);
                if let Some(peer) = culprit.and_then(|id| self.peers.get_mut(&id)) {
                    punish(peer, rejection, "invalid block", &mut self.guard, &mut cx);
                }
                self.blocks.wake_all();
                self.recent_block.on_settled();
                self.go_on_all(now, view, out);
            }
        }
        self.on_timers(now, view, out);
        self.settle(now, view, out);
    }

    /// What follows from any input: links end, syncs start, blocks are asked for.
    fn settle(&mut self, now: Micros, view: &impl View, out: &mut Vec<Output>) {
        let gone = std::mem::take(&mut self.core.closing);
        for id in &gone {
            let reason = self.peers.get(id).and_then(|peer| peer.closing);
            self.forget(*id, now);
            out.extend(reason.map(|reason| Output::Disconnect { peer: *id, reason }));
        }
        for id in self.download.take_woken() {
            self.go_on(id, now, view, out);
        }
        let cx = &mut Cx { now, core: &mut self.core, out };
        let best_time = u64::from(view.entry(view.best_header()).time);
        let recent = best_time + MAX_TIP_AGE.as_secs() > now.seconds();
        let became_recent = recent && !std::mem::replace(&mut self.recent, recent);
        if became_recent | self.headers.take_restart() {
            self.headers.maybe_start(&mut self.peers, None, self.blocks.is_idle(), view, cx);
        }
        self.blocks.pump(&mut self.peers, view, cx);
        let sources = Sources { book: &mut self.book, guard: &self.guard, local: &self.local };
        self.dialling.run(&self.peers, sources, view, cx);
    }

    fn on_timers(&mut self, now: Micros, view: &impl View, out: &mut Vec<Output>) {
        let cx = &mut Cx { now, core: &mut self.core, out };
        while let Some((id, timer)) = cx.core.timers.pop(now) {
            match timer {
                Timer::HeadersSync => {
                    self.headers.on_sync_timeout(&mut self.peers, id, view, cx);
                    continue;
                }
                Timer::Trickle => {
                    self.relay.on_trickle(&mut self.peers, id, view, cx);
                    continue;
                }
                _ => {}
            }
            let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.closing.is_none()) else { continue };
            match timer {
                Timer::Handshake => cx.disconnect(peer, Reason::HandshakeTimeout),
                Timer::Ping => ping::send(peer, cx),
                Timer::Pong => ping::on_pong_timeout(peer, cx),
                Timer::ChainSync => chainsync::look(peer, view, cx),
                Timer::Stall => self.blocks.on_stall_timeout(peer, cx),
                Timer::Block => self.blocks.on_block_timeout(peer, cx),
                Timer::FeeFilter => feefilter::on_timer(peer, view, cx),
                Timer::Addresses => self.gossip.on_timer(peer, cx),
                Timer::OwnAddress => self.gossip.on_own_timer(peer, &self.local, cx),
                Timer::Fetch => cx.disconnect(peer, Reason::FetchTimeout),
                Timer::HeadersSync | Timer::Trickle => {}
            }
        }
        self.download.run(&mut self.peers, view, cx);
        self.blocks.run(&mut self.peers, view, cx);
        self.relay.run(&mut self.peers, view, cx);
        self.surplus.run(&mut self.peers, self.blocks.is_idle(), &mut self.dialling, view, cx);
    }

    /// Which module takes which message: the index of the crate.
    fn route(&mut self, id: PeerId, message: Message, now: Micros, view: &impl View, out: &mut Vec<Output>) {
        let cx = &mut Cx { now, core: &mut self.core, out };
        let kind = message.kind();
        if let Message::Version(version) = message {
            let (first, services) = (self.peers.get(&id).is_some_and(|peer| peer.their.is_none()), version.services);
            handshake::on_version(&mut self.peers, id, *version, view, cx);
            if first {
                self.on_version(id, services, now, out);
            }
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let early = peer.their.is_none()
            || !(peer.ready
                || matches!(message, Message::Verack | Message::WtxidRelay | Message::SendAddrV2)
                || matches!(kind, Some(Kind::Feature | Kind::SendTxRcncl | Kind::SendHeaders | Kind::SendCmpct)));
        if early {
            return cx.event(Event::Ignored { peer: id, kind });
        }
        match message {
            Message::Version(_) => {}
            Message::Verack => {
                if handshake::on_verack(peer, cx) {
                    self.on_ready(id, now, view, out);
                }
            }
            Message::WtxidRelay => handshake::on_negotiation(peer, Kind::WtxidRelay, cx),
            Message::SendAddrV2 => handshake::on_negotiation(peer, Kind::SendAddrV2, cx),
            Message::Feature { .. } => handshake::on_negotiation(peer, Kind::Feature, cx),
            Message::SendTxRcncl { version, .. } => handshake::on_sendtxrcncl(peer, version, cx),
            Message::SendHeaders => peer.prefers_headers = true,
            Message::SendCmpct { announce, version } => match announce {
                0 | 1 if version == handshake::CMPCTBLOCKS_VERSION => peer.compact = Some(announce == 1),
                0 | 1 => {}
                _ => self.guard.misbehaved(peer, "invalid sendcmpct announce field", cx),
            },

            Message::Ping(nonce) => cx.send(peer, Message::Pong(nonce)),
            Message::Pong(nonce) => ping::on_pong(peer, nonce, cx),

            Message::Headers(headers) => {
                let known = self.headers.on_headers(peer, headers, view, &mut self.guard, cx);
                if let Some((last, batch)) = known {
                    self.headers_known(id, last, batch, now, view, out);
                }
            }
            Message::Inv(items) => self.on_inv(id, &items, now, view, out),
            Message::Block(bytes) => self.blocks.on_block(peer, bytes, view, &mut self.guard, cx),
            Message::CmpctBlock(block) => {
                let fine = self.compact.on_cmpctblock(&mut self.peers, id, block, &mut self.blocks, view, cx);
                self.judge(id, fine, now, out);
            }
            Message::BlockTxn(txn) => {
                let fine = self.compact.on_blocktxn(peer, txn.block_hash, &txn.transactions, &mut self.blocks, cx);
                self.judge(id, fine, now, out);
            }

            Message::GetHeaders(locate) => serve::on_getheaders(peer, &locate, view, cx),
            Message::GetBlocks(locate) => serve::on_getblocks(peer, &locate, view, cx),
            Message::GetData(items) => peer.wanted.extend(items),
            Message::GetBlockTxn(request) => {
                let fine = serve::on_getblocktxn(peer, request, &self.recent_block, view, cx);
                self.judge(id, fine, now, out);
            }
            Message::MemPool => filtered::on_mempool(peer, &mut self.relay, cx),
            Message::FilterLoad(_) | Message::FilterAdd(_) | Message::FilterClear => {
                let fine = filtered::on_filter(peer, message, &mut self.relay, cx);
                self.judge(id, fine, now, out);
            }
            Message::GetCFilters(_) | Message::GetCFHeaders(_) | Message::GetCFCheckpt(_) => {
                filters::on_request(peer, &message, view, cx)
            }

            Message::Tx(_) if !handshake::wants_transactions(peer, cx) => {
                cx.disconnect(peer, Reason::BadMessage(Kind::Tx));
            }
            Message::Broken { kind: Some(kind), fault: Fault::TooMany(_) } => match kind {
                Kind::GetHeaders | Kind::GetBlocks => cx.disconnect(peer, Reason::BadMessage(kind)),
                Kind::NotFound => {}
                _ => self.guard.misbehaved(peer, "more entries than a message may have", cx),
            },
            // Whether they are served counts before whether they can be read.
            Message::Broken { kind: Some(kind @ (Kind::FilterLoad | Kind::FilterAdd)), .. }
                if cx.core.config.services & NODE_BLOOM == 0 =>
            {
                cx.disconnect(peer, Reason::Unserved(kind));
            }
            Message::Broken { kind: Some(Kind::Feature), fault: Fault::Malformed } => {
                cx.disconnect(peer, Reason::BadMessage(Kind::Feature));
            }
            Message::Tx(tx) => self.on_tx(id, tx, now, view, out),
            Message::NotFound(items) if items.len() > MAX_NOTFOUND => {}
            Message::NotFound(items) => self.download.on_notfound(id, items.iter().filter_map(GenTxid::of), now),
            // A rate below zero or above all money is none.
            Message::FeeFilter(rate) => peer.relay.fee_filter = u64::try_from(rate).unwrap_or(peer.relay.fee_filter),
            Message::GetAddr => self.gossip.on_getaddr(peer, &self.book, &self.guard, cx),
            Message::Addr(entries) | Message::AddrV2(entries) => {
                let known = (&mut self.book, &self.guard, &self.local);
                if self.gossip.on_addresses(&mut self.peers, id, entries, known, view, cx) {
                    self.dialling.wake(now);
                }
            }
            // Nothing that we ever ask for, or nothing that can be read.
            Message::MerkleBlock(_)
            | Message::CFilter(_)
            | Message::CFHeaders(_)
            | Message::CFCheckpt(_)
            | Message::Unknown { .. }
            | Message::Broken { .. } => cx.event(Event::Ignored { peer: id, kind }),
        }
    }

    /// What a module says of a peer's message: fine, or what no honest peer does.
    fn judge(&mut self, id: PeerId, fine: Result<(), &'static str>, now: Micros, out: &mut Vec<Output>) {
        if let (Err(what), Some(peer)) = (fine, self.peers.get_mut(&id)) {
            self.guard.misbehaved(peer, what, &mut Cx { now, core: &mut self.core, out });
        }
    }
}

/// Sees whether the chain has come near the network's tip; then it stays so. Gives whether that is new.
fn update_initial_download(view: &impl View, cx: &mut Cx<'_>) -> bool {
    let before = cx.core.initial_download;
    if before {
        let tip = view.entry(view.tip());
        let young = u64::from(tip.time).saturating_add(cx.core.config.params.max_tip_age) > cx.now.seconds();
        cx.core.initial_download = tip.work < cx.core.config.params.minimum_chain_work || !young;
    }
    before && !cx.core.initial_download
}
