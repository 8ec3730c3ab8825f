//! The methods about the chain and the stored state, asked of groatd and of bitcoind on one chain: the same keys, types and,
//! where nothing but the chain decides, the same values; the same errors for bad arguments.

use std::path::Path;
use std::time::{Duration, Instant};

use groat_chain::ledger::PRUNE_TARGET_MANUAL;
use groat_chain::mempool::Policy;
use groat_chain::store::mem::MemStore;
use groat_tests::bitcoind::{Bitcoind, Rpc, free_port, peers};
use groat_tests::groatd::{Groatd, repeat};
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

use crate::rpc::{Groat, Pair, pair};

/// Mines blocks at bitcoind and gives them to groatd.
fn extend(pair: &Pair, count: u32) {
    let hashes = pair.core.call("generatetodescriptor", json!([count, "raw(51)"]));
    for hash in hashes.as_array().unwrap() {
        let block = pair.core.call("getblock", json!([hash, 0]));
        assert_eq!(pair.groat.call("submitblock", json!([block])), Value::Null, "groatd refuses block {hash}");
    }
}

/// The ends of all branches, by hash: bitcoind has those of one height in any order.
fn same_tips(pair: &Pair) {
    let tips = |rpc: &Rpc| {
        let mut tips = rpc.call("getchaintips", json!([])).unwrap().as_array().unwrap().clone();
        tips.sort_by_key(|tip| tip["hash"].to_string());
        tips
    };
    let (ours, theirs) = (tips(&pair.groat.rpc), tips(pair.core.rpc()));
    assert_eq!(ours, theirs, "getchaintips: groatd (left) and bitcoind (right); {}", repeat());
}

fn height(pair: &Pair) -> u64 {
    pair.core.call("getblockcount", json!([])).as_u64().unwrap()
}

#[test]
fn deployments_are_those_of_bitcoind_from_defined_to_active() {
    let Some(peers) = peers() else { return };
    let pair = Pair { core: Bitcoind::start(&peers, &[]), groat: Groat::start() };
    // Periods of 144 blocks: each state, and the blocks before and after a change of it.
    let mut at = 0;
    for until in [0, 1, 142, 143, 144, 145, 200, 286, 287, 288, 289, 430, 431, 432, 433] {
        extend(&pair, until - at);
        at = until;
        pair.same("getdeploymentinfo", json!([]), &[]);
        pair.same("getblockchaininfo", json!([]), &["/verificationprogress", "/size_on_disk", "/warnings"]);
    }
    let status = |hash: &Value| {
        pair.same("getdeploymentinfo", json!([hash]), &[]);
        let info = pair.core.call("getdeploymentinfo", json!([hash]));
        info["deployments"]["testdummy"]["bip9"]["status"].as_str().unwrap().to_string()
    };
    let states = [0, 143, 144, 287, 288, 431, 432].map(|at| status(&pair.core.call("getblockhash", json!([at]))));
    assert_eq!(states, ["defined", "defined", "started", "started", "locked_in", "locked_in", "active"]);
    for params in [json!(["ab"]), json!(["ab".repeat(32)]), json!([1]), json!([null, 1])] {
        pair.same_error("getdeploymentinfo", params);
    }
}

