//! Announcing messages instead of pushing them, and asking for messages that did not come.
//!
//! An announcement names messages by origin and number, in runs, and many are gathered into one
//! frame, so that announcements stay far smaller than the messages that they stand for. What must
//! stay true: nothing is sent over a link that was sent over it before.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rumors::{Rumors, Timer};
use super::runs::{gather, is_sane};
use crate::proto::limits::Limit;
use crate::proto::machine::Conn;
use crate::proto::message::{Breach, Broadcast, Runs, Tag};
use crate::proto::time::Time;
use crate::proto::turn::PeerTurn;

/// A missing message is asked for this many round trips after it was announced: its push may be on
/// the way. No sooner than a scheduler's time slice, and no later than patience allows.
const GRAFT_ROUND_TRIPS: u32 = 3;
const GRAFT_BOUNDS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Round trip assumed until one is measured.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(50);
/// Most missing messages remembered; anti-entropy finds the rest.
const MAX_MISSING: usize = 16_384;
/// Most messages asked for at once, so that the request fits a frame; the rest is asked for a
/// moment later.
const ASK_BATCH: usize = 4_096;
/// Most messages that one frame may mark as known to the other side, and most gaps looked at for a
/// run. The work for a frame must follow its bytes, and twenty bytes name a run of a thousand
/// numbers.
const NOTED: usize = 256;
/// Most announcers remembered for one missing message: whoever does not get it from so many gets it by
/// anti-entropy.
const MAX_ANNOUNCERS: usize = 8;
/// Most messages sent in one answer; the other side has to ask again for the rest.
const ANSWER_MESSAGES: usize = 2_048;
/// Payload bytes after which one answer ends.
const ANSWER_BYTES: usize = 2 << 20;
/// Most messages looked at for one request, sent or not.
const LOOKED_AT: usize = 4_096;
/// Most numbers that one frame may announce or ask for.
const MAX_NUMBERS: u64 = 1 << 16;
/// If the parent has pushed nothing for this long while others announce missing messages, an
/// announcer is asked to help out. A few times the wait for an announcement.
const PARENT_SILENT: Duration = Duration::from_millis(400);
/// A grafted announcer stays eager this long.
const GRAFTED_FOR: Duration = Duration::from_secs(10);

impl Rumors {
    /// The other side announces messages. A breach if the announcement makes no sense.
    pub(crate) fn on_have(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        have: Vec<(Tag, Runs)>,
    ) -> Result<(), Breach> {
        if !within_bounds(&have) {
            return Err(Breach);
        }
        let delay = self.graft_delay();
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        let mut noted = 0;
        for (tag, runs) in have {
            let origin = self.list.by_tag(&tag).and_then(|index| self.list.origin(index));
            for (first, many) in runs {
                if let Some(origin) = origin {
                    for place in origin.places_in(first, many).take(NOTED - noted) {
                        link.known.set(place);
                        noted += 1;
                    }
                }
                let gaps: Vec<(u64, u64)> = match origin {
                    Some(origin) => origin.seen.gaps(first, many).take(NOTED).collect(),
                    None => vec![(first, first.saturating_add(many) - 1)],
                };
                for number in gaps.into_iter().flat_map(|(low, high)| low..=high) {
                    if self.missing.len() >= MAX_MISSING {
                        turn.over_limit(Limit::Announced, None);
                        return Ok(());
                    }
                    let missing = self.missing.entry((tag, number)).or_default();
                    if missing.announcers.len() < MAX_ANNOUNCERS
                        && !missing.announcers.contains(&conn)
                    {
                        missing.announcers.push(conn);
                    }
                    self.timers.set_if_unset(Timer::Want(tag, number), turn.now + delay);
                }
            }
        }
        Ok(())
    }

    fn graft_delay(&self) -> Duration {
        let slowest = self.links.values().filter_map(|link| link.round_trip).max();
        let delay = slowest.unwrap_or(FIRST_ROUND_TRIP).saturating_mul(GRAFT_ROUND_TRIPS);
        delay.clamp(GRAFT_BOUNDS.0, GRAFT_BOUNDS.1)
    }

    /// Asks for messages that were announced and did not come. All that are due from the same
    /// announcer go in one frame.
    pub(super) fn ask(&mut self, turn: &mut PeerTurn<'_>, first: (Tag, u64)) {
        let mut wants: BTreeMap<Conn, BTreeMap<Tag, Vec<u64>>> = BTreeMap::new();
        let delay = self.graft_delay();
        let mut next = Some(first);
        let mut asked = 0;
        while let Some(name) = next {
            asked += 1;
            if let Some(conn) = self.next_announcer(turn.now, name, delay) {
                wants.entry(conn).or_default().entry(name.0).or_default().push(name.1);
            }
            if asked >= ASK_BATCH {
                break;
            }
            next = match self.timers.due(turn.now) {
                Some((_, Timer::Want(tag, number))) => Some((tag, number)),
                Some((at, other)) => {
                    self.timers.set(other, at);
                    None
                }
                None => None,
            };
        }
        let silent = self
            .tree
            .parent
            .and_then(|parent| self.links.get(&parent))
            .is_none_or(|parent| turn.now.since(parent.edge.pushed) > PARENT_SILENT);
        for (conn, wanted) in wants {
            let mut want = Vec::new();
            for (tag, mut numbers) in wanted {
                numbers.sort_unstable();
                self.counters.wants += numbers.len() as u64;
                want.push((tag, gather(numbers)));
            }
            turn.send(conn, Broadcast::Want(want));
            if silent && let Some(link) = self.links.get_mut(&conn) {
                link.edge.grafted = Some(turn.now + GRAFTED_FOR);
                self.timers.set(Timer::Regraft, turn.now + GRAFTED_FOR);
            }
        }
        self.tell_wishes(turn);
    }

