//! Mining with groatd and bitcoind side by side: templates of one pool, blocks in turns on one chain, proposals with one
//! fault each, fee estimates; and the built-in miner from its command line.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::{
    Address, Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Transaction, TxMerkleNode, Witness,
};
use groat_tests::bitcoind::{Bitcoind, Rpc, peers};
use groat_tests::groatd::{Groatd, repeat, wide};
use groat_tests::regtest::{self, unsigned};
use groat_tests::running::{PATIENCE, Running};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Both nodes with one chain, each a process: their clocks are set.
struct Pair {
    core: Bitcoind,
    groat: Running,
    time: u32,
    _folder: tempfile::TempDir,
}

/// Anyone's output of a standard form: P2WSH of OP_1.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

fn call(rpc: &Rpc, method: &str, params: Value) -> Value {
    rpc.call(method, params).unwrap_or_else(|error| panic!("{method} at {}: {error:?}; {}", rpc.address(), repeat()))
}

fn template(rpc: &Rpc) -> Value {
    call(rpc, "getblocktemplate", json!([{"rules": ["segwit"]}]))
}

impl Pair {
    /// Starts both with these options and some blocks that anyone may spend.
    fn start(options: &[&str], blocks: u32) -> Option<Pair> {
        let peers = peers()?;
        let own: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        let folder = tempfile::tempdir().unwrap();
        let groat = Running::start(&Groatd::new("regtest", folder.path()), options);
        let core = Bitcoind::start(&peers, &own);
        let mut pair = Pair { core, groat, time: 1_700_000_000, _folder: folder };
        for _ in 0..blocks {
            pair.wait(600);
            let made = call(pair.core.rpc(), "generatetodescriptor", json!([1, raw()]));
            let block = call(pair.core.rpc(), "getblock", json!([made[0], 0]));
            assert_eq!(call(&pair.groat.rpc, "submitblock", json!([block])), Value::Null);
        }
        Some(pair)
    }

    fn both(&self) -> [&Rpc; 2] {
        [&self.groat.rpc, self.core.rpc()]
    }

    /// Lets both clocks go on.
    fn wait(&mut self, seconds: u32) {
        self.time += seconds;
        for rpc in self.both() {
            call(rpc, "setmocktime", json!([self.time]));
        }
    }

    /// The same answer from both.
    fn same(&self, method: &str, params: Value) -> Value {
        let [ours, theirs] = self.both().map(|rpc| rpc.call(method, params.clone()));
        let short: String = params.to_string().chars().take(500).collect();
        assert_eq!(ours, theirs, "{method} {short}: groatd (left) and bitcoind (right); {}", repeat());
        ours.unwrap_or_else(|error| json!({"code": error.code, "message": error.message}))
    }

    /// Coinbases that are old enough to be spent.
    fn coins(&self) -> Vec<(OutPoint, u64)> {
        let height = self.same("getblockcount", json!([])).as_u64().unwrap();
        let coin = |height| {
            let block =
                call(self.core.rpc(), "getblock", json!([call(self.core.rpc(), "getblockhash", json!([height])), 2]));
            let coinbase = &block["tx"][0];
            let value = Amount::from_btc(coinbase["vout"][0]["value"].as_f64().unwrap()).unwrap().to_sat();
            (OutPoint::new(coinbase["txid"].as_str().unwrap().parse().unwrap(), 0), value)
        };
        (1..=height.saturating_sub(99)).map(coin).collect()
    }
}

fn raw() -> String {
    format!("raw({})", anyone().to_hex_string())
}

/// Spends outputs of [`anyone`] for some outputs of the same kind.
fn spend(coins: &[(OutPoint, u64)], outputs: u64, fee: u64) -> Transaction {
    let each = (coins.iter().map(|coin| coin.1).sum::<u64>() - fee) / outputs;
    let inputs = coins.iter().map(|coin| unsigned(coin.0)).collect();
    let mut tx = regtest::transaction(inputs, (0..outputs).map(|_| regtest::output(each, anyone())).collect());
    tx.input.iter_mut().for_each(|input| input.witness = Witness::from_slice(&[[0x51]]));
    tx
}

fn made(tx: &Transaction) -> impl Iterator<Item = (OutPoint, u64)> {
    let txid = tx.compute_txid();
    tx.output.iter().enumerate().map(move |(vout, output)| (OutPoint::new(txid, vout as u32), output.value.to_sat()))
}

