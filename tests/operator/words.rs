//! Words that help whoever reads them, and no more of them than that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use crate::programs::{PEER, Place, Running, SEED, free_address};

fn refused(place: &Place, line: &str) -> String {
    let (code, said, _) = Running(place.sh(line).spawn().unwrap()).end();
    assert_eq!(code, Some(2), "{line}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_mistyped_option_is_not_offered_as_a_value() {
    let place = Place::new();
    for program in [SEED, PEER] {
        let said = refused(&place, &format!("exec {program} 127.0.0.1 5000 c --foo"));
        assert!(said.contains("'--foo'") && !said.contains("-- --foo"), "{said}");
        let said = refused(&place, &format!("exec {program} 127.0.0.1 5000 c --log-fil x"));
        assert!(said.contains("--log-file"), "what is similar is: {said}");
    }
}

#[test]
fn help_ends_with_two_examples() {
    let place = Place::new();
    for (program, name) in [(SEED, "seed"), (PEER, "peer")] {
        let mut help = place.sh(&format!("exec {program} --help"));
        let help = help.stdout(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(help.stdout).unwrap();
        let (_, examples) = text.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{text}"));
        let lines: Vec<&str> = examples.trim_end().lines().collect();
        assert_eq!(lines.len(), 2, "{examples}");
        for line in lines {
            assert!(line.trim().starts_with(&format!("{name} ")), "{line}");
        }
    }
}

#[test]
fn pings_that_are_rarer_than_silence_may_be_are_a_mistake() {
    let place = Place::new();
    let peer = |options: &str| format!("exec {PEER} 127.0.0.1 0 c --ephemeral {options}");
    for options in [
        "--ping-interval 15s",
        "--ping-interval 1s --suspect-timeout 1s",
        "--ping-interval 2s --suspect-timeout 1s",
    ] {
        let said = refused(&place, &peer(options));
        assert!(said.contains("--ping-interval") && said.contains("--suspect-timeout"), "{said}");
    }
    let said = refused(&place, &format!("exec {PEER} --maelstrom --ping-interval 6s"));
    assert!(said.contains("--ping-interval") && said.contains("--suspect-timeout"), "{said}");
    for (options, least) in [
        ("--suspect-timeout 1ms", "100ms"),
        ("--suspect-timeout 99ms", "100ms"),
        ("--ping-interval 9ms", "10ms"),
    ] {
        let said = refused(&place, &peer(options));
        assert!(said.contains("too short") && said.contains(least), "{said}");
    }
}

#[test]
fn the_shortest_suspect_timeout_does_not_fill_the_log() {
    let place = Place::new();
    let _seed = place.start_seed("--ephemeral");
    let _peers: Vec<Running> = (0..2)
        .map(|_| place.start_peer(free_address(), "--ephemeral --suspect-timeout 100ms"))
        .collect();
    let before = place.log().lines().count();
    // What is tried is that time goes by.
    std::thread::sleep(Duration::from_secs(3));
    let lines = place.log().lines().count() - before;
    assert!(lines < 300, "{lines} lines in 3 s:\n{}", place.log());
}

#[test]
fn http_and_tls_on_the_port_of_the_links_are_named() {
    let place = Place::new();
    let seed = place.start_seed("--ephemeral");
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    for (said, name) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
        (&hello[..], "TLS"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "another protocol"),
    ] {
        let mut stream = TcpStream::connect(place.seed).unwrap();
        let from = stream.local_addr().unwrap();
        stream.write_all(said).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        let line = seed.until("it is told", || {
            let log = place.log();
            let mut lines = log.lines();
            lines.find(|line| line.contains(&format!("from={from} "))).map(str::to_owned)
        });
        assert!(line.contains("link closed") && line.contains(name), "{line}");
        assert!(!line.contains("over the limit"), "{line}");
    }
}

#[test]
fn a_seed_tells_how_it_stands_in_words() {
    let place = Place::new();
    let seed = place.start_seed("--ephemeral");
    for words in [" founding a new network ", " voting from now on "] {
        seed.until(words, || place.log().contains(words).then_some(()));
    }
    assert!(!place.log().contains("standing"), "{}", place.log());
}

#[test]
fn an_ipv6_address_in_a_message_is_in_brackets() {
    let place = Place::new();
    let port = free_address().port();
    std::fs::write(place.path("c"), format!("[::1]:{port}\n")).unwrap();
    let start = |line: String| Running(place.sh(&line).spawn().unwrap());
    let _seed = start(format!("exec {SEED} ::1 {port} c --ephemeral"));
    let peers: Vec<(u16, Running)> = (0..3)
        .map(|_| {
            let port = free_address().port();
            let options = "--ephemeral --gossip-count 1 --gossip-interval 100ms";
            (port, start(format!("exec {PEER} ::1 {port} c {options}")))
        })
        .collect();
    let said = |what: &str| {
        let log = place.log();
        log.lines().find(|line| line.contains(what)).map(str::to_owned)
    };
    let (dead, dying) = &peers[2];
    let line = dying.until("it gossips", || said("gossip sent"));
    let message = line.rsplit_once("message=").unwrap().1;
    let (time, rest) = message.split_once(':').unwrap();
    assert!(time.parse::<f64>().is_ok() && rest == "[::1]:1", "{line}");
    dying.until("it has a neighbour", || said(&format!("neighbour up peer=[::1]:{dead}")));
    dying.signal(&["KILL"]);
    let line = peers[0].1.until("its death is reported", || said("Dead Node:"));
    let message = line.split_once("Dead Node:").unwrap().1;
    let rest = message.strip_prefix(&format!("[::1]:{dead}:")).unwrap_or_else(|| panic!("{line}"));
    let (time, from) = rest.split_once(':').unwrap();
    assert!(time.parse::<f64>().is_ok() && from == "[::1]", "{line}");
}
