//! What every module may use during a call: options, timers, chance, and the ways to send, to ask the ledger, to end a
//! link.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::bip152::HeaderAndShortIds;
use rand_chacha::ChaCha8Rng;

use super::{Config, Event, Output, PeerId, Reason, Token, Work};
use crate::blocks::Form;
use crate::filters;
use crate::headers::Batch;
use crate::message::Message;
use crate::orphans::Named;
use crate::peer::Peer;
use crate::serve;
use crate::timers::{Micros, Timers};
use crate::upload::Upload;

#[derive(Debug)]
pub(crate) enum Pending {
    Headers(Batch),
    Block { hash: BlockHash, length: usize, form: Form },
    CmpctBlock(Arc<HeaderAndShortIds>),
    Read(serve::Shape),
    Filters(filters::Wanted),
    Transaction { one: Named, first: bool },
    Package { parent: Named, child: Named },
}

/// What every module may use.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) timers: Timers,
    pub(crate) rng: ChaCha8Rng,
    /// The chain has not come near the network's tip yet. Core: `IsInitialBlockDownload`.
    pub(crate) initial_download: bool,
    /// Nonces of the links that we dialled whose handshake is not done.
    pub(crate) dialled: BTreeSet<u64>,
    pub(crate) upload: Upload,
    pub(super) next_token: u64,
    pub(super) pending: BTreeMap<Token, (PeerId, Pending)>,
    pub(super) closing: Vec<PeerId>,
    /// Bytes of all peers' messages that wait for their turn.
    pub(super) inbox_bytes: usize,
    /// When an inbound peer was last looked for that has to go for another.
    pub(crate) evicted: Option<Micros>,
}

/// One call: its time and where its outputs go.
pub(crate) struct Cx<'a> {
    pub(crate) now: Micros,
    pub(crate) core: &'a mut Core,
    pub(super) out: &'a mut Vec<Output>,
}

impl Cx<'_> {
    pub(crate) fn send(&mut self, peer: &mut Peer, message: Message) {
        self.send_shared(peer, Arc::new(message));
    }

    pub(crate) fn send_shared(&mut self, peer: &mut Peer, message: Arc<Message>) {
        let bytes = message.weight();
        peer.queued += bytes;
        self.core.upload.record(bytes, self.now);
        self.out.push(Output::Send { to: peer.id, message });
    }

    /// Ends the link when the call is over. The first reason counts.
    pub(crate) fn disconnect(&mut self, peer: &mut Peer, reason: Reason) {
        if peer.closing.is_none() {
            peer.closing = Some(reason);
            self.core.closing.push(peer.id);
        }
    }

    /// Asks the ledger. What the peer sends later waits for the answer.
    pub(crate) fn work(&mut self, peer: &mut Peer, work: Work, pending: Pending) -> Token {
        let token = Token(self.core.next_token);
        self.core.next_token += 1;
        self.core.pending.insert(token, (peer.id, pending));
        peer.awaited += 1;
        self.out.push(Output::Chain { token, work });
        token
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.output(Output::Event(event));
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.out.push(output);
    }
}
