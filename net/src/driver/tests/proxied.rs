//! Links through a small SOCKS5 server: who is asked for what, and with which credentials.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::super::proxy::{Target, connect};
use super::*;
use crate::addr::{Host, NetAddr};

/// What a client asked of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    /// User name and password; none: no authentication was offered.
    credentials: Option<(Vec<u8>, Vec<u8>)>,
    /// Kind of address: 1 IPv4, 3 name, 4 IPv6.
    kind: u8,
    host: Vec<u8>,
    port: u16,
}

fn bytes(stream: &mut std::net::TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn counted(stream: &mut std::net::TcpStream) -> Vec<u8> {
    let count = bytes(stream, 1)[0];
    bytes(stream, count.into())
}

/// Takes one client in as RFC 1928 and RFC 1929 say, and leaves its link open without an end behind it.
fn serve(listener: &TcpListener) -> (Asked, std::net::TcpStream) {
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(bytes(&mut stream, 1), [5], "version of SOCKS");
    let credentials = if counted(&mut stream).contains(&2) {
        stream.write_all(&[5, 2]).unwrap();
        assert_eq!(bytes(&mut stream, 1), [1], "version of the authentication");
        let credentials = (counted(&mut stream), counted(&mut stream));
        stream.write_all(&[1, 0]).unwrap();
        Some(credentials)
    } else {
        stream.write_all(&[5, 0]).unwrap();
        None
    };
    let [_, command, _, kind] = bytes(&mut stream, 4)[..] else { panic!("four bytes were read") };
    assert_eq!(command, 1, "only to connect is asked for");
    let host = match kind {
        1 => bytes(&mut stream, 4),
        4 => bytes(&mut stream, 16),
        _ => counted(&mut stream),
    };
    let port = bytes(&mut stream, 2);
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    (Asked { credentials, kind, host, port: u16::from_be_bytes([port[0], port[1]]) }, stream)
}

fn onion() -> NetAddr {
    NetAddr { host: Host::TorV3([7; 32]), port: 8333 }
}

#[test]
fn each_link_has_credentials_of_its_own_and_names_are_the_proxys_to_resolve() {
    let runtime = runtime();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for isolate in [true, false] {
        let proxy = Proxy { addr: listener.local_addr().unwrap(), isolate };
        let mut a = Node::with(&runtime, Options { proxies: Proxies::all(proxy), ..options() });
        let (mut all, mut open) = (Vec::new(), Vec::new());
        let text = onion().to_string();
        for (dialled, kind, host, port) in [
            ("1.2.3.4:8333", 1, vec![1, 2, 3, 4], 8333),
            ("[2001:db8::1]:9", 4, [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1]].concat(), 9),
            ("seed.invalid", 3, b"seed.invalid".to_vec(), 18444),
            (&text, 3, onion().host.to_string().into_bytes(), 8333),
        ] {
            a.driver.dial(dialled, LinkKind::Manual, None);
            let (asked, stream) = serve(&listener);
            open.push(stream);
            assert_eq!((asked.kind, asked.host, asked.port), (kind, host, port), "{dialled}");
            let peer = a.connected();
            assert_eq!(a.driver.info(peer).unwrap().name.as_deref(), Some(dialled));
            all.push(asked.credentials);
        }
        if isolate {
            all.sort();
            all.dedup();
            assert!(all.len() == 4 && all[0].is_some(), "credentials were used twice, or not at all: {all:?}");
        } else {
            assert_eq!(all, vec![None; 4]);
        }
    }
}

#[test]
fn a_seed_is_not_resolved_where_names_are_for_a_proxy() {
    let runtime = runtime();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = Proxy { addr: listener.local_addr().unwrap(), isolate: true };
    let mut a = Node::with(&runtime, Options { proxies: Proxies::all(proxy), ..options() });
    // This machine would know what that stands for.
    a.driver.ask_seed("localhost".into());
    let answer = a.next("an answer");
    assert!(matches!(&answer, Input::Seeded { name, addrs } if name == "localhost" && addrs.is_empty()), "{answer:?}");
    a.driver.dial("seed.invalid", LinkKind::AddrFetch, None);
    assert_eq!(serve(&listener).0.host, b"seed.invalid");
}

#[test]
fn an_onion_service_is_not_dialled_without_a_proxy() {
    let runtime = runtime();
    let mut a = Node::new(&runtime, true, 8);
    a.driver.reach(onion(), LinkKind::OutboundFull, true);
    let failed = a.next("a failure");
    assert!(matches!(failed, Input::DialFailed { addr, tried: false } if addr == onion()), "{failed:?}");
    // Tor's daemon was found meanwhile.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    a.driver.set_onion_proxy(Proxy { addr: listener.local_addr().unwrap(), isolate: true });
    a.driver.reach(onion(), LinkKind::OutboundFull, true);
    assert_eq!(serve(&listener).0.host, onion().host.to_string().into_bytes());
}

#[test]
fn a_proxy_that_is_gone_is_not_held_against_the_address() {
    let runtime = runtime();
    let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let proxies = Proxies::all(Proxy { addr, isolate: true });
    let mut a = Node::with(&runtime, Options { proxies, ..options() });
    a.driver.reach(onion(), LinkKind::OutboundFull, false);
    assert!(matches!(a.next("a failure"), Input::DialFailed { tried: false, .. }));
}

#[test]
fn a_name_that_nobody_may_look_up_is_not_dialled() {
    let runtime = runtime();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = Target::Name("localhost".into(), listener.local_addr().unwrap().port());
    let reached = |no_lookups| {
        let proxies = Proxies { no_lookups, ..Proxies::default() };
        runtime.block_on(async { connect(&target, &proxies).await.is_ok() })
    };
    assert_eq!([false, true].map(reached), [true, false], "localhost without and with -dns=0");
}

#[test]
fn a_proxy_that_says_no_or_nonsense_is_a_failure_that_counts() {
    let runtime = runtime();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxies = Proxies::all(Proxy { addr: listener.local_addr().unwrap(), isolate: false });
    let mut a = Node::with(&runtime, Options { proxies, ..options() });
    for answer in [&[5, 0xff][..], &[4, 0], &[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0], &[]] {
        a.driver.reach(onion(), LinkKind::OutboundFull, false);
        let (mut stream, _) = listener.accept().unwrap();
        bytes(&mut stream, 3);
        stream.write_all(answer).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let failed = a.next("a failure");
        assert!(matches!(failed, Input::DialFailed { tried: true, .. }), "{answer:?}: {failed:?}");
    }
}
