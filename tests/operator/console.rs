//! What the console prints, through a pipe.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::programs::{PEER, Place, Running, free_address};

/// A peer that is told what to do, line by line.
struct Piped {
    running: Running,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Piped {
    fn start(place: &Place, at: SocketAddr) -> Self {
        let line = format!(
            "exec {PEER} {} {} c --gossip-count 0 --ephemeral --console",
            at.ip(),
            at.port()
        );
        let mut command = place.sh(&line);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { running: Running(child), commands, answers }
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        let mut line = String::new();
        assert!(self.answers.read_line(&mut line).unwrap() > 0, "it ends without an answer");
        line.trim_end_matches('\n').to_owned()
    }

    fn ask_json(&mut self, command: &str) -> Value {
        let answer = self.ask(command);
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{command}: {answer}"))
    }
}

#[test]
fn get_prints_versions_as_getpeer_does() {
    let place = Place::new();
    let _seed = place.start_seed("--ephemeral");
    let at = free_address();
    let mut one = Piped::start(&place, at);
    assert_eq!(one.ask("put k \"blue\""), "created");
    let mut other = Piped::start(&place, free_address());
    let shown = one.ask_json("get k");
    let versions = shown.as_array().expect("a list of versions");
    assert_eq!(versions.len(), 1, "{shown}");
    for key in ["value", "vc", "lamport", "node_id", "ts", "cid"] {
        assert!(versions[0].get(key).is_some(), "{key} is not in {shown}");
    }
    assert_eq!(versions[0]["value"], "blue");
    assert_eq!(other.ask_json(&format!("getpeer {at} k")), shown, "the same of another peer");
    assert_eq!(other.ask("get nothing"), "error: Key does not exist");
}

#[test]
fn messages_takes_a_number_and_prints_the_newest_last() {
    let place = Place::new();
    let _seed = place.start_seed("--ephemeral");
    let mut peer = Piped::start(&place, free_address());
    for text in ["one", "two", "three"] {
        assert!(peer.ask(&format!("publish {text}")).starts_with("published id="));
    }
    let texts = |shown: Value| -> Vec<Value> {
        shown.as_array().unwrap().iter().map(|message| message["message"].clone()).collect()
    };
    assert_eq!(texts(peer.ask_json("messages")), ["one", "two", "three"]);
    assert_eq!(texts(peer.ask_json("messages 2")), ["two", "three"]);
    assert_eq!(texts(peer.ask_json("messages 9")), ["one", "two", "three"]);
    assert_eq!(peer.ask_json("messages 0"), json!([]));
    for wrong in ["messages -1", "messages all", "messages 1 2"] {
        assert!(peer.ask(wrong).starts_with("error: "), "{wrong}");
    }
}

#[test]
fn members_is_peers_and_the_gone_show_when_they_went() {
    let place = Place::new();
    let _seed = place.start_seed("--ephemeral");
    let mut peer = Piped::start(&place, free_address());
    let at = free_address();
    let mut leaver = place.start_peer(at, "--ephemeral");
    let find = |shown: Value| {
        let found = shown.as_array().unwrap().iter().find(|m| m["address"] == at.to_string());
        found.cloned()
    };
    let status = |member: &Value| member["status"].as_str().unwrap().to_owned();
    let _ = leaver.until("it is shown as a member", || {
        find(peer.ask_json("members")).filter(|member| status(member) == "alive")
    });
    assert_eq!(peer.ask_json("members"), peer.ask_json("peers"));
    leaver.signal(&["TERM"]);
    assert_eq!(leaver.end().0, Some(0));
    let gone = loop {
        if let Some(member) = find(peer.ask_json("members")).filter(|m| status(m) != "alive") {
            break member;
        }
        assert!(peer.running.0.try_wait().unwrap().is_none());
    };
    assert_eq!(gone["status"], "left");
    let went = gone["gone"].as_str().unwrap_or_else(|| panic!("no time in {gone}"));
    assert!(chrono::DateTime::parse_from_rfc3339(went).is_ok(), "{gone}");
}