#[test]
fn figures_of_blocks_and_of_the_chain_are_those_of_bitcoind() {
    let Some(peers) = peers() else { return };
    let pair = pair(&peers);
    let tip = height(&pair);
    let hash = |height| pair.core.call("getblockhash", json!([height]));
    for height in [0, 1, 2, 20, tip - 1, tip] {
        pair.same("getblockstats", json!([height]), &[]);
        pair.same("getblockstats", json!([hash(height)]), &[]);
    }
    let all = pair.core.call("getblockstats", json!([tip]));
    for (name, value) in all.as_object().unwrap() {
        assert!(
            name == "blockhash" || pair.groat.call("getblockstats", json!([tip, [name]]))[name] == *value,
            "{name}"
        );
        pair.same("getblockstats", json!([tip, [name]]), &[]);
    }
    pair.same("getblockstats", json!([tip, ["txs", "avgfee", "txs"]]), &[]);
    pair.same("getblockstats", json!([tip, []]), &[]);
    for params in [json!([]), json!([0]), json!([1]), json!([50]), json!([tip - 1]), json!([10, hash(20)])] {
        pair.same("getchaintxstats", params, &[]);
    }
    pair.same("getchaintxstats", json!([null, hash(0)]), &[]);
    pair.same("getchaintxstats", json!([null, hash(1)]), &[]);
    pair.same("getchaintips", json!([]), &[]);
    let free = ["verificationprogress", "coins_db_cache_bytes", "coins_tip_cache_bytes"];
    let free = free.map(|key| format!("/chainstates/0/{key}"));
    pair.same("getchainstates", json!([]), &free.each_ref().map(String::as_str));
    let unknown = "ab".repeat(32);
    for (method, params) in [
        ("getblockstats", json!([])),
        ("getblockstats", json!([tip + 1])),
        ("getblockstats", json!([-1])),
        ("getblockstats", json!([3_000_000_000_u64])),
        ("getblockstats", json!([0.5])),
        ("getblockstats", json!(["ab"])),
        ("getblockstats", json!([unknown])),
        ("getblockstats", json!([true])),
        ("getblockstats", json!([0, "txs"])),
        ("getblockstats", json!([0, ["nonsense"]])),
        ("getblockstats", json!([0, [1]])),
        ("getblockstats", json!([1, ["txs", "aaa"]])),
        ("getchaintxstats", json!([-1])),
        ("getchaintxstats", json!([tip])),
        ("getchaintxstats", json!(["1"])),
        ("getchaintxstats", json!([1, "ab"])),
        ("getchaintxstats", json!([1, unknown])),
    ] {
        pair.same_error(method, params);
    }
}

#[test]
fn proofs_are_those_of_bitcoind() {
    let Some(peers) = peers() else { return };
    let pair = pair(&peers);
    let tip = pair.core.call("getbestblockhash", json!([]));
    let last = pair.core.call("getblock", json!([tip]));
    let txids = last["tx"].as_array().unwrap();
    let first = pair.core.call("getblock", json!([pair.core.call("getblockhash", json!([2]))]));
    for (txids, hash) in [
        (json!([txids[0]]), json!(tip)),
        (json!([txids[3]]), json!(tip)),
        (json!([txids[1], txids[2]]), json!(tip)),
        (json!(txids), json!(tip)),
        (json!([txids[0]]), Value::Null),
        (json!([txids[1], txids[3]]), Value::Null),
        (json!([first["tx"][0]]), Value::Null),
    ] {
        let params = if hash.is_null() { json!([txids]) } else { json!([txids, hash]) };
        pair.same("gettxoutproof", params.clone(), &[]);
        let proof = pair.core.call("gettxoutproof", params);
        pair.same("verifytxoutproof", json!([proof]), &[]);
        let mut all = pair.groat.call("verifytxoutproof", json!([proof])).as_array().unwrap().clone();
        all.sort_by_key(Value::to_string);
        let mut wanted = txids.as_array().unwrap().clone();
        wanted.sort_by_key(Value::to_string);
        assert_eq!(all, wanted, "what the proof shows (left) and what was to be proven (right)");
        let proof = proof.as_str().unwrap();
        // Another number of transactions, another hash, another root, bytes after the end.
        let mut cases = vec![format!("{proof}00")];
        for at in [75, 161, 169, 180, proof.len() - 1] {
            let mut letters = proof.as_bytes().to_vec();
            letters[at] = if letters[at] == b'1' { b'2' } else { b'1' };
            cases.push(String::from_utf8(letters).unwrap());
        }
        for case in cases {
            let ask = |rpc: &Rpc| rpc.call("verifytxoutproof", json!([case])).map_err(|error| error.code);
            assert_eq!(ask(&pair.groat.rpc), ask(pair.core.rpc()), "{case}: groatd (left) and bitcoind (right)");
        }
    }
    // All its outputs are spent: without an index the block must be named.
    let spent = &first_spent(&pair);
    let unknown = "ab".repeat(32);
    for (method, params) in [
        ("gettxoutproof", json!([])),
        ("gettxoutproof", json!([[]])),
        ("gettxoutproof", json!(["ab"])),
        ("gettxoutproof", json!([["ab"]])),
        ("gettxoutproof", json!([[1]])),
        ("gettxoutproof", json!([[unknown, unknown]])),
        ("gettxoutproof", json!([[unknown]])),
        ("gettxoutproof", json!([[spent]])),
        ("gettxoutproof", json!([[unknown], tip])),
        ("gettxoutproof", json!([[txids[0]], unknown])),
        ("gettxoutproof", json!([[txids[0]], "ab"])),
        ("gettxoutproof", json!([[txids[0], first["tx"][0]]])),
        ("verifytxoutproof", json!([])),
        ("verifytxoutproof", json!(["zz"])),
        ("verifytxoutproof", json!(["0"])),
        ("verifytxoutproof", json!(["00"])),
    ] {
        pair.same_error(method, params);
    }
}

