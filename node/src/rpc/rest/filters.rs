//! Compact filters of blocks (BIP157), with REST's words where there are none.

use ::hex::FromHex;
use bitcoin::BlockHash;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::{Hash, sha256d};
use serde::Deserialize;
use serde_json::json;

use super::super::error::*;
use super::super::http::Reply;
use super::super::{Rpc, method};
use super::{Asked, Refusal, bad, failed, hash, json_of, not_found, range};

/// What `getblockfilter` gives.
#[derive(Deserialize)]
struct Filter {
    filter: String,
    header: sha256d::Hash,
}

/// The filter of a block, in the words of REST where there is none. The kind is a known one.
fn block_filter(rpc: &Rpc, kind: &str, hash: &BlockHash) -> Result<Filter, Refusal> {
    let found = method::call(rpc, "getblockfilter", json!([hash.to_string(), kind]));
    let found = found.map_err(|error| match error.code {
        RPC_METHOD_NOT_FOUND => bad(format!("Index is not enabled for filtertype {kind}")),
        _ if error.message.starts_with("Index is not enabled") => bad(error.message),
        _ if error.message == "Block not found" => not_found(format!("{hash} not found")),
        _ if error.message.starts_with("Filter not found") => not_found(error.message),
        _ => error.into(),
    })?;
    serde_json::from_str(found.get()).map_err(failed)
}

/// The one kind of filters that there is (BIP158).
const BASIC: &str = "basic";

fn known_kind(kind: &str) -> Result<(), Refusal> {
    if kind == BASIC { Ok(()) } else { Err(bad(format!("Unknown filtertype {kind}"))) }
}

pub(super) fn filter(rpc: &Rpc, asked: &Asked) -> Result<Reply, Refusal> {
    let Some((kind, text)) = asked.path.split_once('/').filter(|(_, text)| !text.contains('/')) else {
        return Err(bad("Invalid URI format. Expected /rest/blockfilter/<filtertype>/<blockhash>"));
    };
    let hash: BlockHash = hash(text)?;
    known_kind(kind)?;
    let Filter { filter, .. } = block_filter(rpc, kind, &hash)?;
    asked.give(
        || {
            let filter = Vec::from_hex(&filter).map_err(failed)?;
            // The number of the kind, BIP158's basic one.
            Ok([vec![0], serialize(&hash), serialize(&filter)].concat())
        },
        || Ok(json!({ "filter": filter.clone() }).to_string()),
    )
}

pub(super) fn filter_headers(rpc: &Rpc, asked: &Asked) -> Result<Reply, Refusal> {
    let parts: Vec<&str> = asked.path.split('/').collect();
    let ids = range(rpc, asked, parts.get(1..).unwrap_or_default())?;
    let form = "Invalid URI format. Expected /rest/blockfilterheaders/<filtertype>/<blockhash>.<ext>?count=<count>";
    let ids = ids.ok_or_else(|| bad(form))?;
    known_kind(parts[0])?;
    let hashes: Vec<BlockHash> = {
        let tree = rpc.node()?.tree().read();
        ids.iter().map(|id| tree.node(*id).hash).collect()
    };
    if hashes.is_empty() {
        // Whether there is an index is told even then.
        block_filter(rpc, parts[0], &rpc.node()?.params().genesis_hash)?;
    }
    let headers = hashes.iter().map(|hash| Ok(block_filter(rpc, parts[0], hash)?.header));
    let headers: Vec<sha256d::Hash> = headers.collect::<Result<_, Refusal>>()?;
    asked.give(
        || Ok(headers.iter().flat_map(|header| header.to_byte_array()).collect()),
        || json_of(headers.iter().map(sha256d::Hash::to_string).collect::<Vec<_>>()),
    )
}
