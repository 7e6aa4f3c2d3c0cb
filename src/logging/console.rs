//! The console side of the log: a terminal, or a pipe that perhaps nobody reads.
//!
//! A thread of its own writes, behind a bounded queue, because a write to a pipe whose reader is
//! stuck never returns. Then lines are dropped from the console (the file has them all), and when
//! the reader is gone for good the thread ends.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::{CONSOLE_LINE_LIMIT, Screen, cut};

/// Lines that wait for the console at most: 1 MB if all are as long as they may be.
const QUEUE: usize = 1_024;

/// Bytes of stack of the writing thread, which does next to nothing.
const STACK: usize = 64 * 1024;

/// How long to wait before trying again to write to a console that does not block and is full.
const RETRY: Duration = Duration::from_millis(10);

/// The queue before the console, shared with the thread that empties it.
#[derive(Debug)]
pub(super) struct Console {
    state: Mutex<State>,
    changed: Condvar,
    colour: bool,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    /// A line is out of the queue and not written yet.
    writing: bool,
    /// The reader is gone.
    closed: bool,
}

impl Console {
    /// The console there; coloured if that is a terminal and NO_COLOR does not forbid it.
    pub(super) fn on(screen: Screen) -> io::Result<Arc<Self>> {
        let may_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // A copy of the descriptor: std's own stdout is locked while a write is stuck.
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
        match screen {
            Screen::Stdout => {
                let stdout = io::stdout();
                Self::start(copy(stdout.as_fd())?, stdout.is_terminal() && may_colour)
            }
            Screen::Stderr => {
                let stderr = io::stderr();
                Self::start(copy(stderr.as_fd())?, stderr.is_terminal() && may_colour)
            }
            Screen::Prompt(prompt) => Self::start(prompt, may_colour),
        }
    }

    fn start(to: impl Write + Send + 'static, colour: bool) -> io::Result<Arc<Self>> {
        let state = Mutex::new(State::default());
        let console = Arc::new(Self { state, changed: Condvar::new(), colour });
        let shared = Arc::clone(&console);
        thread::Builder::new()
            .name("console".into())
            .stack_size(STACK)
            .spawn(move || shared.write_all_lines(to))?;
        Ok(console)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, at_most);
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }

    /// The thread: ends when the reader is gone.
    fn write_all_lines(&self, mut to: impl Write) {
        const FOREVER: Duration = Duration::from_secs(3_600);
        let mut state = self.lock();
        loop {
            let Some(line) = state.lines.pop_front() else {
                state = self.wait(state, FOREVER);
                continue;
            };
            state.writing = true;
            drop(state);
            let written = write_line(&mut to, line.as_bytes());
            state = self.lock();
            state.writing = false;
            if written.is_err() {
                state.closed = true;
                state.lines = VecDeque::new();
            }
            self.changed.notify_all();
            if state.closed {
                return;
            }
        }
    }

    /// Queues one record, or drops it if the console does not keep up.
    fn record(&self, record: &str) {
        let line = match self.colour {
            true => coloured(&cut::line(record, CONSOLE_LINE_LIMIT - COLOUR_BYTES)),
            false => cut::line(record, CONSOLE_LINE_LIMIT),
        };
        let mut state = self.lock();
        if !state.closed && state.lines.len() < QUEUE {
            state.lines.push_back(line);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits until all lines are written, at most `timeout`; whether they are.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.writing || !state.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.wait(state, left);
        }
        true
    }
}

/// One `write` in all but the rarest case: a line is shorter than what a pipe takes in one piece.
fn write_line(to: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match to.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => line = line.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Bytes that colour adds to a line.
const COLOUR_BYTES: usize = "\x1b[31m\x1b[0m".len();

/// The line with its level, the second word, in colour.
fn coloured(line: &str) -> String {
    let mut words = line.splitn(3, ' ');
    let (Some(time), Some(level), Some(rest)) = (words.next(), words.next(), words.next()) else {
        return line.to_owned();
    };
    let colour = match level {
        "ERROR" => 31,
        "WARN" => 33,
        "INFO" => 32,
        "DEBUG" => 36,
        _ => 35,
    };
    format!("{time} \x1b[{colour}m{level}\x1b[0m {rest}")
}

/// What `fern` writes into: gathers a record until it is flushed, which `fern` does after each.
#[derive(Debug)]
pub(super) struct Lines {
    to: Arc<Console>,
    record: Vec<u8>,
}

impl Lines {
    pub(super) fn new(to: Arc<Console>) -> Self {
        Self { to, record: Vec::new() }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.record.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let record = std::mem::take(&mut self.record);
        if !record.is_empty() {
            let text = String::from_utf8_lossy(&record);
            self.to.record(text.strip_suffix('\n').unwrap_or(&text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Sends each write to the test; with a gate, waits for it before each.
    struct Gated {
        gate: Option<mpsc::Receiver<()>>,
        out: mpsc::Sender<String>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.out.send(text).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn lines_come_out_in_order_one_write_each() {
        let (out, written) = mpsc::channel();
        let console = Console::start(Gated { gate: None, out }, false).unwrap();
        for i in 0..100 {
            console.record(&format!("t INFO line {i}"));
        }
        console.record(&"x".repeat(5_000));
        assert!(console.flush(LONG));
        let lines: Vec<String> = written.try_iter().collect();
        assert_eq!(lines.len(), 101);
        assert_eq!(lines[99], "t INFO line 99\n");
        assert_eq!(lines[100].len(), CONSOLE_LINE_LIMIT);
    }

    #[test]
    fn a_stuck_reader_blocks_nobody_and_bounds_the_queue() {
        let (out, written) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        let console = Console::start(Gated { gate: Some(gate), out }, false).unwrap();
        for i in 0..QUEUE + 500 {
            console.record(&format!("line {i}"));
        }
        assert!(console.lock().lines.len() <= QUEUE);
        assert!(!console.flush(Duration::from_millis(20)), "flush gives up");
        drop(open);
        assert!(console.flush(LONG));
        let lines = written.try_iter().count();
        assert!((QUEUE..=QUEUE + 1).contains(&lines), "{lines} lines");
    }

    #[test]
    fn a_reader_that_is_gone_kills_nobody() {
        let (out, written) = mpsc::channel();
        drop(written);
        let console = Console::start(Gated { gate: None, out }, false).unwrap();
        console.record("into the void");
        assert!(console.flush(LONG), "nothing is waited for");
        console.record("still");
        assert!(console.lock().lines.is_empty());
    }

    #[test]
    fn colour_touches_the_level_alone_and_counts_towards_the_limit() {
        assert_eq!(coloured("t WARN seed a b=1\n"), "t \x1b[33mWARN\x1b[0m seed a b=1\n");
        let (out, written) = mpsc::channel();
        let console = Console::start(Gated { gate: None, out }, true).unwrap();
        console.record(&format!("t INFO {}", "x".repeat(2_000)));
        assert!(console.flush(LONG));
        assert_eq!(written.recv().unwrap().len(), CONSOLE_LINE_LIMIT);
    }
}
