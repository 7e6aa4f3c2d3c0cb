//! A whole network in simulated time: the real machines, on a network that delays and loses.
//!
//!     cargo run --release --example simulate -- --peers 1000 --seed 7 --loss 0.2
//!
//! Everything follows from `--seed`: the same options give the same run. The simulator is that of the
//! tests (`tests/sim`).

#[allow(dead_code, unreachable_pub)] // the tests use the rest
#[path = "../tests/sim/mod.rs"]
mod sim;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Parser;
use rand::seq::SliceRandom;
use rumormill::proto::roles::PeerCommand;

use sim::fit::fit;
use sim::large;
use sim::node::NodeId;
use sim::overlay;
use sim::watch::Watch;
use sim::wire::Weather;
use sim::world::{START, World};

/// Runs a network of the real machines in simulated time, and prints what happened.
#[derive(Parser)]
#[command(name = "simulate")]
struct Options {
    /// How many peers.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u16).range(2..=20_000))]
    peers: u16,
    /// How many seeds.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u8).range(1..=15))]
    seeds: u8,
    /// The number that decides everything that is left to chance.
    #[arg(long, default_value = "1")]
    seed: u64,
    /// How likely it is that a single message between two processes is lost, once all have joined.
    #[arg(long, default_value = "0", value_parser = probability)]
    loss: f64,
    /// Latency of a message from here on, in milliseconds.
    #[arg(long, default_value = "1")]
    latency_from: u64,
    /// Latency of a message up to here, in milliseconds.
    #[arg(long, default_value = "20")]
    latency_to: u64,
    /// How many messages are published, ten a second.
    #[arg(long, default_value = "100")]
    messages: u64,
    /// Which part of the peers is killed at once, after the messages.
    #[arg(long, default_value = "0.1", value_parser = probability)]
    deaths: f64,
    /// Seconds of simulated time after the deaths.
    #[arg(long, default_value = "40")]
    calm: u64,
    /// A file for all that happened, line by line; it grows by gigabytes.
    #[arg(long)]
    trace: Option<std::path::PathBuf>,
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if (0.0..1.0).contains(&part) => Ok(part),
        _ => Err("a number from 0 to below 1".to_owned()),
    }
}

/// The network, once its processes have started.
struct Run {
    world: World,
    seeds: Vec<NodeId>,
    peers: Vec<NodeId>,
}

impl Run {
    fn new(options: &Options) -> Self {
        let mut world = World::new(options.seed);
        world.trace.off();
        if options.trace.is_some() {
            world.trace.in_words();
        }
        world.watch = Some(Box::new(Watch::default()));
        let (seeds, peers) = large::join(&mut world, options.seeds, options.peers);
        Self { world, seeds, peers }
    }

    /// What has passed in the simulation.
    fn simulated(&self) -> Duration {
        self.world.now.since(START)
    }

    fn up(&self) -> Vec<NodeId> {
        self.peers.iter().copied().filter(|id| self.world.nodes[*id].is_up()).collect()
    }

    /// Members by the first seed.
    fn members(&self) -> usize {
        let seed = self.seeds.first().and_then(|id| self.world.nodes[*id].seed());
        seed.map_or(0, |seed| seed.registry().size())
    }

    fn told(&self, words: &str) -> u64 {
        let lines = self.world.watch.as_ref().map(|watch| &watch.lines);
        lines.and_then(|lines| lines.get(words)).copied().unwrap_or(0)
    }
}

fn join(run: &mut Run, out: &mut impl Write) -> io::Result<()> {
    let most = run.simulated() + Duration::from_secs(60);
    while run.members() < run.peers.len() && run.simulated() < most {
        run.world.run_for(Duration::from_millis(100));
    }
    run.world.run_for(Duration::from_secs(5));
    let (seeds, told) = (run.seeds.len() as u64, run.told("registration committed"));
    writeln!(out, "members           {} of {} peers", run.members(), run.peers.len())?;
    writeln!(out, "registrations     {told} lines at {seeds} seeds")?;
    shape(run, out)
}

