//! Membership without seeds: peers tell each other who belongs to the network.
//!
//! A peer that opens a link says who it is and whom it knows (HANDSHAKE), and the other side
//! answers with the same (PEERS); what is new goes on over all other links, and each round of
//! anti-entropy compares digests of the lists. Records are ordered as the seeds order theirs
//! ([`Registry`]), so the lists converge whatever is lost.
//!
//! What must stay true: nobody is taken for dead on hearsay. A peer drops a member when it has
//! found the member dead itself and another peer has, too; a peer that is told of a death looks
//! first, and a member that answers rises above it. (That a member has left is believed without a
//! look: the member says so itself, or an operator says it at any peer, and whoever may link is
//! trusted that far.) Members that were dropped, and peers that were named at the start and never
//! seen, are called again and again, so that two halves of a network that took each other for dead
//! become one.
//!
//! [`Registry`]: crate::proto::registry::Registry

use rand::RngExt;

use super::common::{is_believable, may_rise_above};
use super::membership::Kind;
use super::prober::Why;
use super::suspicions::Decided;
use super::{Membership, PeerMachine};
use crate::proto::config;
use crate::proto::event::{Event, Severity};
use crate::proto::limits::Limit;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Breach, Incarnation, Members};
use crate::proto::order::Outcome;
use crate::proto::registry::{Merge, Record, Status};
use crate::proto::roles::MemberEvent;
use crate::proto::time::Time;
use crate::proto::turn::PeerTurn;

/// Most records of a network without seeds, the gone included: each peer keeps all of them.
const MAX_RECORDS: usize = 4_096;

/// Up to this many changes at once get a line of the log each. More at once are the list of a
/// network that this peer has joined, and get one line together.
const MAX_LINES: usize = 16;

impl PeerMachine {
    /// Begins with the peers that were named at the start.
    fn begin_open(&mut self, turn: &mut PeerTurn<'_>, contacts: Vec<Addr>) {
        let me = self.life.config.me;
        let record =
            |incarnation| Record::plain(incarnation, Status::Alive, turn.now.millis(), Vec::new());
        self.membership.members.merge(me, record(self.life.incarnation));
        let look_for =
            self.life.config.detection.ping_interval + self.life.config.detection.probe_timeout;
        let contacts: Vec<Addr> = contacts.into_iter().filter(|peer| *peer != me).collect();
        for peer in &contacts {
            // Incarnation 0 marks a peer that was only named: whatever it says itself is of a later
            // life.
            self.membership.members.merge(*peer, record(0));
        }
        if let Some(open) = self.membership.kind.open_mut() {
            open.begin(turn.now, look_for, &contacts);
        }
        self.check_caught_up(turn);
    }

    /// A neighbour says who belongs to the network. A breach if this is not for peers to say.
    pub(super) fn hear_of_members(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        from: Addr,
        message: Members,
    ) -> Result<(), Breach> {
        if self.membership.kind.open().is_none() {
            return Err(Breach);
        }
        match message {
            Members::Handshake(records) => {
                self.learn_told(turn, conn, from, records);
                if self.is_neighbour(conn) && self.may_tell_all(turn.now, conn) {
                    let records = self.all_records();
                    turn.send(conn, self.peers_message(records));
                }
            }
            Members::Peers { records, context, caught_up } => {
                self.learn_told(turn, conn, from, records);
                // The records may have made this peer close the link: then nothing can be fetched
                // over it.
                let is_to_be_had = self.is_neighbour(conn) && caught_up && context.is_sane();
                if let Some(open) = self.membership.kind.open_mut() {
                    open.tried(&from);
                    if is_to_be_had && open.follow(conn, context) {
                        self.replica.begin_sync(turn, conn);
                    }
                }
                self.check_caught_up(turn);
            }
            Members::Changed(records) => self.learn_told(turn, conn, from, records),
            Members::Digest(theirs) => {
                let differs = theirs != self.membership.members.status_digest();
                if differs && self.may_tell_all(turn.now, conn) {
                    turn.send(conn, Members::Handshake(self.all_records()));
                }
            }
        }
        let is_out = |record: &Record| record.status == Status::Left;
        if self.is_removed() {
            // This peer was removed. The link has served to tell so, and serves nothing else.
            self.unlink(turn, from);
        } else if self.membership.members.get(&from).is_some_and(is_out) {
            self.expect_farewell(turn, from);
        }
        Ok(())
    }

