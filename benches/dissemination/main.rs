//! How fast, how cheap and how completely a message reaches everybody.
//!
//! `cargo bench --bench dissemination [-- ROUNDS]`: 30 nodes in one process over
//! loopback TCP, 128-byte payloads from random nodes, 1,000 messages, once
//! paced at 100 a second and once with 64 in flight, and beside each figure the
//! same for the floor: the same overlay flooded by bare tokio tasks with
//! length-delimited frames and a set of seen ids, nothing else. Each run is a
//! process of its own, and the two take turns, so that what the machine does
//! meanwhile meets both. `-- encrypted [ROUNDS]` puts encrypted links beside
//! plain ones instead, and `-- signed [ROUNDS]` those over which messages are
//! signed as well.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod floor;
mod load;
mod ours;

use std::process::Command;

use load::Figures;
use rumormill::net::secure::NetworkKey;

/// Nodes.
const NODES: usize = 30;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run-ours", mode, how @ ("encrypted" | "signed")] => {
            let (key, signed) = (NetworkKey::fresh().unwrap(), *how == "signed");
            run(async |mode| ours::run(mode, false, Some(&key), signed).await, mode);
        }
        ["run-ours", mode, hub] => {
            run(async |mode| ours::run(mode, *hub == "hub", None, false).await, mode);
        }
        ["run-floor", mode, edges] => {
            let edges = parse_edges(edges);
            run(async |mode| floor::run(mode, &edges).await, mode);
        }
        [how @ ("encrypted" | "signed")] => compare_encrypted(how, 5),
        [how @ ("encrypted" | "signed"), rounds] if rounds.parse::<usize>().is_ok() => {
            compare_encrypted(how, rounds.parse().unwrap());
        }
        [] => compare(5),
        [rounds] if rounds.parse::<usize>().is_ok() => compare(rounds.parse().unwrap()),
        // `cargo test --benches` and name filters: nothing to do.
        _ => {
            println!("usage: cargo bench --bench dissemination [-- [encrypted | signed] [ROUNDS]]")
        }
    }
}

fn run(work: impl AsyncFnOnce(load::Mode) -> (Figures, Vec<(usize, usize)>), mode: &str) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (figures, edges) = runtime.block_on(work(load::Mode::parse(mode)));
    println!("{}", figures.to_line());
    let edges: Vec<String> = edges.iter().map(|(a, b)| format!("{a}-{b}")).collect();
    println!("{}", edges.join(","));
}

fn parse_edges(text: &str) -> Vec<(usize, usize)> {
    let edge = |edge: &str| {
        let (a, b) = edge.split_once('-').unwrap();
        (a.parse().unwrap(), b.parse().unwrap())
    };
    text.split(',').map(edge).collect()
}

/// Runs this program as a child; a run that fails is shown, and made again.
fn child(args: &[&str]) -> (Figures, String) {
    let me = std::env::current_exe().unwrap();
    for _ in 0..3 {
        let output = Command::new(&me).args(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines = text.lines();
        if let Some(figures) = lines.next().and_then(Figures::parse) {
            return (figures, lines.next().unwrap_or_default().to_owned());
        }
        println!("FAILED {} {}: {}", args[0], args[1], String::from_utf8_lossy(&output.stderr));
    }
    panic!("three runs of {args:?} failed")
}

/// Encrypted links, with messages signed or not, against plain ones, in turns.
fn compare_encrypted(how: &str, rounds: usize) {
    for mode in ["paced", "flight", "sustained"] {
        println!("\n{mode}: {how} (ours) against plain links (floor), {rounds} rounds");
        let run = |links| child(&["run-ours", mode, links]).0;
        let (sealed, plain) =
            (0..rounds).map(|_| (run(how), run("-"))).unzip::<_, _, Vec<_>, Vec<_>>();
        load::print_table(&sealed, &plain);
    }
}

fn compare(rounds: usize) {
    for (mode, title) in [
        ("paced", "paced at 100 messages a second"),
        ("flight", "64 messages in flight"),
        ("sustained", "64 messages in flight, 20,000 messages"),
    ] {
        println!("\n{title}: {NODES} nodes, 128-byte payloads, {rounds} rounds");
        let mut ours = Vec::new();
        let mut floors = Vec::new();
        for _ in 0..rounds {
            let (figures, edges) = child(&["run-ours", mode, "-"]);
            ours.push(figures);
            floors.push(child(&["run-floor", mode, &edges]).0);
        }
        load::print_table(&ours, &floors);
    }
    println!("\nthe best-linked node dies after 2 of 10 s, paced: {rounds} rounds");
    let hub: Vec<Figures> = (0..rounds).map(|_| child(&["run-ours", "paced", "hub"]).0).collect();
    load::print_table(&hub, &[]);
}