/// The block that a template stands for, but for the nonce, as a miner outside builds it.
fn block_of(template: &Value) -> Block {
    let number = |key: &str| template[key].as_u64().unwrap();
    let (height, value) = (number("height") as u32, number("coinbasevalue"));
    let mut coinbase = regtest::coinbase(height, number("curtime"), vec![regtest::output(value, anyone())]);
    let commitment = template["default_witness_commitment"].as_str().unwrap();
    coinbase.output.push(regtest::output(0, ScriptBuf::from_hex(commitment).unwrap()));
    let others = template["transactions"].as_array().unwrap().iter();
    let others = others.map(|tx| deserialize_hex(tx["data"].as_str().unwrap()).unwrap());
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(template["version"].as_i64().unwrap() as i32),
            prev_blockhash: template["previousblockhash"].as_str().unwrap().parse().unwrap(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: number("curtime") as u32,
            bits: CompactTarget::from_unprefixed_hex(template["bits"].as_str().unwrap()).unwrap(),
            nonce: 0,
        },
        txdata: std::iter::once(coinbase).chain(others).collect(),
    };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    block
}

fn fees(template: &Value) -> u64 {
    template["transactions"].as_array().unwrap().iter().map(|tx| tx["fee"].as_u64().unwrap()).sum()
}

/// Fills both pools with the same random transactions, in chains and trees; `coins` can be spent. Gives their number.
fn fill(pair: &Pair, coins: &mut Vec<(OutPoint, u64)>, random: &mut ChaCha8Rng, count: usize) -> usize {
    let mut taken = 0;
    for _ in 0..count {
        let inputs: Vec<_> = (0..random.random_range(1..=2.min(coins.len())))
            .map(|_| coins.swap_remove(random.random_range(0..coins.len())))
            .collect();
        let outputs = random.random_range(1..=3);
        // From next to nothing to a hundred satoshi a byte: children pay for parents, and parents for none.
        let fee = (f64::from(random.random_range(30..300)) * 2f64.powf(random.random_range(0.0..8.0))) as u64;
        let tx = spend(&inputs, outputs, fee);
        let said = pair.both().map(|rpc| rpc.call("sendrawtransaction", json!([serialize_hex(&tx), 0])));
        assert_eq!(said[0], said[1], "groatd (left) and bitcoind (right)");
        match said[0].is_ok() {
            true => coins.extend(made(&tx)),
            false => coins.extend(inputs),
        }
        taken += usize::from(said[0].is_ok());
        if coins.is_empty() {
            break;
        }
    }
    taken
}

#[test]
fn templates_of_one_pool_are_worth_the_same() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let Some(mut pair) = Pair::start(&["-blockmaxweight=30000"], 140) else { return };
    let mut coins = pair.coins();
    for round in 0..if wide() { 20 } else { 4 } {
        let taken = fill(&pair, &mut coins, &mut random, 150);
        pair.wait(10);
        let [mut ours, mut theirs] = pair.both().map(template);
        let [own, other] = [fees(&ours), fees(&theirs)];
        assert!(
            own as f64 > other as f64 * 0.995 && other as f64 > own as f64 * 0.995,
            "round {round} with {taken} transactions: groatd's template has {own} satoshi of fees, bitcoind's {other}; {}",
            repeat()
        );
        // Which of equals come first, and what hangs on that, is each one's own.
        let keys = [&mut ours, &mut theirs].map(|template| {
            let keys: BTreeSet<String> = template["transactions"][0].as_object().unwrap().keys().cloned().collect();
            for key in ["transactions", "longpollid", "coinbasevalue", "default_witness_commitment"] {
                template[key] = json!(template[key].is_null());
            }
            keys
        });
        assert_eq!(ours, theirs, "the templates of groatd (left) and bitcoind (right)");
        assert_eq!(keys[0], keys[1], "the keys of a transaction");
        let block = block_of(&template(&pair.groat.rpc));
        assert_eq!(
            pair.same("getblocktemplate", json!([{"mode": "proposal", "data": serialize_hex(&block)}])),
            Value::Null
        );
        let mut block = block;
        regtest::mine(&mut block.header);
        pair.wait(600);
        assert_eq!(pair.same("submitblock", json!([serialize_hex(&block)])), Value::Null);
    }
}

