//! Gathers lines, so that those of one turn are written together.
//!
//! What must stay true: each line is whole in one `write`, however many others are in it. A node
//! that handles much in one turn logs much, and hands over all lines of the turn at once: one
//! `write` for each line took a tenth of what a registration costs its seeds.

use std::sync::{Arc, Mutex, MutexGuard};

use super::console::Console;
use super::file::LogFile;

/// Bytes that are written to the file together at most, unless a single line is longer. This is one
/// page: a `write` is cut short only between pages, by `kill -9` or a full disk, so many lines in
/// one page are no likelier to be torn than each by itself.
const TOGETHER: usize = 4_096;

/// The file and the console to which lines go, and the lines that wait for them.
#[derive(Debug)]
pub(super) struct Sinks {
    pub file: Arc<LogFile>,
    pub console: Arc<Console>,
    waiting: Mutex<Waiting>,
}

/// Lines that have been taken and are not written yet.
#[derive(Debug, Default)]
struct Waiting {
    file: String,
    console: String,
}

impl Sinks {
    pub fn new(file: Arc<LogFile>, console: Arc<Console>) -> Self {
        Self { file, console, waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes one record; the next [`Sinks::write`] writes it.
    pub fn take(&self, record: &str) {
        let mut waiting = self.waiting();
        let before = waiting.file.len();
        self.file.line(record, &mut waiting.file);
        if waiting.file.len() > TOGETHER && before > 0 {
            let line = waiting.file.split_off(before);
            self.write_out(&mut waiting);
            waiting.file.push_str(&line);
        }
        self.console.line(record, &mut waiting.console);
    }

    /// Writes the lines that wait.
    pub fn write(&self) {
        self.write_out(&mut self.waiting());
    }

    fn write_out(&self, waiting: &mut Waiting) {
        if !waiting.file.is_empty() {
            self.file.write(&waiting.file);
            waiting.file.clear();
            self.console.write(&waiting.console);
            waiting.console.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::PathBuf;

    fn sinks_to(path: PathBuf) -> Sinks {
        let file = Arc::new(LogFile::open(path).unwrap());
        Sinks::new(file, Console::start(io::sink(), false).unwrap())
    }

    #[test]
    fn lines_are_written_when_that_is_asked_for_or_when_they_fill_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let sinks = sinks_to(dir.path().join("log"));
        let read = || std::fs::read_to_string(dir.path().join("log")).unwrap();
        sinks.take("one");
        sinks.take("two");
        assert_eq!(read(), "");
        sinks.write();
        assert_eq!(read(), "one\ntwo\n");
        sinks.write();
        assert_eq!(read(), "one\ntwo\n");

        let long = "x".repeat(TOGETHER - 1);
        sinks.take("short");
        sinks.take(&long);
        assert!(read().ends_with("two\nshort\n"), "what would not fit waits for the next write");
        sinks.write();
        assert!(read().ends_with(&format!("short\n{long}\n")));
    }

    /// Each thread stands for a process with a file of its own; the kernel does not tell them
    /// apart.
    #[test]
    fn turns_of_several_writers_tear_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let sinks = sinks_to(path.clone());
                scope.spawn(move || {
                    for round in 0..200 {
                        for line in 0..60 {
                            // The lines have all lengths, so that writes end anywhere in a page.
                            let length = 1 + (round * 7 + line * 13) % 400;
                            sinks.take(&format!("{writer}").repeat(length));
                        }
                        sinks.write();
                    }
                });
            }
        });
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 4 * 200 * 60);
        for line in text.lines() {
            assert!(line.bytes().all(|b| b == line.as_bytes()[0]), "torn: {line}");
        }
    }
}
