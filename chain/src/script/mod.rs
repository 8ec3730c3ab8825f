//! The script engine.

use crate::coins::Coin;
use bitcoin::{Script, Transaction, Witness};

/// Why a script failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// Evaluated without error but left a false top stack element.
    #[error("Script evaluated without error but finished with a false/empty top stack element")]
    EvalFalse,
}

/// A set of script verification flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

#[expect(missing_docs, reason = "a stand-in")]
impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const P2SH: Flags = Flags(1);
    pub const DERSIG: Flags = Flags(2);
    pub const NULLDUMMY: Flags = Flags(4);
    pub const CHECKLOCKTIMEVERIFY: Flags = Flags(8);
    pub const CHECKSEQUENCEVERIFY: Flags = Flags(16);
    pub const WITNESS: Flags = Flags(32);
    pub const TAPROOT: Flags = Flags(64);
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// Midstates of one transaction.
pub struct Sighashes<'a>(#[expect(dead_code, reason = "a stand-in")] &'a Transaction);

impl<'a> Sighashes<'a> {
    /// Prepares.
    pub fn new(tx: &'a Transaction, _: &'a [Coin]) -> Sighashes<'a> {
        Sighashes(tx)
    }
}

/// Verdicts to be used again.
pub struct VerdictCache;

/// Runs one input.
pub fn verify_input(_: &Sighashes, _: usize, _: Flags, _: Option<&VerdictCache>) -> Result<(), ScriptError> {
    Ok(())
}

/// Counts.
pub fn legacy_sigops(_: &Script, _: bool) -> u32 {
    0
}

/// Counts.
pub fn p2sh_sigops(_: &Script, _: &Script) -> u32 {
    0
}

/// Counts.
pub fn witness_sigops(_: &Script, _: &Script, _: &Witness, _: Flags) -> u32 {
    0
}
