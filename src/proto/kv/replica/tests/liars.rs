//! What a neighbour that lies can do to a replica, message by message.

use super::*;

fn part(round: u64, part: u64, snapshot: Snapshot, more: bool) -> Message {
    let Snapshot { context, lamport, seals, standing, versions: entries } = snapshot;
    let said =
        StoreSync::SnapshotPart { round, part, context, lamport, seals, standing, entries, more };
    Message::StoreSync(said)
}

#[test]
fn a_snapshot_is_fetched_only_from_one_who_was_told_what_is_here() {
    let asks = |m: &Message| matches!(m, Message::StoreSync(StoreSync::SnapshotAsk { .. }));
    let offer = || Message::StoreSync(StoreSync::SnapshotOffer);
    let mut stage = Stage::new();
    stage.hear(offer());
    assert_eq!(stage.sent(asks), 0, "nobody has asked");
    stage.is_offered();
    assert_eq!(stage.sent(asks), 1);
    let nothing = Snapshot::default();
    assert!(stage.hear(part(1, 0, nothing, false)), "all of it is here");
    stage.hear(offer());
    assert_eq!(stage.sent(asks), 1, "one offer for each time that it was told");
    stage.is_offered();
    stage.pass(Duration::from_secs(30));
    stage.hear(offer());
    assert_eq!(stage.sent(asks), 2, "that was long ago");
}

#[test]
fn a_snapshot_takes_away_no_more_keys_than_it_names_writes() {
    for (more, refused) in [(1, true), (2, true), (3, false)] {
        let mut stage = Stage::new();
        assert!(stage.hear(Message::StoreSync(StoreSync::Writes(writes(3)))));
        stage.is_offered();
        let mut context = stage.replica.store().context().clone();
        context.raise(&"127.0.0.1:9@7".into(), more);
        let empty = Snapshot { context, lamport: 9, ..Snapshot::default() };
        assert_eq!(stage.hear(part(1, 0, empty, false)), !refused, "{more} writes more");
        let left = stage.replica.store().keys().count();
        assert_eq!(left, if refused { 3 } else { 0 }, "{more} writes more");
    }
}

#[test]
fn a_snapshot_in_crumbs_or_of_two_moments_or_of_too_many_versions_is_given_up() {
    let context = |count| [("127.0.0.1:9@7".into(), count)].into_iter().collect::<Clock>();
    let of =
        |count, versions| Snapshot { context: context(count), versions, ..Snapshot::default() };
    let version = writes(1)[0].version().unwrap();
    let crumb = |_: u64| of(1_000, vec![("k".into(), vec![version.clone()])]);
    let moments = |number: u64| of(1 + number, Vec::new());
    let many = |number: u64| of(3, vec![(format!("k{number}").into(), vec![version.clone()])]);
    let last = |parts: &dyn Fn(u64) -> Snapshot| {
        let mut stage = Stage::new();
        stage.is_offered();
        (0..1_000_u64).find(|number| !stage.hear(part(1, *number, parts(*number), true)))
    };
    assert!(last(&crumb).is_some_and(|part| part < 100), "{:?}", last(&crumb));
    assert_eq!(last(&moments), Some(1));
    assert_eq!(last(&many), Some(3), "a write makes one version at most");
}

#[test]
fn who_sends_a_snapshot_slowly_keeps_nobody_else_from_sending_it() {
    let mut transfers = Transfers::default();
    let nothing = Clock::new();
    assert!(transfers.fetch(NOW, LINK, &nothing).is_some());
    let later = |seconds| NOW + Duration::from_secs(seconds);
    assert!(transfers.fetch(later(9), LINK + 2, &nothing).is_none());
    assert!(transfers.fetch(later(60), LINK + 2, &nothing).is_some());
}

#[test]
fn a_snapshot_of_more_bytes_than_a_store_may_have_is_given_up() {
    let mut stage = Stage::new();
    stage.replica.transfers.limit = 1 << 20;
    stage.is_offered();
    let context: Clock = [("127.0.0.1:9@7".into(), 1_000)].into_iter().collect();
    let mut version = writes(1)[0].version().unwrap();
    version.value = value(json!("x".repeat(1 << 18)));
    let of = |number: u64| Snapshot {
        context: context.clone(),
        versions: vec![(format!("k{number}").into(), vec![version.clone()])],
        ..Snapshot::default()
    };
    let refused = (0..100_u64).find(|number| !stage.hear(part(1, *number, of(*number), true)));
    assert_eq!(refused, Some(3));
}

#[test]
fn lies_about_its_own_writes_rename_a_replica_only_a_few_times() {
    let mut stage = Stage::new();
    for _ in 0..200 {
        stage.pass(Duration::from_millis(2));
        let context = [(stage.replica.store().name().clone(), 1 << 40)].into_iter().collect();
        stage.hear(Message::StoreSync(StoreSync::Context { context, answer: false }));
    }
    let names = |change: &StoreChange| matches!(change, StoreChange::Named(_));
    let named = stage.kept().into_iter().filter(names).count();
    assert!((1..=8).contains(&named), "each is a line and a name for ever: {named}");
}