#[test]
fn of_transactions_that_hang_together_both_templates_say_the_same() {
    let Some(mut pair) = Pair::start(&[], 103) else { return };
    let coins = pair.coins();
    let parent = spend(&coins[..1], 2, 300);
    let outputs: Vec<_> = made(&parent).collect();
    let child = spend(&outputs, 1, 20_000);
    let alone = spend(&coins[1..2], 1, 5000);
    for tx in [&parent, &child, &alone] {
        pair.same("sendrawtransaction", json!([serialize_hex(tx)]));
    }
    pair.wait(10);
    let [mut ours, mut theirs] = pair.both().map(template);
    for template in [&mut ours, &mut theirs] {
        let id = template["longpollid"].take();
        assert!(id.as_str().unwrap().starts_with(template["previousblockhash"].as_str().unwrap()), "{id}");
    }
    assert_eq!(ours, theirs, "groatd (left) and bitcoind (right)");
    assert_eq!(ours["transactions"].as_array().unwrap().len(), 3);
    // What getmininginfo and the speed of the network say.
    let [mut ours, mut theirs] = pair.both().map(|rpc| call(rpc, "getmininginfo", json!([])));
    // A bitcoind that is no release warns of itself.
    (ours["warnings"], theirs["warnings"]) = (json!([]), json!([]));
    assert_eq!(ours, theirs, "getmininginfo of groatd (left) and bitcoind (right)");
    assert_eq!((&ours["pooledtx"], &ours["currentblocktx"]), (&json!(3), &json!(3)));
    for params in
        [json!([]), json!([10]), json!([-1]), json!([10, 50]), json!([-1, 50]), json!([500, 3]), json!([5, 0])]
    {
        pair.same("getnetworkhashps", params);
    }
    for params in [json!([0]), json!([-2]), json!([10, 104]), json!([10, -2])] {
        pair.same("getnetworkhashps", params);
    }
    for request in [
        json!([{}]),
        json!([{"rules": []}]),
        json!([{"mode": 1}]),
        json!([{"mode": "x"}]),
        json!([{"mode": "proposal"}]),
        json!([{"mode": "proposal", "data": "00"}]),
        json!([{"mode": "proposal", "data": "x"}]),
        json!([{"rules": ["segwit"], "longpollid": "00"}]),
    ] {
        let said = pair.same("getblocktemplate", request.clone());
        assert!(said["code"].is_number(), "{request}: {said}");
    }
}

#[test]
fn groatd_and_bitcoind_mine_in_turns() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let Some(mut pair) = Pair::start(&[], 120) else { return };
    let mut coins = pair.coins();
    for round in 0..if wide() { 60 } else { 12 } {
        fill(&pair, &mut coins, &mut random, 20);
        pair.wait(random.random_range(1..2000));
        let mut block = block_of(&template(pair.both()[round % 2]));
        regtest::mine(&mut block.header);
        let known =
            if round % 3 == 0 { json!([{"mode": "proposal", "data": serialize_hex(&block)}]) } else { json!([{}]) };
        pair.same("getblocktemplate", known);
        assert_eq!(pair.same("submitblock", json!([serialize_hex(&block)])), Value::Null, "round {round}");
        assert_eq!(pair.same("submitblock", json!([serialize_hex(&block)])), json!("duplicate"));
        assert_eq!(pair.same("getbestblockhash", json!([])), json!(block.block_hash().to_string()));
        assert_eq!(pair.same("getrawmempool", json!([])), json!([]), "both mined all there was");
    }
}

