//! What is true: Bitcoin's consensus rules, its script engine, the header tree, the coins and the ledger.
//!
//! This crate knows no sockets, no clock, no async runtime and no RPC: the time is an argument, peers are
//! unheard of. Everything is built from one pattern: *gather* what a decision needs, *judge* it with a pure
//! function, *commit* the outcome in one durable write.
//!
//! The map, from the ground up (each imports only what stands above it):
//!
//! | module | what it holds |
//! |---|---|
//! | [`coins`] | a coin: an unspent output with its height |
//! | [`block`] | a decoded block with the hashes that every rule asks for |
//! | [`pool`] | the checking threads |
//! | [`script`] | the script interpreter, signature hashes, taproot |
//! | [`params`] | networks: genesis, limits, activation heights, exceptions; a network of one's own from a file |
//! | [`rejection`] | every reason to refuse a block or a transaction, once |
//! | [`rules`] | the consensus rules by stage; the crate's heart |
//! | [`store`] | what a ledger needs of a disk: RocksDB and flat files, or memory |
//! | [`tree`] | all headers, chain work, the best chain, invalid marks |
//! | [`table`] | the coins in memory: a live and a frozen layer over the store |
//! | `muhash`, [`stats`] | the hash of the coin set; its totals |
//! | [`snapshot`] | the file that holds a coin set |
//! | [`index`] | optional indexes: from a block to rows that things are found by |
//! | [`ledger`] | the single writer: headers, blocks, the best chain step by step, flushes |
//! | [`mempool`] | transactions that could be in the next block: acceptance, policy, what a block takes |
//! | [`template`] | the next block, for who mines it |

pub mod block;
pub mod coins;
pub mod index;
pub mod ledger;
pub mod mempool;
mod muhash;
pub mod params;
pub mod pool;
pub mod rejection;
pub mod rules;
pub mod script;
pub mod snapshot;
pub mod stats;
pub mod store;
pub mod table;
pub mod template;
pub mod tree;
