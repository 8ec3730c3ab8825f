//! What the operator should know of at present: held in one place, told once in the log and by `-alertnotify`, and shown in
//! the `warnings` fields of the RPC. Judges no block.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bitcoin::BlockHash;
use groat_chain::ledger::Change;
use groat_chain::params::Params;
use groat_chain::rules::deployment::{VERSIONBITS_NUM_BITS, unknown_signals, warning_period};
use groat_chain::rules::pow::block_work;
use groat_chain::tree::Tree;
use parking_lot::{Mutex, RwLock};

use crate::{clock, notify};

/// Peers' clocks may differ from ours by so many seconds, in the median. Core: `WARN_THRESHOLD`.
const WARN_THRESHOLD: i64 = 10 * 60;
/// Blocks taken back at a time that are told of: with so many on top of it a payment is taken for settled.
const DEEP_REORG: usize = 6;
/// Blocks on top of such a reorganisation after which it is no news any more.
const REORG_TOLD_FOR: u32 = 144;
/// A tip is stale after so many times as long as a block should take: by chance it is less than once in a thousand years.
const STALE_SPACINGS: u32 = 18;

/// What is warned of. The order is that in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// Blocks follow rules that this node does not know.
    UnknownNewRulesActivated,
    /// A chain that breaks a rule has more work than ours.
    LargeWorkInvalidChain,
    /// Peers' clocks show another time.
    ClockOutOfSync,
    /// Many blocks were taken back.
    DeepReorg,
    /// No block has come for long.
    StaleTip,
}

/// The present warnings.
#[derive(Default)]
pub struct Warnings {
    present: Mutex<BTreeMap<Warning, String>>,
    /// Core: `-alertnotify`.
    alertnotify: Option<String>,
    /// When the tip last changed, in seconds since 1970; 0: not yet.
    moved: AtomicU32,
}

impl Warnings {
    /// None yet; `alertnotify` is run for each that comes.
    pub fn new(alertnotify: Option<String>) -> Warnings {
        Warnings { alertnotify, moved: clock::now().into(), ..Warnings::default() }
    }

    /// What they say.
    pub fn messages(&self) -> Vec<String> {
        self.present.lock().values().cloned().collect()
    }

    /// Raises a warning unless it stands, or takes it back. Core: `Set`, `Unset`.
    fn set(&self, warning: Warning, message: Option<String>) {
        let mut present = self.present.lock();
        match message {
            None => {
                if let Some(message) = present.remove(&warning) {
                    tracing::info!("no longer so: {message}");
                }
            }
            Some(message) if !present.contains_key(&warning) => {
                tracing::warn!("{message}");
                self.alertnotify.iter().for_each(|command| notify::alert(command, &message));
                present.insert(warning, message);
            }
            Some(_) => {}
        }
    }

    /// Looks at what time alone brings about; `offset`: what is to be added to our clock to have the peers', in seconds.
    pub fn look_at_clock(&self, offset: i64, params: &Params) {
        let skewed = offset.saturating_abs() > WARN_THRESHOLD;
        self.set(Warning::ClockOutOfSync, skewed.then(|| clock_message(WARN_THRESHOLD / 60)));
        let still = clock::now().saturating_sub(self.moved.load(Ordering::Relaxed));
        // Where blocks have no pace, as on regtest, none is late.
        let stale = !params.no_retargeting && still > params.spacing.saturating_mul(STALE_SPACINGS);
        let hours = params.spacing.saturating_mul(STALE_SPACINGS) / 3600;
        let message = || {
            format!(
                "Warning: no block has come for more than {hours} hours. This node may be cut off from the network."
            )
        };
        self.set(Warning::StaleTip, stale.then(message));
    }
}

/// Core's words.
fn clock_message(minutes: i64) -> String {
    format!(
        "Your computer's date and time appear to be more than {minutes} minutes out of sync with the network, this may \
         lead to consensus failure. After you've confirmed your computer's clock, this message should no longer appear \
         when you restart your node. Without a restart, it should stop showing automatically after you've connected to a \
         sufficient number of new outbound peers, which may take some time. You can inspect the `timeoffset` field of the \
         `getpeerinfo` and `getnetworkinfo` RPC methods to get more info."
    )
}

/// Looks at the chain for the ledger thread.
pub struct Watch {
    warnings: Arc<Warnings>,
    tree: Arc<RwLock<Tree>>,
    params: Arc<Params>,
    signals: Signals,
    /// Height of the first block after the last deep reorganisation.
    reorg: Option<u32>,
}

impl Watch {
    /// Of this chain.
    pub fn new(warnings: Arc<Warnings>, tree: Arc<RwLock<Tree>>, params: Arc<Params>) -> Watch {
        Watch { warnings, tree, params, signals: Signals::default(), reorg: None }
    }

