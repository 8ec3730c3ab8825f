//! JSON-RPC 1.0, 1.1 and 2.0: what a request is, what a reply looks like, batches and notifications. Knows no method.
//!
//! Without the marker `"jsonrpc": "2.0"` a reply has both `result` and `error`, and an error also shows in the HTTP
//! status; with it, a reply has one of them, the status is 200, and a request without `id` gets none.

use std::panic::AssertUnwindSafe;

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Rpc;
use super::error::*;
use super::method;

/// What goes back over HTTP.
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// JSON; none for notifications.
    pub body: Option<String>,
}

/// Answers the body of a POST.
pub fn answer(rpc: &Rpc, body: &[u8]) -> Reply {
    match serde_json::from_slice(body) {
        Ok(Value::Array(batch)) => answer_batch(rpc, batch),
        Ok(request @ Value::Object(_)) => answer_one(rpc, request),
        Ok(_) => failure(RpcError::new(RPC_PARSE_ERROR, "Top-level object parse error")),
        Err(_) => failure(RpcError::new(RPC_PARSE_ERROR, "Parse error")),
    }
}

/// A body in which no request was found.
fn failure(error: RpcError) -> Reply {
    let body = Envelope::malformed(Version::Old, Some(Value::Null), error).to_json();
    Reply { status: StatusCode::INTERNAL_SERVER_ERROR, body: Some(body) }
}

fn answer_one(rpc: &Rpc, request: Value) -> Reply {
    let envelope = Envelope::fill(rpc, request);
    let status = match (&envelope.outcome, envelope.version) {
        // Core finds these out before it knows that nobody wants to hear of them.
        _ if envelope.malformed => StatusCode::BAD_REQUEST,
        _ if envelope.is_silent() => return Reply { status: StatusCode::NO_CONTENT, body: None },
        (Ok(_), _) | (_, Version::Two) => StatusCode::OK,
        (Err(error), Version::Old) => match error.code {
            RPC_METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    };
    Reply { status, body: Some(envelope.to_json()) }
}

fn answer_batch(rpc: &Rpc, batch: Vec<Value>) -> Reply {
    let empty = batch.is_empty();
    let answers = batch.into_iter().map(|request| Envelope::fill(rpc, request));
    let answers: Vec<String> = answers.filter(|answer| !answer.is_silent()).map(|answer| answer.to_json()).collect();
    if answers.is_empty() && !empty {
        return Reply { status: StatusCode::NO_CONTENT, body: None };
    }
    Reply { status: StatusCode::OK, body: Some(format!("[{}]", answers.join(","))) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// 1.0 and 1.1.
    Old,
    Two,
}

/// A request's outcome with what a reply needs to say it.
struct Envelope {
    version: Version,
    /// None if the request had none.
    id: Option<Value>,
    /// It was no request at all.
    malformed: bool,
    outcome: Result<Box<RawValue>, RpcError>,
}

impl Envelope {
    /// Carries a request out.
    fn fill(rpc: &Rpc, request: Value) -> Envelope {
        let refuse =
            |version, id, text: &str| Envelope::malformed(version, id, RpcError::new(RPC_INVALID_REQUEST, text));
        let Value::Object(mut request) = request else {
            return refuse(Version::Old, Some(Value::Null), "Invalid Request object");
        };
        let id = request.remove("id");
        let version = match request.get("jsonrpc") {
            None | Some(Value::Null) => Version::Old,
            Some(Value::String(version)) => match version.as_str() {
                "1.0" | "1.1" => Version::Old,
                "2.0" => Version::Two,
                _ => return refuse(Version::Old, id, "JSON-RPC version not supported"),
            },
            Some(_) => return refuse(Version::Old, id, "jsonrpc field must be a string"),
        };
        let method = match request.remove("method") {
            None | Some(Value::Null) => return refuse(version, id, "Missing method"),
            Some(Value::String(method)) => method,
            Some(_) => return refuse(version, id, "Method must be a string"),
        };
        let params = match request.remove("params") {
            None | Some(Value::Null) => Value::Array(Vec::new()),
            Some(params @ (Value::Array(_) | Value::Object(_))) => params,
            Some(_) => return refuse(version, id, "Params must be an array or object"),
        };
        // A bug in one method is that call's error and does not end the batch.
        let call = AssertUnwindSafe(|| method::call(rpc, &method, params));
        let outcome = std::panic::catch_unwind(call)
            .unwrap_or_else(|_| Err(RpcError::new(RPC_INTERNAL_ERROR, format!("{method} failed: a bug in Groat"))));
        Envelope { version, id, malformed: false, outcome }
    }

    fn malformed(version: Version, id: Option<Value>, error: RpcError) -> Envelope {
        Envelope { version, id, malformed: true, outcome: Err(error) }
    }

    /// A notification: it is carried out and not answered. Requests of old versions always are.
    fn is_silent(&self) -> bool {
        self.version == Version::Two && self.id.is_none()
    }

    fn to_json(&self) -> String {
        let (result, error) = match &self.outcome {
            Ok(result) => (Some(&**result), None),
            Err(error) => (None, Some(error)),
        };
        let text = match self.version {
            Version::Old => serde_json::to_string(&OldReply { result, error, id: self.id.as_ref() }),
            Version::Two => serde_json::to_string(&Reply2 { jsonrpc: "2.0", result, error, id: self.id.as_ref() }),
        };
        text.expect("a reply is JSON")
    }
}

#[derive(Serialize)]
struct OldReply<'a> {
    result: Option<&'a RawValue>,
    error: Option<&'a RpcError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
}

#[derive(Serialize)]
struct Reply2<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RpcError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
}
