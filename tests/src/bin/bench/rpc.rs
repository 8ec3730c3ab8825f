//! Calls a second: groatd and bitcoind in turn, each over one link that stays open, with the same chain of full blocks.

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use groat_tests::bitcoind::{Rpc, free_port, read_answer};
use groat_tests::swarm::wait_until;
use serde_json::{Value, json};

use crate::race::{Race, generated};

/// How long a start with the chain may take.
const STARTUP: Duration = Duration::from_secs(600);

/// What both are given.
#[derive(clap::Args)]
pub struct Calls {
    #[command(flatten)]
    race: Race,
    /// Seconds of each measure.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// A server that runs; killed when dropped.
struct Server {
    process: Child,
    rpc: Rpc,
    link: BufReader<TcpStream>,
}

/// A question: its name, and the bytes that ask it.
type Question = (String, Vec<u8>);

/// Measures and prints the table.
pub fn run(calls: &Calls) -> Result<()> {
    let race = &calls.race;
    let (groatd, bitcoind) =
        race.groatd.as_ref().zip(race.bitcoind.as_ref()).context("name a groatd and a bitcoind")?;
    let (files, summary) = generated(race, "full")?;
    let blocks = block_files(&files)?;
    let data = tempfile::tempdir_in(&race.folder)?;
    let folders = ["groatd", "bitcoind"].map(|name| data.path().join(name));
    folders.iter().try_for_each(std::fs::create_dir)?;
    let imported = race.groatd(groatd, &folders[0]).arg("import").args(&blocks).stdout(Stdio::null()).status()?;
    ensure!(imported.success(), "groatd import ended with {imported}");
    let ports = [free_port(), free_port()];
    let mut ours = race.groatd(groatd, &folders[0]);
    ours.args(["--listen=0", "--connect=0", "--rest=1"]).arg(format!("--rpcport={}", ports[0]));
    let mut theirs = Command::new(bitcoind);
    theirs.arg(format!("-datadir={}", folders[1].display())).args(["-regtest", "-listen=0", "-connect=0", "-rest=1"]);
    theirs.args(["-assumevalid=0", "-checkblockindex=0", "-checkmempool=0", "-printtoconsole=0"]);
    theirs
        .arg(format!("-rpcport={}", ports[1]))
        .args(blocks.iter().map(|file| format!("-loadblock={}", file.display())));
    let mut ours = Server::start(&mut ours, &folders[0], ports[0], summary.height)?;
    let mut theirs = Server::start(&mut theirs, &folders[1], ports[1], summary.height)?;
    // The first one has closed its links while it waited for the second.
    ours.connect(&folders[0])?;
    println!(
        "`{}` blocks of the chain `full`, medians of {} runs of {} s, in turn.",
        summary.height, race.runs, calls.seconds
    );
    println!("\n| calls a second | groatd | bitcoind | ratio |\n|---|---|---|---|");
    for ((name, ask), (_, ask_theirs)) in ours.questions()?.into_iter().zip(theirs.questions()?) {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..race.runs {
            rates[0].push(ours.rate(&ask, calls.seconds)?);
            rates[1].push(theirs.rate(&ask_theirs, calls.seconds)?);
        }
        let [ours, theirs] = rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        println!("| {name} | {ours:.0} | {theirs:.0} | {:.2} |", ours / theirs);
    }
    Ok(())
}

fn block_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let all = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut files: Vec<_> = all.into_iter().filter(|path| path.extension().is_some_and(|end| end == "dat")).collect();
    files.sort();
    Ok(files)
}

impl Server {
    /// Starts it and waits until it has the chain.
    fn start(command: &mut Command, folder: &Path, port: u16, height: u32) -> Result<Server> {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut rpc = Rpc::new(address, "");
        let has_chain = || {
            let Ok(secret) = std::fs::read_to_string(folder.join("regtest/.cookie")) else { return false };
            rpc = Rpc::new(address, &secret);
            rpc.try_call("getblockcount", &json!([])).is_ok_and(|answer| answer == Ok(json!(height)))
        };
        ensure!(wait_until(STARTUP, has_chain), "{command:?} did not have the chain within {STARTUP:?}");
        let link = TcpStream::connect(address)?;
        link.set_nodelay(true)?;
        Ok(Server { process, rpc, link: BufReader::new(link) })
    }

    /// Links anew.
    fn connect(&mut self, folder: &Path) -> Result<()> {
        let address = self.rpc.address();
        self.rpc = Rpc::new(address, &std::fs::read_to_string(folder.join("regtest/.cookie"))?);
        let link = TcpStream::connect(address)?;
        link.set_nodelay(true)?;
        self.link = BufReader::new(link);
        Ok(())
    }

    fn call(&self, method: &str, params: Value) -> Result<Value> {
        self.rpc.try_call(method, &params)?.map_err(|error| anyhow!("{method}: {} ({})", error.message, error.code))
    }

    /// What is asked, about the tip.
    fn questions(&self) -> Result<Vec<Question>> {
        let tip = self.call("getbestblockhash", json!([]))?;
        let block = self.call("getblock", json!([tip]))?;
        let last = block["tx"].as_array().and_then(|ids| ids.last()).context("a block has transactions")?;
        let one = |method: &str, params: Value| json!({"id": 1, "method": method, "params": params});
        let mut questions = vec![("getblockcount".into(), self.post(&one("getblockcount", json!([]))))];
        questions.extend((0..4).map(|verbosity| {
            (format!("getblock, verbosity {verbosity}"), self.post(&one("getblock", json!([tip, verbosity]))))
        }));
        questions.extend([0, 1].map(|verbosity| {
            let ask = one("getrawtransaction", json!([last, verbosity, tip]));
            (format!("getrawtransaction of a block, verbosity {verbosity}"), self.post(&ask))
        }));
        let batch: Vec<Value> = (1..=100).map(|_| one("getblockhash", json!([1]))).collect();
        questions.push(("100 getblockhash in a batch".into(), self.post(&json!(batch))));
        let hash = tip.as_str().context("a hash is text")?;
        for form in ["bin", "json"] {
            let ask = format!("GET /rest/block/{hash}.{form} HTTP/1.1\r\nHost: {}\r\n\r\n", self.rpc.address());
            questions.push((format!("REST block.{form}"), ask.into_bytes()));
        }
        Ok(questions)
    }

    fn post(&self, call: &Value) -> Vec<u8> {
        let (body, host) = (call.to_string(), self.rpc.address());
        let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nAuthorization: {}\r\n", self.rpc.authorization());
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    /// Asks again and again; answers a second.
    fn rate(&mut self, question: &[u8], seconds: f64) -> Result<f64> {
        let (begun, mut answers) = (Instant::now(), 0_u32);
        while begun.elapsed().as_secs_f64() < seconds {
            self.link.get_mut().write_all(question)?;
            let (status, _) = read_answer(&mut self.link)?;
            ensure!(status.contains(" 200 "), "{status}");
            answers += 1;
        }
        Ok(f64::from(answers) / begun.elapsed().as_secs_f64())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
