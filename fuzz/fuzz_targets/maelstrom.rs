//! The lines of a Maelstrom node.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rumormill::maelstrom::{DEFAULT_BATCH, Node, Options};
use rumormill::proto::time::Time;

const INIT: &str =
    r#"{"src":"c1","dest":"n1","body":{"type":"init","msg_id":1,"node_id":"n1","node_ids":["n1","n2","n3"]}}"#;

fuzz_target!(|data: &[u8]| {
    let mut node = Node::new(Options::new(DEFAULT_BATCH), 1);
    let (mut now, mut out) = (Time::from_millis(1_000_000), Vec::new());
    let text = String::from_utf8_lossy(data);
    if text.starts_with('+') {
        node.line(now, INIT, &mut out);
    }
    for line in text.trim_start_matches('+').lines().take(64) {
        node.line(now, line, &mut out);
        now = now + Duration::from_millis(50);
        node.tick(now, &mut out);
        out.clear();
    }
    node.end(now, &mut out);
});
