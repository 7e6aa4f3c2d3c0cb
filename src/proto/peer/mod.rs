//! The peer machine: it registers with the seeds, links up, gossips, watches its neighbours and
//! keeps a replica of the store (DESIGN.md, section 4).
//!
//! It is made of parts, none of which calls another: `sessions` says what each connection is for,
//! `registration` how this peer stands with its seeds, `links` which links there are and whom one
//! is wanted with, `suspicions` who is suspected and who has witnessed it, `prober` which probes
//! are under way, `membership` who decides who is a member, `questions` what an operator has asked,
//! `calm` how soon to compare messages again. Beside this module, `gossip` keeps and spreads
//! messages, and `kv` keeps the replica of the store.
//!
//! These files hand what one part says to the next. Each calls only those named before it
//! (DESIGN.md, section 8): `common` (dialling, telling), `probe` (does a member live), `requests`
//! (what the seeds are asked), `catch_up` (a new replica), `overlay` (a link is up or down),
//! `liveness` (suspicion and consensus), `members` (a member came or went), `notices` (what others
//! say of suspects), `open` (membership without seeds), `answers` (a probe or a dial has ended),
//! `sync` (when to compare), `ask` (an operator's orders), `seeds` (what the seeds say),
//! `connections` (who may say what over which connection). This file hands each input and each
//! timer to one of them.

mod answers;
mod ask;
mod calm;
mod catch_up;
mod common;
mod connections;
mod former;
mod links;
mod liveness;
mod members;
mod membership;
pub mod message;
mod notices;
mod open;
mod overlay;
mod probe;
mod prober;
mod questions;
mod registration;
mod requests;
mod seeds;
mod sessions;
mod suspicions;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use self::former::Former;
use self::links::Links;
use self::membership::Kind;
use self::prober::Prober;
use self::questions::Questions;
use self::registration::Registration;
use self::sessions::Sessions;
use self::suspicions::Suspicions;

use self::calm::Calm;
use super::clocks::Clocks;
use super::config::{Overlay, PeerConfig};
use super::event::Event;
use super::gossip::Counters;
use super::gossip::rumors::Rumors;
use super::kv::replica::Replication;
use super::kv::request::StoreChange;
use super::kv::store::Store;
use super::machine::{Conn, EffectOf, Input, Machine};
use super::message::{Addr, Incarnation, Parting};
use super::registry::Registry;
use super::repeats::{Allowance, Repeats};
use super::roles::{PeerCommand, PeerReply, PublishError};
use super::signature::Signer;
use super::time::Time;
use super::timers::Timers;
use super::turn::PeerTurn;

/// A leaving peer waits at most this long for a seed to grant the leave; CONTRACT.md, section 1,
/// allows 2 s for the whole.
const LEAVE_PATIENCE: Duration = Duration::from_millis(1_300);
/// Once its leave was granted a peer stays this long, because the news of the leave takes a moment;
/// meanwhile it answers every caller that it is leaving.
const LAST_WORDS: Duration = Duration::from_millis(150);
/// A timer that fires at least this much too late shows that the process was asleep: it was
/// stopped, or starved of its processor.
const OVERSLEPT: Duration = Duration::from_millis(1_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Begin registering again.
    Register,
    /// Ask one more seed beside the one that is slow.
    Hedge,
    /// A request to a seed was not answered in time.
    SeedRequest(u64),
    /// Ask each seed what is new.
    Refresh,
    /// Tell a seed which links there are.
    Report,
    /// Look for links that are missing.
    Fill,
    /// Generate a message.
    Gossip,
    /// Ping neighbours, probe members and suspects, call those who were lost.
    Ping,
    /// A neighbour may have been silent for too long.
    Silence(Addr),
    /// A suspicion is neither confirmed nor refuted yet: press it again.
    Suspicion(Addr),
    /// A member did not answer a probe, which is not yet reason enough to suspect it: look again.
    Doubt(Addr),
    /// The link to a member was lost, and now it is this peer's turn to probe that member.
    Lost(Addr),
    /// A neighbour that has left has had the time for its last words.
    Farewell(Addr),
    /// Begin an anti-entropy round.
    Sync,
    /// A peer that was asked a question has had enough time to answer.
    Question(u64),
    /// The seeds have had enough time to grant the leave.
    Leave,
    /// This peer has no links, and nobody has called it for so long that it may take itself for the
    /// first of its network.
    Alone,
    /// A caller that came for one thing only may have stayed too long.
    Dismiss,
}

