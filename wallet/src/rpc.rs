//! A node's JSON-RPC as this program calls it: one call or many at once. Finds the cookie, and says where it looked.
//! Works with groatd and with bitcoind.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::BlockHash;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::network::Network;

/// Core: `RPC_IN_WARMUP`. The node is starting.
const RPC_IN_WARMUP: i64 = -28;
/// Core: `RPC_METHOD_NOT_FOUND`.
pub const RPC_METHOD_NOT_FOUND: i64 = -32601;
/// How long a starting node is waited for.
const WARMUP: Duration = Duration::from_secs(60);
/// Seconds that one call may take: `rpc` may ask for a scan of all coins.
const CALL_SECONDS: u64 = 600;
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 512 << 20;

/// Where a node is, and how to be let in.
pub struct Node {
    url: String,
    authorization: String,
    hint: String,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    result: Value,
    error: Option<Refusal>,
    #[serde(default)]
    id: Value,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
}

impl Reply {
    fn into_result(self) -> Result<Value> {
        match self.error {
            Some(Refusal { code, message }) => Err(Error::Rpc { code, message }),
            None => Ok(self.result),
        }
    }
}

/// Where cookies are looked for, first to last: the one named, Groat's folder, Core's.
fn cookies(named: Option<&Path>, datadir: &Path, folder: &str) -> Vec<PathBuf> {
    match named {
        Some(path) => vec![path.to_owned()],
        None => {
            let core = std::env::home_dir().unwrap_or_default().join(".bitcoin");
            [datadir.to_owned(), core].into_iter().map(|top| top.join(folder).join(".cookie")).collect()
        }
    }
}

impl Node {
    /// The node at `url` (loopback and the chain's port by default). Reads its cookie, and checks that it runs this chain.
    pub fn connect(url: Option<&str>, cookie: Option<&Path>, datadir: &Path, network: &Network) -> Result<Node> {
        let url = match url {
            Some(url) if url.contains('@') => {
                return Err(crate::error::usage(
                    "--rpc takes no password, it would stand in the list of processes: give --rpc-cookie FILE",
                ));
            }
            Some(url) if url.contains("://") => url.trim_end_matches('/').to_owned(),
            Some(address) => format!("http://{address}"),
            None => format!("http://127.0.0.1:{}", network.params.rpc_port),
        };
        let place = url.trim_start_matches("http://");
        let tried = cookies(cookie, datadir, &network.params.folder);
        let (name, chain) = (network.name(), &network.chain);
        let hint = format!("start one with `groatd --chain {chain}`, or give --rpc, --rpc-cookie or --datadir");
        let Some((path, secret)) = tried.iter().find_map(|path| Some((path, std::fs::read_to_string(path).ok()?)))
        else {
            let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
            let tried = tried.join(" and ");
            return Err(Error::Node(format!("no node at {place} ({name}; no cookie in {tried})\n  {hint}")));
        };
        let authorization = format!("Basic {}", STANDARD.encode(secret.trim()));
        let hint = format!("({name}; cookie {})\n  {hint}", path.display());
        let node = Node { url, authorization, hint };
        node.check_chain(network)?;
        Ok(node)
    }

    fn check_chain(&self, network: &Network) -> Result<()> {
        let begun = Instant::now();
        let hash: BlockHash = loop {
            match self.call("getblockhash", json!([0])) {
                Err(Error::Rpc { code: RPC_IN_WARMUP, message }) => {
                    if begun.elapsed() > WARMUP {
                        return Err(Error::Node(format!("the node is still starting ({message}): try again later")));
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
                other => break other?,
            }
        };
        if hash == network.genesis() {
            return Ok(());
        }
        let (name, place) = (network.name(), self.place());
        Err(Error::Node(format!("the node at {place} is not on {name}: give its chain with --chain, or another --rpc")))
    }

    /// Calls a method. `params` is an array, or an object of named arguments.
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T> {
        let body = json!({"jsonrpc": "1.0", "id": 0, "method": method, "params": params});
        let reply: Reply = self.post(&body)?;
        read(method, reply.into_result()?)
    }

    /// Calls a method once for each set of arguments, in one exchange. The answers stand in the order of the arguments.
    pub fn batch(&self, method: &str, params: impl IntoIterator<Item = Value>) -> Result<Vec<Result<Value>>> {
        let calls: Vec<Value> = params
            .into_iter()
            .enumerate()
            .map(|(id, params)| json!({"jsonrpc": "1.0", "id": id, "method": method, "params": params}))
            .collect();
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let count = calls.len();
        let mut replies: Vec<Reply> = self.post(&Value::Array(calls))?;
        replies.sort_by_key(|reply| reply.id.as_u64());
        if replies.len() != count {
            return Err(Error::Node(format!("the node gave {} answers to {count} calls of {method}", replies.len())));
        }
        Ok(replies.into_iter().map(Reply::into_result).collect())
    }

    fn place(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    fn post<T: DeserializeOwned>(&self, body: &Value) -> Result<T> {
        let unreachable =
            |error: &dyn std::fmt::Display| Error::Node(format!("no node at {}: {error} {}", self.place(), self.hint));
        let answer = bitreq::post(format!("{}/", self.url))
            .with_header("Authorization", &self.authorization)
            .with_header("Content-Type", "application/json")
            .with_body(body.to_string())
            .with_timeout(Duration::from_secs(CALL_SECONDS))
            .with_max_body_size(MAX_ANSWER)
            .send()
            .map_err(|error| unreachable(&error))?;
        match answer.status_code {
            401 => Err(Error::Node(format!("the node at {} does not take the cookie {}", self.place(), self.hint))),
            403 => Err(Error::Node(format!("the node at {} does not allow this address", self.place()))),
            status => serde_json::from_slice(answer.as_bytes())
                .map_err(|_| unreachable(&format!("what answers there is no node (HTTP {status})"))),
        }
    }
}

/// Reads an answer as what it is documented to be.
pub fn read<T: DeserializeOwned>(method: &str, answer: Value) -> Result<T> {
    serde_json::from_value(answer).map_err(|error| Error::Node(format!("the node's answer to {method}: {error}")))
}
