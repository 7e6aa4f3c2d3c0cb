//! What a peer asks of its seeds: to register it, to tell it what is new, to let it leave. It also
//! reports which links it holds, for the picture that the seeds keep of the overlay (DESIGN.md,
//! section 3). `seeds` hears the answers.
//!
//! What must stay true: a seed that is down or hangs costs no more than the time after which
//! another one is asked as well.

use std::time::Duration;

use rand::RngExt;

use super::common::sample;
use super::membership::Kind;
use super::registration::Wish;
use super::sessions::Session;
use super::{Membership, PeerMachine, Timer};
use crate::proto::event::Severity;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, ToSeed, Welcome};
use crate::proto::registry::Status;
use crate::proto::turn::PeerTurn;

/// When a seed has not answered after this long, another one is asked as well. It is a few round
/// trips over an ocean, and far less than the deadline of the request.
const HEDGE: Duration = Duration::from_millis(300);
/// Time that a seed may take beyond the probe and the vote that a request needs.
const REQUEST_MARGIN: Duration = Duration::from_millis(900);
/// A peer asks each seed this often what is new; seeds also tell by themselves.
const REFRESH: Duration = Duration::from_secs(10);
/// After the connection to a seed is lost the seeds are asked this soon, because that seed may have
/// been about to send news. While fewer than a quorum of the seeds are connected, the pause doubles
/// up to the usual one.
const REFRESH_SOON: Duration = Duration::from_millis(500);

impl PeerMachine {
    pub(super) fn quorum(&self) -> usize {
        self.life.config.network.quorum()
    }

    /// Begins an attempt: the seeds that have not accepted yet are asked in random order.
    pub(super) fn begin_registration(&mut self, turn: &mut PeerTurn<'_>) {
        if self.life.leaving || self.registration.is_registered() {
            return;
        }
        self.timers.cancel(&Timer::Register);
        let seeds = self.registration.missing(self.life.config.network.seeds());
        let order = sample(&mut self.life.rng, seeds.len(), seeds.len());
        let order = order.into_iter().filter_map(|place| seeds.get(place).copied());
        self.registration.ask(order.collect());
        self.ask_next_seed(turn);
    }

    pub(super) fn ask_next_seed(&mut self, turn: &mut PeerTurn<'_>) {
        self.timers.cancel(&Timer::Hedge);
        if self.life.leaving {
            self.ask_next_to_leave(turn);
            return;
        }
        if self.registration.is_registered() {
            return;
        }
        let wish = Wish::Register(self.life.incarnation);
        if let Some(seed) = self.registration.next_to_ask() {
            self.request(turn, seed, wish);
            self.timers.set(Timer::Hedge, turn.now + HEDGE);
        } else if !self.registration.is_asking(wish) {
            let jitter = self.life.rng.random_range(0.5..1.0);
            let (failed, pause) = self.registration.attempt_failed();
            if failed == 3 {
                let accepted = format!("{}/{}", self.registration.accepted(), self.quorum());
                let advice = "are enough seeds running and reachable?".to_owned();
                let keys = vec![("accepted", accepted), ("advice", advice)];
                turn.note(Severity::Warn, "not registered yet", keys);
            }
            self.timers.set(Timer::Register, turn.now + pause.mul_f64(jitter));
        }
    }

    pub(super) fn request(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, wish: Wish) {
        // There are seeds to ask only where seeds decide who belongs to the network.
        let Membership { members, kind: Kind::Voted(voted), .. } = &mut self.membership else {
            return;
        };
        let request = self.registration.begin(turn.now, seed, wish, voted.version());
        let incarnation = self.life.incarnation;
        let message = match wish {
            Wish::Register(incarnation) => ToSeed::Register { request, incarnation },
            Wish::Leave => ToSeed::Leave { request, incarnation },
            Wish::Refresh => ToSeed::Refresh { request, digest: voted.digest(members) },
        };
        let patience = self.life.config.detection.probe_timeout * 2 + REQUEST_MARGIN;
        self.timers.set(Timer::SeedRequest(request), turn.now + patience);
        self.say(turn, seed, message);
    }

    fn fail_requests_to(&mut self, turn: &mut PeerTurn<'_>, seed: Addr) {
        for request in self.registration.requests_of(&seed) {
            self.request_failed(turn, request);
        }
    }

    /// The seed hangs: gives up its connection, so that the next request opens a new one.
    pub(super) fn request_timed_out(&mut self, turn: &mut PeerTurn<'_>, request: u64) {
        if let Some(conn) = self.registration.give_up(request) {
            self.sessions.remove(conn);
            turn.close(conn);
        }
        self.request_failed(turn, request);
    }

    pub(super) fn request_failed(&mut self, turn: &mut PeerTurn<'_>, request: u64) {
        self.timers.cancel(&Timer::SeedRequest(request));
        let Some(request) = self.registration.end(request) else { return };
        match request.wish {
            Wish::Register(incarnation) if incarnation == self.life.incarnation => {
                self.ask_next_seed(turn);
            }
            Wish::Register(_) => {}
            Wish::Leave => self.ask_next_to_leave(turn),
            Wish::Refresh => {
                if self.registration.connected() < self.quorum() && !self.life.leaving {
                    let pause = self.registration.refresh_failed(REFRESH_SOON);
                    let soon = self.jitter(pause.min(REFRESH));
                    self.timers.set_earlier(Timer::Refresh, turn.now + soon);
                }
            }
        }
    }

