//! The key-value store over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, Failure, body_of, json_of, ok, path_of};
use super::dump;
use crate::logging;
use crate::node::PeerHandle;
use crate::proto::event::{Event, Severity};
use crate::proto::kv::clock::{Clock, MetadataError, Seen};
use crate::proto::kv::replica::{Reply, Request};
use crate::proto::kv::store::{MAX_KEY, Version};
use crate::proto::kv::value;
use crate::proto::message::{Addr, Role};
use crate::proto::peer::PeerMachine;

type KeyPath = Result<Path<String>, PathRejection>;

/// The name under which clients send and get metadata.
const METADATA: &str = "causal-metadata";

pub fn routes() -> Router<PeerHandle> {
    Router::new()
        .route("/kvs", get(keys))
        // What is read there is the whole store; written, it is a key like any other.
        .route("/kvs/sync", get(whole).put(write_sync).delete(delete_sync))
        .route("/kvs/{key}", put(write).get(read).delete(delete))
        .route("/replica/kvs/{key}", put(relayed_write).delete(relayed_delete))
}

fn bad(what: impl Into<String>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, what)
}

/// What a client says that it has seen.
async fn seen_of(peer: &PeerHandle, body: &Value) -> Result<Option<Seen>, Failure> {
    let metadata = match body {
        Value::Null => return Ok(None),
        Value::Object(body) => body.get(METADATA).cloned().unwrap_or_default(),
        _ => return Err(bad("the body has to be a JSON object")),
    };
    if metadata.is_null() {
        return Ok(None);
    }
    let read = async || {
        let metadata = metadata.clone();
        let read = move |machine: &PeerMachine| {
            let seen = Seen::from_json(&metadata, |name| is_replica(machine, name));
            (seen, machine.causal_wait())
        };
        peer.look(read).await.map_err(|_| Failure::stopped())
    };
    // The usual case, without listening for anything.
    let (mut seen, wait) = read().await?;
    if is_perhaps_new(&seen) {
        let mut events = peer.member_events().await.map_err(|_| Failure::stopped())?;
        let deadline = Instant::now() + wait;
        loop {
            (seen, _) = read().await?;
            if !is_perhaps_new(&seen) || timeout_at(deadline, events.next()).await.is_err() {
                break;
            }
        }
    }
    seen.map_err(|error| bad(error.to_string()))
}

/// Whether metadata names somebody who may have joined a moment ago: a client may be faster than the
/// news of a replica that it has just written to.
fn is_perhaps_new(seen: &Result<Option<Seen>, MetadataError>) -> bool {
    matches!(seen, Err(MetadataError::UnknownReplica(name)) if address_of(name).is_some())
}

/// The address in the name of a replica.
fn address_of(name: &str) -> Option<Addr> {
    let (address, life) = name.rsplit_once('@')?;
    let life = life.split_once('#').map_or(life, |(life, _)| life);
    life.parse::<u64>().ok().and_then(|_| address.parse().ok())
}

/// Whether a name is one of a replica: it wrote something that is here, or its address is one of a
/// peer that the seeds know, whose writes may still be on their way.
fn is_replica(machine: &PeerMachine, name: &str) -> bool {
    machine.replica().store().context().get(name) > 0
        || address_of(name).is_some_and(|address| machine.members().get(&address).is_some())
}

async fn ask(peer: &PeerHandle, request: Request, seen: Option<Seen>) -> Result<Reply, Failure> {
    match peer.store(request, seen).await.map_err(|_| Failure::stopped())? {
        Reply::Behind => Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Causal dependencies not satisfied; try again later",
        )),
        Reply::NotFound(seen) => {
            let failure = Failure::new(StatusCode::NOT_FOUND, "Key does not exist");
            Err(failure.with(METADATA, seen.to_json()))
        }
        Reply::Unseen { versions, seen } => {
            let what = "Key has values that this client has not seen";
            let failure = Failure::new(StatusCode::CONFLICT, what);
            let shown = shown(&versions, &seen);
            Err(shown.into_iter().fold(failure, |failure, (name, value)| failure.with(&name, value)))
        }
        Reply::TooManySiblings => Err(Failure::new(
            StatusCode::CONFLICT,
            "too many values stand beside each other; read the key, and write with what that gives you",
        )),
        Reply::TooManyReplicas => Err(bad("causal-metadata names too many replicas")),
        reply => Ok(reply),
    }
}

/// The versions of a key, and what a client that is shown them has seen.
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

/// An answer that has `causal-metadata` whatever comes of it: if there is nothing newer to say, what
/// the client brought, as a client hands back what it was last given.
async fn with_metadata(body: Bytes, answer: impl Future<Output = Answer>) -> Answer {
    answer.await.map_err(|failure| {
        let brought = body_of(&body).ok().and_then(|mut body| Some(body.get_mut(METADATA)?.take()));
        failure.with(METADATA, brought.unwrap_or_default())
    })
}

fn key_of(key: KeyPath) -> Result<Arc<str>, Failure> {
    let key = path_of(key)?;
    if key.chars().count() > MAX_KEY { Err(bad("Key is too long")) } else { Ok(key.into()) }
}

