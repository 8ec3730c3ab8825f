//! The optional indexes: what bitcoind with all of them says of every block and transaction, groatd says too, with indexes
//! from the start and with such as were switched on later; a kill leaves them whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::p2p::message_filter::{GetCFCheckpt, GetCFHeaders, GetCFilters};
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, TxOut, Txid};
use groat_chain::block::Block;
use groat_chain::coins::Coin;
use groat_chain::index::filters::{self, basic_filter};
use groat_chain::index::{Index, coinstats, transactions};
use groat_chain::ledger::{Ledger, Options};
use groat_chain::params::Params;
use groat_chain::pool::Pool;
use groat_chain::store::Store;
use groat_chain::store::rocks::RocksStore;
use groat_net::message::Message;
use groat_tests::bitcoind::{Bitcoind, Rpc, peers};
use groat_tests::chaingen::{block_files, coins};
use groat_tests::data::core_vectors;
use groat_tests::groatd::{Groatd, Said, repeat};
use groat_tests::peer::Peer;
use groat_tests::regtest::{MAGIC, transaction, unsigned};
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

/// All indexes, as both nodes take them.
const ALL: [&str; 4] = ["-txindex", "-txospenderindex", "-blockfilterindex=basic", "-coinstatsindex"];

#[test]
fn the_vectors_of_bip158_give_the_filters() {
    let vectors = core_vectors("blockfilters.json");
    let vectors = vectors.as_array().expect("a list");
    for vector in &vectors[1..] {
        let text = |at: usize| vector[at].as_str().expect("text");
        let block = Block::decode(&hex(text(2))).expect("a block");
        let spent: Vec<Coin> = vector[3].as_array().expect("a list").iter().map(coin).collect();
        let filter = basic_filter(&block, &spent);
        assert_eq!(filter, hex(text(5)), "block {} ({}); {}", vector[0], text(7), repeat());
    }
    assert!(vectors.len() > 9, "there are ten vectors");
}

fn hex(text: &str) -> Vec<u8> {
    bitcoin::hex::FromHex::from_hex(text).expect("hex")
}

fn coin(script: &Value) -> Coin {
    Coin::from_parts(1, &hex(script.as_str().expect("text")), 1, false)
}

/// A bitcoind with all indexes and a chain with payments, money that is lost, and a branch that was left.
struct World {
    core: Bitcoind,
    /// Blocks of the branch that was left, then of the active chain, in the order in which they were found.
    found: Vec<String>,
    transactions: Vec<String>,
}

impl World {
    fn new(peers: &Path) -> World {
        let options: Vec<String> = ALL.map(String::from).to_vec();
        let core = Bitcoind::start(peers, &options);
        core.call("generatetodescriptor", json!([103, "raw(51)"]));
        let coinbase = |height: u32| -> Txid {
            let hash = core.call("getblockhash", json!([height]));
            let block = core.call("getblock", json!([hash]));
            block["tx"][0].as_str().expect("an id").parse().expect("an id")
        };
        // generateblock claims no fees: they are lost, and so is what nobody can spend.
        let output = |value, script: &[u8]| TxOut {
            value: Amount::from_sat(value),
            script_pubkey: ScriptBuf::from_bytes(script.to_vec()),
        };
        let first = transaction(
            vec![unsigned(OutPoint::new(coinbase(1), 0))],
            vec![output(1_000_000_000, &[0x51]), output(500_000_000, &[0x6a, 1, 7]), output(2_000_000_000, &[0x52])],
        );
        let second =
            transaction(vec![unsigned(OutPoint::new(first.compute_txid(), 0))], vec![output(999_000_000, &[0x53])]);
        let third = transaction(
            vec![unsigned(OutPoint::new(coinbase(2), 0)), unsigned(OutPoint::new(first.compute_txid(), 2))],
            vec![output(6_000_000_000, &[])],
        );
        core.call("generateblock", json!(["raw(51)", [serialize_hex(&first), serialize_hex(&second)]]));
        core.call("generateblock", json!(["raw(54)", [serialize_hex(&third)]]));
        core.call("generatetodescriptor", json!([3, "raw(55)"]));
        let mut found = chain(core.rpc());
        let left = core.call("getblockhash", json!([105]));
        core.call("invalidateblock", json!([left]));
        // Mined anew: in another block than on the branch that was left.
        core.call("generatetodescriptor", json!([1, "raw(56)"]));
        core.call("generateblock", json!(["raw(57)", [serialize_hex(&third)]]));
        core.call("generatetodescriptor", json!([4, "raw(58)"]));
        core.call("reconsiderblock", json!([left]));
        found.extend(chain(core.rpc()).into_iter().skip(105));
        wait_until_synced(core.rpc());
        let transactions = [first, second, third].map(|made| made.compute_txid().to_string());
        let coinbases = [1, 105, 110].map(|height| coinbase(height).to_string());
        let transactions = transactions.into_iter().chain(coinbases).collect();
        World { core, found, transactions }
    }

