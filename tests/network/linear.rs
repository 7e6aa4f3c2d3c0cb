//! Histories of real seeds, while they are killed, stopped and cut from each other, judged by the
//! model checker's linearizability tester: could one registry without seeds have answered so?
//!
//! Each seed has a network namespace of its own; where those cannot be made (that takes root), seeds
//! run on loopback and are not cut. A list counts as answered when two seeds say the same, as a
//! quorum read without a write-back must.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rumormill::proto::config::{DEFAULT_NETWORK, Network as Net};
use rumormill::proto::message::{Addr, Message, ToSeed};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};
use tokio::time::{sleep, timeout};

use crate::history::{Asker, Entry, Membership, Op, Ret};
use crate::reserved::Reserved;
use crate::spaces::Spaces;
use crate::stub::Stub;

/// Seconds of trouble unless RUMORMILL_LINEAR says otherwise; it was run with 60.
const SECONDS: u64 = 10;
/// Peers that come and go, and clients that read.
const PEERS: usize = 6;
const READERS: usize = 4;
/// How long a client waits for one seed.
const PATIENCE: Duration = Duration::from_secs(3);

/// Three seeds, apart if that is possible.
struct Trio {
    seeds: Vec<SocketAddr>,
    running: Vec<Option<Child>>,
    spaces: Option<Spaces>,
    dir: tempfile::TempDir,
    _reserved: Vec<Reserved>,
}

impl Trio {
    fn start() -> Self {
        let spaces = Spaces::make(3);
        let reserved: Vec<Reserved> = match &spaces {
            Some(_) => Vec::new(),
            None => (0..3).map(|_| Reserved::new()).collect(),
        };
        let seeds: Vec<SocketAddr> = match &spaces {
            Some(_) => (0..3).map(|place| SocketAddr::new(Spaces::host(place), 5000)).collect(),
            None => reserved.iter().map(|reserved| reserved.addr).collect(),
        };
        let dir = tempfile::tempdir().unwrap();
        let text: String = seeds.iter().map(|seed| format!("{seed}\n")).collect();
        fs::write(dir.path().join("config.txt"), text).unwrap();
        let mut trio =
            Self { seeds, running: vec![None, None, None], spaces, dir, _reserved: reserved };
        (0..3).for_each(|place| trio.run(place));
        trio
    }

    fn run(&mut self, place: usize) {
        let (program, seed) = (env!("CARGO_BIN_EXE_seed"), self.seeds[place]);
        let mut command = match &self.spaces {
            Some(spaces) => spaces.command(place, program),
            None => Command::new(program),
        };
        let child = command
            .args([&seed.ip().to_string(), &seed.port().to_string(), "config.txt", "--insecure"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.dir.path().join("stderr")).unwrap())
            .spawn();
        self.running[place] = Some(child.unwrap());
    }

    fn kill(&mut self, place: usize) {
        if let Some(mut child) = self.running[place].take() {
            child.kill().unwrap(); // also one that is stopped
            child.wait().unwrap();
        }
    }

