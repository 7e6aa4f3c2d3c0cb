//! Runs a node on stdin and stdout. One thread reads lines, and another one owns the node.
//!
//! What must stay true: only messages go to stdout; complaints and the log go to stderr.

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::node::{Node, Options, Out};
use crate::clock::Clock;
use crate::proto::event::Severity;

/// Lines that may wait. When so many do, the reader waits, and Maelstrom with it.
const WAITING: usize = 4_096;
/// Bytes of a line at most: room for the longest message, in hex, and what is around it.
const MAX_LINE: u64 = 64 << 20;
/// How long a node without any timer sleeps.
const IDLE: Duration = Duration::from_secs(3_600);

/// Runs a node until its input has ended and all that it owes is written.
///
/// # Errors
///
/// If stdin cannot be read or stdout cannot be written.
pub fn run(options: Options, rng_seed: u64, least: Severity) -> io::Result<()> {
    let clock = Clock::start();
    let now = || clock.now();
    let patience = options.batch;
    let mut node = Node::new(options, rng_seed);
    let lines = read_lines()?;
    let mut out = Vec::new();
    loop {
        let wait = node.wake_at().map_or(IDLE, |at| at.since(now()));
        match lines.recv_timeout(wait) {
            Ok(line) => node.line(now(), &line?, &mut out),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let time = now();
        if node.wake_at().is_some_and(|at| at <= time) {
            node.tick(time, &mut out);
        }
        write(&mut out, least)?;
    }
    // Gossip that is being gathered still goes out when its time has come; then the node ends.
    let last = now() + patience;
    while !node.end(now(), &mut out) && now() < last {
        write(&mut out, least)?;
        std::thread::sleep(
            node.wake_at().map_or(IDLE, |at| at.since(now())).min(last.since(now())),
        );
        node.tick(now(), &mut out);
    }
    node.tick(now(), &mut out);
    node.end(now(), &mut out);
    write(&mut out, least)
}

fn read_lines() -> io::Result<mpsc::Receiver<io::Result<String>>> {
    let (sender, lines) = mpsc::sync_channel(WAITING);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = io::Read::take(&mut stdin, MAX_LINE).read_until(b'\n', &mut line);
            let line = match read {
                Ok(0) => return,
                // Bytes that are no UTF-8 text are no JSON either, and lead to a complaint.
                Ok(_) => Ok(String::from_utf8_lossy(&line).into_owned()),
                Err(error) => Err(error),
            };
            let failed = line.is_err();
            if sender.send(line).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(lines)
}

fn write(out: &mut Vec<Out>, least: Severity) -> io::Result<()> {
    let (mut messages, mut words) = (String::new(), String::new());
    for out in out.drain(..) {
        let (to, line) = match out {
            Out::Message(message) => (&mut messages, message),
            Out::Complaint(complaint) => (&mut words, complaint),
            Out::Event(event) if event.severity() <= least => (&mut words, event.to_string()),
            Out::Event(_) => continue,
        };
        to.push_str(&line);
        to.push('\n');
    }
    if !words.is_empty() {
        // A failure is ignored, because nobody may be there to read.
        let _ = io::stderr().write_all(words.as_bytes());
    }
    if !messages.is_empty() {
        let mut stdout = io::stdout().lock();
        stdout.write_all(messages.as_bytes())?;
        stdout.flush()?;
    }
    Ok(())
}
