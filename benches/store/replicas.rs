//! Some replicas, each a process, without seeds, with links and HTTP at one port.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::Client;

pub struct Replicas {
    dir: tempfile::TempDir,
    pub addrs: Vec<SocketAddr>,
    running: Vec<Option<Child>>,
    durable: bool,
}

impl Replicas {
    pub async fn start(count: usize, durable: bool) -> Self {
        let held: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addrs = held.iter().map(|listener| listener.local_addr().unwrap()).collect();
        drop(held);
        // Beside the crate: /tmp may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let running = (0..count).map(|_| None).collect();
        let mut replicas = Self { dir, addrs, running, durable };
        for place in 0..count {
            replicas.run(place);
        }
        for place in 0..count {
            replicas.wait_until_ready(place, count).await;
        }
        replicas
    }

    pub fn run(&mut self, place: usize) {
        let addr = self.addrs[place];
        let all: Vec<String> = self.addrs.iter().map(ToString::to_string).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command
            .args([&addr.ip().to_string(), &addr.port().to_string(), "--peers", &all.join(",")])
            .args(["--http", &addr.to_string(), "--gossip-count", "0"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if !self.durable {
            command.arg("--ephemeral");
        }
        self.running[place] = Some(command.spawn().unwrap());
    }

    pub fn kill(&mut self, place: usize) {
        if let Some(mut child) = self.running[place].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits until it has told that it is ready, and sees so many replicas.
    pub async fn wait_until_ready(&self, place: usize, view: usize) {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < Duration::from_secs(30), "it does not get ready");
            if tokio::net::TcpStream::connect(self.addrs[place]).await.is_ok() {
                let mut client = Client::connect(self.addrs[place]).await;
                let ready = client.ask("GET", "/ready", "").await.0 == 200;
                let (_, seen) = client.ask("GET", "/view", "").await;
                if ready && String::from_utf8_lossy(&seen).matches(':').count() == view + 1 {
                    return;
                }
            }
            // There is nothing to wait on before it listens.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until it answers that with 200.
    pub async fn wait_for_answer(&self, place: usize, path: &str) {
        loop {
            if tokio::net::TcpStream::connect(self.addrs[place]).await.is_ok() {
                let mut client = Client::connect(self.addrs[place]).await;
                if client.ask("GET", path, "").await.0 == 200 {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Resident memory, MB.
    pub fn memory(&self, place: usize) -> f64 {
        let pid = self.running[place].as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        (0..self.running.len()).for_each(|place| self.kill(place));
    }
}
