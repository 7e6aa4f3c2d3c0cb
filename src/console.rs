//! The console of a peer (CONTRACT.md, section 4): commands, one to a line, and their answers.
//!
//! On a terminal, lines are edited and remembered, and the log appears above the line that is being
//! written. Through a pipe, commands and answers are plain lines, and the log goes elsewhere.
//!
//! What must stay true: each command gets exactly one answer; data is JSON on one line, or one line
//! for each element if somebody looks at it; and no output can trick the terminal.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::termios::{self, SetArg, Termios};
use nix::unistd::{getpgrp, tcgetpgrp};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor, ExternalPrinter};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::json::{self, NotExactly};
use crate::logging::Screen;
use crate::node::{PeerHandle, Stopped};
use crate::proto::kv::replica::KeyError;
use crate::proto::kv::store::{MAX_KEY, Version};
use crate::proto::kv::value;
use crate::proto::message::Addr;
use crate::proto::order::{Holding, Order, Outcome};
use crate::views;

/// The text before a command on a terminal.
const PROMPT: &str = "> ";
/// Commands that the line editor remembers.
const REMEMBERED: usize = 1_000;
/// The first command waits at most this long for the peer to be ready. Then it is served all the
/// same, because a replica is always writable.
const JOINING: Duration = Duration::from_secs(2);
/// Bytes of a command at most: a value of the greatest length, and what is around it.
const MAX_LINE: u64 = 2 << 20;

const HELP: &str = "\
put KEY JSON          write a value; a KEY with spaces is quoted as JSON is
get KEY               its versions with value, vc, lamport, node_id, ts, cid; the winner first
delete KEY            delete it
keys                  the keys of this replica
getpeer IP:PORT KEY   the versions that that peer has
getpeer IP:PORT       ask that peer for its keys
peers, members        the members, which of them are neighbours, and when the gone went
publish TEXT          gossip a text to everybody
messages [N]          the messages held, the newest last; with N the last N
sync                  one anti-entropy round now
help, quit";

/// The source of commands.
pub enum Commands {
    /// A terminal with a line editor, and the modes that the terminal had before.
    Terminal(Box<Editor<(), MemHistory>>, Termios),
    /// Plain lines.
    Lines,
}

/// Whether this process may read from the terminal it was started at. A process in the background
/// would be stopped if it tried.
fn is_at_terminal() -> bool {
    let stdin = io::stdin();
    stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|front| front == getpgrp())
}

/// Decides whether there is a console, and where the log then goes. `wanted` is what the user said,
/// if anything.
pub fn prepare(wanted: Option<bool>) -> (Option<Commands>, Screen) {
    let at_terminal = is_at_terminal();
    if !wanted.unwrap_or(at_terminal) {
        return (None, Screen::Stdout);
    }
    if at_terminal
        && io::stdout().is_terminal()
        && let Ok((editor, modes, log)) = edited()
    {
        return (Some(Commands::Terminal(Box::new(editor), modes)), Screen::Prompt(log));
    }
    // A user who asked for a console reads answers from stdout. One who did not may have redirected
    // the log from there to a file.
    let screen = if wanted == Some(true) { Screen::Stderr } else { Screen::Stdout };
    (Some(Commands::Lines), screen)
}

type Edited = (Editor<(), MemHistory>, Termios, Box<dyn Write + Send>);

fn edited() -> rustyline::Result<Edited> {
    let modes = termios::tcgetattr(io::stdin()).map_err(io::Error::from)?;
    let config = Config::builder().max_history_size(REMEMBERED)?.auto_add_history(true).build();
    let history = MemHistory::with_config(&config);
    let mut editor = Editor::with_history(config, history)?;
    let printer = editor.create_external_printer()?;
    Ok((editor, modes, Box::new(Above(printer))))
}

/// Writes lines above the line that is being edited.
struct Above<P>(P);

impl<P: ExternalPrinter> Write for Above<P> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line).into_owned();
        self.0.print(text).map_err(io::Error::other)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A console that serves commands.
pub struct Console {
    ended: oneshot::Receiver<()>,
    modes: Option<Termios>,
}

impl Console {
    /// Serves commands on a thread of its own, because a read from a terminal cannot be given up.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn start(commands: Commands, peer: PeerHandle) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let runtime = Handle::current();
        let modes = match &commands {
            Commands::Terminal(_, modes) => Some(modes.clone()),
            Commands::Lines => None,
        };
        std::thread::Builder::new().name("commands".to_owned()).spawn(move || {
            // If stdin or stdout fails, the console ends, as it does at the end of its input.
            let _ = serve(commands, &runtime, &peer);
            let _ = end.send(());
        })?;
        Ok(Self { ended, modes })
    }

    /// Waits for `quit`, or the end of the input.
    pub async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Console {
    /// Restores the terminal. The thread cannot do it, because it may be in the middle of a line.
    fn drop(&mut self) {
        if let Some(modes) = &self.modes {
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, modes);
        }
    }
}

