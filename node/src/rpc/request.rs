//! JSON-RPC 1.0, 1.1 and 2.0: what a request is, what a reply looks like, batches and notifications. Knows no method.
//!
//! Without the marker `"jsonrpc": "2.0"` a reply has both `result` and `error`, and an error also shows in the HTTP
//! status; with it, a reply has one of them, the status is 200, and a request without `id` gets none.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;

use hyper::StatusCode;
use hyper::body::Bytes;
use serde::de::DeserializeSeed;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Rpc;
use super::args::wrong_type;
use super::error::*;
use super::http::Reply;
use super::method;
use super::params::Once;

/// Bytes of all answers to a batch: they lie in memory until the last one is there.
const MAX_BATCH_ANSWER: usize = 256 << 20;

/// Answers the body of a POST by this user.
pub fn answer(rpc: &Rpc, user: &str, body: &Bytes) -> Reply {
    let request = serde_json::from_slice::<&RawValue>(body).ok().filter(|request| !is_deep(request.get()));
    let Some(request) = request else {
        return failure(RpcError::new(RPC_PARSE_ERROR, "Parse error"));
    };
    if !rpc.users.may_call(user) {
        return Reply::bare(StatusCode::FORBIDDEN);
    }
    let allowed = rpc.users.list(user);
    match request.get().as_bytes().first() {
        Some(b'{') => answer_one(rpc, allowed, request),
        Some(b'[') => answer_batch(rpc, allowed, request),
        _ => failure(RpcError::new(RPC_PARSE_ERROR, "Top-level object parse error")),
    }
}

/// Whether the user may make this call, and so have the answer wait for a block. A batch is answered at once.
pub fn may_wait(rpc: &Rpc, user: &str, body: &[u8]) -> bool {
    let is_listed = |allowed: &HashSet<String>| {
        let method = serde_json::from_slice(body).ok().and_then(|request| method_of(request).ok());
        method.is_some_and(|method| allowed.contains(&method))
    };
    rpc.users.may_call(user) && rpc.users.list(user).is_none_or(is_listed)
}

/// Whether JSON is nested deeper than any call is, and deeper than can be read safely.
fn is_deep(json: &str) -> bool {
    /// What serde_json reads of a value. Core reads 512 (`MAX_JSON_DEPTH`).
    const MAX_DEPTH: u32 = 127;
    let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
    json.bytes().any(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
        depth > MAX_DEPTH
    })
}

