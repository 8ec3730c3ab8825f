//! The same random transactions to groatd and to bitcoind, valid ones and each kind of violation, in chains, over blocks
//! and blocks taken back: the same verdicts in the same words, and the same pool.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid, Witness, transaction};
use groat_chain::mempool::Policy;
use groat_tests::bitcoind::{Bitcoind, Rpc, chain_folder, peers};
use groat_tests::chaingen::Coin;
use groat_tests::chaingen::keys::{KINDS, Keys, Kind};
use groat_tests::groatd::{Groatd, repeat, wide};
use groat_tests::regtest::{self, unsigned};
use groat_tests::running::{PATIENCE, Running};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::rpc::Groat;

mod replacements;

/// Both nodes, with one chain.
struct Pair {
    core: Bitcoind,
    groat: Groat,
    keys: Keys,
    random: ChaCha8Rng,
    /// What can be spent: by its number in `keys`, on the chain or in the pool.
    coins: BTreeMap<OutPoint, Coin>,
    /// Coinbases that are too young.
    young: Vec<(OutPoint, Coin)>,
    /// What the pool holds, as sent.
    sent: Vec<Transaction>,
    /// Where the words differed.
    differences: Vec<String>,
}

/// What is wrong with a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    Version(i32),
    Signature,
    Stripped,
    NoFee,
    TooMuch,
    Dust,
    TwiceDust,
    OutputForm,
    FourKeys,
    Data(usize),
    Locked,
    LockedRelative,
    Missing,
    Twice,
    Young,
    Small,
    NotPushing,
    LongInput,
    ExtraWitness,
    Negative,
    AboveMoney,
    Repeated,
    OtherWitness,
    CoinbaseLike,
    Heavy,
    Truc,
    ManySigops,
}

const FAULTS: [Fault; 29] = [
    Fault::Version(0),
    Fault::Version(4),
    Fault::Signature,
    Fault::Stripped,
    Fault::NoFee,
    Fault::TooMuch,
    Fault::Dust,
    Fault::TwiceDust,
    Fault::OutputForm,
    Fault::FourKeys,
    Fault::Data(80),
    Fault::Data(100_000),
    Fault::Locked,
    Fault::LockedRelative,
    Fault::Missing,
    Fault::Twice,
    Fault::Young,
    Fault::Small,
    Fault::NotPushing,
    Fault::LongInput,
    Fault::ExtraWitness,
    Fault::Negative,
    Fault::AboveMoney,
    Fault::Repeated,
    Fault::OtherWitness,
    Fault::CoinbaseLike,
    Fault::Heavy,
    Fault::Truc,
    Fault::ManySigops,
];

/// Blocks that pay to the keys before the first transaction.
const BLOCKS: u32 = 40;

impl Pair {
    /// Starts both; `options` for bitcoind say the same as `policy` for groatd.
    fn start(seed: u64, options: &[&str], policy: Policy) -> Option<Pair> {
        let peers = peers()?;
        let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        let mut pair = Pair {
            core: Bitcoind::start(&peers, &options),
            groat: Groat::with(policy),
            keys: Keys::new(20, seed),
            random: ChaCha8Rng::seed_from_u64(seed),
            coins: BTreeMap::new(),
            young: Vec::new(),
            sent: Vec::new(),
            differences: Vec::new(),
        };
        for number in 0..BLOCKS {
            let script = KINDS[number as usize % KINDS.len()].with_key(number % pair.keys.len());
            let coinbase = pair.core_mines(script);
            pair.coins.extend([coinbase]);
        }
        for _ in 0..100 {
            let coinbase = pair.core_mines(0);
            pair.young.push(coinbase);
        }
        Some(pair)
    }

    fn groat(&self) -> &Rpc {
        &self.groat.rpc
    }

    /// bitcoind mines a block that pays to a script of ours, and groatd gets it.
    fn core_mines(&mut self, script: u32) -> (OutPoint, Coin) {
        let hex = self.keys.script(script).to_hex_string();
        let hash = self.core.call("generatetodescriptor", json!([1, format!("raw({hex})")]))[0].clone();
        let block = self.core.call("getblock", json!([hash, 0]));
        let said = self.groat().call("submitblock", json!([block]));
        assert_eq!(said, Ok(Value::Null), "groatd refuses a block of bitcoind; {}", repeat());
        self.coinbase(&hash, script)
    }

