//! `bench sync`: groatd and bitcoind, in turn, fetch each generated chain over loopback from one bitcoind and validate it.
//! Who serves competes for the same processors: its share is told as well.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use groat_tests::bitcoind::free_port;
use groat_tests::groatd::signal;

use crate::import::copy_blocks;
use crate::process::{Cost, disk, measure, process};
use crate::race::{Chain, Race, read_log};

/// How long the server may take to listen.
const STARTUP: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Sync {
    #[command(flatten)]
    race: Race,
    /// The bitcoind that serves the chain [default: the one that is measured]
    #[arg(long)]
    server: Option<PathBuf>,
    /// 1: encrypted links (BIP324)
    #[arg(long, default_value_t = 1)]
    v2transport: u8,
}

/// Fetches each chain into both.
pub fn run(sync: &Sync) -> Result<()> {
    println!("Over loopback from one bitcoind, `--v2transport={}`.", sync.v2transport);
    sync.race
        .run(|program, chain| run_groatd(sync, program, chain), |program, chain| run_bitcoind(sync, program, chain))
}

fn run_groatd(sync: &Sync, program: &Path, chain: &Chain) -> Result<Cost> {
    let server = Server::start(sync, chain)?;
    let data = tempfile::tempdir_in(&sync.race.folder)?;
    let mut command = sync.race.groatd(program, data.path());
    command.args(["--assumevalid=0", "--listen=0", "--server=0", &format!("--v2transport={}", sync.v2transport)]);
    command.args(["--connect", &server.addr.to_string()]);
    let tip = format!("tip {} at height", chain.1.tip);
    let mut cost = measure(&mut command, |said| said.contains(&tip))?;
    cost.server = server.end()?;
    cost.disk = disk(data.path())?;
    sync.race.check_groatd(program, data.path(), &chain.1)?;
    Ok(cost)
}

fn run_bitcoind(sync: &Sync, program: &Path, chain: &Chain) -> Result<Cost> {
    let server = Server::start(sync, chain)?;
    let data = tempfile::tempdir_in(&sync.race.folder)?;
    let mut command = sync.race.bitcoind(program, data.path(), &chain.1);
    command.arg(format!("-connect={}", server.addr)).arg(format!("-v2transport={}", sync.v2transport));
    let mut cost = measure(&mut command, |_| false)?;
    cost.server = server.end()?;
    cost.bip30 = read_log(data.path(), &chain.1)?;
    cost.disk = disk(data.path())?;
    Ok(cost)
}

/// A bitcoind that has a chain and serves it. Dropping it kills it.
struct Server {
    process: Child,
    addr: SocketAddr,
    /// Seconds of processor that its start took.
    before: f64,
}

impl Server {
    fn start(sync: &Sync, chain: &Chain) -> Result<Server> {
        let program = sync.server.as_ref().or(sync.race.bitcoind.as_ref()).context("name a bitcoind with --server")?;
        let data = prepared(sync, program, chain)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let process = command(program, &data)
            .args(["-listen=1", "-listenonion=0", "-checkblocks=1"])
            .args([format!("-bind={addr}"), format!("-v2transport={}", sync.v2transport)])
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut server = Server { process, addr, before: 0.0 };
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            ensure!(begun.elapsed() < STARTUP, "the bitcoind that serves does not listen after {STARTUP:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server.before = process_seconds(&server.process)?;
        Ok(server)
    }

    /// Stops it; gives the seconds of processor that serving took.
    fn end(mut self) -> Result<f64> {
        let seconds = process_seconds(&self.process)? - self.before;
        signal(&self.process, "TERM");
        self.process.wait()?;
        Ok(seconds)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn process_seconds(child: &Child) -> Result<f64> {
    Ok(process(&child.id().to_string())?.1)
}

fn command(program: &Path, data: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(format!("-datadir={}", data.display()));
    command.args(["-regtest", "-connect=0", "-server=0", "-printtoconsole=0", "-assumevalid=0"]);
    command.args(["-checkblockindex=0", "-checkmempool=0"]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The data folder of a bitcoind that has the chain, kept beside it.
fn prepared(sync: &Sync, program: &Path, (chain, summary): &Chain) -> Result<PathBuf> {
    let data = chain.with_extension("served");
    let done = data.join("done");
    if std::fs::read_to_string(&done).is_ok_and(|tip| tip == summary.tip) {
        return Ok(data);
    }
    eprintln!("preparing {}", data.display());
    let _ = std::fs::remove_dir_all(&data);
    copy_blocks(chain, &data)?;
    let mut import = command(program, &data);
    import.args(["-reindex", "-blocksxor=0", "-listen=0"]).arg(format!("-stopatheight={}", summary.height));
    import.arg(format!("-v2transport={}", sync.v2transport));
    let status = import.status()?;
    ensure!(status.success(), "the bitcoind that serves ended its import with {status}");
    read_log(&data, summary)?;
    std::fs::write(done, &summary.tip)?;
    Ok(data)
}
