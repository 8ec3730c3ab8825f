//! The sockets below HTTP: where to listen, whom to let in, how many links there may be and how long one may be silent.
//! Knows no path and no user.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, bail};
use groat_net::addr::Host;
use groat_net::bans::Subnet;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tracing::warn;

use crate::config::Http;

/// Links to one address of ours: each takes an open file. Past it, who comes waits until one ends.
const MAX_LINKS: usize = 128;
/// Links of those who may not call, beside those of who may. They hear so and take no place from others.
const MAX_STRANGERS: usize = 16;
/// How long one of those may be silent.
const STRANGERS_PATIENCE: Duration = Duration::from_secs(2);
/// How long a silent link is kept. Core: `DEFAULT_HTTP_SERVER_TIMEOUT`.
const DEFAULT_HTTP_SERVER_TIMEOUT: u64 = 30;
/// Seconds of the longest wait that there is, 136 years: one that the system's clock cannot count would be a panic.
const MAX_PATIENCE: u64 = u32::MAX as u64;
/// Wait when the system gives no more sockets.
const NO_SOCKETS_DELAY: Duration = Duration::from_millis(100);

/// The open sockets and who may come in.
pub struct Doors {
    /// One at least; the first has the port that was asked for, or the free one that the system chose.
    pub listeners: Vec<TcpListener>,
    /// Who may call.
    pub allowed: Vec<Subnet>,
    /// The operator opened it to others by an address of his own.
    pub is_open: bool,
}

impl Doors {
    /// Opens the sockets as the options say: on loopback alone, unless they name both addresses and who may come.
    pub fn open(options: &Http, port: u16) -> anyhow::Result<Doors> {
        let mut allowed: Vec<Subnet> = ["127.0.0.0/8", "::1"].iter().filter_map(|subnet| subnet.parse().ok()).collect();
        for text in &options.rpcallowip {
            let Ok(subnet) = text.parse() else {
                bail!(
                    "Invalid -rpcallowip subnet specification: {text}. Valid values are a single IP (e.g. 1.2.3.4), a \
                     network/netmask (e.g. 1.2.3.4/255.255.255.0), a network/CIDR (e.g. 1.2.3.4/24), all ipv4 \
                     (0.0.0.0/0), or all ipv6 (::/0)."
                );
            };
            allowed.push(subnet);
        }
        let is_open = !options.rpcallowip.is_empty() && !options.rpcbind.is_empty();
        let mut listeners = Vec::new();
        if is_open {
            for text in &options.rpcbind {
                let address = address(text, port).with_context(|| format!("-rpcbind={text} is no address"))?;
                match TcpListener::bind(address) {
                    Ok(listener) => listeners.push(listener),
                    Err(error) => warn!("JSON-RPC cannot listen on {address}: {error}"),
                }
            }
            if listeners.is_empty() {
                bail!("Unable to bind any endpoint for RPC server");
            }
        } else {
            match (&options.rpcallowip[..], &options.rpcbind[..]) {
                ([], []) => {}
                (_, []) => warn!("-rpcallowip without -rpcbind changes nothing: JSON-RPC listens on loopback alone"),
                _ => warn!("-rpcbind is ignored without -rpcallowip: JSON-RPC listens on loopback alone"),
            }
            let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let listener = TcpListener::bind(wanted)
                .with_context(|| format!("Unable to bind to {wanted} for RPC; is another node running there?"))?;
            let port = listener.local_addr()?.port();
            listeners.push(listener);
            // A machine need not have the other version of the protocol.
            listeners.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port)));
        }
        Ok(Doors { listeners, allowed, is_open })
    }

    /// Whether somebody at this address may call.
    pub fn lets_in(&self, address: IpAddr) -> bool {
        let host = match address.to_canonical() {
            IpAddr::V4(address) => Host::V4(address.octets()),
            IpAddr::V6(address) => Host::V6(address.octets()),
        };
        self.allowed.iter().any(|subnet| subnet.contains(&host))
    }
}

/// An address with its port, or with this one.
pub fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse().ok().or_else(|| Some(SocketAddr::new(bare.parse().ok()?, port)))
}

/// What links may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a link may be silent, if there is a bound.
    pub patience: Option<Duration>,
    /// How many there may be.
    pub links: usize,
}

