//! The options of `seed` and `peer`, and the checks of what must hold between them. The doc comment
//! of an option is its help text, which users see.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, RangedU64ValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};

use super::token::{Token, TokenError, read_token};
use super::{ConfigError, KeyFileError, read_keys, read_network, values};
use crate::logging::{LogOptions, Screen};
use crate::maelstrom;
use crate::net::secure::NetworkKeys;
use crate::proto::config::{
    DEFAULT_NETWORK, MAX_MEMBERS, MAX_MEMBERS_PER_SOURCE, Membership, Network, PeerConfig,
    SeedConfig,
};
use crate::proto::event::Severity;
use crate::proto::kv::store::MAX_KEY;
use crate::proto::message::Addr;

/// A mistake in CONFIG or the file of the HTTP token, or in arguments of which each alone is
/// acceptable to the parser.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// CONFIG is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key file is wrong.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The file of the HTTP token is wrong.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Others could connect, and a process cannot tell who they are.
    #[error(
        "{0} is not a loopback address, and links are not encrypted; add --key-file FILE (`peer --generate-key` makes a key), listen on 127.0.0.1, or add --insecure if everybody on that network is trusted"
    )]
    Insecure(IpAddr),
    /// Others could send requests, and HTTP asks nobody who they are.
    #[error(
        "--http on {0}, which is not a loopback address, would let anybody ask and write; listen on 127.0.0.1, add --http-token-file FILE, or add --insecure if everybody on that network is trusted"
    )]
    InsecureHttp(IpAddr),
    /// Others cannot be told to connect to `0.0.0.0`.
    #[error(
        "{0} is no address that others can reach; add --advertise IP with the one to tell them"
    )]
    NoAdvertise(IpAddr),
    /// The advertised address is not one that others can reach.
    #[error("--advertise {0} is no address that others can reach; name this machine's own IP")]
    BadAdvertise(IpAddr),
    /// A seed is known by its port, so it cannot take any free one.
    #[error("a seed cannot take port 0; name the port that {} lists for it", .0.display())]
    SeedPort(PathBuf),
    /// The seed is not in CONFIG.
    #[error("{}: does not list {me}; add it there, or start the seed with an address of the list", config.display())]
    NotListed {
        /// The file.
        config: PathBuf,
        /// The seed's address, as others know it.
        me: SocketAddr,
    },
    /// A peer has the address of a seed.
    #[error("{me} is a seed in {}; give the peer another port", config.display())]
    IsSeed {
        /// The file.
        config: PathBuf,
        /// The peer's address, as others know it.
        me: SocketAddr,
    },
    /// The seeds decide who belongs to a network, or its peers do, and both were named.
    #[error(
        "CONFIG and --peers (or RUMORMILL_PEERS) are two kinds of network; leave one of them out"
    )]
    SeedsAndPeers,
    /// Neither seeds nor peers were named.
    #[error("name CONFIG, the list of seeds, or --peers IP:PORT,... for a network without seeds")]
    NobodyNamed,
    /// Neighbours that are pinged more rarely than they may be silent would be suspected all the
    /// time.
    #[error(
        "--ping-interval {} is not below --suspect-timeout {}; lower the one or raise the other, or leave --ping-interval out for a third of the timeout",
        humantime::format_duration(*ping), humantime::format_duration(*suspect)
    )]
    Ping {
        /// Time between two pings.
        ping: Duration,
        /// Silence after which a neighbour is suspected.
        suspect: Duration,
    },
    /// A peer would open more links than it keeps.
    #[error(
        "--max-links {max_links} is less than --links {links}; raise the one or lower the other"
    )]
    Links {
        /// Links that the peer opens.
        links: usize,
        /// Links that the peer keeps.
        max_links: usize,
    },
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the names are those of the `log` crate
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

impl From<LogLevel> for Severity {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug | LogLevel::Trace => Self::Debug,
        }
    }
}

