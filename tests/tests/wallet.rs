//! The `groat` command from end to end: its binary, against groatd and against bitcoind, on regtest.
//! Needs both binaries of this checkout: `cargo build --release -p groat-node -p groat-wallet`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use groat_tests::bitcoind::{Bitcoind, Rpc, peers};
use groat_tests::groatd::{Groatd, binary, repeat};
use groat_tests::running::Running;
use serde_json::{Value, json};

/// An address that nobody of the tests has.
pub const ELSEWHERE: &str = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";
pub const PASSWORD: &str = "correct horse";

/// A node of either kind, as the wallet sees it.
pub struct Node<'a> {
    pub rpc: &'a Rpc,
    pub cookie: PathBuf,
}

impl Node<'_> {
    pub fn call(&self, method: &str, params: Value) -> Value {
        self.rpc.call(method, params).unwrap_or_else(|error| panic!("{method}: {error:?}\n{}", repeat()))
    }

    /// Mines blocks with all that waits, and gives their hashes.
    pub fn mine(&self, blocks: u32, address: &str) -> Vec<String> {
        serde_json::from_value(self.call("generatetoaddress", json!([blocks, address]))).unwrap()
    }
}

/// A folder of wallets, and the node they look at.
pub struct Groat {
    pub folder: tempfile::TempDir,
    pub rpc: String,
    pub cookie: PathBuf,
}

/// What a run of `groat` came to.
pub struct Said {
    command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn all(&self) -> String {
        let Said { command, code, stdout, stderr } = self;
        format!("command: {command}\nstatus {code:?}, standard output:\n{stdout}standard error:\n{stderr}{}", repeat())
    }

    /// The answer of a run with `--json`.
    pub fn json(self) -> Value {
        assert_eq!(self.code, Some(0), "expected: status 0\n{}", self.all());
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("expected: JSON ({error})\n{}", self.all()))
    }

    /// Panics unless it failed with this status and one sentence, as JSON, with all of `parts`.
    pub fn failed(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "expected: status {code} (right)\n{}", self.all());
        let last: Value = serde_json::from_str(self.stderr.lines().last().unwrap_or_default()).unwrap_or_default();
        assert_eq!(last["exit_code"], json!(code), "expected: the error as JSON, last\n{}", self.all());
        let error = last["error"].as_str().unwrap_or_default();
        for part in parts {
            assert!(error.contains(part), "expected in the error: {part:?}\n{}", self.all());
        }
    }
}

