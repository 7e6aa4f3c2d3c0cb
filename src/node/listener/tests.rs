//! Limits of connections, over real sockets.

use super::*;
use crate::net::handshake::open;
use crate::node::Seed;
use crate::proto::config::SeedConfig;
use crate::proto::machine::OpenError;
use crate::proto::message::Role;

/// Long enough for anything that works.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long somebody tries who is not let in.
const TRY: Duration = Duration::from_millis(200);

/// A seed that lets few connections in, and what it counts.
struct Stage {
    me: Addr,
    network: Network,
    dropped: crate::node::log::Dropped,
    _seed: Seed,
}

impl Stage {
    async fn new(most: Most, secure: impl FnOnce(Addr) -> Option<Security>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let me = listener.local_addr().unwrap();
        let network = Network::new("test", [me]);
        let port = Port { most, security: secure(me), ..Port::from(listener) };
        let dropped = port.log.dropped.clone();
        let seed = Seed::start(port, SeedConfig::new(me, network.clone())).unwrap();
        Self { me, network, dropped, _seed: seed }
    }

    /// Calls in the name of the peer at that port.
    async fn call(
        &self,
        port: u16,
        purpose: Purpose,
        (within, security): (Duration, Option<&Security>),
    ) -> Result<Opened, OpenError> {
        let from = ([127, 0, 0, 1], port).into();
        let hello = self.network.hello(Role::Peer, from, 7, purpose);
        open(self.me, &hello, within, security).await.map(|(opened, _)| opened)
    }

    fn dropped(&self) -> Vec<Limit> {
        let all = self.dropped.all().into_iter().filter(|(_, times)| *times > 0);
        all.map(|(limit, _)| limit).collect()
    }
}

#[tokio::test]
async fn at_the_limit_of_connections_a_probe_still_gets_its_answer() {
    let table = [
        (Most { of_address: 4, ..Most::default() }, Limit::OfAddress),
        (Most { in_all: 4, ..Most::default() }, Limit::Connections),
    ];
    for (most, limit) in table {
        let stage = Stage::new(most, |_| None).await;
        let mut held = Vec::new();
        for port in 1..=4 {
            let line = stage.call(port, Purpose::Membership, (PATIENCE, None)).await;
            held.push(line.expect("there is room"));
        }
        assert_eq!(stage.dropped(), []);
        let fifth = stage.call(5, Purpose::Membership, (TRY, None)).await;
        assert_eq!(fifth.err(), Some(OpenError::TimedOut), "{limit:?}");
        assert_eq!(stage.dropped(), [limit]);
        for port in 1..=20 {
            let probe = stage.call(port, Purpose::Probe, (PATIENCE, None)).await;
            assert!(probe.is_ok(), "{limit:?}: whoever asks whether it lives hears that it does");
        }
        held.pop();
        let again = stage.call(5, Purpose::Membership, (PATIENCE, None)).await;
        assert!(again.is_ok(), "{limit:?}: a place that is given back is free");
    }
}

#[cfg(feature = "encryption")]
#[tokio::test]
async fn one_identity_takes_few_connections_whatever_names_it_goes_by() {
    use crate::net::secure::{KnownSeeds, NetworkKey, NetworkKeys, Secret};
    let key = NetworkKey::fresh().unwrap();
    let process = |seed: Addr| {
        let seeds = KnownSeeds::new([(seed, None)], |_, _| Ok(()));
        Security::new(NetworkKeys::of(key.clone()), Secret::fresh().unwrap(), seeds)
    };
    let most = Most { of_identity: 4, ..Most::default() };
    let stage = Stage::new(most, |me| Some(process(me))).await;
    let (one, other) = (process(stage.me), process(stage.me));
    let mut held = Vec::new();
    for port in 1..=4 {
        let line = stage.call(port, Purpose::Membership, (PATIENCE, Some(&one))).await;
        held.push(line.expect("there is room"));
    }
    let fifth = stage.call(5, Purpose::Membership, (TRY, Some(&one))).await;
    assert!(fifth.is_err(), "it has as many as it may have");
    assert_eq!(stage.dropped(), [Limit::OfIdentity]);
    assert!(stage.call(5, Purpose::Probe, (PATIENCE, Some(&one))).await.is_ok());
    assert!(stage.call(5, Purpose::Membership, (PATIENCE, Some(&other))).await.is_ok());
    held.pop();
    let again = stage.call(1, Purpose::Membership, (PATIENCE, Some(&one))).await;
    assert!(again.is_ok(), "a place that is given back is free");
}