/// What both programs are told.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// IP address to listen on
    #[arg(value_name = "IP", value_parser = values::ip)]
    pub ip: IpAddr,

    /// Port to listen on; a peer takes 0 for any free port
    #[arg(value_name = "PORT")]
    pub port: u16,

    /// The shared log that every process appends to
    #[arg(long, env = "RUMORMILL_LOG_FILE", value_name = "PATH", default_value = "outputfile.txt")]
    pub log_file: PathBuf,

    /// What matters less is not logged
    #[arg(
        long,
        env = "RUMORMILL_LOG_LEVEL",
        value_name = "LEVEL",
        ignore_case = true,
        default_value = "info"
    )]
    pub log_level: LogLevel,

    /// Directory of the durable state: a seed keeps its registry in DIR/seed-IP-PORT/, a peer its
    /// replica of the store in DIR/peer-IP-PORT/
    #[arg(long, env = "RUMORMILL_DATA_DIR", value_name = "DIR", default_value = "data")]
    pub data_dir: PathBuf,

    /// Keep nothing on disk
    #[arg(long, env = "RUMORMILL_EPHEMERAL", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, value_parser = BoolishValueParser::new())]
    pub ephemeral: bool,

    /// The network's pre-shared keys, one a line, 64 hexadecimal digits each: the first is used to
    /// dial, all are accepted; SIGHUP rereads them; every link is then encrypted and authenticated;
    /// a file that others can read is refused
    #[arg(long, env = "RUMORMILL_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// Processes of different names refuse each other
    #[arg(long, env = "RUMORMILL_NETWORK", value_name = "NAME", default_value = DEFAULT_NETWORK, value_parser = values::network)]
    pub network: String,

    /// The address that others are told, when IP is 0.0.0.0 or ::
    #[arg(long, env = "RUMORMILL_ADVERTISE", value_name = "IP", value_parser = values::ip)]
    pub advertise: Option<IpAddr>,

    /// Allow a listening address other than loopback without --key-file, although links are then not
    /// encrypted, and HTTP on one without a token
    #[arg(long, env = "RUMORMILL_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, value_parser = BoolishValueParser::new())]
    pub insecure: bool,

    /// HTTP API and metrics on this address, as IP:PORT; may be the one that is listened on anyway
    #[arg(long, env = "RUMORMILL_HTTP", value_name = "ADDR", value_parser = values::http)]
    pub http: Option<SocketAddr>,

    /// File with a token, which each HTTP request then has to carry as Authorization: Bearer TOKEN;
    /// one line of 16 to 1024 visible ASCII characters, in a file that nobody else can read
    #[arg(long, env = "RUMORMILL_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    /// How long a direct liveness probe may take
    #[arg(long, env = "RUMORMILL_PROBE_TIMEOUT", value_name = "DUR", default_value = "1s", allow_hyphen_values = true, value_parser = values::duration)]
    pub probe_timeout: Duration,
}

impl Common {
    /// The address to listen on.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    /// The address to which others are told to connect, if the process listens on `port`.
    pub fn me(&self, port: u16) -> Addr {
        SocketAddr::new(self.advertise.unwrap_or(self.ip), port)
    }

    /// The keys of the network; none if links are to be plain.
    ///
    /// # Errors
    ///
    /// If something is wrong with the key file.
    pub fn keys(&self) -> Result<Option<NetworkKeys>, ArgsError> {
        Ok(self.key_file.as_deref().map(read_keys).transpose()?)
    }

    /// The options of the shared log.
    pub fn log_options(&self, screen: Screen) -> LogOptions {
        LogOptions { file: self.log_file.clone(), level: self.log_level.into(), screen }
    }

    /// The token that HTTP asks for, if it asks for one.
    ///
    /// # Errors
    ///
    /// If there is a mistake in its file.
    pub fn http_token(&self) -> Result<Option<Token>, ArgsError> {
        Ok(self.http_token_file.as_deref().map(read_token).transpose()?)
    }

    /// Whether links and HTTP share one port.
    pub fn shares_port(&self) -> bool {
        self.port != 0 && self.http == Some(self.listen())
    }

    /// The directory of this process's durable state; none with `--ephemeral`.
    pub fn state_dir(&self, program: &str, me: Addr) -> Option<PathBuf> {
        let name = format!("{program}-{}-{}", me.ip(), me.port());
        (!self.ephemeral).then(|| self.data_dir.join(name))
    }

    /// Checks that hold for both programs.
    fn check(&self) -> Result<(), ArgsError> {
        if !self.ip.is_loopback() && !self.insecure && self.key_file.is_none() {
            return Err(ArgsError::Insecure(self.ip));
        }
        let may_be_open = self.insecure || self.http_token_file.is_some();
        if let Some(http) = self.http.filter(|http| !http.ip().is_loopback() && !may_be_open) {
            return Err(ArgsError::InsecureHttp(http.ip()));
        }
        if let Some(advertise) =
            self.advertise.filter(|ip| ip.is_unspecified() || ip.is_multicast())
        {
            return Err(ArgsError::BadAdvertise(advertise));
        }
        if self.ip.is_unspecified() && self.advertise.is_none() {
            return Err(ArgsError::NoAdvertise(self.ip));
        }
        Ok(())
    }
}

