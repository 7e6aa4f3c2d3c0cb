//! A peer tells its seeds which links it holds, for the picture that they keep
//! of the overlay (DESIGN.md, section 3).

use std::time::Duration;

use super::{PeerMachine, Timer};
use crate::proto::message::{Addr, ToSeed};
use crate::proto::turn::PeerTurn;

/// Changes of links gather this long before they are reported: a peer that starts makes several.
const REPORT_DELAY: Duration = Duration::from_millis(500);

impl PeerMachine {
    /// Links have come or gone.
    pub(super) fn links_changed(&mut self, turn: &mut PeerTurn<'_>) {
        self.timers.set_if_unset(Timer::Report, turn.now + REPORT_DELAY);
    }

    /// Reports the links to a seed that is connected; without one, the next refresh does it.
    pub(super) fn report_links(&mut self, turn: &mut PeerTurn<'_>) {
        if let Some(seed) = self.registration.first_connected() {
            self.report_links_to(turn, seed);
        }
    }

    /// Reports the links to one seed.
    pub(super) fn report_links_to(&mut self, turn: &mut PeerTurn<'_>, seed: Addr) {
        if self.registration.is_registered() && !self.life.leaving {
            // Time never goes back within a life, so it orders the reports.
            let number = turn.now.micros();
            let neighbours = self.overlay.peers().copied().collect();
            self.say(turn, seed, ToSeed::Links { number, neighbours });
        }
    }
}
