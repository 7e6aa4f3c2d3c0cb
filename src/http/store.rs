//! The routes of the key-value store: they translate between JSON and the store of a peer.
//!
//! What must stay true: every error carries `causal-metadata`, because clients hand on with their
//! next request what they were given last.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::{Map, Value, json};

use super::answer::{Failure, Served, as_documented, body_of, json_of, ok, path_of, split_body};
use super::dump;
use crate::node::PeerHandle;
use crate::proto::event::Severity;
use crate::proto::kv::clock::{Clock, Seen, is_name};
use crate::proto::kv::replica::{KeyError, StoreError, check_key};
use crate::proto::kv::store::{MAX_KEY, Version};
use crate::proto::kv::value;
use crate::proto::peer::PeerMachine;

type KeyPath = Result<Path<String>, PathRejection>;

/// The field in which clients send and get metadata.
const METADATA: &str = "causal-metadata";
/// Headers that make a request conditional. They are not served.
const CONDITIONS: [HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

pub fn routes() -> Router<PeerHandle> {
    Router::new()
        .route("/kvs", get(keys))
        .route("/kvs/sync", get(whole).put(reserved).delete(reserved))
        .route("/kvs/{key}", put(write).get(read).delete(delete))
        .route("/replica/kvs/{key}", put(relayed_write).delete(relayed_delete))
        .route_layer(from_fn(as_documented))
        .route_layer(from_fn(unconditional))
        .route_layer(from_fn(with_metadata))
}

fn bad(what: impl Into<String>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, what)
}

/// Reads what a client says that it has seen.
async fn seen_of(peer: &PeerHandle, body: &Value) -> Result<Option<Seen>, Failure> {
    let metadata = match body {
        Value::Null => return Ok(None),
        Value::Object(body) => body.get(METADATA).cloned().unwrap_or_default(),
        _ => return Err(bad("the body has to be a JSON object")),
    };
    if metadata.is_null() {
        return Ok(None);
    }
    // The metadata may name a replica that this peer has not heard of: it may have written what the
    // client has just seen. Such a name is accepted, and the request waits for its writes as for
    // any others.
    let read = move |machine: &PeerMachine| {
        let store = machine.replica().store();
        Seen::from_json(&metadata, |name| is_name(name) || store.count(name) > 0)
    };
    let seen = peer.look(read).await?;
    seen.map_err(|error| bad(error.to_string()))
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::NotFound(_) => StatusCode::NOT_FOUND,
            StoreError::Unseen { .. } | StoreError::TooManySiblings => StatusCode::CONFLICT,
            StoreError::TooManyReplicas | StoreError::Full => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Key(_) => StatusCode::BAD_REQUEST,
            StoreError::Behind | StoreError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        };
        let failure = Failure::new(status, error.to_string());
        match error {
            StoreError::NotFound(seen) => failure.with(METADATA, seen.to_json()),
            StoreError::Unseen { versions, seen } => shown(&versions, &seen)
                .into_iter()
                .fold(failure, |failure, (name, value)| failure.with(&name, value)),
            _ => failure,
        }
    }
}

/// The versions of a key, and what a client has seen once it is shown them.
fn shown(versions: &[Version], seen: &Seen) -> Map<String, Value> {
    let values: Vec<Value> = versions.iter().map(|version| version.value.json()).collect();
    let mut shown = Map::new();
    shown.insert("value".to_owned(), values.first().cloned().unwrap_or_default());
    if values.len() > 1 {
        shown.insert("siblings".to_owned(), Value::Array(values));
    }
    shown.insert(METADATA.to_owned(), seen.to_json());
    shown
}

/// Adds `causal-metadata` to each error. If the error has nothing newer to say, it gets what the
/// client sent, because clients hand back what they were given last.
async fn with_metadata(request: Request, next: Next) -> Response {
    let (request, body) = match split_body(request).await {
        Ok(split) => split,
        Err(failure) => return failure.into_response(),
    };
    let mut response = next.run(request).await;
    let Some(failure) = response.extensions_mut().remove::<Failure>() else { return response };
    let body: Option<Value> = serde_json::from_slice(&body).ok();
    let brought = body.and_then(|mut body| Some(body.get_mut(METADATA)?.take()));
    failure.with(METADATA, brought.unwrap_or_default()).into_response()
}

/// Refuses conditional requests: to ignore the condition would do what the client wanted prevented.
async fn unconditional(request: Request, next: Next) -> Response {
    for condition in CONDITIONS {
        if request.headers().contains_key(&condition) {
            let what = format!("{condition} is not served; nothing was done");
            return Failure::new(StatusCode::NOT_IMPLEMENTED, what).into_response();
        }
    }
    next.run(request).await
}

/// The key of a write. Here only what no peer takes is refused; how long a key may be at this one,
/// its machine knows.
fn key_of(key: KeyPath) -> Result<String, Failure> {
    let key = path_of(key)?;
    check_key(&key, MAX_KEY).map_err(StoreError::from)?;
    Ok(key)
}