impl Groat {
    pub fn new(node: &Node<'_>) -> Groat {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).unwrap();
        Groat { folder, rpc: node.rpc.address().to_string(), cookie: node.cookie.clone() }
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// What a person would type, with no answer given beforehand.
    pub fn plain(&self, wallet: &str, arguments: &[&str]) -> Command {
        let path = binary().with_file_name("groat");
        assert!(path.is_file(), "there is no {}: cargo build --release -p groat-wallet", path.display());
        let mut command = Command::new(path);
        command.args(arguments).args(["--chain", "regtest", "--wallet", wallet]);
        command.arg("--datadir").arg(self.folder.path()).arg("--rpc").arg(&self.rpc);
        command.arg("--rpc-cookie").arg(&self.cookie).env_remove("GROAT_CHAIN").stdin(Stdio::null());
        command
    }

    pub fn command(&self, wallet: &str, arguments: &[&str]) -> Command {
        let mut command = self.plain(wallet, arguments);
        command.args(["--json", "--yes", "--no-input"]);
        if !arguments.contains(&"--password-file") {
            command.arg("--password-file").arg(self.folder.path().join("password"));
        }
        command
    }

    pub fn run(&self, wallet: &str, arguments: &[&str]) -> Said {
        let mut command = self.command(wallet, arguments);
        let output = command.output().unwrap();
        Said {
            command: command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        }
    }

    pub fn json(&self, wallet: &str, arguments: &[&str]) -> Value {
        self.run(wallet, arguments).json()
    }

    pub fn address(&self, wallet: &str) -> String {
        self.json(wallet, &["receive"])["address"].as_str().unwrap().to_owned()
    }

    /// Confirmed, pending and immature satoshi.
    pub fn balance(&self, wallet: &str) -> [u64; 3] {
        let said = self.json(wallet, &["balance"]);
        ["confirmed_sat", "pending_sat", "immature_sat"].map(|key| said[key].as_u64().unwrap())
    }

    pub fn words(&self, wallet: &str) -> String {
        let words: Vec<String> =
            serde_json::from_value(self.json(wallet, &["backup", "words"])["words"].clone()).unwrap();
        words.join(" ")
    }
}

pub const COIN: u64 = 100_000_000;

/// Runs a test against groatd.
pub fn on_groatd(test: impl Fn(&Node<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path());
    let node = Running::start(&groatd, &["--connect=0"]);
    test(&Node { rpc: &node.rpc, cookie: groatd.chain_folder().join(".cookie") });
    node.stop();
}

/// Runs a test against bitcoind, where there is one.
fn on_bitcoind(test: impl Fn(&Node<'_>)) {
    on_bitcoind_with(&[], test);
}

fn on_bitcoind_with(options: &[&str], test: impl Fn(&Node<'_>)) {
    let Some(peers) = peers() else { return };
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let node = Bitcoind::start(&peers, &options);
    test(&Node { rpc: node.rpc(), cookie: node.folder().join("regtest/.cookie") });
}

/// A wallet `rich` with 50 bitcoin that can be spent, and an empty one, `poor`, of the other type.
pub fn two_wallets(node: &Node<'_>) -> Groat {
    let groat = Groat::new(node);
    let made = groat.json("rich", &["create", "rich"]);
    assert_eq!(made["words"].as_array().unwrap().len(), 12, "expected: 12 words, once\n{made}");
    groat.json("poor", &["create", "poor", "--type", "segwit", "--words", "24"]);
    node.mine(1, made["address"].as_str().unwrap());
    node.mine(100, ELSEWHERE);
    assert_eq!(groat.balance("rich"), [50 * COIN, 0, 0]);
    groat
}

/// A payment, its fee raised, mined; then the receiver from its words, and its birthday, again.
fn pay_bump_restore(node: &Node<'_>) {
    let groat = two_wallets(node);
    let to = groat.address("poor");
    let asked = groat.json("rich", &["send", &to, "0.5btc", "--feerate", "2", "--dry-run"]);
    assert_eq!(groat.balance("rich"), [50 * COIN, 0, 0], "expected: a dry run changes nothing");
    let sent = groat.json("rich", &["send", &to, "0.5btc", "--feerate", "2"]);
    assert_eq!((&sent["paid_sat"], &sent["replaceable"]), (&json!(COIN / 2), &json!(true)), "{sent}");
    assert_eq!(asked["fee_sat"], sent["fee_sat"], "expected: what the dry run said");
    let (fee, change) = (sent["fee_sat"].as_u64().unwrap(), sent["change_sat"].as_u64().unwrap());
    assert_eq!(fee + change + COIN / 2, 50 * COIN, "expected: nothing lost\n{sent}");
    assert_eq!(groat.balance("poor"), [0, COIN / 2, 0]);

    let txid = sent["txid"].as_str().unwrap();
    let raised = groat.json("rich", &["bump", txid, "--feerate", "20"]);
    assert_eq!((&raised["method"], &raised["replaces"]), (&json!("replacement"), &json!(txid)), "{raised}");
    assert!(raised["fee_sat"].as_u64().unwrap() > 5 * fee, "expected: ten times the fee\n{raised}");
    let new = raised["txid"].as_str().unwrap();
    assert_eq!(node.call("getrawmempool", json!([])), json!([new]), "expected: the replacement alone");

    // The receiver cannot replace it; a child of its pays for both.
    let child = groat.json("poor", &["bump", new, "--feerate", "50"]);
    assert_eq!(child["method"], json!("child"), "{child}");
    let child_fee = child["fee_sat"].as_u64().unwrap();
    let entry = node.call("getmempoolentry", json!([child["txid"]]));
    let (size, all) = (entry["ancestorsize"].as_u64().unwrap(), child_fee + raised["fee_sat"].as_u64().unwrap());
    assert!((50 * size..=51 * size).contains(&all), "expected: 50 sat/vB for both, got {all} for {size} vB");

    node.mine(1, ELSEWHERE);
    let left = COIN / 2 - child_fee;
    assert_eq!(groat.balance("poor"), [left, 0, 0]);
    let words = groat.file("words", &groat.words("poor"));
    for birthday in [&["--birthday", "90"][..], &["--birthday", "2011-01-01"], &[]] {
        let name = format!("again-{}", birthday.len() + birthday.concat().len());
        let mut arguments = vec!["restore", &name, "--type", "segwit", "--words-file", &words];
        arguments.extend(birthday);
        groat.json(&name, &arguments);
        assert_eq!(groat.balance(&name), [left, 0, 0], "restored with {birthday:?}");
        let of = |wallet: &str| groat.json(wallet, &["history"])["transactions"].clone();
        assert_eq!(of(&name), of("poor"), "restored with {birthday:?}");
    }
}

#[test]
fn pay_bump_restore_with_groatd() {
    on_groatd(pay_bump_restore);
}

#[test]
fn pay_bump_restore_with_bitcoind() {
    on_bitcoind(pay_bump_restore);
}

/// A payment that was confirmed is gone when its block is replaced by one without it.
fn reorganisation(node: &Node<'_>) {
    let groat = two_wallets(node);
    let sent = groat.json("rich", &["send", &groat.address("poor"), "100ksat"]);
    let block = node.mine(1, ELSEWHERE).remove(0);
    assert_eq!(groat.balance("poor"), [100_000, 0, 0]);

    node.call("invalidateblock", json!([block]));
    assert_eq!(groat.balance("poor"), [0, 100_000, 0], "expected: the payment waits again");
    let canceled = groat.json("rich", &["cancel", sent["txid"].as_str().unwrap()]);
    assert_eq!((&canceled["paid_sat"], &canceled["replaces"]), (&json!(0), &sent["txid"]), "{canceled}");
    assert_eq!(groat.balance("poor"), [0, 0, 0], "expected: a payment that was taken back is gone");
    node.mine(2, ELSEWHERE);
    assert_eq!(groat.balance("poor"), [0, 0, 0]);
    let fee = canceled["fee_sat"].as_u64().unwrap();
    assert_eq!(groat.balance("rich"), [50 * COIN - fee, 0, 0]);
}

#[test]
fn reorganisation_with_groatd() {
    on_groatd(reorganisation);
}

#[test]
fn reorganisation_with_bitcoind() {
    on_bitcoind(reorganisation);
}

/// Payments far below the tip are found by block filters, those to addresses far apart too, and a long history stays the
/// same when it is read from its file.
#[test]
fn filters_find_old_payments() {
    on_bitcoind_with(&["-blockfilterindex=1"], |node| {
        let groat = Groat::new(node);
        groat.json("old", &["create", "old", "--type", "segwit"]);
        let mut paid = 0;
        for _ in 0..20 {
            let address = groat.json("old", &["receive", "--new"])["address"].as_str().unwrap().to_owned();
            node.mine(1, &address);
            // Few enough that filters pay.
            node.mine(30, ELSEWHERE);
            paid += 1;
        }
        node.mine(200, ELSEWHERE);
        groat.balance("old");
        let words = groat.file("words", &groat.words("old"));
        groat.json("again", &["restore", "again", "--type", "segwit", "--words-file", &words]);
        let of = |wallet: &str| groat.json(wallet, &["history", "--limit", "1000"])["transactions"].clone();
        let first = of("again");
        assert_eq!(first.as_array().unwrap().len(), paid, "expected: a payment for each block that was mined to it");
        assert_eq!(first, of("old"), "expected: what is found from the words is what was there");
        assert_eq!(first, of("again"), "expected: the same from the file");
        let coins = groat.json("again", &["coins"]);
        assert!(coins["coins"].as_array().unwrap().iter().all(|coin| coin["immature"] == json!(false)), "{coins}");
        assert_eq!(groat.balance("again")[1..], [0, 0]);
    });
}

/// Each mistake has its sentence and its exit code, and nothing is sent.
fn mistakes(node: &Node<'_>) {
    let groat = two_wallets(node);
    let to = groat.address("poor");
    let main = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    groat.run("rich", &["send", &to, "51btc"]).failed(3, &["are missing"]);
    groat.run("poor", &["send", &to, "1000"]).failed(3, &["are missing"]);
    groat.run("rich", &["send", &to, "0.5"]).failed(2, &["0.5btc (50,000,000 sat)"]);
    groat.run("rich", &["send", main, "1000"]).failed(1, &["address of main", "regtest"]);
    groat.run("rich", &["send", &to, "1"]).failed(1, &["dust"]);
    groat.run("rich", &["send", &to, "1000", "--feerate", "0.001"]).failed(1, &["too low"]);
    groat.run("nobody", &["balance"]).failed(1, &["no wallet \"nobody\"", "groat list"]);
    groat.run("rich", &["create", "rich"]).failed(1, &["already"]);
    groat.run("rich", &["create", "../rich"]).failed(2, &["cannot be"]);
    let wrong = groat.file("wrong", "incorrect horse\n");
    groat.run("rich", &["send", &to, "1000", "--password-file", &wrong]).failed(1, &["wrong wallet password"]);
    let words = groat.file("words", &groat.words("poor").replacen(' ', " abadnon ", 1));
    groat.run("new", &["restore", "new", "--words-file", &words]).failed(1, &["word 2", "abandon"]);
    assert_eq!(node.call("getrawmempool", json!([])), json!([]), "expected: nothing was sent");

    // Another command that holds the wallet: the second payment is refused, not made later.
    let lock = std::fs::File::open(groat.folder.path().join("regtest/wallets/rich/.lock")).unwrap();
    lock.lock().unwrap();
    groat.run("rich", &["send", &to, "1000"]).failed(1, &["another command"]);
    drop(lock);
}

fn copy(from: &Path, to: &Path) {
    groat_tests::groatd::copy_folder(from, to);
}

#[test]
fn mistakes_with_groatd() {
    on_groatd(mistakes);
}

#[test]
fn mistakes_with_bitcoind() {
    on_bitcoind(mistakes);
}

#[test]
fn without_a_node_the_path_tried_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let rpc = Rpc::new(([127, 0, 0, 1], groat_tests::bitcoind::free_port()).into(), "");
    let groat = Groat::new(&Node { rpc: &rpc, cookie: folder.path().join("none/.cookie") });
    // A wallet can be made, and be paid at, without a node.
    let made = groat.json("w", &["create", "w"]);
    assert_eq!(made["birthday_height"], Value::Null, "{made}");
    assert_eq!(groat.address("w"), made["address"].as_str().unwrap());
    let path = folder.path().join("none/.cookie").display().to_string();
    groat.run("w", &["balance"]).failed(4, &["no node at 127.0.0.1", &path, "groatd --chain regtest"]);
    std::fs::create_dir(folder.path().join("none")).unwrap();
    std::fs::write(&path, "__cookie__:00").unwrap();
    groat.run("w", &["send", &groat.address("w"), "1000"]).failed(4, &["no node at 127.0.0.1", &path]);
}

#[test]
fn wallet_files_are_for_their_owner_alone_and_a_damaged_one_is_said() {
    use std::os::unix::fs::PermissionsExt;
    let rpc = Rpc::new(([127, 0, 0, 1], 1).into(), "");
    let groat = Groat::new(&Node { rpc: &rpc, cookie: "/nowhere".into() });
    groat.json("w", &["create", "w"]);
    let folder = groat.folder.path().join("regtest/wallets/w");
    for name in ["wallet.sqlite", "seed.enc"] {
        let mode = std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name} has mode {mode:o}");
    }
    let words = groat.words("w");
    let new = groat.file("new", "a new one\n");
    groat.json("w", &["password", "--new-password-file", &new]);
    groat.run("w", &["backup", "words"]).failed(1, &["wrong wallet password"]);
    let said = groat.json("w", &["backup", "words", "--password-file", &new]);
    assert_eq!(said["words"].as_array().unwrap().len(), words.split(' ').count());

    let copied = groat.folder.path().join("signet/wallets/w");
    copy(&folder, &copied);
    let mut command = groat.command("w", &["info"]);
    let arguments: Vec<String> =
        command.get_args().map(|word| word.to_string_lossy().replace("regtest", "signet")).collect();
    command = Command::new(command.get_program());
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("another chain"),
        "expected: refused on another chain, got {said}"
    );

