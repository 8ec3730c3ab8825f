//! `groat net up`: starts nodes, a miner and a faucet on this machine, and ends them all with itself.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bdk_wallet::KeychainKind;
use bitcoin::Address;
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::rand::{RngCore, rngs::OsRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{FAUCET, Home, STOP_LIMIT, Started, file_hash, first, interrupted};
use crate::cli::{KeyOptions, Up};
use crate::error::{Doing, Result, failed, usage};
use crate::keys::{self, Kind};
use crate::network::Network;
use crate::rpc::Node;
use crate::session::Session;
use crate::store::{self, Birthday};
use crate::sync::now;
use crate::wallets;

/// How long nodes may take to answer and to be linked.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked at them meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// `groat net up`.
pub fn up(session: &Session, options: &Up) -> Result<()> {
    // First of all, so that there is no moment at which a signal leaves something running.
    let stop = stop_on_signals()?;
    let groatd = find_groatd()?;
    let own = Path::new(&options.network).is_file();
    if !own && options.network != "regtest" {
        let what = format!(
            "there is no file {:?}: give a network's file (`groat net new` makes one), or regtest",
            options.network
        );
        return Err(usage(what));
    }
    let network = Network::load(&options.network)?;
    if network.params.signet_challenge.is_some() {
        return Err(failed(format!(
            "{} is a signet, whose blocks need a signature that `net up` cannot give: start one node with `groatd --chain {} \
             --mine-to ADDRESS --signet-key-file KEY`, further ones with --addnode",
            network.name(),
            options.network
        )));
    }
    let home = Home::of(session, network.name(), options.dir.as_deref());
    std::fs::create_dir_all(&home.folder).doing(format!("make {}", home.folder.display()))?;
    let _alone = alone(&home, &network)?;
    let chain = if own {
        take_file(&home, Path::new(&options.network))?.display().to_string()
    } else {
        options.network.clone()
    };
    let started = Started { chain, ports: choose_ports(session, &network, options)? };
    let text = json!(started).to_string();
    store::write_private(&home.file("nodes.json"), &text)?;
    let address = faucet(session, &home)?;
    let blocks = home.file("first.dat");
    // A node that was started once has a lock in its folder; the faucet's wallet is there before.
    if !blocks.is_file() && !home.node(0).join(&network.params.folder).join(".lock").is_file() {
        session.say(&format!("Mining the first {} blocks ...", network.params.coinbase_maturity + 1));
        let made = first::blocks(&network.params, &address.script_pubkey(), now() as u32, &stop)?;
        first::write(&blocks, &network.params, &made)?;
    }
    let mut nodes = Nodes { children: Vec::new(), home: &home };
    for number in 0..started.ports.len() {
        let mut command = command(&groatd, &home, &started, number, options);
        if number == 0 {
            command.arg("--mine-to").arg(address.to_string());
            if blocks.is_file() {
                command.arg("--loadblock").arg(&blocks);
            }
        }
        nodes.start(command, number)?;
    }
    nodes.wait_until_linked(session, &started, &network, &stop)?;
    show(session, options, &home, &started, &network)?;
    if options.detach {
        nodes.children.clear();
        return Ok(());
    }
    while !stop.load(Ordering::Relaxed) && nodes.all_run()? {
        std::thread::sleep(PAUSE);
    }
    session.say("Stopping the nodes ...");
    Ok(())
}

/// A flag that SIGINT, SIGTERM and SIGHUP raise.
fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing("wait for signals")?;
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _inside = runtime.enter();
        let wait_for = |kind| signal(kind).doing("wait for signals");
        (wait_for(SignalKind::interrupt())?, wait_for(SignalKind::terminate())?, wait_for(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} _ = hang_up.recv() => {} }
                raised.store(true, Ordering::Relaxed);
            }
        })
    });
    Ok(stop)
}

/// The node's program: beside this one, or where programs are.
fn find_groatd() -> Result<PathBuf> {
    let own = std::env::current_exe().doing("find the own program")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = own.parent().map(Path::to_owned).into_iter();
    let found =
        beside.chain(std::env::split_paths(&path)).map(|folder| folder.join("groatd")).find(|path| path.is_file());
    found.ok_or_else(|| failed(format!("there is no groatd beside {} and none in PATH: put it there", own.display())))
}

/// Makes sure that no node of the network runs, and that none is started meanwhile.
fn alone(home: &Home, network: &Network) -> Result<File> {
    let path = home.file(".lock");
    let lock = File::create(&path).doing(format!("make {}", path.display()))?;
    let nodes = home.started().map_or(0, |started| started.ports.len());
    if lock.try_lock().is_err() || (0..nodes).any(|number| home.process(number, network).is_some()) {
        let (name, folder) = (network.name(), home.folder.display());
        return Err(failed(format!("the network {name} is up already: `groat net down --dir {folder}` stops it")));
    }
    Ok(lock)
}

