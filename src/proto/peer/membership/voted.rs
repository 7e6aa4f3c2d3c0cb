//! Membership by vote: what a peer believes of what the seeds tell it (DESIGN.md, section 4,
//! registration).
//!
//! What must stay true: nothing is believed of a member before a quorum of the seeds has told it
//! (`testimony`), and a record that no quorum can know any more is dropped.

use std::cmp::Ordering;

use super::testimony::{Testimony, Verdict};
use crate::proto::message::{Addr, Identity, Incarnation, Records};
use crate::proto::registry::{Record, Registry};

/// What a seed says of the members.
#[derive(Clone, Debug)]
pub(in super::super) enum Said<'a> {
    /// Some records.
    Records(Vec<(Addr, Record)>),
    /// All records that it knows, frame by frame.
    List(&'a [Records]),
    /// Its list is the one whose digest this peer sent.
    Agreement,
    /// It knows nobody at this address.
    Absence(Addr),
}

/// A change in what is believed of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Belief {
    /// A quorum of the seeds says this.
    Believed(Addr, Record),
    /// No quorum knows the member any more; the record was believed until now.
    Forgotten(Addr, Record),
}

/// What followed from a seed's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Heard {
    /// In the order of addresses or, for single records, in the order in which the seed told them.
    pub beliefs: Vec<Belief>,
    /// Whether anything in the list of members has changed, even if only the order of joining.
    pub changed: bool,
    /// Members that were somebody else before, in lives up to that one.
    pub former: Vec<(Addr, Incarnation, Identity)>,
}

/// What the seeds have said, and which state of the list of members it has led to.
#[derive(Debug)]
pub(in super::super) struct Voted {
    testimony: Testimony,
    /// Number of beliefs so far; it names the state of the list.
    version: u64,
    /// The state of the list for which the digest was computed, and that digest.
    digest_of: Option<(u64, [u8; 32])>,
}

impl Voted {
    /// Nothing said yet, in a network of so many seeds.
    pub fn new(seeds: usize, quorum: usize) -> Self {
        Self { testimony: Testimony::new(seeds, quorum), version: 0, digest_of: None }
    }

    /// The state of the list.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The digest of the list, computed once for each state.
    pub fn digest(&mut self, members: &Registry) -> [u8; 32] {
        let version = self.version;
        let known = self.digest_of.filter(|(of, _)| *of == version);
        self.digest_of.insert(known.unwrap_or_else(|| (version, members.status_digest()))).1
    }

    /// What a seed has said of a member; `None` if it has not spoken of the member.
    pub fn word<'a>(
        &'a self,
        members: &'a Registry,
        seed: &Addr,
        peer: &Addr,
    ) -> Option<Option<&'a Record>> {
        self.testimony.word(members, seed, peer)
    }

    /// Takes in what a seed says, and makes `members` hold what a quorum says now.
    pub fn hear(&mut self, members: &mut Registry, seed: Addr, said: Said<'_>) -> Heard {
        match said {
            Said::Records(records) => {
                let (mut touched, mut changed) = (Vec::with_capacity(records.len()), false);
                for (peer, record) in records {
                    changed |= learn_detail(members, peer, &record);
                    self.testimony.tell(members, seed, peer, Some(record));
                    touched.push(peer);
                }
                self.settle(members, touched, changed)
            }
            Said::List(frames) => {
                let records = frames.iter().flat_map(|frame| frame.iter());
                let (touched, better) = self.testimony.tell_all(members, seed, records);
                for (peer, record) in &better {
                    members.replace(*peer, record.clone());
                }
                self.settle(members, touched, !better.is_empty())
            }
            Said::Agreement => {
                let touched = self.testimony.agree(seed);
                self.settle(members, touched, false)
            }
            Said::Absence(peer) => {
                self.testimony.tell(members, seed, peer, None);
                self.settle(members, [peer], false)
            }
        }
    }

    /// Makes `members` hold what a quorum now says of the members in `touched`.
    fn settle(
        &mut self,
        members: &mut Registry,
        touched: impl IntoIterator<Item = Addr>,
        changed: bool,
    ) -> Heard {
        let (mut beliefs, mut former) = (Vec::new(), Vec::new());
        for peer in touched {
            let before = match self.testimony.verdict(members, &peer) {
                Verdict::Keep => continue,
                Verdict::Believe(record) => {
                    let before = members.get(&peer).cloned();
                    members.replace(peer, record.clone());
                    beliefs.push(Belief::Believed(peer, record));
                    before
                }
                Verdict::Drop => {
                    let before = members.remove(&peer);
                    beliefs.extend(before.clone().map(|before| Belief::Forgotten(peer, before)));
                    before
                }
            };
            self.testimony.believed_changed(members, peer, before.as_ref());
            self.version += 1;
            let now = members.get(&peer).and_then(|record| record.identity);
            former.extend(before.and_then(|before| {
                let identity = before.identity.filter(|_| before.identity != now)?;
                Some((peer, before.incarnation, identity))
            }));
        }
        let changed = changed || !beliefs.is_empty();
        Heard { beliefs, changed, former }
    }
}

