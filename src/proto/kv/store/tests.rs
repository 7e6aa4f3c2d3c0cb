//! One replica, and several that lose, delay and reorder what they tell each other.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::proto::kv::clock::MAX_EXTRA;
use crate::proto::kv::ended::MAX_SEEN;
use crate::proto::kv::snapshot::Snapshot;

const NOW: Time = Time::from_millis(1_800_000_000_000);

fn replica(name: usize) -> Store {
    Store::new(format!("127.0.0.1:{name}@7").into())
}

fn value(json: serde_json::Value) -> Value {
    Value::new(&json).unwrap()
}

fn shown(store: &Store, key: &str) -> Vec<serde_json::Value> {
    store.get(key).iter().map(|version| version.value.json()).collect()
}

#[test]
fn a_write_replaces_what_its_writer_had_seen_and_stands_beside_the_rest() {
    let mut store = replica(1);
    let (_, first) = store.put(NOW, "k", value(json!(1)), None);
    let (_, one) = store.put(NOW, "k", value(json!("a")), Some(&first));
    let (_, other) = store.put(NOW, "k", value(json!("b")), Some(&first));
    assert_eq!(shown(&store, "k"), [json!("b"), json!("a")], "neither had seen the other");
    // The second writer goes on, and still has not seen what the first one wrote.
    store.put(NOW, "k", value(json!("c")), Some(&other));
    assert_eq!(shown(&store, "k"), [json!("c"), json!("a")]);
    let both = store.seen_with("k", Some(&one));
    store.put(NOW, "k", value(json!("d")), Some(&both));
    assert_eq!(shown(&store, "k"), [json!("d")], "whoever has read both replaces both");
    assert!(both.extra.is_empty(), "and what it has seen is a clock again: {both:?}");
}

#[test]
fn a_client_that_says_nothing_replaces_what_is_here() {
    let mut store = replica(1);
    store.put(NOW, "k", value(json!(1)), None);
    store.put(NOW, "k", value(json!(2)), None);
    assert_eq!(shown(&store, "k"), [json!(2)]);
    assert!(store.delete(NOW, "k", None).is_some());
    assert!(store.delete(NOW, "k", None).is_none());
    assert_eq!(store.keys().count(), 0);
}

#[test]
fn what_was_deleted_does_not_come_back_and_what_was_not_seen_stays() {
    let (mut a, mut b) = (replica(1), replica(2));
    let (first, _) = a.put(NOW, "k", value(json!(1)), None);
    b.receive(first.clone()).unwrap();
    let (second, _) = b.put(NOW, "k", value(json!(2)), Some(&Seen::default()));
    let (gone, _) = a.delete(NOW, "k", None).unwrap();
    b.receive(gone).unwrap();
    a.receive(second).unwrap();
    a.receive(first).unwrap();
    assert_eq!(shown(&a, "k"), [json!(2)]);
    assert_eq!(a.snapshot(&Clock::new()), b.snapshot(&Clock::new()));
}

#[test]
fn a_write_waits_for_its_causal_past() {
    let (mut a, mut b, mut c) = (replica(1), replica(2), replica(3));
    let (first, _) = a.put(NOW, "x", value(json!(1)), None);
    b.receive(first.clone()).unwrap();
    let (second, _) = b.put(NOW, "y", value(json!(2)), None);
    assert_eq!(c.receive(second.clone()), Ok(Receipt::Held));
    assert_eq!(c.keys().count(), 0);
    assert_eq!(c.receive(second.clone()), Ok(Receipt::Known));
    assert_eq!(c.receive(first.clone()), Ok(Receipt::Applied(vec![first, second])));
    assert_eq!(c.snapshot(&Clock::new()), b.snapshot(&Clock::new()));
}

