//! What is true: Bitcoin's consensus rules, its script engine, the header tree, the coins and the ledger.
//!
//! This crate knows no sockets, no clock, no async runtime and no RPC: the time is an argument, peers are
//! unheard of. Everything is built from one pattern: *gather* what a decision needs, *judge* it with a pure
//! function, *commit* the outcome in one durable write.
//!
//! The map, from the ground up (nothing imports what stands below it in this list):
//!
//! | module | what it holds |
//! |---|---|
//! | [`params`] | networks: genesis, limits, activation heights, exceptions; a network of one's own from a file |
//! | [`rejection`] | every reason to refuse a block or a transaction, once |
//! | [`coins`] | a coin: an unspent output with its height |
//! | [`block`] | a decoded block with the hashes that every rule asks for |
//! | [`script`] | the script interpreter, signature hashes, taproot |
//! | [`rules`] | the consensus rules by stage; the crate's heart |
//! | [`tree`] | all headers, chain work, the best chain, invalid marks |
//! | [`store`] | what a ledger needs of a disk: RocksDB and flat files, or memory |
//! | [`table`] | the coins in memory: a live and a frozen layer over the store |
//! | [`pool`] | the checking threads |
//! | [`index`] | optional indexes: from a block to rows that things are found by |
//! | [`ledger`] | the single writer: headers, blocks, the best chain step by step, flushes |
//! | [`mempool`] | transactions that could be in the next block: acceptance, policy, what a block takes |
//! | [`template`] | the next block, for who mines it |
//! | [`muhash`] | the hash of the coin set |
//! | [`stats`] | the totals of the coin set |
//! | [`snapshot`] | the file that holds a coin set |

pub mod block;
pub mod coins;
pub mod index;
pub mod ledger;
pub mod mempool;
pub mod muhash;
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
