//! Liars: processes that register like any peer, answer probes, and accuse a healthy one.

use std::collections::BTreeMap;
use std::time::Duration;

use rumormill::proto::config::Network;
use rumormill::proto::machine::{Conn, Machine};
use rumormill::proto::message::{
    Addr, Answer, ChangeKind, Detection, Incarnation, Message, Parting, Purpose, Refusal, Refused,
    Role, ToPeer, ToSeed, Welcome,
};
use rumormill::proto::planted::Flaw;
use rumormill::proto::registry::{Record, Status};
use rumormill::proto::roles::{PeerCommand, PeerReply};
use rumormill::proto::time::Time;

use super::chaos::{Outcome, brisk, finish, peer_addr, with_seeds};
use super::node::{Change, Effect, Input, Kind};
use super::world::World;

/// How often a liar repeats its lies.
const EVERY: Duration = Duration::from_millis(400);

/// What a liar does besides accusing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guise {
    /// It is a registered member of its own.
    Member,
    /// It says that it is somebody else, who is a member.
    Posing(Addr),
    /// It says that it is its victim, and leaves.
    Victim,
}

/// A process that wants `victim` out.
pub struct Liar {
    me: Addr,
    guise: Guise,
    victim: Addr,
    network: Network,
    incarnation: Incarnation,
    accused: Option<Incarnation>,
    members: BTreeMap<Addr, Incarnation>,
    /// Connections opened, and whom to; those to seeds stay.
    opened: BTreeMap<Conn, (Addr, Purpose)>,
    used: Conn,
    request: u64,
    next: Option<Time>,
}

impl Liar {
    pub fn new(me: Addr, guise: Guise, victim: Addr, network: Network) -> Self {
        Self {
            me,
            guise,
            victim,
            network,
            incarnation: 0,
            accused: None,
            members: BTreeMap::new(),
            opened: BTreeMap::new(),
            used: 0,
            request: 0,
            next: None,
        }
    }

    fn name(&self) -> Addr {
        match self.guise {
            Guise::Member => self.me,
            Guise::Posing(other) => other,
            Guise::Victim => self.victim,
        }
    }

    fn open(&mut self, to: Addr, purpose: Purpose, effects: &mut Vec<Effect>) {
        self.used += 2;
        let incarnation = match self.guise {
            Guise::Member => self.incarnation,
            _ => self.members.get(&self.name()).copied().unwrap_or(self.incarnation),
        };
        let hello = self.network.hello(Role::Peer, self.name(), incarnation, purpose);
        self.opened.insert(self.used, (to, purpose));
        effects.push(Effect::Open { conn: self.used, to, hello, within: Duration::from_secs(1) });
    }

    fn learn(&mut self, records: &[(Addr, Record)]) {
        for (addr, record) in records {
            if record.status == Status::Alive {
                self.members.insert(*addr, record.incarnation);
            }
        }
        self.accused = self.members.get(&self.victim).copied();
    }

    /// To the seeds: it is dead, or: I am it and I leave. To the peers: have a look, I cannot
    /// reach it.
    fn lie(&mut self, effects: &mut Vec<Effect>) {
        for seed in self.network.seeds().to_vec() {
            if !self.opened.values().any(|(to, _)| *to == seed) {
                self.open(seed, Purpose::Membership, effects);
            }
        }
        self.request += 1;
        let request = self.request;
        let digest = [0; 32];
        let membership = self.opened.iter().filter(|(_, (_, p))| *p == Purpose::Membership);
        for conn in membership.map(|(conn, _)| *conn) {
            effects.push(Effect::Send {
                conn,
                message: Message::ToSeed(ToSeed::Refresh { request, digest }),
            });
            let Some(incarnation) = self.accused else { continue };
            let message = if self.guise == Guise::Victim {
                Message::ToSeed(ToSeed::Leave { request, incarnation })
            } else {
                let text = format!("Dead Node:{}:0.000000:{}", self.victim, self.me.ip());
                Message::ToSeed(ToSeed::DeadNode { peer: self.victim, incarnation, text })
            };
            effects.push(Effect::Send { conn, message });
        }
        let others: Vec<Addr> =
            self.members.keys().copied().filter(|peer| *peer != self.me).collect();
        for peer in others {
            self.open(peer, Purpose::Errand, effects);
        }
    }

    fn slander(&self, conn: Conn, effects: &mut Vec<Effect>) {
        if let Some(incarnation) = self.accused {
            let peer = self.victim;
            let notice = Message::Detection(Detection::SuspectNotice { peer, incarnation });
            effects.push(Effect::Send { conn, message: notice });
            effects.push(Effect::Send {
                conn,
                message: Message::Detection(Detection::Witness { peer, incarnation }),
            });
            effects.push(Effect::Send { conn, message: Message::Parting(Parting::Leaving) });
        }
        effects.push(Effect::Close { conn });
    }
}