    std::fs::write(folder.join("wallet.sqlite"), "no database").unwrap();
    groat.run("w", &["info"]).failed(1, &["is damaged", "groat restore"]);
    let said = groat.json("w", &["backup", "words", "--password-file", &new]);
    assert_eq!(
        said["words"].as_array().unwrap().len(),
        12,
        "expected: words, though the other file is damaged\n{said}"
    );
}

/// Two of three sign, each by itself and without a node, on copies that are then put together.
#[test]
fn two_of_three_sign_offline() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let keys: Vec<String> = (1..=3)
            .map(|number| {
                let name = format!("signer{number}");
                groat.json(&name, &["create", &name, "--type", "segwit"]);
                let said = groat.json(&name, &["backup", "descriptors"]);
                let descriptor = said["descriptor"].as_str().unwrap();
                descriptor.trim_start_matches("wpkh(").split("/0/*").next().unwrap().to_owned()
            })
            .collect();
        let list: Vec<String> = keys.iter().map(|key| format!("{key}/<0;1>/*")).collect();
        let descriptor = format!("wsh(sortedmulti(2,{}))", list.join(","));
        groat.json("three", &["import", "three", &descriptor]);
        groat.json("rich", &["send", &groat.address("three"), "1btc"]);
        node.mine(1, ELSEWHERE);
        assert_eq!(groat.balance("three"), [COIN, 0, 0]);
        let to = groat.address("poor");
        groat.run("three", &["send", &to, "1000"]).failed(1, &["only watches"]);

        let made = groat.json("three", &["psbt", "create", &to, "40000000", "--feerate", "3"]);
        let blank = made["psbt"].as_str().unwrap();
        let coins = groat.json("three", &["coins"]);
        assert_eq!(coins["coins"][0]["locked"], json!(true), "expected: its coin is locked\n{coins}");
        let offline =
            Groat { folder: tempfile::tempdir().unwrap(), rpc: "127.0.0.1:1".into(), cookie: "/nowhere".into() };
        copy(&groat.folder.path().join("regtest"), &offline.folder.path().join("regtest"));
        offline.file("password", PASSWORD);
        let signed = |number: u32| {
            let said = offline.json(&format!("signer{number}"), &["psbt", "sign", blank]);
            said["psbt"].as_str().unwrap().to_owned()
        };
        let (one, three) = (signed(1), signed(3));
        groat.run("three", &["psbt", "broadcast", &one]).failed(1, &["signatures are missing"]);
        let both = groat.json("three", &["psbt", "combine", &one, &three]);
        let shown = groat.json("three", &["psbt", "show", both["psbt"].as_str().unwrap()]);
        assert_eq!((&shown["signatures"], &shown["complete"]), (&json!(2), &json!(true)), "{shown}");
        groat.json("three", &["psbt", "broadcast", both["psbt"].as_str().unwrap()]);
        node.mine(1, ELSEWHERE);
        assert_eq!(groat.balance("poor"), [40_000_000, 0, 0]);
        let fee = shown["fee_sat"].as_u64().unwrap();
        assert_eq!(groat.balance("three"), [COIN - 40_000_000 - fee, 0, 0]);
    });
}

