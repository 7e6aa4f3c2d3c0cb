//! The model as the checker sees it: what may happen next in a state, and what must hold in each.

use rumormill::proto::machine::{Conn, Input, OpenError};
use stateright::{Model, Property};

use super::checks;
use super::scenario::{Deed, Fault, SEEDS, Scenario};
use super::world::World;

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A peer does the next thing in the script.
    Line(usize, Deed),
    /// A reader asks a seed for its list.
    List { seed: usize },
    /// A reader asks two seeds at the same moment.
    Lists([usize; 2]),
    /// The first message of a connection reaches the seed that dialled it.
    Deliver { to: usize, from: usize },
    /// It arrives, and will arrive again, after what else is on its way.
    DeliverTwice { to: usize, from: usize },
    /// The second message arrives before the first.
    Overtake { to: usize, from: usize },
    /// A connection breaks with what is under way on it, and is dialled again.
    Lose { to: usize, from: usize },
    /// A connection breaks.
    Cut { dialled: usize, called: usize },
    /// It is dialled again.
    Redial { dialled: usize, called: usize },
    /// A probe ends.
    Probe { seed: usize, conn: Conn },
    /// A probe of a peer that would answer is lost.
    Blind { seed: usize, conn: Conn },
    /// A seed's oldest write becomes durable.
    Sync { seed: usize },
    /// A seed's process ends; so many of its unsynced writes survive.
    Crash { seed: usize, survive: usize },
    /// A seed's process ends, and its disk is lost.
    LoseDisk { seed: usize },
    /// A seed's process begins.
    Start { seed: usize },
    /// A seed's next timer is due.
    Tick { seed: usize },
}

impl Action {
    /// The kind of fault that it is, if it is one.
    fn fault(&self) -> Option<Fault> {
        match self {
            Action::DeliverTwice { .. } => Some(Fault::Twice),
            Action::Overtake { .. } => Some(Fault::Overtaken),
            Action::Lose { .. } => Some(Fault::Lose),
            Action::Cut { .. } => Some(Fault::Cut),
            Action::Blind { .. } => Some(Fault::Blind),
            Action::Crash { .. } => Some(Fault::Crash),
            Action::LoseDisk { .. } => Some(Fault::DiskLost),
            Action::Tick { .. } => Some(Fault::Tick),
            Action::Line(..)
            | Action::List { .. }
            | Action::Lists(_)
            | Action::Deliver { .. }
            | Action::Redial { .. }
            | Action::Probe { .. }
            | Action::Sync { .. }
            | Action::Start { .. } => None,
        }
    }
}

/// The seeds' council under one scenario.
#[derive(Clone, Debug)]
pub struct Council {
    pub scenario: Scenario,
    start: World,
}

impl Council {
    pub fn new(scenario: Scenario) -> Self {
        assert!(scenario.script.len() <= 32, "what was said is kept in 32 bits");
        let start = World::new(&scenario);
        Self { scenario, start }
    }

    fn may_fail(&self, world: &World, fault: Fault) -> bool {
        let bounds = &self.scenario.faults;
        world.spent[fault as usize] < bounds.each[fault as usize]
            && world.spent.iter().sum::<u8>() < bounds.all
    }

    fn lines(&self, world: &World, actions: &mut Vec<Action>) {
        for (place, line) in self.scenario.script.iter().enumerate() {
            let said = |place: &usize| world.said & (1 << place) != 0;
            let hears = match line.deed {
                Deed::Register { seed, .. }
                | Deed::Leave { seed, .. }
                | Deed::Report { seed, .. } => world.seats[seed].machine.is_some(),
                Deed::Dies { .. } | Deed::Starts { .. } | Deed::Departs { .. } => true,
            };
            if !said(&place) && hears && line.after.iter().all(said) {
                actions.push(Action::Line(place, line.deed));
            }
        }
        if world.reading.number < self.scenario.lists {
            let asked = |seed: usize| world.reading.asked & (1 << seed) != 0;
            let seeds = (0..SEEDS).filter(|seed| !asked(*seed));
            let up = |seed: &usize| world.seats[*seed].machine.is_some();
            if self.scenario.slow_lists {
                actions.extend(seeds.filter(up).map(|seed| Action::List { seed }));
            } else {
                let pairs = [[0, 1], [0, 2], [1, 2]].into_iter();
                actions.extend(pairs.filter(|pair| pair.iter().all(up)).map(Action::Lists));
            }
        }
    }

    fn network(&self, world: &World, actions: &mut Vec<Action>) {
        for to in 0..SEEDS {
            for from in (0..SEEDS).filter(|from| *from != to) {
                let Some(link) = world.links.get(&(to, from)) else {
                    let (dialled, called) = (to, from);
                    if world.seats[to].machine.is_some() && world.seats[from].machine.is_some() {
                        actions.push(Action::Redial { dialled, called });
                    }
                    continue;
                };
                if !link.queue.is_empty() {
                    actions.push(Action::Deliver { to, from });
                    actions.push(Action::DeliverTwice { to, from });
                    actions.push(Action::Lose { to, from });
                }
                if link.queue.len() > 1 {
                    actions.push(Action::Overtake { to, from });
                }
                actions.push(Action::Cut { dialled: to, called: from });
            }
        }
    }

