//! Methods that wait for a block: `waitfornewblock`, `waitforblock`, `waitforblockheight`. The wait comes before the call
//! and holds no thread ([`wait_for_tip`]); the call itself only tells of the tip. Core: `src/rpc/blockchain.cpp`.

use std::time::Duration;

use bitcoin::BlockHash;
use serde::Serialize;
use serde_json::Value;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::method::{Answer, Method, answer};
use crate::handle::NodeHandle;

const TIMEOUT: Arg = Arg::optional("timeout", Kind::Number, "Milliseconds to wait at most; 0 (default): no limit.");

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "waitfornewblock",
        group: "blockchain",
        args: &[TIMEOUT, Arg::optional("current_tip", Kind::Hex, "Wait for another tip than this; default: the tip.")],
        about: "Waits for another tip. With the time over, or in a batch, it tells of the tip that there is.",
        run: waited,
    },
    Method {
        name: "waitforblock",
        group: "blockchain",
        args: &[Arg::required("blockhash", Kind::Hex, "The tip to wait for."), TIMEOUT],
        about: "Waits until a block is the tip. With the time over, or in a batch, it tells of the tip that there is.",
        run: waited,
    },
    Method {
        name: "waitforblockheight",
        group: "blockchain",
        args: &[Arg::required("height", Kind::Number, "Height that the tip must have at least."), TIMEOUT],
        about: "Waits for a height of the tip. With the time over, or in a batch, it tells of the tip that there is.",
        run: waited,
    },
];

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Another tip than this.
    Other(BlockHash),
    /// This tip.
    Block(BlockHash),
    /// A tip that is so high at least.
    Height(i32),
}

impl Goal {
    fn is_reached(self, (tip, height): (BlockHash, u32)) -> bool {
        match self {
            Goal::Other(before) => tip != before,
            Goal::Block(hash) => tip == hash,
            Goal::Height(wanted) => i64::from(height) >= i64::from(wanted),
        }
    }

    /// What a call of these arguments waits for, and how long; none: as long as it takes.
    fn of(args: &Args, node: &NodeHandle) -> Result<(Goal, Option<Duration>), RpcError> {
        let (goal, timeout) = match args.name(0) {
            "blockhash" => (Goal::Block(args.hash(0)?), args.int::<i32>(1)?),
            "height" => (Goal::Height(args.int(0)?.unwrap_or_default()), args.int::<i32>(1)?),
            _ => {
                let timeout = args.int::<i32>(0)?;
                check_timeout(timeout)?;
                let before = args.text(1).map(|_| args.hash(1)).transpose()?;
                (Goal::Other(before.unwrap_or_else(|| node.tip().0)), timeout)
            }
        };
        let milliseconds = check_timeout(timeout)?;
        Ok((goal, (milliseconds > 0).then(|| Duration::from_millis(milliseconds))))
    }
}

fn check_timeout(timeout: Option<i32>) -> Result<u64, RpcError> {
    u64::try_from(timeout.unwrap_or(0)).map_err(|_| RpcError::new(RPC_MISC_ERROR, "Negative timeout"))
}

fn waited(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Tip {
        hash: String,
        height: u32,
    }
    let node = rpc.node()?;
    Goal::of(args, node)?;
    let (hash, height) = node.tip();
    answer(Tip { hash: hash.to_string(), height })
}

/// Waits, without a thread, as long as a call of this file wants to. Ends at once for any other call and for one that is
/// wrong.
pub async fn wait_for_tip(rpc: &Rpc, body: &[u8]) {
    let Ok(node) = rpc.node() else { return };
    let Some((method, goal, limit)) = goal_of(body, node) else { return };
    let _noted = rpc.calls.note(method);
    let (mut tips, mut stopping) = (node.tips(), node.stopping());
    let reached = async {
        // Looked at before and after each change: the tip is published before it is told of.
        while !goal.is_reached(node.tip()) && tips.changed().await.is_ok() {}
    };
    let over = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = reached => {}
        () = over => {}
        // Ends with an error when the node is gone.
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

/// The method of the body of a call, what it waits for, and how long; none if it is no such call. Calls in a batch do not
/// wait.
fn goal_of(body: &[u8], node: &NodeHandle) -> Option<(&'static str, Goal, Option<Duration>)> {
    /// Bytes that such a call has at most, and many others have not.
    const MAX_REQUEST: usize = 4096;
    const NAME: &[u8] = b"waitfor";
    if body.len() > MAX_REQUEST || !body.windows(NAME.len()).any(|window| window == NAME) {
        return None;
    }
    let mut call: Value = serde_json::from_slice(body).ok()?;
    let method = METHODS.iter().find(|method| call["method"] == method.name)?;
    let args = Args::new(method.args, call["params"].take()).ok()??;
    let (goal, limit) = Goal::of(&args, node).ok()?;
    Some((method.name, goal, limit))
}
