//! How two seeds find and move what differs between their registries.
//!
//! Each tells the others the root of its hash tree; equal roots end it. Else
//! the seed with the lower address walks: it sends its branches, hears the
//! other's leaves below those that differ, sends the fingerprints of its records
//! in the leaves that differ, and gets the records that it lacks and the
//! fingerprints of those that the other lacks. Nothing is remembered between
//! the steps, so a lost one costs only the next comparison. What must stay true:
//! the last frame says that all has been told which the sender held when the
//! walk began.

use std::collections::BTreeSet;
use std::time::Duration;

use super::SeedMachine;
use super::keep::Pending;
use super::tree::FAN;
use crate::proto::event::Severity;
use crate::proto::message::{Addr, Breach, Council, Fingerprint, Standing};
use crate::proto::registry::Record;
use crate::proto::turn::SeedTurn;

/// A walk that has not ended after this long is begun anew.
const WALK_PATIENCE: Duration = Duration::from_secs(2);
/// Records in one frame.
const RECORDS_A_FRAME: usize = 4_096;
/// Fingerprints in one frame: some 400 kB.
const FINGERPRINTS_A_FRAME: usize = 32_768;

type Leaves = Vec<(u16, Vec<Fingerprint>)>;

impl SeedMachine {
    /// Another seed's digest has come.
    pub(super) fn hear_digest(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        (count, digest): (u64, [u8; 32]),
        standing: Standing,
    ) {
        let root = self.tree.root(&self.registry);
        if let Some(colleague) = self.colleagues.get_mut(&seed) {
            colleague.standing = Some(standing);
        }
        if (count, digest) == (self.registry.len() as u64, root) {
            self.agrees(seed);
            self.compared(turn, seed, standing);
            return;
        }
        // One of the two walks; both would send all of it twice. The other one tells its digest at
        // once instead of at the next round.
        if self.config.me < seed {
            if let Some(colleague) = self.colleagues.get_mut(&seed)
                && colleague.walking.is_none_or(|since| turn.now.since(since) > WALK_PATIENCE)
            {
                colleague.walking = Some(turn.now);
                let branches = self.tree.branches(&self.registry);
                self.tell(turn, &seed, Council::Branches(branches));
            }
        } else {
            let compare = self.short_digest();
            self.tell(turn, &seed, compare);
        }
        self.reconsider(turn);
    }

    /// The walker's branches. A breach if these are not the branches of a tree.
    pub(super) fn hear_branches(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: &Addr,
        theirs: &[Fingerprint],
    ) -> Result<(), Breach> {
        if theirs.len() != usize::from(FAN) {
            return Err(Breach);
        }
        let ours = self.tree.branches(&self.registry);
        let differing = (0..FAN).zip(ours.iter().zip(theirs)).filter(|(_, (a, b))| a != b);
        let differing: Vec<u16> = differing.map(|(branch, _)| branch).collect();
        let leaves = differing
            .into_iter()
            .map(|branch| (branch, self.tree.leaves_of(&self.registry, branch)))
            .collect();
        self.tell(turn, seed, Council::Leaves(leaves));
        Ok(())
    }

    /// The leaves below the branches that differ. A breach if there cannot be such.
    pub(super) fn hear_leaves(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: &Addr,
        branches: &Leaves,
    ) -> Result<(), Breach> {
        let sane = |(branch, leaves): &(u16, Vec<Fingerprint>)| {
            *branch < FAN && leaves.len() == usize::from(FAN)
        };
        if branches.len() > usize::from(FAN) || !branches.iter().all(sane) {
            return Err(Breach);
        }
        let mut frame: Leaves = Vec::new();
        let mut size = 0;
        for (branch, theirs) in branches {
            for place in self.tree.differing(&self.registry, *branch, theirs) {
                let held: Vec<Fingerprint> =
                    self.tree.records(&self.registry, place).map(|(print, ..)| print).collect();
                size += 1 + held.len();
                frame.push((place, held));
                if size > FINGERPRINTS_A_FRAME {
                    size = 0;
                    let leaves = std::mem::take(&mut frame);
                    self.tell(turn, seed, Council::Holdings { leaves, more: true });
                }
            }
        }
        self.tell(turn, seed, Council::Holdings { leaves: frame, more: false });
        Ok(())
    }