/// Whether a peer can be relied on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it can be relied on.
    pub ready: bool,
    /// The reason in words.
    pub reason: String,
    /// Seeds to which there is a connection right now.
    pub seeds_reachable: usize,
    /// Seeds configured.
    pub of: usize,
}

/// The peer itself: its settings, its source of randomness, and which of its lives this is.
#[derive(Debug)]
struct Life {
    config: PeerConfig,
    rng: SmallRng,
    incarnation: Incarnation,
    leaving: bool,
}

/// Who belongs to the peer's network, and who decides that.
#[derive(Debug)]
struct Membership {
    members: Registry,
    /// Who members were before.
    former: Former,
    kind: Kind,
}

/// The messages that this peer publishes and passes on.
#[derive(Debug)]
struct Broadcast {
    rumors: Rumors,
    /// Messages generated so far.
    generated: u64,
    calm: Calm,
}

/// What the peer has already told of clocks and in the log, so that it does not tell it again.
#[derive(Debug, Default)]
struct Told {
    clocks: Clocks,
    repeats: Repeats,
    notices: Allowance,
    /// Lines about those that are no members.
    strangers: Allowance,
}

/// A peer.
#[derive(Debug)]
pub struct PeerMachine {
    life: Life,
    sessions: Sessions,
    registration: Registration,
    overlay: Links,
    suspicion: Suspicions,
    prober: Prober,
    membership: Membership,
    broadcast: Broadcast,
    replica: Replication,
    questions: Questions,
    told: Told,
    timers: Timers<Timer>,
}

impl PeerMachine {
    /// A peer that knows nobody. `rng_seed` is the only source of all its random choices.
    pub fn new(config: PeerConfig, rng_seed: u64) -> Self {
        Self {
            sessions: Sessions::default(),
            registration: Registration::default(),
            overlay: Links::new(config.me, config.topology.clone()),
            suspicion: Suspicions::default(),
            prober: Prober::default(),
            membership: Membership {
                members: Registry::new(),
                former: Former::default(),
                kind: Kind::new(&config),
            },
            broadcast: Broadcast {
                rumors: Rumors::new(&config),
                generated: 0,
                calm: Calm::default(),
            },
            replica: Replication::new(Store::new("".into()), config.store.clone()),
            questions: Questions::default(),
            told: Told::default(),
            timers: Timers::default(),
            life: Life {
                rng: SmallRng::seed_from_u64(rng_seed),
                incarnation: 0,
                leaving: false,
                config,
            },
        }
    }

    /// Has the peer sign what it publishes, and take only messages that their origins have signed.
    #[must_use]
    pub fn signing(mut self, signer: Arc<dyn Signer>) -> Self {
        self.broadcast.rumors.sign_with(Some(signer));
        self
    }

