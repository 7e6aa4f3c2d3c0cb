//! What keeps clocks short: seals, which end the lives of replicas that write no more.
//!
//! Each life of a replica that ever wrote is one entry of every clock from then on. A seal is a
//! write without a key, under the name of a replica with `!` behind it, that names the last writes
//! of lives that are over. Like any write it is applied once its past is here, and so are the
//! writes that it names. So whoever has seen the seal has seen them, and a clock that names the
//! seal need not name them. A seal that rests on other seals stands for what they stand for.
//!
//! No write is ever taken for seen that was not. A life that was thought to be over and writes
//! again is one entry more, and a replica that was away learns a seal like any write that it lacks.
//! So what a seal names is a matter of cost alone, and needs nobody's consent. What must stay true:
//! two replicas that have seen the same writes have the same clocks, and the seals that a replica
//! keeps are those that it has seen, each after those that it rests on.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::clock::{Clock, Dot, Replica, Seen};
use super::name::{self, SEAL};
use super::write::Write;
use crate::proto::time::Time;

/// Bytes that an ended life takes in a frame, roughly.
pub(super) const ENDED_BYTES: usize = 32;

/// The name under which a replica makes seals.
pub(super) fn sealer(replica: &str) -> Replica {
    format!("{replica}{SEAL}").into()
}

/// A seal, without the lives that it ends.
#[derive(Clone, Debug)]
struct Kept {
    dot: Dot,
    past: Clock,
    lamport: u64,
    at: Time,
    /// Number of lives that it ends.
    ends: usize,
    /// One more than that of the deepest seal that it rests on. It orders seals, causes first and
    /// alike at all replicas, and unlike the Lamport time it is not for the sealer to choose.
    depth: u32,
    /// Seals kept before it for which it does not stand.
    beside: Vec<u32>,
}

/// A life that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ended {
    life: u64,
    count: u64,
    seal: u32,
}

/// The seals that a replica has seen.
#[derive(Clone, Debug, Default)]
pub struct Seals {
    kept: Vec<Kept>,
    by_sealer: BTreeMap<Replica, Vec<u32>>,
    /// What seals end, by address and in order. It is kept for ever, so it has numbers instead of
    /// names.
    ended: BTreeMap<SocketAddr, Vec<Ended>>,
}

/// A clock together with what the seals in it stand for.
pub(super) struct View<'a> {
    seals: &'a Seals,
    clock: &'a Clock,
    tops: OnceCell<Vec<u32>>,
}

impl View<'_> {
    /// Whether the first `count` writes of a replica were seen.
    pub fn has(&self, replica: &str, count: u64) -> bool {
        self.clock.get(replica) >= count || self.is_implied(replica, count)
    }

    /// Whether a write was seen.
    pub fn contains(&self, dot: &Dot) -> bool {
        self.has(&dot.replica, dot.count)
    }

    /// Whether all that another clock names was seen.
    pub fn covers(&self, other: &Clock) -> bool {
        let mut counts = self.clock.beside(other);
        counts.all(|(replica, count, here)| here >= count || self.is_implied(replica, count))
    }

    /// Whether all that a client has seen was seen.
    pub fn includes(&self, seen: &Seen) -> bool {
        self.covers(&seen.clock)
            && self.covers(&seen.floor)
            && seen.extra.iter().all(|single| self.contains(single))
    }

    /// Number of writes of a replica that were seen.
    pub fn count(&self, replica: &str) -> u64 {
        let implied = self.seals.of(replica).filter(|(_, seal)| self.reaches(*seal, None));
        implied.map(|(count, _)| count).fold(self.clock.get(replica), u64::max)
    }

    fn is_implied(&self, replica: &str, count: u64) -> bool {
        !self.seals.kept.is_empty()
            && self.seals.of(replica).any(|(of, seal)| of >= count && self.reaches(seal, None))
    }

    /// Whether the clock can do without this entry, because another part of it stands for the
    /// entry.
    fn is_spare(&self, replica: &str, count: u64) -> bool {
        let itself = self.seals.by_sealer.get(replica).and_then(|of| of.get(place(count)?));
        self.seals.of(replica).any(|(of, seal)| of >= count && self.reaches(seal, itself.copied()))
    }

    fn reaches(&self, seal: u32, but: Option<u32>) -> bool {
        let tops = self.tops.get_or_init(|| self.seals.tops(self.clock));
        tops.iter().any(|top| Some(*top) != but && self.seals.stands_for(*top, seal))
    }
}

