//! Taking headers and blocks: judged in their place and kept. Connects nothing.

use std::sync::Arc;

use bitcoin::block::Header;

use super::{Ledger, LedgerError};
use crate::block::Block;
use crate::params::Params;
use crate::rejection::{Blame, Rejection};
use crate::rules;
use crate::store::FilePos;
use crate::tree::Id;

/// A block that has been decoded and judged by itself, outside the ledger thread.
pub struct Incoming {
    /// The decoded block.
    pub block: Arc<Block>,
    /// Its serialization.
    pub bytes: Vec<u8>,
    /// What [`rules::block::check_block`] said.
    pub verdict: Result<(), Rejection>,
}

impl Incoming {
    /// Decodes and judges `bytes`, which are one block; meant for a pool thread.
    pub fn decode(bytes: Vec<u8>, params: &Params) -> Result<Incoming, bitcoin::consensus::encode::Error> {
        Ok(Incoming::judge(Block::decode(&bytes)?, bytes, params))
    }

    /// Decodes and judges the block that `bytes` begin with: what peers and `submitblock` give may go on after it.
    pub fn decode_prefix(mut bytes: Vec<u8>, params: &Params) -> Result<Incoming, bitcoin::consensus::encode::Error> {
        let block = Block::decode_prefix(&bytes)?;
        bytes.truncate(block.size);
        Ok(Incoming::judge(block, bytes, params))
    }

    fn judge(block: Block, bytes: Vec<u8>, params: &Params) -> Incoming {
        let verdict = rules::block::check_block(&block, params);
        Incoming { block: Arc::new(block), bytes, verdict }
    }
}

/// What became of a block that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It was new and is stored.
    New(Id),
    /// It was there already.
    Known(Id),
}

impl Ledger {
    /// Takes a header: known, or judged in its place and added. `now` is in seconds since 1970.
    pub fn accept_header(&mut self, header: &Header, now: u32) -> Result<Id, Rejection> {
        let hash = header.block_hash();
        let tree = self.tree.read();
        if let Some(id) = tree.get(&hash) {
            return if tree.node(id).is_invalid() { Err(Rejection::DuplicateInvalid) } else { Ok(id) };
        }
        rules::header::check_header(header, &self.params)?;
        let parent = tree.get(&header.prev_blockhash).ok_or(Rejection::PrevBlkNotFound)?;
        if tree.node(parent).is_invalid() {
            return Err(Rejection::BadPrevBlk);
        }
        rules::header::contextual_check_header(header, &tree.branch(parent), &self.params, now)?;
        drop(tree);
        let id = self.tree.write().insert(header, hash, parent);
        self.unsaved.insert(id);
        Ok(id)
    }

    /// Takes a block: judges it in its place and stores its bytes (`stored`: where they lie already). The block
    /// is not connected yet; [`Ledger::activate_best_chain`] does that.
    pub fn accept_block(
        &mut self,
        incoming: Incoming,
        stored: Option<FilePos>,
        now: u32,
    ) -> Result<Result<Accepted, Rejection>, LedgerError> {
        let Incoming { block, bytes, verdict } = incoming;
        if let Err(rejection) = verdict {
            return Ok(Err(rejection));
        }
        let id = match self.accept_header(&block.header, now) {
            Ok(id) => id,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let tree = self.tree.read();
        if tree.node(id).block().is_some() {
            return Ok(Ok(Accepted::Known(id)));
        }
        let Some(parent) = tree.node(id).parent() else {
            return Ok(Ok(Accepted::Known(id)));
        };
        let verdict = rules::block::contextual_check_block(&block, &tree.branch(parent), &self.params);
        drop(tree);
        if let Err(rejection) = verdict {
            self.refuse(id, &rejection);
            return Ok(Err(rejection));
        }
        let pos = match stored {
            Some(pos) => pos,
            None => self.store.append_block(&bytes)?,
        };
        let count = u32::try_from(block.transactions.len()).expect("a block within its weight holds fewer");
        self.tree.write().set_block(id, pos, count, block.size as u32);
        self.unsaved.insert(id);
        self.ahead.keep(id, block);
        Ok(Ok(Accepted::New(id)))
    }

    pub(super) fn refuse(&mut self, id: Id, rejection: &Rejection) {
        if rejection.blame() == Blame::Consensus {
            self.tree.write().invalidate(id);
            self.unsaved.insert(id);
        }
    }
}