fn value_of(body: &Value) -> Result<value::Value, Failure> {
    match body.get("value") {
        None | Some(Value::Null) => Err(bad("PUT request does not specify a value")),
        Some(json) => value::Value::new(json).map_err(|error| bad(error.to_string())),
    }
}

async fn write(State(peer): State<PeerHandle>, key: KeyPath, body: Bytes) -> Served {
    let body = body_of(&body, &["value", METADATA])?;
    let value = value_of(&body)?;
    let key = key_of(key)?;
    let seen = seen_of(&peer, &body).await?;
    let written = peer.store().put(key, value, seen).await?;
    let (status, result) = match written.created {
        true => (StatusCode::CREATED, "created"),
        false => (StatusCode::OK, "replaced"),
    };
    Ok(json_of(status, &json!({ "result": result, METADATA: written.seen.to_json() })))
}

async fn read(State(peer): State<PeerHandle>, key: KeyPath, body: Bytes) -> Served {
    let seen = seen_of(&peer, &body_of(&body, &[METADATA])?).await?;
    let found = peer.store().get(path_of(key)?, seen).await?;
    let mut answer = shown(&found.versions, &found.seen);
    answer.insert("result".to_owned(), "found".into());
    Ok(ok(&Value::Object(answer)))
}

async fn delete(State(peer): State<PeerHandle>, key: KeyPath, body: Bytes) -> Served {
    let seen = seen_of(&peer, &body_of(&body, &[METADATA])?).await?;
    let seen = peer.store().delete(path_of(key)?, seen).await?;
    Ok(ok(&json!({ "result": "deleted", METADATA: seen.to_json() })))
}

/// Refuses to write the key `sync`: its path answers with the whole store, so nobody could read it.
async fn reserved() -> Failure {
    StoreError::from(KeyError::Reserved).into()
}

/// The clock of a write that another replica relays.
fn clock_of(body: &Value) -> Result<Clock, Failure> {
    // A replica of another make may have any name.
    match Seen::from_json(body.get(METADATA).unwrap_or(&Value::Null), |_| true) {
        Ok(Some(seen)) if !seen.clock.is_sane() => Err(bad("causal-metadata has no sane names")),
        Ok(Some(Seen { clock, extra, floor }))
            if extra.is_empty() && floor.is_empty() && !clock.is_empty() =>
        {
            Ok(clock)
        }
        Ok(_) => Err(bad("a relayed write carries its own clock as causal-metadata")),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Checks the hash of the value, if a relayed write names one.
fn check_cid(
    peer: &PeerHandle,
    key: &str,
    value: &value::Value,
    body: &Value,
) -> Result<(), Failure> {
    let cid = body.get("cid").unwrap_or(&Value::Null);
    if cid.is_null() || cid.as_str() == Some(&value.cid().to_string()) {
        return Ok(());
    }
    let reason = "the cid is not that of the value";
    let keys = vec![("key", key.to_owned()), ("reason", reason.to_owned())];
    peer.log().note(Severity::Warn, "write refused", keys);
    Err(bad(reason))
}

async fn relayed_write(State(peer): State<PeerHandle>, key: KeyPath, body: Bytes) -> Served {
    let body = body_of(&body, &["value", "cid", METADATA])?;
    let (value, key, clock) = (value_of(&body)?, key_of(key)?, clock_of(&body)?);
    check_cid(&peer, &key, &value, &body)?;
    peer.store().relay(key, Some(value), clock).await?;
    Ok(ok(&json!({ "result": "updated" })))
}

async fn relayed_delete(State(peer): State<PeerHandle>, key: KeyPath, body: Bytes) -> Served {
    let body = body_of(&body, &[METADATA])?;
    let (key, clock) = (key_of(key)?, clock_of(&body)?);
    peer.store().relay(key, None, clock).await?;
    Ok(ok(&json!({ "result": "deleted" })))
}

async fn keys(State(peer): State<PeerHandle>) -> Served {
    let keys = peer.store().keys().await?;
    Ok(ok(&json!({ "keys": keys })))
}

async fn whole(State(peer): State<PeerHandle>) -> Served {
    let snapshot = peer
        .look(|machine| machine.replica().store().snapshot_without_seals(&Clock::new()))
        .await?;
    Ok(dump::answer(snapshot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_error_of_the_store_has_the_words_and_the_status_of_the_contract() {
        let contract = include_str!("../../docs/CONTRACT.md");
        let seen = Seen::default;
        let errors = [
            (StoreError::NotFound(seen()), 404),
            (StoreError::Unseen { versions: Vec::new(), seen: seen() }, 409),
            (StoreError::TooManySiblings, 409),
            (StoreError::TooManyReplicas, 507),
            (StoreError::Full, 507),
            (StoreError::Behind, 503),
            (KeyError::TooLong.into(), 400),
            (KeyError::Reserved.into(), 400),
            (StoreError::Stopped, 503),
        ];
        for (error, status) in errors {
            let row = format!("| {status} | `{error}` |");
            assert!(contract.contains(&row), "CONTRACT.md has no row {row}");
            let response = Failure::from(error).into_response();
            assert_eq!(response.status().as_u16(), status, "{row}");
        }
    }
}
