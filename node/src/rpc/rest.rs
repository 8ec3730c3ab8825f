//! REST as Core has it (`src/rest.cpp`): chain, pool and coins to be read without a password, as bytes, hex or JSON. Paths,
//! statuses and texts are Core's. What an RPC method shows comes from that method.

mod filters;
mod utxos;

use std::fmt::Display;

use ::hex::FromHex;
use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::{BlockHash, Txid};
use groat_chain::coins::Coin;
use groat_chain::store::codec;
use groat_chain::tree::Id;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Rpc;
use super::error::*;
use super::http::Reply;
use super::method;
use super::number::Btc;
use super::rawtransactions::decode_transaction;
use super::script::ScriptPubKey;
use super::show::{HeaderView, TransactionView, hex};

/// Headers in one answer. Core's name and value.
const MAX_REST_HEADERS_RESULTS: usize = 2000;
/// Headers read while the tree is held.
const HEADERS_STRIDE: usize = 64;

/// Paths by their beginnings; the first that fits is meant.
const ROUTES: &[(&str, Handler)] = &[
    ("/rest/tx/", tx),
    ("/rest/block/notxdetails/", |rpc, asked| block(rpc, asked, 1)),
    ("/rest/block/", |rpc, asked| block(rpc, asked, 3)),
    ("/rest/blockpart/", block_part),
    ("/rest/blockfilter/", filters::filter),
    ("/rest/blockfilterheaders/", filters::filter_headers),
    ("/rest/chaininfo", |rpc, asked| asked.method(rpc, "getblockchaininfo", json!([]))),
    ("/rest/mempool/", mempool),
    ("/rest/headers/", headers),
    ("/rest/getutxos", utxos::getutxos),
    ("/rest/deploymentinfo/", deploymentinfo),
    ("/rest/deploymentinfo", deploymentinfo),
    ("/rest/blockhashbyheight/", blockhash_by_height),
    ("/rest/spenttxouts/", spent_txouts),
];

type Handler = fn(&Rpc, &Asked) -> Result<Reply, Refusal>;

/// A question whose path is known.
pub struct Route {
    handler: Handler,
    /// What follows the path's beginning.
    rest: String,
}

/// What answers a target, if something does.
pub fn route(target: &str) -> Option<Route> {
    ROUTES.iter().find_map(|(path, handler)| {
        let rest = target.strip_prefix(path)?;
        Some(Route { handler: *handler, rest: rest.into() })
    })
}

impl Route {
    /// Answers, on a thread that may block.
    pub fn answer(&self, rpc: &Rpc, body: &[u8]) -> Reply {
        let answer = match rpc.node() {
            Err(error) => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("Service temporarily unavailable: {}", error.message),
            )),
            Ok(_) => (self.handler)(rpc, &Asked::new(&self.rest, body)),
        };
        answer.unwrap_or_else(|refusal| Reply::plain(refusal.status, refusal.text + "\r\n"))
    }
}

/// A question that is not answered.
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into() }
    }
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, text)
}

fn not_found(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, text)
}

fn failed(error: impl Display) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Refusal {
        failed(error.message)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Unknown,
    Bin,
    Hex,
    Json,
}

/// A question in its parts.
struct Asked<'a> {
    /// Between the path's beginning and the format.
    path: &'a str,
    format: Format,
    query: &'a str,
    body: &'a [u8],
}

