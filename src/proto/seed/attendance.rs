//! Which members this seed has not heard of for long, so that it looks for itself.
//!
//! Peers find out that their neighbours are dead, and look at one member or another beside them. That
//! is too slow for a crowd of members that nobody has links with: ten thousand that join in seconds
//! and vanish would stay for hours. But each member asks each seed for news every ten seconds, so a
//! seed knows who is there. What must stay true: this only makes a seed look; a member that answers
//! stays, however silent it is. As long as a neighbour that is there says that it hears a member, the
//! seed does not look: the member may be cut off from the seeds alone, and if it dies, its neighbours
//! tell.

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
    /// who have a connection here, and when they last said anything over it; `neighbours` gives those
    /// of a member; this is seed `place` of `seeds`.
    pub fn look_for_absent(
        &mut self,
        (now, suspect_timeout): (Time, Duration),
        registry: &Registry,
        heard: impl Iterator<Item = (Addr, Time)>,
        neighbours: impl Fn(&Addr) -> Vec<Addr>,
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
        let is_present = |peer: &Addr| latest.get(peer).is_some_and(|at| now.since(*at) < PRESENT);
        self.absent.retain(|peer, _| registry.alive(peer).is_some());
        let mut due = Vec::new();
        for (peer, record) in registry.members() {
            if is_present(peer) {
                self.absent.remove(peer);
                continue;
            }
            let heard = latest.get(peer).copied();
            let since = self.absent.entry(*peer).or_insert(heard.unwrap_or(now));
            let turn = u32::try_from(turn_of(peer, place, seeds)).unwrap_or(u32::MAX);
            if now.since(*since) >= absence + STAGGER.saturating_mul(turn) {
                // If it answers, or is answered for, it has as much time again.
                *since = now;
                if !neighbours(peer).iter().any(is_present) {
                    due.push((*peer, record.incarnation));
                }
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

    /// What the seed at each place has to look at within that many seconds, and when: a member by its
    /// port. The first member asks for news every twelve seconds, the second has hung silently since
    /// the start, to the third there is no connection.
    fn looks(
        place: usize,
        seconds: u64,
        neighbours: impl Fn(&Addr) -> Vec<Addr>,
    ) -> Vec<(u64, u16)> {
        let mut registry = Registry::new();
        for port in [3, 6, 9] {
            let (incarnation, status) = (7, Status::Alive);
            let (voters, signatures) = (vec![0], Vec::new());
            let record = Record { incarnation, status, at: 1, voters, identity: None, signatures };
            registry.merge(addr(port), record);
        }
        let start = Time::from_millis(1_000_000);
        let mut attendance = Attendance::default();
        let look = |second: u64| {
            let asked = start + Duration::from_secs(second / 12 * 12);
            let heard = [(addr(3), start), (addr(3), asked), (addr(6), start)].into_iter();
            let times = (start + Duration::from_secs(second), Duration::from_secs(15));
            let due = attendance.look_for_absent(times, &registry, heard, &neighbours, (place, 3));
            due.into_iter().map(move |(peer, _)| (second, peer.port()))
        };
        (0..seconds).flat_map(look).collect()
    }

    #[test]
    fn who_is_not_heard_of_is_looked_at_by_one_seed_after_another_and_nobody_else_is() {
        let nobody = |_: &Addr| Vec::new();
        assert_eq!(looks(0, 80, nobody), [(28, 6), (28, 9), (56, 6), (56, 9)]);
        assert_eq!(looks(1, 80, nobody), [(36, 6), (36, 9), (72, 6), (72, 9)]);
        assert_eq!(looks(2, 80, nobody), [(48, 6), (48, 9)]);
    }

    #[test]
    fn whom_a_neighbour_hears_that_is_there_is_not_looked_at() {
        let neighbours = |peer: &Addr| match peer.port() {
            6 => vec![addr(9), addr(3)],
            // The two that are absent do not answer for each other.
            9 => vec![addr(6)],
            _ => Vec::new(),
        };
        assert_eq!(looks(0, 80, neighbours), [(28, 9), (56, 9)]);
    }
}
