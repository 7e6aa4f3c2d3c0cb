//! The file side of the log. Any number of processes append to the file.
//!
//! What must stay true: lines are written whole, in one `write`; on a full disk half a line is
//! taken back or gets an end of its own, so that it never runs into the next line.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::{FILE_LINE_LIMIT, LogError, cut};

/// The open file, which [`LogFile::reopen`] replaces.
#[derive(Debug)]
pub(super) struct LogFile<W = File> {
    path: PathBuf,
    open: Mutex<Open<W>>,
}

#[derive(Debug)]
struct Open<W> {
    to: W,
    /// Whether the last write failed or was short; it is told once.
    failed: bool,
    /// Whether half a line is at the end of the file. Then the next record starts with a newline.
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

/// A file that takes lines, and can take half a line back.
pub(super) trait Lines: Write {
    /// Takes back the last `bytes` of the last write: they are half a line, because there was no
    /// room for the rest. The file then ends with a whole line. False if the half line stays.
    fn take_back(&mut self, path: &Path, bytes: usize) -> bool;
}

impl Lines for File {
    /// In append mode the position is where the last write ended. If that is still the end of the
    /// file, nobody has written since, and the half line is cut off. Another process could write in
    /// the moment between check and cut, but its disk is as full as ours. If somebody has written
    /// since, the last byte of the half line becomes a newline, so that the line behind it is
    /// whole.
    fn take_back(&mut self, path: &Path, bytes: usize) -> bool {
        let (Ok(end), Ok(here)) = (self.stream_position(), self.metadata()) else { return false };
        let Some(begin) = u64::try_from(bytes).ok().and_then(|bytes| end.checked_sub(bytes)) else {
            return false;
        };
        if here.len() == end {
            return self.set_len(begin).is_ok();
        }
        // A descriptor in append mode would write at the end of the file, whatever the position.
        let Ok(again) = OpenOptions::new().write(true).open(path) else { return false };
        let same =
            again.metadata().is_ok_and(|it| (it.dev(), it.ino()) == (here.dev(), here.ino()));
        same && end > begin && again.write_all_at(b"\n", end - 1).is_ok()
    }
}

/// Append mode keeps the lines of several processes apart: the system puts each write at the end of
/// the file, wherever the end is by then.
fn append(path: &Path) -> Result<File, LogError> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|source| LogError::Open { path: path.to_owned(), source })
}

impl<W: Lines> LogFile<W> {
    fn lock(&self) -> MutexGuard<'_, Open<W>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Appends a record to `lines` as a line of the file.
    pub(super) fn line(&self, record: &str, lines: &mut String) {
        // One byte less than the limit leaves room for the newline that ends a torn line before it.
        cut::line(record, FILE_LINE_LIMIT - 1, lines);
    }

    /// Writes lines. The first failure is told on stderr, and further ones are not until the file
    /// is reopened. The node goes on without its log.
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
                    if !whole {
                        let half = done.iter().rev().take_while(|byte| **byte != b'\n').count();
                        // The end of an older torn line, which went out in front, stays.
                        open.torn = !open.to.take_back(&self.path, half);
                    } else if n > 0 {
                        open.torn = false;
                    }
                    if rest.is_empty() {
                        return;
                    }
                    // The line that was cut, or else the first, is not tried again, because another
                    // process may have written in between. The lines behind it are tried.
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

/// The part behind the first end of a line.
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

    /// Remembers each write. Takes only so many bytes of the first, if a number is given.
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

    impl Lines for Writes {
        fn take_back(&mut self, _: &Path, _: usize) -> bool {
            false
        }
    }

    /// A file on a disk that has room for so many more bytes.
    struct Full(File, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.1);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1 -= taken;
            self.0.write(&bytes[..taken])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines for Full {
        fn take_back(&mut self, path: &Path, bytes: usize) -> bool {
            self.0.take_back(path, bytes)
        }
    }

    #[test]
    fn on_a_full_disk_the_file_ends_with_a_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        for room in 0..=17 {
            let path = dir.path().join(room.to_string());
            let to = Full(append(&path).unwrap(), room);
            let open = Mutex::new(Open { to, failed: false, torn: false });
            let file = LogFile { path: path.clone(), open };
            file.write("first\nsecond\n");
            file.write("third\n");
            let left = std::fs::read_to_string(&path).unwrap();
            assert!(left.is_empty() || left.ends_with('\n'), "room for {room}: {left:?}");
            let whole = |line: &str| ["first", "second", "third"].contains(&line);
            assert!(left.lines().all(whole), "room for {room}: {left:?}");
            file.lock().to.1 = 100;
            file.write("later\n");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{left}later\n"));
        }
    }

    #[test]
    fn half_a_line_that_another_process_has_written_behind_gets_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut mine = append(&path).unwrap();
        mine.write_all(b"whole\nhalf").unwrap();
        append(&path).unwrap().write_all(b"another\n").unwrap();
        assert!(mine.take_back(&path, 4));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nhal\nanother\n");
    }

    fn record<W: Lines>(file: &LogFile<W>, record: &str) {
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
