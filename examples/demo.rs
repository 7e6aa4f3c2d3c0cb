//! The whole story in some seconds, with real processes: `cargo run --release --example demo`.
//!
//! Three seeds and eight peers register, link and gossip; one peer is killed and voted out, another
//! one leaves. Everything shown is read from `outputfile.txt`, which stays behind. The processes
//! are this same binary: called with `seed` or `peer` as its first argument, it is that program.

#[path = "demo/screen.rs"]
mod screen;
#[path = "demo/stage.rs"]
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use rumormill::cli;
use screen::{Ink, Screen, time};
use stage::{LOG, Line, OLD_LOG, Stage, between};
use tokio::signal::unix::{SignalKind, signal};

const SEEDS: usize = 3;
const PEERS: usize = 8;
/// Messages of each peer, a second apart.
const MESSAGES: usize = 3;
const OPTIONS: [&str; 4] = ["--gossip-interval", "1s", "--gossip-count", "3"];
/// Neighbours that a peer wants, the default of `--links`.
const LINKS: usize = 3;
/// Between two acts, so that one can read along.
const PAUSE: Duration = Duration::from_millis(500);
/// Rows of one kind that are shown; the rest is counted.
const ROWS: usize = 3;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|first| first.to_str()) {
        Some("seed") => return cli::seed_main_from(args),
        Some("peer") => return cli::peer_main_from(args),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(perform()),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("\ndemo: {wrong}; {LOG} has the whole story up to here");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo; whatever ends it, no process stays behind, because dropping the stage ends them.
async fn perform() -> Result<(), String> {
    let no_signal = |error| format!("cannot handle signals: {error}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signal)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(no_signal)?;
    tokio::select! {
        outcome = Demo::run() => outcome,
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("terminated".to_owned()),
        _ = hangup.recv() => Err("the terminal is gone".to_owned()),
    }
}

type Overlay = BTreeMap<SocketAddr, BTreeSet<SocketAddr>>;

struct Demo {
    stage: Stage,
    screen: Screen,
    /// Lines of the log that have been told.
    told: usize,
    summary: Vec<(&'static str, String)>,
}

impl Demo {
    async fn run() -> Result<(), String> {
        let (stage, renamed) = Stage::set(SEEDS, PEERS)?;
        let mut demo = Self { stage, screen: Screen::new(), told: 0, summary: Vec::new() };
        demo.screen.line(&format!(
            "rumormill: {SEEDS} seeds and {PEERS} peers, each a process of its own on 127.0.0.1"
        ));
        let former =
            if renamed { format!(" (the former one is now {OLD_LOG})") } else { String::new() };
        demo.screen.line(&format!(
            "All of them write to {LOG} here{former}.\nWhat follows is read from it as it happens."
        ));
        demo.seeds().await?;
        demo.first_peer().await?;
        demo.other_peers().await?;
        let overlay = demo.overlay().await?;
        demo.gossip().await?;
        let left = demo.death(&overlay).await?;
        demo.leave(left).await?;
        demo.stage.clear();
        demo.close();
        Ok(())
    }

    /// Lets some time pass, and returns what happened meanwhile.
    async fn news(&mut self, waiting: &str) -> Result<std::ops::Range<usize>, String> {
        self.screen.progress(waiting);
        self.stage.step(waiting).await?;
        let news = self.told..self.stage.lines.len();
        self.told = news.end;
        Ok(news)
    }

    /// A pause, and the title of the next act.
    async fn act(&mut self, title: &str, explanation: &str) -> Result<(), String> {
        let begin = tokio::time::Instant::now() + PAUSE;
        while tokio::time::Instant::now() < begin {
            self.stage.step(title).await?;
        }
        self.screen.title(title, explanation);
        // What happens from now on belongs to this act.
        self.told = self.stage.lines.len();
        Ok(())
    }

    /// A line below the columns of the rows.
    fn below(&mut self, ink: Ink, text: &str) {
        let line = self.screen.ink(ink, &format!("{:>15} {text}", ""));
        self.screen.line(&line);
    }

    fn since_start(&self, line: &Line) -> String {
        format!("{:.3} s", between(self.stage.began, line.time).as_secs_f64())
    }

    fn names(&self, addrs: impl IntoIterator<Item = SocketAddr>) -> String {
        let names: Vec<String> = addrs.into_iter().map(|addr| self.stage.name(addr)).collect();
        if names.is_empty() { "nobody".to_owned() } else { names.join(" ") }
    }

    fn row(&mut self, when: &str, who: SocketAddr, ink: Ink, what: &str) {
        let who = self.stage.name(who);
        self.screen.row(when, &who, ink, what);
    }

    async fn seeds(&mut self) -> Result<(), String> {
        self.screen.title(
            "1. Three seeds",
            "They keep the list of members. A change needs the votes of two of the three.",
        );
        for seed in self.stage.seeds.clone() {
            self.stage.start(seed, &[])?;
        }
        while self.stage.events("seed connected").count() < SEEDS * (SEEDS - 1) {
            for i in self.news("the seeds to find each other").await? {
                let line = &self.stage.lines[i];
                let (who, when) = (line.who, self.since_start(line));
                if line.event == "listening" {
                    let text = format!(
                        "listens on {who}, process {}; quorum {} of {}",
                        self.stage.pid(who),
                        line.get("quorum"),
                        line.get("of")
                    );
                    self.row(&when, who, Ink::Plain, &text);
                } else if line.event == "seed connected" {
                    let text = format!("is connected to {}", self.stage.names(line.get("seed")));
                    self.row(&when, who, Ink::Dim, &text);
                }
            }
        }
        Ok(())
    }

    /// Whether every seed has committed this of a peer.
    fn all_commit(&self, event: &str, peer: SocketAddr) -> bool {
        let seeds: BTreeSet<SocketAddr> = self
            .stage
            .lines
            .iter()
            .filter(|line| line.is_about(event, peer))
            .map(|line| line.who)
            .collect();
        seeds.len() == SEEDS
    }

    /// When a peer had its quorum, and how long after it began to listen.
    fn registered(&self, peer: SocketAddr) -> Option<(i64, Duration)> {
        let mine = |event| self.stage.events(event).filter(move |line| line.who == peer);
        let began = mine("listening").next()?.time;
        let quorum = mine("registered").find(|line| {
            line.get("count").split_once('/').is_some_and(|(count, quorum)| count == quorum)
        })?;
        Some((quorum.time, between(began, quorum.time)))
    }

    /// What a line says that is about the membership of a peer, in words.
    fn in_words(&self, line: &Line) -> Option<(Ink, String)> {
        let peer = line.peer().map(|peer| self.stage.name(peer)).unwrap_or_default();
        let votes = line.get("votes").replace('/', " of ");
        let reason = line.get("reason");
        let words = match line.event.as_str() {
            "registration proposed" => (Ink::Plain, format!("proposes to register {peer}")),
            "vote" if line.get("accept") == "true" => {
                (Ink::Good, format!("votes yes on the {} of {peer}: {reason}", on(line)))
            }
            "vote" => (Ink::Bad, format!("votes no on the {} of {peer}: {reason}", on(line))),
            "registration committed" => {
                (Ink::Good, format!("commits: {peer} is a member, with the votes of {votes}"))
            }
            "registration rejected" => (Ink::Bad, format!("rejects {peer}: {reason}")),
            "registered" => {
                let count = line.get("count").replace('/', " of the ");
                let seed = self.stage.names(line.get("seed"));
                (Ink::Good, format!("is registered at {seed}: {count} seeds that it needs"))
            }
            "suspected" => (Ink::Bad, format!("suspects {peer}: {reason}")),
            "suspect notice" => {
                let from = self.stage.names(line.get("from"));
                (Ink::Plain, format!("hears from {from} that {peer} is suspected"))
            }
            "peer-level consensus" => {
                let witnesses = self.stage.names(line.get("witnesses"));
                (Ink::Plain, format!("has {witnesses} as witness: consensus among peers"))
            }
            event if event.starts_with("Dead Node:") => {
                (Ink::Bad, format!("tells the seeds: {event}"))
            }
            "dead-node proposed" => {
                let reporters = self.stage.names(line.get("reporters"));
                (Ink::Plain, format!("proposes to remove {peer}, reported by {reporters}"))
            }
            "dead-node committed" => {
                (Ink::Good, format!("commits: {peer} is dead, with the votes of {votes}"))
            }
            "dead-node rejected" => (Ink::Bad, format!("keeps {peer}: {reason}")),
            "dead node confirmed" => {
                let seed = self.stage.names(line.get("seed"));
                (Ink::Plain, format!("hears from {seed} that {peer} is removed"))
            }
            "leave committed" => {
                (Ink::Good, format!("commits: {peer} has left, with the votes of {votes}"))
            }
            "neighbour down" => (Ink::Dim, format!("sees its link to {peer} end")),
            _ => return None,
        };
        Some(words)
    }

    async fn first_peer(&mut self) -> Result<(), String> {
        self.act(
            "2. A first peer registers",
            "It asks seeds in random order until two have accepted. Each seed calls the peer\n\
             back at the address that it claims, and votes by what it finds.",
        )
        .await?;
        let Some(&peer) = self.stage.peers.first() else { return Ok(()) };
        self.stage.start(peer, &OPTIONS)?;
        while self.registered(peer).is_none() || !self.all_commit("registration committed", peer) {
            for i in self.news("P1 to be registered").await? {
                let line = &self.stage.lines[i];
                let Some((ink, text)) = self.in_words(line) else { continue };
                let (who, when) = (line.who, self.since_start(line));
                self.row(&when, who, ink, &text);
            }
        }
        Ok(())
    }

    async fn other_peers(&mut self) -> Result<(), String> {
        self.act("3. Seven more at the same moment", "One row each.").await?;
        self.below(Ink::Dim, "took     proposed by  yes from  committed at");
        let mut waiting: Vec<SocketAddr> = self.stage.peers.iter().skip(1).copied().collect();
        for peer in &waiting {
            self.stage.start(*peer, &OPTIONS)?;
        }
        while !waiting.is_empty() {
            let done = PEERS - waiting.len();
            self.news(&format!("registration: {done} of {PEERS}")).await?;
            let (ready, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|peer| {
                self.registered(*peer).is_some() && self.all_commit("registration committed", *peer)
            });
            waiting = rest;
            let mut ready: Vec<_> =
                ready.into_iter().map(|peer| (self.registered(peer), peer)).collect();
            ready.sort();
            for (_, peer) in ready {
                self.registration_row(peer);
            }
        }
        let slowest =
            self.stage.peers.iter().filter_map(|peer| self.registered(*peer)).map(|r| r.1);
        let slowest = slowest.max().unwrap_or_default();
        let text = format!("all {PEERS}, the slowest within {}", time(slowest));
        self.summary.push(("registered at a quorum", text));
        Ok(())
    }

    fn registration_row(&mut self, peer: SocketAddr) {
        let Some((at, took)) = self.registered(peer) else { return };
        let by = |event: &str, wanted: fn(&Line) -> bool| {
            let lines = self.stage.lines.iter();
            let seeds = lines.filter(|line| line.is_about(event, peer) && wanted(line));
            self.names(seeds.map(|line| line.who).collect::<BTreeSet<_>>())
        };
        let text = format!(
            "{:<8} {:<12} {:<9} {}",
            time(took),
            by("registration proposed", |_| true),
            by("vote", |line| line.get("accept") == "true"),
            by("registration committed", |_| true)
        );
        let when = format!("{:.3} s", between(self.stage.began, at).as_secs_f64());
        self.row(&when, peer, Ink::Good, &text);
    }

    /// Waits until these peers have links enough and both ends of each agree; when that was.
    async fn linked(&mut self, peers: &[SocketAddr]) -> Result<Overlay, String> {
        loop {
            let overlay = self.stage.overlay(peers);
            let sound = |(peer, links): (&SocketAddr, &BTreeSet<SocketAddr>)| {
                let agreed = |other| overlay.get(other).is_some_and(|of| of.contains(peer));
                links.len() >= LINKS && links.iter().all(agreed)
            };
            let ready = overlay.iter().filter(|entry| sound(*entry)).count();
            if ready == peers.len() {
                return Ok(overlay);
            }
            self.news(&format!("links: {ready} of {} peers have theirs", peers.len())).await?;
        }
    }

    fn overlay_table(&mut self, overlay: &Overlay) {
        self.below(Ink::Dim, "links        with");
        for peer in self.stage.peers.clone() {
            let Some(links) = overlay.get(&peer) else { continue };
            let in_order = self.stage.peers.iter().filter(|other| links.contains(other)).copied();
            let bar = "*".repeat(links.len());
            let text = format!("{:>2} {bar:<9} {}", links.len(), self.names(in_order));
            self.row("", peer, Ink::Plain, &text);
        }
    }

    async fn overlay(&mut self) -> Result<Overlay, String> {
        self.act(
            "4. The overlay",
            "Each peer has picked three neighbours, and prefers those that joined early: in a\n\
             large network that makes a few hubs with many links (a power law) and short ways.",
        )
        .await?;
        let peers = self.stage.peers.clone();
        let overlay = self.linked(&peers).await?;
        self.overlay_table(&overlay);
        Ok(overlay)
    }

    /// Each message sent: when first, by whom, and when each receipt of it was.
    fn messages(&self) -> BTreeMap<&str, (i64, SocketAddr, Vec<i64>)> {
        let mut messages: BTreeMap<&str, (i64, SocketAddr, Vec<i64>)> = BTreeMap::new();
        for line in self.stage.events("gossip sent") {
            messages.entry(line.get("message")).or_insert((line.time, line.who, Vec::new()));
        }
        for line in self.stage.events("gossip received") {
            if let Some((_, _, receipts)) = messages.get_mut(line.get("message")) {
                receipts.push(line.time);
            }
        }
        messages
    }

    async fn gossip(&mut self) -> Result<(), String> {
        self.act(
            "5. Gossip",
            "Each peer says three things, a second apart: <timestamp>:<IP>:<Msg#>. The first\n\
             were said while others still joined; those fetched what they had missed.",
        )
        .await?;
        self.below(Ink::Dim, &format!("{:<30}  {:<8}  the last after", "message", "heard by"));
        let (others, all) = (PEERS - 1, PEERS * MESSAGES);
        let expected = all * others;
        let mut shown = BTreeSet::new();
        loop {
            let messages = self.messages();
            let mut rows = Vec::new();
            for (text, (sent, by, receipts)) in &messages {
                let last = receipts.iter().max().copied().unwrap_or_default();
                if receipts.len() >= others && text.ends_with(":1") && !shown.contains(*text) {
                    let took = time(between(*sent, last));
                    let words = format!("{text:<30}  {others} of {others}    {took}");
                    rows.push((last, *by, words, (*text).to_owned()));
                }
            }
            let heard: usize = messages.values().map(|(_, _, receipts)| receipts.len()).sum();
            let sent = self.stage.events("gossip sent").count();
            rows.sort();
            for (at, by, words, text) in rows {
                let when = format!("{:.3} s", between(self.stage.began, at).as_secs_f64());
                self.row(&when, by, Ink::Plain, &words);
                shown.insert(text);
            }
            if sent == all && heard >= expected {
                break;
            }
            let share = heard * 100 / expected;
            self.news(&format!(
                "gossip: {sent} of {all} messages said, heard {heard} of {expected} times ({share} %)"
            ))
            .await?;
        }
        let mut times: Vec<Duration> = Vec::new();
        let mut heard = 0;
        for (text, (sent, _, receipts)) in self.messages() {
            heard += receipts.len();
            if !text.ends_with(":1") {
                times.extend(receipts.iter().map(|at| between(sent, *at)));
            }
        }
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let slowest = times.last().copied().unwrap_or_default();
        let text = format!(
            "{all} messages, heard {heard} of {expected} times: {} % delivered, {} twice",
            heard.min(expected) * 100 / expected,
            heard - expected
        );
        self.below(Ink::Good, &text);
        self.summary.push(("gossip", text));
        let text = format!("half within {}, all within {}", time(median), time(slowest));
        self.summary.push(("gossip, on the finished overlay", text));
        Ok(())
    }

    async fn death(&mut self, overlay: &Overlay) -> Result<Vec<SocketAddr>, String> {
        let hub = overlay.iter().max_by_key(|(_, links)| links.len());
        let Some((victim, links)) = hub.map(|(peer, links)| (*peer, links.clone())) else {
            return Err("nobody has a link".to_owned());
        };
        let name = self.stage.name(victim);
        self.act(
            &format!("6. kill -9 {} ({name}, a peer with the most links)", self.stage.pid(victim)),
            "Whoever is linked with it looks for itself and asks others to look. A peer that has\n\
             a witness reports it; of two reports a seed makes a proposal; then each seed looks\n\
             for itself, and votes. Times are since the kill.",
        )
        .await?;
        let so_far = self.stage.lines.len();
        let killed = self.stage.kill(victim)?;
        self.row("0.0 ms", victim, Ink::Bad, &format!("is dead; it had {} links", links.len()));
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            for i in self.news(&format!("{name} to be removed")).await? {
                let line = &self.stage.lines[i];
                let kind = line.event.split(':').next().unwrap_or_default().to_owned();
                let ours = line.peer() == Some(victim) || kind == "Dead Node";
                let Some((ink, text)) = self.in_words(line).filter(|_| ours) else { continue };
                let shown = count.entry(kind).or_default();
                *shown += 1;
                // The seeds' part is short and is shown in full.
                if *shown > ROWS && !self.stage.seeds.contains(&line.who) {
                    continue;
                }
                let (who, when) = (line.who, time(between(killed, line.time)));
                self.row(&when, who, ink, &text);
            }
            let reporters = self.stage.events("peer-level consensus").count();
            let confirmed = self.stage.events("dead node confirmed").count();
            if self.all_commit("dead-node committed", victim) && confirmed >= reporters {
                break;
            }
        }
        let more = |kind: &str| count.get(kind).map_or(0, |all| all.saturating_sub(ROWS));
        let text = format!(
            "and {} more saw a link end, {} more suspicions, {} more notices, {} more reports",
            more("neighbour down"),
            more("suspected"),
            more("suspect notice"),
            more("Dead Node")
        );
        self.below(Ink::Dim, &text);
        for (what, event, wanted) in [
            ("kill -9 to the first suspicion", "suspected", 1),
            ("kill -9 to consensus among peers", "peer-level consensus", 1),
            ("kill -9 to removal at all seeds", "dead-node committed", SEEDS),
        ] {
            let at = self.stage.events(event).nth(wanted - 1).map_or(killed, |line| line.time);
            self.summary.push((what, time(between(killed, at))));
        }

        let left: Vec<_> = self.stage.peers.iter().copied().filter(|p| *p != victim).collect();
        self.healed(&left, so_far, killed).await?;
        Ok(left)
    }

    async fn healed(
        &mut self,
        left: &[SocketAddr],
        so_far: usize,
        killed: i64,
    ) -> Result<(), String> {
        self.act(
            "7. The overlay heals",
            "Whoever lost a link that it had picked, or has fewer than three, picks another.",
        )
        .await?;
        let overlay = self.linked(left).await?;
        let mut pairs = BTreeMap::new();
        for line in self.stage.lines.iter().skip(so_far).filter(|l| l.event == "neighbour up") {
            let Some(peer) = line.peer() else { continue };
            pairs
                .entry((line.who.min(peer), line.who.max(peer)))
                .or_insert((line.time, line.who, peer));
        }
        let mut rows: Vec<_> = pairs.into_values().collect();
        rows.sort();
        for (at, one, other) in &rows {
            let text = format!("and {} have a new link", self.stage.name(*other));
            self.row(&time(between(killed, *at)), *one, Ink::Good, &text);
        }
        self.overlay_table(&overlay);
        let text = match rows.last() {
            Some((at, ..)) => format!("{} ({} new links)", time(between(killed, *at)), rows.len()),
            None => "no link had to be replaced".to_owned(),
        };
        self.summary.push(("kill -9 to the overlay healed", text));
        Ok(())
    }

    async fn leave(&mut self, left: Vec<SocketAddr>) -> Result<(), String> {
        let Some(leaver) = left.last().copied() else { return Ok(()) };
        let name = self.stage.name(leaver);
        self.act(
            &format!("8. kill -TERM {} ({name} leaves)", self.stage.pid(leaver)),
            "A leave is no death: the peer says so itself, the seeds ask it back, and nobody\n\
             suspects it. Times are since the signal.",
        )
        .await?;
        let told = self.stage.ask_to_leave(leaver)?;
        let mut code = None;
        loop {
            for i in self.news(&format!("{name} to leave")).await? {
                let line = &self.stage.lines[i];
                let words = self.in_words(line).filter(|_| line.peer() == Some(leaver));
                let Some((ink, text)) = words else { continue };
                let (who, when) = (line.who, time(between(told, line.time)));
                self.row(&when, who, ink, &text);
            }
            code = code.or_else(|| self.stage.ended(leaver));
            if code.is_some() && self.all_commit("leave committed", leaver) {
                break;
            }
        }
        match code.flatten() {
            Some(0) => self.row("", leaver, Ink::Good, "ends with exit code 0"),
            Some(code) => return Err(format!("{name} left with exit code {code}")),
            None => return Err(format!("{name} was killed while it left")),
        }
        let commits = self.stage.events("leave committed").filter(|l| l.peer() == Some(leaver));
        let took = commits.map(|line| between(told, line.time)).max().unwrap_or_default();
        let suspected = self.stage.events("suspected").filter(|l| l.peer() == Some(leaver)).count();
        let text = format!("{}, exit code 0, suspected by {suspected}", time(took));
        self.summary.push(("a clean leave at all seeds", text));
        Ok(())
    }

    fn close(&mut self) {
        self.screen.title("Summary", "");
        for (what, result) in std::mem::take(&mut self.summary) {
            let line = format!("  {what:<33}  {}", self.screen.ink(Ink::Good, &result));
            self.screen.line(&line);
        }
        self.screen.line("");
        let lines = self.stage.lines.len();
        self.screen.line(&format!("{LOG} has all of it, {lines} lines. To look closer:"));
        for pattern in ["vote on=dead-node", "registration committed", "gossip received"] {
            self.screen.line(&format!("  grep '{pattern}' {LOG}"));
        }
    }
}

/// What a vote is on, as a noun.
fn on(line: &Line) -> &str {
    match line.get("on") {
        "dead-node" => "death",
        on => on,
    }
}