impl<'a> Asked<'a> {
    fn new(rest: &'a str, body: &'a [u8]) -> Asked<'a> {
        // Core looks for the format before the last question mark, and for the query behind the first.
        let path = rest.rsplit_once('?').map_or(rest, |(path, _)| path);
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        let formats = [("bin", Format::Bin), ("hex", Format::Hex), ("json", Format::Json), ("", Format::Unknown)];
        let known = path.rsplit_once('.').and_then(|(path, suffix)| {
            let (_, format) = formats.iter().find(|(name, _)| *name == suffix)?;
            Some((path, *format))
        });
        let (path, format) = known.unwrap_or((path, Format::Unknown));
        Asked { path, format, query, body }
    }

    /// A parameter of the query.
    fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescaped(key) == name).then(|| unescaped(value))
        })
    }

    /// A parameter that is true or false.
    fn switch(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.parameter(name).as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(bad(format!("The \"{name}\" query parameter must be either \"true\" or \"false\"."))),
        }
    }

    /// Answers in the form that was asked for; `bytes` are also what hex shows.
    fn give(
        &self,
        bytes: impl FnOnce() -> Result<Vec<u8>, Refusal>,
        json: impl FnOnce() -> Result<String, Refusal>,
    ) -> Result<Reply, Refusal> {
        let (status, text) = (StatusCode::OK, "text/plain");
        Ok(match self.format {
            Format::Bin => Reply { status, kind: Some("application/octet-stream"), body: bytes()?.into() },
            Format::Hex => {
                let mut hex = hex(&bytes()?);
                hex.push('\n');
                Reply { status, kind: Some(text), body: hex.into() }
            }
            Format::Json => Reply::json(status, json()?),
            Format::Unknown => return Err(not_found("output format not found (available: .bin, .hex, .json)")),
        })
    }

    /// Answers as an RPC method does: there is JSON alone.
    fn method(&self, rpc: &Rpc, name: &str, params: Value) -> Result<Reply, Refusal> {
        if self.format != Format::Json {
            return Err(not_found("output format not found (available: json)"));
        }
        Ok(Reply::json(StatusCode::OK, method::call(rpc, name, params)?.get().into()))
    }
}

/// Text of a query without its escapes; what is no escape stays. Core: `UrlDecode`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let byte = after.get(..2).filter(|_| *first == b'%').and_then(|hex| {
            // Not what an integer's own reader also takes: a sign.
            let hex = std::str::from_utf8(hex).ok().filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            u8::from_str_radix(hex, 16).ok()
        });
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into()
}

/// A number of digits alone. Core: `ToIntegral`.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|digit| digit.is_ascii_digit()))
}

fn hash<T: std::str::FromStr>(text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| bad(format!("Invalid hash: {text}")))
}

fn json_of(value: impl Serialize) -> Result<String, Refusal> {
    serde_json::to_string(&value).map_err(failed)
}

fn tx(rpc: &Rpc, asked: &Asked) -> Result<Reply, Refusal> {
    #[derive(Deserialize)]
    struct Found {
        hex: String,
        blockhash: Option<String>,
    }
    #[derive(Serialize)]
    struct Shown {
        #[serde(flatten)]
        transaction: TransactionView,
        #[serde(skip_serializing_if = "Option::is_none")]
        blockhash: Option<String>,
        hex: String,
    }
    let txid: Txid = hash(asked.path)?;
    let found =
        method::call(rpc, "getrawtransaction", json!([txid.to_string(), 1])).map_err(|error| match error.code {
            RPC_INVALID_ADDRESS_OR_KEY => not_found(format!("{} not found", asked.path)),
            _ => error.into(),
        })?;
    let found: Found = serde_json::from_str(found.get()).map_err(failed)?;
    asked.give(
        || Vec::from_hex(&found.hex).map_err(failed),
        || {
            let tx = decode_transaction(&found.hex, None).ok_or_else(|| failed("it cannot be read"))?;
            let (ids, addresses) = ((tx.compute_txid(), tx.compute_wtxid()), rpc.node()?.params().address_set);
            let transaction = TransactionView::new(&tx, (&ids.0, &ids.1), None, false, addresses).without_hex();
            json_of(Shown { transaction, blockhash: found.blockhash.clone(), hex: found.hex.clone() })
        },
    )
}

/// The block that a path names.
fn find(rpc: &Rpc, text: &str) -> Result<(BlockHash, Id), Refusal> {
    let hash: BlockHash = hash(text)?;
    let id = rpc.node()?.tree().read().get(&hash);
    Ok((hash, id.ok_or_else(|| not_found(format!("{text} not found")))?))
}