fn place(count: u64) -> Option<usize> {
    usize::try_from(count.checked_sub(1)?).ok()
}

impl Seals {
    pub(super) fn view<'a>(&'a self, clock: &'a Clock) -> View<'a> {
        View { seals: self, clock, tops: OnceCell::new() }
    }

    /// Number of seals.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is no seal.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Number of lives that they end.
    pub fn lives(&self) -> usize {
        self.ended.values().map(Vec::len).sum()
    }

    /// Number of writes that they stand for or are themselves. A life that two of them end counts
    /// twice.
    pub(super) fn total(&self) -> u64 {
        let ended = self.ended.values().flatten().map(|ended| ended.count);
        ended.fold(self.kept.len() as u64, u64::saturating_add)
    }

    /// Number of writes of a replica for which they stand, all together.
    pub(super) fn count(&self, replica: &str) -> u64 {
        if self.kept.is_empty() {
            return 0;
        }
        self.of(replica).map(|(count, _)| count).max().unwrap_or(0)
    }

    /// What each seal says of a replica: number of writes, and number of the seal.
    fn of(&self, replica: &str) -> impl Iterator<Item = (u64, u32)> + '_ {
        let seals = self.by_sealer.get(replica).into_iter().flatten();
        let itself = seals.zip(1_u64..).map(|(seal, count)| (count, *seal));
        let life = if name::is_sealer(replica) { None } else { name::parts(replica) };
        let ended = life.and_then(|(addr, life)| Some((self.ended.get(&addr)?, life)));
        let ended = ended.into_iter().flat_map(|(of, life)| {
            let from = of.partition_point(|ended| ended.life < life);
            of[from..].iter().take_while(move |ended| ended.life == life)
        });
        itself.chain(ended.map(|ended| (ended.count, ended.seal)))
    }

    fn stands_for(&self, one: u32, other: u32) -> bool {
        let kept = self.kept.get(one as usize);
        one == other
            || other < one && kept.is_some_and(|kept| kept.beside.binary_search(&other).is_err())
    }

    /// The newest seal of each sealer that a clock names.
    fn tops(&self, clock: &Clock) -> Vec<u32> {
        let sealers = clock.iter().filter(|(name, _)| name::is_sealer(name));
        let newest = sealers.filter_map(|(name, count)| {
            let of = self.by_sealer.get(name)?;
            let known = of.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            of.get(known.checked_sub(1)?).copied()
        });
        newest.collect()
    }

    /// The newest seals that a seal rests on, which stand for the others. None if it cannot follow
    /// on those that are kept. Its Lamport time is not looked at: one seal with the greatest of all
    /// would be the last one that anybody could make.
    fn tops_of(&self, write: &Write) -> Option<Vec<u32>> {
        let Write { dot, past, .. } = write;
        let of = self.by_sealer.get(&dot.replica).map_or(&[][..], Vec::as_slice);
        if of.len() as u64 + 1 != dot.count || !self.knows(&past.clock) {
            return None;
        }
        let mut tops = self.tops(&past.clock);
        tops.extend(of.last());
        Some(tops)
    }

    /// Whether a seal follows on those that are kept.
    pub(super) fn precede(&self, write: &Write) -> bool {
        self.tops_of(write).is_some()
    }

    /// Whether all seals that a clock names are kept.
    pub(super) fn knows(&self, clock: &Clock) -> bool {
        let mut sealers = clock.iter().filter(|(name, _)| name::is_sealer(name));
        sealers.all(|(name, count)| {
            self.by_sealer.get(name).is_some_and(|of| of.len() as u64 >= count)
        })
    }

    /// Keeps one more seal. False if it does not follow on those that are kept.
    pub(super) fn keep(&mut self, write: &Write) -> bool {
        let Write { dot, past, lamport, at, replaces, .. } = write;
        let Ok(number) = u32::try_from(self.kept.len()) else { return false };
        let Some(tops) = self.tops_of(write) else { return false };
        let is_beside = |other: &u32| !tops.iter().any(|top| self.stands_for(*top, *other));
        let beside = (0..number).filter(is_beside).collect();
        let depths = tops.iter().filter_map(|top| Some(self.kept.get(*top as usize)?.depth));
        let depth = depths.max().map_or(0, |deepest| deepest.saturating_add(1));
        let (dot, past) = (dot.clone(), past.clock.clone());
        self.by_sealer.entry(dot.replica.clone()).or_default().push(number);
        self.kept.push(Kept {
            dot,
            past,
            lamport: *lamport,
            at: *at,
            ends: replaces.len(),
            depth,
            beside,
        });
        for last in replaces {
            if let Some((addr, life)) = name::parts(&last.replica) {
                let of = self.ended.entry(addr).or_default();
                let ended = Ended { life, count: last.count, seal: number };
                of.insert(of.partition_point(|other| *other < ended), ended);
            }
        }
        true
    }

    /// The seals that a clock has not seen, by number, each after those that it rests on. The order
    /// is the same at all replicas.
    pub(super) fn beyond(&self, clock: &Clock) -> Vec<u32> {
        let view = self.view(clock);
        let lacking = self.kept.iter().zip(0_u32..).filter(|(_, seal)| !view.reaches(*seal, None));
        let mut lacking: Vec<(&Kept, u32)> = lacking.collect();
        lacking.sort_by_key(|(kept, _)| (kept.depth, &kept.dot));
        lacking.into_iter().map(|(_, seal)| seal).collect()
    }

    /// Bytes that the lives ended by a seal take, roughly.
    pub(super) fn size(&self, seal: u32) -> usize {
        self.kept.get(seal as usize).map_or(0, |kept| kept.ends * ENDED_BYTES)
    }

    /// Some seals as they were made, given by number and returned in that order.
    pub(super) fn writes(&self, seals: &[u32]) -> Vec<Arc<Write>> {
        let mut ends: BTreeMap<u32, Vec<Dot>> = seals.iter().map(|seal| (*seal, vec![])).collect();
        if ends.is_empty() {
            return Vec::new();
        }
        for (addr, of) in &self.ended {
            for Ended { life, count, seal } in of {
                if let Some(replaces) = ends.get_mut(seal) {
                    let replica = name::text(*addr, *life).into();
                    replaces.push(Dot { replica, count: *count });
                }
            }
        }
        let writes = seals.iter().filter_map(|seal| {
            let Kept { dot, past, lamport, at, .. } = self.kept.get(*seal as usize)?;
            let mut replaces = ends.remove(seal)?;
            replaces.sort();
            Some(Arc::new(Write {
                own: dot.count.saturating_sub(1),
                dot: dot.clone(),
                past: Seen::of(past.clone()),
                lamport: *lamport,
                at: *at,
                key: "".into(),
                replaces,
                value: None,
            }))
        });
        writes.collect()
    }

    /// Takes out of a clock the entries for which the seals in it stand.
    pub(super) fn shorten(&self, clock: &mut Clock) {
        if self.kept.is_empty() {
            return;
        }
        let view = self.view(clock);
        let spare: Vec<bool> =
            view.clock.iter().map(|(replica, count)| view.is_spare(replica, count)).collect();
        let mut spare = spare.into_iter();
        clock.retain(|_, _| !spare.next().unwrap_or(false));
    }

    /// Takes out of what a client has seen all for which the seals in it stand.
    pub(super) fn shorten_seen(&self, seen: &mut Seen) {
        if self.kept.is_empty() {
            return;
        }
        self.shorten(&mut seen.clock);
        self.shorten(&mut seen.floor);
        let view = self.view(&seen.clock);
        seen.floor.retain(|replica, count| !view.has(replica, count));
        seen.extra.retain(|single| !view.contains(single));
    }
}

#[cfg(test)]
mod tests;
