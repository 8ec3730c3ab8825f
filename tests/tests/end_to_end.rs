//! Five nodes, groatd and bitcoind mixed, over both versions of the transport, as people run them. However a network got
//! there, in the end every node has the same tip, the same mempool and the same coins (`Mixed::ends_well`).
//!
//! | what happens | test |
//! |---|---|
//! | mining in turns and payments by `bitcoin-cli`, a wallet at either kind of node, a partition with double spends | `five_nodes_pay_mine_in_turns_and_heal_a_partition` |
//! | `kill -9` and restarts while blocks and payments come | `nodes_that_are_killed_or_restarted_come_back_into_their_network` |
//! | pruned nodes, and who comes late to them | `pruned_nodes_serve_what_they_have_and_others_the_rest` |
//! | a thousand blocks to catch up with while the network goes on | `newcomers_catch_up_a_thousand_blocks_while_payments_flow` |

mod mixed;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{ScriptBuf, Txid};
use groat_tests::groatd::{repeat, wide};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::wallet::{COIN, Groat, Node};
use mixed::{Kind, Mixed, wait_until};

/// Five nodes, two of which, one of each kind, speak version 1 of the transport alone.
const FIVE: [(Kind, &[&str]); 5] = [
    (Kind::Groatd, &[]),
    (Kind::Bitcoind, &[]),
    (Kind::Groatd, &["--v2transport=0"]),
    (Kind::Bitcoind, &["-v2transport=0"]),
    (Kind::Groatd, &[]),
];

/// Who dials whom: a ring, and one link across.
const RING: [(usize, usize); 6] = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 4)];

/// The same answer from every node; gives it.
fn same(net: &Mixed, question: &[&str]) -> String {
    let first = net.cli(0, question);
    for node in 1..FIVE.len() {
        let answer = net.cli(node, question);
        let name = net.name(node);
        assert_eq!(answer, first, "bitcoin-cli {question:?}: {name} (left) and node 0 (right); {}", repeat());
    }
    first
}

/// Wallets at a node.
fn wallets(net: &Mixed, node: usize) -> Groat {
    Groat::new(&Node { rpc: net.rpc(node), cookie: net.folder(node).join("regtest/.cookie") })
}

#[test]
fn five_nodes_pay_mine_in_turns_and_heal_a_partition() {
    let Some(mut net) = Mixed::start(&FIVE) else { return };
    RING.iter().for_each(|(from, to)| net.link(*from, *to));
    assert_eq!([net.ends_over("v1"), net.ends_over("v2")], [6, 6], "both ends of three links each; {}", repeat());
    let (rich, shop) = (wallets(&net, 0), wallets(&net, 1));
    let made = rich.json("rich", &["create", "rich"]);
    shop.json("shop", &["create", "shop", "--type", "segwit"]);
    net.call(3, "generatetoaddress", json!([1, made["address"]]));
    net.all_reach(&net.tip(3));
    net.fill_purse(0);
    net.all_reach(&net.tip(0));

    // In turns: every node pays and mines.
    for round in 0..2 * FIVE.len() {
        for payer in [round + 1, round + 3] {
            net.pay_by_cli(payer % FIVE.len());
        }
        let hash = net.mine_by_cli(round % FIVE.len());
        net.all_reach(&hash);
    }
    rich.json("rich", &["send", &shop.address("shop"), "1btc"]);
    wait_until("the payment at the shop", || match shop.balance("shop") {
        [0, COIN, 0] => Ok(()),
        balance => Err(format!("{balance:?}")),
    });
    net.settle();
    assert_eq!(shop.balance("shop"), [COIN, 0, 0], "the payment is confirmed; {}", repeat());
    let tip = same(&net, &["getbestblockhash"]);
    same(&net, &["getblock", &tip, "2"]);
    same(&net, &["getblockstats", &tip]);
    same(&net, &["gettxoutsetinfo", "muhash"]);

    // A partition: the wallet at the node of the smaller half gets and loses a confirmation.
    let across = [(1, 2), (4, 0), (1, 4)];
    across.iter().for_each(|(from, to)| net.cut(*from, *to));
    let coin = net.coin();
    let [ours, theirs] = [0x61, 0x62].map(|script| {
        let script = ScriptBuf::from_bytes(vec![script, 0x51]).to_p2wsh();
        Mixed::payment(coin, script)
    });
    net.send(0, &ours);
    net.send(4, &theirs);
    shop.json("shop", &["send", &rich.address("rich"), "0.4btc"]);
    let kept = net.pay(0);
    for node in [1, 0, 1, 0] {
        let hash = net.mine(node, 1);
        net.reach(&hash, [0, 1]);
    }
    // All that the smaller half knew is in one block or another of its branch, or at least in one of its mempools.
    let [confirmed, pending, _] = rich.balance("rich");
    assert!(confirmed + pending > 49 * COIN, "the wallet has heard of it; {}", repeat());
    let mut hash = String::new();
    for node in [4, 3, 2, 4, 3, 2] {
        hash = net.mine(node, 1);
        net.reach(&hash, [2, 3, 4]);
    }
    across.iter().for_each(|(from, to)| net.link(*from, *to));
    net.all_reach(&hash);
    let unspent = |net: &Mixed, node, txid: Txid| net.call(node, "gettxout", json!([txid, 0, true]));
    for node in 0..FIVE.len() {
        let name = net.name(node);
        let [lost, won] = [&ours, &theirs].map(|tx| unspent(&net, node, tx.compute_txid()));
        assert_eq!(lost, Value::Null, "{name} keeps the payment of the smaller half; {}", repeat());
        assert!(won["confirmations"].as_u64() > Some(0), "{name} has {won}; {}", repeat());
    }
    let there = [0, 1].iter().any(|node| net.pool(*node).contains(&kept));
    assert!(there, "what was confirmed in the smaller half alone waits again; {}", repeat());
    net.settle();
    for node in 0..FIVE.len() {
        let name = net.name(node);
        assert!(unspent(&net, node, kept)["confirmations"].as_u64() > Some(0), "{name}; {}", repeat());
    }

    // The wallet at groatd, from its words, at a bitcoind: the same money and the same history.
    let words = rich.words("rich");
    let elsewhere = wallets(&net, 3);
    let words = elsewhere.file("words", &words);
    elsewhere.json("rich", &["restore", "rich", "--words-file", &words]);
    assert_eq!(elsewhere.balance("rich"), rich.balance("rich"), "bitcoind (left), groatd (right); {}", repeat());
    let history = |groat: &Groat| groat.json("rich", &["history"])["transactions"].clone();
    let ids = |list: Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|tx| json!([tx["txid"], tx["height"], tx["amount_sat"]])).collect()
    };
    assert_eq!(ids(history(&elsewhere)), ids(history(&rich)), "bitcoind (left), groatd (right); {}", repeat());
    net.ends_well();
}

