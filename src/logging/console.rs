//! The console side of the log: a terminal, or a pipe that perhaps nobody reads.
//!
//! A thread of its own writes, behind a bounded queue, because a write to a pipe whose reader is
//! stuck never returns. The thread writes waiting lines together, but no more at once than a single
//! line may have. If the reader does not keep up, lines are dropped from the console; the file has
//! them all. When the reader is gone for good, the thread ends.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::{CONSOLE_LINE_LIMIT, Screen, cut};

/// Bytes of lines that may wait for the console, some thousand lines. As many again may be in the
/// hands of the writing thread.
const QUEUE: usize = 128 * 1_024;

/// Bytes that are written together at most. If they were more than `PIPE_BUF` (4,096), another
/// process could write to the same pipe in between.
const TOGETHER: usize = CONSOLE_LINE_LIMIT;

/// Bytes of stack of the writing thread, which needs next to none.
const STACK: usize = 64 * 1024;

/// Pause before the next attempt to write to a console that is full and does not block.
const RETRY: Duration = Duration::from_millis(10);

/// The queue in front of the console, which the writing thread empties.
#[derive(Debug)]
pub(super) struct Console {
    state: Mutex<State>,
    changed: Condvar,
    colour: bool,
}

#[derive(Debug, Default)]
struct State {
    lines: String,
    /// Whether lines are out of the queue and not written yet.
    writing: bool,
    /// Whether the thread waits for lines.
    idle: bool,
    /// Number of threads that wait until all is written.
    flushing: usize,
    /// Whether the reader is gone.
    closed: bool,
}

impl Console {
    /// The console on that screen. It is coloured if it is a terminal and NO_COLOR does not forbid
    /// it.
    pub(super) fn on(screen: Screen) -> io::Result<Arc<Self>> {
        let may_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // The descriptor is copied, because std's own stdout stays locked while a write is stuck.
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

    pub(super) fn start(to: impl Write + Send + 'static, colour: bool) -> io::Result<Arc<Self>> {
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

    /// Writes lines until the reader is gone; this is the thread's work.
    fn write_all_lines(&self, mut to: impl Write) {
        const FOREVER: Duration = Duration::from_secs(3_600);
        let mut lines = String::new();
        let mut state = self.lock();
        loop {
            if state.lines.is_empty() {
                state.idle = true;
                state = self.wait(state, FOREVER);
                state.idle = false;
                continue;
            }
            std::mem::swap(&mut state.lines, &mut lines);
            state.writing = true;
            drop(state);
            let written = write_lines(&mut to, lines.as_bytes());
            lines.clear();
            state = self.lock();
            state.writing = false;
            if written.is_err() {
                state.closed = true;
                state.lines = String::new();
            }
            if state.flushing > 0 {
                self.changed.notify_all();
            }
            if state.closed {
                return;
            }
        }
    }

    /// Appends a record to `lines` as a line of the console.
    pub(super) fn line(&self, record: &str, lines: &mut String) {
        if self.colour {
            let mut line = String::new();
            cut::line(record, CONSOLE_LINE_LIMIT - COLOUR_BYTES, &mut line);
            lines.push_str(&coloured(&line));
        } else {
            cut::line(record, CONSOLE_LINE_LIMIT, lines);
        }
    }

    /// Queues lines. Those that find no room are dropped: the console does not keep up.
    pub(super) fn write(&self, lines: &str) {
        let mut state = self.lock();
        if state.closed || lines.is_empty() {
            return;
        }
        for line in lines.split_inclusive('\n') {
            if state.lines.len() + line.len() <= QUEUE {
                state.lines.push_str(line);
            }
        }
        // Only a thread that waits is woken, because a call to wake goes to the system even if none
        // waits.
        let wake = state.idle;
        drop(state);
        if wake {
            self.changed.notify_all();
        }
    }

    /// Waits until all lines are written, at most for `timeout`. Returns whether they are.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        state.flushing += 1;
        while state.writing || !state.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.wait(state, left);
        }
        state.flushing -= 1;
        !state.writing && state.lines.is_empty()
    }
}

