//! A machine, and everybody that it talks to: what they do is read from the bytes of a fuzzer.

use rumormill::Network;
use rumormill::net::codec;
use rumormill::proto::machine::{Conn, Effect, EffectOf, Input, Machine, OpenError};
use rumormill::proto::message::{Addr, Identity, Purpose, Role, Welcome};
use rumormill::proto::time::Time;

/// The lower six bits of the first byte of a step name a connection over which a message comes, but
/// for these.
const ENDS: u8 = 0x3f;
const CALLS: u8 = 0x3e;
const FAILS: u8 = 0x3d;
const FILLS: u8 = 0x3c;
const EMPTIES: u8 = 0x3b;

pub fn addr(port: u16) -> Addr {
    ([127, 0, 0, 1], port).into()
}

pub struct Stage<M: Machine> {
    pub machine: M,
    pub now: Time,
    /// Open connections that the input can name.
    pub conns: Vec<Conn>,
    network: Network,
    /// Connections that the machine opens and nobody has answered yet, with their addresses.
    dialled: Vec<(Conn, Addr)>,
    /// The last incoming connection.
    called: Conn,
}

impl<M: Machine> Stage<M> {
    pub fn new(machine: M, network: Network) -> Self {
        let now = Time::from_millis(1_700_000_000_000);
        let mut stage =
            Self { machine, now, conns: Vec::new(), network, dialled: Vec::new(), called: 99 };
        stage.give(Input::Start);
        stage
    }

    /// Gives an input; what the machine wants durable is durable at once.
    pub fn give(&mut self, input: Input<M::Command>) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut effects: Vec<EffectOf<M>> = Vec::new();
            self.machine.handle(self.now, input, &mut effects);
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
    pub fn answer_all(&mut self) {
        for (conn, from) in std::mem::take(&mut self.dialled) {
            let seed = self.network.seeds().contains(&from);
            let role = if seed { Role::Seed } else { Role::Peer };
            let welcome =
                Welcome { role, from, incarnation: 1, leaving: false, clock: 0, identity: None };
            self.give(Input::Opened { conn, welcome });
            if self.conns.len() < usize::from(EMPTIES) {
                self.conns.push(conn);
            }
        }
    }

    pub fn call(&mut self, role: Role, from: Addr, purpose: Purpose, identity: Option<Identity>) {
        self.called += 2;
        let hello = self.network.hello(role, from, 1, purpose);
        let hello = rumormill::proto::message::Hello { identity, ..hello };
        self.give(Input::Incoming { conn: self.called, hello });
        self.conns.push(self.called);
    }

    /// Somebody calls: four bytes say who, and what for.
    fn call_as(&mut self, how: &[u8]) {
        let &[role, port, purpose, identity] = how.first_chunk().unwrap_or(&[0; 4]);
        let purpose = match purpose % 7 {
            0 => Purpose::Probe,
            1 => Purpose::Link,
            2 => Purpose::Membership,
            3 => Purpose::Council,
            4 => Purpose::Errand,
            5 => Purpose::Sync,
            _ => Purpose::Ask,
        };
        let role = if role % 4 == 0 { Role::Seed } else { Role::Peer };
        let identity = (identity % 4 != 0).then(|| Identity([identity % 4; 32]));
        self.call(role, addr(u16::from(port % 24)), purpose, identity);
    }

    /// One byte says what happens, two how many bytes belong to it, then come those.
    pub fn play(&mut self, data: &[u8]) {
        let mut rest = data;
        while let Some((&[which, high, low], behind)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
            let (frame, next) = behind.split_at(length);
            rest = next;
            self.step(which & 0x3f, frame);
            if which & 0x80 != 0 {
                self.answer_all();
            }
            if which & 0x40 != 0
                && let Some(at) = self.machine.wake_at()
            {
                self.now = self.now.max(at);
                self.give(Input::Tick);
            }
        }
    }

    fn step(&mut self, what: u8, frame: &[u8]) {
        let place = frame.first().map_or(0, |place| usize::from(*place));
        let conn = self.conns.get(place % self.conns.len().max(1)).copied();
        match (what, conn) {
            (ENDS, Some(conn)) => {
                self.conns.retain(|open| *open != conn);
                self.give(Input::Closed { conn });
            }
            (FILLS, Some(conn)) => self.give(Input::Congested { conn }),
            (EMPTIES, Some(conn)) => self.give(Input::Relieved { conn }),
            (CALLS, _) => self.call_as(frame),
            (FAILS, _) => {
                if let Some((conn, _)) = self.dialled.pop() {
                    self.give(Input::OpenFailed { conn, error: OpenError::Unreachable });
                }
            }
            _ => {
                let conn = self.conns.get(usize::from(what) % self.conns.len().max(1)).copied();
                if let (Some(conn), Ok(message)) = (conn, codec::decode(frame)) {
                    self.give(Input::Received { conn, message });
                }
            }
        }
    }
}
