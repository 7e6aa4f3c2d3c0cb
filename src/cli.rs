//! The two programs around a node: they read arguments, start the node, answer signals, and return
//! an exit code.
//!
//! What must stay true: every failure is one line on stderr that says what is wrong and what to do.
//! The exit code is 1 for a failure while running, and 2 for a mistake in the arguments, CONFIG, the
//! key file or the file of the HTTP token (CONTRACT.md, section 1).

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::Parser;
use clap::error::ErrorKind;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::{Common, LogLevel, PeerArgs, SeedArgs, Token, read_keys};
use crate::console::{self, Commands, Console};
use crate::http::{self, Gate, Source};
use crate::logging::{self, LogHandle, Screen};
use crate::maelstrom;
use crate::net::secure::{KnownSeeds, NetworkKey, NetworkKeys, Secret, Security};
use crate::node::{self, EventLog, Log, NodeLog, Port};
use crate::proto::config::{Network, PeerConfig, SeedConfig};
use crate::proto::event::Severity;
use crate::proto::message::{Addr, Role};
use crate::storage::{OpenReplica, OpenStore, open_known_seeds, open_secret};

/// Threads that run the node: while one decides, the other keeps the sockets going.
const WORKERS: usize = 2;

/// Bytes of stack of each thread. They are few, because dozens of nodes on one machine are a normal
/// use.
const STACK: usize = 512 * 1024;

/// The longest time that a node may take to stop by itself. It is not waited for any longer.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A second signal within this time counts as the first one. `timeout` and terminals send a signal
/// both to a process and to its group, and the second would otherwise cut off the leave that the
/// first asked for.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// The longest time by which a console that nobody reads can delay the end.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);

/// The program `seed`, with the arguments of this process.
pub fn seed_main() -> ExitCode {
    seed_main_from(std::env::args_os())
}

/// The program `peer`, with the arguments of this process.
pub fn peer_main() -> ExitCode {
    peer_main_from(std::env::args_os())
}

/// The program `seed` with these arguments, the first of which is the program's name. It can run
/// only once in a process, because the process has one log.
pub fn seed_main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    finish(
        "seed",
        parse(args).and_then(|args: SeedArgs| {
            let config = args.resolve().map_err(Failure::usage)?;
            if args.print_identity {
                return print_identity(&args.common, config.me);
            }
            let (keys, gate) = (keys(&args.common)?, gate(&args.common)?);
            run(&args.common, Screen::Stdout, |signals, log| {
                seed(&args, config, (keys, gate), signals, log)
            })
        }),
    )
}

/// The program `peer` with these arguments, the first of which is the program's name. It can run
/// only once in a process, because the process has one log.
pub fn peer_main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if wants(&args, "maelstrom") {
        return finish("peer", maelstrom_node(args));
    }
    if wants(&args, "generate-key") {
        return finish("peer", generate_key(&args));
    }
    finish("peer", peer_of(&mut args))
}

fn peer_of(args: &mut Vec<OsString>) -> Result<(), Failure> {
    if args.len() <= 1 {
        args.extend(implied_by_environment()?);
    }
    let args: PeerArgs = parse(args.drain(..))?;
    let config = args.resolve().map_err(Failure::usage)?;
    let (keys, gate) = (keys(&args.common)?, gate(&args.common)?);
    let (commands, screen) = console::prepare(args.console);
    run(&args.common, screen, |signals, log| {
        peer(&args, config, (keys, gate, commands), signals, log)
    })
}

/// The keys of the network. They are read before the node starts, like all else that a user can get
/// wrong.
fn keys(common: &Common) -> Result<Option<NetworkKeys>, Failure> {
    common.keys().map_err(Failure::usage)
}

/// Who may ask over HTTP. The token is read before the node starts, too.
fn gate(common: &Common) -> Result<Gate, Failure> {
    let token = common.http_token().map_err(Failure::usage)?;
    let listen = common.http.unwrap_or(common.listen());
    Ok(Gate::new(token.as_ref().map(Token::text), listen.ip()))
}

