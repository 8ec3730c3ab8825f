//! The handshake: version, what each side wants, verack. Knows neither headers nor blocks.

use rand::RngCore;

use crate::addr::{Host, NetAddr};
use crate::message::{Kind, Message, Version};
use crate::peer::{LinkKind, NODE_BLOOM, NODE_NETWORK, NODE_NETWORK_LIMITED, NODE_WITNESS, Peer, Peers, Their};
use crate::protocol::{Cx, Event, PeerId, Reason};
use crate::timers::Timer;
use crate::view::View;

/// The version of the protocol spoken here. Core's name and value.
pub const PROTOCOL_VERSION: i32 = 70_017;
/// The lowest version spoken with. Core's name and value.
pub const MIN_PEER_PROTO_VERSION: i32 = 31_800;
/// From here on `wtxidrelay` and `sendaddrv2` are exchanged. Core's name and value.
pub const WTXID_RELAY_VERSION: i32 = 70_016;
/// From here on compact blocks are known. Core's name and value.
pub const SHORT_IDS_BLOCKS_VERSION: i32 = 70_014;
/// From here on headers announce blocks. Core's name and value.
pub const SENDHEADERS_VERSION: i32 = 70_012;
/// The only version of compact blocks. Core's name and value.
pub const CMPCTBLOCKS_VERSION: u64 = 2;
/// The only version of reconciling transactions. Core's name and value.
pub const TXRECONCILIATION_VERSION: u32 = 1;
/// Within so many blocks of now, a peer with the last blocks is as good as one with all.
/// Core: `NODE_NETWORK_LIMITED_ALLOW_CONN_BLOCKS`.
const LIMITED_ALLOW_CONN_BLOCKS: u64 = 144;

/// What is agreed of reconciling transactions ([BIP-0330]). Nothing is reconciled yet.
///
/// [BIP-0330]: https://github.com/bitcoin/bips/blob/master/bip-0330.mediawiki
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reconciliation {
    #[default]
    None,
    /// We offered it.
    Offered,
    /// Both did.
    Agreed,
}

/// A link was made. Who dialled speaks first.
pub(crate) fn start(peer: &mut Peer, view: &impl View, cx: &mut Cx<'_>) {
    cx.core.timers.set(peer.id, Timer::Handshake, cx.now + cx.core.config.peer_timeout);
    if !peer.kind.is_inbound() {
        cx.core.dialled.insert(peer.nonce);
        send_version(peer, view, cx);
    }
}

fn send_version(peer: &mut Peer, view: &impl View, cx: &mut Cx<'_>) {
    let config = &cx.core.config;
    let known = peer.addr.host.is_routable() && peer.addr.host.to_v6_bytes().is_some();
    let receiver = if known { peer.addr } else { NetAddr { host: Host::V6([0; 16]), port: 0 } };
    let height = view.entry(view.tip()).height;
    let version = Version {
        version: PROTOCOL_VERSION,
        services: offered_services(peer, cx),
        time: i64::try_from(cx.now.seconds()).unwrap_or(i64::MAX),
        receiver,
        nonce: peer.nonce,
        user_agent: config.user_agent.clone(),
        start_height: i32::try_from(height).unwrap_or(i32::MAX),
        relay: wants_transactions(peer, cx),
    };
    cx.send(peer, Message::Version(Box::new(version)));
}

/// The service bits that this peer is offered.
pub(crate) fn offered_services(peer: &Peer, cx: &Cx<'_>) -> u64 {
    cx.core.config.services | if peer.permissions.bloom_filter { NODE_BLOOM } else { 0 }
}

/// Whether transactions are welcome on this link. Core: `!RejectIncomingTxs`.
pub(crate) fn wants_transactions(peer: &Peer, cx: &Cx<'_>) -> bool {
    peer.kind.relays_transactions() && (!cx.core.config.blocks_only || peer.permissions.relay)
}

/// The services that an outbound peer must offer. Core: `GetDesirableServiceFlags`.
fn desirable_services(offered: u64, view: &impl View, cx: &Cx<'_>) -> u64 {
    let tip_time = u64::from(view.entry(view.tip()).time);
    let depth = cx.now.seconds().saturating_sub(tip_time) / u64::from(cx.core.config.params.spacing);
    if offered & NODE_NETWORK_LIMITED != 0 && depth < LIMITED_ALLOW_CONN_BLOCKS {
        NODE_NETWORK_LIMITED | NODE_WITNESS
    } else {
        NODE_NETWORK | NODE_WITNESS
    }
}

/// Whether these services are those that an outbound peer must offer. Core: `HasAllDesirableServiceFlags`.
pub(crate) fn offers_what_we_want(offered: u64, view: &impl View, cx: &Cx<'_>) -> bool {
    let wanted = desirable_services(offered, view, cx);
    offered & wanted == wanted
}

