//! The HTTP API (CONTRACT.md, section 3): JSON in and out, over one listener. Nothing is decided
//! here: each route asks a node, and turns what it says into JSON.
//!
//! `server` accepts connections, `crowd` limits them, and `stream` is one of them. `gate` says who
//! may ask at all, and `answer` makes answers and errors. `peer` and `seed` are the routes of the two programs, `store` and `dump`
//! those of the key-value store, `events` is the stream of the log, and `metrics` what a node
//! counts.

mod answer;
mod crowd;
mod dump;
mod events;
mod gate;
mod metrics;
mod peer;
mod seed;
mod server;
mod store;
mod stream;

pub use answer::{OverLimit, over_limits_of};
pub use gate::Gate;
pub use peer::routes as peer_routes;
pub use seed::routes as seed_routes;
pub use server::{Source, serve};
