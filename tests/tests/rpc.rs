//! The same questions to groatd's RPC and to bitcoind about the same chain: the answers have the same keys, the same
//! types and, where nothing but the chain decides, the same values. And `bitcoin-cli` talks to both alike.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint, ScriptBuf, TxIn, TxOut, Txid, Witness};
use groat_chain::ledger::{Ledger, Options};
use groat_chain::mempool::{BlockLimits, Policy};
use groat_chain::params::Params;
use groat_chain::pool::Pool;
use groat_chain::store::mem::MemStore;
use groat_node::config::Http;
use groat_node::offline::Offline;
use groat_node::rpc::{Config, Server, serve};
use groat_tests::bitcoind::{Bitcoind, Rpc, free_port, peers};
use groat_tests::groatd::{Groatd, Stats, repeat};
use groat_tests::regtest::{transaction, unsigned};
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

/// A node without peers on an empty regtest ledger in memory, with the shipping RPC.
pub struct Groat {
    /// Its data folder.
    pub folder: tempfile::TempDir,
    /// What speaks to it.
    pub rpc: Rpc,
    server: Server,
    _node: Offline,
}

impl Groat {
    /// With the usual policy.
    pub fn start() -> Groat {
        Groat::with(Policy::default())
    }

    /// With a mempool that takes what `policy` says.
    pub fn with(policy: Policy) -> Groat {
        Groat::over("regtest", MemStore::default(), policy, None)
    }

    /// On this network.
    pub fn on(chain: &str, policy: Policy) -> Groat {
        Groat::over(chain, MemStore::default(), policy, None)
    }

    /// On this store, which is pruned like this.
    pub fn over(chain: &str, store: MemStore, policy: Policy, prune: Option<u64>) -> Groat {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("regtest")).unwrap();
        let params = Arc::new(Params::by_name(chain).unwrap());
        let options = Options { assumed_valid: None, table_bytes: 1 << 20, prune };
        let pool = Arc::new(Pool::new(1));
        let node = Offline::start(Ledger::open(params, Arc::new(store), pool, options).unwrap(), policy);
        let config = Config {
            folder: folder.path().join("regtest"),
            port: 0,
            http: Http::default(),
            user_agent: "/Groat:0.1.0/".into(),
            services: 0xc09,
            relay: true,
            prune,
            block_limits: BlockLimits::default(),
            ban_time: 86_400,
            zmq: Vec::new(),
        };
        let server = serve(node.handle(), config).unwrap();
        let secret = std::fs::read_to_string(folder.path().join("regtest/.cookie")).unwrap();
        let rpc = Rpc::new(server.address(), &secret);
        Groat { folder, rpc, server, _node: node }
    }

    /// Calls a method that is expected to succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        self.rpc.call(method, params).unwrap_or_else(|error| panic!("groatd {method}: {error:?}"))
    }
}

/// Two nodes with one chain.
pub struct Pair {
    /// The model.
    pub core: Bitcoind,
    /// Ours.
    pub groat: Groat,
}

/// Output scripts of every kind that either node knows how to show.
fn scripts() -> Vec<String> {
    let x = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let y = "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
    let key = format!("02{x}");
    vec![
        "51".into(),
        "4f00600300ff80".into(),
        "4c".into(),
        "05aabb".into(),
        "0400000080".into(),
        "04ffffffff".into(),
        "6a026869".into(),
        "6a51ba".into(),
        "6a".into(),
        "ba".into(),
        "ff".into(),
        "fe".into(),
        "50".into(),
        "b1b2b3".into(),
        format!("21{key}ac"),
        format!("4104{x}{y}ac"),
        format!("4106{x}{y}ac"),
        format!("2105{x}ac"),
        format!("5121{key}51ae"),
        format!("512102{x}2103{x}52ae"),
        format!("5221{key}51ae"),
        format!("514106{x}{y}51ae"),
        format!("0111{}0111ae", format!("21{key}").repeat(17)),
        "0051ae".into(),
        "5150ae".into(),
        format!("76a914{}88ac", "11".repeat(20)),
        format!("a914{}87", "22".repeat(20)),
        format!("0014{}", "33".repeat(20)),
        format!("0020{}", "44".repeat(32)),
        format!("5120{x}"),
        format!("5120{}", "ff".repeat(32)),
        "51024e73".into(),
        "5102aabb".into(),
        format!("6028{}", "55".repeat(40)),
        "0003aabbcc".into(),
    ]
}

