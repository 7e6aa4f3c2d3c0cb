//! Random networks in random trouble, which must break no invariant and heal afterwards.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rumormill::proto::config::{Membership, Network, PeerConfig, SeedConfig};
use rumormill::proto::message::Addr;
use rumormill::proto::planted::Flaw;
use rumormill::proto::time::Time;

use super::check::{Checks, Violation};
use super::node::{Kind, NodeId, seed_addr};
use super::settle::unsettled;
use super::tally::Tally;
use super::trouble::Trouble;
use super::world::{START, World};

/// How long a network may take to heal.
const HEALS_WITHIN: Duration = Duration::from_secs(30);

/// How long a healed network is watched for a relapse.
const STAYS_HEALED: Duration = Duration::from_secs(3);

/// Numbers that a run of the test suite takes, unless RUMORMILL_SIM_RUNS says otherwise.
const RUNS: u64 = 1_000;

/// Who decides who belongs to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Seeds,
    Peers,
}

/// What came of a run.
pub struct Outcome {
    pub number: u64,
    pub hash: u64,
    pub tally: Tally,
    pub violations: Vec<Violation>,
    pub healed_after: Option<Duration>,
    pub words: String,
}

/// The address of a peer by its place; two share a host, so that only the port tells them apart.
pub fn peer_addr(place: u8) -> Addr {
    ([10, 0, 1, place / 2 + 1], 6000 + u16::from(place % 2)).into()
}

/// A peer's settings with everything some ten times faster than by default.
pub fn brisk(me: Addr, network: &Network) -> PeerConfig {
    PeerConfig::new(me, network.clone())
        .probe_timeout(Duration::from_millis(300))
        .gossip_interval(Duration::from_millis(500))
        .gossip_count(0)
        .ping_interval(Duration::from_secs(1))
        .suspect_timeout(Duration::from_secs(3))
        .sync_interval(Duration::from_secs(2))
        .seal_from(2)
}

/// A world with that many seeds, which run, and checkers; no peers yet.
pub fn with_seeds(number: u64, seeds: u8, flaw: Flaw) -> (World, Network, Vec<NodeId>) {
    let mut world = World::new(number);
    // Half of all worlds, and no chance of its own: the rest of a world stays what it was.
    world.keyed = seeds > 0 && number % 2 == 1;
    let network = Network::new("simulated", (0..seeds).map(seed_addr));
    world.checks = Some(Box::new(Checks::new(network.quorum())));
    let ids: Vec<NodeId> = (0..seeds)
        .map(|place| {
            let mut config = SeedConfig::new(seed_addr(place), network.clone());
            config.probe_timeout = Duration::from_millis(300);
            world.add(seed_addr(place), Kind::Seed(config.with_flaw(flaw)))
        })
        .collect();
    for id in &ids {
        world.start(*id);
    }
    (world, network, ids)
}

/// One run: trouble for 20 to 30 s, then calm until it has healed or has had its time.
fn run(number: u64, rule: Rule, flaw: Flaw, in_words: bool) -> Outcome {
    let mut rng = SmallRng::seed_from_u64(number);
    let seeds = match rule {
        Rule::Seeds if rng.random_bool(0.8) => 3,
        Rule::Seeds => 5,
        Rule::Peers => 0,
    };
    let (mut world, network, seeds) = with_seeds(rng.random(), seeds, flaw);
    if let (Rule::Peers, Some(checks)) = (rule, &mut world.checks) {
        checks.open = true;
    }
    if in_words {
        world.trace.in_words();
    }
    world.disks_survive = rng.random_bool(0.6);
    let all_at_once = rng.random_bool(0.3);
    let mut starts: Vec<(Time, NodeId)> = Vec::new();
    let peers = rng.random_range(4..=10);
    for place in 0..peers {
        let addr = peer_addr(place);
        // Everybody names the first, and some others; the first, which may not be there when it
        // is called, calls them.
        let contacts = match rule {
            Rule::Seeds => Membership::Voted,
            Rule::Peers => {
                let named = (0..peers).filter(|other| *other == 0 || rng.random_bool(0.3));
                Membership::Open(named.map(peer_addr).collect())
            }
        };
        let config = brisk(addr, &network)
            .membership(contacts)
            .gossip_count(rng.random_range(0..=6))
            .fanout(rng.random_range(1..=2))
            .links(rng.random_range(2..=3))
            .max_links(if rng.random() { 8 } else { 64 })
            .with_flaw(flaw);
        let id = world.add(addr, Kind::Peer(config));
        let delay = if all_at_once { 0 } else { rng.random_range(0..8_000) };
        if rng.random_bool(0.9) || place == 0 && rule == Rule::Peers {
            starts.push((START + Duration::from_millis(delay), id));
        }
    }
    let mut trouble = Trouble::new(number, seeds);
    trouble.anchor = starts.first().map(|(_, id)| *id).filter(|_| rule == Rule::Peers);
    starts.sort();
    let trouble_ends = START + Duration::from_millis(rng.random_range(20_000..30_000));
    for (at, id) in starts {
        trouble.rage(&mut world, at);
        world.start(id);
    }
    trouble.rage(&mut world, trouble_ends);
    trouble.end(&mut world);
    let healed_after = calm(&mut world, &mut trouble);
    finish(world, number, healed_after)
}

