//! The console at a terminal: lines are edited and called back, the log appears above them, and the
//! terminal is left as it was found.

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::json;

use crate::replicas::{PEER, Replicas, get, plain, put, until};

/// A peer at a terminal of its own.
struct Session {
    child: Child,
    keyboard: File,
    line: OwnedFd,
    screen: Arc<Mutex<String>>,
}

impl Session {
    /// With the terminal as its own if `owns`; else it is one that somebody else's jobs are at.
    fn start(network: &Replicas, named: SocketAddr, owns: bool) -> Self {
        let pty = openpty(None, None).unwrap();
        let copy = || pty.slave.try_clone().unwrap();
        let mut command = Command::new("setsid");
        plain(&mut command);
        if owns {
            command.arg("--ctty");
        }
        let child = command
            .args([PEER, "127.0.0.1", "0", "--peers", &named.to_string(), "--ephemeral"])
            .args(["--gossip-count", "0"])
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .current_dir(network.path(""))
            .stdin(copy())
            .stdout(copy())
            .stderr(copy())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut output, shown) = (File::from(pty.master.try_clone().unwrap()), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // It ends with an error when the last process at the terminal has.
            while let Ok(read) = output.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { child, keyboard: File::from(pty.master), line: pty.slave, screen }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// One that has caught up with the first replica, and reads keys.
    fn at_prompt(network: &Replicas) -> Self {
        let session = Self::start(network, network.addrs[0], true);
        session.wait_for("caught up");
        session.is_prompting();
        session
    }

    /// Waits until that appears on the screen, and takes all up to it away.
    fn wait_for(&self, what: &str) -> String {
        until(&format!("{what:?} on the screen: {:?}", self.screen.lock().unwrap()), || {
            let mut screen = self.screen.lock().unwrap();
            let end = screen.find(what)? + what.len();
            Some(screen.drain(..end).collect())
        })
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.line).unwrap().local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    fn is_prompting(&self) {
        until("it reads keys", || self.is_raw().then_some(()));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_pasted_or_typed_ahead_is_done_line_by_line() {
    let mut network = Replicas::on_loopback(1);
    network.start_all(&["--ephemeral"]);
    network.wait_for_view(&[0]);
    let mut session = Session::at_prompt(&network);
    // As a script types, and as a terminal brackets what is pasted.
    session.press("put a 1\rput b 2\rkeys\r");
    session.wait_for("\"a\"\r\n\"b\"\r\n");
    let many: String = (0..200).map(|number| format!("put k{number} {number}\r")).collect();
    session.press(&many);
    session.press("\x1b[200~put c 3\nget c\x1b[201~\r");
    session.wait_for("\"value\":3,");
    session.press("quit\r");
    assert_eq!(session.child.wait().unwrap().code(), Some(0));
    // What was written before it left has left it, and arrives even if the other one is busy.
    let keys = || get(network.addrs[0], "/kvs").unwrap().1["keys"].as_array().unwrap().len();
    until("all keys are there", || (keys() == 203).then_some(()));
}

const UP: &str = "\x1b[A";

#[test]
fn lines_are_edited_and_the_log_appears_above_them() {
    let mut network = Replicas::on_loopback(2);
    let addrs = network.addrs.clone();
    network.start(0, &addrs[..1], &["--ephemeral"]);
    network.wait_for_view(&[0]);
    put(addrs[0], "there", json!("\u{1b}[31mred"));
    let mut session = Session::start(&network, addrs[0], true);
    session.wait_for("caught up");
    session.is_prompting();
    session.press("put k \"v\"\r");
    session.wait_for("created");
    // A line that is half written when somebody joins is written again below what is logged then.
    session.press("get therX");
    session.wait_for("therX");
    network.start(1, &addrs, &["--ephemeral"]);
    let above = session.wait_for(&format!("member joined peer={}", addrs[1]));
    assert!(!above.ends_with("therX"), "{above:?}");
    session.wait_for("> get therX");
    // Backspace, and the rest.
    session.press("\x7fe\r");
    let shown = session.wait_for("red\"");
    assert!(shown.ends_with(r#""\u001b[31mred""#), "{shown:?}");
    session.press(UP);
    session.press("\r");
    session.wait_for(r#""\u001b[31mred""#);
    session.press(&format!("{UP}{UP}\r")); // the one before that
    session.wait_for("replaced");
    session.press("keys\r");
    session.wait_for("\"k\"\r\n\"there\"\r\n"); // an element a line, to look at
    session.press("\x04"); // Ctrl-D
    assert_eq!(session.child.wait().unwrap().code(), Some(0));
    assert!(!session.is_raw(), "the terminal is as it was");
    network.wait_for_view(&[0, 1]);
}

#[test]
fn whatever_ends_it_the_terminal_is_left_as_it_was() {
    let mut network = Replicas::on_loopback(1);
    network.start_all(&["--ephemeral"]);
    network.wait_for_view(&[0]);
    for end in ["INT", "TERM", "Ctrl-C", "quit"] {
        let mut session = Session::at_prompt(&network);
        session.press("half a li");
        session.wait_for("half a li");
        match end {
            "Ctrl-C" => session.press("\x03"),
            "quit" => session.press("\x15quit\r"), // after Ctrl-U
            signal => {
                let kill = format!("kill -{signal} {}", session.child.id());
                assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            }
        }
        assert_eq!(session.child.wait().unwrap().code(), Some(0), "{end}");
        assert!(!session.is_raw(), "{end}: the terminal is as it was");
        network.wait_for_view(&[0]);
    }
}

#[test]
fn a_peer_in_the_background_leaves_the_terminal_alone() {
    let mut network = Replicas::on_loopback(1);
    network.start_all(&["--ephemeral"]);
    network.wait_for_view(&[0]);
    let mut session = Session::start(&network, network.addrs[0], false);
    session.wait_for("caught up");
    session.press("quit\r");
    // Were it to read, it would be stopped for it, or end.
    until("it is in the view", || {
        (get(network.addrs[0], "/view")?.1["view"].as_array()?.len() == 2).then_some(())
    });
    assert!(!session.is_raw() && session.child.try_wait().unwrap().is_none());
}
