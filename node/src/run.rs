//! The commands of `groatd`, from the arguments to the exit status.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Context, bail};
use bitcoin::Amount;
use bitcoin::hashes::{Hash, sha256};
use groat_chain::params::Params;
use groat_chain::stats::{CoinCount, HashKind};
use tracing::info;

use crate::chainstate::{self, Chainstate, OpenStore};
use crate::clock;
use crate::config::{Coins, Command, Config, Read, Stop, user_agent};
use crate::handle::NodeHandle;
use crate::import::{self, Imported, Source};
use crate::log::{self, Style};
use crate::miner::Miner;
use crate::network;
use crate::node::{self, Node};
use crate::notify;
use crate::process::{self, PidFile};
use crate::progress::{Progress, Reading};
use crate::rpc::{self, Server};
use crate::systemd;

/// Runs the process. A failure prints one line, `Error: ...`, to standard error and gives status 1.
pub fn main() -> ExitCode {
    // Data, log and pool are the operator's alone. Core: `SetupEnvironment`.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let said = match Config::read(std::env::args_os(), |name| std::env::var(name).ok()) {
        Ok(read) => start(&read),
        Err(Stop::Told(told)) => told.exit(),
        Err(Stop::Wrong(error)) => Err(error),
    };
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(read: &Read) -> anyhow::Result<()> {
    read.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let config = &read.config;
    if let Some(shown) = Config::shown(read) {
        read.notes.iter().for_each(|note| std::println!("# {note}"));
        std::print!("{shown}");
        return Ok(());
    }
    if config.start.mocktime > 0 {
        clock::set(config.start.mocktime);
    }
    match config.command {
        None => config.log.begin()?,
        // What a command says is its output.
        Some(_) => {
            log::begin(Style { console: true, ..Style::default() });
            log::without_file();
        }
    }
    if config.command.is_none() {
        // What makes no sense is refused before anything is written.
        let params = chainstate::network(config)?;
        network::plan(config, &params, &config.data_folder())?;
        config.mining(&params)?;
        config.policy()?;
        config.block_limits()?;
        config.notify.zmq()?;
        user_agent(&config.start.uacomment)?;
        let folder = config.data_folder().join(&params.folder);
        if config.start.in_background() && process::to_background(&folder)? {
            std::println!("groatd goes on in the background");
            return Ok(());
        }
        read.notes.iter().for_each(|note| info!("{note}"));
        if params.name == "main" {
            info!("Groat is young: have a second node beside it wherever much money depends on what it says");
        }
    }
    run(config)
}

fn run(config: &Config) -> anyhow::Result<()> {
    // First of all, so that there is no moment at which a signal does harm.
    let (stop, node) = stop_on_signals()?;
    if config.start.stopateof {
        std::thread::spawn(stop_at_eof);
    }
    if let Some(Command::Import { files, .. }) = &config.command
        && files.len() > 1
        && reads_stdin(files)
    {
        bail!("standard input (-) cannot be mixed with files");
    }
    let store = chainstate::open_store(config)?;
    if config.command.is_none() {
        config.log.open(&store.folder)?;
        info!("groatd {} on {} in {}", crate::VERSION, store.params.name, store.folder.display());
        if let Ok(file) = std::fs::read(&config.chain)
            && Params::by_name(&config.chain).is_none()
        {
            // Whoever joins can see that it is the same file.
            info!("the file of this network has the hash {}", sha256::Hash::hash(&file));
        }
    }
    // From now on calls are told that the node starts, however long that takes.
    let server = match config.command {
        None if config.server => Some(Server::begin(interface(config, &store)?)?),
        _ => None,
    };
    if let Some(server) = &server {
        server.warming_up(if config.reindex { "Reindexing blocks…" } else { "Verifying blocks…" });
    }
    let mut state = store.open()?;
    if config.reindex {
        let files = own_block_files(&state)?;
        info!("reindexing {} block files", files.len());
        report(&import::import(&mut state.ledger, &state.pool, Source::Own(files), &stop)?);
    }
    if config.command.is_some() && !stop.load(Ordering::Relaxed) {
        import::catch_up(&mut state.ledger, &state.pool, &stop)?;
    }
    if stop.load(Ordering::Relaxed) {
        info!("stopped early at height {}; the next start goes on from there", state.ledger.height());
        return Ok(());
    }
    match &config.command {
        None => run_node(config, state, server, &stop, &node),
        Some(Command::Import { files, from_bitcoin: None }) => import_files(&mut state, files, &stop),
        Some(Command::Import { from_bitcoin: Some(folder), .. }) => {
            let files = bitcoin_block_files(folder, state.ledger.params())?;
            import_files(&mut state, &files, &stop)
        }
        Some(Command::VerifyChain { depth }) => verify_chain(&mut state, *depth, &stop),
        Some(Command::Coins(Coins::Stats { json })) => coin_stats(&mut state, *json, &stop),
        Some(Command::Config { .. } | Command::Completions { .. } | Command::Man) => Ok(()),
    }
}

