//! The two programs as a user meets them: CONTRACT.md, sections 1 and 2, with real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

#[path = "network/reserved.rs"]
mod reserved;

use self::reserved::Reserved;

const SEED: &str = env!("CARGO_BIN_EXE_seed");
const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// A directory of its own with a CONFIG of one seed, and the programs run in it.
struct Place {
    dir: tempfile::TempDir,
    seed: SocketAddr,
    _reserved: Reserved,
}

impl Place {
    fn new() -> Self {
        let reserved = Reserved::new();
        let dir = tempfile::tempdir().unwrap();
        let place = Self { dir, seed: reserved.addr, _reserved: reserved };
        place.write("c", &format!("# the seeds\n{} # the only one\n", place.seed));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn write_token(&self, name: &str, text: &str, mode: u32) {
        self.write(name, text);
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.path(name), permissions).unwrap();
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RUMORMILL_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        output(&mut self.command(program, args))
    }

    fn seed_args(&self) -> [String; 3] {
        [self.seed.ip().to_string(), self.seed.port().to_string(), "c".into()]
    }

    /// Starts the seed of CONFIG, and returns when it says that it listens.
    fn start_seed(&self, options: &[&str], env: &[(&str, &str)]) -> Running {
        let args = self.seed_args();
        let args: Vec<&str> =
            args.iter().map(String::as_str).chain(options.iter().copied()).collect();
        let mut command = self.command(SEED, &args);
        Running::start(command.envs(env.iter().copied()))
    }

    fn start_peer(&self, options: &[&str]) -> Running {
        let args = [&["127.0.0.1", "0", "c"], options].concat();
        Running::start(&mut self.command(PEER, &args))
    }
}

/// Runs a program that is to end by itself.
fn output(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait(&mut child, "a program that was to end by itself");
    child.wait_with_output().unwrap()
}

/// Waits for the end of a process; one that does not end is killed and fails the test.
fn wait(child: &mut Child, what: &str) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("{what} still runs after 20 s");
        }
        std::thread::sleep(Duration::from_millis(2)); // std has no wait with a deadline
    }
}

