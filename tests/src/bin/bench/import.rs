//! `bench import`: times groatd and bitcoind importing the generated chains, side by side, and prints the table that
//! docs/PERFORMANCE.md keeps. Runs nothing else at the same time.

use std::path::Path;

use anyhow::{Context, Result};
use groat_tests::chaingen::block_files;

use crate::process::{Cost, disk, measure};
use crate::race::{Chain, Race, read_log};

/// Imports each chain into both.
pub fn run(race: &Race) -> Result<()> {
    race.run(|program, chain| run_groatd(race, program, chain), |program, chain| run_bitcoind(race, program, chain))
}

fn run_groatd(race: &Race, program: &Path, (chain, summary): &Chain) -> Result<Cost> {
    let data = tempfile::tempdir_in(&race.folder)?;
    let mut command = race.groatd(program, data.path());
    command.args(["--assumevalid=0", "import"]).args(block_files(chain));
    let mut cost = measure(&mut command, |_| false)?;
    cost.disk = disk(data.path())?;
    race.check_groatd(program, data.path(), summary)?;
    Ok(cost)
}

fn run_bitcoind(race: &Race, program: &Path, chain: &Chain) -> Result<Cost> {
    let data = tempfile::tempdir_in(&race.folder)?;
    copy_blocks(&chain.0, data.path())?;
    let mut command = race.bitcoind(program, data.path(), &chain.1);
    command.args(["-reindex", "-blocksxor=0", "-connect=0"]);
    let mut cost = measure(&mut command, |_| false)?;
    cost.bip30 = read_log(data.path(), &chain.1)?;
    cost.disk = disk(data.path())?;
    Ok(cost)
}

/// Puts the files of a chain where a bitcoind with this data folder finds them by `-reindex`.
pub fn copy_blocks(chain: &Path, data: &Path) -> Result<()> {
    let blocks = data.join("regtest/blocks");
    std::fs::create_dir_all(&blocks)?;
    for file in block_files(chain) {
        std::fs::copy(&file, blocks.join(file.file_name().context("a block file has a name")?))?;
    }
    Ok(())
}
