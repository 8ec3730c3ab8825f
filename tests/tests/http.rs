//! What `groatd` answers over HTTP, byte by byte and beside bitcoind: calls that are none, users and what they may call,
//! slow clients, REST. And tools that were written for bitcoind, unchanged.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bitcoincore_rpc::{Auth, Client, RpcApi};
use groat_tests::bitcoind::{Bitcoind, Rpc, free_port, peers};
use groat_tests::groatd::{Groatd, repeat};
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

/// An answer over HTTP.
#[derive(Debug, PartialEq)]
pub struct Answer {
    status: String,
    /// The value of `Content-Type`, where there is a body that has one.
    kind: String,
    body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Sends bytes and reads all that comes back until the other end closes.
fn send(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A server may answer, and close, before it has all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The first answer of what came back.
fn answer(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head: {}; {}", String::from_utf8_lossy(bytes), repeat()));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let field = |name: &str| {
        let line =
            head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        line.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let body = bytes[end + 4..].to_vec();
    let kind = if body.is_empty() { String::new() } else { field("content-type") };
    Answer { status: head.split(' ').nth(1).unwrap_or_default().into(), kind, body }
}

fn ask(to: &Rpc, head: &str, body: &[u8]) -> Answer {
    let host = to.address();
    let mut bytes = format!("{head}\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    answer(&send(host, &bytes))
}

/// A call with credentials; the link is closed after it.
fn post(to: &Rpc, body: &[u8]) -> Answer {
    ask(to, &format!("POST / HTTP/1.1\r\nConnection: close\r\nAuthorization: {}", to.authorization()), body)
}

pub fn get(to: &Rpc, path: &str) -> Answer {
    ask(to, &format!("GET {path} HTTP/1.1\r\nConnection: close"), b"")
}

/// The same with what one server alone decides made equal.
fn told_alike(mut answer: Answer) -> Answer {
    // Core calls each text of its own HTML.
    if answer.kind.starts_with("text/html") {
        answer.kind = "text/plain".into();
    }
    answer
}

/// Both on regtest with one chain of a few blocks, with REST on.
struct Pair {
    core: Bitcoind,
    groat: Running,
    _data: tempfile::TempDir,
}

const ADDRESS: &str = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";

fn pair(folder: &Path) -> Pair {
    pair_with(folder, &[])
}

/// With options for both.
fn pair_with(folder: &Path, options: &[&str]) -> Pair {
    let options = [&["-rest=1", "-acceptnonstdtxn=1"], options].concat();
    let core = Bitcoind::start(folder, &options.iter().map(|option| option.to_string()).collect::<Vec<_>>());
    let data = tempfile::tempdir().unwrap();
    let groat = Running::start(&Groatd::new("regtest", data.path()), &[&options[..], &["--connect=0"]].concat());
    core.call("generatetodescriptor", json!([101, "raw(51)"]));
    let first = core.call("getblock", json!([core.call("getblockhash", json!([1])), 1]));
    let inputs = json!([{"txid": first["tx"][0], "vout": 0}]);
    let spend = core.call("createrawtransaction", json!([inputs, [{ADDRESS: 49.9999}]]));
    core.call("generateblock", json!(["raw(51)", [spend]]));
    let pair = Pair { core, groat, _data: data };
    pair.copy_from(1);
    pair
}

impl Pair {
    /// Gives groatd the blocks of bitcoind from this height.
    fn copy_from(&self, height: u64) {
        for height in height..=self.core.call("getblockcount", json!([])).as_u64().unwrap() {
            let block = self.core.call("getblock", json!([self.core.call("getblockhash", json!([height])), 0]));
            assert_eq!(self.groat.rpc.call("submitblock", json!([block])), Ok(Value::Null), "block {height}");
        }
    }

    fn both(&self, what: &str, ask: impl Fn(&Rpc) -> Answer) -> Answer {
        let (ours, theirs) = (told_alike(ask(&self.groat.rpc)), told_alike(ask(self.core.rpc())));
        // JSON may say the same in another order.
        let same = ours == theirs
            || (ours.status == theirs.status && ours.kind == theirs.kind && {
                ours.json() != Value::Null && ours.json() == theirs.json()
            });
        let show = |answer: &Answer| format!("{} {} {:?}", answer.status, answer.kind, answer.text());
        assert!(same, "{what}:\ngroatd   {}\nbitcoind {}\n{}", show(&ours), show(&theirs), repeat());
        ours
    }
}

#[test]
fn bad_calls_are_refused_as_by_bitcoind() {
    let Some(folder) = peers() else { return };
    let pair = pair(&folder);
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for body in [
        "",
        " ",
        "{",
        "nonsense",
        "null",
        "1",
        "\"x\"",
        "{}x",
        "{\"method\":\"getblockcount\",}",
        "{'method':'getblockcount'}",
        "\u{feff}{\"method\":\"getblockcount\"}",
        r#"{"method":"getblockcount","id":1.50}"#,
        r#"{"method":"getblockcount","id":123456789012345678901234567890}"#,
        r#"{"method":"getblockcount","id":-0}"#,
        r#"{"method":"getblockcount","id":1e5}"#,
        r#"{"method":"getblockcount","id":[1, {"a" : null}]}"#,
        r#"{"method":"getblockcount","id":true}"#,
        r#"{"method":"getblockcount","id":"\u00e9\"\\"}"#,
        r#"{"method":"getblockcount","params":{},"id":null}"#,
        r#"{"method":"getblockcount","params":"x"}"#,
        r#"{"method":"getblockcount","params":7,"jsonrpc":"2.0","id":1}"#,
        r#"{"method":"getblockhash","params":["1"],"id":1}"#,
        r#"{"method":"getblockhash","params":[1.5],"id":1}"#,
        r#"{"method":"getblockhash","params":{"height":1,"nothing":2},"id":1}"#,
        r#"{"method":"getblockhash","params":[99999999999],"id":1}"#,
        r#"{"method":"getblockhash","params":{"height":0,"height":1},"id":1}"#,
        r#"{"method":"getblockhash","params":{"args":[0],"args":[1]},"jsonrpc":"2.0","id":1}"#,
        r#"{"method":"createrawtransaction","params":[[],{"data":"00","data":"01"}],"id":1}"#,
        // Outputs come in the order of the members.
        r#"{"method":"createrawtransaction","params":[[],{"data":"00","bcrt1qs758ursh4q9z627kt3pp5yysm78ddny6txaqgw":2}],"id":1}"#,
        r#"{"method":"echo","params":[{"b":1,"a":{"z":1,"b":2}}],"id":1}"#,
        r#"{"method":[],"id":1}"#,
        r#"{"method":null,"id":1}"#,
        r#"{"method":"","id":1}"#,
        r#"{"method":"getblockcount","jsonrpc":"3.0","id":1}"#,
        r#"{"method":"getblockcount","jsonrpc":3,"id":1}"#,
        r#"{"method":"getblockcount","jsonrpc":null,"id":1}"#,
        r#"{"method":"nothing","jsonrpc":"2.0","id":1}"#,
        r#"{"method":"nothing","id":1}"#,
        "[]",
        "[[]]",
        "[[{\"method\":\"getblockcount\"}]]",
        "[1,null,\"x\"]",
        r#"[{"method":"getblockcount","id":1},{"method":"getblockcount","jsonrpc":"2.0","id":2},{"method":"nothing","jsonrpc":"1.0","id":3}]"#,
        r#"[{"method":"getblockcount","jsonrpc":"2.0"},{"method":"nothing","jsonrpc":"2.0"}]"#,
        r#"[{"method":"getblockcount","jsonrpc":"9","id":7},{"id":8},{"method":"getblockcount","params":1,"id":9}]"#,
        &deep(10_000),
        &format!("{{\"method\":\"echo\",\"params\":{}}}", deep(10_000)),
    ] {
        pair.both(body.get(..200).unwrap_or(body), |rpc| post(rpc, body.as_bytes()));
    }
    pair.both("bytes that are no text", |rpc| post(rpc, b"{\"method\":\"\xff\xfe\"}"));
    for head in [
        "GET / HTTP/1.1",
        "HEAD / HTTP/1.1",
        "PUT / HTTP/1.1",
        "DELETE / HTTP/1.1",
        "POST /nothing HTTP/1.1",
        "POST /?x HTTP/1.1",
        "POST /wallet/ HTTP/1.1",
        "POST /wallet/name HTTP/1.1",
        "POST /wallet HTTP/1.1",
        "POST / HTTP/1.1",
        "POST / HTTP/1.1\r\nAuthorization: Basic",
        "POST / HTTP/1.1\r\nAuthorization: Basic eDp5",
        "POST / HTTP/1.1\r\nAuthorization: Bearer eDp5",
        "GET / HTTP/9.9",
        "nonsense",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1\r\nno colon",
    ] {
        pair.both(head, |rpc| {
            let answer = ask(rpc, &format!("{head}\r\nConnection: close"), br#"{"method":"getblockcount"}"#);
            // A head alone has no body, whatever Core sends.
            Answer {
                body: if head.starts_with("HEAD") { Vec::new() } else { answer.body },
                kind: String::new(),
                ..answer
            }
        });
    }
    pair.both("a body that is too long", |rpc| {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Length: 33554433\r\n\r\n",
            rpc.authorization()
        );
        answer(&send(rpc.address(), head.as_bytes()))
    });
    pair.both("HTTP/1.0", |rpc| {
        ask(
            rpc,
            &format!("POST / HTTP/1.0\r\nAuthorization: {}", rpc.authorization()),
            br#"{"method":"getblockcount"}"#,
        )
    });
    pair.both("a body in chunks", |rpc| {
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked";
        let call = "5\r\n{\"met\r\n15\r\nhod\":\"getblockcount\"}\r\n0\r\n\r\n";
        let bytes = format!("{head}\r\nAuthorization: {}\r\n\r\n{call}", rpc.authorization());
        answer(&send(rpc.address(), bytes.as_bytes()))
    });
    // Two calls in one packet are answered one after the other.
    for rpc in [&pair.groat.rpc, pair.core.rpc()] {
        let one = |end: &str| {
            let call = r#"{"method":"getblockcount"}"#;
            format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n{end}Content-Length: {}\r\n\r\n{call}",
                rpc.authorization(),
                call.len()
            )
        };
        let said = send(rpc.address(), (one("") + &one("Connection: close\r\n")).as_bytes());
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(said.matches("\"result\":102").count(), 2, "{said}; {}", repeat());
    }
}

#[test]
fn rest_answers_are_those_of_bitcoind() {
    let Some(folder) = peers() else { return };
    let pair = pair(&folder);
    // One that waits in both pools, and spends what the last block made.
    let tip = pair.core.call("getbestblockhash", json!([]));
    let tip = tip.as_str().unwrap().to_owned();
    let last = pair.core.call("getblock", json!([tip, 1]));
    let (coinbase, spend) = (last["tx"][0].as_str().unwrap(), last["tx"][1].as_str().unwrap());
    let second = pair.core.call("getblock", json!([pair.core.call("getblockhash", json!([2])), 1]));
    let ripe = second["tx"][0].as_str().unwrap();
    let waiting = pair.core.call(
        "createrawtransaction",
        json!([[{"txid": ripe, "vout": 0}], [{ADDRESS: 20}, {"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080": 29.9999}]]),
    );
    let txid = pair.core.call("sendrawtransaction", json!([waiting, 0]));
    assert_eq!(pair.groat.rpc.call("sendrawtransaction", json!([waiting, 0])), Ok(txid.clone()));
    let waiting = txid.as_str().unwrap();
    let genesis = pair.core.call("getblockhash", json!([0]));
    let (genesis, unknown) = (genesis.as_str().unwrap(), "ab".repeat(32));
    let mut paths: Vec<String> = Vec::new();
    for hash in [&tip, genesis, &unknown, "x", "", &tip[1..], &tip.to_uppercase()] {
        for route in ["block", "block/notxdetails", "headers", "spenttxouts", "tx", "deploymentinfo"] {
            paths.extend(["bin", "hex", "json", "txt", ""].map(|form| format!("{route}/{hash}.{form}")));
            paths.push(format!("{route}/{hash}"));
        }
        for range in
            ["?offset=0&size=80", "?offset=10&size=1", "?offset=0&size=0", "?size=1", "?offset=1", "?offset=x&size=1"]
        {
            paths.extend(["bin", "hex", "json"].map(|form| format!("blockpart/{hash}.{form}{range}")));
        }
        paths.push(format!("blockpart/{hash}.hex?offset=80&size=999999"));
        for query in [
            "?count=1",
            "?count=2000",
            "?count=2001",
            "?count=0",
            "?count=-1",
            "?count=+1",
            "?count=",
            "?count",
            "?x=1&count=2",
            "?%63ount=%32",
        ] {
            paths.push(format!("headers/{hash}.hex{query}"));
            paths.push(format!("blockfilterheaders/basic/{hash}.hex{query}"));
        }
        paths.extend([
            format!("headers/3/{hash}.json"),
            format!("headers/x/{hash}.json"),
            format!("headers/1/2/{hash}.bin"),
        ]);
        paths.extend(["basic", "other", ""].map(|kind| format!("blockfilter/{kind}/{hash}.json")));
        paths.push(format!("blockfilterheaders/2/basic/{hash}.json"));
    }
    let low = pair.core.call("getblockhash", json!([3]));
    paths.extend(["bin", "hex", "json"].map(|form| format!("headers/{}.{form}?count=7", low.as_str().unwrap())));
    for txid in [coinbase, spend, waiting] {
        paths.extend(["bin", "hex", "json"].map(|form| format!("tx/{txid}.{form}")));
        for n in ["0", "1", "x", "-1", "+1", ""] {
            for check in ["", "checkmempool/"] {
                paths.extend(["bin", "hex", "json", ""].map(|form| format!("getutxos/{check}{txid}-{n}.{form}")));
            }
        }
    }
    let some = format!("{ripe}-0/{waiting}-1/{spend}-0/{coinbase}-0/{unknown}-7");
    paths.extend(["bin", "hex", "json"].map(|form| format!("getutxos/checkmempool/{some}.{form}")));
    paths.extend(["bin", "hex", "json"].map(|form| format!("getutxos/{some}.{form}")));
    paths.push(format!("getutxos/{}.json", vec![format!("{unknown}-0"); 16].join("/")));
    for height in ["0", "1", "102", "103", "-1", "+1", "x", "", "99999999999", "1.5", "%3Cb%3E"] {
        paths.extend(["bin", "hex", "json", "txt"].map(|form| format!("blockhashbyheight/{height}.{form}")));
    }
    paths.extend(
        [
            "chaininfo.bin",
            "chaininfo",
            "deploymentinfo.hex",
            "mempool/info.bin",
            "mempool/contents.bin",
            "mempool/x.json",
            "mempool/contents.json?verbose=x",
            "mempool/contents.json?mempool_sequence=x",
            "mempool/",
            "getutxos",
            "",
            "mempool/contents.json?verbose=true&mempool_sequence=true",
            "mempool/contents.json?verbose=false",
            "nothing",
            "mempool/contents.json?verbose=false&mempool_sequence=true",
            "getutxos.json",
            "getutxos/.json",
            "getutxos/x.hex",
            "getutxos/checkmempool.json",
            "getutxos/checkmempool/.json",
            "blockfilter/basic.json",
            "blockfilterheaders/x.json",
        ]
        .map(str::to_owned),
    );
    paths.push("deploymentinfo.json".into());
    for path in &paths {
        pair.both(path, |rpc| get(rpc, &format!("/rest/{path}")));
    }
    // In the body, as bytes and as hex: a flag, a count, outputs. bitcoind reads the body's length as the flag, and the flag
    // as the count: what its own documents say about the body holds for groatd alone.
    let mut body = vec![1, 2];
    for txid in [spend, ripe] {
        let mut bytes = <Vec<u8> as hex::FromHex>::from_hex(txid).unwrap();
        bytes.reverse();
        body.extend([&bytes[..], &[0, 0, 0, 0]].concat());
    }
    let digits = hex::DisplayHex::to_lower_hex_string(&body[..]).into_bytes();
    for (form, body) in [("bin", &body[..]), ("hex", &digits), ("hex", &[&digits[..], b"\n"].concat())] {
        let head = format!("POST /rest/getutxos.{form} HTTP/1.1\r\nConnection: close");
        let named = get(&pair.groat.rpc, &format!("/rest/getutxos/checkmempool/{spend}-0/{ripe}-0.{form}"));
        assert_eq!(
            ask(&pair.groat.rpc, &head, body),
            named,
            "{form}: named in body (left), path (right); {}",
            repeat()
        );
    }
    for (form, body) in [("json", &digits[..]), ("bin", b"\0\0"), ("hex", b"xx"), ("", &body)] {
        let head = format!("POST /rest/getutxos.{form} HTTP/1.1\r\nConnection: close");
        pair.both(&format!("{head} with {} bytes", body.len()), |rpc| ask(rpc, &head, body));
    }
    for (form, body) in [("json", &digits[..]), ("bin", &body), ("hex", &digits), ("", &body)] {
        let head = format!("POST /rest/getutxos/{spend}-0.{form} HTTP/1.1\r\nConnection: close");
        pair.both(&format!("{head} with {} bytes", body.len()), |rpc| ask(rpc, &head, body));
    }
    for path in ["chaininfo.json", "mempool/info.json", "mempool/contents.json"] {
        let keys = |rpc: &Rpc| {
            let value = get(rpc, &format!("/rest/{path}")).json();
            value.as_object().unwrap_or_else(|| panic!("{path}: {value}")).keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(
            keys(&pair.groat.rpc),
            keys(pair.core.rpc()),
            "{path}: groatd (left), bitcoind (right); {}",
            repeat()
        );
    }
}

#[test]
fn filters_over_rest_are_those_of_bitcoind() {
    let Some(folder) = peers() else { return };
    let pair = pair_with(&folder, &["-blockfilterindex=1"]);
    let synced = json!({"basic block filter index": {"synced": true, "best_block_height": 102}});
    let begun = Instant::now();
    while pair.core.call("getindexinfo", json!([])) != synced {
        assert!(begun.elapsed() < PATIENCE, "bitcoind's index is not synced; {}", repeat());
        std::thread::sleep(Duration::from_millis(20));
    }
    let hash = |height: u32| pair.core.call("getblockhash", json!([height])).as_str().unwrap().to_owned();
    let mut found = 0;
    for hash in [&hash(0), &hash(1), &hash(102), &"ab".repeat(32), "x", ""] {
        for form in ["bin", "hex", "json", "txt", ""] {
            for path in [
                format!("blockfilter/basic/{hash}.{form}"),
                format!("blockfilter/other/{hash}.{form}"),
                format!("blockfilter/{hash}.{form}"),
                format!("blockfilterheaders/basic/{hash}.{form}"),
                format!("blockfilterheaders/basic/{hash}.{form}?count=1"),
                format!("blockfilterheaders/basic/{hash}.{form}?count=2000"),
                format!("blockfilterheaders/basic/{hash}.{form}?count=2001"),
                format!("blockfilterheaders/basic/3/{hash}.{form}"),
                format!("blockfilterheaders/other/{hash}.{form}"),
            ] {
                let answer = pair.both(&path, |rpc| get(rpc, &format!("/rest/{path}")));
                found += usize::from(answer.status == "200");
            }
        }
    }
    assert!(found >= 3 * 3 * 5, "only {found} answers are no errors; {}", repeat());
}

/// Starts groatd with these options; gives an answer to a call of `method` by `secret`.
fn called(node: &Running, secret: &str, method: &str) -> Answer {
    let rpc = Rpc::new(node.rpc.address(), secret);
    post(&rpc, json!({"method": method, "id": 1}).to_string().as_bytes())
}

#[test]
fn users_call_what_they_may_and_nobody_else_calls() {
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    let options = [
        "--connect=0",
        // Of the password cA773lm788buwYe4g4WT+05pKyNruVKjQ25x3n0DQcM=.
        "--rpcauth=rt:93648e835a54c573682c2eb19f882535$7681e9c5b74bdd85e78166031d2058e1069b3ed7ed967c93fc63abba06f31144",
        "--rpcuser=user",
        "--rpcpassword=pass",
        "--rpcwhitelist=rt:getblockcount,uptime",
        "--rpcwhitelist=rt:getblockcount",
        "--rpcwhitelist=__cookie__:getbestblockhash,stop",
        "--rpcdoccheck",
        "--rpcservertimeout=1",
    ];
    let node = Running::start(&groatd, &options);
    let cookie = std::fs::read_to_string(groatd.chain_folder().join(".cookie")).unwrap();
    let rt = "rt:cA773lm788buwYe4g4WT+05pKyNruVKjQ25x3n0DQcM=";
    for (secret, method, status) in [
        (rt, "getblockcount", "200"),
        (rt, "uptime", "403"),
        (rt, "nothing", "403"),
        ("rt:wrong", "getblockcount", "401"),
        ("user:pass", "getblockcount", "403"),
        (&cookie, "getbestblockhash", "200"),
        (&cookie, "getblockcount", "403"),
        ("", "getblockcount", "401"),
    ] {
        assert_eq!(called(&node, secret, method).status, status, "{method} by {secret}; {}", repeat());
    }
    let batch = br#"[{"method":"getblockcount"},{"method":"uptime"}]"#;
    assert_eq!(post(&Rpc::new(node.rpc.address(), rt), batch).status, "403", "a batch may not do more than its calls");
    // Who says nothing, and who begins a call and does not end it, is left after a second.
    for begun in ["", "POST / HTTP/1.1\r\nHost: loc", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let started = Instant::now();
        send(node.rpc.address(), begun.as_bytes());
        assert!(started.elapsed() < Duration::from_secs(10), "{begun:?} kept a link open; {}", repeat());
    }
    node.stop();
    for (option, text) in [
        ("--rpcauth=foo", "Error: Unable to start HTTP server. See debug log for details.\n"),
        ("--rpcauth=foo:bar$baz$", "Error: Unable to start HTTP server. See debug log for details.\n"),
        ("--rpccookieperms=x", "Error: Unable to start HTTP server. See debug log for details.\n"),
        ("--rpcallowip=x", "Error: Invalid -rpcallowip subnet specification: x."),
    ] {
        let port = format!("--rpcport={}", free_port());
        let said = groatd.run(["--listen=0", &port, option]).failed(&[]);
        assert!(said.stderr.starts_with(text), "{option}: {}; {}", said.stderr, repeat());
    }
}

#[test]
fn calls_beyond_the_queue_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let options = ["--connect=0", "--rpcthreads=1", "--rpcworkqueue=1"];
    let node = Running::start(&Groatd::new("regtest", data.path()), &options);
    // A call that takes a thread: it waits for a block that does not come.
    let slow = json!({"method": "stop", "params": {"wait": 2000}}).to_string();
    let calls = (0..6).map(|_| {
        let rpc = Rpc::with_authorization_of(&node.rpc);
        let slow = slow.clone();
        std::thread::spawn(move || post(&rpc, slow.as_bytes()))
    });
    let answers: Vec<Answer> = calls.collect::<Vec<_>>().into_iter().map(|call| call.join().unwrap()).collect();
    let refused = answers.iter().filter(|answer| answer.status == "503").collect::<Vec<_>>();
    assert!((1..6).contains(&refused.len()), "{answers:?}; {}", repeat());
    assert!(refused.iter().all(|answer| answer.text() == "Work queue depth exceeded"), "{refused:?}; {}", repeat());
    node.ended();
}

#[test]
fn metrics_tell_how_the_node_is() {
    let data = tempfile::tempdir().unwrap();
    let port = free_port();
    let node = Running::start(&Groatd::new("regtest", data.path()), &["--connect=0", &format!("--metrics={port}")]);
    let at = Rpc::new(SocketAddr::from(([127, 0, 0, 1], port)), "");
    node.rpc.call("generatetodescriptor", json!([3, "raw(51)"])).unwrap();
    let text = get(&at, "/metrics").text();
    for line in ["groat_chain_height_blocks 3", "groat_peers{direction=\"in\"} 0", "groat_chain_transactions 4"] {
        assert!(text.lines().any(|found| found == line), "expected the line {line:?} in\n{text}\n{}", repeat());
    }
    for name in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = name.rsplit_once(' ').unwrap();
        assert!(name.starts_with("groat_") && value.parse::<f64>().is_ok(), "{name} {value}; {}", repeat());
    }
    for path in ["/healthy", "/ready"] {
        let answer = get(&at, path);
        assert_eq!((answer.status.as_str(), answer.text().as_str()), ("503", "no peers\n"), "{path}; {}", repeat());
    }
    assert_eq!(get(&at, "/").status, "404");
    node.stop();
}

#[test]
fn bitcoincore_rpc_and_bdk_speak_to_groatd() {
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    let node = Running::start(&groatd, &["--connect=0"]);
    let url = format!("http://{}", node.rpc.address());
    let auth = || Auth::CookieFile(groatd.chain_folder().join(".cookie"));
    let client = Client::new(&url, auth()).unwrap();
    let address: bitcoin::Address<_> = ADDRESS.parse().unwrap();
    let hashes = client.generate_to_address(102, &address.assume_checked()).unwrap();
    assert_eq!(client.get_block_count().unwrap(), 102);
    assert_eq!(client.get_best_block_hash().unwrap(), hashes[101]);
    let info = client.get_blockchain_info().unwrap();
    assert_eq!((info.blocks, info.best_block_hash, info.pruned), (102, hashes[101], false));
    let block = client.get_block(&hashes[5]).unwrap();
    assert_eq!(block.block_hash(), hashes[5]);
    let shown = client.get_block_info(&hashes[5]).unwrap();
    assert_eq!((shown.height, shown.tx.len(), shown.nextblockhash), (6, 1, Some(hashes[6])));
    assert_eq!(client.get_block_header(&hashes[5]).unwrap(), block.header);
    assert_eq!(client.get_block_header_info(&hashes[5]).unwrap().confirmations, 97);
    let txid = shown.tx[0];
    assert_eq!(client.get_raw_transaction(&txid, Some(&hashes[5])).unwrap(), block.txdata[0]);
    assert_eq!(client.get_raw_transaction_info(&txid, Some(&hashes[5])).unwrap().txid, txid);
    assert!(client.get_tx_out(&txid, 0, None).unwrap().is_some_and(|coin| coin.coinbase));
    assert_eq!(client.get_raw_mempool().unwrap(), []);
    assert_eq!(client.get_mempool_info().unwrap().size, 0);
    assert_eq!(client.get_network_info().unwrap().connections, 0);
    assert!(client.get_peer_info().unwrap().is_empty());
    assert_eq!(client.get_chain_tips().unwrap().len(), 1);
    assert_eq!(client.get_tx_out_set_info(None, None, None).unwrap().height, 102);
    client.get_mining_info().unwrap();
    client.get_net_totals().unwrap();
    client.uptime().unwrap();
    assert!(client.get_block_hash(9999).is_err());

    let client = bdk_bitcoind_rpc::bitcoincore_rpc::Client::new(&url, auth()).unwrap();
    let hash = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash();
    let begin = bdk_core::CheckPoint::new(bdk_core::BlockId { height: 0, hash });
    let none = bdk_bitcoind_rpc::NO_EXPECTED_MEMPOOL_TXS;
    let mut emitter = bdk_bitcoind_rpc::Emitter::new(&client, begin, 1, none);
    let mut seen = Vec::new();
    while let Some(event) = emitter.next_block().unwrap() {
        seen.push(event.block.block_hash());
    }
    assert_eq!(seen, hashes, "blocks that bdk saw (left) and that there are (right); {}", repeat());
    assert!(emitter.mempool().unwrap().update.is_empty());
    node.stop();
}

#[test]
fn python_bitcoinrpc_speaks_to_groatd() {
    let folder = tempfile::tempdir().unwrap();
    let run = |program: &Path, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        done.map_err(|error| error.to_string()).and_then(|done| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stdout) + &text(&done.stderr)) }
        })
    };
    let venv = folder.path().join("venv");
    let made = run("python3".as_ref(), &["-m", "venv", &venv.display().to_string()]);
    let python = venv.join("bin/python");
    let package = "python-bitcoinrpc==1.0";
    if let Err(reason) =
        made.and_then(|_| run(&python, &["-m", "pip", "install", "--quiet", "--retries", "1", package]))
    {
        eprintln!("SKIPPED: python3 with venv and pip cannot install {package}: {}", reason.trim());
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let node =
        Running::start(&Groatd::new("regtest", data.path()), &["--connect=0", "--rpcuser=user", "--rpcpassword=pass"]);
    // Not its `batch_`: that wants an error in every reply of 2.0, and fails with bitcoind as well.
    let script = format!(
        "from decimal import Decimal\n\
         from bitcoinrpc.authproxy import AuthServiceProxy, JSONRPCException\n\
         rpc = AuthServiceProxy('http://user:pass@{}')\n\
         hashes = rpc.generatetoaddress(2, '{ADDRESS}')\n\
         block = rpc.getblock(hashes[1], 2)\n\
         assert block['height'] == 2 and block['tx'][0]['vout'][0]['value'] == Decimal(50), block\n\
         assert [rpc.getblockhash(n) for n in (1, 2)] == hashes\n\
         try:\n    rpc.getblockhash(9)\n\
         except JSONRPCException as error:\n    assert error.code == -8, error\n\
         else:\n    raise SystemExit('no error')\n\
         print('ok')\n",
        node.rpc.address()
    );
    assert_eq!(run(&python, &["-c", &script]).as_deref(), Ok("ok\n"), "{}", repeat());
    node.stop();
}

