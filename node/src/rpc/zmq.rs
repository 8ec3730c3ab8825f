//! What is published by ZeroMQ.

use serde::Serialize;

use super::Rpc;
use super::args::Args;
use super::method::{Answer, Method, answer};
use crate::zmq::Notification;

pub const METHODS: &[Method] = &[Method {
    name: "getzmqnotifications",
    group: "Zmq",
    args: &[],
    about: "What is published by ZeroMQ, and where.",
    run: getzmqnotifications,
}];

fn getzmqnotifications(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct Shown<'a> {
        r#type: String,
        address: &'a str,
        hwm: i64,
    }
    let shown = rpc.config.zmq.iter().map(|Notification { topic, address, most }| Shown {
        r#type: format!("pub{}", topic.name()),
        address,
        hwm: *most,
    });
    answer(shown.collect::<Vec<_>>())
}
