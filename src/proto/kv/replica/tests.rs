//! A replica among others, message by message.

use serde_json::json;

use super::*;
use crate::proto::event::Event;
use crate::proto::kv::store::MAX_KEY;
use crate::proto::kv::talk::ASK_AGAIN;
use crate::proto::machine;
use crate::proto::message::Message;
use crate::proto::roles::PeerReply;

mod liars;

type Effect = machine::Effect<PeerReply, StoreChange>;

const NOW: Time = Time::from_millis(1_800_000_000_000);
const LINK: Conn = 1;

/// A replica whose one neighbour is played by the test.
struct Stage {
    replica: Replication,
    now: Time,
    effects: Vec<Effect>,
}

impl Stage {
    fn new() -> Self {
        Self::of(StoreConfig { seal_from: 4, ..StoreConfig::default() })
    }

    fn of(config: StoreConfig) -> Self {
        let store = Store::new("127.0.0.1:1@7".into());
        let replica = Replication::new(store, config);
        Self { replica, now: NOW, effects: Vec::new() }
    }

    fn paths() -> Paths {
        Paths { eager: vec![LINK], all: vec![LINK] }
    }

    /// Hears a message; returns whether it made sense.
    fn hear(&mut self, message: Message) -> bool {
        let turn = &mut PeerTurn { now: self.now, effects: &mut self.effects };
        let Message::StoreSync(said) = message else { panic!("no word of a replica: {message:?}") };
        self.replica.hear(turn, LINK, said, &Self::paths()).is_ok()
    }

    /// The neighbour was told what has been seen here, and offers a snapshot.
    fn is_offered(&mut self) {
        let turn = &mut PeerTurn { now: self.now, effects: &mut self.effects };
        self.replica.begin_sync(turn, LINK);
        self.persisted();
        self.hear(Message::StoreSync(StoreSync::SnapshotOffer));
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let turn = &mut PeerTurn { now: self.now, effects: &mut self.effects };
        self.replica.tick(turn, &Self::paths(), |addr| addr.port() < 9);
    }

    fn put(&mut self, key: &str, value: Value) {
        let turn = &mut PeerTurn { now: self.now, effects: &mut self.effects };
        self.replica.ask(turn, 1, Request::Put(key.into(), value), None, &Self::paths());
        self.persisted();
    }

    /// All that was given to the disk is on it.
    fn persisted(&mut self) {
        let batches = self.effects.iter().filter_map(|effect| match effect {
            Effect::Persist { batch, .. } => Some(*batch),
            _ => None,
        });
        let last = batches.max().unwrap_or(0);
        let turn = &mut PeerTurn { now: self.now, effects: &mut self.effects };
        self.replica.persisted(turn, last, &Self::paths());
    }

    fn sent(&self, wanted: impl Fn(&Message) -> bool) -> usize {
        let is =
            |effect: &&Effect| matches!(effect, Effect::Send { message, .. } if wanted(message));
        self.effects.iter().filter(is).count()
    }

    fn kept(&self) -> Vec<StoreChange> {
        let changes = self.effects.iter().filter_map(|effect| match effect {
            Effect::Persist { changes, .. } => Some(changes.clone()),
            _ => None,
        });
        changes.flatten().collect()
    }
}

fn value(json: serde_json::Value) -> Value {
    Value::new(&json).unwrap()
}

/// Writes of another replica, one after the other.
fn writes(count: usize) -> Vec<Arc<Write>> {
    let mut other = Store::new("127.0.0.1:2@7".into());
    let put = |n| other.put(NOW, &format!("k{n}"), value(json!(n)), None).0;
    (0..count).map(put).collect()
}

#[test]
fn what_came_before_a_bad_write_is_kept_with_its_context() {
    let mut stage = Stage::new();
    let mut writes = writes(2);
    Arc::get_mut(&mut writes[1]).unwrap().lamport = u64::MAX;
    let good = writes[0].clone();
    assert!(
        !stage.hear(Message::StoreSync(StoreSync::Writes(writes))),
        "the link is closed for it"
    );
    assert!(stage.replica.store().context().contains(&good.dot));
    let versions = StoreChange::Versions(good.key.clone(), good.version().into_iter().collect());
    let kept = [StoreChange::Write(good), versions];
    assert_eq!(stage.kept(), kept, "or a crash would lose what was seen");
}