/// A process that listens; killed with the test.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    first_lines: Vec<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, out, first_lines: Vec::new() };
        running.read_until(" listening ");
        running
    }

    fn read_until(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            if self.out.read_line(&mut line).unwrap() == 0 {
                let mut error = String::new();
                let _ = self.child.stderr.take().unwrap().read_to_string(&mut error);
                panic!("no {what:?} before the end: {:?}, stderr {error:?}", self.first_lines);
            }
            self.first_lines.push(line.clone());
            if line.contains(what) {
                return line;
            }
        }
    }

    /// The shell's own `kill`, because a bare machine has no program of that name.
    fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    /// The exit code after this signal, and how long the end took.
    fn end(&mut self, signal: &str) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        self.signal(signal);
        let code = wait(&mut self.child, signal);
        (code, asked.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit code, nothing on stdout, and one line on stderr that says all of this.
fn assert_refused(output: &Output, code: i32, says: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "stderr: {error}");
    assert_eq!(error.matches('\n').count(), 1, "one line on stderr: {error:?}");
    assert!(error.ends_with('\n') && error.trim().len() > 10, "{error:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "errors go to stderr");
    for part in says {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn a_mistake_in_the_arguments_is_one_line_and_exit_code_2() {
    let place = Place::new();
    for program in [SEED, PEER] {
        let refused = |args: &[&str], says: &[&str]| {
            assert_refused(&place.run(program, args), 2, says);
        };
        refused(&[], &["<IP>", "<PORT>", "<CONFIG>", "--help"]);
        refused(&["127.0.0.1"], &["<PORT>"]);
        refused(&["localhost", "5000", "c"], &["'localhost'", "127.0.0.1"]);
        refused(&["127.0.0.1", "70000", "c"], &["'70000'", "PORT"]);
        refused(&["127.0.0.1", "port", "c"], &["'port'", "PORT"]);
        refused(&["127.0.0.1", "5000", "c", "surplus"], &["'surplus'"]);
        refused(&["127.0.0.1", "5000", "c", "--no\nsuch"], &["--no such"]);
        for (option, value, says) in [
            ("--log-level", "loud", "possible values: error, warn, info, debug, trace"),
            ("--probe-timeout", "5", "unit"),
            ("--probe-timeout", "0s", "too short"),
            ("--probe-timeout", "100y", "too long"),
            ("--probe-timeout", "soon", "500ms"),
            ("--probe-timeout", "-1s", "500ms"),
            ("--http", "8000", "127.0.0.1:8000"),
            ("--advertise", "here", "not an IP address"),
            ("--advertise", "0.0.0.0", "--advertise 0.0.0.0"),
        ] {
            refused(&["127.0.0.1", "5000", "c", option, value], &[option, says]);
        }
        refused(&["127.0.0.1", "5000", "c", "--ephemeral=perhaps"], &["--ephemeral"]);
    }
}

#[test]
fn a_mistake_in_a_peers_options_is_one_line_and_exit_code_2() {
    let place = Place::new();
    let refused = |args: &[&str], says: &[&str]| {
        let args = [&["127.0.0.1", "0", "c"], args].concat();
        assert_refused(&place.run(PEER, &args), 2, says);
    };
    for option in ["--gossip-interval", "--ping-interval", "--suspect-timeout", "--sync-interval"] {
        refused(&[option, "3"], &[option, "unit"]);
        refused(&[option, "0ms"], &[option, "too short"]);
    }
    for option in ["--fanout", "--links", "--max-links"] {
        refused(&[option, "0"], &[option]);
        refused(&[option, "many"], &[option, "'many'"]);
    }
    for (value, says) in
        [("many", "512MiB"), ("1GB", "512MiB"), ("-1", "512MiB"), ("0", "at least 1")]
    {
        refused(&["--max-store-bytes", value], &["--max-store-bytes", says]);
    }
    for value in ["0", "1025", "-1", "1KiB"] {
        refused(&["--max-key-bytes", value], &["--max-key-bytes", &format!("'{value}'")]);
    }
    for exponent in ["2", "3.1", "NaN", "-1"] {
        refused(&["--exponent", exponent], &["2"]);
    }
    refused(&["--gossip-count", "1.5"], &["--gossip-count"]);
    refused(&["--gossip-count", "-1"], &["--gossip-count", "'-1'"]);
    refused(&["--links", "9", "--max-links", "8"], &["--max-links 8", "--links 9"]);
    refused(&["--links", "65"], &["--max-links 64", "--links 65"]);
}

#[test]
fn options_of_a_peer_alone_are_refused_by_a_seed() {
    let place = Place::new();
    for option in ["--links", "--console", "--causal-wait", "--peers", "--maelstrom"] {
        let args = ["127.0.0.1", "5000", "c", option];
        assert_refused(&place.run(SEED, &args), 2, &[option]);
    }
}

#[test]
fn a_mistake_in_the_key_file_is_one_line_that_shows_no_key() {
    let place = Place::new();
    let key = String::from_utf8(place.run(PEER, &["--generate-key"]).stdout).unwrap();
    assert_refused(&place.run(PEER, &["--generate-key", "x"]), 2, &["nothing else"]);
    place.write("bad", &format!("{key}{}\n", key.trim().get(1..).unwrap()));
    place.write("empty", "# no key\n");
    place.write("open", &key);
    for (file, mode, says) in [
        ("bad", 0o600, "line 2 is no key"),
        ("empty", 0o600, "--generate-key"),
        ("open", 0o644, "chmod 600"),
        ("absent", 0o600, "cannot read"),
    ] {
        let path = place.path(file);
        if path.exists() {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let seed = place.seed_args();
        let seed: Vec<&str> = seed.iter().map(String::as_str).collect();
        for (program, args) in [(SEED, &seed[..]), (PEER, &["127.0.0.1", "0", "c"][..])] {
            let output = place.run(program, &[args, &["--key-file", file]].concat());
            assert_refused(&output, 2, &[file, says]);
            assert!(!String::from_utf8_lossy(&output.stderr).contains(&key.trim()[1..]));
        }
    }
}

#[test]
fn a_seed_shows_who_it_is_and_stays_the_same() {
    let place = Place::new();
    let args = place.seed_args();
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--print-identity"]).collect();
    let shown = place.run(SEED, &args);
    let identity = String::from_utf8(shown.stdout).unwrap();
    assert_eq!((shown.status.code(), identity.trim_end().len()), (Some(0), 64), "{identity}");
    assert_eq!(String::from_utf8(place.run(SEED, &args).stdout).unwrap(), identity);
    // CONFIG may name it.
    place.write("c", &format!("{} {identity}", place.seed));
    assert_eq!(String::from_utf8(place.run(SEED, &args).stdout).unwrap(), identity);
    place.write("c", &format!("{} {}", place.seed, &identity[..63]));
    assert_refused(&place.run(SEED, &args), 2, &["c:1", "--print-identity"]);
}

#[test]
fn a_network_has_seeds_or_peers_and_says_which() {
    let place = Place::new();
    let refused = |args: &[&str], says: &[&str]| {
        let args = [&["127.0.0.1", "0"], args].concat();
        assert_refused(&place.run(PEER, &args), 2, says);
    };
    refused(&[], &["<CONFIG", "--peers"]);
    refused(&["c", "--peers", "127.0.0.1:7000"], &["CONFIG", "--peers"]);
    refused(&["--peers", "127.0.0.1"], &["--peers", "has no port"]);
    refused(&["--peers", "127.0.0.1:7000,0.0.0.0:1"], &["--peers", "0.0.0.0:1"]);
    refused(&["--peers", ""], &["--peers"]);
    let implied = |address: &str, view: &str| {
        let mut command = place.command(PEER, &[]);
        output(command.env("SOCKET_ADDRESS", address).env("VIEW", view))
    };
    assert_refused(&implied("127.0.0.1", "127.0.0.1:7000"), 2, &["SOCKET_ADDRESS", "IP:PORT"]);
    assert_refused(&implied("127.0.0.1:7000", "127.0.0.1:7001,nobody"), 2, &["VIEW", "\"nobody\""]);
    assert_refused(&implied("127.0.0.1:0", ""), 2, &["SOCKET_ADDRESS", "127.0.0.1:0"]);
    let half = output(place.command(PEER, &[]).env("SOCKET_ADDRESS", "127.0.0.1:7000"));
    assert_refused(&half, 2, &["<IP>", "VIEW"]);
}

#[test]
fn only_loopback_is_listened_on_without_insecure() {
    let place = Place::new();
    for program in [SEED, PEER] {
        for ip in ["10.0.0.1", "0.0.0.0", "::", "[2001:db8::1]"] {
            let args = [ip, "5000", "c", "--advertise", "127.0.0.1"];
            assert_refused(&place.run(program, &args), 2, &["--insecure", "loopback"]);
        }
        for ip in ["0.0.0.0", "::"] {
            let args = [ip, "5000", "c", "--insecure"];
            assert_refused(&place.run(program, &args), 2, &["--advertise", ip]);
        }
    }
}

#[test]
fn http_beyond_loopback_wants_a_token_or_insecure() {
    let place = Place::new();
    place.write_token("token", "0123456789abcdef\n", 0o600);
    for program in [SEED, PEER] {
        let open = |options: &[&str]| {
            let args = ["127.0.0.1", "5000", "absent", "--http", "0.0.0.0:0"];
            place.run(program, &[&args, options].concat())
        };
        assert_refused(&open(&[]), 2, &["--http", "--http-token-file", "--insecure"]);
        // What is missing now is CONFIG alone.
        assert_refused(&open(&["--http-token-file", "token"]), 2, &["absent: "]);
        assert_refused(&open(&["--insecure"]), 2, &["absent: "]);
        let listening = ["0.0.0.0", "5000", "absent", "--http-token-file", "token"];
        let links = place.run(program, &[&listening[..], &["--advertise", "127.0.0.1"]].concat());
        assert_refused(&links, 2, &["links are not encrypted", "--insecure"]);
    }
}

#[test]
fn a_mistake_in_the_file_of_the_token_is_one_line_and_exit_code_2() {
    let place = Place::new();
    for (text, mode, says) in [
        ("0123456789abcdef", 0o640, "chmod 600"),
        ("0123456789abcdef", 0o604, "chmod 600"),
        ("", 0o600, "holds no HTTP token"),
        ("0123456789abcde\n", 0o600, "too short"),
        ("0123456789abcdef\n0123456789abcdef\n", 0o600, "several lines"),
        ("0123456789abcdef x", 0o600, "blank"),
        (&"x".repeat(1_025), 0o600, "too long"),
    ] {
        place.write_token("token", text, mode);
        for program in [SEED, PEER] {
            let [ip, port, config] = place.seed_args();
            let port = if program == SEED { port.as_str() } else { "0" };
            let refused = place.run(program, &[&ip, port, &config, "--http-token-file", "token"]);
            assert_refused(&refused, 2, &["token: ", says]);
            let error = String::from_utf8_lossy(&refused.stderr);
            assert!(!error.contains("0123456789"), "the token is not shown: {error}");
        }
    }
    let mut absent = place.command(PEER, &["127.0.0.1", "0", "c"]);
    let refused = output(absent.env("RUMORMILL_HTTP_TOKEN_FILE", "absent"));
    assert_refused(&refused, 2, &["absent: ", "cannot read the HTTP token"]);
}

#[test]
fn a_mistake_in_config_names_file_and_line() {
    let place = Place::new();
    for (text, line, says) in [
        ("127.0.0.1:5000\n\nlocalhost:5001\n", 3, "ip:port"),
        ("127.0.0.1\n", 1, "port"),
        ("127.0.0.1:0\n", 1, "port 0"),
        ("# x\n0.0.0.0:5000\n", 2, "own IP"),
        ("127.0.0.1:5000\n[::1]:5000\n127.0.0.1:5000 # again\n", 3, "line 1"),
        ("", 1, "without any seed"),
        ("# a\n# b\n", 2, "without any seed"),
    ] {
        place.write("bad", text);
        for program in [SEED, PEER] {
            let refused = place.run(program, &["127.0.0.1", "5000", "bad"]);
            assert_refused(&refused, 2, &[&format!("bad:{line}: "), says]);
        }
    }
    for name in ["absent", "."] {
        for program in [SEED, PEER] {
            let refused = place.run(program, &["127.0.0.1", "5000", name]);
            assert_refused(&refused, 2, &[&format!("{name}: "), "cannot read"]);
        }
    }
}

#[test]
fn a_seed_must_be_in_the_list_and_a_peer_must_not() {
    let place = Place::new();
    let port = place.seed.port().to_string();
    assert_refused(&place.run(SEED, &["127.0.0.2", &port, "c"]), 2, &["c: ", "127.0.0.2"]);
    assert_refused(&place.run(SEED, &["127.0.0.1", "0", "c"]), 2, &["port 0"]);
    let elsewhere = ["127.0.0.1", port.as_str(), "c", "--advertise", "10.0.0.1"];
    assert_refused(&place.run(SEED, &elsewhere), 2, &[&format!("10.0.0.1:{port}")]);
    assert_refused(&place.run(PEER, &["127.0.0.1", &port, "c"]), 2, &["is a seed"]);
}

#[test]
fn a_failure_while_starting_is_one_line_and_exit_code_1() {
    let place = Place::new();
    let taken = TcpListener::bind(place.seed).unwrap();
    let [ip, port, config] = place.seed_args();
    let refused = place.run(SEED, &[&ip, &port, &config]);
    assert_refused(&refused, 1, &["cannot listen", &place.seed.to_string()]);
    drop(taken);

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    assert_refused(&place.run(PEER, &["127.0.0.1", &port, "c"]), 1, &["cannot listen", &port]);

    let args = ["127.0.0.1", "0", "c", "--log-file", "no/such/dir/log"];
    assert_refused(&place.run(PEER, &args), 1, &["no/such/dir/log", "--log-file"]);
    assert_refused(&place.run(PEER, &["127.0.0.1", "0", "c", "--log-file", "."]), 1, &["log"]);
}

#[test]
fn help_and_version_go_to_stdout() {
    let place = Place::new();
    for (program, name) in [(SEED, "seed"), (PEER, "peer")] {
        let version = place.run(program, &["--version"]);
        assert_eq!(version.status.code(), Some(0));
        let expected = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8_lossy(&version.stdout), expected);

        let help = place.run(program, &["--help"]);
        assert_eq!(help.status.code(), Some(0));
        assert!(help.stderr.is_empty());
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        for part in [
            "<IP>",
            "<PORT>",
            "<CONFIG>",
            "--http",
            "--log-file",
            "RUMORMILL_LOG_FILE",
            "--data-dir",
            "--http-token-file",
        ] {
            assert!(text.contains(part), "{part} is not in the help of {name}:\n{text}");
        }
        for part in ["--max-members ", "--max-members-per-source"] {
            assert_eq!(text.contains(part), name == "seed", "{part} in the help of {name}");
        }
        for part in [
            "--links",
            "--peers",
            "--console",
            "SOCKET_ADDRESS",
            "--causal-wait",
            "--max-store-bytes",
            "--max-key-bytes",
        ] {
            assert_eq!(text.contains(part), name == "peer", "{part} in the help of {name}");
        }
    }
}

#[test]
fn console_and_file_carry_the_same_lines() {
    let place = Place::new();
    let mut seed = place.start_seed(&[], &[]);
    let line = seed.first_lines[0].clone();
    let (time, rest) = line.split_once(' ').unwrap();
    assert_eq!(time.len(), "2026-11-21T08:15:00.123456Z".len(), "{line:?}");
    assert!(time.ends_with('Z') && time.as_bytes()[19] == b'.', "{line:?}");
    let expected = format!("INFO seed {} listening quorum=1 of=1", place.seed);
    assert!(rest.starts_with(&expected), "{line:?}");
    let (code, _) = seed.end("TERM");
    assert_eq!(code, Some(0));
    seed.out.read_to_string(seed.first_lines.last_mut().unwrap()).unwrap();
    let file = fs::read_to_string(place.path("outputfile.txt")).unwrap();
    assert_eq!(file, seed.first_lines.concat());
}

#[test]
fn sigint_and_sigterm_are_a_clean_stop() {
    let place = Place::new();
    for signal in ["INT", "TERM"] {
        let mut seed = place.start_seed(&[], &[]);
        let mut peer = place.start_peer(&["--gossip-count", "0"]);
        let limit = Duration::from_millis(2_500); // 2 s to leave, and the process around it
        for running in [&mut peer, &mut seed] {
            let (code, took) = running.end(signal);
            assert_eq!(code, Some(0), "after SIG{signal}");
            assert!(took < limit, "SIG{signal} took {took:?}");
            let mut error = String::new();
            running.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            assert_eq!(error, "");
        }
    }
}

#[test]
fn a_peer_without_any_seed_up_leaves_in_time_too() {
    let place = Place::new();
    let (code, took) = place.start_peer(&[]).end("INT");
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_millis(2_500), "{took:?}");
}

#[test]
fn the_environment_counts_and_the_command_line_wins() {
    let place = Place::new();
    let env = [("RUMORMILL_LOG_FILE", "from-env"), ("RUMORMILL_EPHEMERAL", "1")];
    place.start_seed(&[], &env).end("TERM");
    assert!(place.path("from-env").exists());
    place.start_seed(&["--log-file", "from-args"], &env).end("TERM");
    assert!(place.path("from-args").exists());

    // Flags too: each of these would be refused if the environment won.
    let open = |env: &str, option: &[&str]| {
        let args = [&["0.0.0.0", "5000", "c"], option].concat();
        let mut command = place.command(SEED, &args);
        output(command.env("RUMORMILL_INSECURE", env))
    };
    for yes in ["true", "1"] {
        assert_refused(&open(yes, &[]), 2, &["--advertise"]);
        assert_refused(&open(yes, &["--insecure=false"]), 2, &["--insecure"]);
    }
    for no in ["false", "0"] {
        assert_refused(&open(no, &[]), 2, &["--insecure"]);
        assert_refused(&open(no, &["--insecure"]), 2, &["--advertise"]);
    }
    assert_refused(&open("perhaps", &[]), 2, &["--insecure"]);

    let mut peer = place.command(PEER, &["127.0.0.1", "0", "c"]);
    let refused = output(peer.env("RUMORMILL_SUSPECT_TIMEOUT", "3"));
    assert_refused(&refused, 2, &["--suspect-timeout", "unit"]);
}

#[test]
fn a_seed_keeps_its_registry_in_the_data_directory_unless_told_not_to() {
    let place = Place::new();
    place.start_seed(&["--data-dir", "d", "--ephemeral"], &[]).end("TERM");
    assert!(!place.path("d").exists(), "nothing on disk");
    place.start_seed(&["--data-dir", "d"], &[]).end("TERM");
    let dirs: Vec<PathBuf> =
        fs::read_dir(place.path("d")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    let name = dirs[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("seed-127.0.0.1-"), "{name}");
    assert!(dirs[0].join("registry.redb").is_file());
}

#[test]
fn sigusr1_reopens_the_log() {
    let place = Place::new();
    let mut seed = place.start_seed(&[], &[]);
    let (log, moved) = (place.path("outputfile.txt"), place.path("outputfile.txt.1"));
    fs::rename(&log, &moved).unwrap();
    seed.signal("USR1");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !log.exists() {
        assert!(Instant::now() < deadline, "the log was not reopened");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(fs::read_to_string(&moved).unwrap().contains(" listening "));
    // The name cannot be opened any more: the seed says so and lives.
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    seed.signal("USR1");
    assert!(seed.read_until("log not reopened").contains(" WARN seed "));
    assert_eq!(seed.end("TERM").0, Some(0));
}

#[test]
fn a_reader_of_the_console_that_goes_away_stops_nothing() {
    let place = Place::new();
    let args = place.seed_args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = place.command(SEED, &args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    let log = place.path("outputfile.txt");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !Path::exists(&log) || !fs::read_to_string(&log).unwrap().contains(" listening ") {
        assert_eq!(child.try_wait().unwrap(), None, "the seed has ended");
        assert!(Instant::now() < deadline, "the seed does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
    let line = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    assert_eq!(wait(&mut child, "a seed without a console"), Some(0));
}

#[test]
fn no_colour_gets_into_a_pipe() {
    let place = Place::new();
    let seed = place.start_seed(&[], &[]);
    assert!(!seed.first_lines.concat().contains('\u{1b}'));
}
