//! What the replicas of the store must show (invariant 7 of DESIGN.md, section 7), and their disks.
//!
//! The oracle knows every write that was ever made. What a replica shows must
//! be just what follows from the writes that it says it has seen: each version
//! whose write it has seen and that the writer of no other which it has seen knew. That
//! is all of it at once: nothing is shown without its causal past, nothing that
//! was overwritten or deleted comes back, nothing is lost, and two that have
//! seen the same show the same.
//!
//! And it knows what each client was really shown: a write replaces of that
//! just what stood, and nothing that its client was never shown; and a client to
//! which something was gone is not served where it still is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rumormill::proto::kv::clock::{Clock, Dot, Replica, Seen};
use rumormill::proto::kv::replica::{Done, Reply, StoreChange, StoreError, seen_of};
use rumormill::proto::kv::store::{Store, Version, Write};

use super::disk::Content;

/// What a peer keeps of its replica.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    name: Option<Replica>,
    context: BTreeMap<Replica, u64>,
    lamport: u64,
    seals: Vec<Arc<Write>>,
    versions: BTreeMap<Arc<str>, Vec<Version>>,
}

impl Content for Shelf {
    type Change = StoreChange;

    fn keep(&mut self, change: StoreChange) {
        match change {
            StoreChange::Named(name) => self.name = Some(name),
            StoreChange::Write(write) => {
                self.has(write.dot.replica.clone(), write.dot.count);
                self.lamport = self.lamport.max(write.lamport);
                if write.is_seal() {
                    for last in &write.replaces {
                        if self.context.get(&last.replica).is_some_and(|count| *count <= last.count)
                        {
                            self.context.remove(&last.replica);
                        }
                    }
                    self.seals.push(write);
                }
            }
            StoreChange::Versions(key, versions) => {
                self.versions.insert(key, versions);
            }
            StoreChange::Seen(context, lamport) => {
                context.iter().for_each(|(name, count)| self.has(name.clone(), count));
                self.lamport = self.lamport.max(lamport);
            }
        }
        self.versions.retain(|_, versions| !versions.is_empty());
    }
}

impl Shelf {
    /// The replica that a process begins with that starts now.
    pub fn store(&self) -> Store {
        let name = self.name.clone().unwrap_or_else(|| "".into());
        let seals = self.seals.iter().cloned();
        Store::recovered(name, self.context(), self.lamport, seals, self.versions.clone())
    }

    fn has(&mut self, name: Replica, count: u64) {
        let of = self.context.entry(name).or_default();
        *of = count.max(*of);
    }

    /// What has been seen by what is kept.
    pub fn context(&self) -> Clock {
        self.context.iter().map(|(name, count)| (name.clone(), *count)).collect()
    }

    pub fn name(&self) -> Option<&Replica> {
        self.name.as_ref()
    }
}

/// Whether a replica of that name has made it.
fn is_by(dot: &Dot, name: &str) -> bool {
    dot.replica.strip_suffix('!').unwrap_or(&dot.replica) == name
}

/// Whether the writer of something had seen that, by all that its clock stands for.
fn had_seen(write: &Write, past: &Clock, dot: &Dot) -> bool {
    let own = dot.replica == write.dot.replica && dot.count <= write.own;
    own || past.contains(dot) || write.past.extra.contains(dot)
}

/// Every write that was ever made.
#[derive(Default)]
pub struct Stores {
    writes: BTreeMap<Dot, Arc<Write>>,
    /// The seals among them.
    seals: BTreeMap<Dot, Arc<Write>>,
    /// Of each question that is not answered the key that it is about, and the one that the same client
    /// was answered before, whose metadata it brings.
    asking: BTreeMap<u64, (Arc<str>, Option<u64>)>,
    /// What a client really knew once a question was answered, and when it wrote something.
    knew: BTreeMap<u64, BTreeSet<Dot>>,
    /// And which writes were shown to it to be gone, by itself or by whoever wrote what it was shown.
    gone: BTreeMap<u64, BTreeSet<Dot>>,
    gone_at: BTreeMap<Dot, BTreeSet<Dot>>,
    knew_at: BTreeMap<Dot, BTreeSet<Dot>>,
}