/// Runs the node until a signal or an interface stops it.
fn run_node(
    config: &Config,
    mut state: Chainstate,
    server: Option<Server>,
    stop: &AtomicBool,
    signalled: &OnceLock<NodeHandle>,
) -> anyhow::Result<()> {
    state.ledger.check_space()?;
    chainstate::refuse_future_tip(&state.ledger)?;
    chainstate::refuse_missing_blocks(&state.ledger, config)?;
    let pid = config.start.pid.as_ref().filter(|path| path.as_os_str() != "0");
    let pid = pid.map(|path| PidFile::create(state.folder.join(path))).transpose()?;
    if let Some(depth) = config.start.checkblocks {
        verify_chain(&mut state, depth, stop)?;
    }
    if !config.start.loadblock.is_empty() {
        let files = Source::Files(config.start.loadblock.clone());
        report(&import::import(&mut state.ledger, &state.pool, files, stop)?);
    }
    if config.start.stopafterblockimport {
        import::catch_up(&mut state.ledger, &state.pool, stop)?;
        info!("stopped after the import at height {}", state.ledger.height());
        return Ok(());
    }
    let mining = config.mining(state.ledger.params())?;
    let node = Node::start(config, state)?;
    signalled.set(node.handle().clone()).unwrap_or_else(|_| unreachable!("one node a process"));
    if stop.load(Ordering::SeqCst) {
        node.handle().stop();
    }
    let handle = node.handle().clone();
    if let Some(server) = &server {
        server.ready(handle.clone());
        info!("listening for JSON-RPC on {}", server.address());
        if let Some(address) = server.metrics() {
            info!("serving metrics on http://{address}/metrics");
        }
        if std::io::stdout().is_terminal() {
            info!("`{}` tells what it is doing; Ctrl-C stops it", status_command(config));
        }
    }
    let miner = mining.map(|options| Miner::start(handle.clone(), options)).transpose();
    if miner.is_err() {
        handle.stop();
    }
    systemd::ready();
    config.notify.startupnotify.iter().for_each(|command| notify::run(command.clone()));
    node.wait()?;
    miner?.into_iter().for_each(Miner::wait);
    // Answers under way go out, and the cookie goes.
    drop(server);
    drop(pid);
    let (tip, height) = handle.tip();
    info!("stopped at tip {tip} at height {height}");
    Ok(())
}

/// What to type to see what this node does.
fn status_command(config: &Config) -> String {
    let folder = config.datadir.as_ref().map(|folder| format!(" --datadir {}", folder.display()));
    let port = config.rpcport.map(|port| format!(" --rpc 127.0.0.1:{port}"));
    format!("groat status --chain {}{}{}", config.chain, folder.unwrap_or_default(), port.unwrap_or_default())
}

/// What the interfaces are to be.
fn interface(config: &Config, store: &OpenStore) -> anyhow::Result<rpc::Config> {
    Ok(rpc::Config {
        folder: store.folder.clone(),
        port: config.rpcport.unwrap_or(store.params.rpc_port),
        http: config.http.clone(),
        user_agent: user_agent(&config.start.uacomment)?,
        services: node::services(config),
        relay: !config.blocksonly,
        prune: chainstate::prune(config)?,
        block_limits: config.block_limits()?,
        ban_time: config.peers.bantime,
        zmq: config.notify.zmq()?,
    })
}

fn reads_stdin(files: &[PathBuf]) -> bool {
    files.iter().any(|file| file.as_os_str() == "-")
}

fn import_files(state: &mut Chainstate, files: &[PathBuf], stop: &AtomicBool) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (ledger, pool) = (&mut state.ledger, &state.pool);
    ledger.check_space()?;
    let imported = if reads_stdin(files) {
        import::import_stream(ledger, pool, std::io::stdin(), stop)?
    } else {
        import::import(ledger, pool, Source::Files(files.to_vec()), stop)?
    };
    report(&imported);
    let tree = state.ledger.tree();
    let tree = tree.read();
    let tip = tree.node(tree.tip());
    println!("tip {} at height {} after {:.1} s", tip.hash, tip.height, begun.elapsed().as_secs_f64());
    if imported.stopped {
        return Ok(());
    }
    // What can be imported is imported; then the worst that was met makes the run a failure.
    if let Some((hash, rejection)) = &imported.first_refused {
        bail!("{} blocks were refused, the first one ({hash}) with {rejection}", imported.refused);
    }
    if let Some(foreign) = imported.foreign {
        bail!("{foreign}");
    }
    if imported.undecodable > 0 {
        bail!(
            "{} blocks are damaged and were left out: get them from another place and import again",
            imported.undecodable
        );
    }
    if imported.orphans > 0 {
        bail!(
            "{} blocks were left out, since blocks below them are neither known nor in the files: import those as well",
            imported.orphans
        );
    }
    Ok(())
}

