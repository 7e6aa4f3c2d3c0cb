//! The file side of the log: appended to by any number of processes, whole lines in one `write`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::{FILE_LINE_LIMIT, LogError, cut};

/// The open file; replaced by [`LogFile::reopen`].
#[derive(Debug)]
pub(super) struct LogFile<W = File> {
    path: PathBuf,
    open: Mutex<Open<W>>,
}

#[derive(Debug)]
struct Open<W> {
    to: W,
    /// The last write failed or was short.
    failed: bool,
    /// Half a line is at the end of the file: the next record starts with a newline.
    torn: bool,
}

impl LogFile {
    pub(super) fn open(path: PathBuf) -> Result<Self, LogError> {
        let to = append(&path)?;
        Ok(Self { path, open: Mutex::new(Open { to, failed: false, torn: false }) })
    }

    pub(super) fn reopen(&self) -> Result<(), LogError> {
        let to = append(&self.path)?;
        *self.lock() = Open { to, failed: false, torn: false };
        Ok(())
    }
}

/// Append mode is what keeps the lines of several processes apart: the system puts each write at
/// the end of the file, wherever that is by then.
fn append(path: &Path) -> Result<File, LogError> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|source| LogError::Open { path: path.to_owned(), source })
}

impl<W: Write> LogFile<W> {
    fn lock(&self) -> MutexGuard<'_, Open<W>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Appends a record to `lines` as a line of the file.
    pub(super) fn line(&self, record: &str, lines: &mut String) {
        // A byte less than the limit, so that there is room for the end of a torn line before it.
        cut::line(record, FILE_LINE_LIMIT - 1, lines);
    }

    /// Writes some lines. A failure is told on stderr once, until the file is reopened: the node
    /// goes on without its log.
    pub(super) fn write(&self, lines: &str) {
        let mut open = self.lock();
        let mut lines = lines.as_bytes();
        while !lines.is_empty() {
            let end = if open.torn { 1 } else { 0 };
            let done = match end {
                0 => write_once(&mut open.to, lines),
                _ => write_once(&mut open.to, &[b"\n", lines].concat()),
            };
            let wrong = match done {
                Ok(n) => {
                    let (done, rest) =
                        lines.split_at_checked(n.saturating_sub(end)).unwrap_or((lines, &[]));
                    let whole = done.last().is_none_or(|last| *last == b'\n');
                    open.torn = if n > 0 { !whole } else { open.torn };
                    if rest.is_empty() {
                        return;
                    }
                    // The line that was cut, or else the first, is not tried again: another process
                    // may have written in between. Those behind it are.
                    lines = if done.is_empty() || !whole { after_a_line(rest) } else { rest };
                    io::Error::from(io::ErrorKind::StorageFull)
                }
                Err(error) => {
                    lines = &[];
                    error
                }
            };
            if !open.failed {
                open.failed = true;
                let path = self.path.display();
                let _ = writeln!(
                    io::stderr(),
                    "cannot write the log {path}: {wrong}; the node goes on, free space and send SIGUSR1"
                );
            }
        }
    }
}

/// What follows the first end of a line.
fn after_a_line(lines: &[u8]) -> &[u8] {
    let end = lines.iter().position(|byte| *byte == b'\n');
    end.and_then(|end| lines.get(end + 1..)).unwrap_or_default()
}

fn write_once(to: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match to.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers each write; takes at most `take` bytes of the first.
    #[derive(Default)]
    struct Writes(Vec<String>, Option<usize>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.1.take().unwrap_or(bytes.len());
            self.0.push(String::from_utf8(bytes[..taken].to_vec()).unwrap());
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn file(to: Writes) -> LogFile<Writes> {
        LogFile { path: "test".into(), open: Mutex::new(Open { to, failed: false, torn: false }) }
    }

    fn record<W: Write>(file: &LogFile<W>, record: &str) {
        let mut line = String::new();
        file.line(record, &mut line);
        file.write(&line);
    }

    #[test]
    fn a_record_is_one_write_of_at_most_8000_bytes() {
        let file = file(Writes::default());
        record(&file, "short");
        record(&file, &"x".repeat(20_000));
        let written = &file.lock().to.0;
        assert_eq!(written.len(), 2, "one write each");
        assert_eq!(written[0], "short\n");
        assert_eq!(written[1].len(), FILE_LINE_LIMIT - 1);
        assert!(written[1].ends_with(" more)\n"));
    }

    #[test]
    fn a_short_write_does_not_swallow_the_next_line() {
        for (lines, expected) in [
            (&["first\n", "second\n", "third\n"][..], &["fir", "\nsecond\n", "third\n"][..]),
            (&["first\nsecond\nthird\n", "fourth\n"], &["fir", "\nsecond\nthird\n", "fourth\n"]),
            (&["1\n2\n3\n", "4\n"], &["1\n2", "\n3\n", "4\n"]),
            (&["12\n34\n", "5\n"], &["12\n", "34\n", "5\n"]),
        ] {
            let file = file(Writes(Vec::new(), Some(3)));
            lines.iter().for_each(|lines| file.write(lines));
            assert_eq!(file.lock().to.0, expected);
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_is_not_asked_for_ever() {
        let file = file(Writes(Vec::new(), Some(0)));
        file.write("first\nsecond\n");
        assert_eq!(file.lock().to.0, ["", "second\n"]);
    }

    #[test]
    fn reopening_follows_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = LogFile::open(path.clone()).unwrap();
        record(&file, "one");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        record(&file, "two");
        file.reopen().unwrap();
        record(&file, "three");
        assert_eq!(std::fs::read_to_string(dir.path().join("log.1")).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
    }

    #[test]
    fn threads_and_handles_that_share_a_file_tear_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = path.clone();
                scope.spawn(move || {
                    let file = LogFile::open(path).unwrap();
                    let text = format!("{writer}").repeat(3_000);
                    (0..50).for_each(|_| record(&file, &text));
                });
            }
        });
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 200);
        for line in text.lines() {
            assert_eq!(line.len(), 3_000);
            assert!(line.bytes().all(|b| b == line.as_bytes()[0]), "torn: {line}");
        }
    }
}
