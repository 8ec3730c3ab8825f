//! One script of `bitcoin-cli` calls, run by bitcoin-cli against a groatd and a bitcoind that are linked with each other:
//! the outputs have the same shape, which is the keys and the JSON types, and errors the same code. Values are compared by
//! `rpc` and `rpc_chain`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use corepc_types::v31;
use groat_tests::bitcoind::{Bitcoind, free_port, peers};
use groat_tests::groatd::{Groatd, repeat};
use groat_tests::regtest::{transaction, unsigned};
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

use crate::rpc::kind_of;

/// Options for both.
const INDEXES: &[&str] = &["-blockfilterindex=1"];
/// What only groatd has; bitcoind has the last where it was built with ZeroMQ, and the one compared with need not be.
const OWN: &[&str] = &["getnodestatus", "getrelayinfo", "getzmqnotifications"];

/// Keys that are there or not as it comes: how far a ping is, who sees whom under which address.
const SOMETIMES: &[&str] = &["addrlocal", "addrbind", "pingtime", "minping", "pingwait"];
/// Objects whose keys are no names of fields.
const MAPS: &[&str] = &["bytessent_per_msg", "bytesrecv_per_msg", "new", "tried"];
/// Calls that are made and not compared: on a quiet network groatd knows a fee rate, and bitcoind says that it has none.
const OWN_WAY: &[&str] = &["estimatesmartfee 6"];
/// Lists that may be empty at one of the two: what they hold is not compared.
const LISTS: &[&str] =
    &["warnings", "localaddresses", "inflight", "permissions", "servicesnames", "localservicesnames"];