    /// Hands a node the blocks in the order in which they were found.
    fn feed(&self, groat: &Rpc) {
        for hash in &self.found[1..] {
            let block = self.core.call("getblock", json!([hash, 0]));
            // A block of a branch is inconclusive until its branch is the best.
            groat.call("submitblock", json!([block])).expect("a block can be handed in");
        }
        assert_eq!(chain(groat).last(), chain(self.core.rpc()).last(), "one tip; {}", repeat());
    }

    /// Asks both nodes everything; the answers must be the same to the last digit.
    fn compare(&self, groat: &Rpc, case: &str) {
        let core = self.core.rpc();
        let ask = |method: &str, params: Value| {
            let (ours, theirs) = (groat.call(method, params.clone()), core.call(method, params.clone()));
            assert_eq!(ours, theirs, "{case}: {method} {params} by groatd (left) and bitcoind (right); {}", repeat());
            ours.is_ok()
        };
        let mut said = 0;
        for (number, hash) in self.found.iter().enumerate() {
            said += usize::from(ask("getblockfilter", json!([hash, "basic"])));
            if !(3..100).contains(&number) {
                said += usize::from(ask("gettxoutsetinfo", json!(["muhash", hash])));
            }
        }
        for height in [0, 1, 50, 104, 105, 110, 111, -1] {
            ask("gettxoutsetinfo", json!(["none", height]));
        }
        ask("gettxoutsetinfo", json!(["muhash"]));
        ask("gettxoutsetinfo", json!(["hash_serialized_3", 5]));
        ask("gettxoutsetinfo", json!(["muhash", 5, false]));
        ask("gettxoutsetinfo", json!(["muhash", "00".repeat(32)]));
        for txid in &self.transactions {
            for verbosity in 0..3 {
                said += usize::from(ask("getrawtransaction", json!([txid, verbosity])));
            }
        }
        for (txid, vout) in self.transactions.iter().flat_map(|txid| [(txid, 0), (txid, 2)]) {
            for options in [json!({}), json!({"return_spending_tx": true}), json!({"mempool_only": true})] {
                said += usize::from(ask("gettxspendingprevout", json!([[{"txid": txid, "vout": vout}], options])));
            }
        }
        for scripts in [json!(["raw(51)"]), json!(["raw(52)", "raw(53)"]), json!(["raw(59)"]), json!([])] {
            for certain in [false, true] {
                let options = json!({"filter_false_positives": certain});
                said += usize::from(ask("scanblocks", json!(["start", scripts, 0, 109, "basic", options])));
            }
            let scan = json!(["start", scripts, 100]);
            said += usize::from(ask("scanblocks", scan.clone()));
            let blocks = core.call("scanblocks", scan).expect("a scan")["relevant_blocks"].clone();
            said += usize::from(ask("getdescriptoractivity", json!([blocks, scripts])));
        }
        for wrong in [
            json!(["start"]),
            json!(["start", ["nonsense"]]),
            json!(["start", [], 1000]),
            json!(["start", [], -1]),
            json!(["start", [], 5, 4]),
            json!(["start", [], 5, 1000]),
            json!(["start", [], 5, 5, "other"]),
            json!(["start", [], 5, 5, "basic", {"filter_false_positives": 1}]),
            json!(["status"]),
            json!(["abort"]),
            json!(["nonsense"]),
        ] {
            ask("scanblocks", wrong);
        }
        for txid in &self.transactions {
            said += usize::from(ask("gettxoutproof", json!([[txid]])));
        }
        ask("getrawtransaction", json!(["11".repeat(32)]));
        ask("getblockfilter", json!([self.found[1], "other"]));
        ask("getblockfilter", json!(["11".repeat(32)]));
        for name in [json!([]), json!(["txindex"]), json!(["basic block filter index"]), json!(["coinstats"])] {
            ask("getindexinfo", name);
        }
        assert!(said > 140 + 4 * self.transactions.len(), "{case}: only {said} answers were no errors; {}", repeat());
    }
}

/// Hashes of the active chain by height.
fn chain(rpc: &Rpc) -> Vec<String> {
    let height = rpc.call("getblockcount", json!([])).expect("a height").as_u64().expect("a number");
    let hash = |height| rpc.call("getblockhash", json!([height])).expect("a hash").as_str().expect("text").to_owned();
    (0..=height).map(hash).collect()
}

