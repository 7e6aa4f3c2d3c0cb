//! The links of the overlay, as peers report them (DESIGN.md, section 3, topology).
//!
//! A peer reports its links to one seed, which tells the others with its next comparison. What must
//! stay true: only the newest report of a member's present life counts, and no vote rests on this
//! graph, since peers may lie. The seeds serve it to whoever asks.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::frames::frames;
use crate::proto::message::{Addr, LinkReport};
use crate::proto::registry::Registry;
use crate::proto::topology::Topology;

/// Neighbours kept of one peer, far more than any peer has; the rest of a report is cut off.
pub(super) const MAX_NEIGHBOURS: usize = 1_024;
/// Most neighbours in one frame of reports.
const NEIGHBOURS_A_FRAME: usize = 16_384;

/// The newest report of each member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Links {
    reports: BTreeMap<Addr, LinkReport>,
    /// Peers that have reported here since the other seeds were last told.
    news: BTreeSet<Addr>,
}

impl Links {
    /// The overlay as its members report it.
    pub fn topology(&self, registry: &Registry) -> Topology {
        Topology::of(registry, |peer| {
            self.reports.get(peer).map_or(&[], |report| report.neighbours.as_slice())
        })
    }

    /// The neighbours of a peer, as it and they say.
    pub fn agreed(&self, peer: &Addr) -> Vec<Addr> {
        let names = |one: &Addr, other: &Addr| {
            self.reports.get(one).is_some_and(|report| report.neighbours.contains(other))
        };
        let said = self.reports.get(peer).map_or(&[][..], |report| &report.neighbours);
        said.iter().filter(|other| names(other, peer)).copied().collect()
    }

    /// Takes in the links that a peer reports to this seed.
    pub fn hear(&mut self, registry: &Registry, peer: Addr, number: u64, neighbours: Vec<Addr>) {
        let Some(record) = registry.alive(&peer) else { return };
        let incarnation = record.incarnation;
        if self.keep(registry, LinkReport { peer, incarnation, number, neighbours }) {
            self.news.insert(peer);
        }
    }

    /// Keeps a report if it is the newest of a member's present life. Returns whether it is.
    pub fn keep(&mut self, registry: &Registry, mut report: LinkReport) -> bool {
        let current = registry
            .alive(&report.peer)
            .is_some_and(|record| record.incarnation == report.incarnation);
        let newer = self.reports.get(&report.peer).is_none_or(|known| {
            (known.incarnation, known.number) < (report.incarnation, report.number)
        });
        if current && newer {
            report.neighbours.truncate(MAX_NEIGHBOURS);
            self.reports.insert(report.peer, report);
        }
        current && newer
    }

    /// Drops the report of a peer that is gone.
    pub fn remove(&mut self, peer: &Addr) {
        self.reports.remove(peer);
    }

    /// Takes the reports that peers have made here since the last call, in frames.
    pub fn take_news(&mut self) -> Vec<Vec<LinkReport>> {
        let news = std::mem::take(&mut self.news);
        in_frames(news.iter().filter_map(|peer| self.reports.get(peer)).cloned())
    }

    /// All reports, in frames.
    pub fn all(&self) -> Vec<Vec<LinkReport>> {
        in_frames(self.reports.values().cloned())
    }
}

fn in_frames(reports: impl Iterator<Item = LinkReport>) -> Vec<Vec<LinkReport>> {
    frames(reports, NEIGHBOURS_A_FRAME, |report| 1 + report.neighbours.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::{Record, Status};

    #[test]
    fn only_the_newest_report_of_a_members_present_life_counts() {
        let peer = ([127, 0, 0, 1], 6000).into();
        let mut registry = Registry::new();
        let record = Record::plain(7, Status::Alive, 1, vec![0]);
        registry.merge(peer, record);
        let mut links = Links::default();
        let report = |incarnation, number| LinkReport {
            peer,
            incarnation,
            number,
            neighbours: vec![peer; 2 * MAX_NEIGHBOURS],
        };
        let table = [(6, 9, false), (7, 2, true), (7, 2, false), (7, 1, false), (7, 3, true)];
        for (incarnation, number, kept) in table {
            let report = report(incarnation, number);
            assert_eq!(links.keep(&registry, report), kept, "{incarnation}, {number}");
            assert_eq!(links.all().is_empty(), incarnation < 7, "{incarnation}, {number}");
        }
        assert_eq!(links.all()[0][0].neighbours.len(), MAX_NEIGHBOURS);
        assert!(links.take_news().is_empty(), "nobody has reported here");
        links.hear(&registry, peer, 4, Vec::new());
        assert_eq!((links.take_news().len(), links.take_news().len()), (1, 0));
    }

    #[test]
    fn neighbours_are_those_that_name_each_other() {
        let addr = |port: u16| Addr::from(([127, 0, 0, 1], port));
        let mut registry = Registry::new();
        let mut links = Links::default();
        for (port, named) in [(1, vec![2, 3]), (2, vec![1]), (3, vec![2])] {
            let record = Record::plain(7, Status::Alive, 1, vec![0]);
            registry.merge(addr(port), record);
            links.hear(&registry, addr(port), 1, named.into_iter().map(addr).collect());
        }
        assert_eq!(links.agreed(&addr(1)), [addr(2)]);
        assert_eq!(links.agreed(&addr(2)), [addr(1)]);
        assert!(links.agreed(&addr(3)).is_empty() && links.agreed(&addr(4)).is_empty());
    }
}