#[test]
fn a_neighbour_is_sent_what_it_lacks_no_more_often_than_it_may_ask() {
    let mut stage = Stage::new();
    stage.put("k", value(json!("x".repeat(1_000))));
    stage.effects.clear();
    let nothing = || Message::StoreSync(StoreSync::Context { context: Clock::new(), answer: true });
    (0..256).for_each(|_| assert!(stage.hear(nothing())));
    let repairs = |m: &Message| matches!(m, Message::StoreSync(StoreSync::Writes(_)));
    assert_eq!(stage.sent(repairs), 1);
    stage.put("later", value(json!(1)));
    // The neighbour's last context is not forgotten: it may have lost what it was sent. But the
    // write made since is on its way already.
    stage.pass(ASK_AGAIN);
    assert_eq!(stage.sent(repairs), 2);
    let all = |m: &Message| matches!(m, Message::StoreSync(StoreSync::Writes(writes)) if writes.len() > 1);
    assert_eq!(stage.sent(all), 0);
    stage.pass(ASK_AGAIN);
    assert_eq!(stage.sent(repairs), 2);
}

#[test]
fn a_replica_whose_disk_is_an_old_copy_takes_another_name() {
    for told_by in ["context", "write", "snapshot"] {
        let mut stage = Stage::new();
        let mine = stage.replica.store().name().clone();
        stage.put("k", value(json!(1)));
        // What it wrote next, before an older copy replaced its disk.
        let mut before = Store::new(mine.clone());
        before.put(NOW, "k", value(json!(1)), None);
        let (lost, _) = before.put(NOW, "k", value(json!(2)), None);
        match told_by {
            "context" => {
                let context = before.context().clone();
                stage.hear(Message::StoreSync(StoreSync::Context { context, answer: false }));
            }
            "write" => {
                stage.hear(Message::StoreSync(StoreSync::Write(lost)));
            }
            _ => {
                stage.is_offered();
                let part = before.snapshot(&Clock::new());
                assert!(stage.hear(Message::StoreSync(StoreSync::SnapshotPart {
                    round: 1,
                    part: 0,
                    context: part.context,
                    lamport: part.lamport,
                    seals: part.seals,
                    standing: Vec::new(),
                    entries: part.versions,
                    more: false,
                })));
            }
        }
        let name = stage.replica.store().name().clone();
        assert_ne!(name, mine, "told by a {told_by}");
        assert!(stage.kept().contains(&StoreChange::Named(name)));
    }
}

#[test]
fn no_snapshot_from_outside_is_put_together_of_nonsense() {
    let version = || writes(1)[0].version().unwrap();
    let context: Clock = [("127.0.0.1:2@7".into(), 1)].into_iter().collect();
    let long: Arc<str> = "k".repeat(MAX_KEY + 1).into();
    let far: Clock = [("127.0.0.1:2@7".into(), u64::MAX)].into_iter().collect();
    let named: Clock = [("x".repeat(129).into(), 1)].into_iter().collect();
    let unseen: Clock = [("127.0.0.1:3@7".into(), 1)].into_iter().collect();
    for (context, lamport, key) in [
        (context.clone(), 1, long),
        (context, u64::MAX, "k".into()),
        (far, 1, "k".into()),
        (named, 1, "k".into()),
        (unseen, 1, "k".into()),
    ] {
        let mut stage = Stage::new();
        stage.is_offered();
        let sane = stage.hear(Message::StoreSync(StoreSync::SnapshotPart {
            round: 1,
            part: 0,
            context,
            lamport,
            seals: Vec::new(),
            standing: Vec::new(),
            entries: vec![(key, vec![version()])],
            more: false,
        }));
        assert!(!sane && stage.kept().is_empty());
    }
}