/// The bytes of the block that a path names.
fn block_bytes(rpc: &Rpc, text: &str) -> Result<Vec<u8>, Refusal> {
    let (node, (_, id)) = (rpc.node()?, find(rpc, text)?);
    let (pos, known) = {
        let tree = node.tree().read();
        (tree.node(id).block(), tree.node(id).tx_count > 0)
    };
    let why = if known { "pruned data" } else { "not fully downloaded" };
    let pos = pos.ok_or_else(|| not_found(format!("{text} not available ({why})")))?;
    node.store().read_block(pos).map_err(|_| failed(format!("I/O error reading {text}")))
}

fn block(rpc: &Rpc, asked: &Asked, verbosity: u8) -> Result<Reply, Refusal> {
    if asked.format == Format::Json {
        let (hash, _) = find(rpc, asked.path)?;
        let shown = method::call(rpc, "getblock", json!([hash.to_string(), verbosity]));
        // Only what is not stored cannot be shown, and that is told in REST's own words.
        let shown = shown.or_else(|error| block_bytes(rpc, asked.path).and(Err(error.into())))?;
        return Ok(Reply::json(StatusCode::OK, shown.get().into()));
    }
    let bytes = block_bytes(rpc, asked.path)?;
    asked.give(|| Ok(bytes), || Err(failed("it is answered above")))
}

fn block_part(rpc: &Rpc, asked: &Asked) -> Result<Reply, Refusal> {
    let part = |name: &str| {
        let given = asked.parameter(name).and_then(|text| number::<usize>(&text));
        given.ok_or_else(|| bad(format!("Block part {name} missing or invalid")))
    };
    let (offset, size) = (part("offset")?, part("size")?);
    let bytes = block_bytes(rpc, asked.path)?;
    let end = offset.saturating_add(size);
    if size == 0 || end > bytes.len() {
        return Err(bad(format!("Bad block part offset/size {offset}/{size} for {}", asked.path)));
    }
    asked.give(|| Ok(bytes[offset..end].to_vec()), || Err(bad("JSON output is not supported for this request type")))
}

/// Blocks of the active chain, from the one that a path names: `.../<hash>` with a count in the query, or
/// `.../<count>/<hash>`. None: the path is neither.
fn range(rpc: &Rpc, asked: &Asked, parts: &[&str]) -> Result<Option<Vec<Id>>, Refusal> {
    let (count, text) = match parts {
        [text] => (asked.parameter("count").unwrap_or_else(|| "5".into()), text),
        [count, text] => ((*count).to_owned(), text),
        _ => return Ok(None),
    };
    let most = 1..=MAX_REST_HEADERS_RESULTS;
    let many = number::<usize>(&count).filter(|count| most.contains(count)).ok_or_else(|| {
        let range = format!("(1-{MAX_REST_HEADERS_RESULTS})");
        bad(format!("Header count is invalid or out of acceptable range {range}: {count}"))
    })?;
    let hash: BlockHash = hash(text)?;
    let tree = rpc.node()?.tree().read();
    let first = tree.get(&hash).filter(|id| tree.is_active(*id)).map(|id| tree.node(id).height);
    let ids = first.into_iter().flat_map(|first| first..).map_while(|height| tree.active(height)).take(many);
    Ok(Some(ids.collect()))
}

fn headers(rpc: &Rpc, asked: &Asked) -> Result<Reply, Refusal> {
    let parts: Vec<&str> = asked.path.split('/').collect();
    let ids = range(rpc, asked, &parts)?;
    let form = "Invalid URI format. Expected /rest/headers/<hash>.<ext>?count=<count>";
    let ids = ids.ok_or_else(|| bad(form))?;
    let node = rpc.node()?;
    asked.give(
        || {
            let tree = node.tree().read();
            Ok(ids.iter().flat_map(|id| serialize(&tree.header(*id))).collect())
        },
        || {
            let shown = ids.chunks(HEADERS_STRIDE).flat_map(|ids| {
                let tree = node.tree().read();
                ids.iter().map(|id| HeaderView::new(&tree, *id, node.params())).collect::<Vec<_>>()
            });
            json_of(shown.collect::<Vec<_>>())
        },
    )
}

