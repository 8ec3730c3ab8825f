//! The script engine.

/// Why a script failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// Evaluated without error but left a false top stack element.
    #[error("Script evaluated without error but finished with a false/empty top stack element")]
    EvalFalse,
}
