//! The log as a stream for `GET /events`: one server-sent event for each line. Events carry the
//! numbers of their lines, so that a client that lost its connection can resume.
//!
//! What must stay true: clients that do not keep up delay neither the node nor each other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{Failure, OverLimit, Served, as_documented};
use crate::json::rfc3339;
use crate::node::{EventLog, Logged};
use crate::proto::limits::Limit;
use crate::proto::message::Role;

/// Lines that may wait for one client.
const WAITING: usize = 256;
/// A client is cut off if it takes no line for this long while some wait. It may resume.
const SLOW: Duration = Duration::from_secs(10);
/// Clients that follow the log at the same time. They hold connections for as long as they like, so
/// they must leave some for others.
const MAX_FOLLOWERS: usize = 128;
/// How often a comment goes out when nothing happens, so that proxies keep the connection.
const COMMENT: Duration = Duration::from_secs(15);

pub fn routes(log: EventLog, over_limit: OverLimit) -> Router {
    let places = Arc::new(Semaphore::new(MAX_FOLLOWERS));
    Router::new()
        .route("/events", get(events))
        .route_layer(from_fn(as_documented))
        .with_state((log, places, over_limit))
}

async fn events(
    State((log, places, over_limit)): State<(EventLog, Arc<Semaphore>, OverLimit)>,
    headers: HeaderMap,
) -> Served {
    let Ok(place) = places.try_acquire_owned() else {
        over_limit(Limit::Followers);
        return Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many follow the log already",
        ));
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    // The number is taken before the answer goes out. If the task took it, the client would miss
    // the lines between its answer and the start of the task.
    let next = last.map_or_else(|| log.next(), |last| last.saturating_add(1));
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        if !pass_on(log, next, sender).await {
            over_limit(Limit::SlowFollower);
        }
        drop(place);
    });
    let comments = KeepAlive::new().interval(COMMENT).text("still here");
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(comments).into_response())
}

/// Sends one client all lines from that number on, until the client is gone. False if it does not
/// keep up.
async fn pass_on(
    log: EventLog,
    mut next: u64,
    client: mpsc::Sender<Result<Event, Infallible>>,
) -> bool {
    loop {
        for (id, line) in log.from(next) {
            let event = Event::default().id(id.to_string()).data(to_json(&line).to_string());
            match timeout(SLOW, client.send(Ok(event))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return true,
                Err(_) => return false,
            }
            next = id + 1;
        }
        tokio::select! {
            () = log.after(next) => {}
            () = client.closed() => return true,
        }
    }
}

/// A line of the log as JSON: the words of the event, and each of its fields as text.
fn to_json(logged: &Logged) -> Value {
    let Logged { at, role, me, event } = logged;
    let mut object = Map::new();
    object.insert("time".to_owned(), rfc3339(at.micros()).into());
    object.insert("level".to_owned(), format!("{:?}", event.severity()).to_uppercase().into());
    object.insert("who".to_owned(), if *role == Role::Seed { "seed" } else { "peer" }.into());
    object.insert("address".to_owned(), me.to_string().into());
    object.insert("event".to_owned(), event.words().into());
    let fields =
        event.fields().into_iter().map(|(key, value)| (key.to_owned(), value.text().into()));
    object.extend(fields);
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::event::{Event, Severity};
    use crate::proto::time::Time;

    fn logged(role: Role, event: Event) -> Logged {
        Logged { at: Time::from_micros(1), role, me: ([127, 0, 0, 1], 5000).into(), event }
    }

    #[test]
    fn a_line_becomes_words_and_keys() {
        let event = Event::Note {
            severity: Severity::Warn,
            what: "link refused",
            keys: vec![
                ("from", "127.0.0.1:1".to_owned()),
                ("reason", "it says \"a=b\" twice".to_owned()),
                ("n", "1".to_owned()),
            ],
        };
        let json = to_json(&logged(Role::Seed, event));
        assert_eq!(json["event"], "link refused");
        assert_eq!(json["reason"], "it says \"a=b\" twice");
        assert_eq!((json["n"].as_str(), json["who"].as_str()), (Some("1"), Some("seed")));
        assert_eq!(json["level"], "WARN");
    }

    proptest::proptest! {
        #[test]
        fn a_value_arrives_as_it_was(value in "[\\PC\u{0}-\u{1f}\u{7f}-\u{9f}\"\\\\ =\u{200b}\u{202e}]{0,20}") {
            let keys = vec![("key", value.clone()), ("next", "1".to_owned())];
            let event = Event::Note { severity: Severity::Info, what: "two words", keys };
            let json = to_json(&logged(Role::Peer, event));
            proptest::prop_assert_eq!(json["key"].as_str(), Some(value.as_str()));
            proptest::prop_assert_eq!(&json["next"], "1");
            proptest::prop_assert_eq!(&json["event"], "two words");
        }
    }
}