#[test]
fn versions_of_one_key_travel_in_as_many_frames_as_they_need() {
    let mut theirs = Stage::new();
    for letter in ["a", "b", "c"] {
        let big = value(json!(letter.repeat(1 << 19)));
        let seen = Some(Seen::default()); // nothing: they stand beside each other
        let turn = &mut PeerTurn { now: NOW, effects: &mut theirs.effects };
        let put = Request::Put("k".into(), big);
        theirs.replica.ask(turn, 1, put, seen, &Stage::paths());
        theirs.persisted();
    }
    let mut mine = Stage::new();
    mine.replica.store.rename("127.0.0.1:9@7".into());
    mine.is_offered();
    for _ in 0..10 {
        let ask = mine.effects.iter().rev().find_map(|effect| match effect {
            Effect::Send {
                message: ask @ Message::StoreSync(StoreSync::SnapshotAsk { .. }),
                ..
            } => Some(ask.clone()),
            _ => None,
        });
        mine.effects.clear();
        let Some(ask) = ask else { break };
        theirs.effects.clear();
        theirs.hear(ask);
        let parts: Vec<Message> = theirs
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Send { message, .. } => Some(message.clone()),
                _ => None,
            })
            .collect();
        for part in parts {
            if let Message::StoreSync(StoreSync::SnapshotPart { entries, .. }) = &part {
                assert!(
                    entries.iter().map(|(_, of)| of.len()).sum::<usize>() <= 1,
                    "one at a time"
                );
            }
            assert!(mine.hear(part));
        }
    }
    assert_eq!(mine.replica.store().get("k").len(), 3);
    assert_eq!(mine.replica.store().get("k"), theirs.replica.store().get("k"));
}

/// A clock of so many bytes, of replicas that do not exist here.
fn crowd(from: usize, bytes: usize) -> Clock {
    let mut clock = Clock::new();
    let mut number = from;
    while clock.size() < bytes {
        clock.raise(&format!("127.0.0.1:9@{number:0>100}").into(), 1);
        number += 1;
    }
    clock
}

impl Stage {
    /// Makes the replica take over a snapshot that has seen `context`.
    fn has_seen(&mut self, context: Clock) {
        let round = self.replica.counters().snapshots + 1;
        self.is_offered();
        let part = Message::StoreSync(StoreSync::SnapshotPart {
            round,
            part: 0,
            context,
            lamport: 1,
            seals: Vec::new(),
            standing: Vec::new(),
            entries: Vec::new(),
            more: false,
        });
        assert!(self.hear(part));
        self.persisted();
    }

    fn last_write(&self) -> Arc<Write> {
        let writes = self.kept().into_iter().rev().find_map(|change| match change {
            StoreChange::Write(write) => Some(write),
            _ => None,
        });
        writes.expect("it is kept")
    }

    fn last_reply(&self) -> Option<&Reply> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Reply(PeerReply::Stored { reply, .. }) => Some(reply),
            _ => None,
        })
    }
}

#[test]
fn what_nobody_would_take_is_refused_where_it_is_asked_for() {
    let mut stage = Stage::new();
    stage.has_seen(crowd(0, 500 << 10));
    let before = stage.kept().len();
    stage.put("k", value(json!(1)));
    assert_eq!(stage.last_reply(), Some(&Err(StoreError::TooManyReplicas)));
    assert_eq!(stage.kept().len(), before, "nothing was written");
    // A replica that had written before goes on writing, and no other replica refuses its writes.
    let mut stage = Stage::new();
    stage.put("k", value(json!(1)));
    stage.has_seen(crowd(0, 500 << 10));
    stage.put("k", value(json!(2)));
    assert!(matches!(stage.last_reply(), Some(Ok(_))), "{:?}", stage.last_reply());
    let write = stage.last_write();
    let mut other = Store::new("127.0.0.1:2@7".into());
    assert_eq!(other.receive(write), Ok(Receipt::Held));
}

#[test]
fn who_counts_other_names_than_fit_here_stays_linked_and_heard() {
    let mut stage = Stage::new();
    let mut known = Store::new("127.0.0.1:3@7".into());
    let first = known.put(NOW, "k", value(json!(1)), None).0;
    assert!(stage.hear(Message::StoreSync(StoreSync::Write(first))));
    let mut full = crowd(0, (512 << 10) - 300);
    full.merge(stage.replica.store().context());
    let mut short = 0;
    while full.has_room_for("127.0.0.1:2@7") {
        full.raise(&format!("127.0.0.1:4@{short}").into(), 1);
        short += 1;
    }
    stage.has_seen(full);
    stage.effects.clear();
    let mut batch = writes(2);
    batch.push(known.put(NOW, "k", value(json!(2)), None).0);
    assert!(
        stage.hear(Message::StoreSync(StoreSync::Writes(batch))),
        "it says what is so where it is"
    );
    assert_eq!(stage.replica.store().context().get("127.0.0.1:3@7"), 2, "and the rest counts");
    assert_eq!(stage.replica.store().context().get("127.0.0.1:2@7"), 0);
    let dropped = Event::OverLimit { limit: Limit::Replicas, from: None, times: 1 };
    let noted: Vec<_> =
        stage.effects.iter().filter(|effect| matches!(effect, Effect::Log(_))).collect();
    assert_eq!(noted, [&Effect::Log(dropped.clone()), &Effect::Log(dropped)]);
}

