//! What the operator says about links, as the driver and the protocol take it: one pass over the options, with Core's
//! texts for what makes no sense. Opens nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use anyhow::{anyhow, bail};
use groat_chain::params::Params;
use groat_net::addr::{NetAddr, Network, host_and_port, port_is_valid};
use groat_net::driver::{Door, Proxies, Proxy};
use groat_net::permissions::{Grant, Permissions, parse_whitebind};
use groat_net::protocol::LinkOptions;
use groat_net::slots::Slots;
use tracing::warn;

use crate::config::Config;
use crate::tor::{self, DEFAULT_TOR_SOCKS_PORT};

/// Open files that are left for all but links.
const RESERVED_FILES: u64 = 512;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The address.
    pub addr: SocketAddr,
    /// Who comes in there.
    pub door: Door,
    /// The node does not start if it cannot.
    pub required: bool,
}

/// All of it.
#[derive(Debug)]
pub struct Plan {
    /// Where to listen.
    pub binds: Vec<Bind>,
    /// Through whom to dial.
    pub proxies: Proxies,
    /// Who may do what.
    pub grants: Vec<Grant>,
    /// Whom to dial.
    pub dialling: LinkOptions,
    /// The onion service, if there shall be one.
    pub tor: Option<tor::Options>,
    /// The port that the router shall map, if it shall.
    pub mapped: Option<u16>,
}

/// Reads the options. `folder`: that of the chain's data, for the key of the onion service.
pub fn plan(config: &Config, params: &Params, folder: &Path) -> anyhow::Result<Plan> {
    check_ports(config)?;
    let peers = &config.peers;
    if peers.privatebroadcast {
        bail!("-privatebroadcast is not supported: own transactions are announced to all peers");
    }
    if peers.forcednsseed && peers.dnsseed == Some(false) {
        bail!("Cannot set -forcednsseed to true when setting -dnsseed to false.");
    }
    let proxied = peers.proxy.last().is_some_and(|proxy| !matches!(proxy.as_str(), "" | "0"));
    let listen = listens(config, proxied)?;
    let port = config.port.unwrap_or(params.port);
    let grants = grants(config)?;
    let binds = if listen { binds(config, params, port)? } else { Vec::new() };
    let proxies = proxies(config)?;
    let listen_onion = listen && peers.listenonion.unwrap_or(true);
    let reachable = reachable(config, &proxies, listen_onion)?;
    let external =
        peers.externalip.iter().map(|text| resolve(text, port, "externalip")).collect::<Result<Vec<_>, _>>()?;
    let clear = reachable.contains(&Network::Ipv4) || reachable.contains(&Network::Ipv6);
    if peers.dnsseed == Some(true) && !clear {
        bail!(
            "Incompatible options: -dnsseed=1 was explicitly specified, but -onlynet forbids connections to IPv4/IPv6"
        );
    }
    let automatic = config.connect.is_empty();
    let ask_seeds = clear && (peers.forcednsseed || peers.dnsseed.unwrap_or(automatic && config.maxconnections > 0));
    let beyond = binds.iter().any(|bind| !bind.addr.ip().is_loopback());
    let tor = listen_onion.then(|| tor_options(config, params, folder, &binds)).transpose()?.flatten();
    Ok(Plan {
        mapped: (beyond && peers.natpmp.unwrap_or(!proxied)).then_some(port),
        dialling: LinkOptions {
            automatic,
            slots: Slots::with_total(config.maxconnections),
            reachable,
            dns_seeds: if ask_seeds { seeds(params) } else { Vec::new() },
            force_dns_seeds: peers.forcednsseed,
            seed_nodes: peers.seednode.clone(),
            fixed_seeds: peers.fixedseeds,
            listen,
            port,
            discover: peers.discover.unwrap_or(beyond && external.is_empty() && !proxied),
            external,
        },
        binds,
        proxies,
        grants,
        tor,
    })
}

/// The names to ask: Core's regtest has one that cannot exist (RFC 6761).
fn seeds(params: &Params) -> Vec<String> {
    params.dns_seeds.iter().filter(|name| !name.trim_end_matches('.').ends_with(".invalid")).cloned().collect()
}

/// Core: `CheckHostPortOptions`.
fn check_ports(config: &Config) -> anyhow::Result<()> {
    let before = |text: &String| text.rsplit_once('=').map_or(text.clone(), |(addr, _)| addr.to_owned());
    let after = |text: &String| text.split_once('@').map_or(text.clone(), |(_, addr)| addr.to_owned());
    let peers = &config.peers;
    let all = [
        ("-onion", peers.onion.iter().cloned().collect::<Vec<_>>()),
        ("-proxy", peers.proxy.iter().map(before).collect()),
        ("-bind", config.bind.iter().map(before).collect()),
        ("-torcontrol", vec![peers.torcontrol.clone()]),
        ("-whitebind", peers.whitebind.iter().map(after).collect()),
    ];
    for (name, values) in all {
        if let Some(value) = values.iter().find(|value| !port_is_valid(value)) {
            bail!("Invalid port specified in {name}: '{value}'");
        }
    }
    if config.port == Some(0) {
        bail!("Invalid port specified in -port: '0'");
    }
    Ok(())
}

