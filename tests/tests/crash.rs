//! `groatd` is killed, loses power, and runs out of disk; the next start completes by itself and ends with the tip and
//! the coins of a run that nobody disturbed.
//!
//! `GROAT_WIDE=1` runs 200 kills instead of 10, and power losses on a real file system. `GROAT_SEED` repeats the
//! random choices of a run; the moments of a kill are times, so what they hit is not repeated exactly.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use groat_chain::store::Store;
use groat_chain::store::rocks::RocksStore;
use groat_tests::chaingen::{block_files, coins};
use groat_tests::groatd::{Groatd, Said, Stats, copy_folder, framed, repeat, wide};
use groat_tests::regtest::{self, MAGIC};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Most kills in a row before a run is left to finish.
const KILLS_IN_A_ROW: usize = 4;

/// The random choices of a test, from a seed that is printed.
fn random() -> (u64, ChaCha8Rng) {
    let seed = match std::env::var("GROAT_SEED") {
        Ok(seed) => seed.parse().expect("GROAT_SEED is a number"),
        Err(_) => rand::random(),
    };
    eprintln!("seed {seed}: GROAT_SEED={seed} makes the same choices again");
    (seed, ChaCha8Rng::seed_from_u64(seed))
}

/// Something for `groatd` to do that can be disturbed: begin with a folder, import files.
struct Work {
    /// The data folder to begin with, if not an empty one.
    start: Option<PathBuf>,
    files: Vec<PathBuf>,
    dbcache: u32,
    /// What it comes to when nobody disturbs it, and the time that takes.
    expected: Stats,
    takes: Duration,
}

impl Work {
    fn new(start: Option<PathBuf>, files: Vec<PathBuf>, dbcache: u32) -> Work {
        let folder = tempfile::tempdir().unwrap();
        let expected =
            Stats { height: 0, bestblock: String::new(), txouts: 0, total_amount: 0.0, muhash: String::new() };
        let mut work = Work { start, files, dbcache, expected, takes: Duration::ZERO };
        let groatd = work.begin(folder.path());
        let begun = Instant::now();
        groatd.import(&work.files).succeeded();
        work.takes = begun.elapsed();
        groatd.run(["verify-chain"]).succeeded();
        work.expected = groatd.stats();
        work
    }

    /// Lays out the folder to begin with.
    fn begin(&self, folder: &Path) -> Groatd {
        if let Some(start) = &self.start {
            copy_folder(start, folder);
        }
        Groatd::new("regtest", folder).with(&format!("--dbcache={}", self.dbcache)).with("--assumevalid=0")
    }

    /// Imports in `folder` and kills it at a random moment; whether it was still running.
    fn kill(&self, groatd: &Groatd, random: &mut ChaCha8Rng) -> bool {
        let import = PathBuf::from("import");
        let arguments = [&import].into_iter().chain(&self.files);
        let moment = self.takes.mul_f64(random.random_range(0.0..1.0));
        let mut process = groatd.command(arguments).spawn().expect("groatd starts");
        std::thread::sleep(moment);
        process.kill().expect("a child can be killed");
        let said = Said::of(process);
        if said.was_killed() {
            return true;
        }
        said.succeeded();
        false
    }

    /// Finishes what was disturbed and compares.
    fn finish(&self, groatd: &Groatd, case: &str) {
        groatd.import(&self.files).succeeded();
        let stats = groatd.stats();
        assert_eq!(stats, self.expected, "{case}: disturbed (left) and undisturbed (right); {}", repeat());
    }
}

/// A generated chain of about so many coins.
fn generated(folder: &Path, seed: u64, coins: u64) -> Vec<PathBuf> {
    coins::generate(&coins::Recipe { seed, coins, ..coins::Recipe::DEFAULT }, folder).unwrap();
    block_files(folder)
}

/// Kills the work at `moments` random moments in all, and finishes it after every few.
fn kill_and_finish(work: &Work, moments: usize, random: &mut ChaCha8Rng, name: &str) {
    let (mut killed, mut runs, mut marks, mut begun) = (0, 0, 0, 0);
    while killed < moments {
        let folder = tempfile::tempdir().unwrap();
        let groatd = work.begin(folder.path());
        for _ in 0..random.random_range(1..=KILLS_IN_A_ROW) {
            if !work.kill(&groatd, random) {
                break;
            }
            killed += 1;
            let (height, marked) = inspect(&groatd);
            begun += usize::from(height > 0 && height < work.expected.height);
            marks += usize::from(marked);
        }
        runs += 1;
        assert!(runs <= 10 * moments, "{name}: {runs} runs of {:?} gave {killed} kills only; {}", work.takes, repeat());
        work.finish(&groatd, &format!("{name}, after {killed} kills"));
        if runs == 1 {
            groatd.run(["verify-chain"]).succeeded();
        }
    }
    eprintln!(
        "{name}: {killed} kills in {runs} runs of {:.1} s; {begun} left coins between start and end, {marks} a flush cut short",
        work.takes.as_secs_f64()
    );
}

