//! Some seed processes in a directory of their own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rumormill::net::secure::NetworkKey;
use rumormill::proto::config::{DEFAULT_NETWORK, Network};

pub struct Seeds {
    pub network: Network,
    dir: tempfile::TempDir,
    addrs: Vec<SocketAddr>,
    running: Vec<Option<Child>>,
    options: Vec<&'static str>,
}

impl Seeds {
    pub fn start(count: usize) -> Self {
        Self::start_with(count, None)
    }

    /// Seeds whose links are encrypted, if there is a key.
    pub fn start_with(count: usize, key: Option<&NetworkKey>) -> Self {
        let mut seeds = Self::prepare(count);
        if let Some(key) = key {
            let file = seeds.dir.path().join("key");
            fs::write(&file, key.line()).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            seeds.options = vec!["--key-file", "key"];
        }
        (0..count).for_each(|place| seeds.run(place));
        seeds.wait_until_connected(count * (count - 1));
        seeds
    }

    /// Seeds that do not run yet.
    pub fn prepare(count: usize) -> Self {
        // Beside the crate, on the disk that etcd gets, too; /tmp may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let held: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut addrs: Vec<SocketAddr> = held.iter().map(|l| l.local_addr().unwrap()).collect();
        addrs.sort();
        drop(held);
        let text: String = addrs.iter().map(|addr| format!("{addr}\n")).collect();
        fs::write(dir.path().join("config.txt"), text).unwrap();
        let network = Network::new(DEFAULT_NETWORK, addrs.iter().copied());
        Self {
            network,
            dir,
            addrs,
            running: (0..count).map(|_| None).collect(),
            options: Vec::new(),
        }
    }

    pub fn addr(&self, place: usize) -> SocketAddr {
        self.addrs[place % self.addrs.len()]
    }

    /// Where that seed keeps its registry.
    pub fn data(&self, place: usize) -> PathBuf {
        let addr = self.addr(place);
        self.dir.path().join(format!("data/seed-{}-{}", addr.ip(), addr.port()))
    }

    pub fn run(&mut self, place: usize) {
        let addr = self.addr(place);
        let child = Command::new(env!("CARGO_BIN_EXE_seed"))
            .args([&addr.ip().to_string(), &addr.port().to_string(), "config.txt"])
            .args(&self.options)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.running[place] = Some(child.unwrap());
    }

    pub fn kill(&mut self, place: usize) {
        if let Some(mut child) = self.running[place].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn pid(&self, place: usize) -> u32 {
        self.running[place].as_ref().unwrap().id()
    }

    pub fn wait_until_connected(&self, lines: usize) {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(self.dir.path().join("outputfile.txt"));
            if log.unwrap_or_default().matches(" seed connected ").count() >= lines {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the seeds do not connect");
            // A file cannot be waited for.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Seeds {
    fn drop(&mut self) {
        (0..self.running.len()).for_each(|place| self.kill(place));
    }
}
