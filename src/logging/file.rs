//! The file side of the log: appended to by any number of processes, one `write` a record.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

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

    /// Writes one record. A failure is told on stderr once, until the file is reopened: the node
    /// goes on without its log.
    fn record(&self, record: &str) {
        let mut open = self.lock();
        let line = match open.torn {
            true => format!("\n{}", cut::line(record, FILE_LINE_LIMIT - 1)),
            false => cut::line(record, FILE_LINE_LIMIT),
        };
        let wrong = match write_once(&mut open.to, line.as_bytes()) {
            Ok(n) if n == line.len() => {
                open.torn = false;
                return;
            }
            // Not completed by a second write: another process may have written in between.
            Ok(n) => {
                open.torn |= n > 0;
                io::Error::from(io::ErrorKind::StorageFull)
            }
            Err(error) => error,
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

fn write_once(to: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match to.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What `fern` writes into: gathers a record until it is flushed, which `fern` does after each.
#[derive(Debug)]
pub(super) struct Lines<W = File> {
    to: Arc<LogFile<W>>,
    record: Vec<u8>,
}

impl<W> Lines<W> {
    pub(super) fn new(to: Arc<LogFile<W>>) -> Self {
        Self { to, record: Vec::new() }
    }
}

impl<W: Write> Write for Lines<W> {
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

    fn lines(to: Writes) -> Lines<Writes> {
        let open = Mutex::new(Open { to, failed: false, torn: false });
        Lines::new(Arc::new(LogFile { path: "test".into(), open }))
    }

    fn log(lines: &mut Lines<Writes>, text: &str) {
        write!(lines, "{text}").unwrap(); // in pieces, as formatting does
        writeln!(lines).unwrap();
        lines.flush().unwrap();
    }

    #[test]
    fn a_record_is_one_write_of_at_most_8000_bytes() {
        let mut lines = lines(Writes::default());
        log(&mut lines, "short");
        log(&mut lines, &"x".repeat(20_000));
        lines.flush().unwrap();
        let written = &lines.to.lock().to.0;
        assert_eq!(written.len(), 2, "one write each");
        assert_eq!(written[0], "short\n");
        assert_eq!(written[1].len(), FILE_LINE_LIMIT);
        assert!(written[1].ends_with(" more)\n"));
    }

    #[test]
    fn a_short_write_does_not_swallow_the_next_line() {
        let mut lines = lines(Writes(Vec::new(), Some(3)));
        for text in ["first", "second", "third"] {
            log(&mut lines, text);
        }
        assert_eq!(lines.to.lock().to.0, ["fir", "\nsecond\n", "third\n"]);
    }

    #[test]
    fn reopening_follows_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = Arc::new(LogFile::open(path.clone()).unwrap());
        file.record("one");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        file.record("two");
        file.reopen().unwrap();
        file.record("three");
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
                    (0..50).for_each(|_| file.record(&text));
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