    /// groatd mines a block from its pool, and bitcoind gets it.
    fn groat_mines(&mut self, script: u32) -> (OutPoint, Coin) {
        let hex = self.keys.script(script).to_hex_string();
        let hash = self.groat().call("generatetodescriptor", json!([1, format!("raw({hex})")])).unwrap()[0].clone();
        let block = self.groat().call("getblock", json!([hash, 0])).unwrap();
        assert_eq!(
            self.core.call("submitblock", json!([block])),
            Value::Null,
            "bitcoind refuses a block of groatd; {}",
            repeat()
        );
        self.coinbase(&hash, script)
    }

    fn coinbase(&self, hash: &Value, script: u32) -> (OutPoint, Coin) {
        let block = self.core.call("getblock", json!([hash, 2]));
        let coinbase = &block["tx"][0];
        let txid: Txid = coinbase["txid"].as_str().unwrap().parse().unwrap();
        let value = Amount::from_btc(coinbase["vout"][0]["value"].as_f64().unwrap()).unwrap().to_sat();
        let outpoint = OutPoint::new(txid, 0);
        (outpoint, Coin { outpoint, value, script })
    }

    /// Spends some coins, with a fee of 1 to 20 satoshi a byte. Gives the coins it spends and those it makes.
    fn draw(&mut self) -> (Transaction, Vec<Coin>, Vec<Coin>) {
        let known: Vec<(OutPoint, Coin)> = self.coins.iter().map(|(outpoint, coin)| (*outpoint, *coin)).collect();
        let mut spent: BTreeMap<OutPoint, Coin> = BTreeMap::new();
        for _ in 0..self.random.random_range(1..=3) {
            spent.extend([known[self.random.random_range(0..known.len())]]);
        }
        let outputs = self.random.random_range(1..=4u64);
        let fee = self.random.random_range(1000..5000) * (spent.len() as u64 + outputs);
        let total: u64 = spent.values().map(|coin| coin.value).sum();
        let each = total.saturating_sub(fee) / outputs;
        let made: Vec<Coin> = (0..outputs)
            .map(|_| {
                let kind = KINDS[self.random.random_range(0..KINDS.len())];
                let script = kind.with_key(self.random.random_range(0..self.keys.len()));
                Coin { outpoint: OutPoint::null(), value: each, script }
            })
            .collect();
        let inputs = spent.keys().map(|outpoint| unsigned(*outpoint)).collect();
        let outputs = made.iter().map(|coin| regtest::output(coin.value, self.keys.script(coin.script).clone()));
        (regtest::transaction(inputs, outputs.collect()), spent.into_values().collect(), made)
    }

