//! One client cannot take HTTP from everybody.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::programs::{Place, Running};

/// A seed with HTTP, and where that is.
fn seed(place: &Place) -> (Running, SocketAddr) {
    let line = format!("ulimit -n 4096; {}", place.seed_line("--ephemeral --http 127.0.0.1:0"));
    let seed = Running(place.sh(&line).spawn().unwrap());
    let http = seed.until("it says where HTTP is", || {
        let log = place.log();
        let line = log.lines().find(|line| line.contains("http listening"));
        line.and_then(|line| line.rsplit_once("http=")?.1.trim().parse().ok())
    });
    (seed, http)
}

/// A connection from that address of this machine.
fn from(ip: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Many requests that do not end.
fn half_open(ip: &str, to: SocketAddr, many: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = from(ip, to);
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost:");
        stream
    };
    (0..many).map(open).collect()
}

fn assert_served(to: SocketAddr, what: &str) {
    let start = Instant::now();
    let mut stream = from("127.0.0.1", to);
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "{what}: {took:?}");
}

#[test]
fn half_open_requests_of_one_address_keep_nobody_out() {
    for ips in [&["127.0.0.2"][..], &["127.0.0.1"], &["127.0.0.2", "127.0.0.3", "127.0.0.4"]] {
        let place = Place::new();
        let (_seed, http) = seed(&place);
        let crowd: Vec<TcpStream> = ips.iter().flat_map(|ip| half_open(ip, http, 1_100)).collect();
        assert_served(http, &format!("1,100 from each of {ips:?}"));
        drop(crowd);
    }
}