    /// The announcer to ask for a missing message; none if the message has come or no announcer is
    /// left.
    fn next_announcer(&mut self, now: Time, name: (Tag, u64), delay: Duration) -> Option<Conn> {
        let missing = self.missing.get_mut(&name)?;
        let links = &self.links;
        missing.announcers.retain(|conn| links.contains_key(conn));
        let conn = missing.announcers.get(missing.asked).copied();
        if conn.is_some() {
            missing.asked += 1;
            // Wait longer each time: an announcer may be slow because it is loaded.
            let wait = delay.saturating_mul(1 << missing.asked.min(6));
            self.timers.set(Timer::Want(name.0, name.1), now + wait);
        } else {
            // Nobody is left to ask. Another announcement, or anti-entropy, brings the message.
            self.missing.remove(&name);
        }
        conn
    }

    /// The other side asks for messages. A breach if the request makes no sense.
    pub(crate) fn on_want(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        want: &[(Tag, Runs)],
    ) -> Result<(), Breach> {
        if !within_bounds(want) {
            return Err(Breach);
        }
        let mut places = Vec::new();
        let mine = self.author.tag();
        let peer = self.links.get(&conn).map(|link| link.peer);
        for (tag, runs) in want {
            if *tag == mine {
                turn.over_limit_times(Limit::Gone, peer, self.gone(runs));
            }
            let Some(index) = self.list.by_tag(tag) else { continue };
            let Some(origin) = self.list.origin(index) else { continue };
            for (first, many) in runs {
                let room = LOOKED_AT - places.len();
                places.extend(origin.places_in(*first, *many).take(room));
            }
        }
        self.send_places(turn, conn, &places, false);
        Ok(())
    }

    /// How many messages of its own this peer has published under these numbers and holds no more.
    fn gone(&self, runs: &Runs) -> u64 {
        let origin = self.list.by_tag(&self.author.tag());
        let origin = origin.and_then(|index| self.list.origin(index));
        let gone = |(first, many): &(u64, u64)| {
            let end = first.saturating_add(*many).min(self.author.last_number().saturating_add(1));
            let many = end.saturating_sub(*first);
            let held = origin.map_or(0, |origin| origin.places_in(*first, many).count() as u64);
            many.saturating_sub(held)
        };
        runs.iter().map(gone).sum()
    }

    /// Sends messages that the other side says it lacks, within the bounds of one answer; returns
    /// how many. Skips messages sent before, unless `lost`: then the caller knows that they did not
    /// arrive.
    pub(super) fn send_places(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        places: &[u64],
        lost: bool,
    ) -> usize {
        let Some(link) = self.links.get_mut(&conn) else { return 0 };
        let (mut sent, mut bytes) = (0, 0);
        for place in places {
            if link.slow.congested || sent >= ANSWER_MESSAGES || bytes >= ANSWER_BYTES {
                break;
            }
            let Some(entry) = self.list.entry(*place) else { continue };
            if link.sent.get(*place) && !lost {
                continue;
            }
            link.sent.set(*place);
            link.known.set(*place);
            link.exchange.unsettled.set(*place);
            sent += 1;
            bytes += entry.gossip.payload.len();
            turn.send(conn, Broadcast::Gossip(self.list.outgoing(turn.now, entry)));
        }
        self.counters.payloads_sent += sent as u64;
        sent
    }

    /// Sends the announcements gathered for each link.
    pub(super) fn announce(&mut self, turn: &mut PeerTurn<'_>) {
        for (conn, link) in &mut self.links {
            let mut announce = std::mem::take(&mut link.announce);
            announce.retain(|announcement| !link.known.get(announcement.place));
            announce.sort_unstable();
            let mut have = Vec::new();
            for of_origin in announce.chunk_by(|one, other| one.origin == other.origin) {
                let origin = of_origin.first().and_then(|first| self.list.origin(first.origin));
                let Some(origin) = origin else { continue };
                self.counters.announced += of_origin.len() as u64;
                have.push((origin.tag, gather(of_origin.iter().map(|a| a.number))));
            }
            if have.is_empty() {
                continue;
            }
            turn.send(*conn, Broadcast::Have(have));
        }
    }
}

fn within_bounds(named: &[(Tag, Runs)]) -> bool {
    let mut total: u64 = 0;
    for (_, runs) in named {
        if !is_sane(runs) {
            return false;
        }
        for (_, many) in runs {
            total = total.saturating_add(*many);
        }
    }
    total <= MAX_NUMBERS
}
