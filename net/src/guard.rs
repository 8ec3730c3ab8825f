//! Whom we want nothing to do with: addresses that misbehaved, and those that the operator banned. There is no score:
//! who breaks a limit is discouraged and disconnected at once. Knows addresses only.

use std::collections::{BTreeSet, VecDeque};

use crate::addr::Host;
use crate::bans::Bans;
use crate::peer::{LinkKind, Peer};
use crate::protocol::{Cx, Event, Reason};
use crate::timers::Micros;

/// The addresses that misbehaved, of which the oldest are forgotten first, and the bans.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    pub(crate) bans: Bans,
    hosts: BTreeSet<Host>,
    order: VecDeque<Host>,
}

impl Guard {
    /// A peer broke a rule that no honest peer breaks. Core: `Misbehaving`, `MaybeDiscourageAndDisconnect`.
    pub(crate) fn misbehaved(&mut self, peer: &mut Peer, what: &'static str, cx: &mut Cx<'_>) {
        cx.event(Event::Misbehaved { peer: peer.id, what });
        if peer.permissions.no_ban || peer.kind == LinkKind::Manual {
            return;
        }
        // All who come through a local proxy share its address.
        if !peer.addr.host.is_local() {
            self.discourage(peer.addr.host, cx.core.config.limits.discouraged);
        }
        cx.disconnect(peer, Reason::Misbehaved(what));
    }

    fn discourage(&mut self, host: Host, cap: usize) {
        if self.hosts.insert(host) {
            self.order.push_back(host);
        }
        while self.order.len() > cap {
            let oldest = self.order.pop_front().expect("longer than its cap");
            self.hosts.remove(&oldest);
        }
    }

    /// Whether nobody at this address is dialled or told of.
    pub(crate) fn refuses(&self, host: &Host, now: Micros) -> bool {
        self.is_discouraged(host) || self.bans.holds_for(host, now.seconds())
    }

    /// Whether somebody at this address misbehaved lately.
    pub(crate) fn is_discouraged(&self, host: &Host) -> bool {
        self.hosts.contains(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_discouraged_address_is_forgotten_at_the_cap() {
        let mut guard = Guard::default();
        for last in 0..5 {
            guard.discourage(Host::V4([1, 2, 3, last]), 3);
        }
        let kept: Vec<bool> = (0..5).map(|last| guard.is_discouraged(&Host::V4([1, 2, 3, last]))).collect();
        assert_eq!(kept, [false, false, true, true, true]);
    }
}