/// A seed: keeps the registry of peers and votes on changes to it.
#[derive(Parser, Clone, Debug)]
#[command(name = "seed", bin_name = "seed", version, args_override_self = true, after_help = AFTER_HELP)]
pub struct SeedArgs {
    /// What both programs are told.
    #[command(flatten)]
    pub common: Common,

    /// File that lists the seeds, one ip:port a line; # starts a comment
    #[arg(value_name = "CONFIG", index = 3)]
    pub config: PathBuf,

    /// The peers' suspect timeout: so many members accused within it that more than a third of all may
    /// be gone are looked at twice
    #[arg(long, env = "RUMORMILL_SUSPECT_TIMEOUT", value_name = "DUR", default_value = "15s", allow_hyphen_values = true, value_parser = values::silence)]
    pub suspect_timeout: Duration,

    /// Members from which on this seed votes against further ones
    #[arg(long, env = "RUMORMILL_MAX_MEMBERS", value_name = "N", default_value_t = MAX_MEMBERS, allow_negative_numbers = true, value_parser = members())]
    pub max_members: usize,

    /// The same for the members of one IPv4 address, or of the first 64 bits of an IPv6 address
    #[arg(long, env = "RUMORMILL_MAX_MEMBERS_PER_SOURCE", value_name = "N", default_value_t = MAX_MEMBERS_PER_SOURCE, allow_negative_numbers = true, value_parser = members())]
    pub max_members_per_source: usize,

    /// Print the identity of the seed with this IP, PORT and --data-dir, for CONFIG, and exit; makes it
    /// if there is none yet
    #[arg(long, env = "RUMORMILL_PRINT_IDENTITY", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, hide_env = true, value_parser = BoolishValueParser::new())]
    pub print_identity: bool,
}

impl SeedArgs {
    /// The seed's settings.
    ///
    /// # Errors
    ///
    /// If arguments do not go together, or something is wrong with CONFIG.
    pub fn resolve(&self) -> Result<SeedConfig, ArgsError> {
        let config = || self.config.clone();
        if self.common.port == 0 {
            return Err(ArgsError::SeedPort(config()));
        }
        self.common.check()?;
        let network = read_network(&self.common.network, &self.config)?;
        let me = self.common.me(self.common.port);
        if !network.seeds().contains(&me) {
            return Err(ArgsError::NotListed { config: config(), me });
        }
        let (probe_timeout, suspect_timeout) = (self.common.probe_timeout, self.suspect_timeout);
        let mut config = SeedConfig::new(me, network);
        config.probe_timeout = probe_timeout;
        config.suspect_timeout = suspect_timeout;
        config.max_members = self.max_members;
        config.max_members_per_source = self.max_members_per_source;
        Ok(config)
    }
}

/// A peer: registers with the seeds, links to other peers and gossips with them.
#[derive(Parser, Clone, Debug)]
#[command(name = "peer", bin_name = "peer", version, args_override_self = true,
          override_usage = PEER_USAGE, after_help = PEER_AFTER_HELP)]
pub struct PeerArgs {
    /// What both programs are told.
    #[command(flatten)]
    pub common: Common,

    /// File that lists the seeds, one ip:port a line; # starts a comment; not with --peers
    #[arg(value_name = "CONFIG", index = 3, required_unless_present = "peers")]
    pub config: Option<PathBuf>,

    /// Instead of CONFIG: a network without seeds, which these peers are the start of; the first of
    /// all names itself
    #[arg(long, env = "RUMORMILL_PEERS", value_name = "IP:PORT,...", value_delimiter = ',', value_parser = values::peer)]
    pub peers: Option<Vec<Addr>>,

    /// One generated message each interval
    #[arg(long, env = "RUMORMILL_GOSSIP_INTERVAL", value_name = "DUR", default_value = "5s", allow_hyphen_values = true, value_parser = values::duration)]
    pub gossip_interval: Duration,