#[test]
fn proposals_with_a_fault_get_the_same_word() {
    let Some(mut pair) = Pair::start(&[], 105) else { return };
    pair.wait(10);
    let coins = pair.coins();
    let good = || block_of(&template(pair.core.rpc()));
    let with = |change: &dyn Fn(&mut Block)| {
        let mut block = good();
        change(&mut block);
        block
    };
    // Roots and commitment are made to fit.
    let sealed = |change: &dyn Fn(&mut Block)| {
        let mut block = with(change);
        regtest::seal(&mut block);
        block
    };
    let wrong = |script: &[u8]| {
        let mut tx = spend(&coins[..1], 1, 1000);
        tx.input[0].witness = Witness::from_slice(&[script]);
        tx
    };
    let tip = pair.same("getbestblockhash", json!([]));
    let below = pair.same("getblockheader", json!([tip]))["previousblockhash"].clone();
    let below: BlockHash = below.as_str().unwrap().parse().unwrap();
    let genesis = regtest::genesis().block_hash();
    let mut cases: Vec<(&str, Block)> = vec![
        ("nothing", good()),
        ("a transaction", sealed(&|block| block.txdata.push(spend(&coins[..1], 1, 1000)))),
        ("an older parent", sealed(&|block| block.header.prev_blockhash = below)),
        ("genesis below", sealed(&|block| block.header.prev_blockhash = genesis)),
        ("an unknown parent", sealed(&|block| block.header.prev_blockhash = BlockHash::all_zeros())),
        ("another root", with(&|block| block.header.merkle_root = TxMerkleNode::all_zeros())),
        ("no transaction", with(&|block| block.txdata.clear())),
        ("other bits", sealed(&|block| block.header.bits = CompactTarget::from_consensus(0x1d00_ffff))),
        ("an old version", sealed(&|block| block.header.version = Version::from_consensus(1))),
        ("an old time", sealed(&|block| block.header.time -= 100_000)),
        ("a time to come", sealed(&|block| block.header.time += 7300)),
        ("too much money", sealed(&|block| block.txdata[0].output[0].value += Amount::ONE_SAT)),
        ("another height", sealed(&|block| block.txdata[0] = regtest::coinbase(7, 0, vec![]))),
        ("no output", sealed(&|block| block.txdata[0].output.clear())),
        ("a long coinbase", sealed(&|block| block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0; 101]))),
        ("no coinbase", sealed(&|block| block.txdata[0] = spend(&coins[..1], 1, 1000))),
        ("two coinbases", sealed(&|block| block.txdata.push(block.txdata[0].clone()))),
        ("one spend twice", sealed(&|block| block.txdata.extend(vec![spend(&coins[..1], 1, 1000); 2]))),
        ("a double spend", sealed(&|block| block.txdata.extend([1, 2].map(|fee| spend(&coins[..1], 1, fee))))),
        (
            "a missing coin",
            sealed(&|block| block.txdata.push(spend(&[(OutPoint::new(coins[0].0.txid, 9), 5000)], 1, 1))),
        ),
        ("a script that fails", sealed(&|block| block.txdata.push(wrong(&[0x00])))),
        ("an empty script", sealed(&|block| block.txdata.push(wrong(&[])))),
        ("no commitment", with(&|block| drop(block.txdata[0].output.pop()))),
        ("no reserved value", with(&|block| block.txdata[0].input[0].witness.clear())),
    ];
    let mut late = spend(&coins[..1], 1, 1000);
    late.lock_time = bitcoin::absolute::LockTime::from_consensus(400);
    late.input[0].sequence = bitcoin::Sequence::ZERO;
    cases.push(("a lock time", sealed(&|block| block.txdata.push(late.clone()))));
    let mut more = spend(&coins[..1], 1, 1000);
    more.output[0].value += Amount::from_sat(2000);
    cases.push(("more than it spends", sealed(&|block| block.txdata.push(more.clone()))));
    let mut words = BTreeSet::new();
    for (what, block) in &cases {
        // With its proof of work or without is the same.
        for mined in [false, true] {
            let mut block = block.clone();
            if what != &"another root" && !block.txdata.is_empty() {
                block.header.merkle_root = block.compute_merkle_root().unwrap();
            }
            if mined {
                regtest::mine(&mut block.header);
            }
            let hex = serialize_hex(&block);
            let [ours, theirs] =
                pair.both().map(|rpc| rpc.call("getblocktemplate", json!([{"mode": "proposal", "data": hex}])));
            assert_eq!(ours, theirs, "a block with {what}: groatd (left) and bitcoind (right); {}", repeat());
            words.insert(format!("{:?}", ours.ok()));
        }
    }
    assert!(words.len() >= 18, "fewer words than faults: {words:?}");
    assert_eq!(pair.same("getbestblockhash", json!([])), tip, "nothing of them stays");
    // Blocks that are known.
    let stale = with(&|block| block.header.time += 1);
    for known in [0, 1, 105] {
        let hash = pair.same("getblockhash", json!([known]));
        let block = pair.same("getblock", json!([hash, 0]));
        let said = pair.same("getblocktemplate", json!([{"mode": "proposal", "data": block}]));
        assert_eq!(said, json!(if known == 0 { "duplicate-inconclusive" } else { "duplicate" }), "block {known}");
    }
    let mut bad = sealed(&|block| block.txdata[0].output[0].value += Amount::ONE_SAT);
    regtest::mine(&mut bad.header);
    for expected in ["bad-cb-amount", "duplicate-invalid"] {
        assert_eq!(pair.same("submitblock", json!([serialize_hex(&bad)])), json!(expected));
    }
    let said = pair.same("getblocktemplate", json!([{"mode": "proposal", "data": serialize_hex(&bad)}]));
    assert_eq!(said, json!("duplicate-invalid"));
    let mut header = stale;
    regtest::mine(&mut header.header);
    assert_eq!(pair.same("submitheader", json!([serialize_hex(&header.header)])), Value::Null);
    let said = pair.same("getblocktemplate", json!([{"mode": "proposal", "data": serialize_hex(&header)}]));
    assert_eq!(said, json!("duplicate-inconclusive"));
}

