//! `groatd` on bad input: one clear sentence, status 1, nothing lost, and the way out that it names works. And the
//! inputs that are odd but good: any order, any number of files, Core's XOR, a pipe.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Amount, Block, Transaction};
use groat_chain::store::import::BlockFile;
use groat_tests::bitcoind::free_port;
use groat_tests::chaingen::full;
use groat_tests::groatd::{Groatd, Said, Stats, binary, block_file, copy_folder, flip, framed, repeat, signal, wide};
use groat_tests::regtest::{self, MAGIC};
use groat_tests::running::PATIENCE;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Height of the chain that most tests import.
const HEIGHT: u32 = 130;

/// A chain of regtest blocks, genesis first, with payments in the last ones.
fn chain() -> &'static [Block] {
    static CHAIN: OnceLock<Vec<Block>> = OnceLock::new();
    CHAIN.get_or_init(|| {
        let mut chain = vec![regtest::genesis()];
        regtest::extend(&mut chain, HEIGHT as usize, 1);
        chain
    })
}

/// What the chain leaves, imported in order from one file.
fn expected() -> &'static Stats {
    static STATS: OnceLock<Stats> = OnceLock::new();
    STATS.get_or_init(|| {
        let test = Test::new();
        test.groatd.import(&[test.file("all.dat", chain())]).succeeded();
        let stats = test.groatd.stats();
        assert_eq!((stats.height, stats.bestblock.clone()), (HEIGHT, chain().last().unwrap().block_hash().to_string()));
        stats
    })
}

/// A `groatd` on regtest in a folder of its own, which also holds the files of the test.
struct Test {
    folder: tempfile::TempDir,
    groatd: Groatd,
}

impl Test {
    fn new() -> Test {
        let folder = tempfile::tempdir().unwrap();
        let groatd = Groatd::new("regtest", &folder.path().join("data"));
        Test { folder, groatd }
    }

    /// One whose chain is imported and stored in tables, not only in RocksDB's log.
    fn imported() -> Test {
        let test = Test::new();
        test.groatd.import(&[test.file("all.dat", chain())]).succeeded();
        test.ends_as_expected();
        test
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file<'a>(&self, name: &str, blocks: impl IntoIterator<Item = &'a Block>) -> PathBuf {
        block_file(self.folder.path(), name, blocks)
    }

