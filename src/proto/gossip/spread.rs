//! Over which links a message goes: pushed along a tree, and announced beside it.
//!
//! As in Plumtree (Leitão, Pereira, Rodrigues, "Epidemic Broadcast Trees", SRDS 2007) a message is
//! pushed along eager links and only announced along lazy ones, and a peer asks an announcer for
//! what it lacks. The difference is which links are eager. In Plumtree the first copies of each
//! message decide, so that messages of many senders prune each other's tree to pieces. Here the
//! tree follows from the membership alone: each peer's parent is its oldest neighbour. Links to
//! older peers make no circle and end at the oldest member. So the tree exists before any message,
//! and stays the same however many peers send. It runs over the oldest peers, which are the best
//! linked, so it is flat. And because all senders share it, messages that go the same way share a
//! write.
//!
//! A peer whose parent is lost takes the next oldest neighbour at once. If it has no older one, it
//! has everything pushed to it until it finds one. All links start eager, so a small or new network
//! floods. If a parent is silent while others announce, the peer grafts an announcer for a while.
//!
//! What must stay true: a message crosses a link at most once in each direction, and is handed to
//! the application once.

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::author::Census;
use super::list::{Offer, Refusal};
use super::rumors::{Announcement, EXPIRE_INTERVAL, HAVE_INTERVAL, Rumors, Timer};
use super::{MAX_PAYLOAD, MessageId, message_id};
use crate::proto::event::{Event, Severity};
use crate::proto::limits::Limit;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Breach, Broadcast, Gossip};
use crate::proto::planted::Flaw;
use crate::proto::roles::{Delivery, PublishError};
use crate::proto::turn::PeerTurn;

/// Announcements gathered for one link after which all are sent early.
const HAVE_BATCH: usize = 4_096;
/// Messages that one link may bring and that are not their origins'. An honest neighbour may bring a
/// few: it may know an origin by an identity that it has lost with its disk.
const MAX_FORGED: u32 = 64;

/// Counts a message that is refused because of a limit.
fn count_refused(turn: &mut PeerTurn<'_>, refusal: Refusal, origin: Option<Addr>) {
    match refusal {
        Refusal::Crowded => turn.over_limit(Limit::Origins, origin),
        Refusal::Flood => turn.over_limit(Limit::Flood, origin),
        _ => {}
    }
}