    pub(super) fn seed_answers(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        seed: Addr,
        result: Result<Welcome, OpenError>,
    ) {
        let Err(error) = result else {
            self.sessions.insert(conn, Session::Seed(seed));
            self.registration.connect(turn, &seed, conn);
            return;
        };
        let refused = match &error {
            OpenError::Refused(refusal) => Some(refusal.reason.words().to_owned()),
            _ => None,
        };
        let (what, severity) = match &refused {
            Some(reason) => {
                let what = "seed refused the link";
                let news = self.told.repeats.is_news(turn.now, what, seed, reason);
                (what, if news { Severity::Warn } else { Severity::Debug })
            }
            None => ("seed not reached", Severity::Debug),
        };
        let keys = vec![("seed", seed.to_string()), ("reason", open_error_words(&error))];
        turn.note(severity, what, keys);
        self.registration.not_connected(&seed, refused);
        self.fail_requests_to(turn, seed);
    }

    pub(super) fn seed_lost(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, seed: Addr) {
        if self.registration.disconnect(&seed, conn) {
            self.fail_requests_to(turn, seed);
            if self.registration.is_registered() && !self.life.leaving {
                let soon = self.jitter(REFRESH_SOON);
                self.timers.set_earlier(Timer::Refresh, turn.now + soon);
            }
        }
    }

    /// Asks each seed for what is new.
    pub(super) fn refresh(&mut self, turn: &mut PeerTurn<'_>) {
        let pause = self.jitter(REFRESH);
        self.timers.set(Timer::Refresh, turn.now + pause);
        if self.life.leaving {
            return;
        }
        for seed in self.life.config.network.seeds().to_vec() {
            if !self.registration.is_refreshing(&seed) {
                self.request(turn, seed, Wish::Refresh);
            }
        }
        self.report_links(turn);
    }

    /// Reports the links to a seed that is connected; if none is, the next refresh reports them.
    pub(super) fn report_links(&mut self, turn: &mut PeerTurn<'_>) {
        if let Some(seed) = self.registration.first_connected() {
            self.report_links_to(turn, seed);
        }
    }

    /// Reports the links to one seed.
    fn report_links_to(&mut self, turn: &mut PeerTurn<'_>, seed: Addr) {
        if self.registration.is_registered() && !self.life.leaving {
            // Time never goes back within a life, so it orders the reports.
            let number = turn.now.micros();
            let neighbours = self.overlay.peers().copied().collect();
            self.say(turn, seed, ToSeed::Links { number, neighbours });
        }
    }

    /// Asks the seeds to commit the leave, the connected ones first.
    pub(super) fn ask_to_leave(&mut self, turn: &mut PeerTurn<'_>) {
        let mut seeds: Vec<Addr> = self.life.config.network.seeds().to_vec();
        seeds.sort_by_key(|seed| self.registration.is_connected(seed));
        self.registration.ask(seeds);
        self.ask_next_to_leave(turn);
    }

    fn ask_next_to_leave(&mut self, turn: &mut PeerTurn<'_>) {
        if let Some(seed) = self.registration.next_to_ask() {
            self.request(turn, seed, Wish::Leave);
            self.timers.set(Timer::Hedge, turn.now + HEDGE);
        } else if !self.registration.is_asking(Wish::Leave) {
            self.stop(turn);
        }
    }

    /// Number of seeds to which there is a connection.
    pub fn seeds_reachable(&self) -> usize {
        self.registration.connected()
    }

    /// Why a quorum of the seeds would not have this peer as a member, if a quorum would not: each
    /// of them refuses it, or has it in its list as dead or left.
    pub(super) fn rejection(&self) -> Option<String> {
        let me = self.life.config.me;
        let mut reasons: Vec<String> = Vec::new();
        for seed in self.life.config.network.seeds() {
            let refused = self.registration.refusal(seed);
            let told = self.membership.kind.word(&self.membership.members, seed, &me);
            let gone = || match told? {
                Some(record) if record.incarnation < self.life.incarnation => None,
                Some(record) => match record.status {
                    Status::Alive => None,
                    Status::Left => Some("it has this peer as left".to_owned()),
                    Status::Dead => Some("it has this peer as dead".to_owned()),
                },
                None => None,
            };
            reasons.extend(refused.or_else(gone).map(|reason| format!("{seed}: {reason}")));
        }
        (reasons.len() >= self.quorum()).then(|| reasons.join("; "))
    }
}

/// Why a connection did not come to be, in words.
pub(super) fn open_error_words(error: &OpenError) -> String {
    match error {
        OpenError::Unreachable => "connection refused".to_owned(),
        OpenError::TimedOut => "no answer in time".to_owned(),
        OpenError::Refused(refusal) => refusal.reason.words().to_owned(),
        OpenError::Garbage => "something else listens there".to_owned(),
        OpenError::Local => "this process is out of descriptors or memory".to_owned(),
    }
}