/// The calls, in this order. What stands in braces is filled in: see [`words`].
const CALLS: &[&str] = &[
    // The server.
    "help",
    "help getblock",
    "getrpcinfo",
    "uptime",
    "getmemoryinfo",
    "logging",
    "echo a b",
    "echojson 1 [2]",
    "echoipc text",
    "setmocktime 0",
    "mockscheduler 1",
    "syncwithvalidationinterfacequeue",
    "getindexinfo",
    "generate",
    "nonsense",
    // The chain.
    "getbestblockhash",
    "getblock {tip} 0",
    "getblock {tip}",
    "getblock {tip} 2",
    "getblock {tip} 3",
    "getblockchaininfo",
    "getblockcount",
    "getblockfilter {tip}",
    "getblockfrompeer {tip} 0",
    "getblockhash 1",
    "getblockhash 100000",
    "getblockheader {tip}",
    "getblockheader {tip} false",
    "getblockstats 1",
    "getblockstats {tip} [\"txs\",\"feerate_percentiles\"]",
    "getchainstates",
    "getchaintips",
    "getchaintxstats",
    "getchaintxstats 10 {tip}",
    "getdeploymentinfo",
    "getdifficulty",
    "gettxout {coin} 0",
    "gettxout {unknown} 0",
    "gettxoutproof [\"{coin}\"]",
    "gettxoutproof [\"{unknown}\"] {tip}",
    "gettxoutsetinfo",
    "gettxoutsetinfo muhash",
    "gettxoutsetinfo none",
    "gettxoutsetinfo none 1",
    "verifytxoutproof {proof}",
    "verifychain",
    "verifychain 4 3",
    "pruneblockchain 1",
    "preciousblock {tip}",
    "preciousblock {unknown}",
    "waitfornewblock 10",
    "waitforblock {tip}",
    "waitforblockheight 1 10",
    "dumptxoutset {folder}/coins latest",
    "-named dumptxoutset {folder}/coins1 rollback=1",
    "scantxoutset start [\"raw(51)\"]",
    "scantxoutset status",
    "scanblocks start [\"raw(51)\"]",
    "scanblocks start [\"raw(52)\"] 1 50 basic {\"filter_false_positives\":true}",
    "scanblocks status",
    "scanblocks abort",
    "getdescriptoractivity [\"{coinblock}\"] [\"raw(51024e73)\"]",
    // Transactions.
    "createrawtransaction [{\"txid\":\"{coin}\",\"vout\":0}] [{\"{address}\":1}]",
    "createpsbt [{\"txid\":\"{coin}\",\"vout\":0}] [{\"{address}\":1}]",
    "converttopsbt {raw}",
    "decoderawtransaction {raw}",
    "decodescript 51",
    "combinerawtransaction [\"{raw}\",\"{raw}\"]",
    "signrawtransactionwithkey {raw} [\"{key}\"]",
    "testmempoolaccept [\"{raw}\"]",
    "submitpackage [\"{raw}\"]",
    "sendrawtransaction {raw}",
    "sendrawtransaction 00",
    "getrawtransaction {txid}",
    "getrawtransaction {txid} 1",
    "getrawtransaction {txid} 2",
    "getrawtransaction {coin} 1 {coinblock}",
    "gettxspendingprevout [{\"txid\":\"{coin}\",\"vout\":0}]",
    "getmempoolinfo",
    "getmempoolentry {txid}",
    "getmempoolancestors {txid}",
    "getmempooldescendants {txid} true",
    "getmempoolcluster {txid}",
    "getmempoolfeeratediagram",
    "getrawmempool",
    "getrawmempool true",
    "getrawmempool false true",
    "getorphantxs 1",
    "prioritisetransaction {txid} 0 1000",
    "getprioritisedtransactions",
    "prioritisetransaction {txid} 0 -1000",
    "savemempool",
    "importmempool {folder}/regtest/mempool.dat",
    "estimatesmartfee 6",
    "estimaterawfee 6",
    // Keys, addresses and descriptors.
    "createmultisig 1 [\"{public}\"]",
    "deriveaddresses raw(51)#8lvh9jxk",
    "deriveaddresses addr({address})#{addresssum}",
    "getdescriptorinfo raw(51)",
    "signmessagewithprivkey {key} text",
    "validateaddress {address}",
    "validateaddress nonsense",
    "verifymessage {oldaddress} {signature} text",
    // Peers.
    "addnode 127.0.0.1:1 add",
    "getaddednodeinfo",
    "addnode 127.0.0.1:1 remove",
    "getconnectioncount",
    "getnettotals",
    "getnetworkinfo",
    "getpeerinfo",
    "ping",
    "sendmsgtopeer 0 ping 0102030405060708",
    "addpeeraddress 1.2.3.4 8333 true",
    "getnodeaddresses",
    "getaddrmaninfo",
    "getrawaddrman",
    "setban 9.9.9.9 add 1000",
    "listbanned",
    "clearbanned",
    "disconnectnode nonsense",
    "setnetworkactive false",
    "addconnection 127.0.0.1:1 feeler false",
    // Mining: from here on each has its own chain.
    "getblocktemplate {\"rules\":[\"segwit\"]}",
    "getmininginfo",
    "getnetworkhashps",
    "getblocktemplate {\"mode\":\"proposal\",\"data\":\"00\"}",
    "submitblock 00",
    "submitheader 00",
    "generateblock {address} []",
    "generateblock {address} [] false",
    "generatetodescriptor 1 raw(51)",
    "generatetoaddress 1 {address}",
    "invalidateblock {tip}",
    "reconsiderblock {tip}",
    "getmempoolinfo",
    "stop",
];

/// What the calls are filled in with; for both nodes the same but for the folder.
fn words(core: &Bitcoind) -> Vec<(&'static str, String)> {
    let call = |method: &str, params: Value| core.call(method, params);
    let coinblock = call("getblockhash", json!([1]));
    let coin = call("getblock", json!([coinblock]))["tx"][0].clone();
    let address = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";
    // The first coinbase pays to an anchor, which anyone may spend.
    let anchor = ScriptBuf::from_bytes(vec![0x51, 2, 0x4e, 0x73]);
    let output = TxOut { value: Amount::from_sat(4_999_990_000), script_pubkey: anchor };
    let txid = coin.as_str().unwrap().parse().unwrap();
    let spend = transaction(vec![unsigned(OutPoint::new(txid, 0))], vec![output]);
    let key = "cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA";
    let sum = call("getdescriptorinfo", json!([format!("addr({address})")]))["checksum"].clone();
    let text = |value: Value| value.as_str().unwrap().to_string();
    vec![
        ("tip", text(call("getbestblockhash", json!([])))),
        ("coin", text(coin.clone())),
        ("coinblock", text(coinblock)),
        ("unknown", "ab".repeat(32)),
        ("proof", text(call("gettxoutproof", json!([[coin]])))),
        ("raw", serialize_hex(&spend)),
        ("txid", spend.compute_txid().to_string()),
        ("address", address.into()),
        ("addresssum", text(sum)),
        // Of the secret key 1.
        ("key", key.into()),
        ("public", "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".into()),
        ("oldaddress", "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r".into()),
        ("signature", text(call("signmessagewithprivkey", json!([key, "text"])))),
    ]
}