/// The random choices of a test, from a seed that is printed. What a moment hits is not repeated exactly.
fn random() -> ChaCha8Rng {
    let seed = match std::env::var("GROAT_SEED") {
        Ok(seed) => seed.parse().expect("GROAT_SEED is a number"),
        Err(_) => rand::random(),
    };
    eprintln!("seed {seed}: GROAT_SEED={seed} makes the same choices again");
    ChaCha8Rng::seed_from_u64(seed)
}

#[test]
fn nodes_that_are_killed_or_restarted_come_back_into_their_network() {
    let mut random = random();
    let Some(mut net) = Mixed::start(&FIVE) else { return };
    RING.iter().for_each(|(from, to)| net.link(*from, *to));
    net.fill_purse(1);
    net.all_reach(&net.tip(1));
    for round in 0..if wide() { 8 } else { 3 } {
        // Always a groatd is killed; bitcoind is restarted too.
        let victim = [4, 2, 0][round % 3];
        let busy = [1, 3][round % 2];
        let moment = Duration::from_millis(random.random_range(0..600));
        let payments: Vec<_> = (0..30).map(|_| net.coin()).collect();
        let began = Instant::now();
        // Blocks and payments come from a bitcoind and from the node that is to die, which may be writing its own.
        std::thread::scope(|scope| {
            let [from, own] = [busy, victim].map(|node| net.rpc_again(node));
            scope.spawn(move || {
                for coin in payments {
                    let tx = serialize_hex(&Mixed::payment(coin, ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()));
                    from.call("sendrawtransaction", json!([tx])).unwrap();
                    from.call("generatetodescriptor", json!([1, "raw(52)"])).unwrap();
                }
            });
            scope.spawn(move || {
                // Until it is no more.
                while matches!(own.try_call("generatetodescriptor", &json!([1, "raw(53)"])), Ok(Ok(_))) {
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            std::thread::sleep(moment);
            net.kill(victim);
        });
        println!("{} killed after {moment:?} of {:?}", net.name(victim), began.elapsed());
        net.begin(victim);
        if round % 3 == 2 {
            net.stop(busy);
            net.begin(busy);
        }
        let gone = |node: usize| node == victim || (round % 3 == 2 && node == busy);
        RING.iter().filter(|(from, to)| gone(*from) || gone(*to)).for_each(|(from, to)| net.link(*from, *to));
        // It may have left with a branch of its own.
        net.agree();
    }
    net.ends_well();
}

/// What a node says of its chain.
fn chain(net: &Mixed, node: usize, key: &str) -> Value {
    net.call(node, "getblockchaininfo", json!([]))[key].clone()
}

#[test]
fn pruned_nodes_serve_what_they_have_and_others_the_rest() {
    let plan = [
        (Kind::Groatd, &["--prune=1", "--fastprune"][..]),
        (Kind::Bitcoind, &["-prune=1", "-fastprune"]),
        (Kind::Groatd, &["--v2transport=0"]),
        (Kind::Bitcoind, &["-v2transport=0"]),
        (Kind::Groatd, &[]),
    ];
    let Some(mut net) = Mixed::start(&plan) else { return };
    [(0, 1), (1, 2), (2, 3), (3, 0)].iter().for_each(|(from, to)| net.link(*from, *to));
    net.fill_purse(2);
    for _ in 0..12 {
        net.pay(2);
        net.mine(2, 50);
    }
    let settled = 0..4;
    net.reach(&net.tip(2), settled.clone());
    for node in [0, 1] {
        let name = net.name(node);
        net.call(node, "pruneblockchain", json!([300]));
        let from = chain(&net, node, "pruneheight").as_u64();
        assert!(from > Some(50) && from < Some(420), "{name} is pruned up to {from:?}; {}", repeat());
        let hash = net.call(node, "getblockhash", json!([1]));
        let error = net.rpc(node).call("getblock", json!([hash])).unwrap_err();
        assert_eq!(error.message, "Block not available (pruned data)", "block 1 of {name}; {}", repeat());
    }

    // Who comes with nothing hears of all headers from them, and asks them for nothing that they do not have.
    net.link(4, 0);
    net.link(4, 1);
    let hash = net.mine(3, 1);
    net.reach(&hash, settled);
    let headers = json!(net.height(3));
    wait_until("the headers from pruned nodes", || match chain(&net, 4, "headers") {
        found if found == headers => Ok(()),
        found => Err(format!("{found} of {headers}")),
    });
    assert_eq!(net.height(4), 0, "the blocks below are at neither of its peers; {}", repeat());
    net.link(4, 3);
    net.all_reach(&hash);

    // Who was away for a hundred blocks is brought up by the pruned groatd alone.
    net.cut(1, 2);
    net.cut(2, 3);
    for node in [0, 1, 3, 4] {
        net.pay(node);
        let hash = net.mine(node, 25);
        net.reach(&hash, [0, 1, 3, 4]);
    }
    net.link(2, 0);
    net.all_reach(&net.tip(0));
    // So is a bitcoind that was away; this one brings the better branch along, and 50 blocks are taken back.
    net.cut(3, 0);
    net.cut(4, 3);
    net.mine(1, 50);
    net.reach(&net.tip(1), [0, 1, 2, 4]);
    let hash = net.mine(3, 60);
    net.link(3, 0);
    net.all_reach(&hash);
    net.ends_well();
}

#[test]
fn newcomers_catch_up_a_thousand_blocks_while_payments_flow() {
    let Some(mut net) = Mixed::start(&FIVE) else { return };
    [(0, 1), (1, 2), (2, 0)].iter().for_each(|(from, to)| net.link(*from, *to));
    net.fill_purse(1);
    for _ in 0..100 {
        net.pay(1);
        net.pay(1);
        net.mine(1, 10);
    }
    net.reach(&net.tip(1), [0, 1, 2]);
    let begun = net.height(1);
    let coins: Vec<_> = (0..1_000).map(|_| net.coin()).collect();
    let (caught_up, paid) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let rpcs = [0, 1, 2].map(|node| net.rpc_again(node));
        scope.spawn(|| {
            let rpcs = rpcs;
            for (number, coin) in coins.into_iter().enumerate() {
                if caught_up.load(Ordering::Relaxed) && number >= 60 {
                    break;
                }
                let tx = serialize_hex(&Mixed::payment(coin, ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()));
                rpcs[number % 3].call("sendrawtransaction", json!([tx])).unwrap();
                if number % 5 == 0 {
                    // Often on a tip that another one has found a block on: branches come and go.
                    rpcs[number / 5 % 3].call("generatetodescriptor", json!([1, "raw(52)"])).unwrap();
                }
                paid.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        // A groatd that has nothing, and behind it a bitcoind that knows only this groatd.
        net.link(4, 0);
        net.link(4, 2);
        net.link(3, 4);
        for node in [4, 3] {
            wait_until(&format!("{} has what was there before it came", net.name(node)), || match net.height(node) {
                height if height >= begun => Ok(()),
                height => Err(format!("height {height}")),
            });
        }
        caught_up.store(true, Ordering::Relaxed);
    });
    println!("{} payments while {} blocks were caught up with", paid.into_inner(), begun);
    net.agree();
    net.ends_well();
}