    /// Whether a neighbour may be told all members now.
    fn may_tell_all(&mut self, now: Time, conn: Conn) -> bool {
        self.membership.kind.open_mut().is_some_and(|open| open.answers(now, conn))
    }

    /// Takes in the records that a neighbour tells.
    fn learn_told(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        from: Addr,
        records: Vec<(Addr, Record)>,
    ) {
        let (mut news, mut history, mut deaths) = (Vec::new(), Vec::new(), Vec::new());
        for (peer, mut record) in records {
            record.voters.clear();
            if !self.is_acceptable(turn.now, &peer, &record) {
                continue;
            }
            if !self.make_room_for(&peer, peer == from) {
                turn.over_limit(Limit::Records, Some(from));
                continue;
            }
            let open = self.membership.kind.open_mut().filter(|_| record.incarnation == 0);
            if let Some(open) = open {
                open.await_word(turn.now, peer);
            }
            if peer == self.life.config.me {
                self.told_of_myself(turn, &record);
                continue;
            }
            let alive = self.membership.members.alive(&peer);
            let alive = alive.filter(|known| known.incarnation <= record.incarnation);
            if let (Status::Dead, Some(known)) = (record.status, alive) {
                // It shows that this life began. Whether it is over, this peer has to see itself.
                record = Record { status: Status::Alive, at: known.at, ..record };
                deaths.push((peer, record.incarnation));
            }
            let is_change =
                record.status == Status::Alive || self.membership.members.alive(&peer).is_some();
            match self.membership.members.merge(peer, record.clone()) {
                Merge::Nothing => {}
                Merge::Detail => self.overlay.forget_ranking(),
                Merge::Transition if is_change => news.push((peer, record)),
                // It was never a member here, so no peer here has lost anything with it.
                Merge::Transition => history.push((peer, record)),
            }
        }
        self.tell_others(turn, history, Some(conn));
        self.spread(turn, news, Some(conn));
        for (peer, incarnation) in deaths {
            self.noticed(turn, conn, from, peer, incarnation);
        }
    }

    /// Whether a record that a neighbour tells can be true and is not one that was dropped here.
    fn is_acceptable(&self, now: Time, peer: &Addr, record: &Record) -> bool {
        let open = self.membership.kind.open();
        let known = self.membership.members.get(peer).map_or(0, |known| known.incarnation);
        let window = self.life.config.detection.suspect_timeout;
        is_believable(record.incarnation, now)
            && !(record.incarnation > known
                && record.status != Status::Left
                && self.suspicion.was_renewed(now, peer, window))
            && !peer.ip().is_unspecified()
            && peer.port() != 0
            && (self.membership.members.get(peer).is_some()
                || record.status == Status::Alive
                || !open.is_some_and(|open| open.was_dropped(peer, record.incarnation)))
    }

    /// Whether there is room for a record. If the list is full, a peer that speaks for itself gets
    /// the place of the record that has been over for longest.
    fn make_room_for(&mut self, peer: &Addr, is_itself: bool) -> bool {
        if self.membership.members.get(peer).is_some()
            || self.membership.members.len() < MAX_RECORDS
        {
            return true;
        }
        let gone =
            self.membership.members.iter().filter(|(_, record)| record.status != Status::Alive);
        let oldest = gone.min_by_key(|(_, record)| record.at).map(|(peer, _)| *peer);
        is_itself && oldest.is_some_and(|oldest| self.membership.members.remove(&oldest).is_some())
    }

