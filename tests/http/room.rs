//! What a client may send: how many bytes of the store in all, how long a key, how long a head.

use serde_json::{Value, json};

use super::{Network, Node, ask, error, get, raw, raw_with, told, until};

fn bytes(node: &Node) -> u64 {
    let metrics = raw(node, "GET", "/metrics", b"").2;
    let line = metrics.lines().find_map(|line| line.strip_prefix("rumormill_store_bytes "));
    line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

/// A network of two peers; the first one is started with these options.
fn two(options: &[&str]) -> Network {
    let mut network = Network::with_peers(0);
    network.start_peer(options);
    network.start_peer(&[]);
    for peer in &network.peers {
        until(|| get(peer, "/members").1["neighbours"].as_array().is_some_and(|n| n.len() == 1));
    }
    network
}

#[test]
fn a_full_store_refuses_what_adds_to_it_and_nothing_else() {
    let network = two(&["--max-store-bytes", "10KiB"]);
    let [limited, other] = network.peers.as_slice() else { panic!("two peers") };
    let put = |node: &Node, key: &str, length: usize, seen: &Value| {
        let body = json!({"value": "x".repeat(length), "causal-metadata": seen});
        ask(node, "PUT", &format!("/kvs/{key}"), &body)
    };
    assert_eq!(bytes(limited), 0);
    let (status, body) = put(limited, "k", 5_000, &Value::Null);
    assert_eq!(status, 201, "{body}");
    let seen = body["causal-metadata"].clone();
    let full = "Store is full; delete keys or write shorter values, or start the peer with a greater \
                --max-store-bytes";
    let (answer, given) = told(put(limited, "new", 8_000, &seen));
    assert_eq!(answer, (507, error(full)));
    assert_eq!(given, seen, "it has seen nothing new");
    assert_eq!(told(put(limited, "k", 12_000, &seen)).0.0, 507, "it would grow");
    assert_eq!(get(limited, "/kvs").1, json!({"keys": ["k"]}));
    // Another replica may hold more, and what it has is taken.
    assert_eq!(put(other, "theirs", 20_000, &Value::Null).0, 201);
    until(|| get(limited, "/kvs/theirs").0 == 200);
    assert!((25_000..26_000).contains(&bytes(limited)), "{}", bytes(limited));
    let relayed = json!({"value": 1, "causal-metadata": {"r1": 1}});
    assert_eq!(ask(limited, "PUT", "/replica/kvs/relayed", &relayed).0, 200);
    // Now it is far beyond its limit, and can be put in order all the same.
    assert_eq!(put(limited, "k", 5_000, &Value::Null).0, 200);
    assert_eq!(put(limited, "k", 10, &Value::Null).0, 200);
    assert_eq!(put(limited, "k", 11, &Value::Null).0, 507);
    for key in ["theirs", "relayed"] {
        assert_eq!(ask(limited, "DELETE", &format!("/kvs/{key}"), &Value::Null).0, 200);
    }
    assert_eq!(put(limited, "k", 11, &Value::Null).0, 200, "there is room again");
    until(|| bytes(other) == bytes(limited));
    assert!(bytes(other) < 1_000, "{}", bytes(other));
}

#[test]
fn a_key_has_as_many_characters_as_its_peer_is_set_to() {
    let network = two(&["--max-key-bytes", "60"]);
    let [longer, usual] = network.peers.as_slice() else { panic!("two peers") };
    let path = |length: usize| format!("/kvs/{}", "%C3%BC".repeat(length));
    let put = |node: &Node, length: usize| ask(node, "PUT", &path(length), &json!({"value": 1}));
    let too_long = (400, error("Key is too long"));
    assert_eq!(put(longer, 60).0, 201, "characters, not bytes");
    assert_eq!(told(put(longer, 61)).0, too_long);
    assert_eq!(put(usual, 50).0, 201);
    assert_eq!(told(put(usual, 51)).0, too_long);
    assert_eq!(told(put(usual, 60)).0, too_long);
    // What another peer took is there all the same.
    until(|| get(usual, &path(60)).0 == 200);
    assert_eq!(ask(usual, "DELETE", &path(60), &Value::Null).0, 200);
    until(|| get(longer, &path(60)).0 == 404);
}

#[test]
fn the_head_of_a_request_has_a_bound_and_the_next_client_is_served() {
    let mut network = Network::with_peers(0);
    network.start_peer(&[]);
    let peer = &network.peers[0];
    let many = |count: usize, length: usize| -> Vec<String> {
        let host = std::iter::once("Host: localhost".to_owned());
        host.chain((0..count).map(|n| format!("X-{n}: {}", "x".repeat(length)))).collect()
    };
    for (headers, served) in [
        (many(60, 200), true),
        (many(1, 300_000), false),
        (many(90, 3_500), false),
        (many(200, 5), false),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let (status, _, body) = raw_with(peer, ("GET", "/health"), &headers, b"");
        // Who goes on sending may find the connection closed before it has read why.
        let expected: &[u16] = if served { &[200] } else { &[431, 0] };
        assert!(expected.contains(&status), "{} headers: {status} {body}", headers.len());
        assert_eq!(get(peer, "/members").0, 200, "others are served");
    }
}