/// The arguments that `SOCKET_ADDRESS` and `VIEW` imply: one port for links and HTTP, no seeds, and
/// the replicas to find. None if `SOCKET_ADDRESS` is not set.
fn implied_by_environment() -> Result<Vec<OsString>, Failure> {
    let (address, view) = match (std::env::var("SOCKET_ADDRESS"), std::env::var("VIEW")) {
        (Err(_), _) => return Ok(Vec::new()),
        (Ok(address), Ok(view)) => (address, view),
        (Ok(_), Err(_)) => {
            let what = "SOCKET_ADDRESS is set and VIEW is not; set VIEW=IP:PORT,... to the replicas, \
                        or give <IP> <PORT> <CONFIG>";
            return Err(Failure::usage(what));
        }
    };
    let listed = |name: &str, text: &str| {
        let text = text.trim();
        let named = text.parse::<SocketAddr>().ok().filter(|addr| addr.port() != 0);
        named.ok_or_else(|| {
            Failure::usage(format!("{name} names {text:?}; write IP:PORT, such as 127.0.0.1:8085"))
        })
    };
    let me = listed("SOCKET_ADDRESS", &address)?;
    let named = view.split(',').filter(|peer| !peer.trim().is_empty());
    let mut peers = named.map(|peer| listed("VIEW", peer)).collect::<Result<Vec<_>, _>>()?;
    if peers.is_empty() {
        peers.push(me); // the first of all, so far
    }
    let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
    let implied = [
        me.ip().to_string(),
        me.port().to_string(),
        format!("--peers={}", peers.join(",")),
        format!("--http={me}"),
        "--gossip-count=0".to_owned(),
        "--ephemeral".to_owned(),
        "--insecure".to_owned(),
    ];
    Ok(implied.into_iter().map(OsString::from).collect())
}

/// Whether the arguments or the environment ask for this, which takes no IP, PORT and CONFIG. It has
/// to be known before they are read, because they are left out then.
fn wants(args: &[OsString], option: &str) -> bool {
    let is_yes = |text: &str| {
        matches!(text.to_lowercase().as_str(), "true" | "t" | "yes" | "y" | "on" | "1")
    };
    let said = args.iter().rev().filter_map(|arg| arg.to_str()).find_map(|arg| {
        let value = arg.strip_prefix("--")?.strip_prefix(option)?;
        if value.is_empty() { Some(true) } else { value.strip_prefix('=').map(is_yes) }
    });
    let name = format!("RUMORMILL_{}", option.to_uppercase().replace('-', "_"));
    said.unwrap_or_else(|| std::env::var(name).is_ok_and(|text| is_yes(&text)))
}

/// Prints a fresh key for a key file.
fn generate_key(args: &[OsString]) -> Result<(), Failure> {
    if args.len() > 2 {
        return Err(Failure::usage("--generate-key takes nothing else; leave the rest out"));
    }
    print_line(&NetworkKey::fresh().map_err(Failure::running)?.line())
}

/// Prints who the seed is that has its state in this directory.
fn print_identity(common: &Common, me: Addr) -> Result<(), Failure> {
    let Some(dir) = common.state_dir("seed", me) else {
        return Err(Failure::usage(
            "with --ephemeral a seed has another identity at each start; leave it out",
        ));
    };
    print_line(&open_secret(&dir).map_err(Failure::running)?.identity().to_string())
}

fn print_line(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(Failure::running)
}

/// Runs a Maelstrom node. Its stdout is for messages alone, so it logs to stderr, and only warnings
/// unless `--log-level` asks for details.
fn maelstrom_node(args: Vec<OsString>) -> Result<(), Failure> {
    let (args, options) = PeerArgs::parse_maelstrom(args).map_err(told::<PeerArgs>)?;
    let least = match args.common.log_level {
        LogLevel::Debug | LogLevel::Trace => Severity::Debug,
        LogLevel::Error | LogLevel::Warn | LogLevel::Info => Severity::Warn,
    };
    maelstrom::run(options, node::chance(), least).map_err(|error| {
        Failure::running(format!("cannot go on: {error}; is Maelstrom still there?"))
    })
}

/// The reason that is given if a node has ended by itself and nothing explains why.
const ENDED: &str = "the node has stopped by itself; the end of the log says why";