/// Whether peers may dial us. Core: `InitParameterInteraction`.
fn listens(config: &Config, proxied: bool) -> anyhow::Result<bool> {
    let named = !config.bind.is_empty() || !config.peers.whitebind.is_empty();
    // Who names the peers to connect to, or hides behind a proxy, wants no others, unless they say so.
    let alone = !config.connect.is_empty() || config.maxconnections == 0 || proxied;
    let listen = config.listen.unwrap_or(named || !alone);
    if named && !listen {
        bail!("Cannot set -bind or -whitebind together with -listen=0");
    }
    if !listen && config.peers.listenonion == Some(true) {
        bail!("Cannot set -listen=0 together with -listenonion=1");
    }
    Ok(listen)
}

/// What who is named without permissions may do.
fn implicit(config: &Config) -> Permissions {
    Permissions::implicit(config.peers.whitelistrelay.unwrap_or(true), config.peers.whitelistforcerelay)
}

fn grants(config: &Config) -> anyhow::Result<Vec<Grant>> {
    let given = config.peers.whitelist.iter();
    given.map(|text| Grant::parse(text, implicit(config)).map_err(Into::into)).collect()
}

/// An address of this machine or another, without asking anybody for a name.
fn resolve(text: &str, port: u16, option: &str) -> anyhow::Result<NetAddr> {
    NetAddr::parse(text, port).map_err(|_| anyhow!("Cannot resolve -{option} address: '{text}'"))
}

fn socket(text: &str, port: u16, option: &str, whole: &str) -> anyhow::Result<SocketAddr> {
    let addr = resolve(text, port, option).ok().and_then(|addr| Some(SocketAddr::new(addr.host.ip()?, addr.port)));
    addr.ok_or_else(|| anyhow!("Cannot resolve -{option} address: '{whole}'"))
}

/// The addresses of `-bind` and `-whitebind`, else everywhere; on regtest, which is for tests, only on this machine.
fn binds(config: &Config, params: &Params, port: u16) -> anyhow::Result<Vec<Bind>> {
    let mut binds = Vec::new();
    for text in &config.bind {
        let (addr, onion) = match text.rsplit_once('=') {
            None => (socket(text, port, "bind", text)?, false),
            Some((addr, "onion")) => (socket(addr, port.saturating_add(1), "bind", text)?, true),
            Some(_) => bail!("Cannot resolve -bind address: '{text}'"),
        };
        binds.push(Bind { addr, door: Door { onion, ..Door::default() }, required: true });
    }
    for text in &config.peers.whitebind {
        let (addr, permissions) = parse_whitebind(text, implicit(config))?;
        binds.push(Bind { addr, door: Door { permissions, onion: false }, required: true });
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = binds.iter().find(|bind| !seen.insert(bind.addr)) {
        let addr = twice.addr;
        bail!(
            "Duplicate binding configuration for address {addr}. Please check your -bind, -bind=...=onion and -whitebind settings."
        );
    }
    if binds.is_empty() {
        let everywhere = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        let local = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let ips = if params.name == "regtest" { &local[..] } else { &everywhere[..] };
        // Where a system takes IPv4 in at the first, the second cannot be had and need not.
        binds.extend(ips.iter().map(|ip| Bind {
            addr: SocketAddr::new(*ip, port),
            door: Door::default(),
            required: ip.is_loopback(),
        }));
        if params.name != "regtest" && config.peers.listenonion.unwrap_or(true) {
            let addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.saturating_add(1));
            binds.push(Bind { addr, door: Door { onion: true, ..Door::default() }, required: false });
        }
    }
    Ok(binds)
}

/// The address of a proxy; of a name, what this machine knows it as.
fn proxy(text: &str, option: &str, isolate: bool) -> anyhow::Result<Proxy> {
    let (host, port) = host_and_port(text);
    let found = (host, port.unwrap_or(DEFAULT_TOR_SOCKS_PORT)).to_socket_addrs().ok().and_then(|mut all| all.next());
    let addr = found.ok_or_else(|| anyhow!("Invalid -{option} address or hostname: '{text}'"))?;
    Ok(Proxy { addr, isolate })
}

