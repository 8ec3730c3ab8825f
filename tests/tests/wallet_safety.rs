//! The wallet among nodes that lie or break off, beside a second command, and with careless hands: what is asked for is
//! done once, and nothing is lost.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{OutPoint, ScriptBuf, Witness};
use groat_tests::bitcoind::{Rpc, read_answer};
use groat_tests::groatd::repeat;
use groat_tests::regtest;
use serde_json::{Value, json};

use crate::wallet::{COIN, ELSEWHERE, Groat, Node, PASSWORD, on_groatd, two_wallets};

/// Stands before a node and may change each answer (`result` and `error`), or hang up in place of giving it.
struct Liar {
    place: std::net::SocketAddr,
    done: Arc<AtomicBool>,
}

impl Liar {
    fn before(node: &Node<'_>, lie: impl Fn(&str, &Value, Value) -> Option<Value> + Send + 'static) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (place, done) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let (real, stop) = (Rpc::with_authorization_of(node.rpc), done.clone());
        std::thread::spawn(move || {
            let answer = |call: &Value| {
                let (method, params) = (call["method"].as_str().unwrap(), &call["params"]);
                let mut said = match real.call(method, params.clone()) {
                    Ok(result) => json!({"result": result, "error": null}),
                    Err(error) => json!({"result": null, "error": {"code": error.code, "message": error.message}}),
                };
                said = lie(method, params, said)?;
                said["id"] = call["id"].clone();
                Some(said)
            };
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let mut stream = BufReader::new(stream.unwrap());
                let Ok((_, body)) = read_answer(&mut stream) else { continue };
                let Ok(asked) = serde_json::from_slice::<Value>(&body) else { continue };
                let said = match asked.as_array() {
                    Some(calls) => calls.iter().map(answer).collect::<Option<Vec<_>>>().map(Value::Array),
                    None => answer(&asked),
                };
                if let Some(said) = said {
                    let (said, head) = (said.to_string(), "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:");
                    let _ = write!(stream.get_mut(), "{head} {}\r\n\r\n{said}", said.len());
                }
            }
        });
        Liar { place, done }
    }

    /// The same wallets, which now ask this one.
    fn asked(&self, groat: &mut Groat) {
        groat.rpc = self.place.to_string();
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(self.place);
    }
}

#[test]
fn a_payment_that_broke_off_is_neither_lost_nor_made_twice() {
    on_groatd(|node| {
        let mut groat = two_wallets(node);
        let (to, truth) = (groat.address("poor"), groat.rpc.clone());
        // The node takes the payment, and its answer does not arrive.
        let liar = Liar::before(node, |method, _, said| (method != "sendrawtransaction").then_some(said));
        liar.asked(&mut groat);
        groat.run("rich", &["send", &to, "1btc"]).failed(4, &["may be out", "Do not pay again"]);
        groat.rpc = truth.clone();
        assert_eq!(groat.balance("poor"), [0, COIN, 0]);
        assert_eq!(node.call("getrawmempool", json!([])).as_array().unwrap().len(), 1);

        node.mine(1, ELSEWHERE);
        // All that fails after it was taken is no failure.
        let liar = Liar::before(node, |method, _, said| (method != "getconnectioncount").then_some(said));
        liar.asked(&mut groat);
        let paid = groat.json("rich", &["send", &to, "3btc"]);
        assert_eq!((&paid["paid_sat"], &paid["relayed"]), (&json!(3 * COIN), &json!(false)), "{paid}");
        groat.rpc = truth;
        assert_eq!(groat.balance("poor"), [COIN, 3 * COIN, 0]);
    });
}

