//! The HTTP API as a client meets it: every row of CONTRACT.md, section 3, against real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpSocket;

#[path = "http/access.rs"]
mod access;
#[path = "store/http1.rs"]
mod http1;
#[path = "http/room.rs"]
mod room;

const PATIENCE: Duration = Duration::from_secs(30);

/// A process with an API.
struct Node {
    child: Child,
    addr: SocketAddr,
    http: SocketAddr,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One seed and some peers.
struct Network {
    peers: Vec<Node>,
    seed: Node,
    dir: tempfile::TempDir,
    /// Keeps the seed's port.
    _reserved: TcpSocket,
}

fn start(dir: &tempfile::TempDir, program: &str, addr: SocketAddr, options: &[&str]) -> Node {
    let mut child = Command::new(program)
        .args([&addr.ip().to_string(), &addr.port().to_string(), "config.txt"])
        .args(["--http", "127.0.0.1:0"])
        .args(options)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains(" http listening ")).expect("it says where");
    let addr = line.split(' ').nth(3).unwrap().parse().unwrap();
    let http = line.rsplit_once("http=").unwrap().1.parse().unwrap();
    // Somebody has to take what it goes on to say.
    std::thread::spawn(move || lines.for_each(drop));
    Node { child, addr, http }
}

impl Network {
    fn with_peers(count: usize) -> Self {
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = reserved.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.txt"), format!("{addr}\n")).unwrap();
        let seed = start(&dir, env!("CARGO_BIN_EXE_seed"), addr, &[]);
        let mut network = Self { peers: Vec::new(), seed, dir, _reserved: reserved };
        for _ in 0..count {
            network.start_peer(&[]);
        }
        for peer in &network.peers {
            until(|| {
                let members = get(peer, "/members").1;
                let count = |key: &str| members[key].as_array().map_or(0, Vec::len);
                raw(peer, "GET", "/ready", b"").0 == 200
                    && (count("members"), count("neighbours"))
                        == (network.peers.len(), network.peers.len() - 1)
            });
        }
        network
    }

    fn start_peer(&mut self, options: &[&str]) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = [&["--gossip-count", "0"], options].concat();
        self.peers.push(start(&self.dir, env!("CARGO_BIN_EXE_peer"), any, &options));
    }
}

fn until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Status, headers and body of one request.
fn raw(node: &Node, method: &str, path: &str, body: &[u8]) -> (u16, String, String) {
    raw_with(node, (method, path), &["Host: localhost"], body)
}