/// A chain with those scripts, and a block with spends: of an output that anybody can spend, with input scripts that
/// hold what looks like a signature, and with a witness.
pub fn pair(peers: &Path) -> Pair {
    let core = Bitcoind::start(peers, &[]);
    let groat = Groat::start();
    core.call("generatetodescriptor", json!([1, "raw(51)"]));
    for script in scripts() {
        core.call("generatetodescriptor", json!([1, format!("raw({script})")]));
    }
    core.call("generatetodescriptor", json!([100, "addr(bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202)"]));
    let first = core.call("getblock", json!([core.call("getblockhash", json!([1]))]));
    let coin: Txid = first["tx"][0].as_str().unwrap().parse().unwrap();
    let output = |value, script: &str| TxOut {
        value: Amount::from_sat(value),
        script_pubkey: ScriptBuf::from_hex(script).unwrap(),
    };
    // P2WSH of OP_DROP OP_1, and an output that a push of anything leaves true.
    let drop_and_true = ScriptBuf::from_bytes(vec![0x75, 0x51]);
    let parent = transaction(
        vec![unsigned(OutPoint::new(coin, 0))],
        vec![output(2_000_000_000, &drop_and_true.to_p2wsh().to_hex_string()), output(2_999_999_999, "7551")],
    );
    let der = [&[0x30, 0x44, 0x02, 0x20][..], &[0x11; 32], &[0x02, 0x20], &[0x22; 32]].concat();
    let with_signature = |hash_type| TxIn {
        script_sig: ScriptBuf::builder()
            .push_slice(<&bitcoin::script::PushBytes>::try_from(&[&der[..], &[hash_type]].concat()[..]).unwrap())
            .into_script(),
        ..unsigned(OutPoint::new(parent.compute_txid(), 1))
    };
    let with_witness = TxIn {
        witness: Witness::from_slice(&[vec![7; 5], drop_and_true.to_bytes()]),
        ..unsigned(OutPoint::new(parent.compute_txid(), 0))
    };
    let mut child = transaction(vec![with_signature(0x83), with_witness], vec![output(4_000_000_001, "7551")]);
    child.version = bitcoin::transaction::Version(-2);
    let grandchild = transaction(
        vec![TxIn { previous_output: OutPoint::new(child.compute_txid(), 0), ..with_signature(0x04) }],
        vec![output(1, "00")],
    );
    let transactions = json!([serialize_hex(&parent), serialize_hex(&child), serialize_hex(&grandchild)]);
    core.call("generateblock", json!(["raw(51)", transactions]));
    let height = core.call("getblockcount", json!([])).as_u64().unwrap();
    for height in 1..=height {
        let block = core.call("getblock", json!([core.call("getblockhash", json!([height])), 0]));
        assert_eq!(groat.call("submitblock", json!([block])), Value::Null, "groatd refuses block {height}");
    }
    Pair { core, groat }
}

/// Makes values equal that the chain does not decide: `path` is where they stand. Their types stay.
fn forget(value: &mut Value, paths: &[&str]) {
    for path in paths {
        match value.pointer_mut(path) {
            Some(Value::Number(number)) => *number = 0.into(),
            Some(Value::String(text)) => text.clear(),
            Some(Value::Array(items)) => items.clear(),
            Some(Value::Bool(truth)) => *truth = false,
            Some(Value::Object(_) | Value::Null) | None => {}
        }
    }
}

impl Pair {
    /// Asks both.
    pub fn same(&self, method: &str, params: Value, free: &[&str]) {
        let mut theirs = self.core.call(method, params.clone());
        let mut ours = self.groat.call(method, params.clone());
        forget(&mut theirs, free);
        forget(&mut ours, free);
        assert_eq!(ours, theirs, "{method} {params}: groatd (left) and bitcoind (right)");
    }

    /// Both refuse with one code and one text; of a text longer than a line the first line counts where it is the help.
    pub fn same_error(&self, method: &str, params: Value) {
        let refused =
            |rpc: &Rpc, who| rpc.call(method, params.clone()).expect_err(&format!("{who} refuses {method} {params}"));
        let (theirs, ours) = (refused(self.core.rpc(), "bitcoind"), refused(&self.groat.rpc, "groatd"));
        let text = |error: &groat_tests::bitcoind::RpcError| match error.code {
            -1 | -8 => error.message.lines().next().unwrap_or_default().to_string(),
            _ => error.message.clone(),
        };
        assert_eq!(
            (ours.code, text(&ours)),
            (theirs.code, text(&theirs)),
            "{method} {params}: groatd (left) and bitcoind (right)"
        );
    }
}