    /// Passes on records that are new here, and acts on them.
    fn spread(&mut self, turn: &mut PeerTurn<'_>, news: Vec<(Addr, Record)>, except: Option<Conn>) {
        if news.is_empty() {
            return;
        }
        self.tell_others(turn, news.clone(), except);
        let size = self.membership.members.size().to_string();
        if news.len() > MAX_LINES {
            let keys = vec![("count", news.len().to_string()), ("size", size.clone())];
            turn.note(Severity::Info, "members learned", keys);
        }
        let each = news.len() <= MAX_LINES;
        for (peer, record) in news {
            let (what, event) = match record.status {
                Status::Alive => {
                    self.member_renewed(turn, peer, record.incarnation);
                    ("member joined", MemberEvent::Joined(peer, record.incarnation))
                }
                Status::Left => ("member left", MemberEvent::Left(peer)),
                Status::Dead => ("member dropped", MemberEvent::Dead(peer)),
            };
            if each {
                let incarnation = record.incarnation.to_string();
                let peer = peer.to_string();
                let keys =
                    vec![("peer", peer), ("incarnation", incarnation), ("size", size.clone())];
                turn.note(Severity::Info, what, keys);
            }
            if record.status != Status::Alive {
                self.member_gone(turn, peer, &record);
            }
            turn.member(event);
        }
        self.members_changed(turn);
    }

    fn told_of_myself(&mut self, turn: &mut PeerTurn<'_>, record: &Record) {
        if record.status == Status::Left && record.incarnation >= self.life.incarnation {
            self.withdraw(turn, record.clone());
        } else if !self.is_removed() || record.status == Status::Alive {
            let let_in = self.is_removed() && record.incarnation > self.life.incarnation;
            if let_in && may_rise_above(record.incarnation, turn.now) {
                self.set_removed(false);
            }
            self.learn_of_myself(turn, record);
        }
    }

    /// An operator has removed this peer: it gives up its links and waits to be let in again.
    fn withdraw(&mut self, turn: &mut PeerTurn<'_>, record: Record) {
        if self.is_removed() || self.life.leaving {
            return;
        }
        let advice = "PUT /view with this address, at any replica, lets it in again".to_owned();
        turn.note(Severity::Warn, "removed from the network", vec![("advice", advice)]);
        self.life.incarnation = self.life.incarnation.max(record.incarnation);
        self.membership.members.merge(self.life.config.me, record);
        self.set_removed(true);
        self.suspicion.suspects().into_iter().for_each(|suspect| {
            self.drop_suspicion(suspect);
        });
        for neighbour in self.neighbours() {
            self.unlink(turn, neighbour);
        }
        self.overlay.forget_ranking();
    }

    /// Peer-level consensus: this peer has found the member dead, and so has every witness counted
    /// here.
    pub(super) fn commit_dead(&mut self, turn: &mut PeerTurn<'_>, decided: Decided) {
        let Decided { peer, incarnation, witnesses } = decided;
        let at = turn.now.millis();
        let record = Record::plain(incarnation, Status::Dead, at, Vec::new());
        let of = self.membership.members.size().saturating_sub(1);
        if self.membership.members.merge(peer, record.clone()) == Merge::Transition {
            let votes = witnesses + 1;
            turn.log(Event::DeadNodeConfirmed { peer, seed: None, votes, of: of.max(votes) });
            self.spread(turn, vec![(peer, record)], None);
        }
    }

    /// Tells the neighbours that this peer leaves by its own will, and in which life: the message
    /// may arrive late, when a later life of this peer is known already.
    pub(super) fn tell_that_i_leave(&self, turn: &mut PeerTurn<'_>, links: Vec<Conn>) {
        if self.membership.kind.open().is_some() {
            let (incarnation, at) = (self.life.incarnation, turn.now.millis());
            let record = Record::plain(incarnation, Status::Left, at, Vec::new());
            turn.send_many(links, Members::Changed(vec![(self.life.config.me, record)]));
        }
    }

    /// Forgets those who have long been gone, and calls one of those that were dropped, or that
    /// were named and never seen.
    pub(super) fn call_the_lost(&mut self, turn: &mut PeerTurn<'_>) {
        if self.is_removed() || self.life.leaving {
            return;
        }
        self.check_caught_up(turn);
        let Membership { members, kind: Kind::Open(open), .. } = &mut self.membership else {
            return;
        };
        open.drop_long_gone(turn.now, members);
        let is_dead = |record: &Record| record.status == Status::Dead;
        let dead = members.iter().filter(|(_, record)| is_dead(record)).map(|(peer, _)| *peer);
        let absent =
            |peer: &&Addr| members.get(peer).is_none_or(|record| record.status == Status::Left);
        let named = open.contacts().filter(absent).copied();
        let lost: Vec<Addr> =
            dead.chain(named).filter(|peer| !self.overlay.contains(peer)).collect();
        let place = self.life.rng.random_range(0..lost.len().max(1));
        let Some(peer) = lost.get(place).copied() else { return };
        match self.membership.members.get(&peer) {
            // It left or was removed. A probe shows whether it has come back since; a link is not
            // needed for it.
            Some(record) if record.status == Status::Left => {
                let incarnation = record.incarnation;
                self.look_at(turn, peer, incarnation, Why::Turn);
            }
            _ => self.call(turn, peer),
        }
    }

