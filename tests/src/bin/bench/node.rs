//! A groatd or bitcoind that is measured while it runs: its data in a folder of its own, gone when dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use groat_tests::bitcoind::{Rpc, free_port};
use groat_tests::swarm::wait_until;
use serde_json::{Value, json};

use crate::process::{process, status};

/// How long a start may take.
const STARTUP: Duration = Duration::from_secs(30);

/// A node on regtest that listens on loopback.
pub struct Node {
    process: Child,
    _data: tempfile::TempDir,
    rpc: Rpc,
    /// Where it listens for peers.
    pub peers: SocketAddr,
}

impl Node {
    /// Starts it with these further options.
    pub fn start(program: &Path, folder: &Path, options: &[String]) -> Result<Node> {
        let data = tempfile::tempdir_in(folder)?;
        let [peers, rpc] = [0; 2].map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let process = Command::new(program)
            .args(["-chain=regtest", "-listen=1", "-server=1", &format!("-datadir={}", data.path().display())])
            .args([format!("-bind={peers}"), format!("-rpcport={}", rpc.port())])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut node = Node { process, rpc: Rpc::new(rpc, ""), peers, _data: data };
        let cookie = node._data.path().join("regtest/.cookie");
        let answers = || {
            let Ok(secret) = std::fs::read_to_string(&cookie) else { return false };
            node.rpc = Rpc::new(rpc, &secret);
            matches!(node.rpc.try_call("getblockcount", &json!([])), Ok(Ok(_)))
        };
        ensure!(wait_until(STARTUP, answers), "{} gave no answer within {STARTUP:?}", program.display());
        Ok(node)
    }

    /// Calls a method.
    pub fn call(&self, method: &str, params: &Value) -> Result<Value> {
        self.rpc.try_call(method, params)?.map_err(|error| anyhow!("{method}: {} ({})", error.message, error.code))
    }

    /// Seconds of processor so far.
    pub fn seconds(&self) -> Result<f64> {
        Ok(process(&self.process.id().to_string())?.1)
    }

    /// Resident memory of its own in KiB, without files.
    pub fn memory(&self) -> Result<f64> {
        status(&self.process.id().to_string(), "RssAnon:")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