#[test]
fn rpc_answers_are_those_of_bitcoind() {
    let Some(peers) = peers() else { return };
    let pair = pair(&peers);
    let height = pair.core.call("getblockcount", json!([])).as_u64().unwrap();
    for height in (0..=scripts().len() as u64 + 2).chain([height - 1, height]) {
        let hash = pair.core.call("getblockhash", json!([height]));
        pair.same("getblockhash", json!([height]), &[]);
        for verbosity in [json!(0), json!(1), json!(2), json!(3), json!(-1), json!(true), json!(false), Value::Null] {
            pair.same("getblock", json!([hash, verbosity]), &[]);
        }
        for verbose in [json!(true), json!(false), Value::Null] {
            pair.same("getblockheader", json!([hash, verbose]), &[]);
        }
    }
    pair.same("getblockcount", json!([]), &[]);
    pair.same("getbestblockhash", json!([]), &[]);
    pair.same("getdifficulty", json!([]), &[]);
    pair.same("getblockchaininfo", json!([]), &["/verificationprogress", "/size_on_disk", "/warnings"]);
    pair.groat.call("generateblock", json!(["raw(51)", [], false]));
    pair.same("getmininginfo", json!([]), &["/warnings"]);
    pair.same("getnetworkinfo", json!([]), &["/version", "/subversion", "/warnings"]);
    pair.same("getconnectioncount", json!([]), &[]);
    pair.same("getpeerinfo", json!([]), &[]);
    pair.same("getchaintips", json!([]), &[]);
    pair.same("getrpcinfo", json!([]), &["/active_commands/0/duration", "/logpath"]);
    pair.same("uptime", json!([]), &[""]);
    pair.same("echo", json!([1, "two", [3], {"four": null}]), &[]);
    pair.same("addnode", json!(["127.0.0.1:1", "add"]), &[]);
    pair.same("addnode", json!(["127.0.0.1:1", "remove"]), &[]);
    links_bans_and_addresses(&pair);
    for kind in ["none", "muhash", "hash_serialized_3"] {
        pair.same("gettxoutsetinfo", json!([kind]), &["/disk_size"]);
    }
    pair.same("gettxoutsetinfo", json!([]), &["/disk_size"]);
    let last = pair.core.call("getblock", json!([pair.core.call("getbestblockhash", json!([]))]));
    for (txid, n) in [(&last["tx"][0], 0), (&last["tx"][0], 1), (&last["tx"][1], 0), (&last["tx"][3], 0)] {
        pair.same("gettxout", json!([txid, n]), &[]);
        pair.same("gettxout", json!([txid, n, false]), &[]);
    }
    let hash = pair.core.call("getbestblockhash", json!([]));
    for txid in last["tx"].as_array().unwrap() {
        for verbosity in [json!(0), json!(1), json!(2), json!(true), json!(false), Value::Null] {
            pair.same("getrawtransaction", json!([txid, verbosity, hash]), &[]);
        }
        let hex = pair.core.call("getrawtransaction", json!([txid, 0, hash]));
        for witness in [json!(true), Value::Null] {
            pair.same("decoderawtransaction", json!([hex, witness]), &[]);
        }
    }
}

/// What descriptors received and spent: in blocks in their order, in the mempool in any.
fn activity_is_that_of_bitcoind(pair: &Pair) {
    let hash = |height: u64| pair.core.call("getblockhash", json!([height]));
    let tip = pair.core.call("getblockcount", json!([])).as_u64().unwrap();
    let scripts = json!(["raw(51)", "raw(51024e73)", {"desc": "raw(7551)"}]);
    let blocks = json!([hash(tip), hash(0), hash(1), hash(1), hash(tip - 1)]);
    pair.same("getdescriptoractivity", json!([blocks, scripts, false]), &[]);
    let ask = |rpc: &Rpc| {
        let found = rpc.call("getdescriptoractivity", json!([blocks, scripts])).unwrap();
        let mut events: Vec<String> = found["activity"].as_array().unwrap().iter().map(Value::to_string).collect();
        events.sort();
        events
    };
    let (ours, theirs) = (ask(&pair.groat.rpc), ask(pair.core.rpc()));
    assert_eq!(ours, theirs, "getdescriptoractivity: groatd (left) and bitcoind (right); {}", repeat());
    let waiting = ours.iter().filter(|event| !event.contains("blockhash"));
    assert_eq!(waiting.count(), 3 + 6, "spent and received in the mempool; {}", repeat());
    let unknown = "ab".repeat(32);
    for params in [
        json!([[]]),
        json!([["ab"], []]),
        json!([[1], []]),
        json!([[unknown], []]),
        json!([[hash(1)], ["nonsense"]]),
        json!([[hash(1)], [1]]),
        json!([[hash(1)], [], 1]),
    ] {
        pair.same_error("getdescriptoractivity", params);
    }
}

