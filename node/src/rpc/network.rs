//! Methods about peers and the node's place in the network. Core: `src/rpc/net.cpp`.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::Amount;
use groat_net::PROTOCOL_VERSION;
use groat_net::addr::{Host, Network};
use groat_net::peer::{
    LinkKind, NODE_BLOOM, NODE_COMPACT_FILTERS, NODE_NETWORK, NODE_NETWORK_LIMITED, NODE_P2P_V2, NODE_WITNESS,
};
use groat_net::protocol::PeerId;
use groat_net::wire::Transport;
use hex::DisplayHex;
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::method::{Answer, Method, all, answer, done};
use super::number::{Btc, Real};
use crate::handle::{AddNode, AddNodeError, PeerInfo, Which};

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "addnode",
        group: "network",
        args: &[
            Arg::required("node", Kind::Text, "Address, with or without a port."),
            Arg::required(
                "command",
                Kind::Text,
                "add: keep a link to it; remove: do not any more; onetry: dial it once.",
            ),
            Arg::optional("v2transport", Kind::Bool, "Whether to begin with the encrypted transport."),
        ],
        about: "Dials a node, once or always.",
        run: addnode,
    },
    Method {
        name: "disconnectnode",
        group: "network",
        args: &[
            Arg::optional("address", Kind::Text, "The peer, as getpeerinfo shows it."),
            Arg::optional("nodeid", Kind::Number, "The peer's number, in place of its address."),
        ],
        about: "Ends a link.",
        run: disconnectnode,
    },
    Method {
        name: "getconnectioncount",
        group: "network",
        args: &[],
        about: "Number of links.",
        run: |rpc, _| answer(rpc.node()?.peers()?.len()),
    },
    Method {
        name: "getnetworkinfo",
        group: "network",
        args: &[],
        about: "The node as its peers see it.",
        run: getnetworkinfo,
    },
    Method { name: "getpeerinfo", group: "network", args: &[], about: "All links.", run: getpeerinfo },
];

/// Fee rate per 1000 virtual bytes below which nothing is relayed. Core: `DEFAULT_MIN_RELAY_TX_FEE`.
const DEFAULT_MIN_RELAY_TX_FEE: Amount = Amount::from_sat(100);
/// Core: `DEFAULT_INCREMENTAL_RELAY_FEE`.
const DEFAULT_INCREMENTAL_RELAY_FEE: Amount = Amount::from_sat(100);

fn addnode(rpc: &Rpc, args: &Args) -> Answer {
    let command = match args.text(1) {
        Some("add") => AddNode::Add,
        Some("remove") => AddNode::Remove,
        Some("onetry") => AddNode::OneTry,
        _ => {
            let help = all().find(|method| method.name == "addnode").map(Method::help);
            return Err(RpcError::new(RPC_MISC_ERROR, help.unwrap_or_default()));
        }
    };
    match rpc.node()?.add_node(args.text(0).unwrap_or_default(), command)? {
        Ok(()) => done(),
        Err(AddNodeError::AlreadyAdded) => {
            Err(RpcError::new(RPC_CLIENT_NODE_ALREADY_ADDED, "Error: Node already added"))
        }
        Err(AddNodeError::NotAdded) => Err(RpcError::new(
            RPC_CLIENT_NODE_NOT_ADDED,
            "Error: Node could not be removed. It has not been added previously.",
        )),
    }
}

fn disconnectnode(rpc: &Rpc, args: &Args) -> Answer {
    // bitcoin-cli gives an empty address to say that there is none.
    let which = match (args.text(0), args.int::<i64>(1)?) {
        (Some(address), None) => Which::Addr(address.to_string()),
        (None | Some(""), Some(id)) => Which::Id(PeerId(u64::try_from(id).unwrap_or(u64::MAX))),
        _ => {
            let text = "Only one of address and nodeid should be provided.";
            return Err(RpcError::new(RPC_INVALID_PARAMS, text));
        }
    };
    if !rpc.node()?.disconnect(which)? {
        return Err(RpcError::new(RPC_CLIENT_NODE_NOT_CONNECTED, "Node not found in connected nodes"));
    }
    done()
}