    /// The published tip changed; `in_sync`: it is near the network's.
    pub fn tip_changed(&mut self, change: &Change, in_sync: bool) {
        self.warnings.moved.store(clock::now(), Ordering::Relaxed);
        if !in_sync {
            return;
        }
        let tree = self.tree.read();
        let height = tree.node(tree.tip()).height;
        if let Some(bit) = self.signals.active(&tree, &self.params) {
            let message = format!("Unknown new rules activated (versionbit {bit})");
            self.warnings.set(Warning::UnknownNewRulesActivated, Some(message));
        }
        let count = change.disconnected.len();
        // Not one that the operator asked for, nor one that leaves a branch which broke a rule.
        let left = change.disconnected.first().and_then(|left| tree.get(&left.hash));
        if count >= DEEP_REORG && left.is_some_and(|left| !tree.node(left).is_invalid()) {
            self.reorg = Some(height);
            let message = format!(
                "Warning: {count} blocks were taken back, since another branch has more work. Payments that they \
                 confirmed may be void."
            );
            self.warnings.set(Warning::DeepReorg, Some(message));
        }
        if self.reorg.is_some_and(|from| height >= from + REORG_TOLD_FOR) {
            self.reorg = None;
            self.warnings.set(Warning::DeepReorg, None);
        }
    }

    /// Looks for an invalid chain that others may be on. Core: `CheckForkWarningConditions`.
    pub fn look_at_branches(&self) {
        let tree = self.tree.read();
        let tip = tree.node(tree.tip());
        let much = (0..6).fold(tip.work, |work, _| work + block_work(tip.bits));
        let worse = tree.best_invalid().is_none_or(|invalid| tree.node(invalid).work <= much);
        let message = "Warning: Found invalid chain more than 6 blocks longer than our best chain. This could be due to \
                       database corruption or consensus incompatibility with peers.";
        self.warnings.set(Warning::LargeWorkInvalidChain, (!worse).then(|| message.to_owned()));
    }
}

/// Which bits of block versions the network has agreed on without us. Core: `WarningBitsConditionChecker`.
#[derive(Default)]
struct Signals {
    /// The last block of the period up to which was counted.
    counted: Option<(u32, BlockHash)>,
    /// Bits that enough blocks of that period signalled.
    locked_in: u32,
    /// Bits that were locked in before.
    active: u32,
}

impl Signals {
    /// The lowest bit whose rules hold in the block after the published tip.
    fn active(&mut self, tree: &Tree, params: &Params) -> Option<u32> {
        let (period, _) = warning_period(params);
        let tip = tree.node(tree.tip()).height;
        let end = ((tip + 1) / period * period).checked_sub(1)?;
        let stands = |(height, hash)| tree.active(height).is_some_and(|id| tree.node(id).hash == hash);
        if !self.counted.is_some_and(stands) {
            *self = Signals::default();
        }
        // In the first period of all nothing is signalled for yet.
        let first = self.counted.map_or(period.max(params.min_bip9_warning_height / period * period), |at| at.0 + 1);
        let branch = tree.branch(tree.tip());
        for first in (first..=end).step_by(period as usize) {
            self.active |= self.locked_in;
            self.locked_in = unknown_signals(&branch, first, params) & !self.active;
            let bits = (0..VERSIONBITS_NUM_BITS).filter(|bit| self.locked_in >> bit & 1 == 1);
            bits.for_each(|bit| tracing::warn!("unknown new rules will be activated (versionbit {bit})"));
        }
        let last = tree.active(end).expect("it lies at or below the tip");
        self.counted = Some((end, tree.node(last).hash));
        (self.active != 0).then(|| self.active.trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_differs_much_and_a_tip_that_stands_still_are_warned_of_while_it_is_so() {
        let (main, regtest) = (Params::main(), Params::by_name("regtest").expect("a known network"));
        let warnings = Warnings::new(None);
        let told = |offset, params: &Params| {
            warnings.look_at_clock(offset, params);
            warnings.messages().iter().map(|message| message[..20].to_owned()).collect::<Vec<_>>()
        };
        let (clock, stale) = ("Your computer's date", "Warning: no block ha");
        assert_eq!(told(600, &main), [""; 0]);
        assert_eq!(told(-601, &main), [clock]);
        assert_eq!(told(i64::MIN, &main), [clock], "told once");
        warnings.moved.store(clock::now() - 18 * 600 - 10, Ordering::Relaxed);
        assert_eq!(told(601, &main), [clock, stale]);
        assert_eq!(told(0, &main), [stale]);
        assert_eq!(told(0, &regtest), [""; 0], "regtest has no pace");
    }
}
