//! The probes of a peer: those under way, the members in doubt, and the members whose link was
//! lost.
//!
//! What must stay true: a probe that found nothing proves something only if this process was awake
//! meanwhile, and silence proves something only after the suspect timeout.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Incarnation};
use crate::proto::registry::Registry;
use crate::proto::time::Time;

/// Probes under way at once. Beyond this many, no further one is begun because another peer asks.
const MAX_PROBES: usize = 256;

/// Members in doubt at once. A peer looks at one now and then, so more are a wave, in which others find
/// the rest.
const MAX_DOUBTS: usize = 4_096;

/// Why a member is being probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// The link to it was lost without a word.
    LinkLost,
    /// An attempt to link with it failed.
    NotLinked,
    /// It was its turn: members that are no neighbours are watched too.
    Turn,
    /// This peer suspects it, and it may have come back.
    Again,
    /// Another peer suspects it and asks this one to look.
    Notice { conn: Conn, from: Addr, incarnation: Incarnation },
}

/// What a probe without an answer has shown of a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub hard: bool,
    pub asked: bool,
    pub reason: &'static str,
}

/// A probe under way.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub peer: Addr,
    pub incarnation: Incarnation,
    pub why: BTreeSet<Why>,
    pub began: Time,
    pub second: bool,
}

impl Probe {
    /// What it shows of the member that nobody answered this probe.
    pub fn found(&self, hard: bool) -> Found {
        let lost = self.why.contains(&Why::LinkLost);
        let notice = self.why.iter().any(|why| matches!(why, Why::Notice { .. }));
        let reason = match (lost, notice, hard) {
            (true, _, true) => "link lost and connection refused",
            (true, _, false) => "link lost and no answer to a handshake",
            (false, true, true) => "noticed by another peer and connection refused",
            (false, true, false) => "noticed by another peer and no answer to a handshake",
            (false, false, true) => "connection refused",
            (false, false, false) => "no answer to handshakes for the suspect timeout",
        };
        // A peer that looked only because it was asked to answers whoever asked, and asks nobody
        // else: if it did, every death would wake the whole network.
        let asked = self.why.iter().all(|why| matches!(why, Why::Notice { .. }));
        Found { hard, asked, reason }
    }

    /// Whether there was a reason to expect that this probe finds nobody.
    fn is_expected(&self) -> bool {
        let expects = |why: &Why| matches!(why, Why::LinkLost | Why::Again | Why::Notice { .. });
        self.why.iter().any(expects)
    }
}

/// What follows from an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It proves nothing: the probe is made once more, at once.
    Again,
    /// It proves nothing yet: the member is in doubt, and is looked at again at this time.
    Doubt(Time),
    /// It proves nothing, and there is no room for one more member in doubt.
    Nothing,
    /// The member was not found; `hard` if it is known to be unreachable and not merely silent.
    NotFound { hard: bool },
}

/// What became of one more reason to probe a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// A probe is under way, which serves this reason too.
    UnderWay,
    /// The caller has to begin a probe.
    Begin,
    /// Too many probes are under way for this reason.
    Dropped,
}

/// The probes of a peer.
#[derive(Debug, Default)]
pub(super) struct Prober {
    probes: BTreeMap<Conn, Probe>,
    /// Members whose link was lost and that are still to be looked at, each with the incarnation
    /// that was linked.
    lost: BTreeMap<Addr, Incarnation>,
    /// Members that did not answer a probe, and when the first such probe began.
    doubts: BTreeMap<Addr, Time>,
    /// Silence and failed probes that began before this time prove nothing: the process slept.
    awake_since: Time,
}

impl Prober {
    /// Notes that the process has just woken up, or has started.
    pub fn awake(&mut self, now: Time) {
        self.awake_since = now;
    }

    /// Adds a further reason to a probe of this peer that is under way, or drops a notice when too
    /// many probes are.
    pub fn join(&mut self, peer: Addr, why: Why) -> Joined {
        if let Some(probe) = self.probes.values_mut().find(|probe| probe.peer == peer) {
            probe.why.insert(why);
            return Joined::UnderWay;
        }
        let full = matches!(why, Why::Notice { .. }) && self.probes.len() >= MAX_PROBES;
        if full { Joined::Dropped } else { Joined::Begin }
    }

    /// Notes that a probe goes out over this connection.
    pub fn insert(&mut self, conn: Conn, probe: Probe) {
        self.probes.insert(conn, probe);
    }

    /// A probe has ended. Returns it.
    pub fn remove(&mut self, conn: Conn) -> Option<Probe> {
        self.probes.remove(&conn)
    }

