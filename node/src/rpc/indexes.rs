//! Methods about the optional indexes. Core: `src/rpc/blockchain.cpp`, `src/rpc/node.cpp`.

use bitcoin::BlockHash;
use groat_chain::index::{Index, filters};
use groat_chain::ledger::IndexState;
use hex::DisplayHex;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::method::{Answer, Method, answer};
use crate::handle::NodeHandle;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "getblockfilter",
        group: "blockchain",
        args: &[
            Arg::required("blockhash", Kind::Hex, "The block's hash."),
            Arg::optional("filtertype", Kind::Text, "basic (default)."),
        ],
        about: "The compact filter of a block (BIP157); needs -blockfilterindex.",
        run: getblockfilter,
    },
    Method {
        name: "getindexinfo",
        group: "util",
        args: &[Arg::optional("index_name", Kind::Text, "The only index wanted.")],
        about: "How far the indexes are that are switched on.",
        run: getindexinfo,
    },
];

/// How far the index of filters is of the type that is named.
pub fn filter_index(node: &NodeHandle, kind: Option<&str>) -> Result<IndexState, RpcError> {
    match kind.unwrap_or("basic") {
        "basic" => node
            .index(Index::Filters)
            .ok_or_else(|| RpcError::new(RPC_MISC_ERROR, "Index is not enabled for filtertype basic")),
        _ => Err(RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Unknown filtertype")),
    }
}

fn getblockfilter(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Filter {
        filter: String,
        header: String,
    }
    let (node, hash) = (rpc.node()?, args.hash::<BlockHash>(0)?);
    let state = filter_index(node, args.text(1))?;
    let proven = {
        let tree = node.tree().read();
        tree.get(&hash).map(|id| tree.node(id).is_proven())
    };
    let proven = proven.ok_or_else(|| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Block not found"))?;
    let (store, blocks) = (&**node.store(), [hash]);
    match (filters::filters(store, &blocks)?.remove(0), filters::headers(store, &blocks)?.remove(0)) {
        (Some(filter), Some(header)) => {
            answer(Filter { filter: filter.to_lower_hex_string(), header: header.header.to_string() })
        }
        _ => {
            let (code, why) = match (proven, state.synced) {
                (false, _) => (RPC_INVALID_ADDRESS_OR_KEY, "Block was not connected to active chain."),
                (_, false) => (RPC_MISC_ERROR, "Block filters are still in the process of being indexed."),
                _ => (RPC_INTERNAL_ERROR, "This error is unexpected and indicates index corruption."),
            };
            Err(RpcError::new(code, format!("Filter not found. {why}")))
        }
    }
}

fn getindexinfo(rpc: &Rpc, args: &Args) -> Answer {
    let (node, name) = (rpc.node()?, args.text(0).unwrap_or_default());
    let tree = node.tree().read();
    let wanted = node.indexes().into_iter().filter(|state| name.is_empty() || name == state.index.name());
    let info = |state: IndexState| {
        let height = tree.node(state.tip).height;
        (state.index.name().to_owned(), json!({ "synced": state.synced, "best_block_height": height }))
    };
    answer(wanted.map(info).collect::<Map<String, Value>>())
}
