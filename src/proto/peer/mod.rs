//! The peer: registers with the seeds, links up, gossips, watches its
//! neighbours (DESIGN.md, section 4).
//!
//! `lines` says who may say what over which connection, `seeds` talks to the seeds,
//! `open` does without them, `overlay` keeps the links, `probe` and `liveness` find
//! out who is dead, `sync` compares, `ask` serves the operator, `gossip` (beside
//! this module) spreads messages; this file holds them together.

mod ask;
mod calm;
mod lines;
mod links;
mod liveness;
mod membership;
pub mod message;
mod open;
mod openness;
mod overlay;
mod probe;
mod prober;
mod questions;
mod registration;
mod report;
mod seeds;
mod sessions;
mod suspicions;
mod sync;
mod testimony;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use self::links::Links;
use self::openness::Openness;
use self::prober::Prober;
use self::questions::Questions;
use self::registration::Registration;
use self::sessions::{Dial, Line, Sessions};
use self::suspicions::Suspicions;

use self::calm::Calm;
use self::testimony::Testimony;
use super::clocks::Clocks;
use super::config::{Overlay, PeerConfig, StoreConfig};
use super::event::Event;
use super::gossip::Counters;
use super::gossip::rumors::Rumors;
use super::kv::replica::Replication;
use super::kv::request::StoreChange;
use super::kv::store::Store;
use super::machine::{Conn, EffectOf, Input, Machine};
use super::message::{Addr, Hello, Incarnation, Parting, Purpose, Role};
use super::registry::{MAX_AHEAD_MILLIS, Registry};
use super::repeats::Repeats;
use super::roles::{PeerCommand, PeerReply, PublishError};
use super::time::Time;
use super::timers::Timers;
use super::turn::PeerTurn;

/// A leave is over after this long at the latest; CONTRACT.md, section 1, allows 2 s.
const LEAVE_PATIENCE: Duration = Duration::from_millis(1_300);
/// After its leave was granted a peer stays this long, and answers whoever looks at it that it is
/// leaving: the news of the leave takes a moment.
const LAST_WORDS: Duration = Duration::from_millis(150);
/// A timer that fires this much too late says that the process was asleep: it was stopped, or
/// starved of its processor.
const OVERSLEPT: Duration = Duration::from_millis(1_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Begin registering again.
    Register,
    /// Ask one more seed beside the one that is slow.
    Hedge,
    /// A request to a seed was not answered in time.
    Request(u64),
    /// Ask a seed what is new.
    Refresh,
    /// Tell a seed which links there are.
    Report,
    /// Look for links that are missing.
    Fill,
    /// Generate a message.
    Gossip,
    /// Ping all neighbours, and probe one random member.
    Ping,
    /// A neighbour may have been silent for too long.
    Silence(Addr),
    /// A suspicion that is not settled.
    Suspicion(Addr),
    /// A member that did not answer, before that is reason to suspect it.
    Doubt(Addr),
    /// The link to a member was lost, and it is this peer's turn to look.
    Lost(Addr),
    /// A neighbour that has left has had the time for its last words.
    Farewell(Addr),
    /// Begin an anti-entropy round.
    Sync,
    /// A peer that was asked something has had long enough.
    Question(u64),
    /// The leave has taken long enough.
    Leave,
    /// Nobody has called this peer, which is alone, for long enough.
    Alone,
    /// Somebody who called for one thing only may have stayed for too long.
    Dismiss,
}

/// Whether a peer can be relied on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it can.
    pub ready: bool,
    /// In words.
    pub reason: String,
    /// Seeds to which there is a connection right now.
    pub seeds_reachable: usize,
    /// Seeds configured.
    pub of: usize,
}

/// What a peer is, and the chance that it has.
#[derive(Debug)]
struct Life {
    config: PeerConfig,
    rng: SmallRng,
    incarnation: Incarnation,
    leaving: bool,
}

/// Who belongs to its network, and who says so.
#[derive(Debug)]
struct Membership {
    members: Registry,
    /// What each seed says of the members, where that differs from `members`.
    testimony: Testimony,
    /// Changes of `members` that seeds have brought about, counted.
    members_version: u64,
    /// Digest of `members`, and of which version.
    digest_of: Option<(u64, [u8; 32])>,
    open: Openness,
}

/// What it says, and what others say.
#[derive(Debug)]
struct Broadcast {
    rumors: Rumors,
    /// Messages generated so far.
    generated: u64,
    calm: Calm,
}

