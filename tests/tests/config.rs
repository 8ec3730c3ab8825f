//! Options as people and tools give them: Core's own framework's command line and file, odd files beside a real bitcoind
//! that reads the same ones, the errors of a start, and a bitcoind's block files in place of a download.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use bitcoin::hashes::sha256::Hash as Sha256;
use groat_tests::bitcoind::{Bitcoind, Rpc, chain_folder, free_port, peers};
use groat_tests::groatd::{Groatd, Said, binary, repeat, signal_to};
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

/// A data folder with a configuration file.
fn folder_with(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

/// A node of either kind, started with nothing but a folder and these arguments. Dropping it kills it.
struct Node {
    process: Child,
    rpc: Rpc,
}

impl Node {
    /// Waits until it answers on this port, with the cookie of `folder`, which may be of the run before.
    fn start(program: &Path, folder: &Path, rpcport: u16, arguments: &[&str]) -> Node {
        let mut command = Command::new(program);
        command.arg(format!("-datadir={}", folder.display())).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let begun = Instant::now();
        let rpc = loop {
            if process.try_wait().unwrap().is_some() {
                panic!("{command:?} ended: {:?}; {}", process.wait_with_output().unwrap(), repeat());
            }
            assert!(begun.elapsed() < PATIENCE, "{command:?} gave no answer in {PATIENCE:?}; {}", repeat());
            let cookies = ["regtest/.cookie", "signet/.cookie", ".cookie"].map(|path| folder.join(path));
            let cookie = cookies.iter().find_map(|path| std::fs::read_to_string(path).ok());
            let rpc = cookie.map(|cookie| Rpc::new(([127, 0, 0, 1], rpcport).into(), &cookie));
            if let Some(rpc) = rpc.filter(|rpc| matches!(rpc.try_call("getblockcount", &json!([])), Ok(Ok(_)))) {
                break rpc;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Node { process, rpc }
    }

    fn call(&self, method: &str) -> Value {
        self.rpc.call(method, json!([])).unwrap_or_else(|error| panic!("{method}: {error:?}; {}", repeat()))
    }

    /// Stops it by RPC: status 0, and not a word on standard error.
    fn stop(mut self) {
        self.call("stop");
        let begun = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no end within 60 s of stop; {}", repeat());
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut errors = String::new();
        std::io::Read::read_to_string(&mut self.process.stderr.take().unwrap(), &mut errors).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success() && errors.is_empty(), "{status}, standard error: {errors}; {}", repeat());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What Core's test framework writes and passes, word for word but for the numbers.
#[test]
fn the_command_line_and_the_file_of_cores_framework_are_taken() {
    let (port, rpcport, tor) = (free_port(), free_port(), free_port());
    let text = format!(
        "regtest=1\n[regtest]\nport={port}\nrpcport={rpcport}\nrpcservertimeout=99000\nrpcdoccheck=1\n\
         fallbackfee=0.0002\nserver=1\nkeypool=1\ndiscover=0\ndnsseed=0\nfixedseeds=0\nlistenonion=0\n\
         peertimeout=999999999\nprinttoconsole=0\nupnp=0\nnatpmp=0\nshrinkdebugfile=0\ndeprecatedrpc=create_bdb\n\
         unsafesqlitesync=1\nconnect=0\nbind=127.0.0.1\nminrelaytxfee=0.00001\nincrementalrelayfee=0.00001\n\
         blockmintxfee=0.00001\nblockreservedweight=4000\ndatacarriersize=83\n"
    );
    let folder = folder_with("bitcoin.conf", &text);
    let (bind, onion) = (format!("-bind=0.0.0.0:{port}"), format!("-bind=127.0.0.1:{tor}=onion"));
    let arguments = [
        "-logtimemicros",
        "-debug",
        "-debugexclude=libevent",
        "-debugexclude=leveldb",
        "-debugexclude=rand",
        "-uacomment=testnode0",
        "-disablewallet",
        "-logthreadnames",
        "-logsourcelocations",
        "-loglevel=trace",
        "-v2transport=1",
        &onion,
    ];
    // The framework's own file binds 127.0.0.1; a test without that gets this one.
    let text = text.replace("bind=127.0.0.1\n", "");
    std::fs::write(folder.path().join("bitcoin.conf"), text).unwrap();
    let node = Node::start(binary(), folder.path(), rpcport, &[&arguments[..], &[bind.as_str()]].concat());
    let network = node.call("getnetworkinfo");
    let agent = network["subversion"].as_str().unwrap();
    assert!(agent.starts_with("/Groat:") && agent.ends_with("(testnode0)/"), "{agent}; {}", repeat());
    let pool = node.call("getmempoolinfo");
    let expected = (&json!(true), &json!(0.00001), &json!(0.00001));
    assert_eq!((&pool["loaded"], &pool["minrelaytxfee"], &pool["incrementalrelayfee"]), expected, "{}", repeat());
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens on the port of the file");
    node.stop();
    assert!(!folder.path().join("regtest/.cookie").exists(), "the cookie stays; {}", repeat());
}

/// What a node says of the settings below.
fn taken(node: &Node) -> Value {
    let (network, pool) = (node.call("getnetworkinfo"), node.call("getmempoolinfo"));
    let agent = network["subversion"].as_str().unwrap();
    json!({
        "chain": node.call("getblockchaininfo")["chain"],
        "comments": agent.split_once('(').map(|(_, comments)| comments),
        "minrelaytxfee": pool["minrelaytxfee"],
        "maxmempool": pool["maxmempool"],
        "networkactive": network["networkactive"],
        "localrelay": network["localrelay"],
        "added": node.call("getaddednodeinfo").as_array().map(Vec::len),
    })
}

/// Of each pair the file and the command line; a folder that both nodes read one after the other.
#[test]
fn odd_files_mean_to_groatd_what_they_mean_to_bitcoind() {
    let Some(peers) = peers() else { return };
    for (text, arguments) in [
        // Of a file the first counts, of the section before that; of the command line the last; lists add up.
        (
            "regtest=1\nmaxmempool=90\nuacomment=g\n[regtest]\nmaxmempool=70\nmaxmempool=80\nuacomment=s1\nuacomment=s2\n",
            &["-uacomment=c"][..],
        ),
        ("regtest = 1 # why\n\tmaxmempool=\t77 \nminrelaytxfee=0.00003\r\n", &["-maxmempool=60", "-maxmempool=61"]),
        ("chain=regtest\nregtest.maxmempool=66\nsignet.maxmempool=67\nmaxmempool=68\n", &[]),
        ("regtest=1\nuacomment=g\n[regtest]\nnouacomment=1\nuacomment=s\n", &["-nonetworkactive"]),
        ("regtest=0\nregtest=1\nuacomment=g\nnetworkactive=0\n[regtest]\nuacomment=s\n", &["-nouacomment"]),
        ("regtest=1\nblocksonly\t= 3\n[main]\nmaxmempool=5\n", &["-uacomment=a", "-nouacomment", "-uacomment=b"]),
        ("regtest=1\nnoblocksonly=0\nincludeconf=more.conf\nmaxmempool=91\n", &["-networkactive=0"]),
        ("regtest=1\nincludeconf=more.conf\nwallet=w\nlang=de\n[test]\nport=1\n", &["-noincludeconf", "-blocksonly="]),
        ("signet=1\nmaxmempool=50\n[signet]\nmaxmempool=51\n", &["-noconnect"]),
    ] {
        let (port, rpcport) = (free_port(), free_port());
        let common = [
            "-natpmp=0",
            "-dnsseed=0",
            "-fixedseeds=0",
            "-discover=0",
            "-listenonion=0",
            "-printtoconsole=0",
            "-connect=0",
            "-bind=127.0.0.1",
            &format!("-port={port}"),
            &format!("-rpcport={rpcport}"),
        ];
        let arguments = [&common[..], arguments].concat();
        let said: Vec<Value> = [peers.join("bitcoind"), binary().to_path_buf()]
            .iter()
            .map(|program| {
                let folder = folder_with("bitcoin.conf", text);
                std::fs::write(folder.path().join("more.conf"), "maxmempool=92\nuacomment=m\n").unwrap();
                let node = Node::start(program, folder.path(), rpcport, &arguments);
                let taken = taken(&node);
                node.stop();
                taken
            })
            .collect();
        assert_eq!(said[1], said[0], "groatd (left), bitcoind (right)\n{text}\n{arguments:?}; {}", repeat());
    }
}

/// Runs a program to the end that it comes to by itself.
fn ended(program: &Path, arguments: &[String]) -> Said {
    Said::by(Command::new(program).args(arguments).stdin(Stdio::null()))
}

/// Both are started with these, and both say the same. `DIR` is the folder.
#[test]
fn a_start_that_cannot_be_fails_in_cores_words() {
    let Some(peers) = peers() else { return };
    let long = "-uacomment=".to_string() + &"a".repeat(256);
    for (text, arguments) in [
        ("", &["-regtest", "-zzz=1"][..]),
        ("", &["-regtest", "-regtest.port=1"]),
        ("", &["-regtest", "-nodatadir"]),
        ("", &["-regtest", "-signet"]),
        ("", &["-regtest", "-minimumchainwork=test"]),
        ("", &["-regtest", "-uacomment=a)b"]),
        ("", &["-regtest", "-test=addrman", "-chain=regtest"]),
        ("", &["-signet", "-test=addrman"]),
        ("", &["-signet", "-signetchallenge=abc"]),
        ("", &["-signet", "-signetchallenge=51", "-signetchallenge=52"]),
        ("", &["-regtest", "-testactivationheight=silly@1"]),
        ("", &["-regtest", "-testactivationheight=bip34@-2"]),
        ("", &["-regtest", "-testactivationheight="]),
        ("", &["-regtest", "-blocksdir=DIR/absent"]),
        ("", &["-regtest", "-vbparams=testdummy:1"]),
        ("", &["-regtest", "-vbparams=testdummy:1:x"]),
        ("", &["-regtest", "-vbparams=taproot2:1:2"]),
        ("", &["-regtest", "-bind=127.0.0.1", "-listen=0"]),
        ("", &["-regtest", "-includeconf=x"]),
        ("", &["-regtest", "-conf=absent.conf"]),
        ("regtest=1\nport=7\n", &[]),
        ("regtest=1\n-port=7\n", &[]),
        ("regtest=1\nnolisten\n", &[]),
        ("regtest=1\nconf=x\n", &[]),
        ("regtest=1\nrpcpassword=a#b\n", &[]),
        ("regtest=1\nincludeconf=absent.conf\n", &[]),
    ] {
        let said: Vec<String> = [peers.join("bitcoind"), binary().to_path_buf()]
            .iter()
            .map(|program| {
                let folder = folder_with("bitcoin.conf", text);
                let place = folder.path().display().to_string();
                let arguments = arguments.iter().map(|argument| argument.replace("DIR", &place));
                let said =
                    ended(program, &[format!("-datadir={place}")].into_iter().chain(arguments).collect::<Vec<_>>());
                assert_eq!(said.status.code(), Some(1), "{said:?}; {}", repeat());
                said.stderr.trim_end().replace(&place, "DIR")
            })
            .collect();
        assert_eq!(said[1], said[0], "groatd (left), bitcoind (right): {text:?} {arguments:?}; {}", repeat());
    }
    // The name of the program is part of these.
    let folder = folder_with("bitcoin.conf", "regtest=1\n");
    let place = format!("-datadir={}", folder.path().display());
    let said = ended(binary(), &[place.clone(), long]).failed(&["exceeds maximum length (256). Reduce the number"]);
    assert!(said.stderr.starts_with("Error: Total length of network version string (2"), "{}", said.stderr);
    ended(binary(), &[place, "-listne".into()]).failed(&["Invalid parameter -listne (there is -listen)"]);
}

/// The lock is what is asked first.
#[test]
fn a_second_start_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path());
    let node = Running::start(&groatd, &["-connect=0"]);
    let lock = format!("Cannot obtain a lock on directory {}. ", groatd.chain_folder().display());
    groatd.run(["-listen=0"]).failed(&[&lock, "is probably already running"]);
    node.stop();
}

/// Blocks that were pruned, a clock that is behind and witnesses that were not asked for are told from a bad chain.
#[test]
fn what_a_stored_chain_does_not_fit_is_said_in_cores_words() {
    let Some(peers) = peers() else { return };
    let said = [peers.join("bitcoind"), binary().to_path_buf()].map(|program| {
        let (folder, rpcport) = (tempfile::tempdir().unwrap(), free_port());
        let place = format!("-datadir={}", folder.path().display());
        let late = "-testactivationheight=segwit@20";
        let options = ["-regtest", "-listen=0", "-connect=0", &format!("-rpcport={rpcport}")];
        let pruned = ["-prune=1", "-fastprune"];
        let node = Node::start(&program, folder.path(), rpcport, &[&options[..], &pruned, &[late]].concat());
        let address = json!("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080");
        node.rpc.call("generatetoaddress", json!([600, address])).unwrap();
        // The blocks of one file of 64 KiB.
        assert!(node.rpc.call("pruneblockchain", json!([300])).unwrap().as_i64() > Some(200), "{}", repeat());
        node.stop();
        let again = |more: &[&str]| {
            let words = [&[place.as_str()], &options[..], more].concat();
            let said = ended(&program, &words.into_iter().map(String::from).collect::<Vec<_>>());
            assert_eq!(said.status.code(), Some(1), "{said:?}; {}", repeat());
            // bitcoind leaves the first word out here.
            said.stderr.trim_end().trim_start_matches("Error: ").to_owned()
        };
        let starts =
            [&[late][..], &[late, "-mocktime=1500000000", "-prune=1"], &["-testactivationheight=segwit@5", "-prune=1"]];
        starts.map(again)
    });
    assert_eq!(said[1], said[0], "groatd (left), bitcoind (right); {}", repeat());
}

/// It stops when it gets there, and a start there goes on.
#[test]
fn a_node_stops_at_the_height_that_was_named() {
    let folder = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", folder.path()).with("--stopatheight=7");
    let node = Running::start(&groatd, &["-connect=0"]);
    let address = json!("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080");
    // The answer may not come any more.
    let _ = node.rpc.try_call("generatetoaddress", &json!([9, address]));
    node.ended();
    assert_eq!(groatd.stats().height, 7, "{}", repeat());
    let node = Running::start(&groatd, &["-connect=0"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(node.rpc.call("getblockcount", json!([])), Ok(json!(7)), "{}", repeat());
    node.stop();
    // Above that height a reorganisation is no reason to stop half-way.
    let low = Groatd::new("regtest", folder.path()).with("--stopatheight=2");
    let node = Running::start(&low, &["-connect=0"]);
    let fourth = node.rpc.call("getblockhash", json!([4])).unwrap();
    assert_eq!(node.rpc.call("invalidateblock", json!([fourth])), Ok(json!(null)), "{}", repeat());
    assert_eq!(node.rpc.call("getblockcount", json!([])), Ok(json!(3)), "{}", repeat());
    node.stop();
}

/// In the background it has its number in a file, and no part in what the caller waits for.
#[test]
fn a_daemon_leaves_its_number_and_takes_it_away() {
    let (folder, port, rpcport) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let groatd = Groatd::new("regtest", folder.path());
    let ports = [format!("--port={port}"), format!("--rpcport={rpcport}")];
    let options = ["-daemon", "-pid=groatd.pid", "-connect=0", &ports[0], &ports[1]];
    groatd.run(options).succeeded().printed(&["in the background"]);
    let file = groatd.chain_folder().join("groatd.pid");
    let begun = Instant::now();
    let number = loop {
        if let Ok(number) = std::fs::read_to_string(&file) {
            break number;
        }
        assert!(begun.elapsed() < PATIENCE, "no {} in {PATIENCE:?}; {}", file.display(), repeat());
        std::thread::sleep(Duration::from_millis(20));
    };
    let mode = std::fs::metadata(groatd.chain_folder().join("debug.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "debug.log is not its owner's alone: {mode:o}; {}", repeat());
    signal_to(number.trim(), "TERM");
    while file.exists() {
        assert!(begun.elapsed() < PATIENCE, "{} stays; {}", file.display(), repeat());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Its block files are obfuscated; they are read where they lie, and its folder is not written to.
#[test]
fn a_bitcoinds_block_files_take_the_place_of_a_download() {
    let Some(peers) = peers() else { return };
    let source = Bitcoind::start(&peers, &["-fastprune".into()]);
    let address = json!("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080");
    source.call("generatetoaddress", json!([400, address]));
    let tip = source.call("getbestblockhash", json!([]));
    let theirs = source.stop();
    let blocks = chain_folder(theirs.path(), "regtest").join("blocks");
    assert!(blocks.join("xor.dat").exists(), "this bitcoind obfuscates");
    let before = listing(&blocks);
    assert!(before.len() > 4, "several files: {before:?}");
    let own = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", own.path());
    let from = theirs.path().to_str().unwrap();
    groatd.run(["import", "--from-bitcoin", from]).succeeded();
    assert_eq!(json!(groatd.stats().bestblock), tip, "groatd (left), bitcoind (right); {}", repeat());
    assert_eq!(listing(&blocks), before, "bitcoind's files after the import (left) and before; {}", repeat());
    groatd.run(["import", "--from-bitcoin", own.path().join("absent").to_str().unwrap()]).failed(&["cannot read"]);
    // As -loadblock, with block files elsewhere and short ones.
    let (other, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let groatd = Groatd::new("regtest", other.path())
        .with(&format!("-blocksdir={}", elsewhere.path().display()))
        .with("-fastprune");
    let files: Vec<PathBuf> = before.iter().map(|(path, _)| path.clone()).filter(|path| is_block_file(path)).collect();
    let options: Vec<String> = files.iter().map(|path| format!("-loadblock={}", path.display())).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).chain(["-connect=0", "-checkblocks=20"]).collect();
    let node = Running::start(&groatd, &options);
    assert_eq!(node.rpc.call("getbestblockhash", json!([])), Ok(tip), "{}", repeat());
    node.stop();
    let ours = listing(&elsewhere.path().join("regtest/blocks"));
    let many = ours.iter().filter(|(path, _)| is_block_file(path)).count();
    assert!(many > 1 && !groatd.chain_folder().join("blocks").exists(), "{ours:?}; {}", repeat());
    // And nothing but that.
    let third = tempfile::tempdir().unwrap();
    let groatd = Groatd::new("regtest", third.path());
    groatd.run(options.iter().copied().chain(["-stopafterblockimport"])).succeeded();
    assert_eq!(groatd.stats().height, 400, "{}", repeat());
    // A folder that is bitcoind's own is left alone.
    let said = Groatd::new("regtest", theirs.path()).run(["coins", "stats"]);
    said.failed(&["is Bitcoin Core's", "--from-bitcoin"]);
    assert_eq!(listing(&blocks), before, "bitcoind's files after the refusal (left) and before; {}", repeat());
}

fn is_block_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("blk"))
}

/// The files of a folder, each with a hash of its bytes.
fn listing(folder: &Path) -> Vec<(PathBuf, Sha256)> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let hashed = |path: PathBuf| (path.clone(), Sha256::hash(&std::fs::read(path).unwrap()));
    let mut files: Vec<_> = paths.filter(|path| path.is_file()).map(hashed).collect();
    files.sort();
    files
}

/// `groatd config` says what would be taken, and from where.
#[test]
fn what_is_set_is_shown_with_its_place() {
    let folder = folder_with("groat.conf", "chain=regtest\ndbcache=9\nunheard=1\ntorpassword=secret\n");
    let run = |arguments: &[&str]| {
        let place = format!("-datadir={}", folder.path().display());
        let words = std::iter::once(place.as_str()).chain(arguments.iter().copied()).map(String::from);
        ended(binary(), &words.collect::<Vec<_>>()).succeeded()
    };
    let said = run(&["-par=2", "config", "--check"]);
    let said = said.printed(&[
        "unheard is not known",
        "dbcache=9  # ",
        "groat.conf:2",
        "par=2  # command line",
        "torpassword=****",
    ]);
    assert!(!said.stdout.contains("secret"), "{}", said.stdout);
    run(&["config", "--default"]).printed(&["\n#dbcache=450\n"]);
    run(&["config", "--ignored"]).printed(&["\ndisablewallet\n"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is written; {}", repeat());
}
