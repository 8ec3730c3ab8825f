//! The onion service at which peers can reach this node: asked of Tor's daemon through its control port
//! ([control-spec]), and asked again whenever the daemon is lost. Core: `torcontrol.cpp`. Knows no peer.
//!
//! [control-spec]: https://spec.torproject.org/control-spec

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use groat_net::addr::NetAddr;
use groat_net::driver;
use groat_net::local::How;
use hex::{DisplayHex, FromHex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::hub::Told;

/// Core's name and value.
pub const DEFAULT_TOR_SOCKS_PORT: u16 = 9050;
/// Core's name and value.
pub const DEFAULT_TOR_CONTROL_PORT: u16 = 9051;
/// The pause before the daemon is tried again. Core: `RECONNECT_TIMEOUT_START`.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. Core: `RECONNECT_TIMEOUT_MAX`.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How long the daemon may take to answer. A service is answered for when its key is made.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest line of an answer. Core: `MAX_LINE_LENGTH`.
const MAX_LINE: u64 = 100_000;
/// Most lines of an answer. Core: `MAX_LINE_COUNT`.
const MAX_LINES: usize = 1000;
/// Bytes of the daemon's cookie. Core: `TOR_COOKIE_SIZE`.
const COOKIE_SIZE: usize = 32;
/// Keys of the two hashes by which both sides show that they know the cookie.
const SERVER_KEY: &[u8] = b"Tor safe cookie authentication server-to-controller hash";
/// See [`SERVER_KEY`].
const CLIENT_KEY: &[u8] = b"Tor safe cookie authentication controller-to-server hash";

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The control port.
    pub control: SocketAddr,
    /// Its password, if it wants one.
    pub password: Option<String>,
    /// Where the key of the service is kept, so that its name stays.
    pub key_file: PathBuf,
    /// Where the daemon hands links in.
    pub target: SocketAddr,
    /// Port of the service: the network's, whatever port this node listens on, so that it does not stand out.
    pub port: u16,
    /// Use the daemon's proxy for onion services.
    pub wants_proxy: bool,
    /// And dial them of our own accord.
    pub may_dial: bool,
}

/// Keeps the service up until the hub is gone.
pub async fn run(options: Options, told: mpsc::Sender<Told>) {
    let mut pause = FIRST_PAUSE;
    while !told.is_closed() {
        let mut service = None;
        let ended = session(&options, &told, &mut service).await;
        if let Some(addr) = service {
            let _ = told.send(Told::Own { addr, how: None }).await;
            pause = FIRST_PAUSE;
        }
        if let Err(error) = ended {
            debug!(target: "tor", "{error:#}");
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 3 / 2);
    }
}

/// One connection with the daemon, from its greeting to its end: the service lives as long as the connection.
async fn session(options: &Options, told: &mpsc::Sender<Told>, service: &mut Option<NetAddr>) -> anyhow::Result<()> {
    let stream = TcpStream::connect(options.control).await.context("there is no control port")?;
    let mut control = Control { stream: BufReader::new(stream) };
    control.authenticate(options.password.as_deref()).await?;
    if options.wants_proxy {
        let lines = control.ask("GETINFO net/listeners/socks").await.unwrap_or_default();
        let proxy = socks_listener(&lines);
        let _ = told.send(Told::OnionProxy { proxy, dial: options.may_dial }).await;
    }
    // No file yet: the daemon makes a key.
    let known = tokio::fs::read_to_string(&options.key_file).await.ok().map(|key| key.trim().to_owned());
    let wanted = known.clone().filter(|key| !key.is_empty()).unwrap_or_else(|| "NEW:ED25519-V3".into());
    let at = format!("Port={},{}", options.port, options.target);
    let defended = control.ask(&format!("ADD_ONION {wanted} PoWDefensesEnabled=1 {at}")).await;
    let lines = match defended {
        Ok(lines) => lines,
        // An older daemon has no proof-of-work defence.
        Err(_) => control.ask(&format!("ADD_ONION {wanted} {at}")).await.context("there is no service")?,
    };
    let fields: BTreeMap<String, String> = lines.iter().flat_map(|line| fields(line)).collect();
    let name = fields.get("ServiceID").context("the service has no name")?;
    let addr = NetAddr { host: format!("{name}.onion").parse()?, port: options.port };
    if let Some(key) = fields.get("PrivateKey").filter(|key| known.as_ref() != Some(key)) {
        keep_key(&options.key_file, key).context("the key of the service cannot be kept")?;
    }
    info!("peers can reach this node at {addr}");
    *service = Some(addr);
    let _ = told.send(Told::Own { addr, how: Some(How::Given) }).await;
    // The daemon says nothing more, until it ends.
    let mut buffer = [0; 256];
    tokio::select! {
        () = told.closed() => {}
        () = async { while control.stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {} } => {}
    }
    Ok(())
}

