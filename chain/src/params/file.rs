//! A network of one's own from a TOML file: `docs/NETWORKS.md`.

/// What is wrong with a parameter: one sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParamsError(pub String);