async fn seed(
    args: &SeedArgs,
    config: SeedConfig,
    (keys, gate): (Option<NetworkKeys>, Gate),
    mut signals: Signals,
    log: LogHandle,
) -> Result<(), Failure> {
    let (role, me) = (Role::Seed, config.me);
    let listener = bind(args.common.listen()).await?;
    let Around { port, api, log: voice } =
        Around::new(&args.common, listener, role, me, &log).await?;
    let dir = args.common.state_dir("seed", me);
    // The store is opened first: it is locked, so that no other process makes an identity there.
    let store = dir.as_deref().map(OpenStore::open).transpose().map_err(Failure::running)?;
    let port = signals.secure(port, keys, &args.common, dir.as_deref(), &config.network, &voice)?;
    let mut seed = match store {
        Some(store) => node::Seed::start_durable(port, config, store).map_err(Failure::running)?,
        None => node::Seed::start(port, config).map_err(Failure::usage)?,
    };
    let api = api.map(|(source, log)| {
        let routes = http::seed_routes(seed.handle(), log);
        Api::start(source, routes, gate, http::over_limits_of(&seed.handle()))
    });
    let api = api.unwrap_or_default();
    tokio::select! {
        () = signals.stop_requested(&log, &voice) => {}
        why = seed.ended() => return Err(Failure::running(why.as_deref().unwrap_or(ENDED))),
    }
    signals.stopped(&log, &voice, api.before(seed.stop())).await
}

async fn peer(
    args: &PeerArgs,
    mut config: PeerConfig,
    (keys, gate, commands): (Option<NetworkKeys>, Gate, Option<Commands>),
    mut signals: Signals,
    log: LogHandle,
) -> Result<(), Failure> {
    let role = Role::Peer;
    let listener = bind_peer(&args.common, &config).await?;
    let port = listener.local_addr().map_err(Failure::running)?.port();
    let me = args.common.me(port);
    config.me = me;
    let Around { port, api, log: voice } =
        Around::new(&args.common, listener, role, me, &log).await?;
    let dir = args.common.state_dir("peer", me);
    let replica = dir.as_deref().map(OpenReplica::open).transpose().map_err(Failure::running)?;
    let port = signals.secure(port, keys, &args.common, dir.as_deref(), &config.network, &voice)?;
    let mut peer = match replica {
        Some(replica) => {
            node::Peer::start_durable(port, config, replica).map_err(Failure::running)?
        }
        None => node::Peer::start(port, config).map_err(Failure::usage)?,
    };
    let api = api.map(|(source, log)| {
        let routes = http::peer_routes(peer.handle(), log);
        Api::start(source, routes, gate, http::over_limits_of(&peer.handle()))
    });
    let api = api.unwrap_or_default();
    let start = |commands| Console::start(commands, peer.handle());
    let mut console = commands.map(start).transpose().map_err(Failure::running)?;
    let quit = async {
        match &mut console {
            Some(console) => console.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = signals.stop_requested(&log, &voice) => {}
        () = quit => {}
        why = peer.ended() => return Err(Failure::running(why.as_deref().unwrap_or(ENDED))),
    }
    signals.stopped(&log, &voice, api.before(peer.leave())).await
}

/// Listens for a peer. With port 0 it takes any free port, except that of a seed that happens to be
/// down.
async fn bind_peer(common: &Common, config: &PeerConfig) -> Result<TcpListener, Failure> {
    let mut of_seeds = Vec::new(); // held, so that the system gives another one
    loop {
        let listener = bind(common.listen()).await?;
        let port = listener.local_addr().map_err(Failure::running)?.port();
        if !config.network.seeds().contains(&common.me(port)) {
            return Ok(listener);
        }
        of_seeds.push(listener);
    }
}

fn say_where_http_is(log: &NodeLog, at: SocketAddr) {
    log.note(Severity::Info, "http listening", vec![("http", at.to_string())]);
}

/// The port of a node, and what the program has around it.
struct Around {
    port: Port,
    /// If HTTP is wanted: the source of its connections, which may be the node's port, and the log
    /// that clients can follow.
    api: Option<(Source, EventLog)>,
    /// The node's log, for what this process does.
    log: NodeLog,
}

impl Around {
    async fn new(
        common: &Common,
        listener: TcpListener,
        role: Role,
        me: Addr,
        handle: &LogHandle,
    ) -> Result<Self, Failure> {
        let mut to = Log { sink: Arc::new(handle.clone()), ..Log::default() };
        let Some(addr) = common.http else {
            let port = Port::from(listener).with_sink(Arc::clone(&to.sink));
            return Ok(Self { port, api: None, log: NodeLog::new(to, role, me) });
        };
        let followed = EventLog::new(common.log_level.into());
        to.followed = Some(followed.clone());
        let log = NodeLog::new(to.clone(), role, me);
        let (port, source) = if common.shares_port() {
            say_where_http_is(&log, common.listen());
            let (port, streams) = Port::shared(listener);
            (port, Source::Shared(streams))
        } else {
            (Port::from(listener), Source::Own(bind_http(addr, &log).await?))
        };
        let port = port.with_sink(to.sink).with_log(followed.clone());
        Ok(Self { port, api: Some((source, followed)), log })
    }
}

/// Listens for HTTP, and logs where, because the port may be any free one.
async fn bind_http(listen: SocketAddr, log: &NodeLog) -> Result<TcpListener, Failure> {
    let listener = bind(listen).await?;
    say_where_http_is(log, listener.local_addr().map_err(Failure::running)?);
    Ok(listener)
}

/// The HTTP API of a node, if there is one.
#[derive(Default)]
struct Api(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl Api {
    fn start(source: Source, routes: Router, gate: Gate, over_limit: http::OverLimit) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        Self(Some((stop, tokio::spawn(http::serve(source, routes, gate, over_limit, stopped)))))
    }

    /// Stops the API and then the node, so that requests under way are answered while the node
    /// still runs.
    async fn before(self, node: impl Future<Output = ()>) {
        if let Some((stop, task)) = self.0 {
            let _ = stop.send(());
            let _ = task.await;
        }
        node.await;
    }
}

async fn bind(listen: SocketAddr) -> Result<TcpListener, Failure> {
    node::bind(listen).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "stop the process that uses the port, or choose another",
            io::ErrorKind::AddrNotAvailable => "choose an IP address of this machine",
            io::ErrorKind::PermissionDenied => "choose a port from 1024 up",
            _ => "choose another address or port",
        };
        Failure::running(format!("cannot listen on {listen}: {error}; {hint}"))
    })
}

