//! `groat net`: networks of one's own. Makes their file (`new`), runs nodes of them on this machine (`up`), with the
//! first coins mined beforehand (`first`); here is where those nodes are, and what is done with them once they run.

mod first;
mod new;
mod up;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::{NetCommand, Which};
use crate::error::{Doing, Error, Result, failed, usage};
use crate::format::grouped;
use crate::network::Network;
use crate::rpc::Node;
use crate::send;
use crate::session::Session;

/// Name of the faucet's wallet.
const FAUCET: &str = "faucet";
/// How long nodes may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// `groat net`.
pub fn run(session: &Session, command: &NetCommand) -> Result<()> {
    match command {
        NetCommand::New(plan) => new::new(session, plan),
        NetCommand::Up(options) => up::up(session, options),
        NetCommand::Down(which) => down(session, &Home::find(session, which)?),
        NetCommand::Status(which) => status(session, &Home::find(session, which)?),
        NetCommand::Pay { address, amount, fee, which } => {
            let faucet = Home::find(session, which)?.faucet(session)?;
            send::send(&faucet, &[address.clone(), amount.clone()], fee, &[], false)
        }
    }
}

/// The hash by which those who join see that they have the same file.
fn file_hash(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).doing(format!("read {}", path.display()))?;
    Ok(sha256::Hash::hash(&bytes).to_string())
}

/// What a signal leads to before all nodes run.
fn interrupted() -> Error {
    failed("interrupted before the network was up: nothing is left running")
}

/// The cookie of the node that `net up` runs at this address of JSON-RPC, if it does.
pub fn cookie(session: &Session, rpc: Option<&str>) -> Option<PathBuf> {
    let params = &session.network.params;
    let home = Home::of(session, session.network.name(), None);
    let port = match rpc {
        Some(url) => url.trim_start_matches("http://").strip_prefix("127.0.0.1:")?.parse().ok()?,
        None => params.rpc_port,
    };
    let number = home.started().ok()?.ports.iter().position(|(_, rpc_port)| *rpc_port == port)?;
    Some(home.node(number).join(&params.folder).join(".cookie")).filter(|path| path.is_file())
}

/// What `up` writes down of the nodes it starts.
#[derive(Serialize, Deserialize)]
struct Started {
    /// As `--chain` takes it.
    chain: String,
    /// Ports for peers and for JSON-RPC, by node.
    ports: Vec<(u16, u16)>,
}

/// The folder of a network's nodes.
struct Home {
    folder: PathBuf,
}

impl Home {
    /// The folder of this network's nodes, with what is not said by default.
    fn of(session: &Session, name: &str, dir: Option<&Path>) -> Home {
        Home { folder: dir.map_or_else(|| session.datadir().join("net").join(name), Path::to_owned) }
    }