fn proxies(config: &Config) -> anyhow::Result<Proxies> {
    let isolate = config.peers.proxyrandomize;
    let no_lookups = !config.peers.dns;
    let mut proxies = Proxies { no_lookups, ..Proxies::default() };
    for text in &config.peers.proxy {
        let (addr, network) = match text.rsplit_once('=') {
            Some((_, "")) => bail!("Invalid -proxy address or hostname, ends with '=': '{text}'"),
            Some((addr, network)) => (addr, Some(network)),
            None => (text.as_str(), None),
        };
        let one = if matches!(addr, "" | "0") { None } else { Some(proxy(addr, "proxy", isolate)?) };
        match network.map(|name| Network::from_name(name).ok_or(name)) {
            None => {
                proxies = Proxies { ipv4: one, ipv6: one, onion: one, cjdns: one, names: one, no_lookups };
            }
            Some(Ok(Network::Ipv4)) => (proxies.ipv4, proxies.names) = (one, one),
            Some(Ok(Network::Ipv6)) => (proxies.ipv6, proxies.names) = (one, one),
            Some(Ok(Network::Onion)) => proxies.onion = one,
            Some(Ok(Network::Cjdns)) => proxies.cjdns = one,
            Some(Ok(Network::I2p)) => bail!("Unrecognized network in -proxy='{text}': 'i2p'"),
            Some(Err(name)) => bail!("Unrecognized network in -proxy='{text}': '{}'", name.to_lowercase()),
        }
    }
    match config.peers.onion.as_deref() {
        None | Some("") => {}
        Some("0") => proxies.onion = None,
        Some(text) => proxies.onion = Some(proxy(text, "onion", isolate)?),
    }
    Ok(proxies)
}

/// The networks that can be dialled. `listen_onion`: Tor's daemon may be found later.
fn reachable(config: &Config, proxies: &Proxies, listen_onion: bool) -> anyhow::Result<BTreeSet<Network>> {
    let mut reachable = BTreeSet::from(Network::ALL);
    if !config.peers.onlynet.is_empty() {
        reachable.clear();
        for name in &config.peers.onlynet {
            let network = Network::from_name(name);
            reachable.insert(network.ok_or_else(|| anyhow!("Unknown network specified in -onlynet: '{name}'"))?);
        }
        let only = |network| reachable.contains(&network);
        if only(Network::Cjdns) && !config.peers.cjdnsreachable {
            bail!("Outbound connections restricted to CJDNS (-onlynet=cjdns) but -cjdnsreachable is not provided");
        }
        if only(Network::Onion) && proxies.onion.is_none() {
            let to_tor =
                "Outbound connections restricted to Tor (-onlynet=onion) but the proxy for reaching the Tor network is";
            match config.peers.onion.as_deref() {
                Some("0") => bail!("{to_tor} explicitly forbidden: -onion=0"),
                _ if !listen_onion => bail!("{to_tor} not provided: none of -proxy, -onion or -listenonion is given"),
                _ => {}
            }
        }
        if only(Network::I2p) {
            bail!("Outbound connections restricted to i2p (-onlynet=i2p) but -i2psam is not provided");
        }
    }
    // There is no way to the I2P network yet.
    reachable.remove(&Network::I2p);
    if proxies.onion.is_none() {
        reachable.remove(&Network::Onion);
    }
    if !config.peers.cjdnsreachable {
        reachable.remove(&Network::Cjdns);
    }
    Ok(reachable)
}

/// The onion service hands its links in where onion links are expected, else where all come in; none without a place.
fn tor_options(
    config: &Config,
    params: &Params,
    folder: &Path,
    binds: &[Bind],
) -> anyhow::Result<Option<tor::Options>> {
    let target = binds.iter().find(|bind| bind.door.onion).or(binds.first());
    let control = config.peers.torcontrol.as_str();
    let (host, port) = host_and_port(control);
    let port = port.unwrap_or(tor::DEFAULT_TOR_CONTROL_PORT);
    let found = (host, port).to_socket_addrs().ok().and_then(|mut all| all.next());
    let control = found.ok_or_else(|| anyhow!("Cannot resolve -torcontrol address: '{control}'"))?;
    let reached =
        |addr: SocketAddr| if addr.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, addr.port()).into() } else { addr };
    Ok(target.map(|target| tor::Options {
        control,
        password: config.peers.torpassword.clone().filter(|password| !password.is_empty()),
        key_file: folder.join("onion_v3_private_key"),
        target: reached(target.addr),
        port: params.port,
        wants_proxy: config.peers.onion.as_deref().is_none_or(str::is_empty),
        may_dial: config.peers.onlynet.is_empty()
            || config.peers.onlynet.iter().any(|name| Network::from_name(name) == Some(Network::Onion)),
    }))
}

/// Has the operating system allow as many open files as it will, and gives how many links there may be then.
pub fn links_within_file_limit(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // What cannot be raised stays: then there are fewer links.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = getrlimit(Resource::Nofile).current.or(current);
    let most = limit.map_or(usize::MAX, |limit| limit.saturating_sub(RESERVED_FILES).try_into().unwrap_or(usize::MAX));
    if wanted > most {
        warn!("--maxconnections is {most} rather than {wanted}: the system allows no more open files");
    }
    wanted.min(most)
}

#[cfg(test)]
mod tests;