    /// Its incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.life.incarnation
    }

    /// Whether a quorum of seeds has accepted this incarnation.
    pub fn is_registered(&self) -> bool {
        self.registration.is_registered()
    }

    /// Whether it can be relied on: a quorum of seeds has accepted it or, where peers tell each
    /// other who belongs to the network, its replica has what an existing one had.
    pub fn is_ready(&self) -> bool {
        self.readiness().ready
    }

    /// Whether it can be relied on, and why.
    pub fn readiness(&self) -> Readiness {
        let (seeds_reachable, of) =
            (self.seeds_reachable(), self.life.config.network.seeds().len());
        let (ready, reason) = if let Some(open) = self.membership.kind.open() {
            match (open.is_removed(), open.has_caught_up()) {
                (true, _) => (false, "removed from the network; PUT /view lets it in again".into()),
                (_, true) => (true, "caught up with the other replicas".into()),
                _ => (false, "no existing replica has told all that it has yet".into()),
            }
        } else if let Some(rejection) = self.rejection() {
            (false, format!("a quorum of seeds would not have it: {rejection}"))
        } else if !self.registration.is_registered() {
            (
                false,
                format!(
                    "not registered with a quorum of seeds ({} of {of})",
                    self.registration.accepted()
                ),
            )
        } else if seeds_reachable < self.life.config.network.quorum() && of > 0 {
            (true, "registered; a quorum of seeds cannot be reached at the moment".into())
        } else {
            (true, "registered with a quorum of seeds".into())
        };
        Readiness { ready, reason, seeds_reachable, of }
    }

    /// How long a request may wait for the writes that its metadata names.
    pub fn causal_wait(&self) -> Duration {
        self.life.config.store.causal_wait
    }

    /// Whether seeds decide who belongs to the peer's network.
    pub fn has_seeds(&self) -> bool {
        self.life.config.network.has_seeds()
    }

    /// The same peer, with the replica of the store that it found on disk.
    #[must_use]
    pub fn recovered(mut self, store: Store) -> Self {
        self.replica = Replication::new(store, self.life.config.store.clone());
        self
    }

    /// Its replica of the store.
    pub fn replica(&self) -> &Replication {
        &self.replica
    }

    /// Whether it suspects a member right now.
    pub fn suspects(&self, peer: &Addr) -> bool {
        self.suspicion.contains(peer)
    }

    /// What this peer knows of the registry.
    pub fn members(&self) -> &Registry {
        &self.membership.members
    }

    /// Counts of what happened to messages while they spread.
    pub fn counters(&self) -> &Counters {
        self.broadcast.rumors.counters()
    }

    /// Clocks that disagree with this peer's.
    pub fn clocks(&self) -> &Clocks {
        &self.told.clocks
    }

    /// The messages that this peer holds, and what crossed each link.
    pub fn rumors(&self) -> &Rumors {
        &self.broadcast.rumors
    }

    fn start(&mut self, turn: &mut PeerTurn<'_>) {
        self.life.incarnation = turn.now.millis();
        self.broadcast.rumors.start(turn.now, self.life.incarnation);
        let name = format!("{}@{}", self.life.config.me, self.life.incarnation);
        if self.life.config.store.replicates {
            self.replica.start(turn, name.into());
        }
        self.prober.awake(turn.now);
        turn.log(Event::PeerListening { incarnation: self.life.incarnation });
        let ping = self.jitter(self.life.config.detection.ping_interval);
        self.timers.set(Timer::Ping, turn.now + ping);
        let sync = self.jitter(self.life.config.sync.sync_interval);
        self.timers.set(Timer::Sync, turn.now + sync);
        if self.life.config.network.has_seeds() {
            self.begin_registration(turn);
        } else {
            self.begin_without_seeds(turn);
        }
    }

    fn leave(&mut self, turn: &mut PeerTurn<'_>) {
        if self.life.leaving {
            return;
        }
        self.life.leaving = true;
        for timer in [Timer::Register, Timer::Hedge, Timer::Refresh, Timer::Fill, Timer::Gossip] {
            self.timers.cancel(&timer);
        }
        let links: Vec<Conn> = self.overlay.conns();
        self.replica.hand_over(turn, &self.broadcast.rumors.paths());
        self.tell_that_i_leave(turn, links.clone());
        turn.send_many(links, Parting::Leaving);
        if !self.registration.has_asked() {
            self.stop(turn);
            return;
        }
        self.timers.set(Timer::Leave, turn.now + LEAVE_PATIENCE);
        self.ask_to_leave(turn);
    }

    /// The embedding program or the operator wants something.
    fn command(&mut self, turn: &mut PeerTurn<'_>, command: PeerCommand) {
        match command {
            PeerCommand::Store { token, request, seen } => {
                let paths = self.broadcast.rumors.paths();
                self.replica.ask(turn, token, request, seen, &paths);
            }
            PeerCommand::Publish { token, payload } => {
                let result = if self.life.leaving {
                    Err(PublishError::Leaving)
                } else {
                    self.broadcast.rumors.publish(turn, payload)
                };
                turn.published(token, result);
            }
            PeerCommand::Operate { token, order } => self.operate(turn, token, order),
            PeerCommand::Leave => self.leave(turn),
        }
    }

    /// Acts on the deaths that peers have decided. They wait in `suspicions`, because `liveness`,
    /// which decides them, may not call `open`, which acts on them.
    fn act_upon_decided(&mut self, turn: &mut PeerTurn<'_>) {
        while let Some(decided) = self.suspicion.take_decided() {
            self.commit_dead(turn, decided);
        }
    }

    fn fire(&mut self, turn: &mut PeerTurn<'_>, timer: Timer) {
        match timer {
            Timer::Register => self.begin_registration(turn),
            Timer::Hedge => self.ask_next_seed(turn),
            Timer::SeedRequest(request) => self.request_timed_out(turn, request),
            Timer::Refresh => self.refresh(turn),
            Timer::Fill => self.fill(turn),
            Timer::Gossip => self.generate(turn),
            Timer::Ping => {
                self.timers.set(Timer::Ping, turn.now + self.life.config.detection.ping_interval);
                self.unlink_strangers(turn);
                self.call_the_lost(turn);
                if self.life.config.topology.overlay == Overlay::ScaleFree {
                    self.ping_neighbours(turn);
                    self.probe_somebody(turn);
                } else {
                    self.ping_the_silent(turn);
                }
                self.probe_a_suspect(turn);
            }
            Timer::Silence(peer) => self.check_silence(turn, peer),
            Timer::Suspicion(peer) => self.press_on(turn, peer),
            Timer::Doubt(peer) => self.look_again(turn, peer),
            Timer::Lost(peer) => self.look_at_lost(turn, peer),
            Timer::Farewell(peer) => self.unlink_if_gone(turn, peer),
            Timer::Report => self.report_links(turn),
            Timer::Sync => {
                self.begin_sync_round(turn);
            }
            Timer::Question(token) => self.question_failed(turn, token, "no answer in time"),
            Timer::Leave => self.stop(turn),
            Timer::Alone => self.check_caught_up(turn),
            Timer::Dismiss => self.dismiss_callers(turn),
        }
    }
}