/// What is neither sent nor mined: labels, proofs, locks, calls of the node.
#[test]
fn labels_proofs_locks_and_calls() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let asked = groat.json("poor", &["receive", "--label", "rent & co", "--amount", "25ksat"]);
        let uri = asked["uri"].as_str().unwrap();
        assert!(uri.ends_with("?amount=0.00025&label=rent%20%26%20co"), "{uri}");
        assert_ne!(
            groat.address("poor"),
            asked["address"].as_str().unwrap(),
            "expected: a labelled address is given once"
        );
        let sent = groat.json("rich", &["send", uri]);
        assert_eq!(sent["paid_sat"], json!(25_000), "{sent}");
        let labels = groat.json("rich", &["label"]);
        assert_eq!(labels["labels"], json!([{"type": "tx", "ref": sent["txid"], "label": "rent & co"}]));
        let exported = groat.run("poor", &["label", "--export"]).stdout;
        let file = groat.file("labels", &exported);
        assert_eq!(groat.json("rich", &["label", "--import", &file])["imported"], json!(1), "{exported}");

        for wallet in ["rich", "poor"] {
            let address = groat.address(wallet);
            let said = groat.json(wallet, &["sign-message", &address, "it is mine"]);
            let signature = said["signature"].as_str().unwrap();
            groat.json("poor", &["verify-message", &address, "it is mine", signature]);
            groat.run("poor", &["verify-message", &address, "it is thine", signature]).failed(1, &["NOT"]);
        }

        node.mine(1, ELSEWHERE);
        let coins = groat.json("poor", &["coins"]);
        let coin = coins["coins"][0]["outpoint"].as_str().unwrap();
        groat.json("poor", &["coins", "--lock", coin]);
        let to = groat.address("rich");
        groat.run("poor", &["send", &to, "max"]).failed(3, &["25,000 sat are locked"]);
        groat.json("poor", &["coins", "--unlock", coin]);
        let all = groat.json("poor", &["send", &to, "max"]);
        assert_eq!(all["change"], json!([]), "expected: all of it\n{all}");
        assert_eq!(all["paid_sat"].as_u64().unwrap() + all["fee_sat"].as_u64().unwrap(), 25_000, "{all}");

        let hash = groat.json("poor", &["rpc", "getblockhash", "height=0"]);
        assert_eq!(hash, node.call("getblockhash", json!([0])));
        groat.run("poor", &["rpc", "nosuch"]).failed(1, &["Method not found", "-32601"]);
        assert_eq!(groat.json("poor", &["status"])["tip_height"], json!(102));
    });
}

