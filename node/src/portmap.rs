//! A port of the router that leads to this node's: asked for by PCP or NAT-PMP, and renewed. Core: `mapport.cpp`. Of IPv4
//! only: over IPv6 there is no translation. Knows no peer.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::Context;
use crab_nat::{GATEWAY_PORT, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, natpmp};
use groat_net::addr::NetAddr;
use groat_net::local::How;
use tokio::sync::mpsc;
use tracing::debug;

use crate::hub::Told;

/// A mapping is renewed after this. Core: `PORT_MAPPING_REANNOUNCE_PERIOD`.
const RENEW: Duration = Duration::from_secs(20 * 60);
/// It lasts for this, so that one renewal may fail.
const LIFETIME: Duration = Duration::from_secs(40 * 60);
/// What failed is tried again after this. Core: `PORT_MAPPING_RETRY_PERIOD`.
const RETRY: Duration = Duration::from_secs(5 * 60);
/// The kernel's table of routes.
const ROUTES: &str = "/proc/net/route";

/// Keeps the mapping until the hub is gone.
pub async fn run(port: u16, told: mpsc::Sender<Told>) {
    let mut mapping: Option<PortMapping> = None;
    let mut known: Option<NetAddr> = None;
    while !told.is_closed() {
        let found = seek(mapping.take(), port).await;
        let addr = found.as_ref().ok().map(|(_, addr)| *addr);
        if known != addr {
            let gone = known.map(|addr| Told::Own { addr, how: None });
            let new = addr.map(|addr| Told::Own { addr, how: Some(How::Mapped) });
            for news in gone.into_iter().chain(new) {
                let _ = told.send(news).await;
            }
            known = addr;
        }
        let pause = match found {
            Ok((found, _)) => {
                let half = Duration::from_secs(found.lifetime().into()) / 2;
                mapping = Some(found);
                RENEW.min(half).max(Duration::from_secs(1))
            }
            Err(error) => {
                debug!(target: "net", "no port of the router leads here: {error:#}");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = told.closed() => {}
        }
    }
}

/// Renews a mapping or asks for a new one; also gives where it is seen from outside.
async fn seek(old: Option<PortMapping>, port: u16) -> anyhow::Result<(PortMapping, NetAddr)> {
    let mut renewed = None;
    if let Some(mut mapping) = old {
        renewed = mapping.renew().await.is_ok().then_some(mapping);
    }
    let mapping = match renewed {
        Some(mapping) => mapping,
        None => map(port).await?,
    };
    let addr = external(&mapping).await?;
    Ok((mapping, addr))
}

async fn map(port: u16) -> anyhow::Result<PortMapping> {
    let routes = tokio::fs::read_to_string(ROUTES).await.with_context(|| format!("{ROUTES} cannot be read"))?;
    let gateway = default_gateway(&routes).context("there is no router")?;
    map_at(gateway, port).await
}

/// Asks this router.
async fn map_at(gateway: Ipv4Addr, port: u16) -> anyhow::Result<PortMapping> {
    // Nothing is sent by that: it tells which of this machine's addresses the router sees.
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    probe.connect((gateway, GATEWAY_PORT))?;
    let client = probe.local_addr()?.ip();
    let port = NonZeroU16::new(port).context("port 0 is none")?;
    let options = PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: Some(LIFETIME.as_secs() as u32),
        timeout_config: None,
    };
    let mapping = PortMapping::new(IpAddr::V4(gateway).into(), client, InternetProtocol::Tcp, port, options).await;
    mapping.context("the router does not map a port")
}

/// Where the mapping is seen from outside.
async fn external(mapping: &PortMapping) -> anyhow::Result<NetAddr> {
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip,
        PortMappingType::NatPmp => {
            natpmp::external_address(mapping.gateway(), None).await.context("the router has no address")?.into()
        }
    };
    Ok(NetAddr { host: ip.into(), port: mapping.external_port().get() })
}

/// The router that all goes to that no other route is for. Fields are separated by white space: interface, destination,
/// gateway, flags; addresses are hexadecimal in this machine's order of bytes.
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    /// The route leads to a gateway and is up. Linux: `RTF_UP | RTF_GATEWAY`.
    const UP_BY_GATEWAY: u16 = 3;
    routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, destination, gateway, flags, ..] = fields[..] else { return None };
        let flags = u16::from_str_radix(flags, 16).ok()?;
        let default = destination == "00000000" && flags & UP_BY_GATEWAY == UP_BY_GATEWAY;
        let gateway = u32::from_str_radix(gateway, 16).ok().filter(|_| default)?;
        Some(Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_leads_to_the_router() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
                     eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n";
        let little = cfg!(target_endian = "little");
        assert_eq!(default_gateway(table).filter(|_| little), little.then_some(Ipv4Addr::new(192, 168, 2, 1)));
        for none in ["", "Iface\n", "Iface\neth0\t00000000\t0102A8C0\t0001\n", "Iface\neth0\t00000000\tx\t0003\n"] {
            assert_eq!(default_gateway(none), None, "{none:?}");
        }
    }

    /// A router on loopback that knows NAT-PMP only; an address of its own, so that tests may run side by side.
    fn router(ip: Ipv4Addr) -> UdpSocket {
        UdpSocket::bind((ip, GATEWAY_PORT)).unwrap()
    }

    fn serve(router: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        let mut asked = Vec::new();
        for _ in 0..count {
            let mut buffer = [0; 2000];
            let (length, from) = router.recv_from(&mut buffer).unwrap();
            let request = buffer[..length].to_vec();
            let answer = match request[..2] {
                // PCP: an unsupported version, said as NAT-PMP says it.
                [2, _] => vec![0, 0x80 | request[1], 0, 1, 0, 0, 0, 9],
                [0, 0] => vec![0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7],
                [0, op] => {
                    let mut answer = vec![0, 128 + op, 0, 0, 0, 0, 0, 9];
                    answer.extend_from_slice(&request[4..6]);
                    answer.extend_from_slice(&40_000u16.to_be_bytes());
                    answer.extend_from_slice(&request[8..12]);
                    answer
                }
                _ => panic!("an unknown request {request:?}"),
            };
            router.send_to(&answer, from).unwrap();
            asked.push(request);
        }
        asked
    }

    #[test]
    fn a_port_is_mapped_by_a_router_that_knows_the_old_protocol_alone() {
        let ip = Ipv4Addr::new(127, 53, 51, 1);
        let router = router(ip);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| serve(&router, 3));
            let addr = runtime.block_on(async {
                let mapping = map_at(ip, 8333).await.unwrap();
                external(&mapping).await.unwrap()
            });
            assert_eq!(addr.to_string(), "203.0.113.7:40000");
            let asked = asked.join().unwrap();
            // Operation 2 is TCP; inside and outside port 8333; 2400 s.
            assert_eq!(asked[1], [&[0, 2, 0, 0][..], &[0x20, 0x8d, 0x20, 0x8d], &2400u32.to_be_bytes()].concat());
        });
    }
}