/// A version came. Core: `ProcessMessage` VERSION.
pub(crate) fn on_version(peers: &mut Peers, id: PeerId, theirs: Version, view: &impl View, cx: &mut Cx<'_>) {
    let Some(peer) = peers.get_mut(&id).filter(|peer| peer.their.is_none()) else { return };
    let chosen = matches!(peer.kind, LinkKind::OutboundFull | LinkKind::BlockRelay | LinkKind::AddrFetch);
    if chosen && !offers_what_we_want(theirs.services, view, cx) {
        return cx.disconnect(peer, Reason::Services);
    }
    if theirs.version < MIN_PEER_PROTO_VERSION {
        return cx.disconnect(peer, Reason::Obsolete);
    }
    if peer.kind.is_inbound() && cx.core.dialled.contains(&theirs.nonce) {
        return cx.disconnect(peer, Reason::Ourselves);
    }
    if peer.kind.is_inbound() {
        send_version(peer, view, cx);
    }
    let common_version = theirs.version.min(PROTOCOL_VERSION);
    peer.their = Some(Their {
        common_version,
        version: theirs.version,
        services: theirs.services,
        user_agent: theirs.user_agent,
        start_height: theirs.start_height,
        relay: theirs.relay,
        time_offset: theirs.time.saturating_sub(i64::try_from(cx.now.seconds()).unwrap_or(i64::MAX)),
        sees_us_as: theirs.receiver,
    });
    if common_version >= WTXID_RELAY_VERSION {
        cx.send(peer, Message::WtxidRelay);
        cx.send(peer, Message::SendAddrV2);
        let relays = theirs.relay && peer.kind.relays_transactions() && peer.kind != LinkKind::AddrFetch;
        if cx.core.config.reconcile && relays && !cx.core.config.blocks_only {
            peer.reconciliation = Reconciliation::Offered;
            let salt = cx.core.rng.next_u64();
            cx.send(peer, Message::SendTxRcncl { version: TXRECONCILIATION_VERSION, salt });
        }
    }
    cx.send(peer, Message::Verack);
    if peer.kind == LinkKind::Feeler {
        cx.disconnect(peer, Reason::FeelerDone);
    }
}

/// The verack came: whether the link is ready by that.
pub(crate) fn on_verack(peer: &mut Peer, cx: &mut Cx<'_>) -> bool {
    let Some(their) = peer.their.as_ref().filter(|_| !peer.ready) else { return false };
    let compact = their.common_version >= SHORT_IDS_BLOCKS_VERSION;
    peer.ready = true;
    cx.core.dialled.remove(&peer.nonce);
    if !peer.wtxid_relay || peer.reconciliation == Reconciliation::Offered {
        peer.reconciliation = Reconciliation::None;
    }
    cx.core.timers.stop(peer.id, Timer::Handshake);
    if compact {
        cx.send(peer, Message::SendCmpct { announce: 0, version: CMPCTBLOCKS_VERSION });
    }
    true
}

/// One of the messages that say how a side wants to be served. They come between version and verack.
pub(crate) fn on_negotiation(peer: &mut Peer, kind: Kind, cx: &mut Cx<'_>) {
    if peer.ready {
        return cx.disconnect(peer, Reason::LateNegotiation(kind));
    }
    let common = peer.their.as_ref().map_or(0, |their| their.common_version);
    match kind {
        Kind::WtxidRelay => peer.wtxid_relay = common >= WTXID_RELAY_VERSION,
        Kind::SendAddrV2 => peer.addr_v2 = true,
        // No feature is known (BIP434).
        _ => {}
    }
}

/// The peer offers to reconcile transactions. Core: `ProcessMessage` SENDTXRCNCL, `RegisterPeer`.
pub(crate) fn on_sendtxrcncl(peer: &mut Peer, version: u32, cx: &mut Cx<'_>) {
    if !cx.core.config.reconcile {
        return cx.event(Event::Ignored { peer: peer.id, kind: Some(Kind::SendTxRcncl) });
    }
    if peer.ready {
        return cx.disconnect(peer, Reason::LateNegotiation(Kind::SendTxRcncl));
    }
    let relays = wants_transactions(peer, cx) && peer.their.as_ref().is_some_and(|their| their.relay);
    match peer.reconciliation {
        Reconciliation::None if relays => {}
        Reconciliation::Offered if relays && version >= TXRECONCILIATION_VERSION => {
            peer.reconciliation = Reconciliation::Agreed;
        }
        _ => cx.disconnect(peer, Reason::BadMessage(Kind::SendTxRcncl)),
    }
}

/// Asks the peer to announce by headers, once it is known to be on a chain of the network's work. Core:
/// `MaybeSendSendHeaders`.
pub(crate) fn maybe_send_sendheaders(peer: &mut Peer, view: &impl View, cx: &mut Cx<'_>) {
    let speaks = peer.their.as_ref().is_some_and(|their| their.common_version >= SENDHEADERS_VERSION);
    let Some(best) = peer.headers.best_known.filter(|_| speaks && !peer.sent_sendheaders) else { return };
    if view.entry(best).work > cx.core.config.params.minimum_chain_work {
        peer.sent_sendheaders = true;
        cx.send(peer, Message::SendHeaders);
    }
}