#[test]
fn the_mempool_is_shown_as_bitcoind_shows_it() {
    let Some(peers) = peers() else { return };
    let pair = pair(&peers);
    pair.same("getmempoolinfo", json!([]), &["/usage"]);
    // The coinbase that pays to an anchor, which anyone may spend.
    let height = scripts().iter().position(|script| script == "51024e73").unwrap() + 2;
    let block = pair.core.call("getblock", json!([pair.core.call("getblockhash", json!([height]))]));
    let coin = OutPoint::new(block["tx"][0].as_str().unwrap().parse().unwrap(), 0);
    let output = |value| TxOut {
        value: Amount::from_sat(value),
        script_pubkey: ScriptBuf::from_bytes(vec![0x51, 2, 0x4e, 0x73]),
    };
    let parent = transaction(vec![unsigned(coin)], vec![output(4_999_000_000), output(990_000)]);
    let spend = |vout, value| {
        let mut child = transaction(vec![unsigned(OutPoint::new(parent.compute_txid(), vout))], vec![output(value); 2]);
        child.input[0].sequence = bitcoin::Sequence::ENABLE_RBF_NO_LOCKTIME;
        child
    };
    let (child, other) = (spend(0, 2_000_000_000), spend(1, 400_000));
    for tx in [&parent, &child, &other] {
        let hex = serialize_hex(tx);
        for params in [json!([[hex]]), json!([[hex], 0]), json!([[hex], "0.00000100"])] {
            pair.same("testmempoolaccept", params, &[]);
        }
        pair.same("sendrawtransaction", json!([hex, 0]), &[]);
        pair.same("sendrawtransaction", json!([hex, 0]), &[]);
        pair.same("getrawtransaction", json!([tx.compute_txid()]), &[]);
        pair.same("getrawtransaction", json!([tx.compute_txid(), 1]), &[]);
        pair.same("getrawtransaction", json!([tx.compute_txid(), 2]), &[]);
    }
    pair.same("getmempoolinfo", json!([]), &["/usage"]);
    for tx in [&parent, &child, &other] {
        let txid = tx.compute_txid();
        pair.same("getmempoolentry", json!([txid]), &["/time", "/spentby"]);
        pair.same("getmempoolancestors", json!([txid]), &[]);
        pair.same("gettxout", json!([txid, 0]), &[]);
        pair.same("gettxout", json!([txid, 0, false]), &[]);
    }
    pair.same(
        "getmempoolancestors",
        json!([other.compute_txid(), true]),
        &[&format!("/{}/time", parent.compute_txid()), &format!("/{}/spentby", parent.compute_txid())],
    );
    pair.same("getmempooldescendants", json!([child.compute_txid()]), &[]);
    activity_is_that_of_bitcoind(&pair);
    pair.same("gettxout", json!([coin.txid, 0]), &[]);
    pair.same("getrawmempool", json!([false, true]), &["/txids"]);
    let address = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";
    for (inputs, rest) in [
        (json!([]), json!([{address: 1}])),
        (json!([{"txid": coin.txid, "vout": 0}]), json!([{address: "0.5"}, 7])),
        (json!([{"txid": coin.txid, "vout": 0}]), json!([[{address: 0.00000001}, {"data": "00ff"}], 7, false])),
        (json!([{"txid": coin.txid, "vout": 0, "sequence": 5}]), json!([{"data": "07"}, 0, true, 3])),
    ] {
        let params = [&[inputs][..], rest.as_array().unwrap()].concat();
        pair.same("createrawtransaction", json!(params), &[]);
    }
}

/// What needs no peer.
fn links_bans_and_addresses(pair: &Pair) {
    pair.same("addnode", json!(["127.0.0.1:1", "add", false]), &[]);
    pair.same_error("addnode", json!(["127.0.0.1:1", "add"]));
    pair.same("getaddednodeinfo", json!([]), &[]);
    pair.same("getaddednodeinfo", json!(["127.0.0.1:1"]), &[]);
    pair.same("addnode", json!(["127.0.0.1:1", "remove"]), &[]);
    pair.same("getaddednodeinfo", json!([]), &[]);
    pair.same("getnettotals", json!([]), &["/timemillis"]);
    pair.same("ping", json!([]), &[]);
    for active in [false, true] {
        pair.same("setnetworkactive", json!([active]), &[]);
        pair.same("getnetworkinfo", json!([]), &["/version", "/subversion", "/warnings"]);
    }

    // The longest ban comes first in none of the two.
    let banned = [
        json!(["1.2.3.4/24", "add", 100_000]),
        json!(["1.2.3.4/255.255.0.0", "add"]),
        json!(["2001:db8::/32", "add", 4_000_000_000_u64, true]),
        json!(["1.2.9.9/32", "add", -5]),
        json!(["pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion", "add"]),
        json!(["ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p", "add"]),
    ];
    banned.iter().for_each(|ban| pair.same("setban", ban.clone(), &[]));
    let free: Vec<String> = (0..banned.len())
        .flat_map(|at| {
            let fields = ["ban_created", "banned_until", "time_remaining"];
            fields.map(|field| format!("/{at}/{field}"))
        })
        .collect();
    // How long one with an end of its own lasts depends on when it was put on.
    let free: Vec<&str> = free.iter().map(String::as_str).collect();
    let listed = |which: &str| {
        let list = if which == "core" {
            pair.core.call("listbanned", json!([]))
        } else {
            pair.groat.call("listbanned", json!([]))
        };
        let mut list = list;
        let absolute = list.as_array_mut().unwrap().iter_mut().find(|ban| ban["address"] == "2001:db8::/32").unwrap();
        assert_eq!(absolute["banned_until"], json!(4_000_000_000_u64), "{which}");
        absolute["ban_duration"] = json!(0);
        forget(&mut list, &free);
        list
    };
    assert_eq!(listed("groat"), listed("core"), "listbanned: groatd (left) and bitcoind (right)");
    pair.same("setban", json!(["1.2.9.9", "remove"]), &[]);
    pair.same("clearbanned", json!([]), &[]);
    pair.same("listbanned", json!([]), &[]);

    pair.same("getnodeaddresses", json!([0]), &[]);
    pair.same("getaddrmaninfo", json!([]), &[]);
    pair.same("getrawaddrman", json!([]), &[]);
    for (address, tried) in [
        ("1.2.3.4", false),
        ("1.2.3.4", false),
        ("2a01:4f8::1", true),
        ("pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion", true),
        ("ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p", false),
        ("127.0.0.1", false),
    ] {
        pair.same("addpeeraddress", json!([address, 8333, tried]), &[]);
    }
    pair.same("getaddrmaninfo", json!([]), &[]);
    for network in ["ipv4", "ipv6", "onion", "i2p", "cjdns", "IPv4"] {
        pair.same("getnodeaddresses", json!([0, network]), &["/0/time"]);
    }
    // Places are secret: the rest is compared.
    let places = |tables: Value| -> Vec<Value> {
        let table = |name: &str| tables[name].as_object().unwrap().values().cloned().collect::<Vec<_>>();
        let mut all = [table("new"), table("tried")].concat();
        all.iter_mut().for_each(|place| place["time"] = json!(0));
        all.sort_by_key(|place| place["address"].to_string());
        all
    };
    let (ours, theirs) = (pair.groat.call("getrawaddrman", json!([])), pair.core.call("getrawaddrman", json!([])));
    assert_eq!(places(ours), places(theirs), "getrawaddrman: groatd (left) and bitcoind (right)");
}