fn serve(commands: Commands, runtime: &Handle, peer: &PeerHandle) -> io::Result<()> {
    let mut stdout = io::stdout();
    let mut has_waited = false;
    let mut answer = |line: &str, is_seen: bool| -> io::Result<bool> {
        if !has_waited && !matches!(line.trim(), "" | "help" | "quit") {
            // A user who starts a peer and asks it at once wants to hear of the network, not of an
            // empty replica.
            let _ = runtime.block_on(async { timeout(JOINING, peer.ready()).await });
            has_waited = true;
        }
        match runtime.block_on(execute(peer, line)) {
            Output::Quit => return Ok(false),
            Output::Nothing => {}
            Output::Text(text) => writeln!(stdout, "{text}")?,
            Output::Data(data) => writeln!(stdout, "{}", shown(&data, is_seen))?,
        }
        stdout.flush()?;
        Ok(true)
    };
    match commands {
        Commands::Terminal(mut editor, _) => loop {
            match editor.readline(PROMPT) {
                Ok(lines) => {
                    // Pasted text may be several lines.
                    for line in lines.lines() {
                        if !answer(line, true)? {
                            return Ok(());
                        }
                    }
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(()),
                // An input such as a byte that is no UTF-8 costs only its line.
                Err(error) => writeln!(io::stdout(), "error: {error}")?,
            }
        },
        Commands::Lines => lines(answer),
    }
}

/// Serves commands that come as plain lines.
fn lines(mut answer: impl FnMut(&str, bool) -> io::Result<bool>) -> io::Result<()> {
    let mut stdin = io::stdin().lock();
    let is_seen = io::stdout().is_terminal();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = io::Read::take(&mut stdin, MAX_LINE).read_until(b'\n', &mut bytes)?;
        if bytes.len() as u64 == MAX_LINE && !bytes.ends_with(b"\n") {
            stdin.skip_until(b'\n')?;
            writeln!(io::stdout(), "error: a command has at most {MAX_LINE} bytes")?;
            continue;
        }
        let Ok(line) = std::str::from_utf8(&bytes) else {
            writeln!(io::stdout(), "error: a command is UTF-8 text")?;
            continue;
        };
        if read == 0 || !answer(line, is_seen)? {
            return Ok(());
        }
    }
}

/// The answer to a command.
enum Output {
    /// No answer, to an empty line.
    Nothing,
    /// An answer in words.
    Text(String),
    /// An answer of data.
    Data(Value),
    /// No answer, because the console ends.
    Quit,
}

impl Output {
    /// Says why nothing was done. The words may quote anything, so they are made printable.
    fn error(what: impl AsRef<str>) -> Self {
        Output::Text(json::printable(&format!("error: {}", what.as_ref())))
    }
}

