//! A real bitcoind for tests: on loopback, in a folder of its own, gone when dropped. And the few lines of JSON-RPC
//! that talk to it. Knows nothing of Groat.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a bitcoind may take from its start to its first answer.
const STARTUP: Duration = Duration::from_secs(60);
/// JSON-RPC code of a node that is still starting (Core: `RPC_IN_WARMUP`).
const RPC_IN_WARMUP: i64 = -28;

/// The folder of `bitcoind` and its tools, as `scripts/peers.sh` builds them. None says "SKIPPED" on standard error;
/// with `GROAT_REQUIRE_PEERS=1` it is a failure.
pub fn peers() -> Option<PathBuf> {
    let top = std::env::var_os("GROAT_PEERS").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".cache/groat/peers"))
    })?;
    let folder = top.join("bin");
    if folder.join("bitcoind").is_file() {
        return Some(folder);
    }
    let required = std::env::var_os("GROAT_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "no bitcoind in {}: scripts/peers.sh builds it", folder.display());
    eprintln!("SKIPPED: no bitcoind (scripts/peers.sh builds it)");
    None
}

/// A loopback port that nobody listens on at the moment: none that was given lately, here or by another process of tests
/// that runs beside this one, and none that the system gives to a link that leaves (on Linux those begin at 32768).
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    /// Apart: bitcoind may take the port after its own as well.
    const STEP: u16 = 3;
    /// Ports of one process.
    const SPAN: u16 = 2_000;
    /// How many processes have ports of their own.
    const SPANS: u16 = 11;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    static HELD: OnceLock<(u16, Option<File>)> = OnceLock::new();
    let (span, _) = HELD.get_or_init(|| {
        let held = (0..SPANS).find_map(|span| {
            let file = File::create(std::env::temp_dir().join(format!("groat-tests-ports-{span}"))).ok()?;
            file.try_lock().ok().map(|()| (span, Some(file)))
        });
        held.unwrap_or((std::process::id() as u16 % SPANS, None))
    });
    loop {
        let port = FIRST + span * SPAN + TAKEN.fetch_add(STEP, Ordering::Relaxed) % SPAN;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A running bitcoind. Dropping it kills it and removes its folder.
pub struct Bitcoind {
    process: Child,
    folder: tempfile::TempDir,
    rpc: Rpc,
}

impl Bitcoind {
    /// Starts a bitcoind on regtest with these further options, and waits until it answers. It neither listens nor
    /// connects unless the options say so. Panics, and says what it printed, when it does not come up.
    pub fn start(peers: &Path, options: &[String]) -> Bitcoind {
        Bitcoind::start_in(peers, empty_folder(), "regtest", options)
    }

    /// The same in a folder that may already hold a chain, on a network as `-chain=` names it.
    pub fn start_in(peers: &Path, folder: tempfile::TempDir, chain: &str, options: &[String]) -> Bitcoind {
        let binary = peers.join("bitcoind");
        let port = free_port();
        let mut process = Command::new(&binary)
            .arg(format!("-datadir={}", folder.path().display()))
            .arg(format!("-chain={chain}"))
            .args(["-server=1", "-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1", "-rpcservertimeout=3600"])
            .arg(format!("-rpcport={port}"))
            .args(if options.iter().any(|option| option.starts_with("-listen=1")) {
                ["-bind=127.0.0.1", "-listenonion=0"]
            } else {
                ["-listen=0", "-connect=0"]
            })
            .args(["-dnsseed=0", "-fixedseeds=0", "-natpmp=0", "-discover=0", "-printtoconsole=0"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display()));
        let cookie = chain_folder(folder.path(), chain).join(".cookie");
        let started = Instant::now();
        let rpc = loop {
            if let Some(status) = process.try_wait().expect("a child can be asked") {
                let mut said = String::new();
                let _ = process.stderr.take().expect("stderr is piped").read_to_string(&mut said);
                panic!("bitcoind ended at its start ({status}): {said}");
            }
            assert!(started.elapsed() < STARTUP, "bitcoind gave no answer in {STARTUP:?}");
            if let Ok(secret) = std::fs::read_to_string(&cookie) {
                let rpc = Rpc::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &secret);
                match rpc.try_call("getblockcount", &json!([])) {
                    Ok(Ok(_)) => break rpc,
                    Ok(Err(error)) if error.code != RPC_IN_WARMUP => panic!("bitcoind at its start: {error:?}"),
                    _ => {}
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Bitcoind { process, folder, rpc }
    }

    /// Its data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its RPC connection.
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// Calls a method that is expected to succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        self.rpc.call(method, params).unwrap_or_else(|error| panic!("bitcoind {method}: {error:?}"))
    }

    /// Waits until the best block is at `height`.
    pub fn wait_for_height(&self, height: u32, limit: Duration) {
        let started = Instant::now();
        loop {
            let now = self.call("getblockcount", json!([]));
            if now == json!(height) {
                return;
            }
            assert!(started.elapsed() < limit, "bitcoind stands at height {now} after {limit:?}, not {height}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it in order, so that its state is on disk, and hands back the folder. Panics unless it ends with status 0 and
    /// nothing on standard error.
    pub fn stop(mut self) -> tempfile::TempDir {
        self.call("stop", json!([]));
        let status = self.process.wait().expect("a child can be waited for");
        let mut said = String::new();
        let _ = self.process.stderr.take().expect("stderr is piped").read_to_string(&mut said);
        assert!(status.success() && said.is_empty(), "bitcoind ended with {status} and said: {said}");
        std::mem::replace(&mut self.folder, empty_folder())
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where bitcoind keeps a network's data within its data folder.
pub fn chain_folder(datadir: &Path, chain: &str) -> PathBuf {
    datadir.join(match chain {
        "main" => "",
        "test" => "testnet3",
        chain => chain,
    })
}

fn empty_folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("the temporary folder can be written")
}

/// What a JSON-RPC server answered in place of a result.
#[derive(Debug, PartialEq, Eq)]
pub struct RpcError {
    /// Code as in Core's `rpc/protocol.h`.
    pub code: i64,
    /// Text for people.
    pub message: String,
}

/// A JSON-RPC connection over HTTP that is kept open between calls.
pub struct Rpc {
    address: SocketAddr,
    authorization: String,
    connection: Mutex<Option<BufReader<TcpStream>>>,
}

impl Rpc {
    /// `secret` is `user:password`, as in a cookie file.
    pub fn new(address: SocketAddr, secret: &str) -> Rpc {
        Rpc { address, authorization: base64(secret.trim().as_bytes()), connection: Mutex::new(None) }
    }

    /// Another connection to the server of `other`.
    pub fn with_authorization_of(other: &Rpc) -> Rpc {
        Rpc { address: other.address, authorization: other.authorization.clone(), connection: Mutex::new(None) }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value of the `Authorization` header that the server wants.
    pub fn authorization(&self) -> String {
        format!("Basic {}", self.authorization)
    }

    /// Calls a method; a broken connection is a panic.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.try_call(method, &params).unwrap_or_else(|error| panic!("RPC {method} at {}: {error}", self.address))
    }

    /// Calls a method. The outer error is the connection's, the inner one the server's.
    pub fn try_call(&self, method: &str, params: &Value) -> std::io::Result<Result<Value, RpcError>> {
        let body = json!({"jsonrpc": "1.0", "id": 0, "method": method, "params": params}).to_string();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            self.authorization,
            body.len()
        );
        let mut place = self.connection.lock().expect("no call panics while it holds the connection");
        let ask = |connection: &mut BufReader<TcpStream>| {
            connection.get_mut().write_all(request.as_bytes())?;
            read_answer(connection)
        };
        // The server closes a connection that was silent for long; then the call has not reached it.
        let kept = place.take().and_then(|mut kept| ask(&mut kept).ok().map(|answer| (kept, answer)));
        let (connection, (status, body)) = match kept {
            Some(answered) => answered,
            None => {
                let mut connection = BufReader::new(TcpStream::connect(self.address)?);
                let answer = ask(&mut connection)?;
                (connection, answer)
            }
        };
        *place = Some(connection);
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|_| std::io::Error::other(format!("{status}: {}", String::from_utf8_lossy(&body))))?;
        Ok(match answer["error"]["code"].as_i64() {
            Some(code) => {
                Err(RpcError { code, message: answer["error"]["message"].as_str().unwrap_or_default().into() })
            }
            None => Ok(answer["result"].clone()),
        })
    }
}

/// Reads one HTTP answer: the status line and the body.
pub fn read_answer(from: &mut impl BufRead) -> std::io::Result<(String, Vec<u8>)> {
    let mut status = String::new();
    from.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok((status.trim().into(), body))
}

/// Base64 (RFC 4648), which HTTP's basic authorization asks for.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().chain([0, 0].iter()).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for place in 0..4 {
            text.push(if place <= group.len() { char::from(LETTERS[bits >> (18 - 6 * place) & 63]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_pads_as_rfc_4648_says() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("~~~?", "fn5+Pw==")];
        for (text, expected) in cases {
            assert_eq!(super::base64(text.as_bytes()), expected, "base64 of {text:?}");
        }
    }
}
