//! The server over a ledger in memory, spoken to as clients do: byte by byte over a socket.

mod pool;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, transaction};
use groat_chain::ledger::{Ledger, Options};
use groat_chain::mempool::{BlockLimits, Dump, Policy};
use groat_chain::params::Params;
use groat_chain::pool::Pool;
use groat_chain::store::mem::MemStore;
use serde_json::{Value, json};

use super::{Config, Server};
use crate::config::Http;
use crate::offline::Offline;

struct Node {
    folder: tempfile::TempDir,
    node: Offline,
    server: Server,
}

fn config(folder: &Path) -> Config {
    Config {
        folder: folder.into(),
        port: 0,
        http: Http::default(),
        user_agent: "/Groat:0.1.0/".into(),
        services: 0xc09,
        relay: false,
        prune: None,
        block_limits: BlockLimits::default(),
        ban_time: 86_400,
        zmq: Vec::new(),
    }
}

fn start() -> Node {
    start_on("regtest")
}

fn start_on(network: &str) -> Node {
    start_for(network, Http::default())
}

fn start_for(network: &str, http: Http) -> Node {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let params = Arc::new(Params::by_name(network).expect("a known network"));
    let store = Arc::new(MemStore::default());
    let options = Options { assumed_valid: None, table_bytes: 1 << 20, prune: None };
    let ledger = Ledger::open(params, store, Arc::new(Pool::new(1)), options).expect("an empty store");
    let node = Offline::start(ledger, Policy::default());
    let server = super::serve(node.handle(), Config { http, ..config(folder.path()) }).expect("a free port");
    Node { folder, node, server }
}

/// An answer: status, head and body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Node {
    /// Sends a request with a head of one's own.
    fn raw(&self, head: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.server.address()).expect("the server listens");
        let length = body.len();
        write!(stream, "{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_lowercase(), body: body.into() }
    }

    fn authorization(&self) -> String {
        let secret = std::fs::read(self.folder.path().join(".cookie")).expect("the cookie is there");
        format!("Authorization: Basic {}", BASE64_STANDARD.encode(secret))
    }

    fn post(&self, body: &str) -> Answer {
        self.raw(&format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n{}", self.authorization()), body)
    }

    fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.post(&json!({"method": method, "params": params, "id": 1}).to_string()).json();
        assert_eq!(answer["error"], Value::Null, "{method} {params}");
        answer["result"].clone()
    }

    fn error(&self, method: &str, params: Value) -> (i64, String) {
        let answer = self.post(&json!({"method": method, "params": params}).to_string()).json();
        assert_eq!(answer["result"], Value::Null, "{method} {params}");
        let text = answer["error"]["message"].as_str().expect("an error has a text");
        (answer["error"]["code"].as_i64().expect("an error has a code"), text.into())
    }
}

#[test]
fn each_version_of_json_rpc_gets_its_replies() {
    let node = start();
    for (body, status, reply) in [
        (json!({"method": "getblockcount"}), 200, Some(json!({"result": 0, "error": null}))),
        (
            json!({"jsonrpc": "1.0", "id": "a", "method": "getblockcount"}),
            200,
            Some(json!({"result": 0, "error": null, "id": "a"})),
        ),
        (
            json!({"jsonrpc": "1.1", "id": [1], "method": "getblockcount", "params": null}),
            200,
            Some(json!({"result": 0, "error": null, "id": [1]})),
        ),
        (
            json!({"jsonrpc": "2.0", "id": null, "method": "getblockcount"}),
            200,
            Some(json!({"jsonrpc": "2.0", "result": 0, "id": null})),
        ),
        (json!({"jsonrpc": "2.0", "method": "getblockcount"}), 204, None),
        (json!({"jsonrpc": "2.0", "method": "no such method"}), 204, None),
        (
            json!({"id": 1, "method": "none"}),
            404,
            Some(json!({"result": null, "error": {"code": -32601, "message": "Method not found"}, "id": 1})),
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "none"}),
            200,
            Some(json!({"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": 1})),
        ),
        (
            json!({"id": 1}),
            400,
            Some(json!({"result": null, "error": {"code": -32600, "message": "Missing method"}, "id": 1})),
        ),
        (
            json!({"id": 1, "method": 1}),
            400,
            Some(json!({"result": null, "error": {"code": -32600, "message": "Method must be a string"}, "id": 1})),
        ),
        (
            json!({"id": 1, "method": "echo", "params": 1}),
            400,
            Some(
                json!({"result": null, "error": {"code": -32600, "message": "Params must be an array or object"}, "id": 1}),
            ),
        ),
        (
            json!({"jsonrpc": 2.0, "id": 1, "method": "echo"}),
            400,
            Some(
                json!({"result": null, "error": {"code": -32600, "message": "jsonrpc field must be a string"}, "id": 1}),
            ),
        ),
        (
            json!({"jsonrpc": "3.0", "id": 1, "method": "echo"}),
            400,
            Some(
                json!({"result": null, "error": {"code": -32600, "message": "JSON-RPC version not supported"}, "id": 1}),
            ),
        ),
        (
            json!({"id": 1, "method": "getblockhash", "params": [7]}),
            500,
            Some(json!({"result": null, "error": {"code": -8, "message": "Block height out of range"}, "id": 1})),
        ),
        (
            json!(7),
            500,
            Some(
                json!({"result": null, "error": {"code": -32700, "message": "Top-level object parse error"}, "id": null}),
            ),
        ),
        (json!([]), 200, Some(json!([]))),
        (json!([{"jsonrpc": "2.0", "method": "getblockcount"}]), 204, None),
        (
            json!([{"id": 1, "method": "getblockcount"}, 5, {"jsonrpc": "2.0", "method": "echo"}, {"jsonrpc": "2.0", "id": 2, "method": "none"}]),
            200,
            Some(json!([
                {"result": 0, "error": null, "id": 1},
                {"result": null, "error": {"code": -32600, "message": "Invalid Request object"}, "id": null},
                {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": 2},
            ])),
        ),
    ] {
        let answer = node.post(&body.to_string());
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        match reply {
            None => assert_eq!(answer.body, "", "{body}"),
            Some(reply) => {
                assert_eq!(answer.json(), reply, "{body}");
                assert!(answer.body.ends_with('\n'), "{body}: no line end");
                assert!(answer.head.contains("content-type: application/json"), "{body}: {}", answer.head);
            }
        }
    }
    for malformed in ["", "{", "{\"method\": \"echo\"", "nonsense", &"[".repeat(100_000)] {
        let answer = node.post(malformed);
        let start = &malformed[..malformed.len().min(20)];
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (500, &json!(-32700)), "body {start}");
    }
}