    /// A transaction with a fault; none if there is nothing to make it from.
    fn make(&mut self, fault: Fault) -> Option<(Transaction, Vec<Coin>)> {
        let (mut tx, mut spent, made) = self.draw();
        if made[0].value < 5000 {
            return None;
        }
        let small = TxOut { value: Amount::from_sat(100), script_pubkey: tx.output[0].script_pubkey.clone() };
        match fault {
            Fault::Version(version) => tx.version = transaction::Version(version),
            Fault::NoFee => {
                let total: u64 = spent.iter().map(|coin| coin.value).sum();
                let others: u64 = made[1..].iter().map(|coin| coin.value).sum();
                tx.output[0].value = Amount::from_sat(total - others);
            }
            Fault::TooMuch => tx.output[0].value += Amount::from_btc(100.0).unwrap(),
            Fault::Dust => tx.output.push(small),
            Fault::TwiceDust => tx.output.extend([small.clone(), small]),
            Fault::OutputForm => tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51]),
            Fault::FourKeys => {
                let key = [&[33, 2][..], &[0x11; 32]].concat();
                let script = [vec![0x51], key.repeat(4), vec![0x54, 0xae]].concat();
                tx.output[0].script_pubkey = ScriptBuf::from_bytes(script);
            }
            Fault::Data(bytes) => {
                let data = regtest::push(&vec![7; bytes]);
                let script = [&[0x6a][..], data.as_bytes()].concat();
                tx.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) });
            }
            Fault::Locked => {
                tx.lock_time = bitcoin::absolute::LockTime::from_consensus(self.random.random_range(100..1000));
                tx.input.iter_mut().for_each(|input| input.sequence = Sequence::ENABLE_LOCKTIME_NO_RBF);
            }
            Fault::LockedRelative => {
                let wait = self.random.random_range(0..200);
                tx.input.iter_mut().for_each(|input| input.sequence = Sequence::from_consensus(wait));
            }
            Fault::Missing => tx.input[0].previous_output.vout += 77,
            Fault::Twice => {
                tx.input.push(tx.input[0].clone());
                spent.push(spent[0]);
            }
            Fault::Young => {
                let (outpoint, coin) = self.young.last().copied()?;
                tx.input.push(unsigned(outpoint));
                spent.push(coin);
            }
            Fault::Small => {
                tx.input.truncate(1);
                tx.output.truncate(1);
                (tx.output[0].script_pubkey, tx.output[0].value) =
                    (ScriptBuf::from_bytes(vec![0x51, 2, 0x4e, 0x73]), Amount::from_sat(spent[0].value / 2));
                spent.truncate(1);
            }
            Fault::Negative => tx.output[0].value = Amount::from_sat(u64::MAX),
            Fault::AboveMoney => tx.output[0].value = Amount::MAX_MONEY + Amount::ONE_SAT,
            Fault::Heavy => {
                let output = tx.output[0].clone();
                tx.output.extend(std::iter::repeat_n(TxOut { value: Amount::from_sat(1000), ..output }, 3500));
            }
            Fault::Truc => tx.version = transaction::Version(3),
            Fault::ManySigops => {
                let output = TxOut { value: Amount::from_sat(20_000), script_pubkey: bare_multisig() };
                tx.output.extend(std::iter::repeat_n(output, 205));
                tx.output[0].value = Amount::from_sat(1000);
            }
            _ => {}
        }
        if fault == Fault::CoinbaseLike {
            tx.input.truncate(1);
            tx.input[0].previous_output = OutPoint::null();
            tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51, 0x51, 0x51]);
            return Some((tx, made));
        }
        self.keys.sign(&mut tx, &spent);
        let input = &mut tx.input[0];
        match fault {
            Fault::Signature => {
                let mut items = input.witness.to_vec();
                match items.iter_mut().find(|item| item.len() > 40) {
                    Some(item) => item[20] ^= 1,
                    None => {
                        let mut script = input.script_sig.to_bytes();
                        script[20] ^= 1;
                        input.script_sig = ScriptBuf::from_bytes(script);
                    }
                }
                input.witness = Witness::from_slice(&items);
            }
            Fault::Stripped => tx.input.iter_mut().for_each(|input| input.witness.clear()),
            Fault::NotPushing => input.script_sig = ScriptBuf::from_bytes(vec![0x61]),
            Fault::LongInput => input.script_sig = ScriptBuf::from_bytes(vec![0x51; 1651]),
            Fault::ExtraWitness => input.witness.push([9; 81]),
            Fault::Repeated => return Some((self.one_of_the_sent()?, made)),
            Fault::OtherWitness => {
                let mut tx = self.one_of_the_sent()?;
                tx.input[0].witness.push([1]);
                return Some((tx, made));
            }
            _ => {}
        }
        Some((tx, made))
    }

    fn one_of_the_sent(&mut self) -> Option<Transaction> {
        let number = (!self.sent.is_empty()).then(|| self.random.random_range(0..self.sent.len()))?;
        Some(self.sent[number].clone())
    }

    /// Hands a transaction to both: first to be tested, then to be taken. True if it was.
    fn offer(&mut self, tx: &Transaction, what: &str) -> bool {
        let hex = serialize_hex(tx);
        let short = if hex.len() > 1000 { format!("{}...", &hex[..1000]) } else { hex.clone() };
        for (method, params) in
            [("testmempoolaccept", json!([[hex], 0])), ("sendrawtransaction", json!([hex, 0, 21_000_000]))]
        {
            let ours = self.groat().call(method, params.clone());
            let theirs = self.core.rpc().call(method, params);
            if ours != theirs {
                let text = format!("{method} of {what}\n groatd: {ours:?}\n bitcoind: {theirs:?}\n {short}");
                // With different pools nothing that follows tells anything.
                let diverged = method == "sendrawtransaction" && ours.is_ok() != theirs.is_ok();
                assert!(!diverged, "{text}\nbefore: {:#?}\n{}", self.differences, repeat());
                self.differences.push(text);
            }
            if method == "sendrawtransaction" {
                return ours.is_ok();
            }
        }
        unreachable!("the second call answers")
    }

    fn took(&mut self, tx: &Transaction, made: &[Coin]) {
        for input in &tx.input {
            self.coins.remove(&input.previous_output);
        }
        let txid = tx.compute_txid();
        for (vout, (output, coin)) in tx.output.iter().zip(made).enumerate() {
            let same = output.script_pubkey == *self.keys.script(coin.script);
            if same && output.value.to_sat() == coin.value {
                let outpoint = OutPoint::new(txid, vout as u32);
                self.coins.insert(outpoint, Coin { outpoint, ..*coin });
            }
        }
        self.sent.push(tx.clone());
    }

    /// Both pools hold the same, and say the same of it.
    fn compare(&self) {
        let pools = || {
            let ours = self.groat().call("getrawmempool", json!([true])).unwrap();
            let theirs = self.core.call("getrawmempool", json!([true]));
            [ours, theirs].map(|mut pool| {
                for entry in pool.as_object_mut().unwrap().values_mut() {
                    entry["time"] = json!(0);
                    // Core looks longer for the best order of what hangs together.
                    if entry["ancestorcount"] != json!(1) || entry["descendantcount"] != json!(1) {
                        (entry["chunkweight"], entry["fees"]["chunk"]) = (json!(0), json!(0));
                    }
                    entry["spentby"].as_array_mut().unwrap().sort_by_key(|txid| txid.to_string());
                }
                pool
            })
        };
        let [ours, theirs] = pools();
        let ids = |pool: &Value| pool.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(ids(&ours), ids(&theirs), "the pools of groatd (left) and bitcoind (right); {}", repeat());
        for txid in ids(&ours) {
            assert_eq!(ours[&txid], theirs[&txid], "{txid} in groatd (left) and bitcoind (right); {}", repeat());
        }
    }
}