impl Bounds {
    /// As the options say.
    pub fn new(options: &Http) -> Bounds {
        let seconds = options.rpcservertimeout.unwrap_or(DEFAULT_HTTP_SERVER_TIMEOUT).min(MAX_PATIENCE);
        Bounds { patience: (seconds > 0).then(|| Duration::from_secs(seconds)), links: MAX_LINKS }
    }
}

/// Answers whoever links with `listener`, until `closing` is true and the answers under way are out. `lets_in`: who may
/// call, and so has a place.
pub async fn serve<F, R>(
    listener: TcpListener,
    bounds: Bounds,
    mut closing: watch::Receiver<bool>,
    lets_in: impl Fn(IpAddr) -> bool,
    answer: F,
) -> io::Result<()>
where
    F: Fn(IpAddr, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (mut links, mut strangers) = (JoinSet::new(), JoinSet::new());
    let each = closing.clone();
    loop {
        tokio::select! {
            () = closes(&mut closing) => break,
            Some(_) = links.join_next() => {}
            Some(_) = strangers.join_next() => {}
            accepted = listener.accept(), if links.len() < bounds.links => match accepted {
                Ok((stream, from)) if lets_in(from.ip()) => {
                    links.spawn(link(stream, from.ip(), bounds.patience, each.clone(), answer.clone()));
                }
                Ok((stream, from)) if strangers.len() < MAX_STRANGERS => {
                    strangers.spawn(link(stream, from.ip(), Some(STRANGERS_PATIENCE), each.clone(), answer.clone()));
                }
                Ok(_) => {}
                Err(_) => sleep(NO_SOCKETS_DELAY).await,
            },
        }
    }
    drop(listener);
    while links.join_next().await.is_some() {}
    Ok(())
}

/// Waits until the server closes.
pub async fn closes(closing: &mut watch::Receiver<bool>) {
    // An error says that who could tell is gone, which is the same.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Answers one link until it ends. Its errors are its own end's.
async fn link<F, R>(
    stream: TcpStream,
    from: IpAddr,
    patience: Option<Duration>,
    mut closing: watch::Receiver<bool>,
    answer: F,
) where
    F: Fn(IpAddr, Request<Incoming>) -> R,
    R: Future<Output = Response<Full<Bytes>>>,
{
    // An answer goes at once, and is not kept for more to come.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let reply = answer(from, request);
        async { Ok::<_, Infallible>(reply.await) }
    });
    let mut http = http1::Builder::new();
    // Also bounds the silence between two calls.
    http.timer(TokioTimer::new()).header_read_timeout(patience);
    let mut link = pin!(http.serve_connection(TokioIo::new(Impatient::new(stream, patience)), service));
    tokio::select! {
        _ = link.as_mut() => {}
        () = closes(&mut closing) => {
            link.as_mut().graceful_shutdown();
            let _ = link.await;
        }
    }
}

/// A stream that ends when the other end takes nothing of what it asked for: it holds an answer in our memory.
struct Impatient {
    stream: TcpStream,
    patience: Option<Duration>,
    /// Runs out while a write waits.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream, patience: Option<Duration>) -> Impatient {
        Impatient { stream, patience, stuck: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.stuck = None;
            return write;
        }
        let Some(patience) = self.patience else { return Poll::Pending };
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        ready!(stuck.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.judge(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    fn who_is_let_in_and_where_takes_both_options() {
        let open = |binds: &[&str], allowed: &[&str]| {
            let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            Doors::open(&Http { rpcbind: own(binds), rpcallowip: own(allowed), ..Http::default() }, 0)
        };
        let lets_in = |doors: &Doors, address: &str| doors.lets_in(address.parse().expect("an address"));
        for (binds, allowed) in [(&[][..], &[][..]), (&["0.0.0.0"], &[]), (&[], &["10.0.0.0/8"])] {
            let doors = open(binds, allowed).expect("loopback has a free port");
            let all = doors.listeners.iter().map(|listener| listener.local_addr().expect("it is bound").ip());
            assert!(all.clone().all(|ip| ip.is_loopback()) && !doors.is_open, "{binds:?} {allowed:?}");
        }
        let doors = open(&["127.0.0.2", "127.0.0.3:0", "192.0.2.1"], &["10.0.0.0/255.0.0.0", "fd00::/8"]);
        let doors = doors.expect("one address of all is there");
        let ips = doors.listeners.iter().map(|listener| listener.local_addr().expect("it is bound").ip().to_string());
        assert_eq!(ips.collect::<Vec<_>>(), ["127.0.0.2", "127.0.0.3"]);
        assert!(doors.is_open);
        for address in ["127.9.9.9", "::1", "10.1.2.3", "::ffff:10.1.2.3", "fd00::7"] {
            assert!(lets_in(&doors, address), "{address}");
        }
        for address in ["11.0.0.1", "::2", "fc00::1", "::ffff:11.0.0.1"] {
            assert!(!lets_in(&doors, address), "{address}");
        }
        for (binds, allowed) in [(&["192.0.2.1"][..], &["::/0"][..]), (&["x"], &["::/0"]), (&[], &["10.0.0.0/33"])] {
            assert!(open(binds, allowed).is_err(), "{binds:?} {allowed:?}");
        }
    }

    /// A server that answers anything with so many bytes; where it is, and what ends it.
    fn server(bounds: Bounds, bytes: usize) -> (SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (end, ended) = watch::channel(false);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it is made");
            let answer = move |_, _| async move { Response::new(Full::new(Bytes::from(vec![b'x'; bytes]))) };
            // 127.0.0.2 may not call.
            let lets_in = |from: IpAddr| from != IpAddr::from([127, 0, 0, 2]);
            runtime.block_on(serve(listener, bounds, ended, lets_in, answer)).expect("it serves");
        });
        (address, end)
    }

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

