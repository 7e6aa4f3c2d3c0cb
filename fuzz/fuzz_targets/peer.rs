//! Messages to a peer, over connections of each kind, and connections that come and go.
#![no_main]

mod stage;

use libfuzzer_sys::fuzz_target;
use rumormill::proto::machine::Input;
use rumormill::proto::message::{Message, Purpose, Role, ToPeer};
use rumormill::proto::peer::PeerMachine;
use rumormill::proto::registry::{Record, Status};
use rumormill::{Network, PeerConfig};

use stage::{Stage, addr};

fuzz_target!(|data: &[u8]| {
    let network = Network::new("fuzz", [addr(1)]);
    let peer = PeerMachine::new(PeerConfig::new(addr(11), network.clone()).gossip_count(0), 1);
    let mut stage = Stage::new(peer, network);
    stage.answer_all();
    let Some(seed) = stage.conns.first().copied() else { return };
    let granted = Message::ToPeer(ToPeer::Granted { request: 1, votes: 1 });
    stage.give(Input::Received { conn: seed, message: granted });
    let alive = |port| {
        let incarnation = if port == 11 { stage.now.millis() } else { 1 };
        let (status, at, voters) = (Status::Alive, u64::from(port), vec![0]);
        (addr(port), Record::plain(incarnation, status, at, voters))
    };
    let records = (11..17).map(alive).collect();
    let list = Message::ToPeer(ToPeer::List { request: 1, records, more: false });
    stage.give(Input::Received { conn: seed, message: list });
    for (port, purpose) in [
        (12, Purpose::Link),
        (13, Purpose::Link),
        (14, Purpose::Sync),
        (15, Purpose::Ask),
        (16, Purpose::Errand),
    ] {
        stage.call(Role::Peer, addr(port), purpose, None);
    }
    stage.play(data);
});
