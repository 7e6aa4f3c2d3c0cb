//! Membership and gossip for a network of peers: who is in, and does everybody hear?
//!
//! A handful of seeds decide by majority who belongs to the network. The peers link up into a
//! power-law overlay, gossip messages to everybody, and watch over each other. No single node can
//! let anybody in or throw anybody out.
//!
//! The programs `seed` and `peer` are thin shells around this library, and any program can embed a
//! peer:
//!
//! ```
//! use rumormill::{Network, Peer, PeerConfig, Received, Seed, SeedConfig, bind};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A network of one seed, in this process; the program `seed` runs one by itself.
//! let listener = bind("127.0.0.1:0".parse()?).await?;
//! let seed_address = listener.local_addr()?;
//! let network = Network::new("example", [seed_address]);
//! let seed = Seed::start(listener, SeedConfig::new(seed_address, network.clone()))?;
//!
//! let listener = bind("127.0.0.1:0".parse()?).await?;
//! let config = PeerConfig::new(listener.local_addr()?, network);
//! let peer = Peer::start(listener, config.gossip_count(0))?;
//! let mut messages = peer.messages().await?;
//!
//! let id = peer.publish("anything, up to 1 MiB").await?;
//! match messages.next().await {
//!     Some(Received::Message(delivery)) => assert_eq!(delivery.id, id),
//!     other => panic!("a peer hears itself, too: {other:?}"),
//! }
//!
//! peer.leave().await;
//! seed.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`proto`] | the state machines: all decisions, no I/O |
//! | [`net`] | bytes in, messages out |
//! | [`node`] | the tokio hosts that run a machine: [`node::Peer`], [`node::Seed`] |
//! | `http` (feature `http`) | the API: members, topology, gossip, the store, events, metrics |
//! | `json`, `views` (feature `http`) | the JSON of HTTP and the console, and what is copied of a machine for it |
//! | `storage` (feature `durable`) | what a seed and a replica keep on disk |
//! | `console` (feature `programs`) | the commands of a peer, and their answers |
//! | `maelstrom` (feature `programs`) | the same machine as a Maelstrom node on stdin and stdout |
//! | `logging`, and with the feature `programs` `config` and `cli` | where nodes log to; arguments and exit codes of the programs |

#![forbid(unsafe_code)]

#[cfg(feature = "programs")]
pub mod cli;
mod clock;
#[cfg(feature = "programs")]
pub mod config;
#[cfg(feature = "programs")]
pub mod console;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "http")]
pub mod json;
pub mod logging;
#[cfg(feature = "programs")]
pub mod maelstrom;
pub mod net;
pub mod node;
pub mod proto;
#[cfg(feature = "durable")]
pub mod storage;
#[cfg(feature = "http")]
pub mod views;

#[cfg(feature = "durable")]
pub use node::StartError;
pub use node::{
    EventLog, Found, Logged, MemberEvents, Messages, Peer, PeerHandle, PeerStatus, Port, Publisher,
    Received, Seed, SeedHandle, SeedStatus, Stopped, Store, Written, bind,
};
pub use proto::config::{InvalidConfig, Membership, Network, Overlay, PeerConfig, SeedConfig};
pub use proto::event::{Event, Severity};
pub use proto::kv::clock::Seen;
pub use proto::kv::replica::StoreError;
pub use proto::kv::value::Value;
pub use proto::roles::{Delivery, MemberEvent, PublishError};