/// Writes the key for its owner alone.
fn keep_key(path: &std::path::Path, key: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(key.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

struct Control {
    stream: BufReader<TcpStream>,
}

impl Control {
    /// Sends a command; gives the lines of the answer without their codes, if the answer is yes.
    async fn ask(&mut self, command: &str) -> anyhow::Result<Vec<String>> {
        let verb = command.split(' ').next().unwrap_or_default().to_owned();
        let talk = async {
            self.stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).await?;
            self.answer().await
        };
        tokio::time::timeout(PATIENCE, talk).await.context("the daemon does not answer")?.context(verb)
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        (&mut self.stream).take(MAX_LINE).read_line(&mut line).await?;
        ensure!(line.ends_with('\n'), "the daemon hung up, or said too much");
        Ok(line.trim_end().to_owned())
    }

    async fn answer(&mut self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        while lines.len() < MAX_LINES {
            let line = self.line().await?;
            let (Some(code), Some(sort), Some(text)) = (line.get(..3), line.get(3..4), line.get(4..)) else {
                bail!("\"{line}\" is no answer");
            };
            lines.push(text.to_owned());
            match (code, sort) {
                // What happens meanwhile is not asked for.
                (code, _) if code.starts_with('6') => drop(lines.pop()),
                ("250", "-") => {}
                ("250", "+") => while self.line().await? != "." {},
                ("250", " ") => return Ok(lines),
                _ => bail!("the daemon says no: {line}"),
            }
        }
        bail!("the daemon said too much")
    }

    async fn authenticate(&mut self, password: Option<&str>) -> anyhow::Result<()> {
        let lines = self.ask("PROTOCOLINFO 1").await?;
        let auth = lines.iter().find_map(|line| line.strip_prefix("AUTH ")).map(fields).unwrap_or_default();
        let methods: Vec<&str> = auth.get("METHODS").map(|all| all.split(',').collect()).unwrap_or_default();
        let command = if let Some(password) = password {
            ensure!(methods.contains(&"HASHEDPASSWORD"), "the daemon takes no password, but --torpassword gives one");
            format!("AUTHENTICATE \"{}\"", password.replace('\\', "\\\\").replace('"', "\\\""))
        } else if methods.contains(&"NULL") {
            "AUTHENTICATE".into()
        } else if methods.contains(&"SAFECOOKIE") {
            let path = auth.get("COOKIEFILE").context("the daemon does not say where its cookie is")?;
            let cookie = tokio::fs::read(path).await.with_context(|| format!("the cookie {path} cannot be read"))?;
            ensure!(cookie.len() == COOKIE_SIZE, "the cookie {path} is not {COOKIE_SIZE} bytes long");
            let proof = self.challenge(&cookie).await?;
            format!("AUTHENTICATE {}", proof.to_lower_hex_string())
        } else {
            bail!("the daemon wants a password (--torpassword), or something unknown: {methods:?}");
        };
        self.ask(&command).await.map(drop)
    }

    /// Has the daemon show that it knows the cookie; gives what shows that we do.
    async fn challenge(&mut self, cookie: &[u8]) -> anyhow::Result<[u8; 32]> {
        let ours = driver::seed();
        let lines = self.ask(&format!("AUTHCHALLENGE SAFECOOKIE {}", ours.to_lower_hex_string())).await?;
        let said = lines.first().and_then(|line| line.strip_prefix("AUTHCHALLENGE ")).map(fields).unwrap_or_default();
        let part = |name| said.get(name).and_then(|hex| <[u8; 32]>::from_hex(hex).ok());
        let (Some(hash), Some(theirs)) = (part("SERVERHASH"), part("SERVERNONCE")) else {
            bail!("the answer to a challenge has no hash or no nonce");
        };
        let proof = |key: &[u8]| {
            let mut engine = HmacEngine::<sha256::Hash>::new(key);
            [cookie, &ours, &theirs].iter().for_each(|part| engine.input(part));
            Hmac::from_engine(engine).to_byte_array()
        };
        ensure!(proof(SERVER_KEY) == hash, "the daemon does not know its own cookie");
        Ok(proof(CLIENT_KEY))
    }
}

/// Where the daemon's proxy listens: on this machine, if there is a choice.
fn socks_listener(lines: &[String]) -> SocketAddr {
    let fallback = SocketAddr::from(([127, 0, 0, 1], DEFAULT_TOR_SOCKS_PORT));
    let listed = lines.iter().find_map(|line| line.strip_prefix("net/listeners/socks=")).unwrap_or_default();
    let all: Vec<SocketAddr> = listed.split(' ').filter_map(|one| one.trim_matches('"').parse().ok()).collect();
    let local = all.iter().find(|addr| addr.ip().is_loopback());
    local.or(all.first()).copied().unwrap_or(fallback)
}

/// The `name=value` parts of a line; a value may be quoted. Core: `ParseTorReplyMapping`.
fn fields(line: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut rest = line;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => match unquoted(quoted) {
                Some(parts) => parts,
                None => break,
            },
            None => {
                let (value, after) = after.split_once(' ').unwrap_or((after, ""));
                (value.to_owned(), after)
            }
        };
        // Words without a value stand before the name.
        fields.insert(name.rsplit(' ').next().unwrap_or(name).to_owned(), value);
        rest = after.trim_start();
    }
    fields
}

/// The text up to the closing quote, with C's escapes undone, and what comes after the quote.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut bytes = Vec::new();
    let mut letters = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = letters.next() {
        match byte {
            b'"' => return Some((String::from_utf8_lossy(&bytes).into_owned(), &text[at + 1..])),
            b'\\' => match letters.next()?.1 {
                b'n' => bytes.push(b'\n'),
                b't' => bytes.push(b'\t'),
                b'r' => bytes.push(b'\r'),
                digit @ b'0'..=b'7' => {
                    let mut value = u32::from(digit - b'0');
                    // Three digits only where that is a byte.
                    let most = if digit <= b'3' { 2 } else { 1 };
                    for _ in 0..most {
                        let Some((_, next)) = letters.next_if(|(_, next)| (b'0'..=b'7').contains(next)) else { break };
                        value = value * 8 + u32::from(next - b'0');
                    }
                    bytes.push(value as u8);
                }
                other => bytes.push(other),
            },
            other => bytes.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests;