impl Stores {
    /// A client asks about a key, with what it was given for an earlier question.
    pub fn asks(&mut self, token: u64, key: Arc<str>, before: Option<u64>) {
        self.asking.insert(token, (key, before));
    }

    /// A replica is about to keep changes; what is wrong with them.
    pub fn keeps(&mut self, store: &Store, changes: &[StoreChange]) -> Option<String> {
        for change in changes {
            let StoreChange::Write(write) = change else { continue };
            match self.writes.get(&write.dot) {
                Some(known) if known == write => {}
                Some(known) => return Some(format!("{write:?} has the dot of {known:?}")),
                None if is_by(&write.dot, store.name()) => self.made(write),
                None => return Some(format!("takes {write:?}, which nobody has made")),
            }
        }
        None
    }

    /// A process is gone, and of its own writes its disk has those: the others never left it.
    pub fn ends(&mut self, name: &Replica, kept: &Clock) {
        let kept = self.full(kept);
        self.writes.retain(|dot, _| !is_by(dot, name) || kept.contains(dot));
        self.seals.retain(|dot, _| self.writes.contains_key(dot));
    }

    /// A client is answered, by a replica with that on its disk; what is wrong with that.
    pub fn answers(
        &mut self,
        token: u64,
        reply: &Reply,
        store: &Store,
        disk: &Clock,
    ) -> Option<String> {
        let (key, before) = self.asking.remove(&token)?;
        if *reply == Err(StoreError::Behind) {
            return None;
        }
        let seen = seen_of(reply).map(Seen::bound).unwrap_or_default();
        if !self.full(disk).covers(&seen) {
            return Some(format!("answers for {seen}, and has {disk} on its disk"));
        }
        let known = before.map(|before| self.knew.get(&before).cloned().unwrap_or_default());
        let context = self.full(store.context());
        let lacks = known.iter().flatten().find(|dot| !context.contains(dot));
        if let Some(lacks) = lacks {
            return Some(format!("answers a client that has seen {lacks:?}, and has not"));
        }
        let gone = before.and_then(|before| self.gone.get(&before).cloned()).unwrap_or_default();
        if let Some(back) = store.iter().flat_map(|(_, of)| of).find(|v| gone.contains(&v.dot)) {
            return Some(format!(
                "serves a client that was shown that {:?} is gone, and holds it",
                back.dot
            ));
        }
        match reply {
            Ok(Done { versions, .. }) if versions.is_empty() => {
                let replica = store.name().clone();
                let dot = Dot { count: seen.get(&replica), replica };
                let what = self.wrote(token, dot.clone(), known, store);
                self.is_shown(token, &key, gone, [&dot]);
                self.gone_at.insert(dot, self.gone.get(&token).cloned().unwrap_or_default());
                what
            }
            Ok(Done { versions, .. }) | Err(StoreError::Unseen { versions, .. }) => {
                let mut known = known.unwrap_or_default();
                for version in versions {
                    known.extend(self.behind(&version.dot));
                }
                self.knew.insert(token, known);
                self.is_shown(token, &key, gone, versions.iter().map(|version| &version.dot));
                None
            }
            Err(StoreError::NotFound(_)) => {
                self.knew.insert(token, known.unwrap_or_default());
                self.is_shown(token, &key, gone, []);
                None
            }
            _ => None,
        }
    }