    /// The folder of a network that was up before.
    fn find(session: &Session, which: &Which) -> Result<Home> {
        let all = session.datadir().join("net");
        let name = match (&which.network, &which.dir) {
            (Some(named), _) if Path::new(named).is_file() => Network::load(named)?.name().to_owned(),
            (Some(named), _) => named.clone(),
            (None, Some(_)) => String::new(),
            (None, None) => {
                let mut names: Vec<String> = std::fs::read_dir(&all)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .filter(|entry| entry.path().join("nodes.json").is_file())
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .collect();
                // Of several the one that runs is meant.
                if names.len() > 1 && names.iter().filter(|name| Home::of(session, name, None).runs()).count() == 1 {
                    names.retain(|name| Home::of(session, name, None).runs());
                }
                names.sort();
                match &names[..] {
                    [] => {
                        return Err(failed(format!(
                            "no network was up here yet (looked in {}): `groat net up FILE` starts one",
                            all.display()
                        )));
                    }
                    [name] => name.clone(),
                    names => {
                        return Err(usage(format!(
                            "there are several networks ({}): say which with --net",
                            names.join(", ")
                        )));
                    }
                }
            }
        };
        let home = Home::of(session, &name, which.dir.as_deref());
        if !home.file("nodes.json").is_file() {
            return Err(failed(format!(
                "no network was up in {} yet: `groat net up FILE` starts one",
                home.folder.display()
            )));
        }
        Ok(home)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn node(&self, number: usize) -> PathBuf {
        self.folder.join(format!("node{number}"))
    }

    fn started(&self) -> Result<Started> {
        let path = self.file("nodes.json");
        let text = std::fs::read_to_string(&path).doing(format!("read {}", path.display()))?;
        serde_json::from_str(&text).doing(format!("read {}", path.display()))
    }

    /// A session with a node of the network.
    fn session(&self, session: &Session, started: &Started, number: usize) -> Result<Session> {
        session.with(|options| {
            options.chain = started.chain.clone();
            options.datadir = Some(self.node(number));
            options.rpc = Some(format!("127.0.0.1:{}", started.ports[number].1));
            options.rpc_cookie = None;
        })
    }

    /// A session with the faucet's wallet, at node 0.
    fn faucet(&self, session: &Session) -> Result<Session> {
        self.session(session, &self.started()?, 0)?.with(|options| {
            options.wallet = Some(FAUCET.into());
            options.password_file = Some(self.file("faucet.password"));
            options.yes = true;
        })
    }

    /// Whether one of its nodes runs.
    fn runs(&self) -> bool {
        let Ok(started) = self.started() else { return false };
        let Ok(network) = Network::load(&started.chain) else { return false };
        (0..started.ports.len()).any(|number| self.process(number, &network).is_some())
    }

    /// The process of a node, while it runs: then it holds the lock of its folder.
    fn process(&self, number: usize, network: &Network) -> Option<Pid> {
        let path = self.node(number).join(&network.params.folder).join(".lock");
        let lock = File::open(&path).ok()?;
        if lock.try_lock_shared().is_ok() {
            return None;
        }
        Pid::from_raw(std::fs::read_to_string(&path).ok()?.trim().parse().ok()?)
    }
}

/// `groat net down`.
fn down(session: &Session, home: &Home) -> Result<()> {
    let started = home.started()?;
    let network = Network::load(&started.chain)?;
    let numbers = || 0..started.ports.len();
    let running: Vec<Pid> = numbers().filter_map(|number| home.process(number, &network)).collect();
    for process in &running {
        // One that has just ended is no failure.
        let _ = kill_process(*process, Signal::TERM);
    }
    let begun = Instant::now();
    while numbers().any(|number| home.process(number, &network).is_some()) {
        if begun.elapsed() > STOP_LIMIT {
            return Err(failed(format!(
                "the nodes in {} still write after {} s: look again later",
                home.folder.display(),
                STOP_LIMIT.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let stopped = running.len();
    session.show(&json!({"network": network.name(), "stopped": stopped}), || match stopped {
        0 => format!("Nothing of {} was running.", network.name()),
        1 => format!("Stopped 1 node of {}.", network.name()),
        _ => format!("Stopped {} nodes of {}.", stopped, network.name()),
    });
    Ok(())
}

/// `groat net status`.
fn status(session: &Session, home: &Home) -> Result<()> {
    let started = home.started()?;
    let network = Network::load(&started.chain)?;
    let (mut list, mut rows) = (Vec::new(), Vec::new());
    for (number, (port, rpc_port)) in started.ports.iter().enumerate() {
        let runs = home.process(number, &network).is_some();
        let asked =
            if runs { home.session(session, &started, number)?.node().and_then(|node| ask(&node)).ok() } else { None };
        let asked = asked.unwrap_or_default();
        let text = |key: &str| asked[key].as_u64().map_or_else(|| "-".to_owned(), grouped);
        let state = match (runs, asked.is_null()) {
            (false, _) => "stopped",
            (true, true) => "starting",
            (true, false) => "runs",
        };
        let tip = asked["tip_hash"].as_str().unwrap_or("-").to_owned();
        rows.push(vec![
            number.to_string(),
            state.into(),
            text("tip_height"),
            tip,
            text("peers"),
            text("mempool_transactions"),
            format!("127.0.0.1:{port}"),
            format!("127.0.0.1:{rpc_port}"),
        ]);
        let mut value =
            json!({"node": number, "state": state, "port": port, "rpc_port": rpc_port, "folder": home.node(number)});
        if let (Some(all), Value::Object(asked)) = (value.as_object_mut(), asked) {
            all.extend(asked);
        }
        list.push(value);
    }
    let titles = ["node", "", "block", "tip", "peers", "waiting", "for peers", "RPC"];
    session.show_rows(&json!({"network": network.name(), "nodes": list}), &titles, &rows, "");
    Ok(())
}

fn ask(node: &Node) -> Result<Value> {
    let chain: Value = node.call("getblockchaininfo", json!([]))?;
    let mempool: Value = node.call("getmempoolinfo", json!([]))?;
    let peers: u64 = node.call("getconnectioncount", json!([]))?;
    Ok(
        json!({"tip_height": chain["blocks"], "tip_hash": chain["bestblockhash"], "peers": peers, "mempool_transactions": mempool["size"]}),
    )
}
