//! Real chains from genesis: `groatd` ends where their names say, and bitcoind, given the same file, agrees on the
//! tip and on every coin.

use std::path::{Path, PathBuf};
use std::time::Duration;

use groat_tests::bitcoind::{Bitcoind, chain_folder, peers};
use groat_tests::data::groat_data;
use groat_tests::groatd::{Groatd, Stats, repeat};
use serde_json::json;

/// Files of whole chains, `NETWORK-0000000-HEIGHT.blk`, with the network as `--chain` takes it and the height.
fn runs() -> Vec<(PathBuf, &'static str, u32)> {
    let run = |path: PathBuf| {
        let name = path.file_stem()?.to_str()?;
        let (network, range) = name.split_once('-')?;
        let height = range.strip_prefix("0000000-")?.parse().ok()?;
        let networks = [
            ("mainnet", "main"),
            ("testnet3", "test"),
            ("testnet4", "testnet4"),
            ("signet", "signet"),
            ("regtest", "regtest"),
        ];
        let (_, chain) = networks.into_iter().find(|(long, _)| *long == network)?;
        Some((path, chain, height))
    };
    groat_data("contiguous-chains", ".blk").into_iter().filter_map(run).collect()
}

#[test]
fn vectors_real_chains_end_at_the_height_of_their_name() {
    for (path, chain, height) in runs() {
        let folder = tempfile::tempdir().unwrap();
        let groatd = Groatd::new(chain, folder.path()).with("--assumevalid=0");
        groatd.import(&[&path]).succeeded().printed(&[" 0 refused, 0 undecodable, 0 without parent, 0 bytes skipped"]);
        groatd.run(["verify-chain"]).succeeded().printed(&[&format!("verified {height} blocks")]);
        let stats = groatd.stats();
        assert_eq!(stats.height, height, "{}: the height reached (left); {}", path.display(), repeat());
    }
}

#[test]
fn bitcoind_agrees_on_tip_and_coins_of_real_chains() {
    let Some(peers) = peers() else { return };
    for (path, chain, height) in runs() {
        let folder = tempfile::tempdir().unwrap();
        let groatd = Groatd::new(chain, folder.path()).with("--assumevalid=0");
        groatd.import(&[&path]).succeeded();
        let (ours, theirs) = (groatd.stats(), by_bitcoind(&peers, &path, chain, height));
        assert_eq!(ours, theirs, "{}: groatd (left) and bitcoind (right); {}", path.display(), repeat());
    }
}

/// What a bitcoind makes of a block file.
fn by_bitcoind(peers: &Path, path: &Path, chain: &str, height: u32) -> Stats {
    let folder = tempfile::tempdir().unwrap();
    let blocks = chain_folder(folder.path(), chain).join("blocks");
    std::fs::create_dir_all(&blocks).unwrap();
    std::fs::copy(path, blocks.join("blk00000.dat")).unwrap();
    let options = ["-reindex", "-assumevalid=0", "-blocksxor=0", "-par=2"].map(String::from);
    let bitcoind = Bitcoind::start_in(peers, folder, chain, &options);
    bitcoind.wait_for_height(height, Duration::from_secs(120));
    serde_json::from_value(bitcoind.call("gettxoutsetinfo", json!(["muhash"]))).unwrap()
}
