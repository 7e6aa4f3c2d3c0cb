//! What each seed has said of the members, and what a quorum of them says.
//!
//! One seed's word is not enough: whoever answers at a dead seed's address could invent members or
//! bury living ones. A record counts once a quorum of the configured seeds has told it (DESIGN.md,
//! section 3); it is dropped once so many seeds deny it that no quorum can know it.
//!
//! What must stay true: with fewer lying seeds than a quorum has members, each record believed was
//! told by at least one honest seed, which had it committed.
//!
//! Only the differences between a seed's word and what is believed are kept, so that this costs
//! nothing while all agree.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::proto::message::Addr;
use crate::proto::registry::{Record, Registry};

/// Most differences kept for one seed: as many as one list may have records.
const MAX_DIFFERENCES: usize = 1 << 20;

/// What one seed has said.
#[derive(Clone, Debug, Default)]
struct Word {
    /// Whether it has told its whole list, and so does not know whatever it did not mention.
    whole: bool,
    /// By member: the record that the seed told, or `None` if it said that it knows none. Where a
    /// member is missing here, the seed says what is believed if it has told its whole list, and
    /// nothing otherwise.
    differs: BTreeMap<Addr, Option<Record>>,
}

/// What all seeds have said.
#[derive(Clone, Debug)]
pub(super) struct Testimony {
    quorum: usize,
    seeds: usize,
    words: BTreeMap<Addr, Word>,
}

/// What is to be believed of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same as before.
    Keep,
    /// This record, because a quorum says so.
    Believe(Record),
    /// Nothing: no quorum can know the member.
    Drop,
}

fn same(one: Option<&Record>, other: Option<&Record>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.same_transition(other),
        _ => false,
    }
}

impl Testimony {
    /// Nothing said yet, in a network of so many seeds.
    pub fn new(seeds: usize, quorum: usize) -> Self {
        Self { quorum, seeds, words: BTreeMap::new() }
    }

    /// A seed tells one record, or says that it knows none (`None`).
    pub fn tell(&mut self, believed: &Registry, seed: Addr, peer: Addr, record: Option<Record>) {
        let word = self.words.entry(seed).or_default();
        if word.whole && same(record.as_ref(), believed.get(&peer)) {
            word.differs.remove(&peer);
        } else if word.differs.contains_key(&peer) || word.differs.len() < MAX_DIFFERENCES {
            word.differs.insert(peer, record);
        }
    }

