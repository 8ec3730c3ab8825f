//! What an RPC answers in place of a result: Core's codes (`src/rpc/protocol.h`) and texts. Knows no method.

use groat_chain::store::StoreError;
use serde::Serialize;

/// The request is not one of JSON-RPC.
pub const RPC_INVALID_REQUEST: i32 = -32600;
/// There is no such method.
pub const RPC_METHOD_NOT_FOUND: i32 = -32601;
/// Arguments that exclude each other.
pub const RPC_INVALID_PARAMS: i32 = -32602;
/// Something that should not happen.
pub const RPC_INTERNAL_ERROR: i32 = -32603;
/// The body is not JSON.
pub const RPC_PARSE_ERROR: i32 = -32700;
/// Anything that has no code of its own; also a wrong number of arguments.
pub const RPC_MISC_ERROR: i32 = -1;
/// An argument of the wrong JSON type.
pub const RPC_TYPE_ERROR: i32 = -3;
/// An address, a key or a hash that is not known.
pub const RPC_INVALID_ADDRESS_OR_KEY: i32 = -5;
/// An argument of the right type with a wrong value.
pub const RPC_INVALID_PARAMETER: i32 = -8;
/// There is no peer.
pub const RPC_CLIENT_NOT_CONNECTED: i32 = -9;
/// The node is catching up.
pub const RPC_CLIENT_IN_INITIAL_DOWNLOAD: i32 = -10;
/// The store failed.
pub const RPC_DATABASE_ERROR: i32 = -20;
/// Bytes that are no block, header or transaction.
pub const RPC_DESERIALIZATION_ERROR: i32 = -22;
/// `addnode add` of a node that was added before.
pub const RPC_CLIENT_NODE_ALREADY_ADDED: i32 = -23;
/// `addnode remove` of a node that was not added.
pub const RPC_CLIENT_NODE_NOT_ADDED: i32 = -24;
/// A block or a header was refused, or a transaction that is not judged by itself.
pub const RPC_VERIFY_ERROR: i32 = -25;
/// A transaction broke a rule, or is not wanted.
pub const RPC_VERIFY_REJECTED: i32 = -26;
/// A transaction is mined already.
pub const RPC_VERIFY_ALREADY_IN_UTXO_SET: i32 = -27;
/// There is no link with that peer.
pub const RPC_CLIENT_NODE_NOT_CONNECTED: i32 = -29;
/// Text that is no address and no subnet; also a ban that there is not.
pub const RPC_CLIENT_INVALID_IP_OR_SUBNET: i32 = -30;
/// There are as many links of a kind as there may be.
pub const RPC_CLIENT_NODE_CAPACITY_REACHED: i32 = -34;
/// The node is still starting.
pub const RPC_IN_WARMUP: i32 = -28;

/// An error as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RpcError {
    /// One of the constants of this file.
    pub code: i32,
    /// For people; where Core has a text, it is Core's.
    pub message: String,
}

impl RpcError {
    /// An error with this code and text.
    pub fn new(code: i32, message: impl Into<String>) -> RpcError {
        RpcError { code, message: message.into() }
    }
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> RpcError {
        RpcError::new(RPC_DATABASE_ERROR, error.to_string())
    }
}
