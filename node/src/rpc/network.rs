//! Methods about peers and the node's place in the network. Core: `src/rpc/net.cpp`.

use bitcoin::Amount;
use groat_chain::mempool::Policy;
use groat_net::PROTOCOL_VERSION;
use groat_net::addr::{NetAddr, Network};
use groat_net::local::Own;
use groat_net::peer::{LinkKind, NODE_P2P_V2};
use groat_net::protocol::{Command, PeerId};
use groat_net::upload::MAX_UPLOAD_TIMEFRAME;
use hex::FromHex;
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::method::{Answer, Method, answer, done, help_of};
use super::number::Btc;
use super::peerinfo::service_names;
use crate::clock;
use crate::hub::{AddNode, AddNodeError, Which};

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
    Method {
        name: "getaddednodeinfo",
        group: "network",
        args: &[Arg::optional("node", Kind::Text, "Only this one, as it was added.")],
        about: "The nodes that addnode or --addnode added, each with its link.",
        run: getaddednodeinfo,
    },
    Method {
        name: "getnettotals",
        group: "network",
        args: &[],
        about: "Bytes that passed since the start.",
        run: getnettotals,
    },
    Method {
        name: "ping",
        group: "network",
        args: &[],
        about: "Sends each peer a ping; getpeerinfo has what comes of it.",
        run: ping,
    },
    Method {
        name: "setnetworkactive",
        group: "network",
        args: &[Arg::required("state", Kind::Bool, "false: end all links and make no more; true: make links again.")],
        about: "Switches the network off or on.",
        run: setnetworkactive,
    },
    Method {
        name: "addconnection",
        group: "hidden",
        args: &[
            Arg::required("address", Kind::Text, "Address with port."),
            Arg::required(
                "connection_type",
                Kind::Text,
                "outbound-full-relay, block-relay-only, addr-fetch or feeler.",
            ),
            Arg::required("v2transport", Kind::Bool, "Begin with the encrypted transport."),
        ],
        about: "Makes a link as the node makes them by itself, on regtest.",
        run: addconnection,
    },
    Method {
        name: "sendmsgtopeer",
        group: "hidden",
        args: &[
            Arg::required("peer_id", Kind::Number, "The peer's number."),
            Arg::required("msg_type", Kind::Text, "Type of the message, at most 12 letters."),
            Arg::required("msg", Kind::Hex, "Its payload."),
        ],
        about: "Sends a peer any message, for tests.",
        run: sendmsgtopeer,
    },
];

/// Whether a link may begin with version 2 of the transport.
fn speaks_v2(rpc: &Rpc) -> bool {
    rpc.config.services & NODE_P2P_V2 != 0
}

fn addnode(rpc: &Rpc, args: &Args) -> Answer {
    let command = match args.text(1) {
        Some("add") => AddNode::Add,
        Some("remove") => AddNode::Remove,
        Some("onetry") => AddNode::OneTry,
        _ => return Err(help_of("addnode")),
    };
    let (name, v2) = (args.text(0).unwrap_or_default().to_owned(), args.bool(2));
    if v2 == Some(true) && !speaks_v2(rpc) {
        let text = "Error: v2transport requested but not enabled (see -v2transport)";
        return Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    }
    match rpc.node()?.with_hub(move |hub| hub.add_node(&name, command, v2))? {
        Ok(()) => done(),
        Err(error @ AddNodeError::AlreadyAdded) => Err(RpcError::new(RPC_CLIENT_NODE_ALREADY_ADDED, error.to_string())),
        Err(error @ AddNodeError::NotAdded) => Err(RpcError::new(RPC_CLIENT_NODE_NOT_ADDED, error.to_string())),
    }
}

fn getaddednodeinfo(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Link {
        address: String,
        connected: &'static str,
    }
    #[derive(Serialize)]
    struct Added {
        addednode: String,
        connected: bool,
        addresses: Vec<Link>,
    }
    let mut nodes = rpc.node()?.with_hub(|hub| hub.added_nodes())?;
    if let Some(name) = args.text(0) {
        nodes.retain(|node| node.name == name);
        if nodes.is_empty() {
            return Err(RpcError::new(RPC_CLIENT_NODE_NOT_ADDED, "Error: Node has not been added."));
        }
    }
    let link = |(addr, inbound): (NetAddr, bool)| Link {
        address: addr.to_string(),
        connected: if inbound { "inbound" } else { "outbound" },
    };
    let shown = nodes.into_iter().map(|node| Added {
        addednode: node.name,
        connected: node.linked.is_some(),
        addresses: node.linked.into_iter().map(link).collect(),
    });
    answer(shown.collect::<Vec<_>>())
}

fn addconnection(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Opened<'a> {
        address: &'a str,
        connection_type: &'a str,
    }
    let node = rpc.node()?;
    if node.params().name != "regtest" {
        let text = "addconnection is for regression testing (-regtest mode) only.";
        return Err(RpcError::new(RPC_MISC_ERROR, text));
    }
    let (address, connection_type) = (args.text(0).unwrap_or_default(), args.text(1).unwrap_or_default().trim());
    let kind = match connection_type {
        "outbound-full-relay" => LinkKind::OutboundFull,
        "block-relay-only" => LinkKind::BlockRelay,
        "addr-fetch" => LinkKind::AddrFetch,
        "feeler" => LinkKind::Feeler,
        _ => return Err(RpcError::new(RPC_INVALID_PARAMETER, help_of("addconnection").message)),
    };
    let v2 = args.bool(2).unwrap_or_default();
    if v2 && !speaks_v2(rpc) {
        let text = "Error: Adding v2transport connections requires -v2transport init flag to be set.";
        return Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    }
    let name = address.to_owned();
    if !node.with_hub(move |hub| hub.open(&name, kind, v2))? {
        let text = "Error: Already at capacity for specified connection type.";
        return Err(RpcError::new(RPC_CLIENT_NODE_CAPACITY_REACHED, text));
    }
    answer(Opened { address, connection_type })
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
    if !rpc.node()?.with_hub(move |hub| hub.disconnect(&which))? {
        return Err(RpcError::new(RPC_CLIENT_NODE_NOT_CONNECTED, "Node not found in connected nodes"));
    }
    done()
}

