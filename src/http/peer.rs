//! What a peer answers beside the store.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Value, json};

use super::answer::{Answer, Failure, body_of, json_of, ok, rfc3339};
use super::{events, metrics, store};
use crate::node::{EventLog, PeerHandle};
use crate::proto::peer::PeerMachine;

/// The routes of a peer.
pub fn routes(peer: PeerHandle, log: EventLog) -> Router {
    let view = get(view).put(refuse_view).delete(refuse_view);
    Router::new()
        .route("/health", get(async || "OK"))
        .route("/ready", get(ready))
        .route("/metrics", get(measure))
        .route("/members", get(members))
        .route("/gossip", get(messages).post(publish))
        .route("/view", view)
        .merge(store::routes())
        .with_state(peer)
        .merge(events::routes(log))
}

async fn look<T: Send + 'static>(
    peer: &PeerHandle,
    look: impl FnOnce(&PeerMachine) -> T + Send + 'static,
) -> Result<T, Failure> {
    peer.look(look).await.map_err(|_| Failure::stopped())
}

async fn ready(State(peer): State<PeerHandle>) -> Answer {
    if look(&peer, PeerMachine::is_registered).await? {
        return Ok("OK".into_response());
    }
    let what = "not registered with a quorum of seeds";
    Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, what))
}

async fn measure(State(peer): State<PeerHandle>) -> Answer {
    Ok(metrics::answer(&look(&peer, metrics::of_peer).await?))
}

async fn members(State(peer): State<PeerHandle>) -> Answer {
    let body = look(&peer, |machine| {
        let members: Vec<Value> = machine
            .members()
            .iter()
            .map(|(address, record)| {
                let mut member = super::seed::member_json(address, record);
                if machine.suspects(address) {
                    member["status"] = "suspect".into();
                }
                member
            })
            .collect();
        json!({ "members": members, "neighbours": machine.neighbours() })
    });
    Ok(ok(&body.await?))
}

async fn messages(State(peer): State<PeerHandle>) -> Answer {
    let body = look(&peer, |machine| {
        let list = machine.rumors().list();
        let messages: Vec<Value> = list
            .iter()
            .map(|(_, entry)| {
                json!({
                    "id": entry.id.to_string(),
                    "message": String::from_utf8_lossy(&entry.gossip.payload),
                    "origin": entry.gossip.origin,
                    "received": rfc3339(entry.received.micros()),
                })
            })
            .collect();
        json!({ "messages": messages })
    });
    Ok(ok(&body.await?))
}

async fn publish(State(peer): State<PeerHandle>, body: Result<Bytes, BytesRejection>) -> Answer {
    let body = body_of(body)?;
    let Some(payload) = body.get("payload").and_then(Value::as_str) else {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "payload has to be a text"));
    };
    match peer.publisher().publish(payload.to_owned()).await {
        Ok(id) => Ok(json_of(StatusCode::ACCEPTED, &json!({ "id": id.to_string() }))),
        Err(error) => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

async fn view(State(peer): State<PeerHandle>) -> Answer {
    let body = look(&peer, |machine| {
        let members = machine.members().members();
        json!({ "view": members.map(|(address, _)| address).collect::<Vec<_>>() })
    });
    Ok(ok(&body.await?))
}

async fn refuse_view() -> Failure {
    Failure::new(StatusCode::CONFLICT, "the seeds decide who is a member")
}
