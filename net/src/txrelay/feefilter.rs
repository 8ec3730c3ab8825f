//! The fee rate below which we want no transaction, told to peers ([BIP-0133]): seldom, coarsely, so that nobody is known by
//! it. Knows nothing of what is announced.
//!
//! [BIP-0133]: https://github.com/bitcoin/bips/blob/master/bip-0133.mediawiki

use std::time::Duration;

use groat_chain::rules::limits::MAX_MONEY;
use rand::Rng;

use crate::message::Message;
use crate::peer::{LinkKind, Peer, Peers};
use crate::protocol::Cx;
use crate::timers::{
    AVG_FEEFILTER_BROADCAST_INTERVAL, FEEFILTER_LOOK_INTERVAL, MAX_FEEFILTER_CHANGE_DELAY, Micros, Timer, exponential,
};
use crate::view::View;

/// From here on `feefilter` is known. Core's name and value.
const FEEFILTER_VERSION: i32 = 70_013;

/// A handshake is done with a peer that speaks `version`.
pub(super) fn on_ready(peer: &Peer, version: i32, cx: &mut Cx<'_>) {
    let filters = !cx.core.config.blocks_only && !peer.permissions.force_relay;
    if filters && peer.kind != LinkKind::BlockRelay && version >= FEEFILTER_VERSION {
        cx.core.timers.set(peer.id, Timer::FeeFilter, cx.now);
    }
}

/// Tells a peer what fee rate we want, if that changed, and sets when to look again. Core: `MaybeSendFeefilter`.
pub(crate) fn on_timer(peer: &mut Peer, view: &impl View, cx: &mut Cx<'_>) {
    // All money there can be as a rate says that nothing is wanted.
    let floor = if cx.core.initial_download { MAX_MONEY } else { view.pool_fee_floor() };
    let told = rounded(floor, &mut cx.core.rng).max(view.min_relay_fee());
    if peer.relay.sent_fee_filter != Some(told) {
        peer.relay.sent_fee_filter = Some(told);
        cx.send(peer, Message::FeeFilter(i64::try_from(told).unwrap_or(i64::MAX)));
    }
    let next = cx.now + exponential(AVG_FEEFILTER_BROADCAST_INTERVAL, &mut cx.core.rng);
    cx.core.timers.set(peer.id, Timer::FeeFilter, next);
}

/// The pool's floor as it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Floor {
    rate: u64,
    looked: Micros,
}

impl Floor {
    /// A floor that moved much is told sooner.
    pub fn look(&mut self, peers: &Peers, view: &impl View, cx: &mut Cx<'_>) {
        if cx.now < self.looked + FEEFILTER_LOOK_INTERVAL {
            return;
        }
        let new = view.pool_fee_floor();
        let before = std::mem::replace(self, Floor { rate: new, looked: cx.now }).rate;
        if new == before {
            return;
        }
        for peer in peers.values() {
            let Some(sent) = peer.relay.sent_fee_filter else { continue };
            let far = new < 3 * sent / 4 || new > 4 * sent / 3;
            let late = |at: Micros| at > cx.now + MAX_FEEFILTER_CHANGE_DELAY;
            if far && cx.core.timers.get(peer.id, Timer::FeeFilter).is_some_and(late) {
                let within = cx.core.rng.random_range(Duration::ZERO..MAX_FEEFILTER_CHANGE_DELAY);
                cx.core.timers.set(peer.id, Timer::FeeFilter, cx.now + within);
            }
        }
    }
}

/// A fee rate moved to a step of a coarse ladder, up or down by chance: exact, it would tell nodes apart. The ladder ends
/// where no fee rate is. Core: `FeeFilterRounder`, whose floating point is the same on all machines as it only multiplies.
fn rounded(rate: u64, rng: &mut impl Rng) -> u64 {
    // Half of Core's `DEFAULT_INCREMENTAL_RELAY_FEE`.
    let steps = std::iter::successors(Some(50.0f64), |step| Some(step * 1.1)).take_while(|step| *step <= 1e7);
    let (mut below, mut above) = (0.0, None);
    for step in steps {
        if step >= rate as f64 {
            above = Some(step);
            break;
        }
        below = step;
    }
    match above {
        _ if rate == 0 => 0,
        Some(above) if rng.random_range(0..3) == 0 => above as u64,
        _ => below as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use rand::SeedableRng;

    #[test]
    fn fee_rates_are_told_in_cores_steps() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut told = |rate| (0..100).map(|_| rounded(rate, &mut rng)).collect::<BTreeSet<u64>>();
        assert_eq!(told(0), BTreeSet::from([0]));
        assert_eq!(told(100), BTreeSet::from([97, 107]));
        assert_eq!(told(1000), BTreeSet::from([959, 1055]));
        assert_eq!(told(MAX_MONEY), BTreeSet::from([9_936_506]), "Core's test p2p_ibd_txrelay expects this number");
    }
}
