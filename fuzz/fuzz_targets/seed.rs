//! Messages to a seed, over connections of each kind, and connections that come and go.
#![no_main]

mod stage;

use libfuzzer_sys::fuzz_target;
use rumormill::proto::message::{Purpose, Role};
use rumormill::proto::seed::SeedMachine;
use rumormill::{Network, SeedConfig};

use stage::{Stage, addr};

fuzz_target!(|data: &[u8]| {
    let network = Network::new("fuzz", [addr(1), addr(2), addr(3)]);
    let seed = SeedMachine::new(SeedConfig::new(addr(1), network.clone()), 1);
    let mut stage = Stage::new(seed, network);
    stage.call(Role::Peer, addr(11), Purpose::Membership, None);
    stage.call(Role::Peer, addr(12), Purpose::Membership, None);
    stage.call(Role::Seed, addr(2), Purpose::Council, None);
    stage.answer_all();
    stage.play(data);
});