#[test]
fn bitcoin_cli_waits_for_groatd_and_shows_it() {
    let Some(folder) = peers() else { return };
    let data = tempfile::tempdir().unwrap();
    let (port, groatd) = (free_port(), Groatd::new("regtest", data.path()));
    let cli = |arguments: &[&str]| {
        let done = Command::new(folder.join("bitcoin-cli"))
            .args(["-regtest", &format!("-datadir={}", data.path().display()), &format!("-rpcport={port}")])
            .args(arguments)
            .output()
            .unwrap();
        (
            done.status.code(),
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| cli(&["-rpcwait", "-rpcwaittimeout=60", "getblockcount"]));
        let mut process = groatd.command(["--listen=0", "--connect=0", &format!("--rpcport={port}")]).spawn().unwrap();
        let said = waiting.join().unwrap();
        let stop = cli(&["-rpcwait", "-named", "echo", "arg0=x"]);
        assert_eq!((stop.0, stop.1.contains("\"x\"")), (Some(0), true), "{stop:?}; {}", repeat());
        let mut shown = Vec::new();
        for arguments in [&["-getinfo"][..], &["-netinfo"], &["-netinfo", "4"], &["-addrinfo"]] {
            shown.push((arguments, cli(arguments)));
        }
        let made = cli(&["-generate", "1"]);
        cli(&["stop"]);
        process.wait().unwrap();
        for (arguments, said) in shown {
            assert_eq!(said.0, Some(0), "bitcoin-cli {arguments:?}: {said:?}; {}", repeat());
        }
        assert_ne!(made.0, Some(0), "there is no wallet: {made:?}; {}", repeat());
        said
    });
    assert_eq!((waiting.0, waiting.1.as_str()), (Some(0), "0\n"), "{waiting:?}; {}", repeat());
}