    /// How many messages to generate; 0 for none
    #[arg(
        long,
        env = "RUMORMILL_GOSSIP_COUNT",
        value_name = "N",
        default_value_t = 10,
        allow_negative_numbers = true
    )]
    pub gossip_count: u64,

    /// With --key-file: neither sign messages nor check who has; it saves each peer some 40 µs a
    /// message, and lets any member publish in another's name; the same at all peers of a network
    #[arg(long, env = "RUMORMILL_UNSIGNED_GOSSIP", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, value_parser = BoolishValueParser::new())]
    pub unsigned_gossip: bool,

    /// PING to every neighbour each interval [default: 5s, or a third of the suspect timeout if that is
    /// shorter]; has to be shorter than the suspect timeout
    #[arg(long, env = "RUMORMILL_PING_INTERVAL", value_name = "DUR", allow_hyphen_values = true, value_parser = values::ping)]
    pub ping_interval: Option<Duration>,

    /// Silence after which a neighbour is suspected
    #[arg(long, env = "RUMORMILL_SUSPECT_TIMEOUT", value_name = "DUR", default_value = "15s", allow_hyphen_values = true, value_parser = values::silence)]
    pub suspect_timeout: Duration,

    /// One anti-entropy round each interval
    #[arg(long, env = "RUMORMILL_SYNC_INTERVAL", value_name = "DUR", default_value = "10s", allow_hyphen_values = true, value_parser = values::duration)]
    pub sync_interval: Duration,

    /// Peers contacted in one anti-entropy round
    #[arg(long, env = "RUMORMILL_FANOUT", value_name = "K", default_value = "2", value_parser = few())]
    pub fanout: usize,

    /// How long a request may wait for the writes that its metadata names; 0s answers 503 at once
    #[arg(long, env = "RUMORMILL_CAUSAL_WAIT", value_name = "DUR", default_value = "1s", value_parser = values::wait)]
    pub causal_wait: Duration,

    /// What the store may hold, in bytes of keys, values and metadata, as 1000000, 512MiB or 2GiB;
    /// beyond, a write that adds to it is refused, unless another replica took it
    #[arg(long, env = "RUMORMILL_MAX_STORE_BYTES", value_name = "N", default_value = "1GiB", allow_hyphen_values = true, value_parser = values::bytes)]
    pub max_store_bytes: usize,

    /// Characters of a key that clients may write, up to 1024
    #[arg(long, env = "RUMORMILL_MAX_KEY_BYTES", value_name = "N", default_value = "50", allow_negative_numbers = true, value_parser = key_length())]
    pub max_key_bytes: usize,

    /// Neighbours that a joining peer picks
    #[arg(long, env = "RUMORMILL_LINKS", value_name = "M", default_value = "3", value_parser = few())]
    pub links: usize,

    /// Links a peer accepts before it refuses more
    #[arg(long, env = "RUMORMILL_MAX_LINKS", value_name = "M", default_value = "64", value_parser = few())]
    pub max_links: usize,

    /// Exponent of the degree distribution that the choice of neighbours aims at, over 2 and at most 3
    #[arg(long, env = "RUMORMILL_EXPONENT", value_name = "G", default_value = "2.5", allow_negative_numbers = true, value_parser = values::exponent)]
    pub exponent: f64,

    /// Read commands from stdin; on if stdin is a terminal
    #[arg(long, env = "RUMORMILL_CONSOLE", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, value_parser = BoolishValueParser::new())]
    pub console: Option<bool>,

    /// Print a fresh key for the network's key file, and exit; takes nothing else
    #[arg(long, env = "RUMORMILL_GENERATE_KEY", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, hide_env = true, value_parser = BoolishValueParser::new())]
    pub generate_key: bool,

    /// Be one Maelstrom node on stdin and stdout; takes no IP, PORT and CONFIG. Maelstrom's links are
    /// slow and its partitions short, so unless they are given, --ping-interval is 1s,
    /// --suspect-timeout 6s, --sync-interval 3s and --probe-timeout 700ms
    #[arg(long, env = "RUMORMILL_MAELSTROM", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, value_parser = BoolishValueParser::new())]
    pub maelstrom: bool,

    /// With --maelstrom: how long a node may gather broadcasts before it forwards them; with 0ms each
    /// goes straight to all
    #[arg(long, env = "RUMORMILL_BATCH", value_name = "DUR", default_value = "170ms", value_parser = values::wait)]
    pub batch: Duration,

    /// With --maelstrom: which workload this is, before anything tells
    #[arg(long, env = "RUMORMILL_WORKLOAD", value_name = "NAME", ignore_case = true)]
    pub workload: Option<maelstrom::Workload>,
}