    /// A client is shown just these of a key: whatever else of it the client knew is gone, and so is
    /// whatever was to whoever wrote these.
    fn is_shown<'a>(
        &mut self,
        token: u64,
        key: &str,
        mut gone: BTreeSet<Dot>,
        shown: impl IntoIterator<Item = &'a Dot>,
    ) {
        let shown: BTreeSet<&Dot> = shown.into_iter().collect();
        let known = self.knew.get(&token).into_iter().flatten();
        let of_key = |dot: &&Dot| self.writes.get(dot).is_some_and(|write| &*write.key == key);
        gone.extend(known.filter(of_key).filter(|dot| !shown.contains(dot)).cloned());
        gone.extend(shown.into_iter().filter_map(|dot| self.gone_at.get(dot)).flatten().cloned());
        self.gone.insert(token, gone);
    }

    /// What a client knows that is shown a write: it, and what its client knew.
    fn behind(&self, dot: &Dot) -> BTreeSet<Dot> {
        let mut all = match (self.knew_at.get(dot), self.writes.get(dot)) {
            (Some(known), _) => known.clone(),
            // Its client was never answered, or did not say what it had seen: what the write says.
            (None, Some(write)) => self.told(write),
            (None, None) => BTreeSet::new(),
        };
        all.insert(dot.clone());
        all
    }

    fn told(&self, write: &Write) -> BTreeSet<Dot> {
        let past = self.full(&write.past.clock);
        self.writes.keys().filter(|dot| had_seen(write, &past, dot)).cloned().collect()
    }

    fn made(&mut self, write: &Arc<Write>) {
        self.writes.insert(write.dot.clone(), write.clone());
        if write.is_seal() {
            self.seals.insert(write.dot.clone(), write.clone());
        }
    }

    /// A clock with all that the seals in it stand for, said by the seals alone.
    fn full(&self, clock: &Clock) -> Clock {
        let mut all = clock.clone();
        let mut more = true;
        let mut seals: Vec<&Arc<Write>> = self.seals.values().collect();
        while std::mem::take(&mut more) {
            seals.retain(|seal| {
                let is_in = all.contains(&seal.dot);
                if is_in {
                    more = true;
                    all.merge(&seal.past.clock);
                    seal.replaces.iter().for_each(|last| all.add(last));
                }
                !is_in
            });
        }
        all
    }

    /// A client that knew that is answered for this write; what is wrong with it.
    fn wrote(
        &mut self,
        token: u64,
        dot: Dot,
        known: Option<BTreeSet<Dot>>,
        store: &Store,
    ) -> Option<String> {
        let write = self.writes.get(&dot)?.clone();
        // Who brings no metadata has seen what the replica has, whatever that is.
        let known = known.unwrap_or_else(|| self.told(&write));
        if let Some(lost) = write.replaces.iter().find(|replaced| !known.contains(replaced)) {
            return Some(format!("{write:?} replaces {lost:?}, which its client never saw"));
        }
        let stands = store.get(&write.key).iter().find(|version| known.contains(&version.dot));
        if let Some(version) = stands {
            return Some(format!(
                "{:?} stands beside {write:?}, whose client had seen it",
                version.dot
            ));
        }
        let mut all = known.clone();
        all.insert(dot.clone());
        self.knew_at.insert(dot, known);
        self.knew.insert(token, all);
        None
    }

    /// What is wrong with what a replica shows.
    pub fn judge(&self, store: &Store) -> Option<String> {
        let context = &self.full(store.context());
        let mut stands: BTreeMap<&str, BTreeSet<&Dot>> = BTreeMap::new();
        let mut writes: BTreeMap<&str, Vec<&Write>> = BTreeMap::new();
        for (replica, count) in context.iter() {
            for count in 1..=count {
                let dot = Dot { replica: replica.clone(), count };
                let Some((dot, write)) = self.writes.get_key_value(&dot) else {
                    return Some(format!("has seen {dot:?}, which nobody has made"));
                };
                let ends = write.is_seal().then_some(&write.replaces).into_iter().flatten();
                if !write.past.is_within(context) || !ends.clone().all(|dot| context.contains(dot))
                {
                    return Some(format!("has seen {dot:?} and not what it rests on"));
                }
                writes.entry(&write.key).or_default().push(write);
                if write.value.is_some() {
                    stands.entry(&write.key).or_default().insert(dot);
                }
            }
        }
        for (key, dots) in &mut stands {
            let writes = writes.get(key).map_or(&[][..], Vec::as_slice);
            let pasts = writes.iter().map(|write| self.full(&write.past.clock));
            let pasts: Vec<Clock> = pasts.collect();
            dots.retain(|dot| {
                !writes.iter().zip(&pasts).any(|(write, past)| had_seen(write, past, dot))
            });
        }
        stands.retain(|_, dots| !dots.is_empty());
        let shown: BTreeMap<&str, BTreeSet<&Dot>> =
            store.iter().map(|(key, of)| (&**key, of.iter().map(|v| &v.dot).collect())).collect();
        (shown != stands).then(|| format!("shows {shown:?}, and by what it has seen {stands:?}"))
    }
}