/// A transaction none of whose outputs is left.
fn first_spent(pair: &Pair) -> Value {
    let block = pair.core.call("getblock", json!([pair.core.call("getblockhash", json!([1]))]));
    block["tx"][0].clone()
}

#[test]
fn what_goes_on_inside_is_told_as_bitcoind_tells_it() {
    let Some(peers) = peers() else { return };
    let pair = pair(&peers);
    let free = ["used", "free", "total", "locked", "chunks_used", "chunks_free"].map(|key| format!("/locked/{key}"));
    pair.same("getmemoryinfo", json!([]), &free.each_ref().map(String::as_str));
    pair.same("getmemoryinfo", json!(["stats"]), &free.each_ref().map(String::as_str));
    pair.same("echoipc", json!(["text"]), &[]);
    pair.same("mockscheduler", json!([3600]), &[]);
    for verbosity in [Value::Null, json!(0), json!(1), json!(2)] {
        pair.same("getorphantxs", json!([verbosity]), &[]);
    }
    for (level, blocks) in [(0, 6), (1, 1), (2, 10), (3, 0), (4, 6), (4, 0), (9, 1_000_000), (-1, -1)] {
        pair.same("verifychain", json!([level, blocks]), &[]);
    }
    pair.same("verifychain", json!([]), &[]);
    let tip = pair.core.call("getbestblockhash", json!([]));
    let unknown = "ab".repeat(32);
    for (method, params) in [
        ("generate", json!([])),
        ("generate", json!([1])),
        ("getmemoryinfo", json!(["nonsense"])),
        ("getmemoryinfo", json!([1])),
        ("echoipc", json!([])),
        ("echoipc", json!([1])),
        ("mockscheduler", json!([])),
        ("mockscheduler", json!([0])),
        ("mockscheduler", json!([3601])),
        ("mockscheduler", json!([-1])),
        ("mockscheduler", json!(["1"])),
        ("getorphantxs", json!([3])),
        ("getorphantxs", json!([-1])),
        ("getorphantxs", json!([true])),
        ("getorphantxs", json!(["1"])),
        ("verifychain", json!(["1"])),
        ("verifychain", json!([1, 2, 3])),
        ("preciousblock", json!([])),
        ("preciousblock", json!(["ab"])),
        ("preciousblock", json!([unknown])),
        ("pruneblockchain", json!([])),
        ("pruneblockchain", json!([1])),
        ("getblockfrompeer", json!([])),
        ("getblockfrompeer", json!(["ab", 0])),
        ("getblockfrompeer", json!([unknown, "0"])),
        ("getblockfrompeer", json!([unknown, 0])),
        ("getblockfrompeer", json!([tip, 0])),
        ("waitforblock", json!([])),
        ("waitforblock", json!(["ab"])),
        ("waitforblock", json!([unknown, -1])),
        ("waitforblockheight", json!([])),
        ("waitforblockheight", json!(["1"])),
        ("waitforblockheight", json!([1, -1])),
        ("waitforblockheight", json!([3_000_000_000_u64])),
        ("waitfornewblock", json!([-1])),
        ("waitfornewblock", json!([1, "ab"])),
        ("waitfornewblock", json!(["1"])),
        ("dumptxoutset", json!([])),
        ("dumptxoutset", json!(["x"])),
        ("dumptxoutset", json!(["x", "nonsense"])),
        ("dumptxoutset", json!(["x", "latest", {"rollback": 1}])),
        ("dumptxoutset", json!(["x", "rollback", {"rollback": -1}])),
        ("dumptxoutset", json!(["x", "rollback", {"rollback": 100_000}])),
        ("dumptxoutset", json!(["x", "rollback", {"rollback": unknown}])),
        ("dumptxoutset", json!({"path": "x", "rollback": "ab"})),
        ("dumptxoutset", json!({"path": "x", "options": {}, "rollback": "ab"})),
        ("dumptxoutset", json!(["/nonexistent/x", "latest"])),
    ] {
        pair.same_error(method, params);
    }
}