#[test]
fn a_template_keeps_to_bip94_where_the_clock_went_back() {
    let Some(mut pair) = Pair::start(&["-test=bip94"], 142) else { return };
    pair.wait(7000);
    let made = call(pair.core.rpc(), "generatetodescriptor", json!([1, raw()]));
    let block = call(pair.core.rpc(), "getblock", json!([made[0], 0]));
    assert_eq!(call(&pair.groat.rpc, "submitblock", json!([block])), Value::Null);
    // The next one is the first of a period: it may be 600 seconds before its parent, and no more.
    pair.time -= 7000;
    pair.wait(0);
    let [ours, theirs] = pair.both().map(template);
    for key in ["height", "mintime", "curtime", "bits"] {
        assert_eq!(ours[key], theirs[key], "{key} of groatd (left) and bitcoind (right)");
    }
    assert_eq!((&ours["height"], &ours["curtime"]), (&json!(144), &json!(pair.time + 7000 - 600)));
    let mut block = block_of(&ours);
    block.header.time -= 1;
    let said = pair.same("getblocktemplate", json!([{"mode": "proposal", "data": serialize_hex(&block)}]));
    assert_eq!(said, json!("time-timewarp-attack"));
}

#[test]
fn estimates_take_the_same_arguments_and_a_quiet_network_asks_for_little() {
    let Some(mut pair) = Pair::start(&[], 10) else { return };
    pair.wait(600);
    for params in [json!([0]), json!([1009]), json!([-1]), json!(["6"]), json!([6, "fast"]), json!([6, 1])] {
        pair.same("estimatesmartfee", params);
    }
    for params in
        [json!([0]), json!([1009]), json!([6, 2]), json!([6, -1]), json!([1]), json!([13]), json!([1008, 0.5])]
    {
        pair.same("estimaterawfee", params);
    }
    for params in
        [json!([6]), json!([6, null]), json!([1008, "ECONOMICAL"]), json!([2, "conservative"]), json!([2, "unset"])]
    {
        assert!(pair.core.rpc().call("estimatesmartfee", params.clone()).is_ok(), "{params}");
        let said = call(&pair.groat.rpc, "estimatesmartfee", params.clone());
        // Nothing waits: the least that is relayed will do.
        assert_eq!(said, json!({"feerate": 0.000001, "blocks": params[0]}), "{params}");
    }
    // A year later the tip says nothing about the next block.
    let folder = tempfile::tempdir().unwrap();
    let fresh = Running::start(&Groatd::new("regtest", folder.path()), &[]);
    let said = call(&fresh.rpc, "estimatesmartfee", json!([6]));
    assert_eq!(said, json!({"errors": ["Insufficient data or no feerate found"], "blocks": 6}));
}

#[test]
fn a_long_poll_ends_with_the_tip_and_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let node = Running::start(&Groatd::new("regtest", folder.path()), &[]);
    call(&node.rpc, "generatetodescriptor", json!([2, raw()]));
    let id = template(&node.rpc)["longpollid"].clone();
    let wait = || {
        let rpc = Rpc::with_authorization_of(&node.rpc);
        call(&rpc, "getblocktemplate", json!([{"rules": ["segwit"], "longpollid": id}]))
    };
    let begun = Instant::now();
    let answers: Vec<Value> = std::thread::scope(|scope| {
        // More than there are threads for calls.
        let waiting: Vec<_> = (0..40).map(|_| scope.spawn(wait)).collect();
        std::thread::sleep(Duration::from_secs(1));
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "nothing has changed; {}", repeat());
        assert_eq!(call(&node.rpc, "getblockcount", json!([])), json!(2), "others are answered meanwhile");
        call(&node.rpc, "generatetodescriptor", json!([1, raw()]));
        waiting.into_iter().map(|waiting| waiting.join().unwrap()).collect()
    });
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    assert!(answers.iter().all(|answer| answer["height"] == json!(4)), "each gets the next block");
    // What names another tip is answered at once.
    assert_eq!(wait()["height"], json!(4));
    node.stop();
}

