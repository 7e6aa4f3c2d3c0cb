//! When a seed may vote.
//!
//! A seed that starts with an empty disk cannot tell whether it ever had
//! another one, so its word is worth nothing until it knows what was answered
//! for. That is on the disks of a quorum Q of the n seeds, itself perhaps among
//! them, so it must have read n-Q+1 others that hold what they ever held; or all
//! others, if there are not so many. In a new network nobody ever held
//! anything: there a quorum of seeds that know nothing founds it, in two steps,
//! so that none votes before a quorum has written down that it takes part.
//!
//! What must stay true: a seed whose disk was lost does not vote before it
//! holds what was answered for, as long as no majority of disks is lost (one
//! that was never written counts as lost). Where a majority is lost, those who
//! are left found a new network, since they cannot tell; a seed that still holds
//! the earlier one says so when they meet, and keeps a copy. A seed with its disk compares first,
//! too, if it can do so soon.

use std::collections::BTreeSet;
use std::time::Duration;

use super::judge::{Verdict, Waiter};
use super::keep::Pending;
use super::{SeedMachine, Timer};
use crate::proto::event::Severity;
use crate::proto::message::{Addr, Change, Council, Standing};
use crate::proto::planted::Flaw;
use crate::proto::time::Time;
use crate::proto::turn::SeedTurn;

/// A seed with its disk votes after this long also if it could not compare with enough others:
/// what it knows is enough, comparing only spares votes on what is old.
const COMPARE_PATIENCE: Duration = Duration::from_millis(500);
/// A proposal waits this long for a seed that may not vote yet, so that whoever asked is told
/// within a second.
const HOLD: Duration = Duration::from_millis(500);
/// Marks of one founding, and of those that were merged into it.
pub(super) const MAX_FOUNDERS: usize = 1_024;
/// Proposals that may wait; more are refused at once.
const MAX_HELD: usize = 8_192;

/// A proposal that waits until this seed may vote.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    until: Time,
    change: Change,
    waiter: Waiter,
}

impl SeedMachine {
    /// How far this seed can be relied on.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether it votes.
    pub fn is_voting(&self) -> bool {
        self.votes
    }

    /// Whether it is connected to a quorum of seeds, itself included.
    pub fn has_quorum(&self) -> bool {
        self.seeds_reachable() >= self.config.network.quorum()
    }

    /// Seeds with which it is connected, itself included.
    pub fn seeds_reachable(&self) -> usize {
        self.colleagues.values().filter(|colleague| colleague.is_connected()).count() + 1
    }

    /// Seeds configured.
    pub fn seeds_configured(&self) -> usize {
        self.config.network.seeds().len()
    }

    pub(super) fn begin_standing(&mut self, turn: &mut SeedTurn<'_>) {
        if self.config.flaw() == Flaw::EmptyVoter {
            self.rise(turn, Standing::Voting);
        } else if self.standing == Standing::Voting {
            self.timers.set(Timer::Vote, turn.now + COMPARE_PATIENCE);
        }
        self.reconsider(turn);
    }

    /// Another seed has told its standing, or was compared with: what follows for our own.
    pub(super) fn reconsider(&mut self, turn: &mut SeedTurn<'_>) {
        if self.votes || self.wants_standing > self.standing {
            return;
        }
        let (n, quorum) = (self.seeds(), self.config.network.quorum());
        let others = || self.colleagues.values();
        let told = |wanted: &[Standing]| {
            others().filter(|other| other.told().is_some_and(|told| wanted.contains(&told))).count()
        };
        let read = others().filter(|other| other.compared == Some(Standing::Voting)).count();
        match self.standing {
            Standing::Voting => {
                let compared = others().filter(|other| other.compared.is_some()).count();
                if compared + 1 >= quorum {
                    self.may_vote(turn);
                }
            }
            Standing::Founding => {
                if told(&[Standing::Founding, Standing::Voting]) + 1 >= quorum {
                    self.rise(turn, Standing::Voting);
                }
            }
            Standing::Fresh => {
                let voting = told(&[Standing::Voting]);
                let heard_all = others().all(|other| other.told().is_some());
                let read_all_there_are = heard_all
                    && voting > 0
                    && others().all(|other| {
                        other.told() != Some(Standing::Voting)
                            || other.compared == Some(Standing::Voting)
                    });
                if read > n - quorum || read_all_there_are {
                    self.rise(turn, Standing::Voting);
                } else if voting == 0 && told(&[Standing::Fresh, Standing::Founding]) + 1 >= quorum
                {
                    self.rise(turn, Standing::Founding);
                }
            }
        }
    }

    /// Writes down a better standing; it counts once it is durable.
    fn rise(&mut self, turn: &mut SeedTurn<'_>, standing: Standing) {
        self.wants_standing = standing;
        let mut marks: BTreeSet<u64> = BTreeSet::new();
        if standing == Standing::Founding {
            // No two lives of a seed begin at the same time, and no two seeds have one place.
            marks.insert(turn.now.micros().saturating_mul(64).saturating_add(u64::from(self.me)));
        }
        for other in self.colleagues.values() {
            // Whoever votes already was founded before; a founder may be of another founding only if
            // somebody votes.
            if other.told() == Some(standing) || standing == Standing::Voting {
                marks.extend(&other.founders);
            }
        }
        self.take_founders(turn, marks);
        self.persist(turn, vec![Pending::Standing(standing)]);
    }