#[test]
fn the_fees_that_the_operator_chose_are_shown() {
    let Some(peers) = peers() else { return };
    let core = Bitcoind::start(&peers, &["-minrelaytxfee=0.00003".into(), "-incrementalrelayfee=0.00002".into()]);
    let policy = Policy { min_relay_fee: 3000, incremental_relay_fee: 2000, ..Policy::default() };
    let pair = Pair { core, groat: Groat::with(policy) };
    pair.same("getnetworkinfo", json!([]), &["/version", "/subversion", "/warnings"]);
}

#[test]
fn a_precious_block_is_the_tip_of_both() {
    let Some(peers) = peers() else { return };
    let pair = Pair { core: Bitcoind::start(&peers, &[]), groat: Groat::start() };
    extend(&pair, 5);
    let make = |script: &str| pair.core.call("generateblock", json!([format!("raw({script})"), [], false]));
    let (one, other) = (make("51"), make("52"));
    for block in [&one, &other] {
        pair.core.rpc().call("submitblock", json!([block["hex"]])).unwrap();
        pair.groat.rpc.call("submitblock", json!([block["hex"]])).unwrap();
        pair.same("getbestblockhash", json!([]), &[]);
    }
    for block in [&other, &one, &one, &other, &one] {
        pair.same("preciousblock", json!([block["hash"]]), &[]);
        pair.same("getbestblockhash", json!([]), &[]);
        assert_eq!(pair.groat.call("getbestblockhash", json!([])), block["hash"], "{}", repeat());
        same_tips(&pair);
        pair.same("gettxoutsetinfo", json!(["muhash"]), &["/disk_size"]);
    }
    extend(&pair, 1);
    pair.same("preciousblock", json!([other["hash"]]), &[]);
    pair.same("getbestblockhash", json!([]), &[]);
    // A header without its block, a branch that was never connected, and an invalid one.
    let header = make("53")["hex"].as_str().unwrap()[..160].to_string();
    pair.same("submitheader", json!([header]), &[]);
    let (stale, invalid) = (pair.core.call("getblockhash", json!([5])), pair.core.call("getblockhash", json!([6])));
    same_tips(&pair);
    pair.same("invalidateblock", json!([invalid]), &[]);
    same_tips(&pair);
    pair.same("invalidateblock", json!([stale]), &[]);
    same_tips(&pair);
    pair.same("reconsiderblock", json!([stale]), &[]);
    same_tips(&pair);
}

/// Who takes one child of an invalid block back takes back its ancestors and descendants, and no sibling.
#[test]
fn what_a_reconsidered_block_takes_with_it_is_what_it_takes_with_bitcoind() {
    let Some(peers) = peers() else { return };
    let pair = Pair { core: Bitcoind::start(&peers, &[]), groat: Groat::start() };
    extend(&pair, 3);
    let make = |script: &str| pair.core.call("generateblock", json!([format!("raw({script})"), [], false]));
    let give = |block: &Value| {
        pair.core.rpc().call("submitblock", json!([block["hex"]])).unwrap();
        pair.groat.rpc.call("submitblock", json!([block["hex"]])).unwrap();
        pair.same("getbestblockhash", json!([]), &[]);
        block["hash"].clone()
    };
    // Parent 4, its children 5a and 5b, and 6 on 5a with a sibling.
    let parent = give(&make("51"));
    let (one, other) = (make("51"), make("52"));
    let (one, other) = (give(&one), give(&other));
    let (first, second) = (make("51"), make("52"));
    let (first, second) = (give(&first), give(&second));
    for (method, block) in [
        ("invalidateblock", &parent),
        ("reconsiderblock", &other),
        ("reconsiderblock", &second),
        ("reconsiderblock", &first),
        ("invalidateblock", &one),
        ("invalidateblock", &parent),
        ("reconsiderblock", &one),
        ("invalidateblock", &parent),
        ("reconsiderblock", &first),
        ("reconsiderblock", &parent),
    ] {
        pair.same(method, json!([block]), &[]);
        pair.same("getbestblockhash", json!([]), &[]);
        same_tips(&pair);
    }
}