/// One of three keys: it counts as three signature operations, or as 20 for a block.
fn bare_multisig() -> ScriptBuf {
    let key = [&[33, 2][..], &[0x11; 32]].concat();
    ScriptBuf::from_bytes([vec![0x51], key.repeat(3), vec![0x53, 0xae]].concat())
}

#[test]
fn random_transactions_get_the_same_verdict_from_bitcoind() {
    let Some(pair) = Pair::start(1, &[], Policy::default()) else { return };
    judge(pair, if wide() { 10_000 } else { 400 });
}

#[test]
fn what_an_operator_chooses_has_the_same_effect_on_bitcoind() {
    let cases = if wide() { 3000 } else { 150 };
    let strict = Policy {
        permit_bare_multisig: false,
        max_datacarrier_bytes: Some(82),
        min_relay_fee: 3000,
        dust_relay_fee: 10_000,
        bytes_per_sigop: 60,
        cluster_count: 5,
        cluster_vbytes: 3000,
        ..Policy::default()
    };
    let options = [
        "-permitbaremultisig=0",
        "-datacarriersize=82",
        "-minrelaytxfee=0.00003",
        "-dustrelayfee=0.0001",
        "-bytespersigop=60",
        "-limitclustercount=5",
        "-limitclustersize=3",
    ];
    let Some(pair) = Pair::start(2, &options, strict) else { return };
    judge(pair, cases);
    let lax = Policy { require_standard: false, max_datacarrier_bytes: None, min_relay_fee: 0, ..Policy::default() };
    let Some(pair) = Pair::start(3, &["-acceptnonstdtxn=1", "-datacarrier=0", "-minrelaytxfee=0"], lax) else { return };
    judge(pair, cases);
}

