//! What comes over HTTP: which path it is for, who may call, how long a body may be, how many calls run at once. Knows no
//! method.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::auth::is_from_elsewhere;
use super::listen::{Bounds, Doors, closes, serve};
use super::template::{MAX_LONG_POLLS, wait_for_other};
use super::turns::Turns;
use super::wait::wait_for_tip;
use super::{Rpc, STOP_GRACE, request, rest};
use crate::config;

/// Calls that run at once. Core: `DEFAULT_HTTP_THREADS`.
const DEFAULT_HTTP_THREADS: i64 = 16;
/// Calls that may wait for a thread. Core: `DEFAULT_HTTP_WORKQUEUE`.
const DEFAULT_HTTP_WORKQUEUE: i64 = 64;
/// Bytes of a body. Core: `MAX_BODY_SIZE`.
const MAX_BODY: usize = 0x0200_0000;
/// Bytes of a body that comes without a password: far more than `getutxos` takes.
const MAX_REST_BODY: usize = 64 << 10;
/// Bytes of a call that may wait for a block: many may, and each stays in memory.
const MAX_WAITING_BODY: usize = 64 << 10;
/// Wait before bad credentials are answered, so that guessing takes long.
const BAD_CREDENTIALS_DELAY: Duration = Duration::from_millis(250);

/// What goes back.
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// Type of the body, if there is one.
    pub kind: Option<&'static str>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// JSON, without the line's end.
    pub fn json(status: StatusCode, mut json: String) -> Reply {
        json.push('\n');
        Reply { status, kind: Some("application/json"), body: json.into() }
    }

    /// No body.
    pub fn bare(status: StatusCode) -> Reply {
        Reply { status, kind: None, body: Bytes::new() }
    }

    /// A sentence.
    pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Reply {
        Reply { status, kind: Some("text/plain"), body: text.into() }
    }
}

impl From<Reply> for Response<Full<Bytes>> {
    fn from(reply: Reply) -> Self {
        let mut response = Response::new(Full::new(reply.body));
        *response.status_mut() = reply.status;
        if let Some(kind) = reply.kind {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        response
    }
}

/// The server's state.
pub struct Http {
    rpc: Arc<Rpc>,
    doors: Doors,
    turns: Turns,
    /// Calls that may wait for another block or template. They take no thread from others, nor a place.
    long_polls: Semaphore,
    bounds: Bounds,
}

/// Calls that may run at once. Core: `-rpcthreads`.
pub fn threads(options: &config::Http) -> usize {
    at_least_one(options.rpcthreads, DEFAULT_HTTP_THREADS)
}

fn at_least_one(wanted: Option<i64>, default: i64) -> usize {
    /// Threads and places: more is a slip of the hand.
    const MOST: i64 = 10_000;
    usize::try_from(wanted.unwrap_or(default).clamp(1, MOST)).expect("it is between 1 and 10,000")
}

impl Http {
    /// Answers those whom the doors let in.
    pub fn new(rpc: Arc<Rpc>, doors: Doors) -> Http {
        let options = &rpc.config.http;
        let waiting = at_least_one(options.rpcworkqueue, DEFAULT_HTTP_WORKQUEUE);
        Http {
            turns: Turns::new(threads(options), waiting),
            long_polls: Semaphore::new(MAX_LONG_POLLS),
            bounds: Bounds::new(options),
            rpc,
            doors,
        }
    }

    /// Answers until `ended` is true, and then what is under way.
    pub async fn serve(self: Arc<Self>, mut ended: watch::Receiver<bool>) {
        let mut servers = JoinSet::new();
        for listener in &self.doors.listeners {
            let (http, doors) = (self.clone(), self.clone());
            let answer = move |from, request| http.clone().answer(from, request);
            let lets_in = move |from| doors.doors.lets_in(from);
            match listener.try_clone() {
                Ok(listener) => drop(servers.spawn(serve(listener, self.bounds, ended.clone(), lets_in, answer))),
                Err(error) => warn!("JSON-RPC cannot listen: {error}"),
            }
        }
        closes(&mut ended).await;
        // Calls under way end; links that say nothing do not hold the node up.
        let _ = tokio::time::timeout(STOP_GRACE, servers.join_all()).await;
    }

