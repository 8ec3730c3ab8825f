//! The one HTTP route: who may call, how long a body may be, how many calls run at once. Knows no method.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tokio::sync::Semaphore;

use super::Rpc;
use super::auth::is_from_elsewhere;
use super::request::{self, Reply};
use super::template::{MAX_LONG_POLLS, wait_for_other};
use super::wait::wait_for_tip;

/// Calls that run at once. Core: `DEFAULT_HTTP_THREADS`.
pub const THREADS: usize = 16;
/// Calls that may wait for a thread. Core: `DEFAULT_HTTP_WORKQUEUE`.
const WORK_QUEUE: usize = 64;
/// Bytes of a body. Core: `MAX_SIZE`.
const MAX_BODY: usize = 0x0200_0000;
/// Time a body may take to arrive. Core: `DEFAULT_HTTP_SERVER_TIMEOUT`.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait before bad credentials are answered, so that guessing takes long.
const BAD_CREDENTIALS_DELAY: Duration = Duration::from_millis(250);

/// The server's state.
struct Http {
    rpc: Arc<Rpc>,
    threads: Semaphore,
    /// Calls that run or wait.
    calls: AtomicUsize,
    /// Calls that may wait for another block or template. They take no thread from others, nor a place.
    long_polls: Semaphore,
}

/// Everything that the server answers to.
pub fn routes(rpc: Arc<Rpc>) -> Router {
    let (threads, long_polls) = (Semaphore::new(THREADS), Semaphore::new(MAX_LONG_POLLS));
    let http = Arc::new(Http { rpc, threads, calls: AtomicUsize::new(0), long_polls });
    Router::new().fallback(answer).with_state(http)
}

async fn answer(State(http): State<Arc<Http>>, request: Request) -> Response<Body> {
    if is_from_elsewhere(request.headers()) {
        return plain(StatusCode::FORBIDDEN, "RPC is for programs of this machine: Host or Origin names another");
    }
    if request.uri().path() != "/" {
        return plain(StatusCode::NOT_FOUND, "");
    }
    if request.method() != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "JSONRPC server handles only POST requests");
    }
    if !http.rpc.cookie.allows(request.headers()) {
        if request.headers().contains_key(axum::http::header::AUTHORIZATION) {
            tokio::time::sleep(BAD_CREDENTIALS_DELAY).await;
        }
        let mut refusal = plain(StatusCode::UNAUTHORIZED, "");
        refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"jsonrpc\""));
        return refusal;
    }
    if is_form(request.headers()) {
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a call is JSON: send Content-Type: application/json");
    }
    let Some(place) = Place::take(&http.calls) else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "Work queue depth exceeded");
    };
    if length(request.headers()).is_some_and(|length| length > MAX_BODY) {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "");
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), MAX_BODY)).await {
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, ""),
        Ok(Err(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE, ""),
        Ok(Ok(body)) => body,
    };
    drop(place);
    if let Ok(_waiting) = http.long_polls.try_acquire() {
        wait_for_other(&http.rpc, &body).await;
        wait_for_tip(&http.rpc, &body).await;
    }
    let Some(_place) = Place::take(&http.calls) else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "Work queue depth exceeded");
    };
    let _thread = http.threads.acquire().await.expect("the semaphore is never closed");
    let rpc = http.rpc.clone();
    match tokio::task::spawn_blocking(move || request::answer(&rpc, &body)).await {
        Ok(Reply { status, body: None }) => plain(status, ""),
        Ok(Reply { status, body: Some(mut body) }) => {
            body.push('\n');
            let mut reply = plain(status, body);
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            reply
        }
        // A method panicked, and said so on standard error.
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, ""),
    }
}

/// A place among the calls that run or wait; given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Place<'_> {
    fn take(calls: &AtomicUsize) -> Option<Place<'_>> {
        let place = Place(calls);
        (calls.fetch_add(1, Ordering::Relaxed) < THREADS + WORK_QUEUE).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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

fn plain(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}
