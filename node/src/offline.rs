//! A node without peers, until somebody asks it to dial: a ledger thread, and a hub that does not listen. For tests and
//! tools that want the interfaces over a ledger of their own. Knows no RPC.

use std::sync::Arc;

use groat_chain::ledger::Ledger;
use groat_chain::mempool::Policy;
use groat_chain::pool::Pool;
use groat_net::driver::{self, Driver, Proxies};
use groat_net::limits::Limits;
use groat_net::peer::{NODE_NETWORK, NODE_NETWORK_LIMITED, NODE_P2P_V2, NODE_WITNESS};
use groat_net::protocol::{self, Protocol};
use groat_net::timers::HANDSHAKE_TIMEOUT;

use crate::config::user_agent;
use crate::handle::NodeHandle;
use crate::node::{self, Node, Parts};
use crate::warnings::Warnings;

/// A node that runs until it is stopped by its handle, or dropped.
pub struct Offline {
    node: Option<Node>,
    handle: NodeHandle,
}

impl Offline {
    /// Starts the threads, with a mempool that takes what `policy` says.
    pub fn start(ledger: Ledger, policy: Policy) -> Offline {
        let params = ledger.params().clone();
        let limits = Limits::default();
        let runtime = node::runtime().expect("a process may have threads");
        let options = driver::Options {
            magic: params.magic,
            port: params.port,
            v2: true,
            max_inbound: 0,
            grants: Vec::new(),
            proxies: Proxies::default(),
            cjdns: false,
            send_pause_bytes: limits.send_pause_bytes,
        };
        let driver = Driver::new(runtime.handle().clone(), options);
        let protocol = Protocol::new(protocol::Config {
            params,
            services: NODE_NETWORK | NODE_WITNESS | NODE_NETWORK_LIMITED | NODE_P2P_V2,
            user_agent: user_agent(&[]).expect("no comment is too long"),
            blocks_only: false,
            dialling: groat_net::protocol::LinkOptions::default(),
            peer_timeout: HANDSHAKE_TIMEOUT,
            relay: protocol::Policy::Core,
            reconcile: false,
            upload_target: 0,
            limits,
            seed: driver::seed(),
        });
        let pool = Arc::new(Pool::new(0));
        let (warnings, stop_at) = (Warnings::new(None), 0);
        let (files, wanted) = (None, None);
        let parts = Parts { ledger, policy, pool, runtime, driver, protocol, files, stop_at, wanted, warnings };
        let (node, _) = Node::begin(parts).expect("a process may have threads");
        Offline { handle: node.handle().clone(), node: Some(node) }
    }

    /// What interfaces hold of it.
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Waits until the node has been stopped and everything is written.
    pub fn wait(mut self) -> anyhow::Result<()> {
        self.node.take().map_or(Ok(()), Node::wait)
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        self.handle.stop();
        // Who wants to know of a failure waits.
        let _ = self.node.take().map(Node::wait);
    }
}