    fn take_founders(&mut self, turn: &mut SeedTurn<'_>, marks: BTreeSet<u64>) {
        let new: Vec<u64> = marks.difference(&self.founders).copied().collect();
        if !new.is_empty() && self.founders.len() + new.len() <= MAX_FOUNDERS {
            self.founders.extend(&new);
            self.persist(turn, vec![Pending::Founders(new)]);
        }
    }

    /// Another seed says which founding its registry goes back to. If that is another one than ours,
    /// a majority has lost its disks and has begun anew: the operator has to know, and what the
    /// earlier network held is kept beside before the two are merged.
    pub(super) fn hear_founders(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        standing: Standing,
        count: u64,
        theirs: &[u64],
    ) {
        if let Some(colleague) = self.colleagues.get_mut(&seed)
            && !theirs.is_empty()
        {
            colleague.founders = theirs.to_vec();
        }
        let both_vote = self.standing == Standing::Voting && standing == Standing::Voting;
        let (Some(ours), Some(newest)) = (self.founders.last(), theirs.iter().max()) else {
            return;
        };
        if !both_vote || theirs.iter().any(|mark| self.founders.contains(mark)) {
            return;
        }
        let mut keys = vec![
            ("seed", seed.to_string()),
            ("records", count.to_string()),
            ("here", self.registry.len().to_string()),
        ];
        if ours < newest {
            let number = turn.now.millis();
            keys.push(("copy", format!("registry-{number}.redb in the data directory")));
            keys.push((
                "advice",
                "a majority of the seeds lost their disks; members come back by themselves".into(),
            ));
            turn.note(Severity::Warn, "the network was founded anew without this seed", keys);
            self.persist(turn, vec![Pending::SetAside(number)]);
        } else {
            turn.note(Severity::Warn, "a seed holds records of an earlier network", keys);
        }
        self.take_founders(turn, theirs.iter().copied().collect());
    }

    pub(super) fn standing_is_durable(&mut self, turn: &mut SeedTurn<'_>, standing: Standing) {
        let before = self.standing;
        self.standing = standing;
        let what = match standing {
            Standing::Fresh => "waiting for other seeds",
            Standing::Founding => "founding a new network",
            Standing::Voting => "voting from now on",
        };
        let keys = vec![
            ("before", before.words().to_owned()),
            ("records", self.registry.len().to_string()),
        ];
        turn.note(Severity::Info, what, keys);
        self.tell_digest(turn);
        if standing == Standing::Voting {
            self.may_vote(turn);
        } else {
            self.reconsider(turn);
        }
    }

    /// From here on this seed votes; what waited is judged.
    pub(super) fn may_vote(&mut self, turn: &mut SeedTurn<'_>) {
        self.votes = true;
        self.timers.cancel(&Timer::Vote);
        self.timers.cancel(&Timer::Held);
        for Held { change, waiter, .. } in std::mem::take(&mut self.held) {
            self.judge(turn, change, waiter);
        }
    }

    /// Keeps a proposal until this seed may vote.
    pub(super) fn hold(&mut self, turn: &mut SeedTurn<'_>, change: Change, waiter: Waiter) {
        if self.held.len() >= MAX_HELD {
            self.decline(turn, waiter);
            return;
        }
        let until = turn.now + HOLD;
        self.held.push_back(Held { until, change, waiter });
        self.timers.set_if_unset(Timer::Held, until);
    }

    /// Proposals that have waited long enough are answered with a no.
    pub(super) fn release_held(&mut self, turn: &mut SeedTurn<'_>) {
        while let Some(held) = self.held.front() {
            if held.until > turn.now {
                self.timers.set(Timer::Held, held.until);
                return;
            }
            if let Some(Held { waiter, .. }) = self.held.pop_front() {
                self.decline(turn, waiter);
            }
        }
    }

    fn decline(&mut self, turn: &mut SeedTurn<'_>, waiter: Waiter) {
        let heard = self.colleagues.values().filter(|other| other.told().is_some()).count();
        let reason = format!(
            "has no registry on disk and has to hear other seeds before it votes; it hears {heard} of {}",
            self.seeds().saturating_sub(1)
        );
        self.cast(turn, waiter, &Verdict { accept: false, reason, known: 0 });
    }

    /// Tells all seeds how our registry looks and how we stand.
    pub(super) fn tell_digest(&mut self, turn: &mut SeedTurn<'_>) {
        let compare = self.digest();
        self.tell_all(turn, compare);
    }

    /// What the periodic comparison says: the founding stays what it is, and is told when a connection
    /// is new or our standing has changed.
    pub(super) fn short_digest(&mut self) -> Council {
        match self.digest() {
            Council::Compare { count, digest, standing: Standing::Voting, .. } => {
                let founders = Vec::new();
                Council::Compare { count, digest, standing: Standing::Voting, founders }
            }
            other => other,
        }
    }

    pub(super) fn digest(&mut self) -> Council {
        let digest = self.tree.root(&self.registry);
        let count = self.registry.len() as u64;
        let founders = self.founders.iter().copied().collect();
        Council::Compare { count, digest, standing: self.standing, founders }
    }

    /// All that a seed of that standing held is here, and durable.
    pub(super) fn compared(&mut self, turn: &mut SeedTurn<'_>, seed: Addr, standing: Standing) {
        if let Some(colleague) = self.colleagues.get_mut(&seed) {
            colleague.compared = colleague.compared.max(Some(standing));
            colleague.walking = None;
        }
        self.reconsider(turn);
    }
}
