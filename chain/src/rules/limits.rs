//! The bounds that rules of several stages share, with Core's names and values. Knows nothing.

/// No amount is above this, in satoshi: no rule on supply, but a bound on every sum. Core: `MAX_MONEY`.
pub const MAX_MONEY: u64 = 21_000_000 * 100_000_000;
/// No serialized block is longer, in bytes.
pub const MAX_BLOCK_SERIALIZED_SIZE: usize = 4_000_000;
/// The most that a block may weigh ([BIP-0141]).
///
/// [BIP-0141]: https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki
pub const MAX_BLOCK_WEIGHT: usize = 4_000_000;
/// Weight of a byte outside witnesses.
pub const WITNESS_SCALE_FACTOR: usize = 4;
/// The most that the signature operations of a block may cost ([BIP-0141]). Core: `MAX_BLOCK_SIGOPS_COST`.
///
/// [BIP-0141]: https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki
pub const MAX_BLOCK_SIGOPS_COST: u64 = 80_000;