#[test]
fn http_keeps_strangers_out() {
    let node = start();
    let authorization = node.authorization();
    let body = json!({"method": "getblockcount"}).to_string();
    for (head, status) in [
        (format!("POST / HTTP/1.1\r\nHost: localhost:1\r\n{authorization}"), 200),
        (format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}\r\nContent-Type: text/plain;"), 200),
        ("POST / HTTP/1.1\r\nHost: 127.0.0.1".into(), 401),
        ("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic X19jb29raWVfXzow".into(), 401),
        (format!("POST / HTTP/1.1\r\nHost: evil.example\r\n{authorization}"), 403),
        (format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\n{authorization}"), 403),
        (format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}"), 405),
        (format!("POST /elsewhere HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}"), 404),
        (format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}\r\nContent-Type: multipart/form-data"), 415),
    ] {
        let answer = node.raw(&head, &body);
        assert_eq!(answer.status, status, "{head}");
        assert_eq!(answer.head.contains("www-authenticate: basic"), status == 401, "{head}");
    }
}

#[test]
fn who_may_not_call_a_method_does_not_wait_for_it() {
    let node = start_for("regtest", Http { rpcwhitelist: vec!["__cookie__:getblockcount".into()], ..Http::default() });
    let (body, asked) = (json!({"method": "waitfornewblock", "params": [20_000]}).to_string(), Instant::now());
    assert_eq!(node.post(&body).status, 403);
    assert!(asked.elapsed() < Duration::from_secs(10), "refused only after {:?}", asked.elapsed());
    assert_eq!(node.call("getblockcount", json!([])), json!(0));
}

#[test]
fn a_body_that_claims_too_much_is_refused_before_it_comes() {
    let node = start();
    let mut stream = TcpStream::connect(node.server.address()).expect("the server listens");
    let head = format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n{}", node.authorization());
    write!(stream, "{head}\r\nContent-Length: 33554433\r\n\r\n").expect("it is read");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("it answers without the body");
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[test]
fn a_node_that_starts_says_so() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let server = Server::begin(config(folder.path())).expect("a free port");
    let other = start();
    server.warming_up("Loading block index…");
    let node = Node { folder, node: other.node, server };
    assert_eq!(node.error("getblockcount", json!([])), (-28, "Loading block index…".into()));
    node.server.ready(node.node.handle());
    assert_eq!(node.call("getblockcount", json!([])), json!(0));
}

#[test]
fn blocks_are_made_left_and_taken_back() {
    let node = start();
    let hashes = node.call("generatetodescriptor", json!([101, "raw(51)#8lvh9jxk"]));
    assert_eq!(hashes.as_array().map(Vec::len), Some(101));
    assert_eq!(node.call("getbestblockhash", json!([])), hashes[100]);
    let stats = node.call("gettxoutsetinfo", json!(["muhash"]));
    assert_eq!((&stats["txouts"], &stats["total_amount"]), (&json!(101), &json!(5050.0)), "{stats}");
    node.call("invalidateblock", json!([hashes[50]]));
    assert_eq!(node.call("getblockcount", json!([])), json!(50));
    assert_eq!(node.call("getchaintips", json!([]))[0]["status"], json!("invalid"));
    let block = node.call("generateblock", json!(["raw(52)", [], false]));
    assert_eq!(node.call("getblockcount", json!([])), json!(50), "submit=false moved the chain");
    assert_eq!(node.call("submitblock", json!([block["hex"]])), Value::Null);
    assert_eq!(node.call("submitblock", json!([block["hex"]])), json!("duplicate"));
    assert_eq!(node.call("getbestblockhash", json!([])), block["hash"]);
    node.call("reconsiderblock", json!([hashes[50]]));
    assert_eq!(node.call("getbestblockhash", json!([])), hashes[100]);
    let tips = node.call("getchaintips", json!([]));
    assert_eq!((&tips[0]["status"], &tips[1]["status"]), (&json!("active"), &json!("valid-fork")), "{tips}");
    assert_eq!(tips[1]["branchlen"], json!(1));
    assert_eq!(node.call("getblockheader", json!([block["hash"]]))["confirmations"], json!(-1));
}

#[test]
fn transactions_are_mined_and_seen_with_their_fee() {
    let node = start();
    let hashes = node.call("generatetodescriptor", json!([101, "raw(51)"]));
    let first = node.call("getblock", json!([hashes[0]]));
    let coin = node.call("gettxout", json!([first["tx"][0], 0]));
    assert_eq!((&coin["confirmations"], &coin["coinbase"]), (&json!(101), &json!(true)), "{coin}");
    // Spends the coin of block 1 and leaves 0.5 BTC as fee.
    let txid: bitcoin::Txid = first["tx"][0].as_str().and_then(|text| text.parse().ok()).expect("an id");
    let spend = bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn { previous_output: bitcoin::OutPoint::new(txid, 0), ..Default::default() }],
        output: vec![bitcoin::TxOut {
            value: bitcoin::Amount::from_sat(4_950_000_000),
            script_pubkey: bitcoin::ScriptBuf::from_bytes(vec![0x52]),
        }],
    };
    let hex = bitcoin::consensus::encode::serialize_hex(&spend);
    let mined = node.call("generateblock", json!(["raw(51)", [hex]]));
    let block = node.call("getblock", json!([mined["hash"], 3]));
    assert_eq!(block["tx"][1]["fee"], json!(0.5), "{block}");
    assert_eq!(block["tx"][1]["vin"][0]["prevout"]["height"], json!(1), "{block}");
    assert_eq!(node.call("gettxout", json!([first["tx"][0], 0])), Value::Null, "a spent coin");
    let (code, text) = node.error("generateblock", json!(["raw(51)", [hex]]));
    assert_eq!((code, text.as_str()), (-25, "TestBlockValidity failed: bad-txns-BIP30"));
}