    fn signal(&self, place: usize, name: &str) {
        let pid = self.running[place].as_ref().unwrap().id();
        assert!(
            Command::new("sh")
                .args(["-c", &format!("kill -{name} {pid}")])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Makes trouble until `end`: kills, stops, cuts. Returns how many of each.
    fn trouble(&mut self, end: Instant) -> [u32; 3] {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut done = [0; 3];
        while Instant::now() < end {
            let place = rng.random_range(0..3);
            let time = Duration::from_millis(rng.random_range(50..1_200));
            match rng.random_range(0..3) {
                0 => {
                    self.kill(place);
                    std::thread::sleep(time / 3);
                    self.run(place);
                    done[0] += 1;
                }
                1 => {
                    self.signal(place, "STOP");
                    std::thread::sleep(time);
                    self.signal(place, "CONT");
                    done[1] += 1;
                }
                _ => {
                    let other = (place + 1) % 3;
                    if let Some(spaces) = &self.spaces {
                        spaces.cut(place, other, true);
                        std::thread::sleep(time);
                        spaces.cut(place, other, false);
                        done[2] += 1;
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(rng.random_range(0..500)));
        }
        done
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        (0..3).for_each(|place| self.kill(place));
    }
}

/// What was asked and answered, in the order in which it happened.
#[derive(Clone, Debug)]
enum Moment {
    Asked(Asker, Addr, Op),
    Answered(Asker, Addr, Ret),
}

/// Writes moments down.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<(Asker, Vec<Moment>)>>);

impl Diary {
    fn ask(&self, peer: Addr, op: Op) -> Asker {
        let (used, moments) = &mut *self.0.lock().unwrap();
        *used += 1;
        moments.push(Moment::Asked(*used, peer, op));
        *used
    }

    fn answer(&self, asker: Asker, peer: Addr, ret: Ret) {
        self.0.lock().unwrap().1.push(Moment::Answered(asker, peer, ret));
    }

    /// Whether each peer's history is one of a single registry, and how much there is of it.
    fn judge(&self) -> BTreeMap<Kind, usize> {
        let (_, moments) = &*self.0.lock().unwrap();
        let answered: Vec<Asker> = moments
            .iter()
            .filter_map(|moment| match moment {
                Moment::Answered(asker, ..) => Some(*asker),
                Moment::Asked(..) => None,
            })
            .collect();
        let mut histories: BTreeMap<Addr, LinearizabilityTester<Asker, Membership>> =
            BTreeMap::new();
        let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
        for moment in moments {
            match moment {
                // A list that was never answered says nothing.
                Moment::Asked(asker, _, Op::List) if !answered.contains(asker) => {}
                Moment::Asked(asker, peer, op) => {
                    *counts.entry(Kind::of(op)).or_default() += 1;
                    let history = histories
                        .entry(*peer)
                        .or_insert_with(|| LinearizabilityTester::new(Membership(None)));
                    history.on_invoke(*asker, *op).unwrap();
                }
                Moment::Answered(asker, peer, ret) => {
                    histories.get_mut(peer).unwrap().on_return(*asker, *ret).unwrap();
                }
            }
        }
        for (peer, history) in &histories {
            assert!(
                history.is_consistent(),
                "no single registry could have answered like this: {:#?}",
                moments.iter().filter(|moment| moment.is_of(peer)).collect::<Vec<_>>()
            );
        }
        counts
    }
}

impl Moment {
    fn is_of(&self, wanted: &Addr) -> bool {
        matches!(self, Moment::Asked(_, peer, _) | Moment::Answered(_, peer, _) if peer == wanted)
    }
}

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Register,
    Leave,
    Dead,
    List,
}

impl Kind {
    fn of(op: &Op) -> Self {
        match op {
            Op::Register(_) => Kind::Register,
            Op::Leave(_) => Kind::Leave,
            Op::Dead(_) => Kind::Dead,
            Op::List => Kind::List,
        }
    }
}

/// Registers until a quorum of seeds has answered for it.
async fn register(stub: &Stub, seeds: &[SocketAddr]) {
    let mut granted = Vec::new();
    while granted.len() < 2 {
        for seed in
            seeds.iter().filter(|seed| !granted.contains(*seed)).copied().collect::<Vec<_>>()
        {
            let ask = async { stub.call(seed).await?.register(stub.incarnation).await };
            if let Ok(Ok(())) = timeout(PATIENCE, ask).await {
                granted.push(seed);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn leave(stub: &Stub, seeds: &[SocketAddr]) {
    stub.leave();
    loop {
        for seed in seeds {
            let ask = async { stub.call(*seed).await?.leave(stub.incarnation).await };
            if let Ok(Ok(())) = timeout(PATIENCE, ask).await {
                return;
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Two members tell all seeds that a peer is dead.
async fn report(reporters: &[Stub], seeds: &[SocketAddr], peer: Addr, incarnation: u64) {
    for reporter in reporters {
        for seed in seeds {
            let text = format!("Dead Node:{peer}");
            let tell = async {
                let mut line = reporter.call(*seed).await?;
                line.say(&Message::ToSeed(ToSeed::DeadNode { peer, incarnation, text })).await
            };
            let _ = timeout(PATIENCE, tell).await;
        }
    }
}

/// A peer that comes, and leaves or dies, again and again at one address.
async fn lives(
    net: Net,
    host: Addr,
    diary: Diary,
    number: u64,
    reporters: Arc<Vec<Stub>>,
    end: Instant,
) {
    let mut rng = SmallRng::seed_from_u64(number);
    let seeds = net.seeds().to_vec();
    while Instant::now() < end {
        let stub = Stub::start_on(&net, host).await;
        let addr = stub.addr;
        let asker = diary.ask(addr, Op::Register(stub.incarnation));
        register(&stub, &seeds).await;
        diary.answer(asker, addr, Ret::Done);
        sleep(Duration::from_millis(rng.random_range(0..1_500))).await;
        if rng.random() {
            let asker = diary.ask(addr, Op::Leave(stub.incarnation));
            leave(&stub, &seeds).await;
            diary.answer(asker, addr, Ret::Done);
            drop(stub);
        } else {
            // Nobody is answered for a death; lists show whether it was decided.
            diary.ask(addr, Op::Dead(stub.incarnation));
            let incarnation = stub.incarnation;
            drop(stub);
            report(&reporters, &seeds, addr, incarnation).await;
        }
        sleep(Duration::from_millis(rng.random_range(100..800))).await;
    }
}

/// Reads the record of one known peer after the other from two seeds at a time.
async fn reads(net: Net, host: Addr, diary: Diary, number: u64, end: Instant) {
    let mut rng = SmallRng::seed_from_u64(1_000 + number);
    let seeds = net.seeds().to_vec();
    let reader = Stub::start_on(&net, host).await;
    while Instant::now() < end {
        let known: Vec<Addr> = {
            let (_, moments) = &*diary.0.lock().unwrap();
            let asked = moments.iter().filter_map(|moment| match moment {
                Moment::Asked(_, peer, Op::Register(_)) => Some(*peer),
                _ => None,
            });
            asked.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
        };
        let Some(peer) = known.choose(&mut rng).copied() else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let two: Vec<SocketAddr> = seeds.sample(&mut rng, 2).copied().collect();
        let asker = diary.ask(peer, Op::List);
        let read = async |seed: SocketAddr| -> Option<Entry> {
            let ask = async { reader.call(seed).await?.list().await };
            let list = timeout(PATIENCE, ask).await.ok()?.ok()?;
            let record = list.into_iter().find(|(of, _)| *of == peer);
            Some(record.map(|(_, record)| (record.incarnation, record.status)))
        };
        let (one, other) = tokio::join!(read(two[0]), read(two[1]));
        if let (Some(one), Some(other)) = (one, other)
            && one == other
        {
            diary.answer(asker, peer, Ret::Is(one));
        }
        sleep(Duration::from_millis(rng.random_range(0..60))).await;
    }
}

#[test]
fn what_real_seeds_answer_in_trouble_is_what_one_registry_could_have_answered() {
    let mut trio = Trio::start();
    if trio.spaces.is_none() {
        eprintln!(
            "no network namespaces here (that takes root): seeds are not cut from each other"
        );
    }
    let seconds =
        std::env::var("RUMORMILL_LINEAR").ok().map(|text| text.parse().expect("a number"));
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let net = Net::new(DEFAULT_NETWORK, trio.seeds.iter().copied());
    let (diary, entry) = (Diary::default(), trio.spaces.as_ref().map(Spaces::entry));
    let clients = {
        let diary = diary.clone();
        std::thread::spawn(move || {
            let host: Addr = match entry {
                Some(enter) => {
                    enter();
                    SocketAddr::new(Spaces::clients(), 0)
                }
                None => ([127, 0, 0, 1], 0).into(),
            };
            // All sockets are made by this thread, which lives in the clients' namespace.
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut reporters = Vec::new();
                for _ in 0..2 {
                    let reporter = Stub::start_on(&net, host).await;
                    register(&reporter, net.seeds()).await;
                    reporters.push(reporter);
                }
                let reporters = Arc::new(reporters);
                let mut all = Vec::new();
                for number in 0..PEERS as u64 {
                    let (net, diary, reporters) = (net.clone(), diary.clone(), reporters.clone());
                    // In a namespace of its own a peer keeps its port, below those that the system
                    // gives to others; on loopback each life has another one.
                    let port = if host.ip().is_loopback() { 0 } else { 20_000 + number as u16 };
                    let at = SocketAddr::new(host.ip(), port);
                    all.push(tokio::spawn(lives(net, at, diary, number, reporters, end)));
                }
                for number in 0..READERS as u64 {
                    all.push(tokio::spawn(reads(net.clone(), host, diary.clone(), number, end)));
                }
                for one in all {
                    one.await.unwrap();
                }
            });
        })
    };
    let done = trio.trouble(end);
    clients.join().unwrap();
    let counts = diary.judge();
    println!("killed, stopped, cut: {done:?}; {counts:?}");
    assert!(done[0] > 0 && done[1] > 0 && (trio.spaces.is_none() || done[2] > 0), "{done:?}");
    assert_eq!(counts.len(), 4, "some of all: {counts:?}");
}
