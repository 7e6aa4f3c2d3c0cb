//! When a seed may vote.
//!
//! A seed that starts with an empty disk cannot tell whether it ever had another one, so its word
//! is worth nothing until it knows what was answered for. That is on the disks of a quorum Q of the
//! n seeds, itself perhaps among them. So it must first have read n-Q+1 others that hold what they
//! ever held. If fewer others vote, it must hear all others and have read each one that votes. In a
//! new network nobody ever held anything. There a quorum of seeds that know nothing founds the
//! network, in two steps, so that none votes before a quorum has written down that it takes part.
//!
//! What must stay true: a seed whose disk was lost does not vote before it holds what was answered
//! for, as long as no majority of disks is lost (a disk that was never written counts as lost).
//! Where a majority is lost, the seeds that are left cannot tell, and found a new network. A seed
//! that still holds the earlier one says so when they meet, and keeps a copy. A seed that has its
//! disk also compares before it votes, if it can do so soon.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::ballot::{Other, SeedNumber, Waiter};
use crate::proto::event::Severity;
use crate::proto::message::{Addr, Change, Standing};
use crate::proto::time::Time;
use crate::proto::timers::Timers;
use crate::proto::turn::SeedTurn;

/// How long a fresh seed waits to hear all others before it founds a network without them.
const FOUNDING_PATIENCE: Duration = Duration::from_millis(1_500);
/// A seed with its disk votes after this time even if it could not compare with enough others. What
/// it holds is enough; comparing only spares it votes on changes that others have committed
/// already.
const COMPARE_PATIENCE: Duration = Duration::from_millis(500);
/// A proposal waits this long for a seed that may not vote yet, so that the asker is answered
/// within a second.
const HOLD: Duration = Duration::from_millis(500);
/// Most marks kept: those of one founding, and of others that were merged into it.
pub(super) const MAX_FOUNDERS: usize = 1_024;
/// Most proposals that may wait until this seed votes; further ones get a no at once.
const MAX_HELD: usize = 8_192;

/// Tasks that this part has at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Timer {
    /// Vote from now on, compared or not.
    Vote,
    /// Found a network without the seeds that have not been heard.
    Found,
    /// Decline the proposals that have waited long enough for this seed to vote.
    Held,
}

/// A proposal that waits until this seed may vote.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    until: Time,
    change: Change,
    waiter: Waiter,
}

/// This seed's standing, and the proposals that wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Foothold {
    /// Standing that is on disk.
    standing: Standing,
    /// Standing that is on disk or being written there.
    wanted: Standing,
    /// Marks of the founding that the registry goes back to.
    founders: BTreeSet<u64>,
    /// Whether this seed votes yet.
    votes: bool,
    /// Proposals that wait until it does, oldest first.
    held: VecDeque<Held>,
    timers: Timers<Timer>,
    /// Until when this seed founds no network before it has heard all other seeds.
    hears_all_until: Time,
}

/// Next step of a seed that does not vote yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait.
    Stay,
    /// Vote from now on.
    Vote,
    /// Write down this better standing.
    Rise(Standing),
}

/// What to do after meeting a seed of another founding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meeting {
    /// Number of the copy to keep of what is on disk, if our founding is the earlier one.
    pub set_aside: Option<u64>,
    /// Marks of the other founding, which ours takes over.
    pub marks: BTreeSet<u64>,
}

impl Default for Foothold {
    fn default() -> Self {
        Self {
            standing: Standing::Fresh,
            wanted: Standing::Fresh,
            founders: BTreeSet::new(),
            votes: false,
            held: VecDeque::new(),
            timers: Timers::default(),
            hears_all_until: Time::default(),
        }
    }
}

