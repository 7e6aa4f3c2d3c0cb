//! The log as a stream: one server-sent event for each line, with numbers to resume from.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::node::EventLog;

/// Lines that wait for one client; one that does not keep up is cut off and may resume.
const WAITING: usize = 256;
/// A comment goes out this often when nothing happens, so that proxies keep the connection.
const COMMENT: Duration = Duration::from_secs(15);

pub fn routes(log: EventLog) -> Router {
    Router::new().route("/events", get(events)).with_state(log)
}

async fn events(State(log): State<EventLog>, headers: HeaderMap) -> impl IntoResponse {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(pass_on(log, last, sender));
    let comments = KeepAlive::new().interval(COMMENT).text("still here");
    Sse::new(ReceiverStream::new(receiver)).keep_alive(comments)
}

/// Brings lines to one client until it is gone or does not keep up.
async fn pass_on(
    log: EventLog,
    last: Option<u64>,
    client: mpsc::Sender<Result<Event, Infallible>>,
) {
    let mut next = last.map_or_else(|| log.next(), |last| last + 1);
    loop {
        for (id, line) in log.from(next) {
            let event = Event::default().id(id.to_string()).data(&*line);
            if client.try_send(Ok(event)).is_err() {
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
