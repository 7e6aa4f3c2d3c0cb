//! How a replica ends lives that are over, and how it shortens by that what it and its clients have
//! seen ([`super::seal`]). What must stay true: a client never counts as having seen a version that
//! it was not shown, however much is left out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::clock::{Clock, Dot, MAX_EXTRA, Replica, Seen};
use super::name;
use super::seal;
use super::store::Store;
use super::write::{MAX_ENDED, Write};
use crate::proto::time::Time;

/// Most bytes, roughly, of what a client is given as seen: it brings that with each request, and
/// its writes carry it.
pub(super) const MAX_SEEN: usize = 64 << 10;

impl Store {
    /// Shortens what a client has seen, if it is long. It may have to forget what the client was
    /// shown of lives that are over. The floor then still keeps the client from replicas that are
    /// less far, and what it writes stands beside the versions of those lives instead of replacing
    /// them.
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

    /// Keeps at most [`MAX_EXTRA`] single writes in what a client has seen. From then on only
    /// replicas as far as this one serve it, so it does not matter whether it has seen versions
    /// that are gone here. Of those that stand it may have to forget some: what it writes then
    /// stands beside them. It never counts as having seen a version that it was not shown, or its
    /// next write would take that away.
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

    /// What a client has seen, shortened.
    pub(super) fn short(&self, seen: &Seen) -> Seen {
        let mut seen = seen.clone();
        self.keep_short(&mut seen);
        seen
    }

    /// What this replica has seen, always naming its own writes. Its disk may be an old copy, and
    /// others name an ended life only to a replica that names it.
    pub(super) fn context_with_own(&self) -> Clock {
        let own = [self.me.clone(), seal::sealer(&self.me)].into_iter();
        let own = own.filter(|name| self.context.get(name) == 0);
        let own = own.map(|name| (name.clone(), self.seals.count(&name)));
        self.context.joined(own.filter(|(_, count)| *count > 0))
    }

    /// Lives that may be over, with their last writes: lives whose address has begun another one,
    /// and lives whose address is no member's any more.
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

    /// Replicas that are named in the context and have lived longer than this one, each once.
    pub(super) fn older(&self) -> impl Iterator<Item = &str> {
        let age = |name: &str| name::parts(name).map(|(addr, life)| (life, addr));
        let mine = age(&self.me);
        // A replica that has both written and sealed has two names in the context.
        let names =
            self.context.iter().filter_map(|(name, _)| match name.strip_suffix(name::SEAL) {
                Some(writer) => (self.context.get(writer) == 0).then_some(writer),
                None => Some(&**name),
            });
        names.filter(move |name| age(name).is_some_and(|theirs| mine.is_none_or(|m| theirs < m)))
    }

    /// Ends lives whose last writes are given. None if there is no room for a seal, or nothing to
    /// end.
    pub fn seal(&mut self, now: Time, last: &Clock) -> Option<Arc<Write>> {
        let replica = seal::sealer(&self.me);
        let room = self.context.has_room_for(&replica);
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
        self.step_lamport();
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
        // A life that it ends may have made deletes: let the seal stand for them in `deletes`.
        if write.replaces.iter().any(|last| self.deletes.get(&last.replica) > 0) {
            self.deletes.add(&write.dot);
            self.seals.shorten(&mut self.deletes);
        }
    }
}