/// One of the two, as bitcoin-cli finds it.
struct End {
    cli: PathBuf,
    folder: PathBuf,
    port: u16,
}

impl End {
    /// Runs a call; its output, or its error's code.
    fn run(&self, call: &str, words: &[(&str, String)]) -> Result<String, String> {
        let folder = self.folder.display().to_string();
        let fill = |word: &str| {
            let filled =
                words.iter().fold(word.to_string(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value));
            filled.replace("{folder}", &folder)
        };
        let output = Command::new(&self.cli)
            .args(["-regtest", &format!("-datadir={folder}"), &format!("-rpcport={}", self.port)])
            .args(call.split(' ').map(fill))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr).lines().next().unwrap_or_default().to_string()),
        }
    }
}

/// The shape of an output.
fn shape(output: &Result<String, String>) -> String {
    match output {
        Err(code) => code.clone(),
        Ok(text) if text.is_empty() => "nothing".into(),
        Ok(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) => shape_of(&value, ""),
            // bitcoin-cli prints texts bare.
            Err(_) => "text".into(),
        },
    }
}

fn shape_of(value: &Value, key: &str) -> String {
    match value {
        Value::Array(_) if LISTS.contains(&key) => "list".into(),
        Value::Array(items) => {
            let shapes: BTreeSet<String> = items.iter().map(|item| shape_of(item, "")).collect();
            format!("[{}]", shapes.into_iter().collect::<Vec<_>>().join(" or "))
        }
        Value::Object(members) if MAPS.contains(&key) => {
            let shapes: BTreeSet<String> = members.values().map(|value| shape_of(value, "")).collect();
            format!("map of {shapes:?}")
        }
        Value::Object(members) => {
            let members = members.iter().filter(|(key, _)| !SOMETIMES.contains(&key.as_str()));
            let shapes: BTreeMap<&String, String> = members.map(|(key, value)| (key, shape_of(value, key))).collect();
            let shapes: Vec<String> = shapes.into_iter().map(|(key, shape)| format!("{key}: {shape}")).collect();
            format!("{{{}}}", shapes.join(", "))
        }
        value => kind_of(value).into(),
    }
}

/// The name of a call's method.
fn method(call: &str) -> &str {
    call.trim_start_matches("-named ").split(' ').next().unwrap_or_default()
}

/// Reads an output with the types that Rust programs read bitcoind's with, where they have one.
fn typed(call: &str, text: &str) -> Result<(), serde_json::Error> {
    macro_rules! read {
        ($($call:literal => $type:ident,)*) => {
            match call {
                $($call => serde_json::from_str::<v31::$type>(text).map(drop),)*
                _ => Ok(()),
            }
        };
    }
    read! {
        "getrpcinfo" => GetRpcInfo,
        "getmemoryinfo" => GetMemoryInfoStats,
        "getblock {tip}" => GetBlockVerboseOne,
        "getblock {tip} 2" => GetBlockVerboseTwo,
        "getblock {tip} 3" => GetBlockVerboseThree,
        "getblockchaininfo" => GetBlockchainInfo,
        "getblockcount" => GetBlockCount,
        "getblockheader {tip}" => GetBlockHeaderVerbose,
        "getblockstats 1" => GetBlockStats,
        "getchainstates" => GetChainStates,
        "getchaintips" => GetChainTips,
        "getchaintxstats" => GetChainTxStats,
        "getdeploymentinfo" => GetDeploymentInfo,
        "getdifficulty" => GetDifficulty,
        "gettxout {coin} 0" => GetTxOut,
        "gettxoutsetinfo" => GetTxOutSetInfo,
        "gettxoutsetinfo muhash" => GetTxOutSetInfo,
        "verifytxoutproof {proof}" => VerifyTxOutProof,
        "waitfornewblock 10" => WaitForNewBlock,
        "waitforblock {tip}" => WaitForBlock,
        "waitforblockheight 1 10" => WaitForBlockHeight,
        "dumptxoutset {folder}/coins latest" => DumpTxOutSet,
        "decoderawtransaction {raw}" => DecodeRawTransaction,
        "testmempoolaccept [\"{raw}\"]" => TestMempoolAccept,
        "submitpackage [\"{raw}\"]" => SubmitPackage,
        "getrawtransaction {txid} 1" => GetRawTransactionVerbose,
        "getmempoolinfo" => GetMempoolInfo,
        "getmempoolentry {txid}" => GetMempoolEntry,
        "getrawmempool" => GetRawMempool,
        "getrawmempool true" => GetRawMempoolVerbose,
        "getrawmempool false true" => GetRawMempoolSequence,
        "getorphantxs 1" => GetOrphanTxsVerboseOne,
        "getprioritisedtransactions" => GetPrioritisedTransactions,
        "savemempool" => SaveMempool,
        "estimatesmartfee 6" => EstimateSmartFee,
        "getaddednodeinfo" => GetAddedNodeInfo,
        "getnettotals" => GetNetTotals,
        "getnetworkinfo" => GetNetworkInfo,
        "getpeerinfo" => GetPeerInfo,
        "getnodeaddresses" => GetNodeAddresses,
        "getaddrmaninfo" => GetAddrManInfo,
        "getrawaddrman" => GetRawAddrMan,
        "listbanned" => ListBanned,
        "getmininginfo" => GetMiningInfo,
        "getblocktemplate {\"rules\":[\"segwit\"]}" => GetBlockTemplate,
        "generateblock {address} []" => GenerateBlock,
    }
}