/// The same with these headers.
fn raw_with(
    node: &Node,
    (method, path): (&str, &str),
    headers: &[&str],
    body: &[u8],
) -> (u16, String, String) {
    let mut stream = TcpStream::connect(node.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that has seen enough may hang up before all is written.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let (head, body) = http1::split(&answer).unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or("0").parse().unwrap();
    (status, head, body)
}

fn ask(node: &Node, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let (status, _, body) = raw(node, method, path, text.as_bytes());
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

fn get(node: &Node, path: &str) -> (u16, Value) {
    ask(node, "GET", path, &Value::Null)
}

fn error(what: &str) -> Value {
    json!({ "error": what })
}

/// What an error of the store says, and the metadata that it brings like any other answer.
fn told((status, mut body): (u16, Value)) -> ((u16, Value), Value) {
    let metadata = body.as_object_mut().and_then(|body| body.remove("causal-metadata"));
    let metadata = metadata.unwrap_or_else(|| panic!("{status} {body} has no causal-metadata"));
    ((status, body), metadata)
}

#[test]
fn the_store_answers_as_the_contract_says() {
    let network = Network::with_peers(3);
    let (one, other) = (&network.peers[0], &network.peers[1]);
    let (status, body) = ask(one, "PUT", "/kvs/k", &json!({"value": 1, "causal-metadata": null}));
    assert_eq!((status, &body["result"]), (201, &json!("created")), "{body}");
    let first = body["causal-metadata"].clone();
    let (status, body) =
        ask(one, "PUT", "/kvs/k", &json!({"value": {"a": [1]}, "causal-metadata": first}));
    assert_eq!((status, &body["result"]), (200, &json!("replaced")), "{body}");
    let seen = body["causal-metadata"].clone();
    // At another replica it waits for what the client has seen.
    let (status, body) = ask(other, "GET", "/kvs/k", &json!({ "causal-metadata": seen }));
    assert_eq!(
        (status, &body["result"], &body["value"]),
        (200, &json!("found"), &json!({"a": [1]}))
    );
    assert_eq!(body.get("siblings"), None);
    assert!(body["causal-metadata"].is_object());
    // Who has seen nothing of a key deletes nothing of it, and is shown what there is.
    let nothing = json!({ "causal-metadata": {} });
    let (answer, given) = told(ask(one, "DELETE", "/kvs/k", &nothing));
    let mut unseen = error("Key has values that this client has not seen");
    unseen["value"] = json!({"a": [1]});
    assert_eq!(answer, (409, unseen));
    assert_eq!(get(one, "/kvs/k").1["causal-metadata"], given);
    // Two clients that have seen the same write beside each other.
    for (at, value) in [(one, "x"), (other, "y")] {
        let put = json!({"value": value, "causal-metadata": seen});
        assert_eq!(ask(at, "PUT", "/kvs/k", &put).0, 200);
    }
    until(|| get(one, "/kvs/k").1["siblings"].as_array().is_some_and(|all| all.len() == 2));
    let (_, body) = get(one, "/kvs/k");
    assert_eq!(body["siblings"][0], body["value"], "the one shown first");
    let put = json!({"value": "z", "causal-metadata": body["causal-metadata"]});
    let (_, body) = ask(one, "PUT", "/kvs/k", &put);
    let (_, read) =
        ask(other, "GET", "/kvs/k", &json!({"causal-metadata": body["causal-metadata"]}));
    assert_eq!((&read["value"], read.get("siblings")), (&json!("z"), None));
    let (status, body) = ask(one, "DELETE", "/kvs/k", &Value::Null);
    assert_eq!((status, &body["result"]), (200, &json!("deleted")));
    let seen = json!({"causal-metadata": body["causal-metadata"]});
    let gone = (404, error("Key does not exist"));
    assert_eq!(told(ask(other, "GET", "/kvs/k", &seen)).0, gone);
    assert_eq!(told(ask(other, "DELETE", "/kvs/k", &seen)).0, gone);
}

#[test]
fn every_error_of_the_store_hands_on_what_its_client_has_seen() {
    let network = Network::with_peers(1);
    let peer = &network.peers[0];
    let brought = get_metadata(ask(peer, "PUT", "/kvs/seen", &json!({"value": 1})));
    let long = format!("/kvs/{}", "k".repeat(51));
    for (method, path, mut body, status) in [
        ("PUT", "/kvs/k", json!({}), 400),
        ("PUT", &long, json!({"value": 1}), 400),
        ("GET", "/kvs/%ff", json!({}), 400),
        ("GET", "/kvs/k", json!({}), 404),
        ("DELETE", "/kvs/k", json!({}), 404),
        ("PUT", "/replica/kvs/k", json!({"value": 1}), 503),
    ] {
        body["causal-metadata"] = brought.clone();
        if status == 503 {
            body["causal-metadata"] = json!({"r1": 2});
        }
        let expected = body["causal-metadata"].clone();
        let ((was, _), given) = told(ask(peer, method, path, &body));
        assert_eq!((was, given), (status, expected), "{method} {path}");
    }
    let ((status, _), given) = told(ask(peer, "PUT", "/kvs/k", &json!([])));
    assert_eq!((status, given), (400, Value::Null), "there was nothing to hand on");
}

fn get_metadata((status, body): (u16, Value)) -> Value {
    assert!(body["causal-metadata"].is_object(), "{status} {body}");
    body["causal-metadata"].clone()
}

#[test]
fn what_would_be_ignored_is_refused() {
    let network = Network::with_peers(1);
    let (seed, peer) = (&network.seed, &network.peers[0]);
    let refused = |node: &Node, method: &str, path: &str, body: &Value, name: &str| {
        let (status, answer) = ask(node, method, path, body);
        let says = answer["error"].as_str().is_some_and(|what| what.contains(name));
        assert!(status == 400 && says, "{method} {path} {body}: {status} {answer}");
        answer
    };
    for (method, path, body) in [
        ("PUT", "/kvs/k", json!({"value": 1, "ttl": 5})),
        ("PUT", "/kvs/k", json!({"value": 1, "casual-metadata": {}, "ttl": 5})),
        ("GET", "/kvs/k", json!({"ttl": 1})),
        ("DELETE", "/kvs/k", json!({"ttl": 1})),
        ("PUT", "/replica/kvs/k", json!({"value": 1, "causal-metadata": {"r1": 1}, "ttl": 1})),
        ("POST", "/gossip", json!({"payload": "x", "ttl": 1})),
        ("GET", "/members", json!({"ttl": 1})),
        ("GET", "/kvs", json!({"ttl": 1})),
    ] {
        let name = if body.get("casual-metadata").is_some() { "casual-metadata" } else { "ttl" };
        refused(peer, method, path, &body, name);
    }
    for path in ["/health", "/ready", "/metrics", "/members", "/events"] {
        for node in [seed, peer] {
            refused(node, "GET", &format!("{path}?prefixx=a"), &Value::Null, "prefixx");
        }
    }
    let paths = ["/kvs", "/kvs/k", "/kvs/sync", "/gossip", "/view"];
    for path in paths {
        refused(peer, "GET", &format!("{path}?prefixx=a"), &Value::Null, "prefixx");
    }
    refused(seed, "GET", "/topology?format=dot&formatt=json", &Value::Null, "formatt");
    assert_eq!(raw(seed, "GET", "/topology?format=dot", b"").0, 200);
    let told =
        refused(peer, "PUT", "/kvs/k?ttl=5", &json!({"value": 1, "causal-metadata": {}}), "ttl");
    assert_eq!(told["causal-metadata"], json!({}), "this is an error of the store, too");
    // What does not come back as it was given is not taken.
    for number in ["18446744073709551617", "1e-400", "1e400", "0.1000000000000000000001"] {
        let body = format!("{{\"value\": [{number}]}}");
        let (status, _, answer) = raw(peer, "PUT", "/kvs/k", body.as_bytes());
        assert_eq!(status, 400, "{number}: {answer}");
    }
    assert_eq!(raw(peer, "PUT", "/kvs/k", br#"{"value": {"a": 1, "a": 2}}"#).0, 400);
    assert_eq!(get(peer, "/kvs/k").0, 404, "nothing of that was written");
    let kept = br#"{"value": [18446744073709551615, 2.2250738585072014e-308, 0.1]}"#;
    assert_eq!(raw(peer, "PUT", "/kvs/k", kept).0, 201);
    let (_, _, back) = raw(peer, "GET", "/kvs/k", b"");
    assert!(back.contains("[18446744073709551615,2.2250738585072014e-308,0.1]"), "{back}");
}

/// All that is answered to some bytes, and until the connection ends.
fn answered(node: &Node, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    // Hung up on before all was read, a client is told so as well.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_condition_that_is_not_looked_at_is_not_ignored() {
    let network = Network::with_peers(1);
    let peer = &network.peers[0];
    for condition in [
        "If-Match: \"x\"",
        "If-None-Match: *",
        "If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT",
        "If-Unmodified-Since: Sat, 29 Oct 1994 19:43:31 GMT",
        "If-Range: \"x\"",
    ] {
        let body = r#"{"value": 1, "causal-metadata": {}}"#;
        let answer = answered(
            peer,
            format!(
                "PUT /kvs/k HTTP/1.1\r\nHost: localhost\r\n{condition}\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 501 "), "{condition}: {answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body: Value = serde_json::from_str(body).unwrap();
        assert!(body["error"].is_string() && body["causal-metadata"] == json!({}), "{body}");
    }
    assert_eq!(get(peer, "/kvs/k").0, 404);
}

#[test]
fn what_is_no_request_is_told_so_in_json() {
    let network = Network::with_peers(1);
    let long = "x".repeat(70_000);
    let many: String = (0..200).map(|n| format!("h{n}: x\r\n")).collect();
    for (status, request) in [
        (400, "GET / HTTP/9.9\r\n\r\n".to_owned()),
        (400, "this is nothing\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nno header\r\n\r\n".to_owned()),
        (414, format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\n{many}\r\n")),
    ] {
        for node in [&network.seed, &network.peers[0]] {
            let answer = answered(node, request.as_bytes());
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.40}: {answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let told: Value = serde_json::from_str(body).unwrap_or_default();
            assert!(told["error"].is_string(), "{request:.40}: {answer}");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        }
    }
}

/// A client reads a key where it is deleted and then where it still stands: there it is told to wait.
#[test]
fn who_was_told_that_a_key_is_gone_is_not_served_where_it_still_stands() {
    let (here, elsewhere) = (Network::with_peers(1), Network::with_peers(1));
    // Replicas that never hear of each other, as if the link between them was cut before the delete.
    let (a, b) = (&here.peers[0], &elsewhere.peers[0]);
    let written = json!({"value": 1, "causal-metadata": {"r1": 1}});
    for at in [a, b] {
        assert_eq!(ask(at, "PUT", "/replica/kvs/k", &written).0, 200);
    }
    let seen = get_metadata(get(b, "/kvs/k"));
    assert_eq!(ask(a, "DELETE", "/kvs/k", &Value::Null).0, 200);
    for method in ["GET", "DELETE"] {
        let (answer, given) = told(ask(a, method, "/kvs/k", &json!({ "causal-metadata": seen })));
        assert_eq!(answer, (404, error("Key does not exist")));
        let (status, body) = ask(b, "GET", "/kvs/k", &json!({ "causal-metadata": given }));
        assert_eq!(status, 503, "after {method} with 404: {body}");
    }
}

#[test]
fn keys_and_values_may_be_anything_within_their_bounds() {
    let network = Network::with_peers(2);
    let peer = &network.peers[0];
    let put = |path: &str, body: &Value| ask(peer, "PUT", path, body);
    assert_eq!(put("/kvs/%C3%BC%2F%20%22%3Cb%3E", &json!({"value": "<script>"})).0, 201);
    assert_eq!(get(peer, "/kvs").1, json!({"keys": ["ü/ \"<b>"]}));
    assert_eq!(get(peer, "/kvs/%C3%BC%2F%20%22%3Cb%3E").1["value"], "<script>");
    let long = "k".repeat(50);
    assert_eq!(put(&format!("/kvs/{long}"), &json!({"value": false})).0, 201);
    let too_long = (400, error("Key is too long"));
    assert_eq!(told(put(&format!("/kvs/{long}k"), &json!({"value": 1}))).0, too_long);
    let none = (400, error("PUT request does not specify a value"));
    assert_eq!(told(put("/kvs/k", &json!({"value": null}))).0, none);
    assert_eq!(told(put("/kvs/k", &json!({}))).0, none);
    let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(put("/kvs/deep", &json!({"value": nested(64)})).0, 201);
    assert_eq!(put("/kvs/deep", &json!({"value": nested(65)})).0, 400);
    assert_eq!(raw(peer, "PUT", "/kvs/k", b"{").0, 400);
    let big = json!({"value": "x".repeat(1 << 20)}).to_string();
    assert_eq!(raw(peer, "PUT", "/kvs/k", big.as_bytes()).0, 413);
    // One that is announced and does not come is not waited for.
    let mut stream = TcpStream::connect(peer.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream
        .write_all(b"PUT /kvs/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("{\"error\":"), "{answer}");
    // What is no UTF-8 is refused as everything else is.
    for (method, path) in [("PUT", "/kvs/%ff"), ("GET", "/kvs/%ff"), ("DELETE", "/replica/kvs/%ff")]
    {
        let (status, body) = ask(peer, method, path, &json!({"value": 1}));
        assert!(status == 400 && body["error"].is_string(), "{path}: {status} {body}");
    }
    let own = get(peer, &format!("/kvs/{long}")).1["causal-metadata"].clone();
    let own = own.as_object().unwrap().keys().next().unwrap().clone();
    for metadata in [
        json!([]),
        json!("x"),
        json!({"a": -1}),
        json!({"nobody": 1}),
        json!({"127.0.0.1:1@": 1}),
        json!({"127.0.0.1:1@05": 1}),
        json!({"127.0.0.1:99999@5": 1}),
        json!({"a": 1e99}),
        json!({ &own: u64::MAX }),
        json!({ &own: 1.5 }),
        json!({ &own: "1" }),
        json!({ format!("{own}#x"): 1 }),
    ] {
        let (status, body) = put("/kvs/k", &json!({"value": 1, "causal-metadata": metadata}));
        assert!(status == 400 && body["error"].is_string(), "{metadata}: {status} {body}");
    }
    assert_eq!(get(peer, "/kvs/k").0, 404, "nothing of that was written");
    // At that path the whole store is read, and no key.
    for (method, path) in [
        ("PUT", "/kvs/sync"),
        ("PUT", "/kvs/s%79nc"),
        ("DELETE", "/kvs/sync"),
        ("PUT", "/replica/kvs/sync"),
    ] {
        let body = if method == "PUT" { json!({"value": 1}) } else { json!({}) };
        assert_eq!(
            told(ask(peer, method, path, &body)).0,
            (400, error("Key is reserved")),
            "{path}"
        );
    }
    let (_, sync) = get(peer, "/kvs/sync");
    assert_eq!(sync["store"].as_object().unwrap().len(), 3);
    let version = &sync["versions"][&long][0];
    // printf false | sha256sum
    let cid = "fcbcf165908dd18a9e49f7ff27810176db8e9f63b4352213741664245224f8aa";
    assert_eq!((&version["cid"], &version["value"]), (&json!(cid), &json!(false)), "{version}");
    for key in ["vc", "lamport", "node_id", "ts"] {
        assert!(!version[key].is_null(), "{key} in {version}");
    }
    assert!(sync["vector_clock"].is_object());
}

#[test]
fn metadata_from_the_future_is_answered_with_503_in_time() {
    let mut network = Network::with_peers(1);
    network.start_peer(&["--causal-wait", "0s"]);
    let [waits, answers] = network.peers.as_slice() else { panic!("two peers") };
    until(|| get(waits, "/view").1["view"].as_array().is_some_and(|view| view.len() == 2));
    // Of a peer that the seed knows a write that there never was, and one of a replica that nobody has
    // heard of: both may be on their way.
    for metadata in [
        json!({ format!("{}@9", answers.addr): 7 }),
        json!({"127.0.0.1:1@5": 1}),
        json!({"127.0.0.1:1@5": 1, "127.0.0.1:1@5#3": 3, "127.0.0.1:2@5^": 1}),
    ] {
        is_behind(waits, answers, &metadata);
    }
}

fn is_behind(waits: &Node, answers: &Node, metadata: &Value) {
    let expected = error("Causal dependencies not satisfied; try again later");
    for (peer, at_least) in [(waits, Duration::from_millis(900)), (answers, Duration::ZERO)] {
        let asked = Instant::now();
        let body = json!({"value": 1, "causal-metadata": metadata}).to_string();
        let (status, head, body) = raw(peer, "PUT", "/kvs/k", body.as_bytes());
        let body = serde_json::from_str(&body).unwrap();
        assert_eq!(told((status, body)), ((503, expected.clone()), metadata.clone()));
        assert!(head.contains("retry-after: 1"), "{head}");
        assert!(asked.elapsed() >= at_least && asked.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_relayed_write_is_taken_when_its_past_is_here() {
    let network = Network::with_peers(1);
    let peer = &network.peers[0];
    let relay = |method: &str, body: Value| ask(peer, method, "/replica/kvs/k", &body);
    let put =
        |value: &str, clock: Value| relay("PUT", json!({"value": value, "causal-metadata": clock}));
    assert_eq!(put("a", json!({"r1": 1})), (200, json!({"result": "updated"})));
    assert_eq!(put("a", json!({"r1": 1})), (200, json!({"result": "updated"})));
    assert_eq!(put("c", json!({"r1": 3})).0, 503);
    assert_eq!(put("c", json!({"r1": 1, "r2": 1, "r3": 1})).0, 503);
    assert_eq!(put("b", json!({"r1": 1, "r2": 1})).0, 200);
    assert_eq!(get(peer, "/kvs/k").1["value"], "b");
    let clock = json!({"causal-metadata": {"r1": 2, "r2": 1}});
    assert_eq!(relay("DELETE", clock), (200, json!({"result": "deleted"})));
    assert_eq!(get(peer, "/kvs/k").0, 404);
    assert_eq!(put("x", json!({})).0, 400);
    // printf '"x"' | sha256sum
    let cid = "ba2df4903a2c14e86dc3bcca58911b44ac1d2514b7227bf6eb08cfb978f55a1b";
    let with =
        |cid: &str| relay("PUT", json!({"value": "x", "cid": cid, "causal-metadata": {"r4": 1}})).0;
    assert_eq!(with(&cid.replace('b', "c")), 400);
    assert_eq!(get(peer, "/kvs/k").0, 404, "refused");
    let log = fs::read_to_string(network.dir.path().join("outputfile.txt")).unwrap();
    assert!(
        log.contains("write refused key=k reason=\"the cid is not that of the value\""),
        "{log}"
    );
    assert_eq!(with(cid), 200);
}

#[test]
fn a_relayed_write_that_no_replica_makes_goes_no_further() {
    let network = Network::with_peers(2);
    let [peer, other] = network.peers.as_slice() else { panic!("two peers") };
    let many: serde_json::Map<String, Value> =
        (0..7_000).map(|n| (format!("{n:0>128}"), json!(1))).collect();
    let clocks = [
        json!({"r".repeat(129): 1}),
        json!({"": 1}),
        json!({"r1": 9_007_199_254_740_992_u64}),
        json!({"r1": 1, "r".repeat(129): 1}),
        Value::Object(many),
    ];
    for clock in clocks {
        let text = clock.to_string();
        let body = json!({"value": "x", "causal-metadata": clock});
        let (status, body) = ask(peer, "PUT", "/replica/kvs/k", &body);
        assert_eq!(status, 400, "{body} for {text:.60}");
    }
    assert_eq!(get(peer, "/kvs/k").0, 404);
    // And the links are what they were.
    ask(peer, "PUT", "/kvs/after", &json!({"value": 1}));
    until(|| get(other, "/kvs/after").0 == 200);
    let log = fs::read_to_string(network.dir.path().join("outputfile.txt")).unwrap();
    assert!(!log.contains("link closed") && !log.contains("write refused"), "{log}");
}

#[test]
fn a_peer_that_its_seeds_refuse_is_not_ready_and_one_that_hears_from_none_is() {
    let mut network = Network::with_peers(2);
    let seed = network.seed.addr;
    network.seed.child.kill().unwrap();
    network.seed.child.wait().unwrap();
    until(|| get(&network.peers[0], "/ready").1["seeds_reachable"] == json!(0));
    let (status, body) = get(&network.peers[0], "/ready");
    assert_eq!((status, &body["ready"]), (200, &json!(true)), "{body}");
    // It comes back in another network: its list of seeds has one more.
    fs::write(network.dir.path().join("config.txt"), format!("{seed}\n127.0.0.1:1\n")).unwrap();
    network.seed = start(&network.dir, env!("CARGO_BIN_EXE_seed"), seed, &[]);
    until(|| get(&network.peers[0], "/ready").0 == 503);
    let (_, body) = get(&network.peers[0], "/ready");
    assert_eq!((&body["ready"], &body["of"]), (&json!(false), &json!(1)));
    assert!(body["reason"].as_str().unwrap().contains("seed list differs"), "{body}");
}

#[test]
fn members_gossip_and_health_are_there_for_whoever_asks() {
    let network = Network::with_peers(3);
    let (seed, peer) = (&network.seed, &network.peers[0]);
    for node in [seed, peer] {
        let (status, head, body) = raw(node, "GET", "/health", b"");
        assert_eq!((status, body.as_str()), (200, "OK"));
        assert!(head.contains("text/plain"), "{head}");
        let (status, body) = get(node, "/ready");
        let told = [&body["ready"], &body["seeds_reachable"], &body["of"]];
        assert_eq!((status, told), (200, [&json!(true), &json!(1), &json!(1)]), "{body}");
        let (_, head, metrics) = raw(node, "GET", "/metrics", b"");
        assert!(head.contains("openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
        let of_ours = |line: &str| line.starts_with('#') || line.starts_with("rumormill_");
        assert!(metrics.lines().all(of_ours), "{metrics}");
        let (_, body) = get(node, "/members");
        let members = body["members"].as_array().unwrap();
        assert_eq!(members.len(), 3);
        let of = members.iter().find(|m| m["address"] == json!(peer.addr)).unwrap();
        assert_eq!(of["status"], "alive");
        assert!(of["incarnation"].is_u64() && of["joined"].is_string(), "{of}");
        assert_eq!(get(node, "/nothing"), (404, error("no such path")));
        let (status, body) = ask(node, "POST", "/health", &Value::Null);
        assert!(status == 405 && body["error"].is_string(), "{status} {body}");
    }
    let (_, body) = get(seed, &format!("/members/{}", peer.addr));
    assert_eq!(
        (&body["status"], &body["history"][0]["change"]),
        (&json!("alive"), &json!("registration"))
    );
    assert_eq!(body["history"][0]["votes"][0]["reason"], "answered the dial-back");
    assert_eq!(get(seed, "/members/127.0.0.1:1").0, 404);
    assert_eq!(get(seed, "/members/x").0, 400);
    until(|| get(seed, "/topology").1["links"].as_array().is_some_and(|links| links.len() == 3));
    let (_, _, dot) = raw(seed, "GET", "/topology?format=dot", b"");
    assert!(dot.starts_with("graph ") && dot.matches(" -- ").count() == 3, "{dot}");
    let (status, body) = ask(peer, "POST", "/gossip", &json!({"payload": "hear, hear"}));
    assert_eq!(status, 202);
    let id = body["id"].clone();
    assert_eq!(id.as_str().unwrap().len(), 64);
    for other in &network.peers {
        let has =
            |m: &Value| m["id"] == id && m["message"] == "hear, hear" && m["received"].is_string();
        until(|| get(other, "/gossip").1["messages"].as_array().unwrap().iter().any(has));
    }
    assert_eq!(ask(peer, "POST", "/gossip", &json!({"payload": 1})).0, 400);
    assert_eq!(get(peer, "/view").1["view"].as_array().unwrap().len(), 3);
    for method in ["PUT", "DELETE"] {
        assert_eq!(ask(peer, method, "/view", &json!({"socket-address": "127.0.0.1:1"})).0, 409);
    }
}

#[test]
fn the_log_can_be_followed_and_resumed() {
    let network = Network::with_peers(1);
    let peer = &network.peers[0];
    let follow = |last: Option<u64>| {
        let mut stream = TcpStream::connect(peer.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let resume = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert!(lines.by_ref().any(|line| line.to_lowercase().contains("text/event-stream")));
        let (mut id, start) = (0, Instant::now());
        // Comments go on for as long as nothing happens.
        lines.take_while(move |_| start.elapsed() < PATIENCE).filter_map(move |line| {
            if let Some(number) = line.strip_prefix("id: ") {
                id = number.parse::<u64>().unwrap();
            }
            let data = line.strip_prefix("data: ")?;
            Some((id, serde_json::from_str::<Value>(data).unwrap()))
        })
    };
    // From the first line on, also for whoever resumes from a former life.
    let first: Vec<Value> =
        follow(Some(1)).take(2).map(|(_, line)| line["event"].clone()).collect();
    assert_eq!(first, ["http listening", "listening"]);
    let mut events = follow(None);
    ask(peer, "POST", "/gossip", &json!({"payload": "one two"}));
    let (id, event) = events.next().unwrap();
    assert_eq!((&event["event"], &event["message"]), (&json!("gossip sent"), &json!("one two")));
    assert_eq!((&event["who"], &event["address"]), (&json!("peer"), &json!(peer.addr)));
    ask(peer, "POST", "/gossip", &json!({"payload": "three"}));
    let (next, event) = follow(Some(id)).next().unwrap();
    assert_eq!((next, &event["message"]), (id + 1, &json!("three")));
    // A number of the future is nobody's mistake but the client's.
    let _ = follow(Some(u64::MAX));
    assert_eq!(raw(peer, "GET", "/health", b"").0, 200);
}