/// What it tells of others' clocks, and what it has told already.
#[derive(Debug, Default)]
struct Told {
    clocks: Clocks,
    repeats: Repeats,
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
    /// A peer that knows nobody. `rng_seed` decides everything that is left to chance.
    pub fn new(config: PeerConfig, rng_seed: u64) -> Self {
        let StoreConfig { causal_wait, seal_from, .. } = config.store;
        Self {
            sessions: Sessions::default(),
            registration: Registration::default(),
            overlay: Links::new(config.me, config.topology.clone()),
            suspicion: Suspicions::default(),
            prober: Prober::default(),
            membership: Membership {
                members: Registry::new(),
                testimony: Testimony::new(config.network.seeds().len(), config.network.quorum()),
                members_version: 0,
                digest_of: None,
                open: Openness::default(),
            },
            broadcast: Broadcast {
                rumors: Rumors::new(&config),
                generated: 0,
                calm: Calm::default(),
            },
            replica: Replication::new(Store::new("".into()), causal_wait, seal_from),
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

    /// Its incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.life.incarnation
    }

    /// Whether a quorum of seeds has accepted this incarnation.
    pub fn is_registered(&self) -> bool {
        self.registration.is_registered()
    }

    /// Whether it can be relied on: a quorum of seeds has accepted it or, where peers tell each other
    /// who belongs to the network, its replica has what an existing one had.
    pub fn is_ready(&self) -> bool {
        self.readiness().ready
    }

    /// Whether it can be relied on, and why.
    pub fn readiness(&self) -> Readiness {
        let (seeds_reachable, of) =
            (self.seeds_reachable(), self.life.config.network.seeds().len());
        let (ready, reason) = if self.is_open() {
            match (self.is_removed(), self.has_caught_up()) {
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

    /// Whether seeds decide who belongs to its network.
    pub fn has_seeds(&self) -> bool {
        self.life.config.network.has_seeds()
    }

    /// A peer that had this replica of the store on disk.
    #[must_use]
    pub fn recovered(mut self, store: Store) -> Self {
        let StoreConfig { causal_wait, seal_from, .. } = self.life.config.store;
        self.replica = Replication::new(store, causal_wait, seal_from);
        self
    }

    /// Its replica of the store.
    pub fn replica(&self) -> &Replication {
        &self.replica
    }

    /// Its neighbours.
    pub fn neighbours(&self) -> Vec<Addr> {
        self.overlay.peers().copied().collect()
    }

    /// Whether it suspects a member right now.
    pub fn suspects(&self, peer: &Addr) -> bool {
        self.suspicion.contains(peer)
    }

    /// What it knows of the registry.
    pub fn members(&self) -> &Registry {
        &self.membership.members
    }

    /// What happened in the spreading of messages.
    pub fn counters(&self) -> &Counters {
        self.broadcast.rumors.counters()
    }

    /// Clocks that disagree with this peer's.
    pub fn clocks(&self) -> &Clocks {
        &self.told.clocks
    }

    /// The gossip half.
    pub fn rumors(&self) -> &Rumors {
        &self.broadcast.rumors
    }

    fn hello(&self, purpose: Purpose) -> Hello {
        self.life.config.network.hello(
            Role::Peer,
            self.life.config.me,
            self.life.incarnation,
            purpose,
        )
    }

    fn dial(&mut self, turn: &mut PeerTurn<'_>, to: Addr, purpose: Purpose, dial: Dial) -> Conn {
        let conn = self.sessions.dial(dial);
        let hello = self.hello(purpose);
        turn.open(conn, to, hello, self.life.config.detection.probe_timeout);
        conn
    }

    fn jitter(&mut self, around: Duration) -> Duration {
        around.mul_f64(self.life.rng.random_range(0.75..1.25))
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

    fn generate(&mut self, turn: &mut PeerTurn<'_>) {
        if self.life.leaving || self.broadcast.generated >= self.life.config.broadcast.gossip_count
        {
            return;
        }
        self.broadcast.generated += 1;
        // Two peers on one host may speak in the same millisecond, and the text has no port: the
        // last three digits of the time are the port's, so that no two say the same.
        let micros = turn.now.micros();
        let at = Time::from_micros(
            micros - micros % 1_000 + u64::from(self.life.config.me.port() % 1_000),
        );
        let ip = match self.life.config.me.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            // In brackets, so that the message still splits at its colons.
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let text = format!("{at}:{ip}:{}", self.broadcast.generated);
        // Far below any limit: it cannot be refused.
        let _ = self.broadcast.rumors.publish(turn, Bytes::from(text));
        if self.broadcast.generated < self.life.config.broadcast.gossip_count {
            self.timers.set(Timer::Gossip, turn.now + self.life.config.broadcast.gossip_interval);
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

    fn stop(&mut self, turn: &mut PeerTurn<'_>) {
        for conn in self.sessions.take_all() {
            turn.close(conn);
        }
        turn.stopped();
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

    fn is_departing(&self, now: Time, peer: &Addr) -> bool {
        self.suspicion.is_departing(now, &self.membership.members, peer)
    }

    fn fire(&mut self, turn: &mut PeerTurn<'_>, timer: Timer) {
        match timer {
            Timer::Register => self.begin_registration(turn),
            Timer::Hedge => self.ask_next_seed(turn),
            Timer::Request(request) => self.request_timed_out(turn, request),
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

/// Whether an incarnation that somebody names can be true. Far in the future it can only be a lie,
/// which must not make this peer's own incarnation useless for good.
fn is_believable(incarnation: Incarnation, now: Time) -> bool {
    incarnation < now.millis().saturating_add(MAX_AHEAD_MILLIS)
}

/// Up to `many` distinct places below `len`, in random order.
fn sample(rng: &mut SmallRng, len: usize, many: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..len).collect();
    let many = many.min(len);
    for place in 0..many {
        let other = rng.random_range(place..len);
        places.swap(place, other);
    }
    places.truncate(many);
    places
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
        // Before anything that arrived meanwhile is believed or missed.
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
                // A guest is here for messages alone.
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
        while let Some((_, timer)) = self.timers.due(now) {
            self.fire(turn, timer);
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