#[test]
fn bitcoin_cli_gets_outputs_of_one_shape_from_both() {
    let Some(peers) = peers() else { return };
    let options = ["-listen=1".into(), format!("-port={}", free_port())];
    let options: Vec<String> = options.into_iter().chain(INDEXES.iter().map(|one| one.to_string())).collect();
    let core = Bitcoind::start(&peers, &options);
    core.call("generatetodescriptor", json!([1, "raw(51024e73)"]));
    core.call("generatetodescriptor", json!([110, "raw(51)"]));
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    let mut node = Running::start(&groatd, &[INDEXES, &["--connect=0"]].concat());
    core.call("addnode", json!([node.peers.to_string(), "onetry"]));
    let words = words(&core);
    node.wait_for_tip(&words[0].1);
    let end = |folder: &Path, port| End { cli: peers.join("bitcoin-cli"), folder: folder.into(), port };
    let (ours, theirs) = (end(data.path(), node.rpc.address().port()), end(core.folder(), core.rpc().address().port()));
    wait_for_links(&ours, &theirs);

    let mut faults = Vec::new();
    for call in CALLS {
        let (output, model) = (ours.run(call, &words), theirs.run(call, &words));
        let (left, right) = (shape(&output), shape(&model));
        if left != right && !OWN_WAY.contains(call) {
            faults.push(format!("bitcoin-cli {call}\n  groatd:   {left}\n  bitcoind: {right}"));
        }
        // Some of these types are behind bitcoind themselves.
        let read = |output: Result<String, String>| output.map_or(Ok(()), |text| typed(call, &text));
        if let (Err(error), Ok(())) = (read(output), read(model)) {
            faults.push(format!("bitcoin-cli {call}: corepc-types cannot read groatd's output: {error}"));
        }
    }
    assert!(faults.is_empty(), "{} of {} calls:\n{}\n{}", faults.len(), CALLS.len(), faults.join("\n"), repeat());
    node.ended();
}

/// Waits until both are done with the handshake and the first ping.
fn wait_for_links(ours: &End, theirs: &End) {
    let begun = Instant::now();
    let is_linked = |end: &End| {
        let peers = end.run("getpeerinfo", &[]).unwrap_or_default();
        let peers: Value = serde_json::from_str(&peers).unwrap_or_default();
        peers[0]["version"].as_u64() > Some(0) && peers[0]["bytesrecv_per_msg"]["pong"].is_u64()
    };
    while !(is_linked(ours) && is_linked(theirs)) {
        assert!(begun.elapsed() < PATIENCE, "the two are not linked; {}", repeat());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_method_of_groatd_is_in_the_script() {
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    let node = Running::start(&groatd, &["--connect=0"]);
    let help = node.rpc.call("help", json!([])).unwrap();
    let called: BTreeSet<&str> = CALLS.iter().map(|call| method(call)).chain(OWN.iter().copied()).collect();
    let lines = help.as_str().unwrap().lines().filter(|line| !line.is_empty() && !line.starts_with("=="));
    let left: Vec<&str> =
        lines.map(|line| line.split(' ').next().unwrap()).filter(|name| !called.contains(name)).collect();
    assert!(left.is_empty(), "methods that no call of CALLS tries: {left:?}; {}", repeat());
    node.stop();
}