#[test]
fn rpc_errors_are_those_of_bitcoind() {
    let Some(peers) = peers() else { return };
    let pair = Pair { core: Bitcoind::start(&peers, &[]), groat: Groat::start() };
    let unknown = "ab".repeat(32);
    let genesis = pair.core.call("getblockhash", json!([0]));
    // It spends what does not exist.
    let lost = &serialize_hex(&transaction(
        vec![unsigned(OutPoint::new(unknown.parse().unwrap(), 0))],
        vec![
            TxOut { value: Amount::from_sat(1000), script_pubkey: ScriptBuf::from_bytes(vec![0x51, 2, 0x4e, 0x73]) };
            2
        ],
    ));
    for (method, params) in [
        ("getblockhash", json!([])),
        ("getblockhash", json!([1, 2])),
        ("getblockhash", json!([1])),
        ("getblockhash", json!([-1])),
        ("getblockhash", json!([0.5])),
        ("getblockhash", json!([3_000_000_000_u64])),
        ("getblockhash", json!(["0"])),
        ("getblockhash", json!([null])),
        ("getblockhash", json!({"hight": 1})),
        ("getblockhash", json!({"args": [1], "height": 1})),
        ("getblockheader", json!(["ab"])),
        ("getblockheader", json!(["zz".repeat(32)])),
        ("getblockheader", json!([unknown])),
        ("getblockheader", json!([unknown, 1])),
        ("getblockheader", json!([unknown, "x", 3])),
        ("getblock", json!(["ab"])),
        ("getblock", json!([unknown])),
        ("getblock", json!([7])),
        ("getblock", json!([unknown, "1"])),
        ("getblock", json!({"verbosity": 1})),
        ("getbestblockhash", json!([1])),
        ("gettxout", json!(["ab", 0])),
        ("gettxout", json!([unknown])),
        ("gettxout", json!([unknown, -1])),
        ("gettxoutsetinfo", json!(["md5"])),
        ("gettxoutsetinfo", json!(["none", 0])),
        ("submitblock", json!([""])),
        ("submitblock", json!(["00"])),
        ("submitblock", json!(["zz"])),
        ("submitheader", json!(["00"])),
        ("submitheader", json!(["00".repeat(80)])),
        ("invalidateblock", json!([unknown])),
        ("reconsiderblock", json!(["x"])),
        ("generatetoaddress", json!([1, "nonsense"])),
        ("generatetoaddress", json!([1, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"])),
        ("generatetoaddress", json!(["1", "x"])),
        ("generatetodescriptor", json!([1, "raw(51)#8lvh9jxq"])),
        ("generatetodescriptor", json!([1, "raw(5)"])),
        ("generatetodescriptor", json!([1, "addr(x)"])),
        ("generateblock", json!(["nonsense", []])),
        ("generateblock", json!(["raw(51)", [unknown]])),
        ("generateblock", json!(["raw(51)", ["00"]])),
        ("generateblock", json!(["raw(51)"])),
        ("sendrawtransaction", json!([])),
        ("sendrawtransaction", json!(["00"])),
        ("sendrawtransaction", json!([lost, 1])),
        ("sendrawtransaction", json!([lost, -1])),
        ("sendrawtransaction", json!([lost, 0.000000001])),
        ("sendrawtransaction", json!([lost, []])),
        ("sendrawtransaction", json!([lost])),
        ("sendrawtransaction", json!([lost, 0])),
        ("testmempoolaccept", json!([[]])),
        ("testmempoolaccept", json!([["00"]])),
        ("testmempoolaccept", json!([[1]])),
        ("testmempoolaccept", json!([vec![lost; 26]])),
        ("testmempoolaccept", json!(["00"])),
        ("getmempoolentry", json!([unknown])),
        ("getmempoolentry", json!(["ab"])),
        ("getmempoolancestors", json!([unknown])),
        ("getmempooldescendants", json!([unknown, 1])),
        ("getrawmempool", json!([true, true])),
        ("getrawmempool", json!([1])),
        ("getrawtransaction", json!([unknown])),
        ("getrawtransaction", json!(["ab"])),
        ("getrawtransaction", json!([unknown, 1, unknown])),
        ("getrawtransaction", json!([unknown, 1, "ab"])),
        ("getrawtransaction", json!([unknown, "1"])),
        ("getrawtransaction", json!([unknown, 1, genesis])),
        ("getrawtransaction", json!(["4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"])),
        ("decoderawtransaction", json!(["00"])),
        ("decoderawtransaction", json!([lost, true, 3])),
        ("createrawtransaction", json!([[]])),
        ("createrawtransaction", json!([[], null])),
        ("createrawtransaction", json!([[1], {}])),
        ("createrawtransaction", json!([[{}], {}])),
        ("createrawtransaction", json!([[{"txid": "ab", "vout": 0}], {}])),
        ("createrawtransaction", json!([[{"txid": unknown}], {}])),
        ("createrawtransaction", json!([[{"txid": unknown, "vout": -1}], {}])),
        ("createrawtransaction", json!([[{"txid": unknown, "vout": 0, "sequence": -1}], {}])),
        ("createrawtransaction", json!([[{"txid": unknown, "vout": 0, "sequence": 0xffff_ffff_u32}], {}, 0, true])),
        ("createrawtransaction", json!([[], [1]])),
        ("createrawtransaction", json!([[], [{"data": "00", "date": "00"}]])),
        ("createrawtransaction", json!([[], [{"data": "00"}, {"data": "00"}]])),
        ("createrawtransaction", json!([[], {"data": "xx"}])),
        ("createrawtransaction", json!([[], {"data": ""}])),
        ("createrawtransaction", json!([[], {"nonsense": 1}])),
        ("createrawtransaction", json!([[], {"nonsense": "x"}])),
        ("createrawtransaction", json!([[], "x"])),
        ("createrawtransaction", json!([[], {}, -1])),
        ("createrawtransaction", json!([[], {}, 4_294_967_296_u64])),
        ("createrawtransaction", json!([[], {}, 0, true, 4])),
        ("addnode", json!(["127.0.0.1:1", "remove"])),
        ("addnode", json!(["127.0.0.1:1", "greet"])),
        ("addnode", json!(["127.0.0.1:1"])),
        ("stop", json!([1, 2])),
        ("stop", json!(["x"])),
        ("echo", json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])),
        ("nonsense", json!([])),
        ("disconnectnode", json!([])),
        ("disconnectnode", json!(["127.0.0.1:1", 3])),
        ("disconnectnode", json!(["", 3])),
        ("disconnectnode", json!(["127.0.0.1:1"])),
        ("addnode", json!(["127.0.0.1:1", "add", "yes"])),
        ("getaddednodeinfo", json!(["127.0.0.1:1"])),
        ("addconnection", json!(["127.0.0.1:1", "feeler"])),
        ("addconnection", json!(["127.0.0.1:1", "manual", false])),
        ("setban", json!(["nonsense", "add"])),
        ("setban", json!(["1.2.3.4/33", "add"])),
        ("setban", json!(["1.2.3.4"])),
        ("setban", json!(["1.2.3.4", "greet"])),
        ("setban", json!(["1.2.3.4", "remove"])),
        ("setban", json!(["1.2.3.4", "add", 1, true])),
        ("setban", json!(["1.2.3.4", "add", "1"])),
        ("setnetworkactive", json!([])),
        ("setnetworkactive", json!([1])),
        ("getnodeaddresses", json!([-1])),
        ("getnodeaddresses", json!([1, "moon"])),
        ("getnodeaddresses", json!([1, "not_publicly_routable"])),
        ("addpeeraddress", json!(["nonsense", 8333])),
        ("addpeeraddress", json!(["1.2.3.4"])),
        ("addpeeraddress", json!(["1.2.3.4", -1])),
        ("addpeeraddress", json!(["1.2.3.4", 65_536])),
        ("sendmsgtopeer", json!([0, "ping", "00"])),
        ("sendmsgtopeer", json!([0, "a name too long", "00"])),
        ("sendmsgtopeer", json!([0, "ping", "0"])),
        ("sendmsgtopeer", json!([0, "ping", "xx"])),
        ("sendmsgtopeer", json!([0, "ping"])),
        ("setmocktime", json!([-1])),
        ("setmocktime", json!([4_294_967_296_u64])),
    ] {
        pair.same_error(method, params);
    }
    for subnet in ["1.2.3.4", "10.0.0.0/8"] {
        pair.same("setban", json!([subnet, "add"]), &[]);
    }
    for (subnet, command) in [
        ("1.2.3.4", "add"),
        ("10.1.2.3", "add"),
        ("10.0.0.0/8", "add"),
        ("10.1.2.3", "remove"),
        ("10.0.0.0/9", "remove"),
    ] {
        pair.same_error("setban", json!([subnet, command]));
    }
    // Both tell of a header that does not fit in the same way.
    let block = pair.core.call("generateblock", json!(["raw(51)", [], false]));
    let hex = block["hex"].as_str().unwrap();
    pair.same("submitheader", json!([&hex[..160]]), &[]);
    pair.same("submitblock", json!([hex]), &[]);
    pair.same("submitblock", json!([hex]), &[]);
    pair.core.call("invalidateblock", json!([block["hash"]]));
    pair.groat.call("invalidateblock", json!([block["hash"]]));
    pair.same("submitblock", json!([hex]), &[]);
    pair.same("getchaintips", json!([]), &[]);
    pair.same_error("submitheader", json!([&hex[..160]]));
}

/// Posts a body; the status and the JSON of the answer.
fn post(rpc: &Rpc, body: &str) -> (String, Value) {
    let mut stream = TcpStream::connect(rpc.address()).unwrap();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        rpc.address(),
        rpc.authorization(),
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().to_string();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() };
    (status, body)
}

