//! Which members this seed has not heard of for long, so that it looks for itself.
//!
//! Peers find out that their neighbours are dead, and look at one member or another beside them. That
//! is too slow for a crowd of members that nobody has links with: ten thousand that join in seconds
//! and vanish would stay for hours. But each member asks each seed for news every ten seconds, so a
//! seed knows who is there. What must stay true: this only makes a seed look; a member that answers
//! stays, however silent it is.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::message::{Addr, Incarnation};
use crate::proto::registry::Registry;
use crate::proto::time::Time;

/// How often absent members are looked for: seldom, because all members are gone through.
const SWEEP: Duration = Duration::from_secs(4);
/// A member that was heard of so lately is there: it asks for news every ten seconds, a quarter more or
/// less, and one such request may be lost.
const PRESENT: Duration = Duration::from_secs(20);
/// A member that was not heard of for so long is looked at. It is longer than its neighbours take to
/// find it dead and to have it voted out, which is how deaths are usually found: where their suspect
/// timeout is long, it is that and [`STAGGER`].
const ABSENCE: Duration = Duration::from_secs(25);
/// Seeds look at a member one after another, each so much later than the one before, in an order of
/// its own for each member: what one seed looks at, the others need not.
const STAGGER: Duration = Duration::from_secs(10);

/// Members of whom nothing was heard, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Attendance {
    absent: BTreeMap<Addr, Time>,
    swept: Time,
}

impl Attendance {
    /// Goes through the members, if it is time to. Returns the lives to look at now. `heard` are those
    /// who have a connection here, and when they last said anything over it; this is seed `place` of
    /// `seeds`.
    pub fn look_for_absent(
        &mut self,
        (now, suspect_timeout): (Time, Duration),
        registry: &Registry,
        heard: impl Iterator<Item = (Addr, Time)>,
        (place, seeds): (usize, usize),
    ) -> Vec<(Addr, Incarnation)> {
        if now.since(self.swept) < SWEEP {
            return Vec::new();
        }
        self.swept = now;
        let absence = ABSENCE.max(suspect_timeout + STAGGER);
        let mut latest: BTreeMap<Addr, Time> = BTreeMap::new();
        for (peer, at) in heard {
            let known = latest.entry(peer).or_insert(at);
            *known = at.max(*known);
        }
        self.absent.retain(|peer, _| registry.alive(peer).is_some());
        let mut due = Vec::new();
        for (peer, record) in registry.members() {
            let heard = latest.get(peer).copied();
            if heard.is_some_and(|at| now.since(at) < PRESENT) {
                self.absent.remove(peer);
                continue;
            }
            let since = self.absent.entry(*peer).or_insert(heard.unwrap_or(now));
            let turn = u32::try_from(turn_of(peer, place, seeds)).unwrap_or(u32::MAX);
            if now.since(*since) >= absence + STAGGER.saturating_mul(turn) {
                // If it answers, it has as much time again.
                *since = now;
                due.push((*peer, record.incarnation));
            }
        }
        due
    }
}

/// Which of the seeds a seed is to look at a member: 0 is the first.
fn turn_of(peer: &Addr, place: usize, seeds: usize) -> usize {
    let seeds = seeds.max(1);
    (usize::from(peer.port()) + place) % seeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::{Record, Status};

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn who_is_not_heard_of_is_looked_at_by_one_seed_after_another_and_nobody_else_is() {
        let mut registry = Registry::new();
        for port in [3, 6, 9] {
            let (incarnation, status) = (7, Status::Alive);
            let record = Record { incarnation, status, at: 1, voters: vec![0], identity: None };
            registry.merge(addr(port), record);
        }
        let start = Time::from_millis(1_000_000);
        let mut looks: Vec<Vec<(u64, u16)>> = Vec::new();
        for place in 0..3 {
            let mut attendance = Attendance::default();
            let mut of_seed = Vec::new();
            for second in 0..80 {
                let now = start + Duration::from_secs(second);
                // The first asks for news; the second has hung silently since the start; of the third
                // there is no connection.
                let asked = start + Duration::from_secs(second / 12 * 12);
                let heard = [(addr(3), start), (addr(3), asked), (addr(6), start)].into_iter();
                let times = (now, Duration::from_secs(15));
                let due = attendance.look_for_absent(times, &registry, heard, (place, 3));
                of_seed.extend(due.into_iter().map(|(peer, _)| (second, peer.port())));
            }
            looks.push(of_seed);
        }
        assert_eq!(looks[0], [(28, 6), (28, 9), (56, 6), (56, 9)]);
        assert_eq!(looks[1], [(36, 6), (36, 9), (72, 6), (72, 9)]);
        assert_eq!(looks[2], [(48, 6), (48, 9)]);
    }
}
