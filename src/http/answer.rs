//! The answers of the API: JSON, with each error as `{"error": "..."}`, and the checks that every
//! request has to pass before a route sees it.
//!
//! What must stay true: a request whose body, parameters or fields are not documented
//! (CONTRACT.md, section 3) gets an error and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use serde_json::{Map, Value};
use tokio::time::timeout;
use tokio_stream::StreamExt;

use crate::json;
use crate::node::{Handle, Hosted, Stopped};
use crate::proto::limits::Limit;

/// Bytes of a body at most: as long as a value or a message may be.
pub const MAX_BODY: usize = 1 << 20;
/// Bytes that are read of a body beyond its limit, and the time for that, before the error is sent.
const MAX_DRAINED: usize = 32 << 20;
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// The time that a client has to send the body of its request.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Counts what is dropped because of a limit.
pub type OverLimit = Arc<dyn Fn(Limit) + Send + Sync>;

/// Counts for a node what HTTP drops.
pub fn over_limits_of<M: Hosted>(node: &Handle<M>) -> OverLimit {
    let log = node.log().clone();
    Arc::new(move |limit| log.over_limit(limit, None))
}

/// An answer whose body is this JSON.
pub fn json_of(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// An answer 200 whose body is this JSON.
pub fn ok(body: &Value) -> Response {
    json_of(StatusCode::OK, body)
}

/// Says whether a node is ready, and why.
pub fn readiness(ready: bool, reason: &str, seeds_reachable: usize, of: usize) -> Response {
    let body = serde_json::json!({
        "ready": ready,
        "reason": reason,
        "seeds_reachable": seeds_reachable,
        "of": of,
    });
    if ready {
        return ok(&body);
    }
    let mut response = json_of(StatusCode::SERVICE_UNAVAILABLE, &body);
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}

/// An error: its status, and what to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    status: StatusCode,
    /// `error`, and the fields that go with it.
    body: Map<String, Value>,
}

impl Failure {
    pub fn new(status: StatusCode, what: impl Into<String>) -> Self {
        let error = Value::String(what.into());
        Self { status, body: [("error".to_owned(), error)].into_iter().collect() }
    }

    /// Adds a field, unless the body has one of that name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body.entry(name).or_insert(value.into());
        self
    }
}

/// The node behind the API has stopped.
impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = json_of(self.status, &Value::Object(self.body.clone()));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        // The failure goes along, so that an outer layer can add a field to it.
        response.extensions_mut().insert(self);
        response
    }
}

/// The result of a handler.
pub type Served = Result<Response, Failure>;

/// Answers for a path that does not exist.
pub async fn no_such_path() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "no such path")
}

/// Answers for a path that exists and does not take this method.
pub async fn wrong_method() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
}

/// Reads all of a request's body before anything else looks at the request. A body that is too long
/// or does not come in time ends the request here, whatever it asks.
pub async fn with_whole_body(
    State(over_limit): State<OverLimit>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let too_long = || {
        over_limit(Limit::Body);
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {MAX_BODY} bytes"))
    };
    let declared = parts.headers.get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > (MAX_BODY + MAX_DRAINED) as u64) {
        return too_long().into_response();
    }
    let mut body = body.into_data_stream();
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(part) = body.next().await {
            bytes.extend_from_slice(&part?);
            if bytes.len() > MAX_BODY {
                break;
            }
        }
        Ok::<_, axum::Error>(bytes.freeze())
    };
    match timeout(BODY_PATIENCE, read).await {
        Ok(Ok(bytes)) if bytes.len() <= MAX_BODY => {
            next.run(Request::from_parts(parts, Body::from(bytes))).await
        }
        Ok(Ok(_)) => {
            // Many clients look at the answer only when they have sent all of their body.
            let _ = timeout(DRAIN_PATIENCE, drain(&mut body)).await;
            too_long().into_response()
        }
        Ok(Err(_)) => {
            Failure::new(StatusCode::BAD_REQUEST, "the body ends too early").into_response()
        }
        Err(_) => {
            Failure::new(StatusCode::REQUEST_TIMEOUT, "the body did not come").into_response()
        }
    }
}

/// Reads what is left of a body, up to a bound.
async fn drain(body: &mut BodyDataStream) {
    let mut left = MAX_DRAINED;
    while let Some(Ok(part)) = body.next().await
        && let Some(less) = left.checked_sub(part.len())
    {
        left = less;
    }
}

/// Splits a request from its body, of which all has been read by [`with_whole_body`].
///
/// # Errors
///
/// If the body cannot be read after all.
pub async fn split_body(request: Request) -> Result<(Request, Bytes), Failure> {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, MAX_BODY).await;
    let bytes =
        bytes.map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "the body ends too early"))?;
    Ok((Request::from_parts(parts, Body::from(bytes.clone())), bytes))
}

/// Refuses parameters and bodies that a path does not take. An unknown name is most likely a
/// misspelt one; to ignore it would do something else than the client asked.
pub async fn as_documented(request: Request, next: Next) -> Response {
    match without_unknown(request).await {
        Ok(request) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

async fn without_unknown(request: Request) -> Result<Request, Failure> {
    let path = request.uri().path();
    let known: &[&str] = if path == "/topology" { &["format"] } else { &[] };
    let is_key = path.starts_with("/kvs/") && path != "/kvs/sync";
    let bad = |what| Failure::new(StatusCode::BAD_REQUEST, what);
    let Ok(Query(parameters)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
        return Err(bad("that is no query".to_owned()));
    };
    if let Some((name, _)) = parameters.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(bad(format!("unknown query parameter {name:?}")));
    }
    // Requests for a key have metadata in their body, which the handler checks; no other `GET`
    // takes one.
    if !matches!(*request.method(), Method::GET | Method::HEAD) || is_key {
        return Ok(request);
    }
    let (request, body) = split_body(request).await?;
    body_of(&body, &[])?;
    Ok(request)
}

/// The part of a path that is the handler's parameter.
///
/// # Errors
///
/// 400 if the text is not UTF-8 once its percent signs are resolved.
pub fn path_of(path: Result<Path<String>, PathRejection>) -> Result<String, Failure> {
    path.map(|Path(text)| text)
        .map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "the path is not UTF-8"))
}

/// A body as JSON; null if there is none.
///
/// # Errors
///
/// 400 if it is no JSON, would not come back as it was given, or has a field that is not in
/// `known`.
pub fn body_of(bytes: &Bytes, known: &[&str]) -> Result<Value, Failure> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let bad = |what| Failure::new(StatusCode::BAD_REQUEST, what);
    let body = json::exactly(bytes).map_err(|error| bad(format!("the body {error}")))?;
    let mut names = body.as_object().into_iter().flatten().map(|(name, _)| name);
    match names.find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(bad(format!("unknown field {name:?}"))),
        None => Ok(body),
    }
}