#[test]
fn a_question_that_makes_no_sense_is_not_answered() {
    let mut stage = Stage::new();
    stage.put("k", value(json!(1)));
    let seen = Some(crowd(0, 600 << 10));
    assert!(!stage.hear(Message::StoreSync(StoreSync::SnapshotAsk { round: 1, seen })));
    assert_eq!(
        stage.sent(|message| matches!(message, Message::StoreSync(StoreSync::SnapshotPart { .. }))),
        0
    );
}

#[test]
fn two_sides_of_a_cut_may_count_more_than_fits_and_still_talk() {
    let mut stage = Stage::new();
    stage.has_seen(crowd(0, 400 << 10));
    stage.has_seen(crowd(1_000_000, 400 << 10));
    assert!(stage.replica.store().context().is_sane(), "others would refuse all that it says");
    let noted = |effect: &Effect| matches!(effect, Effect::Log(_));
    assert!(stage.effects.iter().any(noted), "and it says so");
}

#[test]
fn a_writer_that_has_seen_the_greatest_lamport_time_is_taken_still() {
    let mut stage = Stage::new();
    let mut last = Write::clone(&writes(1)[0]);
    last.lamport = crate::proto::kv::clock::MAX_COUNT;
    assert!(stage.hear(Message::StoreSync(StoreSync::Write(Arc::new(last.clone())))));
    stage.put("k", value(json!(1)));
    let write = stage.last_write();
    let mut other = Store::new("127.0.0.1:3@7".into());
    other.receive(Arc::new(last)).unwrap();
    assert!(matches!(other.receive(write), Ok(Receipt::Applied(_))));
}

/// Writes of `count` lives of one address, one each; the last life is not over.
fn lives(count: u64) -> Vec<Arc<Write>> {
    let life = |life: u64| {
        let mut store = Store::new(format!("127.0.0.1:2@{life}").into());
        store.put(NOW, &format!("k{life}"), value(json!(life)), None).0
    };
    (1..=count).map(life).collect()
}

/// A replica that knows of five lives, of which four are over.
fn with_lives() -> Stage {
    let mut stage = Stage::new();
    stage.replica.store.rename("127.0.0.1:1@1".into());
    stage.put("mine", value(json!(1)));
    assert!(stage.hear(Message::StoreSync(StoreSync::Writes(lives(5)))));
    stage
}

const LOOK: Duration = Duration::from_secs(15);

#[test]
fn lives_that_are_over_at_two_looks_are_ended() {
    let mut stage = with_lives();
    stage.pass(LOOK);
    assert_eq!(stage.replica.counters().seals, 0, "one look is not enough");
    stage.pass(LOOK);
    let seal = stage.last_write();
    assert!(seal.is_seal(), "{seal:?}");
    let ended: Vec<&str> = seal.replaces.iter().map(|last| &*last.replica).collect();
    assert_eq!(ended, (1..5).map(|life| format!("127.0.0.1:2@{life}")).collect::<Vec<_>>());
    stage.persisted();
    assert_eq!(
        stage.sent(|message| *message == Message::StoreSync(StoreSync::Write(seal.clone()))),
        1
    );
    let store = stage.replica.store();
    assert_eq!(store.context().len(), 3, "the living and the seal: {}", store.context());
    assert_eq!(store.seals().lives(), 4);
    // What these lives wrote still stands, and is still known.
    assert!(lives(5).iter().all(|write| store.has(&write.dot) && store.get(&write.key).len() == 1));
    assert!(stage.hear(Message::StoreSync(StoreSync::Writes(lives(5)))));
    assert_eq!(stage.replica.counters().duplicates, 5);
    // One of these lives was not over after all.
    let mut again = Store::new("127.0.0.1:2@4".into());
    again.put(NOW, "k4", value(json!(4)), None);
    let (late, _) = again.put(NOW, "k4", value(json!("late")), None);
    assert!(stage.hear(Message::StoreSync(StoreSync::Write(late.clone()))));
    assert_eq!(stage.replica.store().get("k4").len(), 1);
    assert_eq!(stage.replica.store().context().get("127.0.0.1:2@4"), 2);
}

