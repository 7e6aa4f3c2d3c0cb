//! What comes of a state when nothing more goes wrong: all arrives, and some time passes.

use std::time::Duration;

use rumormill::proto::machine::Input;
use rumormill::proto::time::Time;

use super::scenario::{SEEDS, Scenario};
use super::world::World;

/// Longer than three comparisons of registries, and than any ballot.
const SETTLING: Duration = Duration::from_secs(8);

impl World {
    /// Nothing is under way anywhere, and nothing is broken.
    pub fn is_quiet(&self) -> bool {
        self.seats.iter().all(|seat| seat.is_quiet())
            && self.links.len() == SEEDS * (SEEDS - 1)
            && self.links.values().all(|link| link.queue.is_empty())
    }

    /// Lets everything arrive, and some time pass, without any fault.
    pub fn settle(&mut self, scenario: &Scenario) {
        let calm = Scenario { slow_disks: false, slow_probes: false, ..scenario.clone() };
        let ends: Vec<Time> = self.seats.iter().map(|seat| seat.now + SETTLING).collect();
        loop {
            self.calm_down(&calm);
            let next = (0..SEEDS)
                .filter_map(|place| Some((place, self.due(place)?)))
                .filter(|(place, due)| *due <= ends[*place])
                .max_by_key(|(place, due)| ends[*place].since(*due));
            let Some((place, due)) = next else { break };
            self.wait_until(place, due);
            self.give(&calm, place, Input::Tick);
        }
        for (place, end) in ends.into_iter().enumerate() {
            self.wait_until(place, end);
        }
    }

    /// Lets all that is under way arrive, in order.
    fn calm_down(&mut self, calm: &Scenario) {
        loop {
            for place in 0..SEEDS {
                while let Some(input) = self.seat(place).sync() {
                    self.give(calm, place, input);
                }
                while let Some((conn, peer)) = self.seats[place].probes.first_key_value() {
                    let input = self.dial_back(*conn, *peer);
                    self.give(calm, place, input);
                }
            }
            let busy = self.links.iter().find(|(_, link)| !link.queue.is_empty());
            let Some(name) = busy.map(|(name, _)| *name) else { return };
            self.deliver(calm, name, 0);
        }
    }
}