#[test]
fn a_write_that_no_replica_makes_is_refused() {
    let mut a = replica(1);
    let (write, _) = a.put(NOW, "k", value(json!(1)), None);
    let mut b = replica(2);
    let mut refused = |change: &dyn Fn(&mut Write)| {
        let mut forged = Write::clone(&write);
        change(&mut forged);
        b.receive(Arc::new(forged)).is_err()
    };
    assert!(refused(&|write| write.dot.count = 0));
    assert!(refused(&|write| write.past.clock.raise(&write.dot.replica.clone(), 1)));
    assert!(refused(&|write| write.own = 1));
    assert!(refused(&|write| write.lamport = u64::MAX));
    assert!(refused(&|write| write.dot.count = u64::MAX));
    assert!(refused(&|write| write.dot.replica = "x".repeat(129).into()));
    assert!(refused(&|write| write.past.clock.raise(&"x".repeat(129).into(), 1)));
    assert!(refused(&|write| write.key = "k".repeat(MAX_KEY + 1).into()));
    assert!(refused(&|write| write.replaces = vec![write.dot.clone()]));
    assert!(refused(&|write| {
        let other = value(json!(2)).cid();
        write.value = write.value.take().map(|v| Value::from_parts(v.text().clone(), other));
    }));
    assert!(!refused(&|_| {}));
}

#[test]
fn what_waits_is_bounded_and_comes_again() {
    let (mut a, mut b) = (replica(1), replica(2));
    let writes: Vec<_> = (0..MAX_HELD.0 + 10)
        .map(|n| a.put(NOW, &format!("k{n}"), value(json!(n)), None).0)
        .collect();
    let dropped = writes[1..]
        .iter()
        .filter(|write| b.receive((*write).clone()) == Ok(Receipt::Dropped))
        .count();
    assert_eq!(dropped, 9);
    for write in a.since(b.context()).unwrap() {
        b.receive(write).unwrap();
    }
    assert_eq!(a.snapshot(&Clock::new()), b.snapshot(&Clock::new()));
    assert!(!b.is_waiting());
}

#[test]
fn who_lacks_more_than_the_log_holds_gets_the_whole_store() {
    let (mut a, mut b) = (replica(1), replica(2));
    b.put(NOW, "mine", value(json!("kept")), None);
    let (gone, _) = b.put(NOW, "gone", value(json!("gone")), None);
    for write in b.since(&Clock::new()).unwrap() {
        a.receive(write).unwrap();
    }
    a.delete(NOW, &gone.key, None);
    for n in 0..MAX_LOG.0 {
        a.put(NOW, &format!("k{}", n % 100), value(json!(n)), None);
    }
    assert_eq!(a.since(b.context()), None);
    b.put(NOW, "late", value(json!("kept, too")), None);
    let merged = b.merge(a.snapshot(&Clock::new())).unwrap();
    assert_eq!(merged.changed.len(), 101);
    assert_eq!(b.keys().count(), 102);
    for write in b.since(a.context()).into_iter().flatten() {
        a.receive(write).unwrap();
    }
    assert_eq!(shown(&b, "late"), [json!("kept, too")]);
    assert!(shown(&b, "gone").is_empty() && shown(&b, "mine").len() == 1);
}

/// A thing that may happen among replicas.
#[derive(Clone, Debug)]
enum Step {
    Put {
        at: usize,
        key: usize,
        client: usize,
        reads: bool,
    },
    Delete {
        at: usize,
        key: usize,
        client: usize,
    },
    /// One of all writes made so far reaches a replica, perhaps again.
    Arrive {
        at: usize,
        write: prop::sample::Index,
    },
    /// One replica tells another all that it lacks or, if `whole`, all that there is.
    Sync {
        from: usize,
        to: usize,
        whole: bool,
    },
    /// A replica crashes, and comes back with what was on its disk.
    Crash {
        at: usize,
    },
    /// A replica loses its disk as well, and comes back under another name.
    Restart {
        at: usize,
    },
    /// A replica ends some of the lives that it knows, whether they are over or not.
    Seal {
        at: usize,
        which: u16,
    },
}