#[test]
fn rpc_envelopes_are_those_of_bitcoind() {
    let Some(peers) = peers() else { return };
    let pair = Pair { core: Bitcoind::start(&peers, &[]), groat: Groat::start() };
    for body in [
        json!({"method": "getblockcount"}),
        json!({"method": "getblockcount", "id": {"a": 1}}),
        json!({"jsonrpc": "1.0", "method": "getblockcount", "id": 1}),
        json!({"jsonrpc": "2.0", "method": "getblockcount", "id": 1}),
        json!({"jsonrpc": "2.0", "method": "getblockcount", "id": null}),
        json!({"jsonrpc": "2.0", "method": "getblockcount"}),
        json!({"jsonrpc": "2.0", "method": "nothing", "id": 1}),
        json!({"jsonrpc": "2.0", "method": "nothing"}),
        json!({"jsonrpc": "2.0", "id": 1}),
        json!({"jsonrpc": "2.0"}),
        json!({"jsonrpc": "2.0", "method": "getblockhash", "params": 1, "id": 1}),
        json!({"jsonrpc": 2, "method": "getblockcount", "id": 1}),
        json!({"jsonrpc": "2.1", "method": "getblockcount", "id": 1}),
        json!({"method": "nothing", "id": "x"}),
        json!({"method": 7, "id": "x"}),
        json!({"method": "getblockhash", "params": [9], "id": "x"}),
        json!({"id": "x"}),
        json!([]),
        json!("x"),
        json!([1]),
        json!([{"jsonrpc": "2.0", "method": "getblockcount"}]),
        json!([{"method": "getblockcount", "id": 1}, {"jsonrpc": "2.0", "method": "nothing", "id": 2}, {"jsonrpc": "2.0", "id": 3}]),
    ] {
        let (ours, theirs) = (post(&pair.groat.rpc, &body.to_string()), post(pair.core.rpc(), &body.to_string()));
        assert_eq!(ours, theirs, "{body}: groatd (left) and bitcoind (right)");
    }
    for body in ["", "{", "nonsense", "{}x"] {
        let (ours, theirs) = (post(&pair.groat.rpc, body), post(pair.core.rpc(), body));
        assert_eq!(ours, theirs, "{body}: groatd (left) and bitcoind (right)");
    }
}