fn shape(run: &Run, out: &mut impl Write) -> io::Result<()> {
    let graph = overlay::graph(&run.world.neighbours_of(&run.peers));
    let degrees: Vec<u64> = graph.iter().map(|neighbours| neighbours.len() as u64).collect();
    let (all, most) = (degrees.iter().sum::<u64>(), degrees.iter().max().unwrap_or(&0));
    let components = overlay::components(&graph);
    let parts = components.len();
    writeln!(out, "overlay           {} links, greatest degree {most}, {parts} piece(s)", all / 2)?;
    match fit(&degrees) {
        Some(law) => writeln!(
            out,
            "degree fit        P(k) ~ k^-{:.2} from k = {} on, {} peers in the tail",
            law.alpha, law.xmin, law.tail
        ),
        None => writeln!(out, "degree fit        too few peers to fit"),
    }
}

fn publish(run: &mut Run, options: &Options, out: &mut impl Write) -> io::Result<()> {
    for number in 0..options.messages {
        let ids = run.up();
        let from = ids[(number as usize * 37) % ids.len()];
        let payload = format!("message {number}").into();
        run.world.command(from, PeerCommand::Publish { token: number, payload });
        run.world.run_for(Duration::from_millis(100));
    }
    run.world.run_for(Duration::from_secs(30));
    let Some(watch) = &run.world.watch else { return Ok(()) };
    let peers = run.peers.len();
    let mut took: Vec<Duration> = Vec::new();
    let mut whole = 0;
    for spread in watch.messages.values() {
        whole += usize::from(spread.took.len() == peers);
        took.extend(spread.took.iter().skip(1));
    }
    took.sort_unstable();
    let sent = watch.messages.len();
    let expected = sent * peers.saturating_sub(1);
    writeln!(out, "messages          {whole} of {sent} reached all {peers} peers")?;
    if let (Some(median), Some(late), Some(last)) =
        (took.get(took.len() / 2), took.get(took.len() * 99 / 100), took.last())
    {
        let part = took.len() as f64 / expected as f64 * 100.0;
        writeln!(out, "coverage          {part:.4} % of {expected} deliveries")?;
        writeln!(out, "latency           {median:?} median, {late:?} p99, {last:?} greatest")?;
    }
    let counters = run.up().into_iter().filter_map(|id| run.world.nodes[id].peer());
    let (payloads, resent) = counters.fold((0, 0), |(payloads, resent), peer| {
        (payloads + peer.counters().payloads_sent, resent + peer.counters().resent)
    });
    let copies = payloads as f64 / took.len().max(1) as f64;
    writeln!(out, "copies            {copies:.2} a delivery, {resent} sent again by anti-entropy")
}

fn kill(run: &mut Run, options: &Options, out: &mut impl Write) -> io::Result<()> {
    let mut dying = run.up();
    dying.shuffle(&mut run.world.rng);
    dying.truncate((dying.len() as f64 * options.deaths) as usize);
    dying.iter().for_each(|id| run.world.crash(*id));
    let (dead, before) = (dying.len(), run.simulated());
    let left = run.peers.len() - dead;
    let mut gone_after = None;
    while run.simulated() - before < Duration::from_secs(options.calm) {
        run.world.run_for(Duration::from_millis(100));
        if run.members() <= left && gone_after.is_none() {
            gone_after = Some(run.simulated() - before);
        }
    }
    let members = run.members();
    let after = gone_after.map_or("not".to_owned(), |took| format!("after {took:?}"));
    writeln!(
        out,
        "deaths            {dead} killed at once, all removed {after}; {members} of {left} left are members"
    )?;
    for words in ["suspected", "suspicion refuted", "Dead Node", "dead-node committed", "rejoining"]
    {
        writeln!(out, "  {words:<22} {}", run.told(words))?;
    }
    shape(run, out)
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let out = &mut io::stdout().lock();
    let began = Instant::now();
    let mut run = Run::new(&options);
    join(&mut run, out)?;
    let latency = (
        Duration::from_millis(options.latency_from),
        Duration::from_millis(options.latency_to.max(options.latency_from)),
    );
    run.world.weather = Weather { loss: options.loss, latency, ..Weather::default() };
    publish(&mut run, &options, out)?;
    kill(&mut run, &options, out)?;
    let took = began.elapsed();
    let seconds = run.simulated().as_secs_f64();
    let peer_seconds = seconds * run.peers.len() as f64 / took.as_secs_f64();
    writeln!(
        out,
        "simulated         {seconds:.1} s in {:.1} s: {:.3} s a simulated second, {peer_seconds:.0} peer-seconds a second",
        took.as_secs_f64(),
        took.as_secs_f64() / seconds
    )?;
    if let Some(path) = &options.trace {
        std::fs::write(path, run.world.trace.words())?;
    }
    Ok(())
}