#[test]
fn payments_that_the_node_forgot_are_sent_again_parents_first() {
    on_groatd(|node| {
        let mut groat = two_wallets(node);
        let to = groat.address("poor");
        for _ in 0..4 {
            groat.json("rich", &["send", &to, "1btc"]);
        }
        let before = groat.balance("rich");
        // It says that it has none of them, and takes each only after the one that it spends.
        let taken = std::sync::Mutex::new(Vec::<String>::new());
        let real = Rpc::with_authorization_of(node.rpc);
        let liar = Liar::before(node, move |method, params, said| {
            let mut taken = taken.lock().unwrap();
            match method {
                "getrawmempool" => Some(json!({"result": [], "error": null})),
                "sendrawtransaction" => {
                    let read = real.call("decoderawtransaction", params.clone()).unwrap();
                    let parent = read["vin"][0]["txid"].as_str().unwrap();
                    let known = real.call("gettxout", json!([parent, read["vin"][0]["vout"], false])).unwrap();
                    if known.is_null() && !taken.iter().any(|txid| txid == parent) {
                        let error = json!({"code": -25, "message": "bad-txns-inputs-missingorspent"});
                        return Some(json!({"result": null, "error": error}));
                    }
                    taken.push(read["txid"].as_str().unwrap().to_owned());
                    Some(said)
                }
                _ => Some(said),
            }
        });
        liar.asked(&mut groat);
        let said = groat.run("rich", &["balance"]);
        assert_eq!(said.stderr.matches("it was sent again").count(), 4, "expected: all four\n{}", said.all());
        assert_eq!(groat.balance("rich"), before, "expected: none is taken for undone");
    });
}

#[test]
fn what_a_node_says_is_not_believed_against_reason() {
    on_groatd(|node| {
        let mut groat = two_wallets(node);
        let to = groat.address("poor");
        let truth = groat.rpc.clone();
        let result = |value: Value| Some(json!({"result": value, "error": null}));

        let liar = Liar::before(node, move |method, _, said| match method {
            "estimatesmartfee" => result(json!({"feerate": 0.5, "blocks": 6})),
            _ => Some(said),
        });
        liar.asked(&mut groat);
        groat.run("rich", &["send", &to, "1000"]).failed(1, &["50000 sat/vB", "--feerate"]);

        let liar = Liar::before(node, move |method, _, mut said| {
            if method == "testmempoolaccept" {
                said["result"][0]["fees"]["base"] = json!(0.00000001);
            }
            Some(said)
        });
        liar.asked(&mut groat);
        groat.run("rich", &["send", &to, "1000"]).failed(1, &["1 sat", "nothing was sent"]);

        for height in [u64::from(u32::MAX), u64::from(u32::MAX >> 1) + 1] {
            let liar = Liar::before(node, move |method, _, mut said| {
                if method == "getblockchaininfo" {
                    said["result"]["blocks"] = height.into();
                }
                Some(said)
            });
            liar.asked(&mut groat);
            groat.run("rich", &["balance"]).failed(4, &["cannot be"]);
        }

        // A block of the right hash with another transaction in it, and one of another hash.
        for (digits, why) in [(90, "not those that its header names"), (10, "another one than was asked for")] {
            node.mine(1, ELSEWHERE);
            let liar = Liar::before(node, move |method, _, mut said| {
                if method == "getblock" {
                    let mut text = said["result"].as_str().unwrap().to_owned().into_bytes();
                    // The version of the coinbase stands after 80 bytes of header and the count; or that of the header.
                    let at = if digits == 90 { 2 * 81 + 1 } else { 1 };
                    text[at] = if text[at] == b'0' { b'1' } else { b'0' };
                    said["result"] = String::from_utf8(text).unwrap().into();
                }
                Some(said)
            });
            liar.asked(&mut groat);
            groat.run("rich", &["balance"]).failed(4, &["is wrong", why]);
        }

        // A transaction of the mempool that is another one than its id says.
        groat.rpc = truth.clone();
        let sent = groat.json("rich", &["send", &to, "1btc"]);
        let other = node.call("getblock", json!([node.call("getblockhash", json!([1])), 2]))["tx"][0]["hex"].clone();
        let liar = Liar::before(node, move |method, _, said| match method {
            "getrawtransaction" => result(other.clone()),
            _ => Some(said),
        });
        liar.asked(&mut groat);
        assert_eq!(groat.balance("poor"), [0, 0, 0], "{sent}");
        groat.rpc = truth;
        assert_eq!(groat.balance("poor"), [0, COIN, 0], "expected: it is asked for again");
    });
}

#[test]
fn a_payment_that_another_one_spends_is_neither_replaced_nor_taken_back() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let to = groat.address("poor");
        let first = groat.json("rich", &["send", &to, "1btc", "--feerate", "1"]);
        let second = groat.json("rich", &["send", &to, "2btc", "--feerate", "1"]);
        let (first, second) = (first["txid"].as_str().unwrap(), second["txid"].as_str().unwrap());
        for command in ["bump", "cancel"] {
            groat.run("rich", &[command, first, "--feerate", "90"]).failed(1, &[second, "spends what comes of it"]);
        }
        assert_eq!(groat.balance("poor"), [0, 3 * COIN, 0]);
        groat.json("rich", &["bump", second, "--feerate", "90"]);
        assert_eq!(groat.balance("poor"), [0, 3 * COIN, 0]);
    });
}