/// Writes whole lines together, as many at once as a pipe takes in one piece.
fn write_lines(to: &mut impl Write, mut lines: &[u8]) -> io::Result<()> {
    while !lines.is_empty() {
        let most = lines.get(..TOGETHER).unwrap_or(lines);
        let end = most.iter().rposition(|byte| *byte == b'\n').map_or(most.len(), |end| end + 1);
        let (some, rest) = lines.split_at_checked(end).unwrap_or((lines, &[]));
        write_all(to, some)?;
        lines = rest;
    }
    Ok(())
}

/// Writes all of it: in one `write` nearly always, because it is no more than a pipe takes in one
/// piece.
fn write_all(to: &mut impl Write, mut lines: &[u8]) -> io::Result<()> {
    while !lines.is_empty() {
        match to.write(lines) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => lines = lines.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Bytes that colour adds to a line.
const COLOUR_BYTES: usize = "\x1b[31m\x1b[0m".len();

/// The line, with its level, which is the second word, in colour.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Sends each write to the test. If there is a gate, waits for it before each write.
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

    fn record(console: &Console, record: &str) {
        let mut line = String::new();
        console.line(record, &mut line);
        console.write(&line);
    }

    #[test]
    fn lines_come_out_in_order_and_whole_in_writes_that_a_pipe_takes_in_one_piece() {
        let (out, written) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        let console = Console::start(Gated { gate: Some(gate), out }, false).unwrap();
        let lines: Vec<String> = (0..1_000).map(|i| format!("t INFO line {i}\n")).collect();
        let (some, others) = lines.split_at(500);
        console.write(&some.concat());
        others.iter().for_each(|line| console.write(line));
        record(&console, &"x".repeat(5_000));
        drop(open);
        assert!(console.flush(LONG));
        let writes: Vec<String> = written.try_iter().collect();
        assert!(writes.len() < 20, "{} writes", writes.len());
        assert!(writes.iter().all(|write| write.len() <= TOGETHER && write.ends_with('\n')));
        let whole = writes.concat();
        assert!(whole.starts_with(&lines.concat()));
        assert_eq!(whole.lines().last().unwrap().len() + 1, CONSOLE_LINE_LIMIT);
    }

    #[test]
    fn a_stuck_reader_blocks_nobody_and_bounds_the_queue() {
        let (out, written) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        let console = Console::start(Gated { gate: Some(gate), out }, false).unwrap();
        for i in 0..QUEUE / 8 {
            record(&console, &format!("line {i}"));
        }
        assert!(console.lock().lines.len() <= QUEUE);
        assert!(!console.flush(Duration::from_millis(20)), "flush gives up");
        drop(open);
        assert!(console.flush(LONG));
        let text: String = written.try_iter().collect();
        assert!((QUEUE - 100..=2 * QUEUE).contains(&text.len()), "{} bytes", text.len());
        assert!(text.lines().all(|line| line.starts_with("line ")), "a line is torn");
    }

    #[test]
    fn a_reader_that_is_gone_kills_nobody() {
        let (out, written) = mpsc::channel();
        drop(written);
        let console = Console::start(Gated { gate: None, out }, false).unwrap();
        record(&console, "into the void");
        assert!(console.flush(LONG), "nothing is waited for");
        record(&console, "still");
        assert!(console.lock().lines.is_empty());
    }

    #[test]
    fn colour_touches_the_level_alone_and_counts_towards_the_limit() {
        assert_eq!(coloured("t WARN seed a b=1\n"), "t \x1b[33mWARN\x1b[0m seed a b=1\n");
        let (out, written) = mpsc::channel();
        let console = Console::start(Gated { gate: None, out }, true).unwrap();
        record(&console, &format!("t INFO {}", "x".repeat(2_000)));
        assert!(console.flush(LONG));
        assert_eq!(written.recv().unwrap().len(), CONSOLE_LINE_LIMIT);
    }
}