    fn bytes(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn ends_as_expected(&self) {
        assert_eq!(
            self.groatd.stats(),
            *expected(),
            "the stored chain (left) and the expected one (right); {}",
            repeat()
        );
    }

    fn ends_at(&self, height: u32) {
        assert_eq!(self.groatd.stats().height, height, "the height reached (left); {}", repeat());
    }

    /// Where the transactions of the block at `height` end in the node's own block file.
    fn stored_block_end(&self, height: usize) -> u64 {
        let stored = std::fs::read(self.groatd.chain_folder().join("blocks/blk00000.dat")).unwrap();
        let block = serialize(&chain()[height]);
        let at = stored.windows(block.len()).position(|window| window == block);
        (at.expect("the block is stored") + block.len()) as u64
    }
}

#[test]
fn the_binary_names_version_and_commit() {
    let said = Said::by(std::process::Command::new(binary()).arg("--version")).succeeded();
    let commit = said.stdout.split(['(', ')']).nth(1).unwrap_or_default();
    let hex = commit.trim_end_matches("-dirty").chars().all(|letter| letter.is_ascii_hexdigit());
    assert!(
        commit == "unknown" || (commit.len() >= 12 && hex),
        "expected a commit, found {:?}; {}",
        said.stdout,
        repeat()
    );
}

#[test]
fn usage_errors_are_one_sentence_with_status_1() {
    for arguments in [&["--nonsense"][..], &["import"], &["--dbcache=much", "coins", "stats"], &["--listen=yes"]] {
        Test::new().groatd.run(arguments).failed(&[]);
    }
}

#[test]
fn bad_values_are_refused_before_anything_is_touched() {
    let test = Test::new();
    let bad_network = test.bytes("bad.toml", b"name = \"bad\"\nmagic = 7\n");
    let not_toml = test.bytes("not.toml", b"\x00\xff");
    let stats = ["coins", "stats"];
    for (option, parts) in [
        ("--assumevalid=12", &["--assumevalid takes the hash of a block", "12"][..]),
        ("--prune=549", &["--prune takes at least 550"]),
        ("--testactivationheight=segwit", &["segwit", "-testactivationheight=name@height"]),
        ("--signetchallenge=51", &["--signetchallenge is for --chain signet"]),
        ("--minimumchainwork=0xg", &["Invalid minimum work specified (0xg), must be up to 64 hex digits"]),
    ] {
        let said = test.groatd.run([option].into_iter().chain(stats));
        said.failed(parts);
        assert!(!test.path("data").exists(), "{option} was refused and a folder was made; {}", repeat());
    }
    for (network, parts) in [
        ("nowhere", &["there is no network \"nowhere\" and no such file", "testnet4"][..]),
        (bad_network.to_str().unwrap(), &["bad.toml", "magic"]),
        (not_toml.to_str().unwrap(), &["not.toml"]),
    ] {
        Groatd::new(network, &test.path("data")).run(stats).failed(parts);
        assert!(!test.path("data").exists(), "--chain {network} was refused and a folder was made; {}", repeat());
    }
    test.groatd.run(["import", "-", "x.dat"]).failed(&["standard input (-) cannot be mixed with files"]);
    for (option, error) in [
        ("-whitebind=oopsie@127.0.0.1:1", "Error: Invalid P2P permission: 'oopsie'"),
        ("-whitelist=in@127.0.0.1", "Error: Only direction was set, no permissions: 'in@127.0.0.1'"),
        ("-onlynet=moon", "Error: Unknown network specified in -onlynet: 'moon'"),
    ] {
        let said = test.groatd.run([option, "-nolisten=0", "-noproxy"]);
        assert_eq!(said.stderr.trim_end(), error, "{option}; {}", repeat());
        said.failed(&[]);
        assert!(!test.path("data").exists(), "{option} was refused and a folder was made; {}", repeat());
    }
}

#[test]
fn reindex_with_a_bad_value_deletes_nothing() {
    let test = Test::imported();
    test.groatd.run(["--reindex", "--assumevalid=12", "coins", "stats"]).failed(&["--assumevalid"]);
    test.groatd.run(["--reindex-chainstate", "--prune=2", "coins", "stats"]).failed(&["--prune"]);
    test.ends_as_expected();
}

#[test]
fn a_truncated_file_gives_its_whole_blocks() {
    let test = Test::new();
    let mut bytes = framed(MAGIC, chain());
    // Less its lock time, which is zeros: zeros at an edge are preallocated space, and not counted.
    bytes.truncate(bytes.len() - 4);
    let last = serialize(chain().last().unwrap()).len() + 8 - 4;
    let said = test.groatd.import(&[test.bytes("cut.dat", &bytes)]).succeeded();
    said.printed(&[&format!("cut.dat: skipped {last} bytes"), &format!("{last} bytes skipped")]);
    test.ends_at(HEIGHT - 1);
    test.groatd.import(&[test.file("rest.dat", &chain()[HEIGHT as usize..])]).succeeded();
    test.ends_as_expected();
}

#[test]
fn garbage_around_blocks_is_skipped_and_counted() {
    // No byte of it is the first of the magic.
    let garbage = [0x11; 1000];
    let half = HEIGHT as usize / 2;
    let parts = [framed(MAGIC, &chain()[..half]), framed(MAGIC, &chain()[half..])];
    for (place, bytes) in [
        ("before", [&garbage[..], &parts[0], &parts[1]].concat()),
        ("between", [&parts[0], &garbage[..], &parts[1]].concat()),
        ("after", [&parts[0], &parts[1], &garbage[..]].concat()),
    ] {
        let test = Test::new();
        let said = test.groatd.import(&[test.bytes(place, &bytes)]).succeeded();
        said.printed(&[&format!("{place}: skipped 1000 bytes"), "1000 bytes skipped"]);
        test.ends_as_expected();
        let test = Test::new();
        test.groatd.feed(&["import", "-"], &bytes).succeeded().printed(&["1000 bytes skipped"]);
        test.ends_as_expected();
    }
}

#[test]
fn a_damaged_length_does_not_hide_the_blocks_behind_it() {
    let test = Test::new();
    let mut bytes = framed(MAGIC, chain());
    let third: usize = chain()[..3].iter().map(|block| serialize(block).len() + 8).sum();
    bytes[third + 4] ^= 0x40;
    test.groatd.import(&[test.bytes("bent.dat", &bytes)]).failed(&["1 blocks are damaged and were left out"]);
    test.ends_at(2);
    // The blocks behind it were stored.
    test.groatd.import(&[test.file("one.dat", &chain()[3..4])]).succeeded().printed(&["1 new blocks"]);
    test.ends_as_expected();
}

#[test]
fn a_file_of_another_network_is_named() {
    let test = Test::new();
    let ours = test.file("ours.dat", chain());
    let signet = test.bytes("signet.dat", &framed([0x0a, 0x03, 0xcf, 0x40], chain()));
    let strange = test.bytes("strange.dat", &framed([1, 2, 3, 4], chain()));
    let empty = test.bytes("empty.dat", b"");
    test.groatd.import(&[&signet]).failed(&["no block of network regtest", "signet.dat", "the magic of signet"]);
    test.groatd.import(&[&strange]).failed(&["strange.dat", "of any known network"]);
    test.groatd.import(&[&empty]).failed(&["empty.dat", "it is empty"]);
    let bytes = std::fs::read(&signet).unwrap();
    test.groatd.feed(&["import", "-"], &bytes).failed(&["standard input", "the magic of signet"]);
    test.groatd.feed(&["import", "-"], b"").failed(&["standard input", "it is empty"]);
    test.ends_at(0);
    // Among good files it does no harm.
    test.groatd.import(&[&signet, &ours]).failed(&["signet.dat", "the magic of signet"]);
    test.ends_as_expected();
}

#[test]
fn files_that_cannot_be_read_are_named_before_anything_is_imported() {
    let test = Test::new();
    let good = test.file("good.dat", chain());
    test.groatd.import(&[&good, &test.path("absent.dat")]).failed(&["cannot read", "absent.dat", "No such file"]);
    test.groatd.import(&[&good, &test.folder.path().to_path_buf()]).failed(&["cannot read", "directory"]);
    test.ends_at(0);
    test.bytes("xor.dat", b"short");
    test.groatd.import(&[&good]).failed(&["xor.dat", "5 bytes, not 8"]);
    test.ends_at(0);
}

#[test]
fn blocks_without_their_parents_are_counted_and_kept_for_a_later_import() {
    let test = Test::new();
    let late = test.file("late.dat", &chain()[50..]);
    let count = HEIGHT + 1 - 50;
    let parts = [&format!("{count} blocks were left out")[..], "import those as well"];
    test.groatd.import(&[&late]).failed(&parts).printed(&[&format!("{count} without parent")]);
    test.groatd.feed(&["import", "-"], &std::fs::read(&late).unwrap()).failed(&parts);
    test.ends_at(0);
    test.groatd.import(&[test.file("early.dat", &chain()[..50]), late]).succeeded();
    test.ends_as_expected();
}

#[test]
fn blocks_in_any_order_and_any_number_of_files_give_the_same_chain() {
    let reversed: Vec<&Block> = chain().iter().rev().collect();
    let mut shuffled: Vec<&Block> = chain().iter().collect();
    shuffled.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
    for (order, blocks) in [("reversed", reversed), ("shuffled", shuffled)] {
        let test = Test::new();
        let files: Vec<PathBuf> = blocks
            .chunks(40)
            .enumerate()
            .map(|(number, blocks)| test.file(&format!("{order}{number}.dat"), blocks.iter().copied()))
            .collect();
        test.groatd.import(&files).succeeded();
        test.ends_as_expected();
        test.groatd
            .import(&files)
            .succeeded()
            .printed(&[&format!("0 new blocks with 0 transactions, {} known", HEIGHT + 1)]);
        let test = Test::new();
        test.groatd.feed(&["import", "-"], &framed(MAGIC, blocks)).succeeded();
        test.ends_as_expected();
    }
    let test = Test::new();
    test.groatd.feed(&["import", "-"], &framed(MAGIC, chain())).succeeded();
    test.ends_as_expected();
}

#[test]
fn core_files_are_read_through_their_xor_key() {
    let test = Test::new();
    let key = [0x5a, 1, 0xff, 0, 0x80, 7, 0x33, 0xc4];
    let mut bytes = framed(MAGIC, chain());
    bytes.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    test.bytes("xor.dat", &key);
    test.groatd.import(&[test.bytes("blk00000.dat", &bytes)]).succeeded();
    test.ends_as_expected();
}

#[test]
fn an_invalid_block_is_refused_with_its_reason_and_the_rest_is_imported() {
    const TIP: usize = HEIGHT as usize;
    let mut bad = chain()[TIP].clone();
    bad.txdata[0].output[0].value += Amount::from_sat(50_0000_0000);
    regtest::seal(&mut bad);
    let hash = bad.block_hash().to_string();
    // With a block on it, it is the better branch.
    let above = regtest::coinbase(HEIGHT + 1, 3, vec![chain()[TIP].txdata[0].output[0].clone()]);
    let on_it = [bad.clone(), regtest::block(bad.block_hash(), regtest::time_at(HEIGHT + 1), vec![above])];
    let blocks = || chain()[..TIP].iter().chain(&on_it).chain(&chain()[TIP..]);
    let test = Test::new();
    let said = test.groatd.import(&[test.file("mixed.dat", blocks())]);
    said.failed(&[&hash, "bad-cb-amount"]).printed(&[&format!("block {hash} refused: bad-cb-amount")]);
    test.ends_as_expected();
    let test = Test::new();
    test.groatd.feed(&["import", "-"], &framed(MAGIC, blocks())).failed(&[&hash, "bad-cb-amount"]);
    test.ends_as_expected();
    // It stays refused.
    test.groatd.import(&[test.file("again.dat", &on_it)]).failed(&["2 blocks were refused"]);
}

#[test]
fn a_second_process_is_refused_and_names_the_first() {
    let test = Test::new();
    let mut first = test.groatd.start(&["import", "-"]);
    let named = format!("is probably already running (pid {})", first.id());
    test.groatd.run(["coins", "stats"]).failed(&[&named]);
    first.kill().unwrap();
    first.wait().unwrap();
    // The lock goes with the process, however it ended.
    test.ends_at(0);
}

#[test]
fn a_folder_of_another_network_is_refused() {
    let test = Test::imported();
    let signet = Groatd::new("signet", &test.path("data"));
    copy_folder(&test.groatd.chain_folder(), &signet.chain_folder());
    signet.run(["coins", "stats"]).failed(&["the data folder holds another network"]);
    test.ends_as_expected();
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let test = Test::new();
    let file = test.file("all.dat", chain());
    // To root every folder is writable: then the process is made nobody, with a binary that nobody can read.
    let groatd = test.path("groatd");
    std::fs::copy(binary(), &groatd).unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(test.folder.path(), 0o755);
    std::fs::create_dir(test.path("data")).unwrap();
    mode(&test.path("data"), 0o555);
    let probe = test.path("data/probe");
    let root = std::fs::write(&probe, b"").is_ok();
    let _ = std::fs::remove_file(&probe);
    let mut command = std::process::Command::new(&groatd);
    command.args(["--chain", "regtest", "--datadir"]).arg(test.path("data")).arg("import").arg(&file);
    if root {
        const NOBODY: u32 = 65_534;
        command.uid(NOBODY).gid(NOBODY);
    }
    Said::by(&mut command).failed(&["no permission to make", "data/regtest", "check its owner and mode"]);
    mode(&test.path("data"), 0o755);
    test.groatd.import(&[file]).succeeded();
    test.ends_as_expected();
}

/// The RocksDB tables of a column family: each has the property `rocksdb.column.family.name`.
fn tables(test: &Test, family: &str) -> Vec<PathBuf> {
    let name = [b"name", family.as_bytes()].concat();
    let files = std::fs::read_dir(test.groatd.chain_folder().join("db")).unwrap().map(|entry| entry.unwrap().path());
    let tables: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .filter(|path| std::fs::read(path).unwrap().windows(name.len()).any(|window| window == name))
        .collect();
    assert!(!tables.is_empty(), "expected: a table of {family} in db/; {}", repeat());
    tables
}

#[test]
fn a_damaged_coin_record_names_reindex_chainstate_which_works() {
    let test = Test::imported();
    tables(&test, "coins").iter().for_each(|table| flip(table, 20));
    let sentence = ["damaged", "start with --reindex-chainstate"];
    test.groatd.run(["coins", "stats"]).failed(&sentence);
    test.groatd.run(["verify-chain"]).failed(&sentence);
    test.groatd.run(["--reindex-chainstate", "verify-chain"]).succeeded();
    test.ends_as_expected();
}

#[test]
fn a_damaged_header_record_names_reindex_which_works() {
    let test = Test::imported();
    tables(&test, "headers").iter().for_each(|table| flip(table, 20));
    test.groatd.run(["coins", "stats"]).failed(&["damaged", "start with --reindex"]);
    test.groatd.run(["--reindex", "verify-chain"]).succeeded().printed(&[&format!("{HEIGHT} new blocks"), "1 known"]);
    test.ends_as_expected();
}

#[test]
fn a_damaged_block_is_named_and_no_verdict_is_made_of_it() {
    const HEIGHT: usize = 125;
    let block = &chain()[HEIGHT];
    let length = serialize(block).len() as u64;
    let hash = block.block_hash().to_string();
    for (place, back) in [("lock time", 2), ("output script", 5), ("merkle root", length - 40)] {
        let test = Test::imported();
        flip(&test.groatd.chain_folder().join("blocks/blk00000.dat"), test.stored_block_end(HEIGHT) - back);
        for arguments in [&["verify-chain"][..], &["--reindex-chainstate", "coins", "stats"]] {
            test.groatd.run(arguments).failed(&[&hash, "damaged", "start with --reindex"]);
        }
        // What can be had is had at once, the damaged block from the file that brings it again.
        test.groatd.run(["--reindex", "coins", "stats"]).succeeded();
        test.ends_at(HEIGHT as u32 - 1);
        test.groatd.import(&[test.path("all.dat")]).succeeded();
        test.ends_as_expected();
        test.groatd.run(["verify-chain"]).succeeded();
        eprintln!("a damaged {place} was found and replaced");
    }
    // Witnesses are not below the merkle root. That of a coinbase is run by no script either.
    let test = Test::imported();
    let payment = serialize(&block.txdata[1]).len() as u64;
    flip(&test.groatd.chain_folder().join("blocks/blk00000.dat"), test.stored_block_end(HEIGHT) - payment - 10);
    test.groatd.run(["verify-chain"]).failed(&[&hash, "damaged", "bad-witness-merkle-match", "--reindex"]);
}

#[test]
fn a_damaged_signature_on_disk_makes_no_block_invalid() {
    let test = Test::new();
    full::generate(&full::Recipe { seed: 1, blocks: 1, fan_out: 1, keys: 16 }, &test.path("made")).unwrap();
    test.groatd.import(&[test.path("made/blk00000.dat")]).succeeded();
    let (before, stored) = (test.groatd.stats(), test.groatd.chain_folder().join("blocks/blk00000.dat"));
    // The last witness of all lies before the lock time of its transaction.
    let bytes = std::fs::read(&stored).unwrap();
    let file = BlockFile::open(&stored).unwrap();
    let mut frames = file.frames(MAGIC);
    let last = std::iter::from_fn(|| frames.next_frame().unwrap()).last().unwrap();
    let block: Block = deserialize(&file.read(&last).unwrap()).unwrap();
    let signed = |transaction: &&Transaction| transaction.input.last().is_some_and(|input| !input.witness.is_empty());
    let transaction = serialize(block.txdata.iter().rfind(signed).unwrap());
    let start = bytes.windows(transaction.len()).rposition(|window| window == transaction).unwrap();
    let witness = (start + transaction.len() - 4 - 5) as u64;
    flip(&stored, witness);
    let said = test.groatd.run(["--reindex-chainstate", "--assumevalid=0", "coins", "stats"]);
    said.failed(&[&block.block_hash().to_string(), "damaged (bad-witness-merkle-match)", "start with --reindex"]);
    flip(&stored, witness);
    assert_eq!(test.groatd.stats(), before, "with the byte put right (left) and before (right); {}", repeat());
}

#[test]
fn a_damaged_frame_head_costs_no_block_behind_it() {
    let test = Test::imported();
    let file = test.groatd.chain_folder().join("blocks/blk00000.dat");
    let at = test.stored_block_end(60);
    flip(&file, at);
    let length = std::fs::metadata(&file).unwrap().len();
    test.groatd.run(["verify-chain"]).failed(&["the block at byte", "no frame begins there", "start with --reindex"]);
    test.groatd.run(["--reindex", "coins", "stats"]).succeeded().printed(&[&format!("{} without parent", HEIGHT - 61)]);
    let left = std::fs::metadata(&file).unwrap().len();
    assert!(left >= length, "expected: {length} bytes of block file at least, found: {left}; {}", repeat());
    test.groatd.import(&[test.file("one.dat", &chain()[61..62])]).succeeded();
    test.groatd.run(["--reindex", "coins", "stats"]).succeeded();
    test.ends_as_expected();
}

#[test]
fn a_damaged_undo_record_names_reindex_which_works() {
    let test = Test::imported();
    let file = test.groatd.chain_folder().join("blocks/rev00000.dat");
    flip(&file, std::fs::metadata(&file).unwrap().len() - 33);
    let sentence = ["the undo record at byte", "rev00000.dat", "its checksum does not match", "start with --reindex"];
    test.groatd.run(["verify-chain"]).failed(&sentence);
    // A reorganisation needs it as well.
    let mut better = chain()[..HEIGHT as usize].to_vec();
    regtest::extend(&mut better, 5, 2);
    let better = test.file("better.dat", &better[HEIGHT as usize..]);
    test.groatd.import(&[&better]).failed(&sentence);
    test.groatd.run(["--reindex", "verify-chain"]).succeeded();
    test.groatd.import(&[&better]).succeeded();
    test.ends_at(HEIGHT + 4);
}

#[test]
fn rebuilding_gives_the_same_coins() {
    let test = Test::imported();
    for option in ["--reindex", "--reindex-chainstate"] {
        let file = test.groatd.chain_folder().join("blocks/blk00000.dat");
        let before = std::fs::read(&file).unwrap();
        test.groatd.run([option, "verify-chain"]).succeeded().printed(&[&format!("verified {HEIGHT} blocks")]);
        test.ends_as_expected();
        assert!(std::fs::read(file).unwrap() == before, "{option} changed the block file; {}", repeat());
    }
}

/// Its log went to a terminal that is closed or to a disk that is full.
#[test]
fn a_node_goes_on_when_nothing_can_be_printed() {
    let test = Test::new();
    let full = std::fs::File::create("/dev/full").unwrap();
    let port = format!("--rpcport={}", free_port());
    let mut process = test.groatd.command(["--listen=0", &port]).stdout(full).spawn().unwrap();
    let begun = Instant::now();
    while !test.groatd.chain_folder().join(".cookie").exists() {
        assert_eq!(process.try_wait().unwrap(), None, "it ended by itself");
        assert!(begun.elapsed() < PATIENCE, "no cookie after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&process, "TERM");
    let output = process.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "expected status 0, got {}: {errors}", output.status);
}

#[test]
fn a_signal_stops_an_import_in_order_and_it_goes_on_later() {
    use std::io::Write;
    for name in ["TERM", "INT"] {
        let test = Test::new();
        let mut process = test.groatd.start(&["import", "-"]);
        let mut pipe = process.stdin.take().unwrap();
        pipe.write_all(&framed(MAGIC, &chain()[..90])).unwrap();
        signal(&process, name);
        let said = Said::of(process).succeeded().printed(&["stopping", "stopped early"]);
        drop((pipe, said));
        assert!(test.groatd.stats().height < 90, "expected: a height below the 90 that came; {}", repeat());
        test.groatd.import(&[test.file("all.dat", chain())]).succeeded();
        test.ends_as_expected();
    }
}

#[test]
fn pruning_deletes_the_oldest_files_and_no_coin() {
    // The limit is at least 550 MiB, and a pair of files 128 MiB: a chain of 0.7 GB is the smallest that shows it.
    if !wide() {
        eprintln!("SKIPPED: pruning takes 0.7 GB of blocks (GROAT_WIDE=1 runs it)");
        return;
    }
    use std::io::Write;
    const BULKY: u32 = 700;
    const MIN_BLOCKS_TO_KEEP: u32 = 288;
    let test = Test::new();
    let path = test.path("bulky.dat");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let mut tip = regtest::genesis().block_hash();
    for height in 1..=BULKY + MIN_BLOCKS_TO_KEEP + 1 {
        let reward = regtest::output(regtest::subsidy(height).to_sat(), vec![0x51].into());
        let block = match height {
            ..=BULKY => regtest::bulky(tip, height),
            _ => regtest::block(tip, regtest::time_at(height), vec![regtest::coinbase(height, 0, vec![reward])]),
        };
        tip = block.block_hash();
        file.write_all(&framed(MAGIC, [&block])).unwrap();
    }
    file.flush().unwrap();
    test.groatd.import(&[&path]).succeeded();
    let whole = test.groatd.stats();
    let pruned = Groatd::new("regtest", &test.path("data")).with("--prune=550");
    assert_eq!(pruned.stats(), whole, "coins after pruning (left) and before (right); {}", repeat());
    let blocks = test.groatd.chain_folder().join("blocks");
    let left: u64 = std::fs::read_dir(&blocks).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(left <= 550 << 20, "expected: 550 MiB of files at most, found: {left} bytes; {}", repeat());
    assert!(!blocks.join("blk00000.dat").exists(), "the oldest file is still there; {}", repeat());
    pruned.run(["verify-chain"]).succeeded().printed(&["the blocks below are pruned"]);
    assert_eq!(pruned.stats(), whole, "coins after a restart (left) and before (right); {}", repeat());
}
