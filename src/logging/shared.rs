//! The log of a program: a file to which other processes write, too, and the console. It takes only
//! records under [`TARGET`], so no other crate can write into the shared file.

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

/// Bytes of a line in the file at most, newline included. A local file system writes far more in
/// one piece.
pub const FILE_LINE_LIMIT: usize = 8_000;

/// Bytes of a line on the console at most, newline included. A pipe takes 4,096 in one piece.
pub const CONSOLE_LINE_LIMIT: usize = 1_000;

/// Where the lines of the log go for people to read, beside the file.
#[derive(Default)]
pub enum Screen {
    /// To stdout.
    #[default]
    Stdout,
    /// To stderr, for a program whose stdout is for answers.
    Stderr,
    /// To a writer that shows them above a line that is being edited.
    Prompt(Box<dyn io::Write + Send>),
}

/// The file of a log, its level and its screen.
pub struct LogOptions {
    /// The file to append to. It is created if it does not exist.
    pub file: PathBuf,
    /// The least severe level that is logged.
    pub level: log::LevelFilter,
    /// The place where people read the same lines.
    pub screen: Screen,
}

/// The reason why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened for appending.
    #[error("cannot open the log {}: {source}; name a file that can be written with --log-file", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The console's thread cannot be started, or its descriptor cannot be used.
    #[error("cannot log to the console: {0}; free some memory, processes or file descriptors")]
    Console(io::Error),
    /// The process has a logger already.
    #[error("the log is set up already; call logging::init once in a process")]
    Twice,
}

/// The log of this process: nodes write to it, and the program can reopen and flush it.
#[derive(Clone)]
pub struct LogHandle {
    sinks: Arc<Sinks>,
    /// Formats records, and hands them to `sinks`.
    logger: Arc<dyn log::Log>,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("sinks", &self.sinks).finish_non_exhaustive()
    }
}

impl LogHandle {
    /// Opens the file again under its name, after logrotate has moved the old one away.
    ///
    /// # Errors
    ///
    /// [`LogError::Open`]. The log then goes on in the file that was open before.
    pub fn reopen(&self) -> Result<(), LogError> {
        self.sinks.file.reopen()
    }

    /// Waits until the console has taken all lines, at most for `timeout`. Returns whether it has.
    /// The file never lags behind.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.sinks.console.flush(timeout)
    }
}

impl Sink for LogHandle {
    /// Writes all lines in one `write`, unless they fill more than a page.
    fn write(&self, role: Role, me: Addr, events: &[Event]) {
        for event in events {
            super::record(&*self.logger, role, me, event);
        }
        self.sinks.write();
    }
}

/// The logger of the process for users of the `log` crate. Each record is written at once.
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
/// If the file cannot be opened, the console cannot be used, or the process has a logger already.
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

/// A logger for records under [`TARGET`] of that level. It puts time and level in front of each,
/// and hands the text to `record`.
fn dispatch(
    level: log::LevelFilter,
    record: impl Fn(&str) + Send + Sync + 'static,
) -> fern::Dispatch {
    fern::Dispatch::new()
        .level(log::LevelFilter::Off)
        .level_for(TARGET, level)
        .filter(|metadata| metadata.target() == TARGET)
        .format(|out, message, record| {
            // The format is the same in code as in a format string, which would be read anew for
            // each record.
            let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            out.finish(format_args!("{time} {} {message}", record.level()));
        })
        // The text is made once, for both file and console.
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