/// The height at which the stored coins stand, and whether a marked flush was under way.
fn inspect(groatd: &Groatd) -> (u32, bool) {
    // Very early there is no store yet.
    let Ok(store) = RocksStore::open(&groatd.chain_folder(), MAGIC, 8 << 20, false) else { return (0, false) };
    let tip = store.meta("tip").unwrap();
    let mut height = 0;
    store
        .for_each_header(&mut |number, record| {
            use bitcoin::hashes::Hash;
            if tip.as_deref() == Some(&record.header.block_hash().to_byte_array()[..]) {
                height = number;
            }
        })
        .unwrap();
    (height, store.meta("flushing").unwrap().is_some())
}

#[test]
fn kills_at_random_moments_of_an_import_lose_nothing() {
    let (seed, mut random) = random();
    let folder = tempfile::tempdir().unwrap();
    // A table so small that it is flushed every few blocks, and one so large that a flush takes several batches.
    for (coins, dbcache, moments) in
        [(40_000, 4, if wide() { 80 } else { 4 }), (300_000, 64, if wide() { 20 } else { 1 })]
    {
        let files = generated(&folder.path().join(coins.to_string()), 1, coins);
        let work = Work::new(None, files, dbcache);
        kill_and_finish(&work, moments, &mut random, &format!("import of {coins} coins, seed {seed}"));
    }
}

#[test]
fn kills_at_random_moments_of_a_reorganisation_lose_nothing() {
    let (seed, mut random) = random();
    let folder = tempfile::tempdir().unwrap();
    for (coins, dbcache, moments) in
        [(35_000, 4, if wide() { 80 } else { 4 }), (150_000, 64, if wide() { 20 } else { 1 })]
    {
        let (data, at) =
            (folder.path().join(format!("data{coins}")), |name: &str| folder.path().join(format!("{name}{coins}")));
        let (old, new) = (generated(&at("old"), 1, coins), generated(&at("new"), 2, coins * 3 / 2));
        let before = Groatd::new("regtest", &data);
        before.import(&old).succeeded();
        let left = before.stats();
        // From genesis on the new chain is another one; what it makes alone is what it must make after the old one.
        let alone = Work::new(None, new.clone(), 450).expected;
        let work = Work::new(Some(data), new, dbcache);
        assert_eq!(work.expected, alone, "after a reorganisation (left) and imported alone (right); {}", repeat());
        assert!(left.height < alone.height, "the new chain is longer: {} and {}", left.height, alone.height);
        kill_and_finish(&work, moments, &mut random, &format!("reorganisation of {coins} coins, seed {seed}"));
    }
}

/// RocksDB makes its tables and its manifest durable before anything refers to them, and each log before it begins the
/// next one. So what a power loss takes is the tail of the newest log, and of the block and undo files what was never
/// fsynced. The log is cut at any byte here, even before a batch that was fsynced: harder than the loss of power. Of the
/// files the part behind the lengths that the cut log still records is cut off, or replaced by zeros or garbage, as file
/// systems do that keep lengths better than bytes.
#[test]
fn a_folder_cut_back_to_what_was_durable_recovers() {
    let (seed, mut random) = random();
    let folder = tempfile::tempdir().unwrap();
    let work = Work::new(None, generated(&folder.path().join("chain"), 1, 40_000), 4);
    for round in 0..if wide() { 30 } else { 6 } {
        let (killed, probe) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let groatd = work.begin(killed.path());
        work.kill(&groatd, &mut random);
        cut_newest_log(&groatd.chain_folder().join("db"), &mut random);
        // Opening a copy cuts its files back to the lengths on record, which tells them.
        copy_folder(killed.path(), probe.path());
        let _ = inspect(&Groatd::new("regtest", probe.path()));
        let tail = ["cut", "zeros", "garbage"][round % 3];
        for kind in ["blk", "rev"] {
            let name = format!("blocks/{kind}00000.dat");
            let (path, durable) = (groatd.chain_folder().join(&name), probe.path().join("regtest").join(&name));
            let (Ok(whole), Ok(durable)) = (std::fs::metadata(&path), std::fs::metadata(durable)) else { continue };
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(durable.len()).unwrap();
            match tail {
                "zeros" => file.set_len(whole.len()).unwrap(),
                "garbage" => {
                    use std::os::unix::fs::FileExt;
                    let mut bytes = vec![0; (whole.len() - durable.len()) as usize];
                    random.fill(&mut bytes[..]);
                    file.write_all_at(&bytes, durable.len()).unwrap();
                }
                _ => {}
            }
        }
        work.finish(&groatd, &format!("power loss, seed {seed}, round {round}, tail {tail}"));
    }
}

