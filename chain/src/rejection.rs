//! Every reason to refuse a header, a block or a transaction, once. Its text is exactly Core's reject reason.

use crate::script::ScriptError;

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A script of a block failed.
    #[error("block-script-verify-flag-failed ({0})")]
    BlockScript(ScriptError),
}
