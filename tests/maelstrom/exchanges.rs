//! Sample exchanges of CONTRACT.md, section 5, with the program itself.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// Runs a node over some lines of input until it ends by itself.
fn run(options: &[&str], lines: &[String]) -> Output {
    let mut node = Command::new(env!("CARGO_BIN_EXE_peer"))
        .arg("--maelstrom")
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = node.stdin.take().unwrap();
    stdin.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    drop(stdin);
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn messages(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (id, message) in all.iter().enumerate() {
        assert_eq!(message["body"]["msg_id"], json!(id), "consecutive from 0: {message}");
        assert_eq!(message["src"], "n1");
    }
    all
}

fn request(msg_id: u64, mut body: Value) -> String {
    body["msg_id"] = json!(msg_id);
    json!({"src": "c1", "dest": "n1", "body": body}).to_string()
}

fn init(others: &[&str]) -> String {
    let mut all = vec!["n1"];
    all.extend(others);
    request(1, json!({"type": "init", "node_id": "n1", "node_ids": all}))
}

/// What a node alone answers to these requests, without what every reply carries.
fn replies(requests: &[Value]) -> Vec<Value> {
    replies_with(&[], requests)
}

/// The same of a node with these options.
fn replies_with(options: &[&str], requests: &[Value]) -> Vec<Value> {
    let mut lines = vec![init(&[])];
    lines.extend((2..).zip(requests).map(|(id, body)| request(id, body.clone())));
    let all = messages(&run(options, &lines));
    assert_eq!(all.len(), lines.len(), "one reply each: {all:?}");
    let mut bodies = Vec::new();
    for (id, message) in (1..).zip(all) {
        assert_eq!(message["dest"], "c1");
        assert_eq!(message["body"]["in_reply_to"], json!(id));
        let mut body = message["body"].as_object().unwrap().clone();
        body.remove("msg_id");
        body.remove("in_reply_to");
        bodies.push(Value::Object(body));
    }
    assert_eq!(bodies.remove(0), json!({"type": "init_ok"}));
    bodies
}

/// SHA-256 of that text.
fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn echo_and_topology() {
    let echo = json!({"deep": [1, {"er": null}], "text": "\u{e9}\n"});
    assert_eq!(
        replies(&[
            json!({"type": "echo", "echo": echo}),
            json!({"type": "topology", "topology": {"n1": []}}),
        ]),
        [json!({"type": "echo_ok", "echo": echo}), json!({"type": "topology_ok"})]
    );
}

#[test]
fn broadcasts_are_read_sorted_and_once() {
    assert_eq!(
        replies(&[
            json!({"type": "topology", "topology": {}}),
            json!({"type": "read"}),
            json!({"type": "broadcast", "message": 10}),
            json!({"type": "broadcast", "message": 9}),
            json!({"type": "broadcast", "message": 10}),
            json!({"type": "broadcast", "message": -1}),
            json!({"type": "read"}),
        ])[1..],
        [
            json!({"type": "read_ok", "messages": []}),
            json!({"type": "broadcast_ok"}),
            json!({"type": "broadcast_ok"}),
            json!({"type": "broadcast_ok"}),
            json!({"type": "broadcast_ok"}),
            json!({"type": "read_ok", "messages": [-1, 9, 10]}),
        ]
    );
}

#[test]
fn a_g_set_is_read_as_a_value() {
    assert_eq!(
        replies(&[
            json!({"type": "add", "element": 3}),
            json!({"type": "add", "element": "text"}),
            json!({"type": "add", "element": 1}),
            json!({"type": "read"}),
        ])[2..],
        [json!({"type": "add_ok"}), json!({"type": "read_ok", "value": [1, 3, "text"]})]
    );
}

#[test]
fn a_read_before_anything_tells_the_workload_is_answered_with_messages_alone() {
    let read = json!({"type": "read"});
    let nothing = json!({"type": "read_ok", "messages": []});
    let nothing = std::slice::from_ref(&nothing);
    assert_eq!(replies(std::slice::from_ref(&read)), nothing);
    let asked = |workload| replies_with(&["--workload", workload], std::slice::from_ref(&read));
    for workload in ["broadcast", "echo", "unique-ids"] {
        assert_eq!(asked(workload), nothing, "{workload}");
    }
    assert_eq!(asked("g-set"), [json!({"type": "read_ok", "value": []})]);
    for workload in ["g-counter", "pn-counter"] {
        assert_eq!(asked(workload), [json!({"type": "read_ok", "value": 0})], "{workload}");
    }
}

#[test]
fn an_option_outweighs_what_a_request_tells() {
    let replies = replies_with(
        &["--workload", "g-set"],
        &[json!({"type": "topology", "topology": {}}), json!({"type": "read"})],
    );
    assert_eq!(replies[1], json!({"type": "read_ok", "value": []}));
}

#[test]
fn a_workload_that_there_is_none_of_is_a_mistake_in_the_arguments() {
    let output = Command::new(env!("CARGO_BIN_EXE_peer"))
        .args(["--maelstrom", "--workload", "lin-kv"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--workload") && said.contains("pn-counter"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_counter_sums_what_was_added() {
    let add = |delta: Value| json!({"type": "add", "delta": delta});
    let (ok, read) = (json!({"type": "add_ok"}), json!({"type": "read"}));
    let value = |value: i64| json!({"type": "read_ok", "value": value});
    for options in [&[][..], &["--workload", "pn-counter"]] {
        assert_eq!(
            replies_with(
                options,
                &[add(json!(3)), add(json!(0)), add(json!(-5)), add(json!(3)), read.clone()]
            ),
            [ok.clone(), ok.clone(), ok.clone(), ok.clone(), value(1)],
            "{options:?}"
        );
    }
    let grows = ["--workload", "g-counter"];
    let replies = replies_with(
        &grows,
        &[
            add(json!(7)),
            add(json!(-1)),
            add(json!(0.5)),
            add(json!("1")),
            json!({"type": "add", "element": 1}),
            read,
        ],
    );
    assert_eq!(replies[0], ok);
    for refused in &replies[1..5] {
        assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!(12)));
    }
    assert_eq!(replies[5], value(7), "what was refused is not in it");
}

#[test]
fn a_counter_refuses_what_goes_beyond_its_bounds() {
    let add = |delta: i64| json!({"type": "add", "delta": delta});
    let replies = replies(&[add(i64::MAX), add(1), json!({"type": "read"})]);
    assert_eq!(replies[1]["code"], 12, "{replies:?}");
    assert_eq!(replies[2]["value"], i64::MAX);
}

#[test]
fn generated_ids_are_unique_at_every_node_and_in_every_life() {
    let generate = vec![json!({"type": "generate"}); 100];
    let mut ids = std::collections::BTreeSet::new();
    for options in [&[][..], &["--workload", "unique-ids"]] {
        for reply in replies_with(options, &generate) {
            assert_eq!(reply["type"], "generate_ok");
            assert!(ids.insert(reply["id"].to_string()), "twice: {reply}");
        }
    }
}

#[test]
fn digests_and_their_comparison() {
    let (empty, both) = (sha256(""), sha256("1,2"));
    assert_eq!(
        replies(&[
            json!({"type": "digest"}),
            json!({"type": "gossip_sync", "messages": [2, 1, 2]}),
            json!({"type": "gossip_sync", "messages": [2, 1]}),
            json!({"type": "digest"}),
            json!({"type": "digest_sync", "remote_digest": both, "remote_messages": null}),
            json!({"type": "digest_sync", "remote_digest": empty, "remote_messages": null}),
            json!({"type": "digest_sync", "remote_digest": "00", "remote_messages": [2, 3]}),
            json!({"type": "digest"}),
        ]),
        [
            json!({"type": "digest_ok", "digest": empty, "count": 0}),
            json!({"type": "gossip_sync_ok", "new_count": 2}),
            json!({"type": "gossip_sync_ok", "new_count": 0}),
            json!({"type": "digest_ok", "digest": both, "count": 2}),
            json!({"type": "digest_sync_ok", "match": true, "transferred": 0}),
            json!({
                "type": "digest_sync_ok", "match": false, "transferred": 0, "local_messages": [1, 2],
            }),
            json!({
                "type": "digest_sync_ok", "match": false, "transferred": 1,
                // After merging: what the other side may take from it is all that is here.
                "local_messages": [1, 2, 3],
            }),
            json!({"type": "digest_ok", "digest": sha256("1,2,3"), "count": 3}),
        ]
    );
}

#[test]
fn statistics_count_what_was_asked_for() {
    let sync = |digest: String| json!({"type": "digest_sync", "remote_digest": digest});
    let all: Vec<u64> = (100..200).collect();
    let text: Vec<String> = all.iter().map(ToString::to_string).collect();
    let replies = replies(&[
        json!({"type": "stats"}),
        json!({"type": "gossip_sync", "messages": all}),
        sync(sha256(&text.join(","))),
        sync(sha256("else")),
        json!({"type": "gossip_round"}),
        json!({"type": "stats"}),
    ]);
    let nothing = json!({
        "type": "stats_ok", "rounds": 0, "digests_matched": 0, "messages_saved": 0, "bytes_saved": 0,
    });
    assert_eq!(replies[0], nothing);
    let round = json!({"type": "gossip_round_ok", "peers_contacted": 0, "messages_sent": 0});
    assert_eq!(replies[4], round, "a node alone has nobody to contact");
    assert_eq!(
        replies[5],
        json!({
            "type": "stats_ok", "rounds": 3, "digests_matched": 1, "messages_saved": 100,
            // A list of 100 numbers of three digits, against a digest.
            "bytes_saved": 100 * 4 + 1 - 64,
        })
    );
}

#[test]
fn a_round_goes_to_some_others_with_all_messages() {
    let round = |id| request(id, json!({"type": "gossip_round"}));
    let lines = [
        init(&["n2", "n3", "n4"]),
        round(2),
        request(3, json!({"type": "gossip_sync", "messages": [7, 8]})),
        round(4),
    ];
    let all = messages(&run(&["--fanout", "3"], &lines));
    let reply = |id: u64| all.iter().find(|message| message["body"]["in_reply_to"] == id).unwrap();
    assert_eq!(
        (&reply(2)["body"]["peers_contacted"], &reply(2)["body"]["messages_sent"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(
        (&reply(4)["body"]["peers_contacted"], &reply(4)["body"]["messages_sent"]),
        (&json!(3), &json!(6))
    );
    let mut told: Vec<&str> = all
        .iter()
        .filter(|message| message["body"]["type"] == "gossip_sync")
        .map(|message| {
            assert_eq!(message["body"]["messages"], json!([7, 8]));
            message["dest"].as_str().unwrap()
        })
        .collect();
    told.sort_unstable();
    assert_eq!(told, ["n2", "n3", "n4"]);
}

#[test]
fn mistakes_get_their_code_and_the_node_goes_on() {
    let codes: Vec<Value> = replies(&[
        json!({"type": "frobnicate"}),
        json!({"type": "broadcast"}),
        json!({"type": "echo"}),
        json!({"type": 7}),
        json!({}),
        json!({"type": "add"}),
        json!({"type": "gossip_sync", "messages": "all"}),
        json!({"type": "digest_sync"}),
        json!({"type": "digest_sync", "remote_digest": "", "remote_messages": 3}),
        json!({"type": "topology"}),
        json!({"type": "init", "node_id": "n9", "node_ids": ["n9"]}),
        json!({"type": "frames", "frames": 1}),
        json!({"type": "add", "delta": "1"}),
        json!({"type": "add", "delta": null}),
        json!({"type": "echo", "echo": "still there"}),
    ])
    .iter()
    .map(|body| body["code"].clone())
    .collect();
    let mut expected = vec![json!(10)];
    expected.extend(vec![json!(12); 13]);
    expected.push(Value::Null);
    assert_eq!(codes, expected);
}

#[test]
fn what_is_not_served_is_code_10_whatever_its_fields() {
    let lines = [
        init(&[]),
        request(2, json!({"type": "txn", "txn": [["r", 1, null]]})),
        request(3, json!({"type": "cas", "key": 1, "from": "a"})),
        // Not even a number by which it could be answered.
        json!({"src": "c1", "dest": "n1", "body": {"type": "send", "msg_id": "x"}}).to_string(),
        json!({"src": "c1", "dest": "n1", "body": {"type": "poll", "msg_id": -1}}).to_string(),
        json!({"src": "c1", "dest": "n1", "body": {"type": "read", "msg_id": -1}}).to_string(),
    ];
    let codes: Vec<Value> =
        messages(&run(&[], &lines))[1..].iter().map(|m| m["body"]["code"].clone()).collect();
    assert_eq!(codes, [10, 10, 10, 10, 12], "what is served has to be well-formed");
}

#[test]
fn what_is_no_message_is_told_on_stderr_and_skipped() {
    let garbage =
        ["", "not JSON", "7", "[]", "{}", r#"{"src":"c1","body":7}"#, "{\"src\":", "\u{1}"];
    let mut lines: Vec<String> = garbage.iter().map(ToString::to_string).collect();
    lines.insert(0, init(&[]));
    lines.push(request(2, json!({"type": "echo", "echo": 1})));
    let output = run(&[], &lines);
    assert_eq!(messages(&output).len(), 2);
    let told = String::from_utf8_lossy(&output.stderr).lines().count();
    assert_eq!(told, garbage.len() - 1, "a line for each but the empty one: {output:?}");
}

#[test]
fn what_comes_before_init_is_held() {
    let early = json!({
        "src": "n2", "dest": "n1", "body": {"type": "gossip_sync", "messages": [5], "msg_id": 9},
    });
    let lines = [
        early.to_string(),
        json!({"src": "n2", "dest": "n1", "body": {"type": "frames", "frames": [[2, true, "x", ""]]}})
            .to_string(),
        init(&["n2"]),
        request(2, json!({"type": "read"})),
    ];
    let output = run(&[], &lines);
    let types: Vec<Value> =
        messages(&output).iter().map(|message| message["body"]["type"].clone()).collect();
    assert_eq!(types[..3], ["init_ok", "gossip_sync_ok", "read_ok"]);
    assert!(messages(&run(&[], &lines[..1])).is_empty(), "and never answered without a name");
}

#[test]
fn answers_are_not_answered() {
    let answer = json!({
        "src": "n2", "dest": "n1",
        "body": {"type": "gossip_sync_ok", "new_count": 1, "msg_id": 1, "in_reply_to": 3},
    });
    assert_eq!(messages(&run(&[], &[init(&["n2"]), answer.to_string()])).len(), 1);
}