/// Cuts the newest of RocksDB's logs at a random byte.
fn cut_newest_log(db: &Path, random: &mut ChaCha8Rng) {
    let entries = std::fs::read_dir(db).into_iter().flatten().map(|entry| entry.unwrap().path());
    let logs = entries.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let Some(newest) = logs.max() else { return };
    let length = std::fs::metadata(&newest).unwrap().len();
    let cut = random.random_range(0..=length);
    OpenOptions::new().write(true).open(newest).unwrap().set_len(cut).unwrap();
}

/// A file system of its own for a test, taken away when dropped.
pub struct Mount(tempfile::TempDir);

impl Mount {
    /// Mounts with these arguments to `mount`. None says "SKIPPED": it takes root, and a system that allows it.
    pub fn new(arguments: &[&str]) -> Option<Mount> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(arguments).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Mount(folder)),
            Ok(output) => {
                eprintln!("SKIPPED: mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("SKIPPED: mount does not run: {error}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn resize(&self, mib: u64) {
        let status = Command::new("mount").arg("-o").arg(format!("remount,size={mib}m")).arg(self.path()).status();
        assert!(status.unwrap().success(), "a tmpfs can be resized");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Fails only where a process still lives in it; then the folder stays behind.
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// Power loss as a disk sees it: the file system lies in an image, the process in it is killed, and the image is copied
/// while what nobody fsynced is still in the file system's memory. The copy is what a computer finds that lost power.
#[test]
fn a_disk_that_lost_power_recovers() {
    if !wide() {
        eprintln!("SKIPPED: power loss on a real file system (GROAT_WIDE=1 runs it)");
        return;
    }
    let (seed, mut random) = random();
    let folder = tempfile::tempdir().unwrap();
    let work = Work::new(None, generated(&folder.path().join("chain"), 1, 40_000), 4);
    for round in 0..15 {
        let (image, copy) = (folder.path().join("image"), folder.path().join("copy"));
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        if !Command::new("mkfs.ext4").arg("-qF").arg(&image).status().is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: mkfs.ext4 does not run");
            return;
        }
        // Without fsync nothing is written for 300 seconds.
        let options = ["-o", "loop,commit=300"];
        let Some(disk) = Mount::new(&[&options[..], &[image.to_str().unwrap()]].concat()) else { return };
        work.kill(&work.begin(&disk.path().join("data")), &mut random);
        let copied = Command::new("cp").arg("--sparse=always").arg(&image).arg(&copy).status();
        assert!(copied.unwrap().success(), "an image can be copied");
        drop(disk);
        let disk = Mount::new(&[&options[..], &[copy.to_str().unwrap()]].concat()).expect("it could be mounted before");
        let groatd = work.begin(&disk.path().join("data"));
        work.finish(&groatd, &format!("disk that lost power, seed {seed}, round {round}"));
    }
}

#[test]
fn a_full_disk_stops_with_a_sentence_and_nothing_is_lost() {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let mut blocks = vec![];
    let mut tip = regtest::genesis().block_hash();
    for height in 1..=120 {
        let block = regtest::bulky(tip, height);
        tip = block.block_hash();
        blocks.push(block);
    }
    let file = folder.path().join("all.dat");
    std::fs::write(&file, framed(MAGIC, &blocks)).unwrap();
    let work = Work::new(None, vec![file], 16);

    let Some(disk) = Mount::new(&["-t", "tmpfs", "-o", "size=40m", "tmpfs"]) else { return };
    let groatd = work.begin(&disk.path().join("data"));
    groatd.import(&work.files).failed(&["MiB of disk are left", "make room and start again"]);
    // Now there is room enough to begin, but not for the blocks: the write of one of them fails.
    disk.resize(100);
    groatd.import(&work.files).failed(&["the disk is full", "free some space and start again"]);
    disk.resize(400);
    work.finish(&groatd, "a full disk, with room made");
    let used: u64 = 120 * MIB;
    let left = std::fs::metadata(groatd.chain_folder().join("blocks/blk00000.dat")).unwrap().len();
    assert!(left < used, "expected: each block stored once ({used} bytes at most), found: {left}; {}", repeat());
    groatd.run(["verify-chain"]).succeeded();
}