    /// Answers one request.
    async fn answer(self: Arc<Self>, from: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if !self.doors.lets_in(from) {
            debug!(target: "http", "a call from {from} is refused: its address is not allowed");
            return Reply::bare(StatusCode::FORBIDDEN).into();
        }
        if is_from_elsewhere(request.headers(), self.doors.is_open) {
            let text = "RPC is for programs of this machine: Host or Origin names another";
            return Reply::plain(StatusCode::FORBIDDEN, text).into();
        }
        if ![Method::GET, Method::POST, Method::HEAD, Method::PUT].contains(request.method()) {
            return Reply::bare(StatusCode::METHOD_NOT_ALLOWED).into();
        }
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        if target == "/" {
            return self.call(from, request).await;
        }
        match self.rpc.config.http.rest.then(|| rest::route(target)).flatten() {
            Some(route) => self.rest(route, request).await.into(),
            None => Reply::bare(StatusCode::NOT_FOUND).into(),
        }
    }

    /// A call of JSON-RPC.
    async fn call(self: Arc<Self>, from: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::POST {
            let text = "JSONRPC server handles only POST requests";
            return Reply::plain(StatusCode::METHOD_NOT_ALLOWED, text).into();
        }
        let Some(user) = self.rpc.users.caller(request.headers()) else {
            if request.headers().contains_key(AUTHORIZATION) {
                warn!("incorrect password attempt from {from}");
                tokio::time::sleep(BAD_CREDENTIALS_DELAY).await;
            }
            let mut refusal: Response<_> = Reply::bare(StatusCode::UNAUTHORIZED).into();
            refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"jsonrpc\""));
            return refusal;
        };
        if is_form(request.headers()) {
            let text = "a call is JSON: send Content-Type: application/json";
            return Reply::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into();
        }
        let body = match self.body(request, MAX_BODY).await {
            Ok(body) => body,
            Err(refusal) => return refusal.into(),
        };
        if body.len() <= MAX_WAITING_BODY
            && request::may_wait(&self.rpc, &user, &body)
            && let Ok(_waiting) = self.long_polls.try_acquire()
        {
            wait_for_other(&self.rpc, &body).await;
            wait_for_tip(&self.rpc, &body).await;
        }
        let rpc = self.rpc.clone();
        self.turns.run(move || request::answer(&rpc, &user, &body)).await.into()
    }

    /// A question of REST.
    async fn rest(self: Arc<Self>, route: rest::Route, request: Request<Incoming>) -> Reply {
        let body = match self.body(request, MAX_REST_BODY).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        let rpc = self.rpc.clone();
        self.turns.run(move || route.answer(&rpc, &body)).await
    }

    /// The body, within its bounds of size and time; it takes a place while it comes.
    async fn body(&self, request: Request<Incoming>, most: usize) -> Result<Bytes, Reply> {
        let _place = self.turns.place()?;
        if length(request.headers()).is_some_and(|length| length > most) {
            return Err(Reply::bare(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let body = Limited::new(request.into_body(), most).collect();
        let body = match self.bounds.patience {
            Some(patience) => tokio::time::timeout(patience, body).await,
            None => Ok(body.await),
        };
        match body {
            Err(_) => Err(Reply::bare(StatusCode::REQUEST_TIMEOUT)),
            Ok(Err(_)) => Err(Reply::bare(StatusCode::PAYLOAD_TOO_LARGE)),
            Ok(Ok(body)) => Ok(body.to_bytes()),
        }
    }
}

/// Whether a browser's form sent this: a form needs no permission to post to any address.
fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.starts_with("application/x-www-form-urlencoded") || kind.starts_with("multipart/form-data")
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
