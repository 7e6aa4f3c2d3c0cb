//! What the seeds' registry costs, with real seed processes and fsync.
//!
//! `cargo bench --bench registry [-- ROUNDS]`: one registration at a time, a thousand peers at once,
//! a seed killed, no quorum, and a registry of 100,000. `-- crowd [TIMES]` measures the thousand peers
//! alone, and the processor time that they and the seeds take; `-- encrypted [TIMES]` the same over encrypted
//! links, with identities, against plain ones, in turns. Where `etcd` (3.4, Debian's `etcd-server`)
//! is installed, its puts are measured on the same disk in the same run.
//!
//! How many times one by one the crowd is says as much of the disk as of the seeds: one registration waits
//! for two commits, a crowd for the processors. To see it on a disk of 3,000 writes a second, run this in a
//! cgroup with `blkio.throttle.write_iops_device`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod etcd;
mod large;
mod seeds;
#[allow(dead_code)] // the tests use the rest
#[path = "../../tests/network/stub.rs"]
mod stub;

use std::time::{Duration, Instant};

use rumormill::net::secure::{KnownSeeds, NetworkKey, NetworkKeys, Secret, Security};
use tokio::runtime::Runtime;

use self::seeds::Seeds;
use self::stub::{Failure, Stub};

/// Peers that register at the same time.
const CROWD: usize = 1_000;

/// Prints one figure: median, 99th percentile and maximum of its values.
pub fn show(name: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    let n = values.len();
    println!("{name:<58}{:>10.2}{:>10.2}{:>10.2}  {unit} (n={n})", at(0.5), at(0.99), at(1.0));
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "crowd") {
        let times = args.get(1).and_then(|arg| arg.parse().ok()).unwrap_or(9);
        return crowds(&Runtime::new().unwrap(), times);
    }
    if args.first().is_some_and(|arg| arg == "encrypted") {
        let times = args.get(1).and_then(|arg| arg.parse().ok()).unwrap_or(9);
        return encrypted_crowds(&Runtime::new().unwrap(), times);
    }
    let rounds: usize = match args.first().map(|arg| arg.parse()) {
        None => 1_000,
        Some(Ok(rounds)) => rounds,
        // `cargo test --benches` and name filters: nothing to do.
        Some(Err(_)) => {
            return println!(
                "usage: cargo bench --bench registry [-- ROUNDS | crowd [TIMES] | encrypted [TIMES]]"
            );
        }
    };
    let runtime = Runtime::new().unwrap();
    println!("{:<58}{:>10}{:>10}{:>10}", "figure", "median", "p99", "maximum");
    let alone = runtime.block_on(one_by_one(rounds));
    etcd::puts(rounds);
    let crowds: Vec<f64> = (0..5).map(|_| runtime.block_on(crowd(None)).rate).collect();
    let best = crowds.iter().copied().fold(0.0, f64::max);
    show("registrations a second, 1,000 peers at once, 3 seeds", "/s", crowds);
    println!("{:<58}{:>10.1}  times one by one", "the best of these", best / alone);
    runtime.block_on(one_killed());
    runtime.block_on(no_quorum());
    runtime.block_on(large::figures());
}

/// One registration after another, each of a peer of its own over an open connection; how many a
/// second.
async fn one_by_one(rounds: usize) -> f64 {
    let seeds = Seeds::start(3);
    let mut times = Vec::new();
    let mut stubs = Vec::new();
    let mut asked = Duration::ZERO;
    for round in 0..rounds {
        let stub = Stub::start(&seeds.network).await;
        let mut line = stub.call(seeds.addr(round % 3)).await.unwrap();
        let start = Instant::now();
        line.register(stub.incarnation).await.unwrap();
        asked += start.elapsed();
        times.push(millis(start.elapsed()));
        stubs.push(stub);
    }
    show("one registration, 3 seeds", "ms", times);
    rounds as f64 / asked.as_secs_f64()
}

/// What a thousand registrations took.
struct Crowd {
    /// Registrations a second.
    rate: f64,
    /// Processor time of one, microseconds: of the process that all peers are in, and of all seeds.
    client: f64,
    seeds: f64,
}

/// The crowd alone, and what it takes: for whoever wants to make it cheaper.
fn crowds(runtime: &Runtime, times: usize) {
    let crowds: Vec<Crowd> = (0..times).map(|_| runtime.block_on(crowd(None))).collect();
    let of = |figure: fn(&Crowd) -> f64| crowds.iter().map(figure).collect();
    show("registrations a second, 1,000 peers at once, 3 seeds", "/s", of(|crowd| crowd.rate));
    show("processor time of a registration, the client", "us", of(|crowd| crowd.client));
    show("processor time of a registration, the seeds", "us", of(|crowd| crowd.seeds));
}

