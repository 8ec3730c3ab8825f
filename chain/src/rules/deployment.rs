//! Which rules hold at a height: buried deployments, script flags, and the version-bits state machine (BIP9).

use super::branch::{Branch, median_time_past_at};
use crate::params::{Buried, Deployment, Params};
use crate::script::Flags;
use bitcoin::BlockHash;

/// Version of a block that signals nothing (BIP9).
pub(crate) const VERSIONBITS_TOP_BITS: i32 = 0x2000_0000;
/// The bits that tell whether a version signals at all (BIP9).
pub(crate) const VERSIONBITS_TOP_MASK: u32 = 0xe000_0000;

/// How many bits can signal for new rules: miners may vary the others as they like (BIP323).
pub const VERSIONBITS_NUM_BITS: u32 = 5;

/// Whether a buried rule change holds in the block at `height`. Core: `DeploymentActiveAt`.
pub fn is_active(deployment: Buried, height: u32, params: &Params) -> bool {
    height >= params.activation_height(deployment)
}

/// The flags under which the scripts of this block run. Core: `GetBlockScriptFlags`.
///
/// P2SH, WITNESS and TAPROOT hold from the first block on, since no block but the exceptions broke them before.
pub fn script_flags(height: u32, hash: BlockHash, params: &Params) -> Flags {
    let exception = params.script_flag_exceptions.iter().find(|exception| exception.0 == hash);
    let mut flags = exception.map_or(Flags::P2SH | Flags::WITNESS | Flags::TAPROOT, |exception| exception.1);
    for (deployment, flag) in [
        (Buried::Dersig, Flags::DERSIG),
        (Buried::Cltv, Flags::CHECKLOCKTIMEVERIFY),
        (Buried::Csv, Flags::CHECKSEQUENCEVERIFY),
        (Buried::Segwit, Flags::NULLDUMMY),
    ] {
        if is_active(deployment, height, params) {
            flags |= flag;
        }
    }
    flags
}

/// Where a version-bits deployment stands. Core: `ThresholdState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Signalling has not begun.
    Defined,
    /// Blocks signal.
    Started,
    /// Enough blocks have signalled; it will be active.
    LockedIn,
    /// The rule holds.
    Active,
    /// Its time is over.
    Failed,
}

impl State {
    /// Its name in `getdeploymentinfo`. Core: `StateName`.
    pub fn name(self) -> &'static str {
        match self {
            State::Defined => "defined",
            State::Started => "started",
            State::LockedIn => "locked_in",
            State::Active => "active",
            State::Failed => "failed",
        }
    }
}

/// The state of `deployment` in the block at `height`, which may be the one that follows `branch`: [BIP-0009] with
/// the minimum activation height of [BIP-0341]. All blocks of a period share it. Core: `GetStateFor`.
///
/// [BIP-0009]: https://github.com/bitcoin/bips/blob/master/bip-0009.mediawiki
/// [BIP-0341]: https://github.com/bitcoin/bips/blob/master/bip-0341.mediawiki
pub fn state(deployment: &Deployment, branch: &impl Branch, height: u32) -> State {
    match deployment.start_time {
        Deployment::ALWAYS_ACTIVE => return State::Active,
        Deployment::NEVER_ACTIVE => return State::Failed,
        _ => {}
    }
    let mut state = State::Defined;
    for first in (1..=height / deployment.period).map(|number| number * deployment.period) {
        let median_time = i64::from(median_time_past_at(branch, first - 1));
        state = match state {
            State::Defined if median_time >= deployment.start_time => State::Started,
            State::Started if signals(deployment, branch, first - 1).count >= deployment.threshold => State::LockedIn,
            State::Started if median_time >= deployment.timeout => State::Failed,
            State::LockedIn if first >= deployment.min_activation_height => State::Active,
            State::Active | State::Failed => break,
            unchanged => unchanged,
        };
    }
    state
}

/// First height of the state that the block at `height` is in. Core: `GetStateSinceHeightFor`.
pub fn state_since(deployment: &Deployment, branch: &impl Branch, height: u32) -> u32 {
    let now = state(deployment, branch, height);
    let mut since = height - height % deployment.period;
    if now == State::Defined || [Deployment::ALWAYS_ACTIVE, Deployment::NEVER_ACTIVE].contains(&deployment.start_time) {
        return 0;
    }
    while since > 0 && state(deployment, branch, since - 1) == now {
        since -= deployment.period;
    }
    since
}

/// How many blocks signal in a period. Core: `BIP9Stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    /// Blocks of the period so far.
    pub elapsed: u32,
    /// Those of them that signal.
    pub count: u32,
    /// Whether the period can still reach the threshold.
    pub possible: bool,
}

/// The signals in the period of the block at `height`, up to that block. Core: `GetStateStatisticsFor`.
pub fn signals(deployment: &Deployment, branch: &impl Branch, height: u32) -> Signals {
    let elapsed = height % deployment.period + 1;
    let count = (height + 1 - elapsed..=height).filter(|&height| is_signalling(deployment, branch.version(height)));
    let count = count.count() as u32;
    Signals { elapsed, count, possible: elapsed - count <= deployment.period.saturating_sub(deployment.threshold) }
}

/// Whether a block of this version signals for `deployment`.
pub fn is_signalling(deployment: &Deployment, version: i32) -> bool {
    version as u32 & VERSIONBITS_TOP_MASK == VERSIONBITS_TOP_BITS as u32 && version & mask(deployment) != 0
}

fn mask(deployment: &Deployment) -> i32 {
    1 << deployment.bit
}

/// The version of a block that follows `branch` and signals for all that can be signalled for.
/// Core: `ComputeBlockVersion`.
pub(crate) fn compute_block_version(branch: &impl Branch, params: &Params) -> i32 {
    params.deployments.iter().fold(VERSIONBITS_TOP_BITS, |version, deployment| {
        match state(deployment, branch, branch.height() + 1) {
            State::Started | State::LockedIn => version | mask(deployment),
            State::Defined | State::Active | State::Failed => version,
        }
    })
}

/// Blocks of a period in which unknown signals are counted, and how many of them have to signal.
/// Core: `WarningBitsConditionChecker`.
pub fn warning_period(params: &Params) -> (u32, u32) {
    let period = params.retarget_interval;
    if params.name == "main" { (2016, 1815) } else { (period, period * 3 / 4) }
}

/// The bits for which enough blocks of the period that begins at `first` signal, though nothing known stands behind them
/// there. `branch` holds the whole period.
pub fn unknown_signals(branch: &impl Branch, first: u32, params: &Params) -> u32 {
    let (period, threshold) = warning_period(params);
    let known = params.deployments.iter().fold(0, |known, deployment| match state(deployment, branch, first) {
        State::Started | State::LockedIn => known | mask(deployment) as u32,
        State::Defined | State::Active | State::Failed => known,
    });
    let mut counts = [0; VERSIONBITS_NUM_BITS as usize];
    for height in (first.max(params.min_bip9_warning_height)..first + period).rev() {
        let version = branch.version(height) as u32;
        if version & VERSIONBITS_TOP_MASK == VERSIONBITS_TOP_BITS as u32 {
            counts.iter_mut().enumerate().for_each(|(bit, count)| *count += version >> bit & 1);
        }
    }
    let enough = counts.iter().enumerate().filter(|(_, count)| **count >= threshold);
    enough.fold(0, |bits, (bit, _)| bits | 1 << bit) & !known
}