/// Keeps a copy of the network's file, for those commands that come later. Another file with that name is another network.
fn take_file(home: &Home, file: &Path) -> Result<PathBuf> {
    let copy = home.file("network.toml");
    if copy.is_file() && file_hash(&copy)? != file_hash(file)? {
        return Err(failed(format!(
            "{} holds nodes of a network with another file ({}): give one of the two another name, or --dir",
            home.folder.display(),
            copy.display()
        )));
    }
    if !copy.is_file() {
        std::fs::copy(file, &copy).doing(format!("write {}", copy.display()))?;
    }
    std::path::absolute(&copy).doing(format!("find {}", copy.display()))
}

/// Node 0 takes the network's own ports, so that a node started by hand finds it; each further one those two above. Where
/// they are taken it has any others.
fn choose_ports(session: &Session, network: &Network, options: &Up) -> Result<Vec<(u16, u16)>> {
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    // They are held until all are chosen.
    let mut held = Vec::new();
    let mut hold = |wanted: [Option<u16>; 2]| -> Option<[u16; 2]> {
        let listeners = [listen(wanted[0]?).ok()?, listen(wanted[1]?).ok()?];
        let ports = listeners.each_ref().map(|listener| listener.local_addr().map(|address| address.port()));
        held.extend(listeners);
        let [Ok(port), Ok(rpc_port)] = ports else { return None };
        Some([port, rpc_port])
    };
    let mut ports = Vec::new();
    for number in 0..options.nodes {
        let own = [network.params.port, network.params.rpc_port].map(|port| port.checked_add(2 * number));
        let [port, rpc_port] = match hold(own) {
            Some(ports) => ports,
            None if number == 0 && options.open => {
                let [port, rpc_port] = [network.params.port, network.params.rpc_port];
                return Err(failed(format!(
                    "port {port} or {rpc_port} of {} is taken: stop what listens there, or give the network's file others",
                    network.name()
                )));
            }
            None => hold([Some(0); 2]).ok_or_else(|| failed("this machine has no free port left"))?,
        };
        ports.push((port, rpc_port));
    }
    let [port, rpc_port] = [network.params.port, network.params.rpc_port];
    if ports[0] != (port, rpc_port) {
        session.say(&format!("Port {port} or {rpc_port} is taken, so node 0 has others."));
    }
    Ok(ports)
}

/// The address of the faucet, whose wallet is made if there is none.
fn faucet(session: &Session, home: &Home) -> Result<Address> {
    let password = home.file("faucet.password");
    if !password.is_file() {
        let mut secret = [0; 16];
        OsRng.fill_bytes(&mut secret);
        store::write_private(&password, &format!("{}\n", secret.to_lower_hex_string()))?;
    }
    let faucet = home.faucet(session)?;
    if !store::names(&faucet.wallets())?.iter().any(|name| name == FAUCET) {
        let (words, password) = (keys::new_words(12)?, faucet.prompt.password()?);
        let keys = KeyOptions { kind: Kind::Taproot, passphrase: false };
        let (mut store, _) = wallets::make(&faucet, FAUCET, &words, &password, "", &keys, Birthday::Height(0))?;
        store.wallet.next_unused_address(KeychainKind::External);
        store.save()?;
    }
    Ok(faucet.open()?.wallet.peek_address(KeychainKind::External, 0).address)
}

/// The command line of a node; it is linked with all before it.
fn command(groatd: &Path, home: &Home, started: &Started, number: usize, options: &Up) -> Command {
    let (port, rpc_port) = started.ports[number];
    let mut command = Command::new(groatd);
    command.args(["--chain", &started.chain, "--datadir"]).arg(home.node(number));
    command.args(["--connect=0", "--listen=1", "--natpmp=0", "--listenonion=0", "--printtoconsole=0"]);
    command.args([format!("--port={port}"), format!("--rpcport={rpc_port}")]);
    if !(options.open && number == 0) {
        command.arg(format!("--bind=127.0.0.1:{port}"));
    }
    let before = &started.ports[..number];
    command.args(before.iter().map(|(port, _)| format!("--addnode=127.0.0.1:{port}")));
    // A signal from the terminal comes here alone: the nodes are stopped in order.
    command.process_group(0).stdout(Stdio::null());
    if options.detach {
        command.stdin(Stdio::null());
    } else {
        // However this process ends, the nodes see it.
        command.arg("--stopateof=1").stdin(Stdio::piped());
    }
    command
}

/// The nodes that run. Dropping it stops them.
struct Nodes<'a> {
    children: Vec<Child>,
    home: &'a Home,
}