/// Starts the log and the runtime, and runs a node with them until it ends.
fn run<N, F>(common: &Common, screen: Screen, node: N) -> Result<(), Failure>
where
    N: FnOnce(Signals, LogHandle) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let log = logging::init(common.log_options(screen)).map_err(Failure::running)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(WORKERS)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::running(format!(
                "cannot start threads: {error}; free some memory or processes"
            ))
        })?;
    let ended = runtime.block_on(async {
        // Signals are installed before the node starts, so that none can kill it while it joins.
        node(Signals::install().map_err(Failure::running)?, log.clone()).await
    });
    runtime.shutdown_background();
    if !matches!(ended, Err(Failure::Impatient)) {
        log.flush(FLUSH_LIMIT);
    }
    ended
}

/// The signals that the programs react to.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reopen: Signal,
    reread: Signal,
    /// The key file, and where its keys are used, if links are encrypted.
    keys: Option<(PathBuf, Security)>,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            reopen: signal(SignalKind::user_defined1())?,
            reread: signal(SignalKind::hangup())?,
            keys: None,
        })
    }

    /// Has the links of a port encrypted if there are keys, and the keys reread at SIGHUP. `dir` is
    /// where the process keeps who it is; without one it is somebody new at each start.
    fn secure(
        &mut self,
        port: Port,
        keys: Option<NetworkKeys>,
        common: &Common,
        dir: Option<&Path>,
        network: &Network,
        voice: &NodeLog,
    ) -> Result<Port, Failure> {
        let (Some(keys), Some(file)) = (keys, common.key_file.clone()) else { return Ok(port) };
        let (secret, seeds) = match dir {
            Some(dir) => (
                open_secret(dir).map_err(Failure::running)?,
                open_known_seeds(dir, network).map_err(Failure::running)?,
            ),
            None => (Secret::fresh().map_err(Failure::running)?, KnownSeeds::of(network)),
        };
        let security = Security::new(keys, secret, seeds);
        let identity = security.identity().to_string();
        voice.note(Severity::Info, "links encrypted", vec![("identity", identity)]);
        self.keys = Some((file, security.clone()));
        Ok(port.with_security(security))
    }

    /// Rereads the key file. If something is wrong with it, the keys stay as they are.
    fn reread_keys(&self, voice: &NodeLog) {
        let Some((file, security)) = &self.keys else { return };
        match read_keys(file) {
            Ok(keys) => {
                let count = keys.count().to_string();
                security.replace_keys(keys);
                voice.note(Severity::Info, "keys reread", vec![("keys", count)]);
            }
            Err(error) => {
                let keys = vec![("reason", error.to_string())];
                voice.note(Severity::Warn, "keys not reread", keys);
            }
        }
    }

    /// Returns at SIGINT or SIGTERM; until then reopens the log at each SIGUSR1, and rereads the key
    /// file at each SIGHUP. If this is dropped while it waits, no signal is lost, because receiving
    /// one is a single step.
    async fn stop_requested(&mut self, log: &LogHandle, voice: &NodeLog) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.reread.recv() => self.reread_keys(voice),
                _ = self.reopen.recv() => match log.reopen() {
                    Ok(()) => {}
                    Err(error) => {
                        let keys = vec![("reason", error.to_string())];
                        voice.note(Severity::Warn, "log not reopened", keys);
                    }
                },
            }
        }
    }

    /// Waits for a node that was told to stop. A second signal ends the wait, unless it counts as
    /// the first.
    async fn stopped(
        &mut self,
        log: &LogHandle,
        voice: &NodeLog,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        let told = tokio::time::Instant::now();
        let stop = tokio::time::timeout(STOP_LIMIT, stop);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                _ = &mut stop => return Ok(()),
                () = self.stop_requested(log, voice) => {
                    if told.elapsed() >= SAME_SIGNAL {
                        return Err(Failure::Impatient);
                    }
                }
            }
        }
    }
}