    /// A peer answers a probe: if it had left, it may be back in a later life, and is called.
    pub(super) fn link_if_back(&mut self, turn: &mut PeerTurn<'_>, peer: Addr, life: Incarnation) {
        let went = |record: &Record| record.status == Status::Left && record.incarnation < life;
        let is_back = self.membership.members.get(&peer).is_some_and(went);
        if is_back && self.membership.kind.open().is_some() {
            self.call(turn, peer);
        }
    }

    /// An operator lets a peer in.
    pub(super) fn admit(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) -> Outcome {
        if self.membership.kind.open().is_none() {
            return Outcome::NotOurs;
        }
        if peer == self.life.config.me && self.is_removed() {
            self.set_removed(false);
            let incarnation = self.life.incarnation;
            self.rise_above(turn, incarnation);
            return Outcome::Admitted;
        }
        if self.membership.members.alive(&peer).is_some() {
            return Outcome::AlreadyMember;
        }
        let known = self.membership.members.get(&peer).map(|record| record.incarnation);
        let incarnation = known.map_or(0, |known| known.saturating_add(1));
        let at = turn.now.millis();
        let record = Record::plain(incarnation, Status::Alive, at, Vec::new());
        self.membership.members.merge(peer, record.clone());
        if let Some(open) = self.membership.kind.open_mut() {
            open.invite(peer);
            if incarnation == 0 {
                open.await_word(turn.now, peer);
            }
        }
        self.spread(turn, vec![(peer, record)], None);
        self.call(turn, peer);
        Outcome::Admitted
    }

    /// An operator removes a peer.
    pub(super) fn remove(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) -> Outcome {
        if self.membership.kind.open().is_none() {
            return Outcome::NotOurs;
        }
        let Some(known) = self.membership.members.alive(&peer) else { return Outcome::NoMember };
        let (incarnation, at) = (known.incarnation, turn.now.millis());
        let record = Record::plain(incarnation, Status::Left, at, Vec::new());
        if let Some(open) = self.membership.kind.open_mut() {
            open.disinvite(&peer);
        }
        self.membership.members.merge(peer, record.clone());
        if peer == self.life.config.me {
            self.tell_others(turn, vec![(peer, record.clone())], None);
            self.withdraw(turn, record);
        } else {
            self.spread(turn, vec![(peer, record)], None);
        }
        Outcome::Removed
    }

    /// Whether an operator has removed this peer from a network without seeds.
    pub fn is_removed(&self) -> bool {
        self.membership.kind.is_removed()
    }

    /// Notes that an operator has removed this peer, or has let it in again.
    fn set_removed(&mut self, removed: bool) {
        if let Some(open) = self.membership.kind.open_mut() {
            open.set_removed(removed);
        }
        self.registration.set_registered(!removed);
    }

    /// Begins in a network in which no seed is asked who belongs to it.
    pub(super) fn begin_without_seeds(&mut self, turn: &mut PeerTurn<'_>) {
        self.registration.set_registered(true);
        match self.life.config.membership.clone() {
            config::Membership::Open(contacts) => self.begin_open(turn, contacts),
            config::Membership::Fixed(members) => {
                for (at, peer) in (0..).zip(members) {
                    let (incarnation, status, voters) = (0, Status::Alive, Vec::new());
                    self.membership
                        .members
                        .merge(peer, Record::plain(incarnation, status, at, voters));
                }
                turn.member(MemberEvent::Registered);
            }
            // There would be nobody to ask; such settings are refused before a peer starts.
            config::Membership::Voted => {}
        }
        self.arrange(turn);
        self.fill(turn);
    }
}
