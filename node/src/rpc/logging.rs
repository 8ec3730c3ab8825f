//! The method that chooses what is logged. Core: `src/rpc/node.cpp`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Rpc;
use super::args::{Arg, Args, Kind, text};
use super::error::{RPC_INVALID_PARAMETER, RpcError};
use super::method::{Answer, Method, answer};
use crate::log;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[Method {
    name: "logging",
    group: "control",
    args: &[
        Arg::optional(
            "include",
            Kind::Array("\"include_category\""),
            "Topics to tell of from now on; \"all\" for all.",
        ),
        Arg::optional("exclude", Kind::Array("\"exclude_category\""), "Topics to tell of no more; they win."),
    ],
    about: "Chooses what the log tells of, and tells which topics it tells of now.",
    run: logging,
}];

fn logging(_: &Rpc, args: &Args) -> Answer {
    for (at, wanted) in [(0, true), (1, false)] {
        for topic in args.get(at).as_array().unwrap_or(&Vec::<Value>::new()) {
            log::want(text(topic)?, wanted).map_err(|error| RpcError::new(RPC_INVALID_PARAMETER, error.to_string()))?;
        }
    }
    answer(log::TOPICS.iter().map(|topic| (*topic, log::is_wanted(topic))).collect::<BTreeMap<_, _>>())
}