/// The reason why a program ends, other than a clean stop.
enum Failure {
    /// `--help` or `--version`, which is no failure and ends the program all the same.
    Told(clap::Error),
    /// A mistake in the arguments, in CONFIG or in the file of the HTTP token.
    Usage(String),
    /// Something failed while running.
    Running(String),
    /// A second signal came before the node had stopped.
    Impatient,
}

impl Failure {
    fn usage(error: impl fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }

    fn running(error: impl fmt::Display) -> Self {
        Self::Running(error.to_string())
    }
}

/// Prints the reason, if there is one, and returns the exit code.
fn finish(program: &str, outcome: Result<(), Failure>) -> ExitCode {
    let (code, text) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Told(help)) => {
            let _ = help.print(); // to stdout, which may be closed
            return ExitCode::SUCCESS;
        }
        Err(Failure::Usage(text)) => (2, text),
        Err(Failure::Running(text)) => (1, text),
        Err(Failure::Impatient) => {
            (1, "stopped at once by a second signal; one signal is enough for a clean stop".into())
        }
    };
    // The text may quote a path or an argument with anything in it, even a newline.
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _ = writeln!(io::stderr(), "{program}: {line}");
    ExitCode::from(code)
}

fn parse<A: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<A, Failure> {
    A::try_parse_from(args).map_err(told::<A>)
}

/// What clap reports: help that was asked for, or a mistake.
fn told<A: Parser>(error: clap::Error) -> Failure {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Failure::Told(error),
        _ => {
            let name = A::command().get_name().to_owned();
            let mut what = condensed(&error.to_string());
            if error.kind() == ErrorKind::MissingRequiredArgument && name == "peer" {
                what.push_str(" (or --peers IP:PORT,... in place of CONFIG)");
            }
            Failure::Usage(format!("{what}; see {name} --help"))
        }
    }
}

/// Makes one line of clap's message of several: what is wrong and the tips, without the usage and
/// the pointer to `--help`.
fn condensed(message: &str) -> String {
    let mut line = String::new();
    for part in message.lines().map(str::trim) {
        // This tip is left out: a mistyped option is no value, and no program here takes one that
        // looks so.
        if part.starts_with("tip: to pass ") {
            continue;
        }
        if part.starts_with("Usage:") || part.starts_with("For more information") {
            break;
        }
        let part = part.strip_prefix("error: ").unwrap_or(part);
        let (joint, part) = match part.strip_prefix("tip: ") {
            Some(tip) => ("; ", tip),
            None => (" ", part),
        };
        if !line.is_empty() && !part.is_empty() {
            line.push_str(joint);
        }
        line.push_str(part);
    }
    line
}
