//! Methods about the peer book. Core: `getnodeaddresses` and its kind in `src/rpc/net.cpp`.

use std::collections::BTreeMap;

use groat_net::addr::{Host, NetAddr, Network};
use groat_net::addrman::Shelved;
use groat_net::message::AddrEntry;
use groat_net::peer::{NODE_NETWORK, NODE_WITNESS};
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::method::{Answer, Method, answer};
use crate::clock;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "getaddrmaninfo",
        group: "network",
        args: &[],
        about: "How many addresses of each network are known: heard of, and tried.",
        run: getaddrmaninfo,
    },
    Method {
        name: "getnodeaddresses",
        group: "network",
        args: &[
            Arg::optional("count", Kind::Number, "Most addresses to give; 0: all. Without it, one."),
            Arg::optional("network", Kind::Text, "Only of this network: ipv4, ipv6, onion, i2p or cjdns."),
        ],
        about: "Some addresses of peers, without those that are worth little.",
        run: getnodeaddresses,
    },
    Method {
        name: "addpeeraddress",
        group: "hidden",
        args: &[
            Arg::required("address", Kind::Text, "Address of a peer."),
            Arg::required("port", Kind::Number, "Its port."),
            Arg::optional("tried", Kind::Bool, "Put it among those that answered."),
        ],
        about: "Puts an address into the peer book, for tests.",
        run: addpeeraddress,
    },
    Method {
        name: "getrawaddrman",
        group: "hidden",
        args: &[],
        about: "All places of the peer book.",
        run: getrawaddrman,
    },
];

fn getaddrmaninfo(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct Count {
        new: usize,
        tried: usize,
        total: usize,
    }
    #[derive(Serialize)]
    struct Counts {
        ipv4: Count,
        ipv6: Count,
        onion: Count,
        i2p: Count,
        cjdns: Count,
        all_networks: Count,
    }
    let counts = rpc.node()?.with_hub(|hub| Network::ALL.map(|network| hub.protocol().book().count(network)))?;
    let sum = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    let count = |(new, tried): (usize, usize)| Count { new, tried, total: new + tried };
    let [ipv4, ipv6, onion, i2p, cjdns] = counts.map(count);
    answer(Counts { ipv4, ipv6, onion, i2p, cjdns, all_networks: count(sum) })
}

fn getnodeaddresses(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Known {
        time: u32,
        services: u64,
        address: String,
        port: u16,
        network: &'static str,
    }
    let count = args.int::<i32>(0)?.unwrap_or(1);
    let Ok(count) = usize::try_from(count) else {
        return Err(RpcError::new(RPC_INVALID_PARAMETER, "Address count out of range"));
    };
    let network = args.text(1).map(|name| Network::from_name(name).ok_or(name)).transpose();
    let network =
        network.map_err(|name| RpcError::new(RPC_INVALID_PARAMETER, format!("Network not recognized: {name}")))?;
    let most = if count == 0 { usize::MAX } else { count };
    let known = rpc.node()?.with_hub(move |hub| hub.protocol_mut().addresses(most, network, clock::micros()))?;
    let shown = known.into_iter().map(|AddrEntry { time, services, addr }| Known {
        time,
        services,
        address: addr.host.to_string(),
        port: addr.port,
        network: network_of(&addr.host),
    });
    answer(shown.collect::<Vec<_>>())
}

/// Core: `GetNetworkName(GetNetClass())`.
fn network_of(host: &Host) -> &'static str {
    if host.is_routable() { host.network().name() } else { "not_publicly_routable" }
}

fn addpeeraddress(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Added {
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        success: bool,
    }
    let port = args.int::<u16>(1)?.unwrap_or_default();
    let Ok(host) = args.text(0).unwrap_or_default().parse::<Host>() else {
        return Err(RpcError::new(RPC_CLIENT_INVALID_IP_OR_SUBNET, "Invalid IP address"));
    };
    let tried = args.bool(2).unwrap_or_default();
    let services = NODE_NETWORK | NODE_WITNESS;
    let now = clock::micros();
    let added = rpc.node()?.with_hub(move |hub| {
        let addr = NetAddr { host: hub.host(host), port };
        hub.protocol_mut().add_address(addr, services, tried, now)
    })?;
    answer(Added { error: added.err().map(|error| error.to_string()), success: added.is_ok() })
}

fn getrawaddrman(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct Place {
        address: String,
        port: u16,
        services: u64,
        time: u32,
        network: &'static str,
        source: String,
        source_network: &'static str,
    }
    #[derive(Serialize, Default)]
    struct Tables {
        new: BTreeMap<String, Place>,
        tried: BTreeMap<String, Place>,
    }
    let shelves: Vec<Shelved> = rpc.node()?.with_hub(|hub| hub.protocol().book().shelves().collect())?;
    let mut tables = Tables::default();
    for Shelved { tried, bucket, place, entry, source } in shelves {
        let table = if tried { &mut tables.tried } else { &mut tables.new };
        let shown = Place {
            address: entry.addr.host.to_string(),
            port: entry.addr.port,
            services: entry.services,
            time: entry.time,
            network: network_of(&entry.addr.host),
            source: source.to_string(),
            source_network: network_of(&source),
        };
        table.insert(format!("{bucket}/{place}"), shown);
    }
    answer(tables)
}