#[test]
fn a_payment_of_all_is_taken_back_where_nothing_is_left_to_raise_its_fee() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let all = groat.json("rich", &["send", ELSEWHERE, "max", "--feerate", "1"]);
        let txid = all["txid"].as_str().unwrap();
        groat
            .run("rich", &["bump", txid, "--feerate", "5"])
            .failed(3, &["are missing", &format!("groat cancel {txid}")]);
        let back = groat.json("rich", &["cancel", txid]);
        assert_eq!(groat.balance("rich")[1], 50 * COIN - back["fee_sat"].as_u64().unwrap());
    });
}

#[test]
fn a_wallet_is_made_whole_or_not_at_all_and_never_over_another() {
    let rpc = Rpc::new(([127, 0, 0, 1], 1).into(), "");
    let groat = Groat::new(&Node { rpc: &rpc, cookie: "/nowhere".into() });
    // Several at once: one is made, with the words that it was shown with.
    let start = || {
        let mut command = groat.command("w", &["create", "w"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let made: Vec<_> = [start(), start(), start()].map(|child| child.wait_with_output().unwrap()).into();
    let made: Vec<_> = made.iter().filter(|output| output.status.success()).collect();
    assert_eq!(made.len(), 1, "expected: one of three is made\n{}", repeat());
    let said: Value = serde_json::from_slice(&made[0].stdout).unwrap();
    assert_eq!(groat.json("w", &["backup", "words"])["words"], said["words"]);

    // Stopped at any moment: the name is free or has a whole wallet.
    for after in (0..10).map(|step| Duration::from_millis(60 * step)) {
        let name = format!("k{}", after.as_millis());
        let mut child =
            groat.command(&name, &["create", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        let _ = child.kill();
        child.wait().unwrap();
        let listed = groat.json(&name, &["list"])["wallets"].as_array().unwrap().len();
        let said = groat.run(&name, &["create", &name]);
        match said.code {
            Some(0) => {}
            _ => said.failed(1, &["already"]),
        }
        assert!(groat.json(&name, &["backup", "words"])["words"].is_array());
        groat.json(&name, &["delete", &name, "--force"]);
        assert!(
            groat.json("w", &["list"])["wallets"].as_array().unwrap().len() < listed.max(2),
            "{name} is still there"
        );
    }
}

#[test]
fn a_wallet_with_money_is_deleted_by_force_alone_and_its_copy_is_it() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let copy = groat.folder.path().join("copy");
        groat.run("rich", &["backup", "file"]).failed(2, &["where to"]);
        groat.json("rich", &["backup", "file", copy.to_str().unwrap()]);
        groat.run("rich", &["backup", "file", copy.to_str().unwrap()]).failed(1, &["exists"]);
        groat.run("rich", &["delete", "rich"]).failed(1, &["5,000,000,000 sat", "--force"]);
        groat.json("rich", &["delete", "poor"]);
        groat.json("rich", &["delete", "rich", "--force"]);
        assert_eq!(groat.json("rich", &["list"])["wallets"], json!([]));
        groat.run("rich", &["balance"]).failed(1, &["no wallet"]);
        std::fs::rename(copy, groat.folder.path().join("regtest/wallets/rich")).unwrap();
        assert_eq!(groat.balance("rich"), [50 * COIN, 0, 0]);
        groat.json("rich", &["send", ELSEWHERE, "1btc"]);
    });
}

#[test]
fn payments_given_at_once_are_made_one_by_one_or_refused() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let start = |_| {
            let mut command = groat.command("rich", &["send", ELSEWHERE, "1btc"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let done: Vec<_> =
            (0..4).map(start).collect::<Vec<_>>().into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let paid = done.iter().filter(|output| output.status.success()).count();
        for output in done.iter().filter(|output| !output.status.success()) {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("another command works with the wallet"), "{said}");
        }
        assert!(paid >= 1);
        let waiting = node.call("getrawmempool", json!([]));
        assert_eq!(waiting.as_array().unwrap().len(), paid, "expected: a transaction for each success\n{waiting}");
        let fees = 50 * COIN - paid as u64 * COIN - groat.balance("rich")[1];
        assert!(fees < 10_000, "{fees} are gone");
    });
}

#[test]
fn a_label_from_a_link_cannot_command_the_terminal() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let link = format!("bitcoin:{ELSEWHERE}?amount=0.001&label=%1b%5b2Jrent%0a%2b5");
        groat.json("rich", &["send", &link]);
        let output = groat.plain("rich", &["history"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("?[2Jrent +5") && !said.contains('\u{1b}'), "{said:?}");
    });
}

