//! Lines of one turn of a node, written together.
//!
//! What must stay true: a line is in one `write`, whole, whatever it shares that with; and what a
//! turn logs is written before the turn ends, so that nobody outside hears of a thing that the log
//! does not tell. A node that handles much in one turn logs much: a `write` a line was a tenth of
//! what a registration cost its seeds.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use super::console::Console;
use super::file::LogFile;

/// Bytes of the file that are written together at most, if they are more than one line. A page: a
/// `write` is cut short only between pages, by `kill -9` or a full disk, so that many lines in one
/// are no likelier to be torn than each by itself.
const TOGETHER: usize = 4_096;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sinks {
    pub file: Arc<LogFile>,
    pub console: Arc<Console>,
}

/// Lines that wait for the end of the turn that a thread is in.
#[derive(Debug)]
struct Waiting {
    /// Where they go, once there is one.
    to: Option<Arc<Sinks>>,
    file: String,
    console: String,
}

thread_local! {
    /// The turn that this thread is in.
    static TURN: RefCell<Option<Waiting>> = const { RefCell::new(None) };
}

impl Sinks {
    /// Takes one record, and writes it: at once, or at the end of the turn.
    pub fn record(self: &Arc<Self>, record: &str) {
        let taken = TURN.try_with(|turn| match &mut *turn.borrow_mut() {
            Some(waiting) => waiting.take(self, record),
            None => false,
        });
        if taken != Ok(true) {
            let mut alone = Waiting::new();
            alone.take(self, record);
            alone.write();
        }
    }
}

impl Waiting {
    const fn new() -> Self {
        Self { to: None, file: String::new(), console: String::new() }
    }

    /// Takes a record in, unless the others go elsewhere.
    fn take(&mut self, to: &Arc<Sinks>, record: &str) -> bool {
        if !Arc::ptr_eq(self.to.get_or_insert_with(|| Arc::clone(to)), to) {
            return false;
        }
        let before = self.file.len();
        to.file.line(record, &mut self.file);
        if self.file.len() > TOGETHER && before > 0 {
            let line = self.file.split_off(before);
            self.write();
            self.file.push_str(&line);
        }
        to.console.line(record, &mut self.console);
        true
    }

    fn write(&mut self) {
        let Some(to) = &self.to else { return };
        if self.file.is_empty() {
            return;
        }
        to.file.write(&self.file);
        self.file.clear();
        to.console.write(&self.console);
        self.console.clear();
    }
}

/// A turn: what this thread logs until it is dropped is written together.
#[derive(Debug)]
#[must_use]
pub(crate) struct Together {
    /// It is that thread's.
    thread: PhantomData<*const ()>,
    /// Within another turn, which goes on.
    inner: bool,
}

/// Begins a turn.
pub(crate) fn together() -> Together {
    let inner = TURN.try_with(|turn| match &mut *turn.borrow_mut() {
        Some(_) => true,
        none => {
            *none = Some(Waiting::new());
            false
        }
    });
    Together { thread: PhantomData, inner: inner.unwrap_or(true) }
}

/// Writes what this turn has logged so far: somebody is about to see something of it.
pub(crate) fn catch_up() {
    let _ = TURN.try_with(|turn| {
        if let Some(waiting) = &mut *turn.borrow_mut() {
            waiting.write();
        }
    });
}

impl Drop for Together {
    fn drop(&mut self) {
        if !self.inner
            && let Ok(Some(mut waiting)) = TURN.try_with(|turn| turn.borrow_mut().take())
        {
            waiting.write();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::PathBuf;

    fn sinks_to(path: PathBuf) -> Arc<Sinks> {
        let file = Arc::new(LogFile::open(path).unwrap());
        Arc::new(Sinks { file, console: Console::start(io::sink(), false).unwrap() })
    }

    fn sinks() -> (tempfile::TempDir, Arc<Sinks>) {
        let dir = tempfile::tempdir().unwrap();
        let sinks = sinks_to(dir.path().join("log"));
        (dir, sinks)
    }

    #[test]
    fn the_lines_of_a_turn_are_written_at_its_end_or_when_they_fill_a_page() {
        let (dir, sinks) = sinks();
        let read = || std::fs::read_to_string(dir.path().join("log")).unwrap();
        sinks.record("before");
        assert_eq!(read(), "before\n");
        let turn = together();
        sinks.record("one");
        let inner = together();
        sinks.record("two");
        drop(inner);
        assert_eq!(read(), "before\n");
        catch_up();
        assert_eq!(read(), "before\none\ntwo\n");
        sinks.record("three");
        assert_eq!(read(), "before\none\ntwo\n");
        drop(turn);
        assert_eq!(read(), "before\none\ntwo\nthree\n");
        sinks.record("after");
        assert_eq!(read(), "before\none\ntwo\nthree\nafter\n");

        let turn = together();
        let long = "x".repeat(TOGETHER - 1);
        sinks.record("short");
        sinks.record(&long);
        assert!(read().ends_with("after\nshort\n"), "what would not fit waits for the next write");
        drop(turn);
        assert!(read().ends_with(&format!("short\n{long}\n")));
    }

    #[test]
    fn a_turn_that_panics_has_written_what_it_logged() {
        let (dir, sinks) = sinks();
        let _ = std::thread::spawn(move || {
            let _turn = together();
            sinks.record("last words");
            std::panic::resume_unwind(Box::new(()));
        })
        .join();
        assert_eq!(std::fs::read_to_string(dir.path().join("log")).unwrap(), "last words\n");
    }

    /// Each thread is a process with a file of its own; the kernel does not tell them apart.
    #[test]
    fn turns_of_several_writers_tear_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let sinks = sinks_to(path.clone());
                scope.spawn(move || {
                    for round in 0..200 {
                        let _turn = together();
                        for line in 0..60 {
                            // Of all lengths, so that writes end anywhere in a page.
                            let length = 1 + (round * 7 + line * 13) % 400;
                            sinks.record(&format!("{writer}").repeat(length));
                        }
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
