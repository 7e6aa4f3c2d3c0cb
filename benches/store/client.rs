//! A client of the store over HTTP, as cheap as one can be: it shares the machine with what it loads.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is kept for one request after the other.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes that it has written and read, without what stands around them on the wire.
    pub bytes: u64,
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new(), bytes: 0 }
    }

    /// Status and body of one request.
    pub async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.buffer.clear();
        loop {
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "it hung up");
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&self.buffer[..end]).unwrap();
            let status = head[9..12].parse().unwrap();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
            });
            let all = end + 4 + length.unwrap_or(0_usize);
            while self.buffer.len() < all {
                assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "it hung up");
            }
            self.bytes += (request.len() + all) as u64;
            return (status, self.buffer[end + 4..all].to_vec());
        }
    }

    /// Writes a value, as one that has seen this; what it has seen then.
    pub async fn put(&mut self, key: &str, value: &str, seen: &Value) -> Value {
        let body = format!("{{\"value\":\"{value}\",\"causal-metadata\":{seen}}}");
        let (status, body) = self.ask("PUT", &format!("/kvs/{key}"), &body).await;
        assert!(matches!(status, 200 | 201), "{status}: {}", String::from_utf8_lossy(&body));
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        body["causal-metadata"].take()
    }
}

/// Values of that many bytes.
pub fn value(bytes: usize) -> String {
    "v".repeat(bytes)
}

/// So many connections write for so long, each its next write once it has the answer to the last;
/// writes a second.
pub async fn load(addr: SocketAddr, connections: usize, time: Duration) -> f64 {
    let end = Instant::now() + time;
    let start = Instant::now();
    let writers = (0..connections).map(|writer| async move {
        let mut client = Client::connect(addr).await;
        let (value, mut written) = (value(100), 0_u64);
        let body = format!("{{\"value\":\"{value}\"}}");
        while Instant::now() < end {
            let path = format!("/kvs/{writer}-{}", written % 100);
            let (status, _) = client.ask("PUT", &path, &body).await;
            assert!(matches!(status, 200 | 201));
            written += 1;
        }
        written
    });
    let tasks: Vec<_> = writers.map(tokio::spawn).collect();
    let mut all = 0;
    for task in tasks {
        all += task.await.unwrap();
    }
    all as f64 / start.elapsed().as_secs_f64()
}

/// Writes so many keys over 16 connections, which is how a store gets full.
pub async fn fill(addr: SocketAddr, keys: usize, bytes: usize) {
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            tokio::spawn(async move {
                let mut client = Client::connect(addr).await;
                let body = format!("{{\"value\":\"{}\"}}", value(bytes));
                for key in (writer..keys).step_by(16) {
                    let (status, _) = client.ask("PUT", &format!("/kvs/key-{key}"), &body).await;
                    assert_eq!(status, 201);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}