#[test]
fn no_secret_is_in_the_files_but_encrypted() {
    fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, visit) } else { visit(&path) }
        }
    }
    use std::os::unix::fs::PermissionsExt;
    on_groatd(|node| {
        let groat = two_wallets(node);
        groat.json("rich", &["send", ELSEWHERE, "1btc"]);
        let words = groat.words("rich");
        let master = "tprv8";
        let checked = AtomicU32::new(0);
        walk(&groat.folder.path().join("regtest"), &mut |path| {
            let bytes = std::fs::read(path).unwrap();
            for secret in [words.split(' ').take(3).collect::<Vec<_>>().join(" "), PASSWORD.into(), master.into()] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} holds {secret:?}", path.display());
            }
            let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{} has mode {mode:o}", path.display());
            checked.fetch_add(1, Ordering::Relaxed);
        });
        assert!(checked.into_inner() >= 6);
    });
}

/// A wallet made anew sees what waits as the old one does, though the mempool is looked at in parts, and a payment may
/// stand in a later part than the one that spends it.
#[test]
fn a_first_look_at_a_full_mempool_finds_payments_in_any_order() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let anyone = ScriptBuf::from_bytes(vec![0x51]);
        let unlocked = ScriptBuf::new_p2wsh(&anyone.wscript_hash());
        let address = bitcoin::Address::from_script(&unlocked, bitcoin::Network::Regtest).unwrap().to_string();
        let hash = node.mine(1, &address).remove(0);
        node.mine(6, &groat.address("rich"));
        node.mine(100, ELSEWHERE);

        let spend = |outpoint: OutPoint, outputs: Vec<bitcoin::TxOut>| {
            let mut input = regtest::unsigned(outpoint);
            input.witness = Witness::from_slice(&[anyone.as_bytes()]);
            let made = regtest::transaction(vec![input], outputs);
            node.call("sendrawtransaction", json!([serialize_hex(&made)]));
            made.compute_txid()
        };
        let mined = node.call("getblock", json!([hash, 1]))["tx"][0].as_str().unwrap().parse().unwrap();
        let strangers = 250;
        let each = regtest::subsidy(102).to_sat() / (strangers + 1);
        let fan = spend(OutPoint::new(mined, 0), vec![regtest::output(each, unlocked.clone()); strangers as usize]);
        node.mine(1, ELSEWHERE);
        for vout in 0..strangers as u32 {
            spend(OutPoint::new(fan, vout), vec![regtest::output(each - 1000, unlocked.clone())]);
        }
        // Each coin pays, and then what came back of it pays all.
        let coins = groat.json("rich", &["coins"])["coins"].clone();
        for coin in coins.as_array().unwrap() {
            groat.json("rich", &["send", ELSEWHERE, "1btc", "--from", coin["outpoint"].as_str().unwrap()]);
        }
        let coins = groat.json("rich", &["coins"])["coins"].clone();
        for coin in coins.as_array().unwrap() {
            groat.json("rich", &["send", ELSEWHERE, "max", "--from", coin["outpoint"].as_str().unwrap()]);
        }
        assert_eq!(groat.balance("rich"), [0, 0, 0]);
        let words = groat.file("words", &groat.words("rich"));
        groat.json("again", &["restore", "again", "--words-file", &words]);
        assert_eq!(groat.balance("again"), [0, 0, 0], "expected: what was spent is not taken for there");
        let ids = |wallet: &str| {
            let said = groat.json(wallet, &["history"]);
            let all = said["transactions"].as_array().unwrap().iter();
            all.map(|entry| entry["txid"].to_string()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(ids("again"), ids("rich"));
        assert_eq!(ids("again").len(), 3 * 7, "expected: mined, paid, paid on");
    });
}
