//! The first blocks of a network, made before any node runs: as many as the first coins need to become mature, with
//! times that lie a spacing apart and end now. Knows no node.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::block::Header;
use bitcoin::consensus::encode::serialize;
use bitcoin::{Block, CompactTarget, ScriptBuf, Target};
use groat_chain::mempool::{BlockLimits, Selected};
use groat_chain::params::Params;
use groat_chain::rules::branch::Branch;
use groat_chain::template::{Place, Template};

use super::interrupted;
use crate::error::{Doing, Result, failed};

/// Tries between two looks at whether to stop.
const STRIDE: u32 = 1 << 14;
/// Seconds that a block may be ahead of the clock. Core: `MAX_FUTURE_BLOCK_TIME`.
const MAX_FUTURE_BLOCK_TIME: u32 = 2 * 60 * 60;

struct Headers(Vec<Header>);

impl Branch for Headers {
    fn height(&self) -> u32 {
        self.0.len() as u32 - 1
    }

    fn time(&self, height: u32) -> u32 {
        self.0[height as usize].time
    }

    fn bits(&self, height: u32) -> CompactTarget {
        self.0[height as usize].bits
    }

    fn version(&self, height: u32) -> i32 {
        self.0[height as usize].version.to_consensus()
    }
}

/// The blocks that pay to `script` until the first of them can be spent; `now` in seconds since 1970.
pub fn blocks(params: &Params, script: &ScriptBuf, now: u32, stop: &AtomicBool) -> Result<Vec<Block>> {
    let count = params.coinbase_maturity + 1;
    let mut branch = Headers(vec![params.genesis.header]);
    let mut blocks = Vec::new();
    for number in 1..=count {
        let time = now.saturating_sub((count - number).saturating_mul(params.spacing));
        let parent = branch.0.last().map_or(params.genesis_hash, Header::block_hash);
        let place = Place::on(&branch, parent, params, time);
        if place.time > now.saturating_add(MAX_FUTURE_BLOCK_TIME) {
            return Err(failed(format!(
                "the first coins of {} cannot be mature yet: `genesis.time` must be {count} seconds in the past",
                params.name
            )));
        }
        let block = solve(&Template::new(place, script.clone(), Selected::nothing(&BlockLimits::default())), stop)?;
        branch.0.push(block.header);
        blocks.push(block);
    }
    Ok(blocks)
}

/// Looks for a nonce, with one coinbase after the other.
fn solve(template: &Template, stop: &AtomicBool) -> Result<Block> {
    let target = Target::from_compact(template.place.bits);
    for extra in 0.. {
        let coinbase = template.coinbase_with(extra);
        let mut header = template.header(&coinbase);
        for nonce in 0..=u32::MAX {
            header.nonce = nonce;
            if header.validate_pow(target).is_ok() {
                return Ok(template.block(header, coinbase));
            }
            if nonce % STRIDE == 0 && stop.load(Ordering::Relaxed) {
                return Err(interrupted());
            }
        }
    }
    unreachable!("the numbers do not end")
}

/// Writes blocks as block files have them, whole or not at all.
pub fn write(path: &Path, params: &Params, blocks: &[Block]) -> Result<()> {
    let mut bytes = Vec::new();
    for block in blocks {
        let block = serialize(block);
        bytes.extend_from_slice(&params.magic);
        bytes.extend_from_slice(&(block.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&block);
    }
    let next = path.with_extension("new");
    std::fs::write(&next, bytes).doing(format!("write {}", path.display()))?;
    std::fs::rename(&next, path).doing(format!("write {}", path.display()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_first_coins_are_mature_now() {
        let params = Params::by_name("regtest").unwrap();
        let now = 1_800_000_000;
        let blocks = blocks(&params, &ScriptBuf::new(), now, &AtomicBool::new(false)).unwrap();
        assert_eq!(blocks.len(), 101);
        assert_eq!((blocks[100].header.time, blocks[99].header.time), (now, now - params.spacing));
        assert!(blocks.windows(2).all(|two| two[1].header.prev_blockhash == two[0].block_hash()));
        // Where there was no time since the first block, the blocks stand as close as their median lets them.
        let genesis = params.genesis.header.time;
        let close = super::blocks(&params, &ScriptBuf::new(), genesis, &AtomicBool::new(false)).unwrap();
        assert!(close[100].header.time < genesis + 101, "{}", close[100].header.time - genesis);
    }
}