const REPLICAS: usize = 3;
/// Few keys make for more trouble; many keys serve clients that have seen some of everything.
const KEYS: [&str; 2] = ["x", "y"];
const MANY_KEYS: [&str; 12] = ["x", "y", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
const CLIENTS: usize = 3;

fn step(keys: usize) -> impl Strategy<Value = Step> {
    let (at, key, client) = (0..REPLICAS, 0..keys, 0..CLIENTS);
    prop_oneof![
        4 => (at.clone(), key.clone(), client.clone(), any::<bool>())
            .prop_map(|(at, key, client, reads)| Step::Put { at, key, client, reads }),
        1 => (at.clone(), key, client).prop_map(|(at, key, client)| Step::Delete { at, key, client }),
        6 => (at.clone(), any::<prop::sample::Index>())
            .prop_map(|(at, write)| Step::Arrive { at, write }),
        2 => (at.clone(), at.clone(), any::<bool>())
            .prop_map(|(from, to, whole)| Step::Sync { from, to, whole }),
        1 => at.clone().prop_map(|at| Step::Crash { at }),
        2 => at.clone().prop_map(|at| Step::Restart { at }),
        1 => (at, any::<u16>()).prop_map(|(at, which)| Step::Seal { at, which }),
    ]
}

/// Replicas, clients that hop between them, and all writes that there ever were.
struct Story {
    stores: Vec<Store>,
    clients: Vec<Option<Seen>>,
    /// The writes that each client was shown, and those that their writers had been shown. Its
    /// metadata may say less than this, never more.
    shown: Vec<BTreeSet<Dot>>,
    /// What the writer of each write had been shown, including that write.
    knew: BTreeMap<Dot, BTreeSet<Dot>>,
    writes: Vec<Arc<Write>>,
    lives: usize,
}

impl Story {
    fn new() -> Self {
        Self {
            stores: (0..REPLICAS).map(replica).collect(),
            clients: vec![None; CLIENTS],
            shown: vec![BTreeSet::new(); CLIENTS],
            knew: BTreeMap::new(),
            writes: Vec::new(),
            lives: 0,
        }
    }

    /// A client is shown a key at a replica.
    fn show(&mut self, at: usize, key: &str, client: usize) {
        for version in self.stores[at].get(key) {
            self.shown[client].extend(self.knew[&version.dot].iter().cloned());
        }
    }

    /// A client without metadata counts as having seen all that is there.
    fn show_all(&mut self, at: usize, client: usize) {
        let here = self.writes.iter().filter(|write| self.stores[at].has(&write.dot));
        self.shown[client].extend(here.map(|write| write.dot.clone()));
    }

    /// A client has written; it must have been shown whatever the write took away.
    fn wrote(&mut self, client: usize, write: Arc<Write>) {
        let unseen = write.replaces.iter().find(|dot| !self.shown[client].contains(dot));
        assert_eq!(unseen, None, "taken away by a client that was not shown it: {write:?}");
        self.shown[client].insert(write.dot.clone());
        self.knew.insert(write.dot.clone(), self.shown[client].clone());
        self.writes.push(write);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Put { at, key, client, reads } => self.put(at, key, client, reads),
            Step::Delete { at, key, client } => {
                let Some(seen) = self.caught_up(at, client) else { return };
                if seen.is_none() {
                    self.show_all(at, client);
                }
                let deleted = self.stores[at].delete(NOW, MANY_KEYS[key], seen.as_ref());
                if let Some((write, seen)) = deleted {
                    self.clients[client] = Some(seen);
                    self.wrote(client, write);
                }
            }
            Step::Arrive { at, write } => {
                if !self.writes.is_empty() {
                    let write = write.get(&self.writes).clone();
                    self.stores[at].receive(write).unwrap();
                }
            }
            Step::Sync { from, to, whole } => self.sync(from, to, whole),
            Step::Crash { at } => self.crash(at),
            Step::Restart { at } => self.restart(at),
            Step::Seal { at, which } => {
                let names = self.stores[at].context().iter().zip(0..);
                let chosen = names.filter(|((name, _), place)| {
                    which & (1 << (place % 16)) != 0 && !name::is_sealer(name)
                });
                let chosen = chosen.map(|((name, count), _)| (name.clone(), count)).collect();
                self.writes.extend(self.stores[at].seal(NOW, &chosen));
            }
        }
    }

    fn put(&mut self, at: usize, key: usize, client: usize, reads: bool) {
        let key = MANY_KEYS[key];
        let Some(mut seen) = self.caught_up(at, client) else { return };
        if reads {
            seen = Some(self.stores[at].seen_with(key, seen.as_ref()));
            self.show(at, key, client);
        }
        if seen.is_none() {
            self.show_all(at, client);
        }
        let json = value(json!(self.writes.len()));
        let stood = self.stores[at].get(key).to_vec();
        let (write, seen) = self.stores[at].put(NOW, key, json, seen.as_ref());
        let replaced = stood.iter().map(|version| &version.dot);
        let replaced: Vec<&Dot> = replaced.filter(|dot| self.had_seen(&write, dot)).collect();
        assert_eq!(write.replaces.iter().collect::<Vec<_>>(), replaced);
        self.clients[client] = Some(seen);
        self.wrote(client, write);
    }

    /// The replica starts again with what it had on disk.
    fn crash(&mut self, at: usize) {
        let store = &self.stores[at];
        let (name, context) = (store.name().clone(), store.context().clone());
        let kept = store.versions.clone();
        self.stores[at] = Store::recovered(
            name,
            context,
            store.lamport(),
            store.seals.writes(&store.seals.beyond(&Clock::new())),
            kept,
        );
    }

    /// The replica starts again with nothing.
    fn restart(&mut self, at: usize) {
        // Only what others know survives, so skip this if the replica is the only one that knows
        // something.
        let (before, others): (Vec<_>, Vec<_>) = (0..REPLICAS).partition(|other| *other == at);
        let known = |write: &&Arc<Write>| others.iter().any(|o| self.stores[*o].has(&write.dot));
        if before.iter().any(|b| {
            let here = |w: &&Arc<Write>| self.stores[*b].has(&w.dot);
            !self.writes.iter().filter(here).all(|write| known(&write))
        }) {
            return;
        }
        self.lives += 1;
        self.stores[at] = Store::new(format!("127.0.0.1:{at}@{}", 7 + self.lives).into());
    }

    /// A clock with all that the seals in it stand for, computed from the seals alone.
    fn full(&self, clock: &Clock) -> Clock {
        let mut all = clock.clone();
        loop {
            let before = all.clone();
            for seal in self.writes.iter().filter(|write| write.is_seal()) {
                if all.contains(&seal.dot) {
                    all.merge(&seal.past.clock);
                    seal.replaces.iter().for_each(|last| all.add(last));
                }
            }
            if all == before {
                return all;
            }
        }
    }

    fn had_seen(&self, write: &Write, dot: &Dot) -> bool {
        let own = dot.replica == write.dot.replica && dot.count <= write.own;
        own || self.full(&write.past.clock).contains(dot) || write.past.extra.contains(dot)
    }

    /// What a client has seen, if the replica has seen that much.
    fn caught_up(&self, at: usize, client: usize) -> Option<Option<Seen>> {
        match &self.clients[client] {
            None => Some(None),
            Some(seen) => self.stores[at].is_as_far_as(seen).then(|| Some(seen.clone())),
        }
    }

    fn sync(&mut self, from: usize, to: usize, whole: bool) {
        let lacking = self.stores[from].since(&self.stores[to].context);
        match lacking {
            Some(writes) if !whole => {
                for write in writes {
                    self.stores[to].receive(write).unwrap();
                }
            }
            _ => {
                // A snapshot of what it lacks and one of everything must have the same result.
                let nothing = Clock::new();
                let seen = if whole { &nothing } else { &self.stores[to].context };
                let snapshot = self.stores[from].snapshot(seen);
                let mut other = self.stores[to].clone();
                other.merge(self.stores[from].snapshot(&nothing)).unwrap();
                self.stores[to].merge(snapshot).unwrap();
                assert_eq!(other.versions, self.stores[to].versions);
            }
        }
    }

    /// What a replica must show, from all the writes that it has seen: each version that no seen
    /// write replaces.
    fn expected(&self, at: usize, key: &str) -> BTreeSet<Dot> {
        let context = &self.full(&self.stores[at].context);
        let seen = || self.writes.iter().filter(|w| &*w.key == key && context.contains(&w.dot));
        seen()
            .filter(|write| write.value.is_some())
            .filter(|write| !seen().any(|other| self.had_seen(other, &write.dot)))
            .map(|write| write.dot.clone())
            .collect()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (at, store) in self.stores.iter().enumerate() {
            prop_assert_eq!(store.bytes(), size_of(&store.versions), "bytes of replica {}", at);
            let context = self.full(&store.context);
            for write in self.writes.iter().filter(|w| context.contains(&w.dot)) {
                prop_assert!(store.has(&write.dot), "replica {at} says that it lacks {write:?}");
                prop_assert!(
                    write.past.is_within(&context),
                    "replica {at} has {:?} without its past {:?}",
                    write.dot,
                    write.past
                );
            }
            for key in KEYS {
                let shown: BTreeSet<Dot> = store.get(key).iter().map(|v| v.dot.clone()).collect();
                prop_assert_eq!(&shown, &self.expected(at, key), "replica {} at {}", at, key);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// In any interleaving each replica shows exactly what follows from the writes that it has
    /// seen, never one without its causal past; and once all have told each other, all hold the
    /// same.
    #[test]
    fn replicas_show_what_they_have_seen_and_converge(
        steps in proptest::collection::vec(step(KEYS.len()), 0..60)
    ) {
        let mut story = Story::new();
        for step in steps {
            story.take(step);
            story.check()?;
        }
        for _ in 0..2 {
            for from in 0..REPLICAS {
                for to in 0..REPLICAS {
                    story.sync(from, to, false);
                    story.check()?;
                }
            }
        }
        story.check()?;
        let first = &story.stores[0];
        for store in &story.stores[1..] {
            prop_assert_eq!(&store.versions, &first.versions);
            prop_assert_eq!(&store.context, &first.context);
            let nothing = Clock::new();
            prop_assert_eq!(store.snapshot(&nothing), first.snapshot(&nothing));
            prop_assert!(!store.is_waiting());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// However much a client has been shown in whatever order, its writes take away nothing that it
    /// was not shown.
    #[test]
    fn clients_that_have_seen_some_of_much_take_away_only_that(
        steps in proptest::collection::vec(step(MANY_KEYS.len()), 300..400)
    ) {
        let mut story = Story::new();
        for step in steps {
            story.take(step);
        }
    }
}

#[test]
fn what_waited_for_a_snapshot_is_among_what_it_changed() {
    let (mut a, mut b) = (replica(1), replica(2));
    a.put(NOW, "first", value(json!(1)), None);
    let (second, _) = a.put(NOW, "second", value(json!(2)), None);
    let before = {
        let mut before = replica(1);
        before.put(NOW, "first", value(json!(1)), None);
        before.snapshot(&Clock::new())
    };
    assert_eq!(b.receive(second), Ok(Receipt::Held));
    // If `changed` left out the second key, a disk would hold the context without this value.
    let changed = b.merge(before).unwrap().changed;
    assert_eq!(changed, ["first".into(), "second".into()]);
    assert_eq!(b.snapshot(&Clock::new()), a.snapshot(&Clock::new()));
}

#[test]
fn what_a_client_wrote_beside_another_is_not_forgotten_over_other_keys() {
    let mut store = replica(1);
    let (_, seen) = store.put(NOW, "other", value(json!(0)), None);
    store.put(NOW, "k", value(json!("theirs")), Some(&seen));
    let (_, seen) = store.put(NOW, "k", value(json!("mine")), Some(&seen));
    assert_eq!(seen.extra.len(), 1, "it has not seen what is beside it: {seen:?}");
    let seen = store.seen_with("other", Some(&seen));
    let (_, seen) = store.put(NOW, "k", value(json!("mine again")), Some(&seen));
    assert_eq!(shown(&store, "k"), [json!("mine again"), json!("theirs")]);
    assert_eq!(seen.extra.len(), 1, "one in the place of the other: {seen:?}");
}

#[test]
fn metadata_of_a_client_that_never_reads_is_bounded() {
    let mut store = replica(1);
    let mut seen = Seen::default();
    for number in 0..100 {
        let key = format!("k{number}");
        store.put(NOW, &key, value(json!("theirs")), None);
        (_, seen) = store.put(NOW, &key, value(json!("mine")), Some(&seen));
    }
    assert_eq!(seen.extra.len(), MAX_EXTRA, "{seen:?}");
    assert_eq!(seen.bound().get(store.name()), 200);
    // The client counts as having seen nothing that it was not shown; it may have to be told again
    // of its own writes.
    for number in 0..100 {
        let key = format!("k{number}");
        (_, seen) = store.put(NOW, &key, value(json!("again")), Some(&seen));
        assert!(shown(&store, &key).contains(&json!("theirs")), "{key}: {seen:?}");
    }
    seen = store.seen_with("k7", Some(&seen));
    store.put(NOW, "k7", value(json!("settled")), Some(&seen));
    assert_eq!(shown(&store, "k7"), [json!("settled")], "what was just shown is not forgotten");
}

/// Two replicas: the first has heard of a delete of `k`, the second has not.
fn cut_before_a_delete() -> (Store, Store, Seen, Arc<Write>) {
    let (mut a, mut b) = (replica(1), replica(2));
    let (write, _) = b.put(NOW, "k", value(json!(1)), None);
    a.receive(write).unwrap();
    let before = b.seen_with("k", Some(&Seen::default()));
    let (gone, _) = a.delete(NOW, "k", None).unwrap();
    (a, b, before, gone)
}

#[test]
fn who_was_shown_that_a_key_is_gone_has_seen_its_delete_and_nothing_beside_it() {
    let (mut a, mut b, before, gone) = cut_before_a_delete();
    let (beside, _) = a.put(NOW, "beside", value(json!(1)), None);
    let (again, _) = a.put(NOW, "k2", value(json!(1)), None);
    a.delete(NOW, &again.key, None);
    let after = a.seen_with("k", Some(&before));
    assert!(before.is_within(b.context()) && !after.is_within(b.context()));
    assert!(!after.contains(&beside.dot), "it was not shown: {after:?}");
    // What the client writes now stands beside that version, and is shown nowhere before the delete
    // is.
    let (late, _) = a.put(NOW, "beside", value(json!(2)), Some(&after));
    assert_eq!(shown(&a, "beside").len(), 2);
    assert_eq!(b.receive(late.clone()), Ok(Receipt::Held));
    for write in a.since(b.context()).unwrap() {
        b.receive(write).unwrap();
    }
    assert_eq!(b.snapshot(&Clock::new()), a.snapshot(&Clock::new()));
    // Whoever reads that inherits it from the writer, and must not meet the key again, either.
    let reader = a.seen_with("beside", Some(&Seen::default()));
    assert!(reader.bound().contains(&gone.dot), "{reader:?}");
}

#[test]
fn a_version_that_was_gone_where_it_was_replaced_goes_where_it_still_stands() {
    let (mut a, mut b, before, gone) = cut_before_a_delete();
    let mut c = b.clone();
    c.rename("127.0.0.1:3@7".into());
    c.receive(gone.clone()).unwrap();
    // The client had seen the value, and writes at a replica where it was deleted meanwhile.
    let (write, _) = c.put(NOW, "k", value(json!(2)), Some(&before));
    assert!(write.replaces.is_empty());
    assert!(matches!(b.receive(write.clone()), Ok(Receipt::Applied(_))));
    assert_eq!(shown(&b, "k"), [json!(2)], "its client would be shown what it had replaced");
    b.receive(gone).unwrap();
    a.receive(write).unwrap();
    assert_eq!(a.snapshot(&Clock::new()), b.snapshot(&Clock::new()));
}

/// A replica that knows `count` lives of one address, which each wrote a key and were ended; the
/// last life was not ended.
fn of_many_lives(count: u64) -> Store {
    let mut store = replica(1);
    for life in 1..=count {
        let mut other = Store::new(format!("127.0.0.1:2@{life}").into());
        let (write, _) = other.put(NOW, &format!("k{life}"), value(json!(life)), None);
        store.receive(write).unwrap();
        if life % 100 == 0 {
            let over = store.over(|_| true);
            assert!(store.seal(NOW, &over).is_some());
        }
    }
    store
}

#[test]
fn metadata_of_a_client_that_reads_what_ended_lives_wrote_is_bounded() {
    let mut store = of_many_lives(5_000);
    assert!(store.context().len() < 110, "{}", store.context());
    let mut seen = Seen::default();
    let mut longest = 0;
    for life in 1..=5_000 {
        seen = store.seen_with(&format!("k{life}"), Some(&seen));
        longest = longest.max(seen.size());
    }
    assert!(longest > MAX_SEEN / 2 && longest <= MAX_SEEN, "{longest}");
    // The client replaces what it read last, and no replica that lacks what it read first serves
    // it.
    let (write, after) = store.put(NOW, "k5000", value(json!("mine")), Some(&seen));
    assert_eq!(shown(&store, "k5000"), [json!("mine")]);
    assert!(write.is_sane() && after.size() <= MAX_SEEN);
    let mut other = replica(3);
    assert!(!other.is_as_far_as(&seen));
    other.merge(store.snapshot(&Clock::new())).unwrap();
    assert!(other.is_as_far_as(&seen));
    assert_eq!(other.snapshot(&Clock::new()), store.snapshot(&Clock::new()));
    // What it has forgotten stands beside what it writes: nothing is lost.
    store.put(NOW, "k1", value(json!("mine")), Some(&seen));
    assert_eq!(shown(&store, "k1"), [json!("mine"), json!(1)]);
}

#[test]
fn a_delete_of_an_ended_life_is_still_covered_by_what_a_client_is_told() {
    let mut store = replica(1);
    let mut gone = Store::new("127.0.0.1:2@1".into());
    for write in
        [gone.put(NOW, "k", value(json!(1)), None).0, gone.delete(NOW, "k", None).unwrap().0]
    {
        store.receive(write).unwrap();
    }
    let last: Clock = [("127.0.0.1:2@1".into(), 2)].into_iter().collect();
    store.seal(NOW, &last).unwrap();
    let seen = store.seen_with("k", Some(&Seen::default()));
    assert_eq!(seen.floor, [("127.0.0.1:1@7!".into(), 1)].into_iter().collect());
    let mut behind = replica(3);
    behind.receive(store.since(&Clock::new()).unwrap()[0].clone()).unwrap();
    assert!(!behind.is_as_far_as(&seen), "it still shows the key");
}

#[test]
fn a_seal_is_taken_after_what_it_rests_on_whatever_its_lamport_time() {
    let (mut a, mut b) = (of_many_lives(100), replica(3));
    b.merge(a.snapshot(&Clock::new())).unwrap();
    let mut other = Store::new("127.0.0.1:4@7".into());
    let (write, _) = other.put(NOW, "k", value(json!(1)), None);
    for store in [&mut a, &mut b] {
        store.receive(write.clone()).unwrap();
    }
    let last = [("127.0.0.1:4@7".into(), 1)].into_iter().collect();
    let seal = a.seal(NOW, &last).unwrap();
    let mut early = Write::clone(&seal);
    early.lamport = 1;
    early.dot.replica = "127.0.0.1:9@7!".into();
    (early.dot.count, early.own) = (1, 0);
    early.past.clock = [("127.0.0.1:1@7!".into(), 2)].into_iter().collect();
    assert_eq!(
        b.receive(Arc::new(early.clone())),
        Ok(Receipt::Held),
        "it rests on what is not here"
    );
    a.receive(Arc::new(early)).unwrap();
    assert!(matches!(b.receive(seal), Ok(Receipt::Applied(_))));
    assert_eq!(a.snapshot(&Clock::new()), b.snapshot(&Clock::new()));
}

#[test]
fn a_snapshot_that_names_seals_and_does_not_bring_them_is_refused() {
    let a = of_many_lives(100);
    let mut b = replica(3);
    let before = b.snapshot(&Clock::new());
    let bare = Snapshot { seals: Vec::new(), ..a.snapshot(&Clock::new()) };
    assert_eq!(b.merge(bare).unwrap_err(), WriteError::Metadata);
    let mut more = a.snapshot(&Clock::new());
    more.context.raise(&"127.0.0.1:1@7!".into(), 9);
    assert_eq!(b.merge(more).unwrap_err(), WriteError::Metadata);
    let mut unseen = a.snapshot(&Clock::new());
    unseen.context = unseen.context.without("127.0.0.1:1@7!");
    assert_eq!(b.merge(unseen).unwrap_err(), WriteError::Metadata);
    assert_eq!(b.snapshot(&Clock::new()), before, "nothing is taken over");
}

#[test]
fn lives_that_are_over_and_write_again_are_counted_like_any() {
    let mut store = of_many_lives(100);
    let room = crowd_of(512 << 10);
    store.context.merge(&room);
    let mut again = Store::new("127.0.0.1:2@1".into());
    again.put(NOW, "k1", value(json!(1)), None);
    let (late, _) = again.put(NOW, "k1", value(json!(2)), None);
    assert_eq!(store.receive(late), Err(WriteError::Replica), "nobody would take its clock");
    assert!(store.context().is_sane());
}

/// A clock of about so many bytes, with names of no replica.
fn crowd_of(bytes: usize) -> Clock {
    let names = (0_u64..).map(|number| (format!("{number:0>100}").into(), 1));
    names.take(bytes / 116).collect()
}

#[test]
fn a_replica_that_writes_and_seals_is_one_of_those_that_have_lived_longer() {
    let context = Clock::from_iter([
        ("127.0.0.1:1@5".into(), 3),
        ("127.0.0.1:1@5!".into(), 1),
        ("127.0.0.1:2@6!".into(), 2),
        ("127.0.0.1:3@9".into(), 1),
    ]);
    let store = Store::recovered("127.0.0.1:4@8".into(), context, 9, [], []);
    assert_eq!(store.older().collect::<Vec<_>>(), ["127.0.0.1:1@5", "127.0.0.1:2@6"]);
}