#[test]
fn stop_is_answered_and_ends_the_node() {
    let node = start();
    assert_eq!(node.call("stop", json!([])), json!("Groat stopping"));
    let Node { folder, node, server } = node;
    // A link that says nothing holds nobody up.
    let _silent = TcpStream::connect(server.address()).expect("the server listens");
    node.wait().expect("everything can be written");
    let begun = Instant::now();
    let cookie = folder.path().join(".cookie");
    drop(server);
    assert!(begun.elapsed() < Duration::from_secs(4), "the server took {:?} to end", begun.elapsed());
    assert!(!cookie.exists(), "the cookie outlives the server");
}

/// Anyone's output of a standard form: P2WSH of OP_1.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

/// Spends an output of [`anyone`] with a fee of 1000 satoshi.
fn spend(outpoint: OutPoint, value: u64) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0x51]]),
        }],
        output: vec![TxOut { value: Amount::from_sat(value - 1000), script_pubkey: anyone() }],
    }
}

#[test]
fn a_transaction_is_sent_shown_mined_and_returns_when_its_block_is_taken_back() {
    let node = start();
    let descriptor = format!("raw({})", anyone().to_hex_string());
    let blocks = node.call("generatetodescriptor", json!([101, descriptor]));
    let first = node.call("getblock", json!([blocks[0]]));
    let coin = OutPoint::new(first["tx"][0].as_str().expect("an id").parse().expect("an id"), 0);
    let tx = spend(coin, 5_000_000_000);
    let (hex, txid) = (serialize_hex(&tx), tx.compute_txid().to_string());

    let tested = node.call("testmempoolaccept", json!([[hex]]));
    assert_eq!((&tested[0]["allowed"], &tested[0]["fees"]["base"]), (&json!(true), &json!(0.00001)), "{tested}");
    assert_eq!(node.call("getrawmempool", json!([])), json!([]), "a test leaves nothing");
    assert_eq!(node.call("sendrawtransaction", json!([hex])), json!(txid));
    assert_eq!(node.call("sendrawtransaction", json!([hex])), json!(txid), "once more is no error");
    assert_eq!(node.call("getrawmempool", json!([false, true])), json!({"txids": [txid], "mempool_sequence": 2}));
    let entry = node.call("getmempoolentry", json!([txid]));
    assert_eq!((&entry["vsize"], &entry["unbroadcast"]), (&json!(tx.vsize()), &json!(true)), "{entry}");
    assert_eq!(node.call("getmempoolinfo", json!([]))["size"], json!(1));
    assert_eq!(node.call("getrawtransaction", json!([txid])), json!(hex));
    assert_eq!(node.call("getrawtransaction", json!([txid, 1]))["hex"], json!(hex));
    assert_eq!(node.call("gettxout", json!([coin.txid.to_string(), 0])), Value::Null, "spent in the mempool");
    assert_eq!(node.call("gettxout", json!([coin.txid.to_string(), 0, false]))["confirmations"], json!(101));
    assert_eq!(node.call("gettxout", json!([txid, 0]))["confirmations"], json!(0));

    let mut dear = spend(OutPoint::new(tx.compute_txid(), 0), 4_999_999_000);
    dear.output[0].value = Amount::from_sat(1_000_000);
    let text = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)";
    assert_eq!(node.error("sendrawtransaction", json!([serialize_hex(&dear)])), (-25, text.into()));
    let conflict = serialize_hex(&spend(coin, 4_000_000_000));
    assert_eq!(node.call("testmempoolaccept", json!([[conflict], 0]))[0]["allowed"], json!(true), "it pays more");
    let unknown = serialize_hex(&spend(OutPoint::new(coin.txid, 5), 10_000));
    assert_eq!(node.error("sendrawtransaction", json!([unknown])), (-25, "bad-txns-inputs-missingorspent".into()));
    let mut burns = tx.clone();
    burns.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a]);
    let text = "Unspendable output exceeds maximum configured by user (maxburnamount)";
    assert_eq!(node.error("sendrawtransaction", json!([serialize_hex(&burns)])), (-25, text.into()));

    let stored = node.call("savemempool", json!([]))["filename"].clone();
    let bytes = std::fs::read(stored.as_str().expect("a path")).expect("the file is there");
    let dump = Dump::decode(bytes).expect("it was just written");
    assert_eq!(dump.transactions.iter().map(|dumped| &*dumped.tx).collect::<Vec<_>>(), [&tx]);
    assert_eq!(dump.unbroadcast, [tx.compute_txid()].into());

    let hash = node.call("generatetodescriptor", json!([1, descriptor]))[0].clone();
    let block = node.call("getblock", json!([hash, 2]));
    assert_eq!(block["tx"][1]["txid"], json!(txid));
    assert_eq!(block["tx"][0]["vout"][0]["value"], json!(50.00001), "the subsidy with the fee");
    assert_eq!(node.call("getmininginfo", json!([]))["pooledtx"], json!(0));
    let mined = node.error("sendrawtransaction", json!([hex]));
    assert_eq!(mined, (-27, "Transaction outputs already in utxo set".into()));
    let shown = node.call("getrawtransaction", json!([txid, 2, hash]));
    assert_eq!((&shown["fee"], &shown["confirmations"]), (&json!(0.00001), &json!(1)), "{shown}");

    node.call("invalidateblock", json!([hash]));
    assert_eq!(node.call("getrawmempool", json!([])), json!([txid]), "it returns");
    node.call("generateblock", json!([descriptor, [txid]]));
    assert_eq!(node.call("getrawmempool", json!([])), json!([]));
}

#[test]
fn transactions_are_made_and_read() {
    let node = start();
    let txid = "ab".repeat(32);
    let address = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";
    let inputs = json!([{"txid": txid, "vout": 1}, {"txid": txid, "vout": 0, "sequence": 7}]);
    let made = node.call("createrawtransaction", json!([inputs, [{address: 0.5}, {"data": "0102"}], 9]));
    let shown = node.call("decoderawtransaction", json!([made]));
    assert_eq!(shown["vin"][0]["sequence"], json!(0xffff_fffd_u32));
    assert_eq!((&shown["vin"][1]["sequence"], &shown["locktime"]), (&json!(7), &json!(9)));
    assert_eq!(shown["vout"][0]["scriptPubKey"]["address"], json!(address));
    assert_eq!(shown["vout"][1]["scriptPubKey"]["hex"], json!("6a020102"));
    assert_eq!(shown["hex"], Value::Null);
    let empty = node.call("createrawtransaction", json!([[], {address: "1"}]));
    assert_eq!(node.call("decoderawtransaction", json!([empty]))["vin"], json!([]), "read without a witness");
}