impl Machine for Liar {
    type Command = PeerCommand;
    type Reply = PeerReply;
    type Change = Change;

    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Start => {
                self.incarnation = now.millis();
                self.lie(effects);
                self.next = Some(now + EVERY);
            }
            Input::Incoming { conn, hello } => {
                let answer = if hello.purpose == Purpose::Link {
                    let others = Vec::new();
                    Answer::Refused(Refusal { reason: Refused::Full, others })
                } else {
                    let (from, incarnation) = (self.me, self.incarnation);
                    let role = Role::Peer;
                    Answer::Welcome(Welcome {
                        role,
                        from,
                        incarnation,
                        leaving: false,
                        clock: 0,
                        identity: None,
                    })
                };
                effects.push(Effect::Answer { conn, answer });
            }
            Input::Opened { conn, .. } => match self.opened.get(&conn) {
                Some((_, Purpose::Membership)) if self.guise == Guise::Member => {
                    let incarnation = self.incarnation;
                    let message = Message::ToSeed(ToSeed::Register { request: 0, incarnation });
                    effects.push(Effect::Send { conn, message });
                }
                Some((_, Purpose::Errand)) => {
                    self.opened.remove(&conn);
                    self.slander(conn, effects);
                }
                _ => {}
            },
            Input::OpenFailed { conn, .. } | Input::Closed { conn } => {
                self.opened.remove(&conn);
            }
            Input::Received { message, .. } => match message {
                Message::ToPeer(ToPeer::List { records, .. }) => self.learn(&records),
                Message::ToPeer(ToPeer::Update(records)) => self.learn(&records),
                _ => {}
            },
            Input::Tick => {
                self.lie(effects);
                self.next = Some(now + EVERY);
            }
            _ => {}
        }
    }

    fn wake_at(&self) -> Option<Time> {
        self.next
    }
}

/// Five healthy peers, one of them slandered by these liars for a minute.
///
/// Also returns whether the victim was removed, and whether seeds can tell a liar by its identity.
pub fn slandered(number: u64, flaw: Flaw, guises: &[Guise]) -> (Outcome, bool, bool) {
    let (mut world, network, _) = with_seeds(number, 3, flaw);
    if let Some(checks) = &mut world.checks {
        checks.calm_since = Some(world.now);
    }
    for place in 0..5 {
        let id = world.add(peer_addr(place), Kind::Peer(brisk(peer_addr(place), &network)));
        world.start(id);
    }
    world.run_for(Duration::from_secs(4));
    let victim = peer_addr(0);
    for (place, guise) in (20..).zip(guises) {
        let liar = Liar::new(peer_addr(place), *guise, victim, network.clone());
        world.add_script(peer_addr(place), Box::new(liar));
    }
    world.run_for(Duration::from_secs(60));
    let (removed, keyed) = (was_removed(&world, &victim), world.keyed);
    (finish(world, number, None), removed, keyed)
}

/// Whether that peer was ever out of the registry.
fn was_removed(world: &World, peer: &Addr) -> bool {
    world.checks.as_ref().is_some_and(|checks| {
        checks.was_committed(ChangeKind::Dead, peer)
            || checks.was_committed(ChangeKind::Leave, peer)
    })
}

fn assert_harmless(what: &str, guises: &[Guise]) {
    for number in 0..5 {
        let (outcome, removed, keyed) = slandered(number, Flaw::None, guises);
        println!("{what}, number {number}:\n{}", outcome.tally);
        assert!(!removed, "number {number}: {what} removed a healthy peer");
        let violations: Vec<String> = outcome.violations.iter().map(ToString::to_string).collect();
        assert!(violations.is_empty(), "number {number}: {what}: {}", violations.join("\n"));
        // Over encrypted links a seed hangs up on whoever speaks in another's name.
        let heard = outcome.tally.get("votes against");
        let hung_up = keyed && guises.iter().any(|guise| *guise != Guise::Member);
        assert!(
            heard > 0 || hung_up,
            "number {number}: no seed was ever asked, so nothing was shown"
        );
    }
}

#[test]
fn forged_reports_of_registered_liars_never_remove_a_healthy_peer() {
    assert_harmless("three lying members", &[Guise::Member, Guise::Member, Guise::Member]);
}

#[test]
fn forged_reports_in_the_name_of_others_never_remove_a_healthy_peer() {
    let guises = [Guise::Posing(peer_addr(1)), Guise::Posing(peer_addr(2))];
    assert_harmless("two liars posing as members", &guises);
}

#[test]
fn a_leave_in_the_name_of_another_never_removes_it() {
    assert_harmless("a liar posing as its victim", &[Guise::Victim]);
}