/// The crowd over encrypted links and over plain ones, in turns.
fn encrypted_crowds(runtime: &Runtime, times: usize) {
    let key = NetworkKey::fresh().unwrap();
    let (mut sealed, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..times {
        sealed.push(runtime.block_on(crowd(Some(&key))));
        plain.push(runtime.block_on(crowd(None)));
    }
    for (links, crowds) in [("encrypted", &sealed), ("plain", &plain)] {
        let of = |figure: fn(&Crowd) -> f64| crowds.iter().map(figure).collect();
        show(&format!("registrations a second, {links} links"), "/s", of(|crowd| crowd.rate));
        show(&format!("processor time, the client, {links}"), "us", of(|crowd| crowd.client));
        show(&format!("processor time, the seeds, {links}"), "us", of(|crowd| crowd.seeds));
    }
    let ratios = sealed.iter().zip(&plain).map(|(a, b)| a.rate / b.rate).collect();
    show("registrations a second, encrypted against plain", "times", ratios);
}

/// Processor time that the threads of a process have used so far, seconds.
fn processor_time(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanos = |thread: std::fs::DirEntry| -> Option<f64> {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse().ok()
    };
    threads.flatten().filter_map(nanos).sum::<f64>() / 1e9
}

/// A thousand peers register at the same time; registrations a second until the last is answered.
async fn crowd(key: Option<&NetworkKey>) -> Crowd {
    let seeds = Seeds::start_with(3, key);
    let mut lines = Vec::new();
    for place in 0..CROWD {
        let security = key.map(|key| {
            let (keys, secret) = (NetworkKeys::of(key.clone()), Secret::fresh().unwrap());
            Security::new(keys, secret, KnownSeeds::of(&seeds.network))
        });
        let any = ([127, 0, 0, 1], 0).into();
        let stub = Stub::start_as(&seeds.network, any, security).await;
        let line = stub.call(seeds.addr(place % 3)).await.unwrap();
        lines.push((stub, line));
    }
    let used = || {
        let seeds: f64 = (0..3).map(|place| processor_time(seeds.pid(place))).sum();
        (processor_time(std::process::id()), seeds)
    };
    let before = used();
    let start = Instant::now();
    let asking: Vec<_> = lines
        .into_iter()
        .map(|(stub, mut line)| {
            tokio::spawn(async move {
                // As peers do, who was denied asks again: so many dial-backs over encrypted links
                // at once may take longer than a probe's time.
                while let Err(failure) = line.register(stub.incarnation).await {
                    assert!(matches!(failure, Failure::Denied(_)), "{failure:?}");
                }
                (stub, line)
            })
        })
        .collect();
    let mut answered = Vec::new();
    for asking in asking {
        answered.push(asking.await.unwrap());
    }
    let rate = CROWD as f64 / start.elapsed().as_secs_f64();
    let after = used();
    let each = |time: f64| time * 1e6 / CROWD as f64;
    Crowd { rate, client: each(after.0 - before.0), seeds: each(after.1 - before.1) }
}

/// Registrations go on while one seed is killed: each peer asks the next seed where one is gone, as
/// peers do, so that none fails.
async fn one_killed() {
    let mut seeds = Seeds::start(3);
    let mut times = Vec::new();
    let mut failed = 0;
    let mut stubs = Vec::new();
    for round in 0..400 {
        if round == 100 {
            seeds.kill(0);
        }
        let stub = Stub::start(&seeds.network).await;
        let start = Instant::now();
        let mut done = false;
        for next in 0..3 {
            let Ok(mut line) = stub.call(seeds.addr(round + next)).await else { continue };
            match line.register(stub.incarnation).await {
                Ok(()) => done = true,
                Err(Failure::Gone) => continue,
                Err(Failure::Denied(reason)) => println!("denied: {reason}"),
            }
            break;
        }
        failed += usize::from(!done);
        times.push(millis(start.elapsed()));
        stubs.push(stub);
    }
    show("registration while one of three seeds is killed", "ms", times);
    println!("{:<58}{failed:>10}  of 400", "of these failed");
}

/// With one of three seeds left, how long until a peer is told so.
async fn no_quorum() {
    let mut seeds = Seeds::start(3);
    let stub = Stub::start(&seeds.network).await;
    stub.call(seeds.addr(0)).await.unwrap().register(stub.incarnation).await.unwrap();
    seeds.kill(1);
    seeds.kill(2);
    let mut times = Vec::new();
    for _ in 0..5 {
        let stub = Stub::start(&seeds.network).await;
        let mut line = stub.call(seeds.addr(0)).await.unwrap();
        let start = Instant::now();
        let told = line.register(stub.incarnation).await;
        times.push(millis(start.elapsed()));
        assert!(
            matches!(&told, Err(Failure::Denied(reason)) if reason.contains("1 of 3")),
            "{told:?}"
        );
    }
    show("refusal without a quorum", "ms", times);
}