fn blockhash_by_height(rpc: &Rpc, asked: &Asked) -> Result<Reply, Refusal> {
    let shown: String = asked.path.chars().filter(|letter| is_safe(*letter)).collect();
    let height = number::<i32>(asked.path).ok_or_else(|| bad(format!("Invalid height: {shown}")))?;
    let hash = {
        let tree = rpc.node()?.tree().read();
        let id = u32::try_from(height).ok().and_then(|height| tree.active(height));
        tree.node(id.ok_or_else(|| not_found("Block height out of range"))?).hash
    };
    if asked.format == Format::Hex {
        // As people read it, not as it lies in a block.
        return Ok(Reply::plain(StatusCode::OK, format!("{hash}\n")));
    }
    asked.give(|| Ok(serialize(&hash)), || Ok(json!({ "blockhash": hash.to_string() }).to_string()))
}

/// Core: `SAFE_CHARS_URI`.
fn is_safe(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "!*'();:@&=+$,/?#[]-_.~%".contains(letter)
}

fn mempool(rpc: &Rpc, asked: &Asked) -> Result<Reply, Refusal> {
    match asked.path {
        "info" => asked.method(rpc, "getmempoolinfo", json!([])),
        "contents" if asked.format == Format::Json => {
            let (verbose, sequence) = (asked.switch("verbose", true)?, asked.switch("mempool_sequence", false)?);
            if verbose && sequence {
                return Err(bad(
                    "Verbose results cannot contain mempool sequence values. (hint: set \"verbose=false\")",
                ));
            }
            asked.method(rpc, "getrawmempool", json!([verbose, sequence]))
        }
        "contents" => asked.method(rpc, "getrawmempool", json!([])),
        _ => Err(bad("Invalid URI format. Expected /rest/mempool/<info|contents>.json")),
    }
}

fn deploymentinfo(rpc: &Rpc, asked: &Asked) -> Result<Reply, Refusal> {
    if asked.format != Format::Json || asked.path.is_empty() {
        return asked.method(rpc, "getdeploymentinfo", json!([]));
    }
    let hash: BlockHash = hash(asked.path)?;
    if rpc.node()?.tree().read().get(&hash).is_none() {
        return Err(bad("Block not found"));
    }
    asked.method(rpc, "getdeploymentinfo", json!([hash.to_string()]))
}

fn spent_txouts(rpc: &Rpc, asked: &Asked) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    struct Spent {
        value: Btc,
        #[serde(rename = "scriptPubKey")]
        script_pubkey: ScriptPubKey,
    }
    if asked.path.contains('/') {
        return Err(bad("Invalid URI format. Expected /rest/spenttxouts/<hash>.<ext>"));
    }
    let (node, (_, id)) = (rpc.node()?, find(rpc, asked.path)?);
    let (undo, height) = {
        let tree = node.tree().read();
        (tree.node(id).undo(), tree.node(id).height)
    };
    // Of each transaction, in block order; the coinbase spends nothing.
    let mut spent: Vec<Vec<Coin>> = vec![Vec::new()];
    if height > 0 {
        let gone = || not_found(format!("{} undo not available", asked.path));
        let undo = node.store().read_undo(undo.ok_or_else(gone)?).map_err(|_| gone())?;
        let mut coins = codec::decode_undo(&undo).map_err(|_| gone())?.into_iter();
        let block = groat_chain::block::Block::decode(&block_bytes(rpc, asked.path)?).map_err(failed)?;
        spent.extend(block.transactions.iter().skip(1).map(|tx| coins.by_ref().take(tx.input.len()).collect()));
    }
    asked.give(
        || {
            let mut bytes = serialize(&VarInt::from(spent.len()));
            for coins in &spent {
                bytes.extend(serialize(&VarInt::from(coins.len())));
                coins.iter().for_each(|coin| bytes.extend(serialize(&coin.to_output())));
            }
            Ok(bytes)
        },
        || {
            let shown = |coin: &Coin| Spent {
                value: Btc(coin.value()),
                script_pubkey: ScriptPubKey::new(coin.script_pubkey(), node.params().address_set),
            };
            json_of(spent.iter().map(|coins| coins.iter().map(shown).collect::<Vec<_>>()).collect::<Vec<_>>())
        },
    )
}
