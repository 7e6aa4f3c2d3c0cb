//! Messages to a seed, over connections of each kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rumormill::net::codec;
use rumormill::proto::machine::{Conn, Effect, EffectOf, Input, Machine};
use rumormill::proto::message::{Addr, Hello, Purpose, Role, Welcome};
use rumormill::proto::seed::SeedMachine;
use rumormill::proto::time::Time;
use rumormill::{Network, SeedConfig};

type Command = <SeedMachine as Machine>::Command;

fn addr(port: u16) -> Addr {
    ([127, 0, 0, 1], port).into()
}

struct Stage {
    seed: SeedMachine,
    now: Time,
    /// Connections that the seed has opened, with their addresses.
    dialled: Vec<(Conn, Addr)>,
}

impl Stage {
    /// Gives an input; what the seed wants durable is durable at once.
    fn give(&mut self, input: Input<Command>) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut effects: Vec<EffectOf<SeedMachine>> = Vec::new();
            self.seed.handle(self.now, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Persist { batch, .. } => inputs.push(Input::Persisted { batch }),
                    Effect::Open { conn, to, .. } => self.dialled.push((conn, to)),
                    _ => {}
                }
            }
        }
    }

    fn answer(&mut self, conn: Conn, role: Role, from: Addr) {
        let welcome =
            Welcome { role, from, incarnation: 1, leaving: false, clock: 0, identity: None };
        self.give(Input::Opened { conn, welcome });
    }

    fn call(&mut self, conn: Conn, hello: Hello) {
        self.give(Input::Incoming { conn, hello });
    }
}

fuzz_target!(|data: &[u8]| {
    let network = Network::new("fuzz", [addr(1), addr(2), addr(3)]);
    let seed = SeedMachine::new(SeedConfig::new(addr(1), network.clone()), 1);
    let mut stage = Stage { seed, now: Time::from_millis(1_700_000_000_000), dialled: Vec::new() };
    stage.give(Input::Start);
    let mut conns = vec![101, 103, 105];
    for (conn, to) in std::mem::take(&mut stage.dialled) {
        stage.answer(conn, Role::Seed, to);
        conns.push(conn);
    }
    stage.call(101, network.hello(Role::Peer, addr(11), 1, Purpose::Membership));
    stage.call(103, network.hello(Role::Peer, addr(12), 1, Purpose::Membership));
    stage.call(105, network.hello(Role::Seed, addr(2), 0, Purpose::Council));
    // One byte says over which connection, two how long the message is.
    let mut rest = data;
    while let Some((&[which, high, low], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
        let (frame, next) = behind.split_at(length);
        rest = next;
        if let Ok(message) = codec::decode(frame) {
            let conn = conns[usize::from(which) % conns.len()];
            stage.give(Input::Received { conn, message });
        }
        if which & 0x80 != 0 {
            // Whoever is probed answers.
            for (conn, to) in std::mem::take(&mut stage.dialled) {
                stage.answer(conn, Role::Peer, to);
            }
        }
        if which & 0x40 != 0 && let Some(at) = stage.seed.wake_at() {
            stage.now = stage.now.max(at);
            stage.give(Input::Tick);
        }
    }
});