/// Data on one line, or one line for each element of a list if somebody looks at it.
fn shown(data: &Value, is_seen: bool) -> String {
    let line = |value: &Value| json::printable(&value.to_string());
    match data {
        Value::Array(items) if is_seen && items.len() > 1 => {
            items.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        other => line(other),
    }
}

/// Splits off the first word, which may be a JSON text in quotes.
fn word(text: &str) -> Result<(String, &str), String> {
    let text = text.trim_start();
    if text.starts_with('"') {
        let mut words = serde_json::Deserializer::from_str(text).into_iter::<String>();
        return match words.next() {
            Some(Ok(word)) => Ok((word, text[words.byte_offset()..].trim_start())),
            _ => Err("the quotes do not end, or what is in them is no JSON text".to_owned()),
        };
    }
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    Ok((word.to_owned(), rest.trim_start()))
}

/// Splits off a key.
fn key_of(text: &str) -> Result<(Arc<str>, &str), String> {
    let (key, rest) = word(text)?;
    // Another peer may be set to longer keys than this one, so only what none takes is refused here.
    match key.chars().count() {
        0 => Err("a KEY is missing; try help".to_owned()),
        1..=MAX_KEY => Ok((key.into(), rest)),
        _ => Err(KeyError::TooLong.to_string()),
    }
}

/// Reads a key that nothing may follow.
fn only_key(text: &str) -> Result<Arc<str>, String> {
    let (key, rest) = key_of(text)?;
    if rest.is_empty() { Ok(key) } else { Err(format!("what is {rest:?} after the key?")) }
}

async fn execute(peer: &PeerHandle, line: &str) -> Output {
    let line = line.trim();
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let done = match command {
        "" => return Output::Nothing,
        "quit" | "help" | "keys" | "peers" | "members" | "sync" if !rest.is_empty() => {
            Err(format!("{command} takes nothing after it"))
        }
        "quit" => return Output::Quit,
        "help" => return Output::Text(HELP.to_owned()),
        "put" => put(peer, rest).await,
        "get" => get(peer, rest).await,
        "delete" => delete(peer, rest).await,
        "getpeer" => get_peer(peer, rest).await,
        "publish" => publish(peer, rest).await,
        "keys" => {
            let keys = peer.store().keys().await;
            keys.map(|keys| Output::Data(json!(keys))).map_err(stopped)
        }
        "peers" | "members" => members(peer).await,
        "messages" => messages(peer, rest).await,
        "sync" => operate(peer, Order::Sync).await,
        other => Err(format!("there is no command {other:?}; try help")),
    };
    done.unwrap_or_else(Output::error)
}

type Done = Result<Output, String>;

fn stopped(stopped: Stopped) -> String {
    stopped.to_string()
}

async fn members(peer: &PeerHandle) -> Done {
    let members = peer.look(views::members).await.map_err(stopped)?;
    let shown = members.iter().map(|view| {
        let mut member = json::member(view);
        member["neighbour"] = view.neighbour.into();
        member
    });
    Ok(Output::Data(shown.collect()))
}

async fn put(peer: &PeerHandle, rest: &str) -> Done {
    let (key, text) = key_of(rest)?;
    if text.is_empty() {
        return Err("a value is missing: put KEY JSON".to_owned());
    }
    let json: Value = json::exactly(text.as_bytes()).map_err(|error| match error {
        NotExactly::NotJson(error) => {
            format!("that is no JSON ({error}); a text is written in quotes, as \"blue\"")
        }
        other => format!("the value {other}"),
    })?;
    if json.is_null() {
        return Err("null is no value; delete KEY deletes".to_owned());
    }
    let value = value::Value::new(&json).map_err(|error| error.to_string())?;
    let written = peer.store().put(key, value, None).await.map_err(|error| error.to_string())?;
    let what = if written.created { "created" } else { "replaced" };
    Ok(Output::Text(what.to_owned()))
}

async fn get(peer: &PeerHandle, rest: &str) -> Done {
    let found = peer.store().get(only_key(rest)?, None).await;
    found.map(|found| shown_versions(&found.versions)).map_err(|error| error.to_string())
}

/// The versions of a key in the store's order: the winner first.
fn shown_versions(versions: &[Version]) -> Output {
    Output::Data(versions.iter().map(json::version).collect())
}

async fn messages(peer: &PeerHandle, rest: &str) -> Done {
    let most = match rest {
        "" => usize::MAX,
        number => number.parse().map_err(|_| format!("{number:?} is no number of messages"))?,
    };
    let last = peer.look(move |machine| views::messages(machine, most)).await.map_err(stopped)?;
    Ok(Output::Data(last.iter().map(json::message).collect()))
}

async fn delete(peer: &PeerHandle, rest: &str) -> Done {
    let deleted = peer.store().delete(only_key(rest)?, None).await;
    deleted.map(|_| Output::Text("deleted".to_owned())).map_err(|error| error.to_string())
}

async fn get_peer(peer: &PeerHandle, rest: &str) -> Done {
    let (address, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let asked: Addr = address
        .parse()
        .map_err(|_| format!("{address:?} is no IP:PORT; such as getpeer 127.0.0.1:6000 KEY"))?;
    let key = if rest.trim().is_empty() { None } else { Some(only_key(rest)?) };
    operate(peer, Order::Ask { peer: asked, key }).await
}

async fn publish(peer: &PeerHandle, text: &str) -> Done {
    if text.is_empty() {
        return Err("a TEXT is missing: publish TEXT".to_owned());
    }
    let id = peer.publisher().publish(text.to_owned()).await.map_err(|error| error.to_string())?;
    Ok(Output::Text(format!("published id={id}")))
}

async fn operate(peer: &PeerHandle, order: Order) -> Done {
    match peer.operate(order).await.map_err(stopped)? {
        Outcome::Asked(Ok(Holding::Versions(versions))) if versions.is_empty() => {
            Err("Key does not exist".to_owned())
        }
        Outcome::Asked(Ok(Holding::Versions(versions))) => Ok(shown_versions(&versions)),
        Outcome::Asked(Ok(Holding::Keys(keys))) => Ok(Output::Data(json!(keys))),
        Outcome::Asked(Err(why)) => Err(format!("it was not answered: {why}")),
        Outcome::Synced(peers) => Ok(Output::Text(format!("synced peers={peers}"))),
        other => Err(format!("that was not asked for: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_words_or_quoted_texts() {
        assert_eq!(key_of("a {\"b\": 1}"), Ok(("a".into(), "{\"b\": 1}")));
        assert_eq!(key_of(r#""two words\u00fc" 7"#), Ok(("two wordsü".into(), "7")));
        assert_eq!(key_of("ü"), Ok(("ü".into(), "")));
        for wrong in ["", "\"open", "\"\" 1"] {
            assert!(key_of(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(key_of(&"x".repeat(MAX_KEY + 1)), Err("Key is too long".to_owned()));
        assert!(only_key("a b").is_err());
    }

    #[test]
    fn a_list_is_one_line_unless_somebody_looks() {
        let list = json!(["a\u{1b}", 2]);
        assert_eq!(shown(&list, false), "[\"a\\u001b\",2]");
        assert_eq!(shown(&list, true), "\"a\\u001b\"\n2");
    }
}