impl Nodes<'_> {
    fn start(&mut self, mut command: Command, number: usize) -> Result<()> {
        let folder = self.home.node(number);
        std::fs::create_dir_all(&folder).doing(format!("make {}", folder.display()))?;
        let errors = File::create(folder.join("stderr")).doing(format!("write to {}", folder.display()))?;
        self.children.push(command.stderr(errors).spawn().doing("start groatd")?);
        Ok(())
    }

    /// Whether no node was stopped, as `net down` does. Fails when one has failed, with what it said.
    fn all_run(&mut self) -> Result<bool> {
        for (number, child) in self.children.iter_mut().enumerate() {
            if let Some(status) = child.try_wait().doing("look after a node")? {
                if status.success() {
                    return Ok(false);
                }
                let said = std::fs::read_to_string(self.home.node(number).join("stderr")).unwrap_or_default();
                let why = said
                    .lines()
                    .last()
                    .map_or_else(|| status.to_string(), |line| line.trim_start_matches("Error: ").to_owned());
                return Err(failed(format!("node {number} has ended ({why}), so all are stopped")));
            }
        }
        Ok(true)
    }

    /// Waits until every node answers, knows the first blocks, and is linked with all others.
    fn wait_until_linked(
        &mut self,
        session: &Session,
        started: &Started,
        network: &Network,
        stop: &AtomicBool,
    ) -> Result<()> {
        let begun = Instant::now();
        let (count, height) = (started.ports.len() as u64, network.params.coinbase_maturity);
        for number in 0..started.ports.len() {
            let session = self.home.session(session, started, number)?;
            let ready = |node: Node| -> Result<bool> {
                let links: u64 = node.call("getconnectioncount", json!([]))?;
                let blocks: u32 = node.call("getblockcount", json!([]))?;
                Ok(links + 1 >= count && blocks > height)
            };
            while !session.node().and_then(ready).unwrap_or(false) {
                if !self.all_run()? || stop.load(Ordering::Relaxed) {
                    return Err(interrupted());
                }
                if begun.elapsed() > START_LIMIT {
                    let folder = self.home.node(number).join(&network.params.folder);
                    return Err(failed(format!(
                        "node {number} is not ready after {} s: its debug.log in {} tells why",
                        START_LIMIT.as_secs(),
                        folder.display()
                    )));
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }
}

impl Drop for Nodes<'_> {
    fn drop(&mut self) {
        for child in &self.children {
            // One that has ended needs no signal; its number is not given away before it is waited for.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        let begun = Instant::now();
        for child in &mut self.children {
            while matches!(child.try_wait(), Ok(None)) {
                if begun.elapsed() > STOP_LIMIT {
                    let _ = child.kill();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Tells how to join, pay and watch.
fn show(session: &Session, options: &Up, home: &Home, started: &Started, network: &Network) -> Result<()> {
    let name = network.name();
    let hash = if name == "regtest" { None } else { Some(file_hash(Path::new(&started.chain))?) };
    let list: Vec<_> = (started.ports.iter().enumerate())
        .map(|(number, (port, rpc_port))| json!({"node": number, "port": port, "rpc_port": rpc_port, "folder": home.node(number)}))
        .collect();
    session.show(&json!({"network": name, "hash": hash, "folder": home.folder, "nodes": list}), || {
        let mut lines = vec![match &hash {
            Some(hash) => format!("The network {name} is up. Hash of its file: {hash}"),
            None => format!("The network {name} is up."),
        }];
        for (number, (port, rpc_port)) in started.ports.iter().enumerate() {
            let mines = if number == 0 { "   mines for the faucet" } else { "" };
            lines.push(format!("  node {number}   peers 127.0.0.1:{port}   RPC 127.0.0.1:{rpc_port}{mines}"));
        }
        let (port, rpc_port) = started.ports[0];
        let file = &options.network;
        let dir = match &options.dir {
            Some(dir) => format!(" --dir {}", dir.display()),
            None => session.datadir_option(),
        };
        let mut node = match &options.dir {
            Some(_) => format!(" --datadir {}", home.node(0).display()),
            None => session.datadir_option(),
        };
        if rpc_port != network.params.rpc_port {
            node += &format!(" --rpc 127.0.0.1:{rpc_port}");
        }
        lines.push(if options.open {
            format!("Join    groatd --chain {file} --addnode THIS-HOST:{port}")
        } else {
            // On this machine, where the network's own ports are taken.
            let free = rpc_port.saturating_add(2 * options.nodes);
            format!(
                "Join    groatd --chain {file} --datadir joined --listen=0 --rpcport {free} --addnode 127.0.0.1:{port}\n        \
                 (from other machines: start this with --open)"
            )
        });
        lines.push(format!("Wallet  groat create NAME --chain {file}{node}"));
        lines.push(format!("Pay     groat net pay ADDRESS 1btc{dir}"));
        lines.push(format!("Watch   groat net status{dir}"));
        lines.push(format!("        groat status --chain {file}{node}"));
        lines.push(if options.detach { format!("Stop    groat net down{dir}") } else { "Stop    Ctrl-C".into() });
        lines.join("\n")
    });
    Ok(())
}