fn ping(rpc: &Rpc, _: &Args) -> Answer {
    rpc.node()?.with_hub(|hub| hub.command(Command::Ping))?;
    done()
}

fn setnetworkactive(rpc: &Rpc, args: &Args) -> Answer {
    let active = args.bool(0).unwrap_or_default();
    rpc.node()?.with_hub(move |hub| hub.set_active(active))?;
    answer(active)
}

fn sendmsgtopeer(rpc: &Rpc, args: &Args) -> Answer {
    /// Bytes of a message's type. Core: `CMessageHeader::MESSAGE_TYPE_SIZE`.
    const MESSAGE_TYPE_SIZE: usize = 12;
    /// Longer ones cannot be framed in version 2 of the transport.
    const MAX_BYTES: usize = (1 << 24) - 100;
    #[derive(Serialize)]
    struct Nothing {}
    let refuse = |text: &str| Err(RpcError::new(RPC_INVALID_PARAMETER, text));
    let id = args.int::<i64>(0)?.and_then(|id| u64::try_from(id).ok()).unwrap_or(u64::MAX);
    let name = args.text(1).unwrap_or_default().to_owned();
    if name.len() > MESSAGE_TYPE_SIZE {
        return refuse(&format!("Error: msg_type too long, max length is {MESSAGE_TYPE_SIZE}"));
    }
    let Ok(payload) = Vec::from_hex(args.text(2).unwrap_or_default()) else {
        return refuse("Error parsing input for msg");
    };
    let fits = payload.len() <= MAX_BYTES;
    let sent = fits && rpc.node()?.with_hub(move |hub| hub.send_message(PeerId(id), name, payload))?;
    if !sent {
        return Err(RpcError::new(RPC_MISC_ERROR, "Error: Could not send message to peer"));
    }
    answer(Nothing {})
}

fn getnettotals(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct Target {
        timeframe: u64,
        target: u64,
        target_reached: bool,
        serve_historical_blocks: bool,
        bytes_left_in_cycle: u64,
        time_left_in_cycle: u64,
    }
    #[derive(Serialize)]
    struct NetTotals {
        totalbytesrecv: u64,
        totalbytessent: u64,
        timemillis: u64,
        uploadtarget: Target,
    }
    let totals = rpc.node()?.with_hub(|hub| hub.totals())?;
    answer(NetTotals {
        totalbytesrecv: totals.received,
        totalbytessent: totals.sent,
        timemillis: clock::micros().0 / 1000,
        uploadtarget: Target {
            timeframe: MAX_UPLOAD_TIMEFRAME.as_secs(),
            target: totals.target.target,
            target_reached: totals.target.reached,
            serve_historical_blocks: totals.target.serves_historical_blocks,
            bytes_left_in_cycle: totals.target.bytes_left,
            time_left_in_cycle: totals.target.time_left.as_secs(),
        },
    })
}

/// The version of Core whose interface this is: clients choose by it what to ask and what shape to expect.
const CORE_VERSION: u32 = 310_000;

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
        localaddresses: Vec<Local>,
        warnings: Vec<String>,
    }
    #[derive(Serialize)]
    struct Reach {
        name: &'static str,
        limited: bool,
        reachable: bool,
        proxy: String,
        proxy_randomize_credentials: bool,
    }
    #[derive(Serialize)]
    struct Local {
        address: String,
        port: u16,
        score: u32,
    }
    let info = rpc.node()?.with_hub(|hub| hub.network())?;
    let reach = |network| {
        let (reachable, proxy) = (info.reachable.contains(&network), info.proxies.of(network));
        Reach {
            name: network.name(),
            limited: !reachable,
            reachable,
            proxy: proxy.map(|proxy| proxy.addr.to_string()).unwrap_or_default(),
            proxy_randomize_credentials: proxy.is_some_and(|proxy| proxy.isolate),
        }
    };
    let local = |own: &Own| Local { address: own.addr.host.to_string(), port: own.addr.port, score: own.score };
    let Policy { min_relay_fee, incremental_relay_fee, .. } = *rpc.node()?.mempool().read().policy();
    answer(NetworkInfo {
        version: CORE_VERSION,
        subversion: &rpc.config.user_agent,
        protocolversion: PROTOCOL_VERSION,
        localservices: format!("{:016x}", rpc.config.services),
        localservicesnames: service_names(rpc.config.services),
        localrelay: rpc.config.relay,
        timeoffset: info.time_offset,
        networkactive: info.active,
        connections: info.inbound + info.outbound,
        connections_in: info.inbound,
        connections_out: info.outbound,
        networks: Network::ALL.map(reach),
        relayfee: Btc(Amount::from_sat(min_relay_fee)),
        incrementalfee: Btc(Amount::from_sat(incremental_relay_fee)),
        localaddresses: info.own.iter().map(local).collect(),
        warnings: rpc.node()?.warnings().messages(),
    })
}
