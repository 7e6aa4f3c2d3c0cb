//! What the demo prints: aligned rows, colour where it is wanted, one line that says what is waited
//! for.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Colours by meaning.
#[derive(Clone, Copy)]
pub enum Ink {
    Plain,
    Dim,
    Title,
    Seed,
    Peer,
    Good,
    Bad,
}

/// Without a terminal, what is waited for is said this often at most.
const SAY_AGAIN: Duration = Duration::from_secs(1);
/// On one, it is drawn anew this often.
const DRAW_AGAIN: Duration = Duration::from_millis(80);

pub struct Screen {
    colour: bool,
    terminal: bool,
    progress_shown: bool,
    last_progress: Instant,
}

impl Screen {
    pub fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = terminal && !refused;
        Self { colour, terminal, progress_shown: false, last_progress: Instant::now() }
    }

    pub fn ink(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Dim => "2",
            Ink::Title => "1",
            Ink::Seed => "35",
            Ink::Peer => "36",
            Ink::Good => "32",
            Ink::Bad => "31",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn line(&mut self, text: &str) {
        let clear = if self.progress_shown { "\r\x1b[K" } else { "" };
        self.progress_shown = false;
        self.last_progress = Instant::now();
        // Whoever reads this may have closed the pipe; the children must be ended all the same.
        let _ = writeln!(std::io::stdout(), "{clear}{text}");
    }

    pub fn title(&mut self, text: &str, explanation: &str) {
        self.line("");
        let title = self.ink(Ink::Title, text);
        self.line(&title);
        for line in explanation.lines() {
            let line = self.ink(Ink::Dim, line);
            self.line(&line);
        }
    }

    /// One thing that happened: when, who, what.
    pub fn row(&mut self, when: &str, who: &str, ink: Ink, what: &str) {
        let when = self.ink(Ink::Dim, &format!("{when:>10}"));
        let who_ink = if who.starts_with('S') { Ink::Seed } else { Ink::Peer };
        let who = self.ink(who_ink, &format!("{who:<3}"));
        let what = self.ink(ink, what);
        self.line(&format!("{when}  {who} {what}"));
    }

    /// What is being waited for.
    pub fn progress(&mut self, text: &str) {
        let pause = if self.terminal { DRAW_AGAIN } else { SAY_AGAIN };
        if self.last_progress.elapsed() < pause {
            return;
        }
        self.last_progress = Instant::now();
        if self.terminal {
            self.progress_shown = true;
            let text = self.ink(Ink::Dim, &format!("{:>15} ... {text}", ""));
            let _ = write!(std::io::stdout(), "\r\x1b[K{text}");
            let _ = std::io::stdout().flush();
        } else {
            let _ = writeln!(std::io::stdout(), "{:>15} ... {text}", "");
        }
    }
}

/// A duration as a reader wants it: 1.2 ms, 340 ms, 2.1 s.
pub fn time(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}
