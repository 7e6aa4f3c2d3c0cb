//! Who may ask over HTTP: the token, pages of other sites, names of this machine, kinds of bodies.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{Network, Node, raw_with, start};

const TOKEN: &str = "0123456789abcdef-a-token-for-tests";

/// A peer that listens for HTTP on loopback, with a token if one is given. It needs no seed to
/// answer.
fn peer(token: Option<&str>) -> (Node, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.txt"), "127.0.0.1:1\n").unwrap();
    let mut options = vec!["--gossip-count", "0", "--ephemeral"];
    if let Some(token) = token {
        write_token(&dir, token);
        options.extend(["--http-token-file", "token"]);
    }
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    (start(&dir, env!("CARGO_BIN_EXE_peer"), any, &options), dir)
}

fn write_token(dir: &TempDir, token: &str) {
    let path = dir.path().join("token");
    fs::write(&path, format!("{token}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The status, when an error is told in JSON with a reason, and 0 when it is not.
fn status(answer: (u16, String, String)) -> u16 {
    let (status, head, body) = answer;
    let told = serde_json::from_str::<Value>(&body).is_ok_and(|body| body["error"].is_string());
    let is_json = head.contains("content-type: application/json");
    if status < 400 || (told && is_json) { status } else { 0 }
}

#[test]
fn with_a_token_nothing_but_health_is_answered_to_who_does_not_show_it() {
    let mut network = Network::with_peers(0);
    write_token(&network.dir, TOKEN);
    network.seed.child.kill().unwrap();
    network.seed.child.wait().unwrap();
    let addr = network.seed.addr;
    let options = ["--http-token-file", "token"];
    network.seed = start(&network.dir, env!("CARGO_BIN_EXE_seed"), addr, &options);
    network.start_peer(&options);
    let right = format!("Authorization: Bearer {TOKEN}");
    let other_case = format!("authorization: bEARER   {TOKEN}");
    let wrong = format!("{right}x");
    let shorter = format!("Authorization: Bearer {}", &TOKEN[1..]);
    let basic = format!("Authorization: Basic {TOKEN}");
    let bare = format!("Authorization: {TOKEN}");
    for node in [&network.seed, &network.peers[0]] {
        let ask = |headers: &[&str], method: &str, path: &str| {
            let headers = [&["Host: localhost"], headers].concat();
            raw_with(node, (method, path), &headers, b"")
        };
        for path in ["/ready", "/metrics", "/members", "/events", "/kvs", "/kvs/k", "/", "/nothing"]
        {
            let twice = [right.as_str(), right.as_str()];
            let none: [&[&str]; 6] = [&[], &[&wrong], &[&shorter], &[&basic], &[&bare], &twice];
            for headers in none {
                let (status_was, head, body) = ask(headers, "GET", path);
                assert!(head.contains("www-authenticate: bearer\r"), "{path} {headers:?}: {head}");
                assert_eq!(status((status_was, head, body)), 401, "{path} {headers:?}");
            }
        }
        for method in ["PUT", "POST", "DELETE", "OPTIONS"] {
            assert_eq!(status(ask(&[], method, "/health")), 401, "{method} /health");
        }
        assert_eq!(ask(&[], "GET", "/health").2, "OK");
        for header in [&right, &other_case] {
            assert_eq!(ask(&[header], "GET", "/members").0, 200, "{header}");
            assert_eq!(ask(&[header], "GET", "/nothing").0, 404, "{header}");
        }
    }
}

#[test]
fn a_token_is_asked_for_before_a_body_is_read() {
    let (peer, _dir) = peer(Some(TOKEN));
    // The client announces a body and waits, as if the answer depended on it.
    let asked = Instant::now();
    let mut stream = TcpStream::connect(peer.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
        .write_all(b"PUT /kvs/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(asked.elapsed() < Duration::from_secs(2), "after {:?}", asked.elapsed());
    // A client that sends all of its body first, piece by piece, can do so and sees the answer.
    let mut stream = TcpStream::connect(peer.http).unwrap();
    write!(stream, "PUT /kvs/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 1 << 20)
        .unwrap();
    for piece in 0..64 {
        let sent = stream.write_all(&[b'x'; 1 << 14]);
        assert!(sent.is_ok(), "it hung up before piece {piece}: {sent:?}");
        // What is tried is a client that takes its time.
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}

/// What a browser says of a request, and whether it is let through.
const OF_BROWSERS: [(&[&str], bool); 21] = [
    (&["Host: localhost:8000"], true),
    (&["Host: localhost:8000", "Origin: http://localhost:8000"], true),
    (&["Host: LOCALHOST:8000", "Origin: http://localhost:8000"], true),
    (&["Host: localhost", "Origin: http://localhost:80"], true),
    (&["Host: localhost", "Origin: https://localhost"], true),
    (&["Host: [::1]:8000", "Origin: http://[::1]:8000"], true),
    (&["Host: localhost:8000", "Origin: http://localhost:8001"], false),
    (&["Host: localhost:8000", "Origin: http://127.0.0.1:8000"], false),
    (&["Host: localhost:8000", "Origin: http://localhost"], false),
    (&["Host: localhost:443", "Origin: http://localhost"], false),
    (&["Host: localhost:8000", "Origin: http://evil.example"], false),
    (&["Host: localhost:8000", "Origin: http://evil.example/localhost:8000"], false),
    (&["Host: localhost:8000", "Origin: null"], false),
    (&["Host: localhost:8000", "Origin: file://localhost:8000"], false),
    (&["Host: localhost:8000", "Origin:"], false),
    (&["Origin: http://localhost:8000"], false),
    (&["Host: localhost", "Sec-Fetch-Site: cross-site"], false),
    (&["Host: localhost", "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors"], false),
    (&["Host: localhost", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"], true),
    (&["Host: localhost", "Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"], true),
    (&["Host: localhost", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"], false),
];

#[test]
fn a_page_of_another_site_can_neither_read_nor_write() {
    let (peer, _dir) = peer(None);
    for (headers, passes) in OF_BROWSERS {
        for (method, path, body, done) in [
            ("GET", "/members", "", 200),
            ("GET", "/health", "", 200),
            ("POST", "/gossip", r#"{"payload": "x"}"#, 202),
            ("PUT", "/view", "", 409),
            ("DELETE", "/kvs/k", "", 404),
            ("OPTIONS", "/kvs/k", "", 405),
        ] {
            let expected = if passes { done } else { 403 };
            let answer = raw_with(&peer, (method, path), headers, body.as_bytes());
            let allowed = answer.1.contains("access-control-");
            assert!(!allowed, "{method} {path} {headers:?}: {}", answer.1);
            assert_eq!(status(answer), expected, "{method} {path} {headers:?}");
        }
    }
}

#[test]
fn a_user_may_follow_a_link_from_elsewhere_and_nothing_more() {
    let (peer, _dir) = peer(None);
    let elsewhere = ["Host: localhost", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"];
    let ask = |method: &str, dest: &[&str]| {
        let headers = [&elsewhere[..], dest].concat();
        status(raw_with(&peer, (method, "/members"), &headers, b""))
    };
    assert_eq!(ask("GET", &["Sec-Fetch-Dest: document"]), 200);
    assert_eq!(ask("GET", &[]), 200);
    // Shown within a page of another site, which could cover parts of it.
    for within in ["iframe", "frame", "object", "embed"] {
        assert_eq!(ask("GET", &[&format!("Sec-Fetch-Dest: {within}")]), 403, "{within}");
    }
    // The form of another site, sent by its user.
    assert_eq!(ask("POST", &["Sec-Fetch-Dest: document"]), 403);
    assert_eq!(ask("GET", &["Origin: http://evil.example"]), 403);
}

#[test]
fn a_body_that_calls_itself_anything_but_json_is_refused() {
    let (peer, _dir) = peer(None);
    let body = br#"{"payload": "x"}"#;
    for (kind, expected) in [
        ("application/json", 202),
        ("Application/JSON; charset=utf-8", 202),
        ("application/json;charset=utf-8", 202),
        ("text/plain", 415),
        ("text/plain;charset=UTF-8", 415),
        ("text/plain; application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/jsonp", 415),
        ("application/octet-stream", 415),
        ("", 415),
    ] {
        let kind = format!("Content-Type: {kind}");
        let headers = ["Host: localhost", &kind];
        let answer = raw_with(&peer, ("POST", "/gossip"), &headers, body);
        assert_eq!(status(answer), expected, "{kind:?}");
        let empty = raw_with(&peer, ("GET", "/members"), &headers, b"");
        assert_eq!(status(empty), 200, "{kind:?} of no body");
    }
    let twice = ["Host: localhost", "Content-Type: application/json", "Content-Type: text/plain"];
    assert_eq!(status(raw_with(&peer, ("POST", "/gossip"), &twice, body)), 415);
    assert_eq!(status(raw_with(&peer, ("POST", "/gossip"), &["Host: localhost"], body)), 202);
}

#[test]
fn on_loopback_without_a_token_no_name_that_others_could_have_made_up_is_answered() {
    let ((open, _dir), (closed, _other)) = (peer(None), peer(Some(TOKEN)));
    let right = format!("Authorization: Bearer {TOKEN}");
    for (host, is_local) in [
        ("127.0.0.1", true),
        ("127.0.0.1:8000", true),
        ("[::1]:8000", true),
        ("10.1.2.3:1", true),
        ("localhost", true),
        ("LocalHost:8000", true),
        ("evil.example", false),
        ("evil.example:8000", false),
        ("127.0.0.1.evil.example", false),
        ("localhost.evil.example", false),
        ("[evil.example]", false),
        ("", false),
        ("a b", false),
    ] {
        let host = format!("Host: {host}");
        for (method, path) in [("GET", "/health"), ("GET", "/members"), ("PUT", "/kvs/k")] {
            let was = status(raw_with(&open, (method, path), &[&host], b""));
            assert_eq!(was != 403, is_local, "{method} {path} {host:?}: {was}");
        }
        // A page elsewhere does not have the token.
        assert_eq!(status(raw_with(&closed, ("GET", "/members"), &[&host, &right], b"")), 200);
    }
    // What sends no name is no browser.
    assert_eq!(status(raw_with(&open, ("GET", "/members"), &[], b"")), 200);
    let twice = ["Host: localhost", "Host: evil.example"];
    assert_eq!(status(raw_with(&open, ("GET", "/members"), &twice, b"")), 403);
}