#[test]
fn bitcoin_cli_speaks_to_groatd() {
    let Some(peers) = peers() else { return };
    let pair = pair(&peers);
    let run = |folder: &Path, port: u16, arguments: &[&str]| {
        let output = Command::new(peers.join("bitcoin-cli"))
            .args(["-regtest", &format!("-datadir={}", folder.display()), &format!("-rpcport={port}")])
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let tip = pair.core.call("getbestblockhash", json!([]));
    let tip = tip.as_str().unwrap();
    // Letter by letter: the order of the keys is Core's, too.
    for arguments in [
        &["getblockcount"][..],
        &["getblock", tip],
        &["getblock", tip, "3"],
        &["-named", "getblock", &format!("blockhash={tip}"), "verbosity=2"],
        &["-named", "getblockheader", tip, "verbose=false"],
        &["getblockheader", tip],
        &["gettxoutsetinfo", "muhash"],
        &["getchaintips"],
        &["getdifficulty"],
        &["getblockhash", "100000"],
        &["getblock", "00"],
        &["nothing"],
        &["-stdin", "echo"],
    ] {
        let ours = run(pair.groat.folder.path(), pair.groat.server.address().port(), arguments);
        let theirs = run(pair.core.folder(), pair.core.rpc().address().port(), arguments);
        assert_eq!(ours, theirs, "bitcoin-cli {arguments:?}: groatd (left) and bitcoind (right)");
    }
    let info = run(pair.groat.folder.path(), pair.groat.server.address().port(), &["-getinfo"]);
    assert_eq!(info.0, Some(0), "bitcoin-cli -getinfo: {} {}", info.1, info.2);
    let made = run(pair.groat.folder.path(), pair.groat.server.address().port(), &["-generate", "1"]);
    assert_ne!(made.0, Some(0), "there is no wallet: {}", made.1);
    let stop = run(pair.groat.folder.path(), pair.groat.server.address().port(), &["stop"]);
    assert_eq!(stop, (Some(0), "Groat stopping\n".into(), String::new()));
}

#[test]
fn groatd_and_bitcoind_meet_by_rpc_and_show_each_other() {
    let Some(peers) = peers() else { return };
    let core = Bitcoind::start(&peers, &["-listen=1".into(), format!("-port={}", free_port())]);
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    let node = Running::start(&groatd, &["--connect=0"]);
    let ours = |method: &str, params: Value| node.rpc.call(method, params).unwrap();
    let hashes = ours("generatetoaddress", json!([3, "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"]));
    core.call("addnode", json!([node.peers.to_string(), "onetry"]));
    core.wait_for_height(3, PATIENCE);
    assert_eq!(core.call("getbestblockhash", json!([])), hashes[2]);
    let stats = |stats: Value| serde_json::from_value::<Stats>(stats).unwrap();
    let kind = json!(["muhash"]);
    assert_eq!(
        stats(ours("gettxoutsetinfo", kind.clone())),
        stats(core.call("gettxoutsetinfo", kind)),
        "coins of groatd (left) and bitcoind (right)"
    );
    let keys = |peers: Value| {
        let peer = peers.as_array().unwrap().first().unwrap_or_else(|| panic!("no link; {}", repeat())).clone();
        let kinds = peer.as_object().unwrap().iter().map(|(key, value)| (key.clone(), kind_of(value)));
        kinds.collect::<BTreeMap<_, _>>()
    };
    let (mut left, mut right) = (keys(ours("getpeerinfo", json!([]))), keys(core.call("getpeerinfo", json!([]))));
    // Neither is always there: how the other end sees us, and what ping has measured so far.
    for key in ["addrlocal", "addrbind", "pingtime", "minping", "pingwait"] {
        left.remove(key);
        right.remove(key);
    }
    assert_eq!(left, right, "getpeerinfo of groatd (left) and bitcoind (right); {}", repeat());
    assert_eq!(ours("getconnectioncount", json!([])), json!(1));
    assert_eq!(ours("getnetworkinfo", json!([]))["connections_in"], json!(1));
    assert_eq!(ours("getpeerinfo", json!([]))[0]["id"], json!(0), "links are numbered from 0; {}", repeat());
    let message = ours("sendmsgtopeer", json!([0, "ping", "0102030405060708"]));
    assert_eq!(message, json!({}));
    let totals = ours("getnettotals", json!([]));
    assert!(totals["totalbytesrecv"].as_u64() > Some(100) && totals["totalbytessent"].as_u64() > Some(100), "{totals}");
    let id = ours("getpeerinfo", json!([]))[0]["id"].clone();
    assert_eq!(ours("disconnectnode", json!(["", id])), Value::Null);
    assert_eq!(ours("getconnectioncount", json!([])), json!(0));
    assert_eq!(ours("setmocktime", json!([2_000_000_000])), Value::Null);
    let hash = ours("generatetodescriptor", json!([1, "raw(51)"]))[0].clone();
    assert_eq!(ours("getblockheader", json!([hash]))["time"], json!(2_000_000_000));
    assert_eq!(ours("setmocktime", json!([0])), Value::Null);
    assert_eq!(ours("syncwithvalidationinterfacequeue", json!([])), Value::Null);
    assert_eq!(ours("stop", json!([])), json!("Groat stopping"));
    node.ended();
    assert!(!groatd.chain_folder().join(".cookie").exists(), "the cookie outlives groatd; {}", repeat());
}

/// Name of a value's JSON type.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