fn wait_until_synced(rpc: &Rpc) {
    let begun = Instant::now();
    let height = rpc.call("getblockcount", json!([])).expect("a height");
    let done = |info: &Value| {
        let all = info.as_object().expect("an object").values();
        all.clone().count() == ALL.len()
            && all.clone().all(|one| one["synced"] == true && one["best_block_height"] == height)
    };
    loop {
        let info = rpc.call("getindexinfo", json!([])).expect("an answer");
        if done(&info) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "the indexes are not synced in {PATIENCE:?}: {info}; {}", repeat());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn both_nodes_say_the_same_by_their_indexes() {
    let Some(peers) = peers() else { return };
    let world = World::new(&peers);
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path());
    let options = [&ALL[..], &["-peerblockfilters"]].concat();
    let node = Running::start(&groatd, &options);
    world.feed(&node.rpc);
    world.compare(&node.rpc, "with indexes from the start");
    filters_are_served(&world, &node);
    node.stop();

    // Switched off for some blocks, then on again.
    let node = Running::start(&groatd, &[]);
    assert_eq!(node.rpc.call("getindexinfo", json!([])), Ok(json!({})), "no index is on");
    for (method, params) in [
        ("getrawtransaction", json!([world.transactions[0]])),
        ("getblockfilter", json!([world.found[1]])),
        ("gettxoutsetinfo", json!(["none", 1])),
    ] {
        let error = node.rpc.call(method, params).expect_err("the index is off").message;
        let expected = [
            "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain transaction \
             queries. Use gettransaction for wallet transactions.",
            "Index is not enabled for filtertype basic",
            "Querying specific block heights requires coinstatsindex",
        ];
        assert!(expected.contains(&error.as_str()), "{method}: {error}");
    }
    node.stop();
    let node = Running::start(&groatd, &ALL);
    wait_until_synced(&node.rpc);
    world.compare(&node.rpc, "switched off and on");
    node.stop();

    // A node that had none catches up.
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path());
    let node = Running::start(&groatd, &[]);
    world.feed(&node.rpc);
    node.stop();
    let node = Running::start(&groatd, &ALL);
    wait_until_synced(&node.rpc);
    let mut kept = World { found: chain(world.core.rpc()), ..world };
    kept.compare(&node.rpc, "switched on later");
    // And keeps in step from then on.
    let mined = kept.core.call("generatetodescriptor", json!([2, "raw(51)"]));
    for hash in mined.as_array().expect("a list") {
        kept.found.push(hash.as_str().expect("text").into());
        let block = kept.core.call("getblock", json!([hash, 0]));
        assert_eq!(node.rpc.call("submitblock", json!([block])), Ok(Value::Null));
    }
    wait_until_synced(kept.core.rpc());
    kept.compare(&node.rpc, "in step after that");
    node.stop();
}

/// A light client hears what bitcoind says of the filters.
fn filters_are_served(world: &World, node: &Running) {
    let mut peer = Peer::ready(node.peers).expect("a link");
    let hashes = chain(world.core.rpc());
    let stop: BlockHash = hashes[110].parse().expect("a hash");
    let told = |height: usize| world.core.call("getblockfilter", json!([hashes[height]]));
    peer.send(&Message::GetCFilters(GetCFilters { filter_type: 0, start_height: 101, stop_hash: stop })).expect("sent");
    let heard = peer.fence().expect("served");
    let heard: Vec<_> = heard
        .into_iter()
        .filter_map(|message| if let Message::CFilter(filter) = message { Some(filter) } else { None })
        .collect();
    assert_eq!(heard.len(), 10, "filters 101 to 110; {}", repeat());
    for (filter, height) in heard.iter().zip(101..) {
        assert_eq!(filter.block_hash.to_string(), hashes[height]);
        assert_eq!(filter.filter, hex(told(height)["filter"].as_str().expect("hex")), "filter {height}");
    }
    peer.send(&Message::GetCFHeaders(GetCFHeaders { filter_type: 0, start_height: 7, stop_hash: stop })).expect("sent");
    let headers = peer.wait_for(|message| matches!(message, Message::CFHeaders(_))).expect("served");
    let Message::CFHeaders(headers) = headers else { unreachable!("it was waited for") };
    assert_eq!(headers.previous_filter_header.to_string(), told(6)["header"].as_str().expect("hex"));
    let last =
        headers.filter_hashes.iter().fold(headers.previous_filter_header, |header, hash| hash.filter_header(&header));
    assert_eq!(last.to_string(), told(110)["header"].as_str().expect("hex"), "the chain of filter headers");
    peer.send(&Message::GetCFCheckpt(GetCFCheckpt { filter_type: 0, stop_hash: stop })).expect("sent");
    let points = peer.wait_for(|message| matches!(message, Message::CFCheckpt(_))).expect("served");
    assert!(
        matches!(points, Message::CFCheckpt(points) if points.filter_headers.is_empty() && points.stop_hash == stop)
    );
    peer.send(&Message::GetCFilters(GetCFilters { filter_type: 9, start_height: 1, stop_hash: stop })).expect("sent");
    assert!(peer.is_closed(PATIENCE), "a type that is not served ends the link; {}", repeat());
}