/// A payment made at one node is seen at the other one, and the wallet says that a peer has heard of it.
#[test]
fn a_payment_reaches_the_other_node() {
    let Some(peers) = peers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path());
    let mut ours = Running::start(&groatd, &["--connect=0"]);
    let port = format!("-port={}", groat_tests::bitcoind::free_port());
    let theirs = Bitcoind::start(&peers, &[format!("-addnode={}", ours.peers), "-listen=1".into(), port]);
    let one = Node { rpc: &ours.rpc, cookie: groatd.chain_folder().join(".cookie") };
    let other = Node { rpc: theirs.rpc(), cookie: theirs.folder().join("regtest/.cookie") };
    let rich = two_wallets(&one);
    let best = one.call("getbestblockhash", json!([]));
    let there = Groat::new(&other);
    there.json("shop", &["create", "shop"]);
    theirs.wait_for_height(101, groat_tests::running::PATIENCE);
    assert_eq!(other.call("getbestblockhash", json!([])), best);

    let sent = rich.json("rich", &["send", &there.address("shop"), "1btc"]);
    assert_eq!((&sent["relayed"], &sent["announced_to"]), (&json!(true), &json!(1)), "{sent}");
    let begun = std::time::Instant::now();
    while there.balance("shop") != [0, COIN, 0] {
        assert!(begun.elapsed() < groat_tests::running::PATIENCE, "the payment did not arrive\n{}", repeat());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let hash = other.mine(1, ELSEWHERE).remove(0);
    ours.wait_for_tip(&hash);
    let back = there.json("shop", &["send", &rich.address("rich"), "0.4btc"]);
    assert_eq!(back["relayed"], json!(true), "{back}");
    ours.stop();
}

