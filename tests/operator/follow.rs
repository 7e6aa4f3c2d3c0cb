//! Whoever follows `/events` sees every line of the log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::programs::{Place, Running, free_address};

/// Where a process serves HTTP.
fn http_of(place: &Place, running: &Running, who: &str) -> SocketAddr {
    running.until("it says where HTTP is", || {
        let log = place.log();
        let line = log.lines().find(|line| line.contains(who) && line.contains("http listening"));
        line.and_then(|line| line.rsplit_once("http=")?.1.parse().ok())
    })
}

/// The lines from the first on, as they come.
fn follow(http: SocketAddr) -> impl Iterator<Item = Value> {
    let mut stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
        .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 1\r\n\r\n")
        .unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter_map(|line| {
        line.strip_prefix("data: ").map(|data| serde_json::from_str(data).unwrap())
    })
}

fn ask(http: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn lines_of_the_store_and_of_the_command_line_are_there_too() {
    let place = Place::new();
    let _seed = place.start_seed("--ephemeral");
    let at = free_address();
    let peer = place.start_peer(at, "--ephemeral --http 127.0.0.1:0");
    let http = http_of(&place, &peer, &format!("peer {at}"));
    let relayed = r#"{"value": 1, "causal-metadata": {"r": 1}, "cid": "00"}"#;
    let answer = ask(http, "PUT", "/replica/kvs/a%1Bb", relayed);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    // A log that cannot be opened again is told by the command line.
    std::fs::rename(place.path("outputfile.txt"), place.path("old")).unwrap();
    std::fs::create_dir(place.path("outputfile.txt")).unwrap();
    peer.signal(&["USR1"]);
    let mut wanted = vec!["http listening", "write refused", "log not reopened"];
    let mut seen = Vec::new();
    for line in follow(http) {
        let event = line["event"].as_str().unwrap().to_owned();
        if event == "write refused" {
            assert_eq!(line["key"], "a\u{1b}b", "as it was: {line}");
        }
        wanted.retain(|words| *words != event);
        if wanted.is_empty() {
            return;
        }
        seen.push(event);
    }
    panic!("no {wanted:?} among {seen:?}");
}
