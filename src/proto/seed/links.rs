//! What peers report of their links (DESIGN.md, section 3, topology).
//!
//! A peer tells one seed, the seeds tell each other with the next comparison.
//! The graph is served and used for nothing else.

use std::collections::BTreeMap;

use super::SeedMachine;
use crate::proto::message::{Addr, Council, LinkReport};
use crate::proto::topology::Topology;
use crate::proto::turn::SeedTurn;

/// Neighbours of one peer that are kept: far more than any peer has.
const MAX_NEIGHBOURS: usize = 1_024;
/// Neighbours in one frame of reports.
const NEIGHBOURS_A_FRAME: usize = 16_384;

/// The newest report of each member.
pub(super) type Links = BTreeMap<Addr, LinkReport>;

impl SeedMachine {
    /// The overlay as its members report it.
    pub fn topology(&self) -> Topology {
        Topology::of(&self.registry, |peer| {
            self.links.get(peer).map_or(&[], |report| report.neighbours.as_slice())
        })
    }

    /// A peer reports its links.
    pub(super) fn hear_links(&mut self, peer: Addr, number: u64, neighbours: Vec<Addr>) {
        let Some(record) = self.registry.alive(&peer) else { return };
        let incarnation = record.incarnation;
        if self.keep_report(LinkReport { peer, incarnation, number, neighbours }) {
            self.news_of_links.insert(peer);
        }
    }

    /// Another seed passes on what peers reported to it.
    pub(super) fn hear_reports(&mut self, reports: Vec<LinkReport>) {
        for report in reports {
            self.keep_report(report);
        }
    }

    fn keep_report(&mut self, mut report: LinkReport) -> bool {
        let current = self
            .registry
            .alive(&report.peer)
            .is_some_and(|record| record.incarnation == report.incarnation);
        let newer = self.links.get(&report.peer).is_none_or(|known| {
            (known.incarnation, known.number) < (report.incarnation, report.number)
        });
        if current && newer {
            report.neighbours.truncate(MAX_NEIGHBOURS);
            self.links.insert(report.peer, report);
        }
        current && newer
    }

    /// Tells the other seeds what peers have reported here since the last time.
    pub(super) fn pass_on_links(&mut self, turn: &mut SeedTurn<'_>) {
        let news = std::mem::take(&mut self.news_of_links);
        let reports = news.iter().filter_map(|peer| self.links.get(peer)).cloned().collect();
        for frame in report_frames(reports) {
            self.tell_all(turn, Council::LinkReports(frame));
        }
    }

    /// A seed has just connected: it may have missed all of it.
    pub(super) fn tell_links(&self, turn: &mut SeedTurn<'_>, seed: &Addr) {
        for frame in report_frames(self.links.values().cloned().collect()) {
            self.tell(turn, seed, Council::LinkReports(frame));
        }
    }
}

fn report_frames(reports: Vec<LinkReport>) -> Vec<Vec<LinkReport>> {
    let mut frames = Vec::new();
    let (mut frame, mut size) = (Vec::new(), 0);
    for report in reports {
        size += 1 + report.neighbours.len();
        frame.push(report);
        if size > NEIGHBOURS_A_FRAME {
            size = 0;
            frames.push(std::mem::take(&mut frame));
        }
    }
    if !frame.is_empty() {
        frames.push(frame);
    }
    frames
}
