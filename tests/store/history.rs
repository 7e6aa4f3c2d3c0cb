//! Clients that hop between replicas with their metadata while replicas are killed, frozen and cut off
//! from each other: what they are answered must be causally consistent ([`crate::causal`]), nothing
//! that was answered is lost, and in the end all replicas are equal.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::causal::{Event, Op, judge};
use crate::replicas::{PATIENCE, Replicas, ask_within, get, unless_late};

/// Seconds of trouble unless RUMORMILL_CAUSAL says otherwise; it was run with 120.
const SECONDS: u64 = 10;
const REPLICAS: u8 = 4;
const CLIENTS: usize = 6;
/// Readers that stay at one replica and hand no metadata back: what it shows must make sense by itself,
/// as no replica shows a write without its causal past.
const LOYAL: usize = 4;
const KEYS: usize = 4;
/// How long a client waits for a replica.
const CLIENT_PATIENCE: Duration = Duration::from_secs(2);
/// Between two things that a client does.
const PAUSE: u64 = 25;

/// What was done, in the order in which it was answered.
#[derive(Clone, Default)]
struct Diary {
    clock: Arc<AtomicU64>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Diary {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// What came of a request.
enum Came {
    /// It was done, and the client has seen this now.
    Done(Op, Option<Value>),
    /// It was not done, and the client was given this.
    Refused(Option<Value>),
    /// Nobody knows.
    Unknown(Op),
}

/// One client.
struct Client {
    number: usize,
    rng: SmallRng,
    seen: Value,
    is_loyal: bool,
    /// A key that it read or deleted just now and looks at once more, most likely elsewhere: what was
    /// gone for it must not be there again.
    again: Option<usize>,
}

impl Client {
    fn ask(&mut self, diary: &Diary, addr: SocketAddr, replica: usize) {
        let any = self.rng.random_range(0..KEYS);
        let again = self.again.take();
        let key = again.unwrap_or(any);
        let path = format!("/kvs/key{key}");
        let asked = diary.tick();
        let came = match self.rng.random_range(0..10) {
            _ if self.is_loyal || again.is_some() => self.get(addr, &path, CLIENT_PATIENCE),
            0..4 => self.get(addr, &path, CLIENT_PATIENCE),
            4..6 => self.delete(addr, &path),
            // Each value is written once.
            _ => self.put(addr, &path, asked),
        };
        let answered = diary.tick();
        let event = |op, answered| {
            let (client, events) = (self.number, &diary.events);
            events.lock().unwrap().push(Event { client, replica, key, op, asked, answered });
        };
        match came {
            Came::Refused(seen) => self.takes(seen),
            Came::Unknown(op) => event(op, None),
            Came::Done(op, seen) => {
                self.again = (matches!(op, Op::Get(_)) && self.rng.random()).then_some(key);
                event(op, Some(answered));
                self.takes(seen);
            }
        }
    }

    /// A client hands back what it was last given, with whatever answer.
    fn takes(&mut self, seen: Option<Value>) {
        if let Some(seen) = seen.filter(|_| !self.is_loyal) {
            assert!(seen.is_object(), "an answer without causal-metadata");
            self.seen = seen;
        }
    }

    fn put(&self, addr: SocketAddr, path: &str, value: u64) -> Came {
        let body = json!({"value": value, "causal-metadata": self.seen});
        match ask_within(addr, "PUT", path, &body, CLIENT_PATIENCE) {
            Some((200 | 201, body)) => {
                Came::Done(Op::Put(value), Some(body["causal-metadata"].clone()))
            }
            Some((503, body)) => Came::Refused(Some(body["causal-metadata"].clone())),
            Some(other) => panic!("PUT {path} {body}: {other:?}"),
            None => Came::Unknown(Op::Put(value)),
        }
    }

    fn delete(&self, addr: SocketAddr, path: &str) -> Came {
        let body = json!({"causal-metadata": self.seen});
        match ask_within(addr, "DELETE", path, &body, CLIENT_PATIENCE) {
            Some((200, body)) => Came::Done(Op::Delete, Some(body["causal-metadata"].clone())),
            // Nothing was there, or something else, as for a read.
            Some((404 | 409, body)) => read(&body),
            Some((503, body)) => Came::Refused(Some(body["causal-metadata"].clone())),
            Some(other) => panic!("DELETE {path} {body}: {other:?}"),
            None => Came::Unknown(Op::Delete),
        }
    }

    fn get(&self, addr: SocketAddr, path: &str, patience: Duration) -> Came {
        let body = json!({"causal-metadata": self.seen});
        match ask_within(addr, "GET", path, &body, patience) {
            Some((200 | 404, body)) => read(&body),
            Some((503, body)) => Came::Refused(Some(body["causal-metadata"].clone())),
            None => Came::Refused(None),
            Some(other) => panic!("GET {path} {body}: {other:?}"),
        }
    }
}

/// What an answer shows of a key, which may be nothing.
fn read(body: &Value) -> Came {
    let values = match body.get("siblings") {
        Some(siblings) => siblings.as_array().unwrap().clone(),
        None => body.get("value").into_iter().cloned().collect(),
    };
    let values = values.iter().map(|value| value.as_u64().unwrap()).collect();
    Came::Done(Op::Get(values), Some(body["causal-metadata"].clone()))
}

const BRISK: [&str; 8] = [
    "--ping-interval",
    "500ms",
    "--suspect-timeout",
    "2s",
    "--sync-interval",
    "1s",
    "--probe-timeout",
    "500ms",
];

/// Kills, freezes and cuts until `end`, and on until that and what clients did shows anything; how many
/// of each.
fn trouble(replicas: &mut Replicas, diary: &Diary, end: Instant) -> [u32; 3] {
    let mut rng = SmallRng::seed_from_u64(5);
    let mut done = [0; 3];
    let named = replicas.addrs.clone();
    let latest = end + PATIENCE;
    while Instant::now() < end || (Instant::now() < latest && !is_enough(replicas, diary, done)) {
        let place = rng.random_range(0..named.len());
        let time = Duration::from_millis(rng.random_range(50..2_500));
        // What happens to a process or a network for so long is what is tested here.
        match rng.random_range(0..3) {
            0 => {
                replicas.kill(place);
                std::thread::sleep(time / 3);
                replicas.start(place, &named, &BRISK);
                done[0] += 1;
            }
            1 => {
                replicas.signal(place, "STOP");
                std::thread::sleep(time);
                replicas.signal(place, "CONT");
                done[1] += 1;
            }
            _ => {
                let Some(spaces) = &replicas.spaces else { continue };
                let apart: Vec<usize> =
                    (0..named.len()).filter(|other| *other != place && rng.random()).collect();
                apart.iter().for_each(|other| spaces.cut(place, *other, true));
                std::thread::sleep(time);
                apart.iter().for_each(|other| spaces.cut(place, *other, false));
                done[2] += u32::from(!apart.is_empty());
            }
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
    }
    done
}

/// Whether so much was done, and so much went wrong, that it shows something. On a machine that does
/// other things as well that may take longer.
fn is_enough(replicas: &Replicas, diary: &Diary, done: [u32; 3]) -> bool {
    let events = diary.events.lock().unwrap();
    let is_wrong = done[0] > 0 && done[1] > 0 && (replicas.spaces.is_none() || done[2] > 0);
    is_wrong && siblings(&events) > 0 && events.len() > 200
}

/// How many reads showed concurrent writes.
fn siblings(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(&event.op, Op::Get(all) if all.len() > 1)).count()
}

/// Each client on a thread, which `enter` brings to where the clients are.
fn clients(
    replicas: &Replicas,
    diary: &Diary,
    over: &Arc<AtomicBool>,
) -> Vec<std::thread::JoinHandle<Client>> {
    let start = |number| {
        let (addrs, diary, over) = (replicas.addrs.clone(), diary.clone(), over.clone());
        let enter = replicas.spaces.as_ref().map(crate::spaces::Spaces::entry);
        std::thread::spawn(move || {
            if let Some(enter) = enter {
                enter();
            }
            let rng = SmallRng::seed_from_u64(number as u64);
            let is_loyal = number >= CLIENTS;
            let mut client = Client { number, rng, seen: json!({}), is_loyal, again: None };
            while !over.load(Ordering::SeqCst) {
                let any = client.rng.random_range(0..addrs.len());
                let replica = if is_loyal { number % addrs.len() } else { any };
                client.ask(&diary, addrs[replica], replica);
                std::thread::sleep(Duration::from_millis(client.rng.random_range(0..PAUSE)));
            }
            client
        })
    };
    (0..CLIENTS + LOYAL).map(start).collect()
}

#[test]
fn what_hopping_clients_are_answered_in_trouble_is_causally_consistent() {
    let mut replicas = Replicas::apart(REPLICAS);
    replicas.start_all(&BRISK);
    let enter = replicas.spaces.as_ref().map(crate::spaces::Spaces::entry);
    let seconds =
        std::env::var("RUMORMILL_CAUSAL").ok().map(|text| text.parse().expect("a number"));
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let diary = Diary::default();
    let over = Arc::new(AtomicBool::new(false));
    let running = clients(&replicas, &diary, &over);
    let done = trouble(&mut replicas, &diary, end);
    over.store(true, Ordering::SeqCst);
    let clients: Vec<Client> = running.into_iter().map(|client| client.join().unwrap()).collect();
    let (addrs, after) = (replicas.addrs.clone(), diary.clone());
    let calm = std::thread::spawn(move || {
        if let Some(enter) = enter {
            enter();
        }
        in_the_end(&addrs, &after, clients);
    });
    calm.join().unwrap();
    let events = diary.events.lock().unwrap();
    let unknown = events.iter().filter(|event| event.answered.is_none()).count();
    println!(
        "killed, frozen, cut: {done:?}; {} things done, {unknown} of them perhaps, {} reads of siblings",
        events.len(),
        siblings(&events)
    );
    if let Some(wrong) = judge(&events) {
        let path = format!("{}/history-{}.txt", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let lines: Vec<String> = events.iter().map(|event| format!("{event:?}")).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        panic!("{wrong}; all that was done is in {path}");
    }
    drop(events);
    assert!(is_enough(&replicas, &diary, done), "too little was done to show anything");
}

/// Once nothing is wrong any more all replicas are equal, and whoever has seen all that anybody has seen
/// is shown all of it.
fn in_the_end(addrs: &[SocketAddr], diary: &Diary, clients: Vec<Client>) {
    let mut last = vec![Value::Null; addrs.len()];
    let equal = unless_late(|| {
        for (addr, last) in addrs.iter().zip(&mut last) {
            *last = get(*addr, "/kvs/sync").map_or(Value::Null, |(_, body)| body);
        }
        let same = |what: &str| last.iter().all(|store| store[what] == last[0][what]);
        // Also what was seen: a delete may be under way whose key looks the same without it.
        let is_same = same("versions") && same("vector_clock");
        (last.iter().all(Value::is_object) && is_same).then_some(())
    });
    if equal.is_none() {
        // Whether contexts differ says if a repair is stuck, or a write is lost.
        for (addr, store) in addrs.iter().zip(&last) {
            let asked = |path| get(*addr, path).map_or(Value::Null, |(_, body)| body);
            let metrics = asked("/metrics");
            let counted = metrics.as_str().unwrap_or_default().lines();
            let counted: Vec<&str> = counted.filter(|line| !line.starts_with('#')).collect();
            eprintln!("{addr} has seen {} and holds {}", store["vector_clock"], store["versions"]);
            eprintln!("{addr} sees {}\n{addr} counts {counted:?}", asked("/members"));
        }
        panic!("not all replicas are equal within {PATIENCE:?}; what they hold is above");
    }
    for mut client in clients.into_iter().filter(|client| !client.is_loyal) {
        for (replica, addr) in addrs.iter().enumerate() {
            for key in 0..KEYS {
                let asked = diary.tick();
                // Nobody goes elsewhere any more when it takes long.
                let (op, seen) = match client.get(*addr, &format!("/kvs/key{key}"), PATIENCE) {
                    Came::Done(op, seen) => (op, seen),
                    Came::Refused(None) | Came::Unknown(_) => {
                        panic!("{addr} does not answer a read within {PATIENCE:?}")
                    }
                    Came::Refused(Some(seen)) => {
                        let store = get(*addr, "/kvs/sync").map(|(_, body)| body);
                        let has = store.map(|store| store["vector_clock"].clone());
                        panic!(
                            "{addr} refuses a read although nothing is wrong: {has:?} for {seen}"
                        )
                    }
                };
                let (number, answered) = (client.number, Some(diary.tick()));
                let mut events = diary.events.lock().unwrap();
                events.push(Event { client: number, replica, key, op, asked, answered });
                client.takes(seen);
            }
        }
    }
}