impl PeerArgs {
    /// Reads the arguments of a command line that asks for `--maelstrom`, or whose environment
    /// does.
    ///
    /// # Errors
    ///
    /// If clap refuses an argument, or IP, PORT or CONFIG was given.
    pub fn parse_maelstrom(
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, maelstrom::Options), clap::Error> {
        let positional = |arg: clap::Arg, value| arg.required(false).default_value(value);
        let mut command = Self::command()
            .mut_arg("ip", |arg| positional(arg, "127.0.0.1"))
            .mut_arg("port", |arg| positional(arg, "0"))
            .mut_arg("config", |_| {
                clap::Arg::new("config").index(3).value_parser(clap::value_parser!(PathBuf))
            });
        let matches = command.try_get_matches_from_mut(args)?;
        let is_given = |id: &str| {
            matches.value_source(id).is_some_and(|source| source != ValueSource::DefaultValue)
        };
        if ["ip", "port", "config"].into_iter().any(is_given) {
            let text = "--maelstrom takes no IP, PORT and CONFIG; leave them out";
            return Err(command.error(ErrorKind::ArgumentConflict, text));
        }
        let args = Self::from_arg_matches(&matches)?;
        let mut options = maelstrom::Options::new(args.batch);
        options.workload = args.workload;
        let peer = &mut options.peer;
        let set = |id, to: &mut Duration, value| {
            if is_given(id) {
                *to = value;
            }
        };
        let detection = &mut peer.detection;
        set("suspect_timeout", &mut detection.suspect_timeout, args.suspect_timeout);
        set("sync_interval", &mut peer.sync.sync_interval, args.sync_interval);
        set("probe_timeout", &mut detection.probe_timeout, args.common.probe_timeout);
        let usual = detection.ping_interval;
        detection.ping_interval = ping(args.ping_interval, usual, detection.suspect_timeout)
            .map_err(|error| command.error(ErrorKind::ArgumentConflict, error))?;
        peer.sync.fanout = args.fanout;
        peer.topology.links = args.links;
        Ok((args, options))
    }

    /// The peer's settings. With port 0, the caller replaces `me` once a port is bound.
    ///
    /// # Errors
    ///
    /// If arguments do not go together, or something is wrong with CONFIG.
    pub fn resolve(&self) -> Result<PeerConfig, ArgsError> {
        let (links, max_links) = (self.links, self.max_links);
        if max_links < links {
            return Err(ArgsError::Links { links, max_links });
        }
        self.common.check()?;
        let me = self.common.me(self.common.port);
        let (network, membership) = match (&self.config, &self.peers) {
            (Some(config), None) => {
                let network = read_network(&self.common.network, config)?;
                if network.seeds().contains(&me) {
                    return Err(ArgsError::IsSeed { config: config.clone(), me });
                }
                (network, Membership::Voted)
            }
            (None, Some(peers)) => {
                let network = Network::without_seeds(self.common.network.clone());
                (network, Membership::Open(peers.clone()))
            }
            (Some(_), Some(_)) => return Err(ArgsError::SeedsAndPeers),
            (None, None) => return Err(ArgsError::NobodyNamed),
        };
        Ok(PeerConfig::new(me, network)
            .membership(membership)
            .probe_timeout(self.common.probe_timeout)
            .gossip_interval(self.gossip_interval)
            .gossip_count(self.gossip_count)
            .signed(!self.unsigned_gossip)
            .ping_interval(ping(self.ping_interval, PING, self.suspect_timeout)?)
            .suspect_timeout(self.suspect_timeout)
            .sync_interval(self.sync_interval)
            .fanout(self.fanout)
            .links(links)
            .max_links(max_links)
            .exponent(self.exponent)
            .causal_wait(self.causal_wait)
            .max_store_bytes(self.max_store_bytes)
            .max_key(self.max_key_bytes))
    }
}

/// The usual time between two pings.
const PING: Duration = Duration::from_secs(5);

/// The time between two pings: the given one, or else the usual one, but at most a third of the
/// suspect timeout, so that one lost ping makes nobody a suspect.
fn ping(
    given: Option<Duration>,
    usual: Duration,
    suspect: Duration,
) -> Result<Duration, ArgsError> {
    let ping = given.unwrap_or_else(|| usual.min(suspect / 3));
    if ping < suspect { Ok(ping) } else { Err(ArgsError::Ping { ping, suspect }) }
}

