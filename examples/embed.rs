//! A program with a peer inside: publish bytes, receive everybody's, hear who comes and goes.
//!
//! `cargo run --example embed` needs nothing else: it brings a seed and somebody to talk to.

use std::error::Error;

use rumormill::{MemberEvent, Network, Peer, PeerConfig, Received, Seed, SeedConfig, bind};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Your seeds are other processes, and their addresses are in your configuration.
    let listener = bind("127.0.0.1:0".parse()?).await?;
    let seed = listener.local_addr()?;
    let network = Network::new("example", [seed]);
    let seed = Seed::start(listener, SeedConfig::new(seed, network.clone()))?;
    let other = start(&network).await?;

    let peer = start(&network).await?;
    let (mut events, mut messages) = (peer.events().await?, peer.messages().await?);
    peer.publish("hello from the peer in this program").await?;
    other.publish(&b"any bytes: \x00\xff"[..]).await?;
    for _ in 0..2 {
        if let Some(Received::Message(message)) = messages.next().await {
            let (payload, from) = (message.gossip.payload.escape_ascii(), message.from);
            println!("message  {payload}  {}", from.map_or("my own".into(), |a| format!("by {a}")));
        }
    }
    other.leave().await;
    while let Some(event) = events.next().await {
        println!("event    {event:?}");
        if matches!(event, MemberEvent::Left(_)) {
            break;
        }
    }
    peer.leave().await;
    seed.stop().await;
    Ok(())
}

/// A peer on any free port, without the messages that the program `peer` makes up.
async fn start(network: &Network) -> Result<Peer, Box<dyn Error>> {
    let listener = bind("127.0.0.1:0".parse()?).await?;
    let config = PeerConfig::new(listener.local_addr()?, network.clone());
    Ok(Peer::start(listener, config.gossip_count(0))?)
}
