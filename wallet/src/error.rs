//! Why a command ends without having done what was asked, as one sentence that says what to do, and its exit code.

use std::fmt::Display;
use std::process::ExitCode;

/// What is left to do when the public part of a wallet cannot be read.
pub const ANEW: &str = "move its folder away and make the wallet anew with `groat restore` and its words, which \
                        `groat backup words` still shows";

/// The result of everything that a user may cause to fail.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, by its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Anything without a code of its own (exit 1).
    #[error("{0}")]
    Failed(String),
    /// The command line does not say what is needed (exit 2).
    #[error("{0}")]
    Usage(String),
    /// Not enough money (exit 3).
    #[error("{0}")]
    Funds(String),
    /// The node cannot be reached or used (exit 4).
    #[error("{0}")]
    Node(String),
    /// The node refused a call, with its code and words (exit 1).
    #[error("the node answered: {message} (code {code})")]
    Rpc {
        /// Code as in Core's `rpc/protocol.h`.
        code: i64,
        /// The node's words.
        message: String,
    },
    /// The user said no (exit 5).
    #[error("nothing was done")]
    Declined,
}

impl Error {
    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.number())
    }

    /// The same as a number.
    pub fn number(&self) -> u8 {
        match self {
            Error::Failed(_) | Error::Rpc { .. } => 1,
            Error::Usage(_) => 2,
            Error::Funds(_) => 3,
            Error::Node(_) => 4,
            Error::Declined => 5,
        }
    }
}

/// A failure without a code of its own.
pub fn failed(text: impl Into<String>) -> Error {
    Error::Failed(text.into())
}

/// A command line that does not say what is needed.
pub fn usage(text: impl Into<String>) -> Error {
    Error::Usage(text.into())
}

/// Says what was being done when something failed.
pub trait Doing<T> {
    /// `what` completes "cannot".
    fn doing(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl Display) -> Result<T> {
        self.map_err(|error| {
            let text = error.to_string();
            // In the words of the system, and in those of SQLite.
            if text.contains("No space left on device") || text.contains("disk is full") {
                return failed(format!("cannot {what}: the disk is full; make room and try again"));
            }
            // SQLite's words.
            if text.contains("malformed") {
                return failed(format!("cannot {what}: the file is damaged ({text}): {ANEW}"));
            }
            failed(format!("cannot {what}: {text}"))
        })
    }
}
