//! What a node of the virtual network needs of a ledger: the view that its protocol reads, and somebody who does the
//! work. Three are there: a tree of one's own, a share in a common one, and the real ledger.

use super::chain::Chain;
use crate::protocol::{Done, Input, Work};
use crate::timers::Micros;
use crate::view::View;

/// The ledger of one node.
pub trait Backend: View {
    /// Does a piece of work at the time `now`: its answer, and what the protocol is to be told besides.
    fn perform(&mut self, work: Work, now: Micros) -> (Done, Vec<Input>);
}

impl Backend for Chain {
    fn perform(&mut self, work: Work, now: Micros) -> (Done, Vec<Input>) {
        Chain::perform(self, work, now)
    }
}
