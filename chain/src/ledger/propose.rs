//! Judging a block that is only proposed: all rules but proof of work, and nothing of it stays. Core:
//! `TestBlockValidity`.

use std::sync::Arc;

use super::ahead::Prefetched;
use super::gather::Gathered;
use super::{Ledger, LedgerError};
use crate::block::Block;
use crate::rejection::Rejection;
use crate::rules;

/// What is said of a block that is proposed ([BIP-0023]).
///
/// [BIP-0023]: https://github.com/bitcoin/bips/blob/master/bip-0023.mediawiki
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// With proof of work it would be valid.
    Valid,
    /// It does not build on the tip. BIP23: `inconclusive-not-best-prevblk`.
    NotOnTip,
    /// It breaks a rule.
    Rejected(Rejection),
}

impl Ledger {
    /// What this block would be on top of the published tip at the clock time `now`, in seconds since 1970. It takes the
    /// scripts in flight and the block's own; no header, no block and no coin of it is kept.
    pub fn propose(&mut self, block: &Arc<Block>, now: u32) -> Result<Proposal, LedgerError> {
        while let Some(step) = self.settle(true)? {
            self.untold.push_back(step);
        }
        let tree = self.tree.read();
        let tip = tree.node(self.tip);
        if tree.tip() != self.tip || block.header.prev_blockhash != tip.hash {
            return Ok(Proposal::NotOnTip);
        }
        let branch = tree.branch(self.tip);
        let judged = rules::block::check_body(block)
            .and_then(|()| rules::header::contextual_check_header(&block.header, &branch, &self.params, now))
            .and_then(|()| rules::block::contextual_check_block(block, &branch, &self.params));
        drop(tree);
        Ok(match judged {
            Ok(()) => self.try_to_connect(block)?.map_or_else(Proposal::Rejected, |()| Proposal::Valid),
            Err(rejection) => Proposal::Rejected(rejection),
        })
    }

    /// Connects a block to the coins, scripts and all, and takes it back.
    fn try_to_connect(&mut self, block: &Arc<Block>) -> Result<Result<(), Rejection>, LedgerError> {
        let (Gathered { spent, overwritten, transactions, .. }, judged) = self.judge(block, Prefetched::default())?;
        let spent = Arc::new(spent);
        let judged = match judged {
            Ok(connected) => self.run_scripts(block, &spent, connected.flags).wait(&self.pool),
            Err(rejection) => Err(rejection),
        };
        self.revert(block, &spent, &overwritten, transactions);
        match judged {
            Err(rejection) if !matches!(rejection, Rejection::BlockScript(_)) => {
                Ok(Err(self.in_cores_words(block, rejection)?))
            }
            judged => Ok(judged),
        }
    }
}
