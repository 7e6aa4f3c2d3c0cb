//! The HTTP API as a client meets it: every row of CONTRACT.md, section 3, against real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpSocket;

#[path = "store/http1.rs"]
mod http1;

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
    let mut stream = TcpStream::connect(node.http).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
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
    // Who has seen nothing of a key deletes nothing of it.
    let nothing = json!({ "causal-metadata": {} });
    assert_eq!(ask(one, "DELETE", "/kvs/k", &nothing), (404, error("Key does not exist")));
    assert_eq!(get(one, "/kvs/k").0, 200);
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
    assert_eq!(ask(other, "GET", "/kvs/k", &seen), (404, error("Key does not exist")));
    assert_eq!(ask(other, "DELETE", "/kvs/k", &seen), (404, error("Key does not exist")));
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
    assert_eq!(put(&format!("/kvs/{long}k"), &json!({"value": 1})), too_long);
    let none = (400, error("PUT request does not specify a value"));
    assert_eq!(put("/kvs/k", &json!({"value": null})), none);
    assert_eq!(put("/kvs/k", &json!({})), none);
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
        .write_all(b"PUT /kvs/k HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
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
        json!({"127.0.0.1:1@5": 1}),
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
    // A key may even be called what a path is.
    assert_eq!(put("/kvs/sync", &json!({"value": 1})).0, 201);
    assert_eq!(get(peer, "/kvs/sync").1["store"]["sync"], 1);
    assert_eq!(ask(peer, "DELETE", "/kvs/sync", &Value::Null).0, 200);
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
    // Of a peer that the seed knows, and a write of it that there never was.
    let metadata = json!({ format!("{}@9", answers.addr): 7 });
    let expected = error("Causal dependencies not satisfied; try again later");
    for (peer, at_least) in [(waits, Duration::from_millis(900)), (answers, Duration::ZERO)] {
        let asked = Instant::now();
        let body = json!({"value": 1, "causal-metadata": metadata}).to_string();
        let (status, head, body) = raw(peer, "PUT", "/kvs/k", body.as_bytes());
        assert_eq!((status, serde_json::from_str(&body).unwrap()), (503, expected.clone()));
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
fn members_gossip_and_health_are_there_for_whoever_asks() {
    let network = Network::with_peers(3);
    let (seed, peer) = (&network.seed, &network.peers[0]);
    for node in [seed, peer] {
        let (status, head, body) = raw(node, "GET", "/health", b"");
        assert_eq!((status, body.as_str()), (200, "OK"));
        assert!(head.contains("text/plain"), "{head}");
        assert_eq!(raw(node, "GET", "/ready", b"").0, 200);
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
        write!(stream, "GET /events HTTP/1.1\r\nHost: x\r\n{resume}\r\n").unwrap();
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