/// Lets a network heal; none if it does not.
fn calm(world: &mut World, trouble: &mut Trouble) -> Option<Duration> {
    let since = world.now;
    if let Some(checks) = &mut world.checks {
        checks.calm_since = Some(since);
    }
    world.run_for(Duration::from_secs(3));
    trouble.speak_all(world);
    let mut healed: Option<Time> = None;
    while world.now < since + HEALS_WITHIN {
        world.run_for(Duration::from_millis(500));
        match healed {
            _ if !unsettled(world).is_empty() => healed = None,
            None => healed = Some(world.now),
            Some(at) if world.now >= at + STAYS_HEALED => return Some(at.since(since)),
            Some(_) => {}
        }
    }
    healed.map(|at| at.since(since))
}

/// Gathers what came of a run.
pub fn finish(mut world: World, number: u64, healed_after: Option<Duration>) -> Outcome {
    for id in 0..world.nodes.len() {
        world.harvest(id);
    }
    let mut violations = world
        .checks
        .as_mut()
        .map(|checks| std::mem::take(&mut checks.violations))
        .unwrap_or_default();
    violations.extend(unsettled(&world));
    Outcome {
        number,
        hash: world.trace.hash(),
        words: world.trace.words().to_owned(),
        tally: world.tally,
        violations,
        healed_after,
    }
}

/// A run whose panics are violations, too: no input may cause one.
pub fn examine(number: u64, rule: Rule, flaw: Flaw, in_words: bool) -> Outcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(number, rule, flaw, in_words)));
    outcome.unwrap_or_else(|panic| Outcome {
        number,
        hash: 0,
        tally: Tally::default(),
        violations: vec![Violation { invariant: 8, whose: peer_addr(0), what: told(&*panic) }],
        healed_after: None,
        words: String::new(),
    })
}

fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("of an unknown kind"))
}

/// Does `work` for all numbers on all processors; results in order of number.
pub fn for_all<T: Send>(numbers: Range<u64>, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(numbers.start);
    let results = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    let result = work(number);
                    results.lock().unwrap().push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Runs a number again, in words, and says where to read all of it.
fn story(number: u64, rule: Rule) -> String {
    let outcome = examine(number, rule, Flaw::None, true);
    let path = format!("{}/sim-{rule:?}-{number}.log", env!("CARGO_TARGET_TMPDIR"));
    let written = std::fs::write(&path, &outcome.words).map_or_else(|e| e.to_string(), |()| path);
    // Of each line the time, who, and then a mark that says what it is.
    let told = |line: &&str| {
        let words = line.trim_start().splitn(3, ' ').nth(2).unwrap_or_default();
        ["   ", "==", "!!"].iter().any(|mark| words.starts_with(mark))
    };
    let lines: Vec<&str> = outcome.words.lines().filter(told).collect();
    let end = lines.iter().position(|line| line.contains(" !! ")).map_or(lines.len(), |at| at + 1);
    let tail = lines[end.saturating_sub(40)..end].join("\n");
    let violations: Vec<String> = outcome.violations.iter().map(ToString::to_string).collect();
    format!(
        "number {number} (RUMORMILL_SIM_SEED={number}; whole trace: {written})\n{tail}\n{}\n",
        violations.join("\n")
    )
}

/// A number from the environment; one that is none is a mistake of whoever set it.
pub fn from_env(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value:?}")))
}