fn report(imported: &Imported) {
    // Each block's first transaction is its coinbase; all others pay somebody.
    let payments = imported.transactions.saturating_sub(imported.blocks);
    println!("{payments} payments validated");
    println!(
        "{} new blocks with {} transactions, {} known, {} refused, {} undecodable, {} without parent, {} bytes skipped{}",
        imported.blocks,
        imported.transactions,
        imported.known,
        imported.refused,
        imported.undecodable,
        imported.orphans,
        imported.skipped_bytes,
        if imported.stopped { "; stopped early" } else { "" },
    );
}

fn verify_chain(state: &mut Chainstate, depth: u32, stop: &AtomicBool) -> anyhow::Result<()> {
    let height = state.ledger.height();
    let total = if depth == 0 { height } else { depth.min(height) };
    let mut progress = Progress::begin("verify-chain", 2 * u64::from(total));
    let mut steps = 0;
    let verified = state.ledger.verify_chain(depth, true, &mut |_| {
        if stop.load(Ordering::Relaxed) {
            // It writes nothing, so nothing has to be ended in order.
            eprintln!("Error: stopped before the end");
            std::process::exit(1);
        }
        steps += 1;
        progress.show(Reading { blocks: steps, height, ..Reading::default() });
        true
    })?;
    let seconds = progress.end();
    println!(
        "verified {} blocks with {} transactions down from height {height} in {seconds:.1} s{}",
        verified.blocks,
        verified.transactions,
        if verified.pruned { "; the blocks below are pruned" } else { "" },
    );
    Ok(())
}

fn coin_stats(state: &mut Chainstate, json: bool, stop: &AtomicBool) -> anyhow::Result<()> {
    state.ledger.flush()?;
    let tree = state.ledger.tree();
    let (height, best_block) = {
        let tree = tree.read();
        let tip = tree.node(tree.tip());
        (tip.height, tip.hash)
    };
    let mut count = CoinCount::new(HashKind::Muhash, height, best_block);
    state.ledger.store().for_each_coin(&mut |outpoint, coin| {
        count.add(&outpoint, &coin);
        !stop.load(Ordering::Relaxed)
    })?;
    if stop.load(Ordering::Relaxed) {
        bail!("stopped before the end");
    }
    let stats = count.finish();
    // Amounts are exact decimal text, never floats.
    let total = stats.total_amount.context("the coins add up to more than all money")?;
    let total =
        format!("{}.{:08}", total.to_sat() / Amount::ONE_BTC.to_sat(), total.to_sat() % Amount::ONE_BTC.to_sat());
    let muhash = stats.hash.map(|hash| hash.to_string()).unwrap_or_default();
    if json {
        std::println!(
            "{{\"height\":{height},\"bestblock\":\"{best_block}\",\"txouts\":{},\"bogosize\":{},\"muhash\":\"{muhash}\",\"total_amount\":{total}}}",
            stats.txouts,
            stats.bogosize,
        );
    } else {
        std::println!("height        {height}");
        std::println!("bestblock     {best_block}");
        std::println!("txouts        {}", stats.txouts);
        std::println!("total_amount  {total}");
        std::println!("muhash        {muhash}");
    }
    Ok(())
}

/// The node's own block files with their numbers.
fn own_block_files(state: &Chainstate) -> anyhow::Result<Vec<(u32, PathBuf)>> {
    let files = state.ledger.store().files()?;
    Ok(files.into_iter().map(|(number, _)| (number, state.blocks.join(format!("blk{number:05}.dat")))).collect())
}

/// The block files of a network in a data folder of Bitcoin Core, oldest first.
fn bitcoin_block_files(folder: &Path, params: &Params) -> anyhow::Result<Vec<PathBuf>> {
    let blocks = folder.join(&params.folder).join("blocks");
    let listed = std::fs::read_dir(&blocks).with_context(|| format!("cannot read {}", blocks.display()))?;
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    let is_block_file = |name: &str| name.starts_with("blk") && name.ends_with(".dat");
    files.retain(|path| path.file_name().and_then(OsStr::to_str).is_some_and(is_block_file));
    files.sort();
    if files.is_empty() {
        bail!("there is no blk*.dat in {}", blocks.display());
    }
    Ok(files)
}

/// A flag that SIGINT and SIGTERM raise: the run then ends by itself, with everything written. A node, once there is
/// one, is told.
fn stop_on_signals() -> anyhow::Result<(Arc<AtomicBool>, Arc<OnceLock<NodeHandle>>)> {
    use tokio::signal::unix::{SignalKind, signal};
    let (stop, node) = (Arc::new(AtomicBool::new(false)), Arc::new(OnceLock::<NodeHandle>::new()));
    let (raised, told) = (stop.clone(), node.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {
                        log::reopen();
                        continue;
                    }
                }
                info!("{}", if raised.load(Ordering::Relaxed) { "still writing; nothing is lost" } else { "stopping" });
                raised.store(true, Ordering::SeqCst);
                if let Some(node) = told.get() {
                    node.stop();
                }
            }
        })
    });
    Ok((stop, node))
}

/// Does what SIGTERM does once nobody holds the other end of standard input any more.
fn stop_at_eof() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
}