/// Offers random transactions to both.
fn judge(mut pair: Pair, cases: u32) {
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    for case in 0..cases {
        let fault = if pair.random.random_bool(0.5) {
            Fault::Nothing
        } else {
            FAULTS[pair.random.random_range(0..FAULTS.len())]
        };
        let Some((tx, made)) = pair.make(fault) else { continue };
        let taken = pair.offer(&tx, &format!("case {case}, {fault:?}"));
        *reasons.entry(format!("{fault:?} {}", if taken { "taken" } else { "refused" })).or_default() += 1;
        if taken {
            pair.took(&tx, &made);
        }
        if case % 20 == 19 {
            pair.compare();
        }
        if case % 50 == 49 {
            let script = Kind::P2wpkh.with_key(case % pair.keys.len());
            let coinbase = if case % 100 == 49 { pair.core_mines(script) } else { pair.groat_mines(script) };
            pair.young.push(coinbase);
            pair.sent.clear();
            pair.compare();
        }
        if case % 150 == 149 {
            let tip = pair.core.call("getbestblockhash", json!([]));
            pair.core.call("invalidateblock", json!([tip]));
            pair.groat().call("invalidateblock", json!([tip])).unwrap();
            pair.compare();
            pair.young.pop();
        }
    }
    let (few, all) = (&pair.differences[..pair.differences.len().min(10)], pair.differences.len());
    assert!(all == 0, "{all} verdicts differ, the first of them: {}\n{}", few.join("\n"), repeat());
    for fault in FAULTS.iter().filter(|_| cases >= 400) {
        let seen = reasons.keys().any(|key| key.starts_with(&format!("{fault:?} ")));
        assert!(seen, "no case of {fault:?}: {reasons:?}");
    }
    println!("{reasons:?}");
}

/// Anyone's output of a standard form: P2WSH of OP_1.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

/// Mines blocks that anyone may spend; gives the coinbase of the first.
fn mine(rpc: &Rpc, count: u32) -> OutPoint {
    let descriptor = format!("raw({})", anyone().to_hex_string());
    let blocks = rpc.call("generatetodescriptor", json!([count, descriptor])).unwrap();
    let block = rpc.call("getblock", json!([blocks[0]])).unwrap();
    OutPoint::new(block["tx"][0].as_str().unwrap().parse().unwrap(), 0)
}

/// Spends an output of [`anyone`] that holds `value`, with a fee of 1000 satoshi.
fn spend(outpoint: OutPoint, value: u64) -> Transaction {
    let mut tx = regtest::transaction(vec![unsigned(outpoint)], vec![regtest::output(value - 1000, anyone())]);
    tx.input[0].witness = Witness::from_slice(&[[0x51]]);
    tx
}

fn pool(rpc: &Rpc) -> BTreeSet<String> {
    serde_json::from_value(rpc.call("getrawmempool", json!([])).unwrap()).unwrap()
}

/// Waits until a node's pool holds exactly these.
fn wait_for_pool(rpc: &Rpc, expected: &BTreeSet<String>) {
    let begun = Instant::now();
    while pool(rpc) != *expected {
        assert!(begun.elapsed() < PATIENCE, "expected {expected:?}, there is {:?}; {}", pool(rpc), repeat());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn payments_pass_between_nodes_and_are_mined_by_either() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, other] = [0, 1].map(|number| Groatd::new("regtest", folders[number].path()));
    let one = Running::start(&one, &[]);
    let mut other = Running::start(&other, &[&format!("--connect={}", one.peers)]);
    let coin = mine(&one.rpc, 101);
    let tip = one.rpc.call("getbestblockhash", json!([])).unwrap();
    other.wait_for_tip(tip.as_str().unwrap());
    let parent = spend(coin, 5_000_000_000);
    let child = spend(OutPoint::new(parent.compute_txid(), 0), 4_999_999_000);
    for tx in [&parent, &child] {
        one.rpc.call("sendrawtransaction", json!([serialize_hex(tx)])).unwrap();
    }
    wait_for_pool(&other.rpc, &pool(&one.rpc));
    assert_eq!(pool(&other.rpc).len(), 2);
    mine(&other.rpc, 1);
    wait_for_pool(&one.rpc, &BTreeSet::new());
    wait_for_pool(&other.rpc, &BTreeSet::new());
    let tips = [&one, &other].map(|node| node.rpc.call("getbestblockhash", json!([])).unwrap());
    assert_eq!(tips[0], tips[1], "both stand on the block with the payments");
}

