//! How a replica ends lives that are over, and what that makes of what it and its clients have seen
//! ([`super::seal`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::clock::{Clock, Dot, MAX_COUNT, MAX_EXTRA, Replica, Seen};
use super::name;
use super::seal;
use super::store::Store;
use super::write::{MAX_ENDED, Write};
use crate::proto::time::Time;

/// What a client is given of what it has seen, bytes, roughly: it brings that with each request, and
/// its writes carry it.
pub(super) const MAX_SEEN: usize = 64 << 10;

impl Store {
    /// Keeps what a client has seen short. Of lives that are over it may have to forget what it was
    /// shown of them: then it still meets no replica that is less far, and what it writes stands beside
    /// their versions instead of replacing them.
    pub(super) fn keep_short(&self, seen: &mut Seen) {
        self.seals.shorten_seen(seen);
        if seen.size() <= MAX_SEEN || self.seals.is_empty() {
            return;
        }
        let sealers = self.context.iter().filter(|(name, _)| name::is_sealer(name));
        let floor: Clock = sealers.map(|(name, count)| (name.clone(), count)).collect();
        seen.raise_floor(&floor);
        seen.clock
            .retain(|replica, count| name::is_sealer(replica) || self.seals.count(replica) < count);
        self.seals.shorten_seen(seen);
    }

    /// Keeps at most [`MAX_EXTRA`] single writes in what a client has seen. Whoever serves it from then
    /// on is as far as this replica, so whether it has seen what is gone here makes no difference to
    /// anybody. Of those that stand it may have to forget some: what it writes then stands beside them.
    /// Never does it count as having seen a version that it was not shown, or its next write would
    /// take that away.
    pub(super) fn keep_few(&self, seen: &mut Seen, was_just_shown: impl Fn(&Dot) -> bool) {
        if seen.extra.len() <= MAX_EXTRA {
            return;
        }
        self.seals.shorten_seen(seen);
        seen.raise_floor(&self.context);
        seen.absorb(|clock, single| !self.live.any_between(clock.get(&single.replica), single));
        seen.extra.retain(|single| self.live.contains(single));
        let mut too_many = seen.extra.len().saturating_sub(MAX_EXTRA);
        seen.extra.retain(|single| {
            let stays = too_many == 0 || was_just_shown(single);
            too_many -= usize::from(!stays);
            stays
        });
        seen.extra.truncate(MAX_EXTRA);
    }

    /// What a client has seen, kept short.
    pub(super) fn short(&self, seen: &Seen) -> Seen {
        let mut seen = seen.clone();
        self.keep_short(&mut seen);
        seen
    }

    /// What this replica has seen, its own writes named: its disk may be an old copy, and others may name
    /// it no more unless they are asked.
    pub(super) fn context_with_own(&self) -> Clock {
        let own = [self.me.clone(), seal::sealer(&self.me)].into_iter();
        let own = own.filter(|name| self.context.get(name) == 0);
        let own = own.map(|name| (name.clone(), self.seals.count(&name)));
        self.context.joined(own.filter(|(_, count)| *count > 0))
    }

    /// Lives that may be over, with their last writes: those whose address has begun another one, and
    /// those whose address is nobody's any more.
    pub(super) fn over(&self, is_member: impl Fn(SocketAddr) -> bool) -> Clock {
        let usual = self.context.iter().filter_map(|(replica, count)| {
            name::parts(replica).map(|(addr, life)| (addr, life, replica, count))
        });
        let usual: Vec<(SocketAddr, u64, &Replica, u64)> = usual.collect();
        let mut newest: BTreeMap<SocketAddr, u64> = BTreeMap::new();
        for &(addr, life, ..) in &usual {
            newest.entry(addr).and_modify(|of| *of = life.max(*of)).or_insert(life);
        }
        let is_over = |addr: SocketAddr, life: u64, replica: &Replica| {
            *replica != self.me && (newest.get(&addr) != Some(&life) || !is_member(addr))
        };
        let over = usual.iter().filter(|(addr, life, replica, _)| is_over(*addr, *life, replica));
        over.map(|(_, _, replica, count)| ((*replica).clone(), *count)).collect()
    }

    /// Those that have written or sealed and live longer than this replica.
    pub(super) fn older(&self) -> impl Iterator<Item = &str> {
        let age = |name: &str| name::parts(name).map(|(addr, life)| (life, addr));
        let mine = age(&self.me);
        let names =
            self.context.iter().map(|(name, _)| name.strip_suffix(name::SEAL).unwrap_or(name));
        names.filter(move |name| age(name).is_some_and(|theirs| mine.is_none_or(|m| theirs < m)))
    }

    /// Ends lives, of which these are the last writes. None if there is no room for a seal.
    pub fn seal(&mut self, now: Time, last: &Clock) -> Option<Arc<Write>> {
        let replica = seal::sealer(&self.me);
        let room = self.context.has_room_for(&replica) && self.lamport < MAX_COUNT;
        let last = last.iter().filter(|(replica, count)| self.context.get(replica) == *count);
        let replaces: Vec<Dot> = last
            .map(|(replica, count)| Dot { replica: replica.clone(), count })
            .take(MAX_ENDED)
            .collect();
        if !room || replaces.is_empty() {
            return None;
        }
        let mut past = self.context.without(&replica);
        past.retain(|name, _| name::is_sealer(name));
        let own = self.count(&replica);
        self.lamport += 1;
        let write = Arc::new(Write {
            dot: Dot { replica, count: own + 1 },
            past: Seen::of(past),
            own,
            lamport: self.lamport,
            at: now,
            key: "".into(),
            replaces,
            value: None,
        });
        self.apply(&write);
        Some(write)
    }

    pub(super) fn apply_seal(&mut self, write: &Write) {
        self.seals.keep(write);
        self.seals.shorten(&mut self.context);
        // What it ends has deletes in it, so it covers those.
        if write.replaces.iter().any(|last| self.deletes.get(&last.replica) > 0) {
            self.deletes.add(&write.dot);
            self.seals.shorten(&mut self.deletes);
        }
    }
}