#[test]
fn options_of_indexes_that_make_no_sense_end_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path());
    for (options, expected) in [
        (&["-peerblockfilters"][..], "Cannot set -peerblockfilters without -blockfilterindex."),
        (&["-blockfilterindex=abc"], "Unknown -blockfilterindex value abc."),
        (&["-prune=550", "-txindex"], "Prune mode is incompatible with -txindex."),
        (&["-prune=550", "-txospenderindex"], "Prune mode is incompatible with -txospenderindex."),
    ] {
        groatd.run(options).failed(&[expected]);
    }
}

/// What the stored indexes say of the tip: its filter header stands for all filters, its totals for all coins; and where
/// the transactions of every hundredth block are.
fn indexed(groatd: &Groatd) -> (u32, String, String, usize) {
    let store = RocksStore::open(&groatd.chain_folder(), MAGIC, 8 << 20, false).expect("the store opens");
    let (store, params) = (Arc::new(store), Arc::new(Params::by_name("regtest").expect("a network")));
    let options = Options { assumed_valid: None, table_bytes: 1 << 20, prune: None };
    let mut ledger = Ledger::open(params, store.clone(), Arc::new(Pool::new(0)), options).expect("the ledger opens");
    ledger.keep_indexes(&Index::ALL).expect("the indexes are there");
    let tree = ledger.tree();
    let states = ledger.indexes().read().clone();
    let (tip, hash, height) = {
        let tree = tree.read();
        (tree.tip(), tree.node(tree.tip()).hash, tree.node(tree.tip()).height)
    };
    assert!(states.iter().all(|state| state.tip == tip && state.synced), "{states:?} at {tip:?}; {}", repeat());
    let header = filters::headers(&*store, &[hash]).expect("readable")[0].expect("a header").header.to_string();
    let totals = coinstats::totals(&*store, &hash).expect("readable").expect("totals").hash().to_string();
    let mut found = 0;
    for height in (1..=height).rev().step_by(100) {
        let (id, pos) = {
            let tree = tree.read();
            let id = tree.active(height).expect("a height of the chain");
            (id, tree.node(id).block().expect("stored"))
        };
        for txid in Block::decode(&store.read_block(pos).expect("readable")).expect("a block").txids {
            let place = transactions::find(&*store, &tree, &txid).expect("readable");
            assert_eq!(place.map(|(block, _)| block), Some(id), "transaction {txid} at {height}; {}", repeat());
            found += 1;
        }
    }
    (height, header, totals, found)
}

#[test]
fn kills_during_an_import_and_while_indexes_catch_up_leave_them_whole() {
    let folder = tempfile::tempdir().unwrap();
    coins::generate(&coins::Recipe { seed: 5, coins: 40_000, ..coins::Recipe::DEFAULT }, folder.path()).unwrap();
    let files = block_files(folder.path());
    let at = |name: &str| folder.path().join(name);
    let with_indexes = |folder: &Path| {
        let groatd = Groatd::new("regtest", folder).with("--dbcache=4").with("--assumevalid=0");
        ALL.iter().fold(groatd, |groatd, option| groatd.with(option))
    };
    let begun = Instant::now();
    let whole = with_indexes(&at("whole"));
    whole.import(&files).succeeded();
    let takes = begun.elapsed();
    let expected = indexed(&whole);
    assert_eq!(whole.stats().muhash, expected.2, "the coins and their index; {}", repeat());
    let plain = Groatd::new("regtest", &at("late")).with("--assumevalid=0");
    plain.import(&files).succeeded();
    for (name, kills) in [("during", 4), ("late", 4)] {
        let groatd = with_indexes(&at(name));
        let mut killed = 0;
        for part in 1..=kills {
            let arguments = [PathBuf::from("import")].into_iter().chain(files.iter().cloned());
            let mut process = groatd.command(arguments).spawn().expect("groatd starts");
            std::thread::sleep(takes.mul_f64(f64::from(part) / f64::from(2 * kills)));
            process.kill().expect("a child can be killed");
            killed += usize::from(Said::of(process).was_killed());
        }
        groatd.import(&files).succeeded();
        assert_eq!(
            indexed(&groatd),
            expected,
            "{name}, after {killed} kills (left) and undisturbed (right); {}",
            repeat()
        );
    }
}