#[test]
fn lives_of_addresses_that_nobody_has_any_more_are_ended() {
    let mut stage = Stage::new();
    stage.replica.store.rename("127.0.0.1:1@1".into());
    for port in 7..14 {
        let mut other = Store::new(format!("127.0.0.1:{port}@1").into());
        stage.hear(Message::StoreSync(StoreSync::Write(
            other.put(NOW, "k", value(json!(port)), None).0,
        )));
    }
    stage.pass(LOOK);
    stage.pass(LOOK);
    let seal = stage.last_write();
    let ended: Vec<&str> = seal.replaces.iter().map(|last| &*last.replica).collect();
    assert_eq!(
        ended,
        (9..14)
            .map(|port| format!("127.0.0.1:{port}@1"))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_replica_whose_old_disk_lacks_what_a_seal_says_of_it_takes_another_name() {
    for whole in [false, true] {
        let mut stage = with_lives();
        stage.pass(LOOK);
        // Another replica, which was away, and whose disk is older than its last write.
        let mut old = Stage::new();
        old.replica.store.rename("127.0.0.1:2@4".into());
        stage.pass(LOOK);
        stage.persisted();
        let theirs = stage.replica.store().snapshot(&Clock::new());
        if whole {
            old.is_offered();
            assert!(old.hear(Message::StoreSync(StoreSync::SnapshotPart {
                round: 1,
                part: 0,
                context: theirs.context,
                lamport: theirs.lamport,
                seals: theirs.seals,
                standing: Vec::new(),
                entries: theirs.versions,
                more: false,
            })));
        } else {
            old.hear(Message::StoreSync(StoreSync::Write(stage.last_write())));
        }
        assert_ne!(&**old.replica.store().name(), "127.0.0.1:2@4", "whole: {whole}");
    }
}

#[test]
fn who_names_a_life_that_is_ended_here_is_told_how_far_it_came() {
    let mut stage = with_lives();
    stage.pass(LOOK);
    stage.pass(LOOK);
    stage.persisted();
    stage.effects.clear();
    let context: Clock =
        [("127.0.0.1:2@3".into(), 1), ("127.0.0.1:2@9".into(), 1)].into_iter().collect();
    stage.hear(Message::StoreSync(StoreSync::Context { context, answer: false }));
    let tells = |message: &Message| {
        matches!(message, Message::StoreSync(StoreSync::Context { context, .. })
            if context.get("127.0.0.1:2@3") == 1 && context.get("127.0.0.1:2@2") == 0)
    };
    assert_eq!(stage.sent(tells), 1);
}

/// Whatever a client may add here, replicas hold the same.
#[test]
fn writes_of_others_are_taken_however_full_the_store_is_and_however_long_their_keys() {
    let mut stage = Stage::of(StoreConfig { max_bytes: 1, max_key: 5, ..StoreConfig::default() });
    stage.put("k", value(json!(1)));
    assert_eq!(stage.last_reply(), Some(&Err(StoreError::Full)));
    stage.put("longer", value(json!(1)));
    assert_eq!(stage.last_reply(), Some(&Err(KeyError::TooLong.into())));
    assert!(stage.kept().is_empty(), "nothing of that was written");
    let mut other = Store::new("127.0.0.1:2@7".into());
    let long = "k".repeat(MAX_KEY);
    for key in ["k", &long] {
        let (write, _) = other.put(NOW, key, value(json!(1)), None);
        assert!(stage.hear(StoreSync::Write(write).into()));
        assert_eq!(stage.replica.store.get(key).len(), 1);
    }
    let turn = &mut PeerTurn { now: NOW, effects: &mut stage.effects };
    let clock: Clock = [(Replica::from("r1"), 1)].into_iter().collect();
    let relayed = Request::Relayed("short".into(), Some(value(json!(2))), clock);
    stage.replica.ask(turn, 2, relayed, None, &Stage::paths());
    assert_eq!(stage.replica.store.get("short").len(), 1);
    let (write, _) = other.put(NOW, &format!("{long}k"), value(json!(1)), None);
    assert!(!stage.hear(StoreSync::Write(write).into()), "no peer lets a client write that");
}