    /// What the walker holds in the leaves that differ: it is sent what it lacks, and asked for what
    /// we lack.
    pub(super) fn hear_holdings(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: &Addr,
        leaves: Leaves,
        more: bool,
    ) {
        let mut lacking = Vec::new();
        let mut wanted: Leaves = Vec::new();
        for (place, theirs) in leaves {
            let mut theirs: BTreeSet<Fingerprint> = theirs.into_iter().collect();
            for (print, peer, record) in self.tree.records(&self.registry, place) {
                if !theirs.remove(&print) {
                    lacking.push((peer, record.clone()));
                }
            }
            if !theirs.is_empty() {
                wanted.push((place, theirs.into_iter().collect()));
            }
        }
        let done = (!more).then_some(self.standing);
        self.send_records(turn, seed, lacking, wanted, done);
    }

    /// Sends records in frames; the last one carries the rest.
    fn send_records(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: &Addr,
        records: Vec<(Addr, Record)>,
        mut wanted: Leaves,
        done: Option<Standing>,
    ) {
        for (records, more) in super::desk::frames::<_, Vec<_>>(records, RECORDS_A_FRAME) {
            let last = !more;
            let wanted = if last { std::mem::take(&mut wanted) } else { Vec::new() };
            let done = done.filter(|_| last);
            if !records.is_empty() || !wanted.is_empty() || done.is_some() {
                self.tell(turn, seed, Council::Records { records, wanted, done });
            }
        }
    }

    /// Records that we lack, and what the other one lacks.
    pub(super) fn hear_records(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        records: Vec<(Addr, Record)>,
        wanted: &Leaves,
        done: Option<Standing>,
    ) {
        let mut pending = self.authorised(turn, seed, records);
        // What is known already needs no disk.
        pending.retain(|(peer, record)| self.registry.get(peer) != Some(record));
        let mut pending: Vec<Pending> = pending
            .into_iter()
            .map(|(peer, record)| Pending::Record { peer, record, tell: None, decision: None })
            .collect();
        // The walker hears first, and answers with what the other one lacks.
        let walker = self.config.me < seed;
        if let Some(standing) = done {
            pending.push(Pending::Compared { seed, standing });
        }
        if !pending.is_empty() {
            // Frames that came before this one may still wait for the disk; a batch waits behind
            // theirs.
            self.persist(turn, pending);
        }
        if walker && (done.is_some() || !wanted.is_empty()) {
            let mut sent = Vec::new();
            for (place, prints) in wanted {
                let prints: BTreeSet<&Fingerprint> = prints.iter().collect();
                let records = self.tree.records(&self.registry, *place);
                sent.extend(
                    records
                        .filter(|(print, ..)| prints.contains(print))
                        .map(|(_, peer, record)| (peer, record.clone())),
                );
            }
            let done = done.map(|_| self.standing);
            self.send_records(turn, &seed, sent, Vec::new(), done);
        }
    }

    /// Of these records, those that name a quorum of distinct configured seeds.
    pub(super) fn authorised(
        &self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        mut records: Vec<(Addr, Record)>,
    ) -> Vec<(Addr, Record)> {
        records.retain(|(peer, record)| {
            let authorised = self.is_authorised(record);
            if !authorised {
                let keys = vec![
                    ("from", seed.to_string()),
                    ("peer", peer.to_string()),
                    ("reason", "it does not name a quorum of distinct seeds".to_owned()),
                ];
                turn.note(Severity::Warn, "commit refused", keys);
            }
            authorised
        });
        records
    }
}