#[test]
fn a_lamport_time_that_nobody_can_have_reached_is_not_followed() {
    let mut stage = Stage::new();
    let greatest = crate::proto::kv::clock::MAX_COUNT;
    let mut far = Write::clone(&writes(1)[0]);
    far.lamport = greatest;
    assert!(stage.hear(Message::StoreSync(StoreSync::Write(Arc::new(far)))));
    stage.put("k", value(json!(1)));
    let lamport = stage.last_write().lamport;
    assert!(lamport < 1 << 20, "the order of all later versions would be lost: {lamport}");
    // A store that was spoilt before, or by its disk, is no longer so once it is read again.
    let store = stage.replica.store();
    let again = Store::recovered(store.name().clone(), store.context().clone(), greatest, [], []);
    assert!(again.lamport() < 1 << 20, "{}", again.lamport());
    // Neither does a snapshot say more than the writes that it names account for.
    let mut other = Store::new("127.0.0.1:3@7".into());
    let snapshot = Snapshot { lamport: greatest, ..store.snapshot(&Clock::new()) };
    other.merge(snapshot).unwrap();
    assert!(other.lamport() < 1 << 20, "{}", other.lamport());
}

#[test]
fn lives_are_ended_after_a_write_and_a_seal_of_the_greatest_lamport_time() {
    let mut stage = with_lives();
    let greatest = crate::proto::kv::clock::MAX_COUNT;
    let mut liar = Store::new("127.0.0.1:3@7".into());
    let mut far = Write::clone(&liar.put(NOW, "k", value(json!(1)), None).0);
    far.lamport = greatest;
    assert!(stage.hear(Message::StoreSync(StoreSync::Write(Arc::new(far)))));
    let last = [("127.0.0.1:3@7".into(), 1)].into_iter().collect();
    let mut seal = Write::clone(&liar.seal(NOW, &last).unwrap());
    seal.lamport = greatest;
    assert!(stage.hear(Message::StoreSync(StoreSync::Write(Arc::new(seal)))));
    stage.pass(LOOK);
    stage.pass(LOOK);
    assert_eq!(stage.replica.counters().seals, 1, "or clocks would grow for ever");
    let mut other = Store::new("127.0.0.1:4@7".into());
    let theirs = stage.replica.store().snapshot(&Clock::new());
    other.merge(theirs).unwrap();
    assert_eq!(other.context(), stage.replica.store().context(), "and others take them");
}

#[test]
fn a_neighbour_that_says_again_and_again_that_it_has_nothing_is_sent_only_so_much() {
    let mut stage = Stage::new();
    for key in 0..8 {
        stage.put(&format!("k{key}"), value(json!(key.to_string().repeat(1 << 19))));
    }
    stage.effects.clear();
    for _ in 0..40 {
        let context = Clock::new();
        stage.hear(Message::StoreSync(StoreSync::Context { context, answer: false }));
        stage.pass(ASK_AGAIN);
    }
    let all = |m: &Message| match m {
        Message::StoreSync(StoreSync::Writes(writes)) => !writes.is_empty(),
        _ => false,
    };
    let megabytes = stage.sent(all) / 2;
    assert!((4..=40).contains(&megabytes), "in two seconds: {megabytes} MiB");
}

#[test]
fn who_fetches_a_snapshot_in_crumbs_of_time_keeps_nobody_else_from_fetching() {
    let mut store = Store::new("127.0.0.1:1@7".into());
    for key in 0..8 {
        store.put(NOW, &format!("k{key}"), value(json!("x".repeat(1 << 18))), None);
    }
    let (mut transfers, seen) = (Transfers::default(), Some(Clock::new()));
    let later = |seconds| NOW + Duration::from_secs(seconds);
    for conn in [1, 3] {
        assert!(transfers.serve(&store, NOW, (conn, 1), seen.clone()).is_some());
    }
    for seconds in [9, 18, 27, 36] {
        let third = transfers.serve(&store, later(seconds), (5, 1), seen.clone());
        assert_eq!(third.is_some(), seconds > 30, "after {seconds} s");
        for conn in [1, 3] {
            transfers.serve(&store, later(seconds), (conn, 1), None);
        }
    }
}

#[test]
fn writes_for_which_there_is_no_room_cost_few_lines() {
    let mut stage = Stage::new();
    stage.has_seen(crowd(0, (512 << 10) - 200));
    stage.effects.clear();
    for number in 0..5_000 {
        let mut other = Store::new(format!("127.0.0.1:2@{number:0>100}").into());
        let (write, _) = other.put(NOW, "k", value(json!(1)), None);
        assert!(stage.hear(Message::StoreSync(StoreSync::Write(write))));
    }
    let lines = stage.effects.iter().filter(|effect| match effect {
        Effect::Log(event) => !matches!(event, Event::OverLimit { limit: Limit::Replicas, .. }),
        _ => false,
    });
    assert_eq!(lines.count(), 0, "what is over a limit is counted, and told once an hour");
}