/// Reads a number of links, or of peers contacted at once: at least one, and not absurdly many.
fn few() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MOST_LINKS)
}

/// Reads a number of members; a list of more would be refused by the peers.
fn members() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1 << 20)
}

/// Reads the length of a key, which replicas have to take from each other.
fn key_length() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=u64::try_from(MAX_KEY).unwrap_or(u64::MAX))
}

/// A host has no more ports than that, so a larger number is mistyped.
const MOST_LINKS: u64 = 65_535;

const PEER_USAGE: &str = "\
peer <IP> <PORT> <CONFIG> [OPTIONS]
       peer <IP> <PORT> --peers IP:PORT,... [OPTIONS]
       peer --maelstrom [OPTIONS]
       peer --generate-key";

const PEER_AFTER_HELP: &str = "\
Durations are written 500ms, 5s, 1m. The command line wins over the environment. With no argument at
all, SOCKET_ADDRESS=IP:PORT and VIEW=IP:PORT,... in the environment make it peer IP PORT --peers VIEW
--http IP:PORT --gossip-count 0 --ephemeral --insecure. A key file for the whole network is made by
(umask 077; peer --generate-key > FILE).
Exit codes: 0 after a clean stop, 1 for a failure while running, 2 for a mistake in the arguments, CONFIG,
the key file or the file of the HTTP token.

Examples:
  peer 127.0.0.1 6000 config.txt --http 127.0.0.1:8000    with the seeds that config.txt lists
  peer 127.0.0.1 6001 --peers 127.0.0.1:6000 --console    without seeds, and with a console";

const AFTER_HELP: &str = "\
Durations are written 500ms, 5s, 1m. The command line wins over the environment.
Exit codes: 0 after a clean stop, 1 for a failure while running, 2 for a mistake in the arguments, CONFIG,
the key file or the file of the HTTP token.

Examples:
  seed 127.0.0.1 5000 config.txt    the only seed, or one of some; config.txt lists 127.0.0.1:5000
  seed 10.0.0.7 5000 config.txt --key-file key    for others who have the key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        SeedArgs::command().debug_assert();
        PeerArgs::command().debug_assert();
    }

    #[test]
    fn every_option_has_its_environment_variable() {
        for command in [SeedArgs::command(), PeerArgs::command()] {
            for option in command.get_opts() {
                let long = option.get_long().unwrap();
                let name = format!("RUMORMILL_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(option.get_env().and_then(|env| env.to_str()), Some(name.as_str()));
            }
        }
    }

    #[test]
    fn a_maelstrom_node_has_its_own_defaults_and_takes_what_is_given() {
        let parse = |args: &[&str]| {
            let args = ["peer", "--maelstrom"].iter().chain(args).map(OsString::from);
            PeerArgs::parse_maelstrom(args).map(|(_, options)| options)
        };
        let options = parse(&[]).unwrap();
        assert_eq!(options.batch, maelstrom::DEFAULT_BATCH);
        assert_eq!(options.peer.detection.ping_interval, Duration::from_secs(1));
        let options = parse(&["--batch", "0ms", "--ping-interval", "4s", "--fanout", "4"]).unwrap();
        assert_eq!((options.batch, options.peer.sync.fanout), (Duration::ZERO, 4));
        assert_eq!(options.peer.detection.ping_interval, Duration::from_secs(4));
        assert!(parse(&["127.0.0.1", "6000", "c"]).is_err());
    }

    #[test]
    fn the_defaults_are_those_of_the_machines() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("c");
        std::fs::write(&list, "127.0.0.1:5000\n").unwrap();
        let list = list.to_str().unwrap();
        let args = PeerArgs::try_parse_from(["peer", "127.0.0.1", "7000", list]).unwrap();
        let got = args.resolve().unwrap();
        let expected = PeerConfig::new("127.0.0.1:7000".parse().unwrap(), got.network.clone());
        assert_eq!(format!("{got:?}"), format!("{expected:?}"));
        let args = SeedArgs::try_parse_from(["seed", "127.0.0.1", "5000", list]).unwrap();
        let got = args.resolve().unwrap();
        let expected = SeedConfig::new("127.0.0.1:5000".parse().unwrap(), got.network.clone());
        assert_eq!(format!("{got:?}"), format!("{expected:?}"));
    }
}