/// Names of service bits. Core: `serviceFlagsToStr`.
fn service_names(services: u64) -> Vec<String> {
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

/// `CLIENT_VERSION`'s form: two digits each for major, minor and patch.
fn client_version() -> u32 {
    let part = |text: &str| text.parse().unwrap_or(0);
    part(env!("CARGO_PKG_VERSION_MAJOR")) * 10_000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 100
        + part(env!("CARGO_PKG_VERSION_PATCH"))
}

fn getnetworkinfo(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct NetworkInfo<'a> {
        version: u32,
        subversion: &'a str,
        protocolversion: i32,
        localservices: String,
        localservicesnames: Vec<String>,
        localrelay: bool,
        timeoffset: i64,
        networkactive: bool,
        connections: usize,
        connections_in: usize,
        connections_out: usize,
        networks: [Reach; 5],
        relayfee: Btc,
        incrementalfee: Btc,
        localaddresses: [String; 0],
        warnings: [String; 0],
    }
    #[derive(Serialize)]
    struct Reach {
        name: &'static str,
        limited: bool,
        reachable: bool,
        proxy: &'static str,
        proxy_randomize_credentials: bool,
    }
    let peers = rpc.node()?.peers()?;
    let inbound = peers.iter().filter(|peer| peer.kind.is_inbound()).count();
    let mut offsets: Vec<i64> =
        peers.iter().filter(|peer| !peer.kind.is_inbound()).map(|peer| peer.time_offset).collect();
    offsets.sort_unstable();
    // Nothing but the two internet protocols can be dialled without a proxy.
    let networks = [("ipv4", true), ("ipv6", true), ("onion", false), ("i2p", false), ("cjdns", false)];
    answer(NetworkInfo {
        version: client_version(),
        subversion: &rpc.config.user_agent,
        protocolversion: PROTOCOL_VERSION,
        localservices: format!("{:016x}", rpc.config.services),
        localservicesnames: service_names(rpc.config.services),
        localrelay: rpc.config.relay,
        timeoffset: offsets.get(offsets.len() / 2).copied().unwrap_or(0),
        networkactive: true,
        connections: peers.len(),
        connections_in: inbound,
        connections_out: peers.len() - inbound,
        networks: networks.map(|(name, reachable)| Reach {
            name,
            limited: !reachable,
            reachable,
            proxy: "",
            proxy_randomize_credentials: false,
        }),
        relayfee: Btc(DEFAULT_MIN_RELAY_TX_FEE),
        incrementalfee: Btc(DEFAULT_INCREMENTAL_RELAY_FEE),
        localaddresses: [],
        warnings: [],
    })
}

/// One link, with Core's keys. What Groat does not count yet is 0.
#[derive(Serialize)]
struct PeerView {
    id: u64,
    addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    addrbind: Option<String>,
    network: &'static str,
    services: String,
    servicesnames: Vec<String>,
    relaytxes: bool,
    last_inv_sequence: u64,
    inv_to_send: u64,
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
    permissions: [String; 0],
    minfeefilter: Btc,
    bytessent_per_msg: BTreeMap<String, u64>,
    bytesrecv_per_msg: BTreeMap<String, u64>,
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
        addr: peer.addr.to_string(),
        addrbind: peer.bind.map(|bind| bind.to_string()),
        network: network_name(&peer.addr.host),
        services: format!("{:016x}", peer.services),
        servicesnames: service_names(peer.services),
        relaytxes: peer.relay_txs,
        last_inv_sequence: 0,
        inv_to_send: 0,
        lastsend: peer.last_send,
        lastrecv: peer.last_recv,
        last_transaction: 0,
        last_block: 0,
        bytessent: peer.bytes_sent,
        bytesrecv: peer.bytes_received,
        conntime: peer.connected,
        timeoffset: peer.time_offset,
        pingtime: peer.ping.map(seconds),
        minping: peer.min_ping.map(seconds),
        version: peer.version,
        subver: sanitized(&peer.subver),
        inbound: peer.kind.is_inbound(),
        bip152_hb_to: peer.pushes_blocks_to_us,
        bip152_hb_from: peer.wants_blocks_pushed,
        presynced_headers: -1,
        synced_headers: peer.synced_headers,
        synced_blocks: peer.synced_blocks,
        inflight: peer.inflight,
        addr_relay_enabled: false,
        addr_processed: 0,
        addr_rate_limited: 0,
        permissions: [],
        minfeefilter: Btc(Amount::ZERO),
        bytessent_per_msg: BTreeMap::new(),
        bytesrecv_per_msg: BTreeMap::new(),
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
fn network_name(host: &Host) -> &'static str {
    if !host.is_routable() {
        return "not_publicly_routable";
    }
    match host.network() {
        Network::Ipv4 => "ipv4",
        Network::Ipv6 => "ipv6",
        Network::Onion => "onion",
        Network::I2p => "i2p",
        Network::Cjdns => "cjdns",
    }
}

/// Letters that do no harm wherever they are printed. Core: `SanitizeString`.
fn sanitized(text: &str) -> String {
    text.chars().filter(|letter| letter.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*letter)).collect()
}