    fn seeds(&self, world: &World, actions: &mut Vec<Action>) {
        // Nothing is promised once more than a minority of the disks is lost, and a disk counts as
        // lost until its seed is relied on again.
        let lost = world.seats.iter().filter(|seat| !seat.is_relied_on()).count();
        for (seed, seat) in world.seats.iter().enumerate() {
            if seat.machine.is_none() {
                actions.push(Action::Start { seed });
                continue;
            }
            for (conn, peer) in &seat.probes {
                actions.push(Action::Probe { seed, conn: *conn });
                if world.peers[*peer].is_some() {
                    actions.push(Action::Blind { seed, conn: *conn });
                }
            }
            if !seat.disk.unsynced.is_empty() {
                actions.push(Action::Sync { seed });
            }
            if !self.scenario.frail.contains(&seed) {
                actions.push(Action::Tick { seed });
                continue;
            }
            for survive in 0..=seat.disk.unsynced.len() {
                actions.push(Action::Crash { seed, survive });
            }
            if lost + usize::from(seat.is_relied_on()) <= (SEEDS - 1) / 2 {
                actions.push(Action::LoseDisk { seed });
            }
            actions.push(Action::Tick { seed });
        }
    }
}

impl Model for Council {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.lines(world, actions);
        self.network(world, actions);
        self.seeds(world, actions);
        actions.retain(|action| action.fault().is_none_or(|fault| self.may_fail(world, fault)));
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        if let Some(fault) = action.fault() {
            world.spent[fault as usize] += 1;
        }
        let scenario = &self.scenario;
        match action {
            Action::Line(place, _) => world.perform(scenario, place),
            Action::List { seed } => world.ask_for_list(scenario, seed),
            Action::Lists(seeds) => world.ask_both_for_lists(scenario, seeds),
            Action::Deliver { to, from } => world.deliver(scenario, (to, from), 0),
            Action::DeliverTwice { to, from } => {
                if let Some(link) = world.links.get_mut(&(to, from)) {
                    let again = link.queue.front().cloned();
                    link.queue.extend(again);
                }
                world.deliver(scenario, (to, from), 0);
            }
            Action::Overtake { to, from } => world.deliver(scenario, (to, from), 1),
            Action::Lose { to, from } => {
                world.break_link(scenario, (to, from));
                world.redial(scenario, (to, from));
            }
            Action::Cut { dialled, called } => world.break_link(scenario, (dialled, called)),
            Action::Redial { dialled, called } => world.redial(scenario, (dialled, called)),
            Action::Probe { seed, conn } => {
                let peer = *world.seats[seed].probes.get(&conn)?;
                let input = world.dial_back(conn, peer);
                world.give(scenario, seed, input);
            }
            Action::Blind { seed, conn } => {
                world.give(scenario, seed, Input::OpenFailed { conn, error: OpenError::TimedOut });
            }
            Action::Sync { seed } => {
                let input = world.seat(seed).sync()?;
                world.give(scenario, seed, input);
            }
            Action::Crash { seed, survive } => {
                world.seat(seed).crash(survive);
                world.end(scenario, seed);
            }
            Action::LoseDisk { seed } => {
                world.seat(seed).crash(0);
                world.seat(seed).lose_disk();
                world.end(scenario, seed);
            }
            Action::Start { seed } => world.start(scenario, seed),
            Action::Tick { seed } => world.tick(scenario, seed),
        }
        world.seal();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(VOTED, |_, world| checks::each_record_was_voted_for(world)),
            Property::always(KEPT, |_, world| checks::what_was_granted_is_kept(world)),
            Property::always(SAME, |_, world| checks::same_commits_make_same_registries(world)),
            Property::always(HEALED, |council: &Council, world| {
                checks::all_are_alike_in_the_end(&council.scenario, world)
            }),
            Property::always(LIVING, |council: &Council, world| {
                checks::who_answers_is_not_dead(&council.scenario, world)
            }),
            Property::always(LINEARIZABLE, |_: &Council, world: &World| {
                world.ledger.histories.iter().all(|history| history.linearizable)
            }),
            // Of a model in which nothing is decided the rest would be true, too.
            Property::sometimes(DECIDED, |council: &Council, world: &World| {
                let registry = |seed: usize| world.seats[seed].registry();
                let news = |seed| registry(seed) != council.start.seats[seed].registry();
                (0..SEEDS).all(|seed| registry(seed).is_some() && registry(seed) == registry(0))
                    && (0..SEEDS).all(|seed| world.seats[seed].is_relied_on())
                    && (0..SEEDS).any(news)
            }),
        ]
    }
}

pub const VOTED: &str = "1: each record was accepted by a quorum that looked for itself";
pub const KEPT: &str = "2: what was granted is known to every quorum";
pub const SAME: &str = "3: seeds that heard the same commits hold the same registry";
pub const HEALED: &str = "3: after faults stop, all hold the same registry";
pub const LIVING: &str = "4: a peer that answers probes is not committed dead";
pub const LINEARIZABLE: &str = "register, dead and list are linearizable";
pub const DECIDED: &str = "all seeds agree on something new";
