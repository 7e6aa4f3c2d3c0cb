//! The HTTP API (CONTRACT.md, section 3): JSON in and out, over one listener.
//!
//! `server` takes connections within limits, `stream` is one of them, `answer` says what errors look
//! like, `peer` and `seed` are the routes of the two programs, `store` those of
//! the key-value store, `events` the stream of the log, `metrics` what is
//! counted. Nothing is decided here.

mod answer;
mod crowd;
mod dump;
mod events;
mod metrics;
mod peer;
mod seed;
mod server;
mod store;
mod stream;

pub use peer::routes as peer_routes;
pub use seed::routes as seed_routes;
pub use server::{Source, serve};