fn address(network: Network) -> String {
    Address::p2wsh(&ScriptBuf::from_bytes(vec![0x51]), network).to_string()
}

fn wait_for_height(rpc: &Rpc, height: u64) {
    let begun = Instant::now();
    while call(rpc, "getblockcount", json!([])).as_u64() < Some(height) {
        assert!(begun.elapsed() < PATIENCE, "no block {height} in {PATIENCE:?}; {}", repeat());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_fresh_node_mines_and_pays() {
    let folder = tempfile::tempdir().unwrap();
    let to = address(Network::Regtest);
    let mut node =
        Running::start(&Groatd::new("regtest", folder.path()), &[&format!("--mine-to={to}"), "--mine-threads=2"]);
    node.wait_for("mined block");
    let begun = Instant::now();
    let height = call(&node.rpc, "getblockcount", json!([])).as_u64().unwrap();
    wait_for_height(&node.rpc, height + 2);
    assert!(begun.elapsed() > Duration::from_secs(1), "two blocks in {:?}: that is not gentle", begun.elapsed());
    let block = call(&node.rpc, "getblock", json!([call(&node.rpc, "getblockhash", json!([1])), 2]));
    let coinbase = &block["tx"][0];
    assert_eq!(coinbase["vout"][0]["scriptPubKey"]["address"], json!(to));
    call(&node.rpc, "generatetodescriptor", json!([100, "raw(51)"]));
    let coin = (OutPoint::new(coinbase["txid"].as_str().unwrap().parse().unwrap(), 0), 5_000_000_000);
    let payment = spend(&[coin], 1, 1000);
    call(&node.rpc, "sendrawtransaction", json!([serialize_hex(&payment)]));
    let begun = Instant::now();
    while call(&node.rpc, "getrawmempool", json!([])) != json!([]) {
        assert!(begun.elapsed() < PATIENCE, "the payment is not mined in {PATIENCE:?}; {}", repeat());
        std::thread::sleep(Duration::from_millis(50));
    }
    let rate = Instant::now();
    while call(&node.rpc, "getmininginfo", json!([]))["hashespersec"].is_null() {
        assert!(rate.elapsed() < PATIENCE, "no hash rate is told; {}", repeat());
        std::thread::sleep(Duration::from_millis(200));
    }
    node.stop();
}

#[test]
fn a_signet_is_mined_with_its_key_and_bitcoind_takes_the_blocks() {
    let key = "11".repeat(32);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, &key).unwrap();
    let secret = bitcoin::PrivateKey::from_slice(&[0x11; 32], bitcoin::NetworkKind::Test).unwrap();
    let public = secret.public_key(&bitcoin::secp256k1::Secp256k1::new());
    let challenge = ScriptBuf::new_p2wpkh(&public.wpubkey_hash().unwrap()).to_hex_string();
    let challenge = format!("--signetchallenge={challenge}");
    let to = format!("--mine-to={}", address(Network::Signet));
    let groatd = Groatd::new("signet", folder.path());
    groatd.run([&challenge, &to]).failed(&["--signet-key-file"]);
    let mut node = Running::start(&groatd, &[&challenge, &to, &format!("--signet-key-file={}", file.display())]);
    node.wait_for("mined block");
    let Some(peers) = peers() else { return };
    let core = Bitcoind::start_in(&peers, tempfile::tempdir().unwrap(), "signet", &[challenge[1..].to_string()]);
    let block = call(&node.rpc, "getblock", json!([call(&node.rpc, "getblockhash", json!([1])), 0]));
    assert_eq!(call(core.rpc(), "submitblock", json!([block])), Value::Null, "bitcoind finds the solution good");
    let asked = json!([{"rules": ["segwit", "signet"]}]);
    call(&node.rpc, "getblocktemplate", asked);
    let refused = node.rpc.call("getblocktemplate", json!([{"rules": ["segwit"]}])).unwrap_err();
    let theirs = core.rpc().call("getblocktemplate", json!([{"rules": ["segwit"]}])).unwrap_err();
    assert_eq!(refused, theirs, "groatd (left) and bitcoind (right)");
    node.stop();
}

#[test]
fn an_address_of_another_network_stops_the_start_with_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    for (chain, address, text) in [
        ("regtest", address(Network::Bitcoin), "an address of the main network"),
        ("testnet4", address(Network::Regtest), "an address of regtest"),
    ] {
        Groatd::new(chain, folder.path()).run([&format!("--mine-to={address}")]).failed(&[text, chain]);
    }
}