#[test]
fn a_snapshot_of_the_coins_is_the_file_that_bitcoind_writes() {
    let Some(peers) = peers() else { return };
    let pair = pair(&peers);
    extend(&pair, 3);
    let tip = height(&pair);
    let file = |folder: &Path, name: &str| std::fs::read(folder.join("regtest").join(name)).unwrap();
    let compare = |name: &str, params: Value| {
        pair.same("dumptxoutset", params.clone(), &["/path"]);
        let (ours, theirs) = (file(pair.groat.folder.path(), name), file(pair.core.folder(), name));
        assert!(ours == theirs, "dumptxoutset {params}: the files differ; {}", repeat());
        assert!(ours.len() > 51, "{} bytes", ours.len());
        pair.groat.rpc.call("dumptxoutset", params.clone()).expect_err("the file is there already");
    };
    compare("latest", json!(["latest", "latest"]));
    // Below the block with the spends, above it, and the tip itself.
    for back in [0, 2, 3, 4, 30] {
        let name = format!("back{back}");
        compare(&name, json!([name, "rollback", {"rollback": tip - back}]));
    }
    let hash = pair.core.call("getblockhash", json!([tip - 4]));
    compare("named", json!({"path": "named", "rollback": hash}));
    compare("first", json!({"args": ["first"], "rollback": 1}));
    assert!(!pair.groat.folder.path().join("regtest/latest.incomplete").exists());
    pair.same("getbestblockhash", json!([]), &[]);
    pair.same("gettxoutsetinfo", json!([]), &["/disk_size"]);
    let refused = pair.groat.rpc.call("dumptxoutset", json!(["x", "rollback"])).expect_err("no height is named");
    assert!(refused.message.contains("rollback"), "{}", refused.message);
}

#[test]
fn many_calls_wait_for_a_block_and_others_are_answered_meanwhile() {
    let Some(peers) = peers() else { return };
    let pair = pair(&peers);
    let tip = pair.core.call("getbestblockhash", json!([]));
    let (unknown, height) = ("ab".repeat(32), height(&pair));
    // What is there already, and what does not come in time.
    for (method, params) in [
        ("waitforblock", json!([tip])),
        ("waitforblock", json!([tip, 10])),
        ("waitforblock", json!([unknown, 10])),
        ("waitforblockheight", json!([height])),
        ("waitforblockheight", json!([-5])),
        ("waitforblockheight", json!([height + 1, 10])),
        ("waitfornewblock", json!([10])),
        ("waitfornewblock", json!([0, unknown])),
        ("waitfornewblock", json!([10, tip])),
    ] {
        pair.same(method, params, &[]);
    }
    let next = json!({"hash": "", "height": height + 1});
    let waiting = [
        ("waitfornewblock", json!([])),
        ("waitfornewblock", json!([60_000])),
        ("waitforblockheight", json!([height + 1])),
        ("waitfornewblock", json!({"current_tip": tip})),
    ];
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..40)
            .map(|number| {
                let (method, params) = waiting[number % waiting.len()].clone();
                let rpc = Rpc::with_authorization_of(&pair.groat.rpc);
                scope.spawn(move || rpc.call(method, params).unwrap())
            })
            .collect();
        // One that comes after the block would wait for the next one.
        let come = || pair.groat.call("getrpcinfo", json!([]))["active_commands"].as_array().unwrap().len();
        let begun = Instant::now();
        while come() < 41 {
            assert!(begun.elapsed() < PATIENCE, "{} calls of 40 wait; {}", come() - 1, repeat());
            std::thread::sleep(Duration::from_millis(20));
        }
        let begun = Instant::now();
        assert_eq!(pair.groat.call("getblockcount", json!([])), json!(height));
        assert!(begun.elapsed() < Duration::from_secs(5), "another call waited {:?}; {}", begun.elapsed(), repeat());
        assert!(calls.iter().all(|call| !call.is_finished()), "a call did not wait; {}", repeat());
        extend(&pair, 1);
        for call in calls {
            let mut found = call.join().unwrap();
            found["hash"] = json!("");
            assert_eq!(found, next, "{}", repeat());
        }
    });
    let hash = pair.core.call("getbestblockhash", json!([]));
    assert_eq!(pair.groat.call("waitforblock", json!([hash])), json!({"hash": hash, "height": height + 1}));
}