#[test]
fn the_mempool_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path());
    let node = Running::start(&groatd, &[]);
    let coin = mine(&node.rpc, 101);
    let parent = spend(coin, 5_000_000_000);
    let child = spend(OutPoint::new(parent.compute_txid(), 0), 4_999_999_000);
    for tx in [&parent, &child] {
        node.rpc.call("sendrawtransaction", json!([serialize_hex(tx)])).unwrap();
    }
    let held = node.rpc.call("getrawmempool", json!([true])).unwrap();
    node.stop();
    let mut node = Running::start(&groatd, &[]);
    node.wait_for("mempool: 2 stored transactions taken");
    let begun = Instant::now();
    while node.rpc.call("getmempoolinfo", json!([])).unwrap()["loaded"] != json!(true) {
        assert!(begun.elapsed() < PATIENCE, "the pool is never loaded; {}", repeat());
    }
    assert_eq!(node.rpc.call("getrawmempool", json!([true])).unwrap(), held, "after the restart (left) and before");
    node.stop();
    let node = Running::start(&groatd, &["--persistmempool=0"]);
    assert_eq!(pool(&node.rpc), BTreeSet::new());
    assert_eq!(node.rpc.call("getmempoolinfo", json!([])).unwrap()["loaded"], json!(true));
    node.stop();
}

#[test]
fn a_mempool_file_passes_between_bitcoind_and_groatd() {
    let Some(peers) = peers() else { return };
    let options = ["-maxtipage=9999999999".to_string()];
    let core = Bitcoind::start(&peers, &options);
    let coin = mine(core.rpc(), 101);
    let parent = spend(coin, 5_000_000_000);
    let child = spend(OutPoint::new(parent.compute_txid(), 0), 4_999_999_000);
    for tx in [&parent, &child] {
        core.call("sendrawtransaction", json!([serialize_hex(tx)]));
    }
    let held = pool(core.rpc());
    core.call("savemempool", json!([]));
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path());
    let node = Running::start(&groatd, &["--persistmempool=0"]);
    for height in 1..=101 {
        let block = core.call("getblock", json!([core.call("getblockhash", json!([height])), 0]));
        assert_eq!(node.rpc.call("submitblock", json!([block])).unwrap(), Value::Null);
    }
    node.stop();
    let theirs = chain_folder(core.folder(), "regtest").join("mempool.dat");
    std::fs::copy(theirs, groatd.chain_folder().join("mempool.dat")).unwrap();
    let mut node = Running::start(&groatd, &[]);
    node.wait_for("mempool: 2 stored transactions taken");
    assert_eq!(pool(&node.rpc), held, "groatd (left) has read what bitcoind wrote; {}", repeat());
    node.stop();
    // And back.
    let folder = core.stop();
    std::fs::copy(
        groatd.chain_folder().join("mempool.dat"),
        chain_folder(folder.path(), "regtest").join("mempool.dat"),
    )
    .unwrap();
    let core = Bitcoind::start_in(&peers, folder, "regtest", &options);
    wait_for_pool(core.rpc(), &held);
}

#[test]
fn payments_pass_between_groatd_and_bitcoind() {
    let Some(peers) = peers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path());
    let mut node = Running::start(&groatd, &[]);
    let core = Bitcoind::start(&peers, &[]);
    core.call("addnode", json!([node.peers.to_string(), "onetry"]));
    let coin = mine(core.rpc(), 102);
    let tip = core.call("getbestblockhash", json!([]));
    node.wait_for_tip(tip.as_str().unwrap());
    let second = core.call("getblock", json!([core.call("getblockhash", json!([2]))]));
    let second = OutPoint::new(second["tx"][0].as_str().unwrap().parse().unwrap(), 0);
    // One from each side, and a child of the other's on the way back.
    let (ours, theirs) = (spend(coin, 5_000_000_000), spend(second, 5_000_000_000));
    node.rpc.call("sendrawtransaction", json!([serialize_hex(&ours)])).unwrap();
    core.call("sendrawtransaction", json!([serialize_hex(&theirs)]));
    let both: BTreeSet<String> = [&ours, &theirs].map(|tx| tx.compute_txid().to_string()).into();
    wait_for_pool(core.rpc(), &both);
    wait_for_pool(&node.rpc, &both);
    let child = spend(OutPoint::new(ours.compute_txid(), 0), 4_999_999_000);
    core.call("sendrawtransaction", json!([serialize_hex(&child)]));
    let all: BTreeSet<String> = both.into_iter().chain([child.compute_txid().to_string()]).collect();
    wait_for_pool(&node.rpc, &all);
    let unasked = node.rpc.call("getmempoolinfo", json!([])).unwrap()["unbroadcastcount"].clone();
    assert_eq!(unasked, json!(0), "bitcoind has asked for ours");
    mine(&node.rpc, 1);
    wait_for_pool(core.rpc(), &BTreeSet::new());
    wait_for_pool(&node.rpc, &BTreeSet::new());
}