    /// What follows from a failed attempt, where neighbours are pinged every `ping` and silence is
    /// suspected after `suspect`.
    pub fn failed(
        &mut self,
        now: Time,
        probe: &Probe,
        error: &OpenError,
        (ping, suspect): (Duration, Duration),
    ) -> Failed {
        let hard = *error != OpenError::TimedOut;
        let expected = probe.is_expected();
        // A time-out proves nothing if this process slept meanwhile; and a refusal that nobody had
        // a reason to expect deserves a second look.
        let slept = !hard && probe.began < self.awake_since;
        if slept || (hard && !probe.second && !expected) {
            return Failed::Again;
        }
        if hard || expected {
            return Failed::NotFound { hard };
        }
        // Silence is suspicion only after the suspect timeout, for a stranger as for a neighbour:
        // until then a member that did not answer in time is looked at again.
        if self.doubts.len() >= MAX_DOUBTS && !self.doubts.contains_key(&probe.peer) {
            return Failed::Nothing;
        }
        let first = *self.doubts.entry(probe.peer).or_insert(probe.began);
        let end = first + suspect;
        if now >= end {
            self.doubts.remove(&probe.peer);
            return Failed::NotFound { hard };
        }
        Failed::Doubt((now + ping).min(end))
    }

    /// The member is no longer in doubt.
    pub fn settle(&mut self, peer: &Addr) {
        self.doubts.remove(peer);
    }

    /// Notes that a member whose link was lost is to be looked at later.
    pub fn lose(&mut self, peer: Addr, incarnation: Incarnation) {
        self.lost.insert(peer, incarnation);
    }

    /// Number of peers of which there is no record and that are looked at, or are to be, because a
    /// link to them was lost.
    pub fn strangers(&self, members: &Registry) -> usize {
        let probed = self.probes.values().filter(|probe| probe.why.contains(&Why::LinkLost));
        let all = probed.map(|probe| &probe.peer).chain(self.lost.keys());
        all.filter(|peer| members.get(peer).is_none()).count()
    }

    /// Takes out a member whose link was lost, now that it is looked at. Returns the incarnation
    /// that was linked.
    pub fn take_lost(&mut self, peer: &Addr) -> Option<Incarnation> {
        self.lost.remove(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_probe_says() {
        let peer = ([127, 0, 0, 1], 6000).into();
        let (ping, suspect) = (Duration::from_secs(5), Duration::from_secs(15));
        let began = Time::from_millis(60_000);
        let notice = Why::Notice { conn: 1, from: peer, incarnation: 1 };
        let (unreachable, silent) = (OpenError::Unreachable, OpenError::TimedOut);
        let (hard, soft) = (Failed::NotFound { hard: true }, Failed::NotFound { hard: false });
        type Row = (Why, bool, bool, OpenError, Failed);
        // The reason, whether it is the second attempt, whether this process slept, the error, what
        // follows.
        let table: Vec<Row> = vec![
            (Why::Turn, false, false, unreachable.clone(), Failed::Again),
            (Why::Turn, true, false, unreachable.clone(), hard),
            (Why::LinkLost, false, false, unreachable.clone(), hard),
            (notice, false, false, unreachable.clone(), hard),
            (Why::NotLinked, true, false, unreachable, hard),
            (Why::Turn, false, false, silent.clone(), Failed::Doubt(began + ping)),
            (Why::LinkLost, false, false, silent.clone(), soft),
            (Why::Again, false, false, silent.clone(), soft),
            (notice, false, true, silent, Failed::Again),
        ];
        for (why, second, slept, error, expected) in table {
            let mut prober = Prober::default();
            prober.awake(if slept { began + ping } else { Time::default() });
            let why = BTreeSet::from([why]);
            let probe = Probe { peer, incarnation: 1, why, began, second };
            let said = prober.failed(began, &probe, &error, (ping, suspect));
            assert_eq!(said, expected, "{probe:?}, {error:?}");
        }
    }

    #[test]
    fn a_stranger_that_stays_silent_is_suspected_after_the_suspect_timeout() {
        let peer = ([127, 0, 0, 1], 6000).into();
        let (ping, suspect) = (Duration::from_secs(5), Duration::from_secs(12));
        let (start, mut prober) = (Time::from_millis(60_000), Prober::default());
        let (mut now, mut looks) = (start, 0);
        let end = loop {
            let why = BTreeSet::from([Why::Turn]);
            let probe = Probe { peer, incarnation: 1, why, began: now, second: false };
            looks += 1;
            match prober.failed(now, &probe, &OpenError::TimedOut, (ping, suspect)) {
                Failed::Doubt(next) => now = next,
                other => break other,
            }
        };
        assert_eq!(end, Failed::NotFound { hard: false });
        assert_eq!((now, looks), (start + suspect, 4));
    }
}
