//! Networks.

/// The rules' parameters of one network.
#[derive(Clone, Debug)]
pub struct Params {}