/// A body in which no request was found.
fn failure(error: RpcError) -> Reply {
    let status = match error.code {
        RPC_INVALID_REQUEST => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Reply::json(status, Envelope::malformed(Version::Old, Some(Id::NULL), error).to_json())
}

fn answer_one(rpc: &Rpc, allowed: Option<&HashSet<String>>, request: &RawValue) -> Reply {
    let call = match Call::read(request) {
        Ok(call) => call,
        // Core finds these out before it knows that nobody wants to hear of them.
        Err(envelope) => return Reply::json(StatusCode::BAD_REQUEST, envelope.to_json()),
    };
    if allowed.is_some_and(|allowed| !allowed.contains(&call.method)) {
        return Reply::bare(StatusCode::FORBIDDEN);
    }
    let envelope = call.carry_out(rpc);
    let status = match (&envelope.outcome, envelope.version) {
        _ if envelope.is_silent() => return Reply::bare(StatusCode::NO_CONTENT),
        (Ok(_), _) | (_, Version::Two) => StatusCode::OK,
        (Err(error), Version::Old) => match error.code {
            RPC_METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
            RPC_INVALID_REQUEST => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    };
    Reply::json(status, envelope.to_json())
}

fn answer_batch(rpc: &Rpc, allowed: Option<&HashSet<String>>, batch: &RawValue) -> Reply {
    let Ok(batch) = serde_json::from_str::<Vec<&RawValue>>(batch.get()) else {
        return failure(RpcError::new(RPC_PARSE_ERROR, "Parse error"));
    };
    if let Some(allowed) = allowed {
        for request in &batch {
            match method_of(request) {
                Ok(method) if allowed.contains(&method) => {}
                Ok(_) => return Reply::bare(StatusCode::FORBIDDEN),
                Err(error) => return failure(error),
            }
        }
    }
    let mut answers = String::new();
    for request in &batch {
        let envelope = Call::read(request).map_or_else(|malformed| malformed, |call| call.carry_out(rpc));
        if !envelope.is_silent() {
            answers.push(if answers.is_empty() { '[' } else { ',' });
            envelope.write(&mut answers);
        }
        if answers.len() > MAX_BATCH_ANSWER {
            let most = MAX_BATCH_ANSWER >> 20;
            let text = format!("Batch broken off: its answers take more than {most} MiB, ask for less at a time");
            return failure(RpcError::new(RPC_MISC_ERROR, text));
        }
    }
    match (answers.is_empty(), batch.is_empty()) {
        (true, false) => Reply::bare(StatusCode::NO_CONTENT),
        (true, true) => Reply::json(StatusCode::OK, "[]".into()),
        (false, _) => Reply::json(StatusCode::OK, answers + "]"),
    }
}

/// The method that a request names, before anything else is looked at.
fn method_of(request: &RawValue) -> Result<String, RpcError> {
    let invalid = |()| RpcError::new(RPC_INVALID_REQUEST, "Invalid Request object");
    match Parts::read(request).map_err(invalid)?.method {
        Value::String(method) => Ok(method),
        other => Err(RpcError::new(RPC_PARSE_ERROR, wrong_type(&other, "string").message)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// 1.0 and 1.1.
    Old,
    Two,
}

/// What a request is told by: it goes back as it came.
struct Id(String);

impl Id {
    const NULL: Id = Id(String::new());

    fn new(raw: &RawValue) -> Id {
        let text = raw.get();
        let is_plain = !text.starts_with(['{', '[']);
        // Without the spaces between.
        let value = if is_plain { None } else { serde_json::from_str::<Value>(text).ok() };
        Id(value.map_or_else(|| text.to_owned(), |value| value.to_string()))
    }

    fn text(&self) -> &str {
        if self.0.is_empty() { "null" } else { &self.0 }
    }
}

/// A request's members as they came.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(default, borrow, deserialize_with = "even_null")]
    id: Option<&'a RawValue>,
    #[serde(default)]
    jsonrpc: Value,
    #[serde(default)]
    method: Value,
    #[serde(default, borrow)]
    params: Option<&'a RawValue>,
}

impl Parts<'_> {
    /// Only an object has members; serde would also take an array, member by member.
    fn read(request: &RawValue) -> Result<Parts<'_>, ()> {
        let text = request.get();
        if text.starts_with('{') { serde_json::from_str(text).map_err(drop) } else { Err(()) }
    }
}

/// Null is an id, and none is another thing.
fn even_null<'a, D: Deserializer<'a>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// A request that can be carried out.
struct Call {
    version: Version,
    id: Option<Id>,
    method: String,
    /// Or what is wrong with them.
    params: Result<Value, RpcError>,
}

impl Call {
    /// Reads a request; or gives the answer to what is none.
    fn read(request: &RawValue) -> Result<Call, Envelope> {
        let refuse =
            |version, id, text: &str| Envelope::malformed(version, id, RpcError::new(RPC_INVALID_REQUEST, text));
        let Ok(parts) = Parts::read(request) else {
            return Err(refuse(Version::Old, Some(Id::NULL), "Invalid Request object"));
        };
        let id = parts.id.map(Id::new);
        let version = match &parts.jsonrpc {
            Value::Null => Version::Old,
            Value::String(version) => match version.as_str() {
                "1.0" | "1.1" => Version::Old,
                "2.0" => Version::Two,
                _ => return Err(refuse(Version::Old, id, "JSON-RPC version not supported")),
            },
            _ => return Err(refuse(Version::Old, id, "jsonrpc field must be a string")),
        };
        let method = match parts.method {
            Value::Null => return Err(refuse(version, id, "Missing method")),
            Value::String(method) => method,
            _ => return Err(refuse(version, id, "Method must be a string")),
        };
        let mut twice = None;
        let params = parts.params.map_or(Ok(Value::Null), |params| {
            Once::new(&mut twice).deserialize(&mut serde_json::Deserializer::from_str(params.get()))
        });
        let params = match params {
            Ok(Value::Null) => Value::Array(Vec::new()),
            Ok(params @ (Value::Array(_) | Value::Object(_))) => params,
            Ok(_) => return Err(refuse(version, id, "Params must be an array or object")),
            Err(_) => return Err(refuse(version, id, "Params cannot be read")),
        };
        let params = twice.map_or(Ok(params), |text| Err(RpcError::new(RPC_INVALID_PARAMETER, text)));
        Ok(Call { version, id, method, params })
    }

    fn carry_out(self, rpc: &Rpc) -> Envelope {
        let Call { version, id, method, params } = self;
        // A bug in one method is that call's error and does not end the batch.
        let call = AssertUnwindSafe(|| method::call(rpc, &method, params?));
        let outcome = std::panic::catch_unwind(call)
            .unwrap_or_else(|_| Err(RpcError::new(RPC_INTERNAL_ERROR, format!("{method} failed: a bug in Groat"))));
        Envelope { version, id, outcome }
    }
}

/// A request's outcome with what a reply needs to say it.
struct Envelope {
    version: Version,
    /// None if the request had none.
    id: Option<Id>,
    outcome: Result<Box<RawValue>, RpcError>,
}

impl Envelope {
    fn malformed(version: Version, id: Option<Id>, error: RpcError) -> Envelope {
        Envelope { version, id, outcome: Err(error) }
    }

    /// A notification: it is carried out and not answered. Requests of old versions always are.
    fn is_silent(&self) -> bool {
        self.version == Version::Two && self.id.is_none()
    }

    fn to_json(&self) -> String {
        let mut json = String::new();
        self.write(&mut json);
        json
    }

    fn write(&self, to: &mut String) {
        let error = self.outcome.as_ref().err().map(|error| serde_json::to_string(error).expect("an error is JSON"));
        let error = error.unwrap_or_default();
        let id = self.id.as_ref().map_or(String::new(), |id| format!(",\"id\":{}", id.text()));
        let parts = match (&self.outcome, self.version) {
            (Ok(result), Version::Old) => ["{\"result\":", result.get(), ",\"error\":null", &id],
            (Ok(result), Version::Two) => ["{\"jsonrpc\":\"2.0\",\"result\":", result.get(), "", &id],
            (Err(_), Version::Old) => ["{\"result\":null,\"error\":", &error, "", &id],
            (Err(_), Version::Two) => ["{\"jsonrpc\":\"2.0\",\"error\":", &error, "", &id],
        };
        // With room for the end and for a line's end after it: a whole block must not move for them.
        to.reserve(parts.iter().map(|part| part.len()).sum::<usize>() + 2);
        parts.iter().for_each(|part| to.push_str(part));
        to.push('}');
    }
}