/// Takes over a record of the same transition with other voters or another time, if it takes
/// precedence. It says nothing of who belongs to the network, only of the order of joining, so any
/// seed's word serves. Returns whether it was taken over.
fn learn_detail(members: &mut Registry, peer: Addr, record: &Record) -> bool {
    let better = members.get(&peer).is_some_and(|known| {
        known.same_transition(record) && record.precedence(known) == Ordering::Greater
    });
    if better {
        members.replace(peer, record.clone());
    }
    better
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::Status;

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    fn alive(at: u64) -> Record {
        Record::plain(5, Status::Alive, at, vec![0, 1])
    }

    #[test]
    fn what_one_seed_says_is_believed_once_a_second_one_does_and_forgotten_once_two_do_not() {
        let (mut voted, mut members) = (Voted::new(3, 2), Registry::new());
        let peer = addr(6_000);
        let one = || Said::Records(vec![(peer, alive(1))]);
        let heard = |beliefs| Heard { beliefs, changed: true, former: Vec::new() };
        let believed = heard(vec![Belief::Believed(peer, alive(1))]);
        let forgotten = heard(vec![Belief::Forgotten(peer, alive(1))]);
        let nothing = Heard::default();
        let table = [
            ("one seed alone", 1, one(), &nothing, 0),
            ("the same one again", 1, one(), &nothing, 0),
            ("a second one", 2, one(), &believed, 1),
            ("a third one", 3, one(), &nothing, 1),
            ("one that has lost it", 1, Said::Absence(peer), &nothing, 1),
            ("two that have lost it", 2, Said::List(&[]), &forgotten, 2),
            ("one that has what is left", 3, Said::Agreement, &nothing, 2),
        ];
        for (what, seed, said, expected, version) in table {
            assert_eq!(voted.hear(&mut members, addr(seed), said), *expected, "{what}");
            assert_eq!(voted.version(), version, "{what}");
            assert_eq!(voted.digest(&members), members.status_digest(), "{what}");
        }
    }

    #[test]
    fn an_earlier_time_of_joining_is_taken_from_any_seed_and_is_no_new_state() {
        let (mut voted, mut members) = (Voted::new(3, 2), Registry::new());
        let peer = addr(6_000);
        for seed in [1, 2] {
            voted.hear(&mut members, addr(seed), Said::Records(vec![(peer, alive(9))]));
        }
        let better = [alive(3), alive(12)];
        let better = better.into_iter().max_by(|one, other| one.precedence(other)).unwrap();
        let detail = Heard { changed: true, ..Heard::default() };
        let said = Said::Records(vec![(peer, better.clone())]);
        assert_eq!(voted.hear(&mut members, addr(3), said), detail);
        assert_eq!((members.get(&peer), voted.version()), (Some(&better), 1));
    }
}
