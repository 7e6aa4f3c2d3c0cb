//! What the replicated store costs, with real processes, over HTTP.
//!
//! `cargo bench --bench store`: latency of a write and until it is seen elsewhere, writes a second,
//! bytes on the wire, repair, memory, restart. Beside the rates stands what the same client gets from
//! `/health` of the same process in the same run: that is what HTTP alone costs here. The load comes
//! from a process of its own; the whole runs in a network namespace of its own where that is allowed,
//! so that nobody else's bytes are counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod client;
mod replicas;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;

use self::client::{Client, value};
use self::replicas::Replicas;

/// Keys of a full store.
const KEYS: usize = 100_000;

/// Prints one figure: median, 99th percentile and maximum of its values.
fn show(name: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    let n = values.len();
    println!("{name:<62}{:>10.2}{:>10.2}{:>10.2}  {unit} (n={n})", at(0.5), at(0.99), at(1.0));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", addr, connections, seconds] => {
            let (addr, connections) = (addr.parse().unwrap(), connections.parse().unwrap());
            let time = Duration::from_secs(seconds.parse().unwrap());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            println!("{}", runtime.unwrap().block_on(client::load(addr, connections, time)));
        }
        [] => all(),
        // `cargo test --benches` and name filters: nothing to do.
        _ => println!("usage: cargo bench --bench store"),
    }
}

