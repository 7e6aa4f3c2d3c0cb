//! Puts at three etcd servers on the same disk, for comparison.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{millis, show};

struct Cluster {
    _dir: tempfile::TempDir,
    clients: Vec<SocketAddr>,
    running: Vec<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start() -> Option<Cluster> {
    Command::new("etcd").arg("--version").stdout(Stdio::null()).status().ok()?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let held: Vec<TcpListener> =
        (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addrs: Vec<SocketAddr> = held.iter().map(|l| l.local_addr().unwrap()).collect();
    drop(held);
    let (peers, clients) = addrs.split_at(3);
    let members: Vec<String> =
        (0..3).map(|place| format!("m{place}=http://{}", peers[place])).collect();
    let running = (0..3)
        .map(|place| {
            let (peer, client) =
                (format!("http://{}", peers[place]), format!("http://{}", clients[place]));
            Command::new("etcd")
                .args(["--name", &format!("m{place}")])
                .arg("--data-dir")
                .arg(dir.path().join(format!("m{place}")))
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--initial-cluster", &members.join(",")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    Some(Cluster { _dir: dir, clients: clients.to_vec(), running })
}

/// One put over an open connection; false if it failed.
fn put(stream: &mut TcpStream, key: usize) -> bool {
    // Keys and values in base64, as etcd's JSON gateway wants them: any 8 letters are.
    let body = format!(r#"{{"key":"{key:08}","value":"MTI3LjAuMC4x"}}"#);
    let request = format!(
        "POST /v3/kv/put HTTP/1.1\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    if stream.write_all(request.as_bytes()).is_err() {
        return false;
    }
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        let Ok(read @ 1..) = stream.read(&mut piece) else { return false };
        answer.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if length.and_then(|l| l.parse::<usize>().ok()).is_some_and(|l| body.len() >= l) {
                return head.starts_with("HTTP/1.1 200");
            }
        }
    }
}

/// Measures puts, or says that there is no etcd.
pub fn puts(rounds: usize) {
    let Some(cluster) = start() else {
        return println!("{:<58}not installed", "etcd put, 3 members");
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let connect = |place: usize| {
        let stream = TcpStream::connect(cluster.clients[place % 3]).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    };
    loop {
        if connect(0).is_some_and(|mut stream| put(&mut stream, 0)) {
            break;
        }
        assert!(Instant::now() < deadline, "etcd does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut streams: Vec<TcpStream> = (0..3).filter_map(connect).collect();
    let mut times = Vec::new();
    for round in 0..rounds {
        let start = Instant::now();
        assert!(put(&mut streams[round % 3], round), "etcd refuses a put");
        times.push(millis(start.elapsed()));
    }
    show("etcd put, 3 members, same disk, same run", "ms", times);
}