#[test]
fn blocks_are_pruned_by_the_operators_word() {
    let Some(peers) = peers() else { return };
    const FILE: u32 = 65_536;
    let core = Bitcoind::start(&peers, &["-prune=1".into(), "-fastprune=1".into()]);
    let groat = Groat::over("regtest", MemStore::with_file_size(FILE), Policy::default(), Some(PRUNE_TARGET_MANUAL));
    let pair = Pair { core, groat };
    let free = ["/verificationprogress", "/size_on_disk", "/warnings"];
    pair.same("getblockchaininfo", json!([]), &free);
    pair.same_error("pruneblockchain", json!([1]));
    extend(&pair, 1100);
    for params in [json!([-1]), json!([1101]), json!(["1"]), json!([2_000_000_000]), json!([3_000_000_000_u64])] {
        pair.same_error("pruneblockchain", params);
    }
    pair.same("getblockchaininfo", json!([]), &free);
    let prune = |at: Value| pair.groat.call("pruneblockchain", json!([at])).as_i64().unwrap();
    // A file holds about 250 of these blocks.
    assert_eq!(prune(json!(10)), -1, "no file ends so low; {}", repeat());
    for at in [json!(400), json!(1100)] {
        let (ours, theirs) = (prune(at.clone()), pair.core.call("pruneblockchain", json!([at])).as_i64().unwrap());
        assert!((ours - theirs).abs() < 5 && ours > 200, "pruned up to {ours}, bitcoind up to {theirs}; {}", repeat());
        let info = pair.groat.call("getblockchaininfo", json!([]));
        assert_eq!(info["pruneheight"], json!(ours + 1));
        for (height, stored) in [(ours - 1, false), (ours, false), (ours + 1, true), (1100, true)] {
            let hash = pair.groat.call("getblockhash", json!([height]));
            assert_eq!(pair.groat.rpc.call("getblock", json!([hash])).is_ok(), stored, "height {height}");
        }
    }
    pair.same("getblockchaininfo", json!([]), &[&free[..], &["/pruneheight"]].concat());
    let pruned = pair.groat.call("getblockhash", json!([5]));
    for (method, params) in [
        ("getblock", json!([pruned])),
        ("getblockstats", json!([pruned])),
        ("getblockfrompeer", json!([pruned, 0])),
        ("gettxoutproof", json!([["ab".repeat(32)], pruned])),
        ("dumptxoutset", json!(["x", "rollback", {"rollback": 5}])),
    ] {
        pair.same_error(method, params);
    }
    pair.same("verifychain", json!([3, 0]), &[]);
    pair.same("verifychain", json!([3, 10]), &[]);
    // By time: two hours and more before it.
    let time =
        pair.groat.call("getblockheader", json!([pair.groat.call("getbestblockhash", json!([]))]))["time"].clone();
    assert!(prune(json!(time.as_u64().unwrap() + 7200)) > 200, "{}", repeat());
}

#[test]
fn a_block_is_fetched_from_the_peer_that_the_operator_names() {
    let Some(peers) = peers() else { return };
    let core = Bitcoind::start(&peers, &["-listen=1".into(), format!("-port={}", free_port())]);
    let data = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", data.path());
    let node = Running::start(&groatd, &["--connect=0"]);
    let ours = |method: &str, params: Value| node.rpc.call(method, params).unwrap();
    // A branch that only bitcoind has, of less work than the one that both have.
    let stale = core.call("generatetodescriptor", json!([1, "raw(51)"]))[0].clone();
    let header = core.call("getblockheader", json!([stale, false]));
    core.call("invalidateblock", json!([stale]));
    let best = core.call("generatetodescriptor", json!([3, "raw(52)"]))[2].clone();
    core.call("reconsiderblock", json!([stale]));
    core.call("addnode", json!([node.peers.to_string(), "onetry"]));
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "{what}; {}", repeat());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait("groatd does not follow", &|| ours("getbestblockhash", json!([])) == best);
    let id = ours("getpeerinfo", json!([]))[0]["id"].clone();
    let refused = |params: Value, text: &str| {
        let error = node.rpc.call("getblockfrompeer", params.clone()).expect_err(&params.to_string());
        assert_eq!((error.code, error.message.as_str()), (-1, text), "{params}; {}", repeat());
    };
    refused(json!([stale, id]), "Block header missing");
    ours("submitheader", json!([header]));
    refused(json!([stale, 77]), "Peer does not exist");
    refused(json!([best, id]), "Block already downloaded");
    assert_eq!(ours("getchaintips", json!([]))[1]["status"], json!("headers-only"));
    assert_eq!(ours("getblockfrompeer", json!([stale, id])), json!({}));
    wait("the block does not come", &|| node.rpc.call("getblock", json!([stale, 0])).is_ok());
    assert_eq!(ours("getchaintips", json!([]))[1]["status"], json!("valid-headers"));
    refused(json!([stale, id]), "Block already downloaded");
    assert_eq!(ours("getblock", json!([stale, 0])), core.call("getblock", json!([stale, 0])));
}
