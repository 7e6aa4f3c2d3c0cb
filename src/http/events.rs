//! The log as a stream: one server-sent event for each line, with numbers to resume from.

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
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{Answer, Failure, as_documented};
use crate::node::EventLog;

/// Lines that wait for one client.
const WAITING: usize = 256;
/// A client that takes no line for so long, although some wait, is cut off, and may resume.
const SLOW: Duration = Duration::from_secs(10);
/// Clients that follow the log at the same time: they hold connections for as long as they like, and
/// must leave some for others.
const MAX_FOLLOWERS: usize = 128;
/// A comment goes out this often when nothing happens, so that proxies keep the connection.
const COMMENT: Duration = Duration::from_secs(15);

pub fn routes(log: EventLog) -> Router {
    let places = Arc::new(Semaphore::new(MAX_FOLLOWERS));
    Router::new()
        .route("/events", get(events))
        .route_layer(from_fn(as_documented))
        .with_state((log, places))
}

async fn events(
    State((log, places)): State<(EventLog, Arc<Semaphore>)>,
    headers: HeaderMap,
) -> Answer {
    let Ok(place) = places.try_acquire_owned() else {
        return Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many follow the log already",
        ));
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    // Taken here, or what happens once the client has its answer could be over before the task begins.
    let next = last.map_or_else(|| log.next(), |last| last.saturating_add(1));
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        pass_on(log, next, sender).await;
        drop(place);
    });
    let comments = KeepAlive::new().interval(COMMENT).text("still here");
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(comments).into_response())
}

/// Brings lines from that number on to one client until it is gone or does not keep up.
async fn pass_on(log: EventLog, mut next: u64, client: mpsc::Sender<Result<Event, Infallible>>) {
    loop {
        for (id, line) in log.from(next) {
            let event = Event::default().id(id.to_string()).data(&*line);
            if !matches!(timeout(SLOW, client.send(Ok(event))).await, Ok(Ok(()))) {
                return;
            }
            next = id + 1;
        }
        tokio::select! {
            () = log.after(next) => {}
            () = client.closed() => return,
        }
    }
}
