//! The routes of a seed. Each handler looks at the machine between two inputs, and turns what it
//! copied into JSON. None changes anything.

use std::collections::HashMap;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Value, json};

use super::answer::{Failure, Served, as_documented, ok, over_limits_of, path_of, readiness};
use super::{events, metrics};
use crate::json;
use crate::node::{EventLog, SeedHandle};
use crate::proto::message::{Addr, Decision};
use crate::proto::seed::SeedMachine;
use crate::proto::signature::Signature;
use crate::views;

/// All routes of a seed, with that of the log.
pub fn routes(seed: SeedHandle, log: EventLog) -> Router {
    let over_limit = over_limits_of(&seed);
    Router::new()
        .route("/health", get(async || "OK"))
        .route("/ready", get(ready))
        .route("/metrics", get(measure))
        .route("/members", get(members))
        .route("/members/{address}", get(member))
        .route("/topology", get(topology))
        .route_layer(from_fn(as_documented))
        .with_state(seed)
        .merge(events::routes(log, over_limit))
}

async fn ready(State(seed): State<SeedHandle>) -> Served {
    let (reachable, of, ready) = seed.look(views::seed_readiness).await?;
    let reason = match ready {
        true => "connected to a quorum of seeds",
        false => "not connected to a quorum of seeds",
    };
    Ok(readiness(ready, reason, reachable, of))
}

async fn measure(State(seed): State<SeedHandle>) -> Served {
    Ok(metrics::answer(&seed.look(metrics::of_seed).await?, &seed.log().dropped()))
}

async fn members(State(seed): State<SeedHandle>) -> Served {
    let members = seed.look(views::registry).await?;
    let members: Vec<Value> = members.iter().map(json::member).collect();
    Ok(ok(&json!({ "members": members })))
}

async fn member(
    State(seed): State<SeedHandle>,
    address: Result<Path<String>, PathRejection>,
) -> Served {
    let Ok(address) = path_of(address)?.parse::<Addr>() else {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "that is no IP:PORT"));
    };
    match seed.look(move |machine| views::history(machine, &address)).await? {
        Some(views::HistoryView { member, identity, votes, history }) => {
            let mut member = json::member(&member);
            member["identity"] = identity.map(|identity| identity.to_string()).into();
            let vote = |(seed, signature): &(Addr, Option<Signature>)| json!({ "seed": seed, "signature": signature.map(|s| s.to_string()) });
            member["votes"] = votes.iter().map(vote).collect();
            member["history"] = history.iter().map(decision_json).collect();
            Ok(ok(&member))
        }
        None => Err(Failure::new(StatusCode::NOT_FOUND, "no such member")),
    }
}

fn decision_json(decision: &Decision) -> Value {
    let votes: Vec<Value> = decision
        .votes
        .iter()
        .map(|vote| json!({ "seed": vote.seed, "accept": vote.accept, "reason": vote.reason }))
        .collect();
    json!({
        "change": decision.change.kind.words(),
        "incarnation": decision.change.incarnation,
        "proposer": decision.proposer,
        "reporters": decision.change.reporters,
        "votes": votes,
        "committed": decision.committed,
        "time": json::rfc3339(decision.decided.saturating_mul(1_000)),
    })
}

async fn topology(
    State(seed): State<SeedHandle>,
    options: Result<Query<HashMap<String, String>>, QueryRejection>,
) -> Served {
    let Ok(Query(options)) = options else {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "that is no query"));
    };
    let topology = seed.look(SeedMachine::topology).await?;
    match options.get("format").map(String::as_str) {
        None | Some("json") => {
            Ok(([(header::CONTENT_TYPE, "application/json")], topology.to_json()).into_response())
        }
        Some("dot") => {
            Ok(([(header::CONTENT_TYPE, "text/vnd.graphviz")], topology.to_dot()).into_response())
        }
        Some(_) => Err(Failure::new(StatusCode::BAD_REQUEST, "format is json or dot")),
    }
}