    /// A seed tells its whole list. Returns the members of whom its word differs from what is
    /// believed now or did so before; and the records that tell the same transition in better
    /// detail.
    pub fn tell_all<'a>(
        &mut self,
        believed: &Registry,
        seed: Addr,
        records: impl Iterator<Item = &'a (Addr, Record)>,
    ) -> (BTreeSet<Addr>, Vec<&'a (Addr, Record)>) {
        let mut better = Vec::new();
        let word = self.words.entry(seed).or_default();
        let mut touched: BTreeSet<Addr> = std::mem::take(&mut word.differs).into_keys().collect();
        word.whole = true;
        // Lists come in the order of addresses, as ours is kept, so most records are the same and
        // cost one look each.
        let mut ours = believed.iter().peekable();
        let mut last: Option<Addr> = None;
        for told in records {
            let (peer, record) = told;
            let in_order = last.is_none_or(|last| last < *peer);
            last = Some(*peer);
            while in_order && let Some((absent, _)) = ours.next_if(|(ours, _)| *ours < peer) {
                word.differs.insert(*absent, None);
            }
            let known = match ours.next_if(|(ours, _)| in_order && *ours == peer) {
                Some((_, known)) => Some(known),
                None => believed.get(peer),
            };
            if let Some(known) = known.filter(|known| known.same_transition(record)) {
                word.differs.remove(peer);
                if record.precedence(known) == Ordering::Greater {
                    better.push(told);
                }
            } else {
                word.differs.insert(*peer, Some(record.clone()));
            }
        }
        word.differs.extend(ours.map(|(absent, _)| (*absent, None)));
        touched.extend(word.differs.keys());
        (touched, better)
    }

    /// A seed says that its list is the one believed. Returns the members of whom it said something
    /// else before.
    pub fn agree(&mut self, seed: Addr) -> BTreeSet<Addr> {
        let word = self.words.entry(seed).or_default();
        word.whole = true;
        std::mem::take(&mut word.differs).into_keys().collect()
    }

    /// What is believed of a member has changed from `before`. The word of each seed stays what it
    /// was.
    pub fn believed_changed(&mut self, believed: &Registry, peer: Addr, before: Option<&Record>) {
        let now = believed.get(&peer);
        for word in self.words.values_mut().filter(|word| word.whole) {
            let told = word.differs.remove(&peer).unwrap_or_else(|| before.cloned());
            if !same(told.as_ref(), now) {
                word.differs.insert(peer, told);
            }
        }
    }

    /// The word of each seed that has spoken of a member.
    fn told<'a>(
        &'a self,
        believed: &'a Registry,
        peer: &'a Addr,
    ) -> impl Iterator<Item = Option<&'a Record>> {
        self.words.values().filter_map(move |word| match word.differs.get(peer) {
            Some(told) => Some(told.as_ref()),
            None => word.whole.then(|| believed.get(peer)),
        })
    }

    /// What is to be believed of a member, after all that the seeds have said.
    pub fn verdict(&self, believed: &Registry, peer: &Addr) -> Verdict {
        let records = || self.told(believed, peer).flatten();
        // That an incarnation is dead also says that it has lived; it says nothing of any other
        // incarnation.
        let support = |record: &Record| {
            records()
                .filter(|told| {
                    told.incarnation == record.incarnation && told.status >= record.status
                })
                .count()
        };
        let supported = records().filter(|record| support(record) >= self.quorum);
        if let Some(best) = supported.max_by(|one, other| one.precedence(other)) {
            return if same(Some(best), believed.get(peer)) {
                Verdict::Keep
            } else {
                Verdict::Believe(best.clone())
            };
        }
        let denied = self.told(believed, peer).filter(Option::is_none).count();
        if believed.get(peer).is_some() && denied + self.quorum > self.seeds {
            Verdict::Drop
        } else {
            Verdict::Keep
        }
    }

    /// What one seed has said of a member; `None` if it has not spoken of the member.
    pub fn word<'a>(
        &'a self,
        believed: &'a Registry,
        seed: &Addr,
        peer: &Addr,
    ) -> Option<Option<&'a Record>> {
        let word = self.words.get(seed)?;
        match word.differs.get(peer) {
            Some(told) => Some(told.as_ref()),
            None => word.whole.then(|| believed.get(peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::Status;

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    fn record(incarnation: u64, status: Status) -> Record {
        Record::plain(incarnation, status, 1, vec![0, 1])
    }

    /// What happens, which seed tells what in which order, and what is believed in the end.
    type Case<'a> = (&'a str, &'a [(u16, Option<Record>)], Option<(u64, Status)>);

    /// What is believed in the end, when three seeds tell of one member what `words` says, in that
    /// order.
    fn believed_of(words: &[(u16, Option<Record>)]) -> Option<(u64, Status)> {
        let (mut testimony, mut believed) = (Testimony::new(3, 2), Registry::new());
        let peer = addr(6_000);
        for (seed, record) in words {
            let list: Vec<(Addr, Record)> = record.iter().map(|r| (peer, r.clone())).collect();
            for touched in testimony.tell_all(&believed, addr(*seed), list.iter()).0 {
                let before = believed.get(&touched).cloned();
                match testimony.verdict(&believed, &touched) {
                    Verdict::Keep => continue,
                    Verdict::Believe(record) => believed.replace(touched, record),
                    Verdict::Drop => {
                        believed.remove(&touched);
                    }
                }
                testimony.believed_changed(&believed, touched, before.as_ref());
            }
        }
        believed.get(&peer).map(|record| (record.incarnation, record.status))
    }

    fn check(table: &[Case<'_>]) {
        for (what, words, expected) in table {
            assert_eq!(believed_of(words), *expected, "{what}");
        }
    }

    #[test]
    fn a_record_counts_once_a_quorum_has_told_it() {
        use Status::{Alive, Dead};
        let alive = Some(record(5, Alive));
        let dead = Some(record(5, Dead));
        let ghost = Some(record(9, Alive));
        let table: &[Case<'_>] = &[
            ("one seed's word is nothing", &[(1, alive.clone())], None),
            ("however often it says it", &[(1, alive.clone()), (1, alive.clone())], None),
            (
                "two of three are a quorum",
                &[(1, alive.clone()), (2, alive.clone())],
                Some((5, Alive)),
            ),
            (
                "a death says that there was a life",
                &[(1, alive.clone()), (2, dead.clone())],
                Some((5, Alive)),
            ),
            (
                "a later life says nothing of an earlier one",
                &[(1, alive.clone()), (2, ghost.clone())],
                None,
            ),
            (
                "one seed cannot bury",
                &[(1, alive.clone()), (2, alive.clone()), (3, dead.clone())],
                Some((5, Alive)),
            ),
            (
                "two can",
                &[(1, alive.clone()), (2, alive.clone()), (3, dead.clone()), (1, dead.clone())],
                Some((5, Dead)),
            ),
        ];
        check(table);
    }

    #[test]
    fn a_record_goes_once_no_quorum_can_know_it() {
        use Status::{Alive, Dead};
        let alive = Some(record(5, Alive));
        let dead = Some(record(5, Dead));
        let table: &[Case<'_>] = &[
            (
                "one that knows nothing takes nobody away",
                &[(1, alive.clone()), (2, alive.clone()), (3, None)],
                Some((5, Alive)),
            ),
            (
                "two that know nothing leave no quorum that could",
                &[(1, alive.clone()), (2, alive.clone()), (3, None), (1, None)],
                None,
            ),
            (
                "seeds that lost all and know a life with a smaller number are right",
                &[
                    (1, dead.clone()),
                    (2, dead),
                    (1, Some(record(4, Alive))),
                    (2, Some(record(4, Alive))),
                ],
                Some((4, Alive)),
            ),
        ];
        check(table);
    }
}
