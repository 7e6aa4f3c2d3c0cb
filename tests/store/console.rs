//! The console through a pipe: each command gets one answer on stdout, and nothing else is there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::replicas::{PEER, Replicas, ask, get, plain, put, until};

/// A peer that is told what to do, line by line.
struct Piped {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Piped {
    fn start(network: &Replicas, named: SocketAddr, options: &[&str]) -> Self {
        let mut command = Command::new(PEER);
        plain(&mut command);
        let mut child = command
            .args(["127.0.0.1", "0", "--peers", &named.to_string(), "--ephemeral"])
            .args(["--gossip-count", "0"])
            .args(options)
            .current_dir(network.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(network.path("console-stderr")).unwrap())
            .spawn()
            .unwrap();
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, commands, answers }
    }

    fn say(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        assert!(self.answers.read_line(&mut line).unwrap() > 0, "it ends without an answer");
        line.trim_end_matches('\n').to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        self.say(command);
        self.hear()
    }

    fn ask_json(&mut self, command: &str) -> Value {
        let answer = self.ask(command);
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{command}: {answer}"))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_command_gets_one_answer() {
    let mut network = Replicas::on_loopback(2);
    let addrs = network.addrs.clone();
    network.start_all(&["--ephemeral"]);
    network.wait_for_view(&[0, 1]);
    put(addrs[0], "there", json!({"a": [1, null]}));
    let mut console = Piped::start(&network, addrs[0], &["--console"]);
    // The first command waits until this replica has what the others have.
    assert_eq!(console.ask_json("get there")[0]["value"], json!({"a": [1, null]}));
    assert_eq!(console.ask(r#"put k "blue""#), "created");
    assert_eq!(console.ask(r#"put k {"colour": "green"}"#), "replaced");
    assert_eq!(console.ask_json("get k")[0]["value"], json!({"colour": "green"}));
    assert_eq!(console.ask(r#"put "two words" 7"#), "created");
    assert_eq!(console.ask_json("keys"), json!(["k", "there", "two words"]));
    until("another one has it", || {
        let (status, body) = get(addrs[1], "/kvs/two%20words")?;
        (status == 200 && body["value"] == 7).then_some(())
    });
    let versions = console.ask_json(&format!("getpeer {} k", addrs[1]));
    let version = &versions[0];
    assert_eq!(versions.as_array().unwrap().len(), 1);
    assert_eq!(version["value"], json!({"colour": "green"}));
    // printf '{"colour":"green"}' | sha256sum
    let cid = "76f2be6330097b02f5560d70e669ca34a30b1c0d6a37ebd08daefecee19c068d";
    assert_eq!(version["cid"], cid);
    assert_eq!(version["lamport"], 3, "{version}");
    let me = version["node_id"].as_str().unwrap().to_owned();
    assert_eq!(version["vc"][&me], 2, "{version}");
    assert!(version["ts"].as_str().unwrap().contains('.'));
    assert_eq!(
        console.ask_json(&format!("getpeer {}", addrs[1])),
        json!(["k", "there", "two words"])
    );
    assert_eq!(console.ask(&format!("getpeer {} none", addrs[1])), "error: Key does not exist");
    let me: SocketAddr = me.split('@').next().unwrap().parse().unwrap();
    assert_eq!(console.ask_json(&format!("getpeer {me} k")), versions, "itself, too");
    let peers = console.ask_json("peers");
    let of = |addr: SocketAddr| {
        let all = peers.as_array().unwrap();
        all.iter().find(|peer| peer["address"] == json!(addr)).cloned().unwrap()
    };
    assert_eq!((&of(addrs[0])["status"], &of(me)["neighbour"]), (&json!("alive"), &json!(false)));
    assert_eq!(of(addrs[0])["neighbour"], true, "{peers}");
    let published = console.ask("publish hear, hear");
    let id = published.strip_prefix("published id=").unwrap();
    until("another one hears it", || {
        let messages = get(addrs[1], "/gossip")?.1["messages"].clone();
        messages
            .as_array()?
            .iter()
            .any(|m| m["id"] == id && m["message"] == "hear, hear")
            .then_some(())
    });
    assert_eq!(console.ask_json("messages")[0]["id"], id);
    assert_eq!(console.ask("sync"), "synced peers=2");
    assert_eq!(console.ask("delete k"), "deleted");
    assert_eq!(console.ask("get k"), "error: Key does not exist");
    console.say("help");
    assert!((0..12).map(|_| console.hear()).any(|line| line.contains("getpeer IP:PORT KEY")));
    // Nothing of all that is the log's.
    let log = fs::read_to_string(network.path("console-stderr")).unwrap();
    assert!(log.contains(" gossip sent message=\"hear, hear\""), "{log}");
    console.say("quit");
    assert_eq!(console.child.wait().unwrap().code(), Some(0));
    network.wait_for_view(&[0, 1]);
}

#[test]
fn concurrent_values_are_siblings_and_nothing_tricks_a_terminal() {
    let mut network = Replicas::on_loopback(1);
    let addr = network.addrs[0];
    network.start_all(&["--ephemeral"]);
    network.wait_for_view(&[0]);
    let nothing = json!({"value": "\u{1b}[2J one", "causal-metadata": {}});
    for value in ["\u{1b}[2J one", "\u{9b}31m two"] {
        let mut body = nothing.clone();
        body["value"] = json!(value);
        assert!(ask(addr, "PUT", "/kvs/k%1B", &body).unwrap().0 < 300);
    }
    let mut console = Piped::start(&network, addr, &["--console"]);
    let versions = console.ask_json(r#"get "k\u001b""#);
    let values: Vec<&Value> =
        versions.as_array().unwrap().iter().map(|version| &version["value"]).collect();
    assert_eq!(values.len(), 2, "{versions}");
    assert!(values.iter().any(|value| **value == "\u{1b}[2J one"), "{versions}");
    for command in
        ["keys", r#"get "k\u001b""#, "publish \u{1b}[31mred", "messages", "get \u{9b}31m"]
    {
        let answer = console.ask(command);
        assert!(!answer.chars().any(char::is_control), "{command}: {answer:?}");
    }
}

#[test]
fn a_mistake_is_an_answer_too() {
    let mut network = Replicas::on_loopback(1);
    let addr = network.addrs[0];
    network.start_all(&["--ephemeral"]);
    let nobody = "127.0.0.1:1";
    let mut console = Piped::start(&network, addr, &["--console"]);
    for (command, says) in [
        ("fly", "no command"),
        ("put", "KEY is missing"),
        ("put k", "value is missing"),
        ("put k blue", "in quotes"),
        ("put k null", "null"),
        ("put \"k 1", "quotes"),
        (&format!("put {} 1", "k".repeat(51)), "Key is too long"),
        (&format!("put k {}1{}", "[".repeat(65), "]".repeat(65)), "deeper than 64"),
        ("get", "KEY is missing"),
        ("get a b", "after the key"),
        ("get k", "Key does not exist"),
        ("delete k", "Key does not exist"),
        ("getpeer", "IP:PORT"),
        ("getpeer here k", "IP:PORT"),
        (&format!("getpeer {nobody} k"), "connection refused"),
        ("publish", "TEXT is missing"),
    ] {
        let answer = console.ask(command);
        assert!(answer.starts_with("error: ") && answer.contains(says), "{command}: {answer}");
    }
    console.commands.as_mut().unwrap().write_all(b"put \xff 1\n").unwrap();
    assert_eq!(console.hear(), "error: a command is UTF-8 text");
    console.say("");
    assert_eq!(console.ask("keys"), "[]", "an empty line asks for nothing");
}

#[test]
fn what_a_peer_has_no_room_for_is_an_answer_too() {
    let mut network = Replicas::on_loopback(1);
    let addr = network.addrs[0];
    network.start_all(&["--ephemeral"]);
    let limits = ["--console", "--max-store-bytes", "1", "--max-key-bytes", "3"];
    let mut console = Piped::start(&network, addr, &limits);
    let full = console.ask("put k 1");
    assert!(full.starts_with("error: Store is full; ") && full.contains("delete"), "{full}");
    assert_eq!(console.ask("put four 1"), "error: Key is too long");
    assert_eq!(console.ask("put sync 1"), "error: Key is reserved");
    assert_eq!(console.ask("get four"), "error: Key does not exist", "another peer may write it");
    assert_eq!(console.ask("keys"), "[]");
}

#[test]
fn the_end_of_the_input_is_a_leave_only_where_commands_are_read() {
    let mut network = Replicas::on_loopback(1);
    network.start_all(&["--ephemeral"]);
    network.wait_for_view(&[0]);
    let addr = network.addrs[0];
    let joined = |count: usize| {
        until("they are in the view", || {
            (get(addr, "/view")?.1["view"].as_array()?.len() == count).then_some(())
        });
    };
    let mut deaf = Piped::start(&network, addr, &[]);
    joined(2);
    deaf.say("quit");
    deaf.commands = None;
    let mut console = Piped::start(&network, addr, &["--console"]);
    joined(3);
    console.say("put last 1"); // without waiting for the answer
    console.commands = None;
    assert_eq!(console.child.wait().unwrap().code(), Some(0));
    assert_eq!(console.hear(), "created");
    joined(2);
    assert_eq!(get(addr, "/kvs/last").unwrap().1["value"], 1, "what was answered is not lost");
    assert!(deaf.child.try_wait().unwrap().is_none(), "the other one does not listen to stdin");
}
