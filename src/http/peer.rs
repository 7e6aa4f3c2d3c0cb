//! The routes of a peer, beside those of the store. Each handler looks at the machine or hands it
//! an order, and turns the result into JSON.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::get;
use serde_json::{Value, json};

use super::answer::{
    Failure, Served, as_documented, body_of, json_of, ok, over_limits_of, readiness,
};
use super::{events, metrics, store};
use crate::json;
use crate::node::{EventLog, PeerHandle};
use crate::proto::message::Addr;
use crate::proto::order::{Order, Outcome};
use crate::proto::peer::PeerMachine;
use crate::views;

/// All routes of a peer, with those of the store and of the log.
pub fn routes(peer: PeerHandle, log: EventLog) -> Router {
    let over_limit = over_limits_of(&peer);
    let view = get(view).put(admit).delete(remove);
    Router::new()
        .route("/health", get(async || "OK"))
        .route("/ready", get(ready))
        .route("/metrics", get(measure))
        .route("/members", get(members))
        .route("/gossip", get(messages).post(publish))
        .route("/view", view)
        .route_layer(from_fn(as_documented))
        .merge(store::routes())
        .with_state(peer)
        .merge(events::routes(log, over_limit))
}

async fn ready(State(peer): State<PeerHandle>) -> Served {
    let state = peer.look(PeerMachine::readiness).await?;
    Ok(readiness(state.ready, &state.reason, state.seeds_reachable, state.of))
}

async fn measure(State(peer): State<PeerHandle>) -> Served {
    Ok(metrics::answer(&peer.look(metrics::of_peer).await?, &peer.log().dropped()))
}

async fn members(State(peer): State<PeerHandle>) -> Served {
    let members = peer.look(views::members).await?;
    let neighbours = members.iter().filter(|member| member.neighbour).map(|member| member.address);
    let neighbours: Vec<Addr> = neighbours.collect();
    let members: Vec<Value> = members.iter().map(json::member).collect();
    Ok(ok(&json!({ "members": members, "neighbours": neighbours })))
}

async fn messages(State(peer): State<PeerHandle>) -> Served {
    let messages = peer.look(|machine| views::messages(machine, usize::MAX)).await?;
    let messages: Vec<Value> = messages.iter().map(json::message).collect();
    Ok(ok(&json!({ "messages": messages })))
}

async fn publish(State(peer): State<PeerHandle>, body: Bytes) -> Served {
    let body = body_of(&body, &["payload"])?;
    let Some(payload) = body.get("payload").and_then(Value::as_str) else {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "payload has to be a text"));
    };
    match peer.publisher().publish(payload.to_owned()).await {
        Ok(id) => Ok(json_of(StatusCode::ACCEPTED, &json!({ "id": id.to_string() }))),
        Err(error) => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

async fn view(State(peer): State<PeerHandle>) -> Served {
    let view: Vec<Addr> = peer
        .look(|machine| machine.members().members().map(|(address, _)| *address).collect())
        .await?;
    Ok(ok(&json!({ "view": view })))
}

/// The replica that a request names.
fn replica_of(body: Bytes) -> Result<Addr, Failure> {
    let body = body_of(&body, &["socket-address"])?;
    let address = body.get("socket-address").and_then(Value::as_str);
    let address = address.and_then(|text| text.trim().parse::<Addr>().ok());
    let usable = |addr: &Addr| addr.port() != 0 && !addr.ip().is_unspecified();
    address
        .filter(usable)
        .ok_or_else(|| Failure::new(StatusCode::BAD_REQUEST, "socket-address has to be an IP:PORT"))
}

async fn order(peer: &PeerHandle, order: Order) -> Served {
    let done = |status, what: &str| Ok(json_of(status, &json!({ "result": what })));
    match peer.operate(order).await? {
        Outcome::Admitted => done(StatusCode::CREATED, "added"),
        Outcome::AlreadyMember => done(StatusCode::OK, "already present"),
        Outcome::Removed => done(StatusCode::OK, "deleted"),
        Outcome::NoMember => Err(Failure::new(StatusCode::NOT_FOUND, "View has no such replica")),
        _ => Err(Failure::new(StatusCode::CONFLICT, "the seeds decide who is a member")),
    }
}

async fn admit(State(peer): State<PeerHandle>, body: Bytes) -> Served {
    refuse_where_seeds_decide(&peer).await?;
    order(&peer, Order::Admit(replica_of(body)?)).await
}

async fn remove(State(peer): State<PeerHandle>, body: Bytes) -> Served {
    refuse_where_seeds_decide(&peer).await?;
    order(&peer, Order::Remove(replica_of(body)?)).await
}

/// Refuses a change of the view where seeds decide, before anything else is checked: no correction
/// of the request could make it work.
async fn refuse_where_seeds_decide(peer: &PeerHandle) -> Result<(), Failure> {
    match peer.look(PeerMachine::has_seeds).await? {
        true => Err(Failure::new(StatusCode::CONFLICT, "the seeds decide who is a member")),
        false => Ok(()),
    }
}
