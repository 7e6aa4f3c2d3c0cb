//! Messages to a peer, over connections of each kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rumormill::net::codec;
use rumormill::proto::machine::{Conn, Effect, EffectOf, Input, Machine};
use rumormill::proto::message::{Addr, Message, Purpose, Role, ToPeer, Welcome};
use rumormill::proto::peer::PeerMachine;
use rumormill::proto::registry::{Record, Status};
use rumormill::proto::time::Time;
use rumormill::{Network, PeerConfig};

type Command = <PeerMachine as Machine>::Command;

fn addr(port: u16) -> Addr {
    ([127, 0, 0, 1], port).into()
}

struct Stage {
    peer: PeerMachine,
    now: Time,
    dialled: Vec<(Conn, Addr)>,
}

impl Stage {
    fn give(&mut self, input: Input<Command>) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut effects: Vec<EffectOf<PeerMachine>> = Vec::new();
            self.peer.handle(self.now, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Persist { batch, .. } => inputs.push(Input::Persisted { batch }),
                    Effect::Open { conn, to, .. } => self.dialled.push((conn, to)),
                    _ => {}
                }
            }
        }
    }

    /// Everybody who was dialled answers.
    fn answer_all(&mut self) {
        for (conn, from) in std::mem::take(&mut self.dialled) {
            let role = if from == addr(1) { Role::Seed } else { Role::Peer };
            let welcome =
                Welcome { role, from, incarnation: 1, leaving: false, clock: 0, identity: None };
            self.give(Input::Opened { conn, welcome });
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let network = Network::new("fuzz", [addr(1)]);
    let peer = PeerMachine::new(PeerConfig::new(addr(11), network.clone()).gossip_count(0), 1);
    let mut stage = Stage { peer, now: Time::from_millis(1_700_000_000_000), dialled: Vec::new() };
    stage.give(Input::Start);
    let Some((seed, _)) = stage.dialled.first().copied() else { return };
    stage.answer_all();
    let granted = Message::ToPeer(ToPeer::Granted { request: 1, votes: 1 });
    stage.give(Input::Received { conn: seed, message: granted });
    let alive = |port| {
        let incarnation = if port == 11 { stage.now.millis() } else { 1 };
        let (status, at, voters) = (Status::Alive, u64::from(port), vec![0]);
        (addr(port), Record { incarnation, status, at, voters, identity: None, signatures: Vec::new() })
    };
    let records = (11..17).map(alive).collect();
    let list = Message::ToPeer(ToPeer::List { request: 1, records, more: false });
    stage.give(Input::Received { conn: seed, message: list });
    let mut conns = vec![seed];
    for (conn, port, purpose) in [
        (101, 12, Purpose::Link),
        (103, 13, Purpose::Link),
        (105, 14, Purpose::Sync),
        (107, 15, Purpose::Ask),
        (109, 16, Purpose::Errand),
    ] {
        let hello = network.hello(Role::Peer, addr(port), 1, purpose);
        stage.give(Input::Incoming { conn, hello });
        conns.push(conn);
    }
    let mut rest = data;
    while let Some((&[which, high, low], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
        let (frame, next) = behind.split_at(length);
        rest = next;
        if let Ok(message) = codec::decode(frame) {
            let conn = conns[usize::from(which & 0x3f) % conns.len()];
            stage.give(Input::Received { conn, message });
        }
        if which & 0x80 != 0 {
            stage.answer_all();
        }
        if which & 0x40 != 0 && let Some(at) = stage.peer.wake_at() {
            stage.now = stage.now.max(at);
            stage.give(Input::Tick);
        }
    }
});