/// What either node tells of itself, with a payment that waits and one that pulls it along.
fn status(node: &Node<'_>) {
    let groat = two_wallets(node);
    let sent = groat.json("rich", &["send", &groat.address("poor"), "1btc", "--feerate", "1"]);
    groat.json("poor", &["bump", sent["txid"].as_str().unwrap(), "--feerate", "7"]);
    let said = groat.json("rich", &["status"]);
    assert_eq!((&said["tip_height"], &said["syncing"]), (&json!(101), &json!(false)), "{said}");
    assert_eq!(said["mempool_transactions"], json!(2), "{said}");
    let all = |value: &Value| value.as_u64().unwrap().abs_diff(said["mempool_vsize_vb"].as_u64().unwrap()) <= 1;
    assert!(all(&said["next_block"]["vsize_vb"]), "expected: the next block takes both\n{said}");
    let rate = said["next_block"]["lowest_sat_vb"].as_f64().unwrap();
    assert!((7.0..7.1).contains(&rate), "expected: the rate of the two together\n{said}");
    assert_eq!(said["mempool_by_fee"][3]["from_sat_vb"], json!(5), "{said}");
    assert!(all(&said["mempool_by_fee"][3]["vsize_vb"]), "expected: all at 5 to 10 sat/vB\n{said}");
    assert!(said["advice"].as_str().unwrap().contains("no peers"), "{said}");
    groat.run("rich", &["status", "--watch"]).failed(2, &["--watch is for a terminal"]);
}

#[test]
fn status_of_groatd() {
    on_groatd(|node| {
        status(node);
        let own = node.call("getnodestatus", json!([]));
        assert_eq!((&own["next_block_transactions"], &own["peers"]["in"]), (&json!(2), &json!(0)), "{own}");
        assert_eq!(own["chain_height_blocks"], json!(101), "{own}");
        let share = |key: &str| own[key].as_f64().unwrap();
        let all = share("wait_peers_ratio") + share("wait_disk_ratio") + share("busy_cpu_ratio");
        assert!((0.99..1.01).contains(&all), "expected: all of the ledger's time\n{own}");
        assert!(share("resident_memory_bytes") < share("memory_limit_bytes"), "{own}");
    });
}

#[test]
fn status_of_bitcoind() {
    on_bitcoind(status);
}