impl Machine for PeerMachine {
    type Command = PeerCommand;
    type Reply = PeerReply;
    type Change = StoreChange;

    fn handle(
        &mut self,
        now: Time,
        input: Input<Self::Command>,
        effects: &mut Vec<EffectOf<Self>>,
    ) {
        let turn = &mut PeerTurn { now, effects };
        // This comes before the input is looked at: after a sleep, what arrived meanwhile or did
        // not arrive proves nothing.
        if let Some(due) = self.timers.next()
            && now.since(due) > OVERSLEPT
            && self.life.incarnation > 0
        {
            self.wake_up(turn, now.since(due));
        }
        match input {
            Input::Start => self.start(turn),
            Input::Incoming { conn, hello } => self.incoming(turn, conn, &hello),
            Input::Opened { conn, welcome } => self.open_result(turn, conn, Ok(welcome)),
            Input::OpenFailed { conn, error } => self.open_result(turn, conn, Err(error)),
            Input::Received { conn, message } => self.received(turn, conn, message),
            Input::Closed { conn } => self.line_down(turn, conn, true),
            Input::Congested { conn } => self.broadcast.rumors.set_congested(conn, true),
            Input::Relieved { conn } => {
                self.broadcast.rumors.set_congested(conn, false);
                self.broadcast.rumors.begin_sync(turn, conn, true);
                // A guest's connection is for messages alone, so nothing of the store is said over
                // it.
                if self.is_neighbour(conn) {
                    self.replica.begin_sync(turn, conn);
                }
            }
            Input::Tick => {}
            Input::Persisted { batch } => {
                self.replica.persisted(turn, batch, &self.broadcast.rumors.paths());
            }
            Input::Command(command) => self.command(turn, command),
        }
        self.act_upon_decided(turn);
        while let Some((_, timer)) = self.timers.due(now) {
            self.fire(turn, timer);
            self.act_upon_decided(turn);
        }
        self.broadcast.rumors.tick(turn, &mut self.life.rng);
        if self.replica.wake_at().is_some_and(|at| at <= now) {
            let (me, members) = (self.life.config.me, &self.membership.members);
            let is_member = |addr| addr == me || members.alive(&addr).is_some();
            self.replica.tick(turn, &self.broadcast.rumors.paths(), is_member);
        }
    }

    fn wake_at(&self) -> Option<Time> {
        let wishes = [self.timers.next(), self.broadcast.rumors.wake_at(), self.replica.wake_at()];
        wishes.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
