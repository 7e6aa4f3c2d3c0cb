//! Whoever connects and does not speak the protocol: one line, and nothing else happens.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rumormill::net::codec;
use rumormill::proto::config::{DEFAULT_NETWORK, Network as Name};
use rumormill::proto::message::{Purpose, Role};

use crate::harness::{Network, PATIENCE};

/// Connections of each kind to each process.
const EACH: usize = 100;
/// Connections that stay open and say nothing: below what one address may have half open.
const SILENT: usize = 60;
/// Bytes by which a process may have grown after all of them.
const GROWTH: u64 = 8 << 20;

/// What a stranger says before it stops talking.
fn openings(name: &Name, from: SocketAddr) -> Vec<(&'static str, Vec<u8>)> {
    let hello = |name: &Name, purpose| {
        let mut bytes = Vec::new();
        codec::encode_hello(&name.hello(Role::Peer, from, 7, purpose), &mut bytes).unwrap();
        bytes
    };
    let valid = hello(name, Purpose::Probe);
    let other = Name::new("another network", name.seeds().iter().copied());
    // A fixed sequence that looks like noise: xorshift.
    let mut state = 0x9e37_79b9_u32;
    let noise: Vec<u8> = (0..2_000)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .collect();
    vec![
        ("noise", noise.clone()),
        ("an absurd length", [&[0xff; 4], &noise[..100]].concat()),
        ("a large length and nothing to it", 1_000_000_u32.to_be_bytes().to_vec()),
        ("half a hello", valid[..valid.len() / 2].to_vec()),
        ("nothing", Vec::new()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_vec()),
        ("another network", hello(&other, Purpose::Probe)),
        ("noise after a hello", [&valid[..], &noise[..]].concat()),
        ("half a frame after a hello", [&valid[..], &[0, 0]].concat()),
    ]
}

/// Says that much, then no more; returns the address that it had once the other side has closed.
fn visit(to: SocketAddr, says: &[u8]) -> SocketAddr {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let own = stream.local_addr().unwrap();
    // It may be closed before all is said.
    let _ = stream.write_all(says);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    wait_for_close(&mut stream);
    own
}

fn wait_for_close(stream: &mut TcpStream) {
    let mut buffer = [0; 1_024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the connection is not closed: {error}"),
        }
    }
}

#[test]
fn strangers_cost_a_line_each_and_neither_stop_nor_grow_a_process() {
    let (mut network, peers) = Network::with_peers(3, &["--gossip-count", "0"]);
    network.wait_for_overlay(&peers);
    let name = Name::new(DEFAULT_NETWORK, network.seeds());
    let targets = [network.seeds()[0], peers[1]];
    let openings = openings(&name, ([127, 0, 0, 1], 9).into());
    // Memory that is taken once and used again is no growth.
    for target in targets {
        for (_, says) in &openings {
            visit(target, says);
        }
    }
    let before = targets.map(|target| network.resident(target));
    network.log.read_more();
    let so_far = network.log.len();

    // Ports are used again, so that one may have had several visitors.
    let mut visitors: BTreeMap<(SocketAddr, SocketAddr), Vec<&str>> = BTreeMap::new();
    let mut silent = Vec::new();
    for target in targets {
        for _ in 0..SILENT {
            let stream = TcpStream::connect(target).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            visitors.entry((target, stream.local_addr().unwrap())).or_default().push("silence");
            silent.push(stream);
        }
        for (kind, says) in &openings {
            for _ in 0..EACH {
                visitors.entry((target, visit(target, says))).or_default().push(kind);
            }
        }
    }
    // A fourth peer is served meanwhile.
    let newcomer = network.start_peer(&["--gossip-count", "2", "--gossip-interval", "1s"]);
    let members = [&peers[..], &[newcomer]].concat();
    network.wait_for_members(&members);
    network.wait_for_messages(&members, 2);
    for mut stream in silent {
        wait_for_close(&mut stream);
    }

    network.wait_for("a line for each silent connection", |log| {
        let lines =
            log.lines()[so_far..].iter().filter(|l| l.get("reason") == Some("no hello in time"));
        (lines.count() >= 2 * SILENT).then_some(())
    });
    let mut told: BTreeMap<(SocketAddr, SocketAddr), Vec<&str>> = BTreeMap::new();
    let mut without_address = 0;
    for line in &network.log.lines()[so_far..] {
        match line.get("from").and_then(|from| from.parse().ok()) {
            Some(from) => told.entry((line.addr, from)).or_default().push(&line.raw),
            None => without_address += usize::from(line.event == "link closed"),
        }
    }
    for (place, kinds) in &visitors {
        let lines = told.get(place).map_or(&[][..], Vec::as_slice);
        assert!(lines.len() <= kinds.len(), "{kinds:?} came to {lines:#?}");
    }
    // Of these the connection was open when they went wrong: two kinds for each target.
    assert!(without_address <= 2 * 2 * EACH, "{without_address} lines");
    for (target, before) in targets.into_iter().zip(before) {
        let after = network.resident(target);
        println!("{target}: {} KiB resident, {} KiB before", after >> 10, before >> 10);
        assert!(after < before + GROWTH, "{target} grew from {before} to {after} bytes");
        assert!(network.is_running(target));
    }
    for event in ["suspected", "dead-node committed", "registration rejected"] {
        assert_eq!(network.log.events(event).count(), 0, "{event}");
    }
}

#[test]
fn who_is_hung_up_on_finds_the_reason_in_the_log_at_once() {
    let (network, _) = Network::with_peers(1, &["--gossip-count", "0"]);
    let name = Name::new(DEFAULT_NETWORK, network.seeds());
    let mut log = network.log.open();
    let (mut text, mut late) = (String::new(), 0);
    for port in 1..=100 {
        let own = SocketAddr::from(([127, 0, 0, 1], port));
        let mut hello = Vec::new();
        let says = name.hello(Role::Peer, own, 7, Purpose::Membership);
        codec::encode_hello(&says, &mut hello).unwrap();
        let mut stream = TcpStream::connect(network.seeds()[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&hello).unwrap();
        assert!(stream.read(&mut [0; 1_024]).unwrap() > 0, "it is welcome");
        // A frame that is none.
        stream.write_all(&[0, 0, 0, 1, 0xf0]).unwrap();
        wait_for_close(&mut stream);
        log.read_to_string(&mut text).unwrap();
        late += usize::from(!text.contains(&format!("link closed from={own} ")));
    }
    assert_eq!(late, 0, "so often the connection's end came before the line");
}