/// A network of this process's own, so that its loopback carries only what is measured.
fn be_alone() -> bool {
    let alone = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok();
    alone
        && Command::new("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|s| s.success())
}

fn all() {
    if !be_alone() {
        println!("no network namespace of its own: bytes of others are counted as well");
    }
    let runtime = Runtime::new().unwrap();
    println!("{:<62}{:>10}{:>10}{:>10}", "figure", "median", "p99", "maximum");
    runtime.block_on(latency());
    runtime.block_on(rates());
    runtime.block_on(bytes());
    runtime.block_on(full_store());
}

/// One write after another on three replicas, and until another replica shows it.
async fn latency() {
    let replicas = Replicas::start(3, false).await;
    let mut clients = Vec::new();
    for addr in &replicas.addrs {
        clients.push(Client::connect(*addr).await);
    }
    let (mut writes, mut health, mut seen) = (Vec::new(), Vec::new(), Value::Null);
    for round in 0..3_000 {
        let start = Instant::now();
        clients[0].ask("GET", "/health", "").await;
        health.push(millis(start.elapsed()));
        let start = Instant::now();
        seen = clients[0].put(&format!("k{}", round % 100), &value(100), &seen).await;
        writes.push(millis(start.elapsed()));
    }
    show("GET /health, for comparison", "ms", health);
    show("sequential PUTs, 3 replicas, --ephemeral", "ms", writes);
    let (mut hopping, mut visible) = (Vec::new(), Vec::new());
    for round in 0..3_000 {
        let start = Instant::now();
        seen = clients[round % 3].put(&format!("h{}", round % 100), &value(100), &seen).await;
        hopping.push(millis(start.elapsed()));
    }
    show("the same, each at the next replica with its metadata", "ms", hopping);
    for round in 0..1_000 {
        let (path, key) = (format!("/kvs/new{round}"), format!("new{round}"));
        let start = Instant::now();
        clients[0].put(&key, &value(100), &Value::Null).await;
        while clients[1].ask("GET", &path, "").await.0 != 200 {}
        visible.push(millis(start.elapsed()));
    }
    show("PUT here until a GET shows it there", "ms", visible);
}

/// This program as a client in a process of its own; writes a second.
fn load(addr: SocketAddr, connections: usize, seconds: u64) -> f64 {
    let me = std::env::current_exe().unwrap();
    let args = ["load", &addr.to_string(), &connections.to_string(), &seconds.to_string()];
    let output = Command::new(me).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

async fn rates() {
    for (durable, name) in [(true, "durable"), (false, "--ephemeral")] {
        let replicas = Replicas::start(1, durable).await;
        load(replicas.addrs[0], 16, 1);
        let rates = (0..5).map(|_| load(replicas.addrs[0], 16, 2)).collect();
        show(&format!("PUTs a second, one replica, 16 clients, {name}"), "/s", rates);
    }
}

/// All bytes that crossed this namespace's loopback device, headers and acknowledgements included.
fn wire() -> u64 {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap();
    let lo = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap();
    lo.split_whitespace().next().unwrap().parse().unwrap()
}

/// What a write costs on the wire beyond HTTP, for each further replica.
async fn bytes() {
    const WRITES: usize = 2_000;
    let (mut one_writer, mut all_write) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut used = Vec::new();
        for (count, writers) in [(1, 1), (3, 1), (3, 3)] {
            let replicas = Replicas::start(count, false).await;
            let mut clients = Vec::new();
            for addr in &replicas.addrs[..writers] {
                clients.push(Client::connect(*addr).await);
            }
            for (place, client) in clients.iter_mut().enumerate() {
                client.put(&format!("mine{place}"), "x", &Value::Null).await;
            }
            // As many exchanges over HTTP each time, but with longer metadata if more have written.
            let http = |clients: &[Client]| clients.iter().map(|client| client.bytes).sum::<u64>();
            let before = wire() - http(&clients);
            for round in 0..WRITES {
                let key = format!("k{}", round % 100);
                clients[round % writers].put(&key, &value(100), &Value::Null).await;
            }
            used.push((wire() - http(&clients) - before) as f64);
        }
        let further = (WRITES * 2) as f64;
        one_writer.push((used[1] - used[0]) / further);
        all_write.push((used[2] - used[0]) / further);
    }
    show("bytes of one 100-byte write to each further replica", "B", one_writer);
    show("the same, all three replicas writing in turn", "B", all_write);
}

/// A store of 100,000 keys: memory, restart, and repair of ten writes.
async fn full_store() {
    let mut replicas = Replicas::start(2, true).await;
    client::fill(replicas.addrs[0], KEYS, 100).await;
    until_equal(&replicas).await;
    show(
        "resident memory, 100,000 keys of 100 bytes",
        "MB",
        vec![replicas.memory(0), replicas.memory(1)],
    );
    let (mut restarts, mut loads, mut repairs) = (Vec::new(), Vec::new(), Vec::new());
    for both in [false, false, false, true] {
        replicas.kill(1);
        let mut client = Client::connect(replicas.addrs[0]).await;
        for round in 0..10 {
            client.put(&format!("key-{round}"), &value(100), &Value::Null).await;
        }
        drop(client);
        if both {
            // What is not in memory any more has to be found by comparing.
            replicas.kill(0);
            replicas.run(0);
            replicas.wait_until_ready(0, 1).await;
        }
        let (start, before) = (Instant::now(), wire());
        replicas.run(1);
        replicas.wait_for_answer(1, "/kvs/key-99999").await;
        restarts.push(start.elapsed().as_secs_f64());
        until_equal(&replicas).await;
        let used = (wire() - before) as f64 / 1e3;
        if both {
            loads.push(used)
        } else {
            repairs.push(used)
        };
    }
    show("restart with 100,000 keys until one is read", "s", restarts);
    show("10 writes apart: all bytes until equal, HTTP polls included", "kB", repairs);
    show("the same, after the other one was restarted, too", "kB", loads);
    show("resident memory after a restart", "MB", vec![replicas.memory(0), replicas.memory(1)]);
}

/// Waits until both have seen the same.
async fn until_equal(replicas: &Replicas) {
    let start = Instant::now();
    let mut clients = Vec::new();
    for addr in &replicas.addrs {
        clients.push(Client::connect(*addr).await);
    }
    loop {
        let mut seen = Vec::new();
        for client in &mut clients {
            // The metadata of a read of one key is all that its replica has seen of it; a key that
            // is written last tells of all.
            let (_, body) = client.ask("GET", "/kvs/key-9", "").await;
            let body: Value = serde_json::from_slice(&body).unwrap();
            seen.push(body["causal-metadata"].clone());
        }
        if seen[0] == seen[1] && !seen[0].is_null() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "not equal: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