impl Foothold {
    /// Takes over the standing and the marks that were on disk.
    pub fn recover(&mut self, standing: Standing, founders: impl IntoIterator<Item = u64>) {
        self.founders.extend(founders);
        self.standing = standing;
        self.wanted = standing;
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    pub fn votes(&self) -> bool {
        self.votes
    }

    pub fn founders(&self) -> Vec<u64> {
        self.founders.iter().copied().collect()
    }

    /// When the next timer goes off.
    pub fn wake_at(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Takes a timer that is due.
    pub fn due(&mut self, now: Time) -> Option<Timer> {
        self.timers.due(now).map(|(_, timer)| timer)
    }

    /// Begins a life. A seed that has its disk waits for the others only for a while.
    ///
    /// With `proofs`, a fresh seed waits for all others for a while before it founds a network. One
    /// that it has not heard may hold records of members whose votes nobody else can check any more,
    /// and a seed that has founded a network does not believe it.
    pub fn begin(&mut self, now: Time, proofs: bool) {
        if self.standing == Standing::Voting {
            self.timers.set(Timer::Vote, now + COMPARE_PATIENCE);
        } else if proofs {
            self.hears_all_until = now + FOUNDING_PATIENCE;
            self.timers.set(Timer::Found, self.hears_all_until);
        }
    }

    /// Whether this seed founds a network only if it hears all others.
    pub fn waits_for_all(&self, now: Time) -> bool {
        now < self.hears_all_until
    }

    /// Decides the next step from the standings of all other seeds. `quorum` is of all configured
    /// seeds.
    pub fn next_step(&self, others: &[Other], quorum: usize) -> Step {
        if self.votes || self.wanted > self.standing {
            return Step::Stay;
        }
        let seeds = others.len() + 1;
        let told = |wanted: &[Standing]| {
            others.iter().filter(|other| other.told.is_some_and(|it| wanted.contains(&it))).count()
        };
        let (voting, founding) = (Standing::Voting, Standing::Founding);
        match self.standing {
            Standing::Voting => {
                let compared = others.iter().filter(|other| other.compared.is_some()).count();
                if compared + 1 >= quorum { Step::Vote } else { Step::Stay }
            }
            Standing::Founding if told(&[founding, voting]) + 1 >= quorum => Step::Rise(voting),
            Standing::Founding => Step::Stay,
            Standing::Fresh => {
                let read = others.iter().filter(|other| other.compared == Some(voting)).count();
                let voters = told(&[voting]);
                let heard_all = others.iter().all(|other| other.told.is_some());
                let is_read =
                    |other: &Other| other.told != Some(voting) || other.compared == Some(voting);
                let read_all_there_are = heard_all && voters > 0 && others.iter().all(is_read);
                if read > seeds - quorum || read_all_there_are {
                    Step::Rise(voting)
                } else if voters == 0 && told(&[Standing::Fresh, founding]) + 1 >= quorum {
                    Step::Rise(founding)
                } else {
                    Step::Stay
                }
            }
        }
    }

    /// Notes that a better standing is being written down, which counts once it is durable. Returns
    /// the marks of the founding that it rests on.
    pub fn rise(
        &mut self,
        now: Time,
        me: SeedNumber,
        standing: Standing,
        others: &[Other],
    ) -> BTreeSet<u64> {
        self.wanted = standing;
        let mut marks: BTreeSet<u64> = BTreeSet::new();
        if standing == Standing::Founding {
            // No two lives of a seed begin at the same time, and no two seeds have the same number.
            marks.insert(now.micros().saturating_mul(64).saturating_add(u64::from(me)));
        }
        for other in others {
            // A new founding takes marks only from seeds that are founding, too: one that votes was
            // founded before. A seed that rises to voting takes the marks of all: a seed that is
            // founding can be of another founding only if some seed votes already.
            if other.told == Some(standing) || standing == Standing::Voting {
                marks.extend(&other.founders);
            }
        }
        marks
    }

    /// Takes marks as ours, if there is room for them; returns the new ones.
    pub fn take_founders(&mut self, marks: &BTreeSet<u64>) -> Vec<u64> {
        let new: Vec<u64> = marks.difference(&self.founders).copied().collect();
        if self.founders.len() + new.len() > MAX_FOUNDERS {
            return Vec::new();
        }
        self.founders.extend(&new);
        new
    }

    /// Hears which founding the registry of another seed goes back to. If both seeds vote and their
    /// foundings share no mark, a majority has lost its disks and has begun anew. Then the operator
    /// has to know, and the registry of the earlier network is copied before the two are merged.
    /// `records` are the numbers of records there and here.
    pub fn meet(
        &self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        standing: Standing,
        theirs: &[u64],
        records: (u64, usize),
    ) -> Option<Meeting> {
        let both_vote = self.standing == Standing::Voting && standing == Standing::Voting;
        let (ours, newest) = (self.founders.last()?, theirs.iter().max()?);
        if !both_vote || theirs.iter().any(|mark| self.founders.contains(mark)) {
            return None;
        }
        let mut keys = vec![
            ("seed", seed.to_string()),
            ("records", records.0.to_string()),
            ("here", records.1.to_string()),
        ];
        let mut meeting = Meeting { set_aside: None, marks: theirs.iter().copied().collect() };
        if ours < newest {
            let number = turn.now.millis();
            keys.push(("copy", format!("registry-{number}.redb in the data directory")));
            keys.push((
                "advice",
                "a majority of the seeds lost their disks; members come back by themselves".into(),
            ));
            turn.note(Severity::Warn, "the network was founded anew without this seed", keys);
            meeting.set_aside = Some(number);
        } else {
            turn.note(Severity::Warn, "a seed holds records of an earlier network", keys);
        }
        Some(meeting)
    }

    /// Notes that a standing is on disk; returns the one before it.
    pub fn is_durable(&mut self, standing: Standing) -> Standing {
        std::mem::replace(&mut self.standing, standing)
    }

    /// Lets this seed vote from now on; returns the proposals that waited.
    pub fn may_vote(&mut self) -> Vec<(Change, Waiter)> {
        self.votes = true;
        self.timers.cancel(&Timer::Vote);
        self.timers.cancel(&Timer::Held);
        std::mem::take(&mut self.held).into_iter().map(|held| (held.change, held.waiter)).collect()
    }

    /// Keeps a proposal until this seed may vote. Returns false if too many wait.
    pub fn hold(&mut self, now: Time, change: Change, waiter: Waiter) -> bool {
        if self.held.len() >= MAX_HELD {
            return false;
        }
        let until = now + HOLD;
        self.held.push_back(Held { until, change, waiter });
        self.timers.set_if_unset(Timer::Held, until);
        true
    }

    /// Takes the next proposal that has waited long enough, and sets the timer for the one after
    /// it.
    pub fn release_held(&mut self, now: Time) -> Option<Waiter> {
        let until = self.held.front()?.until;
        if until > now {
            self.timers.set(Timer::Held, until);
            return None;
        }
        self.held.pop_front().map(|held| held.waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Founding, Fresh, Voting};

    fn other(told: Option<Standing>, compared: Option<Standing>) -> Other {
        Other { told, compared, founders: Vec::new() }
    }

    #[test]
    fn what_follows_from_how_the_others_stand() {
        let voter = || other(Some(Voting), Some(Voting));
        let unread = || other(Some(Voting), None);
        let fresh = || other(Some(Fresh), Some(Fresh));
        let silent = || other(None, None);
        let table: &[(&str, Standing, Vec<Other>, Step)] = &[
            ("alone and fresh, it founds", Fresh, vec![], Step::Rise(Founding)),
            ("one of three that hears nobody waits", Fresh, vec![silent(), silent()], Step::Stay),
            ("two fresh of three found", Fresh, vec![fresh(), silent()], Step::Rise(Founding)),
            ("where somebody votes nobody founds", Fresh, vec![fresh(), unread()], Step::Stay),
            ("one voter of three read is not enough", Fresh, vec![voter(), silent()], Step::Stay),
            ("two are", Fresh, vec![voter(), voter()], Step::Rise(Voting)),
            (
                "nor need it be, if no other votes",
                Fresh,
                vec![voter(), fresh()],
                Step::Rise(Voting),
            ),
            ("a founder waits for a quorum of them", Founding, vec![fresh(), silent()], Step::Stay),
            (
                "and rises with it",
                Founding,
                vec![other(Some(Founding), None), silent()],
                Step::Rise(Voting),
            ),
            ("a seed with its disk compares first", Voting, vec![silent(), silent()], Step::Stay),
            ("with a quorum", Voting, vec![fresh(), silent()], Step::Vote),
        ];
        for (what, standing, others, expected) in table {
            let mut foothold = Foothold::default();
            foothold.recover(*standing, []);
            let quorum = others.len().div_ceil(2) + 1;
            assert_eq!(foothold.next_step(others, quorum), *expected, "{what}");
        }
    }

    #[test]
    fn proposals_wait_in_order_and_not_for_ever() {
        let mut foothold = Foothold::default();
        let start = Time::from_millis(1);
        let kind = crate::proto::message::ChangeKind::Join;
        let peer = ([127, 0, 0, 1], 6000).into();
        let change =
            Change { kind, peer, incarnation: 1, at: 0, reporters: Vec::new(), identity: None };
        let waiter = |ballot| Waiter { proposer: peer, ballot };
        foothold.hold(start, change.clone(), waiter(1));
        foothold.hold(start + HOLD / 2, change, waiter(2));
        assert_eq!(foothold.due(start + HOLD), Some(Timer::Held));
        assert_eq!(foothold.release_held(start + HOLD), Some(waiter(1)));
        assert_eq!(foothold.release_held(start + HOLD), None, "the second has time yet");
        assert_eq!(foothold.wake_at(), Some(start + HOLD / 2 + HOLD));
        assert_eq!(foothold.may_vote().len(), 1);
        assert_eq!(foothold.wake_at(), None);
    }
}
