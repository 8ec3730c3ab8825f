//! Which rule changes hold at a block. Core: `getdeploymentinfo` in `src/rpc/blockchain.cpp`.

use bitcoin::BlockHash;
use groat_chain::params::{Buried, Deployment, Params};
use groat_chain::rules::branch::Branch;
use groat_chain::rules::deployment::{Signals, State, is_signalling, script_flags, signals, state, state_since};
use groat_chain::script::Flags;
use groat_chain::tree::{Id, Tree};
use serde::{Serialize, Serializer};

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::blockchain::block_not_found;
use super::method::{Answer, Method, answer};

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[Method {
    name: "getdeploymentinfo",
    group: "blockchain",
    args: &[Arg::optional("blockhash", Kind::Hex, "The block's hash; default: the tip's.")],
    about: "Which rule changes hold after a block, and how far those are that miners signal for.",
    run: getdeploymentinfo,
}];

/// A height that no deployment with it is ever told of. Core: `DeploymentEnabled` of a buried one.
const NEVER: u32 = i32::MAX as u32;

/// What holds at a block, with Core's keys.
#[derive(Serialize)]
pub struct DeploymentInfo {
    hash: String,
    height: u32,
    script_flags: Vec<&'static str>,
    #[serde(serialize_with = "as_object")]
    deployments: Vec<(&'static str, OneDeployment)>,
}

#[derive(Serialize)]
struct OneDeployment {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bip9: Option<Bip9>,
}

#[derive(Serialize)]
struct Bip9 {
    #[serde(skip_serializing_if = "Option::is_none")]
    bit: Option<u8>,
    start_time: i64,
    timeout: i64,
    min_activation_height: u32,
    status: &'static str,
    since: u32,
    status_next: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<Statistics>,
    /// A `#` for each block of the period that signals, a `-` for each that does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    signalling: Option<String>,
}

#[derive(Serialize)]
struct Statistics {
    period: u32,
    elapsed: u32,
    count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    possible: Option<bool>,
}

/// An object with its members in this order.
fn as_object<S: Serializer>(members: &[(&str, OneDeployment)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(members.iter().map(|(name, value)| (name, value)))
}

fn getdeploymentinfo(rpc: &Rpc, args: &Args) -> Answer {
    let node = rpc.node()?;
    let hash: Option<BlockHash> = args.text(0).map(|_| args.hash(0)).transpose()?;
    let tree = node.tree().read();
    let id = hash.map_or(Ok(tree.tip()), |hash| tree.get(&hash).ok_or_else(block_not_found))?;
    answer(deployment_info(&tree, id, node.params()))
}

/// What holds at a block of the tree.
pub fn deployment_info(tree: &Tree, id: Id, params: &Params) -> DeploymentInfo {
    let node = tree.node(id);
    let flags = script_flags(node.height, node.hash, params);
    let mut names: Vec<&str> =
        Flags::NAMED.iter().filter(|(_, flag)| flags.contains(*flag)).map(|(name, _)| *name).collect();
    names.sort_unstable();
    let buried = Buried::ALL.into_iter().filter_map(|deployment| {
        let height = params.activation_height(deployment);
        let active = node.height + 1 >= height;
        let shown = OneDeployment { kind: "buried", height: Some(height), active, bip9: None };
        (height != NEVER).then_some((deployment.name(), shown))
    });
    let by_bits = params.deployments.iter().filter(|one| one.start_time != Deployment::NEVER_ACTIVE);
    let by_bits = by_bits.map(|one| (one.name, by_version_bits(one, &tree.branch(id))));
    DeploymentInfo {
        hash: node.hash.to_string(),
        height: node.height,
        script_flags: names,
        deployments: buried.chain(by_bits).collect(),
    }
}

/// The state of a deployment at the end of a branch. Core: `VersionBitsCache::Info`.
fn by_version_bits(deployment: &Deployment, branch: &impl Branch) -> OneDeployment {
    let height = branch.height();
    let (now, next) = (state(deployment, branch, height), state(deployment, branch, height + 1));
    let since = state_since(deployment, branch, height);
    let active_since = match (now, next) {
        (State::Active, _) => Some(since),
        (_, State::Active) => Some(height + 1),
        _ => None,
    };
    let signalled = matches!(now, State::Started | State::LockedIn);
    let statistics = signalled.then(|| {
        let Signals { elapsed, count, possible } = signals(deployment, branch, height);
        let open = now == State::Started;
        Statistics {
            period: deployment.period,
            elapsed,
            count,
            threshold: open.then_some(deployment.threshold),
            possible: open.then_some(possible),
        }
    });
    let mark = |height| if is_signalling(deployment, branch.version(height)) { '#' } else { '-' };
    OneDeployment {
        kind: "bip9",
        height: active_since,
        active: active_since.is_some_and(|since| since <= height + 1),
        bip9: Some(Bip9 {
            bit: signalled.then_some(deployment.bit),
            start_time: deployment.start_time,
            timeout: deployment.timeout,
            min_activation_height: deployment.min_activation_height,
            status: now.name(),
            since,
            status_next: next.name(),
            statistics,
            signalling: signalled.then(|| (height - height % deployment.period..=height).map(mark).collect()),
        }),
    }
}