/// The numbers to run: one alone, as RUMORMILL_SIM_SEED says, or as many as RUMORMILL_SIM_RUNS.
pub fn numbers(by_default: u64) -> Range<u64> {
    let (first, runs) = match from_env("RUMORMILL_SIM_SEED") {
        Some(number) => (number, 1),
        None => (0, from_env("RUMORMILL_SIM_RUNS").unwrap_or(by_default)),
    };
    assert!(runs > 0, "no number, no test");
    first..first + runs
}

/// Kinds of events that the runs together must have seen.
const COVERED: [&str; 34] = [
    "registrations",
    "rejected registrations",
    "deaths",
    "rejected deaths",
    "leaves",
    "votes against",
    "suspicions",
    "refutations",
    "peer-level consensus",
    "confirmed deaths",
    "crashes",
    "seed crashes",
    "all seeds crashed",
    "disks lost",
    "restarts",
    "hangs",
    "leaves asked for",
    "cuts",
    "links broken",
    "congestions",
    "lost frames",
    "doubled frames",
    "overtaken frames",
    "published",
    "deliveries",
    "duplicates",
    "grafts",
    "wants",
    "sync repairs",
    "store answers",
    "writes",
    "writes repaired",
    "snapshots",
    "requests behind",
];

/// Of those, what happens where there are seeds alone.
const OF_SEEDS: [&str; 9] = [
    "registrations",
    "rejected registrations",
    "deaths",
    "rejected deaths",
    "leaves",
    "votes against",
    "seed crashes",
    "all seeds crashed",
    "disks lost",
];

#[test]
fn networks_in_trouble_break_no_invariant_and_heal() {
    survey(Rule::Seeds, RUNS);
}

#[test]
fn networks_without_seeds_in_trouble_break_no_invariant_and_heal() {
    survey(Rule::Peers, RUNS / 2);
}

fn survey(rule: Rule, by_default: u64) {
    let numbers = numbers(by_default);
    let (first, runs) = (numbers.start, numbers.end - numbers.start);
    let outcomes = for_all(numbers, |number| examine(number, rule, Flaw::None, false));
    let mut tally = Tally::default();
    let mut healing: Vec<Duration> = Vec::new();
    for outcome in &outcomes {
        tally.merge(&outcome.tally);
        healing.extend(outcome.healed_after);
    }
    healing.sort();
    println!("{runs} runs from number {first}:\n{tally}");
    if let (Some(median), Some(last)) = (healing.get(healing.len() / 2), healing.last()) {
        println!("healed after {median:?} (median), {last:?} (the slowest)");
    }
    let bad: Vec<u64> =
        outcomes.iter().filter(|o| !o.violations.is_empty()).map(|o| o.number).collect();
    if runs == 1 {
        println!("{}", story(first, rule));
    }
    let mut broken: BTreeMap<u8, u64> = BTreeMap::new();
    for violation in outcomes.iter().flat_map(|outcome| &outcome.violations) {
        *broken.entry(violation.invariant).or_default() += 1;
    }
    assert!(
        bad.is_empty(),
        "{} of {runs} runs broke an invariant: {bad:?}\nviolations by invariant: {broken:?}\n\n{}",
        bad.len(),
        bad.iter().take(3).map(|number| story(*number, rule)).collect::<String>()
    );
    let possible = |what: &&&str| rule == Rule::Seeds || !OF_SEEDS.contains(what);
    let covered = COVERED.iter().filter(possible);
    let missing: Vec<_> = covered.filter(|what| tally.get(what) == 0).collect();
    assert!(runs < by_default || missing.is_empty(), "never happened in {runs} runs: {missing:?}");
}

#[test]
fn one_number_replays_one_run() {
    let hashes = |_| for_all(0..10, |number| examine(number, Rule::Seeds, Flaw::None, false).hash);
    let [first, second] = [0, 1].map(hashes);
    assert_eq!(first, second, "two runs of one number differ");
    let distinct: BTreeSet<u64> = first.iter().copied().collect();
    assert_eq!(distinct.len(), first.len(), "two numbers give the same run");
}