fn value_of(body: &Value) -> Result<value::Value, Failure> {
    match body.get("value") {
        None | Some(Value::Null) => Err(bad("PUT request does not specify a value")),
        Some(json) => value::Value::new(json).map_err(|error| bad(error.to_string())),
    }
}

async fn write(State(peer): State<PeerHandle>, key: KeyPath, body: Bytes) -> Answer {
    with_metadata(body.clone(), write_to(peer, key, body)).await
}

async fn write_to(peer: PeerHandle, key: KeyPath, body: Bytes) -> Answer {
    let body = body_of(&body)?;
    let value = value_of(&body)?;
    let key = key_of(key)?;
    let seen = seen_of(&peer, &body).await?;
    match ask(&peer, Request::Put(key, value), seen).await? {
        Reply::Put { created, seen } => {
            let (status, result) = match created {
                true => (StatusCode::CREATED, "created"),
                false => (StatusCode::OK, "replaced"),
            };
            Ok(json_of(status, &json!({ "result": result, METADATA: seen.to_json() })))
        }
        _ => Err(Failure::stopped()),
    }
}

async fn read(State(peer): State<PeerHandle>, key: KeyPath, body: Bytes) -> Answer {
    with_metadata(body.clone(), read_from(peer, key, body)).await
}

async fn read_from(peer: PeerHandle, key: KeyPath, body: Bytes) -> Answer {
    let seen = seen_of(&peer, &body_of(&body)?).await?;
    match ask(&peer, Request::Get(path_of(key)?.into()), seen).await? {
        Reply::Got { versions, seen } => {
            let mut answer = shown(&versions, &seen);
            answer.insert("result".to_owned(), "found".into());
            Ok(ok(&Value::Object(answer)))
        }
        _ => Err(Failure::stopped()),
    }
}

async fn delete(State(peer): State<PeerHandle>, key: KeyPath, body: Bytes) -> Answer {
    with_metadata(body.clone(), delete_from(peer, key, body)).await
}

async fn delete_from(peer: PeerHandle, key: KeyPath, body: Bytes) -> Answer {
    let seen = seen_of(&peer, &body_of(&body)?).await?;
    match ask(&peer, Request::Delete(path_of(key)?.into()), seen).await? {
        Reply::Deleted(seen) => Ok(ok(&json!({ "result": "deleted", METADATA: seen.to_json() }))),
        _ => Err(Failure::stopped()),
    }
}

fn key_sync() -> KeyPath {
    Ok(Path("sync".to_owned()))
}

async fn write_sync(peer: State<PeerHandle>, body: Bytes) -> Answer {
    write(peer, key_sync(), body).await
}

async fn delete_sync(peer: State<PeerHandle>, body: Bytes) -> Answer {
    delete(peer, key_sync(), body).await
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

/// A relayed write may say what its value hashes to, and then that has to be so.
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
    let event = Event::Note { severity: Severity::Warn, what: "write refused", keys };
    logging::event(Role::Peer, peer.address(), &event);
    Err(bad(reason))
}

async fn relayed_write(State(peer): State<PeerHandle>, key: KeyPath, body: Bytes) -> Answer {
    with_metadata(body.clone(), take_write(peer, key, body)).await
}

async fn take_write(peer: PeerHandle, key: KeyPath, body: Bytes) -> Answer {
    let body = body_of(&body)?;
    let (value, key, clock) = (value_of(&body)?, key_of(key)?, clock_of(&body)?);
    check_cid(&peer, &key, &value, &body)?;
    match ask(&peer, Request::Relayed(key, Some(value), clock), None).await? {
        Reply::Relayed => Ok(ok(&json!({ "result": "updated" }))),
        _ => Err(Failure::stopped()),
    }
}

async fn relayed_delete(State(peer): State<PeerHandle>, key: KeyPath, body: Bytes) -> Answer {
    with_metadata(body.clone(), take_delete(peer, key, body)).await
}

async fn take_delete(peer: PeerHandle, key: KeyPath, body: Bytes) -> Answer {
    let body = body_of(&body)?;
    let (key, clock) = (key_of(key)?, clock_of(&body)?);
    match ask(&peer, Request::Relayed(key, None, clock), None).await? {
        Reply::Relayed => Ok(ok(&json!({ "result": "deleted" }))),
        _ => Err(Failure::stopped()),
    }
}

async fn keys(State(peer): State<PeerHandle>) -> Answer {
    let keys: Vec<Arc<str>> = peer
        .look(|machine| machine.replica().store().keys().cloned().collect())
        .await
        .map_err(|_| Failure::stopped())?;
    Ok(ok(&json!({ "keys": keys })))
}

async fn whole(State(peer): State<PeerHandle>) -> Answer {
    let snapshot = peer
        .look(|machine| machine.replica().store().snapshot(&Clock::new()))
        .await
        .map_err(|_| Failure::stopped())?;
    Ok(dump::answer(snapshot))
}
