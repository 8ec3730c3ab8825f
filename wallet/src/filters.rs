//! Block filters ([BIP-0158]): with them, blocks that have nothing of the wallet need not be read. For nodes that keep
//! their index (`blockfilterindex`).
//!
//! [BIP-0158]: https://github.com/bitcoin/bips/blob/master/bip-0158.mediawiki

use bitcoin::bip158::BlockFilter;
use bitcoin::{BlockHash, ScriptBuf};
use hex::FromHex;
use serde_json::json;

use crate::error::{Error, Result};
use crate::rpc::Node;

/// Whether the node gives filters.
pub fn served(node: &Node) -> Result<bool> {
    let genesis: BlockHash = node.call("getblockhash", json!([0]))?;
    match node.call::<serde_json::Value>("getblockfilter", json!([genesis])) {
        Ok(_) => Ok(true),
        Err(Error::Rpc { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// The filters of these blocks. None: the node's index has not got that far.
pub fn fetch(node: &Node, hashes: &[BlockHash]) -> Result<Option<Vec<BlockFilter>>> {
    let answers = node.batch("getblockfilter", hashes.iter().map(|hash| json!([hash])))?;
    let read = |answer: Result<serde_json::Value>| {
        let digits = answer.ok()?["filter"].as_str()?.to_owned();
        Some(BlockFilter::new(&Vec::from_hex(&digits).ok()?))
    };
    Ok(answers.into_iter().map(read).collect())
}

/// Whether a block may have something of these scripts. A filter that cannot be read says yes.
pub fn may_have(filter: &BlockFilter, hash: &BlockHash, scripts: &[ScriptBuf]) -> bool {
    filter.match_any(hash, scripts.iter().map(|script| script.as_bytes())).unwrap_or(true)
}
