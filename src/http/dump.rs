//! The whole store as one answer, written piece by piece: the text of a large store, made at once,
//! would take many times the store's memory. Together the pieces are one JSON object of the values,
//! the clock and the versions, all from one snapshot.

use std::convert::Infallible;
use std::fmt::Write;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value as Json;

use crate::json;
use crate::proto::kv::snapshot::Snapshot;

/// Bytes of a piece, about.
const PIECE: usize = 64 << 10;

/// The part of the answer that is written next.
#[derive(Clone, Copy)]
enum Next {
    Begin,
    Store(usize),
    Versions(usize),
    Done,
}

/// Answers `GET /kvs/sync` with this copy of the store.
pub fn answer(snapshot: Snapshot) -> Response {
    let mut next = Next::Begin;
    let pieces = std::iter::from_fn(move || {
        let mut piece = String::new();
        while piece.len() < PIECE && !matches!(next, Next::Done) {
            // Writing into a string cannot fail.
            let _ = write(&snapshot, &mut next, &mut piece);
        }
        (!piece.is_empty()).then_some(Ok::<_, Infallible>(piece))
    });
    let body = Body::from_stream(tokio_stream::iter(pieces));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn write(snapshot: &Snapshot, next: &mut Next, to: &mut String) -> std::fmt::Result {
    let text = |key: &str| Json::from(key).to_string();
    match *next {
        Next::Begin => {
            to.push_str("{\"store\":{");
            *next = Next::Store(0);
        }
        Next::Store(place) => match snapshot.versions.get(place) {
            Some((key, versions)) => {
                let value = versions.first().map(|version| version.value.text());
                let comma = if place > 0 { "," } else { "" };
                let value = value.map(|text| String::from_utf8_lossy(text)).unwrap_or_default();
                write!(to, "{comma}{}:{value}", text(key))?;
                *next = Next::Store(place + 1);
            }
            None => {
                let clock = json::clock(&snapshot.context);
                write!(to, "}},\"vector_clock\":{clock},\"versions\":{{")?;
                *next = Next::Versions(0);
            }
        },
        Next::Versions(place) => match snapshot.versions.get(place) {
            Some((key, versions)) => {
                let comma = if place > 0 { "," } else { "" };
                let versions: Json = versions.iter().map(json::version).collect();
                write!(to, "{comma}{}:{versions}", text(key))?;
                *next = Next::Versions(place + 1);
            }
            None => {
                to.push_str("}}");
                *next = Next::Done;
            }
        },
        Next::Done => {}
    }
    Ok(())
}
