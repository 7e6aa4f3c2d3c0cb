//! The log of a program: a file that others write, too, and the console.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::console::Console;
use super::file::LogFile;
use super::gather::Sinks;
use super::{Sink, TARGET};
use crate::proto::event::Event;
use crate::proto::message::{Addr, Role};

/// Bytes of a line in the file at most, newline included: far below what a local file system
/// writes in one piece.
pub const FILE_LINE_LIMIT: usize = 8_000;

/// Bytes of a line on the console at most, newline included: below the 4,096 that a pipe takes in
/// one piece.
pub const CONSOLE_LINE_LIMIT: usize = 1_000;

/// Where the lines of the log go beside the file.
#[derive(Default)]
pub enum Screen {
    /// To stdout.
    #[default]
    Stdout,
    /// To stderr: stdout is for answers.
    Stderr,
    /// To whatever shows them above a line that is being edited.
    Prompt(Box<dyn io::Write + Send>),
}

/// Where the log goes, and how much of it.
pub struct LogOptions {
    /// The file that is appended to, and created if it does not exist.
    pub file: PathBuf,
    /// What matters less than this is not logged.
    pub level: log::LevelFilter,
    /// Where the same lines go for people to read.
    pub screen: Screen,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened for appending.
    #[error("cannot open the log {}: {source}; name a file that can be written with --log-file", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The console's thread cannot be started, or its descriptor cannot be used.
    #[error("cannot log to the console: {0}; free some memory, processes or file descriptors")]
    Console(io::Error),
    /// The process has a logger already.
    #[error("the log is set up already; call logging::init once in a process")]
    Twice,
}

/// The log of this process: what nodes write to, and what is needed to reopen and to flush it.
#[derive(Clone)]
pub struct LogHandle {
    sinks: Arc<Sinks>,
    /// Formats a record, and hands it to `sinks`.
    logger: Arc<dyn log::Log>,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("sinks", &self.sinks).finish_non_exhaustive()
    }
}

impl LogHandle {
    /// Opens the file again under its name, so that logrotate can move the old one away.
    ///
    /// # Errors
    ///
    /// [`LogError::Open`]; the log then goes on to the file that was open before.
    pub fn reopen(&self) -> Result<(), LogError> {
        self.sinks.file.reopen()
    }

    /// Waits until the console has taken all lines, at most `timeout`; whether it has. The file
    /// never lags.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.sinks.console.flush(timeout)
    }
}

impl Sink for LogHandle {
    /// One `write` for all lines, unless they fill more than a page.
    fn write(&self, role: Role, me: Addr, events: &[Event]) {
        for event in events {
            super::record(&*self.logger, role, me, event);
        }
        self.sinks.write();
    }
}

/// The logger of the process, for whoever logs by the `log` crate: each record is written at once.
struct AtOnce(LogHandle);

impl log::Log for AtOnce {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.0.logger.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.logger.log(record);
        self.0.sinks.write();
    }

    fn flush(&self) {}
}

/// Starts the log of this process.
///
/// # Errors
///
/// The file cannot be opened, the console cannot be used, or the process has a logger already.
pub fn init(options: LogOptions) -> Result<LogHandle, LogError> {
    let file = Arc::new(LogFile::open(options.file)?);
    let console = Console::on(options.screen).map_err(LogError::Console)?;
    let sinks = Arc::new(Sinks::new(file, console));
    let to = Arc::clone(&sinks);
    let (level, logger) = dispatch(options.level, move |line| to.take(line)).into_log();
    let handle = LogHandle { sinks, logger: logger.into() };
    log::set_boxed_logger(Box::new(AtOnce(handle.clone()))).map_err(|_| LogError::Twice)?;
    log::set_max_level(level);
    Ok(handle)
}

/// Level, target and time; `record` sees to the rest of a line.
fn dispatch(
    level: log::LevelFilter,
    record: impl Fn(&str) + Send + Sync + 'static,
) -> fern::Dispatch {
    fern::Dispatch::new()
        .level(log::LevelFilter::Off)
        .level_for(TARGET, level)
        .filter(|metadata| metadata.target() == TARGET)
        .format(|out, message, record| {
            // The same as a format string would make, which is read anew for each record.
            let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            out.finish(format_args!("{time} {} {message}", record.level()));
        })
        // Formatted once for file and console both.
        .chain(fern::Output::call(move |line| record(&line.args().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Log;
    use std::sync::Mutex;

    type Captured = Arc<Mutex<String>>;

    fn log_to(captured: &Captured, target: &str, level: log::Level, text: &str) {
        let to = Arc::clone(captured);
        let record = move |line: &str| to.lock().unwrap().push_str(line);
        let (_, logger) = dispatch(log::LevelFilter::Info, record).into_log();
        let metadata = log::Metadata::builder().target(target).level(level).build();
        if logger.enabled(&metadata) {
            let mut record = log::Record::builder();
            record.metadata(metadata);
            logger.log(&record.args(format_args!("{text}")).build());
        }
    }

    #[test]
    fn a_line_is_time_level_and_message() {
        let captured = Captured::default();
        log_to(&captured, TARGET, log::Level::Info, "seed 127.0.0.1:5000 peer list size=1");
        let line = captured.lock().unwrap().clone();
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, "INFO seed 127.0.0.1:5000 peer list size=1");
        assert_eq!(time.len(), "2026-11-21T08:15:00.123456Z".len(), "{time}");
        assert!(time.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(time).is_ok());
    }

    #[test]
    fn other_crates_and_lower_levels_stay_out() {
        let captured = Captured::default();
        log_to(&captured, "tokio::net", log::Level::Error, "not ours");
        log_to(&captured, "rumormill", log::Level::Error, "not in the format");
        log_to(&captured, TARGET, log::Level::Debug, "too small");
        assert_eq!(*captured.lock().unwrap(), "");
    }
}
