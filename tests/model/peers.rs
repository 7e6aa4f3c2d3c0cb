//! What the stub peers do, say and hear: the lines of the script, and lists that are asked for.

use std::sync::Arc;

use rumormill::proto::machine::Input;
use rumormill::proto::message::{Message, Purpose, Role, ToPeer, ToSeed};

use super::history::{Entry, Op, Ret};
use super::ledger::{LISTS_FROM, entry, request_of};
use super::scenario::{Deed, SEEDS, Scenario};
use super::seat::{network, peer_addr};
use super::world::{Life, Reading, World, quorum};

/// The digest that no registry has, so that a list is what is answered.
const NO_DIGEST: [u8; 32] = [0xff; 32];

impl World {
    /// A peer says something to a seed, on a connection that it opens first if it has none.
    pub fn say(&mut self, scenario: &Scenario, place: usize, peer: usize, message: Message) {
        if self.seats[place].machine.is_none() {
            return;
        }
        let conn = match self.seats[place].clients[peer] {
            Some(conn) => conn,
            None => {
                let conn = self.seat(place).next_incoming();
                self.seat(place).clients[peer] = Some(conn);
                let from = peer_addr(peer);
                let hello = network().hello(Role::Peer, from, 1, Purpose::Membership);
                self.give(scenario, place, Input::Incoming { conn, hello });
                conn
            }
        };
        self.give(scenario, place, Input::Received { conn, message });
    }

    /// A peer does what a line of the script says.
    pub fn perform(&mut self, scenario: &Scenario, line: usize) {
        self.said |= 1 << line;
        let deed = scenario.script[line].deed;
        let request = request_of(line);
        match deed {
            Deed::Register { peer, incarnation, seed } => {
                Arc::make_mut(&mut self.ledger).asks(line, &deed);
                self.say(
                    scenario,
                    seed,
                    peer,
                    Message::ToSeed(ToSeed::Register { request, incarnation }),
                );
            }
            Deed::Leave { peer, incarnation, seed } => {
                Arc::make_mut(&mut self.ledger).asks(line, &deed);
                self.say(
                    scenario,
                    seed,
                    peer,
                    Message::ToSeed(ToSeed::Leave { request, incarnation }),
                );
            }
            Deed::Report { accused, incarnation, seed } => {
                let (peer, text) = (peer_addr(accused), String::new());
                let message = Message::ToSeed(ToSeed::DeadNode { peer, incarnation, text });
                self.say(scenario, seed, 1 - accused, message);
            }
            Deed::Dies { peer } => self.peers[peer] = None,
            Deed::Starts { peer, incarnation } => {
                self.peers[peer] = Some(Life { incarnation, leaving: false });
            }
            Deed::Departs { peer } => {
                if let Some(life) = &mut self.peers[peer] {
                    life.leaving = true;
                }
            }
        }
    }

    /// The reader asks two seeds for their lists at the same moment.
    pub fn ask_both_for_lists(&mut self, scenario: &Scenario, seeds: [usize; 2]) {
        let number = self.reading.number;
        for seed in seeds {
            self.ask_for_list(scenario, seed);
        }
        self.reading = Reading { number: number + 1, ..Reading::default() };
    }

    /// The reader asks one more seed for its list.
    pub fn ask_for_list(&mut self, scenario: &Scenario, seed: usize) {
        let request = LISTS_FROM + u64::from(self.reading.number);
        Arc::make_mut(&mut self.ledger).histories[0].ask(request, Op::List);
        self.reading.asked |= 1 << seed;
        self.say(
            scenario,
            seed,
            1,
            Message::ToSeed(ToSeed::Refresh { request, digest: NO_DIGEST }),
        );
        if scenario.slow_lists && (self.reading.agreed || self.reading.asked == (1 << SEEDS) - 1) {
            self.reading = Reading { number: self.reading.number + 1, ..Reading::default() };
        }
    }

    /// A peer hears from a seed; false if that is only news.
    pub fn hear_answer(&mut self, scenario: &Scenario, message: Message) -> bool {
        match message {
            Message::ToPeer(ToPeer::Granted { request, .. }) if request > 0 => {
                Arc::make_mut(&mut self.ledger).grants(scenario, request);
            }
            Message::ToPeer(ToPeer::List { request, records, more: false })
                if request >= LISTS_FROM =>
            {
                self.reading.answers.push(entry(&records, peer_addr(0)));
                let agreeing = |one: &Entry| {
                    self.reading.answers.iter().filter(|other| *other == one).count() >= quorum()
                };
                // Where they disagree, something is under way, and the reader asks on.
                if let Some(agreed) = self.reading.answers.iter().copied().find(agreeing) {
                    let ledger = Arc::make_mut(&mut self.ledger);
                    ledger.histories[0].answer(request, Ret::Is(agreed));
                    self.reading.agreed = true;
                }
            }
            Message::ToPeer(ToPeer::Update(_)) => return false,
            _ => {}
        }
        true
    }
}