impl Rumors {
    /// Publishes a message of this peer's own.
    pub(crate) fn publish(
        &mut self,
        turn: &mut PeerTurn<'_>,
        payload: Bytes,
    ) -> Result<MessageId, PublishError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishError::TooLong(payload.len()));
        }
        let gossip = self.author.write(turn.now, payload);
        match self.list.offer(turn.now, &gossip, |_, _| true) {
            Offer::New(place) => {
                self.author.published(place);
                Ok(self.accepted(turn, None, gossip, place))
            }
            // Our own message has a new number and is young, so it is neither known, dropped nor
            // old. Two causes are left: the list of origins is full, or this peer says more than
            // others would take.
            Offer::Refused(refusal) => {
                count_refused(turn, refusal, None);
                Err(PublishError::Busy)
            }
            Offer::Known(_) => Err(PublishError::Busy),
        }
    }

    /// A new message is in the list: deliver it, push it, announce it.
    fn accepted(
        &mut self,
        turn: &mut PeerTurn<'_>,
        from: Option<(Conn, Addr)>,
        gossip: Gossip,
        place: u64,
    ) -> MessageId {
        let (id, origin) = match self.list.entry(place) {
            Some(entry) => (entry.id, entry.origin),
            None => (super::message_id(&gossip), usize::MAX),
        };
        let announcement = Announcement { origin, number: gossip.number, place };
        let (from, peer) = from.unzip();
        turn.over_limit_times(Limit::Messages, None, self.list.take_dropped());
        self.tell_unfetched(turn);
        let push = self.assign(turn, from, announcement, gossip.payload.len());
        self.counters.payloads_sent += push.len() as u64;
        if self.flaw == Flaw::ForwardTwice {
            turn.send_many(push.clone(), Broadcast::Gossip(gossip.clone()));
        }
        turn.log(match peer {
            Some(from) => Event::GossipReceived { message: gossip.payload.clone(), from },
            None => Event::GossipSent { message: gossip.payload.clone() },
        });
        turn.deliver(Delivery { id, gossip: gossip.clone(), from: peer });
        turn.send_many(push, Broadcast::Gossip(gossip));
        id
    }

    /// Decides over which links a new message is pushed at once, which it returns, and over which
    /// links it is gathered or announced later.
    fn assign(
        &mut self,
        turn: &mut PeerTurn<'_>,
        from: Option<Conn>,
        announcement: Announcement,
        bytes: usize,
    ) -> Vec<Conn> {
        let (now, is_own) = (turn.now, from.is_none());
        let place = announcement.place;
        let mut push = Vec::with_capacity(self.links.len());
        let mut announced = false;
        let is_said = self.direct && from.is_some();
        for (conn, link) in self.links.iter_mut().filter(|_| !is_said) {
            if Some(*conn) == from || link.known.get(place) || link.guest {
                continue;
            }
            let eager = link.edge.eager || self.tree.parent == Some(*conn);
            let withheld = eager && link.withholds(is_own, bytes);
            if withheld {
                link.slow.withheld.set(place);
                let limit = if is_own { Limit::Own } else { Limit::Forwarded };
                turn.over_limit(limit, Some(link.peer));
            }
            if !eager || withheld {
                link.announce.push(announcement);
                announced = true;
                if link.announce.len() >= HAVE_BATCH {
                    self.timers.set(Timer::Have, now);
                }
            } else if !self.gather.is_zero() && self.tree.parent != Some(*conn) {
                link.gathered.push(place);
                self.timers.set_if_unset(Timer::Push, now + self.gather);
            } else {
                link.sent.set(place);
                link.known.set(place);
                link.exchange.unsettled.set(place);
                push.push(*conn);
            }
        }
        if announced {
            self.timers.set_if_unset(Timer::Have, now + self.have_interval);
        }
        push
    }

    /// A message came over a link.
    ///
    /// # Errors
    ///
    /// If so many messages that came over this link were not their origins'. A peer checks what it
    /// passes on, so one that passes on many has made them.
    pub(crate) fn on_gossip(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        gossip: Gossip,
        census: &impl Census,
    ) -> Result<(), Breach> {
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        link.edge.pushed = turn.now;
        let from = (conn, link.peer);
        if self.author.is_named_by(&gossip) {
            // This peer published all messages of its life itself, so this one is no news, or is
            // forged.
            self.counters.duplicates += 1;
            return Ok(());
        }
        self.take_in(turn, from, gossip, census)
    }

    /// Takes in a message that came from that neighbour. Its link may be gone, if the message has
    /// waited.
    fn take_in(
        &mut self,
        turn: &mut PeerTurn<'_>,
        (conn, peer): (Conn, Addr),
        gossip: Gossip,
        census: &impl Census,
    ) -> Result<(), Breach> {
        let author = &self.author;
        let is_member = |peer: &Addr, life| census.is_member(peer, life);
        let offer = self.list.offer_checked(turn.now, &gossip, is_member, |id, origin| {
            author.check(&gossip, id, origin, census)
        });
        if let (Offer::New(place) | Offer::Known(place), Some(link)) =
            (offer, self.links.get_mut(&conn))
        {
            link.known.set(place);
        }
        match offer {
            Offer::New(place) => {
                self.found(&gossip, place);
                self.counters.received += 1;
                self.accepted(turn, Some((conn, peer)), gossip, place);
            }
            Offer::Known(_) => self.counters.duplicates += 1,
            Offer::Refused(Refusal::Unknown) => self.wait(turn, (conn, peer), gossip),
            Offer::Refused(refusal) => return self.refused(turn, conn, &gossip, refusal),
        }
        Ok(())
    }

    /// A message has come that was perhaps announced before: nobody need be asked for it any more.
    fn found(&mut self, gossip: &Gossip, place: u64) {
        if !self.missing.is_empty()
            && let Some(entry) = self.list.entry(place)
            && let Some(origin) = self.list.origin(entry.origin)
        {
            let name = (origin.tag, gossip.number);
            if self.missing.remove(&name).is_some() {
                self.timers.cancel(&Timer::Want(name.0, name.1));
            }
        }
    }

    fn refused(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        gossip: &Gossip,
        refusal: Refusal,
    ) -> Result<(), Breach> {
        let is_forged = refusal == Refusal::Forged;
        let counter =
            if is_forged { &mut self.counters.forged } else { &mut self.counters.refused };
        *counter += 1;
        if is_forged {
            let id = message_id(gossip);
            self.list.expects(id);
            for id in self.early.refuse(turn.now, id) {
                self.list.no_longer_expects(&id);
            }
        }
        count_refused(turn, refusal, Some(gossip.origin));
        // A line for each message of a flood would be a flood of its own.
        if !matches!(refusal, Refusal::Dropped | Refusal::Flood) {
            let keys = vec![
                ("origin", gossip.origin.to_string()),
                ("number", gossip.number.to_string()),
                ("reason", format!("{refusal:?}").to_lowercase()),
            ];
            turn.note(Severity::Debug, "gossip refused", keys);
        }
        let Some(link) = self.links.get_mut(&conn).filter(|_| is_forged) else { return Ok(()) };
        link.forged += 1;
        if link.forged > MAX_FORGED { Err(Breach) } else { Ok(()) }
    }

    /// Has a message wait for the news of its origin. Comparisons count it as held, so that nobody
    /// takes it for lost and sends it again.
    fn wait(&mut self, turn: &mut PeerTurn<'_>, from: (Conn, Addr), gossip: Gossip) {
        let id = message_id(&gossip);
        self.list.expects(id);
        self.early.push(turn.now, id, from, gossip);
        self.give_up_early(turn);
    }

    /// Drops messages that have waited too long, or are too many.
    fn give_up_early(&mut self, turn: &mut PeerTurn<'_>) {
        for id in self.early.drop_surplus(turn.now) {
            self.list.no_longer_expects(&id);
            turn.over_limit(Limit::Early, None);
        }
    }

    /// Members are known that were not before: takes in what they have published already.
    pub(crate) fn members_changed(&mut self, turn: &mut PeerTurn<'_>, census: &impl Census) {
        if self.early.is_empty() {
            return;
        }
        for (id, from, gossip) in self.early.take() {
            self.list.no_longer_expects(&id);
            // A breach is none of this moment: the link is closed for the next message that is not
            // its origin's.
            let _ = self.take_in(turn, from, gossip, census);
        }
    }

    fn push_gathered(&mut self, turn: &mut PeerTurn<'_>) {
        for (conn, link) in &mut self.links {
            for place in std::mem::take(&mut link.gathered) {
                // Skip messages dropped meanwhile, and those that the other side is now known to
                // have.
                let Some(entry) = self.list.entry(place).filter(|_| !link.known.get(place)) else {
                    continue;
                };
                link.sent.set(place);
                link.known.set(place);
                link.exchange.unsettled.set(place);
                self.counters.payloads_sent += 1;
                turn.send(*conn, Broadcast::Gossip(self.list.outgoing(turn.now, entry)));
            }
        }
    }

    fn expire(&mut self, turn: &mut PeerTurn<'_>) {
        self.list.expire(turn.now);
        self.give_up_early(turn);
        self.tell_unfetched(turn);
        let first = self.list.first_place();
        for link in self.links.values_mut() {
            link.sent.forget_before(first);
            link.known.forget_before(first);
            link.slow.withheld.forget_before(first);
            link.exchange.unsettled.forget_before(first);
        }
        self.timers.set(Timer::Expire, turn.now + EXPIRE_INTERVAL);
    }

    /// Acts on all timers that are due.
    pub(crate) fn tick(&mut self, turn: &mut PeerTurn<'_>, rng: &mut SmallRng) {
        while let Some((_, timer)) = self.timers.due(turn.now) {
            match timer {
                Timer::Have => {
                    self.announce(turn);
                    // Neighbours that announce at the same moment tell each other the same. With
                    // intervals of different lengths one of them comes first, and the other sees
                    // that it need not announce.
                    self.have_interval = HAVE_INTERVAL.mul_f64(rng.random_range(0.5..1.5));
                }
                Timer::Want(tag, number) => self.ask(turn, (tag, number)),
                Timer::Regraft => self.tell_wishes(turn),
                Timer::Push => self.push_gathered(turn),
                Timer::Expire => self.expire(turn),
                Timer::Confirm(conn) => self.confirm_sync(turn, conn),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::config::{Network, PeerConfig};
    use crate::proto::machine::Effect;
    use crate::proto::message::Message;
    use crate::proto::time::Time;
    use rand::SeedableRng;

    fn addr(number: u16) -> Addr {
        ([127, 0, 0, 1], 6000 + number).into()
    }

    /// The two peers hear each message from elsewhere over connection 1 at the same time, and only
    /// announce it to each other, over connection 3.
    #[test]
    fn of_two_neighbours_that_hear_the_same_mostly_one_announces_it() {
        let start = Time::from_millis(1_800_000_000_000);
        let mut peers: Vec<(Rumors, SmallRng)> = (0..2_u16)
            .map(|number| {
                let config = PeerConfig::new(addr(number), Network::without_seeds("test"));
                let mut rumors = Rumors::new(&config);
                rumors.link_up(start, 1, addr(9), false);
                rumors.link_up(start, 3, addr(1 - number), false);
                rumors.set_eager(3, false);
                (rumors, SmallRng::seed_from_u64(number.into()))
            })
            .collect();
        for number in 1..=1_000_u64 {
            let now = start + std::time::Duration::from_millis(10 * number);
            let gossip = Gossip {
                origin: addr(9),
                life: start.millis(),
                number,
                offset: 10 * number.cast_signed(),
                age: 0,
                payload: number.to_string().into(),
                signature: None,
            };
            let mut said = Vec::new();
            for (place, (rumors, rng)) in peers.iter_mut().enumerate() {
                let mut effects = Vec::new();
                let turn = &mut PeerTurn { now, effects: &mut effects };
                assert!(rumors.on_gossip(turn, 1, gossip.clone(), &|_: &Addr, _| true).is_ok());
                rumors.tick(turn, rng);
                said.extend(effects.into_iter().map(|effect| (1 - place, effect)));
            }
            for (to, effect) in said {
                if let Effect::Send { conn: 3, message } = effect
                    && let Message::Broadcast(Broadcast::Have(have)) = message
                {
                    let mut effects = Vec::new();
                    let turn = &mut PeerTurn { now, effects: &mut effects };
                    assert!(peers[to].0.on_have(turn, 3, have).is_ok());
                }
            }
        }
        let announced: u64 = peers.iter().map(|(rumors, _)| rumors.counters.announced).sum();
        assert!((900..1_300).contains(&announced), "{announced} announcements of 1,000 messages");
    }
}