    #[test]
    fn who_does_not_take_an_answer_is_left() {
        const BYTES: usize = 64 << 20;
        let slow = Duration::from_secs(2);
        for (patience, wait, whole) in [(slow * 30, Duration::ZERO, true), (slow / 10, slow, false)] {
            let (address, _end) = server(Bounds { patience: Some(patience), links: 4 }, BYTES);
            let mut link = TcpStream::connect(address).expect("it listens");
            link.write_all(ASK).expect("it reads");
            std::thread::sleep(wait);
            let mut answer = Vec::new();
            let _ = link.read_to_end(&mut answer);
            assert_eq!(answer.len() > BYTES, whole, "{} bytes came after {wait:?}", answer.len());
        }
    }

    #[test]
    fn the_longest_patience_is_one_that_the_clock_can_count() {
        let bounds = Bounds::new(&Http { rpcservertimeout: Some(u64::MAX), ..Http::default() });
        let (address, _end) = server(bounds, 1);
        let mut link = TcpStream::connect(address).expect("it listens");
        link.write_all(ASK).expect("it reads");
        let mut answer = Vec::new();
        link.read_to_end(&mut answer).expect("it answers");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }

    #[test]
    fn who_may_not_call_takes_no_place_from_who_may() {
        let (address, _end) = server(Bounds { patience: None, links: 2 }, 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it is made");
        let stranger = || {
            let _inside = runtime.enter();
            let socket = tokio::net::TcpSocket::new_v4().expect("there is a socket");
            socket.bind(([127, 0, 0, 2], 0).into()).expect("all of 127.0.0.0/8 is this machine");
            runtime.block_on(socket.connect(address)).expect("it listens").into_std().expect("it is one")
        };
        let mut silent: Vec<TcpStream> = (0..2 * MAX_STRANGERS).map(|_| stranger()).collect();
        let mut link = TcpStream::connect(address).expect("it listens");
        link.write_all(ASK).expect("it reads");
        link.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        let mut answer = Vec::new();
        link.read_to_end(&mut answer).expect("it is answered");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
        // Nor may they be silent for long.
        let mut first = silent.swap_remove(0);
        first.set_nonblocking(false).expect("it can be set");
        first.set_read_timeout(Some(10 * STRANGERS_PATIENCE)).expect("a timeout can be set");
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).expect("it ends");
    }

    #[test]
    fn who_comes_when_all_links_are_taken_waits_for_one() {
        let (address, _end) = server(Bounds { patience: None, links: 2 }, 1);
        let link = || TcpStream::connect(address).expect("it listens");
        let (first, _second, mut third) = (link(), link(), link());
        third.write_all(ASK).expect("it reads");
        third.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout can be set");
        assert!(third.read(&mut [0]).is_err(), "the third link is answered while two are open");
        drop(first);
        third.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        let mut answer = Vec::new();
        third.read_to_end(&mut answer).expect("it is answered now");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }
}
