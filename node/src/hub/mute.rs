//! Peers that the operator named and that hang up before they have said who they are, as nodes of other networks do: they
//! are told of once.

use std::collections::BTreeMap;

use groat_net::addr::NetAddr;
use groat_net::protocol::PeerId;

/// Hang-ups in a row that are told: the first may be that of a peer that knows version 1 of the transport alone.
const TOLD_AT: u32 = 2;
/// Addresses that are remembered; further ones are not told of.
const MAX_MUTE: usize = 100;

/// Links to named peers, and how often they ended too early.
#[derive(Default)]
pub struct Mute {
    open: BTreeMap<PeerId, NetAddr>,
    ended: BTreeMap<NetAddr, u32>,
}

impl Mute {
    /// A link with a named peer begins.
    pub fn linked(&mut self, peer: PeerId, addr: NetAddr) {
        self.open.insert(peer, addr);
    }

    /// The peer has said who it is.
    pub fn ready(&mut self, peer: PeerId) {
        self.open.remove(&peer).map(|addr| self.ended.remove(&addr));
    }

    /// The link ended. Gives the address if that is to be told.
    pub fn closed(&mut self, peer: PeerId) -> Option<NetAddr> {
        let addr = self.open.remove(&peer)?;
        if self.ended.len() >= MAX_MUTE && !self.ended.contains_key(&addr) {
            return None;
        }
        let count = self.ended.entry(addr).or_default();
        *count = count.saturating_add(1);
        (*count == TOLD_AT).then_some(addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_up_twice_is_told_of_once() {
        let mut mute = Mute::default();
        let mut number = 0;
        let mut hangs_up = |mute: &mut Mute, port: u16, ready: bool| {
            number += 1;
            mute.linked(PeerId(number), NetAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], port))));
            if ready {
                mute.ready(PeerId(number));
            }
            mute.closed(PeerId(number)).is_some()
        };
        assert_eq!([false; 3].map(|ready| hangs_up(&mut mute, 1, ready)), [false, true, false]);
        assert_eq!([false, true, false, false].map(|ready| hangs_up(&mut mute, 2, ready)), [false, false, false, true]);
        for port in 3..=200 {
            hangs_up(&mut mute, port, false);
        }
        assert_eq!((mute.ended.len(), mute.open.len()), (MAX_MUTE, 0), "addresses at the cap");
        assert!(!hangs_up(&mut mute, 200, false));
    }
}
