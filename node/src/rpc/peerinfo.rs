//! Links as JSON. Core: `getpeerinfo` in `src/rpc/net.cpp`.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::Amount;
use groat_net::addr::{Host, Network};
use groat_net::peer::{
    LinkKind, NODE_BLOOM, NODE_COMPACT_FILTERS, NODE_NETWORK, NODE_NETWORK_LIMITED, NODE_P2P_V2, NODE_WITNESS,
};
use groat_net::wire::Transport;
use hex::DisplayHex;
use serde::Serialize;

use super::Rpc;
use super::args::Args;
use super::method::{Answer, Method, answer};
use super::number::{Btc, Real};
use crate::hub::PeerInfo;

/// See [`super::method::all`].
pub const METHODS: &[Method] =
    &[Method { name: "getpeerinfo", group: "network", args: &[], about: "All links.", run: getpeerinfo }];

/// Names of service bits. Core: `serviceFlagsToStr`.
pub fn service_names(services: u64) -> Vec<String> {
    let bits = (0..64).filter(|bit| services >> bit & 1 == 1);
    let name = |bit: u32| match 1 << bit {
        NODE_NETWORK => "NETWORK".into(),
        NODE_BLOOM => "BLOOM".into(),
        NODE_WITNESS => "WITNESS".into(),
        NODE_COMPACT_FILTERS => "COMPACT_FILTERS".into(),
        NODE_NETWORK_LIMITED => "NETWORK_LIMITED".into(),
        NODE_P2P_V2 => "P2P_V2".into(),
        _ => format!("UNKNOWN[2^{bit}]"),
    };
    bits.map(name).collect()
}

/// One link, with Core's keys. What Groat does not count is 0.
#[derive(Serialize)]
struct PeerView {
    id: u64,
    addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    addrbind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addrlocal: Option<String>,
    network: &'static str,
    services: String,
    servicesnames: Vec<String>,
    relaytxes: bool,
    last_inv_sequence: u64,
    inv_to_send: usize,
    lastsend: u64,
    lastrecv: u64,
    last_transaction: u64,
    last_block: u64,
    bytessent: u64,
    bytesrecv: u64,
    conntime: u64,
    timeoffset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pingtime: Option<Real>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minping: Option<Real>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pingwait: Option<Real>,
    version: i32,
    subver: String,
    inbound: bool,
    bip152_hb_to: bool,
    bip152_hb_from: bool,
    presynced_headers: i32,
    synced_headers: i32,
    synced_blocks: i32,
    inflight: Vec<u32>,
    addr_relay_enabled: bool,
    addr_processed: u64,
    addr_rate_limited: u64,
    permissions: Vec<&'static str>,
    minfeefilter: Btc,
    bytessent_per_msg: BTreeMap<&'static str, u64>,
    bytesrecv_per_msg: BTreeMap<&'static str, u64>,
    connection_type: &'static str,
    transport_protocol_type: &'static str,
    session_id: String,
}

fn getpeerinfo(rpc: &Rpc, _: &Args) -> Answer {
    answer(rpc.node()?.peers()?.into_iter().map(show).collect::<Vec<_>>())
}

fn show(peer: PeerInfo) -> PeerView {
    let seconds = |time: Duration| Real(time.as_micros() as f64 / 1e6);
    let (transport_protocol_type, session) = match peer.transport {
        Transport::Detecting => ("detecting", None),
        Transport::V1 => ("v1", None),
        Transport::V2 { session } => ("v2", session),
    };
    PeerView {
        id: peer.id.0,
        addr: peer.addr,
        addrbind: peer.bind.map(|bind| bind.to_string()),
        addrlocal: peer.local.map(|addr| addr.to_string()),
        network: network_name(peer.network, &peer.host),
        services: format!("{:016x}", peer.services),
        servicesnames: service_names(peer.services),
        relaytxes: peer.relay_txs,
        last_inv_sequence: peer.told_to,
        inv_to_send: peer.untold,
        lastsend: peer.last_send,
        lastrecv: peer.last_recv,
        last_transaction: peer.last_tx,
        last_block: peer.last_block,
        bytessent: peer.bytes_sent,
        bytesrecv: peer.bytes_received,
        conntime: peer.connected,
        timeoffset: peer.time_offset,
        pingtime: peer.ping.map(seconds),
        minping: peer.min_ping.map(seconds),
        pingwait: peer.ping_wait.filter(|wait| !wait.is_zero()).map(seconds),
        version: peer.version,
        subver: sanitized(&peer.subver),
        inbound: peer.kind.is_inbound(),
        bip152_hb_to: peer.compact_to,
        bip152_hb_from: peer.compact_from,
        presynced_headers: peer.presynced_headers,
        synced_headers: peer.synced_headers,
        synced_blocks: peer.synced_blocks,
        inflight: peer.inflight,
        addr_relay_enabled: peer.addresses.is_some(),
        addr_processed: peer.addresses.map_or(0, |(processed, _)| processed),
        addr_rate_limited: peer.addresses.map_or(0, |(_, limited)| limited),
        permissions: peer.permissions.names(),
        minfeefilter: Btc(Amount::from_sat(peer.fee_filter)),
        bytessent_per_msg: peer.sent_by_kind.into_iter().collect(),
        bytesrecv_per_msg: peer.received_by_kind.into_iter().collect(),
        connection_type: match peer.kind {
            LinkKind::Inbound => "inbound",
            LinkKind::OutboundFull => "outbound-full-relay",
            LinkKind::BlockRelay => "block-relay-only",
            LinkKind::Feeler => "feeler",
            LinkKind::Manual => "manual",
            LinkKind::AddrFetch => "addr-fetch",
        },
        transport_protocol_type,
        session_id: session.map(|id| id.to_lower_hex_string()).unwrap_or_default(),
    }
}

/// Core: `GetNetworkName` of `ConnectedThroughNetwork`: what cannot be reached over the internet has none.
fn network_name(through: Network, host: &Host) -> &'static str {
    if through == Network::Onion || host.is_routable() { through.name() } else { "not_publicly_routable" }
}

/// Letters that do no harm wherever they are printed. Core: `SanitizeString`.
fn sanitized(text: &str) -> String {
    text.chars().filter(|letter| letter.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*letter)).collect()
}
